use super::*;

#[test]
fn a_worktree_begins_at_the_users_commit_and_is_taken_again() {
    let Some(world) = World::new() else { return };
    let head = world.git(&["rev-parse", "HEAD"]);
    write(&world.repository, "a.txt", "dirty");
    let first = Workspace::open(&world.repository.join("sub"), &world.home, TASK, None, &|| false);
    let first = first.expect("a worktree");
    let root = fs::canonicalize(&world.home).expect("a directory").join("5");
    assert_eq!(first.directory(), root.join("sub"));
    assert_eq!(first.branch(), "agentflow/task-5");
    assert_eq!(git(&root, &["rev-parse", "HEAD"]), head);
    assert_eq!(git(&root, &["symbolic-ref", "--short", "HEAD"]), "agentflow/task-5\n");
    assert_eq!(read(&root, "a.txt"), "one\n");
    write(&root, "a.txt", "work");
    git(&root, &["switch", "--quiet", "--create", "another"]);
    let second = world.open();
    assert_eq!(second.directory(), root);
    assert_eq!(second.branch(), "agentflow/task-5");
    assert_eq!(read(&root, "a.txt"), "work");
}

#[test]
fn a_workdir_that_is_not_committed_is_made() {
    let Some(world) = World::new() else { return };
    for path in ["new/deep", "out", "b.txt/deep"] {
        fs::remove_file(world.repository.join("b.txt")).ok();
        let workdir = world.repository.join(path);
        fs::create_dir_all(&workdir).expect("a directory");
        let opened = Workspace::open(&workdir, &world.home, TASK, None, &|| false);
        if path == "new/deep" {
            let root = opened.expect("a worktree").root;
            assert!(root.join("new/deep").is_dir());
            std::os::unix::fs::symlink("/tmp", root.join("out")).expect("a link");
        } else if path == "out" {
            assert!(opened.expect_err("a link").contains("a link out"));
        } else {
            assert!(opened.expect_err("a file").contains("cannot be had"));
        }
    }
}

#[test]
fn a_base_is_a_name_of_a_commit() {
    let Some(world) = World::new() else { return };
    let first = world.git(&["rev-parse", "HEAD"]);
    world.git(&["commit", "--quiet", "--allow-empty", "--message=second"]);
    let open = |base| Workspace::open(&world.repository, &world.home, TASK, Some(base), &|| false);
    for base in ["-f", "", "a\nb", "none", "a.txt"] {
        let error = open(base).expect_err("no base");
        assert!(error.contains("the base"), "{error}");
    }
    let workspace = open("main~1").expect("a worktree");
    assert_eq!(git(workspace.directory(), &["rev-parse", "HEAD"]), first);
}

#[test]
fn what_cannot_be_used_is_said_and_left() {
    let Some(world) = World::new() else { return };
    let outside = world.path("outside");
    fs::create_dir(&outside).expect("a directory");
    assert!(open(&outside, &world.home).expect_err("none").contains("no usable git repository"));
    assert!(open(&world.path("none"), &world.home).expect_err("none").contains("no usable git repository"));
    let data = world.repository.join(".git");
    assert!(open(&data, &world.home).expect_err("data").contains("name the checkout"));
    let unborn = world.path("unborn");
    git(world.directory.path(), &["init", "--quiet", "unborn"]);
    assert!(open(&unborn, &world.home).expect_err("unborn").contains("no commit yet"));

    // Something else is there.
    let root = world.home.join("5");
    write(&root, "file", "text");
    let error = open(&world.repository, &world.home).expect_err("no worktree");
    assert!(error.contains("no worktree of git") && error.contains("git worktree prune"), "{error}");
    write(&root, ".git", "gitdir: /nowhere\n");
    assert!(open(&world.repository, &world.home).expect_err("broken").contains("cannot be used"));
    assert_eq!(read(&root, "file"), "text");
    fs::remove_dir_all(&root).expect("removed");

    // A worktree of another repository.
    git(&unborn, &["commit", "--quiet", "--allow-empty", "--message=first"]);
    open(&unborn, &world.home).expect("a worktree");
    let error = open(&world.repository, &world.home).expect_err("of another");
    assert!(error.contains("belongs to the repository"), "{error}");
}

