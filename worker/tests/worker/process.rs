//! A real worker as a process.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::common::{Master, eventually};

/// A real worker process. It is killed when it is dropped.
pub(crate) struct Worker {
    pub(crate) child: Child,
}

impl Worker {
    pub(crate) fn start(master: &Master, dir: &Path, flags: &[&str]) -> Self {
        Self::start_at(&master.url(), dir, flags)
    }

    pub(crate) fn start_at(url: &str, dir: &Path, flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agentflow-worker"));
        command.args(["--master", url, "--id", "w1", "--data-dir"]).arg(dir).args(flags);
        command.env("AGENTFLOW_SECRET", "for the worker only");
        Self { child: command.stdin(Stdio::null()).spawn().expect("the worker starts") }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process number")
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid()).expect("a process number");
        rustix::process::kill_process(pid, signal).expect("the worker is there");
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the worker is there");
        self.child.wait().expect("a status");
    }

    /// Resident bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the worker");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
        kib << 10
    }

    /// Waits for its end; the exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let mut code = None;
        eventually("the worker ends", || {
            let status = self.child.try_wait().expect("a status");
            code = status.and_then(|status| status.code());
            status.is_some()
        });
        code
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
