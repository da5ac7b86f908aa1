//! The locks of one attempt, and the file by which its process knows them.
//!
//! Shared by the daemon, which hears of grants, the door, which waits for them, and the slot's thread.
//! Invariant: the file is whole, and there only while the attempt runs and holds something.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agentflow_core::checkpoint::{HeldLock, LockAsk};
use agentflow_core::lock::{LockFence, LockId, LockMode, LockPath, PathLock, Repository};
use agentflow_core::spec::{Spec, SpecLocks};
use serde::Serialize;

use crate::guarded::Guarded;

/// One lock, and what it is for.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) held: HeldLock,
    ignore_case: bool,
    paths: Arc<[PathLock]>,
}

impl Grant {
    /// What was granted to somebody who asked.
    pub(crate) fn new(held: HeldLock, ask: LockAsk) -> Self {
        Self { held, ignore_case: ask.ignore_case, paths: ask.paths.into() }
    }

    /// What it is for.
    fn object(&self) -> (&Repository, bool, &[PathLock]) {
        (&self.held.repo, self.ignore_case, &self.paths)
    }
}

#[derive(Debug, Default)]
struct State {
    held: Vec<Grant>,
    /// What was given back.
    past: Vec<Grant>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    state: Guarded<State>,
    /// While the attempt runs. Whoever writes the file holds it.
    file: Guarded<Option<PathBuf>>,
}

/// The file's text.
#[derive(Serialize)]
struct Text<'a> {
    locks: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    id: LockId,
    repo: &'a Repository,
    fence: LockFence,
    paths: &'a [PathLock],
}

impl<'a> From<&'a Grant> for Entry<'a> {
    fn from(Grant { held: HeldLock { id, repo, fence }, paths, .. }: &'a Grant) -> Self {
        Self { id: *id, repo, fence: *fence, paths }
    }
}

impl Locks {
    /// What an attempt begins with. `None` when that is not what its specification names.
    pub(crate) fn of(spec: &Spec, held: &[HeldLock]) -> Option<Self> {
        let both = || spec.locks.iter().zip(held);
        let fits = spec.locks.len() == held.len() && both().all(|(entry, held)| entry.repo == held.repo);
        let grants = both().map(|(SpecLocks { ignore_case, paths, .. }, held)| Grant {
            held: held.clone(),
            ignore_case: *ignore_case,
            paths: Arc::clone(paths),
        });
        let state = || State { held: grants.collect(), past: Vec::new() };
        fits.then(|| Self { state: Guarded::new(state()), file: Guarded::default() })
    }

    /// Whether something is held.
    pub(crate) fn are_held(&self) -> bool {
        !self.state.lock().held.is_empty()
    }

    /// Whether something is held or was.
    pub(crate) fn were_held(&self) -> bool {
        let state = self.state.lock();
        !state.held.is_empty() || !state.past.is_empty()
    }

    pub(crate) fn add(&self, grant: Grant) {
        self.state.lock().held.push(grant);
    }

    pub(crate) fn remove(&self, lock: LockId) {
        let mut state = self.state.lock();
        let State { held, past } = &mut *state;
        for grant in held.extract_if(.., |grant| grant.held.id == lock) {
            // One that is taken again and again is kept once.
            if !past.iter().any(|other| other.object() == grant.object()) {
                past.push(grant);
            }
        }
    }

    /// What may be written in a repository under the locks that are held.
    pub(crate) fn cover(&self, repository: Option<&Repository>) -> Cover {
        Cover::of(&self.state.lock().held, repository)
    }

    /// The same under one of them.
    pub(crate) fn cover_of(&self, lock: LockId, repository: Option<&Repository>) -> Cover {
        let state = self.state.lock();
        Cover::of(state.held.iter().filter(|grant| grant.held.id == lock), repository)
    }

    /// The same under all that are or were held.
    pub(crate) fn cover_ever(&self, repository: Option<&Repository>) -> Cover {
        let state = self.state.lock();
        Cover::of(state.held.iter().chain(&state.past), repository)
    }

    /// From now on the process finds the file there.
    pub(crate) fn begin(&self, path: PathBuf) -> io::Result<()> {
        *self.file.lock() = Some(path);
        if self.are_held() { self.write() } else { Ok(()) }
    }

