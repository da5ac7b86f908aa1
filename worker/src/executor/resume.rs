//! Where an attempt begins: the checkpoint that it was given, and what its task remembers.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Executor;
use crate::api::Found;
use crate::slots::Job;

impl Executor {
    /// Puts checkpoint and memory where the attempt's process finds them.
    ///
    /// # Errors
    /// Why they are not there, for people: the attempt would begin at the wrong place.
    pub(super) fn resume(&self, job: &Job) -> Result<(), String> {
        if let Some(id) = job.checkpoint {
            let failed = |error: String| format!("checkpoint {id} cannot be restored: {error}");
            let path = self.environment.checkpoint(job.key);
            let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
            let mut file = file.map_err(|error| failed(error.to_string()))?;
            let found = self.patiently(job, |patience| self.api.checkpoint(id, &mut file, patience));
            let Found { name, files } = found.map_err(failed)?;
            if let Some(files) = files {
                let cancelled = || job.control.stopped().is_some();
                job.place.restore(files, &cancelled).map_err(failed)?;
            }
            // The task's own file holds what it saved last, which may be older or newer here.
            if let Some(own) = own_file(job).filter(|_| job.spec.checkpoint_file.as_ref() == Some(&name)) {
                put_back(&path, &own).map_err(|error| failed(format!("{}: {error}", own.display())))?;
            }
        }
        if job.remembers {
            let failed = |error: String| format!("AGENTFLOW_MEMORY cannot be made: {error}");
            let path = format!("/api/v2/tasks/{}/memory", job.key.task);
            let text = self.patiently(job, |patience| self.api.text(&path, patience)).map_err(failed)?;
            let memory: Memory = serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
            fs::write(self.environment.memory(job.key), memory.memory.get())
                .map_err(|error| failed(error.to_string()))?;
        }
        Ok(())
    }
}

/// What of the master's answer is handed on as it is.
#[derive(Deserialize)]
struct Memory {
    memory: Box<RawValue>,
}

/// The file that a task names as its checkpoint.
pub(super) fn own_file(job: &Job) -> Option<PathBuf> {
    let file = job.spec.checkpoint_file.as_ref()?;
    Some(job.place.directory(&job.spec).unwrap_or(Path::new("")).join(file))
}

/// Copies beside it and then renames, so that nobody finds half of it.
fn put_back(from: &Path, to: &Path) -> std::io::Result<()> {
    if let Some(parent) = to.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    let mut beside = to.as_os_str().to_owned();
    beside.push(".agentflow");
    fs::copy(from, &beside)?;
    fs::rename(&beside, to)
}
