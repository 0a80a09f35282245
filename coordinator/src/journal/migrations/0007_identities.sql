-- Tokens by which agents enrol. Only the digest of a token's secret is here.
CREATE TABLE enrol_tokens (
    id TEXT PRIMARY KEY,
    digest BLOB NOT NULL,
    -- What the token gives: JSON.
    grants TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    expires_us INTEGER NOT NULL,
    uses INTEGER NOT NULL,
    used INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- Agents that enrolled, or were revoked. Rows stay.
CREATE TABLE identities (
    agent TEXT PRIMARY KEY,
    -- Null if another PKI made its certificates.
    grants TEXT,
    standing TEXT NOT NULL,
    reason TEXT,
    -- Numbers of the newest certificate that was issued, and of the newest that was used, and since when.
    issued INTEGER NOT NULL,
    used INTEGER NOT NULL,
    used_us INTEGER NOT NULL,
    expires_us INTEGER NOT NULL,
    changed_us INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE certificates (
    agent TEXT NOT NULL,
    generation INTEGER NOT NULL,
    -- Null for a renewal.
    token TEXT,
    -- SHA-256 of the public key.
    key BLOB NOT NULL,
    der BLOB NOT NULL,
    issued_us INTEGER NOT NULL,
    expires_us INTEGER NOT NULL,
    PRIMARY KEY (agent, generation)
) WITHOUT ROWID;
