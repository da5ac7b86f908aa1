//! Large values and files on their way from task to task, as users meet them.

use std::fs;

use serde_json::Value;

use crate::support::{Home, file};

/// A line for the shell that writes `{"n": 7, "text": "xx…"}` of about a mebibyte.
const LARGE: &str = r#"printf '{"n": 7, "text": "' > "$AGENTFLOW_OUTPUT"; head -c 1000000 /dev/zero | tr '\0' x >> "$AGENTFLOW_OUTPUT"; printf '"}' >> "$AGENTFLOW_OUTPUT""#;

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("      {line}\n")).collect()
}

#[test]
fn large_values_go_from_task_to_task() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    let text = format!(
        "version: 1\nname: large\nmode: dag\ntasks:\n  make:\n    run: |\n{}\
         \x20 whole:\n    needs: make\n    input: ${{{{ tasks.make.outputs }}}}\n    run: wc -c < \"$AGENTFLOW_INPUT\"\n\
         \x20 within:\n    needs: make\n    when: tasks.make.outputs.n == 7\n    run: echo ${{{{ tasks.make.outputs.n }}}}\n\
         \x20 print:\n    run: seq 1 30000\n\
         \x20 printed:\n    needs: print\n    input: ${{{{ tasks.print.result }}}}\n    run: tail -c 7 \"$AGENTFLOW_INPUT\"\n\
         \x20 each:\n    foreach: [1, 2, 3]\n    run: |\n{}\
         \x20 all:\n    needs: each\n    input: ${{{{ tasks.each.outputs }}}}\n    run: wc -c < \"$AGENTFLOW_INPUT\"\n",
        indented(LARGE),
        indented(LARGE),
    );
    let path = file(&home, "w.yaml", &text);
    let run = home.run(&["run", &path, "--json"]).code(0).json();
    let task = |name: &str| -> Value {
        let nodes = run["nodes"].as_array().expect("nodes");
        let node = nodes.iter().find(|node| node["name"] == name).expect(name);
        home.run(&["get", &node["task_id"].to_string(), "--json"]).code(0).json()
    };
    let length = |value: &Value| value.as_str().map(str::len);
    let make = task("make");
    assert_eq!((&make["outputs"]["n"], length(&make["outputs"]["text"])), (&7.into(), Some(1_000_000)));
    assert_eq!(task("whole")["result"], "1000017\n");
    assert_eq!(length(&task("whole")["input"]["text"]), Some(1_000_000), "the input is shown, too");
    assert_eq!(task("within")["result"], "7\n");
    let print = task("print");
    let printed = print["result"].as_str().expect("a text");
    assert!(printed.starts_with("1\n2\n") && printed.ends_with("\n30000\n") && printed.len() > 100_000);
    assert_eq!(task("printed")["result"], "n30000\"", "a text written as JSON");
    assert_eq!(task("each")["outputs"].as_array().map(Vec::len), Some(3));
    assert_eq!(task("all")["result"], "3000055\n");
    // And one that somebody hands in.
    let input = format!("{{\"text\": \"{}\"}}", "y".repeat(100_000));
    let words = ["submit", "--wait", "--json", "--input", &input, "--shell", "wc -c < \"$AGENTFLOW_INPUT\""];
    assert_eq!(home.run(&words).code(0).json()["tasks"][0]["result"], "100011\n");
}

