//! What is committed is read back, once, in order, and only by who is in office.

use std::sync::atomic::Ordering;

use agentflow_core::batch::{
    AttemptEnd, AttemptRow, Batch, Counters, KeyHash, KeyRow, LogRow, Outcome, SettledCounts, TaskState,
};
use agentflow_core::event::{Event, Happening, Subject};
use agentflow_core::ids::{Attempt, CheckpointId, DecisionNumber, Epoch, LockNumber, RunId, Seq, TaskId};
use agentflow_core::spec::Payload;
use agentflow_core::status::Status;
use agentflow_core::time::Wall;
use agentflow_schema::testing::TestDatabase;
use agentflow_schema::{Durability, Options, Readers, Writer};

use crate::build::{
    Store, attempt, batch, birth, changed, completed, created, creation, event, exit, gather, new_task, noop,
    open, open_relaxed, spec, state, with_outcome, worker,
};
use crate::on_both;

on_both!(
    a_life_is_written_and_read_back,
    changes_within_a_commit_become_one_row,
    sequence_numbers_have_no_hole,
    events_of_one_task_are_found,
    events_of_a_worker_are_found,
    a_long_history_loses_its_oldest_half,
    a_second_master_fences_the_first,
    recovery_finds_what_is_live,
    numbers_go_on_in_the_next_office,
    settled_tasks_can_be_loaded,
    an_attempt_found_again_has_one_row,
    idempotency_keys_are_kept,
    what_does_not_exist_cannot_be_changed,
    a_failed_commit_changes_nothing,
    relaxed_durability_is_accepted,
    statements_are_prepared_once,
    nul_in_output_is_replaced,
);

