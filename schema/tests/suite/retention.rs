//! What is old goes, in turns, and nothing else does.

use agentflow_core::batch::{
    AttemptEnd, Batch, Counters, KeyHash, KeyRow, LogRow, SettledCounts, TaskState, TaskWrite,
};
use agentflow_core::event::{Happening, Subject};
use agentflow_core::ids::{Attempt, Seq, TaskId};
use agentflow_core::spec::Payload;
use agentflow_core::status::Status;
use agentflow_core::time::Wall;
use agentflow_schema::testing::TestDatabase;
use agentflow_schema::{Pruned, Readers, RemovedLog, TaskFilter};

use crate::build::{
    Store, attempt, batch, birth, changed, creation, event, new_task, noop, open, spec, state,
};
use crate::on_both;

on_both!(
    old_settled_tasks_go_with_what_is_theirs,
    specifications_go_with_their_last_task,
    tasks_about_to_change_stay,
    old_events_go,
    old_keys_go_when_their_tasks_are_settled,
    a_round_ends_and_begins_anew,
);

const DAY: i64 = 24 * 3_600 * 1_000_000;

/// Turns until the round is over.
pub(crate) fn round(store: &mut Store, now: Wall, before: Wall, limit: usize) -> Vec<Pruned> {
    let mut turns = Vec::new();
    loop {
        turns.push(store.writer.prune(store.epoch, now, before, limit).expect("a turn"));
        assert!(turns.len() < 1_000, "retention goes on for ever");
        if turns.last().is_some_and(|turn| !turn.more) {
            return turns;
        }
    }
}

pub(crate) fn settled(id: u64, status: Status, at: i64) -> TaskWrite {
    changed(id, TaskState { settled_at: Some(Wall(at)), ..state(status) })
}

pub(crate) fn remaining(database: &TestDatabase) -> Vec<u64> {
    let readers = Readers::open(database.target()).expect("the writer made it");
    let (ids, _) = readers.task_ids(&TaskFilter::default(), TaskId(0), 1_000).expect("a read");
    ids.into_iter().map(|id| id.0).collect()
}

fn old_settled_tasks_go_with_what_is_theirs(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=8)]);
    store.commit([Batch {
        tasks: vec![
            settled(1, Status::Completed, 100),
            settled(2, Status::Failed, 100),
            settled(3, Status::Cancelled, 100),
            settled(4, Status::Skipped, 100),
            settled(5, Status::Completed, 900),
            settled(7, Status::Completed, 100),
        ],
        attempts: vec![attempt(2, 1, AttemptEnd::Failed), attempt(6, 1, AttemptEnd::Lost)],
        counters: Counters {
            settled: SettledCounts { completed: 5, failed: 5, cancelled: 1, skipped: 0 },
            ..Counters::default()
        },
        logs: [2, 5, 7].map(|id| LogRow { task: TaskId(id), attempt: Attempt(1), bytes: 1, cut: 0 }).to_vec(),
        ..batch(2)
    }]);
    let turns = round(&mut store, Wall(1_000), Wall(500), 2);
    assert!(turns.len() >= 3, "{turns:?}");
    let mut counts = SettledCounts::default();
    for turn in &turns {
        counts.completed += turn.settled.completed;
        counts.failed += turn.settled.failed;
        counts.cancelled += turn.settled.cancelled;
        counts.skipped += turn.settled.skipped;
    }
    assert_eq!(counts, SettledCounts { completed: 2, failed: 1, cancelled: 1, skipped: 1 });
    let logs: Vec<RemovedLog> = turns.into_iter().flat_map(|turn| turn.logs).collect();
    assert_eq!(logs, [2, 7].map(|id| RemovedLog { task: TaskId(id), attempt: Attempt(1) }));
    assert_eq!(remaining(database), [5, 6, 8]);
    let readers = Readers::open(database.target()).expect("the writer made it");
    assert_eq!(readers.attempts(TaskId(2)).expect("a read"), []);
    assert_eq!(readers.attempts(TaskId(6)).expect("a read").len(), 1);
    assert_eq!(readers.log_index(TaskId(5)).expect("a read").len(), 1);
    // They are right even if no batch follows, and never below zero.
    let office = store.writer.take_office(Wall(2)).expect("an office");
    assert_eq!(office.counters.settled, SettledCounts { completed: 3, failed: 4, cancelled: 0, skipped: 0 });
}

