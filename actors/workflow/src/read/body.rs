//! The body of a task: its own fields over the defaults, as they would be posted.

use serde_json::{Map, Value};

use super::at::At;
use super::collector::Spot;
use super::file::{Growing, Reader};
use super::keys;
use super::task::{Entry, Place};
use crate::rendering::{OPEN, push_key};
use crate::tree::to_map;
use crate::{Roots, Template, Tree};

/// A body that grows.
struct Body {
    fields: Map<String, Value>,
    has_expressions: bool,
}

impl Reader<'_> {
    /// Makes the template of a task; none if there is nothing to do. `alone`: a child or an approval, which
    /// is no work by default.
    pub(super) fn body(
        &mut self,
        place: &Place<'_>,
        growing: &mut Growing,
        entry: &Entry<'_>,
        alone: bool,
        allowed: Roots,
    ) -> Option<u32> {
        let own: &[(Box<str>, Tree)] = match place.tree {
            Tree::Map(entries) => entries,
            _ => &[],
        };
        let field = |key: &str| keys::BODY.contains(&key) && !(key == "name" && entry.index.is_some());
        // The description of a child or an approval is for people, not for the shell.
        let works_by = |key: &str| keys::is_work(key) && !(alone && key == "description");
        let works = matches!(place.tree, Tree::String(_)) || own.iter().any(|(key, _)| works_by(key));
        let mut body = self.start(place, growing, works, allowed);
        for (key, value) in own.iter().filter(|(key, _)| field(key)) {
            let at = place.at.key(key);
            body.has_expressions |=
                self.value(place.file, Some(place.here), &mut growing.distant, value, &at, allowed);
            merge(&mut body.fields, key, value);
        }
        self.command(place, growing, &mut body, allowed);
        self.handler(place, growing, &mut body, allowed);
        if works || (!alone && body.fields.keys().any(|key| keys::is_work(key))) {
            return Some(self.template(place, growing, &body));
        }
        // A milestone; what else was said of it must be right all the same.
        if own.iter().any(|(key, _)| field(key)) {
            self.check_body(place, &body);
        }
        None
    }

    /// The defaults, without the work that the task replaces by its own.
    fn start(&mut self, place: &Place<'_>, growing: &mut Growing, works: bool, allowed: Roots) -> Body {
        let Some(Tree::Map(defaults)) = place.file.defaults else {
            return Body { fields: Map::new(), has_expressions: false };
        };
        let same_kind = place.tree.get("kind").is_some()
            && place.tree.get("kind") == place.file.defaults.and_then(|defaults| defaults.get("kind"));
        let kept = |key: &str| !works || same_kind || !keys::is_payload(key);
        // Defaults stand beside the tasks of their workflow.
        let pointer = place.at.pointer();
        let workflow = pointer.rfind("/tasks/").map_or("", |end| &pointer[..end]);
        let fields: Map<String, Value> = to_map(defaults).into_iter().filter(|(key, _)| kept(key)).collect();
        let mut has_expressions = false;
        for (key, value) in defaults.iter().filter(|(key, _)| kept(key)) {
            if has_expression(value) {
                has_expressions = true;
                let steps = format!("{workflow}/defaults");
                let owned: Vec<String> = steps.split('/').skip(1).map(str::to_owned).collect();
                with_at(&owned, &At::ROOT, &mut |at| {
                    let at = at.key(key);
                    self.value(place.file, Some(place.here), &mut growing.distant, value, &at, allowed);
                });
            }
        }
        Body { fields, has_expressions }
    }

    /// `run`, or the task itself as a text.
    fn command(&mut self, place: &Place<'_>, growing: &mut Growing, body: &mut Body, allowed: Roots) {
        let run_at = place.at.key("run");
        let (run, at) = match place.tree {
            Tree::String(_) => (place.tree, place.at),
            tree => match tree.get("run") {
                Some(run) => (run, &run_at),
                None => return,
            },
        };
        let Some(command) = run.as_str() else {
            return self.wrong.value(at, format!("'run' is a command as text, not {}", run.what()));
        };
        if place.tree.get("command").is_some() {
            let message = "'run' and 'command' are the same; leave one out";
            return self.wrong.push(at, Spot::Key(0), message, || None);
        }
        body.has_expressions |=
            self.value(place.file, Some(place.here), &mut growing.distant, run, at, allowed);
        if place.tree.get("kind").is_none() {
            body.fields.insert("kind".to_owned(), Value::from("shell"));
        }
        body.fields.insert("command".to_owned(), Value::from(command));
    }

    /// `handler: {name, input}`.
    fn handler(&mut self, place: &Place<'_>, growing: &mut Growing, body: &mut Body, allowed: Roots) {
        let Some(handler) = place.tree.get("handler") else {
            return;
        };
        let at = place.at.key("handler");
        let Tree::Map(entries) = handler else {
            return self
                .wrong
                .value(&at, format!("'handler' is a map with name and input, not {}", handler.what()));
        };
        self.unknown_keys(entries, &at, &["name", "input"], "handler");
        if handler.get("name").is_none() {
            self.wrong.value(&at, "'name' is missing in 'handler'");
        }
        body.has_expressions |=
            self.value(place.file, Some(place.here), &mut growing.distant, handler, &at, allowed);
        if place.tree.get("kind").is_none() {
            body.fields.insert("kind".to_owned(), Value::from("handler"));
        }
        for (key, value) in entries {
            body.fields.insert(key.to_string(), value.to_value());
        }
    }

    /// The number of an equal template, or that of a new one which has been checked.
    fn template(&mut self, place: &Place<'_>, growing: &mut Growing, body: &Body) -> u32 {
        let mut value = Value::Object(body.fields.clone());
        value.sort_all_objects();
        let text: Box<str> = value.to_string().into();
        if let Some(&known) = growing.known.get(&text) {
            return known;
        }
        self.check_body(place, body);
        let number = u32::try_from(growing.templates.len()).unwrap_or(u32::MAX);
        growing.templates.push(Template { body: text.clone(), has_expressions: body.has_expressions });
        growing.known.insert(text, number);
        number
    }

    /// Asks what is wrong with a body. A check stops at a field of the wrong type; if that holds an
    /// expression, it is taken out and the rest is asked for again.
    fn check_body(&mut self, place: &Place<'_>, body: &Body) {
        let mut left: Option<Map<String, Value>> = None;
        let mut taken: Vec<String> = Vec::new();
        loop {
            let fields = left.as_ref().unwrap_or(&body.fields);
            let mut again = Vec::new();
            for (pointer, message) in self.check.check(fields) {
                let first = pointer.split('/').nth(1).unwrap_or_default().to_owned();
                if taken.contains(&first) {
                    continue;
                }
                if body.has_expressions && !first.is_empty() && holds_expression(fields, &pointer) {
                    again.push(first);
                } else {
                    self.report(place, &pointer, message);
                }
            }
            if again.is_empty() {
                return;
            }
            let fields = left.get_or_insert_with(|| body.fields.clone());
            again.iter().for_each(|key| drop(fields.remove(key)));
            taken.extend(again);
        }
    }

    /// Says it where the field was written.
    fn report(&mut self, place: &Place<'_>, pointer: &str, message: String) {
        let task = place.at.pointer();
        let run = pointer.strip_prefix("/command").map(|rest| format!("/run{rest}"));
        let handler = format!("/handler{pointer}");
        let in_task = |pointer: &str| !pointer.is_empty() && place.tree.pointer(pointer).is_some();
        let by_default = place.file.defaults.is_some_and(|defaults| defaults.pointer(pointer).is_some());
        let pointer = if in_task(pointer) {
            format!("{task}{pointer}")
        } else if let Some(run) = run.filter(|run| in_task(run)) {
            format!("{task}{run}")
        } else if in_task(&handler) {
            format!("{task}{handler}")
        } else if by_default && !pointer.is_empty() {
            let workflow = task.rfind("/tasks/").map_or("", |end| &task[..end]);
            format!("{workflow}/defaults{pointer}")
        } else {
            // What is missing is shown at the task.
            format!("{task}{pointer}")
        };
        self.wrong.push_at(pointer, Spot::Value, message, None);
    }
}

