//! Checkpoints and memories: what is acknowledged, what is kept, and where attempts begin.

use super::rows::Rows;
use super::*;
use crate::checkpoint::{Ask, AskBody, Choice, Content, Given, NewCheckpoint, Whose};
use crate::ids::{CheckpointId, RunId};
use crate::memory::{Memory, Owner};

type Asked = Result<Given, Rejection>;

impl Bench {
    fn asks(&mut self, session: SessionEpoch, no: u64, key: AttemptKey, body: AskBody) -> Asked {
        let effects = self.step(Input::Asks { session, asks: vec![Ask { no, key, body }] });
        let [Effect::Answers { session: to, answers }] = &effects[..] else { panic!("{effects:?}") };
        assert_eq!((*to, answers[0].0), (session, no));
        answers[0].1.clone()
    }

    pub(super) fn saves(
        &mut self,
        session: SessionEpoch,
        no: u64,
        key: AttemptKey,
        name: &str,
    ) -> Result<u64, Rejection> {
        let given = self.asks(session, no, key, AskBody::Checkpoint(Box::new(checkpoint(name))))?;
        Ok(given.checkpoint.expect("its number").0)
    }

    fn remembers(
        &mut self,
        session: SessionEpoch,
        key: AttemptKey,
        name: &str,
        ttl_ms: Option<u64>,
    ) -> Asked {
        let (name, value) = (name.into(), "1".into());
        self.asks(session, 1_000, key, AskBody::Remember { whose: Whose::Task, name, value, ttl_ms })
    }

    fn rows(&self) -> Rows {
        Rows::of(&self.batches)
    }

    fn kept(&self) -> Vec<u64> {
        self.rows().checkpoints.keys().map(|id| id.0).collect()
    }

    fn restore(&mut self, checkpoint: u64, continue_from: ContinueFrom) -> (Reply, Vec<Effect>) {
        let (task, checkpoint) = (TaskId(1), CheckpointId(checkpoint));
        let rows = self.rows();
        let text = rows.checkpoints.get(&checkpoint).and_then(|row| row.memory.clone());
        let memory = text.map(|text| Memory::from_text(&text).expect("own text")).unwrap_or_default();
        let restore = Box::new(RestoreRequest { task, checkpoint, continue_from, memory });
        self.ask_for_row(Request::Restore(restore))
    }

    /// Asks, and loads the row of task 1 if it is wanted.
    pub(super) fn ask_for_row(&mut self, request: Request) -> (Reply, Vec<Effect>) {
        let mut effects = self.step(Input::Request { reply: ReplyTo(1), request });
        if effects == [Effect::Load { tasks: vec![TaskId(1)] }] {
            let tasks = vec![self.rows().loaded_task(TaskId(1), &self.batches)];
            effects = self.step(Input::Loaded { asked: vec![TaskId(1)], tasks });
        }
        let at = effects.iter().position(|effect| matches!(effect, Effect::Reply { .. })).expect("an answer");
        let Effect::Reply { reply, .. } = effects.remove(at) else { unreachable!() };
        (reply, effects)
    }
}

fn checkpoint(name: &str) -> NewCheckpoint {
    let content = Content::Data(name.as_bytes().into());
    NewCheckpoint { name: name.into(), json: false, content, files: None }
}

/// Where the attempts begin that were given away in these effects.
fn begun(effects: &[Effect]) -> Vec<(AttemptKey, Option<u64>)> {
    let given = effects.iter().filter_map(|effect| match effect {
        Effect::Assign { tasks, .. } => Some(tasks),
        _ => None,
    });
    given.flatten().map(|task| (task.key, task.checkpoint.map(|id| id.0))).collect()
}

fn running(bench: &mut Bench, change: impl FnOnce(&mut Spec)) -> SessionEpoch {
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.submit(vec![task(|_, spec| change(spec))]);
    bench.report(session, key(1, 1, 1), ReportBody::Started { at: Wall(5) });
    session
}

