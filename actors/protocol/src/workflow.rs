//! The bodies of tasks in workflows: written, checked and made as those that are posted one by one.

use std::sync::Arc;

use agentflow_core::kernel::{MakeTask, NewTask, PreparedSpec};
use agentflow_core::time::Wall;
use agentflow_workflow::{CheckTask, Definition, Diagnostic, Diagnostics, Tree, read_text, read_value};
use serde_json::{Map, Value};

use crate::problem::{FieldError, pointer_of};
use crate::submit::{Checked, TaskBody};

/// Fields that a body in a workflow has no use for, and what to write instead.
const NOT_HERE: [(&str, &str); 2] = [
    ("hold", "has no use in a workflow; write approval: true"),
    ("idempotency_key", "has no use in a workflow; give the run one"),
];

/// Makes and checks the tasks of workflows.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkflowTasks;

impl WorkflowTasks {
    fn read(body: &Map<String, Value>) -> Result<Checked, Vec<(String, String)>> {
        for (field, instead) in NOT_HERE {
            if body.contains_key(field) {
                return Err(vec![(format!("/{field}"), instead.to_owned())]);
            }
        }
        let mut body = body.clone();
        if let Some(env) = body.get_mut("env").and_then(Value::as_object_mut) {
            env.values_mut().for_each(as_text);
        }
        let read: Result<TaskBody, _> = serde_path_to_error::deserialize(Value::Object(body));
        let task = read.map_err(|error| vec![(pointer_of(error.path()), error.inner().to_string())])?;
        task.check("")
            .map_err(|errors| errors.into_iter().map(|error| (error.pointer, error.detail)).collect())
    }
}

/// The definition of a run from a workflow as it was sent: a text or a value.
///
/// # Errors
/// Everything that is wrong, with pointers into a body that has `workflow` and `vars`, and in a text
/// with line and column.
pub fn definition_of(
    workflow: &Tree,
    vars: &Map<String, Value>,
    inputs: &Value,
) -> Result<Definition, Vec<FieldError>> {
    with_values(workflow, read_workflow(workflow)?, vars, inputs)
}

/// The definition of a run that had another one: of the `vars` that are not `given` those that the run
/// `had` stay, as far as the workflow has such. Beside it the names of those that stay though the file
/// says something else.
///
/// # Errors
/// As [`definition_of`].
pub fn upgraded_definition(
    workflow: &Tree,
    had: &Map<String, Value>,
    given: Option<&Map<String, Value>>,
    inputs: &Value,
) -> Result<(Definition, Vec<String>), Vec<FieldError>> {
    let definition = read_workflow(workflow)?;
    let mut vars = given.cloned().unwrap_or_default();
    let mut kept = Vec::new();
    for (name, value) in had {
        let Some(usual) = definition.vars.get(name).filter(|_| !vars.contains_key(name)) else { continue };
        if usual != value {
            kept.push(name.clone());
        }
        vars.insert(name.clone(), value.clone());
    }
    Ok((with_values(workflow, definition, &vars, inputs)?, kept))
}

fn read_workflow(workflow: &Tree) -> Result<Definition, Vec<FieldError>> {
    let definition = match workflow {
        Tree::String(text) => read_text(text, &WorkflowTasks),
        tree => read_value(tree, &WorkflowTasks),
    };
    definition.map_err(|wrong| field_errors(&wrong))
}

fn with_values(
    workflow: &Tree,
    definition: Definition,
    vars: &Map<String, Value>,
    inputs: &Value,
) -> Result<Definition, Vec<FieldError>> {
    instantiated(definition, vars, inputs).map_err(|wrong| match workflow {
        Tree::String(text) => field_errors(&wrong.locate(text)),
        _ => field_errors(&wrong),
    })
}

/// A definition with its values, every body checked that is known by then.
///
/// # Errors
/// As [`Definition::instantiate_checked`] has them.
pub fn instantiated(
    definition: Definition,
    vars: &Map<String, Value>,
    inputs: &Value,
) -> Result<Definition, Diagnostics> {
    definition.instantiate_checked(vars, inputs, &WorkflowTasks)
}

/// Each as the error of a field of the body.
#[must_use]
pub fn field_errors(wrong: &Diagnostics) -> Vec<FieldError> {
    let error = |diagnostic: &Diagnostic| {
        // Values that were given stand beside the workflow.
        let is_given = diagnostic.pointer.starts_with("/vars/");
        let pointer =
            if is_given { diagnostic.pointer.clone() } else { format!("/workflow{}", diagnostic.pointer) };
        let position = diagnostic.line.zip(diagnostic.column).filter(|_| !is_given);
        let position = position.map(|(line, column)| format!("{line}:{column}: ")).unwrap_or_default();
        let hint = diagnostic.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        FieldError { pointer, detail: format!("{position}{}{hint}", diagnostic.message) }
    };
    wrong.iter().map(error).collect()
}

