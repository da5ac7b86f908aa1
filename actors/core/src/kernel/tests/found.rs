//! Scenarios that the simulation found first, each told as shortly as it can be.

use serde_json::json;

use super::runs::{body_of, ended};
use super::*;
use crate::batch::AttemptEnd;
use crate::event::Happening;
use crate::relation::Relation;
use crate::run::RunStatus;

impl Bench {
    pub(super) fn happened(&self, wanted: impl Fn(&Happening) -> bool) -> usize {
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

#[test]
fn what_comes_back_to_a_paused_run_is_not_given_away_again() {
    let file = "
version: 1
tasks:
  lost: {kind: noop}
  retried: {kind: noop, retry: {max: 1, backoff_ms: 0}}
  round: {kind: noop, loop: {until: loop.iteration > 1, max: 3}}
  each: {kind: noop, foreach: [1]}
";
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 9, vec![]);
    bench.start(file);
    assert_eq!(bench.control(RunAction::Pause), Ok(Answer::Done));
    let mut effects = bench.report(session, key(2, 1, 1), finished(End::Failed(RetryOn::Error)));
    effects.extend(bench.report(session, key(3, 1, 1), finished(End::Completed)));
    effects.extend(bench.report(session, key(5, 1, 1), finished(End::Interrupted)));
    bench.now_ms += 10;
    // It comes back without the one that is left.
    let (session, welcome) = bench.hello("w1", 1, 9, vec![]);
    effects.extend(welcome);
    assert!(assigned(&effects).is_empty(), "{effects:?}");
    assert_eq!(bench.nodes(), "each=running each[0]=blocked lost=blocked retried=blocked round=blocked");
    let resume = Request::ControlRun { run: crate::ids::RunId(1), action: RunAction::Resume };
    let (_, effects) = bench.ask(resume);
    let mut given: Vec<_> = assigned(&effects).into_iter().map(|(_, key)| key.task.0).collect();
    given.sort_unstable();
    assert_eq!((given, bench.status(1)), (vec![1, 2, 3, 5], Some(Status::Pending)));
    assert!(assigned(&effects).iter().all(|(to, _)| *to == session));
}

const TWO: &str = "version: 1\ntasks:\n  a: {kind: noop}\n  b: {kind: noop, needs: a}\n";

#[test]
fn a_run_that_was_cancelled_ends_as_cancelled_under_a_new_master_too() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.start(TWO);
    bench.report(session, key(1, 1, 1), ReportBody::Started { at: Wall(5) });
    assert_eq!(bench.control(RunAction::Cancel), Ok(Answer::Done));
    bench.restart();
    bench.now_ms += 10;
    let (session, _) = bench.hello("w1", 1, 1, vec![Held { key: key(1, 1, 1), started: true }]);
    bench.report(session, key(1, 1, 1), finished(End::Cancelled));
    assert_eq!(bench.run_status(), Some(RunStatus::Cancelled));
}

#[test]
fn a_paused_run_that_is_cancelled_says_that_it_goes_on() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.start(TWO);
    assert_eq!(bench.control(RunAction::Pause), Ok(Answer::Done));
    assert_eq!(bench.control(RunAction::Cancel), Ok(Answer::Done));
    assert_eq!(bench.run_status(), Some(RunStatus::Running));
    assert_eq!(bench.happened(|happening| matches!(happening, Happening::RunResumed {})), 1);
    bench.report(session, key(1, 1, 1), finished(End::Cancelled));
    assert_eq!(bench.run_status(), Some(RunStatus::Cancelled));
}

const ROUND: &str = "
version: 1
tasks:
  poll: {run: 'round ${{ loop.iteration }}', loop: {until: loop.iteration > 2, max: 3}}
";

#[test]
fn a_loop_goes_round_although_the_clock_was_set_back() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.start(ROUND);
    bench.now_ms -= 500;
    let effects = bench.report(session, key(1, 1, 1), finished(End::Completed));
    assert_eq!(assigned(&effects), [(session, key(1, 2, 2))]);
}

#[test]
fn a_report_that_comes_twice_is_one_round() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.start(ROUND);
    for _ in 0..3 {
        bench.report(session, key(1, 1, 1), finished(End::Completed));
    }
    let effects = bench.report(session, key(1, 2, 2), finished(End::Completed));
    assert!(body_of(&effects)[0].contains("round 3"), "{effects:?}");
}

#[test]
fn a_child_leaves_the_outputs_of_all_its_nodes() {
    let file = "
version: 1
tasks:
  inner: {workflow: {version: 1, tasks: {only: {kind: noop}}}}
  after: {run: 'echo ${{ tasks.inner.outputs.only.n }}', needs: inner}
";
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    let (_, effects) = bench.start(file);
    let effects = bench.report(session, assigned(&effects)[0].1, ended(json!({"n": 7})));
    assert!(body_of(&effects)[0].contains("echo 7"), "{effects:?}");
}

#[test]
fn a_run_with_a_child_that_is_being_stopped_can_be_paused() {
    let file = "
version: 1
tasks:
  inner: {workflow: {version: 1, tasks: {only: {kind: noop}}}}
  other: {kind: noop}
";
    let mut bench = Bench::new();
    bench.hello("w1", 1, 2, vec![]);
    bench.start(file);
    let child = Request::ControlRun { run: crate::ids::RunId(2), action: RunAction::Cancel };
    assert_eq!(bench.ask(child).0, Ok(Answer::Done));
    assert_eq!(bench.control(RunAction::Pause), Ok(Answer::Done));
}

