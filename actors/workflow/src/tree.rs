//! A document as it is written: maps keep their order and their duplicate keys.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Number, Value};

/// A document as it is written.
#[derive(Clone, PartialEq, Debug)]
pub enum Tree {
    /// Nothing.
    Null,
    /// Yes or no.
    Bool(bool),
    /// A number.
    Number(Number),
    /// Text.
    String(Box<str>),
    /// A list.
    List(Vec<Tree>),
    /// Keys and values as written.
    Map(Vec<(Box<str>, Tree)>),
}

impl Tree {
    /// The text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The first value of that key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Tree> {
        match self {
            Self::Map(entries) => entries.iter().find(|(have, _)| &**have == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The value that a JSON pointer names.
    #[must_use]
    pub fn pointer(&self, pointer: &str) -> Option<&Tree> {
        let mut tree = self;
        for step in pointer.split('/').skip(1) {
            tree = match tree {
                Self::List(items) => items.get(step.parse::<usize>().ok()?)?,
                Self::Map(_) if step.contains('~') => {
                    tree.get(&step.replace("~1", "/").replace("~0", "~"))?
                }
                Self::Map(_) => tree.get(step)?,
                _ => return None,
            };
        }
        Some(tree)
    }

    /// Whether more lists and maps than that are inside one another.
    pub(crate) fn is_deeper_than(&self, levels: usize) -> bool {
        match self {
            Self::List(_) | Self::Map(_) if levels == 0 => true,
            Self::List(items) => items.iter().any(|item| item.is_deeper_than(levels - 1)),
            Self::Map(entries) => entries.iter().any(|(_, value)| value.is_deeper_than(levels - 1)),
            _ => false,
        }
    }

    /// What it is, with its article.
    #[must_use]
    pub fn what(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::String(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }

    /// As a plain value: of equal keys the last one counts.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Number(number) => Value::Number(number.clone()),
            Self::String(text) => Value::String(text.to_string()),
            Self::List(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Self::Map(entries) => Value::Object(to_map(entries)),
        }
    }
}

/// A plain object of those entries.
pub(crate) fn to_map(entries: &[(Box<str>, Tree)]) -> Map<String, Value> {
    entries.iter().map(|(key, value)| (key.to_string(), value.to_value())).collect()
}

impl From<&Value> for Tree {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => Self::Number(number.clone()),
            Value::String(text) => Self::String(text.as_str().into()),
            Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Value::Object(map) => {
                Self::Map(map.iter().map(|(key, value)| (key.as_str().into(), Self::from(value))).collect())
            }
        }
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => number.serialize(serializer),
            Self::String(text) => serializer.serialize_str(text),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Tree, E> {
        Ok(Tree::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Tree, E> {
        Ok(Tree::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Tree, E> {
        Ok(Number::from_f64(number).map_or(Tree::Null, Tree::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::String(text.into()))
    }

    fn visit_string<E>(self, text: String) -> Result<Tree, E> {
        Ok(Tree::String(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_duplicates_stay() {
        let text = r#"{"b":1,"a":[null,true,-2,0.5,"x"],"b":{}}"#;
        let tree: Tree = serde_json::from_str(text).expect("JSON");
        assert_eq!(serde_json::to_string(&tree).expect("a text"), text);
        assert_eq!(tree.to_value(), serde_json::json!({"a": [null, true, -2, 0.5, "x"], "b": {}}));
        assert_eq!(tree.get("b"), Some(&Tree::Number(1.into())));
    }
}
