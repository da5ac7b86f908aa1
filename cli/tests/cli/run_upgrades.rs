//! `upgrade` and `versions` of a run.

use serde_json::json;

use crate::support::{Home, file, until};

#[test]
fn a_run_is_upgraded_while_it_runs() {
    let home = Home::new();
    let _up = home.up("127.0.0.1:0");
    let gate = home.path("gate");
    let build = format!("until test -e {}; do sleep 0.02; done", gate.display());
    let text = |name: &str, rest: &str| {
        format!("version: 1\nname: ci\nvars: {{n: 1}}\ntasks:\n  {name}: {build}\n{rest}")
    };
    let old =
        text("build", "  publish: {needs: build, run: echo old}\n  gone: {needs: build, run: echo gone}\n");
    let new = text(
        "make",
        "  publish: {needs: make, run: 'echo new ${{ vars.n }}'}\n  tell: {needs: publish, run: echo told}\n",
    );
    let (old, new) = (file(&home, "old.yaml", &old), file(&home, "new.yaml", &new));
    home.run(&["run", "--detach", &old, "--var", "n=7"]).code(0);
    let run = || home.run(&["run", "get", "1", "--json"]).code(0).json();
    until("it has begun", || run()["nodes"][0]["status"] == "running");
    // Somebody looks on meanwhile.
    let mut watch = home.start(&["run", "--resume", "1"]);
    watch.line_with("build running");
    let upgrade = ["upgrade", "run:1", "--workflow", &new, "--map", "make=build"];
    let with = |more: &[&str]| home.run(&[&upgrade, more].concat());

    let shown = with(&["--dry-run"]).code(0);
    let rows: Vec<Vec<&str>> = shown.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        rows,
        [
            vec!["FATE", "NODE", "WAS", "STATUS"],
            vec!["goes_on", "make", "build", "running"],
            vec!["waits", "publish", "-", "blocked"],
            vec!["new", "tell", "-", "-"],
            vec!["removed", "gone", "-", "blocked"],
        ],
        "{shown:#?}"
    );
    assert!(shown.err.contains("version 2") && !shown.out.contains('\x1b'), "{shown:#?}");
    assert!(shown.err.contains("file says: n; --var"), "the run was begun with another: {shown:#?}");
    let preview = with(&["--dry-run", "--json"]).code(0).json();
    assert_eq!((&preview["version"], &preview["nodes"][0]["was"]), (&json!(2), &json!("build")));
    let lost = home.run(&["upgrade", "run:1", "--workflow", &new, "--dry-run"]).code(0);
    assert!(lost.out.contains("refused  build") && lost.err.contains("--restart"), "{lost:#?}");
    home.run(&["upgrade", "run:1", "--workflow", &new]).code(5);
    assert_eq!(run()["version"], 1);

    let upgraded = with(&["--reason", "it was wrong", "--author", "ann"]).code(0).out;
    assert!(upgraded.starts_with("running") && upgraded.contains("version 2  ci"), "{upgraded}");
    let stale = with(&["--expected-version", "1"]).code(5);
    assert!(stale.err.contains("version is 2"), "{stale:#?}");
    std::fs::write(&gate, "").expect("written");
    let watched = watch.end().code(0);
    for line in ["make completed", "tell completed", "ci completed: 3 completed"] {
        assert!(watched.out.contains(line), "{line}: {watched:#?}");
    }
    let publish = run()["nodes"][1]["task_id"].to_string();
    assert_eq!(home.run(&["logs", &publish]).code(0).out, "new 7\n", "its variables stay");

    let shown = home.run(&["versions", "run:1"]).code(0).out;
    let heads: Vec<&str> = shown.lines().filter(|line| line.starts_with("version ")).collect();
    assert!(heads.len() == 2 && heads[1].ends_with(" by ann: it was wrong"), "{shown}");
    for line in [
        "    n: 7",
        "-   build:",
        "+   make:",
        "-     command: echo gone",
        "+     needs: publish",
        "  name: ci",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
    let all = home.run(&["versions", "run:1", "--json"]).code(0).json();
    assert_eq!(all["versions"][1]["workflow"]["nodes"][2]["name"], "tell");
}

#[test]
fn what_is_wrong_with_an_upgrade_of_a_run_is_said() {
    let home = Home::new();
    let wrong = file(&home, "wrong.yaml", "version: 1\ntasks:\n  ask: {approval: true, needs: nobody}\n");
    let right = file(&home, "right.yaml", "version: 1\ntasks:\n  ask: {approval: true}\n  b: {needs: ask}\n");
    for words in [
        ["upgrade", "run:1"].as_slice(),
        &["upgrade", "run:1", "--shell", "x"],
        &["upgrade", "run:1", "--workflow", &right, "--shell", "x"],
        &["upgrade", "run:1", "--workflow", &right, "--map", "x"],
        &["upgrade", "run:1", "--workflow", "/nonexistent"],
        &["upgrade", "1", "--workflow", &right],
        &["upgrade", "1", "--title", "x", "--var", "n=1"],
        &["upgrade", "1", "--map", "a=b"],
        &["upgrade", "worker:1", "--title", "x"],
        &["versions", "run:x"],
    ] {
        let ended = home.run(words).code(2);
        assert!(!ended.err.is_empty(), "{words:?}");
    }
    let _up = home.up("127.0.0.1:0");
    home.run(&["run", "--detach", &file(&home, "old.yaml", "version: 1\ntasks: {ask: {approval: true}}\n")])
        .code(0);
    let upgrade = |words: &[&str]| home.run(&[&["upgrade", "run:1", "--workflow"], words].concat());
    for dry in [&[][..], &["--dry-run"]] {
        let ended = upgrade(&[&[wrong.as_str()], dry].concat()).code(2);
        assert!(ended.err.contains("wrong.yaml:3:") && ended.err.contains("'nobody'"), "{ended:#?}");
        let ended = upgrade(&[&[right.as_str(), "--var", "n=1"], dry].concat()).code(2);
        assert!(ended.err.contains("right.yaml:") && ended.err.contains("'n'"), "{ended:#?}");
        let ended = upgrade(&[&[right.as_str(), "--map", "b=nobody"], dry].concat()).code(2);
        assert!(ended.err.contains("/map") && !ended.err.contains("right.yaml"), "{ended:#?}");
    }
    home.run(&["upgrade", "run:9", "--workflow", &right]).code(1);
    home.run(&["versions", "run:9"]).code(1);
    let mut piped = home.command(&["upgrade", "run:1", "--workflow", "-", "--json"]);
    piped.stdin(std::fs::File::open(&right).expect("there"));
    let output = piped.output().expect("the binary starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let view: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&view["version"], &view["nodes"][1]["name"]), (&json!(2), &json!("b")));
}
