//! Paths and patterns within a repository, and whether two of them may name the same file.
//!
//! A path is relative to the repository's root, with `/` between its segments and in Unicode's normal
//! form C. `*` stands for any characters of one segment, `?` for one character, `**` for any number of
//! segments. Everything else stands for itself, brackets and braces too: `pages/[id].tsx` is a file.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use unicode_normalization::{UnicodeNormalization, is_nfc};

use super::matching;
use crate::limits;

/// A file, a directory with all below it (`dir/**`), or a pattern; in its normal form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct LockPath(Arc<str>);

/// Why a text is no path within a repository.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PathError {
    /// Nothing is left of it.
    #[error("a path within the repository is needed; '**' is everything")]
    Empty,
    /// It leaves the repository.
    #[error("'..' is not allowed: a path stays within the repository")]
    Parent,
    /// It is a place on some machine.
    #[error("a path is relative to the repository's root, not absolute")]
    Absolute,
    /// It has a character that no path has.
    #[error("NUL and other control characters are not allowed")]
    Control,
    /// It is written for another system.
    #[error("a backslash is not allowed; segments are separated by '/'")]
    Backslash,
    /// It is longer than any path of the repository.
    #[error("at most {most} bytes and {depth} segments are allowed", most = limits::PATH_BYTES, depth = limits::PATH_SEGMENTS)]
    TooLong,
    /// It is a pattern that takes long to compare with others.
    #[error("a pattern has at most {most} bytes", most = limits::PATTERN_BYTES)]
    LongPattern,
    /// It is no pattern that can be compared with others.
    #[error("braces are no alternatives in a pattern: name each as a path of its own")]
    Braces,
}

impl LockPath {
    /// Brings a path into its normal form. One leading `/` is the repository's root; a trailing one
    /// means the directory and all below it.
    ///
    /// # Errors
    /// When it could name something outside the repository, or nothing.
    pub fn new(text: &str) -> Result<Self, PathError> {
        if text.chars().any(char::is_control) {
            return Err(PathError::Control);
        }
        if text.contains('\\') {
            return Err(PathError::Backslash);
        }
        let inner = text.strip_prefix('/').unwrap_or(text);
        let drive = inner.as_bytes();
        if inner.starts_with('/') || (drive.len() > 1 && drive[0].is_ascii_alphabetic() && drive[1] == b':') {
            return Err(PathError::Absolute);
        }
        let is_pattern = inner.contains(['*', '?']);
        if is_pattern && inner.contains(['{', '}']) && inner.contains(',') {
            return Err(PathError::Braces);
        }
        let composed = if is_nfc(inner) { inner.to_owned() } else { inner.nfc().collect() };
        let mut segments: Vec<String> = Vec::new();
        for segment in composed.split('/') {
            match segment {
                "" | "." => {}
                ".." => return Err(PathError::Parent),
                "**" if segments.last().is_some_and(|last| last == "**") => {}
                "**" => segments.push("**".to_owned()),
                other => segments.push(squeeze_stars(other)),
            }
        }
        if segments.is_empty() && text.is_empty() {
            return Err(PathError::Empty);
        }
        // `/`, `.` and `dir/` are directories.
        let is_directory = segments.is_empty() || composed.ends_with('/') || composed.ends_with("/.");
        if is_directory && segments.last().is_none_or(|last| last != "**") {
            segments.push("**".to_owned());
        }
        let path = segments.join("/");
        if path.len() > limits::PATH_BYTES || segments.len() > limits::PATH_SEGMENTS {
            return Err(PathError::TooLong);
        }
        if path.len() > limits::PATTERN_BYTES && path.contains(['*', '?']) && !is_below(&path) {
            return Err(PathError::LongPattern);
        }
        Ok(Self(path.into()))
    }

    /// A text that is known to be in the normal form.
    pub(crate) fn of_normal(text: &Arc<str>) -> Self {
        Self(Arc::clone(text))
    }

    /// Its text, shared.
    pub(crate) fn text(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it names one file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        !self.0.contains(['*', '?'])
    }

    /// Whether it is neither a file nor a directory with all below it.
    pub(crate) fn is_costly(&self) -> bool {
        !self.is_file() && !is_below(&self.0)
    }

