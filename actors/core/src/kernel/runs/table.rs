//! Live runs, and which of their nodes each of their live tasks is.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use agentflow_workflow::{Definition, Extra, Scope, TaskPart, TaskValue, TaskView};
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::Value;

use super::parts::Parts;
use super::run_value;
use super::values::{Prepared, without_line_end};
use crate::batch::{Outcome, RunBirth};
use crate::blob::{BlobRef, InputSource};
use crate::ids::{RunId, TaskId};
use crate::limits;
use crate::run::{Graph, Numbers, RunStatus};
use crate::status::Status;
use crate::time::Wall;

/// What a task is in its run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) run: RunId,
    pub(crate) node: u32,
    /// Which item of the node's `foreach`.
    pub(crate) item: Option<u32>,
}

/// What is kept of a node that has ended because somebody after it reads that.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) status: Status,
    outcome: Outcome,
    view: OnceCell<TaskView>,
}

impl Kept {
    fn new(status: Status, mut outcome: Outcome) -> Self {
        outcome.error = None;
        if let Some(left) = &mut outcome.left {
            left.artifacts = Vec::new();
        }
        Self { status, outcome, view: OnceCell::new() }
    }

    /// Bytes of values that rows do not hold.
    fn held(&self) -> u64 {
        self.outcome.left.as_ref().map_or(0, |left| left.held())
    }

    pub(crate) fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    pub(crate) fn into_outcome(self) -> Outcome {
        self.outcome
    }

    /// Its outputs as JSON, as far as they can be read here.
    pub(crate) fn outputs(&self) -> Option<&str> {
        self.outcome.outputs().ok().flatten().filter(|text| is_json(text))
    }

    /// As expressions see it.
    pub(crate) fn view(&self) -> &TaskView {
        self.view.get_or_init(|| value_of(self.status, &self.outcome).view())
    }

    /// A part of it as the input of another.
    pub(crate) fn source(&self, part: TaskPart) -> Option<InputSource> {
        let left = self.outcome.left.as_deref();
        match part {
            TaskPart::Outputs => match left.and_then(|left| left.outputs) {
                Some(blob) => Some(InputSource::Json(blob)),
                None => {
                    Some(InputSource::Value(serde_json::from_str(self.outcome.outputs.as_deref()?).ok()?))
                }
            },
            TaskPart::Result => match left.and_then(|left| left.result) {
                Some(blob) => Some(InputSource::Text(blob)),
                None => {
                    let text = without_line_end(self.outcome.result.as_deref()?);
                    Some(InputSource::Value(Value::from(text)))
                }
            },
        }
    }
}

/// What expressions may know of how a task ended.
pub(crate) fn value_of(status: Status, outcome: &Outcome) -> TaskValue<'_> {
    TaskValue {
        status: status.word(),
        outputs: outcome.outputs().map_err(|blob| unread(TaskPart::Outputs, blob)),
        result: outcome
            .result()
            .map(|text| text.map(without_line_end))
            .map_err(|blob| unread(TaskPart::Result, blob)),
    }
}

/// Whether a text can stand as it is within a larger one. A worker has said so; nobody has looked.
pub(crate) fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

fn unread(part: TaskPart, blob: BlobRef) -> String {
    let word = part.as_str();
    if blob.bytes > limits::READABLE_BYTES {
        let (have, most) = (blob.bytes, limits::READABLE_BYTES);
        return format!(
            "its {word} has {have} bytes and expressions read up to {most}; \
             hand it on whole: input: ${{{{ tasks.NAME.{word} }}}}"
        );
    }
    let bytes = blob.bytes;
    format!("its {word} of {bytes} bytes cannot be read: they are gone, or runs hold too many large values")
}

/// A run that has not ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) id: RunId,
    pub(crate) definition: Arc<Definition>,
    pub(crate) graph: Graph,
    pub(crate) status: RunStatus,
    pub(crate) revision: u32,
    pub(crate) version: u32,
    pub(crate) error: Option<Arc<str>>,
    pub(crate) settled_at: Option<Wall>,
    /// The tasks of its nodes.
    pub(crate) numbers: Numbers,
    pub(crate) created_at: Wall,
    pub(crate) parent: Option<TaskId>,
    /// What every expression of the run sees.
    pub(crate) scope: Scope,
    /// Bodies of tasks, made ready on first use.
    pub(crate) prepared: FxHashMap<u32, Arc<Prepared>>,
    /// Nodes whose end is read by others, and what is kept of those that have ended.
    pub(crate) read: FxHashSet<u32>,
    pub(crate) kept: FxHashMap<u32, Kept>,
    /// The parts of nodes that consist of some.
    pub(crate) parts: BTreeMap<u32, Parts>,
    /// How often the `loop` of a node has gone round.
    pub(crate) rounds: FxHashMap<u32, u32>,
    /// Bytes of large values among what is kept.
    pub(crate) held: u64,
}

