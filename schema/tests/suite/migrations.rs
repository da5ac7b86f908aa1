//! The tables come, go and come again; both trees make the same ones; neither holds nonsense.

use agentflow_core::batch::{AttemptEnd, Batch, Counters};
use agentflow_core::ids::{RunId, TaskId};
use agentflow_core::relation::Relation;
use agentflow_core::status::Status;
use agentflow_core::time::Wall;
use agentflow_schema::testing::TestDatabase;
use agentflow_schema::{Options, Readers, Writer};

use crate::build::{attempt, batch, creation, new_task, noop, open, relation, run_creation, state};
use crate::on_both;

on_both!(
    up_down_up,
    rows_of_the_first_version_stay,
    a_newer_database_is_refused,
    opening_twice_changes_nothing,
    nonsense_is_refused,
    nonsense_about_runs_is_refused,
);

fn up_down_up(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=3)]);
    drop(store);
    let before = database.columns();
    assert_eq!(before.len(), 22);
    database.take_back_migrations().expect("down");
    assert!(database.columns().is_empty(), "{:?}", database.columns());
    let mut store = open(database);
    assert_eq!(database.columns(), before);
    assert_eq!(store.commit([creation(1, 1..=3)]).head_seq.0, 3);
}

fn rows_of_the_first_version_stay(database: &TestDatabase) {
    let mut store = open(database);
    let without_run = Batch {
        tasks: vec![new_task(4, &noop(), state(Status::Running))],
        attempts: vec![attempt(4, 1, AttemptEnd::Lost)],
        counters: Counters { last_task: TaskId(4), ..Counters::default() },
        ..batch(2)
    };
    store.commit([creation(1, 1..=3), without_run.clone()]);
    // What later versions add goes with them, and takes nothing along.
    store.commit([Batch {
        relations: vec![relation(1, 2, Relation::Dependency)],
        counters: Counters { last_run: RunId(1), ..without_run.counters },
        ..run_creation(3, 1, 5..=6)
    }]);
    drop(store);
    database.take_back_newest_migrations(3).expect("down");
    assert_eq!(database.columns().len(), 9);
    assert_eq!(database.texts("SELECT CAST(count(*) AS TEXT) AS text FROM tasks"), ["6"]);
    database
        .execute("UPDATE tasks SET status = 3, settled_at = 7, result = 'r' WHERE id = 1")
        .expect("a row");

    let mut store = open(database);
    let recovered = store.writer.recover().expect("a recovery");
    assert_eq!(recovered.tasks.iter().map(|task| task.id.0).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
    assert!(recovered.tasks.iter().all(|task| task.run.is_none() && task.state.waits.is_none()));
    assert_eq!(recovered.tasks[2].state, state(Status::Running));
    assert!(recovered.runs.is_empty() && recovered.relations.is_empty());
    let office = store.writer.take_office(Wall(9)).expect("an office");
    assert_eq!((office.counters.last_task, office.counters.last_run), (TaskId(4), RunId(0)));
    store.epoch = office.epoch;
    store.commit([Batch {
        relations: vec![relation(1, 2, Relation::Dependency)],
        ..run_creation(1, 1, 7..=8)
    }]);
    let readers = Readers::open(database.target()).expect("made");
    assert_eq!(readers.attempts(TaskId(4)).expect("a read").len(), 1);
    assert_eq!(readers.nodes(RunId(1), TaskId(0), 10).expect("a read").len(), 2);
}

#[test]
fn both_trees_make_the_same_tables() {
    let sqlite = TestDatabase::sqlite();
    let Some(postgres) = TestDatabase::postgres() else { return };
    drop((open(&sqlite), open(&postgres)));
    assert_eq!(sqlite.columns(), postgres.columns());
}

fn a_newer_database_is_refused(database: &TestDatabase) {
    drop(open(database));
    database
        .execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('29991231000000')")
        .expect("a row from the future");
    let Err(error) = Writer::open(database.target(), &Options::default()) else {
        panic!("opened a newer database");
    };
    assert!(error.is_newer(), "{error:?}");
    assert!(error.to_string().contains("29991231000000"), "{error}");
}

fn opening_twice_changes_nothing(database: &TestDatabase) {
    drop(open(database));
    let log_id = Readers::open(database.target()).expect("made").head().expect("a read").log_id;
    drop(open(database));
    assert_eq!(Readers::open(database.target()).expect("made").head().expect("a read").log_id, log_id);
}

fn nonsense_is_refused(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=1)]);
    let statements = [
        "UPDATE tasks SET status = 7",
        "UPDATE tasks SET status = -1",
        "UPDATE tasks SET status = 3",
        "UPDATE tasks SET settled_at = 5",
        "UPDATE tasks SET status = 2, attempt = 1, worker = 'w1', assigned_at = 1",
        "UPDATE tasks SET status = 2, attempt = 1, assigned_at = 1, started_at = 2",
        "UPDATE tasks SET status = 2, worker = 'w1', assigned_at = 1, started_at = 2",
        "UPDATE tasks SET worker = 'w1'",
        "UPDATE tasks SET worker = ''",
        "UPDATE tasks SET status = 0, worker = 'w1'",
        "UPDATE tasks SET priority = 101",
        "UPDATE tasks SET priority = -1",
        "UPDATE tasks SET attempt = -1",
        "UPDATE tasks SET fence = -1",
        "UPDATE tasks SET failures = -1",
        "UPDATE tasks SET lost = -1",
        "UPDATE tasks SET cancelling = 2",
        "UPDATE tasks SET group_name = ''",
        "UPDATE tasks SET id = 0",
        "UPDATE task_specs SET uses = -1",
        "UPDATE leadership SET id = 2",
        "UPDATE leadership SET epoch = -1",
        "UPDATE leadership SET settled_failed = -1",
        "UPDATE leadership SET log_id = ''",
        "UPDATE event_segments SET last_seq = first_seq - 1",
        "UPDATE event_segments SET last_seq = first_seq + 256",
        "INSERT INTO task_logs VALUES (1, 1, 5, 6)",
        "INSERT INTO task_logs VALUES (1, 0, 5, 5)",
        "INSERT INTO attempts (task, attempt, fence, worker, assigned_at, ended_at, ending) VALUES (1, 1, 1, 'w', 1, 1, 4)",
        "INSERT INTO attempts (task, attempt, fence, worker, assigned_at, ended_at, ending) VALUES (1, 0, 1, 'w', 1, 1, 0)",
        "INSERT INTO workers VALUES ('w1', 0, '{}', '{}', 1, 1, 0, 1, 1)",
        "INSERT INTO workers VALUES ('w1', 0, '[]', '[]', 1, 1, 0, 1, 1)",
        "INSERT INTO workers VALUES ('w1', 0, '[]', '{}', -1, 1, 0, 1, 1)",
        "INSERT INTO event_subjects VALUES ('', 1)",
        "INSERT INTO leadership VALUES (1, 0, 0, 'x', 0, 0, 0, 0, 0, 0, 0, 0, 0)",
    ];
    for sql in statements {
        let error = database.execute(sql).expect_err(sql);
        assert!(error.is_conflict(), "{sql}: {error:?}");
    }
    // What the core does write passes.
    for sql in [
        "UPDATE tasks SET status = 1, attempt = 1, worker = 'w1', assigned_at = 1",
        "UPDATE tasks SET status = 2, started_at = 2",
        "UPDATE tasks SET status = 3, settled_at = 3",
        "INSERT INTO workers VALUES ('w1', -5, '[\"default\"]', '{\"a\": \"b\"}', 1, 1, 0, 1, 1)",
    ] {
        database.execute(sql).expect(sql);
    }
    let loaded = store.writer.load_tasks(&[TaskId(1)]).expect("a read");
    assert_eq!(loaded[0].0.state.status, Status::Completed);
    assert_ne!(loaded[0].0.state, state(Status::Completed));
    drop(store.writer.take_office(Wall(5)));
}

