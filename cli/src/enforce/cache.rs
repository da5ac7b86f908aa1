//! What a master has just said, so that many calls of a hook in a moment ask once: `holders.json` in the
//! `agentflow` directory of git's.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use agentflow_core::lock::{LockPath, Repository};
use agentflow_protocol::Timestamp;
use agentflow_protocol::locks::LockView;
use serde::{Deserialize, Serialize};

use crate::clock::now;
use crate::working_copy::WorkingCopy;

/// How long an answer counts.
const FRESH_US: i64 = 2_000_000;

/// Answers that are kept: those of two seconds.
const ANSWERS: usize = 256;

/// Bytes of the file that are read; a larger one is not ours.
const FILE_BYTES: u64 = 4 << 20;

/// What was said of one place.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Answer {
    at: Timestamp,
    /// Where; nothing is everywhere.
    place: Option<LockPath>,
    /// Who holds it, or why nobody has said so.
    held: Result<Vec<LockView>, String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Answers {
    repo: Repository,
    /// The master that was named, if one was.
    #[serde(default)]
    master: Option<String>,
    answers: Vec<Answer>,
}

/// The answers that are kept for one working copy.
#[derive(Debug)]
pub(crate) struct Cache {
    file: PathBuf,
    kept: Answers,
}

impl Cache {
    /// Reads them. What cannot be read was never there.
    pub(crate) fn of(copy: &WorkingCopy, master: Option<String>) -> Self {
        Self::at(copy.git_dir.join("agentflow/holders.json"), &copy.repo, master)
    }

    /// What another master has said, or one of another repository, does not count.
    fn at(file: PathBuf, repo: &Repository, master: Option<String>) -> Self {
        let is_small = fs::metadata(&file).is_ok_and(|data| data.len() <= FILE_BYTES);
        let text = is_small.then(|| fs::read(&file).ok()).flatten().unwrap_or_default();
        let mut kept: Answers = serde_json::from_slice(&text).unwrap_or_default();
        if kept.repo != *repo || kept.master != master {
            kept = Answers { repo: repo.clone(), master, answers: Vec::new() };
        }
        let now = now();
        kept.answers.retain(|answer| is_fresh(answer.at, now));
        Self { file, kept }
    }

    /// Who holds these places, by what is kept and by asking for the rest.
    ///
    /// # Errors
    /// When nobody says so, or has said so a moment ago.
    pub(crate) fn held(
        &mut self,
        places: &[Option<LockPath>],
        ask: impl FnOnce(Vec<Option<LockPath>>) -> Result<Vec<LockView>, String>,
    ) -> Result<Vec<LockView>, String> {
        let known = |place: &Option<LockPath>| self.kept.answers.iter().find(|answer| answer.place == *place);
        let mut found = Vec::new();
        for answer in places.iter().filter_map(known) {
            found.extend(answer.held.clone()?);
        }
        let rest: Vec<_> = places.iter().filter(|place| known(place).is_none()).cloned().collect();
        if rest.is_empty() {
            return Ok(found);
        }
        let held = ask(rest.clone());
        self.keep(rest, &held);
        found.extend(held?);
        Ok(found)
    }

    fn keep(&mut self, places: Vec<Option<LockPath>>, held: &Result<Vec<LockView>, String>) {
        let at = now();
        for place in places {
            let held =
                held.as_ref().map(|held| held.iter().filter_map(|lock| part(lock, place.as_ref())).collect());
            self.kept.answers.push(Answer { at, place, held: held.map_err(Clone::clone) });
        }
        let excess = self.kept.answers.len().saturating_sub(ANSWERS);
        self.kept.answers.drain(..excess);
        if let Err(error) = self.write() {
            log::debug!("cannot write {}: {error}", self.file.display());
        }
    }

