//! What attempts left by its hash: values too large for a row, and files.

use std::collections::BTreeMap;

use agentflow_core::batch::SettledNode;
use agentflow_core::blob::{Artifact, BlobHash, BlobRef, Left, Outputs};
use agentflow_core::ids::{Attempt, RunId, TaskId};
use agentflow_core::limits;
use diesel::prelude::*;

use crate::columns::{Role, big, small, unsigned, unsigned_small};
use crate::connection::AnyConnection;
use crate::error::Error;
use crate::saved;
use crate::tables::{spec_blobs, task_blobs, tasks};

/// Tasks asked for by one statement.
const TASKS_PER_READ: usize = 500;

/// Rows read by one statement; each is about 100 bytes.
const ROWS_PER_READ: i64 = 10_000;

/// A file that a task left, as it is listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArtifactRecord {
    /// Its number.
    pub id: u64,
    /// Whose.
    pub task: TaskId,
    /// Of which attempt: the latest.
    pub attempt: Attempt,
    /// The task's node in its run, for an item `name[3]`.
    pub node: Option<String>,
    /// What it is.
    pub file: Artifact,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = task_blobs)]
struct Columns {
    id: i64,
    task: i64,
    attempt: i32,
    role: i32,
    path: String,
    sha256: Vec<u8>,
    bytes: i64,
    executable: i32,
}

impl Columns {
    fn blob(&self) -> Result<BlobRef, Error> {
        let sha256 =
            self.sha256.as_slice().try_into().map_err(|_| {
                Error::corrupt(format!("{} bytes are no SHA-256 of a blob", self.sha256.len()))
            })?;
        Ok(BlobRef { sha256: BlobHash(sha256), bytes: unsigned(self.bytes)? })
    }

    fn file(self) -> Result<Artifact, Error> {
        let blob = self.blob()?;
        Ok(Artifact { path: self.path.into(), blob, executable: self.executable != 0 })
    }

    /// Puts it where it belongs.
    fn enter(self, left: &mut Left) -> Result<(), Error> {
        if self.role == Role::Artifact as i32 {
            left.artifacts.push(self.file()?);
        } else if self.role == Role::Result as i32 {
            left.result = Some(self.blob()?);
        } else {
            left.outputs = Some(self.blob()?);
        }
        Ok(())
    }
}

/// What one attempt left.
pub(crate) fn of(
    connection: &mut AnyConnection,
    task: TaskId,
    attempt: Attempt,
) -> Result<Option<Box<Left>>, Error> {
    let rows: Vec<Columns> = task_blobs::table
        .filter(task_blobs::task.eq(big(task.0)))
        .filter(task_blobs::attempt.eq(small(attempt.0)))
        .order((task_blobs::role, task_blobs::path))
        .limit(limits::ARTIFACTS as i64 + 2)
        .select(Columns::as_select())
        .load(connection)?;
    let mut left = Left::default();
    let any = !rows.is_empty();
    rows.into_iter().try_for_each(|row| row.enter(&mut left))?;
    Ok(any.then(|| Box::new(left)))
}

/// What of it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    /// Results and outputs.
    Values,
    /// Files.
    Files,
}

/// Adds what the settled nodes of a run (by task) left with their latest attempts.
pub(crate) fn add_to(
    connection: &mut AnyConnection,
    run: RunId,
    nodes: &mut [SettledNode],
    which: Which,
) -> Result<(), Error> {
    let roles = match which {
        Which::Values => [Role::Result as i32, Role::Outputs as i32].as_slice(),
        Which::Files => &[Role::Artifact as i32],
    };
    let mut after = 0;
    loop {
        let rows: Vec<Columns> = task_blobs::table
            .inner_join(tasks::table.on(tasks::id.eq(task_blobs::task)))
            .filter(tasks::run.eq(big(run.0)))
            .filter(tasks::attempt.eq(task_blobs::attempt))
            .filter(task_blobs::role.eq_any(roles.to_vec()))
            .filter(task_blobs::id.gt(after))
            .order(task_blobs::id)
            .limit(ROWS_PER_READ)
            .select(Columns::as_select())
            .load(connection)?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.id;
        for row in rows {
            let task = TaskId(unsigned(row.task)?);
            if let Ok(at) = nodes.binary_search_by_key(&task, |node| node.task) {
                row.enter(nodes[at].outcome.left.get_or_insert_default())?;
            }
        }
    }
}

