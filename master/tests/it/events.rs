//! The log of events: pages, long polls, streams and the dashboards' socket.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::socket::{BINARY, Socket, TEXT};
use crate::support::{SOON, TestMaster};

fn seqs(events: &Value) -> Vec<u64> {
    events.as_array().expect("events").iter().filter_map(|event| event["seq"].as_u64()).collect()
}

#[test]
fn the_log_is_read_in_pages_without_holes() {
    let master = TestMaster::start();
    for _ in 0..3 {
        master.client.submit(r#"{"title": "milestone"}"#);
    }
    let page = master.client.get("/api/v2/events?limit=4").expect(200);
    assert_eq!(seqs(&page["events"]), [1, 2, 3, 4]);
    assert_eq!(page["head"], 6);
    assert_eq!(page["events"][0]["type"], "task.created");
    let page = master.client.get("/api/v2/events?after=4").expect(200);
    assert_eq!(seqs(&page["events"]), [5, 6]);
    let history = master.client.get("/api/v2/events?subject=task:2").expect(200);
    assert_eq!(seqs(&history["events"]), [3, 4]);
    let log = page["log_id"].as_str().expect("a log id");
    master.client.get(&format!("/api/v2/events?log_id={log}")).expect(200);
    master.client.get("/api/v2/events?log_id=another").expect(410);
}

#[test]
fn a_long_poll_ends_with_the_next_event_about_its_subject() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"kind": "noop"}"#);
    std::thread::scope(|scope| {
        let all = scope.spawn(|| master.client.get("/api/v2/events?after=1&wait_ms=600000").expect(200));
        let path = format!("/api/v2/events?after=1&subject=task:{id}&wait_ms=600000");
        let client = &master.client;
        let one = scope.spawn(move || client.get(&path).expect(200));
        master.client.submit(r#"{"kind": "noop"}"#);
        assert_eq!(all.join().expect("an answer")["events"][0]["seq"], 2);
        master.client.post(&format!("/api/v2/tasks/{id}/cancel"), "").expect(200);
        let history = one.join().expect("an answer");
        assert_eq!(history["events"][0]["type"], "task.cancelled");
        assert_eq!(seqs(&history["events"]).len(), 1);
    });
    let none = master.client.get("/api/v2/events?after=3&wait_ms=50").expect(200);
    assert_eq!((seqs(&none["events"]), &none["head"]), (vec![], &json!(3)));
}

#[test]
fn scripts_read_a_stream() {
    let master = TestMaster::start();
    master.client.submit(r#"{"title": "milestone"}"#);
    for (path, extra) in [("/api/v2/events/ws?after=1", ""), ("/api/v2/events", "Last-Event-ID: 1\r\n")] {
        let mut stream = TcpStream::connect(master.address()).expect("a connection");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n{extra}\r\n")
            .expect("written");
        let lines = BufReader::new(stream).lines().map(|line| line.expect("a line"));
        let mut lines = lines.skip_while(|line| !line.starts_with("id:"));
        assert_eq!(lines.next().expect("an id"), "id: 2");
        let data = lines.next().expect("data");
        let event: Value = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
        assert_eq!(event["type"], "task.completed");
    }
}

#[test]
fn a_dashboard_gets_no_more_than_its_credit() {
    let master = TestMaster::start();
    for _ in 0..5 {
        master.client.submit(r#"{"title": "milestone"}"#);
    }
    let mut socket = Socket::open(master.address(), "/api/v2/events/ws");
    socket.send(&json!({"subscribe": {"after": 1, "credit": 3}}));
    let mut got = Vec::new();
    while got.len() < 3 {
        got.extend(seqs(&socket.text()["events"]));
    }
    assert_eq!(got, [2, 3, 4]);
    socket.send(&json!({"credit": 100}));
    while got.len() < 9 {
        got.extend(seqs(&socket.text()["events"]));
    }
    assert_eq!(got, (2..=10).collect::<Vec<u64>>());
    master.client.submit(r#"{"kind": "noop"}"#);
    assert_eq!(seqs(&socket.text()["events"]), [11]);
    socket.send(&json!({"subscribe": {"after": 9, "credit": 1}}));
    assert_eq!(seqs(&socket.text()["events"]), [10]);
}

#[test]
fn a_socket_that_says_nonsense_is_closed() {
    let master = TestMaster::start();
    let open = || Socket::open(master.address(), "/api/v2/events/ws");
    let mut socket = open();
    socket.send_part(TEXT, true, b"{");
    assert_eq!(socket.closed().0, 1007);
    let mut socket = open();
    socket.send(&json!({"subscribe": {"colour": 1}}));
    assert_eq!(socket.closed().0, 1003);
    let mut socket = open();
    socket.send(&json!({"credit": 1}));
    assert_eq!(socket.closed().0, 1008);
    let mut socket = open();
    socket.send_part(BINARY, true, b"x");
    assert_eq!(socket.closed().0, 1003);
    let mut socket = open();
    socket.send_part(TEXT, true, &vec![b' '; 10_000]);
    assert_eq!(socket.closed().0, 1009);
    master.client.get("/health").expect(200);
}
