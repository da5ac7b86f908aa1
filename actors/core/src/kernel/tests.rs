//! Scenarios, read from top to bottom. The simulation in `tests/` covers what nobody thought of.

mod fork;
mod found;
mod found_saved;
mod found_upgrades;
mod keys;
mod locks;
mod queue;
mod relations;
mod rerun;
mod rows;
mod run_upgrades;
mod runs;
mod saved;
mod schedules;
mod values;
mod versions;

use std::sync::Arc;

use super::*;
use crate::attempt::{AttemptKey, End, Finished, Held, Hello, LOCKS_VERSION, Report, ReportBody};
use crate::batch::{KeyHash, Outcome, SavedTask};
use crate::ids::{Attempt, BootId, DecisionNumber, Fence, ReplyTo, SessionEpoch};
use crate::rejection::Rejection;
use crate::spec::{ContinueFrom, Payload, Resources, RetryOn, Spec};
use crate::status::Status;
use crate::time::{Mono, Wall};

/// Makes tasks of bodies that are specifications, with a title, a group and a priority beside.
#[derive(Debug)]
struct Maker;

impl MakeTask for Maker {
    fn make(&self, mut body: serde_json::Map<String, serde_json::Value>) -> Result<NewTask, String> {
        let mut text = |key: &str| body.remove(key).and_then(|value| value.as_str().map(str::to_owned));
        let (title, group) = (text("title").unwrap_or_default(), text("group"));
        let spec = serde_json::from_value(body.into()).map_err(|error| error.to_string())?;
        Ok(NewTask {
            title: title.into(),
            group: group.unwrap_or_else(|| "default".to_owned()).into(),
            priority: 50,
            spec: Arc::new(PreparedSpec::new(spec)),
            not_before: None,
            hold: false,
            needs: Vec::new(),
        })
    }

    fn next_time(&self, cron: &str, _: &str, after: Wall) -> Option<Wall> {
        cron.parse().ok().map(|ms| after.plus_ms(ms))
    }
}

fn maker() -> Arc<dyn MakeTask> {
    Arc::new(Maker)
}

/// A kernel with a clock and a store that commits at once.
struct Bench {
    kernel: Kernel,
    now_ms: u64,
    report_no: u64,
    batches: Vec<Batch>,
}

impl Bench {
    fn new() -> Self {
        Self {
            kernel: Kernel::new(Settings::default(), Epoch(1), maker()),
            now_ms: 1_000,
            report_no: 0,
            batches: Vec::new(),
        }
    }

    fn now(&self) -> Now {
        let us = i64::try_from(self.now_ms).expect("small") * 1_000;
        Now { mono: Mono(us), wall: Wall(us) }
    }

    /// One step, made durable at once; what it leads to.
    fn step(&mut self, input: Input) -> Vec<Effect> {
        let output = self.kernel.step(input, self.now());
        let mut effects = output.effects;
        if let Some(batch) = output.batch {
            let decision = batch.decision;
            self.batches.push(batch);
            effects.extend(self.kernel.step(Input::Committed(decision), self.now()).effects);
        }
        self.kernel.check_at(Some(self.now())).expect("invariants");
        effects
    }

    fn wait(&mut self, ms: u64) -> Vec<Effect> {
        self.now_ms += ms;
        self.step(Input::Tick)
    }

    fn ask(&mut self, request: Request) -> (Reply, Vec<Effect>) {
        let mut effects = self.step(Input::Request { reply: ReplyTo(1), request });
        let at = effects.iter().position(|effect| matches!(effect, Effect::Reply { .. })).expect("an answer");
        let Effect::Reply { reply, .. } = effects.remove(at) else { unreachable!() };
        (reply, effects)
    }

    fn submit(&mut self, tasks: Vec<NewTask>) -> Vec<Effect> {
        let (reply, effects) = self.ask(Request::Submit { tasks, key: None });
        assert!(reply.is_ok(), "{reply:?}");
        effects
    }

