//! Every phase against every command, and properties of histories.

use proptest::prelude::*;

use super::*;
use crate::rejection::Rejection;
use crate::spec::RetryOn;

const W1: WorkerIndex = WorkerIndex(1);
const W2: WorkerIndex = WorkerIndex(2);

fn hold(started: bool) -> Hold {
    Hold {
        worker: W1,
        assigned_at: Wall(5),
        started_at: started.then_some(Wall(6)),
        cancelling: false,
        returning: false,
        has_row: false,
    }
}

/// A task on its second attempt and third assignment, in every phase that there is.
fn phases() -> Vec<(&'static str, Task)> {
    let orphan = || Some(Box::new(Orphan { hold: hold(true) }));
    let with = |phase| Task {
        phase,
        created_at: Wall(0),
        ready_at: Wall(10),
        pending_since: Wall(10),
        fence: Fence(3),
        attempt: Attempt(2),
        failures: 1,
        lost: 0,
        priority: 50,
    };
    vec![
        ("blocked", with(Phase::Blocked)),
        ("gate", with(Phase::Gate)),
        ("open", with(Phase::Open(Parts { started_at: Wall(6), cancelling: false }))),
        ("delayed", with(Phase::Delayed(None))),
        ("ready", with(Phase::Ready(None))),
        ("orphaned", with(Phase::Ready(orphan()))),
        ("handed", with(Phase::Assigned(hold(false)))),
        ("running", with(Phase::Assigned(hold(true)))),
        ("stopping", with(Phase::Assigned(Hold { cancelling: true, ..hold(true) }))),
        ("completed", with(Phase::Settled(Status::Completed))),
        ("failed", with(Phase::Settled(Status::Failed))),
        ("cancelled", with(Phase::Settled(Status::Cancelled))),
        ("skipped", with(Phase::Settled(Status::Skipped))),
    ]
}

fn finish(end: End, fence: u64) -> Command {
    Command::Finish {
        attempt: Attempt(2),
        fence: Fence(fence),
        end,
        started_at: Wall(6),
        error: Some("exit code 1".into()),
        again: false,
    }
}

fn again(end: End) -> Command {
    match finish(end, 3) {
        Command::Finish { attempt, fence, end, started_at, error, .. } => {
            Command::Finish { attempt, fence, end, started_at, error, again: true }
        }
        other => other,
    }
}

fn commands() -> Vec<(&'static str, Command)> {
    let (attempt, fence) = (Attempt(2), Fence(3));
    vec![
        ("assign", Command::Assign { worker: W2 }),
        ("start", Command::Start { attempt, fence, at: Wall(7) }),
        ("start-stale", Command::Start { attempt, fence: Fence(2), at: Wall(7) }),
        ("complete", finish(End::Completed, 3)),
        ("complete-stale", finish(End::Completed, 2)),
        ("fail", finish(End::Failed(RetryOn::Error), 3)),
        ("stopped", finish(End::Cancelled, 3)),
        ("interrupted", finish(End::Interrupted, 3)),
        ("ask-back", Command::AskBack),
        ("return", Command::Return { attempt, fence }),
        ("lose", Command::Lose { reason: "gone".into(), may_have_begun: false }),
        ("supersede", Command::Supersede { reason: "why".into() }),
        ("adopt", Command::Adopt { worker: W1, attempt, fence, started: true }),
        ("adopt-other", Command::Adopt { worker: W2, attempt, fence, started: true }),
        ("cancel", Command::Cancel),
        ("retry", Command::Retry),
        ("rewind", Command::Rewind),
        ("wake", Command::Wake),
        ("expire", Command::ExpireQueue { queue_timeout_ms: 0 }),
        ("prioritise", Command::Prioritise { priority: 75 }),
        ("again", again(End::Completed)),
        ("again-failed", again(End::Failed(RetryOn::Error))),
        ("block", Command::Block),
        ("unblock", Command::Unblock),
        ("skip", Command::Skip { cause: "why".into() }),
        ("ask", Command::Ask),
        ("approve", Command::Approve),
        ("reject", Command::Reject { reason: "why".into() }),
        ("open", Command::Open),
        ("conclude", Command::Conclude { error: None }),
        ("conclude-bad", Command::Conclude { error: Some("why".into()) }),
    ]
}

/// What a command makes of a phase, in one word.
fn word(task: &Task, command: Command, retry: &RetryPolicy) -> String {
    let now = Wall(20);
    match task.decide(command, Policy { retry, seed: 1 }, now) {
        Err(Rejection::Stale) => "stale".into(),
        Err(_) => "illegal".into(),
        Ok(None) => "-".into(),
        Ok(Some(event)) => {
            let mut after = task.clone();
            after.evolve(&event);
            match event {
                TaskEvent::Prioritised { .. } => "changed".into(),
                TaskEvent::AskedBack => "asked".into(),
                TaskEvent::Cancelling => "stopping".into(),
                _ => match after.phase {
                    Phase::Delayed(_) => "delayed".into(),
                    Phase::Ready(None) => "ready".into(),
                    Phase::Ready(Some(_)) => "orphaned".into(),
                    Phase::Assigned(hold) if hold.started_at.is_some() => "running".into(),
                    Phase::Assigned(_) => "handed".into(),
                    Phase::Blocked => "blocked".into(),
                    Phase::Gate => "gate".into(),
                    Phase::Open(_) => "open".into(),
                    Phase::Settled(status) => status.word().into(),
                },
            }
        }
    }
}

