//! One lock service for one repository, as the rules of locks say it is, without clients and threads.
//!
//! Time is known only within bounds: each step happens no later than `latest`, and not before what came
//! before it. A lock may run out from the moment on at which it must last no longer; the model lets it
//! run out when an answer needs that. How late a lock may end is not said here: when all is over, none may
//! be left.

use std::collections::{BTreeMap, BTreeSet};

use agentflow_core::limits;

use super::history::{Micros, Told};
use super::paths::{Claim, FILES};

/// By how much the end of a lock may be early: the master measures its time with another clock, which is
/// set now and then.
const CLOCKS_DIFFER: Micros = 20_000;

/// An operation whose words are resolved: other operations are numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Step {
    pub(super) asked_at: Micros,
    pub(super) act: Act,
    /// Nothing where nobody was told.
    pub(super) told: Option<Told>,
}

/// What is asked of the service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Act {
    Lock {
        owner: String,
        claim: Claim,
        ttl: Micros,
        /// Whether somebody who waited at that time stood in the way, or may have.
        behind_others: bool,
    },
    Unlock(usize),
    Renew(usize, Micros),
    Break(usize),
    /// What was seen.
    List(BTreeSet<usize>),
    /// The fence of that lock; which files, by bits, and which of them are not covered.
    Verify {
        lock: usize,
        files: u8,
        uncovered: u8,
    },
}

/// What all operations have in common.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// What each lock claims, and its fence where somebody has seen it.
    pub(super) locks: BTreeMap<usize, (Claim, Option<u64>)>,
}

impl Facts {
    fn claim(&self, lock: usize) -> Claim {
        self.locks.get(&lock).map(|(claim, _)| *claim).unwrap_or_default()
    }

    fn fence(&self, lock: usize) -> Option<u64> {
        self.locks.get(&lock).and_then(|(_, fence)| *fence)
    }
}

/// Who wrote a file last: locks for writing, one after the other, of the same owner.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Writer {
    owner: String,
    locks: Vec<usize>,
}

/// The service between two operations.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct State {
    /// Locks that are held, and when they may run out.
    held: BTreeMap<usize, Micros>,
    /// At least.
    fence: u64,
    /// No step happens before.
    now: Micros,
    writers: [Writer; FILES.len()],
    broken: BTreeSet<usize>,
}

impl State {
    /// The largest that was given out, at least.
    pub(super) fn fence(&self) -> u64 {
        self.fence
    }

    /// Does the operation with that number, if what was told can be told now; gives what may be then.
    pub(super) fn after(&self, number: usize, step: &Step, latest: Micros, facts: &Facts) -> Vec<State> {
        let mut state = self.clone();
        state.now = state.now.max(step.asked_at);
        match (&step.act, &step.told) {
            (Act::Lock { claim, behind_others, .. }, Some(Told::Refused { holders })) => {
                state.refuse(*claim, holders, *behind_others, latest, facts)
            }
            (Act::Lock { claim, behind_others, .. }, Some(Told::Deadlock)) => {
                let is_explained = *behind_others || !state.in_the_way(*claim, facts).is_empty();
                if is_explained { vec![state] } else { vec![] }
            }
            (Act::Lock { owner, claim, ttl, .. }, _) => {
                state.grant(number, owner, *claim, *ttl, latest, facts)
            }
            (Act::Renew(lock, _) | Act::Unlock(lock) | Act::Break(lock), Some(Told::Gone)) => {
                state.without(*lock, latest)
            }
            (Act::Renew(lock, ttl), told) => {
                let until = state.now + ttl;
                if told == &Some(Told::DoneOrGone) {
                    // It may have been renewed for a shorter time.
                    if let Some(end) = state.held.get_mut(lock) {
                        *end = until.min(*end);
                    }
                    return state.without(*lock, latest);
                }
                match state.held.get_mut(lock) {
                    Some(end) => {
                        *end = until;
                        vec![state]
                    }
                    None => vec![],
                }
            }
            (Act::Unlock(lock) | Act::Break(lock), told) => {
                let mut outcomes = Vec::new();
                let mut ended = state.clone();
                if ended.held.remove(lock).is_some() {
                    if matches!(step.act, Act::Break(_)) {
                        ended.broken.insert(*lock);
                    }
                    outcomes.push(ended);
                }
                if told == &Some(Told::DoneOrGone) {
                    outcomes.extend(state.without(*lock, latest));
                }
                outcomes
            }
            (Act::List(seen), _) => {
                let unseen: Vec<usize> =
                    state.held.keys().copied().filter(|lock| !seen.contains(lock)).collect();
                let all = unseen.into_iter().all(|lock| state.runs_out(lock, latest));
                if all && seen.iter().all(|lock| state.held.contains_key(lock)) {
                    vec![state]
                } else {
                    vec![]
                }
            }
            (Act::Verify { lock, files, uncovered }, _) => {
                let is_uncovered =
                    |file: usize| state.broken.contains(lock) || !state.writers[file].locks.contains(lock);
                let found = (0..FILES.len())
                    .filter(|file| files & (1 << file) != 0 && is_uncovered(*file))
                    .fold(0, |found, file| found | 1 << file);
                if found == *uncovered { vec![state] } else { vec![] }
            }
        }
    }

