//! The command against `agentflow up`, as a process of its own.

use crate::support::{self, Home, until};

#[test]
fn a_task_goes_in_and_its_life_can_be_read() {
    let home = Home::new();
    let up = home.up("127.0.0.1:0");
    // The lock file names the master: nobody has to say where it is.
    let ended = home.run(&["submit", "--wait", "--logs", "--title", "greet", "--", "echo", "hello"]).code(0);
    assert!(ended.out.contains("completed") && ended.out.contains("| hello"), "{ended:#?}");
    let task = home.run(&["get", "TASK-00000001", "--json"]).code(0).json();
    assert_eq!(
        (&task["status"], &task["title"], &task["exit_code"]),
        (&"completed".into(), &"greet".into(), &0.into())
    );
    assert_eq!(task["argv"], serde_json::json!(["echo", "hello"]));
    assert_eq!(home.run(&["logs", "1"]).code(0).out, "hello\n");
    assert_eq!(home.run(&["logs", "-f", "1"]).code(0).out, "hello\n");
    let list = home.run(&["list", "--json"]).code(0).json();
    assert_eq!(list["tasks"].as_array().map(Vec::len), Some(1));
    let events = home.run(&["events", "--subject", "task:1", "--json"]).code(0).json();
    let kinds: Vec<_> =
        events["events"].as_array().expect("a list").iter().map(|event| &event["type"]).collect();
    assert_eq!(kinds.first(), Some(&&"task.created".into()));
    assert_eq!(kinds.last(), Some(&&"task.completed".into()));
    let workers = home.run(&["workers", "--json"]).code(0).json();
    assert_eq!(workers["workers"][0]["id"], "local");
    assert_eq!(home.run(&["stats", "--json"]).code(0).json()["tasks"]["completed"], 1);
    assert_eq!(home.run(&["health", "--json"]).code(0).json()["status"], "ok");
    up.stop().code(0);
    home.run(&["get", "1"]).code(3);
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    let home = Home::new();
    let up = home.up("127.0.0.1:0");
    home.run(&["submit", "--wait", "--", "false"]).code(1);
    let own = home.run(&["submit", "--wait", "--exit-code", "--shell", "echo bad news; exit 7"]).code(7);
    assert!(own.out.contains("failed") && own.out.contains("bad news"), "{own:#?}");
    home.run(&["wait", "1"]).code(1);
    let conflict = home.run(&["cancel", "1"]).code(5);
    assert!(conflict.err.contains("task 1"), "{conflict:#?}");
    home.run(&["get", "99"]).code(1);
    home.run(&["submit", "--shell", " "]).code(2);
    let busy = home.run(&["up", "--listen", "127.0.0.1:0"]).code(5);
    assert!(busy.err.contains("runs here already"), "{busy:#?}");
    let taken =
        home.command(&["up", "--listen", &up.address()]).env("XDG_STATE_HOME", home.path("other")).output();
    let taken = support::Ended::from(taken.expect("the binary starts")).code(5);
    assert!(taken.err.contains(&up.address()), "{taken:#?}");
    let id = home.run(&["submit", "--group", "nobody", "--", "true"]).code(0).out;
    home.run(&["wait", id.trim(), "--timeout", "100ms"]).code(124);
}

#[test]
fn why_cancel_update_and_retry() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    let ids = home.run(&["submit", "--group", "nobody", "--count", "3", "--kind", "noop"]).code(0).out;
    assert_eq!(ids, "1\n2\n3\n");
    let why = home.run(&["why", "1"]).code(0);
    assert!(why.out.contains("pending") && why.out.contains("nobody"), "{why:#?}");
    home.run(&["cancel", "1"]).code(0);
    assert_eq!(home.run(&["cancel", "--group", "nobody", "--json"]).code(0).json()["matched"], 2);
    home.run(&["wait", "1", "2", "3"]).code(1);
    home.run(&["retry", "1"]).code(0);
    home.run(&["update", "1", "--group", "default", "--priority", "high"]).code(0);
    home.run(&["wait", "1"]).code(0);
    let task = home.run(&["get", "1", "--json", "--attempts"]).code(0).json();
    assert_eq!((&task["priority"], &task["group"]), (&75.into(), &"default".into()));
}

#[test]
fn a_file_of_tasks_and_a_key_that_is_used_twice() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    let file = home.path("tasks.json");
    std::fs::write(&file, r#"{"tasks": ["true", {"kind": "noop", "title": "nothing"}]}"#).expect("written");
    let file = file.to_str().expect("text");
    let submit = ["submit", "--file", file, "--idempotency-key", "once", "--json"];
    let first = home.run(&submit).code(0).json();
    assert_eq!(first["ids"], serde_json::json!([1, 2]));
    assert_eq!(home.run(&submit).code(0).json(), first);
    home.run(&["submit", "--idempotency-key", "once", "--", "true"]).code(5);
    home.run(&["wait", "1", "2"]).code(0);
}

#[test]
fn waiting_and_following_survive_the_death_of_the_master() {
    let home = Home::new();
    let up = home.up("127.0.0.1:0");
    let gate = home.path("gate");
    let line = format!("echo begun; until test -e {}; do sleep 0.02; done; echo ended", gate.display());
    let id = home.run(&["submit", "--shell", &line]).code(0).out.trim().to_owned();
    let url = up.url.clone();
    let mut logs = home.start(&["--master", &url, "logs", "-f", &id]);
    logs.line_with("begun");
    // Nothing tells when it has met the master, so it is told to wait for one from the start.
    let wait = home.start(&["--master", &url, "wait", &id, "--patience", "60s"]);
    let mut events = home.start(&["--master", &url, "events", "-f", "--after", "0"]);
    events.line_with("task.started");
    let address = up.address();
    up.kill();
    std::fs::write(&gate, "").expect("written");
    let up = home.up(&address);
    wait.end().code(0);
    let logs = logs.end().code(0);
    assert!(logs.out.ends_with("ended\n"), "{logs:#?}");
    events.line_with("task.completed");
    let dead = home.run(&["--master", "http://127.0.0.1:1", "health"]).code(3);
    assert!(dead.err.contains("agentflow up"), "{dead:#?}");
    up.stop().code(0);
}

#[test]
fn a_list_runs_at_the_master_and_an_interrupted_one_goes_on() {
    let home = Home::new();
    let up = home.up("127.0.0.1:0");
    let done =
        home.run(&["run", r#"["echo one", "echo two; exit 3", {"kind": "noop"}]"#, "--exit-code"]).code(3);
    assert!(done.out.contains("2 completed, 1 failed") && done.out.contains("| two"), "{done:#?}");
    let gate = home.path("gate");
    let list = format!(r#"["until test -e {}; do sleep 0.02; done"]"#, gate.display());
    let run = home.start(&["run", &list]);
    until("the task runs", || {
        home.run(&["list", "--status", "running", "--json"]).json()["tasks"][0].is_object()
    });
    run.signal(rustix::process::Signal::INT);
    let interrupted = run.end().code(130);
    assert!(interrupted.err.contains("run --resume"), "{interrupted:#?}");
    std::fs::write(&gate, "").expect("written");
    home.run(&["run", "--resume", "last"]).code(0);
    up.stop().code(0);
}
