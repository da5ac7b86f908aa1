//! Versions of tasks: each is kept whole, and with it what it names.

use agentflow_core::batch::{Batch, SavedWrites, SpecChange, SpecRow, TaskState, TaskWrite, VersionRow};
use agentflow_core::ids::TaskId;
use agentflow_core::status::Status;
use agentflow_core::time::Wall;
use agentflow_schema::testing::TestDatabase;
use agentflow_schema::{Readers, VersionRecord};

use crate::build::{batch, changed, new_task, open, state};
use crate::on_both;
use crate::retention::{remaining, round, settled};
use crate::specs::{shell, uses};

on_both!(
    versions_are_read_back_whole,
    an_old_specification_stays_as_long_as_a_version_names_it,
    several_versions_may_be_made_within_a_commit,
    a_task_may_be_made_and_upgraded_within_a_commit,
    the_same_work_may_be_a_version_of_its_own,
    a_version_needs_its_specification_and_is_made_once,
    versions_go_with_their_task,
);

fn title(version: u32) -> String {
    format!("Version {version}")
}

fn row(task: u64, version: u32, spec: &SpecRow) -> VersionRow {
    let is_first = version == 1;
    VersionRow {
        task: TaskId(task),
        version,
        title: if is_first { "A title".into() } else { title(version).into() },
        spec: spec.hash,
        reason: if is_first { "".into() } else { "better".into() },
        author: if is_first { "".into() } else { "me".into() },
        created_at: Wall(if is_first { 5 } else { i64::from(version) * 100 }),
    }
}

/// An upgrade as the kernel writes it.
pub(crate) fn upgrade(decision: u64, task: u64, version: u32, (old, new): (&SpecRow, &SpecRow)) -> Batch {
    let first = (version == 2).then(|| row(task, 1, old));
    let change = SpecChange { old: old.hash, new: new.hash };
    Batch {
        tasks: vec![TaskWrite {
            spec: (old.hash != new.hash).then_some(change),
            title: Some(title(version).into()),
            ..changed(task, TaskState { version, ..state(Status::Pending) })
        }],
        specs: vec![new.clone()],
        saved: SavedWrites {
            versions: first.into_iter().chain([row(task, version, new)]).collect(),
            ..SavedWrites::default()
        },
        ..batch(decision)
    }
}

fn creation(decision: u64, task: u64, spec: &SpecRow) -> Batch {
    Batch {
        tasks: vec![new_task(task, spec, state(Status::Pending))],
        specs: vec![spec.clone()],
        ..batch(decision)
    }
}

fn record(version: u32, spec: &SpecRow) -> VersionRecord {
    let row = row(1, version, spec);
    VersionRecord {
        version,
        title: row.title.into(),
        spec_body: spec.body.as_ref().to_owned(),
        reason: row.reason.as_ref().to_owned(),
        author: row.author.into(),
        created_at: row.created_at,
    }
}

fn versions(database: &TestDatabase, task: u64) -> Vec<VersionRecord> {
    let readers = Readers::open(database.target()).expect("the writer made it");
    readers.versions(TaskId(task), 0, 100).expect("a read").0
}

/// Title, version and specification, as the task's own row has them.
fn stands(database: &TestDatabase, task: u64) -> (String, u32, String) {
    let readers = Readers::open(database.target()).expect("the writer made it");
    let record = readers.task(TaskId(task)).expect("a read").expect("the task");
    (record.title, record.state.version, record.spec_body)
}

fn counted(uses: u32, spec: &SpecRow) -> String {
    format!("{uses} {}", spec.body)
}

fn versions_are_read_back_whole(database: &TestDatabase) {
    let mut store = open(database);
    let (one, two, three) = (shell("1"), shell("2"), shell("3"));
    store.commit([creation(1, 1, &one)]);
    store.commit([creation(2, 2, &one)]);
    assert_eq!(versions(database, 1), [], "its own row says it all");
    assert_eq!(stands(database, 1), ("A title".to_owned(), 1, one.body.to_string()));
    store.commit([upgrade(3, 1, 2, (&one, &two))]);
    store.commit([upgrade(4, 1, 3, (&two, &three))]);
    assert_eq!(versions(database, 1), [record(1, &one), record(2, &two), record(3, &three)]);
    assert_eq!(stands(database, 1), (title(3), 3, three.body.to_string()));
    assert_eq!((versions(database, 2), versions(database, 9)), (vec![], vec![]));
    let loaded = store.writer.load_tasks(&[TaskId(1)]).expect("a read");
    assert_eq!((loaded[0].0.state.version, loaded[0].0.spec), (3, three.hash));
    let recovered = open(database).writer.recover().expect("a recovery");
    assert_eq!(recovered.tasks.iter().map(|task| task.state.version).collect::<Vec<_>>(), [3, 1]);
    assert_eq!(recovered.specs.len(), 2, "what nobody runs any more is not read");
    // What happens to the task otherwise leaves its version as it is.
    store = open(database);
    store.commit([Batch {
        tasks: vec![changed(1, TaskState { version: 3, ..state(Status::Running) })],
        ..batch(1)
    }]);
    assert_eq!(stands(database, 1).1, 3);
}

