//! Runs and their nodes: written, read back, listed, recovered and loaded to be run again.

use std::sync::atomic::Ordering;

use agentflow_core::batch::{Batch, Outcome, RunRow, RunState, SettledNode, TaskWrite};
use agentflow_core::event::{Event, Happening, Subject};
use agentflow_core::ids::{Attempt, RunId, Seq, TaskId};
use agentflow_core::relation::Relation;
use agentflow_core::run::RunStatus;
use agentflow_core::status::Status;
use agentflow_core::time::Wall;
use agentflow_schema::testing::TestDatabase;
use agentflow_schema::{Readers, RunCursor, RunFilter, TaskFilter};

use crate::build::{
    Store, as_node, batch, changed, changed_run, creation, definition, exit, gather, new_run, new_task, noop,
    open, place, relation, run_birth, run_creation, run_state, state, with_outcome,
};
use crate::on_both;

on_both!(
    a_run_is_written_and_read_back,
    changes_of_a_run_become_one_row,
    a_run_needs_its_definition,
    nodes_are_listed,
    tasks_say_their_run,
    runs_are_listed_from_the_newest,
    recovery_finds_runs_and_what_their_nodes_left,
    ended_runs_can_be_loaded,
    events_of_a_run_are_found,
    statements_about_runs_are_prepared_once,
);

fn readers(database: &TestDatabase) -> Readers {
    Readers::open(database.target()).expect("the writer made it")
}

fn a_run_is_written_and_read_back(database: &TestDatabase) {
    let mut store = open(database);
    let text = definition("release");
    let mut birth = run_birth(&text, 1, 0);
    birth.parent = Some(TaskId(7));
    store.commit([Batch {
        runs: vec![new_run(1, birth.clone(), run_state(RunStatus::Pending))],
        definitions: vec![text.clone()],
        ..batch(1)
    }]);
    let readers = readers(database);
    let record = readers.run(RunId(1)).expect("a read").expect("the run");
    let row = RunRow::new(RunId(1), birth.clone(), run_state(RunStatus::Pending));
    assert_eq!((record.row, record.definition_body.as_str()), (row, &*text.body));
    for status in [RunStatus::Running, RunStatus::Paused, RunStatus::Failed] {
        let state = RunState { revision: 2, ..run_state(status) };
        store.commit([Batch { runs: vec![changed_run(1, state.clone())], ..batch(1 + status as u64) }]);
        let record = readers.run(RunId(1)).expect("a read").expect("the run");
        assert_eq!((record.row.state, &record.row.birth), (state, &birth));
    }
    assert_eq!(readers.run(RunId(2)).expect("a read"), None);
    let missing = Batch { runs: vec![changed_run(2, run_state(RunStatus::Running))], ..batch(9) };
    assert!(store.try_commit([missing]).expect_err("no such run").is_conflict());
}

fn changes_of_a_run_become_one_row(database: &TestDatabase) {
    let mut store = open(database);
    let text = definition("release");
    let failed = RunState { error: Some("a\0b".into()), ..run_state(RunStatus::Failed) };
    let gathered = gather([
        Batch {
            runs: vec![new_run(1, run_birth(&text, 1, 0), run_state(RunStatus::Pending))],
            definitions: vec![text.clone()],
            ..batch(1)
        },
        Batch {
            runs: vec![changed_run(1, run_state(RunStatus::Running)), changed_run(1, failed)],
            definitions: vec![text.clone()],
            ..batch(2)
        },
    ]);
    assert_eq!(gathered.rows(), 2);
    assert!(gathered.bytes() > text.body.len());
    store.writer.commit(store.epoch, &gathered).expect("a commit");
    // The same text may come again.
    store.commit([Batch {
        runs: vec![new_run(2, run_birth(&text, 1, 0), run_state(RunStatus::Pending))],
        definitions: vec![text.clone()],
        ..batch(3)
    }]);
    let record = readers(database).run(RunId(1)).expect("a read").expect("the run");
    assert_eq!(record.row.state.error.as_deref(), Some("a\u{FFFD}b"));
    assert_eq!(database.texts("SELECT body AS text FROM run_definitions"), [&*text.body]);
}

