//! A run gets another workflow while it runs, or after it has ended.
//!
//! ```text
//! Request::UpgradeRun ──► Effect::LoadRun ──► Input::RunLoaded ──► Mapping ──► another Run ──► advance
//! ```
//!
//! [`Mapping`] says what becomes of each node; here it is done to tasks and rows. A node that is kept
//! keeps its task and its number, so that its history, its checkpoints and whoever waits for it stay
//! with it; its row only learns another name. A node that is gone leaves its task in the run's history,
//! under a name that no node can have.

mod carry;

use std::collections::BTreeMap;
use std::sync::Arc;

use agentflow_workflow::Definition;
use serde_json::Value;

use super::rerun::{LoadedRun, Purpose};
use super::table::Run;
use super::{PreparedRun, run_event};
use crate::batch::{DefinitionRow, RunBirth, RunChange, RunLayout, RunVersionRow, RunWrite, SettledNode};
use crate::event::Happening;
use crate::ids::{ReplyTo, RunId, TaskId};
use crate::kernel::words::{Answer, LoadedTask};
use crate::kernel::{Kernel, Step};
use crate::limits;
use crate::memory::Owner;
use crate::rejection::Rejection;
use crate::run::mapping::{Change, Fate, Mapping, Named, Standing, Wish};
use crate::run::{NodeStatus, RunStatus};

/// Another workflow for a run.
#[derive(Clone, PartialEq, Debug)]
pub struct UpgradeRun {
    /// Which run.
    pub run: RunId,
    /// The version that it has, and that the new one follows.
    pub from: u32,
    /// The workflow.
    pub prepared: PreparedRun,
    /// What expressions see as `inputs` from now on.
    pub inputs: Value,
    /// Which new node is which old one, where their names do not say so.
    pub map: Named,
    /// Names of new nodes that run again with everything after them.
    pub restart_from: Vec<Box<str>>,
    /// Whether what is at work on something else begins anew, or is stopped if it is no longer there.
    pub restart: bool,
    /// Why.
    pub reason: Arc<str>,
    /// Who.
    pub author: Arc<str>,
}

impl UpgradeRun {
    /// The run's nodes of which the new workflow reads what they left.
    pub(super) fn reads(&self) -> Vec<Box<str>> {
        let definition = &self.prepared.definition;
        let old_name = |node: u32| {
            let name = &definition.nodes[node as usize].name;
            self.map.get(name).map_or_else(|| Some(name.clone()), Clone::clone)
        };
        super::values::read_nodes(definition).into_iter().filter_map(old_name).collect()
    }
}

/// What the rows of a run say that is not in memory.
struct Rows {
    /// As the run was written last.
    birth: RunBirth,
    settled: BTreeMap<TaskId, SettledNode>,
    /// Its ended nodes.
    tasks: BTreeMap<TaskId, LoadedTask>,
}

impl Kernel {
    /// Asks for the rows.
    pub(in crate::kernel) fn on_upgrade_run(&mut self, step: &mut Step, to: ReplyTo, upgrade: UpgradeRun) {
        let run = upgrade.run;
        self.ask_for_run(step, to, run, Purpose::Upgrade(Box::new(upgrade)));
    }

    /// Gives the run its new workflow.
    pub(super) fn upgrade_run(
        &mut self,
        step: &mut Step,
        upgrade: UpgradeRun,
        loaded: LoadedRun,
    ) -> Result<Answer, Rejection> {
        let id = upgrade.run;
        let LoadedRun { saved, tasks, memory } = loaded;
        let rows = Rows {
            birth: saved.row.birth.clone(),
            settled: saved.settled.iter().map(|node| (node.task, node.clone())).collect(),
            tasks: tasks.into_iter().map(|task| (task.row.id, task)).collect(),
        };
        let was_over = self.runs.get(id).is_none();
        let old = self.take_or_rebuild(id, saved)?;
        match self.check_upgrade(&old, &upgrade, &rows) {
            Ok(mapping) => {
                let version = self.make_version(step, old, upgrade, &mapping, rows);
                if was_over {
                    self.saved.enter_memory(Owner::Run(id), memory);
                }
                Ok(Answer::Upgraded { version })
            }
            Err(rejection) => {
                if !was_over {
                    self.runs.put_back(old);
                }
                Err(rejection)
            }
        }
    }

    /// What becomes of each node, if it may be. Changes nothing.
    fn check_upgrade(&self, run: &Run, upgrade: &UpgradeRun, rows: &Rows) -> Result<Mapping, Rejection> {
        if run.version != upgrade.from {
            return Err(Rejection::OtherVersion { expected: upgrade.from, current: run.version });
        }
        if run.version >= limits::VERSIONS {
            return Err(Rejection::Limit { what: "versions of a run", limit: limits::VERSIONS as usize });
        }
        if run.graph.is_stopping() {
            let needs = "one that is not being stopped";
            return Err(Rejection::IllegalRun { status: run.status, action: "an upgrade", needs });
        }
        if run.parent.is_some() && run.status.is_settled() {
            return Err(Rejection::PartOfRun(run.id));
        }
        let new = &*upgrade.prepared.definition;
        self.check_room(new.nodes.len())?;
        let old_inputs = serde_json::from_str(&rows.birth.inputs).unwrap_or_default();
        let change =
            Change { old: &run.definition, old_inputs: &old_inputs, new, new_inputs: &upgrade.inputs };
        let wish = Wish { restart_from: &upgrade.restart_from, restart: upgrade.restart };
        let mapping = Mapping::new(change, &upgrade.map, wish, |node| self.standing(run, node))?;
        if let Some(name) = mapping.refused(&run.definition, new).next() {
            return Err(Rejection::OtherWork(name.into()));
        }
        if run.status.is_settled() && !mapping.has_work() {
            return Err(Rejection::NothingToRun(run.id));
        }
        self.check_rows(run, new, &mapping, rows)?;
        Ok(mapping)
    }

