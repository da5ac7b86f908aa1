//! Runs that get another workflow, with a new master in between.

use agentflow_workflow::read_text;
use serde_json::{Map, Value, json};

use super::rows::Rows;
use super::runs::{body_of, ended};
use super::*;
use crate::ids::RunId;
use crate::run::RunStatus;
use crate::run::mapping::{MappingError, Named};

pub(super) const OLD: &str = "
version: 1
tasks:
  a: {run: fetch}
  b: {run: make, needs: a}
  c: {run: check, needs: b}
";

fn prepared(file: &str) -> PreparedRun {
    let definition = read_text(file, &()).expect("a workflow");
    PreparedRun::new(definition.instantiate(&Map::new(), &Value::Null).expect("values"))
}

/// To that workflow, from the version that the run has.
pub(super) fn to(file: &str) -> UpgradeRun {
    UpgradeRun {
        run: RunId(1),
        from: 1,
        prepared: prepared(file),
        inputs: Value::Null,
        map: Named::new(),
        restart_from: vec![],
        restart: false,
        reason: "better".into(),
        author: "ada".into(),
    }
}

impl Bench {
    pub(super) fn upgrade(&mut self, upgrade: UpgradeRun) -> (Reply, Vec<Effect>) {
        let run = upgrade.run;
        let request = Request::UpgradeRun(Box::new(upgrade));
        let mut effects = self.step(Input::Request { reply: ReplyTo(7), request });
        if matches!(effects[..], [Effect::LoadRun { .. }]) {
            let loaded = Rows::of(&self.batches).loaded(run, &self.batches);
            effects = self.step(Input::RunLoaded { run, loaded: Some(Box::new(loaded)) });
        }
        let at = effects.iter().position(|effect| matches!(effect, Effect::Reply { .. })).expect("an answer");
        let Effect::Reply { reply, .. } = effects.remove(at) else { unreachable!("an answer") };
        (reply, effects)
    }

    fn refused(&mut self, upgrade: UpgradeRun) -> Rejection {
        let before = self.batches.len();
        let rejection = self.upgrade(upgrade).0.expect_err("a refusal");
        assert_eq!(self.batches.len(), before, "a refusal writes nothing");
        rejection
    }

    /// The name and the task of each node that has a row.
    fn tasks(&self) -> String {
        let rows = Rows::of(&self.batches);
        let name = |row: &crate::batch::TaskRow| row.run.as_ref().map(|run| run.node.to_string());
        let named = rows.tasks.values().filter_map(|(row, _)| Some(format!("{}:{}", name(row)?, row.id)));
        named.collect::<Vec<_>>().join(" ")
    }
}

pub(super) fn commands(effects: &[Effect]) -> Vec<String> {
    let command = |body: &String| {
        let body: Value = serde_json::from_str(body).expect("JSON");
        body["command"].as_str().expect("a command").to_owned()
    };
    body_of(effects).iter().map(command).collect()
}

pub(super) fn begun() -> ReportBody {
    ReportBody::Started { at: Wall(1) }
}

pub(super) const VERSION_2: Reply = Ok(Answer::Upgraded { version: 2 });

#[test]
fn what_runs_finishes_and_what_has_not_begun_is_what_the_new_one_says() {
    let new = "
version: 1
tasks:
  a: {run: fetch --all}
  lint: {run: lint, needs: a}
  b: {run: make all, needs: a}
  d: {run: publish, needs: [b, lint]}
";
    for restarts in [false, true] {
        let mut bench = Bench::new();
        let (mut session, _) = bench.hello("w1", 1, 4, vec![]);
        bench.start(OLD);
        bench.report(session, key(1, 1, 1), begun());
        let (reply, effects) = bench.upgrade(to(new));
        assert_eq!((reply, effects), (VERSION_2, vec![]));
        if restarts {
            bench.restart();
            bench.now_ms += 1;
            (session, _) = bench.hello("w1", 1, 4, vec![Held { key: key(1, 1, 1), started: true }]);
        }
        let effects = bench.report(session, key(1, 1, 1), finished(End::Completed));
        assert_eq!(commands(&effects), ["make all", "lint"]);
        assert_eq!(bench.tasks(), "a:1 b:2 lint:4", "kept nodes have kept their numbers");
        for (_, key) in assigned(&effects) {
            bench.report(session, key, finished(End::Completed));
        }
        assert_eq!(bench.nodes(), "a=completed b=completed d=pending lint=completed");
        bench.report(session, key(5, 1, 1), finished(End::Completed));
        assert_eq!(bench.run_status(), Some(RunStatus::Completed));
        let rows = Rows::of(&bench.batches);
        let of = |row: &crate::batch::RunVersionRow| (row.version, row.reason.to_string());
        let versions: Vec<_> = rows.run_versions.iter().map(of).collect();
        assert_eq!(versions, [(1, String::new()), (2, "better".to_owned())]);
        assert!(rows.outdated.is_empty());
    }
}

