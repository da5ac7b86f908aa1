//! Scenarios that the simulation found first, each told as shortly as it can be.

use super::*;
use crate::batch::{AttemptEnd, TaskRow};
use crate::event::Happening;

impl Bench {
    /// A new master reads what this one wrote.
    fn restart(&mut self) {
        let mut rows = std::collections::BTreeMap::new();
        for write in self.batches.iter().flat_map(|batch| &batch.tasks) {
            let row = rows.entry(write.id).or_insert_with(|| TaskRow {
                id: write.id,
                spec: write.birth.as_ref().expect("born first").spec,
                created_at: Wall(1),
                state: write.state.clone(),
            });
            row.state = write.state.clone();
        }
        rows.retain(|_, row| !row.state.status.is_settled());
        let specs = self.batches.iter().flat_map(|batch| batch.specs.clone()).collect();
        let workers = self.batches.iter().flat_map(|batch| batch.workers.clone()).collect();
        let plan = RecoveryPlan::new(rows.into_values().collect(), specs, workers).expect("own rows");
        let counters = self.batches.last().expect("some").counters;
        let (kernel, output) = Kernel::recover(Settings::default(), Epoch(2), counters, plan, self.now());
        assert_eq!(output.batch, None);
        kernel.check().expect("invariants");
        self.kernel = kernel;
    }

    fn happened(&self, wanted: impl Fn(&Happening) -> bool) -> usize {
        self.batches.iter().flat_map(|batch| &batch.events).filter(|event| wanted(&event.happening)).count()
    }

    fn attempt_rows(&self) -> Vec<(u32, AttemptEnd)> {
        let rows = self.batches.iter().flat_map(|batch| &batch.attempts);
        rows.map(|row| (row.attempt.0, row.end)).collect()
    }
}

#[test]
fn equal_milestones_in_one_submission_all_complete() {
    let mut bench = Bench::new();
    let milestone = task(|_, spec| spec.payload = Payload::Milestone);
    bench.submit(vec![milestone.clone(), milestone.clone(), plain(), milestone]);
    assert_eq!([1, 2, 4].map(|id| bench.status(id)), [Some(Status::Completed); 3]);
}

#[test]
fn a_class_that_takes_the_place_of_another_within_a_step_is_seen_by_idle_workers() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    let milestone = task(|new, spec| {
        new.group = "elsewhere".into();
        spec.payload = Payload::Milestone;
    });
    assert_eq!(assigned(&bench.submit(vec![milestone, plain()])), [(session, key(2, 1, 1))]);
}

#[test]
fn a_milestone_whose_time_came_without_a_master_is_given_to_nobody() {
    let mut bench = Bench::new();
    bench.submit(vec![task(|new, spec| {
        new.not_before = Some(Wall(2_000_000));
        spec.payload = Payload::Milestone;
    })]);
    bench.now_ms += 5_000;
    bench.restart();
    let (_, effects) = bench.hello("w1", 1, 1, vec![]);
    assert!(assigned(&effects).is_empty());
    bench.wait(1);
    assert_eq!(bench.status(1), Some(Status::Completed));
}

#[test]
fn a_hello_that_was_overtaken_by_a_younger_socket_changes_nothing() {
    let mut bench = Bench::new();
    bench.submit(vec![plain()]);
    let old = SessionEpoch(1);
    let (session, effects) = bench.hello("w1", 1, 1, vec![]);
    assert_eq!(assigned(&effects), [(session, key(1, 1, 1))]);
    let late = Input::Hello { session: old, hello: Box::new(hello("w1", 1, 1)) };
    assert_eq!(bench.step(late.clone()), [Effect::Close { session: old }]);
    assert_eq!(bench.report(session, key(1, 1, 1), finished(End::Completed)).len(), 1);
    assert_eq!(bench.status(1), Some(Status::Completed));
    bench.step(Input::Disconnected { session });
    assert_eq!(bench.step(late), [Effect::Close { session: old }]);
}

#[test]
fn a_returning_worker_is_welcomed_first_and_then_told_what_it_missed() {
    let mut bench = Bench::new();
    let (first, _) = bench.hello("w1", 1, 1, vec![]);
    bench.submit(vec![plain()]);
    bench.step(Input::Disconnected { session: first });
    assert!(bench.ask(Request::Cancel { tasks: vec![TaskId(1)] }).0.is_ok());
    assert!(bench.ask(Request::Drain { worker: "w1".into() }).0.is_ok());
    bench.now_ms += 10;
    let held = Held { key: key(1, 1, 1), started: true };
    let (session, effects) = bench.hello("w1", 1, 1, vec![held]);
    assert_eq!(
        effects,
        [
            Effect::Welcome { session, keep: vec![held.key], stop: vec![] },
            Effect::Cancel { session, keys: vec![held.key] },
            Effect::Drain { session },
        ]
    );
}

