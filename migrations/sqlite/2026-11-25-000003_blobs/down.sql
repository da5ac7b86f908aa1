-- Takes the names of blobs away, not the files; loops that go round begin to count anew.
UPDATE runs SET error = 'it is being cancelled' WHERE status < 3 AND stopping = 2;
ALTER TABLE runs DROP COLUMN stopping;
DROP TABLE task_rounds;
DROP TABLE spec_blobs;
DROP TABLE task_blobs;
