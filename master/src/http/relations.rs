//! Tasks that wait for others: relating them, letting them go, approving them, and the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, web};
use agentflow_core::batch::RelationRow;
use agentflow_core::blob::Outputs;
use agentflow_core::ids::TaskId;
use agentflow_core::kernel::{Answer, Predecessor, Request};
use agentflow_core::limits;
use agentflow_core::rejection::Rejection;
use agentflow_core::status::Status;
use agentflow_protocol::Problem;
use agentflow_protocol::api::{Nothing, TaskView};
use agentflow_protocol::runs::{PlanView, RejectBody, RelationBody, RelationView, Relations};
use agentflow_protocol::submit::check_name;
use agentflow_workflow::{Mode, graph};
use serde::Deserialize;

use super::answer::{Answered, Failure, json, ok};
use super::{read, tasks};
use crate::state::Master;

/// How often a predecessor may end between the look at its row and the question to the kernel. The
/// row follows within one commit.
const LOOKS: u32 = 50;

/// Between two looks: a commit.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How predecessors ended, as far as the database knows.
#[derive(Debug, Default)]
pub(crate) struct Predecessors(BTreeMap<TaskId, (Status, Option<Outputs>)>);

impl Predecessors {
    /// Those of one task.
    pub(crate) fn of(&self, needs: &[TaskId]) -> Vec<Predecessor> {
        let one = |task: &TaskId| Predecessor { task: *task, ended: self.0.get(task).cloned() };
        needs.iter().map(one).collect()
    }
}

/// Asks the kernel something that names predecessors. It knows live tasks; the database knows those
/// that have ended, and one that ends in between is looked at again.
pub(crate) async fn with_predecessors(
    master: &Master,
    needs: &BTreeSet<TaskId>,
    request: impl Fn(&Predecessors) -> Request,
) -> Result<Answer, Failure> {
    if needs.is_empty() {
        return master.ask(request(&Predecessors::default())).await;
    }
    let mut looks = 0;
    loop {
        let ended = look(master, needs).await?;
        match master.try_ask(request(&ended)).await? {
            Err(Rejection::JustEnded(_)) if looks < LOOKS => {
                looks += 1;
                actix_rt::time::sleep(LOOK_EVERY).await;
            }
            answer => return Ok(answer?),
        }
    }
}

async fn look(master: &Master, needs: &BTreeSet<TaskId>) -> Result<Predecessors, Failure> {
    let ids: Vec<TaskId> = needs.iter().copied().collect();
    let ended = master
        .read(move |readers| {
            let mut ended = BTreeMap::new();
            for id in ids {
                if let Some(record) = readers.task(id)?
                    && record.state.status.is_settled()
                {
                    ended.insert(id, (record.state.status, record.outcome.whole_outputs()));
                }
            }
            Ok(ended)
        })
        .await?;
    Ok(Predecessors(ended))
}

/// Has one task come after another.
#[utoipa::path(post, path = "/api/v2/relationships", tag = "tasks", request_body = RelationBody,
    responses((status = 201, body = RelationView), (status = 404, body = Problem),
        (status = 409, body = Problem, description = "The successor has started, or it would be a cycle, which is named")))]
pub(crate) async fn relate(
    master: web::Data<Master>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answered {
    read::no_query(&request)?;
    master.check_writable()?;
    let body: RelationBody = read::json(&request, payload).await?;
    let predecessor = body.predecessor.id().map_err(|why| Failure::field("/predecessor", why))?;
    let successor = body.successor.id().map_err(|why| Failure::field("/successor", why))?;
    for task in [predecessor, successor] {
        // A number that was never given away would look like one that has just ended.
        tasks::record(&master, task).await?;
    }
    let needs = BTreeSet::from([predecessor]);
    let relation = body.relation;
    let answer = with_predecessors(&master, &needs, |ended| Request::Relate {
        predecessor: Predecessor {
            task: predecessor,
            ended: ended.of(&[predecessor]).pop().and_then(|predecessor| predecessor.ended),
        },
        successor,
        relation,
    });
    match answer.await? {
        Answer::Done => {
            let view = RelationView {
                predecessor: predecessor.0,
                successor: successor.0,
                relation,
                created_at: None,
            };
            json(StatusCode::CREATED, &view)
        }
        other => Err(tasks::unexpected(&other)),
    }
}

fn view(row: RelationRow) -> RelationView {
    RelationView {
        predecessor: row.predecessor.0,
        successor: row.successor.0,
        relation: row.relation,
        created_at: Some(row.created_at.into()),
    }
}

/// What a task comes after, and what comes after it.
#[utoipa::path(get, path = "/api/v2/tasks/{id}/relationships", tag = "tasks", params(("id" = String, Path)),
    responses((status = 200, body = Relations), (status = 404, body = Problem)))]
