//! The actor that writes what attempts print. It alone touches the files for writing, on a thread of
//! its own that may wait for the disk.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use actix::{Actor, Addr, Arbiter, Context, Handler, Message, Recipient};
use agentflow_actors::{PrunedLogs, ToDoor};
use agentflow_core::ids::{Attempt, TaskId};
use agentflow_protocol::log_frame::Header;
use agentflow_protocol::worker::ToWorker;
use bytes::Bytes;

use super::file::LogFile;
use super::{Watchers, gaps_path, log_path};

/// Files kept open: more than the attempts that print at the same moment on a few dozen workers, and
/// well below the usual 1,024 descriptors of a process.
const OPEN_FILES: usize = 256;

type Key = (TaskId, Attempt);

/// One log frame.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Append {
    /// Whose, and where.
    pub(crate) header: Header,
    /// What.
    pub(crate) bytes: Bytes,
    /// Who is told that it is written.
    pub(crate) door: Recipient<ToDoor>,
}

/// Answered when everything before it is written.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CatchUp;

struct Open {
    file: LogFile,
    used: u64,
}

/// The actor.
pub(crate) struct LogStore {
    logs: PathBuf,
    watchers: Watchers,
    open: HashMap<Key, Open>,
    uses: u64,
    /// Whether the last write failed: a broken disk is reported once, not once per frame.
    is_failing: bool,
}

impl LogStore {
    /// Starts it on a thread of its own. `logs` must be there.
    pub(crate) fn start_on(arbiter: &Arbiter, logs: PathBuf, watchers: Watchers) -> Addr<Self> {
        Self::start_in_arbiter(&arbiter.handle(), |_| Self {
            logs,
            watchers,
            open: HashMap::new(),
            uses: 0,
            is_failing: false,
        })
    }

    fn append(&mut self, key: Key, offset: u64, bytes: &[u8]) -> io::Result<u64> {
        self.uses += 1;
        let used = self.uses;
        if !self.open.contains_key(&key) {
            let file = LogFile::open(&self.logs, key.0, key.1)?;
            if self.open.len() >= OPEN_FILES
                && let Some(oldest) = self.open.iter().min_by_key(|(_, open)| open.used).map(|(key, _)| *key)
            {
                self.open.remove(&oldest);
            }
            self.open.insert(key, Open { file, used });
        }
        match self.open.get_mut(&key) {
            Some(open) => {
                open.used = used;
                open.file.append(&self.logs, key, offset, bytes)
            }
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn note(&mut self, key: Key, failed: Option<&io::Error>) {
        match failed {
            Some(error) if !self.is_failing => log::error!(
                "logs cannot be written ({}: {error}); tasks run on, and what is lost of their output is marked",
                log_path(&self.logs, key.0, key.1).display()
            ),
            None if self.is_failing => log::info!("logs can be written again"),
            _ => {}
        }
        self.is_failing = failed.is_some();
    }
}

impl Actor for LogStore {
    type Context = Context<Self>;
}

impl Handler<Append> for LogStore {
    type Result = ();

    fn handle(&mut self, Append { header, bytes, door }: Append, _: &mut Self::Context) {
        let key = (header.key.task, header.key.attempt);
        let written = self.append(key, header.offset, &bytes);
        self.note(key, written.as_ref().err());
        let offset = match written {
            Ok(offset) => {
                self.watchers.wrote(key.0, key.1);
                offset
            }
            Err(_) => {
                // Opened anew next time, with what the disk really has.
                self.open.remove(&key);
                header.offset.saturating_add(bytes.len() as u64)
            }
        };
        door.do_send(ToDoor::Frame(Box::new(ToWorker::LogAck { key: header.key, offset })));
    }
}

impl Handler<CatchUp> for LogStore {
    type Result = ();

    fn handle(&mut self, CatchUp: CatchUp, _: &mut Self::Context) {}
}

impl Handler<PrunedLogs> for LogStore {
    type Result = ();

    fn handle(&mut self, PrunedLogs(pruned): PrunedLogs, _: &mut Self::Context) {
        for (task, attempt) in pruned {
            self.open.remove(&(task, attempt));
            let path = log_path(&self.logs, task, attempt);
            remove(&path);
            remove(&gaps_path(&self.logs, task, attempt));
            if let Some(parent) = path.parent() {
                // Succeeds for the last file of a directory only, which is what is wanted.
                let _ = std::fs::remove_dir(parent);
            }
        }
    }
}

fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log::warn!("'{}' cannot be removed: {error}", path.display());
        }
        _ => {}
    }
}
