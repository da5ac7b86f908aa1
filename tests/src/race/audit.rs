//! Compares the ledger of the contenders with what is on `main`. What the product says of itself is not
//! asked.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Found, Landed, STRAY};
use super::ledger::{Grant, Record};
use super::plan::{CONTENDERS, LAYERS, covers};

/// What every line that may be begins with.
const LEGIT: &str = "LEGIT-";

/// Everything that must not be.
pub(super) fn compare(record: &Record, found: &Found) -> Vec<String> {
    let mut violations = Vec::new();
    nothing_strays(found, &mut violations);
    every_edit_is_there_once(record, found, &mut violations);
    every_commit_was_covered(record, found, &mut violations);
    every_layer_has_stopped_its_own(record, &mut violations);
    attempts_ended_as_they_should(record, &mut violations);
    violations.extend(record.surprises.iter().cloned());
    violations
}

/// Nothing that strays is on `main`, now or before, or beside it.
fn nothing_strays(found: &Found, violations: &mut Vec<String>) {
    if found.commits.is_empty() {
        violations.push("nothing has come to main".to_owned());
    }
    for commit in &found.commits {
        violations.extend(commit.strays.iter().map(|line| format!("main has {line:?} since {}", commit.id)));
    }
    for (file, lines) in &found.files {
        let strays = lines.iter().filter(|line| line.contains(STRAY));
        violations.extend(strays.map(|line| format!("{file} has {line:?}")));
    }
    violations.extend(found.others.iter().map(|name| format!("the origin has {name}")));
}

/// What was acknowledged is there once, in its file; nothing else is there.
fn every_edit_is_there_once(record: &Record, found: &Found, violations: &mut Vec<String>) {
    let mut places: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (file, lines) in &found.files {
        for line in lines.iter().filter(|line| line.starts_with(LEGIT)) {
            places.entry(line).or_default().push(file);
        }
    }
    for edit in &record.edits {
        let name = edit.name.as_str();
        let there = places.remove(name).unwrap_or_default();
        if !edit.is_acknowledged {
            violations.push(format!("{name} was not pushed, and is in {there:?}"));
        } else if there != [edit.file.as_str()] {
            violations.push(format!("{name} was pushed in {}, and is in {there:?}", edit.file));
        }
    }
    violations.extend(places.into_iter().map(|(line, files)| format!("nobody pushed {line}, in {files:?}")));
}

/// Each commit names the fence of a lock that somebody had on all of its files; on each file, those who
/// had it later come later.
fn every_commit_was_covered(record: &Record, found: &Found, violations: &mut Vec<String>) {
    let mut grants: BTreeMap<u64, &Grant> = BTreeMap::new();
    for grant in &record.grants {
        let first = *grants.entry(grant.fence).or_insert(grant);
        if !std::ptr::eq(first, grant) {
            violations
                .push(format!("fence {} was given to {} and {}", grant.fence, first.owner, grant.owner));
        }
    }
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for commit in &found.commits {
        if commit.parents != 1 {
            violations.push(format!("{} comes from {} commits", commit.id, commit.parents));
        }
        let Some(grant) = named(commit, &grants) else {
            violations.push(format!("{} names the fences {:?}", commit.id, commit.fences));
            continue;
        };
        for line in commit.adds.iter().filter(|line| line.starts_with(LEGIT)) {
            if !record.edits.iter().any(|edit| edit.name == *line && edit.fence == grant.fence) {
                violations.push(format!("{} has {line} under fence {}", commit.id, grant.fence));
            }
        }
        for path in &commit.paths {
            let Some(place) = grant.places.iter().find(|place| covers(place, path)) else {
                let (owner, fence) = (&grant.owner, grant.fence);
                violations
                    .push(format!("{} changes {path}, which {owner} had not locked by {fence}", commit.id));
                continue;
            };
            let before = last.insert(place, grant.fence).unwrap_or(0);
            if before > grant.fence {
                violations.push(format!("{path} was changed under fence {before}, then {}", grant.fence));
            }
        }
    }
}

