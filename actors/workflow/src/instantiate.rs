//! From a definition to that of one run: variables are put in, a pipeline's items become nodes, and
//! everything that can be evaluated already is, so that what is wrong with it is said before anything
//! starts.

use serde_json::{Map, Value};

use crate::rendering::{OPEN, Rendering, push_key};
use crate::{
    CheckTask, Definition, Diagnostic, Diagnostics, Edge, Expression, Extra, Node, References, Scope, limits,
    nearest,
};

impl Definition {
    /// Puts given vars over the defaults, expands `items`, and evaluates every expression that reads only
    /// vars and inputs. The result has no `items`, and its `vars` are those of the run.
    ///
    /// The nodes of a pipeline with items are called `stage[0]`, `stage[1]`, …, item by item; see
    /// [`Definition::name_for`].
    ///
    /// # Errors
    /// Everything that is wrong, with JSON pointers in which tasks go by their names;
    /// [`Diagnostics::locate`] finds lines and columns.
    pub fn instantiate(self, vars: &Map<String, Value>, inputs: &Value) -> Result<Self, Diagnostics> {
        self.instantiate_checked(vars, inputs, &())
    }

    /// The same; and every body of a task that is known by then must be right, as `check` says.
    ///
    /// # Errors
    /// As with [`Definition::instantiate`].
    pub fn instantiate_checked(
        mut self,
        vars: &Map<String, Value>,
        inputs: &Value,
        check: &dyn CheckTask,
    ) -> Result<Self, Diagnostics> {
        let mut wrong = Diagnostics::default();
        self.put_vars(vars, &mut wrong);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let scope = Scope::new().vars(&self.vars).inputs(inputs);
        Checks { scope: &scope, check, wrong: &mut wrong }.definition(&self, &mut String::new());
        let items = self.items.take().map(|items| self.items_of(&items, &scope, &mut wrong));
        if !wrong.is_empty() {
            return Err(wrong);
        }
        if let Some(items) = items {
            self.expand(items);
        }
        Ok(self)
    }

    fn put_vars(&mut self, vars: &Map<String, Value>, wrong: &mut Diagnostics) {
        for (name, value) in vars {
            match self.vars.get_mut(name) {
                Some(default) => *default = value.clone(),
                None => {
                    let mut pointer = "/vars".to_owned();
                    push_key(&mut pointer, name);
                    let message = format!("'{name}' is not among the vars of workflow '{}'", self.name);
                    let hint = nearest::hint(name, self.vars.keys().map(String::as_str));
                    wrong.push(Diagnostic::new(pointer, message).hint(hint));
                }
            }
        }
    }

    fn items_of(&self, items: &Value, scope: &Scope, wrong: &mut Diagnostics) -> Vec<Value> {
        let items = match Rendering::new(items) {
            Ok(items) => items.render(scope).map_err(|(at, error)| (at, error.to_string())),
            Err((at, error)) => Err((at, error.to_string())),
        };
        let items = items.and_then(|items| list_of(items).map_err(|message| (String::new(), message)));
        let items = items.and_then(|items| {
            let nodes = items.len().saturating_mul(self.nodes.len());
            if nodes <= limits::NODES {
                return Ok(items);
            }
            let (stages, most) = (self.nodes.len(), limits::NODES);
            let message = format!("{} items in {stages} stages are more than {most} tasks", items.len());
            Err((String::new(), message))
        });
        items.unwrap_or_else(|(at, message)| {
            wrong.push(Diagnostic::new(format!("/items{at}"), message));
            Vec::new()
        })
    }

    /// Makes each stage once for each item.
    fn expand(&mut self, items: Vec<Value>) {
        let stages = std::mem::take(&mut self.nodes);
        let mut nodes = Vec::with_capacity(items.len() * stages.len());
        for (item, index) in items.into_iter().zip(0_u32..) {
            // Within bounds: there are at most 100,000 nodes.
            let first = index * stages.len() as u32;
            nodes.extend(stages.iter().map(|stage| at_item(stage, &item, index, first)));
        }
        self.nodes = nodes;
    }
}

/// A stage for one item, whose stages begin at `first`.
fn at_item(stage: &Node, item: &Value, index: u32, first: u32) -> Node {
    let extra = stage.extra.as_deref().cloned().unwrap_or_default();
    let input_from = extra.input_from.map(|stage| stage + first);
    let files_from = extra.files_from.iter().map(|stage| stage + first).collect();
    let extra = Extra { item: Some(item.clone()), index: Some(index), input_from, files_from, ..extra };
    Node {
        name: format!("{}[{index}]", stage.name).into(),
        after: stage.after.iter().map(|edge| Edge { node: edge.node + first, on: edge.on }).collect(),
        template: stage.template,
        extra: Some(Box::new(extra)),
    }
}

