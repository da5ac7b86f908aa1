//! Bytes that are kept by their hash beside the rows: values too large for a row, and the files that
//! tasks leave.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// SHA-256 of some bytes; in JSON and in paths 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobHash(pub [u8; 32]);

/// A text that is no [`BlobHash`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("is no SHA-256; write 64 hexadecimal digits in lower case")]
pub struct NoBlobHash;

impl BlobHash {
    /// That of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BlobHash {
    type Err = NoBlobHash;

    fn from_str(text: &str) -> Result<Self, NoBlobHash> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(NoBlobHash),
        };
        let digits: &[u8; 64] = text.as_bytes().try_into().map_err(|_| NoBlobHash)?;
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(hash))
    }
}

impl Serialize for BlobHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlobHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(|error| serde::de::Error::custom(format!("'{text}' {error}")))
    }
}

/// Bytes that are kept elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BlobRef {
    /// Which.
    pub sha256: BlobHash,
    /// How many.
    pub bytes: u64,
}

/// Bytes that have to be kept before what names them is.
#[derive(Clone, PartialEq, Debug)]
pub struct NewBlob {
    /// Their hash.
    pub sha256: BlobHash,
    /// A text: everything that a kernel makes is.
    pub text: Arc<str>,
}

impl NewBlob {
    /// Hashes a text; about 1 ms per MiB.
    #[must_use]
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        let text = text.into();
        Self { sha256: BlobHash::of(text.as_bytes()), text }
    }

    /// How it is named.
    #[must_use]
    pub fn named(&self) -> BlobRef {
        BlobRef { sha256: self.sha256, bytes: self.text.len() as u64 }
    }
}

/// A file that an attempt left.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Artifact {
    /// Relative to the task's directory, with `/`; never `..`.
    pub path: Box<str>,
    /// Its content.
    #[serde(flatten)]
    pub blob: BlobRef,
    /// Whether it may be run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

/// What an attempt left beside its row.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Left {
    /// All of its output, where that is more than [`crate::limits::RESULT_BYTES`]. Not always UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<BlobRef>,
    /// Its outputs as JSON, where they are more than [`crate::limits::OUTPUTS_BYTES`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outputs: Option<BlobRef>,
    /// Its files, in the order of their paths.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// The text of [`Left::result`], once somebody has read it: at most
    /// [`crate::limits::READABLE_BYTES`].
    #[serde(skip)]
    pub result_text: Option<Arc<str>>,
    /// That of [`Left::outputs`].
    #[serde(skip)]
    pub outputs_text: Option<Arc<str>>,
}

impl Left {
    /// Bytes of the texts that were read.
    #[must_use]
    pub fn held(&self) -> u64 {
        let texts = self.result_text.iter().chain(&self.outputs_text);
        texts.map(|text| text.len() as u64).sum()
    }

    /// As it was before anybody read it.
    pub fn forget_texts(&mut self) {
        self.result_text = None;
        self.outputs_text = None;
    }

    /// Every blob that it names.
    pub fn blobs(&self) -> impl Iterator<Item = BlobRef> + '_ {
        let files = self.artifacts.iter().map(|artifact| artifact.blob);
        self.result.into_iter().chain(self.outputs).chain(files)
    }
}

/// The outputs of a task, wherever they are.
#[derive(Clone, PartialEq, Debug)]
pub enum Outputs {
    /// As JSON text.
    Text(Box<str>),
    /// Elsewhere.
    Blob(BlobRef),
}

/// Where a part of a task's input comes from.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct InputPart {
    /// What it is called among the others if it is no object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Box<str>>,
    /// What it is.
    #[serde(flatten)]
    pub source: InputSource,
}

/// What a part of an input is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputSource {
    /// This.
    Value(serde_json::Value),
    /// The JSON that a blob holds.
    Json(BlobRef),
    /// The text that a blob holds, without the line end at its end.
    Text(BlobRef),
}

impl InputSource {
    /// The blob that it names, if it does.
    #[must_use]
    pub fn blob(&self) -> Option<BlobRef> {
        match self {
            Self::Value(_) => None,
            Self::Json(blob) | Self::Text(blob) => Some(*blob),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_as_it_is_written() {
        let hash = BlobHash::of(b"abc");
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.to_string(), text);
        assert_eq!(text.parse(), Ok(hash));
        assert_eq!(text.to_uppercase().parse::<BlobHash>(), Err(NoBlobHash));
        assert_eq!(text[1..].parse::<BlobHash>(), Err(NoBlobHash));
        assert_eq!(format!("{}g", &text[1..]).parse::<BlobHash>(), Err(NoBlobHash));
    }

    #[test]
    fn parts_of_an_input_survive_their_text() {
        let blob = BlobRef { sha256: BlobHash::of(b"{}"), bytes: 2 };
        for source in
            [InputSource::Value(serde_json::json!([1])), InputSource::Json(blob), InputSource::Text(blob)]
        {
            let part = InputPart { name: Some("5".into()), source };
            let text = serde_json::to_string(&part).expect("plain data");
            assert_eq!(serde_json::from_str::<InputPart>(&text).ok(), Some(part), "{text}");
        }
    }
}
