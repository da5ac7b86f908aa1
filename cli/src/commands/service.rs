//! `health` and `stats`.

use agentflow_protocol::api::{Health, Stats};

use crate::client::Client;
use crate::error::{Error, exit};
use crate::output::{Output, span};

pub(super) fn health(client: &Client, output: Output) -> Result<u8, Error> {
    let health: Health = client.get("/health")?;
    if output.json {
        output.json(&health)?;
    } else {
        output.fields(&[
            ("master", client.address()),
            ("status", health.status.clone()),
            ("version", health.version.clone()),
            ("mode", health.mode.clone()),
            ("up", uptime(health.uptime)),
        ])?;
    }
    Ok(if health.status == "ok" { exit::DONE } else { exit::FAILED })
}

pub(super) fn stats(client: &Client, output: Output) -> Result<u8, Error> {
    let stats: Stats = client.get("/api/v2/stats")?;
    if output.json {
        output.json(&stats)?;
        return Ok(exit::DONE);
    }
    let (tasks, workers) = (&stats.tasks, &stats.workers);
    output.fields(&[
        ("blocked", tasks.blocked.to_string()),
        ("pending", tasks.pending.to_string()),
        ("running", tasks.running.to_string()),
        ("completed", tasks.completed.to_string()),
        ("failed", tasks.failed.to_string()),
        ("cancelled", tasks.cancelled.to_string()),
        ("skipped", tasks.skipped.to_string()),
        (
            "workers",
            format!("{} online, {} draining, {} offline", workers.online, workers.draining, workers.offline),
        ),
        ("slots", format!("{} of {} in use", workers.slots_used, workers.slots)),
        ("locks", format!("{} held, {} waiting", stats.locks.held, stats.locks.waiting)),
        ("events", stats.head.to_string()),
        ("up", uptime(stats.uptime_s)),
    ])?;
    Ok(exit::DONE)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a display; clamped")]
fn uptime(seconds: f64) -> String {
    span(seconds.clamp(0.0, 1e15) as u64)
}
