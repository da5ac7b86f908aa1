//! How attempts are stopped: by the master, by their own limits, and with everything they started.

use std::time::{Duration, Instant};

use agentflow_core::spec::{OnDisconnect, RetryOn};
use agentflow_protocol::worker::{End, ToWorker};

use crate::common::{Master, dir, eventually, exec, is_alive, key, path, pid_in, shell};
use crate::process::Worker;

#[test]
fn cancel_sends_term_and_then_kill() {
    let (master, dir) = (Master::start(), dir());
    let _worker = Worker::start(&master, &path(&dir, "w"), &["--slots", "4"]);
    // One that says good-bye, one that does not want to hear, one that has not begun.
    let ready = path(&dir, "ready");
    let polite =
        format!("trap 'echo bye; exit 0' TERM; touch {}; while :; do sleep 0.01; done", ready.display());
    master.assign_one(1, shell(&polite));
    let deaf_pid = path(&dir, "deaf");
    let mut deaf =
        shell(&format!("trap '' TERM; echo $$ > {}; while :; do sleep 0.01; done", deaf_pid.display()));
    deaf.cancel_grace_ms = 200;
    master.assign_one(2, deaf);
    let deaf_pid = pid_in(&deaf_pid);
    eventually("the trap is set", || ready.exists());
    let begin = Instant::now();
    master.say(&ToWorker::Cancel { keys: vec![key(1), key(2)] });
    let finished = master.wait_end(1);
    assert_eq!(finished.end, End::Cancelled);
    assert_eq!(finished.outcome.result.as_deref(), Some("bye\n"));
    let finished = master.wait_end(2);
    assert_eq!((finished.end, finished.outcome.signal), (End::Cancelled, Some(9)));
    assert!(begin.elapsed() >= Duration::from_millis(200), "the grace was given");
    assert!(!is_alive(deaf_pid));
}

#[test]
fn what_has_not_begun_is_cancelled_returned_or_dropped_in_place() {
    let (master, dir) = (Master::start(), dir());
    let _worker = Worker::start(&master, &path(&dir, "w"), &["--slots", "1"]);
    let gate = path(&dir, "gate");
    let wait = shell(&format!("while ! test -e {}; do sleep 0.01; done", gate.display()));
    master.assign(
        &[wait, shell("echo ran")],
        [(key(1), 0), (key(2), 1), (key(3), 1), (key(4), 1), (key(5), 1)],
    );
    master.wait_for("the first begins", |state| state.has_started(1));
    master.say(&ToWorker::Cancel { keys: vec![key(2)] });
    master.say(&ToWorker::Return { keys: vec![key(1), key(3)] });
    master.say(&ToWorker::Drop { keys: vec![key(4)] });
    assert_eq!(master.wait_end(2).end, End::Cancelled);
    master.wait_for("the third comes back", |state| state.was_returned(3));
    std::fs::write(gate, "").expect("a file");
    assert_eq!(master.wait_end(1).end, End::Completed);
    assert_eq!(master.wait_end(5).outcome.result.as_deref(), Some("ran\n"));
    let state = master.state();
    assert!(!state.has_started(2) && !state.has_started(3) && !state.has_started(4));
    assert!(state.ends(3).is_empty() && state.ends(4).is_empty() && !state.was_returned(1));
}

#[test]
fn a_dropped_attempt_dies_at_once_and_is_not_reported() {
    let (master, dir) = (Master::start(), dir());
    let _worker = Worker::start(&master, &path(&dir, "w"), &["--slots", "1"]);
    let pid = path(&dir, "pid");
    master.assign_one(
        1,
        shell(&format!("trap '' TERM; echo $$ > {}; while :; do sleep 0.01; done", pid.display())),
    );
    let pid = pid_in(&pid);
    master.say(&ToWorker::Drop { keys: vec![key(1)] });
    eventually("the process dies", || !is_alive(pid));
    assert_eq!(master.run(2, shell("true")).end, End::Completed);
    assert!(master.state().ends(1).is_empty());
}