/// The outputs of those of these tasks whose outputs are elsewhere.
pub(crate) fn outputs_of(
    connection: &mut AnyConnection,
    ids: &[i64],
) -> Result<BTreeMap<TaskId, Outputs>, Error> {
    let mut found = BTreeMap::new();
    for wanted in ids.chunks(TASKS_PER_READ) {
        let rows: Vec<Columns> = task_blobs::table
            .inner_join(tasks::table.on(tasks::id.eq(task_blobs::task)))
            .filter(task_blobs::task.eq_any(wanted.to_vec()))
            .filter(tasks::attempt.eq(task_blobs::attempt))
            .filter(task_blobs::role.eq(Role::Outputs as i32))
            .select(Columns::as_select())
            .load(connection)?;
        for row in rows {
            found.insert(TaskId(unsigned(row.task)?), Outputs::Blob(row.blob()?));
        }
    }
    Ok(found)
}

/// Whose files are listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Whose {
    /// Those of one task, and of its items if it is a `foreach`.
    Task(TaskId),
    /// Those of every task of a run.
    Run(RunId),
}

/// Files of the latest attempts, by number after `after`, and after which to go on; only its absence
/// means the end.
pub(crate) fn artifacts(
    connection: &mut AnyConnection,
    whose: &Whose,
    after: u64,
    limit: usize,
) -> Result<(Vec<ArtifactRecord>, Option<u64>), Error> {
    let mut items_of = None;
    let base = task_blobs::table
        .inner_join(tasks::table.on(tasks::id.eq(task_blobs::task)))
        .filter(tasks::attempt.eq(task_blobs::attempt))
        .filter(task_blobs::role.eq(Role::Artifact as i32))
        .filter(task_blobs::id.gt(big(after)))
        .order(task_blobs::id)
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select((Columns::as_select(), tasks::node));
    let rows: Vec<(Columns, Option<String>)> = match whose {
        Whose::Run(run) => base.filter(tasks::run.eq(big(run.0))).load(connection)?,
        Whose::Task(id) => {
            let place: Option<(Option<i64>, Option<String>)> = tasks::table
                .filter(tasks::id.eq(big(id.0)))
                .select((tasks::run, tasks::node))
                .first(connection)
                .optional()?;
            match place {
                Some((Some(run), Some(node))) => {
                    let items = format!("{}[%", node.replace('_', "\\_"));
                    let own = tasks::node.eq(node.clone());
                    let item = tasks::node.like(items).escape('\\');
                    items_of = Some(node);
                    base.filter(tasks::run.eq(run)).filter(own.or(item)).load(connection)?
                }
                _ => base.filter(task_blobs::task.eq(big(id.0))).load(connection)?,
            }
        }
    };
    let next = rows.get(limit.saturating_sub(1)).map(|(columns, _)| unsigned(columns.id)).transpose()?;
    // SQLite's LIKE takes upper and lower case for the same.
    let is_its = |node: &Option<String>| match (&items_of, node) {
        (Some(name), Some(node)) => {
            node.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('['))
        }
        _ => true,
    };
    let rows = rows.into_iter().filter(|(_, node)| is_its(node));
    Ok((rows.map(|(columns, node)| record(columns, node)).collect::<Result<_, _>>()?, next))
}

/// One file.
pub(crate) fn artifact(connection: &mut AnyConnection, id: u64) -> Result<Option<ArtifactRecord>, Error> {
    let row: Option<(Columns, Option<String>)> = task_blobs::table
        .inner_join(tasks::table.on(tasks::id.eq(task_blobs::task)))
        .filter(task_blobs::id.eq(big(id)))
        .filter(task_blobs::role.eq(Role::Artifact as i32))
        .select((Columns::as_select(), tasks::node))
        .first(connection)
        .optional()?;
    row.map(|(columns, node)| record(columns, node)).transpose()
}

fn record(columns: Columns, node: Option<String>) -> Result<ArtifactRecord, Error> {
    Ok(ArtifactRecord {
        id: unsigned(columns.id)?,
        task: TaskId(unsigned(columns.task)?),
        attempt: Attempt(unsigned_small(columns.attempt)?),
        node,
        file: columns.file()?,
    })
}

/// Whether anything names a blob.
pub(crate) fn is_named(connection: &mut AnyConnection, hash: &BlobHash) -> Result<bool, Error> {
    let by_task = task_blobs::table.filter(task_blobs::sha256.eq(hash.0.to_vec()));
    if diesel::select(diesel::dsl::exists(by_task)).get_result(connection)? {
        return Ok(true);
    }
    if saved::names(connection, hash)? {
        return Ok(true);
    }
    let by_spec = spec_blobs::table.filter(spec_blobs::sha256.eq(hash.0.to_vec()));
    Ok(diesel::select(diesel::dsl::exists(by_spec)).get_result(connection)?)
}
