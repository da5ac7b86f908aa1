//! Which of many paths overlap a given one.
//!
//! Files are kept by name, so that one is found with the directories above it and the files below it by
//! a few searches, and once more from their ends, so that those that a pattern like `**/*.md` names are
//! found without looking at all others; patterns are kept by the directory before their first star. Only
//! what lies on the way to a path or below it is looked at.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use super::path::LockPath;

/// Paths, each with what it belongs to. The same path may be there several times.
#[derive(Debug)]
pub(crate) struct PathIndex<T> {
    files: BTreeMap<Arc<str>, Vec<T>>,
    /// The names of the files by their bytes from the last to the first.
    ends: BTreeMap<Box<[u8]>, Arc<str>>,
    patterns: BTreeMap<Arc<str>, Vec<(LockPath, T)>>,
}

impl<T> Default for PathIndex<T> {
    fn default() -> Self {
        Self { files: BTreeMap::new(), ends: BTreeMap::new(), patterns: BTreeMap::new() }
    }
}

impl<T: Copy + PartialEq> PathIndex<T> {
    pub(crate) fn insert(&mut self, path: LockPath, belongs_to: T) {
        if path.is_file() {
            let entries = self.files.entry(path.text()).or_default();
            if entries.is_empty() {
                self.ends.insert(backwards(path.as_str()), path.text());
            }
            entries.push(belongs_to);
        } else {
            self.patterns.entry(path.stem().into()).or_default().push((path, belongs_to));
        }
    }

    /// Takes one entry out.
    pub(crate) fn remove(&mut self, path: &LockPath, belongs_to: T) {
        if path.is_file() {
            if let Some(entries) = self.files.get_mut(path.as_str()) {
                if let Some(at) = entries.iter().position(|entry| *entry == belongs_to) {
                    entries.swap_remove(at);
                }
                if entries.is_empty() {
                    self.files.remove(path.as_str());
                    self.ends.remove(&backwards(path.as_str()));
                }
            }
        } else if let Some(entries) = self.patterns.get_mut(path.stem()) {
            if let Some(at) = entries.iter().position(|entry| entry.1 == belongs_to && entry.0 == *path) {
                entries.swap_remove(at);
            }
            if entries.is_empty() {
                self.patterns.remove(path.stem());
            }
        }
    }

    /// The same entries where upper and lower case are the same.
    pub(crate) fn folded(&self) -> Self {
        let mut folded = Self::default();
        for (name, entries) in &self.files {
            entries.iter().for_each(|entry| folded.insert(LockPath::of_normal(name).folded(), *entry));
        }
        for (pattern, entry) in self.patterns.values().flatten() {
            folded.insert(pattern.folded(), *entry);
        }
        folded
    }

    /// Visits every entry whose path overlaps, until `visit` has seen enough.
    pub(crate) fn overlapping(
        &self,
        path: &LockPath,
        mut visit: impl FnMut(T, &LockPath) -> ControlFlow<()>,
    ) {
        let _enough = self.visit(path, &mut visit);
    }

    fn visit(
        &self,
        path: &LockPath,
        visit: &mut impl FnMut(T, &LockPath) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let stem = path.stem();
        // Files on the way: one that lies where the path has a directory, or is the path itself.
        for place in on_the_way(stem) {
            if let Some((name, entries)) = self.files.get_key_value(place) {
                each(name, entries, visit)?;
            }
        }
        if path.is_file() {
            // Files that need a directory where the path is one.
            below(&self.files, stem).try_for_each(|(name, entries)| each(name, entries, visit))?;
        } else {
            self.named(path, visit)?;
        }
        // Patterns that begin on the way, and those that begin below.
        for place in std::iter::once("").chain(on_the_way(stem)) {
            if let Some(entries) = self.patterns.get(place) {
                each_pattern(entries, path, visit)?;
            }
        }
        for (_, entries) in below(&self.patterns, stem) {
            each_pattern(entries, path, visit)?;
        }
        ControlFlow::Continue(())
    }

