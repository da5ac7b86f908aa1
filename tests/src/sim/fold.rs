//! What the events say of each task, worked out without the rows and without the kernel.
//!
//! Every transition that the events may describe is written down here once more; anything else is
//! a violation: a settled task that moves without `reopened`, a fence that does not rise by one, an
//! assignment of a task that somebody holds or that was told to stop.
//!
//! Where a task stands first is not said by its event: the row that comes with it says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use agentflow_core::batch::{MASTER, TaskState, Waits};
use agentflow_core::event::{Event, Happening, Subject};
use agentflow_core::ids::{Attempt, Fence, Seq, TaskId};
use agentflow_core::status::Status;

/// A task as its events tell it.
#[derive(Clone, Debug)]
pub(super) struct Fold {
    pub(super) status: Status,
    /// How often it was opened again.
    pub(super) reopenings: u32,
    /// Whether it was asked to stop, or has stopped on request, since it was last opened.
    pub(super) is_cancelled: bool,
    attempt: Attempt,
    pub(super) fence: Fence,
    holder: Option<Arc<str>>,
    /// The worker that lost the latest attempt, until somebody has it again.
    orphan_of: Option<Arc<str>>,
    /// Whether the latest attempt has begun.
    is_started: bool,
    is_cancelling: bool,
    /// Whether the latest attempt was given back: its number may be used again, or not.
    is_returned: bool,
    /// Failures that led to another try, since it was last opened or went round.
    failures: u32,
    /// How often its `loop` has gone round.
    pub(super) rounds: u32,
    group: Arc<str>,
    priority: u8,
    /// Whether it waits for an approval.
    is_gate: bool,
    /// Whether somebody approved.
    pub(super) is_approved: bool,
}

/// All tasks and all assignments.
#[derive(Debug, Default)]
pub(super) struct History {
    folds: BTreeMap<TaskId, Fold>,
    /// Who was given what.
    given: BTreeMap<(TaskId, Fence), (Arc<str>, Attempt)>,
    head: Seq,
}

impl History {
    /// A task as its events tell it.
    pub(super) fn get(&self, id: TaskId) -> Option<&Fold> {
        self.folds.get(&id)
    }

    /// How often a task was opened again.
    pub(super) fn reopenings(&self, id: TaskId) -> u32 {
        self.folds.get(&id).map_or(0, |fold| fold.reopenings)
    }

    /// Who was given that assignment, and as which attempt, by a durable decision.
    pub(super) fn given(&self, id: TaskId, fence: Fence) -> Option<&(Arc<str>, Attempt)> {
        self.given.get(&(id, fence))
    }

    /// Whether a task was not given away since.
    pub(super) fn is_latest(&self, id: TaskId, fence: Fence) -> bool {
        self.folds.get(&id).is_some_and(|fold| fold.fence == fence)
    }

    /// Takes the next event; `birth` is the row that comes with a new task.
    pub(super) fn take(
        &mut self,
        seq: Seq,
        event: &Event,
        birth: Option<(Status, Option<Waits>)>,
    ) -> Result<(), String> {
        if seq != self.head.next() {
            return Err(format!("event {seq} follows {}", self.head));
        }
        self.head = seq;
        let Subject::Task(id) = event.subject else { return Ok(()) };
        if let Happening::TaskCreated { group, priority, .. } = &event.happening {
            let Some((status, waits)) = birth else { return Err(format!("task {id} has no row")) };
            let fold = Fold {
                status,
                reopenings: 0,
                is_cancelled: false,
                attempt: Attempt(0),
                fence: Fence(0),
                holder: None,
                orphan_of: None,
                is_started: false,
                is_cancelling: false,
                is_returned: false,
                failures: 0,
                rounds: 0,
                group: Arc::clone(group),
                priority: *priority,
                is_gate: waits == Some(Waits::Approval),
                is_approved: false,
            };
            return match self.folds.insert(id, fold) {
                None => Ok(()),
                Some(_) => Err(format!("task {id} was created twice")),
            };
        }
        let Some(fold) = self.folds.get_mut(&id) else {
            return Err(format!("event {seq}: task {id} was never created: {:?}", event.happening));
        };
        let before = fold.clone();
        if !fold.apply(&event.happening) {
            return Err(format!(
                "event {seq}: {:?} does not follow from {before:?} (task {id})",
                event.happening
            ));
        }
        if let Happening::TaskAssigned { worker, attempt, fence } = &event.happening {
            self.given.insert((id, *fence), (Arc::clone(worker), *attempt));
        }
        Ok(())
    }

