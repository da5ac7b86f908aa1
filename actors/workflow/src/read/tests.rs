//! Every refusal, with its line and column.

use serde_json::json;

use super::*;
use crate::{Edge, Mode, Node, On};

mod arbitrary;
mod bodies;
mod positions;

/// Knows a few fields, as a server would.
struct Server;

impl CheckTask for Server {
    fn check(&self, body: &Map<String, Value>) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        for (key, value) in body {
            let whole = value.is_u64();
            match key.as_str() {
                // A reader by types stops at the first.
                "timeout_ms" if !whole => return vec![("/timeout_ms".into(), "a number is expected".into())],
                "argv" if !value.is_array() => return vec![("/argv".into(), "a list is expected".into())],
                "priority" if value.as_u64().is_none_or(|n| n > 100) => {
                    wrong.push(("/priority".into(), "allowed: 0 to 100".into()));
                }
                "retry" if value["max"].as_u64().is_some_and(|n| n > 1_000) => {
                    wrong.push(("/retry/max".into(), "allowed: 0 to 1000".into()));
                }
                "env" if value.get("A=B").is_some() => {
                    wrong.push(("/env/A=B".into(), "no = in a name".into()));
                }
                "command" if value == "" => wrong.push(("/command".into(), "it is empty".into())),
                _ => {}
            }
        }
        if body.get("kind") == Some(&json!("exec")) && body.get("argv").is_none() {
            wrong.push(("/argv".into(), "argv is missing".into()));
        }
        wrong
    }
}

fn read(text: &str) -> Definition {
    read_text(text, &Server).unwrap_or_else(|wrong| panic!("{text}\n{wrong}"))
}

/// The file is refused with exactly these lines.
fn refused(text: &str, expect: &[&str]) {
    let wrong = read_text(text, &Server).expect_err(text);
    let lines: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    assert_eq!(lines, expect, "{text}");
}

/// The same for tasks in a file of mode `dag`, from its third line on.
fn refused_tasks(tasks: &str, expect: &[&str]) {
    refused(&format!("version: 1\ntasks:\n{tasks}"), expect);
}

fn plan(text: &str) -> Vec<Vec<String>> {
    let definition = read(text);
    definition.plan_names().into_iter().map(|level| level.into_iter().map(str::to_owned).collect()).collect()
}

#[test]
fn the_contracts_example() {
    let text = "version: 1\nname: ci\nmode: dag\ntasks:\n  build: {run: make}\n  test: {run: make test, needs: build}\n  \
                lint: {run: make lint, needs: [build]}\n  release: {run: make release, needs: [test, lint]}\n";
    assert_eq!(json!(plan(text)), json!([["build"], ["test", "lint"], ["release"]]));
    let sequential = "version: 1\nmode: sequential\ntasks:\n- {name: a, run: x}\n- {name: b, run: y}\n";
    assert_eq!(json!(plan(sequential)), json!([["a"], ["b"]]));
}

#[test]
fn json_and_yaml_are_the_same() {
    let json = r#"{"version": 1, "mode": "conditional", "vars": {"n": 1.5}, "max_parallel": 3, "fail_fast": true,
        "tasks": {"a": "x", "b": {"run": "y ${{ vars.n }}", "needs": "a", "when": "tasks.a.status == 'failed'"}}}"#;
    let yaml = "version: 1\nmode: conditional\nvars: {n: 1.5}\nmax_parallel: 3\nfail_fast: true\ntasks:\n  a: x\n  b:\n    \
                run: y ${{ vars.n }}\n    needs: [a]\n    when: ${{ tasks.a.status == 'failed' }}\n";
    let definition = read(json);
    assert_eq!(definition, read(yaml));
    let tree: Tree = serde_json::from_str(json).expect("JSON");
    assert_eq!(read_value(&tree, &Server), Ok(definition.clone()));
    assert_eq!(definition.mode, Mode::Conditional);
    assert_eq!((definition.max_parallel, definition.fail_fast), (Some(3), true));
    assert_eq!(*definition.nodes[1].after, [Edge { node: 0, on: On::Settled }]);
    assert!(definition.templates[1].has_expressions && !definition.templates[0].has_expressions);
    assert_eq!(&*definition.templates[0].body, r#"{"command":"x","kind":"shell"}"#);
    assert_eq!(Definition::from_json(&definition.to_json()), Ok(definition));
}

