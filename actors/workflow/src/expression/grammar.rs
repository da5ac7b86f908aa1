//! The grammar of expressions: what is allowed, what is read, and the text for the engine.
//!
//! One pass from left to right, one function for each level of precedence, as the engine has them.
//! While it reads, it writes the same expression for the engine, with hyphenated names of tasks in
//! brackets and with guards around the operators that the engine does not bound (`words`).

use super::lexer::{Lexer, Token};
use super::references::{References, Root};
use super::{ExpressionError, words};
use crate::{limits, nearest};

mod operand;

/// A root and the constant names after it.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Path {
    /// Where it begins.
    pub(super) root: Root,
    /// `outputs`, `version`, …
    pub(super) keys: Vec<Box<str>>,
}

/// What came of reading.
pub(super) struct Parsed {
    /// For the engine.
    pub(super) output: String,
    /// What is read.
    pub(super) references: References,
    /// Every chain of names.
    pub(super) paths: Vec<Path>,
    /// What is known of the value.
    pub(super) shape: Shape,
}

/// What is known of a part's value.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Shape {
    /// A number, or the evaluation fails.
    Number,
    /// A text.
    Text,
    /// Anything.
    Other,
}

impl Shape {
    /// Whether one is a number and the other a text.
    fn differs(self, other: Self) -> bool {
        matches!((self, other), (Self::Number, Self::Text) | (Self::Text, Self::Number))
    }
}

struct Grammar<'s> {
    source: &'s str,
    lexer: Lexer<'s>,
    token: Token<'s>,
    /// Where the token begins.
    at: usize,
    depth: usize,
    parsed: Parsed,
}

type Outcome<T> = Result<T, ExpressionError>;

/// Reads an expression.
pub(super) fn parse(source: &str) -> Outcome<Parsed> {
    let (references, shape) = (References::default(), Shape::Other);
    let parsed = Parsed { output: String::new(), references, paths: Vec::new(), shape };
    let lexer = Lexer::new(source);
    let mut grammar = Grammar { source, lexer, token: Token::End, at: 0, depth: 0, parsed };
    if source.len() > limits::EXPRESSION_BYTES {
        let detail = format!("an expression is longer than {} bytes", limits::EXPRESSION_BYTES);
        return Err(grammar.wrong_at(0, detail, None));
    }
    grammar.advance()?;
    if grammar.token == Token::End {
        return Err(grammar.wrong_at(0, "an expression is empty".to_owned(), None));
    }
    grammar.parsed.shape = grammar.expression()?;
    match grammar.token {
        Token::End => Ok(grammar.parsed),
        Token::Sign("=") => Err(grammar.wrong("'=' is no operator", Some("write =="))),
        token => Err(grammar.wrong(&format!("{} is not expected here", token.describe()), None)),
    }
}

impl<'s> Grammar<'s> {
    fn wrong_at(&self, offset: usize, detail: String, hint: Option<String>) -> ExpressionError {
        ExpressionError { source: self.source.to_owned(), offset, detail, hint }
    }

    fn wrong(&self, detail: &str, hint: Option<&str>) -> ExpressionError {
        self.wrong_at(self.at, detail.to_owned(), hint.map(str::to_owned))
    }

    fn advance(&mut self) -> Outcome<()> {
        (self.token, self.at) = self.lexer.next()?;
        Ok(())
    }

    fn write(&mut self, text: &str) {
        self.parsed.output.push_str(text);
    }

    /// Takes the sign if it comes next, and writes it.
    fn sign(&mut self, sign: &'static str) -> Outcome<bool> {
        let found = self.token == Token::Sign(sign);
        if found {
            self.write(sign);
            self.advance()?;
        }
        Ok(found)
    }

    fn expect(&mut self, sign: &'static str) -> Outcome<()> {
        if self.sign(sign)? {
            return Ok(());
        }
        let hint = (self.token == Token::Sign("=")).then_some("write ==");
        Err(self.wrong(&format!("'{sign}' is expected instead of {}", self.token.describe()), hint))
    }

    /// Takes the keyword if it comes next, and writes it with blanks.
    fn word(&mut self, word: &str) -> Outcome<bool> {
        let found = self.token == Token::Name(word);
        if found {
            self.parsed.output.extend([" ", word, " "]);
            self.advance()?;
        }
        Ok(found)
    }

