//! Versions of runs: which task each node is since, what nodes are called, and what each version was.

use agentflow_core::batch::{
    Batch, DefinitionRow, NodeRename, OutdatedRow, RunBirth, RunChange, RunLayout, RunRow, RunState,
    RunVersionRow, RunWrite,
};
use agentflow_core::ids::{RunId, TaskId};
use agentflow_core::run::{Numbers, RunStatus};
use agentflow_core::status::Status;
use agentflow_core::time::Wall;
use agentflow_schema::testing::TestDatabase;
use agentflow_schema::{Readers, RunFilter, RunVersionRecord};

use crate::build::{
    as_node, batch, changed, creation, definition, gather, new_run, new_task, noop, open, place, run_birth,
    run_creation, run_state, state,
};
use crate::on_both;
use crate::retention::{remaining, round, settled};
use crate::run_retention::ended;

on_both!(
    versions_are_read_back_whole,
    a_version_needs_its_workflow_and_is_made_once,
    a_layout_takes_the_place_of_the_one_before,
    the_last_layout_of_a_commit_counts,
    a_run_may_be_made_and_upgraded_within_a_commit,
    other_values_leave_the_layout,
    numbers_find_their_run,
    damaged_ranges_are_noticed,
    nodes_are_renamed,
    new_nodes_are_renamed_within_a_commit,
    outdated_nodes_are_kept_until_they_are_not,
    ended_runs_are_loaded_as_they_were_upgraded,
);

fn readers(database: &TestDatabase) -> Readers {
    Readers::open(database.target()).expect("the writer made it")
}

/// The workflow of a run in that version.
pub(crate) fn workflow(run: u64, version: u32) -> DefinitionRow {
    let later = if version == 1 { String::new() } else { format!(" v{version}") };
    definition(&format!("of run {run}{later}"))
}

fn numbers(tasks: &[u64]) -> Numbers {
    tasks.iter().copied().map(TaskId).collect()
}

pub(crate) fn version_row(run: u64, version: u32, definition: &DefinitionRow) -> RunVersionRow {
    let is_first = version == 1;
    RunVersionRow {
        run: RunId(run),
        version,
        definition: definition.hash,
        inputs: inputs(version).into(),
        reason: if is_first { "".into() } else { "better".into() },
        author: if is_first { "".into() } else { "me".into() },
        created_at: Wall(if is_first { 5 } else { i64::from(version) * 100 }),
    }
}