/// A value as a list that is not too long.
fn list_of(value: Value) -> Result<Vec<Value>, String> {
    match value {
        Value::Array(items) if items.len() <= limits::ITEMS => Ok(items),
        Value::Array(items) => Err(format!("the list has {} items; allowed: {}", items.len(), limits::ITEMS)),
        other => Err(format!("a list is expected, not {}", crate::Tree::from(&other).what())),
    }
}

/// Evaluates what can be evaluated.
struct Checks<'a> {
    scope: &'a Scope,
    check: &'a dyn CheckTask,
    wrong: &'a mut Diagnostics,
}

impl Checks<'_> {
    /// Everything in a definition; `at` is where it is.
    fn definition(&mut self, definition: &Definition, at: &mut String) {
        let length = at.len();
        let mut seen = vec![false; definition.templates.len()];
        for node in &definition.nodes {
            at.push_str("/tasks");
            push_key(at, &node.name);
            if let Some(number) = node.template {
                let template = &definition.templates[number as usize];
                let seen = &mut seen[number as usize];
                if template.has_expressions && !std::mem::replace(seen, true) {
                    self.body(&template.value(), at);
                }
            }
            if let Some(extra) = &node.extra {
                self.extra(extra, at);
            }
            at.truncate(length);
        }
    }

    /// The body of a task: if all of it is known, so is whether it is right.
    fn body(&mut self, body: &Value, at: &str) {
        let Some(Value::Object(rendered)) = self.value(body, at, "") else { return };
        for (pointer, message) in self.check.check(&rendered) {
            let written = body.pointer(&pointer).and_then(Value::as_str).filter(|text| text.contains(OPEN));
            let message = match written {
                Some(text) => format!("{message} in '{text}'"),
                None => message,
            };
            // `command` is mostly written as `run`.
            let pointer = if pointer == "/command" { "/run".to_owned() } else { pointer };
            self.wrong.push(Diagnostic::new(format!("{at}{pointer}"), message));
        }
    }

    fn extra(&mut self, extra: &Extra, at: &mut String) {
        if let Some(when) = &extra.when {
            self.expression(when, at, "/when");
        }
        if let Some(repeat) = &extra.repeat {
            self.expression(&repeat.until, at, "/loop/until");
        }
        if let Some(Value::String(_)) | Some(Value::Array(_)) = &extra.foreach {
            self.foreach(extra, at);
        }
        if let Some(collect) = &extra.collect {
            self.value(collect, at, "/collect");
        }
        if let Some(approval) = extra.approval.as_ref().filter(|approval| approval.message.contains(OPEN)) {
            self.value(&Value::from(approval.message.as_str()), at, "/approval");
        }
        let Some(child) = &extra.child else {
            return;
        };
        let Some(Value::Object(vars)) = self.value(&child.vars, at, "/vars") else {
            return;
        };
        // What the child is given is known: so is what it makes of it, inputs apart.
        let mut all = child.definition.vars.clone();
        all.extend(vars);
        let scope = Scope::new().vars(&all);
        let length = at.len();
        at.push_str("/workflow");
        Checks { scope: &scope, check: self.check, wrong: self.wrong }.definition(&child.definition, at);
        at.truncate(length);
    }

    fn foreach(&mut self, extra: &Extra, at: &str) {
        let Some(foreach) = &extra.foreach else {
            return;
        };
        if let Some(items) = self.value(foreach, at, "/foreach")
            && let Err(message) = list_of(items)
        {
            let hint = "write it as [a, b], or as an expression that gives a list".to_owned();
            self.wrong.push(Diagnostic::new(format!("{at}/foreach"), message).hint(Some(hint)));
        }
    }

    /// Every expression in a value that is known; the value itself if all of it is.
    fn value(&mut self, value: &Value, at: &str, below: &str) -> Option<Value> {
        let rendering = match Rendering::new(value) {
            Ok(rendering) => rendering,
            Err((inside, error)) => {
                self.wrong.push(Diagnostic::new(format!("{at}{below}{inside}"), error.to_string()));
                return None;
            }
        };
        let mut failed = false;
        rendering.each(&mut |inside, expression| {
            failed |= !self.expression(expression, at, &format!("{below}{inside}"));
        });
        if failed || !self.is_known(rendering.references()) {
            return None;
        }
        rendering.render(self.scope).ok()
    }

    /// Whether it is not known yet, or has a value.
    fn expression(&mut self, expression: &Expression, at: &str, below: &str) -> bool {
        if !self.is_known(expression.references()) {
            return true;
        }
        match expression.evaluate(self.scope) {
            Ok(_) => true,
            Err(error) => {
                self.wrong.push(Diagnostic::new(format!("{at}{below}"), error.to_string()));
                false
            }
        }
    }

    fn is_known(&self, references: &References) -> bool {
        references.tasks.is_empty() && !references.all_tasks && self.scope.shows(references)
    }
}

#[cfg(test)]
mod tests;
