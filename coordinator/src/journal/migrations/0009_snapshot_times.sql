-- How long a cell took that could restore a snapshot: with one, and without. A cell that waited for another one to make it is in neither row.
CREATE TABLE snapshot_times (
    spec TEXT NOT NULL,
    cell TEXT NOT NULL,
    matrix TEXT NOT NULL,
    restored INTEGER NOT NULL,
    elapsed_ms INTEGER NOT NULL,
    -- From the start of the cell until others could restore what it had made; null if it made none.
    making_ms INTEGER,
    at_us INTEGER NOT NULL,
    PRIMARY KEY (spec, cell, restored)
) WITHOUT ROWID;