fn inputs(version: u32) -> String {
    format!(r#"{{"a":{version}}}"#)
}

fn upgraded_state(version: u32) -> RunState {
    RunState { version, ..run_state(RunStatus::Running) }
}

/// An upgrade to another workflow with the same nodes.
pub(crate) fn same_nodes(decision: u64, run: u64, version: u32) -> Batch {
    let text = workflow(run, version);
    let change = RunChange { definition: text.hash, inputs: inputs(version).into(), layout: None };
    let first = (version == 2).then(|| version_row(run, 1, &workflow(run, 1)));
    Batch {
        runs: vec![RunWrite {
            id: RunId(run),
            birth: None,
            change: Some(Box::new(change)),
            state: upgraded_state(version),
        }],
        run_versions: first.into_iter().chain([version_row(run, version, &text)]).collect(),
        definitions: vec![text],
        ..batch(decision)
    }
}

fn layout(version: u32, tasks: &[u64]) -> RunLayout {
    RunLayout { name: format!("Version {version}").into(), mode: "pipeline", numbers: numbers(tasks) }
}

/// An upgrade to another workflow with these nodes, none of which has a new row yet.
pub(crate) fn upgraded_run(decision: u64, run: u64, version: u32, tasks: &[u64]) -> Batch {
    let mut upgrade = same_nodes(decision, run, version);
    for change in upgrade.runs.iter_mut().filter_map(|write| write.change.as_mut()) {
        change.layout = Some(layout(version, tasks));
    }
    upgrade
}

/// The same with a new node that begins at once.
pub(crate) fn with_new(upgrade: Batch, run: u64, task: u64) -> Batch {
    let new = as_node(new_task(task, &noop(), state(Status::Pending)), run, &format!("new{task}"));
    Batch { tasks: vec![new], specs: vec![noop()], ..upgrade }
}

fn row(database: &TestDatabase, run: u64) -> RunRow {
    readers(database).run(RunId(run)).expect("a read").expect("the run").row
}

/// The rows of ranges as `run: node task count`.
fn ranges(database: &TestDatabase) -> Vec<String> {
    database.texts(
        "SELECT CAST(run AS TEXT) || ': ' || CAST(node AS TEXT) || ' ' || CAST(task AS TEXT) || ' ' || \
         CAST(count AS TEXT) AS text FROM run_ranges ORDER BY run, node",
    )
}

/// What an upgrade leaves of [`run_creation`] with these tasks.
fn expected(run: u64, version: u32, first_task: u64, tasks: &[u64]) -> RunRow {
    let birth = run_birth(&workflow(run, version), first_task, 0);
    RunRow {
        id: RunId(run),
        birth: RunBirth {
            name: format!("Version {version}").into(),
            mode: "pipeline",
            nodes: u32::try_from(tasks.len()).expect("few"),
            inputs: inputs(version).into(),
            ..birth
        },
        numbers: numbers(tasks),
        state: upgraded_state(version),
    }
}

fn versions_are_read_back_whole(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([run_creation(1, 1, 1..=2), run_creation(2, 2, 3..=3)]);
    let readers = readers(database);
    assert_eq!(readers.run_versions(RunId(1), 0, 100).expect("a read").0, [], "its own row says it all");
    let record = |version| RunVersionRecord {
        row: version_row(1, version, &workflow(1, version)),
        definition_body: workflow(1, version).body.to_string(),
    };
    store.commit([upgraded_run(3, 1, 2, &[1, 4])]);
    assert_eq!(readers.run_versions(RunId(1), 0, 100).expect("a read").0, [record(1), record(2)]);
    // Several may be made within a commit.
    store.commit([same_nodes(4, 1, 3), same_nodes(5, 1, 4)]);
    let all: Vec<_> = (1..=4).map(record).collect();
    assert_eq!(readers.run_versions(RunId(1), 0, 100).expect("a read").0, all);
    let page = |after, limit| readers.run_versions(RunId(1), after, limit).expect("a read");
    assert_eq!(page(0, 3), (all[..3].to_vec(), true));
    assert_eq!(page(3, 3), (all[3..].to_vec(), false));
    assert_eq!(page(4, 3), (vec![], false));
    let of = |run| readers.run_versions(RunId(run), 0, 100).expect("a read").0;
    assert_eq!((of(2), of(9)), (vec![], vec![]));
    let (page, _) = readers.runs(&RunFilter::default(), None, 10).expect("a read");
    let listed: Vec<_> =
        page.iter().map(|run| (run.id.0, run.state.version, &*run.name, run.nodes)).collect();
    assert_eq!(listed, [(2, 1, "A run", 1), (1, 4, "Version 2", 2)]);
    let recovered = open(database).writer.recover().expect("a recovery");
    assert_eq!(recovered.definitions.len(), 2, "what nobody runs any more is not read");
}

fn a_version_needs_its_workflow_and_is_made_once(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([run_creation(1, 1, 1..=2)]);
    let unknown = Batch { run_versions: vec![version_row(1, 1, &definition("unknown"))], ..batch(2) };
    assert!(store.try_commit([unknown]).expect_err("its text is missing").is_conflict());
    let nobody = Batch { run_versions: vec![version_row(9, 1, &workflow(1, 1))], ..batch(2) };
    assert!(store.try_commit([nobody]).expect_err("no such run").is_conflict());
    let upgrade = same_nodes(2, 1, 2);
    let gathered = gather([upgrade.clone()]);
    assert_eq!(gathered.rows(), 4);
    assert!(gathered.bytes() > upgrade.definitions[0].body.len() + 2 * inputs(2).len());
    store.commit([upgrade]);
    let again = store.try_commit([Batch { decision: batch(3).decision, ..same_nodes(3, 1, 2) }]);
    assert!(again.expect_err("made twice").is_conflict());
    assert_eq!(readers(database).run_versions(RunId(1), 0, 100).expect("a read").0.len(), 2);
}

fn a_layout_takes_the_place_of_the_one_before(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([run_creation(1, 1, 1..=3), run_creation(2, 2, 4..=5)]);
    assert_eq!(row(database, 1).numbers, Numbers::row(TaskId(1), 3));
    assert!(ranges(database).is_empty());
    store.commit([upgraded_run(3, 1, 2, &[1, 6, 7, 3])]);
    assert_eq!(row(database, 1), expected(1, 2, 1, &[1, 6, 7, 3]));
    assert_eq!(ranges(database), ["1: 0 1 1", "1: 1 6 2", "1: 3 3 1"]);
    // Fewer of them, in another order.
    store.commit([upgraded_run(4, 1, 3, &[7, 1])]);
    assert_eq!(row(database, 1), expected(1, 3, 1, &[7, 1]));
    assert_eq!(ranges(database), ["1: 0 7 1", "1: 1 1 1"]);
    // Two at once.
    store.commit([upgraded_run(5, 1, 4, &[1, 2, 3]), upgraded_run(6, 2, 2, &[8, 4])]);
    assert_eq!(ranges(database), ["1: 0 1 3", "2: 0 8 1", "2: 1 4 1"]);
    let recovered = open(database).writer.recover().expect("a recovery");
    assert_eq!(recovered.runs, [expected(1, 4, 1, &[1, 2, 3]), expected(2, 2, 4, &[8, 4])]);
    // None is left.
    let mut store = open(database);
    store.commit([upgraded_run(1, 1, 5, &[])]);
    assert_eq!(row(database, 1), expected(1, 5, 1, &[]));
    assert_eq!(readers(database).run_with_node(TaskId(1)).expect("a read"), None);
}

fn the_last_layout_of_a_commit_counts(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([run_creation(1, 1, 1..=3)]);
    store.commit([
        upgraded_run(2, 1, 2, &[1, 4, 5]),
        upgraded_run(3, 1, 3, &[3, 5, 1]),
        Batch {
            runs: vec![RunWrite {
                id: RunId(1),
                birth: None,
                change: None,
                state: RunState { revision: 7, ..upgraded_state(3) },
            }],
            ..batch(4)
        },
    ]);
    let expected = expected(1, 3, 1, &[3, 5, 1]);
    assert_eq!(row(database, 1), RunRow { state: RunState { revision: 7, ..upgraded_state(3) }, ..expected });
    assert_eq!(readers(database).run_versions(RunId(1), 0, 100).expect("a read").0.len(), 3);
}

fn a_run_may_be_made_and_upgraded_within_a_commit(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([run_creation(1, 1, 1..=3), with_new(upgraded_run(2, 1, 2, &[3, 4]), 1, 4)]);
    assert_eq!(row(database, 1), expected(1, 2, 1, &[3, 4]));
    assert_eq!(ranges(database), ["1: 0 3 2"]);
    assert_eq!(nodes(database, 1), named(&[(1, "n1"), (2, "n2"), (3, "n3"), (4, "new4")]));
    assert_eq!(readers(database).run_versions(RunId(1), 0, 100).expect("a read").0.len(), 2);
}

fn other_values_leave_the_layout(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([run_creation(1, 1, 1..=3)]);
    store.commit([upgraded_run(2, 1, 2, &[1, 4]), same_nodes(3, 1, 3)]);
    let third = |expected: RunRow| RunRow {
        birth: RunBirth { definition: workflow(1, 3).hash, inputs: inputs(3).into(), ..expected.birth },
        state: upgraded_state(3),
        ..expected
    };
    assert_eq!(row(database, 1), third(expected(1, 2, 1, &[1, 4])));
    // And in a commit of their own.
    store.commit([same_nodes(4, 1, 4)]);
    assert_eq!((row(database, 1).numbers, row(database, 1).birth.nodes), (numbers(&[1, 4]), 2));
}

fn numbers_find_their_run(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=3), run_creation(2, 1, 4..=7), run_creation(3, 2, 9..=10)]);
    let readers = readers(database);
    let found = || -> Vec<(u64, u64)> {
        let run = |id| readers.run_with_node(TaskId(id)).expect("a read").map(|found| (id, found.row.id.0));
        (1..=20).filter_map(run).collect()
    };
    assert_eq!(found(), [(4, 1), (5, 1), (6, 1), (7, 1), (9, 2), (10, 2)]);
    store.commit([upgraded_run(4, 1, 2, &[4, 12, 13, 7])]);
    assert_eq!(found(), [(4, 1), (7, 1), (9, 2), (10, 2), (12, 1), (13, 1)]);
    store.commit([run_creation(5, 3, 14..=15)]);
    store.commit([upgraded_run(6, 1, 3, &[13, 5]), upgraded_run(7, 2, 2, &[9, 10, 17])]);
    assert_eq!(found(), [(5, 1), (9, 2), (10, 2), (13, 1), (14, 3), (15, 3), (17, 2)]);
    let record = readers.run_with_node(TaskId(5)).expect("a read").expect("a kept node");
    assert_eq!((record.row, record.definition_body), (row(database, 1), workflow(1, 3).body.to_string()));
}