    /// Who reads meanwhile sees the old file or the new one.
    fn write(&self) -> std::io::Result<()> {
        let directory = self.file.parent().unwrap_or(&self.file);
        fs::create_dir_all(directory)?;
        let partial = directory.join(format!("holders.{}.partial", std::process::id()));
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        let written = file.write_all(&serde_json::to_vec(&self.kept)?);
        let renamed = written.and_then(|()| fs::rename(&partial, &self.file));
        if renamed.is_err() {
            // It is no use to anybody.
            let _gone = fs::remove_file(&partial);
        }
        renamed
    }
}

/// One that seems to come from the future is of another clock.
fn is_fresh(at: Timestamp, now: Timestamp) -> bool {
    (0..=FRESH_US).contains(&(now.0.0 - at.0.0))
}

/// A lock with those of its paths that are in a place: it may have ten thousand.
fn part(lock: &LockView, place: Option<&LockPath>) -> Option<LockView> {
    let Some(place) = place else { return Some(lock.clone()) };
    // Where case does not count, more is kept rather than less.
    let place = place.folded();
    let paths = lock.paths.iter().filter(|one| one.path.folded().overlaps(&place)).cloned().collect();
    let part = LockView { paths, ..lock.clone() };
    (!part.paths.is_empty()).then_some(part)
}

#[cfg(test)]
mod tests {
    use agentflow_core::time::Wall;
    use serde_json::json;

    use super::*;

    fn cache(directory: &std::path::Path) -> Cache {
        Cache::at(directory.join("agentflow/holders.json"), &Repository::default(), None)
    }

    fn place(text: &str) -> Option<LockPath> {
        LockPath::new(text).ok()
    }

    fn lock() -> LockView {
        let text = json!({
            "id": "a5".repeat(16), "fence": 1, "repo": "default", "owner": "bob",
            "paths": [{ "path": "src/**", "mode": "write" }, { "path": "lib/**", "mode": "write" }],
            "acquired_at": "2026-11-26T08:00:00Z", "expires_at": null, "ttl_ms": null,
        });
        serde_json::from_value(text).expect("a lock")
    }

    #[test]
    fn what_was_said_a_moment_ago_is_not_asked_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let places = [place("src/a"), place("docs/a")];
        let held = cache(directory.path()).held(&places, |rest| {
            assert_eq!(rest, places);
            Ok(vec![lock()])
        });
        assert_eq!(held.map(|held| held.len()), Ok(1));
        let mut again = cache(directory.path());
        let held = again.held(&places, |_| panic!("asked")).expect("said");
        assert_eq!((held.len(), held[0].paths.len()), (1, 1), "only what was asked for is kept");
        let more = [place("docs/a"), place("other")];
        let held = again.held(&more, |rest| {
            assert_eq!(rest, [place("other")]);
            Err("no master".to_owned())
        });
        assert_eq!(held.err().as_deref(), Some("no master"));
        assert!(cache(directory.path()).held(&more, |_| panic!("asked")).is_err());
        let other = Repository::new("other").expect("a repository");
        let file = directory.path().join("agentflow/holders.json");
        for mut other in [
            Cache::at(file.clone(), &other, None),
            Cache::at(file.clone(), &Repository::default(), Some("http://other".to_owned())),
        ] {
            assert!(other.held(&places, |rest| Err(rest.len().to_string())).is_err_and(|why| why == "2"));
        }
    }

    #[test]
    fn an_answer_grows_old_and_comes_from_no_future() {
        let at = |us: i64| Timestamp(Wall(us));
        assert!(is_fresh(at(10), at(10)) && is_fresh(at(10), at(10 + FRESH_US)));
        assert!(!is_fresh(at(10), at(11 + FRESH_US)) && !is_fresh(at(10), at(9)));
    }

    #[test]
    fn what_cannot_be_read_was_never_there() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("agentflow")).expect("made");
        std::fs::write(directory.path().join("agentflow/holders.json"), "{").expect("written");
        assert!(
            cache(directory.path())
                .held(&[None], |rest| Err(format!("{rest:?}")))
                .is_err_and(|why| why == "[None]")
        );
    }
}