impl Run {
    pub(crate) fn new(id: RunId, definition: Arc<Definition>, inputs: Value, birth: &RunBirth) -> Self {
        let scope = Scope::new().vars(&definition.vars).inputs(&inputs).run(&run_value(
            id,
            &definition.name,
            birth.created_at,
        ));
        Self {
            id,
            graph: Graph::new(Arc::clone(&definition)),
            status: RunStatus::Pending,
            revision: 1,
            version: 1,
            error: None,
            settled_at: None,
            numbers: Numbers::row(birth.first_task, birth.nodes),
            created_at: birth.created_at,
            parent: birth.parent,
            scope,
            prepared: FxHashMap::default(),
            // A child's outputs are those of all its nodes.
            read: match birth.parent {
                Some(_) => (0..birth.nodes).collect(),
                None => super::values::read_nodes(&definition),
            },
            kept: FxHashMap::default(),
            parts: BTreeMap::new(),
            rounds: FxHashMap::default(),
            held: 0,
            definition,
        }
    }

    pub(crate) fn nodes(&self) -> u32 {
        u32::try_from(self.definition.nodes.len()).unwrap_or(u32::MAX)
    }

    /// The number of a node's task.
    pub(crate) fn task_of(&self, node: u32) -> TaskId {
        self.numbers.task_of(node)
    }

    /// The node that a task is, if it is one and no item.
    pub(crate) fn node_of(&self, task: TaskId) -> Option<u32> {
        self.numbers.node_of(task)
    }

    pub(crate) fn name_of(&self, node: u32) -> &str {
        self.definition.nodes.get(node as usize).map_or("", |node| &node.name)
    }

    pub(crate) fn extra(&self, node: u32) -> Option<&Extra> {
        self.definition.nodes.get(node as usize)?.extra.as_deref()
    }

    /// Forgets what a node left: it begins anew.
    pub(crate) fn forget(&mut self, node: u32) {
        if let Some(kept) = self.kept.remove(&node) {
            self.held -= kept.held();
        }
    }

    /// Keeps what a node left, if anybody reads it: of large values at most `room` bytes.
    pub(crate) fn keep_value(&mut self, node: u32, status: Status, outcome: Outcome, room: u64) {
        if !self.read.contains(&node) {
            return;
        }
        let mut kept = Kept::new(status, outcome);
        if kept.held() > room
            && let Some(left) = &mut kept.outcome.left
        {
            left.forget_texts();
        }
        self.held += kept.held();
        if let Some(before) = self.kept.insert(node, kept) {
            self.held -= before.held();
        }
    }
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct RunTable {
    // Ordered, so that simulations repeat.
    runs: BTreeMap<RunId, Box<Run>>,
    places: FxHashMap<TaskId, Place>,
    /// Tasks of nodes that were decided on or approved and have not begun, or have to begin again: all
    /// that they wait for is room.
    approved: FxHashSet<TaskId>,
    /// Tasks of nodes of which a worker has an attempt that is of an older version of the run.
    outdated: FxHashSet<TaskId>,
}

impl RunTable {
    pub(crate) fn len(&self) -> usize {
        self.runs.len()
    }

    pub(crate) fn insert(&mut self, run: Run) {
        self.runs.insert(run.id, Box::new(run));
    }

    pub(crate) fn get(&self, id: RunId) -> Option<&Run> {
        self.runs.get(&id).map(|run| &**run)
    }

    pub(crate) fn get_mut(&mut self, id: RunId) -> Option<&mut Run> {
        self.runs.get_mut(&id).map(|run| &mut **run)
    }

    /// Takes a run out, to work on it and on the kernel at once. It must be put back unless it ended.
    pub(crate) fn take(&mut self, id: RunId) -> Option<Box<Run>> {
        self.runs.remove(&id)
    }

    pub(crate) fn put_back(&mut self, run: Box<Run>) {
        self.runs.insert(run.id, run);
    }

    /// Bytes of large values that runs in the table may hold on top of what they do.
    pub(crate) fn room_for_values(&self) -> u64 {
        limits::HELD_BYTES.saturating_sub(self.iter().map(|run| run.held).sum())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Run> {
        self.runs.values().map(|run| &**run)
    }

    pub(crate) fn place(&self, task: TaskId) -> Option<Place> {
        self.places.get(&task).copied()
    }

    /// Whether a task waits for nothing but room.
    pub(crate) fn is_approved(&self, task: TaskId) -> bool {
        self.approved.contains(&task)
    }

    pub(crate) fn approve(&mut self, task: TaskId) {
        self.approved.insert(task);
    }

    /// Whether it was approved; from now on it is not.
    pub(crate) fn take_approval(&mut self, task: TaskId) -> bool {
        self.approved.remove(&task)
    }

    /// The attempt that a worker has is of an older version: the next one is made anew.
    pub(crate) fn set_outdated(&mut self, task: TaskId) {
        self.outdated.insert(task);
    }

    /// Whether the last attempt is of an older version; from now on it is not.
    pub(crate) fn take_outdated(&mut self, task: TaskId) -> bool {
        self.outdated.remove(&task)
    }

    /// Whether the attempt that a worker has is of an older version.
    pub(crate) fn is_outdated(&self, task: TaskId) -> bool {
        self.outdated.contains(&task)
    }

    /// Tasks of which a worker has an attempt of an older version.
    pub(crate) fn outdated(&self) -> impl Iterator<Item = TaskId> {
        self.outdated.iter().copied()
    }

    pub(crate) fn set_place(&mut self, task: TaskId, place: Place) {
        self.places.insert(task, place);
    }

    pub(crate) fn leave_place(&mut self, task: TaskId) -> Option<Place> {
        self.approved.remove(&task);
        self.outdated.remove(&task);
        self.places.remove(&task)
    }

    pub(crate) fn places(&self) -> usize {
        self.places.len()
    }
}
