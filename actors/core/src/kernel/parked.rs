//! Effects that wait for their decision to be durable.
//!
//! Every effect waits for the newest decision at the time, its own or another's: an answer that
//! was computed from memory may have seen any of them.

use std::collections::VecDeque;

use super::words::Effect;
use crate::ids::DecisionNumber;

/// The decisions and the effects that wait for them.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    decided: DecisionNumber,
    committed: DecisionNumber,
    waiting: VecDeque<(DecisionNumber, Vec<Effect>)>,
}

impl Parked {
    /// Gives out the next number.
    pub(crate) fn decide(&mut self) -> DecisionNumber {
        self.decided = self.decided.next();
        self.decided
    }

    /// Parks effects under the newest decision. Comes back with them when all are durable.
    pub(crate) fn park(&mut self, effects: Vec<Effect>) -> Vec<Effect> {
        if self.decided == self.committed {
            return effects;
        }
        if effects.is_empty() {
            return effects;
        }
        match self.waiting.back_mut() {
            Some((decision, waiting)) if *decision == self.decided => waiting.extend(effects),
            _ => self.waiting.push_back((self.decided, effects)),
        }
        Vec::new()
    }

    /// Notes that decisions are durable and lets their effects go, in order.
    pub(crate) fn release(&mut self, committed: DecisionNumber) -> Vec<Effect> {
        self.committed = self.committed.max(committed.min(self.decided));
        let mut effects = Vec::new();
        while let Some((decision, _)) = self.waiting.front()
            && *decision <= self.committed
        {
            if let Some((_, mut ready)) = self.waiting.pop_front() {
                effects.append(&mut ready);
            }
        }
        effects
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ReplyTo, TaskId};

    fn effect(n: u64) -> Effect {
        Effect::Load { tasks: vec![TaskId(n)] }
    }

    #[test]
    fn nothing_leaves_before_what_it_saw_is_durable() {
        let mut parked = Parked::default();
        assert_eq!(parked.park(vec![effect(0)]), [effect(0)]);
        let first = parked.decide();
        assert!(parked.park(vec![effect(1)]).is_empty());
        let second = parked.decide();
        assert!(parked.park(vec![effect(2)]).is_empty());
        // A read that changes nothing has seen the second decision.
        assert!(parked.park(vec![effect(3)]).is_empty());
        assert_eq!(parked.release(first), [effect(1)]);
        assert_eq!(parked.release(second), [effect(2), effect(3)]);
        assert_eq!(parked.park(vec![effect(4)]), [effect(4)]);
        let _ = ReplyTo(0);
    }
}
