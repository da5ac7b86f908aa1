//! Locks of tasks: declared ones, which come with the assignment, and those that a running attempt asks
//! for. Both end with the attempt.

use std::sync::Arc;

use super::grants::NewGrant;
use super::obstacles::{Wanting, Way};
use super::{Asker, Lease, Turn, Waiter, Want};
use crate::attempt::AttemptKey;
use crate::batch::{LockEnd, LockedBy};
use crate::checkpoint::{Given, HeldLock, LockAsk};
use crate::ids::{LockNumber, TaskId};
use crate::kernel::classes::queue_key;
use crate::kernel::words::Effect;
use crate::kernel::{Kernel, Step};
use crate::limits;
use crate::lock::space::Standing;
use crate::lock::{LockId, LockMode, LockOwner, LockUntil, PathsError, check_paths};
use crate::rejection::Rejection;
use crate::status::Status;
use crate::task::{Task, TaskEvent, WorkerIndex};

impl Kernel {
    /// Whether a ready task can be granted the locks that it names. If not, it gets its place in the
    /// queue for them, and is parked: taken out of the queue of its class, whose first it must be.
    pub(in crate::kernel) fn can_lock_or_park(&mut self, step: &mut Step, id: TaskId) -> bool {
        let Some(number) = self.locks.queued(id) else {
            let Some(waiter) = self.queue_of_task(step, id) else { return false };
            if self.way(self.wanting(&waiter)) == Way::Free {
                return true;
            }
            self.counters.last_lock = waiter.turn.number;
            // One in its turn is not refused.
            let _never = self.wait(step, waiter);
            self.park(id);
            return false;
        };
        let is_free = self.locks.waiting.get(&number).is_some_and(|w| self.way(self.wanting(w)) == Way::Free);
        if !is_free {
            self.park(id);
            self.note_way(number);
        }
        is_free
    }

    /// A task in its turn, with the place that it would have now.
    fn queue_of_task(&mut self, step: &mut Step, id: TaskId) -> Option<Waiter> {
        let entry = self.tasks.get(id)?;
        let (spec, priority) = (entry.spec, entry.task.priority);
        let locks = self.specs.get(spec).spec.locks.clone();
        let mut wants = Vec::with_capacity(locks.len());
        for lock in locks {
            // Beyond the limit of repositories it waits like one whose locks others hold.
            let space = self.enter_space(step, &lock.repo, lock.ignore_case).ok()?;
            wants.push(Want { space, until: lock.until, paths: lock.paths });
        }
        let turn = Turn::new(step.now.mono, priority, self.counters.last_lock.next());
        let (since, reason) = (step.now.wall, "".into());
        Some(Waiter {
            owner: LockOwner::Task(id),
            wants,
            turn,
            priority,
            since,
            reason,
            asker: Asker::Queued,
        })
    }

    fn park(&mut self, id: TaskId) {
        let Some(entry) = self.tasks.get_mut(id) else { return };
        entry.parked = true;
        let popped = self.classes.pop(entry.class);
        debug_assert_eq!(popped, Some(id));
    }

    /// Has a parked task queue for a worker again.
    pub(super) fn unpark(&mut self, step: &mut Step, id: TaskId) {
        let Some(entry) = self.tasks.get_mut(id) else { return };
        entry.parked = false;
        let (class, key) = (entry.class, queue_key(entry.task.ready_at, entry.task.priority));
        self.classes.push(class, key, id);
        self.wake_workers(step, class);
    }

    /// A task leaves the queue for its locks otherwise than by being assigned.
    pub(in crate::kernel) fn leave_lock_queue(&mut self, step: &mut Step, id: TaskId) {
        if let Some(number) = self.locks.queued(id) {
            self.leave_queue(step, number);
        }
        if let Some(entry) = self.tasks.get_mut(id) {
            entry.parked = false;
        }
    }

    /// Grants a task that is being assigned what it names.
    pub(in crate::kernel) fn lock_for_attempt(
        &mut self,
        step: &mut Step,
        id: TaskId,
        task: &Task,
    ) -> Vec<HeldLock> {
        let waiter = match self.locks.queued(id) {
            Some(number) => self.locks.unqueue(number),
            None => self.queue_of_task(step, id),
        };
        let Some(waiter) = waiter else { return Vec::new() };
        let attempt = Some(LockedBy { attempt: task.attempt, fence: task.fence });
        let mut number = waiter.turn.number;
        let mut held = Vec::with_capacity(waiter.wants.len());
        for want in &waiter.wants {
            if !held.is_empty() || number > self.counters.last_lock {
                number = self.next_lock();
            }
            let (owner, reason) = (LockOwner::Task(id), Arc::clone(&waiter.reason));
            let new = NewGrant { number, want, owner, attempt, lease: Lease::Attempt, reason, no: None };
            if let Some(row) = self.grant(step, new) {
                held.push(HeldLock { id: row.birth.id, repo: row.repo, fence: row.birth.fence });
            }
        }
        held
    }

