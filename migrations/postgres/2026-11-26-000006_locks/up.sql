-- File locks: the repositories in which something was locked, and every grant, held or ended.
--
-- The same tables exist in migrations/sqlite; a test compares the two.

-- A row stays for good: a fence that is given out once more would let an old lock pass for a new one.
CREATE TABLE lock_spaces (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id > 0),
    ignore_case INTEGER NOT NULL CHECK (ignore_case IN (0, 1)),
    -- The largest that was given out.
    fence BIGINT NOT NULL CHECK (fence >= 0),
    repo TEXT NOT NULL UNIQUE CHECK (repo <> '')
);

-- A grant is inserted once, and updated when it is renewed and when it ends. Commits are verified against
-- ended ones too, until they are as old as settled tasks may get.
--
-- `space` and `task` name rows without a reference to them: spaces stay, tasks may go first, and every
-- grant would pay for the look.
CREATE TABLE lock_grants (
    number BIGINT NOT NULL PRIMARY KEY CHECK (number > 0),
    space INTEGER NOT NULL CHECK (space > 0),
    -- Its number in its repository.
    fence BIGINT NOT NULL CHECK (fence > 0),
    -- Whose: a task's, or of whoever has the name in `owner`.
    task BIGINT CHECK (task > 0),
    -- By which attempt, and by which assignment of it, if a task's attempt has it.
    attempt INTEGER CHECK (attempt > 0),
    attempt_fence BIGINT CHECK (attempt_fence >= 0),
    -- How long a task's is held: 0 until the attempt ends, 1 until its change is merged.
    until INTEGER NOT NULL CHECK (until IN (0, 1)),
    -- Whether one of its paths is for writing: no other grant is in the way of a commit.
    writes INTEGER NOT NULL CHECK (writes IN (0, 1)),
    -- What keeps it from being held for ever: 0 its attempt, 1 its time, 2 nothing.
    lease INTEGER NOT NULL CHECK (lease BETWEEN 0 AND 2),
    ttl_ms BIGINT CHECK (ttl_ms >= 0),
    expires_at BIGINT,
    acquired_at BIGINT NOT NULL,
    -- Where its events are: among those of the decision that granted it, and of the one that ended it.
    acquired_first_seq BIGINT NOT NULL CHECK (acquired_first_seq > 0),
    acquired_last_seq BIGINT NOT NULL CHECK (acquired_last_seq >= acquired_first_seq - 1),
    -- 0 released, 1 expired, 2 broken, 3 lost; nothing while it is held.
    ending INTEGER CHECK (ending BETWEEN 0 AND 3),
    ended_at BIGINT,
    ended_first_seq BIGINT CHECK (ended_first_seq > 0),
    ended_last_seq BIGINT CHECK (ended_last_seq >= ended_first_seq - 1),
    -- Nobody can guess it. It is what a lock is asked for by, long after it has ended.
    lock_id BYTEA NOT NULL UNIQUE CHECK (length(lock_id) = 16),
    owner TEXT CHECK (owner <> ''),
    reason TEXT NOT NULL,
    ended_reason TEXT,
    -- A JSON array of what is locked, each with its mode.
    paths TEXT NOT NULL CHECK (paths <> ''),
    -- No fence is given out twice; and verification goes through those after a fence, in this order.
    UNIQUE (space, fence),
    CONSTRAINT one_owner CHECK ((task IS NULL) <> (owner IS NULL)),
    CONSTRAINT attempt_of_a_task CHECK
        ((attempt IS NULL) = (attempt_fence IS NULL) AND (attempt IS NULL OR task IS NOT NULL)),
    CONSTRAINT lease_of_an_attempt CHECK (lease <> 0 OR attempt IS NOT NULL),
    CONSTRAINT whole_lease CHECK
        ((lease = 1) = (ttl_ms IS NOT NULL) AND (lease = 1) = (expires_at IS NOT NULL)),
    CONSTRAINT whole_end CHECK
        ((ended_at IS NULL) = (ending IS NULL) AND (ended_at IS NULL) = (ended_reason IS NULL)
        AND (ended_at IS NULL) = (ended_first_seq IS NULL) AND (ended_at IS NULL) = (ended_last_seq IS NULL))
);

-- What recovery scans: as small as what is held. Retention walks the primary key, as it does for tasks.
CREATE INDEX lock_grants_held ON lock_grants (number) WHERE ended_at IS NULL;

ALTER TABLE leadership ADD COLUMN last_lock BIGINT NOT NULL DEFAULT 0 CHECK (last_lock >= 0);