#[test]
fn the_next_attempt_begins_at_the_newest_checkpoint() {
    let mut bench = Bench::new();
    let session = running(&mut bench, |_| {});
    assert_eq!(bench.saves(session, 1, key(1, 1, 1), "one"), Ok(1));
    assert_eq!(bench.saves(session, 2, key(1, 1, 1), "two"), Ok(2));
    // The same question again has the same answer, and saves nothing.
    assert_eq!(bench.saves(session, 1, key(1, 1, 1), "one"), Ok(1));
    assert_eq!(bench.kept(), [1, 2]);
    bench.now_ms += 1;
    let (session, effects) = bench.hello("w1", 2, 1, vec![]);
    assert_eq!(begun(&effects), [(key(1, 2, 2), Some(2))]);
    // Its predecessor has nothing more to say.
    let stale = Err(Rejection::StaleAttempt { given: Fence(1), current: Some(Fence(2)) });
    assert_eq!(bench.saves(session, 3, key(1, 1, 1), "late"), stale);
    assert_eq!(bench.kept(), [1, 2]);
    // A new life of the worker counts from one again.
    assert_eq!(bench.saves(session, 1, key(1, 2, 2), "three"), Ok(3));
    bench.report(session, key(1, 2, 2), finished(End::Completed));
    let over = Err(Rejection::StaleAttempt { given: Fence(2), current: None });
    assert_eq!(bench.saves(session, 2, key(1, 2, 2), "late"), over);
}

#[test]
fn a_master_that_takes_over_knows_where_to_go_on() {
    let mut bench = Bench::new();
    let session = running(&mut bench, |_| {});
    for no in 1..=3 {
        bench.saves(session, no, key(1, 1, 1), "x").expect("saved");
    }
    bench.remembers(session, key(1, 1, 1), "k", None).expect("remembered");
    bench.restart();
    bench.now_ms += 1;
    let (session, effects) = bench.hello("w1", 1, 1, vec![Held { key: key(1, 1, 1), started: true }]);
    assert_eq!(begun(&effects), []);
    assert_eq!(bench.saves(session, 3, key(1, 1, 1), "x"), Ok(3), "asked again after the restart");
    assert_eq!(bench.saves(session, 4, key(1, 1, 1), "y"), Ok(4));
    assert!(bench.rows().checkpoints[&CheckpointId(4)].memory.is_some());
    bench.now_ms += 1;
    let (_, effects) = bench.hello("w1", 2, 1, vec![]);
    assert_eq!(begun(&effects), [(key(1, 2, 2), Some(4))]);
}

#[test]
fn the_newest_ones_are_kept_and_the_one_in_use() {
    let mut bench = Bench::new();
    let session = running(&mut bench, |spec| spec.keep_checkpoints = Some(2));
    for no in 1..=3 {
        bench.saves(session, no, key(1, 1, 1), "x").expect("saved");
    }
    assert_eq!(bench.kept(), [2, 3]);
    let (reply, effects) = bench.restore(2, ContinueFrom::Checkpoint);
    assert_eq!(reply, Ok(Answer::Done));
    assert_eq!(begun(&effects), [(key(1, 2, 2), Some(2))]);
    for no in 4..=6 {
        bench.saves(session, no, key(1, 2, 2), "y").expect("saved");
    }
    assert_eq!(bench.kept(), [2, 6]);
    bench.now_ms += 1;
    let (session, effects) = bench.hello("w1", 2, 1, vec![]);
    assert_eq!(begun(&effects), [(key(1, 3, 3), Some(6))]);
    bench.saves(session, 1, key(1, 3, 3), "z").expect("saved");
    assert_eq!(bench.kept(), [6, 7]);
}

