//! Rows of what outlives an attempt: checkpoints, memories, and the versions of a task.

use std::sync::Arc;

use crate::checkpoint::{Choice, Content, Files, KeptCheckpoint};
use crate::ids::{Attempt, CheckpointId, Fence, SpecHash, TaskId};
use crate::memory::{Entry, Memory, Owner};
use crate::time::Wall;

/// A checkpoint. Written once.
#[derive(Clone, PartialEq, Debug)]
pub struct CheckpointRow {
    /// Its number.
    pub id: CheckpointId,
    /// Whose.
    pub task: TaskId,
    /// Which try was the latest; 0 before the first.
    pub attempt: Attempt,
    /// The assignment that saved it; 0 if none did.
    pub fence: Fence,
    /// The number that the attempt's worker gave it, by which it is known again when it comes twice.
    pub number: u64,
    /// What it is called.
    pub name: Arc<str>,
    /// Whether its bytes are JSON.
    pub json: bool,
    /// Its bytes.
    pub content: Content,
    /// Where the task's files were.
    pub files: Option<Box<Files>>,
    /// What the task remembered then: the text of [`Memory::to_text`].
    pub memory: Option<Arc<str>>,
    /// When.
    pub at: Wall,
}

/// Where the next attempt of a task begins; none when that is at the newest checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChoiceRow {
    /// Whose.
    pub task: TaskId,
    /// Where.
    pub choice: Option<Choice>,
}

/// An entry of a memory as it is now; none when it is forgotten.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemoryRow {
    /// Whose.
    pub owner: Owner,
    /// Its name.
    pub name: Arc<str>,
    /// What is remembered.
    pub entry: Option<Entry>,
}

/// A version of a task, whole. A task that was never upgraded has none: its own row says it all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VersionRow {
    /// Whose.
    pub task: TaskId,
    /// From 1.
    pub version: u32,
    /// Its title.
    pub title: Box<str>,
    /// What was to be done.
    pub spec: SpecHash,
    /// Why it was made.
    pub reason: Arc<str>,
    /// By whom.
    pub author: Box<str>,
    /// When.
    pub created_at: Wall,
}

/// What one step wants written of all this.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SavedWrites {
    /// New checkpoints.
    pub checkpoints: Vec<CheckpointRow>,
    /// Checkpoints that go.
    pub removed: Vec<CheckpointId>,
    /// Choices; a later one of a task replaces an earlier one.
    pub choices: Vec<ChoiceRow>,
    /// Entries of memories; a later one of a name replaces an earlier one.
    pub memory: Vec<MemoryRow>,
    /// New versions.
    pub versions: Vec<VersionRow>,
}

impl SavedWrites {
    /// Rows to be written.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.checkpoints.len()
            + self.removed.len()
            + self.choices.len()
            + self.memory.len()
            + self.versions.len()
    }
}

/// What of a task's checkpoints and memory is in memory while it is live.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SavedTask {
    /// Its checkpoints, the oldest first.
    pub kept: Vec<KeptCheckpoint>,
    /// Where its next attempt begins.
    pub choice: Option<Choice>,
    /// What it remembers.
    pub memory: Memory,
}

impl SavedTask {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.choice.is_none() && self.memory.is_empty()
    }
}
