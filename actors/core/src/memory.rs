//! Short-term memory: a few small values by name, each for a while or for ever.
//!
//! Invariants: an entry whose time has come is never given out; there are never more than
//! [`limits::MEMORY_ENTRIES`] entries and [`limits::MEMORY_BYTES`] bytes. What is written is told by
//! the caller.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::{RunId, TaskId};
use crate::limits;
use crate::rejection::Rejection;
use crate::time::Wall;

/// Who remembers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Owner {
    /// A task.
    Task(TaskId),
    /// A run: all of its tasks share it.
    Run(RunId),
}

/// What is remembered under one name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// JSON as text.
    pub value: Arc<str>,
    /// Not after then.
    pub expires_at: Option<Wall>,
}

impl Entry {
    fn has_expired(&self, now: Wall) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// The memory of one task or run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    entries: BTreeMap<Arc<str>, Entry>,
    bytes: usize,
}

/// An entry as it stands in a text.
#[derive(Serialize, Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    value: &'a RawValue,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Wall>,
}

/// Checks the size of one value.
///
/// # Errors
/// [`Rejection::ValueTooLarge`].
pub fn check_value(value: &str) -> Result<(), Rejection> {
    if value.len() > limits::MEMORY_VALUE_BYTES {
        return Err(Rejection::ValueTooLarge(value.len()));
    }
    Ok(())
}

impl Memory {
    /// Puts a value in the place of what was there.
    ///
    /// # Errors
    /// [`Rejection::MemoryFull`], and nothing has changed.
    pub fn set(&mut self, name: Arc<str>, entry: Entry) -> Result<(), Rejection> {
        let size = name.len() + entry.value.len();
        let before = self.entries.get(&name).map_or(0, |old| name.len() + old.value.len());
        let is_new = before == 0;
        if is_new && self.entries.len() >= limits::MEMORY_ENTRIES {
            return Err(Rejection::MemoryFull { what: "entries", limit: limits::MEMORY_ENTRIES });
        }
        if self.bytes - before + size > limits::MEMORY_BYTES {
            return Err(Rejection::MemoryFull { what: "bytes", limit: limits::MEMORY_BYTES });
        }
        self.bytes = self.bytes - before + size;
        self.entries.insert(name, entry);
        Ok(())
    }

    /// Takes a value away; whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some(old) = self.entries.remove(name) else { return false };
        self.bytes -= name.len() + old.value.len();
        true
    }

    /// Takes away what has expired, and says what that was.
    pub fn expire(&mut self, now: Wall) -> Vec<Arc<str>> {
        let gone: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.has_expired(now))
            .map(|(name, _)| Arc::clone(name))
            .collect();
        for name in &gone {
            self.remove(name);
        }
        gone
    }

    /// What is remembered now, by name.
    pub fn iter(&self, now: Wall) -> impl Iterator<Item = (&Arc<str>, &Entry)> {
        self.entries.iter().filter(move |(_, entry)| !entry.has_expired(now))
    }

    /// What is remembered now under that name.
    #[must_use]
    pub fn get(&self, name: &str, now: Wall) -> Option<&Entry> {
        self.entries.get(name).filter(|entry| !entry.has_expired(now))
    }

    /// Every name, whether it has expired or not.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.entries.keys()
    }

    /// Bytes of names and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All that is remembered now, as one JSON object; none if that is nothing.
    #[must_use]
    pub fn to_text(&self, now: Wall) -> Option<Arc<str>> {
        let written: BTreeMap<&str, Written<'_>> = self
            .iter(now)
            .filter_map(|(name, entry)| {
                // A text that is no JSON has no place among others; the door has looked.
                let value = serde_json::from_str(&entry.value).ok()?;
                Some((&**name, Written { value, expires_at: entry.expires_at }))
            })
            .collect();
        if written.is_empty() {
            return None;
        }
        serde_json::to_string(&written).ok().map(Into::into)
    }

    /// Reads what [`Memory::to_text`] wrote.
    ///
    /// # Errors
    /// For any other text, and for more than a memory holds.
    pub fn from_text(text: &str) -> Result<Self, String> {
        let written: BTreeMap<String, Written<'_>> =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        let mut memory = Self::default();
        for (name, Written { value, expires_at }) in written {
            let entry = Entry { value: value.get().into(), expires_at };
            memory.set(name.into(), entry).map_err(|error| error.to_string())?;
        }
        Ok(memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(value: &str, expires_at: Option<i64>) -> Entry {
        Entry { value: value.into(), expires_at: expires_at.map(Wall) }
    }

    #[test]
    fn what_has_expired_is_gone() {
        let mut memory = Memory::default();
        memory.set("a".into(), entry("1", Some(10))).expect("room");
        memory.set("b".into(), entry("2", None)).expect("room");
        assert_eq!(memory.get("a", Wall(9)).map(|entry| &*entry.value), Some("1"));
        assert_eq!(memory.get("a", Wall(10)), None);
        assert_eq!(memory.iter(Wall(10)).count(), 1);
        assert_eq!(memory.to_text(Wall(10)).as_deref(), Some(r#"{"b":{"value":2}}"#));
        assert_eq!(memory.expire(Wall(10)), ["a".into()]);
        assert_eq!(memory.bytes(), 2);
        assert!(!memory.remove("a") && memory.remove("b"));
        assert!(memory.is_empty() && memory.bytes() == 0 && memory.to_text(Wall(0)).is_none());
    }

    #[test]
    fn a_memory_is_bounded() {
        let mut memory = Memory::default();
        for n in 0..limits::MEMORY_ENTRIES {
            memory.set(n.to_string().into(), entry("null", None)).expect("room");
        }
        let full = memory.set("x".into(), entry("1", None));
        assert_eq!(full, Err(Rejection::MemoryFull { what: "entries", limit: limits::MEMORY_ENTRIES }));
        memory.set("5".into(), entry("[1]", None)).expect("a new value for an old name");
        let mut memory = Memory::default();
        let large = format!("\"{}\"", "x".repeat(limits::MEMORY_BYTES - 3));
        memory.set("a".into(), entry(&large, None)).expect("just fits");
        assert!(memory.set("b".into(), entry("1", None)).is_err());
        memory.set("a".into(), entry("1", None)).expect("smaller");
        assert_eq!(memory.bytes(), 2);
    }

    #[test]
    fn a_memory_survives_its_text() {
        let mut memory = Memory::default();
        memory.set("a\"b".into(), entry(r#"{"n":1.50}"#, Some(70))).expect("room");
        memory.set("c".into(), entry("\"ü\"", None)).expect("room");
        let text = memory.to_text(Wall(0)).expect("something");
        assert_eq!(Memory::from_text(&text).as_ref(), Ok(&memory), "{text}");
        assert!(Memory::from_text("[]").is_err());
    }
}