    fn hello(
        &mut self,
        name: &str,
        boot: u64,
        slots: u32,
        running: Vec<Held>,
    ) -> (SessionEpoch, Vec<Effect>) {
        let session = SessionEpoch(self.now_ms * 100 + boot);
        let hello = Hello { running, ..hello(name, boot, slots) };
        let effects = self.step(Input::Hello { session, hello: Box::new(hello) });
        (session, effects)
    }

    fn report(&mut self, session: SessionEpoch, key: AttemptKey, body: ReportBody) -> Vec<Effect> {
        self.report_no += 1;
        self.step(Input::Reports { session, reports: vec![Report { no: self.report_no, key, body }] })
    }

    fn status(&self, id: u64) -> Option<Status> {
        self.batches
            .iter()
            .flat_map(|batch| &batch.tasks)
            .rfind(|write| write.id == TaskId(id))
            .map(|write| write.state.status)
    }
}

fn hello(name: &str, boot: u64, slots: u32) -> Hello {
    Hello {
        version: LOCKS_VERSION,
        worker: name.into(),
        boot: BootId(boot),
        groups: vec!["default".into(), "gpu".into()],
        labels: [("os".to_owned(), "linux".to_owned())].into(),
        resources: Resources { cpus_milli: 4_000, ..Resources::default() },
        slots,
        prefetch: 2,
        handlers: vec![],
        sandboxes: vec![],
        running: vec![],
        draining: false,
        at: Wall(0),
    }
}

fn task(change: impl FnOnce(&mut NewTask, &mut Spec)) -> NewTask {
    let mut spec = Spec::new(Payload::Noop);
    let mut new = NewTask {
        title: "t".into(),
        group: "default".into(),
        priority: 50,
        spec: Arc::new(PreparedSpec::new(spec.clone())),
        not_before: None,
        hold: false,
        needs: Vec::new(),
    };
    change(&mut new, &mut spec);
    new.spec = Arc::new(PreparedSpec::new(spec));
    new
}

fn retry(tasks: Vec<TaskId>) -> Request {
    Request::Retry { tasks, continue_from: ContinueFrom::Checkpoint }
}

fn plain() -> NewTask {
    task(|_, _| {})
}

fn assigned(effects: &[Effect]) -> Vec<(SessionEpoch, AttemptKey)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Assign { session, tasks } => Some(tasks.iter().map(|task| (*session, task.key))),
            _ => None,
        })
        .flatten()
        .collect()
}

fn key(task: u64, attempt: u32, fence: u64) -> AttemptKey {
    AttemptKey { task: TaskId(task), attempt: Attempt(attempt), fence: Fence(fence) }
}

fn finished(end: End) -> ReportBody {
    ReportBody::Finished(Box::new(Finished {
        started_at: Wall(1),
        finished_at: Wall(2),
        end,
        outcome: Outcome::default(),
        log_bytes: 0,
        log_cut: 0,
    }))
}

#[test]
fn a_task_goes_in_and_its_result_comes_out() {
    let mut bench = Bench::new();
    assert!(assigned(&bench.submit(vec![plain()])).is_empty());
    let (session, effects) = bench.hello("w1", 1, 1, vec![]);
    assert_eq!(assigned(&effects), [(session, key(1, 1, 1))]);
    assert_eq!(bench.status(1), Some(Status::Pending));
    bench.report(session, key(1, 1, 1), ReportBody::Started { at: Wall(5) });
    assert_eq!(bench.status(1), Some(Status::Running));
    let effects = bench.report(session, key(1, 1, 1), finished(End::Completed));
    assert_eq!(effects, [Effect::Ack { session, up_to: 2 }]);
    assert_eq!(bench.status(1), Some(Status::Completed));
    assert_eq!(bench.kernel.live_tasks(), 0);
    assert_eq!(bench.kernel.stats().settled.completed, 1);
    // A first attempt that succeeds leaves no row of its own.
    assert!(bench.batches.iter().all(|batch| batch.attempts.is_empty()));
    // The same report again is acknowledged and changes nothing.
    let effects = bench.report(session, key(1, 1, 1), finished(End::Failed(RetryOn::Error)));
    assert_eq!(effects, [Effect::Ack { session, up_to: 3 }]);
    assert_eq!(bench.status(1), Some(Status::Completed));
}

