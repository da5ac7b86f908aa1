//! Locks of an attempt: the file that names them, those that are taken while it runs, and its end with
//! the lease.

use std::path::Path;

use agentflow_core::checkpoint::AskBody;
use agentflow_core::lock::{LockMode, LockPath, LockUntil, PathLock, Repository};
use agentflow_core::spec::{Payload, Spec, SpecLocks};
use agentflow_protocol::Problem;
use agentflow_protocol::worker::{Ask, Assignment, End, ToWorker};
use serde_json::{Value, json};

use crate::common::{Master, dir, eventually, given, is_alive, key, path, pid_in, shell};
use crate::door::{Inside, status};
use crate::process::Worker;

/// Has a task lock paths for writing.
pub(crate) fn lock(spec: &mut Spec, repo: &str, paths: &[&str]) {
    let path = |text: &&str| PathLock { path: LockPath::new(text).expect("a path"), mode: LockMode::Write };
    spec.locks.push(SpecLocks {
        repo: Repository::new(repo).expect("a repository"),
        ignore_case: false,
        until: LockUntil::Attempt,
        paths: paths.iter().map(path).collect(),
    });
}

/// The file of an attempt, as JSON; null where there is none.
fn file(data: &Path, task: u64) -> Value {
    let path = data.join(format!("attempts/{task}.1.1.locks"));
    std::fs::read(path).map_or(Value::Null, |text| serde_json::from_slice(&text).expect("JSON"))
}

fn is_lock(ask: &Ask) -> bool {
    matches!(ask.body, AskBody::Lock(_))
}

/// Answers what was held back.
fn grant(master: &Master) {
    let answers = master.state().asks.iter().filter(|ask| is_lock(ask)).map(given).collect();
    master.say(&ToWorker::Answers { answers });
}

#[test]
fn the_file_says_what_an_attempt_holds() {
    let (master, dir) = (Master::start(), dir());
    let _worker = Worker::start(&master, dir.path(), &[]);
    let mut spec = shell("cat \"$AGENTFLOW_LOCKS\"");
    lock(&mut spec, "example.com/team/app", &["src/**", "README.md"]);
    lock(&mut spec, "default", &["x"]);
    let text = master.run(1, spec).outcome.result.expect("the file");
    let write = |path: &str| json!({"path": path, "mode": "write"});
    let expected = json!({"locks": [
        {"id": "01".repeat(16), "repo": "example.com/team/app", "fence": 1,
         "paths": [write("src/**"), write("README.md")]},
        {"id": "02".repeat(16), "repo": "default", "fence": 2, "paths": [write("x")]}]});
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), expected);
    let none = shell("test -n \"$AGENTFLOW_LOCKS\" && ! test -e \"$AGENTFLOW_LOCKS\"");
    assert_eq!(master.run(2, none).end, End::Completed);
    assert_eq!(std::fs::read_dir(path(&dir, "attempts")).expect("the directory").count(), 0);
}

#[test]
fn an_attempt_does_not_begin_without_its_locks() {
    let (master, dir) = (Master::start(), dir());
    let _worker = Worker::start(&master, dir.path(), &[]);
    let mut spec = shell("true");
    lock(&mut spec, "default", &["a"]);
    let (rank, run, checkpoint, memory, locks) = (0, None, None, false, Vec::new());
    master
        .assign_as(&[spec], vec![Assignment { key: key(1), spec: 0, rank, run, checkpoint, memory, locks }]);
    let end = master.wait_end(1);
    assert!(end.outcome.error.is_some_and(|error| error.contains("locks that the task names")));
    assert!(!master.state().has_started(1));
}

