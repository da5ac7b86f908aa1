//! Graphs read from top to bottom, and random ones against a slow oracle.

use std::collections::BTreeMap;
use std::sync::Arc;

use agentflow_workflow::{Definition, Edge, Mode, Node, On};
use proptest::prelude::*;

use super::*;

fn definition(nodes: &[(&str, &[(u32, On)])]) -> Definition {
    let node = |(name, after): &(&str, &[(u32, On)])| Node {
        name: (*name).into(),
        after: after.iter().map(|(node, on)| Edge { node: *node, on: *on }).collect(),
        template: None,
        extra: None,
    };
    Definition {
        name: "test".into(),
        mode: Mode::Dag,
        max_parallel: None,
        fail_fast: false,
        vars: serde_json::Map::new(),
        items: None,
        templates: Vec::new(),
        nodes: nodes.iter().map(node).collect(),
    }
}

/// Runs a graph to its end; `ends` says how nodes end that begin. Names with their ends, in order.
fn play(mut graph: Graph, definition: &Definition, ends: &[(&str, NodeStatus)]) -> (Vec<String>, RunStatus) {
    let ends: BTreeMap<&str, NodeStatus> = ends.iter().copied().collect();
    let mut told = Vec::new();
    loop {
        let mut active = Vec::new();
        while let Some((node, step)) = graph.next_step() {
            match step {
                Step::Begin => {
                    graph.begin(node);
                    active.push(node);
                }
                Step::Skip { end, .. } => {
                    graph.end(node, end);
                    told.push(format!("{} {end:?}", definition.nodes[node as usize].name));
                }
                Step::Cancel => {
                    graph.end(node, NodeStatus::Cancelled);
                    told.push(format!("{} Cancelled", definition.nodes[node as usize].name));
                }
            }
        }
        if active.is_empty() {
            break;
        }
        for node in active {
            let name = &*definition.nodes[node as usize].name;
            let end = ends.get(name).copied().unwrap_or(NodeStatus::Completed);
            told.push(format!("{name} {end:?}"));
            graph.end(node, end);
            if definition.fail_fast && end == NodeStatus::Failed {
                graph.stop(false);
            }
        }
    }
    let (status, _) = graph.outcome().expect("every node has ended");
    (told, status)
}

fn check(nodes: &[(&str, &[(u32, On)])], ends: &[(&str, NodeStatus)], expected: &[&str], status: RunStatus) {
    let definition = definition(nodes);
    let played = play(Graph::new(Arc::new(definition.clone())), &definition, ends);
    assert_eq!(played, (expected.iter().map(|text| (*text).to_owned()).collect(), status));
}

use NodeStatus::{Completed, Failed, Skipped};
use On::{Failure, Order, Settled, Success};

#[test]
fn a_diamond_goes_level_by_level() {
    check(
        &[("a", &[]), ("b", &[(0, Success)]), ("c", &[(0, Success)]), ("d", &[(1, Success), (2, Success)])],
        &[],
        &["a Completed", "b Completed", "c Completed", "d Completed"],
        RunStatus::Completed,
    );
}

#[test]
fn a_failure_bars_what_needs_it_and_nothing_else() {
    check(
        &[("a", &[]), ("b", &[(0, Success)]), ("c", &[(1, Success)]), ("d", &[]), ("e", &[(3, Success)])],
        &[("a", Failed)],
        &["a Failed", "d Completed", "b Barred", "c Barred", "e Completed"],
        RunStatus::Failed,
    );
}

#[test]
fn a_branch_that_is_not_taken_does_not_bar_the_join() {
    check(
        &[("a", &[]), ("b", &[]), ("c", &[(0, Success), (1, Success)]), ("d", &[(0, Success)])],
        &[("a", Skipped)],
        &["a Skipped", "b Completed", "d Skipped", "c Completed"],
        RunStatus::Completed,
    );
}

#[test]
fn a_handled_failure_is_none() {
    check(
        &[("a", &[]), ("b", &[(0, Failure)]), ("c", &[(0, Success)])],
        &[("a", Failed)],
        &["a Failed", "c Barred", "b Completed"],
        RunStatus::Completed,
    );
    check(&[("a", &[]), ("b", &[(0, Failure)])], &[], &["a Completed", "b Skipped"], RunStatus::Completed);
    check(
        &[("a", &[]), ("b", &[(0, Failure)])],
        &[("a", Failed), ("b", Failed)],
        &["a Failed", "b Failed"],
        RunStatus::Failed,
    );
}

#[test]
fn order_passes_over_what_was_skipped_and_settled_over_everything() {
    check(
        &[("a", &[]), ("b", &[(0, Order)]), ("c", &[(1, Order)])],
        &[("b", Skipped)],
        &["a Completed", "b Skipped", "c Completed"],
        RunStatus::Completed,
    );
    check(
        &[("a", &[]), ("b", &[(0, Settled)])],
        &[("a", Failed)],
        &["a Failed", "b Completed"],
        RunStatus::Failed,
    );
}

