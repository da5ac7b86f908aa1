//! What a task asks for: its payload and the conditions under which it runs.
//!
//! A specification is immutable and shared: equal ones are kept once, by hash, in memory and in
//! the database. What differs between otherwise equal tasks (title, group, priority) is not here.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::blob::InputPart;
use crate::ids::{SpecHash, TaskId};
use crate::limits;
use crate::lock::{LockUntil, PathLock, Repository};

/// The work itself.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Payload {
    /// A line for `/bin/sh -c`.
    Shell {
        /// The line.
        command: String,
    },
    /// A program and its arguments, without a shell.
    Exec {
        /// The program first.
        argv: Vec<String>,
    },
    /// A script file on the worker.
    Script {
        /// Its path.
        path: String,
        /// Its arguments.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        args: Vec<String>,
    },
    /// One input for a warm process of the worker.
    Handler {
        /// The handler's name in the worker's configuration.
        name: String,
    },
    /// Nothing, for measuring: a worker reports it done at once.
    Noop,
    /// Nothing, on the master: completes as soon as it is ready.
    Milestone,
}

impl Payload {
    /// The word in `kind`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Shell { .. } => "shell",
            Self::Exec { .. } => "exec",
            Self::Script { .. } => "script",
            Self::Handler { .. } => "handler",
            Self::Noop => "noop",
            Self::Milestone => "milestone",
        }
    }
}

/// Which failures are tried again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryOn {
    /// A non-zero exit or a signal.
    Error,
    /// `timeout_ms` or `idle_timeout_ms` has passed.
    Timeout,
    /// The process could not be started.
    Spawn,
}

/// How often and how soon a failed task is tried again.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct RetryPolicy {
    /// Retries after the first attempt.
    pub max: u32,
    /// Wait before the first retry.
    pub backoff_ms: u64,
    /// Each further wait is this many times the one before.
    pub factor: f64,
    /// Each wait is shortened by a random part of itself, up to this share (0 to 1).
    pub jitter: f64,
    /// Which failures count; empty means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<RetryOn>,
    /// Attempts lost with their worker before the task fails.
    pub max_lost: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max: 0,
            backoff_ms: 1_000,
            factor: 2.0,
            jitter: 0.1,
            on: Vec::new(),
            max_lost: limits::MAX_LOST,
        }
    }
}

/// What an attempt occupies on its worker while it is there.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Thousandths of a core.
    #[serde(skip_serializing_if = "is_default")]
    pub cpus_milli: u32,
    /// Mebibytes of memory.
    #[serde(skip_serializing_if = "is_default")]
    pub memory_mb: u64,
    /// Graphics processors.
    #[serde(skip_serializing_if = "is_default")]
    pub gpus: u32,
    /// Anything else that workers count, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub custom: BTreeMap<String, u64>,
}

impl Resources {
    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    /// Whether `self` fits into `free`.
    #[must_use]
    pub fn fits(&self, free: &Self) -> bool {
        self.cpus_milli <= free.cpus_milli
            && self.memory_mb <= free.memory_mb
            && self.gpus <= free.gpus
            && self.custom.iter().all(|(name, n)| free.custom.get(name).is_some_and(|have| n <= have))
    }

    /// Takes `other` away from `self`; never below zero.
    pub fn take(&mut self, other: &Self) {
        self.cpus_milli = self.cpus_milli.saturating_sub(other.cpus_milli);
        self.memory_mb = self.memory_mb.saturating_sub(other.memory_mb);
        self.gpus = self.gpus.saturating_sub(other.gpus);
        for (name, n) in &other.custom {
            if let Some(have) = self.custom.get_mut(name) {
                *have = have.saturating_sub(*n);
            }
        }
    }

    /// Gives `other` back to `self`.
    pub fn give(&mut self, other: &Self) {
        self.cpus_milli = self.cpus_milli.saturating_add(other.cpus_milli);
        self.memory_mb = self.memory_mb.saturating_add(other.memory_mb);
        self.gpus = self.gpus.saturating_add(other.gpus);
        for (name, n) in &other.custom {
            let have = self.custom.entry(name.clone()).or_default();
            *have = have.saturating_add(*n);
        }
    }
}

/// What happens to an attempt whose worker has lost the master.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDisconnect {
    /// It runs on; its result counts if no newer attempt was assigned.
    #[default]
    Keep,
    /// The worker stops it at its own deadline.
    Stop,
}

/// A worktree of git for a task alone.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Worktree {
    /// The commit at which it begins; the HEAD of the checkout in which the task's directory lies when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
}

/// Where a new attempt begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContinueFrom {
    /// At the newest checkpoint, or the one that was chosen; at the beginning if there is none.
    #[default]
    Checkpoint,
    /// At the beginning.
    Beginning,
}

/// Whether a sandbox is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sandbox {
    /// Only a worker with a sandbox may run it.
    Required,
    /// A sandbox where there is one.
    #[default]
    Prefer,
    /// None.
    None,
}

