//! Order in a directed graph whose nodes are the numbers below a count: cycles and levels.
//!
//! Nothing here knows what a node is, so that plain relationships between tasks use it too. Both
//! functions take time in proportion to nodes and edges.

/// For each node the nodes that come after it, in two flat lists.
struct Outgoing {
    offsets: Vec<u32>,
    targets: Vec<u32>,
}

impl Outgoing {
    fn new(count: usize, edges: impl Iterator<Item = (u32, u32)> + Clone) -> Self {
        let mut offsets = vec![0_u32; count + 1];
        for (before, _) in edges.clone() {
            offsets[before as usize + 1] += 1;
        }
        for at in 1..offsets.len() {
            offsets[at] += offsets[at - 1];
        }
        let mut next = offsets.clone();
        let mut targets = vec![0; offsets[count] as usize];
        for (before, after) in edges {
            let slot = &mut next[before as usize];
            targets[*slot as usize] = after;
            *slot += 1;
        }
        Self { offsets, targets }
    }

    fn of(&self, node: u32) -> &[u32] {
        let from = self.offsets[node as usize] as usize;
        let to = self.offsets[node as usize + 1] as usize;
        &self.targets[from..to]
    }
}

/// A cycle, if there is one: its nodes in order, the first of them again at the end. `edges` are
/// (before, after), both below `count`.
pub fn find_cycle(count: usize, edges: impl Iterator<Item = (u32, u32)> + Clone) -> Option<Vec<u32>> {
    levels(count, edges).err()
}

/// The nodes in levels: the first come after nothing, each other comes after something in the level
/// before its own. Each level is in the order of the numbers. `edges` are (before, after), both below
/// `count`.
///
/// # Errors
/// A cycle: its nodes in order, the first of them again at the end.
pub fn levels(
    count: usize,
    edges: impl Iterator<Item = (u32, u32)> + Clone,
) -> Result<Vec<Vec<u32>>, Vec<u32>> {
    let outgoing = Outgoing::new(count, edges.clone());
    let mut waiting = vec![0_u32; count];
    for (_, after) in edges.clone() {
        waiting[after as usize] += 1;
    }
    let mut level: Vec<u32> = (0..).zip(&waiting).filter(|(_, n)| **n == 0).map(|(node, _)| node).collect();
    let mut levels = Vec::new();
    let mut settled = 0;
    while !level.is_empty() {
        settled += level.len();
        let mut next = Vec::new();
        for &node in &level {
            for &after in outgoing.of(node) {
                waiting[after as usize] -= 1;
                if waiting[after as usize] == 0 {
                    next.push(after);
                }
            }
        }
        next.sort_unstable();
        levels.push(level);
        level = next;
    }
    if settled == count { Ok(levels) } else { Err(cycle_among(&waiting, edges)) }
}

/// The nodes that still wait each have one before them that waits too: going back long enough ends in
/// a cycle.
fn cycle_among(waiting: &[u32], edges: impl Iterator<Item = (u32, u32)>) -> Vec<u32> {
    const NONE: u32 = u32::MAX;
    let mut before = vec![NONE; waiting.len()];
    for (from, to) in edges {
        // Of several the last one keeps the cycle short more often: files are written forwards.
        if waiting[from as usize] > 0 && waiting[to as usize] > 0 {
            before[to as usize] = from;
        }
    }
    let Some(start) = (0..).zip(waiting).find(|(_, n)| **n > 0).map(|(node, _)| node) else {
        return Vec::new();
    };
    let mut node: u32 = start;
    for _ in 0..waiting.len() {
        node = before[node as usize];
    }
    let mut cycle = vec![node];
    let mut at = before[node as usize];
    while at != node {
        cycle.push(at);
        at = before[at as usize];
    }
    cycle.reverse();
    // It begins with the node that comes first in the file.
    let first = (0..cycle.len()).min_by_key(|&at| cycle[at]).unwrap_or_default();
    cycle.rotate_left(first);
    cycle.push(cycle[0]);
    cycle
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(count: usize, edges: &[(u32, u32)], expect: Result<&[&[u32]], &[u32]>) {
        let have = levels(count, edges.iter().copied());
        let expect = expect
            .map(|levels| levels.iter().map(|level| level.to_vec()).collect::<Vec<_>>())
            .map_err(<[u32]>::to_vec);
        assert_eq!(have, expect, "{edges:?}");
        assert_eq!(find_cycle(count, edges.iter().copied()), expect.err());
    }

    #[test]
    fn small_graphs() {
        check(0, &[], Ok(&[]));
        check(2, &[], Ok(&[&[0, 1]]));
        check(2, &[(1, 0)], Ok(&[&[1], &[0]]));
        check(4, &[(0, 1), (0, 2), (1, 3), (2, 3)], Ok(&[&[0], &[1, 2], &[3]]));
        check(3, &[(0, 1), (0, 1), (1, 2), (0, 2)], Ok(&[&[0], &[1], &[2]]));
        check(1, &[(0, 0)], Err(&[0, 0]));
        check(2, &[(0, 1), (1, 0)], Err(&[0, 1, 0]));
        check(5, &[(4, 3), (3, 2), (2, 4), (0, 1), (4, 1)], Err(&[2, 4, 3, 2]));
    }

    proptest! {
        #[test]
        fn levels_respect_edges_or_a_cycle_is_one(
            count in 1_usize..20,
            edges in prop::collection::vec((0_u32..20, 0_u32..20), 0..60),
        ) {
            let edges: Vec<_> = edges
                .into_iter()
                .map(|(a, b)| (a % count as u32, b % count as u32))
                .collect();
            match levels(count, edges.iter().copied()) {
                Ok(levels) => {
                    let mut of = vec![usize::MAX; count];
                    for (number, level) in levels.iter().enumerate() {
                        for &node in level {
                            of[node as usize] = number;
                        }
                    }
                    prop_assert!(of.iter().all(|level| *level != usize::MAX));
                    for (before, after) in edges {
                        prop_assert!(of[before as usize] < of[after as usize]);
                    }
                }
                Err(cycle) => {
                    prop_assert!(cycle.len() >= 2 && cycle.first() == cycle.last());
                    for pair in cycle.windows(2) {
                        prop_assert!(edges.contains(&(pair[0], pair[1])));
                    }
                }
            }
        }
    }
}
