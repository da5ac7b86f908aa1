//! What each version of the tables has written is still read: rows of tasks and runs are the snapshots
//! of their actors, and a migration is a version of them.
//!
//! A new migration needs a file of its own in `tests/fixtures`; what is there is never changed.

use agentflow_core::batch::{LockLease, LockRow};
use agentflow_core::ids::{LockNumber, RunId, SpaceId, TaskId};
use agentflow_core::lock::{LockFence, LockId, LockMode, LockUntil};
use agentflow_core::run::Numbers;
use agentflow_core::spec::Spec;
use agentflow_core::time::Wall;
use agentflow_schema::testing::TestDatabase;
use agentflow_schema::{Readers, Recovered};
use agentflow_workflow::Definition;

use crate::build::open;
use crate::on_both;

/// The rows of each version.
const FIXTURES: [&str; 6] = [
    include_str!("../fixtures/0001.sql"),
    include_str!("../fixtures/0002.sql"),
    include_str!("../fixtures/0003.sql"),
    include_str!("../fixtures/0004.sql"),
    include_str!("../fixtures/0005.sql"),
    include_str!("../fixtures/0006.sql"),
];

on_both!(
    the_first_version,
    the_second_version,
    the_third_version,
    the_fourth_version,
    the_fifth_version,
    the_sixth_version,
);

/// A database of that version with its rows, as the present program finds it.
fn recovered(database: &TestDatabase, version: usize) -> Recovered {
    drop(open(database));
    let migrations = database.texts("SELECT version AS text FROM __diesel_schema_migrations");
    assert_eq!(migrations.len(), FIXTURES.len(), "a new migration needs a fixture");
    database.take_back_newest_migrations(FIXTURES.len() - version).expect("down");
    let fixture = FIXTURES[version - 1];
    let fixture = match database.file() {
        Some(_) => fixture.to_owned(),
        None => fixture.replace("x'", r"'\x"),
    };
    database.execute(&fixture).expect("rows");
    let mut store = open(database);
    let recovered = store.writer.recover().expect("a recovery");
    for row in &recovered.specs {
        let spec: Spec =
            serde_json::from_str(&row.body).unwrap_or_else(|error| panic!("{error}: {}", row.body));
        // Its hash is that of its text, which must therefore stay what it was.
        assert_eq!(serde_json::to_string(&spec).expect("plain data"), *row.body);
    }
    for row in &recovered.definitions {
        let definition = Definition::from_json(&row.body).expect("a workflow");
        assert_eq!(definition.to_json(), *row.body);
    }
    store.writer.take_office(Wall(99)).expect("an office");
    recovered
}

/// Numbers of live tasks.
fn live(recovered: &Recovered) -> Vec<u64> {
    recovered.tasks.iter().map(|task| task.id.0).collect()
}

fn the_first_version(database: &TestDatabase) {
    let recovered = recovered(database, 1);
    assert_eq!(live(&recovered), [1, 2]);
    let running = &recovered.tasks[1].state;
    assert_eq!((running.attempt.0, running.fence.0, running.version), (2, 9, 1));
    assert_eq!(recovered.workers.len(), 1);
    let readers = Readers::open(database.target()).expect("made");
    let done = readers.task(TaskId(3)).expect("a read").expect("a task");
    assert_eq!(done.title, "is done");
}

fn the_second_version(database: &TestDatabase) {
    let recovered = recovered(database, 2);
    assert_eq!(live(&recovered), [12, 21]);
    assert_eq!((recovered.runs.len(), recovered.settled_nodes.len()), (1, 1));
    assert_eq!((recovered.key_limits.len(), recovered.schedules.len(), recovered.relations.len()), (1, 1, 1));
}