fn an_old_specification_stays_as_long_as_a_version_names_it(database: &TestDatabase) {
    let mut store = open(database);
    let (one, two, three) = (shell("1"), shell("2"), shell("3"));
    store.commit([creation(1, 1, &one)]);
    store.commit([upgrade(2, 1, 2, (&one, &two))]);
    assert_eq!(uses(database), [counted(1, &one), counted(2, &two)]);
    store.commit([upgrade(3, 1, 3, (&two, &three))]);
    assert_eq!(uses(database), [counted(1, &one), counted(1, &two), counted(2, &three)]);
    // And back to the first.
    store.commit([upgrade(4, 1, 4, (&three, &one))]);
    assert_eq!(uses(database), [counted(3, &one), counted(1, &two), counted(1, &three)]);
    assert_eq!(versions(database, 1).len(), 4);
}

fn several_versions_may_be_made_within_a_commit(database: &TestDatabase) {
    let mut store = open(database);
    let (one, two, three) = (shell("1"), shell("2"), shell("3"));
    store.commit([creation(1, 1, &one), creation(2, 2, &two)]);
    store.commit([upgrade(3, 1, 2, (&one, &two)), upgrade(4, 1, 3, (&two, &three))]);
    assert_eq!(uses(database), [counted(1, &one), counted(2, &two), counted(2, &three)]);
    assert_eq!(stands(database, 1), (title(3), 3, three.body.to_string()));
    assert_eq!(versions(database, 1), [record(1, &one), record(2, &two), record(3, &three)]);
}

fn a_task_may_be_made_and_upgraded_within_a_commit(database: &TestDatabase) {
    let mut store = open(database);
    let (one, two) = (shell("1"), shell("2"));
    store.commit([creation(1, 1, &one), upgrade(2, 1, 2, (&one, &two))]);
    assert_eq!(uses(database), [counted(1, &one), counted(2, &two)]);
    assert_eq!(stands(database, 1), (title(2), 2, two.body.to_string()));
    assert_eq!(versions(database, 1), [record(1, &one), record(2, &two)]);
}

fn the_same_work_may_be_a_version_of_its_own(database: &TestDatabase) {
    let mut store = open(database);
    let one = shell("1");
    store.commit([creation(1, 1, &one)]);
    store.commit([upgrade(2, 1, 2, (&one, &one))]);
    assert_eq!(uses(database), [counted(3, &one)]);
    assert_eq!(versions(database, 1), [record(1, &one), record(2, &one)]);
}

fn a_version_needs_its_specification_and_is_made_once(database: &TestDatabase) {
    let mut store = open(database);
    let (one, two) = (shell("1"), shell("2"));
    store.commit([creation(1, 1, &one)]);
    let unknown = Batch { specs: vec![], ..upgrade(2, 1, 2, (&one, &two)) };
    assert!(store.try_commit([unknown]).expect_err("its text is missing").is_conflict());
    let nobody = upgrade(2, 9, 2, (&one, &one));
    assert!(store.try_commit([nobody]).expect_err("no such task").is_conflict());
    store.commit([upgrade(2, 1, 2, (&one, &two))]);
    let again = store.try_commit([upgrade(3, 1, 2, (&two, &two))]);
    assert!(again.expect_err("made twice").is_conflict());
    assert_eq!(uses(database), [counted(1, &one), counted(2, &two)]);
}

fn versions_go_with_their_task(database: &TestDatabase) {
    let mut store = open(database);
    let (one, two, three) = (shell("1"), shell("2"), shell("3"));
    for (task, spec) in [(1, &one), (2, &two), (3, &one)] {
        store.commit([creation(task, task, spec)]);
    }
    store.commit([upgrade(4, 1, 2, (&one, &two))]);
    store.commit([upgrade(5, 1, 3, (&two, &three))]);
    store.commit([upgrade(6, 3, 2, (&one, &three))]);
    assert_eq!(uses(database), [counted(2, &one), counted(2, &two), counted(4, &three)]);
    store.commit([Batch { tasks: vec![settled(1, Status::Completed, 100)], ..batch(7) }]);
    let turns = round(&mut store, Wall(1_000), Wall(500), 10);
    assert_eq!(remaining(database), [2, 3]);
    assert_eq!(turns.iter().map(|turn| turn.specs).sum::<usize>(), 0);
    assert_eq!(uses(database), [counted(1, &one), counted(1, &two), counted(2, &three)]);
    assert_eq!(versions(database, 1), []);
    store.commit([Batch { tasks: vec![settled(3, Status::Failed, 100)], ..batch(8) }]);
    let turns = round(&mut store, Wall(1_000), Wall(500), 10);
    assert_eq!(turns.iter().map(|turn| turn.specs).sum::<usize>(), 2);
    assert_eq!(uses(database), [counted(1, &two)]);
    let left = "SELECT CAST(count(*) AS TEXT) AS text FROM task_versions";
    assert_eq!(database.texts(left), ["0"]);
}
