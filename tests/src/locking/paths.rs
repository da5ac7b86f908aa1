//! What the clients lock, and which files that is.

use std::ops::BitOr;

use super::history::{Mode, Wanted};

/// The files of each repository.
pub(super) const FILES: [&str; 6] = ["a/1", "a/2", "a/3", "b/1", "b/2", "c"];

/// What can be asked for, with the files that it names, the first one in the last bit. Two of these
/// overlap only if they have one of the files in common.
const PATHS: [(&str, u8); 10] = [
    ("a/1", 0b00_0001),
    ("a/2", 0b00_0010),
    ("a/3", 0b00_0100),
    ("b/1", 0b00_1000),
    ("b/2", 0b01_0000),
    ("c", 0b10_0000),
    ("a/**", 0b00_0111),
    ("b/*", 0b01_1000),
    ("**/1", 0b00_1001),
    ("?/2", 0b01_0010),
];

/// How many paths there are to choose from.
pub(super) const COUNT: usize = PATHS.len();

/// Files for reading and files for writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Claim {
    pub(super) reads: u8,
    pub(super) writes: u8,
}

impl Claim {
    pub(super) fn of(wanted: &[Wanted]) -> Self {
        wanted.iter().fold(Self::default(), |claim, wanted| {
            let files = files(wanted.path);
            claim
                | match wanted.mode {
                    Mode::Read => Self { reads: files, writes: 0 },
                    Mode::Write => Self { reads: 0, writes: files },
                }
        })
    }

    /// Whether both cannot be held.
    pub(super) fn excludes(self, other: Self) -> bool {
        self.writes & (other.reads | other.writes) != 0 || self.reads & other.writes != 0
    }
}

impl BitOr for Claim {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self { reads: self.reads | other.reads, writes: self.writes | other.writes }
    }
}

/// The text of a path.
pub(super) fn text(path: usize) -> &'static str {
    PATHS.get(path).map_or("", |(text, _)| text)
}

/// The files that a path names.
pub(super) fn files(path: usize) -> u8 {
    PATHS.get(path).map_or(0, |(_, files)| *files)
}
