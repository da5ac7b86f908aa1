use std::io::Write;
use std::os::unix::fs::symlink;

use super::*;

/// The entries of a snapshot: mode and path.
fn entries(world: &World, snapshot: &Snapshot) -> Vec<String> {
    let list = world.git(&["ls-tree", "-r", "-z", &snapshot.commit]);
    let entries = list.split('\0').filter_map(|entry| entry.split_once('\t'));
    entries.map(|(what, path)| format!("{} {path}", &what[..6])).collect()
}

fn scratch_files(workspace: &Workspace) -> usize {
    let entries = fs::read_dir(&workspace.git_dir).expect("a directory").flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().contains("scratch")).count()
}

#[test]
fn a_snapshot_has_every_kind_of_file() {
    let Some(world) = World::new() else { return };
    let workspace = world.open();
    let root = workspace.directory();
    let binary: Vec<u8> = (0..=255).cycle().take(5_000).collect();
    write(root, "new.bin", &binary);
    write(root, "x.ignored", "ignored");
    write(root, "target/y", "ignored");
    for name in ["with space", "with\nnewline", "-leading", "größe", "\"quoted\"", "deep/er/file"] {
        write(root, name, name);
    }
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"no utf-8 \xff")), "text").expect("a file");
    program(&root.join("run"), "#!/bin/sh\n");
    symlink("a.txt", root.join("link")).expect("a link");
    symlink("nowhere", root.join("dangling")).expect("a link");
    symlink("sub", root.join("directory")).expect("a link");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .expect("a pipe");
    fs::remove_file(root.join("b.txt")).expect("removed");
    fs::rename(root.join("sub/c.txt"), root.join("sub/renamed.txt")).expect("renamed");
    fs::set_permissions(root.join("a.txt"), fs::Permissions::from_mode(0o755)).expect("a mode");
    let taken = snapshot(&workspace);
    let expected = [
        "100644 \"quoted\"",
        "100644 -leading",
        "100644 .gitignore",
        "100755 a.txt",
        "120000 dangling",
        "100644 deep/er/file",
        "120000 directory",
        "100644 größe",
        "120000 link",
        "100644 new.bin",
        "100644 no utf-8 \u{fffd}",
        "100755 run",
        "100644 sub/renamed.txt",
        "100644 with\nnewline",
        "100644 with space",
    ];
    assert_eq!(entries(&world, &taken), expected);
    let head = world.git(&["rev-parse", "HEAD"]);
    assert_eq!(world.git(&["rev-parse", &format!("{}^", taken.commit)]), head);
    let who = world.git(&["log", "-1", "--format=%an <%ae> %cn %s", &taken.commit]);
    assert_eq!(who, "AgentFlow <agentflow@localhost> AgentFlow a snapshot\n");
    assert!(!taken.pushed && taken.left_out.is_empty());

    let before: BTreeMap<_, _> = files(root);
    for path in ["new.bin", "run", "link", "dangling", "-leading", "with\nnewline"] {
        fs::remove_file(root.join(path)).expect("removed");
    }
    write(root, "dangling/in the way", "text");
    write(root, "b.txt", "again");
    restore(&workspace, &taken);
    assert_eq!(files(root), before);
}

#[test]
fn nobodys_index_branch_stash_or_log_is_touched() {
    let Some(world) = World::new() else { return };
    write(&world.repository, "a.txt", "stashed");
    world.git(&["stash", "--quiet"]);
    let workspace = world.open();
    for checkout in [world.repository.as_path(), workspace.directory()] {
        write(checkout, "a.txt", "staged");
        git(checkout, &["add", "a.txt"]);
        write(checkout, "a.txt", "staged and changed");
        write(checkout, "intended", "text");
        git(checkout, &["add", "--intent-to-add", "intended"]);
        write(checkout, "untracked", "text");
        git(checkout, &["rm", "--quiet", "--cached", "b.txt"]);
    }
    let before = (trace(&world.repository), trace(workspace.directory()));
    let taken = snapshot(&workspace);
    assert_eq!((trace(&world.repository), trace(workspace.directory())), before);
    assert_eq!(world.git(&["show", &format!("{}:a.txt", taken.commit)]), "staged and changed");
    assert_eq!(scratch_files(&workspace), 0);
}

#[test]
fn snapshots_are_numbered_and_taken_only_of_changes() {
    let Some(world) = World::new() else { return };
    let workspace = world.open();
    let first = snapshot(&workspace);
    assert_eq!(first.reference, "refs/agentflow/checkpoints/5/1");
    assert_eq!(snapshot(&workspace), first);
    write(workspace.directory(), "new", "text");
    let second = snapshot(&workspace);
    assert_eq!(second.reference, "refs/agentflow/checkpoints/5/2");
    // The same files on another parent.
    git(workspace.directory(), &["commit", "--quiet", "--allow-empty", "--message=work"]);
    let third = snapshot(&workspace);
    assert_eq!(third.reference, "refs/agentflow/checkpoints/5/3");
    world.git(&["update-ref", "refs/agentflow/checkpoints/5/11", &first.commit]);
    assert_eq!(snapshot(&workspace).reference, "refs/agentflow/checkpoints/5/12");
    workspace.prune(2, &|| false).expect("pruned");
    let left = world.git(&["for-each-ref", "--format=%(refname)", "refs/agentflow/"]);
    assert_eq!(left, "refs/agentflow/checkpoints/5/11\nrefs/agentflow/checkpoints/5/12\n");
}

