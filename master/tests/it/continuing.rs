//! Attempts that go on where another one was: what they are given, what they ask, what is restored.

use std::net::SocketAddr;

use agentflow_core::blob::BlobHash;
use agentflow_core::ids::{Attempt, Fence, TaskId};
use agentflow_protocol::worker::AttemptKey;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::socket::{Socket, hello};
use crate::support::{Answer, Client, TestMaster};
use crate::workers::{finished, key_of, report, started};

/// A life of a worker that speaks the newest version and has nothing in its hands.
pub(crate) fn worker_of(address: SocketAddr, name: &str, boot: u64) -> Socket {
    let mut socket = Socket::open(address, "/api/v2/workers/connect");
    let mut hello = hello(name, boot);
    hello["version"] = json!(4);
    socket.send(&hello);
    socket.text_of("welcome");
    socket
}

/// Takes the next assignment of one task and says that it has begun, as the report of that number.
pub(crate) fn begin(socket: &mut Socket, no: u64) -> (AttemptKey, Value) {
    let assign = socket.text_of("assign");
    let key = key_of(&assign);
    socket.send(&json!({"type": "reports", "reports": [started(no, key)]}));
    socket.text_of("ack");
    (key, assign["tasks"][0].clone())
}

pub(crate) fn failed(no: u64, key: AttemptKey) -> Value {
    let end = json!({"end": "failed", "class": "error"});
    report(
        no,
        key,
        json!({"event": "finished", "started_at": 1, "finished_at": 2, "end": end, "error": "bad"}),
    )
}

fn ask(no: u64, key: AttemptKey, what: &str, body: Value) -> Value {
    let mut ask =
        json!({"no": no, "task": key.task, "attempt": key.attempt, "fence": key.fence, "ask": what});
    ask.as_object_mut().expect("an object").extend(body.as_object().expect("an object").clone());
    ask
}

fn checkpoint(no: u64, key: AttemptKey, name: &str, bytes: &[u8]) -> Value {
    let content = json!({"data": STANDARD.encode(bytes)});
    ask(no, key, "checkpoint", json!({"name": name, "json": true, "content": content}))
}

fn remember(no: u64, key: AttemptKey, name: &str, value: &str) -> Value {
    ask(no, key, "remember", json!({"whose": "task", "name": name, "value": value}))
}

impl Socket {
    /// The answers to all of these questions, by their order.
    #[track_caller]
    fn ask(&mut self, asks: &[Value]) -> Vec<Value> {
        self.send(&json!({"type": "asks", "asks": asks}));
        let mut answers = Vec::new();
        while answers.len() < asks.len() {
            answers.extend(self.text_of("answers")["answers"].as_array().expect("answers").clone());
        }
        answers.sort_by_key(|answer| answer["no"].as_u64());
        answers
    }
}

impl Client {
    fn restore(&self, checkpoint: &Value, body: &str) -> Answer {
        self.post(&format!("/api/v2/checkpoints/{checkpoint}/restore"), body)
    }

    fn remembered(&self, task: u64) -> Value {
        self.get(&format!("/api/v2/tasks/{task}/memory")).expect(200)["memory"].clone()
    }

    fn events(&self, task: u64) -> Vec<String> {
        let events = self.get(&format!("/api/v2/events?subject=task:{task}&limit=1000")).expect(200);
        let events = events["events"].as_array().expect("events").iter();
        events.map(|event| event["type"].as_str().expect("a type").to_owned()).collect()
    }
}

fn detail(problem: &Value) -> &str {
    problem["detail"].as_str().expect("a text")
}

#[test]
fn the_next_attempt_goes_on_at_the_newest_checkpoint() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "x"}"#);
    let anew = master.client.submit(r#"{"command": "x", "continue_from": "beginning"}"#);
    let mut socket = worker_of(master.address(), "w1", 1);
    let assign = socket.text_of("assign");
    for task in assign["tasks"].as_array().expect("tasks") {
        assert_eq!((task.get("checkpoint"), task.get("memory")), (None, None), "a beginning");
    }
    let newest = [id, anew].map(|task| {
        master.client.save(task, &json!({"name": "one"})).expect(201);
        master.client.save(task, &json!({"name": "two", "memory": {"k": 1}})).expect(201)["id"].clone()
    });
    drop(socket);
    let mut socket = worker_of(master.address(), "w1", 2);
    let assign = socket.text_of("assign");
    let tasks = assign["tasks"].as_array().expect("tasks");
    assert_eq!(tasks.iter().map(|task| &task["attempt"]).collect::<Vec<_>>(), [2, 2]);
    let of = |id: u64| tasks.iter().find(|task| task["task"] == id).expect("both");
    assert_eq!((&of(id)["checkpoint"], &of(id)["memory"]), (&newest[0], &json!(true)));
    assert_eq!((of(anew).get("checkpoint"), &of(anew)["memory"]), (None, &json!(true)));
}

