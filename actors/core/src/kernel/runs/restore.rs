//! A run as it was when the last master ended: from its row, its workflow's text, and the rows of
//! its tasks. Readiness is worked out anew from how nodes ended; nothing of it was written.

use std::collections::BTreeMap;
use std::sync::Arc;

use agentflow_workflow::{Definition, Rendering};
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::Value;

use super::collect::Collected;
use super::parts::{Items, Parts};
use super::table::{Place, Run};
use crate::batch::{RoundRow, RunRow, SettledNode, Stopping, TaskRow, Waits};
use crate::blob::Left;
use crate::ids::{RunId, TaskId};
use crate::kernel::{Kernel, Step};
use crate::run::{Graph, RunStatus};
use crate::status::Status;

/// A run that has not ended, as the database has it.
#[derive(Clone, PartialEq, Debug)]
pub struct SavedRun {
    /// Its row.
    pub row: RunRow,
    /// Its workflow.
    pub definition: Arc<Definition>,
    /// Its tasks that have ended.
    pub settled: Vec<SettledNode>,
    /// The rounds of its loops.
    pub rounds: Vec<RoundRow>,
    /// Tasks of which a worker has an attempt of an older version of the run.
    pub outdated: Vec<TaskId>,
}

impl SavedRun {
    /// Whether some of its values have to be read before it can go on: see [`SavedRun::unread`].
    #[must_use]
    pub fn has_large_values(&self) -> bool {
        self.settled.iter().any(|node| node.outcome.left.is_some())
    }

    /// What expressions may read of what its tasks left elsewhere: those of its workflow, and of the
    /// nodes `also`.
    pub fn unread(&mut self, also: &[Box<str>]) -> impl Iterator<Item = &mut Left> {
        let mut read = super::values::read_nodes(&self.definition);
        let names = self.definition.names();
        read.extend(also.iter().filter_map(|name| names.get(&**name)));
        let is_child = self.row.birth.parent.is_some();
        let read: FxHashSet<TaskId> = self
            .settled
            .iter()
            .filter(|node| match place_of(&names, &node.node.node) {
                Some((index, None)) => is_child || read.contains(&index),
                // Of an item it may be collected.
                Some((_, Some(_))) => true,
                None => false,
            })
            .map(|node| node.task)
            .collect();
        let nodes = self.settled.iter_mut().filter(move |node| read.contains(&node.task));
        nodes.filter_map(|node| node.outcome.left.as_deref_mut())
    }
}

/// A task of a run that has not ended.
#[derive(Clone, Debug)]
pub(in crate::kernel) struct LiveNode {
    task: TaskId,
    node: Arc<str>,
    waits: Option<Waits>,
    is_blocked: bool,
    attempt: u32,
}

impl LiveNode {
    /// What a task's row says of its place in a run.
    pub(in crate::kernel) fn of(row: &TaskRow) -> Option<(RunId, Self)> {
        let run = row.run.as_ref()?;
        let live = Self {
            task: row.id,
            node: Arc::clone(&run.node),
            waits: row.state.waits,
            is_blocked: row.state.status == Status::Blocked,
            attempt: row.state.attempt.0,
        };
        Some((run.run, live))
    }
}

/// What an item of a `foreach` is called: which item, and after a rerun in which attempt of its node.
pub(super) fn item_name(node: &str, item: u32, attempt: u32) -> String {
    match attempt {
        0 | 1 => format!("{node}[{item}]"),
        _ => format!("{node}[{item}]@{attempt}"),
    }
}

/// A node's index, and for an item which it is and in which attempt, by the name in the row.
pub(super) fn place_of(names: &FxHashMap<&str, u32>, name: &str) -> Option<(u32, Option<(u32, u32)>)> {
    if let Some(node) = names.get(name) {
        return Some((*node, None));
    }
    let (name, attempt) = match name.rsplit_once("]@") {
        Some((front, attempt)) => (front, attempt.parse().ok()?),
        None => (name.strip_suffix(']')?, 1),
    };
    let (node, item) = name.rsplit_once('[')?;
    Some((*names.get(node)?, Some((item.parse().ok()?, attempt))))
}

impl Kernel {
    /// Brings the runs back, once their live tasks are there.
    pub(in crate::kernel) fn restore_runs(
        &mut self,
        step: &mut Step,
        runs: Vec<SavedRun>,
        mut live: BTreeMap<RunId, Vec<LiveNode>>,
    ) {
        let children: BTreeMap<TaskId, RunId> =
            runs.iter().filter_map(|saved| Some((saved.row.birth.parent?, saved.row.id))).collect();
        for saved in runs {
            let id = saved.row.id;
            self.restore_run(saved, &live.remove(&id).unwrap_or_default(), &children);
            step.runs.insert(id);
        }
    }

    /// A run that has ended, as it ended.
    pub(super) fn rebuilt(&mut self, saved: SavedRun) -> Run {
        self.assemble(saved, &[], &BTreeMap::new())
    }

    fn restore_run(&mut self, saved: SavedRun, live: &[LiveNode], children: &BTreeMap<TaskId, RunId>) {
        let run = self.assemble(saved, live, children);
        self.runs.insert(run);
    }

