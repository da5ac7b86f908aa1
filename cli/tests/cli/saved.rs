//! What outlives an attempt: checkpoints, memories and versions, inside tasks and outside.

use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use crate::support::{Ended, Home, file, lines, until};

/// `agentflow` as tasks call it.
const AGENTFLOW: &str = env!("CARGO_BIN_EXE_agentflow");

impl Home {
    /// Runs it with that standard input.
    fn run_with_input(&self, words: &[&str], input: &[u8]) -> Ended {
        let mut command = self.command(words);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("the binary starts");
        child.stdin.take().expect("piped").write_all(input).expect("written");
        Ended::from(child.wait_with_output().expect("it ends"))
    }

    /// Submits a script that calls `$agentflow` and writes to `$home`.
    fn submit_script(&self, script: &str) -> String {
        let home = self.path("");
        let line = format!("agentflow='{AGENTFLOW}'; home='{}'; {script}", home.display());
        self.run(&["submit", "--shell", &line]).code(0).out.trim().to_owned()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

/// Fails in its first attempt, and in its second one if it does not find what the first one left.
const SCRIPT: &str = r#"
if $agentflow checkpoint load > $home/loaded.$AGENTFLOW_ATTEMPT; then
    set -e
    test "$($agentflow recall step)" = 5
    $agentflow recall list --json > $home/list
    $agentflow recall --json > $home/all
    $agentflow checkpoint list > $home/history
    test "$(cat $AGENTFLOW_MEMORY)" = "$(cat $home/all)"
    exit 0
else
    echo $? > $home/nothing
fi
set -e
$agentflow checkpoint save one --data '{"n": 1}' > $home/one
$agentflow remember step 5
$agentflow remember list '[1.50, "a"]'
$agentflow remember text "it's" --ttl 1h
$agentflow remember gone 1
$agentflow forget gone never
$agentflow recall text > $home/text
$agentflow recall gone && exit 9
$agentflow progress 40 'on the way'
printf 'raw\0bytes\n' | $agentflow checkpoint save two --data -
until test -e $home/gate; do sleep 0.02; done
exit 3
"#;

#[test]
fn a_task_saves_its_state_fails_and_goes_on() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    let id = home.submit_script(SCRIPT);
    until("it says how far it is", || {
        home.run(&["get", &id, "--json"]).json()["progress"]["message"] == "on the way"
    });
    std::fs::write(home.path("gate"), "").expect("written");
    home.run(&["wait", &id]).code(1);
    assert_eq!(home.run(&["get", &id, "--json"]).json()["exit_code"], 3, "{:?}", home.run(&["logs", &id]));
    assert_eq!((home.read("nothing"), home.read("loaded.1")), ("1\n".to_owned(), String::new()));
    assert_eq!((home.read("one"), home.read("text")), ("1\n".to_owned(), "it's\n".to_owned()));
    home.run(&["retry", &id]).code(0);
    let logs = || home.run(&["logs", &id]);
    assert_eq!(home.run(&["wait", &id]).code, Some(0), "{:?}", logs());
    assert_eq!(home.read("loaded.2"), "raw\0bytes\n", "exactly what was saved");
    assert_eq!(home.read("list"), "[1.50, \"a\"]\n", "as it was written");
    let all = serde_json::from_str::<serde_json::Value>(&home.read("all")).expect("JSON");
    assert_eq!(all, json!({"list": [1.5, "a"], "step": 5, "text": "it's"}));
    let names = |text: &str| -> Vec<String> {
        text.lines().skip(1).filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect()
    };
    // Whether the master knows already that the second attempt has begun is left open.
    assert_eq!(names(&home.read("history"))[..3], ["task_start", "one", "two"]);
    let history = home.run(&["checkpoint", "list", &id]).code(0).out;
    assert_eq!(names(&history), ["task_start", "one", "two", "task_start", "task_complete"]);
    // Without what was saved it fails as at first.
    home.run(&["retry", &id, "--from-beginning"]).code(0);
    home.run(&["wait", &id]).code(1);
    assert_eq!(home.read("loaded.3"), "");
}

#[test]
fn tasks_of_a_run_share_a_memory() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    let text = format!(
        "version: 1
tasks:
  first: {{run: '{AGENTFLOW} remember k shared --run && {AGENTFLOW} remember own 1'}}
  second: {{needs: first, run: 'test \"$({AGENTFLOW} recall k --run)\" = shared && ! {AGENTFLOW} recall own'}}
"
    );
    home.run(&["run", &file(&home, "shared.yaml", &text)]).code(0);
    assert_eq!(home.run(&["recall", "k", "--run", "1"]).code(0).out, "shared\n");
    assert_eq!(home.run(&["recall", "--run", "1", "--json"]).code(0).json(), json!({"k": "shared"}));
    let ended = home.run(&["remember", "k", "2", "--run", "1"]).code(5);
    assert!(ended.err.contains("completed"), "{ended:#?}");
    let alone = home.submit_script("$agentflow remember k 1 --run");
    home.run(&["wait", &alone]).code(1);
    let logs = home.run(&["logs", &alone]).code(0).out;
    assert!(logs.contains("no part of a run"), "{logs}");
    assert_eq!(home.run(&["get", &alone, "--json"]).json()["exit_code"], 5);
}

