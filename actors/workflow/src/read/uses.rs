//! Expressions in a file: what each may read at its place.

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::at::At;
use super::collector::Spot;
use super::file::{File, Reader};
use super::task::Distant;
use crate::rendering::{OPEN, Piece, pieces};
use crate::{Edge, Expression, ExpressionError, References, Root, Roots, Tree, limits, nearest};

/// Expressions that have been compiled, by their text: a large file repeats few.
#[derive(Default)]
pub(super) struct Expressions(FxHashMap<Box<str>, Result<Expression, ExpressionError>>);

impl Expressions {
    pub(super) fn compile(&mut self, source: &str) -> Result<Expression, ExpressionError> {
        if let Some(known) = self.0.get(source) {
            return known.clone();
        }
        let compiled = Expression::new(source);
        self.0.insert(source.into(), compiled.clone());
        compiled
    }
}

/// The task that an expression belongs to.
#[derive(Clone, Copy)]
pub(super) struct Here<'a> {
    pub(super) node: u32,
    pub(super) after: &'a [Edge],
}

/// Those roots.
pub(super) fn roots(list: &[Root]) -> Roots {
    let mut roots = Roots::NONE;
    list.iter().for_each(|root| roots.insert(*root));
    roots
}

impl Reader<'_> {
    /// Checks every expression in a value; whether there is any.
    pub(super) fn value(
        &mut self,
        file: &File<'_>,
        here: Option<Here<'_>>,
        distant: &mut Vec<Distant>,
        tree: &Tree,
        at: &At<'_>,
        allowed: Roots,
    ) -> bool {
        match tree {
            Tree::String(text) => self.string(file, here, distant, text, at, allowed),
            Tree::List(items) => items.iter().enumerate().fold(false, |any, (index, item)| {
                self.value(file, here, distant, item, &at.index(index), allowed) | any
            }),
            Tree::Map(entries) => entries.iter().fold(false, |any, (key, value)| {
                let at = at.key(key);
                if key.contains(OPEN) {
                    self.wrong.push(&at, Spot::Key(0), "a key holds no expressions", || None);
                }
                self.value(file, here, distant, value, &at, allowed) | any
            }),
            _ => false,
        }
    }

    fn string(
        &mut self,
        file: &File<'_>,
        here: Option<Here<'_>>,
        distant: &mut Vec<Distant>,
        text: &str,
        at: &At<'_>,
        allowed: Roots,
    ) -> bool {
        let mut wrong = Vec::new();
        let found = pieces(text, &mut |source| self.expressions.compile(source), &mut wrong);
        for error in wrong {
            self.wrong.push(at, Spot::Inside(error.offset), error.detail, || error.hint);
        }
        for piece in found.iter().flatten() {
            if let Piece::Expression(expression) = piece {
                self.references(file, here, distant, expression.references(), text, at, allowed);
            }
        }
        found.is_some()
    }

    /// One expression, written bare or inside `${{ }}`.
    pub(super) fn bare(&mut self, tree: &Tree, at: &At<'_>, what: &str) -> Option<Expression> {
        let text = match tree {
            Tree::String(text) => &**text,
            Tree::Bool(true) => "true",
            Tree::Bool(false) => "false",
            other => {
                self.wrong.value(at, format!("'{what}' is an expression, not {}", other.what()));
                return None;
            }
        };
        if !text.contains(OPEN) {
            return match self.expressions.compile(text) {
                Ok(expression) => Some(expression),
                Err(error) => {
                    self.wrong.push(at, Spot::Inside(error.offset), error.detail, || error.hint);
                    None
                }
            };
        }
        self.single(text, at, what)
    }

    /// The one expression that a string is.
    fn single(&mut self, text: &str, at: &At<'_>, what: &str) -> Option<Expression> {
        let lead = text.len() - text.trim_start().len();
        let mut wrong = Vec::new();
        let found = pieces(text.trim(), &mut |source| self.expressions.compile(source), &mut wrong);
        if !wrong.is_empty() {
            for error in wrong {
                self.wrong.push(at, Spot::Inside(error.offset + lead), error.detail, || error.hint);
            }
            return None;
        }
        match found.as_deref() {
            Some([Piece::Expression(expression)]) => return Some(expression.clone()),
            Some(_) => {
                let message = format!("'{what}' is one expression, not a text with several parts");
                self.wrong.hinted(at, message, "write all of it inside one ${{ }}");
            }
            None => {
                let message = format!("'{what}' is an expression, not a text");
                self.wrong.hinted(at, message, "write it inside ${{ }}");
            }
        }
        None
    }

    /// A list, or a string holding one expression that gives a list.
    pub(super) fn list(
        &mut self,
        file: &File<'_>,
        here: Option<Here<'_>>,
        distant: &mut Vec<Distant>,
        tree: &Tree,
        at: &At<'_>,
        allowed: Roots,
    ) -> Option<Value> {
        match tree {
            Tree::List(items) if items.len() > limits::ITEMS => {
                self.wrong.value(at, format!("the list has more than {} items", limits::ITEMS));
                None
            }
            Tree::List(_) => {
                self.value(file, here, distant, tree, at, allowed);
                Some(tree.to_value())
            }
            Tree::String(text) => {
                let expression = self.single(text, at, "the list")?;
                if let Some(what) = expression.known_scalar() {
                    let message = format!("a list is expected; the expression gives {what}");
                    self.wrong.hinted(at, message, "give it outputs that are a list");
                    return None;
                }
                self.references(file, here, distant, expression.references(), text, at, allowed);
                Some(Value::String(text.trim().to_owned()))
            }
            other => {
                let message =
                    format!("a list is expected, or an expression that gives one, not {}", other.what());
                self.wrong.hinted(at, message, "write it as [a, b], or as ${{ vars.NAME }}");
                None
            }
        }
    }

    /// Whether everything that an expression reads is known at its place; `text` is where it stands.
    #[expect(clippy::too_many_arguments, reason = "a place and what is looked at there")]
    pub(super) fn references(
        &mut self,
        file: &File<'_>,
        here: Option<Here<'_>>,
        distant: &mut Vec<Distant>,
        references: &References,
        text: &str,
        at: &At<'_>,
        allowed: Roots,
    ) {
        for root in references.roots.iter().filter(|root| !allowed.contains(*root)) {
            let (message, hint) = not_here(root);
            let spot = Spot::Inside(offset_of(text, root.as_str(), ""));
            self.wrong.push(at, spot, message, || Some(hint.to_owned()));
        }
        for name in &references.vars {
            if !file.vars.contains_key(&**name) {
                let spot = Spot::Inside(offset_of(text, "vars", name));
                let message = format!("'{name}' is not among the vars");
                self.wrong.push(at, spot, message, || var_hint(file, name));
            }
        }
        let Some(here) = here else {
            return;
        };
        for name in &references.tasks {
            let spot = || Spot::Inside(offset_of(text, "tasks", name));
            match file.names.get(&**name) {
                None => {
                    let message = format!("there is no task '{name}'");
                    self.wrong.push(at, spot(), message, || nearest::hint(name, file.names.keys().copied()));
                }
                Some(&node) if node == here.node => {
                    let message = format!("'{name}' is this task itself, which has not run yet");
                    let hint = || Some("in loop.until and collect write self".to_owned());
                    self.wrong.push(at, spot(), message, hint);
                }
                Some(&target) if !here.after.iter().any(|edge| edge.node == target) => {
                    let offset = offset_of(text, "tasks", name);
                    distant.push(Distant { node: here.node, target, pointer: at.pointer(), offset });
                }
                Some(_) => {}
            }
        }
    }
}

