//! New runs that begin where another one was.

use serde_json::Value;

use crate::support::{Home, file, until};

/// A value that is too large for a row, a file, and files of items; the last one fails at first.
const FILE: &str = r#"
version: 1
name: parts
tasks:
  a:
    run: 'echo ran >> $home/a; head -c 100000 /dev/zero | tr "\0" x; echo one > f.txt; echo v=7 >> "$AGENTFLOW_OUTPUT"'
    artifacts: [f.txt]
  each:
    needs: a
    foreach: [1, 2]
    run: 'echo ran >> $home/each; mkdir -p out; echo ${{ item }} > out/${{ item }}.txt'
    artifacts: ['out/*.txt']
  side: {run: 'echo ran >> $home/side'}
  b:
    needs: [a, each, side]
    artifacts_from: [a]
    input: ${{ tasks.a.result }}
    run: 'test ${{ tasks.a.outputs.v }} = 7 && test "$(cat "$AGENTFLOW_ARTIFACTS/a/f.txt")" = one && test -e $home/gate'
"#;

#[test]
fn a_fork_takes_over_values_and_files() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    let text = FILE.replace("$home", &home.path("").display().to_string());
    home.run(&["run", &file(&home, "parts.yaml", &text)]).code(1);
    std::fs::write(home.path("gate"), "").expect("written");
    let fork = home.run(&["fork", "1", "--json"]).code(0).json();
    assert_eq!(fork["id"], 2, "{fork}");
    let run = |id: &str| home.run(&["run", "get", id, "--json"]).json();
    until("the fork has ended", || !run("2")["finished_at"].is_null());
    let forked = run("2");
    assert_eq!(forked["status"], "completed", "{forked}");
    assert_eq!(run("1")["status"], "failed", "the other one stays as it is");
    let times = |name: &str| std::fs::read_to_string(home.path(name)).expect("it ran").lines().count();
    // Files of items are found by the items' own tasks, and those are not taken over.
    assert_eq!((times("a"), times("side"), times("each")), (1, 1, 4));
    let files = home.run(&["artifacts", "list", "--run", "2", "--json"]).code(0).json();
    let paths = files["artifacts"].as_array().expect("a list").iter().map(|file| &file["path"]);
    let mut paths: Vec<&str> = paths.filter_map(Value::as_str).collect();
    paths.sort_unstable();
    // Both items work in the same directory.
    paths.dedup();
    assert_eq!(paths, ["f.txt", "out/1.txt", "out/2.txt"]);
    let ended = home.run(&["fork", "2"]).code(5);
    assert!(ended.err.contains("nothing in run 2 failed"), "{}", ended.err);
    home.run(&["fork", "2", "--from", "nowhere"]).code(2);
    home.run(&["fork", "9", "--from", "a"]).code(1);
}