    /// Reads something inside something else.
    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        if self.depth == limits::EXPRESSION_DEPTH {
            let detail = format!("an expression is nested deeper than {}", limits::EXPRESSION_DEPTH);
            return Err(self.wrong_at(self.at, detail, None));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// Puts a guard around everything written since `start`.
    fn guard(&mut self, start: usize, filter: &str) {
        self.parsed.output.insert(start, '(');
        self.parsed.output.extend([")|", filter]);
    }

    /// `a if b else c`.
    fn expression(&mut self) -> Outcome<Shape> {
        self.deeper(|this| {
            let shape = this.either()?;
            if !this.word("if")? {
                return Ok(shape);
            }
            this.either()?;
            if !this.word("else")? {
                return Err(this.wrong("an 'if' has no 'else'", Some("write a if condition else b")));
            }
            this.expression()?;
            Ok(Shape::Other)
        })
    }

    fn either(&mut self) -> Outcome<Shape> {
        let mut shape = self.both()?;
        while self.word("or")? {
            self.both()?;
            shape = Shape::Other;
        }
        Ok(shape)
    }

    fn both(&mut self) -> Outcome<Shape> {
        let mut shape = self.negation()?;
        while self.word("and")? {
            self.negation()?;
            shape = Shape::Other;
        }
        Ok(shape)
    }

    fn negation(&mut self) -> Outcome<Shape> {
        if self.word("not")? {
            self.deeper(Self::negation)?;
            return Ok(Shape::Other);
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Outcome<Shape> {
        let mut shape = self.sum()?;
        loop {
            let (mut order, at) = (None, self.at);
            match self.token {
                Token::Sign(sign @ ("==" | "!=" | "<" | "<=" | ">" | ">=")) => {
                    order = Some(sign).filter(|sign| sign.starts_with(['<', '>']));
                    self.parsed.output.extend([" ", sign, " "]);
                    self.advance()?;
                }
                Token::Name("in") => drop(self.word("in")?),
                Token::Name("not") => {
                    self.word("not")?;
                    if !self.word("in")? {
                        return Err(self.wrong("'in' is expected after 'not'", None));
                    }
                }
                _ => return Ok(shape),
            }
            let right = self.sum()?;
            if let Some(sign) = order.filter(|_| shape.differs(right)) {
                let detail = format!(
                    "'{sign}' compares numbers with numbers or texts with texts, not a number with a text"
                );
                return Err(self.wrong_at(at, detail, None));
            }
            shape = Shape::Other;
        }
    }

    fn sum(&mut self) -> Outcome<Shape> {
        let start = self.parsed.output.len();
        let mut shape = self.joined()?;
        let mut grows = false;
        while let Token::Sign(sign @ ("+" | "-")) = self.token {
            let at = self.at;
            self.parsed.output.extend([" ", sign, " "]);
            self.advance()?;
            let right = self.joined()?;
            if shape.differs(right) || (sign == "-" && (shape == Shape::Text || right == Shape::Text)) {
                let detail = format!("'{sign}' works on numbers, not on a text");
                return Err(self.wrong_at(at, detail, (sign == "+").then(|| "join texts with ~".to_owned())));
            }
            grows |= sign == "+" && shape == Shape::Other && right == Shape::Other;
            let known = sign == "-" || shape == Shape::Number || right == Shape::Number;
            shape = if known { Shape::Number } else { Shape::Other };
        }
        if grows {
            self.guard(start, words::BOUNDED);
        }
        Ok(shape)
    }

    fn joined(&mut self) -> Outcome<Shape> {
        let start = self.parsed.output.len();
        let mut shape = self.product()?;
        while self.token == Token::Sign("~") {
            self.guard_as(start, shape, Shape::Text, words::TEXT);
            self.advance()?;
            self.write(" ~ ");
            let right = self.parsed.output.len();
            let found = self.product()?;
            self.guard_as(right, found, Shape::Text, words::TEXT);
            shape = Shape::Text;
        }
        Ok(shape)
    }

    fn product(&mut self) -> Outcome<Shape> {
        let start = self.parsed.output.len();
        let mut shape = self.power()?;
        while let Token::Sign(sign @ ("*" | "/" | "//" | "%")) = self.token {
            if sign == "*" {
                self.guard_as(start, shape, Shape::Number, words::NUMBER);
            }
            self.advance()?;
            self.parsed.output.extend([" ", sign, " "]);
            let right = self.parsed.output.len();
            let found = self.power()?;
            if sign == "*" {
                self.guard_as(right, found, Shape::Number, words::NUMBER);
            }
            shape = Shape::Number;
        }
        Ok(shape)
    }

    /// A guard, unless the value is known to pass.
    fn guard_as(&mut self, start: usize, found: Shape, wanted: Shape, filter: &str) {
        if found != wanted {
            self.guard(start, filter);
        }
    }

    fn power(&mut self) -> Outcome<Shape> {
        let mut shape = self.filtered()?;
        while self.sign("**")? {
            self.filtered()?;
            shape = Shape::Number;
        }
        Ok(shape)
    }

    fn unknown(&self, what: &str, name: &str, known: &[&str]) -> ExpressionError {
        let hint = nearest::hint(name, known.iter().copied());
        let hint = hint.or_else(|| words::other_word(name).map(str::to_owned));
        self.wrong_at(self.at, format!("'{name}' is no {what}"), hint)
    }
}
