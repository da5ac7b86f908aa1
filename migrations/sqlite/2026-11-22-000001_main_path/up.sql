-- The main path: tasks, their specifications, attempts and logs, workers, events, idempotency
-- keys, and who leads.
--
-- Times are microseconds since 1970-01-01 UTC, enums are numbers with a CHECK, JSON is text.
-- The same tables exist in migrations/postgres; a test compares the two.
--
-- Few indexes, on purpose. A task is written about three times in its life, 20,000 tasks a second,
-- and every further index would be written as often. Settled rows are listed by walking the
-- primary key in bounded steps; only what recovery scans has an index of its own.

-- "AfLw": lets a later start tell this database from somebody else's.
PRAGMA application_id = 1097223287;

-- Equal specifications are kept once. `uses` counts the tasks that name one, so that retention
-- finds the unused ones without an index on tasks; it is written once per commit and specification,
-- not once per task, and stands before the text, so that counting leaves a long text's pages alone.
CREATE TABLE task_specs (
    hash BLOB NOT NULL PRIMARY KEY CHECK (length(hash) = 16),
    uses INTEGER NOT NULL CHECK (uses >= 0),
    body TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The narrow columns come first: reading them does not touch the overflow pages of the wide ones.
CREATE TABLE tasks (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id > 0),
    -- 0 blocked, 1 pending, 2 running, 3 completed, 4 failed, 5 cancelled, 6 skipped
    status INTEGER NOT NULL CHECK (status BETWEEN 0 AND 6),
    priority INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 100),
    attempt INTEGER NOT NULL CHECK (attempt >= 0),
    fence INTEGER NOT NULL CHECK (fence >= 0),
    failures INTEGER NOT NULL CHECK (failures >= 0),
    lost INTEGER NOT NULL CHECK (lost >= 0),
    cancelling INTEGER NOT NULL CHECK (cancelling IN (0, 1)),
    created_at INTEGER NOT NULL,
    ready_at INTEGER NOT NULL,
    assigned_at INTEGER,
    started_at INTEGER,
    settled_at INTEGER,
    group_name TEXT NOT NULL CHECK (group_name <> ''),
    -- Who holds it, or who settled it. A pending task with a worker is assigned and not begun.
    worker TEXT CHECK (worker <> ''),
    spec BLOB NOT NULL CHECK (length(spec) = 16),
    title TEXT NOT NULL,
    -- Where its events are: ",a,b" names the event_segments that begin at a and b, in base 36.
    segments TEXT NOT NULL DEFAULT '',
    exit_code INTEGER,
    signal INTEGER,
    error TEXT,
    result TEXT,
    outputs TEXT,
    CONSTRAINT settled_has_its_time CHECK ((status >= 3) = (settled_at IS NOT NULL)),
    CONSTRAINT running_is_somewhere CHECK
        (status <> 2 OR (worker IS NOT NULL AND assigned_at IS NOT NULL AND started_at IS NOT NULL AND attempt > 0)),
    CONSTRAINT held_was_assigned CHECK (status <> 1 OR worker IS NULL OR (assigned_at IS NOT NULL AND attempt > 0)),
    CONSTRAINT blocked_is_nowhere CHECK (status <> 0 OR worker IS NULL)
) STRICT;

-- What recovery and listings of live tasks scan: as small as the live part of the table.
CREATE INDEX tasks_live ON tasks (id) WHERE status < 3;

-- Ended attempts; a first attempt that succeeds has no row, the task's own says it all.
CREATE TABLE attempts (
    task INTEGER NOT NULL REFERENCES tasks (id),
    attempt INTEGER NOT NULL CHECK (attempt > 0),
    fence INTEGER NOT NULL CHECK (fence >= 0),
    worker TEXT NOT NULL CHECK (worker <> ''),
    assigned_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER NOT NULL,
    -- 0 completed, 1 failed, 2 cancelled, 3 lost
    ending INTEGER NOT NULL CHECK (ending BETWEEN 0 AND 3),
    exit_code INTEGER,
    signal INTEGER,
    error TEXT,
    result TEXT,
    outputs TEXT,
    PRIMARY KEY (task, attempt)
) STRICT, WITHOUT ROWID;

-- Which attempts have written something; the bytes are in files.
CREATE TABLE task_logs (
    task INTEGER NOT NULL REFERENCES tasks (id),
    attempt INTEGER NOT NULL CHECK (attempt > 0),
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    cut INTEGER NOT NULL CHECK (cut >= 0 AND cut <= bytes),
    PRIMARY KEY (task, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE workers (
    name TEXT NOT NULL PRIMARY KEY CHECK (name <> ''),
    -- The 64 bits of an unsigned number.
    boot INTEGER NOT NULL,
    -- A JSON array of strings.
    group_names TEXT NOT NULL CHECK (json_type(group_names) = 'array'),
    -- A JSON object of strings.
    labels TEXT NOT NULL CHECK (json_type(labels) = 'object'),
    slots INTEGER NOT NULL CHECK (slots >= 0),
    prefetch INTEGER NOT NULL CHECK (prefetch >= 0),
    draining INTEGER NOT NULL CHECK (draining IN (0, 1)),
    registered_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The log: up to 256 events a row, as a JSON array; the n-th has the number first_seq + n.
CREATE TABLE event_segments (
    first_seq INTEGER NOT NULL PRIMARY KEY CHECK (first_seq > 0),
    last_seq INTEGER NOT NULL CHECK (last_seq BETWEEN first_seq AND first_seq + 255),
    -- When its last event was decided.
    at INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;

-- Which segments speak of a subject that is no task; a task's own row says it for tasks.
CREATE TABLE event_subjects (
    subject TEXT NOT NULL CHECK (subject <> ''),
    first_seq INTEGER NOT NULL CHECK (first_seq > 0),
    PRIMARY KEY (subject, first_seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX event_subjects_by_segment ON event_subjects (first_seq);

CREATE TABLE idempotency_keys (
    hash BLOB NOT NULL PRIMARY KEY CHECK (length(hash) = 16),
    body BLOB NOT NULL CHECK (length(body) = 16),
    first_task INTEGER NOT NULL CHECK (first_task > 0),
    task_count INTEGER NOT NULL CHECK (task_count > 0),
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- For retention, which asks for the oldest.
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (at);

-- One row: who may write, and the numbers that go on from where they were.
CREATE TABLE leadership (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    epoch INTEGER NOT NULL CHECK (epoch >= 0),
    taken_at INTEGER NOT NULL,
    -- Names this log of events; a cursor from another one is refused.
    log_id TEXT NOT NULL CHECK (log_id <> ''),
    head_seq INTEGER NOT NULL CHECK (head_seq >= 0),
    -- The last decision of that epoch that was written.
    last_batch INTEGER NOT NULL CHECK (last_batch >= 0),
    last_task INTEGER NOT NULL CHECK (last_task >= 0),
    settled_completed INTEGER NOT NULL CHECK (settled_completed >= 0),
    settled_failed INTEGER NOT NULL CHECK (settled_failed >= 0),
    settled_cancelled INTEGER NOT NULL CHECK (settled_cancelled >= 0),
    settled_skipped INTEGER NOT NULL CHECK (settled_skipped >= 0)
) STRICT;

INSERT INTO leadership VALUES (1, 0, 0, lower(hex(randomblob(8))), 0, 0, 0, 0, 0, 0, 0);
