//! What has come to `main`, as git tells it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::harness::Failure;

/// What may be nowhere.
pub(super) const STRAY: &str = "STRAY";

/// A commit on `main`.
#[derive(Clone, Debug, Default)]
pub(super) struct Landed {
    pub(super) id: String,
    /// How many it comes from.
    pub(super) parents: usize,
    /// The fences that it names.
    pub(super) fences: Vec<String>,
    /// The files that it changes.
    pub(super) paths: Vec<String>,
    /// The lines that it adds.
    pub(super) adds: Vec<String>,
    /// Lines of its message, its names and its changes that stray.
    pub(super) strays: Vec<String>,
}

/// `main` in the end.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// Every commit after the one with which the race began, the oldest first.
    pub(super) commits: Vec<Landed>,
    /// The lines of every file.
    pub(super) files: BTreeMap<String, Vec<String>>,
    /// Names of commits beside `main`.
    pub(super) others: Vec<String>,
}

/// Reads the origin.
pub(super) fn read(origin: &Path) -> Result<Found, Failure> {
    let git = |words: &[&str]| git(origin, words);
    let ids = git(&["rev-list", "--reverse", "--topo-order", "main"])?;
    let commits = ids.lines().skip(1).map(|id| landed(origin, id)).collect::<Result<_, _>>()?;
    let mut files = BTreeMap::new();
    for name in git(&["ls-tree", "-r", "-z", "--name-only", "main"])?.split_terminator('\0') {
        let text = git(&["show", &format!("main:{name}")])?;
        files.insert(name.to_owned(), text.lines().map(str::to_owned).collect());
    }
    let names = git(&["for-each-ref", "--format=%(refname)"])?;
    let others = names.lines().filter(|name| *name != "refs/heads/main").map(str::to_owned).collect();
    Ok(Found { commits, files, others })
}

fn landed(origin: &Path, id: &str) -> Result<Landed, Failure> {
    let show = |format: &str| git(origin, &["show", "--no-patch", &format!("--format={format}"), id]);
    let diff = |words: &[&str]| {
        git(origin, &[&["diff-tree", "-r", "-m", "--no-renames", "--no-commit-id"], words, &[id]].concat())
    };
    let words = |text: String| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
    let paths: Vec<String> =
        diff(&["--name-only", "-z"])?.split_terminator('\0').map(str::to_owned).collect();
    let patch = diff(&["--patch", "--text"])?;
    let adds = patch.lines().filter_map(|line| line.strip_prefix('+')).map(str::to_owned).collect();
    let text = [show("%B")?, paths.join("\n"), patch].join("\n");
    Ok(Landed {
        id: id.to_owned(),
        parents: words(show("%P")?).len(),
        fences: words(show("%(trailers:key=AgentFlow-Fence,valueonly,separator=%x20)")?),
        paths,
        adds,
        strays: text.lines().filter(|line| line.contains(STRAY)).map(str::to_owned).collect(),
    })
}

/// Git as somebody who has configured nothing; what it prints.
pub(super) fn git(directory: &Path, words: &[&str]) -> Result<String, Failure> {
    let mut command = Command::new("git");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GIT_") {
            command.env_remove(name);
        }
    }
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "User").env(format!("GIT_{who}_EMAIL"), "user@example.org");
    }
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").env("LC_ALL", "C");
    let output = command.current_dir(directory).args(words).output()?;
    if !output.status.success() {
        return Err(format!("git {words:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