fn damaged_ranges_are_noticed(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([run_creation(1, 1, 1..=3)]);
    store.commit([upgraded_run(2, 1, 2, &[1, 4, 5, 2])]);
    for damage in [
        "DELETE FROM run_ranges WHERE node = 0",
        "DELETE FROM run_ranges WHERE node = 3",
        "UPDATE run_ranges SET count = 2 WHERE node = 0",
        "UPDATE runs SET nodes = 5",
    ] {
        database.execute(damage).expect(damage);
        let read = readers(database).run(RunId(1));
        assert!(read.expect_err(damage).is_corrupt(), "{damage}");
        assert!(store.writer.recover().expect_err(damage).is_corrupt(), "{damage}");
        database
            .execute(
                "DELETE FROM run_ranges; UPDATE runs SET nodes = 4; \
                 INSERT INTO run_ranges VALUES (1, 0, 1, 1), (1, 1, 4, 2), (1, 3, 2, 1)",
            )
            .expect("as it was");
        assert_eq!(row(database, 1).numbers, numbers(&[1, 4, 5, 2]));
    }
}

fn renamed(task: u64, node: &str) -> NodeRename {
    NodeRename { task: TaskId(task), node: node.into() }
}

/// The tasks of a run and their names.
fn nodes(database: &TestDatabase, run: u64) -> Vec<(u64, String)> {
    let nodes = readers(database).nodes(RunId(run), TaskId(0), 100).expect("a read");
    nodes.into_iter().map(|node| (node.task.0, node.node)).collect()
}

