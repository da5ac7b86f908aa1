//! Whether changes were made under locks: decided by the history of what was granted, in its order.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use agentflow_core::batch::{LockEnd, LockRow};
use agentflow_core::lock::{LockFence, LockMode, LockOwner, LockPath};
use agentflow_protocol::locks::{Uncovered, Verify};

/// Where the path of a change stands after what was seen of the history.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Standing {
    /// No grant of those that were named covers it.
    Open,
    /// The grant that would cover it was broken.
    Broken(LockFence),
    /// It is covered, and nobody else has locked it since.
    Covered(LockOwner),
    /// Somebody else has locked it since.
    Lost(LockOwner, LockFence),
}

/// Changes, and what of them is covered.
#[derive(Debug)]
pub(crate) struct Coverage<'a> {
    asked: &'a Verify,
    ignore_case: bool,
    /// By their text, so that those which a grant concerns are found without looking at all.
    changes: BTreeMap<String, (LockPath, Standing)>,
    /// Those of the changes that are patterns. There are hardly any: what is changed is files.
    patterns: BTreeSet<String>,
}

impl<'a> Coverage<'a> {
    pub(crate) fn new(asked: &'a Verify, ignore_case: bool) -> Self {
        let mut coverage = Self { asked, ignore_case, changes: BTreeMap::new(), patterns: BTreeSet::new() };
        for path in &asked.paths {
            let path = coverage.compared(path);
            if !path.is_file() {
                coverage.patterns.insert(path.to_string());
            }
            coverage.changes.insert(path.to_string(), (path, Standing::Open));
        }
        coverage
    }

    fn compared(&self, path: &LockPath) -> LockPath {
        if self.ignore_case { path.folded() } else { path.clone() }
    }

    /// The fence with which the part of the history begins that matters.
    pub(crate) fn first(&self) -> LockFence {
        self.asked.fences.first().copied().unwrap_or_default()
    }

    /// Whether nothing that comes after that fence makes a difference.
    pub(crate) fn is_decided(&self, after: LockFence) -> bool {
        self.asked.fences.last().is_none_or(|last| *last <= after)
            && !self.changes.values().any(|(_, standing)| matches!(standing, Standing::Covered(_)))
    }

    /// Takes the next grant in.
    pub(crate) fn see(&mut self, grant: &LockRow) {
        let (fence, owner) = (grant.birth.fence, &grant.birth.owner);
        let is_named = self.asked.fences.contains(&fence);
        let is_broken = grant.state.ended.as_ref().is_some_and(|ended| ended.end == LockEnd::Broken);
        for lock in grant.birth.paths.iter().filter(|lock| lock.mode == LockMode::Write) {
            let granted = self.compared(&lock.path);
            for change in self.near(&granted) {
                let Some((path, standing)) = self.changes.get_mut(&change) else { continue };
                let is_others = matches!(standing, Standing::Covered(other) if other != owner);
                if is_named && !is_broken && granted.covers(path) {
                    *standing = Standing::Covered(owner.clone());
                } else if is_others && granted.overlaps(path) {
                    *standing = Standing::Lost(owner.clone(), fence);
                } else if is_named && *standing == Standing::Open && granted.covers(path) {
                    *standing = Standing::Broken(fence);
                }
            }
        }
    }

    /// Changes that a granted path may concern: those on the way to the part before its first star, those
    /// below, and patterns.
    fn near(&self, granted: &LockPath) -> Vec<String> {
        let text = granted.as_str();
        let stem = match text.find(['*', '?']) {
            None => text,
            Some(star) => text[..star].rsplit_once('/').map_or("", |(stem, _)| stem),
        };
        if stem.is_empty() {
            return self.changes.keys().cloned().collect();
        }
        let ends = stem.match_indices('/').map(|(at, _)| at).chain([stem.len()]);
        let on_the_way =
            ends.filter_map(|end| self.changes.get_key_value(&stem[..end])).map(|(text, _)| text);
        // '0' is the character after '/'.
        let (from, to) = (format!("{stem}/"), format!("{stem}0"));
        let below = self.changes.range((Bound::Included(from), Bound::Excluded(to))).map(|(text, _)| text);
        on_the_way.chain(below).chain(&self.patterns).cloned().collect()
    }