/// A variable of the environment is text, but `PORT: ${{ vars.port }}` and `DEBUG: true` say what is meant.
fn as_text(value: &mut Value) {
    if let Value::Number(_) | Value::Bool(_) = value {
        *value = Value::String(value.to_string());
    }
}

impl CheckTask for WorkflowTasks {
    fn check(&self, body: &Map<String, Value>) -> Vec<(String, String)> {
        Self::read(body).err().unwrap_or_default()
    }
}

impl MakeTask for WorkflowTasks {
    fn make(&self, body: Map<String, Value>) -> Result<NewTask, String> {
        let mut checked = Self::read(&body).map_err(|errors| {
            let texts: Vec<String> =
                errors.into_iter().map(|(pointer, detail)| format!("{pointer}: {detail}")).collect();
            texts.join("; ")
        })?;
        if !body.contains_key("title") {
            // The node's name says more than the first line of its work.
            checked.title.clear();
        }
        let spec = Arc::new(PreparedSpec::new(checked.spec.clone()));
        let group = checked.group.as_str().into();
        Ok(checked.into_new(spec, group, Vec::new()))
    }

    fn next_time(&self, cron: &str, zone: &str, after: Wall) -> Option<Wall> {
        Self::next_time_of(cron, zone, after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(json: &str) -> Map<String, Value> {
        serde_json::from_str(json).expect("an object")
    }

    #[test]
    fn wrong_fields_are_named_by_pointer() {
        let errors = |json| WorkflowTasks.check(&body(json));
        assert!(errors(r#"{"command": "make", "env": {"A": "b"}}"#).is_empty());
        assert_eq!(errors(r#"{"command": "make", "retry": {"max": "x"}}"#)[0].0, "/retry/max");
        assert_eq!(errors(r#"{"kind": "exec", "argv": []}"#)[0].0, "/argv");
        assert_eq!(errors(r#"{"command": "make", "hold": true}"#)[0].0, "/hold");
    }

    #[test]
    fn an_upgrade_keeps_the_variables_that_it_has_a_place_for() {
        let text = "version: 1\nvars: {a: 1, b: 2, c: 3}\ntasks: {t: {}}\n";
        let workflow = Tree::String(text.into());
        let had = body(r#"{"a": 10, "b": 20, "gone": 30}"#);
        let given = body(r#"{"b": 200}"#);
        let (definition, kept) =
            upgraded_definition(&workflow, &had, Some(&given), &Value::Null).expect("right");
        assert_eq!(definition.vars, body(r#"{"a": 10, "b": 200, "c": 3}"#));
        assert_eq!(kept, ["a"], "the file says something else");
        let (definition, kept) = upgraded_definition(&workflow, &had, None, &Value::Null).expect("right");
        assert_eq!(kept, ["a", "b"]);
        assert_eq!(definition.vars, body(r#"{"a": 10, "b": 20, "c": 3}"#));
        let other = body(r#"{"other": 1}"#);
        let errors = upgraded_definition(&workflow, &had, Some(&other), &Value::Null).expect_err("none such");
        assert_eq!(errors[0].pointer, "/vars/other");
    }

    #[test]
    fn numbers_and_booleans_are_text_in_an_environment() {
        let task = WorkflowTasks.make(body(r#"{"command": "make", "env": {"A": 2.5, "B": true, "C": "c"}}"#));
        let spec = task.expect("a task").spec;
        let env: Vec<&str> = spec.spec.env.values().map(String::as_str).collect();
        assert_eq!(env, ["2.5", "true", "c"]);
        let errors = WorkflowTasks.check(&body(r#"{"command": "make", "env": {"A": [1]}}"#));
        assert_eq!(errors[0].0, "/env/A");
    }

    #[test]
    fn a_task_is_made_with_its_own_title_or_none() {
        let make = |json| WorkflowTasks.make(body(json)).expect("a task");
        assert_eq!(&*make(r#"{"command": "make", "group": "gpu"}"#).title, "");
        let task = make(r#"{"command": "make", "title": "Build", "priority": "high"}"#);
        assert_eq!((&*task.title, task.priority), ("Build", 75));
        assert!(WorkflowTasks.make(body(r#"{"command": ""}"#)).expect_err("empty").contains("/command"));
    }
}
