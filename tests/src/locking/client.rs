//! A client: a process of its own, so that it can be killed. It asks, insists on an answer when the
//! master is gone for a while, and writes down both.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use agentflow_protocol::Problem;
use agentflow_protocol::locks::{LockPage, LockView};
use serde_json::{Value, json};

use super::history::{Call, Mode, Name, Recorder, Told, Wanted};
use super::paths::{self, FILES};
use crate::harness::{Answer, Client, Failure, Lost, Random, pause};

/// The file that tells clients to end.
pub(super) const STOP: &str = "stop";

/// How long a client tries to get an answer.
const INSIST: Duration = Duration::from_secs(60);

const TRY_AGAIN: Duration = Duration::from_millis(20);

/// Operations after which a client goes on to the next repository.
pub(super) const STAY: usize = 40;

/// Locks that a client keeps at once.
const KEPT: usize = 4;

/// How long locks last: all are gone soon after the storm.
const TTL_MS: [u64; 3] = [300, 1_000, 3_000];
pub(super) const LONGEST: Duration = Duration::from_millis(TTL_MS[2]);

/// Several clients go by one name.
const OWNERS: u64 = 4;

/// What a client is told when it is started.
#[derive(Clone, Debug)]
pub struct Orders {
    /// Its number.
    pub number: u64,
    /// The master's address.
    pub master: String,
    /// Where clients write.
    pub directory: PathBuf,
    /// Decides what it does.
    pub seed: u64,
    /// Where it begins.
    pub first_repo: usize,
}

struct Held {
    name: Name,
    id: String,
    fence: u64,
    repo: usize,
    wanted: Vec<Wanted>,
}

struct Locker {
    orders: Orders,
    client: Client,
    random: Random,
    recorder: Recorder,
    asked: usize,
    held: Vec<Held>,
    /// Locks of others that it has seen.
    seen: Vec<(Name, String, usize)>,
}

