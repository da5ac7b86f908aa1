//! `locks`: what is locked, and who waits.

use std::sync::Arc;

use agentflow_core::lock::{LockMode, LockPath, PathLock, Repository};
use agentflow_protocol::locks::{LockPage, LockView, WaitingView};

use super::ask::LOCKS;
use super::ground::{Ground, here};
use super::watch::watch;
use super::words;
use crate::args::Locks;
use crate::client::{Client, with_query};
use crate::error::{Error, exit};
use crate::interrupt::{Ended, guarded};
use crate::output::{Cell, Output, age};
use crate::working_copy::WorkingCopy;

/// Locks of one answer.
const PAGE: usize = 1_000;

/// Paths of one lock that a line shows.
const PATHS: usize = 4;

/// What is shown of a lock, besides where it is.
const HELD: [&str; 5] = ["FENCE", "OWNER", "MODE", "AGE", "UNTIL"];

/// The same of who waits: how many stand before him, and who holds what he wants.
const WAITING: [&str; 5] = ["WAITING", "BEHIND", "MODE", "AGE", "HOLDER"];

/// Which locks are wanted.
#[derive(Clone, Copy, Default)]
pub(super) struct Wanted<'a> {
    pub(super) repo: Option<&'a Repository>,
    pub(super) owner: Option<&'a str>,
    /// Those that have files in common with it.
    pub(super) path: Option<&'a LockPath>,
}

/// What is shown: of one repository or of all, of some paths or of all, of one owner or of all.
pub(super) struct Shown {
    pub(super) repo: Option<Repository>,
    paths: Vec<LockPath>,
    owner: Option<String>,
}

pub(super) fn locks(locks: Locks, client: Client, output: Output) -> Result<u8, Error> {
    let shown = Shown::of(&locks)?;
    if !locks.watch {
        let page = shown.read(&client)?;
        if output.json {
            output.json(&page)?;
            return Ok(exit::DONE);
        }
        shown.lines(&page, output).iter().try_for_each(|line| output.line(line))?;
        if page.locks.is_empty() {
            eprintln!("nothing is locked{}", shown.whereabouts());
        }
        return Ok(exit::DONE);
    }
    match guarded(None, move || watch(&shown, &client, output))? {
        Ended::Done(result) => result,
        Ended::Interrupted | Ended::TimedOut => Ok(exit::INTERRUPTED),
    }
}

/// Every lock, page by page.
///
/// # Errors
/// Those of the client.
pub(super) fn pages(client: &Client, wanted: Wanted<'_>) -> Result<LockPage, Error> {
    let mut all = LockPage::default();
    let mut cursor = None;
    loop {
        let path = with_query(
            LOCKS,
            &[
                ("repo", wanted.repo.map(ToString::to_string).unwrap_or_default()),
                ("owner", wanted.owner.unwrap_or_default().to_owned()),
                ("path", wanted.path.map(ToString::to_string).unwrap_or_default()),
                ("limit", PAGE.to_string()),
                ("cursor", cursor.unwrap_or_default()),
            ],
        );
        let page: LockPage = client.get(&path)?;
        all.locks.extend(page.locks);
        // Each page has those who wait.
        all.waiting = page.waiting;
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(all);
        }
    }
}

impl Shown {
    fn of(locks: &Locks) -> Result<Self, Error> {
        let is_named = locks.place.repo.is_some() || !locks.paths.is_empty();
        let around = if locks.all_repos || is_named { None } else { WorkingCopy::around(&here()?)? };
        let (repo, paths) = if is_named {
            let ground = Ground::find(&locks.place)?;
            let paths = locks.paths.iter().map(|path| ground.path(path)).collect::<Result<_, Error>>()?;
            (Some(ground.repo), paths)
        } else {
            (around.map(|copy| copy.repo), Vec::new())
        };
        Ok(Self { repo, paths, owner: locks.owner.clone() })
    }

