//! What is begun again and again.

use super::*;
use crate::batch::{CatchUp, ScheduleRow};

/// A bench on which cron means a number of milliseconds (see [`Maker`]).
fn schedule(every_ms: u64, catch_up: CatchUp) -> Box<SavedSchedule> {
    let row = ScheduleRow {
        name: "s".into(),
        body: "{}".into(),
        cron: every_ms.to_string().into(),
        zone: "UTC".into(),
        catch_up,
        paused: false,
        next_at: Some(Wall(2_000_000)),
        last_at: None,
        fired: 0,
        created_at: Wall(0),
    };
    Box::new(SavedSchedule { row, what: Ok(Scheduled::Task(Box::new(plain()))) })
}

impl Bench {
    fn schedule(&self) -> ScheduleRow {
        let writes = self.batches.iter().flat_map(|batch| &batch.schedules);
        writes.last().and_then(|write| write.row.clone()).expect("written")
    }

    fn put(&mut self, every_ms: u64, catch_up: CatchUp) {
        assert_eq!(self.ask(Request::PutSchedule(schedule(every_ms, catch_up))).0, Ok(Answer::Done));
    }
}

#[test]
fn a_time_that_comes_makes_one_task_and_the_next_time() {
    let mut bench = Bench::new();
    bench.put(1_000, CatchUp::Skip);
    bench.wait(999);
    assert_eq!(bench.kernel.live_tasks(), 0);
    bench.wait(1);
    assert_eq!(bench.kernel.live_tasks(), 1);
    bench.wait(0);
    assert_eq!(bench.kernel.live_tasks(), 1);
    let row = bench.schedule();
    assert_eq!((row.fired, row.next_at, row.last_at), (1, Some(Wall(3_000_000)), Some(Wall(2_000_000))));
    // The task and the schedule's new time are in one batch.
    let batch = bench.batches.iter().find(|batch| !batch.tasks.is_empty()).expect("a task");
    assert_eq!(batch.schedules.len(), 1);
}

#[test]
fn missed_times_are_treated_as_was_asked() {
    for (catch_up, made) in [(CatchUp::Skip, 0), (CatchUp::Once, 1), (CatchUp::All, 4)] {
        let mut bench = Bench::new();
        bench.put(100_000, catch_up);
        // Due at 2 s, 102 s, 202 s and 302 s; it is 372 s.
        bench.wait(371_000);
        assert_eq!(bench.kernel.live_tasks(), made, "{catch_up:?}");
        assert_eq!(bench.schedule().next_at, Some(Wall(402_000_000)));
    }
}

#[test]
fn a_paused_schedule_misses_nothing_and_a_removed_one_is_gone() {
    let mut bench = Bench::new();
    bench.put(1_000, CatchUp::All);
    let name: Arc<str> = "s".into();
    let pause = |paused| Request::PauseSchedule { name: Arc::clone(&name), paused };
    assert_eq!(bench.ask(pause(true)).0, Ok(Answer::Done));
    bench.wait(5_000);
    assert_eq!(bench.kernel.live_tasks(), 0);
    assert_eq!(bench.ask(pause(false)).0, Ok(Answer::Done));
    bench.wait(1_000);
    assert_eq!(bench.kernel.live_tasks(), 1);
    assert_eq!(bench.ask(Request::FireSchedule { name: Arc::clone(&name) }).0, Ok(Answer::Done));
    assert_eq!(bench.kernel.live_tasks(), 2);
    assert_eq!(bench.ask(Request::RemoveSchedule { name: Arc::clone(&name) }).0, Ok(Answer::Done));
    bench.wait(9_000);
    assert_eq!(bench.kernel.live_tasks(), 2);
    let gone = Err(Rejection::UnknownSchedule(Arc::clone(&name)));
    assert_eq!(bench.ask(Request::RemoveSchedule { name }).0, gone);
}
