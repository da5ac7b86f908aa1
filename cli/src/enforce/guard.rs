//! The last layer: commits are accepted only under the grants that they name, by the history of grants.

use std::collections::HashMap;

use agentflow_core::limits;
use agentflow_core::lock::{LockPath, Repository};
use agentflow_protocol::locks::{PathBody, Verified, VerifyBody};
use serde::Serialize;

use super::change::Change;
use super::history::{Arriving, Commit, TakenBack};
use crate::client::Client;
use crate::error::Error;

/// Bytes of the paths in one request: written as JSON, where a character may take two, they stay below
/// what a request may have.
const PATHS_BYTES: usize = 400 << 10;

/// A change that no grant allows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Stray {
    /// The commit that makes it.
    pub(crate) commit: String,
    /// Which file, as it is shown.
    pub(crate) path: String,
    /// Why it is not allowed.
    pub(crate) reason: String,
}

/// What is asked of the history of grants.
pub(crate) struct Guard<'a> {
    /// Whom.
    pub(crate) client: &'a Client,
    /// Of which repository.
    pub(crate) repo: &'a Repository,
}

impl Guard<'_> {
    /// Every change that no grant allows.
    ///
    /// # Errors
    /// When nobody says so.
    pub(crate) fn strays(&self, arriving: &Arriving) -> Result<Vec<Stray>, Error> {
        let mut found = Vec::new();
        for commit in &arriving.commits {
            found.extend(self.commit(commit)?);
        }
        for back in &arriving.taken_back {
            found.extend(self.taken_back(back)?);
        }
        Ok(found)
    }

    fn commit(&self, commit: &Commit) -> Result<Vec<Stray>, Error> {
        let all = |reason: &str| Ok(strays(&commit.id, &commit.changes, reason));
        if commit.changes.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(wrong) = &commit.trailers.wrong {
            return all(wrong);
        }
        if commit.trailers.fences.is_empty() {
            return all("its commit has no trailer AgentFlow-Fence");
        }
        self.changes(&commit.id, &commit.changes, &commit.trailers.fences)
    }

    /// What is taken back is allowed if one of the commits on the way may change it.
    fn taken_back(&self, back: &TakenBack) -> Result<Vec<Stray>, Error> {
        let mut left = back.changes.clone();
        for page in back.fences.chunks(limits::LOCK_REQUESTS) {
            let strays = self.changes(&back.to, &left, page)?;
            left.retain(|change| strays.iter().any(|stray| stray.path == change.shown()));
        }
        Ok(strays(&back.to, &left, "a merge takes back what was there before"))
    }

    fn changes(&self, commit: &str, changes: &[Change], fences: &[u64]) -> Result<Vec<Stray>, Error> {
        let mut found = Vec::new();
        let mut by_path: HashMap<&LockPath, Vec<&Change>> = HashMap::new();
        for change in changes {
            match &change.path {
                Ok(path) => by_path.entry(path).or_default().push(change),
                Err(why) => found.push(stray(commit, change, &format!("no lock can be for it: {why}"))),
            }
        }
        let mut paths: Vec<&LockPath> = by_path.keys().copied().collect();
        paths.sort_unstable();
        for page in pages(&paths) {
            for (path, reason) in self.uncovered(page, fences)? {
                let Some(changes) = said_of(&by_path, &path) else {
                    let cause = format!("'{path}', which it was not asked for, is not covered");
                    return Err(Error::Answer { at: self.client.address(), cause });
                };
                found.extend(changes.into_iter().map(|change| stray(commit, change, &reason)));
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// Which of these paths no fence covers, and why.
    fn uncovered(&self, paths: &[&LockPath], fences: &[u64]) -> Result<Vec<(String, String)>, Error> {
        let body = VerifyBody {
            repo: self.repo.to_string(),
            paths: paths.iter().map(|path| PathBody::Text(path.to_string())).collect(),
            fence: None,
            fences: Some(fences.to_vec()),
        };
        let all = |why: &str| paths.iter().map(|path| (path.to_string(), why.to_owned())).collect();
        match self.client.post::<Verified>("/api/v2/locks/verify", &body) {
            Ok(Verified { covered: true }) => Ok(Vec::new()),
            Ok(Verified { covered: false }) => Ok(all("the master says that it is not covered")),
            Err(Error::Problem(problem)) if problem.status == 409 && !problem.uncovered().is_empty() => {
                Ok(problem.uncovered().iter().map(|one| (one.path.clone(), one.reason.clone())).collect())
            }
            // A repository in which nothing was ever locked, say.
            Err(Error::Problem(problem)) if matches!(problem.status, 404 | 409 | 422) => {
                Ok(all(&problem.detail))
            }
            Err(error) => Err(error),
        }
    }
}

/// The changes that an answer is about. Where case does not count, the master may have folded the path.
fn said_of<'a>(asked: &HashMap<&LockPath, Vec<&'a Change>>, said: &str) -> Option<Vec<&'a Change>> {
    let path = LockPath::new(said).ok()?;
    if let Some(changes) = asked.get(&path) {
        return Some(changes.clone());
    }
    let folded = asked.iter().filter(|(other, _)| other.folded() == path);
    let changes: Vec<&Change> = folded.flat_map(|(_, changes)| changes.iter().copied()).collect();
    (!changes.is_empty()).then_some(changes)
}

fn stray(commit: &str, change: &Change, reason: &str) -> Stray {
    Stray { commit: commit.to_owned(), path: change.shown(), reason: reason.to_owned() }
}

fn strays(commit: &str, changes: &[Change], reason: &str) -> Vec<Stray> {
    changes.iter().map(|change| stray(commit, change, reason)).collect()
}

/// Paths in parts that a request can have.
fn pages<'a>(paths: &'a [&'a LockPath]) -> Vec<&'a [&'a LockPath]> {
    let mut pages = Vec::new();
    let (mut begin, mut bytes) = (0, 0);
    for (at, path) in paths.iter().enumerate() {
        let more = path.as_str().len() + 3;
        if at > begin && (bytes + more > PATHS_BYTES || at - begin == limits::LOCK_PATHS) {
            pages.push(&paths[begin..at]);
            (begin, bytes) = (at, 0);
        }
        bytes += more;
    }
    if begin < paths.len() {
        pages.push(&paths[begin..]);
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_paths_are_asked_for_in_parts() {
        let paths: Vec<LockPath> =
            (0..25_000).map(|at| LockPath::new(&format!("src/{at}.rs")).expect("a path")).collect();
        let paths: Vec<&LockPath> = paths.iter().collect();
        let parts: Vec<usize> = pages(&paths).iter().map(|page| page.len()).collect();
        assert_eq!(parts, [10_000, 10_000, 5_000]);
        let long: Vec<LockPath> = (0..1_000)
            .map(|at| LockPath::new(&format!("{at}{}", "x".repeat(1_000))).expect("a path"))
            .collect();
        let long: Vec<&LockPath> = long.iter().collect();
        let parts = pages(&long);
        assert!(parts.len() > 1 && parts.iter().map(|page| page.len()).sum::<usize>() == 1_000);
        let size = |page: &[&LockPath]| page.iter().map(|path| path.as_str().len() + 3).sum::<usize>();
        assert!(parts.iter().all(|page| size(page) <= PATHS_BYTES));
        assert!(pages(&[]).is_empty());
    }
}
