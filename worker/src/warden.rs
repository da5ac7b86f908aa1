//! The warden: a second process that outlives the worker just long enough to clean up after it.
//!
//! ```text
//! worker                               warden
//!   | -- description (once) ------------> |
//!   | -- +group, -group, 8 bytes each --> |   read every 200 ms, never one by one
//!   x    pipe closes                      |   kills the groups and all that carry the mark,
//!                                         |   tells the master, ends
//! ```
//!
//! Owns: the records on the pipe, and what happens when it closes. It is started as this very
//! program with one argument, so every program that embeds a worker begins its `main` with
//! [`run_if_asked`]. It has its own session: what the terminal sends does not reach it.
//!
//! Invariants: a process is recorded before its end can be observed; what falls between its start
//! and its record is found by its mark in `/proc`.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use agentflow_core::ids::BootId;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::control::signal_group;
use crate::notice;

/// The argument that makes this program a warden.
pub(crate) const ARGUMENT: &str = "warden";

/// How often the records are read.
const READ_EVERY: Duration = Duration::from_millis(200);

/// Bytes of the description.
pub(crate) const DESCRIPTION_BYTES: u32 = 1 << 20;

/// The record of a worker that leaves in good order: the master knows already.
pub(crate) const GOODBYE: i64 = 0;

/// What a warden must know.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Description {
    pub(crate) masters: Vec<String>,
    pub(crate) worker: String,
    pub(crate) boot: BootId,
    pub(crate) key_prefix: String,
    pub(crate) token_file: Option<PathBuf>,
}

/// Call this first in `main`. If the program was started as a warden it does that work and gives
/// the code to exit with; otherwise it gives `None`.
#[must_use]
pub fn run_if_asked() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != ARGUMENT || args.next().is_some() {
        return None;
    }
    if let Err(error) = guard() {
        eprintln!("agentflow warden: {error}");
        return Some(ExitCode::FAILURE);
    }
    Some(ExitCode::SUCCESS)
}

fn guard() -> io::Result<()> {
    // Fails only if we lead a group already, which is as good.
    let _leader = rustix::process::setsid();
    let _runtime = ignore_signals()?;
    // Unbuffered: what lies in a buffer would not wake the poll.
    let mut pipe = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut length = [0; 4];
    pipe.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > DESCRIPTION_BYTES {
        return Err(io::Error::other("this is started by a worker, not by hand"));
    }
    let mut text = vec![0; usize::try_from(length).unwrap_or(0)];
    pipe.read_exact(&mut text)?;
    let description: Description = serde_json::from_slice(&text)?;

    let mut records = Records::default();
    records.read_until_closed(&mut pipe)?;
    for group in records.groups.drain().filter_map(Pid::from_raw) {
        signal_group(group, Signal::KILL);
    }
    if let Err(pids) = crate::leftovers::kill_all(&description.key_prefix) {
        // The lease decides then: the master must not be told what is not true.
        return Err(io::Error::other(format!("these processes do not die: {pids}")));
    }
    if !records.goodbye {
        notice::tell_dead(&description).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Service managers signal a whole control group; the warden must see the worker out all the same.
/// The signals are caught as long as the result lives.
fn ignore_signals() -> io::Result<tokio::runtime::Runtime> {
    use actix_rt::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        // A signal that is caught once stays caught; nobody needs to listen.
        drop(signal(kind)?);
    }
    drop(entered);
    Ok(runtime)
}

#[derive(Debug, Default)]
struct Records {
    groups: HashSet<i32>,
    goodbye: bool,
    torn: Vec<u8>,
}

impl Records {
    fn read_until_closed(&mut self, pipe: &mut (impl Read + AsFd)) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        let pause = rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::from(READ_EVERY.subsec_nanos()) };
        loop {
            // Sleeps until the pipe closes, for the pause at most if there are records: asking for
            // no event still reports the hang-up.
            let forever = {
                let mut fds = [PollFd::new(pipe, PollFlags::IN)];
                poll_once(&mut fds, None)?;
                fds[0].revents()
            };
            if !forever.contains(PollFlags::HUP) {
                let mut fds = [PollFd::new(pipe, PollFlags::empty())];
                poll_once(&mut fds, Some(&pause))?;
            }
            let count = pipe.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            self.take(&buffer[..count]);
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.torn.extend_from_slice(bytes);
        let (records, rest) = self.torn.as_chunks::<8>();
        for record in records {
            match i64::from_le_bytes(*record) {
                GOODBYE => self.goodbye = true,
                group @ 1.. => {
                    self.groups.extend(i32::try_from(group).ok());
                }
                group => {
                    i32::try_from(-group).ok().map(|group| self.groups.remove(&group));
                }
            }
        }
        self.torn = rest.to_vec();
    }
}

fn poll_once(fds: &mut [PollFd<'_>], timeout: Option<&rustix::event::Timespec>) -> io::Result<()> {
    match poll(fds, timeout) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn records_add_and_remove_groups_and_may_be_torn() {
        let mut bytes = Vec::new();
        for record in [5_i64, 6, -5, 0, 7] {
            bytes.extend_from_slice(&record.to_le_bytes());
        }
        let mut records = Records::default();
        for part in bytes.chunks(3) {
            records.take(part);
        }
        assert_eq!(records.groups, HashSet::from([6, 7]));
        assert!(records.goodbye && records.torn.is_empty());
    }

    #[test]
    fn a_closed_pipe_ends_the_reading() {
        let (mut reader, mut writer) = io::pipe().expect("a pipe");
        writer.write_all(&77_i64.to_le_bytes()).expect("a reader");
        drop(writer);
        let mut records = Records::default();
        records.read_until_closed(&mut reader).expect("an end");
        assert_eq!(records.groups, HashSet::from([77]));
        assert!(!records.goodbye);
    }
}
