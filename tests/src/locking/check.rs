//! Whether there is an order of all operations in which one lock service would have answered as it did.
//!
//! The search is that of Wing and Gong: of the operations that may come next, which are those that were
//! asked before any other was answered, one is done by the model; where no answer fits any more, the last
//! choice was wrong. States that were tried are not tried again (Lowe). What nobody was told of may have
//! been done at any time after it was asked, or never; where such a lock was granted is guessed first from
//! the fences that nobody has seen, for most services leave none out.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};

use super::history::{Call, Micros, Name, Operation, Told};
use super::model::{Act, Facts, State, Step};
use super::paths::Claim;

/// States of one repository after which the search gives up.
const MOST_STATES: usize = 5_000_000;

/// Operations that are shown where no order was found.
const SHOWN: usize = 12;

/// Says what is wrong with the operations of one repository, if anything is. None of them is void.
pub(super) fn explain(operations: &[Operation]) -> Option<String> {
    let mut search = match Search::new(operations) {
        Ok(search) => search,
        Err(why) => return Some(why),
    };
    for guess in [Guess::NoFenceIsLeftOut, Guess::Nothing] {
        search.begin(guess);
        let mut done = vec![false; search.steps.len()];
        let left = search.answered_at.iter().filter(|at| at.is_some()).count();
        if search.finds(&mut done, left, &State::default()) {
            return None;
        }
    }
    Some(search.complaint(operations))
}

/// What is taken for granted in a search. What is found is right all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Guess {
    NoFenceIsLeftOut,
    Nothing,
}

struct Search {
    guess: Guess,
    steps: Vec<Step>,
    /// When each was answered, of those that were.
    answered_at: Vec<Option<Micros>>,
    facts: Facts,
    /// Locks by their fences.
    fences: Vec<usize>,
    tried: HashSet<u64>,
    /// The longest order that was found, and what could not come next.
    longest: Vec<usize>,
    order: Vec<usize>,
}

impl Search {
    /// Resolves names.
    fn new(operations: &[Operation]) -> Result<Self, String> {
        let numbers: HashMap<&str, usize> =
            operations.iter().enumerate().map(|(number, one)| (one.name.as_str(), number)).collect();
        let facts = facts(operations, &numbers)?;
        let mut steps = Vec::with_capacity(operations.len());
        for operation in operations {
            steps.push(step(operation, operations, &numbers)?);
        }
        let answered = |operation: &Operation| operation.told.as_ref().map(|(at, _)| *at);
        let mut fences: Vec<(u64, usize)> =
            facts.locks.iter().filter_map(|(lock, (_, fence))| Some(((*fence)?, *lock))).collect();
        fences.sort_unstable();
        if let Some(twice) = fences.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let names = twice.iter().map(|(_, lock)| operations[*lock].name.as_str());
            return Err(format!("fence {} was given to {:?}", twice[0].0, names.collect::<Vec<_>>()));
        }
        Ok(Self {
            guess: Guess::Nothing,
            steps,
            answered_at: operations.iter().map(answered).collect(),
            facts,
            fences: fences.into_iter().map(|(_, lock)| lock).collect(),
            tried: HashSet::new(),
            longest: Vec::new(),
            order: Vec::new(),
        })
    }

    fn begin(&mut self, guess: Guess) {
        self.guess = guess;
        self.tried.clear();
        self.order.clear();
        self.longest.clear();
    }

    /// Whether that operation can be the next one as far as fences are concerned.
    fn fence_fits(&self, number: usize, next: Option<usize>, state: &State) -> bool {
        let fence_of = |lock: usize| self.facts.locks.get(&lock).and_then(|(_, fence)| *fence);
        let follows = |lock| fence_of(lock) == Some(state.fence() + 1);
        match self.facts.locks.get(&number) {
            None => true,
            Some((_, Some(_))) => next == Some(number) && (self.guess == Guess::Nothing || follows(number)),
            Some((_, None)) if self.is_refused(number) || self.guess == Guess::Nothing => true,
            Some((_, None)) => !next.is_some_and(follows),
        }
    }

    fn is_refused(&self, number: usize) -> bool {
        matches!(self.steps[number].told, Some(Told::Refused { .. } | Told::Deadlock))
    }

    fn finds(&mut self, done: &mut [bool], left: usize, state: &State) -> bool {
        if left == 0 {
            return true;
        }
        if self.tried.len() > MOST_STATES || !self.tried.insert(fingerprint(done, state)) {
            return false;
        }
        let next_fence = self.fences.iter().copied().find(|lock| !done[*lock]);
        for (number, latest) in self.candidates(done) {
            if !self.fence_fits(number, next_fence, state) {
                continue;
            }
            for after in state.after(number, &self.steps[number], latest, &self.facts) {
                done[number] = true;
                self.order.push(number);
                if self.order.len() > self.longest.len() {
                    self.longest.clone_from(&self.order);
                }
                let is_answered = self.answered_at[number].is_some();
                if self.finds(done, left - usize::from(is_answered), &after) {
                    return true;
                }
                self.order.pop();
                done[number] = false;
            }
        }
        false
    }

    /// What may come next, each with the time by which it must have happened: what was answered first
    /// comes first, and what was never answered last.
    fn candidates(&self, done: &[bool]) -> Vec<(usize, Micros)> {
        let open = || (0..done.len()).filter(|number| !done[*number]);
        let latest = open().filter_map(|number| self.answered_at[number]).min().unwrap_or(Micros::MAX);
        let mut candidates: Vec<usize> =
            open().filter(|number| self.steps[*number].asked_at <= latest).collect();
        candidates.sort_by_key(|number| self.answered_at[*number].unwrap_or(Micros::MAX));
        candidates.into_iter().map(|number| (number, latest)).collect()
    }

    fn complaint(&self, operations: &[Operation]) -> String {
        if self.tried.len() > MOST_STATES {
            return format!("no order was found among {MOST_STATES} states");
        }
        let mut done = vec![false; self.steps.len()];
        self.longest.iter().for_each(|number| done[*number] = true);
        let show = |number: &usize| format!("    {:?}", operations[*number]);
        let last: Vec<String> = self.longest.iter().rev().take(SHOWN).rev().map(show).collect();
        let next: Vec<String> = self.candidates(&done).iter().map(|(number, _)| show(number)).collect();
        format!(
            "no order explains all {} operations; the longest has {} and ends with\n{}\n  and none of these can follow\n{}",
            operations.len(),
            self.longest.len(),
            last.join("\n"),
            next.join("\n")
        )
    }
}

