//! One decision beside very many locks of the same repository: of the kernel alone, and as a client
//! sees it.

use std::sync::Arc;
use std::time::Instant;

use agentflow_core::ids::{Epoch, ReplyTo};
use agentflow_core::kernel::{
    Answer, Effect, Input, Kernel, LockRequest, Output, Reply, Request, Settings, Unlock,
};
use agentflow_core::lock::{LockMode, LockOwner, LockPath, PathLock, Repository};
use agentflow_core::time::{Mono, Now, Wall};
use serde_json::json;

use super::figure::{Figure, median, percentile};
use super::line::{Line, request};
use super::stage::Stage;
use super::{Database, Scale};
use crate::harness::Failure;

const REPO: &str = "example.com/team/app";

/// Files of one directory.
const DIRECTORY: usize = 100;

/// Decisions of each kind.
const DECISIONS: usize = 1_000;

/// Of so many locks of files, one is a pattern.
const FILES_PER_PATTERN: usize = 100;

/// What is asked for, and whether it is granted.
type Kind<'a> = (&'a str, &'a dyn Fn(usize) -> String, bool);

/// A kernel alone, whose batches are durable at once.
struct Alone {
    kernel: Kernel,
    us: i64,
}

impl Alone {
    fn new() -> Self {
        Self { kernel: Kernel::new(Settings::default(), Epoch(1), Arc::new(())), us: 0 }
    }

    /// One step and its answer; only the step is timed, in microseconds.
    fn ask(&mut self, asked: Request) -> Result<(Reply, f64), Failure> {
        self.us += 1;
        let now = Now { mono: Mono(self.us), wall: Wall(self.us) };
        let input = Input::Request { reply: ReplyTo(1), request: asked };
        let begun = Instant::now();
        let Output { batch, mut effects, .. } = self.kernel.step(input, now);
        let took = begun.elapsed().as_secs_f64() * 1e6;
        if let Some(batch) = batch {
            effects.extend(self.kernel.step(Input::Committed(batch.decision), now).effects);
        }
        let reply = effects.into_iter().find_map(|effect| match effect {
            Effect::Reply { reply, .. } => Some(reply),
            _ => None,
        });
        Ok((reply.ok_or("no answer")?, took))
    }

    fn lock(&mut self, path: &str, mode: LockMode) -> Result<(Reply, f64), Failure> {
        let want = LockRequest {
            repo: Repository::new(REPO)?,
            ignore_case: false,
            paths: Arc::new([PathLock { path: LockPath::new(path)?, mode }]),
            owner: LockOwner::Named("bench".into()),
            ttl_ms: None,
            reason: "".into(),
            priority: 50,
            key: None,
        };
        self.ask(Request::Lock { want: Box::new(want), wait_ms: 0 })
    }

    /// Locks that are granted and given back, or refused: the microseconds of each decision.
    fn decisions(&mut self, path: impl Fn(usize) -> String, granted: bool) -> Result<Vec<f64>, Failure> {
        let mut times = Vec::with_capacity(DECISIONS);
        for number in 0..DECISIONS {
            let path = path(number);
            let (reply, took) = self.lock(&path, LockMode::Write)?;
            times.push(took);
            match reply {
                Ok(Answer::Locked(row)) if granted => {
                    let unlock = Unlock { lock: row.birth.id, fence: None, owner: None };
                    self.ask(Request::Unlock(vec![unlock]))?.0.map_err(|no| format!("{path}: {no:?}"))?;
                }
                Err(_) if !granted => {}
                other => return Err(format!("{path}: {other:?}").into()),
            }
        }
        Ok(times)
    }
}

/// A file that is locked beside what is decided.
fn file(number: usize) -> String {
    format!("src/module-{}/file-{number}.rs", number / DIRECTORY)
}

/// A pattern that is locked: it meets none of the files, and all of them begin in the same directory.
fn pattern(number: usize) -> String {
    format!("gen/**/module-{number}/*.pb.rs")
}

pub(super) fn measure(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let mut figures = decide(scale)?;
    figures.push(as_seen(database, scale)?);
    Ok(figures)
}