    fn assemble(&mut self, saved: SavedRun, live: &[LiveNode], children: &BTreeMap<TaskId, RunId>) -> Run {
        let SavedRun { row, definition, settled, rounds, outdated } = saved;
        let inputs = serde_json::from_str(&row.birth.inputs).unwrap_or_default();
        let mut run = Run::new(row.id, Arc::clone(&definition), inputs, &row.birth);
        run.status = row.state.status;
        run.revision = row.state.revision;
        run.version = row.state.version;
        run.numbers = row.numbers;
        let names = definition.names();
        let mut ended = Vec::new();
        let room = self.runs.room_for_values();
        let mut items: BTreeMap<(u32, u32), Vec<(u32, &SettledNode)>> = BTreeMap::new();
        for node in &settled {
            match place_of(&names, &node.node.node) {
                Some((index, None)) => {
                    ended.push((index, node.status));
                    let room = room.saturating_sub(run.held);
                    run.keep_value(index, node.status, node.outcome.clone(), room);
                }
                Some((index, Some((item, round)))) => {
                    items.entry((index, round)).or_default().push((item, node));
                }
                None => {}
            }
        }
        let (mut active, mut open) = (Vec::new(), Vec::new());
        let mut live_items: BTreeMap<(u32, u32), Vec<(u32, TaskId)>> = BTreeMap::new();
        for node in live {
            let Some((index, item)) = place_of(&names, &node.node) else { continue };
            let place = Place { run: row.id, node: index, item: item.map(|(item, _)| item) };
            self.runs.set_place(node.task, place);
            match (item, node.waits) {
                (Some((item, round)), _) => {
                    live_items.entry((index, round)).or_default().push((item, node.task));
                }
                (None, Some(Waits::Approval | Waits::Parts)) => open.push((index, node.attempt)),
                (None, Some(Waits::Room)) => self.runs.approve(node.task),
                // The graph begins it when it may.
                (None, _) if node.is_blocked => {}
                (None, _) => active.push(index),
            }
        }
        for RoundRow { task, round } in rounds {
            if let (Some(round), Some(node)) = (round, run.node_of(task)) {
                run.rounds.insert(node, round);
            }
        }
        for task in outdated {
            if self.tasks.get(task).is_some_and(|entry| entry.task.hold().is_some()) {
                self.runs.set_outdated(task);
            }
        }
        run.graph = Graph::restore(Arc::clone(&definition), ended.into_iter(), active.into_iter());
        for (node, round) in open {
            run.graph.open(node);
            let task = run.task_of(node);
            if let Some(child) = children.get(&task) {
                run.parts.insert(node, Parts::Child(*child));
            } else if run.extra(node).is_some_and(|extra| extra.foreach.is_some()) {
                let settled = items.remove(&(node, round)).unwrap_or_default();
                let live = live_items.remove(&(node, round)).unwrap_or_default();
                self.restore_items(&mut run, node, &settled, &live);
            }
        }
        if run.status == RunStatus::Paused {
            run.graph.pause();
        }
        if let Some(stopping) = row.state.stopping {
            run.graph.stop(stopping == Stopping::Asked);
        }
        run
    }

    fn restore_items(
        &mut self,
        run: &mut Run,
        node: u32,
        settled: &[(u32, &SettledNode)],
        live: &[(u32, TaskId)],
    ) {
        let is_gate = self
            .tasks
            .get(run.task_of(node))
            .is_some_and(|entry| entry.task.phase == crate::task::Phase::Gate);
        if is_gate {
            return;
        }
        let Some(extra) = run.extra(node).cloned() else { return };
        // The same values as then give the same list.
        let list = match run.evaluate(node, &extra.foreach.unwrap_or_default()) {
            Ok(Value::Array(list)) => list,
            _ => Vec::new(),
        };
        let first = settled
            .iter()
            .map(|(item, node)| (*item, node.task))
            .chain(live.iter().copied())
            .map(|(item, task)| TaskId(task.0.saturating_sub(u64::from(item))))
            .next();
        let first = first.unwrap_or_else(|| {
            let first = self.counters.last_task.next();
            self.counters.last_task = TaskId(self.counters.last_task.0 + list.len() as u64);
            first
        });
        let begun = settled.iter().map(|(item, _)| *item).chain(live.iter().map(|(item, _)| *item)).max();
        let mut items = Items {
            first,
            begun: begun.map_or(0, |item| item + 1),
            active: u32::try_from(live.len()).unwrap_or(u32::MAX),
            failed: Vec::new(),
            cancelled: 0,
            collected: Collected::new(list.len()),
            list,
            limit: extra.max_parallel,
            collect: extra.collect.as_ref().and_then(|collect| Rendering::new(collect).ok()),
        };
        for (item, ended) in settled {
            items.note_end(run.name_of(node), run.scope.clone(), *item, ended.status, &ended.outcome);
        }
        for _ in live {
            run.graph.begin_part();
        }
        run.parts.insert(node, Parts::Items(Box::new(items)));
    }
}
