//! Runs go as a whole, relations with either task, workflows with their last run.

use std::collections::BTreeSet;

use agentflow_core::batch::{Batch, RunChange, RunState, RunWrite};
use agentflow_core::ids::{RunId, TaskId};
use agentflow_core::relation::Relation;
use agentflow_core::run::RunStatus;
use agentflow_core::status::Status;
use agentflow_core::time::Wall;
use agentflow_schema::testing::TestDatabase;
use agentflow_schema::{Pruned, Readers, RunFilter};

use crate::build::{
    batch, changed, changed_run, creation, definition, new_run, open, open_relaxed, relation, run_birth,
    run_creation, run_state, state,
};
use crate::on_both;
use crate::retention::{remaining, round, settled};
use crate::run_versions::{same_nodes, upgraded_run, version_row, with_new, workflow};

on_both!(
    nodes_of_a_run_that_goes_on_stay,
    a_run_goes_with_its_tasks,
    a_run_outlives_its_last_task,
    a_run_about_to_be_run_again_stays,
    a_run_half_removed_is_not_loaded,
    workflows_go_with_their_last_run,
    workflows_of_versions_go_with_their_last_run,
    relations_go_with_either_task,
    what_a_blocked_task_comes_after_stays,
    many_relations_go_in_turns,
);

pub(crate) fn ended(id: u64, at: i64) -> RunWrite {
    changed_run(id, RunState { settled_at: Some(Wall(at)), ..run_state(RunStatus::Completed) })
}

fn runs_left(database: &TestDatabase) -> Vec<u64> {
    let readers = Readers::open(database.target()).expect("the writer made it");
    let (page, _) = readers.runs(&RunFilter::default(), None, 1_000).expect("a read");
    page.iter().rev().map(|run| run.id.0).collect()
}

fn relations_left(database: &TestDatabase) -> Vec<String> {
    database.texts(
        "SELECT CAST(predecessor AS TEXT) || '-' || CAST(successor AS TEXT) AS text FROM task_relationships \
         ORDER BY predecessor, successor",
    )
}

fn removed(turns: &[Pruned]) -> (usize, usize) {
    (turns.iter().map(|turn| turn.runs).sum(), turns.iter().map(|turn| turn.definitions).sum())
}

fn nodes_of_a_run_that_goes_on_stay(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([run_creation(1, 1, 1..=2), creation(2, 3..=3)]);
    store
        .commit([Batch { tasks: [1, 3].map(|id| settled(id, Status::Completed, 100)).to_vec(), ..batch(3) }]);
    let turns = round(&mut store, Wall(1_000), Wall(500), 10);
    assert_eq!((remaining(database), removed(&turns)), (vec![1, 2], (0, 0)));
    assert_eq!(turns[0].settled.completed, 1);
}

fn a_run_goes_with_its_tasks(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([run_creation(1, 1, 1..=5), run_creation(2, 2, 6..=7), creation(3, 8..=8)]);
    store.commit([Batch {
        tasks: (1..=7).map(|id| settled(id, Status::Completed, 100)).collect(),
        runs: vec![ended(1, 200), ended(2, 900)],
        ..batch(4)
    }]);
    // The second one ended too recently, and keeps even its old tasks.
    let turns = round(&mut store, Wall(1_000), Wall(500), 2);
    assert!(turns.len() >= 3, "{turns:?}");
    assert_eq!((remaining(database), runs_left(database)), (vec![6, 7, 8], vec![2]));
    assert_eq!(removed(&turns), (1, 1));
    let turns = round(&mut store, Wall(2_000), Wall(950), 100);
    assert_eq!((remaining(database), runs_left(database)), (vec![8], vec![]));
    assert_eq!((turns.len(), removed(&turns)), (1, (1, 1)));
}

