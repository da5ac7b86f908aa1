//! What workers may say, and what becomes of those who say anything else.

use agentflow_core::ids::{Attempt, Fence, TaskId};
use agentflow_core::limits;
use agentflow_protocol::log_frame::{Header, Stream, encode};
use agentflow_protocol::worker::AttemptKey;
use serde_json::{Value, json};

use crate::socket::{BINARY, Frame, Socket, TEXT, hello, worker};
use crate::support::TestMaster;

const CONNECT: &str = "/api/v2/workers/connect";

/// The key of the first task of an `Assign`.
pub(crate) fn key_of(assign: &Value) -> AttemptKey {
    let task = &assign["tasks"][0];
    let number = |field: &str| task[field].as_u64().expect("a number");
    AttemptKey {
        task: TaskId(number("task")),
        attempt: Attempt(u32::try_from(number("attempt")).expect("small")),
        fence: Fence(number("fence")),
    }
}

fn log(socket: &mut Socket, key: AttemptKey, offset: u64, bytes: &[u8]) {
    socket.send_part(BINARY, true, &encode(Header { key, stream: Stream::Out, offset }, bytes));
}

pub(crate) fn report(no: u64, key: AttemptKey, body: Value) -> Value {
    let mut report = json!({"no": no, "task": key.task, "attempt": key.attempt, "fence": key.fence});
    report.as_object_mut().expect("an object").extend(body.as_object().expect("an object").clone());
    report
}

pub(crate) fn started(no: u64, key: AttemptKey) -> Value {
    report(no, key, json!({"event": "started", "at": 1}))
}

pub(crate) fn finished(no: u64, key: AttemptKey) -> Value {
    let body = json!({"event": "finished", "started_at": 1, "finished_at": 2,
        "end": {"end": "completed"}, "exit_code": 0, "result": "done"});
    report(no, key, body)
}

#[test]
fn a_worker_runs_a_task_and_its_output_is_followed() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "x"}"#);
    let follow = |query: &str| {
        let (client, path) = (master.client.clone(), format!("/api/v2/tasks/{id}/logs?{query}"));
        std::thread::spawn(move || client.get(&path).text)
    };
    let early = follow("follow=1");
    let (mut socket, welcome) = worker(master.address(), "w1");
    assert_eq!((&welcome["version"], &welcome["keep"]), (&json!(2), &json!([])));
    let key = key_of(&socket.text_of("assign"));
    assert_eq!((key.task, key.attempt), (TaskId(id), Attempt(1)));
    socket.send(&json!({"type": "reports", "reports": [started(1, key)]}));
    log(&mut socket, key, 0, b"hello ");
    assert_eq!(socket.text_of("log_ack")["offset"], 6);
    log(&mut socket, key, 0, b"hello ");
    assert_eq!(socket.text_of("log_ack")["offset"], 6);
    log(&mut socket, key, 106, b"world\n");
    assert_eq!(socket.text_of("log_ack")["offset"], 112);
    socket
        .send(&json!({"type": "progress", "task": 0, "key": {"task": id, "attempt": 1, "fence": key.fence},
        "percent": 40.0, "message": "on the way"}));
    let running = master.client.until(&format!("/api/v2/tasks/{id}"), |task| task["progress"].is_object());
    assert_eq!(
        (&running["status"], &running["progress"]["message"]),
        (&json!("running"), &json!("on the way"))
    );
    let late = follow("follow=1&offset=6");
    socket.send(&json!({"type": "reports", "reports": [finished(2, key)]}));
    let task = master.client.get(&format!("/api/v2/tasks/{id}?wait_ms=60000")).expect(200);
    assert_eq!(
        (&task["status"], &task["result"], &task["worker"]),
        (&json!("completed"), &json!("done"), &json!("w1"))
    );
    let text = "hello \n[agentflow: 100 bytes cut]\nworld\n";
    assert_eq!(early.join().expect("output"), text);
    assert_eq!(late.join().expect("output"), &text[6..]);
    assert_eq!(master.client.get(&format!("/api/v2/tasks/{id}/logs")).text, text);
    assert_eq!(master.client.get(&format!("/api/v2/tasks/{id}/logs?attempt=2")).text, "");
    let events = master.client.request(
        "GET",
        &format!("/api/v2/tasks/{id}/logs?follow=1"),
        &[("accept", "text/event-stream")],
        b"",
    );
    assert!(events.text.contains(r#""attempt":1"#) && events.text.contains("event: end"), "{}", events.text);
    let attempts = master.client.get(&format!("/api/v2/tasks/{id}/attempts")).expect(200);
    assert_eq!(attempts["attempts"][0]["status"], "completed");
    let view = master.client.get("/api/v2/workers/w1").expect(200);
    assert_eq!((&view["status"], &view["slots"]), (&json!("online"), &json!(4)));
}

#[test]
fn a_report_of_another_attempt_changes_nothing() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "x"}"#);
    let (mut socket, _) = worker(master.address(), "w1");
    let key = key_of(&socket.text_of("assign"));
    let stale = AttemptKey { fence: Fence(key.fence.0 + 7), ..key };
    let unknown = AttemptKey { task: TaskId(999), ..key };
    socket.send(&json!({"type": "reports", "reports": [finished(1, stale), finished(2, unknown)]}));
    socket.text_of("ack");
    assert_eq!(master.client.get(&format!("/api/v2/tasks/{id}")).expect(200)["status"], "pending");
    socket.send(&json!({"type": "reports", "reports": [started(3, key), finished(4, key)]}));
    let task = master.client.get(&format!("/api/v2/tasks/{id}?wait_ms=60000")).expect(200);
    assert_eq!(task["status"], "completed");
}

