//! Reads of runs and their nodes.
//!
//! Runs are listed from the newest down, in steps like those of tasks: a page that has looked at
//! enough rows ends where it is, and may be short without being the last.

use std::fmt;
use std::str::FromStr;

use agentflow_core::batch::{RunRow, RunState, Waits};
use agentflow_core::ids::{Attempt, RunId, TaskId};
use agentflow_core::limits;
use agentflow_core::run::RunStatus;
use agentflow_core::status::Status;
use agentflow_core::time::Wall;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;

use super::Readers;
use crate::columns::{big, status, unsigned, unsigned_small, waits};
use crate::connection::{AnyConnection, MultiBackend};
use crate::error::Error;
use crate::runs::{self as rows, RunColumns};
use crate::tables::{run_definitions, run_ranges, runs, task_outdated, tasks};

/// Numbers looked at by one statement: about 5 ms.
const IDS_PER_STEP: i64 = 20_000;

/// Steps of one page: half a million rows.
const STEPS_PER_PAGE: usize = 25;

/// Everything about one run but its nodes.
#[derive(Clone, PartialEq, Debug)]
pub struct RunRecord {
    /// As it was made, or as the last upgrade made it, and as it is now.
    pub row: RunRow,
    /// Its workflow's canonical JSON.
    pub definition_body: String,
}

/// One run in a listing: no workflow, no inputs.
#[derive(Clone, PartialEq, Debug)]
pub struct RunSummary {
    /// Which.
    pub id: RunId,
    /// Its name.
    pub name: String,
    /// `sequential`, `parallel`, `dag`, `pipeline` or `conditional`.
    pub mode: &'static str,
    /// The task number of the first node that it was made with.
    pub first_task: TaskId,
    /// How many nodes it has.
    pub nodes: u32,
    /// The node of another run that it is.
    pub parent: Option<TaskId>,
    /// When it was accepted.
    pub created_at: Wall,
    /// As it is now.
    pub state: RunState,
}

/// One node of a run that has a row: no payload, no result, no outputs.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeRecord {
    /// Which.
    pub task: TaskId,
    /// Its name in the run.
    pub node: String,
    /// Where it stands.
    pub status: Status,
    /// Its latest try.
    pub attempt: Attempt,
    /// Who holds it or settled it.
    pub worker: Option<String>,
    /// When its latest attempt began.
    pub started_at: Option<Wall>,
    /// When it settled.
    pub settled_at: Option<Wall>,
    /// The exit code of its latest attempt.
    pub exit_code: Option<i32>,
    /// Why its latest attempt failed.
    pub error: Option<String>,
    /// For what it waits beside workers and time.
    pub waits: Option<Waits>,
    /// Whether its attempt has been told to stop.
    pub cancelling: bool,
}

/// Which runs. Everything given must hold; the default is all runs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RunFilter {
    /// One of these; all when empty.
    pub statuses: Vec<RunStatus>,
    /// Of this name.
    pub name: Option<String>,
}

/// Where a listing of runs goes on: before this run. Written `r5`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunCursor(pub RunId);

impl fmt::Display for RunCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

impl FromStr for RunCursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix('r')
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .map(|id| Self(RunId(id)))
            .ok_or_else(|| format!("'{text}' is no cursor of a listing of runs"))
    }
}

type Runs<'a> = runs::BoxedQuery<'a, MultiBackend>;

impl RunFilter {
    /// Runs numbered below `before`; those of the partial index only, where that has them all.
    fn below(&self, before: i64) -> Runs<'_> {
        let mut query = runs::table.filter(runs::id.lt(before)).into_boxed();
        if !self.statuses.is_empty() && self.statuses.iter().all(|status| !status.is_settled()) {
            // As a literal: with a parameter the partial index could not be used.
            query = query.filter(sql::<Bool>("runs.status < 3"));
        }
        query
    }

    /// Runs numbered below `before` and from `first` on.
    fn query(&self, before: i64, first: i64) -> Runs<'_> {
        let mut query = self.below(before).filter(runs::id.ge(first));
        if !self.statuses.is_empty() {
            let numbers: Vec<i32> = self.statuses.iter().map(|status| *status as i32).collect();
            query = query.filter(runs::status.eq_any(numbers));
        }
        if let Some(name) = &self.name {
            query = query.filter(runs::name.eq(name));
        }
        query
    }
}

