//! Filters of our own: JSON, texts, and the guards that the grammar writes around operators.

use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};

use super::convert::{self, Failure};
use super::words;
use crate::limits;

pub(super) fn add(environment: &mut Environment<'static>) {
    environment.add_filter("fromjson", from_json);
    environment.add_filter("tojson", to_json);
    environment.add_filter("string", text);
    environment.add_filter("join", join);
    environment.add_filter("keys", keys);
    environment.add_filter(words::TEXT, text);
    environment.add_filter(words::NUMBER, number);
    environment.add_filter(words::BOUNDED, bounded);
}

fn wrong(detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, detail.into())
}

/// A fuel for every 64 bytes that are read or written, as the engine itself counts.
fn charge(state: &State<'_, '_>, bytes: usize) -> Result<(), Error> {
    state.consume_fuel(bytes as u64 / 64 + 1)
}

fn from_json(state: &mut State<'_, '_>, value: &Value) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return Err(wrong(format!("fromjson reads a text, not a {}", value.kind())));
    };
    // A value takes some ten times the room of its text.
    charge(state, text.len().saturating_mul(10))?;
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| wrong(format!("the text is no JSON: {error}")))?;
    Ok(convert::from_json(&value))
}

fn to_json(state: &mut State<'_, '_>, value: Value) -> Result<String, Error> {
    json_text(state, &value)
}

fn json_text(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    let json = convert::to_json(value).map_err(|failure| match failure {
        Failure::Engine(error) => error,
        Failure::Result(detail) => wrong(detail),
        Failure::Undefined => Error::from(ErrorKind::UndefinedError),
    })?;
    let text = json.to_string();
    charge(state, text.len().saturating_mul(4))?;
    Ok(text)
}

/// Texts as they are, lists and maps as JSON.
fn text(state: &mut State<'_, '_>, value: Value) -> Result<Value, Error> {
    text_of(state, value)
}

fn text_of(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => Ok(value),
        ValueKind::None => Ok(Value::from("")),
        _ => json_text(state, &value).map(Value::from),
    }
}

fn join(state: &mut State<'_, '_>, list: Value, between: Option<&str>) -> Result<String, Error> {
    if !matches!(list.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Err(wrong(format!("join takes a list, not a {}", list.kind())));
    }
    let between = between.unwrap_or_default();
    let mut joined = String::new();
    for (at, item) in list.try_iter()?.checked().enumerate() {
        let item = text_of(state, item?)?;
        let item = item.as_str().unwrap_or_default();
        charge(state, item.len() + between.len())?;
        if joined.len() + item.len() + between.len() > limits::RESULT_BYTES {
            return Err(wrong(format!("the text is larger than {} bytes", limits::RESULT_BYTES)));
        }
        if at > 0 {
            joined.push_str(between);
        }
        joined.push_str(item);
    }
    Ok(joined)
}

fn keys(state: &mut State<'_, '_>, map: Value) -> Result<Value, Error> {
    if map.kind() != ValueKind::Map {
        return Err(wrong(format!("keys takes a map, not a {}", map.kind())));
    }
    charge(state, map.len().unwrap_or_default().saturating_mul(32))?;
    map.try_iter()?.checked().collect::<Result<Vec<Value>, Error>>().map(Value::from)
}

/// Lets numbers through: multiplied with one, a text or a list would be repeated.
fn number(value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Number => Ok(value),
        kind => Err(wrong(format!("* multiplies numbers, not a {kind}"))),
    }
}

/// Lets a value through that is not too large, counted as if nothing in it were shared.
fn bounded(state: &mut State<'_, '_>, value: Value) -> Result<Value, Error> {
    let mut left = limits::BUILT_BYTES;
    weigh(&value, &mut left, limits::DEPTH)?;
    charge(state, limits::BUILT_BYTES - left)?;
    Ok(value)
}

fn weigh(value: &Value, left: &mut usize, depth: usize) -> Result<(), Error> {
    const OVERHEAD: usize = 16;
    let own = OVERHEAD + value.as_str().map_or(0, str::len);
    *left = left.checked_sub(own).ok_or_else(|| Error::from(ErrorKind::OutOfFuel))?;
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map) {
        return Ok(());
    }
    let depth = depth.checked_sub(1).ok_or_else(|| wrong("a value is nested too deeply"))?;
    let is_map = value.kind() == ValueKind::Map;
    for item in value.try_iter()?.checked() {
        let item = item?;
        weigh(&item, left, depth)?;
        if is_map {
            weigh(&value.get_item(&item)?, left, depth)?;
        }
    }
    Ok(())
}