#[test]
fn what_an_attempt_asks_is_answered() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "x"}"#);
    let mut socket = worker_of(master.address(), "w1", 1);
    let (key, _) = begin(&mut socket, 1);
    let large = vec![b'7'; 100_000];
    let hash = BlobHash::of(&large).to_string();
    master.client.request("PUT", &format!("/api/v2/blobs/{hash}"), &[], &large).expect(201);
    let blob = |no, hash: &str, bytes: usize| {
        let content = json!({"blob": {"sha256": hash, "bytes": bytes}});
        let files = json!({"commit": "ab12", "reference": "refs/agentflow/checkpoints/1"});
        ask(no, key, "checkpoint", json!({"name": "large", "content": content, "files": files}))
    };
    let asks = [
        remember(1, key, "k", r#"{"n": 1.50}"#),
        remember(2, key, "l", "2"),
        checkpoint(3, key, "small", br#"{"n": 1.50}"#),
        ask(4, key, "forget", json!({"whose": "task", "name": "l"})),
        ask(5, key, "forget", json!({"whose": "task", "name": "nothing"})),
    ];
    let answers = socket.ask(&asks);
    assert!(answers.iter().all(|answer| answer["given"]["at"].is_number()), "{answers:?}");
    assert_eq!(answers[2]["given"]["checkpoint"], 1);
    assert_eq!(answers[0]["given"].get("checkpoint"), None);
    let shown = master.client.get("/api/v2/checkpoints/1").expect(200);
    assert_eq!((&shown["data"], &shown["attempt"]), (&json!({"n": 1.5}), &json!(1)));
    assert_eq!(shown["memory"], json!({"k": {"n": 1.5}, "l": 2}), "as it was then");
    assert_eq!(master.client.remembered(id), json!({"k": {"n": 1.5}}));
    let answers = socket.ask(&[blob(6, &hash, large.len())]);
    assert_eq!(answers[0]["given"]["checkpoint"], 2, "{answers:?}");
    let shown = master.client.get("/api/v2/checkpoints/2").expect(200);
    assert_eq!((&shown["bytes"], &shown["commit"]), (&json!(large.len()), &json!("ab12")));
    assert_eq!(shown["reference"], "refs/agentflow/checkpoints/1");
    assert_eq!(master.client.bytes("/api/v2/checkpoints/2/data"), large);
    // The same questions again, as after a lost connection.
    let again = socket.ask(&[asks[2].clone(), blob(6, &hash, large.len())]);
    assert_eq!(again.iter().map(|answer| &answer["given"]["checkpoint"]).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(master.client.history(id).len(), 3, "a mark and two checkpoints");
    // What cannot be done is said of each, and the others are done.
    let gone = BlobHash::of(b"gone").to_string();
    let answers = socket.ask(&[
        blob(7, &gone, 4),
        blob(8, &hash, 5),
        checkpoint(9, key, "..", b"1"),
        checkpoint(10, key, "task_start", b"1"),
        ask(11, key, "remember", json!({"whose": "run", "name": "k", "value": "1"})),
        remember(12, key, "", "1"),
        remember(13, key, "m", "3"),
    ]);
    let said: Vec<_> = answers.iter().map(|answer| &answer["problem"]["status"]).collect();
    assert_eq!(
        said,
        [&json!(422), &json!(422), &json!(422), &json!(422), &json!(409), &json!(422), &Value::Null]
    );
    assert!(detail(&answers[0]["problem"]).contains(&gone), "{answers:?}");
    assert!(detail(&answers[4]["problem"]).contains("no part of a run"), "{answers:?}");
    assert_eq!(master.client.remembered(id), json!({"k": {"n": 1.5}, "m": 3}));
}

#[test]
fn an_attempt_that_is_over_is_told_who_took_over() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "x"}"#);
    let mut socket = worker_of(master.address(), "w1", 1);
    let (key, _) = begin(&mut socket, 1);
    let stale = AttemptKey { fence: Fence(key.fence.0 + 7), ..key };
    let nobody = AttemptKey { task: TaskId(99), ..key };
    let answers = socket.ask(&[
        checkpoint(1, stale, "a", b"1"),
        remember(2, stale, "k", "1"),
        remember(3, nobody, "k", "1"),
    ]);
    for answer in &answers {
        assert_eq!(answer["problem"]["status"], 409, "{answer}");
        assert_eq!(answer["problem"]["type"], "urn:agentflow:problem:stale");
    }
    for fence in [key.fence, stale.fence] {
        assert!(detail(&answers[0]["problem"]).contains(&format!("fence {fence}")), "{answers:?}");
    }
    assert!(detail(&answers[2]["problem"]).contains("no attempt runs"), "{answers:?}");
    // Another worker's attempt is not this one's to speak for.
    let mut other = worker_of(master.address(), "w2", 1);
    let answer = &other.ask(&[remember(1, key, "k", "1")])[0];
    assert_eq!(answer["problem"]["status"], 409);
    assert!(detail(&answer["problem"]).contains("another worker"), "{answer}");
    assert_eq!(master.client.remembered(id), json!({}));
}

