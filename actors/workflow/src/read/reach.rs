//! Nodes that can never run, because they want the same node to complete and to fail.
//!
//! A node that runs only when F has failed (`on_failure: F`, and nothing else in it) cannot run together
//! with anything that needs F. So whatever needs both, directly or by way of others, never runs.

use std::collections::HashSet;

use rustc_hash::FxBuildHasher;

use crate::{Node, On};

type Set = HashSet<u32, FxBuildHasher>;

/// Nodes that are looked at in all: what would take longer is found when the run comes to it.
const STEPS: usize = 2_000_000;

/// Each such node, with the node that it wants both of.
pub(super) fn never(nodes: &[Node], levels: &[Vec<u32>]) -> Vec<(u32, u32)> {
    let mut steps = STEPS;
    let mut found: Vec<(u32, u32)> = Vec::new();
    let mut successors: Option<Vec<Vec<(u32, On)>>> = None;
    // In the order of the graph, so that what is found is the first of its line.
    for &handler in levels.iter().flatten() {
        found.extend(every_failure_needed(&nodes[handler as usize]).map(|failed| (handler, failed)));
        let Some(failed) = only_failure(&nodes[handler as usize]) else {
            continue;
        };
        let successors = successors.get_or_insert_with(|| forward(nodes));
        // Whatever runs only if the handler has completed…
        let mut with_handler = closure(successors, handler, |on| on == On::Success, &mut steps);
        with_handler.insert(handler);
        // …and whatever runs only if the failed one has not failed.
        let without_failure =
            closure(successors, failed, |on| matches!(on, On::Success | On::Order), &mut steps);
        let mut both: Vec<u32> = with_handler.intersection(&without_failure).copied().collect();
        both.sort_unstable();
        // Of a line of them only the first: the others follow from it.
        let first = |node: &u32| {
            let before = &nodes[*node as usize].after;
            !before.iter().any(|edge| edge.on == On::Success && both.contains(&edge.node))
        };
        found.extend(both.iter().copied().filter(first).map(|node| (node, failed)));
        if steps == 0 {
            break;
        }
    }
    found.sort_unstable();
    found.dedup_by_key(|(node, _)| *node);
    found
}

/// The one node that must have failed, if there is just one.
fn only_failure(node: &Node) -> Option<u32> {
    let mut failures = node.after.iter().filter(|edge| edge.on == On::Failure);
    let first = failures.next()?;
    failures.next().is_none().then_some(first.node)
}

/// One of several nodes one of which must have failed, if all of them must not.
fn every_failure_needed(node: &Node) -> Option<u32> {
    let needed = |failed: u32| {
        node.after.iter().any(|edge| edge.node == failed && matches!(edge.on, On::Success | On::Order))
    };
    let mut failures = node.after.iter().filter(|edge| edge.on == On::Failure).map(|edge| edge.node);
    let first = failures.clone().next()?;
    failures.all(needed).then_some(first)
}

fn forward(nodes: &[Node]) -> Vec<Vec<(u32, On)>> {
    let mut successors = vec![Vec::new(); nodes.len()];
    for (node, after) in nodes.iter().zip(0..) {
        for edge in &node.after {
            successors[edge.node as usize].push((after, edge.on));
        }
    }
    successors
}

/// Everything behind a node by edges of those kinds.
fn closure(successors: &[Vec<(u32, On)>], start: u32, follow: impl Fn(On) -> bool, steps: &mut usize) -> Set {
    let mut seen = Set::default();
    let mut stack = vec![start];
    while let Some(node) = stack.pop() {
        for &(after, on) in &successors[node as usize] {
            *steps = steps.saturating_sub(1);
            if *steps == 0 {
                return Set::default();
            }
            if follow(on) && seen.insert(after) {
                stack.push(after);
            }
        }
    }
    seen
}