    /// An attempt has left its worker's hands: what is locked with it is locked no more. Says whether it
    /// had locks.
    pub(in crate::kernel) fn leave_attempt_locks(
        &mut self,
        step: &mut Step,
        id: TaskId,
        worker: WorkerIndex,
        event: &TaskEvent,
    ) -> bool {
        let owner = LockOwner::Task(id);
        for number in self.waiting_of(&owner) {
            let waiter = self.locks.waiting.get(&number);
            let Some(Asker::Attempt { key, no, .. }) = waiter.map(|waiter| &waiter.asker) else { continue };
            let (given, no) = (key.fence, *no);
            self.leave_queue(step, number);
            // Its worker keeps the question until it is answered.
            if let Some(session) = self.workers[worker].session {
                let stale = Err(Rejection::StaleAttempt { given, current: None });
                step.effects.push(Effect::Answers { session, answers: vec![(no, stale)] });
            }
        }
        let (end, reason): (_, Arc<str>) = match event {
            TaskEvent::Lost { reason, .. } | TaskEvent::Superseded { reason, .. } => {
                (LockEnd::Lost, Arc::clone(reason))
            }
            _ => (LockEnd::Released, "".into()),
        };
        let is_done = matches!(event, TaskEvent::Settled { status: Status::Completed, .. });
        let mut had = false;
        for number in self.held_of_owner(&owner) {
            let Some(grant) = self.locks.held.get(&number) else { continue };
            if grant.lease != Lease::Attempt {
                continue;
            }
            had = true;
            if is_done && grant.birth.until == LockUntil::Merged {
                self.set_lease(step, number, Lease::lasting(Some(limits::MERGE_MS), step.now));
            } else {
                self.end_lock(step, number, end, Arc::clone(&reason));
            }
        }
        had
    }

    /// A task has settled: it keeps only what waits for the merge of its change.
    pub(in crate::kernel) fn leave_task_locks(&mut self, step: &mut Step, id: TaskId, status: Status) {
        let owner = LockOwner::Task(id);
        if !self.locks.by_owner.contains_key(&owner) && !self.locks.waiting_of.contains_key(&owner) {
            return;
        }
        for number in self.waiting_of(&owner) {
            self.refuse_waiter(step, number, Rejection::UnknownTask(id));
        }
        for number in self.held_of_owner(&owner) {
            let merges =
                self.locks.held.get(&number).is_some_and(|grant| grant.birth.until == LockUntil::Merged);
            if !merges || status != Status::Completed {
                self.end_lock(step, number, LockEnd::Released, "".into());
            }
        }
    }

    /// Numbers of all grants of an owner.
    pub(super) fn held_of_owner(&self, owner: &LockOwner) -> Vec<LockNumber> {
        self.locks.by_owner.get(owner).into_iter().flatten().copied().collect()
    }

    /// A running attempt wants more. `None` says that it is answered later.
    pub(in crate::kernel) fn on_lock_ask(
        &mut self,
        step: &mut Step,
        key: AttemptKey,
        no: u64,
        ask: LockAsk,
    ) -> Option<Result<Given, Rejection>> {
        let owner = LockOwner::Task(key.task);
        // It was asked before, and the answer was lost, or is still to come.
        let is_same = |number: &LockNumber| {
            let grant = self.locks.held.get(number);
            grant.is_some_and(|grant| {
                grant.no == Some(no) && grant.birth.attempt.is_some_and(|by| by.fence == key.fence)
            })
        };
        if let Some(number) = self.held_of_owner(&owner).into_iter().find(is_same) {
            return Some(
                self.locks.row(number).map(|row| self.given(&row, step.now.wall)).ok_or(Rejection::Stale),
            );
        }
        let waits = |number: LockNumber| {
            self.locks.waiting.get(&number).is_some_and(|waiter| {
                matches!(&waiter.asker, Asker::Attempt { key: asked, no: other, .. } if *asked == key && *other == no)
            })
        };
        if self.waiting_of(&owner).into_iter().any(waits) {
            return None;
        }
        self.lock_for_ask(step, key, no, ask).transpose()
    }

