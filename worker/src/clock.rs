//! The worker's two clocks.

use std::time::{SystemTime, UNIX_EPOCH};

use agentflow_core::time::{Mono, Wall};

/// Time since the machine was started, sleep included: a lease runs out while a laptop sleeps.
pub(crate) fn boottime() -> Mono {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Mono(now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1_000))
}

/// For display only.
pub(crate) fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
