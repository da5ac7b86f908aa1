//! The hook that agents call before they change files.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use serde_json::json;

use crate::repository::Repository;
use crate::support::{Home, until};

#[test]
fn an_attempt_writes_what_it_has_locked_and_nothing_else() {
    let repository = Repository::new().in_attempt(&[(17, "src/**"), (18, "docs/b c.md")]);
    for file in ["src/a.rs", "src/new/deep.rs", "docs/b c.md"] {
        let ended = repository.edit(file).code(0);
        assert_eq!((ended.out.as_str(), ended.err.as_str()), ("", ""), "{file}");
    }
    let no = repository.edit("docs/other.md").code(2);
    assert!(no.err.contains("docs/other.md: no write lock of yours covers it"), "{no:#?}");
    assert!(no.err.contains("agentflow lock '") && no.err.contains("/docs/other.md'"), "what to do: {no:#?}");
    assert!(no.err.contains("no master"), "who holds it cannot be asked: {no:#?}");
}

#[test]
fn every_agent_is_understood() {
    let repository = Repository::new().in_attempt(&[(17, "src/**")]);
    let cwd = repository.root.to_str().expect("text");
    let patch = |file: &str| {
        format!(
            "*** Begin Patch\n*** Update File: src/a.rs\n*** Move to: {file}\n@@\n-one\n+two\n*** End Patch\n"
        )
    };
    let calls = |file: &str| {
        let whole = format!("{cwd}/{file}");
        [
            json!({"tool_name": "Write", "tool_input": {"file_path": whole, "content": ""}, "cwd": cwd}),
            json!({"tool_name": "MultiEdit", "tool_input": {"file_path": whole, "edits": []}, "cwd": cwd}),
            json!({"tool_name": "NotebookEdit", "tool_input": {"notebook_path": whole}, "cwd": cwd}),
            json!({"tool_name": "apply_patch", "tool_input": {"command": patch(file)}, "cwd": cwd}),
            json!({"tool_name": "Bash", "tool_input": {"command": format!("apply_patch <<'EOF'\n{}EOF", patch(file))}, "cwd": cwd}),
            json!({"tool_name": "shell", "tool_input": {"command": ["apply_patch", patch(file)]}, "cwd": cwd}),
            json!({"tool_name": "write_file", "tool_input": {"file_path": file}, "cwd": cwd}),
            json!({"tool_name": "replace", "tool_input": {"absolute_path": whole}, "cwd": cwd}),
            json!({"tool_name": "StrReplace", "tool_input": {"path": whole}, "workspace_roots": [cwd]}),
        ]
    };
    for call in calls("src/b.rs") {
        repository.tool(&call).code(0);
    }
    for call in calls("b.rs") {
        let no = repository.tool(&call).code(2);
        assert!(no.err.contains("\n  b.rs: no write lock"), "{call}: {no:#?}");
        assert!(!no.err.contains("src/a.rs"), "{call}: {no:#?}");
    }
    for call in [
        json!({"tool_name": "Read", "tool_input": {"file_path": format!("{cwd}/b.rs")}, "cwd": cwd}),
        json!({"tool_name": "Bash", "tool_input": {"command": "make"}, "cwd": cwd}),
    ] {
        repository.tool(&call).code(0);
    }
}

#[test]
fn where_only_conflicts_count_an_absent_master_is_said_and_its_word_is_set() {
    let repository = Repository::new();
    let open = repository.edit("src/a.rs").code(0);
    assert!(open.err.contains("no master") && open.err.contains("allowed"), "{open:#?}");
    repository.marker("without_master = \"deny\"\n");
    let closed = repository.edit("src/a.rs").code(2);
    assert!(
        closed.err.contains("refused") && closed.err.contains("without_master = \"deny\""),
        "{closed:#?}"
    );
    repository.marker("mode = \"off\"\n");
    assert_eq!(repository.edit("src/a.rs").code(0).err, "");
    repository.marker("mode = \"enforce\"\nwithout_master = \"allow\"\n");
    repository.edit("src/a.rs").code(2);
    repository.note(17, "src/**");
    assert_eq!(repository.edit("src/a.rs").code(0).err, "", "a person's lock needs no master");
    repository.edit("docs/b c.md").code(2);
}

#[test]
fn a_master_that_does_not_answer_is_not_waited_for() {
    // It listens, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let repository = Repository::new().with_master(&url);
    let ended = repository.edit("src/a.rs").code(0);
    assert!(ended.err.contains("not answered within") && ended.err.contains("allowed"), "{ended:#?}");
    // What was heard a moment ago is not asked again.
    drop(silent);
    let again = repository.edit("src/a.rs").code(0);
    assert!(again.err.contains("not answered within"), "{again:#?}");
}

#[test]
fn what_is_no_list_of_locks_says_nothing_of_them() {
    let home = Home::new();
    let up = home.up("127.0.0.1:0");
    let repository = Repository::new().with_master(&format!("{}/typo", up.url));
    repository.marker("without_master = \"deny\"\n");
    let no = repository.edit("src/a.rs").code(2);
    assert!(no.err.contains("not known") && no.err.contains("refused"), "{no:#?}");
    // Another master is asked by itself.
    let repository = repository.with_master(&up.url);
    assert_eq!(repository.edit("src/a.rs").code(0).err, "");
}