#[test]
fn files_go_from_task_to_task() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    let dir = |name: &str| {
        let path = home.path(name);
        fs::create_dir_all(&path).expect("a directory");
        path.to_str().expect("UTF-8").to_owned()
    };
    let (one, other) = (dir("one"), dir("other"));
    let text = format!(
        "version: 1\nname: files\nmode: dag\ntasks:\n\
         \x20 build:\n    workdir: {one}\n    artifacts: [dist, '*.log']\n\
         \x20   run: mkdir -p dist/bin; printf '#!/bin/sh\\necho built $1\\n' > dist/bin/app; chmod +x dist/bin/app; echo done > b.log\n\
         \x20 each:\n    foreach: [a, b]\n    workdir: {one}\n    artifacts: ['out-${{{{ item }}}}']\n    run: echo ${{{{ item }}}} > out-${{{{ item }}}}\n\
         \x20 test:\n    needs: [build, each]\n    artifacts_from: [build, each]\n    workdir: {other}\n\
         \x20   run: |\n      cd \"$AGENTFLOW_ARTIFACTS\"\n      build/dist/bin/app well\n      cat build/b.log each/0/out-a each/1/out-b\n",
    );
    let path = file(&home, "w.yaml", &text);
    let run = home.run(&["run", &path, "--json"]).code(0).json();
    let id = |name: &str| {
        let nodes = run["nodes"].as_array().expect("nodes");
        nodes.iter().find(|node| node["name"] == name).expect(name)["task_id"].to_string()
    };
    let test = home.run(&["get", &id("test"), "--json"]).code(0).json();
    assert_eq!(test["result"], "built well\ndone\na\nb\n");
    let listed = home.run(&["artifacts", "list", "--run", "1", "--json"]).code(0).json();
    let paths: Vec<&str> = listed["artifacts"]
        .as_array()
        .expect("files")
        .iter()
        .filter_map(|file| file["path"].as_str())
        .collect();
    assert_eq!(paths.len(), 4, "{paths:?}");
    let table = home.run(&["artifacts", "list", &id("build")]).code(0);
    assert!(table.out.contains("b.log") && table.out.contains("dist/bin/app"), "{table:#?}");
    // One that runs where it arrives.
    let to = dir("here");
    home.run(&["artifacts", "download", &id("build"), "--to", &to]).code(0);
    let ran = std::process::Command::new(format!("{to}/dist/bin/app")).arg("here").output().expect("it runs");
    assert_eq!(ran.stdout, b"built here\n");
    let number = listed["artifacts"].as_array().expect("files").iter().find(|file| file["path"] == "b.log");
    let number = number.expect("the log")["id"].to_string();
    assert_eq!(home.run(&["artifacts", "get", &number, "-o", "-"]).code(0).out, "done\n");
    let target = format!("{to}/copy");
    home.run(&["artifacts", "get", &number, "--output", &target]).code(0);
    assert_eq!(fs::read(&target).expect("a file"), b"done\n");
    home.run(&["artifacts", "get", "9999"]).code(1);
}

#[test]
fn files_that_are_missing_or_elsewhere_fail_their_task() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    let work = home.path("work");
    fs::create_dir_all(&work).expect("a directory");
    let work = work.to_str().expect("UTF-8");
    let submit = |words: &[&str]| {
        let base = ["submit", "--wait", "--json", "--workdir", work];
        home.run(&[&base[..], words].concat())
    };
    let failed = submit(&["--artifact", "none", "--shell", "true"]).code(1).json()["tasks"][0].clone();
    assert!(
        failed["error"].as_str().is_some_and(|text| text.contains("'none' names nothing in")),
        "{failed}"
    );
    let failed = submit(&["--artifact", "out", "--shell", "ln -s /etc/hostname out"]).code(1).json()["tasks"]
        [0]
    .clone();
    assert!(failed["error"].as_str().is_some_and(|text| text.contains("leads out")), "{failed}");
    // What a failed attempt has made is kept, and its own error stays.
    let failed = submit(&["--artifact", "*.txt", "--artifact", "no", "--shell", "echo x > a.txt; exit 3"]);
    let failed = failed.code(1).json()["tasks"][0].clone();
    assert_eq!(failed["error"], "exit code 3");
    let id = failed["id"].to_string();
    let kept = home.run(&["artifacts", "list", &id, "--json"]).code(0).json();
    assert_eq!(kept["artifacts"][0]["path"], "a.txt");
    let refused = submit(&["--artifact", "../x", "--shell", "true"]).code(2);
    assert!(refused.err.contains("artifacts") && refused.err.contains("without '.', '..'"), "{refused:#?}");
    let refused = submit(&["--artifact", "a[", "--shell", "true"]).code(2);
    assert!(refused.err.contains("is no pattern"), "{refused:#?}");
}
