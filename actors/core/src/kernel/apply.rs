//! The consequences of what happened to a task: queues, hands, counts, rows, events, frames.

use std::sync::Arc;

use super::classes::queue_key;
use super::runs::Ended;
use super::table::TaskTable;
use super::words::{Assigned, Effect};
use super::{Kernel, Step};
use crate::attempt::AttemptKey;
use crate::batch::{AttemptEnd, MASTER, Outcome, OutcomeChange};
use crate::event::Happening;
use crate::ids::TaskId;
use crate::rejection::Rejection;
use crate::spec::Payload;
use crate::status::Status;
use crate::task::{Command, Hold, Phase, Policy, Task, TaskEvent, WorkerIndex};
use crate::time::{Mono, Wall};

/// Whether a task is in its class's queue under that key; entries of which this is not so are
/// husks.
pub(super) fn is_waiting(
    tasks: &TaskTable,
    class: super::classes::ClassIndex,
    task: TaskId,
    key: i64,
) -> bool {
    tasks.get(task).is_some_and(|entry| {
        entry.class == class
            && entry.task.is_ready()
            && !entry.parked
            && queue_key(entry.task.ready_at, entry.task.priority) == key
    })
}

impl Kernel {
    /// Puts a command to a live task and draws the consequences.
    pub(super) fn command(
        &mut self,
        step: &mut Step,
        id: TaskId,
        command: Command,
        outcome: OutcomeChange,
    ) -> Result<Option<TaskEvent>, Rejection> {
        let entry = self.tasks.get(id).ok_or(Rejection::UnknownTask(id))?;
        let spec = &self.specs.get(entry.spec).spec;
        let policy = Policy { retry: &spec.retry, seed: id.0 };
        let Some(event) = entry.task.decide(command, policy, step.now.wall)? else { return Ok(None) };
        self.happen(step, id, &event, outcome);
        self.pass_milestone(step, id);
        Ok(Some(event))
    }

    /// A milestone is done as soon as it is ready, also one that has just become one by an upgrade: no
    /// worker may be given it.
    pub(super) fn pass_milestone(&mut self, step: &mut Step, id: TaskId) {
        let is_it = self.tasks.get(id).is_some_and(|entry| {
            entry.task.is_ready() && self.specs.get(entry.spec).spec.payload == Payload::Milestone
        });
        if is_it {
            // What may still be at work somewhere is not what ended.
            let orphan = self.supersede_attempt(step, id, "there is nothing left to do");
            debug_assert!(orphan.is_ok(), "{orphan:?}");
            let done = TaskEvent::Settled { status: Status::Completed, started_at: None, error: None };
            self.happen(step, id, &done, OutcomeChange::Keep);
        }
    }

