//! Locks after a restart: what is held stays so, for a full fresh time.

use super::{Grant, Lease};
use crate::batch::{LockEnd, LockLease, LockRow, LockSpaceRow};
use crate::kernel::timers::Timer;
use crate::kernel::{Kernel, Step};
use crate::lock::space::LockSpace;

impl Kernel {
    /// Takes up what the database has of locks. Tasks must be there already.
    pub(in crate::kernel) fn restore_locks(
        &mut self,
        step: &mut Step,
        spaces: Vec<LockSpaceRow>,
        held: Vec<LockRow>,
    ) {
        for LockSpaceRow { id, repo, ignore_case, fence } in spaces {
            self.locks.by_repo.insert(repo.clone(), id);
            self.locks.spaces.insert(id, LockSpace::new(repo, ignore_case, fence));
        }
        for LockRow { number, birth, state, .. } in held {
            // While no master was there nobody could renew: from now on there is time for that again.
            let lease = match state.lease {
                LockLease::Attempt => Lease::Attempt,
                LockLease::Time { ttl_ms, .. } => Lease::lasting(Some(ttl_ms), step.now),
                LockLease::Forever => Lease::Forever,
            };
            if let Lease::Time { until, .. } = lease {
                self.timers.set(until, Timer::Lock(number));
            }
            let is_orphan = lease == Lease::Attempt && !self.has_attempt(&birth);
            self.locks.hold(number, Grant { birth, lease, no: None });
            if is_orphan {
                // Both are written in one transaction: this cannot be, and would be held for ever.
                self.end_lock(step, number, LockEnd::Lost, "its attempt was gone at a restart".into());
            }
        }
    }

    /// Whether a worker has the attempt in its hands that a grant ends with.
    pub(super) fn has_attempt(&self, birth: &crate::batch::LockBirth) -> bool {
        let entry = birth.owner.task().and_then(|task| self.tasks.get(task));
        let fence = entry.filter(|entry| entry.task.hold().is_some()).map(|entry| entry.task.fence);
        fence.is_some() && fence == birth.attempt.map(|by| by.fence)
    }
}
