//! What operators join: values, chains of names, filters, tests.

use super::super::lexer::Token;
use super::super::references::Root;
use super::super::words;
use super::{Grammar, Outcome, Path, Shape};

/// Arguments of one filter; none takes more than four.
const ARGUMENTS: usize = 16;

/// What a chain of names has come to.
enum Chain {
    /// Names only, so far.
    Path(Path),
    /// Something else.
    Value(Shape),
}

impl<'s> Grammar<'s> {
    /// An operand with its filters and tests.
    pub(super) fn filtered(&mut self) -> Outcome<Shape> {
        let mut shape = self.signed()?;
        loop {
            match self.token {
                Token::Sign("|") => {
                    self.sign("|")?;
                    shape = self.filter()?;
                }
                Token::Name("is") => {
                    self.word("is")?;
                    self.test()?;
                    shape = Shape::Other;
                }
                _ => return Ok(shape),
            }
        }
    }

    fn signed(&mut self) -> Outcome<Shape> {
        if self.sign("-")? {
            self.deeper(Self::signed)?;
            return Ok(Shape::Number);
        }
        if self.token == Token::Sign("+") {
            return Err(self.wrong("'+' needs something before it", None));
        }
        let chain = self.primary()?;
        self.links(chain)
    }

    fn primary(&mut self) -> Outcome<Chain> {
        let token = self.token;
        match token {
            Token::Number(text) => self.constant(text, Shape::Number),
            Token::Text(text) => self.constant(text, Shape::Text),
            Token::Sign("(") => {
                self.sign("(")?;
                let shape = self.expression()?;
                if self.token == Token::Sign(",") {
                    return Err(self.wrong("',' is not expected here", Some("write a list as [a, b]")));
                }
                self.expect(")")?;
                Ok(Chain::Value(shape))
            }
            Token::Sign("[") => self.collection("[", "]", |this| this.expression().map(drop)),
            Token::Sign("{") => self.collection("{", "}", |this| {
                this.expression()?;
                this.expect(":")?;
                this.expression().map(drop)
            }),
            Token::Name(name) => self.name(name),
            Token::End => Err(self.wrong("the expression stops too early", None)),
            Token::Sign("|") => Err(self.wrong("'|' needs a value before it", None)),
            Token::Sign("=") => Err(self.wrong("'=' is no operator", Some("write =="))),
            Token::Sign(_) => Err(self.wrong(&format!("{} is not expected here", token.describe()), None)),
        }
    }

    fn constant(&mut self, text: &str, shape: Shape) -> Outcome<Chain> {
        self.write(text);
        self.advance()?;
        if shape == Shape::Text && matches!(self.token, Token::Text(_)) {
            return Err(self.wrong("two texts follow one another", Some("join them with ~")));
        }
        Ok(Chain::Value(shape))
    }

    /// A list or a map as written, guarded: it may hold the same large value many times.
    fn collection(
        &mut self,
        open: &'static str,
        close: &'static str,
        entry: impl Fn(&mut Self) -> Outcome<()>,
    ) -> Outcome<Chain> {
        self.write("(");
        self.expect(open)?;
        while self.token != Token::Sign(close) {
            entry(self)?;
            if !self.sign(",")? {
                break;
            }
        }
        self.expect(close)?;
        self.parsed.output.extend(["|", words::BOUNDED, ")"]);
        Ok(Chain::Value(Shape::Other))
    }

    fn name(&mut self, name: &'s str) -> Outcome<Chain> {
        match name {
            "true" | "false" | "none" | "True" | "False" | "None" => {
                return self.constant(name, Shape::Other);
            }
            "null" => return self.constant("none", Shape::Other),
            _ if words::KEYWORDS.contains(&name) => {
                return Err(self.wrong(&format!("'{name}' is not expected here"), None));
            }
            _ => {}
        }
        let Some(root) = Root::of(name) else {
            return Err(self.unknown_name(name));
        };
        self.write(name);
        self.advance()?;
        self.parsed.references.add_root(root);
        Ok(Chain::Path(Path { root, keys: Vec::new() }))
    }

    fn unknown_name(&mut self, name: &'s str) -> super::ExpressionError {
        let roots = Root::ALL.map(Root::as_str);
        let (at, found) = (self.at, self.advance());
        let is_call = found.is_ok() && self.token == Token::Sign("(");
        self.at = at;
        if is_call {
            let mut error = self.unknown("function", name, &words::FILTERS);
            let hint = words::FILTERS.contains(&name).then(|| format!("write value|{name}"));
            let other = words::other_word(name).map(str::to_owned);
            error.hint =
                hint.or(other).or_else(|| Some("there are none; filters are written value|name".to_owned()));
            return error;
        }
        let mut error = self.unknown("known name", name, &roots);
        error.detail = format!("'{name}' is unknown");
        // `vars.a-b` is a difference; most likely it was not meant as one.
        let last = self.parsed.paths.last().and_then(|path| path.keys.last());
        if let Some(last) = last.filter(|last| self.source[..at].ends_with(&format!("{last}-"))) {
            error.hint = Some(format!("a name with a hyphen is written [\"{last}-{name}\"]"));
        }
        error.hint.get_or_insert_with(|| format!("known are {}", roots.join(", ")));
        error
    }