    /// Applies an event to a live task and draws the consequences.
    pub(super) fn happen(&mut self, step: &mut Step, id: TaskId, event: &TaskEvent, outcome: OutcomeChange) {
        let Some(entry) = self.tasks.get_mut(id) else { return };
        let before = entry.task.clone();
        entry.task.evolve(event);
        let after = entry.task.clone();
        step.urgent |= !matches!(event, TaskEvent::Started { .. } | TaskEvent::AskedBack);
        self.count(Some(before.status()), Some(after.status()));
        self.leave_place(step, id, &before, &after);
        if let (Some(hold), None) = (before.hold(), after.hold()) {
            self.leave_locks(step, id, hold.worker, event);
        }
        if before.hold().is_some() && after.hold().is_none() && !after.status().is_settled() {
            // It was kept back for the attempt's sake.
            self.take_version(step, id, false);
        }
        match event {
            TaskEvent::Assigned { worker, .. } => self.hand_over(step, id, *worker, &after),
            TaskEvent::Started { .. } => {
                if let Some(hold) = after.hold() {
                    self.workers[hold.worker].running += 1;
                }
                step.task_event(id, Happening::TaskStarted { attempt: after.attempt });
                self.write(step, id, None, outcome);
            }
            TaskEvent::AskedBack => {
                self.tell(step, &after, id, |session, keys| Effect::Return { session, keys })
            }
            TaskEvent::Returned => {
                step.task_event(id, Happening::TaskReturned { attempt: before.attempt });
                self.write(step, id, None, outcome);
                self.enqueue(step, id);
            }
            TaskEvent::Lost { reason, .. } => {
                if let Some(hold) = before.hold() {
                    let worker = Arc::clone(&self.workers[hold.worker].name);
                    let error = Some(Arc::clone(reason));
                    self.end_attempt(
                        step,
                        id,
                        &before,
                        hold,
                        AttemptEnd::Lost,
                        Outcome { error, ..Outcome::default() },
                    );
                    let reason = Arc::clone(reason);
                    step.task_event(id, Happening::TaskLost { attempt: before.attempt, worker, reason });
                }
                self.write(step, id, None, OutcomeChange::Keep);
                self.enqueue(step, id);
            }
            TaskEvent::Superseded { reason, .. } => {
                if let Some(hold) = last_hold(&before) {
                    let error = Some(Arc::clone(reason));
                    let outcome = Outcome { error, ..Outcome::default() };
                    self.end_attempt(step, id, &before, hold, AttemptEnd::Cancelled, outcome);
                }
                self.tell(step, &before, id, |session, keys| Effect::Drop { session, keys });
                let happening =
                    Happening::TaskSuperseded { attempt: before.attempt, reason: Arc::clone(reason) };
                step.task_event(id, happening);
                self.write(step, id, None, OutcomeChange::Keep);
                // Whether it was held or remembered: a ready one has left its queue with this event.
                if after.is_ready() {
                    self.enqueue(step, id);
                }
            }
            TaskEvent::Adopted { worker, started, .. } => {
                self.hold(id, *worker, None);
                self.workers[*worker].running += u32::from(*started || after.status() == Status::Running);
                let worker = Arc::clone(&self.workers[*worker].name);
                step.task_event(id, Happening::TaskAdopted { attempt: after.attempt, worker });
                // It may have begun while nobody heard of it; its own report of that comes too late.
                let had_begun = before.orphan().is_some_and(|orphan| orphan.hold.started_at.is_some());
                if after.status() == Status::Running && !had_begun {
                    step.task_event(id, Happening::TaskStarted { attempt: after.attempt });
                }
                self.write(step, id, None, outcome);
            }
            TaskEvent::Cancelling => {
                step.task_event(id, Happening::TaskCancelling { attempt: after.attempt });
                self.tell(step, &after, id, |session, keys| Effect::Cancel { session, keys });
                self.write(step, id, None, outcome);
                if matches!(after.phase, Phase::Open(_)) {
                    self.stop_parts(step, id);
                }
            }
            TaskEvent::Retrying { delay_ms, error, .. } => {
                if let Some(hold) = last_hold(&before) {
                    self.end_attempt(step, id, &before, hold, AttemptEnd::Failed, kept(&outcome));
                }
                let error = Arc::clone(error);
                let happening =
                    Happening::TaskRetrying { attempt: before.attempt, error, delay_ms: *delay_ms };
                step.task_event(id, happening);
                self.write(step, id, None, outcome);
                if after.is_ready() { self.enqueue(step, id) } else { self.set_wake_timer(step, id) }
            }
            TaskEvent::Settled { status, started_at, error } => {
                self.settle(step, id, &before, *status, *started_at, error.clone(), outcome);
            }
            TaskEvent::Reopened { .. } => {
                step.task_event(id, Happening::TaskReopened { attempt: after.attempt });
                self.write(step, id, None, outcome);
                self.enqueue(step, id);
            }
            // A node of a run: its run decides when.
            TaskEvent::Rewound => {
                step.task_event(id, Happening::TaskReopened { attempt: after.attempt });
                self.write(step, id, None, outcome);
            }
            // The row said when; it need not be written again.
            TaskEvent::Woken => self.enqueue(step, id),
            TaskEvent::Prioritised { .. } => {
                self.changed(step, id);
                if after.is_ready() {
                    self.enqueue(step, id);
                }
            }
            TaskEvent::Blocked => {
                step.task_event(id, Happening::TaskBlocked {});
                self.write(step, id, None, outcome);
            }
            TaskEvent::Unblocked { .. } => {
                step.task_event(id, Happening::TaskUnblocked {});
                self.write(step, id, None, outcome);
                if after.is_ready() { self.enqueue(step, id) } else { self.set_wake_timer(step, id) }
            }
            TaskEvent::Asked => {
                step.task_event(id, Happening::TaskAsked {});
                self.write(step, id, None, outcome);
            }
            TaskEvent::Approved => {
                step.task_event(id, Happening::TaskApproved {});
                self.write(step, id, None, outcome);
            }
            TaskEvent::Opened { .. } => {
                let (worker, attempt, fence) = (MASTER.into(), after.attempt, after.fence);
                step.task_event(id, Happening::TaskAssigned { worker, attempt, fence });
                step.task_event(id, Happening::TaskStarted { attempt });
                self.write(step, id, None, outcome);
            }
            TaskEvent::Repeated { .. } => {
                if let Some(hold) = last_hold(&before) {
                    self.end_attempt(step, id, &before, hold, AttemptEnd::Completed, kept(&outcome));
                }
                step.task_event(id, Happening::TaskRepeating { attempt: before.attempt });
                // Another round is no continuation of the last one.
                self.begin_anew(step, id);
                self.write(step, id, None, outcome);
                self.enqueue(step, id);
                self.next_round(step, id);
            }
        }
        if matches!(after.phase, Phase::Ready(_) | Phase::Delayed(_)) {
            self.wait_for_run(step, id);
        }
    }

