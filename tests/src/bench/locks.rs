//! Locks that nobody else wants, many in one request and one by one; and one that is handed on.

use std::borrow::Cow;
use std::time::Instant;

use serde::Deserialize;
use serde_json::json;

use super::figure::{Figure, median, percentile, range};
use super::line::{Line, Reply, request};
use super::load::{self, Load};
use super::stage::{Stage, time_ms};
use super::{Database, Scale};
use crate::harness::{Failure, wait_until};

/// Connections that ask for many at once: while one is read, another is committed.
const BATCH_CONNECTIONS: usize = 4;

/// Clients that ask for one at a time.
const CLIENTS: usize = 32;

/// One-row commits around each round.
const UNITS: usize = 100;

const REPO: &str = "example.com/team/app";

/// What is needed of a lock to give it back.
#[derive(Deserialize)]
struct Held {
    id: String,
    fence: u64,
}

/// `POST /locks {requests}` and `POST /locks/release` in turn.
pub(super) fn batches(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let mut stage = Stage::open(database)?;
    let asks: Vec<Vec<u8>> = (0..BATCH_CONNECTIONS).map(|client| ask_for_many(client, scale)).collect();
    let port = stage.scene.port();
    let round = |batches| take_turns(port, &asks, batches, give_back_many, 200);
    round(BATCH_CONNECTIONS)?;
    let count = (scale.lock_batch * scale.lock_batches) as f64;
    let (mut rates, mut units) = (vec![], vec![]);
    for _ in 0..scale.rounds {
        units.push(stage.commit_p50_ms(UNITS)?);
        rates.push(count / round(scale.lock_batches)?.elapsed.as_secs_f64());
    }
    let rate = median(&rates);
    Ok(vec![
        Figure::new("locks taken and given back, many in one request", rate, "pairs/s")
            .ratio(rate * median(&units) / 1e3, "one-row FULL commits/s")
            .target("≥ 10,000/s", rate >= 10_000.0)
            .note(format!(
                "rounds {}; {} locks of one file in each request, {BATCH_CONNECTIONS} connections of one thread on the same cores, each answer read and each lock given back by its id and fence",
                range(&rates),
                scale.lock_batch,
            )),
    ])
}

/// Each client takes what it asks for and gives it back, so often in all.
fn take_turns(
    port: u16,
    asks: &[Vec<u8>],
    times: usize,
    give_back: impl Fn(&Reply) -> Result<Vec<u8>, Failure>,
    given_back: u16,
) -> Result<Load, Failure> {
    let mut begun = 0;
    let mut holds = vec![false; asks.len()];
    load::converse(port, asks.len().min(times), |client, reply| {
        if let Some(reply) = reply {
            holds[client] = !holds[client];
            if holds[client] {
                return Ok(Some(Cow::Owned(give_back(&reply)?)));
            }
            reply.expect(given_back)?;
        }
        begun += 1;
        Ok((begun <= times).then(|| Cow::Borrowed(&asks[client][..])))
    })
}

fn ask_for_many(client: usize, scale: Scale) -> Vec<u8> {
    let one = |number: usize| {
        json!({ "repo": REPO, "owner": format!("client-{client}"), "ttl_ms": 60_000,
                "paths": [format!("src/{client}/module-{}/file-{number}.rs", number % 20)] })
    };
    let requests: Vec<_> = (0..scale.lock_batch).map(one).collect();
    request("POST", "/api/v2/locks", Some(&json!({ "requests": requests })))
}

fn give_back_many(reply: &Reply) -> Result<Vec<u8>, Failure> {
    #[derive(Deserialize)]
    struct Results {
        results: Vec<Granted>,
    }
    #[derive(Deserialize)]
    struct Granted {
        lock: Held,
    }
    reply.expect(201)?;
    let results: Results = serde_json::from_slice(&reply.body)?;
    let locks: Vec<_> =
        results.results.iter().map(|one| json!({ "id": one.lock.id, "fence": one.lock.fence })).collect();
    Ok(request("POST", "/api/v2/locks/release", Some(&json!({ "locks": locks }))))
}

