//! Whether somebody who begins to wait would wait for himself.
//!
//! Only a request that has just come can close a circle: what others wait for does not change while it
//! is granted to those who stand before them. So the youngest is refused, and the circle is named.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::obstacles::Wanting;
use crate::ids::LockNumber;
use crate::kernel::Kernel;
use crate::lock::LockOwner;
use crate::lock::cycle::{WaitsFor, describe};
use crate::lock::space::Standing;
use crate::rejection::Rejection;

/// After so many the search ends without an answer, for it takes 10 ms: whoever stands in so large a
/// crowd waits no longer than he said.
const MOST_EDGES: usize = 20_000;

impl Kernel {
    /// Refuses a request that waits already, if that closes a circle.
    pub(super) fn check_deadlock(&self, number: LockNumber) -> Result<(), Rejection> {
        let Some(waiter) = self.locks.waiting.get(&number) else { return Ok(()) };
        if !self.is_waited_for(&waiter.owner, self.wanting(waiter)) {
            return Ok(());
        }
        let mut graph = WaitsFor::default();
        let mut seen = BTreeSet::new();
        let mut next = vec![waiter.owner.clone()];
        let mut edges = 0;
        while let Some(owner) = next.pop()
            && edges < MOST_EDGES
        {
            if !seen.insert(owner.clone()) {
                continue;
            }
            for number in self.locks.waiting_of.get(&owner).into_iter().flatten() {
                let Some(waiter) = self.locks.waiting.get(number) else { continue };
                for other in self.owners_in_the_way(self.wanting(waiter)) {
                    graph.add(&owner, &other);
                    edges += 1;
                    next.push(other);
                }
            }
        }
        match graph.cycle(&waiter.owner) {
            Some(cycle) => Err(Rejection::Deadlock(describe(&cycle))),
            None => Ok(()),
        }
    }

    /// Whether anybody could wait for this one: he holds or wants something else, or comes before
    /// others.
    fn is_waited_for(&self, owner: &LockOwner, wanting: Wanting<'_>) -> bool {
        let waits_twice = self.locks.waiting_of.get(owner).is_some_and(|numbers| numbers.len() > 1);
        if waits_twice || self.locks.by_owner.contains_key(owner) {
            return true;
        }
        let mut overtakes = false;
        for want in wanting.wants {
            let Some(space) = self.locks.space(want.space) else { continue };
            space.against(Standing::Waiting, &want.paths, wanting.task, |claim, _, _| {
                let other = self.locks.waiting.get(&claim.number);
                overtakes = other.is_some_and(|other| other.turn > wanting.turn);
                if overtakes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        }
        overtakes
    }
}