#[test]
fn a_freed_slot_takes_the_next_task_in_the_same_step() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.submit((0..5).map(|_| plain()).collect());
    // One slot and two credits.
    assert_eq!(bench.kernel.credits("w1"), Some((3, 3)));
    let effects = bench.report(session, key(1, 1, 1), finished(End::Completed));
    assert_eq!(assigned(&effects), [(session, key(4, 1, 1))]);
}

#[test]
fn priority_goes_first_and_age_catches_up() {
    let mut bench = Bench::new();
    bench.submit(vec![plain(), task(|new, _| new.priority = 75)]);
    bench.now_ms += 200_000;
    bench.submit(vec![task(|new, _| new.priority = 75)]);
    let (_, effects) = bench.hello("w1", 1, 3, vec![]);
    // 25 points are 150 s: the old normal task goes before the new high one.
    let order: Vec<u64> = assigned(&effects).iter().map(|(_, key)| key.task.0).collect();
    assert_eq!(order, [2, 1, 3]);
}

#[test]
fn groups_share_a_worker_in_turn() {
    let mut bench = Bench::new();
    bench.submit((0..4).map(|_| plain()).collect());
    bench.submit((0..2).map(|_| task(|new, _| new.group = "gpu".into())).collect());
    let (_, effects) = bench.hello("w1", 1, 4, vec![]);
    let order: Vec<u64> = assigned(&effects).iter().map(|(_, key)| key.task.0).collect();
    assert_eq!(order, [1, 5, 2, 6, 3, 4]);
}

#[test]
fn what_nobody_can_run_blocks_nothing_and_says_why() {
    let mut bench = Bench::new();
    let (_, _) = bench.hello("w1", 1, 1, vec![]);
    let gpu = task(|_, spec| drop(spec.labels.insert("gpu".into(), "a100".into())));
    let effects = bench.submit(vec![gpu, plain()]);
    assert_eq!(assigned(&effects).len(), 1);
    let why = bench.kernel.why(TaskId(1), bench.now()).expect("live");
    assert_eq!(why.reasons.len(), 1);
    assert_eq!(why.reasons[0].code, "no_worker");
    assert_eq!(
        why.reasons[0].detail,
        "no online worker serves group default with label gpu=a100; nearest: w1 lacks label gpu=a100"
    );
}

#[test]
fn a_reborn_worker_has_lost_everything_and_a_returning_one_keeps_it() {
    let mut bench = Bench::new();
    let (first, _) = bench.hello("w1", 1, 1, vec![]);
    bench.submit(vec![plain()]);
    bench.report(first, key(1, 1, 1), ReportBody::Started { at: Wall(5) });
    bench.step(Input::Disconnected { session: first });
    bench.now_ms += 10;
    let held = Held { key: key(1, 1, 1), started: true };
    let (second, effects) = bench.hello("w1", 1, 1, vec![held]);
    assert_eq!(effects, [Effect::Welcome { session: second, keep: vec![held.key], stop: vec![] }]);
    bench.now_ms += 10;
    let (third, effects) = bench.hello("w1", 2, 1, vec![]);
    assert_eq!(effects[0], Effect::Close { session: second });
    assert_eq!(assigned(&effects), [(third, key(1, 2, 2))]);
    // What the old socket still says is not heard.
    bench.report(second, key(1, 1, 1), finished(End::Completed));
    assert_eq!(bench.status(1), Some(Status::Pending));
}

#[test]
fn a_lost_attempt_counts_if_nobody_took_over() {
    let mut bench = Bench::new();
    let (first, _) = bench.hello("w1", 1, 1, vec![]);
    bench.submit(vec![plain()]);
    bench.report(first, key(1, 1, 1), ReportBody::Started { at: Wall(5) });
    bench.step(Input::Disconnected { session: first });
    let effects = bench.wait(11_000);
    assert!(assigned(&effects).is_empty());
    assert_eq!(bench.status(1), Some(Status::Pending));
    let (second, effects) = bench.hello("w1", 1, 1, vec![Held { key: key(1, 1, 1), started: true }]);
    assert_eq!(effects, [Effect::Welcome { session: second, keep: vec![key(1, 1, 1)], stop: vec![] }]);
    bench.report(second, key(1, 1, 1), finished(End::Completed));
    assert_eq!(bench.status(1), Some(Status::Completed));
}

