//! Goes through a JSON text that is known to be right.

use super::position::{Finder, Position};

struct Walker<'t> {
    text: &'t str,
    at: usize,
    line: u32,
    line_start: usize,
}

/// Shows every key and value to `finder`.
pub(super) fn walk(text: &str, finder: &mut Finder) {
    let mut walker = Walker { text, at: 0, line: 1, line_start: 0 };
    walker.value(finder);
}

impl Walker<'_> {
    fn peek(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b'\n' => {
                    self.line += 1;
                    self.line_start = self.at + 1;
                }
                b' ' | b'\t' | b'\r' => {}
                other => return *other,
            }
            self.at += 1;
        }
        0
    }

    fn position(&self) -> Position {
        let column = self.text[self.line_start..self.at].chars().count() + 1;
        (self.line, u32::try_from(column).unwrap_or(u32::MAX))
    }

    fn value(&mut self, finder: &mut Finder) {
        let first = self.peek();
        finder.value(|| self.position());
        match first {
            b'{' => self.map(finder),
            b'[' => self.list(finder),
            b'"' => drop(self.string()),
            _ => {
                let rest = &self.text.as_bytes()[self.at..];
                self.at += rest.iter().take_while(|byte| !b",]} \t\r\n".contains(byte)).count();
            }
        }
    }

    fn map(&mut self, finder: &mut Finder) {
        self.at += 1;
        while self.peek() == b'"' {
            let (at, position) = (self.at, |this: &Self, at| Self { at, ..*this }.position());
            let key = self.string();
            finder.key(&key, || position(self, at));
            if self.peek() == b':' {
                self.at += 1;
            }
            self.value(finder);
            finder.leave();
            if self.peek() == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
    }

    fn list(&mut self, finder: &mut Finder) {
        self.at += 1;
        let mut index = 0;
        while !matches!(self.peek(), b']' | 0) {
            finder.index(index);
            self.value(finder);
            finder.leave();
            index += 1;
            if self.peek() == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
    }

    fn string(&mut self) -> String {
        let start = self.at;
        let bytes = self.text.as_bytes();
        self.at += 1;
        while let Some(byte) = bytes.get(self.at) {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'"' => break,
                _ => {}
            }
        }
        let written = self.text.get(start..self.at).unwrap_or_default();
        serde_json::from_str(written).unwrap_or_default()
    }
}