fn a_run_needs_its_definition(database: &TestDatabase) {
    let mut store = open(database);
    let unknown = Batch { definitions: vec![], ..run_creation(1, 1, 1..=1) };
    assert!(store.try_commit([unknown]).expect_err("no such definition").is_conflict());
    store.commit([run_creation(1, 1, 1..=1)]);
    assert!(store.try_commit([run_creation(2, 1, 2..=2)]).expect_err("born twice").is_conflict());
}

fn nodes_are_listed(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=2), run_creation(2, 1, 3..=7), run_creation(3, 2, 8..=8)]);
    let error = Outcome { error: Some("boom".into()), ..exit(3) };
    store.commit([Batch {
        tasks: vec![
            with_outcome(changed(4, state(Status::Failed)), error),
            // An item of a foreach, made later.
            as_node(new_task(9, &noop(), state(Status::Running)), 1, "n1[0]"),
        ],
        ..batch(4)
    }]);
    let readers = readers(database);
    let nodes = readers.nodes(RunId(1), TaskId(0), 100).expect("a read");
    let names: Vec<_> = nodes.iter().map(|node| (node.task.0, node.node.as_str())).collect();
    assert_eq!(names, [(3, "n1"), (4, "n2"), (5, "n3"), (6, "n4"), (7, "n5"), (9, "n1[0]")]);
    let failed = &nodes[1];
    assert_eq!((failed.status, failed.attempt), (Status::Failed, Attempt(1)));
    assert_eq!((failed.worker.as_deref(), failed.error.as_deref()), (Some("w1"), Some("boom")));
    assert_eq!((failed.started_at, failed.settled_at), (Some(Wall(30)), Some(Wall(40))));
    assert_eq!((failed.exit_code, nodes[0].exit_code), (Some(3), None));
    let page = readers.nodes(RunId(1), TaskId(4), 2).expect("a read");
    assert_eq!(page.iter().map(|node| node.task.0).collect::<Vec<_>>(), [5, 6]);
    assert!(readers.nodes(RunId(3), TaskId(0), 100).expect("a read").is_empty());
}

fn tasks_say_their_run(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([creation(1, 1..=2), run_creation(2, 1, 3..=5)]);
    store.commit([Batch { tasks: vec![changed(4, state(Status::Completed))], ..batch(3) }]);
    let readers = readers(database);
    let run_of = |id| readers.task(TaskId(id)).expect("a read").expect("the task").run;
    assert_eq!((run_of(1), run_of(4)), (None, Some(place(1, "n2"))));
    let of_run = TaskFilter { run: Some(RunId(1)), ..TaskFilter::default() };
    let (page, next) = readers.tasks(&of_run, None, 2).expect("a read");
    assert_eq!(
        page.iter().map(|task| task.run.clone()).collect::<Vec<_>>(),
        [Some(place(1, "n1")), Some(place(1, "n2"))]
    );
    let (page, next) = readers.tasks(&of_run, next, 2).expect("a read");
    assert_eq!((page.len(), page[0].id, next), (1, TaskId(5), None));
    let pending = TaskFilter { statuses: vec![Status::Pending], ..of_run.clone() };
    let (ids, _) = readers.task_ids(&pending, TaskId(0), 10).expect("a read");
    assert_eq!(ids, [TaskId(3), TaskId(5)]);
    assert_eq!(readers.count(&of_run).expect("a read"), 3);
    let other = TaskFilter { run: Some(RunId(2)), ..TaskFilter::default() };
    assert_eq!(readers.tasks(&other, None, 2).expect("a read"), (vec![], None));
    let loaded = store.writer.load_tasks(&[TaskId(1), TaskId(4)]).expect("a read");
    assert_eq!(
        loaded.iter().map(|(row, _)| row.run.clone()).collect::<Vec<_>>(),
        [None, Some(place(1, "n2"))]
    );
}

