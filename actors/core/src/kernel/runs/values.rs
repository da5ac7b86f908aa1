//! What expressions see, and how a node's body becomes a task.

use std::sync::Arc;

use agentflow_workflow::{Definition, References, Rendering, Scope, TaskPart, TaskValue, TaskView};
use rustc_hash::FxHashSet;
use serde_json::Value;

use super::MakeTask;
use super::table::{Run, value_of};
use crate::blob::{InputPart, InputSource};
use crate::kernel::words::{NewTask, PreparedSpec};
use crate::spec::{Payload, Spec};

/// A body that has been looked at once.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// Nothing in it depends on anything: every node with it gets this.
    Fixed(Result<NewTask, String>),
    /// To be evaluated for each node.
    Rendered(Rendering),
    /// It cannot be understood; the text says why.
    Broken(String),
}

impl Run {
    /// What the expressions of a node see: those of `references` among the nodes before it.
    pub(crate) fn scope_for(&self, node: u32, references: &References) -> Scope {
        let mut scope = self.scope.clone();
        for name in &references.tasks {
            // In a pipeline with items a stage means the one of the same item.
            let full = self.definition.name_for(node, name);
            if let Some(before) = self.find(node, &full) {
                scope = scope.task(name, &self.view_of(before));
            }
        }
        if references.all_tasks {
            // The reader has seen to it that these are all that may be asked for.
            for before in self.kept.keys().filter(|before| **before != node) {
                scope = scope.task(self.name_of(*before), &self.view_of(*before));
            }
        }
        if let Some(extra) = self.extra(node)
            && let Some(item) = &extra.item
        {
            scope = scope.item(item, extra.index.unwrap_or(0));
        }
        if let Some(round) = self.rounds.get(&node) {
            scope = scope.iteration(*round);
        } else if self.extra(node).is_some_and(|extra| extra.repeat.is_some()) {
            scope = scope.iteration(1);
        }
        scope
    }

    /// What is known of a node that has ended.
    fn view_of(&self, node: u32) -> TaskView {
        if let Some(kept) = self.kept.get(&node) {
            return kept.view().clone();
        }
        let status = self.graph.status(node).status().map_or("pending", |status| status.word());
        TaskValue { status, outputs: Ok(None), result: Ok(None) }.view()
    }

    /// A node by name: mostly one of those directly before.
    fn find(&self, node: u32, name: &str) -> Option<u32> {
        let before = &self.definition.nodes[node as usize].after;
        let direct = before.iter().map(|edge| edge.node).find(|other| self.name_of(*other) == name);
        direct.or_else(|| self.definition.find(name))
    }

    /// Evaluates any value of a node.
    pub(crate) fn evaluate(&self, node: u32, value: &Value) -> Result<Value, String> {
        let rendering = Rendering::new(value).map_err(|(_, error)| error.to_string())?;
        let scope = self.scope_for(node, rendering.references());
        rendering.render(&scope).map_err(|(_, error)| error.to_string())
    }

    fn prepared(&mut self, template: u32, maker: &dyn MakeTask) -> Arc<Prepared> {
        if let Some(prepared) = self.prepared.get(&template) {
            return Arc::clone(prepared);
        }
        let Some(body) = self.definition.templates.get(template as usize) else {
            return Arc::new(Prepared::Broken("the workflow's text is damaged".to_owned()));
        };
        let value = body.value();
        let prepared = Arc::new(if body.has_expressions {
            match Rendering::new(&value) {
                Ok(rendering) => Prepared::Rendered(rendering),
                Err((_, error)) => Prepared::Broken(error.to_string()),
            }
        } else {
            Prepared::Fixed(make(maker, value))
        });
        self.prepared.insert(template, Arc::clone(&prepared));
        prepared
    }

