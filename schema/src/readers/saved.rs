//! Reads of checkpoints, memories and versions.

use agentflow_core::ids::{CheckpointId, TaskId};
use agentflow_core::memory::{Memory, Owner};

use super::Readers;
use crate::error::Error;
use crate::saved::{self, CheckpointRecord};

impl Readers {
    /// The checkpoints of a task, the oldest first, without their bytes.
    ///
    /// # Errors
    /// Those of the database; [`Error::is_corrupt`] for rows that cannot be.
    pub fn checkpoints(&self, task: TaskId) -> Result<Vec<CheckpointRecord>, Error> {
        saved::list(&mut *self.connection()?, task)
    }

    /// One checkpoint with its bytes, or where they are.
    ///
    /// # Errors
    /// As with [`checkpoints`](Readers::checkpoints).
    pub fn checkpoint(&self, id: CheckpointId) -> Result<Option<CheckpointRecord>, Error> {
        saved::one(&mut *self.connection()?, id)
    }

    /// What a task or run remembers, what has expired included.
    ///
    /// # Errors
    /// Those of the database.
    pub fn memory(&self, owner: Owner) -> Result<Memory, Error> {
        saved::memory(&mut *self.connection()?, owner)
    }
}
