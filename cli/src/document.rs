//! Documents that people hand over, YAML or JSON: what one is, and putting defaults into a workflow.
//!
//! Reading one, and saying what is wrong with it, is the workflow library's. Pure.

use agentflow_workflow::{Tree, read_tree};

/// What a file for `run` is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Commands or tasks.
    List,
    /// A workflow, perhaps a wrong one.
    Workflow,
}

/// Looks at a document: a workflow is a map with `tasks`. `{"tasks": […]}` with nothing of a
/// workflow beside it is a list.
pub(crate) fn kind(text: &str) -> Kind {
    let begin = text.trim_start();
    // Long lists of commands are not read as YAML for nothing.
    if begin.starts_with('[') || !(text.contains("tasks") || text.contains("version")) {
        return Kind::List;
    }
    let is_workflow = match read_tree(text) {
        Ok(tree @ Tree::Map(_)) if begin.starts_with('{') => match tree.get("tasks") {
            Some(Tree::List(_)) => {
                agentflow_workflow::KEYS.iter().any(|key| *key != "tasks" && tree.get(key).is_some())
            }
            Some(_) => true,
            None => false,
        },
        Ok(tree @ Tree::Map(_)) => ["tasks", "version"].iter().any(|key| tree.get(key).is_some()),
        Ok(_) => false,
        // Commands may look like broken YAML; no command begins like this.
        Err(_) => begins_like_one(text),
    };
    if is_workflow { Kind::Workflow } else { Kind::List }
}

fn begins_like_one(text: &str) -> bool {
    let is_key = |line: &str| {
        let key = line.split_once(':').map_or("", |(key, _)| key.trim_matches(['"', '\'', ' ']));
        ["tasks", "version"].contains(&key) && !line.starts_with(char::is_whitespace)
    };
    text.lines().any(is_key) || (text.trim_start().starts_with('{') && text.contains("\"tasks\""))
}

/// Fills what the tasks of a workflow, and of those in it, leave out. Maps such as `labels` are
/// joined.
pub(crate) fn put_defaults(workflow: &mut Tree, defaults: &[(Box<str>, Tree)]) {
    let Tree::Map(entries) = workflow else { return };
    match entries.iter_mut().find(|(key, _)| &**key == "defaults") {
        Some((_, have @ Tree::Null)) => *have = Tree::Map(defaults.to_vec()),
        Some((_, have)) => fill(have, defaults),
        None => entries.push(("defaults".into(), Tree::Map(defaults.to_vec()))),
    }
    let tasks = entries.iter_mut().find(|(key, _)| &**key == "tasks").map(|(_, tasks)| tasks);
    let inner: Vec<&mut Tree> = match tasks {
        Some(Tree::Map(tasks)) => tasks.iter_mut().map(|(_, task)| task).collect(),
        Some(Tree::List(tasks)) => tasks.iter_mut().collect(),
        _ => Vec::new(),
    };
    for task in inner {
        let Tree::Map(fields) = task else { continue };
        for (_, child) in fields.iter_mut().filter(|(key, _)| &**key == "workflow") {
            put_defaults(child, defaults);
        }
    }
}

fn fill(have: &mut Tree, more: &[(Box<str>, Tree)]) {
    let Tree::Map(entries) = have else { return };
    for (key, value) in more {
        match (entries.iter_mut().find(|(known, _)| known == key), value) {
            (None, _) => entries.push((key.clone(), value.clone())),
            (Some((_, known)), Tree::Map(inner)) => fill(known, inner),
            (Some(_), _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_workflow_is_told_from_a_list_by_its_content() {
        let check = |text: &str, expect: Kind| assert_eq!(kind(text), expect, "{text}");
        check("version: 1\ntasks: {a: make}\n", Kind::Workflow);
        check("tasks:\n  a: make\n", Kind::Workflow);
        check("{version: 1, tasks: [{name: a, run: make}]}", Kind::Workflow);
        check(r#"{"version": 1, "tasks": {"a": "make"}}"#, Kind::Workflow);
        check(r#"{"tasks": {"a": "make"}}"#, Kind::Workflow);
        check(r#"{"tasks": ["make"], "mode": "parallel"}"#, Kind::Workflow);
        check(r#"{"tasks": ["make"]}"#, Kind::List);
        check(r#"["make tasks", "make version"]"#, Kind::List);
        check(r#"{"command": "make tasks"}"#, Kind::List);
        check("make tasks\necho version: 1\n", Kind::List);
        check("# the tasks:\nmake\n", Kind::List);
        // What is broken is not run line by line.
        check("version: 1\ntasks:\n  a: [\n", Kind::Workflow);
        check("{\"version\": 1,\n\"tasks\": {", Kind::Workflow);
        check("version: 1\ntask: {a: make}\n", Kind::Workflow);
    }

    #[test]
    fn defaults_are_put_beside_those_that_are_there() {
        let mut tree = read_tree(
            "tasks:\n  a: make\n  b:\n    workflow:\n      defaults: {labels: {os: linux}, workdir: /tmp}\n      tasks: {c: make}\n",
        )
        .expect("a document");
        let defaults = [
            ("labels".into(), Tree::Map(vec![("run".into(), Tree::String("x".into()))])),
            ("workdir".into(), Tree::String("/srv".into())),
        ];
        put_defaults(&mut tree, &defaults);
        let both = json!({"labels": {"run": "x"}, "workdir": "/srv"});
        assert_eq!(tree.get("defaults").map(Tree::to_value), Some(both));
        let child = tree.pointer("/tasks/b/workflow/defaults").map(Tree::to_value);
        assert_eq!(child, Some(json!({"labels": {"os": "linux", "run": "x"}, "workdir": "/tmp"})));
    }
}
