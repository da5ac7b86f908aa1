//! Which rule holds where files are changed, and who has said so.

use std::path::Path;

use super::own::declared;
use crate::working_copy::{Mode, WithoutMaster, WorkingCopy};

/// Says otherwise than the repository, for one command.
const VARIABLE: &str = "AGENTFLOW_LOCK_MODE";

/// The file that is committed.
const MARKER: &str = ".agentflow/repository.toml";

/// What holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rules {
    /// What needs a lock.
    pub(crate) mode: Mode,
    /// Whether a change is refused when nobody can be asked.
    pub(crate) without_master: WithoutMaster,
}

impl Rules {
    /// Those of a working copy.
    pub(crate) fn of(copy: &WorkingCopy) -> Self {
        let mode = said().unwrap_or(if declared().is_some() { Mode::Enforce } else { copy.mode });
        Self::new(mode, copy.without_master)
    }

    /// Those of a working copy within another one, which is of another repository: what the attempt has
    /// declared was not meant for it.
    pub(crate) fn of_other(copy: &WorkingCopy) -> Self {
        Self::new(said().unwrap_or(copy.mode), copy.without_master)
    }

    /// Those around a directory where more is not known. If the working copy cannot be read, and somebody
    /// has set anything up, it is better to refuse.
    pub(crate) fn around(directory: &Path) -> Self {
        if let Ok(Some(copy)) = WorkingCopy::around(directory) {
            return Self::of(&copy);
        }
        let is_marked = || directory.ancestors().any(|at| at.join(MARKER).symlink_metadata().is_ok());
        let is_set_up = || declared().is_some() || is_marked();
        let mode = said().unwrap_or_else(|| if is_set_up() { Mode::Enforce } else { Mode::Conflicts });
        Self::new(mode, WithoutMaster::default())
    }

    fn new(mode: Mode, without_master: WithoutMaster) -> Self {
        // What needs a lock of its own is not allowed for want of an answer.
        let without_master = if mode == Mode::Enforce { WithoutMaster::Deny } else { without_master };
        Self { mode, without_master }
    }

    /// Whether what cannot be checked is refused.
    pub(crate) fn is_closed(self) -> bool {
        self.mode != Mode::Off && self.without_master == WithoutMaster::Deny
    }

    /// Which way it goes when nothing can be checked, and why.
    pub(crate) fn failing(self) -> &'static str {
        match (self.mode, self.without_master) {
            (Mode::Off, _) => "allowed, as nothing is checked here (mode = \"off\")",
            (Mode::Enforce, _) => "refused, as every change needs a lock here (mode = \"enforce\")",
            (Mode::Conflicts, WithoutMaster::Deny) => {
                "refused (mode = \"conflicts\", without_master = \"deny\")"
            }
            (Mode::Conflicts, WithoutMaster::Allow) => {
                "allowed (mode = \"conflicts\", without_master = \"allow\")"
            }
        }
    }
}

/// What the environment says; what is no mode is the strictest.
fn said() -> Option<Mode> {
    let text = std::env::var_os(VARIABLE).filter(|text| !text.is_empty())?;
    let said = mode(text.to_str().unwrap_or_default());
    if said.is_none() {
        log::warn!("{VARIABLE} is {text:?}, which is taken for enforce; allowed: enforce, conflicts, off");
    }
    said.or(Some(Mode::Enforce))
}

fn mode(text: &str) -> Option<Mode> {
    match text {
        "enforce" => Some(Mode::Enforce),
        "conflicts" => Some(Mode::Conflicts),
        "off" => Some(Mode::Off),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_closed_where_every_change_needs_a_lock() {
        let closed = |mode, without_master| Rules::new(mode, without_master).is_closed();
        assert!(closed(Mode::Enforce, WithoutMaster::Allow));
        assert!(closed(Mode::Conflicts, WithoutMaster::Deny));
        assert!(!closed(Mode::Conflicts, WithoutMaster::Allow));
        assert!(!closed(Mode::Off, WithoutMaster::Deny));
    }

    #[test]
    fn a_mode_is_one_of_three() {
        assert_eq!(
            ["enforce", "conflicts", "off", "Off", ""].map(|text| mode(text).is_some()),
            [true, true, true, false, false]
        );
    }
}
