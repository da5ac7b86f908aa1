//! Birth and death of a worker: start, drain, kill, warden, successor.

use std::path::Path;
use std::time::{Duration, Instant};

use agentflow_core::spec::{Payload, Spec};
use agentflow_protocol::worker::{End, ToWorker};
use rustix::process::Signal;

use crate::common::{Master, dir, eventually, is_alive, key, path, pid_in, shell};
use crate::process::Worker;

#[test]
fn term_drains() {
    let (master, dir) = (Master::start(), dir());
    let mut worker = Worker::start(&master, &path(&dir, "w"), &["--slots", "1"]);
    let gate = path(&dir, "gate");
    let wait = shell(&format!("while ! test -e {}; do sleep 0.01; done", gate.display()));
    master.assign(&[wait, shell("true")], [(key(1), 0), (key(2), 1)]);
    master.wait_for("it begins", |state| state.has_started(1));
    worker.signal(Signal::TERM);
    master.wait_for("the worker drains", |state| state.draining && state.was_returned(2));
    master.assign_one(3, shell("true"));
    master.wait_for("nothing new is taken", |state| state.was_returned(3));
    std::fs::write(gate, "").expect("a file");
    assert_eq!(master.wait_end(1).end, End::Completed);
    assert_eq!(worker.wait(), Some(0));
    master.wait_for("a good-bye", |state| state.goodbye);
    assert!(master.state().dead.is_empty());
}

#[test]
fn a_second_term_stops_what_runs() {
    let (master, dir) = (Master::start(), dir());
    let mut worker = Worker::start(&master, &path(&dir, "w"), &[]);
    let pid = path(&dir, "pid");
    master.assign_one(1, shell(&format!("echo $$ > {}; exec sleep 60", pid.display())));
    let pid = pid_in(&pid);
    worker.signal(Signal::TERM);
    master.wait_for("the worker drains", |state| state.draining);
    worker.signal(Signal::TERM);
    assert_eq!(master.wait_end(1).end, End::Interrupted);
    assert_eq!(worker.wait(), Some(0));
    assert!(!is_alive(pid));
    master.wait_for("a good-bye", |state| state.goodbye);
}

#[test]
fn the_drain_timeout_stops_what_does_not_finish() {
    let (master, dir) = (Master::start(), dir());
    let mut worker = Worker::start(&master, dir.path(), &["--drain-timeout", "0"]);
    let mut deaf = shell("trap '' TERM; echo up; while :; do sleep 0.01; done");
    deaf.cancel_grace_ms = 100;
    master.assign_one(1, deaf);
    master.wait_for("the trap is set", |state| state.log(1) == "up\n");
    master.say(&ToWorker::Drain {});
    let finished = master.wait_end(1);
    assert_eq!((finished.end, finished.outcome.signal), (End::Interrupted, Some(9)));
    assert_eq!(worker.wait(), Some(0));
}

/// Starts something that survives its worker's death as well as it can.
fn stubborn(master: &Master, dir: &Path) -> [i32; 2] {
    let (group, session) = (dir.join("group"), dir.join("session"));
    master.assign_one(
        1,
        shell(&format!(
            "trap '' TERM HUP; setsid sh -c 'echo $$ > {}; exec sleep 60' & echo $$ > {}; exec sleep 60",
            session.display(),
            group.display(),
        )),
    );
    [pid_in(&group), pid_in(&session)]
}

#[test]
fn the_warden_kills_what_a_killed_worker_leaves_and_tells_the_master() {
    let (master, dir) = (Master::start(), dir());
    let token = path(&dir, "token");
    std::fs::write(&token, "af_secret").expect("a file");
    let flags = ["--token-file", token.to_str().expect("text")];
    let mut worker = Worker::start(&master, &path(&dir, "w"), &flags);
    let pids = stubborn(&master, dir.path());
    let boot = master.wait_hello(1).boot;
    worker.kill();
    for pid in pids {
        eventually("the process dies", || !is_alive(pid));
    }
    let dead = master.wait("the notice", |state| state.dead.first().cloned());
    assert!(dead.starts_with(&format!("w1 {{\"boot\":{}}}", boot.0)), "{dead}");
    assert!(dead.contains("Bearer af_secret"), "{dead}");
}

/// The wardens among a worker's children.
fn wardens(worker: &Worker) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", worker.pid())).expect("the worker");
    let children = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    let children = children.collect::<String>();
    let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    let is_warden = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.ends_with(b"\0warden\0")
    };
    pids.filter(is_warden).collect()
}