/// Walks down to a place whose keys are only known at run time.
fn with_at(keys: &[String], at: &At<'_>, inner: &mut dyn FnMut(&At<'_>)) {
    match keys {
        [] => inner(at),
        [first, rest @ ..] => {
            let first = first.replace("~1", "/").replace("~0", "~");
            with_at(rest, &at.key(&first), inner);
        }
    }
}

/// Puts a field over the default of the same name.
fn merge(fields: &mut Map<String, Value>, key: &str, value: &Tree) {
    if keys::is_merged(key)
        && let (Some(Value::Object(have)), Tree::Map(entries)) = (fields.get_mut(key), value)
    {
        for (key, value) in entries {
            have.insert(key.to_string(), value.to_value());
        }
        return;
    }
    fields.insert(key.to_owned(), value.to_value());
}

fn has_expression(tree: &Tree) -> bool {
    match tree {
        Tree::String(text) => text.contains(OPEN),
        Tree::List(items) => items.iter().any(has_expression),
        Tree::Map(entries) => entries.iter().any(|(_, value)| has_expression(value)),
        _ => false,
    }
}

/// Whether the value there, or one that it is in, is a text with an expression or has one in it.
fn holds_expression(fields: &Map<String, Value>, pointer: &str) -> bool {
    let mut steps = pointer.split('/').skip(1);
    let Some(first) = steps.next() else {
        return false;
    };
    let Some(mut value) = fields.get(&first.replace("~1", "/").replace("~0", "~")) else {
        return false;
    };
    for step in steps {
        let mut below = String::new();
        push_key(&mut below, &step.replace("~1", "/").replace("~0", "~"));
        match value.pointer(&below) {
            Some(inner) => value = inner,
            None => break,
        }
    }
    has_expression(&Tree::from(value))
}
