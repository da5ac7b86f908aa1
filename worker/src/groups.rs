//! The worker's side of the warden: which process groups live, and who is told.
//!
//! Owns: the set of live groups, the pipe, and the warden's process, which is replaced when it
//! dies or stops listening. Invariants: a slot's thread never waits for the warden; a warden is
//! dead before its pipe is closed, unless the worker leaves, because a closed pipe means to it
//! that the worker has died.

use std::collections::HashSet;
use std::io::{self, PipeWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use agentflow_core::time::Mono;
use rustix::process::Pid;

use crate::guarded::Guarded;
use crate::warden::{ARGUMENT, DESCRIPTION_BYTES, Description, GOODBYE};

/// Between two tries to replace a warden.
const REPLACE_EVERY_MS: u64 = 5_000;

#[derive(Debug)]
struct State {
    pipe: PipeWriter,
    live: HashSet<i32>,
    broken: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Groups(Guarded<State>);

impl Groups {
    /// A process group has been started.
    pub(crate) fn add(&self, group: Pid) {
        let group = group.as_raw_nonzero().get();
        let mut state = self.0.lock();
        state.live.insert(group);
        state.tell(group.into());
    }

    /// Its leader is about to be reaped.
    pub(crate) fn remove(&self, group: Pid) {
        let group = group.as_raw_nonzero().get();
        let mut state = self.0.lock();
        state.live.remove(&group);
        state.tell(-i64::from(group));
    }

    /// The worker leaves in good order.
    pub(crate) fn goodbye(&self) {
        self.0.lock().tell(GOODBYE);
    }

    fn is_broken(&self) -> bool {
        self.0.lock().broken
    }

    /// A new warden listens.
    fn replace(&self, pipe: PipeWriter) {
        let mut state = self.0.lock();
        state.pipe = pipe;
        state.broken = false;
        let live: Vec<i32> = state.live.iter().copied().collect();
        live.into_iter().for_each(|group| state.tell(group.into()));
    }
}

impl State {
    fn tell(&mut self, record: i64) {
        // 8 bytes go in whole or not at all. A full pipe means that nobody has read for long.
        if let Err(error) = self.pipe.write_all(&record.to_le_bytes())
            && !self.broken
        {
            log::warn!("the warden does not listen: {error}");
            self.broken = true;
        }
    }
}

/// The warden's process, seen from the worker.
#[derive(Debug)]
pub(crate) struct Warden {
    program: PathBuf,
    description: Description,
    /// What it has to say at its end. Not the worker's standard error: a pipe that reads that would
    /// stay open for as long as the warden outlives the worker.
    log: PathBuf,
    child: Child,
    groups: Arc<Groups>,
    replaced: Mono,
}

impl Warden {
    /// Starts the warden of this worker.
    pub(crate) fn start(program: Option<&Path>, description: Description, log: PathBuf) -> io::Result<Self> {
        let program = match program {
            Some(program) => program.to_owned(),
            None => std::env::current_exe()?,
        };
        let (child, pipe) = spawn(&program, &description, &log)?;
        let groups = Groups(Guarded::new(State { pipe, live: HashSet::new(), broken: false }));
        Ok(Self { program, description, log, child, groups: Arc::new(groups), replaced: Mono(0) })
    }

    pub(crate) fn groups(&self) -> Arc<Groups> {
        Arc::clone(&self.groups)
    }

    /// Replaces a warden that is dead or deaf.
    pub(crate) fn look_after(&mut self, now: Mono) {
        let ended = matches!(self.child.try_wait(), Ok(Some(_)));
        let wait = self.replaced != Mono(0) && now < self.replaced.plus_ms(REPLACE_EVERY_MS);
        if wait || !(ended || self.groups.is_broken()) {
            return;
        }
        self.replaced = now;
        log::warn!("the warden is gone; another is started");
        if !ended && let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            log::warn!("the deaf warden cannot be ended: {error}");
        }
        match spawn(&self.program, &self.description, &self.log) {
            Ok((child, pipe)) => {
                self.child = child;
                self.groups.replace(pipe);
            }
            Err(error) => {
                log::error!(
                    "no warden can be started; if this worker dies, processes may outlive it: {error}"
                );
            }
        }
    }

    /// Waits for the warden once the worker has left, so that no zombie stays in a program that
    /// goes on. Bounded: one that still tells the master is left to itself.
    pub(crate) fn see_out(self) {
        const LOOKS: u32 = 50;
        let Self { mut child, groups, .. } = self;
        // It ends when the last thread of this worker has let go of the pipe.
        drop(groups);
        for _ in 0..LOOKS {
            match child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                Ok(Some(_)) | Err(_) => return,
            }
        }
    }
}

fn spawn(program: &Path, description: &Description, log: &Path) -> io::Result<(Child, PipeWriter)> {
    let text = serde_json::to_vec(description)?;
    let length = u32::try_from(text.len()).ok().filter(|length| *length <= DESCRIPTION_BYTES);
    let length = length.ok_or_else(|| io::Error::other("the configuration is too long"))?;
    let (reader, mut writer) = io::pipe()?;
    let child = Command::new(program)
        .arg(ARGUMENT)
        .stdin(reader)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(log)?)
        .current_dir("/")
        .spawn()?;
    writer.write_all(&length.to_le_bytes())?;
    writer.write_all(&text)?;
    rustix::io::ioctl_fionbio(&writer, true)?;
    Ok((child, writer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_new_warden_hears_of_all_that_lives_and_a_deaf_one_holds_nobody() {
        let (reader, pipe) = io::pipe().expect("a pipe");
        rustix::io::ioctl_fionbio(&pipe, true).expect("a pipe");
        let groups = Groups(Guarded::new(State { pipe, live: HashSet::new(), broken: false }));
        let pid = |n| Pid::from_raw(n).expect("a number");
        groups.add(pid(5));
        // More than any pipe holds.
        for _ in 0..200_000 {
            groups.add(pid(6));
            groups.remove(pid(6));
        }
        assert!(groups.is_broken());
        drop(reader);
        let (mut reader, pipe) = io::pipe().expect("a pipe");
        groups.replace(pipe);
        assert!(!groups.is_broken());
        drop(groups);
        let mut records = Vec::new();
        reader.read_to_end(&mut records).expect("records");
        assert_eq!(records, 5_i64.to_le_bytes());
    }
}
