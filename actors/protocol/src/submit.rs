//! What clients send to create tasks, and how it is checked.
//!
//! A [`TaskBody`] is what was written; [`TaskBody::check`] turns it into a [`Checked`] task that
//! the kernel cannot refuse for its form, or into one error per bad field.

pub(crate) mod check;
mod locks;
mod parts;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use agentflow_core::ids::TaskId;
use agentflow_core::kernel::{NewTask, Predecessor, PreparedSpec};
use agentflow_core::limits;
use agentflow_core::spec::{ContinueFrom, OnDisconnect, Payload, RetryOn, Sandbox, Spec};
use agentflow_core::time::Wall;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::problem::FieldError;
use check::Check;
pub use locks::{TaskLocks, TaskLocksAt, TaskLocksEntry};
pub use parts::{Priority, Sources, TaskRef, WorktreeAt, WorktreeBody};

/// A task as a client writes it. Unknown fields are refused by name.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TaskBody {
    /// One line for people, at most 500 characters; made from the payload when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Free text. Without a payload it is the short form: `shell:…`, `script:…`, or a bare shell
    /// command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Which workers may take it; `default` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// 0 to 100, or `low` (25), `normal` (50), `high` (75), `critical` (100).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// `shell`, `exec`, `script`, `handler` or `noop`; derived from the payload when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Payload of `shell`: a line for `/bin/sh -c`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Payload of `exec`: program and arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// Payload of `script`: a file on the worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Payload of `script`: its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// Payload of `handler`: its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it works on, any JSON: the file `AGENTFLOW_INPUT` of a process, the line that a handler
    /// gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub input: Option<serde_json::Value>,
    /// Labels that the worker must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// What it occupies on the worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesBody>,
    /// Names that only so many attempts may hold at once, one unless the key is configured
    /// otherwise; at most 16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency_keys: Option<Vec<String>>,
    /// Files that each attempt locks before it begins, all of them or none: `"src/**"`, or an object,
    /// or a list of both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locks: Option<TaskLocks>,
    /// What happens after a failure; no retries when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryBody>,
    /// It fails when no worker has taken it for so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_timeout_ms: Option<u64>,
    /// An attempt is stopped after so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// An attempt is stopped after so long without output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout_ms: Option<u64>,
    /// Between TERM and KILL; 5,000 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_grace_ms: Option<u32>,
    /// Added to the process's environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    /// Files that are kept once an attempt has ended, at most 64: paths and patterns (`dist/*.tar`,
    /// `logs/**/*.txt`) within the task's directory; of a directory everything in it. What is named
    /// must be there when the attempt has completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Vec<String>>,
    /// Tasks, at most 64, whose files an attempt finds in the directory `AGENTFLOW_ARTIFACTS`, in a
    /// directory of the task's number or of the name that is given here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifacts_from: Option<Sources>,
    /// Where the process starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// `keep` (default) or `stop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub on_disconnect: Option<OnDisconnect>,
    /// `required`, `prefer` (default) or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub sandbox: Option<Sandbox>,
    /// A file within the task's directory that is saved as a checkpoint when it changes, at most once a
    /// second, and put back before a later attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_file: Option<String>,
    /// `true`, or `{"base": "main"}`: it works in a git worktree of its own of the repository in which
    /// `workdir` lies, on a branch of its own; its checkpoints hold its files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worktree: Option<WorktreeBody>,
    /// How many of its checkpoints are kept, 1 to 1,000; 5 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_checkpoints: Option<u32>,
    /// Where later attempts begin: `checkpoint` (default) or `beginning`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub continue_from: Option<ContinueFrom>,
    /// Not given to a worker before then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Tasks that must complete first, at most 1,000: numbers, or `TASK-00000001`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs: Option<Vec<TaskRef>>,
    /// Stays `blocked` until `POST /tasks/{id}/release`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<bool>,
    /// The same key with the same body makes nothing new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// What an attempt occupies on its worker.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ResourcesBody {
    /// Cores, in thousandths.
    pub cpus: f64,
    /// Mebibytes.
    pub memory_mb: u64,
    /// Graphics processors.
    pub gpus: u32,
    /// Anything else that workers count.
    pub custom: BTreeMap<String, u64>,
}