#[test]
fn a_lost_attempt_that_was_given_on_is_stopped() {
    let mut bench = Bench::new();
    let (first, _) = bench.hello("w1", 1, 1, vec![]);
    bench.submit(vec![plain()]);
    bench.step(Input::Disconnected { session: first });
    bench.now_ms += 5_000;
    bench.hello("w2", 7, 1, vec![]);
    bench.now_ms += 4_000;
    bench.step(Input::Heard { session: SessionEpoch(600_007) });
    let effects = bench.wait(2_000);
    assert_eq!(assigned(&effects), [(SessionEpoch(600_007), key(1, 2, 2))]);
    let (back, effects) = bench.hello("w1", 1, 1, vec![Held { key: key(1, 1, 1), started: true }]);
    assert_eq!(effects, [Effect::Welcome { session: back, keep: vec![], stop: vec![key(1, 1, 1)] }]);
    bench.report(back, key(1, 1, 1), finished(End::Completed));
    assert_eq!(bench.status(1), Some(Status::Pending));
}

#[test]
fn a_warden_frees_at_once() {
    let mut bench = Bench::new();
    let (first, _) = bench.hello("w1", 1, 1, vec![]);
    bench.submit(vec![plain()]);
    bench.step(Input::Disconnected { session: first });
    let (other, _) = bench.hello("w2", 9, 1, vec![]);
    let request = Request::WorkerDead { worker: "w1".into(), boot: BootId(8) };
    assert!(assigned(&bench.ask(request).1).is_empty(), "another life is no news");
    let request = Request::WorkerDead { worker: "w1".into(), boot: BootId(1) };
    assert_eq!(assigned(&bench.ask(request).1), [(other, key(1, 2, 2))]);
}

#[test]
fn cancelling_waits_for_the_worker_or_its_lease() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.submit(vec![plain(), plain(), plain(), plain()]);
    let cancel = |id| Request::Cancel { tasks: vec![TaskId(id)] };
    let (reply, _) = bench.ask(cancel(4));
    assert_eq!(reply, Ok(Answer::Changed { changed: 1, refused: vec![] }));
    assert_eq!(bench.status(4), Some(Status::Cancelled));
    let (_, effects) = bench.ask(cancel(1));
    assert_eq!(effects, [Effect::Cancel { session, keys: vec![key(1, 1, 1)] }]);
    bench.report(session, key(1, 1, 1), finished(End::Cancelled));
    assert_eq!(bench.status(1), Some(Status::Cancelled));
    assert!(bench.ask(cancel(2)).0.is_ok());
    bench.step(Input::Disconnected { session });
    bench.wait(11_000);
    assert_eq!(bench.status(2), Some(Status::Cancelled));
    let (reply, _) = bench.ask(cancel(2));
    assert_eq!(
        reply,
        Ok(Answer::Changed { changed: 0, refused: vec![(TaskId(2), Rejection::UnknownTask(TaskId(2)))] })
    );
}

#[test]
fn a_failure_is_tried_again_after_its_wait() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.submit(vec![task(|_, spec| {
        spec.retry.max = 1;
        spec.retry.backoff_ms = 500;
        spec.retry.jitter = 0.0;
    })]);
    bench.report(session, key(1, 1, 1), finished(End::Failed(RetryOn::Error)));
    assert_eq!(bench.status(1), Some(Status::Pending));
    let why = bench.kernel.why(TaskId(1), bench.now()).expect("live");
    assert_eq!(why.reasons[0].code, "backoff");
    assert!(assigned(&bench.wait(400)).is_empty());
    assert_eq!(assigned(&bench.wait(100)), [(session, key(1, 2, 2))]);
    bench.report(session, key(1, 2, 2), finished(End::Failed(RetryOn::Error)));
    assert_eq!(bench.status(1), Some(Status::Failed));
    let attempts: Vec<_> =
        bench.batches.iter().flat_map(|batch| &batch.attempts).map(|row| row.attempt.0).collect();
    assert_eq!(attempts, [1, 2]);
}

