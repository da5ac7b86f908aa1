//! The rows of runs, of their workflows, and of their nodes, as recovery, a rerun and listings read
//! them back.

use std::collections::{BTreeMap, BTreeSet};

use agentflow_core::batch::{DefinitionRow, RoundRow, RunBirth, RunRow, RunState, SettledNode, Stopping};
use agentflow_core::ids::{RunId, SpecHash, TaskId};
use agentflow_core::run::{Numbers, Range, RunStatus};
use agentflow_core::time::Wall;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;

use crate::columns::{Names, OutcomeColumns, big, hash, run_node, status, unsigned, unsigned_small};
use crate::connection::AnyConnection;
use crate::error::Error;
use crate::left;
use crate::tables::{run_definitions, run_ranges, runs, task_outdated, task_rounds, tasks};

/// Runs read by one statement: each may have a mebibyte of inputs.
const RUNS_PER_READ: usize = 200;

/// Settled nodes read by one statement: each may have 136 KiB of outcome.
const NODES_PER_READ: usize = 1_000;

const MODES: [&str; 5] = ["sequential", "parallel", "dag", "pipeline", "conditional"];

/// A whole row.
#[derive(Queryable, Selectable)]
#[diesel(table_name = runs)]
pub(crate) struct RunColumns {
    id: i64,
    status: i32,
    revision: i32,
    first_task: i64,
    nodes: i32,
    parent: Option<i64>,
    created_at: i64,
    settled_at: Option<i64>,
    definition: Vec<u8>,
    mode: String,
    name: String,
    error: Option<String>,
    inputs: String,
    stopping: i32,
    pub(crate) version: i32,
}

impl RunColumns {
    /// The row with its ranges, if it has some.
    pub(crate) fn row(self, ranges: Option<Vec<Range>>) -> Result<RunRow, Error> {
        let birth = RunBirth {
            definition: SpecHash(hash(&self.definition)?),
            name: self.name.into(),
            mode: mode(&self.mode)?,
            first_task: TaskId(unsigned(self.first_task)?),
            nodes: unsigned_small(self.nodes)?,
            inputs: self.inputs.into(),
            parent: self.parent.map(unsigned).transpose()?.map(TaskId),
            created_at: Wall(self.created_at),
        };
        let numbers = match ranges {
            Some(ranges) => Numbers::from_ranges(ranges).filter(|numbers| numbers.len() == birth.nodes),
            None => Some(Numbers::row(birth.first_task, birth.nodes)),
        };
        Ok(RunRow {
            id: RunId(unsigned(self.id)?),
            numbers: numbers.ok_or_else(|| {
                Error::corrupt(format!("the ranges of run {} are not those of its nodes", self.id))
            })?,
            birth,
            state: state(
                (self.status, self.revision, self.version),
                self.settled_at,
                self.error,
                self.stopping,
            )?,
        })
    }
}

/// The ranges of those of the runs that have some; at most [`RUNS_PER_READ`] runs.
pub(crate) fn ranges(
    connection: &mut AnyConnection,
    ids: Vec<i64>,
) -> Result<BTreeMap<i64, Vec<Range>>, Error> {
    let rows: Vec<(i64, i32, i64, i32)> = run_ranges::table
        .filter(run_ranges::run.eq_any(ids))
        .order((run_ranges::run, run_ranges::node))
        .load(connection)?;
    let mut found: BTreeMap<i64, Vec<Range>> = BTreeMap::new();
    for (run, node, task, count) in rows {
        found.entry(run).or_default().push(Range {
            node: unsigned_small(node)?,
            task: TaskId(unsigned(task)?),
            count: unsigned_small(count)?,
        });
    }
    Ok(found)
}

/// Adds the rows with their ranges. Only for the connection that writes: nobody comes between.
fn add_numbered(
    connection: &mut AnyConnection,
    rows: Vec<RunColumns>,
    found: &mut Vec<RunRow>,
) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut ranges = ranges(connection, rows.iter().map(|row| row.id).collect())?;
    for row in rows {
        let ranges = ranges.remove(&row.id);
        found.push(row.row(ranges)?);
    }
    Ok(())
}

/// The part of a run that changes, from its columns; first the status, the revision and the version.
pub(crate) fn state(
    (number, revision, version): (i32, i32, i32),
    settled_at: Option<i64>,
    error: Option<String>,
    stopping: i32,
) -> Result<RunState, Error> {
    let status = u8::try_from(number)
        .ok()
        .and_then(RunStatus::from_number)
        .ok_or_else(|| Error::corrupt(format!("{number} is no status of a run")))?;
    Ok(RunState {
        status,
        revision: unsigned_small(revision)?,
        version: unsigned_small(version)?,
        settled_at: settled_at.map(Wall),
        error: error.map(Into::into),
        stopping: u8::try_from(stopping).ok().and_then(Stopping::from_number),
    })
}