/// The one lock that a commit names.
fn named<'a>(commit: &Landed, grants: &BTreeMap<u64, &'a Grant>) -> Option<&'a Grant> {
    match commit.fences.as_slice() {
        [fence] => grants.get(&fence.parse().ok()?).copied(),
        _ => None,
    }
}

/// Each stray was stopped where it had to be, each contender has tried each kind, and no layer had nothing
/// to do.
fn every_layer_has_stopped_its_own(record: &Record, violations: &mut Vec<String>) {
    for stray in &record.strays {
        let (layer, stopped) = (stray.kind.layer(), stray.stopped);
        if stopped != Some(layer) {
            violations.push(format!(
                "{} ({:?} in {}) was to be stopped by {layer:?}, and was by {stopped:?}: {}",
                stray.name, stray.kind, stray.file, stray.said
            ));
        }
    }
    let tried: BTreeSet<_> = record.strays.iter().map(|stray| (stray.who, stray.kind)).collect();
    for who in CONTENDERS {
        let missing = who.kinds().iter().filter(|kind| !tried.contains(&(who, **kind)));
        violations.extend(missing.map(|kind| format!("{who} has not tried {kind:?}")));
    }
    let stopped = record.stopped_by();
    let idle = LAYERS.iter().filter(|layer| !stopped.contains(layer));
    violations.extend(idle.map(|layer| format!("nothing was stopped by {layer:?}")));
}