fn a_life_is_written_and_read_back(database: &TestDatabase) {
    let mut store = open(database);
    let spec = spec(Payload::Shell { command: "echo 'ä'".into() });
    store.commit([Batch {
        tasks: vec![new_task(1, &spec, state(Status::Pending))],
        specs: vec![spec.clone()],
        events: vec![created(1)],
        workers: vec![worker("w1")],
        ..batch(1)
    }]);
    store.commit([Batch { tasks: vec![changed(1, state(Status::Running))], ..batch(2) }]);
    let outcome = Outcome {
        exit_code: Some(0),
        signal: None,
        result: Some("done ✓".into()),
        outputs: Some(r#"{"a":1}"#.into()),
        error: None,
        left: None,
    };
    let log = LogRow { task: TaskId(1), attempt: Attempt(1), bytes: 100, cut: 7 };
    store.commit([Batch {
        tasks: vec![with_outcome(changed(1, state(Status::Completed)), outcome.clone())],
        attempts: vec![attempt(1, 1, AttemptEnd::Completed)],
        logs: vec![log.clone()],
        events: vec![completed(1)],
        ..batch(3)
    }]);

    let readers = Readers::open(database.target()).expect("the writer made it");
    let record = readers.task(TaskId(1)).expect("a read").expect("the task");
    assert_eq!(record.state, state(Status::Completed));
    assert_eq!(record.outcome, outcome);
    assert_eq!((record.title.as_str(), record.created_at), ("A title", Wall(5)));
    assert_eq!((record.spec, record.spec_body.as_str()), (spec.hash, &*spec.body));
    assert_eq!(readers.attempts(TaskId(1)).expect("a read"), [attempt(1, 1, AttemptEnd::Completed)]);
    assert_eq!(readers.log_index(TaskId(1)).expect("a read"), [log]);
    assert_eq!(readers.workers().expect("a read"), [worker("w1")]);
    assert_eq!(readers.worker("w1").expect("a read"), Some(worker("w1")));
    assert_eq!(readers.worker("w2").expect("a read"), None);
    assert_eq!(readers.task(TaskId(2)).expect("a read"), None);
    readers.ping().expect("it answers");
}

fn changes_within_a_commit_become_one_row(database: &TestDatabase) {
    let mut store = open(database);
    let spec = noop();
    let gathered = gather([
        Batch {
            tasks: vec![
                new_task(1, &spec, state(Status::Pending)),
                new_task(2, &spec, state(Status::Pending)),
            ],
            specs: vec![spec.clone()],
            events: vec![created(1), created(2)],
            workers: vec![worker("w1")],
            ..batch(1)
        },
        Batch {
            tasks: vec![changed(1, state(Status::Running))],
            workers: vec![agentflow_core::batch::WorkerRow { draining: true, ..worker("w1") }],
            specs: vec![spec.clone()],
            ..batch(2)
        },
        Batch {
            tasks: vec![with_outcome(changed(1, state(Status::Failed)), exit(3))],
            events: vec![completed(1)],
            ..batch(5)
        },
        // A later change that keeps the outcome must not lose it.
        Batch { tasks: vec![changed(1, TaskState { priority: 7, ..state(Status::Failed) })], ..batch(6) },
    ]);
    assert_eq!(gathered.rows(), 2 + 1 + 1 + 3);
    assert_eq!(gathered.decisions(), Some((DecisionNumber(1), DecisionNumber(6))));
    assert!(!gathered.is_lazy() && !gathered.is_empty() && gathered.bytes() > 300);
    let committed = store.writer.commit(store.epoch, &gathered).expect("a commit");
    assert_eq!(committed.decision, DecisionNumber(6));
    assert_eq!((committed.first_seq, committed.head_seq), (Seq(1), Seq(3)));
    let events: Vec<Event> =
        serde_json::from_str(&committed.segment.expect("there were events")).expect("a JSON array");
    assert_eq!(events, [created(1), created(2), completed(1)]);

    let readers = Readers::open(database.target()).expect("the writer made it");
    let first = readers.task(TaskId(1)).expect("a read").expect("the task");
    assert_eq!((first.state.status, first.state.priority), (Status::Failed, 7));
    assert_eq!(first.outcome, exit(3));
    assert!(readers.worker("w1").expect("a read").expect("the worker").draining);
    assert_eq!(database.texts("SELECT CAST(uses AS TEXT) AS text FROM task_specs"), ["2"]);
}

fn sequence_numbers_have_no_hole(database: &TestDatabase) {
    let mut store = open(database);
    // More than one segment, a commit without events, and one with a single one.
    assert_eq!(store.commit([creation(1, 1..=600)]).head_seq, Seq(600));
    let quiet = store.commit([Batch { tasks: vec![changed(1, state(Status::Running))], ..batch(2) }]);
    assert_eq!((quiet.head_seq, quiet.segment), (Seq(600), None));
    let last = store.commit([Batch { events: vec![completed(1)], ..batch(3) }]);
    assert_eq!((last.first_seq, last.head_seq), (Seq(601), Seq(601)));

    let readers = Readers::open(database.target()).expect("the writer made it");
    let head = readers.head().expect("a read");
    assert_eq!((head.head_seq, head.oldest_seq), (Seq(601), Seq(1)));
    let mut after = Seq(0);
    let mut seen = Vec::new();
    loop {
        let page = readers.events(after, 100).expect("a read");
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 100);
        after = last.seq;
        seen.extend(page);
    }
    assert!(seen.iter().zip(1..).all(|(stored, seq)| stored.seq == Seq(seq)));
    assert_eq!(seen.len(), 601);
    assert_eq!(seen[255].event, created(256));
    assert_eq!(seen[256].event, created(257));
    assert_eq!(readers.events(Seq(598), 10).expect("a read").len(), 3);
    assert_eq!(readers.events(Seq(601), 10).expect("a read"), []);
    assert_eq!(readers.events(Seq(u64::MAX), 10).expect("a read"), []);
    assert_eq!(readers.events(Seq(0), 0).expect("a read"), []);
}

fn events_of_one_task_are_found(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=600)]);
    let started = |id| event(id, 30, Happening::TaskStarted { attempt: Attempt(1) });
    store.commit([Batch {
        // The row of 500 is written, that of 5 is only spoken of.
        tasks: vec![changed(500, state(Status::Running))],
        events: vec![started(500), started(5)],
        ..batch(2)
    }]);
    store.commit([Batch { events: vec![completed(500)], ..batch(3) }]);
    let readers = Readers::open(database.target()).expect("the writer made it");
    let seqs = |id: u64, after: u64, limit: usize| -> Vec<u64> {
        let subject = Subject::Task(TaskId(id));
        let events = readers.events_of(&subject, Seq(after), limit).expect("a read");
        assert!(events.iter().all(|stored| stored.event.subject == subject));
        events.into_iter().map(|stored| stored.seq.0).collect()
    };
    assert_eq!(seqs(500, 0, 10), [500, 601, 603]);
    assert_eq!(seqs(500, 500, 10), [601, 603]);
    assert_eq!(seqs(500, 0, 2), [500, 601]);
    assert_eq!(seqs(500, 603, 10), [0_u64; 0]);
    assert_eq!(seqs(5, 0, 10), [5, 602]);
    assert_eq!(seqs(1, 0, 10), [1]);
    assert_eq!(seqs(601, 0, 10), [0_u64; 0]);
}

