//! Grants as they come and go.

use std::sync::Arc;

use super::{Grant, Lease, Locks, Want, enter, leave};
use crate::batch::{
    LockBirth, LockEnd, LockEnded, LockLease, LockRow, LockSpaceRow, LockState, LockWrite, LockedBy,
};
use crate::event::{Event, Happening, Subject};
use crate::ids::{LockNumber, SpaceId};
use crate::kernel::timers::Timer;
use crate::kernel::{Kernel, Step};
use crate::limits;
use crate::lock::space::Claim;
use crate::lock::space::{LockSpace, Standing};
use crate::lock::{LockFence, LockOwner, PathLock, Repository};
use crate::rejection::Rejection;
use crate::time::Now;

/// Paths that an event names.
const PATHS_NAMED: usize = 100;

/// What is granted.
pub(super) struct NewGrant<'a> {
    pub(super) number: LockNumber,
    pub(super) want: &'a Want,
    pub(super) owner: LockOwner,
    pub(super) attempt: Option<LockedBy>,
    pub(super) lease: Lease,
    pub(super) reason: Arc<str>,
    /// The number under which the attempt asked for it.
    pub(super) no: Option<u64>,
}

impl Lease {
    /// For so long from now; for ever when nothing is said.
    pub(super) fn lasting(ttl_ms: Option<u64>, now: Now) -> Self {
        match ttl_ms {
            None => Self::Forever,
            Some(ttl_ms) => {
                Self::Time { ttl_ms, until: now.mono.plus_ms(ttl_ms), expires_at: now.wall.plus_ms(ttl_ms) }
            }
        }
    }

    fn row(self) -> LockLease {
        match self {
            Self::Attempt => LockLease::Attempt,
            Self::Time { ttl_ms, expires_at, .. } => LockLease::Time { ttl_ms, expires_at },
            Self::Forever => LockLease::Forever,
        }
    }
}

/// The first paths of many, and how many more there are.
pub(super) fn named(paths: &Arc<[PathLock]>) -> (Arc<[PathLock]>, u32) {
    match paths.len().checked_sub(PATHS_NAMED) {
        None | Some(0) => (Arc::clone(paths), 0),
        Some(more) => (paths[..PATHS_NAMED].into(), u32::try_from(more).unwrap_or(u32::MAX)),
    }
}

impl Locks {
    pub(super) fn claim(number: LockNumber, owner: &LockOwner) -> Claim {
        Claim { number, task: owner.task() }
    }

    /// Puts a grant where it is found.
    pub(super) fn hold(&mut self, number: LockNumber, grant: Grant) {
        let birth = &grant.birth;
        if let Some(space) = self.spaces.get_mut(&birth.space) {
            space.insert(Standing::Held, Self::claim(number, &birth.owner), &birth.paths);
        }
        self.paths += birth.paths.len();
        self.by_id.insert(birth.id, number);
        enter(&mut self.by_owner, birth.owner.clone(), number);
        self.held.insert(number, grant);
    }

    fn let_go(&mut self, number: LockNumber) -> Option<Grant> {
        let grant = self.held.remove(&number)?;
        let birth = &grant.birth;
        if let Some(space) = self.spaces.get_mut(&birth.space) {
            space.remove(Standing::Held, Self::claim(number, &birth.owner), &birth.paths);
        }
        self.paths -= birth.paths.len();
        self.by_id.remove(&birth.id);
        leave(&mut self.by_owner, &birth.owner, number);
        Some(grant)
    }

    /// A grant as it is now.
    pub(super) fn row(&self, number: LockNumber) -> Option<LockRow> {
        let grant = self.held.get(&number)?;
        let repo = self.spaces.get(&grant.birth.space)?.repo.clone();
        let state = LockState { lease: grant.lease.row(), ended: None };
        Some(LockRow { number, repo, birth: Arc::clone(&grant.birth), state })
    }
}

impl Kernel {
    /// The number of the next grant or request.
    pub(super) fn next_lock(&mut self) -> LockNumber {
        self.counters.last_lock = self.counters.last_lock.next();
        self.counters.last_lock
    }

    /// The space of a repository; its first use makes it.
    pub(super) fn enter_space(
        &mut self,
        step: &mut Step,
        repo: &Repository,
        ignore_case: bool,
    ) -> Result<SpaceId, Rejection> {
        if let Some(id) = self.locks.by_repo.get(repo).copied() {
            if ignore_case && self.locks.space(id).is_some_and(|space| !space.ignore_case) {
                if let Some(space) = self.locks.spaces.get_mut(&id) {
                    space.fold();
                }
                self.write_space(step, id);
            }
            return Ok(id);
        }
        if self.locks.spaces.len() >= limits::LOCK_SPACES {
            return Err(Rejection::Limit { what: "repositories with locks", limit: limits::LOCK_SPACES });
        }
        let id = self.locks.spaces.keys().next_back().copied().unwrap_or_default().next();
        self.locks.spaces.insert(id, LockSpace::new(repo.clone(), ignore_case, LockFence(0)));
        self.locks.by_repo.insert(repo.clone(), id);
        self.write_space(step, id);
        Ok(id)
    }

