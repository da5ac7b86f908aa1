//! New runs that begin where other ones were.

use serde_json::{Map, Value, json};

use super::rows::Rows;
use super::runs::{body_of, ended};
use super::*;
use crate::ids::RunId;
use crate::run::RunStatus;

const CHAIN: &str = "
version: 1
vars: {word: old}
tasks:
  a: {run: make}
  b: {run: 'echo ${{ vars.word }} ${{ tasks.a.outputs.v }}', needs: a}
  c: {kind: noop, needs: b}
  side: {run: other}
";

impl Bench {
    fn fork(&mut self, from: &[&str], change: Option<(PreparedRun, Value)>) -> (Reply, Vec<Effect>) {
        let run = RunId(1);
        let from = from.iter().map(|name| (*name).into()).collect();
        let request = Request::Fork(Box::new(Fork { run, from, change }));
        let effects = self.step(Input::Request { reply: ReplyTo(7), request });
        assert_eq!(effects, [Effect::LoadRun { run, files: true, also: vec![] }]);
        let loaded = Rows::of(&self.batches).loaded(run, &self.batches);
        let mut effects = self.step(Input::RunLoaded { run, loaded: Some(Box::new(loaded)) });
        let at = effects.iter().position(|effect| matches!(effect, Effect::Reply { .. })).expect("an answer");
        let Effect::Reply { reply, .. } = effects.remove(at) else { unreachable!() };
        (reply, effects)
    }

    fn run_of(&self, run: u64) -> Option<RunStatus> {
        Rows::of(&self.batches).run_status(run)
    }
}

/// A chain that has completed, all but `b`, which failed, and `c`, which was skipped.
fn broken() -> (Bench, SessionEpoch) {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    bench.start(CHAIN);
    bench.report(session, key(1, 1, 1), ended(json!({"v": "7"})));
    bench.report(session, key(4, 1, 1), finished(End::Completed));
    bench.report(session, key(2, 1, 1), finished(End::Failed(RetryOn::Error)));
    assert_eq!(bench.run_of(1), Some(RunStatus::Failed));
    (bench, session)
}

#[test]
fn what_completed_is_taken_over_with_what_it_gave() {
    let (mut bench, session) = broken();
    let (reply, effects) = bench.fork(&[], None);
    assert_eq!(reply, Ok(Answer::RunStarted { run: RunId(2), replayed: false }));
    // Tasks 5 to 8 are the new run's; only `b` runs, and it is given what `a` gave in the other run.
    assert_eq!(assigned(&effects), [(session, key(6, 1, 1))]);
    assert!(body_of(&effects)[0].contains("echo old 7"), "{:?}", body_of(&effects));
    let effects = bench.report(session, key(6, 1, 1), finished(End::Completed));
    assert_eq!(assigned(&effects), [(session, key(7, 1, 1))]);
    bench.report(session, key(7, 1, 1), finished(End::Completed));
    assert_eq!((bench.run_of(1), bench.run_of(2)), (Some(RunStatus::Failed), Some(RunStatus::Completed)));
}

#[test]
fn a_new_master_goes_on_with_a_fork() {
    let (mut bench, _) = broken();
    assert!(bench.fork(&["a"], None).0.is_ok());
    bench.restart();
    bench.now_ms += 1;
    let held = vec![Held { key: key(5, 1, 1), started: true }];
    let (session, _) = bench.hello("w1", 1, 4, held);
    let effects = bench.report(session, key(5, 1, 1), ended(json!({"v": "8"})));
    assert!(body_of(&effects)[0].contains("echo old 8"), "{:?}", body_of(&effects));
    bench.report(session, key(6, 1, 1), finished(End::Completed));
    bench.report(session, key(7, 1, 1), finished(End::Completed));
    // `side` was taken over: it has no attempt here.
    assert_eq!(bench.run_of(2), Some(RunStatus::Completed));
}

#[test]
fn a_fork_may_have_other_values_and_the_same_nodes() {
    let (mut bench, _) = broken();
    let definition = |file: &str, word: &str| {
        let vars: Map<String, Value> = [("word".to_owned(), json!(word))].into_iter().collect();
        let definition = agentflow_workflow::read_text(file, &()).expect("a workflow");
        PreparedRun::new(definition.instantiate(&vars, &Value::Null).expect("values"))
    };
    let other = definition("version: 1\nvars: {word: x}\ntasks: {a: {kind: noop}}\n", "x");
    assert_eq!(bench.fork(&[], Some((other, Value::Null))).0, Err(Rejection::OtherNodes(RunId(1))));
    let (reply, effects) = bench.fork(&[], Some((definition(CHAIN, "new"), Value::Null)));
    assert!(reply.is_ok(), "{reply:?}");
    assert!(body_of(&effects)[0].contains("echo new 7"), "{:?}", body_of(&effects));
}

#[test]
fn a_run_that_is_at_work_may_be_forked_and_goes_on_by_itself() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 8, vec![]);
    bench.start(CHAIN);
    bench.report(session, key(1, 1, 1), ended(json!({"v": "7"})));
    assert_eq!(bench.fork(&["x"], None).0, Err(Rejection::UnknownNode("x".into())));
    assert_eq!(bench.fork(&[], None).0, Err(Rejection::NothingFailed(RunId(1))));
    let (reply, effects) = bench.fork(&["c"], None);
    assert_eq!(reply, Ok(Answer::RunStarted { run: RunId(2), replayed: false }));
    // `a` had completed; `b` and `side` run in both.
    assert_eq!(assigned(&effects), [(session, key(6, 1, 1)), (session, key(8, 1, 1))]);
    for task in [2, 4, 6, 8] {
        bench.report(session, key(task, 1, 1), finished(End::Completed));
    }
    bench.report(session, key(3, 1, 1), finished(End::Completed));
    bench.report(session, key(7, 1, 1), finished(End::Completed));
    assert_eq!((bench.run_of(1), bench.run_of(2)), (Some(RunStatus::Completed), Some(RunStatus::Completed)));
}
