//! Locks of clients, of tasks in their turns, and of running attempts.

use super::*;
use crate::batch::{LockEnd, LockRow};
use crate::checkpoint::{Ask, AskBody, Given, LockAsk};
use crate::ids::LockNumber;
use crate::lock::{LockFence, LockMode, LockOwner, LockPath, LockUntil, PathLock, Repository};
use crate::spec::SpecLocks;

fn paths(text: &str) -> Arc<[PathLock]> {
    let lock = |word: &str| {
        let (mode, path) = word.split_once(':').unwrap_or(("w", word));
        let mode = if mode == "r" { LockMode::Read } else { LockMode::Write };
        PathLock { path: LockPath::new(path).expect("a path"), mode }
    };
    text.split(' ').map(lock).collect()
}

fn repo() -> Repository {
    Repository::new("h/app").expect("a repository")
}

fn want(owner: &str, text: &str) -> LockRequest {
    LockRequest {
        repo: repo(),
        ignore_case: false,
        paths: paths(text),
        owner: LockOwner::Named(owner.into()),
        ttl_ms: Some(10_000),
        reason: "".into(),
        priority: 50,
        key: None,
    }
}

/// A task that locks these.
fn locking(text: &str) -> NewTask {
    let text = text.to_owned();
    task(move |_, spec| {
        let (ignore_case, until) = (false, LockUntil::Attempt);
        spec.locks = vec![SpecLocks { repo: repo(), ignore_case, until, paths: paths(&text) }];
    })
}

impl Bench {
    fn lock(&mut self, want: LockRequest) -> Result<LockRow, Rejection> {
        match self.ask(Request::Lock { want: Box::new(want), wait_ms: 0 }).0? {
            Answer::Locked(row) => Ok(*row),
            other => panic!("{other:?}"),
        }
    }

    /// Asks, and waits under a number of its own.
    fn wait_for(&mut self, reply: u64, want: LockRequest, wait_ms: u64) -> Vec<Effect> {
        let request = Request::Lock { want: Box::new(want), wait_ms };
        self.step(Input::Request { reply: ReplyTo(reply), request })
    }

    fn unlock(&mut self, row: &LockRow) -> Vec<Effect> {
        let unlock = Unlock { lock: row.birth.id, fence: Some(row.birth.fence), owner: None };
        self.ask(Request::Unlock(vec![unlock])).1
    }

    fn locked(&mut self) -> Vec<String> {
        let filter = LockFilter { limit: 100, ..LockFilter::default() };
        match self.ask(Request::Locks(filter)).0 {
            Ok(Answer::LockList { locks, .. }) => {
                let text = |row: &LockRow| format!("{} {}", row.birth.owner, row.birth.paths[0].path);
                locks.iter().map(text).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn lock_ask(
        &mut self,
        session: SessionEpoch,
        key: AttemptKey,
        no: u64,
        text: &str,
        wait_ms: u64,
    ) -> Vec<Effect> {
        let paths = paths(text).to_vec();
        let ask = LockAsk { repo: repo(), ignore_case: false, paths, wait_ms, reason: "".into() };
        let body = AskBody::Lock(Box::new(ask));
        self.step(Input::Asks { session, asks: vec![Ask { no, key, body }] })
    }

    fn ends(&self) -> Vec<(u64, LockEnd)> {
        let writes = self.batches.iter().flat_map(|batch| &batch.locks);
        writes.filter_map(|w| w.state.ended.as_ref().map(|ended| (w.number.0, ended.end))).collect()
    }
}

/// Who was answered, and whether he got it.
fn replies(effects: &[Effect]) -> Vec<(u64, bool)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Reply { to, reply } => Some((to.0, reply.is_ok())),
            _ => None,
        })
        .collect()
}

fn answers(effects: &[Effect]) -> Vec<(u64, Result<Given, Rejection>)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Answers { answers, .. } => Some(answers.clone()),
            _ => None,
        })
        .flatten()
        .collect()
}

fn tasks_of(effects: &[Effect]) -> Vec<u64> {
    assigned(effects).iter().map(|(_, key)| key.task.0).collect()
}

