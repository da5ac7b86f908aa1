//! Real programs, killed and started again: nothing that was acknowledged is lost, nothing is
//! recorded twice, nothing gets stuck.
//!
//! One test at a time: each of them keeps the machine busy, and some watch the clock.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agentflow_core::event::{Happening, Subject};
use agentflow_core::ids::{Attempt, Seq, TaskId};
use agentflow_core::status::Status;
use agentflow_schema::testing::TestDatabase;
use agentflow_tests::crash::{Plan, run};
use agentflow_tests::harness::{Failure, Random, Scene, WorkerOptions, is_alive, wait_for, wait_until};
use rustix::process::Signal;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(30);

static TURN: Mutex<()> = Mutex::new(());

fn my_turn() -> MutexGuard<'static, ()> {
    // A test that failed has dropped what it started.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn one_slot() -> WorkerOptions {
    WorkerOptions { slots: Some(1), prefetch: Some(0), ..WorkerOptions::default() }
}

/// Reads what a task writes into a file, once its line is whole.
fn line_in(path: &Path) -> Result<String, Failure> {
    wait_for(&format!("a line in {}", path.display()), PATIENCE, || {
        std::fs::read_to_string(path).ok()?.strip_suffix('\n').map(str::to_owned)
    })
}

#[test]
fn a_storm_on_sqlite_loses_nothing() -> Result<(), Failure> {
    let _turn = my_turn();
    let plan = Plan { seed: Random::fresh_seed(), duration: Duration::from_secs(25) };
    println!("{}", run(TestDatabase::sqlite(), plan)?);
    Ok(())
}

#[test]
fn a_storm_on_postgres_loses_nothing() -> Result<(), Failure> {
    let Some(database) = TestDatabase::postgres() else { return Ok(()) };
    let _turn = my_turn();
    let plan = Plan { seed: Random::fresh_seed(), duration: Duration::from_secs(10) };
    println!("{}", run(database, plan)?);
    Ok(())
}

/// Open sockets of workers and dashboards, 1,000 tasks waiting: SIGTERM ends the master within two
/// seconds, and the next one has all of them.
#[test]
fn a_master_ends_in_good_order_and_loses_nothing() -> Result<(), Failure> {
    let _turn = my_turn();
    let scene = Scene::new(TestDatabase::sqlite())?;
    let mut master = scene.start_master()?;
    let worker = scene.start_worker("w1", &WorkerOptions::default())?;
    scene.client().wait_online("w1", PATIENCE)?;
    let mut dashboards = (0..16).map(|_| open_dashboard(scene.port())).collect::<Result<Vec<_>, _>>()?;
    let waiting = scene.client().submit(&vec![json!({ "kind": "noop", "group": "nobody" }); 1_000])?;
    let running = scene.client().submit(&[json!({ "kind": "exec", "argv": ["sleep", "2"] })])?[0];
    wait_until("the task runs", PATIENCE, || {
        scene.client().task(running).is_ok_and(|task| task.status == Status::Running)
    })?;

    let told = Instant::now();
    master.signal(Signal::TERM)?;
    let status = master.wait(PATIENCE)?;
    let took = told.elapsed();
    assert!(status.success(), "{status}: {}", master.last_log());
    assert!(took < Duration::from_secs(2), "it took {took:?}");
    for dashboard in &mut dashboards {
        // Whatever it was sent, the stream ends.
        dashboard.read_to_end(&mut Vec::new())?;
    }

    let _master = scene.start_master()?;
    let stats = scene.client().stats()?;
    assert_eq!(stats.tasks.pending + stats.tasks.running, 1_001);
    assert_eq!(stats.tasks.completed, 0);
    let ids: Vec<u64> = scene.client().tasks()?.iter().map(|task| task.id).collect();
    assert!(waiting.iter().all(|id| ids.contains(id)));
    // The work of those who were at it is not lost either: same attempt, on the same worker.
    let task = scene.client().settled(running, PATIENCE)?;
    assert_eq!((task.status, task.attempt), (Status::Completed, 1));
    drop(worker);
    Ok(())
}

/// A WebSocket that has subscribed to events.
fn open_dashboard(port: u16) -> Result<TcpStream, Failure> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(
        b"GET /api/v2/events/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n",
    )?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    // One text frame, masked with zeros.
    let text = br#"{"subscribe":{"after":0,"credit":100000}}"#;
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len())?, 0, 0, 0, 0];
    frame.extend_from_slice(text);
    stream.write_all(&frame)?;
    Ok(stream)
}

#[test]
fn a_second_master_on_the_same_database_is_refused() -> Result<(), Failure> {
    let _turn = my_turn();
    let scene = Scene::new(TestDatabase::sqlite())?;
    let _master = scene.start_master()?;
    let mut second = scene.spawn_master(0)?;
    let status = second.wait(PATIENCE)?;
    assert_eq!(status.code(), Some(1));
    let said = second.last_log();
    assert!(said.contains("another master has this database"), "{said}");
    assert!(said.contains(&format!("http://127.0.0.1:{}", scene.port())), "it names the holder: {said}");
    scene.client().stats()?;
    Ok(())
}

