//! Commits that arrive somewhere: what each changes, and under which grants.

use std::collections::{HashMap, HashSet};

use super::change::Change;
use super::git::Git;
use super::staged::is_id;
use super::trailers::{self, Trailers};
use crate::error::Error;

/// Commits that are looked at together.
pub(crate) const COMMITS: usize = 10_000;

/// A commit.
#[derive(Debug)]
pub(crate) struct Commit {
    /// Its name.
    pub(crate) id: String,
    /// What it says of its grants.
    pub(crate) trailers: Trailers,
    /// What it changes: of a merge what differs from all of its parents.
    pub(crate) changes: Vec<Change>,
}

/// A branch that goes from one commit to another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Step {
    /// Where it was; nothing when it is new.
    pub(crate) from: Option<String>,
    /// Where it will be.
    pub(crate) to: String,
}

/// What a step takes back of what was there before, though no commit on the way says so: a merge that
/// drops the other side's change differs from one of its parents only.
#[derive(Debug)]
pub(crate) struct TakenBack {
    /// The commit in which it is missing.
    pub(crate) to: String,
    /// Which files.
    pub(crate) changes: Vec<Change>,
    /// Under which grants the step changes anything.
    pub(crate) fences: Vec<u64>,
}

/// What arrives with some steps.
#[derive(Debug, Default)]
pub(crate) struct Arriving {
    /// The commits that were not there before, the oldest first.
    pub(crate) commits: Vec<Commit>,
    /// What is taken back.
    pub(crate) taken_back: Vec<TakenBack>,
}

impl Arriving {
    /// What steps bring to where `known` commits are.
    ///
    /// # Errors
    /// When it is too much, or git does not know one of the commits.
    pub(crate) fn with(git: &Git, steps: &[Step], known: &[String]) -> Result<Self, Error> {
        let commits = commits(git, steps, known)?;
        let taken_back: Result<Vec<_>, _> = steps.iter().map(|step| taken_back(git, step)).collect();
        Ok(Self { commits, taken_back: taken_back?.into_iter().flatten().collect() })
    }

    /// Whether nothing arrives that would have to be looked at.
    pub(crate) fn is_empty(&self) -> bool {
        self.commits.is_empty() && self.taken_back.is_empty()
    }

    /// Every file that is changed.
    pub(crate) fn changes(self) -> Vec<Change> {
        let told = self.commits.into_iter().flat_map(|commit| commit.changes);
        told.chain(self.taken_back.into_iter().flat_map(|back| back.changes)).collect()
    }
}

fn commits(git: &Git, steps: &[Step], known: &[String]) -> Result<Vec<Commit>, Error> {
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    let froms = steps.iter().filter_map(|step| step.from.as_ref());
    let mut input = String::new();
    steps.iter().for_each(|step| input.push_str(&format!("{}\n", step.to)));
    froms.chain(known).for_each(|id| input.push_str(&format!("^{id}\n")));
    let most = format!("--max-count={}", COMMITS + 1);
    let format = format!("--format=%H%x00{}%x00", trailers::FORMAT);
    let words = ["rev-list", "--topo-order", "--reverse", &most, &format, "--stdin"];
    let mut commits = listed(&git.feed(&words, input.into_bytes())?)?;
    if commits.len() > COMMITS {
        return Err(Error::Usage(format!(
            "more than {COMMITS} commits are to be looked at: do it in parts, or leave out those that were \
             there before"
        )));
    }
    whole_history(git, &commits)?;
    let ids: Vec<&str> = commits.iter().map(|commit| commit.id.as_str()).collect();
    let mut changes = changes(git, &ids)?;
    for commit in &mut commits {
        commit.changes = changes.remove(&commit.id).unwrap_or_default();
    }
    Ok(commits)
}

/// What a list of commits says, as `rev-list` prints it: `commit ID`, and what the format asks for.
fn listed(bytes: &[u8]) -> Result<Vec<Commit>, Error> {
    let fields: Vec<&[u8]> = bytes.split(|byte| *byte == 0).collect();
    let commit = |pair: &[&[u8]]| {
        let [id, trailers] = pair else { return None };
        let id = String::from_utf8_lossy(id);
        // The last line is ours; git writes another one before it.
        let id = id.lines().last().filter(|id| is_id(id))?.to_owned();
        let trailers = Trailers::read(&String::from_utf8_lossy(trailers));
        Some(Commit { id, trailers, changes: Vec::new() })
    };
    let pairs = fields.len() / 2;
    let read: Option<Vec<Commit>> = fields[..2 * pairs].chunks(2).map(commit).collect();
    read.ok_or_else(|| unreadable("rev-list"))
}

/// What each of these commits changes.
///
/// # Errors
/// When git does not say.
pub(crate) fn changes(git: &Git, ids: &[&str]) -> Result<HashMap<String, Vec<Change>>, Error> {
    let input: String = ids.iter().map(|id| format!("{id}\n")).collect();
    let words =
        ["diff-tree", "--stdin", "-r", "-z", "-c", "--root", "--raw", "--no-renames", "--no-ext-diff"];
    let words = [&words[..], &["--ignore-submodules=none"]].concat();
    let mut changes: HashMap<String, Vec<Change>> = HashMap::new();
    let mut of = None;
    records(&git.feed(&words, input.into_bytes())?, |record| match record {
        Record::Commit(id) => of = Some(id.to_owned()),
        Record::Change(name) => {
            if let Some(id) = &of {
                changes.entry(id.clone()).or_default().push(Change::of(name));
            }
        }
    })?;
    Ok(changes)
}

