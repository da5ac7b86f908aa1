//! Which tasks a listing wants, and how they are found without an index for every question.
//!
//! A listing walks the primary key upwards in steps. Questions about live tasks only walk the
//! partial index instead, which is as small as the live part of the table. A page that has looked at
//! enough rows ends where it is, with a cursor to go on from: it may be short or even empty, and
//! still not be the last.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;

use agentflow_core::batch::TaskState;
use agentflow_core::ids::{RunId, SpecHash, TaskId};
use agentflow_core::spec::Spec;
use agentflow_core::status::Status;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;

use crate::columns::{big, hash, unsigned};
use crate::connection::{AnyConnection, MultiBackend};
use crate::error::Error;
use crate::recover;
use crate::tables::tasks;

/// Numbers looked at by one statement: about 5 ms.
const IDS_PER_STEP: i64 = 20_000;

/// The same where specifications have to be read as well.
const LABELLED_IDS_PER_STEP: i64 = 2_000;

/// Steps of one page: half a million rows, or 50,000 with labels.
const STEPS_PER_PAGE: usize = 25;

/// Which tasks. Everything given must hold; the default is all tasks.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TaskFilter {
    /// One of these; all when empty.
    pub statuses: Vec<Status>,
    /// Of this group.
    pub group: Option<String>,
    /// Held or settled by this worker.
    pub worker: Option<String>,
    /// A node of this run.
    pub run: Option<RunId>,
    /// Requiring these labels.
    pub labels: BTreeMap<String, String>,
    /// One of these, at most [`TASKS_PER_SUBMISSION`](agentflow_core::limits::TASKS_PER_SUBMISSION);
    /// all when empty.
    pub ids: Vec<TaskId>,
}

/// Where a listing goes on: after this task. Written `t5`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor(pub TaskId);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix('t')
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .map(|id| Self(TaskId(id)))
            .ok_or_else(|| format!("'{text}' is no cursor of this listing"))
    }
}

type Tasks<'a> = tasks::BoxedQuery<'a, MultiBackend>;

impl TaskFilter {
    /// Whether to look into the partial index of live tasks: every row in question is there, and the
    /// index of a run's nodes is not narrower.
    fn is_live(&self) -> bool {
        self.run.is_none()
            && !self.statuses.is_empty()
            && self.statuses.iter().all(|status| !status.is_settled())
    }

    /// Tasks numbered after `after` and up to `last`, without the question about labels.
    fn query(&self, after: i64, last: i64) -> Tasks<'_> {
        let mut query = tasks::table.filter(tasks::id.gt(after)).filter(tasks::id.le(last)).into_boxed();
        if self.is_live() {
            // As a literal: with a parameter the partial index could not be used.
            query = query.filter(sql::<Bool>("tasks.status < 3"));
        }
        if !self.statuses.is_empty() {
            let numbers: Vec<i32> = self.statuses.iter().map(|status| i32::from(status.number())).collect();
            query = query.filter(tasks::status.eq_any(numbers));
        }
        if let Some(group) = &self.group {
            query = query.filter(tasks::group_name.eq(group));
        }
        if let Some(worker) = &self.worker {
            query = query.filter(tasks::worker.eq(worker));
        }
        if let Some(run) = self.run {
            query = query.filter(tasks::run.eq(big(run.0)));
        }
        if !self.ids.is_empty() {
            let ids: Vec<i64> = self.ids.iter().map(|id| big(id.0)).collect();
            query = query.filter(tasks::id.eq_any(ids));
        }
        query
    }

    /// Whether a task that was found is still wanted; it may have moved on since.
    pub(crate) fn matches(&self, state: &TaskState) -> bool {
        (self.statuses.is_empty() || self.statuses.contains(&state.status))
            && self.group.as_deref().is_none_or(|group| group == &*state.group)
            && self.worker.as_deref().is_none_or(|worker| state.worker.as_deref() == Some(worker))
    }

    fn labels_match(&self, body: &str) -> bool {
        serde_json::from_str::<Spec>(body)
            .is_ok_and(|spec| self.labels.iter().all(|(name, value)| spec.labels.get(name) == Some(value)))
    }
}

