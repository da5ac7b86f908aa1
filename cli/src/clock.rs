//! The clocks of this machine.

use std::time::Duration;

use agentflow_core::time::Wall;
use agentflow_protocol::Timestamp;
use jiff::tz::TimeZone;

/// Time since the machine was started, sleep included: a lock ends while a laptop sleeps.
pub(crate) fn boottime() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = Duration::from_secs(u64::try_from(now.tv_sec).unwrap_or_default());
    seconds + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or_default())
}

/// The time now.
pub(crate) fn now() -> Timestamp {
    Timestamp(Wall(jiff::Timestamp::now().as_microsecond()))
}

/// So long after another time.
pub(crate) fn after(time: Timestamp, span: Duration) -> Timestamp {
    let span = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
    Timestamp(Wall(time.0.0.saturating_add(span)))
}

/// `12:03:04`, where the user is.
pub(crate) fn time_of_day(at: Timestamp, zone: &TimeZone) -> String {
    formatted(at, zone, "%H:%M:%S")
}

/// `12:03:04`, and the day before it unless it is today.
pub(crate) fn moment(at: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let day = |time| formatted(time, zone, "%Y-%m-%d");
    if day(at) == day(now) { time_of_day(at, zone) } else { format!("{} {}", day(at), time_of_day(at, zone)) }
}

fn formatted(at: Timestamp, zone: &TimeZone, format: &str) -> String {
    jiff::Timestamp::from_microsecond(at.0.0)
        .map_or_else(|_| at.to_string(), |at| at.to_zoned(zone.clone()).strftime(format).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day() {
        let at = |seconds: i64| Timestamp(Wall(seconds * 1_000_000));
        assert_eq!(time_of_day(at(43_384), &TimeZone::UTC), "12:03:04");
        assert_eq!(moment(at(43_384), at(10), &TimeZone::UTC), "12:03:04");
        assert_eq!(moment(at(86_400 + 43_384), at(10), &TimeZone::UTC), "1970-01-02 12:03:04");
        assert_eq!(after(at(1), Duration::from_secs(2)), at(3));
        assert!(
            moment(Timestamp(Wall(i64::MAX)), at(1), &TimeZone::UTC).contains("us"),
            "beyond the calendar"
        );
    }
}
