//! What an attempt saves of its state, and what it asks of its master meanwhile.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::attempt::AttemptKey;
use crate::blob::BlobRef;
use crate::ids::CheckpointId;
use crate::limits;
use crate::lock::{LockFence, LockId, PathLock, Repository};
use crate::time::Wall;

/// Names that mark an attempt's begin and end in a task's history. They follow from the attempt's own
/// row, so that nothing is saved under them.
pub const MARKS: [&str; 2] = ["task_start", "task_complete"];

/// The bytes of a checkpoint: exactly what was saved.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// These, at most [`limits::CHECKPOINT_ROW_BYTES`]; in JSON as base64.
    #[serde(with = "in_base64")]
    Data(Arc<[u8]>),
    /// Elsewhere, at most [`limits::CHECKPOINT_BYTES`].
    Blob(BlobRef),
}

impl Content {
    /// How many there are.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Blob(blob) => blob.bytes,
        }
    }
}

/// Where a task's files were when it saved its state: a commit, and the reference that keeps it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Files {
    /// Its hash, in hexadecimal digits.
    pub commit: Box<str>,
    /// `refs/agentflow/checkpoints/…`
    pub reference: Box<str>,
}

/// A checkpoint to be made.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NewCheckpoint {
    /// What it is called; need not be new.
    pub name: Arc<str>,
    /// Whether the bytes are JSON.
    #[serde(default)]
    pub json: bool,
    /// The bytes.
    pub content: Content,
    /// The task's files, where it works in a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Box<Files>>,
}

impl NewCheckpoint {
    /// Checks what its sender may have got wrong.
    ///
    /// # Errors
    /// Says what is allowed.
    pub fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        let most = match self.content {
            Content::Data(_) => limits::CHECKPOINT_ROW_BYTES as u64,
            Content::Blob(_) => limits::CHECKPOINT_BYTES,
        };
        if self.content.bytes() > most {
            return Err(too_large(self.content.bytes()));
        }
        let is_clean = |text: &str| text.len() <= limits::PATH_BYTES && !text.chars().any(char::is_control);
        if self.files.as_ref().is_some_and(|files| !is_clean(&files.commit) || !is_clean(&files.reference)) {
            return Err("its commit and reference are no names".to_owned());
        }
        Ok(())
    }
}

/// Why so many bytes are no checkpoint, for people.
#[must_use]
pub fn too_large(bytes: u64) -> String {
    let most = limits::CHECKPOINT_BYTES;
    format!(
        "a checkpoint has at most {most} bytes, this one {bytes}; leave larger data as an artifact and save its hash"
    )
}

/// Checks the name of a checkpoint.
///
/// # Errors
/// Says what is allowed.
pub fn check_name(name: &str) -> Result<(), String> {
    if MARKS.contains(&name) {
        return Err(format!("'{name}' marks the begin or end of an attempt; choose another name"));
    }
    check_key(name)
}

/// Checks the name of a checkpoint or of an entry in a memory.
///
/// # Errors
/// Says what is allowed.
pub fn check_key(name: &str) -> Result<(), String> {
    let most = limits::NAME_BYTES;
    if name.is_empty() || name.len() > most || name.chars().any(char::is_control) || name.contains("..") {
        return Err(format!("allowed: a name of 1 to {most} bytes without control characters and '..'"));
    }
    Ok(())
}

/// What is kept of a checkpoint in memory while its task is live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeptCheckpoint {
    /// Which.
    pub id: CheckpointId,
    /// By which assignment; 0 if by no attempt.
    pub fence: crate::ids::Fence,
    /// The number that the attempt's worker gave it; 0 if none did.
    pub number: u64,
}

/// Where the next attempt of a task begins, if somebody has chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    /// At that checkpoint.
    At(CheckpointId),
    /// At the beginning.
    Beginning,
}

/// Whose memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// The task's.
    Task,
    /// That of the run that it is a part of.
    Run,
}

/// Something that a running attempt asks of its master. Numbers rise within a life of the worker; it
/// keeps what it asked until the answer is there, and asks again after a reconnect.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Ask {
    /// Its number, from 1.
    pub no: u64,
    /// Who asks.
    #[serde(flatten)]
    pub key: AttemptKey,
    /// What.
    #[serde(flatten)]
    pub body: AskBody,
}

