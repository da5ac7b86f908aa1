//! Upgrades of tasks that wait, run or have ended.

use super::rows::Rows;
use super::*;

fn command(line: &str) -> NewTask {
    task(|_, spec| spec.payload = Payload::Shell { command: line.into() })
}

impl Bench {
    /// The next version of task 1.
    fn version(&self, from: u32, new: &NewTask) -> NewVersion {
        NewVersion {
            task: TaskId(1),
            from,
            base: Rows::of(&self.batches).tasks[&TaskId(1)].0.spec,
            title: format!("version {}", from + 1).into(),
            spec: Arc::clone(&new.spec),
            reason: "better".into(),
            author: "me".into(),
            first: "t".into(),
            restart: false,
            continue_from: ContinueFrom::Checkpoint,
        }
    }
}

fn upgrade(new: NewVersion) -> Request {
    Request::Upgrade(Box::new(new))
}

/// What the attempts run that were given away in these effects.
fn given(effects: &[Effect]) -> Vec<(AttemptKey, String)> {
    let given = effects.iter().filter_map(|effect| match effect {
        Effect::Assign { tasks, .. } => Some(tasks),
        _ => None,
    });
    let text = |body: &str| match serde_json::from_str::<Spec>(body).expect("own text").payload {
        Payload::Shell { command } => command,
        other => other.kind().to_owned(),
    };
    given.flatten().map(|task| (task.key, text(&task.body))).collect()
}

fn versions(bench: &Bench) -> Vec<(u32, String)> {
    let rows = Rows::of(&bench.batches).versions;
    rows.iter().map(|row| (row.version, row.title.to_string())).collect()
}

#[test]
fn a_waiting_task_runs_its_latest_version() {
    let mut bench = Bench::new();
    bench.submit(vec![command("one")]);
    assert_eq!(bench.ask(upgrade(bench.version(1, &command("two")))).0, Ok(Answer::Upgraded { version: 2 }));
    let gpu = task(|_, spec| {
        spec.payload = Payload::Shell { command: "three".into() };
        spec.labels.insert("gpu".into(), "1".into());
    });
    assert_eq!(bench.ask(upgrade(bench.version(2, &gpu))).0, Ok(Answer::Upgraded { version: 3 }));
    let stale = Err(Rejection::OtherVersion { expected: 2, current: 3 });
    assert_eq!(bench.ask(upgrade(bench.version(2, &gpu))).0, stale);
    let (_, effects) = bench.hello("w1", 1, 1, vec![]);
    assert_eq!(given(&effects), [], "nobody has the label any more");
    bench.restart();
    let (reply, effects) = bench.ask(upgrade(bench.version(3, &command("four"))));
    assert_eq!(reply, Ok(Answer::Upgraded { version: 4 }));
    assert_eq!(given(&effects), []);
    bench.now_ms += 1;
    let (_, effects) = bench.hello("w1", 1, 1, vec![]);
    assert_eq!(given(&effects), [(key(1, 1, 1), "four".into())]);
    let whole: Vec<_> = versions(&bench);
    let name = |n: u32| (n, if n == 1 { "t".to_owned() } else { format!("version {n}") });
    assert_eq!(whole, [1, 2, 3, 4].map(name));
    assert_eq!(&*Rows::of(&bench.batches).titles[&TaskId(1)], "version 4");
}

#[test]
fn a_version_is_made_from_what_the_task_is() {
    for settled in [false, true] {
        let mut bench = Bench::new();
        let (session, _) = bench.hello("w1", 1, 1, vec![]);
        bench.submit(vec![command("one")]);
        if settled {
            bench.report(session, key(1, 1, 1), finished(End::Completed));
        }
        // The same version, and made from another specification: it was given something meanwhile.
        let stale = NewVersion { base: command("zero").spec.hash, ..bench.version(1, &command("two")) };
        assert_eq!(bench.ask_for_row(upgrade(stale)).0, Err(Rejection::Busy));
        assert_eq!(versions(&bench), []);
        let fresh = upgrade(bench.version(1, &command("two")));
        assert_eq!(bench.ask_for_row(fresh).0, Ok(Answer::Upgraded { version: 2 }));
    }
}

