//! Asking a master who holds what, within a time that a hook can bear.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use agentflow_core::lock::{LockPath, Repository};
use agentflow_protocol::locks::{LockPage, LockView};

use crate::client::{Client, with_query};
use crate::error::Error;

/// Paths that are asked for one by one. For more, all locks are listed of the directory that they share.
const EACH: usize = 8;

/// Locks in one page of a list.
const PAGE: usize = 1_000;

/// Pages of a list that are read: more locks than one repository has.
const PAGES: usize = 200;

/// The locks that could be in the way of a change in these places, whoever holds them. A place that is
/// nothing is the whole repository.
///
/// # Errors
/// When no master answers, or it refuses.
pub(crate) fn held(
    client: &Client,
    repo: &Repository,
    places: &[Option<LockPath>],
) -> Result<Vec<LockView>, Error> {
    let each: Option<Vec<&LockPath>> = places.iter().map(Option::as_ref).collect();
    let asked = match each {
        Some(each) if each.len() <= EACH => each.into_iter().map(|path| path.to_string()).collect(),
        Some(each) => vec![shared_directory(&each)],
        None => vec![String::new()],
    };
    let mut found: Vec<LockView> = Vec::new();
    for path in asked {
        for lock in list(client, repo, &path)? {
            if !found.iter().any(|known| known.id == lock.id) {
                found.push(lock);
            }
        }
    }
    Ok(found)
}

fn list(client: &Client, repo: &Repository, path: &str) -> Result<Vec<LockView>, Error> {
    let mut locks = Vec::new();
    let mut cursor = String::new();
    for _ in 0..PAGES {
        let query = [
            ("repo", repo.to_string()),
            ("path", path.to_owned()),
            ("limit", PAGE.to_string()),
            ("cursor", cursor),
        ];
        let page: LockPage = client.get(&with_query("/api/v2/locks", &query))?;
        locks.extend(page.locks);
        match page.next_cursor {
            Some(next) => cursor = next,
            None => return Ok(locks),
        }
    }
    Err(Error::Busy(format!("more than {} locks are held there; check fewer files at once", PAGE * PAGES)))
}

/// The directory in which all of these lie, as a pattern; nothing if that is the root.
fn shared_directory(paths: &[&LockPath]) -> String {
    let directory = |path: &LockPath| -> Vec<String> {
        let mut segments: Vec<String> = path.as_str().split('/').map(str::to_owned).collect();
        segments.pop();
        let plain = segments.iter().take_while(|segment| !segment.contains(['*', '?'])).count();
        segments.truncate(plain);
        segments
    };
    let mut directories = paths.iter().map(|path| directory(path));
    let Some(mut shared) = directories.next() else { return String::new() };
    for other in directories {
        let same = shared.iter().zip(&other).take_while(|(a, b)| a == b).count();
        shared.truncate(same);
    }
    if shared.is_empty() { String::new() } else { format!("{}/**", shared.join("/")) }
}

/// An answer, if it comes in time. What is late is left behind with its thread, which ends with the
/// process.
///
/// # Errors
/// That of the question, or that no answer has come.
pub(crate) fn within<T: Send + 'static>(
    limit: Duration,
    ask: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (say, heard) = mpsc::channel();
    let asked = thread::Builder::new().name("ask".to_owned()).spawn(move || {
        // Nobody listens any more if it is late.
        let _late = say.send(ask());
    });
    asked.map_err(|error| Error::io("cannot start a thread", error))?;
    let late = || Error::Busy(format!("the master has not answered within {} ms", limit.as_millis()));
    heard.recv_timeout(limit).unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_paths_are_looked_for_where_they_all_lie() {
        let shared = |texts: &[&str]| {
            let paths: Vec<LockPath> =
                texts.iter().map(|text| LockPath::new(text).expect("a path")).collect();
            shared_directory(&paths.iter().collect::<Vec<_>>())
        };
        assert_eq!(shared(&["src/a/b.rs", "src/a/c/d.rs"]), "src/a/**");
        assert_eq!(shared(&["src/a.rs", "src/*/c.rs"]), "src/**");
        assert_eq!(shared(&["src/a.rs", "b.rs"]), "");
        assert_eq!(shared(&["src/**", "src/a.rs"]), "src/**");
    }

    #[test]
    fn nobody_waits_for_an_answer_that_does_not_come() {
        let (hold, held) = mpsc::channel::<()>();
        let answer = within(Duration::from_millis(10), move || {
            // Until the test is over.
            let _over = held.recv();
            Ok(())
        });
        assert!(answer.expect_err("late").to_string().contains("within 10 ms"));
        drop(hold);
        assert!(matches!(within(Duration::from_secs(60), || Ok(5)), Ok(5)));
    }
}
