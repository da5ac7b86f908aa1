//! Hooks of git: installed beside others, run by the real git, and taken away again.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::repository::{Repository, files};

fn installed() -> Repository {
    let repository = Repository::new();
    repository.run(&["hooks", "install"]).code(0);
    repository
}

/// Stages one more line in a file.
fn stage(repository: &Repository, file: &str) {
    let text = fs::read_to_string(repository.path(file)).unwrap_or_default();
    repository.write(file, &format!("{text}more\n"));
    repository.git(&["add", "--", file]).code(0);
}

#[test]
fn a_commit_is_of_files_that_are_locked_and_says_so() {
    let repository = installed().in_attempt(&[(17, "src/**"), (18, "docs/**"), (19, "other/**")]);
    stage(&repository, "src/a.rs");
    stage(&repository, "docs/b c.md");
    repository.git(&["commit", "--message", "title\n\nwords"]).code(0);
    let expected = "title\n\nwords\n\nAgentFlow-Task: 5\nAgentFlow-Attempt: 2\nAgentFlow-Fence: 17\nAgentFlow-Fence: 18\n\n";
    assert_eq!(repository.message(), expected);
    // Said once, whatever is done again.
    repository.git(&["commit", "--amend", "--no-edit"]).code(0);
    assert_eq!(repository.message(), expected);
    repository.git(&["commit", "--amend", "--message", "another"]).code(0);
    assert!(repository.message().contains("AgentFlow-Fence: 18"), "{}", repository.message());
}

#[test]
fn every_file_that_is_not_locked_is_named() {
    let repository = installed().in_attempt(&[(17, "src/**")]);
    stage(&repository, "src/a.rs");
    stage(&repository, "übung\n.md");
    stage(&repository, "it's \"new\".md");
    repository.git(&["mv", "docs/b c.md", "docs/moved.md"]).code(0);
    let no = repository.git(&["commit", "--message", "x"]).code(1);
    for name in ["docs/b c.md: ", "docs/moved.md: ", "it's \"new\".md: ", "\"übung\\n.md\": "] {
        assert!(no.err.contains(&format!("\n  {name}")), "{name}: {no:#?}");
    }
    assert!(!no.err.contains("src/a.rs"), "{no:#?}");
    repository.git(&["reset", "--quiet"]).code(0);
    fs::remove_file(repository.path("docs/moved.md")).expect("there");
    repository.git(&["rm", "--quiet", "--cached", "docs/b c.md"]).code(0);
    let no = repository.git(&["commit", "--message", "x"]).code(1);
    assert!(no.err.contains("docs/b c.md"), "what is taken away: {no:#?}");
}

#[test]
fn a_person_s_lock_is_named_if_it_covers_something() {
    let repository = installed();
    repository.marker("mode = \"enforce\"\n");
    repository.commit("marker");
    repository.note(7, "src/**");
    stage(&repository, "src/a.rs");
    repository.git(&["commit", "--message", "x"]).code(0);
    assert_eq!(repository.message(), format!("x\n\nAgentFlow-Lock: {:032x}\nAgentFlow-Fence: 7\n\n", 7));
    stage(&repository, "docs/b c.md");
    repository.git(&["commit", "--message", "x"]).code(1);
    repository.git(&["commit", "--no-verify", "--message", "x"]).code(0);
    assert_eq!(repository.message(), "x\n\n", "a hook that is gone round says nothing");
}

#[test]
fn a_commit_without_a_message_is_given_up() {
    let repository = installed().in_attempt(&[(17, "**")]).with("GIT_EDITOR", "true");
    stage(&repository, "src/a.rs");
    let before = repository.head();
    let no = repository.git(&["commit", "--verbose"]);
    assert_ne!(no.code, Some(0), "{no:#?}");
    assert_eq!(repository.head(), before);
}

