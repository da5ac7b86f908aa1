//! What becomes of a run when its workflow is replaced: which node is which, and what happens to each.
//!
//! Pure: two definitions, where each old node stands and what was asked go in; the fate of each new
//! node and of each old one that is no longer there comes out. A preview shows it, the kernel does it.
//!
//! The rules: a node is the one of the same name, unless somebody says otherwise. What has ended stays
//! as it ended. What has not begun is decided on by the new definition. What is at work finishes as it
//! began, unless it is to begin anew. Nobody's work is thrown away without being asked for.

use std::collections::BTreeMap;

use agentflow_workflow::{Definition, Edge, Extra, References, Root};
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::Value;

use crate::status::Status;

/// Names of new nodes with the old one that each is; `None` for one that is none of the old ones.
pub type Named = BTreeMap<Box<str>, Option<Box<str>>>;

/// Two definitions that a run has one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// What it had.
    pub old: &'a Definition,
    /// What it was given beside it.
    pub old_inputs: &'a Value,
    /// What it gets.
    pub new: &'a Definition,
    /// What it is given beside that.
    pub new_inputs: &'a Value,
}

/// What is asked beside the new definition.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Names of new nodes that run again with everything after them.
    pub restart_from: &'a [Box<str>],
    /// Whether what is at work on something else begins anew, or is stopped if it is no longer there.
    pub restart: bool,
}

/// Where a node of the old definition stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// No worker has it.
    Waiting,
    /// A worker has it; it may have begun.
    AtWork,
    /// A worker has it, and what it is at is of an older version.
    Outdated,
    /// A worker has it and was told to stop.
    Stopping,
    /// Its items or its child run have begun.
    Parts,
    /// It has ended so.
    Ended(Status),
}

/// What becomes of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is new, and begins when its turn comes.
    New,
    /// It has ended and stays as it ended.
    Kept,
    /// It has ended, and runs again or is decided on again.
    Again,
    /// It has not begun: it does what the new definition says, when its turn comes.
    Waits,
    /// It is at work, and that is what the new definition says.
    GoesOn,
    /// It is at work and finishes as it began; an attempt after this one does what the new definition
    /// says.
    Finishes,
    /// It is at work, and begins anew.
    Restarts,
    /// It is no longer there; no worker has it.
    Removed,
    /// It is no longer there, and what is at work on it is stopped.
    Stopped,
    /// It is at work on something that would be lost: the upgrade is refused.
    Refused,
}

impl Fate {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Kept => "kept",
            Self::Again => "again",
            Self::Waits => "waits",
            Self::GoesOn => "goes_on",
            Self::Finishes => "finishes",
            Self::Restarts => "restarts",
            Self::Removed => "removed",
            Self::Stopped => "stopped",
            Self::Refused => "refused",
        }
    }
}

/// A node of the new definition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapped {
    /// Which old node it is.
    pub old: Option<u32>,
    /// Whether it does something else than before, is to run again, or comes after what has not ended:
    /// what was decided on it before does not hold.
    pub is_changed: bool,
    /// What becomes of it.
    pub fate: Fate,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// Every new node, in the order of the new definition.
    pub nodes: Vec<Mapped>,
    /// Every old node that is no longer there, rising.
    pub removed: Vec<(u32, Fate)>,
}

/// What was asked does not fit the definitions.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MappingError {
    /// `map` names a node that the new definition does not have.
    #[error("the new workflow has no node '{0}'")]
    NotNew(Box<str>),
    /// `map` names a node that the run does not have.
    #[error("the run has no node '{0}'")]
    NotOld(Box<str>),
    /// Two new nodes are said to be the same old one.
    #[error("the run's node '{0}' can be one node of the new workflow only")]
    Twice(Box<str>),
    /// `restart_from` names a node that the new definition does not have.
    #[error("the new workflow has no node '{0}' to restart from")]
    NoStart(Box<str>),
}