#[test]
fn locks_are_taken_and_given_back_while_it_runs() {
    let (master, dir) = (Master::start(), dir());
    let data = path(&dir, "w");
    let _worker = Worker::start(&master, &data, &[]);
    let mut inside = Inside::begin(&master, &dir, 1);
    let line = json!({"op": "lock", "repo": "git@example.com:team/app.git", "paths": ["b", {"path": "/a/", "mode": "read"}],
                      "wait_ms": 5, "reason": "because", "ignore_case": true});
    let said = inside.say(line);
    let id = said["lock"]["id"].as_str().expect("an id").to_owned();
    assert_eq!(said, json!({"ok": true, "lock": {"id": id, "repo": "example.com/team/app", "fence": 101}}));
    let paths = json!([{"path": "a/**", "mode": "read"}, {"path": "b", "mode": "write"}]);
    let entry = json!({"id": id, "repo": "example.com/team/app", "fence": 101, "paths": paths});
    assert_eq!(file(&data, 1), json!({"locks": [entry]}), "it is there before the answer");
    let second = inside.say(json!({"op": "lock", "paths": ["c"]}));
    assert_eq!(second["lock"]["repo"], "default");
    assert_eq!(file(&data, 1)["locks"].as_array().map(Vec::len), Some(2));
    assert_eq!(inside.say(json!({"op": "unlock", "lock": id})), json!({"ok": true}));
    assert_eq!(file(&data, 1)["locks"][0]["id"], second["lock"]["id"]);
    assert_eq!(inside.say(json!({"op": "unlock", "lock": second["lock"]["id"]})), json!({"ok": true}));
    assert_eq!(file(&data, 1), Value::Null);
    let state = master.state();
    let AskBody::Lock(ask) = &state.asks[0].body else { panic!("{:?}", state.asks) };
    assert_eq!((ask.wait_ms, &*ask.reason, ask.ignore_case, ask.paths.len()), (5, "because", true, 2));
    let AskBody::Unlock { lock } = &state.asks[2].body else { panic!("{:?}", state.asks) };
    assert_eq!(lock.to_string(), id);
    drop(state);
    inside.end();
    assert_eq!(master.wait_end(1).end, End::Completed);
}

#[test]
fn what_is_refused_changes_nothing() {
    let (master, dir) = (Master::start(), dir());
    let data = path(&dir, "w");
    let _worker = Worker::start(&master, &data, &[]);
    let mut inside = Inside::begin(&master, &dir, 1);
    let pointer = |said: &Value| said["error"]["errors"][0]["pointer"].as_str().map(str::to_owned);
    for (line, wrong) in [
        (json!({"op": "lock"}), "/paths"),
        (json!({"op": "lock", "paths": []}), "/paths"),
        (json!({"op": "lock", "paths": ["a", {"path": "../b"}]}), "/paths/1/path"),
        (json!({"op": "lock", "paths": ["a/**", "a/b"]}), "/paths/1"),
        (json!({"op": "lock", "paths": ["a"], "repo": "/srv/app"}), "/repo"),
        (json!({"op": "lock", "paths": ["a"], "reason": "x".repeat(501)}), "/reason"),
        (json!({"op": "lock", "paths": ["a"], "mode": "read"}), "/mode"),
        (json!({"op": "unlock"}), "/lock"),
        (json!({"op": "unlock", "lock": "7"}), "/lock"),
    ] {
        let said = inside.say(line);
        assert_eq!((status(&said), pointer(&said).as_deref()), (422, Some(wrong)), "{said}");
    }
    assert!(master.state().asks.is_empty());
    let problem = Problem::new(409, "locked", "task:9 holds 'a' for write (fence 3)");
    master.set(|state| state.refuse_asks = Some(problem));
    let said = inside.say(json!({"op": "lock", "paths": ["a"]}));
    assert!(
        status(&said) == 409 && said["error"]["detail"].as_str().is_some_and(|why| why.contains("task:9"))
    );
    assert_eq!(file(&data, 1), Value::Null);
    inside.end();
    assert_eq!(master.wait_end(1).end, End::Completed);
}

#[test]
fn who_waits_for_a_lock_holds_up_nobody() {
    let (master, dir) = (Master::start(), dir());
    master.set(|state| state.hold_locks = true);
    let _worker = Worker::start(&master, &path(&dir, "w"), &[]);
    let mut waiting = Inside::begin(&master, &dir, 1);
    waiting.ask(json!({"op": "lock", "paths": ["a"], "wait_ms": 600_000}));
    master.wait_for("the question", |state| state.asks.iter().any(is_lock));
    // Meanwhile the same attempt is served, over another socket of the worker too.
    let mut other = waiting.another();
    assert_eq!(other.say(json!({"op": "checkpoint", "name": "n"}))["checkpoint"], 2);
    master.disconnect();
    master.wait_for("it is asked again", |state| state.asks.iter().filter(|ask| is_lock(ask)).count() == 2);
    assert_eq!(other.say(json!({"op": "checkpoint", "name": "n"}))["checkpoint"], 3);
    grant(&master);
    let said = waiting.hear();
    assert_eq!(said["lock"]["fence"], 101, "{said}");
    waiting.end();
    assert_eq!(master.wait_end(1).end, End::Completed);
}