    /// The task that a node is, or that one of its items is.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub(crate) fn make_task(
        &mut self,
        node: u32,
        item: Option<(&Value, u32)>,
        maker: &dyn MakeTask,
    ) -> Result<NewTask, String> {
        let title = self.name_of(node).to_owned();
        let Some(template) = self.definition.nodes[node as usize].template else {
            return Ok(milestone(&title));
        };
        let task = match &*self.prepared(template, maker) {
            Prepared::Fixed(made) => made.clone()?,
            Prepared::Broken(error) => return Err(error.clone()),
            Prepared::Rendered(rendering) => {
                let mut scope = self.scope_for(node, rendering.references());
                if let Some((item, index)) = item {
                    scope = scope.item(item, index);
                }
                // What is not in this memory is handed on without being read.
                let whole = rendering.whole_part("input");
                let whole = whole.and_then(|(name, part)| self.elsewhere(node, name, part));
                let value = match whole {
                    Some(_) => rendering.render_without("input", &scope),
                    None => rendering.render(&scope),
                };
                let task = make(maker, value.map_err(|(pointer, error)| format!("{pointer}: {error}"))?)?;
                match whole {
                    Some(source) => with_input(task, source),
                    None => task,
                }
            }
        };
        Ok(self.with_files(node, self.with_input(node, item, task)))
    }

    /// Names the tasks whose files a node asks for.
    fn with_files(&self, node: u32, task: NewTask) -> NewTask {
        let from = self.extra(node).map_or(&[][..], |extra| &extra.files_from);
        if from.is_empty() {
            return task;
        }
        let item = self.extra(node).filter(|extra| extra.item.is_some()).and_then(|extra| extra.index);
        let suffix = item.map(|index| format!("[{index}]")).unwrap_or_default();
        let named = |before: &u32| {
            // In a pipeline with items the stage's name is that of the file.
            let name = self.name_of(*before);
            (name.strip_suffix(&suffix).unwrap_or(name).to_owned(), self.task_of(*before))
        };
        let artifacts_from = from.iter().map(named).collect();
        let spec = Spec { artifacts_from, ..task.spec.spec.clone() };
        NewTask { spec: Arc::new(task.spec.with(spec)), ..task }
    }

    /// Gives a stage of a pipeline, or an item, its input unless it names one itself.
    fn with_input(&self, node: u32, item: Option<(&Value, u32)>, task: NewTask) -> NewTask {
        let from = self.extra(node).and_then(|extra| extra.input_from);
        let own = self.extra(node).and_then(|extra| extra.item.as_ref());
        let own = own.cloned().map(InputSource::Value);
        let input = match (item, from, own) {
            (Some((item, _)), _, _) => Some(InputSource::Value(item.clone())),
            (None, Some(stage), own) => self.output_of(stage).or(own),
            (None, None, own) => own,
        };
        match input {
            Some(input) => with_input(task, input),
            None => task,
        }
    }

    /// A stage's output: what it wrote as outputs, else the end of its output as text; that of the
    /// stage before it if it was skipped.
    fn output_of(&self, stage: u32) -> Option<InputSource> {
        let mut stage = stage;
        loop {
            if let Some(kept) = self.kept.get(&stage)
                && kept.status == crate::status::Status::Completed
            {
                let source = kept.source(TaskPart::Outputs).or_else(|| kept.source(TaskPart::Result));
                return Some(source.unwrap_or(InputSource::Value(Value::Null)));
            }
            stage = self.extra(stage)?.input_from?;
        }
    }

    /// What a child run has as its inputs: in a pipeline what the stage before has put out.
    ///
    /// # Errors
    /// It is too large to be read.
    pub(crate) fn inputs_of_child(&self, node: u32) -> Result<Value, String> {
        let extra = self.extra(node);
        let own = extra.and_then(|extra| extra.item.clone()).unwrap_or(Value::Null);
        let Some(stage) = extra.and_then(|extra| extra.input_from) else { return Ok(own) };
        match self.output_of(stage) {
            None => Ok(own),
            Some(InputSource::Value(value)) => Ok(value),
            Some(InputSource::Json(_) | InputSource::Text(_)) => {
                let Some(kept) = self.kept.get(&stage) else { return Ok(own) };
                let value = value_of(kept.status, kept.outcome());
                let text = value.outputs?.and_then(|text| serde_json::from_str(text).ok());
                Ok(match text {
                    Some(value) => value,
                    None => value.result?.map_or(Value::Null, Value::from),
                })
            }
        }
    }

    /// What a node left, if it is kept by its hash.
    fn elsewhere(&self, node: u32, name: &str, part: TaskPart) -> Option<InputSource> {
        let before = self.find(node, &self.definition.name_for(node, name))?;
        self.kept.get(&before)?.source(part).filter(|source| source.blob().is_some())
    }
}

/// Gives a task its input, unless it has one.
pub(crate) fn with_input(task: NewTask, input: InputSource) -> NewTask {
    if task.spec.spec.has_input() {
        return task;
    }
    let spec = task.spec.spec.clone();
    let spec = match input {
        InputSource::Value(input) => Spec { input: Some(input), ..spec },
        source => Spec { input_parts: vec![InputPart { name: None, source }], ..spec },
    };
    NewTask { spec: Arc::new(PreparedSpec::new(spec)), ..task }
}

fn make(maker: &dyn MakeTask, value: Value) -> Result<NewTask, String> {
    match value {
        Value::Object(body) => maker.make(body),
        _ => Err("a task's body must be an object".to_owned()),
    }
}

/// A task that is nothing itself.
pub(crate) fn milestone(title: &str) -> NewTask {
    let chars = title.chars().filter(|c| !c.is_control()).take(crate::limits::TITLE_CHARS);
    NewTask {
        title: chars.collect::<String>().into(),
        group: "default".into(),
        priority: 50,
        spec: Arc::new(PreparedSpec::new(Spec::new(Payload::Milestone))),
        not_before: None,
        hold: false,
        needs: Vec::new(),
    }
}

/// As a shell's `$(…)` has it.
pub(crate) fn without_line_end(text: &str) -> &str {
    text.trim_end_matches(['\n', '\r'])
}

/// The nodes whose ends are read by expressions or are another's input.
pub(crate) fn read_nodes(definition: &Definition) -> FxHashSet<u32> {
    let mut read = FxHashSet::default();
    let names = definition.names();
    definition.each_reference(|node, references| {
        for name in &references.tasks {
            read.extend(names.get(&*definition.name_for(node, name)));
        }
        if references.all_tasks {
            read.extend(names.values());
        }
    });
    let stages = definition.nodes.iter().filter_map(|node| node.extra.as_ref()?.input_from);
    read.extend(stages);
    read
}
