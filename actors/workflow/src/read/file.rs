//! One workflow of a file: its own keys, then its tasks.

use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Map, Value};

use super::at::At;
use super::collector::{Collector, Spot, Wrong};
use super::edges::Flow;
use super::task::{Distant, Entry};
use super::uses::Expressions;
use super::{CheckTask, ancestors, keys, reach};
use crate::rendering::OPEN;
use crate::tree::to_map;
use crate::{Definition, Mode, Node, Root, Template, Tree, graph, limits, nearest};

/// Cycles that are looked for in one workflow: each takes a pass over the graph.
const CYCLES: usize = 10;

/// Reads a file and the children in it.
pub(super) struct Reader<'c> {
    pub(super) check: &'c dyn CheckTask,
    pub(super) wrong: Collector,
    pub(super) expressions: Expressions,
    /// Nodes so far, those of children included.
    nodes: usize,
}

/// One workflow that is being read: what its tasks need to know of it.
pub(super) struct File<'t> {
    pub(super) mode: Mode,
    pub(super) has_items: bool,
    /// The index of each task.
    pub(super) names: FxHashMap<&'t str, u32>,
    pub(super) vars: Map<String, Value>,
    pub(super) defaults: Option<&'t Tree>,
    pub(super) level: usize,
}

/// What grows while tasks are read.
#[derive(Default)]
pub(super) struct Growing {
    pub(super) templates: Vec<Template>,
    pub(super) known: FxHashMap<Box<str>, u32>,
    pub(super) distant: Vec<Distant>,
}

/// Reads a whole document.
pub(super) fn read(tree: &Tree, check: &dyn CheckTask) -> Result<Definition, (Vec<Wrong>, usize)> {
    let mut reader =
        Reader { check, wrong: Collector::default(), expressions: Expressions::default(), nodes: 0 };
    let definition = if tree.is_deeper_than(limits::DEPTH) {
        let message = format!("the file is nested deeper than {} levels", limits::DEPTH);
        reader.wrong.value(&At::ROOT, message);
        None
    } else {
        reader.duplicates(tree, &At::ROOT);
        reader.workflow(tree, &At::ROOT, None, 0)
    };
    match definition {
        Some(definition) if reader.wrong.is_empty() => Ok(definition),
        _ => Err(reader.wrong.into_parts()),
    }
}

