//! What a command prints, within bounds of size and time.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::control::signal_group;
use crate::executor::watch::{self, Exit};

/// Between TERM, on which git removes its lock files, and KILL.
const GRACE: Duration = Duration::from_secs(2);

/// How long is read at most of what a command that has ended left in its pipes.
const DRAIN: Duration = Duration::from_secs(1);

/// How often a caller is asked whether it still waits.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// Bytes that are kept of what a command prints. Six thousand references fit in.
const CAPTURE: usize = 1 << 20;

/// Why a command that nobody waits for has failed.
pub(super) const OVER: &str = "was stopped, because the task is over";

/// Reads what a child prints until it has ended, and ends it when its time is over. It is not reaped.
pub(super) fn watch(
    child: &mut Child,
    limit: Duration,
    cancelled: &dyn Fn() -> bool,
) -> io::Result<Captured> {
    let group = Pid::from_child(child);
    let exit = Exit::of(group);
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    let mut captured = Captured::default();
    let until = Instant::now() + limit;
    let mut kill_at = None;
    loop {
        let ready = watch::wait(Some(&exit), out.as_ref(), err.as_ref(), None::<&File>, Some(TICK))?;
        let full = captured.read(&mut out, &mut err, ready)?;
        if ready.exited {
            break;
        }
        let now = Instant::now();
        if kill_at.is_none() {
            captured.stopped = if cancelled() {
                Some(OVER.to_owned())
            } else if now >= until {
                Some(format!("took longer than {} s", limit.as_secs()))
            } else {
                full.then(|| format!("printed more than {CAPTURE} bytes"))
            };
            if captured.stopped.is_some() {
                signal_group(group, Signal::TERM);
                kill_at = Some(now + GRACE);
            }
        } else if kill_at.is_some_and(|kill_at| now >= kill_at) {
            signal_group(group, Signal::KILL);
        }
    }
    if captured.stopped.is_some() {
        // What it has started may have outlived it.
        signal_group(group, Signal::KILL);
    }
    // All that it printed is in the pipes; a helper that stays, such as a cache of passwords, may
    // hold them open.
    let until = Instant::now() + DRAIN;
    while (out.is_some() || err.is_some()) && Instant::now() < until {
        let ready = watch::wait(None, out.as_ref(), err.as_ref(), None::<&File>, Some(Duration::ZERO))?;
        if !ready.out && !ready.err {
            break;
        }
        captured.read(&mut out, &mut err, ready)?;
    }
    if captured.stdout.len() > CAPTURE && captured.stopped.is_none() {
        captured.stopped = Some(format!("printed more than {CAPTURE} bytes"));
    }
    Ok(captured)
}

/// What a command has printed so far, and why it was stopped.
#[derive(Default)]
pub(super) struct Captured {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) stopped: Option<String>,
}

impl Captured {
    /// Reads once from each pipe that is ready. Whether there was more than is kept.
    fn read(
        &mut self,
        out: &mut Option<impl AsFd>,
        err: &mut Option<impl AsFd>,
        ready: watch::Ready,
    ) -> io::Result<bool> {
        if ready.out {
            read(out, &mut self.stdout)?;
        }
        if ready.err {
            read(err, &mut self.stderr)?;
            // Its end says why something failed.
            let surplus = self.stderr.len().saturating_sub(CAPTURE);
            self.stderr.drain(..surplus);
        }
        let full = self.stdout.len() > CAPTURE;
        self.stdout.truncate(CAPTURE + 1);
        Ok(full)
    }
}

/// Reads once, and closes a pipe that is at its end.
fn read(pipe: &mut Option<impl AsFd>, into: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    if let Some(open) = pipe {
        let count = rustix::io::retry_on_intr(|| rustix::io::read(&*open, &mut buffer))?;
        into.extend_from_slice(&buffer[..count]);
        if count == 0 {
            *pipe = None;
        }
    }
    Ok(())
}