fn a_run_outlives_its_last_task(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([run_creation(1, 1, 1..=1), run_creation(2, 2, 2..=2)]);
    // One whose nodes never had a row.
    let text = definition("empty");
    let empty = new_run(
        3,
        run_birth(&text, 3, 1_000),
        RunState { settled_at: Some(Wall(100)), ..run_state(RunStatus::Cancelled) },
    );
    store.commit([Batch {
        tasks: [1, 2].map(|id| settled(id, Status::Completed, 100)).to_vec(),
        runs: vec![ended(1, 200), ended(2, 200), empty],
        definitions: vec![text],
        ..batch(3)
    }]);
    assert_eq!(store.writer.load_tasks(&[TaskId(2)]).expect("a read").len(), 1);
    round(&mut store, Wall(1_000), Wall(500), 10);
    assert_eq!((remaining(database), runs_left(database)), (vec![2], vec![2]));
    round(&mut store, Wall(1_000), Wall(500), 10);
    round(&mut store, Wall(1_000), Wall(500), 10);
    assert_eq!((remaining(database), runs_left(database)), (vec![], vec![]));
    assert!(database.texts("SELECT body AS text FROM run_definitions").is_empty());
}

fn a_run_about_to_be_run_again_stays(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([run_creation(1, 1, 1..=2), run_creation(2, 2, 3..=3)]);
    store.commit([Batch {
        tasks: (1..=3).map(|id| settled(id, Status::Failed, 100)).collect(),
        runs: vec![ended(1, 200), ended(2, 200)],
        ..batch(3)
    }]);
    assert_eq!(store.writer.load_runs(&[RunId(1)]).expect("a read").len(), 1);
    round(&mut store, Wall(1_000), Wall(500), 10);
    assert_eq!((remaining(database), runs_left(database)), (vec![1, 2], vec![1]));
    assert_eq!(store.writer.load_runs(&[RunId(1)]).expect("still whole").len(), 1);
    store.commit([Batch {
        runs: vec![changed_run(1, RunState { revision: 2, ..run_state(RunStatus::Running) })],
        tasks: vec![changed(2, state(Status::Pending))],
        ..batch(4)
    }]);
    for _ in 0..3 {
        round(&mut store, Wall(1_000), Wall(500), 10);
    }
    assert_eq!((remaining(database), runs_left(database)), (vec![1, 2], vec![1]));
}

fn a_run_half_removed_is_not_loaded(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([run_creation(1, 1, 1..=4), run_creation(2, 2, 5..=5)]);
    store.commit([Batch {
        tasks: (1..=5).map(|id| settled(id, Status::Completed, 100)).collect(),
        runs: vec![ended(1, 200), ended(2, 900)],
        ..batch(3)
    }]);
    let turn = store.writer.prune(store.epoch, Wall(1_000), Wall(500), 1).expect("a turn");
    assert!(turn.more && turn.runs == 0);
    let loaded = store.writer.load_runs(&[RunId(1), RunId(2)]).expect("a read");
    assert_eq!(loaded.iter().map(|run| run.0.id.0).collect::<Vec<_>>(), [2]);
    round(&mut store, Wall(1_000), Wall(500), 1);
    assert_eq!((remaining(database), runs_left(database)), (vec![5], vec![2]));
}

fn workflows_go_with_their_last_run(database: &TestDatabase) {
    let mut store = open(database);
    let text = definition("shared");
    let old = RunState { settled_at: Some(Wall(100)), ..run_state(RunStatus::Completed) };
    let birth = run_birth(&text, 1, 0);
    store.commit([Batch {
        runs: vec![
            new_run(1, birth.clone(), old.clone()),
            new_run(2, birth.clone(), run_state(RunStatus::Running)),
            new_run(3, birth.clone(), old.clone()),
        ],
        definitions: vec![text.clone()],
        ..batch(1)
    }]);
    let turns = round(&mut store, Wall(1_000), Wall(500), 10);
    assert_eq!((runs_left(database), removed(&turns)), (vec![2], (2, 0)));
    store.commit([Batch { runs: vec![changed_run(2, old)], ..batch(2) }]);
    let turns = round(&mut store, Wall(1_000), Wall(500), 10);
    assert_eq!((runs_left(database), removed(&turns)), (vec![], (1, 1)));
    // And comes back with the next one.
    let again = new_run(4, birth, run_state(RunStatus::Pending));
    store.commit([Batch { runs: vec![again], definitions: vec![text], ..batch(3) }]);
}

