//! `up` after its store has failed: memory is ahead of the disk then, so the program is executed
//! anew and recovers from the disk. With back-off, and not for ever.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use crate::error::exit;

/// Restarts in a row. A disk that fails for longer needs somebody to look at it.
const RESTARTS: u32 = 5;

/// A life this long was a good one: counting begins anew.
const GOOD_LIFE: Duration = Duration::from_secs(600);

/// Carries the count from one life to the next. Tasks do not inherit it.
const COUNT: &str = "AGENTFLOW_UP_RESTARTS";

/// Waits and executes this program again; comes back with an exit code when it gives up.
pub(crate) fn again(lived: Duration) -> u8 {
    let before = std::env::var(COUNT).ok().and_then(|count| count.parse().ok());
    let Some(pause) = pause(before.unwrap_or(0), lived) else {
        eprintln!(
            "agentflow: the store failed {} times in a row; see what the log says of the disk, then start again",
            RESTARTS + 1
        );
        return exit::STORE_FAILED;
    };
    let count = if lived >= GOOD_LIFE { 1 } else { before.unwrap_or(0) + 1 };
    eprintln!("agentflow: restarting in {} s (restart {count} of {RESTARTS})", pause.as_secs());
    std::thread::sleep(pause);
    let error = match std::env::current_exe() {
        Ok(program) => {
            Command::new(program).args(std::env::args_os().skip(1)).env(COUNT, count.to_string()).exec()
        }
        Err(error) => error,
    };
    eprintln!("agentflow: cannot restart: {error}");
    exit::STORE_FAILED
}

/// How long to wait before the next life; `None` when there have been enough.
fn pause(restarts: u32, lived: Duration) -> Option<Duration> {
    let restarts = if lived >= GOOD_LIFE { 0 } else { restarts };
    (restarts < RESTARTS).then(|| Duration::from_secs(1 << restarts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let short = Duration::from_secs(3);
        let waits: Vec<_> =
            (0..7).map(|restarts| pause(restarts, short).map(|wait| wait.as_secs())).collect();
        assert_eq!(waits, [Some(1), Some(2), Some(4), Some(8), Some(16), None, None]);
        assert_eq!(pause(5, GOOD_LIFE), Some(Duration::from_secs(1)));
    }
}
