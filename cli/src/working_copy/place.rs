//! What a path that somebody typed is called in the repository.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use agentflow_core::lock::{LockPath, PathError};

use super::WorkingCopy;
use crate::error::Error;

/// Links that are followed on the way of one path, as many as Linux does.
const LINKS: usize = 40;

/// Why a path has no name in the repository.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PathFault {
    /// It is outside of the working copy.
    #[error("'{typed}' {} {}, which is outside of the working copy {}", if *.by_link { "leads to" } else { "is" }, .to.display(), .root.display())]
    Outside {
        /// As it was typed.
        typed: String,
        /// Where it leads.
        to: PathBuf,
        /// Whether a symbolic link in the working copy leads there.
        by_link: bool,
        /// The working copy.
        root: PathBuf,
    },
    /// It is git's own.
    #[error("'{0}' is within .git, which is git's own: only files of the repository are locked")]
    Git(String),
    /// It belongs to another working copy that lies within this one.
    #[error("'{typed}' belongs to another working copy, {}: call this there", .at.display())]
    Nested {
        /// As it was typed.
        typed: String,
        /// The other working copy.
        at: PathBuf,
    },
    /// It is no path of a repository.
    #[error("'{typed}': {why}")]
    Wrong {
        /// As it was typed.
        typed: String,
        /// What is wrong with it.
        why: PathError,
    },
    /// It has no characters.
    #[error("'{0}' is no Unicode; locks are for paths that are")]
    NoText(String),
    /// It cannot be seen where it leads.
    #[error("cannot see where '{typed}' leads: {source}")]
    Hidden {
        /// As it was typed.
        typed: String,
        /// The system's word.
        source: io::Error,
    },
}

impl From<PathFault> for Error {
    fn from(fault: PathFault) -> Self {
        Self::Usage(fault.to_string())
    }
}

impl WorkingCopy {
    /// What a path is called in the repository; relative ones begin at the current directory. It may be a
    /// pattern, and need not be there yet. A directory is all that is below it. Symbolic links are
    /// followed, so that a file has one name.
    ///
    /// # Errors
    /// When it is none of the repository's.
    pub(crate) fn path(&self, typed: &Path) -> Result<LockPath, PathFault> {
        let here = std::env::current_dir()
            .map_err(|source| PathFault::Hidden { typed: typed.display().to_string(), source })?;
        self.path_from(&here, typed)
    }

    /// The same for a path that begins at that directory.
    ///
    /// # Errors
    /// When it is none of the repository's.
    pub(crate) fn path_from(&self, directory: &Path, typed: &Path) -> Result<LockPath, PathFault> {
        let told = || typed.display().to_string();
        let text = typed.to_str().ok_or_else(|| PathFault::NoText(told()))?;
        let wrong = |why| PathFault::Wrong { typed: told(), why };
        if text.is_empty() {
            return Err(wrong(PathError::Empty));
        }
        let (plain, pattern) = split(text);
        let start = directory.join(plain);
        let place = follow(&start).map_err(|source| PathFault::Hidden { typed: told(), source })?;
        let Ok(inner) = place.strip_prefix(&self.root) else {
            let by_link = tidy(&start).starts_with(&self.root);
            return Err(PathFault::Outside { typed: told(), to: place, by_link, root: self.root.clone() });
        };
        let inner = inner.to_str().ok_or_else(|| PathFault::NoText(told()))?;
        let is_directory = pattern.is_empty() && (text.ends_with('/') || place.is_dir());
        let name = match (inner, pattern) {
            ("", "") => "**".to_owned(),
            ("", pattern) => pattern.to_owned(),
            (inner, "") if is_directory => format!("{inner}/**"),
            (inner, "") => inner.to_owned(),
            (inner, pattern) => format!("{inner}/{pattern}"),
        };
        let path = LockPath::new(&name).map_err(wrong)?;
        if path.as_str().split('/').any(|segment| segment.eq_ignore_ascii_case(".git")) {
            return Err(PathFault::Git(told()));
        }
        // A directory that is a working copy itself can be locked here, as a submodule; what is in it not.
        let beyond = if pattern.is_empty() { place.parent().unwrap_or(&place) } else { &place };
        match self.nested(beyond) {
            Some(at) => Err(PathFault::Nested { typed: told(), at }),
            None => Ok(path),
        }
    }

    /// The working copy within this one in which a directory lies.
    fn nested(&self, directory: &Path) -> Option<PathBuf> {
        let within = directory.ancestors().take_while(|at| at.starts_with(&self.root) && **at != self.root);
        within.filter(|at| at.join(".git").symlink_metadata().is_ok()).last().map(Path::to_owned)
    }
}

/// A path in two: before its first segment with a pattern, and from there.
fn split(text: &str) -> (&str, &str) {
    let Some(star) = text.find(['*', '?']) else { return (text, "") };
    let at = text[..star].rfind('/').map_or(0, |slash| slash + 1);
    text.split_at(at)
}

/// Where a path leads when every symbolic link is followed. What is not there leads where it says.
fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut rest: VecDeque<OsString> = path.components().map(|part| part.as_os_str().to_owned()).collect();
    let (mut place, mut links) = (PathBuf::new(), 0);
    while let Some(part) = rest.pop_front() {
        match Path::new(&part).components().next() {
            None | Some(Component::CurDir) => {}
            Some(Component::ParentDir) => drop(place.pop()),
            // The root begins anew.
            Some(Component::RootDir | Component::Prefix(_)) => place.push(part),
            Some(Component::Normal(name)) => {
                place.push(name);
                let Some(target) = link(&place)? else { continue };
                links += 1;
                if links > LINKS {
                    return Err(io::Error::other("its symbolic links lead in a circle"));
                }
                place.pop();
                for part in target.components().rev() {
                    rest.push_front(part.as_os_str().to_owned());
                }
            }
        }
    }
    Ok(place)
}

/// What a symbolic link says; nothing where there is no link.
fn link(path: &Path) -> io::Result<Option<PathBuf>> {
    match path.read_link() {
        Ok(target) => Ok(Some(target)),
        Err(error) => match error.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
            _ => Err(error),
        },
    }
}

/// The path without `.` and `..`, whatever is there.
pub(super) fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(tidy.pop()),
            other => tidy.push(other),
        }
    }
    tidy
}
