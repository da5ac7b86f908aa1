//! Runs of workflows, from the file to their end, with a new master in between.

use std::collections::{BTreeMap, BTreeSet};

use agentflow_workflow::read_text;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::rows::Rows;
use super::*;
use crate::ids::RunId;
use crate::run::RunStatus;

impl Bench {
    pub(super) fn start(&mut self, file: &str) -> (u64, Vec<Effect>) {
        let definition = read_text(file, &()).expect("a workflow");
        let definition = definition.instantiate(&Map::new(), &Value::Null).expect("values");
        let run = Box::new(NewRun { prepared: PreparedRun::new(definition), inputs: Value::Null });
        let (reply, effects) = self.ask(Request::StartRun { run, key: None });
        match reply {
            Ok(Answer::RunStarted { run, replayed: false }) => (run.0, effects),
            other => panic!("no run: {other:?}"),
        }
    }

    pub(super) fn control(&mut self, action: RunAction) -> Reply {
        self.ask(Request::ControlRun { run: RunId(1), action }).0
    }

    pub(super) fn nodes(&self) -> String {
        let nodes = Rows::of(&self.batches).nodes();
        nodes.into_iter().map(|(name, status)| format!("{name}={status}")).collect::<Vec<_>>().join(" ")
    }

    pub(super) fn run_status(&self) -> Option<RunStatus> {
        Rows::of(&self.batches).run_status(1)
    }
}

pub(super) fn body_of(effects: &[Effect]) -> Vec<String> {
    let tasks = effects.iter().filter_map(|effect| match effect {
        Effect::Assign { tasks, .. } => Some(tasks),
        _ => None,
    });
    tasks.flatten().map(|task| task.body.to_string()).collect()
}

pub(super) fn ended(outputs: Value) -> ReportBody {
    match finished(End::Completed) {
        ReportBody::Finished(mut finished) => {
            finished.outcome.outputs = Some(outputs.to_string().into());
            ReportBody::Finished(finished)
        }
        other => other,
    }
}

#[test]
fn the_next_step_leaves_in_the_step_that_ends_the_last() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    let (_, effects) =
        bench.start("version: 1\nmode: sequential\ntasks:\n  a: {kind: noop}\n  b: {kind: noop}\n");
    assert_eq!(assigned(&effects), [(session, key(1, 1, 1))]);
    assert_eq!(bench.run_status(), Some(RunStatus::Running));
    let effects = bench.report(session, key(1, 1, 1), finished(End::Completed));
    assert_eq!(assigned(&effects), [(session, key(2, 1, 1))]);
    bench.report(session, key(2, 1, 1), finished(End::Completed));
    assert_eq!(bench.nodes(), "a=completed b=completed");
    assert_eq!(bench.run_status(), Some(RunStatus::Completed));
}

