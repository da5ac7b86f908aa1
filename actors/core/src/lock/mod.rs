//! File locks: who may change which files of a repository, and until when.
//!
//! A [`Repository`] has one `LockSpace`, which alone decides. A grant is for all paths that
//! were asked for or for none; it carries a [`LockFence`], which rises strictly within its repository, so
//! that what was done under a lock that is lost can be told from what was done under one that is held.
//! This module knows names, overlap and order; tasks, clocks and rows are the kernel's.

pub mod cycle;
pub(crate) mod index;
mod matching;
mod path;
mod repository;
pub(crate) mod space;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use path::{LockPath, PathError};
pub use repository::{Repository, RepositoryError};

use crate::ids::TaskId;
use crate::limits;

/// The number of a grant within its repository: a later grant has a larger one, across restarts too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default, Debug)]
#[serde(transparent)]
pub struct LockFence(pub u64);

impl fmt::Display for LockFence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a lock: nobody can guess it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockId(pub [u8; 16]);

impl fmt::Display for LockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LockId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "the id of a lock has 32 hexadecimal digits";
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong);
        }
        let mut id = [0; 16];
        for (at, byte) in id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| wrong)?;
        }
        Ok(Self(id))
    }
}

impl Serialize for LockId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LockId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What may be done under a lock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockMode {
    /// Reading: others may read too, nobody writes.
    Read,
    /// Writing: nobody else has a lock there.
    #[default]
    Write,
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// One path with what may be done there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PathLock {
    /// Where.
    pub path: LockPath,
    /// What.
    #[serde(default)]
    pub mode: LockMode,
}

/// How long a task's lock is held.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockUntil {
    /// Until the attempt ends, however it does.
    #[default]
    Attempt,
    /// If the attempt ends well, until its change is merged: until somebody releases the lock, or
    /// [`crate::limits::MERGE_MS`] have passed.
    Merged,
}

/// Who holds a lock.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LockOwner {
    /// A task, with all its attempts: its own locks never keep it from another one.
    Task(TaskId),
    /// A person or a program, by the name that it gave. Two locks of one name exclude each other, for
    /// they may be held by two shells.
    Named(Arc<str>),
}

impl LockOwner {
    /// The task, if it is one.
    #[must_use]
    pub fn task(&self) -> Option<TaskId> {
        match self {
            Self::Task(task) => Some(*task),
            Self::Named(_) => None,
        }
    }
}

impl fmt::Display for LockOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(task) => write!(f, "task:{task}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// Why paths cannot be one request. Numbers are positions in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathsError {
    /// There are so many patterns, more than [`limits::LOCK_PATTERNS`].
    Patterns(usize),
    /// The second overlaps the first: what is asked for twice is not asked for clearly.
    Overlap(usize, usize),
}

/// Checks that paths can be one request.
///
/// # Errors
/// When two of them may name the same file, or too many are patterns.
pub fn check_paths(paths: &[PathLock]) -> Result<(), PathsError> {
    let patterns = paths.iter().filter(|lock| lock.path.is_costly()).count();
    if patterns > limits::LOCK_PATTERNS {
        return Err(PathsError::Patterns(patterns));
    }
    let mut index = index::PathIndex::default();
    for (at, lock) in paths.iter().enumerate() {
        let mut other = None;
        index.overlapping(&lock.path, |found: usize, _| {
            other = Some(found);
            std::ops::ControlFlow::Break(())
        });
        if let Some(other) = other {
            return Err(PathsError::Overlap(other, at));
        }
        index.insert(lock.path.clone(), at);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back() {
        let id = LockId([0xa5; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "a5", "é5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a", "+5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5"] {
            assert!(text.parse::<LockId>().is_err(), "{text}");
        }
    }

    #[test]
    fn two_paths_of_one_request_that_overlap_are_found() {
        let lock =
            |text: &str| PathLock { path: LockPath::new(text).expect("a path"), mode: LockMode::Write };
        assert_eq!(check_paths(&[lock("a"), lock("b/**"), lock("c")]), Ok(()));
        assert_eq!(check_paths(&[lock("a"), lock("b/**"), lock("b/c")]), Err(PathsError::Overlap(1, 2)));
        assert_eq!(check_paths(&[lock("a"), lock("a")]), Err(PathsError::Overlap(0, 1)));
    }

    #[test]
    fn directories_may_be_many_and_patterns_few() {
        let locks = |form: &str| -> Vec<PathLock> {
            let path = |at: usize| LockPath::new(&form.replace('N', &at.to_string())).expect("a path");
            (0..=limits::LOCK_PATTERNS).map(|at| PathLock { path: path(at), mode: LockMode::Write }).collect()
        };
        assert_eq!(check_paths(&locks("dN/**")), Ok(()));
        assert_eq!(check_paths(&locks("dN/*.rs")), Err(PathsError::Patterns(limits::LOCK_PATTERNS + 1)));
    }
}