#[test]
fn every_phase_against_every_command() {
    // Rows: commands. Columns: blocked gate open delayed ready orphaned handed running stopping,
    // and the four settled ones, which all answer alike.
    let expected = "
        assign         illegal illegal illegal illegal handed    handed    illegal   illegal   illegal   illegal
        start          stale   stale   stale   stale   stale     stale     running   -         -         stale
        start-stale    stale   stale   stale   stale   stale     stale     stale     stale     stale     stale
        complete       stale   stale   stale   stale   stale     completed completed completed completed stale
        complete-stale stale   stale   stale   stale   stale     stale     stale     stale     stale     stale
        fail           stale   stale   stale   stale   stale     delayed   delayed   delayed   cancelled stale
        stopped        stale   stale   stale   stale   stale     ready     orphaned  orphaned  cancelled stale
        interrupted    stale   stale   stale   stale   stale     ready     orphaned  orphaned  cancelled stale
        ask-back       illegal illegal illegal illegal illegal   illegal   asked     illegal   illegal   illegal
        return         stale   stale   stale   stale   stale     stale     ready     ready     cancelled stale
        lose           illegal illegal illegal illegal illegal   illegal   orphaned  orphaned  cancelled illegal
        supersede      -       -       illegal -       -         ready     ready     ready     illegal   illegal
        adopt          stale   stale   stale   stale   stale     running   -         -         -         stale
        adopt-other    stale   stale   stale   stale   stale     stale     stale     stale     stale     stale
        cancel         cancelled cancelled stopping cancelled cancelled cancelled stopping stopping -    illegal
        retry          illegal illegal illegal illegal illegal   illegal   illegal   illegal   illegal   ready
        rewind         illegal illegal illegal illegal illegal   illegal   illegal   illegal   illegal   blocked
        wake           -       -       -       ready   -         -         -         -         -         -
        expire         -       -       -       -       failed    failed    -         -         -         -
        prioritise     changed changed illegal changed changed   changed   illegal   illegal   illegal   illegal
        again          stale   stale   stale   stale   stale     ready     ready     ready     completed stale
        again-failed   stale   stale   stale   stale   stale     delayed   delayed   delayed   cancelled stale
        block          -       blocked illegal blocked blocked   blocked   illegal   illegal   illegal   illegal
        unblock        ready   -       -       -       -         -         -         -         -         -
        skip           skipped skipped illegal skipped skipped   skipped   illegal   illegal   illegal   illegal
        ask            gate    illegal illegal illegal illegal   illegal   illegal   illegal   illegal   illegal
        approve        illegal blocked  illegal illegal illegal   illegal   illegal   illegal   illegal   illegal
        reject         illegal failed  illegal illegal illegal   illegal   illegal   illegal   illegal   illegal
        open           open    illegal illegal illegal open      open      illegal   illegal   illegal   illegal
        conclude       illegal illegal completed illegal illegal illegal   illegal   illegal   illegal   illegal
        conclude-bad   illegal illegal failed  illegal illegal   illegal   illegal   illegal   illegal   illegal";
    let retry = RetryPolicy { max: 5, ..RetryPolicy::default() };
    let mut lines = expected.lines().filter(|line| !line.trim().is_empty());
    for (name, command) in commands() {
        let line: Vec<&str> = lines.next().expect("a line for each command").split_whitespace().collect();
        assert_eq!(line[0], name);
        for (column, (phase, task)) in phases().into_iter().enumerate() {
            let want = line[1 + column.min(9)];
            assert_eq!(word(&task, command.clone(), &retry), want, "{name} on {phase}");
        }
    }
    assert!(lines.next().is_none());
}

#[test]
fn retries_end_and_wait_longer_each_time() {
    let retry = RetryPolicy { max: 2, backoff_ms: 100, factor: 3.0, jitter: 0.0, ..RetryPolicy::default() };
    let policy = Policy { retry: &retry, seed: 7 };
    let mut task = Task::new(Wall(0), None, 50);
    let mut waits = Vec::new();
    loop {
        let now = task.ready_at;
        let mut step = |command| {
            if let Some(event) = task.decide(command, policy, now).expect("legal") {
                task.evolve(&event);
                if let TaskEvent::Retrying { delay_ms, .. } = event {
                    waits.push(delay_ms);
                }
            }
        };
        step(Command::Wake);
        step(Command::Assign { worker: W1 });
        let (attempt, fence) = (task.attempt, task.fence);
        let end = End::Failed(RetryOn::Error);
        let failed = Command::Finish { attempt, fence, end, started_at: now, error: None, again: false };
        if let Some(event) = task.decide(failed, policy, now).expect("legal") {
            task.evolve(&event);
            if let TaskEvent::Retrying { delay_ms, .. } = event {
                waits.push(delay_ms);
            }
        }
        if task.status().is_settled() {
            break;
        }
    }
    assert_eq!(waits, [100, 300]);
    assert_eq!((task.status(), task.attempt), (Status::Failed, Attempt(3)));
}

