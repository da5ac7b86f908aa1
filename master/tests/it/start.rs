//! What keeps a master from starting, and the program itself.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use agentflow_master::{Config, Error, start};

use crate::support::{Client, TestMaster, config};

fn refusal(config: Config) -> Error {
    start(config).expect_err("a reason not to start")
}

#[test]
fn a_port_in_use_is_said() {
    let master = TestMaster::start();
    let dir = tempfile::tempdir().expect("a directory");
    let error = refusal(Config { listen: master.address().to_string(), ..config(&dir) });
    assert!(error.is_listen() && error.to_string().contains("--listen"), "{error}");
}

#[test]
fn a_second_master_is_told_of_the_first() {
    let master = TestMaster::start();
    let error = refusal(master.config.clone());
    assert!(error.is_locked(), "{error}");
    assert!(error.to_string().contains(&master.client.url), "{error}");
    master.client.get("/ready").expect(200);
}

#[test]
fn a_database_that_is_none_is_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(&dir);
    std::fs::write(&config.database, "no database at all ".repeat(1_000)).expect("written");
    let error = refusal(config.clone());
    assert!(matches!(error, Error::Database(_)), "{error:?}");
    assert!(error.to_string().contains("test.db"), "{error}");
    std::fs::remove_file(&config.database).expect("removed");
    std::fs::create_dir(&config.database).expect("made");
    assert!(matches!(refusal(config.clone()), Error::Database(_)));
    std::fs::remove_dir(&config.database).expect("removed");
    let missing = Config { database: dir.path().join("none/x.db").display().to_string(), ..config };
    assert!(refusal(missing).to_string().contains("none/x.db"));
}

#[test]
fn a_data_directory_that_is_a_file_is_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("written");
    let error = refusal(Config { data_dir: file, ..config(&dir) });
    assert!(error.to_string().contains("--data-dir"), "{error}");
}

#[test]
fn other_machines_are_not_let_in_without_a_token() {
    let dir = tempfile::tempdir().expect("a directory");
    let error = refusal(Config { listen: "0.0.0.0:0".to_owned(), ..config(&dir) });
    assert!(error.is_configuration() && error.to_string().contains("--token-file"), "{error}");
}

#[test]
fn the_program_says_where_it_listens_and_ends_on_a_signal() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = env!("CARGO_BIN_EXE_agentflow-master");
    let mut child = Command::new(program)
        .args(["--listen", "127.0.0.1:0", "--log", "warn"])
        .env("AGENTFLOW_MASTER_DATABASE", dir.path().join("p.db"))
        .current_dir(&dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let url = line.trim().strip_prefix("listening on ").expect("the agreed words");
    let client = Client::new(url);
    client.get("/ready").expect(200);
    client.submit(r#"{"kind": "noop"}"#);
    assert!(dir.path().join("p-data/logs").is_dir());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("sent");
    assert!(child.wait().expect("ended").success());

    let output = Command::new(program).args(["--listen", "0.0.0.0:0"]).current_dir(&dir).output();
    let output = output.expect("ended");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--token-file"));
    let output = Command::new(program).args(["--print-config", "--lease-ms", "9000"]).output();
    assert!(String::from_utf8_lossy(&output.expect("ended").stdout).contains("lease_ms = 9000"));
    let output = Command::new(program).arg("--colour").output().expect("ended");
    assert_eq!(output.status.code(), Some(2));
}
