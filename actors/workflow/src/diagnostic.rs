//! What is wrong with a file, where, and what to do about it.

use std::fmt;

use crate::limits;

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// A JSON pointer into the file, such as `/tasks/build/needs/0`.
    pub pointer: String,
    /// The line, from 1; none where there was no text.
    pub line: Option<u32>,
    /// The column in characters, from 1.
    pub column: Option<u32>,
    /// What is wrong and what is allowed.
    pub message: String,
    /// What was probably meant, or what to do.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// One without a position.
    #[must_use]
    pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), line: None, column: None, message: message.into(), hint: None }
    }

    /// With a hint.
    #[must_use]
    pub fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (Some(line), Some(column)) => write!(f, "{line}:{column}: ")?,
            _ if self.pointer.is_empty() => {}
            _ => write!(f, "{}: ", self.pointer)?,
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong, in the order of the file: at most [`limits::DIAGNOSTICS`], and how many
/// there were beyond.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    more: usize,
}

impl Diagnostics {
    /// Adds one, or counts it when there are enough.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if self.list.len() < limits::DIAGNOSTICS {
            self.list.push(diagnostic);
        } else {
            self.more += 1;
        }
    }

    /// Those that were kept.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// Those that were kept, to be changed.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Diagnostic> {
        self.list.iter_mut()
    }

    /// How many were kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many there were beyond those that were kept.
    #[must_use]
    pub fn more(&self) -> usize {
        self.more
    }

    /// Counts more that are not kept.
    pub(crate) fn add_more(&mut self, more: usize) {
        self.more += more;
    }

    /// Puts those with a position into the order of the file.
    pub fn sort(&mut self) {
        self.list.sort_by_key(|one| (one.line.unwrap_or(0), one.column.unwrap_or(0)));
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(one: Diagnostic) -> Self {
        Self { list: vec![one], more: 0 }
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, one) in self.list.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            one.fmt(f)?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(diagnostic: Diagnostic, expect: &str) {
        assert_eq!(Diagnostics::from(diagnostic).to_string(), expect);
    }

    #[test]
    fn one_line_each() {
        let one = Diagnostic::new("/tasks/a", "'b' is unknown").hint(Some("did you mean 'bb'?".into()));
        check(one.clone(), "/tasks/a: 'b' is unknown (did you mean 'bb'?)");
        check(
            Diagnostic { line: Some(3), column: Some(7), ..one },
            "3:7: 'b' is unknown (did you mean 'bb'?)",
        );
        check(Diagnostic::new("", "empty"), "empty");
    }

    #[test]
    fn more_than_enough_are_counted() {
        let mut many = Diagnostics::default();
        for _ in 0..limits::DIAGNOSTICS + 7 {
            many.push(Diagnostic::new("", "wrong"));
        }
        assert_eq!((many.len(), many.more()), (limits::DIAGNOSTICS, 7));
        assert!(many.to_string().ends_with("\nand 7 more"));
    }
}
