//! `POST /tasks`: one task or many, checked here, made by the kernel, answered from what is known.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use agentflow_actors::wall;
use agentflow_core::batch::{KeyHash, KeyRow};
use agentflow_core::blob::NewBlob;
use agentflow_core::ids::TaskId;
use agentflow_core::kernel::{Answer, NewTask, PreparedSpec, Request, SubmitKey};
use agentflow_core::limits;
use agentflow_core::rejection::Rejection;
use agentflow_core::spec::Payload;
use agentflow_core::time::Wall;
use agentflow_protocol::Problem;
use agentflow_protocol::api::{Ids, TaskView};
use agentflow_protocol::problem::FieldError;
use agentflow_protocol::submit::{Checked, TaskBody, TasksBody, check_idempotency_key};
use serde::de::IgnoredAny;

use super::answer::{Answered, Failure, json};
use super::large::Elsewhere;
use super::relations::{self, Predecessors};
use super::{blobs, large, read, tasks, views};
use crate::state::Master;

/// Wrong fields that are named in one answer. A batch may have ten thousand of them.
const ERRORS: usize = 100;

/// Whom a key belongs to. All clients share one scope until there are tokens of their own.
const SCOPE: &str = "shared";

/// Makes one task, or up to 10,000 at once: all or none.
#[utoipa::path(
    post,
    path = "/api/v2/tasks",
    tag = "tasks",
    params(("Idempotency-Key" = Option<String>, Header,
        description = "The same key with the same body makes nothing new and gets the first answer again; another body gets 409")),
    request_body(content = TasksBody, description = "`{\"tasks\": […]}`, or one task (schema `TaskBody`)"),
    responses(
        (status = 201, body = TaskView, description = "The task; for a batch `{\"ids\": […]}` (schema `Ids`)"),
        (status = 409, body = Problem, description = "The key was used with another body"),
        (status = 413, body = Problem, description = "The body is larger than 32 MiB"),
        (status = 422, body = Problem, description = "Every bad field by its JSON pointer"),
        (status = 429, body = Problem, description = "Too many tasks are not settled"),
        (status = 503, body = Problem, description = "Stopping, or the disk is full"),
    )
)]
pub(crate) async fn submit(
    master: web::Data<Master>,
    request: HttpRequest,
    payload: web::Payload,
) -> Answered {
    read::no_query(&request)?;
    master.check_writable()?;
    let body = read::body(&request, payload, limits::LARGE_BODY_BYTES).await?;
    let key = header_key(&request)?;
    if is_batch(&body, "tasks") {
        many(&master, read::object(&body)?, key).await
    } else {
        one(&master, read::object(&body)?, key).await
    }
}

pub(crate) fn header_key(request: &HttpRequest) -> Result<Option<Cow<'_, str>>, Failure> {
    let Some(value) = request.headers().get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    check_idempotency_key(text)
        .map_err(|why| Failure::new(422, "invalid", format!("the header Idempotency-Key: {why}")))?;
    Ok(Some(Cow::Borrowed(text)))
}

/// The key of one thing that is made. It may stand in the header or in a field.
pub(crate) fn one_key(
    header: Option<Cow<'_, str>>,
    field: Option<String>,
) -> Result<Option<String>, Failure> {
    match (header, field) {
        (Some(header), Some(field)) if header != field => {
            let detail = "is not the same as the header Idempotency-Key; send one of them";
            Err(Failure::field("/idempotency_key", detail))
        }
        (Some(key), _) => Ok(Some(key.into_owned())),
        (None, field) => Ok(field),
    }
}

/// Whether the body is that of many, which stand in this field. Most bodies tell within their first bytes.
pub(crate) fn is_batch(body: &[u8], field: &str) -> bool {
    let text = body.trim_ascii_start().strip_prefix(b"{").unwrap_or_default().trim_ascii_start();
    let needle = format!("\"{field}\"");
    text.starts_with(needle.as_bytes())
        || (text.windows(needle.len()).any(|window| window == needle.as_bytes())
            && serde_json::from_slice::<BTreeMap<Cow<'_, str>, IgnoredAny>>(body)
                .is_ok_and(|fields| fields.contains_key(field)))
}