    /// A lock is held no more, if it can have run out.
    fn runs_out(&mut self, lock: usize, latest: Micros) -> bool {
        let Some(until) = self.held.get(&lock) else { return true };
        let earliest = until.saturating_sub(CLOCKS_DIFFER);
        if earliest > latest {
            return false;
        }
        self.now = self.now.max(earliest);
        self.held.remove(&lock);
        true
    }

    fn without(mut self, lock: usize, latest: Micros) -> Vec<State> {
        if self.runs_out(lock, latest) { vec![self] } else { vec![] }
    }

    /// Locks that exclude that claim.
    fn in_the_way(&self, claim: Claim, facts: &Facts) -> Vec<usize> {
        self.held.keys().copied().filter(|lock| facts.claim(*lock).excludes(claim)).collect()
    }

    fn grant(
        mut self,
        lock: usize,
        owner: &str,
        claim: Claim,
        ttl: Micros,
        latest: Micros,
        facts: &Facts,
    ) -> Vec<State> {
        let fence = facts.fence(lock).unwrap_or(self.fence + 1);
        let is_free = self.in_the_way(claim, facts).into_iter().all(|lock| self.runs_out(lock, latest));
        if !is_free || fence <= self.fence {
            return vec![];
        }
        self.fence = fence;
        self.held.insert(lock, self.now + ttl);
        for (file, writer) in self.writers.iter_mut().enumerate() {
            if claim.writes & (1 << file) == 0 {
                continue;
            }
            if writer.owner != owner {
                *writer = Writer { owner: owner.to_owned(), locks: Vec::new() };
            }
            writer.locks.push(lock);
        }
        vec![self]
    }

