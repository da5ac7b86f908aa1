//! What clients ask of locks.

use std::sync::Arc;

use super::obstacles::Way;
use super::{Asker, Lease, Turn, Waiter, Want};
use crate::batch::{LockEnd, LockRow};
use crate::ids::{LockNumber, ReplyTo, TaskId};
use crate::kernel::words::{Answer, LockRequest, Reply, SubmitKey, Unlock};
use crate::kernel::{Kernel, Step};
use crate::limits;
use crate::lock::{LockFence, LockId, LockOwner, LockPath, LockUntil, Repository};
use crate::rejection::Rejection;

impl Kernel {
    /// A client wants to lock files. `None` says that he is answered later.
    pub(in crate::kernel) fn on_lock(
        &mut self,
        step: &mut Step,
        to: ReplyTo,
        want: LockRequest,
        wait_ms: u64,
    ) -> Option<Reply> {
        if let Some(key) = want.key {
            match self.known_by_key(step, key) {
                Ok(None) => {}
                Ok(Some(row)) => return Some(Ok(Answer::Locked(Box::new(row)))),
                Err(rejection) => return Some(Err(rejection)),
            }
            if let Some(number) = self.locks.waiting_by_key.get(&key.key).copied() {
                if !self.waits_with(number, key) {
                    return Some(Err(Rejection::KeyConflict));
                }
                self.pass_place_on(step, number, to);
                return None;
            }
        }
        let wait_ms = wait_ms.min(limits::WAIT_MS);
        match self.lock_for_client(step, to, want, wait_ms) {
            Ok(Some(row)) => Some(Ok(Answer::Locked(Box::new(row)))),
            Ok(None) => None,
            Err(rejection) => Some(Err(rejection)),
        }
    }

    /// Many requests, each by itself.
    pub(in crate::kernel) fn on_lock_each(
        &mut self,
        step: &mut Step,
        to: ReplyTo,
        wants: Vec<LockRequest>,
    ) -> Answer {
        let mut answers = Vec::with_capacity(wants.len());
        for want in wants {
            answers.push(match self.on_lock(step, to, want, 0) {
                Some(Ok(Answer::Locked(row))) => Ok(*row),
                Some(Err(rejection)) => Err(rejection),
                // Its key is that of a request that waits.
                Some(Ok(_)) | None => Err(Rejection::Busy),
            });
        }
        Answer::Locks(answers)
    }

    /// What the key was used for within the last minute: a lock that is held, or is held no more.
    fn known_by_key(&mut self, step: &Step, key: SubmitKey) -> Result<Option<LockRow>, Rejection> {
        let Some(recent) = self.keys.recent(step.now.mono, key)? else { return Ok(None) };
        let row = self.locks.row(LockNumber(recent.first.0));
        row.map(Some)
            .ok_or_else(|| Rejection::LockLost("it was granted for this key, and has ended".to_owned()))
    }

    fn waits_with(&self, number: LockNumber, key: SubmitKey) -> bool {
        self.locks.waiting.get(&number).is_some_and(
            |waiter| matches!(waiter.asker, Asker::Client { key: Some(other), .. } if other.body == key.body),
        )
    }

    /// Whether there is room for a grant with so many paths.
    pub(super) fn check_lock_room(&self, paths: usize) -> Result<(), Rejection> {
        if self.locks.held.len() >= limits::LOCKS {
            return Err(Rejection::Limit { what: "locks that are held", limit: limits::LOCKS });
        }
        if self.locks.paths + paths > limits::LOCKED_PATHS {
            return Err(Rejection::Limit { what: "paths that are locked", limit: limits::LOCKED_PATHS });
        }
        Ok(())
    }

    fn lock_for_client(
        &mut self,
        step: &mut Step,
        to: ReplyTo,
        want: LockRequest,
        wait_ms: u64,
    ) -> Result<Option<LockRow>, Rejection> {
        let LockRequest { repo, ignore_case, paths, owner, ttl_ms, reason, priority, key } = want;
        self.check_lock_room(paths.len())?;
        if let LockOwner::Task(task) = owner
            && self.tasks.get(task).is_none()
        {
            return Err(Rejection::UnknownTask(task));
        }
        let space = self.enter_space(step, &repo, ignore_case)?;
        let wants = vec![Want { space, until: LockUntil::Attempt, paths }];
        let number = self.next_lock();
        let until = step.now.mono.plus_ms(wait_ms);
        let waiter = Waiter {
            owner,
            wants,
            turn: Turn::new(step.now.mono, priority, number),
            priority,
            since: step.now.wall,
            reason,
            asker: Asker::Client { reply: to, ttl_ms, key, until },
        };
        if self.way(self.wanting(&waiter)) == Way::Free {
            let row = self.grant_client(step, waiter, ttl_ms).ok_or(Rejection::Busy)?;
            if let Some(key) = key {
                self.keys.remember(step, key, TaskId(row.number.0), 1);
            }
            return Ok(Some(row));
        }
        self.wait_or_refuse(step, waiter, wait_ms).map(|()| None)
    }

