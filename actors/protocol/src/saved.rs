//! Checkpoints, memories and versions, as clients write and read them.

use std::collections::BTreeMap;
use std::sync::Arc;

use agentflow_core::checkpoint::{self, Content};
use agentflow_core::limits;
use agentflow_core::memory::{Entry, Memory, check_value};
use agentflow_core::rejection::Rejection;
use agentflow_core::spec::ContinueFrom;
use agentflow_core::time::Wall;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::problem::FieldError;
use crate::{Problem, Timestamp};

/// The header in which `GET /checkpoints/{id}/data` says the checkpoint's name, percent-encoded.
pub const CHECKPOINT_NAME: &str = "agentflow-checkpoint-name";

/// The header in which it says the commit of the task's files.
pub const CHECKPOINT_COMMIT: &str = "agentflow-checkpoint-commit";

/// The header in which it says the reference that keeps the commit, percent-encoded.
pub const CHECKPOINT_REFERENCE: &str = "agentflow-checkpoint-reference";

/// The body of `POST /tasks/{id}/checkpoints`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointBody {
    /// What it is called: 1 to 128 bytes without control characters and `..`.
    pub name: String,
    /// Any JSON, at most 16 MiB; kept as it is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub data: Option<Box<RawValue>>,
    /// Instead of `data`: any bytes, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
    /// What the task is to remember from now on: an object of names and values. As before when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub memory: Option<BTreeMap<String, Box<RawValue>>>,
    /// The assignment in whose name it is saved: refused if that is not the current one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
}

/// A checkpoint whose form is right.
#[derive(Clone, PartialEq, Debug)]
pub struct CheckedCheckpoint {
    /// Its name.
    pub name: Arc<str>,
    /// Whether its bytes are JSON.
    pub json: bool,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What is to be remembered.
    pub memory: Option<Memory>,
}

impl CheckpointBody {
    /// Checks every field.
    ///
    /// # Errors
    /// 422 with each bad field; 413 for too many bytes, of data or to remember.
    pub fn check(self) -> Result<CheckedCheckpoint, Problem> {
        let mut errors = Vec::new();
        if let Err(why) = checkpoint::check_name(&self.name) {
            errors.push(FieldError { pointer: "/name".to_owned(), detail: why });
        }
        let (bytes, json) = match (self.data, self.data_base64) {
            (Some(_), Some(_)) => {
                let detail = "stands beside data; give one of them".to_owned();
                errors.push(FieldError { pointer: "/data_base64".to_owned(), detail });
                (Vec::new(), false)
            }
            (Some(data), None) => (String::from(Box::<str>::from(data)).into_bytes(), true),
            (None, None) => (b"null".to_vec(), true),
            (None, Some(text)) => match STANDARD.decode(text) {
                Ok(bytes) => {
                    let json = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok();
                    (bytes, json)
                }
                Err(error) => {
                    let detail = format!("is no base64: {error}");
                    errors.push(FieldError { pointer: "/data_base64".to_owned(), detail });
                    (Vec::new(), false)
                }
            },
        };
        let memory = self.memory.map(|values| read_memory(values, &mut errors)).transpose();
        if !errors.is_empty() {
            return Err(Problem::invalid(errors));
        }
        if bytes.len() as u64 > limits::CHECKPOINT_BYTES {
            return Err(Problem::new(413, "too_large", checkpoint::too_large(bytes.len() as u64)));
        }
        let memory = memory.map_err(|full| Problem::of(&full))?;
        Ok(CheckedCheckpoint { name: self.name.into(), json, bytes, memory })
    }
}

fn read_memory(
    values: BTreeMap<String, Box<RawValue>>,
    errors: &mut Vec<FieldError>,
) -> Result<Memory, Rejection> {
    let mut memory = Memory::default();
    for (name, value) in values {
        if let Err(detail) = checkpoint::check_key(&name) {
            let pointer = format!("/memory/{}", name.replace('~', "~0").replace('/', "~1"));
            errors.push(FieldError { pointer, detail });
            continue;
        }
        check_value(value.get())?;
        memory.set(name.into(), Entry { value: value.get().into(), expires_at: None })?;
    }
    Ok(memory)
}

