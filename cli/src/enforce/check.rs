//! Whether files may be changed: by the locks that are held here, and by those of others.

use std::collections::HashSet;

use agentflow_core::lock::LockPath;
use agentflow_protocol::Timestamp;
use agentflow_protocol::locks::LockView;
use jiff::tz::TimeZone;

use super::change::Change;
use super::own::Own;
use super::rules::Rules;
use crate::clock::{moment, now};
use crate::output::{printable, span};
use crate::working_copy::Mode;

/// A file that may not be changed.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Which.
    pub(crate) change: Change,
    /// Why.
    pub(crate) why: String,
    /// Whether somebody else has locked it.
    pub(crate) is_held: bool,
}

/// What came out.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// What may not be changed: every such file.
    pub(crate) refused: Vec<Refused>,
    /// What people should know of what was allowed.
    pub(crate) notes: Vec<String>,
}

/// Judges changes by the rules, and by who holds these places. Where nobody says who does, a lock that is
/// noted here counts as it was noted.
pub(crate) fn judge(
    rules: Rules,
    own: &Own,
    changes: Vec<Change>,
    ask: impl FnOnce(Vec<Option<LockPath>>) -> Result<Vec<LockView>, String>,
) -> Verdict {
    if rules.mode == Mode::Off {
        return Verdict::default();
    }
    let is_certain = |change: &Change| change.path.as_ref().is_ok_and(|path| own.covers_in_attempt(path));
    let mut seen = HashSet::new();
    let asked: Vec<Change> =
        changes.into_iter().filter(|change| !is_certain(change) && seen.insert(change.clone())).collect();
    if asked.is_empty() {
        return Verdict::default();
    }
    let held = ask(asked.iter().map(Change::place).collect());
    let own = &held.as_ref().map_or_else(|_| own.clone(), |held| own.confirmed(held));
    let is_covered = |change: &Change| change.path.as_ref().is_ok_and(|path| own.covers(path));
    let rest: Vec<Change> = asked.into_iter().filter(|change| !is_covered(change)).collect();
    if rest.is_empty() {
        return Verdict::default();
    }
    let held = held.map(|held| held.into_iter().filter(|lock| !own.has(lock)).collect::<Vec<_>>());
    match rules.mode {
        Mode::Enforce => Verdict { refused: uncovered(own, rest, &held), notes: Vec::new() },
        _ => conflicts(rules, own, rest, held),
    }
}

/// Where every change needs a lock: all that have none.
fn uncovered(own: &Own, rest: Vec<Change>, held: &Result<Vec<LockView>, String>) -> Vec<Refused> {
    let why = |change: Change| {
        if let Err(wrong) = &change.path {
            let why = format!("no lock can be for it: {wrong}");
            return Refused { change, why, is_held: false };
        }
        let holder = held.as_ref().map(|held| in_the_way(own, &change, held));
        let is_held = matches!(holder, Ok(Some(_)));
        let whose = match holder {
            Ok(Some(holder)) => holder,
            Ok(None) => "nobody else has one either".to_owned(),
            Err(error) => format!("who has one is not known ({error})"),
        };
        Refused { change, why: format!("no write lock of yours covers it; {whose}"), is_held }
    };
    rest.into_iter().map(why).collect()
}

/// Where others' locks count: what one of them is in the way of.
fn conflicts(rules: Rules, own: &Own, rest: Vec<Change>, held: Result<Vec<LockView>, String>) -> Verdict {
    let mut verdict = Verdict::default();
    match held {
        Ok(held) => {
            for change in rest {
                if let Some(why) = in_the_way(own, &change, &held) {
                    verdict.refused.push(Refused { change, why, is_held: true });
                }
            }
        }
        Err(error) if rules.is_closed() => {
            let why = format!("who has locked it is not known ({error}); {}", rules.failing());
            let refused = |change| Refused { change, why: why.clone(), is_held: false };
            verdict.refused = rest.into_iter().map(refused).collect();
        }
        Err(error) => {
            verdict.notes.push(format!("who holds locks is not known ({error}): {}", rules.failing()))
        }
    }
    verdict
}

/// Who has locked a file, how, and until when.
fn in_the_way(own: &Own, change: &Change, held: &[LockView]) -> Option<String> {
    let place = change.place();
    held.iter().find_map(|lock| {
        let is_there = |path: &LockPath| place.as_ref().is_none_or(|place| own.overlap(place, path));
        let path = lock.paths.iter().find(|one| is_there(&one.path))?;
        let (owner, path, mode, until) = (printable(&lock.owner), &path.path, path.mode, until(lock));
        let reason = lock.reason.as_ref().map(|reason| format!(": \"{}\"", printable(reason)));
        Some(format!("{owner} holds '{path}' to {mode} {until}{}", reason.unwrap_or_default()))
    })
}