    fn lock_for_ask(
        &mut self,
        step: &mut Step,
        key: AttemptKey,
        no: u64,
        ask: LockAsk,
    ) -> Result<Option<Given>, Rejection> {
        let LockAsk { repo, ignore_case, mut paths, wait_ms, reason } = ask;
        paths.sort();
        if paths.is_empty() || paths.len() > limits::LOCK_PATHS {
            return Err(Rejection::Malformed(format!("paths: allowed: 1 to {}", limits::LOCK_PATHS)));
        }
        if reason.chars().count() > limits::REASON_CHARS {
            return Err(Rejection::Malformed(format!("reason: at most {} characters", limits::REASON_CHARS)));
        }
        check_paths(&paths).map_err(|error| {
            Rejection::Malformed(match error {
                PathsError::Patterns(count) => {
                    format!("paths: {count} patterns; allowed: up to {}", limits::LOCK_PATTERNS)
                }
                PathsError::Overlap(one, other) => {
                    let (one, other) = (&paths[one].path, &paths[other].path);
                    format!("paths: '{one}' and '{other}' overlap; name one of them")
                }
            })
        })?;
        self.check_lock_room(paths.len())?;
        let space = self.enter_space(step, &repo, ignore_case)?;
        let wants = vec![Want { space, until: LockUntil::Attempt, paths: paths.into() }];
        let number = self.next_lock();
        let priority = self.tasks.get(key.task).map_or(0, |entry| entry.task.priority);
        let wait_ms = wait_ms.min(limits::WAIT_MS);
        let waiter = Waiter {
            owner: LockOwner::Task(key.task),
            wants,
            turn: Turn::new(step.now.mono, priority, number),
            priority,
            since: step.now.wall,
            reason,
            asker: Asker::Attempt { key, no, until: step.now.mono.plus_ms(wait_ms) },
        };
        if self.way(self.wanting(&waiter)) == Way::Free {
            let want = &waiter.wants[0];
            let attempt = Some(LockedBy { attempt: key.attempt, fence: key.fence });
            let (owner, reason) = (waiter.owner.clone(), Arc::clone(&waiter.reason));
            let new = NewGrant { number, want, owner, attempt, lease: Lease::Attempt, reason, no: Some(no) };
            let row = self.grant(step, new).ok_or(Rejection::Busy)?;
            return Ok(Some(self.given(&row, step.now.wall)));
        }
        self.wait_or_refuse(step, waiter, wait_ms).map(|()| None)
    }

    /// Has a request wait, if it is ready to and may.
    pub(super) fn wait_or_refuse(
        &mut self,
        step: &mut Step,
        waiter: Waiter,
        wait_ms: u64,
    ) -> Result<(), Rejection> {
        if wait_ms == 0 || self.is_upgrade(self.wanting(&waiter)) {
            let locked = self.locked(self.wanting(&waiter), false);
            return Err(Rejection::Locked(Box::new(locked)));
        }
        if self.locks.waiting.len() >= limits::LOCK_WAITERS {
            return Err(Rejection::Limit {
                what: "requests that wait for locks",
                limit: limits::LOCK_WAITERS,
            });
        }
        self.wait(step, waiter)
    }

    /// Whether somebody who reads wants to write at the same place: that is a try. Two of them would
    /// wait for each other.
    fn is_upgrade(&self, wanting: Wanting<'_>) -> bool {
        let Some(task) = wanting.task else { return false };
        wanting.wants.iter().any(|want| {
            let Some(space) = self.locks.space(want.space) else { return false };
            let mut reads = false;
            space.against(Standing::Held, &want.paths, None, |claim, _, mode| {
                reads |= claim.task == Some(task) && mode == LockMode::Read;
                if reads { std::ops::ControlFlow::Break(()) } else { std::ops::ControlFlow::Continue(()) }
            });
            reads
        })
    }

    /// A running attempt gives a lock back.
    pub(in crate::kernel) fn on_unlock_ask(
        &mut self,
        step: &mut Step,
        key: AttemptKey,
        lock: LockId,
    ) -> Result<Given, Rejection> {
        let at = step.now.wall;
        let given = Given { checkpoint: None, lock: None, at };
        // One that has ended is given back already: the answer to that may have been lost.
        let Some(number) = self.locks.by_id.get(&lock).copied() else { return Ok(given) };
        let owner = self.locks.held.get(&number).map(|grant| grant.birth.owner.clone());
        match owner {
            Some(owner) if owner != LockOwner::Task(key.task) => Err(Rejection::OthersLock(owner)),
            _ => {
                self.end_lock(step, number, LockEnd::Released, "".into());
                Ok(given)
            }
        }
    }
}
