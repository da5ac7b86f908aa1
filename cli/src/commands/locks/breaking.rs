//! `lock break`: takes a lock away from its holder.

use agentflow_core::lock::LockId;
use agentflow_protocol::locks::{BreakBody, LockView};

use super::ask::lock_path;
use super::ground::Ground;
use super::list::{Wanted, pages};
use super::words;
use crate::args::BreakLock;
use crate::client::Client;
use crate::error::{Error, exit};
use crate::output::{Output, printable};

pub(super) fn break_lock(act: &BreakLock, client: &Client, output: Output) -> Result<u8, Error> {
    let id = match act.what.to_str().and_then(|text| text.parse().ok()) {
        Some(id) => id,
        None => the_only_one(act, client)?,
    };
    let body = BreakBody { reason: act.reason.clone() };
    let lock: LockView = client.post(&format!("{}/break", lock_path(id)), &body)?;
    if output.json {
        output.json(&lock)?;
    } else {
        output.line(format_args!(
            "broke the lock of {} on {}",
            printable(&lock.owner),
            words::what(&lock.paths)
        ))?;
        if let Some(task) = lock.task_id.filter(|_| lock.attempt.is_some()) {
            eprintln!(
                "agentflow: task {task} begins anew and asks for it again; to keep it away: agentflow cancel {task}"
            );
        }
    }
    Ok(exit::DONE)
}

/// The lock that a path has. Of several it must be said which is meant.
fn the_only_one(act: &BreakLock, client: &Client) -> Result<LockId, Error> {
    let ground = Ground::find(&act.place)?;
    let path = ground.path(&act.what)?;
    let page = pages(client, Wanted { repo: Some(&ground.repo), owner: None, path: Some(&path) })?;
    match page.locks.as_slice() {
        [] => Err(Error::Gone(format!("'{path}' is not locked"))),
        [lock] => Ok(lock.id),
        many => {
            let line = |lock: &LockView| {
                format!("  {}  {} has {}", lock.id, printable(&lock.owner), words::what(&lock.paths))
            };
            let lines: Vec<String> = many.iter().map(line).collect();
            Err(Error::Usage(format!(
                "there are several locks at '{path}'; say which one:\n{}",
                lines.join("\n")
            )))
        }
    }
}
