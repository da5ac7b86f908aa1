//! Where an attempt works: the task's directory, or a worktree of its own in it; and what it changes there
//! without a lock, if it has locks.
//!
//! Shared by the slot's thread, which opens and closes it, and the door, through which checkpoints are
//! made while the attempt runs: the lock keeps two snapshots apart.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use agentflow_core::checkpoint::Files;
use agentflow_core::limits;
use agentflow_core::lock::LockId;
use agentflow_core::spec::{Spec, Worktree};
use agentflow_protocol::worker::AttemptKey;

use crate::guarded::Guarded;
use crate::locks::Locks;
use crate::strays::{self, Watch, Watches};
use crate::workspace::{Closed, Snapshot, WorkingCopy, Workspace};

/// Snapshots kept of a task beside those that its checkpoints name: what a restore has saved first.
const SPARE: u32 = 2;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// Where the process starts, once there is a worktree.
    directory: OnceLock<PathBuf>,
    workspace: Guarded<Option<Workspace>>,
    watches: Arc<Watches>,
    /// Of an attempt with locks; nothing where it does not work in a working copy.
    watch: OnceLock<Option<Arc<Watch>>>,
}

impl Place {
    /// Of an attempt that has not begun.
    pub(crate) fn new(watches: Arc<Watches>) -> Self {
        Self { watches, ..Self::default() }
    }

    /// The directory of the task; none is the worker's own.
    pub(crate) fn directory<'a>(&'a self, spec: &'a Spec) -> Option<&'a Path> {
        self.directory.get().map(PathBuf::as_path).or(spec.workdir.as_deref().map(Path::new))
    }

    /// Makes the worktree of an attempt's task below `home`, or takes the one that an earlier attempt
    /// has left.
    ///
    /// # Errors
    /// What to do, for people.
    pub(crate) fn open(
        &self,
        spec: &Spec,
        worktree: &Worktree,
        home: &Path,
        key: AttemptKey,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), String> {
        let workdir = within(spec.workdir.as_deref().map(Path::new))?;
        let workspace = Workspace::open(&workdir, home, key.task, worktree.base.as_deref(), cancelled)?;
        log::info!(
            "task {}: works in {}, on {}",
            key.task,
            workspace.directory().display(),
            workspace.branch()
        );
        let _first = self.directory.set(workspace.directory().to_owned());
        *self.workspace.lock() = Some(workspace);
        Ok(())
    }

    /// Brings the files back that a checkpoint holds; what was there and nowhere else is saved first.
    ///
    /// # Errors
    /// Why they cannot be had, for people.
    pub(crate) fn restore(
        &self,
        (commit, reference): (String, String),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), String> {
        let workspace = self.workspace.lock();
        let Some(workspace) = &*workspace else { return Ok(()) };
        if let Some(saved) = workspace.restore(&Snapshot::new(commit, reference, true), cancelled)? {
            log::info!("what stood in the worktree before is kept as {}", saved.reference);
        }
        Ok(())
    }

    /// Takes a snapshot of the files; none where there is no worktree.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub(crate) fn snapshot(
        &self,
        spec: &Spec,
        message: &str,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<Box<Files>>, String> {
        let workspace = self.workspace.lock();
        let Some(workspace) = &*workspace else { return Ok(None) };
        let Snapshot { commit, reference, left_out, .. } = workspace.snapshot(message, cancelled)?;
        if !left_out.is_empty() {
            log::warn!("{reference} does not hold what is in {}", left_out.join(", "));
        }
        let keep = spec.keep_checkpoints.unwrap_or(limits::CHECKPOINTS_KEPT) + SPARE;
        if let Err(error) = workspace.prune(usize::try_from(keep).unwrap_or(usize::MAX), cancelled) {
            log::warn!("old snapshots stay: {error}");
        }
        Ok(Some(Box::new(Files { commit: commit.into(), reference: reference.into() })))
    }

    /// From now on it is seen what changes, if the attempt works in a working copy of git.
    ///
    /// # Errors
    /// Why it could not be seen, for people.
    pub(crate) fn watch(
        &self,
        spec: &Spec,
        locks: &Arc<Locks>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), String> {
        if self.is_watched() {
            return Ok(());
        }
        let copy = match &*self.workspace.lock() {
            Some(workspace) => Some(WorkingCopy::own(workspace, cancelled)?),
            None => {
                let directory = within(self.directory(spec))?;
                WorkingCopy::around(&directory, self.watches.scratch(), cancelled)?
            }
        };
        let watch = copy.map(|copy| self.watches.begin(copy, Arc::clone(locks)));
        // The first of two that come at once is as good as the second.
        let _first = self.watch.set(watch);
        Ok(())
    }

    /// Whether [`Self::watch`] was called.
    pub(crate) fn is_watched(&self) -> bool {
        self.watch.get().is_some()
    }

    fn watched(&self) -> Option<&Watch> {
        self.watch.get()?.as_deref()
    }

    /// What was changed without a lock.
    ///
    /// # Errors
    /// Why that is not known, for people.
    pub(crate) fn strays(&self, cancelled: &dyn Fn() -> bool) -> Result<Vec<PathBuf>, String> {
        self.watched().map_or(Ok(Vec::new()), |watch| watch.strays(self.watches.scratch(), cancelled))
    }

    /// What the attempt is told of a snapshot that was just taken, if anything strays that it was not
    /// told of before.
    pub(crate) fn warning(&self, files: &Files, cancelled: &dyn Fn() -> bool) -> Option<String> {
        match self.watched()?.news(&files.commit, self.watches.scratch(), cancelled) {
            Ok(strays) => Some(strays::lines(&strays)).filter(|lines| !lines.is_empty()),
            Err(error) => {
                log::warn!("{} cannot be compared with the locks of its attempt: {error}", files.reference);
                None
            }
        }
    }

    /// The attempt is about to give a lock back: what it has changed under it may stay.
    ///
    /// # Errors
    /// Why that is not known, for people.
    pub(crate) fn settle(&self, lock: LockId, cancelled: &dyn Fn() -> bool) -> Result<(), String> {
        self.watched().map_or(Ok(()), |watch| watch.settle(lock, self.watches.scratch(), cancelled))
    }

    /// The task is done: the worktree goes, if nothing is lost with it.
    pub(crate) fn close(&self) {
        let Some(workspace) = self.workspace.lock().take() else { return };
        tell(workspace.close(&|| false));
    }
}

/// That directory, or the worker's own.
fn within(directory: Option<&Path>) -> Result<PathBuf, String> {
    match directory {
        Some(directory) => Ok(directory.to_owned()),
        None => std::env::current_dir().map_err(|error| error.to_string()),
    }
}

/// Says what became of a worktree.
pub(crate) fn tell(closed: Result<Closed, String>) {
    match closed {
        Ok(Closed::Removed) => {}
        Ok(Closed::Kept { reason }) => log::info!("a worktree is kept: {reason}"),
        Err(error) => log::warn!("a worktree is kept: {error}"),
    }
}
