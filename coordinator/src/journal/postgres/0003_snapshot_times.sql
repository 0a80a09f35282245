-- How long a cell took that could restore a snapshot: with one, and without. A cell that waited for another one to make it is in neither row.
CREATE TABLE snapshot_times (
    spec TEXT COLLATE "C" NOT NULL,
    cell TEXT COLLATE "C" NOT NULL,
    matrix TEXT NOT NULL,
    restored BIGINT NOT NULL,
    elapsed_ms BIGINT NOT NULL,
    -- From the start of the cell until others could restore what it had made; null if it made none.
    making_ms BIGINT,
    at_us BIGINT NOT NULL,
    PRIMARY KEY (spec, cell, restored)
);
