//! Finds lines and columns of what is wrong, by reading the text once more.

use rustc_hash::FxHashMap;
use serde::de::IgnoredAny;

use super::collector::{Spot, Wrong};
use super::{position_json, position_yaml};
use crate::Tree;
use crate::rendering::push_key;

/// A line and a column, both from 1; columns count characters.
pub(super) type Position = (u32, u32);

/// Where an entry was seen.
#[derive(Default)]
struct Sighting {
    value: Option<Position>,
    keys: Vec<Position>,
}

/// Goes through a text and notes what is looked for.
pub(super) struct Finder {
    wanted: FxHashMap<String, Sighting>,
    path: String,
}

/// Keys of which several equal ones are told apart.
const REPEATED_KEYS: usize = 256;

impl Finder {
    fn new(wrong: &[Wrong]) -> Self {
        let mut wanted = FxHashMap::default();
        for one in wrong {
            // What is missing is shown where it should be: at the innermost place that exists.
            let mut pointer = one.pointer.as_str();
            loop {
                wanted.entry(pointer.to_owned()).or_insert_with(Sighting::default);
                match pointer.rfind('/') {
                    Some(end) => pointer = &pointer[..end],
                    None => break,
                }
            }
        }
        Self { wanted, path: String::new() }
    }

    /// Goes to a key. `position` is asked for only if it is needed.
    pub(super) fn key(&mut self, name: &str, position: impl FnOnce() -> Position) {
        push_key(&mut self.path, name);
        if let Some(sighting) = self.wanted.get_mut(&self.path)
            && sighting.keys.len() < REPEATED_KEYS
        {
            sighting.keys.push(position());
        }
    }

    /// Goes to an item.
    pub(super) fn index(&mut self, index: usize) {
        push_key(&mut self.path, &index.to_string());
    }

    /// A value begins here.
    pub(super) fn value(&mut self, position: impl FnOnce() -> Position) {
        if let Some(sighting) = self.wanted.get_mut(&self.path)
            && sighting.value.is_none()
        {
            sighting.value = Some(position());
        }
    }

    /// Goes back from a key or an item.
    pub(super) fn leave(&mut self) {
        let end = self.path.rfind('/').unwrap_or_default();
        self.path.truncate(end);
    }

    fn of(&self, wrong: &Wrong) -> Option<Position> {
        let exact = self.wanted.get(&wrong.pointer)?;
        if let Spot::Key(before) = wrong.spot
            && let Some(position) = exact.keys.get(before).or(exact.keys.last())
        {
            return Some(*position);
        }
        let mut pointer = wrong.pointer.as_str();
        loop {
            if let Some(position) = self.wanted.get(pointer)?.value {
                return Some(position);
            }
            pointer = &pointer[..pointer.rfind('/')?];
        }
    }
}

/// The position of each, in the same order.
pub(super) fn find(text: &str, tree: &Tree, wrong: &[Wrong]) -> Vec<Option<Position>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut finder = Finder::new(wrong);
    if text.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok() {
        position_json::walk(text, &mut finder);
    } else {
        position_yaml::walk(text, &mut finder);
    }
    let lines: Vec<&str> = text.split('\n').collect();
    let position = |one: &Wrong| {
        let position = finder.of(one)?;
        let Spot::Inside(offset) = one.spot else {
            return Some(position);
        };
        let value = tree.pointer(&one.pointer).and_then(Tree::as_str);
        let inside = value.and_then(|value| inside(&lines, position, value, offset));
        Some(inside.unwrap_or(position))
    };
    wrong.iter().map(position).collect()
}

/// Where the `offset`th byte of a text is that begins at `start`, if that is simple to say: nothing
/// before it was escaped or folded.
fn inside(lines: &[&str], start: Position, value: &str, offset: usize) -> Option<Position> {
    let before = value.get(..offset)?;
    let line = *lines.get(start.0 as usize - 1)?;
    let (byte, first) = line.char_indices().nth(start.1 as usize - 1)?;
    let raw = &line[byte..];
    let columns = |text: &str| u32::try_from(text.chars().count()).ok();
    if let Some((lines_before, last)) = before.rsplit_once('\n') {
        // A block of text: as it was written, but for the indentation.
        let lines_before = lines_before.matches('\n').count() + 1;
        let number = start.0 + u32::try_from(lines_before).ok()?;
        let line = lines.get(number as usize - 1)?.trim_end_matches('\r');
        let written = value.split('\n').nth(lines_before)?;
        let indent = line.strip_suffix(written)?;
        return Some((number, columns(indent)? + columns(last)? + 1));
    }
    let quotes = u32::from(matches!(first, '"' | '\''));
    let written = raw[quotes as usize..].starts_with(before);
    if written { Some((start.0, start.1 + quotes + columns(before)?)) } else { None }
}
