//! How a run must have ended: worked out naively, from the workflow as the client sent it and from the
//! recorded ends of those nodes that ran.
//!
//! Nothing here remembers anything: every question is answered from the whole graph again. Expressions
//! are evaluated by the same engine, over values that are gathered here from the rows.

use agentflow_core::batch::RunRow;
use agentflow_core::ids::TaskId;
use agentflow_core::run::RunStatus;
use agentflow_core::status::Status;
use agentflow_workflow::{Definition, Extra, On, References, Rendering, Scope, TaskValue, TaskView};
use serde_json::{Map, Value, json};

use super::nodes::View;
use super::store::Store;
use super::values::text_of;

/// What the ends of the nodes before it make of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It may run, if its own condition holds.
    Begin,
    /// It is skipped, and what needs it may go on.
    Skip,
    /// It is skipped because of a failure, and so is what needs it.
    Bar,
}

impl Store {
    /// What becomes of a node before which everything has ended.
    pub(super) fn verdict(&self, view: &View, node: u32) -> Verdict {
        let after = &view.definition.nodes[node as usize].after;
        let ends = |wanted: On| {
            after.iter().filter(move |edge| edge.on == wanted).map(|edge| self.end_of(view, edge.node))
        };
        if after.iter().any(|edge| matches!(edge.on, On::Success | On::Order) && self.bars(view, edge.node)) {
            return Verdict::Bar;
        }
        let waits_for_failure = ends(On::Failure).next().is_some();
        if waits_for_failure && !ends(On::Failure).any(|end| end == Some(Status::Failed)) {
            return Verdict::Skip;
        }
        let needs_some = ends(On::Success).next().is_some();
        if needs_some && ends(On::Success).all(|end| end == Some(Status::Skipped)) {
            return Verdict::Skip;
        }
        Verdict::Begin
    }

    /// Whether a node keeps what needs it from running.
    fn bars(&self, view: &View, node: u32) -> bool {
        match self.end_of(view, node) {
            Some(Status::Failed | Status::Cancelled) => true,
            Some(Status::Skipped) => self.verdict(view, node) == Verdict::Bar,
            _ => false,
        }
    }

    /// What is known of a node.
    fn value_of(&self, view: &View, node: u32) -> TaskView {
        let row = self.rows.get(&view.task_of(node));
        let row = row.filter(|row| row.state.status.is_settled());
        TaskValue {
            status: row.map_or("pending", |row| row.state.status.word()),
            outputs: Ok(row.and_then(text_of)),
            result: Ok(row.and_then(|row| row.outcome.result.as_deref())),
        }
        .view()
    }

    /// What the expressions of a node see.
    pub(super) fn scope(&self, view: &View, node: u32, references: &References) -> Scope {
        let mut scope = Scope::new().vars(&view.definition.vars);
        if let Some(row) = self.ties.runs.get(&view.id) {
            let inputs: Value = serde_json::from_str(&row.birth.inputs).unwrap_or_default();
            let created_at = row.birth.created_at.0;
            let run = json!({"id": view.id.0, "name": &*view.definition.name, "created_at": created_at});
            scope = scope.inputs(&inputs).run(&run);
        }
        for name in &references.tasks {
            if let Some(before) = view.definition.find(&view.definition.name_for(node, name)) {
                scope = scope.task(name, &self.value_of(view, before));
            }
        }
        let Some(extra) = extra(view, node) else { return scope };
        if let Some(item) = &extra.item {
            scope = scope.item(item, extra.index.unwrap_or(0));
        }
        if extra.repeat.is_some() {
            let rounds = self.history.get(view.task_of(node)).map_or(0, |fold| fold.rounds);
            scope = scope.iteration(rounds + 1);
        }
        scope
    }

    /// A value of a node with its expressions evaluated.
    pub(super) fn render(
        &self,
        view: &View,
        node: u32,
        value: &Value,
        with: impl FnOnce(Scope) -> Scope,
    ) -> Result<Value, String> {
        let rendering = Rendering::new(value).map_err(|(at, error)| format!("{at}: {error}"))?;
        let scope = with(self.scope(view, node, rendering.references()));
        rendering.render(&scope).map_err(|(at, error)| format!("{at}: {error}"))
    }

    /// What a child run must do, by its parent's node.
    pub(super) fn child_definition(&self, parent: TaskId) -> Result<Definition, String> {
        let place = self.rows.get(&parent).and_then(|row| row.run.as_ref());
        let view = place.and_then(|place| self.runs.views.get(&place.run));
        let node = view.and_then(|view| view.node_of(parent));
        let (Some(view), Some(node)) = (view, node) else { return Err(format!("task {parent} is no node")) };
        let Some(child) = extra(view, node).and_then(|extra| extra.child.as_ref()) else {
            return Err(format!("task {parent} has no child"));
        };
        let vars = match self.render(view, node, &child.vars, |scope| scope)? {
            Value::Object(vars) => vars,
            Value::Null => Map::new(),
            other => return Err(format!("{other} is no map")),
        };
        let definition = (*child.definition).clone();
        definition.instantiate(&vars, &Value::Null).map_err(|error| error.to_string())
    }

