//! Relations between tasks: written once, found from both ends, and recovered while somebody waits.

use agentflow_core::batch::{Batch, LiveRelation, Outcome, RelationRow, TaskState, Waits};
use agentflow_core::blob::Outputs;
use agentflow_core::ids::TaskId;
use agentflow_core::relation::Relation;
use agentflow_core::status::Status;
use agentflow_core::time::Wall;
use agentflow_schema::Readers;
use agentflow_schema::testing::TestDatabase;

use crate::build::{
    Store, batch, changed, creation, gather, open, open_relaxed, relation, run_creation, state, with_outcome,
};
use crate::on_both;

on_both!(
    relations_are_kept_as_they_first_came,
    relations_need_both_tasks,
    relations_among_tasks_are_found,
    recovery_finds_what_blocked_tasks_wait_for,
    many_relations_are_read_in_pages,
    waits_are_kept,
    live_tasks_of_a_group_are_found,
);

fn readers(database: &TestDatabase) -> Readers {
    Readers::open(database.target()).expect("the writer made it")
}

fn relate(store: &mut Store, decision: u64, relations: &[RelationRow]) {
    store.commit([Batch { relations: relations.to_vec(), ..batch(decision) }]);
}

fn relations_are_kept_as_they_first_came(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=4)]);
    let first = relation(1, 2, Relation::Dependency);
    let later = RelationRow { created_at: Wall(99), ..first };
    let gathered = gather([
        Batch { relations: vec![first, relation(2, 3, Relation::Sequential)], ..batch(2) },
        Batch { relations: vec![later, relation(1, 2, Relation::Upgrade)], ..batch(3) },
    ]);
    assert_eq!(gathered.rows(), 3);
    store.writer.commit(store.epoch, &gathered).expect("a commit");
    relate(&mut store, 4, &[later, relation(4, 2, Relation::Context)]);
    let readers = readers(database);
    assert_eq!(
        readers.relations_of(TaskId(2)).expect("a read"),
        [
            first,
            relation(1, 2, Relation::Upgrade),
            relation(4, 2, Relation::Context),
            relation(2, 3, Relation::Sequential),
        ]
    );
    assert_eq!(readers.relations_of(TaskId(9)).expect("a read"), []);
}

fn relations_need_both_tasks(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=1)]);
    for (predecessor, successor) in [(1, 9), (9, 1), (1, 1)] {
        let wrong =
            Batch { relations: vec![relation(predecessor, successor, Relation::Parallel)], ..batch(2) };
        assert!(store.try_commit([wrong]).expect_err("no two tasks").is_conflict());
    }
    // A relation may come with its tasks.
    store.commit([Batch { relations: vec![relation(1, 2, Relation::Parallel)], ..creation(2, 2..=2) }]);
    assert_eq!(readers(database).relations_of(TaskId(1)).expect("a read").len(), 1);
}

fn relations_among_tasks_are_found(database: &TestDatabase) {
    let mut store = open_relaxed(database);
    // Longer than one list of ids.
    store.commit([creation(1, 1..=1_200)]);
    let chain: Vec<_> = (1..1_200).map(|id| relation(id, id + 1, Relation::Dependency)).collect();
    relate(&mut store, 2, &chain);
    relate(&mut store, 3, &[relation(1, 1_200, Relation::Parallel)]);
    let readers = readers(database);
    let among = |ids: &[u64]| -> Vec<(u64, u64)> {
        let ids: Vec<_> = ids.iter().copied().map(TaskId).collect();
        let found = readers.relations_among(&ids).expect("a read");
        found.into_iter().map(|row| (row.predecessor.0, row.successor.0)).collect()
    };
    assert_eq!(among(&[3, 1, 2, 2]), [(1, 2), (2, 3)]);
    assert_eq!(among(&[1, 1_200, 1_199]), [(1, 1_200), (1_199, 1_200)]);
    assert_eq!(among(&[1, 3, 5]), []);
    assert_eq!(among(&[]), []);
    assert_eq!(among(&(1..=1_200).rev().collect::<Vec<_>>()).len(), 1_200);
}

