//! Locks in the world: who asks for them, what the rows must say of them, and who may work meanwhile.
//!
//! Which paths exclude each other is said by a table of all files there are, apart from the product's own
//! comparison of patterns.
//!
//! Invariants, checked with every commit: two grants of a repository that exclude each other are never
//! held, unless one task has both; fences rise; what has ended stays so; a lock that ends with an attempt
//! is held exactly while the task's row says that a worker has that attempt; a task in a worker's hands
//! holds what it names.

use std::collections::BTreeMap;
use std::sync::Arc;

use agentflow_core::attempt::AttemptKey;
use agentflow_core::batch::{
    Batch, KeyHash, LockBirth, LockEnd, LockLease, LockRow, LockSpaceRow, LockState,
};
use agentflow_core::checkpoint::{Ask, AskBody, Given, LockAsk};
use agentflow_core::ids::{LockNumber, ReplyTo, SessionEpoch, SpaceId, TaskId};
use agentflow_core::kernel::{
    Answer, Input, LockFilter, LockRequest, RecoveryPlan, Reply, Request, SubmitKey, Unlock,
};
use agentflow_core::lock::{LockFence, LockMode, LockOwner, LockPath, LockUntil, PathLock, Repository};
use agentflow_core::rejection::Rejection;
use agentflow_core::spec::{Spec, SpecLocks};

use super::promises::is_held;
use super::store::Store;
use super::world::{Happening, World};

/// Every path that anybody locks, with all files that it names. `D/y` is `d/y` where case is ignored.
const PATHS: [(&str, &[&str]); 8] = [
    ("a", &["a"]),
    ("b", &["b"]),
    ("d/x", &["d/x"]),
    ("D/y", &["d/y"]),
    ("d/**", &["d/x", "d/y"]),
    ("**/x", &["x", "d/x"]),
    ("?", &["a", "b", "x"]),
    ("**", &["a", "b", "x", "d/x", "d/y"]),
];

/// Sets of these that do not overlap.
const SETS: [&[usize]; 10] = [&[0], &[0], &[0, 1], &[2], &[0, 2, 3], &[4], &[5], &[6, 3], &[1, 5], &[7]];

fn files(path: &LockPath) -> &'static [&'static str] {
    PATHS.iter().find(|(text, _)| *text == path.as_str()).map_or(&[], |(_, files)| *files)
}

/// Whether two grants cannot be held together.
fn exclude(one: &[PathLock], other: &[PathLock]) -> bool {
    let both = |a: &PathLock, b: &PathLock| {
        (a.mode == LockMode::Write || b.mode == LockMode::Write)
            && files(&a.path).iter().any(|file| files(&b.path).contains(file))
    };
    one.iter().any(|a| other.iter().any(|b| both(a, b)))
}

/// The rows.
#[derive(Debug, Default)]
pub(super) struct LockRows {
    pub(super) spaces: BTreeMap<SpaceId, LockSpaceRow>,
    pub(super) grants: BTreeMap<LockNumber, (Arc<LockBirth>, LockState)>,
    /// Which worker each socket was of.
    pub(super) sockets: BTreeMap<SessionEpoch, usize>,
    /// What attempts have asked about locks, by number and socket.
    asked: BTreeMap<(u64, SessionEpoch), Ask>,
}

impl LockRows {
    fn held(&self) -> impl Iterator<Item = (LockNumber, &Arc<LockBirth>, &LockState)> {
        let held = self.grants.iter().filter(|(_, (_, state))| state.ended.is_none());
        held.map(|(number, (birth, state))| (*number, birth, state))
    }

    pub(super) fn note_asks(&mut self, session: SessionEpoch, asks: &[Ask]) {
        let locks = asks.iter().filter(|ask| matches!(ask.body, AskBody::Lock(_) | AskBody::Unlock { .. }));
        self.asked.extend(locks.map(|ask| ((ask.no, session), ask.clone())));
    }

    /// The question about a lock that is answered on that socket; it may have been asked on an older one
    /// of the same worker.
    pub(super) fn asked_by(&self, session: SessionEpoch, no: u64) -> Option<&Ask> {
        let worker = self.sockets.get(&session)?;
        let mut asked = self.asked.range((no, SessionEpoch(0))..=(no, session)).rev();
        asked.find(|((_, on), _)| self.sockets.get(on) == Some(worker)).map(|(_, ask)| ask)
    }

    pub(super) fn row(&self, number: LockNumber) -> Option<LockRow> {
        let (birth, state) = self.grants.get(&number)?;
        let repo = self.spaces.get(&birth.space)?.repo.clone();
        Some(LockRow { number, repo, birth: Arc::clone(birth), state: state.clone() })
    }