/// Who leaves something behind fails and is told what; nobody else does.
fn attempts_ended_as_they_should(record: &Record, violations: &mut Vec<String>) {
    for end in &record.ends {
        let is_right = match &end.left {
            Some(file) => end.status == "failed" && end.error.contains(&format!("\"{file}\"")),
            None => end.status == "completed",
        };
        if !is_right {
            let (task, left, status, error) = (end.task, &end.left, &end.status, &end.error);
            violations.push(format!("task {task} left {left:?} and is {status}: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ledger::{Edit, End, Stray};
    use super::*;

    fn grant(fence: u64, places: &[&str]) -> Grant {
        let places = places.iter().map(|place| (*place).to_owned()).collect();
        Grant { who: CONTENDERS[0], owner: format!("task:{fence}"), fence, places }
    }

    fn edit(name: &str, file: &str, fence: u64) -> Edit {
        Edit { name: format!("LEGIT-{name}"), file: file.to_owned(), fence, is_acknowledged: true }
    }

    fn landed(fence: &str, path: &str, name: &str) -> Landed {
        let (fences, paths) = (vec![fence.to_owned()], vec![path.to_owned()]);
        let adds = vec![format!("LEGIT-{name}")];
        Landed { id: format!("c{fence}"), parents: 1, fences, paths, adds, strays: Vec::new() }
    }

    fn end(left: Option<&str>, status: &str, error: &str) -> End {
        let (left, status, error) = (left.map(str::to_owned), status.to_owned(), error.to_owned());
        End { task: 1, left, status, error }
    }

    /// A race in which all is well.
    fn well() -> (Record, Found) {
        let strays = CONTENDERS.into_iter().flat_map(|who| {
            who.kinds().iter().enumerate().map(move |(at, kind)| Stray {
                name: format!("STRAY-{who}-{at}"),
                who,
                kind: *kind,
                file: "src/b.txt".to_owned(),
                stopped: Some(kind.layer()),
                said: String::new(),
            })
        });
        let record = Record {
            grants: vec![
                grant(1, &["src/a.txt", "notes/**"]),
                grant(2, &["src/b.txt"]),
                grant(3, &["src/a.txt"]),
            ],
            edits: vec![
                edit("1", "src/a.txt", 1),
                edit("2", "notes/x.txt", 1),
                edit("3", "src/b.txt", 2),
                edit("4", "src/a.txt", 3),
            ],
            strays: strays.collect(),
            ends: vec![
                end(None, "completed", ""),
                end(Some("src/b.txt"), "failed", "refused: \"src/b.txt\"; x"),
            ],
            surprises: Vec::new(),
            moved: 0,
        };
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let found = Found {
            commits: vec![
                landed("2", "src/b.txt", "3"),
                landed("1", "src/a.txt", "1"),
                landed("1", "notes/x.txt", "2"),
                landed("3", "src/a.txt", "4"),
            ],
            files: BTreeMap::from([
                ("src/a.txt".to_owned(), lines(&["text", "LEGIT-1", "LEGIT-4", "-- end --"])),
                ("src/b.txt".to_owned(), lines(&["LEGIT-3"])),
                ("notes/x.txt".to_owned(), lines(&["LEGIT-2"])),
            ]),
            others: Vec::new(),
        };
        (record, found)
    }

    /// The only violation after that change.
    #[track_caller]
    fn only(change: impl FnOnce(&mut Record, &mut Found)) -> String {
        let (mut record, mut found) = well();
        change(&mut record, &mut found);
        let violations = compare(&record, &found);
        assert_eq!(violations.len(), 1, "{violations:#?}");
        violations.into_iter().next().unwrap_or_default()
    }

    fn file<'a>(found: &'a mut Found, name: &str) -> &'a mut Vec<String> {
        found.files.get_mut(name).expect("a file")
    }

    #[test]
    fn where_all_is_well_nothing_is_found() {
        let (record, found) = well();
        assert_eq!(compare(&record, &found), [""; 0]);
    }

    #[test]
    fn what_strays_is_found_wherever_it_is() {
        assert!(only(|_, found| found.commits[1].strays.push("+STRAY-1".into())).contains("STRAY-1"));
        assert!(only(|_, found| file(found, "src/b.txt").push("a STRAY".into())).contains("src/b.txt"));
        assert!(only(|_, found| found.others.push("refs/heads/x".into())).contains("refs/heads/x"));
        let (record, _) = well();
        assert!(compare(&record, &Found::default()).contains(&"nothing has come to main".to_owned()));
    }

    #[test]
    fn what_is_lost_or_twice_or_elsewhere_is_found() {
        only(|_, found| file(found, "src/b.txt").clear());
        only(|_, found| file(found, "src/b.txt").push("LEGIT-3".into()));
        only(|_, found| file(found, "src/a.txt").push("LEGIT-3".into()));
        only(|_, found| file(found, "src/a.txt").push("LEGIT-9".into()));
        only(|record, _| record.edits[0].is_acknowledged = false);
        only(|record, _| record.surprises.push("x".into()));
    }

    #[test]
    fn what_no_lock_covers_is_found() {
        only(|_, found| found.commits[0].fences.clear());
        only(|_, found| found.commits[0].fences = vec!["x".into()]);
        only(|_, found| found.commits[0].fences.push("1".into()));
        only(|_, found| {
            found.commits[0].fences = vec!["3".into()];
            found.commits[0].adds.clear();
        });
        only(|_, found| found.commits[0].paths.push("other".into()));
        only(|_, found| found.commits[0].parents = 2);
        only(|_, found| found.commits[0].adds.push("LEGIT-4".into()));
        assert!(only(|_, found| found.commits.swap(1, 3)).contains("under fence 3, then 1"));
        only(|record, _| record.grants.push(grant(2, &["docs/d.txt"])));
    }

    #[test]
    fn what_was_stopped_elsewhere_or_never_tried_is_found() {
        only(|record, _| record.strays[0].stopped = None);
        only(|record, _| record.strays[0].stopped = Some(LAYERS[4]));
        only(|record, _| drop(record.strays.remove(0)));
        let (mut record, found) = well();
        record.strays.retain(|stray| stray.kind.layer() != LAYERS[3]);
        assert!(compare(&record, &found).iter().any(|text| text == "nothing was stopped by Worker"));
    }

    #[test]
    fn attempts_that_end_otherwise_are_found() {
        only(|record, _| record.ends.push(end(None, "failed", "x")));
        only(|record, _| record.ends.push(end(Some("src/b.txt"), "completed", "")));
        only(|record, _| record.ends.push(end(Some("src/b.txt"), "failed", "\"src/a.txt\"")));
    }
}
