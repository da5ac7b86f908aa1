//! A task's answer with its large values in their places: whoever reads it does not see that they are
//! kept elsewhere.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, HttpResponseBuilder, web};
use agentflow_core::blob::{BlobRef, InputPart, Left};
use agentflow_protocol::api::TaskView;
use agentflow_protocol::input::{InputError, assemble};
use agentflow_schema::Blobs;
use serde_json::Value;
use serde_json::value::RawValue;

use super::answer::{Answered, Failure};
use crate::state::Master;

/// What of a task is kept by its hash.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    pub(crate) left: Option<Box<Left>>,
    pub(crate) input: Vec<InputPart>,
}

impl Elsewhere {
    fn is_empty(&self) -> bool {
        self.input.is_empty()
            && self.left.as_ref().is_none_or(|left| left.result.is_none() && left.outputs.is_none())
    }

    /// `"name":value` for each that can be read, with a comma before it.
    fn read(&self, blobs: &Blobs) -> Result<String, Failure> {
        let mut text = String::new();
        let mut add = |name: &str, json: &str| {
            text.extend([",\"", name, "\":", json]);
        };
        let left = self.left.as_deref();
        if let Some(blob) = left.and_then(|left| left.result) {
            add("result", &Value::from(read(blobs, &blob)?).to_string());
        }
        if let Some(blob) = left.and_then(|left| left.outputs) {
            // A worker has said that it is JSON; within a larger text it must be.
            let outputs = RawValue::from_string(read(blobs, &blob)?);
            add("outputs", outputs.as_ref().map_or("null", |outputs| outputs.get()));
        }
        if !self.input.is_empty() {
            match assemble(&self.input, |blob| read(blobs, blob)) {
                Ok(input) => add("input", &input),
                Err(InputError::Read(error)) => return Err(error),
                Err(error) => return Err(Failure::internal(&error)),
            }
        }
        Ok(text)
    }
}

fn read(blobs: &Blobs, blob: &BlobRef) -> Result<String, Failure> {
    blobs.text(&blob.sha256)?.ok_or_else(|| {
        log::error!("the blob {} is named and not kept", blob.sha256);
        Failure::new(
            500,
            "blob_missing",
            format!("the {} bytes {} are not kept any more", blob.bytes, blob.sha256),
        )
    })
}

/// Answers with a task.
pub(crate) async fn answer(
    master: &Master,
    mut response: HttpResponseBuilder,
    (view, elsewhere): (TaskView, Elsewhere),
) -> Answered {
    let mut body = serde_json::to_vec(&view).map_err(|error| Failure::internal(&error))?;
    if !elsewhere.is_empty() {
        let blobs = master.handles.blobs.clone();
        let more = web::block(move || elsewhere.read(&blobs)).await??;
        // They are as large as a value may be: put into the text as they are, not read as values.
        if body.pop_if(|last| *last == b'}').is_some() {
            body.extend_from_slice(more.as_bytes());
            body.push(b'}');
        }
    }
    Ok(response.content_type("application/json").body(body))
}

/// Answers with a task, 200.
pub(crate) async fn ok(master: &Master, task: (TaskView, Elsewhere)) -> Answered {
    answer(master, HttpResponse::build(StatusCode::OK), task).await
}
