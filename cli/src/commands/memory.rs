//! `remember`, `recall`, `forget`, and `progress`.

use agentflow_protocol::inside::{Line, Said};
use agentflow_protocol::saved::{EntryBody, EntryView, MemoryView};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::connect;
use crate::args::{Forget, Global, Progress, Recall, Remember, WhoseMemory};
use crate::client::encode;
use crate::error::{Error, exit};
use crate::inside::Inside;
use crate::output::{Cell, Output};

/// Where a memory is spoken to.
enum Way {
    /// The own one, or that of the own run.
    Inside(Inside, bool),
    /// By the path of its owner.
    Outside(String),
}

fn way(whose: WhoseMemory) -> Result<Way, Error> {
    match (whose.task, whose.run, Inside::here()) {
        (Some(task), _, _) => Ok(Way::Outside(format!("/api/v2/tasks/{task}/memory"))),
        (_, Some(Some(run)), _) => Ok(Way::Outside(format!("/api/v2/runs/{run}/memory"))),
        (None, run, Some(inside)) => Ok(Way::Inside(inside, run.is_some())),
        (None, _, None) => {
            let text = "name whose memory it is with --task or --run, or call this inside a task";
            Err(Error::Usage(text.to_owned()))
        }
    }
}

pub(super) fn remember(remember: &Remember, global: &Global, output: Output) -> Result<u8, Error> {
    let value = remember.value.clone();
    let ttl_ms = remember.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    match way(remember.whose)? {
        Way::Inside(inside, run) => {
            let name = Some(remember.key.clone());
            inside.say(&Line { name, value: Some(value), ttl_ms, run, ..inside.line("remember") })?;
        }
        Way::Outside(path) => {
            let path = format!("{path}/{}", encode(&remember.key));
            let _: EntryView = connect(global)?.put(&path, &EntryBody { value, ttl_ms })?;
        }
    }
    if output.json {
        let (name, value) = (remember.key.clone(), remember.value.clone());
        output.json(&EntryView { name, value, expires_at: None })?;
    }
    Ok(exit::DONE)
}

/// Exit code 1 says that nothing is remembered under that name.
pub(super) fn recall(recall: &Recall, global: &Global, output: Output) -> Result<u8, Error> {
    let way = way(recall.whose)?;
    let Some(name) = &recall.key else { return recall_all(way, global, output) };
    let found = match way {
        Way::Inside(inside, run) => {
            let said = inside.say(&Line { name: Some(name.clone()), run, ..inside.line("recall") })?;
            said.value.filter(|_| said.found == Some(true))
        }
        Way::Outside(path) => match connect(global)?.get::<EntryView>(&format!("{path}/{}", encode(name))) {
            Ok(entry) => Some(entry.value),
            Err(Error::Problem(problem)) if problem.detail.starts_with("nothing is remembered") => None,
            Err(error) => return Err(error),
        },
    };
    let Some(value) = found else {
        eprintln!("agentflow: nothing is remembered as '{name}'");
        return Ok(exit::FAILED);
    };
    if output.json {
        output.json(&value)?
    } else {
        output.line(plain(&value))?
    }
    Ok(exit::DONE)
}

fn recall_all(way: Way, global: &Global, output: Output) -> Result<u8, Error> {
    let memory: MemoryView = match way {
        Way::Inside(inside, run) => {
            let Said { value, .. } = inside.say(&Line { run, ..inside.line("recall") })?;
            let text = value.map_or_else(|| "{}".to_owned(), |value| value.get().to_owned());
            let memory = serde_json::from_str(&text).map_err(|error| Error::Usage(error.to_string()))?;
            MemoryView { memory, ..MemoryView::default() }
        }
        Way::Outside(path) => connect(global)?.get(&path)?,
    };
    if output.json {
        output.json(&memory.memory)?;
        return Ok(exit::DONE);
    }
    let row = |name: &String, value: &RawValue| -> Vec<Cell> {
        let until = memory.expires_at.get(name).map_or_else(|| "-".to_owned(), ToString::to_string);
        vec![name.clone().into(), until.into(), plain(value).into()]
    };
    let rows: Vec<Vec<Cell>> = memory.memory.iter().map(|(name, value)| row(name, value)).collect();
    output.table(&["KEY", "UNTIL", "VALUE"], &rows)?;
    Ok(exit::DONE)
}

/// A text as it is, anything else as JSON.
fn plain(value: &RawValue) -> String {
    match serde_json::from_str(value.get()) {
        Ok(Value::String(text)) => text,
        _ => value.get().to_owned(),
    }
}

pub(super) fn forget(forget: &Forget, global: &Global, output: Output) -> Result<u8, Error> {
    match way(forget.whose)? {
        Way::Inside(inside, run) => {
            for key in &forget.keys {
                inside.say(&Line { name: Some(key.clone()), run, ..inside.line("forget") })?;
            }
        }
        Way::Outside(path) => {
            let client = connect(global)?;
            for key in &forget.keys {
                client.remove(&format!("{path}/{}", encode(key)))?;
            }
        }
    }
    if output.json {
        output.json(&json!({ "forgotten": forget.keys }))?;
    }
    Ok(exit::DONE)
}

pub(super) fn progress(progress: &Progress) -> Result<u8, Error> {
    let inside = Inside::required("progress")?;
    let message = Some(progress.message.clone()).filter(|message| !message.is_empty());
    inside.say(&Line { percent: Some(progress.percent), message, ..inside.line("progress") })?;
    Ok(exit::DONE)
}
