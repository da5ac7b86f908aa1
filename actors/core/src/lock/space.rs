//! The locks of one repository: who holds what, who waits for what.
//!
//! A claim is a grant or a request that waits. Several claims hold paths that overlap only if all of
//! them read there, or all are the same task's. The space finds what stands in the way of a claim; who
//! of those who wait comes first is known to whoever asks.

use std::ops::ControlFlow;

use super::index::PathIndex;
use super::{LockFence, LockMode, LockPath, PathLock, Repository};
use crate::ids::{LockNumber, TaskId};

/// A grant or a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Claim {
    pub(crate) number: LockNumber,
    /// Whose locks never stand in each other's way.
    pub(crate) task: Option<TaskId>,
}

/// Paths by what may be done there.
#[derive(Debug, Default)]
struct Claims {
    reads: PathIndex<Claim>,
    writes: PathIndex<Claim>,
}

impl Claims {
    fn insert(&mut self, path: LockPath, mode: LockMode, claim: Claim) {
        match mode {
            LockMode::Read => self.reads.insert(path, claim),
            LockMode::Write => self.writes.insert(path, claim),
        }
    }

    fn remove(&mut self, path: &LockPath, mode: LockMode, claim: Claim) {
        match mode {
            LockMode::Read => self.reads.remove(path, claim),
            LockMode::Write => self.writes.remove(path, claim),
        }
    }

    /// Visits what a lock cannot be beside, whoever has it.
    fn against(
        &self,
        path: &LockPath,
        mode: LockMode,
        mut visit: impl FnMut(Claim, &LockPath, LockMode) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut flow = ControlFlow::Continue(());
        self.writes.overlapping(path, |claim, at| {
            flow = visit(claim, at, LockMode::Write);
            flow
        });
        if mode == LockMode::Write && flow.is_continue() {
            self.reads.overlapping(path, |claim, at| {
                flow = visit(claim, at, LockMode::Read);
                flow
            });
        }
        flow
    }

    fn folded(&self) -> Self {
        Self { reads: self.reads.folded(), writes: self.writes.folded() }
    }
}

/// Which of the two a claim is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    Held,
    Waiting,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct LockSpace {
    pub(crate) repo: Repository,
    pub(crate) ignore_case: bool,
    /// The largest that was given out.
    pub(crate) fence: LockFence,
    held: Claims,
    waiting: Claims,
}

impl LockSpace {
    pub(crate) fn new(repo: Repository, ignore_case: bool, fence: LockFence) -> Self {
        Self { repo, ignore_case, fence, held: Claims::default(), waiting: Claims::default() }
    }

    /// The path as paths are compared here.
    fn key(&self, path: &LockPath) -> LockPath {
        if self.ignore_case { path.folded() } else { path.clone() }
    }

    /// From now on upper and lower case are the same.
    pub(crate) fn fold(&mut self) {
        if !self.ignore_case {
            self.ignore_case = true;
            self.held = self.held.folded();
            self.waiting = self.waiting.folded();
        }
    }

    pub(crate) fn insert(&mut self, standing: Standing, claim: Claim, paths: &[PathLock]) {
        for PathLock { path, mode } in paths {
            let path = self.key(path);
            self.claims(standing).insert(path, *mode, claim);
        }
    }

    pub(crate) fn remove(&mut self, standing: Standing, claim: Claim, paths: &[PathLock]) {
        for PathLock { path, mode } in paths {
            let path = self.key(path);
            self.claims(standing).remove(&path, *mode, claim);
        }
    }

    fn claims(&mut self, standing: Standing) -> &mut Claims {
        match standing {
            Standing::Held => &mut self.held,
            Standing::Waiting => &mut self.waiting,
        }
    }

    /// Visits claims of others that these paths cannot be locked beside, until `visit` has seen enough:
    /// once for each pair of paths.
    pub(crate) fn against(
        &self,
        standing: Standing,
        paths: &[PathLock],
        task: Option<TaskId>,
        mut visit: impl FnMut(Claim, &LockPath, LockMode) -> ControlFlow<()>,
    ) {
        let claims = match standing {
            Standing::Held => &self.held,
            Standing::Waiting => &self.waiting,
        };
        for PathLock { path, mode } in paths {
            let flow = claims.against(&self.key(path), *mode, |claim, at, mode| {
                if task.is_some() && claim.task == task {
                    ControlFlow::Continue(())
                } else {
                    visit(claim, at, mode)
                }
            });
            if flow.is_break() {
                return;
            }
        }
    }

    /// Whether a grant has a path that overlaps that one.
    pub(crate) fn overlaps(&self, paths: &[PathLock], path: &LockPath) -> bool {
        let path = self.key(path);
        paths.iter().any(|lock| self.key(&lock.path).overlaps(&path))
    }

    /// Whether a grant has exactly that path.
    pub(crate) fn names(&self, paths: &[PathLock], path: &LockPath) -> bool {
        let path = self.key(path);
        paths.iter().any(|lock| self.key(&lock.path) == path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locks(text: &str) -> Vec<PathLock> {
        let lock = |word: &str| {
            let (mode, path) = word.split_at(1);
            let mode = if mode == "r" { LockMode::Read } else { LockMode::Write };
            PathLock { path: LockPath::new(path).expect("a path"), mode }
        };
        text.split(' ').map(lock).collect()
    }

    fn claim(number: u64, task: Option<u64>) -> Claim {
        Claim { number: LockNumber(number), task: task.map(TaskId) }
    }

    fn against(space: &LockSpace, text: &str, task: Option<u64>) -> Vec<u64> {
        let mut found = Vec::new();
        space.against(Standing::Held, &locks(text), task.map(TaskId), |claim, _, _| {
            found.push(claim.number.0);
            ControlFlow::Continue(())
        });
        found
    }

    #[test]
    fn readers_share_and_writers_do_not() {
        let mut space = LockSpace::new(Repository::default(), false, LockFence(0));
        space.insert(Standing::Held, claim(1, None), &locks("rsrc/** wdocs/a"));
        space.insert(Standing::Held, claim(2, Some(7)), &locks("rsrc/x"));
        assert!(against(&space, "rsrc/x", None).is_empty());
        assert_eq!(against(&space, "wsrc/x", None), [2, 1]);
        assert_eq!(against(&space, "rdocs/**", None), [1]);
        assert_eq!(against(&space, "wsrc/x", Some(7)), [1]);
        space.remove(Standing::Held, claim(1, None), &locks("rsrc/** wdocs/a"));
        assert!(against(&space, "wsrc/x wdocs/**", Some(7)).is_empty());
    }

    #[test]
    fn names_are_of_any_script() {
        let mut space = LockSpace::new(Repository::default(), false, LockFence(0));
        space.insert(Standing::Held, claim(1, None), &locks("wété/a wｈ w日本/**/*.語"));
        for (text, met) in [("wété/**", 1), ("wété/b", 0), ("wｈ/x", 1), ("r日本/é.語", 1), ("w**/é", 0)]
        {
            assert_eq!(against(&space, text, None).len(), met, "{text}");
        }
    }

    #[test]
    fn case_counts_until_somebody_says_that_it_does_not() {
        let mut space = LockSpace::new(Repository::default(), false, LockFence(0));
        space.insert(Standing::Held, claim(1, None), &locks("wSrc/A"));
        assert!(against(&space, "wsrc/a", None).is_empty());
        space.fold();
        assert_eq!(against(&space, "wsRC/a", None), [1]);
        space.remove(Standing::Held, claim(1, None), &locks("wSrc/A"));
        assert!(against(&space, "wsrc/a", None).is_empty());
    }
}
