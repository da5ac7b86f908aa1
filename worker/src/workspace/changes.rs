//! What has changed in a working copy since an attempt began.
//!
//! Whatever git calls a change counts: changed, new, deleted, committed. What it ignores does not, and
//! neither do commits of others that were fetched. A link counts by itself, wherever it leads.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use agentflow_core::lock::Repository;

use super::git::Git;
use super::listing::listed;
use super::{Workspace, fetched, identity};

/// A working copy as an attempt found it.
#[derive(Debug)]
pub(crate) struct WorkingCopy {
    root: PathBuf,
    git_dir: PathBuf,
    /// Which repository it is a copy of, where that is known.
    repository: Option<Repository>,
    /// Against what its commits are seen; none where there was no commit yet.
    base: Option<String>,
    /// What was changed already, where others work too; in a worktree of the task's own all that is
    /// changed counts.
    found: Option<BTreeMap<PathBuf, Option<Stamp>>>,
}

/// By what a change of a file is noticed that was changed already: what it is, its inode and length, and
/// when it and its inode were written, to the nanosecond. Directories that are repositories are all alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp(u32, u64, u64, [i64; 4]);

impl WorkingCopy {
    /// The one that a directory lies in; none where there is no git.
    pub(crate) fn around(
        directory: &Path,
        scratch: &Path,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<Self>, String> {
        let Ok(directory) = fs::canonicalize(directory) else { return Ok(None) };
        if !directory.ancestors().any(|above| above.join(".git").exists()) {
            return Ok(None);
        }
        let git = Git::within(&directory, cancelled);
        let Some((git_dir, root)) = places(&git)? else { return Ok(None) };
        let repository = identity::repository(&git, &root)?;
        let base = git.commit("HEAD")?;
        let copy = Self { root, git_dir, repository, base, found: None };
        let found = copy.dirty(&copy.git(cancelled), scratch)?;
        let found = found.into_iter().map(|path| {
            let stamp = copy.stamp(&path);
            (path, stamp)
        });
        let found = Some(found.collect());
        Ok(Some(Self { found, ..copy }))
    }

    /// The worktree of a task alone, against the commit that it was made at.
    pub(crate) fn own(workspace: &Workspace, cancelled: &dyn Fn() -> bool) -> Result<Self, String> {
        let git = workspace.git(cancelled);
        let (root, git_dir) = (workspace.root.clone(), workspace.git_dir.clone());
        let repository = identity::repository(&git, &root)?;
        let base = match workspace.base() {
            Some(base) => Some(base),
            // It was made by a worker that did not write it down.
            None => git.commit("HEAD")?,
        };
        Ok(Self { root, git_dir, repository, base, found: None })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn repository(&self) -> Option<&Repository> {
        self.repository.as_ref()
    }

    /// Whether others may work in it too.
    pub(crate) fn is_shared(&self) -> bool {
        self.found.is_some()
    }

    /// What has changed by now.
    pub(crate) fn changed(
        &self,
        scratch: &Path,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<BTreeSet<PathBuf>, String> {
        let git = self.git(cancelled);
        let mut changed = self.dirty(&git, scratch)?;
        if let Some(found) = &self.found {
            for (path, stamp) in found {
                if *stamp == self.stamp(path) {
                    changed.remove(path);
                } else {
                    changed.insert(path.clone());
                }
            }
        }
        if let Some(head) = git.commit("HEAD")? {
            changed.extend(self.committed(&git, &head, scratch)?);
        }
        Ok(changed)
    }

    /// What a commit has that the base has not.
    pub(crate) fn changed_in(
        &self,
        commit: &str,
        scratch: &Path,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<BTreeSet<PathBuf>, String> {
        self.committed(&self.git(cancelled), commit, scratch)
    }

    /// How a file is now; none where there is none.
    pub(crate) fn stamp(&self, path: &Path) -> Option<Stamp> {
        let found = fs::symlink_metadata(self.root.join(path)).ok()?;
        if found.is_dir() {
            return Some(Stamp(found.mode(), 0, 0, [0; 4]));
        }
        let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
        Some(Stamp(found.mode(), found.ino(), found.len(), times))
    }

    fn git<'a>(&self, cancelled: &'a dyn Fn() -> bool) -> Git<'a> {
        Git::exactly(&self.git_dir, Some(&self.root), cancelled)
    }

    /// What is not committed.
    fn dirty(&self, git: &Git<'_>, scratch: &Path) -> Result<BTreeSet<PathBuf>, String> {
        let status = ["status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames"];
        let call = git.call(status.iter().chain(&["--ignore-submodules=none"]));
        // Two letters and a blank stand before each path.
        listed(scratch, 3, |file| call.output(file).run())
    }

    fn committed(&self, git: &Git<'_>, commit: &str, scratch: &Path) -> Result<BTreeSet<PathBuf>, String> {
        let base = match &self.base {
            Some(base) if base == commit => return Ok(BTreeSet::new()),
            // A snapshot of elsewhere may have been restored, which began at an older commit.
            Some(base) if !self.is_shared() => {
                git.ask(["merge-base", base, commit])?.unwrap_or_else(|| base.clone())
            }
            Some(base) => base.clone(),
            None => git.text(["hash-object", "-t", "tree", "--stdin"])?,
        };
        let diff = ["diff-tree", "-r", "-z", "--name-only", "--no-renames", "--ignore-submodules=none"];
        let call = git.call(diff).arg(&base).arg(commit);
        let mut changed = listed(scratch, 0, |file| call.output(file).run())?;
        // What was fetched meanwhile was changed by others, who answer for it.
        if self.base.is_some() {
            let fetched = fetched::between(git, &base, commit, scratch)?;
            changed.retain(|path| !fetched.theirs.contains(path));
            changed.extend(fetched.undone);
        }
        Ok(changed)
    }
}

/// The git directory and the root of a working copy.
fn places(git: &Git<'_>) -> Result<Option<(PathBuf, PathBuf)>, String> {
    let ask = ["rev-parse", "--is-inside-work-tree", "--absolute-git-dir", "--show-toplevel"];
    let output = match git.call(ask).run() {
        Ok(output) => output,
        Err(failure) if failure.stderr.contains("not a git repository") => return Ok(None),
        // In git's own directory, or in a repository without files.
        Err(failure) if failure.stdout.starts_with("false") => return Ok(None),
        Err(failure) => return Err(failure.into()),
    };
    let path = |line: &[u8]| PathBuf::from(OsString::from_vec(line.to_vec()));
    match output.stdout.split(|byte| *byte == b'\n').collect::<Vec<_>>().as_slice() {
        [b"true", git_dir, root, b""] => Ok(Some((path(git_dir), path(root)))),
        _ => Err("git says where it is in a way that is not understood".to_owned()),
    }
}
