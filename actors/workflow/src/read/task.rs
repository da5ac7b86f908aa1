//! One task of a file: when and how often it runs, and what is around it.

use serde_json::{Map, Value};

use super::at::At;
use super::collector::Spot;
use super::edges::{self, Flow};
use super::file::{File, Growing, Reader};
use super::keys;
use super::uses::{Here, roots};
use crate::{Approval, Child, Extra, Node, Repeat, Root, Roots, Tree, limits, nearest};

/// A task as it is written.
pub(super) struct Entry<'t> {
    pub(super) name: &'t str,
    pub(super) tree: &'t Tree,
    /// Its position, if the tasks are a list.
    pub(super) index: Option<usize>,
}

impl<'t> Entry<'t> {
    pub(super) fn keyed(name: &'t str, tree: &'t Tree) -> Self {
        Self { name, tree, index: None }
    }

    pub(super) fn listed(name: &'t str, tree: &'t Tree, index: usize) -> Self {
        Self { name, tree, index: Some(index) }
    }

    /// Where it is.
    pub(super) fn at<'a>(&'a self, tasks_at: &'a At<'a>) -> At<'a> {
        match self.index {
            Some(index) => tasks_at.index(index),
            None => tasks_at.key(self.name),
        }
    }

    /// What is shown when it is wrong as a whole.
    pub(super) fn spot(&self) -> Spot {
        if self.index.is_some() { Spot::Value } else { Spot::Key(0) }
    }
}

/// An expression that reads a task that is not directly before.
pub(super) struct Distant {
    pub(super) node: u32,
    pub(super) target: u32,
    pub(super) pointer: String,
    pub(super) offset: usize,
}

