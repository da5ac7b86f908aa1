//! Workflow files without a master: `validate`, `plan`, `graph`, `schema`, and files that are wrong.

use serde_json::json;

use crate::support::{Home, file};

const CI: &str = "\
version: 1
name: ci
vars: {target: all}
tasks:
  build: make ${{ vars.target }}
  test: {run: make test, needs: build}
  lint: {run: make lint, needs: build}
  release: {run: make release, needs: [test, lint]}
";

#[test]
fn a_file_that_is_right_is_said_to_be() {
    let home = Home::new();
    let path = file(&home, "ci.yaml", CI);
    assert_eq!(home.run(&["validate", &path]).code(0).out, "ok: ci, 4 nodes\n");
    let answer = home.run(&["validate", &path, "--json"]).code(0).json();
    assert_eq!(answer, json!({ "valid": true, "name": "ci", "nodes": 4, "errors": [] }));
    let one = file(&home, "one.json", r#"{"version": 1, "tasks": {"a": "make"}}"#);
    assert_eq!(home.run(&["validate", &one]).code(0).out, "ok: workflow, 1 node\n");
    assert!(!home.path("agentflow").exists(), "nothing is left behind");
    home.run(&["validate", "no-such-file.yaml"]).code(2);
}

#[test]
fn what_is_wrong_is_said_with_file_line_and_column() {
    let home = Home::new();
    let check = |text: &str, expect: &[&str]| {
        let path = file(&home, "wrong.yaml", text);
        let ended = home.run(&["validate", &path]).code(2);
        let expect: Vec<String> = expect.iter().map(|line| format!("{path}:{line}")).collect();
        assert_eq!(ended.out.lines().collect::<Vec<_>>(), expect);
    };
    check(
        &CI.replace("needs: build}", "needs: buidl}"),
        &[
            "6:33: there is no task 'buidl' (did you mean 'build'?)",
            "7:33: there is no task 'buidl' (did you mean 'build'?)",
        ],
    );
    check(
        &CI.replace("vars.target", "vars.targt"),
        &["5:19: 'targt' is not among the vars (did you mean 'target'?)"],
    );
    check(
        "version: 1\ntasks:\n  a: {needs: b}\n  b: {needs: a}\n",
        &["3:14: a cycle: a -> b -> a (take 'b' out of what 'a' comes after)"],
    );
    check(
        "version: 1\nvars: {n: 1}\ntasks:\n  a: x ${{ vars.n + 'b' }}\n",
        &["4:6: tried to use + operator on unsupported types number and string in 'vars.n + 'b''"],
    );
    // The body of a task is checked as if it was posted.
    check(
        "version: 1\ntasks:\n  a: {run: x, priority: 500}\n",
        &["3:25: 500 is out of range; allowed: 0 to 100"],
    );
    let path = file(&home, "wrong.json", "{\"version\": 1,\n \"tasks\": {\"a\": {\"rum\": \"x\"}}}");
    let answer = home.run(&["validate", &path, "--json"]).code(2).json();
    assert_eq!(answer["valid"], false);
    let error = &answer["errors"][0];
    assert_eq!(
        (&error["line"], &error["column"], &error["pointer"]),
        (&2.into(), &18.into(), &"/tasks/a/rum".into())
    );
    assert_eq!(error["hint"], "did you mean 'run'?");
}

#[test]
fn a_plan_has_levels() {
    let home = Home::new();
    let path = file(&home, "ci.yaml", CI);
    assert_eq!(home.run(&["plan", &path]).code(0).out, "1  build\n2  test, lint\n3  release\n");
    let plan = home.run(&["plan", &path, "--json", "--var", "target=one"]).code(0).json();
    assert_eq!(plan, json!({ "plan": [["build"], ["test", "lint"], ["release"]] }));
    let wrong = home.run(&["plan", &path, "--var", "traget=one"]).code(2);
    assert_eq!(
        wrong.err,
        format!("{path}:3:7: 'traget' is not among the vars of workflow 'ci' (did you mean 'target'?)\n")
    );
    let each = "version: 1\nmode: pipeline\nvars: {words: [a]}\nitems: ${{ vars.words }}\ntasks: [{name: s, run: x}]\n";
    let each = file(&home, "each.yaml", each);
    let vars = file(&home, "vars.yaml", "words:\n- a\n- b\n");
    let plan = home.run(&["plan", &each, "--json", "--vars-file", &vars]).code(0).json();
    assert_eq!(plan, json!({ "plan": [["s[0]", "s[1]"]] }));
    let plan =
        home.run(&["plan", &each, "--json", "--vars-file", &vars, "--var", "words=[1,2,3]"]).code(0).json();
    assert_eq!(plan, json!({ "plan": [["s[0]", "s[1]", "s[2]"]] }), "a flag goes before a file");
}

#[test]
fn a_graph_is_drawn_as_text_and_for_pages() {
    let home = Home::new();
    let path = file(&home, "ci.yaml", CI);
    let text = home.run(&["graph", &path]).code(0).out;
    assert!(text.starts_with("ci (dag): 4 tasks in 3 levels\n"), "{text}");
    assert!(text.contains("3  release  after test, lint\n"), "{text}");
    let mermaid = home.run(&["graph", &path, "--format", "mermaid"]).code(0).out;
    assert!(mermaid.starts_with("flowchart TD\n") && mermaid.contains("n1 --> n3\n"), "{mermaid}");
    let graph = home.run(&["graph", &path, "--json"]).code(0).json();
    assert_eq!(graph["edges"][0], json!({ "from": "build", "to": "test", "on": "success" }));
    // A file goes before a run of that number.
    let five = home.path("5");
    std::fs::write(&five, CI).expect("written");
    let output = home.command(&["graph", "5"]).current_dir(five.parent().expect("a directory")).output();
    assert!(output.expect("the binary starts").status.success());
}

#[test]
fn the_schema_is_for_editors() {
    let home = Home::new();
    let schema = home.run(&["schema", "workflow"]).code(0).json();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    home.run(&["schema", "nothing"]).code(2);
}

#[test]
fn a_wrong_file_starts_nothing() {
    let home = Home::new();
    let path = file(&home, "ci.yaml", &CI.replace("needs: build}", "needs: buidl}"));
    let wrong = home.run(&["run", "--embedded", &path]).code(2);
    assert!(wrong.err.starts_with(&format!("{path}:6:33: there is no task 'buidl'")), "{wrong:#?}");
    // What is broken is not taken for a list of commands.
    let broken = file(&home, "broken.yaml", "version: 1\ntasks:\n  a: [\n");
    let wrong = home.run(&["run", "--embedded", &broken]).code(2);
    assert!(wrong.err.starts_with(&format!("{broken}:4:1: the file is no YAML")), "{wrong:#?}");
    let vars = home.run(&["run", "--embedded", "[\"true\"]", "--var", "a=1"]).code(2);
    assert!(vars.err.contains("for workflow files"), "{vars:#?}");
    let path = file(&home, "ci.yaml", CI);
    home.run(&["run", "--embedded", &path, "--var", "target"]).code(2);
    home.run(&["run", "--embedded", &path, "--input", "{"]).code(2);
    assert!(!home.path("agentflow/agentflow.db").exists(), "a master was started");
}

#[test]
fn the_shell_completes_the_new_commands() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = home.run(&["completion", shell]).code(0).out;
        for word in ["validate", "plan", "graph", "approve", "relate", "vars-file", "pause"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
}
