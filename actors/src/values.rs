//! Large values on their way into the kernel: outputs and results that are kept by their hash and that
//! expressions may read.
//!
//! Reading is bounded: what is larger than [`limits::READABLE_BYTES`], or comes when the budget is
//! used up, stays unread, and whoever reads it is told so.

use agentflow_core::attempt::{End, Finished, Report, ReportBody};
use agentflow_core::blob::{BlobRef, Left};
use agentflow_core::checkpoint::{Ask, AskBody, Content, Given};
use agentflow_core::limits;
use agentflow_core::rejection::Rejection;
use agentflow_core::spec::RetryOn;
use agentflow_schema::{Blobs, Error};

/// Whether the report of an attempt names blobs.
pub(crate) fn has_left(report: &Report) -> bool {
    left_of(report).is_some()
}

/// The blob that a checkpoint names.
pub(crate) fn named_by(ask: &Ask) -> Option<BlobRef> {
    match &ask.body {
        AskBody::Checkpoint(checkpoint) => match checkpoint.content {
            Content::Blob(blob) => Some(blob),
            Content::Data(_) => None,
        },
        AskBody::Remember { .. } | AskBody::Forget { .. } | AskBody::Lock(_) | AskBody::Unlock { .. } => None,
    }
}

/// What cannot be done, by its number.
type Refused = Vec<(u64, Result<Given, Rejection>)>;

/// Takes out what names bytes that are not kept.
pub(crate) fn without_missing(blobs: &Blobs, asks: Vec<Ask>) -> Result<(Vec<Ask>, Refused), Error> {
    let (mut there, mut missing) = (Vec::with_capacity(asks.len()), Vec::new());
    for ask in asks {
        match named_by(&ask) {
            Some(blob) if !is_kept(blobs, &blob)? => {
                let text = format!("the master does not have the {} bytes {}", blob.bytes, blob.sha256);
                missing.push((ask.no, Err(Rejection::Malformed(text))));
            }
            _ => there.push(ask),
        }
    }
    Ok((there, missing))
}

fn is_kept(blobs: &Blobs, blob: &BlobRef) -> Result<bool, Error> {
    Ok(blobs.open_blob(&blob.sha256)?.is_some_and(|found| found.size() == blob.bytes))
}

fn left_of(report: &Report) -> Option<&Left> {
    match &report.body {
        ReportBody::Finished(finished) => finished.outcome.left.as_deref(),
        ReportBody::Started { .. } | ReportBody::Returned {} => None,
    }
}

/// Reads what reports name. An attempt that names what is not kept has failed: nobody could read it.
pub(crate) fn read_reports(blobs: &Blobs, reports: &mut [Report]) -> Result<(), Error> {
    let mut budget = limits::HELD_BYTES;
    for report in reports {
        let ReportBody::Finished(finished) = &mut report.body else { continue };
        let Some(left) = &mut finished.outcome.left else { continue };
        if let Some(blob) = missing(blobs, left)? {
            log::error!("task {}: the blob {} is not kept", report.key.task, blob.sha256);
            fail(finished, blob);
        } else {
            read(blobs, left, &mut budget)?;
        }
    }
    Ok(())
}

fn missing(blobs: &Blobs, left: &Left) -> Result<Option<BlobRef>, Error> {
    for blob in left.blobs() {
        if !is_kept(blobs, &blob)? {
            return Ok(Some(blob));
        }
    }
    Ok(None)
}

fn fail(finished: &mut Finished, blob: BlobRef) {
    finished.outcome.left = None;
    if finished.end == End::Completed {
        finished.end = End::Failed(RetryOn::Error);
    }
    let text = format!("the master does not have the {} bytes {} that it left", blob.bytes, blob.sha256);
    finished.outcome.error.get_or_insert_with(|| text.into());
}

/// Reads the values that one attempt left.
pub(crate) fn read(blobs: &Blobs, left: &mut Left, budget: &mut u64) -> Result<(), Error> {
    for (blob, text) in [(left.result, &mut left.result_text), (left.outputs, &mut left.outputs_text)] {
        let Some(blob) = blob.filter(|blob| blob.bytes <= limits::READABLE_BYTES.min(*budget)) else {
            continue;
        };
        *text = blobs.text(&blob.sha256)?.map(Into::into);
        if text.is_none() {
            log::error!("the blob {} is named and not kept", blob.sha256);
        }
        *budget -= blob.bytes;
    }
    Ok(())
}
