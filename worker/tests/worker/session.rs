//! The conversation: reconnects, redirects, refusals, versions, and output under way.

use std::time::{Duration, Instant};

use agentflow_core::limits::{LOG_WINDOW_BYTES, RESULT_BYTES};
use agentflow_core::spec::{Payload, Spec};
use agentflow_protocol::worker::{End, ReportBody};

use serde_json::json;

use crate::common::{Master, dir, eventually, is_alive, key, path, pid_in, shell};
use crate::door::Inside;
use crate::process::Worker;

#[test]
fn after_a_reconnect_attempts_run_on_and_reports_come_again() {
    let (master, dir) = (Master::start(), dir());
    let _worker = Worker::start(&master, &path(&dir, "w"), &["--slots", "2"]);
    let gate = path(&dir, "gate");
    let wait =
        shell(&format!("echo begun; while ! test -e {}; do sleep 0.01; done; echo over", gate.display()));
    master.assign_one(1, wait);
    master.wait_for("it begins", |state| state.has_started(1) && state.log(1) == "begun\n");
    // Nothing is acknowledged any more, neither reports nor output.
    master.set(|state| (state.ack_reports, state.ack_logs) = (false, false));
    master.assign(&[Spec::new(Payload::Noop)], [(key(2), 0)]);
    let first = master.wait("a report", |state| state.reports.iter().find(|r| r.key == key(2)).cloned());
    master.disconnect();
    let hello = master.wait_hello(2);
    let held = |task| hello.running.iter().find(|held| held.key == key(task));
    assert!(held(1).is_some_and(|held| held.started));
    assert!(held(2).is_some(), "what is over and not acknowledged is named too");
    let again = |state: &crate::common::State| state.reports.iter().filter(|r| r.key == key(2)).count() >= 2;
    master.wait_for("the report comes again", again);
    assert!(master.state().reports.iter().filter(|r| r.key == key(2)).all(|r| r.no == first.no));
    std::fs::write(gate, "").expect("a file");
    master.wait_for("more output", |state| state.log(1) == "begun\nover\n");
    assert!(master.state().ends(1).is_empty(), "the end waits for the output");
    master.set(|state| (state.ack_reports, state.ack_logs) = (true, true));
    master.disconnect();
    let finished = master.wait_end(1);
    assert_eq!((finished.end, finished.log_bytes), (End::Completed, 11));
    let state = master.state();
    let starts = state.reports.iter().filter(|report| matches!(report.body, ReportBody::Started { .. }));
    assert_eq!(starts.count(), 1, "it was not begun again");
    assert_eq!(state.hellos[0].boot, state.hellos[2].boot);
}

#[test]
fn what_the_master_does_not_keep_is_killed_silently() {
    let (master, dir) = (Master::start(), dir());
    let _worker = Worker::start(&master, &path(&dir, "w"), &["--slots", "1"]);
    let pid = path(&dir, "pid");
    master.assign_one(1, shell(&format!("echo $$ > {}; exec sleep 60", pid.display())));
    let pid = pid_in(&pid);
    master.set(|state| state.keep = false);
    master.disconnect();
    master.wait_hello(2);
    eventually("it dies", || !is_alive(pid));
    assert_eq!(master.run(2, shell("true")).end, End::Completed);
    assert!(master.state().ends(1).is_empty());
}

#[test]
fn a_standby_points_to_the_leader_and_a_dead_master_is_passed_over() {
    let (standby, leader, dir) = (Master::start(), Master::start(), dir());
    let to = format!("{}/api/v2/workers/connect", leader.url());
    standby.set(|state| state.redirect = Some(to));
    let url = format!("http://127.0.0.1:1,{}", standby.url());
    let _worker = Worker::start_at(&url, dir.path(), &[]);
    assert_eq!(leader.run(1, shell("echo hi")).outcome.result.as_deref(), Some("hi\n"));
    assert!(standby.state().hellos.is_empty());
}

#[test]
fn a_refusal_for_good_ends_the_worker() {
    let (master, dir) = (Master::start(), dir());
    master.set(|state| state.refuse = Some(("go away".to_owned(), false)));
    let mut worker = Worker::start(&master, dir.path(), &[]);
    assert_eq!(worker.wait(), Some(1));
}