    /// Whether it names everything there is.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        // A name has a letter at least.
        let is_any = |segment: &str| matches!(segment, "**" | "*" | "?*" | "*?");
        self.0.split('/').all(is_any) && self.0.contains("**")
    }

    /// The part before its first pattern: whole segments, without the last `/`. Of a file, all of it.
    #[must_use]
    pub(crate) fn stem(&self) -> &str {
        match self.0.find(['*', '?']) {
            None => &self.0,
            Some(at) => self.0[..at].rsplit_once('/').map_or("", |(stem, _)| stem),
        }
    }

    /// The same path where upper and lower case are the same.
    #[must_use]
    pub fn folded(&self) -> Self {
        let folded = self.0.to_lowercase();
        if *folded == *self.0 { self.clone() } else { Self(folded.nfc().collect::<String>().into()) }
    }

    /// What every file that it names ends with. Of a file, all of it.
    pub(crate) fn end(&self) -> &str {
        matching::end(&self.0)
    }

    /// Whether it names that file, which is in its normal form.
    pub(crate) fn names(&self, file: &str) -> bool {
        matching::names(&self.0, file)
    }

    /// Whether a change under one could be a change under the other: whether they have a file in
    /// common, or one has a file where the other needs a directory. When in doubt, yes.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self.is_file(), other.is_file()) {
            (true, true) => is_on_the_way(&self.0, &other.0) || is_on_the_way(&other.0, &self.0),
            (true, false) => other.overlaps_file(&self.0),
            (false, true) => self.overlaps_file(&other.0),
            (false, false) => matching::have_common(&self.0, &other.0),
        }
    }

    /// The same of a pattern and a file, which is in its normal form: a pattern is never where a file
    /// needs a directory.
    pub(crate) fn overlaps_file(&self, file: &str) -> bool {
        is_on_the_way(file, self.stem()) || self.names(file)
    }

    /// Whether it names every file that the other names. When in doubt, no.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        if other.is_file() {
            return self.names(&other.0);
        }
        // A pattern lies within a directory if all before its first star does.
        match self.0.strip_suffix("**").map(|directory| directory.strip_suffix('/').unwrap_or(directory)) {
            Some(directory) if !directory.contains(['*', '?']) => {
                directory.is_empty() || is_on_the_way(directory, other.stem())
            }
            _ => false,
        }
    }
}

impl fmt::Display for LockPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for LockPath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// Whether it is a directory with all below it, which takes no longer to compare than a file.
fn is_below(path: &str) -> bool {
    path.strip_suffix("/**").is_some_and(|directory| !directory.contains(['*', '?']))
}

/// Several stars within a segment say no more than one.
fn squeeze_stars(segment: &str) -> String {
    let mut squeezed = String::with_capacity(segment.len());
    for character in segment.chars() {
        if character != '*' || !squeezed.ends_with('*') {
            squeezed.push(character);
        }
    }
    squeezed
}

