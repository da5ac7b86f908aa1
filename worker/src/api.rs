//! Requests to the masters beside the link: bytes by their hash, lists of files, the warden's notice.
//!
//! Owns: which of several masters is asked, how often and how long. These calls wait, so they are
//! made by slots' threads and by the warden, never by the daemon.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use agentflow_core::blob::{BlobHash, BlobRef};
use agentflow_core::ids::{CheckpointId, TaskId};
use agentflow_core::limits;
use agentflow_protocol::Problem;
use agentflow_protocol::blobs::{ArtifactView, Artifacts};
use agentflow_protocol::percent::decode;
use agentflow_protocol::saved::{CHECKPOINT_COMMIT, CHECKPOINT_NAME, CHECKPOINT_REFERENCE};
use sha2::{Digest, Sha256};
use ureq::http::Response;
use ureq::{Agent, Body};

/// For connecting, and for the beginning of an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// For a body: the largest one on a slow line.
const BODY_TIMEOUT: Duration = Duration::from_secs(3_600);

/// The longest pause between two rounds over all masters.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Between two looks at whether the pause is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// Other addresses that one request may be sent on to.
const REDIRECTS: u32 = 3;

/// How often a body that breaks off, or that changes while it is read, is begun again.
const BODIES: u32 = 5;

/// Bytes of an answer that is JSON: a page of files with long paths.
const JSON_BYTES: u64 = 4 << 20;

/// How long the masters are tried, and what else ends it.
pub(crate) struct Patience<'a> {
    /// After so long.
    pub(crate) time: Duration,
    /// When this says so.
    pub(crate) is_over: &'a dyn Fn() -> bool,
}

/// Why a request came to nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failed {
    /// A master has answered, and asking again would not help.
    #[error("the master answered {0}: {1}")]
    Refused(u16, String),
    /// None could be reached in time.
    #[error("no master could be asked: {0}")]
    Unreachable(String),
    /// Something on this machine.
    #[error("{0}")]
    Here(String),
}

/// What a checkpoint is beside its bytes.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) name: String,
    /// The commit of the task's files, and the reference that keeps it.
    pub(crate) files: Option<(String, String)>,
}

