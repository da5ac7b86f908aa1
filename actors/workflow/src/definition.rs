//! A workflow as it is kept: nodes in the order of the file, their edges, and the bodies of their
//! tasks, equal ones once.
//!
//! A definition knows nothing of the file it came from (no positions, no mode's rules): the reader has
//! turned those into edges. Its canonical JSON is the blob whose hash a run pins.

use std::fmt;
use std::str::FromStr;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Extra, References, Rendering, graph, nearest};

mod text;

pub(crate) use text::present;

/// A workflow as it is kept.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Its name.
    pub name: Box<str>,
    /// How the order of its nodes was given.
    pub mode: Mode,
    /// How many of its tasks may run at once; unlimited when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<u32>,
    /// Whether the first failure cancels the others.
    #[serde(default, skip_serializing_if = "is_false")]
    pub fail_fast: bool,
    /// What `vars` holds: the defaults, and after [`Definition::instantiate`] what was given.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub vars: Map<String, Value>,
    /// A pipeline's items: a list, or a string holding one expression. None once instantiated.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "text::present")]
    pub items: Option<Value>,
    /// Bodies of tasks, equal ones once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<Template>,
    /// In the order of the file.
    pub nodes: Vec<Node>,
}

/// How the order of the nodes is given.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// One after the other.
    Sequential,
    /// All at once.
    Parallel,
    /// By `needs`.
    #[default]
    Dag,
    /// One after the other, each taking the output of the one before.
    Pipeline,
    /// By `needs`; `when` decides which run.
    Conditional,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 5] =
        [Self::Sequential, Self::Parallel, Self::Dag, Self::Pipeline, Self::Conditional];

    /// Its word in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Parallel => "parallel",
            Self::Dag => "dag",
            Self::Pipeline => "pipeline",
            Self::Conditional => "conditional",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is no [`Mode`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{word}' is no mode; allowed: sequential, parallel, dag, pipeline, conditional")]
pub struct UnknownMode {
    /// The word.
    pub word: String,
    /// What was probably meant.
    pub hint: Option<String>,
}

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(word: &str) -> Result<Self, UnknownMode> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == word).ok_or_else(|| UnknownMode {
            word: word.to_owned(),
            hint: nearest::hint(word, Self::ALL.map(Self::as_str)),
        })
    }
}

/// One step of a workflow. Small, since there may be 100,000; what few nodes have is in the box.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Unique in its definition.
    pub name: Box<str>,
    /// What it comes after, in the order of the file.
    #[serde(default, skip_serializing_if = "<[Edge]>::is_empty")]
    pub after: Box<[Edge]>,
    /// The body of its task in [`Definition::templates`]; none for a milestone, or a node that is only
    /// a child or an approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<u32>,
    /// What few nodes have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Box<Extra>>,
}

const _: () = assert!(size_of::<Node>() <= 48);
const _: () = assert!(size_of::<Edge>() <= 8);

/// What a node comes after. At most two edges join the same two nodes: one of [`On::Success`],
/// [`On::Order`] and [`On::Settled`] (the strictest that was asked for), and one [`On::Failure`] beside
/// it where that changes the outcome.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Edge {
    /// The index of the node that comes before.
    pub node: u32,
    /// How it must have ended.
    pub on: On,
}

/// How the node before must have ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// It must have completed (`needs`).
    Success,
    /// It must not have failed; skipped by its condition is fine (`sequential`, `pipeline`).
    Order,
    /// Any end will do (`continue_on_failure`, or the node's own `when` reads the other's status).
    Settled,
    /// It must have failed (`on_failure`). Of several such edges one is enough.
    Failure,
}

/// The body of a task: a JSON object as it would be posted to create a task. Its strings may hold
/// expressions.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Canonical JSON: keys sorted, no blanks.
    #[serde(serialize_with = "text::serialize_raw", deserialize_with = "text::deserialize_raw")]
    pub body: Box<str>,
    /// Whether any of its strings holds an expression.
    #[serde(default, skip_serializing_if = "is_false")]
    pub has_expressions: bool,
}

