//! The tables come, go and come again; both trees make the same ones; neither holds nonsense.

use agentflow_core::batch::{AttemptEnd, Batch, Counters};
use agentflow_core::ids::{RunId, TaskId};
use agentflow_core::relation::Relation;
use agentflow_core::run::Numbers;
use agentflow_core::spec::Payload;
use agentflow_core::status::Status;
use agentflow_core::time::Wall;
use agentflow_schema::testing::TestDatabase;
use agentflow_schema::{Options, Readers, Writer};

use crate::build::{attempt, batch, creation, new_task, noop, open, relation, run_creation, spec, state};
use crate::on_both;
use crate::run_versions::{same_nodes, upgraded_run, with_new, workflow};
use crate::specs::uses;
use crate::versions::upgrade;

on_both!(
    up_down_up,
    rows_of_the_first_version_stay,
    a_newer_database_is_refused,
    opening_twice_changes_nothing,
    nonsense_is_refused,
    nonsense_about_runs_is_refused,
    nonsense_about_what_is_saved_is_refused,
    nonsense_about_versions_of_runs_is_refused,
    nonsense_about_locks_is_refused,
    specifications_of_old_versions_go_with_them,
    upgraded_runs_go_with_their_ranges,
);

fn up_down_up(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=3)]);
    drop(store);
    let before = database.columns();
    assert_eq!(before.len(), 27);
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
    database.take_back_newest_migrations(5).expect("down");
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
        "INSERT INTO leadership VALUES (1, 0, 0, 'x', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)",
        "UPDATE leadership SET last_checkpoint = -1",
        "UPDATE leadership SET last_lock = -1",
        "UPDATE tasks SET version = 0",
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

fn nonsense_about_what_is_saved_is_refused(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=2), run_creation(2, 1, 3..=3)]);
    let (short, hash) = (short_hash(database), bytes(database, &"00".repeat(32)));
    let spec = bytes(database, &"00".repeat(16));
    let checkpoint = |values: &str| format!("INSERT INTO checkpoints VALUES ({values})");
    let choice = |values: &str| format!("INSERT INTO checkpoint_choices VALUES ({values})");
    let version = |values: &str| format!("INSERT INTO task_versions VALUES ({values})");
    // Every check is broken alone.
    let statements = [
        checkpoint(&format!("1, 1, 0, 0, 0, 0, 8, 5, 'n', NULL, NULL, {hash}, {short}, NULL")),
        checkpoint("1, 1, 0, 0, 0, 0, 8, 5, 'n', NULL, NULL, NULL, NULL, NULL"),
        checkpoint(&format!("1, 1, 0, 0, 0, 0, 8, 5, 'n', NULL, NULL, {short}, NULL, NULL")),
        checkpoint(&format!("0, 1, 0, 0, 0, 0, 8, 5, 'n', NULL, NULL, NULL, {short}, NULL")),
        checkpoint(&format!("1, 1, -1, 0, 0, 0, 8, 5, 'n', NULL, NULL, NULL, {short}, NULL")),
        checkpoint(&format!("1, 1, 0, -1, 0, 0, 8, 5, 'n', NULL, NULL, NULL, {short}, NULL")),
        checkpoint(&format!("1, 1, 0, 0, -1, 0, 8, 5, 'n', NULL, NULL, NULL, {short}, NULL")),
        checkpoint(&format!("1, 1, 0, 0, 0, 2, 8, 5, 'n', NULL, NULL, NULL, {short}, NULL")),
        checkpoint(&format!("1, 1, 0, 0, 0, 0, -1, 5, 'n', NULL, NULL, NULL, {short}, NULL")),
        checkpoint(&format!("1, 1, 0, 0, 0, 0, 8, 5, '', NULL, NULL, NULL, {short}, NULL")),
        checkpoint(&format!("1, 1, 0, 0, 0, 0, 8, 5, 'n', '', 'r', NULL, {short}, NULL")),
        checkpoint(&format!("1, 1, 0, 0, 0, 0, 8, 5, 'n', 'c', NULL, NULL, {short}, NULL")),
        checkpoint(&format!("1, 1, 0, 0, 0, 0, 8, 5, 'n', NULL, 'r', NULL, {short}, NULL")),
        checkpoint(&format!("1, 1, 0, 0, 0, 0, 8, 5, 'n', NULL, NULL, NULL, {short}, ''")),
        choice("1, 0"),
        choice("1, -1"),
        "INSERT INTO task_memory VALUES (1, '', '1', NULL)".to_owned(),
        "INSERT INTO task_memory VALUES (1, 'n', '', NULL)".to_owned(),
        "INSERT INTO run_memory VALUES (1, '', '1', NULL)".to_owned(),
        "INSERT INTO run_memory VALUES (1, 'n', '', NULL)".to_owned(),
        version(&format!("1, 0, {spec}, 5, 't', '', ''")),
        version(&format!("1, -1, {spec}, 5, 't', '', ''")),
        version(&format!("1, 1, {short}, 5, 't', '', ''")),
        version(&format!("1, 1, {spec}, 5, NULL, '', ''")),
    ];
    for sql in &statements {
        let error = database.execute(sql).expect_err(sql);
        assert!(error.is_conflict(), "{sql}: {error:?}");
    }
    for sql in [
        checkpoint(&format!("1, 1, 0, 0, 0, 0, 8, 5, 'n', NULL, NULL, NULL, {short}, NULL")).as_str(),
        &checkpoint(&format!("2, 1, 1, 1, 1, 1, 9, 5, 'n', 'c', 'r', {hash}, NULL, '{{}}'")),
        &choice("1, NULL"),
        &choice("2, 1"),
        "INSERT INTO task_memory VALUES (1, 'n', '1', -5)",
        "INSERT INTO run_memory VALUES (1, 'n', '1', NULL)",
        &version(&format!("1, 1, {spec}, 5, '', '', ''")),
    ] {
        database.execute(sql).expect(sql);
    }
}

