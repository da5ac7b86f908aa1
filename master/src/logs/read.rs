//! Reading an attempt's output in steps, while it may still grow.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use agentflow_core::ids::{Attempt, TaskId};
use bytes::Bytes;

use super::log_path;

/// Bytes read at once.
pub(crate) const STEP_BYTES: usize = 64 << 10;

/// A place in a file that may not be there yet. Everything it does blocks.
#[derive(Debug)]
pub(crate) struct LogReader {
    path: PathBuf,
    file: Option<File>,
    offset: u64,
}

impl LogReader {
    /// The output of an attempt from `offset` of its file on.
    pub(crate) fn new(logs: &Path, task: TaskId, attempt: Attempt, offset: u64) -> Self {
        Self { path: log_path(logs, task, attempt), file: None, offset }
    }

    /// Where it is.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// What comes next, at most [`STEP_BYTES`]; nothing at the end of what is there.
    pub(crate) fn step(&mut self) -> io::Result<Bytes> {
        let file = match &self.file {
            Some(file) => file,
            None => match File::open(&self.path) {
                Ok(file) => self.file.insert(file),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Bytes::new()),
                Err(error) => return Err(error),
            },
        };
        let mut step = vec![0; STEP_BYTES];
        let length = file.read_at(&mut step, self.offset)?;
        step.truncate(length);
        self.offset += length as u64;
        Ok(step.into())
    }
}
