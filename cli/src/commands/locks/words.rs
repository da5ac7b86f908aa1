//! Locks in words.

use agentflow_core::lock::PathLock;
use agentflow_protocol::Timestamp;
use agentflow_protocol::locks::{HolderView, LockView};
use jiff::tz::TimeZone;

use crate::clock::{moment, now};
use crate::output::printable;

/// Paths named one by one; there may be thousands.
const PATHS: usize = 3;

/// `'src/**' and 'a.rs' to write`.
pub(super) fn what(paths: &[PathLock]) -> String {
    let mode = paths.first().map_or_else(String::new, |lock| format!(" to {}", lock.mode));
    let is_mixed = paths.iter().any(|lock| paths.first().is_some_and(|first| first.mode != lock.mode));
    let named = paths.iter().take(PATHS).map(|lock| {
        let path = printable(lock.path.as_str());
        if is_mixed { format!("'{path}' to {}", lock.mode) } else { format!("'{path}'") }
    });
    let mut text = named.collect::<Vec<_>>().join(", ");
    if paths.len() > PATHS {
        text.push_str(&format!(" and {} more paths", paths.len() - PATHS));
    }
    if is_mixed { text } else { text + &mode }
}

/// `until 14:32:11`, or what else ends it.
pub(super) fn until(owner: &str, expires_at: Option<Timestamp>) -> String {
    match expires_at {
        Some(end) => format!("until {}", at(end)),
        None if owner.starts_with("task:") => "until its attempt ends".to_owned(),
        None => "until it is given back".to_owned(),
    }
}

/// A time where the user is.
pub(super) fn at(time: Timestamp) -> String {
    moment(time, now(), &TimeZone::system())
}

/// `ann@host holds 'src/**' to write since 14:02:11, until 14:32:11: the reason`.
pub(super) fn holder(holder: &HolderView, lock: Option<&LockView>) -> String {
    let (owner, path) = (printable(&holder.owner), printable(&holder.path));
    if holder.id.is_none() {
        return format!("{owner} waits for '{path}' to {}, and came first", holder.mode);
    }
    let since = lock.map(|lock| format!(" since {},", at(lock.acquired_at))).unwrap_or_default();
    let reason = lock.and_then(|lock| lock.reason.as_deref());
    let reason = reason.map(|reason| format!(": {}", printable(reason))).unwrap_or_default();
    let until = until(&holder.owner, holder.expires_at);
    format!("{owner} holds '{path}' to {}{since} {until}{reason}", holder.mode)
}

#[cfg(test)]
mod tests {
    use agentflow_core::lock::{LockMode, LockPath};

    use super::*;

    fn lock(path: &str, mode: LockMode) -> PathLock {
        PathLock { path: LockPath::new(path).expect("a path"), mode }
    }

    #[test]
    fn paths_are_named_and_counted() {
        let (read, write) = (LockMode::Read, LockMode::Write);
        assert_eq!(what(&[lock("a", write), lock("b/", write)]), "'a', 'b/**' to write");
        assert_eq!(what(&[lock("a", read), lock("b", write)]), "'a' to read, 'b' to write");
        let many: Vec<PathLock> = (0..5).map(|number| lock(&number.to_string(), read)).collect();
        assert_eq!(what(&many), "'0', '1', '2' and 2 more paths to read");
    }

    #[test]
    fn the_end_of_a_lock_is_a_time_or_an_event() {
        assert_eq!(until("task:5", None), "until its attempt ends");
        assert_eq!(until("ann@host", None), "until it is given back");
    }
}
