//! A file that a task names as its checkpoint: looked at once a second, and saved when it has changed.
//!
//! The task writes it as it likes. What changes while it is read is left for the next look; whoever
//! writes beside it and renames is never read half-way.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use agentflow_core::checkpoint::{Content, NewCheckpoint, too_large};
use agentflow_core::limits;
use agentflow_protocol::log_frame::Stream;

use super::{Event, Executor};
use crate::door;
use crate::slots::Job;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// By what a change is noticed: inode, length, and when it was written, to the nanosecond.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp(u64, u64, i64, i64);

/// See the module.
#[derive(Debug)]
pub(super) struct OwnFile {
    path: PathBuf,
    name: String,
    saved: Option<Stamp>,
    next: Instant,
    /// Said once.
    complained: bool,
}

impl OwnFile {
    /// The file of a task that names one. What is there already is not saved.
    pub(super) fn of(job: &Job, now: Instant) -> Option<Self> {
        let path = super::resume::own_file(job)?;
        let saved = stamp(&path).ok();
        let name = job.spec.checkpoint_file.clone()?;
        Some(Self { path, name, saved, next: now + EVERY, complained: false })
    }

    /// How long nothing needs to be done.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.next.saturating_duration_since(now)
    }

    /// Looks, if it is time, and saves what has changed.
    pub(super) fn look_in_time(&mut self, executor: &Executor, job: &Job, now: Instant) {
        if now >= self.next {
            self.next = now + EVERY;
            self.look(executor, job);
        }
    }

    /// Looks, and saves what has changed.
    pub(super) fn look(&mut self, executor: &Executor, job: &Job) {
        match self.changed() {
            Ok(None) => {}
            Ok(Some((stamp, bytes))) => {
                if self.save(executor, job, bytes) {
                    self.saved = Some(stamp);
                }
            }
            Err(error) => self.complain(job, &error),
        }
    }

    fn complain(&mut self, job: &Job, error: &str) {
        if !std::mem::replace(&mut self.complained, true) {
            log::warn!("task {}: {} is not saved: {error}", job.key.task, self.path.display());
        }
    }

    fn changed(&self) -> Result<Option<(Stamp, Vec<u8>)>, String> {
        let before = match stamp(&self.path) {
            Ok(stamp) => stamp,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        if Some(before) == self.saved {
            return Ok(None);
        }
        if before.1 > limits::CHECKPOINT_BYTES {
            return Err(too_large(before.1));
        }
        let bytes = self.read().map_err(|error| error.to_string())?;
        let is_whole = stamp(&self.path).is_ok_and(|after| after == before);
        Ok(is_whole.then_some((before, bytes)))
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        // A pipe in the file's place must not hold this thread.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = File::options().read(true).custom_flags(flags).open(&self.path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("is no regular file"));
        }
        let mut bytes = Vec::new();
        file.take(limits::CHECKPOINT_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Hands the bytes on; whether that is done. A large file goes first, which may take a while.
    fn save(&mut self, executor: &Executor, job: &Job, bytes: Vec<u8>) -> bool {
        let json = door::is_json(&bytes);
        let content = if bytes.len() <= limits::CHECKPOINT_ROW_BYTES {
            Content::Data(bytes.into())
        } else {
            match door::keep(&executor.api, executor.environment.attempts(), &job.control, &bytes) {
                Ok(blob) => Content::Blob(blob),
                Err(problem) => {
                    self.complain(job, &problem.detail);
                    return false;
                }
            }
        };
        let (spec, message) = (&job.spec, door::message(job.key, &self.name));
        let files = match job.place.snapshot(spec, &message, &|| job.control.stopped().is_some()) {
            Ok(files) => files,
            Err(why) => {
                self.complain(job, &why);
                return false;
            }
        };
        if let Some(files) = &files
            && let Some(text) = job.place.warning(files, &|| job.control.stopped().is_some())
        {
            executor.log(job, Stream::Err, text.as_bytes());
        }
        let checkpoint = NewCheckpoint { name: self.name.as_str().into(), json, content, files };
        executor.post.push(Event::Save { key: job.key, checkpoint: Box::new(checkpoint) });
        true
    }
}

fn stamp(path: &std::path::Path) -> io::Result<Stamp> {
    let found = std::fs::metadata(path)?;
    Ok(Stamp(found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
}
