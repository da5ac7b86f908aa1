//! Upgrades of tasks over the API, and the versions that they leave.

use serde_json::{Value, json};

use crate::continuing::{begin, worker_of};
use crate::support::{Answer, Client, TestMaster};
use crate::workers::{finished, key_of, report, started};

impl Client {
    fn upgrade(&self, task: u64, body: &Value) -> Answer {
        self.post(&format!("/api/v2/tasks/{task}/upgrade"), &body.to_string())
    }

    /// Number, title, reason, author and command of each version.
    fn versions(&self, task: u64) -> Vec<Value> {
        let list = self.get(&format!("/api/v2/tasks/{task}/versions")).expect(200);
        let row = |view: &Value| {
            assert!(view["created_at"].is_string(), "{view}");
            json!([view["version"], view["title"], view["reason"], view["author"], view["spec"]["command"]])
        };
        list["versions"].as_array().expect("a list").iter().map(row).collect()
    }
}

fn detail(problem: &Value) -> &str {
    problem["detail"].as_str().expect("a text")
}

/// What the attempts of an assignment run.
fn commands(assign: &Value) -> Vec<&str> {
    let tasks = assign["tasks"].as_array().expect("tasks").iter();
    let spec = |task: &Value| usize::try_from(task["spec"].as_u64().expect("a number")).expect("small");
    tasks.map(|task| assign["specs"][spec(task)]["command"].as_str().expect("a command")).collect()
}

#[test]
fn a_waiting_task_runs_its_latest_version() {
    let mut master = TestMaster::start();
    let body = r#"{"command": "one", "title": "First", "timeout_ms": 5000, "env": {"A": "1"}}"#;
    let id = master.client.submit(body);
    assert_eq!(master.client.versions(id), [json!([1, "First", "", null, "one"])]);
    let body = json!({"new_title": "Second", "new_spec": {"command": "two", "timeout_ms": null},
        "upgrade_reason": "it was wrong", "author": "ann"});
    let view = master.client.upgrade(id, &body).expect(200);
    assert_eq!(
        (&view["version"], &view["title"], &view["command"]),
        (&json!(2), &json!("Second"), &json!("two"))
    );
    assert_eq!((view.get("timeout_ms"), &view["env"]), (None, &json!({"A": "1"})));
    master.restart();
    let view = master.client.upgrade(id, &json!({"new_spec": {"argv": ["three", "x"]}})).expect(200);
    assert_eq!((&view["version"], &view["argv"]), (&json!(3), &json!(["three", "x"])));
    assert_eq!(view.get("command"), None, "one payload takes the place of the other");
    master.client.upgrade(id, &json!({"new_spec": {"command": "four"}})).expect(200);
    let expected = [
        json!([1, "First", "", null, "one"]),
        json!([2, "Second", "it was wrong", "ann", "two"]),
        json!([3, "Second", "", null, null]),
        json!([4, "Second", "", null, "four"]),
    ];
    assert_eq!(master.client.versions(id), expected);
    let list = master.client.get(&format!("/api/v2/tasks/{id}/versions")).expect(200);
    let first = json!({"kind": "shell", "command": "one", "timeout_ms": 5000, "env": {"A": "1"}});
    assert_eq!(list["versions"][0]["spec"], first, "each is whole");
    master.restart();
    assert_eq!(master.client.versions(id), expected);
    let mut socket = worker_of(master.address(), "w1", 1);
    assert_eq!(commands(&socket.text_of("assign")), ["four"]);
    let events = master.client.get(&format!("/api/v2/events?subject=task:{id}")).expect(200);
    let upgraded = events["events"].as_array().expect("events").iter();
    let upgraded: Vec<_> = upgraded.filter(|event| event["type"] == "task.upgraded").collect();
    assert_eq!(upgraded.len(), 3);
    assert_eq!(
        (&upgraded[0]["data"]["version"], &upgraded[0]["data"]["reason"]),
        (&json!(2), &json!("it was wrong"))
    );
}

