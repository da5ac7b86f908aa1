//! The tables come, go and come again; both trees make the same ones; neither holds nonsense.

use agentflow_core::status::Status;
use agentflow_core::time::Wall;
use agentflow_schema::testing::TestDatabase;
use agentflow_schema::{Options, Readers, Writer};

use crate::build::{creation, open, state};
use crate::on_both;

on_both!(up_down_up, a_newer_database_is_refused, opening_twice_changes_nothing, nonsense_is_refused,);

fn up_down_up(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=3)]);
    drop(store);
    let before = database.columns();
    assert_eq!(before.len(), 9);
    database.take_back_migrations().expect("down");
    assert!(database.columns().is_empty(), "{:?}", database.columns());
    let mut store = open(database);
    assert_eq!(database.columns(), before);
    assert_eq!(store.commit([creation(1, 1..=3)]).head_seq.0, 3);
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
        "INSERT INTO leadership VALUES (1, 0, 0, 'x', 0, 0, 0, 0, 0, 0, 0)",
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
    let loaded = store.writer.load_tasks(&[agentflow_core::ids::TaskId(1)]).expect("a read");
    assert_eq!(loaded[0].0.state.status, Status::Completed);
    assert_ne!(loaded[0].0.state, state(Status::Completed));
    drop(store.writer.take_office(Wall(5)));
}