#[test]
fn a_message_in_an_editor_gets_its_trailers_where_git_reads_them() {
    let repository = installed()
        .in_attempt(&[(17, "**")])
        .with("GIT_EDITOR", "sed -i '1i subject\\n\\ntext\\n---\\nafter a line'");
    stage(&repository, "src/a.rs");
    repository.git(&["commit", "--verbose"]).code(0);
    let trailers =
        repository.git(&["log", "-1", "--format=%(trailers:only,key=AgentFlow-Fence,valueonly)"]).code(0);
    assert_eq!(trailers.out.trim(), "17", "{}", repository.message());
    assert!(!repository.message().contains("diff --git"), "{}", repository.message());
}

#[test]
fn where_only_conflicts_count_nobody_is_kept_from_work() {
    let repository = installed();
    stage(&repository, "src/a.rs");
    let ended = repository.git(&["commit", "--message", "x"]).code(0);
    assert!(ended.err.contains("no master") && ended.err.contains("allowed"), "{ended:#?}");
    assert_eq!(repository.message(), "x\n\n");
}

#[test]
fn a_merge_is_what_differs_from_both_of_its_sides() {
    let repository = installed().in_attempt(&[(17, "src/**")]);
    repository.git(&["checkout", "--quiet", "-b", "other"]).code(0);
    repository.write("docs/new.md", "theirs\n");
    repository.commit("theirs");
    repository.git(&["checkout", "--quiet", "main"]).code(0);
    repository.write("src/a.rs", "ours\n");
    repository.commit("ours");
    // What comes from the other side was checked there.
    repository.git(&["merge", "--quiet", "--no-edit", "other"]).code(0);
    assert!(repository.message().contains("AgentFlow-Task: 5"), "{}", repository.message());
    repository.git(&["reset", "--quiet", "--hard", "HEAD^"]).code(0);
    repository.git(&["merge", "--quiet", "--no-commit", "other"]).code(0);
    stage(&repository, "docs/new.md");
    stage(&repository, "evil.md");
    let no = repository.git(&["commit", "--message", "merged"]).code(1);
    assert!(no.err.contains("docs/new.md: ") && no.err.contains("evil.md: "), "{no:#?}");
    assert!(!no.err.contains("src/a.rs"), "{no:#?}");
}

#[test]
fn hooks_that_were_there_run_first_with_all_that_git_gives() {
    let repository = Repository::new();
    let log = repository.home.path("log");
    let note =
        |what: &str| format!("#!/bin/sh\necho \"{what} $(basename \"$0\")\" \"$@\" >>'{}'\n", log.display());
    repository.program(".git/hooks/pre-commit", &note("one"));
    repository.program(".git/hooks/commit-msg", &format!("{}sed -i 's/^/said: /' \"$1\"\n", note("two")));
    repository
        .program(".git/hooks/pre-push", &format!("{}cat >>'{}'\nexit 3\n", note("three"), log.display()));
    repository.run(&["hooks", "install"]).code(0);
    let repository = repository.in_attempt(&[(17, "**")]);
    stage(&repository, "src/a.rs");
    repository.git(&["commit", "--message", "x"]).code(0);
    assert!(repository.message().starts_with("said: x\n\nAgentFlow-Task: 5\n"), "{}", repository.message());
    let server = repository.home.path("server.git");
    repository.git(&["init", "--quiet", "--bare", server.to_str().expect("text")]).code(0);
    let no = repository.git(&["push", "--quiet", server.to_str().expect("text"), "main"]);
    assert_ne!(no.code, Some(0), "its exit code counts: {no:#?}");
    let told = fs::read_to_string(&log).expect("written");
    let (head, none) = (repository.head(), "0".repeat(40));
    let server = server.display();
    let expected = format!(
        "one pre-commit\ntwo commit-msg .git/COMMIT_EDITMSG\nthree pre-push {server} {server}\n\
         refs/heads/main {head} refs/heads/main {none}\n"
    );
    assert_eq!(told, expected);
}

