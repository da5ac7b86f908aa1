//! No expression takes more than its bounds, and the engine takes everything that the grammar lets
//! through.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::limits;

/// Lists, texts and maps that are as large as what people have.
fn scope() -> Scope {
    let nulls: Vec<Value> = vec![Value::Null; 50_000];
    let long = "ab,".repeat(100_000);
    let vars = json!({
        "n": 3, "f": 1.5, "s": "text", "l": [1, 2, 3], "m": {"a": [1], "b": {"c": null}},
        "nulls": nulls, "long": long, "numbers": (0..50_000).collect::<Vec<_>>(),
    });
    Scope::new().vars(vars.as_object().expect("a map")).item(json!({"x": 1}), 0)
}

/// It is refused, or its value is within bounds.
fn check(source: &str, scope: &Scope) -> Option<Value> {
    let expression = Expression::new(source).ok()?;
    let checked = expression.checked().expect("checked");
    if let Err(error) = engine::compile(&checked.output) {
        panic!("{source}: the engine does not take {}: {error}", checked.output);
    }
    let value = expression.evaluate(scope).ok()?;
    let bytes = value.to_string().len();
    // Escaped characters are longer in JSON than they were counted.
    assert!(bytes <= 6 * limits::RESULT_BYTES, "{source}: {bytes} bytes");
    Some(value)
}

/// What would build without end elsewhere.
#[test]
fn attacks() {
    let scope = scope();
    let chain = |piece: &str, between: &str| vec![piece; 300].join(between);
    let attacks = [
        "'a' * 100000000".to_owned(),
        "[1] * 100000000".to_owned(),
        "100000000 * vars.l".to_owned(),
        "(([vars.nulls] + vars.l) * 99999999) * 9999999".to_owned(),
        "vars.nulls|map('default', vars.numbers, true)|list ~ ''".to_owned(),
        "vars.nulls|map('default', vars.long, true)|list ~ ''".to_owned(),
        "vars.nulls|map('default', vars.long, true)|join".to_owned(),
        "vars.nulls|map('default', vars.numbers, true)|unique".to_owned(),
        "vars.nulls|map('default', vars.numbers, true)|select('equalto', vars.numbers)".to_owned(),
        "vars.nulls|map('default', vars.numbers, true)|sum(start=[])".to_owned(),
        "vars.nulls|map('default', vars.nulls, true)|map('tojson')|join".to_owned(),
        "[1]|batch(100000000, vars.long)".to_owned(),
        "[1]|slice(100000000)".to_owned(),
        "[1]|slice(100000, vars.long)".to_owned(),
        "vars.long|replace('', vars.long)".to_owned(),
        "vars.long|replace('a', vars.long)".to_owned(),
        "vars.long|split('')|map('default', vars.long)|list".to_owned(),
        "vars.nulls|join(vars.long)".to_owned(),
        "2 ** 2 ** 2 ** 2 ** 2 ** 2".to_owned(),
        "9 ** 9999999999".to_owned(),
        "vars.n|round(999999999)".to_owned(),
        "1.5|round(-999999999)".to_owned(),
        chain("vars.long", " ~ "),
        chain("vars.long", " + "),
        chain("vars.nulls", " + "),
        format!("[{0}] == [{0}]", vec!["vars.numbers"; 100].join(", ")),
        format!("[{}]|tojson|length", chain("vars.nulls", ", ")),
        chain("vars.l", "|tojson ~ "),
        format!("'[{}{}]'|fromjson", "[".repeat(1_900), "]".repeat(1_900)),
        format!("{}1", "-".repeat(4_000)),
        format!("{}1", "not ".repeat(1_000)),
        format!("{}1{}", "[".repeat(2_000), "]".repeat(2_000)),
        format!("1{}", " if 1 else 1".repeat(300)),
        format!("1{}", "|default(1)".repeat(300)),
        format!("1{}", " + 1".repeat(1_000)),
        format!("1{}", " * 1".repeat(1_000)),
        format!("'a'{}", " ~ 'a'".repeat(500)),
        format!("1{}", " == 1".repeat(700)),
        format!("vars{}", ".a".repeat(2_000)),
        format!("vars{}", "[0]".repeat(1_000)),
    ];
    for attack in attacks {
        check(&attack, &scope);
    }
}