#[test]
fn a_lock_that_has_ended_elsewhere_is_noted_in_vain() {
    let home = Home::new();
    let up = home.up("127.0.0.1:0");
    let repository = Repository::new().with_master(&up.url);
    repository.marker("mode = \"enforce\"\n");
    repository.run(&["lock", "src", "--ttl", "none"]).code(0);
    repository.edit("src/a.rs").code(0);
    // Another shell cannot take the note away.
    let elsewhere = ["lock", "break", "src", "--repo", crate::repository::NAME, "--reason", "gone"];
    repository.run_in(&repository.home.path(""), &elsewhere, "").code(0);
    until("it is asked again", || repository.edit("src/a.rs").code == Some(2));
    repository.write("src/a.rs", "three\n");
    repository.git(&["add", "--all"]).code(0);
    repository.run(&["hooks", "install"]).code(0);
    let no = repository.git(&["commit", "--message=x"]).code(1);
    assert!(no.err.contains("no write lock of yours covers it"), "{no:#?}");
}

#[test]
fn a_call_ends_with_its_json() {
    let repository = Repository::new();
    let mut command = repository.home.command(&["hook", "pre-tool"]);
    let mut hook = command.stdin(Stdio::piped()).spawn().expect("started");
    let mut input = hook.stdin.take().expect("its input");
    input.write_all(br#"{"tool_name": "Read", "tool_input": {"file_path": "x"}}"#).expect("written");
    // The input stays open.
    until("it has answered", || hook.try_wait().expect("its end").is_some_and(|status| status.success()));
    drop(input);
}

#[test]
fn a_file_has_one_name_however_it_is_reached() {
    let repository = Repository::new().in_attempt(&[(17, "src/**")]);
    let outside = repository.home.path("elsewhere");
    fs::create_dir(&outside).expect("made");
    repository.edit(outside.join("x")).code(0);
    symlink(&outside, repository.path("src/out")).expect("linked");
    let no = repository.edit("src/out/x").code(2);
    assert!(no.err.contains("outside of the working copy"), "{no:#?}");
    symlink("../docs", repository.path("src/docs")).expect("linked");
    let no = repository.edit("src/docs/b c.md").code(2);
    assert!(no.err.contains("docs/b c.md: no write lock"), "{no:#?}");
    // Into the working copy by another name, and out of it.
    symlink(&repository.root, repository.home.path("link")).expect("linked");
    repository.edit(repository.home.path("link/src/a.rs")).code(0);
    repository.edit(repository.home.path("link/docs/x")).code(2);
    repository.edit(repository.home.path("link/src/out/x")).code(2);
    repository.edit("src/../docs/x").code(2);
    repository.edit("src/../../elsewhere/x").code(0);
}

#[test]
fn what_is_git_s_own_is_left_alone_and_what_it_ignores_is_free() {
    let repository = Repository::new().in_attempt(&[(17, "**")]);
    for file in [".git/hooks/pre-commit", ".git/agentflow/locks.json", "src/.git/config"] {
        let no = repository.edit(file).code(2);
        assert!(no.err.contains("git's own"), "{no:#?}");
    }
    let repository = Repository::new().in_attempt(&[(17, "src/**")]);
    repository.write(".gitignore", "target/\n*.log\n");
    repository.edit("target/x").code(0);
    repository.edit("a.log").code(0);
    repository.edit("a.txt").code(2);
    // One that is tracked is not ignored.
    repository.write("kept.log", "");
    repository.git(&["add", "--force", "kept.log"]).code(0);
    repository.edit("kept.log").code(2);
}

#[test]
fn what_is_not_understood_is_refused_where_every_change_needs_a_lock() {
    let open = Repository::new();
    let closed = Repository::new().in_attempt(&[(17, "**")]);
    let large = format!("{{\"tool_name\": \"Edit\", \"x\": \"{}\"}}", "x".repeat(11 << 20));
    let deep = "[".repeat(100_000);
    for input in ["", "{", "[]", r#"{"tool_name": "Edit", "tool_input": {}}"#, &large, &deep] {
        let begin = &input[..input.len().min(50)];
        let no = closed.run_in(&closed.root, &["hook", "pre-tool"], input).code(2);
        assert!(no.err.contains("refused"), "{begin}: {no:#?}");
        let yes = open.run_in(&open.root, &["hook", "pre-tool"], input).code(0);
        assert!(yes.err.contains("allowed"), "{begin}: {yes:#?}");
    }
    // Where somebody has set something up wrongly, he meant something.
    open.marker("mode = \"enforced\"\n");
    let no = open.edit("src/a.rs").code(2);
    assert!(no.err.contains("repository.toml"), "{no:#?}");
}

#[test]
fn an_answer_can_be_json() {
    let repository = Repository::new().in_attempt(&[(17, "src/**")]);
    let ask = |event: &str, file: &str| {
        let call = json!({"hook_event_name": event, "tool_name": "Edit", "tool_input": {"file_path": repository.path(file)}});
        let words = ["hook", "pre-tool", "--format", "json"];
        repository.run_in(&repository.root, &words, &call.to_string()).code(0).json()
    };
    let no = ask("PreToolUse", "x");
    assert_eq!(no["hookSpecificOutput"]["permissionDecision"], "deny");
    let reason = no["hookSpecificOutput"]["permissionDecisionReason"].as_str().expect("a reason");
    assert!(reason.contains("x: no write lock"), "{reason}");
    assert_eq!(ask("PreToolUse", "src/x"), json!({}));
    assert_eq!(ask("BeforeTool", "x")["decision"], "deny");
}

#[test]
fn a_linked_worktree_is_judged_by_its_own_files() {
    let repository = Repository::new().in_attempt(&[(17, "src/**")]);
    repository.git(&["worktree", "add", "--quiet", ".trees/one"]).code(0);
    repository.edit(".trees/one/src/a.rs").code(0);
    let no = repository.edit(".trees/one/docs/x").code(2);
    assert!(no.err.contains("\n  docs/x: no write lock"), "{no:#?}");
    let tree = repository.path(".trees/one");
    let edit = |file: &std::path::Path| {
        let call = json!({"tool_name": "Edit", "cwd": tree, "tool_input": {"file_path": file}});
        repository.run_in(&tree, &["hook", "pre-tool"], &call.to_string())
    };
    edit(&tree.join("src/a.rs")).code(0);
    // Its git directory lies elsewhere, and is no more to be written.
    let no = edit(&repository.path(".git/worktrees/one/agentflow/locks.json")).code(2);
    assert!(no.err.contains("git's own"), "{no:#?}");
}

#[test]
fn the_environment_goes_before_the_repository() {
    let ask = |mode: &str| {
        let repository = Repository::new().with("AGENTFLOW_LOCK_MODE", mode);
        repository.marker("mode = \"enforce\"\n");
        repository.edit("src/a.rs")
    };
    assert_eq!(ask("off").code(0).err, "");
    ask("").code(2);
    assert!(ask("conflicts").code(0).err.contains("allowed"));
    let wrong = ask("of").code(2);
    assert!(wrong.err.contains("AGENTFLOW_LOCK_MODE") && wrong.err.contains("enforce"), "{wrong:#?}");
}

#[test]
fn a_lock_of_the_same_working_copy_is_not_everybody_s() {
    let named = |repository: Repository| {
        repository.marker("mode = \"enforce\"\n");
        repository.note(17, "src/**");
        repository.edit("src/a.rs")
    };
    named(Repository::new()).code(0);
    named(Repository::new().with("AGENTFLOW_OWNER", "ann@here")).code(0);
    // Without a name it is USER@HOST.
    named(Repository::new().with("AGENTFLOW_OWNER", "")).code(2);
    named(Repository::new().with("AGENTFLOW_OWNER", "bob")).code(2);
    named(Repository::new().in_attempt(&[(18, "docs/**")])).code(2);
}

#[test]
fn a_task_whose_locks_are_of_another_repository_is_told_so() {
    let repository = Repository::new().in_attempt(&[]);
    let locks =
        json!({"locks": [{"id": "a5".repeat(16), "repo": "default", "fence": 1, "paths": [{"path": "**"}]}]});
    fs::write(repository.home.path("locks.json"), locks.to_string()).expect("written");
    let no = repository.edit("src/a.rs").code(2);
    assert!(
        no.err.contains("locks in the repository default") && no.err.contains(crate::repository::NAME),
        "{no:#?}"
    );
}

#[test]
fn whoever_holds_a_file_is_named_with_the_time_and_a_way_on() {
    let home = Home::new();
    let up = home.up("127.0.0.1:0");
    let repository = Repository::new().with_master(&up.url);
    let bob = |words: &[&str]| {
        let words = [words, &["--repo", crate::repository::NAME, "--owner", "bob"]].concat();
        repository.run_in(&repository.home.path(""), &words, "").code(0)
    };
    bob(&["lock", "src/**", "--reason", "a large change"]);
    let no = repository.edit("src/a.rs").code(2);
    assert!(no.err.contains("src/a.rs: bob holds 'src/**' to write until "), "{no:#?}");
    assert!(
        no.err.contains("m): \"a large change\"") && no.err.contains("agentflow lock --wait 5m"),
        "{no:#?}"
    );
    assert_eq!(repository.edit("docs/b c.md").code(0).err, "");
    // What is held here is never asked for.
    repository.run(&["lock", "docs"]).code(0);
    assert_eq!(repository.edit("docs/x.md").code(0).err, "");
    repository.marker("mode = \"enforce\"\n");
    let no = repository.edit("src/new.rs").code(2);
    assert!(no.err.contains("no write lock of yours covers it; bob holds"), "{no:#?}");
    let no = repository.edit("other.md").code(2);
    assert!(no.err.contains("nobody else has one either"), "{no:#?}");
    repository.edit("docs/x.md").code(0);
}