    /// Writes down what is held.
    pub(crate) fn write(&self) -> io::Result<()> {
        let file = self.file.lock();
        let Some(path) = &*file else { return Ok(()) };
        let text = {
            let state = self.state.lock();
            let locks: Vec<Entry<'_>> = state.held.iter().map(Entry::from).collect();
            if locks.is_empty() { None } else { Some(serde_json::to_vec(&Text { locks })?) }
        };
        match text {
            Some(text) => replace(path, &text),
            None => remove(path),
        }
    }

    /// The attempt is over: no file is written any more.
    pub(crate) fn end(&self) {
        *self.file.lock() = None;
    }
}

/// Writes beside it and then renames, so that nobody finds half of it.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let beside = path.with_added_extension("new");
    fs::write(&beside, text).and_then(|()| fs::rename(&beside, path)).inspect_err(|_| {
        // What went wrong is what counts.
        let _gone = fs::remove_file(&beside);
    })
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Which files some locks allow to be written.
#[derive(Debug, Default)]
pub(crate) struct Cover {
    exact: Paths,
    folded: Paths,
}

/// Locked paths, so kept that one file is found among many.
#[derive(Debug, Default)]
struct Paths {
    files: HashSet<LockPath>,
    /// Those of which everything is locked.
    directories: HashSet<Box<str>>,
    patterns: Vec<LockPath>,
}

impl Cover {
    /// Of those locks that are for writing in that repository. Locks of the repository that has no name
    /// are for whichever it is.
    fn of<'a>(grants: impl IntoIterator<Item = &'a Grant>, repository: Option<&Repository>) -> Self {
        let mut cover = Self::default();
        for Grant { held, ignore_case, paths } in grants {
            if held.repo.as_str() != Repository::DEFAULT && Some(&held.repo) != repository {
                continue;
            }
            for path in paths.iter().filter(|lock| lock.mode == LockMode::Write).map(|lock| &lock.path) {
                if *ignore_case {
                    cover.folded.add(path.folded());
                } else {
                    cover.exact.add(path.clone());
                }
            }
        }
        cover
    }

    /// Whether a file of the repository is among them.
    pub(crate) fn has(&self, file: &Path) -> bool {
        let Some(path) = named(file) else { return false };
        self.exact.have(&path) || (!self.folded.is_empty() && self.folded.have(&path.folded()))
    }
}

impl Paths {
    fn is_empty(&self) -> bool {
        self.files.is_empty() && self.directories.is_empty() && self.patterns.is_empty()
    }

    fn add(&mut self, path: LockPath) {
        match path.as_str().strip_suffix("/**") {
            Some(directory) if !directory.contains(['*', '?']) => {
                self.directories.insert(directory.into());
            }
            _ if path.is_file() => {
                self.files.insert(path);
            }
            _ => self.patterns.push(path),
        }
    }

    fn have(&self, path: &LockPath) -> bool {
        let text = path.as_str();
        let mut above = text.match_indices('/').map(|(at, _)| &text[..at]).chain([text]);
        self.files.contains(path)
            || above.any(|directory| self.directories.contains(directory))
            || self.patterns.iter().any(|pattern| pattern.covers(path))
    }
}

