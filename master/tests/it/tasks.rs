//! Reading, changing and listing tasks.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::TestMaster;

#[test]
fn unknown_things_are_not_found() {
    let master = TestMaster::start();
    for path in [
        "/api/v2/tasks/7",
        "/api/v2/tasks/0",
        "/api/v2/tasks/x",
        "/api/v2/tasks/7/why",
        "/api/v2/tasks/7/attempts",
        "/api/v2/tasks/7/logs",
        "/api/v2/tasks/7/logs?follow=1",
        "/api/v2/workers/w",
        "/api/v2/nothing",
        "/nothing",
    ] {
        let problem = master.client.get(path).expect(404);
        assert_eq!(problem["type"], "urn:agentflow:problem:not_found", "{path}");
    }
    for path in ["/api/v2/tasks/7/cancel", "/api/v2/tasks/7/retry", "/api/v2/workers/w/drain"] {
        master.client.post(path, "").expect(404);
    }
    master.client.request("PATCH", "/api/v2/tasks/7", &[], br#"{"priority": 1}"#).expect(404);
    let answer = master.client.request("DELETE", "/api/v2/tasks/7", &[], b"");
    assert_eq!(answer.headers["allow"], "GET, PATCH");
    answer.expect(405);
}

#[test]
fn queries_are_checked() {
    let master = TestMaster::start();
    for path in [
        "/api/v2/tasks?foo=1",
        "/api/v2/tasks?status=done",
        "/api/v2/tasks?limit=0",
        "/api/v2/tasks?limit=1001",
        "/api/v2/tasks?limit=x",
        "/api/v2/tasks?cursor=5",
        "/api/v2/tasks?label=os",
        "/api/v2/events?after=-1",
        "/api/v2/events?subject=lock",
        "/api/v2/stats?x=1",
        "/api/v2/workers?x=1",
        "/health?x=1",
    ] {
        master.client.get(path).expect(422);
    }
    let id = master.client.submit(r#"{"kind": "noop"}"#);
    master.client.get(&format!("/api/v2/tasks/{id}?wait=5")).expect(422);
    master.client.get(&format!("/api/v2/tasks/{id}/logs?attempt=0")).expect(422);
    master.client.get(&format!("/api/v2/tasks/{id}/logs?follow=perhaps")).expect(422);
}

#[test]
fn pages_lead_through_all_tasks() {
    let master = TestMaster::start();
    let tasks: Vec<Value> =
        (0..25).map(|n| json!({"kind": "noop", "group": if n % 2 == 0 { "even" } else { "odd" }})).collect();
    master.client.post("/api/v2/tasks", &json!({ "tasks": tasks }).to_string()).expect(201);
    let walk = |filter: &str| {
        let (mut ids, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = master.client.get(&format!("/api/v2/tasks?limit=10{filter}{cursor}")).expect(200);
            let tasks = page["tasks"].as_array().expect("tasks");
            assert!(tasks.len() <= 10 && tasks.iter().all(|task| task.get("kind").is_none()));
            ids.extend(tasks.iter().filter_map(|task| task["id"].as_u64()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return ids,
            }
        }
    };
    assert_eq!(walk(""), (1..=25).collect::<Vec<u64>>());
    assert_eq!(walk("&group=odd"), (1..=25).filter(|n| n % 2 == 0).collect::<Vec<u64>>());
    assert_eq!(walk("&status=completed"), Vec::<u64>::new());
    assert_eq!(walk("&status=pending,running").len(), 25);
}

#[test]
fn a_wait_ends_with_the_task_or_the_time() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"kind": "noop"}"#);
    let begun = Instant::now();
    let task = master.client.get(&format!("/api/v2/tasks/{id}?wait_ms=150")).expect(200);
    assert_eq!(task["status"], "pending");
    assert!(begun.elapsed() >= Duration::from_millis(150));
    std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| master.client.get(&format!("/api/v2/tasks/{id}?wait_ms=600000")).expect(200));
        master.client.post(&format!("/api/v2/tasks/{id}/cancel"), "").expect(200);
        assert_eq!(waiting.join().expect("an answer")["status"], "cancelled");
    });
}

