//! Waiting for locks: whose turn it is, and what becomes of who goes away.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::locks::{lock, path_of, with};
use crate::support::{Answer, Client, SOON, TestMaster};

/// Waits for a lock on a thread of its own.
fn wait(client: &Client, body: &Value) -> JoinHandle<Answer> {
    let (client, body) = (client.clone(), with(body, &json!({"wait_ms": 60_000})));
    std::thread::spawn(move || client.lock(&body))
}

/// Until so many wait.
#[track_caller]
fn waiting(client: &Client, count: usize) -> Value {
    client.until("/api/v2/locks", |page| page["waiting"].as_array().is_some_and(|list| list.len() == count))
}

/// A request that was sent, whose answer nobody has read yet.
fn send(master: &TestMaster, headers: &str, body: &Value) -> TcpStream {
    let mut stream = TcpStream::connect(master.address()).expect("a connection");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    let body = with(body, &json!({"wait_ms": 60_000})).to_string();
    write!(
        stream,
        "POST /api/v2/locks HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("written");
    stream
}

#[test]
fn a_lock_goes_to_who_waits_for_it_in_turn() {
    let master = TestMaster::start();
    let held = master.client.locked("alice", &["src/**"]);
    let bob = wait(&master.client, &with(&lock("bob", &["src/a.rs"]), &json!({"reason": "a test"})));
    let page = waiting(&master.client, 1);
    let mut shown = page["waiting"][0].clone();
    assert!(shown["since"].is_string(), "{shown}");
    shown.as_object_mut().expect("an object").remove("since");
    let path = json!([{"path": "src/a.rs", "mode": "write"}]);
    assert_eq!(shown["holders"][0]["id"], held["id"]);
    shown["holders"] = json!([]);
    assert_eq!(
        shown,
        json!({"repo": "example.com/team/app", "owner": "bob", "paths": path, "reason": "a test",
            "priority": 50, "position": 0, "holders": []})
    );
    let carol = wait(&master.client, &lock("carol", &["src/a.rs"]));
    assert_eq!(waiting(&master.client, 2)["waiting"][1]["position"], 1);
    // Who waits comes first, though what dave wants is free but for that.
    let problem = master.client.lock(&lock("dave", &["src/a.rs"])).expect(409);
    assert_eq!(problem["position"], 2, "{problem}");
    master.client.delete(&path_of(&held));
    let bobs = bob.join().expect("no panic").expect(201);
    assert_eq!((&bobs["owner"], &bobs["fence"]), (&json!("bob"), &json!(2)));
    assert_eq!(waiting(&master.client, 1)["waiting"][0]["owner"], "carol");
    master.client.delete(&path_of(&bobs));
    assert_eq!(carol.join().expect("no panic").expect(201)["fence"], 3);
}

#[test]
fn nobody_waits_longer_than_he_said() {
    let master = TestMaster::start();
    master.client.locked("alice", &["a"]);
    let problem = master.client.lock(&with(&lock("bob", &["a"]), &json!({"wait_ms": 50}))).expect(409);
    assert!(
        problem["detail"].as_str().is_some_and(|text| text.contains("time to wait is over")),
        "{problem}"
    );
    assert_eq!(problem["holders"][0]["owner"], "alice");
    waiting(&master.client, 0);
}

#[test]
fn a_higher_priority_is_served_first() {
    let master = TestMaster::start();
    let held = master.client.locked("alice", &["a"]);
    let bob = wait(&master.client, &lock("bob", &["a"]));
    waiting(&master.client, 1);
    let carol = wait(&master.client, &with(&lock("carol", &["a"]), &json!({"priority": "high"})));
    assert_eq!(waiting(&master.client, 2)["waiting"][0]["owner"], "carol");
    master.client.delete(&path_of(&held));
    let carols = carol.join().expect("no panic").expect(201);
    master.client.delete(&path_of(&carols));
    bob.join().expect("no panic").expect(201);
}

#[test]
fn who_would_wait_for_himself_is_told_so() {
    let master = TestMaster::start();
    let alices = master.client.locked("alice", &["a"]);
    master.client.locked("bob", &["b"]);
    let bob = wait(&master.client, &lock("bob", &["a"]));
    waiting(&master.client, 1);
    let problem = master.client.lock(&with(&lock("alice", &["b"]), &json!({"wait_ms": 60_000}))).expect(409);
    assert_eq!(problem["type"], "urn:agentflow:problem:deadlock");
    let detail = problem["detail"].as_str().expect("a text");
    assert!(detail.contains("alice waits for bob, which waits for alice"), "{detail}");
    master.client.delete(&path_of(&alices));
    bob.join().expect("no panic").expect(201);
}

/// However a client goes away: its whole connection, or only its own direction, or by a reset.
#[test]
fn who_goes_away_loses_his_place() {
    let master = TestMaster::start();
    let held = master.client.locked("alice", &["a"]);
    let ends: [fn(TcpStream) -> Option<TcpStream>; 3] = [
        |stream| {
            drop(stream);
            None
        },
        |stream| {
            stream.shutdown(Shutdown::Write).expect("shut");
            Some(stream)
        },
        |stream| {
            // What was not read when it is closed makes a reset of it.
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("set");
            drop(stream);
            None
        },
    ];
    for end in ends {
        let stream = send(&master, "", &lock("bob", &["a"]));
        waiting(&master.client, 1);
        let left = end(stream);
        waiting(&master.client, 0);
        if let Some(mut stream) = left {
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("an end");
            assert_eq!(text, "", "nobody is answered who does not listen");
        }
    }
    let carol = wait(&master.client, &lock("carol", &["a"]));
    waiting(&master.client, 1);
    master.client.delete(&path_of(&held));
    carol.join().expect("no panic").expect(201);
}

/// A hundred clients that go away just before their turn comes: whatever is on its way, nothing stays
/// locked.
#[test]
fn nothing_stays_locked_by_who_has_gone() {
    let master = TestMaster::start();
    // What is on its way from the round before may be granted, and given back, while this one begins.
    let alices = with(&lock("alice", &["a"]), &json!({"wait_ms": 60_000}));
    for round in 0..100 {
        let held = master.client.lock(&alices).expect(201);
        let stream = send(&master, "", &lock("bob", &["a"]));
        if round % 2 == 0 {
            waiting(&master.client, 1);
        }
        drop(stream);
        assert_eq!(master.client.delete(&path_of(&held)).status, 204);
        master
            .client
            .until("/api/v2/locks", |page| page["locks"] == json!([]) && page["waiting"] == json!([]));
    }
}

#[test]
fn a_grant_that_was_not_heard_of_is_found_by_its_key() {
    let master = TestMaster::start();
    let held = master.client.locked("alice", &["a"]);
    let stream = send(&master, "Idempotency-Key: k\r\n", &lock("bob", &["a"]));
    waiting(&master.client, 1);
    // He asks again over another connection, and takes his own place.
    let (client, body) = (master.client.clone(), with(&lock("bob", &["a"]), &json!({"wait_ms": 60_000})));
    let again = std::thread::spawn(move || {
        client.request("POST", "/api/v2/locks", &[("idempotency-key", "k")], body.to_string().as_bytes())
    });
    let mut answer = String::new();
    (&stream).take(12).read_to_string(&mut answer).expect("an answer");
    assert_eq!(answer, "HTTP/1.1 409");
    waiting(&master.client, 1);
    master.client.delete(&path_of(&held));
    let granted = again.join().expect("no panic").expect(201);
    let body = lock("bob", &["a"]).to_string();
    let found = master
        .client
        .request("POST", "/api/v2/locks", &[("idempotency-key", "k")], body.as_bytes())
        .expect(201);
    assert_eq!(found, granted);
}

#[test]
fn who_waits_while_the_master_stops_is_told_so() {
    let mut master = TestMaster::start();
    master.client.locked("alice", &["a"]);
    let bob = wait(&master.client, &lock("bob", &["a"]));
    waiting(&master.client, 1);
    let took = master.stop();
    assert!(took < Duration::from_secs(5), "{took:?}");
    bob.join().expect("no panic").expect(503);
    master.start_again();
    waiting(&master.client, 0);
}