#[test]
fn changes_within_one_tick_of_the_clock_are_seen() {
    let Some(world) = World::new() else { return };
    let workspace = world.open();
    let root = workspace.directory();
    let tick = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    let stop_clock = |path: &Path| {
        let file = fs::File::options().append(true).open(path).expect("a file");
        file.set_modified(tick).expect("a time");
    };
    // This one cannot be set.
    world.git(&["config", "core.trustctime", "false"]);
    write(root, "a.txt", "old\n");
    stop_clock(&root.join("a.txt"));
    git(root, &["add", "a.txt"]);
    write(root, "a.txt", "new\n");
    stop_clock(&root.join("a.txt"));
    stop_clock(&workspace.git_dir.join("index"));
    let taken = snapshot(&workspace);
    assert_eq!(world.git(&["show", &format!("{}:a.txt", taken.commit)]), "new\n");
}

#[test]
fn a_large_file_comes_back() {
    let Some(world) = World::new() else { return };
    let workspace = world.open();
    let path = workspace.directory().join("large");
    // A tenth of it cannot be compressed.
    let mut file = fs::File::create(&path).expect("a file");
    let mut state = 88_172_645_463_325_252_u64;
    for part in 0..100_u32 {
        let random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let bytes: Vec<u8> = match part % 10 {
            0 => std::iter::repeat_with(random).take(1 << 17).flat_map(u64::to_le_bytes).collect(),
            _ => vec![0; 1 << 20],
        };
        file.write_all(&bytes).expect("written");
    }
    let whole = fs::read(&path).expect("a file");
    assert_eq!(whole.len(), 100 << 20);
    let taken = snapshot(&workspace);
    fs::write(&path, "small").expect("a file");
    restore(&workspace, &taken);
    assert!(fs::read(&path).expect("a file") == whole);
}

#[test]
fn what_a_killed_snapshot_left_disturbs_nobody() {
    let Some(world) = World::new() else { return };
    let workspace = world.open();
    write(workspace.directory(), "new", "text");
    for name in ["agentflow.scratch.1.0", "agentflow.scratch.1.0.lock"] {
        write(&workspace.git_dir, name, "torn");
    }
    let taken = snapshot(&workspace);
    let again = world.open();
    assert!(!workspace.git_dir.join("agentflow.scratch.1.0").exists());
    assert!(!workspace.git_dir.join("agentflow.scratch.1.0.lock").exists());
    assert_eq!(snapshot(&again), taken);
}

#[test]
fn a_stopped_snapshot_leaves_nothing() {
    let Some(world) = World::new() else { return };
    let workspace = world.open();
    write(workspace.directory(), "new", "text");
    for most in 0..20 {
        let asked = std::cell::Cell::new(0);
        let cancelled = || asked.replace(asked.get() + 1) >= most;
        if let Err(error) = workspace.snapshot("stopped", &cancelled) {
            assert!(error.contains("the task is over"), "{error}");
        }
        assert_eq!(scratch_files(&workspace), 0);
    }
    assert_eq!(snapshot(&workspace).reference, "refs/agentflow/checkpoints/5/1");
}

#[test]
fn files_that_vanish_meanwhile_are_no_error() {
    let Some(world) = World::new() else { return };
    let workspace = world.open();
    let root = workspace.directory();
    // While git reads one file, another that it has seen goes.
    write(root, ".gitattributes", "*.slow filter=slow\n");
    world.git(&["config", "filter.slow.clean", "rm -f vanishing; cat"]);
    write(root, "a.slow", "text");
    write(root, "vanishing", "text");
    let taken = snapshot(&workspace);
    assert!(!entries(&world, &taken).contains(&"100644 vanishing".to_owned()));
    // And so it goes on.
    world.git(&["config", "filter.slow.clean", "rm -f vanishing*; date +%N >vanishing$(date +%N); cat"]);
    for name in ["b.slow", "c.slow", "vanishing"] {
        write(root, name, "text");
    }
    if let Err(error) = workspace.snapshot("restless", &|| false) {
        assert!(error.contains("change while they are read"), "{error}");
    }
}

