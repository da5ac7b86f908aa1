//! Names that only so many may hold.

use super::*;
use crate::batch::{KeyLimit, KeyLimitRow, Rate};

fn keyed(names: &[&str]) -> NewTask {
    task(|_, spec| spec.concurrency_keys = names.iter().map(|name| (*name).to_owned()).collect())
}

impl Bench {
    fn configure(&mut self, name: &str, limit: u32, rate: Option<Rate>) -> Vec<Effect> {
        let row = KeyLimitRow { name: name.into(), limit: Some(KeyLimit { limit, rate }) };
        let (reply, effects) = self.ask(Request::ConfigureKey(row));
        assert_eq!(reply, Ok(Answer::Done));
        effects
    }
}

#[test]
fn a_key_is_handed_on_in_the_step_that_frees_it() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 4, vec![]);
    let effects = bench.submit(vec![keyed(&["db"]), keyed(&["db"]), keyed(&["other"]), plain()]);
    // The second waits for the first; the others do not.
    let given = assigned(&effects);
    let tasks: Vec<u64> = given.iter().map(|(_, key)| key.task.0).collect();
    assert_eq!(tasks, [1, 3, 4]);
    let why = bench.kernel.why(TaskId(2), bench.now()).expect("live");
    assert_eq!(
        (why.reasons[0].code, &*why.reasons[0].held_by),
        ("concurrency_key", &["task:1".to_owned()][..])
    );
    let effects = bench.report(session, key(1, 1, 1), finished(End::Completed));
    assert_eq!(assigned(&effects), [(session, key(2, 1, 1))]);
}

#[test]
fn all_keys_or_none_and_as_many_as_are_allowed() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 9, vec![]);
    bench.configure("gpu", 2, None);
    let effects =
        bench.submit(vec![keyed(&["gpu"]), keyed(&["gpu", "db"]), keyed(&["db", "gpu"]), keyed(&["db"])]);
    let tasks: Vec<u64> = assigned(&effects).iter().map(|(_, key)| key.task.0).collect();
    assert_eq!(tasks, [1, 2]);
    let effects = bench.report(session, key(2, 1, 1), finished(End::Completed));
    assert_eq!(assigned(&effects), [(session, key(3, 1, 1))]);
    let effects = bench.configure("db", 5, None);
    assert_eq!(assigned(&effects), [(session, key(4, 1, 1))]);
}

#[test]
fn a_lost_worker_gives_its_keys_back_and_a_restart_keeps_them() {
    let mut bench = Bench::new();
    bench.hello("w1", 1, 1, vec![]);
    bench.submit(vec![keyed(&["db"]), keyed(&["db"])]);
    bench.restart();
    let (session, effects) = bench.hello("w2", 2, 4, vec![]);
    assert!(assigned(&effects).is_empty(), "the first may still hold it");
    bench.now_ms += 20_000;
    bench.step(Input::Heard { session });
    let effects = bench.wait(0);
    assert_eq!(assigned(&effects).len(), 1, "{effects:?}");
}

#[test]
fn a_rate_lets_so_many_begin_in_a_time() {
    let mut bench = Bench::new();
    let (session, _) = bench.hello("w1", 1, 9, vec![]);
    bench.configure("api", 9, Some(Rate { count: 2, per_ms: 1_000 }));
    let effects = bench.submit((0..5).map(|_| keyed(&["api"])).collect());
    assert_eq!(assigned(&effects).len(), 2);
    bench.step(Input::Heard { session });
    assert!(assigned(&bench.wait(999)).is_empty());
    let why = bench.kernel.why(TaskId(3), bench.now()).expect("live");
    assert_eq!(why.reasons[0].code, "rate");
    assert_eq!(assigned(&bench.wait(1)).len(), 2);
    assert_eq!(assigned(&bench.wait(1_000)).len(), 1);
}
