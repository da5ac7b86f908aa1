use serde_json::{Value, json};

use super::*;
use crate::TaskValue;

fn scope() -> Scope {
    let vars = json!({
        "n": 7, "half": 0.5, "name": "Ada", "list": [3, 1, 2], "yes": true, "nothing": null, "big": u64::MAX,
        "people": [{"name": "a", "age": 3}, {"name": "b", "age": 1}], "key-word": 1, "text": "{\"a\": [1]}",
    });
    let task = |status| {
        let (outputs, result) = (Ok(Some(r#"{"version": "1.2", "n": [1, 2]}"#)), Ok(Some("ok\n")));
        TaskValue { status, outputs, result }.view()
    };
    let skipped = TaskValue { status: "skipped", outputs: Ok(None), result: Ok(None) }.view();
    Scope::new()
        .vars(vars.as_object().expect("a map"))
        .inputs(&json!({"who": "me"}))
        .run(&json!({"id": 12}))
        .task("build", &task("completed"))
        .task("my-task", &task("failed"))
        .task("2nd", &skipped)
        .item(json!({"os": "linux"}), 4)
        .own(&task("failed"))
        .iteration(2)
}

/// Evaluates; errors are `offset: text (hint)` of the grammar or `text` of the evaluation.
fn evaluate(source: &str) -> Result<Value, String> {
    let expression = Expression::new(source).map_err(|error| match &error.hint {
        Some(hint) => format!("{}: {} ({hint})", error.offset, error.detail),
        None => format!("{}: {}", error.offset, error.detail),
    })?;
    expression.evaluate(&scope()).map_err(|error| error.detail)
}

fn check(source: &str, expect: Value) {
    assert_eq!(evaluate(source), Ok(expect), "{source}");
}

fn refused(source: &str, expect: &str) {
    assert_eq!(evaluate(source), Err(expect.to_owned()), "{source}");
}

#[test]
fn values() {
    check("vars.n", json!(7));
    check(" vars.big ", json!(u64::MAX));
    check("vars.half", json!(0.5));
    check("vars['key-word']", json!(1));
    check("vars.list[0]", json!(3));
    check("vars.list.1", json!(1));
    check("vars.list[-1]", json!(2));
    check("vars.list[1:]", json!([1, 2]));
    check("vars.list[::2]", json!([3, 2]));
    check("inputs.who", json!("me"));
    check("run.id", json!(12));
    check("item.os ~ index", json!("linux4"));
    check("[1, 'a', null, {'k': vars.n}]", json!([1, "a", null, {"k": 7}]));
    check("self.status", json!("failed"));
    check("loop.iteration + 1", json!(3));
    check("vars", scope_vars());
}

fn scope_vars() -> Value {
    evaluate("{'a': vars}").expect("a value")["a"].clone()
}

#[test]
fn operators() {
    check("1 + 2 * 3", json!(7));
    check("vars.n * vars.n", json!(49));
    check("2 ** 3 * 2 - 1", json!(15));
    check("7 // 2 + 7 % 2", json!(4));
    check("-vars.n|abs", json!(7));
    check("1 < 2 and not false", json!(true));
    check("1 in vars.list and 9 not in vars.list", json!(true));
    check("'yes' if vars.yes else 'no'", json!("yes"));
    check("vars.name ~ vars.list ~ null", json!("Ada[3,1,2]"));
    check("vars.list + [4]", json!([3, 1, 2, 4]));
    check("vars.name == 'Ada'", json!(true));
    check("(1 + 2) * 3", json!(9));
    check("not vars.nothing", json!(true));
    check("vars.nothing == null", json!(true));
}

#[test]
fn tasks_by_any_name() {
    check("tasks.build.status == 'completed'", json!(true));
    check("tasks.my-task.outputs.version", json!("1.2"));
    check("tasks.my-task.outputs.n[1]-1", json!(1));
    check("tasks['my-task'].outputs['n']", json!([1, 2]));
    check("tasks.2nd.outputs", json!({}));
    check("tasks.2nd.result", json!(null));
    check("tasks|length", json!(3));
    check("tasks.build.result|trim", json!("ok"));
    check("tasks|list", json!(["2nd", "build", "my-task"]));
}

#[test]
fn filters_and_tests() {
    check("vars.list|sort|join(',')", json!("1,2,3"));
    check("vars.people|map(attribute='name')|join", json!("ab"));
    check("vars.list|map('string')|list", json!(["3", "1", "2"]));
    check("vars.people|selectattr('age', 'gt', 2)|map(attribute='name')|first", json!("a"));
    check("vars.list|select('odd')|list", json!([3, 1]));
    check("vars.text|fromjson", json!({"a": [1]}));
    check("vars.list|tojson", json!("[3,1,2]"));
    check("vars.missing|default(5)", json!(5));
    check("vars.missing is defined", json!(false));
    check("vars.n is divisibleby 7", json!(true));
    check("vars.n is not odd", json!(false));
    check("'a,b'|split(',')", json!(["a", "b"]));
    check("vars.list|sum", json!(6));
    check("vars.name|upper|length", json!(3));
    check("'7'|int * 2", json!(14));
    check("vars.people[0]|keys", json!(["age", "name"]));
    check("vars.list|unique|max", json!(3));
    check("'b' is in ['a', 'b']", json!(true));
}

#[test]
fn syntax_is_refused_with_its_place() {
    refused("", "0: an expression is empty");
    refused("vars.", "5: a name is expected after '.' instead of the end");
    refused("vars.a &&vars.b", "7: '&&' is no operator (write and)");
    refused("vars.a || 1", "7: '||' is no operator (write or)");
    refused("!vars.a", "0: '!' is no operator (write not)");
    refused("vars.a = 1", "7: '=' is no operator (write ==)");
    refused("a ? b : c", "0: 'a' is unknown (known are vars, inputs, tasks, item, index, run, self, loop)");
    refused("1 ? 2 : 3", "2: '?' is no operator (write a if condition else b)");
    refused("1 if true", "9: an 'if' has no 'else' (write a if condition else b)");
    refused("var.n", "0: 'var' is unknown (did you mean 'vars'?)");
    refused("vars.n|uper", "7: 'uper' is no filter (did you mean 'upper'?)");
    refused("vars.n is evn", "10: 'evn' is no test (did you mean 'even'?)");
    refused("vars.list|map('uper')", "14: 'uper' is no filter (did you mean 'upper'?)");
    refused("vars.list|map(vars.name)", "14: the name of a filter is expected, as a text");
    refused(
        "success()",
        "0: 'success' is no function (a task with `needs` runs when they completed; leave the condition out)",
    );
    refused("length(vars.list)", "0: 'length' is no function (write value|length)");
    refused("range(3)", "0: 'range' is no function (there are none; filters are written value|name)");
    refused("vars.name.upper()", "15: nothing can be called (filters are written value|name)");
    refused(
        "tasks.build.output",
        "12: tasks.build has no 'output'; it has status, outputs, result (a task's own values are in outputs.output)",
    );
    refused("'a", "0: a text does not end (close it with ')");
    refused("(1, 2)", "2: ',' is not expected here (write a list as [a, b])");
    refused("[1, 2", "5: ']' is expected instead of the end");
    refused("1 2", "2: '2' is not expected here");
    refused("vars.n|_number", "7: '_number' is no filter");
    refused("${{ 1 }}", "0: '$' has no meaning here (inside ${{ }} write the name alone)");
    refused("  vars..a", "7: a name is expected after '.' instead of '.'");
    refused(&"(".repeat(20), "16: an expression is nested deeper than 16");
    refused(&format!("'{}'", "a".repeat(5_000)), "0: an expression is longer than 4096 bytes");
    refused("99999999999999999999999999999999999999999", "0: the number is too large");
}

#[test]
fn evaluation_says_what_is_missing() {
    refused("vars.nam", "vars.nam is missing; did you mean name?");
    refused("tasks.biuld.status", "tasks.biuld is missing; did you mean build?");
    refused("tasks.build.outputs.x.y", "tasks.build.outputs.x is missing; it has n, version");
    refused("vars.list[9]", "vars.list.9 is missing: vars.list is a list, or it is shorter");
    refused("vars.name.first", "vars.name.first is missing: vars.name is a text");
    refused("inputs.x + 1", "inputs.x is missing; it has who");
    refused("vars.n + 'a'", "tried to use + operator on unsupported types number and string");
    refused("vars.list * 3", "* multiplies numbers, not a sequence");
    refused("3 * vars.name", "* multiplies numbers, not a string");
    refused("1 / 0", "unable to calculate 1 / 0");
    refused("'x'|fromjson", "the text is no JSON: expected value at line 1 column 1");
    refused("2 ** 100", "1267650600228229401496703205376 is too large a number");
    refused("{1: 2}", "a map's key is 1; keys must be texts");
    refused("'x'|int", "the text is no number");
    let nothing = Expression::new("item").expect("valid").evaluate(&Scope::new()).expect_err("no item");
    assert_eq!(nothing.to_string(), "there is no item here in 'item'");
}

#[test]
fn conditions() {
    let is_true = |source: &str| Expression::new(source).expect("valid").is_true(&scope()).expect("a value");
    for source in ["true", "1", "'x'", "[0]", "vars.name", "tasks.my-task.status == 'failed'"] {
        assert!(is_true(source), "{source}");
    }
    for source in ["false", "0", "''", "[]", "{}", "null", "'false'", "0.0"] {
        assert!(!is_true(source), "{source}");
    }
}

#[test]
fn references() {
    let references = |source: &str| Expression::new(source).expect("valid").references().clone();
    let names = |list: &[Box<str>]| list.join(" ");
    let found = references("tasks.a-b.status == 'x' and tasks['c d'].outputs.x ~ vars.v ~ item.x");
    assert_eq!(
        (names(&found.tasks), names(&found.statuses), names(&found.vars)),
        ("a-b c d".into(), "a-b".into(), "v".into())
    );
    assert!(found.uses_item && !found.all_tasks && !found.roots.contains(Root::Run));
    assert!(references("tasks[vars.x].status").all_tasks);
    assert!(references("tasks|length").all_tasks);
    assert!(references("vars.a + inputs.b").roots.known_at_start());
    assert!(!references("vars.a + index").roots.known_at_start());
}

#[test]
fn an_expression_is_its_text() {
    let expression = Expression::new(" vars.n  + 1 ").expect("valid");
    assert_eq!(serde_json::to_value(&expression).expect("a text"), json!("vars.n  + 1"));
    let back: Expression = serde_json::from_value(json!("vars.n  + 1")).expect("a text");
    assert_eq!(back, expression);
    assert_eq!(back.evaluate(&scope()), Ok(json!(8)));
    let broken: Expression = serde_json::from_value(json!("vars.")).expect("a text");
    assert!(broken.evaluate(&scope()).is_err());
}

#[test]
fn what_cannot_be_read_says_why() {
    let outputs = Err("its outputs are too large".to_owned());
    let large = TaskValue { status: "completed", outputs, result: Ok(Some("ok")) }.view();
    let scope = scope().task("large", &large);
    let evaluate = |source: &str| Expression::new(source).expect("valid").evaluate(&scope);
    assert_eq!(evaluate("tasks.large.status ~ tasks.large.result"), Ok(json!("completedok")));
    for source in
        ["tasks.large.outputs.n", "tasks.large.outputs", "tasks.large.outputs | length", "tasks.large"]
    {
        let error = evaluate(source).expect_err(source).detail;
        assert!(error.contains("its outputs are too large"), "{source}: {error}");
    }
}

#[test]
fn a_whole_part_of_a_task_is_known() {
    let part = |source| {
        Expression::new(source)
            .expect("valid")
            .whole_part()
            .map(|(name, part)| format!("{name}.{}", part.as_str()))
    };
    assert_eq!(part("tasks.build.outputs"), Some("build.outputs".to_owned()));
    assert_eq!(part(" tasks['my-task'].result "), Some("my-task.result".to_owned()));
    for source in [
        "tasks.build.outputs.n",
        "tasks.build.status",
        "tasks.build.outputs | tojson",
        "vars.name",
        "(tasks.build.outputs)",
    ] {
        assert_eq!(part(source), None, "{source}");
    }
}

#[test]
fn a_slice_reads_what_it_is_of() {
    check("tasks.build.outputs.version[0:1]", json!("1"));
    check("vars.list[:2]", json!([3, 1]));
    let slice = Expression::new("tasks.build.outputs.n[1:]").expect("valid");
    assert_eq!(slice.references().tasks, ["build".into()]);
    refused("tasks.build.outputs.m[1:]", "tasks.build.outputs.m is missing; it has n, version");
}

#[test]
fn numbers_and_texts_that_are_known_are_not_mixed() {
    let order = "'<' compares numbers with numbers or texts with texts, not a number with a text";
    refused("tasks.build.status < 5", &format!("19: {order}"));
    refused("loop.iteration + 1 < 'a'", &format!("19: {order}"));
    refused("tasks.build.status + 1", "19: '+' works on numbers, not on a text (join texts with ~)");
    refused("run.id + run.name", "7: '+' works on numbers, not on a text (join texts with ~)");
    refused("self.status - 1", "12: '-' works on numbers, not on a text");
    check("tasks.build.status < 'd'", json!(true));
    check("tasks.build.status == 5", json!(false));
    check("run.id + loop.iteration > 13", json!(true));
    check("vars.name + 'x'", json!("Adax"));
}
