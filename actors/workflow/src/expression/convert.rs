//! Values on their way into the engine and out of it.

use minijinja::value::{Value as Inner, ValueKind};
use serde_json::{Map, Number, Value};

use crate::limits;

/// Why an expression has no value.
pub(crate) enum Failure {
    /// The result itself is missing.
    Undefined,
    /// The result cannot be used.
    Result(String),
    /// The engine stopped.
    Engine(minijinja::Error),
}

impl From<minijinja::Error> for Failure {
    fn from(error: minijinja::Error) -> Self {
        Self::Engine(error)
    }
}

/// A value as the engine knows it.
pub(crate) fn from_json(value: &Value) -> Inner {
    match value {
        Value::Null => Inner::from(()),
        Value::Bool(value) => Inner::from(*value),
        Value::Number(number) => from_number(number),
        Value::String(text) => Inner::from(text.as_str()),
        Value::Array(items) => items.iter().map(from_json).collect(),
        Value::Object(map) => from_map(map),
    }
}

/// A map as the engine knows it.
pub(crate) fn from_map(map: &Map<String, Value>) -> Inner {
    Inner::from_pairs(map.iter().map(|(key, value)| (key.as_str(), from_json(value))))
}

fn from_number(number: &Number) -> Inner {
    if let Some(number) = number.as_i64() {
        Inner::from(number)
    } else if let Some(number) = number.as_u64() {
        Inner::from(number)
    } else {
        Inner::from(number.as_f64().unwrap_or_default())
    }
}

/// A result as JSON, at most [`limits::RESULT_BYTES`] of it.
pub(super) fn to_json(value: &Inner) -> Result<Value, Failure> {
    if value.is_undefined() {
        return Err(Failure::Undefined);
    }
    let mut writer = Writer { left: limits::RESULT_BYTES, depth: 0 };
    writer.value(value)
}

/// Counts what it has written.
struct Writer {
    left: usize,
    depth: usize,
}

impl Writer {
    fn take(&mut self, bytes: usize) -> Result<(), Failure> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Failure::Result(format!(
                "the result is larger than {} bytes; what a task left can be handed on whole: \
                 input: ${{{{ tasks.NAME.outputs }}}}",
                limits::RESULT_BYTES
            ))),
        }
    }

    fn value(&mut self, value: &Inner) -> Result<Value, Failure> {
        // A separator, and for most values little more than that.
        self.take(2)?;
        match value.kind() {
            ValueKind::Undefined => Err(Failure::Result("a value in the result is missing".to_owned())),
            ValueKind::None => Ok(Value::Null),
            ValueKind::Bool => Ok(Value::Bool(value.is_true())),
            ValueKind::Number => number(value).map(Value::Number),
            ValueKind::String => {
                let text = value.as_str().unwrap_or_default();
                self.take(text.len())?;
                Ok(Value::String(text.to_owned()))
            }
            ValueKind::Seq | ValueKind::Iterable => self.deeper(|writer| writer.list(value)),
            ValueKind::Map => self.deeper(|writer| writer.map(value)),
            ValueKind::Invalid => Err(invalid(value)),
            other => Err(Failure::Result(format!("the result is a {other}, which is no data"))),
        }
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, Failure>) -> Result<T, Failure> {
        if self.depth == limits::DEPTH {
            return Err(Failure::Result(format!("the result is nested deeper than {}", limits::DEPTH)));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn list(&mut self, list: &Inner) -> Result<Value, Failure> {
        let mut items = Vec::new();
        for item in list.try_iter()?.checked() {
            items.push(self.value(&item?)?);
        }
        Ok(Value::Array(items))
    }

    fn map(&mut self, map: &Inner) -> Result<Value, Failure> {
        let mut entries = Map::new();
        for key in map.try_iter()?.checked() {
            let key = key?;
            let Some(name) = key.as_str() else {
                return Err(Failure::Result(format!("a map's key is {key}; keys must be texts")));
            };
            self.take(name.len() + 2)?;
            let value = self.value(&map.get_item(&key)?)?;
            entries.insert(name.to_owned(), value);
        }
        Ok(Value::Object(entries))
    }
}

/// A value that stands for an error.
fn invalid(value: &Inner) -> Failure {
    // The engine tells the error in brackets only.
    let text = value.to_string();
    let inner = text.strip_prefix("<invalid value: ").and_then(|text| text.strip_suffix('>'));
    let detail = inner.map_or(&*text, |inner| inner.strip_prefix("invalid operation: ").unwrap_or(inner));
    Failure::Result(detail.to_owned())
}

fn number(value: &Inner) -> Result<Number, Failure> {
    if value.is_integer() {
        let signed = i64::try_from(value.clone()).map(Number::from);
        let number = signed.or_else(|_| u64::try_from(value.clone()).map(Number::from));
        return number.map_err(|_| Failure::Result(format!("{value} is too large a number")));
    }
    let number = f64::try_from(value.clone()).ok().and_then(Number::from_f64);
    number.ok_or_else(|| Failure::Result(format!("{value} is no finite number")))
}

/// A value inside a longer text: texts as they are, lists and maps as JSON, nothing as nothing.
pub(crate) fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
