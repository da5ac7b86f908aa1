//! Real repositories in temporary directories.

mod changes;
mod closing;
mod opening;
mod remotes;
mod restoring;
mod snapshots;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use agentflow_core::ids::TaskId;
use tempfile::TempDir;

use super::*;

const TASK: TaskId = TaskId(5);

/// A user's repository, and where worktrees go. There are spaces in both paths.
struct World {
    directory: TempDir,
    repository: PathBuf,
    home: PathBuf,
}

impl World {
    /// With one commit. `None` where there is no git.
    fn new() -> Option<Self> {
        if Command::new("git").arg("version").output().is_err() {
            println!("skipped: there is no program 'git'");
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let repository = directory.path().join("the user's/repo sitory");
        let home = directory.path().join("data dir/worktrees");
        fs::create_dir_all(repository.join("sub")).expect("a directory");
        let world = Self { directory, repository, home };
        world.git(&["init", "--quiet", "--initial-branch=main"]);
        for (path, text) in [("a.txt", "one\n"), ("b.txt", "two\n"), ("sub/c.txt", "three\n")] {
            fs::write(world.repository.join(path), text).expect("a file");
        }
        fs::write(world.repository.join(".gitignore"), "*.ignored\ntarget/\n").expect("a file");
        world.git(&["add", "--all"]);
        world.git(&["commit", "--quiet", "--message=first"]);
        Some(world)
    }

    fn git(&self, args: &[&str]) -> String {
        git(&self.repository, args)
    }

    fn open(&self) -> Workspace {
        open(&self.repository, &self.home).expect("a worktree")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A bare remote by the name of `origin`.
    fn with_remote(self) -> Self {
        git(self.directory.path(), &["init", "--quiet", "--bare", "--initial-branch=main", "remote.git"]);
        self.git(&["remote", "add", "origin", &self.remote_url()]);
        self.git(&["push", "--quiet", "origin", "main"]);
        self
    }

    fn remote_url(&self) -> String {
        format!("file://{}", self.path("remote.git").display())
    }

    /// A clone of the remote, as on another machine.
    fn clone_remote(&self, name: &str) -> PathBuf {
        git(self.directory.path(), &["clone", "--quiet", &self.remote_url(), name]);
        self.path(name)
    }
}

fn open(repository: &Path, home: &Path) -> Result<Workspace, String> {
    Workspace::open(repository, home, TASK, None, &|| false)
}

fn snapshot(workspace: &Workspace) -> Snapshot {
    workspace.snapshot("a snapshot", &|| false).expect("a snapshot")
}

fn restore(workspace: &Workspace, snapshot: &Snapshot) -> Option<Snapshot> {
    workspace.restore(snapshot, &|| false).expect("restored")
}

/// Runs git as a user does who has configured nothing, and gives what it prints.
fn git(directory: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.current_dir(directory).args(args).env("GIT_CONFIG_GLOBAL", "/dev/null");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "User").env(format!("GIT_{who}_EMAIL"), "user@example.org");
    }
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_OPTIONAL_LOCKS", "0");
    let output = command.output().expect("git runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {args:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn write(directory: &Path, path: &str, bytes: impl AsRef<[u8]>) {
    let path = directory.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    fs::write(path, bytes).expect("a file");
}

fn read(directory: &Path, path: &str) -> String {
    fs::read_to_string(directory.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A program that git runs, such as a hook.
fn program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    fs::write(path, text).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
}

/// All files below a directory but those of git: what they are, and what is in them.
fn files(root: &Path) -> BTreeMap<OsString, (char, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(root).expect("below").as_os_str().to_owned();
            let metadata = fs::symlink_metadata(&path).expect("its metadata");
            if metadata.is_symlink() {
                let target = fs::read_link(&path).expect("a link");
                found.insert(name, ('l', target.as_os_str().as_bytes().to_vec()));
            } else if metadata.is_file() && name != ".git" {
                let kind = if metadata.permissions().mode() & 0o100 == 0 { 'f' } else { 'x' };
                found.insert(name, (kind, fs::read(&path).expect("a file")));
            } else if metadata.is_dir() && name != ".git" {
                directories.push(path);
            }
        }
    }
    found
}

/// What a snapshot must not change in a checkout: its index to the byte, what git says of it, branches,
/// stash and logs.
fn trace(checkout: &Path) -> (Vec<u8>, String) {
    let mut said = git(checkout, &["status", "--porcelain=v2", "--branch", "--untracked-files=all"]);
    said += &git(checkout, &["for-each-ref", "refs/heads", "refs/tags", "refs/stash"]);
    for log in ["HEAD", "main"] {
        said += &git(checkout, &["reflog", "show", log]);
    }
    let index = git(checkout, &["rev-parse", "--git-path", "index"]);
    (fs::read(checkout.join(index.trim_end())).expect("an index"), said)
}
