//! The handle by which an attempt is stopped from outside its thread.
//!
//! Owns: the process group of the attempt while its number is reserved, and the first reason to
//! stop. Invariant: a signal is only sent under the lock and only while the group's leader is not
//! yet reaped, so that it can never reach a stranger who was given the same number.

use rustix::process::{Pid, Signal, kill_process_group};

use crate::guarded::Guarded;

/// Why an attempt is stopped from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// The master said so; reported as cancelled.
    Cancel,
    /// The worker leaves or has lost its lease; reported as interrupted.
    Interrupt,
    /// It belongs to another now; not reported.
    Drop,
}

#[derive(Debug, Default)]
struct State {
    group: Option<Pid>,
    stop: Option<Stop>,
    killed: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Control(Guarded<State>);

impl Control {
    /// Asks the attempt to end: TERM to its group, or KILL where nothing is reported.
    pub(crate) fn stop(&self, stop: Stop) {
        let mut state = self.0.lock();
        if state.stop.is_none() || stop == Stop::Drop {
            state.stop = Some(stop);
        }
        state.killed |= stop == Stop::Drop;
        state.signal();
    }

    /// Makes it end.
    pub(crate) fn kill(&self) {
        let mut state = self.0.lock();
        state.killed = true;
        state.signal();
    }

    /// Why it was stopped, if it was.
    pub(crate) fn stopped(&self) -> Option<Stop> {
        self.0.lock().stop
    }

    /// The group has been started. A stop that came earlier reaches it now.
    pub(crate) fn begin(&self, group: Pid) {
        let mut state = self.0.lock();
        state.group = Some(group);
        if state.stop.is_some() || state.killed {
            state.signal();
        }
    }

    /// The group's leader is about to be reaped, or the process stays for others.
    pub(crate) fn end(&self) {
        self.0.lock().group = None;
    }
}

impl State {
    fn signal(&self) {
        let signal = if self.killed { Signal::KILL } else { Signal::TERM };
        if let Some(group) = self.group {
            signal_group(group, signal);
        }
    }
}

/// Sends a signal to a group whose leader is not reaped yet.
pub(crate) fn signal_group(group: Pid, signal: Signal) {
    match kill_process_group(group, signal) {
        // The group may be over already.
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => log::warn!("process group {group:?} cannot be signalled: {error}"),
    }
}
