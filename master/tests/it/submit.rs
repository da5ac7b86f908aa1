//! Making tasks, rightly and wrongly.

use serde_json::{Value, json};

use crate::support::{Client, TestMaster};

fn post_with_key(client: &Client, key: &str, body: &str) -> crate::support::Answer {
    client.request("POST", "/api/v2/tasks", &[("idempotency-key", key)], body.as_bytes())
}

#[test]
fn a_task_is_answered_as_it_stands_in_the_database() {
    let master = TestMaster::start();
    let answer = master.client.post(
        "/api/v2/tasks",
        r#"{"title": "Test", "kind": "shell", "command": "cargo test", "priority": "high",
            "retry": {"max": 2, "backoff_ms": 500}, "labels": {"os": "linux"}, "env": {"A": "b"},
            "not_before": "2999-01-01T00:00:00Z"}"#,
    );
    assert_eq!(answer.headers["location"], "/api/v2/tasks/1");
    let made = answer.expect(201);
    assert_eq!((&made["id"], &made["status"], &made["priority"]), (&json!(1), &json!("pending"), &json!(75)));
    assert_eq!(made, master.client.get("/api/v2/tasks/1").expect(200));
    assert_eq!(made, master.client.get("/api/v2/tasks/TASK-00000001").expect(200));
}

