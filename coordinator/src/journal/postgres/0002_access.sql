-- Each run belongs to a namespace, and to whoever submitted it (empty without access control).
ALTER TABLE runs ADD COLUMN namespace TEXT COLLATE "C" NOT NULL DEFAULT 'default';
ALTER TABLE runs ADD COLUMN submitted_by TEXT NOT NULL DEFAULT '';
CREATE INDEX runs_by_namespace ON runs (namespace, submitted_us DESC, run DESC);
