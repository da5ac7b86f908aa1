//! Runs of workflows in the kernel: what becomes of each node, and what that leads to.
//!
//! ```text
//! a task ends ──► Ended ──► Graph::end ──► advance: Graph::next_step ──► a task is made, skipped, …
//!                 (step.ended)              (step.runs)                  └── may end at once ──► Ended
//! ```
//!
//! A node is a task of its own: its number is reserved when the run is accepted, and its row is
//! written when something first becomes of it. An end and all that follows from it are one step,
//! hence one commit. What a step starts is bounded; the rest goes on in the next.
//!
//! The order of nodes is decided in [`crate::run::Graph`]; here its answers become tasks.

mod collect;
mod control;
mod fork;
mod nodes;
mod parts;
mod rerun;
mod restore;
mod table;
mod upgrade;
mod values;
mod why;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use agentflow_workflow::Definition;
use serde_json::{Map, Value};

use super::words::{Answer, NewTask, Reply, SubmitKey};
use super::{Kernel, Step};
use crate::batch::{DefinitionRow, Outcome, RoundRow, RunBirth, RunState, RunWrite, Stopping};
use crate::event::{Event, Happening, Subject};
use crate::ids::{RunId, SpecHash, TaskId};
use crate::rejection::Rejection;
use crate::run::{NodeStatus, RunStatus};
use crate::spec::Spec;
use crate::status::Status;
use crate::time::Wall;
pub use control::RunAction;
pub use fork::Fork;
pub(super) use rerun::Rerunning;
pub use rerun::{Again, LoadedRun};
pub(super) use restore::LiveNode;
pub use restore::SavedRun;
use table::Run;
pub(crate) use table::{Place, RunTable};
pub use upgrade::UpgradeRun;

/// Nodes on which one step decides; the rest follows in the next. As long as a large submission.
const NODES_PER_STEP: u32 = 10_000;

/// Makes tasks from the bodies in workflows, which are written as clients write them: their form is
/// the protocol's affair, not the kernel's. Pure: the same body always makes the same task.
pub trait MakeTask: Debug + Send + Sync {
    /// Checks a body and makes a task of it.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    fn make(&self, body: Map<String, Value>) -> Result<NewTask, String>;

    /// The first time after `after` that a schedule's `cron` names in a time zone; none if there is
    /// none, or if they cannot be understood.
    fn next_time(&self, _cron: &str, _zone: &str, _after: Wall) -> Option<Wall> {
        None
    }
}

/// For populations without runs.
impl MakeTask for () {
    fn make(&self, _: Map<String, Value>) -> Result<NewTask, String> {
        Err("no workflows are run here".to_owned())
    }
}

/// A workflow with the text and hash under which it is kept.
#[derive(Clone, PartialEq, Debug)]
pub struct PreparedRun {
    /// Its key.
    pub hash: SpecHash,
    /// Its canonical JSON.
    pub body: Arc<str>,
    /// What it says: instantiated, so that its `vars` are those of the run.
    pub definition: Arc<Definition>,
}

impl PreparedRun {
    /// Hashes a definition.
    #[must_use]
    pub fn new(definition: Definition) -> Self {
        let body = definition.to_json();
        Self { hash: Spec::hash_of(&body), body: body.into(), definition: Arc::new(definition) }
    }
}

/// A run to be made. Its workflow was checked at the door.
#[derive(Clone, PartialEq, Debug)]
pub struct NewRun {
    /// What it does.
    pub prepared: PreparedRun,
    /// What it was given.
    pub inputs: Value,
}

/// A task has ended, and somebody may wait for that.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) task: TaskId,
    pub(crate) place: Option<Place>,
    pub(crate) status: Status,
    pub(crate) outcome: Outcome,
}

impl Kernel {
    pub(super) fn on_start_run(&mut self, step: &mut Step, new: NewRun, key: Option<SubmitKey>) -> Reply {
        if let Some(key) = key
            && let Some(recent) = self.keys.recent(step.now.mono, key)?
        {
            return Ok(Answer::RunStarted { run: RunId(recent.first.0), replayed: true });
        }
        self.check_room(new.prepared.definition.nodes.len())?;
        if self.runs.len() >= crate::limits::LIVE_RUNS {
            return Err(Rejection::Limit {
                what: "runs that have not ended",
                limit: crate::limits::LIVE_RUNS,
            });
        }
        let run = self.start_run(step, new, None);
        if let Some(key) = key {
            self.keys.remember(step, key, TaskId(run.0), 1);
        }
        step.urgent = true;
        Ok(Answer::RunStarted { run, replayed: false })
    }

