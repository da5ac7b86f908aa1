-- Takes locks away, with their history and the fences; the tasks stay.
DROP TABLE lock_grants;
DROP TABLE lock_spaces;
ALTER TABLE leadership DROP COLUMN last_lock;
