//! Workflows at a master and without one: what is told, and what survives.

use rustix::process::Signal;

use crate::support::{Home, file, lines, until};

/// A line of the pipe without its time, which has the form `12:03:04 `.
fn without_time(line: &str) -> String {
    let (time, rest) = line.split_at(line.len().min(9));
    let digits = |c: char| if c.is_ascii_digit() { '0' } else { c };
    if time.chars().map(digits).collect::<String>() == "00:00:00 " {
        rest.to_owned()
    } else {
        line.to_owned()
    }
}

/// Durations as `(T)`.
fn without_duration(line: &str) -> String {
    match (line.rfind('('), line.find(')')) {
        (Some(from), Some(to)) if line[from..to].ends_with(" s") => {
            format!("{}(T){}", &line[..from], &line[to + 1..])
        }
        _ => line.to_owned(),
    }
}

#[test]
fn a_pipe_gets_lines_as_nodes_change() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    let path = file(
        &home,
        "w.yaml",
        "version: 1\nname: told\nmode: sequential\ntasks:\n- {name: one, run: echo 1}\n\
         - {name: two, run: echo bad news; exit 7}\n- {name: three, run: echo 3}\n",
    );
    let ended = home.run(&["run", &path]).code(1);
    let told: Vec<String> = ended.out.lines().map(without_time).map(|line| without_duration(&line)).collect();
    assert_eq!(
        told,
        [
            "run 1 running",
            "one running",
            "one completed (T)",
            "two running",
            "two failed (T): exit code 7",
            "    | bad news",
            "three skipped: 'two' failed",
            "run 1 told failed: 1 completed, 1 failed, 1 skipped (T)",
        ],
        "{ended:#?}"
    );
    assert!(ended.err.contains("w.yaml at http://"), "{ended:#?}");
    assert!(!ended.out.contains('\x1b'), "no colours in a pipe");
    home.run(&["run", &path, "--exit-code"]).code(7);
    // There is no terminal to draw on, and so nothing else comes of it.
    let watched = home.run(&["run", &path, "--watch"]).code(1);
    assert_eq!(watched.out.lines().count(), told.len());
    let json = home.run(&["run", &path, "--json"]).code(1).json();
    assert_eq!((&json["status"], &json["nodes"][1]["exit_code"]), (&"failed".into(), &7.into()));
}

#[test]
fn the_master_says_what_is_wrong_with_lines() {
    let home = Home::new();
    let up = home.up("127.0.0.1:0");
    let path = file(
        &home,
        "w.yaml",
        "version: 1\nvars: {n: 1}\ntasks:\n  a: echo ${{ vars.n }}\n  b: {needs: aa}\n",
    );
    let wrong = home.run(&["run", &path]).code(2);
    assert!(
        wrong.err.ends_with(&format!("{path}:5:14: there is no task 'aa' (did you mean 'a'?)\n")),
        "{wrong:#?}"
    );
    let path = file(&home, "w.yaml", "version: 1\nvars: {n: 1}\ntasks:\n  a: echo ${{ vars.n }}\n");
    let wrong = home.run(&["run", &path, "--var", "m=1"]).code(2);
    assert!(wrong.err.contains(&format!("{path}:2:7: 'm' is not among the vars")), "{wrong:#?}");
    // Flags for its tasks are put beside its defaults, and lines are named all the same.
    let wrong = home.run(&["run", &path, "--var", "m=1", "--priority", "high"]).code(2);
    assert!(wrong.err.contains(&format!("{path}:2:7: 'm' is not among the vars")), "{wrong:#?}");
    home.run(&["run", &path, "--var", "n=7", "--priority", "high", "--env", "A=b"]).code(0);
    let task = home.run(&["list", "--run", "1", "--json"]).code(0).json()["tasks"][0].clone();
    assert_eq!((&task["priority"], &task["node"]), (&75.into(), &"a".into()));
    assert_eq!(home.run(&["logs", &task["id"].to_string()]).code(0).out, "7\n");
    up.stop().code(0);
}