    /// The paths that are not covered, in the order in which they were asked for, each with the reason.
    pub(crate) fn uncovered(&self) -> Vec<Uncovered> {
        let reason = |path: &LockPath| match &self.changes.get(self.compared(path).as_str())?.1 {
            Standing::Covered(_) => None,
            Standing::Open => Some(match self.asked.fences.first() {
                Some(one) if self.asked.fences.len() == 1 => {
                    format!("no lock for writing with the fence {one} covers it")
                }
                _ => "no lock for writing with one of these fences covers it".to_owned(),
            }),
            Standing::Broken(fence) => Some(format!("the lock with the fence {fence} was broken")),
            Standing::Lost(owner, fence) => {
                Some(format!("{owner} has locked it since, with the fence {fence}"))
            }
        };
        let uncovered = |path: &LockPath| Some(Uncovered { path: path.to_string(), reason: reason(path)? });
        self.asked.paths.iter().filter_map(uncovered).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use agentflow_core::batch::{LockBirth, LockEnded, LockLease, LockState};
    use agentflow_core::ids::{LockNumber, SpaceId};
    use agentflow_core::lock::{LockId, LockUntil, PathLock, Repository};
    use agentflow_core::time::Wall;

    use super::*;

    fn path(text: &str) -> LockPath {
        LockPath::new(text).expect("a path")
    }

    fn grant(fence: u64, owner: &str, mode: LockMode, paths: &[&str], end: Option<LockEnd>) -> LockRow {
        let birth = LockBirth {
            id: LockId([0; 16]),
            space: SpaceId(1),
            fence: LockFence(fence),
            owner: LockOwner::Named(owner.into()),
            attempt: None,
            until: LockUntil::Attempt,
            paths: paths.iter().map(|text| PathLock { path: path(text), mode }).collect(),
            reason: "".into(),
            acquired_at: Wall(0),
        };
        let ended = end.map(|end| LockEnded { end, at: Wall(0), reason: "".into() });
        LockRow {
            number: LockNumber(fence),
            repo: Repository::default(),
            birth: Arc::new(birth),
            state: LockState { lease: LockLease::Forever, ended },
        }
    }

    fn writes(fence: u64, owner: &str, paths: &[&str]) -> LockRow {
        grant(fence, owner, LockMode::Write, paths, Some(LockEnd::Released))
    }

    /// What is uncovered of `paths` that were changed under `fences`.
    fn check(history: &[LockRow], paths: &[&str], fences: &[u64], ignore_case: bool) -> Vec<String> {
        let asked = Verify {
            repo: Repository::default(),
            paths: paths.iter().map(|text| path(text)).collect(),
            fences: fences.iter().copied().map(LockFence).collect(),
        };
        let mut coverage = Coverage::new(&asked, ignore_case);
        let (first, mut seen) = (coverage.first(), LockFence::default());
        for grant in history.iter().filter(|grant| grant.birth.fence >= first) {
            if coverage.is_decided(seen) {
                break;
            }
            seen = grant.birth.fence;
            coverage.see(grant);
        }
        let uncovered = coverage.uncovered();
        assert!(uncovered.iter().all(|one| !one.reason.is_empty()));
        uncovered.into_iter().map(|one| one.path).collect()
    }

    #[test]
    fn a_change_is_covered_by_the_lock_under_which_it_was_made() {
        let history = [writes(1, "a", &["src/**"]), writes(2, "b", &["docs/x.md"])];
        assert_eq!(check(&history, &["src/a.rs", "src/b/c.rs"], &[1], false), [""; 0]);
        assert_eq!(check(&history, &["src/a.rs", "docs/x.md"], &[1], false), ["docs/x.md"]);
        assert_eq!(check(&history, &["docs/x.md", "src/a.rs"], &[1, 2], false), [""; 0]);
        assert_eq!(check(&history, &["src/a.rs"], &[3], false), ["src/a.rs"]);
        assert_eq!(check(&history, &["src"], &[1], false), [""; 0], "a file in place of the directory");
        assert_eq!(check(&history, &["src/x/*", "*"], &[1], false), ["*"]);
    }

    #[test]
    fn what_another_has_locked_since_is_not() {
        let history = [writes(1, "a", &["src/a.rs", "src/b.rs"]), writes(2, "b", &["src/*.rs"])];
        assert_eq!(check(&history, &["src/a.rs"], &[1], false), ["src/a.rs"]);
        assert_eq!(check(&history, &["src/a.rs"], &[1, 2], false), [""; 0], "his own lock covers it");
        let same = [writes(1, "a", &["src/a.rs"]), writes(2, "a", &["src/*.rs"])];
        assert_eq!(check(&same, &["src/a.rs"], &[1], false), [""; 0], "nobody else");
        let elsewhere = [writes(1, "a", &["src/a.rs"]), writes(2, "b", &["src/b.rs", "lib/**"])];
        assert_eq!(check(&elsewhere, &["src/a.rs"], &[1], false), [""; 0]);
        let below = [writes(1, "a", &["x"]), writes(2, "b", &["x/y"])];
        assert_eq!(check(&below, &["x"], &[1], false), ["x"], "a directory where the file was");
    }

    #[test]
    fn reading_and_broken_locks_cover_nothing() {
        let read = [grant(1, "a", LockMode::Read, &["a"], None), grant(2, "b", LockMode::Read, &["a"], None)];
        assert_eq!(check(&read, &["a"], &[1], false), ["a"]);
        let broken = [grant(1, "a", LockMode::Write, &["a"], Some(LockEnd::Broken))];
        assert_eq!(check(&broken, &["a"], &[1], false), ["a"]);
        let again = [writes(1, "a", &["a"]), grant(2, "a", LockMode::Write, &["a"], Some(LockEnd::Broken))];
        assert_eq!(check(&again, &["a"], &[1, 2], false), [""; 0], "the first was not");
        for end in [None, Some(LockEnd::Expired), Some(LockEnd::Lost)] {
            assert_eq!(check(&[grant(1, "a", LockMode::Write, &["a"], end)], &["a"], &[1], false), [""; 0]);
        }
        let read_since = [writes(1, "a", &["a"]), grant(2, "b", LockMode::Read, &["a"], None)];
        assert_eq!(check(&read_since, &["a"], &[1], false), [""; 0]);
    }

    #[test]
    fn case_does_not_count_where_it_does_not() {
        let history = [writes(1, "a", &["README.md"]), writes(2, "b", &["Src/**"])];
        assert_eq!(check(&history, &["readme.md"], &[1], false), ["readme.md"]);
        assert_eq!(check(&history, &["readme.md", "ReadMe.md"], &[1], true), [""; 0]);
    }
}
