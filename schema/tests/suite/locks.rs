//! Locks: every grant is kept with its end, what is held is found again, and history is gone through.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use agentflow_core::batch::{
    Batch, Counters, LockBirth, LockEnd, LockEnded, LockLease, LockRow, LockSpaceRow, LockState, LockWrite,
    LockedBy,
};
use agentflow_core::event::{Event, Happening, Subject};
use agentflow_core::ids::{Attempt, Fence, LockNumber, Seq, SpaceId, TaskId};
use agentflow_core::lock::{
    LockFence, LockId, LockMode, LockOwner, LockPath, LockUntil, PathLock, Repository,
};
use agentflow_core::time::Wall;
use agentflow_schema::Readers;
use agentflow_schema::testing::TestDatabase;

use crate::build::{batch, creation, gather, open, open_relaxed};
use crate::on_both;
use crate::retention::round;

on_both!(
    grants_are_read_back,
    the_last_word_about_a_repository_counts,
    the_last_word_about_a_grant_counts,
    a_grant_may_end_within_its_commit,
    a_renewed_grant_ends_later,
    nothing_is_given_out_twice,
    what_is_held_is_recovered,
    numbers_of_locks_go_on,
    history_is_gone_through_in_pages,
    a_page_of_many_paths_is_short,
    ended_grants_go_when_they_are_old,
    many_grants_go_in_turns,
    events_of_a_lock_are_found,
    events_of_many_locks_of_one_decision_are_found,
    statements_about_locks_are_prepared_once,
    nul_in_reasons_is_replaced,
    rows_that_cannot_be_are_damage,
);

const DAY: i64 = 24 * 3_600 * 1_000_000;

fn readers(database: &TestDatabase) -> Readers {
    Readers::open(database.target()).expect("the writer made it")
}

fn repo(id: u32) -> Repository {
    Repository::new(&format!("https://example.com/team/app{id}.git")).expect("a repository")
}

fn space(id: u32, fence: u64) -> LockSpaceRow {
    LockSpaceRow { id: SpaceId(id), repo: repo(id), ignore_case: false, fence: LockFence(fence) }
}

fn path(text: &str, mode: LockMode) -> PathLock {
    PathLock { path: LockPath::new(text).expect("a path"), mode }
}

/// The id of a grant of these tests.
fn id(number: u64) -> LockId {
    LockId((u128::from(number) << 64 | u128::from(number)).to_be_bytes())
}

/// Somebody's grant in the first repository, for writing one file.
fn birth(number: u64) -> LockBirth {
    LockBirth {
        id: id(number),
        space: SpaceId(1),
        fence: LockFence(number),
        owner: LockOwner::Named("ada".into()),
        attempt: None,
        until: LockUntil::Attempt,
        paths: [path(&format!("src/{number}.rs"), LockMode::Write)].into(),
        reason: "".into(),
        acquired_at: Wall(5),
    }
}

fn held(lease: LockLease) -> LockState {
    LockState { lease, ended: None }
}

fn ended(end: LockEnd, at: i64) -> LockState {
    let ended = LockEnded { end, at: Wall(at), reason: "".into() };
    LockState { lease: LockLease::Forever, ended: Some(ended) }
}

fn granted(number: u64, birth: &LockBirth, lease: LockLease) -> LockWrite {
    LockWrite { number: LockNumber(number), birth: Some(Arc::new(birth.clone())), state: held(lease) }
}

fn new(number: u64) -> LockWrite {
    granted(number, &birth(number), LockLease::Forever)
}

fn changed(number: u64, state: LockState) -> LockWrite {
    LockWrite { number: LockNumber(number), birth: None, state }
}

/// The first repository and what becomes of its grants.
fn locking(decision: u64, locks: impl IntoIterator<Item = LockWrite>) -> Batch {
    let locks: Vec<LockWrite> = locks.into_iter().collect();
    let fence = locks.iter().map(|lock| lock.number.0).max().unwrap_or(0);
    Batch { lock_spaces: vec![space(1, fence)], locks, ..batch(decision) }
}

fn row(number: u64, birth: LockBirth, state: LockState) -> LockRow {
    LockRow { number: LockNumber(number), repo: repo(birth.space.0), birth: Arc::new(birth), state }
}

