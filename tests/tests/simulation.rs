//! The simulation with a fixed set of seeds, and proof that it sees what it is there to see.

use std::ops::RangeInclusive;

use agentflow_tests::sim::{
    Counted, Ending, Moment, Replacement, Sabotage, count_to, old_path, run, run_of_fifty, run_of_the_other,
    upgraded_run_of_fifty,
};

/// Happenings with faults in each story.
const STEPS: u64 = 1_500;

fn hold(seeds: RangeInclusive<u64>) {
    for seed in seeds {
        if let Err(failure) = run(seed, STEPS, Sabotage::None) {
            panic!("{failure}");
        }
    }
}

/// Has a bug in the world until it is seen in those words.
fn is_seen(sabotage: Sabotage, words: &str, within: u64) {
    let sees = |seed| run(seed, STEPS, sabotage).is_err_and(|failure| failure.what.contains(words));
    assert!((1..=within).any(sees), "{sabotage:?} was not seen within {within} seeds");
}

#[test]
fn the_kernel_holds_in_stories_1_to_300() {
    hold(1..=300);
}

#[test]
fn the_kernel_holds_in_stories_301_to_600() {
    hold(301..=600);
}

#[test]
fn a_story_repeats_to_the_letter() {
    assert_eq!(run(42, STEPS, Sabotage::None), run(42, STEPS, Sabotage::None));
}

#[test]
fn a_missing_fence_check_is_seen() {
    is_seen(Sabotage::StaleReports, "was taken for that of", 1_000);
}

#[test]
fn an_effect_before_its_commit_is_seen() {
    is_seen(Sabotage::EarlyEffects, "left before its decision was durable", 100);
}

#[test]
fn a_forgotten_batch_is_seen() {
    is_seen(Sabotage::ForgetBatch, "was acknowledged; its row: None", 100);
}

#[test]
fn a_lost_edge_of_a_workflow_is_seen() {
    is_seen(Sabotage::DropEdge, "began before", 100);
}

#[test]
fn a_lost_checkpoint_is_seen() {
    is_seen(Sabotage::LoseCheckpoint, "was acknowledged and is lost", 100);
}

#[test]
fn an_attempt_that_begins_at_the_second_newest_checkpoint_is_seen() {
    is_seen(Sabotage::OldCheckpoint, "left; the attempt was to begin as", 100);
}

/// No step is done again whose saving was acknowledged: that is checked at every step.
#[test]
fn a_script_that_is_killed_fifty_times_counts_to_a_thousand() {
    let mut all = Counted::default();
    for seed in 1..=300 {
        let counted = count_to(1_000, 50, seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        assert!(counted.attempts > 10 && counted.masters > 10, "seed {seed}: {counted:?}");
        assert_eq!(counted.done, 1_000 + counted.again, "seed {seed}: {counted:?}");
        all.again += counted.again;
    }
    // It loses what nobody acknowledged: without that the deaths would prove nothing.
    assert!(all.again > 1_000, "{all:?}");
}

fn fifty(crash: Option<(u64, Moment)>) -> Ending {
    run_of_fifty(crash).unwrap_or_else(|what| panic!("{crash:?}: {what}"))
}

/// The master dies at that moment of every commit in turn; the run must end as without that.
fn ends_the_same(moment: Moment) {
    let undisturbed = fifty(None);
    assert_eq!(undisturbed.run, "completed");
    assert!(undisturbed.commits > 50, "{}", undisturbed.commits);
    for commit in 1..=undisturbed.commits {
        let ending = fifty(Some((commit, moment)));
        assert_eq!(ending.run, undisturbed.run, "{moment:?} at commit {commit}");
        for (name, node) in &undisturbed.nodes {
            assert_eq!(ending.nodes.get(name), Some(node), "{name}, {moment:?} at commit {commit}");
        }
        assert_eq!(ending.nodes.len(), undisturbed.nodes.len(), "{moment:?} at commit {commit}");
    }
}

#[test]
fn a_run_ends_the_same_if_the_master_dies_before_any_commit() {
    ends_the_same(Moment::Decided);
}

#[test]
fn a_run_ends_the_same_if_the_master_dies_before_it_tells_of_any_commit() {
    ends_the_same(Moment::Committed);
}

#[test]
fn a_run_ends_the_same_if_the_master_dies_after_any_commit() {
    ends_the_same(Moment::Told);
}

/// The run is given another workflow at every one of its commits. Each node ends as in a run of the old
/// workflow or of the new one; which of the two it must be is checked at every step on the way.
fn is_upgraded(restart: bool, again: bool) {
    let (old, new) = (fifty(None), run_of_the_other().expect("a run"));
    let (mut as_old, mut as_new) = (0, 0);
    for at in 1..=old.commits + 1 {
        let with = Replacement { at, restart, again };
        let ending = upgraded_run_of_fifty(with, None).unwrap_or_else(|what| panic!("{with:?}: {what}"));
        assert_eq!(ending.run, new.run, "{with:?}");
        let names: Vec<&String> = ending.nodes.keys().collect();
        assert_eq!(names, new.nodes.keys().collect::<Vec<_>>(), "{with:?}");
        for (name, node) in &ending.nodes {
            let (before, after) = (old.nodes.get(&old_path(name)), &new.nodes[name]);
            assert!(node == after || Some(node) == before, "{with:?}: {name} is {node}, not {after}");
            as_new += u32::from(Some(node) != before);
            as_old += u32::from(node != after);
        }
    }
    // Both kinds must be there, or the moments would prove nothing.
    assert!(as_old > 100 && as_new > 100, "{as_old} {as_new}");
}

#[test]
fn a_run_of_fifty_that_is_upgraded_at_any_moment_ends_as_the_mapping_says() {
    is_upgraded(false, false);
}

#[test]
fn an_upgrade_at_any_moment_may_restart_what_is_at_work() {
    is_upgraded(true, false);
}

#[test]
fn an_upgrade_at_any_moment_may_run_a_part_again() {
    is_upgraded(true, true);
}

/// The same, and the master dies at some other moment.
#[test]
fn an_upgraded_run_ends_the_same_whenever_its_master_dies() {
    let (old, new) = (fifty(None), run_of_the_other().expect("a run"));
    for seed in 0..600_u64 {
        let (with, crash) = Replacement::at_random(seed, old.commits);
        let what = format!("seed {seed}, {with:?}, crash {crash:?}");
        let ending =
            upgraded_run_of_fifty(with, Some(crash)).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(ending.run, new.run, "{what}");
        for (name, node) in &ending.nodes {
            let (before, after) = (old.nodes.get(&old_path(name)), new.nodes.get(name));
            assert!(Some(node) == after || Some(node) == before, "{what}: {name} is {node}, not {after:?}");
        }
        assert_eq!(ending.nodes.len(), new.nodes.len(), "{what}");
    }
}
