//! What git says of a directory.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::error::Error;

/// What git knows of a working copy.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) root: PathBuf,
    pub(super) git_dir: PathBuf,
    pub(super) common_dir: PathBuf,
    /// The address of `origin` as it is written in the configuration.
    pub(super) origin: Option<String>,
    pub(super) ignore_case: bool,
}

/// Asks git for the working copy around a directory.
pub(super) fn look(directory: &Path) -> Result<Option<Found>, Error> {
    // The two run beside each other.
    let places = ["rev-parse", "--path-format=absolute", "--show-toplevel", "--git-dir", "--git-common-dir"];
    let places = start(directory, &places)?;
    let settings =
        start(directory, &["config", "-z", "--get-regexp", r"^(remote\.origin\.url|core\.ignorecase)$"])?;
    let (places, settings) = (end(places)?, end(settings)?);
    if !places.status.success() {
        let said = String::from_utf8_lossy(&places.stderr);
        if said.contains("not a git repository") || said.contains("must be run in a work tree") {
            return Ok(None);
        }
        return Err(Error::Usage(format!(
            "git finds no working copy in {}: {}",
            directory.display(),
            said.trim()
        )));
    }
    let text = text(places.stdout)?;
    let mut lines = text.lines().map(PathBuf::from);
    let (Some(root), Some(git_dir), Some(common_dir), None) =
        (lines.next(), lines.next(), lines.next(), lines.next())
    else {
        return Err(Error::Usage(format!("git answers with paths that cannot be told apart: {text}")));
    };
    // Paths are compared with it after all links on their way were followed.
    let root =
        root.canonicalize().map_err(|error| failed(&format!("cannot enter {}", root.display()), error))?;
    let mut found = Found { root, git_dir, common_dir, origin: None, ignore_case: false };
    // Ends with 1 where neither is set.
    for entry in self::text(settings.stdout)?.split_terminator('\0') {
        let (name, value) = entry.split_once('\n').unwrap_or((entry, "true"));
        match name {
            "core.ignorecase" => found.ignore_case = is_true(value),
            // Of several, git fetches from the first.
            _ => found.origin = found.origin.or_else(|| Some(value.to_owned())),
        }
    }
    Ok(Some(found))
}

/// As git reads it.
fn is_true(value: &str) -> bool {
    ["true", "yes", "on", "1"].iter().any(|yes| value.eq_ignore_ascii_case(yes))
}

fn start(directory: &Path, words: &[&str]) -> Result<Child, Error> {
    let mut command = Command::new("git");
    command.arg("-C").arg(directory).args(words);
    command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Alone it would make every directory the top of a working copy. Git sets it for hooks in linked
    // worktrees, where it is found without.
    if std::env::var_os("GIT_WORK_TREE").is_none() {
        command.env_remove("GIT_DIR");
    }
    command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if directory.exists() => {
            Error::Usage("git is needed for this, and is not in the PATH".to_owned())
        }
        _ => failed("cannot start git", error),
    })
}

fn end(child: Child) -> Result<Output, Error> {
    child.wait_with_output().map_err(|error| failed("git was lost", error))
}

fn text(bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|_| {
        Error::Usage(
            "the path or the origin of this working copy is no Unicode; locks are for those that are"
                .to_owned(),
        )
    })
}

fn failed(what: &str, error: io::Error) -> Error {
    Error::io(what, error)
}
