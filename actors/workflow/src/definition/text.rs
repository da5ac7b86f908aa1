//! How the parts of a definition are written where serde's own way would be longer, or would lose
//! something.

use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::{Edge, On};

/// Reads a field that is there: `null` is a value, not an absence.
pub(crate) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Writes text that is JSON as it is.
pub(super) fn serialize_raw<S: Serializer>(body: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serde_json::from_str::<&RawValue>(body).map_err(serde::ser::Error::custom)?.serialize(serializer)
}

/// Reads JSON as the text it is.
pub(super) fn deserialize_raw<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<str>, D::Error> {
    Ok(Box::<RawValue>::deserialize(deserializer)?.into())
}

/// An edge is `3`, or `[3, "order"]`: most are the former, and there may be hundreds of thousands.
impl Serialize for Edge {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.on {
            On::Success => self.node.serialize(serializer),
            on => (self.node, on).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Edge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EdgeVisitor)
    }
}

struct EdgeVisitor;

impl<'de> Visitor<'de> for EdgeVisitor {
    type Value = Edge;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an edge: a node's number, or a number and a word")
    }

    fn visit_u64<E: de::Error>(self, node: u64) -> Result<Edge, E> {
        let node = u32::try_from(node).map_err(|_| E::custom("a node's number is too large"))?;
        Ok(Edge { node, on: On::Success })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Edge, A::Error> {
        let node = list.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
        let on = list.next_element()?.ok_or_else(|| de::Error::invalid_length(1, &self))?;
        Ok(Edge { node, on })
    }
}