/// A task's specification. Its canonical JSON is what is hashed, stored and sent to workers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// The work.
    #[serde(flatten)]
    pub payload: Payload,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Labels that a worker must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What it occupies.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resources: Resources,
    /// Names that only so many attempts may hold at once; sorted, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub concurrency_keys: Vec<String>,
    /// What happens after a failure.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retry: RetryPolicy,
    /// It fails when no worker has taken it for so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout_ms: Option<u64>,
    /// An attempt is stopped after so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// An attempt is stopped after so long without output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_ms: Option<u64>,
    /// Between TERM and KILL.
    #[serde(default = "default_grace", skip_serializing_if = "is_default_grace")]
    pub cancel_grace_ms: u32,
    /// Added to the process's environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// What it works on: `AGENTFLOW_INPUT` of a process, the line that a handler gets.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub input: Option<serde_json::Value>,
    /// The same, where it is too large or comes from others; then [`Spec::input`] is absent. Of
    /// several parts that are objects each is put over those before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub input_parts: Vec<InputPart>,
    /// Files that an attempt leaves: paths and patterns within its directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<String>,
    /// Whose files an attempt finds in `AGENTFLOW_ARTIFACTS`, each under that name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub artifacts_from: BTreeMap<String, TaskId>,
    /// Where the process starts; the worker's own directory otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// When the worker loses the master.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_disconnect: OnDisconnect,
    /// Isolation.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sandbox: Sandbox,
    /// A file within the task's directory that is saved as a checkpoint when it changes, and put back
    /// before a later attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_file: Option<String>,
    /// It works in a worktree of its own of the repository in which its directory lies; checkpoints hold
    /// its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worktree: Option<Worktree>,
    /// How many of its checkpoints are kept; [`limits::CHECKPOINTS_KEPT`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_checkpoints: Option<u32>,
    /// Where later attempts begin.
    #[serde(default, skip_serializing_if = "is_default")]
    pub continue_from: ContinueFrom,
    /// What each attempt locks before it begins, all of it or nothing; one entry for each repository and
    /// each way to hold it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<SpecLocks>,
}

/// What an attempt locks in one repository. It is one grant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SpecLocks {
    /// Which repository.
    pub repo: Repository,
    /// Whether upper and lower case are the same in its paths.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ignore_case: bool,
    /// How long.
    #[serde(default, skip_serializing_if = "is_default")]
    pub until: LockUntil,
    /// What, in the order of the paths; no two of all entries of a repository overlap.
    pub paths: Arc<[PathLock]>,
}

/// A field that is there and null is there.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<serde_json::Value>, D::Error> {
    serde_json::Value::deserialize(deserializer).map(Some)
}

fn default_grace() -> u32 {
    limits::CANCEL_GRACE_MS
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_default_grace(ms: &u32) -> bool {
    *ms == limits::CANCEL_GRACE_MS
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Spec {
    /// A specification with that payload and every default.
    #[must_use]
    pub fn new(payload: Payload) -> Self {
        Self {
            payload,
            description: None,
            labels: BTreeMap::new(),
            resources: Resources::default(),
            concurrency_keys: Vec::new(),
            retry: RetryPolicy::default(),
            queue_timeout_ms: None,
            timeout_ms: None,
            idle_timeout_ms: None,
            cancel_grace_ms: limits::CANCEL_GRACE_MS,
            env: BTreeMap::new(),
            input: None,
            input_parts: Vec::new(),
            artifacts: Vec::new(),
            artifacts_from: BTreeMap::new(),
            workdir: None,
            on_disconnect: OnDisconnect::Keep,
            sandbox: Sandbox::Prefer,
            checkpoint_file: None,
            worktree: None,
            keep_checkpoints: None,
            continue_from: ContinueFrom::Checkpoint,
            locks: Vec::new(),
        }
    }

    /// Whether it says what to work on.
    #[must_use]
    pub fn has_input(&self) -> bool {
        self.input.is_some() || !self.input_parts.is_empty()
    }

    /// The text that is hashed and stored: fields in a fixed order, defaults left out.
    #[must_use]
    pub fn canonical(&self) -> String {
        // Maps are ordered and every key is a string, so that this cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The hash of a canonical text.
    #[must_use]
    pub fn hash_of(canonical: &str) -> SpecHash {
        let digest = Sha256::digest(canonical.as_bytes());
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        SpecHash(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_left_out_and_come_back() {
        let spec = Spec::new(Payload::Noop);
        assert_eq!(spec.canonical(), r#"{"kind":"noop"}"#);
        assert_eq!(serde_json::from_str::<Spec>(&spec.canonical()).ok(), Some(spec));
    }

    #[test]
    fn a_full_specification_survives_its_text() {
        let mut spec = Spec::new(Payload::Shell { command: "cargo test".into() });
        spec.labels.insert("os".into(), "linux".into());
        spec.resources.cpus_milli = 1_500;
        spec.retry.max = 3;
        spec.retry.on = vec![RetryOn::Timeout];
        spec.cancel_grace_ms = 10;
        spec.env.insert("A".into(), "b".into());
        assert_eq!(serde_json::from_str::<Spec>(&spec.canonical()).ok(), Some(spec));
    }

    #[test]
    fn resources_fit_and_return() {
        let mut free = Resources { cpus_milli: 2_000, ..Resources::default() };
        free.custom.insert("license".into(), 1);
        let whole = free.clone();
        let wanted = free.clone();
        assert!(wanted.fits(&free));
        free.take(&wanted);
        assert!(!wanted.fits(&free));
        free.give(&wanted);
        assert_eq!(free, whole);
        assert!(!Resources { custom: [("other".into(), 1)].into(), ..Resources::default() }.fits(&free));
    }
}
