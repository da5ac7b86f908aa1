//! What stands at a master beside tasks and runs: concurrency keys and schedules; dead letters, and reruns.

use serde_json::json;

use crate::support::{Home, file};

#[test]
fn a_key_is_set_listed_and_removed() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    let none = home.run(&["keys"]).code(0);
    assert!(none.err.contains("nobody uses a key"), "{none:#?}");
    let set = home.run(&["keys", "set", "api", "--limit", "2", "--rate", "10/1m"]).code(0);
    assert_eq!(set.out, "api  2 at once, 10/1m may begin\n");
    let listed = home.run(&["keys"]).code(0).out;
    assert!(listed.lines().any(|line| line.starts_with("api") && line.contains("0/2")), "{listed}");
    let key = home.run(&["keys", "--json"]).code(0).json()["keys"][0].clone();
    assert_eq!(key["rate"], json!({ "count": 10, "per_ms": 60_000 }));
    home.run(&["keys", "set", "api", "--limit", "0"]).code(2);
    home.run(&["keys", "remove", "api"]).code(0);
    home.run(&["keys", "remove", "api"]).code(1);
    assert_eq!(home.run(&["keys", "--json"]).code(0).json(), json!({ "keys": [] }));
}

#[test]
fn a_schedule_is_made_triggered_paused_and_removed() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    let text = "version: 1\nname: nightly\ntasks:\n  a: {run: 'echo ${{ vars.n }}'}\n";
    let path = file(&home, "wrong.yaml", text);
    let wrong = home.run(&["schedules", "set", "n", &path, "--cron", "@daily"]).code(2);
    assert!(
        wrong.err.contains("wrong.yaml:4:") && wrong.err.contains("'n' is not among the vars"),
        "{wrong:#?}"
    );
    let path = file(&home, "w.yaml", &text.replace("tasks:", "vars: {n: 0}\ntasks:"));
    let made = ["schedules", "set", "n", &path, "--cron", "0 3 * * *", "--var", "n=1"];
    let made = home.run(&made).code(0).out;
    assert!(made.starts_with("n  0 3 * * * UTC, next at 2"), "{made}");
    home.run(&["schedules", "set", "t", "--cron", "@hourly", "--", "true"]).code(0);
    home.run(&["schedules", "set", "t", "--cron", "0 25 * * *", "--", "true"]).code(2);
    assert_eq!(home.run(&["schedules", "trigger", "n", "--json"]).code(0).json()["fired"], 1);
    home.run(&["run", "--resume", "1"]).code(0);
    assert_eq!(home.run(&["schedules", "pause", "t"]).code(0).out, "t  @hourly UTC, paused\n");
    let listed = home.run(&["schedules"]).code(0).out;
    assert!(listed.contains("workflow") && listed.contains("paused"), "{listed}");
    home.run(&["schedules", "resume", "t"]).code(0);
    home.run(&["schedules", "remove", "n"]).code(0);
    home.run(&["schedules", "remove", "n"]).code(1);
    assert_eq!(home.run(&["schedules", "--json"]).code(0).json()["schedules"][0]["name"], "t");
}

#[test]
fn what_failed_in_a_run_runs_again() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    let flag = home.path("fixed");
    let text = format!(
        "version: 1\nname: fix\ntasks:\n  a: {{run: echo a}}\n  b: {{needs: a, run: test -e {}}}\n",
        flag.display()
    );
    let path = file(&home, "w.yaml", &text);
    home.run(&["run", &path]).code(1);
    let preview = home.run(&["run", "rerun", "1", "--dry-run", "--json"]).code(0).json();
    assert_eq!(preview, json!({ "nodes": ["b"], "kept": ["a"], "at_work": [] }));
    assert_eq!(
        home.run(&["run", "rerun", "1", "--from", "a", "--dry-run"]).code(0).out,
        "again    a\nagain    b\n"
    );
    std::fs::write(&flag, "").expect("the flag is written");
    home.run(&["run", "rerun", "1"]).code(0);
    home.run(&["run", "--resume", "1"]).code(0);
    let again = home.run(&["run", "rerun", "1"]).code(5);
    assert!(again.err.contains("failed"), "{again:#?}");
    home.run(&["run", "rerun", "1", "--from", "c"]).code(2);
}

#[test]
fn what_failed_for_good_is_listed_with_why() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    home.run(&["submit", "--wait", "--title", "Fails", "--", "false"]).code(1);
    home.run(&["submit", "--wait", "--", "true"]).code(0);
    let listed = home.run(&["dead-letters"]).code(0).out;
    assert!(listed.contains("Fails") && listed.contains("exit"), "{listed}");
    let tasks = home.run(&["dead-letters", "--json"]).code(0).json()["tasks"].clone();
    assert_eq!((tasks.as_array().map(Vec::len), &tasks[0]["id"]), (Some(1), &json!(1)));
    assert_eq!(home.run(&["dead-letters", "--group", "gpu", "--json"]).code(0).json()["tasks"], json!([]));
}
