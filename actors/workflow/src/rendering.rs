//! Values whose strings hold expressions: found, compiled once, evaluated many times.
//!
//! A string that is one expression and nothing else becomes that expression's value, of whatever type;
//! otherwise the values are turned into text where they stand. `${{ '${{' }}` writes the delimiter.

use serde_json::{Map, Value};

use crate::expression::text_of;
use crate::{EvaluationError, Expression, ExpressionError, References, Scope, TaskPart, limits};

/// What begins an expression.
pub(crate) const OPEN: &str = "${{";

/// What ends it.
const CLOSE: &str = "}}";

/// A part of a string.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Piece {
    /// As it is.
    Text(Box<str>),
    /// To be evaluated.
    Expression(Expression),
}

/// A string's parts; none if it holds no expression. What is wrong is added to `wrong`, with offsets
/// within the whole string.
pub(crate) fn pieces(
    text: &str,
    compile: &mut dyn FnMut(&str) -> Result<Expression, ExpressionError>,
    wrong: &mut Vec<ExpressionError>,
) -> Option<Vec<Piece>> {
    let mut open = text.find(OPEN)?;
    let mut pieces = Vec::new();
    let mut rest = 0;
    loop {
        if open > rest {
            pieces.push(Piece::Text(text[rest..open].into()));
        }
        let start = open + OPEN.len();
        let Some(length) = end_of(&text[start..]) else {
            let (source, detail) = (text[open..].to_owned(), "'${{' has no '}}'".to_owned());
            wrong.push(ExpressionError { source, offset: open, detail, hint: None });
            return Some(pieces);
        };
        match compile(&text[start..start + length]) {
            Ok(expression) => pieces.push(Piece::Expression(expression)),
            Err(error) => {
                let (offset, source) = (error.offset + start, error.source.trim().to_owned());
                wrong.push(ExpressionError { offset, source, ..error });
            }
        }
        rest = start + length + CLOSE.len();
        match text[rest..].find(OPEN) {
            Some(next) => open = rest + next,
            None => break,
        }
    }
    if rest < text.len() {
        pieces.push(Piece::Text(text[rest..].into()));
    }
    Some(pieces)
}