fn fingerprint(done: &[bool], state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    (done, state).hash(&mut hasher);
    hasher.finish()
}

/// The claims of all locks, and their fences as far as anybody has seen them.
fn facts(operations: &[Operation], numbers: &HashMap<&str, usize>) -> Result<Facts, String> {
    let mut fences: BTreeMap<usize, u64> = BTreeMap::new();
    let mut see = |lock: usize, fence: u64| match fences.insert(lock, fence) {
        Some(other) if other != fence => {
            Err(format!("{} has the fences {other} and {fence}", operations[lock].name))
        }
        _ => Ok(()),
    };
    for (number, operation) in operations.iter().enumerate() {
        match &operation.told {
            Some((_, Told::Granted { fence })) => see(number, *fence)?,
            Some((_, Told::Listed { locks })) => {
                for (name, fence) in locks {
                    see(number_of(name, numbers)?, *fence)?;
                }
            }
            _ => {}
        }
    }
    let claims = operations.iter().enumerate().filter_map(|(number, operation)| match &operation.call {
        Call::Lock { wanted, .. } => Some((number, (Claim::of(wanted), fences.get(&number).copied()))),
        _ => None,
    });
    Ok(Facts { locks: claims.collect() })
}

fn number_of(name: &Name, numbers: &HashMap<&str, usize>) -> Result<usize, String> {
    numbers.get(name.as_str()).copied().ok_or_else(|| format!("nobody asked for a lock '{name}'"))
}

fn step(
    operation: &Operation,
    operations: &[Operation],
    numbers: &HashMap<&str, usize>,
) -> Result<Step, String> {
    let told = operation.told.as_ref().map(|(_, told)| told.clone());
    let act = match &operation.call {
        Call::Lock { owner, wanted, ttl_ms, .. } => Act::Lock {
            owner: owner.clone(),
            claim: Claim::of(wanted),
            // What its client cannot be told of, for it is gone, is given back at once.
            ttl: if told.is_some() { ttl_ms * 1_000 } else { 0 },
            behind_others: operations.iter().any(|other| may_be_before(other, operation)),
        },
        Call::Unlock { lock } => Act::Unlock(number_of(lock, numbers)?),
        Call::Renew { lock, ttl_ms } => Act::Renew(number_of(lock, numbers)?, ttl_ms * 1_000),
        Call::Break { lock } => Act::Break(number_of(lock, numbers)?),
        Call::List => {
            let seen: &[(Name, u64)] = match &told {
                Some(Told::Listed { locks }) => locks,
                _ => &[],
            };
            let seen: Result<BTreeSet<usize>, String> =
                seen.iter().map(|(name, _)| number_of(name, numbers)).collect();
            Act::List(seen?)
        }
        Call::Verify { lock, files } => {
            let bits = |files: &[usize]| files.iter().fold(0, |bits, file| bits | 1 << file);
            let uncovered = match &told {
                Some(Told::Verified { uncovered }) => bits(uncovered),
                _ => 0,
            };
            Act::Verify { lock: number_of(lock, numbers)?, files: bits(files), uncovered }
        }
    };
    Ok(Step { asked_at: operation.asked_at, act, told })
}

