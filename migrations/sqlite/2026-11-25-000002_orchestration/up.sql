-- Orchestration: relations between tasks, workflows, and their runs.
--
-- The same tables exist in migrations/postgres; a test compares the two.

-- A task's place in a run: both or neither. `run` names a row of `runs` without a reference to it,
-- which would be checked for tasks without a run, too. What is NULL, and a `waits` of 0, take no
-- room behind the wide columns and are read without them.
ALTER TABLE tasks ADD COLUMN run INTEGER CHECK (run > 0);
ALTER TABLE tasks ADD COLUMN node TEXT
    CONSTRAINT node_of_a_run CHECK ((run IS NULL) = (node IS NULL) AND node <> '');
-- 0 nothing but workers and time, 1 release, 2 approval, 3 its parts, 4 room in its run
ALTER TABLE tasks ADD COLUMN waits INTEGER NOT NULL DEFAULT 0 CHECK (waits BETWEEN 0 AND 4);

-- What a run's nodes are found by; tasks without a run are not in it.
CREATE INDEX tasks_of_run ON tasks (run, id) WHERE run IS NOT NULL;

CREATE TABLE task_relationships (
    predecessor INTEGER NOT NULL REFERENCES tasks (id),
    successor INTEGER NOT NULL REFERENCES tasks (id),
    -- 0 dependency, 1 context, 2 sequential, 3 parallel, 4 upgrade
    relation INTEGER NOT NULL CHECK (relation BETWEEN 0 AND 4),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (predecessor, successor, relation),
    CONSTRAINT another_task CHECK (predecessor <> successor)
) STRICT, WITHOUT ROWID;

CREATE INDEX task_relationships_by_successor ON task_relationships (successor, predecessor, relation);

-- Equal workflows are kept once.
CREATE TABLE run_definitions (
    hash BLOB NOT NULL PRIMARY KEY CHECK (length(hash) = 16),
    body TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The narrow columns come first, as in `tasks`.
CREATE TABLE runs (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id > 0),
    -- 0 pending, 1 running, 2 paused, 3 completed, 4 failed, 5 cancelled
    status INTEGER NOT NULL CHECK (status BETWEEN 0 AND 5),
    revision INTEGER NOT NULL CHECK (revision >= 1),
    -- The numbers of its nodes begin here, whether they have a row in `tasks` yet or not.
    first_task INTEGER NOT NULL CHECK (first_task > 0),
    nodes INTEGER NOT NULL CHECK (nodes >= 0),
    -- The node of another run that it is.
    parent INTEGER CHECK (parent > 0),
    created_at INTEGER NOT NULL,
    settled_at INTEGER,
    definition BLOB NOT NULL REFERENCES run_definitions (hash),
    mode TEXT NOT NULL CHECK (mode IN ('sequential', 'parallel', 'dag', 'pipeline', 'conditional')),
    name TEXT NOT NULL CHECK (name <> ''),
    error TEXT,
    inputs TEXT NOT NULL CHECK (inputs <> ''),
    CONSTRAINT settled_has_its_time CHECK ((status >= 3) = (settled_at IS NOT NULL))
) STRICT;

-- What recovery and listings of live runs scan.
CREATE INDEX runs_live ON runs (id) WHERE status < 3;

-- For the numbers of nodes of which nothing has become yet.
CREATE INDEX runs_by_first_task ON runs (first_task);

-- For retention, which asks whether a definition still has a run.
CREATE INDEX runs_of_definition ON runs (definition);

-- How many may hold a concurrency key, and how many may begin with it in a time. Who holds one is
-- not kept: it follows from who is in a worker's hands.
CREATE TABLE concurrency_keys (
    name TEXT NOT NULL PRIMARY KEY CHECK (name <> ''),
    max_holders INTEGER NOT NULL CHECK (max_holders > 0),
    rate_count INTEGER CHECK (rate_count > 0),
    rate_per_ms INTEGER CHECK (rate_per_ms > 0),
    CONSTRAINT whole_rate CHECK ((rate_count IS NULL) = (rate_per_ms IS NULL))
) STRICT, WITHOUT ROWID;

-- What is begun again and again. A time that has come moves `next_at` on in the transaction that
-- makes its task or run.
CREATE TABLE schedules (
    name TEXT NOT NULL PRIMARY KEY CHECK (name <> ''),
    cron TEXT NOT NULL CHECK (cron <> ''),
    zone TEXT NOT NULL CHECK (zone <> ''),
    -- 0 skip, 1 once, 2 all
    catch_up INTEGER NOT NULL CHECK (catch_up BETWEEN 0 AND 2),
    paused INTEGER NOT NULL CHECK (paused IN (0, 1)),
    next_at INTEGER,
    last_at INTEGER,
    fired INTEGER NOT NULL CHECK (fired >= 0),
    created_at INTEGER NOT NULL,
    -- A JSON object, as it was written.
    body TEXT NOT NULL CHECK (body <> '')
) STRICT, WITHOUT ROWID;

ALTER TABLE leadership ADD COLUMN last_run INTEGER NOT NULL DEFAULT 0 CHECK (last_run >= 0);
