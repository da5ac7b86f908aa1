//! Paths as they are written: each a text, or an object that says what is to be done there.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use agentflow_core::limits;
use agentflow_core::lock::{LockMode, LockPath, PathLock, PathsError, check_paths};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::submit::check::Check;

/// A path: `"src/a.rs"`, or `{"path": "src/a.rs", "mode": "read"}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum PathBody {
    /// A file, a directory with all below it (`dir/` or `dir/**`), or a pattern.
    Text(String),
    /// The same, and what is to be done there.
    At(PathAt),
}

/// A path, and what is to be done there.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PathAt {
    /// A file, a directory with all below it (`dir/` or `dir/**`), or a pattern.
    pub path: String,
    /// `read` or `write`; `write` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub mode: Option<LockMode>,
}

impl<'de> Deserialize<'de> for PathBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrObjectVisitor::new("a path as text or as an object"))
    }
}

impl TextOrObject for PathBody {
    type Object = PathAt;

    fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    fn object(object: PathAt) -> Self {
        Self::At(object)
    }
}

/// What is written as a text, or as an object if more is to be said. An untagged enum would not say which
/// field of the object is wrong.
pub(crate) trait TextOrObject: Sized {
    /// Its longer form.
    type Object: for<'de> Deserialize<'de>;

    /// From the short form.
    fn text(text: &str) -> Self;
    /// From the longer form.
    fn object(object: Self::Object) -> Self;
}

/// Reads either form.
pub(crate) struct TextOrObjectVisitor<T> {
    expected: &'static str,
    read: PhantomData<T>,
}

impl<T> TextOrObjectVisitor<T> {
    pub(crate) fn new(expected: &'static str) -> Self {
        Self { expected, read: PhantomData }
    }
}

impl<'de, T: TextOrObject> Visitor<'de> for TextOrObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        Ok(T::text(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::Object::deserialize(MapAccessDeserializer::new(map)).map(T::object)
    }
}

/// A path that is right, and the field in which it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Written {
    pub(crate) field: String,
    pub(crate) lock: PathLock,
}

impl Check<'_> {
    /// One path.
    pub(crate) fn lock_path(&mut self, field: String, text: &str, mode: LockMode) -> Option<Written> {
        match LockPath::new(text) {
            Ok(path) => Some(Written { field, lock: PathLock { path, mode } }),
            Err(error) => {
                self.wrong(&field, error.to_string());
                None
            }
        }
    }

    /// The paths of a list, 1 to [`limits::LOCK_PATHS`], in the order in which they are written. Those
    /// that do not say what is to be done there are for `usual`.
    pub(crate) fn lock_paths(&mut self, list: &str, paths: Vec<PathBody>, usual: LockMode) -> Vec<Written> {
        let (count, most) = (paths.len(), limits::LOCK_PATHS);
        if !(1..=most).contains(&count) {
            self.wrong(list, format!("has {count} paths; allowed: 1 to {most}"));
            return Vec::new();
        }
        let mut written = Vec::with_capacity(count);
        for (at, path) in paths.into_iter().enumerate() {
            written.extend(match path {
                PathBody::Text(path) => self.lock_path(format!("{list}/{at}"), &path, usual),
                PathBody::At(PathAt { path, mode }) => {
                    self.lock_path(format!("{list}/{at}/path"), &path, mode.unwrap_or(usual))
                }
            });
            if self.is_enough() {
                break;
            }
        }
        written
    }

    /// That no two of these overlap: what is asked for twice, perhaps to read and to write, is not asked
    /// for clearly.
    pub(crate) fn apart(&mut self, list: &str, written: &[Written], ignore_case: bool) {
        let compared = |one: &Written| match ignore_case {
            true => PathLock { path: one.lock.path.folded(), mode: one.lock.mode },
            false => one.lock.clone(),
        };
        let compared: Vec<PathLock> = written.iter().map(compared).collect();
        match check_paths(&compared) {
            Ok(()) => {}
            Err(PathsError::Patterns(count)) => {
                let most = limits::LOCK_PATTERNS;
                self.wrong(
                    list,
                    format!("has {count} patterns; allowed: up to {most}, beside files and dir/**"),
                );
            }
            Err(PathsError::Overlap(first, second)) => {
                let (first, second) = (&written[first], &written[second]);
                let detail = format!(
                    "'{}' overlaps '{}' at {}/{}; ask once for what they have in common",
                    second.lock.path, first.lock.path, self.at, first.field
                );
                self.wrong(&second.field, detail);
            }
        }
    }
}

/// What is locked, in the order of the paths.
pub(crate) fn in_order(written: Vec<Written>) -> Arc<[PathLock]> {
    let mut paths: Vec<PathLock> = written.into_iter().map(|one| one.lock).collect();
    paths.sort_unstable();
    paths.into()
}