    /// Everything about a run that has ended.
    pub(super) fn check_outcome(&self, view: &View, row: &RunRow) -> Result<(), String> {
        for task in self.ties.parts(view.id) {
            let is_gone = view.earlier.removed.contains(task);
            if let Some(part) = self.rows.get(task).filter(|row| !is_gone && !row.state.status.is_settled()) {
                return Err(format!("run {} has ended, task {task} has not: {:?}", view.id, part.state));
            }
        }
        let is_stopped = self.is_stopped(view, row);
        for node in view.nodes() {
            let name = &view.definition.nodes[node as usize].name;
            let Some(end) = self.end_of(view, node) else {
                return Err(format!("run {} has ended, '{name}' has not", view.id));
            };
            self.check_node(view, node, end, is_stopped).map_err(|what| {
                let task = view.task_of(node);
                format!("run {}, '{name}' (task {task}) is {end}: {what}", view.id)
            })?;
        }
        let expected = self.ends_of(view, row);
        if expected.contains(&row.state.status) {
            return Ok(());
        }
        let ends: Vec<_> = view.nodes().map(|node| self.end_of(view, node)).collect();
        Err(format!("run {} is {}, not {expected:?}: {ends:?}", view.id, row.state.status))
    }

    /// Whether something told the run to stop before its time.
    fn is_stopped(&self, view: &View, row: &RunRow) -> bool {
        let has_failed = self
            .ties
            .parts(view.id)
            .iter()
            .any(|task| self.rows.get(task).is_some_and(|row| row.state.status == Status::Failed));
        self.runs.cancels.contains(&view.id)
            || view.definition.fail_fast && has_failed
            || self.is_stopped_from_above(row)
    }

    /// Whether the node that the run is was told to stop.
    fn is_stopped_from_above(&self, row: &RunRow) -> bool {
        let parent = row.birth.parent.and_then(|parent| self.history.get(parent));
        parent.is_some_and(|fold| fold.is_cancelled)
    }

    /// How the run may have ended.
    fn ends_of(&self, view: &View, row: &RunRow) -> Vec<RunStatus> {
        let handled = |failed: u32| {
            let handles = |node: u32| {
                let after = &view.definition.nodes[node as usize].after;
                after.iter().any(|edge| edge.node == failed && edge.on == On::Failure)
                    && self.end_of(view, node) == Some(Status::Completed)
            };
            view.nodes().any(handles)
        };
        let is_bad = |node: u32| match self.end_of(view, node) {
            Some(Status::Failed) => !handled(node),
            Some(Status::Cancelled) => true,
            _ => false,
        };
        if !view.nodes().any(is_bad) {
            return vec![RunStatus::Completed];
        }
        if self.runs.cancelled.contains(&view.id) {
            return vec![RunStatus::Cancelled];
        }
        if self.runs.cancels.contains(&view.id) || self.is_stopped_from_above(row) {
            return vec![RunStatus::Failed, RunStatus::Cancelled];
        }
        vec![RunStatus::Failed]
    }

    /// Whether a node may have ended so.
    fn check_node(&self, view: &View, node: u32, end: Status, is_stopped: bool) -> Result<(), String> {
        let Some(fold) = self.history.get(view.task_of(node)) else { return Err("it has no events".into()) };
        if let Some(verdict) = self.check_earlier(view, view.task_of(node)) {
            return verdict;
        }
        let never_began = fold.fence <= view.earlier.fence(view.task_of(node));
        // It may have been there already when its run was upgraded, for people to cancel.
        let may_stop = is_stopped || view.earlier.is_known(view.task_of(node));
        if end == Status::Cancelled && never_began && may_stop {
            return Ok(());
        }
        let verdict = self.verdict(view, node);
        if verdict != Verdict::Begin {
            let fits = end == Status::Skipped && never_began;
            return if fits { Ok(()) } else { Err(format!("what is before it says {verdict:?}")) };
        }
        let when = extra(view, node).and_then(|extra| extra.when.as_ref());
        let holds = when.map(|when| when.is_true(&self.scope(view, node, when.references())));
        match holds {
            Some(Ok(false)) if end == Status::Skipped && never_began => return Ok(()),
            Some(Err(_)) if end == Status::Failed && never_began => return Ok(()),
            None | Some(Ok(true)) if end != Status::Skipped => {}
            _ => return Err(format!("its condition is {holds:?}")),
        }
        self.check_work(view, node, end)
    }
}

/// What few nodes have.
pub(super) fn extra(view: &View, node: u32) -> Option<&Extra> {
    view.definition.nodes.get(node as usize)?.extra.as_deref()
}
