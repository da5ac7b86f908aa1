//! Which repository a working copy is of, so that all its copies are known as one.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use agentflow_core::lock::Repository;
use serde::Deserialize;

use super::git::Git;
use super::repository::common;

/// The file that names it, from the root.
const MARKER: &str = ".agentflow/repository.toml";

/// Bytes that are read of it.
const MARKER_BYTES: u64 = 64 << 10;

/// What of the marker concerns a worker.
#[derive(Default, Deserialize)]
struct Marker {
    name: Option<Repository>,
}

/// By its marker, else by its origin. None where neither names one.
pub(super) fn repository(git: &Git<'_>, root: &Path) -> Result<Option<Repository>, String> {
    let marker = root.join(MARKER);
    let Marker { name } = read(&marker).map_err(|error| format!("{}: {error}", marker.display()))?;
    if name.is_some() {
        return Ok(name);
    }
    // Of several, git fetches from the first.
    let origins = git.ask(["config", "--get-all", "remote.origin.url"])?.unwrap_or_default();
    let Some(origin) = origins.lines().next() else { return Ok(None) };
    if !Repository::is_local(origin) {
        return Ok(Repository::new(origin).ok());
    }
    // A relative one begins at the first of all worktrees, so that they agree.
    let common = common(&git.elsewhere(root), root)?;
    let home = common.parent().filter(|_| common.ends_with(".git")).unwrap_or(root);
    let path = home.join(origin);
    Ok(Repository::at(&fs::canonicalize(&path).unwrap_or(path).to_string_lossy()).ok())
}

fn read(marker: &Path) -> io::Result<Marker> {
    let mut text = String::new();
    // A pipe in the file's place must not hold this thread.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    match File::options().read(true).custom_flags(flags).open(marker) {
        Ok(file) => file.take(MARKER_BYTES).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Marker::default()),
        Err(error) => return Err(error),
    };
    toml::from_str(&text).map_err(io::Error::other)
}
