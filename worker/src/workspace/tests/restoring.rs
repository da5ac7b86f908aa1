use super::*;

fn refs(world: &World) -> Vec<String> {
    let list = world.git(&["for-each-ref", "--format=%(refname)", "refs/agentflow/"]);
    list.lines().map(str::to_owned).collect()
}

#[test]
fn what_was_uncommitted_is_uncommitted_again() {
    let Some(world) = World::new() else { return };
    let workspace = world.open();
    let root = workspace.directory();
    write(root, "committed", "text");
    git(root, &["add", "--all"]);
    git(root, &["commit", "--quiet", "--message=work"]);
    write(root, "a.txt", "changed\n");
    write(root, "new", "text");
    write(root, "y.ignored", "first");
    fs::remove_file(root.join("b.txt")).expect("removed");
    let status = git(root, &["status", "--porcelain=v2", "--branch"]);
    let taken = snapshot(&workspace);
    git(root, &["add", "--all"]);
    git(root, &["commit", "--quiet", "--message=more"]);
    write(root, "later/file", "text");
    write(root, "y.ignored", "second");
    let saved = restore(&workspace, &taken).expect("it had work of its own");
    assert_eq!(git(root, &["status", "--porcelain=v2", "--branch"]), status);
    assert_eq!(read(root, "a.txt"), "changed\n");
    assert_eq!(read(root, "y.ignored"), "second");
    assert!(!root.join("later").exists());
    // And back.
    assert_eq!(restore(&workspace, &saved), None);
    assert_eq!(read(root, "later/file"), "text");
    assert_eq!(git(root, &["log", "-1", "--format=%s"]), "more\n");
    assert_eq!(refs(&world).len(), 2);
}

#[test]
fn only_work_that_nothing_holds_is_saved() {
    let Some(world) = World::new() else { return };
    let workspace = world.open();
    let root = workspace.directory();
    let first = snapshot(&workspace);
    write(root, "new", "text");
    let second = snapshot(&workspace);
    assert_eq!(restore(&workspace, &first), None);
    assert_eq!(restore(&workspace, &second), None);
    restore(&workspace, &first);
    // A branch of the task's own making holds its commit.
    git(root, &["switch", "--quiet", "--create", "own"]);
    git(root, &["commit", "--quiet", "--allow-empty", "--message=work"]);
    let own = git(root, &["rev-parse", "own"]);
    assert_eq!(restore(&workspace, &second), None);
    assert_eq!(git(root, &["symbolic-ref", "--short", "HEAD"]), "agentflow/task-5\n");
    assert_eq!(git(root, &["rev-parse", "own"]), own);
    // A commit of the task's branch that it has left.
    git(root, &["commit", "--quiet", "--allow-empty", "--message=left"]);
    let left = git(root, &["rev-parse", "HEAD"]);
    git(root, &["checkout", "--quiet", "--detach", "main"]);
    write(root, "new", "text");
    restore(&workspace, &first);
    let held = world.git(&["for-each-ref", "--contains", left.trim(), "--format=%(refname)"]);
    assert_eq!(held, "refs/agentflow/checkpoints/5/3\n");
}

#[test]
fn files_directories_and_links_change_places() {
    let Some(world) = World::new() else { return };
    let workspace = world.open();
    let root = workspace.directory();
    fs::remove_file(root.join("a.txt")).expect("removed");
    write(root, "a.txt/in/it", "text");
    fs::remove_dir_all(root.join("sub")).expect("removed");
    std::os::unix::fs::symlink("a.txt", root.join("sub")).expect("a link");
    write(root, "was empty", "text");
    let taken = snapshot(&workspace);
    let before = files(root);
    fs::remove_dir_all(root.join("a.txt")).expect("removed");
    fs::remove_file(root.join("sub")).expect("removed");
    fs::remove_file(root.join("was empty")).expect("removed");
    git(root, &["checkout", "--quiet", "--", "."]);
    fs::create_dir(root.join("was empty")).expect("a directory");
    restore(&workspace, &taken);
    assert_eq!(files(root), before);
}

#[test]
fn an_ignored_file_gives_way_to_one_of_the_snapshot() {
    let Some(world) = World::new() else { return };
    let workspace = world.open();
    let root = workspace.directory();
    write(root, "plain", "kept");
    let taken = snapshot(&workspace);
    write(root, ".gitignore", "plain\n");
    fs::remove_file(root.join("plain")).expect("removed");
    write(root, "plain", "ignored");
    restore(&workspace, &taken);
    assert_eq!(read(root, "plain"), "kept");
}

#[test]
fn a_conflict_and_a_rebase_are_over_afterwards() {
    let Some(world) = World::new() else { return };
    let workspace = world.open();
    let root = workspace.directory();
    write(root, "a.txt", "ours\n");
    git(root, &["commit", "--quiet", "--all", "--message=ours"]);
    let taken = snapshot(&workspace);
    let status = git(root, &["status", "--porcelain=v2", "--branch"]);
    write(&world.repository, "a.txt", "theirs\n");
    world.git(&["commit", "--quiet", "--all", "--message=theirs"]);
    for operation in ["merge", "rebase"] {
        let mut command = Command::new("git");
        command.current_dir(root).args([operation, "main"]).env("GIT_CONFIG_GLOBAL", "/dev/null");
        for name in ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"] {
            command.env(name, "user@example.org");
        }
        assert!(!command.output().expect("git runs").status.success(), "a conflict");
        let saved = restore(&workspace, &taken).expect("the conflict is work");
        assert!(world.git(&["show", &format!("{}:a.txt", saved.commit)]).contains("<<<<<<<"));
        assert_eq!(git(root, &["status", "--porcelain=v2", "--branch"]), status);
        assert!(!git(root, &["status"]).contains("in progress"));
        assert!(!workspace.git_dir.join("MERGE_HEAD").exists());
    }
}

#[test]
fn a_branch_that_somebody_has_taken_is_not_moved() {
    let Some(world) = World::new() else { return };
    let workspace = world.open();
    let taken = snapshot(&workspace);
    git(workspace.directory(), &["checkout", "--quiet", "--detach"]);
    world.git(&["switch", "--quiet", "agentflow/task-5"]);
    let error = workspace.restore(&taken, &|| false).expect_err("taken");
    assert!(error.contains("is checked out in"), "{error}");
}

#[test]
fn only_snapshots_are_restored() {
    let Some(world) = World::new() else { return };
    let workspace = world.open();
    let taken = snapshot(&workspace);
    let head = world.git(&["rev-parse", "HEAD"]).trim().to_owned();
    let restore = |commit: &str, reference: &str| {
        let snapshot = Snapshot::new(commit.to_owned(), reference.to_owned(), true);
        workspace.restore(&snapshot, &|| false).expect_err("no snapshot")
    };
    assert!(restore("--upload-pack=x", &taken.reference).contains("is no snapshot"));
    assert!(restore(&taken.commit, "refs/heads/main").contains("is no snapshot"));
    assert!(restore(&head, &taken.reference).contains("no parent"));
    assert!(restore(&"1".repeat(40), &taken.reference).contains("no remote"));
}
