//! Where the files of a tool call lie.

use std::path::{Component, Path, PathBuf};

use super::change::Change;
use crate::error::Error;
use crate::working_copy::{PathFault, WorkingCopy};

/// What a file is to a working copy.
#[derive(Debug)]
pub(crate) enum Found {
    /// One of its files.
    Here(Change),
    /// One of another working copy that lies within it.
    Within(Box<WorkingCopy>, Change),
    /// None of its files.
    Outside,
    /// One of its names, and not one of its files: a symbolic link leads out.
    LeadsOut(String),
}

/// Looks for a file as it is seen from a directory.
///
/// # Errors
/// When it cannot be seen what is there.
pub(crate) fn find(copy: &WorkingCopy, directory: &Path, file: &Path) -> Result<Found, Error> {
    let place = directory.join(file);
    match look(copy, &place) {
        Err(PathFault::Nested { at, .. }) => match WorkingCopy::around(&at)? {
            Some(within) => Ok(match look(&within, &place) {
                Ok(change) => Found::Within(Box::new(within), change),
                Err(fault) => faulty(&within, &place, &fault),
            }),
            None => Ok(Found::Outside),
        },
        Ok(change) => Ok(Found::Here(change)),
        Err(fault) => Ok(faulty(copy, &place, &fault)),
    }
}

fn look(copy: &WorkingCopy, place: &Path) -> Result<Change, PathFault> {
    copy.path_from(&copy.root, &real(place)).map(Change::at)
}

/// A path that has a star in its name is one of a file here, not a pattern: whatever a link by such a
/// name leads to counts.
fn real(place: &Path) -> PathBuf {
    if !place.as_os_str().as_encoded_bytes().iter().any(|byte| b"*?".contains(byte)) {
        return place.to_owned();
    }
    let above = || Some(place.parent()?.canonicalize().ok()?.join(place.file_name()?));
    place.canonicalize().ok().or_else(above).unwrap_or_else(|| place.to_owned())
}

fn faulty(copy: &WorkingCopy, place: &Path, fault: &PathFault) -> Found {
    match fault {
        // Among them is what is noted of the locks of a linked worktree, and its hooks.
        PathFault::Outside { to, .. } if is_of_git(copy, to) => {
            let why = "it is git's own: only files of the repository are locked".to_owned();
            Found::Here(Change::beyond(place.as_os_str().as_encoded_bytes(), why))
        }
        PathFault::Outside { by_link: true, .. } => Found::LeadsOut(fault.to_string()),
        PathFault::Outside { .. } if passes_through(&copy.root, place) => Found::LeadsOut(fault.to_string()),
        PathFault::Outside { .. } => Found::Outside,
        _ => {
            let name = place.strip_prefix(&copy.root).unwrap_or(place);
            Found::Here(Change::beyond(name.as_os_str().as_encoded_bytes(), fault.to_string()))
        }
    }
}

/// Whether a path lies in the git directories of a working copy, wherever these are.
fn is_of_git(copy: &WorkingCopy, place: &Path) -> bool {
    let within = |directory: &Path| {
        place.starts_with(directory) || directory.canonicalize().is_ok_and(|real| place.starts_with(real))
    };
    within(&copy.git_dir) || within(&copy.common_dir)
}

/// Whether a directory on the way of a path is that one by another name.
fn passes_through(root: &Path, place: &Path) -> bool {
    let goes_back = place.components().any(|part| part == Component::ParentDir);
    !goes_back && place.ancestors().any(|at| at.canonicalize().is_ok_and(|at| at == root))
}