#[test]
fn a_settled_task_is_loaded_to_run_again() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.submit(vec![plain()]);
    bench.report(session, key(1, 1, 1), finished(End::Completed));
    let first = Input::Request { reply: ReplyTo(5), request: retry(vec![TaskId(1), TaskId(9)]) };
    assert_eq!(bench.step(first), [Effect::Load { tasks: vec![TaskId(1)] }]);
    let again = Input::Request { reply: ReplyTo(6), request: retry(vec![TaskId(1)]) };
    let effects = bench.step(again);
    assert!(matches!(&effects[..], [Effect::Reply { reply: Ok(Answer::Changed { changed: 0, .. }), .. }]));
    let write = bench.batches.iter().flat_map(|batch| &batch.tasks).next_back().expect("written").clone();
    let spec = plain().spec;
    let row = crate::batch::TaskRow {
        id: write.id,
        spec: spec.hash,
        created_at: Wall(1),
        run: None,
        state: write.state,
    };
    let effects = bench.step(Input::Loaded {
        asked: vec![TaskId(1)],
        tasks: vec![LoadedTask { row, spec, successors: vec![], saved: SavedTask::default() }],
    });
    assert_eq!(assigned(&effects), [(session, key(1, 2, 2))]);
    let refused = vec![(TaskId(9), Rejection::UnknownTask(TaskId(9)))];
    let reply = Ok(Answer::Changed { changed: 1, refused });
    assert!(effects.contains(&Effect::Reply { to: ReplyTo(5), reply }));
    assert_eq!(bench.kernel.stats().settled.completed, 0);
}

#[test]
fn an_idempotency_key_makes_nothing_twice() {
    let mut bench = Bench::new();
    let submit = |body| Request::Submit {
        tasks: vec![plain()],
        key: Some(SubmitKey { key: KeyHash([1; 16]), body: KeyHash([body; 16]) }),
    };
    let (reply, _) = bench.ask(submit(1));
    assert!(matches!(reply, Ok(Answer::Submitted { first: TaskId(1), replayed: false, .. })));
    let (reply, _) = bench.ask(submit(1));
    assert!(matches!(reply, Ok(Answer::Submitted { first: TaskId(1), replayed: true, .. })));
    let (reply, _) = bench.ask(submit(2));
    assert_eq!(reply, Err(Rejection::KeyConflict));
    assert_eq!(bench.kernel.live_tasks(), 1);
}

#[test]
fn recovery_goes_on_where_the_rows_end() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.submit(vec![plain(), plain(), plain(), plain()]);
    bench.report(session, key(1, 1, 1), ReportBody::Started { at: Wall(5) });
    let before = bench.kernel.stats();
    bench.restart();
    assert_eq!(bench.kernel.stats().pending, before.pending);
    assert_eq!(bench.kernel.stats().running, 1);
    // The worker comes back with the running one; the two that it never received are given anew.
    bench.now_ms += 1;
    let (session, effects) = bench.hello("w1", 1, 1, vec![Held { key: key(1, 1, 1), started: true }]);
    let given = assigned(&effects);
    assert_eq!(given, [(session, key(2, 2, 2)), (session, key(3, 2, 2))]);
}

#[test]
fn nothing_is_said_before_it_is_durable() {
    let mut kernel = Kernel::new(Settings::default(), Epoch(1), maker());
    let now = Now { mono: Mono(0), wall: Wall(0) };
    let ask =
        |kernel: &mut Kernel, n, request| kernel.step(Input::Request { reply: ReplyTo(n), request }, now);
    let output = ask(&mut kernel, 1, Request::Submit { tasks: vec![plain()], key: None });
    assert!(output.effects.is_empty());
    let output = ask(&mut kernel, 2, Request::Stats);
    assert!(output.effects.is_empty() && output.batch.is_none());
    let released = kernel.step(Input::Committed(DecisionNumber(1)), now).effects;
    assert_eq!(released.len(), 2);
}
