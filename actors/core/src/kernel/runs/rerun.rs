//! A run goes over a part of itself again: from nodes that failed, or from any that somebody names,
//! with other values if need be.
//!
//! ```text
//! Request::Rerun ──► Effect::LoadRun ──► Input::RunLoaded ──► Graph::rewind, tasks blocked ──► advance
//! ```
//!
//! What has ended is not in memory: the rows of the nodes in question are read first, and those of
//! the whole run if it has ended. Nodes keep their tasks and their numbers; attempts count on.
//! Nothing that is not affected runs again.

use std::collections::BTreeMap;
use std::sync::Arc;

use agentflow_workflow::Scope;

use super::fork::Fork;
use super::table::{Place, Run};
use super::upgrade::{UpgradeRun, write_version};
use super::{PreparedRun, SavedRun, run_event, run_value};
use crate::batch::{DefinitionRow, OutcomeChange, RunBirth, RunChange, RunVersionRow, RunWrite};
use crate::event::Happening;
use crate::ids::{ReplyTo, RunId, TaskId};
use crate::kernel::words::{Answer, Effect, LoadedTask};
use crate::kernel::{Kernel, Step};
use crate::limits;
use crate::memory::{Memory, Owner};
use crate::rejection::Rejection;
use crate::run::{NodeStatus, RunStatus};
use crate::spec::ContinueFrom;
use crate::task::{Command, Phase, Task};

/// What is to run again.
#[derive(Clone, PartialEq, Debug)]
pub struct Again {
    /// Which run.
    pub run: RunId,
    /// Names of nodes; those that failed or were cancelled when empty.
    pub from: Vec<Box<str>>,
    /// Only what was skipped because of them follows; otherwise everything after them.
    pub only_skipped: bool,
    /// Whether the nodes that are named go on where they were, or begin anew as what follows them does.
    pub continue_from: ContinueFrom,
    /// Other values, if any: the workflow with them in it, of the same nodes; and the inputs.
    pub change: Option<(PreparedRun, serde_json::Value)>,
}

/// The rows that were asked for by [`Effect::LoadRun`].
#[derive(Clone, PartialEq, Debug)]
pub struct LoadedRun {
    /// The run as the database has it.
    pub saved: SavedRun,
    /// Its tasks that have ended, foreach items left out, with their specifications.
    pub tasks: Vec<LoadedTask>,
    /// What it remembers.
    pub memory: Memory,
}

/// What the rows of a run are asked for.
#[derive(Debug)]
pub(super) enum Purpose {
    Again(Again),
    Fork(Fork),
    Upgrade(Box<UpgradeRun>),
}

impl Purpose {
    /// Nodes whose values are needed, beside those that the run's own workflow reads.
    fn also_reads(&self) -> Vec<Box<str>> {
        match self {
            Self::Again(_) | Self::Fork(_) => Vec::new(),
            Self::Upgrade(upgrade) => upgrade.reads(),
        }
    }
}

/// Runs whose rows are on their way, with what is to be done and who waits.
#[derive(Debug, Default)]
pub(crate) struct Rerunning(BTreeMap<RunId, (ReplyTo, Purpose)>);

impl Kernel {
    /// Asks for the rows.
    pub(in crate::kernel) fn on_rerun(&mut self, step: &mut Step, to: ReplyTo, again: Again) {
        let run = again.run;
        self.ask_for_run(step, to, run, Purpose::Again(again));
    }

    pub(super) fn ask_for_run(&mut self, step: &mut Step, to: ReplyTo, run: RunId, purpose: Purpose) {
        let refusal = if run.0 == 0 || run > self.counters.last_run {
            Some(Rejection::UnknownRun(run))
        } else if self.rerunning.0.contains_key(&run) {
            Some(Rejection::Busy)
        } else {
            None
        };
        if let Some(rejection) = refusal {
            step.effects.push(Effect::Reply { to, reply: Err(rejection) });
            return;
        }
        let files = matches!(purpose, Purpose::Fork(_));
        let also = purpose.also_reads();
        self.rerunning.0.insert(run, (to, purpose));
        step.effects.push(Effect::LoadRun { run, files, also });
    }