#[test]
fn max_parallel_and_pause_hold_back() {
    let mut definition = definition(&[("a", &[]), ("b", &[]), ("c", &[])]);
    definition.max_parallel = Some(2);
    let mut graph = Graph::new(Arc::new(definition));
    assert_eq!(graph.next_step(), Some((0, Step::Begin)));
    graph.begin(0);
    assert_eq!(graph.next_step(), Some((1, Step::Begin)));
    graph.begin(1);
    assert_eq!(graph.next_step(), None);
    graph.pause();
    graph.end(0, Completed);
    assert_eq!(graph.next_step(), None);
    graph.resume();
    assert_eq!(graph.next_step(), Some((2, Step::Begin)));
}

#[test]
fn a_stopped_run_cancels_what_has_not_begun() {
    let definition = definition(&[("a", &[]), ("b", &[(0, Success)]), ("c", &[(1, Success)])]);
    let mut graph = Graph::new(Arc::new(definition));
    graph.next_step();
    graph.begin(0);
    graph.stop(true);
    for node in [1, 2] {
        assert_eq!(graph.next_step(), Some((node, Step::Cancel)));
        graph.end(node, NodeStatus::Cancelled);
    }
    assert_eq!((graph.next_step(), graph.outcome()), (None, None));
    graph.end(0, NodeStatus::Cancelled);
    assert_eq!(graph.outcome(), Some((RunStatus::Cancelled, None)));
}

/// A random graph without cycles, how its nodes would end, and after how many ends it is restored.
fn any_graph() -> impl Strategy<Value = (Definition, Vec<NodeStatus>, usize)> {
    let on = prop_oneof![4 => Just(Success), 1 => Just(Order), 1 => Just(Settled), 1 => Just(Failure)];
    let edges = prop::collection::vec(prop::option::weighted(0.3, on), 0..66);
    let end = prop_oneof![4 => Just(Completed), 2 => Just(Failed), 1 => Just(NodeStatus::Cancelled)];
    (1usize..12, edges, prop::collection::vec(end, 12), 0usize..12, prop::option::of(1u32..4)).prop_map(
        |(count, edges, ends, cut, max_parallel)| {
            let mut edges = edges.into_iter();
            let mut nodes: Vec<(String, Vec<(u32, On)>)> = Vec::new();
            for node in 0..count {
                let before = (0..u32::try_from(node).expect("small"))
                    .filter_map(|before| edges.next().flatten().map(|on| (before, on)));
                nodes.push((format!("n{node}"), before.collect()));
            }
            let nodes: Vec<(&str, &[(u32, On)])> =
                nodes.iter().map(|(name, after)| (&**name, &**after)).collect();
            let mut definition = definition(&nodes);
            definition.max_parallel = max_parallel;
            (definition, ends, cut)
        },
    )
}

/// How every node ends, worked out one after the other without counters.
fn oracle(definition: &Definition, ends: &[NodeStatus]) -> Vec<NodeStatus> {
    let mut known: Vec<NodeStatus> = Vec::new();
    for (node, own) in definition.nodes.iter().zip(ends) {
        let of = |on: On| {
            node.after.iter().filter(move |edge| edge.on == on).map(|edge| known[edge.node as usize])
        };
        let bars = |status: NodeStatus| matches!(status, Failed | NodeStatus::Cancelled | NodeStatus::Barred);
        let needs: Vec<NodeStatus> = of(Success).collect();
        let untriggered = of(Failure).next().is_some() && !of(Failure).any(|status| status == Failed);
        let only_skipped = !needs.is_empty() && needs.iter().all(|status| *status == Skipped);
        known.push(if of(Success).chain(of(Order)).any(bars) {
            NodeStatus::Barred
        } else if untriggered || only_skipped {
            Skipped
        } else {
            *own
        });
    }
    known
}

proptest! {
    #[test]
    fn every_graph_ends_as_the_oracle_says((definition, ends, cut) in any_graph()) {
        let definition = Arc::new(definition);
        let mut graph = Graph::new(Arc::clone(&definition));
        let (mut active, mut ended) = (Vec::new(), 0);
        let mut given = std::collections::BTreeSet::new();
        loop {
            while let Some((node, step)) = graph.next_step() {
                prop_assert!(given.insert(node), "a node is given out once");
                for edge in &definition.nodes[node as usize].after {
                    prop_assert!(graph.status(edge.node).status().is_some(), "what comes before has ended");
                }
                match step {
                    Step::Begin => {
                        graph.begin(node);
                        active.push(node);
                        prop_assert!(definition.max_parallel.is_none_or(|limit| active.len() <= limit as usize));
                    }
                    Step::Skip { end, .. } => graph.end(node, end),
                    Step::Cancel => prop_assert!(false, "nobody asked for it"),
                }
            }
            let Some(node) = active.pop() else { break };
            graph.end(node, ends[node as usize]);
            ended += 1;
            if ended == cut {
                // As a new master finds it in the rows.
                let count = u32::try_from(definition.nodes.len()).expect("small");
                let rows: Vec<_> =
                    (0..count).filter_map(|node| Some((node, graph.status(node).status()?))).collect();
                let restored =
                    Graph::restore(Arc::clone(&definition), rows.into_iter(), active.iter().copied());
                for node in 0..count {
                    prop_assert_eq!(restored.status(node), graph.status(node));
                }
                graph = restored;
            }
        }
        let expected = oracle(&definition, &ends);
        let found: Vec<_> =
            (0..).zip(&definition.nodes).map(|(node, _)| graph.status(node)).collect();
        prop_assert_eq!(found, expected);
        prop_assert!(graph.outcome().is_some());
    }
}
