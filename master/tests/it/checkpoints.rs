//! Checkpoints over the API: saved, listed, read, and refused.

use agentflow_core::limits;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::continuing::{begin, worker_of};
use crate::support::{Answer, Client, TestMaster};
use crate::workers::{finished, report};

impl Client {
    pub(crate) fn save(&self, task: u64, body: &Value) -> Answer {
        self.post(&format!("/api/v2/tasks/{task}/checkpoints"), &body.to_string())
    }

    fn save_keyed(&self, task: u64, key: &str, body: &Value) -> Answer {
        let path = format!("/api/v2/tasks/{task}/checkpoints");
        self.request("POST", &path, &[("idempotency-key", key)], body.to_string().as_bytes())
    }

    /// Names in a task's history, with their attempts.
    pub(crate) fn history(&self, task: u64) -> Vec<(u64, String)> {
        let list = self.get(&format!("/api/v2/tasks/{task}/checkpoints")).expect(200);
        let views = list["checkpoints"].as_array().expect("a list").iter();
        let text = |view: &Value| view["name"].as_str().expect("a name").to_owned();
        views.map(|view| (view["attempt"].as_u64().expect("a number"), text(view))).collect()
    }
}

fn detail(problem: &Value) -> &str {
    problem["detail"].as_str().expect("a text")
}

