//! Waiting for a child and its pipes at once, without a thread for each.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

/// How often a child is looked at where the kernel has no pidfd.
const TICK: Duration = Duration::from_millis(10);

/// A child that is not reaped yet: until it is, its number cannot be given to another.
#[derive(Debug)]
pub(crate) struct Exit {
    pid: Pid,
    descriptor: Option<OwnedFd>,
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ready {
    pub(crate) exited: bool,
    pub(crate) out: bool,
    pub(crate) err: bool,
    pub(crate) input: bool,
}

impl Exit {
    /// Looks without reaping.
    const LOOK: WaitIdOptions =
        WaitIdOptions::EXITED.union(WaitIdOptions::NOHANG).union(WaitIdOptions::NOWAIT);

    pub(crate) fn of(pid: Pid) -> Self {
        Self { pid, descriptor: pidfd_open(pid, PidfdFlags::empty()).ok() }
    }

    fn has_exited(&self) -> bool {
        // An error would mean that somebody else has reaped it: gone in any case.
        !matches!(waitid(WaitId::Pid(self.pid), Self::LOOK), Ok(None))
    }

    /// How it has ended, in brackets.
    pub(crate) fn cause(&self) -> String {
        let Ok(Some(status)) = waitid(WaitId::Pid(self.pid), Self::LOOK) else { return String::new() };
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => format!(" (exit code {code})"),
            (None, Some(signal)) => format!(" (killed by signal {signal})"),
            (None, None) => String::new(),
        }
    }
}

/// Waits until something can be read or written, the child has ended, or the time is over.
pub(crate) fn wait(
    exit: Option<&Exit>,
    out: Option<&impl AsFd>,
    err: Option<&impl AsFd>,
    input: Option<&impl AsFd>,
    timeout: Option<Duration>,
) -> io::Result<Ready> {
    let ticks = exit.is_some_and(|exit| exit.descriptor.is_none());
    let timeout = if ticks { Some(timeout.map_or(TICK, |timeout| timeout.min(TICK))) } else { timeout };
    let descriptor = exit.and_then(|exit| exit.descriptor.as_ref());
    let fds = [
        descriptor.map(|fd| PollFd::new(fd, PollFlags::IN)),
        out.map(|fd| PollFd::new(fd, PollFlags::IN)),
        err.map(|fd| PollFd::new(fd, PollFlags::IN)),
        input.map(|fd| PollFd::new(fd, PollFlags::OUT)),
    ];
    let places = fds.each_ref().map(Option::is_some);
    let mut fds: Vec<PollFd<'_>> = fds.into_iter().flatten().collect();
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    });
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut flags = fds.iter().map(|fd| !fd.revents().is_empty());
    let mut ready = places.map(|there| there && flags.next().unwrap_or(false)).into_iter();
    let mut next = || ready.next().unwrap_or(false);
    let mut ready = Ready { exited: next(), out: next(), err: next(), input: next() };
    if ticks {
        ready.exited = exit.is_some_and(Exit::has_exited);
    }
    Ok(ready)
}