fn events_of_a_worker_are_found(database: &TestDatabase) {
    let mut store = open(database);
    let about =
        |name: &str, happening| Event { at: Wall(1), subject: Subject::Worker(name.into()), happening };
    for decision in 1..=40 {
        store.commit([Batch {
            events: vec![
                about("w1", Happening::WorkerOnline {}),
                about("w2", Happening::WorkerDraining {}),
                about("w1", Happening::WorkerDisconnected {}),
            ],
            ..batch(decision)
        }]);
    }
    let readers = Readers::open(database.target()).expect("the writer made it");
    let events = readers.events_of(&Subject::Worker("w2".into()), Seq(3), 100).expect("a read");
    assert_eq!(events.len(), 39);
    assert_eq!(events[0].seq, Seq(5));
    assert_eq!(readers.events_of(&Subject::Worker("w1".into()), Seq(0), 1_000).expect("a read").len(), 80);
    assert_eq!(readers.events_of(&Subject::Worker("w3".into()), Seq(0), 10).expect("a read"), []);
}

fn a_long_history_loses_its_oldest_half(database: &TestDatabase) {
    let mut store = open_relaxed(database);
    store.commit([creation(1, 1..=1)]);
    let mut decision = 1;
    for _ in 0..1_500 {
        decision += 1;
        store.commit([Batch {
            tasks: vec![changed(1, state(Status::Pending))],
            events: vec![event(1, 30, Happening::TaskReopened { attempt: Attempt(1) })],
            ..batch(decision)
        }]);
    }
    let lists = database.texts("SELECT segments AS text FROM tasks");
    assert!(lists[0].len() <= 4_096, "{} bytes", lists[0].len());
    let readers = Readers::open(database.target()).expect("the writer made it");
    let events = readers.events_of(&Subject::Task(TaskId(1)), Seq(0), 1_000).expect("a read");
    assert!(events.len() > 400, "{} events", events.len());
    assert_eq!(events.last().map(|stored| stored.seq), Some(Seq(1_501)));
    assert!(events.windows(2).all(|pair| pair[0].seq.next() == pair[1].seq));
}

fn a_second_master_fences_the_first(database: &TestDatabase) {
    let mut first = open(database);
    first.commit([creation(1, 1..=1)]);
    let mut second = open(database);
    assert!(second.epoch > first.epoch);
    let error = first.try_commit([creation(2, 2..=2)]).expect_err("it is out of office");
    assert!(error.is_fenced(), "{error:?}");
    let error = first.writer.prune(first.epoch, Wall(9), Wall(9), 10).expect_err("it is out of office");
    assert!(error.is_fenced(), "{error:?}");
    let committed = second.commit([creation(1, 2..=2)]);
    assert_eq!(committed.first_seq, Seq(2));
    let readers = Readers::open(database.target()).expect("the writer made it");
    assert_eq!(readers.head().expect("a read").head_seq, Seq(2));
    assert_eq!(readers.attempts(TaskId(1)).expect("a read"), []);
}

fn recovery_finds_what_is_live(database: &TestDatabase) {
    let mut store = open(database);
    let shell = spec(Payload::Shell { command: "true".into() });
    let used_up = spec(Payload::Shell { command: "false".into() });
    let assigned = TaskState { started_at: None, status: Status::Pending, ..state(Status::Running) };
    store.commit([creation(1, 1..=3)]);
    store.commit([Batch {
        tasks: vec![
            new_task(4, &shell, assigned.clone()),
            new_task(5, &used_up, state(Status::Completed)),
            new_task(6, &shell, TaskState { cancelling: true, ..state(Status::Running) }),
            new_task(7, &shell, state(Status::Blocked)),
            changed(2, state(Status::Cancelled)),
        ],
        specs: vec![shell.clone(), used_up],
        workers: vec![worker("w2"), worker("w1")],
        ..batch(2)
    }]);
    drop(store);
    let mut next = open(database);
    let recovered = next.writer.recover().expect("a recovery");
    let ids: Vec<u64> = recovered.tasks.iter().map(|task| task.id.0).collect();
    assert_eq!(ids, [1, 3, 4, 6, 7]);
    assert_eq!(recovered.tasks[2].state, assigned);
    assert_eq!(recovered.tasks[2].spec, shell.hash);
    assert_eq!(recovered.tasks[2].created_at, Wall(5));
    assert!(recovered.tasks[3].state.cancelling);
    let mut specs = vec![noop(), shell];
    specs.sort_by_key(|spec| spec.hash);
    let mut found = recovered.specs;
    found.sort_by_key(|spec| spec.hash);
    assert_eq!(found, specs);
    assert_eq!(recovered.workers, [worker("w1"), worker("w2")]);
}