/// What is sent.
enum Send<'a> {
    Nothing,
    Json(&'a str),
    File(&'a File, u64),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Api {
    agent: Agent,
    masters: Vec<String>,
    token_file: Option<PathBuf>,
    /// The master that answered last.
    turn: AtomicUsize,
}

impl Api {
    pub(crate) fn new(masters: Vec<String>, token_file: Option<PathBuf>) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(TIMEOUT))
            .timeout_recv_response(Some(TIMEOUT))
            .timeout_send_body(Some(BODY_TIMEOUT))
            .timeout_recv_body(Some(BODY_TIMEOUT))
            .build();
        Self { agent: config.into(), masters, token_file, turn: AtomicUsize::new(0) }
    }

    /// Tells something to a master.
    pub(crate) fn post(&self, path: &str, json: &str, patience: &Patience<'_>) -> Result<(), Failed> {
        self.ask(path, &Send::Json(json), patience).map(drop)
    }

    /// Has a file kept. It may be written to meanwhile: then it is read again.
    pub(crate) fn put(&self, file: &File, patience: &Patience<'_>) -> Result<BlobRef, Failed> {
        let mut last = String::new();
        for _ in 0..BODIES {
            let blob = hash(file).map_err(|error| Failed::Here(format!("it cannot be read: {error}")))?;
            if blob.bytes > limits::ARTIFACT_BYTES {
                let (have, most) = (blob.bytes, limits::ARTIFACT_BYTES);
                return Err(Failed::Here(format!("it has {have} bytes; at most {most}")));
            }
            rewind(file).map_err(|error| Failed::Here(error.to_string()))?;
            let path = format!("/api/v2/blobs/{}", blob.sha256);
            match self.ask(&path, &Send::File(file, blob.bytes), patience) {
                Ok(_) => return Ok(blob),
                // Others arrived than those that were announced.
                Err(Failed::Refused(422 | 400, text)) => last = text,
                Err(failed) => return Err(failed),
            }
        }
        Err(Failed::Here(format!("it changes while it is read: {last}")))
    }

    /// Writes bytes that a master keeps; they are whole then.
    pub(crate) fn get(
        &self,
        sha256: &BlobHash,
        into: &mut File,
        patience: &Patience<'_>,
    ) -> Result<(), Failed> {
        let mut last = String::new();
        for _ in 0..BODIES {
            let answer = self.ask(&format!("/api/v2/blobs/{sha256}"), &Send::Nothing, patience)?;
            let restart = rewind(into).and_then(|()| into.set_len(0));
            restart.map_err(|error| Failed::Here(error.to_string()))?;
            match copy(&mut answer.into_body().into_reader(), into) {
                Ok(arrived) if arrived.sha256 == *sha256 => return Ok(()),
                Ok(arrived) => last = format!("the bytes have the SHA-256 {}", arrived.sha256),
                Err(Copying::Write(error)) => return Err(Failed::Here(error.to_string())),
                Err(Copying::Read(error)) => last = error.to_string(),
            }
        }
        Err(Failed::Unreachable(last))
    }

    /// The text at a path, at most 4 MiB.
    pub(crate) fn text(&self, path: &str, patience: &Patience<'_>) -> Result<String, Failed> {
        let mut answer = self.ask(path, &Send::Nothing, patience)?;
        let text = answer.body_mut().with_config().limit(JSON_BYTES).read_to_string();
        text.map_err(|error| Failed::Unreachable(error.to_string()))
    }

    /// Writes the bytes of a checkpoint, and gives back what else it is.
    pub(crate) fn checkpoint(
        &self,
        id: CheckpointId,
        into: &mut File,
        patience: &Patience<'_>,
    ) -> Result<Found, Failed> {
        let mut last = String::new();
        for _ in 0..BODIES {
            let answer = self.ask(&format!("/api/v2/checkpoints/{id}/data"), &Send::Nothing, patience)?;
            let header = |name| {
                let value = answer.headers().get(name)?.to_str().ok()?;
                Some(decode(value).into_owned())
            };
            let files = header(CHECKPOINT_COMMIT).zip(header(CHECKPOINT_REFERENCE));
            let found = Found { name: header(CHECKPOINT_NAME).unwrap_or_default(), files };
            let restart = rewind(into).and_then(|()| into.set_len(0));
            restart.map_err(|error| Failed::Here(error.to_string()))?;
            match copy(&mut answer.into_body().into_reader(), into) {
                Ok(_) => return Ok(found),
                Err(Copying::Write(error)) => return Err(Failed::Here(error.to_string())),
                Err(Copying::Read(error)) => last = error.to_string(),
            }
        }
        Err(Failed::Unreachable(last))
    }

    /// The files of a task.
    pub(crate) fn artifacts(
        &self,
        task: TaskId,
        most: usize,
        patience: &Patience<'_>,
    ) -> Result<Vec<ArtifactView>, Failed> {
        let mut found = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/api/v2/tasks/{task}/artifacts?limit={}{cursor}", limits::PAGE);
            let text = self.text(&path, patience)?;
            let page: Artifacts =
                serde_json::from_str(&text).map_err(|error| Failed::Here(error.to_string()))?;
            found.extend(page.artifacts);
            if found.len() > most {
                return Err(Failed::Here(format!("there are more than {most} files")));
            }
            match page.next_cursor {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(found),
            }
        }
    }

    /// Asks one master after the other until one answers.
    fn ask(&self, path: &str, send: &Send<'_>, patience: &Patience<'_>) -> Result<Response<Body>, Failed> {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(100);
        loop {
            let mut last = String::new();
            for _ in 0..self.masters.len() {
                let turn = self.turn.load(Ordering::Relaxed);
                match self.follow(&self.masters[turn % self.masters.len()], path, send) {
                    Err(Failed::Unreachable(error)) => last = error,
                    other => return other,
                }
                self.turn.store(turn + 1, Ordering::Relaxed);
            }
            let until = Instant::now() + pause;
            while Instant::now() < until {
                if (patience.is_over)() || begun.elapsed() > patience.time {
                    return Err(Failed::Unreachable(last));
                }
                std::thread::sleep(LOOK);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn follow(&self, master: &str, path: &str, send: &Send<'_>) -> Result<Response<Body>, Failed> {
        let mut url = format!("{}{path}", master.trim_end_matches('/'));
        for _ in 0..=REDIRECTS {
            let mut answer =
                self.send(&url, send).map_err(|error| Failed::Unreachable(format!("{master}: {error}")))?;
            let status = answer.status().as_u16();
            match status {
                200..=299 => return Ok(answer),
                307 | 308 => {
                    let location = answer.headers().get("location").and_then(|value| value.to_str().ok());
                    let Some(location) = location else {
                        return Err(Failed::Unreachable(format!("{master}: {status} without a location")));
                    };
                    url = location.to_owned();
                }
                408 | 429 | 500..=599 => {
                    return Err(Failed::Unreachable(format!("{master} answered {}", detail(&mut answer))));
                }
                _ => return Err(Failed::Refused(status, detail(&mut answer))),
            }
        }
        Err(Failed::Unreachable(format!("{master} points on to {url} without end")))
    }

    fn send(&self, url: &str, send: &Send<'_>) -> Result<Response<Body>, ureq::Error> {
        // Read each time, so that a token can be changed while the worker runs.
        let token = self.token_file.as_deref().map(crate::notice::read_token).transpose();
        let token = token.map_err(|error| ureq::Error::Io(io::Error::other(error)))?;
        let bearer = token.map(|token| format!("Bearer {token}"));
        match send {
            Send::Nothing => {
                let request = self.agent.get(url);
                match &bearer {
                    Some(bearer) => request.header("authorization", bearer).call(),
                    None => request.call(),
                }
            }
            Send::Json(json) => {
                let request = self.agent.post(url).content_type("application/json");
                match &bearer {
                    Some(bearer) => request.header("authorization", bearer).send(*json),
                    None => request.send(*json),
                }
            }
            Send::File(file, bytes) => {
                rewind(file).map_err(ureq::Error::Io)?;
                let request = self.agent.put(url).content_type("application/octet-stream");
                let request = request.header("content-length", bytes.to_string());
                let request = match &bearer {
                    Some(bearer) => request.header("authorization", bearer),
                    None => request,
                };
                let mut body = file.take(*bytes);
                request.send(ureq::SendBody::from_reader(&mut body))
            }
        }
    }
}

/// What a master says is wrong.
fn detail(answer: &mut Response<Body>) -> String {
    let status = answer.status();
    let text = answer.body_mut().with_config().limit(JSON_BYTES).read_to_string().unwrap_or_default();
    match serde_json::from_str::<Problem>(&text) {
        Ok(problem) => problem.detail,
        Err(_) => status.to_string(),
    }
}

fn rewind(file: &File) -> io::Result<()> {
    let mut file = file;
    io::Seek::rewind(&mut file)
}

/// The hash and length of a whole file.
fn hash(file: &File) -> io::Result<BlobRef> {
    rewind(file)?;
    copy(&mut { file }, &mut io::sink()).map_err(|error| match error {
        Copying::Read(error) | Copying::Write(error) => error,
    })
}

enum Copying {
    Read(io::Error),
    Write(io::Error),
}

/// Copies to the end, and says what it was.
fn copy(from: &mut impl Read, into: &mut impl Write) -> Result<BlobRef, Copying> {
    let mut hasher = Sha256::new();
    let mut bytes = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(BlobRef { sha256: BlobHash(hasher.finalize().into()), bytes }),
            Ok(count) => {
                bytes += count as u64;
                hasher.update(&buffer[..count]);
                into.write_all(&buffer[..count]).map_err(Copying::Write)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Copying::Read(error)),
        }
    }
}
