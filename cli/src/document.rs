//! Documents that people hand over, YAML or JSON: what one is, and putting defaults into a workflow.
//!
//! What is wrong with a workflow is the workflow library's to say, with lines; here a document is
//! read far enough to look at it, to take variables from it, and to send it changed. Pure.

use std::collections::HashMap;

use agentflow_workflow::Tree;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};
use serde_json::Number;

/// Values that aliases may add: a file of variables needs a few.
const ALIASED_VALUES: usize = 1_000_000;

/// Lists and maps inside one another.
const DEPTH: usize = 64;

/// What a file for `run` is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Commands or tasks.
    List,
    /// A workflow, perhaps a wrong one.
    Workflow,
}

/// Keys that only a workflow has beside `tasks`.
const WORKFLOW_KEYS: [&str; 9] = [
    "version",
    "name",
    "mode",
    "vars",
    "defaults",
    "max_parallel",
    "fail_fast",
    "continue_on_failure",
    "items",
];

/// Looks at a document: a workflow is a map with `tasks`. `{"tasks": […]}` with nothing of a
/// workflow beside it is a list.
pub(crate) fn kind(text: &str) -> Kind {
    let begin = text.trim_start();
    // Long lists of commands are not read as YAML for nothing.
    if begin.starts_with('[') || !(text.contains("tasks") || text.contains("version")) {
        return Kind::List;
    }
    let is_workflow = match read(text) {
        Ok(tree @ Tree::Map(_)) if begin.starts_with('{') => match tree.get("tasks") {
            Some(Tree::List(_)) => WORKFLOW_KEYS.iter().any(|key| tree.get(key).is_some()),
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

/// Reads a document.
///
/// # Errors
/// `LINE:COLUMN: ` and what is wrong.
pub(crate) fn read(text: &str) -> Result<Tree, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with(['{', '['])
        && let Ok(tree) = serde_json::from_str(text)
    {
        return Ok(tree);
    }
    let mut parser = Parser::new_from_str(text);
    let mut loader = Loader::default();
    let at = |marker: &Marker, what: &str| format!("{}:{}: {what}", marker.line().max(1), marker.col() + 1);
    while let Some(event) = parser.next_event() {
        let broken = |error: ScanError| at(error.marker(), &format!("no YAML: {}", error.info()));
        let (event, span) = event.map_err(broken)?;
        loader.take(event).map_err(|what| at(&span.start, &what))?;
    }
    loader.root.ok_or_else(|| "1:1: nothing is in it".to_owned())
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

/// A list or map that is being read.
enum Open {
    List(Vec<Tree>),
    Map { entries: Vec<(Box<str>, Tree)>, key: Option<Box<str>> },
}

#[derive(Default)]
struct Loader {
    open: Vec<(Open, usize)>,
    anchors: HashMap<usize, Tree>,
    aliased: usize,
    root: Option<Tree>,
}

impl Loader {
    fn take(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => Err("a second document begins".to_owned()),
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
                let is_key = matches!(self.open.last(), Some((Open::Map { key: None, .. }, _)));
                let plain = style == ScalarStyle::Plain && !is_text && !is_key;
                let tree = if plain { scalar(&text) } else { Tree::String(text.into()) };
                self.add(tree, anchor)
            }
            Event::Alias(anchor) => {
                let tree =
                    self.anchors.get(&anchor).cloned().ok_or("an alias stands inside its own anchor")?;
                self.aliased += values(&tree);
                if self.aliased > ALIASED_VALUES {
                    return Err(format!("aliases stand for more than {ALIASED_VALUES} values"));
                }
                self.add(tree, 0)
            }
            Event::SequenceStart(anchor, _) => self.begin(Open::List(Vec::new()), anchor),
            Event::MappingStart(anchor, _) => {
                self.begin(Open::Map { entries: Vec::new(), key: None }, anchor)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some((Open::List(items), anchor)) => self.add(Tree::List(items), anchor),
                Some((Open::Map { entries, .. }, anchor)) => self.add(Tree::Map(merged(entries)), anchor),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn begin(&mut self, open: Open, anchor: usize) -> Result<(), String> {
        if self.open.len() == DEPTH {
            return Err(format!("nested deeper than {DEPTH} levels"));
        }
        self.open.push((open, anchor));
        Ok(())
    }

    fn add(&mut self, tree: Tree, anchor: usize) -> Result<(), String> {
        if anchor > 0 {
            self.anchors.insert(anchor, tree.clone());
        }
        match (self.open.last_mut(), tree) {
            (None, tree) => self.root = Some(tree),
            (Some((Open::List(items), _)), tree) => items.push(tree),
            (Some((Open::Map { key: key @ None, .. }, _)), Tree::String(text)) => *key = Some(text),
            (Some((Open::Map { key: None, .. }, _)), _) => return Err("a key is no text".to_owned()),
            (Some((Open::Map { entries, key }, _)), tree) => {
                entries.extend(key.take().map(|key| (key, tree)));
            }
        }
        Ok(())
    }
}

fn values(tree: &Tree) -> usize {
    1 + match tree {
        Tree::List(items) => items.iter().map(values).sum(),
        Tree::Map(entries) => entries.iter().map(|(_, value)| 1 + values(value)).sum(),
        _ => 0,
    }
}

/// Puts in what `<<` names, where the map has no such key itself.
fn merged(entries: Vec<(Box<str>, Tree)>) -> Vec<(Box<str>, Tree)> {
    if !entries.iter().any(|(key, _)| &**key == "<<") {
        return entries;
    }
    let (merges, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, _)| &**key == "<<");
    let maps = merges.into_iter().flat_map(|(_, merge)| match merge {
        Tree::List(items) => items,
        other => vec![other],
    });
    for map in maps {
        let Tree::Map(entries) = map else { continue };
        for (key, value) in entries {
            if !own.iter().any(|(known, _)| *known == key) {
                own.push((key, value));
            }
        }
    }
    own
}

/// A scalar without quotes, by the core schema.
fn scalar(text: &str) -> Tree {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Tree::Null,
        "true" | "True" | "TRUE" => Tree::Bool(true),
        "false" | "False" | "FALSE" => Tree::Bool(false),
        _ => number(text).map_or_else(|| Tree::String(text.into()), Tree::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_number = |c: char| c.is_ascii_digit() || ".eE+-".contains(c);
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(Number::from);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return u64::from_str_radix(digits, 8).ok().map(Number::from);
    }
    let begins = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if !begins || !unsigned.chars().all(is_number) {
        return None;
    }
    let whole = text.parse::<i64>().map(Number::from).or_else(|_| text.parse::<u64>().map(Number::from));
    whole.ok().or_else(|| Number::from_f64(text.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value(text: &str) -> Result<serde_json::Value, String> {
        read(text).map(|tree| tree.to_value())
    }

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
    fn documents_are_read() {
        assert_eq!(
            value("a: 1\nb: [x, '2', ~, true, 1.5, 0x10]\n"),
            Ok(json!({"a": 1, "b": ["x", "2", null, true, 1.5, 16]}))
        );
        assert_eq!(
            value("x: &x {k: 1, l: 2}\ny:\n  <<: *x\n  l: 3\n"),
            Ok(json!({"x": {"k": 1, "l": 2}, "y": {"l": 3, "k": 1}}))
        );
        assert_eq!(value("1: 1.2.3\n"), Ok(json!({"1": "1.2.3"})));
        assert_eq!(value(r#"{"a": [1, "x"]}"#), Ok(json!({"a": [1, "x"]})));
        assert!(value("a: [\n").expect_err("open").contains("no YAML"));
        assert_eq!(value("a: 1\n---\nb: 1\n"), Err("2:1: a second document begins".to_owned()));
        assert!(value("").is_err() && value("a: &a [*a]").is_err());
    }

    #[test]
    fn a_document_is_what_the_library_reads() {
        let text = "version: 1\nname: x\nvars: {n: 1, s: '1', f: 1e3, e: , y: yes, o: 0o17}\ndefaults: &d\n  env: {A: b}\n\
                    tasks:\n  a: {run: \"make ${{ vars.n }}\", timeout_ms: 5}\n  b:\n    needs: a\n    run: |\n      one\n      two\n    env: {<<: {B: c}, C: d}\n";
        let tree = read(text).expect("a document");
        let by_tree = agentflow_workflow::read_value(&tree, &()).expect("a workflow");
        assert_eq!(Ok(by_tree), agentflow_workflow::read_text(text, &()));
    }

    #[test]
    fn defaults_are_put_beside_those_that_are_there() {
        let mut tree = read(
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
