//! The words in which the kernel says why a task is not running.

use crate::ids::TaskId;
use crate::status::Status;
use crate::time::Wall;

/// Where a task stands and every reason why it is not running.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Why {
    /// Which.
    pub task: TaskId,
    /// Where it stands.
    pub status: Status,
    /// Empty when it runs or is settled.
    pub reasons: Vec<Reason>,
}

/// One reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason {
    /// A stable word.
    pub code: &'static str,
    /// What it waits for.
    pub detail: String,
    /// Who holds that.
    pub held_by: Vec<String>,
    /// Since when it waits for it.
    pub since: Option<Wall>,
    /// What would free it.
    pub frees: String,
}

impl Reason {
    /// A reason that nobody holds.
    #[must_use]
    pub fn new(code: &'static str, detail: impl Into<String>, frees: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), held_by: Vec::new(), since: None, frees: frees.into() }
    }
}