impl Reader<'_> {
    /// Reads a task; what is wrong with it leaves a node without it.
    pub(super) fn task(
        &mut self,
        file: &File<'_>,
        growing: &mut Growing,
        flow: &mut Flow,
        entry: &Entry<'_>,
        tasks_at: &At<'_>,
        node: u32,
    ) -> Node {
        let at = entry.at(tasks_at);
        let tree = entry.tree;
        let entries: &[(Box<str>, Tree)] = match tree {
            Tree::Map(entries) => entries,
            Tree::String(_) | Tree::Null => &[],
            other => {
                self.wrong.value(&at, format!("a task is a map, or a command as text, not {}", other.what()));
                &[]
            }
        };
        for (key, _) in entries {
            if !keys::TASK.contains(&&**key) && !keys::BODY.contains(&&**key) {
                let known: Vec<&str> = keys::TASK.into_iter().chain(keys::BODY).collect();
                self.unknown_key(key, &at, &known, "task");
            }
        }
        let when = tree.get("when").filter(|when| **when != Tree::Null);
        let when = when.and_then(|when| Some((when, self.bare(when, &at.key("when"), "when")?)));
        let needs = self.others(file, tree, &at, "needs", node);
        let failures = self.others(file, tree, &at, "on_failure", node);
        let statuses: Vec<u32> = when
            .iter()
            .flat_map(|(_, when)| &when.references().statuses)
            .filter_map(|name| file.names.get(&**name).copied())
            .collect();
        let input_from = flow.last().filter(|_| file.mode == crate::Mode::Pipeline);
        let after = edges::edges(flow, node, &needs, &failures, &statuses);
        let here = Here { node, after: &after };
        let place = Place { file, here, at: &at, tree };
        let files_from = self.files_from(&place, growing);
        let mut extra = Extra { input_from, files_from, ..Extra::default() };
        if let Some((tree, when)) = when {
            let text = tree.as_str().unwrap_or_default();
            let allowed = place.roots(false);
            self.references(
                file,
                Some(here),
                &mut growing.distant,
                when.references(),
                text,
                &at.key("when"),
                allowed,
            );
            extra.when = Some(when);
        }
        self.foreach(&place, growing, &mut extra);
        self.repeat(&place, growing, &mut extra);
        extra.approval = self.approval(&place, growing, extra.foreach.is_some());
        extra.child = self.child(&place, growing, entry, extra.foreach.is_some());
        let alone = extra.approval.is_some() || extra.child.is_some();
        let template = self.body(&place, growing, entry, alone, body_roots(&place, &extra));
        self.foreach_alone(&at, &extra);
        if extra.child.is_some() && template.is_some() {
            let hint = "put the work into a task of the child";
            self.wrong.hinted(&at.key("workflow"), "a task is either work or a child workflow", hint);
        }
        if extra.child.is_some() && tree.get("input").is_some() {
            let hint = "a child workflow gets its values by vars; in a pipeline its inputs are the last stage's output";
            self.wrong.hinted(&at.key("input"), "'input' means nothing beside 'workflow'", hint);
        }
        let extra = (extra != Extra::default()).then(|| Box::new(extra));
        Node { name: entry.name.into(), after, template, extra }
    }

    /// The tasks that a field names.
    fn others(&mut self, file: &File<'_>, tree: &Tree, at: &At<'_>, field: &str, node: u32) -> Vec<u32> {
        let at = at.key(field);
        match tree.get(field) {
            None | Some(Tree::Null) => Vec::new(),
            Some(one @ Tree::String(_)) => self.other(file, one, &at, node).into_iter().collect(),
            Some(Tree::List(list)) => {
                let one = |(index, one)| self.other(file, one, &at.index(index), node);
                list.iter().enumerate().filter_map(one).collect()
            }
            Some(other) => {
                let message =
                    format!("'{field}' is the name of a task, or a list of names, not {}", other.what());
                self.wrong.value(&at, message);
                Vec::new()
            }
        }
    }

    /// The tasks before this one whose files it finds.
    fn files_from(&mut self, place: &Place<'_>, growing: &mut Growing) -> Vec<u32> {
        const FIELD: &str = "artifacts_from";
        let Place { file, here, at, tree } = *place;
        let mut named = self.others(file, tree, at, FIELD, here.node);
        let written = named.len();
        if written > limits::SOURCES {
            let message = format!("'{FIELD}' names {written} tasks; at most {}", limits::SOURCES);
            self.wrong.value(&at.key(FIELD), message);
        }
        named.sort_unstable();
        named.dedup();
        for &target in named.iter().filter(|target| !here.after.iter().any(|edge| edge.node == **target)) {
            let pointer = at.key(FIELD).pointer();
            growing.distant.push(Distant { node: here.node, target, pointer, offset: 0 });
        }
        named
    }

    fn other(&mut self, file: &File<'_>, tree: &Tree, at: &At<'_>, node: u32) -> Option<u32> {
        let Some(name) = tree.as_str() else {
            self.wrong.value(at, format!("the name of a task is expected, not {}", tree.what()));
            return None;
        };
        match file.names.get(name) {
            Some(&other) if other == node => {
                self.wrong.value(at, format!("'{name}' names itself"));
                None
            }
            Some(&other) => Some(other),
            None => {
                let message = format!("there is no task '{name}'");
                self.wrong.push(at, Spot::Value, message, || nearest::hint(name, file.names.keys().copied()));
                None
            }
        }
    }

    /// Each item is one task: neither a child workflow nor a loop.
    fn foreach_alone(&mut self, at: &At<'_>, extra: &Extra) {
        if extra.foreach.is_none() {
            return;
        }
        if extra.child.is_some() {
            let hint = "put 'foreach' into the tasks of the child";
            self.wrong.hinted(&at.key("foreach"), "'foreach' makes tasks, not child workflows", hint);
        }
        if extra.repeat.is_some() {
            let hint = "put the loop into a child workflow, or into the command";
            self.wrong.hinted(&at.key("loop"), "a task with 'foreach' has no 'loop'", hint);
        }
    }

    fn foreach(&mut self, place: &Place<'_>, growing: &mut Growing, extra: &mut Extra) {
        let Place { file, here, at, tree } = *place;
        let foreach = tree.get("foreach").filter(|foreach| **foreach != Tree::Null);
        if let Some(foreach) = foreach {
            let allowed = place.roots(false);
            extra.foreach =
                self.list(file, Some(here), &mut growing.distant, foreach, &at.key("foreach"), allowed);
        }
        for key in ["collect", "max_parallel"] {
            if foreach.is_none() && tree.get(key).is_some() {
                let message = format!("'{key}' means nothing without 'foreach'");
                self.wrong.push(&at.key(key), Spot::Key(0), message, || None);
            }
        }
        if let Some(collect) = tree.get("collect").filter(|collect| **collect != Tree::Null) {
            let mut allowed = place.roots(true);
            allowed.insert(Root::Own);
            self.value(file, Some(here), &mut growing.distant, collect, &at.key("collect"), allowed);
            extra.collect = Some(collect.to_value());
        }
        extra.max_parallel = self.count(tree, at, "max_parallel", u64::from(u32::MAX));
    }

    fn repeat(&mut self, place: &Place<'_>, growing: &mut Growing, extra: &mut Extra) {
        let Place { file, here, at, tree } = *place;
        let at = at.key("loop");
        let entries = match tree.get("loop") {
            None | Some(Tree::Null) => return,
            Some(Tree::Map(entries)) => entries,
            Some(other) => {
                return self
                    .wrong
                    .value(&at, format!("'loop' is a map with until and max, not {}", other.what()));
            }
        };
        self.unknown_keys(entries, &at, &["until", "max"], "loop");
        let tree = tree.get("loop").unwrap_or(tree);
        let max = self.count(tree, &at, "max", limits::ITERATIONS);
        let until = tree.get("until").and_then(|until| {
            let expression = self.bare(until, &at.key("until"), "until")?;
            let text = until.as_str().unwrap_or_default();
            let mut allowed = place.roots(extra.foreach.is_some());
            allowed.insert(Root::Own);
            allowed.insert(Root::Loop);
            let references = expression.references();
            self.references(
                file,
                Some(here),
                &mut growing.distant,
                references,
                text,
                &at.key("until"),
                allowed,
            );
            Some(expression)
        });
        for key in ["until", "max"] {
            if tree.get(key).is_none() {
                self.wrong.value(&at, format!("'{key}' is missing in 'loop'"));
            }
        }
        extra.repeat = until.zip(max).map(|(until, max)| Repeat { until, max });
    }

    fn approval(&mut self, place: &Place<'_>, growing: &mut Growing, has_item: bool) -> Option<Approval> {
        let Place { file, here, at, tree } = *place;
        let at = at.key("approval");
        let tree = tree.get("approval")?;
        let mut message = |this: &mut Self, text: &Tree, at: &At<'_>| {
            let message = text.as_str()?.to_owned();
            let allowed = place.roots(has_item);
            this.value(file, Some(here), &mut growing.distant, text, at, allowed);
            Some(Approval { message })
        };
        match tree {
            Tree::Null | Tree::Bool(false) => None,
            Tree::Bool(true) => Some(Approval::default()),
            Tree::String(_) => message(self, tree, &at),
            Tree::Map(entries) => {
                self.unknown_keys(entries, &at, &["message"], "approval");
                match tree.get("message") {
                    None | Some(Tree::Null) => Some(Approval::default()),
                    Some(text @ Tree::String(_)) => message(self, text, &at.key("message")),
                    Some(other) => {
                        self.wrong.value(
                            &at.key("message"),
                            format!("the message is a text, not {}", other.what()),
                        );
                        None
                    }
                }
            }
            other => {
                let message =
                    format!("'approval' is true, a text, or a map with message, not {}", other.what());
                self.wrong.value(&at, message);
                None
            }
        }
    }

    fn child(
        &mut self,
        place: &Place<'_>,
        growing: &mut Growing,
        entry: &Entry<'_>,
        has_item: bool,
    ) -> Option<Child> {
        let Place { file, here, at, tree } = *place;
        let vars = tree.get("vars").filter(|vars| **vars != Tree::Null);
        let vars_at = at.key("vars");
        let Some(workflow) = tree.get("workflow").filter(|workflow| **workflow != Tree::Null) else {
            if vars.is_some() {
                let message = "'vars' means nothing without 'workflow'";
                self.wrong.push(&vars_at, Spot::Key(0), message, || None);
            }
            return None;
        };
        let definition = self.workflow(workflow, &at.key("workflow"), Some(entry.name), file.level + 1)?;
        if let Some(vars) = vars {
            let allowed = place.roots(has_item);
            self.value(file, Some(here), &mut growing.distant, vars, &vars_at, allowed);
            match vars {
                Tree::Map(entries) => {
                    let known: Vec<&str> = definition.vars.keys().map(String::as_str).collect();
                    self.unknown_keys(entries, &vars_at, &known, "child's vars");
                }
                Tree::String(text) if text.contains(crate::rendering::OPEN) => {}
                other => {
                    let message = format!("'vars' is a map from names to values, not {}", other.what());
                    self.wrong.value(&vars_at, message);
                }
            }
        }
        let vars = vars.map_or(Value::Object(Map::new()), Tree::to_value);
        Some(Child { definition: Box::new(definition), vars })
    }

    /// A yes or no; no when absent.
    pub(super) fn flag(&mut self, tree: &Tree, at: &At<'_>, key: &str) -> bool {
        match tree.get(key) {
            None | Some(Tree::Null) => false,
            Some(Tree::Bool(value)) => *value,
            Some(other) => {
                self.wrong.value(&at.key(key), format!("'{key}' is true or false, not {}", other.what()));
                false
            }
        }
    }

    /// A number from 1 to `most`.
    pub(super) fn count(&mut self, tree: &Tree, at: &At<'_>, key: &str, most: u64) -> Option<u32> {
        let tree = tree.get(key).filter(|tree| **tree != Tree::Null)?;
        let number = match tree {
            Tree::Number(number) => number.as_u64().filter(|number| (1..=most).contains(number)),
            _ => None,
        };
        if number.is_none() {
            let message = format!("'{key}' is {}; allowed: a whole number from 1 to {most}", shown(tree));
            self.wrong.value(&at.key(key), message);
        }
        number.and_then(|number| u32::try_from(number).ok())
    }

    /// A text.
    pub(super) fn text<'t>(&mut self, tree: &'t Tree, at: &At<'_>, key: &str) -> Option<&'t str> {
        match tree.get(key)? {
            Tree::Null => None,
            Tree::String(text) => Some(text),
            other => {
                self.wrong.value(&at.key(key), format!("'{key}' is a text, not {}", other.what()));
                None
            }
        }
    }
}

fn shown(tree: &Tree) -> String {
    match tree {
        Tree::Number(number) => number.to_string(),
        other => other.what().to_owned(),
    }
}

/// A task and where it is.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) file: &'a File<'a>,
    pub(super) here: Here<'a>,
    pub(super) at: &'a At<'a>,
    pub(super) tree: &'a Tree,
}

impl Place<'_> {
    /// What expressions may begin with.
    fn roots(&self, has_item: bool) -> Roots {
        let mut allowed = roots(&[Root::Vars, Root::Inputs, Root::Tasks, Root::Run]);
        if has_item || self.file.has_items {
            allowed.insert(Root::Item);
            allowed.insert(Root::Index);
        }
        allowed
    }
}

fn body_roots(place: &Place<'_>, extra: &Extra) -> Roots {
    let mut allowed = place.roots(place.tree.get("foreach").is_some());
    if extra.repeat.is_some() || place.tree.get("loop").is_some() {
        allowed.insert(Root::Loop);
    }
    allowed
}