/// The lease is a minute, the patience half of it: only the warden can be the reason that the task
/// moves. When it begins again, no process of its first attempt is alive.
#[test]
fn what_a_killed_worker_ran_moves_before_its_lease_ends() -> Result<(), Failure> {
    let _turn = my_turn();
    let scene =
        Scene::new(TestDatabase::sqlite())?.with_lease(Duration::from_secs(60), Duration::from_secs(1));
    let _master = scene.start_master()?;
    let mut first = scene.start_worker("w1", &one_slot())?;
    scene.client().wait_online("w1", PATIENCE)?;
    let file = |name: &str| scene.path(name).display().to_string();
    // A process, a child of it, and a child that has left the process group and its terminal. The
    // second attempt looks whether they live: a zombie has no command line.
    let command = format!(
        "if [ $AGENTFLOW_ATTEMPT = 1 ]; then \
           sleep 300 & setsid sleep 300 & echo $! > '{}'; echo $$ > '{}'; wait; \
         fi; \
         for pid in $(cat '{0}' '{1}'); do grep -qs . /proc/$pid/cmdline && echo alive; done; echo checked",
        file("child"),
        file("leader")
    );
    let task = scene.client().submit(&[json!({ "kind": "shell", "command": command })])?[0];
    let pids = [line_in(&scene.path("leader"))?.parse()?, line_in(&scene.path("child"))?.parse::<u32>()?];
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    let _second = scene.start_worker("w2", &one_slot())?;
    scene.client().wait_online("w2", PATIENCE)?;

    first.kill();
    let task = scene.client().settled(task, PATIENCE)?;
    assert_eq!((task.status, task.attempt, task.worker.as_deref()), (Status::Completed, 2, Some("w2")));
    assert_eq!(task.result.as_deref().map(str::trim), Some("checked"), "processes of the first attempt live");
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
    Ok(())
}

/// A worker that was stopped for longer than its lease wakes up. What it ran was given to another:
/// the result of what ended meanwhile is refused, and what still runs is stopped.
#[test]
fn what_a_worker_reports_too_late_changes_nothing() -> Result<(), Failure> {
    let _turn = my_turn();
    let lease = Duration::from_millis(1_500);
    let scene = Scene::new(TestDatabase::sqlite())?.with_lease(lease, Duration::from_millis(200));
    let _master = scene.start_master()?;
    let two = WorkerOptions { slots: Some(2), prefetch: Some(0), ..WorkerOptions::default() };
    let sleeper = scene.start_worker("w1", &two)?;
    scene.client().wait_online("w1", PATIENCE)?;
    let submit = |name: &str| -> Result<u64, Failure> {
        let path = |what: &str| scene.path(&format!("{name}-{what}")).display().to_string();
        let command = format!(
            "echo $$ > '{}'$AGENTFLOW_ATTEMPT; while [ ! -e '{}' ]; do sleep 0.02; done; echo $AGENTFLOW_ATTEMPT",
            path("pid"),
            path("go")
        );
        Ok(scene.client().submit(&[json!({ "kind": "shell", "command": command })])?[0])
    };
    let (early, late) = (submit("early")?, submit("late")?);
    let pid = |name: &str, attempt: u32| -> Result<u32, Failure> {
        Ok(line_in(&scene.path(&format!("{name}-pid{attempt}")))?.parse()?)
    };
    let (first_early, first_late) = (pid("early", 1)?, pid("late", 1)?);
    wait_until("both have begun, says the master", PATIENCE, || {
        scene.client().stats().is_ok_and(|stats| stats.tasks.running == 2)
    })?;

    sleeper.signal(Signal::STOP)?;
    let other = scene.start_worker("w2", &two)?;
    let (second_early, second_late) = (pid("early", 2)?, pid("late", 2)?);
    // The processes of the stopped worker were not stopped: one ends now, unseen.
    assert!(is_alive(first_late) && is_alive(second_late));
    std::fs::write(scene.path("early-go"), "")?;
    let settled = scene.client().settled(early, PATIENCE)?;
    assert_eq!(
        (settled.status, settled.attempt, settled.worker.as_deref()),
        (Status::Completed, 2, Some("w2"))
    );
    wait_until("the unseen one has ended", PATIENCE, || !is_alive(first_early) && !is_alive(second_early))?;

    sleeper.signal(Signal::CONT)?;
    scene.client().wait_online("w1", PATIENCE)?;
    wait_until("the superseded attempt is killed", PATIENCE, || !is_alive(first_late))?;
    assert!(is_alive(second_late));
    std::fs::write(scene.path("late-go"), "")?;
    let settled = scene.client().settled(late, PATIENCE)?;
    assert_eq!(
        (settled.status, settled.attempt, settled.worker.as_deref()),
        (Status::Completed, 2, Some("w2"))
    );
    wait_until("nobody holds anything", PATIENCE, || {
        scene.client().worker("w1").ok().flatten().is_some_and(|worker| worker.assigned == 0)
    })?;

    // A word from the worker after all that it had to say about them.
    let last = scene.client().submit(&vec![json!({ "kind": "noop" }); 20])?;
    for task in last {
        scene.client().settled(task, PATIENCE)?;
    }
    for (task, result) in [(early, "2"), (late, "2")] {
        assert_eq!(scene.client().task(task)?.result.as_deref().map(str::trim), Some(result));
        let events = scene.client().events(Seq(0))?;
        let ends: Vec<&Happening> = events
            .iter()
            .filter(|event| event.subject == Subject::Task(TaskId(task)))
            .map(|event| &event.happening)
            .filter(|happening| {
                matches!(happening, Happening::TaskCompleted { .. } | Happening::TaskFailed { .. })
            })
            .collect();
        assert_eq!(ends, [&Happening::TaskCompleted { attempt: Attempt(2) }]);
    }
    drop(other);
    Ok(())
}
