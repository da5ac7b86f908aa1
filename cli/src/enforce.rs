//! Making file locks hold where files are changed: in the tools of agents, in git on a person's machine,
//! and where changes arrive.
//!
//! Owns: what is changed, what covers it, and what is said when nothing does. Must not know: how locks
//! are granted; it asks a master, and believes what is noted here. A layer that a person or an agent can
//! go round is made to help, and the last one, [`guard`], to hold.

pub(crate) mod ask;
pub(crate) mod cache;
pub(crate) mod chain;
pub(crate) mod change;
pub(crate) mod check;
pub(crate) mod files;
pub(crate) mod git;
pub(crate) mod guard;
pub(crate) mod history;
pub(crate) mod hooks_dir;
pub(crate) mod own;
mod patch;
pub(crate) mod rules;
pub(crate) mod script;
pub(crate) mod staged;
pub(crate) mod tool_call;
pub(crate) mod trailers;
