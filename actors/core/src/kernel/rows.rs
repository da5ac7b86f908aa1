//! What is written of a task: its row, and those of its ended attempts.

use super::{Kernel, Step};
use crate::batch::{
    AttemptEnd, AttemptRow, MASTER, Outcome, OutcomeChange, TaskBirth, TaskState, TaskWrite, Waits,
};
use crate::ids::TaskId;
use crate::task::{Hold, Phase, Task};
use std::sync::Arc;

impl Kernel {
    /// Has the row of an ended attempt written.
    pub(super) fn end_attempt(
        &self,
        step: &mut Step,
        id: TaskId,
        task: &Task,
        hold: &Hold,
        end: AttemptEnd,
        outcome: Outcome,
    ) {
        step.batch.attempts.push(AttemptRow {
            task: id,
            attempt: task.attempt,
            fence: task.fence,
            worker: Arc::clone(&self.workers[hold.worker].name),
            assigned_at: hold.assigned_at,
            started_at: hold.started_at,
            ended_at: step.now.wall,
            end,
            outcome,
        });
    }

    /// Has a live task's row written as the task is now.
    pub(super) fn write(
        &mut self,
        step: &mut Step,
        id: TaskId,
        birth: Option<Box<TaskBirth>>,
        outcome: OutcomeChange,
    ) {
        let hold = self.tasks.get(id).and_then(|entry| entry.task.hold().copied());
        self.write_state(step, id, birth, outcome, hold);
    }

    /// As [`Kernel::write`], with the hold that the row is to tell of.
    pub(super) fn write_state(
        &mut self,
        step: &mut Step,
        id: TaskId,
        birth: Option<Box<TaskBirth>>,
        outcome: OutcomeChange,
        hold: Option<Hold>,
    ) {
        let Some(entry) = self.tasks.get(id) else { return };
        let task = &entry.task;
        let status = task.status();
        let parts = match &task.phase {
            Phase::Open(parts) => Some(*parts),
            _ => None,
        };
        let waits = match &task.phase {
            Phase::Gate => Some(Waits::Approval),
            Phase::Open(_) => Some(Waits::Parts),
            Phase::Blocked if self.relations.is_held(id) => Some(Waits::Release),
            Phase::Blocked if self.runs.is_approved(id) => Some(Waits::Room),
            _ => None,
        };
        let worker = hold.map(|hold| Arc::clone(&self.workers[hold.worker].name));
        let started_at = hold.and_then(|hold| hold.started_at).or(parts.map(|parts| parts.started_at));
        let cancelling =
            hold.is_some_and(|hold| hold.cancelling) || parts.is_some_and(|parts| parts.cancelling);
        let state = TaskState {
            status,
            group: Arc::clone(&self.classes.get(entry.class).requirement.group),
            priority: task.priority,
            attempt: task.attempt,
            fence: task.fence,
            failures: task.failures,
            lost: task.lost,
            version: self.versions.number(id),
            worker: worker.or(parts.map(|_| MASTER.into())),
            ready_at: task.ready_at,
            assigned_at: hold.map(|hold| hold.assigned_at).or(parts.map(|parts| parts.started_at)),
            started_at,
            settled_at: status.is_settled().then_some(step.now.wall),
            cancelling: !status.is_settled() && cancelling,
            waits,
        };
        step.batch.tasks.push(TaskWrite { id, birth, spec: None, title: None, state, outcome });
    }
}