#[test]
fn values_flow_between_nodes_and_survive_a_restart() {
    let file = "
version: 1
vars: {who: world}
tasks:
  a: {kind: noop}
  b: {run: 'echo ${{ vars.who }} ${{ tasks.a.outputs.n }}', needs: a}
";
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    bench.start(file);
    bench.restart();
    bench.now_ms += 1;
    let (_, _) = bench.hello("w1", 1, 4, vec![Held { key: key(1, 1, 1), started: true }]);
    let session2 = SessionEpoch(bench.now_ms * 100 + 1);
    assert!(session2 > session);
    let effects = bench.report(session2, key(1, 1, 1), ended(json!({"n": 7})));
    assert_eq!(body_of(&effects), [r#"{"kind":"shell","command":"echo world 7"}"#]);
}

#[test]
fn conditions_decide_and_errors_in_them_fail_the_node() {
    let file = "
version: 1
mode: conditional
tasks:
  a: {kind: noop}
  yes: {kind: noop, needs: a, when: tasks.a.outputs.n > 1}
  no: {kind: noop, needs: a, when: tasks.a.outputs.n > 2}
  after-no: {kind: noop, needs: no}
  join: {kind: noop, needs: [yes, no]}
  bad: {kind: noop, needs: a, when: tasks.a.outputs.missing > 1}
";
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 9, vec![]);
    bench.start(file);
    bench.report(session, key(1, 1, 1), ended(json!({"n": 2})));
    bench.report(session, key(2, 1, 1), finished(End::Completed));
    bench.report(session, key(5, 1, 1), finished(End::Completed));
    assert_eq!(
        bench.nodes(),
        "a=completed after-no=skipped bad=failed join=completed no=skipped yes=completed"
    );
    assert_eq!(bench.run_status(), Some(RunStatus::Failed));
}

#[test]
fn each_item_of_a_foreach_is_a_task_and_its_value_is_collected() {
    let file = "
version: 1
tasks:
  list: {kind: noop}
  each: {run: 'echo ${{ item }} ${{ index }}', foreach: '${{ tasks.list.outputs.names }}', needs: list, max_parallel: 2}
  sum: {run: 'echo ${{ tasks.each.outputs | join(\",\") }}', needs: each}
";
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 9, vec![]);
    bench.start(file);
    let effects = bench.report(session, key(1, 1, 1), ended(json!({"names": ["x", "y", "z"]})));
    assert_eq!(assigned(&effects), [(session, key(4, 1, 1)), (session, key(5, 1, 1))]);
    assert!(body_of(&effects)[1].contains("echo y 1"));
    let effects = bench.report(session, key(4, 1, 1), ended(json!("X")));
    assert_eq!(assigned(&effects), [(session, key(6, 1, 1))]);
    bench.report(session, key(5, 1, 1), ended(json!("Y")));
    bench.restart();
    bench.now_ms += 1;
    let (session, _) = bench.hello("w1", 1, 9, vec![Held { key: key(6, 1, 1), started: true }]);
    let effects = bench.report(session, key(6, 1, 1), ended(json!("Z")));
    assert_eq!(body_of(&effects), [r#"{"kind":"shell","command":"echo X,Y,Z"}"#]);
    assert!(bench.nodes().contains("each=completed each[0]=completed each[1]=completed"));
}

#[test]
fn a_pipeline_passes_outputs_on_item_by_item() {
    let file = "
version: 1
mode: pipeline
items: [1, 2]
tasks:
  - {name: one, kind: noop}
  - {name: two, kind: noop}
";
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 9, vec![]);
    let (_, effects) = bench.start(file);
    assert_eq!(effects.len(), 1);
    let first = assigned(&effects);
    assert_eq!(body_of(&effects), [r#"{"kind":"noop","input":1}"#, r#"{"kind":"noop","input":2}"#]);
    let effects = bench.report(session, first[1].1, ended(json!({"n": 20})));
    assert_eq!(body_of(&effects), [r#"{"kind":"noop","input":{"n":20}}"#]);
}

#[test]
fn approvals_need_no_process_and_survive_a_restart() {
    let file = "
version: 1
mode: sequential
tasks:
  ask: {approval: 'release ${{ run.name }}?'}
  go: {kind: noop}
";
    let mut bench = Bench::new();
    bench.start(file);
    let why = bench.kernel.why(TaskId(1), bench.now()).expect("live");
    assert!(why.reasons[0].detail.contains("release"), "{why:?}");
    bench.restart();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    let (reply, effects) = bench.ask(Request::Approve { task: TaskId(1) });
    assert_eq!(reply, Ok(Answer::Done));
    assert_eq!(assigned(&effects), [(session, key(2, 1, 1))]);
    assert!(matches!(bench.ask(Request::Approve { task: TaskId(2) }).0, Err(Rejection::Illegal { .. })));

    let mut bench = Bench::new();
    bench.start(file);
    let (reply, _) = bench.ask(Request::Reject { task: TaskId(1), reason: "no".into() });
    assert_eq!(reply, Ok(Answer::Done));
    assert_eq!(bench.nodes(), "ask=failed go=skipped");
}

#[test]
fn a_loop_goes_round_until_it_may_end() {
    let file = "
version: 1
tasks:
  poll:
    run: 'try ${{ loop.iteration }}'
    loop: {until: self.outputs.done, max: 3}
";
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.start(file);
    let effects = bench.report(session, key(1, 1, 1), ended(json!({"done": false})));
    assert_eq!(assigned(&effects), [(session, key(1, 2, 2))]);
    assert!(body_of(&effects)[0].contains("try 2"));
    bench.report(session, key(1, 2, 2), ended(json!({"done": true})));
    assert_eq!(bench.nodes(), "poll=completed");

    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.start(file);
    for round in 1..=3 {
        bench.report(session, key(1, round, u64::from(round)), ended(json!({"done": false})));
    }
    assert_eq!(bench.nodes(), "poll=failed");
}

#[test]
fn a_child_run_is_a_node_of_its_parent() {
    let file = "
version: 1
tasks:
  prepare: {kind: noop}
  inner:
    needs: prepare
    workflow:
      version: 1
      name: inside
      vars: {n: 0}
      tasks: {only: {run: 'echo ${{ vars.n }}'}}
    vars: {n: '${{ tasks.prepare.outputs.n }}'}
  after: {kind: noop, needs: inner}
";
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.start(&file.replace("    vars: {n: '${{", "    #vars: {n: '${{"));
    let effects = bench.report(session, key(1, 1, 1), ended(json!({"n": 5})));
    assert_eq!(body_of(&effects), [r#"{"kind":"shell","command":"echo 0"}"#]);
    bench.restart();
    bench.now_ms += 1;
    let child = assigned(&effects)[0].1;
    let (session, _) = bench.hello("w1", 1, 1, vec![Held { key: child, started: true }]);
    let effects = bench.report(session, child, finished(End::Completed));
    assert_eq!(assigned(&effects), [(session, key(3, 1, 1))]);
}

#[test]
fn a_paused_run_starts_nothing_and_goes_on_as_if_nothing_had_been() {
    let mut bench = Bench::new();
    bench.start("version: 1\ntasks:\n  a: {kind: noop}\n  b: {kind: noop, needs: a}\n");
    assert_eq!(bench.control(RunAction::Pause), Ok(Answer::Done));
    let (session, effects) = bench.hello("w1", 1, 1, vec![]);
    assert!(assigned(&effects).is_empty());
    assert_eq!(bench.nodes(), "a=blocked");
    let why = bench.kernel.why(TaskId(1), bench.now()).expect("live");
    assert_eq!(why.reasons[0].code, "run_paused");
    bench.restart();
    assert_eq!(bench.control(RunAction::Resume), Ok(Answer::Done));
    bench.now_ms += 1;
    let (session2, effects) = bench.hello("w1", 1, 1, vec![]);
    assert!(session2 > session);
    assert_eq!(assigned(&effects), [(session2, key(1, 1, 1))]);
}

#[test]
fn a_cancelled_run_ends_every_node_once() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench
        .start("version: 1\ntasks:\n  a: {kind: noop}\n  b: {kind: noop, needs: a}\n  c: {approval: true}\n");
    bench.report(session, key(1, 1, 1), ReportBody::Started { at: Wall(5) });
    assert_eq!(bench.control(RunAction::Cancel), Ok(Answer::Done));
    assert_eq!(bench.nodes(), "a=running b=cancelled c=cancelled");
    bench.report(session, key(1, 1, 1), finished(End::Cancelled));
    assert_eq!(bench.nodes(), "a=cancelled b=cancelled c=cancelled");
    assert_eq!(bench.run_status(), Some(RunStatus::Cancelled));
    assert_eq!(bench.control(RunAction::Cancel), Err(Rejection::UnknownRun(RunId(1))));
}

#[test]
fn fail_fast_stops_the_others() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 2, vec![]);
    bench.start(
        "version: 1\nmode: parallel\nfail_fast: true\nmax_parallel: 2\ntasks: {a: {kind: noop}, b: {kind: noop}, c: {kind: noop}}\n",
    );
    bench.report(session, key(2, 1, 1), ReportBody::Started { at: Wall(5) });
    let effects = bench.report(session, key(1, 1, 1), finished(End::Failed(RetryOn::Error)));
    assert!(effects.contains(&Effect::Cancel { session, keys: vec![key(2, 1, 1)] }));
    bench.report(session, key(2, 1, 1), finished(End::Cancelled));
    assert_eq!(bench.nodes(), "a=failed b=cancelled c=cancelled");
    assert_eq!(bench.run_status(), Some(RunStatus::Failed));
}

#[test]
fn a_large_run_is_begun_in_turns() {
    let mut bench = Bench::new();
    let nodes: Map<String, Value> = (0..25_000).map(|n| (format!("n{n}"), json!({"kind": "noop"}))).collect();
    let file = json!({"version": 1, "mode": "parallel", "tasks": nodes}).to_string();
    bench.start(&file);
    assert_eq!(bench.kernel.live_tasks(), 10_000);
    bench.wait(0);
    bench.wait(0);
    assert_eq!(bench.kernel.live_tasks(), 25_000);
}

/// A file with that many noops, each after some of those before it.
fn any_file() -> impl Strategy<Value = String> {
    let node = |at: usize| prop::collection::vec(0..at.max(1), 0..3);
    (2usize..9).prop_flat_map(move |count| (0..count).map(node).collect::<Vec<_>>()).prop_map(|nodes| {
        let task = |(at, before): (usize, &Vec<usize>)| {
            let needs: std::collections::BTreeSet<String> =
                before.iter().filter(|before| **before < at).map(|before| format!("n{before}")).collect();
            let mut body = json!({"kind": "noop", "needs": needs});
            match at % 4 {
                1 => body["foreach"] = json!([1, 2]),
                2 => body["approval"] = json!(true),
                3 => body["loop"] = json!({"until": "loop.iteration > 1", "max": 3}),
                _ => {}
            }
            (format!("n{at}"), body)
        };
        let tasks: Map<String, Value> = nodes.iter().enumerate().map(task).collect();
        json!({"version": 1, "max_parallel": 2, "tasks": tasks}).to_string()
    })
}

/// How a run has ended.
#[derive(PartialEq, Debug)]
struct Played {
    nodes: BTreeMap<String, Status>,
    status: Option<RunStatus>,
    /// How often each node has begun; items of a `foreach` not counted.
    attempts: BTreeMap<String, u32>,
    /// The nodes from which it was run again; one that had not ended then simply went on.
    again: BTreeSet<String>,
    /// Those that had ended.
    ended: BTreeSet<String>,
}

/// Plays a run to its end; a new master takes over after each of `restarts` steps, and after each of
/// `reruns` somebody wants a node to run again.
fn play(file: &str, restarts: &BTreeSet<usize>, reruns: &BTreeMap<usize, usize>) -> Played {
    let mut bench = Bench::new();
    let (mut session, _) = bench.hello("w1", 1, 2, vec![]);
    let (_, mut effects) = bench.start(file);
    let mut held: Vec<AttemptKey> = Vec::new();
    let (mut again, mut ended) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..400 {
        held.extend(assigned(&effects).into_iter().map(|(_, key)| key));
        if restarts.contains(&round) {
            bench.restart();
            bench.now_ms += 1;
            let running = held.iter().map(|key| Held { key: *key, started: true }).collect();
            let (new, given) = bench.hello("w1", 1, 2, running);
            session = new;
            held.extend(assigned(&given).into_iter().map(|(_, key)| key));
        }
        if let Some(node) = reruns.get(&round).map(|node| format!("n{node}")) {
            let has_ended =
                Rows::of(&bench.batches).nodes().get(&node).is_some_and(|status| status.is_settled());
            let (reply, effects) = bench.rerun_if_possible(&node);
            held.extend(assigned(&effects).into_iter().map(|(_, key)| key));
            if reply.is_ok() {
                if has_ended {
                    ended.insert(node.clone());
                }
                again.insert(node);
            }
        }
        let waits = Rows::of(&bench.batches)
            .tasks
            .iter()
            .find(|(_, (row, _))| row.state.waits == Some(crate::batch::Waits::Approval))
            .map(|(id, _)| *id);
        effects = match (waits, held.is_empty()) {
            (Some(task), _) => bench.ask(Request::Approve { task }).1,
            (None, false) => {
                let key = held.remove(0);
                bench.report(session, key, finished(End::Completed))
            }
            // What is still to be run again is run again first.
            (None, true) if reruns.keys().next_back().is_some_and(|last| *last > round) => Vec::new(),
            (None, true) => break,
        };
    }
    let rows = Rows::of(&bench.batches);
    let whole = |name: &str| !name.contains('[');
    let attempts = rows.tasks.values().filter_map(|(row, _)| {
        let name = row.run.as_ref()?.node.to_string();
        whole(&name).then_some((name, row.state.attempt.0))
    });
    Played {
        nodes: rows.nodes().into_iter().filter(|(name, _)| whole(name)).collect(),
        status: bench.run_status(),
        attempts: attempts.collect(),
        again,
        ended,
    }
}

/// The nodes of a file that come after some of it, those included.
fn after(file: &str, from: &BTreeSet<String>) -> BTreeSet<String> {
    let file: Value = serde_json::from_str(file).expect("own JSON");
    let tasks = file["tasks"].as_object().expect("tasks");
    let mut found = from.clone();
    loop {
        let before = found.len();
        for (name, body) in tasks {
            let needs = body["needs"].as_array().into_iter().flatten().filter_map(Value::as_str);
            if needs.into_iter().any(|need| found.contains(need)) {
                found.insert(name.clone());
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever a new master finds, the run ends as if the old one had lived on.
    #[test]
    fn restarts_change_nothing(file in any_file(), restarts in prop::collection::btree_set(0usize..30, 0..6)) {
        let undisturbed = play(&file, &BTreeSet::new(), &BTreeMap::new());
        prop_assert_eq!(undisturbed.status, Some(RunStatus::Completed));
        prop_assert_eq!(play(&file, &restarts, &BTreeMap::new()), undisturbed);
    }

    /// Whatever is run again and whenever, the run ends as it would have, and only what was named and
    /// what comes after it has begun more often.
    #[test]
    fn reruns_repeat_what_they_name(
        file in any_file(),
        restarts in prop::collection::btree_set(0usize..40, 0..4),
        reruns in prop::collection::btree_map(0usize..40, 0usize..9, 1..4),
    ) {
        let undisturbed = play(&file, &BTreeSet::new(), &BTreeMap::new());
        let played = play(&file, &restarts, &reruns);
        prop_assert_eq!(&played.nodes, &undisturbed.nodes);
        prop_assert_eq!(played.status, Some(RunStatus::Completed));
        let again = after(&file, &played.again);
        for (name, attempts) in &undisturbed.attempts {
            let more = played.attempts[name] > *attempts;
            prop_assert!(!more || again.contains(name), "{} has begun again", name);
            prop_assert!(more || !played.ended.contains(name), "{} has not", name);
        }
    }
}