#[test]
fn a_milestone_is_done_when_it_is_made() {
    let master = TestMaster::start();
    let made = master.client.post("/api/v2/tasks", r#"{"title": "m"}"#).expect(201);
    assert_eq!(made["status"], "completed");
}

#[test]
fn a_batch_is_all_or_nothing() {
    let master = TestMaster::start();
    let ids = master.client.post("/api/v2/tasks", r#"{"tasks": [{"kind": "noop"}, {"command": "true"}]}"#);
    assert_eq!(ids.expect(201), json!({"ids": [1, 2]}));
    let wrong = master.client.post(
        "/api/v2/tasks",
        r#"{"tasks": [{"kind": "noop"}, {"kind": "noop", "retry": {"max": 5000}}, {"priority": 101}]}"#,
    );
    let wrong = wrong.expect(422);
    let pointers: Vec<&str> =
        wrong["errors"].as_array().expect("errors").iter().filter_map(|e| e["pointer"].as_str()).collect();
    assert_eq!(pointers, ["/tasks/1/retry/max", "/tasks/2/priority"]);
    let stats = master.client.get("/api/v2/stats").expect(200);
    assert_eq!(stats["tasks"]["pending"], 2);
}

#[test]
fn bad_bodies_are_refused_and_named() {
    let master = TestMaster::start();
    let post = |body: &str| master.client.post("/api/v2/tasks", body);
    assert!(post("{").expect(400)["detail"].as_str().expect("text").contains("JSON"));
    post("").expect(400);
    post("not json").expect(400);
    post(r#"{"kind": "noop"} {}"#).expect(400);
    assert_eq!(post("[]").expect(422)["detail"], "the body must be a JSON object");
    post("5").expect(422);
    let unknown = post(r#"{"colour": "red"}"#).expect(422);
    assert!(unknown["detail"].as_str().expect("text").contains("colour"), "{unknown}");
    let wrong = post(r#"{"tasks": [{"kind": "noop"}, {"retry": {"max": "many"}}]}"#).expect(422);
    assert_eq!(wrong["errors"][0]["pointer"], "/tasks/1/retry/max");
    let unknown = post(r#"{"tasks": [], "colour": 1}"#).expect(422);
    assert!(unknown["detail"].as_str().expect("text").contains("colour"), "{unknown}");
    post(r#"{"tasks": []}"#).expect(422);
    post(r#"{"tasks": [[]]}"#).expect(422);
    post(r#"{"command": "a\u0000b"}"#).expect(422);
    post(r#"{"kind": "dance"}"#).expect(422);
    let keyed = post(r#"{"tasks": [{"kind": "noop", "idempotency_key": "k"}]}"#).expect(422);
    assert_eq!(keyed["errors"][0]["pointer"], "/tasks/0/idempotency_key");
    let query = master.client.post("/api/v2/tasks?dry=1", "{}").expect(422);
    assert!(query["detail"].as_str().expect("text").contains("dry"), "{query}");
    master.client.get("/health").expect(200);
    assert_eq!(master.client.get("/api/v2/stats").expect(200)["tasks"]["pending"], 0);
}

#[test]
fn batches_and_bodies_have_limits() {
    let master = TestMaster::start();
    let tasks: Vec<Value> = (0..11_000).map(|_| json!({"kind": "noop"})).collect();
    let answer = master.client.post("/api/v2/tasks", &json!({ "tasks": tasks }).to_string()).expect(422);
    let detail = answer["detail"].as_str().expect("text");
    assert!(detail.contains("11000") && detail.contains("10000"), "{detail}");

    let large = format!("{{\"description\": \"{}\"}}", "x".repeat(40 << 20));
    let answer = master.client.post("/api/v2/tasks", &large).expect(413);
    assert!(answer["detail"].as_str().expect("text").contains("33554432"), "{answer}");
    let answer = master.client.post("/api/v2/tasks/bulk", &large[..2 << 20]).expect(413);
    assert!(answer["detail"].as_str().expect("text").contains("1048576"), "{answer}");
    let many = (0..10_000).map(|_| json!({"kind": "noop"})).collect::<Vec<_>>();
    let ids = master.client.post("/api/v2/tasks", &json!({ "tasks": many }).to_string()).expect(201);
    assert_eq!(ids["ids"].as_array().expect("ids").len(), 10_000);
}

#[test]
fn a_body_that_does_not_say_its_length_is_stopped_at_the_limit() {
    use std::io::{Read, Write};
    let master = TestMaster::start();
    let mut stream = std::net::TcpStream::connect(master.address()).expect("a connection");
    stream.set_read_timeout(Some(crate::support::SOON)).expect("a timeout");
    write!(stream, "POST /api/v2/workers/w/dead HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        .expect("written");
    let chunk = vec![b' '; 1 << 16];
    for _ in 0..40 {
        write!(stream, "{:x}\r\n", chunk.len()).expect("written");
        stream.write_all(&chunk).expect("written");
        stream.write_all(b"\r\n").expect("written");
    }
    stream.write_all(b"0\r\n\r\n").expect("written");
    let mut head = [0; 12];
    stream.read_exact(&mut head).expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 413");
}

#[test]
fn a_key_makes_a_task_once() {
    let mut master = TestMaster::start();
    let first = post_with_key(&master.client, "k1", r#"{"command": "a"}"#).expect(201);
    assert_eq!(post_with_key(&master.client, "k1", r#"{ "command":"a" }"#).expect(201), first);
    let field = master.client.post("/api/v2/tasks", r#"{"command": "a", "idempotency_key": "k1"}"#);
    assert_eq!(field.expect(201), first);
    post_with_key(&master.client, "k1", r#"{"command": "b"}"#).expect(409);
    post_with_key(&master.client, "k1", r#"{"tasks": [{"command": "a"}]}"#).expect(409);
    post_with_key(&master.client, "k1", r#"{"command": "a", "idempotency_key": "k2"}"#).expect(422);
    post_with_key(&master.client, &"k".repeat(300), r#"{"command": "a"}"#).expect(422);
    let batch = r#"{"tasks": [{"kind": "noop"}, {"kind": "noop"}]}"#;
    let ids = post_with_key(&master.client, "b1", batch).expect(201);
    assert_eq!(post_with_key(&master.client, "b1", batch).expect(201), ids);
    master.client.post("/api/v2/tasks/1/cancel", "").expect(200);
    master.restart();
    assert_eq!(post_with_key(&master.client, "k1", r#"{"command": "a"}"#).expect(201), first);
    assert_eq!(post_with_key(&master.client, "b1", batch).expect(201), ids);
    post_with_key(&master.client, "k1", r#"{"command": "b"}"#).expect(409);
    let stats = master.client.get("/api/v2/stats").expect(200);
    assert_eq!((&stats["tasks"]["pending"], &stats["tasks"]["cancelled"]), (&json!(2), &json!(1)));
}

#[test]
fn a_key_that_is_used_at_once_by_many_makes_a_task_once() {
    let master = TestMaster::start();
    let ids: Vec<Value> = std::thread::scope(|scope| {
        let post = || post_with_key(&master.client, "k", r#"{"kind": "noop"}"#).expect(201)["id"].clone();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(post)).collect();
        threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    assert!(ids.iter().all(|id| *id == 1), "{ids:?}");
}
