//! Locks of files, as people and tasks take them.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Ended, Home, Started, file, lines, until};

/// `agentflow` as tasks call it.
const AGENTFLOW: &str = env!("CARGO_BIN_EXE_agentflow");

/// The repository of which [`Copies`] are.
const REPO: &str = "example.com/team/app";

/// A home with working copies of one repository in it.
struct Copies(Home);

impl Copies {
    fn new(names: &[&str]) -> Self {
        let copies = Self(Home::new());
        for name in names {
            let git = |words: &[&str]| {
                let status = Command::new("git").arg("-C").arg(copies.0.path("")).args(words).status();
                assert!(status.expect("git").success(), "{words:?}");
            };
            git(&["init", "--quiet", name]);
            git(&["-C", name, "config", "remote.origin.url", "git@Example.com:team/app.git"]);
            std::fs::create_dir(copies.path(name, "src")).expect("made");
            std::fs::write(copies.path(name, "src/a.rs"), "").expect("written");
        }
        copies
    }

    fn path(&self, copy: &str, name: &str) -> PathBuf {
        self.0.path(copy).join(name)
    }

    /// A person at work in the copy of that name.
    fn command(&self, who: &str, words: &[&str]) -> Command {
        let mut command = self.0.command(words);
        command.current_dir(self.0.path(who)).env("USER", who);
        command
    }

    #[track_caller]
    fn run(&self, who: &str, words: &[&str]) -> Ended {
        Ended::from(self.command(who, words).output().expect("the binary starts"))
    }

    /// Where there is no working copy.
    #[track_caller]
    fn outside(&self, words: &[&str]) -> Ended {
        self.run("", words)
    }

    fn start(&self, who: &str, words: &[&str]) -> Started {
        Started::of(self.command(who, words))
    }

    /// Every lock that is held.
    fn held(&self) -> Vec<Value> {
        let all = self.0.run(&["locks", "--all-repos", "--json"]).code(0).json();
        all["locks"].as_array().expect("a list").clone()
    }

    /// What is noted in a copy.
    fn noted(&self, copy: &str) -> usize {
        let text = std::fs::read_to_string(self.path(copy, ".git/agentflow/locks.json")).unwrap_or_default();
        serde_json::from_str::<Value>(&text).map_or(0, |noted| noted["locks"].as_array().map_or(0, Vec::len))
    }
}