/// A task whose worker was lost before anybody heard that it had begun, and is back.
fn adopted(started: bool) -> (Bench, SessionEpoch) {
    let mut bench = Bench::new();
    let (first, _) = bench.hello("w1", 1, 1, vec![]);
    bench.submit(vec![plain()]);
    bench.step(Input::Disconnected { session: first });
    bench.wait(11_000);
    assert_eq!(bench.attempt_rows(), [(1, AttemptEnd::Lost)]);
    let (session, effects) = bench.hello("w1", 1, 1, vec![Held { key: key(1, 1, 1), started }]);
    assert!(matches!(&effects[..], [Effect::Welcome { keep, .. }] if keep[..] == [key(1, 1, 1)]));
    (bench, session)
}

#[test]
fn an_adopted_attempt_that_has_begun_is_said_to_have_started() {
    let (mut bench, session) = adopted(true);
    assert_eq!(bench.status(1), Some(Status::Running));
    bench.report(session, key(1, 1, 1), ReportBody::Started { at: Wall(5) });
    assert_eq!(bench.happened(|happening| matches!(happening, Happening::TaskStarted { .. })), 1);
}

#[test]
fn what_became_of_an_adopted_attempt_is_written_over_its_loss() {
    let (mut bench, session) = adopted(true);
    bench.report(session, key(1, 1, 1), finished(End::Completed));
    assert_eq!(bench.attempt_rows(), [(1, AttemptEnd::Lost), (1, AttemptEnd::Completed)]);
    // A new master cannot know of the loss, and writes it again.
    let (mut bench, _) = adopted(true);
    bench.restart();
    bench.now_ms += 10;
    let (session, _) = bench.hello("w1", 1, 1, vec![Held { key: key(1, 1, 1), started: true }]);
    bench.report(session, key(1, 1, 1), finished(End::Completed));
    assert_eq!(bench.attempt_rows(), [(1, AttemptEnd::Lost), (1, AttemptEnd::Completed)]);
}

#[test]
fn the_number_of_a_lost_attempt_is_not_used_again() {
    let (mut bench, session) = adopted(false);
    let effects = bench.report(session, key(1, 1, 1), ReportBody::Returned {});
    assert_eq!(assigned(&effects), [(session, key(1, 2, 2))]);
}

/// A busy worker with one task that runs and one that waits, and an idle one.
fn unbalanced() -> (Bench, SessionEpoch, Vec<Held>) {
    let mut bench = Bench::new();
    let (busy, _) = bench.hello("w1", 1, 1, vec![]);
    bench.submit(vec![plain(), plain()]);
    bench.report(busy, key(1, 1, 1), ReportBody::Started { at: Wall(5) });
    bench.hello("w2", 2, 1, vec![]);
    let held = |task, started| Held { key: key(task, 1, 1), started };
    (bench, busy, vec![held(1, true), held(2, false)])
}

#[test]
fn a_worker_that_was_asked_for_a_task_before_it_went_away_is_asked_again() {
    let (mut bench, busy, held) = unbalanced();
    assert_eq!(bench.wait(10), [Effect::Return { session: busy, keys: vec![key(2, 1, 1)] }]);
    bench.step(Input::Disconnected { session: busy });
    bench.now_ms += 10;
    let (session, effects) = bench.hello("w1", 1, 1, held);
    assert!(effects.contains(&Effect::Return { session, keys: vec![key(2, 1, 1)] }));
}

#[test]
fn a_worker_that_was_away_when_another_became_idle_is_asked_when_it_returns() {
    let (mut bench, busy, held) = unbalanced();
    bench.step(Input::Disconnected { session: busy });
    assert!(bench.wait(10).is_empty());
    let (session, _) = bench.hello("w1", 1, 1, held);
    assert_eq!(bench.wait(10), [Effect::Return { session, keys: vec![key(2, 1, 1)] }]);
}

#[test]
fn time_in_the_hands_of_a_lost_worker_does_not_count_as_time_in_the_queue() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.submit(vec![task(|_, spec| spec.queue_timeout_ms = Some(1_000))]);
    bench.report(session, key(1, 1, 1), ReportBody::Started { at: Wall(5) });
    bench.step(Input::Disconnected { session });
    bench.wait(11_000);
    bench.wait(999);
    assert_eq!(bench.status(1), Some(Status::Pending));
    bench.wait(1);
    assert_eq!(bench.status(1), Some(Status::Failed));
}

#[test]
fn a_task_that_kills_its_worker_before_a_word_is_counted() {
    let mut bench = Bench::new();
    bench.submit(vec![task(|_, spec| spec.retry.max_lost = 1), task(|_, spec| spec.retry.max_lost = 1)]);
    for boot in 1..=2 {
        // One slot: the first may have begun, the second has not.
        bench.hello("w1", boot, 1, vec![]);
        bench.now_ms += 10;
        let worker: Arc<str> = "w1".into();
        let (reply, _) = bench.ask(Request::WorkerDead { worker, boot: BootId(boot) });
        assert!(reply.is_ok());
    }
    assert_eq!(bench.status(1), Some(Status::Failed));
    assert_eq!(bench.status(2), Some(Status::Pending));
}