pub(crate) async fn of_task(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Answered {
    read::no_query(&request)?;
    let id = read::task_id(&id)?;
    tasks::record(&master, id).await?;
    let rows = master.read(move |readers| readers.relations_of(id)).await?;
    ok(&Relations { relationships: rows.into_iter().map(view).collect() })
}

/// Lets a task go that was made with `hold`.
#[utoipa::path(post, path = "/api/v2/tasks/{id}/release", tag = "tasks", params(("id" = String, Path)),
    responses((status = 200, body = TaskView), (status = 404, body = Problem), (status = 409, body = Problem, description = "It does not wait for that")))]
pub(crate) async fn release(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    tasks::act(&master, &request, &id, payload, |id| Request::Release { tasks: vec![id] }, "a release").await
}

/// Lets a node of a run go on that waits for an approval.
#[utoipa::path(post, path = "/api/v2/tasks/{id}/approve", tag = "tasks", params(("id" = String, Path)),
    responses((status = 200, body = TaskView), (status = 404, body = Problem), (status = 409, body = Problem, description = "It does not wait for that")))]
pub(crate) async fn approve(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    read::no_query(&request)?;
    let id = read::task_id(&id)?;
    let Nothing {} = read::json_or_nothing(&request, payload).await?;
    decide(&master, id, Request::Approve { task: id }, "approve").await
}

/// Does not let it go on: it fails.
#[utoipa::path(post, path = "/api/v2/tasks/{id}/reject", tag = "tasks", params(("id" = String, Path)), request_body = RejectBody,
    responses((status = 200, body = TaskView), (status = 404, body = Problem), (status = 409, body = Problem, description = "It does not wait for that")))]
pub(crate) async fn reject(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
    payload: web::Payload,
) -> Answered {
    read::no_query(&request)?;
    let id = read::task_id(&id)?;
    let body: RejectBody = read::json_or_nothing(&request, payload).await?;
    let reason = body.reason.unwrap_or_default();
    if reason.len() > limits::ERROR_BYTES || reason.contains('\0') {
        let detail = format!("allowed: at most {} bytes without NUL", limits::ERROR_BYTES);
        return Err(Failure::field("/reason", detail));
    }
    decide(&master, id, Request::Reject { task: id, reason: reason.into() }, "reject").await
}

async fn decide(master: &Master, id: TaskId, request: Request, action: &str) -> Answered {
    master.check_writable()?;
    match master.try_ask(request).await? {
        Ok(Answer::Done) => tasks::answer(master, id).await,
        Ok(other) => Err(tasks::unexpected(&other)),
        // The kernel knows live tasks only.
        Err(Rejection::UnknownTask(_)) => {
            let status = tasks::record(master, id).await?.state.status;
            let detail = format!("the task is {status}; {action} needs one that waits for an approval");
            Err(Failure::conflict(detail))
        }
        Err(rejection) => Err(rejection.into()),
    }
}

/// Query of `GET /plan`.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PlanQuery {
    /// The tasks of this group that are not settled.
    group: Option<String>,
    /// These tasks, separated by commas.
    tasks: Option<String>,
    /// `sequential` (one a level), `parallel` (one level), or by relationships: `dag` (default),
    /// `pipeline`, `conditional`.
    mode: Option<String>,
}

/// The levels in which plain tasks may run.
#[utoipa::path(get, path = "/api/v2/plan", tag = "tasks", params(PlanQuery),
    responses((status = 200, body = PlanView<u64>), (status = 409, body = Problem, description = "Asked for in parallel, and not independent"), (status = 422, body = Problem)))]