#[test]
fn a_lock_is_for_all_paths_or_none_and_fences_rise() {
    let mut bench = Bench::new();
    let first = bench.lock(want("ann", "src/a docs/**")).expect("free");
    assert_eq!((first.birth.fence, first.number), (LockFence(1), LockNumber(1)));
    let refused = bench.lock(want("bob", "lib/b docs/x")).expect_err("held");
    let Rejection::Locked(locked) = refused else { panic!("{refused:?}") };
    assert_eq!(locked.holders[0].owner, LockOwner::Named("ann".into()));
    assert_eq!(locked.holders[0].path.as_str(), "docs/**");
    assert_eq!(locked.holders[0].lock, Some((first.birth.id, LockFence(1))));
    assert!(bench.lock(want("bob", "lib/b")).expect("was not taken").birth.fence > LockFence(1));
    bench.unlock(&first);
    let again = bench.lock(want("bob", "docs/x")).expect("free again");
    assert_eq!(again.birth.fence, LockFence(3));
    assert_eq!(bench.locked(), ["bob lib/b", "bob docs/x"]);
}

#[test]
fn those_who_wait_are_served_in_order_and_readers_do_not_starve_a_writer() {
    let mut bench = Bench::new();
    let reader = bench.lock(want("ann", "r:a")).expect("free");
    assert!(replies(&bench.wait_for(11, want("bob", "a"), 60_000)).is_empty());
    // A reader that comes later does not pass the writer; one elsewhere does.
    assert!(replies(&bench.wait_for(12, want("cyd", "r:a"), 60_000)).is_empty());
    assert_eq!(replies(&bench.wait_for(13, want("dan", "r:b"), 60_000)), [(13, true)]);
    assert!(matches!(bench.lock(want("eve", "r:a")), Err(Rejection::Locked(locked)) if locked.position == 1));
    let effects = bench.unlock(&reader);
    assert_eq!(replies(&effects), [(11, true)]);
    // A more urgent one is served first.
    let urgent = LockRequest { priority: 90, ..want("fay", "a") };
    assert!(replies(&bench.wait_for(14, urgent, 60_000)).is_empty());
    let row = LockRow { ..bench.row_of("bob") };
    assert_eq!(replies(&bench.unlock(&row)), [(14, true)]);
}

