//! From a mode and what a task names to its edges.
//!
//! - `sequential`, `pipeline`: after the task before it, which must not fail ([`On::Order`]); with
//!   `continue_on_failure`, however that ends. A task with `on_failure` stands aside: it waits for its
//!   turn however the one before ended, and the next ordinary task comes after it and after the ordinary
//!   task before it, so that a failure that was handled still stops the rest.
//! - other modes: none of its own.
//! - `needs` adds [`On::Success`]; `on_failure` adds [`On::Failure`].
//! - A task whose `when` reads the status of one that it comes after wants to see every outcome: that
//!   edge becomes [`On::Settled`].
//!
//! Of [`On::Success`], [`On::Order`] and [`On::Settled`] between the same two only the strictest stays.
//! [`On::Failure`] stands beside it only where that changes the outcome: when it is the only
//! `on_failure`, it says all that [`On::Settled`] says.

use crate::{Edge, Mode, On};

/// The chain of a `sequential` or `pipeline` workflow as far as it has been read.
pub(super) struct Flow {
    is_chain: bool,
    on: On,
    /// The last ordinary task.
    last: Option<u32>,
    /// Tasks with `on_failure` since then.
    handlers: Vec<u32>,
}

impl Flow {
    pub(super) fn new(mode: Mode, continue_on_failure: bool) -> Self {
        Self {
            is_chain: matches!(mode, Mode::Sequential | Mode::Pipeline),
            on: if continue_on_failure { On::Settled } else { On::Order },
            last: None,
            handlers: Vec::new(),
        }
    }

    /// The ordinary task before the next one.
    pub(super) fn last(&self) -> Option<u32> {
        self.last.filter(|_| self.is_chain)
    }

    /// The edges that the chain gives to the next task.
    fn next(&mut self, node: u32, failures: &[u32]) -> Vec<Edge> {
        if !self.is_chain {
            return Vec::new();
        }
        if failures.is_empty() {
            let before = self.last.replace(node).into_iter().chain(self.handlers.drain(..));
            return before.map(|node| Edge { node, on: self.on }).collect();
        }
        let before = self.handlers.last().copied().or(self.last);
        self.handlers.push(node);
        let before = before.filter(|before| !failures.contains(before));
        before.map(|node| Edge { node, on: On::Settled }).into_iter().collect()
    }
}

/// The edges of the next task: `needs` and `failures` are what it names, `statuses` what its `when`
/// reads the status of.
pub(super) fn edges(
    flow: &mut Flow,
    node: u32,
    needs: &[u32],
    failures: &[u32],
    statuses: &[u32],
) -> Box<[Edge]> {
    let mut edges = flow.next(node, failures);
    edges.extend(needs.iter().map(|&node| Edge { node, on: On::Success }));
    for edge in &mut edges {
        if statuses.contains(&edge.node) {
            edge.on = On::Settled;
        }
    }
    edges.extend(failures.iter().map(|&node| Edge { node, on: On::Failure }));
    // Strictest first, failures last.
    edges.sort_unstable_by_key(|edge| (edge.node, edge.on));
    edges.dedup_by_key(|edge| (edge.node, edge.on == On::Failure));
    if let [only] = failures {
        edges.retain(|edge| edge.node != *only || edge.on != On::Settled);
    }
    edges.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each task: needs, failures, statuses.
    type Task<'a> = (&'a [u32], &'a [u32], &'a [u32]);

    fn check(mode: Mode, continue_on_failure: bool, tasks: &[Task<'_>], expect: &[&str]) {
        let mut flow = Flow::new(mode, continue_on_failure);
        let letter = |on| match on {
            On::Success => 's',
            On::Order => 'o',
            On::Settled => 'a',
            On::Failure => 'f',
        };
        for ((node, (needs, failures, statuses)), expect) in (0..).zip(tasks).zip(expect) {
            let edges = edges(&mut flow, node, needs, failures, statuses);
            let words: Vec<String> =
                edges.iter().map(|edge| format!("{}{}", edge.node, letter(edge.on))).collect();
            assert_eq!(words.join(" "), *expect, "task {node} of {mode}");
        }
    }

    const PLAIN: Task<'_> = (&[], &[], &[]);

    #[test]
    fn chains() {
        check(Mode::Sequential, false, &[PLAIN, PLAIN, PLAIN], &["", "0o", "1o"]);
        check(Mode::Sequential, true, &[PLAIN, PLAIN], &["", "0a"]);
        check(Mode::Pipeline, false, &[PLAIN, PLAIN], &["", "0o"]);
        check(Mode::Parallel, false, &[PLAIN, PLAIN], &["", ""]);
    }

    #[test]
    fn handlers_stand_aside() {
        let handler: Task<'_> = (&[], &[0], &[]);
        check(Mode::Sequential, false, &[PLAIN, handler, PLAIN], &["", "0f", "0o 1o"]);
        check(Mode::Sequential, false, &[PLAIN, handler, handler, PLAIN], &["", "0f", "0f 1a", "0o 1o 2o"]);
        check(Mode::Sequential, false, &[PLAIN, PLAIN, handler], &["", "0o", "0f 1a"]);
    }

    #[test]
    fn the_strictest_stays() {
        check(Mode::Sequential, false, &[PLAIN, (&[0, 0], &[], &[])], &["", "0s"]);
        check(Mode::Sequential, true, &[PLAIN, (&[0], &[], &[])], &["", "0s"]);
        check(Mode::Dag, false, &[PLAIN, (&[0], &[], &[0])], &["", "0a"]);
        check(Mode::Sequential, false, &[PLAIN, (&[], &[], &[0])], &["", "0a"]);
        check(Mode::Dag, false, &[PLAIN, (&[0], &[0], &[0])], &["", "0f"]);
        check(Mode::Dag, false, &[PLAIN, PLAIN, (&[0], &[0, 1], &[0])], &["", "", "0a 0f 1f"]);
        check(Mode::Dag, false, &[PLAIN, (&[0], &[0], &[])], &["", "0s 0f"]);
    }
}
