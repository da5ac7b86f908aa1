//! Time as an argument. The core reads no clock.
//!
//! Decisions use [`Mono`], the master's monotonic clock; [`Wall`] is for display and for the few
//! moments that people name (`not_before`).

use serde::{Deserialize, Serialize};

/// Microseconds since an arbitrary start of this process; never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Mono(pub i64);

/// Microseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Wall(pub i64);

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For decisions.
    pub mono: Mono,
    /// For display.
    pub wall: Wall,
}

impl Mono {
    /// This moment moved by `ms` milliseconds.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add_unsigned(ms.saturating_mul(1_000)))
    }

    /// Milliseconds from `self` until `later`; 0 when it has passed.
    #[must_use]
    pub fn ms_until(self, later: Self) -> u64 {
        u64::try_from((later.0 - self.0).max(0)).unwrap_or(0).div_ceil(1_000)
    }
}

impl Wall {
    /// This moment moved by `ms` milliseconds.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add_unsigned(ms.saturating_mul(1_000)))
    }

    /// Milliseconds from `earlier` until `self`; 0 when the clock went back.
    #[must_use]
    pub fn ms_since(self, earlier: Self) -> u64 {
        u64::try_from((self.0 - earlier.0).max(0)).unwrap_or(0) / 1_000
    }
}

impl Now {
    /// The monotonic moment at which the wall clock will show `wall`, if nobody sets it.
    #[must_use]
    pub fn mono_at(self, wall: Wall) -> Mono {
        Mono(self.mono.0.saturating_add(wall.0.saturating_sub(self.wall.0)))
    }

    /// The wall time of a monotonic moment, if nobody sets the clock.
    #[must_use]
    pub fn wall_at(self, mono: Mono) -> Wall {
        Wall(self.wall.0.saturating_add(mono.0.saturating_sub(self.mono.0)))
    }
}