fn grants_left(database: &TestDatabase) -> Vec<String> {
    database.texts("SELECT CAST(number AS TEXT) AS text FROM lock_grants ORDER BY number")
}

fn grants_are_read_back(database: &TestDatabase) {
    let mut store = open(database);
    let by = Some(LockedBy { attempt: Attempt(2), fence: Fence(9) });
    let time = LockLease::Time { ttl_ms: 1_800_000, expires_at: Wall(1_800_000_005) };
    let grants = [
        (LockBirth { reason: "eine Änderung".into(), ..birth(1) }, time),
        (
            LockBirth {
                owner: LockOwner::Task(TaskId(7)),
                attempt: by,
                until: LockUntil::Merged,
                paths: [
                    path("docs/**", LockMode::Read),
                    path("pages/[id].tsx", LockMode::Write),
                    path("a\"b'ü ?.rs", LockMode::Write),
                ]
                .into(),
                ..birth(2)
            },
            LockLease::Attempt,
        ),
        (LockBirth { space: SpaceId(2), fence: LockFence(1), ..birth(4) }, LockLease::Forever),
        (LockBirth { owner: LockOwner::Task(TaskId(8)), ..birth(3) }, time),
    ];
    let writes = grants.iter().zip([1, 2, 4, 3]).map(|((birth, lease), n)| granted(n, birth, *lease));
    let spaces = vec![space(2, 1), LockSpaceRow { ignore_case: true, ..space(1, 3) }];
    store.commit([Batch { lock_spaces: spaces.clone(), locks: writes.collect(), ..batch(1) }]);
    let readers = readers(database);
    for ((birth, lease), number) in grants.into_iter().zip([1, 2, 4, 3]) {
        let expected = row(number, birth, held(lease));
        assert_eq!(readers.lock(LockNumber(number)).expect("a read"), Some(expected.clone()));
        assert_eq!(readers.lock_by_id(&id(number)).expect("a read"), Some(expected));
    }
    assert_eq!(readers.lock(LockNumber(9)).expect("a read"), None);
    assert_eq!(readers.lock_by_id(&id(9)).expect("a read"), None);
    for row in spaces {
        assert_eq!(readers.lock_space(&row.repo).expect("a read"), Some(row));
    }
    assert_eq!(readers.lock_space(&Repository::default()).expect("a read"), None);
}

fn the_last_word_about_a_repository_counts(database: &TestDatabase) {
    let mut store = open(database);
    let spaces = |rows: &[LockSpaceRow], decision| Batch { lock_spaces: rows.to_vec(), ..batch(decision) };
    let folded = LockSpaceRow { ignore_case: true, ..space(1, 7) };
    let gathered = gather([
        spaces(&[space(1, 1), space(2, 1)], 1),
        spaces(&[space(1, 2)], 2),
        spaces(&[space(1, 5)], 3),
    ]);
    assert_eq!(gathered.rows(), 2);
    store.writer.commit(store.epoch, &gathered).expect("a commit");
    let readers = readers(database);
    assert_eq!(readers.lock_space(&repo(1)).expect("a read"), Some(space(1, 5)));
    store.commit([spaces(std::slice::from_ref(&folded), 4)]);
    assert_eq!(readers.lock_space(&repo(1)).expect("a read"), Some(folded));
    assert_eq!(readers.lock_space(&repo(2)).expect("a read"), Some(space(2, 1)));
    let other = LockSpaceRow { repo: repo(1), ..space(3, 1) };
    assert!(store.try_commit([spaces(&[other], 5)]).expect_err("two of one name").is_conflict());
}

fn the_last_word_about_a_grant_counts(database: &TestDatabase) {
    let mut store = open(database);
    let time = |at| held(LockLease::Time { ttl_ms: 10, expires_at: Wall(at) });
    let gathered = gather([
        locking(1, [new(1), new(2)]),
        locking(2, [changed(1, time(20)), changed(2, time(20))]),
        locking(3, [changed(1, time(30))]),
    ]);
    // The repository and two grants.
    assert_eq!(gathered.rows(), 3);
    assert!(gathered.bytes() > 300, "{} bytes", gathered.bytes());
    store.writer.commit(store.epoch, &gathered).expect("a commit");
    let readers = readers(database);
    assert_eq!(readers.lock(LockNumber(1)).expect("a read"), Some(row(1, birth(1), time(30))));
    assert_eq!(readers.lock(LockNumber(2)).expect("a read"), Some(row(2, birth(2), time(20))));
}