/// What happens after a failure.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryBody {
    /// Retries after the first attempt, at most 1,000.
    pub max: Option<u32>,
    /// Wait before the first retry; 1,000 when absent.
    pub backoff_ms: Option<u64>,
    /// Each further wait is this many times longer, 1 to 100; 2 when absent.
    pub factor: Option<f64>,
    /// Share of each wait that is random, 0 to 1; 0.1 when absent.
    pub jitter: Option<f64>,
    /// `error`, `timeout`, `spawn`; all when absent.
    #[schema(value_type = Option<Vec<String>>)]
    pub on: Option<Vec<RetryOn>>,
    /// Attempts lost with their worker before the task fails; 10 when absent.
    pub max_lost: Option<u32>,
}

/// The body of `POST /tasks`: one task, or `{"tasks": […]}`.
#[derive(Clone, Debug)]
pub enum SubmitBody {
    /// Answered with the task.
    One(Box<TaskBody>),
    /// Answered with ids.
    Many(Vec<TaskBody>),
}

/// The body of a batch.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TasksBody {
    /// At most 10,000.
    #[serde(deserialize_with = "objects")]
    pub tasks: Vec<TaskBody>,
}

/// Reads tasks that are written as objects. Left alone, serde also takes a list for an object whose
/// fields are given by position, and an empty one for a task without a payload.
fn objects<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TaskBody>, D::Error> {
    struct Object(TaskBody);

    impl<'de> Deserialize<'de> for Object {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_map(ObjectVisitor)
        }
    }

    struct ObjectVisitor;

    impl<'de> Visitor<'de> for ObjectVisitor {
        type Value = Object;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a task as an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object, A::Error> {
            TaskBody::deserialize(MapAccessDeserializer::new(map)).map(Object)
        }
    }

    Ok(Vec::<Object>::deserialize(deserializer)?.into_iter().map(|object| object.0).collect())
}

/// A task whose form is right.
#[derive(Clone, PartialEq, Debug)]
pub struct Checked {
    /// One line.
    pub title: String,
    /// Its group.
    pub group: String,
    /// 0 to 100.
    pub priority: u8,
    /// Everything that equal tasks share.
    pub spec: Spec,
    /// Not before then.
    pub not_before: Option<Wall>,
    /// As given.
    pub idempotency_key: Option<String>,
    /// Tasks that must complete first, each once.
    pub needs: Vec<TaskId>,
    /// Whether it waits for `release`.
    pub hold: bool,
}