impl Bench {
    fn row_of(&mut self, owner: &str) -> LockRow {
        let owner = Some(LockOwner::Named(owner.into()));
        match self.ask(Request::Locks(LockFilter { owner, limit: 1, ..LockFilter::default() })).0 {
            Ok(Answer::LockList { mut locks, .. }) => locks.remove(0),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn waiting_has_an_end_and_so_has_holding() {
    let mut bench = Bench::new();
    let held = bench.lock(want("ann", "a")).expect("free");
    bench.wait_for(11, want("bob", "a"), 500);
    assert!(replies(&bench.wait(499)).is_empty());
    assert_eq!(replies(&bench.wait(1)), [(11, false)]);
    bench.wait_for(12, want("bob", "a"), 60_000);
    // Renewed at 9 s it ends 10 s later.
    bench.wait(8_500);
    let renew = Request::Renew { lock: held.birth.id, fence: LockFence(1), ttl_ms: None };
    assert!(bench.ask(renew).0.is_ok());
    assert!(replies(&bench.wait(9_999)).is_empty());
    assert_eq!(replies(&bench.wait(1)), [(12, true)]);
    assert_eq!(bench.ends(), [(1, LockEnd::Expired)]);
    let late = Request::Renew { lock: held.birth.id, fence: LockFence(1), ttl_ms: None };
    assert_eq!(bench.ask(late).0, Err(Rejection::UnknownLock(held.birth.id)));
    assert_eq!(bench.row_of("bob").birth.fence, LockFence(2));
}

#[test]
fn who_goes_away_loses_his_place_and_others_move_up() {
    let mut bench = Bench::new();
    bench.lock(want("ann", "r:a")).expect("free");
    bench.wait_for(11, want("bob", "a"), 60_000);
    bench.wait_for(12, want("cyd", "r:a"), 60_000);
    let gone = bench.step(Input::Abandoned { reply: ReplyTo(11) });
    assert_eq!(replies(&gone), [(11, false), (12, true)]);
    assert!(bench.step(Input::Abandoned { reply: ReplyTo(11) }).is_empty());
}

#[test]
fn a_stale_fence_and_another_owner_release_nothing() {
    let mut bench = Bench::new();
    let row = bench.lock(want("ann", "a b")).expect("free");
    let mut try_it = |fence: u64, owner: &str| {
        let owner = Some(LockOwner::Named(owner.into()));
        let unlock = Unlock { lock: row.birth.id, fence: Some(LockFence(fence)), owner };
        match bench.ask(Request::Unlock(vec![unlock])).0 {
            Ok(Answer::Unlocked(mut results)) => results.remove(0),
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(try_it(7, "ann"), Err(Rejection::LockLost(_))));
    assert!(matches!(try_it(1, "bob"), Err(Rejection::OthersLock(_))));
    assert!(try_it(1, "ann").is_ok());
    assert!(matches!(try_it(1, "ann"), Err(Rejection::UnknownLock(_))));
    bench.lock(want("ann", "a b")).expect("free");
    bench.lock(want("ann", "c")).expect("free");
    let by = |path: Option<&str>| Request::UnlockBy {
        owner: LockOwner::Named("ann".into()),
        repo: None,
        path: path.map(|path| LockPath::new(path).expect("a path")),
    };
    assert!(matches!(bench.ask(by(Some("a"))).0, Err(Rejection::LockedTogether(_))));
    assert_eq!(bench.ask(by(Some("c"))).0, Ok(Answer::Released(1)));
    assert_eq!(bench.ask(by(None)).0, Ok(Answer::Released(1)));
}

#[test]
fn a_key_finds_its_lock_again() {
    let mut bench = Bench::new();
    let key = SubmitKey { key: KeyHash([1; 16]), body: KeyHash([2; 16]) };
    let with = |key| LockRequest { key: Some(key), ..want("ann", "a") };
    let row = bench.lock(with(key)).expect("free");
    assert_eq!(bench.lock(with(key)), Ok(row.clone()));
    let other = SubmitKey { body: KeyHash([3; 16]), ..key };
    assert_eq!(bench.lock(with(other)), Err(Rejection::KeyConflict));
    // While it waits, who comes with the same key takes the place over.
    let second = SubmitKey { key: KeyHash([4; 16]), ..key };
    let with = |key| LockRequest { key: Some(key), ..want("bob", "a") };
    bench.wait_for(11, with(second), 60_000);
    assert_eq!(replies(&bench.wait_for(12, with(second), 60_000)), [(11, false)]);
    assert_eq!(replies(&bench.unlock(&row)), [(12, true)]);
    bench
        .ask(Request::UnlockBy { owner: LockOwner::Named("bob".into()), repo: None, path: None })
        .0
        .expect("held");
    assert!(matches!(bench.lock(with(second)), Err(Rejection::LockLost(_))));
}

#[test]
fn a_circle_is_refused_and_named() {
    let mut bench = Bench::new();
    bench.lock(want("ann", "a")).expect("free");
    bench.lock(want("bob", "b")).expect("free");
    bench.wait_for(11, want("ann", "b"), 60_000);
    let effects = bench.wait_for(12, want("bob", "a"), 60_000);
    let Some(Effect::Reply { to: ReplyTo(12), reply: Err(Rejection::Deadlock(circle)) }) = effects.first()
    else {
        panic!("{effects:?}")
    };
    assert_eq!(circle, "bob waits for ann, which waits for bob");
    // The first goes on waiting.
    let row = bench.row_of("bob");
    assert_eq!(replies(&bench.unlock(&row)), [(11, true)]);
}

#[test]
fn a_task_is_assigned_with_its_locks_and_others_go_on_meanwhile() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w", 1, 4, vec![]);
    let effects = bench.submit(vec![locking("src/**"), locking("src/a"), plain(), locking("docs/x")]);
    assert_eq!(tasks_of(&effects), [3, 1, 4]);
    let Some(Effect::Assign { tasks, .. }) = effects.iter().find(|e| matches!(e, Effect::Assign { .. }))
    else {
        panic!()
    };
    let first = tasks.iter().find(|task| task.key.task == TaskId(1)).expect("assigned");
    assert_eq!(first.locks[0].fence, LockFence(1));
    let why = bench.kernel.why(TaskId(2), bench.now()).expect("live");
    assert_eq!((why.reasons[0].code, why.reasons[0].held_by.clone()), ("lock", vec!["task:1".to_owned()]));
    // The end of one is the beginning of the other, in one step.
    let effects = bench.report(session, key(1, 1, 1), finished(End::Completed));
    assert_eq!(tasks_of(&effects), [2]);
    assert_eq!(bench.locked(), ["task:2 src/a", "task:4 docs/x"]);
    let batch = bench.batches.iter().rev().find(|batch| !batch.locks.is_empty()).expect("written");
    assert_eq!(batch.locks.len(), 2, "released and granted together");
}

#[test]
fn a_worker_that_knows_no_locks_is_given_no_task_with_some() {
    let mut bench = Bench::new();
    let old = Hello { version: LOCKS_VERSION - 1, ..hello("old", 1, 4) };
    bench.step(Input::Hello { session: SessionEpoch(1), hello: Box::new(old) });
    assert_eq!(tasks_of(&bench.submit(vec![locking("a"), plain()])), [2]);
    let why = bench.kernel.why(TaskId(1), bench.now()).expect("live");
    assert!(why.reasons[0].detail.contains("knows no locks"), "{why:?}");
    let (_, effects) = bench.hello("new", 2, 4, vec![]);
    assert_eq!(tasks_of(&effects), [1]);
}

#[test]
fn a_task_without_a_worker_keeps_its_place_and_blocks_nobody() {
    let mut bench = Bench::new();
    bench.submit(vec![locking("a")]);
    let row = bench.lock(want("ann", "a")).expect("no worker is there");
    let (session, effects) = bench.hello("w", 1, 1, vec![]);
    assert!(tasks_of(&effects).is_empty());
    // Now one is: who comes later waits behind the task.
    bench.wait_for(11, want("bob", "a"), 60_000);
    // The worker's slot is taken by another task: the queue does not wait for it.
    let effects = bench.submit(vec![plain()]);
    assert_eq!(tasks_of(&effects), [2]);
    assert_eq!(replies(&bench.unlock(&row)), [(11, true)]);
    let effects = bench.report(session, key(2, 1, 1), finished(End::Completed));
    assert!(tasks_of(&effects).is_empty());
    let row = bench.row_of("bob");
    assert_eq!(tasks_of(&bench.unlock(&row)), [1]);
}

#[test]
fn who_waits_behind_a_task_is_served_when_the_task_can_no_longer_begin() {
    let mut bench = Bench::new();
    bench.lock(want("ann", "r:a")).expect("free");
    let (_, _) = bench.hello("w", 1, 1, vec![]);
    bench.submit(vec![locking("a")]);
    bench.wait_for(11, want("bob", "r:a"), 60_000);
    let effects = bench.submit(vec![plain()]);
    assert_eq!((tasks_of(&effects), replies(&effects)), (vec![2], vec![(11, true)]));
}

#[test]
fn locks_are_lost_with_their_attempt_and_it_does_not_come_back() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w", 1, 1, vec![]);
    bench.submit(vec![locking("a")]);
    bench.report(session, key(1, 1, 1), ReportBody::Started { at: Wall(1) });
    bench.wait_for(11, want("ann", "a"), 600_000);
    bench.step(Input::Disconnected { session });
    let lease = Settings::default().lease_ms + Settings::default().lease_margin_ms;
    let effects = bench.wait(lease);
    assert_eq!(replies(&effects), [(11, true)]);
    assert_eq!(bench.ends(), [(1, LockEnd::Lost)]);
    // Its worker returns with it: it has no lock any more.
    let held = Held { key: key(1, 1, 1), started: true };
    let (session, effects) = bench.hello("w", 1, 1, vec![held]);
    assert!(matches!(&effects[0], Effect::Welcome { stop, .. } if *stop == [key(1, 1, 1)]), "{effects:?}");
    bench.report(session, key(1, 1, 1), finished(End::Completed));
    assert_eq!(bench.status(1), Some(Status::Pending));
    let row = bench.row_of("ann");
    assert_eq!(assigned(&bench.unlock(&row)), [(session, key(1, 2, 2))]);
}

#[test]
fn an_attempt_asks_for_more_and_gives_it_back() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w", 1, 2, vec![]);
    bench.submit(vec![locking("a"), locking("b")]);
    let (one, two) = (key(1, 1, 1), key(2, 1, 1));
    for key in [one, two] {
        bench.report(session, key, ReportBody::Started { at: Wall(1) });
    }
    // Its own locks are in nobody's way.
    let given = answers(&bench.lock_ask(session, one, 1, "a c", 0)).remove(0).1.expect("free");
    let lock = given.lock.expect("a lock");
    // The same question gets the same answer.
    let again = answers(&bench.lock_ask(session, one, 1, "a c", 0)).remove(0).1.expect("the same");
    assert_eq!(again.lock, Some(lock.clone()));
    assert!(matches!(
        &answers(&bench.lock_ask(session, two, 2, "c", 0))[..],
        [(2, Err(Rejection::Locked(_)))]
    ));
    assert!(answers(&bench.lock_ask(session, two, 3, "c", 5_000)).is_empty());
    // Asked again after a reconnect, it still waits.
    assert!(answers(&bench.lock_ask(session, two, 3, "c", 5_000)).is_empty());
    // The first may not wait for the second now.
    assert!(matches!(
        &answers(&bench.lock_ask(session, one, 4, "b", 5_000))[..],
        [(4, Err(Rejection::Deadlock(_)))]
    ));
    let body = AskBody::Unlock { lock: lock.id };
    let effects = bench.step(Input::Asks { session, asks: vec![Ask { no: 5, key: one, body }] });
    let mut numbers: Vec<u64> = answers(&effects).iter().map(|(no, _)| *no).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [3, 5]);
    // All ends with the attempts.
    bench.report(session, one, finished(End::Completed));
    bench.report(session, two, finished(End::Failed(RetryOn::Error)));
    assert!(bench.locked().is_empty());
}

