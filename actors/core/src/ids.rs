//! Identities. Each is a newtype, so that one number cannot stand for another.
//!
//! Tasks are numbered from 1 without gaps in a master's memory; numbers are never reused.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl $name {
            /// The number that follows.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }
    };
}

number!(
    /// A task, from 1.
    TaskId,
    u64
);
number!(
    /// A run of a workflow, from 1.
    RunId,
    u64
);
number!(
    /// A checkpoint, from 1; one row of numbers for all tasks.
    CheckpointId,
    u64
);
number!(
    /// A grant of a lock, or a request for one, from 1; one row of numbers for all repositories.
    LockNumber,
    u64
);
number!(
    /// A repository in which something was locked, from 1.
    SpaceId,
    u32
);
number!(
    /// Which try of a task this is, from 1; 0 before the first.
    Attempt,
    u32
);
number!(
    /// Rises with every assignment of a task. Together with [`Attempt`] it identifies a report:
    /// a report that names an older fence changes nothing.
    Fence,
    u64
);
number!(
    /// Rises each time a master takes office. Workers refuse frames of a smaller one.
    Epoch,
    u64
);
number!(
    /// Chooses between two sockets of one worker: the larger one is the living one.
    SessionEpoch,
    u64
);
number!(
    /// The position of one kernel step in the order in which steps are made durable.
    DecisionNumber,
    u64
);
number!(
    /// The position of an event in the log, from 1 without holes.
    Seq,
    u64
);
number!(
    /// Who waits for an answer; given out by the shell around the kernel.
    ReplyTo,
    u64
);

impl FromStr for TaskId {
    type Err = ParseIntError;

    /// Accepts `5` and `TASK-00000005`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix("TASK-").unwrap_or(text).parse().map(Self)
    }
}

/// Names one life of a worker process: random, chosen by the worker when it starts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default, PartialOrd, Ord, Debug)]
#[serde(transparent)]
pub struct BootId(pub u64);

/// The first 128 bits of the SHA-256 of a specification's canonical JSON.
///
/// Finding a second text for a given hash costs 2^128 work; a pair of colliding texts costs 2^64,
/// and both would belong to the one who made them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpecHash(pub [u8; 16]);

impl fmt::Debug for SpecHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_id_is_read_in_both_spellings() {
        assert_eq!("5".parse(), Ok(TaskId(5)));
        assert_eq!("TASK-00000005".parse(), Ok(TaskId(5)));
        assert!("TASK-".parse::<TaskId>().is_err());
        assert!("-5".parse::<TaskId>().is_err());
    }
}