#[test]
fn a_lock_that_nobody_waits_for_any_more_is_given_back() {
    let (master, dir) = (Master::start(), dir());
    master.set(|state| state.hold_locks = true);
    let data = path(&dir, "w");
    let _worker = Worker::start(&master, &data, &[]);
    let inside = Inside::begin(&master, &dir, 1);
    let mut killed = inside.another();
    killed.ask(json!({"op": "lock", "paths": ["a"], "wait_ms": 600_000}));
    master.wait_for("the question", |state| state.asks.iter().any(is_lock));
    drop(killed);
    grant(&master);
    let lock = master.wait("it is given back", |state| {
        state.asks.iter().find_map(|ask| match ask.body {
            AskBody::Unlock { lock } => Some(lock),
            _ => None,
        })
    });
    assert_eq!(lock.0[8..], 1_u64.to_be_bytes());
    eventually("the file is gone", || file(&data, 1).is_null());
    inside.end();
    assert_eq!(master.wait_end(1).end, End::Completed);
}

#[test]
fn a_master_that_knows_no_locks_is_not_asked() {
    let (master, dir) = (Master::start(), dir());
    master.set(|state| state.version = 3);
    let _worker = Worker::start(&master, &path(&dir, "w"), &[]);
    let mut inside = Inside::begin(&master, &dir, 1);
    let said = inside.say(json!({"op": "lock", "paths": ["a"]}));
    assert!(
        status(&said) == 503 && said["error"]["detail"].as_str().is_some_and(|why| why.contains("too old"))
    );
    assert_eq!(inside.say(json!({"op": "checkpoint", "name": "n"}))["checkpoint"], 1);
    assert!(!master.state().asks.iter().any(is_lock));
    inside.end();
}

/// Has a task's process write its number into a file first.
fn telling(pid: &Path) -> impl FnOnce(&mut Spec) {
    let line = format!("echo $$ > {}; ", pid.display());
    move |spec| match &mut spec.payload {
        Payload::Shell { command } => command.insert_str(0, &line),
        other => panic!("no shell: {other:?}"),
    }
}

#[test]
fn at_the_end_of_the_lease_whatever_holds_a_lock_is_stopped() {
    let (master, dir) = (Master::start(), dir());
    let _worker = Worker::start(&master, &path(&dir, "w"), &["--slots", "3"]);
    let [declared, taken, back] = ["declared", "taken", "back"].map(|name| path(&dir, name));
    let mut spec = shell("exec sleep 60");
    telling(&declared)(&mut spec);
    lock(&mut spec, "default", &["a"]);
    master.assign_one(1, spec);
    let mut second = Inside::begin_with(&master, &dir, 2, telling(&taken));
    assert_eq!(second.say(json!({"op": "lock", "paths": ["b"]}))["ok"], true);
    let mut third = Inside::begin_with(&master, &dir, 3, telling(&back));
    let lock = third.say(json!({"op": "lock", "paths": ["c"]}))["lock"]["id"].clone();
    assert_eq!(third.say(json!({"op": "unlock", "lock": lock}))["ok"], true);
    let [declared, taken, back] = [declared, taken, back].map(|path| pid_in(&path));
    // The next lease is short, and is not renewed.
    master.set(|state| (state.lease_ms, state.ack_heartbeats) = (500, false));
    master.disconnect();
    eventually("both are stopped", || !is_alive(declared) && !is_alive(taken));
    assert!(is_alive(back), "what was given back is no reason");
    master.set(|state| (state.lease_ms, state.ack_heartbeats) = (10_000, true));
    assert_eq!(master.wait_end(1).end, End::Interrupted);
    assert_eq!(master.wait_end(2).end, End::Interrupted);
    third.end();
    assert_eq!(master.wait_end(3).end, End::Completed);
}
