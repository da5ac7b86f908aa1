//! What expressions see.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, Value as Inner};
use serde_json::{Map, Value};

use crate::expression::{from_json, from_map};
use crate::{References, Root};

/// What expressions see. Built once for a task, cloned and given its item for each of a `foreach`: a
/// clone copies a few pointers.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    vars: Option<Inner>,
    inputs: Option<Inner>,
    run: Option<Inner>,
    tasks: Arc<BTreeMap<Box<str>, Inner>>,
    item: Option<(Inner, u32)>,
    own: Option<Inner>,
    iteration: Option<u32>,
}

/// What is known of a task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaskValue<'a> {
    /// Its status as the API says it.
    pub status: &'a str,
    /// Its outputs as JSON text, or why they cannot be read.
    pub outputs: Result<Option<&'a str>, String>,
    /// Its output as text, or why it cannot be read.
    pub result: Result<Option<&'a str>, String>,
}

/// A [`TaskValue`] ready for expressions; a clone copies a pointer.
#[derive(Clone, Debug)]
pub struct TaskView(Inner);

impl TaskValue<'_> {
    /// Reads the texts; what is no JSON is nothing.
    #[must_use]
    pub fn view(&self) -> TaskView {
        let outputs = match &self.outputs {
            Ok(text) => match text.and_then(|text| serde_json::from_str(text).ok()) {
                None | Some(Value::Null) => from_json(&Value::Object(Map::new())),
                Some(outputs) => from_json(&outputs),
            },
            Err(why) => unreadable(why),
        };
        let result = match &self.result {
            Ok(text) => text.map_or(Inner::from(()), Inner::from),
            Err(why) => unreadable(why),
        };
        TaskView(Inner::from_pairs([
            ("status", Inner::from(self.status)),
            ("outputs", outputs),
            ("result", result),
        ]))
    }
}

/// Whoever looks into it fails, and says why.
fn unreadable(why: &str) -> Inner {
    Inner::from(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, why.to_owned()))
}

impl Scope {
    /// One that shows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With `vars`.
    #[must_use]
    pub fn vars(mut self, vars: &Map<String, Value>) -> Self {
        self.vars = Some(from_map(vars));
        self
    }

    /// With `inputs`; nothing (null) is an empty object.
    #[must_use]
    pub fn inputs(mut self, inputs: &Value) -> Self {
        self.inputs = Some(match inputs {
            Value::Null => from_json(&Value::Object(Map::new())),
            inputs => from_json(inputs),
        });
        self
    }

    /// With `run`.
    #[must_use]
    pub fn run(mut self, run: &Value) -> Self {
        self.run = Some(from_json(run));
        self
    }

    /// With one more task under `tasks`.
    #[must_use]
    pub fn task(mut self, name: &str, task: &TaskView) -> Self {
        Arc::make_mut(&mut self.tasks).insert(name.into(), task.0.clone());
        self
    }

    /// With `item` and its `index`, from 0.
    #[must_use]
    pub fn item(mut self, item: impl Borrow<Value>, index: u32) -> Self {
        self.item = Some((from_json(item.borrow()), index));
        self
    }

    /// With `self`: the task's own last time, in `loop.until`.
    #[must_use]
    pub fn own(mut self, task: &TaskView) -> Self {
        self.own = Some(task.0.clone());
        self
    }

    /// With `loop.iteration`: how often the task has run, from 1.
    #[must_use]
    pub fn iteration(mut self, iteration: u32) -> Self {
        self.iteration = Some(iteration);
        self
    }

    /// Whether everything is there that is read, as far as roots and tasks go.
    #[must_use]
    pub fn shows(&self, references: &References) -> bool {
        references.roots.iter().all(|root| self.get(root).is_some())
            && references.tasks.iter().all(|task| self.tasks.contains_key(task))
    }

    /// The value of a root.
    pub(crate) fn get(&self, root: Root) -> Option<Inner> {
        match root {
            Root::Vars => self.vars.clone(),
            Root::Inputs => self.inputs.clone(),
            Root::Tasks => Some(Inner::from_object(Tasks(Arc::clone(&self.tasks)))),
            Root::Item => self.item.as_ref().map(|(item, _)| item.clone()),
            Root::Index => self.item.as_ref().map(|(_, index)| Inner::from(*index)),
            Root::Run => self.run.clone(),
            Root::Own => self.own.clone(),
            Root::Loop => self.iteration.map(|iteration| Inner::from_pairs([("iteration", iteration)])),
        }
    }

    /// For the engine.
    pub(crate) fn to_value(&self) -> Inner {
        Inner::from_object(Roots(self.clone()))
    }
}

/// A scope as the engine looks into it.
#[derive(Debug)]
struct Roots(Scope);

impl Object for Roots {
    fn get_value(self: &Arc<Self>, key: &Inner) -> Option<Inner> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Inner> {
        self.0.get(Root::of(key)?)
    }
}

/// `tasks` as a map.
#[derive(Debug)]
struct Tasks(Arc<BTreeMap<Box<str>, Inner>>);

impl Object for Tasks {
    fn get_value(self: &Arc<Self>, key: &Inner) -> Option<Inner> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Inner> {
        self.0.get(key).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.keys().map(|name| Inner::from(&**name)).collect())
    }
}