    /// Takes what a batch says of locks.
    pub(super) fn write(&mut self, batch: &Batch) -> Result<(), String> {
        for row in &batch.lock_spaces {
            if let Some(old) = self.spaces.insert(row.id, row.clone())
                && (old.repo != row.repo || old.fence > row.fence || (old.ignore_case && !row.ignore_case))
            {
                return Err(format!("{old:?} became {row:?}"));
            }
        }
        for write in &batch.locks {
            match (&write.birth, self.grants.get_mut(&write.number)) {
                (Some(birth), None) => {
                    let last = self.grants.values().filter(|(other, _)| other.space == birth.space);
                    let last = last.map(|(other, _)| other.fence).max().unwrap_or_default();
                    let most = self.spaces.get(&birth.space).map(|row| row.fence);
                    if birth.fence <= last || most.is_none_or(|most| birth.fence > most) {
                        return Err(format!("{birth:?} comes after fence {last}; the most is {most:?}"));
                    }
                    self.grants.insert(write.number, (Arc::clone(birth), write.state.clone()));
                }
                (None, Some((_, state))) if state.ended.is_none() => *state = write.state.clone(),
                (_, old) => return Err(format!("{write:?} was written over {old:?}")),
            }
            if write.number > batch.counters.last_lock {
                return Err(format!("lock {} is beyond the counted ones", write.number));
            }
        }
        Ok(())
    }
}

impl Store {
    /// What is held against itself, and against the tasks.
    pub(super) fn check_locks(&self) -> Result<(), String> {
        let held: Vec<_> = self.locks.held().collect();
        for (at, (number, birth, state)) in held.iter().enumerate() {
            for (other_number, other, _) in &held[..at] {
                let is_own = birth.owner.task().is_some() && birth.owner == other.owner;
                if other.space == birth.space && !is_own && exclude(&birth.paths, &other.paths) {
                    return Err(format!(
                        "locks {other_number} and {number} are both held: {other:?}, {birth:?}"
                    ));
                }
            }
            if state.lease == LockLease::Attempt && !self.is_at_work(birth) {
                return Err(format!("lock {number} has outlived its attempt: {birth:?}"));
            }
        }
        for (id, row) in self.live().filter(|(_, row)| is_held(row)) {
            let spec = self.promises.in_hand.get(&id).and_then(|hash| self.prepared(hash));
            for wanted in spec.iter().flat_map(|spec| &spec.spec.locks) {
                // It may have been given back meanwhile.
                let has = self.locks.grants.values().any(|(birth, _)| {
                    birth.attempt.is_some_and(|by| by.fence == row.state.fence)
                        && birth.owner == LockOwner::Task(id)
                        && birth.paths == wanted.paths
                });
                if !has {
                    return Err(format!("task {id} was given away without {wanted:?}"));
                }
            }
        }
        Ok(())
    }

    fn is_at_work(&self, birth: &LockBirth) -> bool {
        let row = birth.owner.task().and_then(|task| self.rows.get(&task)).filter(|row| is_held(row));
        row.is_some_and(|row| birth.attempt.is_some_and(|by| by.fence == row.state.fence))
    }

    /// A new master finds the locks that are held.
    pub(super) fn with_locks(&self, plan: RecoveryPlan) -> RecoveryPlan {
        let held = self.locks.held().filter_map(|(number, ..)| self.locks.row(number)).collect();
        plan.with_locks(self.locks.spaces.values().cloned().collect(), held)
    }

    /// A lock that was answered with is there, and is what was asked for.
    fn check_granted(&self, row: &LockRow, paths: &[PathLock], owner: &LockOwner) -> Result<(), String> {
        match self.locks.grants.get(&row.number) {
            Some((birth, _)) if *birth == row.birth && *birth.paths == *paths && birth.owner == *owner => {
                Ok(())
            }
            other => Err(format!("{row:?} was acknowledged; there is {other:?}")),
        }
    }

    /// What an attempt hears of a lock.
    pub(super) fn check_lock_given(&self, ask: &Ask, given: &Result<Given, Rejection>) -> Result<(), String> {
        let allowed = match (&ask.body, given) {
            (AskBody::Lock(wanted), Ok(Given { lock: Some(lock), .. })) => {
                let found = self.locks.grants.values().find(|(birth, _)| birth.id == lock.id);
                return match found {
                    Some((birth, _))
                        if birth.attempt.is_some_and(|by| by.fence == ask.key.fence)
                            && birth.fence == lock.fence
                            && *birth.paths == *wanted.paths =>
                    {
                        Ok(())
                    }
                    other => Err(format!("{ask:?} was answered with {lock:?}; there is {other:?}")),
                };
            }
            (AskBody::Lock(_), Err(Rejection::Locked(_) | Rejection::Deadlock(_))) => true,
            (AskBody::Unlock { .. }, Ok(_) | Err(Rejection::OthersLock(_))) => true,
            (_, Err(Rejection::StaleAttempt { .. })) => true,
            _ => false,
        };
        if allowed { Ok(()) } else { Err(format!("{ask:?} was answered with {given:?}")) }
    }
}

