//! What a server says of bodies, at the places of the file.

use super::*;

#[test]
fn errors_stand_where_the_field_was_written() {
    refused_tasks(
        "  a: ''\n  b: {run: ''}\n  c: {command: '', priority: 200}\n",
        &["3:6: it is empty", "5:16: it is empty", "5:30: allowed: 0 to 100"],
    );
    refused_tasks(
        "  b: {run: ''}\n  c: {run: x, env: {A=B: y}}\n",
        &["3:12: it is empty", "4:26: no = in a name"],
    );
    refused_tasks("  a: {kind: exec}\n", &["3:6: argv is missing"]);
    refused(
        "version: 1\ndefaults: {priority: 200, retry: {max: 2}}\ntasks:\n  a: x\n  b: y\n  c: {run: z, retry: {max: 2000}}\n",
        &["2:22: allowed: 0 to 100", "6:28: allowed: 0 to 1000"],
    );
    refused_tasks("  a: {title: t, priority: 200}\n", &["3:27: allowed: 0 to 100"]);
}

#[test]
fn what_holds_an_expression_is_checked_later() {
    read(
        "version: 1\nvars: {n: 5, l: []}\ntasks:\n  a: {run: x, timeout_ms: '${{ vars.n }}', priority: '${{ vars.n }}'}\n  b: {kind: exec, argv: '${{ vars.l }}'}\n",
    );
    refused(
        "version: 1\nvars: {n: 5}\ntasks:\n  a: {run: x, timeout_ms: '${{ vars.n }}', retry: {max: 2000}}\n",
        &["4:57: allowed: 0 to 1000"],
    );
    refused_tasks("  a: {run: 'x ${{ run.id }}', timeout_ms: soon}\n", &["3:43: a number is expected"]);
}

#[test]
fn defaults_give_way_to_other_work() {
    let text = "version: 1\ndefaults: {kind: handler, name: h, group: g}\ntasks:\n  a: {input: 1}\n  b: x\n  c: {kind: noop}\n  d: {approval: true}\n";
    let definition = read(text);
    let body =
        |node: usize| definition.nodes[node].template.map(|at| definition.templates[at as usize].value());
    assert_eq!(body(0), Some(json!({"kind": "handler", "name": "h", "input": 1, "group": "g"})));
    assert_eq!(body(1), Some(json!({"kind": "shell", "command": "x", "group": "g"})));
    assert_eq!(body(2), Some(json!({"kind": "noop", "group": "g"})));
    assert_eq!(body(3), None);
}

#[test]
fn expressions_in_defaults_are_checked_where_they_are_used() {
    refused(
        "version: 1\ndefaults: {env: {A: '${{ item }}'}}\ntasks:\n  a: x\n  b: {run: y, foreach: [1]}\n  c: z\n",
        &["2:26: there is no 'item' here (it is known in a task with foreach, and in a pipeline with items)"],
    );
    refused(
        "version: 1\ntasks:\n  p:\n    workflow:\n      defaults: {workdir: '${{ vars.x }}'}\n      tasks: {a: x}\n",
        &["5:32: 'x' is not among the vars (add it to vars)"],
    );
    let used = read("version: 1\ndefaults: {env: {A: '${{ run.id }}'}}\ntasks: {a: x}\n");
    assert!(used.templates[0].has_expressions);
}

#[test]
fn the_description_of_an_approval_is_no_command() {
    let definition = read(
        "version: 1\ntasks:\n  a: {approval: true, description: Look at it}\n  b: {description: make}\n",
    );
    assert_eq!(definition.nodes.iter().map(|node| node.template).collect::<Vec<_>>(), [None, Some(0)]);
}

#[test]
fn equal_bodies_are_kept_once() {
    let definition = read(
        "version: 1\ntasks:\n  a: x\n  b: {command: x, kind: shell}\n  c: {run: x, needs: a}\n  d: {title: t}\n",
    );
    assert_eq!(definition.templates.len(), 1);
}