fn the_third_version(database: &TestDatabase) {
    let recovered = recovered(database, 3);
    assert_eq!(live(&recovered), [31]);
    assert_eq!(recovered.rounds.iter().map(|row| row.round).collect::<Vec<_>>(), [Some(3)]);
    let run = &recovered.runs[0];
    assert!(run.state.stopping.is_some());
    assert_eq!((run.state.version, &run.numbers), (1, &Numbers::row(TaskId(31), 1)));
}

fn the_fourth_version(database: &TestDatabase) {
    let recovered = recovered(database, 4);
    assert_eq!(live(&recovered), [51]);
    assert_eq!(recovered.tasks[0].state.version, 2);
    let (_, saved) = &recovered.saved[0];
    assert_eq!((saved.kept.len(), saved.choice.is_some(), saved.memory.is_empty()), (2, true, false));
    assert_eq!(recovered.memories.len(), 1);
}

fn the_fifth_version(database: &TestDatabase) {
    let recovered = recovered(database, 5);
    assert_eq!(live(&recovered), [71, 72]);
    assert_eq!(recovered.outdated, [TaskId(71)]);
    let run = &recovered.runs[0];
    assert_eq!((run.state.version, run.birth.nodes, run.birth.first_task), (2, 3, TaskId(71)));
    assert_eq!(run.numbers, [71, 73, 72].map(TaskId).into_iter().collect());
    let node = recovered.tasks[1].run.as_ref().map(|place| &*place.node);
    assert_eq!(node, Some("announce"));
    let readers = Readers::open(database.target()).expect("made");
    let versions = readers.run_versions(RunId(4), 0, 100).expect("a read").0;
    assert_eq!(versions.len(), 2);
    assert_eq!(versions[1].definition_body, *recovered.definitions[0].body);
    let first = Definition::from_json(&versions[0].definition_body).expect("a workflow");
    assert_eq!(first.to_json(), versions[0].definition_body);
    let found = readers.run_with_node(TaskId(73)).expect("a read").expect("a node without a row");
    assert_eq!(found.row, *run);
}

fn the_sixth_version(database: &TestDatabase) {
    let recovered = recovered(database, 6);
    assert_eq!(live(&recovered), [81]);
    let spec: Spec = serde_json::from_str(&recovered.specs[0].body).expect("a specification");
    assert_eq!((spec.locks.len(), spec.locks[0].until), (1, LockUntil::Merged));
    let spaces: Vec<_> = recovered.lock_spaces.iter().map(|row| (row.repo.as_str(), row.fence.0)).collect();
    assert_eq!(spaces, [("github.com/acme/app", 3), ("default", 1)]);
    let lease = |row: &LockRow| (row.number.0, row.birth.owner.to_string(), row.state.lease);
    let time = LockLease::Time { ttl_ms: 604_800_000, expires_at: Wall(604_800_007) };
    assert_eq!(
        recovered.locks.iter().map(lease).collect::<Vec<_>>(),
        [
            (2, "task:81".to_owned(), LockLease::Attempt),
            (4, "bob".to_owned(), LockLease::Forever),
            (5, "task:82".to_owned(), time),
        ]
    );
    let held = &recovered.locks[0].birth;
    assert_eq!((&held.paths, held.until), (&spec.locks[0].paths, LockUntil::Merged));
    assert_eq!(held.attempt.map(|by| (by.attempt.0, by.fence.0)), Some((1, 16)));
    assert_eq!(recovered.locks[1].birth.paths[0].mode, LockMode::Read);
    let readers = Readers::open(database.target()).expect("made");
    let broken = readers.lock_by_id(&LockId([0xa1; 16])).expect("a read").expect("a lock");
    let ended = broken.state.ended.as_ref().map(|ended| (ended.at, &*ended.reason));
    assert_eq!((broken.number, ended), (LockNumber(1), Some((Wall(6), "she is away"))));
    let history = readers.write_grants(SpaceId(1), LockFence(1), LockFence(0), 10).expect("a read");
    assert_eq!(history, [broken, recovered.locks[0].clone()]);
}