#[test]
fn reading_is_no_right_to_write() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w", 1, 2, vec![]);
    bench.submit(vec![locking("r:a"), locking("r:a")]);
    let (one, two) = (key(1, 1, 1), key(2, 1, 1));
    // Both would wait for each other: it is a try.
    assert!(matches!(
        &answers(&bench.lock_ask(session, one, 1, "a", 5_000))[..],
        [(1, Err(Rejection::Locked(_)))]
    ));
    bench.report(session, two, finished(End::Completed));
    assert!(matches!(&answers(&bench.lock_ask(session, one, 2, "a", 0))[..], [(2, Ok(_))]));
}

#[test]
fn a_broken_lock_stops_its_attempt() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w", 1, 1, vec![]);
    bench.submit(vec![locking("a")]);
    bench.wait_for(11, want("ann", "a"), 60_000);
    let owner = Some(LockOwner::Task(TaskId(1)));
    let Ok(Answer::LockList { locks, .. }) =
        bench.ask(Request::Locks(LockFilter { owner, limit: 1, ..LockFilter::default() })).0
    else {
        panic!()
    };
    let (_, effects) = bench.ask(Request::Break { lock: locks[0].birth.id, reason: "stuck".into() });
    assert!(effects.iter().any(|e| matches!(e, Effect::Drop { keys, .. } if *keys == [key(1, 1, 1)])));
    assert_eq!(replies(&effects), [(11, true)], "who waits is served before the next attempt");
    assert_eq!(bench.ends(), [(1, LockEnd::Broken)]);
    let _ = session;
}

