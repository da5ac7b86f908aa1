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

use agentflow_core::checkpoint::{HeldLock, LockAsk};
use agentflow_core::ids::TaskId;
use agentflow_core::limits;
use agentflow_core::lock::Repository;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Problem;
use crate::locks::{LockBody, PathBody};
use crate::submit::TaskRef;

/// Bytes of one line: a checkpoint of [`limits::CHECKPOINT_BYTES`] in base64, and its name.
pub const LINE_BYTES: usize = (limits::CHECKPOINT_BYTES as usize).div_ceil(3) * 4 + (64 << 10);

/// One line to the worker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Line {
    /// `checkpoint`, `remember`, `recall`, `forget`, `lock`, `unlock` or `progress`.
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
    /// To lock in this repository; in the one named `default` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// To lock: each a text, which is for writing, or an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<PathBody>>,
    /// How long to wait for a lock, up to 600,000; at once or not at all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// Of a lock: why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of a lock: whether upper and lower case are the same in its repository.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignore_case: bool,
    /// To unlock: the lock's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
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
    /// The lock that was granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<HeldLock>,
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
        Self { ok: true, checkpoint: None, lock: None, found: None, value: None, error: None }
    }
}

impl From<Problem> for Said {
    fn from(problem: Problem) -> Self {
        Self { ok: false, error: Some(problem), ..Self::default() }
    }
}

impl Line {
    /// What it wants to lock for a task's attempt. It is checked as a request of the REST API is.
    ///
    /// # Errors
    /// Names each bad field.
    pub fn lock_ask(self, task: TaskId) -> Result<LockAsk, Problem> {
        let wait_ms = self.wait_ms.unwrap_or_default().min(limits::WAIT_MS);
        let body = LockBody {
            repo: self.repo.unwrap_or_else(|| Repository::DEFAULT.to_owned()),
            paths: self.paths.unwrap_or_default(),
            task_id: Some(TaskRef::Number(task.0)),
            reason: self.reason,
            ignore_case: self.ignore_case,
            ..LockBody::default()
        };
        let want = body.check("").map_err(Problem::invalid)?;
        Ok(LockAsk {
            repo: want.repo,
            ignore_case: want.ignore_case,
            paths: want.paths.to_vec(),
            wait_ms,
            reason: want.reason,
        })
    }

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

    #[test]
    fn a_lock_is_asked_for_as_over_rest() {
        let ask = |text: &str| read_json::<Line>(text.as_bytes()).and_then(|line| line.lock_ask(TaskId(5)));
        let text = r#"{"op":"lock","repo":"git@example.com:team/app","paths":["src/b.rs",{"path":"/src/a.rs","mode":"read"}],"wait_ms":700000}"#;
        let asked = ask(text).expect("a lock");
        assert_eq!((asked.repo.as_str(), asked.wait_ms), ("example.com/team/app", limits::WAIT_MS));
        let paths: Vec<String> =
            asked.paths.iter().map(|lock| format!("{} {}", lock.mode, lock.path)).collect();
        assert_eq!(paths, ["read src/a.rs", "write src/b.rs"]);
        assert_eq!(ask(r#"{"paths":["a"]}"#).expect("a lock").repo, Repository::default());
        let wrong = |text: &str| ask(text).expect_err("wrong").errors.into_iter().map(|error| error.pointer);
        let pointers: Vec<String> = wrong(r#"{"repo":"/srv/app","paths":["a","../b"]}"#).collect();
        assert_eq!(pointers, ["/repo", "/paths/1"]);
        assert_eq!(wrong(r#"{"paths":["a","a/b"]}"#).collect::<Vec<_>>(), ["/paths/1"]);
        assert_eq!(wrong("{}").collect::<Vec<_>>(), ["/paths"]);
    }
}
