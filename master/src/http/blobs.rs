//! Bytes by their hash, and the files that tasks leave.

use std::io::{self, Read};
use std::time::Duration;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use agentflow_actors::wall;
use agentflow_core::blob::{BlobHash, BlobRef};
use agentflow_core::ids::RunId;
use agentflow_core::limits;
use agentflow_protocol::Problem;
use agentflow_protocol::blobs::{ArtifactView, Artifacts, BlobView};
use agentflow_schema::{ArtifactRecord, BlobReader, PutError, Whose};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::answer::{Answered, Failure, json, ok};
use super::{read, runs, tasks};
use crate::state::Master;

/// Pieces of a body between the socket and the disk.
const PIECES: usize = 16;

/// How long the next piece of a body may take.
const PIECE_TIME: Duration = Duration::from_secs(30);

/// Bytes sent at once.
const STEP_BYTES: usize = 256 << 10;

/// Files on a page unless the client says otherwise.
const USUAL_PAGE: usize = 100;

/// Query of a listing of files.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ArtifactsQuery {
    /// 1 to 1,000; 100 when absent.
    limit: Option<usize>,
    /// From the page before.
    cursor: Option<String>,
}

/// What a store of bytes has refused.
pub(crate) fn failed(error: agentflow_schema::Error) -> Failure {
    if error.is_full() { Failure::disk_full() } else { error.into() }
}

fn hash(text: &str) -> Result<BlobHash, Failure> {
    text.parse().map_err(|error| Failure::new(422, "invalid", format!("'{text}' {error}")))
}

/// Keeps bytes under their hash; what nobody names goes after a day. The same bytes may come again.
#[utoipa::path(put, path = "/api/v2/blobs/{sha256}", tag = "blobs", params(("sha256" = String, Path)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, body = BlobView, description = "They are durable"),
        (status = 413, body = Problem, description = "More than 1 GiB"),
        (status = 422, body = Problem, description = "They have another hash, which is named")))]
pub(crate) async fn put(
    master: web::Data<Master>,
    request: HttpRequest,
    name: web::Path<String>,
    mut payload: web::Payload,
) -> Answered {
    read::no_query(&request)?;
    master.check_writable()?;
    let sha256 = hash(&name)?;
    let limit = limits::ARTIFACT_BYTES;
    if read::declared_length(&request).is_some_and(|length| length > limit) {
        read::discard(payload).await;
        return Err(too_large());
    }
    let (sender, receiver) = mpsc::channel(PIECES);
    let blobs = master.handles.blobs.clone();
    let kept = actix_rt::task::spawn_blocking(move || {
        let mut body = Body { receiver, piece: Bytes::new() };
        blobs.put(sha256, limit, &mut body, wall())
    });
    let arrived = async {
        loop {
            let piece = match actix_rt::time::timeout(PIECE_TIME, payload.next()).await {
                Ok(None) => break,
                Ok(Some(Ok(piece))) => Ok(piece),
                Ok(Some(Err(error))) => Err(io::Error::other(error.to_string())),
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "nothing came for 30 s")),
            };
            let is_over = piece.is_err();
            // Whoever writes has given up, and says below why.
            if sender.send(piece).await.is_err() || is_over {
                break;
            }
        }
        drop(sender);
        payload
    };
    let (payload, kept) = futures_util::future::join(arrived, kept).await;
    match kept.map_err(|error| Failure::internal(&error))? {
        Ok(blob) => json(StatusCode::CREATED, &BlobView { sha256: blob.sha256, bytes: blob.bytes }),
        Err(error) => {
            // A client that still writes would not see the answer.
            read::discard(payload).await;
            Err(match error {
                PutError::OtherHash(_) => Failure::new(422, "hash", error.to_string()),
                PutError::TooLarge(_) => too_large(),
                PutError::Source(_) => Failure::new(400, "malformed", error.to_string()),
                PutError::Store(error) => failed(error),
            })
        }
    }
}

fn too_large() -> Failure {
    Failure::too_large(usize::try_from(limits::ARTIFACT_BYTES).unwrap_or(usize::MAX))
}

/// A body as the writing thread reads it.
struct Body {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.piece = piece?,
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

/// Bytes that are kept.
#[utoipa::path(get, path = "/api/v2/blobs/{sha256}", tag = "blobs", params(("sha256" = String, Path)),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>), (status = 404, body = Problem)))]
pub(crate) async fn get(
    master: web::Data<Master>,
    request: HttpRequest,
    name: web::Path<String>,
) -> Answered {
    read::no_query(&request)?;
    let sha256 = hash(&name)?;
    let mut response = HttpResponse::Ok();
    // They can never be others.
    response.insert_header((header::CACHE_CONTROL, "private, max-age=31536000, immutable"));
    bytes(&master, sha256, response).await
}

/// The files of a task's latest attempt; of a `foreach` those of all its items.
#[utoipa::path(get, path = "/api/v2/tasks/{id}/artifacts", tag = "blobs", params(("id" = String, Path), ArtifactsQuery),
    responses((status = 200, body = Artifacts), (status = 404, body = Problem)))]
