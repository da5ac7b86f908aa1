//! The socket on which attempts speak: checkpoints, memory, progress, and where attempts begin.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use agentflow_core::checkpoint::{AskBody, Content, Whose};
use agentflow_core::ids::CheckpointId;
use agentflow_core::spec::Spec;
use agentflow_protocol::Problem;
use agentflow_protocol::worker::{Assignment, End};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{Master, dir, eventually, key, path, shell};
use crate::process::Worker;

/// An attempt that runs until it is let go, and the way to its worker from inside.
pub(crate) struct Inside {
    stream: BufReader<UnixStream>,
    key: String,
    gate: std::path::PathBuf,
}

impl Inside {
    /// Has an attempt begin and say where the door is.
    pub(crate) fn begin(master: &Master, dir: &TempDir, task: u64) -> Self {
        Self::begin_with(master, dir, task, |_| {})
    }

    /// The same with a specification that is changed first.
    pub(crate) fn begin_with(
        master: &Master,
        dir: &TempDir,
        task: u64,
        change: impl FnOnce(&mut Spec),
    ) -> Self {
        let (told, gate) = (path(dir, &format!("told-{task}")), path(dir, &format!("gate-{task}")));
        let (told_text, gate_text) = (told.display(), gate.display());
        let mut spec = shell(&format!(
            "printf '%s\\n%s' \"$AGENTFLOW_SOCKET\" \"$AGENTFLOW_ATTEMPT_KEY\" > {told_text}.new; \
             mv {told_text}.new {told_text}; while ! test -e {gate_text}; do sleep 0.01; done"
        ));
        change(&mut spec);
        master.assign_one(task, spec);
        master.wait_for("it begins", |state| state.has_started(task));
        let text = wait_for_file(&told);
        let (socket, key) = text.split_once('\n').expect("two lines");
        let stream = UnixStream::connect(socket).expect("a door");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
        Self { stream: BufReader::new(stream), key: key.to_owned(), gate }
    }

    /// Another connection of the same attempt.
    pub(crate) fn another(&self) -> Self {
        let address = self.stream.get_ref().peer_addr().expect("an address");
        let stream = UnixStream::connect(address.as_pathname().expect("a path")).expect("a door");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
        Self { stream: BufReader::new(stream), key: self.key.clone(), gate: self.gate.clone() }
    }

    /// One line there and one back; the key is put in.
    pub(crate) fn say(&mut self, line: Value) -> Value {
        self.ask(line);
        self.hear()
    }

    /// Only the line there.
    pub(crate) fn ask(&mut self, mut line: Value) {
        line["key"] = self.key.clone().into();
        self.tell(&line.to_string());
    }

    fn say_raw(&mut self, line: &str) -> Value {
        self.tell(line);
        self.hear()
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.stream.get_mut(), "{line}").expect("the door is open");
    }

    pub(crate) fn hear(&mut self) -> Value {
        let mut answer = String::new();
        self.stream.read_line(&mut answer).expect("an answer");
        serde_json::from_str(&answer).expect("JSON")
    }

    /// Lets the attempt end.
    pub(crate) fn end(&self) {
        std::fs::write(&self.gate, "").expect("a file");
    }
}

fn wait_for_file(path: &Path) -> String {
    let mut text = None;
    eventually("the file comes", || {
        text = std::fs::read_to_string(path).ok();
        text.is_some()
    });
    text.unwrap_or_default()
}

pub(crate) fn status(said: &Value) -> u64 {
    assert_eq!(said["ok"], false, "{said}");
    said["error"]["status"].as_u64().expect("a status")
}

