//! The rows of the write path. Fields are named like their columns.

use diesel::sql_types::{BigInt, Binary, Integer, Nullable, Text};

use super::{Verb, row};

const NEW: Verb = Verb::Insert { conflict: "" };

/// Appends to the list of segments. At 4 KiB the older half goes: some 500 segments are left, and
/// with the segments themselves gone after 30 days nobody misses them.
const APPEND_SEGMENTS: Verb = Verb::Update {
    sqlite: (
        "segments = CASE WHEN length(segments) + length(",
        ") <= 4096 THEN segments || ?1 \
         ELSE substr(segments, 2047 + instr(substr(segments, 2048), ',')) || ?1 END",
    ),
    postgres: "segments = CASE WHEN length(tasks.segments) + length(u.segments) <= 4096 \
               THEN tasks.segments || u.segments \
               ELSE substr(tasks.segments, 2047 + strpos(substr(tasks.segments, 2048), ',')) || u.segments END",
};

row! {
    /// A specification that may be new, and how many new tasks name it.
    SpecInsert<'a> in "task_specs",
    Verb::Insert { conflict: "ON CONFLICT (hash) DO UPDATE SET uses = task_specs.uses + excluded.uses" },
    {
        hash: &'a [u8] => Binary,
        body: &'a str => Text,
        uses: i64 => BigInt,
    }
}

row! {
    /// More tasks that name a known specification.
    SpecUse<'a> in "task_specs",
    Verb::Update { sqlite: ("uses = uses + ", ""), postgres: "uses = task_specs.uses + u.uses" },
    {
        uses: i64 => BigInt,
        hash: &'a [u8] => Binary,
    }
}

row! {
    /// A new task.
    TaskInsert<'a> in "tasks", NEW,
    {
        id: i64 => BigInt,
        status: i32 => Integer,
        priority: i32 => Integer,
        attempt: i32 => Integer,
        fence: i64 => BigInt,
        failures: i32 => Integer,
        lost: i32 => Integer,
        cancelling: i32 => Integer,
        created_at: i64 => BigInt,
        ready_at: i64 => BigInt,
        assigned_at: Option<i64> => Nullable<BigInt>,
        started_at: Option<i64> => Nullable<BigInt>,
        settled_at: Option<i64> => Nullable<BigInt>,
        group_name: &'a str => Text,
        worker: Option<&'a str> => Nullable<Text>,
        spec: &'a [u8] => Binary,
        title: &'a str => Text,
        segments: String => Text,
        exit_code: Option<i32> => Nullable<Integer>,
        signal: Option<i32> => Nullable<Integer>,
        error: Option<&'a str> => Nullable<Text>,
        result: Option<&'a str> => Nullable<Text>,
        outputs: Option<&'a str> => Nullable<Text>,
        run: Option<i64> => Nullable<BigInt>,
        node: Option<&'a str> => Nullable<Text>,
        waits: i32 => Integer,
    }
}

row! {
    /// A task's new state.
    TaskUpdate<'a> in "tasks", APPEND_SEGMENTS,
    {
        segments: String => Text,
        status: i32 => Integer,
        priority: i32 => Integer,
        attempt: i32 => Integer,
        fence: i64 => BigInt,
        failures: i32 => Integer,
        lost: i32 => Integer,
        cancelling: i32 => Integer,
        ready_at: i64 => BigInt,
        assigned_at: Option<i64> => Nullable<BigInt>,
        started_at: Option<i64> => Nullable<BigInt>,
        settled_at: Option<i64> => Nullable<BigInt>,
        group_name: &'a str => Text,
        worker: Option<&'a str> => Nullable<Text>,
        waits: i32 => Integer,
        id: i64 => BigInt,
    }
}

