//! The variables of an attempt's process, and the files that they name.
//!
//! Owns: which of the worker's own variables are withheld, the key that marks everything that this
//! data directory's workers start, and the paths in `attempts/`. The files do not exist until
//! somebody uses them.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use agentflow_core::spec::Spec;
use agentflow_protocol::worker::AttemptKey;

use crate::slots::Job;

/// The variable by which leftovers are found.
pub(crate) const ATTEMPT_KEY: &str = "AGENTFLOW_ATTEMPT_KEY";

/// Where `agentflow` finds the master: hooks of git ask it.
const MASTER: &str = "AGENTFLOW_MASTER";

/// The files' variables and how their names end.
const FILES: [(&str, &str); 5] = [
    ("AGENTFLOW_INPUT", "input"),
    ("AGENTFLOW_OUTPUT", "output"),
    ("AGENTFLOW_CHECKPOINT", "checkpoint"),
    ("AGENTFLOW_MEMORY", "memory"),
    ("AGENTFLOW_LOCKS", "locks"),
];

/// The directory with the files of earlier tasks.
const ARTIFACTS: (&str, &str) = ("AGENTFLOW_ARTIFACTS", "artifacts");

/// See the module.
#[derive(Debug)]
pub(crate) struct Environment {
    withheld: Vec<OsString>,
    key_prefix: String,
    attempts: PathBuf,
    socket: PathBuf,
    master: Option<String>,
}

impl Environment {
    /// `key_prefix` is how this life's attempt keys begin; unguessable. `master` is where what is called
    /// from inside finds the master.
    pub(crate) fn new(data_dir: &Path, key_prefix: &str, socket: &Path, master: Option<String>) -> Self {
        let names = std::env::vars_os().map(|(name, _)| name);
        let withheld = names.filter(|name| name.as_encoded_bytes().starts_with(b"AGENTFLOW_")).collect();
        Self {
            withheld,
            key_prefix: key_prefix.to_owned(),
            attempts: data_dir.join("attempts"),
            socket: socket.to_owned(),
            master,
        }
    }

    /// The worker's own variables without its secrets, then the task's, then the mark that belongs to
    /// any process of this worker.
    pub(crate) fn apply_base(&self, command: &mut Command, spec: &Spec, key: &str) {
        for name in &self.withheld {
            command.env_remove(name);
        }
        // Adding variables one by one keeps the command on posix_spawn.
        command.envs(&spec.env);
        if let Some(master) = &self.master {
            command.env(MASTER, master);
        }
        command.env(ATTEMPT_KEY, key);
    }

    /// The mark of a process that belongs to no attempt; it opens nothing.
    pub(crate) fn mark(&self) -> &str {
        &self.key_prefix
    }

    /// Everything of [`Self::apply_base`], and what the contract promises to each attempt.
    pub(crate) fn apply(&self, command: &mut Command, job: &Job) {
        let key = job.key;
        self.apply_base(command, &job.spec, &job.secret);
        command.env("AGENTFLOW_TASK_ID", key.task.to_string());
        command.env("AGENTFLOW_RUN_ID", job.run.map(|run| run.to_string()).unwrap_or_default());
        command.env("AGENTFLOW_ATTEMPT", key.attempt.to_string());
        command.env("AGENTFLOW_FENCE", key.fence.to_string());
        command.env("AGENTFLOW_SOCKET", &self.socket);
        for (variable, suffix) in FILES.into_iter().chain([ARTIFACTS]) {
            command.env(variable, self.file(key, suffix));
        }
    }

    /// Puts the attempt's input where its process finds it.
    ///
    /// # Errors
    /// When the file cannot be written, for people.
    pub(crate) fn write_input(&self, job: &Job, input: &str) -> Result<(), String> {
        let path = self.file(job.key, "input");
        std::fs::write(&path, input).map_err(|error| format!("AGENTFLOW_INPUT cannot be written: {error}"))
    }

    /// Where the files of attempts are.
    pub(crate) fn attempts(&self) -> &Path {
        &self.attempts
    }

    /// Where the attempt finds the checkpoint at which it begins.
    pub(crate) fn checkpoint(&self, key: AttemptKey) -> PathBuf {
        self.file(key, "checkpoint")
    }

    /// Where it finds what its task remembers.
    pub(crate) fn memory(&self, key: AttemptKey) -> PathBuf {
        self.file(key, "memory")
    }

    /// Where it finds which locks it holds.
    pub(crate) fn locks(&self, key: AttemptKey) -> PathBuf {
        self.file(key, "locks")
    }

    /// The directory of the files of earlier tasks.
    pub(crate) fn artifacts(&self, key: AttemptKey) -> PathBuf {
        self.file(key, ARTIFACTS.1)
    }

    /// A file for the executor's own use, while the attempt is there.
    pub(crate) fn scratch(&self, key: AttemptKey) -> PathBuf {
        self.file(key, "scratch")
    }

    /// Where the attempt may write its outputs.
    pub(crate) fn output(&self, key: AttemptKey) -> PathBuf {
        self.file(key, "output")
    }

    /// Deletes the attempt's files, if any were made.
    pub(crate) fn clean(&self, job: &Job) {
        let key = job.key;
        if !job.spec.artifacts_from.is_empty() {
            let path = self.artifacts(key);
            if let Err(error) = std::fs::remove_dir_all(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                log::warn!("{} stays behind: {error}", path.display());
            }
        }
        for (_, suffix) in FILES {
            let path = self.file(key, suffix);
            match std::fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => log::warn!("{} stays behind: {error}", path.display()),
            }
        }
    }

    fn file(&self, key: AttemptKey, suffix: &str) -> PathBuf {
        self.attempts.join(format!("{}.{}.{}.{suffix}", key.task, key.attempt, key.fence))
    }
}
