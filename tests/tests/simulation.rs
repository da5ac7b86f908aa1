//! The simulation with a fixed set of seeds, and proof that it sees what it is there to see.

use std::ops::RangeInclusive;

use agentflow_tests::sim::{Sabotage, run};

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