fn numbers_go_on_in_the_next_office(database: &TestDatabase) {
    let mut store = open(database);
    let counters = Counters {
        last_task: TaskId(9),
        last_run: RunId(5),
        last_checkpoint: CheckpointId(7),
        last_lock: LockNumber(8),
        settled: SettledCounts { completed: 1, failed: 2, cancelled: 3, skipped: 4 },
    };
    store.commit([Batch { counters, ..creation(7, 1..=2) }]);
    let mut writer = Writer::open(database.target(), &Options::default()).expect("the same database");
    let first = writer.take_office(Wall(2)).expect("an office");
    assert_eq!((first.epoch, first.head_seq, first.counters), (Epoch(2), Seq(2), counters));
    assert_eq!(first.log_id.len(), 16);
    let second = writer.take_office(Wall(3)).expect("an office");
    assert_eq!((second.epoch, &second.log_id), (Epoch(3), &first.log_id));
    let readers = Readers::open(database.target()).expect("the writer made it");
    assert_eq!(readers.head().expect("a read").log_id, first.log_id);
}

fn settled_tasks_can_be_loaded(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=3)]);
    store.commit([Batch { tasks: vec![changed(2, state(Status::Failed))], ..batch(2) }]);
    let loaded = store.writer.load_tasks(&[TaskId(2), TaskId(99), TaskId(1), TaskId(2)]).expect("a read");
    let ids: Vec<_> = loaded.iter().map(|(row, body)| (row.id.0, row.state.status, &**body)).collect();
    assert_eq!(ids, [(1, Status::Pending, r#"{"kind":"noop"}"#), (2, Status::Failed, r#"{"kind":"noop"}"#)]);
    assert!(store.writer.load_tasks(&[]).expect("a read").is_empty());
}

fn an_attempt_found_again_has_one_row(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=1)]);
    store.commit([Batch { attempts: vec![attempt(1, 1, AttemptEnd::Lost)], ..batch(2) }]);
    store.commit([
        Batch { attempts: vec![attempt(1, 1, AttemptEnd::Failed)], ..batch(3) },
        Batch { attempts: vec![attempt(1, 2, AttemptEnd::Completed)], ..batch(4) },
    ]);
    let readers = Readers::open(database.target()).expect("the writer made it");
    let ends: Vec<_> = readers
        .attempts(TaskId(1))
        .expect("a read")
        .into_iter()
        .map(|row| (row.attempt.0, row.end))
        .collect();
    assert_eq!(ends, [(1, AttemptEnd::Failed), (2, AttemptEnd::Completed)]);
}

fn idempotency_keys_are_kept(database: &TestDatabase) {
    let mut store = open(database);
    let row =
        KeyRow { key: KeyHash([1; 16]), body: KeyHash([2; 16]), first: TaskId(1), count: 3, at: Wall(5) };
    store.commit([Batch { keys: vec![row.clone()], ..creation(1, 1..=3) }]);
    let readers = Readers::open(database.target()).expect("the writer made it");
    assert_eq!(readers.key(&KeyHash([1; 16])).expect("a read"), Some(row.clone()));
    assert_eq!(readers.key(&KeyHash([2; 16])).expect("a read"), None);
    let error =
        store.try_commit([Batch { keys: vec![row], ..creation(2, 4..=4) }]).expect_err("used already");
    assert!(error.is_conflict(), "{error:?}");
}

fn what_does_not_exist_cannot_be_changed(database: &TestDatabase) {
    let mut store = open(database);
    let missing = store.try_commit([Batch { tasks: vec![changed(1, state(Status::Running))], ..batch(1) }]);
    assert!(missing.expect_err("no such task").is_conflict());
    let unknown_spec = Batch { specs: vec![], ..creation(1, 1..=1) };
    assert!(store.try_commit([unknown_spec]).expect_err("no such specification").is_conflict());
    store.commit([creation(1, 1..=1)]);
    assert!(store.try_commit([creation(2, 1..=1)]).expect_err("born twice").is_conflict());
}