#[test]
fn a_checkpoint_is_saved_listed_and_read() {
    let mut master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "x"}"#);
    let body = r#"{"name": "Schritt 5/ü", "data": {"n":  1.50}, "memory": {"k": [1.50], "l": null}}"#;
    let answer = master.client.post(&format!("/api/v2/tasks/{id}/checkpoints"), body);
    assert_eq!(answer.headers["location"], "/api/v2/checkpoints/1");
    assert!(answer.text.contains(r#""k":[1.50]"#), "as it was written: {}", answer.text);
    let saved = answer.expect(201);
    let mut view = json!({"id": 1, "task_id": id, "attempt": 0, "name": "Schritt 5/ü", "bytes": 12,
        "memory": {"k": [1.5], "l": null}});
    view["created_at"] = saved["created_at"].clone();
    assert_eq!(saved, view);
    assert!(view["created_at"].as_str().is_some_and(|text| text.ends_with('Z')), "{view}");
    master.restart();
    let list = master.client.get(&format!("/api/v2/tasks/{id}/checkpoints")).expect(200);
    let mut listed = view.clone();
    listed.as_object_mut().expect("an object").remove("memory");
    assert_eq!(list, json!({ "checkpoints": [listed] }));
    let shown = master.client.get("/api/v2/checkpoints/1");
    assert!(shown.text.contains(r#""data":{"n":  1.50}"#), "as it was written: {}", shown.text);
    view["data"] = json!({"n": 1.5});
    assert_eq!(shown.expect(200), view);
    let data = master.client.get("/api/v2/checkpoints/1/data");
    assert_eq!((data.status, data.text.as_str()), (200, r#"{"n":  1.50}"#));
    assert_eq!(data.headers["content-type"], "application/octet-stream");
    assert_eq!(data.headers["agentflow-checkpoint-name"], "Schritt%205%2F%C3%BC");
    let memory = master.client.get(&format!("/api/v2/tasks/{id}/memory")).expect(200);
    assert_eq!(memory, json!({"memory": {"k": [1.5], "l": null}}));
}

#[test]
fn any_bytes_may_be_saved() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "x"}"#);
    let large: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    for bytes in [b"".as_slice(), b"a\0b\n", b"\xff\xfe", &large] {
        let encoded = STANDARD.encode(bytes);
        let view = master.client.save(id, &json!({"name": "b", "data_base64": encoded})).expect(201);
        assert_eq!(view["bytes"], bytes.len());
        let path = format!("/api/v2/checkpoints/{}", view["id"]);
        let view = master.client.get(&path).expect(200);
        assert_eq!((&view["data_base64"], view.get("data")), (&json!(encoded), None));
        assert_eq!(master.client.bytes(&format!("{path}/data")), bytes);
    }
    // What is JSON is shown as such, however it came; nothing at all is null.
    let encoded = STANDARD.encode(" [1.50]\n");
    let view = master.client.save(id, &json!({"name": "j", "data_base64": encoded})).expect(201);
    let shown = master.client.get(&format!("/api/v2/checkpoints/{}", view["id"]));
    assert_eq!(shown.expect(200)["data"], json!([1.5]));
    assert_eq!(master.client.bytes(&format!("/api/v2/checkpoints/{}/data", view["id"])), b" [1.50]\n");
    let view = master.client.save(id, &json!({"name": "nothing"})).expect(201);
    assert_eq!(master.client.bytes(&format!("/api/v2/checkpoints/{}/data", view["id"])), b"null");
}

#[test]
fn a_checkpoint_has_at_most_16_mib() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "x"}"#);
    let most = usize::try_from(limits::CHECKPOINT_BYTES).expect("small");
    let bytes: Vec<u8> = (0..=most).map(|n| (n % 251) as u8).collect();
    let save = |bytes: &[u8]| {
        master.client.save(id, &json!({"name": "large", "data_base64": STANDARD.encode(bytes)}))
    };
    let view = save(&bytes[..most]).expect(201);
    assert_eq!(view["bytes"], most);
    let back = master.client.bytes(&format!("/api/v2/checkpoints/{}/data", view["id"]));
    assert!(back == bytes[..most], "{} bytes came back", back.len());
    let problem = save(&bytes).expect(413);
    let text = detail(&problem);
    assert!(text.contains("16777216") && text.contains("16777217") && text.contains("artifact"), "{text}");
    // As JSON too: the quotes count.
    let text = "x".repeat(most - 2);
    assert_eq!(master.client.save(id, &json!({"name": "large", "data": text})).expect(201)["bytes"], most);
    master.client.save(id, &json!({"name": "large", "data": text + "x"})).expect(413);
    let far = "x".repeat(limits::LARGE_BODY_BYTES);
    master.client.save(id, &json!({"name": "large", "data": far})).expect(413);
    assert_eq!(master.client.history(id).len(), 2);
}

#[test]
fn what_is_wrong_with_a_checkpoint_is_said() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "x"}"#);
    let path = format!("/api/v2/tasks/{id}/checkpoints");
    let problem = master.client.save(99, &json!({"name": "a"})).expect(404);
    assert!(detail(&problem).contains("99"), "{problem}");
    for (body, status, expected) in [
        (r#"{"name": "a""#, 400, "JSON"),
        (r#"["a"]"#, 422, "object"),
        (r#"{"name": "a", "colour": 1}"#, 422, "colour"),
        (r#"{"name": 5}"#, 422, "/name"),
        (r#"{"name": "a", "data": 1, "data_base64": ""}"#, 422, "/data_base64"),
        (r#"{"name": "a", "data_base64": "a b"}"#, 422, "/data_base64"),
        (r#"{"name": "a", "fence": -1}"#, 422, "/fence"),
        (r#"{"name": "a", "memory": [1]}"#, 422, "/memory"),
        (r#"{"name": "a", "memory": {"": 1}}"#, 422, "/memory/"),
        (r#"{}"#, 422, "/name"),
    ] {
        let problem = master.client.post(&path, body).expect(status);
        assert!(detail(&problem).contains(expected), "{body}: {problem}");
    }
    let long = "x".repeat(129);
    for name in ["", "a\nb", "a\u{0}", "a\u{7f}", "..", "../x", "a..b", "task_start", "task_complete", &long]
    {
        let problem = master.client.save(id, &json!({ "name": name })).expect(422);
        assert_eq!(problem["errors"][0]["pointer"], "/name", "{name:?}: {problem}");
    }
    let problem = master.client.save(id, &json!({"name": "a", "memory": {"a/..~": 1}})).expect(422);
    assert_eq!(problem["errors"][0]["pointer"], "/memory/a~1..~0");
    master.client.post(&format!("{path}?x=1"), r#"{"name": "a"}"#).expect(422);
    assert_eq!(master.client.history(id), []);
    master.client.post(&format!("/api/v2/tasks/{id}/cancel"), "").expect(200);
    let problem = master.client.save(id, &json!({"name": "a"})).expect(409);
    assert!(detail(&problem).contains("cancelled"), "{problem}");
    for id in ["1", "0", "x", "-1"] {
        for path in [format!("/api/v2/checkpoints/{id}"), format!("/api/v2/checkpoints/{id}/data")] {
            master.client.get(&path).expect(404);
        }
        master.client.post(&format!("/api/v2/checkpoints/{id}/restore"), "").expect(404);
    }
    master.client.get("/api/v2/tasks/99/checkpoints").expect(404);
}

#[test]
fn a_checkpoint_sets_no_larger_memory_than_a_memory_may_be() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "x"}"#);
    let save = |memory: Value| master.client.save(id, &json!({"name": "a", "memory": memory}));
    let value = "x".repeat(limits::MEMORY_VALUE_BYTES - 2);
    save(json!({ "a": value })).expect(201);
    let problem = save(json!({ "b": value.clone() + "x" })).expect(413);
    assert!(detail(&problem).contains("262144"), "{problem}");
    let many: serde_json::Map<String, Value> = (0..101).map(|n| (n.to_string(), json!(n))).collect();
    let problem = save(Value::Object(many)).expect(413);
    assert!(detail(&problem).contains("100 entries"), "{problem}");
    let memory = master.client.get(&format!("/api/v2/tasks/{id}/memory")).expect(200);
    assert_eq!(memory["memory"].as_object().map(serde_json::Map::len), Some(1), "nothing was changed");
}

#[test]
fn the_same_key_makes_one_checkpoint() {
    let mut master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "x"}"#);
    let other = master.client.submit(r#"{"command": "x"}"#);
    let body = json!({"name": "a", "data": 1});
    let first = master.client.save_keyed(id, "k", &body).expect(201);
    let again = master.client.save_keyed(id, "k", &body);
    assert_eq!(again.headers["location"], "/api/v2/checkpoints/1");
    assert_eq!(again.expect(201), first);
    master.restart();
    assert_eq!(master.client.save_keyed(id, "k", &body).expect(201), first);
    for refused in [
        master.client.save_keyed(id, "k", &json!({"name": "a", "data": 2})),
        master.client.save_keyed(other, "k", &body),
        master.client.request("POST", "/api/v2/tasks", &[("idempotency-key", "k")], br#"{"command": "x"}"#),
    ] {
        assert_eq!(refused.expect(409)["type"], "urn:agentflow:problem:idempotency_key");
    }
    master.client.save_keyed(id, " ", &body).expect(422);
    assert_eq!(master.client.save_keyed(id, "l", &body).expect(201)["id"], 2);
    assert_eq!(master.client.save(id, &body).expect(201)["id"], 3);
    // Even when the task has ended meanwhile.
    master.client.post(&format!("/api/v2/tasks/{id}/cancel"), "").expect(200);
    assert_eq!(master.client.save_keyed(id, "k", &body).expect(201), first);
    assert_eq!(master.client.history(id).len(), 3);
}

#[test]
fn the_oldest_checkpoints_go() {
    let master = TestMaster::start();
    let names = |task: u64| -> Vec<String> {
        master.client.history(task).into_iter().map(|(_, name)| name).collect()
    };
    let usual = master.client.submit(r#"{"command": "x"}"#);
    let few = master.client.submit(r#"{"command": "x", "keep_checkpoints": 2}"#);
    for task in [usual, few] {
        for n in 1..=7 {
            master.client.save(task, &json!({ "name": format!("{n}") })).expect(201);
        }
    }
    assert_eq!(names(usual), ["3", "4", "5", "6", "7"]);
    assert_eq!(names(few), ["6", "7"]);
    for path in ["/api/v2/checkpoints/2", "/api/v2/checkpoints/2/data", "/api/v2/checkpoints/12"] {
        let problem = master.client.get(path).expect(404);
        assert!(detail(&problem).contains("not kept"), "{problem}");
    }
    master.client.post("/api/v2/checkpoints/2/restore", "").expect(404);
    master.client.get("/api/v2/checkpoints/3").expect(200);
    for wrong in [0, 1_001, -1] {
        let body = json!({"command": "x", "keep_checkpoints": wrong}).to_string();
        let problem = master.client.post("/api/v2/tasks", &body).expect(422);
        assert_eq!(problem["errors"][0]["pointer"], "/keep_checkpoints");
    }
    // A later version may keep fewer; they go when the next one comes.
    let body = r#"{"new_spec": {"keep_checkpoints": 1}}"#;
    master.client.post(&format!("/api/v2/tasks/{usual}/upgrade"), body).expect(200);
    master.client.save(usual, &json!({"name": "8"})).expect(201);
    assert_eq!(names(usual), ["8"]);
}

#[test]
fn only_the_attempt_that_runs_may_save_by_its_fence() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "x"}"#);
    let save = |fence: u64| master.client.save(id, &json!({"name": "a", "fence": fence}));
    let problem = save(1).expect(409);
    assert_eq!(problem["type"], "urn:agentflow:problem:stale");
    assert!(
        detail(&problem).contains("fence 1") && detail(&problem).contains("no attempt runs"),
        "{problem}"
    );
    let mut socket = worker_of(master.address(), "w1", 1);
    let (key, _) = begin(&mut socket, 1);
    let problem = save(key.fence.0 + 7).expect(409);
    assert_eq!(problem["type"], "urn:agentflow:problem:stale");
    for fence in [key.fence.0, key.fence.0 + 7] {
        assert!(detail(&problem).contains(&format!("fence {fence}")), "{problem}");
    }
    assert_eq!(save(key.fence.0).expect(201)["attempt"], 1);
    assert_eq!(master.client.history(id), [(1, "task_start".to_owned()), (1, "a".to_owned())]);
}

#[test]
fn the_history_marks_begin_and_end_of_attempts() {
    let mut master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "x", "retry": {"max": 1, "backoff_ms": 0}}"#);
    let save = |client: &Client, name: &str| drop(client.save(id, &json!({ "name": name })).expect(201));
    save(&master.client, "before");
    let mut socket = worker_of(master.address(), "w1", 1);
    let (first, _) = begin(&mut socket, 1);
    save(&master.client, "one");
    let failed = json!({"event": "finished", "started_at": 1, "finished_at": 2,
        "end": {"end": "failed", "class": "error"}, "error": "bad"});
    socket.send(&json!({"type": "reports", "reports": [report(2, first, failed)]}));
    let (second, _) = begin(&mut socket, 3);
    save(&master.client, "two");
    socket.send(&json!({"type": "reports", "reports": [finished(4, second)]}));
    master.client.until(&format!("/api/v2/tasks/{id}"), |task| task["status"] == "completed");
    let mut expected: Vec<(u64, String)> =
        [(0, "before"), (1, "task_start"), (1, "one"), (2, "task_start"), (2, "two"), (2, "task_complete")]
            .map(|(attempt, name)| (attempt, name.to_owned()))
            .to_vec();
    assert_eq!(master.client.history(id), expected);
    let list = master.client.get(&format!("/api/v2/tasks/{id}/checkpoints")).expect(200);
    let mark = &list["checkpoints"][1];
    assert_eq!((mark.get("id"), &mark["bytes"], &mark["task_id"]), (None, &json!(0), &json!(id)));
    // What is saved while the task waits to run again comes after its end.
    drop(socket);
    master.client.until("/api/v2/workers/w1", |worker| worker["connected"] == false);
    master.client.post(&format!("/api/v2/tasks/{id}/retry"), "").expect(200);
    save(&master.client, "later");
    expected.push((2, "later".to_owned()));
    master.restart();
    assert_eq!(master.client.history(id), expected);
}

#[test]
fn every_route_is_described() {
    let master = TestMaster::start();
    let document = master.client.get("/openapi.json").expect(200);
    for (path, methods) in [
        ("tasks/{id}/checkpoints", ["get", "post"].as_slice()),
        ("checkpoints/{id}", &["get"]),
        ("checkpoints/{id}/data", &["get"]),
        ("checkpoints/{id}/restore", &["post"]),
        ("tasks/{id}/memory", &["get"]),
        ("tasks/{id}/memory/{name}", &["get", "put", "delete"]),
        ("runs/{id}/memory", &["get"]),
        ("runs/{id}/memory/{name}", &["get", "put", "delete"]),
        ("tasks/{id}/upgrade", &["post"]),
        ("tasks/{id}/versions", &["get"]),
    ] {
        for method in methods {
            let route = &document["paths"][format!("/api/v2/{path}")][method];
            assert!(route["responses"]["404"].is_object(), "{method} {path}: {route}");
        }
    }
}
