//! What a process may say to its worker from inside an attempt: one line of JSON on the Unix socket
//! `AGENTFLOW_SOCKET`, answered with one line.
//!
//! ```text
//! {"op":"checkpoint","key":"$AGENTFLOW_ATTEMPT_KEY","name":"step","data":{"n":5}}
//! {"ok":true,"checkpoint":7}
//! ```
//!
//! An answer with `"ok":true` comes once what was asked is durable; otherwise it says what was wrong,
//! like the problems of the REST API, and nothing was changed.

use agentflow_core::limits;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Problem;

/// Bytes of one line: a checkpoint of [`limits::CHECKPOINT_BYTES`] in base64, and its name.
pub const LINE_BYTES: usize = (limits::CHECKPOINT_BYTES as usize).div_ceil(3) * 4 + (64 << 10);

/// One line to the worker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Line {
    /// `checkpoint`, `remember`, `recall`, `forget` or `progress`.
    pub op: String,
    /// `AGENTFLOW_ATTEMPT_KEY`: says which attempt speaks.
    pub key: String,
    /// Of the checkpoint, or of the entry in the memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of a checkpoint: any JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
    /// Instead of `data`: any bytes, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
    /// To remember: any JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Box<RawValue>>,
    /// To remember for so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// The memory is that of the run, which all of its tasks share.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub run: bool,
    /// Of a progress: 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<f32>,
    /// Of a progress: for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Said {
    /// Whether it was done.
    pub ok: bool,
    /// The checkpoint that was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<u64>,
    /// Whether the memory has what was recalled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<bool>,
    /// What was recalled: a value, or without a name all of the memory as an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Box<RawValue>>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

impl Default for Said {
    fn default() -> Self {
        Self { ok: true, checkpoint: None, found: None, value: None, error: None }
    }
}

impl From<Problem> for Said {
    fn from(problem: Problem) -> Self {
        Self { ok: false, error: Some(problem), ..Self::default() }
    }
}

impl Line {
    /// What is wrong with a line that cannot be read, or a field of it.
    #[must_use]
    pub fn wrong(field: &str, detail: impl Into<String>) -> Problem {
        Problem::invalid(vec![crate::problem::FieldError {
            pointer: format!("/{field}"),
            detail: detail.into(),
        }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::read_json;

    #[test]
    fn a_line_is_read_as_it_is_written() {
        let text = r#"{"op":"checkpoint","key":"k","name":"step","data":{"n": 1.50}}"#;
        let line: Line = read_json(text.as_bytes()).expect("a line");
        assert_eq!(line.data.as_ref().map(|data| data.get()), Some(r#"{"n": 1.50}"#));
        assert_eq!(serde_json::to_string(&line).expect("plain data"), text);
        let wrong = read_json::<Line>(br#"{"op":"recall","kee":"k"}"#).expect_err("unknown");
        assert!(wrong.detail.contains("kee"), "{wrong}");
        let said = serde_json::to_string(&Said::from(Line::wrong("name", "is missing"))).expect("plain data");
        assert!(said.starts_with(r#"{"ok":false,"error":{"#) && said.contains("/name"), "{said}");
    }
}