    fn standing(&self, run: &Run, node: u32) -> Standing {
        match run.graph.status(node) {
            NodeStatus::Open if run.parts.contains_key(&node) => Standing::Parts,
            NodeStatus::Waiting | NodeStatus::Open => Standing::Waiting,
            NodeStatus::Active => {
                match self.tasks.get(run.task_of(node)).and_then(|entry| entry.task.hold()) {
                    Some(hold) if hold.cancelling => Standing::Stopping,
                    Some(_) if self.runs.is_outdated(run.task_of(node)) => Standing::Outdated,
                    Some(_) => Standing::AtWork,
                    None => Standing::Waiting,
                }
            }
            ended => ended.status().map_or(Standing::Waiting, Standing::Ended),
        }
    }

    /// What has ended since the rows were read may be missing in them.
    fn check_rows(
        &self,
        run: &Run,
        new: &Definition,
        mapping: &Mapping,
        rows: &Rows,
    ) -> Result<(), Rejection> {
        let read = super::values::read_nodes(new);
        for (node, mapped) in (0..).zip(&mapping.nodes) {
            let Some(old) = mapped.old else { continue };
            let task = run.task_of(old);
            let is_there = match mapped.fate {
                Fate::Again => rows.tasks.contains_key(&task),
                Fate::Kept => {
                    let has_value = run.kept.contains_key(&old) || rows.settled.contains_key(&task);
                    let keeps_name = *new.nodes[node as usize].name == *run.name_of(old);
                    // Its items are known by its row only.
                    (has_value || !read.contains(&node)) && (keeps_name || rows.settled.contains_key(&task))
                }
                _ => true,
            };
            if !is_there {
                return Err(Rejection::Busy);
            }
        }
        let is_missing = |old: &u32| {
            let has_ended = run.graph.status(*old).status().is_some();
            has_ended && !rows.settled.contains_key(&run.task_of(*old))
        };
        if mapping.removed.iter().any(|(old, _)| is_missing(old)) {
            return Err(Rejection::Busy);
        }
        Ok(())
    }

    /// Puts the new version in the place of the old one; nothing can go wrong any more.
    fn make_version(
        &mut self,
        step: &mut Step,
        old: Box<Run>,
        upgrade: UpgradeRun,
        mapping: &Mapping,
        rows: Rows,
    ) -> u32 {
        let (id, version) = (upgrade.run, upgrade.from + 1);
        let PreparedRun { hash, body, definition } = upgrade.prepared;
        let inputs: Box<str> = upgrade.inputs.to_string().into();
        step.batch.definitions.push(DefinitionRow { hash, body });
        let (reason, created_at) = (Arc::clone(&upgrade.reason), step.now.wall);
        let author = upgrade.author;
        let row = RunVersionRow {
            run: id,
            version,
            definition: hash,
            inputs: inputs.clone(),
            reason,
            author,
            created_at,
        };
        write_version(step, &rows.birth, row);
        let birth = RunBirth {
            definition: hash,
            name: definition.name.clone(),
            mode: definition.mode.as_str(),
            nodes: u32::try_from(definition.nodes.len()).unwrap_or(u32::MAX),
            inputs: inputs.clone(),
            ..rows.birth.clone()
        };
        let mut run = Box::new(Run::new(id, definition, upgrade.inputs, &birth));
        run.version = version;
        run.revision = old.revision;
        run.status = if old.status.is_settled() { RunStatus::Running } else { old.status };
        run_event(step, id, Happening::RunUpgraded { version, reason: upgrade.reason });
        self.carry_over(step, *old, &mut run, mapping, rows);
        let layout = RunLayout { name: birth.name, mode: birth.mode, numbers: run.numbers.clone() };
        let change = RunChange { definition: hash, inputs, layout: Some(layout) };
        let (change, state) = (Some(Box::new(change)), run.state());
        step.batch.runs.push(RunWrite { id, birth: None, change, state });
        self.runs.put_back(run);
        step.runs.insert(id);
        step.urgent = true;
        version
    }
}

/// Has a version written; with the second also the first, which the run was until then.
pub(super) fn write_version(step: &mut Step, before: &RunBirth, row: RunVersionRow) {
    if row.version == 2 {
        step.batch.run_versions.push(RunVersionRow {
            version: 1,
            definition: before.definition,
            inputs: before.inputs.clone(),
            reason: "".into(),
            author: "".into(),
            created_at: before.created_at,
            ..row.clone()
        });
    }
    step.batch.run_versions.push(row);
}