fn specifications_of_old_versions_go_with_them(database: &TestDatabase) {
    let mut store = open(database);
    let lines = ["one", "two", "three"].map(|line| spec(Payload::Shell { command: line.into() }));
    let [one, two, three] = &lines;
    store.commit([creation(1, 1..=2)]);
    store.commit([Batch {
        tasks: vec![new_task(3, one, state(Status::Pending))],
        specs: vec![one.clone()],
        ..batch(2)
    }]);
    store.commit([upgrade(3, 3, 2, (one, two))]);
    store.commit([upgrade(4, 3, 3, (two, three))]);
    // Another task is what the first one was.
    store.commit([Batch { tasks: vec![new_task(4, two, state(Status::Pending))], ..batch(5) }]);
    let expected = [(2, &noop()), (1, one), (2, three), (2, two)];
    assert_eq!(uses(database), expected.map(|(uses, spec)| format!("{uses} {}", spec.body)));
    drop(store);
    database.take_back_newest_migrations(3).expect("down");
    let mut store = open(database);
    let expected = [(2, &noop()), (1, three), (1, two)];
    assert_eq!(uses(database), expected.map(|(uses, spec)| format!("{uses} {}", spec.body)));
    let recovered = store.writer.recover().expect("a recovery");
    let stand: Vec<_> =
        recovered.tasks.iter().map(|task| (task.id.0, task.spec, task.state.version)).collect();
    let noop = noop().hash;
    assert_eq!(stand, [(1, noop, 1), (2, noop, 1), (3, three.hash, 1), (4, two.hash, 1)]);
    assert_eq!(store.writer.take_office(Wall(9)).expect("an office").counters.last_checkpoint.0, 0);
    // The versions begin anew, and the counts go on from there.
    let mut store = open(database);
    store.commit([upgrade(1, 3, 2, (three, two))]);
    let expected = [(2, &noop), (1, &three.hash), (3, &two.hash)].map(|(uses, _)| uses);
    let counted: Vec<_> =
        uses(database).iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(counted, expected.map(|uses| uses.to_string()));
}