/// Runs 1 to 9, of which the even ones are named `even` and every third is completed; and one far away.
fn many(store: &mut Store) {
    let text = definition("release");
    let runs = (1..=9).chain([5_000_000]).map(|id| {
        let mut birth = run_birth(&text, 1, 0);
        if id % 2 == 0 {
            birth.name = "even".into();
        }
        let status = if id % 3 == 0 { RunStatus::Completed } else { RunStatus::Running };
        new_run(id, birth, run_state(status))
    });
    store.commit([Batch { runs: runs.collect(), definitions: vec![text.clone()], ..batch(1) }]);
}

fn runs_are_listed_from_the_newest(database: &TestDatabase) {
    let mut store = open(database);
    let readers = readers(database);
    assert_eq!(readers.runs(&RunFilter::default(), None, 5).expect("a read"), (vec![], None));
    many(&mut store);
    let listed = |filter: &RunFilter, limit: usize| -> (Vec<u64>, usize) {
        let (mut ids, mut pages, mut cursor) = (Vec::new(), 0, None::<RunCursor>);
        loop {
            let (page, next) = readers.runs(filter, cursor, limit).expect("a read");
            assert!(page.len() <= limit);
            ids.extend(page.iter().map(|run| run.id.0));
            pages += 1;
            if next.is_none() {
                return (ids, pages);
            }
            cursor = next;
        }
    };
    let of = |statuses: &[RunStatus], name: Option<&str>| RunFilter {
        statuses: statuses.to_vec(),
        name: name.map(str::to_owned),
    };
    let all = [5_000_000, 9, 8, 7, 6, 5, 4, 3, 2, 1].to_vec();
    assert_eq!(listed(&of(&[], None), 100), (all.clone(), 1));
    assert_eq!(listed(&of(&[], None), 5), (all, 2));
    let live = [RunStatus::Pending, RunStatus::Running, RunStatus::Paused];
    assert_eq!(listed(&of(&live, None), 3).0, [5_000_000, 8, 7, 5, 4, 2, 1]);
    assert_eq!(listed(&of(&[RunStatus::Completed], None), 100).0, [9, 6, 3]);
    assert_eq!(listed(&of(&live, Some("even")), 100).0, [5_000_000, 8, 4, 2]);
    assert_eq!(listed(&of(&[RunStatus::Failed], None), 100).0, [0_u64; 0]);
    let (page, _) = readers.runs(&of(&[], Some("even")), None, 1).expect("a read");
    assert_eq!((page[0].name.as_str(), page[0].mode, page[0].nodes), ("even", "dag", 0));
    assert_eq!((&page[0].state, page[0].created_at), (&run_state(RunStatus::Running), Wall(5)));
}

