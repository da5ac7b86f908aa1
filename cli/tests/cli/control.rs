//! What can be done with a run that is there.

use serde_json::{Value, json};

use crate::support::{Home, file, until};

fn run(home: &Home, id: &str) -> Value {
    home.run(&["run", "get", id, "--json"]).code(0).json()
}

fn detach(home: &Home, text: &str) -> String {
    let path = file(home, "w.yaml", text);
    home.run(&["run", "--detach", &path]).code(0).out.trim().to_owned()
}

#[test]
fn an_approval_is_given_or_refused() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    let text =
        "version: 1\nname: ask\ntasks:\n  ask: {approval: Shall we?}\n  go: {needs: ask, run: echo went}\n";
    let (yes, no) = (detach(&home, text), detach(&home, text));
    assert_eq!((yes.as_str(), no.as_str()), ("1", "2"));
    let task = |id: &str| run(&home, id)["nodes"][0]["task_id"].to_string();
    until("it asks", || run(&home, &no)["nodes"][0]["waits"] == "approval");
    let why = home.run(&["run", "why", &yes]).code(0).out;
    assert!(why.contains("ask (task 1)") && why.contains("Shall we?"), "{why}");
    assert_eq!(home.run(&["run", "why", &yes, "--json"]).code(0).json()["run_id"], 1);
    home.run(&["approve", &task(&yes)]).code(0);
    let rejected = home.run(&["reject", &task(&no), "--reason", "not today", "--json"]).code(0).json();
    assert_eq!(rejected["tasks"][0]["status"], "failed");
    home.run(&["run", "--resume", &yes]).code(0);
    let ended = home.run(&["run", "--resume", &no]).code(1);
    assert!(ended.out.contains("run 2 ask failed: 1 failed, 1 skipped"), "{ended:#?}");
    assert!(run(&home, &no)["nodes"][0]["error"].as_str().is_some_and(|why| why.contains("not today")));
    home.run(&["approve", &task(&yes)]).code(5);
}

#[test]
fn what_waits_inside_is_told_too() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    let text = "version: 1\nname: deep\ntasks:\n  inner: {workflow: {tasks: {ask: {approval: Inside?}}}}\n  \
                each: {foreach: [1], run: 'echo ${{ item }}', group: nobody}\n";
    let path = file(&home, "deep.yaml", text);
    let mut run = home.start(&["run", &path]);
    let asks = run.line_with("inner/ask waits for an approval: Inside?");
    run.line_with("each[0] waits: no online worker serves group nobody");
    let task =
        asks.split("agentflow approve ").nth(1).and_then(|rest| rest.split(',').next()).expect("a task");
    home.run(&["approve", task]).code(0);
    run.line_with("inner/ask completed");
    home.run(&["run", "cancel", "1"]).code(0);
    run.end().code(1);
}

#[test]
fn a_run_is_paused_resumed_and_cancelled() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    let gate = home.path("gate");
    let wait = format!("until test -e {}; do sleep 0.02; done", gate.display());
    let text = format!("version: 1\nname: slow\ntasks:\n  a: {wait}\n  b: {{needs: a, run: sleep 60}}\n");
    let id = detach(&home, &text);
    until("it runs", || run(&home, &id)["nodes"][0]["status"] == "running");
    let paused = home.run(&["run", "pause", &id]).code(0).out;
    assert!(paused.contains("paused") && paused.contains("slow"), "{paused}");
    std::fs::write(&gate, "").expect("written");
    until("what ran has finished", || run(&home, &id)["nodes"][0]["status"] == "completed");
    assert_eq!(run(&home, &id)["nodes"][1]["status"], "blocked");
    let why = home.run(&["run", "why", &id]).code(0).out;
    assert!(why.contains("run_paused"), "{why}");
    let mut follower = home.start(&["run", "--resume", &id]);
    home.run(&["run", "resume", &id]).code(0);
    follower.line_with("b running");
    home.run(&["run", "cancel", &id, "--json"]).code(0);
    let ended = follower.end().code(1);
    assert!(ended.out.contains("run 1 slow cancelled: 1 completed, 1 cancelled"), "{ended:#?}");
    home.run(&["run", "pause", &id]).code(5);
    home.run(&["run", "get", "99"]).code(1);
}

#[test]
fn runs_are_listed_and_shown() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    let good = file(&home, "good.yaml", "version: 1\nname: good\ntasks: {a: echo a, b: {needs: a}}\n");
    let bad = file(&home, "bad.yaml", "version: 1\nname: bad\ntasks: {a: exit 3}\n");
    home.run(&["run", &good]).code(0);
    home.run(&["run", &bad]).code(1);
    let table = home.run(&["runs"]).code(0).out;
    assert!(table.starts_with("ID") && table.contains("good") && table.contains("bad"), "{table}");
    let ids = |words: &[&str]| -> Vec<Value> {
        let answer = home.run(words).code(0).json();
        answer["runs"].as_array().expect("runs").iter().map(|run| run["id"].clone()).collect()
    };
    assert_eq!(ids(&["runs", "--json"]), [json!(2), json!(1)], "the newest first");
    assert_eq!(ids(&["runs", "--json", "--status", "failed,running"]), [json!(2)]);
    assert_eq!(ids(&["runs", "--json", "--limit", "1"]), [json!(2)]);
    home.run(&["runs", "--status", "odd"]).code(2);
    let shown = home.run(&["run", "get", "2"]).code(0).out;
    assert!(shown.contains("name      bad") && shown.contains("exit code 3"), "{shown}");
    let graph = home.run(&["graph", "1"]).code(0).out;
    assert_eq!(graph, "1  a  completed\n2  b  completed  after a\n");
    assert!(home.run(&["graph", "1", "--format", "mermaid"]).code(0).out.starts_with("flowchart"));
    assert_eq!(home.run(&["graph", "1", "--json"]).code(0).json()["plan"], json!([["a"], ["b"]]));
    let events = home.run(&["events", "--subject", "run:1", "--json"]).code(0).json();
    let kinds: Vec<&Value> =
        events["events"].as_array().expect("events").iter().map(|event| &event["type"]).collect();
    assert_eq!(kinds, ["run.created", "run.started", "run.completed"]);
    let tasks = home.run(&["list", "--run", "1", "--json"]).code(0).json();
    assert_eq!(tasks["tasks"].as_array().map(Vec::len), Some(2));
    let task = home.run(&["get", "1"]).code(0).out;
    assert!(task.contains("node") && task.contains("run "), "{task}");
}

#[test]
fn a_file_may_be_called_like_a_command() {
    let home = Home::new();
    let path = file(&home, "get", "version: 1\ntasks: {a: echo from a file}\n");
    let folder = std::path::Path::new(&path).parent().expect("a folder").to_owned();
    let output = home.command(&["run", "--embedded", "--logs", "./get"]).current_dir(folder).output();
    let output = output.expect("the binary starts");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("| from a file"));
    home.run(&["run", &path, "get", "5"]).code(2);
}