fn nonsense_about_versions_of_runs_is_refused(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([run_creation(1, 1, 1..=2)]);
    let (short, unknown) = (short_hash(database), bytes(database, &"00".repeat(16)));
    let range = |values: &str| format!("INSERT INTO run_ranges VALUES ({values})");
    let version = |values: &str| format!("INSERT INTO run_versions VALUES ({values})");
    let known = "(SELECT definition FROM runs WHERE id = 1)";
    // Every check is broken alone.
    let statements = [
        "UPDATE runs SET version = 0".to_owned(),
        range("9, 0, 1, 1"),
        range("1, -1, 1, 1"),
        range("1, 0, 0, 1"),
        range("1, 0, 1, 0"),
        version(&format!("9, 1, {known}, 5, 'null', '', ''")),
        version(&format!("1, 0, {known}, 5, 'null', '', ''")),
        version(&format!("1, 1, {short}, 5, 'null', '', ''")),
        version(&format!("1, 1, {unknown}, 5, 'null', '', ''")),
        version(&format!("1, 1, {known}, 5, '', '', ''")),
        version(&format!("1, 1, {known}, 5, 'null', NULL, ''")),
        version(&format!("1, 1, {known}, 5, 'null', '', NULL")),
        "INSERT INTO task_outdated VALUES (9)".to_owned(),
    ];
    for sql in &statements {
        let error = database.execute(&enforced(database, sql)).expect_err(sql);
        assert!(error.is_conflict(), "{sql}: {error:?}");
    }
    for sql in [
        "UPDATE runs SET version = 2",
        &range("1, 0, 1, 1"),
        &range("1, 1, 7, 2"),
        &version(&format!("1, 1, {known}, 5, 'null', '', ''")),
        &version(&format!("1, 2, {known}, 5, '[]', 'better', 'me'")),
        "INSERT INTO task_outdated VALUES (2)",
    ] {
        database.execute(&enforced(database, sql)).expect(sql);
    }
    for sql in [range("1, 1, 9, 2"), version(&format!("1, 2, {known}, 5, 'null', '', ''"))] {
        assert!(database.execute(&sql).expect_err(&sql).is_conflict(), "{sql}");
    }
}