#[test]
fn breaking_the_lock_of_what_has_become_a_milestone_ends_it() {
    let mut bench = Bench::new();
    bench.hello("w", 1, 1, vec![]);
    let old = locking("a");
    let base = old.spec.hash;
    bench.submit(vec![old]);
    let lock = bench.lock(want("ann", "a")).expect_err("held");
    let Rejection::Locked(locked) = lock else { panic!("{lock:?}") };
    let (lock, _) = locked.holders[0].lock.expect("a grant");
    let spec = Spec { payload: Payload::Milestone, ..Spec::new(Payload::Noop) };
    let new = NewVersion {
        task: TaskId(1),
        from: 1,
        base,
        title: "t".into(),
        spec: Arc::new(PreparedSpec::new(spec)),
        reason: "".into(),
        author: "".into(),
        first: "t".into(),
        restart: false,
        continue_from: ContinueFrom::Checkpoint,
    };
    bench.ask(Request::Upgrade(Box::new(new))).0.expect("live");
    bench.ask(Request::Break { lock, reason: "stuck".into() }).0.expect("held");
    assert_eq!(bench.status(1), Some(Status::Completed));
}

#[test]
fn a_lock_may_be_held_until_the_merge() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w", 1, 1, vec![]);
    let merged = task(|_, spec| {
        let until = LockUntil::Merged;
        spec.retry.max = 1;
        spec.retry.backoff_ms = 0;
        spec.locks = vec![SpecLocks { repo: repo(), ignore_case: false, until, paths: paths("a") }];
    });
    bench.submit(vec![merged]);
    // A failed attempt merges nothing.
    bench.report(session, key(1, 1, 1), finished(End::Failed(RetryOn::Error)));
    bench.wait(1);
    assert_eq!(bench.ends(), [(1, LockEnd::Released)]);
    bench.report(session, key(1, 2, 2), finished(End::Completed));
    assert_eq!(bench.locked(), ["task:1 a"]);
    assert!(bench.lock(want("ann", "a")).is_err());
    let by = Request::UnlockBy { owner: LockOwner::Task(TaskId(1)), repo: None, path: None };
    assert_eq!(bench.ask(by).0, Ok(Answer::Released(1)));
    assert!(bench.lock(want("ann", "a")).is_ok());
}

