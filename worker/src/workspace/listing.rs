//! Lists of paths that git prints, of any length.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::git::{Failure, Output};

/// The paths that a command prints, each with a NUL behind it and `skip` bytes before it.
pub(super) fn listed(
    scratch: &Path,
    skip: usize,
    run: impl FnOnce(File) -> Result<Output, Failure>,
) -> Result<BTreeSet<PathBuf>, String> {
    let failed = |error: io::Error| format!("{}: {error}", scratch.display());
    let mut list = tempfile::tempfile_in(scratch).map_err(failed)?;
    run(list.try_clone().map_err(failed)?)?;
    list.rewind().map_err(failed)?;
    let path = |entry: io::Result<Vec<u8>>| {
        let mut path = entry?;
        path.drain(..skip.min(path.len()));
        // A repository within the working copy is shown as a directory.
        path.pop_if(|last| *last == b'/');
        Ok(PathBuf::from(OsString::from_vec(path)))
    };
    BufReader::new(list).split(0).map(path).collect::<io::Result<_>>().map_err(failed)
}