pub(crate) async fn of_task(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Answered {
    let query: ArtifactsQuery = read::query(&request)?;
    let id = read::task_id(&id)?;
    tasks::record(&master, id).await?;
    page(&master, Whose::Task(id), query).await
}

/// The files of all tasks of a run, those of their latest attempts.
#[utoipa::path(get, path = "/api/v2/runs/{id}/artifacts", tag = "blobs", params(("id" = String, Path), ArtifactsQuery),
    responses((status = 200, body = Artifacts), (status = 404, body = Problem)))]
pub(crate) async fn of_run(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Answered {
    let query: ArtifactsQuery = read::query(&request)?;
    let id: RunId = runs::run_id(&id)?;
    runs::record(&master, id).await?;
    page(&master, Whose::Run(id), query).await
}

async fn page(master: &Master, whose: Whose, query: ArtifactsQuery) -> Answered {
    let wrong =
        |text: &String| Failure::new(422, "query", format!("cursor: '{text}' is none of this listing"));
    let after = match &query.cursor {
        None => 0,
        Some(text) => text.strip_prefix('a').and_then(|id| id.parse().ok()).ok_or_else(|| wrong(text))?,
    };
    let limit = read::page_limit(query.limit, USUAL_PAGE)?;
    let (found, next) = master.read(move |readers| readers.artifacts(&whose, after, limit)).await?;
    ok(&Artifacts {
        artifacts: found.into_iter().map(view).collect(),
        next_cursor: next.map(|id| format!("a{id}")),
    })
}

fn view(record: ArtifactRecord) -> ArtifactView {
    ArtifactView {
        id: record.id,
        task_id: record.task.0,
        attempt: record.attempt.0,
        node: record.node,
        path: record.file.path.into(),
        sha256: record.file.blob.sha256,
        bytes: record.file.blob.bytes,
        executable: record.file.executable,
    }
}

/// One file.
#[utoipa::path(get, path = "/api/v2/artifacts/{id}", tag = "blobs", params(("id" = u64, Path)),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>), (status = 404, body = Problem)))]
pub(crate) async fn artifact(
    master: web::Data<Master>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Answered {
    read::no_query(&request)?;
    let unknown = || Failure::not_found(format!("there is no artifact '{id}'; an id is a number from 1"));
    let number = id.parse().ok().filter(|id| *id > 0).ok_or_else(unknown)?;
    let record = master.read(move |readers| readers.artifact(number)).await?.ok_or_else(unknown)?;
    let mut response = HttpResponse::Ok();
    let name = record.file.path.rsplit('/').next().unwrap_or_default().to_owned();
    response.insert_header(header::ContentDisposition {
        disposition: header::DispositionType::Attachment,
        parameters: vec![header::DispositionParam::FilenameExt(header::ExtendedValue {
            charset: header::Charset::Ext("UTF-8".to_owned()),
            language_tag: None,
            value: name.into_bytes(),
        })],
    });
    bytes(&master, record.file.blob.sha256, response).await
}

/// Answers with bytes, piece by piece.
async fn bytes(master: &Master, sha256: BlobHash, mut response: HttpResponseBuilder) -> Answered {
    let blobs = master.handles.blobs.clone();
    let found = web::block(move || blobs.open_blob(&sha256)).await??;
    let reader = found.ok_or_else(|| Failure::not_found(format!("there are no bytes {sha256}")))?;
    let size = reader.size();
    let pieces = unfold(Some(reader), |reader| async move {
        match web::block(move || piece(reader?)).await {
            Ok(Some(Ok((piece, reader)))) => Some((Ok(piece), Some(reader))),
            Ok(None) => None,
            Ok(Some(Err(error))) => Some((Err(Failure::from(error).into()), None)),
            Err(error) => Some((Err(Failure::from(error).into()), None)),
        }
    });
    Ok(response
        .content_type("application/octet-stream")
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::ETAG, format!("\"{sha256}\"")))
        .no_chunking(size)
        .streaming::<_, actix_web::Error>(pieces))
}

/// All the bytes of a small blob.
pub(crate) async fn whole(master: &Master, blob: BlobRef) -> Result<Vec<u8>, Failure> {
    let blobs = master.handles.blobs.clone();
    let read = web::block(move || -> Result<Vec<u8>, Failure> {
        let missing = || {
            log::error!("the blob {} is named and not kept", blob.sha256);
            let detail = format!("the {} bytes {} are not kept any more", blob.bytes, blob.sha256);
            Failure::new(500, "blob_missing", detail)
        };
        let mut reader = blobs.open_blob(&blob.sha256)?.ok_or_else(missing)?;
        let mut bytes = Vec::with_capacity(usize::try_from(reader.size()).unwrap_or_default());
        reader.read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    read.await?
}

/// The next bytes; `None` at the end.
fn piece(mut reader: BlobReader) -> Option<io::Result<(Bytes, BlobReader)>> {
    let mut buffer = vec![0; STEP_BYTES];
    match reader.read(&mut buffer) {
        Ok(0) => None,
        Ok(count) => {
            buffer.truncate(count);
            Some(Ok((buffer.into(), reader)))
        }
        Err(error) => Some(Err(error)),
    }
}
