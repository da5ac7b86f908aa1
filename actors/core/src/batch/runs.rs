//! Rows of runs and of relations between tasks.

use std::sync::Arc;

use super::{Outcome, RunNode};
use crate::blob::Outputs;
use crate::ids::{RunId, SpecHash, TaskId};
use crate::relation::Relation;
use crate::run::RunStatus;
use crate::status::Status;
use crate::time::Wall;

/// The text of a workflow, kept once. Its canonical JSON, as the run began with it.
#[derive(Clone, PartialEq, Debug)]
pub struct DefinitionRow {
    /// Its key.
    pub hash: SpecHash,
    /// Its canonical JSON.
    pub body: Arc<str>,
}

/// The part of a run that is written once.
#[derive(Clone, PartialEq, Debug)]
pub struct RunBirth {
    /// Its workflow.
    pub definition: SpecHash,
    /// Its name.
    pub name: Box<str>,
    /// `sequential`, `parallel`, `dag`, `pipeline` or `conditional`.
    pub mode: &'static str,
    /// The task number of its first node; the others follow in the order of the definition.
    pub first_task: TaskId,
    /// How many nodes it has.
    pub nodes: u32,
    /// What it was given, a JSON value as text.
    pub inputs: Box<str>,
    /// The node of another run that it is.
    pub parent: Option<TaskId>,
    /// When it was accepted.
    pub created_at: Wall,
}

/// The part of a run that changes; always written whole.
#[derive(Clone, PartialEq, Debug)]
pub struct RunState {
    /// Where it stands.
    pub status: RunStatus,
    /// Raised by each `rerun`; from 1.
    pub revision: u32,
    /// When it ended.
    pub settled_at: Option<Wall>,
    /// Why it failed.
    pub error: Option<Arc<str>>,
    /// Why it is about to end; nothing once it has.
    pub stopping: Option<Stopping>,
}

/// Why a run that goes on is about to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Stopping {
    /// A node failed, and it is to fail fast.
    Failure = 1,
    /// Somebody has cancelled it.
    Asked = 2,
}

impl Stopping {
    /// The reason with that number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Failure, Self::Asked].into_iter().find(|stopping| *stopping as u8 == number)
    }
}

/// How often the `loop` of a node has gone round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoundRow {
    /// The node's task.
    pub task: TaskId,
    /// The round that is next, or under way, from 2; nothing once the loop is over.
    pub round: Option<u32>,
}

/// A run was given other values to run with again.
#[derive(Clone, PartialEq, Debug)]
pub struct RunChange {
    /// The workflow with its new `vars`; its text is in [`super::Batch::definitions`].
    pub definition: SpecHash,
    /// The new inputs, a JSON value as text.
    pub inputs: Box<str>,
}

/// One run's row.
#[derive(Clone, PartialEq, Debug)]
pub struct RunWrite {
    /// Which.
    pub id: RunId,
    /// Present when the row is new.
    pub birth: Option<Box<RunBirth>>,
    /// Present when its workflow or inputs are replaced.
    pub change: Option<Box<RunChange>>,
    /// As it is now.
    pub state: RunState,
}

/// Names a relation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RelationKey {
    /// Before.
    pub predecessor: TaskId,
    /// After.
    pub successor: TaskId,
    /// How.
    pub relation: Relation,
}

/// One task comes after another. Removed with either task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RelationRow {
    /// Before.
    pub predecessor: TaskId,
    /// After.
    pub successor: TaskId,
    /// How.
    pub relation: Relation,
    /// Since when.
    pub created_at: Wall,
}

impl RelationRow {
    /// Its name.
    #[must_use]
    pub fn key(&self) -> RelationKey {
        let Self { predecessor, successor, relation, .. } = *self;
        RelationKey { predecessor, successor, relation }
    }
}

/// A run that has not ended, as recovery reads it back.
#[derive(Clone, PartialEq, Debug)]
pub struct RunRow {
    /// Which.
    pub id: RunId,
    /// As it began.
    pub birth: RunBirth,
    /// As it was last written.
    pub state: RunState,
}

/// A task of a run that has ended, as recovery reads it back.
#[derive(Clone, PartialEq, Debug)]
pub struct SettledNode {
    /// Which.
    pub task: TaskId,
    /// Its place.
    pub node: RunNode,
    /// How it ended.
    pub status: Status,
    /// What it left.
    pub outcome: Outcome,
}

/// A relation whose successor still waits, as recovery reads it back.
#[derive(Clone, PartialEq, Debug)]
pub struct LiveRelation {
    /// The relation.
    pub row: RelationRow,
    /// How the predecessor ended, and its outputs if the relation is one of
    /// [`Relation::Context`]; `None` while it is live.
    pub ended: Option<(Status, Option<Outputs>)>,
}
