//! What stands in the way of a lock.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::{Asker, Lease, Turn, Waiter, Want};
use crate::ids::{LockNumber, TaskId};
use crate::kernel::Kernel;
use crate::kernel::classes::ClassIndex;
use crate::limits;
use crate::lock::space::Standing;
use crate::lock::{LockMode, LockOwner, LockPath};
use crate::rejection::{Holder, Locked};

/// Who wants something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanting<'a> {
    pub(super) wants: &'a [Want],
    /// Whose own claims do not count.
    pub(super) task: Option<TaskId>,
    pub(super) turn: Turn,
    /// Where a task in its turn queues: one of the same class that came first is served first, whether
    /// or not a worker is free.
    pub(super) class: Option<ClassIndex>,
}

/// What was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// Nothing stands in the way.
    Free,
    /// Something does.
    Barred {
        /// Whether only tasks in their turns do, which may stop doing so without being heard of.
        by_tasks_alone: bool,
    },
}

impl Kernel {
    /// Visits every claim that stands in the way: grants, and requests that came first.
    fn obstacles(
        &self,
        wanting: Wanting<'_>,
        mut visit: impl FnMut(Standing, LockNumber, &LockPath, LockMode) -> ControlFlow<()>,
    ) {
        let _enough = [Standing::Held, Standing::Waiting].into_iter().try_for_each(|standing| {
            self.obstacles_of(standing, wanting, |number, path, mode| visit(standing, number, path, mode))
        });
    }

    /// The same of grants alone, or of requests alone.
    fn obstacles_of(
        &self,
        standing: Standing,
        Wanting { wants, task, turn, class }: Wanting<'_>,
        mut visit: impl FnMut(LockNumber, &LockPath, LockMode) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut flow = ControlFlow::Continue(());
        for want in wants {
            let Some(space) = self.locks.space(want.space) else { continue };
            space.against(standing, &want.paths, task, |claim, path, mode| {
                if standing == Standing::Waiting && !self.comes_first(claim.number, turn, class) {
                    return ControlFlow::Continue(());
                }
                flow = visit(claim.number, path, mode);
                flow
            });
            flow?;
        }
        flow
    }

    /// Whether a request that waits is served before another: it came first, and it is not a task that
    /// could not begin anyway.
    fn comes_first(&self, number: LockNumber, turn: Turn, class: Option<ClassIndex>) -> bool {
        let Some(waiter) = self.locks.waiting.get(&number) else { return false };
        if waiter.turn >= turn {
            return false;
        }
        match (&waiter.asker, waiter.owner.task()) {
            (Asker::Queued, Some(task)) => self.counts(task, class),
            _ => true,
        }
    }

    /// Whether a task in its turn stands in the way of others.
    fn counts(&self, task: TaskId, class: Option<ClassIndex>) -> bool {
        let Some(entry) = self.tasks.get(task) else { return false };
        if class == Some(entry.class) {
            return true;
        }
        let requirement = &self.classes.get(entry.class).requirement;
        self.workers.iter().any(|(_, worker)| {
            worker.has_slot()
                && worker.served.iter().any(|served| served.contains(&entry.class))
                && requirement.resources.fits(&worker.free)
        })
    }

    /// Whether it can be granted now.
    pub(super) fn way(&self, wanting: Wanting<'_>) -> Way {
        let (mut found, mut by_tasks_alone) = (false, true);
        self.obstacles(wanting, |standing, number, _, _| {
            found = true;
            let waiter = self.locks.waiting.get(&number);
            by_tasks_alone &= standing == Standing::Waiting
                && waiter.is_some_and(|waiter| matches!(waiter.asker, Asker::Queued));
            if by_tasks_alone { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if found { Way::Barred { by_tasks_alone } } else { Way::Free }
    }

    /// Why it cannot be granted, for people.
    pub(super) fn locked(&self, wanting: Wanting<'_>, waited: bool) -> Locked {
        let mut holders = Vec::new();
        self.name_holders(Standing::Held, wanting, limits::HOLDERS_NAMED, &mut holders);
        // A hot file may have thousands of those who wait; nobody reads the exact number.
        let position = self.name_holders(Standing::Waiting, wanting, limits::PAGE, &mut holders);
        Locked { holders, position, waited }
    }

    /// Names the first ones, and counts up to `most`.
    fn name_holders(
        &self,
        standing: Standing,
        wanting: Wanting<'_>,
        most: usize,
        holders: &mut Vec<Holder>,
    ) -> u32 {
        let mut seen = BTreeSet::new();
        let _enough = self.obstacles_of(standing, wanting, |number, path, mode| {
            if seen.insert(number) && holders.len() < limits::HOLDERS_NAMED {
                holders.extend(self.holder(standing, number, path, mode));
            }
            if seen.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        u32::try_from(seen.len()).unwrap_or(u32::MAX)
    }

    fn holder(
        &self,
        standing: Standing,
        number: LockNumber,
        path: &LockPath,
        mode: LockMode,
    ) -> Option<Holder> {
        let path = path.clone();
        if standing == Standing::Waiting {
            let owner = self.locks.waiting.get(&number)?.owner.clone();
            return Some(Holder { lock: None, owner, path, mode, expires_at: None });
        }
        let grant = self.locks.held.get(&number)?;
        let expires_at = match grant.lease {
            Lease::Time { expires_at, .. } => Some(expires_at),
            Lease::Attempt | Lease::Forever => None,
        };
        let lock = Some((grant.birth.id, grant.birth.fence));
        Some(Holder { lock, owner: grant.birth.owner.clone(), path, mode, expires_at })
    }

    /// Whose claims stand in the way.
    pub(super) fn owners_in_the_way(&self, wanting: Wanting<'_>) -> BTreeSet<LockOwner> {
        let mut owners = BTreeSet::new();
        self.obstacles(wanting, |standing, number, _, _| {
            let owner = match standing {
                Standing::Held => self.locks.held.get(&number).map(|grant| &grant.birth.owner),
                Standing::Waiting => self.locks.waiting.get(&number).map(|waiter| &waiter.owner),
            };
            if let Some(owner) = owner
                && !owners.contains(owner)
            {
                owners.insert(owner.clone());
            }
            ControlFlow::Continue(())
        });
        owners
    }

    /// A request as it waits.
    pub(super) fn wanting<'a>(&self, waiter: &'a Waiter) -> Wanting<'a> {
        let task = waiter.owner.task();
        let queued = matches!(waiter.asker, Asker::Queued);
        let class = task.filter(|_| queued).and_then(|task| self.tasks.get(task)).map(|entry| entry.class);
        Wanting { wants: &waiter.wants, task, turn: waiter.turn, class }
    }
}
