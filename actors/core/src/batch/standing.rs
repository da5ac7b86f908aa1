//! Rows of what stands beside tasks and runs: schedules and the limits of concurrency keys.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::time::Wall;

/// What happens to the times of a schedule that passed while no master was there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum CatchUp {
    /// They are left out.
    #[default]
    Skip = 0,
    /// One run stands for all of them.
    Once = 1,
    /// Each of them, the latest hundred at most.
    All = 2,
}

impl CatchUp {
    /// The policy with that number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Skip, Self::Once, Self::All].get(usize::from(number)).copied()
    }
}

/// Something that is begun again and again.
#[derive(Clone, PartialEq, Debug)]
pub struct ScheduleRow {
    /// Its name.
    pub name: Arc<str>,
    /// What is begun, as it was written: a JSON object.
    pub body: Arc<str>,
    /// When: five fields of cron, or six with seconds first.
    pub cron: Arc<str>,
    /// In which time zone, by its IANA name.
    pub zone: Arc<str>,
    /// What happens to times that were missed.
    pub catch_up: CatchUp,
    /// Whether it waits to be resumed.
    pub paused: bool,
    /// The next time; none when there is none.
    pub next_at: Option<Wall>,
    /// The latest time that something was begun.
    pub last_at: Option<Wall>,
    /// How often something was begun.
    pub fired: u64,
    /// When it was made.
    pub created_at: Wall,
}

/// A schedule's row as it is now; none when it is gone.
#[derive(Clone, PartialEq, Debug)]
pub struct ScheduleWrite {
    /// Which.
    pub name: Arc<str>,
    /// Its row.
    pub row: Option<ScheduleRow>,
}

/// How often a key may be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rate {
    /// So many attempts may begin,
    pub count: u32,
    /// in so many milliseconds.
    pub per_ms: u64,
}

/// How many may hold a key, and how often.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyLimit {
    /// Attempts at once.
    pub limit: u32,
    /// How many may begin in a time; no such bound when absent.
    pub rate: Option<Rate>,
}

/// The limits of a concurrency key; none takes them away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyLimitRow {
    /// Which key.
    pub name: Arc<str>,
    /// Its limits.
    pub limit: Option<KeyLimit>,
}
