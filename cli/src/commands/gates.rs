//! What people decide about waiting tasks: `approve`, `reject`, `release`; and `relate`.

use agentflow_core::ids::TaskId;
use agentflow_protocol::api::{Nothing, TaskView};
use agentflow_protocol::runs::{RejectBody, RelationBody, RelationView};
use agentflow_protocol::submit::TaskRef;
use serde::Serialize;
use serde_json::json;

use crate::args::{Reject, Relate, SomeTasks};
use crate::client::Client;
use crate::error::{Error, exit};
use crate::output::Output;
use crate::settle::task_path;

pub(super) fn approve(tasks: &SomeTasks, client: &Client, output: Output) -> Result<u8, Error> {
    each(&tasks.ids, "approve", &Nothing {}, client, output)
}

pub(super) fn reject(reject: &Reject, client: &Client, output: Output) -> Result<u8, Error> {
    let body = RejectBody { reason: reject.reason.clone() };
    each(&reject.tasks.ids, "reject", &body, client, output)
}

pub(super) fn release(tasks: &SomeTasks, client: &Client, output: Output) -> Result<u8, Error> {
    each(&tasks.ids, "release", &Nothing {}, client, output)
}

/// Goes on after a refusal; the exit code is the first refusal's.
fn each(
    ids: &[TaskId],
    word: &str,
    body: &impl Serialize,
    client: &Client,
    output: Output,
) -> Result<u8, Error> {
    let mut code = exit::DONE;
    let mut tasks: Vec<TaskView> = Vec::new();
    for id in ids {
        match client.post::<TaskView>(&format!("{}/{word}", task_path(id.0)), body) {
            Ok(view) if output.json => tasks.push(view),
            Ok(view) => {
                let status = output.status(view.status);
                output.line(format_args!("{status}  {id:>5}  {}", output.title(&view.title)))?;
            }
            Err(error @ Error::Problem(_)) => {
                eprintln!("agentflow: task {id}: {error}");
                if code == exit::DONE {
                    code = error.exit_code();
                }
            }
            Err(error) => return Err(error),
        }
    }
    if output.json {
        output.json(&json!({ "tasks": tasks }))?;
    }
    Ok(code)
}

pub(super) fn relate(relate: &Relate, client: &Client, output: Output) -> Result<u8, Error> {
    let body = RelationBody {
        predecessor: TaskRef::Number(relate.before.0),
        successor: TaskRef::Number(relate.after.0),
        relation: relate.relation,
    };
    let view: RelationView = client.post("/api/v2/relationships", &body)?;
    if output.json {
        output.json(&view)?;
    } else {
        output.line(format_args!("{} -> {}  {}", view.predecessor, view.successor, view.relation))?;
    }
    Ok(exit::DONE)
}