/// The kernel's part.
fn decide(scale: Scale) -> Result<Vec<Figure>, Failure> {
    let mut alone = Alone::new();
    let free = |number: usize| format!("src/module-{}/new-{number}.rs", number % 1_000);
    let empty = alone.decisions(free, true)?;
    let patterns = scale.locked / FILES_PER_PATTERN;
    for path in (0..scale.locked).map(file).chain((0..patterns).map(pattern)) {
        alone.lock(&path, LockMode::Write)?.0.map_err(|no| format!("{path}: {no:?}"))?;
    }
    let held = |number: usize| file(number * 37 % scale.locked);
    let held_by_pattern = |number: usize| format!("gen/a/module-{}/b.pb.rs", number % patterns);
    let directory = |number: usize| format!("src/module-{}/**", number % (scale.locked / DIRECTORY));
    let kinds: [Kind<'_>; 8] = [
        ("a free file", &free, true),
        ("a held file", &held, false),
        ("a file that a pattern holds", &held_by_pattern, false),
        ("a free file beside patterns", &|number| format!("gen/a/module-{number}/b.rs"), true),
        ("a free pattern beside patterns", &|number| format!("gen/**/other-{number}/*.pb.rs"), true),
        ("a directory with locks in it", &directory, false),
        ("`**/*.md`, free", &|_| "**/*.md".to_owned(), true),
        ("`**/*.rs`, held", &|_| "**/*.rs".to_owned(), false),
    ];
    let mut figures = Vec::new();
    for (name, path, granted) in kinds {
        let times = alone.decisions(path, granted)?;
        let p99 = percentile(&times, 99.0);
        figures.push(
            Figure::new(
                &format!("{} files and {patterns} patterns held: {name}, p99", scale.locked),
                p99,
                "µs",
            )
            .ratio(p99 / percentile(&empty, 99.0), "a free file where nothing is held")
            .target("≤ 100 µs", p99 <= 100.0)
            .note(format!(
                "p50 {:.1} µs; {} by the kernel alone, without the store",
                median(&times),
                if granted { "granted" } else { "refused" }
            )),
        );
    }
    Ok(figures)
}

/// A request to a master that has as many.
fn as_seen(database: Database, scale: Scale) -> Result<Figure, Failure> {
    let stage = Stage::open(database)?;
    let mut line = Line::open(stage.scene.port())?;
    let free = take_and_give_back(&mut line, scale)?;
    let paths: Vec<String> =
        (0..scale.locked).map(file).chain((0..scale.locked / FILES_PER_PATTERN).map(pattern)).collect();
    for some in paths.chunks(1_000) {
        let one = |path: &String| json!({ "repo": REPO, "owner": "others", "ttl_ms": null, "paths": [path] });
        let requests: Vec<_> = some.iter().map(one).collect();
        let body = json!({ "requests": requests });
        line.ask(&request("POST", "/api/v2/locks", Some(&body)))?.expect(201)?;
    }
    let beside = take_and_give_back(&mut line, scale)?;
    let (p50, before) = (median(&beside), median(&free));
    Ok(Figure::new("the same as a client sees it: a free file, p50", p50, "ms")
        .ratio(p50 / before, "a free file where nothing is held")
        .note(format!("p99 {:.2} ms; where nothing is held: p50 {before:.2} ms", percentile(&beside, 99.0))))
}

/// Milliseconds of taking a lock that nobody else wants.
fn take_and_give_back(line: &mut Line, scale: Scale) -> Result<Vec<f64>, Failure> {
    let body = json!({ "repo": REPO, "owner": "bench", "paths": ["docs/a.md"] });
    let ask = request("POST", "/api/v2/locks", Some(&body));
    let give_back = request("DELETE", "/api/v2/locks?owner=bench", None);
    let mut times = Vec::new();
    for _ in 0..scale.lock_handoffs {
        let begun = Instant::now();
        line.ask(&ask)?.expect(201)?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        line.ask(&give_back)?.expect(200)?;
    }
    Ok(times)
}
