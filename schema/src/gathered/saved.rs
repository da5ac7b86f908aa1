//! What outlives an attempt, gathered: of each choice and each entry of a memory the last word, and no
//! checkpoint that has come and gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agentflow_core::batch::{CheckpointRow, SavedWrites, VersionRow};
use agentflow_core::checkpoint::{Choice, Content};
use agentflow_core::ids::{CheckpointId, TaskId};
use agentflow_core::memory::{Entry, Owner};

/// See the module.
#[derive(Default)]
pub(crate) struct Saved {
    pub(crate) checkpoints: BTreeMap<CheckpointId, CheckpointRow>,
    pub(crate) removed: BTreeSet<CheckpointId>,
    pub(crate) choices: BTreeMap<TaskId, Option<Choice>>,
    pub(crate) memory: BTreeMap<(Owner, Arc<str>), Option<Entry>>,
    pub(crate) versions: BTreeMap<(TaskId, u32), VersionRow>,
}

impl Saved {
    /// Adds what one decision writes. Gives back about how many bytes these are.
    pub(super) fn push(&mut self, writes: SavedWrites) -> usize {
        let mut bytes = 0;
        for row in writes.checkpoints {
            bytes += 100 + row.memory.as_ref().map_or(0, |memory| memory.len());
            if let Content::Data(data) = &row.content {
                bytes += data.len();
            }
            self.checkpoints.insert(row.id, row);
        }
        for id in writes.removed {
            if self.checkpoints.remove(&id).is_none() {
                self.removed.insert(id);
            }
        }
        for row in writes.choices {
            self.choices.insert(row.task, row.choice);
        }
        for row in writes.memory {
            bytes += 20 + row.name.len() + row.entry.as_ref().map_or(0, |entry| entry.value.len());
            self.memory.insert((row.owner, row.name), row.entry);
        }
        for row in writes.versions {
            bytes += 60 + row.title.len() + row.reason.len();
            self.versions.insert((row.task, row.version), row);
        }
        bytes
    }

    pub(super) fn rows(&self) -> usize {
        self.checkpoints.len()
            + self.removed.len()
            + self.choices.len()
            + self.memory.len()
            + self.versions.len()
    }
}
