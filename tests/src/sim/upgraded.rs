//! What an upgrade of a run must come to, worked out apart from the kernel: from what was asked, from
//! the two workflows by the names in them, and from the rows as they stood before.
//!
//! Invariants: a node that is kept keeps its task; what had ended and is not to run again stays as it
//! ended, to the letter; what a worker had finishes as it began, and only an attempt after that does what
//! the new workflow says; what is gone never begins again; nothing at work is lost without a wish.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agentflow_core::batch::{RunChange, RunLayout, Waits};
use agentflow_core::ids::{Fence, RunId, SpecHash, TaskId};
use agentflow_core::run::Numbers;
use agentflow_core::run::mapping::Named;
use agentflow_core::status::Status;
use agentflow_workflow::{Definition, Node};
use serde_json::{Value, json};

use super::nodes::View;
use super::store::{Row, Store};
use super::workflows::Sent;

/// Another workflow that somebody wants for a run.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) definition: Arc<Definition>,
    pub(super) map: Named,
    pub(super) restart_from: Vec<Box<str>>,
    pub(super) restart: bool,
    /// What it was made from.
    pub(super) sent: Option<Sent>,
}

/// What holds of tasks that were there before the last upgrade.
#[derive(Clone, Debug, Default)]
pub(super) struct Earlier {
    /// How many upgrades there were.
    upgrades: u32,
    /// Nodes that had ended, and stay so.
    stay: BTreeMap<TaskId, Row>,
    /// What workers had, and of which specification.
    held: BTreeMap<TaskId, (Fence, SpecHash)>,
    /// The last assignment of each before its new beginning.
    fences: BTreeMap<TaskId, Fence>,
    /// What workers had and was taken from them.
    restarted: Vec<TaskId>,
    /// Nodes that had ended and run again.
    again: BTreeSet<TaskId>,
    /// Nodes that are gone.
    pub(super) removed: BTreeSet<TaskId>,
    /// The workflows before, the newest last.
    workflows: Vec<(Arc<Definition>, Numbers)>,
}

impl Earlier {
    /// The assignment after which a task begins anew.
    pub(super) fn fence(&self, task: TaskId) -> Fence {
        self.fences.get(&task).copied().unwrap_or_default()
    }

    /// Whether a task was there before the last upgrade and had to begin anew.
    pub(super) fn is_known(&self, task: TaskId) -> bool {
        self.fences.contains_key(&task)
    }

    /// Whether a node that had ended may begin again.
    pub(super) fn runs_again(&self, task: TaskId) -> bool {
        self.again.contains(&task)
    }