    /// The rounds of a loop are counted anew.
    pub(super) fn restart_rounds(&mut self, id: TaskId) {
        if let Some(fold) = self.folds.get_mut(&id) {
            fold.rounds = 0;
        }
    }

    /// A node that was opened again waits for its run, as one that never began.
    pub(super) fn rewind(&mut self, id: TaskId) {
        if let Some(fold) = self.folds.get_mut(&id) {
            (fold.status, fold.rounds) = (Status::Blocked, 0);
        }
    }

    /// A row against the events.
    pub(super) fn check(&self, id: TaskId, state: &TaskState) -> Result<(), String> {
        let Some(fold) = self.folds.get(&id) else { return Err(format!("task {id} has no events")) };
        let agrees = fold.status == state.status
            && fold.is_current(state.attempt)
            && fold.fence == state.fence
            && fold.failures == state.failures
            && (&fold.group, fold.priority) == (&state.group, state.priority)
            && (state.status.is_settled() || fold.waits_as(state))
            && (state.status.is_settled() || fold.holder == state.worker)
            && (state.status.is_settled() || fold.is_cancelling == state.cancelling);
        if agrees { Ok(()) } else { Err(format!("task {id}: events say {fold:?}, the row says {state:?}")) }
    }
}

impl Fold {
    /// Whether that is the number of the latest attempt.
    fn is_current(&self, attempt: Attempt) -> bool {
        attempt == self.attempt || (self.is_returned && attempt.next() == self.attempt)
    }

    /// Whether it is the master itself that is at it.
    pub(super) fn is_open(&self) -> bool {
        self.holder.as_deref() == Some(MASTER)
    }

    /// Whether a live row says the same of what it waits for.
    fn waits_as(&self, state: &TaskState) -> bool {
        match state.waits {
            Some(Waits::Approval) => self.is_gate,
            Some(Waits::Parts) => self.is_open(),
            Some(Waits::Release) => self.status == Status::Blocked,
            Some(Waits::Room) => self.status == Status::Blocked,
            None => !self.is_gate && !self.is_open(),
        }
    }