    /// Takes the task out of the queue or hands that it leaves with this event.
    fn leave_place(&mut self, step: &mut Step, id: TaskId, before: &Task, after: &Task) {
        match (&before.phase, &after.phase) {
            (Phase::Assigned(hold), Phase::Assigned(_))
                if hold.worker == after.hold().map_or(hold.worker, |h| h.worker) => {}
            (Phase::Assigned(hold), _) => self.release(step, id, *hold),
            // Assignment takes the first of the queue itself.
            (Phase::Ready(_), Phase::Assigned(_)) if after.fence > before.fence => {}
            (Phase::Ready(_), _) => {
                if let Some(entry) = self.tasks.get(id)
                    && !entry.parked
                {
                    let (tasks, class) = (&self.tasks, entry.class);
                    self.classes.forget(class, |task, key| task != id && is_waiting(tasks, class, task, key));
                }
                self.leave_lock_queue(step, id);
            }
            (Phase::Blocked | Phase::Gate | Phase::Open(_) | Phase::Delayed(_) | Phase::Settled(_), _) => {}
        }
    }

    /// Puts a task into a worker's hands.
    fn hold(&mut self, id: TaskId, worker: WorkerIndex, begins: Option<Mono>) {
        let Some(entry) = self.tasks.get(id) else { return };
        let requirement = &self.classes.get(entry.class).requirement;
        self.concurrency.take(id, &requirement.keys, begins);
        let worker = &mut self.workers[worker];
        worker.held.insert(id);
        if !requirement.resources.is_empty() {
            worker.overdrawn |= !requirement.resources.fits(&worker.free);
            worker.free.take(&requirement.resources);
        }
    }

    /// Takes a task out of a worker's hands.
    fn release(&mut self, step: &mut Step, id: TaskId, hold: Hold) {
        let Some(entry) = self.tasks.get(id) else { return };
        let requirement = &self.classes.get(entry.class).requirement;
        let worker = &mut self.workers[hold.worker];
        if worker.held.remove(&id) {
            worker.running -= u32::from(hold.started_at.is_some());
            if !requirement.resources.is_empty() {
                worker.free.give(&requirement.resources);
            }
        }
        let overdrawn = worker.overdrawn;
        step.hungry.insert(hold.worker);
        let keys = &self.classes.get(entry.class).requirement.keys;
        if !keys.is_empty() {
            for class in self.concurrency.give(id, keys) {
                self.wake_workers(step, class);
            }
        }
        if overdrawn {
            self.recount_free(hold.worker);
        }
    }

