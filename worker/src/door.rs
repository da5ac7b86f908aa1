//! The Unix socket on which running attempts speak to their master.
//!
//! ```text
//! process ──line──► Door ──Who──► Daemon
//!                     │ ──bytes──► master (large ones first, by their hash)
//!                     │ ──Question──► Daemon ──► link
//!         ◄──line──── Said ◄──────── answer, once it is durable
//! ```
//!
//! One listener for all attempts; the key in each line says which one speaks. Lines of a connection are
//! answered in their order. Connections, long lines and waiting threads are bounded: who comes beyond
//! the bound waits.

mod locks;

use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Addr, Message};
use agentflow_core::checkpoint::{Content, Files, NewCheckpoint, Whose, check_name, too_large};
use agentflow_core::ids::RunId;
use agentflow_core::limits;
use agentflow_core::spec::Spec;
use agentflow_protocol::Problem;
use agentflow_protocol::inside::{LINE_BYTES, Line, Said};
use agentflow_protocol::percent::encode;
use agentflow_protocol::problem::read_json;
use agentflow_protocol::worker::{AskBody, AttemptKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use crate::api::{Api, Failed, Patience};
use crate::asks::Answer;
use crate::control::Control;
use crate::daemon::Daemon;
use crate::locks::Locks;
use crate::place::Place;

/// Longer lines are read one by one, and off this thread.
const SHORT_BYTES: usize = 128 << 10;

/// Long lines in memory at once: 4 of 22 MiB.
const LONG_LINES: usize = 4;

/// Threads that wait for a master at once.
const WAITING: usize = 16;

/// Connections beside 8 for each slot.
const CONNECTIONS: usize = 64;

/// How long a master is tried for what can be asked again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which attempt has that key?
#[derive(Message, Debug)]
#[rtype(result = "Option<Caller>")]
pub(crate) struct Who(pub(crate) String);

/// An attempt that speaks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) key: AttemptKey,
    pub(crate) run: Option<RunId>,
    pub(crate) spec: Arc<Spec>,
    pub(crate) control: Arc<Control>,
    pub(crate) place: Arc<Place>,
    pub(crate) locks: Arc<Locks>,
}

/// Ask the master something.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub(crate) struct Question {
    pub(crate) key: AttemptKey,
    pub(crate) body: AskBody,
    pub(crate) waits: oneshot::Sender<Answer>,
}

/// How far an attempt is.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub(crate) struct Tell {
    pub(crate) key: AttemptKey,
    pub(crate) percent: f32,
    pub(crate) message: String,
}

/// Say something in an attempt's output.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub(crate) struct Note {
    pub(crate) key: AttemptKey,
    pub(crate) text: String,
}

/// See the module.
pub(crate) struct Door {
    daemon: Addr<Daemon>,
    api: Arc<Api>,
    /// For bytes on their way.
    scratch: PathBuf,
    connections: Arc<Semaphore>,
    long_lines: Semaphore,
    waiting: Semaphore,
}

