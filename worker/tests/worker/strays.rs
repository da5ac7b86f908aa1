//! What an attempt with locks changes in a working copy of git, and may not.

use std::path::{Path, PathBuf};
use std::process::Command;

use agentflow_core::ids::{Attempt, Fence};
use agentflow_core::spec::{Payload, RetryOn, Spec, Worktree};
use agentflow_protocol::worker::{AttemptKey, End, Finished};
use serde_json::json;
use tempfile::TempDir;

use crate::common::{Master, dir, key, path, shell};
use crate::door::Inside;
use crate::locks::lock;
use crate::process::Worker;

/// Runs git as somebody who has configured nothing.
fn git(directory: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.current_dir(directory).args(args).env("GIT_CONFIG_GLOBAL", "/dev/null");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "User").env(format!("GIT_{who}_EMAIL"), "user@example.org");
    }
    let output = command.output().expect("git runs");
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A repository with a few files. `None` where there is no git.
fn repository(dir: &TempDir) -> Option<PathBuf> {
    if Command::new("git").arg("version").output().is_err() {
        println!("skipped: there is no program 'git'");
        return None;
    }
    let repository = path(dir, "the repo");
    std::fs::create_dir_all(repository.join("src")).expect("a directory");
    git(&repository, &["init", "--quiet", "--initial-branch=main"]);
    for name in ["a", "b", "c", "d", "src/x"] {
        std::fs::write(repository.join(name), name).expect("a file");
    }
    std::fs::write(repository.join(".gitignore"), "*.ignored\n").expect("a file");
    git(&repository, &["add", "--all"]);
    git(&repository, &["commit", "--quiet", "--message=first"]);
    Some(repository)
}

/// A task that works there, and may write below `src`.
fn within(directory: &Path, command: &str) -> Spec {
    let identity = "export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=A \
                    GIT_COMMITTER_EMAIL=a@example.org; set -e; ";
    let mut spec = shell(&format!("{identity}{command}"));
    spec.workdir = Some(directory.display().to_string());
    lock(&mut spec, "default", &["src/**"]);
    spec
}

/// Why a result was refused.
fn refusal(end: &Finished) -> &str {
    assert_eq!(end.end, End::Failed(RetryOn::Error), "{end:?}");
    assert_eq!(end.outcome.exit_code, Some(0));
    let error = end.outcome.error.as_deref().expect("an error");
    assert!(error.starts_with("the result is refused"), "{error}");
    error
}

#[test]
fn every_kind_of_stray_is_named_and_none_is_reverted() {
    let (master, dir) = (Master::start(), dir());
    let Some(repository) = repository(&dir) else { return };
    let _worker = Worker::start(&master, &path(&dir, "w"), &["--slots", "1"]);
    let work = "echo 1 > new; echo 1 >> a; rm b; mv c 'c moved'; mkdir -p deep/er; echo 1 > \"deep/er/é
x\"; echo 1 >> d; git commit --quiet --message=d d; ln -s /etc link; echo 1 > y.ignored; echo 1 > src/new; echo done";
    let end = master.run(1, within(&repository, work));
    let error = refusal(&end);
    let names = [
        r#""a""#,
        r#""b""#,
        r#""c""#,
        r#""c moved""#,
        r#""d""#,
        r#""deep/er/é\nx""#,
        r#""link""#,
        r#""new""#,
    ];
    assert!(
        error.contains(&format!("8 files changed without a lock for writing: {}", names.join(", "))),
        "{error}"
    );
    assert_eq!(end.outcome.result.as_deref(), Some("done\n"));
    let log = master.state().log(1);
    for name in names {
        assert!(log.contains(&format!("agentflow: changed without a lock for writing: {name}\n")), "{log}");
    }
    for name in ["new", "c moved", "deep/er/é\nx", "src/new"] {
        assert!(repository.join(name).exists(), "{name}");
    }
    assert!(!repository.join("b").exists());
}