/// Two runs of three nodes: the first has two settled ones and goes on, the second has ended.
fn two_runs(store: &mut Store) -> Vec<SettledNode> {
    store.commit([creation(1, 1..=2), run_creation(2, 1, 3..=5), run_creation(3, 2, 6..=8)]);
    let left = Outcome { outputs: Some(r#"{"a":1}"#.into()), ..exit(0) };
    let done = |id: u64, status, outcome: &Outcome| -> TaskWrite {
        with_outcome(changed(id, state(status)), outcome.clone())
    };
    store.commit([Batch {
        runs: vec![changed_run(2, run_state(RunStatus::Failed))],
        tasks: vec![
            done(3, Status::Completed, &left),
            done(5, Status::Skipped, &Outcome::default()),
            done(6, Status::Failed, &exit(1)),
            done(7, Status::Completed, &left),
            done(8, Status::Cancelled, &Outcome::default()),
            done(1, Status::Completed, &left),
        ],
        ..batch(4)
    }]);
    let node = |task, run, name, status, outcome| SettledNode {
        task: TaskId(task),
        node: place(run, name),
        status,
        outcome,
    };
    vec![
        node(3, 1, "n1", Status::Completed, left.clone()),
        node(5, 1, "n3", Status::Skipped, Outcome::default()),
        node(6, 2, "n1", Status::Failed, exit(1)),
        node(7, 2, "n2", Status::Completed, left),
        node(8, 2, "n3", Status::Cancelled, Outcome::default()),
    ]
}

fn recovery_finds_runs_and_what_their_nodes_left(database: &TestDatabase) {
    let mut store = open(database);
    let nodes = two_runs(&mut store);
    // More settled nodes than one statement reads, and a run without any.
    store.commit([run_creation(5, 3, 11..=1_211), run_creation(6, 4, 1_301..=1_301)]);
    let all = (11..=1_210).map(|id| changed(id, state(Status::Completed))).collect();
    store.commit([Batch { tasks: all, ..batch(7) }]);
    let recovered = open(database).writer.recover().expect("a recovery");
    let runs: Vec<_> = recovered.runs.iter().map(|run| run.id.0).collect();
    assert_eq!(runs, [1, 3, 4]);
    assert_eq!(recovered.runs[0].state, run_state(RunStatus::Running));
    assert_eq!(recovered.runs[0].birth, run_birth(&definition("of run 1"), 3, 3));
    let mut bodies: Vec<_> = recovered.definitions.iter().map(|row| row.body.to_string()).collect();
    bodies.sort();
    assert_eq!(bodies, [1, 3, 4].map(|run| definition(&format!("of run {run}")).body.to_string()));
    assert_eq!(recovered.settled_nodes[..2], nodes[..2]);
    let rest: Vec<_> = recovered.settled_nodes[2..].iter().map(|node| node.task.0).collect();
    assert_eq!(rest, (11..=1_210).collect::<Vec<_>>());
    let live: Vec<_> = recovered.tasks.iter().map(|task| (task.id.0, task.run.clone())).collect();
    assert_eq!(
        live,
        [
            (2, None),
            (4, Some(place(1, "n2"))),
            (1_211, Some(place(3, "n1201"))),
            (1_301, Some(place(4, "n1"))),
        ]
    );
}

fn ended_runs_can_be_loaded(database: &TestDatabase) {
    let mut store = open(database);
    let nodes = two_runs(&mut store);
    let loaded = store.writer.load_runs(&[RunId(2), RunId(9), RunId(2)]).expect("a read");
    assert_eq!(loaded.len(), 1);
    let (row, text, settled) = &loaded[0];
    assert_eq!((row.id, &row.state), (RunId(2), &run_state(RunStatus::Failed)));
    assert_eq!(*text, definition("of run 2"));
    assert_eq!(settled[..], nodes[2..]);
    assert!(store.writer.load_runs(&[]).expect("a read").is_empty());
}

fn events_of_a_run_are_found(database: &TestDatabase) {
    let mut store = open(database);
    let about = |run: u64| Event {
        at: Wall(1),
        subject: Subject::Run(RunId(run)),
        happening: Happening::TaskStarted { attempt: Attempt(1) },
    };
    store.commit([Batch { events: vec![about(5), about(55), about(5)], ..run_creation(1, 5, 1..=1) }]);
    store.commit([Batch { events: vec![about(5)], ..batch(2) }]);
    let found = readers(database).events_of(&Subject::Run(RunId(5)), Seq(0), 10).expect("a read");
    assert_eq!(found.iter().map(|stored| stored.seq.0).collect::<Vec<_>>(), [1, 3, 4]);
    let subjects = database.texts("SELECT DISTINCT subject AS text FROM event_subjects ORDER BY subject");
    assert_eq!(subjects, ["run:5", "run:55"]);
}

fn statements_about_runs_are_prepared_once(database: &TestDatabase) {
    let mut store = open(database);
    let prepared = store.writer.count_prepared();
    let of_every_kind = |store: &mut Store, decision: u64, id: u64| {
        store.commit([run_creation(decision, id, id..=id + 1)]);
        store.commit([Batch {
            runs: vec![changed_run(id, run_state(RunStatus::Completed))],
            tasks: vec![changed(id, state(Status::Completed))],
            relations: vec![relation(id, id + 1, Relation::Dependency)],
            ..batch(decision + 1)
        }]);
    };
    of_every_kind(&mut store, 1, 1);
    // The leadership, specifications, tasks new and changed, and four kinds about runs and relations.
    assert_eq!(prepared.load(Ordering::Relaxed), 8);
    of_every_kind(&mut store, 3, 3);
    assert_eq!(prepared.load(Ordering::Relaxed), 8);
}
