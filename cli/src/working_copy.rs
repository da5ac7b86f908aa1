//! Where a command is typed: in a working copy of a repository, which has a name that all its copies
//! share, and in which every file has one.
//!
//! Owns: which repository it is, what is set for all of its copies (`.agentflow/repository.toml`), what a
//! path in it is called, and what is noted of the locks that were taken here. Git is asked with two
//! processes at once, because hooks must be quick. Must not know: the master.

use std::path::{Path, PathBuf};

use agentflow_core::lock::Repository;

use crate::error::Error;

mod git;
mod marker;
mod place;
mod record;

pub(crate) use marker::{Mode, WithoutMaster};
pub(crate) use place::PathFault;
pub(crate) use record::{NotedLock, Record};

/// A working copy: the files of a repository as somebody sees them.
#[derive(Clone, Debug)]
pub(crate) struct WorkingCopy {
    /// Its top directory; no symbolic link leads there.
    pub(crate) root: PathBuf,
    /// Its own git directory.
    pub(crate) git_dir: PathBuf,
    /// The git directory that it shares with the other worktrees of the same repository, where there are
    /// others; else its own.
    pub(crate) common_dir: PathBuf,
    /// Which repository it is a copy of.
    pub(crate) repo: Repository,
    /// Whether upper and lower case are the same in its paths.
    pub(crate) ignore_case: bool,
    /// What needs a lock here.
    pub(crate) mode: Mode,
    /// What a hook says when it cannot ask a master.
    pub(crate) without_master: WithoutMaster,
}

impl WorkingCopy {
    /// The working copy around that directory.
    ///
    /// # Errors
    /// When there is none, or it does not say which repository it is.
    pub(crate) fn find(directory: &Path) -> Result<Self, Error> {
        Self::around(directory)?.ok_or_else(|| {
            Error::Usage(format!(
                "{} is in no working copy of a git repository: go to one, or name the repository with --repo",
                directory.display()
            ))
        })
    }

    /// The same, and `None` where there is none.
    ///
    /// # Errors
    /// When it does not say which repository it is, or git does not answer.
    pub(crate) fn around(directory: &Path) -> Result<Option<Self>, Error> {
        let Some(found) = git::look(directory)? else { return Ok(None) };
        let marker = marker::read(&found.root)?;
        let repo = match marker.name {
            Some(name) => name,
            None => marker::by_origin(&found)?,
        };
        Ok(Some(Self {
            repo,
            ignore_case: marker.ignore_case || found.ignore_case,
            mode: marker.mode,
            without_master: marker.without_master,
            root: found.root,
            git_dir: found.git_dir,
            common_dir: found.common_dir,
        }))
    }

    /// What is noted of the locks that were taken in this working copy.
    pub(crate) fn record(&self) -> Record {
        Record::of(&self.git_dir)
    }
}

#[cfg(test)]
mod tests;
