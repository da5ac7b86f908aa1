//! Nodes that consist of others: a `foreach` and its items, a child run.
//!
//! The items of one `foreach` are numbered in a row, so that a task's number says which item it is.
//! They begin in order, as many at once as the limits allow.

use std::sync::Arc;

use agentflow_workflow::Rendering;
use serde_json::Value;

use super::collect::{Collected, leaving};
use super::table::{Place, Run, is_json, value_of};
use super::{Ended, NODES_PER_STEP, NewRun, PreparedRun, some_names};
use crate::batch::{Outcome, OutcomeChange};
use crate::ids::{RunId, TaskId};
use crate::kernel::submit::Begin;
use crate::kernel::{Kernel, Step};
use crate::limits;
use crate::run::RunStatus;
use crate::status::Status;
use crate::task::{Command, Phase};

/// Names of failed items in an error.
const NAMES: usize = 5;

/// What a node consists of.
#[derive(Debug)]
pub(crate) enum Parts {
    /// The items of a `foreach`.
    Items(Box<Items>),
    /// A whole workflow.
    Child(RunId),
}

/// The items of a `foreach`.
#[derive(Debug)]
pub(crate) struct Items {
    /// The task number of the first.
    pub(super) first: TaskId,
    pub(super) list: Vec<Value>,
    /// How many have begun.
    pub(super) begun: u32,
    /// How many have begun and not ended.
    pub(super) active: u32,
    pub(super) failed: Vec<u32>,
    pub(super) cancelled: u32,
    /// What is kept of each that has ended well.
    pub(super) collected: Collected,
    pub(super) limit: Option<u32>,
    pub(super) collect: Option<Rendering>,
}

impl Parts {
    /// The tasks of items that may be live.
    pub(super) fn live_items(&self) -> impl Iterator<Item = TaskId> + '_ {
        let range = match self {
            Self::Items(items) => items.first.0..items.first.0 + u64::from(items.begun),
            Self::Child(_) => 0..0,
        };
        range.map(TaskId)
    }
}

impl Parts {
    /// As many at once as the node says now.
    pub(super) fn set_limit(&mut self, limit: Option<u32>) {
        if let Self::Items(items) = self {
            items.limit = limit;
        }
    }

    /// Items that have begun and not ended.
    pub(super) fn active(&self) -> u32 {
        match self {
            Self::Items(items) => items.active,
            Self::Child(_) => 0,
        }
    }
}

impl Items {
    fn count(&self) -> u32 {
        u32::try_from(self.list.len()).unwrap_or(u32::MAX)
    }

    fn is_over(&self, stopping: bool) -> bool {
        self.active == 0 && (stopping || self.begun >= self.count())
    }
}

impl Kernel {
    /// Begins the parts of a node whose own task is there.
    pub(super) fn open_parts(&mut self, step: &mut Step, run: &mut Run, node: u32) {
        let id = run.task_of(node);
        let opened = self.command(step, id, Command::Open, OutcomeChange::Keep);
        debug_assert!(opened.is_ok(), "{opened:?}");
        let begun = if run.extra(node).is_some_and(|extra| extra.child.is_some()) {
            self.begin_child(step, run, node)
        } else {
            self.begin_items(run, node)
        };
        if let Err(error) = begun {
            let done = Command::Conclude { error: Some(error.into()) };
            let done = self.command(step, id, done, OutcomeChange::Keep);
            debug_assert!(done.is_ok(), "{done:?}");
        }
    }

    fn begin_items(&mut self, run: &mut Run, node: u32) -> Result<(), String> {
        let extra = run.extra(node).cloned().unwrap_or_default();
        let foreach = extra.foreach.unwrap_or_default();
        let list = match run.evaluate(node, &foreach).map_err(|error| format!("foreach: {error}"))? {
            Value::Array(list) => list,
            other => {
                let what = type_name(&other);
                let source = foreach.as_str().unwrap_or_default();
                return Err(format!("foreach: needs a list, got {what} in '{source}'"));
            }
        };
        // No items need no room.
        let room = self.settings.live_tasks.saturating_sub(self.tasks.len());
        if list.len() > limits::ITEMS.min(room) {
            return Err(format!("foreach: {} items; at most {}", list.len(), limits::ITEMS.min(room)));
        }
        let collect = extra.collect.as_ref().map(Rendering::new).transpose();
        let first = self.counters.last_task.next();
        self.counters.last_task = TaskId(self.counters.last_task.0 + list.len() as u64);
        let items = Items {
            first,
            begun: 0,
            active: 0,
            failed: Vec::new(),
            cancelled: 0,
            collected: Collected::new(list.len()),
            list,
            limit: extra.max_parallel,
            collect: collect.map_err(|(_, error)| format!("collect: {error}"))?,
        };
        run.parts.insert(node, Parts::Items(Box::new(items)));
        Ok(())
    }

