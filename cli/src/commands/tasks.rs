//! `list`, `get`, `why` and `update`.

use agentflow_core::status::Status;
use agentflow_protocol::api::{Attempts, PatchBody, ReasonView, TaskPage, TaskView, WhyView};
use agentflow_protocol::runs::Relations;
use serde_json::{Value, json};

use crate::args::{DeadLetters, Get, List, OneTask, Update};
use crate::client::{Client, with_query};
use crate::error::{Error, exit};
use crate::output::{Cell, Output, age};
use crate::settle::task_path;

/// Tasks of one page.
const PAGE: usize = 1_000;

pub(super) fn list(list: &List, client: &Client, output: Output) -> Result<u8, Error> {
    let wanted = if list.all { usize::MAX } else { list.limit };
    let (tasks, cursor) = pages(client, wanted, |limit, cursor| page_path(list, limit, cursor))?;
    if output.json {
        output.json(&json!({ "tasks": tasks, "next_cursor": cursor }))?;
        return Ok(exit::DONE);
    }
    let rows: Vec<Vec<Cell>> = tasks.iter().map(|task| row(task, output)).collect();
    output.table(&["ID", "STATUS", "GROUP", "PRIORITY", "ATTEMPT", "WORKER", "AGE", "TITLE"], &rows)?;
    if cursor.is_some() {
        eprintln!("there are more: --limit N or --all");
    }
    Ok(exit::DONE)
}

pub(super) fn dead_letters(list: &DeadLetters, client: &Client, output: Output) -> Result<u8, Error> {
    let (tasks, cursor) = pages(client, list.limit, |limit, cursor| {
        with_query(
            "/api/v2/dead-letters",
            &[
                ("group", list.group.clone().unwrap_or_default()),
                ("run", list.run.map(|run| run.to_string()).unwrap_or_default()),
                ("limit", limit.to_string()),
                ("cursor", cursor.unwrap_or_default().to_owned()),
            ],
        )
    })?;
    if output.json {
        output.json(&json!({ "tasks": tasks, "next_cursor": cursor }))?;
        return Ok(exit::DONE);
    }
    let rows: Vec<Vec<Cell>> = tasks
        .iter()
        .map(|task| {
            vec![
                task.id.to_string().into(),
                task.group.clone().into(),
                task.attempt.to_string().into(),
                task.finished_at.map_or_else(|| "-".to_owned(), age).into(),
                output.title(&task.title).into(),
                output.title(task.error.as_deref().unwrap_or_default()).into(),
            ]
        })
        .collect();
    output.table(&["ID", "GROUP", "ATTEMPTS", "SINCE", "TITLE", "ERROR"], &rows)?;
    if cursor.is_some() {
        eprintln!("there are more: --limit N");
    }
    Ok(exit::DONE)
}

