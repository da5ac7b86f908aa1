//! Between the core's values and the columns that hold them.
//!
//! Numbers of the core are unsigned and columns signed; none of them comes near the sign bit, so a
//! value outside is cut to the limit on the way in (where a CHECK or a wrong answer would show it)
//! and is a damaged row on the way out.

use std::collections::HashSet;
use std::sync::Arc;

use agentflow_core::batch::{Outcome, RunNode, TaskRow, TaskState, Waits};
use agentflow_core::ids::{Attempt, Fence, RunId, SpecHash, TaskId};
use agentflow_core::status::Status;
use agentflow_core::time::Wall;
use diesel::prelude::*;

use crate::error::Error;
use crate::tables::tasks;

/// For a `BIGINT` column.
pub(crate) fn big(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// For an `INTEGER` column.
pub(crate) fn small(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// From a `BIGINT` column that holds no negative numbers.
pub(crate) fn unsigned(number: i64) -> Result<u64, Error> {
    u64::try_from(number).map_err(|_| Error::corrupt(format!("{number} where no negative number can be")))
}

/// From an `INTEGER` column that holds no negative numbers.
pub(crate) fn unsigned_small(number: i32) -> Result<u32, Error> {
    u32::try_from(number).map_err(|_| Error::corrupt(format!("{number} where no negative number can be")))
}

/// From a column of 16 bytes.
pub(crate) fn hash(bytes: &[u8]) -> Result<[u8; 16], Error> {
    bytes.try_into().map_err(|_| Error::corrupt(format!("a hash of {} bytes", bytes.len())))
}

/// Keeps equal names once: a million tasks have few groups and workers.
#[derive(Default)]
pub(crate) struct Names(HashSet<Arc<str>>);

impl Names {
    pub(crate) fn share(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return known.clone();
        }
        let new: Arc<str> = name.into();
        self.0.insert(new.clone());
        new
    }
}

/// The narrow columns of a task.
#[derive(Queryable, Selectable)]
#[diesel(table_name = tasks)]
pub(crate) struct TaskColumns {
    pub(crate) id: i64,
    status: i32,
    priority: i32,
    attempt: i32,
    fence: i64,
    failures: i32,
    lost: i32,
    cancelling: i32,
    created_at: i64,
    ready_at: i64,
    assigned_at: Option<i64>,
    started_at: Option<i64>,
    settled_at: Option<i64>,
    group_name: String,
    worker: Option<String>,
    spec: Vec<u8>,
    run: Option<i64>,
    node: Option<String>,
    waits: i32,
    version: i32,
}

impl TaskColumns {
    pub(crate) fn row(&self, names: &mut Names) -> Result<TaskRow, Error> {
        let status = status(self.status)?;
        let priority = u8::try_from(self.priority)
            .map_err(|_| Error::corrupt(format!("task {} has the priority {}", self.id, self.priority)))?;
        Ok(TaskRow {
            id: TaskId(unsigned(self.id)?),
            spec: SpecHash(hash(&self.spec)?),
            created_at: Wall(self.created_at),
            run: run_node(self.id, self.run, self.node.as_deref(), names)?,
            state: TaskState {
                status,
                group: names.share(&self.group_name),
                priority,
                attempt: Attempt(unsigned_small(self.attempt)?),
                fence: Fence(unsigned(self.fence)?),
                failures: unsigned_small(self.failures)?,
                lost: unsigned_small(self.lost)?,
                version: unsigned_small(self.version)?,
                worker: self.worker.as_deref().map(|name| names.share(name)),
                ready_at: Wall(self.ready_at),
                assigned_at: self.assigned_at.map(Wall),
                started_at: self.started_at.map(Wall),
                settled_at: self.settled_at.map(Wall),
                cancelling: self.cancelling != 0,
                waits: waits(self.waits)?,
            },
        })
    }
}

pub(crate) fn status(number: i32) -> Result<Status, Error> {
    u8::try_from(number)
        .ok()
        .and_then(Status::from_number)
        .ok_or_else(|| Error::corrupt(format!("{number} is no status")))
}

pub(crate) fn waits(number: i32) -> Result<Option<Waits>, Error> {
    if number == 0 {
        return Ok(None);
    }
    let known = u8::try_from(number).ok().and_then(Waits::from_number);
    known.map(Some).ok_or_else(|| Error::corrupt(format!("{number} is nothing that a task waits for")))
}

/// A task's place in a run: two columns, both or neither.
pub(crate) fn run_node(
    task: i64,
    run: Option<i64>,
    node: Option<&str>,
    names: &mut Names,
) -> Result<Option<RunNode>, Error> {
    match (run, node) {
        (None, None) => Ok(None),
        (Some(run), Some(node)) => Ok(Some(RunNode { run: RunId(unsigned(run)?), node: names.share(node) })),
        _ => Err(Error::corrupt(format!("task {task} has half a place in a run"))),
    }
}

/// The wide columns of a task.
#[derive(Queryable, Selectable)]
#[diesel(table_name = tasks)]
pub(crate) struct OutcomeColumns {
    exit_code: Option<i32>,
    signal: Option<i32>,
    error: Option<String>,
    result: Option<String>,
    outputs: Option<String>,
}

impl From<OutcomeColumns> for Outcome {
    fn from(columns: OutcomeColumns) -> Self {
        Self {
            exit_code: columns.exit_code,
            signal: columns.signal,
            result: columns.result.map(Into::into),
            outputs: columns.outputs.map(Into::into),
            error: columns.error.map(Into::into),
            left: None,
        }
    }
}

/// What a blob is to the attempt that left it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub(crate) enum Role {
    /// All of its output.
    Result = 0,
    /// Its outputs.
    Outputs = 1,
    /// A file.
    Artifact = 2,
}
