//! A task's input from its parts, as its process finds it in `AGENTFLOW_INPUT`.

use std::collections::BTreeMap;

use agentflow_core::blob::{BlobRef, InputPart, InputSource};
use agentflow_core::limits;
use serde_json::value::RawValue;

/// Why there is no input.
#[derive(Debug, thiserror::Error)]
pub enum InputError<E> {
    /// A part could not be read.
    #[error(transparent)]
    Read(E),
    /// A part is no JSON.
    #[error("the part {0} of the input is no JSON: {1}")]
    Json(String, serde_json::Error),
    /// All parts together are too large.
    #[error("the input has more than {0} bytes")]
    TooLarge(u64),
}

/// Puts an input together: one part is the input, several become one object, in which the entries of
/// each are put over those before it. What is no object stands under its name.
///
/// # Errors
/// [`InputError`]; nothing is left half-way.
pub fn assemble<E>(
    parts: &[InputPart],
    mut read: impl FnMut(&BlobRef) -> Result<String, E>,
) -> Result<String, InputError<E>> {
    let mut bytes = 0;
    let mut text = |part: &InputPart| {
        let text = match &part.source {
            InputSource::Value(value) => value.to_string(),
            InputSource::Json(blob) => read(blob).map_err(InputError::Read)?,
            InputSource::Text(blob) => {
                let text = read(blob).map_err(InputError::Read)?;
                serde_json::Value::from(text.trim_end_matches(['\n', '\r'])).to_string()
            }
        };
        bytes += text.len() as u64;
        // A text that is written as JSON grows by its quotes and escapes.
        if bytes > 2 * limits::VALUE_BYTES {
            return Err(InputError::TooLarge(2 * limits::VALUE_BYTES));
        }
        Ok(text)
    };
    if let [part] = parts {
        return text(part);
    }
    let mut object: BTreeMap<String, Box<RawValue>> = BTreeMap::new();
    for (at, part) in parts.iter().enumerate() {
        let name = || part.name.as_deref().map_or_else(|| at.to_string(), str::to_owned);
        let failed = |error| InputError::Json(name(), error);
        let text = text(part)?;
        if text.trim_start().starts_with('{') {
            object.extend(serde_json::from_str::<BTreeMap<_, _>>(&text).map_err(failed)?);
        } else {
            object.insert(name(), RawValue::from_string(text).map_err(failed)?);
        }
    }
    serde_json::to_string(&object).map_err(|error| InputError::Json("whole".to_owned(), error))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use agentflow_core::blob::BlobHash;
    use serde_json::json;

    use super::*;

    fn part(name: &str, source: InputSource) -> InputPart {
        InputPart { name: Some(name.into()), source }
    }

    fn input(parts: &[InputPart]) -> String {
        let kept = [r#"{"a":1.50,"b":2}"#, "two\nlines\n"];
        let read = |blob: &BlobRef| {
            let text = kept.into_iter().find(|text| BlobHash::of(text.as_bytes()) == blob.sha256);
            Ok::<_, Infallible>(text.expect("kept").to_owned())
        };
        assemble(parts, read).expect("an input")
    }

    fn blob(text: &str) -> BlobRef {
        BlobRef { sha256: BlobHash::of(text.as_bytes()), bytes: text.len() as u64 }
    }

    #[test]
    fn one_part_is_the_input() {
        let json = InputSource::Json(blob(r#"{"a":1.50,"b":2}"#));
        assert_eq!(input(&[part("x", json)]), r#"{"a":1.50,"b":2}"#);
        let text = InputSource::Text(blob("two\nlines\n"));
        assert_eq!(input(&[part("x", text)]), r#""two\nlines""#);
        assert_eq!(input(&[part("x", InputSource::Value(json!([1])))]), "[1]");
    }

    #[test]
    fn several_parts_are_put_over_each_other() {
        let parts = [
            part("input", InputSource::Value(json!({"b": 0, "c": 3}))),
            part("7", InputSource::Json(blob(r#"{"a":1.50,"b":2}"#))),
            part("8", InputSource::Text(blob("two\nlines\n"))),
        ];
        assert_eq!(input(&parts), r#"{"8":"two\nlines","a":1.50,"b":2,"c":3}"#);
    }
}
