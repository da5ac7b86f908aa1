//! Files that one snapshot needs, in the worktree's git directory, where nothing but git looks.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// How their names begin.
const PREFIX: &str = "agentflow.scratch.";

/// A file that is removed in the end, with git's lock of it.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// A name that no other has. There is no file yet.
    pub(super) fn new(git_dir: &Path) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(git_dir.join(format!("{PREFIX}{}.{number}", std::process::id())))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// A new file, to write and to read.
    pub(super) fn create(&self) -> Result<File, String> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&self.0);
        file.map_err(|error| format!("{}: {error}", self.0.display()))
    }

    /// A copy of an index. Its time is that of the original: from it git tells which files may have
    /// changed after they were looked at, and a later one would hide such changes.
    pub(super) fn copy(git_dir: &Path, index: &Path) -> Result<Self, String> {
        let copy = Self::new(git_dir);
        let mut from = match File::open(index) {
            Ok(from) => from,
            // Git makes a new one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(copy),
            Err(error) => return Err(format!("{}: {error}", index.display())),
        };
        let mut to = copy.create()?;
        // Git replaces an index by another file, so that this one is whole.
        let time = from.metadata().and_then(|metadata| metadata.modified());
        let copied = time.and_then(|time| {
            io::copy(&mut from, &mut to)?;
            to.set_modified(time)
        });
        copied.map_err(|error| format!("{}: {error}", index.display()))?;
        Ok(copy)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut lock = self.0.clone().into_os_string();
        lock.push(".lock");
        for path in [self.0.as_path(), Path::new(&lock)] {
            remove(path);
        }
    }
}

/// Removes what a killed worker has left.
pub(super) fn sweep(git_dir: &Path) {
    let Ok(entries) = fs::read_dir(git_dir) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            remove(&entry.path());
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        log::warn!("{} stays behind: {error}", path.display());
    }
}