#[test]
fn checkpoints_are_saved_shown_and_restored_from_outside() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    home.run(&["submit", "--group", "nobody", "--title", "waits", "--kind", "noop"]).code(0);
    let save = |words: &[&str]| home.run(&[&["checkpoint", "save", "--task", "1"], words].concat());
    assert_eq!(save(&["one", "--data", r#"{"n":  1.50}"#]).code(0).out, "1\n");
    let saved = save(&["step 2", "--data", "-5", "--json"]).code(0).json();
    assert_eq!(saved, json!({"id": 2, "name": "step 2"}));
    let path = home.path("bytes");
    std::fs::write(&path, b"\xff\0\n").expect("written");
    assert_eq!(save(&["file", "--file", path.to_str().expect("text")]).code(0).out, "3\n");
    let input = ["checkpoint", "save", "--task", "TASK-00000001", "input", "--data", "-"];
    assert_eq!(home.run_with_input(&input, b"from a pipe").code(0).out, "4\n");
    assert_eq!(save(&["nothing"]).code(0).out, "5\n");

    let list = home.run(&["checkpoints", "ls", "1"]).code(0).out;
    let columns: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(columns[0], ["ID", "ATTEMPT", "BYTES", "CREATED", "NAME"]);
    assert_eq!((&columns[1][..3], columns[2][4..].join(" ")), (&["1", "0", "12"][..], "step 2".to_owned()));
    assert_eq!(columns.len(), 6);
    let list = home.run(&["checkpoint", "list", "1", "--json"]).code(0).json();
    assert_eq!((&list["checkpoints"][2]["name"], list["checkpoints"][2].get("data")), (&json!("file"), None));

    let load = |id: &str| home.command(&["checkpoint", "load", id]).output().expect("the binary starts");
    assert_eq!(load("1").stdout, br#"{"n":  1.50}"#);
    assert_eq!((load("3").stdout, load("4").stdout), (b"\xff\0\n".to_vec(), b"from a pipe".to_vec()));
    assert_eq!((load("5").stdout, load("99").status.code()), (b"null".to_vec(), Some(1)));
    let shown = home.run(&["checkpoint", "show", "1"]).code(0).out;
    for text in ["one", r#"{"n":  1.50}"#, "12"] {
        assert!(shown.contains(text), "{shown}");
    }
    assert_eq!(home.run(&["checkpoint", "show", "2", "--json"]).code(0).json()["data"], -5);
    assert_eq!(home.run(&["checkpoint", "show", "3", "--json"]).code(0).json()["data_base64"], "/wAK");

    let restored = home.run(&["checkpoint", "restore", "1"]).code(0).out;
    assert!(restored.contains("pending") && restored.contains("waits"), "{restored}");
    let restored = home.run(&["checkpoint", "restore", "1", "--from-beginning", "--json"]).code(0).json();
    assert_eq!((&restored["id"], &restored["status"]), (&json!(1), &json!("pending")));
    let gone = home.run(&["checkpoint", "restore", "99"]).code(1);
    assert!(gone.err.contains("99"), "{gone:#?}");
}

#[test]
fn a_running_task_goes_on_at_the_checkpoint_that_was_chosen() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    let id = home.submit_script(
        r#"$agentflow checkpoint load > $home/loaded.$AGENTFLOW_ATTEMPT
        if test $AGENTFLOW_ATTEMPT -eq 1; then
            $agentflow checkpoint save one --data 1
            $agentflow checkpoint save two --data 2
        fi
        echo begun >> $home/begun
        until test -e $home/gate; do sleep 0.02; done"#,
    );
    until("it has begun", || lines(&home.path("begun")) == 1);
    home.run(&["checkpoint", "restore", "1"]).code(0);
    until("it has begun again", || lines(&home.path("begun")) == 2);
    std::fs::write(home.path("gate"), "").expect("written");
    home.run(&["wait", &id]).code(0);
    assert_eq!((home.read("loaded.1"), home.read("loaded.2")), (String::new(), "1".to_owned()));
    let attempts = home.run(&["get", &id, "--attempts", "--json"]).code(0).json();
    assert_eq!(attempts["attempt"], 2);
}

#[test]
fn memories_are_reached_from_outside() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    home.run(&["submit", "--group", "nobody", "--kind", "noop"]).code(0);
    let own = |words: &[&str]| home.run(&[words, &["--task", "1"]].concat());
    assert_eq!(own(&["remember", "a/b ü", "plain text"]).code(0).out, "");
    let said = own(&["remember", "n", "-5", "--ttl", "1h", "--json"]).code(0).json();
    assert_eq!(said, json!({"name": "n", "value": -5}));
    assert_eq!(own(&["recall", "a/b ü"]).code(0).out, "plain text\n");
    assert_eq!(own(&["recall", "a/b ü", "--json"]).code(0).out, "\"plain text\"\n");
    assert_eq!(own(&["recall", "--json"]).code(0).json(), json!({"a/b ü": "plain text", "n": -5}));
    let table = own(&["recall"]).code(0).out;
    let columns: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(columns[0], ["KEY", "UNTIL", "VALUE"]);
    assert!(columns[2][0] == "n" && columns[2][1].ends_with('Z') && columns[2][2] == "-5", "{table}");
    let gone = own(&["forget", "n", "never", "--json"]).code(0).json();
    assert_eq!(gone, json!({"forgotten": ["n", "never"]}));
    let nothing = own(&["recall", "n"]).code(1);
    assert!(nothing.out.is_empty() && nothing.err.contains("'n'"), "{nothing:#?}");
    own(&["remember", "a..b", "1"]).code(2);
    own(&["remember", "k", "1", "--ttl", "0s"]).code(2);
    let unknown = home.run(&["recall", "k", "--task", "99"]).code(1);
    assert!(unknown.err.contains("99"), "{unknown:#?}");
    home.run(&["cancel", "1"]).code(0);
    let ended = own(&["remember", "k", "1"]).code(5);
    assert!(ended.err.contains("cancelled"), "{ended:#?}");
}

#[test]
fn versions_show_what_each_changed() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    home.run(&["submit", "--group", "nobody", "--title", "First", "--shell", "echo one"]).code(0);
    let first = home.run(&["versions", "1"]).code(0).out;
    assert!(first.starts_with("version 1  ") && first.contains("  command: echo one\n"), "{first}");
    let upgraded = home.run(&[
        "upgrade",
        "1",
        "--shell",
        "echo two",
        "--title",
        "Second",
        "--reason",
        "it was wrong",
        "--author",
        "ann",
    ]);
    let upgraded = upgraded.code(0).out;
    for text in ["pending", "version 2", "Second"] {
        assert!(upgraded.contains(text), "{upgraded}");
    }
    let spec = r#"{"timeout_ms": 5000}"#;
    let view = home.run(&["upgrade", "1", "--spec", spec, "--json", "--", "echo", "three"]).code(0).json();
    assert_eq!((&view["version"], &view["argv"]), (&json!(3), &json!(["echo", "three"])));
    let shown = home.run(&["versions", "1"]).code(0).out;
    let heads: Vec<&str> = shown.lines().filter(|line| line.starts_with("version ")).collect();
    assert!(heads.len() == 3 && heads[1].ends_with(" by ann: it was wrong"), "{shown}");
    for line in [
        "- title: First",
        "+ title: Second",
        "- command: echo one",
        "+ command: echo two",
        "  kind: shell",
        "- kind: shell",
        "+ kind: exec",
        "- command: echo two",
        "+ argv: [\"echo\",\"three\"]",
        "+ timeout_ms: 5000",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
    let all = home.run(&["versions", "1", "--json"]).code(0).json();
    let versions = all["versions"].as_array().expect("a list");
    assert_eq!(versions.iter().map(|one| &one["version"]).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(versions[1]["reason"], "it was wrong");
    let stale = home.run(&["upgrade", "1", "--title", "x", "--expected-version", "2"]).code(5);
    assert!(stale.err.contains("version is 3"), "{stale:#?}");
    let wrong = home.run(&["upgrade", "1", "--spec", r#"{"retry": {"max": -1}}"#]).code(2);
    assert!(wrong.err.contains("/new_spec/retry/max"), "{wrong:#?}");
    home.run(&["update", "1", "--group", "default"]).code(0);
    home.run(&["wait", "1"]).code(0);
    assert_eq!(home.run(&["logs", "1"]).code(0).out, "three\n");
    // What has ended runs again.
    home.run(&["upgrade", "1", "--shell", "echo four"]).code(0);
    home.run(&["wait", "1"]).code(0);
    assert_eq!(home.run(&["logs", "1"]).code(0).out, "four\n");
}

#[test]
fn what_is_wrong_is_said_and_exits_accordingly() {
    let home = Home::new();
    for words in [
        ["checkpoint", "save", "a"].as_slice(),
        &["checkpoint", "list"],
        &["checkpoint", "load"],
        &["remember", "k", "1"],
        &["recall", "k"],
        &["recall", "k", "--run"],
        &["forget", "k"],
        &["progress", "5"],
    ] {
        let ended = home.run(words).code(2);
        assert!(ended.err.contains("inside"), "{words:?}: {ended:#?}");
    }
    for words in [
        ["checkpoint", "save"].as_slice(),
        &["checkpoint", "show", "0"],
        &["checkpoint", "restore"],
        &["checkpoint", "save", "a", "--task", "1", "--file", "/nonexistent"],
        &["remember", "k"],
        &["forget"],
        &["recall", "--task", "1", "--run", "1"],
        &["upgrade", "1", "--spec", "[1]"],
        &["upgrade", "1", "--expected-version", "0", "--title", "x"],
        &["versions", "x"],
        &["retry", "--all", "--from-beginning"],
    ] {
        let ended = home.run(words).code(2);
        assert!(!ended.err.is_empty(), "{words:?}");
    }
    let _up = home.up("127.0.0.1:0");
    home.run(&["submit", "--group", "nobody", "--kind", "noop"]).code(0);
    home.run(&["checkpoint", "save", "..", "--task", "1"]).code(2);
    home.run(&["upgrade", "1"]).code(2);
    home.run(&["upgrade", "99", "--title", "x"]).code(1);
    home.run(&["checkpoint", "list", "99"]).code(1);
    home.run(&["cancel", "1"]).code(0);
    let ended = home.run(&["checkpoint", "save", "a", "--task", "1"]).code(5);
    assert!(ended.err.contains("cancelled"), "{ended:#?}");
    // Inside a task, an attempt that is not the current one.
    let stale = home.submit_script("AGENTFLOW_ATTEMPT_KEY=other $agentflow remember k 1");
    home.run(&["wait", &stale]).code(1);
    assert_eq!(home.run(&["get", &stale, "--json"]).json()["exit_code"], 5);
    let logs = home.run(&["logs", &stale]).code(0).out;
    assert!(logs.contains("another has taken over"), "{logs}");
    let wrong = home.submit_script("$agentflow checkpoint save task_start || $agentflow progress 101");
    home.run(&["wait", &wrong]).code(1);
    assert_eq!(home.run(&["get", &wrong, "--json"]).json()["exit_code"], 2);
    let logs = home.run(&["logs", &wrong]).code(0).out;
    assert!(logs.contains("choose another name") && logs.contains("0 to 100"), "{logs}");
}
