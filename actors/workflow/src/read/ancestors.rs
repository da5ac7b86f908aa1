//! Whether what an expression reads comes before the task that reads it.
//!
//! Most references name a task that is directly before; those never come here. The others are looked for
//! backwards, a few steps each; what has not been found then is decided for 64 targets at a time in one
//! pass over the graph.

use rustc_hash::FxHashSet;

use super::task::Distant;
use crate::Node;

/// Nodes that are looked at for one reference before it is decided in bulk.
const STEPS: usize = 64;

/// The references whose target is not before their node.
pub(super) fn not_before(nodes: &[Node], levels: &[Vec<u32>], distant: &[Distant]) -> Vec<usize> {
    if distant.is_empty() {
        return Vec::new();
    }
    let mut level_of = vec![0_u32; nodes.len()];
    for (level, members) in (0..).zip(levels) {
        for &node in members {
            level_of[node as usize] = level;
        }
    }
    let mut bad = Vec::new();
    let mut open = Vec::new();
    for (index, reference) in distant.iter().enumerate() {
        match search(nodes, &level_of, reference) {
            Some(true) => {}
            Some(false) => bad.push(index),
            None => open.push(index),
        }
    }
    bad.extend(in_bulk(nodes, levels, distant, open));
    bad.sort_unstable();
    bad
}

/// Looks backwards, but not far.
fn search(nodes: &[Node], level_of: &[u32], reference: &Distant) -> Option<bool> {
    let lowest = level_of[reference.target as usize];
    let mut seen = FxHashSet::default();
    let mut stack = vec![reference.node];
    let mut steps = 0;
    while let Some(node) = stack.pop() {
        for edge in &nodes[node as usize].after {
            if edge.node == reference.target {
                return Some(true);
            }
            steps += 1;
            if steps > STEPS {
                return None;
            }
            if level_of[edge.node as usize] > lowest && seen.insert(edge.node) {
                stack.push(edge.node);
            }
        }
    }
    Some(false)
}

/// For each 64 targets: a bit for each of them travels along the edges.
fn in_bulk(nodes: &[Node], levels: &[Vec<u32>], distant: &[Distant], mut open: Vec<usize>) -> Vec<usize> {
    let mut bad = Vec::new();
    if open.is_empty() {
        return bad;
    }
    open.sort_unstable_by_key(|&index| distant[index].target);
    let mut reached = vec![0_u64; nodes.len()];
    let mut rest = &open[..];
    while !rest.is_empty() {
        let mut targets: Vec<u32> = Vec::new();
        let mut taken = 0;
        for &index in rest {
            let target = distant[index].target;
            if targets.last() != Some(&target) {
                if targets.len() == 64 {
                    break;
                }
                targets.push(target);
            }
            taken += 1;
        }
        let bit = |node: u32| targets.binary_search(&node).map_or(0, |bit| 1_u64 << bit);
        for &node in levels.iter().flatten() {
            let before = nodes[node as usize].after.iter().map(|edge| reached[edge.node as usize]);
            reached[node as usize] = before.fold(bit(node), |all, one| all | one);
        }
        let (block, later) = rest.split_at(taken);
        let is_bad = |index: &&usize| {
            let reference = &distant[**index];
            reached[reference.node as usize] & bit(reference.target) == 0
        };
        bad.extend(block.iter().filter(is_bad));
        rest = later;
    }
    bad
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Edge, On, graph};
    use proptest::prelude::*;

    fn nodes(count: usize, edges: &[(u32, u32)]) -> Vec<Node> {
        let node = |index: usize| Node {
            name: index.to_string().into(),
            after: edges
                .iter()
                .filter(|(_, after)| *after as usize == index)
                .map(|(before, _)| Edge { node: *before, on: On::Success })
                .collect(),
            template: None,
            extra: None,
        };
        (0..count).map(node).collect()
    }

    proptest! {
        #[test]
        fn as_a_naive_search(
            edges in prop::collection::vec((0_u32..200, 0_u32..200), 0..600),
            pairs in prop::collection::vec((0_u32..200, 0_u32..200), 1..100),
        ) {
            let edges: Vec<_> = edges.into_iter().filter(|(a, b)| a < b).collect();
            let nodes = nodes(200, &edges);
            let levels = graph::levels(200, edges.iter().copied()).expect("no cycle");
            let distant: Vec<Distant> = pairs
                .iter()
                .map(|(node, target)| Distant { node: *node, target: *target, pointer: String::new(), offset: 0 })
                .filter(|one| one.node != one.target)
                .collect();
            let bad = not_before(&nodes, &levels, &distant);
            let all = in_bulk(&nodes, &levels, &distant, (0..distant.len()).collect());
            for (index, one) in distant.iter().enumerate() {
                let mut seen = [false; 200];
                let mut stack = vec![one.node];
                while let Some(node) = stack.pop() {
                    for edge in &nodes[node as usize].after {
                        if !std::mem::replace(&mut seen[edge.node as usize], true) {
                            stack.push(edge.node);
                        }
                    }
                }
                let expect = !seen[one.target as usize];
                prop_assert_eq!(bad.contains(&index), expect);
                prop_assert_eq!(all.contains(&index), expect);
            }
        }
    }
}