impl MappingError {
    /// The field of the request that is wrong.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::NotNew(_) | Self::NotOld(_) | Self::Twice(_) => "/map",
            Self::NoStart(_) => "/restart_from",
        }
    }
}

/// Which old node each new one is, in the order of the new definition.
///
/// # Errors
/// A name is not there, or an old node is named twice.
fn match_nodes(old: &Definition, new: &Definition, named: &Named) -> Result<Vec<Option<u32>>, MappingError> {
    let (old_names, new_names) = (old.names(), new.names());
    let mut taken = FxHashSet::default();
    for (name, was) in named {
        if !new_names.contains_key(&**name) {
            return Err(MappingError::NotNew(name.clone()));
        }
        let Some(was) = was else { continue };
        let place = old_names.get(&**was).ok_or_else(|| MappingError::NotOld(was.clone()))?;
        if !taken.insert(*place) {
            return Err(MappingError::Twice(was.clone()));
        }
    }
    let place = |name: &str| match named.get(name) {
        Some(Some(was)) => old_names.get(&**was).copied(),
        Some(None) => None,
        None => old_names.get(name).copied().filter(|place| !taken.contains(place)),
    };
    Ok(new.nodes.iter().map(|node| place(&node.name)).collect())
}

impl Mapping {
    /// Works out what becomes of each node.
    ///
    /// # Errors
    /// A name in `named` is not there, or an old node is named twice; or a node to restart from is not there.
    pub fn new(
        change: Change<'_>,
        named: &Named,
        wish: Wish<'_>,
        standing: impl Fn(u32) -> Standing,
    ) -> Result<Self, MappingError> {
        let olds = match_nodes(change.old, change.new, named)?;
        let again = downstream(change.new, wish.restart_from)?;
        let compared = Compared::new(change, &olds);
        let mut nodes: Vec<Mapped> = (0..)
            .zip(&olds)
            .map(|(node, old)| {
                let is_again = again.contains(&node);
                let is_other = |old| standing(old) == Standing::Outdated || compared.is_other(node, old);
                let is_changed = is_again || old.is_none_or(is_other);
                let fate = match old {
                    None => Fate::New,
                    Some(old) => match standing(*old) {
                        Standing::Waiting => Fate::Waits,
                        Standing::Ended(_) if is_again => Fate::Again,
                        Standing::Ended(_) => Fate::Kept,
                        Standing::Parts if is_again || !compared.has_same_parts(node, *old) => Fate::Refused,
                        Standing::Parts => Fate::GoesOn,
                        Standing::Stopping if is_changed && (is_again || wish.restart) => Fate::Refused,
                        _ if is_changed && wish.restart => Fate::Restarts,
                        _ if is_again => Fate::Refused,
                        _ if is_changed => Fate::Finishes,
                        Standing::AtWork | Standing::Outdated | Standing::Stopping => Fate::GoesOn,
                    },
                };
                Mapped { old: *old, is_changed, fate }
            })
            .collect();
        follow(change.new, &compared.reads, &mut nodes, &standing, wish.restart);
        let kept: FxHashSet<u32> = olds.iter().copied().flatten().collect();
        let count = u32::try_from(change.old.nodes.len()).unwrap_or(u32::MAX);
        let gone = (0..count).filter(|old| !kept.contains(old));
        let removed = gone.map(|old| {
            let fate = match standing(old) {
                Standing::Waiting | Standing::Ended(_) => Fate::Removed,
                Standing::Stopping => Fate::Stopped,
                Standing::AtWork | Standing::Outdated if wish.restart => Fate::Stopped,
                Standing::AtWork | Standing::Outdated | Standing::Parts => Fate::Refused,
            };
            (old, fate)
        });
        Ok(Self { removed: removed.collect(), nodes })
    }

