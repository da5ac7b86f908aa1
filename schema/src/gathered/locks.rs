//! Locks, gathered: of each repository and of each grant's state the last word.

use std::collections::BTreeMap;
use std::sync::Arc;

use agentflow_core::batch::{LockBirth, LockSpaceRow, LockState, LockWrite};
use agentflow_core::ids::{LockNumber, SpaceId};

use super::without_nul;

/// The events of one decision among those of a commit: how many come before them, and how many they are.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) before: usize,
    pub(crate) count: usize,
}

/// What is to be written of one grant.
pub(crate) struct LockEntry {
    /// Present when the row is new, with the events of the decision that granted it.
    pub(crate) birth: Option<(Arc<LockBirth>, Place)>,
    pub(crate) state: LockState,
    /// The events of the decision that wrote this state.
    pub(crate) place: Place,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Locks {
    pub(crate) spaces: BTreeMap<SpaceId, LockSpaceRow>,
    pub(crate) grants: BTreeMap<LockNumber, LockEntry>,
}

impl Locks {
    /// Adds what one decision writes, whose events stand there. Gives back about how many bytes it is.
    pub(super) fn push(&mut self, spaces: Vec<LockSpaceRow>, grants: Vec<LockWrite>, place: Place) -> usize {
        let mut bytes = 0;
        for row in spaces {
            bytes += 20 + row.repo.as_str().len();
            self.spaces.insert(row.id, row);
        }
        for LockWrite { number, mut birth, mut state } in grants {
            bytes += 100;
            if let Some(birth) = &mut birth {
                bytes += birth.reason.len();
                bytes += birth.paths.iter().map(|lock| 30 + lock.path.as_str().len()).sum::<usize>();
                if let Some(text) = without_nul(&birth.reason) {
                    Arc::make_mut(birth).reason = text.into();
                }
            }
            if let Some(ended) = &mut state.ended {
                bytes += ended.reason.len();
                if let Some(text) = without_nul(&ended.reason) {
                    ended.reason = text.into();
                }
            }
            let known = self.grants.get_mut(&number).and_then(|entry| entry.birth.take());
            let birth = known.or(birth.map(|birth| (birth, place)));
            self.grants.insert(number, LockEntry { birth, state, place });
        }
        bytes
    }

    pub(super) fn rows(&self) -> usize {
        self.spaces.len() + self.grants.len()
    }
}