/// What `diff-tree --raw -z` prints.
enum Record<'a> {
    /// The changes of this commit follow.
    Commit(&'a str),
    /// A file.
    Change(&'a [u8]),
}

/// Reads records one by one. What begins with a colon describes a change, and the next field is the
/// file's name, whatever it looks like.
fn records<'a>(bytes: &'a [u8], mut each: impl FnMut(Record<'a>)) -> Result<(), Error> {
    let mut fields = bytes.split(|byte| *byte == 0);
    while let Some(field) = fields.next() {
        if field.starts_with(b":") {
            each(Record::Change(fields.next().ok_or_else(|| unreadable("diff-tree"))?));
        } else if !field.is_empty() {
            let id = std::str::from_utf8(field).ok().map(str::trim).filter(|id| is_id(id));
            each(Record::Commit(id.ok_or_else(|| unreadable("diff-tree"))?));
        }
    }
    Ok(())
}

/// What a step takes back. All commits on its way are looked at, for one that is known may be brought
/// here by a branch on which it took back nothing.
fn taken_back(git: &Git, step: &Step) -> Result<Option<TakenBack>, Error> {
    let Some(from) = &step.from else { return Ok(None) };
    let bases = git.ask(&["merge-base", "--all", from, &step.to])?.unwrap_or_default();
    let bases = String::from_utf8_lossy(&bases).into_owned();
    let mut left: Option<HashSet<Change>> = None;
    for base in bases.lines().filter(|base| is_id(base)) {
        let different = between(git, base, &step.to)?;
        // Of several it may come from any.
        left = Some(match left {
            None => different,
            Some(left) => left.intersection(&different).cloned().collect(),
        });
    }
    let Some(mut left) = left.filter(|left| !left.is_empty()) else { return Ok(None) };
    let mut fences = Vec::new();
    for commit in commits(git, std::slice::from_ref(step), &[])? {
        for change in &commit.changes {
            left.remove(change);
        }
        fences.extend(commit.trailers.fences);
    }
    fences.sort_unstable();
    fences.dedup();
    let mut changes: Vec<Change> = left.into_iter().collect();
    changes.sort_unstable();
    Ok((!changes.is_empty()).then(|| TakenBack { to: step.to.clone(), changes, fences }))
}

/// What differs between two commits.
fn between(git: &Git, one: &str, other: &str) -> Result<HashSet<Change>, Error> {
    let words =
        ["diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-ext-diff", "--ignore-submodules=none"];
    let mut changes = HashSet::new();
    records(&git.run(&[&words[..], &[one, other]].concat())?, |record| {
        if let Record::Change(name) = record {
            changes.insert(Change::of(name));
        }
    })?;
    Ok(changes)
}

/// Where the history of a shallow clone ends, a commit seems to add every file there is.
fn whole_history(git: &Git, commits: &[Commit]) -> Result<(), Error> {
    let is_shallow = git.run(&["rev-parse", "--is-shallow-repository"])?;
    if is_shallow.trim_ascii() != b"true" {
        return Ok(());
    }
    let path = git.path("shallow")?;
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Error::io(format!("cannot read {}", path.display()), error))?;
    let ends: HashSet<&str> = text.lines().map(str::trim).collect();
    match commits.iter().find(|commit| ends.contains(commit.id.as_str())) {
        Some(commit) => Err(Error::Usage(format!(
            "the history of this shallow clone ends at {}, which is to be looked at: fetch all of it, with \
             `git fetch --unshallow` or in CI with a depth of 0",
            commit.id
        ))),
        None => Ok(()),
    }
}

fn unreadable(word: &str) -> Error {
    Error::Usage(format!("git {word} answers in a way that is not understood"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_called_like_a_commit_is_a_file() {
        let id = "a".repeat(40);
        let text = format!("{id}\0:100644 100644 1 2 M\0{id}\0::1 1 1 1 1 1 MM\0:x\0{}\0", "b".repeat(40));
        let mut seen = Vec::new();
        let read = records(text.as_bytes(), |record| {
            seen.push(match record {
                Record::Commit(id) => format!("commit {}", &id[..1]),
                Record::Change(name) => format!("file {}", name.escape_ascii()),
            });
        });
        assert!(read.is_ok());
        assert_eq!(
            seen,
            ["commit a".to_owned(), format!("file {id}"), "file :x".to_owned(), "commit b".to_owned()]
        );
        assert!(records(b":100644", |_| {}).is_err() && records(b"what\0", |_| {}).is_err());
    }

    #[test]
    fn commits_are_listed_with_their_trailers() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let text = format!("commit {a}\n{a}\0AgentFlow-Fence: 17\n\0\ncommit {b}\n{b}\0\0\n");
        let read = listed(text.as_bytes()).expect("readable");
        let told: Vec<_> =
            read.iter().map(|commit| (commit.id.as_str(), commit.trailers.fences.len())).collect();
        assert_eq!(told, [(a.as_str(), 1), (b.as_str(), 0)]);
        assert!(listed(b"").expect("none").is_empty());
        assert!(listed(b"commit x\nx\0\0").is_err());
    }
}
