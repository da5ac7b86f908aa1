//! The order of a run's nodes: which may begin, which never will, and how it all ends.
//!
//! Pure and small: eight bytes a node beside the definition. A node that ends counts its successors'
//! waits down, so that an end costs as much as it has edges. What is to be done comes out of
//! [`Graph::next_step`], one node at a time; who does it tells of the begin and the end.
//!
//! ```text
//! Waiting ── all before it have ended ──► open ──next──► Step::Begin ──begin──► Active ──end──► ended
//!                                              └──next──► Step::Skip ─────────────────────end──► ended
//! ```
//!
//! Invariants: a node is given out once; nothing is given out before everything before it has ended;
//! each node ends once; at most `max_parallel` are active.

use std::collections::VecDeque;
use std::sync::Arc;

use agentflow_workflow::{Definition, On, Successors};

use super::RunStatus;
use crate::status::Status;

/// Where a node stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeStatus {
    /// Something before it has not ended, or nobody has decided on it yet.
    Waiting,
    /// It has begun.
    Active,
    /// It has begun and occupies nothing: it waits for an approval, or consists of parts.
    Open,
    /// It ended well.
    Completed,
    /// It ended badly.
    Failed,
    /// It was stopped.
    Cancelled,
    /// A condition kept it from running; what comes after may go on.
    Skipped,
    /// A failure before it kept it from running, and keeps what comes after.
    Barred,
}

impl NodeStatus {
    /// As users see its task.
    #[must_use]
    pub fn status(self) -> Option<Status> {
        match self {
            Self::Waiting | Self::Active | Self::Open => None,
            Self::Completed => Some(Status::Completed),
            Self::Failed => Some(Status::Failed),
            Self::Cancelled => Some(Status::Cancelled),
            Self::Skipped | Self::Barred => Some(Status::Skipped),
        }
    }

    fn has_ended(self) -> bool {
        !matches!(self, Self::Waiting | Self::Active | Self::Open)
    }

    /// Whether it stops what needs it.
    fn bars(self) -> bool {
        matches!(self, Self::Failed | Self::Cancelled | Self::Barred)
    }
}

#[derive(Clone, Copy, Debug)]
struct NodeState {
    status: NodeStatus,
    /// Nodes before it that have not ended, each as often as there are edges.
    waits: u32,
}

const _: () = assert!(size_of::<NodeState>() <= 8);

/// What is to be done with a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Decide on its condition and begin it.
    Begin,
    /// It is never run. Tell of its end as [`NodeStatus::Skipped`] or [`NodeStatus::Barred`].
    Skip {
        /// The end to tell.
        end: NodeStatus,
        /// Because of which node.
        because: u32,
    },
    /// The run was told to stop. Tell of its end as [`NodeStatus::Cancelled`].
    Cancel,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Graph {
    definition: Arc<Definition>,
    successors: Successors,
    nodes: Vec<NodeState>,
    /// Nodes on which may be decided, in the order in which that became so.
    open: VecDeque<u32>,
    active: u32,
    unended: u32,
    paused: bool,
    stop: Option<Stop>,
}

/// A run that was told to stop.
#[derive(Clone, Copy, Debug)]
struct Stop {
    /// How far the sweep over its nodes has come.
    at: u32,
    /// Somebody asked for it; otherwise a node failed.
    asked: bool,
}

impl Graph {
    /// A run of which nothing has begun.
    #[must_use]
    pub fn new(definition: Arc<Definition>) -> Self {
        let wait = |node: &agentflow_workflow::Node| u32::try_from(node.after.len()).unwrap_or(u32::MAX);
        let nodes: Vec<NodeState> = definition
            .nodes
            .iter()
            .map(|node| NodeState { status: NodeStatus::Waiting, waits: wait(node) })
            .collect();
        let open = (0..).zip(&nodes).filter(|(_, state)| state.waits == 0).map(|(node, _)| node).collect();
        let unended = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        let successors = definition.successors();
        Self { definition, successors, nodes, open, active: 0, unended, paused: false, stop: None }
    }

    /// The run as it was when each of `ended` had ended so and each of `active` had begun. A skipped
    /// node's reason is worked out again from those before it.
    #[must_use]
    pub fn restore(
        definition: Arc<Definition>,
        ended: impl Iterator<Item = (u32, Status)>,
        active: impl Iterator<Item = u32>,
    ) -> Self {
        let mut graph = Self::new(definition);
        let mut known: Vec<Option<Status>> = vec![None; graph.nodes.len()];
        for (node, status) in ended {
            if let Some(known) = known.get_mut(node as usize) {
                *known = Some(status);
            }
        }
        // In an order in which what comes before is known before.
        for node in graph.definition.plan().into_iter().flatten() {
            let end = match known[node as usize] {
                Some(Status::Completed) => NodeStatus::Completed,
                Some(Status::Failed) => NodeStatus::Failed,
                Some(Status::Cancelled) => NodeStatus::Cancelled,
                Some(Status::Skipped) => match graph.judge(node) {
                    Step::Skip { end, .. } => end,
                    Step::Begin | Step::Cancel => NodeStatus::Skipped,
                },
                _ => continue,
            };
            graph.end(node, end);
        }
        for node in active {
            graph.begin(node);
        }
        graph
    }

