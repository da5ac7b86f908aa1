//! Which task each node of a run is.
//!
//! A run takes the numbers of its nodes in a row when it begins. An upgrade keeps the numbers of the
//! nodes that it keeps and takes new ones for the others, so that the row falls into ranges.

use crate::ids::TaskId;

/// Nodes that follow each other and whose tasks do so too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// The index of the first.
    pub node: u32,
    /// Its task.
    pub task: TaskId,
    /// How many, at least one.
    pub count: u32,
}

impl Range {
    fn end(&self) -> u32 {
        self.node + self.count
    }
}

/// The task of each node: ranges in the order of the nodes, without a gap, as few as there can be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Numbers {
    ranges: Vec<Range>,
    /// Places of the ranges in the order of their tasks.
    by_task: Vec<u32>,
}

impl Numbers {
    /// That many nodes with numbers from `first` on.
    #[must_use]
    pub fn row(first: TaskId, count: u32) -> Self {
        Self::of(if count == 0 { Vec::new() } else { vec![Range { node: 0, task: first, count }] })
    }

    /// The ranges as they were kept; `None` if there are none or they do not follow each other.
    #[must_use]
    pub fn from_ranges(ranges: Vec<Range>) -> Option<Self> {
        let mut next = 0;
        for range in &ranges {
            if range.node != next || range.count == 0 {
                return None;
            }
            next = range.node.checked_add(range.count)?;
        }
        (!ranges.is_empty()).then(|| Self::of(ranges))
    }

    fn of(ranges: Vec<Range>) -> Self {
        let mut by_task: Vec<u32> = (0..).zip(&ranges).map(|(place, _)| place).collect();
        by_task.sort_unstable_by_key(|place| ranges[*place as usize].task);
        Self { ranges, by_task }
    }

    /// The ranges, to be kept.
    #[must_use]
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// How many nodes there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.ranges.last().map_or(0, Range::end)
    }

    /// Whether there is no node.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The task of a node; number 0, which is none, if there is no such node.
    #[must_use]
    pub fn task_of(&self, node: u32) -> TaskId {
        let at = self.ranges.partition_point(|range| range.end() <= node);
        self.ranges.get(at).map_or(TaskId(0), |range| TaskId(range.task.0 + u64::from(node - range.node)))
    }

    /// The node that a task is.
    #[must_use]
    pub fn node_of(&self, task: TaskId) -> Option<u32> {
        let after = self.by_task.partition_point(|place| self.ranges[*place as usize].task <= task);
        let range = self.ranges[self.by_task[after.checked_sub(1)?] as usize];
        let offset = u32::try_from(task.0 - range.task.0).ok()?;
        (offset < range.count).then_some(range.node + offset)
    }
}

impl FromIterator<TaskId> for Numbers {
    /// The tasks of the nodes in their order.
    fn from_iter<T: IntoIterator<Item = TaskId>>(tasks: T) -> Self {
        let mut ranges: Vec<Range> = Vec::new();
        for (node, task) in (0..).zip(tasks) {
            match ranges.last_mut() {
                Some(last) if last.task.0 + u64::from(last.count) == task.0 => last.count += 1,
                _ => ranges.push(Range { node, task, count: 1 }),
            }
        }
        Self::of(ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_and_nodes_go_there_and_back() {
        let tasks = [5, 6, 7, 20, 21, 8, 9, 3].map(TaskId);
        let numbers: Numbers = tasks.into_iter().collect();
        assert_eq!(numbers.ranges().len(), 4, "{numbers:?}");
        assert_eq!(numbers.len(), 8);
        for (node, task) in (0..).zip(tasks) {
            assert_eq!(numbers.task_of(node), task);
            assert_eq!(numbers.node_of(task), Some(node));
        }
        for other in [0, 2, 4, 10, 19, 22] {
            assert_eq!(numbers.node_of(TaskId(other)), None, "{other}");
        }
        assert_eq!(numbers.task_of(8), TaskId(0));
        assert_eq!(Numbers::from_ranges(numbers.ranges().to_vec()), Some(numbers));
    }

    #[test]
    fn a_row_is_one_range() {
        assert_eq!(Numbers::row(TaskId(4), 3), [4, 5, 6].map(TaskId).into_iter().collect());
        assert!(Numbers::row(TaskId(4), 0).is_empty());
    }

    #[test]
    fn ranges_with_gaps_are_refused() {
        let range = |node, count| Range { node, task: TaskId(1), count };
        assert_eq!(Numbers::from_ranges(vec![]), None);
        assert_eq!(Numbers::from_ranges(vec![range(1, 1)]), None);
        assert_eq!(Numbers::from_ranges(vec![range(0, 1), range(2, 1)]), None);
        assert_eq!(Numbers::from_ranges(vec![range(0, 0)]), None);
    }
}