    /// Whether a run that had ended would go on.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.nodes.iter().any(|node| !matches!(node.fate, Fate::Kept))
    }

    /// The names of nodes for which the upgrade is refused.
    pub fn refused<'a>(&'a self, old: &'a Definition, new: &'a Definition) -> impl Iterator<Item = &'a str> {
        let is_refused = |fate: Fate| fate == Fate::Refused;
        let kept = new.nodes.iter().zip(&self.nodes).filter(move |(_, mapped)| is_refused(mapped.fate));
        let gone = self.removed.iter().filter(move |(_, fate)| is_refused(*fate));
        let gone = gone.filter_map(|(place, _)| old.nodes.get(*place as usize));
        kept.map(|(node, _)| node).chain(gone).map(|node| &*node.name)
    }
}

/// These nodes and everything after them.
fn downstream(definition: &Definition, from: &[Box<str>]) -> Result<FxHashSet<u32>, MappingError> {
    let (names, successors) = (definition.names(), definition.successors());
    let mut open = Vec::new();
    for name in from {
        open.push(*names.get(&**name).ok_or_else(|| MappingError::NoStart(name.clone()))?);
    }
    let mut found: FxHashSet<u32> = open.iter().copied().collect();
    while let Some(node) = open.pop() {
        open.extend(successors.of(node).iter().map(|(after, _)| *after).filter(|after| found.insert(*after)));
    }
    Ok(found)
}

/// What was decided on a node holds only as long as everything before it, and everything that it reads,
/// has ended. In the order in which what comes before is known before.
fn follow(
    definition: &Definition,
    reads: &Reads,
    nodes: &mut [Mapped],
    standing: &impl Fn(u32) -> Standing,
    restart: bool,
) {
    let mut is_any_open = false;
    for node in definition.plan().into_iter().flatten() {
        // Whatever else has not ended had not under the old workflow either.
        let is_new = |node: u32| matches!(nodes[node as usize].fate, Fate::New | Fate::Again);
        is_any_open |= is_new(node);
        let Mapped { old: Some(old), fate, is_changed } = nodes[node as usize] else { continue };
        let is_open = definition.nodes[node as usize].after.iter().any(|edge| is_new(edge.node))
            || reads.of(node).iter().any(|read| is_new(*read))
            || (is_any_open && reads.all.contains(&node));
        let fate = match (fate, standing(old)) {
            // It did nothing that could be kept: another reason, another decision.
            (Fate::Kept, Standing::Ended(Status::Skipped)) if is_changed || is_open => Fate::Again,
            (Fate::Waits, _) if is_open => Fate::Waits,
            (Fate::GoesOn, Standing::Parts) if is_open => Fate::Refused,
            (Fate::GoesOn, Standing::Stopping) if is_open && restart => Fate::Refused,
            (Fate::GoesOn, _) if is_open && restart => Fate::Restarts,
            (Fate::GoesOn, _) if is_open => Fate::Finishes,
            _ => continue,
        };
        nodes[node as usize] = Mapped { old: Some(old), is_changed: true, fate };
        is_any_open |= fate == Fate::Again;
    }
}

/// Which nodes the expressions of each node read, besides those that it comes after.
#[derive(Default)]
struct Reads {
    named: FxHashMap<u32, Vec<u32>>,
    /// Nodes that may read any.
    all: FxHashSet<u32>,
    /// Nodes that read the run's variables, and its inputs.
    vars: FxHashSet<u32>,
    inputs: FxHashSet<u32>,
}

impl Reads {
    fn new(definition: &Definition) -> Self {
        let (mut reads, names) = (Self::default(), definition.names());
        definition.each_reference(|node, References { tasks, roots, all_tasks, .. }| {
            let places = tasks.iter().filter_map(|name| names.get(&*definition.name_for(node, name)));
            let places: Vec<u32> = places.copied().collect();
            if !places.is_empty() {
                reads.named.entry(node).or_default().extend(places);
            }
            if *all_tasks {
                reads.all.insert(node);
            }
            if roots.contains(Root::Vars) {
                reads.vars.insert(node);
            }
            if roots.contains(Root::Inputs) {
                reads.inputs.insert(node);
            }
        });
        reads
    }

    fn of(&self, node: u32) -> &[u32] {
        self.named.get(&node).map_or(&[], Vec::as_slice)
    }
}

