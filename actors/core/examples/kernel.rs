//! How fast the kernel alone decides, and how much memory a queued task takes.
//!
//! `cargo run --release -p agentflow-core --example kernel -- [TASKS]`
//!
//! Durability class: none; the store is left out.

use std::sync::Arc;
use std::time::Instant;

use agentflow_core::attempt::{AttemptKey, End, Finished, Hello, Report, ReportBody};
use agentflow_core::batch::Outcome;
use agentflow_core::ids::{BootId, Epoch, ReplyTo, SessionEpoch};
use agentflow_core::kernel::{Effect, Input, Kernel, NewTask, Output, PreparedSpec, Request, Settings};
use agentflow_core::spec::{Payload, Resources, Spec};
use agentflow_core::time::{Mono, Now, Wall};

const SUBMISSION: usize = 1_000;

fn now(us: i64) -> Now {
    Now { mono: Mono(us), wall: Wall(us) }
}

/// Resident bytes of this process, from `/proc/self/statm`.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4_096
}

/// A step made durable at once: the keys that were handed out.
fn step(kernel: &mut Kernel, input: Input, us: i64) -> Vec<AttemptKey> {
    let Output { batch, mut effects, .. } = kernel.step(input, now(us));
    if let Some(batch) = batch {
        effects.extend(kernel.step(Input::Committed(batch.decision), now(us)).effects);
    }
    let handed = effects.into_iter().filter_map(|effect| match effect {
        Effect::Assign { tasks, .. } => Some(tasks),
        _ => None,
    });
    handed.flatten().map(|task| task.key).collect()
}

fn main() {
    let tasks: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let mut kernel = Kernel::new(Settings::default(), Epoch(1), Arc::new(()));
    let spec = Arc::new(PreparedSpec::new(Spec::new(Payload::Noop)));
    let task = || NewTask {
        title: "noop".into(),
        group: "default".into(),
        priority: 50,
        spec: Arc::clone(&spec),
        not_before: None,
        hold: false,
        needs: Vec::new(),
    };
    let before = resident();
    let begun = Instant::now();
    let mut us = 0;
    for _ in 0..tasks / SUBMISSION {
        us += 1;
        let request = Request::Submit { tasks: (0..SUBMISSION).map(|_| task()).collect(), key: None };
        step(&mut kernel, Input::Request { reply: ReplyTo(1), request }, us);
    }
    let per_second = |n: usize, begun: Instant| (n as f64 / begun.elapsed().as_secs_f64()) as u64;
    println!("submitted: {} tasks/s", per_second(tasks, begun));
    println!("resident: {} bytes per queued task", (resident() - before) / tasks.max(1));

    let hello = Hello {
        version: 2,
        worker: "w1".into(),
        boot: BootId(1),
        groups: vec!["default".into()],
        labels: std::collections::BTreeMap::new(),
        resources: Resources::default(),
        slots: 2,
        prefetch: 64,
        handlers: vec![],
        sandboxes: vec![],
        running: vec![],
        draining: false,
        at: Wall(0),
    };
    let session = SessionEpoch(1);
    let begun = Instant::now();
    let mut held = step(&mut kernel, Input::Hello { session, hello: Box::new(hello) }, us);
    let (mut done, mut no) = (0, 0);
    while !held.is_empty() {
        us += 1;
        let finished = |key| {
            no += 1;
            let body = ReportBody::Finished(Box::new(Finished {
                started_at: Wall(us),
                finished_at: Wall(us),
                end: End::Completed,
                outcome: Outcome::default(),
                log_bytes: 0,
                log_cut: 0,
            }));
            Report { no, key, body }
        };
        let reports: Vec<Report> = held.drain(..).take(32).map(finished).collect();
        done += reports.len();
        held = step(&mut kernel, Input::Reports { session, reports }, us);
    }
    println!("settled: {done} tasks at {} tasks/s", per_second(done, begun));
}
