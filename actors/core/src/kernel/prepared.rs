//! Specifications ready to be kept: their text, its hash, and what is too large for it.

use std::sync::Arc;

use crate::batch::SpecRow;
use crate::blob::{InputPart, InputSource, NewBlob};
use crate::ids::SpecHash;
use crate::limits;
use crate::spec::Spec;

/// A specification with the text and hash under which it is kept.
#[derive(Clone, PartialEq, Debug)]
pub struct PreparedSpec {
    /// Its key.
    pub hash: SpecHash,
    /// Its canonical JSON.
    pub body: Arc<str>,
    /// What it says.
    pub spec: Spec,
    /// Its input, if that is too large for the text and was not kept yet.
    pub blobs: Vec<Arc<NewBlob>>,
}

impl PreparedSpec {
    /// Hashes a specification. An input larger than [`limits::INPUT_BYTES`] is put aside.
    #[must_use]
    pub fn new(mut spec: Spec) -> Self {
        let mut body = spec.canonical();
        let blobs = if body.len() > limits::INPUT_BYTES { put_aside(&mut spec) } else { Vec::new() };
        if !blobs.is_empty() {
            body = spec.canonical();
        }
        Self { hash: Spec::hash_of(&body), body: body.into(), spec, blobs }
    }

    /// Another specification with the same input.
    #[must_use]
    pub fn with(&self, spec: Spec) -> Self {
        Self { blobs: self.blobs.clone(), ..Self::new(spec) }
    }

    /// What is written of it.
    #[must_use]
    pub fn row(&self) -> SpecRow {
        let blobs = self.spec.input_parts.iter().filter_map(|part| part.source.blob());
        let blobs = blobs.map(|blob| blob.sha256).collect();
        SpecRow { hash: self.hash, body: Arc::clone(&self.body), blobs }
    }

    /// Reads one back from the text that was kept.
    ///
    /// # Errors
    /// When the text is not one that [`PreparedSpec::new`] made.
    pub fn read(hash: SpecHash, body: Arc<str>) -> Result<Self, serde_json::Error> {
        Ok(Self { hash, spec: serde_json::from_str(&body)?, body, blobs: Vec::new() })
    }
}

/// Takes an input that is too large out of a specification and names it there by its hash.
fn put_aside(spec: &mut Spec) -> Vec<Arc<NewBlob>> {
    let whole = spec.input.take().map(|input| InputPart { name: None, source: InputSource::Value(input) });
    let is_whole = whole.is_some();
    spec.input_parts.extend(whole);
    let mut texts = Vec::new();
    for part in &spec.input_parts {
        if let InputSource::Value(value) = &part.source {
            texts.push(value.to_string());
        }
    }
    if texts.iter().map(String::len).sum::<usize>() <= limits::INPUT_BYTES {
        // Something else in it is large.
        if is_whole && let Some(InputPart { source: InputSource::Value(input), .. }) = spec.input_parts.pop()
        {
            spec.input = Some(input);
        }
        return Vec::new();
    }
    let blobs: Vec<_> = texts.into_iter().map(|text| Arc::new(NewBlob::new(text))).collect();
    let mut names = blobs.iter().map(|blob| blob.named());
    for part in &mut spec.input_parts {
        if matches!(part.source, InputSource::Value(_))
            && let Some(blob) = names.next()
        {
            part.source = InputSource::Json(blob);
        }
    }
    blobs
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::spec::Payload;

    fn spec(input: Value) -> Spec {
        Spec { input: Some(input), ..Spec::new(Payload::Noop) }
    }

    #[test]
    fn only_a_large_input_is_put_aside() {
        let small = PreparedSpec::new(spec(json!("x".repeat(limits::INPUT_BYTES - 100))));
        assert!(small.blobs.is_empty() && small.row().blobs.is_empty());
        let text = "x".repeat(limits::INPUT_BYTES);
        let large = PreparedSpec::new(spec(json!(text)));
        assert_eq!(large.blobs.len(), 1);
        assert_eq!(*large.blobs[0].text, *format!("\"{text}\""));
        assert_eq!(*large.row().blobs, [large.blobs[0].sha256]);
        assert!(large.body.len() < 300 && large.spec.has_input());
        // The same one is the same specification, and is kept once.
        assert_eq!(PreparedSpec::new(spec(json!(text))).hash, large.hash);
        let again = PreparedSpec::new(large.spec.clone());
        assert_eq!((again.hash, again.blobs.len()), (large.hash, 0));
    }

    #[test]
    fn a_large_payload_leaves_a_small_input_alone() {
        let payload = Payload::Shell { command: "x".repeat(limits::INPUT_BYTES) };
        let prepared = PreparedSpec::new(Spec { payload, ..spec(json!({"a": 1})) });
        assert!(prepared.blobs.is_empty() && prepared.spec.input_parts.is_empty());
        assert_eq!(prepared.spec.input, Some(json!({"a": 1})));
    }

    #[test]
    fn parts_that_are_large_together_are_put_aside_one_by_one() {
        let part = |text: &str| InputPart { name: Some("n".into()), source: InputSource::Value(json!(text)) };
        let half = "y".repeat(limits::INPUT_BYTES / 2 + 1);
        let parts = vec![part(&half), part("x")];
        let prepared = PreparedSpec::new(Spec { input_parts: parts.clone(), ..Spec::new(Payload::Noop) });
        assert!(prepared.blobs.is_empty());
        let parts = [parts, vec![part(&half)]].concat();
        let prepared = PreparedSpec::new(Spec { input_parts: parts, ..Spec::new(Payload::Noop) });
        assert_eq!(prepared.blobs.len(), 3);
        assert!(prepared.spec.input_parts.iter().all(|part| part.source.blob().is_some()));
        assert!(prepared.spec.input_parts.iter().all(|part| part.name.as_deref() == Some("n")));
    }
}
