//! `agentflow run` where no master answers: it brings its own.

use crate::support::{Home, lines, until};
use rustix::process::Signal;

#[test]
fn a_list_runs_without_a_master() {
    let home = Home::new();
    let ended =
        home.run(&["run", "--embedded", "--logs", r#"["echo one", "echo two", "echo three"]"#]).code(0);
    for text in ["| one", "| two", "| three", "3 completed"] {
        assert!(ended.out.contains(text), "{ended:#?}");
    }
    let file = home.path("list.txt");
    std::fs::write(&file, "# a comment\necho fine\nexit 5\n").expect("written");
    let file = file.to_str().expect("text");
    home.run(&["run", "--embedded", file]).code(1);
    let ended = home.run(&["run", "--embedded", "--json", "--exit-code", file]).code(5);
    let answer = ended.json();
    assert_eq!(answer["status"], "failed");
    assert_eq!(answer["counts"]["failed"], 1);
    assert_eq!(answer["tasks"][1]["exit_code"], 5);
    home.run(&["run", "--embedded", "[\"\"]"]).code(2);
}

#[test]
fn work_begins_where_the_command_was_typed() {
    let home = Home::new();
    let here = home.path("here");
    std::fs::create_dir(&here).expect("made");
    let run = home.command(&["run", "--embedded", r#"["touch made-here"]"#]).current_dir(&here).output();
    assert!(run.expect("the binary starts").status.success());
    assert!(here.join("made-here").exists());
}

#[test]
fn what_was_interrupted_goes_on_only_when_it_is_resumed() {
    let home = Home::new();
    let (gate, starts) = (home.path("gate"), home.path("starts"));
    let line = format!(
        "echo started >> {}; until test -e {}; do sleep 0.02; done",
        starts.display(),
        gate.display()
    );
    let list = serde_json::json!([line, "echo other"]).to_string();
    let run = home.start(&["run", "--embedded", &list, "--json"]);
    until("it has begun", || lines(&starts) == 1);
    run.signal(Signal::INT);
    let interrupted = run.end().code(130);
    let id =
        interrupted.err.split("--resume ").nth(1).and_then(|rest| rest.get(..8)).expect("an id").to_owned();
    home.run(&["run", "--embedded", r#"["echo mine"]"#]).code(0);
    assert_eq!(lines(&starts), 1, "another run has begun what was interrupted");
    std::fs::write(&gate, "").expect("written");
    let resumed = home.run(&["run", "--resume", &id, "--json"]).code(0).json();
    assert_eq!(resumed["counts"]["completed"], 2);
    assert_eq!(lines(&starts), 2);
}

#[test]
fn a_killed_run_can_be_resumed() {
    let home = Home::new();
    let (gate, starts) = (home.path("gate"), home.path("starts"));
    let line = format!(
        "echo started >> {}; until test -e {}; do sleep 0.02; done",
        starts.display(),
        gate.display()
    );
    let list = serde_json::json!([line]).to_string();
    let run = home.start(&["run", "--embedded", &list]);
    until("it has begun", || lines(&starts) == 1);
    run.kill();
    std::fs::write(&gate, "").expect("written");
    home.run(&["run", "--resume", "last"]).code(0);
}

#[test]
fn a_second_run_joins_the_first_ones_master() {
    let home = Home::new();
    let (gate, starts) = (home.path("gate"), home.path("starts"));
    let line = format!(
        "echo started >> {}; until test -e {}; do sleep 0.02; done",
        starts.display(),
        gate.display()
    );
    let first = home.start(&["run", "--embedded", &serde_json::json!([line]).to_string()]);
    until("it has begun", || lines(&starts) == 1);
    home.run(&["run", "--embedded", r#"["echo second"]"#]).code(0);
    let list = home.run(&["list", "--json"]).code(0).json();
    assert_eq!(list["tasks"].as_array().map(Vec::len), Some(2), "one master has both");
    std::fs::write(&gate, "").expect("written");
    first.end().code(0);
}

#[test]
fn a_time_limit_ends_it() {
    let home = Home::new();
    let ended = home.run(&["run", "--embedded", "--timeout", "300ms", r#"["sleep 60"]"#]).code(124);
    assert!(ended.err.contains("--resume"), "{ended:#?}");
}
