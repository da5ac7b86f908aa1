//! The same request for several tasks or runs, one after the other.

use std::fmt::Display;

use agentflow_core::ids::TaskId;
use agentflow_protocol::api::TaskView;
use serde::Serialize;
use serde_json::json;

use crate::client::Client;
use crate::error::{Error, exit};
use crate::output::Output;
use crate::settle::task_path;

/// Asks for each of them and shows what became of it. `noun` is what they are: `task`, `run`.
///
/// Goes on after a refusal; the exit code is the first refusal's.
///
/// # Errors
/// What keeps it from asking for the others too, such as a master that does not answer.
pub(super) fn each<I: Copy + Display, V: Serialize>(
    ids: &[I],
    noun: &str,
    output: Output,
    ask: impl Fn(I) -> Result<V, Error>,
    show: impl Fn(I, &V) -> Result<(), Error>,
) -> Result<u8, Error> {
    let mut code = exit::DONE;
    let mut views = Vec::new();
    for id in ids {
        match ask(*id) {
            Ok(view) if output.json => views.push(view),
            Ok(view) => show(*id, &view)?,
            Err(error @ Error::Problem(_)) => {
                eprintln!("agentflow: {noun} {id}: {error}");
                if code == exit::DONE {
                    code = error.exit_code();
                }
            }
            Err(error) => return Err(error),
        }
    }
    if output.json {
        output.json(&json!({ format!("{noun}s"): views }))?;
    }
    Ok(code)
}

/// Posts `body` to that route of each task and prints how the task stands then.
///
/// # Errors
/// As those of [`each`].
pub(super) fn each_task(
    ids: &[TaskId],
    word: &str,
    body: &impl Serialize,
    client: &Client,
    output: Output,
) -> Result<u8, Error> {
    let ask = |id: TaskId| client.post::<TaskView>(&format!("{}/{word}", task_path(id.0)), body);
    each(ids, "task", output, ask, |id, task| {
        let note = if task.cancelling { "  (being stopped)" } else { "" };
        let (status, title) = (output.status(task.status), output.title(&task.title));
        output.line(format_args!("{status}  {id:>5}  {title}{note}"))
    })
}