fn named(names: &[(u64, &str)]) -> Vec<(u64, String)> {
    names.iter().map(|(task, node)| (*task, (*node).to_owned())).collect()
}

fn nodes_are_renamed(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([run_creation(1, 1, 1..=3), creation(2, 4..=4)]);
    // Two change their names, one of them twice and with its state.
    let rename = Batch {
        tasks: vec![changed(2, state(Status::Running))],
        renames: vec![renamed(1, "n2"), renamed(2, "n1"), renamed(2, "other")],
        ..batch(3)
    };
    assert_eq!(gather([rename.clone()]).rows(), 3);
    store.commit([rename]);
    assert_eq!(nodes(database, 1), named(&[(1, "n2"), (2, "other"), (3, "n3")]));
    store.commit([
        Batch { renames: vec![renamed(3, "first")], ..batch(4) },
        Batch { renames: vec![renamed(3, "last")], ..batch(5) },
    ]);
    assert_eq!(nodes(database, 1), named(&[(1, "n2"), (2, "other"), (3, "last")]));
    let recovered = store.writer.recover().expect("a recovery");
    assert_eq!(recovered.tasks[1].run, Some(place(1, "other")));
    assert_eq!((recovered.tasks[1].state.status, recovered.tasks.len()), (Status::Running, 4));
    for wrong in [renamed(9, "nobody"), renamed(4, "of no run"), renamed(1, "")] {
        let name = wrong.node.clone();
        let refused = store.try_commit([Batch { renames: vec![wrong], ..batch(6) }]);
        assert!(refused.expect_err(&name).is_conflict(), "{name}");
    }
}