/// The word as the core has it.
pub(crate) fn mode(word: &str) -> Result<&'static str, Error> {
    MODES
        .into_iter()
        .find(|known| *known == word)
        .ok_or_else(|| Error::corrupt(format!("'{word}' is no mode of a run")))
}

/// Every run that has not ended, by id.
pub(crate) fn live(connection: &mut AnyConnection) -> Result<Vec<RunRow>, Error> {
    let mut live: Vec<RunRow> = Vec::new();
    loop {
        let after = live.last().map_or(0, |row| big(row.id.0));
        let rows: Vec<RunColumns> = runs::table
            .filter(runs::id.gt(after))
            // As a literal: with a parameter the partial index could not be used.
            .filter(sql::<Bool>("status < 3"))
            .order(runs::id)
            .limit(RUNS_PER_READ as i64)
            .select(RunColumns::as_select())
            .load(connection)?;
        let over = rows.len() < RUNS_PER_READ;
        add_numbered(connection, rows, &mut live)?;
        if over {
            return Ok(live);
        }
    }
}

/// Those runs that exist, by id.
pub(crate) fn by_ids(connection: &mut AnyConnection, ids: &[RunId]) -> Result<Vec<RunRow>, Error> {
    let ids: BTreeSet<i64> = ids.iter().map(|id| big(id.0)).collect();
    let ids: Vec<i64> = ids.into_iter().collect();
    let mut found = Vec::with_capacity(ids.len());
    for wanted in ids.chunks(RUNS_PER_READ) {
        let rows: Vec<RunColumns> = runs::table
            .filter(runs::id.eq_any(wanted.to_vec()))
            .order(runs::id)
            .select(RunColumns::as_select())
            .load(connection)?;
        add_numbered(connection, rows, &mut found)?;
    }
    Ok(found)
}

/// The workflows that runs name, each once; the database lets no run be without.
pub(crate) fn definitions_of(
    connection: &mut AnyConnection,
    rows: &[RunRow],
) -> Result<Vec<DefinitionRow>, Error> {
    let hashes: BTreeSet<SpecHash> = rows.iter().map(|row| row.birth.definition).collect();
    let hashes: Vec<Vec<u8>> = hashes.into_iter().map(|hash| hash.0.to_vec()).collect();
    let mut found = Vec::with_capacity(hashes.len());
    for wanted in hashes.chunks(RUNS_PER_READ) {
        let rows: Vec<(Vec<u8>, String)> = run_definitions::table
            .filter(run_definitions::hash.eq_any(wanted.to_vec()))
            .order(run_definitions::hash)
            .select((run_definitions::hash, run_definitions::body))
            .load(connection)?;
        for (key, body) in rows {
            found.push(DefinitionRow { hash: SpecHash(hash(&key)?), body: body.into() });
        }
    }
    Ok(found)
}

/// What the settled nodes of a run left, by task.
pub(crate) fn settled_nodes(
    connection: &mut AnyConnection,
    run: RunId,
    names: &mut Names,
) -> Result<Vec<SettledNode>, Error> {
    let mut found: Vec<SettledNode> = Vec::new();
    loop {
        let after = found.last().map_or(0, |node| big(node.task.0));
        let rows: Vec<(i64, Option<String>, i32, OutcomeColumns)> = tasks::table
            .filter(tasks::run.eq(big(run.0)))
            .filter(tasks::id.gt(after))
            .filter(tasks::status.ge(3))
            .order(tasks::id)
            .limit(NODES_PER_READ as i64)
            .select((tasks::id, tasks::node, tasks::status, OutcomeColumns::as_select()))
            .load(connection)?;
        let over = rows.len() < NODES_PER_READ;
        for (id, node, number, outcome) in rows {
            let Some(node) = run_node(id, Some(big(run.0)), node.as_deref(), names)? else { continue };
            let task = TaskId(unsigned(id)?);
            found.push(SettledNode { task, node, status: status(number)?, outcome: outcome.into() });
        }
        if over {
            left::add_to(connection, run, &mut found, left::Which::Values)?;
            return Ok(found);
        }
    }
}

/// The rounds of loops that go round, by task.
pub(crate) fn rounds(connection: &mut AnyConnection) -> Result<Vec<RoundRow>, Error> {
    let rows: Vec<(i64, i32)> = task_rounds::table.order(task_rounds::task).load(connection)?;
    let row =
        |(task, round)| Ok(RoundRow { task: TaskId(unsigned(task)?), round: Some(unsigned_small(round)?) });
    rows.into_iter().map(row).collect()
}

/// The nodes whose attempt is of an older version of their run, by task.
pub(crate) fn outdated(connection: &mut AnyConnection) -> Result<Vec<TaskId>, Error> {
    let rows: Vec<i64> =
        task_outdated::table.order(task_outdated::task).select(task_outdated::task).load(connection)?;
    rows.into_iter().map(|task| Ok(TaskId(unsigned(task)?))).collect()
}
