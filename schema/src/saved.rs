//! What outlives an attempt: checkpoints, memories and versions, as they are read.

use std::collections::BTreeMap;

use agentflow_core::batch::SavedTask;
use agentflow_core::blob::{BlobHash, BlobRef};
use agentflow_core::checkpoint::{Choice, Content, Files, KeptCheckpoint};
use agentflow_core::ids::{Attempt, CheckpointId, Fence, RunId, TaskId};
use agentflow_core::limits;
use agentflow_core::memory::{Entry, Memory, Owner};
use agentflow_core::time::Wall;
use diesel::dsl::{exists, sql};
use diesel::prelude::*;
use diesel::sql_types::Bool;

use crate::columns::{big, unsigned, unsigned_small};
use crate::connection::AnyConnection;
use crate::error::{Error, Kind};
use crate::tables::{checkpoint_choices, checkpoints, run_memory, runs, task_memory, tasks};

/// Tasks asked for by one statement.
const TASKS_PER_READ: usize = 500;

/// A checkpoint as it is shown.
#[derive(Clone, PartialEq, Debug)]
pub struct CheckpointRecord {
    /// Its number.
    pub id: CheckpointId,
    /// Whose.
    pub task: TaskId,
    /// Which try was the latest.
    pub attempt: Attempt,
    /// The assignment that saved it; 0 if none did.
    pub fence: Fence,
    /// Its name.
    pub name: String,
    /// Whether its bytes are JSON.
    pub json: bool,
    /// How many bytes it has.
    pub bytes: u64,
    /// Its bytes; none in a listing.
    pub content: Option<Content>,
    /// Where the task's files were.
    pub files: Option<Files>,
    /// What the task remembered; nothing in a listing.
    pub memory: Memory,
    /// When.
    pub created_at: Wall,
}

/// A version of a task, whole.
#[derive(Clone, PartialEq, Debug)]
pub struct VersionRecord {
    /// From 1.
    pub version: u32,
    /// Its title.
    pub title: String,
    /// What was to be done, as JSON.
    pub spec_body: String,
    /// Why it was made.
    pub reason: String,
    /// By whom.
    pub author: String,
    /// When.
    pub created_at: Wall,
}

/// Everything but the bytes and the memory.
#[derive(Queryable, Selectable)]
#[diesel(table_name = checkpoints)]
struct Columns {
    id: i64,
    task: i64,
    attempt: i32,
    fence: i64,
    json: i32,
    bytes: i64,
    created_at: i64,
    name: String,
    git_commit: Option<String>,
    git_ref: Option<String>,
    sha256: Option<Vec<u8>>,
}

impl Columns {
    fn record(self) -> Result<CheckpointRecord, Error> {
        let files = self.git_commit.zip(self.git_ref);
        Ok(CheckpointRecord {
            id: CheckpointId(unsigned(self.id)?),
            task: TaskId(unsigned(self.task)?),
            attempt: Attempt(unsigned_small(self.attempt)?),
            fence: Fence(unsigned(self.fence)?),
            name: self.name,
            json: self.json != 0,
            bytes: unsigned(self.bytes)?,
            content: None,
            files: files
                .map(|(commit, reference)| Files { commit: commit.into(), reference: reference.into() }),
            memory: Memory::default(),
            created_at: Wall(self.created_at),
        })
    }
}

/// The checkpoints of a task, the oldest first, without their bytes and memories.
pub(crate) fn list(connection: &mut AnyConnection, task: TaskId) -> Result<Vec<CheckpointRecord>, Error> {
    let rows: Vec<Columns> = checkpoints::table
        .filter(checkpoints::task.eq(big(task.0)))
        .order(checkpoints::id)
        .limit(i64::from(limits::CHECKPOINTS_KEPT_MOST) + 1)
        .select(Columns::as_select())
        .load(connection)?;
    rows.into_iter().map(Columns::record).collect()
}

/// One checkpoint with its bytes, or where they are.
pub(crate) fn one(
    connection: &mut AnyConnection,
    id: CheckpointId,
) -> Result<Option<CheckpointRecord>, Error> {
    let row: Option<(Columns, Option<Vec<u8>>, Option<String>)> = checkpoints::table
        .find(big(id.0))
        .select((Columns::as_select(), checkpoints::data, checkpoints::memory))
        .first(connection)
        .optional()?;
    let Some((columns, data, memory)) = row else { return Ok(None) };
    let sha256 = columns.sha256.clone();
    let mut record = columns.record()?;
    let damaged = |error| Error::corrupt(format!("the memory of checkpoint {id}: {error}"));
    record.memory =
        memory.as_deref().map(Memory::from_text).transpose().map_err(damaged)?.unwrap_or_default();
    record.content = Some(match (data, sha256) {
        (Some(data), _) => Content::Data(data.into()),
        (None, Some(sha256)) => {
            let sha256 =
                sha256.as_slice().try_into().map_err(|_| Error::corrupt("a hash of a checkpoint"))?;
            Content::Blob(BlobRef { sha256: BlobHash(sha256), bytes: record.bytes })
        }
        (None, None) => return Err(Error::corrupt(format!("checkpoint {id} has no bytes"))),
    });
    Ok(Some(record))
}

/// Whether a checkpoint names a blob.
pub(crate) fn names(connection: &mut AnyConnection, hash: &BlobHash) -> Result<bool, Error> {
    let named = checkpoints::table
        // With this the partial index can be used.
        .filter(checkpoints::sha256.is_not_null())
        .filter(checkpoints::sha256.eq(hash.0.to_vec()));
    Ok(diesel::select(exists(named)).get_result(connection)?)
}

