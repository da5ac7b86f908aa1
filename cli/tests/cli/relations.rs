//! One task after another: `relate`, `--needs`, `--hold`, `release`, and the plan of tasks.

use serde_json::{Value, json};

use crate::support::{Home, until};

fn status(home: &Home, task: &str) -> Value {
    home.run(&["get", task, "--json"]).code(0).json()["status"].clone()
}

#[test]
fn what_is_held_waits_for_release_and_what_needs_it_waits_too() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    assert_eq!(home.run(&["submit", "--hold", "--", "true"]).code(0).out, "1\n");
    assert_eq!(home.run(&["submit", "--needs", "1", "--", "true"]).code(0).out, "2\n");
    assert_eq!((status(&home, "1"), status(&home, "2")), (json!("blocked"), json!("blocked")));
    let shown = home.run(&["get", "1"]).code(0).out;
    assert!(shown.contains("waits for") && shown.contains("release"), "{shown}");
    assert_eq!(home.run(&["plan", "--tasks", "1,2", "--json"]).code(0).json(), json!({ "plan": [[1], [2]] }));
    assert_eq!(home.run(&["plan", "--group", "default"]).code(0).out, "1  1\n2  2\n");
    let parallel = home.run(&["plan", "--tasks", "1,2", "--mode", "parallel"]).code(5);
    assert!(parallel.err.contains("not independent"), "{parallel:#?}");
    home.run(&["release", "1"]).code(0);
    home.run(&["wait", "1", "2"]).code(0);
    home.run(&["release", "1"]).code(5);
}

#[test]
fn tasks_are_related_and_cycles_are_refused() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    for title in ["Build", "Test", "Lint", "Release"] {
        home.run(&["submit", "--hold", "--title", title, "--kind", "noop"]).code(0);
    }
    assert_eq!(home.run(&["relate", "1", "2"]).code(0).out, "1 -> 2  dependency\n");
    let context = home.run(&["relate", "1", "3", "--type", "context", "--json"]).code(0).json();
    assert_eq!(
        (&context["predecessor"], &context["successor"], &context["type"]),
        (&json!(1), &json!(3), &json!("context"))
    );
    home.run(&["relate", "2", "TASK-00000004"]).code(0);
    home.run(&["relate", "3", "4"]).code(0);
    let plan = home.run(&["plan", "--tasks", "1", "2", "3", "4", "--json"]).code(0).json();
    assert_eq!(plan, json!({ "plan": [[1], [2, 3], [4]] }));
    let cycle = home.run(&["relate", "4", "1"]);
    assert!([2, 5].contains(&cycle.code.unwrap_or(0)) && cycle.err.contains("cycle"), "{cycle:#?}");
    let shown = home.run(&["get", "2", "--relationships"]).code(0).out;
    assert!(shown.contains("BEFORE") && shown.contains("dependency"), "{shown}");
    let relations = home.run(&["get", "2", "--relationships", "--json"]).code(0).json();
    assert_eq!(relations["relationships"].as_array().map(Vec::len), Some(2));
    home.run(&["release", "1", "2", "3", "4"]).code(0);
    home.run(&["wait", "1", "2", "3", "4"]).code(0);
}

#[test]
fn what_needs_a_failed_task_is_skipped() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    home.run(&["submit", "--hold", "--", "false"]).code(0);
    home.run(&["submit", "--needs", "1", "--", "true"]).code(0);
    home.run(&["release", "1"]).code(0);
    until("it is skipped", || status(&home, "2") == "skipped");
    home.run(&["wait", "2"]).code(1);
}