impl Reader<'_> {
    /// Every key that is given twice, anywhere.
    fn duplicates(&mut self, tree: &Tree, at: &At<'_>) {
        match tree {
            Tree::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.duplicates(item, &at.index(index));
                }
            }
            Tree::Map(entries) => {
                let mut seen: FxHashMap<&str, usize> = FxHashMap::default();
                let is_large = entries.len() > 12;
                for (number, (key, value)) in entries.iter().enumerate() {
                    let before = if is_large {
                        let count = seen.entry(key).or_default();
                        *count += 1;
                        *count - 1
                    } else {
                        entries[..number].iter().filter(|(have, _)| have == key).count()
                    };
                    let at = at.key(key);
                    if before > 0 {
                        self.wrong.push(&at, Spot::Key(before), format!("'{key}' is given twice"), || None);
                    }
                    self.duplicates(value, &at);
                }
            }
            _ => {}
        }
    }

    /// Reads a workflow; `parent` is the name of the task that it is the child of.
    pub(super) fn workflow(
        &mut self,
        tree: &Tree,
        at: &At<'_>,
        parent: Option<&str>,
        level: usize,
    ) -> Option<Definition> {
        if level > limits::CHILDREN {
            self.wrong.value(at, format!("child workflows are nested deeper than {}", limits::CHILDREN));
            return None;
        }
        let Tree::Map(entries) = tree else {
            let message = format!("a workflow is a map with 'version' and 'tasks', not {}", tree.what());
            self.wrong.value(at, message);
            return None;
        };
        self.unknown_keys(entries, at, &keys::FILE, "workflow");
        self.version(tree, at, parent.is_none());
        let mode = self.mode(tree, at);
        let name = self.workflow_name(tree, at, parent);
        let max_parallel = self.count(tree, at, "max_parallel", u64::from(u32::MAX));
        let fail_fast = self.flag(tree, at, "fail_fast");
        let continue_on_failure = self.continue_on_failure(tree, at, mode);
        let vars = self.vars(tree, at);
        let tasks_at = at.key("tasks");
        let entries = self.entries(tree.get("tasks"), at, &tasks_at)?;
        let mut file = File {
            mode,
            has_items: tree.get("items").is_some_and(|items| *items != Tree::Null),
            names: FxHashMap::default(),
            vars,
            defaults: self.defaults(tree, at),
            level,
        };
        self.names(&entries, &tasks_at, &mut file);
        let items = self.items(&file, tree, at);
        let mut growing = Growing::default();
        let mut flow = Flow::new(mode, continue_on_failure);
        let nodes: Vec<Node> = entries
            .iter()
            .zip(0..)
            .map(|(entry, index)| self.task(&file, &mut growing, &mut flow, entry, &tasks_at, index))
            .collect();
        self.order(&nodes, &entries, &tasks_at, &growing.distant, mode);
        let templates = growing.templates;
        Some(Definition { name, mode, max_parallel, fail_fast, vars: file.vars, items, templates, nodes })
    }

    /// Refuses keys that mean nothing.
    pub(super) fn unknown_keys(
        &mut self,
        entries: &[(Box<str>, Tree)],
        at: &At<'_>,
        known: &[&str],
        what: &str,
    ) {
        for (key, _) in entries {
            if !known.contains(&&**key) {
                self.unknown_key(key, at, known, what);
            }
        }
    }

    pub(super) fn unknown_key(&mut self, key: &str, at: &At<'_>, known: &[&str], what: &str) {
        let message = format!("'{key}' is unknown in a {what}");
        self.wrong.push(&at.key(key), Spot::Key(0), message, || nearest::hint(key, known.iter().copied()));
    }

    fn version(&mut self, tree: &Tree, at: &At<'_>, required: bool) {
        match tree.get("version") {
            Some(Tree::Number(number)) if number.as_u64() == Some(1) => {}
            Some(other) => {
                let message = format!("version {} is unknown; allowed: 1", other.to_value());
                self.wrong.value(&at.key("version"), message);
            }
            None if required => {
                self.wrong.hinted(&at.key("version"), "'version' is missing", "begin with version: 1");
            }
            None => {}
        }
    }

    fn mode(&mut self, tree: &Tree, at: &At<'_>) -> Mode {
        let Some(word) = self.text(tree, at, "mode") else {
            return Mode::default();
        };
        word.parse().unwrap_or_else(|error: crate::UnknownMode| {
            let message = error.to_string();
            self.wrong.push(&at.key("mode"), Spot::Value, message, || error.hint);
            Mode::default()
        })
    }

    fn workflow_name(&mut self, tree: &Tree, at: &At<'_>, parent: Option<&str>) -> Box<str> {
        let Some(name) = self.text(tree, at, "name") else {
            return parent.unwrap_or("workflow").into();
        };
        if name.is_empty() || name.len() > limits::NAME_BYTES || name.chars().any(char::is_control) {
            let bytes = limits::NAME_BYTES;
            let message =
                format!("the name is wrong; allowed: 1 to {bytes} bytes without control characters");
            self.wrong.value(&at.key("name"), message);
        }
        name.into()
    }

    fn continue_on_failure(&mut self, tree: &Tree, at: &At<'_>, mode: Mode) -> bool {
        let wanted = self.flag(tree, at, "continue_on_failure");
        if wanted && mode != Mode::Sequential {
            let message = format!("'continue_on_failure' means nothing in mode {mode}");
            let hint = "in other modes branches that do not need the failed task go on anyway";
            self.wrong.hinted(&at.key("continue_on_failure"), message, hint);
        }
        wanted
    }

    fn vars(&mut self, tree: &Tree, at: &At<'_>) -> Map<String, Value> {
        let at = at.key("vars");
        match tree.get("vars") {
            None | Some(Tree::Null) => Map::new(),
            Some(Tree::Map(entries)) => {
                for (key, value) in entries {
                    self.refuse_expressions(value, &at.key(key), "vars");
                }
                to_map(entries)
            }
            Some(other) => {
                self.wrong.value(&at, format!("'vars' is a map from names to values, not {}", other.what()));
                Map::new()
            }
        }
    }

    fn refuse_expressions(&mut self, tree: &Tree, at: &At<'_>, what: &str) {
        match tree {
            Tree::String(text) => {
                if let Some(offset) = text.find(OPEN) {
                    let message = format!("'{what}' holds no expressions");
                    let hint = || Some("write the expression where it is used".to_owned());
                    self.wrong.push(at, Spot::Inside(offset), message, hint);
                }
            }
            Tree::List(items) => {
                items
                    .iter()
                    .enumerate()
                    .for_each(|(i, item)| self.refuse_expressions(item, &at.index(i), what));
            }
            Tree::Map(entries) => {
                entries.iter().for_each(|(key, value)| self.refuse_expressions(value, &at.key(key), what));
            }
            _ => {}
        }
    }

    fn defaults<'t>(&mut self, tree: &'t Tree, at: &At<'_>) -> Option<&'t Tree> {
        let at = at.key("defaults");
        match tree.get("defaults")? {
            Tree::Null => None,
            defaults @ Tree::Map(entries) => {
                for (key, _) in entries {
                    if keys::TASK.contains(&&**key) {
                        let message = format!("'{key}' cannot be a default; it belongs to one task");
                        self.wrong.push(&at.key(key), Spot::Key(0), message, || None);
                    } else if !keys::BODY.contains(&&**key) {
                        self.unknown_key(key, &at, &keys::BODY, "task");
                    }
                }
                Some(defaults)
            }
            other => {
                self.wrong.value(&at, format!("'defaults' is a map of task fields, not {}", other.what()));
                None
            }
        }
    }

    fn items(&mut self, file: &File<'_>, tree: &Tree, at: &At<'_>) -> Option<Value> {
        let items = tree.get("items").filter(|items| **items != Tree::Null)?;
        let at = at.key("items");
        if file.mode != Mode::Pipeline {
            let message = format!("'items' means nothing in mode {}", file.mode);
            self.wrong.hinted(&at, message, "use mode: pipeline, or 'foreach' in a task");
            return None;
        }
        let allowed = super::uses::roots(&[Root::Vars, Root::Inputs]);
        self.list(file, None, &mut Vec::new(), items, &at, allowed)
    }

    /// The tasks as they are written, before anything in them is looked at.
    fn entries<'t>(
        &mut self,
        tasks: Option<&'t Tree>,
        at: &At<'_>,
        tasks_at: &At<'_>,
    ) -> Option<Vec<Entry<'t>>> {
        let entries = match tasks {
            None | Some(Tree::Null) => {
                let message = "'tasks' is missing: a map from names to tasks, or a list";
                self.wrong.value(if tasks.is_some() { tasks_at } else { at }, message);
                return None;
            }
            Some(Tree::Map(entries)) => entries.iter().map(|(name, tree)| Entry::keyed(name, tree)).collect(),
            Some(Tree::List(items)) => {
                let entry = |(index, tree)| self.listed(tree, index, tasks_at);
                items.iter().enumerate().map(entry).collect()
            }
            Some(other) => {
                let message =
                    format!("'tasks' is a map from names to tasks, or a list, not {}", other.what());
                self.wrong.value(tasks_at, message);
                return None;
            }
        };
        self.nodes += Vec::len(&entries);
        if entries.is_empty() {
            self.wrong.value(tasks_at, "there are no tasks");
        } else if self.nodes > limits::NODES {
            let message = format!("there are more than {} tasks", limits::NODES);
            self.wrong.hinted(
                tasks_at,
                message,
                "run one for each item with 'foreach', or start several runs",
            );
        } else {
            return Some(entries);
        }
        None
    }

    fn listed<'t>(&mut self, tree: &'t Tree, index: usize, tasks_at: &At<'_>) -> Entry<'t> {
        let at = tasks_at.index(index);
        let name = match tree.get("name") {
            Some(Tree::String(name)) => {
                if let Some(message) = keys::bad_name(name) {
                    self.wrong.value(&at.key("name"), message);
                }
                name
            }
            Some(other) => {
                self.wrong.value(&at.key("name"), format!("a task's name is a text, not {}", other.what()));
                ""
            }
            None => {
                let hint = "in a list each task is a map with 'name'";
                self.wrong.hinted(&at, "the task has no name", hint);
                ""
            }
        };
        Entry::listed(name, tree, index)
    }

    /// Numbers the tasks by their names.
    fn names<'t>(&mut self, entries: &[Entry<'t>], tasks_at: &At<'_>, file: &mut File<'t>) {
        let mut twice = FxHashSet::default();
        for (entry, index) in entries.iter().zip(0..) {
            let at = entry.at(tasks_at);
            // The names in a list have been looked at already.
            if entry.index.is_none()
                && let Some(message) = keys::bad_name(entry.name)
            {
                self.wrong.push(&at, Spot::Key(0), message, || None);
            }
            let before = file.names.insert(entry.name, index);
            if let Some(before) = before {
                file.names.insert(entry.name, before);
                // In a map it has been said already.
                if entry.index.is_some() && !entry.name.is_empty() && twice.insert((entry.name, index)) {
                    let message = format!("'{}' is given twice", entry.name);
                    self.wrong.hinted(&at.key("name"), message, "give one of them another name");
                }
            }
        }
        file.names.remove("");
    }

    /// What only the whole graph shows: cycles, nodes that can never run, references to what is not
    /// before.
    fn order(
        &mut self,
        nodes: &[Node],
        entries: &[Entry<'_>],
        tasks_at: &At<'_>,
        distant: &[Distant],
        mode: Mode,
    ) {
        let mut edges: Vec<(u32, u32)> = nodes
            .iter()
            .zip(0..)
            .flat_map(|(node, after)| node.after.iter().map(move |edge| (edge.node, after)))
            .collect();
        let mut cycles = 0;
        let levels = loop {
            let cycle = match graph::levels(nodes.len(), edges.iter().copied()) {
                Ok(levels) => break levels,
                Err(cycle) => cycle,
            };
            self.cycle(&cycle, entries, tasks_at, mode);
            cycles += 1;
            let [.., last, first] = cycle[..] else {
                return;
            };
            if cycles == CYCLES {
                return;
            }
            // Without this edge there may be another.
            edges.retain(|edge| *edge != (last, first));
        };
        if cycles > 0 {
            return;
        }
        for index in ancestors::not_before(nodes, &levels, distant) {
            let reference = &distant[index];
            let name = entries[reference.target as usize].name;
            let message = format!("'{name}' is not known here: it does not come before this task");
            let hint = Some(format!("add it to needs: {name}"));
            self.wrong.push_at(reference.pointer.clone(), Spot::Inside(reference.offset), message, hint);
        }
        for (node, other) in reach::never(nodes, &levels) {
            let entry = &entries[node as usize];
            let at = entry.at(tasks_at);
            let name = entries[other as usize].name;
            let message =
                format!("'{}' can never run: it needs '{name}' to complete and to fail", entry.name);
            let hint = || Some("take it out of needs or out of on_failure".to_owned());
            self.wrong.push(&at, entry.spot(), message, hint);
        }
    }

    fn cycle(&mut self, cycle: &[u32], entries: &[Entry<'_>], tasks_at: &At<'_>, mode: Mode) {
        let names: Vec<&str> = cycle.iter().map(|&node| entries[node as usize].name).collect();
        let [.., last, first] = names[..] else {
            return;
        };
        let entry = &entries[cycle[0] as usize];
        debug_assert_eq!(entry.name, first);
        let message = format!("a cycle: {}", line_of(&names));
        let hint = Some(match mode {
            Mode::Sequential | Mode::Pipeline => {
                format!("in mode {mode} each task comes after the one before it")
            }
            _ => format!("take '{last}' out of what '{first}' comes after"),
        });
        let at = entry.at(tasks_at);
        for field in ["needs", "on_failure"] {
            let field_at = at.key(field);
            match entry.tree.get(field) {
                Some(Tree::String(name)) if &**name == last => {
                    return self.wrong.push(&field_at, Spot::Value, message, || hint);
                }
                Some(Tree::List(needed)) => {
                    let position = needed.iter().position(|one| one.as_str() == Some(last));
                    if let Some(position) = position {
                        return self.wrong.push(&field_at.index(position), Spot::Value, message, || hint);
                    }
                }
                _ => {}
            }
        }
        self.wrong.push(&at, entry.spot(), message, || hint);
    }
}

/// The names of a cycle; of a long one its ends.
fn line_of(names: &[&str]) -> String {
    const ENDS: usize = 8;
    if names.len() <= 2 * ENDS {
        return names.join(" -> ");
    }
    let (first, last) = (&names[..ENDS], &names[names.len() - ENDS..]);
    let between = names.len() - 2 * ENDS;
    format!("{} -> … {between} more … -> {}", first.join(" -> "), last.join(" -> "))
}
