//! Bytes by their hash: kept whole, read back, named by rows, and gone when nobody names them.

use std::io::{self, Read};
use std::path::PathBuf;

use agentflow_core::batch::{Batch, Counters, Outcome, RoundRow, RunState, SpecRow, Stopping};
use agentflow_core::blob::{Artifact, BlobHash, BlobRef, Left, NewBlob, Outputs};
use agentflow_core::ids::{RunId, TaskId};
use agentflow_core::relation::Relation;
use agentflow_core::run::RunStatus;
use agentflow_core::status::Status;
use agentflow_core::time::Wall;
use agentflow_schema::testing::TestDatabase;
use agentflow_schema::{Blobs, PutError, Readers, Whose};

use crate::build::{
    batch, changed, changed_run, creation, noop, open, relation, run_creation, run_state, spec_row, state,
    with_outcome,
};
use crate::on_both;

on_both!(
    bytes_are_kept_whole_or_not_at_all,
    what_nobody_names_goes,
    what_attempts_left_is_found_again,
    inputs_are_named_by_specifications,
    rounds_and_stops_come_back,
);

/// The store of a database, and the directory of its files if it has some.
pub(crate) fn blobs(database: &TestDatabase) -> (Blobs, Option<PathBuf>) {
    let directory = database.directory().map(|directory| directory.join("blobs"));
    let nowhere = PathBuf::from("/nonexistent");
    let blobs = Blobs::open(database.target(), directory.as_ref().unwrap_or(&nowhere)).expect("a store");
    (blobs, directory)
}

fn blob(text: &str) -> BlobRef {
    NewBlob::new(text).named()
}

/// Breaks off after some bytes.
struct Broken(usize);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.0);
        self.0 -= count;
        if count == 0 { Err(io::Error::other("the line is cut")) } else { Ok(count) }
    }
}

fn bytes_are_kept_whole_or_not_at_all(database: &TestDatabase) {
    drop(open(database));
    let (blobs, directory) = blobs(database);
    // More than one piece, the last one not full.
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let sha256 = BlobHash::of(&bytes);
    let put = |sha256, limit, source: &mut dyn Read| blobs.put(sha256, limit, source, Wall(5));
    let limit = bytes.len() as u64;
    let kept = || blobs.open_blob(&sha256).expect("a read");
    assert!(matches!(put(sha256, limit, &mut Broken(2_000_000)), Err(PutError::Source(_))));
    assert!(matches!(put(sha256, limit - 1, &mut bytes.as_slice()), Err(PutError::TooLarge(_))));
    match put(sha256, limit, &mut &bytes[1..]) {
        Err(PutError::OtherHash(other)) => assert_eq!(other, BlobHash::of(&bytes[1..])),
        other => panic!("{other:?}"),
    }
    assert!(kept().is_none());
    for _ in 0..2 {
        assert_eq!(
            put(sha256, limit, &mut bytes.as_slice()).expect("kept"),
            BlobRef { sha256, bytes: limit }
        );
        let mut reader = kept().expect("kept");
        assert_eq!(reader.size(), limit);
        let mut back = Vec::new();
        reader.read_to_end(&mut back).expect("a read");
        assert_eq!(back, bytes);
    }
    // Others under the same name leave it as it is.
    assert!(put(sha256, limit, &mut &bytes[1..]).is_err());
    assert!(kept().is_some());
    let empty = BlobHash::of(b"");
    assert_eq!(put(empty, 0, &mut io::empty()).expect("kept").bytes, 0);
    assert_eq!(blobs.text(&empty).expect("a read").as_deref(), Some(""));
    let broken = BlobHash::of(b"a\0\xff");
    put(broken, 3, &mut b"a\0\xff".as_slice()).expect("kept");
    assert_eq!(blobs.text(&broken).expect("a read").as_deref(), Some("a\u{fffd}\u{fffd}"));
    if let Some(directory) = directory {
        assert_eq!(std::fs::read_dir(directory.join("unfinished")).expect("a directory").count(), 0);
    }
}

fn what_nobody_names_goes(database: &TestDatabase) {
    let mut store = open(database);
    let (blobs, _) = blobs(database);
    let readers = Readers::open(database.target()).expect("made");
    let [named, loose] = ["named", "loose"].map(NewBlob::new);
    for blob in [&named, &loose] {
        blobs.put_text(blob, Wall(5)).expect("kept");
    }
    let left = Left { outputs: Some(named.named()), ..Left::default() };
    let outcome = Outcome { left: Some(Box::new(left)), ..Outcome::default() };
    store.commit([
        creation(1, 1..=1),
        Batch { tasks: vec![with_outcome(changed(1, state(Status::Completed)), outcome)], ..batch(2) },
    ]);
    let sweep = |before| {
        let turn = |_| blobs.sweep(before, &mut |sha256| readers.names_blob(sha256)).expect("a sweep");
        (0..256).map(turn).sum::<usize>()
    };
    let has = |blob: &NewBlob| blobs.open_blob(&blob.sha256).expect("a read").is_some();
    assert_eq!(sweep(Wall(0)), 0);
    // On SQLite the files' own times count.
    let later = Wall(i64::MAX / 2);
    assert_eq!(sweep(later), 1);
    assert!(has(&named) && !has(&loose));
    // The task goes, and its name with it.
    let mut turns = 0;
    while store.writer.prune(store.epoch, Wall(1_000), Wall(1_000), 100).expect("a turn").more && turns < 100
    {
        turns += 1;
    }
    assert_eq!(readers.task(TaskId(1)).expect("a read"), None);
    assert_eq!(sweep(later), 1);
    assert!(!has(&named));
}

