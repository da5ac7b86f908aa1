//! The two clocks of the machine, as the core wants them.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use agentflow_core::time::{Mono, Now, Wall};

/// Reads both clocks. The monotonic one stands still while the machine sleeps: a master that wakes
/// gives its workers the rest of their leases to come back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn now(&self) -> Now {
        let mono = i64::try_from(self.start.elapsed().as_micros()).unwrap_or(i64::MAX);
        Now { mono: Mono(mono), wall: wall() }
    }
}

/// The wall clock; 0 before 1970.
#[must_use]
pub fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
