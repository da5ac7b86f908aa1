-- Earlier tables cannot say which tasks the nodes of such a run are: it goes, and its tasks stay, as
-- tasks without a run.
UPDATE tasks SET run = NULL, node = NULL WHERE run IN (SELECT run FROM run_ranges);
DELETE FROM runs WHERE id IN (SELECT run FROM run_ranges);
DROP TABLE task_outdated;
DROP TABLE run_versions;
DROP TABLE run_ranges;
-- Workflows that versions alone named go with them.
DELETE FROM run_definitions WHERE hash NOT IN (SELECT definition FROM runs);
ALTER TABLE runs DROP COLUMN version;