    /// Visits the files below its stem that a pattern names. Two sets have all of them: what lies below
    /// the stem, and what ends as the pattern does. Both are walked, step by step, until the smaller one
    /// is known.
    fn named(
        &self,
        pattern: &LockPath,
        visit: &mut impl FnMut(T, &LockPath) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let end = backwards(pattern.end());
        let mut by_end = self.ends.range::<[u8], _>((Bound::Included(&*end), Bound::Unbounded));
        let mut candidates = Vec::new();
        for (name, entries) in below(&self.files, pattern.stem()) {
            if !end.is_empty() {
                match by_end.next().filter(|(backwards, _)| backwards.starts_with(&end)) {
                    Some((_, candidate)) => candidates.push(candidate),
                    None => return self.named_among(&candidates, name, pattern, visit),
                }
            }
            if pattern.names(name) {
                each(name, entries, visit)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Of these files, visits those from a name on.
    fn named_among(
        &self,
        candidates: &[&Arc<str>],
        from: &Arc<str>,
        pattern: &LockPath,
        visit: &mut impl FnMut(T, &LockPath) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for name in candidates.iter().filter(|name| **name >= from && pattern.names(name)) {
            if let Some(entries) = self.files.get(*name) {
                each(name, entries, visit)?;
            }
        }
        ControlFlow::Continue(())
    }
}

/// The directories above a place, from the root's on, and the place itself; of the root, nothing.
fn on_the_way(place: &str) -> impl Iterator<Item = &str> {
    let itself = (!place.is_empty()).then_some(place.len());
    place.match_indices('/').map(|(end, _)| end).chain(itself).map(|end| &place[..end])
}

/// The name as it is read from its end.
fn backwards(name: &str) -> Box<[u8]> {
    name.bytes().rev().collect()
}

fn each<T: Copy>(
    name: &Arc<str>,
    entries: &[T],
    visit: &mut impl FnMut(T, &LockPath) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let file = LockPath::of_normal(name);
    entries.iter().try_for_each(|entry| visit(*entry, &file))
}

fn each_pattern<T: Copy>(
    entries: &[(LockPath, T)],
    path: &LockPath,
    visit: &mut impl FnMut(T, &LockPath) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let file = path.is_file().then(|| path.as_str());
    let overlaps = |pattern: &LockPath| match file {
        Some(file) => pattern.overlaps_file(file),
        None => pattern.overlaps(path),
    };
    let mut overlapping = entries.iter().filter(|(pattern, _)| overlaps(pattern));
    overlapping.try_for_each(|(pattern, entry)| visit(*entry, pattern))
}

/// Entries strictly below a directory; all but those at the root when it is the root.
fn below<'a, V>(
    map: &'a BTreeMap<Arc<str>, V>,
    directory: &str,
) -> impl Iterator<Item = (&'a Arc<str>, &'a V)> {
    let (from, to) = if directory.is_empty() {
        (Bound::Excluded(String::new()), Bound::Unbounded)
    } else {
        // '0' is the character after '/'.
        (Bound::Included(format!("{directory}/")), Bound::Excluded(format!("{directory}0")))
    };
    map.range::<str, _>((from.as_ref().map(String::as_str), to.as_ref().map(String::as_str)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_path() -> impl Strategy<Value = LockPath> {
        // Letters whose last bytes are the same.
        let segment = prop_oneof![4 => "[aéĩ]{1,2}", 1 => "[aéĩ*?]{1,2}", 1 => Just("**".to_owned())];
        proptest::collection::vec(segment, 1..4)
            .prop_map(|segments| LockPath::new(&segments.join("/")).expect("a path"))
    }

    fn found(index: &PathIndex<usize>, path: &LockPath) -> Vec<usize> {
        let mut found = Vec::new();
        index.overlapping(path, |entry, _| {
            found.push(entry);
            ControlFlow::Continue(())
        });
        found.sort_unstable();
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// The index finds exactly what comparing with every path would find, each once.
        #[test]
        fn it_finds_what_looking_at_all_finds(
            paths in proptest::collection::vec(any_path(), 0..12),
            gone in proptest::collection::vec(any::<proptest::sample::Index>(), 0..4),
            query in any_path(),
        ) {
            let mut index = PathIndex::default();
            for (at, path) in paths.iter().enumerate() {
                index.insert(path.clone(), at);
            }
            let mut left: Vec<usize> = (0..paths.len()).collect();
            for which in gone {
                if !left.is_empty() {
                    let at = left.swap_remove(which.index(left.len()));
                    index.remove(&paths[at], at);
                }
            }
            left.sort_unstable();
            let expected: Vec<usize> = left.into_iter().filter(|at| paths[*at].overlaps(&query)).collect();
            prop_assert_eq!(found(&index, &query), expected, "{} among {:?}", query, paths);
        }

        #[test]
        fn nothing_stays_when_all_is_gone(paths in proptest::collection::vec(any_path(), 0..12)) {
            let mut index = PathIndex::default();
            for (at, path) in paths.iter().enumerate() {
                index.insert(path.clone(), at);
            }
            for (at, path) in paths.iter().enumerate() {
                index.remove(path, at);
            }
            prop_assert!(index.files.is_empty() && index.ends.is_empty() && index.patterns.is_empty());
        }
    }
}