#[test]
fn the_rest_of_a_group_dies_with_its_leader() {
    let (master, dir) = (Master::start(), dir());
    let _worker = Worker::start(&master, &path(&dir, "w"), &[]);
    let pid = path(&dir, "pid");
    // The child holds the pipe open; without the kill the attempt would last a minute.
    let begin = Instant::now();
    let finished = master.run(1, shell(&format!("sleep 60 & echo $! > {}; echo done", pid.display())));
    assert_eq!(finished.end, End::Completed);
    assert_eq!(finished.outcome.result.as_deref(), Some("done\n"));
    assert!(begin.elapsed() < Duration::from_secs(30));
    let pid = pid_in(&pid);
    eventually("the child is dead", || !is_alive(pid));
}

#[test]
fn a_process_that_left_its_group_does_not_hold_the_attempt() {
    let (master, dir) = (Master::start(), dir());
    let _worker = Worker::start(&master, &path(&dir, "w"), &[]);
    let finished = master.run(1, shell("setsid sleep 60 & echo done"));
    assert_eq!(finished.end, End::Completed);
    assert_eq!(finished.outcome.result.as_deref(), Some("done\n"));
}

#[test]
fn limits_of_time_are_kept() {
    let (master, dir) = (Master::start(), dir());
    let _worker = Worker::start(&master, dir.path(), &["--slots", "2"]);
    let mut spec = exec(&["sleep", "60"]);
    spec.timeout_ms = Some(150);
    let finished = master.run(1, spec);
    assert_eq!(finished.end, End::Failed(RetryOn::Timeout));
    assert_eq!(finished.outcome.error.as_deref(), Some("stopped after timeout_ms 150"));
    assert_eq!(finished.outcome.signal, Some(15));
    let mut spec = shell("for i in 1 2 3 4 5 6; do echo $i; sleep 0.1; done; exec sleep 60");
    spec.idle_timeout_ms = Some(400);
    let finished = master.run(2, spec);
    assert_eq!(finished.end, End::Failed(RetryOn::Timeout));
    assert!(finished.outcome.error.expect("an error").contains("idle_timeout_ms 400"));
    assert_eq!(finished.outcome.result.as_deref(), Some("1\n2\n3\n4\n5\n6\n"));
}

#[test]
fn at_the_end_of_the_lease_only_what_says_so_is_stopped() {
    let (master, dir) = (Master::start(), dir());
    master.set(|state| state.lease_ms = 800);
    let _worker = Worker::start(&master, &path(&dir, "w"), &["--slots", "2"]);
    let (stop_pid, gate) = (path(&dir, "stop"), path(&dir, "gate"));
    let mut stops = shell(&format!("echo $$ > {}; exec sleep 60", stop_pid.display()));
    stops.on_disconnect = OnDisconnect::Stop;
    let keeps = shell(&format!("while ! test -e {}; do sleep 0.01; done; echo kept", gate.display()));
    master.assign(&[stops, keeps], [(key(1), 0), (key(2), 1)]);
    let stop_pid = pid_in(&stop_pid);
    master.wait_for("both begin", |state| state.has_started(1) && state.has_started(2));
    // Silent from here on: not even a heartbeat is answered.
    let before = master.state().hellos.len();
    master.set(|state| {
        state.ack_heartbeats = false;
        state.refuse = Some(("not now".to_owned(), true));
    });
    eventually("the one is stopped", || !is_alive(stop_pid));
    std::fs::write(gate, "").expect("a file");
    master.wait_for("the worker comes again", |state| state.hellos.len() > before);
    master.set(|state| {
        state.ack_heartbeats = true;
        state.refuse = None;
    });
    assert_eq!(master.wait_end(1).end, End::Interrupted);
    let finished = master.wait_end(2);
    assert_eq!(finished.end, End::Completed);
    assert_eq!(finished.outcome.result.as_deref(), Some("kept\n"));
}
