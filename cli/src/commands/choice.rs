//! `cancel` and `retry`: of tasks by id, or of all that match a filter.

use agentflow_core::spec::ContinueFrom;
use agentflow_core::status::Status;
use agentflow_protocol::api::{BulkAction, BulkAnswer, BulkBody, BulkFilter, Nothing};
use agentflow_protocol::saved::ContinueBody;

use super::each::each_task;
use crate::args::{Choice, Retry};
use crate::client::Client;
use crate::error::{Error, exit};
use crate::output::Output;

pub(super) fn cancel(choice: &Choice, client: &Client, output: Output) -> Result<u8, Error> {
    let open = [Status::Blocked, Status::Pending, Status::Running];
    act(choice, BulkAction::Cancel, &open, client, output)
}

pub(super) fn retry(retry: &Retry, client: &Client, output: Output) -> Result<u8, Error> {
    if retry.from_beginning {
        let body = ContinueBody { continue_from: ContinueFrom::Beginning };
        return each_task(&retry.choice.ids, "retry", &body, client, output);
    }
    act(&retry.choice, BulkAction::Retry, &[Status::Failed, Status::Cancelled], client, output)
}

/// `usual` are the statuses that are meant when none is given.
fn act(
    choice: &Choice,
    action: BulkAction,
    usual: &[Status],
    client: &Client,
    output: Output,
) -> Result<u8, Error> {
    let filter = &choice.filter;
    let filtered = !filter.status.is_empty()
        || filter.group.is_some()
        || filter.worker.is_some()
        || filter.label.is_some();
    match (choice.ids.is_empty(), filtered || choice.all) {
        (false, false) => {
            let word = if action == BulkAction::Cancel { "cancel" } else { "retry" };
            each_task(&choice.ids, word, &Nothing {}, client, output)
        }
        (true, true) => {
            let status = if filter.status.is_empty() { usual.to_vec() } else { filter.status.clone() };
            let filter = BulkFilter {
                status,
                group: filter.group.clone(),
                worker: filter.worker.clone(),
                label: filter.label.clone(),
                run: None,
                ids: Vec::new(),
            };
            bulk(filter, action, client, output)
        }
        (true, false) => Err(Error::Usage(
            "name tasks by id, or choose them with --status, --group, --worker, --label or --all".into(),
        )),
        (false, true) => Err(Error::Usage("name tasks by id or by filter, not both".into())),
    }
}

fn bulk(filter: BulkFilter, action: BulkAction, client: &Client, output: Output) -> Result<u8, Error> {
    let body = BulkBody { filter, action, priority: None, group: None };
    let answer: BulkAnswer = client.post("/api/v2/tasks/bulk", &body)?;
    if output.json {
        output.json(&answer)?;
    } else {
        let done = if action == BulkAction::Cancel { "are being cancelled" } else { "are run again" };
        output.line(format_args!("{} tasks {done}", answer.matched))?;
    }
    Ok(exit::DONE)
}