    fn begin_child(&mut self, step: &mut Step, run: &mut Run, node: u32) -> Result<(), String> {
        let Some(child) = run.extra(node).and_then(|extra| extra.child.clone()) else { return Ok(()) };
        let vars = match run.evaluate(node, &child.vars).map_err(|error| format!("workflow.vars: {error}"))? {
            Value::Object(vars) => vars,
            Value::Null => serde_json::Map::new(),
            other => return Err(format!("workflow.vars: needs an object, got {}", type_name(&other))),
        };
        if self.runs.len() >= limits::LIVE_RUNS {
            return Err(format!("there are {} runs already", limits::LIVE_RUNS));
        }
        let inputs = run.inputs_of_child(node)?;
        let definition = child.definition.instantiate(&vars, &inputs).map_err(|error| error.to_string())?;
        let new = NewRun { prepared: PreparedRun::new(definition), inputs };
        let child = self.start_run(step, new, Some(run.task_of(node)));
        run.parts.insert(node, Parts::Child(child));
        Ok(())
    }

    /// Begins as many items as may, and ends those nodes of which all have ended.
    pub(super) fn feed_parts(&mut self, step: &mut Step, run: &mut Run) {
        let nodes: Vec<u32> = run.parts.keys().copied().collect();
        for node in nodes {
            while step.nodes < NODES_PER_STEP && self.begin_item(step, run, node) {
                step.nodes += 1;
            }
            self.end_items(step, run, node);
        }
    }

    /// Whether one more item has begun.
    fn begin_item(&mut self, step: &mut Step, run: &mut Run, node: u32) -> bool {
        let stopping = self.is_stopping(run, node);
        let has_room = run.graph.has_room();
        let Some(Parts::Items(items)) = run.parts.get_mut(&node) else { return false };
        let at_limit = items.limit.is_some_and(|limit| items.active >= limit);
        if stopping || !has_room || at_limit || items.begun >= items.count() {
            return false;
        }
        let index = items.begun;
        items.begun += 1;
        let id = TaskId(items.first.0 + u64::from(index));
        let item = items.list[index as usize].clone();
        items.active += 1;
        run.graph.begin_part();
        let attempt = self.tasks.get(run.task_of(node)).map_or(1, |entry| entry.task.attempt.0);
        let name: Arc<str> = super::restore::item_name(run.name_of(node), index, attempt).into();
        let place = Place { run: run.id, node, item: Some(index) };
        match run.make_task(node, Some((&item, index)), &*self.maker) {
            Ok(task) => self.make_part(step, id, task, Begin::Ready, place, name),
            Err(error) => {
                let task = super::values::milestone(&name);
                self.make_part(step, id, task, Begin::Blocked, place, name);
                let failed = crate::task::TaskEvent::Settled {
                    status: Status::Failed,
                    started_at: None,
                    error: Some(error.into()),
                };
                self.happen(step, id, &failed, OutcomeChange::Keep);
            }
        }
        true
    }

    /// Whether a node's parts are to end.
    fn is_stopping(&self, run: &Run, node: u32) -> bool {
        let own = self.tasks.get(run.task_of(node)).map(|entry| &entry.task.phase);
        run.graph.is_stopping() || matches!(own, Some(Phase::Open(parts)) if parts.cancelling)
    }

    pub(super) fn item_ended(&mut self, step: &mut Step, run: &mut Run, node: u32, item: u32, ended: &Ended) {
        let (scope, definition) = (run.scope.clone(), Arc::clone(&run.definition));
        let name = &definition.nodes[node as usize].name;
        let Some(Parts::Items(items)) = run.parts.get_mut(&node) else { return };
        items.active = items.active.saturating_sub(1);
        items.note_end(name, scope, item, ended.status, &ended.outcome);
        run.graph.end_part();
        if run.definition.fail_fast && ended.status == Status::Failed {
            self.stop_run(step, run, false);
        }
    }

