//! The invariants of locks, for tests and the simulation.

use std::ops::ControlFlow;

use super::obstacles::Way;
use super::{Asker, Lease};
use crate::kernel::Kernel;
use crate::lock::space::Standing;

impl Kernel {
    pub(in crate::kernel) fn check_locks(&self) -> Result<(), String> {
        let mut paths = 0;
        for (number, grant) in &self.locks.held {
            let birth = &grant.birth;
            paths += birth.paths.len();
            let Some(space) = self.locks.space(birth.space) else {
                return Err(format!("lock {number} is held in no repository"));
            };
            if birth.fence > space.fence {
                return Err(format!("lock {number} has a fence that was not given out"));
            }
            let mut other = None;
            space.against(Standing::Held, &birth.paths, grant.task(), |claim, path, _| {
                if claim.number == *number {
                    return ControlFlow::Continue(());
                }
                other = Some((claim.number, path.clone()));
                ControlFlow::Break(())
            });
            if let Some((other, path)) = other {
                return Err(format!("locks {number} and {other} are both held at '{path}'"));
            }
            if grant.lease == Lease::Attempt && !self.has_attempt(birth) {
                return Err(format!("lock {number} of {} has outlived its attempt", birth.owner));
            }
        }
        if paths != self.locks.paths || self.locks.by_id.len() != self.locks.held.len() {
            return Err("what is counted of locks differs from what is held".to_owned());
        }
        for (number, waiter) in &self.locks.waiting {
            let parked = waiter.owner.task().and_then(|task| self.tasks.get(task)).map(|entry| entry.parked);
            let waits = !matches!(waiter.asker, Asker::Queued) || parked == Some(true);
            if waits && self.way(self.wanting(waiter)) == Way::Free {
                return Err(format!("{} waits for lock {number}, which it could have", waiter.owner));
            }
        }
        for (id, entry) in self.tasks.iter() {
            if entry.parked && self.locks.queued(id).is_none() {
                return Err(format!("task {id} waits for locks and has no place in the queue"));
            }
            if self.locks.queued(id).is_some() && !entry.task.is_ready() {
                return Err(format!("task {id} has a place in the queue for locks and is not ready"));
            }
        }
        Ok(())
    }
}
