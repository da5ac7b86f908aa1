//! The words and signs of an expression.

use super::ExpressionError;

/// One of them.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Token<'s> {
    /// A name or a keyword.
    Name(&'s str),
    /// A number as written.
    Number(&'s str),
    /// A text with its quotes.
    Text(&'s str),
    /// An operator or a bracket.
    Sign(&'static str),
    /// Nothing more.
    End,
}

impl Token<'_> {
    /// How it is called in a message.
    pub(super) fn describe(self) -> String {
        match self {
            Self::Name(text) | Self::Number(text) | Self::Text(text) => format!("'{text}'"),
            Self::Sign(sign) => format!("'{sign}'"),
            Self::End => "the end".to_owned(),
        }
    }
}

/// Longer signs first.
const SIGNS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "*", "/", "%", ".", ",", ":", "~", "|", "=", ">", "<", "(",
    ")", "[", "]", "{", "}", ";",
];

/// What other languages write, and what it is here.
const OTHER: [(&str, &str); 7] = [
    ("&&", "write and"),
    ("||", "write or"),
    ("===", "write =="),
    ("!==", "write !="),
    ("??", "write value|default(other)"),
    ("?", "write a if condition else b"),
    ("=>", "write >="),
];

/// Reads one after the other.
pub(super) struct Lexer<'s> {
    source: &'s str,
    position: usize,
}

impl<'s> Lexer<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        Self { source, position: 0 }
    }

    /// The next token and where it begins.
    pub(super) fn next(&mut self) -> Result<(Token<'s>, usize), ExpressionError> {
        let rest = &self.source[self.position..];
        self.position += rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_whitespace()).len();
        let start = self.position;
        let rest = &self.source[start..];
        let Some(first) = rest.chars().next() else {
            return Ok((Token::End, start));
        };
        let (token, length) = match first {
            '\'' | '"' => self.text(rest, first)?,
            '0'..='9' => self.number(rest)?,
            'a'..='z' | 'A'..='Z' | '_' => {
                let length = name_length(rest, false);
                (Token::Name(&rest[..length]), length)
            }
            _ => self.sign(rest, first)?,
        };
        self.position += length;
        Ok((token, start))
    }

    /// A name right here in which hyphens are letters, such as `my-task`.
    pub(super) fn hyphenated(&mut self, start: usize) -> Option<&'s str> {
        let rest = &self.source[start..];
        let name = &rest[..name_length(rest, true)];
        // A hyphen at the end is a minus.
        let name = name.trim_end_matches('-');
        self.position = start + name.len();
        (!name.is_empty()).then_some(name)
    }

    fn text(&self, rest: &'s str, quote: char) -> Result<(Token<'s>, usize), ExpressionError> {
        let mut escaped = false;
        for (at, c) in rest.char_indices().skip(1) {
            match c {
                _ if escaped && !"\\/\"'bfnrt".contains(c) => {
                    let hint = "allowed are \\\\ \\/ \\\" \\' \\b \\f \\n \\r \\t".to_owned();
                    return Err(self.wrong(&format!("'\\{c}' has no meaning in a text"), Some(hint)));
                }
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                _ if c == quote => return Ok((Token::Text(&rest[..=at]), at + 1)),
                _ => {}
            }
        }
        Err(self.wrong("a text does not end", Some(format!("close it with {quote}"))))
    }

    fn number(&self, rest: &'s str) -> Result<(Token<'s>, usize), ExpressionError> {
        let (token, length) = number(rest);
        let digits = &rest[..length];
        let whole = digits.bytes().all(|c| c.is_ascii_digit());
        let finite = digits.parse::<f64>().is_ok_and(f64::is_finite);
        if (whole && digits.parse::<u64>().is_err()) || !finite {
            return Err(self.wrong("the number is too large", None));
        }
        if rest[length..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            return Err(self.wrong("a number runs into a name", None));
        }
        Ok((token, length))
    }

    fn sign(&self, rest: &str, first: char) -> Result<(Token<'s>, usize), ExpressionError> {
        let other = OTHER.iter().filter(|(sign, _)| rest.starts_with(sign));
        if let Some((sign, hint)) = other.max_by_key(|(sign, _)| sign.len()) {
            return Err(self.wrong(&format!("'{sign}' is no operator"), Some((*hint).to_owned())));
        }
        if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            return Ok((Token::Sign(sign), sign.len()));
        }
        if first == '!' {
            return Err(self.wrong("'!' is no operator", Some("write not".to_owned())));
        }
        if first == '$' {
            let hint = "inside ${{ }} write the name alone".to_owned();
            return Err(self.wrong("'$' has no meaning here", Some(hint)));
        }
        let name = if first.is_control() { format!("{first:?}") } else { format!("'{first}'") };
        Err(self.wrong(&format!("{name} has no meaning here"), None))
    }

    fn wrong(&self, detail: &str, hint: Option<String>) -> ExpressionError {
        let source = self.source.to_owned();
        ExpressionError { source, offset: self.position, detail: detail.to_owned(), hint }
    }
}

fn name_length(rest: &str, hyphens: bool) -> usize {
    let inside = |c: &u8| c.is_ascii_alphanumeric() || *c == b'_' || (hyphens && *c == b'-');
    rest.bytes().take_while(inside).count()
}

/// Digits, and a fraction or an exponent where they are complete.
fn number(rest: &str) -> (Token<'_>, usize) {
    let bytes = rest.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|c| c.is_ascii_digit()).count();
    let mut length = digits(0);
    if bytes.get(length) == Some(&b'.') {
        let fraction = digits(length + 1);
        if fraction > 0 {
            length += 1 + fraction;
        }
    }
    if matches!(bytes.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        let exponent = bytes.get(length + 1 + sign..).map_or(0, |_| digits(length + 1 + sign));
        if exponent > 0 {
            length += 1 + sign + exponent;
        }
    }
    (Token::Number(&rest[..length]), length)
}
