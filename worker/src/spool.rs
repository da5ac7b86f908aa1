//! Reports on disk: what a successor sends when this worker dies before the master has made its
//! reports durable.
//!
//! Owns: `spool.jsonl` in the data directory, one report a line, and the thread that writes and
//! syncs it, so that a slow disk never holds back a heartbeat. Invariant: a line is a whole report
//! or the file's torn end, which reading leaves out; a report that is there too long is sent twice,
//! which its attempt and fence make harmless.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use agentflow_protocol::worker::{Report, ReportBody};

use crate::error::{Error, Kind, at};

/// Past this the file is written anew with what is still needed.
pub(crate) const REWRITE_BYTES: u64 = 8 << 20;

enum Order {
    Append(Vec<Box<str>>),
    /// These are all that is still needed.
    Replace(Vec<Box<str>>),
    /// Says when everything before is on disk.
    Sync(Sender<()>),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Spool {
    orders: Sender<Order>,
    bytes: u64,
}

impl Spool {
    /// Opens the file and gives back what a predecessor left there.
    pub(crate) fn open(data_dir: &Path) -> Result<(Self, Vec<Report>), Error> {
        let path = data_dir.join("spool.jsonl");
        let mut file = File::options().create(true).append(true).open(&path).map_err(at(&path))?;
        let left = std::fs::read(&path).map_err(at(&path))?;
        if left.last().is_some_and(|byte| *byte != b'\n') {
            // A torn line must not swallow the next one.
            file.write_all(b"\n").map_err(at(&path))?;
        }
        let (orders, received) = channel();
        let writer = Writer { path, file };
        let builder = thread::Builder::new().name("spool".to_owned()).stack_size(128 << 10);
        builder.spawn(move || writer.work(&received)).map_err(Kind::Thread)?;
        Ok((Self { orders, bytes: left.len() as u64 }, read(&left)))
    }

    /// Adds reports.
    pub(crate) fn append(&mut self, reports: Vec<Box<str>>) {
        if !reports.is_empty() {
            self.bytes += reports.iter().map(|report| report.len() as u64 + 1).sum::<u64>();
            self.order(Order::Append(reports));
        }
    }

    /// Whether the file has grown so much that it is worth writing anew.
    pub(crate) fn is_large(&self) -> bool {
        self.bytes > REWRITE_BYTES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Keeps only these.
    pub(crate) fn replace(&mut self, reports: Vec<Box<str>>) {
        self.bytes = reports.iter().map(|report| report.len() as u64 + 1).sum();
        self.order(Order::Replace(reports));
    }

    /// Waits until everything is on disk.
    pub(crate) fn sync(&self) {
        let (done, wait) = channel();
        self.order(Order::Sync(done));
        // An error means that the writer is gone, which it has said itself.
        let _gone = wait.recv();
    }

    fn order(&self, order: Order) {
        if self.orders.send(order).is_err() {
            log::error!("the spool's thread is gone: reports would be lost with this process");
        }
    }
}

struct Writer {
    path: PathBuf,
    file: File,
}

impl Writer {
    fn work(mut self, orders: &Receiver<Order>) {
        while let Ok(order) = orders.recv() {
            let written = match order {
                Order::Append(reports) => self.append(&reports),
                Order::Replace(reports) => self.replace(&reports),
                Order::Sync(done) => {
                    // Nobody may wait any more.
                    let _gone = done.send(());
                    Ok(())
                }
            };
            if let Err(error) = written {
                log::warn!("{} cannot be written: {error}", self.path.display());
            }
        }
    }

    fn append(&mut self, reports: &[Box<str>]) -> io::Result<()> {
        self.file.write_all(&lines(reports))?;
        self.file.sync_data()
    }

    fn replace(&mut self, reports: &[Box<str>]) -> io::Result<()> {
        if reports.is_empty() {
            return self.file.set_len(0);
        }
        let path = self.path.with_extension("new");
        let mut file = File::create(&path)?;
        file.write_all(&lines(reports))?;
        file.sync_data()?;
        std::fs::rename(&path, &self.path)?;
        self.file = File::options().append(true).open(&self.path)?;
        Ok(())
    }
}

fn lines(reports: &[Box<str>]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(reports.iter().map(|report| report.len() + 1).sum());
    for report in reports {
        lines.extend_from_slice(report.as_bytes());
        lines.push(b'\n');
    }
    lines
}

/// The ends among the lines, the last of each attempt.
fn read(bytes: &[u8]) -> Vec<Report> {
    let mut reports: Vec<Report> = Vec::new();
    let mut torn = 0;
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice::<Report>(line) {
            Ok(report) if matches!(report.body, ReportBody::Finished(_)) => {
                reports.retain(|earlier| earlier.key != report.key);
                reports.push(report);
            }
            Ok(_) => {}
            Err(_) => torn += 1,
        }
    }
    if torn > 0 {
        log::warn!("the spool has {torn} broken lines; they are left out");
    }
    reports
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Window;
    use agentflow_core::batch::Outcome;
    use agentflow_core::ids::{Attempt, Fence, TaskId};
    use agentflow_core::time::{Mono, Wall};
    use agentflow_protocol::worker::{AttemptKey, End, Finished};

    fn reports(tasks: std::ops::RangeInclusive<u64>) -> Vec<Box<str>> {
        let mut window = Window::default();
        for task in tasks {
            let key = AttemptKey { task: TaskId(task), attempt: Attempt(1), fence: Fence(1) };
            let finished = Finished {
                started_at: Wall(1),
                finished_at: Wall(2),
                end: End::Completed,
                outcome: Outcome::default(),
                log_bytes: 0,
                log_cut: 0,
            };
            window.push(key, ReportBody::Finished(Box::new(finished)), Mono(0), false);
        }
        window.take_for_spool(Mono(0))
    }

    fn tasks(reports: &[Report]) -> Vec<u64> {
        reports.iter().map(|report| report.key.task.0).collect()
    }

    #[test]
    fn a_successor_reads_what_was_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut spool, left) = Spool::open(dir.path()).expect("a spool");
        assert!(left.is_empty());
        spool.append(reports(1..=3));
        spool.append(reports(2..=2));
        spool.sync();
        let (mut spool, left) = Spool::open(dir.path()).expect("a spool");
        assert_eq!(tasks(&left), [1, 3, 2]);
        spool.replace(reports(3..=3));
        spool.append(reports(4..=4));
        spool.sync();
        let path = dir.path().join("spool.jsonl");
        let mut file = File::options().append(true).open(path).expect("the file");
        file.write_all(b"{\"no\":9,\"task\"").expect("a torn line");
        let (mut spool, left) = Spool::open(dir.path()).expect("a spool");
        assert_eq!(tasks(&left), [3, 4]);
        spool.replace(Vec::new());
        spool.sync();
        assert!(spool.is_empty());
        assert!(Spool::open(dir.path()).expect("a spool").1.is_empty());
    }
}
