//! The processes that this one has started, and those that they have started.
//!
//! They are found in `/proc` by their parents. One whose parent is gone comes to this process instead of
//! to the machine's first, so that none gets away from being stopped.

use std::collections::HashMap;
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, kill_process, set_child_subreaper};

/// How often what does not go is killed.
const ROUNDS: u32 = 200;

/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(5);

/// From now on what loses its parent is a child of this process.
pub(crate) fn adopt() {
    // Without it only those are found whose parents live.
    if let Err(error) = set_child_subreaper(Some(getpid())) {
        log::debug!("cannot adopt processes: {error}");
    }
}

/// Sends them all a signal; says how many there were.
pub(crate) fn signal(signal: Signal) -> usize {
    let found = find();
    for pid in &found {
        // It may have ended by itself.
        let _ = kill_process(*pid, signal);
    }
    found.len()
}

/// Kills them until there is none, or it is clear that some cannot be.
pub(crate) fn kill() {
    for _ in 0..ROUNDS {
        if signal(Signal::KILL) == 0 {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

/// All that have not ended.
fn find() -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in entries.filter_map(Result::ok) {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        // One that has just ended is not there any more.
        let stat = pid.and_then(|pid: i32| Some((pid, std::fs::read(format!("/proc/{pid}/stat")).ok()?)));
        let parent = stat.and_then(|(pid, stat)| Some((pid, parent_of_a_living(&stat)?)));
        if let Some((pid, parent)) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![getpid().as_raw_nonzero().get()];
    while let Some(parent) = next.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            next.push(child);
            found.extend(Pid::from_raw(child));
        }
    }
    found
}

/// The parent in a line of `/proc/PID/stat`: after the name, which may hold anything, come the state and
/// the parent.
fn parent_of_a_living(stat: &[u8]) -> Option<i32> {
    let text = String::from_utf8_lossy(stat);
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (!["Z", "X"].contains(&state)).then_some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_stands_after_the_name() {
        assert_eq!(parent_of_a_living(b"12 (a) b) S 7 12 1"), Some(7));
        assert_eq!(parent_of_a_living(b"12 (a) Z 7 12 1"), None, "it has ended");
        assert_eq!(parent_of_a_living(b""), None);
    }
}
