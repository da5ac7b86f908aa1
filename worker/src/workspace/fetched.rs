//! Which changes came into a working copy from others: those of commits that were fetched.
//!
//! A commit was fetched if a remote has it, unless the log of HEAD says that it was made here and pushed
//! since. What git writes there is known by its words; a commit that came by unknown ones counts as made
//! here. What cannot be told counts as made here too.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::git::Git;
use super::listing::listed;

/// What fetched commits mean for what an attempt answers for.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    /// Files that only fetched commits have changed.
    pub(super) theirs: BTreeSet<PathBuf>,
    /// Files that a merge which was made here has not taken as git would have.
    pub(super) undone: BTreeSet<PathBuf>,
}

/// Looks at the commits between two.
pub(super) fn between(git: &Git<'_>, base: &str, commit: &str, scratch: &Path) -> Result<Fetched, String> {
    let not_base = format!("^{base}");
    let log = |args: &[&str]| {
        let call = git.call(["log", "-z", "--no-show-signature"].iter().chain(args));
        listed(scratch, 0, |file| call.output(file).run())
    };
    let between = log(&["--format=%H", commit, &not_base])?;
    let history = log(&["--walk-reflogs", "--format=%H %gs", "HEAD", "--"])?;
    if between.is_empty() || history.is_empty() {
        return Ok(Fetched::default());
    }
    let mut own = log(&["--format=%H", commit, &not_base, "--not", "--remotes"])?;
    own.extend(history.iter().filter_map(|entry| made_here(entry)).filter(|id| between.contains(id)));
    let fetched: BTreeSet<PathBuf> = between.difference(&own).cloned().collect();
    if fetched.is_empty() {
        return Ok(Fetched::default());
    }
    let changed_by = |commits: &BTreeSet<PathBuf>, command: &[&str]| {
        let call = git.call(command).input(lines(commits, scratch)?);
        listed(scratch, 0, |file| call.output(file).run())
    };
    let names = ["--name-only", "--no-renames", "--ignore-submodules=none", "-z"];
    // Of a merge, what differs from all that was merged.
    let of_each = [&["diff-tree", "--stdin", "--no-commit-id", "--root", "-r", "-c"], &names[..]].concat();
    let mut theirs = changed_by(&fetched, &of_each)?;
    if own.is_empty() {
        return Ok(Fetched { theirs, undone: BTreeSet::new() });
    }
    let merges =
        ["log", "--stdin", "--no-walk", "--merges", "--no-show-signature", "--format=", "--remerge-diff"];
    let undone = changed_by(&own, &[&merges, &names[..]].concat())?;
    let kept = changed_by(&own, &of_each)?;
    theirs.retain(|file| !kept.contains(file) && !undone.contains(file));
    Ok(Fetched { theirs, undone })
}

/// Ids for the input of a command.
fn lines(commits: &BTreeSet<PathBuf>, scratch: &Path) -> Result<File, String> {
    let write = || {
        let mut file = tempfile::tempfile_in(scratch)?;
        for commit in commits {
            writeln!(file, "{}", commit.display())?;
        }
        Ok(file)
    };
    write().map_err(|error: io::Error| format!("{}: {error}", scratch.display()))
}

/// The commit of an entry of HEAD's log, if it was made here.
fn made_here(entry: &Path) -> Option<PathBuf> {
    let entry = entry.to_string_lossy();
    let (id, message) = entry.split_once(' ').unwrap_or((&entry, ""));
    let (action, what) = message.split_once(": ").unwrap_or((message, ""));
    let begins = |begins: &[&str]| begins.iter().any(|begin| action.starts_with(begin));
    let ends = |ends: &[&str]| ends.iter().any(|end| action.ends_with(end));
    let moves = begins(&["checkout", "reset", "clone", "branch"])
        || (begins(&["rebase", "pull"]) && ends(&["(start)", "(finish)", "(abort)", "finished"]))
        || (begins(&["merge", "pull"]) && what == "Fast-forward")
        // So did git say it before it named the steps of a rebase.
        || (begins(&["rebase", "pull"]) && !action.ends_with(')') && what.starts_with("checkout "));
    (!moves).then(|| PathBuf::from(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_head_makes_nothing() {
        for (message, is_made) in [
            ("commit: checkout of a book", true),
            ("commit: Fast-forward", true),
            ("commit (amend): mine", true),
            ("commit (initial): mine", true),
            ("rebase (pick): reset", true),
            ("pull --rebase origin main (pick): mine", true),
            ("cherry-pick: theirs", true),
            ("merge x: Merge made by the 'ort' strategy.", true),
            ("", true),
            ("checkout: moving from main to x", false),
            ("reset: moving to HEAD~1", false),
            ("pull origin main: Fast-forward", false),
            ("merge origin/main: Fast-forward", false),
            ("rebase (start): checkout origin/main", false),
            ("pull --rebase origin main (start): checkout 1234", false),
            ("rebase (finish): returning to refs/heads/main", false),
            ("pull --rebase: checkout 1234", false),
            ("rebase finished: returning to refs/heads/main", false),
        ] {
            let entry = format!("1234 {message}");
            assert_eq!(made_here(Path::new(&entry)).is_some(), is_made, "{message}");
        }
    }
}
