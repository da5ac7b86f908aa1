//! Specifications of live tasks, each kept once.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::words::PreparedSpec;
use crate::ids::SpecHash;

/// Position in the table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct SpecIndex(u32);

#[derive(Debug)]
struct Slot {
    /// `None` while the position is free, so that the specification's memory is too.
    prepared: Option<Arc<PreparedSpec>>,
    users: u32,
}

/// The table. A specification leaves with its last live task.
#[derive(Debug, Default)]
pub(crate) struct SpecTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_hash: FxHashMap<SpecHash, u32>,
}

impl SpecTable {
    /// Counts one more user of a specification. The flag says whether it was not there: then the
    /// database may not have it either.
    pub(crate) fn enter(&mut self, prepared: &Arc<PreparedSpec>) -> (SpecIndex, bool) {
        if let Some(&index) = self.by_hash.get(&prepared.hash) {
            self.slots[index as usize].users += 1;
            return (SpecIndex(index), false);
        }
        let kept = if prepared.blobs.is_empty() {
            Arc::clone(prepared)
        } else {
            // Once they are written nobody here reads them again.
            Arc::new(PreparedSpec { blobs: Vec::new(), ..PreparedSpec::clone(prepared) })
        };
        let slot = Slot { prepared: Some(kept), users: 1 };
        let index = if let Some(index) = self.free.pop() {
            self.slots[index as usize] = slot;
            index
        } else {
            self.slots.push(slot);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        };
        self.by_hash.insert(prepared.hash, index);
        (SpecIndex(index), true)
    }

    /// Counts one user less.
    pub(crate) fn leave(&mut self, index: SpecIndex) {
        let slot = &mut self.slots[index.0 as usize];
        slot.users -= 1;
        if slot.users == 0
            && let Some(prepared) = slot.prepared.take()
        {
            self.by_hash.remove(&prepared.hash);
            self.free.push(index.0);
        }
    }

    /// A specification in use.
    pub(crate) fn get(&self, index: SpecIndex) -> &Arc<PreparedSpec> {
        match &self.slots[index.0 as usize].prepared {
            Some(prepared) => prepared,
            None => unreachable!("a live task's specification is kept"),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_hash.len()
    }
}