    /// An attempt has left its worker's hands, and with it its locks. If it is lost, it cannot come back
    /// without them: what it does from now on does not count.
    fn leave_locks(&mut self, step: &mut Step, id: TaskId, worker: WorkerIndex, event: &TaskEvent) {
        let had_locks = self.leave_attempt_locks(step, id, worker, event);
        if had_locks
            && let Some(entry) = self.tasks.get_mut(id)
            && let Phase::Ready(orphan) | Phase::Delayed(orphan) = &mut entry.task.phase
        {
            *orphan = None;
        }
    }

    fn hand_over(&mut self, step: &mut Step, id: TaskId, worker: WorkerIndex, task: &Task) {
        self.hold(id, worker, Some(step.now.mono));
        let needs_locks = self.tasks.get(id).is_some_and(|e| self.classes.get(e.class).requirement.locks);
        let locks = if needs_locks { self.lock_for_attempt(step, id, task) } else { Vec::new() };
        let Some(entry) = self.tasks.get(id) else { return };
        let prepared = self.specs.get(entry.spec);
        let assigned = Assigned {
            key: key_of(id, task),
            spec: prepared.hash,
            body: Arc::clone(&prepared.body),
            rank: queue_key(task.ready_at, task.priority),
            run: self.runs.place(id).map(|place| place.run),
            checkpoint: self.saved.begin(id, prepared.spec.continue_from),
            remembers: self.saved.remembers(id, step.now.wall),
            locks,
        };
        let worker = &mut self.workers[worker];
        worker.outbox.push(assigned);
        let happening = Happening::TaskAssigned {
            worker: Arc::clone(&worker.name),
            attempt: task.attempt,
            fence: task.fence,
        };
        step.task_event(id, happening);
        self.write(step, id, None, OutcomeChange::Keep);
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one event")]
    fn settle(
        &mut self,
        step: &mut Step,
        id: TaskId,
        before: &Task,
        status: Status,
        started_at: Option<Wall>,
        error: Option<Arc<str>>,
        outcome: OutcomeChange,
    ) {
        let attempt = before.attempt;
        let end = match status {
            Status::Completed => AttemptEnd::Completed,
            Status::Cancelled => AttemptEnd::Cancelled,
            _ => AttemptEnd::Failed,
        };
        let outcome = with_error(outcome, error.clone());
        // What an earlier attempt of a node, or of a task that has become a milestone, left is not what
        // it ended with: whoever reads it after a restart would read something else.
        let outcome = match outcome {
            OutcomeChange::Keep
                if attempt.0 > 0 && (self.runs.place(id).is_some() || status == Status::Completed) =>
            {
                OutcomeChange::Set(Box::default())
            }
            outcome => outcome,
        };
        if let Some(hold) = last_hold(before) {
            let hold = Hold { started_at: started_at.or(hold.started_at), ..*hold };
            if end != AttemptEnd::Completed || before.has_history() || hold.has_row {
                self.end_attempt(step, id, before, &hold, end, kept(&outcome));
            }
        }
        step.task_event(
            id,
            match status {
                Status::Completed => Happening::TaskCompleted { attempt },
                Status::Cancelled => Happening::TaskCancelled { attempt },
                Status::Skipped => {
                    Happening::TaskSkipped { cause: error.unwrap_or_else(|| "unknown".into()) }
                }
                _ => Happening::TaskFailed { attempt, error: error.unwrap_or_else(|| "unknown".into()) },
            },
        );
        if let Some(count) = self.counters.settled.of(status) {
            *count += 1;
        }
        self.leave_outdated(step, id);
        let place = self.runs.leave_place(id);
        if place.is_some() || self.relations.contains(id) {
            step.ended.push_back(Ended { task: id, place, status, outcome: kept(&outcome) });
        }
        // The row keeps where and when the last attempt was.
        self.write_state(
            step,
            id,
            None,
            outcome,
            last_hold(before).map(|hold| Hold { started_at: started_at.or(hold.started_at), ..*hold }),
        );
        if let (Phase::Open(parts), Some(write)) = (&before.phase, step.batch.tasks.last_mut()) {
            write.state.worker = Some(MASTER.into());
            write.state.assigned_at = Some(parts.started_at);
            write.state.started_at = Some(parts.started_at);
        }
        self.saved.leave(id);
        self.leave_task_locks(step, id, status);
        self.leave_versions(id);
        if let Some(entry) = self.tasks.remove(id) {
            self.specs.leave(entry.spec);
            self.leave_class(entry.class);
        }
    }

    /// Speaks to the worker that holds the task, if its socket is open. If it is not, the worker
    /// will be told when it returns, or its lease will pass.
    fn tell(
        &self,
        step: &mut Step,
        task: &Task,
        id: TaskId,
        frame: impl FnOnce(crate::ids::SessionEpoch, Vec<AttemptKey>) -> Effect,
    ) {
        if let Some(hold) = task.hold()
            && let Some(session) = self.workers[hold.worker].session
        {
            step.effects.push(frame(session, vec![key_of(id, task)]));
        }
    }

    /// Publishes and writes a changed priority or group.
    pub(super) fn changed(&mut self, step: &mut Step, id: TaskId) {
        let Some(entry) = self.tasks.get(id) else { return };
        let group = Arc::clone(&self.classes.get(entry.class).requirement.group);
        let priority = entry.task.priority;
        step.urgent = true;
        step.task_event(id, Happening::TaskChanged { group, priority });
        self.write(step, id, None, OutcomeChange::Keep);
    }

    /// Keeps the counts of live tasks.
    pub(super) fn count(&mut self, before: Option<Status>, after: Option<Status>) {
        if before == after {
            return;
        }
        if let Some(count) = before.and_then(|status| self.live.of(status)) {
            *count -= 1;
        }
        if let Some(count) = after.and_then(|status| self.live.of(status)) {
            *count += 1;
        }
    }
}

impl super::LiveCounts {
    fn of(&mut self, status: Status) -> Option<&mut u64> {
        match status {
            Status::Blocked => Some(&mut self.blocked),
            Status::Pending => Some(&mut self.pending),
            Status::Running => Some(&mut self.running),
            Status::Completed | Status::Failed | Status::Cancelled | Status::Skipped => None,
        }
    }
}

/// What the latest assignment of a task is called.
pub(super) fn key_of(id: TaskId, task: &Task) -> AttemptKey {
    AttemptKey { task: id, attempt: task.attempt, fence: task.fence }
}

/// The hold of the attempt whose end is being recorded, present or lost.
fn last_hold(task: &Task) -> Option<&Hold> {
    task.hold().or_else(|| task.orphan().map(|orphan| &orphan.hold))
}

fn kept(outcome: &OutcomeChange) -> Outcome {
    match outcome {
        OutcomeChange::Keep => Outcome::default(),
        OutcomeChange::Set(outcome) => (**outcome).clone(),
    }
}

/// The outcome with the reason of the failure that was decided on, if the report gave none.
fn with_error(outcome: OutcomeChange, error: Option<Arc<str>>) -> OutcomeChange {
    match (outcome, error) {
        (OutcomeChange::Keep, Some(error)) => {
            OutcomeChange::Set(Box::new(Outcome { error: Some(error), ..Outcome::default() }))
        }
        (OutcomeChange::Set(mut outcome), Some(error)) => {
            outcome.error.get_or_insert(error);
            OutcomeChange::Set(outcome)
        }
        (outcome, None) => outcome,
    }
}
