//! Rows of runs and of relations between tasks.

use std::sync::Arc;

use super::{Outcome, RunNode};
use crate::blob::Outputs;
use crate::ids::{RunId, SpecHash, TaskId};
use crate::relation::Relation;
use crate::run::{Numbers, RunStatus};
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

/// The part of a run that is written when it is made; an upgrade replaces most of it.
#[derive(Clone, PartialEq, Debug)]
pub struct RunBirth {
    /// Its workflow.
    pub definition: SpecHash,
    /// Its name.
    pub name: Box<str>,
    /// `sequential`, `parallel`, `dag`, `pipeline` or `conditional`.
    pub mode: &'static str,
    /// The task number of the first node that it was made with; the others followed in their order.
    /// Stays as it is: what the nodes' numbers are now says [`RunRow::numbers`].
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
    /// Raised by each `upgrade`; from 1.
    pub version: u32,
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

/// A run was given other values to run with again, or another workflow.
#[derive(Clone, PartialEq, Debug)]
pub struct RunChange {
    /// The workflow with its new `vars`; its text is in [`super::Batch::definitions`].
    pub definition: SpecHash,
    /// The new inputs, a JSON value as text.
    pub inputs: Box<str>,
    /// Present when it has other nodes.
    pub layout: Option<RunLayout>,
}

/// What else of a run's row follows from its workflow.
#[derive(Clone, PartialEq, Debug)]
pub struct RunLayout {
    /// As in [`RunBirth`].
    pub name: Box<str>,
    /// As in [`RunBirth`].
    pub mode: &'static str,
    /// The tasks of its nodes. They take the place of all that was kept of them.
    pub numbers: Numbers,
}

/// A version of a run, kept whole for as long as the run is. Runs that were never upgraded have none.
#[derive(Clone, PartialEq, Debug)]
pub struct RunVersionRow {
    /// Which run.
    pub run: RunId,
    /// From 1.
    pub version: u32,
    /// Its workflow.
    pub definition: SpecHash,
    /// Its inputs, a JSON value as text.
    pub inputs: Box<str>,
    /// Why; empty for the first.
    pub reason: Arc<str>,
    /// Who; may be empty.
    pub author: Arc<str>,
    /// When.
    pub created_at: Wall,
}

/// A task of a run is called otherwise: its node was renamed, or is no longer one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeRename {
    /// Which task.
    pub task: TaskId,
    /// Its new name; see [`RunNode::node`].
    pub node: Arc<str>,
}

/// Whether the attempt of a node that a worker has is of an older version of its run, so that the next
/// one is made anew. Removed with the task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutdatedRow {
    /// The node's task.
    pub task: TaskId,
    /// Whether it is from now on.
    pub outdated: bool,
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
    /// As it was made, or as the last upgrade made it.
    pub birth: RunBirth,
    /// The tasks of its nodes.
    pub numbers: Numbers,
    /// As it was last written.
    pub state: RunState,
}

impl RunRow {
    /// A run that was just made.
    #[must_use]
    pub fn new(id: RunId, birth: RunBirth, state: RunState) -> Self {
        Self { id, numbers: Numbers::row(birth.first_task, birth.nodes), birth, state }
    }

    /// What a later write makes of it.
    pub fn take(&mut self, state: RunState, change: Option<RunChange>) {
        self.state = state;
        let Some(RunChange { definition, inputs, layout }) = change else { return };
        (self.birth.definition, self.birth.inputs) = (definition, inputs);
        if let Some(RunLayout { name, mode, numbers }) = layout {
            (self.birth.name, self.birth.mode, self.birth.nodes) = (name, mode, numbers.len());
            self.numbers = numbers;
        }
    }
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