/// The two definitions, ready to be compared node by node.
struct Compared<'a> {
    change: Change<'a>,
    olds: &'a [Option<u32>],
    /// Of the new one, and of the old one.
    reads: Reads,
    old_reads: Reads,
    other_vars: bool,
    other_inputs: bool,
}

impl<'a> Compared<'a> {
    fn new(change: Change<'a>, olds: &'a [Option<u32>]) -> Self {
        // One more variable changes nothing for those who do not know it.
        let other_vars = change.old.vars.iter().any(|(name, value)| change.new.vars.get(name) != Some(value));
        let other_inputs = change.old_inputs != change.new_inputs;
        let (reads, old_reads) = (Reads::new(change.new), Reads::new(change.old));
        Self { change, olds, reads, old_reads, other_vars, other_inputs }
    }

    /// Whether its expressions read another value than before, or the same name of another node.
    fn reads_otherwise(&self, new: u32, old: u32) -> bool {
        let is = |node: &u32| self.old_of(*node);
        (self.other_vars && self.reads.vars.contains(&new))
            || (self.other_inputs && self.reads.inputs.contains(&new))
            || sorted(self.reads.of(new).iter().map(is))
                != sorted(self.old_reads.of(old).iter().copied().map(Some))
    }

    /// Whether the new node does something else than the old one, or comes after something else.
    fn is_other(&self, new: u32, old: u32) -> bool {
        let Change { old: before, new: after, .. } = self.change;
        let (old_node, new_node) = (&before.nodes[old as usize], &after.nodes[new as usize]);
        let body = |definition: &'a Definition, template: Option<u32>| {
            template
                .and_then(|place| definition.templates.get(place as usize))
                .map(|template| &*template.body)
        };
        let nothing = Extra::default();
        let (old_extra, new_extra) =
            (old_node.extra.as_deref().unwrap_or(&nothing), new_node.extra.as_deref().unwrap_or(&nothing));
        let with_places = Extra {
            input_from: new_extra.input_from.and_then(|place| self.old_of(place)),
            files_from: new_extra.files_from.iter().filter_map(|place| self.old_of(*place)).collect(),
            ..new_extra.clone()
        };
        self.reads_otherwise(new, old)
            || body(before, old_node.template) != body(after, new_node.template)
            || new_extra.input_from.is_some() != with_places.input_from.is_some()
            || new_extra.files_from.len() != with_places.files_from.len()
            || *old_extra != with_places
            || self.edges(&new_node.after) != edges_of(&old_node.after)
    }

    /// Whether items or a child that have begun are still what the node consists of. What each item
    /// does may be something else: that holds for those that have not begun.
    fn has_same_parts(&self, new: u32, old: u32) -> bool {
        let Change { old: before, new: after, .. } = self.change;
        let (old_node, new_node) = (&before.nodes[old as usize], &after.nodes[new as usize]);
        let (Some(old_extra), Some(new_extra)) = (&old_node.extra, &new_node.extra) else { return false };
        !self.reads_otherwise(new, old)
            && (&old_extra.foreach, &old_extra.collect, &old_extra.child)
                == (&new_extra.foreach, &new_extra.collect, &new_extra.child)
            && self.edges(&new_node.after) == edges_of(&old_node.after)
    }

    fn old_of(&self, new: u32) -> Option<u32> {
        self.olds.get(new as usize).copied().flatten()
    }

    /// Edges from old nodes, in any order; those from new ones point nowhere.
    fn edges(&self, edges: &[Edge]) -> Vec<(Option<u32>, agentflow_workflow::On)> {
        sorted(edges.iter().map(|edge| (self.old_of(edge.node), edge.on)))
    }
}

fn edges_of(edges: &[Edge]) -> Vec<(Option<u32>, agentflow_workflow::On)> {
    sorted(edges.iter().map(|edge| (Some(edge.node), edge.on)))
}

fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort_unstable();
    items
}

#[cfg(test)]
mod tests;