fn not_here(root: Root) -> (String, &'static str) {
    let message = format!("there is no '{}' here", root.as_str());
    let hint = match root {
        Root::Item | Root::Index => "it is known in a task with foreach, and in a pipeline with items",
        Root::Own => "it is known in loop.until and collect",
        Root::Loop => "it is known in a task with loop",
        _ => "known here are vars and inputs",
    };
    (message, hint)
}

fn var_hint(file: &File<'_>, name: &str) -> Option<String> {
    let names = || file.vars.keys().map(String::as_str);
    let hyphenated = format!("{name}-");
    // `vars.a-b` is a difference.
    let longer = names().find(|have| have.starts_with(&hyphenated));
    match longer {
        Some(longer) => Some(format!("write vars[\"{longer}\"]")),
        None => nearest::hint(name, names()).or_else(|| Some("add it to vars".to_owned())),
    }
}

/// Where a name is read in a text: as well as can be said without reading the expression again.
fn offset_of(text: &str, root: &str, name: &str) -> usize {
    let from = text.find(OPEN).unwrap_or_default();
    let rest = &text[from..];
    let candidates = [format!("{root}.{name}"), format!("{root}['{name}"), format!("{root}[\"{name}")];
    let found = match name {
        "" => rest.find(root),
        _ => {
            candidates.iter().find_map(|candidate| rest.find(candidate.as_str())).or_else(|| rest.find(name))
        }
    };
    from + found.unwrap_or_default()
}