#[test]
fn everything_a_task_can_have() {
    let text = "
version: 1
name: all
vars: {os: [a, b], who: x}
defaults: {env: {A: '1', B: '2'}, group: big}
tasks:
  list: {run: ls, env: {B: '3'}}
  each:
    needs: list
    run: echo ${{ item }} ${{ index }}
    foreach: ${{ vars.os }}
    max_parallel: 2
    collect: ${{ self.outputs.size }}
  ask: {needs: each, approval: 'Deploy ${{ vars.who }}?'}
  again: {run: poll, loop: {until: self.outputs.done, max: 5}}
  child: {needs: ask, vars: {v: '${{ tasks.list.outputs.v }}'}, workflow: {vars: {v: 0}, tasks: {inner: x}}}
  done: {needs: [child, again]}
  warm: {handler: {name: h, input: {n: 1}}}
  named: {kind: handler, name: h, input: {n: 1}}
  alarm: {run: mail, on_failure: [list, each]}
";
    let definition = read(text);
    let node = |name: &str| &definition.nodes[definition.find(name).expect("known") as usize];
    let body = |node: &Node| definition.templates[node.template.expect("work") as usize].value();
    assert_eq!(
        body(node("list")),
        json!({
            "kind": "shell", "command": "ls", "env": {"A": "1", "B": "3"}, "group": "big",
        })
    );
    let each = node("each").extra.as_deref().expect("more");
    assert_eq!(each.foreach, Some(json!("${{ vars.os }}")));
    assert_eq!((each.max_parallel, &each.collect), (Some(2), &Some(json!("${{ self.outputs.size }}"))));
    let ask = node("ask");
    assert_eq!(ask.template, None);
    let approval = ask.extra.as_ref().and_then(|extra| extra.approval.clone()).expect("an approval");
    assert_eq!(approval.message, "Deploy ${{ vars.who }}?");
    let again = node("again").extra.as_ref().and_then(|extra| extra.repeat.clone()).expect("a loop");
    assert_eq!((again.until.source(), again.max), ("self.outputs.done", 5));
    let child = node("child").extra.as_ref().and_then(|extra| extra.child.clone()).expect("a child");
    assert_eq!((&*child.definition.name, child.vars), ("child", json!({"v": "${{ tasks.list.outputs.v }}"})));
    assert!(node("done").template.is_none() && node("done").extra.is_none());
    assert_eq!(node("warm").template, node("named").template);
    assert_eq!(body(node("warm"))["input"], json!({"n": 1}));
    assert_eq!(*node("alarm").after, [0, 1].map(|node| Edge { node, on: On::Failure }));
    assert_eq!(Definition::from_json(&definition.to_json()), Ok(definition.clone()));
}

#[test]
fn pipelines_hand_on() {
    let text = "version: 1\nmode: pipeline\nitems: [1, 2]\ntasks:\n- {name: a, run: 'x ${{ item }}'}\n- {name: b, run: y}\n\
                - {name: c, run: z, on_failure: b}\n- {name: d, run: w}\n";
    let definition = read(text);
    let from = |node: &Node| node.extra.as_ref().and_then(|extra| extra.input_from);
    assert_eq!(definition.nodes.iter().map(from).collect::<Vec<_>>(), [None, Some(0), Some(1), Some(1)]);
    assert_eq!(definition.items, Some(json!([1, 2])));
}

#[test]
fn an_item_is_one_task() {
    refused_tasks(
        "  a: {foreach: [1], workflow: {tasks: {b: x}}}\n",
        &["3:16: 'foreach' makes tasks, not child workflows (put 'foreach' into the tasks of the child)"],
    );
    refused_tasks(
        "  a: {foreach: [1], run: x, loop: {until: self.outputs.done, max: 2}}\n",
        &[
            "3:35: a task with 'foreach' has no 'loop' (put the loop into a child workflow, or into the command)",
        ],
    );
}

#[test]
fn any_document_is_read() {
    let value = |text| read_tree(text).map(|tree| tree.to_value()).map_err(|wrong| wrong.to_string());
    assert_eq!(value("\u{feff}[1, {\"a\": \"x\"}]"), Ok(json!([1, {"a": "x"}])));
    assert_eq!(value("[a, b: 1]"), Ok(json!(["a", {"b": 1}])));
    assert!(value("[1, ").expect_err("open").contains("no YAML"));
    assert!(value("{\"a\": ").expect_err("open").contains("no JSON"));
}