#[test]
fn a_hook_that_fails_keeps_ours_from_running() {
    let repository = Repository::new();
    repository.program(".git/hooks/pre-commit", "#!/bin/sh\necho not today >&2\nexit 7\n");
    repository.run(&["hooks", "install"]).code(0);
    let repository = repository.in_attempt(&[(17, "src/**")]);
    stage(&repository, "docs/b c.md");
    let no = repository.git(&["commit", "--message", "x"]).code(1);
    assert!(no.err.contains("not today") && !no.err.contains("docs/b c.md"), "{no:#?}");
    // One without a first line is a script of the shell, and one that may not be run is none.
    repository.program(".git/hooks.agentflow-chained/pre-commit", "echo plain >&2\n");
    let no = repository.git(&["commit", "--message", "x"]).code(1);
    assert!(no.err.contains("plain") && no.err.contains("docs/b c.md"), "{no:#?}");
    let path = repository.path(".git/hooks.agentflow-chained/pre-commit");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("a mode");
    assert!(!repository.git(&["commit", "--message", "x"]).code(1).err.contains("plain"));
}

#[test]
fn what_was_there_comes_back_as_it_was() {
    let repository = Repository::new();
    let hooks = repository.path(".git/hooks");
    let _samples = fs::remove_dir_all(&hooks);
    repository.program(".git/hooks/pre-commit", "#!/bin/sh\r\nexit 0\r\n");
    repository.write(".git/hooks/commit-msg", "no program\0\n");
    fs::set_permissions(hooks.join("commit-msg"), fs::Permissions::from_mode(0o640)).expect("a mode");
    symlink("../../scripts/push", hooks.join("pre-push")).expect("linked");
    repository.write(".git/hooks/helper.sh", "x\n");
    let before = files(&hooks);
    for _ in 0..2 {
        repository.run(&["hooks", "install"]).code(0);
    }
    let installed = files(&hooks);
    assert_eq!(installed.len(), 4);
    assert_ne!(installed, before);
    let status = repository.run(&["hooks", "status", "--json"]).code(0).json();
    for hook in status["hooks"].as_array().expect("a list") {
        assert_eq!(hook["state"], "installed");
        assert!(hook["chains"].as_str().is_some_and(|path| path.contains("agentflow-chained/")), "{hook}");
    }
    repository.run(&["hooks", "uninstall"]).code(0);
    assert_eq!(files(&hooks), before);
    assert!(!repository.path(".git/hooks.agentflow-chained").exists());
    repository.run(&["hooks", "uninstall"]).code(0);
    assert_eq!(files(&hooks), before);
    let status = repository.run(&["hooks", "status"]).code(0);
    assert!(status.out.contains("foreign") && !status.out.contains("installed"), "{status:#?}");
}

#[test]
fn what_people_have_changed_meanwhile_is_kept_and_said() {
    let repository = Repository::new();
    let hooks = repository.path(".git/hooks");
    repository.program(".git/hooks/pre-commit", "#!/bin/sh\n# first\n");
    repository.run(&["hooks", "install"]).code(0);
    // Ours, by hand.
    let ours = fs::read_to_string(hooks.join("commit-msg")).expect("there");
    repository.program(".git/hooks/commit-msg", &format!("{ours}# mine\n"));
    let again = repository.run(&["hooks", "install"]).code(0);
    assert!(again.err.contains("changed by hand"), "{again:#?}");
    assert!(fs::read_to_string(hooks.join("commit-msg")).expect("there").ends_with("# mine\n"));
    // Another tool's over ours, twice.
    repository.program(".git/hooks/pre-commit", "#!/bin/sh\n# second\n");
    let again = repository.run(&["hooks", "install"]).code(0);
    assert!(again.err.contains("older"), "{again:#?}");
    // What is chained.
    repository.program(".git/hooks.agentflow-chained/pre-commit", "#!/bin/sh\n# third\n");
    let gone = repository.run(&["hooks", "uninstall"]).code(0);
    assert!(gone.err.contains("commit-msg.agentflow-edited"), "{gone:#?}");
    let text =
        |path: &Path| fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(text(&hooks.join("commit-msg.agentflow-edited")).ends_with("# mine\n"));
    assert!(text(&hooks.join("pre-commit")).ends_with("# third\n"));
    assert!(text(&repository.path(".git/hooks.agentflow-chained/pre-commit.older")).ends_with("# first\n"));
    assert!(!hooks.join("commit-msg").exists() && !hooks.join("pre-push").exists());
    // One that took the place of ours stays there.
    repository.run(&["hooks", "install"]).code(0);
    repository.program(".git/hooks/pre-commit", "#!/bin/sh\n# fourth\n");
    let gone = repository.run(&["hooks", "uninstall"]).code(0);
    assert!(gone.err.contains("the one before is kept as"), "{gone:#?}");
    assert!(text(&hooks.join("pre-commit")).ends_with("# fourth\n"));
    assert!(text(&repository.path(".git/hooks.agentflow-chained/pre-commit")).ends_with("# third\n"));
}