#[test]
fn a_running_task_is_restored() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "x"}"#);
    let mut socket = worker_of(master.address(), "w1", 1);
    let (first, _) = begin(&mut socket, 1);
    let answers = socket.ask(&[
        remember(1, first, "k", "1"),
        checkpoint(2, first, "one", b"1"),
        remember(3, first, "k", "2"),
        remember(4, first, "l", "2"),
        checkpoint(5, first, "two", b"2"),
    ]);
    let one = &answers[1]["given"]["checkpoint"];
    let view = master.client.restore(one, "").expect(200);
    assert_eq!((&view["id"], &view["status"]), (&json!(id), &json!("pending")));
    let dropped = socket.text_of("drop");
    assert_eq!(dropped["keys"], json!([{"task": id, "attempt": 1, "fence": first.fence}]));
    let (second, given) = begin(&mut socket, 2);
    assert_eq!((second.attempt, &given["checkpoint"], &given["memory"]), (Attempt(2), one, &json!(true)));
    assert_eq!(master.client.remembered(id), json!({"k": 1}));
    // What the first attempt still says counts for nothing.
    socket.send(&json!({"type": "reports", "reports": [finished(3, first)]}));
    assert_eq!(socket.text_of("ack")["up_to"], 3);
    assert_eq!(socket.ask(&[remember(6, first, "k", "5")])[0]["problem"]["status"], 409);
    assert_eq!(master.client.get(&format!("/api/v2/tasks/{id}")).expect(200)["status"], "running");
    // The memory alone: the next attempt begins at the beginning.
    master.client.restore(one, r#"{"continue_from": "beginning"}"#).expect(200);
    let (third, given) = begin(&mut socket, 4);
    assert_eq!((third.attempt, given.get("checkpoint")), (Attempt(3), None));
    assert_eq!(master.client.remembered(id), json!({"k": 1}));
    let attempts = master.client.get(&format!("/api/v2/tasks/{id}/attempts")).expect(200);
    let first = &attempts["attempts"][0];
    assert_eq!(first["status"], "cancelled");
    assert!(
        first["error"].as_str().is_some_and(|text| text.contains("checkpoint 1 was restored")),
        "{first}"
    );
    let events = master.client.events(id);
    let of = |kind: &str| events.iter().filter(|event| *event == kind).count();
    assert_eq!(
        (of("task.checkpointed"), of("task.superseded"), of("task.restored")),
        (2, 2, 2),
        "{events:?}"
    );
}

#[test]
fn a_task_that_has_ended_is_restored() {
    let mut master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "x"}"#);
    let mut socket = worker_of(master.address(), "w1", 1);
    let (first, _) = begin(&mut socket, 1);
    let answers = socket.ask(&[
        remember(1, first, "k", "1"),
        checkpoint(2, first, "one", b"1"),
        checkpoint(3, first, "two", b"2"),
    ]);
    let [one, two] = [1, 2].map(|at: usize| answers[at]["given"]["checkpoint"].clone());
    socket.send(&json!({"type": "reports", "reports": [failed(2, first)]}));
    master.client.until(&format!("/api/v2/tasks/{id}"), |task| task["status"] == "failed");
    assert_eq!(master.client.restore(&one, "").expect(200)["status"], "pending");
    let (second, given) = begin(&mut socket, 3);
    assert_eq!((second.attempt, &given["checkpoint"]), (Attempt(2), &one));
    socket.send(&json!({"type": "reports", "reports": [finished(4, second)]}));
    let done = master.client.until(&format!("/api/v2/tasks/{id}"), |task| task["status"] == "completed");
    assert_eq!(done["attempt"], 2);
    drop(socket);
    master.client.until("/api/v2/workers/w1", |worker| worker["connected"] == false);
    // Nobody is there to run it: what was chosen is still known after a restart.
    let body = r#"{"continue_from": "beginning"}"#;
    assert_eq!(master.client.restore(&two, body).expect(200)["status"], "pending");
    master.restart();
    let mut socket = worker_of(master.address(), "w1", 2);
    let given = socket.text_of("assign")["tasks"][0].clone();
    assert_eq!((&given["attempt"], given.get("checkpoint")), (&json!(3), None));
    assert_eq!(given["memory"], true, "what was remembered is restored");
}