#[test]
fn frames_that_are_not_of_the_protocol_end_the_socket() {
    let master = TestMaster::start();
    let open = || Socket::open(master.address(), CONNECT);
    let mut socket = open();
    socket.send_part(TEXT, false, b"{\"type\":");
    assert_eq!(socket.closed().0, 1003, "a fragmented frame");
    let mut socket = open();
    socket.send_part(TEXT, true, &vec![b' '; limits::FRAME_BYTES + 1]);
    assert_eq!(socket.closed().0, 1009, "an oversized frame");
    let mut socket = open();
    socket.send_part(TEXT, true, b"{\"type\":");
    assert_eq!(socket.closed().0, 1007, "broken JSON");
    let mut socket = open();
    socket.send_part(TEXT, true, b"\xff\xfe");
    assert_eq!(socket.closed().0, 1007, "no UTF-8");
    let mut socket = open();
    socket.send(&json!({"type": "dance"}));
    assert_eq!(socket.closed().0, 1003, "an unknown frame");
    let mut socket = open();
    socket.send(&json!({"type": "heartbeat", "n": 1}));
    assert_eq!(socket.closed().0, 1008, "no hello");
    let mut socket = open();
    socket.send_part(BINARY, true, &[0; 40]);
    assert_eq!(socket.closed().0, 1008, "output before the hello");
    let (mut socket, _) = worker(master.address(), "w1");
    socket.send_part(BINARY, true, &[0; 8]);
    assert_eq!(socket.closed().0, 1003, "a short log frame");
    let (mut socket, _) = worker(master.address(), "w1");
    socket.send(&hello("w1", 1));
    assert_eq!(socket.closed().0, 1008, "a second hello");
    let (mut socket, _) = worker(master.address(), "w1");
    socket.send(&json!({"type": "heartbeat", "n": 5}));
    assert_eq!(socket.text_of("heartbeat_ack")["n"], 5);
}

#[test]
fn versions_are_agreed_on() {
    let master = TestMaster::start();
    let connect = |version: u32| {
        let mut socket = Socket::open(master.address(), CONNECT);
        let mut hello = hello(&format!("w{version}"), 1);
        hello["version"] = json!(version);
        socket.send(&hello);
        let answer = socket.text();
        (socket, answer)
    };
    let (mut socket, answer) = connect(1);
    assert_eq!((&answer["type"], &answer["retry"]), (&json!("refused"), &json!(false)));
    assert_eq!(socket.closed().0, 1008);
    for (version, agreed) in [(2, 2), (3, 3), (4, 4), (99, 4)] {
        let (_, answer) = connect(version);
        assert_eq!((&answer["type"], &answer["version"]), (&json!("welcome"), &json!(agreed)));
    }
}