/// Where `}}` is that ends an expression: not within quotes, nor within braces of its own.
fn end_of(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut quote = None;
    let mut braces = 0_usize;
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        match (quote, byte) {
            (Some(_), b'\\') => at += 1,
            (Some(open), _) if open == byte => quote = None,
            (Some(_), _) => {}
            (None, b'\'' | b'"') => quote = Some(byte),
            (None, b'{') => braces += 1,
            (None, b'}') if braces > 0 => braces -= 1,
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Any JSON value whose strings may hold expressions, ready to be evaluated many times.
#[derive(Clone, PartialEq, Debug)]
pub struct Rendering {
    part: Part,
    references: References,
}

#[derive(Clone, PartialEq, Debug)]
enum Part {
    /// No expression in it.
    Constant(Value),
    /// One expression and nothing else.
    Whole(Expression),
    /// Text with expressions.
    Text(Box<[Piece]>),
    List(Box<[Part]>),
    Map(Box<[(String, Part)]>),
}

impl Rendering {
    /// Finds and compiles the expressions in a value.
    ///
    /// # Errors
    /// The JSON pointer of the first string that is wrong, and what is. Offsets are within the string.
    pub fn new(value: &Value) -> Result<Self, (String, ExpressionError)> {
        let mut wrong = Vec::new();
        let mut references = References::default();
        let mut compile = Expression::new;
        let mut builder = Builder { compile: &mut compile, references: &mut references, wrong: &mut wrong };
        let part = builder.part(value, &mut String::new());
        match wrong.into_iter().next() {
            Some(first) => Err(first),
            None => Ok(Self { part, references }),
        }
    }

    /// The value with every expression evaluated.
    ///
    /// # Errors
    /// The JSON pointer of the string, and what is wrong.
    pub fn render(&self, scope: &Scope) -> Result<Value, (String, EvaluationError)> {
        render(&self.part, scope, &mut String::new())
    }

    /// The task whose outputs or result the entry `key` of this map is as a whole, if it is.
    #[must_use]
    pub fn whole_part(&self, key: &str) -> Option<(&str, TaskPart)> {
        let Part::Map(entries) = &self.part else { return None };
        match entries.iter().find(|(name, _)| name == key)? {
            (_, Part::Whole(expression)) => expression.whole_part(),
            _ => None,
        }
    }

    /// The map without one entry, with every other expression evaluated.
    ///
    /// # Errors
    /// As with [`Rendering::render`].
    pub fn render_without(&self, key: &str, scope: &Scope) -> Result<Value, (String, EvaluationError)> {
        let Part::Map(entries) = &self.part else { return self.render(scope) };
        let mut map = Map::new();
        for (name, part) in entries.iter().filter(|(name, _)| name != key) {
            map.insert(name.clone(), below(&mut String::new(), name, |at| render(part, scope, at))?);
        }
        Ok(Value::Object(map))
    }

    /// What its expressions read.
    #[must_use]
    pub fn references(&self) -> &References {
        &self.references
    }

    /// Whether there is no expression in it.
    #[must_use]
    pub fn is_constant(&self) -> bool {
        matches!(self.part, Part::Constant(_))
    }

    /// Every expression with the JSON pointer of its string.
    pub(crate) fn each(&self, see: &mut dyn FnMut(&str, &Expression)) {
        each(&self.part, &mut String::new(), see);
    }
}

struct Builder<'a> {
    compile: &'a mut dyn FnMut(&str) -> Result<Expression, ExpressionError>,
    references: &'a mut References,
    wrong: &'a mut Vec<(String, ExpressionError)>,
}

impl Builder<'_> {
    fn part(&mut self, value: &Value, at: &mut String) -> Part {
        match value {
            Value::String(text) => self.string(text, at),
            Value::Array(items) => {
                let mut parts = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    parts.push(below(at, &index.to_string(), |at| self.part(item, at)));
                }
                constant_or(value, parts.iter().all(is_constant), || Part::List(parts.into()))
            }
            Value::Object(map) => {
                let mut parts = Vec::with_capacity(map.len());
                for (key, item) in map {
                    parts.push((key.clone(), below(at, key, |at| self.part(item, at))));
                }
                let constant = parts.iter().all(|(_, part)| is_constant(part));
                constant_or(value, constant, || Part::Map(parts.into()))
            }
            other => Part::Constant(other.clone()),
        }
    }

    fn string(&mut self, text: &str, at: &str) -> Part {
        let mut wrong = Vec::new();
        let Some(mut pieces) = pieces(text, self.compile, &mut wrong) else {
            return Part::Constant(Value::String(text.to_owned()));
        };
        self.wrong.extend(wrong.into_iter().map(|error| (at.to_owned(), error)));
        for piece in &pieces {
            if let Piece::Expression(expression) = piece {
                self.references.add_all(expression.references());
            }
        }
        match pieces.pop() {
            Some(Piece::Expression(expression)) if pieces.is_empty() => Part::Whole(expression),
            last => {
                pieces.extend(last);
                Part::Text(pieces.into())
            }
        }
    }
}

fn is_constant(part: &Part) -> bool {
    matches!(part, Part::Constant(_))
}

fn constant_or(value: &Value, constant: bool, other: impl FnOnce() -> Part) -> Part {
    if constant { Part::Constant(value.clone()) } else { other() }
}

/// Does something with a pointer one step longer.
fn below<T>(at: &mut String, key: &str, inner: impl FnOnce(&mut String) -> T) -> T {
    let length = at.len();
    push_key(at, key);
    let result = inner(at);
    at.truncate(length);
    result
}

/// Adds a step to a JSON pointer.
pub(crate) fn push_key(pointer: &mut String, key: &str) {
    pointer.push('/');
    if key.contains(['~', '/']) {
        pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
    } else {
        pointer.push_str(key);
    }
}