impl World {
    fn repo(&mut self) -> Repository {
        let name = self.random.pick(&["h/one", "h/one", "h/two"]).unwrap_or("h/one");
        Repository::new(name).unwrap_or_default()
    }

    fn paths(&mut self) -> Arc<[PathLock]> {
        let set = self.random.pick(&SETS).unwrap_or(&[0]);
        let mut paths = Vec::new();
        for at in set {
            let mode = if self.random.chance(400) { LockMode::Read } else { LockMode::Write };
            paths.extend(LockPath::new(PATHS[*at].0).ok().map(|path| PathLock { path, mode }));
        }
        paths.sort();
        paths.into()
    }

    /// What a new task locks: mostly nothing.
    pub(super) fn lock_for_task(&mut self, spec: &mut Spec) {
        if !self.kinds.locks || self.random.chance(500) {
            return;
        }
        let until = if self.random.chance(100) { LockUntil::Merged } else { LockUntil::Attempt };
        spec.locks.push(SpecLocks { repo: self.repo(), ignore_case: true, until, paths: self.paths() });
        let other = self.repo();
        if spec.locks[0].repo != other && self.random.chance(300) {
            spec.locks.push(SpecLocks { repo: other, ignore_case: true, until, paths: self.paths() });
        }
    }

    /// Something about locks, if this seed has them.
    pub(super) fn lock_request(&mut self) -> Option<Request> {
        if !self.kinds.locks {
            return None;
        }
        let held: Vec<LockNumber> = self.store.locks.held().map(|(number, ..)| number).collect();
        let some = self.random.pick(&held).and_then(|number| self.store.locks.row(number));
        Some(match (self.random.below(14), some) {
            (0, _) => Request::LockEach((0..self.random.between(1, 4)).map(|_| self.wanted(false)).collect()),
            (1..=3, Some(row)) => {
                let wrong = u64::from(self.random.chance(100));
                let fence = Some(LockFence(row.birth.fence.0 + wrong));
                let fence = fence.filter(|_| self.random.chance(700));
                let owner = self.random.chance(500).then(|| row.birth.owner.clone());
                Request::Unlock(vec![Unlock { lock: row.birth.id, fence, owner }])
            }
            (4, Some(row)) => {
                let ttl_ms =
                    self.random.pick(&[None, Some(Some(300)), Some(Some(4_000)), Some(None)]).flatten();
                Request::Renew { lock: row.birth.id, fence: row.birth.fence, ttl_ms }
            }
            (5, Some(row)) => Request::Break { lock: row.birth.id, reason: "stuck".into() },
            (6, Some(row)) => Request::UnlockBy { owner: row.birth.owner.clone(), repo: None, path: None },
            (7, _) => Request::Locks(LockFilter { limit: 1_000, ..LockFilter::default() }),
            _ => {
                let wait_ms = self.random.pick(&[0, 50, 1_000, 4_000]).unwrap_or(0);
                Request::Lock { want: Box::new(self.wanted(true)), wait_ms }
            }
        })
    }

    fn wanted(&mut self, may_have_key: bool) -> LockRequest {
        let number = self.clients.next_submission();
        let mut hash = [3; 16];
        hash[..8].copy_from_slice(&number.to_le_bytes());
        let key = SubmitKey { key: KeyHash(hash), body: KeyHash(hash) };
        let owner = if self.random.chance(150) {
            LockOwner::Task(self.some_tasks().first().copied().unwrap_or(TaskId(1)))
        } else {
            LockOwner::Named(self.random.pick(&["ann", "bob", "cyd"]).unwrap_or("ann").into())
        };
        LockRequest {
            repo: self.repo(),
            ignore_case: true,
            paths: self.paths(),
            owner,
            ttl_ms: self.random.pick(&[Some(200), Some(1_000), Some(5_000), None]).flatten(),
            reason: "".into(),
            priority: self.random.pick(&[25, 50, 50, 90]).unwrap_or(50),
            key: (may_have_key && self.random.chance(400)).then_some(key),
        }
    }

    /// The door's answer to a key that the database knows.
    pub(super) fn locked_before(&self, request: &Request) -> Option<Reply> {
        let Request::Lock { want, .. } = request else { return None };
        let known = self.store.keys.get(&want.key?.key)?;
        let row = self.store.locks.row(LockNumber(known.first.0)).filter(|row| row.state.ended.is_none());
        Some(
            row.map(|row| Answer::Locked(Box::new(row)))
                .ok_or_else(|| Rejection::LockLost("ended".to_owned())),
        )
    }