row! {
    /// A task's new state and its outcome.
    TaskOutcomeUpdate<'a> in "tasks", APPEND_SEGMENTS,
    {
        segments: String => Text,
        status: i32 => Integer,
        priority: i32 => Integer,
        attempt: i32 => Integer,
        fence: i64 => BigInt,
        failures: i32 => Integer,
        lost: i32 => Integer,
        cancelling: i32 => Integer,
        ready_at: i64 => BigInt,
        assigned_at: Option<i64> => Nullable<BigInt>,
        started_at: Option<i64> => Nullable<BigInt>,
        settled_at: Option<i64> => Nullable<BigInt>,
        group_name: &'a str => Text,
        worker: Option<&'a str> => Nullable<Text>,
        waits: i32 => Integer,
        exit_code: Option<i32> => Nullable<Integer>,
        signal: Option<i32> => Nullable<Integer>,
        error: Option<&'a str> => Nullable<Text>,
        result: Option<&'a str> => Nullable<Text>,
        outputs: Option<&'a str> => Nullable<Text>,
        id: i64 => BigInt,
    }
}

row! {
    /// A task of which an event speaks, but which stays as it is.
    TaskMention in "tasks", APPEND_SEGMENTS,
    {
        segments: String => Text,
        id: i64 => BigInt,
    }
}

row! {
    /// Another specification of a task.
    TaskSpecUpdate<'a> in "tasks",
    Verb::Update { sqlite: ("spec = ", ""), postgres: "spec = u.spec" },
    {
        spec: &'a [u8] => Binary,
        id: i64 => BigInt,
    }
}

row! {
    /// Another version of a task.
    TaskVersionUpdate<'a> in "tasks",
    Verb::Update { sqlite: ("version = ", ""), postgres: "version = u.version" },
    {
        version: i32 => Integer,
        title: &'a str => Text,
        id: i64 => BigInt,
    }
}

row! {
    /// A specification that tasks have been taken from: it goes with the last one.
    SpecRemoval<'a> in "task_specs", Verb::RemoveIf { holds: "uses = 0" },
    {
        hash: &'a [u8] => Binary,
    }
}

row! {
    /// The limits of a concurrency key.
    KeyLimitUpsert<'a> in "concurrency_keys",
    Verb::Insert { conflict: "ON CONFLICT (name) DO UPDATE SET max_holders = excluded.max_holders, \
        rate_count = excluded.rate_count, rate_per_ms = excluded.rate_per_ms" },
    {
        name: &'a str => Text,
        max_holders: i32 => Integer,
        rate_count: Option<i32> => Nullable<Integer>,
        rate_per_ms: Option<i64> => Nullable<BigInt>,
    }
}

row! {
    /// A concurrency key has no limits of its own any more.
    KeyLimitRemove<'a> in "concurrency_keys", Verb::Remove,
    {
        name: &'a str => Text,
    }
}

row! {
    /// A schedule as it is now.
    ScheduleUpsert<'a> in "schedules",
    Verb::Insert { conflict: "ON CONFLICT (name) DO UPDATE SET cron = excluded.cron, zone = excluded.zone, \
        catch_up = excluded.catch_up, paused = excluded.paused, next_at = excluded.next_at, \
        last_at = excluded.last_at, fired = excluded.fired, created_at = excluded.created_at, body = excluded.body" },
    {
        name: &'a str => Text,
        cron: &'a str => Text,
        zone: &'a str => Text,
        catch_up: i32 => Integer,
        paused: i32 => Integer,
        next_at: Option<i64> => Nullable<BigInt>,
        last_at: Option<i64> => Nullable<BigInt>,
        fired: i64 => BigInt,
        created_at: i64 => BigInt,
        body: &'a str => Text,
    }
}

row! {
    /// A schedule that is gone.
    ScheduleRemove<'a> in "schedules", Verb::Remove,
    {
        name: &'a str => Text,
    }
}

row! {
    /// A relation between two tasks that both have their row.
    RelationInsert in "task_relationships", Verb::Add,
    {
        predecessor: i64 => BigInt,
        successor: i64 => BigInt,
        relation: i32 => Integer,
        created_at: i64 => BigInt,
    }
}

row! {
    /// A relation that another has taken the place of.
    RelationRemove in "task_relationships", Verb::Remove,
    {
        predecessor: i64 => BigInt,
        successor: i64 => BigInt,
        relation: i32 => Integer,
    }
}