#[test]
fn a_restored_task_begins_a_new_attempt_and_the_old_one_is_dropped() {
    let mut bench = Bench::new();
    let session = running(&mut bench, |_| {});
    bench.remembers(session, key(1, 1, 1), "k", None).expect("remembered");
    for no in 1..=2 {
        bench.saves(session, no, key(1, 1, 1), "x").expect("saved");
    }
    bench.remembers(session, key(1, 1, 1), "later", None).expect("remembered");
    let (reply, effects) = bench.restore(1, ContinueFrom::Checkpoint);
    assert_eq!(reply, Ok(Answer::Done));
    assert!(effects.contains(&Effect::Drop { session, keys: vec![key(1, 1, 1)] }), "{effects:?}");
    assert_eq!(begun(&effects), [(key(1, 2, 2), Some(1))]);
    let memory = bench.rows().memory_of(Owner::Task(TaskId(1)));
    assert_eq!(memory.names().map(|name| &**name).collect::<Vec<_>>(), ["k"]);
    bench.report(session, key(1, 1, 1), finished(End::Completed));
    assert_eq!(bench.status(1), Some(Status::Pending), "its report counts no more");
    let attempts: Vec<_> = bench.batches.iter().flat_map(|batch| &batch.attempts).collect();
    assert_eq!(attempts[0].end, crate::batch::AttemptEnd::Cancelled);
    // The choice holds until something newer is saved.
    bench.restart();
    bench.now_ms += 1;
    let (session, effects) = bench.hello("w1", 2, 1, vec![]);
    assert_eq!(begun(&effects), [(key(1, 3, 3), Some(1))]);
    bench.saves(session, 1, key(1, 3, 3), "new").expect("saved");
    assert!(bench.rows().choices.is_empty());
    assert_eq!(bench.restore(9, ContinueFrom::Checkpoint).0, Err(Rejection::CheckpointGone(CheckpointId(9))));
}

#[test]
fn a_task_that_has_ended_can_be_restored_or_begun_anew() {
    let mut bench = Bench::new();
    let session = running(&mut bench, |_| {});
    for no in 1..=2 {
        bench.saves(session, no, key(1, 1, 1), "x").expect("saved");
    }
    bench.report(session, key(1, 1, 1), finished(End::Failed(RetryOn::Error)));
    let gone = bench.restore(9, ContinueFrom::Checkpoint).0;
    assert_eq!(gone, Err(Rejection::CheckpointGone(CheckpointId(9))));
    assert_eq!(bench.status(1), Some(Status::Failed), "nothing was changed");
    let (reply, effects) = bench.restore(1, ContinueFrom::Checkpoint);
    assert_eq!((reply, begun(&effects)), (Ok(Answer::Done), vec![(key(1, 2, 2), Some(1))]));
    bench.report(session, key(1, 2, 2), finished(End::Failed(RetryOn::Error)));
    let beginning = ContinueFrom::Beginning;
    let (_, effects) = bench.ask_for_row(Request::Retry { tasks: vec![TaskId(1)], continue_from: beginning });
    assert_eq!(begun(&effects), [(key(1, 3, 3), None)]);
    bench.report(session, key(1, 3, 3), finished(End::Failed(RetryOn::Error)));
    let (_, effects) = bench.ask_for_row(retry(vec![TaskId(1)]));
    assert_eq!(begun(&effects), [(key(1, 4, 4), None)], "nothing was saved since");
    assert_eq!(bench.rows().choices[&TaskId(1)], Choice::Beginning);
}

#[test]
fn a_task_may_always_begin_at_the_beginning() {
    let mut bench = Bench::new();
    let session = running(&mut bench, |spec| spec.continue_from = ContinueFrom::Beginning);
    bench.saves(session, 1, key(1, 1, 1), "x").expect("saved");
    bench.now_ms += 1;
    let (_, effects) = bench.hello("w1", 2, 1, vec![]);
    assert_eq!(begun(&effects), [(key(1, 2, 2), None)]);
}