#[test]
fn a_file_is_locked_by_one_and_refused_to_others() {
    let copies = Copies::new(&["ann", "bob"]);
    let _up = copies.0.up("127.0.0.1:0");
    let lock = copies.run("ann", &["lock", "src", "new.txt", "--reason", "a new parser"]).code(0);
    assert!(lock.out.starts_with("locked 'new.txt', 'src/**' to write until "), "{lock:#?}");
    assert!(lock.out.contains("fence 1") && lock.out.contains("of ann@"), "{lock:#?}");
    assert_eq!(copies.noted("ann"), 1);
    let refused = copies.run("bob", &["lock", "src/a.rs"]).code(5);
    for word in ["ann@", "'src/**'", "since", "until", "a new parser", "--wait", "agentflow lock break "] {
        assert!(refused.err.contains(word), "{word}: {refused:#?}");
    }
    assert_eq!(copies.noted("bob"), 0);
    let own = copies.run("ann", &["lock", "src/a.rs"]).code(5);
    assert!(own.err.contains("a lock of yours") && own.err.contains("agentflow unlock --id "), "{own:#?}");
    copies.run("bob", &["lock", "README", "--read"]).code(0);

    let table = copies.run("bob", &["locks"]).code(0).out;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["FENCE", "OWNER", "MODE", "AGE", "UNTIL", "PATHS"]);
    assert!(rows.len() == 3 && table.contains("new.txt src/**") && table.contains("read"), "{table}");
    let some = copies.run("bob", &["locks", "src/a.rs", "--json"]).code(0).json();
    assert_eq!((some["locks"].as_array().map(Vec::len), &some["locks"][0]["repo"]), (Some(1), &json!(REPO)));
    assert_eq!(some["locks"][0]["reason"], "a new parser");

    let status = copies.run("bob", &["lock", "status", "src/a.rs", "README", "other"]).code(5).out;
    for word in ["locked  src/a.rs", "ann@", "a new parser", "yours   README", "you hold", "free    other"] {
        assert!(status.contains(word), "{word}: {status}");
    }
    let mine = copies.run("ann", &["lock", "status", "src", "--json"]).code(0).json();
    assert_eq!((&mine["paths"][0]["path"], &mine["paths"][0]["state"]), (&json!("src/**"), &json!("mine")));

    let others = copies.run("bob", &["unlock", "src"]).code(5);
    assert!(others.err.contains("ann@") && others.err.contains("agentflow lock break "), "{others:#?}");
    let id = copies.held()[0]["id"].as_str().expect("text").to_owned();
    copies.run("bob", &["unlock", "--id", &id]).code(5);
    // Also where it was taken, unless he says that he is ann.
    copies.run("ann", &["unlock", "src", "new.txt", "--owner", "bob"]).code(5);
    let together = copies.run("ann", &["unlock", "src"]).code(2);
    assert!(together.err.contains("'new.txt'") && together.err.contains(&id), "{together:#?}");
    let given = copies.run("ann", &["unlock", "src", "new.txt"]).code(0);
    assert_eq!((given.out.as_str(), copies.noted("ann")), ("unlocked 'new.txt', 'src/**' to write\n", 0));
    let gone = copies.run("ann", &["unlock", "src"]).code(1);
    assert!(gone.err.contains("'src/**' is not locked"), "{gone:#?}");
    let all = copies.run("bob", &["unlock", "--all", "--json"]).code(0).json();
    assert_eq!(all["released"][0]["paths"], json!([{"path": "README", "mode": "read"}]));
    let nothing = copies.run("bob", &["locks"]).code(0);
    assert!(nothing.out.is_empty() && nothing.err.contains("nothing is locked in example.com/team/app"));
}

#[test]
fn who_waits_gets_it_next() {
    let copies = Copies::new(&["ann", "bob"]);
    let _up = copies.0.up("127.0.0.1:0");
    let first = copies.run("ann", &["lock", "src/a.rs", "--json", "--ttl", "none"]).code(0).json();
    assert_eq!((&first["fence"], &first["expires_at"]), (&json!(1), &Value::Null));
    let waiting = copies.start("bob", &["lock", "src", "--wait", "60s", "--json"]);
    until("bob waits", || {
        let all = copies.run("ann", &["locks", "--json"]).code(0).json();
        all["waiting"].as_array().is_some_and(|waiting| waiting.len() == 1)
    });
    let table = copies.run("ann", &["locks"]).code(0).out;
    assert!(table.contains("WAITING") && table.contains("bob@"), "{table}");
    copies.run("ann", &["unlock", "--all"]).code(0);
    let ended = waiting.end().code(0);
    assert!(ended.err.contains("waiting: ann@"), "{ended:#?}");
    assert_eq!(ended.json()["fence"], 2);
    assert_eq!(copies.noted("bob"), 1);
    let late = copies.run("ann", &["lock", "src/a.rs", "--wait", "100ms"]).code(5);
    assert!(late.err.contains("bob@"), "{late:#?}");
}

