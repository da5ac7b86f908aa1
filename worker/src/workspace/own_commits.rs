//! Which commits of a working copy were made in it.
//!
//! What a remote has was fetched, and is others', unless the log of HEAD says that it was made here and
//! pushed since. What git writes there is known by its words; a commit that came by unknown ones counts
//! as made here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::git::Git;
use super::listing::listed;

/// Commits made here that a remote has, up to which they are looked at one by one.
const PUSHED: usize = 1_000;

/// The files that commits between two were made to change here; none where that cannot be told.
pub(super) fn files(
    git: &Git<'_>,
    base: &str,
    commit: &str,
    scratch: &Path,
) -> Result<Option<BTreeSet<PathBuf>>, String> {
    let not_base = format!("^{base}");
    let list = |args: &[&str]| {
        let call = git.call(["log", "-z", "--ignore-submodules=none"].iter().chain(args));
        listed(scratch, 0, |file| call.output(file).run())
    };
    // Of a merge, only what it changed itself.
    let names = ["--format=", "--name-only", "--no-renames", "-c"];
    let mut files = list(&[&names[..], &[commit, &not_base, "--not", "--remotes"]].concat())?;
    let pushed: Vec<String> = {
        let between = list(&["--format=%H", commit, &not_base])?;
        let made = list(&["--walk-reflogs", "--format=%H %gs", "HEAD", "--"])?;
        made.iter()
            .filter_map(|entry| made_here(entry))
            .filter(|id| between.contains(Path::new(id)))
            .collect()
    };
    if pushed.len() > PUSHED {
        return Ok(None);
    }
    if !pushed.is_empty() {
        let pushed: Vec<&str> = pushed.iter().map(String::as_str).collect();
        files.extend(list(&[&["--no-walk"], &names[..], &pushed].concat())?);
    }
    Ok(Some(files))
}

/// The commit of an entry of HEAD's log, if it was made here.
fn made_here(entry: &Path) -> Option<String> {
    let entry = entry.to_string_lossy();
    let (id, message) = entry.split_once(' ').unwrap_or((&entry, ""));
    let (action, what) = message.split_once(": ").unwrap_or((message, ""));
    let ends = |ends: &[&str]| ends.iter().any(|end| action.ends_with(end));
    let begins = |begins: &[&str]| begins.iter().any(|begin| action.starts_with(begin));
    let moves = begins(&["checkout", "reset", "clone", "branch"])
        || ends(&["(start)", "(finish)", "(abort)", "finished"])
        || what == "Fast-forward"
        || what == "fast-forward"
        // So did git say it before it named the steps of a rebase.
        || (begins(&["rebase", "pull"]) && !action.ends_with(')') && what.starts_with("checkout "));
    (!moves).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_head_makes_nothing() {
        for (message, is_made) in [
            ("commit: checkout of a book", true),
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
