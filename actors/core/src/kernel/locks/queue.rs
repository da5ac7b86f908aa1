//! Those who wait.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::grants::{NewGrant, named};
use super::obstacles::Way;
use super::{Asker, Lease, Locks, Turn, Waiter, Want, enter, leave};
use crate::batch::{LockRow, LockedBy};
use crate::checkpoint::{Given, HeldLock};
use crate::event::{Event, Happening, Subject};
use crate::ids::{LockNumber, ReplyTo};
use crate::kernel::timers::Timer;
use crate::kernel::words::{Answer, Effect, Reply};
use crate::kernel::{Kernel, Step};
use crate::limits::PRIORITY_POINT_US;
use crate::lock::LockOwner;
use crate::lock::space::Standing;
use crate::rejection::Rejection;
use crate::time::Mono;

impl Turn {
    /// The place of a request that is made now.
    pub(super) fn new(now: Mono, priority: u8, number: LockNumber) -> Self {
        Self { at: now.0.saturating_sub(i64::from(priority) * PRIORITY_POINT_US), number }
    }
}

impl Asker {
    /// Until when it waits.
    fn until(&self) -> Option<Mono> {
        match self {
            Self::Client { until, .. } | Self::Attempt { until, .. } => Some(*until),
            Self::Queued => None,
        }
    }
}

impl Locks {
    /// Gives a request its place.
    fn queue(&mut self, waiter: Waiter) {
        let number = waiter.turn.number;
        let claim = Self::claim(number, &waiter.owner);
        for want in &waiter.wants {
            if let Some(space) = self.spaces.get_mut(&want.space) {
                space.insert(Standing::Waiting, claim, &want.paths);
            }
        }
        enter(&mut self.waiting_of, waiter.owner.clone(), number);
        if let Asker::Client { reply, key, .. } = &waiter.asker {
            self.waiting_by_reply.insert(*reply, number);
            self.waiting_by_key.extend(key.map(|key| (key.key, number)));
        }
        self.waiting.insert(number, waiter);
    }

    /// Takes a request out of the queue.
    pub(super) fn unqueue(&mut self, number: LockNumber) -> Option<Waiter> {
        let waiter = self.waiting.remove(&number)?;
        let claim = Self::claim(number, &waiter.owner);
        for want in &waiter.wants {
            if let Some(space) = self.spaces.get_mut(&want.space) {
                space.remove(Standing::Waiting, claim, &want.paths);
            }
        }
        leave(&mut self.waiting_of, &waiter.owner, number);
        if let Asker::Client { reply, key, .. } = &waiter.asker {
            self.waiting_by_reply.remove(reply);
            if let Some(key) = key {
                self.waiting_by_key.remove(&key.key);
            }
        }
        self.behind_tasks.remove(&number);
        Some(waiter)
    }
}

impl Kernel {
    /// Has somebody wait, unless that would be for himself.
    pub(super) fn wait(&mut self, step: &mut Step, waiter: Waiter) -> Result<(), Rejection> {
        let (number, until) = (waiter.turn.number, waiter.asker.until());
        let (wants, owner): (Vec<Want>, Arc<str>) = (waiter.wants.clone(), waiter.owner.to_string().into());
        let is_queued = matches!(waiter.asker, Asker::Queued);
        self.locks.queue(waiter);
        // A task in its turn holds nothing for which others wait, or only what they will not get from
        // it by its waiting less.
        if !is_queued && let Err(rejection) = self.check_deadlock(number) {
            self.locks.unqueue(number);
            return Err(rejection);
        }
        if let Some(until) = until {
            self.timers.set(until, Timer::Lock(number));
        }
        for want in wants {
            let Some(repo) = self.locks.space(want.space).map(|space| space.repo.clone()) else { continue };
            let (paths, more) = named(&want.paths);
            let happening = Happening::LockWaiting { repo, owner: Arc::clone(&owner), paths, more };
            let subject = Subject::Lock(self.locks.secret.id(number));
            step.batch.events.push(Event { at: step.now.wall, subject, happening });
        }
        self.note_way(number);
        Ok(())
    }