#[test]
fn a_silent_peer_is_sent_away() {
    let master = TestMaster::start();
    let mut worker = Socket::open(master.address(), CONNECT);
    let mut dashboard = Socket::open(master.address(), "/api/v2/events/ws");
    assert_eq!(worker.receive(), Frame::Closed(1008, "no hello came within 5 s".to_owned()));
    assert_eq!(dashboard.receive(), Frame::Closed(1008, "no subscription came within 5 s".to_owned()));
}

#[test]
fn workers_are_drained_and_declared_dead() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "x"}"#);
    let (mut first, _) = worker(master.address(), "w1");
    let key = key_of(&first.text_of("assign"));
    first.send(&json!({"type": "reports", "reports": [started(1, key)]}));
    first.text_of("ack");
    master.client.post("/api/v2/workers/w1/dead", "{}").expect(422);
    master.client.post("/api/v2/workers/w1/drain", "").expect(200);
    first.text_of("drain");
    let view = master.client.get("/api/v2/workers").expect(200);
    assert_eq!(view["workers"][0]["status"], "draining");
    drop(first);
    master.client.until("/api/v2/workers/w1", |worker| worker["connected"] == false);
    master.client.post("/api/v2/workers/w1/dead", r#"{"boot": 1}"#).expect(200);
    master.client.until(&format!("/api/v2/tasks/{id}"), |task| task["status"] == "pending");
    let (mut second, _) = worker(master.address(), "w2");
    assert_eq!(key_of(&second.text_of("assign")).attempt, Attempt(2));
    let history = master.client.get(&format!("/api/v2/events?subject=task:{id}")).expect(200);
    let kinds: Vec<&str> =
        history["events"].as_array().expect("events").iter().filter_map(|e| e["type"].as_str()).collect();
    assert!(kinds.contains(&"task.lost"), "{kinds:?}");
}

#[test]
fn following_an_attempt_goes_on_to_the_next_or_ends() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "x", "retry": {"max": 1, "backoff_ms": 0}}"#);
    let (mut socket, _) = worker(master.address(), "w1");
    let first = key_of(&socket.text_of("assign"));
    log(&mut socket, first, 0, b"one");
    socket.text_of("log_ack");
    let follow = |query: &str| {
        let (client, path) = (master.client.clone(), format!("/api/v2/tasks/{id}/logs?follow=1{query}"));
        std::thread::spawn(move || client.get(&path).text)
    };
    let latest = follow("");
    let failed = json!({"event": "finished", "started_at": 1, "finished_at": 2,
        "end": {"end": "failed", "class": "error"}, "error": "bad"});
    socket.send(&json!({"type": "reports", "reports": [started(1, first), report(2, first, failed)]}));
    let second = key_of(&socket.text_of("assign"));
    assert_eq!(second.attempt, Attempt(2));
    assert_eq!(follow("&attempt=1").join().expect("output"), "one", "the first attempt is over");
    log(&mut socket, second, 0, b"two");
    socket.text_of("log_ack");
    socket.send(&json!({"type": "reports", "reports": [started(3, second), finished(4, second)]}));
    let text = latest.join().expect("output");
    // Whoever began to follow only after the second attempt was assigned sees that one.
    assert!(text == "one\n[agentflow: attempt 2]\ntwo" || text == "two", "{text}");
    let attempts = master.client.get(&format!("/api/v2/tasks/{id}/attempts")).expect(200);
    let kinds: Vec<_> =
        attempts["attempts"].as_array().expect("attempts").iter().map(|a| &a["status"]).collect();
    assert_eq!(kinds, ["failed", "completed"]);
}

#[test]
fn connecting_without_an_upgrade_is_explained() {
    let master = TestMaster::start();
    master.client.get(CONNECT).expect(426);
}
