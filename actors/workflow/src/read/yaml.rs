//! YAML as a [`Tree`]: the core schema, one document, anchors that do not explode, merge keys.

use std::borrow::Cow;

use rustc_hash::{FxHashMap, FxHashSet};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput, Tag};
use serde_json::Number;

use crate::{Diagnostic, Tree, limits};

/// A list or map that is being read.
enum Open {
    List { items: Vec<Tree>, anchor: usize },
    Map { entries: Vec<(Box<str>, Tree)>, key: Option<Box<str>>, merges: bool, anchor: usize },
}

struct Loader {
    open: Vec<Open>,
    anchors: FxHashMap<usize, Tree>,
    /// How many values aliases may still add.
    aliased: usize,
    root: Option<Tree>,
}

/// Reads one document.
///
/// # Errors
/// What is wrong, with its position.
pub(super) fn parse(text: &str) -> Result<Tree, Diagnostic> {
    let mut parser = Parser::new_from_str(text);
    let mut loader = Loader {
        open: Vec::new(),
        anchors: FxHashMap::default(),
        aliased: limits::ALIASED_VALUES,
        root: None,
    };
    while let Some((event, at)) = next(&mut parser)? {
        loader.take(event, at)?;
    }
    loader.root.ok_or_else(|| wrong(Marker::new(0, 1, 0), "the file is empty"))
}

/// The next event and where it begins.
fn next<'t>(parser: &mut Parser<'t, StrInput<'t>>) -> Result<Option<(Event<'t>, Marker)>, Diagnostic> {
    match parser.next_event() {
        Some(Ok((event, span))) => Ok(Some((event, span.start))),
        Some(Err(error)) => Err(broken(&error)),
        None => Ok(None),
    }
}

fn broken(error: &ScanError) -> Diagnostic {
    if error.info() == "recursion limit exceeded" {
        return wrong(*error.marker(), &format!("the file is nested deeper than {} levels", limits::DEPTH));
    }
    wrong(*error.marker(), &format!("the file is no YAML: {}", error.info()))
}

fn wrong(at: Marker, message: &str) -> Diagnostic {
    let number = |n: usize| u32::try_from(n).ok();
    Diagnostic {
        line: number(at.line().max(1)),
        column: number(at.col() + 1),
        ..Diagnostic::new("", message)
    }
}

impl Loader {
    fn take(&mut self, event: Event<'_>, at: Marker) -> Result<(), Diagnostic> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(wrong(at, "the file holds more than one document; allowed: one"))
            }
            Event::Scalar(text, style, anchor, tag) => self.scalar(text, style, anchor, tag, at),
            Event::Alias(anchor) => {
                let tree = self.alias(anchor, at)?;
                self.add(tree, 0, at)
            }
            Event::SequenceStart(anchor, tag) => {
                collection_tag(tag, "seq", at)?;
                self.begin(Open::List { items: Vec::new(), anchor }, at)
            }
            Event::MappingStart(anchor, tag) => {
                collection_tag(tag, "map", at)?;
                self.begin(Open::Map { entries: Vec::new(), key: None, merges: false, anchor }, at)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(at),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, open: Open, at: Marker) -> Result<(), Diagnostic> {
        if let Some(Open::Map { key: None, .. }) = self.open.last() {
            return Err(wrong(at, "a key is a list or a map; keys must be texts"));
        }
        if self.open.len() == limits::DEPTH {
            return Err(wrong(at, &format!("the file is nested deeper than {} levels", limits::DEPTH)));
        }
        self.open.push(open);
        Ok(())
    }

    fn end(&mut self, at: Marker) -> Result<(), Diagnostic> {
        match self.open.pop() {
            Some(Open::List { items, anchor }) => self.add(Tree::List(items), anchor, at),
            Some(Open::Map { entries, anchor, merges, .. }) => {
                let entries = if merges { merged(entries) } else { entries };
                self.add(Tree::Map(entries), anchor, at)
            }
            None => Ok(()),
        }
    }

    fn scalar(
        &mut self,
        text: Cow<'_, str>,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<Cow<'_, Tag>>,
        at: Marker,
    ) -> Result<(), Diagnostic> {
        if let Some(Open::Map { key: key @ None, merges, .. }) = self.open.last_mut() {
            *merges |= style == ScalarStyle::Plain && text == "<<";
            if anchor > 0 {
                self.anchors.insert(anchor, Tree::String(text.as_ref().into()));
            }
            *key = Some(text.into());
            return Ok(());
        }
        let tree = match tag {
            Some(tag) => tagged(&text, &tag, at)?,
            None if style == ScalarStyle::Plain => plain(&text, at)?,
            None => Tree::String(text.into()),
        };
        self.add(tree, anchor, at)
    }