    /// Looks whether only tasks in their turns stand in the way of a request.
    pub(super) fn note_way(&mut self, number: LockNumber) -> Option<Way> {
        let way = self.way(self.wanting(self.locks.waiting.get(&number)?));
        if way == (Way::Barred { by_tasks_alone: true }) {
            self.locks.behind_tasks.insert(number);
        } else {
            self.locks.behind_tasks.remove(&number);
        }
        Some(way)
    }

    /// Takes a place in the queue away; those behind it are looked at in this step.
    pub(super) fn leave_queue(&mut self, step: &mut Step, number: LockNumber) -> Option<Waiter> {
        let waiter = self.locks.unqueue(number)?;
        step.freed.extend(waiter.wants.iter().map(|want| (want.space, Arc::clone(&want.paths))));
        Some(waiter)
    }

    /// Serves those in whose way something stood that is gone, in the order of their turns.
    pub(in crate::kernel) fn serve_waiters(&mut self, step: &mut Step) {
        while !step.freed.is_empty() {
            let mut candidates = BTreeSet::new();
            for (space, paths) in std::mem::take(&mut step.freed) {
                let Some(space) = self.locks.space(space) else { continue };
                space.against(Standing::Waiting, &paths, None, |claim, _, _| {
                    candidates.extend(self.locks.waiting.get(&claim.number).map(|waiter| waiter.turn));
                    ControlFlow::Continue(())
                });
            }
            for turn in candidates {
                self.serve(step, turn.number);
            }
        }
    }

    /// Looks at those who waited for tasks in their turns: a worker may have been free for these, and
    /// be so no more. Says whether anybody was served.
    pub(in crate::kernel) fn serve_behind_tasks(&mut self, step: &mut Step) -> bool {
        let behind: BTreeSet<Turn> = self
            .locks
            .behind_tasks
            .iter()
            .filter_map(|number| self.locks.waiting.get(number).map(|waiter| waiter.turn))
            .collect();
        let mut served = false;
        for turn in behind {
            served |= self.serve(step, turn.number);
        }
        served
    }

    /// Grants a request what it waits for, if nothing stands in its way.
    fn serve(&mut self, step: &mut Step, number: LockNumber) -> bool {
        let Some(waiter) = self.locks.waiting.get(&number) else { return false };
        if let (Asker::Queued, Some(task)) = (&waiter.asker, waiter.owner.task()) {
            let is_parked = self.tasks.get(task).is_some_and(|entry| entry.parked);
            if !is_parked || self.note_way(number) != Some(Way::Free) {
                return false;
            }
            self.unpark(step, task);
            return true;
        }
        if self.note_way(number) != Some(Way::Free) {
            return false;
        }
        let Some(waiter) = self.locks.unqueue(number) else { return false };
        match waiter.asker.clone() {
            Asker::Client { reply, ttl_ms, key, .. } => {
                let row = self.grant_client(step, waiter, ttl_ms);
                if let (Some(row), Some(key)) = (&row, key) {
                    self.keys.remember(step, key, crate::ids::TaskId(row.number.0), 1);
                }
                let answer = row.map(|row| Answer::Locked(Box::new(row))).ok_or(Rejection::Busy);
                step.effects.push(Effect::Reply { to: reply, reply: answer });
            }
            Asker::Attempt { key, no, .. } => {
                let attempt = Some(LockedBy { attempt: key.attempt, fence: key.fence });
                let row = self.grant_waiter(step, &waiter, attempt, Lease::Attempt, Some(no));
                let given = row.map(|row| self.given(&row, step.now.wall)).ok_or(Rejection::Stale);
                self.answer_attempt(step, key.task, no, given);
            }
            Asker::Queued => {}
        }
        true
    }