/// One lock per request, and one request to give it back.
pub(super) fn singles(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let mut stage = Stage::open(database)?;
    let port = stage.scene.port();
    let asks: Vec<Vec<u8>> = (0..CLIENTS).map(|client| ask(&format!("src/{client}.rs"), client, 0)).collect();
    let round = |pairs| take_turns(port, &asks, pairs, give_back, 204);
    round(scale.lock_singles / 10)?;
    let (mut rates, mut units, mut p50, mut p99) = (vec![], vec![], vec![], vec![]);
    for _ in 0..scale.rounds {
        units.push(stage.commit_p50_ms(UNITS)?);
        let load = round(scale.lock_singles)?;
        rates.push(load.latencies_ms.len() as f64 / load.elapsed.as_secs_f64());
        p50.push(percentile(&load.latencies_ms, 50.0));
        p99.push(percentile(&load.latencies_ms, 99.0));
    }
    let rate = median(&rates);
    Ok(vec![
        Figure::new("locks taken or given back, one by one from 32 clients", rate, "requests/s")
            .ratio(rate * median(&units) / 1e3, "one-row FULL commits/s")
            .target("≥ 2,000/s", rate >= 2_000.0)
            .note(format!(
                "rounds {}; half of them take one and half give it back; answered after p50 {:.1} ms, p99 {:.1} ms",
                range(&rates),
                median(&p50),
                median(&p99),
            )),
    ])
}

fn ask(path: &str, client: usize, wait_ms: u64) -> Vec<u8> {
    let body = json!({ "repo": REPO, "owner": format!("client-{client}"), "ttl_ms": 60_000,
                       "paths": [path], "wait_ms": wait_ms });
    request("POST", "/api/v2/locks", Some(&body))
}

fn give_back(reply: &Reply) -> Result<Vec<u8>, Failure> {
    reply.expect(201)?;
    let Held { id, fence } = serde_json::from_slice(&reply.body)?;
    Ok(request("DELETE", &format!("/api/v2/locks/{id}?fence={fence}"), None))
}

/// From sending that a lock is given back to the answer of the one who waits for it.
pub(super) fn handoff(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let mut stage = Stage::open(database)?;
    let mut lines = [Line::open(stage.scene.port())?, Line::open(stage.scene.port())?];
    let asks = [ask("src/a.rs", 0, 60_000), ask("src/a.rs", 1, 60_000)];
    let mut held = lines[0].ask(&asks[0])?;
    let (mut times, mut units) = (vec![], vec![]);
    for round in 0..scale.lock_handoffs {
        let (holder, waiter) = (round % 2, (round + 1) % 2);
        lines[waiter].begin(&asks[waiter])?;
        wait_until("somebody waits", super::PATIENCE, || {
            stage.client().metric("agentflow_locks_waiting").is_ok_and(|count| count > 0.0)
        })?;
        units.push(time_ms(|| Ok(stage.unit.commit()?))?);
        let give_back = give_back(&held)?;
        let begun = Instant::now();
        lines[holder].begin(&give_back)?;
        held = lines[waiter].wait(&asks[waiter])?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        lines[holder].wait(&give_back)?.expect(204)?;
    }
    let (p99, unit) = (percentile(&times, 99.0), percentile(&units, 99.0));
    Ok(vec![
        Figure::new("a lock handed on: given back by one, answered to the next, p99", p99, "ms")
            .ratio(p99 / unit, "the p99 of one-row FULL commits")
            .target(format!("≤ 5 ms + commit = {:.2} ms", 5.0 + unit), p99 <= 5.0 + unit)
            .note(format!(
                "p50 {:.2} ms; one-row FULL commit: p50 {:.2}, p99 {unit:.2} ms, taken in turn",
                median(&times),
                median(&units),
            )),
    ])
}