fn workflows_of_versions_go_with_their_last_run(database: &TestDatabase) {
    let mut store = open(database);
    let old = |id| ended(id, 100);
    let left = || BTreeSet::from_iter(database.texts("SELECT body AS text FROM run_definitions"));
    let texts = |which: &[(u64, u32)]| -> BTreeSet<String> {
        which.iter().map(|(run, version)| workflow(*run, *version).body.to_string()).collect()
    };
    store.commit([run_creation(1, 1, 1..=2), run_creation(2, 2, 3..=3)]);
    store.commit([with_new(upgraded_run(3, 1, 2, &[1, 4]), 1, 4), upgraded_run(4, 1, 3, &[4, 1])]);
    // The second run became what the first was, and is the only one that has ended.
    let borrowed = same_nodes(5, 2, 2);
    let change = RunChange { definition: workflow(1, 1).hash, inputs: "null".into(), layout: None };
    store.commit([
        Batch {
            runs: vec![RunWrite { change: Some(Box::new(change)), ..borrowed.runs[0].clone() }],
            run_versions: vec![
                version_row(2, 1, &workflow(2, 1)),
                version_row(2, 2, &workflow(1, 1)),
                version_row(2, 3, &workflow(1, 2)),
            ],
            ..borrowed
        },
        Batch { tasks: vec![settled(3, Status::Completed, 100)], runs: vec![old(2)], ..batch(6) },
    ]);
    assert_eq!(left(), texts(&[(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]));
    let turns = round(&mut store, Wall(1_000), Wall(500), 10);
    assert_eq!((runs_left(database), removed(&turns)), (vec![1], (1, 1)));
    // Its second workflow was never named.
    assert_eq!(left(), texts(&[(1, 1), (1, 2), (1, 3), (2, 2)]));
    store.commit([Batch {
        tasks: [1, 2, 4].map(|id| settled(id, Status::Completed, 100)).to_vec(),
        runs: vec![old(1)],
        ..batch(7)
    }]);
    let turns = round(&mut store, Wall(1_000), Wall(500), 10);
    assert_eq!((runs_left(database), removed(&turns)), (vec![], (1, 3)));
    assert_eq!(left(), texts(&[(2, 2)]));
    for table in ["run_versions", "run_ranges", "task_outdated"] {
        let rows = format!("SELECT CAST(count(*) AS TEXT) AS text FROM {table}");
        assert_eq!(database.texts(&rows), ["0"], "{table}");
    }
}

fn relations_go_with_either_task(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=5)]);
    store.commit([Batch {
        tasks: vec![settled(2, Status::Completed, 100)],
        relations: vec![
            relation(1, 2, Relation::Dependency),
            relation(2, 3, Relation::Dependency),
            relation(2, 3, Relation::Upgrade),
            relation(4, 5, Relation::Sequential),
        ],
        ..batch(2)
    }]);
    round(&mut store, Wall(1_000), Wall(500), 10);
    assert_eq!((remaining(database), relations_left(database)), (vec![1, 3, 4, 5], vec!["4-5".to_owned()]));
}

fn what_a_blocked_task_comes_after_stays(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=4)]);
    store.commit([Batch {
        tasks: vec![
            settled(1, Status::Completed, 100),
            settled(2, Status::Completed, 100),
            changed(4, state(Status::Blocked)),
        ],
        relations: vec![
            relation(1, 4, Relation::Context),
            relation(2, 4, Relation::Parallel),
            relation(3, 4, Relation::Dependency),
        ],
        ..batch(2)
    }]);
    round(&mut store, Wall(1_000), Wall(500), 10);
    assert_eq!(remaining(database), [1, 3, 4]);
    assert_eq!(relations_left(database), ["1-4", "3-4"]);
    store.commit([Batch { tasks: vec![changed(4, state(Status::Pending))], ..batch(3) }]);
    round(&mut store, Wall(1_000), Wall(500), 10);
    assert_eq!(remaining(database), [3, 4]);
}

fn many_relations_go_in_turns(database: &TestDatabase) {
    let mut store = open_relaxed(database);
    store.commit([creation(1, 1..=4_000)]);
    let fan = [1, 4_000, 3_999]
        .map(|from| (2..=3_998).map(move |to| relation(from, to, Relation::Dependency)).collect::<Vec<_>>());
    store.commit([Batch {
        tasks: [1, 3_999, 4_000].map(|id| settled(id, Status::Completed, 100)).to_vec(),
        relations: fan.concat(),
        ..batch(2)
    }]);
    let turns = round(&mut store, Wall(1_000), Wall(500), 10_000);
    assert_eq!(turns.iter().map(|turn| turn.settled.completed).collect::<Vec<_>>(), [0, 3]);
    assert!(relations_left(database).is_empty());
    assert_eq!(remaining(database).len(), 1_000);
}
