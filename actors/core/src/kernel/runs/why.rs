//! Why a run does not go on, or what it is at: computed from the state that schedules, so that it cannot
//! disagree.

use super::parts::{Items, Parts};
use super::some_names;
use super::table::Run;
use crate::ids::{RunId, TaskId};
use crate::kernel::Kernel;
use crate::kernel::words::{NodeWhy, RunWhy};
use crate::rejection::Rejection;
use crate::run::{NodeStatus, RunStatus};
use crate::time::Now;
use crate::why::Reason;

/// Nodes and items of one answer: a screen or two; the rest is counted.
const ENTRIES: usize = 100;

/// Names in one reason.
const NAMES: usize = 5;

impl Kernel {
    /// Why a blocked task of a run does not begin.
    pub(in crate::kernel) fn blocked_in_run(&self, id: TaskId) -> Vec<Reason> {
        let Some(place) = self.runs.place(id) else { return Vec::new() };
        let Some(run) = self.runs.get(place.run) else { return Vec::new() };
        run.reasons(place.node)
    }

    /// Why a node does not begin of which nothing has become yet. `None` if the number is no such
    /// node's.
    pub(in crate::kernel) fn why_unwritten(&self, id: TaskId) -> Option<Vec<Reason>> {
        let (run, node) = self.runs.iter().find_map(|run| Some((run, run.node_of(id)?)))?;
        run.graph.status(node).status().is_none().then(|| run.reasons(node))
    }

    /// What each part of a run is at or waits for: first what has begun (nodes, items, the nodes of
    /// children), then what waits for that.
    ///
    /// # Errors
    /// When the run is not live: its row says how it ended.
    pub fn why_run(&self, id: RunId, now: Now) -> Result<RunWhy, Rejection> {
        let run = self.runs.get(id).ok_or(Rejection::UnknownRun(id))?;
        let mut why = RunWhy::default();
        self.why_begun(run, "", now, &mut why);
        self.why_waiting(run, "", now, &mut why);
        Ok(why)
    }

    fn why_begun(&self, run: &Run, before: &str, now: Now, why: &mut RunWhy) {
        let begun = |node: &u32| matches!(run.graph.status(*node), NodeStatus::Active | NodeStatus::Open);
        for node in (0..run.nodes()).filter(begun) {
            let (id, name) = (run.task_of(node), format!("{before}{}", run.name_of(node)));
            match run.parts.get(&node) {
                Some(Parts::Items(items)) => {
                    add(why, &name, id, || vec![items.reason(run)]);
                    for (item, task) in (0_u32..).zip(run.parts[&node].live_items()) {
                        if self.tasks.get(task).is_some() {
                            add(why, &format!("{name}[{item}]"), task, || self.at_work(task, now));
                        }
                    }
                }
                Some(Parts::Child(child)) => {
                    if let Some(child) = self.runs.get(*child) {
                        let name = format!("{name}/");
                        self.why_begun(child, &name, now, why);
                        self.why_waiting(child, &name, now, why);
                    }
                }
                None => add(why, &name, id, || self.at_work(id, now)),
            }
        }
    }

    fn why_waiting(&self, run: &Run, before: &str, now: Now, why: &mut RunWhy) {
        let waits = |node: &u32| {
            let status = run.graph.status(*node);
            !matches!(status, NodeStatus::Active | NodeStatus::Open) && status.status().is_none()
        };
        for node in (0..run.nodes()).filter(waits) {
            if why.nodes.len() == ENTRIES {
                why.more += 1;
                continue;
            }
            let (id, name) = (run.task_of(node), format!("{before}{}", run.name_of(node)));
            // A node whose task is there may wait for a time or an approval.
            add(why, &name, id, || self.why(id, now).map_or_else(|_| run.reasons(node), |why| why.reasons));
        }
    }

    /// What a task that has begun waits for; if it runs, where.
    fn at_work(&self, id: TaskId, now: Now) -> Vec<Reason> {
        let running = self.tasks.get(id).and_then(|entry| entry.task.hold());
        let Some((hold, started_at)) = running.and_then(|hold| Some((hold, hold.started_at?))) else {
            return self.why(id, now).map(|why| why.reasons).unwrap_or_default();
        };
        let worker = self.workers[hold.worker].name.to_string();
        let what = if hold.cancelling { "is being stopped" } else { "runs" };
        let reason = Reason::new("running", format!("it {what} on worker {worker}"), "its end");
        vec![Reason { held_by: vec![worker], since: Some(started_at), ..reason }]
    }
}

fn add(why: &mut RunWhy, name: &str, task: TaskId, reasons: impl FnOnce() -> Vec<Reason>) {
    if why.nodes.len() < ENTRIES {
        why.nodes.push(NodeWhy { name: name.into(), task, reasons: reasons() });
    } else {
        why.more += 1;
    }
}

impl Items {
    /// How far a `foreach` is, and what keeps further items from beginning.
    fn reason(&self, run: &Run) -> Reason {
        let (all, begun, active) = (self.list.len(), self.begun as usize, self.active);
        let rest = all.saturating_sub(begun);
        let limit = match self.limit {
            _ if rest == 0 => String::new(),
            Some(limit) if active >= limit => format!(", max_parallel is {limit}"),
            _ if run.status == RunStatus::Paused => format!(", run {} is paused", run.id),
            _ if !run.graph.has_room() => {
                format!(", max_parallel of the run is {}", run.definition.max_parallel.unwrap_or(0))
            }
            _ => String::new(),
        };
        let what = format!("of {all} items {active} are at work and {rest} have not begun{limit}");
        Reason::new("items", what, "the end of those at work")
    }
}

impl Run {
    /// What a node waits for.
    fn reasons(&self, node: u32) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if self.status == RunStatus::Paused {
            let what = format!("run {} is paused", self.id);
            reasons.push(Reason::new("run_paused", what, "resuming the run"));
        }
        let before: Vec<u32> = self.graph.unended_before(node).collect();
        if !before.is_empty() {
            let names = some_names(before.iter().map(|node| self.name_of(*node)), NAMES);
            let held_by = before.iter().take(NAMES).map(|node| format!("task:{}", self.task_of(*node)));
            let reason = Reason::new("predecessors", format!("it waits for {names}"), "their end");
            reasons.push(Reason { held_by: held_by.collect(), ..reason });
        } else if self.graph.status(node) == NodeStatus::Waiting && !self.graph.has_room() {
            let limit = self.definition.max_parallel.unwrap_or(0);
            let what = format!("max_parallel: {limit} tasks of run {} have begun and not ended", self.id);
            let begun = (0..self.nodes()).filter(|node| self.graph.status(*node) == NodeStatus::Active);
            let held_by = begun.take(NAMES).map(|node| format!("task:{}", self.task_of(node)));
            let reason = Reason::new("max_parallel", what, "the end of one of them");
            reasons.push(Reason { held_by: held_by.collect(), ..reason });
        }
        reasons
    }
}
