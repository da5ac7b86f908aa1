-- Rows that version rows alone name go with them.
DELETE FROM task_specs WHERE hash IN (SELECT spec FROM task_versions)
    AND hash NOT IN (SELECT spec FROM tasks);
UPDATE task_specs SET uses = (SELECT count(*) FROM tasks WHERE tasks.spec = task_specs.hash)
    WHERE hash IN (SELECT spec FROM task_versions);
DROP TABLE task_versions;
DROP TABLE run_memory;
DROP TABLE task_memory;
DROP TABLE checkpoint_choices;
DROP TABLE checkpoints;
ALTER TABLE leadership DROP COLUMN last_checkpoint;
ALTER TABLE tasks DROP COLUMN version;