#[test]
fn a_program_runs_under_a_lock() {
    let copies = Copies::new(&["ann"]);
    let _up = copies.0.up("127.0.0.1:0");
    let shell =
        |line: &str| copies.run("ann", &["lock", "src/a.rs", "--ttl", "600ms", "--", "sh", "-c", line]);
    // Longer than the lock would last without being renewed, and noted all the time.
    let line =
        format!("sleep 1.5; {AGENTFLOW} lock status src/a.rs && cat .git/agentflow/locks.json; exit 7");
    let ended = shell(&line).code(7);
    assert!(ended.out.contains("yours") && ended.out.contains(r#""fence":1"#), "{ended:#?}");
    assert!(copies.held().is_empty() && copies.noted("ann") == 0);
    shell("exit 0").code(0);
    // What it calls goes by the name that has the lock.
    let line = format!("{AGENTFLOW} lock status src");
    let zed = copies.run("ann", &["lock", "src", "--owner", "zed", "--", "sh", "-c", &line]).code(0);
    assert!(zed.out.contains("yours"), "{zed:#?}");
    shell("kill -TERM $$").code(143);
    let missing = copies.run("ann", &["lock", "src", "--", "no-such-program"]).code(127);
    assert!(missing.err.contains("no-such-program"), "{missing:#?}");
    copies.run("ann", &["lock", "src", "--", "./src/a.rs"]).code(126);
    // It may end its lock itself, and is told that it has.
    let own = shell(&format!("{AGENTFLOW} unlock src/a.rs; sleep 60")).code(5);
    assert!(own.err.contains("it was given back") && own.err.contains("was stopped"), "{own:#?}");
    assert!(copies.held().is_empty());
}

#[test]
fn signals_reach_the_program_and_the_lock_is_given_back() {
    let copies = Copies::new(&["ann"]);
    let _up = copies.0.up("127.0.0.1:0");
    for (signal, word, code) in [
        (Signal::TERM, "TERM", 9),
        (Signal::INT, "INT", 9),
        (Signal::HUP, "HUP", 9),
        (Signal::USR1, "USR1", 9),
        (Signal::ALARM, "ALRM", 9),
    ] {
        let line =
            format!("trap 'echo got {word}; exit {code}' {word}; echo begun; while :; do sleep 0.02; done");
        let mut held = copies.start("ann", &["lock", "src", "--", "sh", "-c", &line]);
        held.line_with("begun");
        held.signal(signal);
        let ended = held.end().code(code);
        assert!(ended.out.contains(&format!("got {word}")), "{ended:#?}");
        assert!(copies.held().is_empty() && copies.noted("ann") == 0);
    }
}

#[test]
fn a_program_is_stopped_when_its_lock_is_broken() {
    let copies = Copies::new(&["ann", "bob"]);
    let _up = copies.0.up("127.0.0.1:0");
    // One that does not listen, with one that has left it.
    let line = "trap '' TERM; (trap '' TERM; while :; do echo x >> left; sleep 0.02; done) & echo begun; \
                while :; do sleep 0.02; done";
    let mut held = copies.start("ann", &["lock", "src", "--", "sh", "-c", line]);
    held.line_with("begun");
    let broken = copies.run("bob", &["lock", "break", "src/a.rs", "--reason", "it is urgent"]).code(0);
    assert!(broken.out.starts_with("broke the lock of ann@"), "{broken:#?}");
    let ended = held.end().code(5);
    assert!(ended.err.contains("it was broken: it is urgent") && ended.err.contains("stopped"), "{ended:#?}");
    let count = lines(&copies.path("ann", "left"));
    copies.run("bob", &["lock", "src", "--", "sleep", "0.2"]).code(0);
    assert_eq!(lines(&copies.path("ann", "left")), count, "nothing of it is left");
    copies.run("bob", &["lock", "break", "src", "--reason", "x"]).code(1);
    copies.run("ann", &["lock", "src", "--read"]).code(0);
    copies.run("bob", &["lock", "src/a.rs", "--read"]).code(0);
    let several = copies.run("bob", &["lock", "break", "src", "--reason", "x"]).code(2);
    assert!(several.err.contains("ann@") && several.err.contains("bob@"), "{several:#?}");
    let id = copies.held()[0]["id"].as_str().expect("text").to_owned();
    let broken = copies.run("bob", &["lock", "break", &id, "--reason", "x", "--json"]).code(0).json();
    assert_eq!((&broken["id"], copies.held().len()), (&json!(id), 1));
}

#[test]
fn a_program_is_gone_before_its_lock_is_when_no_master_answers() {
    let copies = Copies::new(&["ann"]);
    let up = copies.0.up("127.0.0.1:0");
    let line = "echo begun; while :; do echo x >> beats; sleep 0.02; done";
    let asked = Instant::now();
    let mut held = copies.start("ann", &["lock", "src", "--ttl", "3s", "--", "sh", "-c", line]);
    held.line_with("begun");
    up.kill();
    let ended = held.end().code(5);
    // It was renewed after one second at the latest.
    assert!(asked.elapsed().as_millis() < 4_500, "{:?}: {ended:#?}", asked.elapsed());
    assert!(ended.err.contains("no master at") && ended.err.contains("was stopped"), "{ended:#?}");
    assert_eq!(copies.noted("ann"), 0);
    let count = lines(&copies.path("ann", "beats"));
    assert!(count > 0);
    let _up = copies.0.up("127.0.0.1:0");
    assert_eq!(lines(&copies.path("ann", "beats")), count, "nothing of it is left");
}

#[test]
fn what_cannot_be_locked_is_said() {
    let copies = Copies::new(&["ann"]);
    let outside = copies.outside(&["lock", "a"]).code(2);
    assert!(outside.err.contains("no working copy") && outside.err.contains("--repo"), "{outside:#?}");
    for (words, word) in [
        (&["lock", "."][..], "--force"),
        (&["lock", "**/*"], "--force"),
        (&["lock", "src", "src/a.rs"], "in common"),
        (&["lock", "../bob"], "outside of the working copy"),
        (&["lock", ".git/config"], "git's own"),
        (&["lock", "--read", "status", "a"], "./status"),
        (&["lock", "a", "--ttl", "soon"], "500ms"),
        (&["unlock", "--id", "5"], "32 hexadecimal"),
    ] {
        let ended = copies.run("ann", words).code(2);
        assert!(ended.err.contains(word), "{words:?}: {ended:#?}");
    }
    copies.run("ann", &["lock", "a"]).code(3);
    let _up = copies.0.up("127.0.0.1:0");
    for ttl in ["0s", "365d"] {
        let ended = copies.run("ann", &["lock", "a", "--ttl", ttl]).code(2);
        assert!(ended.err.contains("30 days"), "{ended:#?}");
    }
    let everything = copies.run("ann", &["lock", ".", "--force"]).code(0);
    assert!(everything.err.contains("nobody else can lock any file"), "{everything:#?}");
    // Named from elsewhere, paths begin at the root.
    let elsewhere = copies.outside(&["lock", "src/a.rs", "--repo", REPO, "--owner", "carl"]).code(5);
    assert!(elsewhere.err.contains("ann@"), "{elsewhere:#?}");
    copies.outside(&["unlock", "--all", "--repo", REPO, "--owner", "carl"]).code(0);
    copies.run("ann", &["unlock", "."]).code(0);
    let other =
        copies.outside(&["lock", "src/", "--repo", "other", "--owner", "carl", "--json"]).code(0).json();
    assert_eq!((&other["repo"], &other["paths"][0]["path"]), (&json!("other"), &json!("src/**")));
    let all = copies.outside(&["locks"]).code(0).out;
    assert!(all.contains("REPOSITORY") && all.contains("other"), "{all}");
    let only = copies.run("ann", &["locks"]).code(0);
    assert_eq!(only.out, "", "those of the own repository");
}

#[test]
fn a_watch_shows_what_changes() {
    let copies = Copies::new(&["ann"]);
    let _up = copies.0.up("127.0.0.1:0");
    let mut watch = copies.start("ann", &["locks", "--watch"]);
    watch.line_with("nothing is locked");
    copies.run("ann", &["lock", "src/a.rs"]).code(0);
    watch.line_with("src/a.rs");
    copies.run("ann", &["unlock", "src/a.rs"]).code(0);
    watch.line_with("nothing is locked");
    watch.signal(Signal::INT);
    watch.end().code(130);
}

#[test]
fn inside_a_task_the_lock_is_its_attempts() {
    let copies = Copies::new(&["ann"]);
    let _up = copies.0.up("127.0.0.1:0");
    let home = copies.0.path("");
    let script = format!(
        "set -e; cd {}
        {AGENTFLOW} lock src/a.rs --reason inside
        {AGENTFLOW} lock other -- {AGENTFLOW} lock status other
        {AGENTFLOW} lock more; {AGENTFLOW} unlock more
        {AGENTFLOW} lock x --ttl 5m && exit 9
        touch {1}/begun; until test -e {1}/gate; do sleep 0.02; done",
        copies.0.path("ann").display(),
        home.display()
    );
    let id = copies.run("ann", &["submit", "--shell", &script]).code(0).out.trim().to_owned();
    until("it has begun", || copies.0.path("begun").exists());
    let held = copies.held();
    assert_eq!((held.len(), &held[0]["owner"], &held[0]["repo"]), (1, &json!("task:1"), &json!(REPO)));
    assert_eq!((&held[0]["reason"], &held[0]["paths"][0]["path"]), (&json!("inside"), &json!("src/a.rs")));
    let refused = copies.run("ann", &["lock", "src"]).code(5);
    assert!(
        refused.err.contains("task:1 holds 'src/a.rs'") && refused.err.contains("attempt ends"),
        "{refused:#?}"
    );
    std::fs::write(copies.0.path("gate"), "").expect("written");
    copies.0.run(&["wait", &id]).code(0);
    assert!(copies.held().is_empty());
    let logs = copies.0.run(&["logs", &id]).code(0).out;
    assert!(logs.contains("yours   other") && logs.contains("leave out --ttl"), "{logs}");
}

#[test]
fn tasks_lock_in_the_repository_where_they_are_handed_in() {
    let copies = Copies::new(&["ann"]);
    let _up = copies.0.up("127.0.0.1:0");
    let gate = copies.0.path("gate");
    let line = format!("until test -e {}; do sleep 0.02; done", gate.display());
    let submit = ["submit", "--lock", "src/a.rs", "--lock", "README:read", "--shell", &line];
    copies.run("ann", &submit).code(0);
    until("it holds its locks", || copies.held().len() == 1);
    let held = copies.held();
    assert_eq!((&held[0]["owner"], &held[0]["repo"]), (&json!("task:1"), &json!(REPO)));
    let paths = json!([{"path": "README", "mode": "read"}, {"path": "src/a.rs", "mode": "write"}]);
    assert_eq!(held[0]["paths"], paths);
    let text = "version: 1\nname: w\ntasks:\n  a: {run: 'true', locks: src/**}\n  b: {run: 'true', locks: [{path: x}]}\n";
    let path = file(&copies.0, "w.yaml", text);
    copies.run("ann", &["run", "--detach", &path]).code(0);
    until("the other waits", || {
        let all = copies.run("ann", &["locks", "--json"]).code(0).json();
        all["waiting"][0]["paths"][0]["path"] == "src/**"
    });
    std::fs::write(&gate, "").expect("written");
    copies.0.run(&["run", "--resume", "1"]).code(0);
    let list = r#"[{"command": "true", "locks": ["y"]}]"#;
    copies.run("ann", &["run", list]).code(0);
    let events = copies.0.run(&["events", "--after", "0", "--limit", "1000", "--json"]).code(0).json();
    let acquired =
        events["events"].as_array().expect("a list").iter().filter(|e| e["type"] == "lock.acquired");
    let repos: Vec<&Value> = acquired.map(|event| &event["data"]["repo"]).collect();
    assert_eq!(repos, [REPO; 4]);
    // Without a name nobody could know that two copies are of the same repository.
    std::fs::create_dir(copies.0.path("nameless")).expect("made");
    let status = Command::new("git").arg("init").arg("--quiet").arg(copies.0.path("nameless")).status();
    assert!(status.expect("git").success());
    let nameless = copies.run("nameless", &["submit", "--lock", "a", "--", "true"]).code(2);
    assert!(nameless.err.contains("name = \"nameless\""), "{nameless:#?}");
    copies.run("nameless", &["submit", "--", "true"]).code(0);
}
