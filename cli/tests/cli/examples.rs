//! Every workflow in `examples/`, run to its end.

use serde_json::Value;

use crate::support::{Ended, Home, example, until};

/// Runs an example without a master.
fn run(home: &Home, name: &str, more: &[&str]) -> Ended {
    let path = example(name);
    let mut words = vec!["run", "--embedded", "--logs", path.as_str()];
    words.extend(more);
    home.run(&words)
}

/// `NAME STATUS` of each line, in order, and what tasks have printed.
fn told(ended: &Ended) -> Vec<String> {
    let line = |line: &str| match line.strip_prefix("    | ") {
        Some(printed) => printed.to_owned(),
        None => line.split(' ').skip(1).take(2).collect::<Vec<_>>().join(" "),
    };
    ended.out.lines().map(line).collect()
}

#[track_caller]
fn check_order(ended: &Ended, order: &[&str]) {
    let told = told(ended);
    let mut rest = told.iter();
    for line in order {
        assert!(rest.any(|have| have == line), "not in this order: {line} in {told:#?}");
    }
}

#[test]
fn sequential() {
    let home = Home::new();
    let ended = run(&home, "sequential.yaml", &["--var", "name=Ada"]).code(0);
    check_order(
        &ended,
        &["choose completed", "greet running", "greet completed", "hello, Ada", "leave running", "good-bye"],
    );
    assert!(ended.out.contains("run 1 sequential completed: 3 completed ("), "{ended:#?}");
}

#[test]
fn parallel() {
    let home = Home::new();
    let ended = run(&home, "parallel.yaml", &[]).code(0);
    assert!(ended.out.contains("run 1 parallel completed: 4 completed ("), "{ended:#?}");
    // Never more than two at once.
    let mut running = 0;
    for line in told(&ended) {
        running += i32::from(line.ends_with(" running") && !line.starts_with("run "));
        running -= i32::from(line.ends_with(" completed") && !line.starts_with("1 "));
        assert!(running <= 2, "{ended:#?}");
    }
}

#[test]
fn dag() {
    let home = Home::new();
    let ended = run(&home, "dag.yaml", &[]).code(0);
    check_order(&ended, &["build completed", "test running", "test completed", "release running"]);
    check_order(&ended, &["build completed", "lint running", "lint completed", "release running"]);
    check_order(&ended, &["release completed", "app-1.0 is released"]);
}

#[test]
fn pipeline() {
    let home = Home::new();
    let ended = run(&home, "pipeline.yaml", &["--var", r#"words=["one", "three"]"#]).code(0);
    check_order(&ended, &["shout[1] completed", "THREE", "measure[1] completed", "report[1] completed"]);
    assert!(ended.out.contains(r#"the stage before says {"letters":"5"}"#), "{ended:#?}");
    assert!(ended.out.contains("run 1 pipeline completed: 6 completed ("), "{ended:#?}");
}

#[test]
fn conditional() {
    let home = Home::new();
    let small = run(&home, "conditional.yaml", &[]).code(0);
    check_order(&small, &["receive completed", "automatic completed", "archive completed", "filed"]);
    check_order(&small, &["by-hand skipped:"]);
    let large = run(&home, "conditional.yaml", &["--var", "amount=5000"]).code(0);
    check_order(&large, &["an order of 5000", "by-hand completed", "archive completed"]);
    check_order(&large, &["automatic skipped:"]);
}

#[test]
fn recovery() {
    let home = Home::new();
    let ended = run(&home, "recovery.yaml", &[]).code(0);
    check_order(
        &ended,
        &["prepare failed,", "prepare completed", "deploy failed", "the new version does not start"],
    );
    check_order(&ended, &["deploy failed", "roll-back completed", "report completed", "nobody noticed"]);
    assert!(ended.out.contains("completed: 3 completed, 1 failed, 1 skipped ("), "{ended:#?}");
}

#[test]
fn map_reduce() {
    let home = Home::new();
    let ended = run(&home, "map-reduce.yaml", &["--var", "count=6"]).code(0);
    check_order(&ended, &["split completed", "count completed", "total completed", "21 lines in all"]);
    let parts = told(&ended).iter().filter(|line| line.starts_with("count[")).count();
    assert_eq!(parts, 6, "{ended:#?}");
}

#[test]
fn ci() {
    let home = Home::new();
    let up = home.up("127.0.0.1:0");
    let path = example("ci.yaml");
    let mut run = home.start(&["run", "--logs", &path, "--var", "version=2.0.1"]);
    let asks = run.line_with("may-it-go waits for an approval: Release version 2.0.1?");
    let task =
        asks.split("agentflow approve ").nth(1).and_then(|rest| rest.split(',').next()).expect("a task");
    let node = |name: &str| -> Value {
        let run = home.run(&["run", "get", "1", "--json"]).code(0).json();
        let nodes = run["nodes"].as_array().expect("nodes").clone();
        nodes.into_iter().find(|node| node["name"] == name).expect("the node")
    };
    assert_eq!(
        (&node("test")["status"], &node("may-it-go")["waits"]),
        (&"completed".into(), &"approval".into())
    );
    home.run(&["approve", task]).code(0);
    let ended = run.end().code(0);
    check_order(
        &ended,
        &["build completed", "test completed", "may-it-go completed", "app-2.0.1.tar is out"],
    );
    until("the run has ended", || home.run(&["runs", "--json"]).json()["runs"][0]["status"] == "completed");
    up.stop().code(0);
}

#[test]
fn every_example_is_right() {
    let home = Home::new();
    let folder = std::fs::read_dir(example("")).expect("the examples");
    let names = folder.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
    let mut count = 0;
    for name in names.filter(|name| name.ends_with(".yaml")) {
        home.run(&["validate", &example(&name)]).code(0);
        count += 1;
    }
    assert_eq!(count, 8, "a new example needs a test of its own");
}