    pub(in crate::kernel) fn on_run_loaded(
        &mut self,
        step: &mut Step,
        id: RunId,
        loaded: Option<Box<LoadedRun>>,
    ) {
        let Some((to, purpose)) = self.rerunning.0.remove(&id) else { return };
        let reply = match (loaded, purpose) {
            (Some(loaded), Purpose::Again(again)) => {
                self.run_again(step, again, *loaded).map(|()| Answer::Done)
            }
            (Some(loaded), Purpose::Fork(fork)) => self.fork_run(step, fork, *loaded),
            (Some(loaded), Purpose::Upgrade(upgrade)) => self.upgrade_run(step, *upgrade, *loaded),
            (None, _) => Err(Rejection::UnknownRun(id)),
        };
        step.effects.push(Effect::Reply { to, reply });
    }

    fn run_again(&mut self, step: &mut Step, again: Again, loaded: LoadedRun) -> Result<(), Rejection> {
        let id = again.run;
        let LoadedRun { saved, tasks, memory } = loaded;
        let (was_over, birth) = (self.runs.get(id).is_none(), saved.row.birth.clone());
        let mut run = self.take_or_rebuild(id, saved)?;
        match self.rewind_run(step, &mut run, &birth, again, tasks) {
            Ok(()) => {
                step.runs.insert(id);
                self.runs.put_back(run);
                if was_over {
                    self.saved.enter_memory(Owner::Run(id), memory);
                }
                step.urgent = true;
                Ok(())
            }
            Err(rejection) => {
                if !was_over {
                    self.runs.put_back(run);
                }
                Err(rejection)
            }
        }
    }

    /// The run as it is, or as it ended.
    pub(super) fn take_or_rebuild(&mut self, id: RunId, saved: SavedRun) -> Result<Box<Run>, Rejection> {
        match self.runs.take(id) {
            Some(run) => Ok(run),
            // It has ended since its rows were read: they do not say how.
            None if !saved.row.state.status.is_settled() => Err(Rejection::Busy),
            None => Ok(Box::new(self.rebuilt(saved))),
        }
    }

    fn rewind_run(
        &mut self,
        step: &mut Step,
        run: &mut Run,
        birth: &RunBirth,
        again: Again,
        tasks: Vec<LoadedTask>,
    ) -> Result<(), Rejection> {
        let from = run.first_of(&again)?;
        let affected = run.graph.affected(&from, again.only_skipped);
        let is_busy = |node: &&u32| {
            matches!(run.graph.status(**node), NodeStatus::Active | NodeStatus::Open)
                || self.tasks.get(run.task_of(**node)).is_some()
        };
        if let Some(node) = affected.iter().find(is_busy) {
            return Err(Rejection::NodeAtWork(run.name_of(*node).into()));
        }
        self.check_room(affected.len())?;
        if run.parent.is_some() && run.status.is_settled() {
            return Err(Rejection::PartOfRun(run.id));
        }
        let ended: Vec<u32> =
            affected.iter().copied().filter(|node| run.graph.status(*node).status().is_some()).collect();
        let mut rows: BTreeMap<TaskId, LoadedTask> =
            tasks.into_iter().map(|task| (task.row.id, task)).collect();
        let missing = ended.iter().find(|node| !rows.contains_key(&run.task_of(**node)));
        if missing.is_some() {
            // It has ended since its rows were read.
            return Err(Rejection::Busy);
        }
        let mut change = None;
        if let Some((prepared, inputs)) = again.change {
            change = Some(run.take_values(step, birth, prepared, inputs)?);
        }
        run.graph.rewind(&affected);
        if run.status != RunStatus::Paused {
            run.status = RunStatus::Running;
        }
        run.revision += 1;
        run.error = None;
        run.settled_at = None;
        run_event(step, run.id, Happening::RunRerun { revision: run.revision, nodes: run.names(&ended) });
        step.batch.runs.push(RunWrite {
            id: run.id,
            birth: None,
            change: change.map(Box::new),
            state: run.state(),
        });
        for node in ended {
            run.forget(node);
            if let Some(loaded) = rows.remove(&run.task_of(node)) {
                let goes_on = again.continue_from == ContinueFrom::Checkpoint && from.contains(&node);
                self.rewind_task(step, run, node, loaded, goes_on);
            }
        }
        Ok(())
    }