#[test]
fn a_running_attempt_finishes_on_its_version() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "one", "retry": {"max": 1, "backoff_ms": 0}}"#);
    let mut socket = worker_of(master.address(), "w1", 1);
    let (first, _) = begin(&mut socket, 1);
    let view = master.client.upgrade(id, &json!({"new_spec": {"command": "two"}})).expect(200);
    assert_eq!((&view["version"], &view["status"]), (&json!(2), &json!("running")));
    assert_eq!(view["attempt"], 1);
    let failed = json!({"event": "finished", "started_at": 1, "finished_at": 2,
        "end": {"end": "failed", "class": "error"}, "error": "bad"});
    socket.send(&json!({"type": "reports", "reports": [report(2, first, failed)]}));
    let assign = socket.text_of("assign");
    assert_eq!(commands(&assign), ["two"]);
    let second = key_of(&assign);
    master.client.upgrade(id, &json!({"new_spec": {"command": "three"}})).expect(200);
    socket.send(&json!({"type": "reports", "reports": [finished(3, second)]}));
    let done = master.client.until(&format!("/api/v2/tasks/{id}"), |task| task["status"] == "completed");
    assert_eq!((&done["version"], &done["attempt"]), (&json!(3), &json!(2)));
}

#[test]
fn a_task_that_only_waits_at_its_worker_runs_its_latest_version() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "one"}"#);
    let mut socket = worker_of(master.address(), "w1", 1);
    let first = key_of(&socket.text_of("assign"));
    let view = master.client.upgrade(id, &json!({"new_spec": {"command": "two"}})).expect(200);
    assert_eq!((&view["version"], &view["status"]), (&json!(2), &json!("pending")));
    assert_eq!(socket.text_of("return")["keys"][0]["fence"], first.fence.0);
    let returned = report(1, first, json!({"event": "returned"}));
    socket.send(&json!({"type": "reports", "reports": [returned]}));
    let assign = socket.text_of("assign");
    assert_eq!(commands(&assign), ["two"]);
    // One that has begun meanwhile finishes on its version.
    let second = key_of(&assign);
    master.client.upgrade(id, &json!({"new_spec": {"command": "three"}})).expect(200);
    socket.text_of("return");
    socket.send(&json!({"type": "reports", "reports": [started(2, second), finished(3, second)]}));
    let done = master.client.until(&format!("/api/v2/tasks/{id}"), |task| task["status"] == "completed");
    assert_eq!(done["version"], 3);
}

#[test]
fn a_running_attempt_may_be_begun_anew() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "one"}"#);
    let mut socket = worker_of(master.address(), "w1", 1);
    let (first, _) = begin(&mut socket, 1);
    master.client.save(id, &json!({"name": "a", "memory": {"k": 1}})).expect(201);
    let body = json!({"new_spec": {"command": "two"}, "restart": true});
    let view = master.client.upgrade(id, &body).expect(200);
    assert_eq!((&view["version"], &view["status"]), (&json!(2), &json!("pending")));
    assert_eq!(socket.text_of("drop")["keys"][0]["fence"], first.fence.0);
    let assign = socket.text_of("assign");
    assert_eq!((commands(&assign), &assign["tasks"][0]["checkpoint"]), (vec!["two"], &json!(1)));
    let body = json!({"new_spec": {"command": "three"}, "restart": true, "continue_from": "beginning"});
    master.client.upgrade(id, &body).expect(200);
    let assign = socket.text_of("assign");
    let given = &assign["tasks"][0];
    assert_eq!(
        (commands(&assign), given.get("checkpoint"), given.get("memory")),
        (vec!["three"], None, None)
    );
    let attempts = master.client.get(&format!("/api/v2/tasks/{id}/attempts")).expect(200);
    let first = &attempts["attempts"][0];
    assert_eq!(first["status"], "cancelled");
    assert!(first["error"].as_str().is_some_and(|text| text.contains("version 2")), "{first}");
    master.client.post(&format!("/api/v2/tasks/{id}/cancel"), "").expect(200);
    let problem = master.client.upgrade(id, &json!({"new_title": "x", "restart": true})).expect(409);
    assert!(detail(&problem).contains("cancel"), "{problem}");
    assert_eq!(master.client.versions(id).len(), 3, "nothing was changed");
}

