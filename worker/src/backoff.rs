//! How long to wait before the next try to reach a master.

use std::time::Duration;

/// Longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// Longest wait before the first try after a lost connection: most often the master is back.
const FIRST: Duration = Duration::from_millis(100);

/// Full jitter: anything from nothing to a bound that doubles, so that many workers that lost the
/// same master do not come back at the same moment. `random` is drawn evenly from all `u64`.
pub(crate) fn delay(failures: u32, random: u64) -> Duration {
    let bound = match failures {
        0 => FIRST,
        n => Duration::from_secs(1).saturating_mul(1 << (n - 1).min(10)).min(LONGEST),
    };
    let span = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX) + 1;
    Duration::from_micros(random % span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound() {
        assert_eq!(delay(0, 100_000), FIRST);
        assert_eq!(delay(0, 0), Duration::ZERO);
        assert_eq!(delay(1, 1_000_000), Duration::from_secs(1));
        assert_eq!(delay(3, 4_000_000), Duration::from_secs(4));
        for failures in [6, 7, 100, u32::MAX] {
            assert_eq!(delay(failures, 30_000_000), LONGEST);
            assert!(delay(failures, u64::MAX) <= LONGEST);
        }
    }
}
