//! Runs of workflows over the API. The nodes here are milestones and approvals: no worker is needed.

use serde_json::{Value, json};

use crate::support::{Client, TestMaster};

const ASK: &str = "
version: 1
name: release
vars: {version: '1.0'}
tasks:
  build: {}
  test: {needs: build}
  ask: {needs: test, approval: 'release ${{ vars.version }}?'}
  publish: {needs: ask}
";

impl Client {
    pub(crate) fn run(&self, file: &str) -> u64 {
        let body = json!({ "workflow": file }).to_string();
        self.post("/api/v2/runs", &body).expect(201)["id"].as_u64().expect("an id")
    }

    pub(crate) fn ended(&self, run: u64) -> Value {
        self.get(&format!("/api/v2/runs/{run}?wait_ms=20000")).expect(200)
    }
}

/// `name=status` of every node.
pub(crate) fn nodes(run: &Value) -> String {
    let nodes = run["nodes"].as_array().expect("nodes").iter();
    let text = |node: &Value| {
        format!("{}={}", node["name"].as_str().expect("a name"), node["status"].as_str().expect("a status"))
    };
    nodes.map(text).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_run_is_asked_for_and_goes_on_when_it_is_approved() {
    let mut master = TestMaster::start();
    let run = master.client.run(ASK);
    let view = master.client.get(&format!("/api/v2/runs/{run}")).expect(200);
    assert_eq!(nodes(&view), "build=completed test=completed ask=pending publish=blocked");
    assert_eq!((&view["mode"], &view["status"]), (&json!("dag"), &json!("running")));
    let ask = view["nodes"][2]["task_id"].as_u64().expect("an id");
    let why = master.client.get(&format!("/api/v2/tasks/{ask}/why")).expect(200);
    assert_eq!(why["reasons"][0]["code"], "approval");
    assert!(why["reasons"][0]["detail"].as_str().expect("text").contains("release 1.0?"));
    let why = master.client.get(&format!("/api/v2/runs/{run}/why")).expect(200);
    assert_eq!(why["nodes"][1]["reasons"][0]["held_by"], json!([format!("task:{ask}")]));
    // The number of a node of which nothing has become yet is known: the run answers for it.
    let publish = ask + 1;
    let task = master.client.get(&format!("/api/v2/tasks/{publish}")).expect(200);
    assert_eq!(
        (&task["status"], &task["node"], &task["run_id"]),
        (&json!("blocked"), &json!("publish"), &json!(1))
    );
    let why = master.client.get(&format!("/api/v2/tasks/{publish}/why")).expect(200);
    assert_eq!(why["reasons"][0]["code"], "predecessors");
    master.client.post(&format!("/api/v2/tasks/{publish}/approve"), "").expect(409);
    let cancel = master.client.post(&format!("/api/v2/tasks/{publish}/cancel"), "").expect(409);
    assert!(
        cancel["detail"].as_str().is_some_and(|text| text.contains("cancel or pause the run")),
        "{cancel}"
    );
    for list in ["attempts", "relationships", "artifacts", "logs"] {
        assert_eq!(master.client.get(&format!("/api/v2/tasks/{publish}/{list}")).status, 200, "{list}");
    }
    master.restart();
    let task = master.client.post(&format!("/api/v2/tasks/{ask}/approve"), "").expect(200);
    assert_eq!(
        (&task["status"], &task["run_id"], &task["node"]),
        (&json!("completed"), &json!(1), &json!("ask"))
    );
    let view = master.client.ended(run);
    assert_eq!(view["status"], "completed");
    master.client.post(&format!("/api/v2/tasks/{ask}/approve"), "").expect(409);
    let events = master.client.get("/api/v2/events?subject=run:1").expect(200);
    let types: Vec<&str> = events["events"]
        .as_array()
        .expect("events")
        .iter()
        .filter_map(|event| event["type"].as_str())
        .collect();
    assert_eq!(types, ["run.created", "run.started", "run.completed"]);
    let tasks = master.client.get("/api/v2/tasks?run=1").expect(200);
    assert_eq!(tasks["tasks"].as_array().map(Vec::len), Some(4));
}

#[test]
fn what_is_rejected_fails_and_runs_again_when_asked() {
    let master = TestMaster::start();
    let run = master.client.run(ASK);
    let ask = 3;
    master.client.post(&format!("/api/v2/tasks/{ask}/reject"), r#"{"reason": "not yet"}"#).expect(200);
    let view = master.client.ended(run);
    assert_eq!(nodes(&view), "build=completed test=completed ask=failed publish=skipped");
    assert_eq!(view["nodes"][2]["error"], "rejected: not yet");
    assert_eq!(view["nodes"][3]["error"], "'ask' failed");
    assert_eq!((&view["status"], &view["error"]), (&json!("failed"), &json!("'ask' failed")));
    let path = format!("/api/v2/runs/{run}/rerun");
    let preview = master.client.post(&format!("{path}?dry_run=1"), "").expect(200);
    assert_eq!(preview, json!({"nodes": ["ask", "publish"], "kept": ["build", "test"], "at_work": []}));
    master.client.post(&path, r#"{"from": ["nothing"]}"#).expect(422);
    let body = r#"{"vars": {"version": "1.1"}}"#;
    let view = master.client.post(&path, body).expect(200);
    assert_eq!((&view["revision"], &view["vars"]["version"]), (&json!(2), &json!("1.1")));
    assert_eq!(nodes(&view), "build=completed test=completed ask=pending publish=blocked");
    let why = master.client.get(&format!("/api/v2/tasks/{ask}/why")).expect(200);
    assert!(why.to_string().contains("release 1.1?"), "{why}");
    master.client.post(&path, r#"{"from": ["test"]}"#).expect(409);
    master.client.post(&format!("/api/v2/tasks/{ask}/approve"), "").expect(200);
    assert_eq!(master.client.ended(run)["status"], "completed");
    // Nothing failed, so that there is nothing to choose by itself.
    master.client.post(&path, "").expect(409);
}

#[test]
fn a_failed_node_is_retried_with_what_it_kept_from_running() {
    let master = TestMaster::start();
    let run = master.client.run(ASK);
    master.client.post("/api/v2/tasks/3/reject", "").expect(200);
    master.client.ended(run);
    let task = master.client.post("/api/v2/tasks/3/retry", "").expect(200);
    assert_eq!((&task["status"], &task["waits"]), (&json!("pending"), &json!("approval")));
    master.client.post("/api/v2/tasks/3/approve", "").expect(200);
    assert_eq!(
        nodes(&master.client.ended(run)),
        "build=completed test=completed ask=completed publish=completed"
    );
}

#[test]
fn a_run_is_paused_resumed_and_cancelled() {
    let mut master = TestMaster::start();
    let file =
        "version: 1\ntasks: {ask: {approval: true}, go: {kind: noop, needs: ask}, last: {needs: go}}\n";
    let run = master.client.run(file);
    let path = |action: &str| format!("/api/v2/runs/{run}/{action}");
    assert_eq!(master.client.post(&path("pause"), "").expect(200)["status"], "paused");
    master.client.post("/api/v2/tasks/1/approve", "").expect(200);
    let view = master.client.get(&format!("/api/v2/runs/{run}")).expect(200);
    assert_eq!(nodes(&view), "ask=blocked go=blocked last=blocked");
    assert_eq!(view["nodes"][0]["waits"], "room");
    master.restart();
    let view = master.client.post(&path("resume"), "").expect(200);
    assert_eq!(nodes(&view), "ask=completed go=pending last=blocked");
    let view = master.client.post(&path("cancel"), "").expect(200);
    assert_eq!(view["status"], "cancelled");
    assert_eq!(nodes(&view), "ask=completed go=cancelled last=cancelled");
    for action in ["pause", "resume", "cancel"] {
        master.client.post(&path(action), "").expect(409);
    }
    master.client.post("/api/v2/runs/9/pause", "").expect(404);
}

#[test]
fn what_is_wrong_is_said_with_line_and_column_before_anything_starts() {
    let master = TestMaster::start();
    let refused = |file: &str| {
        let body = json!({ "workflow": file }).to_string();
        let problem = master.client.post("/api/v2/runs", &body).expect(422);
        problem["errors"][0]["detail"].as_str().expect("a text").to_owned()
    };
    for (file, expected) in [
        ("version: 1\ntasks:\n  a: {needs: b}\n  b: {needs: a}\n", "a -> b -> a"),
        ("version: 1\ntasks:\n  a: {needs: nobody}\n", "3:"),
        ("version: 1\ntasks:\n  a: {needs: a}\n", "3:"),
        ("version: 1\ntasks:\n  a: {run: 'echo ${{ vars.x }}'}\n", "3:"),
        ("version: 1\ntasks:\n  a: {run: x, retry: {max: many}}\n", "3:"),
        ("version: 1\ntasks:\n  a: {foreach: 5, run: x}\n", "3:"),
        ("version: 2\ntasks: {a: {}}\n", "1:"),
        ("version: 1\ntasks: {a: {}}\nspeed: fast\n", "speed"),
        ("version: 1\ntasks: [\n", ""),
    ] {
        let detail = refused(file);
        assert!(detail.contains(expected), "{file}: {detail}");
    }
    for body in [
        r#"{"workflow": {"version": 1, "tasks": {"a": {}}}, "vars": {"x": 1}}"#,
        r#"{"workflow": 5}"#,
        r#"{"workflow": {"version": 1, "tasks": {"a": {}}}, "colour": "red"}"#,
        "{}",
    ] {
        master.client.post("/api/v2/runs", body).expect(422);
    }
    assert_eq!(master.client.get("/api/v2/stats").expect(200)["tasks"]["completed"], 0);
    assert_eq!(master.client.get("/api/v2/runs").expect(200)["runs"], json!([]));
}

#[test]
fn a_dry_run_plans_and_makes_nothing() {
    let master = TestMaster::start();
    let body = r#"{"workflow": {"version": 1, "tasks": {
        "build": {}, "test": {"needs": "build"}, "lint": {"needs": ["build"]}, "release": {"needs": ["test", "lint"]}
    }}}"#;
    let plan = master.client.post("/api/v2/runs?dry_run=1", body).expect(200);
    assert_eq!(plan["plan"], json!([["build"], ["test", "lint"], ["release"]]));
    assert_eq!(master.client.get("/api/v2/runs").expect(200)["runs"], json!([]));
    let run = master.client.post("/api/v2/runs", body).expect(201)["id"].as_u64().expect("an id");
    let graph = master.client.get(&format!("/api/v2/runs/{run}/graph")).expect(200);
    assert_eq!(graph["plan"], plan["plan"]);
    assert_eq!(graph["edges"][0], json!({"from": "build", "to": "test", "on": "success"}));
    assert!(graph["mermaid"].as_str().expect("text").starts_with("flowchart"));
}

#[test]
fn the_same_key_makes_one_run() {
    let mut master = TestMaster::start();
    let send = |client: &Client, name: &str| {
        let file = format!("version: 1\nname: {name}\ntasks: {{a: {{}}}}\n");
        let body = json!({ "workflow": file, "idempotency_key": "k" }).to_string();
        client.post("/api/v2/runs", &body)
    };
    assert_eq!(send(&master.client, "x").expect(201)["id"], 1);
    assert_eq!(send(&master.client, "x").expect(201)["id"], 1);
    master.restart();
    assert_eq!(send(&master.client, "x").expect(201)["id"], 1);
    assert_eq!(send(&master.client, "y").expect(409)["type"], "urn:agentflow:problem:idempotency_key");
    let page = master.client.get("/api/v2/runs?status=completed&limit=1").expect(200);
    assert_eq!(page["runs"][0]["name"], "x");
    master.client.get("/api/v2/runs?status=done").expect(422);
}

#[test]
fn a_stage_of_a_pipeline_is_retried_and_an_item_with_its_node() {
    let master = TestMaster::start();
    let mut hand = crate::run_upgrades::Hand::of(&master);
    let pipeline = "version: 1\nmode: pipeline\nitems: [1]\ntasks: [{name: stage, run: one}]\n";
    let each = "version: 1\ntasks: {each: {foreach: [1], run: one}}\n";
    for (file, status) in [(pipeline, 200), (each, 409)] {
        let run = master.client.run(file);
        let (_, key) = hand.begin();
        hand.fail(key);
        let ended = master.client.ended(run);
        let failed = ended["nodes"].as_array().expect("nodes").last().expect("a node").clone();
        assert_eq!(failed["status"], "failed", "{failed}");
        master.client.post(&format!("/api/v2/tasks/{}/retry", failed["task_id"]), "").expect(status);
        if status == 200 {
            hand.do_next("one");
            assert_eq!(master.client.ended(run)["status"], "completed");
        }
    }
}