fn a_grant_may_end_within_its_commit(database: &TestDatabase) {
    let mut store = open(database);
    let broken = LockState {
        ended: Some(LockEnded { end: LockEnd::Broken, at: Wall(9), reason: "she is away".into() }),
        ..held(LockLease::Forever)
    };
    let gathered = gather([locking(1, [new(1)]), locking(2, [changed(1, broken.clone())])]);
    assert_eq!(gathered.rows(), 2);
    store.writer.commit(store.epoch, &gathered).expect("a commit");
    assert_eq!(readers(database).lock(LockNumber(1)).expect("a read"), Some(row(1, birth(1), broken)));
    let recovered = store.writer.recover().expect("a recovery");
    assert_eq!((recovered.locks.len(), recovered.lock_spaces.len()), (0, 1));
}

fn a_renewed_grant_ends_later(database: &TestDatabase) {
    let mut store = open(database);
    let lease = |at| LockLease::Time { ttl_ms: 10, expires_at: Wall(at) };
    store.commit([locking(1, [granted(1, &birth(1), lease(20)), new(2), new(3), new(4)])]);
    let found = || readers(database).lock(LockNumber(1)).expect("a read").expect("a lock").state;
    for state in [held(lease(40)), held(LockLease::Forever), held(lease(90))] {
        store.commit([locking(2, [changed(1, state.clone())])]);
        assert_eq!(found(), state);
    }
    let ends = [LockEnd::Expired, LockEnd::Released, LockEnd::Broken, LockEnd::Lost];
    store.commit([locking(3, (1..=4).zip(ends).map(|(number, end)| changed(number, ended(end, 100))))]);
    for (number, end) in (1..=4).zip(ends) {
        let expected = Some(row(number, birth(number), ended(end, 100)));
        assert_eq!(readers(database).lock(LockNumber(number)).expect("a read"), expected);
    }
}

fn nothing_is_given_out_twice(database: &TestDatabase) {
    let mut store = open(database);
    let unknown = store.try_commit([locking(1, [changed(1, ended(LockEnd::Released, 9))])]);
    assert!(unknown.expect_err("it was never granted").is_conflict());
    store.commit([locking(1, [new(1), new(2)])]);
    let same = [
        (2, birth(3)),
        (3, LockBirth { id: id(1), ..birth(3) }),
        (3, LockBirth { fence: LockFence(1), ..birth(3) }),
    ];
    for (number, birth) in same {
        let twice = store.try_commit([locking(2, [granted(number, &birth, LockLease::Forever)])]);
        assert!(twice.expect_err("given out twice").is_conflict(), "{birth:?}");
    }
    // Each repository has fences of its own.
    let elsewhere = LockBirth { space: SpaceId(2), fence: LockFence(1), ..birth(3) };
    store.commit([Batch {
        lock_spaces: vec![space(2, 1)],
        ..locking(2, [granted(3, &elsewhere, LockLease::Forever)])
    }]);
    assert_eq!(grants_left(database), ["1", "2", "3"]);
}

fn what_is_held_is_recovered(database: &TestDatabase) {
    let mut store = open(database);
    let elsewhere = LockBirth { space: SpaceId(2), fence: LockFence(1), ..birth(3) };
    store.commit([Batch {
        lock_spaces: vec![space(1, 4), space(2, 1)],
        ..locking(1, [new(1), new(2), granted(3, &elsewhere, LockLease::Forever), new(4)])
    }]);
    store.commit([Batch {
        lock_spaces: vec![],
        ..locking(2, [changed(2, ended(LockEnd::Released, 9)), changed(4, ended(LockEnd::Lost, 9))])
    }]);
    drop(store);
    let recovered = open(database).writer.recover().expect("a recovery");
    assert_eq!(recovered.lock_spaces, [space(1, 4), space(2, 1)]);
    let forever = || held(LockLease::Forever);
    assert_eq!(recovered.locks, [row(1, birth(1), forever()), row(3, elsewhere, forever())]);
}