fn until(lock: &LockView) -> String {
    match (lock.expires_at, lock.task_id) {
        (Some(end), _) => {
            let now = now();
            let seconds = |time: Timestamp| u64::try_from(time.0.0 / 1_000_000).unwrap_or(0);
            let left = span(seconds(end).saturating_sub(seconds(now)));
            format!("until {} (in {left})", moment(end, now, &TimeZone::system()))
        }
        (None, Some(_)) => "until its attempt ends".to_owned(),
        (None, None) => "until it is given back".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use agentflow_core::lock::Repository;
    use serde_json::{Value, json};

    use super::*;
    use crate::working_copy::WithoutMaster;

    fn path(text: &str) -> LockPath {
        LockPath::new(text).expect("a path")
    }

    fn lock(id: u8, owner: &str, path: &str, expires_at: Value) -> LockView {
        let text = json!({
            "id": format!("{id:02x}").repeat(16), "fence": id, "repo": "app", "owner": owner,
            "paths": [{ "path": path, "mode": "write" }],
            "acquired_at": "2026-11-26T08:00:00Z", "expires_at": expires_at, "ttl_ms": null,
        });
        serde_json::from_value(text).expect("a lock")
    }

    fn rules(mode: Mode, without_master: WithoutMaster) -> Rules {
        Rules { mode, without_master }
    }

    /// What is said of `src/a.rs`, `docs/b.md` and a file without a name, where this is held.
    fn said(rules: Rules, held: Result<Vec<LockView>, String>) -> Verdict {
        let repo = Repository::new("app").expect("a repository");
        let own = Own::in_attempt(
            &repo,
            r#"{"locks": [{"id": "01010101010101010101010101010101",
            "repo": "app", "fence": 1, "paths": [{"path": "src/**"}]}]}"#,
        );
        let changes =
            vec![Change::at(path("src/a.rs")), Change::at(path("docs/b.md")), Change::of(b"docs/\xff")];
        judge(rules, &own, changes, |places| {
            assert_eq!(places, [Some(path("docs/b.md")), Some(path("docs/**"))], "only what is not covered");
            held
        })
    }

    fn whys(verdict: &Verdict) -> Vec<String> {
        verdict.refused.iter().map(|one| format!("{}: {}", one.change.shown(), one.why)).collect()
    }

    #[test]
    fn every_change_needs_a_lock_of_its_own() {
        let enforce = rules(Mode::Enforce, WithoutMaster::Deny);
        let others = lock(2, "task:7", "docs/**", Value::Null);
        let verdict = said(enforce, Ok(vec![lock(1, "me", "**", Value::Null), others]));
        assert_eq!(
            whys(&verdict),
            [
                "docs/b.md: no write lock of yours covers it; task:7 holds 'docs/**' to write until it is given back",
                "\"docs/\\xff\": no lock can be for it: its name is no Unicode",
            ]
        );
        let verdict = said(enforce, Ok(Vec::new()));
        assert!(whys(&verdict)[0].ends_with("nobody else has one either"), "{verdict:?}");
        let verdict = said(enforce, Err("no master".to_owned()));
        assert!(whys(&verdict)[0].ends_with("who has one is not known (no master)"), "{verdict:?}");
    }

    #[test]
    fn a_change_may_be_in_nobody_s_way() {
        let open = rules(Mode::Conflicts, WithoutMaster::Allow);
        let end = json!("2999-01-01T00:00:00Z");
        let verdict = said(open, Ok(vec![lock(2, "bob", "docs/b.md", end)]));
        assert_eq!(verdict.refused.len(), 2, "the file without a name lies in its directory: {verdict:?}");
        assert!(
            verdict.refused[0].why.starts_with("bob holds 'docs/b.md' to write until 2999-01-01"),
            "{verdict:?}"
        );
        assert!(said(open, Ok(vec![lock(2, "bob", "src/x", Value::Null)])).refused.is_empty());
        let verdict = said(open, Err("no master".to_owned()));
        assert!(
            verdict.refused.is_empty() && verdict.notes[0].contains("(no master): allowed"),
            "{verdict:?}"
        );
        let closed = rules(Mode::Conflicts, WithoutMaster::Deny);
        let verdict = said(closed, Err("no master".to_owned()));
        assert!(verdict.refused.len() == 2 && verdict.notes.is_empty(), "{verdict:?}");
    }

    #[test]
    fn nothing_is_asked_where_nothing_is_to_be_said() {
        let repo = Repository::new("app").expect("a repository");
        let own = Own::in_attempt(&repo, r#"{"locks": []}"#);
        let change = || vec![Change::at(path("src/a.rs"))];
        let never = |_| panic!("asked");
        let verdict = judge(rules(Mode::Off, WithoutMaster::Deny), &own, change(), never);
        assert!(verdict.refused.is_empty());
        assert!(judge(rules(Mode::Enforce, WithoutMaster::Deny), &own, Vec::new(), never).refused.is_empty());
    }
}