#[test]
fn a_checkpoint_that_somebody_needs_stays() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "x", "keep_checkpoints": 1}"#);
    let one = master.client.save(id, &json!({"name": "one"})).expect(201)["id"].clone();
    let mut socket = worker_of(master.address(), "w1", 1);
    let (key, given) = begin(&mut socket, 1);
    assert_eq!(given["checkpoint"], one);
    socket.ask(&[checkpoint(1, key, "two", b"2")]);
    // The attempt may still have to fetch it.
    assert_eq!(master.client.bytes(&format!("/api/v2/checkpoints/{one}/data")), b"null");
    drop(socket);
    let mut socket = worker_of(master.address(), "w1", 2);
    let (key, given) = begin(&mut socket, 1);
    assert_eq!(given["checkpoint"], 2);
    socket.ask(&[checkpoint(1, key, "three", b"3")]);
    master.client.get(&format!("/api/v2/checkpoints/{one}")).expect(404);
}

#[test]
fn a_retry_goes_on_or_begins_anew() {
    let mut master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "x"}"#);
    let retry = format!("/api/v2/tasks/{id}/retry");
    let mut socket = worker_of(master.address(), "w1", 1);
    let (first, _) = begin(&mut socket, 1);
    socket.ask(&[remember(1, first, "k", "1"), checkpoint(2, first, "one", b"1")]);
    socket.send(&json!({"type": "reports", "reports": [failed(2, first)]}));
    master.client.until(&format!("/api/v2/tasks/{id}"), |task| task["status"] == "failed");
    let problem = master.client.post(&retry, r#"{"continue_from": "middle"}"#).expect(422);
    assert_eq!(problem["errors"][0]["pointer"], "/continue_from");
    master.client.post(&retry, r#"{"from": "beginning"}"#).expect(422);
    master.restart();
    let mut socket = worker_of(master.address(), "w1", 2);
    master.client.post(&retry, "").expect(200);
    let (second, given) = begin(&mut socket, 1);
    assert_eq!((&given["checkpoint"], &given["memory"]), (&json!(1), &json!(true)));
    socket.send(&json!({"type": "reports", "reports": [failed(2, second)]}));
    master.client.until(&format!("/api/v2/tasks/{id}"), |task| task["status"] == "failed");
    master.client.post(&retry, r#"{"continue_from": "beginning"}"#).expect(200);
    let (third, given) = begin(&mut socket, 3);
    assert_eq!((given.get("checkpoint"), given.get("memory")), (None, None));
    assert_eq!(master.client.remembered(id), json!({}));
    // What it saves now counts again.
    socket.ask(&[checkpoint(1, third, "anew", b"3")]);
    socket.send(&json!({"type": "reports", "reports": [failed(4, third)]}));
    master.client.until(&format!("/api/v2/tasks/{id}"), |task| task["status"] == "failed");
    master.client.post(&retry, "").expect(200);
    assert_eq!(begin(&mut socket, 5).1["checkpoint"], 2);
}

#[test]
fn not_everything_is_restored() {
    let master = TestMaster::start();
    let id = master.client.submit(r#"{"command": "x"}"#);
    let one = master.client.save(id, &json!({"name": "one"})).expect(201)["id"].clone();
    let problem = master.client.restore(&one, r#"{"continue_from": "middle"}"#).expect(422);
    assert_eq!(problem["errors"][0]["pointer"], "/continue_from");
    master.client.restore(&one, r#"{"colour": 1}"#).expect(422);
    // A waiting task just begins there.
    assert_eq!(master.client.restore(&one, "").expect(200)["status"], "pending");
    let mut socket = worker_of(master.address(), "w1", 1);
    let (key, given) = begin(&mut socket, 1);
    assert_eq!((key.attempt, &given["checkpoint"]), (Attempt(1), &one));
    master.client.post(&format!("/api/v2/tasks/{id}/cancel"), "").expect(200);
    let problem = master.client.restore(&one, "").expect(409);
    assert!(detail(&problem).contains("cancel"), "{problem}");
    // A node of a run that has ended runs again with its run.
    let file = "version: 1\ntasks: {ask: {approval: true}}\n";
    let run = master.client.post("/api/v2/runs", &json!({ "workflow": file }).to_string()).expect(201);
    let node = run["nodes"][0]["task_id"].as_u64().expect("an id");
    let two = master.client.save(node, &json!({"name": "two"})).expect(201)["id"].clone();
    master.client.post(&format!("/api/v2/tasks/{node}/reject"), "").expect(200);
    master.client.until(&format!("/api/v2/runs/{}", run["id"]), |run| run["status"] == "failed");
    let problem = master.client.restore(&two, "").expect(409);
    assert!(detail(&problem).contains("run"), "{problem}");
}