#[test]
fn a_dead_warden_is_replaced() {
    let (master, dir) = (Master::start(), dir());
    let mut worker = Worker::start(&master, &path(&dir, "w"), &["--slots", "2"]);
    let pids = stubborn(&master, dir.path());
    let first = wardens(&worker).pop().expect("a warden");
    let pid = rustix::process::Pid::from_raw(first).expect("a number");
    rustix::process::kill_process(pid, Signal::KILL).expect("the warden is there");
    eventually("there is another", || wardens(&worker).iter().any(|pid| *pid != first));
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    // A worker that takes a task is done with telling the new one what there is.
    assert_eq!(master.run(2, shell("true")).end, End::Completed);
    worker.kill();
    for pid in pids {
        eventually("the process dies", || !is_alive(pid));
    }
}

#[test]
fn a_program_may_hold_several_workers() {
    let (master, dir) = (Master::start(), dir());
    let start = |id: &str| {
        let mut config = agentflow_worker::Config::new(master.url(), id, dir.path().join(id));
        config.program = Some(env!("CARGO_BIN_EXE_agentflow-worker").into());
        agentflow_worker::start(config).expect("a worker")
    };
    let first = start("w1");
    master.wait_hello(1);
    assert_eq!(master.run(1, shell("echo one")).outcome.result.as_deref(), Some("one\n"));
    let second = start("w2");
    master.wait_hello(2);
    assert_eq!(master.run(2, shell("echo two")).outcome.result.as_deref(), Some("two\n"));
    second.drain();
    second.wait().expect("an orderly end");
    assert!(!first.is_finished());
    first.stop();
    first.wait().expect("an orderly end");
}

#[test]
fn a_successor_kills_what_the_warden_could_not() {
    let (master, dir) = (Master::start(), dir());
    let data = path(&dir, "w");
    let mut worker = Worker::start(&master, &data, &[]);
    let pids = stubborn(&master, dir.path());
    // The warden goes first, so that nobody is left to clean up.
    let warden = wardens(&worker).pop().expect("a warden");
    let warden_pid = rustix::process::Pid::from_raw(warden).expect("a number");
    // The worker sleeps meanwhile, or it would start another.
    worker.signal(Signal::STOP);
    rustix::process::kill_process(warden_pid, Signal::KILL).expect("the warden is there");
    worker.kill();
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    let first = master.wait_hello(1);
    let _successor = Worker::start(&master, &data, &[]);
    let second = master.wait_hello(2);
    assert!(pids.iter().all(|pid| !is_alive(*pid)), "dead before the hello");
    assert_ne!(first.boot, second.boot);
    assert!(second.running.is_empty());
}

#[test]
fn a_successor_sends_the_ends_that_were_not_acknowledged() {
    let (master, dir) = (Master::start(), dir());
    let data = path(&dir, "w");
    let mut worker = Worker::start(&master, &data, &[]);
    master.wait_hello(1);
    master.set(|state| state.ack_reports = false);
    assert_eq!(master.run(1, shell("exit 4")).outcome.exit_code, Some(4));
    let spool = data.join("spool.jsonl");
    eventually("it is spooled", || std::fs::metadata(&spool).is_ok_and(|file| file.len() > 0));
    worker.kill();
    master.set(|state| {
        state.reports.clear();
        state.ack_reports = true;
    });
    let _successor = Worker::start(&master, &data, &[]);
    let hello = master.wait_hello(2);
    assert_eq!(hello.running.iter().map(|held| held.key).collect::<Vec<_>>(), [key(1)]);
    assert_eq!(master.wait_end(1).outcome.exit_code, Some(4));
    assert_eq!(master.state().reports[0].no, 1);
    eventually("the spool is empty", || std::fs::metadata(&spool).is_ok_and(|file| file.len() == 0));
    assert_eq!(master.run(2, Spec::new(Payload::Noop)).end, End::Completed);
    assert_eq!(master.state().reports.last().map(|report| report.no), Some(2));
}

#[test]
fn two_workers_do_not_share_a_directory() {
    let (master, dir) = (Master::start(), dir());
    let _worker = Worker::start(&master, dir.path(), &[]);
    master.wait_hello(1);
    let mut second = Worker::start(&master, dir.path(), &[]);
    assert_eq!(second.wait(), Some(1));
    assert_eq!(master.state().hellos.len(), 1);
}

#[test]
fn an_idle_worker_is_small_and_starts_soon() {
    let (master, dir) = (Master::start(), dir());
    let begin = Instant::now();
    let worker = Worker::start(&master, dir.path(), &[]);
    master.wait_hello(1);
    let took = begin.elapsed();
    master.wait_for("it beats", |state| state.heartbeats >= 2);
    eprintln!("hello after {took:?}, {} KiB resident", worker.resident() >> 10);
    // An unoptimised build on a busy machine; the real bounds are 15 MB and 100 ms.
    assert!(worker.resident() < 30 << 20);
    assert!(took < Duration::from_secs(10));
}
