//! Two workflow files, where the nodes of the first stand, and the fate of each node of the second.

use agentflow_workflow::read_text;
use serde_json::json;

use super::*;

const OLD: &str = "
version: 1
vars: {word: one}
tasks:
  fetch: {run: fetch}
  build: {run: make, needs: fetch}
  each: {needs: fetch, foreach: [1, 2], run: 'use ${{ item }}'}
  say: {run: 'echo ${{ vars.word }}', needs: build}
  check: {run: check, needs: build}
  report: {run: report, needs: [check, each]}
";

fn read(text: &str) -> Definition {
    read_text(text, &()).expect("a workflow")
}

fn standing(text: &str) -> BTreeMap<&str, Standing> {
    let word = |word: &str| match word {
        "waiting" => Standing::Waiting,
        "at-work" => Standing::AtWork,
        "parts" => Standing::Parts,
        "stopping" => Standing::Stopping,
        "outdated" => Standing::Outdated,
        "failed" => Standing::Ended(Status::Failed),
        "skipped" => Standing::Ended(Status::Skipped),
        "done" => Standing::Ended(Status::Completed),
        other => panic!("{other}"),
    };
    text.split(' ').map(|pair| pair.split_once('=').expect("a pair")).map(|(n, s)| (n, word(s))).collect()
}

/// Where nothing is said, a node waits.
struct Case<'a> {
    stands: &'a str,
    new: &'a str,
    map: &'a [(&'a str, Option<&'a str>)],
    from: &'a [&'a str],
    restart: bool,
}

const CASE: Case<'_> = Case { stands: "", new: OLD, map: &[], from: &[], restart: false };

impl Case<'_> {
    fn mapping(&self) -> Result<Mapping, MappingError> {
        let (old, new) = (read(OLD), read(self.new));
        let stands = if self.stands.is_empty() { BTreeMap::new() } else { standing(self.stands) };
        let map = self.map.iter().map(|(new, old)| ((*new).into(), old.map(Into::into))).collect();
        let from: Vec<Box<str>> = self.from.iter().map(|name| (*name).into()).collect();
        let nothing = Value::Null;
        let change = Change { old: &old, old_inputs: &nothing, new: &new, new_inputs: &nothing };
        let wish = Wish { restart_from: &from, restart: self.restart };
        Mapping::new(change, &map, wish, |node| {
            let name = &*old.nodes[node as usize].name;
            stands.get(name).copied().unwrap_or(Standing::Waiting)
        })
    }

    /// Each node of the new definition with its fate, a star where it is changed; then what is gone.
    fn fates(&self) -> String {
        let (old, new) = (read(OLD), read(self.new));
        let mapping = self.mapping().expect("it fits");
        let kept = new.nodes.iter().zip(&mapping.nodes).map(|(node, mapped)| {
            let star = if mapped.is_changed && mapped.fate != Fate::New { "*" } else { "" };
            format!("{}={}{star}", node.name, mapped.fate.as_str())
        });
        let gone = mapping
            .removed
            .iter()
            .map(|(node, fate)| format!("-{}={}", old.nodes[*node as usize].name, fate.as_str()));
        kept.chain(gone).collect::<Vec<_>>().join(" ")
    }
}

/// The old file with one line in the place of another.
fn with(line: &str, other: &str) -> String {
    assert!(OLD.contains(line), "{line}");
    OLD.replace(line, other)
}

#[test]
fn the_same_workflow_changes_nothing() {
    let stands = "fetch=done build=at-work each=parts check=failed report=skipped";
    assert_eq!(
        Case { stands, ..CASE }.fates(),
        "fetch=kept build=goes_on each=goes_on say=waits check=kept report=kept"
    );
}

#[test]
fn a_changed_body_is_for_what_has_not_begun() {
    let new = with("run: make,", "run: make all,");
    let fate = |stands: &str, restart| Case { stands, new: &new, restart, ..CASE }.fates();
    assert!(fate("", false).contains("build=waits* "));
    assert!(fate("build=at-work", false).contains("build=finishes* "));
    assert!(fate("build=at-work", true).contains("build=restarts* "));
    assert!(fate("build=done", true).contains("build=kept* "));
    assert!(Case { stands: "build=outdated", ..CASE }.fates().contains("build=finishes* "));
    let again = Case { stands: "build=outdated", restart: true, ..CASE };
    assert!(again.fates().contains("build=restarts* "), "it is at work on what an older version says");
    assert!(fate("build=stopping", false).contains("build=finishes* "));
    assert!(
        fate("build=stopping", true).contains("build=refused* "),
        "what is being stopped cannot begin anew"
    );
    assert!(fate("build=failed", false).contains("build=kept* "));
    assert!(fate("build=at-work check=at-work", true).contains("check=goes_on"), "only what is changed");
}

