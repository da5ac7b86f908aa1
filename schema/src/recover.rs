//! What a new master reads before it takes work: every task that is not settled, and what belongs
//! to it. Rows only; history is never replayed.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use agentflow_core::batch::{SpecRow, TaskRow, WorkerRow};
use agentflow_core::ids::{BootId, SpecHash};
use agentflow_core::time::Wall;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;

use crate::columns::{Names, TaskColumns, hash, unsigned_small};
use crate::connection::AnyConnection;
use crate::error::{Error, Kind};
use crate::tables::{task_specs, tasks, workers};

/// Rows of one statement: large enough that the statement's own cost vanishes, small enough that a
/// million tasks are never twice in memory.
const ROWS_PER_READ: i64 = 10_000;

/// Specifications asked for by one statement.
const SPECS_PER_READ: usize = 500;

/// What the next master starts from.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Recovered {
    /// Every task that is not settled, by id.
    pub tasks: Vec<TaskRow>,
    /// The specifications that they name.
    pub specs: Vec<SpecRow>,
    /// Every worker ever seen, by name.
    pub workers: Vec<WorkerRow>,
}

pub(crate) fn recover(connection: &mut AnyConnection) -> Result<Recovered, Error> {
    let mut names = Names::default();
    let mut live = Vec::new();
    let mut hashes = BTreeSet::new();
    let mut after = 0;
    loop {
        let rows: Vec<TaskColumns> = tasks::table
            .filter(tasks::id.gt(after))
            // As a literal: with a parameter the partial index could not be used.
            .filter(sql::<Bool>("status < 3"))
            .order(tasks::id)
            .limit(ROWS_PER_READ)
            .select(TaskColumns::as_select())
            .load(connection)?;
        let Some(last) = rows.last() else { break };
        after = last.id;
        for row in &rows {
            let row = row.row(&mut names)?;
            hashes.insert(row.spec);
            live.push(row);
        }
    }
    let hashes: Vec<_> = hashes.into_iter().collect();
    Ok(Recovered { tasks: live, specs: specs(connection, &hashes)?, workers: all_workers(connection)? })
}

/// The texts of specifications; every one must be there.
pub(crate) fn specs(connection: &mut AnyConnection, hashes: &[SpecHash]) -> Result<Vec<SpecRow>, Error> {
    let mut found = Vec::with_capacity(hashes.len());
    for wanted in hashes.chunks(SPECS_PER_READ) {
        let wanted: Vec<Vec<u8>> = wanted.iter().map(|hash| hash.0.to_vec()).collect();
        let rows: Vec<(Vec<u8>, String)> = task_specs::table
            .filter(task_specs::hash.eq_any(wanted))
            .select((task_specs::hash, task_specs::body))
            .load(connection)?;
        for (key, body) in rows {
            found.push(SpecRow { hash: SpecHash(hash(&key)?), body: body.into() });
        }
    }
    if found.len() != hashes.len() {
        return Err(Error::corrupt(format!(
            "{} of {} specifications are missing",
            hashes.len() - found.len(),
            hashes.len()
        )));
    }
    Ok(found)
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = workers)]
pub(crate) struct WorkerColumns {
    name: String,
    boot: i64,
    group_names: String,
    labels: String,
    slots: i32,
    prefetch: i32,
    draining: i32,
    registered_at: i64,
    changed_at: i64,
}

impl TryFrom<WorkerColumns> for WorkerRow {
    type Error = Error;

    fn try_from(columns: WorkerColumns) -> Result<Self, Error> {
        let damaged =
            |error| Error::with_source(Kind::Corrupt, format!("the worker {}", columns.name), error);
        let groups: Vec<Arc<str>> = serde_json::from_str(&columns.group_names).map_err(damaged)?;
        let labels: BTreeMap<String, String> = serde_json::from_str(&columns.labels).map_err(damaged)?;
        Ok(Self {
            boot: BootId(columns.boot.cast_unsigned()),
            groups,
            labels,
            slots: unsigned_small(columns.slots)?,
            prefetch: unsigned_small(columns.prefetch)?,
            draining: columns.draining != 0,
            registered_at: Wall(columns.registered_at),
            changed_at: Wall(columns.changed_at),
            name: columns.name.into(),
        })
    }
}

pub(crate) fn all_workers(connection: &mut AnyConnection) -> Result<Vec<WorkerRow>, Error> {
    let rows: Vec<WorkerColumns> =
        workers::table.order(workers::name).select(WorkerColumns::as_select()).load(connection)?;
    rows.into_iter().map(WorkerRow::try_from).collect()
}