impl TaskBody {
    /// Checks every field; `at` is the JSON pointer of this body (empty for a single task).
    ///
    /// # Errors
    /// One entry per bad field.
    pub fn check(self, at: &str) -> Result<Checked, Vec<FieldError>> {
        let mut check = Check { at, errors: Vec::new() };
        let payload = check.payload(&self);
        let mut spec = Spec::new(payload);
        let title = self.title.unwrap_or_else(|| headline(&spec.payload));
        if title.chars().count() > limits::TITLE_CHARS {
            check.wrong("title", format!("longer than {} characters", limits::TITLE_CHARS));
        }
        check.clean("title", &title);
        let group = self.group.unwrap_or_else(|| "default".to_owned());
        check.name("group", &group);
        let priority = check.priority(self.priority.as_ref());
        spec.description = self.description.filter(|text| !text.is_empty());
        if let Some(description) = &spec.description {
            check.clean("description", description);
        }
        spec.labels = self.labels.unwrap_or_default();
        check.names("labels", spec.labels.keys());
        check.map_values("labels", &spec.labels);
        if let Some(resources) = self.resources {
            spec.resources = check.resources(resources);
        }
        spec.concurrency_keys = check.keys(self.concurrency_keys.unwrap_or_default());
        spec.locks = self.locks.map(|locks| check.locks(locks)).unwrap_or_default();
        if let Some(retry) = self.retry {
            spec.retry = check.retry(retry);
        }
        spec.queue_timeout_ms = check.timeout("queue_timeout_ms", self.queue_timeout_ms);
        spec.timeout_ms = check.timeout("timeout_ms", self.timeout_ms);
        spec.idle_timeout_ms = check.timeout("idle_timeout_ms", self.idle_timeout_ms);
        if let Some(grace) = self.cancel_grace_ms {
            check.timeout("cancel_grace_ms", Some(u64::from(grace).max(1)));
            spec.cancel_grace_ms = grace;
        }
        spec.env = self.env.unwrap_or_default();
        check.environment(&spec.env);
        spec.workdir = self.workdir;
        if let Some(workdir) = &spec.workdir {
            check.path("workdir", workdir);
        }
        spec.input = self.input;
        spec.artifacts = check.artifacts(self.artifacts.unwrap_or_default());
        spec.artifacts_from = self.artifacts_from.map(|from| check.sources(from)).unwrap_or_default();
        let needs = check.needs(self.needs.as_deref().unwrap_or_default());
        spec.on_disconnect = self.on_disconnect.unwrap_or_default();
        spec.sandbox = self.sandbox.unwrap_or_default();
        if let Some(path) = &self.checkpoint_file
            && let Err(why) = check::check_inner_path(path)
        {
            check.wrong("checkpoint_file", why);
        }
        spec.checkpoint_file = self.checkpoint_file;
        spec.worktree = self.worktree.and_then(|worktree| check.worktree(worktree, &spec.payload));
        if self.keep_checkpoints.is_some_and(|keep| !(1..=limits::CHECKPOINTS_KEPT_MOST).contains(&keep)) {
            check.wrong("keep_checkpoints", format!("allowed: 1 to {}", limits::CHECKPOINTS_KEPT_MOST));
        }
        spec.keep_checkpoints = self.keep_checkpoints;
        spec.continue_from = self.continue_from.unwrap_or_default();
        if let Some(key) = &self.idempotency_key {
            check.idempotency_key(key);
        }
        if check.errors.is_empty() {
            check.size(&spec);
        }
        if !check.errors.is_empty() {
            return Err(check.errors);
        }
        let not_before = self.not_before.map(|time| time.0);
        Ok(Checked {
            title,
            group,
            priority,
            spec,
            not_before,
            idempotency_key: self.idempotency_key,
            needs,
            hold: self.hold.unwrap_or_default(),
        })
    }
}

/// What a description that stands alone asks for.
///
/// # Errors
/// Why it cannot be done.
pub(crate) fn short_form(description: &str) -> Result<Payload, String> {
    let mut check = Check { at: "", errors: Vec::new() };
    let payload = check.short_form(Some(description));
    match check.errors.pop() {
        None => Ok(payload),
        Some(error) => Err(error.detail),
    }
}

/// Checks a client's idempotency key.
///
/// # Errors
/// Says what is allowed.
pub fn check_idempotency_key(key: &str) -> Result<(), String> {
    if key.is_empty() || key.len() > limits::IDEMPOTENCY_KEY_BYTES || key.chars().any(char::is_control) {
        return Err(format!(
            "allowed: 1 to {} bytes without control characters",
            limits::IDEMPOTENCY_KEY_BYTES
        ));
    }
    Ok(())
}

/// Checks a group's name.
///
/// # Errors
/// Says what is allowed.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > limits::NAME_BYTES || name.chars().any(char::is_control) {
        return Err(format!("allowed: 1 to {} bytes without control characters", limits::NAME_BYTES));
    }
    Ok(())
}

