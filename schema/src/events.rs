//! The log of events as it is kept: segments of up to [`SEGMENT_EVENTS`] events, each a JSON array.
//!
//! Where an event stands in its segment says its number. Which segments speak of a task is written
//! in the task's row; between which numbers a lock was granted and ended, in the lock's; of anything
//! else, in `event_subjects`.

use agentflow_core::event::{Event, Subject};
use agentflow_core::ids::Seq;
use agentflow_core::lock::LockId;
use diesel::prelude::*;
use serde_json::value::RawValue;

use crate::columns::{big, unsigned};
use crate::connection::AnyConnection;
use crate::error::{Error, Kind};
use crate::gathered::SEGMENT_EVENTS;
use crate::tables::{event_segments, event_subjects, lock_grants, tasks};

/// Segments read by one statement: at most about 1 MB of text.
const SEGMENTS_PER_READ: usize = 32;

/// An event and its place in the log.
#[derive(Clone, PartialEq, Debug)]
pub struct StoredEvent {
    /// From 1, without a hole.
    pub seq: Seq,
    /// What happened.
    pub event: Event,
}

/// Writes `number` in the digits 0-9 and a-z.
pub(crate) fn push_base36(text: &mut String, mut number: u64) {
    let start = text.len();
    loop {
        let digit = u32::try_from(number % 36).ok().and_then(|digit| char::from_digit(digit, 36));
        text.insert(start, digit.unwrap_or('0'));
        number /= 36;
        if number == 0 {
            return;
        }
    }
}

/// The numbers in a task's list of segments.
fn numbers(list: &str) -> Result<Vec<i64>, Error> {
    list.split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            i64::from_str_radix(part, 36)
                .map_err(|_| Error::corrupt(format!("'{part}' in a task's list of segments")))
        })
        .collect()
}

type Segment = (i64, String);

/// Adds those events of a segment that come after `after` and, if one is given, are about `subject`.
fn read_segment(
    (first_seq, body): &Segment,
    after: Seq,
    subject: Option<&Subject>,
    limit: usize,
    events: &mut Vec<StoredEvent>,
) -> Result<(), Error> {
    let damaged = |error| Error::with_source(Kind::Corrupt, format!("the events from {first_seq} on"), error);
    let lines: Vec<&RawValue> = serde_json::from_str(body).map_err(damaged)?;
    // Most events of a segment are about others; looking for the text is ten times cheaper than
    // taking the event apart, and the comparison below decides.
    let needle = match subject {
        Some(subject) => serde_json::to_string(subject).map_err(damaged)?,
        None => String::new(),
    };
    for (seq, line) in (unsigned(*first_seq)?..).zip(lines) {
        if events.len() == limit {
            break;
        }
        if seq <= after.0 || !line.get().contains(&needle) {
            continue;
        }
        let event: Event = serde_json::from_str(line.get()).map_err(damaged)?;
        if subject.is_none_or(|subject| *subject == event.subject) {
            events.push(StoredEvent { seq: Seq(seq), event });
        }
    }
    Ok(())
}

/// Events after `after`, at most `limit`.
pub(crate) fn all(
    connection: &mut AnyConnection,
    after: Seq,
    limit: usize,
) -> Result<Vec<StoredEvent>, Error> {
    let mut events = Vec::new();
    // The segment that holds `after + 1` begins at most a segment's length earlier.
    let mut from = big(after.0).saturating_sub(SEGMENT_EVENTS as i64 - 1);
    while events.len() < limit {
        let segments: Vec<Segment> = event_segments::table
            .filter(event_segments::first_seq.gt(from))
            .filter(event_segments::last_seq.gt(big(after.0)))
            .order(event_segments::first_seq)
            .limit(SEGMENTS_PER_READ as i64)
            .select((event_segments::first_seq, event_segments::body))
            .load(connection)?;
        for segment in &segments {
            read_segment(segment, after, None, limit, &mut events)?;
            from = segment.0;
        }
        if segments.len() < SEGMENTS_PER_READ {
            break;
        }
    }
    Ok(events)
}

