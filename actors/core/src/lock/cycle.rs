//! Who waits for whom, and whether somebody would wait for himself.

use std::collections::BTreeMap;

use petgraph::algo::astar;
use petgraph::graphmap::DiGraphMap;

use super::LockOwner;

/// The graph of those who wait: an edge leads from who waits to who holds, or stands before him.
#[derive(Debug, Default)]
pub struct WaitsFor {
    graph: DiGraphMap<u32, ()>,
    numbers: BTreeMap<LockOwner, u32>,
    owners: Vec<LockOwner>,
}

impl WaitsFor {
    fn number(&mut self, owner: &LockOwner) -> u32 {
        if let Some(number) = self.numbers.get(owner) {
            return *number;
        }
        let number = u32::try_from(self.owners.len()).unwrap_or(u32::MAX);
        self.owners.push(owner.clone());
        self.numbers.insert(owner.clone(), number);
        number
    }

    /// Notes that one waits for another.
    pub fn add(&mut self, waits: &LockOwner, holds: &LockOwner) {
        let (from, to) = (self.number(waits), self.number(holds));
        self.graph.add_edge(from, to, ());
    }

    /// Whether all of this owner's edges are here already.
    #[must_use]
    pub fn knows(&self, owner: &LockOwner) -> bool {
        self.numbers.get(owner).is_some_and(|number| self.graph.neighbors(*number).next().is_some())
    }

    /// A shortest way from an owner back to himself: he waits for the second, who waits for the third,
    /// and so on up to the last, who waits for him.
    #[must_use]
    pub fn cycle(&self, owner: &LockOwner) -> Option<Vec<LockOwner>> {
        let start = *self.numbers.get(owner)?;
        let ways = self.graph.neighbors(start).filter_map(|first| {
            let (_, way) = astar(&self.graph, first, |node| node == start, |_| 1_u32, |_| 0)?;
            Some(way)
        });
        let way = ways.min_by_key(Vec::len)?;
        let owners = way[..way.len() - 1].iter().map(|number| self.owners[*number as usize].clone());
        Some(std::iter::once(owner.clone()).chain(owners).collect())
    }
}

/// A cycle for people: `task:1 waits for task:2, which waits for task:1`.
#[must_use]
pub fn describe(cycle: &[LockOwner]) -> String {
    let mut text = String::new();
    for (at, owner) in cycle.iter().enumerate() {
        let link = match at {
            0 => "",
            1 => " waits for ",
            _ => ", which waits for ",
        };
        text.push_str(link);
        text.push_str(&owner.to_string());
    }
    if let Some(first) = cycle.first() {
        let link = if cycle.len() == 1 { " waits for " } else { ", which waits for " };
        text.push_str(link);
        text.push_str(&first.to_string());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TaskId;

    fn task(number: u64) -> LockOwner {
        LockOwner::Task(TaskId(number))
    }

    #[test]
    fn a_cycle_is_found_and_named() {
        let mut graph = WaitsFor::default();
        graph.add(&task(1), &task(2));
        graph.add(&task(2), &task(3));
        assert_eq!(graph.cycle(&task(1)), None);
        graph.add(&task(3), &task(1));
        let cycle = graph.cycle(&task(3)).expect("a cycle");
        assert_eq!(cycle, [task(3), task(1), task(2)]);
        assert_eq!(
            describe(&cycle),
            "task:3 waits for task:1, which waits for task:2, which waits for task:3"
        );
        assert_eq!(graph.cycle(&task(9)), None);
    }
}