fn new_nodes_are_renamed_within_a_commit(database: &TestDatabase) {
    let mut store = open(database);
    let birth = run_creation(1, 1, 1..=2);
    store.commit([
        Batch { renames: vec![renamed(1, "first")], ..birth },
        Batch {
            tasks: vec![changed(2, state(Status::Running))],
            renames: vec![renamed(1, "second"), renamed(2, "other")],
            ..batch(2)
        },
    ]);
    assert_eq!(nodes(database, 1), named(&[(1, "second"), (2, "other")]));
    let plain = Batch { renames: vec![renamed(3, "of no run")], ..creation(3, 3..=3) };
    assert!(store.try_commit([plain]).expect_err("it has no run").is_conflict());
}

fn outdated(task: u64, outdated: bool) -> OutdatedRow {
    OutdatedRow { task: TaskId(task), outdated }
}

fn outdated_nodes_are_kept_until_they_are_not(database: &TestDatabase) {
    let mut store = open(database);
    let said = |rows: &[(u64, bool)]| rows.iter().map(|(task, is)| outdated(*task, *is)).collect::<Vec<_>>();
    let birth = run_creation(1, 1, 1..=4);
    // As early as they are made.
    let birth = Batch { outdated: said(&[(3, true), (1, true), (2, false), (4, true)]), ..birth };
    store.commit([birth]);
    let left = |store: &mut crate::build::Store| -> Vec<u64> {
        let recovered = store.writer.recover().expect("a recovery");
        recovered.outdated.iter().map(|task| task.0).collect()
    };
    assert_eq!(left(&mut store), [1, 3, 4]);
    let gathered = gather([
        Batch { outdated: said(&[(1, true), (2, true), (3, false)]), ..batch(2) },
        Batch { outdated: said(&[(2, false), (4, false), (3, false)]), ..batch(3) },
        Batch { outdated: said(&[(4, true)]), ..batch(4) },
    ]);
    assert_eq!((gathered.rows(), gathered.bytes()), (4, 140));
    store.writer.commit(store.epoch, &gathered).expect("a commit");
    assert_eq!(left(&mut store), [1, 4]);
    let nobody = Batch { outdated: said(&[(9, true)]), ..batch(5) };
    assert!(store.try_commit([nobody]).expect_err("no such task").is_conflict());
    store.commit([Batch {
        tasks: (1..=4).map(|id| settled(id, Status::Completed, 100)).collect(),
        runs: vec![ended(1, 100)],
        outdated: said(&[(9, false)]),
        ..batch(5)
    }]);
    round(&mut store, Wall(1_000), Wall(500), 10);
    assert_eq!((remaining(database), left(&mut store)), (vec![], vec![]));
}

fn ended_runs_are_loaded_as_they_were_upgraded(database: &TestDatabase) {
    let mut store = open(database);
    let text = workflow(2, 1);
    store.commit([
        run_creation(1, 1, 1..=2),
        Batch {
            runs: vec![new_run(2, run_birth(&text, 3, 1), run_state(RunStatus::Running))],
            definitions: vec![text],
            ..batch(2)
        },
    ]);
    store.commit([upgraded_run(3, 1, 2, &[2, 4])]);
    let state = RunState { version: 2, ..run_state(RunStatus::Failed) };
    let over = RunWrite { id: RunId(1), birth: None, change: None, state: state.clone() };
    store.commit([Batch { runs: vec![over], ..batch(4) }]);
    let loaded = store.writer.load_runs(&[RunId(1), RunId(2)]).expect("a read");
    assert_eq!(loaded[0].0, RunRow { state, ..expected(1, 2, 1, &[2, 4]) });
    assert_eq!((&loaded[0].1, &loaded[1].0.numbers), (&workflow(1, 2), &Numbers::row(TaskId(3), 1)));
}
