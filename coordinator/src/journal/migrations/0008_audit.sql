-- What was done with the coordinator, by whom. Each row's hash covers the row and the hash of the one before.
CREATE TABLE audit (
    -- From 1 without gaps.
    number INTEGER PRIMARY KEY,
    at_us INTEGER NOT NULL,
    -- Id and name of the token; empty for somebody unknown.
    token TEXT NOT NULL,
    name TEXT NOT NULL,
    namespace TEXT NOT NULL,
    origin TEXT NOT NULL,
    call TEXT NOT NULL,
    about TEXT NOT NULL,
    result TEXT NOT NULL,
    hash BLOB NOT NULL
);
CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
BEGIN
    SELECT raise(ABORT, 'the audit log is append-only');
END;
CREATE TRIGGER audit_is_never_shortened BEFORE DELETE ON audit
BEGIN
    SELECT raise(ABORT, 'the audit log is append-only');
END;