/// So many tasks, and where there are more.
fn pages(
    client: &Client,
    wanted: usize,
    path: impl Fn(usize, Option<&str>) -> String,
) -> Result<(Vec<TaskView>, Option<String>), Error> {
    let mut tasks: Vec<TaskView> = Vec::new();
    let mut cursor = None;
    while tasks.len() < wanted {
        let limit = (wanted - tasks.len()).min(PAGE);
        let page: TaskPage = client.get(&path(limit, cursor.as_deref()))?;
        // A page may be short, even empty, and not the last.
        tasks.extend(page.tasks);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    Ok((tasks, cursor))
}

fn page_path(list: &List, limit: usize, cursor: Option<&str>) -> String {
    let filter = &list.filter;
    let status: Vec<&str> = filter.status.iter().map(|status| status.word()).collect();
    with_query(
        "/api/v2/tasks",
        &[
            ("status", status.join(",")),
            ("group", filter.group.clone().unwrap_or_default()),
            ("worker", filter.worker.clone().unwrap_or_default()),
            ("label", filter.label.clone().unwrap_or_default()),
            ("run", list.run.map(|run| run.to_string()).unwrap_or_default()),
            ("limit", limit.to_string()),
            ("cursor", cursor.unwrap_or_default().to_owned()),
        ],
    )
}

fn row(task: &TaskView, output: Output) -> Vec<Cell> {
    vec![
        task.id.to_string().into(),
        Cell::status(task.status),
        task.group.clone().into(),
        task.priority.to_string().into(),
        task.attempt.to_string().into(),
        task.worker.clone().unwrap_or_else(|| "-".to_owned()).into(),
        age(task.created_at).into(),
        output.title(&task.title).into(),
    ]
}

pub(super) fn get(get: &Get, client: &Client, output: Output) -> Result<u8, Error> {
    let path = task_path(get.task.id.0);
    let view: TaskView = client.get(&path)?;
    let attempts: Option<Attempts> =
        if get.attempts { Some(client.get(&format!("{path}/attempts"))?) } else { None };
    let relations: Option<Relations> =
        if get.relationships { Some(client.get(&format!("{path}/relationships"))?) } else { None };
    if output.json {
        let mut value = serde_json::to_value(&view).unwrap_or_default();
        if let Value::Object(fields) = &mut value {
            fields.extend(attempts.map(|have| ("attempts".to_owned(), json!(have.attempts))));
            fields.extend(relations.map(|have| ("relationships".to_owned(), json!(have.relationships))));
        }
        output.json(&value)?;
        return Ok(exit::DONE);
    }
    output.fields(&fields(&view))?;
    if let Some(attempts) = &attempts {
        output.line("")?;
        show_attempts(attempts, output)?;
    }
    if let Some(relations) = &relations {
        output.line("")?;
        show_relations(relations, output)?;
    }
    Ok(exit::DONE)
}

fn show_attempts(attempts: &Attempts, output: Output) -> Result<(), Error> {
    let rows: Vec<Vec<Cell>> = attempts
        .attempts
        .iter()
        .map(|attempt| {
            vec![
                attempt.attempt.to_string().into(),
                attempt.status.clone().into(),
                attempt.worker.clone().into(),
                attempt.assigned_at.to_string().into(),
                attempt.exit_code.map_or("-".to_owned(), |code| code.to_string()).into(),
                attempt.error.clone().unwrap_or_default().into(),
            ]
        })
        .collect();
    output.table(&["ATTEMPT", "STATUS", "WORKER", "ASSIGNED", "EXIT", "ERROR"], &rows)
}

fn show_relations(relations: &Relations, output: Output) -> Result<(), Error> {
    let rows: Vec<Vec<Cell>> = relations
        .relationships
        .iter()
        .map(|relation| {
            vec![
                relation.predecessor.to_string().into(),
                relation.successor.to_string().into(),
                relation.relation.word().into(),
            ]
        })
        .collect();
    output.table(&["BEFORE", "AFTER", "TYPE"], &rows)
}

/// What a task says of itself, in the order in which people ask.
fn fields(view: &TaskView) -> Vec<(&str, String)> {
    let mut fields = vec![("id", view.id.to_string()), ("title", view.title.clone())];
    let status =
        if view.cancelling { format!("{} (being stopped)", view.status) } else { view.status.to_string() };
    fields.push(("status", status));
    let optional = [
        ("error", view.error.clone()),
        ("exit code", view.exit_code.map(|code| code.to_string())),
        ("signal", view.signal.map(|signal| signal.to_string())),
        ("progress", view.progress.as_ref().map(|p| format!("{} % {}", p.percent, p.message))),
        ("waits for", view.waits.clone()),
        ("run", view.run_id.map(|run| run.to_string())),
        ("node", view.node.clone()),
        ("group", Some(view.group.clone())),
        ("priority", Some(view.priority.to_string())),
        ("attempt", Some(view.attempt.to_string())),
        ("worker", view.worker.clone()),
        ("created", Some(view.created_at.to_string())),
        ("started", view.started_at.map(|time| time.to_string())),
        ("finished", view.finished_at.map(|time| time.to_string())),
        ("outputs", view.outputs.as_ref().map(Value::to_string)),
    ];
    fields.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    for (name, value) in &view.spec {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        fields.push((name, text));
    }
    if let Some(result) = view.result.as_ref().filter(|result| !result.is_empty()) {
        fields.push(("result", result.clone()));
    }
    fields
}

pub(super) fn why(task: &OneTask, client: &Client, output: Output) -> Result<u8, Error> {
    let why: WhyView = client.get(&format!("{}/why", task_path(task.id.0)))?;
    if output.json {
        output.json(&why)?;
        return Ok(exit::DONE);
    }
    output.line(format_args!("task {} is {}", why.task_id, output.status(why.status).trim_end()))?;
    if why.reasons.is_empty() && !why.status.is_settled() && why.status != Status::Running {
        output.line("nothing holds it back: it is about to be taken")?;
    }
    why.reasons.iter().flat_map(reason_lines).try_for_each(|line| output.line(line))?;
    Ok(exit::DONE)
}

/// A reason, and what helps.
pub(super) fn reason_lines(reason: &ReasonView) -> Vec<String> {
    let held = if reason.held_by.is_empty() {
        String::new()
    } else {
        format!("; held by {}", reason.held_by.join(", "))
    };
    let since = reason.since.map(|since| format!("; for {}", age(since))).unwrap_or_default();
    let mut lines = vec![format!("- {} ({}){held}{since}", reason.detail, reason.code)];
    if !reason.frees.is_empty() {
        lines.push(format!("  what helps: {}", reason.frees));
    }
    lines
}

pub(super) fn update(update: &Update, client: &Client, output: Output) -> Result<u8, Error> {
    let body = PatchBody { priority: update.priority.clone(), group: update.to_group.clone() };
    let mut tasks = Vec::new();
    for id in &update.ids {
        let view: TaskView = client.patch(&task_path(id.0), &body)?;
        if !output.json {
            output.line(format_args!(
                "{}  {id:>5}  group {}, priority {}",
                output.status(view.status),
                view.group,
                view.priority
            ))?;
        }
        tasks.push(view);
    }
    if output.json {
        output.json(&json!({ "tasks": tasks }))?;
    }
    Ok(exit::DONE)
}
