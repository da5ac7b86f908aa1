//! Values between the nodes of a run: what each was to work on, what its parts left, and whether that
//! is what was done.

use agentflow_core::blob::{BlobRef, InputPart, InputSource};
use agentflow_core::kernel::{MakeTask, PreparedSpec};
use agentflow_core::run::RunStatus;
use agentflow_core::spec::Spec;
use agentflow_core::status::Status;
use agentflow_protocol::workflow::WorkflowTasks;
use agentflow_workflow::{Scope, TaskValue};
use serde_json::{Map, Value};

use super::nodes::View;
use super::oracle::extra;
use super::store::{Row, Store};

impl Store {
    /// Whether a node that may have run did what it was to do, and ended as that did.
    pub(super) fn check_work(&self, view: &View, node: u32, end: Status) -> Result<(), String> {
        let id = view.task_of(node);
        let (Some(fold), Some(row)) = (self.history.get(id), self.rows.get(&id)) else { return Ok(()) };
        let extra = extra(view, node);
        let began = fold.fence > view.earlier.fence(id);
        let has_approval = extra.is_some_and(|extra| extra.approval.is_some());
        if has_approval && began && !fold.is_approved {
            return Err("it began without its approval".to_owned());
        }
        if extra.is_some_and(|extra| extra.child.is_some()) {
            return if began { self.check_child(view, node, end, row) } else { Ok(()) };
        }
        if extra.is_some_and(|extra| extra.foreach.is_some()) {
            return if began { self.check_items(view, node, end, row) } else { Ok(()) };
        }
        match self.work_of(view, node, None) {
            Ok(spec) if spec.hash != row.spec => {
                Err(format!("it was to do {}, it did {:?}", spec.body, self.spec_of(row)))
            }
            Ok(spec) => {
                let may_fail = began || has_approval || spec.spec.queue_timeout_ms.is_some();
                if end == Status::Failed && !may_fail { Err("it never began".to_owned()) } else { Ok(()) }
            }
            Err(_) if end == Status::Failed && !began => Ok(()),
            Err(error) => Err(format!("there is nothing that it could have done: {error}")),
        }
    }

    /// What a node, or an item of it, was to do.
    pub(super) fn work_of(
        &self,
        view: &View,
        node: u32,
        item: Option<(&Value, u32)>,
    ) -> Result<PreparedSpec, String> {
        let Some(template) = view.definition.nodes[node as usize].template else {
            return Ok(self.with_question(view, node, milestone()));
        };
        let body = view.definition.templates[template as usize].value();
        let mut body = body;
        let whole = self.handed_on(view, node, &body);
        if let (Some(_), Value::Object(fields)) = (&whole, &mut body) {
            fields.remove("input");
        }
        let body = self.render(view, node, &body, |scope| match item {
            Some((item, index)) => scope.item(item, index),
            None => scope,
        })?;
        let Value::Object(body) = body else { return Err("no object".to_owned()) };
        let mut spec = WorkflowTasks.make(body)?.spec.spec.clone();
        if spec.input.is_none() {
            match whole.or_else(|| self.input_of(view, node, item)) {
                Some(InputSource::Value(input)) => spec.input = Some(input),
                Some(source) => spec.input_parts = vec![InputPart { name: None, source }],
                None => {}
            }
        }
        Ok(if item.is_none() { self.with_question(view, node, spec) } else { PreparedSpec::new(spec) })
    }

    /// What people are asked is said to them by the task's description.
    fn with_question(&self, view: &View, node: u32, mut spec: Spec) -> PreparedSpec {
        let approval = extra(view, node).and_then(|extra| extra.approval.as_ref());
        if let Some(approval) = approval.filter(|approval| !approval.message.is_empty()) {
            let message = Value::from(approval.message.as_str());
            spec.description = Some(match self.render(view, node, &message, |scope| scope) {
                Ok(Value::String(text)) => text,
                Ok(other) => other.to_string(),
                Err(_) => approval.message.clone(),
            });
        }
        PreparedSpec::new(spec)
    }

    /// What a node works on, if its body does not say: its item, or what the last stage that was not
    /// skipped has left.
    fn input_of(&self, view: &View, node: u32, item: Option<(&Value, u32)>) -> Option<InputSource> {
        if let Some((item, _)) = item {
            return Some(InputSource::Value(item.clone()));
        }
        let mut stage = extra(view, node).and_then(|extra| extra.input_from);
        while let Some(before) = stage {
            let row = self.rows.get(&view.task_of(before));
            if let Some(row) = row.filter(|row| row.state.status == Status::Completed) {
                return Some(match blob_of(row) {
                    Some(blob) => InputSource::Json(blob),
                    None => InputSource::Value(left_by(row)),
                });
            }
            stage = extra(view, before).and_then(|extra| extra.input_from);
        }
        extra(view, node).and_then(|extra| extra.item.clone()).map(InputSource::Value)
    }

    /// The large outputs that a body hands on as its input.
    fn handed_on(&self, view: &View, node: u32, body: &Value) -> Option<InputSource> {
        let name = body.get("input")?.as_str()?.strip_prefix("${{ tasks.")?.strip_suffix(".outputs }}")?;
        let before = view.definition.find(&view.definition.name_for(node, name))?;
        blob_of(self.rows.get(&view.task_of(before))?).map(InputSource::Json)
    }