fn render(part: &Part, scope: &Scope, at: &mut String) -> Result<Value, (String, EvaluationError)> {
    match part {
        Part::Constant(value) => Ok(value.clone()),
        Part::Whole(expression) => expression.evaluate(scope).map_err(|error| (at.clone(), error)),
        Part::Text(pieces) => joined(pieces, scope).map_err(|error| (at.clone(), error)),
        Part::List(parts) => {
            let mut items = Vec::with_capacity(parts.len());
            for (index, part) in parts.iter().enumerate() {
                items.push(below(at, &index.to_string(), |at| render(part, scope, at))?);
            }
            Ok(Value::Array(items))
        }
        Part::Map(parts) => {
            let mut map = Map::new();
            for (key, part) in parts {
                map.insert(key.clone(), below(at, key, |at| render(part, scope, at))?);
            }
            Ok(Value::Object(map))
        }
    }
}

fn joined(pieces: &[Piece], scope: &Scope) -> Result<Value, EvaluationError> {
    let mut text = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(piece) => text.push_str(piece),
            Piece::Expression(expression) => {
                text.push_str(&text_of(&expression.evaluate(scope)?));
                if text.len() > limits::RESULT_BYTES {
                    let detail = format!("the text becomes larger than {} bytes", limits::RESULT_BYTES);
                    return Err(EvaluationError { expression: expression.source().to_owned(), detail });
                }
            }
        }
    }
    Ok(Value::String(text))
}

fn each(part: &Part, at: &mut String, see: &mut dyn FnMut(&str, &Expression)) {
    match part {
        Part::Constant(_) => {}
        Part::Whole(expression) => see(at, expression),
        Part::Text(pieces) => {
            for piece in pieces {
                if let Piece::Expression(expression) = piece {
                    see(at, expression);
                }
            }
        }
        Part::List(parts) => {
            for (index, part) in parts.iter().enumerate() {
                below(at, &index.to_string(), |at| each(part, at, see));
            }
        }
        Part::Map(parts) => {
            for (key, part) in parts {
                below(at, key, |at| each(part, at, see));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(value: Value, expect: Result<Value, &str>) {
        let scope = Scope::new().vars(
            json!({"n": 3, "list": [1, "b"], "name": "x", "nothing": null}).as_object().expect("a map"),
        );
        let have = match Rendering::new(&value) {
            Ok(rendering) => rendering.render(&scope).map_err(|(at, error)| format!("{at}: {error}")),
            Err((at, error)) => Err(format!("{at}:{}: {error}", error.offset)),
        };
        assert_eq!(have, expect.map_err(str::to_owned), "{value}");
    }

    #[test]
    fn one_expression_keeps_its_type() {
        check(json!("${{ vars.n }}"), Ok(json!(3)));
        check(json!({"a": ["${{ vars.list }}", 1]}), Ok(json!({"a": [[1, "b"], 1]})));
        check(json!(" ${{ vars.n }}"), Ok(json!(" 3")));
    }

    #[test]
    fn several_become_text() {
        check(json!("${{vars.n}}/${{ vars.list }}:${{ vars.nothing }}."), Ok(json!("3/[1,\"b\"]:.")));
        check(json!("a ${{ {'b': {'c': 1}} }} d"), Ok(json!("a {\"b\":{\"c\":1}} d")));
        check(json!("${{ '}}' ~ \"${{\" }}"), Ok(json!("}}${{")));
        check(json!("$ {{ no }} }}"), Ok(json!("$ {{ no }} }}")));
    }

    #[test]
    fn errors_have_pointers_and_offsets() {
        check(
            json!({"a/b": ["", "x ${{ vars. }}"]}),
            Err("/a~1b/1:11: a name is expected after '.' instead of the end in 'vars.'"),
        );
        check(json!("x ${{ 'a }}"), Err(":2: '${{' has no '}}' in '${{ 'a }}'"));
        check(
            json!(["${{ vars.m }}"]),
            Err("/0: vars.m is missing; it has list, n, name, nothing in 'vars.m'"),
        );
    }
}
