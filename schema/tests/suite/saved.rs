//! What outlives an attempt: checkpoints, where the next one begins, and what is remembered.

use std::sync::atomic::Ordering;

use agentflow_core::batch::{
    Batch, CheckpointRow, ChoiceRow, Counters, MemoryRow, RunState, SavedTask, SavedWrites,
};
use agentflow_core::blob::NewBlob;
use agentflow_core::checkpoint::{Choice, Content, Files, KeptCheckpoint};
use agentflow_core::ids::{Attempt, CheckpointId, Fence, RunId, TaskId};
use agentflow_core::memory::{Entry, Memory, Owner};
use agentflow_core::run::RunStatus;
use agentflow_core::status::Status;
use agentflow_core::time::Wall;
use agentflow_schema::testing::TestDatabase;
use agentflow_schema::{CheckpointRecord, Readers};

use crate::blobs::blobs;
use crate::build::{
    Store, batch, changed, changed_run, creation, gather, open, run_creation, run_state, state,
};
use crate::on_both;
use crate::retention::{remaining, round, settled};
use crate::versions::upgrade;

on_both!(
    checkpoints_are_read_back,
    a_checkpoint_goes,
    what_comes_and_goes_within_a_commit_leaves_nothing,
    checkpoints_need_their_task_and_a_number_of_their_own,
    the_last_word_about_a_choice_counts,
    the_last_word_about_a_memory_counts,
    what_is_live_is_recovered,
    what_has_ended_can_be_loaded,
    numbers_of_checkpoints_go_on,
    all_goes_with_its_task,
    what_a_run_remembers_goes_with_it,
    a_blob_is_named_for_as_long_as_its_checkpoint,
    statements_about_it_are_prepared_once,
);

const TASK: Owner = Owner::Task(TaskId(1));
const RUN: Owner = Owner::Run(RunId(1));

fn readers(database: &TestDatabase) -> Readers {
    Readers::open(database.target()).expect("the writer made it")
}

fn saving(decision: u64, saved: SavedWrites) -> Batch {
    Batch { saved, ..batch(decision) }
}

fn row(id: u64, task: u64) -> CheckpointRow {
    CheckpointRow {
        id: CheckpointId(id),
        task: TaskId(task),
        attempt: Attempt(1),
        fence: Fence(2),
        number: 3,
        name: "step".into(),
        json: true,
        content: Content::Data(b"{\"n\": 1.50}".as_slice().into()),
        files: None,
        memory: None,
        at: Wall(7),
    }
}

fn checkpoints(rows: impl IntoIterator<Item = CheckpointRow>) -> SavedWrites {
    SavedWrites { checkpoints: rows.into_iter().collect(), ..SavedWrites::default() }
}

fn removed(ids: &[u64]) -> SavedWrites {
    SavedWrites { removed: ids.iter().copied().map(CheckpointId).collect(), ..SavedWrites::default() }
}

fn choices(rows: impl IntoIterator<Item = (u64, Option<Choice>)>) -> SavedWrites {
    let choices = rows.into_iter().map(|(task, choice)| ChoiceRow { task: TaskId(task), choice });
    SavedWrites { choices: choices.collect(), ..SavedWrites::default() }
}

/// A value and when it expires; nothing when it is forgotten.
type Value<'a> = Option<(&'a str, Option<i64>)>;

