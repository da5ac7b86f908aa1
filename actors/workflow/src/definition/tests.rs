//! Definitions come back from their text, and their plans respect their edges.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{Approval, Child, Expression, Repeat, read_text};

fn node(name: &str, after: &[(u32, On)]) -> Node {
    let after = after.iter().map(|&(node, on)| Edge { node, on }).collect();
    Node { name: name.into(), after, template: None, extra: None }
}

fn definition(nodes: Vec<Node>) -> Definition {
    Definition {
        name: "w".into(),
        mode: Mode::Dag,
        max_parallel: None,
        fail_fast: false,
        vars: Map::new(),
        items: None,
        templates: Vec::new(),
        nodes,
    }
}

/// The text is exactly this, and comes back.
fn check(definition: &Definition, expect: &str) {
    let text = definition.to_json();
    assert_eq!(text, expect);
    assert_eq!(Definition::from_json(&text).as_ref(), Ok(definition));
}

#[test]
fn the_text_is_short_and_comes_back() {
    let edges = [(0, On::Success), (1, On::Order), (2, On::Settled), (3, On::Failure)];
    let mut nodes: Vec<Node> = ["a", "b", "c", "d"].iter().map(|name| node(name, &[])).collect();
    nodes.push(node("e", &edges));
    check(
        &definition(nodes),
        r#"{"name":"w","mode":"dag","nodes":[{"name":"a"},{"name":"b"},{"name":"c"},{"name":"d"},{"name":"e","after":[0,[1,"order"],[2,"settled"],[3,"failure"]]}]}"#,
    );
}

#[test]
fn everything_comes_back() {
    let expression = |source| Expression::new(source).expect("valid");
    let inner = definition(vec![node("x", &[])]);
    let extra = Extra {
        when: Some(expression("vars.a")),
        foreach: Some(json!("${{ vars.a }}")),
        collect: Some(Value::Null),
        repeat: Some(Repeat { until: expression("self.outputs.a"), max: 3 }),
        approval: Some(Approval { message: String::new() }),
        child: Some(Child { definition: Box::new(inner), vars: json!({"a": 0.1}) }),
        item: Some(Value::Null),
        index: Some(0),
        input_from: Some(0),
        files_from: vec![0],
        max_parallel: Some(1),
    };
    let mut whole =
        definition(vec![Node { template: Some(0), extra: Some(Box::new(extra)), ..node("a", &[]) }]);
    whole.items = Some(json!([1, {"b": 1.234_567_890_123_456_7e-7}]));
    whole.vars.insert("a".into(), json!({"z": u64::MAX, "a": i64::MIN, "f": 0.1}));
    whole
        .templates
        .push(Template { body: r#"{"command":"é \"x\"","kind":"shell"}"#.into(), has_expressions: true });
    let text = whole.to_json();
    assert_eq!(Definition::from_json(&text), Ok(whole));
}

#[test]
fn what_points_nowhere_is_refused() {
    let refused = |text: &str| Definition::from_json(text).expect_err("broken").0;
    assert_eq!(
        refused(r#"{"name":"w","mode":"dag","nodes":[{"name":"a","after":[1]}]}"#),
        "node 'a' points nowhere"
    );
    assert_eq!(
        refused(r#"{"name":"w","mode":"dag","nodes":[{"name":"a","template":0}]}"#),
        "node 'a' points nowhere"
    );
    assert_eq!(refused(r#"{"name":"w","mode":"dag","nodes":[{"name":"a","after":[0]}]}"#), "a cycle: a -> a");
    assert!(refused(r#"{"name":"w"}"#).contains("missing field"));
}

#[test]
fn names_and_words() {
    let whole = definition(vec![node("a", &[]), node("b", &[])]);
    assert_eq!((whole.find("b"), whole.find("c")), (Some(1), None));
    assert_eq!(whole.names().get("a"), Some(&0));
    for mode in Mode::ALL {
        assert_eq!(mode.to_string().parse(), Ok(mode));
    }
    assert_eq!(
        "pipelin".parse::<Mode>().expect_err("unknown").hint.as_deref(),
        Some("did you mean 'pipeline'?")
    );
}

/// What a task needs and what it handles, and whether its condition reads a status.
type Task = (Vec<usize>, Vec<usize>, bool);

/// A workflow in some mode, perhaps with handlers.
fn file() -> impl Strategy<Value = (Mode, bool, Vec<Task>)> {
    let task = |index: usize| {
        let before = prop::collection::vec(0..index.max(1), 0..3);
        (before.clone(), before, any::<bool>()).prop_map(move |(needs, handles, reads)| {
            let known =
                |list: Vec<usize>| list.into_iter().filter(|other| *other < index).collect::<Vec<_>>();
            let handles = if reads { Vec::new() } else { known(handles) };
            (known(needs), handles, reads)
        })
    };
    let tasks = (1_usize..12).prop_flat_map(move |count| (0..count).map(task).collect::<Vec<_>>());
    (prop::sample::select(Mode::ALL.to_vec()), any::<bool>(), tasks)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plans_respect_edges_in_every_mode((mode, on_failure, tasks) in file()) {
        let list: Vec<Value> = tasks.iter().enumerate().map(|(index, (needs, handles, reads))| {
            let names = |list: &[usize]| list.iter().map(|other| format!("t{other}")).collect::<Vec<_>>();
            let mut task = json!({"name": format!("t{index}"), "run": format!("x {}", index % 3), "needs": names(needs)});
            if on_failure {
                task["on_failure"] = json!(names(handles));
            }
            if let Some(first) = needs.first().filter(|_| *reads) {
                task["when"] = json!(format!("tasks.t{first}.status == 'failed'"));
            }
            task
        }).collect();
        let text = json!({"version": 1, "mode": mode, "tasks": list}).to_string();
        // Some can never run; those are refused, and nothing else is.
        let definition = match read_text(&text, &()) {
            Ok(definition) => definition,
            Err(wrong) => {
                prop_assert!(wrong.iter().all(|one| one.message.contains("can never run")), "{wrong}\n{text}");
                return Ok(());
            }
        };
        let back = Definition::from_json(&definition.to_json());
        prop_assert_eq!(back.as_ref(), Ok(&definition));
        prop_assert!(definition.templates.len() <= 3);
        let mut level_of = vec![usize::MAX; definition.nodes.len()];
        for (number, level) in definition.plan().into_iter().enumerate() {
            prop_assert!(level.is_sorted());
            level.into_iter().for_each(|node| level_of[node as usize] = number);
        }
        prop_assert!(level_of.iter().all(|level| *level != usize::MAX));
        let successors = definition.successors();
        for (node, index) in definition.nodes.iter().zip(0_u32..) {
            prop_assert!(node.after.is_sorted_by_key(|edge| edge.node));
            for edge in &node.after {
                prop_assert!(level_of[edge.node as usize] < level_of[index as usize]);
                prop_assert!(successors.of(edge.node).contains(&(index, edge.on)));
            }
            for needed in &tasks[index as usize].0 {
                prop_assert!(node.after.iter().any(|edge| edge.node as usize == *needed));
            }
        }
        prop_assert_eq!(successors.edges.len(), definition.edges().count());
        if matches!(mode, Mode::Sequential | Mode::Pipeline) {
            prop_assert!(definition.plan().iter().all(|level| level.len() == 1));
        }
    }
}