#[test]
fn an_older_master_is_not_obeyed() {
    let (master, dir) = (Master::start(), dir());
    master.set(|state| state.epoch = 5);
    let _worker = Worker::start(&master, dir.path(), &[]);
    assert_eq!(master.run(1, shell("true")).end, End::Completed);
    master.set(|state| state.epoch = 4);
    let closed = master.state().closed;
    master.assign_one(2, shell("true"));
    master.wait_for("the worker leaves", |state| state.closed > closed);
    let mut before = 0;
    master.set(|state| (state.epoch, before) = (6, state.hellos.len()));
    master.wait_hello(before + 1);
    assert_eq!(master.run(3, shell("true")).end, End::Completed);
    assert!(!master.state().has_started(2));
}

#[test]
fn a_silent_master_is_left() {
    let (master, dir) = (Master::start(), dir());
    master.set(|state| (state.ack_heartbeats, state.lease_ms) = (false, 500));
    let _worker = Worker::start(&master, dir.path(), &[]);
    master.wait_hello(2);
    assert!(master.state().closed >= 1);
}

#[test]
fn a_master_of_version_2_is_served() {
    let (master, dir) = (Master::start(), dir());
    master.set(|state| state.version = 2);
    let _worker = Worker::start(&master, &path(&dir, "w"), &["--slots", "1"]);
    assert_eq!(master.run(1, shell("echo one")).outcome.result.as_deref(), Some("one\n"));
    // It keeps no checkpoints, and is not asked to.
    let mut inside = Inside::begin(&master, &dir, 2);
    let said = inside.say(json!({"op": "checkpoint", "name": "a"}));
    assert!(said["error"]["detail"].as_str().is_some_and(|why| why.contains("too old")), "{said}");
    assert!(master.state().asks.is_empty());
}

#[test]
fn much_output_is_cut_in_the_middle_and_costs_no_memory() {
    let (master, dir) = (Master::start(), dir());
    let worker = Worker::start(&master, dir.path(), &["--slots", "2", "--log-cap-mb", "1"]);
    master.assign_one(1, shell("yes 0123456789abcde | head -c 100000000; echo; echo last"));
    // Meanwhile others are served.
    assert_eq!(master.run(2, shell("echo quick")).end, End::Completed);
    let mut most = 0;
    let finished = loop {
        most = most.max(worker.resident());
        if let Some(finished) = master.state().ends(1).pop() {
            break finished;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    assert!(most < 40 << 20, "{most} bytes");
    assert_eq!((finished.end, finished.log_bytes), (End::Completed, 100_000_006));
    assert_eq!(finished.log_cut, 100_000_006 - (1 << 20));
    let result = finished.outcome.result.expect("output");
    assert!(result.len() <= RESULT_BYTES && result.ends_with("\nlast\n"));
    let state = master.state();
    let pieces = &state.logs[&key(1).task];
    assert_eq!(pieces.values().map(Vec::len).sum::<usize>(), 1 << 20);
    let (mut end, mut gaps) = (0, Vec::new());
    for (offset, bytes) in pieces {
        if *offset != end {
            gaps.push((end, *offset));
        }
        end = offset + bytes.len() as u64;
    }
    assert_eq!(gaps, [(1 << 19, 100_000_006 - (1 << 19))]);
    assert!(state.log(1).ends_with("\nlast\n"));
}

#[test]
fn a_stalled_reader_never_blocks_the_process() {
    let (master, dir) = (Master::start(), dir());
    master.set(|state| state.ack_logs = false);
    let worker = Worker::start(&master, &path(&dir, "w"), &["--slots", "1"]);
    let done = path(&dir, "done");
    master.assign_one(1, shell(&format!("head -c 4000000 /dev/zero; touch {}", done.display())));
    let begin = Instant::now();
    eventually("the process ends", || done.exists());
    assert!(begin.elapsed() < Duration::from_secs(20));
    // Its slot is free, though its output is not yet sent.
    assert_eq!(master.run(2, Spec::new(Payload::Noop)).end, End::Completed);
    master.assign_one(3, shell("true"));
    assert_eq!(master.wait_end(3).end, End::Completed);
    let bytes = |state: &crate::common::State| {
        state.logs.get(&key(1).task).map_or(0, |log| log.values().map(Vec::len).sum::<usize>())
    };
    assert_eq!(bytes(&master.state()), LOG_WINDOW_BYTES);
    assert!(master.state().ends(1).is_empty());
    assert!(worker.resident() < 40 << 20);
    master.set(|state| state.ack_logs = true);
    master.disconnect();
    let finished = master.wait_end(1);
    assert_eq!((finished.log_bytes, finished.log_cut), (4_000_000, 0));
    assert_eq!(bytes(&master.state()), 4_000_000);
}
