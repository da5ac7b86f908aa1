//! Collects what is wrong while a file is read.

use super::at::At;
use super::names;
use crate::{Diagnostic, Tree, limits};

/// Which part of an entry is meant.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Spot {
    /// The value.
    Value,
    /// The value, which is a text, at an offset in bytes.
    Inside(usize),
    /// The key: of several equal ones, so many before it.
    Key(usize),
}

/// One thing that is wrong, before its position is known.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Wrong {
    pub(super) pointer: String,
    pub(super) spot: Spot,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Wrong {
    pub(super) fn into_diagnostic(self) -> Diagnostic {
        Diagnostic::new(self.pointer, self.message).hint(self.hint)
    }

    /// What a diagnostic of a definition says of the file it came from.
    pub(super) fn from_diagnostic(one: &Diagnostic, tree: &Tree) -> Self {
        Self {
            pointer: names::locate_names(&one.pointer, tree),
            spot: Spot::Value,
            message: one.message.clone(),
            hint: one.hint.clone(),
        }
    }
}

/// What is wrong so far.
#[derive(Default)]
pub(super) struct Collector {
    wrong: Vec<Wrong>,
    more: usize,
}

impl Collector {
    /// Whether further ones are only counted: nobody needs their hints.
    pub(super) fn is_full(&self) -> bool {
        self.wrong.len() >= limits::DIAGNOSTICS
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wrong.is_empty()
    }

    pub(super) fn into_parts(self) -> (Vec<Wrong>, usize) {
        (self.wrong, self.more)
    }

    /// A value is wrong.
    pub(super) fn value(&mut self, at: &At<'_>, message: impl Into<String>) {
        self.push(at, Spot::Value, message, || None);
    }

    /// A value is wrong, and this may help.
    pub(super) fn hinted(&mut self, at: &At<'_>, message: impl Into<String>, hint: &str) {
        self.push(at, Spot::Value, message, || Some(hint.to_owned()));
    }

    /// Something is wrong; the hint is asked for only if it will be read.
    pub(super) fn push(
        &mut self,
        at: &At<'_>,
        spot: Spot,
        message: impl Into<String>,
        hint: impl FnOnce() -> Option<String>,
    ) {
        if self.is_full() {
            self.more += 1;
        } else {
            self.push_at(at.pointer(), spot, message.into(), hint());
        }
    }

    /// Something is wrong at a pointer. What was said before is not said again: defaults are looked at
    /// once for every task.
    pub(super) fn push_at(&mut self, pointer: String, spot: Spot, message: String, hint: Option<String>) {
        let wrong = Wrong { pointer, spot, message, hint };
        if self.wrong.contains(&wrong) {
            return;
        }
        if self.is_full() {
            self.more += 1;
        } else {
            self.wrong.push(wrong);
        }
    }
}