fn nonsense_about_runs_is_refused(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=2), run_creation(2, 1, 3..=4)]);
    let run = |set: &str| format!("UPDATE runs SET {set}");
    let related = |values: &str| format!("INSERT INTO task_relationships VALUES ({values})");
    let statements = [
        "UPDATE tasks SET run = 1 WHERE id = 1".to_owned(),
        "UPDATE tasks SET node = 'n' WHERE id = 1".to_owned(),
        "UPDATE tasks SET run = NULL WHERE id = 3".to_owned(),
        "UPDATE tasks SET node = '' WHERE id = 3".to_owned(),
        "UPDATE tasks SET run = 0 WHERE id = 3".to_owned(),
        "UPDATE tasks SET waits = 5 WHERE id = 1".to_owned(),
        "UPDATE tasks SET waits = -1 WHERE id = 1".to_owned(),
        "UPDATE leadership SET last_run = -1".to_owned(),
        format!("UPDATE run_definitions SET hash = {}", short_hash(database)),
        run("status = 6"),
        run("status = -1"),
        run("status = 3"),
        run("settled_at = 5"),
        run("revision = 0"),
        run("first_task = 0"),
        run("nodes = -1"),
        run("parent = 0"),
        run("mode = 'loop'"),
        run("name = ''"),
        run("inputs = ''"),
        run("id = 0"),
        related("1, 1, 0, 5"),
        related("1, 2, 5, 5"),
        related("1, 2, -1, 5"),
    ];
    for sql in &statements {
        let error = database.execute(sql).expect_err(sql);
        assert!(error.is_conflict(), "{sql}: {error:?}");
    }
    for sql in [
        related("1, 2, 0, 5").as_str(),
        related("1, 2, 4, 5").as_str(),
        "UPDATE tasks SET run = NULL, node = NULL WHERE id = 3",
        "UPDATE tasks SET waits = 3 WHERE id = 4",
        "UPDATE runs SET status = 3, settled_at = 5, parent = 1, nodes = 0",
    ] {
        database.execute(sql).expect(sql);
    }
}

/// Eight bytes, as the database writes them.
fn short_hash(database: &TestDatabase) -> &'static str {
    if database.file().is_some() { "x'0011223344556677'" } else { "'\\x0011223344556677'::bytea" }
}