    /// Makes a run and lets it begin in this step.
    pub(super) fn start_run(&mut self, step: &mut Step, new: NewRun, parent: Option<TaskId>) -> RunId {
        self.begin_run(step, new, parent, None)
    }

    /// As [`Kernel::start_run`]; perhaps it goes on from another run.
    fn begin_run(
        &mut self,
        step: &mut Step,
        new: NewRun,
        parent: Option<TaskId>,
        forked_from: Option<RunId>,
    ) -> RunId {
        let NewRun { prepared, inputs } = new;
        let id = self.counters.last_run.next();
        self.counters.last_run = id;
        let count = prepared.definition.nodes.len();
        let first_task = self.counters.last_task.next();
        self.counters.last_task = TaskId(self.counters.last_task.0 + count as u64);
        let birth = RunBirth {
            definition: prepared.hash,
            name: prepared.definition.name.clone(),
            mode: prepared.definition.mode.as_str(),
            first_task,
            nodes: u32::try_from(count).unwrap_or(u32::MAX),
            inputs: inputs.to_string().into(),
            parent,
            created_at: step.now.wall,
        };
        step.batch.definitions.push(DefinitionRow { hash: prepared.hash, body: prepared.body });
        let (name, nodes) = (birth.name.as_ref().into(), birth.nodes);
        let happening = Happening::RunCreated { name, nodes, parent, forked_from };
        let run = Run::new(id, prepared.definition, inputs, &birth);
        step.batch.runs.push(RunWrite { id, birth: Some(Box::new(birth)), change: None, state: run.state() });
        run_event(step, id, happening);
        self.runs.insert(run);
        step.runs.insert(id);
        id
    }

    /// Draws the consequences of every end in this step, and of their consequences.
    pub(super) fn follow(&mut self, step: &mut Step) {
        loop {
            while let Some(ended) = step.ended.pop_front() {
                self.after_end(step, ended);
            }
            let Some(run) = step.runs.pop_first() else { break };
            self.advance(step, run);
        }
    }

    fn after_end(&mut self, step: &mut Step, ended: Ended) {
        self.release_successors(step, &ended);
        let Some(place) = ended.place else { return };
        let Some(mut run) = self.runs.take(place.run) else { return };
        match place.item {
            Some(item) => self.item_ended(step, &mut run, place.node, item, &ended),
            None => {
                let room = self.runs.room_for_values().saturating_sub(run.held);
                run.keep_value(place.node, ended.status, ended.outcome, room);
                run.parts.remove(&place.node);
                if run.rounds.remove(&place.node).is_some() {
                    step.batch.rounds.push(RoundRow { task: ended.task, round: None });
                }
                let end = match ended.status {
                    Status::Completed => NodeStatus::Completed,
                    Status::Cancelled => NodeStatus::Cancelled,
                    Status::Skipped => NodeStatus::Skipped,
                    _ => NodeStatus::Failed,
                };
                run.graph.end(place.node, end);
                if end == NodeStatus::Failed && run.definition.fail_fast {
                    self.stop_run(step, &mut run, false);
                }
            }
        }
        step.runs.insert(run.id);
        self.runs.put_back(run);
    }

    /// Decides on every node on which can be decided.
    fn advance(&mut self, step: &mut Step, id: RunId) {
        let Some(mut run) = self.runs.take(id) else { return };
        while step.nodes < NODES_PER_STEP
            && let Some((node, what)) = run.graph.next_step()
        {
            step.nodes += 1;
            match what {
                crate::run::Step::Begin => self.begin_node(step, &mut run, node),
                crate::run::Step::Skip { end, because } => {
                    let cause = run.skip_cause(node, because);
                    self.end_unbegun(step, &mut run, node, end, Some(cause));
                }
                crate::run::Step::Cancel => {
                    self.end_unbegun(step, &mut run, node, NodeStatus::Cancelled, None);
                }
            }
        }
        self.feed_parts(step, &mut run);
        if step.nodes >= NODES_PER_STEP {
            self.timers.set(step.now.mono, super::timers::Timer::Run(id));
        } else if let Some((status, cause)) = run.graph.outcome() {
            self.conclude_run(step, run, status, cause);
            return;
        }
        self.runs.put_back(run);
    }

