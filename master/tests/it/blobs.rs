//! Bytes by their hash, and the files that workers say are theirs.

use agentflow_core::blob::BlobHash;
use serde_json::{Value, json};

use crate::socket::worker;
use crate::support::{Client, TestMaster};

fn put(client: &Client, hash: impl ToString, bytes: &[u8]) -> crate::support::Answer {
    client.request("PUT", &format!("/api/v2/blobs/{}", hash.to_string()), &[], bytes)
}

#[test]
fn bytes_go_in_and_come_out_under_their_hash() {
    let mut master = TestMaster::start();
    let bytes = vec![b'x'; 1_000_000];
    let hash = BlobHash::of(&bytes);
    let path = format!("/api/v2/blobs/{hash}");
    let problem = master.client.get(&path).expect(404);
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains(&hash.to_string())), "{problem}");
    let other = put(&master.client, hash, &bytes[1..]).expect(422);
    let right = BlobHash::of(&bytes[1..]).to_string();
    assert!(other["detail"].as_str().is_some_and(|text| text.contains(&right)), "{other}");
    master.client.get(&path).expect(404);
    for _ in 0..2 {
        let kept = put(&master.client, hash, &bytes).expect(201);
        assert_eq!(kept, json!({"sha256": hash.to_string(), "bytes": 1_000_000}));
    }
    master.restart();
    let answer = master.client.get(&path);
    assert_eq!((answer.status, answer.text.len()), (200, bytes.len()));
    assert_eq!(answer.headers["etag"], format!("\"{hash}\""));
    assert_eq!(answer.headers["content-length"], "1000000");
    let empty = BlobHash::of(b"");
    put(&master.client, empty, b"").expect(201);
    assert_eq!(master.client.get(&format!("/api/v2/blobs/{empty}")).text, "");
}

#[test]
fn what_is_no_hash_and_what_is_too_large_is_refused() {
    let master = TestMaster::start();
    for name in ["x", &"A".repeat(64), &"a".repeat(63)] {
        let problem = put(&master.client, name, b"x").expect(422);
        assert!(problem["detail"].as_str().is_some_and(|text| text.contains("64 hexadecimal")), "{problem}");
        master.client.get(&format!("/api/v2/blobs/{name}")).expect(422);
    }
    for path in
        ["/api/v2/artifacts/0", "/api/v2/artifacts/x", "/api/v2/artifacts/7", "/api/v2/runs/7/artifacts"]
    {
        master.client.get(path).expect(404);
    }
    master.client.get("/api/v2/tasks/7/artifacts").expect(404);
    let id = master.client.submit(r#"{"kind": "noop"}"#);
    let list = |query: &str| master.client.get(&format!("/api/v2/tasks/{id}/artifacts{query}"));
    assert_eq!(list("").expect(200), json!({"artifacts": [], "next_cursor": null}));
    list("?limit=0").expect(422);
    list("?cursor=b7").expect(422);
    list("?colour=red").expect(422);
}

/// What a worker says of an attempt that has left something.
fn finished(assign: &Value, left: &Value) -> Value {
    let task = &assign["tasks"][0];
    let mut report = json!({"no": 1, "event": "finished", "started_at": 1, "finished_at": 2,
        "end": {"end": "completed"}, "exit_code": 0, "left": left});
    for field in ["task", "attempt", "fence"] {
        report[field] = task[field].clone();
    }
    json!({"type": "reports", "reports": [report]})
}

#[test]
fn what_a_worker_leaves_belongs_to_its_task() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "x", "artifacts": ["a"]}"#);
    let (mut socket, _) = worker(master.address(), "w1");
    let assign = socket.text_of("assign");
    let outputs = r#"{"n":1.50}"#;
    let named =
        |text: &str| json!({"sha256": BlobHash::of(text.as_bytes()).to_string(), "bytes": text.len()});
    for text in [outputs, "printed\u{0}\n", "content"] {
        put(&master.client, BlobHash::of(text.as_bytes()), text.as_bytes()).expect(201);
    }
    let mut file = named("content");
    file["path"] = json!("a/ü b");
    let left = json!({"outputs": named(outputs), "result": named("printed\u{0}\n"), "artifacts": [file]});
    socket.send(&finished(&assign, &left));
    let answer = master.client.get(&format!("/api/v2/tasks/{id}?wait_ms=60000"));
    assert!(answer.text.ends_with(r#""outputs":{"n":1.50}}"#), "as they were written: {}", answer.text);
    let task = answer.expect(200);
    assert_eq!((&task["status"], &task["result"]), (&json!("completed"), &json!("printed\u{fffd}\n")));
    let listed = master.client.get(&format!("/api/v2/tasks/{id}/artifacts")).expect(200);
    let file = &listed["artifacts"][0];
    assert_eq!((&file["path"], &file["bytes"], &file["task_id"]), (&json!("a/ü b"), &json!(7), &json!(id)));
    let got = master.client.get(&format!("/api/v2/artifacts/{}", file["id"]));
    assert_eq!((got.status, got.text.as_str()), (200, "content"));
    let name = got.headers["content-disposition"].to_str().expect("ASCII");
    assert!(name.contains("attachment") && name.contains("%C3%BC%20b"), "{name}");
}

#[test]
fn an_attempt_that_names_what_is_not_there_has_failed() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "x"}"#);
    let (mut socket, _) = worker(master.address(), "w1");
    let assign = socket.text_of("assign");
    let missing = json!({"sha256": BlobHash::of(b"gone").to_string(), "bytes": 4});
    socket.send(&finished(&assign, &json!({"outputs": missing})));
    let task = master.client.get(&format!("/api/v2/tasks/{id}?wait_ms=60000")).expect(200);
    assert_eq!(task["status"], "failed");
    assert!(task["error"].as_str().is_some_and(|text| text.contains("does not have the 4 bytes")), "{task}");
    // The worker is heard all the same.
    assert_eq!(socket.text_of("ack")["up_to"], 1);
}
