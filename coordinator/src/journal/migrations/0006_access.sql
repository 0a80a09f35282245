-- Each run belongs to a namespace, and to whoever submitted it (empty without access control).
ALTER TABLE runs ADD COLUMN namespace TEXT NOT NULL DEFAULT 'default';
ALTER TABLE runs ADD COLUMN submitted_by TEXT NOT NULL DEFAULT '';
-- Lists are read from this index alone, and each shows one namespace's runs.
DROP INDEX runs_listed;
CREATE INDEX runs_listed ON runs (submitted_us, run, spec, digest, cells, workspace, namespace, finished_us, outcome, counts, cancel, settled);

-- Tokens of clients. Of a token itself only its SHA-256 is here.
CREATE TABLE access_tokens (
    id TEXT PRIMARY KEY,
    digest BLOB NOT NULL,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    -- A namespace, or * for all.
    namespace TEXT NOT NULL,
    -- Whose token it is: runs belong to it.
    subject TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    expires_us INTEGER,
    used_us INTEGER,
    revoked_us INTEGER
) WITHOUT ROWID;