#[test]
fn states_forbid_what_they_must() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"kind": "noop"}"#);
    let post = |action: &str| master.client.post(&format!("/api/v2/tasks/{id}/{action}"), "");
    post("retry").expect(409);
    assert_eq!(post("cancel").expect(200)["status"], "cancelled");
    let problem = post("cancel").expect(409);
    assert!(problem["detail"].as_str().expect("text").contains("cancelled"), "{problem}");
    let patch =
        |body: &str| master.client.request("PATCH", &format!("/api/v2/tasks/{id}"), &[], body.as_bytes());
    patch(r#"{"priority": 1}"#).expect(409);
    let again = post("retry").expect(200);
    assert_eq!((&again["status"], &again["attempt"]), (&json!("pending"), &json!(0)));
    let changed = patch(r#"{"priority": "critical", "group": "other"}"#).expect(200);
    assert_eq!((&changed["priority"], &changed["group"]), (&json!(100), &json!("other")));
    patch("{}").expect(422);
    patch(r#"{"priority": 200}"#).expect(422);
    patch(r#"{"title": "x"}"#).expect(422);
    master.client.post(&format!("/api/v2/tasks/{id}/cancel"), r#"{"why": 1}"#).expect(422);
    let why = master.client.get(&format!("/api/v2/tasks/{id}/why")).expect(200);
    assert!(why["reasons"][0]["detail"].as_str().expect("text").contains("other"), "{why}");
}

#[test]
fn bulk_actions_reach_every_match() {
    let master = TestMaster::start();
    let tasks: Vec<Value> = (0..2_500).map(|_| json!({"kind": "noop", "group": "many"})).collect();
    master.client.post("/api/v2/tasks", &json!({ "tasks": tasks }).to_string()).expect(201);
    let other = master.client.submit(r#"{"kind": "noop"}"#);
    let bulk = |body: &str| master.client.post("/api/v2/tasks/bulk", body);
    bulk(r#"{"filter": {}, "action": "cancel"}"#).expect(422);
    bulk(r#"{"filter": {"group": "many"}, "action": "priority"}"#).expect(422);
    bulk(r#"{"filter": {"group": "many"}, "action": "dance"}"#).expect(422);
    bulk(r#"{"filter": {"colour": 1}, "action": "cancel"}"#).expect(422);
    assert_eq!(bulk(r#"{"filter": {"group": "many"}, "action": "cancel"}"#).expect(200)["matched"], 2_500);
    master.client.until("/api/v2/stats", |stats| stats["tasks"]["cancelled"] == 2_500);
    assert_eq!(master.client.get(&format!("/api/v2/tasks/{other}")).expect(200)["status"], "pending");
    assert_eq!(bulk(r#"{"filter": {"ids": [1, 2]}, "action": "retry"}"#).expect(200)["matched"], 2);
    master.client.until("/api/v2/stats", |stats| stats["tasks"]["pending"] == 3);
    bulk(r#"{"filter": {"status": ["pending"]}, "action": "priority", "priority": 7}"#).expect(200);
    master.client.until("/api/v2/tasks/2", |task| task["priority"] == 7);
}

#[test]
fn the_service_describes_itself() {
    let master = TestMaster::start();
    assert_eq!(master.client.get("/health").expect(200)["status"], "ok");
    master.client.get("/ready").expect(200);
    let document = master.client.get("/openapi.json").expect(200);
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/api/v2/tasks/{id}"]["get"].is_object());
    let metrics = master.client.get("/metrics");
    assert!(metrics.text.contains("agentflow_tasks{status=\"pending\"} 0"), "{}", metrics.text);
    assert!(metrics.text.contains("route=\"/health\",status=\"2xx\"} 1"), "{}", metrics.text);
    assert!(master.client.get("/").text.contains("AgentFlow"));
}
