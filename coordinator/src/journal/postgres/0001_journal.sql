-- One row: who leads. Each commit raises `commits`, so the row is both the fence (a commit of an earlier leader finds another
-- holder) and the answer to a leader that lost the connection during a commit.
CREATE TABLE leader (
    one BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (one),
    epoch BIGINT NOT NULL DEFAULT 0,
    holder TEXT,
    -- Where the holder runs, for people.
    place TEXT NOT NULL DEFAULT '',
    commits BIGINT NOT NULL DEFAULT 0,
    -- Raised by the holder every few seconds: a standby that doesn't see it rise takes over.
    beat BIGINT NOT NULL DEFAULT 0,
    -- Id of the directory with logs, artifacts and workspaces.
    files TEXT
);
INSERT INTO leader DEFAULT VALUES;

-- One row per leader; the newest epoch is that of `leader`.
CREATE TABLE terms (
    epoch BIGINT PRIMARY KEY,
    holder TEXT NOT NULL,
    began_us BIGINT NOT NULL
);

-- A run. What it is follows from its events; the columns after `submission` repeat the end for lists.
CREATE TABLE runs (
    run TEXT COLLATE "C" PRIMARY KEY,
    submitted_us BIGINT NOT NULL,
    spec TEXT NOT NULL,
    digest TEXT NOT NULL,
    cells BIGINT NOT NULL,
    submission TEXT NOT NULL,
    workspace TEXT,
    finished_us BIGINT,
    outcome TEXT,
    counts TEXT,
    cancel TEXT,
    -- Nothing more will happen: finished, and every stack is gone.
    settled BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE INDEX runs_by_time ON runs (submitted_us DESC, run DESC);
CREATE INDEX runs_open ON runs (submitted_us DESC, run DESC) WHERE NOT settled;

CREATE TABLE events (
    run TEXT COLLATE "C" NOT NULL,
    position BIGINT NOT NULL,
    -- The attempt and the place among its events; null for the coordinator's events.
    cell TEXT,
    attempt BIGINT,
    seq BIGINT NOT NULL,
    at_us BIGINT NOT NULL,
    mono_us BIGINT NOT NULL,
    kind TEXT NOT NULL,
    PRIMARY KEY (run, position)
);

-- How long a cell took when it was last judged, to start the longest first.
CREATE TABLE durations (
    spec TEXT COLLATE "C" NOT NULL,
    cell TEXT COLLATE "C" NOT NULL,
    matrix TEXT NOT NULL,
    elapsed_ms BIGINT NOT NULL,
    at_us BIGINT NOT NULL,
    PRIMARY KEY (spec, cell)
);