#[test]
fn an_attempt_after_that_is_made_anew() {
    let new = OLD.replace("run: fetch", "run: fetch again");
    for restarts in [false, true] {
        let mut bench = Bench::new();
        let (mut session, _) = bench.hello("w1", 1, 4, vec![]);
        bench.start(&OLD.replace("run: fetch", "run: fetch, retry: {max: 1, backoff_ms: 60000}"));
        bench.report(session, key(1, 1, 1), begun());
        assert_eq!(bench.upgrade(to(&new)).0, VERSION_2);
        assert_eq!(Rows::of(&bench.batches).outdated.len(), 1);
        if restarts {
            bench.restart();
            bench.now_ms += 1;
            (session, _) = bench.hello("w1", 1, 4, vec![Held { key: key(1, 1, 1), started: true }]);
        }
        let effects = bench.report(session, key(1, 1, 1), finished(End::Failed(RetryOn::Error)));
        assert_eq!(commands(&effects), ["fetch again"], "at once, and anew");
        assert!(Rows::of(&bench.batches).outdated.is_empty());
        bench.report(session, key(1, 2, 2), finished(End::Failed(RetryOn::Error)));
        assert_eq!(bench.run_status(), Some(RunStatus::Failed));
    }
}

#[test]
fn what_only_waits_at_its_worker_is_asked_back() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    bench.start(OLD);
    let (reply, effects) = bench.upgrade(to(&OLD.replace("fetch", "fetch again")));
    assert_eq!((reply, effects), (VERSION_2, vec![Effect::Return { session, keys: vec![key(1, 1, 1)] }]));
    let effects = bench.report(session, key(1, 1, 1), ReportBody::Returned {});
    assert_eq!(commands(&effects), ["fetch again"]);
}

#[test]
fn restart_takes_what_is_at_work() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    bench.start(OLD);
    bench.report(session, key(1, 1, 1), begun());
    let new = OLD.replace("fetch", "fetch again");
    let (reply, effects) = bench.upgrade(UpgradeRun { restart: true, ..to(&new) });
    assert_eq!(reply, VERSION_2);
    assert!(effects.contains(&Effect::Drop { session, keys: vec![key(1, 1, 1)] }), "{effects:?}");
    assert_eq!(commands(&effects), ["fetch again"]);
    let late = bench.report(session, key(1, 1, 1), finished(End::Completed));
    assert_eq!(assigned(&late), [], "a late report changes nothing");
    bench.report(session, key(1, 2, 2), finished(End::Completed));
    assert_eq!(bench.nodes(), "a=completed b=pending");
}

#[test]
fn names_move_with_their_tasks_and_values() {
    let old = "
version: 1
tasks:
  a: {run: one}
  b: {run: two, needs: a}
  gone: {run: three, needs: b}
";
    let new = "
version: 1
tasks:
  b: {run: one}
  a: {run: two, needs: b}
  use: {run: 'use ${{ tasks.b.outputs.n }} ${{ tasks.a.status }}', needs: a}
";
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.start(old);
    bench.report(session, key(1, 1, 1), ended(json!({"n": 7})));
    bench.report(session, key(2, 1, 1), begun());
    bench.control(RunAction::Pause).expect("a pause");
    let map = [("b".into(), Some("a".into())), ("a".into(), Some("b".into()))].into();
    assert_eq!(bench.upgrade(UpgradeRun { map, ..to(new) }).0, VERSION_2);
    assert_eq!(bench.tasks(), "b:1 a:2");
    bench.restart();
    bench.now_ms += 1;
    let (session, _) = bench.hello("w1", 1, 1, vec![Held { key: key(2, 1, 1), started: true }]);
    bench.report(session, key(2, 1, 1), finished(End::Completed));
    let (_, effects) = bench.ask(Request::ControlRun { run: RunId(1), action: RunAction::Resume });
    assert_eq!(commands(&effects), ["use 7 completed"]);
    bench.report(session, key(4, 1, 1), finished(End::Completed));
    assert_eq!(bench.nodes(), "a=completed b=completed use=completed");
    assert_eq!(bench.run_status(), Some(RunStatus::Completed));
}

