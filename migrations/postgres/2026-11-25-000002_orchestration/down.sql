-- Takes runs, workflows, relations, keys and schedules away; the tasks stay, as tasks without a run.
ALTER TABLE leadership DROP COLUMN last_run;
DROP TABLE schedules;
DROP TABLE concurrency_keys;
DROP TABLE runs;
DROP TABLE run_definitions;
DROP TABLE task_relationships;
DROP INDEX tasks_of_run;
ALTER TABLE tasks DROP COLUMN waits;
-- Before `run`, which its CHECK names.
ALTER TABLE tasks DROP COLUMN node;
ALTER TABLE tasks DROP COLUMN run;