    /// Whether the happening may follow, and what it leads to.
    fn apply(&mut self, happening: &Happening) -> bool {
        let is_held = self.holder.is_some();
        if self.status.is_settled() {
            let Happening::TaskReopened { attempt } = happening else { return false };
            self.status = Status::Pending;
            self.reopenings += 1;
            self.is_cancelled = false;
            self.failures = 0;
            return self.is_current(*attempt);
        }
        match happening {
            Happening::TaskAssigned { worker, attempt, fence } => {
                let is_next =
                    *attempt == self.attempt.next() || (self.is_returned && *attempt == self.attempt);
                let is_master = **worker == *MASTER;
                let is_ready = self.status == Status::Pending || is_master;
                let may = !is_held && !self.is_gate && is_ready && *fence == self.fence.next() && is_next;
                self.is_returned = false;
                self.attempt = *attempt;
                self.fence = *fence;
                self.holder = Some(Arc::clone(worker));
                self.orphan_of = None;
                self.is_started = false;
                may && !self.is_cancelled
            }
            Happening::TaskBlocked {} => {
                let may = !is_held && self.status == Status::Pending;
                // Another version of its run asks again, if it asks at all.
                (self.is_gate, self.is_approved) = (false, self.is_approved && !self.is_gate);
                self.status = Status::Blocked;
                self.orphan_of = None;
                may
            }
            Happening::TaskUnblocked {} => {
                let may = self.status == Status::Blocked;
                self.status = Status::Pending;
                may
            }
            Happening::TaskAsked {} => {
                let may = self.status == Status::Blocked;
                (self.is_gate, self.is_approved) = (true, false);
                self.status = Status::Pending;
                may
            }
            Happening::TaskApproved {} => {
                let may = self.is_gate && self.status == Status::Pending;
                self.is_gate = false;
                self.is_approved = true;
                self.status = Status::Blocked;
                may
            }
            Happening::TaskRepeating { attempt } => {
                let may = (is_held || self.orphan_of.is_some()) && !self.is_cancelling && !self.is_open();
                self.leave(Status::Pending);
                self.failures = 0;
                self.rounds += 1;
                may && self.is_current(*attempt)
            }
            Happening::TaskSkipped { .. } => {
                self.leave(Status::Skipped);
                !is_held
            }
            Happening::TaskStarted { attempt } => {
                let may = is_held && !self.is_started;
                self.is_started = true;
                self.status = Status::Running;
                may && self.is_current(*attempt)
            }
            Happening::TaskReturned { attempt } => {
                let may = is_held && !self.is_started && *attempt == self.attempt && !self.is_cancelling;
                self.is_returned = true;
                self.holder = None;
                self.status = Status::Pending;
                may
            }
            Happening::TaskLost { attempt, worker, .. } => {
                let may = self.holder.as_ref() == Some(worker) && !self.is_cancelling;
                self.orphan_of = self.holder.take();
                self.status = Status::Pending;
                may && self.is_current(*attempt)
            }
            Happening::TaskAdopted { attempt, worker } => {
                let may = !is_held && self.orphan_of.as_ref() == Some(worker);
                self.holder = self.orphan_of.take();
                self.status = if self.is_started { Status::Running } else { Status::Pending };
                may && self.is_current(*attempt)
            }
            Happening::TaskRetrying { attempt, .. } => {
                let may = (is_held || self.orphan_of.is_some()) && !self.is_cancelling;
                self.leave(Status::Pending);
                self.failures += 1;
                may && self.is_current(*attempt)
            }
            Happening::TaskSuperseded { attempt, .. } => {
                let may = (is_held || self.orphan_of.is_some()) && !self.is_cancelling && !self.is_open();
                self.leave(Status::Pending);
                may && self.is_current(*attempt)
            }
            Happening::TaskCheckpointed { attempt, .. } | Happening::TaskRestored { attempt, .. } => {
                self.is_current(*attempt) && (!self.is_open() || is_held)
            }
            Happening::TaskUpgraded { .. } => !self.is_open(),
            Happening::TaskCancelling { attempt } => {
                let may = is_held && !self.is_cancelling;
                self.is_cancelling = true;
                self.is_cancelled = true;
                may && self.is_current(*attempt)
            }
            Happening::TaskCompleted { attempt } => {
                self.leave(Status::Completed);
                self.is_current(*attempt)
            }
            Happening::TaskFailed { attempt, .. } => {
                let may = !self.is_cancelling;
                self.leave(Status::Failed);
                may && self.is_current(*attempt)
            }
            Happening::TaskCancelled { attempt } => {
                self.leave(Status::Cancelled);
                self.is_cancelled = true;
                self.is_current(*attempt)
            }
            Happening::TaskChanged { group, priority } => {
                self.group = Arc::clone(group);
                self.priority = *priority;
                !is_held
            }
            // Words of other subjects, and those that were taken before.
            _ => false,
        }
    }

    fn leave(&mut self, status: Status) {
        self.status = status;
        self.holder = None;
        self.orphan_of = None;
        self.is_cancelling = false;
        self.is_gate = false;
    }
}
