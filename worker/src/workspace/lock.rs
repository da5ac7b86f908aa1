//! One at a time makes a worktree in a repository: git reads what it has of all worktrees while it makes
//! another, and fails when one of them is half made.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use super::git::Git;

/// The file that is locked, in the directory that all worktrees share.
const NAME: &str = "agentflow.lock";

/// How long others may take. No files are written meanwhile, so that it is milliseconds for each.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// Waits for the lock; it is held until the file is dropped.
pub(super) fn take(git: &Git<'_>, common: &Path) -> Result<File, String> {
    let path = common.join(NAME);
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
    let until = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) if Instant::now() >= until => {
                return Err(format!("{}: another worker holds it for too long", path.display()));
            }
            Err(TryLockError::WouldBlock) => git.pause(PAUSE)?,
        }
    }
}
