//! `lock`: takes a lock, alone or while a program runs.

use std::time::Duration;

use agentflow_core::lock::{LockMode, PathLock};
use agentflow_protocol::inside::{Line, Said};
use agentflow_protocol::locks::{LockBody, LockView, warnings};
use serde_json::json;

use super::ask::{self, Granted, bodies};
use super::ground::{Ground, owner};
use super::{connect, hold, program, words};
use crate::args::{Global, Lock, Term};
use crate::error::{Error, exit};
use crate::inside::Inside;
use crate::output::Output;

/// How long the lock of a program is held without being renewed. If this program is killed, nobody waits
/// longer than that; if the master is away for longer, the program is stopped.
const WITH_PROGRAM: Duration = Duration::from_secs(300);

pub(super) fn take(lock: &Lock, global: &Global, output: Output) -> Result<u8, Error> {
    let ground = Ground::find(&lock.place)?;
    let mode = if lock.read { LockMode::Read } else { LockMode::Write };
    let paths = ground.paths(&lock.paths, mode)?;
    for warning in warnings(&paths) {
        if !lock.force {
            return Err(Error::Usage(format!("{warning}; name what is to be changed, or add --force")));
        }
        eprintln!("agentflow: {warning}");
    }
    if let Some(inside) = Inside::here() {
        return within(lock, &ground, &paths, &inside, output);
    }
    let client = connect(global)?;
    let body = LockBody {
        repo: ground.repo.to_string(),
        paths: bodies(&paths),
        owner: Some(owner(&lock.whose)),
        ttl_ms: ttl_ms(lock),
        reason: lock.reason.clone(),
        ignore_case: ground.ignore_case,
        ..LockBody::default()
    };
    let granted = ask::ask(&client, &body, lock.wait.unwrap_or_default())?;
    ground.note(&granted.lock, granted.expires_at());
    if !lock.argv.is_empty() {
        return hold::hold(client, &ground, granted, &lock.argv);
    }
    show(&granted, output)?;
    Ok(exit::DONE)
}

/// As the master is asked: nothing for what is usual, null for ever.
fn ttl_ms(lock: &Lock) -> Option<Option<u64>> {
    let ms = |time: Duration| Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    match lock.ttl {
        Some(Term::Endless) => Some(None),
        Some(Term::For(time)) => Some(ms(time)),
        None if lock.argv.is_empty() => None,
        None => Some(ms(WITH_PROGRAM)),
    }
}

fn show(granted: &Granted, output: Output) -> Result<(), Error> {
    let lock: &LockView = &granted.lock;
    if output.json {
        return output.json(lock);
    }
    let until = words::until(&lock.owner, lock.expires_at);
    output.line(format_args!("locked {} {until}", words::what(&lock.paths)))?;
    output.line(format_args!("lock {}, fence {}, of {}", lock.id, lock.fence, lock.owner))
}

/// Inside a task: the lock is its attempt's, and ends with it.
fn within(
    lock: &Lock,
    ground: &Ground,
    paths: &[PathLock],
    inside: &Inside,
    output: Output,
) -> Result<u8, Error> {
    if lock.ttl.is_some() || lock.whose.owner.is_some() {
        let text = "inside a task a lock is the attempt's and ends with it: leave out --ttl and --owner";
        return Err(Error::Usage(text.to_owned()));
    }
    let said = inside.say(&Line {
        repo: Some(ground.repo.to_string()),
        paths: Some(bodies(paths)),
        wait_ms: lock.wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        reason: lock.reason.clone(),
        ignore_case: ground.ignore_case,
        ..inside.line("lock")
    });
    let Said { lock: Some(held), .. } = said.map_err(|error| refused(error, lock.wait.is_some()))? else {
        return Err(Error::Busy("the worker granted the lock and does not say which it is".to_owned()));
    };
    if !lock.argv.is_empty() {
        let code = program::run_alone(&lock.argv);
        inside.say(&Line { lock: Some(held.id.to_string()), ..inside.line("unlock") })?;
        return code;
    }
    if output.json {
        output.json(&json!({ "id": held.id, "fence": held.fence, "repo": held.repo, "paths": paths }))?;
    } else {
        output.line(format_args!("locked {} until this attempt ends", words::what(paths)))?;
        output.line(format_args!("lock {}, fence {}", held.id, held.fence))?;
    }
    Ok(exit::DONE)
}

/// Who is in the way, as far as the worker knows.
fn refused(error: Error, has_waited: bool) -> Error {
    match error {
        Error::Problem(problem) if ask::is_locked(&problem) && !problem.holders().is_empty() => {
            let mut lines: Vec<String> =
                problem.holders().iter().map(|holder| words::holder(holder, None)).collect();
            lines.push(ask::advice(has_waited).to_owned());
            Error::Busy(lines.join("\n  "))
        }
        other => other,
    }
}
