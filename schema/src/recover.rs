//! What a new master reads before it takes work: every task and every run that is not settled, and
//! what belongs to them. Rows only; history is never replayed.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use agentflow_core::batch::{
    CatchUp, DefinitionRow, KeyLimit, KeyLimitRow, LiveRelation, LockRow, LockSpaceRow, Rate, RoundRow,
    RunRow, SavedTask, ScheduleRow, SettledNode, SpecRow, TaskRow, WorkerRow,
};
use agentflow_core::ids::{BootId, RunId, SpecHash, TaskId};
use agentflow_core::memory::Memory;
use agentflow_core::status::Status;
use agentflow_core::time::Wall;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;

use crate::columns::{Names, TaskColumns, big, hash, unsigned, unsigned_small};
use crate::connection::AnyConnection;
use crate::error::{Error, Kind};
use crate::tables::{concurrency_keys, schedules, task_specs, tasks, workers};
use crate::{locks, relations, runs, saved};

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
    /// The limits of concurrency keys, by name.
    pub key_limits: Vec<KeyLimitRow>,
    /// What is begun again and again, by name.
    pub schedules: Vec<ScheduleRow>,
    /// Every run that has not ended, by id.
    pub runs: Vec<RunRow>,
    /// The workflows that they name.
    pub definitions: Vec<DefinitionRow>,
    /// Their settled nodes, by run and task; their live ones are among the tasks.
    pub settled_nodes: Vec<SettledNode>,
    /// The rounds of their loops, by task.
    pub rounds: Vec<RoundRow>,
    /// Nodes whose attempt is of an older version of their run, rising.
    pub outdated: Vec<TaskId>,
    /// The checkpoints and memories of live tasks that have some.
    pub saved: Vec<(TaskId, SavedTask)>,
    /// The memories of live runs that have some.
    pub memories: Vec<(RunId, Memory)>,
    /// What the blocked tasks wait or waited for, by successor.
    pub relations: Vec<LiveRelation>,
    /// Every repository in which something was ever locked, by its number.
    pub lock_spaces: Vec<LockSpaceRow>,
    /// Every lock that is held, by its number.
    pub locks: Vec<LockRow>,
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
    let blocked: Vec<i64> =
        live.iter().filter(|task| task.state.status == Status::Blocked).map(|task| big(task.id.0)).collect();
    let runs = runs::live(connection)?;
    let mut settled_nodes = Vec::new();
    for run in &runs {
        settled_nodes.extend(runs::settled_nodes(connection, run.id, &mut names)?);
    }
    let (saved, memories) = saved::live(connection)?;
    let lock_spaces = locks::spaces(connection)?;
    Ok(Recovered {
        tasks: live,
        saved,
        memories,
        specs: specs(connection, &hashes)?,
        workers: all_workers(connection)?,
        key_limits: key_limits(connection)?,
        schedules: all_schedules(connection)?,
        definitions: runs::definitions_of(connection, &runs)?,
        runs,
        settled_nodes,
        rounds: runs::rounds(connection)?,
        outdated: runs::outdated(connection)?,
        relations: relations::live(connection, &blocked)?,
        locks: locks::held(connection, &lock_spaces)?,
        lock_spaces,
    })
}

/// The texts of specifications; every one must be there.
pub(crate) fn specs(connection: &mut AnyConnection, hashes: &[SpecHash]) -> Result<Vec<SpecRow>, Error> {
    let found = specs_left(connection, hashes)?;
    if found.len() != hashes.len() {
        return Err(Error::corrupt(format!(
            "{} of {} specifications are missing",
            hashes.len() - found.len(),
            hashes.len()
        )));
    }
    Ok(found)
}

/// The texts of those specifications that are there: between two statements of a reader, a task may
/// have been removed, or given another one.
pub(crate) fn specs_left(connection: &mut AnyConnection, hashes: &[SpecHash]) -> Result<Vec<SpecRow>, Error> {
    let mut found = Vec::with_capacity(hashes.len());
    for wanted in hashes.chunks(SPECS_PER_READ) {
        let wanted: Vec<Vec<u8>> = wanted.iter().map(|hash| hash.0.to_vec()).collect();
        let rows: Vec<(Vec<u8>, String)> = task_specs::table
            .filter(task_specs::hash.eq_any(wanted))
            .select((task_specs::hash, task_specs::body))
            .load(connection)?;
        for (key, body) in rows {
            found.push(SpecRow { hash: SpecHash(hash(&key)?), body: body.into(), blobs: Box::default() });
        }
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

#[derive(Queryable, Selectable)]
#[diesel(table_name = schedules)]
struct ScheduleColumns {
    name: String,
    cron: String,
    zone: String,
    catch_up: i32,
    paused: i32,
    next_at: Option<i64>,
    last_at: Option<i64>,
    fired: i64,
    created_at: i64,
    body: String,
}

fn all_schedules(connection: &mut AnyConnection) -> Result<Vec<ScheduleRow>, Error> {
    let rows: Vec<ScheduleColumns> =
        schedules::table.order(schedules::name).select(ScheduleColumns::as_select()).load(connection)?;
    let row = |columns: ScheduleColumns| {
        let catch_up = u8::try_from(columns.catch_up).ok().and_then(CatchUp::from_number);
        Ok(ScheduleRow {
            catch_up: catch_up
                .ok_or_else(|| Error::corrupt(format!("{} is no way to catch up", columns.catch_up)))?,
            name: columns.name.into(),
            body: columns.body.into(),
            cron: columns.cron.into(),
            zone: columns.zone.into(),
            paused: columns.paused != 0,
            next_at: columns.next_at.map(Wall),
            last_at: columns.last_at.map(Wall),
            fired: unsigned(columns.fired)?,
            created_at: Wall(columns.created_at),
        })
    };
    rows.into_iter().map(row).collect()
}

fn key_limits(connection: &mut AnyConnection) -> Result<Vec<KeyLimitRow>, Error> {
    let rows: Vec<(String, i32, Option<i32>, Option<i64>)> =
        concurrency_keys::table.order(concurrency_keys::name).load(connection)?;
    let row = |(name, most, count, per_ms): (String, i32, Option<i32>, Option<i64>)| {
        let rate = match (count, per_ms) {
            (Some(count), Some(per_ms)) => {
                Some(Rate { count: unsigned_small(count)?, per_ms: unsigned(per_ms)? })
            }
            _ => None,
        };
        Ok(KeyLimitRow { name: name.into(), limit: Some(KeyLimit { limit: unsigned_small(most)?, rate }) })
    };
    rows.into_iter().map(row).collect()
}

pub(crate) fn all_workers(connection: &mut AnyConnection) -> Result<Vec<WorkerRow>, Error> {
    let rows: Vec<WorkerColumns> =
        workers::table.order(workers::name).select(WorkerColumns::as_select()).load(connection)?;
    rows.into_iter().map(WorkerRow::try_from).collect()
}