/// A checkpoint. Listings leave out the data.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CheckpointView {
    /// From 1; absent for the marks of an attempt's begin and end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// Whose.
    pub task_id: u64,
    /// Which try was the latest; 0 before the first.
    pub attempt: u32,
    /// What it is called. `task_start` and `task_complete` mark the begin and end of attempts; nothing
    /// is restored from them.
    pub name: String,
    /// How many bytes its data has.
    pub bytes: u64,
    /// Its data, if that is JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub data: Option<Box<RawValue>>,
    /// Its data in base64, if that is no JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
    /// What the task remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub memory: Option<Box<RawValue>>,
    /// The commit that holds the task's files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The reference that keeps the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// When it was saved.
    pub created_at: Timestamp,
}

impl CheckpointView {
    /// Puts the data where it belongs.
    pub fn set_data(&mut self, bytes: Vec<u8>, json: bool) {
        let text = if json { String::from_utf8(bytes.clone()).ok() } else { None };
        match text.and_then(|text| RawValue::from_string(text).ok()) {
            Some(data) => self.data = Some(data),
            None => self.data_base64 = Some(STANDARD.encode(bytes)),
        }
    }
}

/// The answer to `GET /tasks/{id}/checkpoints`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Checkpoints {
    /// The oldest first.
    pub checkpoints: Vec<CheckpointView>,
}

/// The body of `POST /checkpoints/{id}/restore` and of `POST /tasks/{id}/retry`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContinueBody {
    /// `checkpoint` (default) or `beginning`: then only the memory is restored, or nothing.
    #[schema(value_type = Option<String>)]
    pub continue_from: ContinueFrom,
}

/// What a task or run remembers.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct MemoryView {
    /// Values by name.
    #[schema(value_type = Object)]
    pub memory: BTreeMap<String, Box<RawValue>>,
    /// Until when, for those that are not remembered for ever.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub expires_at: BTreeMap<String, Timestamp>,
}

impl MemoryView {
    /// What of it is remembered now.
    #[must_use]
    pub fn of(memory: &Memory, now: Wall) -> Self {
        let mut view = Self::default();
        for (name, entry) in memory.iter(now) {
            let Ok(value) = RawValue::from_string(entry.value.as_ref().to_owned()) else { continue };
            view.memory.insert(name.as_ref().to_owned(), value);
            if let Some(at) = entry.expires_at {
                view.expires_at.insert(name.as_ref().to_owned(), at.into());
            }
        }
        view
    }
}

/// One entry of a memory.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EntryView {
    /// Its name.
    pub name: String,
    /// What is remembered.
    #[schema(value_type = Object)]
    pub value: Box<RawValue>,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// The body of `PUT /tasks/{id}/memory/{name}` and of `PUT /runs/{id}/memory/{name}`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EntryBody {
    /// Any JSON, at most 256 KiB.
    #[schema(value_type = Object)]
    pub value: Box<RawValue>,
    /// Remembered for so long; for ever when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

/// The body of `POST /tasks/{id}/upgrade`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpgradeBody {
    /// Another title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_title: Option<String>,
    /// Another description. Where the old one was the short form of what is to be done, so is this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_description: Option<String>,
    /// Fields of a task that take the place of the old ones. A payload takes the place of the whole
    /// payload; `null` takes a field away.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub new_spec: Option<serde_json::Map<String, serde_json::Value>>,
    /// Why.
    pub upgrade_reason: String,
    /// By whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Refused if the task has another version by now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<u32>,
    /// Stop a running attempt and begin one of the new version.
    pub restart: bool,
    /// Where the next attempt begins: `checkpoint` (default) or `beginning`.
    #[schema(value_type = Option<String>)]
    pub continue_from: ContinueFrom,
}

/// A version of a task, whole.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct VersionView {
    /// From 1.
    pub version: u32,
    /// Its title.
    pub title: String,
    /// Why it was made; empty for the first.
    pub reason: String,
    /// By whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// When.
    pub created_at: Timestamp,
    /// What was to be done: `kind`, its payload, `description`, and every condition that is not the
    /// default.
    #[schema(value_type = Object)]
    pub spec: serde_json::Map<String, serde_json::Value>,
}

/// The answer to `GET /tasks/{id}/versions` and `GET /runs/{id}/versions`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Versions<V> {
    /// The oldest first.
    pub versions: Vec<V>,
    /// For the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Bytes as a checkpoint holds them: those of a small one.
#[must_use]
pub fn small(bytes: &[u8]) -> Option<Content> {
    (bytes.len() <= limits::CHECKPOINT_ROW_BYTES).then(|| Content::Data(bytes.into()))
}