    /// Where a node stands.
    #[must_use]
    pub fn status(&self, node: u32) -> NodeStatus {
        self.nodes.get(node as usize).map_or(NodeStatus::Waiting, |state| state.status)
    }

    /// Nodes that have not ended.
    #[must_use]
    pub fn unended(&self) -> u32 {
        self.unended
    }

    /// Whether one more may begin.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.paused
            && self.stop.is_none()
            && self.definition.max_parallel.is_none_or(|limit| self.active < limit)
    }

    /// Nodes before this one that have not ended.
    pub fn unended_before(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        let before = self.definition.nodes.get(node as usize).map_or(&[][..], |node| &node.after);
        before.iter().map(|edge| edge.node).filter(|node| !self.status(*node).has_ended())
    }

    /// Begins nothing more until [`Graph::resume`].
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// Goes on.
    pub fn resume(&mut self) {
        self.paused = false;
    }

    /// Gives out every node that has not begun as [`Step::Cancel`], and nothing else any more.
    /// `asked` says that it was somebody's wish: the run then ends as cancelled.
    pub fn stop(&mut self, asked: bool) {
        self.stop.get_or_insert(Stop { at: 0, asked }).asked |= asked;
    }

    /// Whether [`Graph::stop`] was called.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.is_some()
    }

    /// Whether somebody asked for it, if [`Graph::stop`] was called.
    #[must_use]
    pub fn stop_was_asked(&self) -> Option<bool> {
        self.stop.map(|stop| stop.asked)
    }

    /// What is to be done next. The node that is given out must begin or end before the next call.
    pub fn next_step(&mut self) -> Option<(u32, Step)> {
        if let Some(stop) = self.stop {
            return self.next_to_cancel(stop);
        }
        if self.paused {
            return None;
        }
        while let Some(&node) = self.open.front() {
            let state = self.nodes[node as usize];
            // It was given out already, or what comes before it is to run again.
            if state.status != NodeStatus::Waiting || state.waits > 0 {
                self.open.pop_front();
                continue;
            }
            let step = self.judge(node);
            if step == Step::Begin && !self.has_room() {
                return None;
            }
            self.open.pop_front();
            return Some((node, step));
        }
        None
    }

    fn next_to_cancel(&mut self, stop: Stop) -> Option<(u32, Step)> {
        let count = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let node = (stop.at..count).find(|node| self.status(*node) == NodeStatus::Waiting);
        self.stop = Some(Stop { at: node.map_or(count, |node| node + 1), ..stop });
        node.map(|node| (node, Step::Cancel))
    }

    /// What becomes of a node before which everything has ended.
    fn judge(&self, node: u32) -> Step {
        let (mut needs, mut skipped) = (0, None);
        let (mut triggers, mut triggered) = (None, false);
        for edge in &self.definition.nodes[node as usize].after {
            let before = self.status(edge.node);
            match edge.on {
                On::Success | On::Order if before.bars() => {
                    return Step::Skip { end: NodeStatus::Barred, because: edge.node };
                }
                On::Success => {
                    if before == NodeStatus::Skipped {
                        skipped.get_or_insert(edge.node);
                    } else {
                        needs += 1;
                    }
                }
                On::Order | On::Settled => {}
                On::Failure => {
                    triggers.get_or_insert(edge.node);
                    triggered |= before == NodeStatus::Failed;
                }
            }
        }
        match (triggers, skipped) {
            (Some(because), _) if !triggered => Step::Skip { end: NodeStatus::Skipped, because },
            // What needs only skipped tasks is skipped.
            (_, Some(because)) if needs == 0 => Step::Skip { end: NodeStatus::Skipped, because },
            _ => Step::Begin,
        }
    }

    /// A node has begun.
    pub fn begin(&mut self, node: u32) {
        if let Some(state) = self.nodes.get_mut(node as usize)
            && state.status == NodeStatus::Waiting
        {
            state.status = NodeStatus::Active;
            self.active += 1;
        }
    }

    /// A node has begun, and occupies nothing itself.
    pub fn open(&mut self, node: u32) {
        if let Some(state) = self.nodes.get_mut(node as usize)
            && state.status == NodeStatus::Waiting
        {
            state.status = NodeStatus::Open;
        }
    }

    /// An open node is to be given out again: what it waited for has come.
    pub fn reopen(&mut self, node: u32) {
        if let Some(state) = self.nodes.get_mut(node as usize)
            && state.status == NodeStatus::Open
        {
            state.status = NodeStatus::Waiting;
            self.open.push_front(node);
        }
    }

    /// A node that has begun waits again, before all others: its run is paused.
    pub fn unbegin(&mut self, node: u32) {
        if let Some(state) = self.nodes.get_mut(node as usize)
            && state.status == NodeStatus::Active
        {
            state.status = NodeStatus::Waiting;
            self.active = self.active.saturating_sub(1);
            self.open.push_front(node);
        }
    }

    /// Nodes that have ended are to run again, or to be decided on again. Whatever comes after them
    /// and is not among them stays as it ended.
    pub fn rewind(&mut self, nodes: &[u32]) {
        self.stop = None;
        for node in nodes {
            if let Some(state) = self.nodes.get_mut(*node as usize)
                && state.status.has_ended()
            {
                state.status = NodeStatus::Waiting;
                self.unended += 1;
            }
        }
        for node in nodes {
            if self.status(*node) != NodeStatus::Waiting {
                continue;
            }
            let waits = self.unended_before(*node).count();
            self.nodes[*node as usize].waits = u32::try_from(waits).unwrap_or(u32::MAX);
            if waits == 0 {
                self.open.push_back(*node);
            }
        }
    }

    /// These nodes and those after them that depend on them: all of them, or only those that were
    /// kept from running.
    #[must_use]
    pub fn affected(&self, from: &[u32], only_skipped: bool) -> Vec<u32> {
        let mut found: std::collections::BTreeSet<u32> = from.iter().copied().collect();
        let mut open: Vec<u32> = from.to_vec();
        while let Some(node) = open.pop() {
            for (after, _) in self.successors.of(node) {
                let was_kept = matches!(self.status(*after), NodeStatus::Skipped | NodeStatus::Barred);
                let is_affected = !only_skipped || was_kept || !self.status(*after).has_ended();
                if is_affected && found.insert(*after) {
                    open.push(*after);
                }
            }
        }
        found.into_iter().collect()
    }

    /// The same nodes and edges with other bodies.
    pub fn redefine(&mut self, definition: Arc<Definition>) {
        debug_assert_eq!(self.definition.nodes.len(), definition.nodes.len());
        self.definition = definition;
    }

    /// Nodes that failed or were cancelled.
    #[must_use]
    pub fn failed(&self) -> Vec<u32> {
        let is_bad = |state: &NodeState| matches!(state.status, NodeStatus::Failed | NodeStatus::Cancelled);
        (0..).zip(&self.nodes).filter(|(_, state)| is_bad(state)).map(|(node, _)| node).collect()
    }

    /// One more thing runs on behalf of an open node: an item of a `foreach`.
    pub fn begin_part(&mut self) {
        self.active += 1;
    }

    /// A part has ended.
    pub fn end_part(&mut self) {
        self.active = self.active.saturating_sub(1);
    }

    /// A node has ended, begun or not. A second end changes nothing.
    pub fn end(&mut self, node: u32, end: NodeStatus) {
        debug_assert!(end.has_ended());
        let Some(state) = self.nodes.get_mut(node as usize) else { return };
        if state.status.has_ended() {
            return;
        }
        if state.status == NodeStatus::Active {
            self.active = self.active.saturating_sub(1);
        }
        state.status = end;
        self.unended -= 1;
        for &(after, _) in self.successors.of(node) {
            let state = &mut self.nodes[after as usize];
            state.waits = state.waits.saturating_sub(1);
            if state.waits == 0 && state.status == NodeStatus::Waiting {
                self.open.push_back(after);
            }
        }
    }

    /// How the run ended, once every node has: and because of which node it failed.
    #[must_use]
    pub fn outcome(&self) -> Option<(RunStatus, Option<u32>)> {
        if self.unended > 0 {
            return None;
        }
        let unhandled = |(node, state): &(u32, &NodeState)| match state.status {
            NodeStatus::Failed => !self.is_handled(*node),
            NodeStatus::Cancelled => true,
            _ => false,
        };
        let failed = |node: &u32| self.status(*node) == NodeStatus::Failed;
        // What failed says more than what was stopped because of it.
        let cause = (0..).zip(&self.nodes).find(unhandled).map(|(node, _)| node).map(|first| {
            let count = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
            (first..count).find(|node| failed(node) && !self.is_handled(*node)).unwrap_or(first)
        });
        Some(match cause {
            Some(_) if self.stop.is_some_and(|stop| stop.asked) => (RunStatus::Cancelled, None),
            Some(node) => (RunStatus::Failed, Some(node)),
            None => (RunStatus::Completed, None),
        })
    }

    /// Whether an `on_failure` of that node has run well.
    fn is_handled(&self, node: u32) -> bool {
        let handles =
            |&(after, on): &(u32, On)| on == On::Failure && self.status(after) == NodeStatus::Completed;
        self.successors.of(node).iter().any(handles)
    }
}