#[test]
fn jitter_only_shortens() {
    let retry = RetryPolicy { max: 1, backoff_ms: 1_000, factor: 1.0, jitter: 0.5, ..RetryPolicy::default() };
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let mut task = Task::new(Wall(0), None, 50);
        task.evolve(&TaskEvent::Assigned { worker: W1, at: Wall(0) });
        let command = Command::Finish {
            attempt: Attempt(1),
            fence: Fence(1),
            end: End::Failed(RetryOn::Error),
            started_at: Wall(0),
            error: None,
            again: false,
        };
        let event = task.decide(command, Policy { retry: &retry, seed }, Wall(0)).expect("legal");
        let Some(TaskEvent::Retrying { delay_ms, .. }) = event else { panic!("{event:?}") };
        assert!((500..=1_000).contains(&delay_ms), "{delay_ms}");
        seen.insert(delay_ms);
    }
    assert!(seen.len() > 50, "jitter does not vary");
}

#[test]
fn a_task_that_keeps_losing_its_worker_fails_at_last() {
    let retry = RetryPolicy { max_lost: 2, ..RetryPolicy::default() };
    let policy = Policy { retry: &retry, seed: 0 };
    let mut task = Task::new(Wall(0), None, 50);
    for round in 0..3 {
        for command in [
            Command::Assign { worker: W1 },
            Command::Start { attempt: Attempt(round + 1), fence: Fence(u64::from(round) + 1), at: Wall(1) },
            Command::Lose { reason: "gone".into(), may_have_begun: false },
        ] {
            let event = task.decide(command, policy, Wall(1)).expect("legal").expect("an event");
            task.evolve(&event);
        }
    }
    assert_eq!(task.status(), Status::Failed);
}

fn any_command() -> impl Strategy<Value = Command> {
    let numbers = (0u32..5, 0u64..8);
    let end = prop_oneof![
        Just(End::Completed),
        Just(End::Failed(RetryOn::Error)),
        Just(End::Cancelled),
        Just(End::Interrupted)
    ];
    prop_oneof![
        (0u32..3).prop_map(|w| Command::Assign { worker: WorkerIndex(w) }),
        numbers.clone().prop_map(|(a, f)| Command::Start {
            attempt: Attempt(a),
            fence: Fence(f),
            at: Wall(1)
        }),
        (numbers.clone(), end).prop_map(|((a, f), end)| Command::Finish {
            attempt: Attempt(a),
            fence: Fence(f),
            end,
            started_at: Wall(1),
            error: None,
            again: a == 3,
        }),
        Just(Command::AskBack),
        numbers.clone().prop_map(|(a, f)| Command::Return { attempt: Attempt(a), fence: Fence(f) }),
        Just(Command::Lose { reason: "gone".into(), may_have_begun: false }),
        (0u32..3, numbers).prop_map(|(w, (a, f))| Command::Adopt {
            worker: WorkerIndex(w),
            attempt: Attempt(a),
            fence: Fence(f),
            started: false
        }),
        Just(Command::Cancel),
        Just(Command::Wake),
        Just(Command::ExpireQueue { queue_timeout_ms: 0 }),
        (0u8..=100).prop_map(|priority| Command::Prioritise { priority }),
        Just(Command::Block),
        Just(Command::Unblock),
        Just(Command::Skip { cause: "why".into() }),
        Just(Command::Open),
        Just(Command::Conclude { error: None }),
    ]
}

proptest! {
    #[test]
    fn histories_keep_their_promises(commands in prop::collection::vec(any_command(), 1..200)) {
        let retry = RetryPolicy { max: 3, backoff_ms: 0, ..RetryPolicy::default() };
        let policy = Policy { retry: &retry, seed: 3 };
        let mut task = Task::new(Wall(0), None, 50);
        for command in commands {
            let before = task.clone();
            let report = match &command {
                Command::Finish { attempt, fence, .. } => Some((*attempt, *fence)),
                _ => None,
            };
            let Ok(Some(event)) = task.decide(command, policy, Wall(9)) else { continue };
            task.evolve(&event);
            // Fences never fall, and rise with each assignment.
            prop_assert!(task.fence >= before.fence);
            if matches!(event, TaskEvent::Assigned { .. }) {
                prop_assert!(task.fence > before.fence);
            }
            // A report that was accepted carried the numbers of the latest assignment.
            if let Some(numbers) = report {
                prop_assert_eq!(numbers, (before.attempt, before.fence));
            }
            // Settled states absorb everything but `retry`, which is not among the commands.
            prop_assert!(!before.status().is_settled());
            prop_assert!(task.failures <= retry.max);
            prop_assert!(task.lost <= retry.max_lost);
        }
    }
}
