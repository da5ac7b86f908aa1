//! Locks as people see them: listings, and why a task waits for its own.

use std::ops::ControlFlow;

use super::super::Kernel;
use super::obstacles::Way;
use crate::batch::LockRow;
use crate::ids::{LockNumber, TaskId};
use crate::kernel::words::{Answer, LockFilter, WaitingLock};
use crate::limits;
use crate::lock::space::Standing;
use crate::lock::{LockMode, LockOwner, PathLock, Repository};
use crate::time::Wall;
use crate::why::Reason;

/// Requests that wait in one listing: what stands in the way of each is looked up.
const WAITING_LISTED: usize = 100;

impl LockFilter {
    fn takes(&self, owner: &LockOwner, repo: &Repository) -> bool {
        self.owner.as_ref().is_none_or(|wanted| wanted == owner)
            && self.repo.as_ref().is_none_or(|wanted| wanted == repo)
    }
}

impl Kernel {
    /// The locks that are held, and who waits.
    #[must_use]
    pub fn lock_list(&self, filter: &LockFilter) -> Answer {
        let mut locks: Vec<LockRow> = Vec::new();
        let mut more = false;
        let limit = filter.limit.clamp(1, limits::PAGE);
        for number in self.chosen(filter) {
            let Some(birth) = self.locks.held.get(&number).map(|grant| &grant.birth) else { continue };
            let Some(space) = self.locks.space(birth.space) else { continue };
            if !filter.takes(&birth.owner, &space.repo) || !self.lies_at(filter, birth.space, &birth.paths) {
                continue;
            }
            if locks.len() == limit {
                more = true;
                break;
            }
            locks.extend(self.locks.row(number));
        }
        Answer::LockList { locks, waiting: self.waiting_list(filter), more }
    }

    /// Grants that may be meant.
    fn chosen<'a>(&'a self, filter: &LockFilter) -> Box<dyn Iterator<Item = LockNumber> + 'a> {
        let after = filter.after;
        if let Some(id) = filter.lock {
            return Box::new(self.locks.by_id.get(&id).copied().into_iter());
        }
        if let (Some(repo), Some(path)) = (&filter.repo, &filter.path) {
            let mut numbers = std::collections::BTreeSet::new();
            let wanted = [PathLock { path: path.clone(), mode: LockMode::Write }];
            if let Some(space) = self.locks.by_repo.get(repo).and_then(|id| self.locks.space(*id)) {
                space.against(Standing::Held, &wanted, None, |claim, _, _| {
                    numbers.insert(claim.number);
                    ControlFlow::Continue(())
                });
            }
            return Box::new(numbers.into_iter().filter(move |number| *number > after));
        }
        if let Some(owner) = &filter.owner {
            let numbers = self.locks.by_owner.get(owner).into_iter().flatten().copied();
            return Box::new(numbers.filter(move |number| *number > after));
        }
        Box::new(self.locks.held.range(after.next()..).map(|(number, _)| *number))
    }

    fn lies_at(&self, filter: &LockFilter, space: crate::ids::SpaceId, paths: &[PathLock]) -> bool {
        filter
            .path
            .as_ref()
            .is_none_or(|path| self.locks.space(space).is_some_and(|space| space.overlaps(paths, path)))
    }

    fn waiting_list(&self, filter: &LockFilter) -> Vec<WaitingLock> {
        let mut turns: Vec<_> = self.locks.waiting.values().map(|waiter| (waiter.turn, waiter)).collect();
        turns.sort_by_key(|(turn, _)| *turn);
        let mut waiting = Vec::new();
        // A later page and one lock alone say nothing of those who wait.
        if filter.after > LockNumber(0) || filter.lock.is_some() {
            return waiting;
        }
        for (_, waiter) in turns {
            for want in &waiter.wants {
                let Some(repo) = self.locks.space(want.space).map(|space| &space.repo) else { continue };
                if waiting.len() >= WAITING_LISTED {
                    return waiting;
                }
                if filter.takes(&waiter.owner, repo) && self.lies_at(filter, want.space, &want.paths) {
                    let locked = self.locked(self.wanting(waiter), false);
                    waiting.push(WaitingLock {
                        repo: repo.clone(),
                        owner: waiter.owner.clone(),
                        paths: std::sync::Arc::clone(&want.paths),
                        reason: std::sync::Arc::clone(&waiter.reason),
                        since: waiter.since,
                        priority: waiter.priority,
                        holders: locked.holders,
                        position: locked.position,
                    });
                }
            }
        }
        waiting
    }

    /// Why a ready task does not get its locks: one reason for each who stands in the way.
    pub(in crate::kernel) fn lacking_locks(&self, id: TaskId) -> Vec<Reason> {
        let Some(waiter) = self.locks.queued(id).and_then(|number| self.locks.waiting.get(&number)) else {
            return Vec::new();
        };
        if self.way(self.wanting(waiter)) == Way::Free {
            return Vec::new();
        }
        let locked = self.locked(self.wanting(waiter), false);
        let reason = |holder: &crate::rejection::Holder| {
            let frees = match (&holder.lock, holder.expires_at) {
                (None, _) => "its turn, after that one's",
                (_, Some(_)) => "its release, or its end unless it is renewed",
                (_, None) if holder.owner.task().is_some() => "the end of that attempt",
                (_, None) => "its release, or `agentflow lock break`",
            };
            let reason = Reason::new("lock", format!("lock: {holder}"), frees);
            let since: Option<Wall> = Some(waiter.since);
            Reason { held_by: vec![holder.owner.to_string()], since, ..reason }
        };
        locked.holders.iter().map(reason).collect()
    }
}
