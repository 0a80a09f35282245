-- A list of runs, the look-up of one by the beginning of its id, and clean-up need a few short columns. They stand beside and behind the submission, which is
-- megabytes long at times: a list of a hundred runs read all of these. An index that holds every column of a list is read in their place.
ALTER TABLE runs ADD COLUMN workspace TEXT;
-- A row that can't be read stops nobody.
UPDATE runs SET workspace = json_extract(submission, '$.workspace_digest') WHERE json_valid(submission);
DROP INDEX runs_by_time;
CREATE INDEX runs_listed ON runs (submitted_us, run, spec, digest, cells, workspace, finished_us, outcome, counts, cancel, settled);
