//! Tasks that wait: who takes them, what they occupy, how long they may.

use super::*;

#[test]
fn an_idle_worker_takes_over_what_waits_elsewhere() {
    let mut bench = Bench::new();
    let (busy, _) = bench.hello("w1", 1, 1, vec![]);
    bench.submit(vec![plain(), plain(), plain()]);
    let (idle, effects) = bench.hello("w2", 2, 1, vec![]);
    assert!(assigned(&effects).is_empty());
    let effects = bench.wait(10);
    assert_eq!(effects, [Effect::Return { session: busy, keys: vec![key(3, 1, 1)] }]);
    let effects = bench.report(busy, key(3, 1, 1), ReportBody::Returned {});
    assert_eq!(assigned(&effects), [(idle, key(3, 1, 2))]);
}

#[test]
fn resources_are_occupied_and_freed() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    let heavy = || task(|_, spec| spec.resources.cpus_milli = 3_000);
    let effects = bench.submit(vec![heavy(), heavy(), plain()]);
    assert_eq!(assigned(&effects).len(), 2);
    let why = bench.kernel.why(TaskId(2), bench.now()).expect("live");
    assert_eq!(why.reasons[0].code, "resources");
    let effects = bench.report(session, key(1, 1, 1), finished(End::Completed));
    assert_eq!(assigned(&effects), [(session, key(2, 1, 1))]);
}

#[test]
fn time_limits_of_the_queue_hold() {
    let mut bench = Bench::new();
    let start = Wall(1_500_000);
    bench.submit(vec![
        task(|_, spec| spec.queue_timeout_ms = Some(100)),
        task(|new, _| new.not_before = Some(start)),
    ]);
    bench.wait(99);
    assert_eq!(bench.status(1), Some(Status::Pending));
    bench.wait(1);
    assert_eq!(bench.status(1), Some(Status::Failed));
    bench.hello("w1", 1, 1, vec![]);
    assert_eq!(bench.kernel.credits("w1"), Some((0, 3)));
    bench.wait(400);
    assert_eq!(bench.kernel.credits("w1"), Some((1, 3)));
}

#[test]
fn a_milestone_completes_by_itself() {
    let mut bench = Bench::new();
    bench.submit(vec![task(|_, spec| spec.payload = Payload::Milestone)]);
    assert_eq!(bench.status(1), Some(Status::Completed));
}

#[test]
fn waiting_tasks_change_group_and_priority() {
    let mut bench = Bench::new();
    bench.submit(vec![task(|new, _| new.group = "nobody".into())]);
    let (_, effects) = bench.hello("w1", 1, 1, vec![]);
    assert!(assigned(&effects).is_empty());
    let patch = Request::Patch { tasks: vec![TaskId(1)], priority: Some(90), group: Some("gpu".into()) };
    let (reply, effects) = bench.ask(patch.clone());
    assert_eq!(reply, Ok(Answer::Changed { changed: 1, refused: vec![] }));
    assert_eq!(assigned(&effects).len(), 1);
    let (reply, _) = bench.ask(patch);
    assert!(matches!(reply, Ok(Answer::Changed { changed: 0, .. })));
}
