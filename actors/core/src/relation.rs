//! How one plain task comes after another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The five types of the contract.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Relation {
    /// The successor waits until the predecessor completed, and is skipped if it did not.
    Dependency = 0,
    /// The same, and the predecessor's outputs are in the successor's input.
    Context = 1,
    /// The successor waits until the predecessor is settled, whatever its outcome.
    Sequential = 2,
    /// Asserts that neither waits for the other.
    Parallel = 3,
    /// The successor takes the predecessor's place.
    Upgrade = 4,
}

impl Relation {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::Dependency, Self::Context, Self::Sequential, Self::Parallel, Self::Upgrade];

    /// The relation with that number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The word used on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Dependency => "dependency",
            Self::Context => "context",
            Self::Sequential => "sequential",
            Self::Parallel => "parallel",
            Self::Upgrade => "upgrade",
        }
    }

    /// Whether the successor waits for the predecessor.
    #[must_use]
    pub fn orders(self) -> bool {
        matches!(self, Self::Dependency | Self::Context | Self::Sequential)
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Relation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|relation| relation.word() == text).ok_or_else(|| {
            let words: Vec<_> = Self::ALL.iter().map(|relation| relation.word()).collect();
            format!("'{text}' is no relationship; allowed: {}", words.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_go_there_and_back() {
        for (number, relation) in (0..).zip(Relation::ALL) {
            assert_eq!(Relation::from_number(number), Some(relation));
            assert_eq!(relation as u8, number);
            assert_eq!(relation.word().parse(), Ok(relation));
        }
        assert_eq!(Relation::from_number(5), None);
        assert!("before".parse::<Relation>().is_err());
    }
}