fn nonsense_about_locks_is_refused(database: &TestDatabase) {
    drop(open(database));
    let (short, id) = (short_hash(database), bytes(database, &"00".repeat(16)));
    let grant = |number: i64| {
        let id = bytes(database, &format!("{number:032x}"));
        format!(
            "INSERT INTO lock_grants VALUES ({number}, 1, {number}, 5, 1, 7, 0, 1, 0, NULL, NULL, 5, 1, 1, \
             NULL, NULL, NULL, NULL, {id}, NULL, '', NULL, '[]')"
        )
    };
    let (first, second) = (grant(1), grant(2));
    for sql in ["INSERT INTO lock_spaces VALUES (1, 0, 0, 'r')", &first, &second] {
        database.execute(sql).expect(sql);
    }
    let space = |set: &str| format!("UPDATE lock_spaces SET {set}");
    let set = |set: &str| format!("UPDATE lock_grants SET {set} WHERE number = 1");
    let end = "ending = 0, ended_at = 5, ended_first_seq = 1, ended_last_seq = 0, ended_reason = ''";
    // Every check is broken alone.
    let statements = [
        space("id = 0"),
        space("ignore_case = 2"),
        space("fence = -1"),
        space("repo = ''"),
        "INSERT INTO lock_spaces VALUES (2, 0, 0, 'r')".to_owned(),
        set("number = 0"),
        set("number = 2"),
        set("space = 0"),
        set("fence = 0"),
        set("fence = 2"),
        set("task = 0"),
        set("task = NULL, attempt = NULL, attempt_fence = NULL, lease = 2"),
        set("owner = 'ada'"),
        set("task = NULL, owner = 'ada'"),
        set("task = NULL, attempt = NULL, attempt_fence = NULL, lease = 2, owner = ''"),
        set("attempt = 0"),
        set("attempt = NULL, lease = 2"),
        set("attempt_fence = -1"),
        set("attempt_fence = NULL"),
        set("attempt = NULL, attempt_fence = NULL"),
        set("until = 2"),
        set("writes = 2"),
        set("lease = 3"),
        set("lease = 1"),
        set("lease = 1, ttl_ms = 5"),
        set("lease = 1, expires_at = 5"),
        set("lease = 1, ttl_ms = -5, expires_at = 5"),
        set("ttl_ms = 5, expires_at = 5"),
        set("acquired_first_seq = 0"),
        set("acquired_last_seq = -1"),
        set(&end.replace("ending = 0", "ending = 4")),
        set(&end.replace("ended_first_seq = 1", "ended_first_seq = 0")),
        set(&end.replace("ended_last_seq = 0", "ended_last_seq = -1")),
        set(&format!("lock_id = {short}")),
        set(&format!("lock_id = {}", bytes(database, &format!("{:032x}", 2)))),
        set("reason = NULL"),
        set("paths = ''"),
    ];
    let halves = end.split(", ").map(|part| set(&end.replace(part, &nothing(part))));
    for sql in statements.into_iter().chain(halves) {
        let error = database.execute(&sql).expect_err(&sql);
        assert!(error.is_conflict(), "{sql}: {error:?}");
    }
    for sql in [
        space("fence = 2, ignore_case = 1"),
        set("until = 1, writes = 0, lease = 1, ttl_ms = 0, expires_at = -5, acquired_last_seq = 0"),
        set("lease = 2, ttl_ms = NULL, expires_at = NULL, attempt = NULL, attempt_fence = NULL"),
        set(&format!("task = NULL, owner = 'ada', lock_id = {id}")),
        set(end),
    ] {
        database.execute(&sql).expect(&sql);
    }
}

/// The same column without its value.
fn nothing(assignment: &str) -> String {
    let (column, _) = assignment.split_once(" = ").expect("an assignment");
    format!("{column} = NULL")
}

/// The statement on a connection that minds references: on SQLite each has to be told to.
fn enforced(database: &TestDatabase, sql: &str) -> String {
    if database.file().is_some() { format!("PRAGMA foreign_keys = ON; {sql}") } else { sql.to_owned() }
}

fn upgraded_runs_go_with_their_ranges(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([run_creation(1, 1, 1..=2), run_creation(2, 2, 3..=4)]);
    store.commit([with_new(upgraded_run(3, 1, 2, &[1, 5, 2]), 1, 5)]);
    // Another workflow with the same nodes.
    store.commit([same_nodes(4, 2, 2)]);
    drop(store);
    database.take_back_newest_migrations(2).expect("down");
    let bodies = database.texts("SELECT body AS text FROM run_definitions");
    assert_eq!(bodies, [&*workflow(2, 2).body], "those of the present versions of what is left");
    let mut store = open(database);
    let recovered = store.writer.recover().expect("a recovery");
    let stand: Vec<_> = recovered.tasks.iter().map(|task| (task.id.0, task.run.is_some())).collect();
    assert_eq!(stand, [(1, false), (2, false), (3, true), (4, true), (5, false)]);
    let runs: Vec<_> = recovered.runs.iter().map(|run| (run.id.0, run.state.version)).collect();
    assert_eq!(runs, [(2, 1)]);
    assert_eq!(recovered.runs[0].numbers, Numbers::row(TaskId(3), 2));
    assert!(recovered.outdated.is_empty());
}

/// Eight bytes, as the database writes them.
fn short_hash(database: &TestDatabase) -> String {
    bytes(database, "0011223344556677")
}

fn bytes(database: &TestDatabase, hex: &str) -> String {
    if database.file().is_some() { format!("x'{hex}'") } else { format!("'\\x{hex}'::bytea") }
}