    /// Grants a client's request; one of a task that a worker has in its hands ends with the attempt.
    pub(super) fn grant_client(
        &mut self,
        step: &mut Step,
        waiter: Waiter,
        ttl_ms: Option<u64>,
    ) -> Option<LockRow> {
        let entry = waiter.owner.task().and_then(|task| self.tasks.get(task));
        let attempt = entry
            .filter(|entry| entry.task.hold().is_some())
            .map(|entry| LockedBy { attempt: entry.task.attempt, fence: entry.task.fence });
        let lease = if attempt.is_some() { Lease::Attempt } else { Lease::lasting(ttl_ms, step.now) };
        self.grant_waiter(step, &waiter, attempt, lease, None)
    }

    pub(super) fn grant_waiter(
        &mut self,
        step: &mut Step,
        waiter: &Waiter,
        attempt: Option<LockedBy>,
        lease: Lease,
        no: Option<u64>,
    ) -> Option<LockRow> {
        let want = waiter.wants.first()?;
        let (owner, reason) = (waiter.owner.clone(), Arc::clone(&waiter.reason));
        let number = waiter.turn.number;
        self.grant(step, NewGrant { number, want, owner, attempt, lease, reason, no })
    }

    pub(super) fn given(&self, row: &LockRow, at: crate::time::Wall) -> Given {
        let lock = HeldLock { id: row.birth.id, repo: row.repo.clone(), fence: row.birth.fence };
        Given { checkpoint: None, lock: Some(lock), at }
    }

    /// Tells an attempt what became of its request, if its worker is there; if not, it asks again.
    fn answer_attempt(
        &self,
        step: &mut Step,
        task: crate::ids::TaskId,
        no: u64,
        given: Result<Given, Rejection>,
    ) {
        let hold = self.tasks.get(task).and_then(|entry| entry.task.hold());
        if let Some(session) = hold.and_then(|hold| self.workers[hold.worker].session) {
            step.effects.push(Effect::Answers { session, answers: vec![(no, given)] });
        }
    }

    /// The time that somebody was ready to wait may be over.
    pub(super) fn end_wait(&mut self, step: &mut Step, number: LockNumber) {
        let Some(waiter) = self.locks.waiting.get(&number) else { return };
        let Some(until) = waiter.asker.until() else { return };
        if until > step.now.mono {
            return;
        }
        let locked = self.locked(self.wanting(waiter), true);
        self.refuse_waiter(step, number, Rejection::Locked(Box::new(locked)));
    }

    /// Ends a request that waits without a grant.
    pub(super) fn refuse_waiter(&mut self, step: &mut Step, number: LockNumber, rejection: Rejection) {
        let Some(waiter) = self.leave_queue(step, number) else { return };
        match waiter.asker {
            Asker::Client { reply, .. } => {
                step.effects.push(Effect::Reply { to: reply, reply: Err(rejection) });
            }
            Asker::Attempt { key, no, .. } => self.answer_attempt(step, key.task, no, Err(rejection)),
            Asker::Queued => {}
        }
    }

    /// Whoever asked has gone: he loses his place. He is answered all the same, so that every request is.
    pub(in crate::kernel) fn on_abandoned(&mut self, step: &mut Step, reply: ReplyTo) {
        if let Some(number) = self.locks.waiting_by_reply.get(&reply).copied() {
            self.refuse_waiter(step, number, Rejection::Busy);
        }
    }

    /// Has another asker take over a request that waits, for he came with its key.
    pub(super) fn pass_place_on(&mut self, step: &mut Step, number: LockNumber, to: ReplyTo) {
        let Some(waiter) = self.locks.waiting.get_mut(&number) else { return };
        let Asker::Client { reply, .. } = &mut waiter.asker else { return };
        let before = std::mem::replace(reply, to);
        self.locks.waiting_by_reply.remove(&before);
        self.locks.waiting_by_reply.insert(to, number);
        let reply: Reply = Err(Rejection::Busy);
        step.effects.push(Effect::Reply { to: before, reply });
    }

    /// Requests that wait in an owner's name.
    pub(super) fn waiting_of(&self, owner: &LockOwner) -> Vec<LockNumber> {
        self.locks.waiting_of.get(owner).into_iter().flatten().copied().collect()
    }
}