    /// Every node has ended.
    fn conclude_run(&mut self, step: &mut Step, mut run: Box<Run>, status: RunStatus, cause: Option<u32>) {
        run.status = status;
        run.error = cause.map(|node| run.failure_of(node));
        run.settled_at = Some(step.now.wall);
        let happening = match status {
            RunStatus::Completed => Happening::RunCompleted {},
            RunStatus::Cancelled => Happening::RunCancelled {},
            _ => Happening::RunFailed { error: run.error.clone().unwrap_or_else(|| "unknown".into()) },
        };
        run_event(step, run.id, happening);
        write_run(step, &run);
        self.saved.leave_memory(crate::memory::Owner::Run(run.id));
        step.urgent = true;
        if let Some(parent) = run.parent {
            self.child_ended(step, parent, &run);
        }
    }

    /// The run that a live task is a part of.
    #[must_use]
    pub fn run_of(&self, task: TaskId) -> Option<RunId> {
        self.runs.place(task).map(|place| place.run)
    }

    /// Whether a run has not ended.
    #[must_use]
    pub fn has_run(&self, run: RunId) -> bool {
        self.runs.get(run).is_some()
    }

    /// Every live task of a run: its nodes' and their items'.
    fn live_tasks_of(&self, run: &Run) -> Vec<TaskId> {
        let nodes = (0..run.nodes())
            .filter(|node| matches!(run.graph.status(*node), NodeStatus::Active | NodeStatus::Open))
            .map(|node| run.task_of(node));
        let items = run.parts.values().flat_map(|parts| parts.live_items());
        nodes.chain(items).filter(|task| self.tasks.get(*task).is_some()).collect()
    }
}

impl Run {
    pub(crate) fn state(&self) -> RunState {
        RunState {
            status: self.status,
            revision: self.revision,
            version: self.version,
            settled_at: self.settled_at,
            error: self.error.clone(),
            stopping: self
                .graph
                .stop_was_asked()
                .filter(|_| !self.status.is_settled())
                .map(|asked| if asked { Stopping::Asked } else { Stopping::Failure }),
        }
    }

    /// The name and the end of the node that decided on another.
    fn skip_cause(&self, node: u32, because: u32) -> Arc<str> {
        let name = &self.definition.nodes[because as usize].name;
        let text = match self.graph.status(because) {
            NodeStatus::Failed => format!("'{name}' failed"),
            NodeStatus::Cancelled => format!("'{name}' was cancelled"),
            NodeStatus::Skipped | NodeStatus::Barred => format!("'{name}' was skipped"),
            _ => format!("'{name}' did not fail"),
        };
        debug_assert!(node != because);
        text.into()
    }
}

fn write_run(step: &mut Step, run: &Run) {
    step.batch.runs.push(RunWrite { id: run.id, birth: None, change: None, state: run.state() });
}

fn run_event(step: &mut Step, run: RunId, happening: Happening) {
    step.batch.events.push(Event { at: step.now.wall, subject: Subject::Run(run), happening });
}

/// Names of at most so many things, for people.
fn some_names<'a>(names: impl Iterator<Item = &'a str>, limit: usize) -> String {
    let mut names: Vec<&str> = names.take(limit + 1).collect();
    let more = names.len() > limit;
    names.truncate(limit);
    let mut text = names.join(", ");
    if more {
        text.push_str(", …");
    }
    text
}

/// The moment a run was accepted, for values that expressions see.
fn run_value(id: RunId, name: &str, created_at: Wall) -> Value {
    let fields: BTreeMap<&str, Value> =
        [("id", Value::from(id.0)), ("name", Value::from(name)), ("created_at", Value::from(created_at.0))]
            .into();
    serde_json::to_value(fields).unwrap_or_default()
}
