//! What came out of a race.

use std::fmt;

use super::history::Found;
use super::ledger::Record;
use super::plan::LAYERS;
use crate::harness::Failure;

/// Violations that are shown.
const SHOWN: usize = 20;

/// What the comparison found.
#[derive(Debug, Default)]
pub struct Report {
    /// Locks that the contenders had.
    pub grants: usize,
    /// Lines that were pushed and acknowledged.
    pub edits: usize,
    /// Commits that came to `main`.
    pub commits: usize,
    /// Requests for locks that had to wait, as the master tells.
    pub waits: usize,
    /// Pushes that found that `main` had moved.
    pub moved: u64,
    /// Strays, and how many of them each layer has stopped.
    pub stopped: Vec<(String, usize)>,
    /// What must not be.
    pub violations: Vec<String>,
}

impl Report {
    pub(super) fn of(record: &Record, found: &Found, violations: Vec<String>) -> Self {
        let by = |layer| record.strays.iter().filter(|stray| stray.stopped == Some(layer)).count();
        Self {
            grants: record.grants.len(),
            edits: record.edits.iter().filter(|edit| edit.is_acknowledged).count(),
            commits: found.commits.len(),
            waits: 0,
            moved: record.moved,
            stopped: LAYERS.into_iter().map(|layer| (format!("{layer:?}"), by(layer))).collect(),
            violations,
        }
    }

    /// The report, if nothing is wrong.
    pub(super) fn judge(self, seed: u64) -> Result<Self, Failure> {
        if self.violations.is_empty() {
            return Ok(self);
        }
        let shown = self.violations[..self.violations.len().min(SHOWN)].join("\n  ");
        Err(format!("{self}\n{} violations with seed {seed}:\n  {shown}", self.violations.len()).into())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (grants, edits, commits) = (self.grants, self.edits, self.commits);
        let (waits, moved) = (self.waits, self.moved);
        write!(
            f,
            "{grants} locks ({waits} were waited for), {edits} edits in {commits} commits, main had moved {moved} times; stopped:"
        )?;
        let mut between = " ";
        for (layer, count) in &self.stopped {
            write!(f, "{between}{} {count}", layer.to_lowercase())?;
            between = ", ";
        }
        Ok(())
    }
}
