//! What people decide about waiting tasks: `approve`, `reject`, `release`; and `relate`.

use agentflow_protocol::api::Nothing;
use agentflow_protocol::runs::{RejectBody, RelationBody, RelationView};
use agentflow_protocol::submit::TaskRef;

use super::each::each_task;
use crate::args::{Reject, Relate, SomeTasks};
use crate::client::Client;
use crate::error::{Error, exit};
use crate::output::Output;

pub(super) fn approve(tasks: &SomeTasks, client: &Client, output: Output) -> Result<u8, Error> {
    each_task(&tasks.ids, "approve", &Nothing {}, client, output)
}

pub(super) fn reject(reject: &Reject, client: &Client, output: Output) -> Result<u8, Error> {
    let body = RejectBody { reason: reject.reason.clone() };
    each_task(&reject.tasks.ids, "reject", &body, client, output)
}

pub(super) fn release(tasks: &SomeTasks, client: &Client, output: Output) -> Result<u8, Error> {
    each_task(&tasks.ids, "release", &Nothing {}, client, output)
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
