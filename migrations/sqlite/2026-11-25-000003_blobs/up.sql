-- What is kept by its hash beside the rows; rounds of loops; runs that are about to end.
--
-- The same tables exist in migrations/postgres; a test compares the two.

-- What attempts left: few do, and the others pay nothing for it.
CREATE TABLE task_blobs (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    task INTEGER NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    attempt INTEGER NOT NULL CHECK (attempt >= 0),
    -- 0 result, 1 outputs, 2 artifact
    role INTEGER NOT NULL CHECK (role BETWEEN 0 AND 2),
    -- Of an artifact; otherwise empty.
    path TEXT NOT NULL,
    sha256 BLOB NOT NULL CHECK (length(sha256) = 32),
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    executable INTEGER NOT NULL CHECK (executable IN (0, 1)),
    UNIQUE (task, attempt, role, path),
    CONSTRAINT artifact_has_its_path CHECK ((role = 2) = (path <> ''))
) STRICT;

-- For retention, which asks whether anybody names a blob.
CREATE INDEX task_blobs_by_hash ON task_blobs (sha256);

-- Inputs that are too large for a specification's text.
CREATE TABLE spec_blobs (
    spec BLOB NOT NULL REFERENCES task_specs (hash) ON DELETE CASCADE,
    sha256 BLOB NOT NULL CHECK (length(sha256) = 32),
    PRIMARY KEY (spec, sha256)
) STRICT, WITHOUT ROWID;

CREATE INDEX spec_blobs_by_hash ON spec_blobs (sha256);

-- How often the loop of a live node has gone round, where it has.
CREATE TABLE task_rounds (
    task INTEGER NOT NULL PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
    round INTEGER NOT NULL CHECK (round > 1)
) STRICT;

-- 0 no, 1 because a node failed, 2 because somebody cancelled it
ALTER TABLE runs ADD COLUMN stopping INTEGER NOT NULL DEFAULT 0 CHECK (stopping BETWEEN 0 AND 2);
UPDATE runs SET stopping = 2, error = NULL WHERE status < 3 AND error IS NOT NULL;