#[test]
fn what_is_large_but_reasonable_passes() {
    let scope = scope();
    for source in [
        "vars.numbers|length",
        "vars.numbers|map('string')|list|length",
        "vars.numbers|select('odd')|list|length",
        "vars.numbers[:10000]|sort(reverse=true)|first",
        "vars.numbers|sum",
        "vars.long|split(',')|length",
        "vars.numbers|tojson|length",
        "vars.numbers|join(',')|length",
        "vars.numbers",
    ] {
        let expression = Expression::new(source).expect("valid");
        assert!(expression.evaluate(&scope).is_ok(), "{source}: {:?}", expression.evaluate(&scope));
    }
}

/// Pieces of expressions, more or less in an order that makes sense.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "1",
        "2.5",
        "'a'",
        "\"b\"",
        "true",
        "null",
        "vars.n",
        "vars.f",
        "vars.s",
        "vars.l",
        "vars.m",
        "vars.m.a",
        "vars.l[0]",
        "vars.m['b']",
        "item.x",
        "index",
        "vars.l[1:]",
        "vars",
        "tasks.a-b.outputs.c",
        "vars.none",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(6, 40, 3, |inner| {
        let binary = prop::sample::select(vec![
            "+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", "in", "not in", "and", "or",
        ]);
        let after = prop::sample::select(vec![
            "|length",
            "|string",
            "|list",
            "|first",
            "|tojson",
            "|int",
            "|sort",
            "|join(',')",
            "|default(1)",
            "|map('string')",
            "|select('defined')",
            "|batch(2)",
            "|sum",
            "|unique",
            "|items",
            "|keys",
            "|bool",
            "|round(1)",
            "|replace('a', 'b')",
            "|split",
            "|map(attribute='x', default=1)",
            " is defined",
            " is not none",
            " is in [1]",
            " is eq 1",
            "[0]",
            ".a",
            "[::2]",
            "|min",
            "|reverse",
            "|abs",
        ]);
        prop_oneof![
            (inner.clone(), binary, inner.clone()).prop_map(|(a, operator, b)| format!("{a} {operator} {b}")),
            (inner.clone(), after).prop_map(|(a, after)| format!("{a}{after}")),
            inner.clone().prop_map(|a| format!("({a})")),
            inner.clone().prop_map(|a| format!("-{a}")),
            inner.clone().prop_map(|a| format!("not {a}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[{a}, {b}]")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{{'k': {a}, 'l': {b}}}")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("{a} if {b} else {c}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sensible_expressions(source in expression()) {
        check(&source, &scope_small());
    }

    #[test]
    fn any_pieces(pieces in prop::collection::vec(prop::sample::select(vec![
        "1", "1.5", "'a'", "vars", ".", "n", "[", "]", "(", ")", "{", "}", ":", ",", "|", "length", "map", "is",
        "not", "in", "if", "else", "and", "or", "-", "+", "*", "**", "~", "==", "=", "item", "default", "odd",
        "none", "'", "\"", "\\", "tasks", "a-b", "status", "é", "&&", "!", " ", "2", "}}", "-}}",
    ]), 0..14), blank in prop::sample::select(vec!["", " "])) {
        check(&pieces.join(blank), &scope_small());
    }

    #[test]
    fn any_text(source in "\\PC{0,30}") {
        check(&source, &scope_small());
    }
}

fn scope_small() -> Scope {
    let vars = json!({"n": 3, "f": 1.5, "s": "text", "l": [1, 2, 3], "m": {"a": [1], "b": {"c": null}}});
    Scope::new().vars(vars.as_object().expect("a map")).item(json!({"x": 1}), 0)
}
