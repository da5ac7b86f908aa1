//! Large values: handed on without being read, read where they can be, and put aside where they are
//! made; and what a run says it is at.

use serde_json::{Value, json};

use super::rows::Rows;
use super::runs::{body_of, ended};
use super::*;
use crate::batch::RoundRow;
use crate::blob::{BlobHash, BlobRef, InputSource, Left};
use crate::ids::RunId;
use crate::run::RunStatus;

/// Outputs that are kept elsewhere; `text` is what the door has read of them.
fn large(bytes: u64, text: Option<&str>) -> ReportBody {
    let ReportBody::Finished(mut finished) = finished(End::Completed) else { unreachable!("an end") };
    let outputs = Some(BlobRef { sha256: BlobHash([7; 32]), bytes });
    let outputs_text = text.map(Into::into);
    finished.outcome.left = Some(Box::new(Left { outputs, outputs_text, ..Left::default() }));
    ReportBody::Finished(finished)
}

const READ: &str = "
version: 1
tasks:
  a: {kind: noop}
  whole: {kind: noop, needs: a, input: '${{ tasks.a.outputs }}'}
  within: {run: 'echo ${{ tasks.a.outputs.n }}', needs: a}
";

#[test]
fn large_outputs_are_handed_on_whole_and_read_where_they_can_be() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    bench.start(READ);
    let bodies = body_of(&bench.report(session, key(1, 1, 1), large(1 << 20, Some(r#"{"n": 5}"#))));
    assert!(bodies[0].contains(r#""input_parts":[{"json":{"sha256":"0707"#), "{bodies:?}");
    assert!(bodies[1].contains(r#""command":"echo 5""#), "{bodies:?}");
    // Nothing had to be kept for that.
    assert!(bench.batches.iter().all(|batch| batch.blobs.is_empty()));
    let row = bench.batches.iter().flat_map(|batch| &batch.specs).find(|row| !row.blobs.is_empty());
    assert_eq!(row.map(|row| row.blobs.to_vec()), Some(vec![BlobHash([7; 32])]));
}

#[test]
fn what_was_not_read_fails_its_reader_and_says_what_to_do() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    bench.start(READ);
    let bodies = body_of(&bench.report(session, key(1, 1, 1), large(40 << 20, None)));
    assert_eq!(bodies.len(), 1, "only the one that hands it on begins: {bodies:?}");
    bench.report(session, key(2, 1, 1), finished(End::Completed));
    assert_eq!(bench.nodes(), "a=completed whole=completed within=failed");
    let error = Rows::of(&bench.batches).tasks[&TaskId(3)].1.error.clone().expect("an error");
    assert!(
        error.contains("41943040 bytes") && error.contains("input: ${{ tasks.NAME.outputs }}"),
        "{error}"
    );
    assert!(error.contains("tasks.a.outputs.n"), "the expression is shown: {error}");
}

#[test]
fn a_stage_hands_large_outputs_to_the_next() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    bench.start("version: 1\nmode: pipeline\ntasks:\n- {name: a, kind: noop}\n- {name: b, kind: noop}\n");
    let bodies = body_of(&bench.report(session, key(1, 1, 1), large(40 << 20, None)));
    assert!(bodies[0].contains(r#""input_parts":[{"json""#), "{bodies:?}");
}

#[test]
fn what_items_leave_together_is_put_aside_where_it_is_large() {
    let file = "
version: 1
tasks:
  each: {foreach: [1, 2], run: 'echo ${{ item }}'}
  all: {kind: noop, needs: each, input: '${{ tasks.each.outputs }}'}
";
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    bench.start(file);
    let text = "x".repeat(40 << 10);
    bench.report(session, key(3, 1, 1), ended(json!({"text": text})));
    let bodies = body_of(&bench.report(session, key(4, 1, 1), ended(json!({"text": text}))));
    let blobs: Vec<_> = bench.batches.iter().flat_map(|batch| &batch.blobs).collect();
    let [blob] = blobs[..] else { panic!("{} blobs", blobs.len()) };
    let list: Value = serde_json::from_str(&blob.text).expect("JSON");
    assert_eq!(list, json!([{"text": text}, {"text": text}]));
    assert!(bodies[0].contains(&blob.sha256.to_string()), "and is handed on as it is: {bodies:?}");
}

#[test]
fn a_context_of_large_and_small_outputs_is_put_together_by_its_worker() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    bench.submit(vec![
        plain(),
        plain(),
        task(|new, spec| {
            new.hold = true;
            spec.input = Some(json!({"own": 1}));
        }),
    ]);
    for before in [1, 2] {
        let predecessor = Predecessor { task: TaskId(before), ended: None };
        let relate = Request::Relate {
            predecessor,
            successor: TaskId(3),
            relation: crate::relation::Relation::Context,
        };
        bench.ask(relate).0.expect("related");
    }
    bench.ask(Request::Release { tasks: vec![TaskId(3)] }).0.expect("released");
    bench.report(session, key(1, 1, 1), large(1 << 20, Some("{}")));
    let bodies = body_of(&bench.report(session, key(2, 1, 1), ended(json!({"n": 2}))));
    let spec: Spec = serde_json::from_str(&bodies[0]).expect("a specification");
    let parts: Vec<(Option<&str>, bool)> =
        spec.input_parts.iter().map(|part| (part.name.as_deref(), part.source.blob().is_some())).collect();
    assert_eq!(parts, [(Some("input"), false), (Some("1"), true), (Some("2"), false)]);
    assert_eq!(spec.input_parts[0].source, InputSource::Value(json!({"own": 1})));
}

#[test]
fn rounds_of_a_loop_outlive_their_master_and_lost_attempts_do_not_count() {
    let file = "
version: 1
tasks:
  a: {kind: noop, loop: {until: self.outputs.done, max: 3}}
";
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.start(file);
    bench.report(session, key(1, 1, 1), ended(json!({"done": false})));
    // The worker comes back as another: its attempt is lost, its round is not.
    bench.restart();
    let (session, _) = bench.hello("w1", 2, 1, vec![]);
    bench.report(session, key(1, 3, 3), ended(json!({"done": false})));
    bench.report(session, key(1, 4, 4), ended(json!({"done": true})));
    assert_eq!(bench.nodes(), "a=completed");
    let rounds: Vec<RoundRow> = bench.batches.iter().flat_map(|batch| batch.rounds.clone()).collect();
    let row = |round| RoundRow { task: TaskId(1), round };
    assert_eq!(rounds, [row(Some(2)), row(Some(3)), row(None)]);
}

#[test]
fn a_run_that_fails_fast_still_does_so_under_the_next_master() {
    let file = "
version: 1
mode: parallel
fail_fast: true
max_parallel: 2
tasks: {a: {kind: noop}, b: {kind: noop}, c: {kind: noop}}
";
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 2, vec![]);
    bench.start(file);
    bench.report(session, key(1, 1, 1), finished(End::Failed(crate::spec::RetryOn::Error)));
    bench.restart();
    assert!(bench.control(RunAction::Pause).is_err(), "it is about to end");
    bench.hello("w1", 2, 2, vec![]);
    bench.wait(60_000);
    assert_eq!(bench.run_status(), Some(RunStatus::Failed));
    assert_eq!(bench.nodes(), "a=failed b=cancelled c=cancelled");
}

#[test]
fn a_run_says_what_it_is_at_before_what_waits_for_that() {
    let file = "
version: 1
tasks:
  last: {kind: noop, needs: [ask, each, child]}
  ask: {approval: 'may it?', kind: noop}
  each: {foreach: [1, 2, 3], max_parallel: 1, kind: noop}
  child:
    workflow: {version: 1, tasks: {x: {kind: noop}, y: {kind: noop, needs: x}}}
";
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.start(file);
    bench.report(session, key(5, 1, 1), ReportBody::Started { at: Wall(1) });
    let why = bench.kernel.why_run(RunId(1), bench.now()).expect("a live run");
    let said: Vec<String> = why
        .nodes
        .iter()
        .map(|node| {
            format!("{} {}", node.name, node.reasons.iter().map(|reason| reason.code).collect::<String>())
        })
        .collect();
    assert_eq!(
        said,
        [
            "ask approval",
            "each items",
            "each[0] running",
            "child/x worker_queue",
            "child/y predecessors",
            "last predecessors"
        ]
    );
    assert!(
        why.nodes[1].reasons[0]
            .detail
            .contains("of 3 items 1 are at work and 2 have not begun, max_parallel is 1")
    );
    assert_eq!((why.nodes[2].reasons[0].held_by.join(""), why.more), ("w1".to_owned(), 0));
    let many: String = (0..150).map(|n| format!("  n{n}: {{kind: noop, needs: a}}\n")).collect();
    bench.start(&format!("version: 1\ntasks:\n  a: {{kind: noop}}\n{many}"));
    let why = bench.kernel.why_run(RunId(3), bench.now()).expect("a live run");
    assert_eq!((why.nodes.len(), why.more), (100, 51));
}

#[test]
fn a_child_that_is_a_stage_has_the_last_stage_s_output_as_its_inputs() {
    let file = "
version: 1
mode: pipeline
tasks:
- {name: a, kind: noop}
- name: b
  workflow: {version: 1, tasks: {x: {run: 'echo ${{ inputs.n }}'}}}
";
    for (end, said) in [(ended(json!({"n": 4})), "echo 4"), (large(1 << 20, Some(r#"{"n": 5}"#)), "echo 5")] {
        let mut bench = Bench::new();
        let (session, _) = bench.hello("w1", 1, 1, vec![]);
        bench.start(file);
        let bodies = body_of(&bench.report(session, key(1, 1, 1), end));
        assert!(bodies[0].contains(said), "{bodies:?}");
    }
}

#[test]
fn a_collection_that_cannot_be_made_says_why_and_blames_no_item() {
    let file = "
version: 1
tasks:
  each: {foreach: [1], run: x, collect: '${{ self.outputs.zz }}'}
";
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.start(file);
    bench.report(session, key(2, 1, 1), ended(json!({"n": 4})));
    assert_eq!(bench.nodes(), "each=failed each[0]=completed");
    let error = Rows::of(&bench.batches).tasks[&TaskId(1)].1.error.clone().expect("an error");
    assert_eq!(&*error, "collect: each[0]: self.outputs.zz is missing; it has n in 'self.outputs.zz'");
}
