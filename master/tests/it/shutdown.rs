//! The end: soon, in order, and with everything still there.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::socket::{Socket, worker};
use crate::support::{SOON, TestMaster};

/// The promise.
const LIMIT: Duration = Duration::from_secs(2);

#[test]
fn a_master_with_much_to_do_ends_soon_and_loses_nothing() {
    let mut master = TestMaster::start();
    let tasks: Vec<Value> = (0..1_000).map(|_| json!({"kind": "noop", "group": "nobody"})).collect();
    master.client.post("/api/v2/tasks", &json!({ "tasks": tasks }).to_string()).expect(201);
    let (mut door, _) = worker(master.address(), "w1");
    let mut dashboard = Socket::open(master.address(), "/api/v2/events/ws");
    dashboard.send(&json!({"subscribe": {"after": 0, "credit": 1_000_000}}));
    dashboard.text();
    let mut silent = Socket::open(master.address(), "/api/v2/workers/connect");
    let mut stream = TcpStream::connect(master.address()).expect("a connection");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    write!(stream, "GET /api/v2/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
        .expect("written");
    stream.read_exact(&mut [0; 12]).expect("it flows");
    let waiting: Vec<_> = [
        "/api/v2/tasks/1?wait_ms=600000",
        "/api/v2/tasks/1/logs?follow=1",
        "/api/v2/events?after=999999&wait_ms=600000",
        "/api/v2/events?subject=worker:x&wait_ms=600000",
    ]
    .map(|path| {
        let client = master.client.clone();
        std::thread::spawn(move || client.get(path))
    })
    .into();
    // Three sockets, the stream, the four that wait, and the one that asks.
    wait_for_connections(&master, 9);

    let took = master.stop();
    assert!(took < LIMIT, "it took {took:?}");
    door.text_of("restarting");
    assert_eq!(door.closed().0, 1012);
    assert_eq!(silent.closed().0, 1012);
    assert_eq!(dashboard.closed().0, 1012);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("an end");
    for answer in waiting {
        let answer = answer.join().expect("an answer");
        assert!([200, 503].contains(&answer.status), "{}", answer.text);
    }

    master.start_again();
    let stats = master.client.get("/api/v2/stats").expect(200);
    assert_eq!((&stats["tasks"]["pending"], &stats["epoch"]), (&json!(1_000), &json!(2)));
}

fn wait_for_connections(master: &TestMaster, wanted: u64) {
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let metrics = master.client.get("/metrics").text;
        let open = metrics.lines().find_map(|line| line.strip_prefix("agentflow_connections "));
        if open.and_then(|open| open.parse().ok()).is_some_and(|open: u64| open >= wanted) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "too few connections: {open:?}");
    }
}

#[test]
fn peers_that_do_not_read_cannot_hold_a_master() {
    let mut master = TestMaster::start();
    for _ in 0..8 {
        let tasks: Vec<Value> = (0..10_000).map(|_| json!({"title": "m"})).collect();
        master.client.post("/api/v2/tasks", &json!({ "tasks": tasks }).to_string()).expect(201);
    }
    let mut dashboard = Socket::open(master.address(), "/api/v2/events/ws");
    dashboard.send(&json!({"subscribe": {"after": 0, "credit": 1_000_000}}));
    dashboard.text();
    let mut stream = TcpStream::connect(master.address()).expect("a connection");
    write!(stream, "GET /api/v2/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
        .expect("written");
    stream.read_exact(&mut [0; 12]).expect("it flows");
    let took = master.stop();
    assert!(took < LIMIT, "it took {took:?}");
}