#[test]
fn no_hook_runs() {
    let Some(world) = World::new() else { return };
    let world = world.with_remote();
    let mark = world.path("a hook has run");
    for name in [
        "pre-commit",
        "post-checkout",
        "post-commit",
        "post-index-change",
        "pre-push",
        "reference-transaction",
    ] {
        let text = format!("#!/bin/sh\necho {name} >>'{}'\n", mark.display());
        program(&world.repository.join(".git/hooks").join(name), &text);
    }
    let workspace = world.open();
    write(workspace.directory(), "new", "text");
    let taken = snapshot(&workspace);
    assert!(taken.pushed);
    write(workspace.directory(), "new", "other");
    restore(&workspace, &taken);
    workspace.prune(0, &|| false).expect("pruned");
    fs::remove_file(workspace.directory().join("new")).expect("removed");
    assert_eq!(workspace.close(&|| false), Ok(Closed::Removed));
    assert!(!mark.exists(), "{}", fs::read_to_string(&mark).unwrap_or_default());
    // They would have.
    world.git(&["commit", "--quiet", "--allow-empty", "--message=second"]);
    assert!(mark.exists());
}

#[test]
fn a_missing_filter_is_an_error() {
    let Some(world) = World::new() else { return };
    let workspace = world.open();
    let root = workspace.directory();
    let attributes = "*.big filter=lfs\n*.secret filter=git-crypt\n*.odd filter=odd\n*.nice filter=nice\n";
    write(root, ".gitattributes", attributes);
    // Git itself takes these as they are.
    write(root, "x.nice", "text");
    snapshot(&workspace);
    world.git(&["config", "filter.odd.clean", "no-such-program"]);
    for (path, needle) in [("x.big", "'lfs'"), ("x.secret", "'git-crypt'"), ("x.odd", "'no-such-program'")] {
        write(root, path, "text");
        let error = workspace.snapshot("none", &|| false).expect_err("no filter");
        assert!(error.contains(needle), "{error}");
        fs::remove_file(root.join(path)).expect("removed");
    }
    assert_eq!(world.git(&["for-each-ref", "refs/agentflow/"]).lines().count(), 1);
}

#[test]
fn repositories_within_are_told() {
    let Some(world) = World::new() else { return };
    let workspace = world.open();
    let root = workspace.directory();
    git(root, &["init", "--quiet", "nested"]);
    let error = workspace.snapshot("none", &|| false).expect_err("no commit in it");
    assert!(error.contains("does not have a commit checked out"), "{error}");
    git(&root.join("nested"), &["commit", "--quiet", "--allow-empty", "--message=first"]);
    write(root, "nested/file", "text");
    let taken = snapshot(&workspace);
    assert_eq!(taken.left_out, ["nested"]);
    write(root, ".gitmodules", "[submodule \"nested\"]\npath = nested\nurl = ./nested\n");
    git(root, &["add", "--all"]);
    git(root, &["commit", "--quiet", "--message=a submodule"]);
    assert_eq!(snapshot(&workspace).left_out, ["nested"]);
}

#[test]
fn a_sparse_checkout_stays_sparse() {
    let Some(world) = World::new() else { return };
    let workspace = world.open();
    let root = workspace.directory();
    git(root, &["sparse-checkout", "set", "--no-cone", "/sub/", "/.gitignore"]);
    assert!(!root.join("a.txt").exists());
    write(root, "sub/new", "text");
    write(root, "outside", "text");
    let taken = snapshot(&workspace);
    let expected =
        ["100644 .gitignore", "100644 a.txt", "100644 b.txt", "100644 outside", "100644 sub/c.txt"];
    assert_eq!(entries(&world, &taken)[..5], expected);
    write(root, "sub/new", "other");
    restore(&workspace, &taken);
    assert_eq!(read(root, "sub/new"), "text");
    assert!(!root.join("a.txt").exists());
    let status = git(root, &["status", "--porcelain=v2", "--untracked-files=all"]);
    assert!(!status.contains("a.txt"), "{status}");
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let Some(world) = World::new() else { return };
    let workspace = world.open();
    let path = workspace.directory().join("closed");
    program(&path, "text");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("a mode");
    // Root may read everything.
    if fs::read(&path).is_err() {
        let error = workspace.snapshot("none", &|| false).expect_err("not readable");
        assert!(error.contains("Permission denied"), "{error}");
    }
    let error = workspace.snapshot("none", &|| true).expect_err("cancelled");
    assert!(error.contains("the task is over"), "{error}");
}

#[test]
fn hashes_may_be_long() {
    let Some(world) = World::new() else { return };
    let long = world.path("long");
    git(world.directory.path(), &["init", "--quiet", "--object-format=sha256", "long"]);
    git(&long, &["commit", "--quiet", "--allow-empty", "--message=first"]);
    let workspace = open(&long, &world.home).expect("a worktree");
    write(workspace.directory(), "new", "text");
    let taken = snapshot(&workspace);
    assert_eq!(taken.commit.len(), 64);
    write(workspace.directory(), "new", "other");
    restore(&workspace, &taken);
    assert_eq!(read(workspace.directory(), "new"), "text");
}