fn specifications_go_with_their_last_task(database: &TestDatabase) {
    let mut store = open(database);
    let other = spec(Payload::Shell { command: "true".into() });
    store.commit([creation(1, 1..=2)]);
    store.commit([Batch {
        tasks: vec![new_task(
            3,
            &other,
            TaskState { settled_at: Some(Wall(100)), ..state(Status::Completed) },
        )],
        specs: vec![other.clone()],
        ..batch(2)
    }]);
    store.commit([Batch { tasks: vec![settled(1, Status::Completed, 100)], ..batch(3) }]);
    let turns = round(&mut store, Wall(1_000), Wall(500), 100);
    assert_eq!(turns.iter().map(|turn| turn.specs).sum::<usize>(), 1);
    assert_eq!(database.texts("SELECT body AS text FROM task_specs"), [&*noop().body]);
    // And comes back with the next one.
    store.commit([Batch {
        tasks: vec![new_task(4, &other, state(Status::Pending))],
        specs: vec![other],
        ..batch(4)
    }]);
    assert_eq!(store.writer.recover().expect("a recovery").specs.len(), 2);
}

fn tasks_about_to_change_stay(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=2)]);
    store.commit([Batch {
        tasks: vec![settled(1, Status::Failed, 100), settled(2, Status::Failed, 100)],
        ..batch(2)
    }]);
    assert_eq!(store.writer.load_tasks(&[TaskId(1)]).expect("a read").len(), 1);
    round(&mut store, Wall(1_000), Wall(500), 10);
    assert_eq!(remaining(database), [1]);
    store.commit([Batch { tasks: vec![changed(1, state(Status::Pending))], ..batch(3) }]);
    round(&mut store, Wall(1_000), Wall(500), 10);
    round(&mut store, Wall(1_000), Wall(500), 10);
    assert_eq!(remaining(database), [1]);
}

fn old_events_go(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=300)]);
    let later = event(1, 5_000, Happening::TaskStarted { attempt: Attempt(1) });
    store.commit([Batch { events: vec![later.clone()], ..batch(2) }]);
    let turns = round(&mut store, Wall(6_000), Wall(1_000), 10);
    assert_eq!(turns.iter().map(|turn| turn.segments).sum::<usize>(), 2);
    let readers = Readers::open(database.target()).expect("the writer made it");
    let head = readers.head().expect("a read");
    assert_eq!((head.oldest_seq, head.head_seq), (Seq(301), Seq(301)));
    let left = readers.events_of(&Subject::Task(TaskId(1)), Seq(0), 10).expect("a read");
    assert_eq!((left.len(), &left[0].event), (1, &later));
    assert_eq!(readers.events(Seq(0), 10).expect("a read"), left);
    round(&mut store, Wall(9_000), Wall(9_000), 10);
    assert_eq!(readers.head().expect("a read").oldest_seq, Seq(302));
    // Numbers go on all the same.
    assert_eq!(store.commit([Batch { events: vec![later], ..batch(3) }]).first_seq, Seq(302));
}

fn old_keys_go_when_their_tasks_are_settled(database: &TestDatabase) {
    let mut store = open(database);
    let key = |n: u8, first: u64, at: i64| KeyRow {
        key: KeyHash([n; 16]),
        body: KeyHash([0; 16]),
        first: TaskId(first),
        count: 2,
        at: Wall(at),
    };
    store.commit([Batch {
        keys: vec![key(1, 1, DAY), key(2, 3, DAY + 1), key(3, 5, 5 * DAY), key(4, 100, DAY + 2)],
        ..creation(1, 1..=6)
    }]);
    let done: Vec<_> =
        [1, 2, 3, 5, 6].into_iter().map(|id| settled(id, Status::Completed, 20 * DAY)).collect();
    store.commit([Batch { tasks: done, ..batch(2) }]);
    let turns = round(&mut store, Wall(9 * DAY), Wall(0), 10);
    assert_eq!(turns.iter().map(|turn| turn.keys).sum::<usize>(), 2);
    let readers = Readers::open(database.target()).expect("the writer made it");
    let kept = [1, 2, 3, 4].map(|n| readers.key(&KeyHash([n; 16])).expect("a read").is_some());
    assert_eq!(kept, [false, true, true, false]);
    store.commit([Batch { tasks: vec![settled(4, Status::Failed, 20 * DAY)], ..batch(3) }]);
    round(&mut store, Wall(9 * DAY), Wall(0), 10);
    assert!(readers.key(&KeyHash([2; 16])).expect("a read").is_none());
}

fn a_round_ends_and_begins_anew(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=50)]);
    let turns = round(&mut store, Wall(1_000), Wall(500), 3);
    assert!(turns.iter().all(|turn| turn.settled == SettledCounts::default()));
    // A task created later than the horizon ends the walk.
    let late = TaskWrite { birth: birth(&noop(), 700), ..new_task(51, &noop(), state(Status::Pending)) };
    store.commit([Batch { tasks: vec![late], ..batch(2) }]);
    let all = (1..=51).map(|id| settled(id, Status::Completed, 100)).collect();
    store.commit([Batch { tasks: all, ..batch(3) }]);
    round(&mut store, Wall(1_000), Wall(500), 3);
    assert_eq!(remaining(database), [51]);
}