/// What is asked.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum AskBody {
    /// Save this.
    Checkpoint(Box<NewCheckpoint>),
    /// Keep a value in mind.
    Remember {
        /// Whose.
        whose: Whose,
        /// Under that name.
        name: Arc<str>,
        /// JSON as text.
        value: Arc<str>,
        /// For so long; for ever when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl_ms: Option<u64>,
    },
    /// Forget a value, if it is there.
    Forget {
        /// Whose.
        whose: Whose,
        /// Which.
        name: Arc<str>,
    },
    /// Lock more files for this attempt.
    Lock(Box<LockAsk>),
    /// Give a lock back before the attempt ends.
    Unlock {
        /// Which.
        lock: LockId,
    },
}

/// More files that an attempt wants to lock.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LockAsk {
    /// In which repository.
    pub repo: Repository,
    /// Whether upper and lower case are the same in its paths.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore_case: bool,
    /// Which.
    pub paths: Vec<PathLock>,
    /// How long to wait for it; 0 is a try.
    #[serde(default)]
    pub wait_ms: u64,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub reason: Arc<str>,
}

/// A lock that an attempt has, as its worker is told.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeldLock {
    /// Its name.
    pub id: LockId,
    /// In which repository.
    pub repo: Repository,
    /// Its number there.
    pub fence: LockFence,
}

/// What became of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Given {
    /// The checkpoint that was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointId>,
    /// The lock that was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<HeldLock>,
    /// When.
    pub at: Wall,
}

mod in_base64 {
    use std::sync::Arc;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Arc<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&base64::display::Base64Display::new(bytes, &STANDARD))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[u8]>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map(Into::into).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::BlobHash;
    use crate::ids::{Attempt, Fence, TaskId};

    fn checkpoint(name: &str, content: Content) -> NewCheckpoint {
        NewCheckpoint { name: name.into(), json: false, content, files: None }
    }

    #[test]
    fn what_is_asked_survives_the_wire() {
        let key = AttemptKey { task: TaskId(5), attempt: Attempt(1), fence: Fence(2) };
        let blob = BlobRef { sha256: BlobHash::of(b"x"), bytes: 1 };
        let files = Some(Box::new(Files { commit: "ab12".into(), reference: "refs/x".into() }));
        let content = Content::Data(vec![0, 255, b'\n'].into());
        for body in [
            AskBody::Checkpoint(Box::new(NewCheckpoint { files, ..checkpoint("a", content) })),
            AskBody::Checkpoint(Box::new(checkpoint("b", Content::Blob(blob)))),
            AskBody::Remember {
                whose: Whose::Run,
                name: "k".into(),
                value: "{\"a\":1.50}".into(),
                ttl_ms: Some(5),
            },
            AskBody::Forget { whose: Whose::Task, name: "k".into() },
        ] {
            let ask = Ask { no: 7, key, body };
            let text = serde_json::to_string(&ask).expect("plain data");
            assert_eq!(serde_json::from_str::<Ask>(&text).ok(), Some(ask), "{text}");
        }
    }

    #[test]
    fn names_and_sizes_are_checked() {
        let data = |bytes: usize| Content::Data(vec![0; bytes].into());
        assert_eq!(checkpoint("step 5/é", data(limits::CHECKPOINT_ROW_BYTES)).check(), Ok(()));
        assert!(checkpoint("a", data(limits::CHECKPOINT_ROW_BYTES + 1)).check().is_err());
        let blob = |bytes| Content::Blob(BlobRef { sha256: BlobHash::of(b"x"), bytes });
        assert_eq!(checkpoint("a", blob(limits::CHECKPOINT_BYTES)).check(), Ok(()));
        let error = checkpoint("a", blob(limits::CHECKPOINT_BYTES + 1)).check().expect_err("too large");
        assert!(error.contains("16777216"), "{error}");
        for name in ["", "a\nb", "\u{7f}", "..", "../x", "a..b", "task_start", &"x".repeat(129)] {
            assert!(checkpoint(name, data(1)).check().is_err(), "{name:?}");
        }
    }
}