async fn one(master: &Master, mut body: TaskBody, header_key: Option<Cow<'_, str>>) -> Answered {
    let key = one_key(header_key, body.idempotency_key.clone())?;
    let canonical = key.is_some().then(|| {
        body.idempotency_key = None;
        serde_json::to_vec(&body).unwrap_or_default()
    });
    body.idempotency_key.clone_from(&key);
    let checked = body.check("").map_err(Problem::invalid)?;
    let key = key.zip(canonical).map(|(key, body)| submit_key(&key, "task", &body));
    if let Some(made) = find(master, key).await? {
        return created(master, made.first, made.at, &checked).await;
    }
    let (first, _, at) = make(master, std::slice::from_ref(&checked), key).await?;
    created(master, first, at, &checked).await
}

async fn many(master: &Master, body: TasksBody, key: Option<Cow<'_, str>>) -> Answered {
    let count = body.tasks.len();
    if count == 0 || count > limits::TASKS_PER_SUBMISSION {
        let detail = format!("has {count} tasks; allowed: 1 to {}", limits::TASKS_PER_SUBMISSION);
        return Err(Failure::field("/tasks", detail));
    }
    let key = key.map(|key| submit_key(&key, "tasks", &serde_json::to_vec(&body).unwrap_or_default()));
    let checked = check(body.tasks)?;
    let (first, count) = match find(master, key).await? {
        Some(made) => (made.first, made.count),
        None => {
            let (first, count, _) = make(master, &checked, key).await?;
            (first, count)
        }
    };
    json(StatusCode::CREATED, &Ids { ids: (first.0..first.0 + u64::from(count)).collect() })
}

fn check(bodies: Vec<TaskBody>) -> Result<Vec<Checked>, Failure> {
    let mut errors = Vec::new();
    let mut checked = Vec::with_capacity(bodies.len());
    for (at, body) in bodies.into_iter().enumerate() {
        let pointer = format!("/tasks/{at}");
        if body.idempotency_key.is_some() {
            errors.push(FieldError {
                pointer: format!("{pointer}/idempotency_key"),
                detail: "a batch has one key, in the header Idempotency-Key".to_owned(),
            });
        }
        match body.check(&pointer) {
            Ok(task) => checked.push(task),
            Err(more) => errors.extend(more),
        }
        if errors.len() >= ERRORS {
            errors.truncate(ERRORS);
            break;
        }
    }
    if errors.is_empty() { Ok(checked) } else { Err(Problem::invalid(errors).into()) }
}

/// Files can be had of tasks that have ended, or that come before. `at` is where a single task stands in
/// the body.
pub(crate) async fn check_sources(master: &Master, tasks: &[Checked], at: &str) -> Result<(), Failure> {
    let mut known = BTreeSet::new();
    for (index, task) in tasks.iter().enumerate() {
        let pointer = || match tasks.len() {
            1 => format!("{at}/artifacts_from"),
            _ => format!("/tasks/{index}/artifacts_from"),
        };
        for id in task.spec.artifacts_from.values().filter(|id| !task.needs.contains(id)) {
            if !known.insert(*id) {
                continue;
            }
            let record = master
                .read({
                    let id = *id;
                    move |readers| readers.task(id)
                })
                .await?;
            let wrong = match record {
                None => format!("there is no task {id}"),
                Some(record) if !record.state.status.is_settled() => {
                    format!("task {id} is {}: name it in needs, too", record.state.status)
                }
                Some(_) => continue,
            };
            return Err(Failure::field(&pointer(), wrong));
        }
    }
    Ok(())
}

/// Hashes each specification once: neighbours in a batch are mostly equal.
fn prepare(tasks: &[Checked]) -> Vec<Arc<PreparedSpec>> {
    let mut specs: Vec<Arc<PreparedSpec>> = Vec::with_capacity(tasks.len());
    let mut last: Option<&Checked> = None;
    for task in tasks {
        let same = specs.last().filter(|_| last.is_some_and(|last| last.spec == task.spec));
        specs.push(same.map_or_else(|| Arc::new(PreparedSpec::new(task.spec.clone())), Arc::clone));
        last = Some(task);
    }
    specs
}

/// Keeps the inputs that are too large for specifications, before anything names them and off the
/// store's thread.
pub(crate) async fn keep_inputs(master: &Master, specs: &mut [Arc<PreparedSpec>]) -> Result<(), Failure> {
    let mut new: Vec<Arc<NewBlob>> = specs.iter().flat_map(|spec| spec.blobs.iter().cloned()).collect();
    if new.is_empty() {
        return Ok(());
    }
    new.dedup_by_key(|blob| blob.sha256);
    let blobs = master.handles.blobs.clone();
    web::block(move || new.iter().try_for_each(|blob| blobs.put_text(blob, wall()).map(drop)))
        .await?
        .map_err(blobs::failed)?;
    for spec in specs.iter_mut().filter(|spec| !spec.blobs.is_empty()) {
        *spec = Arc::new(PreparedSpec { blobs: Vec::new(), ..PreparedSpec::clone(spec) });
    }
    Ok(())
}

