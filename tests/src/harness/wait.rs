//! The one way to wait. Nothing else in this package sleeps.

use std::time::{Duration, Instant};

use super::Failure;

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks again and again until there is something, and gives it.
///
/// # Errors
/// When there is nothing after `patience`; the message says what was waited for.
pub fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> Result<T, Failure> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if begun.elapsed() >= patience {
            return Err(format!("this did not happen within {patience:?}: {what}").into());
        }
        pause(LOOK_EVERY);
    }
}

/// Looks again and again until it is so.
///
/// # Errors
/// When it is not so after `patience`; the message says what was waited for.
pub fn wait_until(what: &str, patience: Duration, mut look: impl FnMut() -> bool) -> Result<(), Failure> {
    wait_for(what, patience, || look().then_some(()))
}

/// Lets time pass between two blows or two measurements. Never wait for a condition with it.
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