fn what_attempts_left_is_found_again(database: &TestDatabase) {
    let mut store = open(database);
    let file = |path: &str, executable| Artifact { path: path.into(), blob: blob(path), executable };
    let left = Left {
        result: Some(blob("r")),
        outputs: Some(blob("{}")),
        artifacts: vec![file("a/b", false), file("c", true)],
        ..Left::default()
    };
    let outcome = |left: &Left| Outcome { left: Some(Box::new(left.clone())), ..Outcome::default() };
    let done = |id, left| with_outcome(changed(id, state(Status::Completed)), outcome(left));
    let only_files = Left { artifacts: vec![file("d", false)], ..Left::default() };
    store.commit([
        creation(1, 1..=2),
        Batch {
            counters: Counters { last_task: TaskId(4), last_run: RunId(1), ..Counters::default() },
            ..run_creation(2, 1, 3..=4)
        },
        Batch { tasks: vec![done(1, &left), done(3, &left), done(4, &only_files)], ..batch(3) },
        Batch {
            tasks: vec![changed(2, state(Status::Blocked))],
            relations: vec![relation(1, 2, Relation::Context)],
            ..batch(4)
        },
        // The last word counts.
        Batch { tasks: vec![done(1, &left)], ..batch(5) },
    ]);
    let readers = Readers::open(database.target()).expect("made");
    let record = readers.task(TaskId(1)).expect("a read").expect("the task");
    assert_eq!(record.outcome.left.as_deref(), Some(&left));
    let listed = |whose, after, limit| {
        let (found, next) = readers.artifacts(&whose, after, limit).expect("a read");
        (found.iter().map(|record| record.file.path.to_string()).collect::<Vec<_>>(), next)
    };
    assert_eq!(listed(Whose::Task(TaskId(1)), 0, 10).0, ["a/b", "c"]);
    assert_eq!(listed(Whose::Task(TaskId(2)), 0, 10).0, [""; 0]);
    let (first, next) = listed(Whose::Run(RunId(1)), 0, 2);
    assert_eq!(first, ["a/b", "c"]);
    assert_eq!(listed(Whose::Run(RunId(1)), next.expect("more"), 2).0, ["d"]);
    let (found, _) = readers.artifacts(&Whose::Task(TaskId(1)), 0, 10).expect("a read");
    let one = readers.artifact(found[1].id).expect("a read").expect("the file");
    assert_eq!((one.task, &*one.file.path, one.file.executable), (TaskId(1), "c", true));
    assert_eq!(readers.artifact(9_999).expect("a read"), None);

    let recovered = open(database).writer.recover().expect("a recovery");
    let values = Left { artifacts: Vec::new(), ..left };
    let lefts: Vec<_> = recovered.settled_nodes.iter().map(|node| node.outcome.left.as_deref()).collect();
    assert_eq!(lefts, [Some(&values), None]);
    let context = recovered.relations[0].ended.clone().expect("ended").1;
    assert_eq!(context, Some(Outputs::Blob(blob("{}"))));
}

fn inputs_are_named_by_specifications(database: &TestDatabase) {
    let mut store = open(database);
    let readers = Readers::open(database.target()).expect("made");
    let spec = SpecRow { blobs: [blob("in").sha256, blob("to").sha256].into(), ..noop() };
    store.commit([Batch { specs: vec![spec], ..creation(1, 1..=1) }]);
    let names = |text| readers.names_blob(&blob(text).sha256).expect("a read");
    assert!(names("in") && names("to") && !names("out"));
    let other = spec_row(&agentflow_core::spec::Spec::new(agentflow_core::spec::Payload::Milestone));
    let change = agentflow_core::batch::SpecChange { old: noop().hash, new: other.hash };
    let mut write = changed(1, state(Status::Pending));
    write.spec = Some(change);
    store.commit([Batch { specs: vec![other], tasks: vec![write], ..batch(2) }]);
    assert!(!names("in"), "it goes with its specification");
}

fn rounds_and_stops_come_back(database: &TestDatabase) {
    let mut store = open(database);
    let round = |task, round| RoundRow { task: TaskId(task), round };
    let stopping = |stopping| RunState { stopping, ..run_state(RunStatus::Running) };
    store.commit([
        run_creation(1, 1, 1..=2),
        Batch {
            rounds: vec![round(1, Some(2)), round(2, Some(2)), round(1, Some(3))],
            runs: vec![changed_run(1, stopping(Some(Stopping::Failure)))],
            ..batch(2)
        },
        Batch { rounds: vec![round(2, None)], ..batch(3) },
    ]);
    let recovered = open(database).writer.recover().expect("a recovery");
    assert_eq!(recovered.rounds, [round(1, Some(3))]);
    assert_eq!(recovered.runs[0].state.stopping, Some(Stopping::Failure));
}
