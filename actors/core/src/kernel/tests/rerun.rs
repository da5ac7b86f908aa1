//! Runs that go over a part of themselves again.

use serde_json::{Map, Value, json};

use super::rows::Rows;
use super::*;
use crate::ids::{CheckpointId, RunId};
use crate::run::RunStatus;

impl Bench {
    fn again(&mut self, from: &[&str], only_skipped: bool) -> (Reply, Vec<Effect>) {
        self.again_with(from, only_skipped, None)
    }

    fn again_with(
        &mut self,
        from: &[&str],
        only_skipped: bool,
        change: Option<(PreparedRun, Value)>,
    ) -> (Reply, Vec<Effect>) {
        let run = RunId(1);
        let from = from.iter().map(|name| (*name).into()).collect();
        let again =
            Box::new(Again { run, from, only_skipped, continue_from: ContinueFrom::Beginning, change });
        let request = Input::Request { reply: ReplyTo(7), request: Request::Rerun(again) };
        assert_eq!(self.step(request), [Effect::LoadRun { run, files: false, also: vec![] }]);
        let loaded = Rows::of(&self.batches).loaded(run, &self.batches);
        let mut effects = self.step(Input::RunLoaded { run, loaded: Some(Box::new(loaded)) });
        let at = effects.iter().position(|effect| matches!(effect, Effect::Reply { .. })).expect("an answer");
        let Effect::Reply { reply, .. } = effects.remove(at) else { unreachable!() };
        (reply, effects)
    }

    /// Runs a node of run 1 again, unless that is refused; gives back what follows.
    pub(super) fn rerun_if_possible(&mut self, node: &str) -> (Reply, Vec<Effect>) {
        let run = RunId(1);
        let again = Box::new(Again {
            run,
            from: vec![node.into()],
            only_skipped: false,
            continue_from: ContinueFrom::Beginning,
            change: None,
        });
        let mut effects = self.step(Input::Request { reply: ReplyTo(8), request: Request::Rerun(again) });
        if let Some(at) =
            effects.iter().position(|effect| *effect == Effect::LoadRun { run, files: false, also: vec![] })
        {
            effects.remove(at);
            let loaded = Rows::of(&self.batches).loaded(run, &self.batches);
            effects.extend(self.step(Input::RunLoaded { run, loaded: Some(Box::new(loaded)) }));
        }
        let at = effects.iter().position(|effect| matches!(effect, Effect::Reply { .. })).expect("an answer");
        let Effect::Reply { reply, .. } = effects.remove(at) else { unreachable!("an answer") };
        (reply, effects)
    }

    /// The attempts that were given away in these effects, ended well.
    fn complete(&mut self, session: SessionEpoch, effects: &[Effect]) -> Vec<Effect> {
        let mut next = Vec::new();
        for (_, key) in assigned(effects) {
            next.extend(self.report(session, key, finished(End::Completed)));
        }
        next
    }
}

const CHAIN: &str = "
version: 1
vars: {word: old}
tasks:
  a: {kind: noop}
  b: {run: 'echo ${{ vars.word }}', needs: a}
  c: {kind: noop, needs: b}
  side: {kind: noop, needs: a}
";

/// A chain of which `b` has failed, so that `c` was skipped.
fn broken() -> (Bench, SessionEpoch) {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    bench.start(CHAIN);
    bench.report(session, key(1, 1, 1), finished(End::Completed));
    bench.report(session, key(4, 1, 1), finished(End::Completed));
    bench.report(session, key(2, 1, 1), finished(End::Failed(RetryOn::Error)));
    assert_eq!(bench.nodes(), "a=completed b=failed c=skipped side=completed");
    assert_eq!(bench.run_status(), Some(RunStatus::Failed));
    (bench, session)
}

#[test]
fn what_failed_runs_again_with_what_was_skipped_because_of_it() {
    let (mut bench, session) = broken();
    let (reply, effects) = bench.again(&[], true);
    assert_eq!(reply, Ok(Answer::Done));
    assert_eq!(bench.run_status(), Some(RunStatus::Running));
    assert_eq!(assigned(&effects), [(session, key(2, 2, 2))]);
    let effects = bench.complete(session, &effects);
    assert_eq!(assigned(&effects), [(session, key(3, 1, 1))]);
    bench.complete(session, &effects);
    assert_eq!(bench.nodes(), "a=completed b=completed c=completed side=completed");
    assert_eq!(bench.run_status(), Some(RunStatus::Completed));
    assert_eq!(bench.again(&[], true).0, Err(Rejection::NothingFailed(RunId(1))));
}