#[test]
fn a_running_attempt_finishes_on_its_version() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    let cpus = |cpus: u32, line: &str| {
        let line = line.to_owned();
        task(move |_, spec| {
            spec.payload = Payload::Shell { command: line };
            spec.resources.cpus_milli = cpus;
            spec.retry.max = 1;
            spec.retry.backoff_ms = 0;
        })
    };
    bench.submit(vec![cpus(4_000, "one")]);
    bench.report(session, key(1, 1, 1), ReportBody::Started { at: Wall(5) });
    let (reply, effects) = bench.ask(upgrade(bench.version(1, &cpus(1_000, "two"))));
    assert_eq!((reply, given(&effects)), (Ok(Answer::Upgraded { version: 2 }), vec![]));
    let (reply, _) = bench.ask(upgrade(bench.version(2, &cpus(2_000, "three"))));
    assert_eq!(reply, Ok(Answer::Upgraded { version: 3 }));
    // It fails, and is tried again as what it is now; what it occupied is given back whole.
    let effects = bench.report(session, key(1, 1, 1), finished(End::Failed(RetryOn::Error)));
    assert_eq!(given(&effects), [(key(1, 2, 2), "three".into())]);
    let effects = bench.submit(vec![cpus(2_000, "beside")]);
    assert_eq!(given(&effects).len(), 0, "one slot");
    bench.ask(upgrade(bench.version(3, &cpus(4_000, "four")))).0.expect("upgraded");
    let effects = bench.report(session, key(1, 2, 2), finished(End::Completed));
    assert_eq!(bench.status(1), Some(Status::Completed), "it has finished on its version");
    assert_eq!(given(&effects), [(key(2, 1, 1), "beside".into())]);
}

#[test]
fn an_attempt_that_waits_at_its_worker_is_asked_back() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.submit(vec![command("one")]);
    let asked_back = Effect::Return { session, keys: vec![key(1, 1, 1)] };
    let title = bench.version(1, &command("one"));
    assert!(!bench.ask(upgrade(title)).1.contains(&asked_back), "the work is the same");
    let (reply, effects) = bench.ask(upgrade(bench.version(2, &command("two"))));
    assert_eq!(reply, Ok(Answer::Upgraded { version: 3 }));
    assert!(effects.contains(&asked_back), "{effects:?}");
    let effects = bench.report(session, key(1, 1, 1), ReportBody::Returned {});
    let again: Vec<_> = given(&effects).into_iter().map(|(_, line)| line).collect();
    assert_eq!(again, ["two"]);
}

#[test]
fn a_running_attempt_may_be_begun_anew() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.submit(vec![command("one")]);
    bench.report(session, key(1, 1, 1), ReportBody::Started { at: Wall(5) });
    let restart = NewVersion { restart: true, ..bench.version(1, &command("two")) };
    let (reply, effects) = bench.ask(upgrade(restart));
    assert_eq!(reply, Ok(Answer::Upgraded { version: 2 }));
    assert!(effects.contains(&Effect::Drop { session, keys: vec![key(1, 1, 1)] }));
    assert_eq!(given(&effects), [(key(1, 2, 2), "two".into())]);
    bench.report(session, key(1, 1, 1), finished(End::Completed));
    assert_eq!(bench.status(1), Some(Status::Pending));
    bench.ask(Request::Cancel { tasks: vec![TaskId(1)] }).0.expect("asked");
    let restart = NewVersion { restart: true, ..bench.version(2, &command("three")) };
    assert!(matches!(bench.ask(upgrade(restart)).0, Err(Rejection::Illegal { .. })));
    assert_eq!(versions(&bench).len(), 2, "nothing was changed");
}

#[test]
fn a_task_that_has_ended_runs_again_as_its_new_version() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 1, vec![]);
    bench.submit(vec![command("one")]);
    bench.report(session, key(1, 1, 1), finished(End::Completed));
    let stale = bench.ask_for_row(upgrade(bench.version(4, &command("two")))).0;
    assert_eq!(stale, Err(Rejection::OtherVersion { expected: 4, current: 1 }));
    assert_eq!(bench.status(1), Some(Status::Completed));
    let (reply, effects) = bench.ask_for_row(upgrade(bench.version(1, &command("two"))));
    assert_eq!(reply, Ok(Answer::Upgraded { version: 2 }));
    assert_eq!(given(&effects), [(key(1, 2, 2), "two".into())]);
    assert_eq!(bench.kernel.stats().settled.completed, 0);
    bench.report(session, key(1, 2, 2), finished(End::Completed));
    let (reply, effects) = bench.ask_for_row(upgrade(bench.version(2, &command("two"))));
    assert_eq!(reply, Ok(Answer::Upgraded { version: 3 }), "the same work may have another title");
    assert_eq!(given(&effects), [(key(1, 3, 3), "two".into())]);
}

#[test]
fn a_node_is_upgraded_with_its_run() {
    let mut bench = Bench::new();
    bench.start("{version: 1, tasks: {a: {kind: noop}}}");
    let refused = bench.ask(upgrade(bench.version(1, &command("two")))).0;
    assert_eq!(refused, Err(Rejection::PartOfRun(crate::ids::RunId(1))));
}
