//! The status of a run, as users see it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a run stands. The last three are ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum RunStatus {
    /// Accepted; nothing of it has begun.
    Pending = 0,
    /// At work.
    Running = 1,
    /// What runs may finish; nothing new is started.
    Paused = 2,
    /// Every node has ended, and none failed unhandled.
    Completed = 3,
    /// A node failed, and no `on_failure` handled it.
    Failed = 4,
    /// Stopped on request.
    Cancelled = 5,
}

impl RunStatus {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Running, Self::Paused, Self::Completed, Self::Failed, Self::Cancelled];

    /// The status with that number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_settled(self) -> bool {
        self >= Self::Completed
    }

    /// The word used on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for RunStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|status| status.word() == text).ok_or_else(|| {
            let words: Vec<_> = Self::ALL.iter().map(|status| status.word()).collect();
            format!("'{text}' is no status of a run; allowed: {}", words.join(", "))
        })
    }
}