fn recovery_finds_what_blocked_tasks_wait_for(database: &TestDatabase) {
    let mut store = open(database);
    let outputs: Box<str> = r#"{"a":1}"#.into();
    let outcome = Outcome { exit_code: Some(0), outputs: Some(outputs.clone()), ..Outcome::default() };
    store.commit([creation(1, 1..=7)]);
    store.commit([Batch {
        tasks: vec![
            with_outcome(changed(1, state(Status::Completed)), outcome),
            changed(2, state(Status::Failed)),
            changed(4, state(Status::Blocked)),
            changed(5, state(Status::Blocked)),
        ],
        relations: vec![
            relation(1, 4, Relation::Context),
            relation(1, 5, Relation::Dependency),
            relation(2, 5, Relation::Sequential),
            relation(2, 5, Relation::Context),
            relation(3, 4, Relation::Context),
            relation(6, 4, Relation::Parallel),
            relation(6, 5, Relation::Upgrade),
            // Nobody waits at its end.
            relation(1, 7, Relation::Dependency),
            relation(4, 6, Relation::Dependency),
        ],
        ..batch(2)
    }]);
    let mut next = open(database);
    let recovered = next.writer.recover().expect("a recovery");
    let live = |row, ended| LiveRelation { row, ended };
    assert_eq!(
        recovered.relations,
        [
            live(relation(1, 4, Relation::Context), Some((Status::Completed, Some(Outputs::Text(outputs))))),
            live(relation(3, 4, Relation::Context), None),
            live(relation(1, 5, Relation::Dependency), Some((Status::Completed, None))),
            live(relation(2, 5, Relation::Context), Some((Status::Failed, None))),
            live(relation(2, 5, Relation::Sequential), Some((Status::Failed, None))),
        ]
    );
}

fn many_relations_are_read_in_pages(database: &TestDatabase) {
    let mut store = open_relaxed(database);
    store.commit([creation(1, 1..=2_600)]);
    let blocked = [2_600, 1, 2_000];
    store.commit([Batch {
        tasks: blocked.map(|id| changed(id, state(Status::Blocked))).to_vec(),
        ..batch(2)
    }]);
    let mut wanted: Vec<_> = (1..=2_599)
        .flat_map(|id| [Relation::Dependency, Relation::Sequential].map(|kind| relation(id, 2_600, kind)))
        .chain((2..2_000).map(|id| relation(id, 2_000, Relation::Context)))
        .chain([relation(2_600, 1, Relation::Dependency)])
        .collect();
    relate(&mut store, 3, &wanted);
    wanted.sort_by_key(|row| (row.successor, row.predecessor, row.relation));
    let recovered = store.writer.recover().expect("a recovery");
    let found: Vec<_> = recovered.relations.iter().map(|live| live.row).collect();
    assert!(found == wanted, "{} of {} relations", found.len(), wanted.len());
}

fn waits_are_kept(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=3)]);
    let waiting = |id, waits| changed(id, TaskState { waits: Some(waits), ..state(Status::Blocked) });
    store.commit([Batch {
        tasks: vec![
            waiting(1, Waits::Release),
            with_outcome(waiting(2, Waits::Approval), Outcome::default()),
            waiting(3, Waits::Parts),
        ],
        ..batch(2)
    }]);
    let waits = |store: &mut Store| -> Vec<_> {
        store.writer.recover().expect("a recovery").tasks.iter().map(|task| task.state.waits).collect()
    };
    assert_eq!(waits(&mut store), [Some(Waits::Release), Some(Waits::Approval), Some(Waits::Parts)]);
    store.commit([Batch { tasks: vec![changed(1, state(Status::Pending))], ..batch(3) }]);
    assert_eq!(waits(&mut store)[0], None);
}

fn live_tasks_of_a_group_are_found(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=8)]);
    store.commit([run_creation(2, 1, 9..=10)]);
    let gpu = |status| TaskState { group: "gpu".into(), ..state(status) };
    store.commit([Batch {
        tasks: vec![
            changed(2, gpu(Status::Pending)),
            changed(3, gpu(Status::Blocked)),
            changed(4, gpu(Status::Running)),
            changed(5, gpu(Status::Completed)),
            changed(7, gpu(Status::Pending)),
            // A node of a run is planned by its run.
            changed(9, gpu(Status::Pending)),
        ],
        ..batch(3)
    }]);
    let readers = readers(database);
    let live = |group: &str, limit: usize| -> Vec<u64> {
        let found = readers.live_in_group(group, limit).expect("a read");
        found.into_iter().map(|id| id.0).collect()
    };
    assert_eq!(live("gpu", 10), [2, 3, 4, 7]);
    assert_eq!(live("gpu", 4), [2, 3, 4, 7]);
    assert_eq!(live("gpu", 3), [2, 3, 4]);
    assert_eq!(live("default", 100), [1, 6, 8]);
    assert_eq!(live("other", 10), [0_u64; 0]);
}