    /// Brings a node's task back to wait for its run.
    pub(super) fn rewind_task(
        &mut self,
        step: &mut Step,
        run: &Run,
        node: u32,
        loaded: LoadedTask,
        goes_on: bool,
    ) {
        let LoadedTask { row, spec, saved, successors } = loaded;
        let (id, state) = (row.id, row.state);
        let task = Task {
            phase: Phase::Settled(state.status),
            created_at: row.created_at,
            ready_at: state.ready_at,
            pending_since: step.now.wall,
            fence: state.fence,
            attempt: state.attempt,
            failures: state.failures,
            lost: state.lost,
            priority: state.priority,
        };
        self.saved.enter(id, saved);
        self.bring_back(step, id, task, &state, &spec);
        self.wait_again(&successors);
        self.runs.set_place(id, Place { run: run.id, node, item: None });
        if !goes_on {
            self.begin_anew(step, id);
            self.forget_all(step, id);
        }
        let rewound = self.command(step, id, Command::Rewind, OutcomeChange::Keep);
        debug_assert!(rewound.is_ok(), "{rewound:?}");
    }
}

impl Run {
    /// The nodes of those names.
    pub(super) fn named(&self, names: &[Box<str>]) -> Result<Vec<u32>, Rejection> {
        let known = self.definition.names();
        let node = |name: &str| known.get(name).copied().ok_or_else(|| Rejection::UnknownNode(name.into()));
        names.iter().map(|name| node(name)).collect()
    }

    /// What runs again by itself, not because of what is before it.
    fn first_of(&self, again: &Again) -> Result<Vec<u32>, Rejection> {
        let mut from = self.named(&again.from)?;
        if from.is_empty() {
            from = self.graph.failed();
        }
        if from.is_empty() {
            return Err(Rejection::NothingFailed(self.id));
        }
        Ok(from)
    }

    /// Whether a workflow with other values has the same nodes.
    pub(super) fn check_same_nodes(&self, prepared: &PreparedRun) -> Result<(), Rejection> {
        let same = |(old, new): (&agentflow_workflow::Node, &agentflow_workflow::Node)| {
            old.name == new.name && old.after == new.after
        };
        let (old, new) = (&self.definition.nodes, &prepared.definition.nodes);
        if old.len() != new.len() || !old.iter().zip(new).all(same) {
            return Err(Rejection::OtherNodes(self.id));
        }
        Ok(())
    }

    /// Other values from now on: another version. The nodes must be the same.
    fn take_values(
        &mut self,
        step: &mut Step,
        birth: &RunBirth,
        prepared: PreparedRun,
        inputs: serde_json::Value,
    ) -> Result<RunChange, Rejection> {
        self.check_same_nodes(&prepared)?;
        if self.version >= limits::VERSIONS {
            return Err(Rejection::Limit { what: "versions of a run", limit: limits::VERSIONS as usize });
        }
        step.batch.definitions.push(DefinitionRow { hash: prepared.hash, body: prepared.body });
        let text: Box<str> = inputs.to_string().into();
        if (prepared.hash, &text) != (birth.definition, &birth.inputs) {
            self.version += 1;
            let row = RunVersionRow {
                run: self.id,
                version: self.version,
                definition: prepared.hash,
                inputs: text.clone(),
                reason: "run again with other values".into(),
                author: "".into(),
                created_at: step.now.wall,
            };
            write_version(step, birth, row);
        }
        let change = RunChange { definition: prepared.hash, inputs: text, layout: None };
        self.scope = Scope::new().vars(&prepared.definition.vars).inputs(&inputs).run(&run_value(
            self.id,
            &prepared.definition.name,
            self.created_at,
        ));
        self.graph.redefine(Arc::clone(&prepared.definition));
        self.definition = prepared.definition;
        self.prepared.clear();
        Ok(change)
    }

    fn names(&self, nodes: &[u32]) -> Vec<Arc<str>> {
        /// Names in one event; the rows say the rest.
        const NAMES: usize = 100;
        nodes.iter().take(NAMES).map(|node| self.name_of(*node).into()).collect()
    }
}
