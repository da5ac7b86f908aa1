//! `versions run:ID`: the workflows that a run had, and what each changed.

use agentflow_core::ids::RunId;
use agentflow_protocol::run_upgrade::RunVersionView;
use agentflow_workflow::{Definition, Extra, Node, On};
use serde_json::{Map, Value};

use super::versions::{head, list};
use crate::client::Client;
use crate::error::Error;
use crate::follow::run_path;
use crate::output::Output;

pub(super) fn versions(run: RunId, client: &Client, output: Output) -> Result<u8, Error> {
    let path = format!("{}/versions", run_path(run.0));
    list(&path, client, output, |version: &RunVersionView| {
        let author = version.author.as_deref();
        let head = head(version.version, version.created_at, author, &version.reason);
        let text = text(version).map_err(|cause| Error::Answer { at: path.clone(), cause })?;
        Ok((head, text))
    })
}

/// A version as lines like those of a workflow file.
fn text(version: &RunVersionView) -> Result<String, String> {
    let definition =
        Definition::from_json(&version.workflow.to_string()).map_err(|error| error.to_string())?;
    let mut text = Lines::default();
    text.definition(&definition, 0);
    if let Some(inputs) = &version.inputs {
        text.field(0, "inputs", inputs);
    }
    Ok(text.0)
}

/// Lines, two blanks deeper on each level.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn line(&mut self, depth: usize, line: &str) {
        self.0.push_str(&format!("{:1$}{line}\n", "", 2 * depth));
    }

    /// `name: value`; a text of several lines below its name.
    fn field(&mut self, depth: usize, name: &str, value: &Value) {
        match value {
            Value::String(text) if text.trim_end_matches('\n').contains('\n') => {
                self.line(depth, &format!("{name}: |"));
                text.lines().for_each(|line| self.line(depth + 1, line));
            }
            Value::String(text) => self.line(depth, &format!("{name}: {}", text.trim_end_matches('\n'))),
            other => self.line(depth, &format!("{name}: {other}")),
        }
    }

    fn fields(&mut self, depth: usize, fields: &Map<String, Value>) {
        fields.iter().for_each(|(name, value)| self.field(depth, name, value));
    }

    fn definition(&mut self, definition: &Definition, depth: usize) {
        self.line(depth, &format!("name: {}", definition.name));
        self.line(depth, &format!("mode: {}", definition.mode));
        if let Some(most) = definition.max_parallel {
            self.line(depth, &format!("max_parallel: {most}"));
        }
        if definition.fail_fast {
            self.line(depth, "fail_fast: true");
        }
        if !definition.vars.is_empty() {
            self.line(depth, "vars:");
            self.fields(depth + 1, &definition.vars);
        }
        if let Some(items) = &definition.items {
            self.field(depth, "items", items);
        }
        self.line(depth, "tasks:");
        for node in &definition.nodes {
            self.node(definition, node, depth + 1);
        }
    }

    fn node(&mut self, definition: &Definition, node: &Node, depth: usize) {
        self.line(depth, &format!("{}:", node.name));
        let name = |place: u32| definition.nodes.get(place as usize).map_or("", |node| &*node.name);
        let needs = node.after.iter().map(|edge| match edge.on {
            On::Success => name(edge.node).to_owned(),
            On::Order => format!("{} (unless it failed)", name(edge.node)),
            On::Settled => format!("{} (however it ended)", name(edge.node)),
            On::Failure => format!("{} (if it failed)", name(edge.node)),
        });
        let needs: Vec<String> = needs.collect();
        if !needs.is_empty() {
            self.line(depth + 1, &format!("needs: {}", needs.join(", ")));
        }
        if let Some(template) = node.template.and_then(|place| definition.templates.get(place as usize)) {
            match template.value() {
                Value::Object(fields) => self.fields(depth + 1, &fields),
                other => self.field(depth + 1, "body", &other),
            }
        }
        if let Some(extra) = &node.extra {
            self.extra(extra, &name, depth + 1);
        }
    }

    fn extra<'a>(&mut self, extra: &Extra, name: &impl Fn(u32) -> &'a str, depth: usize) {
        // Places in a list say nothing to people.
        let plain = Extra { child: None, input_from: None, files_from: Vec::new(), ..extra.clone() };
        if let Ok(Value::Object(fields)) = serde_json::to_value(&plain) {
            self.fields(depth, &fields);
        }
        if let Some(place) = extra.input_from {
            self.line(depth, &format!("input_from: {}", name(place)));
        }
        if !extra.files_from.is_empty() {
            let names: Vec<&str> = extra.files_from.iter().map(|place| name(*place)).collect();
            self.line(depth, &format!("artifacts_from: {}", names.join(", ")));
        }
        if let Some(child) = &extra.child {
            if !child.vars.is_null() && child.vars != Value::Object(Map::new()) {
                self.field(depth, "vars", &child.vars);
            }
            self.line(depth, "workflow:");
            self.definition(&child.definition, depth + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use agentflow_core::time::Wall;
    use agentflow_protocol::Timestamp;

    use super::*;

    #[test]
    fn a_version_reads_like_a_file() {
        let file = "version: 1\nname: ci\nvars: {n: 1}\ntasks:\n  a: {run: \"one\\ntwo\\n\", env: {A: b}}\n  b: {run: x, needs: a, approval: 'ok?'}\n  c: {on_failure: b, workflow: {tasks: {inner: y}}}\n";
        let definition = agentflow_workflow::read_text(file, &()).expect("right");
        let view = RunVersionView {
            version: 1,
            reason: String::new(),
            author: None,
            created_at: Timestamp(Wall(0)),
            definition: String::new(),
            inputs: Some(serde_json::json!([1])),
            workflow: serde_json::from_str(&definition.to_json()).expect("JSON"),
        };
        let expected = "\
name: ci
mode: dag
vars:
  n: 1
tasks:
  a:
    command: |
      one
      two
    env: {\"A\":\"b\"}
    kind: shell
  b:
    needs: a
    command: x
    kind: shell
    approval: {\"message\":\"ok?\"}
  c:
    needs: b (if it failed)
    workflow:
      name: c
      mode: dag
      tasks:
        inner:
          command: y
          kind: shell
inputs: [1]
";
        assert_eq!(text(&view).expect("a workflow"), expected);
    }
}
