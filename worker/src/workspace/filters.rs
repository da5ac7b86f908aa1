//! Programs that turn files into what git keeps, and back: git-lfs, git-crypt and their like.
//!
//! Where such a program is missing, git mostly goes on with the file as it is. A snapshot must not:
//! it would hold, and push, what the program was to keep out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, Write};
use std::path::Path;

use super::git::{Git, Output};
use super::scratch::Scratch;

/// How git marks the entry of another repository.
const GITLINK: &[u8] = b"160000";

/// Fails when git went on although a filter had failed.
pub(super) fn must_have_worked(output: &Output) -> Result<(), String> {
    let failed = |line: &&str| line.contains("external filter '") && line.contains("failed");
    match output.stderr.lines().find(failed) {
        None => Ok(()),
        Some(line) => Err(format!("a filter of this repository does not work on this worker: {line}")),
    }
}

/// What a snapshot would change in its parent.
pub(super) struct Changes {
    /// Repositories within the worktree that are new or have moved.
    pub(super) repositories: BTreeSet<String>,
}

impl Changes {
    /// Looks at them, and fails when one of the files must not be kept as it is.
    pub(super) fn check(git: &Git<'_>, git_dir: &Path, parent: &str, tree: &str) -> Result<Self, String> {
        let (listing, names) = (Scratch::new(git_dir), Scratch::new(git_dir));
        let mut list = listing.create()?;
        let diff = ["diff-tree", "-r", "-z", "--raw", "--no-renames", parent, tree];
        git.call(diff).output(share(&list)?).run()?;
        let names = names.create()?;
        let (repositories, any) = sort(&mut list, &names).map_err(|error| format!("the changes: {error}"))?;
        if any {
            let ask = ["check-attr", "-z", "--stdin", "filter"];
            git.call(ask).input(names).output(share(&list)?).run()?;
            let filters = filters(&mut list).map_err(|error| format!("the filters: {error}"))?;
            for (filter, path) in &filters {
                must_be_there(git, filter, path)?;
            }
        }
        Ok(Self { repositories })
    }
}

fn share(file: &File) -> Result<File, String> {
    file.try_clone().map_err(|error| error.to_string())
}

/// Splits the changes into repositories and, written to `names`, files. Whether there are files.
fn sort(list: &mut File, names: &File) -> std::io::Result<(BTreeSet<String>, bool)> {
    list.rewind()?;
    let mut repositories = BTreeSet::new();
    let mut any = false;
    let mut names = BufWriter::new(names);
    let mut fields = BufReader::new(list).split(0);
    // `:old mode, new mode, old object, new object, status`, then the path.
    while let (Some(what), Some(path)) = (fields.next().transpose()?, fields.next().transpose()?) {
        let mut what = what.split(|byte| *byte == b' ').skip(1);
        let mode = what.next().unwrap_or_default();
        if mode == GITLINK {
            repositories.insert(String::from_utf8_lossy(&path).into_owned());
        } else if mode != b"000000" {
            names.write_all(&path)?;
            names.write_all(&[0])?;
            any = true;
        }
    }
    names.flush()?;
    Ok((repositories, any))
}

/// The filters of the files, each with one file of it.
fn filters(list: &mut File) -> std::io::Result<BTreeMap<String, String>> {
    list.rewind()?;
    let mut found = BTreeMap::new();
    let mut fields = BufReader::new(list).split(0);
    let mut next = || fields.next().transpose();
    // The path, the attribute, its value.
    while let (Some(path), Some(_), Some(value)) = (next()?, next()?, next()?) {
        if ![b"unspecified".as_slice(), b"unset", b"set"].contains(&value.as_slice()) {
            let value = String::from_utf8_lossy(&value).into_owned();
            found.entry(value).or_insert_with(|| String::from_utf8_lossy(&path).into_owned());
        }
    }
    Ok(found)
}

/// Git takes a file as it is when its filter is not configured. That is right for filters that make
/// files prettier, and wrong for those that keep their content elsewhere or secret.
fn must_be_there(git: &Git<'_>, filter: &str, path: &str) -> Result<(), String> {
    if !["lfs", "annex"].contains(&filter) && !filter.contains("crypt") {
        return Ok(());
    }
    for program in ["clean", "process"] {
        if git.ask(["config", "--get", &format!("filter.{filter}.{program}")])?.is_some() {
            return Ok(());
        }
    }
    Err(format!(
        "'{path}' needs the filter '{filter}', which is not set up on this worker; install its program \
         and configure it (for LFS: 'git lfs install')"
    ))
}