#[test]
fn what_an_earlier_attempt_left_is_not_what_a_cancelled_node_ended_with() {
    let file = "
version: 1
max_parallel: 1
tasks:
  poll: {kind: noop, loop: {until: 'false', max: 3}}
  after: {run: 'saw ${{ tasks.poll.outputs }}', needs: poll, when: tasks.poll.status == 'cancelled'}
";
    let mut seen = Vec::new();
    for restarts in [false, true] {
        let mut bench = Bench::new();
        let (session, _) = bench.hello("w1", 1, 1, vec![]);
        bench.start(file);
        bench.report(session, key(1, 1, 1), ReportBody::Started { at: Wall(5) });
        assert_eq!(bench.control(RunAction::Pause), Ok(Answer::Done));
        bench.report(session, key(1, 1, 1), ended(json!({"n": 1})));
        assert!(bench.ask(Request::Cancel { tasks: vec![TaskId(1)] }).0.is_ok());
        if restarts {
            bench.restart();
            bench.now_ms += 10;
            bench.hello("w1", 1, 1, vec![]);
        }
        let resume = Request::ControlRun { run: crate::ids::RunId(1), action: RunAction::Resume };
        seen.push(body_of(&bench.ask(resume).1));
    }
    assert_eq!(seen[0], [r#"{"kind":"shell","command":"saw {}"}"#]);
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn no_items_need_no_room() {
    let file = "
version: 1
tasks: {inner: {workflow: {version: 1, tasks: {a: {kind: noop}, b: {foreach: [], kind: noop}}}}}
";
    let mut bench = Bench::new();
    bench.kernel = Kernel::new(Settings { live_tasks: 1, ..Settings::default() }, Epoch(1), maker());
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.start(file);
    bench.report(session, key(2, 1, 1), finished(End::Completed));
    assert_eq!(bench.nodes(), "a=completed b=completed inner=completed");
}

#[test]
fn a_node_of_a_run_is_made_to_wait_for_nothing_else() {
    let mut bench = Bench::new();
    bench.held(1);
    bench.start(TWO);
    let refused = Err(Rejection::PartOfRun(crate::ids::RunId(1)));
    assert_eq!(bench.relate(1, 2, Relation::Dependency), refused);
}

#[test]
fn what_takes_the_place_of_that_for_which_it_waits_waits_no_more() {
    let mut bench = Bench::new();
    let (_, _) = bench.hello("w1", 1, 1, vec![]);
    bench.held(2);
    bench.relate(1, 2, Relation::Sequential).expect("fine");
    bench.release(&[2]);
    bench.relate(1, 2, Relation::Upgrade).expect("fine");
    assert_eq!((bench.status(1), bench.status(2)), (Some(Status::Cancelled), Some(Status::Pending)));
}

#[test]
fn nothing_takes_the_place_of_that_for_which_it_waits_by_way_of_others() {
    let mut bench = Bench::new();
    bench.held(3);
    bench.relate(1, 2, Relation::Dependency).expect("fine");
    bench.relate(2, 3, Relation::Dependency).expect("fine");
    assert_eq!(bench.relate(1, 3, Relation::Upgrade), Err(Rejection::Cycle("3 -> 2 -> 3".into())));
}

#[test]
fn all_relations_of_two_tasks_are_looked_at_before_one_goes_on() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.held(2);
    bench.relate(1, 2, Relation::Dependency).expect("fine");
    bench.relate(1, 2, Relation::Context).expect("fine");
    bench.release(&[1, 2]);
    let effects = bench.report(session, key(1, 1, 1), ended(json!({"n": 7})));
    assert_eq!(body_of(&effects), [r#"{"kind":"noop","input":{"n":7}}"#]);
}

#[test]
fn predecessors_may_end_in_one_step_in_different_ways() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 2, vec![]);
    bench.held(3);
    bench.relate(1, 3, Relation::Dependency).expect("fine");
    bench.relate(2, 3, Relation::Dependency).expect("fine");
    bench.release(&[1, 2, 3]);
    let ends = [(1, End::Failed(RetryOn::Error)), (2, End::Completed)];
    let reports = ends.map(|(task, end)| Report { no: task, key: key(task, 1, 1), body: finished(end) });
    bench.step(Input::Reports { session, reports: reports.to_vec() });
    assert_eq!(bench.status(3), Some(Status::Skipped));
}

#[test]
fn what_people_changed_of_a_node_outlives_a_pause() {
    let mut bench = Bench::new();
    bench.start(TWO);
    let patch = Request::Patch { tasks: vec![TaskId(1)], priority: Some(90), group: Some("gpu".into()) };
    assert!(bench.ask(patch).0.is_ok());
    assert_eq!(bench.control(RunAction::Pause), Ok(Answer::Done));
    bench.restart();
    assert_eq!(bench.control(RunAction::Resume), Ok(Answer::Done));
    let writes = bench.batches.iter().flat_map(|batch| &batch.tasks);
    let last = writes.last().map(|write| (write.state.priority, write.state.group.to_string()));
    assert_eq!(last, Some((90, "gpu".to_owned())));
}
