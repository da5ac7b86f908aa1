//! A task is given another specification, and those that nobody names any more go.

use agentflow_core::batch::{Batch, SpecChange, SpecRow, TaskWrite};
use agentflow_core::ids::TaskId;
use agentflow_core::spec::Payload;
use agentflow_core::status::Status;
use agentflow_schema::Readers;
use agentflow_schema::testing::TestDatabase;

use crate::build::{batch, changed, exit, new_task, noop, open, spec, state, with_outcome};
use crate::on_both;

on_both!(
    uses_move_from_old_to_new,
    changes_within_a_commit_are_added_up,
    a_new_task_may_change_in_the_same_commit,
    a_specification_may_be_left_and_named_again,
);

pub(crate) fn shell(command: &str) -> SpecRow {
    spec(Payload::Shell { command: command.into() })
}

fn respecified(task: TaskWrite, old: &SpecRow, new: &SpecRow) -> TaskWrite {
    TaskWrite { spec: Some(SpecChange { old: old.hash, new: new.hash }), ..task }
}

/// Each specification's command (`noop` has none) and its uses.
pub(crate) fn uses(database: &TestDatabase) -> Vec<String> {
    database.texts("SELECT CAST(uses AS TEXT) || ' ' || body AS text FROM task_specs ORDER BY body")
}

fn body(database: &TestDatabase, id: u64) -> String {
    let readers = Readers::open(database.target()).expect("the writer made it");
    readers.task(TaskId(id)).expect("a read").expect("the task").spec_body
}

fn uses_move_from_old_to_new(database: &TestDatabase) {
    let mut store = open(database);
    let (old, new) = (noop(), shell("new"));
    store.commit([Batch {
        tasks: (1..=3).map(|id| new_task(id, &old, state(Status::Pending))).collect(),
        specs: vec![old.clone()],
        ..batch(1)
    }]);
    store.commit([Batch {
        tasks: vec![
            respecified(changed(1, state(Status::Pending)), &old, &new),
            respecified(with_outcome(changed(2, state(Status::Failed)), exit(3)), &old, &new),
        ],
        specs: vec![new.clone()],
        ..batch(2)
    }]);
    assert_eq!(uses(database), [format!("1 {}", old.body), format!("2 {}", new.body)]);
    assert_eq!([1, 2, 3].map(|id| body(database, id)), [&*new.body, &*new.body, &*old.body]);
    let loaded = store.writer.load_tasks(&[TaskId(2)]).expect("a read");
    assert_eq!((loaded[0].0.spec, loaded[0].0.state.status), (new.hash, Status::Failed));
    // The last one takes the old text along.
    store.commit([Batch {
        tasks: vec![respecified(changed(3, state(Status::Pending)), &old, &new)],
        ..batch(3)
    }]);
    assert_eq!(uses(database), [format!("3 {}", new.body)]);
    let unknown =
        Batch { tasks: vec![respecified(changed(3, state(Status::Pending)), &new, &old)], ..batch(4) };
    assert!(store.try_commit([unknown]).expect_err("its text is missing").is_conflict());
}

fn changes_within_a_commit_are_added_up(database: &TestDatabase) {
    let mut store = open(database);
    let (first, second, third) = (shell("1"), shell("2"), shell("3"));
    store.commit([Batch {
        tasks: vec![
            new_task(1, &first, state(Status::Pending)),
            new_task(2, &first, state(Status::Pending)),
            new_task(3, &first, state(Status::Pending)),
        ],
        specs: vec![first.clone()],
        ..batch(1)
    }]);
    store.commit([
        Batch {
            tasks: vec![respecified(changed(1, state(Status::Pending)), &first, &second)],
            specs: vec![second.clone()],
            ..batch(2)
        },
        Batch {
            tasks: vec![
                respecified(changed(1, state(Status::Pending)), &second, &third),
                respecified(changed(2, state(Status::Pending)), &first, &third),
            ],
            // The first one may be new as far as its sender knows, and is used less all the same.
            specs: vec![third.clone(), first.clone()],
            ..batch(3)
        },
        Batch { tasks: vec![changed(1, state(Status::Running))], ..batch(4) },
    ]);
    assert_eq!(uses(database), [format!("1 {}", first.body), format!("2 {}", third.body)]);
    assert_eq!([1, 2, 3].map(|id| body(database, id)), [&*third.body, &*third.body, &*first.body]);
}

fn a_new_task_may_change_in_the_same_commit(database: &TestDatabase) {
    let mut store = open(database);
    let (old, new) = (shell("old"), shell("new"));
    store.commit([
        Batch {
            tasks: vec![new_task(1, &old, state(Status::Pending))],
            specs: vec![old.clone()],
            ..batch(1)
        },
        Batch {
            tasks: vec![respecified(changed(1, state(Status::Pending)), &old, &new)],
            specs: vec![new.clone()],
            ..batch(2)
        },
    ]);
    assert_eq!(uses(database), [format!("1 {}", new.body)]);
    assert_eq!(body(database, 1), &*new.body);
}

fn a_specification_may_be_left_and_named_again(database: &TestDatabase) {
    let mut store = open(database);
    let (old, new) = (shell("old"), shell("new"));
    let to_new = respecified(changed(1, state(Status::Pending)), &old, &new);
    let to_old = respecified(changed(1, state(Status::Pending)), &new, &old);
    store.commit([Batch {
        tasks: vec![new_task(1, &old, state(Status::Pending))],
        specs: vec![old.clone()],
        ..batch(1)
    }]);
    store.commit([
        Batch { tasks: vec![to_new.clone()], specs: vec![new.clone()], ..batch(2) },
        Batch { tasks: vec![to_old], specs: vec![old.clone()], ..batch(3) },
    ]);
    assert_eq!(uses(database), [format!("1 {}", old.body)]);
    store.commit([
        Batch { tasks: vec![to_new], specs: vec![new.clone()], ..batch(4) },
        Batch {
            tasks: vec![new_task(2, &old, state(Status::Pending))],
            specs: vec![old.clone()],
            ..batch(5)
        },
    ]);
    assert_eq!(uses(database), [format!("1 {}", new.body), format!("1 {}", old.body)]);
}
