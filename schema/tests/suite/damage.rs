//! Full disks, files that cannot be written, files that are something else.

use std::fs;

use agentflow_core::ids::Seq;
use agentflow_core::time::Wall;
use agentflow_schema::testing::TestDatabase;
use agentflow_schema::{Checkpointer, Error, Options, Readers, Target, Writer};

use crate::build::{creation, gather, open};

fn refused(target: &Target) -> Error {
    match Writer::open(target, &Options::default()) {
        Ok(_) => panic!("opened {target}"),
        Err(error) => error,
    }
}

#[test]
fn a_full_disk_is_waited_out() {
    let database = TestDatabase::sqlite();
    let mut store = open(&database);
    store.commit([creation(1, 1..=10)]);
    store.writer.limit_pages(60).expect("a limit");
    let gathered = gather([creation(2, 11..=10_000)]);
    for _ in 0..3 {
        let error = store.writer.commit(store.epoch, &gathered).expect_err("no room");
        assert!(error.is_full(), "{error:?}");
    }
    let readers = Readers::open(database.target()).expect("reads go on");
    assert_eq!(readers.head().expect("a read").head_seq, Seq(10));
    store.writer.limit_pages(1_000_000).expect("room again");
    let committed = store.writer.commit(store.epoch, &gathered).expect("there is room");
    assert_eq!((committed.first_seq, committed.head_seq), (Seq(11), Seq(10_000)));
    store.commit([creation(3, 10_001..=10_001)]);
}

#[test]
fn a_read_only_file_is_refused() {
    let database = TestDatabase::sqlite();
    drop(open(&database));
    let file = database.file().expect("a file");
    // Permissions do not bind whoever runs the tests as root; the mode of the connection does.
    let error = refused(&Target::Sqlite(format!("file:{}?mode=ro", file.display()).into()));
    assert!(error.is_read_only(), "{error:?}");
}

#[test]
fn damaged_files_are_refused() {
    let database = TestDatabase::sqlite();
    let directory = database.directory().expect("a directory");
    let text = directory.join("text.db");
    fs::write(&text, "This is no database. ".repeat(1_000)).expect("a file");
    let error = refused(&Target::Sqlite(text));
    assert!(error.is_corrupt(), "{error:?}");

    drop(open(&database));
    let file = database.file().expect("a file");
    let mut bytes = fs::read(file).expect("the database");
    bytes[100..4_096].fill(0xFF);
    fs::write(file, bytes).expect("a file");
    let error = refused(database.target());
    assert!(error.is_corrupt(), "{error:?}");
}

#[test]
fn a_database_of_another_program_is_refused() {
    let database = TestDatabase::sqlite();
    database.execute("CREATE TABLE tasks (id INTEGER)").expect("a table");
    let error = refused(database.target());
    assert!(error.is_foreign(), "{error:?}");
    let other = TestDatabase::sqlite();
    other.execute("PRAGMA application_id = 5").expect("a mark");
    assert!(refused(other.target()).is_foreign());
}

#[test]
fn what_is_not_there_is_said_to_be_unreachable() {
    let database = TestDatabase::sqlite();
    let directory = database.directory().expect("a directory");
    let error = refused(&Target::Sqlite(directory.join("no/such/directory/x.db")));
    assert!(error.is_unreachable(), "{error:?}");
    assert!(error.to_string().contains("no/such/directory"), "{error}");
    let error = refused(&Target::Postgres("postgres://nobody:secret@127.0.0.1:1/x".into()));
    assert!(error.is_unreachable(), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
}

#[test]
fn a_checkpoint_empties_the_log() {
    let database = TestDatabase::sqlite();
    let mut store = open(&database);
    let mut checkpointer = Checkpointer::open(database.target()).expect("a connection");
    store.commit([creation(1, 1..=1_000)]);
    let done = checkpointer.run().expect("a checkpoint");
    assert!(done.log_pages > 0 && done.moved_pages == done.log_pages, "{done:?}");
    store.commit([creation(2, 1_001..=1_001)]);
    let again = checkpointer.run().expect("a checkpoint");
    assert!(again.log_pages < done.log_pages, "the log begins anew: {again:?}");
    store.writer.take_office(Wall(2)).expect("the writer goes on");
}

#[test]
fn postgres_needs_no_checkpoints() {
    let Some(database) = TestDatabase::postgres() else { return };
    let mut checkpointer = Checkpointer::open(database.target()).expect("nothing to open");
    assert_eq!(checkpointer.run().expect("nothing to do").log_pages, 0);
}
