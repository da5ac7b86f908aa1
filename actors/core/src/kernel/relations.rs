//! Plain tasks that wait for others.
//!
//! Only tasks that wait or are waited for have an entry; all others cost nothing. What has ended is
//! known to the database: whoever asks for a relation says how its predecessor ended, if it did.

use std::sync::Arc;

use petgraph::Direction;
use petgraph::algo::astar;
use petgraph::graphmap::DiGraphMap;
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Map, Value};

use super::runs::Ended;
use super::words::PreparedSpec;
use super::{Kernel, Step};
use crate::batch::{LiveRelation, OutcomeChange, RelationKey, RelationRow, SpecChange};
use crate::blob::{InputPart, InputSource, Outputs};
use crate::ids::TaskId;
use crate::limits;
use crate::rejection::Rejection;
use crate::relation::Relation;
use crate::spec::Spec;
use crate::status::Status;
use crate::task::{Command, Phase};
use crate::why::Reason;

/// A task that another is to come after, as the one who asks knows it.
#[derive(Clone, PartialEq, Debug)]
pub struct Predecessor {
    /// Which.
    pub task: TaskId,
    /// How it ended, with its outputs, if the database says that it has.
    pub ended: Option<(Status, Option<Outputs>)>,
}

/// What one of several predecessors leaves to a task that waits.
#[derive(Clone, PartialEq, Debug)]
struct Context {
    from: TaskId,
    outputs: Outputs,
}

impl Context {
    /// As a part of the task's input; `None` if it is no JSON.
    fn part(self) -> Option<InputPart> {
        let source = match self.outputs {
            Outputs::Text(text) => InputSource::Value(serde_json::from_str(&text).ok()?),
            Outputs::Blob(blob) => InputSource::Json(blob),
        };
        Some(InputPart { name: Some(self.from.to_string().into()), source })
    }
}