impl Checked {
    /// The task for the kernel, of a specification that is prepared already.
    #[must_use]
    pub fn into_new(self, spec: Arc<PreparedSpec>, group: Arc<str>, needs: Vec<Predecessor>) -> NewTask {
        NewTask {
            title: self.title.into(),
            group,
            priority: self.priority,
            spec,
            not_before: self.not_before,
            hold: self.hold,
            needs,
        }
    }
}

/// A title for a task that has none: the first line of its work.
pub(crate) fn headline(payload: &Payload) -> String {
    let text = match payload {
        Payload::Shell { command } => command.trim().to_owned(),
        Payload::Exec { argv } => argv.join(" "),
        Payload::Script { path, .. } => path.clone(),
        Payload::Handler { name, .. } => name.clone(),
        Payload::Noop | Payload::Milestone => payload.kind().to_owned(),
    };
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::read_json;

    fn check(json: &str) -> Result<Checked, Vec<String>> {
        let body: TaskBody = read_json(json.as_bytes()).map_err(|problem| vec![problem.detail])?;
        body.check("").map_err(|errors| errors.into_iter().map(|error| error.pointer).collect())
    }

    #[test]
    fn the_contracts_example_is_taken() {
        let task = check(
            r#"{"title": "Test", "kind": "shell", "command": "cargo test", "group": "default",
                "retry": {"max": 2, "backoff_ms": 500}}"#,
        )
        .expect("valid");
        assert_eq!(task.title, "Test");
        assert_eq!(task.priority, 50);
        assert_eq!(task.spec.payload, Payload::Shell { command: "cargo test".into() });
        assert_eq!((task.spec.retry.max, task.spec.retry.backoff_ms), (2, 500));
    }

    #[test]
    fn short_forms() {
        let payload = |json| check(json).map(|task| task.spec.payload);
        let shell = |command: &str| Ok(Payload::Shell { command: command.into() });
        assert_eq!(payload(r#"{"description": "shell: make"}"#), shell("make"));
        assert_eq!(payload(r#"{"description": "make all"}"#), shell("make all"));
        assert_eq!(payload(r#"{"description": "/bin/true"}"#), shell("/bin/true"));
        assert_eq!(
            payload(r#"{"description": "script:a.sh"}"#),
            Ok(Payload::Script { path: "a.sh".into(), args: vec![] })
        );
        assert_eq!(payload(r#"{"title": "done"}"#), Ok(Payload::Milestone));
        assert_eq!(payload(r#"{"command": "ls"}"#), shell("ls"));
        assert_eq!(payload(r#"{"description": "/commit all"}"#), Err(vec!["/description".into()]));
    }

    #[test]
    fn a_list_is_no_task() {
        let problem = read_json::<TasksBody>(br#"{"tasks": [{"kind": "noop"}, []]}"#).expect_err("a list");
        assert_eq!(problem.errors[0].pointer, "/tasks/1");
        let problem = read_json::<TasksBody>(br#"{"tasks": [{"retry": {"max": "x"}}]}"#).expect_err("a text");
        assert_eq!(problem.errors[0].pointer, "/tasks/0/retry/max");
    }

    #[test]
    fn every_bad_field_is_named() {
        let errors = check(
            r#"{"kind": "exec", "argv": [], "command": "x", "group": "", "priority": 101,
                "timeout_ms": 0, "retry": {"max": 5000}, "env": {"A=B": "c"}, "title": "a\u0000b"}"#,
        )
        .expect_err("all wrong");
        for pointer in
            ["/argv", "/command", "/group", "/priority", "/timeout_ms", "/retry/max", "/env/A=B", "/title"]
        {
            assert!(errors.iter().any(|have| have == pointer), "{pointer} is missing in {errors:?}");
        }
    }

    #[test]
    fn unknown_fields_are_refused_by_name() {
        let errors = check(r#"{"command": "x", "colour": "red"}"#).expect_err("unknown");
        assert!(errors[0].contains("colour"), "{errors:?}");
    }
}
