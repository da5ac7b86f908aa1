//! What the next commit changes.

use std::collections::HashSet;
use std::fs;
use std::io;

use super::change::Change;
use super::git::{Git, names_in};
use crate::error::Error;
use crate::working_copy::WorkingCopy;

/// The changes of the next commit.
#[derive(Debug)]
pub(crate) struct Staged {
    /// Every file that is added, changed or taken away; of a rename both. Of a merge those that differ
    /// from all of its parents: what comes from one of them has been checked there.
    pub(crate) changes: Vec<Change>,
    /// Whether it is a merge.
    pub(crate) is_merge: bool,
}

/// Looks at the index that git has named to its hook.
///
/// # Errors
/// When git does not say.
pub(crate) fn staged(git: &Git, copy: &WorkingCopy) -> Result<Staged, Error> {
    let merged = merged(copy)?;
    let mut names = against(git, None)?;
    for parent in &merged {
        let other: HashSet<Vec<u8>> = against(git, Some(parent))?.into_iter().collect();
        names.retain(|name| other.contains(name));
    }
    let changes = names.iter().map(|name| Change::of(name)).collect();
    Ok(Staged { changes, is_merge: !merged.is_empty() })
}

/// What differs between the index and a commit, by default the newest one.
fn against(git: &Git, commit: Option<&String>) -> Result<Vec<Vec<u8>>, Error> {
    let mut words =
        vec!["diff", "--cached", "--name-only", "-z", "--no-renames", "--no-ext-diff", "--no-relative"];
    words.push("--ignore-submodules=none");
    words.extend(commit.map(String::as_str));
    words.push("--");
    Ok(names_in(&git.run(&words)?).map(<[u8]>::to_vec).collect())
}

/// The commits that are being merged into the newest one.
fn merged(copy: &WorkingCopy) -> Result<Vec<String>, Error> {
    let path = copy.git_dir.join("MERGE_HEAD");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let ids = text.lines().map(str::trim).filter(|line| !line.is_empty());
            ids.map(|id| if is_id(id) { Ok(id.to_owned()) } else { Err(wrong(&path)) }).collect()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io(format!("cannot read {}", path.display()), error)),
    }
}

fn wrong(path: &std::path::Path) -> Error {
    Error::Usage(format!("{} has something else than the names of commits", path.display()))
}

/// Whether a text is the name of an object: a hash in hexadecimal digits.
pub(crate) fn is_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a name of an object says that there is none.
pub(crate) fn is_nothing(id: &str) -> bool {
    is_id(id) && id.bytes().all(|byte| byte == b'0')
}