pub(crate) async fn plan(master: web::Data<Master>, request: HttpRequest) -> Answered {
    let query: PlanQuery = read::query(&request)?;
    let wrong = |why: String| Failure::new(422, "query", format!("the query: {why}"));
    let mode: Mode = match &query.mode {
        Some(mode) => mode.parse().map_err(|error| wrong(format!("mode: {error}")))?,
        None => Mode::Dag,
    };
    let ids = match (&query.group, &query.tasks) {
        (Some(_), Some(_)) => return Err(wrong("give group or tasks, not both".to_owned())),
        (_, Some(list)) => {
            let ids = list.split(',').map(|id| id.trim().parse::<TaskId>()).collect::<Result<Vec<_>, _>>();
            ids.map_err(|_| wrong(format!("tasks: '{list}' is no list of ids such as 1,2")))?
        }
        (group, None) => {
            let group = group.clone().unwrap_or_else(|| "default".to_owned());
            check_name(&group).map_err(|why| wrong(format!("group: {why}")))?;
            master.read(move |readers| readers.live_in_group(&group, limits::TASKS_PER_SUBMISSION)).await?
        }
    };
    if ids.len() > limits::TASKS_PER_SUBMISSION {
        let limit = limits::TASKS_PER_SUBMISSION;
        return Err(wrong(format!("tasks: {} ids; at most {limit}", ids.len())));
    }
    let ids: Vec<TaskId> = ids.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    if query.tasks.is_some() {
        for id in &ids {
            tasks::record(&master, *id).await?;
        }
    }
    let asked = ids.clone();
    let rows = master.read(move |readers| readers.relations_among(&asked)).await?;
    ok(&PlanView { plan: levels(mode, &ids, &rows)? })
}

fn levels(mode: Mode, ids: &[TaskId], rows: &[RelationRow]) -> Result<Vec<Vec<u64>>, Failure> {
    let place: BTreeMap<TaskId, u32> = ids.iter().copied().zip(0..).collect();
    let edges: Vec<(u32, u32)> = rows
        .iter()
        .filter(|row| row.relation.orders())
        .filter_map(|row| Some((*place.get(&row.predecessor)?, *place.get(&row.successor)?)))
        .collect();
    let levels = graph::levels(ids.len(), edges.iter().copied())
        .map_err(|cycle| Failure::conflict(format!("the relationships are a cycle: {cycle:?}")))?;
    let id = |place: u32| ids[place as usize].0;
    Ok(match mode {
        // One after the other, none before what it comes after.
        Mode::Sequential => levels.into_iter().flatten().map(|place| vec![id(place)]).collect(),
        Mode::Parallel => {
            if let Some((before, after)) = edges.first() {
                let (before, after) = (id(*before), id(*after));
                let detail = format!("not independent: task {after} comes after task {before}");
                return Err(Failure::conflict(detail));
            }
            levels.into_iter().map(|level| level.into_iter().map(id).collect()).collect()
        }
        _ => levels.into_iter().map(|level| level.into_iter().map(id).collect()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use agentflow_core::relation::Relation;
    use agentflow_core::time::Wall;

    use super::*;

    fn check(mode: Mode, tasks: &[u64], pairs: &[(u64, u64)], expected: Option<&[&[u64]]>) {
        let ids: Vec<TaskId> = tasks.iter().map(|id| TaskId(*id)).collect();
        let row = |(before, after): &(u64, u64)| RelationRow {
            predecessor: TaskId(*before),
            successor: TaskId(*after),
            relation: Relation::Dependency,
            created_at: Wall(0),
        };
        let rows: Vec<RelationRow> = pairs.iter().map(row).collect();
        let found = levels(mode, &ids, &rows).ok();
        assert_eq!(found, expected.map(|levels| levels.iter().map(|level| level.to_vec()).collect()));
    }

    #[test]
    fn plans_have_levels() {
        check(Mode::Dag, &[1, 2], &[(1, 2)], Some(&[&[1], &[2]]));
        let diamond = [(1, 2), (1, 3), (2, 4), (3, 4)];
        check(Mode::Dag, &[1, 2, 3, 4], &diamond, Some(&[&[1], &[2, 3], &[4]]));
        check(Mode::Sequential, &[1, 2, 3, 4], &diamond, Some(&[&[1], &[2], &[3], &[4]]));
        check(Mode::Parallel, &[1, 2, 5], &[], Some(&[&[1, 2, 5]]));
        check(Mode::Parallel, &[1, 2], &[(1, 2)], None);
        check(Mode::Dag, &[], &[], Some(&[]));
    }
}
