use super::*;

/// The working copy around a directory, as an attempt finds it.
fn find(directory: &Path) -> Option<WorkingCopy> {
    WorkingCopy::around(directory, &std::env::temp_dir(), &|| false).expect("git answers")
}

fn changed(copy: &WorkingCopy) -> Vec<String> {
    let changed = copy.changed(&std::env::temp_dir(), &|| false).expect("git answers");
    changed.into_iter().map(|path| path.to_string_lossy().into_owned()).collect()
}

#[test]
fn only_what_has_changed_since_is_a_change() {
    let Some(world) = World::new() else { return };
    let root = &world.repository;
    write(root, "a.txt", "dirty");
    write(root, "sub/new", "dirty");
    fs::remove_file(root.join("b.txt")).expect("removed");
    let copy = find(&root.join("sub")).expect("a working copy");
    assert!(copy.is_shared() && copy.root() == fs::canonicalize(root).expect("a directory"));
    assert_eq!(changed(&copy), [""; 0]);
    // To stage something that was there changes no file.
    world.git(&["add", "a.txt"]);
    write(root, "c.ignored", "text");
    assert_eq!(changed(&copy), [""; 0]);
    write(root, "a.txt", "DIRTY");
    write(root, "b.txt", "two\n");
    fs::remove_file(root.join("sub/new")).expect("removed");
    world.git(&["mv", "sub/c.txt", "sub/d.txt"]);
    write(root, "é \n\"x", "text");
    assert_eq!(changed(&copy), ["a.txt", "b.txt", "sub/c.txt", "sub/d.txt", "sub/new", "é \n\"x"]);
}

#[test]
fn a_commit_counts_though_nothing_is_dirty() {
    let Some(world) = World::new() else { return };
    let root = &world.repository;
    write(root, "a.txt", "dirty");
    let copy = find(root).expect("a working copy");
    write(root, "new", "text");
    world.git(&["add", "--all"]);
    world.git(&["commit", "--quiet", "--message=second"]);
    world.git(&["mv", "new", "renamed"]);
    world.git(&["commit", "--quiet", "--message=third"]);
    assert_eq!(changed(&copy), ["a.txt", "renamed"], "also what was dirty before");
    // To go back changes files as well.
    let copy = find(root).expect("a working copy");
    world.git(&["reset", "--quiet", "--hard", "HEAD~2"]);
    assert_eq!(changed(&copy), ["a.txt", "renamed"]);
}

#[test]
fn links_and_other_repositories_count_by_their_names() {
    let Some(world) = World::new() else { return };
    let root = &world.repository;
    let copy = find(root).expect("a working copy");
    std::os::unix::fs::symlink("/etc", root.join("link")).expect("a link");
    git(root, &["init", "--quiet", "nested"]);
    git(&root.join("nested"), &["commit", "--quiet", "--allow-empty", "--message=x"]);
    let odd = std::ffi::OsStr::from_bytes(b"odd\xff");
    fs::write(root.join(odd), "text").expect("a file");
    assert_eq!(changed(&copy), ["link", "nested", "odd\u{fffd}"]);
    assert!(find(&root.join("nested")).is_some_and(|nested| nested.root().ends_with("nested")));
}

#[test]
fn a_repository_without_commits_is_one_too() {
    let Some(world) = World::new() else { return };
    git(world.directory.path(), &["init", "--quiet", "unborn"]);
    let root = world.path("unborn");
    let copy = find(&root).expect("a working copy");
    assert_eq!(changed(&copy), [""; 0]);
    write(&root, "a", "text");
    git(&root, &["add", "a"]);
    git(&root, &["commit", "--quiet", "--message=first"]);
    write(&root, "b", "text");
    assert_eq!(changed(&copy), ["a", "b"]);
}

#[test]
fn elsewhere_there_is_no_working_copy() {
    let Some(world) = World::new() else { return };
    let plain = world.path("plain");
    fs::create_dir_all(plain.join("half/.git")).expect("a directory");
    world.git(&["clone", "--quiet", "--bare", ".", "../../bare.git"]);
    let inside = world.repository.join(".git");
    for directory in [plain.clone(), plain.join("half"), plain.join("none"), world.path("bare.git"), inside] {
        assert!(find(&directory).is_none(), "{}", directory.display());
    }
}

#[test]
fn in_a_worktree_of_its_own_all_counts_that_the_task_has_changed() {
    let Some(world) = World::new() else { return };
    let world = world.with_remote();
    let workspace = world.open();
    let root = workspace.directory().to_owned();
    write(&root, "a.txt", "committed");
    git(&root, &["commit", "--quiet", "--all", "--message=work"]);
    write(&root, "b.txt", "dirty");
    let taken = snapshot(&workspace);
    let own = |workspace: &Workspace| WorkingCopy::own(workspace, &|| false).expect("git answers");
    let copy = own(&world.open());
    assert!(!copy.is_shared());
    assert_eq!(changed(&copy), ["a.txt", "b.txt"]);
    let scratch = std::env::temp_dir();
    let there = copy.changed_in(&taken.commit, &scratch, &|| false).expect("git answers");
    assert_eq!(there.len(), 2);

    // Elsewhere the branch has gone on meanwhile; that is not the task's.
    let clone = world.clone_remote("clone");
    write(&clone, "sub/c.txt", "of somebody else");
    git(&clone, &["commit", "--quiet", "--all", "--message=other"]);
    let workspace = open(&clone, &world.path("another home")).expect("a worktree");
    restore(&workspace, &taken);
    assert_eq!(changed(&own(&workspace)), ["a.txt", "b.txt"]);
}

#[test]
fn a_repository_is_known_by_its_marker_or_its_origin() {
    let Some(world) = World::new() else { return };
    let root = &world.repository;
    let name = || {
        let copy = find(root).expect("a working copy");
        copy.repository().map(ToString::to_string)
    };
    assert_eq!(name(), None);
    world.git(&["remote", "add", "origin", "https://user@Example.com:443/team/app.git"]);
    assert_eq!(name().as_deref(), Some("example.com/team/app"));
    let directory = fs::canonicalize(world.directory.path()).expect("a directory");
    let local = |name: &str| format!("localhost{}/{name}", directory.display());
    for (origin, expected) in [
        (format!("{}/other.git", directory.display()), local("other")),
        ("../../other.git".to_owned(), local("other")),
        (format!("file://{}/other", directory.display()), local("other")),
    ] {
        fs::create_dir_all(directory.join("other.git")).expect("a directory");
        world.git(&["remote", "set-url", "origin", &origin]);
        assert_eq!(name(), Some(expected), "{origin}");
    }
    write(root, ".agentflow/repository.toml", "mode = 'enforce'\nname = 'Mine'\n");
    assert_eq!(name().as_deref(), Some("mine"));
    write(root, ".agentflow/repository.toml", "name = '/srv/x'\n");
    let refused = WorkingCopy::around(root, &std::env::temp_dir(), &|| false);
    assert!(refused.expect_err("no name").contains("repository.toml"));
}
