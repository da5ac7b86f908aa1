//! What somebody is about to change, and retention therefore leaves alone for two rounds.

use std::collections::HashSet;
use std::hash::Hash;

/// Ids spared in one round. Past it, nothing of the kind is removed until the round is over: 16 MB.
const SPARED: usize = 1_000_000;

/// Ids of one kind.
#[derive(Clone, Debug)]
pub(super) struct Spared<T> {
    now: HashSet<T>,
    before: HashSet<T>,
    all: bool,
}

impl<T> Default for Spared<T> {
    fn default() -> Self {
        Self { now: HashSet::new(), before: HashSet::new(), all: false }
    }
}

impl<T: Eq + Hash> Spared<T> {
    /// Spares these in this round and the next one.
    pub(super) fn add(&mut self, ids: impl IntoIterator<Item = T>) {
        self.now.extend(ids);
        if self.now.len() > SPARED {
            self.now.clear();
            self.all = true;
        }
    }

    pub(super) fn has(&self, id: T) -> bool {
        self.all || self.now.contains(&id) || self.before.contains(&id)
    }

    pub(super) fn next_round(&mut self) {
        self.before = std::mem::take(&mut self.now);
        self.all = false;
    }
}

#[cfg(test)]
mod tests {
    use agentflow_core::ids::TaskId;

    use super::*;

    #[test]
    fn a_task_is_spared_for_two_rounds() {
        let mut spared = Spared::default();
        spared.add([TaskId(1)]);
        assert!(spared.has(TaskId(1)));
        spared.next_round();
        assert!(spared.has(TaskId(1)));
        spared.next_round();
        assert!(!spared.has(TaskId(1)));
        spared.add((1..=2_000_000).map(TaskId));
        assert!(spared.has(TaskId(9_000_000)));
    }
}