/// A row without its inputs.
#[derive(Queryable, Selectable)]
#[diesel(table_name = runs)]
struct SummaryColumns {
    id: i64,
    status: i32,
    revision: i32,
    first_task: i64,
    nodes: i32,
    parent: Option<i64>,
    created_at: i64,
    settled_at: Option<i64>,
    mode: String,
    name: String,
    error: Option<String>,
    stopping: i32,
    version: i32,
}

impl TryFrom<SummaryColumns> for RunSummary {
    type Error = Error;

    fn try_from(columns: SummaryColumns) -> Result<Self, Error> {
        Ok(Self {
            id: RunId(unsigned(columns.id)?),
            name: columns.name,
            mode: rows::mode(&columns.mode)?,
            first_task: TaskId(unsigned(columns.first_task)?),
            nodes: unsigned_small(columns.nodes)?,
            parent: columns.parent.map(unsigned).transpose()?.map(TaskId),
            created_at: Wall(columns.created_at),
            state: rows::state(
                (columns.status, columns.revision, columns.version),
                columns.settled_at,
                columns.error,
                columns.stopping,
            )?,
        })
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = tasks)]
struct NodeColumns {
    id: i64,
    node: Option<String>,
    status: i32,
    attempt: i32,
    worker: Option<String>,
    started_at: Option<i64>,
    settled_at: Option<i64>,
    exit_code: Option<i32>,
    error: Option<String>,
    waits: i32,
    cancelling: i32,
}

impl TryFrom<NodeColumns> for NodeRecord {
    type Error = Error;

    fn try_from(columns: NodeColumns) -> Result<Self, Error> {
        let task = TaskId(unsigned(columns.id)?);
        Ok(Self {
            task,
            node: columns
                .node
                .ok_or_else(|| Error::corrupt(format!("task {task} has half a place in a run")))?,
            status: status(columns.status)?,
            attempt: Attempt(unsigned_small(columns.attempt)?),
            worker: columns.worker,
            started_at: columns.started_at.map(Wall),
            settled_at: columns.settled_at.map(Wall),
            exit_code: columns.exit_code,
            error: columns.error,
            waits: waits(columns.waits)?,
            cancelling: columns.cancelling != 0,
        })
    }
}

impl Readers {
    /// One run.
    ///
    /// # Errors
    /// Those of the database.
    pub fn run(&self, id: RunId) -> Result<Option<RunRecord>, Error> {
        record(&mut *self.connection()?, big(id.0))
    }

    /// The run of which this number is a node, whether the node has a row or not. A number that an
    /// upgrade took out of its run is none any more.
    ///
    /// # Errors
    /// Those of the database.
    pub fn run_with_node(&self, task: TaskId) -> Result<Option<RunRecord>, Error> {
        let connection = &mut *self.connection()?;
        let number = big(task.0);
        let range: Option<(i64, i64, i32)> = run_ranges::table
            .filter(run_ranges::task.le(number))
            .order(run_ranges::task.desc())
            .select((run_ranges::run, run_ranges::task, run_ranges::count))
            .first(connection)
            .optional()?;
        let run = match range {
            Some((run, first, count)) if number - first < i64::from(count) => Some(run),
            _ => runs::table
                .filter(runs::first_task.le(number))
                .order(runs::first_task.desc())
                .select(runs::id)
                .first(connection)
                .optional()?,
        };
        let Some(run) = run else { return Ok(None) };
        Ok(record(connection, run)?.filter(|record| record.row.numbers.node_of(task).is_some()))
    }

