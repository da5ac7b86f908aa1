//! Which repository a working copy is of, and what is set for all of its copies.

use std::path::Path;

use agentflow_core::lock::{Repository, RepositoryError};
use serde::Deserialize;

use super::git::Found;
use super::place::tidy;
use crate::error::Error;

/// The file that is committed, from the root.
const MARKER: &str = ".agentflow/repository.toml";

/// What needs a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// Every change needs a lock of its author's.
    Enforce,
    /// A change may not touch what somebody else has locked.
    #[default]
    Conflicts,
    /// Nothing is checked.
    Off,
}

/// What a hook says when it cannot ask a master.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WithoutMaster {
    /// No. Where every change needs a lock, it always is.
    Deny,
    /// Yes.
    #[default]
    Allow,
}

/// What the marker says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Marker {
    pub(super) name: Option<Repository>,
    pub(super) ignore_case: bool,
    pub(super) mode: Mode,
    pub(super) without_master: WithoutMaster,
}

/// Reads the marker; what it would say by default where there is none.
pub(super) fn read(root: &Path) -> Result<Marker, Error> {
    let path = root.join(MARKER);
    match std::fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text)
            .map_err(|error| Error::Usage(format!("{}: {}", path.display(), error.to_string().trim_end()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Marker::default()),
        Err(error) => Err(Error::io(format!("cannot read {}", path.display()), error)),
    }
}

/// The repository that `origin` names.
pub(super) fn by_origin(found: &Found) -> Result<Repository, Error> {
    let Some(origin) = &found.origin else { return Err(nameless(found, "has no origin")) };
    let repository =
        if Repository::is_local(origin) { at(&home(found).join(origin)) } else { Repository::new(origin) };
    repository.map_err(|error| nameless(found, &format!("has the origin '{origin}': {error}")))
}

/// The one at a path of this machine, which need not be there.
fn at(path: &Path) -> Result<Repository, RepositoryError> {
    let path = path.canonicalize().unwrap_or_else(|_| tidy(path));
    Repository::at(&path.to_string_lossy())
}

/// Where a relative address begins: at the first of all worktrees, so that they agree.
fn home(found: &Found) -> &Path {
    match (found.common_dir.file_name(), found.common_dir.parent()) {
        (Some(name), Some(parent)) if name == ".git" => parent,
        _ => &found.root,
    }
}

/// What can be done for a working copy that does not say which repository it is.
fn nameless(found: &Found, why: &str) -> Error {
    let directory =
        found.root.file_name().map(|name| name.to_string_lossy().replace(char::is_whitespace, "-"));
    let name = directory.filter(|name| Repository::new(name).is_ok()).unwrap_or_else(|| "app".to_owned());
    Error::Usage(format!(
        "the working copy {} {why}; so that all its copies are known as one repository, commit the file \
         {MARKER} with this line:\nname = \"{name}\"",
        found.root.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_not_there_names_a_repository_too() {
        let name = |path: &str| at(Path::new(path)).map(|repository| repository.to_string());
        assert_eq!(name("/no/where/../here/my app#1"), Ok("localhost/no/here/my%20app%231".to_owned()));
        assert_eq!(name("/no/app.git"), Ok("localhost/no/app".to_owned()));
    }

    #[test]
    fn what_a_marker_does_not_know_is_said() {
        let read = |text: &str| toml::from_str::<Marker>(text);
        let marker =
            read("name = 'Example.com/team/app.git'\nmode = 'conflicts'\nwithout_master = 'allow'\n");
        let marker = marker.expect("a marker");
        assert_eq!(marker.name, Repository::new("example.com/team/app").ok());
        assert_eq!((marker.mode, marker.without_master), (Mode::Conflicts, WithoutMaster::Allow));
        let empty = read("").expect("a marker");
        assert_eq!((empty.mode, empty.without_master), (Mode::Conflicts, WithoutMaster::Allow));
        for wrong in ["mod = 'off'", "mode = 'never'", "name = '/srv/app'", "name = 5"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