fn numbers_of_locks_go_on(database: &TestDatabase) {
    let mut store = open(database);
    let counters = Counters { last_lock: LockNumber(41), ..Counters::default() };
    store.commit([Batch { counters, ..locking(1, [new(1)]) }]);
    let office = open(database).writer.take_office(Wall(2)).expect("an office");
    assert_eq!(office.counters.last_lock, LockNumber(41), "a request that waited in vain had one, too");
}

/// The fences of all pages.
fn gone_through(readers: &Readers, from: u64, limit: usize) -> Vec<Vec<u64>> {
    let mut pages: Vec<Vec<u64>> = vec![];
    loop {
        let after = LockFence(pages.last().and_then(|page| page.last()).copied().unwrap_or(0));
        let page = readers.write_grants(SpaceId(1), LockFence(from), after, limit).expect("a read");
        if page.is_empty() {
            return pages;
        }
        assert!(page.iter().all(|row| row.repo == repo(1)));
        pages.push(page.iter().map(|row| row.birth.fence.0).collect());
    }
}

fn history_is_gone_through_in_pages(database: &TestDatabase) {
    let mut store = open(database);
    // Every third only reads; numbers and fences need not have the same order.
    let one = |number: u64| {
        let paths = [path("a", LockMode::Read), path("b", LockMode::Write)];
        let paths = if number.is_multiple_of(3) { paths[..1].into() } else { paths.into() };
        granted(
            number,
            &LockBirth { fence: LockFence(21 - number), paths, ..birth(number) },
            LockLease::Forever,
        )
    };
    let elsewhere = LockBirth { space: SpaceId(2), ..birth(21) };
    store.commit([locking(1, (1..=20).map(one).chain([granted(21, &elsewhere, LockLease::Forever)]))]);
    store.commit([locking(2, (5..=15).map(|number| changed(number, ended(LockEnd::Released, 9))))]);
    let readers = readers(database);
    let writing: Vec<u64> = (1..=20).filter(|fence| !(21_u64 - fence).is_multiple_of(3)).collect();
    assert_eq!(gone_through(&readers, 0, 100), std::slice::from_ref(&writing));
    assert_eq!(gone_through(&readers, 0, 4), writing.chunks(4).map(<[u64]>::to_vec).collect::<Vec<_>>());
    assert_eq!(gone_through(&readers, 17, 2), [vec![17, 19], vec![20]]);
    assert_eq!(gone_through(&readers, 21, 2), Vec::<Vec<u64>>::new());
    assert_eq!(gone_through(&readers, 20, 0), [[20]], "a page has one at least");
    let page = readers.write_grants(SpaceId(1), LockFence(10), LockFence(0), 1).expect("a read");
    assert_eq!(page[0].state, ended(LockEnd::Released, 9), "held or not");
    assert_eq!(readers.write_grants(SpaceId(3), LockFence(0), LockFence(0), 10).expect("a read"), []);
    assert_eq!(readers.write_grants(SpaceId(1), LockFence(u64::MAX), LockFence(0), 10).expect("a read"), []);
}

fn a_page_of_many_paths_is_short(database: &TestDatabase) {
    let mut store = open(database);
    let long = "d".repeat(400);
    let paths: Arc<[PathLock]> =
        (0..10_000).map(|n| path(&format!("{long}/{n}"), LockMode::Write)).collect::<Vec<_>>().into();
    let many = |number| {
        granted(number, &LockBirth { paths: Arc::clone(&paths), ..birth(number) }, LockLease::Forever)
    };
    store.commit([locking(1, [many(1), many(2), many(3), new(4)])]);
    assert_eq!(gone_through(&readers(database), 0, 100), [vec![1], vec![2], vec![3, 4]]);
}