    /// One page of runs, the newest first, and where the next one begins. `limit` is cut to
    /// [`limits::PAGE`]. A page may be short without being the last: only a missing cursor says so.
    ///
    /// # Errors
    /// Those of the database.
    pub fn runs(
        &self,
        filter: &RunFilter,
        cursor: Option<RunCursor>,
        limit: usize,
    ) -> Result<(Vec<RunSummary>, Option<RunCursor>), Error> {
        let connection = &mut *self.connection()?;
        let limit = limit.clamp(1, limits::PAGE);
        let mut before = cursor.map_or(i64::MAX, |cursor| big(cursor.0.0));
        let mut page = Vec::new();
        for _ in 0..STEPS_PER_PAGE {
            let Some(newest) = newest(connection, filter, before)? else { return Ok((page, None)) };
            let first = newest.saturating_sub(IDS_PER_STEP - 1).max(1);
            // One more than wanted tells a last page from one that is merely full.
            let rest = i64::try_from(limit + 1 - page.len()).unwrap_or(i64::MAX);
            let found: Vec<SummaryColumns> = filter
                .query(before, first)
                .order(runs::id.desc())
                .limit(rest)
                .select(SummaryColumns::as_select())
                .load(connection)?;
            for columns in found {
                page.push(RunSummary::try_from(columns)?);
            }
            if page.len() > limit {
                page.truncate(limit);
                let next = page.last().map(|last| RunCursor(last.id));
                return Ok((page, next));
            }
            before = first;
        }
        Ok((page, Some(RunCursor(RunId(unsigned(before)?)))))
    }

    /// Nodes of a run of which a worker has an attempt of an older version, rising.
    ///
    /// # Errors
    /// Those of the database.
    pub fn outdated_nodes(&self, run: RunId) -> Result<Vec<TaskId>, Error> {
        let found: Vec<i64> = task_outdated::table
            .inner_join(tasks::table.on(tasks::id.eq(task_outdated::task)))
            .filter(tasks::run.eq(big(run.0)))
            .order(task_outdated::task)
            .select(task_outdated::task)
            .load(&mut *self.connection()?)?;
        found.into_iter().map(|task| Ok(TaskId(unsigned(task)?))).collect()
    }

    /// The nodes of a run that have a row and a number above `after`, by number, at most `limit` and
    /// at most [`limits::PAGE`].
    ///
    /// # Errors
    /// Those of the database.
    pub fn nodes(&self, run: RunId, after: TaskId, limit: usize) -> Result<Vec<NodeRecord>, Error> {
        let found: Vec<NodeColumns> = tasks::table
            .filter(tasks::run.eq(big(run.0)))
            .filter(tasks::id.gt(big(after.0)))
            .order(tasks::id)
            .limit(i64::try_from(limit.min(limits::PAGE)).unwrap_or(i64::MAX))
            .select(NodeColumns::as_select())
            .load(&mut *self.connection()?)?;
        found.into_iter().map(NodeRecord::try_from).collect()
    }
}

/// One run. Read again if an upgrade has come between its row and its ranges.
fn record(connection: &mut AnyConnection, id: i64) -> Result<Option<RunRecord>, Error> {
    loop {
        let found: Option<(RunColumns, String)> = runs::table
            .inner_join(run_definitions::table.on(run_definitions::hash.eq(runs::definition)))
            .filter(runs::id.eq(id))
            .select((RunColumns::as_select(), run_definitions::body))
            .first(connection)
            .optional()?;
        let Some((columns, definition_body)) = found else { return Ok(None) };
        let ranges = rows::ranges(connection, vec![id])?.remove(&id);
        // The first version of a run has no ranges.
        let unchanged = (columns.version == 1 && ranges.is_none())
            || runs::table.find(id).select(runs::version).first(connection).optional()?
                == Some(columns.version);
        if unchanged {
            return Ok(Some(RunRecord { row: columns.row(ranges)?, definition_body }));
        }
    }
}

/// The newest run below `before` that may be wanted.
fn newest(connection: &mut AnyConnection, filter: &RunFilter, before: i64) -> Result<Option<i64>, Error> {
    Ok(filter.below(before).order(runs::id.desc()).select(runs::id).first(connection).optional()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_go_there_and_back() {
        assert_eq!("r5".parse(), Ok(RunCursor(RunId(5))));
        assert_eq!(RunCursor(RunId(5)).to_string(), "r5");
        for wrong in ["5", "t5", "r", "r-5", "r+5", "r99999999999999999999"] {
            assert!(wrong.parse::<RunCursor>().is_err(), "{wrong}");
        }
    }
}