#[test]
fn husky_s_hooks_find_themselves() {
    let repository = Repository::new();
    repository.git(&["config", "core.hooksPath", ".husky/_"]).code(0);
    // As Husky 9 has them: each looks by its own name for the one that people write.
    let shared = "#!/usr/bin/env sh\nn=$(basename \"$0\")\ns=$(dirname \"$(dirname \"$0\")\")/$n\n[ ! -f \"$s\" ] && exit 0\nsh -e \"$s\" \"$@\"\n";
    repository.program(".husky/_/h", shared);
    for name in ["pre-commit", "commit-msg", "pre-push", "post-checkout"] {
        repository.program(&format!(".husky/_/{name}"), "#!/usr/bin/env sh\n. \"$(dirname \"$0\")/h\"\n");
    }
    repository.write(".husky/_/.gitignore", "*");
    repository.write(".husky/pre-commit", "echo husky is here >&2\ntest ! -e stop\n");
    repository.commit("husky");
    let before = files(&repository.path(".husky/_"));
    let ended = repository.run(&["hooks", "install"]).code(0);
    assert!(ended.err.contains("part of the working copy"), "{ended:#?}");
    assert_eq!(repository.git(&["status", "--porcelain"]).code(0).out, "");
    assert_eq!(repository.git(&["config", "core.hooksPath"]).code(0).out.trim(), ".husky/_");
    let repository = repository.in_attempt(&[(17, "src/**")]);
    stage(&repository, "src/a.rs");
    let ended = repository.git(&["commit", "--message", "x"]).code(0);
    assert!(ended.err.contains("husky is here"), "{ended:#?}");
    assert!(repository.message().contains("AgentFlow-Fence: 17"));
    repository.write("stop", "");
    stage(&repository, "src/a.rs");
    repository.git(&["commit", "--message", "x"]).code(1);
    // Where it is called from makes no difference.
    fs::remove_file(repository.path("stop")).expect("there");
    stage(&repository, "docs/b c.md");
    let no = repository.git_in(&repository.path("docs"), &["commit", "--message", "x"]).code(1);
    assert!(no.err.contains("husky is here") && no.err.contains("docs/b c.md"), "{no:#?}");
    repository.run_in(&repository.path("docs"), &["hooks", "uninstall"], "").code(0);
    assert_eq!(files(&repository.path(".husky/_")), before);
    assert!(!repository.path(".husky/_.agentflow-chained").exists());
}

#[test]
fn hooks_that_several_repositories_link_to_are_chained_for_all() {
    let repository = Repository::new();
    let shared = repository.home.path("shared hooks");
    fs::create_dir(&shared).expect("made");
    let hook = repository.program("hook", "#!/bin/sh\necho shared \"$(basename \"$0\")\" >&2\n");
    fs::rename(hook, shared.join("pre-commit")).expect("moved");
    let tree = repository.home.path("another");
    repository.git(&["clone", "--quiet", ".", tree.to_str().expect("text")]).code(0);
    for root in [&repository.root, &tree] {
        fs::remove_dir_all(root.join(".git/hooks")).expect("there");
        symlink(&shared, root.join(".git/hooks")).expect("linked");
    }
    let before = files(&shared);
    repository.run(&["hooks", "install"]).code(0);
    for root in [&repository.root, &tree] {
        let ended =
            repository.git_in(root, &["commit", "--quiet", "--allow-empty", "--message", "x"]).code(0);
        assert!(ended.err.contains("shared pre-commit"), "{ended:#?}");
    }
    repository.run_in(&tree, &["hooks", "uninstall"], "").code(0);
    assert_eq!(files(&shared), before);
    assert!(!repository.home.path("shared hooks.agentflow-chained").exists());
}