#[test]
fn what_is_gone_stays_in_the_history_under_another_name() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    bench.start("version: 1\ntasks:\n  a: {run: x}\n  b: {run: y}\n  g: {run: z, approval: true}\n");
    bench.report(session, key(1, 1, 1), finished(End::Completed));
    bench.report(session, key(2, 1, 1), begun());
    let other = "version: 1\ntasks:\n  c: {run: x}\n";
    assert_eq!(bench.refused(to(other)), Rejection::OtherWork("b".into()));
    let (reply, effects) = bench.upgrade(UpgradeRun { restart: true, ..to(other) });
    assert_eq!(reply, VERSION_2);
    assert!(effects.contains(&Effect::Cancel { session, keys: vec![key(2, 1, 1)] }), "{effects:?}");
    assert_eq!(commands(&effects), ["x"]);
    assert_eq!(bench.nodes(), "a~v1=completed b~v1=running c=pending g~v1=skipped");
    // Its end is nobody's any more.
    bench.restart();
    bench.now_ms += 1;
    let held = vec![Held { key: key(2, 1, 1), started: true }, Held { key: key(4, 1, 1), started: false }];
    let (session, _) = bench.hello("w1", 1, 4, held);
    bench.report(session, key(4, 1, 1), finished(End::Completed));
    assert_eq!(bench.run_status(), Some(RunStatus::Completed));
    bench.report(session, key(2, 1, 1), finished(End::Cancelled));
    assert_eq!(bench.status(2), Some(Status::Cancelled));
}

#[test]
fn a_run_that_failed_is_mended() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    bench.start(OLD);
    bench.report(session, key(1, 1, 1), ended(json!({"n": 3})));
    bench.report(session, key(2, 1, 1), finished(End::Failed(RetryOn::Error)));
    assert_eq!(bench.run_status(), Some(RunStatus::Failed));
    let new = OLD.replace("run: make", "run: 'make ${{ tasks.a.outputs.n }}'");
    assert_eq!(bench.refused(to(&new)), Rejection::NothingToRun(RunId(1)));
    let from = |name: &str| UpgradeRun { restart_from: vec![name.into()], ..to(&new) };
    assert_eq!(bench.refused(from("x")), Rejection::Mapping(MappingError::NoStart("x".into())));
    let (reply, effects) = bench.upgrade(from("b"));
    assert_eq!(reply, VERSION_2);
    assert_eq!(commands(&effects), ["make 3"], "a value that nobody had read");
    assert_eq!(assigned(&effects), [(session, key(2, 2, 2))]);
    bench.report(session, key(2, 2, 2), finished(End::Completed));
    bench.report(session, key(3, 1, 1), finished(End::Completed));
    assert_eq!(bench.nodes(), "a=completed b=completed c=completed");
    assert_eq!(bench.run_status(), Some(RunStatus::Completed));
}

#[test]
fn a_new_node_lets_what_was_skipped_be_decided_on_again() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    bench.start(OLD);
    bench.report(session, key(1, 1, 1), finished(End::Failed(RetryOn::Error)));
    assert_eq!(bench.nodes(), "a=failed b=skipped c=skipped");
    let new = "
version: 1
tasks:
  a: {run: fetch}
  other: {run: other}
  b: {run: make, needs: other}
  c: {run: check, needs: b}
";
    let (reply, effects) = bench.upgrade(to(new));
    assert_eq!(reply, VERSION_2);
    assert_eq!(commands(&effects), ["other"]);
    let effects = bench.report(session, key(4, 1, 1), finished(End::Completed));
    assert_eq!(commands(&effects), ["make"]);
}

#[test]
fn what_waits_for_an_approval_asks_again_only_when_it_is_something_else() {
    let old = "
version: 1
tasks:
  a: {run: a, approval: true}
  b: {run: b, approval: true}
";
    let new = old.replace("run: b", "run: bb").replace("tasks:", "tasks:\n  first: {run: first}");
    let mut bench = Bench::new();
    bench.hello("w1", 1, 4, vec![]);
    bench.start(old);
    bench.control(RunAction::Pause).expect("a pause");
    for task in [1, 2] {
        bench.ask(Request::Approve { task: TaskId(task) }).0.expect("an approval");
    }
    assert_eq!(bench.upgrade(to(&new)).0, VERSION_2);
    bench.restart();
    bench.now_ms += 1;
    bench.hello("w1", 1, 4, vec![]);
    let (_, effects) = bench.ask(Request::ControlRun { run: RunId(1), action: RunAction::Resume });
    assert_eq!(commands(&effects), ["a", "first"]);
    let (_, effects) = bench.ask(Request::Approve { task: TaskId(2) });
    assert_eq!(commands(&effects), ["bb"]);
}

