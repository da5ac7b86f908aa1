//! What is kept of the parts of a node: the items of a `foreach`, the nodes of a child run.

use std::sync::Arc;

use serde_json::Value;

use super::table::Run;
use crate::batch::{Outcome, OutcomeChange};
use crate::blob::{Left, NewBlob};
use crate::kernel::Step;
use crate::limits;

/// What is kept of each item that has ended well, as JSON.
#[derive(Debug, Default)]
pub(super) struct Collected {
    items: Vec<Option<Box<str>>>,
    bytes: usize,
    /// Why it is not complete, by the first item of which that was known.
    trouble: Option<String>,
}

impl Collected {
    pub(super) fn new(items: usize) -> Self {
        Self { items: vec![None; items], ..Self::default() }
    }

    /// Keeps what one item left, or why that cannot be had.
    pub(super) fn keep(&mut self, item: u32, name: &str, left: Result<Box<str>, String>) {
        match left {
            Ok(text) if self.bytes + text.len() <= limits::COLLECTED_BYTES => {
                if let Some(place) = self.items.get_mut(item as usize) {
                    self.bytes += text.len() + 1;
                    *place = Some(text);
                }
            }
            Ok(_) => {
                let most = limits::COLLECTED_BYTES;
                let text = format!("all that is collected has more than {most} bytes; collect less of each");
                self.trouble.get_or_insert(text);
            }
            Err(error) => drop(self.trouble.get_or_insert(format!("{name}[{item}]: {error}"))),
        }
    }

    /// Everything as one list.
    ///
    /// # Errors
    /// Why it is not complete.
    pub(super) fn list(&mut self) -> Result<String, String> {
        if let Some(trouble) = self.trouble.take() {
            return Err(format!("collect: {trouble}"));
        }
        let mut text = String::with_capacity(self.bytes + 5 * self.items.len());
        text.push('[');
        for (at, item) in std::mem::take(&mut self.items).iter().enumerate() {
            if at > 0 {
                text.push(',');
            }
            text.push_str(item.as_deref().unwrap_or("null"));
        }
        text.push(']');
        Ok(text)
    }
}

impl Run {
    /// What its nodes put out, by their names; `None` if nothing. What is too large to be read is
    /// left out.
    ///
    /// # Errors
    /// It is too much.
    pub(super) fn all_outputs(&self) -> Result<Option<String>, String> {
        let mut nodes: Vec<_> = self.kept.iter().collect();
        nodes.sort_by_key(|(node, _)| **node);
        let mut text = String::new();
        for (node, kept) in nodes {
            let Some(outputs) = kept.outputs() else { continue };
            text.push(if text.is_empty() { '{' } else { ',' });
            text.push_str(&Value::from(self.name_of(*node)).to_string());
            text.push(':');
            text.push_str(outputs);
            if text.len() > limits::COLLECTED_BYTES {
                return Err(format!("its outputs have more than {} bytes", limits::COLLECTED_BYTES));
            }
        }
        text.push('}');
        Ok((text.len() > 1).then_some(text))
    }
}

/// The outcome of a node that consists of others; what is too large for its row is put aside.
pub(super) fn leaving(step: &mut Step, outputs: Option<String>) -> OutcomeChange {
    let mut outcome = Outcome::default();
    match outputs {
        Some(text) if text.len() > limits::OUTPUTS_BYTES => {
            let blob = Arc::new(NewBlob::new(text));
            let named = blob.named();
            let outputs_text = (named.bytes <= limits::READABLE_BYTES).then(|| Arc::clone(&blob.text));
            outcome.left = Some(Box::new(Left { outputs: Some(named), outputs_text, ..Left::default() }));
            step.batch.blobs.push(blob);
        }
        other => outcome.outputs = other.map(Into::into),
    }
    OutcomeChange::Set(Box::new(outcome))
}