fn ended_grants_go_when_they_are_old(database: &TestDatabase) {
    let mut store = open(database);
    let at = |number, at| {
        granted(number, &LockBirth { acquired_at: Wall(at), ..birth(number) }, LockLease::Forever)
    };
    // The third was asked for early and granted late.
    store.commit([locking(1, [at(1, DAY), at(2, DAY), at(3, 50 * DAY), at(4, DAY), at(5, DAY)])]);
    let over = |number, at| changed(number, ended(LockEnd::Released, at));
    store.commit([locking(2, [over(1, 2 * DAY), over(3, 51 * DAY), over(4, 2 * DAY), over(5, 40 * DAY)])]);
    let turns = round(&mut store, Wall(60 * DAY), Wall(30 * DAY), 10);
    assert_eq!(turns.iter().map(|turn| turn.locks).sum::<usize>(), 2);
    assert_eq!(grants_left(database), ["2", "3", "5"]);
    let turns = round(&mut store, Wall(90 * DAY), Wall(60 * DAY), 10);
    assert_eq!(turns.iter().map(|turn| turn.locks).sum::<usize>(), 2);
    assert_eq!(grants_left(database), ["2"], "what is held stays");
    store.commit([locking(3, [over(2, DAY)])]);
    round(&mut store, Wall(90 * DAY), Wall(60 * DAY), 10);
    assert_eq!(grants_left(database), [""; 0]);
    assert_eq!(readers(database).lock_space(&repo(1)).expect("a read"), Some(space(1, 2)));
}

fn many_grants_go_in_turns(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([locking(1, (1..=2_500).map(new))]);
    store.commit([locking(2, (2..=2_500).map(|number| changed(number, ended(LockEnd::Released, 9))))]);
    let turns = round(&mut store, Wall(60 * DAY), Wall(30 * DAY), 10);
    let removed: Vec<usize> = turns.iter().map(|turn| turn.locks).collect();
    assert_eq!(removed, [999, 1_000, 500]);
    assert_eq!(grants_left(database), ["1"]);
}

fn about(number: u64, at: i64, happening: Happening) -> Event {
    Event { at: Wall(at), subject: Subject::Lock(id(number)), happening }
}

fn acquired(number: u64, at: i64) -> Event {
    let (owner, fence) = ("ada".into(), LockFence(number));
    let paths = birth(number).paths;
    about(
        number,
        at,
        Happening::LockAcquired { repo: repo(1), fence, owner, paths, more: 0, expires_at: None },
    )
}

fn waiting(number: u64, at: i64) -> Event {
    let paths = birth(number).paths;
    about(number, at, Happening::LockWaiting { repo: repo(1), owner: "ada".into(), paths, more: 0 })
}

fn released(number: u64, at: i64) -> Event {
    let (owner, fence) = ("ada".into(), LockFence(number));
    about(number, at, Happening::LockReleased { repo: repo(1), fence, owner, reason: None })
}

/// The numbers of the events of a lock.
fn seqs(readers: &Readers, number: u64, after: u64, limit: usize) -> Vec<u64> {
    let subject = Subject::Lock(id(number));
    let events = readers.events_of(&subject, Seq(after), limit).expect("a read");
    assert!(events.iter().all(|stored| stored.event.subject == subject));
    events.into_iter().map(|stored| stored.seq.0).collect()
}

fn events_of_a_lock_are_found(database: &TestDatabase) {
    let mut store = open(database);
    let events = |events: &[Event], batch: Batch| Batch { events: events.to_vec(), ..batch };
    let over = |number| changed(number, ended(LockEnd::Released, 9));
    store.commit([creation(1, 1..=600)]);
    store.commit([events(&[waiting(1, 5), waiting(3, 5)], batch(2))]);
    store.commit([creation(3, 601..=900)]);
    // One decision of several within a commit, at the end of whose first segment it stands.
    store.commit([
        creation(4, 901..=1_155),
        events(&[acquired(1, 6), acquired(2, 6)], locking(5, [new(1), new(2)])),
    ]);
    store.commit([locking(6, [changed(1, held(LockLease::Forever))])]);
    store.commit([creation(7, 1_156..=1_500), events(&[released(1, 9)], locking(8, [over(1)]))]);
    let all = [601, 1_158, 1_505];
    let readers = readers(database);
    assert_eq!(seqs(&readers, 1, 0, 10), all);
    assert_eq!(seqs(&readers, 1, 601, 10), all[1..]);
    assert_eq!(seqs(&readers, 1, 1_504, 10), all[2..]);
    assert_eq!(seqs(&readers, 1, 0, 2), all[..2]);
    assert_eq!(seqs(&readers, 1, 1_505, 10), [0_u64; 0]);
    assert_eq!(seqs(&readers, 2, 0, 10), [1_159], "in the next segment");
    assert_eq!(seqs(&readers, 3, 0, 10), [602], "in vain");
    assert_eq!(seqs(&readers, 4, 0, 10), [0_u64; 0]);
    // A whole life in one commit, and what has no events at all.
    store.commit([
        events(&[waiting(4, 9)], batch(9)),
        events(&[acquired(4, 9)], locking(10, [new(4), new(5)])),
        events(&[released(4, 9)], locking(11, [over(4)])),
    ]);
    store.commit([locking(12, [over(5), new(6)])]);
    assert_eq!(seqs(&readers, 4, 0, 10), [1_506, 1_507, 1_508]);
    assert_eq!((seqs(&readers, 5, 0, 10), seqs(&readers, 6, 0, 10)), (vec![], vec![]));
    // The index knows of those alone that waited.
    let indexed = database.texts("SELECT subject AS text FROM event_subjects ORDER BY first_seq, subject");
    assert_eq!(indexed, [1, 3, 4].map(|number| Subject::Lock(id(number)).to_string()));
}

