//! What tasks and runs remember, over the API.

use agentflow_core::limits;
use serde_json::{Value, json};

use crate::support::{Answer, Client, TestMaster};

impl Client {
    fn remember(&self, path: &str, body: &Value) -> Answer {
        self.request("PUT", path, &[], body.to_string().as_bytes())
    }

    fn forget(&self, path: &str) -> Answer {
        self.request("DELETE", path, &[], b"")
    }
}

/// A master, the path of a task's memory, and that of a run's; both are live.
fn owners() -> (TestMaster, [String; 2]) {
    let master = TestMaster::start();
    let task = master.client.submit(r#"{"command": "x"}"#);
    let file = "version: 1\ntasks: {ask: {approval: true}}\n";
    let run = master.client.post("/api/v2/runs", &json!({ "workflow": file }).to_string()).expect(201);
    let paths = [format!("/api/v2/tasks/{task}/memory"), format!("/api/v2/runs/{}/memory", run["id"])];
    (master, paths)
}

fn detail(problem: &Value) -> &str {
    problem["detail"].as_str().expect("a text")
}

#[test]
fn tasks_and_runs_remember_and_forget() {
    let (mut master, paths) = owners();
    for path in &paths {
        assert_eq!(master.client.get(path).expect(200), json!({"memory": {}}));
        master.client.get(&format!("{path}/k")).expect(404);
        let put = master.client.request("PUT", &format!("{path}/k"), &[], br#"{"value": {"n":  1.50}}"#);
        assert_eq!(put.text, r#"{"name":"k","value":{"n":  1.50}}"#, "as it was written");
        put.expect(200);
        master.client.remember(&format!("{path}/k"), &json!({"value": [1]})).expect(200);
        master.client.remember(&format!("{path}/l"), &json!({"value": null})).expect(200);
    }
    master.restart();
    for path in &paths {
        assert_eq!(master.client.get(path).expect(200), json!({"memory": {"k": [1], "l": null}}));
        assert_eq!(master.client.get(&format!("{path}/k")).expect(200), json!({"name": "k", "value": [1]}));
        for _ in 0..2 {
            let gone = master.client.forget(&format!("{path}/k"));
            assert_eq!((gone.status, gone.text.as_str()), (204, ""));
        }
        let problem = master.client.get(&format!("{path}/k")).expect(404);
        assert!(detail(&problem).contains("'k'"), "{problem}");
        assert_eq!(master.client.get(path).expect(200), json!({"memory": {"l": null}}));
    }
}

#[test]
fn what_is_remembered_for_a_while_is_forgotten_by_itself() {
    let (master, paths) = owners();
    for path in &paths {
        let long = master.client.remember(&format!("{path}/long"), &json!({"value": 1, "ttl_ms": 3_600_000}));
        assert!(long.expect(200)["expires_at"].as_str().is_some_and(|text| text.ends_with('Z')));
        master.client.remember(&format!("{path}/short"), &json!({"value": 2, "ttl_ms": 300})).expect(200);
        let gone = |memory: &Value| memory["memory"].get("short").is_none();
        let left = master.client.until(path, gone);
        assert_eq!(left["memory"], json!({"long": 1}));
        let until = left["expires_at"].as_object().expect("an object");
        assert_eq!(until.keys().collect::<Vec<_>>(), ["long"]);
        master.client.get(&format!("{path}/short")).expect(404);
        // A new value is remembered for as long as it says itself.
        master.client.remember(&format!("{path}/long"), &json!({"value": 3})).expect(200);
        assert_eq!(master.client.get(path).expect(200), json!({"memory": {"long": 3}}));
    }
}

#[test]
fn a_memory_holds_100_entries_and_a_mebibyte() {
    let (master, paths) = owners();
    for path in &paths {
        master.client.remember(&format!("{path}/short"), &json!({"value": 0, "ttl_ms": 300})).expect(200);
        for n in 0..limits::MEMORY_ENTRIES - 1 {
            master.client.remember(&format!("{path}/{n}"), &json!({ "value": n })).expect(200);
        }
        // What has expired takes no place.
        master.client.until(path, |memory| memory["memory"].get("short").is_none());
        master.client.remember(&format!("{path}/last"), &json!({"value": 1})).expect(200);
        let problem = master.client.remember(&format!("{path}/more"), &json!({"value": 1})).expect(413);
        assert_eq!(problem["type"], "urn:agentflow:problem:too_large");
        assert!(detail(&problem).contains("100 entries"), "{problem}");
        master.client.remember(&format!("{path}/last"), &json!({"value": 2})).expect(200);
        master.client.forget(&format!("{path}/0")).expect(204);
        master.client.remember(&format!("{path}/more"), &json!({"value": 1})).expect(200);
        let value = "x".repeat(limits::MEMORY_VALUE_BYTES - 1);
        let problem = master.client.remember(&format!("{path}/more"), &json!({ "value": value })).expect(413);
        assert!(detail(&problem).contains("262144") && detail(&problem).contains("artifact"), "{problem}");
        for name in ["1", "2", "3"] {
            master.client.remember(&format!("{path}/{name}"), &json!({ "value": value[1..] })).expect(200);
        }
        let problem =
            master.client.remember(&format!("{path}/4"), &json!({ "value": value[1..] })).expect(413);
        assert!(detail(&problem).contains("1048576 bytes"), "{problem}");
        assert_eq!(master.client.get(&format!("{path}/4")).expect(200)["value"], 4, "nothing was changed");
        let far = "x".repeat(limits::BODY_BYTES);
        master.client.remember(&format!("{path}/4"), &json!({ "value": far })).expect(413);
    }
}

#[test]
fn names_and_bodies_are_checked() {
    let (master, paths) = owners();
    for path in &paths {
        let long = "x".repeat(129);
        for name in ["a%0Ab", "a%00", "%7F", "a..b", &long] {
            let problem = master.client.remember(&format!("{path}/{name}"), &json!({"value": 1})).expect(422);
            assert!(detail(&problem).contains("1 to 128 bytes"), "{name}: {problem}");
            master.client.forget(&format!("{path}/{name}")).expect(422);
        }
        for (name, encoded) in [("a/b", "a%2Fb"), ("ü ?#%", "%C3%BC%20%3F%23%25"), ("a%2Fb", "a%252Fb")] {
            let view = master.client.remember(&format!("{path}/{encoded}"), &json!({"value": 1})).expect(200);
            assert_eq!(view["name"], name);
            assert_eq!(master.client.get(&format!("{path}/{encoded}")).expect(200)["name"], name);
            assert_eq!(master.client.get(path).expect(200)["memory"], json!({ name: 1 }));
            master.client.forget(&format!("{path}/{encoded}")).expect(204);
        }
        for (body, status, expected) in [
            ("{", 400, "JSON"),
            ("[1]", 422, "object"),
            ("{}", 422, "value"),
            (r#"{"value": 1, "ttl": 5}"#, 422, "ttl"),
            (r#"{"value": 1, "ttl_ms": 0}"#, 422, "/ttl_ms"),
            (r#"{"value": 1, "ttl_ms": -5}"#, 422, "/ttl_ms"),
            (r#"{"value": 1, "ttl_ms": 3000000000}"#, 422, "/ttl_ms"),
        ] {
            let problem = master.client.request("PUT", &format!("{path}/k"), &[], body.as_bytes());
            let problem = problem.expect(status);
            assert!(detail(&problem).contains(expected), "{body}: {problem}");
        }
        master.client.get(&format!("{path}?x=1")).expect(422);
        assert_eq!(master.client.get(path).expect(200), json!({"memory": {}}));
    }
}

#[test]
fn what_has_ended_remembers_and_learns_nothing_more() {
    let (mut master, paths) = owners();
    for path in &paths {
        master.client.remember(&format!("{path}/k"), &json!({"value": 1})).expect(200);
        let owner = path.trim_end_matches("/memory");
        master.client.post(&format!("{owner}/cancel"), "").expect(200);
    }
    master.restart();
    for path in &paths {
        let problem = master.client.remember(&format!("{path}/k"), &json!({"value": 2})).expect(409);
        assert!(detail(&problem).contains("cancelled"), "{problem}");
        master.client.forget(&format!("{path}/k")).expect(409);
        assert_eq!(master.client.get(path).expect(200), json!({"memory": {"k": 1}}));
    }
    // And goes on with it when it runs again.
    let task = paths[0].trim_end_matches("/memory");
    master.client.post(&format!("{task}/retry"), "").expect(200);
    master.client.remember(&format!("{}/l", paths[0]), &json!({"value": 2})).expect(200);
    assert_eq!(master.client.get(&paths[0]).expect(200), json!({"memory": {"k": 1, "l": 2}}));
    for path in ["/api/v2/tasks/99/memory", "/api/v2/runs/99/memory", "/api/v2/tasks/x/memory"] {
        master.client.get(path).expect(404);
        master.client.get(&format!("{path}/k")).expect(404);
        master.client.remember(&format!("{path}/k"), &json!({"value": 1})).expect(404);
        master.client.forget(&format!("{path}/k")).expect(404);
    }
}

#[test]
fn a_run_goes_on_with_what_it_remembers_when_it_runs_again() {
    let (master, paths) = owners();
    let [_, path] = &paths;
    let run = path.trim_end_matches("/memory");
    master.client.remember(&format!("{path}/k"), &json!({"value": 1})).expect(200);
    let node = master.client.get(run).expect(200)["nodes"][0]["task_id"].clone();
    master.client.remember(&format!("/api/v2/tasks/{node}/memory/own"), &json!({"value": 1})).expect(200);
    master.client.post(&format!("/api/v2/tasks/{node}/reject"), "").expect(200);
    master.client.until(run, |run| run["status"] == "failed");
    master.client.post(&format!("{run}/rerun"), "").expect(200);
    assert_eq!(master.client.get(path).expect(200), json!({"memory": {"k": 1}}));
    master.client.remember(&format!("{path}/l"), &json!({"value": 2})).expect(200);
    assert_eq!(master.client.get(path).expect(200), json!({"memory": {"k": 1, "l": 2}}));
    // The node itself begins anew.
    assert_eq!(master.client.get(&format!("/api/v2/tasks/{node}/memory")).expect(200), json!({"memory": {}}));
}