fn memory(rows: &[(Owner, &str, Value<'_>)]) -> SavedWrites {
    let memory = rows.iter().map(|(owner, name, entry)| MemoryRow {
        owner: *owner,
        name: (*name).into(),
        entry: entry.map(|(value, at)| Entry { value: value.into(), expires_at: at.map(Wall) }),
    });
    SavedWrites { memory: memory.collect(), ..SavedWrites::default() }
}

fn remembered(entries: &[(&str, &str, Option<i64>)]) -> Memory {
    let mut memory = Memory::default();
    for (name, value, at) in entries {
        let entry = Entry { value: (*value).into(), expires_at: at.map(Wall) };
        memory.set((*name).into(), entry).expect("room");
    }
    memory
}

fn record(row: &CheckpointRow) -> CheckpointRecord {
    let memory = row.memory.as_deref().map(|text| Memory::from_text(text).expect("its own text"));
    CheckpointRecord {
        id: row.id,
        task: row.task,
        attempt: row.attempt,
        fence: row.fence,
        name: row.name.as_ref().to_owned(),
        json: row.json,
        bytes: row.content.bytes(),
        content: Some(row.content.clone()),
        files: row.files.as_deref().cloned(),
        memory: memory.unwrap_or_default(),
        created_at: row.at,
    }
}

fn listed(row: &CheckpointRow) -> CheckpointRecord {
    CheckpointRecord { content: None, memory: Memory::default(), ..record(row) }
}

fn kept(id: u64) -> KeptCheckpoint {
    KeptCheckpoint { id: CheckpointId(id), fence: Fence(2), number: 3 }
}

fn count(database: &TestDatabase, table: &str) -> u64 {
    let found = database.texts(&format!("SELECT CAST(count(*) AS TEXT) AS text FROM {table}"));
    found[0].parse().expect("a number")
}

fn checkpoints_are_read_back(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=2)]);
    let memory = remembered(&[("k\"", r#"{"a": 1.50}"#, Some(900)), ("ü", "null", None)]);
    let files = Files { commit: "ab12".into(), reference: "refs/agentflow/checkpoints/2".into() };
    let rows = [
        CheckpointRow { attempt: Attempt(0), fence: Fence(0), number: 0, ..row(1, 1) },
        CheckpointRow {
            name: "Schritt 5/ü".into(),
            json: false,
            content: Content::Data(vec![0, 255, b'\n'].into()),
            files: Some(Box::new(files)),
            memory: memory.to_text(Wall(0)),
            ..row(2, 1)
        },
        CheckpointRow { content: Content::Blob(NewBlob::new("large").named()), ..row(3, 1) },
        CheckpointRow { json: false, content: Content::Data(Vec::new().into()), ..row(4, 1) },
        row(5, 2),
    ];
    store.commit([saving(2, checkpoints(rows.clone()))]);
    let readers = readers(database);
    let list = readers.checkpoints(TaskId(1)).expect("a read");
    assert_eq!(list, rows[..4].iter().map(listed).collect::<Vec<_>>());
    for row in &rows {
        assert_eq!(readers.checkpoint(row.id).expect("a read"), Some(record(row)));
    }
    assert_eq!(readers.checkpoint(CheckpointId(6)).expect("a read"), None);
    assert_eq!(readers.checkpoints(TaskId(9)).expect("a read"), []);
}

fn a_checkpoint_goes(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=1)]);
    store.commit([saving(2, checkpoints([row(1, 1), row(2, 1), row(3, 1)]))]);
    store.commit([saving(3, removed(&[1, 3]))]);
    let left = readers(database).checkpoints(TaskId(1)).expect("a read");
    assert_eq!(left, [listed(&row(2, 1))]);
    assert_eq!(readers(database).checkpoint(CheckpointId(1)).expect("a read"), None);
    // What is not there is no mistake.
    store.commit([saving(4, removed(&[1]))]);
}

fn what_comes_and_goes_within_a_commit_leaves_nothing(database: &TestDatabase) {
    let mut store = open(database);
    let gathered = gather([
        creation(1, 1..=1),
        saving(2, checkpoints([row(1, 1), row(2, 1)])),
        saving(3, SavedWrites { removed: vec![CheckpointId(1)], ..checkpoints([row(3, 1)]) }),
    ]);
    // A specification, a task, its event and two checkpoints.
    assert_eq!(gathered.rows(), 5);
    store.writer.commit(store.epoch, &gathered).expect("a commit");
    let left = readers(database).checkpoints(TaskId(1)).expect("a read");
    assert_eq!(left.iter().map(|row| row.id.0).collect::<Vec<_>>(), [2, 3]);
}

fn checkpoints_need_their_task_and_a_number_of_their_own(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=1)]);
    let nobody = store.try_commit([saving(2, checkpoints([row(1, 9)]))]);
    assert!(nobody.expect_err("no such task").is_conflict());
    store.commit([saving(2, checkpoints([row(1, 1)]))]);
    let twice = store.try_commit([saving(3, checkpoints([row(1, 1)]))]);
    assert!(twice.expect_err("made twice").is_conflict());
    let nobody = store.try_commit([saving(3, memory(&[(Owner::Run(RunId(9)), "k", Some(("1", None)))]))]);
    assert!(nobody.expect_err("no such run").is_conflict());
}

fn the_last_word_about_a_choice_counts(database: &TestDatabase) {
    let mut store = open(database);
    let (at, beginning) = (Some(Choice::At(CheckpointId(1))), Some(Choice::Beginning));
    store.commit([creation(1, 1..=4)]);
    store.commit([
        saving(2, checkpoints([row(1, 1)])),
        saving(3, choices([(1, at), (2, at), (3, beginning), (4, None)])),
        saving(4, choices([(2, beginning), (3, None)])),
    ]);
    let chosen = |store: &mut Store| {
        let ids: Vec<_> = (1..=4).map(TaskId).collect();
        let found = store.writer.load_saved(&ids).expect("a read");
        ids.iter().map(|id| found.get(id).and_then(|saved| saved.choice)).collect::<Vec<_>>()
    };
    assert_eq!(chosen(&mut store), [at, beginning, None, None]);
    store.commit([saving(5, choices([(1, beginning), (2, None), (3, at), (4, None)]))]);
    assert_eq!(chosen(&mut store), [beginning, None, at, None]);
}

