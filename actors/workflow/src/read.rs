//! Reads workflow files: from text to a [`Definition`], or to everything that is wrong with it.
//!
//! The good case is one pass over an ordered [`Tree`] without positions. Lines and columns are found by
//! reading the text a second time, and only when something is wrong. Everything that is wrong is
//! collected, so that one look at a file is enough.

use serde_json::{Map, Value};

use crate::{Definition, Diagnostic, Diagnostics, Tree, limits};

mod ancestors;
mod at;
mod body;
mod collector;
mod edges;
mod file;
mod keys;
mod names;
mod position;
mod position_json;
mod position_yaml;
mod reach;
mod task;
#[cfg(test)]
mod tests;
mod uses;
mod yaml;

use collector::Wrong;
pub use keys::FILE as KEYS;

/// Checks a task's body as it would be checked when it is posted.
pub trait CheckTask {
    /// For each bad field its JSON pointer inside the body, and what is wrong with it. Strings may hold
    /// expressions: what is wrong with those is not looked at, since they are checked once evaluated.
    fn check(&self, body: &Map<String, Value>) -> Vec<(String, String)>;
}

/// Takes every body.
impl CheckTask for () {
    fn check(&self, _: &Map<String, Value>) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// Reads a workflow file in YAML or JSON.
///
/// # Errors
/// Everything that is wrong, with line and column, in the order of the file.
pub fn read_text(text: &str, check: &dyn CheckTask) -> Result<Definition, Diagnostics> {
    let tree = parse(text)?;
    file::read(&tree, check).map_err(|(wrong, more)| {
        let found = position::find(text, &tree, &wrong);
        diagnostics(wrong, more, &found)
    })
}

/// Reads a workflow from a document that has been parsed already.
///
/// # Errors
/// Everything that is wrong, with JSON pointers.
pub fn read_value(tree: &Tree, check: &dyn CheckTask) -> Result<Definition, Diagnostics> {
    file::read(tree, check).map_err(|(wrong, more)| diagnostics(wrong, more, &[]))
}

impl Diagnostics {
    /// Gives lines and columns of that text to those that have none, such as those of
    /// [`Definition::instantiate`].
    #[must_use]
    pub fn locate(self, text: &str) -> Self {
        let Ok(tree) = parse(text) else {
            return self;
        };
        let more = self.more();
        let wrong: Vec<Wrong> = self.iter().map(|one| Wrong::from_diagnostic(one, &tree)).collect();
        let found = position::find(text, &tree, &wrong);
        let mut located = Self::default();
        for (mut one, found) in self.into_iter().zip(found) {
            if one.line.is_none() {
                (one.line, one.column) = found.unzip();
            }
            located.push(one);
        }
        located.add_more(more);
        located.sort();
        located
    }
}

fn diagnostics(wrong: Vec<Wrong>, more: usize, found: &[Option<(u32, u32)>]) -> Diagnostics {
    let mut diagnostics = Diagnostics::default();
    for (at, wrong) in wrong.into_iter().enumerate() {
        let (line, column) = found.get(at).copied().flatten().unzip();
        diagnostics.push(Diagnostic { line, column, ..wrong.into_diagnostic() });
    }
    diagnostics.add_more(more);
    diagnostics.sort();
    diagnostics
}

/// Reads the text as a document, if it is no larger than a file may be.
fn parse(text: &str) -> Result<Tree, Diagnostics> {
    if text.len() > limits::FILE_BYTES {
        let message = format!("the file is larger than {} MiB", limits::FILE_BYTES >> 20);
        return Err(Diagnostic::new("", message).into());
    }
    read_tree(text).map_err(Diagnostics::from)
}

/// Reads any document in YAML or JSON, as workflow files are read: the core schema, anchors that do not
/// explode, merge keys. As large as the caller allows.
///
/// # Errors
/// What is wrong, with line and column.
pub fn read_tree(text: &str) -> Result<Tree, Diagnostic> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let begin = text.trim_start();
    if !begin.starts_with(['{', '[']) {
        return yaml::parse(text);
    }
    serde_json::from_str(text).or_else(|error| {
        // YAML may begin with a brace or a bracket too.
        yaml::parse(text).map_err(|wrong| if begin.starts_with('{') { broken_json(&error) } else { wrong })
    })
}

fn broken_json(error: &serde_json::Error) -> Diagnostic {
    let text = error.to_string();
    let (what, _) = text.rsplit_once(" at line ").unwrap_or((&text, ""));
    let message = match what {
        "recursion limit exceeded" => format!("the file is nested deeper than {} levels", limits::DEPTH),
        what => format!("the file is no JSON: {what}"),
    };
    let number = |n: usize| u32::try_from(n).ok().map(|n| n.max(1));
    Diagnostic { line: number(error.line()), column: number(error.column()), ..Diagnostic::new("", message) }
}