#[test]
fn what_is_remembered_is_there_for_a_while() {
    let mut bench = Bench::new();
    let session = running(&mut bench, |_| {});
    bench.remembers(session, key(1, 1, 1), "short", Some(10)).expect("remembered");
    bench.remembers(session, key(1, 1, 1), "long", None).expect("remembered");
    bench.saves(session, 1, key(1, 1, 1), "x").expect("saved");
    bench.now_ms += 10;
    bench.saves(session, 2, key(1, 1, 1), "y").expect("saved");
    let texts: Vec<_> =
        bench.rows().checkpoints.values().map(|row| row.memory.clone().expect("some")).collect();
    assert!(texts[0].contains("short") && !texts[1].contains("short") && texts[1].contains("long"));
    let forget = AskBody::Forget { whose: Whose::Task, name: "long".into() };
    bench.asks(session, 3, key(1, 1, 1), forget.clone()).expect("forgotten");
    bench.asks(session, 4, key(1, 1, 1), forget).expect("is not there, as was asked");
    bench.remembers(session, key(1, 1, 1), "new", None).expect("remembered");
    assert_eq!(bench.rows().memory_of(Owner::Task(TaskId(1))).names().count(), 1, "no row of what expired");
    let run = AskBody::Remember { whose: Whose::Run, name: "k".into(), value: "1".into(), ttl_ms: None };
    assert_eq!(bench.asks(session, 5, key(1, 1, 1), run), Err(Rejection::NoRun(TaskId(1))));
    for name in ["", "a\0", "../x"] {
        let refused = bench.remembers(session, key(1, 1, 1), name, None);
        assert!(matches!(refused, Err(Rejection::Malformed(_))), "{name:?}: {refused:?}");
    }
}

#[test]
fn the_tasks_of_a_run_share_a_memory_as_long_as_it_lives() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    bench.start("{version: 1, tasks: {a: {kind: noop}, b: {kind: noop, needs: a}}}");
    let run = AskBody::Remember { whose: Whose::Run, name: "k".into(), value: "1".into(), ttl_ms: None };
    bench.asks(session, 1, key(1, 1, 1), run).expect("remembered");
    bench.restart();
    bench.now_ms += 1;
    let (session, _) = bench.hello("w1", 1, 4, vec![Held { key: key(1, 1, 1), started: true }]);
    assert_eq!(bench.rows().memory_of(Owner::Run(RunId(1))).names().count(), 1);
    bench.saves(session, 2, key(1, 1, 1), "x").expect("saved");
    bench.report(session, key(1, 1, 1), finished(End::Completed));
    bench.report(session, key(2, 1, 1), finished(End::Completed));
    let owner = Owner::Run(RunId(1));
    let remember = Request::Remember { owner, name: "k".into(), value: None, ttl_ms: None };
    assert_eq!(bench.ask(remember).0, Err(Rejection::UnknownRun(RunId(1))));
    // What runs again begins anew.
    let (reply, effects) = bench.rerun_if_possible("a");
    assert_eq!((reply, begun(&effects)), (Ok(Answer::Done), vec![(key(1, 2, 2), None)]));
}

#[test]
fn a_client_saves_too_and_its_key_makes_nothing_twice() {
    let mut bench = Bench::new();
    bench.submit(vec![plain()]);
    let save = |fence| Request::Save {
        save: Box::new(SaveRequest {
            task: TaskId(1),
            fence,
            checkpoint: checkpoint("by hand"),
            memory: Some(Memory::from_text(r#"{"k":{"value":1}}"#).expect("a memory")),
        }),
        key: Some(SubmitKey { key: KeyHash([1; 16]), body: KeyHash([1; 16]) }),
    };
    let stale = Err(Rejection::StaleAttempt { given: Fence(1), current: None });
    assert_eq!(bench.ask(save(Some(Fence(1)))).0, stale);
    for _ in 0..2 {
        let (reply, _) = bench.ask(save(None));
        assert!(matches!(reply, Ok(Answer::Saved { checkpoint: CheckpointId(1), .. })), "{reply:?}");
    }
    assert_eq!(bench.kept(), [1]);
    let (_, effects) = bench.hello("w1", 1, 1, vec![]);
    assert_eq!(begun(&effects), [(key(1, 1, 1), Some(1))]);
    let Some(Effect::Assign { tasks, .. }) = effects.last() else { panic!("{effects:?}") };
    assert!(tasks[0].remembers);
}