/// Does what a client does until it is told to end.
///
/// # Errors
/// When the master gives no answer for a minute, or one that no client understands.
pub fn be_a_client(orders: Orders) -> Result<(), Failure> {
    let number = orders.number;
    let mut locker = Locker {
        client: Client::new(&orders.master),
        random: Random::new(orders.seed ^ (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        recorder: Recorder::create(&orders.directory.join(format!("client-{number}")))?,
        asked: 0,
        held: Vec::new(),
        seen: Vec::new(),
        orders,
    };
    let stop = locker.orders.directory.with_file_name(STOP);
    while !stop.exists() {
        locker.operate()?;
    }
    Ok(())
}

/// The name that the master knows a repository by.
pub(super) fn repo_name(repo: usize) -> String {
    format!("example.com/storm/{repo}")
}

impl Locker {
    fn operate(&mut self) -> Result<(), Failure> {
        let chance = self.random.between(0, 99);
        let held = (!self.held.is_empty())
            .then(|| usize::try_from(self.random.between(0, self.held.len() as u64 - 1)))
            .transpose()?;
        match (chance, held) {
            (0..30, Some(at)) => self.unlock(at),
            (30..38, Some(at)) => self.renew(at),
            (38..45, Some(at)) => self.verify(at),
            (45..50, _) if !self.seen.is_empty() => self.break_one(),
            (50..60, _) => self.list(),
            (_, Some(at)) if self.held.len() >= KEPT => self.unlock(at),
            _ => self.lock(),
        }
    }

    /// The repository in which most clients are now, or the one after.
    fn repo(&mut self) -> usize {
        let ahead = usize::from(self.random.percent(30));
        self.orders.first_repo + self.asked / STAY + ahead
    }

    fn begin(&mut self, repo: usize, call: &Call) -> Result<Name, Failure> {
        self.asked += 1;
        let name = format!("{}-{}", self.orders.number, self.asked);
        self.recorder.asked(&name, repo, call)?;
        Ok(name)
    }

    fn lock(&mut self) -> Result<(), Failure> {
        let repo = self.repo();
        let owner = format!("owner-{}", self.random.between(1, OWNERS));
        let wanted = self.some_paths()?;
        let ttl_ms = self.one_of(&TTL_MS)?;
        let wait_ms = self.one_of(&[0, 0, 0, 50, 200])?;
        let call = Call::Lock { owner: owner.clone(), wanted: wanted.clone(), ttl_ms, wait_ms };
        let name = self.begin(repo, &call)?;
        let path = |one: &Wanted| json!({ "path": paths::text(one.path), "mode": one.mode });
        let body = json!({
            "repo": repo_name(repo), "paths": wanted.iter().map(path).collect::<Vec<_>>(), "owner": owner,
            "ttl_ms": ttl_ms, "wait_ms": wait_ms, "reason": name, "idempotency_key": name,
        });
        let (answer, _) = insist(|| self.client.post("/api/v2/locks", &body, None))?;
        let told = if answer.status == 201 {
            let lock: LockView = answer.expect(201)?;
            self.held.push(Held {
                name: name.clone(),
                id: lock.id.to_string(),
                fence: lock.fence.0,
                repo,
                wanted,
            });
            Told::Granted { fence: lock.fence.0 }
        } else {
            let problem: Problem = answer.expect(409)?;
            match problem.kind.rsplit(':').next() {
                Some("locked") => {
                    let holders = problem.locks.map(|locks| locks.holders).unwrap_or_default();
                    let fences = holders.iter().filter_map(|holder| Some(holder.fence?.0));
                    Told::Refused { holders: fences.collect() }
                }
                Some("deadlock") if wait_ms > 0 => Told::Deadlock,
                Some("stale") => Told::Ended,
                _ => return Err(format!("a lock was refused with {problem:?}").into()),
            }
        };
        let has_ended = told == Told::Ended;
        self.recorder.told(&name, told)?;
        // Then nobody sees it any more.
        if has_ended { self.list_of(repo) } else { Ok(()) }
    }

    fn unlock(&mut self, at: usize) -> Result<(), Failure> {
        let held = self.held.swap_remove(at);
        let name = self.begin(held.repo, &Call::Unlock { lock: held.name })?;
        let path = format!("/api/v2/locks/{}?fence={}", held.id, held.fence);
        let answer = insist(|| self.client.delete(&path))?;
        self.recorder.told(&name, done(&answer, 204)?)
    }

    fn renew(&mut self, at: usize) -> Result<(), Failure> {
        let ttl_ms = self.one_of(&TTL_MS)?;
        let (id, fence, lock, repo) = {
            let held = &self.held[at];
            (held.id.clone(), held.fence, held.name.clone(), held.repo)
        };
        let name = self.begin(repo, &Call::Renew { lock, ttl_ms })?;
        let body = json!({ "fence": fence, "ttl_ms": ttl_ms });
        let answer = insist(|| self.client.post(&format!("/api/v2/locks/{id}/renew"), &body, None))?;
        let told = done(&answer, 200)?;
        if told != Told::Done {
            self.held.swap_remove(at);
        }
        self.recorder.told(&name, told)
    }

    fn break_one(&mut self) -> Result<(), Failure> {
        let at = usize::try_from(self.random.between(0, self.seen.len() as u64 - 1))?;
        let (lock, id, repo) = self.seen.swap_remove(at);
        let name = self.begin(repo, &Call::Break { lock })?;
        let body = json!({ "reason": "a storm" });
        let answer = insist(|| self.client.post(&format!("/api/v2/locks/{id}/break"), &body, None))?;
        self.recorder.told(&name, done(&answer, 200)?)
    }

    fn list(&mut self) -> Result<(), Failure> {
        let repo = self.repo();
        self.list_of(repo)
    }

    fn list_of(&mut self, repo: usize) -> Result<(), Failure> {
        let name = self.begin(repo, &Call::List)?;
        let path = format!("/api/v2/locks?repo={}&limit=1000", repo_name(repo));
        let (answer, _) = insist(|| self.client.get(&path))?;
        let page: LockPage = answer.expect(200)?;
        let lock = |lock: &LockView| (lock.reason.clone().unwrap_or_default(), lock.fence.0);
        let locks = page.locks.iter().map(lock).collect();
        let own = |name: &str| self.held.iter().any(|held| held.name == name);
        self.seen = page
            .locks
            .into_iter()
            .filter_map(|lock| Some((lock.reason?, lock.id.to_string(), repo)))
            .filter(|(name, ..)| !own(name))
            .collect();
        self.recorder.told(&name, Told::Listed { locks })
    }

    /// Asks about every file that the lock was to cover for writing.
    fn verify(&mut self, at: usize) -> Result<(), Failure> {
        let held = &self.held[at];
        let written = held.wanted.iter().filter(|one| one.mode == Mode::Write);
        let bits = written.fold(0, |bits, one| bits | paths::files(one.path));
        let files: Vec<usize> = (0..FILES.len()).filter(|file| bits & (1 << file) != 0).collect();
        if files.is_empty() {
            return self.list();
        }
        let names: Vec<&str> = files.iter().map(|file| FILES[*file]).collect();
        let body = json!({ "repo": repo_name(held.repo), "paths": names, "fence": held.fence });
        let (repo, call) = (held.repo, Call::Verify { lock: held.name.clone(), files });
        let name = self.begin(repo, &call)?;
        let (answer, _) = insist(|| self.client.post("/api/v2/locks/verify", &body, None))?;
        let uncovered = if answer.status == 200 {
            Vec::new()
        } else {
            let problem: Problem = answer.expect(409)?;
            let uncovered = problem.locks.map(|locks| locks.uncovered).filter(|paths| !paths.is_empty());
            let place = |path: &str| FILES.iter().position(|file| *file == path);
            let files = uncovered.and_then(|paths| paths.iter().map(|one| place(&one.path)).collect());
            files.ok_or("what is not covered was not said")?
        };
        self.recorder.told(&name, Told::Verified { uncovered })
    }

    /// One to three paths that have no file in common.
    fn some_paths(&mut self) -> Result<Vec<Wanted>, Failure> {
        let (mut wanted, mut taken) = (Vec::new(), 0);
        for _ in 0..self.random.between(1, 3) {
            let path = usize::try_from(self.random.between(0, paths::COUNT as u64 - 1))?;
            if paths::files(path) & taken == 0 {
                taken |= paths::files(path);
                let mode = if self.random.percent(50) { Mode::Read } else { Mode::Write };
                wanted.push(Wanted { path, mode });
            }
        }
        Ok(wanted)
    }

    fn one_of(&mut self, values: &[u64]) -> Result<u64, Failure> {
        Ok(values[usize::try_from(self.random.between(0, values.len() as u64 - 1))?])
    }
}

/// Asks until there is an answer; says whether one was lost before.
fn insist(ask: impl Fn() -> Result<Answer, Lost>) -> Result<(Answer, bool), Failure> {
    let begun = Instant::now();
    let mut lost = false;
    loop {
        let what = match ask() {
            // Stopping, or too much to do: nothing was done.
            Ok(answer) if matches!(answer.status, 429 | 503) => answer.body,
            Ok(answer) => return Ok((answer, lost)),
            Err(why) => {
                lost = true;
                why.0
            }
        };
        if begun.elapsed() > INSIST {
            return Err(format!("no answer within {INSIST:?}: {what}").into());
        }
        pause(TRY_AGAIN);
    }
}

/// What an answer tells of a lock that was to be given back, broken or renewed.
fn done((answer, lost): &(Answer, bool), success: u16) -> Result<Told, Failure> {
    match (answer.status, lost) {
        (status, _) if status == success => Ok(Told::Done),
        (404 | 409, false) => Ok(Told::Gone),
        (404 | 409, true) => Ok(Told::DoneOrGone),
        _ => Err(answer.clone().expect::<Value>(success).err().unwrap_or_else(|| "no answer".into())),
    }
}
