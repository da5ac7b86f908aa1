-- What outlives an attempt: checkpoints, short-term memories, and the versions of tasks.
--
-- The same tables exist in migrations/postgres; a test compares the two.

-- The narrow columns come first, as in `tasks`.
CREATE TABLE checkpoints (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id > 0),
    task INTEGER NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    attempt INTEGER NOT NULL CHECK (attempt >= 0),
    -- The assignment that saved it, and the number that its worker gave it; 0 for a client's.
    fence INTEGER NOT NULL CHECK (fence >= 0),
    number INTEGER NOT NULL CHECK (number >= 0),
    json INTEGER NOT NULL CHECK (json IN (0, 1)),
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    created_at INTEGER NOT NULL,
    name TEXT NOT NULL CHECK (name <> ''),
    -- Where the task's files were.
    git_commit TEXT CHECK (git_commit <> ''),
    git_ref TEXT,
    -- Its bytes, here or elsewhere.
    sha256 BLOB CHECK (length(sha256) = 32),
    data BLOB,
    -- What the task remembered then, as JSON.
    memory TEXT CHECK (memory <> ''),
    CONSTRAINT bytes_are_somewhere CHECK ((sha256 IS NULL) <> (data IS NULL)),
    CONSTRAINT commit_has_its_ref CHECK ((git_commit IS NULL) = (git_ref IS NULL))
) STRICT;

CREATE INDEX checkpoints_of_task ON checkpoints (task, id);

-- For retention, which asks whether anybody names a blob.
CREATE INDEX checkpoints_by_hash ON checkpoints (sha256) WHERE sha256 IS NOT NULL;

-- Where the next attempt begins, if somebody has chosen: at a checkpoint, or (NULL) at the beginning.
CREATE TABLE checkpoint_choices (
    task INTEGER NOT NULL PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
    checkpoint INTEGER CHECK (checkpoint > 0)
) STRICT;

CREATE TABLE task_memory (
    task INTEGER NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    name TEXT NOT NULL CHECK (name <> ''),
    -- JSON.
    value TEXT NOT NULL CHECK (value <> ''),
    expires_at INTEGER,
    PRIMARY KEY (task, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE run_memory (
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    name TEXT NOT NULL CHECK (name <> ''),
    -- JSON.
    value TEXT NOT NULL CHECK (value <> ''),
    expires_at INTEGER,
    PRIMARY KEY (run, name)
) STRICT, WITHOUT ROWID;

-- Every version of a task that was upgraded, each whole; of the others the task's own row says it
-- all. `task_specs.uses` counts these rows too.
CREATE TABLE task_versions (
    task INTEGER NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    version INTEGER NOT NULL CHECK (version > 0),
    spec BLOB NOT NULL CHECK (length(spec) = 16),
    created_at INTEGER NOT NULL,
    title TEXT NOT NULL,
    reason TEXT NOT NULL,
    author TEXT NOT NULL,
    PRIMARY KEY (task, version)
) STRICT, WITHOUT ROWID;

-- A constant of 1 takes no room behind the wide columns and is read without them.
ALTER TABLE tasks ADD COLUMN version INTEGER NOT NULL DEFAULT 1 CHECK (version > 0);

ALTER TABLE leadership ADD COLUMN last_checkpoint INTEGER NOT NULL DEFAULT 0 CHECK (last_checkpoint >= 0);
