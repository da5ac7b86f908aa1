-- Takes everything of the main path away, data included.
DROP TABLE leadership;
DROP TABLE idempotency_keys;
DROP TABLE event_subjects;
DROP TABLE event_segments;
DROP TABLE workers;
DROP TABLE task_logs;
DROP TABLE attempts;
DROP TABLE tasks;
DROP TABLE task_specs;
