//! Whether an attempt changes only what it has locked.
//!
//! ```text
//! begin of the attempt, or its first lock ──► Watch: what the working copy is like
//! a checkpoint in its own worktree ────────► what strays is told to the attempt
//! a lock is given back ────────────────────► what was changed under it may stay as it is
//! end of the attempt ──────────────────────► what strays makes it fail; nothing is reverted
//! ```
//!
//! Only attempts with locks are watched. In a worktree of its own, all that the task has changed since that
//! was made is judged. In a working copy that several share only what has changed since the attempt began
//! can be, and not who did it: a change of somebody else counts as the attempt's, unless it is under a lock
//! that another attempt of this worker holds or held meanwhile in the same working copy.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use agentflow_core::limits::ERROR_BYTES;
use agentflow_core::lock::LockId;

use crate::guarded::Guarded;
use crate::locks::Locks;
use crate::workspace::{Stamp, WorkingCopy};

/// Room for what an error says beside the names of files.
const REST_BYTES: usize = 256;

/// All attempts of this worker that are watched.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    /// Where files may be made for a moment.
    scratch: PathBuf,
    shared: Guarded<Vec<Weak<Watch>>>,
}

/// One attempt that is watched.
#[derive(Debug)]
pub(crate) struct Watch {
    copy: WorkingCopy,
    locks: Arc<Locks>,
    /// Those of others that work in the same copy, or have meanwhile.
    others: Guarded<Vec<Arc<Locks>>>,
    /// What was changed under locks that were given back, as it was then.
    settled: Guarded<BTreeMap<PathBuf, Option<Stamp>>>,
    told: Guarded<BTreeSet<PathBuf>>,
}

impl Watches {
    pub(crate) fn new(scratch: PathBuf) -> Self {
        Self { scratch, shared: Guarded::default() }
    }

    pub(crate) fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Begins to watch what an attempt does there.
    pub(crate) fn begin(&self, copy: WorkingCopy, locks: Arc<Locks>) -> Arc<Watch> {
        let watch = Arc::new(Watch {
            copy,
            locks,
            others: Guarded::default(),
            settled: Guarded::default(),
            told: Guarded::default(),
        });
        if watch.copy.is_shared() {
            let mut shared = self.shared.lock();
            shared.retain(|other| other.strong_count() > 0);
            for other in shared.iter().filter_map(Weak::upgrade) {
                // It may be the same attempt, whose first two questions came at once.
                let is_other = !Arc::ptr_eq(&other.locks, &watch.locks);
                if is_other && other.copy.root() == watch.copy.root() {
                    other.others.lock().push(Arc::clone(&watch.locks));
                    watch.others.lock().push(Arc::clone(&other.locks));
                }
            }
            shared.push(Arc::downgrade(&watch));
        }
        watch
    }
}

impl Watch {
    /// What was changed and may not have been, in the order of the paths.
    pub(crate) fn strays(
        &self,
        scratch: &Path,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<PathBuf>, String> {
        let changed = self.copy.changed(scratch, cancelled)?;
        let repository = self.copy.repository();
        let own = self.locks.cover(repository);
        let others: Vec<_> = self.others.lock().iter().map(|locks| locks.cover_ever(repository)).collect();
        let settled = self.settled.lock();
        let may = |path: &PathBuf| {
            own.has(path)
                || others.iter().any(|other| other.has(path))
                || settled.get(path).is_some_and(|stamp| *stamp == self.copy.stamp(path))
        };
        Ok(changed.into_iter().filter(|path| !may(path)).collect())
    }

    /// What strays in a snapshot of the task's own worktree, and was not told before.
    pub(crate) fn news(
        &self,
        commit: &str,
        scratch: &Path,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<PathBuf>, String> {
        let changed = self.copy.changed_in(commit, scratch, cancelled)?;
        let own = self.locks.cover(self.copy.repository());
        let settled = self.settled.lock();
        let mut told = self.told.lock();
        let strays = changed.into_iter().filter(|path| !own.has(path) && !settled.contains_key(path));
        Ok(strays.filter(|path| told.insert(path.clone())).collect())
    }

    /// What was changed under a lock that is about to be given back may stay as it is now.
    pub(crate) fn settle(
        &self,
        lock: LockId,
        scratch: &Path,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), String> {
        let cover = self.locks.cover_of(lock, self.copy.repository());
        let changed = self.copy.changed(scratch, cancelled)?;
        let changed = changed.into_iter().filter(|path| cover.has(path));
        self.settled.lock().extend(changed.map(|path| {
            let stamp = self.copy.stamp(&path);
            (path, stamp)
        }));
        Ok(())
    }
}

/// What an attempt's output says of its strays: a line for each.
pub(crate) fn lines(strays: &[PathBuf]) -> String {
    strays.iter().fold(String::new(), |mut text, path| {
        // A text takes everything.
        let _written = writeln!(text, "agentflow: changed without a lock for writing: {}", quoted(path));
        text
    })
}

/// Why the result of an attempt with strays is refused.
pub(crate) fn refusal(strays: &[PathBuf]) -> String {
    let files = if strays.len() == 1 { "1 file".to_owned() } else { format!("{} files", strays.len()) };
    let mut text = format!("the result is refused: {files} changed without a lock for writing: ");
    for (at, path) in strays.iter().enumerate() {
        let name = quoted(path);
        if text.len() + name.len() > ERROR_BYTES - REST_BYTES {
            // A text takes everything.
            let _written = write!(text, "and {} more, which its output names", strays.len() - at);
            break;
        }
        text.push_str(&name);
        text.push_str(if at + 1 == strays.len() { "" } else { ", " });
    }
    text.push_str("; nothing was reverted: lock what is to be changed, or undo it");
    text
}

/// A name as it can stand in a line.
fn quoted(path: &Path) -> String {
    format!("{:?}", path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_as_many_as_it_can_hold() {
        let one = [PathBuf::from("a b\"\n.rs")];
        let text = refusal(&one);
        assert!(
            text.contains("1 file changed without a lock for writing: \"a b\\\"\\n.rs\"; nothing"),
            "{text}"
        );
        assert_eq!(lines(&one), "agentflow: changed without a lock for writing: \"a b\\\"\\n.rs\"\n");
        let many: Vec<PathBuf> = (0..10_000).map(|n| PathBuf::from(format!("src/{n:05}.rs"))).collect();
        let text = refusal(&many);
        assert!(text.len() <= ERROR_BYTES, "{}", text.len());
        let named = text.matches(".rs").count();
        assert!(
            named > 400 && text.contains(&format!(", and {} more, which its output names;", 10_000 - named)),
            "{text}"
        );
        assert_eq!(lines(&many).lines().count(), 10_000);
    }
}