    /// A client that waits for a lock may lose patience.
    pub(super) fn may_abandon(&mut self, to: ReplyTo, request: &Request) {
        if matches!(request, Request::Lock { wait_ms: 1.., .. }) && self.random.chance(250) {
            let (later, life) = (self.random.ms(1, 2_000), self.master.life);
            self.plan(self.now_us + later, Happening::Abandon { life, to });
        }
    }

    /// It goes away: nobody will hear the answer, and a lock that was granted is given back.
    pub(super) fn abandon(&mut self, life: u64, to: ReplyTo) -> Result<(), String> {
        if life != self.master.life || !self.clients.abandon(to) {
            return Ok(());
        }
        self.step(Input::Abandoned { reply: to })
    }

    /// What an answer about locks promises; nothing if it is about something else.
    pub(super) fn check_lock_answer(
        &mut self,
        request: &Request,
        reply: &Reply,
    ) -> Option<Result<(), String>> {
        let allowed = match (request, reply) {
            (Request::Lock { want, .. }, Ok(Answer::Locked(row))) => {
                let known = want.key.map(|key| self.ledger.acknowledge_lock(key.key, row.number));
                let granted = self.store.check_granted(row, &want.paths, &want.owner);
                return Some(granted.and(known.unwrap_or(Ok(()))));
            }
            (Request::LockEach(wants), Ok(Answer::Locks(rows))) => {
                let wrong = wants.iter().zip(rows).find_map(|(want, row)| {
                    let row = row.as_ref().ok()?;
                    self.store.check_granted(row, &want.paths, &want.owner).err()
                });
                return Some(wrong.map_or(Ok(()), Err));
            }
            (Request::Unlock(unlocks), Ok(Answer::Unlocked(results))) => {
                let is_held =
                    |unlock: &Unlock| self.store.locks.held().any(|(_, birth, _)| birth.id == unlock.lock);
                !unlocks.iter().zip(results).any(|(unlock, result)| result.is_ok() && is_held(unlock))
            }
            (Request::Break { lock, .. }, Ok(Answer::Locked(_))) => {
                let ended = self.store.locks.grants.values().find(|(birth, _)| birth.id == *lock);
                let ended = ended.and_then(|(_, state)| state.ended.as_ref());
                ended.is_some_and(|ended| ended.end == LockEnd::Broken)
            }
            (
                Request::Lock { .. },
                Err(
                    Rejection::Locked(_)
                    | Rejection::Deadlock(_)
                    | Rejection::LockLost(_)
                    | Rejection::UnknownTask(_)
                    | Rejection::Busy,
                ),
            )
            | (Request::Renew { .. }, Ok(Answer::Locked(_)) | Err(Rejection::UnknownLock(_)))
            | (Request::Break { .. }, Err(Rejection::UnknownLock(_)))
            | (Request::UnlockBy { .. }, Ok(Answer::Released(_)))
            | (Request::Locks(_), Ok(Answer::LockList { .. })) => true,
            (
                Request::Lock { .. }
                | Request::LockEach(_)
                | Request::Unlock(_)
                | Request::UnlockBy { .. }
                | Request::Renew { .. }
                | Request::Break { .. }
                | Request::Locks(_),
                _,
            ) => false,
            _ => return None,
        };
        Some(if allowed { Ok(()) } else { Err(format!("{request:?} was answered with {reply:?}")) })
    }

    /// What an attempt asks about locks.
    pub(super) fn lock_ask(&mut self, index: usize, key: AttemptKey) -> AskBody {
        let got = self.workers[index].work.get(&key).map(|work| work.locks.clone()).unwrap_or_default();
        match self.random.pick(&got) {
            Some(lock) if self.random.chance(400) => AskBody::Unlock { lock },
            _ => {
                let paths = self.paths().to_vec();
                let wait_ms = self.random.pick(&[0, 100, 3_000]).unwrap_or(0);
                let ask = LockAsk { repo: self.repo(), ignore_case: true, paths, wait_ms, reason: "".into() };
                AskBody::Lock(Box::new(ask))
            }
        }
    }

    /// Clients that go home take nothing with them.
    pub(super) fn release_all(&mut self) {
        let held: Vec<Unlock> = self
            .store
            .locks
            .held()
            .filter(|(_, _, state)| state.lease != LockLease::Attempt)
            .map(|(_, birth, _)| Unlock { lock: birth.id, fence: None, owner: None })
            .collect();
        if !held.is_empty() {
            self.send(Request::Unlock(held));
        }
    }
}
