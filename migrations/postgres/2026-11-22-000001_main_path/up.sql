-- The main path: tasks, their specifications, attempts and logs, workers, events, idempotency
-- keys, and who leads.
--
-- Times are microseconds since 1970-01-01 UTC, enums are numbers with a CHECK, JSON is text.
-- The same tables exist in migrations/sqlite; a test compares the two.
--
-- Few indexes, on purpose. A task is written about three times in its life, 20,000 tasks a second,
-- and every further index would be written as often. Settled rows are listed by walking the
-- primary key in bounded steps; only what recovery scans has an index of its own.

-- Equal specifications are kept once. `uses` counts the tasks that name one, so that retention
-- finds the unused ones without an index on tasks; it is written once per commit and specification,
-- not once per task, and stands before the text, so that counting leaves a long text's pages alone.
CREATE TABLE task_specs (
    hash BYTEA NOT NULL PRIMARY KEY CHECK (length(hash) = 16),
    uses BIGINT NOT NULL CHECK (uses >= 0),
    body TEXT NOT NULL
);

-- Wide values move out of the row by themselves. A change of status always touches the partial
-- index, so that no update stays within its page and a fill factor would only spread the table.
CREATE TABLE tasks (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id > 0),
    -- 0 blocked, 1 pending, 2 running, 3 completed, 4 failed, 5 cancelled, 6 skipped
    status INTEGER NOT NULL CHECK (status BETWEEN 0 AND 6),
    priority INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 100),
    attempt INTEGER NOT NULL CHECK (attempt >= 0),
    fence BIGINT NOT NULL CHECK (fence >= 0),
    failures INTEGER NOT NULL CHECK (failures >= 0),
    lost INTEGER NOT NULL CHECK (lost >= 0),
    cancelling INTEGER NOT NULL CHECK (cancelling IN (0, 1)),
    created_at BIGINT NOT NULL,
    ready_at BIGINT NOT NULL,
    assigned_at BIGINT,
    started_at BIGINT,
    settled_at BIGINT,
    group_name TEXT NOT NULL CHECK (group_name <> ''),
    -- Who holds it, or who settled it. A pending task with a worker is assigned and not begun.
    worker TEXT CHECK (worker <> ''),
    spec BYTEA NOT NULL CHECK (length(spec) = 16),
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
);

-- What recovery and listings of live tasks scan: as small as the live part of the table.
CREATE INDEX tasks_live ON tasks (id) WHERE status < 3;

-- Ended attempts; a first attempt that succeeds has no row, the task's own says it all.
CREATE TABLE attempts (
    task BIGINT NOT NULL REFERENCES tasks (id),
    attempt INTEGER NOT NULL CHECK (attempt > 0),
    fence BIGINT NOT NULL CHECK (fence >= 0),
    worker TEXT NOT NULL CHECK (worker <> ''),
    assigned_at BIGINT NOT NULL,
    started_at BIGINT,
    ended_at BIGINT NOT NULL,
    -- 0 completed, 1 failed, 2 cancelled, 3 lost
    ending INTEGER NOT NULL CHECK (ending BETWEEN 0 AND 3),
    exit_code INTEGER,
    signal INTEGER,
    error TEXT,
    result TEXT,
    outputs TEXT,
    PRIMARY KEY (task, attempt)
);

-- Which attempts have written something; the bytes are in files.
CREATE TABLE task_logs (
    task BIGINT NOT NULL REFERENCES tasks (id),
    attempt INTEGER NOT NULL CHECK (attempt > 0),
    bytes BIGINT NOT NULL CHECK (bytes >= 0),
    cut BIGINT NOT NULL CHECK (cut >= 0 AND cut <= bytes),
    PRIMARY KEY (task, attempt)
);

CREATE TABLE workers (
    name TEXT NOT NULL PRIMARY KEY CHECK (name <> ''),
    -- The 64 bits of an unsigned number.
    boot BIGINT NOT NULL,
    -- A JSON array of strings.
    group_names TEXT NOT NULL CHECK (jsonb_typeof(group_names::jsonb) = 'array'),
    -- A JSON object of strings.
    labels TEXT NOT NULL CHECK (jsonb_typeof(labels::jsonb) = 'object'),
    slots INTEGER NOT NULL CHECK (slots >= 0),
    prefetch INTEGER NOT NULL CHECK (prefetch >= 0),
    draining INTEGER NOT NULL CHECK (draining IN (0, 1)),
    registered_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL
);

-- The log: up to 256 events a row, as a JSON array; the n-th has the number first_seq + n.
CREATE TABLE event_segments (
    first_seq BIGINT NOT NULL PRIMARY KEY CHECK (first_seq > 0),
    last_seq BIGINT NOT NULL CHECK (last_seq BETWEEN first_seq AND first_seq + 255),
    -- When its last event was decided.
    at BIGINT NOT NULL,
    body TEXT NOT NULL
);

-- Which segments speak of a subject that is no task; a task's own row says it for tasks.
CREATE TABLE event_subjects (
    subject TEXT NOT NULL CHECK (subject <> ''),
    first_seq BIGINT NOT NULL CHECK (first_seq > 0),
    PRIMARY KEY (subject, first_seq)
);

CREATE INDEX event_subjects_by_segment ON event_subjects (first_seq);

CREATE TABLE idempotency_keys (
    hash BYTEA NOT NULL PRIMARY KEY CHECK (length(hash) = 16),
    body BYTEA NOT NULL CHECK (length(body) = 16),
    first_task BIGINT NOT NULL CHECK (first_task > 0),
    task_count INTEGER NOT NULL CHECK (task_count > 0),
    at BIGINT NOT NULL
);

-- For retention, which asks for the oldest.
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (at);

-- One row: who may write, and the numbers that go on from where they were.
CREATE TABLE leadership (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    epoch BIGINT NOT NULL CHECK (epoch >= 0),
    taken_at BIGINT NOT NULL,
    -- Names this log of events; a cursor from another one is refused.
    log_id TEXT NOT NULL CHECK (log_id <> ''),
    head_seq BIGINT NOT NULL CHECK (head_seq >= 0),
    -- The last decision of that epoch that was written.
    last_batch BIGINT NOT NULL CHECK (last_batch >= 0),
    last_task BIGINT NOT NULL CHECK (last_task >= 0),
    settled_completed BIGINT NOT NULL CHECK (settled_completed >= 0),
    settled_failed BIGINT NOT NULL CHECK (settled_failed >= 0),
    settled_cancelled BIGINT NOT NULL CHECK (settled_cancelled >= 0),
    settled_skipped BIGINT NOT NULL CHECK (settled_skipped >= 0)
);

INSERT INTO leadership VALUES (1, 0, 0, left(replace(gen_random_uuid()::text, '-', ''), 16), 0, 0, 0, 0, 0, 0, 0);