impl Template {
    /// The body as a value.
    #[must_use]
    pub fn value(&self) -> Value {
        // The reader has written it; a definition's text was checked when it was read.
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// A definition's text that is none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the text is no workflow definition: {0}")]
pub struct BrokenDefinition(pub String);

impl Definition {
    /// The canonical text: fields in a fixed order, keys of maps sorted, defaults left out.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Every key is a string and every body is JSON, so that this cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what [`Definition::to_json`] wrote.
    ///
    /// # Errors
    /// When it is something else, or its indices point nowhere.
    pub fn from_json(text: &str) -> Result<Self, BrokenDefinition> {
        let definition: Self =
            serde_json::from_str(text).map_err(|error| BrokenDefinition(error.to_string()))?;
        definition.check_indices().map_err(BrokenDefinition)?;
        Ok(definition)
    }

    fn check_indices(&self) -> Result<(), String> {
        let nodes = self.nodes.len();
        let inside = |index: u32, count: usize| (index as usize) < count;
        for node in &self.nodes {
            let extra = node.extra.as_deref();
            let input_from = extra.and_then(|extra| extra.input_from);
            let files_from = extra.map_or(&[][..], |extra| &extra.files_from);
            if !node.after.iter().all(|edge| inside(edge.node, nodes))
                || !node.template.is_none_or(|template| inside(template, self.templates.len()))
                || !input_from.iter().chain(files_from).all(|before| inside(*before, nodes))
            {
                return Err(format!("node '{}' points nowhere", node.name));
            }
            if let Some(child) = extra.and_then(|extra| extra.child.as_ref()) {
                child.definition.check_indices()?;
            }
        }
        graph::levels(nodes, self.edges()).map(drop).map_err(|cycle| {
            let names: Vec<&str> = cycle.iter().map(|&node| &*self.nodes[node as usize].name).collect();
            format!("a cycle: {}", names.join(" -> "))
        })
    }

    /// Every edge as (before, after).
    pub fn edges(&self) -> impl Iterator<Item = (u32, u32)> + Clone + '_ {
        let numbered = self.nodes.iter().zip(0_u32..);
        numbered.flat_map(|(node, after)| node.after.iter().map(move |edge| (edge.node, after)))
    }

    /// The edges the other way round.
    #[must_use]
    pub fn successors(&self) -> Successors {
        Successors::new(self)
    }

    /// The nodes in levels: each comes after something in the level before it. Each level is in the
    /// order of the file.
    #[must_use]
    pub fn plan(&self) -> Vec<Vec<u32>> {
        // The reader has refused cycles.
        graph::levels(self.nodes.len(), self.edges()).unwrap_or_default()
    }

    /// The names of [`Definition::plan`].
    #[must_use]
    pub fn plan_names(&self) -> Vec<Vec<&str>> {
        let names = |level: Vec<u32>| level.iter().map(|&node| &*self.nodes[node as usize].name).collect();
        self.plan().into_iter().map(names).collect()
    }

    /// The index of that node; looks at one after the other. For many names see
    /// [`Definition::names`].
    #[must_use]
    pub fn find(&self, name: &str) -> Option<u32> {
        self.nodes.iter().zip(0..).find(|(node, _)| &*node.name == name).map(|(_, index)| index)
    }

    /// The index of every node by its name.
    #[must_use]
    pub fn names(&self) -> FxHashMap<&str, u32> {
        self.nodes.iter().map(|node| &*node.name).zip(0..).collect()
    }

    /// Shows what the expressions of each node read, one after the other.
    pub fn each_reference(&self, mut see: impl FnMut(u32, &References)) {
        let of_value = |value: &Value| Rendering::new(value).ok().map(|found| found.references().clone());
        let templates: Vec<Option<References>> = self
            .templates
            .iter()
            .map(|template| template.has_expressions.then(|| of_value(&template.value())).flatten())
            .collect();
        for (node, body) in (0..).zip(&self.nodes) {
            if let Some(Some(references)) = body.template.and_then(|place| templates.get(place as usize)) {
                see(node, references);
            }
            let Some(extra) = &body.extra else { continue };
            for expression in extra.when.iter().chain(extra.repeat.as_ref().map(|repeat| &repeat.until)) {
                see(node, expression.references());
            }
            let message = extra.approval.as_ref().map(|approval| Value::from(approval.message.as_str()));
            let child = extra.child.as_ref().map(|child| &child.vars);
            for value in extra.foreach.iter().chain(&extra.collect).chain(&message).chain(child) {
                if let Some(references) = of_value(value) {
                    see(node, &references);
                }
            }
        }
    }

    /// How that node's `tasks.NAME` is called: in a pipeline with items, the stage of the same item.
    #[must_use]
    pub fn name_for(&self, node: u32, name: &str) -> String {
        let extra = self.nodes.get(node as usize).and_then(|node| node.extra.as_deref());
        match extra.and_then(|extra| extra.index.filter(|_| extra.item.is_some())) {
            Some(index) => format!("{name}[{index}]"),
            None => name.to_owned(),
        }
    }
}

/// For each node the edges that leave it, in two flat lists.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Successors {
    /// Where each node's edges begin; one more entry than nodes.
    pub offsets: Vec<u32>,
    /// The node that comes after, and on what.
    pub edges: Vec<(u32, On)>,
}

impl Successors {
    fn new(definition: &Definition) -> Self {
        let mut offsets = vec![0; definition.nodes.len() + 1];
        for (before, _) in definition.edges() {
            offsets[before as usize + 1] += 1;
        }
        for at in 1..offsets.len() {
            offsets[at] += offsets[at - 1];
        }
        let mut next = offsets.clone();
        let total = offsets.last().copied().unwrap_or_default();
        let mut edges = vec![(0, On::Success); total as usize];
        for (node, after) in definition.nodes.iter().zip(0..) {
            for edge in &node.after {
                let slot = &mut next[edge.node as usize];
                edges[*slot as usize] = (after, edge.on);
                *slot += 1;
            }
        }
        Self { offsets, edges }
    }

    /// The edges that leave a node.
    #[must_use]
    pub fn of(&self, node: u32) -> &[(u32, On)] {
        match self.offsets.get(node as usize..node as usize + 2) {
            Some(&[from, to]) => &self.edges[from as usize..to as usize],
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests;
