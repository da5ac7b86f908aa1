//! The status of a task, as users see it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a task stands. The last four are settled: they absorb.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Status {
    /// Waits for predecessors.
    Blocked = 0,
    /// Ready: waits for a worker, a lock, a key, a time or an approval.
    Pending = 1,
    /// An attempt has begun and holds a lease.
    Running = 2,
    /// Done, well.
    Completed = 3,
    /// Done, badly.
    Failed = 4,
    /// Stopped on request.
    Cancelled = 5,
    /// Never to be run, because of a predecessor.
    Skipped = 6,
}

impl Status {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Blocked,
        Self::Pending,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Skipped,
    ];

    /// The number kept in the database.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The status with that number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Whether nothing but an explicit `retry` or `upgrade` can change it.
    #[must_use]
    pub fn is_settled(self) -> bool {
        self >= Self::Completed
    }

    /// The word used on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|status| status.word() == text).ok_or_else(|| {
            let words: Vec<_> = Self::ALL.iter().map(|status| status.word()).collect();
            format!("'{text}' is no status; allowed: {}", words.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_go_there_and_back() {
        for (number, status) in Status::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(status.number()), number);
            assert_eq!(Status::from_number(status.number()), Some(status));
            assert_eq!(status.word().parse(), Ok(status));
        }
        assert_eq!(Status::from_number(7), None);
        assert!("done".parse::<Status>().is_err());
    }
}
