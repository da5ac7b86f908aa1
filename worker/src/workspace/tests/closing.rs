use super::*;

fn reason(workspace: Workspace) -> String {
    match workspace.close(&|| false) {
        Ok(Closed::Kept { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn work_is_kept_until_another_branch_has_it() {
    let Some(world) = World::new() else { return };
    let root = world.open().root;
    for (path, text) in [("new file", "text"), ("a.txt", "changed")] {
        write(&root, path, text);
        let reason = reason(world.open());
        assert!(reason.contains(&root.display().to_string()), "{reason}");
        assert!(reason.contains(&format!("as of '{path}'")), "{reason}");
    }
    git(&root, &["add", "--all"]);
    assert!(reason(world.open()).contains("not committed, as of 'a.txt'"));
    git(&root, &["commit", "--quiet", "--message=work"]);
    assert!(reason(world.open()).contains("the commits of its HEAD"));
    // It has left them on its branch.
    git(&root, &["checkout", "--quiet", "--detach", "main"]);
    assert!(reason(world.open()).contains("the commits of its agentflow/task-5"));
    world.git(&["merge", "--quiet", "agentflow/task-5"]);
    write(&root, "target/x", "ignored");
    let before = trace(&world.repository);
    assert_eq!(world.open().close(&|| false), Ok(Closed::Removed));
    assert!(!root.exists());
    assert_eq!(world.git(&["worktree", "list"]).lines().count(), 1);
    assert_eq!(world.git(&["branch", "--list", "agentflow/*"]), "");
    assert_eq!(trace(&world.repository).0, before.0);
}

#[test]
fn a_branch_at_a_remote_holds_work_too() {
    let Some(world) = World::new() else { return };
    let world = world.with_remote();
    let workspace = world.open();
    git(workspace.directory(), &["commit", "--quiet", "--allow-empty", "--message=work"]);
    // A snapshot of it holds it as well, but is pruned some day.
    snapshot(&workspace);
    assert!(reason(workspace).contains("no other branch"));
    git(world.open().directory(), &["push", "--quiet", "origin", "HEAD:refs/heads/feature"]);
    assert_eq!(world.open().close(&|| false), Ok(Closed::Removed));
}

#[test]
fn submodules_that_are_not_checked_out_hold_nothing() {
    let Some(world) = World::new() else { return };
    git(world.directory.path(), &["init", "--quiet", "module"]);
    git(&world.path("module"), &["commit", "--quiet", "--allow-empty", "--message=first"]);
    let add = ["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "../../module", "module"];
    world.git(&["config", "protocol.file.allow", "always"]);
    let url = world.path("module").display().to_string();
    let add: Vec<&str> =
        add.iter().map(|arg| if *arg == "../../module" { url.as_str() } else { *arg }).collect();
    world.git(&add);
    world.git(&["commit", "--quiet", "--message=a submodule"]);
    let workspace = world.open();
    let taken = snapshot(&workspace);
    assert!(taken.left_out.is_empty());
    assert_eq!(workspace.close(&|| false), Ok(Closed::Removed));
    let root = world.open().root;
    git(&root, &["-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init"]);
    assert!(reason(world.open()).contains("submodules of its own"));
}

#[test]
fn a_locked_worktree_stays() {
    let Some(world) = World::new() else { return };
    let workspace = world.open();
    git(workspace.directory(), &["worktree", "lock", "."]);
    assert!(reason(workspace).contains("locked"));
}
