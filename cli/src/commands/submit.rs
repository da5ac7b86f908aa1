//! `submit`: hands in tasks, and waits for them if asked.

use std::sync::Arc;

use agentflow_protocol::api::{Ids, TaskView};
use agentflow_protocol::submit::{TaskBody, TaskRef, TasksBody};
use serde_json::json;

use super::report::{Bar, Tally, Work, see_through};
use crate::args::{Global, Submit};
use crate::client::{Client, random_hex};
use crate::error::{Error, exit};
use crate::input::read_text;
use crate::interrupt::{Ended, guarded};
use crate::output::Output;
use crate::run_list;
use crate::settle::{Since, head};
use crate::task_locks;

pub(super) fn submit(submit: Submit, global: &Global, output: Output) -> Result<u8, Error> {
    let (tasks, name) = tasks_of(&submit)?;
    run_list::check(&tasks, &name)?;
    let client = Arc::new(super::connect(global)?);
    let key = match &submit.idempotency_key {
        Some(key) => key.clone(),
        None => random_hex(16)?,
    };
    let waits =
        submit.wait_for_it || submit.wait.logs || submit.wait.exit_code || submit.wait_timeout.is_some();
    let since = if waits { Some(head(&client)?) } else { None };
    let ids = match tasks.as_slice() {
        [task] => {
            let view: TaskView = client.post_keyed("/api/v2/tasks", task, &key)?;
            if !waits && output.json {
                output.json(&view)?;
                return Ok(exit::DONE);
            }
            vec![view.id]
        }
        many => hand_in(&client, many, &key)?,
    };
    if !waits {
        if output.json {
            output.json(&json!({ "ids": ids }))?;
        } else {
            ids.iter().try_for_each(|id| output.line(id))?;
        }
        return Ok(exit::DONE);
    }
    let titles = ids.iter().copied().zip(tasks.iter().map(run_list::headline)).collect();
    let work = Work { ids, titles, run: None };
    // With a key of the user's the tasks may be old ones that settled before.
    let since = match since {
        Some(head) if submit.idempotency_key.is_none() => Since::Event(head),
        _ => Since::Now,
    };
    let flags = submit.wait;
    let again = again_hint(&work);
    let bar = Bar::new(work.ids.len(), output);
    let shown = bar.clone();
    let ended =
        guarded(submit.wait_timeout, move || see_through(&client, &work, since, flags, output, &bar))?;
    finish(ended, flags, &shown, &again)
}

/// The exit code of waiting, and the line that says how to go on.
pub(super) fn finish(
    ended: Ended<Result<Tally, Error>>,
    flags: crate::args::WaitFlags,
    bar: &Bar,
    again: &str,
) -> Result<u8, Error> {
    match ended {
        Ended::Done(tally) => Ok(tally?.exit_code(flags)),
        Ended::Interrupted => {
            bar.clear();
            eprintln!("interrupted; the work goes on: {again}");
            Ok(exit::INTERRUPTED)
        }
        Ended::TimedOut => {
            bar.clear();
            eprintln!("not settled in time; the work goes on: {again}");
            Ok(exit::TIMEOUT)
        }
    }
}

/// How to wait again for this work and how to stop it.
pub(super) fn again_hint(work: &Work) -> String {
    let ids: Vec<String> = work.ids.iter().take(20).map(u64::to_string).collect();
    let more = if work.ids.len() > ids.len() { " …" } else { "" };
    let ids = ids.join(" ");
    format!("wait with `agentflow wait {ids}{more}`, stop it with `agentflow cancel {ids}{more}`")
}

/// Sends tasks in portions. Keys are made from `key`, so that the same call after a crash makes
/// nothing twice.
pub(super) fn hand_in(client: &Client, tasks: &[TaskBody], key: &str) -> Result<Vec<u64>, Error> {
    let mut ids = Vec::with_capacity(tasks.len());
    for (number, portion) in run_list::portions(tasks).into_iter().enumerate() {
        let body = TasksBody { tasks: portion.to_vec() };
        let key = if number == 0 { key.to_owned() } else { format!("{key}-{number}") };
        let answer: Ids = client.post_keyed("/api/v2/tasks", &body, &key)?;
        if answer.ids.len() != portion.len() {
            return Err(Error::Answer {
                at: client.address(),
                cause: format!("{} ids for {} tasks", answer.ids.len(), portion.len()),
            });
        }
        ids.extend(&answer.ids);
    }
    Ok(ids)
}

/// The tasks that the flags describe, and what to call their source in messages.
fn tasks_of(submit: &Submit) -> Result<(Vec<TaskBody>, String), Error> {
    let (mut tasks, name) = match &submit.file {
        Some(path) => (run_list::parse(&read_text(path)?, path)?, path.clone()),
        None => {
            let input = submit.input.as_deref().map(serde_json::from_str).transpose();
            let input = input.map_err(|error| Error::Usage(format!("--input is no JSON: {error}")))?;
            let task = TaskBody { input, ..single(submit) };
            (vec![task; submit.count as usize], "the task".to_owned())
        }
    };
    let not_before = submit
        .not_before
        .as_ref()
        .map(|text| serde_json::from_value(json!(text)))
        .transpose()
        .map_err(|error| Error::Usage(format!("--not-before: {error}")))?;
    for task in &mut tasks {
        run_list::apply(task, &submit.task, submit.timeout);
        task.title = task.title.take().or_else(|| submit.title.clone());
        task.description = task.description.take().or_else(|| submit.description.clone());
        task.not_before = task.not_before.or(not_before);
        if !submit.needs.is_empty() && task.needs.is_none() {
            task.needs = Some(submit.needs.iter().map(|id| TaskRef::Number(id.0)).collect());
        }
        task.hold = task.hold.or(submit.hold.then_some(true));
    }
    task_locks::apply(&mut tasks, &submit.task)?;
    Ok((tasks, name))
}

fn single(submit: &Submit) -> TaskBody {
    let kind = |kind: &str| TaskBody { kind: Some(kind.to_owned()), ..TaskBody::default() };
    if let Some(line) = &submit.shell {
        return run_list::shell(line.clone());
    }
    if let Some(path) = &submit.script {
        return TaskBody { path: Some(path.clone()), ..kind("script") };
    }
    if let Some(name) = &submit.handler {
        return TaskBody { name: Some(name.clone()), ..kind("handler") };
    }
    if let Some(word) = &submit.kind {
        return kind(word);
    }
    TaskBody { argv: Some(submit.argv.clone()), ..kind("exec") }
}
