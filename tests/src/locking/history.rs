//! What clients asked and were told, as they write it down.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::harness::Failure;

/// Names an operation: the client's number and a number of its own. Where it asks for a lock, the reason
/// of the lock is this name, so that everybody who sees the lock knows whose it is.
pub(super) type Name = String;

/// Microseconds of the clock that all processes of the machine share and nobody sets.
pub(super) type Micros = u64;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    Read,
    Write,
}

/// One path of a request, by its place in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Wanted {
    pub(super) path: usize,
    pub(super) mode: Mode,
}

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Call {
    Lock {
        owner: String,
        wanted: Vec<Wanted>,
        ttl_ms: u64,
        wait_ms: u64,
    },
    Unlock {
        lock: Name,
    },
    Renew {
        lock: Name,
        ttl_ms: u64,
    },
    Break {
        lock: Name,
    },
    /// All locks of the repository.
    List,
    /// Whether a lock still covers these files, by their places in the table.
    Verify {
        lock: Name,
        files: Vec<usize>,
    },
}

/// What was told.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Told {
    Granted {
        fence: u64,
    },
    /// The fences of those locks that stand in the way.
    Refused {
        holders: Vec<u64>,
    },
    /// Whoever is in the way waits, over others, for the one who asks.
    Deadlock,
    /// The lock was granted, says the answer to a repeated request, and is held no more.
    Ended,
    Done,
    /// The lock is not held.
    Gone,
    /// An answer was lost before; the next one said that the lock is not held.
    DoneOrGone,
    Listed {
        locks: Vec<(Name, u64)>,
    },
    /// The files that are not covered.
    Verified {
        uncovered: Vec<usize>,
    },
}

/// A line of a client's file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Asked { name: Name, repo: usize, at: Micros, call: Call },
    Told { name: Name, at: Micros, told: Told },
}

/// One operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Operation {
    pub(super) name: Name,
    pub(super) repo: usize,
    pub(super) asked_at: Micros,
    pub(super) call: Call,
    /// Nothing if the client was killed before.
    pub(super) told: Option<(Micros, Told)>,
}

impl Operation {
    /// Whether nothing can be learnt from it: its client was killed while it looked.
    pub(super) fn is_void(&self) -> bool {
        self.told.is_none() && matches!(self.call, Call::List | Call::Verify { .. })
    }
}

/// Writes a client's file. A whole line is in the system's hands before anything else happens.
pub(super) struct Recorder(File);

impl Recorder {
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        Ok(Self(File::options().create(true).append(true).open(path)?))
    }

    pub(super) fn asked(&mut self, name: &str, repo: usize, call: &Call) -> Result<(), Failure> {
        self.write(&Line::Asked { name: name.to_owned(), repo, at: now(), call: call.clone() })
    }

    pub(super) fn told(&mut self, name: &str, told: Told) -> Result<(), Failure> {
        self.write(&Line::Told { name: name.to_owned(), at: now(), told })
    }

    fn write(&mut self, line: &Line) -> Result<(), Failure> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        Ok(self.0.write_all(&text)?)
    }
}

/// The operations of all clients whose files are in that directory.
pub(super) fn read(directory: &Path) -> Result<Vec<Operation>, Failure> {
    let mut operations: Vec<Operation> = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let text = std::fs::read_to_string(entry?.path())?;
        let mut at_work: HashMap<Name, usize> = HashMap::new();
        // What is behind the last end of a line was being written when the client was killed.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            match serde_json::from_str(line)? {
                Line::Asked { name, repo, at, call } => {
                    at_work.insert(name.clone(), operations.len());
                    operations.push(Operation { name, repo, asked_at: at, call, told: None });
                }
                Line::Told { name, at, told } => {
                    let index = at_work.remove(&name).ok_or_else(|| format!("{name} was not asked"))?;
                    operations[index].told = Some((at, told));
                }
            }
        }
    }
    Ok(operations)
}

pub(super) fn now() -> Micros {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    part(time.tv_sec) * 1_000_000 + part(time.tv_nsec) / 1_000
}