/// Whether a path is that place or a directory above it.
fn is_on_the_way(path: &str, to: &str) -> bool {
    to.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> LockPath {
        LockPath::new(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn the_normal_form_is_one() {
        for (text, normal) in [
            ("src/a.rs", "src/a.rs"),
            ("/src/a.rs", "src/a.rs"),
            ("./src//./a.rs", "src/a.rs"),
            ("src/", "src/**"),
            ("src/.", "src/**"),
            ("/", "**"),
            (".", "**"),
            ("src/**/**/x*****y", "src/**/x*y"),
            ("a***", "a*"),
            ("pages/[id].tsx", "pages/[id].tsx"),
            ("{x}", "{x}"),
            // e and a combining acute accent.
            ("caf\u{65}\u{301}.txt", "caf\u{e9}.txt"),
        ] {
            assert_eq!(path(text).as_str(), normal, "{text}");
            assert_eq!(path(normal), path(text));
        }
    }

    #[test]
    fn what_could_lie_outside_is_refused() {
        for (text, error) in [
            ("", PathError::Empty),
            ("..", PathError::Parent),
            ("src/../../x", PathError::Parent),
            ("//etc/passwd", PathError::Absolute),
            ("C:/x", PathError::Absolute),
            ("a\0b", PathError::Control),
            ("a\nb", PathError::Control),
            ("a\\b", PathError::Backslash),
            ("src/*.{ts,js}", PathError::Braces),
        ] {
            assert_eq!(LockPath::new(text), Err(error), "{text:?}");
        }
        assert_eq!(LockPath::new(&"x".repeat(limits::PATH_BYTES + 1)), Err(PathError::TooLong));
        let long = "x".repeat(limits::PATTERN_BYTES);
        assert_eq!(LockPath::new(&format!("{long}*")), Err(PathError::LongPattern));
        assert!(LockPath::new(&format!("{long}/")).is_ok());
        assert_eq!(LockPath::new(&"a/".repeat(limits::PATH_SEGMENTS + 1)), Err(PathError::TooLong));
    }

    #[test]
    fn overlap_is_decided_and_when_in_doubt_there_is_one() {
        for (a, b, together) in [
            ("a", "a", true),
            ("a", "b", false),
            ("src/a.rs", "src/**", true),
            ("src/a.rs", "src/*.rs", true),
            ("src/a.rs", "src/*.ts", false),
            ("src/x/a.rs", "src/*.rs", false),
            ("src/*.rs", "src/a*", true),
            ("src/a*", "src/b*", false),
            ("**/*.rs", "src/**", true),
            ("**/*.rs", "README.md", false),
            ("**/test/**", "src/**", true),
            ("a/**/z", "a/b/**/y", false),
            ("a/**/z", "a/b/**/z", true),
            ("**", "x", true),
            ("?.rs", "ab.rs", false),
            // A file where the other has a directory.
            ("src", "src/a.rs", true),
            ("src", "src/**", true),
            ("src", "src/*.rs", true),
            ("src", "srcs/a.rs", false),
            ("README.md", "*/x", false),
        ] {
            assert_eq!(path(a).overlaps(&path(b)), together, "{a} {b}");
            assert_eq!(path(b).overlaps(&path(a)), together, "{b} {a}");
        }
    }

    #[test]
    fn covering_is_certain() {
        for (a, b, covered) in [
            ("src/**", "src/a/b.rs", true),
            ("src/**", "src", true),
            ("src/**", "src/*.rs", true),
            ("src/**", "src/a/**", true),
            ("src/**", "srcs/a", false),
            ("src/*.rs", "src/a.rs", true),
            ("src/*.rs", "src/a*.rs", false),
            ("**", "a/*", true),
            ("**", "a", true),
            ("a", "a/b", false),
            ("**/*.rs", "a/b.rs", true),
            ("**/*.rs", "b.rs", true),
        ] {
            assert_eq!(path(a).covers(&path(b)), covered, "{a} {b}");
        }
    }

    #[test]
    fn everything_is_known_in_all_its_spellings() {
        for text in ["**", "/", "**/*", "*/**", "**/**", "?*/**", "**/*?"] {
            assert!(path(text).is_everything(), "{text}");
        }
        for text in ["*", "src/**", "**/*.rs"] {
            assert!(!path(text).is_everything(), "{text}");
        }
    }

    #[test]
    fn case_is_folded_where_it_does_not_count() {
        assert_eq!(path("Src/ÄÖ.rs").folded(), path("src/äö.rs"));
    }

    fn any_segment() -> impl Strategy<Value = String> {
        prop_oneof![3 => "[ab]{1,3}", 2 => "[ab*?]{1,3}", 1 => Just("**".to_owned())]
    }

    fn any_path() -> impl Strategy<Value = LockPath> {
        proptest::collection::vec(any_segment(), 1..5).prop_map(|segments| path(&segments.join("/")))
    }

    fn any_file() -> impl Strategy<Value = LockPath> {
        proptest::collection::vec("[ab]{1,3}", 1..5).prop_map(|segments| path(&segments.join("/")))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_two_patterns_name_is_seen_as_an_overlap(a in any_path(), b in any_path(), file in any_file()) {
            if a.covers(&file) && b.covers(&file) {
                prop_assert!(a.overlaps(&b));
            }
            prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
            prop_assert!(a.overlaps(&a) && a.covers(&a));
        }

        #[test]
        fn what_is_covered_is_named(a in any_path(), b in any_path(), file in any_file()) {
            if a.covers(&b) && b.covers(&file) {
                prop_assert!(a.covers(&file));
            }
            if a.covers(&file) {
                prop_assert!(a.overlaps(&file));
            }
        }

        #[test]
        fn the_normal_form_is_its_own(text in "[ab./*?]{0,12}") {
            if let Ok(path) = LockPath::new(&text) {
                prop_assert_eq!(LockPath::new(path.as_str()), Ok(path.clone()));
                let inside = path.stem().is_empty() || path.as_str().starts_with(path.stem());
                prop_assert!(inside);
            }
        }
    }
}