/// A file as locks name it; of one that they cannot name, everything in its directory.
fn named(file: &Path) -> Option<LockPath> {
    if let Some(Ok(path)) = file.to_str().map(LockPath::new) {
        return Some(path);
    }
    file.ancestors().skip(1).find_map(|above| LockPath::new(&format!("{}/", above.to_str()?)).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentflow_core::lock::LockUntil;
    use agentflow_core::spec::Payload;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    fn grant(repo: &str, id: u8, paths: &[&str]) -> Grant {
        let repo = Repository::new(repo).expect("a repository");
        let path = |text: &&str| {
            let (mode, text) =
                text.strip_prefix("read ").map_or((LockMode::Write, *text), |text| (LockMode::Read, text));
            PathLock { path: LockPath::new(text).expect("a path"), mode }
        };
        let held = HeldLock { id: LockId([id; 16]), repo, fence: LockFence(id.into()) };
        Grant { held, ignore_case: false, paths: paths.iter().map(path).collect() }
    }

    fn has(cover: &Cover, file: impl AsRef<OsStr>) -> bool {
        cover.has(Path::new(&file))
    }

    #[test]
    fn the_file_says_what_is_held() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("1.1.1.locks");
        let locks = Locks::default();
        locks.begin(path.clone()).expect("written");
        assert!(!path.exists() && !locks.were_held());
        locks.add(grant("example.com/app", 1, &["src/**", "read doc"]));
        locks.add(grant("default", 2, &["x"]));
        locks.write().expect("written");
        let text: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
        let expected = serde_json::json!({"locks": [
            {"id": "01".repeat(16), "repo": "example.com/app", "fence": 1,
             "paths": [{"path": "src/**", "mode": "write"}, {"path": "doc", "mode": "read"}]},
            {"id": "02".repeat(16), "repo": "default", "fence": 2, "paths": [{"path": "x", "mode": "write"}]}]});
        assert_eq!(text, expected);
        locks.remove(LockId([1; 16]));
        locks.remove(LockId([2; 16]));
        locks.write().expect("removed");
        assert!(!path.exists() && !locks.are_held() && locks.were_held());
        locks.add(grant("default", 3, &["x"]));
        locks.write().expect("written");
        fs::remove_file(&path).expect("a file");
        locks.end();
        // A grant that comes too late leaves nothing behind.
        locks.write().expect("nothing to do");
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 0);
    }

    #[test]
    fn an_assignment_brings_what_its_specification_names() {
        let mut spec = Spec::new(Payload::Noop);
        assert!(!Locks::of(&spec, &[]).expect("none").are_held());
        let Grant { held, paths, .. } = grant("example.com/app", 1, &["a"]);
        let until = LockUntil::Attempt;
        spec.locks = vec![SpecLocks { repo: held.repo.clone(), ignore_case: true, until, paths }];
        assert!(Locks::of(&spec, &[]).is_none());
        let other = HeldLock { repo: Repository::default(), ..held.clone() };
        assert!(Locks::of(&spec, &[other]).is_none());
        let locks = Locks::of(&spec, std::slice::from_ref(&held)).expect("as it is named");
        assert!(locks.are_held() && has(&locks.cover(Some(&held.repo)), "A"));
    }

    #[test]
    fn only_locks_for_writing_in_that_repository_cover() {
        let app = Repository::new("example.com/app").expect("a repository");
        let locks = Locks::default();
        locks.add(grant("example.com/app", 1, &["a", "dir/**", "*.md", "read r"]));
        locks.add(grant("default", 2, &["any"]));
        locks.add(grant("example.com/other", 3, &["o"]));
        let cover = locks.cover(Some(&app));
        for file in ["a", "dir/b", "dir/b/c", "dir", "x.md", "any"] {
            assert!(has(&cover, file), "{file}");
        }
        for file in ["b", "a/b", "dirs/b", "x/y.md", "r", "o", "A"] {
            assert!(!has(&cover, file), "{file}");
        }
        let cover = locks.cover(None);
        assert!(has(&cover, "any") && !has(&cover, "a"));
        locks.remove(LockId([1; 16]));
        locks.add(grant("example.com/app", 1, &["a", "dir/**", "*.md", "read r"]));
        locks.remove(LockId([1; 16]));
        assert_eq!(locks.state.lock().past.len(), 1);
        assert!(!has(&locks.cover(Some(&app)), "a"));
        assert!(
            has(&locks.cover_ever(Some(&app)), "a") && has(&locks.cover_of(LockId([2; 16]), None), "any")
        );
    }

    #[test]
    fn names_that_no_lock_can_have_are_covered_with_their_directory() {
        let locks = Locks::default();
        locks.add(grant("default", 1, &["dir/**", "top*"]));
        let cover = locks.cover(None);
        let odd = OsStr::from_bytes(b"dir/b/\xff");
        for file in [OsStr::new("dir/a\nb"), OsStr::new("dir/x/back\\slash"), odd] {
            assert!(has(&cover, file), "{file:?}");
        }
        let odd = OsStr::from_bytes(b"top\xff");
        for file in [OsStr::new("top\nb"), OsStr::new("other/a\nb"), odd, OsStr::new("*")] {
            assert!(!has(&cover, file), "{file:?}");
        }
        locks.add(grant("default", 2, &["/"]));
        assert!(has(&locks.cover(None), odd));
    }
}