fn the_last_word_about_a_memory_counts(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=1), run_creation(2, 1, 2..=2)]);
    for owner in [TASK, RUN] {
        store.commit([
            saving(3, memory(&[(owner, "a", Some(("1", None))), (owner, "b", Some(("2", Some(70))))])),
            saving(4, memory(&[(owner, "b", None), (owner, "a", Some(("[1.50]", Some(90))))])),
            saving(5, memory(&[(owner, "c", None), (owner, "c", Some(("\"\\u0000ü\"", None)))])),
        ]);
        let expected = remembered(&[("a", "[1.50]", Some(90)), ("c", "\"\\u0000ü\"", None)]);
        assert_eq!(readers(database).memory(owner).expect("a read"), expected);
        store.commit([saving(
            6,
            memory(&[(owner, "a", None), (owner, "c", Some(("3", Some(5)))), (owner, "d", None)]),
        )]);
        // What has expired is there until the kernel says otherwise.
        assert_eq!(readers(database).memory(owner).expect("a read"), remembered(&[("c", "3", Some(5))]));
    }
    assert_eq!(store.writer.load_run_memory(RunId(1)).expect("a read"), remembered(&[("c", "3", Some(5))]));
    assert!(store.writer.load_run_memory(RunId(9)).expect("a read").is_empty());
}

/// Two tasks and two runs, all with something; the first of each goes on. A third task has a choice
/// alone.
fn filled(store: &mut Store) {
    store.commit([creation(1, 1..=3), run_creation(2, 1, 4..=4), run_creation(3, 2, 5..=5)]);
    store.commit([
        saving(4, checkpoints([row(1, 1), row(2, 2), row(3, 1)])),
        saving(5, choices([(1, Some(Choice::At(CheckpointId(1)))), (3, Some(Choice::Beginning))])),
        saving(
            6,
            memory(&[(TASK, "k", Some(("1", Some(9)))), (Owner::Task(TaskId(2)), "k", Some(("2", None)))]),
        ),
        saving(7, memory(&[(RUN, "k", Some(("3", None))), (Owner::Run(RunId(2)), "k", Some(("4", None)))])),
    ]);
    store.commit([Batch {
        tasks: [2, 5].map(|id| settled(id, Status::Failed, 100)).to_vec(),
        runs: vec![changed_run(2, RunState { settled_at: Some(Wall(100)), ..run_state(RunStatus::Failed) })],
        ..batch(8)
    }]);
}

fn first_task() -> SavedTask {
    SavedTask {
        kept: vec![kept(1), kept(3)],
        choice: Some(Choice::At(CheckpointId(1))),
        memory: remembered(&[("k", "1", Some(9))]),
    }
}

fn what_is_live_is_recovered(database: &TestDatabase) {
    filled(&mut open(database));
    let recovered = open(database).writer.recover().expect("a recovery");
    let chosen = SavedTask { choice: Some(Choice::Beginning), ..SavedTask::default() };
    assert_eq!(recovered.saved, [(TaskId(1), first_task()), (TaskId(3), chosen)]);
    assert_eq!(recovered.memories, [(RunId(1), remembered(&[("k", "3", None)]))]);
}

fn what_has_ended_can_be_loaded(database: &TestDatabase) {
    let mut store = open(database);
    filled(&mut store);
    let loaded = store.writer.load_saved(&[TaskId(2), TaskId(1), TaskId(4), TaskId(99)]).expect("a read");
    let second = SavedTask { kept: vec![kept(2)], choice: None, memory: remembered(&[("k", "2", None)]) };
    assert_eq!(loaded.into_iter().collect::<Vec<_>>(), [(TaskId(1), first_task()), (TaskId(2), second)]);
    assert_eq!(store.writer.load_run_memory(RunId(2)).expect("a read"), remembered(&[("k", "4", None)]));
    assert!(store.writer.load_saved(&[]).expect("a read").is_empty());
}

fn numbers_of_checkpoints_go_on(database: &TestDatabase) {
    let mut store = open(database);
    let counters =
        Counters { last_task: TaskId(1), last_checkpoint: CheckpointId(41), ..Counters::default() };
    store.commit([Batch { counters, ..creation(1, 1..=1) }]);
    store.commit([Batch { counters, ..saving(2, checkpoints([row(41, 1)])) }]);
    store.commit([Batch { counters, ..saving(3, removed(&[41])) }]);
    let office = open(database).writer.take_office(Wall(2)).expect("an office");
    assert_eq!(office.counters.last_checkpoint, CheckpointId(41), "though it is not kept any more");
}

