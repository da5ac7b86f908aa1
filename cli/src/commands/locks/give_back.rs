//! `unlock`: gives locks back.

use agentflow_core::lock::{LockFence, LockId, LockPath, PathLock, Repository};
use agentflow_protocol::inside::Line;
use agentflow_protocol::locks::LockView;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ask::lock_path;
use super::ground::{Ground, owner};
use super::list::{Wanted, pages};
use super::{connect, words};
use crate::args::{Global, Unlock};
use crate::client::{Client, with_query};
use crate::error::{Error, exit};
use crate::inside::Inside;
use crate::output::{Output, printable};

/// A lock that is to be given back.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Held {
    id: LockId,
    fence: LockFence,
    repo: Repository,
    paths: Vec<PathLock>,
}

impl From<LockView> for Held {
    fn from(lock: LockView) -> Self {
        Self { id: lock.id, fence: lock.fence, repo: lock.repo, paths: lock.paths.to_vec() }
    }
}

pub(super) fn unlock(unlock: &Unlock, global: &Global, output: Output) -> Result<u8, Error> {
    if let Some(inside) = Inside::here() {
        return each(of_attempt(unlock)?, output, |lock| {
            inside.say(&Line { lock: Some(lock.id.to_string()), ..inside.line("unlock") }).map(drop)
        });
    }
    let client = connect(global)?;
    // An id needs no repository.
    let ground = match Ground::find(&unlock.place) {
        Err(_) if !unlock.ids.is_empty() => None,
        found => Some(found?),
    };
    let keeper = Keeper { client: &client, ground, owner: owner(&unlock.whose) };
    each(keeper.chosen(unlock)?, output, |lock| keeper.release(lock))
}

fn each(locks: Vec<Held>, output: Output, release: impl Fn(&Held) -> Result<(), Error>) -> Result<u8, Error> {
    for lock in &locks {
        release(lock)?;
        if !output.json {
            output.line(format_args!("unlocked {}", words::what(&lock.paths)))?;
        }
    }
    if output.json {
        output.json(&json!({ "released": locks }))?;
    } else if locks.is_empty() {
        eprintln!("nothing of yours is locked");
    }
    Ok(exit::DONE)
}

/// Where locks are, and whose.
struct Keeper<'a> {
    client: &'a Client,
    ground: Option<Ground>,
    owner: String,
}