    /// Exactly those are named who stand in the way, or the first of very many, and somebody does.
    fn refuse(
        mut self,
        claim: Claim,
        holders: &[u64],
        behind_others: bool,
        latest: Micros,
        facts: &Facts,
    ) -> Vec<State> {
        let mut unseen: BTreeSet<u64> = holders.iter().copied().collect();
        let mut unnamed = Vec::new();
        let mut of_unknown_fence = 0;
        for lock in self.in_the_way(claim, facts) {
            match facts.fence(lock) {
                Some(fence) if unseen.remove(&fence) => {}
                Some(_) => unnamed.push(lock),
                // Nobody was told of this lock: it may be one of those that are named.
                None => of_unknown_fence += 1,
            }
        }
        let is_explained = unseen.len() <= of_unknown_fence && (!holders.is_empty() || behind_others);
        if holders.len() >= limits::HOLDERS_NAMED {
            unnamed.clear();
        }
        if is_explained && unnamed.into_iter().all(|lock| self.runs_out(lock, latest)) {
            vec![self]
        } else {
            vec![]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::{Mode, Wanted};
    use super::*;

    /// Path 0 is `a/1`, path 6 is `a/**`.
    fn claim(path: usize, mode: Mode) -> Claim {
        Claim::of(&[Wanted { path, mode }])
    }

    fn facts(locks: &[(usize, Claim, u64)]) -> Facts {
        Facts { locks: locks.iter().map(|(lock, claim, fence)| (*lock, (*claim, Some(*fence)))).collect() }
    }

    fn lock(owner: &str, claim: Claim, fence: u64) -> Step {
        let act = Act::Lock { owner: owner.to_owned(), claim, ttl: 1_000_000, behind_others: false };
        Step { asked_at: 10, act, told: Some(Told::Granted { fence }) }
    }

    fn told(act: Act, told: Told) -> Step {
        Step { asked_at: 20, act, told: Some(told) }
    }

    fn can(state: &State, number: usize, step: &Step, facts: &Facts) -> Option<State> {
        state.after(number, step, 1_000, facts).into_iter().next()
    }

    #[test]
    fn a_writer_is_alone_until_its_time_is_over() {
        let (file, all) = (claim(0, Mode::Write), claim(6, Mode::Write));
        let facts = facts(&[(0, file, 1), (1, all, 2)]);
        let held = can(&State::default(), 0, &lock("a", file, 1), &facts).expect("free");
        assert!(can(&held, 1, &lock("b", all, 2), &facts).is_none());
        assert!(held.after(1, &lock("b", all, 2), 1_000_010, &facts).len() == 1, "it may have run out");
        let free = can(&held, 2, &told(Act::Unlock(0), Told::Done), &facts).expect("held");
        assert!(can(&free, 1, &lock("b", all, 2), &facts).is_some());
        assert!(can(&free, 3, &told(Act::Unlock(0), Told::Done), &facts).is_none(), "given back twice");
        assert!(can(&held, 3, &told(Act::Unlock(0), Told::Gone), &facts).is_none(), "it is held");
    }

    #[test]
    fn fences_rise_and_who_is_named_is_there() {
        let (file, all) = (claim(0, Mode::Write), claim(6, Mode::Read));
        let facts = facts(&[(0, file, 5), (1, claim(5, Mode::Write), 5)]);
        let held = can(&State::default(), 0, &lock("a", file, 5), &facts).expect("free");
        assert!(can(&held, 1, &lock("b", claim(5, Mode::Write), 5), &facts).is_none(), "5 was given out");
        let refused = |holders: &[u64], behind_others| {
            let act = Act::Lock { owner: "b".to_owned(), claim: all, ttl: 1, behind_others };
            can(&held, 2, &told(act, Told::Refused { holders: holders.to_vec() }), &facts).is_some()
        };
        assert!(refused(&[5], false));
        assert!(!refused(&[], true), "the holder is not named");
        assert!(!refused(&[4], false) && !refused(&[4, 5], false), "nobody has 4");
    }

    #[test]
    fn of_very_many_only_the_first_are_named() {
        let (file, many) = (claim(0, Mode::Read), limits::HOLDERS_NAMED + 1);
        let locks: Vec<(usize, Claim, u64)> = (0..many).map(|lock| (lock, file, lock as u64 + 1)).collect();
        let facts = facts(&locks);
        let held = (0..many).fold(State::default(), |state, at| {
            can(&state, at, &lock("a", file, at as u64 + 1), &facts).expect("shared")
        });
        let act = |named: usize| {
            let claim = claim(0, Mode::Write);
            let act = Act::Lock { owner: "b".to_owned(), claim, ttl: 1, behind_others: false };
            told(act, Told::Refused { holders: (1..=named as u64).collect() })
        };
        assert!(can(&held, 99, &act(many - 1), &facts).is_some());
        assert!(can(&held, 99, &act(many - 2), &facts).is_none());
    }

    #[test]
    fn what_is_covered_is_known_from_the_history() {
        let file = claim(0, Mode::Write);
        let facts = facts(&[(0, file, 1), (1, file, 2), (2, file, 3)]);
        let unlock =
            |state: &State, lock| can(state, 9, &told(Act::Unlock(lock), Told::Done), &facts).expect("held");
        let verify = |state: &State, lock, uncovered| {
            can(state, 9, &told(Act::Verify { lock, files: 1, uncovered }, Told::Done), &facts).is_some()
        };
        let first = unlock(&can(&State::default(), 0, &lock("a", file, 1), &facts).expect("free"), 0);
        assert!(verify(&first, 0, 0) && !verify(&first, 0, 1));
        let again = can(&first, 1, &lock("a", file, 2), &facts).expect("free");
        assert!(verify(&again, 0, 0) && verify(&again, 1, 0), "the same owner");
        let others = can(&unlock(&again, 1), 2, &lock("b", file, 3), &facts).expect("free");
        assert!(verify(&others, 0, 1) && verify(&others, 1, 1) && verify(&others, 2, 0));
        let broken = can(&others, 9, &told(Act::Break(2), Told::Done), &facts).expect("held");
        assert!(verify(&broken, 2, 1));
    }
}