#[test]
fn items_that_are_at_work_go_on_and_the_others_have_the_new_body() {
    let old = "
version: 1
tasks:
  before: {run: x, needs: []}
  each: {foreach: [1, 2, 3], max_parallel: 1, run: 'old ${{ item }}'}
  after: {run: 'got ${{ tasks.each.outputs | tojson }}', needs: each}
";
    let new = old
        .replace("old", "new")
        .replace("  before: {run: x, needs: []}\n", "")
        .replace("  each:", "  every:")
        .replace("tasks.each", "tasks.every")
        .replace("needs: each", "needs: every");
    for restarts in [false, true] {
        let mut bench = Bench::new();
        let (mut session, _) = bench.hello("w1", 1, 4, vec![]);
        bench.start(old);
        bench.report(session, key(1, 1, 1), finished(End::Completed));
        let first = 4;
        bench.report(session, key(first, 1, 1), begun());
        let map: Named = [("every".into(), Some("each".into()))].into();
        assert_eq!(bench.upgrade(UpgradeRun { map, ..to(&new) }).0, VERSION_2);
        assert_eq!(bench.tasks(), "before~v1:1 every:2 every[0]:4");
        if restarts {
            bench.restart();
            bench.now_ms += 1;
            (session, _) = bench.hello("w1", 1, 4, vec![Held { key: key(first, 1, 1), started: true }]);
        }
        let effects = bench.report(session, key(first, 1, 1), ended(json!({"n": 1})));
        assert_eq!(commands(&effects), ["new 2"]);
        let effects = bench.report(session, key(first + 1, 1, 1), ended(json!({"n": 2})));
        assert_eq!(commands(&effects), ["new 3"]);
        let effects = bench.report(session, key(first + 2, 1, 1), ended(json!({"n": 3})));
        assert_eq!(commands(&effects), [r#"got [{"n":1},{"n":2},{"n":3}]"#]);
    }
}

#[test]
fn a_child_goes_on_under_its_parent() {
    let old = "
version: 1
tasks:
  a: {workflow: {tasks: {x: {run: inner}}}}
  b: {run: make, needs: a}
";
    let new = old.replace("b: {run: make", "b: {run: make all");
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    bench.start(old);
    let other = old.replace("inner", "other");
    assert_eq!(bench.refused(to(&other)), Rejection::OtherWork("a".into()));
    assert_eq!(bench.upgrade(to(&new)).0, VERSION_2);
    // The child has a workflow of its own, and is upgraded as any run.
    let inner = "version: 1\ntasks: {x: {run: inner}, y: {run: another, needs: x}}\n";
    let (reply, _) = bench.upgrade(UpgradeRun { run: RunId(2), ..to(inner) });
    assert_eq!(reply, VERSION_2);
    let effects = bench.report(session, key(3, 1, 1), finished(End::Completed));
    assert_eq!(commands(&effects), ["another"]);
    let [(_, y)] = assigned(&effects)[..] else { panic!("{effects:?}") };
    let effects = bench.report(session, y, finished(End::Completed));
    assert_eq!(commands(&effects), ["make all"]);
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    bench.start(OLD);
    bench.report(session, key(1, 1, 1), begun());
    let stale = UpgradeRun { from: 3, ..to(OLD) };
    assert_eq!(bench.refused(stale), Rejection::OtherVersion { expected: 3, current: 1 });
    let unknown = UpgradeRun { run: RunId(9), ..to(OLD) };
    assert_eq!(bench.refused(unknown), Rejection::UnknownRun(RunId(9)));
    let other = OLD.replace("fetch", "other");
    let from = UpgradeRun { restart_from: vec!["a".into()], ..to(&other) };
    assert_eq!(bench.refused(from), Rejection::OtherWork("a".into()));
    // What is being stopped cannot begin anew.
    bench.ask(Request::Cancel { tasks: vec![TaskId(1)] }).0.expect("an answer");
    let restart = UpgradeRun { restart: true, ..to(&other) };
    assert_eq!(bench.refused(restart), Rejection::OtherWork("a".into()));
    bench.control(RunAction::Cancel).expect("an end");
    assert!(matches!(bench.refused(to(&other)), Rejection::IllegalRun { .. }));
}

#[test]
fn a_run_that_ends_while_its_rows_are_read_is_asked_for_again() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    bench.start("version: 1\ntasks: {a: {run: x}}\n");
    let request = Request::UpgradeRun(Box::new(to("version: 1\ntasks: {a: {run: x}, b: {run: y}}\n")));
    bench.step(Input::Request { reply: ReplyTo(7), request });
    let loaded = Rows::of(&bench.batches).loaded(RunId(1), &bench.batches);
    bench.report(session, key(1, 1, 1), finished(End::Completed));
    let effects = bench.step(Input::RunLoaded { run: RunId(1), loaded: Some(Box::new(loaded)) });
    assert_eq!(effects, [Effect::Reply { to: ReplyTo(7), reply: Err(Rejection::Busy) }]);
}
