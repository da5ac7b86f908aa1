//! Variables, items, and what is wrong before anything starts.

use serde_json::json;

use super::*;
use crate::read_text;

fn instantiate(file: &str, vars: Value, inputs: Value) -> Result<Definition, String> {
    let definition = read_text(file, &()).unwrap_or_else(|wrong| panic!("{file}\n{wrong}"));
    let vars = vars.as_object().expect("a map");
    definition.instantiate(vars, &inputs).map_err(|wrong| wrong.locate(file).to_string())
}

fn refused(file: &str, vars: Value, inputs: Value, expect: &str) {
    let wrong = instantiate(file, vars, inputs).expect_err(file);
    assert_eq!(wrong, expect, "{file}");
}

#[test]
fn given_vars_replace_the_defaults() {
    let file = "version: 1\nvars: {a: 1, b: {c: 2}}\ntasks: {t: 'x ${{ vars.a }}'}\n";
    let definition = instantiate(file, json!({"b": [3]}), Value::Null).expect("valid");
    assert_eq!(Value::Object(definition.vars), json!({"a": 1, "b": [3]}));
    refused(
        file,
        json!({"aa": 1, "zzz": 2}),
        Value::Null,
        "2:7: 'aa' is not among the vars of workflow 'workflow' (did you mean 'a'?)\n\
         2:7: 'zzz' is not among the vars of workflow 'workflow'",
    );
}

#[test]
fn items_become_nodes() {
    let file = "version: 1\nmode: pipeline\nvars: {files: [x, y]}\nitems: ${{ vars.files }}\ntasks:\n\
                - {name: get, run: 'get ${{ item }}'}\n- {name: put, run: 'put ${{ index }}', when: item != 'x'}\n\
                - {name: log, run: log, on_failure: get}\n";
    let definition = instantiate(file, json!({}), Value::Null).expect("valid");
    let names: Vec<&str> = definition.nodes.iter().map(|node| &*node.name).collect();
    assert_eq!(names, ["get[0]", "put[0]", "log[0]", "get[1]", "put[1]", "log[1]"]);
    assert_eq!((definition.items.as_ref(), definition.templates.len()), (None, 3));
    let extra = |node: usize| definition.nodes[node].extra.as_deref().cloned().expect("more");
    assert_eq!((extra(4).item, extra(4).index, extra(4).input_from), (Some(json!("y")), Some(1), Some(3)));
    assert_eq!(extra(1).when, extra(4).when);
    assert!(definition.nodes[4].after.iter().all(|edge| edge.node >= 3));
    assert_eq!(definition.name_for(4, "get"), "get[1]");
    assert_eq!(definition.plan().len(), 3);
    assert_eq!(Definition::from_json(&definition.to_json()), Ok(definition));
}

#[test]
fn items_must_be_a_list_that_is_not_too_long() {
    let file = "version: 1\nmode: pipeline\nvars: {n: 1}\nitems: ${{ vars.n }}\ntasks: {a: x, b: y}\n";
    refused(file, json!({}), Value::Null, "4:8: a list is expected, not a number");
    let many = json!({"n": (0..50_001).collect::<Vec<_>>()});
    refused(file, many, Value::Null, "4:8: 50001 items in 2 stages are more than 100000 tasks");
    let none = instantiate(file, json!({"n": []}), Value::Null).expect("valid");
    assert!(none.nodes.is_empty() && none.plan().is_empty());
    let fixed = "version: 1\nmode: pipeline\nvars: {n: 1}\nitems: [a, '${{ vars.n + 1 }}']\ntasks: {a: x}\n";
    let fixed = instantiate(fixed, json!({}), Value::Null).expect("valid");
    assert_eq!(fixed.nodes[1].extra.as_ref().and_then(|extra| extra.item.clone()), Some(json!(2)));
}

#[test]
fn type_errors_are_found_before_anything_starts() {
    let file = "version: 1\nvars: {n: 1, s: a}\ntasks:\n  a:\n    run: x ${{ vars.n + vars.s }}\n  b: {run: y, when: inputs.go, env: {A: '${{ vars.s.x }}'}}\n  \
                c: {run: z, foreach: '${{ vars.n }}'}\n  d: {approval: 'ok ${{ vars.s * 2 }}?'}\n  \
                e: {run: x, loop: {until: vars.n + vars.s == 2, max: 2}}\n";
    refused(
        file,
        json!({}),
        json!({}),
        "5:10: tried to use + operator on unsupported types number and string in 'vars.n + vars.s'\n\
         6:21: inputs.go is missing; it is empty in 'inputs.go'\n\
         6:41: vars.s.x is missing: vars.s is a text in 'vars.s.x'\n\
         7:24: a list is expected, not a number (write it as [a, b], or as an expression that gives a list)\n\
         8:17: * multiplies numbers, not a string in 'vars.s * 2'\n\
         9:29: tried to use + operator on unsupported types number and string in 'vars.n + vars.s == 2'",
    );
    let file = "version: 1\nvars: {l: [1]}\ntasks:\n- {name: a, foreach: '${{ vars.l }}', run: 'x ${{ item + vars.l[7] }}'}\n- {name: b, run: 'y ${{ tasks.a.outputs.z + vars.q }}', needs: a}\n";
    let wrong = read_text(file, &()).expect_err("no such var");
    assert_eq!(wrong.to_string(), "5:45: 'q' is not among the vars (add it to vars)");
}

#[test]
fn lists_and_children_are_located() {
    let file = "version: 1\nmode: sequential\ntasks:\n- {name: a, run: x}\n- name: b\n  vars: {n: 2}\n  workflow:\n    vars: {n: 1, m: x}\n    tasks:\n    \
                - {name: c, run: 'x ${{ vars.n * 2 }}'}\n    - {name: d, run: 'x ${{ vars.m * 2 }}'}\n    - {name: e, run: 'x ${{ inputs.z }}'}\n";
    refused(file, json!({}), json!({}), "11:22: * multiplies numbers, not a string in 'vars.m * 2'");
}

#[test]
fn what_is_not_known_yet_is_left() {
    let file = "version: 1\nvars: {n: 1}\ntasks:\n  a: x\n  b: {needs: a, run: 'y ${{ tasks.a.outputs.q + 1 }} ${{ run.id }}', when: tasks|length > 0}\n  \
                c: {foreach: '${{ tasks.a.outputs.l }}', needs: a, run: 'z ${{ item }}', collect: '${{ self.result }}'}\n";
    assert!(instantiate(file, json!({}), Value::Null).is_ok());
}

#[test]
fn a_body_that_is_known_must_be_right() {
    struct Numbers;
    impl CheckTask for Numbers {
        fn check(&self, body: &Map<String, Value>) -> Vec<(String, String)> {
            let wrong =
                body.get("timeout_ms").is_some_and(|ms| !ms.is_u64() && !ms.to_string().contains("${{"));
            wrong.then(|| ("/timeout_ms".to_owned(), "is no number".to_owned())).into_iter().collect()
        }
    }
    let file = "version: 1\nvars: {ms: 5, s: a}\ntasks:\n  a: {run: x, timeout_ms: '${{ vars.ms }}'}\n\
                \x20 b: {run: x, timeout_ms: '${{ vars.s }}'}\n  c: {run: x, needs: a, timeout_ms: '${{ tasks.a.outputs.ms }}'}\n";
    let definition = read_text(file, &Numbers).expect("valid as far as it is known");
    let wrong = definition.instantiate_checked(&Map::new(), &Value::Null, &Numbers).expect_err("a text");
    assert_eq!(wrong.locate(file).to_string(), "5:27: is no number in '${{ vars.s }}'");
}
