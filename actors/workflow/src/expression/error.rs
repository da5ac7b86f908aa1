//! What is wrong with an expression, in words of its writer.

use std::fmt;

use minijinja::ErrorKind;

use super::convert::Failure;
use super::grammar::Path;
use crate::{Scope, nearest};

/// A text that is no expression.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExpressionError {
    /// The text.
    pub source: String,
    /// Where in it, in bytes.
    pub offset: usize,
    /// What is wrong, and what is allowed.
    pub detail: String,
    /// What was probably meant.
    pub hint: Option<String>,
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in '{}'", self.detail, shortened(&self.source))?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ExpressionError {}

/// An expression that has no value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EvaluationError {
    /// Its text.
    pub expression: String,
    /// What is wrong.
    pub detail: String,
}

impl fmt::Display for EvaluationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in '{}'", self.detail, shortened(&self.expression))
    }
}

impl std::error::Error for EvaluationError {}

/// The beginning of a long text, on one line.
fn shortened(text: &str) -> String {
    const CHARACTERS: usize = 120;
    let mut short: String =
        text.chars().take(CHARACTERS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(CHARACTERS).is_some() {
        short.push('…');
    }
    short
}

/// Says what went wrong.
pub(super) fn explain(failure: Failure, paths: &[Path], scope: &Scope) -> String {
    match failure {
        Failure::Undefined => missing(paths, scope),
        Failure::Result(detail) => detail,
        Failure::Engine(error) => match error.kind() {
            ErrorKind::UndefinedError => missing(paths, scope),
            ErrorKind::OutOfFuel => "it needs too many steps, or builds too much data".to_owned(),
            ErrorKind::MissingArgument => "an argument is missing".to_owned(),
            ErrorKind::TooManyArguments => "there are too many arguments".to_owned(),
            kind => {
                let detail = error.detail().map_or_else(|| kind.to_string(), str::to_owned);
                // An operand that is missing is better named than described.
                if matches!(&*detail, "invalid float literal" | "invalid digit found in string") {
                    return "the text is no number".to_owned();
                }
                let missing = if detail.contains("undefined") { first_missing(paths, scope) } else { None };
                missing.unwrap_or(detail)
            }
        },
    }
}

/// Names the first link of a chain that leads nowhere.
fn missing(paths: &[Path], scope: &Scope) -> String {
    first_missing(paths, scope).unwrap_or_else(|| "a value is missing".to_owned())
}

fn first_missing(paths: &[Path], scope: &Scope) -> Option<String> {
    paths.iter().find_map(|path| missing_link(path, scope))
}

fn missing_link(path: &Path, scope: &Scope) -> Option<String> {
    let root = path.root.as_str();
    let Some(mut value) = scope.get(path.root) else {
        return Some(format!("there is no {root} here"));
    };
    let mut so_far = root.to_owned();
    for key in &path.keys {
        let next = value.get_attr(key).ok().filter(|value| !value.is_undefined());
        let next = next.or_else(|| value.get_item_by_index(key.parse().ok()?).ok());
        let Some(next) = next.filter(|value| !value.is_undefined()) else {
            let known: Vec<String> = match value.kind() {
                minijinja::value::ValueKind::Map => {
                    value.try_iter().into_iter().flatten().take(1_000).map(|key| key.to_string()).collect()
                }
                kind => return Some(format!("{so_far}.{key} is missing: {so_far} is {}", article(kind))),
            };
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let rest = match nearest::nearest(key, known.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None if known.is_empty() => "it is empty".to_owned(),
                None => format!("it has {}{}", known[..known.len().min(8)].join(", "), more(known.len())),
            };
            return Some(format!("{so_far}.{key} is missing; {rest}"));
        };
        value = next;
        so_far = format!("{so_far}.{key}");
    }
    None
}

fn more(count: usize) -> &'static str {
    if count > 8 { ", …" } else { "" }
}

fn article(kind: minijinja::value::ValueKind) -> String {
    use minijinja::value::ValueKind;
    match kind {
        ValueKind::None | ValueKind::Undefined => "nothing".to_owned(),
        ValueKind::Bool => "true or false".to_owned(),
        ValueKind::String => "a text".to_owned(),
        ValueKind::Seq | ValueKind::Iterable => "a list, or it is shorter".to_owned(),
        other => format!("a {other}"),
    }
}