#[test]
fn bare_repositories_and_worktrees_are_repositories() {
    let Some(world) = World::new() else { return };
    let linked = world.path("linked");
    world.git(&["worktree", "add", "--quiet", "-b", "other", "../../linked"]);
    git(&linked, &["commit", "--quiet", "--allow-empty", "--message=second"]);
    let workspace = open(&linked.join("sub"), &world.path("one")).expect("a worktree");
    assert_eq!(git(workspace.directory(), &["rev-parse", "HEAD"]), git(&linked, &["rev-parse", "HEAD"]));
    assert!(workspace.directory().ends_with("5/sub"));

    world.git(&["clone", "--quiet", "--bare", ".", "../../bare.git"]);
    let workspace = open(&world.path("bare.git"), &world.path("two")).expect("a worktree");
    write(workspace.directory(), "new", "text");
    let taken = snapshot(&workspace);
    fs::remove_file(workspace.directory().join("new")).expect("removed");
    restore(&workspace, &taken);
    assert_eq!(read(workspace.directory(), "new"), "text");
    fs::remove_file(workspace.directory().join("new")).expect("removed");
    assert_eq!(workspace.close(&|| false), Ok(Closed::Removed));
}

#[test]
fn a_taken_branch_is_left_to_its_owner() {
    let Some(world) = World::new() else { return };
    let first = world.open();
    let second = open(&world.repository, &world.path("another home")).expect("a worktree");
    assert_eq!(second.branch(), "agentflow/task-5-2");
    // Somebody deletes both; the first holds a commit, the second nothing.
    git(first.directory(), &["commit", "--quiet", "--allow-empty", "--message=work"]);
    let tip = world.git(&["rev-parse", first.branch()]);
    for workspace in [&first, &second] {
        fs::remove_dir_all(workspace.directory()).expect("removed");
    }
    world.git(&["worktree", "prune"]);
    assert_eq!(world.open().branch(), second.branch());
    assert_eq!(world.git(&["rev-parse", first.branch()]), tip);
}

#[test]
fn a_deleted_or_unfinished_worktree_is_made_anew() {
    let Some(world) = World::new() else { return };
    let first = world.open();
    fs::remove_dir_all(first.directory()).expect("removed");
    let second = world.open();
    assert_eq!(second.branch(), first.branch());
    // As if git had been killed in the middle.
    fs::remove_file(second.git_dir.join("agentflow.workspace")).expect("removed");
    write(&second.git_dir, "locked", "initializing");
    fs::remove_file(second.directory().join("a.txt")).expect("removed");
    let third = world.open();
    assert_eq!(read(third.directory(), "a.txt"), "one\n");
    // Later, while it wrote the files.
    for name in ["agentflow.workspace", "index"] {
        fs::remove_file(third.git_dir.join(name)).expect("removed");
    }
    fs::remove_file(third.directory().join("a.txt")).expect("removed");
    write(&third.git_dir, "index.lock", "torn");
    let fourth = world.open();
    assert_eq!(read(fourth.directory(), "a.txt"), "one\n");
    assert_eq!(git(fourth.directory(), &["status", "--porcelain"]), "");
    // And after it, but before it was said.
    fs::remove_file(fourth.git_dir.join("agentflow.workspace")).expect("removed");
    assert_eq!(world.open().branch(), first.branch());
}

#[test]
fn many_tasks_open_worktrees_at_once() {
    let Some(world) = World::new() else { return };
    std::thread::scope(|scope| {
        for task in 1..=8_u64 {
            let world = &world;
            scope.spawn(move || {
                let opened = Workspace::open(&world.repository, &world.home, TaskId(task), None, &|| false);
                let workspace = opened.expect("a worktree");
                write(workspace.directory(), "new", task.to_string());
                assert_eq!(snapshot(&workspace).reference, format!("refs/agentflow/checkpoints/{task}/1"));
            });
        }
    });
    assert_eq!(world.git(&["worktree", "list"]).lines().count(), 9);
}

#[test]
fn a_filter_that_does_not_run_leaves_nothing_behind() {
    let Some(world) = World::new() else { return };
    write(&world.repository, ".gitattributes", "*.big filter=missing\n");
    write(&world.repository, "x.big", "kept");
    world.git(&["add", "--all"]);
    world.git(&["commit", "--quiet", "--message=big"]);
    world.git(&["config", "filter.missing.smudge", "no-such-program"]);
    let error = open(&world.repository, &world.home).expect_err("no program");
    assert!(error.contains("a filter of this repository") && error.contains("'no-such-program'"), "{error}");
    assert!(!world.home.join("5").exists());
    assert_eq!(world.git(&["branch", "--list", "agentflow/*"]), "");
    world.git(&["config", "filter.missing.smudge", "cat"]);
    assert_eq!(read(world.open().directory(), "x.big"), "kept");
}
