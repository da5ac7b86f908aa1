//! Reads of relations between tasks.

use std::collections::BTreeSet;

use agentflow_core::batch::RelationRow;
use agentflow_core::ids::TaskId;
use agentflow_core::limits::TASKS_PER_SUBMISSION;
use agentflow_core::status::Status;
use diesel::prelude::*;

use super::Readers;
use crate::columns::{big, unsigned};
use crate::error::Error;
use crate::filter::{TaskFilter, Walk};
use crate::relations::{self, RelationColumns};
use crate::tables::task_relationships;

/// Relations of one task that are listed, in each direction.
const RELATIONS_PER_TASK: i64 = 10_000;

impl Readers {
    /// The relations of a task: first those to what comes before it, then those to what comes after
    /// it, each by the other task; at most 10,000 of either.
    ///
    /// # Errors
    /// Those of the database.
    pub fn relations_of(&self, task: TaskId) -> Result<Vec<RelationRow>, Error> {
        let connection = &mut *self.connection()?;
        let before: Vec<RelationColumns> = task_relationships::table
            .filter(task_relationships::successor.eq(big(task.0)))
            .order((task_relationships::predecessor, task_relationships::relation))
            .limit(RELATIONS_PER_TASK)
            .select(RelationColumns::as_select())
            .load(connection)?;
        let after: Vec<RelationColumns> = task_relationships::table
            .filter(task_relationships::predecessor.eq(big(task.0)))
            .order((task_relationships::successor, task_relationships::relation))
            .limit(RELATIONS_PER_TASK)
            .select(RelationColumns::as_select())
            .load(connection)?;
        before.into_iter().chain(after).map(RelationRow::try_from).collect()
    }

    /// The relations both of whose tasks are among these, by successor and predecessor. At most
    /// [`TASKS_PER_SUBMISSION`] tasks should be asked about.
    ///
    /// # Errors
    /// Those of the database.
    pub fn relations_among(&self, tasks: &[TaskId]) -> Result<Vec<RelationRow>, Error> {
        let among: BTreeSet<TaskId> = tasks.iter().copied().collect();
        let successors: Vec<i64> = among.iter().map(|id| big(id.0)).collect();
        let mut found = Vec::new();
        relations::to_successors(&mut *self.connection()?, &successors, |_, page| {
            found.extend(page.into_iter().filter(|row| among.contains(&row.predecessor)));
            Ok(())
        })?;
        Ok(found)
    }

    /// The tasks of a group that are not settled and are no nodes of runs, by id, at most `limit` and
    /// at most [`TASKS_PER_SUBMISSION`]. This walks over all live tasks, in short steps.
    ///
    /// # Errors
    /// Those of the database.
    pub fn live_in_group(&self, group: &str, limit: usize) -> Result<Vec<TaskId>, Error> {
        let filter = TaskFilter {
            statuses: vec![Status::Blocked, Status::Pending, Status::Running],
            group: Some(group.to_owned()),
            ..TaskFilter::default()
        };
        let limit = limit.clamp(1, TASKS_PER_SUBMISSION);
        let connection = &mut *self.connection()?;
        let mut found = Vec::new();
        let mut after = Some(TaskId(0));
        while let Some(place) = after.filter(|_| found.len() < limit) {
            let mut walk = Walk::new(&filter, place).over_plain_tasks();
            let (ids, next) = walk.page(connection, limit - found.len())?;
            for id in ids {
                found.push(TaskId(unsigned(id)?));
            }
            after = next;
        }
        Ok(found)
    }
}