#[test]
fn a_cancelled_or_changed_task_leaves_its_place() {
    let mut bench = Bench::new();
    let row = bench.lock(want("ann", "a")).expect("free");
    bench.hello("w", 1, 2, vec![]);
    bench.submit(vec![locking("a"), locking("a"), locking("a")]);
    bench.ask(Request::Cancel { tasks: vec![TaskId(1)] }).0.expect("waits");
    let tasks = vec![TaskId(3)];
    bench.ask(Request::Patch { tasks, priority: Some(90), group: None }).0.expect("waits");
    assert_eq!(tasks_of(&bench.unlock(&row)), [3]);
}

#[test]
fn a_restart_keeps_what_is_held_and_its_fences() {
    let mut bench = Bench::new();
    let row = bench.lock(want("ann", "a")).expect("free");
    let spaces = bench.batches.iter().flat_map(|batch| batch.lock_spaces.clone()).collect();
    let counters = bench.kernel.counters;
    let plan = RecoveryPlan::default().with_locks(spaces, vec![row.clone()]);
    let later = Now { mono: Mono(5), wall: Wall(bench.now().wall.0 + 3_600_000_000) };
    let (kernel, _) = Kernel::recover(Settings::default(), Epoch(2), counters, plan, later, maker());
    (bench.kernel, bench.now_ms) = (kernel, 1);
    assert!(bench.lock(want("bob", "a")).is_err(), "a full fresh time");
    assert_eq!(bench.lock(want("bob", "b")).expect("free").birth.fence, LockFence(2));
    bench.wait(10_001);
    assert_eq!(bench.lock(want("bob", "a")).expect("expired").birth.fence, LockFence(3));
}