/// Parts in one object, later ones over earlier ones; `None` unless all of them are here.
fn merged(parts: &[InputPart]) -> Option<Value> {
    let mut input = Map::new();
    for part in parts {
        match &part.source {
            InputSource::Value(Value::Object(object)) => {
                input.extend(object.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
            InputSource::Value(other) => {
                let name = part.name.as_deref().unwrap_or("input");
                input.insert(name.to_owned(), other.clone());
            }
            InputSource::Json(_) | InputSource::Text(_) => return None,
        }
    }
    Some(Value::Object(input))
}

/// How one live task waits for another: which of the relations that order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Waits(u8);

impl Waits {
    fn add(&mut self, relation: Relation) {
        self.0 |= 1 << relation as u8;
    }

    fn has(self, relation: Relation) -> bool {
        self.0 & (1 << relation as u8) != 0
    }

    fn iter(self) -> impl Iterator<Item = Relation> {
        Relation::ALL.into_iter().filter(move |relation| self.has(*relation))
    }
}

/// Who waits for whom.
#[derive(Debug, Default)]
pub(crate) struct Relations {
    /// Live tasks; an edge leads from what comes before to what waits for it.
    graph: DiGraphMap<TaskId, Waits>,
    /// Tasks that wait for `release`.
    held: FxHashSet<TaskId>,
    /// Outputs of `context` predecessors that have ended, by the task that waits.
    context: FxHashMap<TaskId, Vec<Context>>,
}

impl Relations {
    /// Whether the end of a task is of interest to others.
    pub(crate) fn contains(&self, task: TaskId) -> bool {
        self.graph.contains_node(task) || self.held.contains(&task)
    }

    pub(crate) fn is_held(&self, task: TaskId) -> bool {
        self.held.contains(&task)
    }

    /// A task waits for `release`.
    pub(crate) fn hold(&mut self, task: TaskId) {
        self.held.insert(task);
    }

    /// Whether a task waits for `release` or for a predecessor.
    pub(crate) fn waits(&self, task: TaskId) -> bool {
        self.held.contains(&task) || self.before(task).next().is_some()
    }

    fn before(&self, task: TaskId) -> impl Iterator<Item = (TaskId, Waits)> + '_ {
        self.graph.edges_directed(task, Direction::Incoming).map(|(before, _, waits)| (before, *waits))
    }

    fn after(&self, task: TaskId) -> impl Iterator<Item = (TaskId, Waits)> + '_ {
        self.graph.edges_directed(task, Direction::Outgoing).map(|(_, after, waits)| (after, *waits))
    }

    /// The way from one task to another along what waits for what, both ends included.
    fn path(&self, from: TaskId, to: TaskId) -> Option<Vec<TaskId>> {
        if !self.graph.contains_node(from) || !self.graph.contains_node(to) {
            return None;
        }
        astar(&self.graph, from, |task| task == to, |_| 1_u32, |_| 0).map(|(_, path)| path)
    }

    /// The cycle that there would be if what waits for `old` waited for `new`.
    fn cycle_through(&self, old: TaskId, new: TaskId) -> Option<Vec<TaskId>> {
        self.after(old).filter(|(after, _)| *after != new).find_map(|(after, _)| {
            let path = self.path(after, new)?;
            Some(std::iter::once(new).chain(path).collect())
        })
    }

    fn join(&mut self, predecessor: TaskId, successor: TaskId, relation: Relation) {
        match self.graph.edge_weight_mut(predecessor, successor) {
            Some(waits) => waits.add(relation),
            None => {
                let mut waits = Waits::default();
                waits.add(relation);
                self.graph.add_edge(predecessor, successor, waits);
            }
        }
    }

    fn knows(&self, predecessor: TaskId, successor: TaskId, relation: Relation) -> bool {
        self.graph.edge_weight(predecessor, successor).is_some_and(|waits| waits.has(relation))
    }

    /// The task waits for that one no more.
    fn part(&mut self, predecessor: TaskId, successor: TaskId) {
        self.graph.remove_edge(predecessor, successor);
        for task in [predecessor, successor] {
            if self.graph.neighbors(task).next().is_none() && self.before(task).next().is_none() {
                self.graph.remove_node(task);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.graph.node_count() + self.held.len()
    }
}

fn path_text(path: &[TaskId]) -> String {
    path.iter().map(|task| task.to_string()).collect::<Vec<_>>().join(" -> ")
}

impl Kernel {
    /// One task is to come after another.
    pub(super) fn relate(
        &mut self,
        step: &mut Step,
        predecessor: &Predecessor,
        successor: TaskId,
        relation: Relation,
    ) -> Result<(), Rejection> {
        let before = predecessor.task;
        if before == successor {
            return Err(Rejection::Cycle(path_text(&[before, successor])));
        }
        let is_live = self.tasks.get(before).is_some();
        if !is_live && !self.has_ended(predecessor) {
            // It has ended since the asker looked, or is about to run again.
            return Err(Rejection::JustEnded(before));
        }
        let Some(entry) = self.tasks.get(successor) else { return Err(Rejection::HasStarted(successor)) };
        if let Some(place) = self.runs.place(successor) {
            return Err(Rejection::PartOfRun(place.run));
        }
        if self.relations.knows(before, successor, relation) {
            return Ok(());
        }
        if relation == Relation::Parallel {
            let contradiction =
                self.relations.path(before, successor).or_else(|| self.relations.path(successor, before));
            if let Some(path) = contradiction {
                return Err(Rejection::NotParallel(path_text(&path)));
            }
        }
        if relation.orders() {
            let may_wait = !matches!(entry.task.phase, Phase::Assigned(_) | Phase::Open(_) | Phase::Gate);
            if !may_wait {
                return Err(Rejection::HasStarted(successor));
            }
            if let Some(mut path) = self.relations.path(successor, before) {
                path.push(successor);
                return Err(Rejection::Cycle(path_text(&path)));
            }
            if self.relations.len() >= limits::RELATED_TASKS {
                return Err(Rejection::Limit { what: "related tasks", limit: limits::RELATED_TASKS });
            }
        }
        if relation == Relation::Upgrade
            && let Some(cycle) = self.relations.cycle_through(before, successor)
        {
            return Err(Rejection::Cycle(path_text(&cycle)));
        }
        let row = RelationRow { predecessor: before, successor, relation, created_at: step.now.wall };
        step.batch.relations.push(row);
        step.urgent = true;
        if relation == Relation::Upgrade {
            self.supersede(step, before, successor);
        } else if relation.orders() {
            self.wait_for(step, predecessor, successor, relation);
        }
        Ok(())
    }

    /// Whether a task that is not live has ended, for all that is known, and stays so.
    pub(super) fn has_ended(&self, predecessor: &Predecessor) -> bool {
        predecessor.ended.is_some() && !self.is_on_its_way(predecessor.task)
    }

    /// The new task takes the old one's place: what waited for the old one waits for the new one.
    fn supersede(&mut self, step: &mut Step, old: TaskId, new: TaskId) {
        let after: Vec<(TaskId, Waits)> = self.relations.after(old).collect();
        for (successor, waits) in after {
            self.relations.part(old, successor);
            for relation in waits.iter() {
                // The next master must not have it wait for the old one again.
                step.batch.parted.push(RelationKey { predecessor: old, successor, relation });
                if successor == new {
                    continue;
                }
                self.relations.join(new, successor, relation);
                let created_at = step.now.wall;
                let row = RelationRow { predecessor: new, successor, relation, created_at };
                step.batch.relations.push(row);
            }
        }
        // It may have waited for the old one itself.
        self.unblock_if_free(step, new);
        // It may have ended already: then there is nothing to stop.
        let _ended = self.command(step, old, Command::Cancel, OutcomeChange::Keep);
    }

    fn wait_for(
        &mut self,
        step: &mut Step,
        predecessor: &Predecessor,
        successor: TaskId,
        relation: Relation,
    ) {
        if self.tasks.get(predecessor.task).is_some() {
            self.relations.join(predecessor.task, successor, relation);
            let blocked = self.command(step, successor, Command::Block, OutcomeChange::Keep);
            debug_assert!(blocked.is_ok(), "{blocked:?}");
            return;
        }
        let Some((status, outputs)) = &predecessor.ended else { return };
        let mut waits = Waits::default();
        waits.add(relation);
        self.predecessor_ended(step, successor, predecessor.task, waits, *status, outputs.clone());
    }

    /// New tasks may come with relations; they are in the table and blocked.
    pub(super) fn enter_relations(
        &mut self,
        step: &mut Step,
        id: TaskId,
        needs: &[Predecessor],
    ) -> Result<(), Rejection> {
        for predecessor in needs {
            self.relate(step, predecessor, id, Relation::Dependency)?;
            if self.tasks.get(id).is_none() {
                // Skipped at once, because of one that has failed.
                return Ok(());
            }
        }
        self.unblock_if_free(step, id);
        Ok(())
    }

    /// Lets a held task go.
    pub(super) fn release_hold(&mut self, step: &mut Step, id: TaskId) -> Result<(), Rejection> {
        let entry = self.tasks.get(id).ok_or(Rejection::UnknownTask(id))?;
        let (is_blocked, status) = (entry.task.phase == Phase::Blocked, entry.task.status());
        let held = self.relations.held.remove(&id);
        if !held {
            return match is_blocked {
                true => Ok(()),
                false => Err(Rejection::Illegal { status, action: "release", needs: "blocked" }),
            };
        }
        step.urgent = true;
        self.write(step, id, None, OutcomeChange::Keep);
        self.unblock_if_free(step, id);
        Ok(())
    }

    fn unblock_if_free(&mut self, step: &mut Step, id: TaskId) {
        // It may have been skipped in this very step, because of another.
        if self.relations.waits(id) || self.tasks.get(id).is_none() {
            return;
        }
        if let Some(context) = self.relations.context.remove(&id) {
            self.give_context(step, id, context);
        }
        let unblocked = self.command(step, id, Command::Unblock, OutcomeChange::Keep);
        debug_assert!(unblocked.is_ok(), "{unblocked:?}");
    }

    /// Puts the predecessors' outputs into a task's input, over what it has; of equal names the later
    /// task's counts.
    fn give_context(&mut self, step: &mut Step, id: TaskId, mut context: Vec<Context>) {
        let Some(entry) = self.tasks.get(id) else { return };
        let spec = &self.specs.get(entry.spec).spec;
        context.sort_by_key(|context| context.from);
        let mut parts = spec.input_parts.clone();
        let own = spec.input.clone().map(InputSource::Value);
        parts.extend(own.map(|source| InputPart { name: None, source }));
        for part in &mut parts {
            part.name.get_or_insert_with(|| "input".into());
        }
        parts.extend(context.into_iter().filter_map(Context::part));
        let spec = match merged(&parts) {
            Some(input) => Spec { input: Some(input), input_parts: Vec::new(), ..spec.clone() },
            None => Spec { input: None, input_parts: parts, ..spec.clone() },
        };
        self.change_spec(step, id, &Arc::new(PreparedSpec::new(spec)));
    }

    /// Gives a waiting task another specification of the same requirement.
    pub(super) fn change_spec(&mut self, step: &mut Step, id: TaskId, prepared: &Arc<PreparedSpec>) {
        let Some(old) = self.tasks.get(id).map(|entry| entry.spec) else { return };
        let old_hash = self.specs.get(old).hash;
        if old_hash == prepared.hash {
            return;
        }
        let (new, is_new) = self.specs.enter(prepared);
        if is_new {
            step.write_spec(prepared);
        }
        if let Some(entry) = self.tasks.get_mut(id) {
            entry.spec = new;
        }
        self.specs.leave(old);
        self.write(step, id, None, OutcomeChange::Keep);
        if let Some(write) = step.batch.tasks.last_mut() {
            write.spec = Some(SpecChange { old: old_hash, new: prepared.hash });
        }
    }

    /// A task that had ended is to run again: what is still blocked and comes after it waits for its new
    /// end, as it would under the next master.
    pub(super) fn wait_again(&mut self, rows: &[RelationRow]) {
        for RelationRow { predecessor, successor, relation, .. } in rows {
            let is_blocked =
                self.tasks.get(*successor).is_some_and(|entry| entry.task.phase == Phase::Blocked);
            if !is_blocked || !relation.orders() {
                continue;
            }
            self.relations.join(*predecessor, *successor, *relation);
            if let Some(context) = self.relations.context.get_mut(successor) {
                context.retain(|context| context.from != *predecessor);
            }
        }
    }

    /// Tells those who wait for a task that it has ended.
    pub(super) fn release_successors(&mut self, step: &mut Step, ended: &Ended) {
        self.relations.held.remove(&ended.task);
        self.relations.context.remove(&ended.task);
        if !self.relations.graph.contains_node(ended.task) {
            return;
        }
        let before: Vec<TaskId> = self.relations.before(ended.task).map(|(task, _)| task).collect();
        let after: Vec<(TaskId, Waits)> = self.relations.after(ended.task).collect();
        for task in before {
            self.relations.part(task, ended.task);
        }
        for (successor, waits) in after {
            self.relations.part(ended.task, successor);
            let outputs = waits.has(Relation::Context).then(|| ended.outcome.whole_outputs()).flatten();
            self.predecessor_ended(step, successor, ended.task, waits, ended.status, outputs);
        }
    }

    fn predecessor_ended(
        &mut self,
        step: &mut Step,
        successor: TaskId,
        predecessor: TaskId,
        waits: Waits,
        status: Status,
        outputs: Option<Outputs>,
    ) {
        // All relations of the two are looked at before it may go on.
        let needs = waits.has(Relation::Dependency) || waits.has(Relation::Context);
        let bars = needs && status != Status::Completed;
        if bars {
            let cause = format!("task {predecessor}, which it depends on, is {status}");
            // One that was cancelled meanwhile is not skipped as well.
            let _ended =
                self.command(step, successor, Command::Skip { cause: cause.into() }, OutcomeChange::Keep);
            return;
        }
        if waits.has(Relation::Context)
            && let Some(outputs) = outputs
        {
            let context = Context { from: predecessor, outputs };
            self.relations.context.entry(successor).or_default().push(context);
        }
        self.unblock_if_free(step, successor);
    }

    /// Why a blocked plain task waits.
    pub(super) fn blocked_by_relations(&self, id: TaskId) -> Vec<Reason> {
        const NAMES: usize = 10;
        let mut reasons = Vec::new();
        if self.relations.is_held(id) {
            reasons.push(Reason::new("hold", "it was made with hold", "POST /tasks/{id}/release"));
        }
        let before: Vec<(TaskId, Waits)> = self.relations.before(id).collect();
        if !before.is_empty() {
            let name = |(task, waits): &(TaskId, Waits)| {
                let status = self.tasks.get(*task).map_or("settled", |entry| entry.task.status().word());
                let relations: Vec<&str> = waits.iter().map(Relation::word).collect();
                format!("task {task} ({}, {status})", relations.join(" and "))
            };
            let names: Vec<String> = before.iter().take(NAMES).map(name).collect();
            let what = format!("it waits for {} predecessors: {}", before.len(), names.join(", "));
            let held_by = before.iter().take(NAMES).map(|(task, _)| format!("task:{task}")).collect();
            reasons.push(Reason { held_by, ..Reason::new("predecessors", what, "their end") });
        }
        reasons
    }

    /// Brings relations back.
    pub(super) fn restore_relations(&mut self, relations: Vec<LiveRelation>) {
        for LiveRelation { row, ended } in relations {
            if !row.relation.orders() || self.tasks.get(row.successor).is_none() {
                continue;
            }
            match ended {
                None => self.relations.join(row.predecessor, row.successor, row.relation),
                Some((Status::Completed, Some(outputs))) if row.relation == Relation::Context => {
                    let context = self.relations.context.entry(row.successor).or_default();
                    context.push(Context { from: row.predecessor, outputs });
                }
                Some(_) => {}
            }
        }
    }
}