#[test]
fn a_task_that_has_ended_runs_again_as_its_new_version() {
    let mut master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "one"}"#);
    let mut socket = worker_of(master.address(), "w1", 1);
    let (first, _) = begin(&mut socket, 1);
    socket.send(&json!({"type": "reports", "reports": [finished(2, first)]}));
    master.client.until(&format!("/api/v2/tasks/{id}"), |task| task["status"] == "completed");
    let view = master.client.upgrade(id, &json!({"new_spec": {"command": "two"}})).expect(200);
    assert_eq!((&view["version"], &view["status"]), (&json!(2), &json!("pending")));
    let assign = socket.text_of("assign");
    assert_eq!((commands(&assign), &assign["tasks"][0]["attempt"]), (vec!["two"], &json!(2)));
    master.client.post(&format!("/api/v2/tasks/{id}/cancel"), "").expect(200);
    drop(socket);
    master.restart();
    assert_eq!(master.client.versions(id).len(), 2);
    assert_eq!(master.client.get(&format!("/api/v2/tasks/{id}")).expect(200)["version"], 2);
}

#[test]
fn an_upgrade_of_another_version_is_refused() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "one"}"#);
    let expecting = |version: u32| json!({"new_spec": {"command": "two"}, "expected_version": version});
    assert_eq!(master.client.upgrade(id, &expecting(1)).expect(200)["version"], 2);
    for version in [0, 1, 3] {
        let problem = master.client.upgrade(id, &expecting(version)).expect(409);
        assert_eq!(problem["type"], "urn:agentflow:problem:version");
        assert!(detail(&problem).contains("version is 2"), "{problem}");
        assert!(detail(&problem).contains(&format!("not {version}")), "{problem}");
    }
    // Of those who expect nothing each one is heard.
    std::thread::scope(|scope| {
        for n in 0..3 {
            let client = &master.client;
            scope.spawn(move || {
                client.upgrade(id, &json!({ "new_title": format!("{n}") })).expect(200);
            });
        }
    });
    assert_eq!(master.client.versions(id).len(), 5);
    master.client.post(&format!("/api/v2/tasks/{id}/cancel"), "").expect(200);
    assert!(detail(&master.client.upgrade(id, &expecting(1)).expect(409)).contains("version is 5"));
}