#[test]
fn inputs_and_vars_come_from_files_too() {
    let home = Home::new();
    let path = file(
        &home,
        "w.yaml",
        "version: 1\nvars: {list: [], word: x}\ntasks:\n  a:\n    foreach: ${{ vars.list }}\n    \
         run: echo ${{ vars.word }} ${{ item }} ${{ inputs.who }}\n",
    );
    let vars = file(&home, "vars.yaml", "list: [1, 2]\nword: file\n");
    let input = file(&home, "input.json", r#"{"who": "me"}"#);
    let input = format!("@{input}");
    let words =
        ["run", "--embedded", "--logs", &path, "--vars-file", &vars, "--var", "word=flag", "--input", &input];
    let ended = home.run(&words).code(0);
    for text in ["| flag 1 me", "| flag 2 me", "a completed", "completed: 1 completed"] {
        assert!(ended.out.contains(text), "{ended:#?}");
    }
}

#[test]
fn work_of_a_workflow_begins_where_the_command_was_typed() {
    let home = Home::new();
    let here = home.path("here");
    std::fs::create_dir(&here).expect("made");
    let path = file(
        &home,
        "w.yaml",
        "version: 1\ntasks:\n  a: touch made-here\n  b: {workflow: {tasks: {c: touch made-inside}}}\n",
    );
    let run = home.command(&["run", "--embedded", &path]).current_dir(&here).output();
    assert!(run.expect("the binary starts").status.success());
    assert!(here.join("made-here").exists() && here.join("made-inside").exists());
}

/// A workflow of a task that waits for a file, and one after it. Also the files.
fn gated(home: &Home) -> (String, std::path::PathBuf, std::path::PathBuf) {
    let (gate, starts) = (home.path("gate"), home.path("starts"));
    let command = format!(
        "echo started >> {}; until test -e {}; do sleep 0.02; done",
        starts.display(),
        gate.display()
    );
    let text = format!(
        "version: 1\nname: gated\ntasks:\n  first: {command}\n  second: {{run: echo done, needs: first}}\n"
    );
    (file(home, "gated.yaml", &text), gate, starts)
}

#[test]
fn following_survives_the_death_of_the_master() {
    let home = Home::new();
    let up = home.up("127.0.0.1:0");
    let (path, gate, _) = gated(&home);
    let url = up.url.clone();
    let mut run = home.start(&["--master", &url, "run", &path]);
    run.line_with("first running");
    let address = up.address();
    up.kill();
    std::fs::write(&gate, "").expect("written");
    let up = home.up(&address);
    let ended = run.end().code(0);
    assert!(ended.out.contains("second completed") && ended.out.contains("2 completed"), "{ended:#?}");
    up.stop().code(0);
}

#[test]
fn an_interrupted_workflow_goes_on_only_when_it_is_resumed() {
    let home = Home::new();
    let (path, gate, starts) = gated(&home);
    let mut run = home.start(&["run", "--embedded", &path]);
    run.line_with("first running");
    until("it has begun", || lines(&starts) == 1);
    run.signal(Signal::INT);
    let interrupted = run.end().code(130);
    let id =
        interrupted.err.split("--resume ").nth(1).and_then(|rest| rest.get(..8)).expect("an id").to_owned();
    home.run(&["run", "--embedded", r#"["echo mine"]"#]).code(0);
    assert_eq!(lines(&starts), 1, "another run has begun what was interrupted");
    std::fs::write(&gate, "").expect("written");
    let resumed = home.run(&["run", "--resume", &id]).code(0);
    assert!(resumed.out.contains("run 1 gated completed: 2 completed"), "{resumed:#?}");
    assert_eq!(lines(&starts), 2);
}

#[test]
fn a_killed_workflow_can_be_resumed() {
    let home = Home::new();
    let (path, gate, starts) = gated(&home);
    let run = home.start(&["run", "--embedded", &path]);
    until("it has begun", || lines(&starts) == 1);
    run.kill();
    std::fs::write(&gate, "").expect("written");
    home.run(&["run", "--resume", "last"]).code(0);
}

#[test]
fn a_time_limit_ends_the_waiting_for_a_workflow() {
    let home = Home::new();
    let path = file(&home, "w.yaml", "version: 1\ntasks: {a: sleep 60}\n");
    let ended = home.run(&["run", "--embedded", "--timeout", "300ms", &path]).code(124);
    assert!(ended.err.contains("--resume"), "{ended:#?}");
    let detached = home.run(&["run", "--detach", &path]);
    assert!(detached.code == Some(2) && detached.err.contains("agentflow up"), "{detached:#?}");
}

#[test]
fn standard_input_holds_a_workflow_too() {
    let home = Home::new();
    let path = file(&home, "in", "version: 1\ntasks: {a: echo from the pipe}\n");
    let mut command = home.command(&["run", "--embedded", "--logs", "-"]);
    command.stdin(std::fs::File::open(path).expect("there"));
    let output = command.output().expect("the binary starts");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && out.contains("| from the pipe"), "{out}");
}
