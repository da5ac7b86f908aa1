-- Upgrades of runs: the versions of each, and which task each node is since.
--
-- The same tables exist in migrations/postgres; a test compares the two.

-- A constant of 1 takes no room behind the wide columns and is read without them.
ALTER TABLE runs ADD COLUMN version INTEGER NOT NULL DEFAULT 1 CHECK (version > 0);

-- Nodes that follow each other and whose tasks do so too. A run whose nodes were changed by an upgrade
-- has all its nodes here; of the others `first_task` and `nodes` say it all.
CREATE TABLE run_ranges (
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    -- The index of the first.
    node INTEGER NOT NULL CHECK (node >= 0),
    task INTEGER NOT NULL CHECK (task > 0),
    count INTEGER NOT NULL CHECK (count > 0),
    PRIMARY KEY (run, node)
) STRICT, WITHOUT ROWID;

-- For the numbers of nodes of which nothing has become yet.
CREATE INDEX run_ranges_by_task ON run_ranges (task);

-- Every version of a run that was upgraded, each whole; of the others the run's own row says it all.
CREATE TABLE run_versions (
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    version INTEGER NOT NULL CHECK (version > 0),
    definition BLOB NOT NULL REFERENCES run_definitions (hash),
    created_at INTEGER NOT NULL,
    inputs TEXT NOT NULL CHECK (inputs <> ''),
    reason TEXT NOT NULL,
    author TEXT NOT NULL,
    PRIMARY KEY (run, version)
) STRICT;

-- For retention, which asks whether a definition still has a version.
CREATE INDEX run_versions_of_definition ON run_versions (definition);

-- Nodes whose attempt is of an older version of their run, so that the next one is made anew.
CREATE TABLE task_outdated (
    task INTEGER NOT NULL PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE
) STRICT;
