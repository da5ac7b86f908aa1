//! Which repository a working copy is of, so that all its copies are known as one.

use std::fmt::Write;
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
    if !is_local(origin) {
        return Ok(Repository::new(origin).ok());
    }
    // A relative one begins at the first of all worktrees, so that they agree.
    let common = common(&git.elsewhere(root), root)?;
    let home = common.parent().filter(|_| common.ends_with(".git")).unwrap_or(root);
    let path = home.join(origin);
    Ok(Repository::new(&file_url(&fs::canonicalize(&path).unwrap_or(path))).ok())
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

/// Whether git takes an address for a path of this machine.
fn is_local(origin: &str) -> bool {
    match (origin.find(':'), origin.find('/')) {
        (Some(colon), Some(slash)) => slash < colon,
        (colon, _) => colon.is_none(),
    }
}

/// A path as an address.
fn file_url(path: &Path) -> String {
    let mut url = "file://".to_owned();
    for character in path.to_string_lossy().chars() {
        if character.is_whitespace() || character.is_control() || "\\?#%".contains(character) {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                // A text takes everything.
                let _written = write!(url, "%{byte:02X}");
            }
        } else {
            url.push(character);
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_told_from_an_address_as_git_does() {
        for local in ["/srv/app", "../app", "app", "./a:b"] {
            assert!(is_local(local), "{local}");
        }
        for address in ["https://h/a", "git@h:a/b", "h:a", "file:///srv/a"] {
            assert!(!is_local(address), "{address}");
        }
        assert_eq!(file_url(Path::new("/srv/my app#1")), "file:///srv/my%20app%231");
    }
}