fn a_failed_commit_changes_nothing(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=1)]);
    let nowhere = TaskState { worker: None, ..state(Status::Running) };
    let wrong = Batch { tasks: vec![new_task(9, &noop(), nowhere)], ..creation(2, 2..=8) };
    assert!(store.try_commit([wrong]).expect_err("running nowhere").is_conflict());
    let committed = store.commit([creation(2, 2..=8)]);
    assert_eq!((committed.first_seq, committed.head_seq), (Seq(2), Seq(8)));
    assert_eq!(database.texts("SELECT CAST(count(*) AS TEXT) AS text FROM tasks"), ["8"]);
    assert_eq!(database.texts("SELECT CAST(uses AS TEXT) AS text FROM task_specs"), ["8"]);
}

fn relaxed_durability_is_accepted(database: &TestDatabase) {
    let options = Options { durability: Durability::Normal };
    let mut writer = Writer::open(database.target(), &options).expect("an empty database");
    let epoch = writer.take_office(Wall(1)).expect("nobody else").epoch;
    let settled = with_outcome(new_task(1, &noop(), state(Status::Completed)), exit(0));
    let lazy = Batch { tasks: vec![settled], specs: vec![noop()], lazy: true, ..batch(1) };
    let gathered = gather([lazy]);
    assert!(gathered.is_lazy());
    writer.commit(epoch, &gathered).expect("a commit");
    let readers = Readers::open(database.target()).expect("the writer made it");
    let record = readers.task(TaskId(1)).expect("a read").expect("the task");
    assert_eq!(record.outcome, exit(0));
    assert!(birth(&noop(), 5).is_some_and(|birth| birth.created_at == record.created_at));
}

fn statements_are_prepared_once(database: &TestDatabase) {
    let mut store = open(database);
    let prepared = store.writer.count_prepared();
    let of_every_kind = |store: &mut Store, decision: u64, id: u64| {
        let other = spec(Payload::Shell { command: format!("true {id}") });
        store.commit([creation(decision, id..=id)]);
        store.commit([Batch {
            tasks: vec![
                changed(id, state(Status::Running)),
                new_task(id + 1, &noop(), state(Status::Pending)),
                new_task(id + 2, &other, state(Status::Pending)),
            ],
            specs: vec![other],
            attempts: vec![attempt(id, 1, AttemptEnd::Lost)],
            logs: vec![LogRow { task: TaskId(id), attempt: Attempt(1), bytes: 1, cut: 2 }],
            workers: vec![worker("w1")],
            keys: vec![KeyRow {
                key: KeyHash([u8::try_from(id).expect("small"); 16]),
                body: KeyHash([0; 16]),
                first: TaskId(id),
                count: 1,
                at: Wall(1),
            }],
            events: vec![
                created(id + 2),
                Event {
                    at: Wall(1),
                    subject: Subject::Worker("w1".into()),
                    happening: Happening::WorkerOnline {},
                },
            ],
            ..batch(decision + 1)
        }]);
        store.commit([Batch {
            tasks: vec![with_outcome(changed(id, state(Status::Completed)), exit(0))],
            events: vec![completed(id + 1)],
            ..batch(decision + 2)
        }]);
    };
    of_every_kind(&mut store, 1, 1);
    // The leadership and twelve kinds of rows.
    assert_eq!(prepared.load(Ordering::Relaxed), 13);
    of_every_kind(&mut store, 4, 4);
    assert_eq!(prepared.load(Ordering::Relaxed), 13);
}

fn nul_in_output_is_replaced(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=1)]);
    let outcome = Outcome { result: Some("a\0b".into()), error: Some("\0".into()), ..Outcome::default() };
    let row = AttemptRow { outcome: outcome.clone(), ..attempt(1, 1, AttemptEnd::Failed) };
    store.commit([Batch {
        tasks: vec![with_outcome(changed(1, state(Status::Failed)), outcome)],
        attempts: vec![row],
        ..batch(2)
    }]);
    let readers = Readers::open(database.target()).expect("the writer made it");
    let expected =
        Outcome { result: Some("a\u{FFFD}b".into()), error: Some("\u{FFFD}".into()), ..Outcome::default() };
    assert_eq!(readers.task(TaskId(1)).expect("a read").expect("the task").outcome, expected);
    assert_eq!(readers.attempts(TaskId(1)).expect("a read")[0].outcome, expected);
}