    /// Puts a finished value where it belongs.
    fn add(&mut self, tree: Tree, anchor: usize, at: Marker) -> Result<(), Diagnostic> {
        if anchor > 0 {
            self.count(&tree, at)?;
            self.anchors.insert(anchor, tree.clone());
        }
        match self.open.last_mut() {
            Some(Open::List { items, .. }) => items.push(tree),
            Some(Open::Map { entries, key, merges, .. }) => match key.take() {
                Some(key) if *merges && &*key == "<<" && !can_merge(&tree) => {
                    return Err(wrong(at, "'<<' takes a map, or a list of maps"));
                }
                Some(key) => entries.push((key, tree)),
                None => match tree {
                    // An alias as a key.
                    Tree::String(text) => *key = Some(text),
                    _ => return Err(wrong(at, "a key is a list or a map; keys must be texts")),
                },
            },
            None => self.root = Some(tree),
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, at: Marker) -> Result<Tree, Diagnostic> {
        let Some(tree) = self.anchors.get(&anchor) else {
            return Err(wrong(at, "an alias stands inside its own anchor"));
        };
        let tree = tree.clone();
        if depth(&tree) + self.open.len() > limits::DEPTH {
            return Err(wrong(at, &format!("the file is nested deeper than {} levels", limits::DEPTH)));
        }
        self.count(&tree, at)?;
        Ok(tree)
    }

    fn count(&mut self, tree: &Tree, at: Marker) -> Result<(), Diagnostic> {
        let left = self.aliased.checked_sub(values(tree));
        self.aliased = left.ok_or_else(|| {
            wrong(at, &format!("the file's anchors stand for more than {} values", limits::ALIASED_VALUES))
        })?;
        Ok(())
    }
}

fn values(tree: &Tree) -> usize {
    1 + match tree {
        Tree::List(items) => items.iter().map(values).sum(),
        Tree::Map(entries) => entries.iter().map(|(_, value)| 1 + values(value)).sum(),
        _ => 0,
    }
}

fn depth(tree: &Tree) -> usize {
    match tree {
        Tree::List(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Tree::Map(entries) => 1 + entries.iter().map(|(_, value)| depth(value)).max().unwrap_or_default(),
        _ => 0,
    }
}

fn can_merge(tree: &Tree) -> bool {
    match tree {
        Tree::Map(_) => true,
        Tree::List(items) => items.iter().all(|item| matches!(item, Tree::Map(_))),
        _ => false,
    }
}

/// Puts in what `<<` names, where the map has no such key itself.
fn merged(entries: Vec<(Box<str>, Tree)>) -> Vec<(Box<str>, Tree)> {
    let (merges, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, _)| &**key == "<<");
    let mut known: FxHashSet<Box<str>> = own.iter().map(|(key, _)| key.clone()).collect();
    for (_, merge) in merges {
        let maps = match merge {
            Tree::List(items) => items,
            other => vec![other],
        };
        for map in maps {
            if let Tree::Map(entries) = map {
                own.extend(entries.into_iter().filter(|(key, _)| known.insert(key.clone())));
            }
        }
    }
    own
}

fn collection_tag(tag: Option<Cow<'_, Tag>>, allowed: &str, at: Marker) -> Result<(), Diagnostic> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == allowed) => Err(unknown_tag(&tag, at)),
        _ => Ok(()),
    }
}

fn unknown_tag(tag: &Tag, at: Marker) -> Diagnostic {
    wrong(at, &format!("the tag {tag} is unknown; allowed: !!str, !!int, !!float, !!bool, !!null"))
}

fn tagged(text: &str, tag: &Tag, at: Marker) -> Result<Tree, Diagnostic> {
    if !tag.is_yaml_core_schema() {
        return Err(unknown_tag(tag, at));
    }
    let tree = plain(text, at)?;
    let fits = match (tag.suffix.as_str(), &tree) {
        ("str", _) => return Ok(Tree::String(text.into())),
        ("int", Tree::Number(number)) => !number.is_f64(),
        ("float", Tree::Number(_)) | ("bool", Tree::Bool(_)) | ("null", Tree::Null) => true,
        ("int" | "float" | "bool" | "null", _) => false,
        _ => return Err(unknown_tag(tag, at)),
    };
    if fits { Ok(tree) } else { Err(wrong(at, &format!("'{text}' does not fit its tag {tag}"))) }
}