#[test]
fn a_node_that_comes_after_something_else_is_changed() {
    let new = with("check: {run: check, needs: build}", "check: {run: check, needs: fetch}");
    assert!(Case { new: &new, ..CASE }.fates().contains("check=waits* "));
    let reordered = with("needs: [check, each]", "needs: [each, check]");
    assert!(Case { new: &reordered, ..CASE }.fates().ends_with("report=waits"));
}

#[test]
fn other_values_change_what_reads_them() {
    let new = with("word: one", "word: two, more: 1");
    assert_eq!(
        Case { new: &new, ..CASE }.fates(),
        "fetch=waits build=waits each=waits say=waits* check=waits report=waits"
    );
    let more = with("word: one", "word: one, more: 1");
    assert!(!Case { new: &more, ..CASE }.fates().contains('*'), "one more changes nothing");
}

#[test]
fn other_inputs_change_what_reads_them() {
    let old = read("{version: 1, tasks: {a: {run: 'x ${{ inputs.a }}'}, b: {run: x}}}");
    let (before, after) = (json!({"a": 1}), json!({"a": 2}));
    let change = Change { old: &old, old_inputs: &before, new: &old, new_inputs: &after };
    let wish = Wish { restart_from: &[], restart: false };
    let mapping = Mapping::new(change, &Named::new(), wish, |_| Standing::Waiting).expect("it fits");
    assert_eq!(mapping.nodes.iter().map(|node| node.is_changed).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn names_say_which_node_is_which_unless_somebody_else_does() {
    let new = OLD.replace("build", "compile");
    let stands = "fetch=done build=done";
    assert_eq!(
        Case { stands, new: &new, ..CASE }.fates(),
        "fetch=kept compile=new each=waits say=waits* check=waits* report=waits -build=removed"
    );
    assert_eq!(
        Case { stands, new: &new, map: &[("compile", Some("build"))], ..CASE }.fates(),
        "fetch=kept compile=kept each=waits say=waits check=waits report=waits"
    );
    // The name of one that another is said to be is free.
    let map = &[("check", Some("say"))];
    assert!(Case { map, ..CASE }.fates().starts_with("fetch=waits build=waits each=waits say=new"));
    let swapped = &[("check", Some("say")), ("say", Some("check"))];
    assert!(!Case { map: swapped, ..CASE }.fates().contains("removed"));
    let anew = &[("build", None)];
    assert!(Case { stands, map: anew, ..CASE }.fates().contains("build=new"));
}

#[test]
fn what_is_asked_must_be_there() {
    let error = |map, from| Case { map, from, ..CASE }.mapping().expect_err("it does not fit");
    assert_eq!(error(&[("x", None)], &[]), MappingError::NotNew("x".into()));
    assert_eq!(error(&[("build", Some("x"))], &[]), MappingError::NotOld("x".into()));
    let twice = &[("build", Some("fetch")), ("check", Some("fetch"))];
    assert_eq!(error(twice, &[]), MappingError::Twice("fetch".into()));
    assert_eq!(error(&[], &["x"]), MappingError::NoStart("x".into()));
}

#[test]
fn a_restart_takes_everything_after_it() {
    let stands = "fetch=done build=done each=done say=at-work check=done report=failed";
    let case = Case { stands, from: &["build"], ..CASE };
    assert_eq!(
        case.fates(),
        "fetch=kept build=again* each=kept say=refused* check=again* report=again*",
        "what is at work there would be lost"
    );
    let case = Case { restart: true, ..case };
    assert!(case.fates().contains("say=restarts* "));
}

#[test]
fn parts_that_are_at_work_must_stay_what_they_are() {
    let stands = "fetch=done each=parts";
    let fate = |new: &str, restart| Case { stands, new, restart, ..CASE }.fates();
    let other_body = with("use ${{ item }}", "try ${{ item }}");
    assert!(fate(&other_body, false).contains("each=goes_on"), "items that have not begun have the new one");
    let other_list = with("foreach: [1, 2]", "foreach: [1, 2, 3]");
    assert!(fate(&other_list, true).contains("each=refused"));
    let no_list = with("foreach: [1, 2], run: 'use ${{ item }}'", "run: use");
    assert!(fate(&no_list, true).contains("each=refused"));
    let other_needs = with("each: {needs: fetch,", "each: {needs: build,");
    assert!(fate(&other_needs, true).contains("each=refused"));
}

#[test]
fn what_is_gone_is_stopped_only_when_asked() {
    let new = with("  say: {run: 'echo ${{ vars.word }}', needs: build}\n", "");
    let fate = |stands, restart| Case { stands, new: &new, restart, ..CASE }.fates();
    assert!(fate("", false).ends_with("-say=removed"));
    assert!(fate("say=failed", false).ends_with("-say=removed"));
    assert!(fate("say=at-work", false).ends_with("-say=refused"));
    assert!(fate("say=at-work", true).ends_with("-say=stopped"));
    assert!(fate("say=stopping", false).ends_with("-say=stopped"));
    let new = with("report: {run: report, needs: [check, each]}", "report: {run: report, needs: [check]}");
    let new = new.replace("  each: {needs: fetch, foreach: [1, 2], run: 'use ${{ item }}'}\n", "");
    assert!(
        Case { stands: "each=parts", new: &new, restart: true, ..CASE }.fates().ends_with("-each=refused")
    );
}

#[test]
fn what_was_skipped_is_decided_on_again_when_its_reason_may_be_gone() {
    let stands = "fetch=done build=failed each=done say=skipped check=skipped report=skipped";
    let stay = "fetch=kept build=kept each=kept say=kept check=kept report=kept";
    assert_eq!(Case { stands, ..CASE }.fates(), stay);
    // Another place for one of them: what needs it follows.
    let new = with("check: {run: check, needs: build}", "check: {run: check, needs: fetch}");
    assert_eq!(
        Case { stands, new: &new, ..CASE }.fates(),
        "fetch=kept build=kept each=kept say=kept check=again* report=again*"
    );
    // A new node in between.
    let new = with("  check:", "  mend: {run: mend, needs: fetch}\n  check:")
        .replace("needs: [check, each]", "needs: [check, each, mend]");
    let fates = Case { stands, new: &new, ..CASE }.fates();
    assert!(fates.ends_with("check=kept report=again*"), "{fates}");
}

const FAR: &str = "
version: 1
tasks:
  other: {run: other}
  middle: {run: middle, needs: [other]}
  reads: {run: 'use ${{ tasks.other.outputs.n }}', needs: middle}
  lists: {needs: middle, foreach: '${{ tasks.other.outputs.list }}', run: 'use ${{ item }}'}
";

#[test]
fn what_reads_a_node_far_before_it_is_decided_on_again_with_that() {
    let definition = read(FAR);
    let nothing = Value::Null;
    let change = Change { old: &definition, old_inputs: &nothing, new: &definition, new_inputs: &nothing };
    let wish = Wish { restart_from: &[], restart: false };
    let named: Named = [("other".into(), None)].into();
    let stands = |far: Standing| {
        let mapping =
            Mapping::new(change, &named, wish, |node| match &*definition.nodes[node as usize].name {
                "reads" | "lists" => far,
                _ => Standing::Ended(Status::Completed),
            });
        let mapping = mapping.expect("it fits");
        ["middle", "reads", "lists"]
            .map(|name| mapping.nodes[definition.find(name).expect("a node") as usize])
            .map(|mapped| (mapped.fate, mapped.is_changed))
    };
    let middle = (Fate::Kept, true);
    assert_eq!(stands(Standing::Waiting), [middle, (Fate::Waits, true), (Fate::Waits, true)]);
    assert_eq!(stands(Standing::Ended(Status::Skipped)), [middle, (Fate::Again, true), (Fate::Again, true)]);
    assert_eq!(stands(Standing::AtWork), [middle, (Fate::Finishes, true), (Fate::Finishes, true)]);
    assert_eq!(stands(Standing::Parts)[2], (Fate::Refused, true), "its list would be another one");
}

#[test]
fn a_name_that_means_another_node_is_a_change() {
    let text = "{version: 1, tasks: {a: {run: a}, b: {run: b}, c: {run: 'c ${{ tasks.a.outputs.n }}', needs: [a, b]}}}";
    let definition = read(text);
    let nothing = Value::Null;
    let change = Change { old: &definition, old_inputs: &nothing, new: &definition, new_inputs: &nothing };
    let wish = Wish { restart_from: &[], restart: false };
    let swapped: Named = [("a".into(), Some("b".into())), ("b".into(), Some("a".into()))].into();
    let mapping = Mapping::new(change, &swapped, wish, |_| Standing::Waiting).expect("it fits");
    assert!(mapping.nodes[2].is_changed);
}