    /// Gives locks back.
    pub(in crate::kernel) fn on_unlock(&mut self, step: &mut Step, unlocks: Vec<Unlock>) -> Answer {
        Answer::Unlocked(unlocks.into_iter().map(|unlock| self.unlock(step, unlock)).collect())
    }

    fn unlock(&mut self, step: &mut Step, unlock: Unlock) -> Result<(), Rejection> {
        let Unlock { lock, fence, owner } = unlock;
        let number = self.find_lock(lock, fence)?;
        let holder = self.locks.held.get(&number).map(|grant| grant.birth.owner.clone());
        if let (Some(owner), Some(holder)) = (owner, holder)
            && owner != holder
        {
            return Err(Rejection::OthersLock(holder));
        }
        self.end_lock(step, number, LockEnd::Released, "".into());
        Ok(())
    }

    /// The grant of that name; its number within the repository must be right where it is given.
    fn find_lock(&self, lock: LockId, fence: Option<LockFence>) -> Result<LockNumber, Rejection> {
        let number = self.locks.by_id.get(&lock).copied().ok_or(Rejection::UnknownLock(lock))?;
        let held = self.locks.held.get(&number).map(|grant| grant.birth.fence);
        match (held, fence) {
            (Some(held), Some(given)) if held != given => {
                Err(Rejection::LockLost(format!("its fence is {held}, not {given}")))
            }
            _ => Ok(number),
        }
    }

    /// Gives back what an owner holds, by name.
    pub(in crate::kernel) fn unlock_by(
        &mut self,
        step: &mut Step,
        owner: &LockOwner,
        repo: Option<&Repository>,
        path: Option<&LockPath>,
    ) -> Result<u32, Rejection> {
        let mut chosen = Vec::new();
        for number in self.held_of_owner(owner) {
            let Some(grant) = self.locks.held.get(&number) else { continue };
            let Some(space) = self.locks.space(grant.birth.space) else { continue };
            if repo.is_some_and(|repo| *repo != space.repo) {
                continue;
            }
            match path {
                Some(path) if !space.names(&grant.birth.paths, path) => continue,
                // It was all or nothing then, and is so now.
                Some(_) if grant.birth.paths.len() > 1 => {
                    return Err(Rejection::LockedTogether(grant.birth.id));
                }
                _ => chosen.push(number),
            }
        }
        let count = u32::try_from(chosen.len()).unwrap_or(u32::MAX);
        for number in chosen {
            self.end_lock(step, number, LockEnd::Released, "".into());
        }
        Ok(count)
    }

    /// Holds a lock longer. One that ends with an attempt is kept by that, and stays as it is.
    pub(in crate::kernel) fn renew_lock(
        &mut self,
        step: &mut Step,
        lock: LockId,
        fence: LockFence,
        ttl_ms: Option<Option<u64>>,
    ) -> Reply {
        let number = self.find_lock(lock, Some(fence))?;
        let lease = self.locks.held.get(&number).map(|grant| grant.lease);
        let ttl_ms = match (lease, ttl_ms) {
            (_, Some(ttl_ms)) => ttl_ms,
            (Some(Lease::Time { ttl_ms, .. }), None) => Some(ttl_ms),
            (_, None) => None,
        };
        if lease != Some(Lease::Attempt) {
            self.set_lease(step, number, Lease::lasting(ttl_ms, step.now));
        }
        self.lock_answer(number, lock)
    }

    fn lock_answer(&self, number: LockNumber, lock: LockId) -> Reply {
        let row = self.locks.row(number).ok_or(Rejection::UnknownLock(lock))?;
        Ok(Answer::Locked(Box::new(row)))
    }

    /// Takes a lock away from its owner. An attempt that has it is stopped, and another one begun when
    /// its turn for the locks comes.
    pub(in crate::kernel) fn break_lock(
        &mut self,
        step: &mut Step,
        lock: LockId,
        reason: &Arc<str>,
    ) -> Reply {
        let number = self.find_lock(lock, None)?;
        let answer = self.lock_answer(number, lock)?;
        let grant = self.locks.held.get(&number);
        let attempt = grant.filter(|grant| grant.lease == Lease::Attempt).and_then(super::Grant::task);
        self.end_lock(step, number, LockEnd::Broken, Arc::clone(reason));
        if let Some(task) = attempt {
            // One that is being cancelled is being stopped already.
            let _stops = self.supersede_attempt(step, task, &format!("its lock was broken: {reason}"));
            self.pass_milestone(step, task);
        }
        Ok(answer)
    }
}