    /// Asks for it.
    pub(super) fn read(&self, client: &Client) -> Result<LockPage, Error> {
        let wanted = Wanted { repo: self.repo.as_ref(), owner: self.owner.as_deref(), path: None };
        if self.paths.is_empty() {
            return pages(client, wanted);
        }
        let mut all = LockPage::default();
        for path in &self.paths {
            let page = pages(client, Wanted { path: Some(path), ..wanted })?;
            // A lock may have files in common with several of them.
            let is_new = |lock: &LockView| all.locks.iter().all(|known| known.id != lock.id);
            let locks: Vec<LockView> = page.locks.into_iter().filter(is_new).collect();
            let waiting: Vec<WaitingView> =
                page.waiting.into_iter().filter(|one| !all.waiting.contains(one)).collect();
            all.locks.extend(locks);
            all.waiting.extend(waiting);
        }
        Ok(all)
    }

    /// A table of what is held, and below it one of those who wait.
    pub(super) fn lines(&self, page: &LockPage, output: Output) -> Vec<String> {
        let table = |columns: &[&'static str], rows: Vec<Vec<Cell>>| match rows.as_slice() {
            [] => Vec::new(),
            rows => output.table_lines(&self.head(columns), rows),
        };
        let mut lines = table(&HELD, page.locks.iter().map(|lock| self.held(lock)).collect());
        let waiting = table(&WAITING, page.waiting.iter().map(|one| self.waits(one)).collect());
        if !lines.is_empty() && !waiting.is_empty() {
            lines.push(String::new());
        }
        lines.extend(waiting);
        lines
    }

    /// Columns, and where the paths are.
    fn head(&self, columns: &[&'static str]) -> Vec<&'static str> {
        let repo = self.repo.is_none().then_some("REPOSITORY");
        columns.iter().copied().chain(repo).chain(["PATHS"]).collect()
    }

    fn held(&self, lock: &LockView) -> Vec<Cell> {
        let until = match (lock.expires_at, lock.attempt) {
            (Some(end), _) => words::at(end),
            (None, Some(_)) => "attempt".to_owned(),
            (None, None) => "-".to_owned(),
        };
        let mut row: Vec<Cell> = vec![
            lock.fence.to_string().into(),
            lock.owner.clone().into(),
            mode(&lock.paths).into(),
            age(lock.acquired_at).into(),
            until.into(),
        ];
        row.extend(self.place(&lock.repo, &lock.paths));
        row
    }

    fn waits(&self, waiting: &WaitingView) -> Vec<Cell> {
        let mut holders: Vec<&str> = waiting.holders.iter().map(|holder| holder.owner.as_str()).collect();
        holders.dedup();
        let mut row: Vec<Cell> = vec![
            waiting.owner.clone().into(),
            waiting.position.to_string().into(),
            mode(&waiting.paths).into(),
            age(waiting.since).into(),
            holders.join(" ").into(),
        ];
        row.extend(self.place(&waiting.repo, &waiting.paths));
        row
    }

    fn place(&self, repo: &Repository, paths: &Arc<[PathLock]>) -> impl Iterator<Item = Cell> + use<> {
        let mut named: Vec<&str> = paths.iter().take(PATHS).map(|lock| lock.path.as_str()).collect();
        let more = format!("… {} more", paths.len().saturating_sub(PATHS));
        if paths.len() > PATHS {
            named.push(&more);
        }
        let repo = self.repo.is_none().then(|| Cell::from(repo.to_string()));
        repo.into_iter().chain([Cell::from(named.join(" "))])
    }

    /// Where nothing is locked, for people.
    pub(super) fn whereabouts(&self) -> String {
        match (&self.repo, self.paths.as_slice(), &self.owner) {
            (Some(repo), [], None) => format!(" in {repo}"),
            (None, _, None) => String::new(),
            _ => " that would be shown".to_owned(),
        }
    }
}

/// What may be done under a lock.
fn mode(paths: &[PathLock]) -> &'static str {
    let has = |mode: LockMode| paths.iter().any(|lock| lock.mode == mode);
    match (has(LockMode::Read), has(LockMode::Write)) {
        (true, true) => "both",
        (true, false) => "read",
        _ => "write",
    }
}
