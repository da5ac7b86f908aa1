//! A git worktree for a task that works in a repository, snapshots of it, and what has changed in it or
//! in any other working copy.
//!
//! ```text
//! <home>/<task>                          the worktree, on the branch agentflow/task-<task>
//! refs/agentflow/checkpoints/<task>/<n>  snapshots, in the repository and at its remote
//! ```
//!
//! Owns: the worktree, that branch and those references. The user's checkout, index, branches and
//! stash are never touched, and no hook of the repository runs. Must not know: attempts, the master.
//!
//! What a snapshot does not have: ignored files, what is changed within submodules and other
//! repositories below the worktree ([`Snapshot::left_out`]), and content that was staged and then
//! changed again.

mod changes;
mod close;
mod fetched;
mod filters;
mod git;
mod identity;
mod listing;
mod lock;
mod remote;
mod repository;
mod restore;
mod scratch;
mod snapshot;
#[cfg(test)]
mod tests;
mod worktree;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use agentflow_core::ids::TaskId;

pub(crate) use changes::{Stamp, WorkingCopy};
use git::Git;
use repository::Repository;

/// A worktree that belongs to one task.
#[derive(Debug)]
pub(crate) struct Workspace {
    task: TaskId,
    root: PathBuf,
    directory: PathBuf,
    /// Git's own files for this worktree alone.
    git_dir: PathBuf,
    /// Those that all worktrees of the repository share.
    common: PathBuf,
    branch: String,
    remote: Option<String>,
}

/// A commit that holds a worktree's files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Snapshot {
    /// Its hash, 40 or 64 hexadecimal digits.
    pub(crate) commit: String,
    pub(crate) reference: String,
    /// Whether the remote has it, so that another worker can restore it.
    pub(crate) pushed: bool,
    /// Repositories within the worktree, some of them if there are many, whose content the snapshot
    /// does not have.
    pub(crate) left_out: Vec<String>,
}

/// What became of a worktree in the end.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Closed {
    /// It is gone, with the task's branch.
    Removed,
    /// It holds what nothing else holds. The reason, for people, names its place.
    Kept { reason: String },
}

impl Snapshot {
    /// A snapshot that is known by its names.
    pub(crate) fn new(commit: String, reference: String, pushed: bool) -> Self {
        Self { commit, reference, pushed, left_out: Vec::new() }
    }
}

impl Workspace {
    /// Makes the worktree of a task below `home`, or takes the one that is there. `workdir` lies in the
    /// repository; `base` is the commit that a new worktree begins at, by default HEAD of the checkout
    /// that `workdir` lies in.
    ///
    /// One at a time for a task.
    ///
    /// # Errors
    /// What to do, for people. What is there and cannot be used is not deleted.
    pub(crate) fn open(
        workdir: &Path,
        home: &Path,
        task: TaskId,
        base: Option<&str>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Self, String> {
        let git = Git::within(workdir, cancelled);
        let repository = Repository::find(&git, workdir)?;
        fs::create_dir_all(home).map_err(|error| format!("{}: {error}", home.display()))?;
        let home = fs::canonicalize(home).map_err(|error| format!("{}: {error}", home.display()))?;
        let root = home.join(task.to_string());
        let worktree::Ready { git_dir, branch } = worktree::open(&git, &repository, &root, task, base)?;
        scratch::sweep(&git_dir);
        let directory = place(&root, &repository.prefix)?;
        let Repository { common, remote, .. } = repository;
        Ok(Self { task, root, directory, git_dir, common, branch, remote })
    }

    /// Where the task's process starts: the same place in the worktree that `workdir` has in the
    /// user's checkout.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The task's branch: `agentflow/task-<task>`, with a number behind it where that was taken.
    pub(crate) fn branch(&self) -> &str {
        &self.branch
    }

    /// The commit that the worktree was made at, if it was written down.
    fn base(&self) -> Option<String> {
        worktree::base(&self.git_dir)
    }

    fn reference_of_branch(&self) -> String {
        format!("refs/heads/{}", self.branch)
    }

    fn git<'a>(&self, cancelled: &'a dyn Fn() -> bool) -> Git<'a> {
        Git::exactly(&self.git_dir, Some(&self.root), cancelled)
    }
}

/// The directory of a process. What the user has not committed is made; a link must not lead out.
fn place(root: &Path, prefix: &Path) -> Result<PathBuf, String> {
    let shown = prefix.display();
    let failed = |error: io::Error| format!("the workdir '{shown}' cannot be had in the worktree: {error}");
    let mut directory = root.to_owned();
    for part in prefix {
        directory.push(part);
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        if !fs::canonicalize(&directory).map_err(failed)?.starts_with(root) {
            return Err(format!("the workdir '{shown}' is a link out of the worktree"));
        }
    }
    match directory.is_dir() {
        true => Ok(directory),
        false => Err(failed(io::ErrorKind::NotADirectory.into())),
    }
}
