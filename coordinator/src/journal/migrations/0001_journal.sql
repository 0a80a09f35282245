-- One row per coordinator's life on this database; the number of the newest is the epoch.
CREATE TABLE terms (
    epoch INTEGER PRIMARY KEY AUTOINCREMENT,
    began_us INTEGER NOT NULL
);

-- A run. What it is follows from its events; the columns after `submission` repeat the end for lists.
CREATE TABLE runs (
    run TEXT PRIMARY KEY,
    submitted_us INTEGER NOT NULL,
    spec TEXT NOT NULL,
    digest TEXT NOT NULL,
    cells INTEGER NOT NULL,
    submission TEXT NOT NULL,
    finished_us INTEGER,
    outcome TEXT,
    counts TEXT,
    cancel TEXT,
    -- Nothing more will happen: finished, and every stack is gone.
    settled INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX runs_by_time ON runs (submitted_us);

CREATE TABLE events (
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
) WITHOUT ROWID;

-- How long a cell took when it was last judged, to start the longest first.
CREATE TABLE durations (
    spec TEXT NOT NULL,
    cell TEXT NOT NULL,
    matrix TEXT NOT NULL,
    elapsed_ms INTEGER NOT NULL,
    at_us INTEGER NOT NULL,
    PRIMARY KEY (spec, cell)
) WITHOUT ROWID;