    fn write_space(&self, step: &mut Step, id: SpaceId) {
        if let Some(LockSpace { repo, ignore_case, fence, .. }) = self.locks.space(id) {
            let (repo, ignore_case, fence) = (repo.clone(), *ignore_case, *fence);
            step.batch.lock_spaces.push(LockSpaceRow { id, repo, ignore_case, fence });
        }
    }

    /// Grants what nothing stands in the way of.
    pub(super) fn grant(&mut self, step: &mut Step, new: NewGrant<'_>) -> Option<LockRow> {
        let NewGrant { number, want, owner, attempt, lease, reason, no } = new;
        let space = self.locks.spaces.get_mut(&want.space)?;
        space.fence = LockFence(space.fence.0 + 1);
        let (fence, repo) = (space.fence, space.repo.clone());
        let birth = Arc::new(LockBirth {
            id: self.locks.secret.id(number),
            space: want.space,
            fence,
            owner,
            attempt,
            until: want.until,
            paths: Arc::clone(&want.paths),
            reason,
            acquired_at: step.now.wall,
        });
        self.write_space(step, want.space);
        let state = LockState { lease: lease.row(), ended: None };
        step.batch.locks.push(LockWrite { number, birth: Some(Arc::clone(&birth)), state: state.clone() });
        let (paths, more) = named(&birth.paths);
        let expires_at = match lease {
            Lease::Time { expires_at, until, .. } => {
                self.timers.set(until, Timer::Lock(number));
                Some(expires_at)
            }
            Lease::Attempt | Lease::Forever => None,
        };
        let owner: Arc<str> = birth.owner.to_string().into();
        let event = Happening::LockAcquired { repo: repo.clone(), fence, owner, paths, more, expires_at };
        self.lock_event(step, &birth, event);
        self.locks.hold(number, Grant { birth: Arc::clone(&birth), lease, no });
        step.urgent = true;
        Some(LockRow { number, repo, birth, state })
    }

    fn lock_event(&self, step: &mut Step, birth: &LockBirth, happening: Happening) {
        step.batch.events.push(Event { at: step.now.wall, subject: Subject::Lock(birth.id), happening });
    }

    /// Ends a grant; those in whose way it stood are looked at in this step.
    pub(super) fn end_lock(&mut self, step: &mut Step, number: LockNumber, end: LockEnd, reason: Arc<str>) {
        let Some(Grant { birth, lease, .. }) = self.locks.let_go(number) else { return };
        let Some(repo) = self.locks.space(birth.space).map(|space| space.repo.clone()) else { return };
        let (fence, owner) = (birth.fence, birth.owner.to_string().into());
        let happening = match end {
            LockEnd::Released | LockEnd::Lost => {
                let reason = Some(Arc::clone(&reason)).filter(|reason| !reason.is_empty());
                Happening::LockReleased { repo, fence, owner, reason }
            }
            LockEnd::Expired => Happening::LockExpired { repo, fence, owner },
            LockEnd::Broken => Happening::LockBroken { repo, fence, owner, reason: Arc::clone(&reason) },
        };
        self.lock_event(step, &birth, happening);
        let ended = Some(LockEnded { end, at: step.now.wall, reason });
        let state = LockState { lease: lease.row(), ended };
        step.batch.locks.push(LockWrite { number, birth: None, state });
        step.freed.push((birth.space, Arc::clone(&birth.paths)));
        step.urgent = true;
    }

    /// Has a grant be kept by something else from now on.
    pub(super) fn set_lease(&mut self, step: &mut Step, number: LockNumber, lease: Lease) {
        let Some(grant) = self.locks.held.get_mut(&number) else { return };
        grant.lease = lease;
        if let Lease::Time { until, .. } = lease {
            self.timers.set(until, Timer::Lock(number));
        }
        let state = LockState { lease: lease.row(), ended: None };
        step.batch.locks.push(LockWrite { number, birth: None, state });
        step.urgent = true;
    }

    /// A lock's time may be over, or that of somebody who waits for one.
    pub(in crate::kernel) fn check_lock_time(&mut self, step: &mut Step, number: LockNumber) {
        match self.locks.held.get(&number).map(|grant| grant.lease) {
            // It was renewed: the timer of that is set.
            Some(Lease::Time { until, .. }) if until <= step.now.mono => {
                self.end_lock(step, number, LockEnd::Expired, "".into());
            }
            Some(_) => {}
            None => self.end_wait(step, number),
        }
    }
}
