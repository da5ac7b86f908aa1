//! Rows of what outlives an attempt, and how they are written.

use agentflow_core::checkpoint::{Choice, Content};
use agentflow_core::memory::Owner;
use diesel::sql_types::{BigInt, Binary, Integer, Nullable, Text};

use super::{Write, row};
use crate::columns::{big, small};
use crate::error::Error;
use crate::gathered::Gathered;

row! {
    /// A new checkpoint.
    CheckpointInsert<'a> in "checkpoints", Verb::Insert { conflict: "" },
    {
        id: i64 => BigInt,
        task: i64 => BigInt,
        attempt: i32 => Integer,
        fence: i64 => BigInt,
        number: i64 => BigInt,
        json: i32 => Integer,
        bytes: i64 => BigInt,
        created_at: i64 => BigInt,
        name: &'a str => Text,
        git_commit: Option<&'a str> => Nullable<Text>,
        git_ref: Option<&'a str> => Nullable<Text>,
        sha256: Option<&'a [u8]> => Nullable<Binary>,
        data: Option<&'a [u8]> => Nullable<Binary>,
        memory: Option<&'a str> => Nullable<Text>,
    }
}

row! {
    /// A checkpoint that goes.
    CheckpointRemove in "checkpoints", Verb::Remove,
    {
        id: i64 => BigInt,
    }
}

row! {
    /// Where the next attempt of a task begins.
    ChoiceUpsert in "checkpoint_choices",
    Verb::Insert { conflict: "ON CONFLICT (task) DO UPDATE SET checkpoint = excluded.checkpoint" },
    {
        task: i64 => BigInt,
        checkpoint: Option<i64> => Nullable<BigInt>,
    }
}

row! {
    /// It begins at the newest checkpoint again.
    ChoiceRemove in "checkpoint_choices", Verb::Remove,
    {
        task: i64 => BigInt,
    }
}

row! {
    /// Something that a task remembers.
    TaskMemoryUpsert<'a> in "task_memory",
    Verb::Insert { conflict: "ON CONFLICT (task, name) DO UPDATE SET value = excluded.value, \
        expires_at = excluded.expires_at" },
    {
        task: i64 => BigInt,
        name: &'a str => Text,
        value: &'a str => Text,
        expires_at: Option<i64> => Nullable<BigInt>,
    }
}

row! {
    /// Something that it has forgotten.
    TaskMemoryRemove<'a> in "task_memory", Verb::Remove,
    {
        task: i64 => BigInt,
        name: &'a str => Text,
    }
}

row! {
    /// Something that a run remembers.
    RunMemoryUpsert<'a> in "run_memory",
    Verb::Insert { conflict: "ON CONFLICT (run, name) DO UPDATE SET value = excluded.value, \
        expires_at = excluded.expires_at" },
    {
        run: i64 => BigInt,
        name: &'a str => Text,
        value: &'a str => Text,
        expires_at: Option<i64> => Nullable<BigInt>,
    }
}

row! {
    /// Something that it has forgotten.
    RunMemoryRemove<'a> in "run_memory", Verb::Remove,
    {
        run: i64 => BigInt,
        name: &'a str => Text,
    }
}

row! {
    /// A version of a task.
    VersionInsert<'a> in "task_versions", Verb::Insert { conflict: "" },
    {
        task: i64 => BigInt,
        version: i32 => Integer,
        spec: &'a [u8] => Binary,
        created_at: i64 => BigInt,
        title: &'a str => Text,
        reason: &'a str => Text,
        author: &'a str => Text,
    }
}

/// Writes checkpoints, choices, memories and versions. Their tasks and runs are there.
pub(super) fn write(connection: &mut impl Write, gathered: &Gathered) -> Result<(), Error> {
    let saved = &gathered.saved;
    let checkpoints = saved.checkpoints.values().map(|row| {
        let (sha256, data): (Option<&[u8]>, Option<&[u8]>) = match &row.content {
            Content::Data(data) => (None, Some(data)),
            Content::Blob(blob) => (Some(&blob.sha256.0), None),
        };
        CheckpointInsert {
            id: big(row.id.0),
            task: big(row.task.0),
            attempt: small(row.attempt.0),
            fence: big(row.fence.0),
            number: big(row.number),
            json: i32::from(row.json),
            bytes: big(row.content.bytes()),
            created_at: row.at.0,
            name: &row.name,
            git_commit: row.files.as_ref().map(|files| &*files.commit),
            git_ref: row.files.as_ref().map(|files| &*files.reference),
            sha256,
            data,
            memory: row.memory.as_deref(),
        }
    });
    connection.write(checkpoints.collect())?;
    connection.write(saved.removed.iter().map(|id| CheckpointRemove { id: big(id.0) }).collect())?;
    write_choices(connection, gathered)?;
    write_memory(connection, gathered)?;
    let versions = saved.versions.values().map(|row| VersionInsert {
        task: big(row.task.0),
        version: small(row.version),
        spec: &row.spec.0,
        created_at: row.created_at.0,
        title: &row.title,
        reason: &row.reason,
        author: &row.author,
    });
    connection.write(versions.collect())
}

fn write_choices(connection: &mut impl Write, gathered: &Gathered) -> Result<(), Error> {
    let (mut made, mut removed) = (vec![], vec![]);
    for (task, choice) in &gathered.saved.choices {
        let task = big(task.0);
        match choice {
            Some(Choice::At(checkpoint)) => {
                made.push(ChoiceUpsert { task, checkpoint: Some(big(checkpoint.0)) });
            }
            Some(Choice::Beginning) => made.push(ChoiceUpsert { task, checkpoint: None }),
            None => removed.push(ChoiceRemove { task }),
        }
    }
    connection.write(made)?;
    connection.write(removed)
}

fn write_memory(connection: &mut impl Write, gathered: &Gathered) -> Result<(), Error> {
    let (mut tasks, mut tasks_gone, mut runs, mut runs_gone) = (vec![], vec![], vec![], vec![]);
    for ((owner, name), entry) in &gathered.saved.memory {
        let entry = entry.as_ref().map(|entry| (&*entry.value, entry.expires_at.map(|at| at.0)));
        match (*owner, entry) {
            (Owner::Task(task), Some((value, expires_at))) => {
                tasks.push(TaskMemoryUpsert { task: big(task.0), name, value, expires_at });
            }
            (Owner::Task(task), None) => tasks_gone.push(TaskMemoryRemove { task: big(task.0), name }),
            (Owner::Run(run), Some((value, expires_at))) => {
                runs.push(RunMemoryUpsert { run: big(run.0), name, value, expires_at });
            }
            (Owner::Run(run), None) => runs_gone.push(RunMemoryRemove { run: big(run.0), name }),
        }
    }
    connection.write(tasks)?;
    connection.write(tasks_gone)?;
    connection.write(runs)?;
    connection.write(runs_gone)
}
