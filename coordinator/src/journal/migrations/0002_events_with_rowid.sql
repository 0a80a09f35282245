-- In a table WITHOUT ROWID rows are compared whole, and the first event of a run holds its plan, megabytes of it: each event that was written beside one
-- read all of that. With a rowid the keys are in an index of their own, which holds nothing else.
CREATE TABLE events_with_rowid (
    run TEXT NOT NULL,
    position INTEGER NOT NULL,
    -- The attempt and the place among its events; null for the coordinator's events.
    cell TEXT,
    attempt INTEGER,
    seq INTEGER NOT NULL,
    at_us INTEGER NOT NULL,
    mono_us INTEGER NOT NULL,
    kind TEXT NOT NULL,
    PRIMARY KEY (run, position)
);
INSERT INTO events_with_rowid (run, position, cell, attempt, seq, at_us, mono_us, kind)
    SELECT run, position, cell, attempt, seq, at_us, mono_us, kind FROM events ORDER BY run, position;
DROP TABLE events;
ALTER TABLE events_with_rowid RENAME TO events;