fn new_tasks(tasks: &[Checked], specs: &[Arc<PreparedSpec>], ended: &Predecessors) -> Vec<NewTask> {
    let mut known: Option<Arc<str>> = None;
    let mut new = Vec::with_capacity(tasks.len());
    for (task, spec) in tasks.iter().zip(specs) {
        let same = known.filter(|group| **group == *task.group);
        let group = same.unwrap_or_else(|| task.group.as_str().into());
        known = Some(Arc::clone(&group));
        new.push(NewTask {
            title: task.title.as_str().into(),
            group,
            priority: task.priority,
            spec: Arc::clone(spec),
            not_before: task.not_before,
            hold: task.hold,
            needs: ended.of(&task.needs),
        });
    }
    new
}

pub(crate) fn submit_key(key: &str, form: &str, body: &[u8]) -> SubmitKey {
    SubmitKey { key: KeyHash::of(SCOPE, key.as_bytes()), body: KeyHash::of(form, body) }
}

/// What the key was used for, as far as the database knows; the kernel knows the last minute.
pub(crate) async fn find(master: &Master, key: Option<SubmitKey>) -> Result<Option<KeyRow>, Failure> {
    let Some(key) = key else { return Ok(None) };
    match master.read(move |readers| readers.key(&key.key)).await? {
        Some(row) if row.body != key.body => Err(Rejection::KeyConflict.into()),
        row => Ok(row),
    }
}

async fn make(
    master: &Master,
    checked: &[Checked],
    key: Option<SubmitKey>,
) -> Result<(TaskId, u32, Wall), Failure> {
    let needs: BTreeSet<TaskId> = checked.iter().flat_map(|task| task.needs.iter().copied()).collect();
    check_sources(master, checked, "").await?;
    let mut specs = prepare(checked);
    keep_inputs(master, &mut specs).await?;
    let answer = relations::with_predecessors(master, &needs, |ended| Request::Submit {
        tasks: new_tasks(checked, &specs, ended),
        key,
    });
    match answer.await? {
        Answer::Submitted { first, count, at, .. } => Ok((first, count, at)),
        other => Err(tasks::unexpected(&other)),
    }
}

/// The answer to one task. It says what the first answer said, also when it is given again.
async fn created(master: &Master, id: TaskId, at: Wall, checked: &Checked) -> Answered {
    let task = if checked.spec.payload == Payload::Milestone || !checked.needs.is_empty() {
        // It may settle in the step that makes it, or wait.
        views::task(tasks::record(master, id).await?)
    } else {
        (views::new_task(id, at, checked), Elsewhere::default())
    };
    let mut response = HttpResponse::Created();
    response.insert_header((header::LOCATION, format!("/api/v2/tasks/{id}")));
    large::answer(master, response, task).await
}

#[cfg(test)]
mod tests {
    use agentflow_protocol::problem::read_json;

    use super::*;

    #[test]
    fn a_batch_is_told_from_a_task() {
        for batch in [r#"{"tasks": []}"#, " \n{ \"tasks\":[1]}", r#"{"x": 1, "tasks": []}"#] {
            assert!(is_batch(batch.as_bytes(), "tasks"), "{batch}");
        }
        for task in
            [r#"{"title": "\"tasks\""}"#, r#"{"title": "tasks"}"#, r#"{"input": {"tasks": []}}"#, "[]", ""]
        {
            assert!(!is_batch(task.as_bytes(), "tasks"), "{task}");
        }
    }

    #[test]
    fn equal_specifications_are_prepared_once() {
        let task = |json: &str| {
            let body: TaskBody = read_json(json.as_bytes()).expect("JSON");
            body.check("").expect("valid")
        };
        let tasks = [task(r#"{"command":"a"}"#), task(r#"{"command":"a"}"#), task(r#"{"command":"b"}"#)];
        let tasks = new_tasks(&tasks, &prepare(&tasks), &Predecessors::default());
        assert!(Arc::ptr_eq(&tasks[0].spec, &tasks[1].spec));
        assert!(!Arc::ptr_eq(&tasks[1].spec, &tasks[2].spec));
        assert!(Arc::ptr_eq(&tasks[0].group, &tasks[2].group));
    }
}