#[test]
fn a_rerun_from_a_node_takes_everything_after_it_and_nothing_else() {
    let (mut bench, session) = broken();
    assert_eq!(bench.again(&["x"], false).0, Err(Rejection::UnknownNode("x".into())));
    let (reply, effects) = bench.again(&["b"], false);
    assert_eq!(reply, Ok(Answer::Done));
    // A new master goes on with it.
    bench.restart();
    bench.now_ms += 1;
    let held = vec![Held { key: key(2, 2, 2), started: true }];
    let (session2, _) = bench.hello("w1", 1, 4, held);
    assert!(session2 > session);
    assert_eq!(bench.nodes(), "a=completed b=pending c=blocked side=completed");
    let effects = bench.complete(session2, &effects);
    bench.complete(session2, &effects);
    assert_eq!(bench.nodes(), "a=completed b=completed c=completed side=completed");
}

#[test]
fn a_node_that_is_retried_goes_on_where_it_was_and_one_that_is_run_again_begins_anew() {
    for (continue_from, expected) in
        [(ContinueFrom::Checkpoint, Some(CheckpointId(1))), (ContinueFrom::Beginning, None)]
    {
        let mut bench = Bench::new();
        let (session, _) = bench.hello("w1", 1, 4, vec![]);
        bench.start(CHAIN);
        bench.report(session, key(1, 1, 1), finished(End::Completed));
        bench.report(session, key(2, 1, 1), ReportBody::Started { at: Wall(5) });
        bench.saves(session, 1, key(2, 1, 1), "step").expect("saved");
        bench.report(session, key(2, 1, 1), finished(End::Failed(RetryOn::Error)));
        let run = RunId(1);
        let again = Again { run, from: vec!["b".into()], only_skipped: true, continue_from, change: None };
        let request = Request::Rerun(Box::new(again));
        bench.step(Input::Request { reply: ReplyTo(7), request });
        let loaded = Rows::of(&bench.batches).loaded(run, &bench.batches);
        let effects = bench.step(Input::RunLoaded { run, loaded: Some(Box::new(loaded)) });
        let begun = effects.iter().find_map(|effect| match effect {
            Effect::Assign { tasks, .. } => Some((tasks[0].key, tasks[0].checkpoint)),
            _ => None,
        });
        assert_eq!(begun, Some((key(2, 2, 2), expected)));
    }
}

#[test]
fn what_is_at_work_is_not_run_again() {
    let (mut bench, _) = broken();
    assert_eq!(bench.again(&["b"], false).0, Ok(Answer::Done));
    assert_eq!(bench.again(&["a"], false).0, Err(Rejection::NodeAtWork("b".into())));
    // Another branch may be run again meanwhile.
    assert_eq!(bench.again(&["side"], false).0, Ok(Answer::Done));
}

#[test]
fn other_values_count_from_then_on() {
    let (mut bench, _) = broken();
    let definition = |file: &str, word: &str| {
        let vars: Map<String, Value> = [("word".to_owned(), json!(word))].into_iter().collect();
        let definition = agentflow_workflow::read_text(file, &()).expect("a workflow");
        PreparedRun::new(definition.instantiate(&vars, &Value::Null).expect("values"))
    };
    let other = definition("version: 1\nvars: {word: x}\ntasks: {a: {kind: noop}}\n", "x");
    let refused = bench.again_with(&["b"], false, Some((other, Value::Null))).0;
    assert_eq!(refused, Err(Rejection::OtherNodes(RunId(1))));
    let change = Some((definition(CHAIN, "new"), Value::Null));
    let (reply, effects) = bench.again_with(&["b"], false, change);
    assert_eq!(reply, Ok(Answer::Done));
    let body = effects.iter().find_map(|effect| match effect {
        Effect::Assign { tasks, .. } => Some(tasks[0].body.to_string()),
        _ => None,
    });
    assert_eq!(body.as_deref(), Some(r#"{"kind":"shell","command":"echo new"}"#));
    let versions = || Rows::of(&bench.batches).run_versions.iter().map(|row| row.version).collect::<Vec<_>>();
    assert_eq!(versions(), [1, 2], "they are another version");
}

#[test]
fn the_items_of_a_foreach_are_made_anew() {
    let file = "version: 1\ntasks: {each: {kind: noop, foreach: [1, 2]}, end: {kind: noop, needs: each}}\n";
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    let (_, effects) = bench.start(file);
    let effects = bench.complete(session, &effects);
    bench.complete(session, &effects);
    let (reply, effects) = bench.again(&["each"], false);
    assert_eq!(reply, Ok(Answer::Done));
    assert_eq!(assigned(&effects).len(), 2);
    bench.report(session, assigned(&effects)[0].1, finished(End::Completed));
    bench.restart();
    bench.now_ms += 1;
    let last = assigned(&effects)[1].1;
    let (session, _) = bench.hello("w1", 1, 4, vec![Held { key: last, started: true }]);
    let effects = bench.report(session, last, finished(End::Completed));
    bench.complete(session, &effects);
    assert_eq!(bench.run_status(), Some(RunStatus::Completed));
    assert!(bench.nodes().contains("each[1]@2=completed"), "{}", bench.nodes());
}
