//! `lock status`: who holds paths, and who waits for them.

use agentflow_core::lock::LockPath;
use agentflow_protocol::locks::{LockView, WaitingView};
use serde::Serialize;
use serde_json::json;

use super::ground::{Ground, owner};
use super::list::{Wanted, pages};
use super::words;
use crate::args::LockStatus;
use crate::client::Client;
use crate::error::{Error, exit};
use crate::output::{Output, Paint, printable};

/// How it stands with a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// Nobody has a lock there.
    Free,
    /// Only whoever asks.
    Mine,
    /// Somebody else.
    Held,
}

#[derive(Serialize)]
struct Standing {
    path: LockPath,
    state: State,
    locks: Vec<LockView>,
    waiting: Vec<WaitingView>,
}

pub(super) fn status(status: &LockStatus, client: &Client, output: Output) -> Result<u8, Error> {
    let ground = Ground::find(&status.place)?;
    let own = owner(&status.whose);
    let is_mine = |lock: &LockView| lock.owner == own;
    let mut standings = Vec::with_capacity(status.paths.len());
    for typed in &status.paths {
        let path = ground.path(typed)?;
        let page = pages(client, Wanted { repo: Some(&ground.repo), owner: None, path: Some(&path) })?;
        let state = match page.locks.as_slice() {
            [] => State::Free,
            locks if locks.iter().all(is_mine) => State::Mine,
            _ => State::Held,
        };
        standings.push(Standing { path, state, locks: page.locks, waiting: page.waiting });
    }
    let is_held = standings.iter().any(|standing| standing.state == State::Held);
    if output.json {
        output.json(&json!({ "repo": ground.repo, "paths": standings }))?;
    } else {
        standings
            .iter()
            .flat_map(|one| lines(one, is_mine, output))
            .try_for_each(|line| output.line(line))?;
    }
    Ok(if is_held { exit::CONFLICT } else { exit::DONE })
}

fn lines(standing: &Standing, is_mine: impl Fn(&LockView) -> bool, output: Output) -> Vec<String> {
    let (word, paint) = match standing.state {
        State::Free => ("free", Paint::Good),
        State::Mine => ("yours", Paint::Busy),
        State::Held => ("locked", Paint::Bad),
    };
    let path = printable(standing.path.as_str());
    let mut lines = vec![format!("{}  {path}", output.paint(paint, format!("{word:<6}")))];
    for lock in &standing.locks {
        let who =
            if is_mine(lock) { "you hold".to_owned() } else { format!("{} holds", printable(&lock.owner)) };
        let reason = lock.reason.as_deref().map(|text| format!(": {}", printable(text))).unwrap_or_default();
        let (what, since) = (words::what(&lock.paths), words::at(lock.acquired_at));
        let until = words::until(&lock.owner, lock.expires_at);
        lines.push(format!("        {who} {what} since {since}, {until}{reason}"));
        lines.push(format!("        lock {}, fence {}", lock.id, lock.fence));
    }
    for one in &standing.waiting {
        let (owner, what) = (printable(&one.owner), words::what(&one.paths));
        lines.push(format!("        {owner} waits for {what} since {}", words::at(one.since)));
    }
    lines
}
