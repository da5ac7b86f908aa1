//! Defects of upgrades of runs that the simulation and reviews found, each as a scenario.

use serde_json::json;

use super::run_upgrades::{OLD, VERSION_2, begun, commands, to};
use super::runs::{body_of, ended};
use super::*;
use crate::ids::RunId;
use crate::run::RunStatus;

#[test]
fn what_was_decided_on_is_decided_again_when_what_is_before_it_runs_again() {
    let old = "
version: 1
mode: pipeline
vars: {skip: true}
tasks:
  - {name: first, run: one, when: not vars.skip}
  - {name: second, run: two, input: '${{ tasks.first.status }}'}
";
    let new = old.replace("skip: true", "skip: false");
    for restarts in [false, true] {
        let mut bench = Bench::new();
        bench.hello("w1", 1, 0, vec![]);
        bench.start(old);
        bench.control(RunAction::Pause).expect("a pause");
        assert_eq!(bench.nodes(), "first=skipped second=blocked");
        assert_eq!(bench.upgrade(to(&new)).0, VERSION_2);
        if restarts {
            bench.restart();
        }
        bench.now_ms += 1;
        let (session, _) = bench.hello("w1", 1, 1, vec![]);
        let (_, effects) = bench.ask(Request::ControlRun { run: RunId(1), action: RunAction::Resume });
        assert_eq!(commands(&effects), ["one"], "the second comes after it again");
        let [(_, first)] = assigned(&effects)[..] else { panic!("{effects:?}") };
        let effects = bench.report(session, first, finished(End::Completed));
        assert!(body_of(&effects)[0].contains(r#""input":"completed""#), "{:?}", body_of(&effects));
    }
}

#[test]
fn a_loop_that_begins_anew_counts_anew() {
    let old = "
version: 1
tasks:
  a: {run: 'round ${{ loop.iteration }}', loop: {until: 'false', max: 3}}
";
    let new = old.replace("round", "turn");
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.start(old);
    bench.report(session, key(1, 1, 1), finished(End::Completed));
    bench.report(session, key(1, 2, 2), begun());
    let (reply, effects) = bench.upgrade(UpgradeRun { restart: true, ..to(&new) });
    assert_eq!(reply, VERSION_2);
    assert_eq!(commands(&effects), ["turn 1"]);
    let effects = bench.report(session, key(1, 3, 3), finished(End::Completed));
    assert_eq!(commands(&effects), ["turn 2"]);
}

/// Found by the simulation; the same holds of a rerun.
#[test]
fn a_task_that_waits_for_a_node_waits_for_its_new_end() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    bench.start("version: 1\ntasks: {a: {run: fetch}}\n");
    bench.submit(vec![task(|new, _| new.hold = true)]);
    let after = Request::Relate {
        predecessor: Predecessor { task: TaskId(1), ended: None },
        successor: TaskId(2),
        relation: crate::relation::Relation::Sequential,
    };
    bench.ask(after).0.expect("a relation");
    bench.report(session, key(1, 1, 1), finished(End::Completed));
    let again = UpgradeRun { restart_from: vec!["a".into()], ..to("version: 1\ntasks: {a: {run: fetch}}\n") };
    assert_eq!(bench.upgrade(again).0, VERSION_2);
    bench.ask(Request::Release { tasks: vec![TaskId(2)] }).0.expect("a release");
    assert_eq!(bench.status(2), Some(Status::Blocked));
    bench.report(session, key(1, 2, 2), finished(End::Completed));
    assert_eq!(bench.status(2), Some(Status::Pending));
}

#[test]
fn what_finishes_an_older_version_can_still_be_restarted() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    bench.start(OLD);
    bench.report(session, key(1, 1, 1), begun());
    let new = OLD.replace("fetch", "fetch again");
    assert_eq!(bench.upgrade(to(&new)).0, VERSION_2);
    bench.restart();
    bench.now_ms += 1;
    bench.hello("w1", 1, 4, vec![Held { key: key(1, 1, 1), started: true }]);
    let (reply, effects) = bench.upgrade(UpgradeRun { from: 2, restart: true, ..to(&new) });
    assert_eq!(reply, Ok(Answer::Upgraded { version: 3 }));
    assert_eq!(commands(&effects), ["fetch again"]);
}

#[test]
fn another_limit_of_a_foreach_holds_at_once() {
    let old = "version: 1\ntasks: {each: {foreach: [1, 2, 3], max_parallel: 1, run: 'use ${{ item }}'}}\n";
    let new = old.replace("max_parallel: 1", "max_parallel: 3");
    let mut bench = Bench::new();
    bench.hello("w1", 1, 4, vec![]);
    let (_, effects) = bench.start(old);
    assert_eq!(commands(&effects), ["use 1"]);
    let (reply, effects) = bench.upgrade(to(&new));
    assert_eq!(reply, VERSION_2);
    assert_eq!(commands(&effects), ["use 2", "use 3"]);
}

#[test]
fn a_list_that_is_shorter_after_a_restart_stops_no_master() {
    let file = "
version: 1
tasks:
  x: {run: x}
  each: {needs: x, foreach: '${{ tasks.x.outputs.list }}', run: 'use ${{ item }}', max_parallel: 2}
";
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.start(file);
    bench.report(session, key(1, 1, 1), ended(json!({"list": [1, 2, 3]})));
    // Rows may say anything: another program wrote them, or an older one.
    let last =
        bench.batches.iter_mut().flat_map(|batch| &mut batch.tasks).rfind(|write| write.id == TaskId(1));
    let shorter = Outcome { outputs: Some(r#"{"list": [1]}"#.into()), ..Outcome::default() };
    last.expect("its end").outcome = crate::batch::OutcomeChange::Set(Box::new(shorter));
    bench.restart();
    bench.now_ms += 1;
    let held = [3, 4].map(|task| Held { key: key(task, 1, 1), started: true });
    let (session, _) = bench.hello("w1", 1, 4, held.to_vec());
    bench.report(session, key(3, 1, 1), finished(End::Completed));
    bench.report(session, key(4, 1, 1), finished(End::Completed));
    assert_eq!(bench.run_status(), Some(RunStatus::Completed));
}