#[test]
fn hooks_of_all_repositories_are_not_touched_unasked() {
    let repository = Repository::new();
    let shared = repository.home.path("all hooks");
    fs::create_dir(&shared).expect("made");
    let config = repository.home.path("config");
    fs::write(&config, format!("[core]\n\thooksPath = {}\n", shared.display())).expect("written");
    let repository = repository.with("GIT_CONFIG_GLOBAL", config.to_str().expect("text"));
    let no = repository.run(&["hooks", "install"]).code(2);
    assert!(no.err.contains("core.hooksPath") && no.err.contains("--shared"), "{no:#?}");
    assert!(files(&shared).is_empty());
    repository.run(&["hooks", "install", "--shared"]).code(0);
    assert_eq!(files(&shared).len(), 3);
    repository.run(&["hooks", "uninstall"]).code(0);
    assert!(files(&shared).is_empty());
}

#[test]
fn a_linked_worktree_has_the_same_hooks_and_its_own_index() {
    let repository = Repository::new();
    let tree = repository.home.path("a tree");
    repository.git(&["worktree", "add", "--quiet", "-b", "tree", tree.to_str().expect("text")]).code(0);
    repository.run_in(&tree, &["hooks", "install"], "").code(0);
    assert!(repository.path(".git/hooks/pre-commit").exists());
    let repository = repository.in_attempt(&[(17, "src/**")]);
    // What is staged elsewhere is no matter.
    stage(&repository, "docs/b c.md");
    fs::write(tree.join("src/a.rs"), "changed\n").expect("written");
    repository.git_in(&tree, &["add", "--all"]).code(0);
    repository.git_in(&tree, &["commit", "--message", "x"]).code(0);
    let message = repository.git_in(&tree, &["log", "-1", "--format=%B"]).code(0).out;
    assert!(message.contains("AgentFlow-Fence: 17"), "{message}");
    fs::write(tree.join("new.md"), "new\n").expect("written");
    repository.git_in(&tree, &["add", "--all"]).code(0);
    let no = repository.git_in(&tree, &["commit", "--message", "x"]).code(1);
    assert!(no.err.contains("new.md: ") && !no.err.contains("docs"), "{no:#?}");
}

#[test]
fn without_the_program_it_is_said_and_refused_where_every_change_needs_a_lock() {
    let repository = installed();
    for name in ["pre-commit", "commit-msg", "pre-push"] {
        let path = format!(".git/hooks/{name}");
        let text = fs::read_to_string(repository.path(&path)).expect("there");
        let gone = text
            .replace(env!("CARGO_BIN_EXE_agentflow"), "/gone/agentflow")
            .replace("' agentflow;", "' gone;");
        repository.program(&path, &gone);
    }
    let log = repository.home.path("log");
    repository.program(
        ".git/hooks.agentflow-chained/pre-commit",
        &format!("#!/bin/sh\necho ran >'{}'\n", log.display()),
    );
    stage(&repository, "src/a.rs");
    let ended = repository.git(&["commit", "--message", "x"]).code(0);
    assert!(ended.err.contains("pre-commit: agentflow is not found"), "{ended:#?}");
    assert!(log.exists(), "what was there runs all the same");
    repository.marker("mode = 'enforce'\n");
    stage(&repository, "src/a.rs");
    let no = repository.git(&["commit", "--message", "x"]).code(1);
    assert!(no.err.contains("refused"), "{no:#?}");
}

#[test]
fn a_repository_without_a_name_is_told_what_to_do() {
    let repository = Repository::new();
    repository.git(&["config", "--unset", "remote.origin.url"]).code(0);
    let ended = repository.run(&["hooks", "install"]).code(0);
    assert!(ended.err.contains("has no origin"), "{ended:#?}");
    stage(&repository, "src/a.rs");
    let ended = repository.git(&["commit", "--message", "x"]).code(0);
    assert!(ended.err.contains("has no origin") && ended.err.contains("allowed"), "{ended:#?}");
    repository.write(".agentflow/repository.toml", "mode = \"enforce\"\n");
    stage(&repository, "src/a.rs");
    repository.git(&["commit", "--message", "x"]).code(1);
}
