//! What the simulation found about checkpoints and versions, each as short as it could be made.

use super::rows::Rows;
use super::*;
use crate::batch::AttemptEnd;
use crate::checkpoint::{Ask, AskBody, Content, Given, NewCheckpoint};
use crate::ids::CheckpointId;

impl Bench {
    fn upgraded(&self, from: u32, restart: bool, task: &NewTask) -> Request {
        Request::Upgrade(Box::new(NewVersion {
            task: TaskId(1),
            from,
            base: Rows::of(&self.batches).tasks[&TaskId(1)].0.spec,
            title: "t".into(),
            spec: Arc::clone(&task.spec),
            reason: "better".into(),
            author: "me".into(),
            first: "t".into(),
            restart,
            continue_from: ContinueFrom::Checkpoint,
        }))
    }
}

fn milestone() -> NewTask {
    task(|_, spec| spec.payload = Payload::Milestone)
}

fn saves(bench: &mut Bench, session: SessionEpoch, no: u64) -> Result<Given, Rejection> {
    let content = Content::Data(vec![1].into());
    let new = NewCheckpoint { name: "x".into(), json: false, content, files: None };
    let ask = Ask { no, key: key(1, 1, 1), body: AskBody::Checkpoint(Box::new(new)) };
    let effects = bench.step(Input::Asks { session, asks: vec![ask] });
    let [Effect::Answers { answers, .. }] = &effects[..] else { panic!("{effects:?}") };
    answers[0].1.clone()
}

#[test]
fn a_task_whose_lost_attempt_is_superseded_stays_in_its_queue() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.submit(vec![plain()]);
    bench.step(Input::Goodbye { session });
    let new = task(|_, spec| spec.labels = [("os".to_owned(), "linux".to_owned())].into());
    assert_eq!(bench.ask(bench.upgraded(1, true, &new)).0, Ok(Answer::Upgraded { version: 2 }));
    bench.now_ms += 1;
    let (_, effects) = bench.hello("w1", 2, 1, vec![]);
    assert_eq!(assigned(&effects).iter().map(|(_, key)| *key).collect::<Vec<_>>(), [key(1, 2, 2)]);
}

#[test]
fn a_task_that_becomes_a_milestone_is_done_and_given_to_nobody() {
    for (restart, end) in [(true, None), (false, None), (false, Some(End::Failed(RetryOn::Error)))] {
        let mut bench = Bench::new();
        let (session, _) = bench.hello("w1", 1, 1, vec![]);
        bench.submit(vec![task(|_, spec| {
            spec.retry.max = 1;
            spec.retry.backoff_ms = 0;
        })]);
        let (reply, mut effects) = bench.ask(bench.upgraded(1, restart, &milestone()));
        assert_eq!(reply, Ok(Answer::Upgraded { version: 2 }));
        match end {
            _ if restart => {}
            Some(end) => effects = bench.report(session, key(1, 1, 1), finished(end)),
            None => effects = bench.step(Input::Goodbye { session }),
        }
        assert_eq!((bench.status(1), assigned(&effects)), (Some(Status::Completed), vec![]));
        let attempts: Vec<_> = bench.batches.iter().flat_map(|batch| &batch.attempts).collect();
        assert!(attempts.iter().all(|row| row.end != AttemptEnd::Completed), "{attempts:?}");
    }
}

#[test]
fn another_version_takes_the_place_of_a_milestone_that_waits_for_an_attempt() {
    let mut bench = Bench::new();
    bench.hello("w1", 1, 1, vec![]);
    bench.submit(vec![plain()]);
    bench.ask(bench.upgraded(1, false, &milestone())).0.expect("upgraded");
    let (reply, effects) = bench.ask(bench.upgraded(2, true, &plain()));
    assert_eq!(reply, Ok(Answer::Upgraded { version: 3 }));
    assert_eq!(assigned(&effects).len(), 1, "{effects:?}");
}

#[test]
fn a_question_that_comes_again_saves_nothing_that_newer_ones_have_pushed_out() {
    for restarts in [false, true] {
        let mut bench = Bench::new();
        let (mut session, _) = bench.hello("w1", 1, 1, vec![]);
        bench.submit(vec![task(|_, spec| spec.keep_checkpoints = Some(1))]);
        let id = |given: Result<Given, Rejection>| given.map(|given| given.checkpoint);
        assert_eq!(id(saves(&mut bench, session, 1)), Ok(Some(CheckpointId(1))));
        assert_eq!(id(saves(&mut bench, session, 2)), Ok(Some(CheckpointId(2))));
        if restarts {
            bench.restart();
        }
        // The answers were lost with the socket.
        bench.now_ms += 1;
        (session, _) = bench.hello("w1", 1, 1, vec![Held { key: key(1, 1, 1), started: true }]);
        assert_eq!(id(saves(&mut bench, session, 1)), Ok(None));
        assert_eq!(id(saves(&mut bench, session, 2)), Ok(Some(CheckpointId(2))));
        assert_eq!(id(saves(&mut bench, session, 3)), Ok(Some(CheckpointId(3))));
    }
}

#[test]
fn what_was_occupied_twice_is_not_free_twice() {
    let mut bench = Bench::new();
    let cpus = |cpus: u32| task(move |_, spec| spec.resources.cpus_milli = cpus);
    bench.hello("w1", 1, 4, vec![]);
    bench.submit(vec![cpus(500), cpus(500)]);
    for task in 1..=2 {
        let Request::Upgrade(mut new) = bench.upgraded(1, false, &cpus(3_000)) else { unreachable!() };
        (new.task, new.base) = (TaskId(task), cpus(500).spec.hash);
        bench.ask(Request::Upgrade(new)).0.expect("upgraded");
    }
    // The next master takes both for what they are now: more than the worker has.
    bench.restart();
    bench.now_ms += 1;
    let held = [1, 2].map(|task| Held { key: key(task, 1, 1), started: true });
    let (session, _) = bench.hello("w1", 1, 4, held.to_vec());
    for task in 1..=2 {
        bench.report(session, key(task, 1, 1), finished(End::Completed));
    }
    let effects = bench.submit(vec![cpus(3_000), cpus(3_000)]);
    assert_eq!(assigned(&effects).len(), 1, "it has 4,000");
}

#[test]
fn a_task_that_became_a_milestone_has_left_nothing() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.submit(vec![plain()]);
    let outcome = Outcome { outputs: Some("{}".into()), ..Outcome::default() };
    let ReportBody::Finished(whole) = finished(End::Completed) else { unreachable!() };
    bench.report(session, key(1, 1, 1), ReportBody::Finished(Box::new(Finished { outcome, ..*whole })));
    bench.step(Input::Request { reply: ReplyTo(1), request: bench.upgraded(1, false, &milestone()) });
    let tasks = vec![Rows::of(&bench.batches).loaded_task(TaskId(1), &bench.batches)];
    bench.step(Input::Loaded { asked: vec![TaskId(1)], tasks });
    // What comes after it gets the same from this master and from the next.
    let (row, outcome) = &Rows::of(&bench.batches).tasks[&TaskId(1)];
    assert_eq!((row.state.status, outcome), (Status::Completed, &Outcome::default()));
}