#[test]
fn a_description_that_is_the_work_changes_the_work() {
    let master = TestMaster::start();
    let short = master.client.submit(r#"{"description": "shell: echo one"}"#);
    let view = master.client.upgrade(short, &json!({"new_description": "shell: echo two"})).expect(200);
    assert_eq!((&view["command"], &view["description"]), (&json!("echo two"), &json!("shell: echo two")));
    let problem = master.client.upgrade(short, &json!({"new_description": ""})).expect(422);
    assert_eq!(problem["errors"][0]["pointer"], "/new_description");
    let plain = master.client.submit(r#"{"description": "for people", "command": "make"}"#);
    let view = master.client.upgrade(plain, &json!({"new_description": "for others"})).expect(200);
    assert_eq!((&view["command"], &view["description"]), (&json!("make"), &json!("for others")));
    // It is for people, and may look like anything.
    let view = master.client.upgrade(plain, &json!({"new_spec": {"description": "/commit all"}})).expect(200);
    assert_eq!((&view["command"], &view["description"]), (&json!("make"), &json!("/commit all")));
    let view = master.client.upgrade(plain, &json!({"new_spec": {"description": null}})).expect(200);
    assert_eq!((&view["command"], view.get("description")), (&json!("make"), None));
}

#[test]
fn what_is_wrong_with_an_upgrade_is_said() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "one"}"#);
    for (fields, pointer) in [
        (json!({"title": "x"}), "/new_spec/title"),
        (json!({"group": "x"}), "/new_spec/group"),
        (json!({"priority": 1}), "/new_spec/priority"),
        (json!({"needs": [1]}), "/new_spec/needs"),
        (json!({"command": null}), "/new_spec/command"),
        (json!({"retry": {"max": -1}}), "/new_spec/retry/max"),
        (json!({"retry": {"max": 5_000}}), "/new_spec/retry/max"),
        (json!({"timeout_ms": 0}), "/new_spec/timeout_ms"),
        (json!({"keep_checkpoints": 0}), "/new_spec/keep_checkpoints"),
        (json!({"checkpoint_file": "../x"}), "/new_spec/checkpoint_file"),
        (json!({"continue_from": "middle"}), "/new_spec/continue_from"),
        (json!({"artifacts_from": [99]}), "/new_spec/artifacts_from"),
        (json!({"description": 5}), "/new_spec/description"),
        (json!({"description": "a\u{0}"}), "/new_spec/description"),
        (json!({"kind": "exec", "command": "x"}), "/new_spec/command"),
    ] {
        let problem = master.client.upgrade(id, &json!({ "new_spec": fields })).expect(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{fields}: {problem}");
    }
    let problem = master.client.upgrade(id, &json!({"new_spec": {"colour": 1}})).expect(422);
    assert_eq!(problem["errors"][0]["pointer"], "/new_spec/colour");
    assert!(detail(&problem).contains("unknown field"), "{problem}");
    let long = "x".repeat(5_000);
    for (body, pointer) in [
        (json!({ "new_title": long }), "/new_title"),
        (json!({"new_title": "a\u{0}"}), "/new_title"),
        (json!({"new_description": "a\u{0}"}), "/new_description"),
        (json!({"new_title": "x", "upgrade_reason": long}), "/upgrade_reason"),
        (json!({"new_title": "x", "upgrade_reason": "\u{0}"}), "/upgrade_reason"),
        (json!({"new_title": "x", "author": long}), "/author"),
        (json!({"new_title": "x", "continue_from": "middle"}), "/continue_from"),
        (json!({"new_title": "x", "expected_version": -1}), "/expected_version"),
        (json!({"new_description": "x", "new_spec": {"description": "y"}}), "/new_spec/description"),
    ] {
        let problem = master.client.upgrade(id, &body).expect(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
    }
    for nothing in
        [json!({}), json!({"restart": true}), json!({"new_spec": {}}), json!({"upgrade_reason": "x"})]
    {
        let problem = master.client.upgrade(id, &nothing).expect(422);
        assert!(detail(&problem).contains("nothing to change"), "{nothing}: {problem}");
    }
    let path = format!("/api/v2/tasks/{id}/upgrade");
    assert!(detail(&master.client.post(&path, r#"{"title": "x"}"#).expect(422)).contains("title"));
    master.client.post(&path, "{").expect(400);
    master.client.post(&path, "").expect(400);
    assert_eq!(master.client.versions(id).len(), 1, "nothing was changed");
}

#[test]
fn a_node_of_a_run_is_upgraded_with_its_run() {
    let master = TestMaster::start();
    let file = "version: 1\ntasks: {ask: {approval: true}, go: {kind: noop, needs: ask}}\n";
    let run = master.client.post("/api/v2/runs", &json!({ "workflow": file }).to_string()).expect(201);
    // One that is there, and one of which nothing has become yet.
    for node in [&run["nodes"][0], &run["nodes"][1]] {
        let task = node["task_id"].as_u64().expect("an id");
        let problem = master.client.upgrade(task, &json!({"new_title": "x"})).expect(409);
        let name = node["name"].as_str().expect("a name");
        assert!(detail(&problem).contains(name) && detail(&problem).contains("run 1"), "{problem}");
        assert_eq!(master.client.versions(task).len(), 1);
    }
    master.client.upgrade(99, &json!({"new_title": "x"})).expect(404);
    master.client.get("/api/v2/tasks/99/versions").expect(404);
}