fn all_goes_with_its_task(database: &TestDatabase) {
    let mut store = open(database);
    filled(&mut store);
    let two = crate::specs::shell("two");
    store.commit([upgrade(9, 1, 2, (&crate::build::noop(), &two))]);
    round(&mut store, Wall(1_000), Wall(500), 10);
    assert_eq!(remaining(database), [1, 3, 4]);
    let readers = readers(database);
    assert_eq!(readers.checkpoint(CheckpointId(2)).expect("a read"), None);
    assert!(readers.memory(Owner::Task(TaskId(2))).expect("a read").is_empty());
    assert_eq!(store.writer.load_saved(&[TaskId(1)]).expect("a read")[&TaskId(1)], first_task());
    store.commit([Batch {
        tasks: [1, 3].map(|id| settled(id, Status::Completed, 100)).to_vec(),
        ..batch(10)
    }]);
    round(&mut store, Wall(1_000), Wall(500), 10);
    round(&mut store, Wall(1_000), Wall(500), 10);
    assert_eq!(remaining(database), [4]);
    for table in ["checkpoints", "checkpoint_choices", "task_memory", "task_versions"] {
        assert_eq!(count(database, table), 0, "{table}");
    }
}

fn what_a_run_remembers_goes_with_it(database: &TestDatabase) {
    let mut store = open(database);
    filled(&mut store);
    round(&mut store, Wall(1_000), Wall(500), 10);
    let readers = readers(database);
    assert!(readers.memory(Owner::Run(RunId(2))).expect("a read").is_empty());
    assert_eq!(readers.memory(RUN).expect("a read"), remembered(&[("k", "3", None)]));
    assert_eq!(count(database, "run_memory"), 1);
}

fn a_blob_is_named_for_as_long_as_its_checkpoint(database: &TestDatabase) {
    let mut store = open(database);
    let (blobs, _) = blobs(database);
    let readers = readers(database);
    let all = ["pruned", "kept", "shared"].map(NewBlob::new);
    for blob in &all {
        blobs.put_text(blob, Wall(5)).expect("kept");
    }
    let [pruned, kept, shared] = &all;
    let at =
        |id, task, blob: &NewBlob| CheckpointRow { content: Content::Blob(blob.named()), ..row(id, task) };
    store.commit([creation(1, 1..=2)]);
    store.commit([saving(
        2,
        checkpoints([at(1, 1, pruned), at(2, 1, kept), at(3, 1, shared), at(4, 2, shared)]),
    )]);
    let names = |blob: &NewBlob| readers.names_blob(&blob.sha256).expect("a read");
    // On SQLite the files' own times count.
    let later = Wall(i64::MAX / 2);
    let sweep = || {
        let turn = |_| blobs.sweep(later, &mut |sha256| readers.names_blob(sha256)).expect("a sweep");
        (0..256).map(turn).sum::<usize>()
    };
    let has = |blob: &NewBlob| blobs.open_blob(&blob.sha256).expect("a read").is_some();
    assert!(all.iter().all(names));
    assert_eq!(sweep(), 0);
    store.commit([saving(3, removed(&[1]))]);
    assert_eq!((names(pruned), sweep(), has(pruned)), (false, 1, false));
    store.commit([Batch { tasks: vec![settled(1, Status::Completed, 100)], ..batch(4) }]);
    round(&mut store, Wall(1_000), Wall(500), 10);
    assert_eq!(remaining(database), [2]);
    assert_eq!((names(kept), names(shared)), (false, true));
    assert_eq!((sweep(), has(kept), has(shared)), (1, false, true));
}

fn statements_about_it_are_prepared_once(database: &TestDatabase) {
    let mut store = open(database);
    let prepared = store.writer.count_prepared();
    let of_every_kind = |store: &mut Store, decision: u64, id: u64| {
        store.commit([run_creation(decision, id, id..=id)]);
        let chosen = |choice| choices([(id, choice)]);
        let entries =
            |entry| memory(&[(Owner::Task(TaskId(id)), "k", entry), (Owner::Run(RunId(id)), "k", entry)]);
        store.commit([
            saving(decision + 1, checkpoints([row(id, id)])),
            saving(decision + 2, chosen(Some(Choice::Beginning))),
            saving(decision + 3, entries(Some(("1", None)))),
        ]);
        store.commit([
            saving(decision + 4, removed(&[id])),
            saving(decision + 5, chosen(None)),
            saving(decision + 6, entries(None)),
            Batch { tasks: vec![changed(id, state(Status::Pending))], ..batch(decision + 7) },
        ]);
    };
    of_every_kind(&mut store, 1, 1);
    // The leadership, what makes a run with its task, and changes it, and four kinds about memories,
    // two about checkpoints, two about choices.
    assert_eq!(prepared.load(Ordering::Relaxed), 14);
    of_every_kind(&mut store, 9, 2);
    assert_eq!(prepared.load(Ordering::Relaxed), 14);
}
