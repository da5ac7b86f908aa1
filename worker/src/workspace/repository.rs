//! What a task's directory lies in: the user's repository.

use std::fs;
use std::path::{Path, PathBuf};

use super::git::Git;

/// The oldest git that knows all the options which are used here.
const OLDEST: (u32, u32) = (2, 30);

/// A repository as seen from a directory in it.
#[derive(Debug)]
pub(super) struct Repository {
    /// Its git directory; all its worktrees share this one.
    pub(super) common: PathBuf,
    /// From the top of the user's checkout to the directory; empty in a bare repository.
    pub(super) prefix: PathBuf,
    /// Where snapshots are pushed to and fetched from.
    pub(super) remote: Option<String>,
}

impl Repository {
    /// Looks what `workdir` lies in.
    pub(super) fn find(git: &Git<'_>, workdir: &Path) -> Result<Self, String> {
        let kind = git
            .text(["rev-parse", "--is-bare-repository", "--is-inside-git-dir", "--is-inside-work-tree"])
            .map_err(|failure| {
                format!("'{}' is in no usable git repository: {failure}", workdir.display())
            })?;
        check_version(git)?;
        let mut kind = kind.lines().map(|line| line == "true");
        let mut next = || kind.next().unwrap_or(false);
        let (is_bare, in_git_dir, in_worktree) = (next(), next(), next());
        if !in_worktree && in_git_dir && !is_bare {
            return Err(format!(
                "'{}' is within the data of git itself; name the checkout",
                workdir.display()
            ));
        }
        let prefix = match in_worktree {
            true => git.call(["rev-parse", "--show-prefix"]).run()?.path(),
            false => PathBuf::new(),
        };
        Ok(Self { common: common(git, workdir)?, prefix, remote: remote(git)? })
    }

    /// The commit that a new worktree begins at.
    pub(super) fn base(git: &Git<'_>, base: Option<&str>) -> Result<String, String> {
        let Some(name) = base else {
            return git.commit("HEAD")?.ok_or_else(|| {
                "the repository has no commit yet at its HEAD; make the first one, or name a base".to_owned()
            });
        };
        if name.is_empty() || name.starts_with('-') || name.chars().any(char::is_control) {
            return Err(format!("the base {name:?} is no name of a commit"));
        }
        git.commit(name)?.ok_or_else(|| {
            format!("the base '{name}' is no commit in the repository of this worker; fetch it there first")
        })
    }
}

/// The git directory that all worktrees of a repository share, without links in its path.
pub(super) fn common(git: &Git<'_>, directory: &Path) -> Result<PathBuf, String> {
    // It may be relative to the directory; before 2.31 git cannot be asked for another form.
    let path = directory.join(git.call(["rev-parse", "--git-common-dir"]).run()?.path());
    fs::canonicalize(&path).map_err(|error| format!("{}: {error}", path.display()))
}

/// `origin`, or the upstream of the branch that is checked out, or the only one.
fn remote(git: &Git<'_>) -> Result<Option<String>, String> {
    let text = git.text(["remote"])?;
    let names: Vec<&str> = text.lines().collect();
    if let Some(origin) = names.iter().find(|name| **name == "origin") {
        return Ok(Some((*origin).to_owned()));
    }
    if let Some(branch) = git.ask(["symbolic-ref", "--quiet", "--short", "HEAD"])?
        && let Some(upstream) = git.ask(["config", "--get", &format!("branch.{branch}.remote")])?
        && names.contains(&upstream.as_str())
    {
        return Ok(Some(upstream));
    }
    Ok(match names.as_slice() {
        [only] => Some((*only).to_owned()),
        _ => None,
    })
}

fn check_version(git: &Git<'_>) -> Result<(), String> {
    let text = git.text(["version"])?;
    let (major, minor) = OLDEST;
    match version(&text) {
        Some(version) if version < OLDEST => {
            Err(format!("the git program of this worker is too old ({text}); it needs {major}.{minor}"))
        }
        _ => Ok(()),
    }
}

/// Reads `git version 2.47.3`, also with more behind it.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("git version ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version("git version 2.47.3"), Some((2, 47)));
        assert_eq!(version("git version 2.39.5 (Apple Git-154)"), Some((2, 39)));
        assert_eq!(version("git version 2.30.1.windows.1"), Some((2, 30)));
        assert_eq!(version("something"), None);
    }
}