/// Whether one waited for something that excludes what the other asked for, at that time.
fn may_be_before(waiting: &Operation, asking: &Operation) -> bool {
    let Call::Lock { wanted, wait_ms: 1.., .. } = &waiting.call else { return false };
    let Call::Lock { wanted: asked, .. } = &asking.call else { return false };
    let ends = |operation: &Operation| operation.told.as_ref().map_or(Micros::MAX, |(at, _)| *at);
    waiting.name != asking.name
        && waiting.asked_at <= ends(asking)
        && asking.asked_at <= ends(waiting)
        && Claim::of(wanted).excludes(Claim::of(asked))
}

#[cfg(test)]
mod tests {
    use super::super::history::{Mode, Wanted};
    use super::*;

    fn operation(name: &str, from: Micros, call: Call, told: Option<(Micros, Told)>) -> Operation {
        Operation { name: name.to_owned(), repo: 0, asked_at: from, call, told }
    }

    fn lock(name: &str, from: Micros, to: Micros, fence: u64) -> Operation {
        let wanted = vec![Wanted { path: 0, mode: Mode::Write }];
        let call = Call::Lock { owner: name.to_owned(), wanted, ttl_ms: 10_000, wait_ms: 0 };
        let told = if fence == 0 { Told::Refused { holders: vec![1] } } else { Told::Granted { fence } };
        operation(name, from, call, Some((to, told)))
    }

    fn unlock(name: &str, lock: &str, from: Micros, to: Option<Micros>) -> Operation {
        operation(name, from, Call::Unlock { lock: lock.to_owned() }, to.map(|to| (to, Told::Done)))
    }

    #[test]
    fn what_overlaps_may_have_happened_in_any_order() {
        let history = [lock("a", 0, 10, 1), lock("b", 20, 60, 2), unlock("c", "a", 30, Some(70))];
        assert_eq!(explain(&history), None, "given back before it was granted again");
        let history = [lock("a", 0, 10, 1), lock("b", 20, 30, 2), unlock("c", "a", 40, Some(70))];
        let why = explain(&history).expect("two writers");
        assert!(why.contains("Granted { fence: 2 }"), "{why}");
        let history = [lock("a", 0, 10, 1), lock("b", 20, 30, 0), unlock("c", "a", 40, Some(70))];
        assert_eq!(explain(&history), None, "refused while it was held");
        let history = [lock("a", 0, 10, 1), unlock("c", "a", 20, Some(30)), lock("b", 40, 50, 0)];
        assert!(explain(&history).is_some(), "refused for a lock that was given back");
    }

    #[test]
    fn what_nobody_was_told_of_may_have_happened_or_not() {
        for then in [lock("b", 40, 50, 2), lock("b", 40, 50, 0)] {
            let history = [lock("a", 0, 10, 1), unlock("c", "a", 20, None), then];
            assert_eq!(explain(&history), None);
        }
        let history = [lock("a", 0, 10, 1), lock("b", 40, 50, 2), unlock("c", "a", 60, None)];
        assert!(explain(&history).is_some(), "it was not even asked for");
    }

    #[test]
    fn what_its_client_could_not_be_told_of_is_given_back() {
        let list = |name: &str, from, locks: &[&str]| {
            let locks = locks.iter().map(|lock| ((*lock).to_owned(), 1)).collect();
            operation(name, from, Call::List, Some((from + 5, Told::Listed { locks })))
        };
        let seen_and_gone = |told| {
            let asked = Operation { told, ..lock("a", 0, 10, 1) };
            explain(&[asked, list("b", 20, &["a"]), list("c", 30, &[])])
        };
        assert_eq!(seen_and_gone(None), None);
        assert!(seen_and_gone(Some((10, Told::Granted { fence: 1 }))).is_some(), "it had time");
    }

    #[test]
    fn fences_are_given_once_and_in_order() {
        let free = |lock, name| unlock(name, lock, 15, Some(18));
        let history = [lock("a", 0, 10, 2), free("a", "c"), lock("b", 20, 30, 1)];
        assert!(explain(&history).is_some());
        let history = [lock("a", 0, 10, 2), free("a", "c"), lock("b", 20, 30, 2)];
        assert!(explain(&history).expect("twice").contains("fence 2"));
    }
}
