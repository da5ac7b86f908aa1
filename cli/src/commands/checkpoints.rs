//! `checkpoint`: what tasks save of their state.

use std::io::Read;

use agentflow_core::spec::ContinueFrom;
use agentflow_protocol::api::TaskView;
use agentflow_protocol::saved::{CheckpointBody, CheckpointView, Checkpoints, ContinueBody};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::connect;
use crate::args::{CheckpointAct, Global, Save};
use crate::client::{Client, random_hex};
use crate::error::{Error, exit};
use crate::inside::{Inside, own_task};
use crate::output::{Cell, Output};
use crate::settle::task_path;

pub(super) fn checkpoint(act: CheckpointAct, global: &Global, output: Output) -> Result<u8, Error> {
    match act {
        CheckpointAct::Save(save) => self::save(&save, global, output),
        CheckpointAct::Load { id: Some(id) } => load(id, &connect(global)?, output),
        CheckpointAct::Load { id: None } => load_own(output),
        CheckpointAct::List { task } => {
            let missing = || {
                Error::Usage("name the task whose checkpoints are listed, or call this inside it".to_owned())
            };
            let task = task.map(|task| task.0).or_else(own_task).ok_or_else(missing)?;
            list(task, &connect(global)?, output)
        }
        CheckpointAct::Show { id } => show(id, &connect(global)?, output),
        CheckpointAct::Restore { id, from_beginning } => {
            restore(id, from_beginning, &connect(global)?, output)
        }
    }
}

/// Exactly the bytes that are to be saved; none says that there are none.
fn data(save: &Save) -> Result<Option<Vec<u8>>, Error> {
    let read = |what: &str, mut source: Box<dyn Read>| {
        let mut bytes = Vec::new();
        source
            .read_to_end(&mut bytes)
            .map_err(|error| Error::Usage(format!("cannot read {what}: {error}")))?;
        Ok(Some(bytes))
    };
    match (&save.data, &save.file) {
        (Some(text), _) if text == "-" => read("standard input", Box::new(std::io::stdin())),
        (Some(text), _) => Ok(Some(text.clone().into_bytes())),
        (None, Some(path)) => {
            let file = std::fs::File::open(path);
            let file =
                file.map_err(|error| Error::Usage(format!("cannot read {}: {error}", path.display())))?;
            read(&path.display().to_string(), Box::new(file))
        }
        (None, None) => Ok(None),
    }
}

fn save(save: &Save, global: &Global, output: Output) -> Result<u8, Error> {
    let data_base64 = data(save)?.map(|bytes| STANDARD.encode(bytes));
    let id = match (save.task, Inside::here()) {
        (None, Some(inside)) => {
            let line = inside.line("checkpoint");
            let said = inside.say(&agentflow_protocol::inside::Line {
                name: Some(save.name.clone()),
                data_base64,
                ..line
            })?;
            said.checkpoint
        }
        (Some(task), _) => {
            let body = CheckpointBody { name: save.name.clone(), data_base64, ..CheckpointBody::default() };
            let path = format!("{}/checkpoints", task_path(task.0));
            let view: CheckpointView = connect(global)?.post_keyed(&path, &body, &random_hex(16)?)?;
            view.id
        }
        (None, None) => {
            return Err(Error::Usage("name the task with --task, or call this inside it".to_owned()));
        }
    };
    if output.json {
        output.json(&json!({ "id": id, "name": save.name }))?
    } else {
        // One that was said again after an answer was lost may have made room for newer ones.
        output.line(id.map_or_else(|| "-".to_owned(), |id| id.to_string()))?
    }
    Ok(exit::DONE)
}

fn load(id: u64, client: &Client, output: Output) -> Result<u8, Error> {
    let (_, mut reader) = client.download(&format!("/api/v2/checkpoints/{id}/data"))?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = reader
            .read(&mut buffer)
            .map_err(|source| Error::io(format!("checkpoint {id} did not arrive"), source))?;
        if count == 0 {
            return Ok(exit::DONE);
        }
        output.bytes(&buffer[..count])?;
    }
}

/// What this task was restored from; exit code 1 if it began at the beginning.
fn load_own(output: Output) -> Result<u8, Error> {
    let path = std::env::var_os("AGENTFLOW_CHECKPOINT");
    let path =
        path.ok_or_else(|| Error::Usage("name a checkpoint, or call this inside a task".to_owned()))?;
    match std::fs::read(&path) {
        Ok(bytes) => {
            output.bytes(&bytes)?;
            Ok(exit::DONE)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("agentflow: this attempt began at the beginning");
            Ok(exit::FAILED)
        }
        Err(error) => Err(Error::io(format!("cannot read {}", path.display()), error)),
    }
}

fn list(task: u64, client: &Client, output: Output) -> Result<u8, Error> {
    let found: Checkpoints = client.get(&format!("{}/checkpoints", task_path(task)))?;
    if output.json {
        output.json(&found)?;
        return Ok(exit::DONE);
    }
    let row = |view: &CheckpointView| -> Vec<Cell> {
        vec![
            view.id.map_or_else(|| "-".to_owned(), |id| id.to_string()).into(),
            view.attempt.to_string().into(),
            view.id.map_or_else(|| "-".to_owned(), |_| view.bytes.to_string()).into(),
            view.created_at.to_string().into(),
            view.name.clone().into(),
        ]
    };
    let rows: Vec<Vec<Cell>> = found.checkpoints.iter().map(row).collect();
    output.table(&["ID", "ATTEMPT", "BYTES", "CREATED", "NAME"], &rows)?;
    Ok(exit::DONE)
}

fn show(id: u64, client: &Client, output: Output) -> Result<u8, Error> {
    let view: CheckpointView = client.get(&format!("/api/v2/checkpoints/{id}"))?;
    if output.json {
        output.json(&view)?;
        return Ok(exit::DONE);
    }
    let mut fields = vec![
        ("id", id.to_string()),
        ("task", view.task_id.to_string()),
        ("attempt", view.attempt.to_string()),
        ("name", view.name),
        ("created", view.created_at.to_string()),
        ("bytes", view.bytes.to_string()),
    ];
    let optional = [
        ("commit", view.commit),
        ("reference", view.reference),
        ("memory", view.memory.map(|memory| memory.get().to_owned())),
        ("data", view.data.map(|data| data.get().trim_end().to_owned())),
        ("data (base64)", view.data_base64),
    ];
    fields.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    output.fields(&fields)?;
    Ok(exit::DONE)
}

fn restore(id: u64, from_beginning: bool, client: &Client, output: Output) -> Result<u8, Error> {
    let body = ContinueBody { continue_from: continue_from(from_beginning) };
    let view: TaskView = client.post(&format!("/api/v2/checkpoints/{id}/restore"), &body)?;
    if output.json {
        output.json(&view)?;
    } else {
        let (status, title) = (output.status(view.status), output.title(&view.title));
        output.line(format_args!("{status}  {:>5}  {title}", view.id))?;
    }
    Ok(exit::DONE)
}

pub(super) fn continue_from(from_beginning: bool) -> ContinueFrom {
    if from_beginning { ContinueFrom::Beginning } else { ContinueFrom::Checkpoint }
}