    fn check_child(&self, view: &View, node: u32, end: Status, row: &Row) -> Result<(), String> {
        let id = view.task_of(node);
        let Some(child) = self.ties.child_of(id) else {
            let fits = end != Status::Completed && self.child_definition(id).is_err();
            return if fits { Ok(()) } else { Err("its child is not there".to_owned()) };
        };
        let status = child.state.status;
        let fits = match end {
            Status::Completed => status == RunStatus::Completed,
            Status::Failed => status.is_settled() && status != RunStatus::Completed,
            _ => status.is_settled(),
        };
        if !fits {
            return Err(format!("its child, run {}, is {status}", child.id));
        }
        let mut left = Map::new();
        let below = self.runs.views.get(&child.id);
        for (node, view) in below.iter().flat_map(|view| view.nodes().map(move |node| (node, view))) {
            let row = self.rows.get(&view.task_of(node));
            let outputs = row.and_then(outputs_of);
            if let Some(outputs) = outputs.filter(|outputs: &Value| !outputs.is_null()) {
                left.insert(view.definition.nodes[node as usize].name.to_string(), outputs);
            }
        }
        let left = (!left.is_empty()).then_some(Value::Object(left));
        if end == Status::Completed && outputs_of(row) != left {
            return Err(format!("its child left {left:?}, it left {:?}", row.outcome.outputs));
        }
        Ok(())
    }

    fn check_items(&self, view: &View, node: u32, end: Status, row: &Row) -> Result<(), String> {
        let foreach = extra(view, node).and_then(|extra| extra.foreach.clone()).unwrap_or_default();
        let list = match self.render(view, node, &foreach, |scope| scope) {
            Ok(Value::Array(list)) => list,
            _ if end == Status::Completed => return Err(format!("{foreach} is no list")),
            _ => return Ok(()),
        };
        let mut items = Vec::new();
        for (index, item) in (0..).zip(&list) {
            let name = format!("{}[{index}]", view.definition.nodes[node as usize].name);
            let name = match row.state.attempt.0 {
                0 | 1 => name,
                attempt => format!("{name}@{attempt}"),
            };
            let is_it = |row: &&Row| row.run.as_ref().is_some_and(|place| *place.node == name);
            let parts = self.ties.parts(view.id).iter();
            let mut found = parts.filter_map(|task| self.rows.get(task)).filter(is_it);
            items.push(found.next());
            if found.next().is_some() {
                return Err(format!("there is more than one {name}"));
            }
            if let Some(row) = items.last().copied().flatten() {
                self.check_item(view, node, (item, index), row)?;
            }
        }
        let kept: Vec<Option<Value>> = (0..)
            .zip(&list)
            .zip(&items)
            .map(|((index, item), row)| self.kept(view, node, (item, index), *row))
            .collect();
        let all: Option<Vec<Value>> = kept.into_iter().collect();
        match (end, all) {
            (Status::Completed, Some(all)) if outputs_of(row) == Some(Value::Array(all.clone())) => Ok(()),
            (Status::Failed, None) | (Status::Cancelled, _) => Ok(()),
            // There was no room for so many.
            (Status::Failed, Some(_)) if items.iter().all(Option::is_none) && !list.is_empty() => Ok(()),
            (_, all) => Err(format!("its items left {all:?}, it left {:?}", row.outcome)),
        }
    }

    fn check_item(&self, view: &View, node: u32, item: (&Value, u32), row: &Row) -> Result<(), String> {
        let began = row.state.fence.0 > 0;
        match self.work_of(view, node, Some(item)) {
            Ok(spec) if spec.hash != row.spec && !self.is_older_item(view, node, item, row) => {
                Err(format!("item {} was to do {}, it did {:?}", item.1, spec.body, self.spec_of(row)))
            }
            Err(error) if began || row.state.status != Status::Failed => {
                Err(format!("there is nothing that item {} could have done: {error}", item.1))
            }
            _ => Ok(()),
        }
    }

    /// What is kept of an item, if it has ended well.
    fn kept(&self, view: &View, node: u32, item: (&Value, u32), row: Option<&Row>) -> Option<Value> {
        let row = row.filter(|row| row.state.status == Status::Completed)?;
        let Some(collect) = extra(view, node).and_then(|extra| extra.collect.as_ref()) else {
            return Some(left_by(row));
        };
        let (outputs, result) = (Ok(text_of(row)), Ok(row.outcome.result.as_deref()));
        let own = TaskValue { status: Status::Completed.word(), outputs, result }.view();
        self.render(view, node, collect, |scope: Scope| scope.item(item.0, item.1).own(&own)).ok()
    }
}

/// A task's outputs; its result if it has none.
fn left_by(row: &Row) -> Value {
    let result = row.outcome.result.as_deref().map(Value::from);
    outputs_of(row).or(result).unwrap_or_default()
}

fn outputs_of(row: &Row) -> Option<Value> {
    serde_json::from_str(text_of(row)?).ok()
}

/// A task's outputs, wherever they are.
pub(super) fn text_of(row: &Row) -> Option<&str> {
    row.outcome.outputs().ok().flatten()
}

fn blob_of(row: &Row) -> Option<BlobRef> {
    row.outcome.left.as_ref()?.outputs
}

fn milestone() -> Spec {
    Spec::new(agentflow_core::spec::Payload::Milestone)
}
