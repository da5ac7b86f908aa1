//! One expression: its text, what it reads, and its value.
//!
//! The grammar is checked here (`grammar`), so that everything that can be known before a run is
//! refused before a run: syntax, names, filters, tests. What is left is evaluated by the engine
//! (`engine`) within the bounds of [`crate::limits`]. An expression only reads its [`Scope`]; it cannot
//! loop, call or store.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::Scope;

mod convert;
mod engine;
mod error;
mod filters;
mod grammar;
mod lexer;
mod references;
mod words;

#[cfg(test)]
mod bounds;
#[cfg(test)]
mod tests;

pub(crate) use convert::{from_json, from_map, text_of};
pub use error::{EvaluationError, ExpressionError};
pub use references::{References, Root, Roots};

/// One expression, without `${{` and `}}`. Cheap to clone; equal when its text is; in JSON its text.
#[derive(Clone)]
pub struct Expression {
    inner: Arc<Inner>,
}

struct Inner {
    source: Box<str>,
    /// Made on first use: a definition of 100,000 conditions is read without looking into them.
    checked: OnceLock<Result<Checked, ExpressionError>>,
    /// Made on first evaluation: most are never evaluated where they are checked.
    program: OnceLock<Result<engine::Program, String>>,
}

/// An expression that has passed the grammar.
struct Checked {
    references: References,
    /// Every chain of names, for saying which of them is missing.
    paths: Box<[grammar::Path]>,
    /// For the engine.
    output: Box<str>,
    shape: grammar::Shape,
}

impl Checked {
    fn new(source: &str) -> Result<Self, ExpressionError> {
        let parsed = grammar::parse(source)?;
        let output = parsed.output.into();
        let shape = parsed.shape;
        Ok(Self { references: parsed.references, paths: parsed.paths.into(), output, shape })
    }
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// Says where it is wrong, and what is.
    pub fn new(source: &str) -> Result<Self, ExpressionError> {
        let trimmed = source.trim();
        let lead = source.len() - source.trim_start().len();
        let expression = Self::unchecked(trimmed);
        match expression.checked() {
            Ok(_) => Ok(expression),
            Err(error) => {
                let offset = error.offset + lead;
                Err(ExpressionError { offset, source: source.to_owned(), ..error.clone() })
            }
        }
    }

    /// One whose text has been checked before, or will be on first use.
    fn unchecked(source: &str) -> Self {
        let inner = Inner { source: source.into(), checked: OnceLock::new(), program: OnceLock::new() };
        Self { inner: Arc::new(inner) }
    }

    fn checked(&self) -> Result<&Checked, &ExpressionError> {
        self.inner.checked.get_or_init(|| Checked::new(&self.inner.source)).as_ref()
    }

    /// Its text, without blanks around it.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.inner.source
    }

    /// What it reads.
    #[must_use]
    pub fn references(&self) -> &References {
        static NONE: References = References::NONE;
        self.checked().map_or(&NONE, |checked| &checked.references)
    }

    /// The task whose outputs or result it is as a whole, if it is: `tasks.NAME.outputs`.
    #[must_use]
    pub fn whole_part(&self) -> Option<(&str, TaskPart)> {
        let [path] = &*self.checked().ok()?.paths else { return None };
        let [name, part] = &*path.keys else { return None };
        let part = match &**part {
            "outputs" => TaskPart::Outputs,
            "result" => TaskPart::Result,
            _ => return None,
        };
        let word = part.as_str();
        let spellings = [
            format!("tasks.{name}.{word}"),
            format!("tasks['{name}'].{word}"),
            format!("tasks[\"{name}\"].{word}"),
        ];
        let is_whole = path.root == Root::Tasks && spellings.iter().any(|text| text == self.source());
        is_whole.then_some((name, part))
    }

    /// What it gives instead of a list, if that is known without evaluating it.
    #[must_use]
    pub fn known_scalar(&self) -> Option<&'static str> {
        match self.checked().ok()?.shape {
            grammar::Shape::Number => Some("a number"),
            grammar::Shape::Text => Some("a text"),
            grammar::Shape::Other => None,
        }
    }

    /// Its value.
    ///
    /// # Errors
    /// Says what is wrong, with the expression.
    pub fn evaluate(&self, scope: &Scope) -> Result<Value, EvaluationError> {
        let checked = self.checked().map_err(|error| self.failed(error.to_string()))?;
        let program = self.inner.program.get_or_init(|| engine::compile(&checked.output));
        let program = program.as_ref().map_err(|detail| self.failed(detail.clone()))?;
        let result = program.evaluate(scope).and_then(|value| convert::to_json(&value));
        result.map_err(|failure| self.failed(error::explain(failure, &checked.paths, scope)))
    }

    /// Whether its value counts as true: `false`, nothing, 0, an empty text, list or map, and the text
    /// `false` do not. A task that writes `changed=false` into its outputs writes a text.
    ///
    /// # Errors
    /// Says what is wrong, with the expression.
    pub fn is_true(&self, scope: &Scope) -> Result<bool, EvaluationError> {
        Ok(match self.evaluate(scope)? {
            Value::Null => false,
            Value::Bool(value) => value,
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::String(text) => !text.is_empty() && text != "false",
            Value::Array(items) => !items.is_empty(),
            Value::Object(map) => !map.is_empty(),
        })
    }

    fn failed(&self, detail: String) -> EvaluationError {
        EvaluationError { expression: self.source().to_owned(), detail }
    }
}

/// What a task leaves to others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TaskPart {
    /// What it wrote into `AGENTFLOW_OUTPUT`.
    Outputs,
    /// What it printed.
    Result,
}

impl TaskPart {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outputs => "outputs",
            Self::Result => "result",
        }
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source() == other.source()
    }
}

impl Eq for Expression {}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({:?})", self.source())
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.source())
    }
}

impl Serialize for Expression {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.source())
    }
}

impl<'de> Deserialize<'de> for Expression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::unchecked(&Box::<str>::deserialize(deserializer)?))
    }
}