#[test]
fn what_is_locked_or_ignored_or_no_repository_is_fine() {
    let (master, dir) = (Master::start(), dir());
    let Some(repository) = repository(&dir) else { return };
    let _worker = Worker::start(&master, &path(&dir, "w"), &["--slots", "1"]);
    let work = "echo 1 > src/new; rm src/x; echo 1 > \"src/é
x\"; echo 1 > y.ignored; git add src/new; git commit --quiet --message=x";
    assert_eq!(master.run(1, within(&repository, work)).end, End::Completed);
    let elsewhere = path(&dir, "elsewhere");
    std::fs::create_dir(&elsewhere).expect("a directory");
    assert_eq!(master.run(2, within(&elsewhere, "echo 1 > new")).end, End::Completed);
    // Without locks nothing is looked at.
    let mut spec = within(&repository, "echo 1 > new");
    spec.locks.clear();
    assert_eq!(master.run(3, spec).end, End::Completed);
    // Nor does somebody answer for what was there before him.
    assert_eq!(master.run(4, within(&repository, "echo 1 > src/y")).end, End::Completed);
    let end = master.run(5, within(&repository, "echo 2 > new"));
    assert!(refusal(&end).contains(r#"1 file changed without a lock for writing: "new""#), "{end:?}");
    let end = master.run(6, within(&repository, "rm new"));
    assert!(refusal(&end).contains(r#""new""#), "{end:?}");
}

#[test]
fn locks_of_another_repository_cover_nothing() {
    let (master, dir) = (Master::start(), dir());
    let Some(repository) = repository(&dir) else { return };
    let _worker = Worker::start(&master, &path(&dir, "w"), &["--slots", "1"]);
    git(&repository, &["remote", "add", "origin", "git@Example.com:team/app.git"]);
    let of = |repo: &str| {
        let mut spec = within(&repository, "echo 1 >> a");
        spec.locks.clear();
        lock(&mut spec, repo, &["a"]);
        spec
    };
    assert_eq!(master.run(1, of("https://example.com/team/app")).end, End::Completed);
    assert!(refusal(&master.run(2, of("example.com/team/other"))).contains(r#""a""#));
    std::fs::create_dir(repository.join(".agentflow")).expect("a directory");
    std::fs::write(repository.join(".agentflow/repository.toml"), "name = \"mine\"\n").expect("a file");
    assert_eq!(master.run(3, of("mine")).end, End::Completed);
    assert!(refusal(&master.run(4, of("example.com/team/app"))).contains(r#""a""#));
    std::fs::write(repository.join(".agentflow/repository.toml"), "name = ").expect("a file");
    let end = master.run(5, of("mine"));
    assert_eq!(end.end, End::Failed(RetryOn::Spawn));
    assert!(end.outcome.error.is_some_and(|error| error.contains("repository.toml")));
}

#[test]
fn in_its_own_worktree_a_task_answers_for_all_its_attempts() {
    let (master, dir) = (Master::start(), dir());
    let Some(repository) = repository(&dir) else { return };
    let _worker = Worker::start(&master, &path(&dir, "w"), &["--slots", "1"]);
    // Others may do in the checkout what they like.
    std::fs::write(repository.join("b"), "other").expect("a file");
    let attempt = |number: u32, command: &str| {
        let mut spec = within(&repository, command);
        spec.worktree = Some(Worktree::default());
        let key = AttemptKey { attempt: Attempt(number), fence: Fence(number.into()), ..key(1) };
        master.set(|state| state.reports.clear());
        master.assign(&[spec], [(key, 0)]);
        master.wait_end(1)
    };
    let end = attempt(1, "echo 1 >> a; git commit --quiet --all --message=a; echo 1 > src/y");
    assert!(refusal(&end).contains(r#"1 file changed without a lock for writing: "a""#), "{end:?}");
    let end = attempt(2, "true");
    assert!(refusal(&end).contains(r#""a""#), "a stray commit of an earlier attempt: {end:?}");
    let end = attempt(3, "git reset --quiet --hard HEAD~1; test -e src/y");
    assert_eq!(end.end, End::Completed, "{end:?}");
}

#[test]
fn a_checkpoint_warns_of_what_strays() {
    let (master, dir) = (Master::start(), dir());
    let Some(repository) = repository(&dir) else { return };
    let _worker = Worker::start(&master, &path(&dir, "w"), &["--slots", "1"]);
    let mut inside = Inside::begin_with(&master, &dir, 1, |spec| {
        spec.workdir = Some(repository.display().to_string());
        spec.worktree = Some(Worktree::default());
        lock(spec, "default", &["src/**"]);
    });
    let root = path(&dir, "w/worktrees/1");
    std::fs::write(root.join("stray"), "1").expect("a file");
    std::fs::write(root.join("src/y"), "1").expect("a file");
    for name in ["one", "two"] {
        assert_eq!(inside.say(json!({"op": "checkpoint", "name": name}))["ok"], true);
    }
    let line = "agentflow: changed without a lock for writing: \"stray\"\n";
    master.wait_for("the warning, once", |state| state.log(1) == line);
    std::fs::remove_file(root.join("stray")).expect("a file");
    inside.end();
    assert_eq!(master.wait_end(1).end, End::Completed, "it has heeded it");
}

#[test]
fn what_was_changed_under_a_lock_may_stay_as_it_was_given_back() {
    let (master, dir) = (Master::start(), dir());
    let Some(repository) = repository(&dir) else { return };
    let _worker = Worker::start(&master, &path(&dir, "w"), &["--slots", "1"]);
    for (task, is_touched) in [(1, false), (2, true)] {
        let mut inside = Inside::begin_with(&master, &dir, task, |spec| {
            spec.workdir = Some(repository.display().to_string());
        });
        // Before its first lock it is like any other task.
        std::fs::write(repository.join("b"), format!("{task}")).expect("a file");
        let lock = inside.say(json!({"op": "lock", "paths": ["a"]}))["lock"]["id"].clone();
        std::fs::write(repository.join("a"), format!("{task}")).expect("a file");
        assert_eq!(inside.say(json!({"op": "unlock", "lock": lock}))["ok"], true);
        if is_touched {
            std::fs::write(repository.join("a"), "again").expect("a file");
        }
        inside.end();
        let end = master.wait_end(task);
        if is_touched {
            assert!(refusal(&end).contains(r#"1 file changed without a lock for writing: "a""#), "{end:?}");
        } else {
            assert_eq!(end.end, End::Completed, "{end:?}");
        }
    }
}

#[test]
fn two_attempts_in_one_working_copy_do_not_answer_for_each_other() {
    let (master, dir) = (Master::start(), dir());
    let Some(repository) = repository(&dir) else { return };
    let _worker = Worker::start(&master, &path(&dir, "w"), &["--slots", "2"]);
    let begin = |task, paths: &[&str]| {
        Inside::begin_with(&master, &dir, task, |spec| {
            spec.workdir = Some(repository.display().to_string());
            lock(spec, "default", paths);
        })
    };
    let (first, second) = (begin(1, &["a"]), begin(2, &["b"]));
    for name in ["a", "b"] {
        std::fs::write(repository.join(name), "changed").expect("a file");
    }
    first.end();
    assert_eq!(master.wait_end(1).end, End::Completed);
    // The first has ended; what it may have changed is still not the second's.
    second.end();
    assert_eq!(master.wait_end(2).end, End::Completed);
    let third = begin(3, &["b"]);
    std::fs::write(repository.join("a"), "changed again").expect("a file");
    third.end();
    assert!(refusal(&master.wait_end(3)).contains(r#""a""#), "nobody else is there now");
}

#[test]
fn a_handler_answers_for_what_it_changes_too() {
    let (master, dir) = (Master::start(), dir());
    let Some(repository) = repository(&dir) else { return };
    let config = path(&dir, "worker.toml");
    let script = "while read -r line; do echo 1 >> src/x; test \"$line\" = null || echo 1 >> a; echo 1; done";
    std::fs::write(&config, format!("[handlers.h]\nargv = ['/bin/sh', '-c', '{script}']\n")).expect("a file");
    let flags = ["--config", config.to_str().expect("text"), "--slots", "1"];
    let _worker = Worker::start(&master, &path(&dir, "w"), &flags);
    let mut spec = Spec::new(Payload::Handler { name: "h".into() });
    spec.workdir = Some(repository.display().to_string());
    lock(&mut spec, "default", &["src/**"]);
    assert_eq!(master.run(1, spec.clone()).end, End::Completed);
    spec.input = Some(json!(5));
    let end = master.run(2, spec);
    assert_eq!(end.end, End::Failed(RetryOn::Error));
    assert!(end.outcome.error.is_some_and(|error| error.contains(r#"writing: "a""#)));
}

#[test]
fn what_others_have_pushed_is_no_stray_and_what_was_pushed_from_here_is() {
    let (master, dir) = (Master::start(), dir());
    let Some(repository) = repository(&dir) else { return };
    let origin = path(&dir, "origin.git");
    git(&repository, &["init", "--quiet", "--bare", "--initial-branch=main", &origin.display().to_string()]);
    git(&repository, &["remote", "add", "origin", &origin.display().to_string()]);
    git(&repository, &["push", "--quiet", "origin", "main"]);
    let _worker = Worker::start(&master, &path(&dir, "w"), &["--slots", "1"]);
    let other = path(&dir, "other");
    git(&repository, &["clone", "--quiet", &origin.display().to_string(), &other.display().to_string()]);
    let others_push = |text: &str| {
        std::fs::write(other.join("a"), text).expect("a file");
        git(&other, &["pull", "--quiet", "--rebase", "--autostash", "origin", "main"]);
        git(&other, &["commit", "--quiet", "--all", "--message=theirs"]);
        git(&other, &["push", "--quiet", "origin", "HEAD:main"]);
    };
    let run = |task, command: &str| {
        let mut spec = within(&repository, command);
        spec.worktree = Some(Worktree::default());
        master.run(task, spec)
    };
    let keep = "git commit --quiet --all --message=mine; git pull --quiet --rebase origin main; \
                git push --quiet origin HEAD:main";
    others_push("theirs");
    // It changes what it has locked, brings it up to date, and pushes it.
    let end = run(1, &format!("echo 1 > src/x; {keep}"));
    assert_eq!(end.end, End::Completed, "{end:?}");
    others_push("theirs again");
    let end = run(2, "git pull --quiet --no-rebase origin main");
    assert_eq!(end.end, End::Completed, "{end:?}");
    // A merge that throws away what others have done changes their files.
    others_push("once more");
    let ours = "echo 2 > src/x; git commit --quiet --all --message=mine; git fetch --quiet origin main; \
                git merge --quiet --strategy=ours FETCH_HEAD; git push --quiet origin HEAD:main";
    let end = run(4, ours);
    assert!(refusal(&end).contains(r#"writing: "a""#), "{end:?}");
    // Nobody stopped its push; it is its own all the same.
    others_push("and again");
    let end = run(3, &format!("echo 1 > b; {keep}"));
    assert!(refusal(&end).contains(r#"writing: "b""#), "{end:?}");
}