/// A scalar without quotes, by the core schema.
fn plain(text: &str, at: Marker) -> Result<Tree, Diagnostic> {
    let tree = match text {
        "" | "~" | "null" | "Null" | "NULL" => Tree::Null,
        "true" | "True" | "TRUE" => Tree::Bool(true),
        "false" | "False" | "FALSE" => Tree::Bool(false),
        _ => match number(text) {
            Some(Some(number)) => Tree::Number(number),
            Some(None) => {
                return Err(wrong(at, &format!("'{text}' is no finite number; quote it if it is a text")));
            }
            None => Tree::String(text.into()),
        },
    };
    Ok(tree)
}

/// A number; none at all if the text is something else, none inside if it cannot be held.
fn number(text: &str) -> Option<Option<Number>> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Some(None);
    }
    let radix = |digits: &str, radix| {
        let whole = digits.bytes().all(|c| c.is_ascii_alphanumeric());
        u64::from_str_radix(digits, radix).ok().filter(|_| whole).map(|number| Some(Number::from(number)))
    };
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    if unsigned.bytes().all(|c| c.is_ascii_digit()) {
        let text = text.strip_prefix('+').unwrap_or(text);
        let whole = text.parse::<i64>().map(Number::from).or_else(|_| text.parse::<u64>().map(Number::from));
        return Some(whole.ok().or_else(|| Number::from_f64(text.parse().ok()?)));
    }
    let digits = unsigned.bytes().any(|c| c.is_ascii_digit());
    let shape = unsigned.bytes().all(|c| c.is_ascii_digit() || matches!(c, b'.' | b'e' | b'E' | b'+' | b'-'));
    if !digits || !shape {
        return None;
    }
    text.parse::<f64>().ok().map(Number::from_f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(text: &str, expect: Result<Value, &str>) {
        let have = parse(text).map(|tree| tree.to_value()).map_err(|error| error.to_string());
        assert_eq!(have, expect.map_err(str::to_owned), "{text}");
    }

    #[test]
    fn scalars_by_the_core_schema() {
        check("[1, -2, 0x1f, 0o17, 1.5, 1e3, +7]", Ok(json!([1, -2, 31, 15, 1.5, 1000.0, 7])));
        check(
            "[~, null, true, False, yes, 'true', \"1\"]",
            Ok(json!([null, null, true, false, "yes", "true", "1"])),
        );
        check(
            "[1.2.3, 2024-01-01, a b, 1_000, 0x, -a, .a]",
            Ok(json!(["1.2.3", "2024-01-01", "a b", "1_000", "0x", "-a", ".a"])),
        );
        check("[!!str 1, !!int 2, 18446744073709551615]", Ok(json!(["1", 2, u64::MAX])));
        check("a:\nb: |\n  x\n  y\n", Ok(json!({"a": null, "b": "x\ny\n"})));
    }

    #[test]
    fn anchors_and_merge_keys() {
        check(
            "a: &x {k: 1, l: 2}\nb:\n  <<: *x\n  l: 3\nc: *x",
            Ok(json!({
                "a": {"k": 1, "l": 2}, "b": {"l": 3, "k": 1}, "c": {"k": 1, "l": 2},
            })),
        );
        check("- &a [1]\n- [*a, *a]", Ok(json!([[1], [[1], [1]]])));
        check("<<: 1", Err("1:5: '<<' takes a map, or a list of maps"));
        check("a: &a [*a]", Err("1:8: an alias stands inside its own anchor"));
    }

    #[test]
    fn what_explodes_is_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let before = format!("*a{}, ", level - 1).repeat(10);
            text.push_str(&format!("a{level}: &a{level} [{before}]\n"));
        }
        let error = parse(&text).expect_err("it explodes");
        assert_eq!(error.line, Some(6));
        assert_eq!(error.message, "the file's anchors stand for more than 2000000 values");
        let deep = format!("{}1{}", "[".repeat(80), "]".repeat(80));
        check(&deep, Err("1:65: the file is nested deeper than 64 levels"));
    }

    #[test]
    fn other_documents_are_refused() {
        check("", Err("1:1: the file is empty"));
        check("# nothing\n", Err("1:1: the file is empty"));
        check("a: 1\n---\nb: 2\n", Err("2:1: the file holds more than one document; allowed: one"));
        check("? [a]\n: 1\n", Err("1:3: a key is a list or a map; keys must be texts"));
        check(
            "a: !thing 1",
            Err("1:4: the tag !thing is unknown; allowed: !!str, !!int, !!float, !!bool, !!null"),
        );
        check("a: .nan", Err("1:4: '.nan' is no finite number; quote it if it is a text"));
    }
}
