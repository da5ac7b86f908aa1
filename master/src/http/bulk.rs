//! `POST /tasks/bulk`: one action on every task that matches, in turns.
//!
//! The answer counts what matches now; the work goes on behind it, a page of ids at a time, so that
//! neither the kernel nor other clients wait for a million tasks. It ends with the master: what was
//! not reached is said in the log, and the same request does the rest.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::{HttpRequest, web};
use agentflow_core::ids::{RunId, TaskId};
use agentflow_core::kernel::{Answer, Request};
use agentflow_core::limits;
use agentflow_core::spec::ContinueFrom;
use agentflow_core::status::Status;
use agentflow_protocol::Problem;
use agentflow_protocol::api::{BulkAction, BulkAnswer, BulkBody};
use agentflow_protocol::submit::check_name;
use agentflow_schema::TaskFilter;

use super::answer::{Answered, Failure, ok};
use super::{read, tasks};
use crate::state::Master;

/// Bulk actions at once. Each keeps a reading connection busy, of which there are four.
const AT_ONCE: usize = 4;

/// Wait after a turn that could not be done (a full disk, a limit).
const PAUSE: Duration = Duration::from_secs(1);

/// Such turns in a row before an action is given up: ten minutes.
const PAUSES: u32 = 600;

/// What is done to each task.
#[derive(Clone)]
enum Change {
    Cancel,
    Retry,
    Patch { priority: Option<u8>, group: Option<Arc<str>> },
}

impl Change {
    fn request(&self, tasks: Vec<TaskId>) -> Request {
        match self.clone() {
            Self::Cancel => Request::Cancel { tasks },
            Self::Retry => Request::Retry { tasks, continue_from: ContinueFrom::Checkpoint },
            Self::Patch { priority, group } => Request::Patch { tasks, priority, group },
        }
    }
}

/// Counts an action for as long as it is under way.
struct Place(web::Data<Master>);

impl Place {
    fn take(master: &web::Data<Master>) -> Result<Self, Failure> {
        if master.bulk_actions.fetch_add(1, Ordering::Relaxed) >= AT_ONCE {
            master.bulk_actions.fetch_sub(1, Ordering::Relaxed);
            return Err(Failure::too_many(format!(
                "bulk actions at once: at most {AT_ONCE}; try again later"
            )));
        }
        Ok(Self(master.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.bulk_actions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Does one thing to all tasks that match.
#[utoipa::path(post, path = "/api/v2/tasks/bulk", tag = "tasks", request_body = BulkBody,
    responses((status = 200, body = BulkAnswer, description = "How many match; the work goes on in turns"),
        (status = 422, body = Problem), (status = 429, body = Problem)))]
pub(crate) async fn bulk(master: web::Data<Master>, request: HttpRequest, payload: web::Payload) -> Answered {
    read::no_query(&request)?;
    master.check_writable()?;
    let body: BulkBody = read::json(&request, payload).await?;
    let change = change(&body)?;
    let filter = filter(body)?;
    let place = Place::take(&master)?;
    let counted = filter.clone();
    let matched = master.read(move |readers| readers.count(&counted)).await?;
    if matched > 0 {
        actix_rt::spawn(go_on(place, filter, change));
    }
    ok(&BulkAnswer { matched })
}

fn change(body: &BulkBody) -> Result<Change, Failure> {
    let unused = |given: bool, field: &str| {
        if given { Err(Failure::field(field, "does not belong to this action")) } else { Ok(()) }
    };
    unused(body.priority.is_some() && body.action != BulkAction::Priority, "/priority")?;
    unused(body.group.is_some() && body.action != BulkAction::Group, "/group")?;
    Ok(match body.action {
        BulkAction::Cancel => Change::Cancel,
        BulkAction::Retry => Change::Retry,
        BulkAction::Priority => {
            let Some(priority) = &body.priority else {
                return Err(Failure::field("/priority", "is missing; the action 'priority' needs it"));
            };
            let number = priority.number().map_err(|why| Failure::field("/priority", why))?;
            Change::Patch { priority: Some(number), group: None }
        }
        BulkAction::Group => {
            let Some(group) = &body.group else {
                return Err(Failure::field("/group", "is missing; the action 'group' needs it"));
            };
            check_name(group).map_err(|why| Failure::field("/group", why))?;
            Change::Patch { priority: None, group: Some(group.as_str().into()) }
        }
    })
}

fn filter(body: BulkBody) -> Result<TaskFilter, Failure> {
    let filter = body.filter;
    let labels = filter.label.as_deref().map(tasks::label).transpose();
    let labels = labels.map_err(|why| Failure::field("/filter/label", why))?;
    let mut wanted = TaskFilter {
        statuses: filter.status,
        group: filter.group,
        worker: filter.worker,
        labels: labels.into_iter().collect(),
        ids: filter.ids.into_iter().map(TaskId).collect(),
        run: filter.run.map(RunId),
    };
    if wanted == TaskFilter::default() {
        let detail = "is empty, which would mean every task; name status, group, worker, label, run or ids";
        return Err(Failure::field("/filter", detail));
    }
    if wanted.ids.len() > limits::TASKS_PER_SUBMISSION {
        let detail = format!("has {} ids; at most {}", wanted.ids.len(), limits::TASKS_PER_SUBMISSION);
        return Err(Failure::field("/filter/ids", detail));
    }
    if wanted.statuses.is_empty() {
        wanted.statuses = match body.action {
            // Nobody who says "again" means what went well.
            BulkAction::Retry => vec![Status::Failed, Status::Cancelled, Status::Skipped],
            BulkAction::Cancel | BulkAction::Priority | BulkAction::Group => tasks::live(),
        };
    }
    Ok(wanted)
}

async fn go_on(place: Place, filter: TaskFilter, change: Change) {
    let master = &place.0;
    let listener = master.stopping.listen();
    let mut after = TaskId(0);
    let (mut changed, mut refused, mut pauses) = (0_u64, 0_usize, 0);
    loop {
        match listener.unless(turn(master, &filter, &change, after)).await {
            None => {
                log::warn!("a bulk action ends at task {after} because the master stops; send it again");
                return;
            }
            Some(Ok(turn)) => {
                pauses = 0;
                changed += u64::from(turn.changed);
                refused += turn.refused;
                match turn.next {
                    Some(next) => after = next,
                    None => break,
                }
            }
            Some(Err(failure)) if pauses < PAUSES => {
                pauses += 1;
                log::warn!("a bulk action waits at task {after}: {failure}");
                listener.unless(actix_rt::time::sleep(PAUSE)).await;
            }
            Some(Err(failure)) => {
                log::error!("a bulk action was given up at task {after}: {failure}");
                return;
            }
        }
    }
    log::info!("a bulk action has changed {changed} tasks; {refused} were not in a state for it");
}

struct Turn {
    changed: u32,
    refused: usize,
    next: Option<TaskId>,
}

async fn turn(master: &Master, filter: &TaskFilter, change: &Change, after: TaskId) -> Result<Turn, Failure> {
    let filter = filter.clone();
    let (ids, next) = master.read(move |readers| readers.task_ids(&filter, after, limits::PAGE)).await?;
    if ids.is_empty() {
        return Ok(Turn { changed: 0, refused: 0, next });
    }
    master.check_writable()?;
    match master.ask(change.request(ids)).await? {
        Answer::Changed { changed, refused } => {
            if let Some((_, limit)) = refused.iter().find(|(_, rejection)| rejection.is_limit()) {
                return Err(limit.clone().into());
            }
            Ok(Turn { changed, refused: refused.len(), next })
        }
        other => Err(tasks::unexpected(&other)),
    }
}