/// Opens the socket: only this user may connect.
pub(crate) fn listen(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Door {
    pub(crate) fn new(daemon: Addr<Daemon>, api: Arc<Api>, scratch: PathBuf, slots: u32) -> Self {
        let connections = CONNECTIONS + 8 * usize::try_from(slots).unwrap_or(0);
        Self {
            daemon,
            api,
            scratch,
            connections: Arc::new(Semaphore::new(connections)),
            long_lines: Semaphore::new(LONG_LINES),
            waiting: Semaphore::new(WAITING),
        }
    }

    /// Serves the socket for as long as the thread lives.
    pub(crate) async fn serve(self: Rc<Self>, listener: std::os::unix::net::UnixListener) {
        let listener = match UnixListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return log::error!("attempts cannot speak to their master: {error}"),
        };
        loop {
            let Ok(permit) = Arc::clone(&self.connections).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let door = Rc::clone(&self);
                    actix_rt::spawn(async move {
                        // A process that goes away in the middle is no event.
                        if let Err(error) = door.converse(stream).await {
                            log::debug!("a connection of an attempt: {error}");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    log::warn!("a connection of an attempt was not taken: {error}");
                    actix_rt::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn converse(&self, stream: UnixStream) -> io::Result<()> {
        let (reading, mut writing) = stream.into_split();
        let mut reader = BufReader::with_capacity(16 << 10, reading);
        loop {
            let mut line = Vec::new();
            let mut permit = None;
            (&mut reader).take(SHORT_BYTES as u64).read_until(b'\n', &mut line).await?;
            if line.len() == SHORT_BYTES && line.last() != Some(&b'\n') {
                permit = self.long_lines.acquire().await.ok();
                let more = (LINE_BYTES - SHORT_BYTES) as u64 + 1;
                (&mut reader).take(more).read_until(b'\n', &mut line).await?;
            }
            if line.is_empty() {
                return Ok(());
            }
            let is_too_long = line.len() > LINE_BYTES;
            let said = if is_too_long {
                Said::from(Problem::new(413, "too_large", too_large(line.len() as u64)))
            } else {
                self.answer(line, permit, writing.as_ref()).await.unwrap_or_else(Said::from)
            };
            let mut text = serde_json::to_vec(&said).unwrap_or_default();
            text.push(b'\n');
            writing.write_all(&text).await?;
            if is_too_long {
                return Ok(());
            }
        }
    }

    /// Does what a line says. `permit` is that of a long one.
    async fn answer(
        &self,
        line: Vec<u8>,
        permit: Option<SemaphorePermit<'_>>,
        peer: &UnixStream,
    ) -> Result<Said, Problem> {
        let line: Line = match line.len() < SHORT_BYTES {
            true => read_json(&line)?,
            false => self.aside(move || read_json(&line)).await??,
        };
        let caller = self.daemon.send(Who(line.key.clone())).await.map_err(|_| leaving())?;
        let caller = caller.ok_or_else(|| {
            let detail = "no attempt with this key runs here: it has ended, or another has taken over";
            Problem::new(409, "stale", detail)
        })?;
        match line.op.as_str() {
            "checkpoint" => self.checkpoint(caller, line).await,
            "remember" => {
                let value = line.value.ok_or_else(|| Line::wrong("value", "is missing"))?;
                let (whose, name) = (whose(line.run), named(line.name)?);
                let value = value.get().into();
                self.ask(caller.key, AskBody::Remember { whose, name, value, ttl_ms: line.ttl_ms }).await
            }
            "forget" => {
                let (whose, name) = (whose(line.run), named(line.name)?);
                self.ask(caller.key, AskBody::Forget { whose, name }).await
            }
            "recall" => self.recall(caller, line.run, line.name).await,
            "lock" => {
                let ask = line.lock_ask(caller.key.task)?;
                // It may wait for long, and is short by now.
                drop(permit);
                self.lock(&caller, ask, peer).await
            }
            "unlock" => {
                let id = line.lock.ok_or_else(|| Line::wrong("lock", "is missing"))?;
                self.unlock(&caller, id.parse().map_err(|why: &str| Line::wrong("lock", why))?).await
            }
            "progress" => self.progress(&caller, line),
            other => {
                let allowed = "allowed: checkpoint, remember, recall, forget, lock, unlock, progress";
                Err(Line::wrong("op", format!("'{other}' is unknown; {allowed}")))
            }
        }
    }

    /// Asks the master, and waits until it is durable.
    async fn ask(&self, key: AttemptKey, body: AskBody) -> Result<Said, Problem> {
        let (waits, answer) = oneshot::channel();
        self.daemon.do_send(Question { key, body, waits });
        let given = answer.await.map_err(|_| leaving())??;
        Ok(Said { checkpoint: given.checkpoint.map(|id| id.0), ..Said::default() })
    }

    async fn checkpoint(&self, caller: Caller, line: Line) -> Result<Said, Problem> {
        let name = named(line.name)?;
        let (bytes, json) = match (line.data, line.data_base64) {
            (Some(_), Some(_)) => {
                return Err(Line::wrong("data_base64", "stands beside data; give one of them"));
            }
            (Some(data), None) => (String::from(Box::<str>::from(data)).into_bytes(), true),
            (None, None) => (b"null".to_vec(), true),
            (None, Some(text)) => self.aside_if(text.len() > SHORT_BYTES, move || decode(&text)).await??,
        };
        check_name(&name).map_err(|why| Line::wrong("name", why))?;
        let content = self.content(&caller, bytes).await?;
        let files = self.files(&caller, &name).await?;
        let checkpoint = NewCheckpoint { name, json, content, files };
        self.ask(caller.key, AskBody::Checkpoint(Box::new(checkpoint))).await
    }

    /// The task's files, where it has a worktree: a commit that another worker can have.
    async fn files(&self, caller: &Caller, name: &str) -> Result<Option<Box<Files>>, Problem> {
        if caller.spec.worktree.is_none() {
            return Ok(None);
        }
        let message = message(caller.key, name);
        let (spec, control, place) =
            (Arc::clone(&caller.spec), Arc::clone(&caller.control), Arc::clone(&caller.place));
        let taken = self.aside(move || {
            let cancelled = || control.stopped().is_some();
            let files = place.snapshot(&spec, &message, &cancelled)?;
            let warning = files.as_deref().and_then(|files| place.warning(files, &cancelled));
            Ok((files, warning))
        });
        let (files, warning) = taken.await?.map_err(|why: String| {
            Problem::new(409, "files", format!("the task's files are not saved: {why}"))
        })?;
        if let Some(text) = warning {
            self.daemon.do_send(Note { key: caller.key, text });
        }
        Ok(files)
    }

    /// Bytes as they are sent: large ones are kept by the master first.
    async fn content(&self, caller: &Caller, bytes: Vec<u8>) -> Result<Content, Problem> {
        if bytes.len() as u64 > limits::CHECKPOINT_BYTES {
            return Err(Problem::new(413, "too_large", too_large(bytes.len() as u64)));
        }
        if bytes.len() <= limits::CHECKPOINT_ROW_BYTES {
            return Ok(Content::Data(bytes.into()));
        }
        let (api, scratch, control) =
            (Arc::clone(&self.api), self.scratch.clone(), Arc::clone(&caller.control));
        self.aside(move || keep(&api, &scratch, &control, &bytes)).await?.map(Content::Blob)
    }

    async fn recall(&self, caller: Caller, of_run: bool, name: Option<String>) -> Result<Said, Problem> {
        let owner = match (of_run, caller.run) {
            (false, _) => format!("tasks/{}", caller.key.task),
            (true, Some(run)) => format!("runs/{run}"),
            (true, None) => {
                return Err(Problem::new(409, "conflict", "the task is no part of a run"));
            }
        };
        let (api, control) = (Arc::clone(&self.api), caller.control);
        self.aside(move || {
            let is_over = || control.stopped().is_some();
            let patience = Patience { time: PATIENCE, is_over: &is_over };
            recall(&api, &owner, name.as_deref(), &patience)
        })
        .await?
    }

    fn progress(&self, caller: &Caller, line: Line) -> Result<Said, Problem> {
        let percent = line.percent.filter(|percent| (0.0..=100.0).contains(percent));
        let percent = percent.ok_or_else(|| Line::wrong("percent", "is missing, or not 0 to 100"))?;
        let message = line.message.unwrap_or_default();
        self.daemon.do_send(Tell { key: caller.key, percent, message });
        Ok(Said::default())
    }

    /// Does something that takes a while on another thread.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let _permit = self.waiting.acquire().await.map_err(|_| leaving())?;
        let done = actix_rt::task::spawn_blocking(work).await;
        done.map_err(|error| Problem::new(500, "internal", error.to_string()))
    }

    async fn aside_if<T: Send + 'static>(
        &self,
        takes_long: bool,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        if takes_long { self.aside(work).await } else { Ok(work()) }
    }
}

fn leaving() -> Problem {
    Problem::new(503, "stopping", "the worker is leaving")
}

fn whose(of_run: bool) -> Whose {
    if of_run { Whose::Run } else { Whose::Task }
}

fn named(name: Option<String>) -> Result<Arc<str>, Problem> {
    name.map(Into::into).ok_or_else(|| Line::wrong("name", "is missing"))
}

/// What the commit of a checkpoint says.
pub(crate) fn message(key: AttemptKey, name: &str) -> String {
    format!("{name}\n\nCheckpoint of task {}, attempt {}.", key.task, key.attempt)
}

/// Bytes from base64, and whether they are JSON.
fn decode(text: &str) -> Result<(Vec<u8>, bool), Problem> {
    let bytes = STANDARD.decode(text);
    let bytes = bytes.map_err(|error| Line::wrong("data_base64", format!("is no base64: {error}")))?;
    let json = is_json(&bytes);
    Ok((bytes, json))
}

/// Whether bytes are one JSON text.
pub(crate) fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

/// Has bytes kept by the master.
pub(crate) fn keep(
    api: &Api,
    scratch: &Path,
    control: &Control,
    bytes: &[u8],
) -> Result<agentflow_core::blob::BlobRef, Problem> {
    let file = (|| -> io::Result<File> {
        let mut file = tempfile::tempfile_in(scratch)?;
        io::Write::write_all(&mut file, bytes)?;
        Ok(file)
    })();
    let file = file.map_err(|error| Problem::new(507, "disk", format!("on the worker: {error}")))?;
    let is_over = || control.stopped().is_some();
    api.put(&file, &Patience { time: PATIENCE, is_over: &is_over }).map_err(problem)
}

fn recall(api: &Api, owner: &str, name: Option<&str>, patience: &Patience<'_>) -> Result<Said, Problem> {
    let path = match name {
        Some(name) => format!("/api/v2/{owner}/memory/{}", encode(name)),
        None => format!("/api/v2/{owner}/memory"),
    };
    let text = match api.text(&path, patience) {
        Ok(text) => text,
        Err(Failed::Refused(404, _)) if name.is_some() => {
            return Ok(Said { found: Some(false), ..Said::default() });
        }
        Err(failed) => return Err(problem(failed)),
    };
    let field = if name.is_some() { "value" } else { "memory" };
    let mut fields: std::collections::BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(&text).map_err(|error| Problem::new(502, "master", error.to_string()))?;
    Ok(Said { found: Some(true), value: fields.remove(field), ..Said::default() })
}

fn problem(failed: Failed) -> Problem {
    match failed {
        Failed::Refused(status, text) => Problem::new(status, "refused", text),
        Failed::Unreachable(text) => Problem::new(503, "no_master", text),
        Failed::Here(text) => Problem::new(500, "internal", text),
    }
}