impl Keeper<'_> {
    fn chosen(&self, unlock: &Unlock) -> Result<Vec<Held>, Error> {
        match &self.ground {
            Some(ground) if !unlock.paths.is_empty() => {
                let paths = unlock.paths.iter().map(|path| ground.path(path));
                self.within(ground, &paths.collect::<Result<Vec<_>, Error>>()?)
            }
            Some(ground) if unlock.all && unlock.whose.owner.is_some() => {
                let wanted =
                    Wanted { repo: Some(&ground.repo), owner: unlock.whose.owner.as_deref(), path: None };
                Ok(pages(self.client, wanted)?.locks.into_iter().map(Held::from).collect())
            }
            _ if unlock.all => {
                let noted = self.ground.as_ref().map_or_else(|| Ok(Vec::new()), Ground::noted)?;
                let own = noted.iter().filter(|lock| lock.owner == self.owner);
                let found = own.map(|lock| self.find(lock.id)).collect::<Result<Vec<_>, Error>>()?;
                Ok(found.into_iter().flatten().map(Held::from).collect())
            }
            _ => unlock.ids.iter().map(|id| self.by_id(*id)).collect(),
        }
    }

    /// The locks of this owner that lie within these paths.
    fn within(&self, ground: &Ground, paths: &[LockPath]) -> Result<Vec<Held>, Error> {
        let mut chosen: Vec<Held> = Vec::new();
        for path in paths {
            let page =
                pages(self.client, Wanted { repo: Some(&ground.repo), owner: None, path: Some(path) })?;
            let is_mine = |lock: &LockView| lock.owner == self.owner;
            let (mine, others): (Vec<LockView>, Vec<LockView>) = page.locks.into_iter().partition(is_mine);
            let is_within = |lock: &Held| beyond(lock, paths, ground.ignore_case).is_none();
            let (within, wider): (Vec<Held>, Vec<Held>) =
                mine.into_iter().map(Held::from).partition(is_within);
            match (within.as_slice(), wider.first(), others.first()) {
                ([], Some(lock), _) => return Err(together(path, lock, paths, ground.ignore_case)),
                ([], None, Some(lock)) => return Err(of_another(lock)),
                ([], None, None) => return Err(unlocked(path)),
                _ => chosen.extend(within),
            }
        }
        chosen.sort_unstable_by_key(|lock| lock.fence);
        chosen.dedup_by_key(|lock| lock.id);
        Ok(chosen)
    }

    fn by_id(&self, id: LockId) -> Result<Held, Error> {
        match self.find(id)? {
            None => Err(Error::Gone(format!("there is no lock {id} that is held"))),
            Some(lock) if lock.owner == self.owner => Ok(lock.into()),
            Some(lock) => Err(of_another(&lock)),
        }
    }

    /// A lock that is held. One that is not is forgotten.
    fn find(&self, id: LockId) -> Result<Option<LockView>, Error> {
        match self.client.get(&lock_path(id)) {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if error.is_status(404) => {
                self.forget(id);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn release(&self, lock: &Held) -> Result<(), Error> {
        let path = with_query(&lock_path(lock.id), &[("fence", lock.fence.to_string())]);
        let answer = self.client.remove(&path);
        if answer.as_ref().is_ok() || answer.as_ref().is_err_and(|error| error.is_status(404)) {
            self.forget(lock.id);
        }
        answer
    }

    fn forget(&self, id: LockId) {
        self.ground.iter().for_each(|ground| ground.forget(id));
    }
}

/// A path of a lock that lies in none of these.
fn beyond<'a>(lock: &'a Held, paths: &[LockPath], ignore_case: bool) -> Option<&'a LockPath> {
    let fold = |path: &LockPath| if ignore_case { path.folded() } else { path.clone() };
    let is_named = |held: &LockPath| paths.iter().any(|path| fold(path).covers(&fold(held)));
    lock.paths.iter().map(|held| &held.path).find(|held| !is_named(held))
}

fn together(path: &LockPath, lock: &Held, paths: &[LockPath], ignore_case: bool) -> Error {
    let more = beyond(lock, paths, ignore_case).unwrap_or(path);
    Error::Usage(format!(
        "'{path}' is locked together with '{more}': name that too, or give back all of it with `agentflow unlock \
         --id {}`",
        lock.id
    ))
}

fn unlocked(path: &LockPath) -> Error {
    Error::Gone(format!("'{path}' is not locked"))
}

fn of_another(lock: &LockView) -> Error {
    let owner = printable(&lock.owner);
    Error::Busy(format!(
        "{owner} holds {} since {}, and only the owner gives it back (if that is you: --owner)\n  if nobody works \
         there any more: `agentflow lock break {} --reason TEXT`",
        words::what(&lock.paths),
        words::at(lock.acquired_at),
        lock.id
    ))
}

/// Inside a task: those of its attempt, from the file that its worker keeps.
fn of_attempt(unlock: &Unlock) -> Result<Vec<Held>, Error> {
    #[derive(Default, Deserialize)]
    struct Kept {
        locks: Vec<Held>,
    }
    let path = std::env::var_os("AGENTFLOW_LOCKS").map(std::path::PathBuf::from).unwrap_or_default();
    let kept: Kept = match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|error| Error::io(format!("cannot read {}", path.display()), error.into()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Kept::default(),
        Err(error) => return Err(Error::io(format!("cannot read {}", path.display()), error)),
    };
    if unlock.all {
        return Ok(kept.locks);
    }
    if !unlock.ids.is_empty() {
        return unlock
            .ids
            .iter()
            .map(|id| {
                let found = kept.locks.iter().find(|lock| lock.id == *id);
                found.cloned().ok_or_else(|| Error::Gone(format!("this attempt has no lock {id}")))
            })
            .collect();
    }
    let ground = Ground::find(&unlock.place)?;
    let paths = unlock.paths.iter().map(|path| ground.path(path)).collect::<Result<Vec<_>, Error>>()?;
    let mut locks = kept.locks;
    locks.retain(|lock| lock.repo == ground.repo && beyond(lock, &paths, ground.ignore_case).is_none());
    match paths.first() {
        Some(path) if locks.is_empty() => Err(unlocked(path)),
        _ => Ok(locks),
    }
}