/// Events about one subject after `after`, at most `limit`.
pub(crate) fn of(
    connection: &mut AnyConnection,
    subject: &Subject,
    after: Seq,
    limit: usize,
) -> Result<Vec<StoredEvent>, Error> {
    let earliest = big(after.0).saturating_sub(SEGMENT_EVENTS as i64 - 1);
    let mut events = Vec::new();
    let mut wanted = match subject {
        Subject::Task(id) => {
            let list: Option<String> =
                tasks::table.find(big(id.0)).select(tasks::segments).first(connection).optional()?;
            numbers(&list.unwrap_or_default())?
        }
        Subject::Lock(id) => segments_of_lock(connection, *id)?,
        Subject::Worker(_) | Subject::Run(_) | Subject::Schedule(_) => {
            let mut from = earliest;
            while events.len() < limit {
                let wanted = indexed(connection, subject, from)?;
                let Some(last) = wanted.last() else { break };
                from = *last;
                read_segments(connection, &wanted, subject, after, limit, &mut events)?;
            }
            return Ok(events);
        }
    };
    wanted.retain(|first| *first > earliest);
    for wanted in wanted.chunks(SEGMENTS_PER_READ) {
        read_segments(connection, wanted, subject, after, limit, &mut events)?;
        if events.len() == limit {
            break;
        }
    }
    Ok(events)
}

/// The first segments after `from` that speak of a subject, as far as `event_subjects` knows.
fn indexed(connection: &mut AnyConnection, subject: &Subject, from: i64) -> Result<Vec<i64>, Error> {
    Ok(event_subjects::table
        .filter(event_subjects::subject.eq(subject.to_string()))
        .filter(event_subjects::first_seq.gt(from))
        .order(event_subjects::first_seq)
        .limit(SEGMENTS_PER_READ as i64)
        .select(event_subjects::first_seq)
        .load(connection)?)
}

/// The segments that speak of a lock: those of the decision that granted it and of the one that ended
/// it, and before them those of its waiting, while it had no row.
fn segments_of_lock(connection: &mut AnyConnection, id: LockId) -> Result<Vec<i64>, Error> {
    let mut wanted = indexed(connection, &Subject::Lock(id), 0)?;
    let row: Option<(i64, i64, Option<i64>, Option<i64>)> = lock_grants::table
        .filter(lock_grants::lock_id.eq(id.0.to_vec()))
        .select((
            lock_grants::acquired_first_seq,
            lock_grants::acquired_last_seq,
            lock_grants::ended_first_seq,
            lock_grants::ended_last_seq,
        ))
        .first(connection)
        .optional()?;
    let Some((acquired_first, acquired_last, ended_first, ended_last)) = row else { return Ok(wanted) };
    let ended = ended_first.zip(ended_last);
    for (first, last) in [Some((acquired_first, acquired_last)), ended].into_iter().flatten() {
        let found: Vec<i64> = event_segments::table
            .filter(event_segments::first_seq.gt(first.saturating_sub(SEGMENT_EVENTS as i64)))
            .filter(event_segments::first_seq.le(last))
            .filter(event_segments::last_seq.ge(first))
            .order(event_segments::first_seq)
            .select(event_segments::first_seq)
            .load(connection)?;
        wanted.extend(found);
    }
    wanted.sort_unstable();
    wanted.dedup();
    Ok(wanted)
}

fn read_segments(
    connection: &mut AnyConnection,
    wanted: &[i64],
    subject: &Subject,
    after: Seq,
    limit: usize,
    events: &mut Vec<StoredEvent>,
) -> Result<(), Error> {
    let segments: Vec<Segment> = event_segments::table
        .filter(event_segments::first_seq.eq_any(wanted.to_vec()))
        .order(event_segments::first_seq)
        .select((event_segments::first_seq, event_segments::body))
        .load(connection)?;
    for segment in &segments {
        read_segment(segment, after, Some(subject), limit, events)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_numbers_go_there_and_back() {
        let mut list = String::new();
        for number in [1, 35, 36, 1_000_000, i64::MAX.unsigned_abs()] {
            list.push(',');
            push_base36(&mut list, number);
        }
        assert!(list.starts_with(",1,z,10,"));
        assert_eq!(numbers(&list).expect("written here"), [1, 35, 36, 1_000_000, i64::MAX]);
        assert!(numbers(",?").is_err());
        assert!(numbers("").expect("empty").is_empty());
    }
}
