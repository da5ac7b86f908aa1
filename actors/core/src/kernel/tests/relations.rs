//! Plain tasks that wait for others.

use super::*;
use crate::relation::Relation;

impl Bench {
    pub(super) fn relate(&mut self, before: u64, after: u64, relation: Relation) -> Reply {
        let predecessor = Predecessor { task: TaskId(before), ended: None };
        let request = Request::Relate { predecessor, successor: TaskId(after), relation };
        self.ask(request).0
    }

    pub(super) fn held(&mut self, count: usize) {
        self.submit((0..count).map(|_| task(|new, _| new.hold = true)).collect());
    }

    pub(super) fn release(&mut self, tasks: &[u64]) -> Vec<Effect> {
        let tasks = tasks.iter().map(|id| TaskId(*id)).collect();
        let (reply, effects) = self.ask(Request::Release { tasks });
        assert!(matches!(reply, Ok(Answer::Changed { ref refused, .. }) if refused.is_empty()), "{reply:?}");
        effects
    }
}

#[test]
fn a_diamond_runs_in_its_order() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    bench.held(4);
    for (before, after) in [(1, 2), (1, 3), (2, 4), (3, 4)] {
        bench.relate(before, after, Relation::Dependency).expect("fine");
    }
    assert_eq!(assigned(&bench.release(&[4, 3, 2, 1])), [(session, key(1, 1, 1))]);
    let effects = bench.report(session, key(1, 1, 1), finished(End::Completed));
    assert_eq!(assigned(&effects), [(session, key(2, 1, 1)), (session, key(3, 1, 1))]);
    assert!(assigned(&bench.report(session, key(2, 1, 1), finished(End::Completed))).is_empty());
    bench.restart();
    bench.now_ms += 1;
    let held = vec![Held { key: key(3, 1, 1), started: true }];
    let (session, _) = bench.hello("w1", 1, 4, held);
    let effects = bench.report(session, key(3, 1, 1), finished(End::Completed));
    assert_eq!(assigned(&effects), [(session, key(4, 1, 1))]);
}

#[test]
fn a_held_task_is_held_after_a_restart() {
    let mut bench = Bench::new();
    bench.held(1);
    bench.restart();
    let why = bench.kernel.why(TaskId(1), bench.now()).expect("live");
    assert_eq!(why.reasons[0].code, "hold");
    bench.hello("w1", 1, 1, vec![]);
    assert_eq!(assigned(&bench.release(&[1])).len(), 1);
}

#[test]
fn a_failure_skips_what_depends_on_it_and_not_what_only_follows() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    bench.held(4);
    bench.relate(1, 2, Relation::Dependency).expect("fine");
    bench.relate(2, 3, Relation::Dependency).expect("fine");
    bench.relate(2, 4, Relation::Sequential).expect("fine");
    bench.release(&[1, 2, 3, 4]);
    let effects = bench.report(session, key(1, 1, 1), finished(End::Failed(RetryOn::Error)));
    assert_eq!(assigned(&effects), [(session, key(4, 1, 1))]);
    let statuses: Vec<_> = (1..=3).map(|id| bench.status(id).expect("written")).collect();
    assert_eq!(statuses, [Status::Failed, Status::Skipped, Status::Skipped]);
}

#[test]
fn cycles_are_named_and_started_tasks_wait_for_nobody() {
    let mut bench = Bench::new();
    bench.held(3);
    bench.relate(1, 2, Relation::Dependency).expect("fine");
    bench.relate(2, 3, Relation::Sequential).expect("fine");
    assert_eq!(bench.relate(3, 1, Relation::Context), Err(Rejection::Cycle("1 -> 2 -> 3 -> 1".into())));
    assert_eq!(bench.relate(1, 1, Relation::Dependency), Err(Rejection::Cycle("1 -> 1".into())));
    let contradiction = Err(Rejection::NotParallel("1 -> 2 -> 3".into()));
    assert_eq!(bench.relate(3, 1, Relation::Parallel), contradiction);
    bench.hello("w1", 1, 1, vec![]);
    bench.release(&[1]);
    let started = Err(Rejection::HasStarted(TaskId(1)));
    bench.held(1);
    assert_eq!(bench.relate(4, 1, Relation::Dependency), started);
    assert_eq!(bench.relate(9, 2, Relation::Dependency), Err(Rejection::JustEnded(TaskId(9))));
}

#[test]
fn outputs_reach_the_successor_of_a_context() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    bench.held(3);
    bench.relate(1, 3, Relation::Context).expect("fine");
    bench.relate(2, 3, Relation::Context).expect("fine");
    bench.release(&[1, 2, 3]);
    let ended = |outputs: &str| match finished(End::Completed) {
        ReportBody::Finished(mut finished) => {
            finished.outcome.outputs = Some(outputs.into());
            ReportBody::Finished(finished)
        }
        other => other,
    };
    bench.report(session, key(2, 1, 1), ended(r#"{"x":2,"z":3}"#));
    bench.restart();
    bench.now_ms += 1;
    let (session, _) = bench.hello("w1", 1, 4, vec![Held { key: key(1, 1, 1), started: true }]);
    let effects = bench.report(session, key(1, 1, 1), ended(r#"{"x":1,"y":1}"#));
    let body = effects.iter().find_map(|effect| match effect {
        Effect::Assign { tasks, .. } => Some(tasks[0].body.to_string()),
        _ => None,
    });
    assert_eq!(body.as_deref(), Some(r#"{"kind":"noop","input":{"x":2,"y":1,"z":3}}"#));
}

#[test]
fn what_supersedes_takes_the_place() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    bench.held(3);
    bench.relate(1, 2, Relation::Dependency).expect("fine");
    bench.relate(1, 3, Relation::Upgrade).expect("fine");
    assert_eq!(bench.status(1), Some(Status::Cancelled));
    bench.release(&[2]);
    assert_eq!(bench.status(2), Some(Status::Blocked));
    bench.release(&[3]);
    let effects = bench.report(session, key(3, 1, 1), finished(End::Completed));
    assert_eq!(assigned(&effects), [(session, key(2, 1, 1))]);
}

#[test]
fn a_new_task_may_need_what_has_ended() {
    let mut bench = Bench::new();
    let needs = |ended| {
        task(move |new, _| new.needs = vec![Predecessor { task: TaskId(1), ended: Some((ended, None)) }])
    };
    bench.submit(vec![task(|_, spec| spec.payload = Payload::Milestone)]);
    bench.submit(vec![needs(Status::Completed), needs(Status::Failed)]);
    assert_eq!(bench.status(2), Some(Status::Pending));
    assert_eq!(bench.status(3), Some(Status::Skipped));
    let unknown = task(|new, _| new.needs = vec![Predecessor { task: TaskId(77), ended: None }]);
    let (reply, _) = bench.ask(Request::Submit { tasks: vec![unknown], key: None });
    assert_eq!(reply, Err(Rejection::UnknownTask(TaskId(77))));
}