fn events_of_many_locks_of_one_decision_are_found(database: &TestDatabase) {
    let mut store = open_relaxed(database);
    let all = 1..=1_000_u64;
    store.commit([
        creation(1, 1..=100),
        Batch { events: all.clone().map(|n| acquired(n, 6)).collect(), ..locking(2, all.clone().map(new)) },
    ]);
    let over = all.clone().map(|number| changed(number, ended(LockEnd::Lost, 9)));
    store.commit([Batch { events: all.clone().map(|n| released(n, 9)).collect(), ..locking(3, over) }]);
    let readers = readers(database);
    for number in [1, 156, 157, 500, 1_000] {
        assert_eq!(seqs(&readers, number, 0, 10), [100 + number, 1_100 + number]);
    }
    // They are found for as long as they are kept.
    round(&mut store, Wall(60 * DAY), Wall(9), 10);
    assert_eq!((seqs(&readers, 1, 0, 10), seqs(&readers, 1_000, 0, 10)), (vec![1_101], vec![2_100]));
}

fn statements_about_locks_are_prepared_once(database: &TestDatabase) {
    let mut store = open(database);
    let prepared = store.writer.count_prepared();
    let of_every_kind = |store: &mut crate::build::Store, decision: u64, number: u64| {
        store.commit([Batch { events: vec![acquired(number, 6)], ..locking(decision, [new(number)]) }]);
        store.commit([Batch {
            lock_spaces: vec![],
            events: vec![released(number, 9)],
            ..locking(decision + 1, [changed(number, ended(LockEnd::Released, 9))])
        }]);
    };
    of_every_kind(&mut store, 1, 1);
    // The leadership, the repository, the grant and its end, and the events.
    assert_eq!(prepared.load(Ordering::Relaxed), 5);
    of_every_kind(&mut store, 3, 2);
    assert_eq!(prepared.load(Ordering::Relaxed), 5);
}

fn nul_in_reasons_is_replaced(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([locking(
        1,
        [granted(1, &LockBirth { reason: "a\0b".into(), ..birth(1) }, LockLease::Forever)],
    )]);
    let end = LockEnded { end: LockEnd::Broken, at: Wall(9), reason: "\0".into() };
    store.commit([locking(2, [changed(1, LockState { ended: Some(end), ..held(LockLease::Forever) })])]);
    let found = readers(database).lock(LockNumber(1)).expect("a read").expect("a lock");
    let reason = found.state.ended.map(|ended| ended.reason);
    assert_eq!((&*found.birth.reason, reason.as_deref()), ("a\u{FFFD}b", Some("\u{FFFD}")));
}

fn rows_that_cannot_be_are_damage(database: &TestDatabase) {
    let mut store = open(database);
    store.commit([locking(1, [new(1)])]);
    for sql in [
        "UPDATE lock_grants SET space = 9",
        "UPDATE lock_grants SET space = 1, paths = '[{\"path\":\"../a\"}]'",
        "UPDATE lock_grants SET paths = '[]'; UPDATE lock_spaces SET repo = '../a'",
    ] {
        database.execute(sql).expect(sql);
        assert!(store.writer.recover().expect_err(sql).is_corrupt(), "{sql}");
    }
    assert!(readers(database).lock(LockNumber(1)).expect_err("such a repository").is_corrupt());
}
