//! Finds and kills what a dead worker has left running.
//!
//! A process belongs to a data directory when its environment holds an attempt key that begins
//! with the directory's prefix; children inherit it, and groups and sessions do not matter. Only a
//! process that wipes its own environment escapes.

use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::executor::environment::ATTEMPT_KEY;

/// How long killed processes may take to go.
const PATIENCE: Duration = Duration::from_secs(10);

/// Kills every process that was started under that prefix and waits until none is left.
///
/// # Errors
/// Names the processes that do not go.
pub(crate) fn kill_all(key_prefix: &str) -> Result<usize, String> {
    let mark = format!("{ATTEMPT_KEY}={key_prefix}");
    let until = Instant::now() + PATIENCE;
    let mut killed = 0;
    loop {
        // Anew each time: a process may have forked while we looked.
        let found = find(&mark);
        if found.is_empty() {
            return Ok(killed);
        }
        if Instant::now() >= until {
            return Err(found.iter().map(i32::to_string).collect::<Vec<_>>().join(", "));
        }
        killed += found.iter().filter(|pid| kill(**pid, &mark)).count();
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Processes that carry the mark. A zombie has no environment any more.
fn find(mark: &str) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| carries(*pid, mark)).collect()
}

fn carries(pid: i32, mark: &str) -> bool {
    // Not ours to read, or gone: not ours to kill.
    let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else { return false };
    environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(mark.as_bytes()))
}

fn kill(pid: i32, mark: &str) -> bool {
    let Some(process) = Pid::from_raw(pid) else { return false };
    // The descriptor holds on to this very process; the second look makes sure which one it is.
    let killed = match pidfd_open(process, PidfdFlags::empty()) {
        Ok(descriptor) if carries(pid, mark) => pidfd_send_signal(descriptor, Signal::KILL),
        Ok(_) | Err(rustix::io::Errno::SRCH) => return false,
        Err(_) => rustix::process::kill_process(process, Signal::KILL),
    };
    killed.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn only_marked_processes_die() {
        let prefix = format!("test-{}", std::process::id());
        let sleep = |key: &str| {
            let mut command = Command::new("sleep");
            command.arg("60").env(ATTEMPT_KEY, key).spawn().expect("a process")
        };
        let mut ours = sleep(&format!("{prefix}.1"));
        let mut other = sleep("another");
        // Zombies do not count as left over, so that nobody needs to reap meanwhile.
        kill_all(&prefix).expect("all gone");
        assert_eq!(ours.wait().expect("a status").signal(), Some(9));
        assert!(other.try_wait().expect("a status").is_none());
        other.kill().expect("ours");
        other.wait().expect("a status");
    }
}
