//! A new run that begins where another one was: what completed there and does not come after the named
//! nodes is taken over as it ended, everything else runs.
//!
//! The other run stays as it is, whether it has ended or not. What was taken over are tasks of the new
//! run, settled when they are made; the files and large values that they name are kept once.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::rerun::LoadedRun;
use super::table::{Place, Run};
use super::{NewRun, PreparedRun};
use crate::batch::{OutcomeChange, RunNode, SettledNode};
use crate::ids::{ReplyTo, RunId, TaskId};
use crate::kernel::submit::{Begin, Origin};
use crate::kernel::words::{Answer, LoadedTask, NewTask};
use crate::kernel::{Kernel, Step};
use crate::rejection::Rejection;
use crate::status::Status;
use crate::task::TaskEvent;

/// Where a new run begins.
#[derive(Clone, PartialEq, Debug)]
pub struct Fork {
    /// Of which run.
    pub run: RunId,
    /// Names of nodes that run again, with everything after them; what failed or was cancelled does in
    /// any case.
    pub from: Vec<Box<str>>,
    /// Other values, if any: the workflow with them in it, of the same nodes; and the inputs.
    pub change: Option<(PreparedRun, serde_json::Value)>,
}

impl Kernel {
    /// Asks for the rows.
    pub(in crate::kernel) fn on_fork(&mut self, step: &mut Step, to: ReplyTo, fork: Fork) {
        let run = fork.run;
        self.ask_for_run(step, to, run, super::rerun::Purpose::Fork(fork));
    }

    /// Makes the new run of the old one's rows.
    pub(super) fn fork_run(
        &mut self,
        step: &mut Step,
        fork: Fork,
        loaded: LoadedRun,
    ) -> Result<Answer, Rejection> {
        let LoadedRun { saved, tasks, .. } = loaded;
        let (old, definition) = (saved.row.birth.clone(), Arc::clone(&saved.definition));
        let settled: BTreeMap<TaskId, SettledNode> =
            saved.settled.iter().map(|node| (node.task, node.clone())).collect();
        let old_run = self.rebuilt(saved);
        let again = old_run.again_from(&fork.from, &settled)?;
        self.check_room(definition.nodes.len())?;
        let (prepared, inputs) = match fork.change {
            Some((prepared, inputs)) => {
                old_run.check_same_nodes(&prepared)?;
                (prepared, inputs)
            }
            None => {
                let inputs = serde_json::from_str(&old.inputs).unwrap_or_default();
                (PreparedRun::new((*definition).clone()), inputs)
            }
        };
        let id = self.begin_run(step, NewRun { prepared, inputs }, None, Some(fork.run));
        let mut specs: BTreeMap<TaskId, LoadedTask> =
            tasks.into_iter().map(|task| (task.row.id, task)).collect();
        for node in (0..old_run.nodes()).filter(|node| again.binary_search(node).is_err()) {
            let task = old_run.task_of(node);
            if let Some(ended) = settled.get(&task).filter(|ended| ended.status == Status::Completed)
                && let Some(loaded) = specs.remove(&task)
            {
                self.take_over(step, id, node, ended, &loaded);
            }
        }
        step.urgent = true;
        Ok(Answer::RunStarted { run: id, replayed: false })
    }

    /// Makes a task of the new run that has ended as it did in the old one.
    fn take_over(
        &mut self,
        step: &mut Step,
        run: RunId,
        node: u32,
        ended: &SettledNode,
        loaded: &LoadedTask,
    ) {
        let Some(id) = self.runs.get(run).map(|run| run.task_of(node)) else { return };
        let task = NewTask {
            title: ended.node.node.as_ref().into(),
            group: Arc::clone(&loaded.row.state.group),
            priority: loaded.row.state.priority,
            spec: Arc::clone(&loaded.spec),
            not_before: None,
            hold: false,
            needs: Vec::new(),
        };
        self.runs.set_place(id, Place { run, node, item: None });
        let class = self.enter_class_of(step, &task);
        let origin = Origin { id, run: Some(RunNode { run, node: Arc::clone(&ended.node.node) }) };
        self.create(step, task, class, origin, Begin::Blocked);
        let done = TaskEvent::Settled { status: ended.status, started_at: None, error: None };
        self.happen(step, id, &done, OutcomeChange::Set(Box::new(ended.outcome.clone())));
    }
}

impl Run {
    /// What runs again in a fork, by node: what is named, what failed or was cancelled, and everything
    /// after that. Also a `foreach` whose items left files: they are found by their own tasks, which are
    /// not taken over.
    fn again_from(
        &self,
        names: &[Box<str>],
        settled: &BTreeMap<TaskId, SettledNode>,
    ) -> Result<Vec<u32>, Rejection> {
        let mut from = self.named(names)?;
        from.extend(self.graph.failed());
        if from.is_empty() {
            return Err(Rejection::NothingFailed(self.id));
        }
        let known = self.definition.names();
        from.extend(settled.values().filter_map(|ended| {
            let (node, _) = ended.node.node.split_once('[')?;
            let has_files = ended.outcome.left.as_ref().is_some_and(|left| !left.artifacts.is_empty());
            has_files.then(|| known.get(node).copied()).flatten()
        }));
        Ok(self.graph.affected(&from, false))
    }
}
