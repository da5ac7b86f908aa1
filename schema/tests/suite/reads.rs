//! Listings: filters, pages, counts.

use std::collections::BTreeMap;

use agentflow_core::batch::{Batch, TaskState};
use agentflow_core::ids::TaskId;
use agentflow_core::spec::{Payload, Spec};
use agentflow_core::status::Status;
use agentflow_schema::testing::TestDatabase;
use agentflow_schema::{Readers, TaskFilter};

use crate::build::{
    Store, batch, changed, creation, exit, new_task, noop, open, spec_row, state, with_outcome,
};
use crate::on_both;

on_both!(
    pages_follow_each_other,
    filters_choose,
    labels_are_found_in_specifications,
    gaps_are_jumped_over,
    readers_cannot_write_and_clones_share,
);

fn mixed(store: &mut Store) {
    store.commit([creation(1, 1..=20)]);
    let gpu = TaskState { group: "gpu".into(), ..state(Status::Running) };
    let other = TaskState { worker: Some("w2".into()), ..state(Status::Failed) };
    store.commit([Batch {
        tasks: vec![
            changed(3, gpu.clone()),
            with_outcome(changed(4, other.clone()), exit(9)),
            changed(7, gpu),
            changed(8, other),
            changed(9, state(Status::Completed)),
            changed(10, state(Status::Blocked)),
        ],
        ..batch(2)
    }]);
}

fn ids(readers: &Readers, filter: &TaskFilter) -> Vec<u64> {
    let (page, next) = readers.tasks(filter, None, 1_000).expect("a read");
    assert_eq!(next, None);
    let ids: Vec<u64> = page.iter().map(|task| task.id.0).collect();
    assert_eq!(readers.count(filter).expect("a read"), ids.len() as u64);
    let (same, next) = readers.task_ids(filter, TaskId(0), 1_000).expect("a read");
    assert_eq!((same.iter().map(|id| id.0).collect::<Vec<_>>(), next), (ids.clone(), None));
    ids
}

fn pages_follow_each_other(database: &TestDatabase) {
    let mut store = open(database);
    mixed(&mut store);
    let readers = Readers::open(database.target()).expect("the writer made it");
    let filter = TaskFilter { statuses: vec![Status::Pending], ..TaskFilter::default() };
    let mut cursor = None;
    let mut seen = Vec::new();
    let mut pages = 0;
    loop {
        let (page, next) = readers.tasks(&filter, cursor, 7).expect("a read");
        seen.extend(page.into_iter().map(|task| task.id.0));
        pages += 1;
        let Some(next) = next else { break };
        assert_eq!(next.to_string().parse(), Ok(next));
        cursor = Some(next);
    }
    // 14 pending tasks are exactly two pages, without an empty third.
    assert_eq!((pages, seen), (2, vec![1, 2, 5, 6, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]));
}

fn filters_choose(database: &TestDatabase) {
    let mut store = open(database);
    mixed(&mut store);
    let readers = Readers::open(database.target()).expect("the writer made it");
    assert_eq!(ids(&readers, &TaskFilter::default()).len(), 20);
    let of = |statuses: &[Status]| TaskFilter { statuses: statuses.to_vec(), ..TaskFilter::default() };
    assert_eq!(ids(&readers, &of(&[Status::Running])), [3, 7]);
    assert_eq!(ids(&readers, &of(&[Status::Running, Status::Completed])), [3, 7, 9]);
    assert_eq!(ids(&readers, &of(&[Status::Blocked])), [10]);
    assert_eq!(ids(&readers, &of(&[Status::Skipped])), [0_u64; 0]);
    let gpu = TaskFilter { group: Some("gpu".into()), ..TaskFilter::default() };
    assert_eq!(ids(&readers, &gpu), [3, 7]);
    let w2 = TaskFilter { worker: Some("w2".into()), ..TaskFilter::default() };
    assert_eq!(ids(&readers, &w2), [4, 8]);
    assert_eq!(ids(&readers, &TaskFilter { ids: vec![TaskId(8), TaskId(1), TaskId(99)], ..w2.clone() }), [8]);
    assert_eq!(ids(&readers, &TaskFilter { group: Some("gpu".into()), ..w2.clone() }), [0_u64; 0]);
    let (page, _) = readers.tasks(&w2, None, 1).expect("a read");
    assert_eq!((page[0].exit_code, page[0].title.as_str()), (Some(9), "A title"));
    assert_eq!(page[0].state.status, Status::Failed);
}

fn labels_are_found_in_specifications(database: &TestDatabase) {
    let mut store = open(database);
    let with = |os: &str, gpu: bool| {
        let mut labels: BTreeMap<String, String> = [("os".to_owned(), os.to_owned())].into();
        if gpu {
            labels.insert("gpu".to_owned(), "yes".to_owned());
        }
        spec_row(&Spec { labels, ..Spec::new(Payload::Noop) })
    };
    let specs = [noop(), with("linux", false), with("linux", true), with("mac", true)];
    store.commit([Batch {
        tasks: (1..=8)
            .zip(specs.iter().cycle())
            .map(|(id, spec)| new_task(id, spec, state(Status::Pending)))
            .collect(),
        specs: specs.to_vec(),
        ..batch(1)
    }]);
    let readers = Readers::open(database.target()).expect("the writer made it");
    let of = |pairs: &[(&str, &str)]| TaskFilter {
        labels: pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..TaskFilter::default()
    };
    assert_eq!(ids(&readers, &of(&[("os", "linux")])), [2, 3, 6, 7]);
    assert_eq!(ids(&readers, &of(&[("os", "linux"), ("gpu", "yes")])), [3, 7]);
    assert_eq!(ids(&readers, &of(&[("os", "windows")])), [0_u64; 0]);
    let (page, next) = readers.tasks(&of(&[("gpu", "yes")]), None, 3).expect("a read");
    assert_eq!(page.iter().map(|task| task.id.0).collect::<Vec<_>>(), [3, 4, 7]);
    let (page, next) = readers.tasks(&of(&[("gpu", "yes")]), next, 3).expect("a read");
    assert_eq!((page[0].id, page.len(), next), (TaskId(8), 1, None));
}

fn gaps_are_jumped_over(database: &TestDatabase) {
    let mut store = open(database);
    let spec = noop();
    let far = 5_000_000_000;
    store.commit([Batch {
        tasks: [1, 20_001, 3_000_000, far].map(|id| new_task(id, &spec, state(Status::Pending))).to_vec(),
        specs: vec![spec.clone()],
        ..batch(1)
    }]);
    store.commit([Batch { tasks: vec![changed(20_001, state(Status::Failed))], ..batch(2) }]);
    let readers = Readers::open(database.target()).expect("the writer made it");
    assert_eq!(ids(&readers, &TaskFilter::default()), [1, 20_001, 3_000_000, far]);
    let pending = TaskFilter { statuses: vec![Status::Pending], ..TaskFilter::default() };
    assert_eq!(ids(&readers, &pending), [1, 3_000_000, far]);
    let failed = TaskFilter { statuses: vec![Status::Failed], ..TaskFilter::default() };
    assert_eq!(ids(&readers, &failed), [20_001]);
}

fn readers_cannot_write_and_clones_share(database: &TestDatabase) {
    let mut store = open(database);
    let readers = Readers::open(database.target()).expect("the writer made it");
    let other = readers.clone();
    store.commit([creation(1, 1..=5)]);
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let readers = other.clone();
            std::thread::spawn(move || readers.count(&TaskFilter::default()).expect("a read"))
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().expect("no panic"), 5);
    }
    drop(readers);
}