/// What a task or run remembers.
pub(crate) fn memory(connection: &mut AnyConnection, owner: Owner) -> Result<Memory, Error> {
    let rows: Vec<(String, String, Option<i64>)> = match owner {
        Owner::Task(task) => task_memory::table
            .filter(task_memory::task.eq(big(task.0)))
            .select((task_memory::name, task_memory::value, task_memory::expires_at))
            .load(connection)?,
        Owner::Run(run) => run_memory::table
            .filter(run_memory::run.eq(big(run.0)))
            .select((run_memory::name, run_memory::value, run_memory::expires_at))
            .load(connection)?,
    };
    let mut memory = Memory::default();
    rows.into_iter().try_for_each(|row| enter(&mut memory, row))?;
    Ok(memory)
}

fn enter(memory: &mut Memory, (name, value, at): (String, String, Option<i64>)) -> Result<(), Error> {
    let entry = Entry { value: value.into(), expires_at: at.map(Wall) };
    memory
        .set(name.into(), entry)
        .map_err(|error| Error::with_source(Kind::Corrupt, "a memory holds more than it can", error))
}

/// What is known of some tasks.
#[derive(Default)]
struct Found(BTreeMap<TaskId, SavedTask>);

impl Found {
    fn of(&mut self, task: i64) -> Result<&mut SavedTask, Error> {
        Ok(self.0.entry(TaskId(unsigned(task)?)).or_default())
    }

    fn kept(&mut self, rows: Vec<(i64, i64, i64, i64)>) -> Result<(), Error> {
        for (task, id, fence, number) in rows {
            let id = CheckpointId(unsigned(id)?);
            let kept = KeptCheckpoint { id, fence: Fence(unsigned(fence)?), number: unsigned(number)? };
            self.of(task)?.kept.push(kept);
        }
        Ok(())
    }

    fn choices(&mut self, rows: Vec<(i64, Option<i64>)>) -> Result<(), Error> {
        for (task, checkpoint) in rows {
            let at = checkpoint.map(unsigned).transpose()?;
            self.of(task)?.choice =
                Some(at.map_or(Choice::Beginning, |checkpoint| Choice::At(CheckpointId(checkpoint))));
        }
        Ok(())
    }

    fn memories(&mut self, rows: Vec<(i64, String, String, Option<i64>)>) -> Result<(), Error> {
        for (task, name, value, expires_at) in rows {
            enter(&mut self.of(task)?.memory, (name, value, expires_at))?;
        }
        Ok(())
    }
}

/// Those of these tasks that have checkpoints or a memory.
pub(crate) fn of_tasks(
    connection: &mut AnyConnection,
    ids: &[TaskId],
) -> Result<BTreeMap<TaskId, SavedTask>, Error> {
    let mut found = Found::default();
    let ids: Vec<i64> = ids.iter().map(|id| big(id.0)).collect();
    for wanted in ids.chunks(TASKS_PER_READ) {
        let rows = checkpoints::table
            .filter(checkpoints::task.eq_any(wanted.to_vec()))
            .order(checkpoints::id)
            .select((checkpoints::task, checkpoints::id, checkpoints::fence, checkpoints::number));
        found.kept(rows.load(connection)?)?;
        let rows = checkpoint_choices::table.filter(checkpoint_choices::task.eq_any(wanted.to_vec()));
        found.choices(rows.load(connection)?)?;
        let rows = task_memory::table.filter(task_memory::task.eq_any(wanted.to_vec()));
        found.memories(rows.load(connection)?)?;
    }
    Ok(found.0)
}

/// Live tasks that have checkpoints or a memory, and live runs that have a memory.
type Live = (Vec<(TaskId, SavedTask)>, Vec<(RunId, Memory)>);

/// Those of the live tasks that have checkpoints or a memory, and the memories of live runs.
pub(crate) fn live(connection: &mut AnyConnection) -> Result<Live, Error> {
    // As literals: with a parameter the partial indexes could not be used.
    let live_tasks = || tasks::table.filter(sql::<Bool>("status < 3")).select(tasks::id);
    let mut found = Found::default();
    let rows = checkpoints::table
        .filter(checkpoints::task.eq_any(live_tasks()))
        .order(checkpoints::id)
        .select((checkpoints::task, checkpoints::id, checkpoints::fence, checkpoints::number));
    found.kept(rows.load(connection)?)?;
    let rows = checkpoint_choices::table.filter(checkpoint_choices::task.eq_any(live_tasks()));
    found.choices(rows.load(connection)?)?;
    let rows = task_memory::table.filter(task_memory::task.eq_any(live_tasks()));
    found.memories(rows.load(connection)?)?;
    let live_runs = runs::table.filter(sql::<Bool>("status < 3")).select(runs::id);
    let rows: Vec<(i64, String, String, Option<i64>)> =
        run_memory::table.filter(run_memory::run.eq_any(live_runs)).load(connection)?;
    let mut memories: BTreeMap<RunId, Memory> = BTreeMap::new();
    for (run, name, value, expires_at) in rows {
        enter(memories.entry(RunId(unsigned(run)?)).or_default(), (name, value, expires_at))?;
    }
    Ok((found.0.into_iter().collect(), memories.into_iter().collect()))
}
