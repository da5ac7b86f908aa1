use super::*;

/// A worktree with every kind of uncommitted change.
fn work(root: &Path) {
    write(root, "committed", "text");
    git(root, &["add", "--all"]);
    git(root, &["commit", "--quiet", "--message=work"]);
    write(root, "a.txt", "changed\n");
    write(root, "größe\n-x", [0, 255, 10, 13]);
    write(root, "z.ignored", "ignored");
    program(&root.join("run"), "#!/bin/sh\n");
    std::os::unix::fs::symlink("sub", root.join("link")).expect("a link");
    fs::remove_file(root.join("b.txt")).expect("removed");
}

#[test]
fn another_machine_has_the_same_files_and_changes() {
    let Some(world) = World::new() else { return };
    let world = world.with_remote();
    let workspace = world.open();
    work(workspace.directory());
    let taken = snapshot(&workspace);
    assert!(taken.pushed);
    let clone = world.clone_remote("clone");
    let before = trace(&clone);
    let other = open(&clone, &world.path("other home")).expect("a worktree");
    // As a master would hand it over.
    let known = Snapshot::new(taken.commit.clone(), taken.reference.clone(), true);
    assert_eq!(restore(&other, &known), None);
    let mut expected = files(workspace.directory());
    expected.remove(std::ffi::OsStr::new("z.ignored"));
    assert_eq!(files(other.directory()), expected);
    let status =
        |workspace: &Workspace| git(workspace.directory(), &["status", "--porcelain=v2", "--branch"]);
    assert_eq!(status(&other), status(&workspace));
    let (index, said) = trace(&clone);
    assert_eq!(index, before.0);
    // The task's branch is new there.
    let said: Vec<&str> = said.lines().filter(|line| !line.ends_with("agentflow/task-5")).collect();
    let was: Vec<&str> = before.1.lines().filter(|line| !line.ends_with("agentflow/task-5")).collect();
    assert_eq!(said, was);
    // It goes on there with the next number.
    assert_eq!(snapshot(&other), taken);
    write(other.directory(), "more", "text");
    assert_eq!(snapshot(&other).reference, "refs/agentflow/checkpoints/5/2");
}

#[test]
fn a_number_that_the_remote_has_is_not_taken() {
    let Some(world) = World::new() else { return };
    let world = world.with_remote();
    let workspace = world.open();
    for text in ["1", "2", "3"] {
        write(workspace.directory(), "new", text);
        snapshot(&workspace);
    }
    // It knows nothing of these.
    let clone = world.clone_remote("clone");
    let other = open(&clone, &world.path("other home")).expect("a worktree");
    write(other.directory(), "new", "other");
    let taken = snapshot(&other);
    assert_eq!(taken.reference, "refs/agentflow/checkpoints/5/4");
    assert!(taken.pushed);
    assert_eq!(git(&clone, &["for-each-ref", "refs/agentflow"]).lines().count(), 1);
    other.prune(0, &|| false).expect("pruned");
    assert_eq!(git(&world.path("remote.git"), &["for-each-ref", "refs/agentflow"]), "");
}

#[test]
fn a_remote_that_is_gone_fails_no_snapshot() {
    let Some(world) = World::new() else { return };
    let world = world.with_remote();
    let workspace = world.open();
    let (here, away) = (world.path("remote.git"), world.path("away.git"));
    fs::rename(&here, &away).expect("renamed");
    let taken = snapshot(&workspace);
    assert!(!taken.pushed);
    fs::rename(&away, &here).expect("renamed");
    // The same again, and now it gets there.
    let again = snapshot(&workspace);
    assert_eq!((again.commit, again.pushed), (taken.commit.clone(), true));
    let there = git(&here, &["for-each-ref", "--format=%(refname)", "refs/agentflow"]);
    assert_eq!(there, "refs/agentflow/checkpoints/5/1\n");
    // Not pushed, not to be fetched.
    let clone = world.clone_remote("clone");
    git(&here, &["update-ref", "-d", "refs/agentflow/checkpoints/5/1"]);
    let other = open(&clone, &world.path("other home")).expect("a worktree");
    let error = other.restore(&taken, &|| false).expect_err("not there");
    assert!(error.contains("cannot be fetched"), "{error}");
}

#[test]
fn the_remote_is_origin_or_the_upstream_or_the_only_one() {
    let Some(world) = World::new() else { return };
    let remote = || world.open().remote;
    assert_eq!(remote(), None);
    world.git(&["remote", "add", "one", "../one"]);
    assert_eq!(remote().as_deref(), Some("one"));
    world.git(&["remote", "add", "two", "../two"]);
    assert_eq!(remote(), None);
    world.git(&["config", "branch.main.remote", "two"]);
    assert_eq!(remote().as_deref(), Some("two"));
    world.git(&["remote", "add", "origin", "../three"]);
    assert_eq!(remote().as_deref(), Some("origin"));
}

#[test]
fn files_of_git_lfs_come_along() {
    let Some(world) = World::new() else { return };
    if Command::new("git-lfs").arg("version").output().is_err() {
        println!("skipped: there is no program 'git-lfs'");
        return;
    }
    let world = world.with_remote();
    world.git(&["lfs", "install", "--local"]);
    let workspace = world.open();
    write(workspace.directory(), ".gitattributes", "*.big filter=lfs -text\n");
    write(workspace.directory(), "x.big", "large");
    let taken = snapshot(&workspace);
    assert!(taken.pushed);
    assert!(world.git(&["show", &format!("{}:x.big", taken.commit)]).starts_with("version https://git-lfs"));
    let clone = world.clone_remote("clone");
    git(&clone, &["lfs", "install", "--local"]);
    let other = open(&clone, &world.path("other home")).expect("a worktree");
    restore(&other, &taken);
    assert_eq!(read(other.directory(), "x.big"), "large");
}