    /// Everything that follows an operand with `.` and `[`.
    fn links(&mut self, mut chain: Chain) -> Outcome<Shape> {
        loop {
            match self.token {
                Token::Sign(".") => chain = self.dot(chain)?,
                Token::Sign("[") => chain = self.bracket(chain)?,
                Token::Sign("(") => {
                    return Err(self.wrong("nothing can be called", Some("filters are written value|name")));
                }
                _ => break,
            }
        }
        Ok(match chain {
            Chain::Path(path) => self.finish(path),
            Chain::Value(shape) => shape,
        })
    }

    /// Notes what a chain of names reads.
    fn finish(&mut self, path: Path) -> Shape {
        let first = path.keys.first().map(|key| &**key);
        let references = &mut self.parsed.references;
        match (path.root, first) {
            (Root::Tasks, None) => references.all_tasks = true,
            (Root::Tasks, Some(name)) => {
                references.add_task(name);
                if path.keys.get(1).is_some_and(|key| &**key == "status") {
                    references.add_status(name);
                }
            }
            (Root::Vars, Some(name)) => references.add_var(name),
            _ => {}
        }
        let keys: Vec<&str> = path.keys.iter().map(|key| &**key).collect();
        let shape = match (path.root, keys.as_slice()) {
            (Root::Index, []) | (Root::Loop, ["iteration"]) | (Root::Run, ["id"]) => Shape::Number,
            (Root::Tasks, [_, "status"]) | (Root::Own, ["status"]) | (Root::Run, ["name"]) => Shape::Text,
            _ => Shape::Other,
        };
        self.parsed.paths.push(path);
        shape
    }

    fn dot(&mut self, chain: Chain) -> Outcome<Chain> {
        // The name of a task may have hyphens, and may begin with a digit.
        if let Chain::Path(Path { root: Root::Tasks, keys }) = &chain
            && keys.is_empty()
        {
            let start = self.at + 1;
            return match self.lexer.hyphenated(start) {
                Some(name) => {
                    self.parsed.output.extend(["[\"", name, "\"]"]);
                    self.advance()?;
                    self.key(chain, name, start)
                }
                None => Err(self.wrong("a task's name is expected after 'tasks.'", None)),
            };
        }
        self.sign(".")?;
        let at = self.at;
        match self.token {
            Token::Name(name) => {
                self.write(name);
                self.advance()?;
                self.key(chain, name, at)
            }
            Token::Number(text) if text.bytes().all(|c| c.is_ascii_digit()) => {
                self.write(text);
                self.advance()?;
                self.key(chain, text, at)
            }
            // `list.0.1` reads as a number with a fraction.
            Token::Number(text) => {
                let detail = format!("'{text}' is not expected after '.'");
                Err(self.wrong(&detail, Some("write an index as [0]")))
            }
            token => {
                Err(self
                    .wrong(&format!("a name is expected after '.' instead of {}", token.describe()), None))
            }
        }
    }

    fn bracket(&mut self, chain: Chain) -> Outcome<Chain> {
        self.sign("[")?;
        let (token, at) = (self.token, self.at);
        if self.sign(":")? {
            return self.slice(chain);
        }
        self.expression()?;
        if self.sign(":")? {
            return self.slice(chain);
        }
        let alone = self.token == Token::Sign("]");
        self.expect("]")?;
        match token {
            Token::Text(text) if alone && self.is_whole(text, at) => {
                self.key(chain, &text[1..text.len() - 1], at)
            }
            Token::Number(text) if alone && self.is_whole(text, at) => self.key(chain, text, at),
            _ => {
                if let Chain::Path(path) = chain {
                    self.finish(path);
                }
                Ok(Chain::Value(Shape::Other))
            }
        }
    }

    /// Whether a constant at `at` is all there is between brackets.
    fn is_whole(&self, text: &str, at: usize) -> bool {
        let rest = self.source[at + text.len()..].trim_start();
        rest.starts_with(']') && !text.contains('\\')
    }

    fn slice(&mut self, chain: Chain) -> Outcome<Chain> {
        if let Chain::Path(path) = chain {
            self.finish(path);
        }
        for last in [false, true] {
            if !matches!(self.token, Token::Sign(":" | "]")) {
                self.expression()?;
            }
            if last || !self.sign(":")? {
                break;
            }
        }
        self.expect("]")?;
        Ok(Chain::Value(Shape::Other))
    }