/// A walk over the tasks that a filter wants.
pub(crate) struct Walk<'a> {
    filter: &'a TaskFilter,
    /// Whether nodes of runs are left out.
    plain: bool,
    /// The last id that was looked at; `None` when there are no more.
    after: Option<i64>,
    /// Specifications looked at, and whether they require the labels.
    specs: HashMap<Vec<u8>, bool>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(filter: &'a TaskFilter, after: TaskId) -> Self {
        Self { filter, plain: false, after: Some(big(after.0)), specs: HashMap::new() }
    }

    /// The same walk, past the nodes of runs.
    pub(crate) fn over_plain_tasks(self) -> Self {
        Self { plain: true, ..self }
    }

    /// Finds at most `limit` tasks, rising, and says where to go on: after the last one found, or
    /// after the last one looked at when that was enough for one page.
    pub(crate) fn page(
        &mut self,
        connection: &mut AnyConnection,
        limit: usize,
    ) -> Result<(Vec<i64>, Option<TaskId>), Error> {
        let mut found = Vec::new();
        for _ in 0..STEPS_PER_PAGE {
            let Some(step) = self.step(connection)? else { return Ok((found, None)) };
            // One more than wanted tells a last page from one that is merely full.
            found.extend(self.ids(connection, step, limit + 1 - found.len())?);
            if found.len() > limit {
                found.truncate(limit);
                let last = found.last().copied().unwrap_or(step.0);
                return Ok((found, Some(TaskId(unsigned(last)?))));
            }
        }
        let next = self.after.map(|after| unsigned(after).map(TaskId)).transpose()?;
        Ok((found, next))
    }

    /// How many there are from here on.
    pub(crate) fn count(&mut self, connection: &mut AnyConnection) -> Result<u64, Error> {
        let mut count = 0;
        while let Some(step) = self.step(connection)? {
            count += if self.filter.labels.is_empty() {
                let number: i64 = self.filter.query(step.0, step.1).count().get_result(connection)?;
                unsigned(number)?
            } else {
                self.ids(connection, step, usize::MAX)?.len() as u64
            };
        }
        Ok(count)
    }

    /// The next stretch of numbers to look at: after the first and up to the second. Stretches that
    /// hold no rows are jumped over.
    fn step(&mut self, connection: &mut AnyConnection) -> Result<Option<(i64, i64)>, Error> {
        let Some(after) = self.after else { return Ok(None) };
        if !self.filter.ids.is_empty() {
            self.after = None;
            return Ok(Some((after, i64::MAX)));
        }
        let mut first = tasks::table.filter(tasks::id.gt(after)).order(tasks::id).into_boxed();
        if self.filter.is_live() {
            first = first.filter(sql::<Bool>("tasks.status < 3"));
        }
        if let Some(run) = self.filter.run {
            first = first.filter(tasks::run.eq(big(run.0)));
        }
        let first: Option<i64> = first.select(tasks::id).first(connection).optional()?;
        let size = if self.filter.labels.is_empty() { IDS_PER_STEP } else { LABELLED_IDS_PER_STEP };
        self.after = first.map(|first| (first - 1).saturating_add(size));
        Ok(first.zip(self.after).map(|(first, last)| (first - 1, last)))
    }

    fn ids(
        &mut self,
        connection: &mut AnyConnection,
        (after, last): (i64, i64),
        limit: usize,
    ) -> Result<Vec<i64>, Error> {
        let mut query = self.filter.query(after, last).order(tasks::id);
        if self.plain {
            query = query.filter(tasks::run.is_null());
        }
        if self.filter.labels.is_empty() {
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            return Ok(query.limit(limit).select(tasks::id).load(connection)?);
        }
        let rows: Vec<(i64, Vec<u8>)> = query.select((tasks::id, tasks::spec)).load(connection)?;
        let unknown: BTreeSet<_> =
            rows.iter().map(|row| &row.1).filter(|spec| !self.specs.contains_key(*spec)).collect();
        let unknown =
            unknown.into_iter().map(|spec| hash(spec).map(SpecHash)).collect::<Result<Vec<_>, _>>()?;
        for spec in recover::specs_left(connection, &unknown)? {
            self.specs.insert(spec.hash.0.to_vec(), self.filter.labels_match(&spec.body));
        }
        let wanted = |spec: &Vec<u8>| self.specs.get(spec).copied().unwrap_or(false);
        Ok(rows.into_iter().filter(|row| wanted(&row.1)).map(|row| row.0).take(limit).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_go_there_and_back() {
        assert_eq!("t5".parse(), Ok(Cursor(TaskId(5))));
        assert_eq!(Cursor(TaskId(5)).to_string(), "t5");
        for wrong in ["5", "t", "t-5", "t+5", "tTASK-00000005", "t99999999999999999999"] {
            assert!(wrong.parse::<Cursor>().is_err(), "{wrong}");
        }
    }
}
