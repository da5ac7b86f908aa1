//! A stand-in for the program of a coding agent, which speaks the formats of Claude Code.
//!
//! ```text
//! script ──► call ──► PreToolUse hooks ──no──► tool_result with the reason
//!                          │ yes, or failed                 │
//!                          └──────► the tool itself ────────┴──► stream of JSON lines
//! ```
//!
//! What a model would decide is in the script. Owns: how hooks are asked and obeyed, what tools do, what is
//! printed. Must not know: AgentFlow.
//!
//! Invariants, all of the real program: a hook's exit code 2 is a no, and its standard error is what the
//! agent reads; whatever else goes wrong with a hook is a yes. Files that a shell command writes are asked
//! of nobody.

mod hooks;
mod script;
mod session;
mod stream;
mod tools;

pub use script::{Call, Script, Tool};
pub use session::{Options, run};
pub use stream::{Outcome, outcomes};