row! {
    /// An ended attempt. An attempt that was lost, found again and ended has one row: the last.
    AttemptUpsert<'a> in "attempts",
    Verb::Insert { conflict: "ON CONFLICT (task, attempt) DO UPDATE SET fence = excluded.fence, \
        worker = excluded.worker, assigned_at = excluded.assigned_at, started_at = excluded.started_at, \
        ended_at = excluded.ended_at, ending = excluded.ending, exit_code = excluded.exit_code, \
        signal = excluded.signal, error = excluded.error, result = excluded.result, outputs = excluded.outputs" },
    {
        task: i64 => BigInt,
        attempt: i32 => Integer,
        fence: i64 => BigInt,
        worker: &'a str => Text,
        assigned_at: i64 => BigInt,
        started_at: Option<i64> => Nullable<BigInt>,
        ended_at: i64 => BigInt,
        ending: i32 => Integer,
        exit_code: Option<i32> => Nullable<Integer>,
        signal: Option<i32> => Nullable<Integer>,
        error: Option<&'a str> => Nullable<Text>,
        result: Option<&'a str> => Nullable<Text>,
        outputs: Option<&'a str> => Nullable<Text>,
    }
}

row! {
    /// What an attempt left by its hash; the last word counts.
    TaskBlobUpsert<'a> in "task_blobs",
    Verb::Insert { conflict: "ON CONFLICT (task, attempt, role, path) DO UPDATE SET \
        sha256 = excluded.sha256, bytes = excluded.bytes, executable = excluded.executable" },
    {
        task: i64 => BigInt,
        attempt: i32 => Integer,
        role: i32 => Integer,
        path: &'a str => Text,
        sha256: &'a [u8] => Binary,
        bytes: i64 => BigInt,
        executable: i32 => Integer,
    }
}

row! {
    /// A part of an input that a specification names.
    SpecBlobInsert<'a> in "spec_blobs", Verb::Add,
    {
        spec: &'a [u8] => Binary,
        sha256: &'a [u8] => Binary,
    }
}

row! {
    /// What an attempt has written; the last word counts.
    LogUpsert in "task_logs",
    Verb::Insert { conflict: "ON CONFLICT (task, attempt) DO UPDATE SET bytes = excluded.bytes, cut = excluded.cut" },
    {
        task: i64 => BigInt,
        attempt: i32 => Integer,
        bytes: i64 => BigInt,
        cut: i64 => BigInt,
    }
}

row! {
    /// A worker as it is now.
    WorkerUpsert<'a> in "workers",
    Verb::Insert { conflict: "ON CONFLICT (name) DO UPDATE SET boot = excluded.boot, \
        group_names = excluded.group_names, labels = excluded.labels, slots = excluded.slots, \
        prefetch = excluded.prefetch, draining = excluded.draining, \
        registered_at = excluded.registered_at, changed_at = excluded.changed_at" },
    {
        name: &'a str => Text,
        boot: i64 => BigInt,
        group_names: String => Text,
        labels: String => Text,
        slots: i32 => Integer,
        prefetch: i32 => Integer,
        draining: i32 => Integer,
        registered_at: i64 => BigInt,
        changed_at: i64 => BigInt,
    }
}

row! {
    /// A part of the log.
    SegmentInsert in "event_segments", NEW,
    {
        first_seq: i64 => BigInt,
        last_seq: i64 => BigInt,
        at: i64 => BigInt,
        body: String => Text,
    }
}

row! {
    /// A segment that speaks of something other than tasks.
    SubjectInsert<'a> in "event_subjects", NEW,
    {
        subject: &'a str => Text,
        first_seq: i64 => BigInt,
    }
}

row! {
    /// An idempotency key.
    KeyInsert<'a> in "idempotency_keys", NEW,
    {
        hash: &'a [u8] => Binary,
        body: &'a [u8] => Binary,
        first_task: i64 => BigInt,
        task_count: i32 => Integer,
        at: i64 => BigInt,
    }
}
