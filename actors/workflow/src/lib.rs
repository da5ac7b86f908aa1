//! What a workflow file says.
//!
//! This package owns the reading of workflow files (YAML or JSON), their validation, the definition
//! that a run is made from, and the expressions in it. It is pure: text and values go in, a
//! [`Definition`] or [`Diagnostics`] come out. It knows no states of tasks, no clock, no database and
//! no worker; what a task's body may hold is asked of a [`CheckTask`].
//!
//! ```text
//! text ── read_text ──► Definition ── instantiate(vars, inputs) ──► Definition of one run
//!   └──────► Diagnostics (all of them, with line and column)              │
//!                                             Rendering, Expression ◄── Scope
//! ```
//!
//! Invariants: the edges of a definition point at nodes that exist and have no cycle; its canonical
//! text comes back as the same definition; an expression never uses more than its bounds
//! ([`limits`]).

pub mod draw;
pub mod graph;
pub mod limits;

mod definition;
mod diagnostic;
mod expression;
mod extra;
mod instantiate;
mod nearest;
mod read;
mod rendering;
mod scope;
mod tree;

pub use definition::{BrokenDefinition, Definition, Edge, Mode, Node, On, Successors, Template, UnknownMode};
pub use diagnostic::{Diagnostic, Diagnostics};
pub use expression::{EvaluationError, Expression, ExpressionError, References, Root, Roots, TaskPart};
pub use extra::{Approval, Child, Extra, Repeat};
pub use read::{CheckTask, KEYS, read_text, read_tree, read_value};
pub use rendering::Rendering;
pub use scope::{Scope, TaskValue, TaskView};
pub use tree::Tree;

/// The JSON Schema (draft 2020-12) of workflow files, for editors.
#[must_use]
pub fn schema() -> &'static str {
    include_str!("schema.json")
}