    fn end_items(&mut self, step: &mut Step, run: &mut Run, node: u32) {
        let stopping = self.is_stopping(run, node);
        let Some(Parts::Items(items)) = run.parts.get_mut(&node) else { return };
        if !items.is_over(stopping) {
            return;
        }
        let error = items.error(run.definition.nodes[node as usize].name.as_ref());
        let is_wanted = items.collect.is_some() || run.read.contains(&node);
        let (error, outputs) = match (items.collected.list(), error) {
            (Ok(outputs), error) => (error, Some(outputs)),
            // What nobody asked for is not missing.
            (Err(own), error) => (error.or(is_wanted.then_some(own)), None),
        };
        run.parts.remove(&node);
        let id = run.task_of(node);
        if stopping {
            // Whoever asked for the end of the run asked for this one's too.
            let cancelled = self.command(step, id, Command::Cancel, OutcomeChange::Keep);
            debug_assert!(cancelled.is_ok(), "{cancelled:?}");
        }
        let outcome = leaving(step, outputs);
        let done = self.command(step, id, Command::Conclude { error: error.map(Into::into) }, outcome);
        debug_assert!(done.is_ok(), "{done:?}");
    }

    /// A run that is a node of another has ended.
    pub(super) fn child_ended(&mut self, step: &mut Step, parent: TaskId, child: &Run) {
        let error = match child.status {
            RunStatus::Completed => None,
            RunStatus::Cancelled => Some(Arc::from(format!("run {} was cancelled", child.id))),
            _ => {
                let error = child.error.as_deref().unwrap_or("unknown");
                Some(Arc::from(format!("run {} failed: {error}", child.id)))
            }
        };
        let (outputs, error) = match (child.all_outputs(), error) {
            (Ok(outputs), error) => (outputs, error),
            (Err(own), error) => (None, error.or(self.is_read(parent).then(|| own.into()))),
        };
        let outcome = leaving(step, outputs);
        // The parent may have ended meanwhile, if it was damaged; its child's end is then nobody's.
        let done = self.command(step, parent, Command::Conclude { error }, outcome);
        debug_assert!(done.is_ok(), "{done:?}");
    }
}

impl Kernel {
    /// Whether somebody reads what a node leaves.
    fn is_read(&self, task: TaskId) -> bool {
        let place = self.runs.place(task);
        let run = place.and_then(|place| self.runs.get(place.run).map(|run| (run, place.node)));
        run.is_none_or(|(run, node)| run.read.contains(&node))
    }
}

impl Items {
    /// Keeps how an item ended and what is kept of it.
    pub(super) fn note_end(
        &mut self,
        name: &str,
        scope: agentflow_workflow::Scope,
        item: u32,
        status: Status,
        outcome: &Outcome,
    ) {
        match status {
            Status::Completed => {
                let left = self.text_of(scope, item, outcome);
                self.collected.keep(item, name, left);
            }
            Status::Failed => self.failed.push(item),
            _ => self.cancelled += 1,
        }
    }

    fn text_of(
        &self,
        scope: agentflow_workflow::Scope,
        item: u32,
        outcome: &Outcome,
    ) -> Result<Box<str>, String> {
        let own = value_of(Status::Completed, outcome);
        let Some(collect) = &self.collect else {
            return match own.outputs? {
                Some(outputs) if is_json(outputs) => Ok(outputs.into()),
                _ => Ok(own.result?.map_or(Value::Null, Value::from).to_string().into()),
            };
        };
        let value = self.list.get(item as usize).cloned().unwrap_or_default();
        let scope = scope.item(&value, item).own(&own.view());
        let value = collect.render(&scope).map_err(|(_, error)| error.to_string())?;
        Ok(value.to_string().into())
    }

    fn error(&mut self, name: &str) -> Option<String> {
        if self.failed.is_empty() && self.cancelled == 0 {
            return None;
        }
        self.failed.sort_unstable();
        let failed: Vec<String> =
            self.failed.iter().take(NAMES + 1).map(|item| format!("{name}[{item}]")).collect();
        let names = some_names(failed.iter().map(String::as_str), NAMES);
        Some(if self.failed.is_empty() {
            format!("{} of {} items were cancelled", self.cancelled, self.count())
        } else {
            format!("{} of {} items failed: {names}", self.failed.len(), self.count())
        })
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