    /// One more name in a chain.
    fn key(&mut self, chain: Chain, name: &str, at: usize) -> Outcome<Chain> {
        let Chain::Path(mut path) = chain else {
            return Ok(Chain::Value(Shape::Other));
        };
        let allowed: &[&str] = match (path.root, path.keys.len()) {
            (Root::Tasks, 1) | (Root::Own, 0) => &["status", "outputs", "result"],
            (Root::Loop, 0) => &["iteration"],
            _ => &[],
        };
        if !allowed.is_empty() && !allowed.contains(&name) {
            let so_far = path.keys.first().map_or(String::new(), |key| format!(".{key}"));
            let detail =
                format!("{}{so_far} has no '{name}'; it has {}", path.root.as_str(), allowed.join(", "));
            let hint =
                allowed.contains(&"outputs").then(|| format!("a task's own values are in outputs.{name}"));
            return Err(self.wrong_at(at, detail, hint));
        }
        path.keys.push(name.into());
        Ok(Chain::Path(path))
    }

    /// The name after `|`, and its arguments.
    fn filter(&mut self) -> Outcome<Shape> {
        let name = self.known("filter", &words::FILTERS)?;
        let named = match name {
            "map" => Some((0, "filter", &words::FILTERS[..])),
            "select" | "reject" => Some((0, "test", &words::TESTS[..])),
            "selectattr" | "rejectattr" => Some((1, "test", &words::TESTS[..])),
            _ => None,
        };
        if self.token == Token::Sign("(") {
            self.arguments(named)?;
        }
        if words::multiplies(name) {
            self.parsed.output.extend(["|", words::BOUNDED]);
        }
        Ok(match name {
            "length" | "count" | "int" | "float" | "abs" | "round" => Shape::Number,
            "string" | "join" | "lower" | "upper" | "tojson" | "trim" | "title" | "capitalize" => Shape::Text,
            _ => Shape::Other,
        })
    }

    fn test(&mut self) -> Outcome<()> {
        self.word("not")?;
        self.known("test", &words::TESTS)?;
        let begins = match self.token {
            Token::Sign("(") => return self.arguments(None),
            Token::Name(name) => !["and", "or", "else", "is", "if", "in", "not"].contains(&name),
            Token::Number(_) | Token::Text(_) => true,
            Token::Sign(sign) => matches!(sign, "[" | "{" | "-"),
            Token::End => false,
        };
        // Always with parentheses: the engine would take a following `if` for an argument.
        self.write("(");
        if begins {
            self.deeper(Self::signed)?;
        }
        self.write(")");
        Ok(())
    }

    /// Takes the name of a filter or test.
    fn known(&mut self, what: &str, known: &[&'static str]) -> Outcome<&'static str> {
        let Token::Name(name) = self.token else {
            let detail = format!("a {what}'s name is expected instead of {}", self.token.describe());
            return Err(self.wrong(&detail, None));
        };
        let Some(known) = known.iter().find(|known| **known == name) else {
            return Err(self.unknown(what, name, known));
        };
        self.write(known);
        self.advance()?;
        Ok(known)
    }

    /// Arguments in parentheses. `named` says which of them is the name of a filter or test, which must
    /// be known now.
    fn arguments(&mut self, named: Option<(usize, &str, &[&str])>) -> Outcome<()> {
        self.expect("(")?;
        let mut position = 0;
        let mut keywords = 0;
        while self.token != Token::Sign(")") {
            let (token, at) = (self.token, self.at);
            if position + keywords == ARGUMENTS {
                return Err(self.wrong("there are too many arguments", None));
            }
            if let Token::Name(name) = token
                && self.is_keyword_argument(name)
            {
                self.parsed.output.extend([name, "="]);
                self.advance()?;
                self.advance()?;
                keywords += 1;
            } else {
                if keywords > 0 {
                    return Err(self.wrong("an argument without a name follows one with a name", None));
                }
                if let Some((_, what, known)) = named.filter(|(index, ..)| *index == position) {
                    self.check_named(token, at, what, known)?;
                }
                position += 1;
            }
            self.expression()?;
            if !self.sign(",")? {
                break;
            }
        }
        self.expect(")")
    }

    fn is_keyword_argument(&self, name: &str) -> bool {
        let rest = self.source[self.at + name.len()..].trim_start();
        rest.starts_with('=') && !rest.starts_with("==")
    }

    fn check_named(&self, token: Token<'_>, at: usize, what: &str, known: &[&str]) -> Outcome<()> {
        let name = match token {
            Token::Text(text) if text.len() >= 2 => &text[1..text.len() - 1],
            _ => {
                let detail = format!("the name of a {what} is expected, as a text");
                return Err(self.wrong_at(at, detail, None));
            }
        };
        let rest = self.source[at + name.len() + 2..].trim_start();
        if known.contains(&name) && (rest.starts_with([',', ')'])) {
            return Ok(());
        }
        Err(self.unknown(what, name, known))
    }
}