#[test]
fn an_attempt_saves_its_state_and_is_told_when_it_is_durable() {
    let (master, dir) = (Master::start(), dir());
    let _worker = Worker::start(&master, &path(&dir, "w"), &[]);
    let mut inside = Inside::begin(&master, &dir, 1);
    let said = inside.say(json!({"op": "checkpoint", "name": "step", "data": {"n": 1.5}}));
    assert_eq!(said, json!({"ok": true, "checkpoint": 1}));
    let said = inside.say(json!({"op": "checkpoint", "name": "raw", "data_base64": "AP8K"}));
    assert_eq!(said["checkpoint"], 2);
    assert_eq!(inside.say(json!({"op": "remember", "name": "k", "value": [1], "ttl_ms": 5}))["ok"], true);
    assert_eq!(inside.say(json!({"op": "forget", "name": "k", "run": true}))["ok"], true);
    assert_eq!(inside.say(json!({"op": "progress", "percent": 50, "message": "half"}))["ok"], true);
    let state = master.state();
    assert!(state.asks.iter().all(|ask| ask.key == key(1)));
    let AskBody::Checkpoint(first) = &state.asks[0].body else { panic!("{:?}", state.asks) };
    assert_eq!((first.json, &first.content), (true, &Content::Data(br#"{"n":1.5}"#.as_slice().into())));
    let AskBody::Checkpoint(second) = &state.asks[1].body else { panic!("{:?}", state.asks) };
    assert_eq!((second.json, &second.content), (false, &Content::Data([0, 255, 10].as_slice().into())));
    let (name, value) = ("k".into(), "[1]".into());
    assert_eq!(state.asks[2].body, AskBody::Remember { whose: Whose::Task, name, value, ttl_ms: Some(5) });
    assert_eq!(state.asks[3].body, AskBody::Forget { whose: Whose::Run, name: "k".into() });
    drop(state);
    master.wait_for("progress", |state| state.progress == [(50.0, "half".to_owned())]);
    inside.end();
    assert_eq!(master.wait_end(1).end, End::Completed);
    // Nobody has that key any more.
    assert_eq!(status(&inside.say(json!({"op": "checkpoint", "name": "late"}))), 409);
}

#[test]
fn what_is_not_answered_is_asked_again_on_the_next_socket() {
    let (master, dir) = (Master::start(), dir());
    let _worker = Worker::start(&master, &path(&dir, "w"), &[]);
    let mut inside = Inside::begin(&master, &dir, 1);
    master.set(|state| state.answer_asks = false);
    let line = json!({"op": "checkpoint", "name": "step", "key": inside.key}).to_string();
    inside.tell(&line);
    master.wait_for("the question", |state| state.asks.len() == 1);
    master.set(|state| state.answer_asks = true);
    master.disconnect();
    assert_eq!(inside.hear(), json!({"ok": true, "checkpoint": 1}));
    let state = master.state();
    assert_eq!((state.asks.len(), state.asks[0].no), (2, state.asks[1].no));
    drop(state);
    let problem = Problem::new(409, "stale", "the attempt with the fence 1 is not the current one");
    master.set(|state| state.refuse_asks = Some(problem));
    let said = inside.say(json!({"op": "checkpoint", "name": "step"}));
    assert!(
        status(&said) == 409 && said["error"]["detail"].as_str().is_some_and(|why| why.contains("fence 1"))
    );
    inside.end();
}

#[test]
fn bad_lines_are_refused_by_name() {
    let (master, dir) = (Master::start(), dir());
    let _worker = Worker::start(&master, &path(&dir, "w"), &[]);
    let mut inside = Inside::begin(&master, &dir, 1);
    let pointer = |said: &Value| said["error"]["errors"][0]["pointer"].as_str().map(str::to_owned);
    assert_eq!(status(&inside.say_raw("not JSON")), 400);
    assert_eq!(status(&inside.say_raw(r#"{"op":"checkpoint","key":"another"}"#)), 409);
    assert_eq!(pointer(&inside.say(json!({"op": "dance"}))).as_deref(), Some("/op"));
    assert_eq!(pointer(&inside.say(json!({"op": "checkpoint"}))).as_deref(), Some("/name"));
    assert_eq!(pointer(&inside.say(json!({"op": "remember", "name": "k"}))).as_deref(), Some("/value"));
    assert_eq!(pointer(&inside.say(json!({"op": "progress", "percent": 101}))).as_deref(), Some("/percent"));
    let both = json!({"op": "checkpoint", "name": "n", "data": 1, "data_base64": "AA=="});
    assert_eq!(pointer(&inside.say(both)).as_deref(), Some("/data_base64"));
    let broken = json!({"op": "checkpoint", "name": "n", "data_base64": "?"});
    assert_eq!(pointer(&inside.say(broken)).as_deref(), Some("/data_base64"));
    assert!(inside.say(json!({"op": "recall", "run": true}))["error"]["detail"].as_str().is_some());
    // More than a checkpoint may have: said before it is sent anywhere.
    let large = "x".repeat((16 << 20) + 1);
    assert_eq!(status(&inside.say(json!({"op": "checkpoint", "name": "n", "data": large}))), 413);
    // More than a frame holds.
    let large = "x".repeat(1 << 20);
    assert_eq!(status(&inside.say(json!({"op": "remember", "name": "n", "value": large}))), 413);
    assert!(master.state().asks.is_empty());
    inside.end();
    assert_eq!(master.wait_end(1).end, End::Completed);
}

#[test]
fn only_this_user_may_speak_and_long_paths_are_no_obstacle() {
    use std::os::unix::fs::PermissionsExt;
    let (master, dir) = (Master::start(), dir());
    let home = path(&dir, &"long".repeat(40));
    let _worker = Worker::start(&master, &home, &[]);
    let mut inside = Inside::begin(&master, &dir, 1);
    assert_eq!(inside.say(json!({"op": "checkpoint", "name": "step"}))["ok"], true);
    let address = inside.stream.get_ref().peer_addr().expect("an address");
    let socket = address.as_pathname().expect("a path");
    assert!(socket.as_os_str().len() <= 100);
    let mode = std::fs::metadata(socket).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    inside.end();
}

#[test]
fn a_file_is_saved_when_it_changes() {
    let (master, dir) = (Master::start(), dir());
    let _worker = Worker::start(&master, &path(&dir, "w"), &[]);
    let here = path(&dir, "here");
    std::fs::create_dir(&here).expect("a directory");
    std::fs::write(here.join("state.json"), "old").expect("a file");
    let mut spec = shell(
        "echo '{\"n\":1}' > state.json; while ! test -e go; do sleep 0.01; done; echo end > state.json",
    );
    spec.workdir = Some(here.display().to_string());
    spec.checkpoint_file = Some("state.json".to_owned());
    master.assign_one(1, spec);
    master.wait_for("the first", |state| state.asks.len() == 1);
    std::fs::write(here.join("go"), "").expect("a file");
    assert_eq!(master.wait_end(1).end, End::Completed);
    let state = master.state();
    let saved = |at: usize| match &state.asks[at].body {
        AskBody::Checkpoint(checkpoint) => {
            (checkpoint.name.to_string(), checkpoint.json, checkpoint.content.clone())
        }
        other => panic!("{other:?}"),
    };
    let data = |text: &str| Content::Data(text.as_bytes().into());
    assert_eq!(saved(0), ("state.json".into(), true, data("{\"n\":1}\n")));
    assert_eq!(saved(1), ("state.json".into(), false, data("end\n")), "the last change is saved at the end");
    assert_eq!(state.asks.len(), 2);
}

#[test]
fn an_attempt_begins_at_its_checkpoint_with_its_memory() {
    let (master, dir) = (Master::start(), dir());
    let _worker = Worker::start(&master, &path(&dir, "w"), &[]);
    master.serve("/api/v2/checkpoints/7/data", "half way\n", Some("own.txt"));
    master.serve("/api/v2/tasks/1/memory", r#"{"memory": {"k": 1}}"#, None);
    let here = path(&dir, "here");
    std::fs::create_dir(&here).expect("a directory");
    std::fs::write(here.join("own.txt"), "of another time").expect("a file");
    let mut spec = shell("cat $AGENTFLOW_CHECKPOINT $AGENTFLOW_MEMORY; echo; cat own.txt");
    spec.workdir = Some(here.display().to_string());
    spec.checkpoint_file = Some("own.txt".to_owned());
    let task = Assignment {
        key: key(1),
        spec: 0,
        rank: 0,
        run: None,
        checkpoint: Some(CheckpointId(7)),
        memory: true,
        locks: Vec::new(),
    };
    master.assign_as(&[spec.clone()], vec![task.clone()]);
    let end = master.wait_end(1);
    assert_eq!(end.outcome.result.as_deref(), Some("half way\n{\"k\": 1}\nhalf way\n"), "{end:?}");
    // Without what it is to begin at, it does not begin.
    let task = Assignment { key: key(2), checkpoint: Some(CheckpointId(8)), ..task };
    master.assign_as(&[spec], vec![task]);
    let end = master.wait_end(2);
    assert!(end.outcome.error.as_ref().is_some_and(|why| why.contains("checkpoint 8")), "{end:?}");
}