    pub(super) fn is_version(&self, version: u32) -> bool {
        self.upgrades + 1 == version
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stands {
    Waiting,
    AtWork,
    Stopping,
    Parts,
    Ended(Status),
}

/// Everything about a node that it does: names in the place of numbers.
fn facts(definition: &Definition, node: &Node, name_of: &dyn Fn(&str) -> String) -> Value {
    let name = |place: u32| name_of(&definition.nodes[place as usize].name);
    let extra = node.extra.as_deref().cloned().unwrap_or_default();
    let mut after: Vec<String> =
        node.after.iter().map(|edge| format!("{} {:?}", name(edge.node), edge.on)).collect();
    after.sort();
    json!({
        "body": node.template.map(|place| definition.templates[place as usize].value()),
        "stage": extra.input_from.map(&name),
        "files": extra.files_from.iter().copied().map(&name).collect::<Vec<_>>(),
        "parts": [extra.foreach, extra.collect, serde_json::to_value(&extra.child).unwrap_or_default()],
        "rest": serde_json::to_value(agentflow_workflow::Extra {
            input_from: None,
            files_from: Vec::new(),
            ..extra
        }).unwrap_or_default(),
        "after": after,
    })
}

/// Whether its expressions read variables of the run; those in the workflow of a child read the child's.
fn reads_vars(facts: &Value) -> bool {
    let mut facts = facts.clone();
    facts["parts"][2]["definition"] = Value::Null;
    facts["rest"]["child"]["definition"] = Value::Null;
    facts.to_string().contains("vars.")
}

impl Store {
    fn stands(&self, task: TaskId) -> Stands {
        let Some(row) = self.rows.get(&task) else { return Stands::Waiting };
        match row.state.status {
            status if status.is_settled() => Stands::Ended(status),
            Status::Running if row.state.waits == Some(Waits::Parts) => Stands::Parts,
            _ if row.state.worker.is_some() && row.state.cancelling => Stands::Stopping,
            _ if row.state.worker.is_some() => Stands::AtWork,
            _ => Stands::Waiting,
        }
    }

    /// The workflow of a run is replaced by the batch that is about to be written.
    pub(super) fn upgrade_view(
        &mut self,
        id: RunId,
        version: u32,
        change: &RunChange,
        layout: &RunLayout,
    ) -> Result<(), String> {
        let Some(asked) = self.runs.upgrades.get(&(id, change.definition)) else {
            return Err(format!("nobody asked for another workflow of run {id}"));
        };
        let Some(view) = self.runs.views.get(&id) else { return Err(format!("run {id} is not there")) };
        let mut next =
            self.upgraded(view, asked, &layout.numbers).map_err(|what| format!("run {id}: {what}"))?;
        next.earlier.upgrades += 1;
        if next.earlier.upgrades + 1 != version {
            return Err(format!("run {id}: upgrade {} made version {version}", next.earlier.upgrades));
        }
        if let Some(sent) = &asked.sent {
            self.runs.files.insert(layout.name.clone(), sent.clone());
        }
        for task in &next.earlier.restarted {
            self.history.restart_rounds(*task);
        }
        self.runs.views.insert(id, next);
        if self.runs.cancels.contains(&id) {
            // It had ended by that, and goes on.
            self.runs.cancelled.remove(&id);
            self.runs.revived.insert(id);
        }
        Ok(())
    }

    fn upgraded(&self, view: &View, asked: &Asked, numbers: &Numbers) -> Result<View, String> {
        let (old, new) = (&view.definition, &asked.definition);
        let claimed: Vec<&str> = asked.map.values().flatten().map(|name| &**name).collect();
        // The name that a node had.
        let was = |name: &str| match asked.map.get(name) {
            Some(was) => was.as_deref().map(str::to_owned),
            None if claimed.contains(&name) => None,
            None => Some(name.to_owned()),
        };
        let old_node = |name: &str| was(name).and_then(|was| old.find(&was));
        let as_old = |name: &str| match old_node(name) {
            Some(place) => old.nodes[place as usize].name.to_string(),
            None => format!("+{name}"),
        };
        let mut again: BTreeSet<&str> = asked.restart_from.iter().map(|name| &**name).collect();
        let before = |node: &Node| {
            node.after.iter().map(|edge| &*new.nodes[edge.node as usize].name).collect::<Vec<_>>()
        };
        // As often as anything comes of it.
        while let Some(node) = new
            .nodes
            .iter()
            .find(|node| !again.contains(&*node.name) && before(node).iter().any(|name| again.contains(name)))
        {
            again.insert(&node.name);
        }
        let other_values = old.vars.iter().any(|(name, value)| new.vars.get(name) != Some(value));
        let is_other = |node: &Node| {
            let Some(place) = old_node(&node.name) else { return true };
            let (had, has) =
                (facts(old, &old.nodes[place as usize], &str::to_owned), facts(new, node, &as_old));
            had != has || (other_values && reads_vars(&has))
        };
        let mut open: BTreeSet<&str> = new
            .nodes
            .iter()
            .filter(|node| old_node(&node.name).is_none() || again.contains(&*node.name))
            .map(|node| &*node.name)
            .collect();
        let is_skipped = |node: &Node| {
            let task = old_node(&node.name).map(|place| view.task_of(place));
            task.is_some_and(|task| self.stands(task) == Stands::Ended(Status::Skipped))
        };
        while let Some(node) = new.nodes.iter().find(|node| {
            let name = &*node.name;
            let has_reason = is_other(node) || before(node).iter().any(|name| open.contains(name));
            !open.contains(name) && is_skipped(node) && has_reason
        }) {
            open.insert(&node.name);
        }
        let is_unended = |name: &str| {
            let task = old_node(name).map(|place| view.task_of(place));
            let has_ended = task.is_some_and(|task| matches!(self.stands(task), Stands::Ended(_)));
            !has_ended || open.contains(name)
        };
        let mut next = view.with(new, numbers);
        let earlier = &mut next.earlier;
        earlier.restarted.clear();
        earlier.workflows.push((Arc::clone(old), view.numbers.clone()));
        next.has_failed = false;
        for (place, node) in (0..).zip(&new.nodes) {
            let (task, name) = (numbers.task_of(place), &node.name);
            let Some(was) = old_node(name) else {
                if self.rows.contains_key(&task) || view.node_of(task).is_some() {
                    return Err(format!("'{name}' is new, and task {task} is not"));
                }
                continue;
            };
            if view.task_of(was) != task {
                return Err(format!("'{name}' was task {}, and now is {task}", view.task_of(was)));
            }
            let row = self.rows.get(&task);
            let stands = self.stands(task);
            let has_open = before(node).iter().any(|name| is_unended(name));
            let is_outdated = stands == Stands::AtWork && self.ties.outdated.contains(&task);
            let changed = is_other(node) || has_open || is_outdated;
            let runs_again = again.contains(&**name);
            let same_parts = || {
                let had = facts(old, &old.nodes[was as usize], &str::to_owned);
                let has = facts(new, node, &as_old);
                had["parts"] == has["parts"]
                    && had["after"] == has["after"]
                    && !(other_values && reads_vars(&has))
            };
            match (stands, row) {
                (Stands::Ended(_), Some(row)) if !open.contains(&**name) => {
                    earlier.stay.insert(task, row.clone());
                    continue;
                }
                (Stands::Ended(_), _) => drop(earlier.again.insert(task)),
                (Stands::Parts, _) if runs_again || has_open || !same_parts() => {
                    return Err(format!("'{name}' has parts at work, and is changed"));
                }
                (Stands::AtWork, _) if runs_again && !asked.restart => {
                    return Err(format!("'{name}' is at work, and is to run again"));
                }
                (Stands::Stopping, _) if runs_again || (changed && asked.restart) => {
                    return Err(format!("'{name}' is being stopped, and is to begin anew"));
                }
                (Stands::AtWork, _) if asked.restart && (changed || runs_again) => {
                    earlier.restarted.push(task);
                }
                (Stands::AtWork | Stands::Stopping, Some(row)) => {
                    earlier.held.insert(task, (row.state.fence, row.spec));
                }
                _ => {}
            }
            earlier.stay.remove(&task);
            // What was lost and is what it was may still be found again.
            let goes_on = stands == Stands::Parts || (stands == Stands::Waiting && !changed && !runs_again);
            if let Some(row) = row.filter(|_| !goes_on) {
                earlier.fences.insert(task, row.state.fence);
            }
        }
        for place in view.nodes() {
            let (task, name) = (view.task_of(place), &old.nodes[place as usize].name);
            if numbers.node_of(task).is_some() {
                continue;
            }
            if new.nodes.iter().any(|node| old_node(&node.name) == Some(place)) {
                return Err(format!("task {task}, '{name}', has lost its node"));
            }
            match self.stands(task) {
                Stands::Parts => return Err(format!("'{name}' has parts at work, and is gone")),
                Stands::AtWork if !asked.restart => return Err(format!("'{name}' is at work, and is gone")),
                _ => drop(earlier.removed.insert(task)),
            }
        }
        Ok(next)
    }

    /// Whether what a task is at was begun under an older workflow.
    pub(super) fn is_of_older_version(&self, view: &View, task: TaskId) -> bool {
        let held = view.earlier.held.get(&task);
        held.is_some_and(|(fence, _)| self.history.is_latest(task, *fence))
    }

    /// Whether a task ended as it must, if that was settled before its run was upgraded.
    pub(super) fn check_earlier(&self, view: &View, task: TaskId) -> Option<Result<(), String>> {
        let row = self.rows.get(&task)?;
        if let Some(was) = view.earlier.stay.get(&task) {
            let is_same = (&was.state, &was.outcome, was.spec) == (&row.state, &row.outcome, row.spec);
            return Some(if is_same { Ok(()) } else { Err(format!("it was {was:?}, and is {row:?}")) });
        }
        let (fence, spec) = view.earlier.held.get(&task)?;
        if row.state.fence != *fence {
            return None;
        }
        match row.state.status {
            _ if row.spec == *spec => Some(Ok(())),
            Status::Completed => Some(Err(format!("it began as {spec:?}, and is {row:?}"))),
            // It was to be tried again as something else, and never was.
            _ => None,
        }
    }

    /// Whether an item does what an older workflow says: it has begun under that.
    pub(super) fn is_older_item(&self, view: &View, node: u32, item: (&Value, u32), row: &Row) -> bool {
        let task = view.task_of(node);
        view.earlier.workflows.iter().any(|(definition, numbers)| {
            let older = view.with(definition, numbers);
            let work = older.node_of(task).map(|node| self.work_of(&older, node, Some(item)));
            work.is_some_and(|work| work.is_ok_and(|spec| spec.hash == row.spec))
        })
    }
}
