//! `keys`: how many attempts may hold a concurrency key, and how often.

use agentflow_protocol::keys::{KeyBody, KeyView, Keys, RateBody};

use crate::args::{KeysAct, SetKey};
use crate::client::{Client, encode};
use crate::error::{Error, exit};
use crate::output::{Cell, Output};

/// Tasks named in one row of the table.
const HOLDERS: usize = 5;

pub(super) fn keys(act: Option<&KeysAct>, client: &Client, output: Output) -> Result<u8, Error> {
    match act {
        None => list(&client.get("/api/v2/keys")?, output),
        Some(KeysAct::Set(set)) => {
            let key: KeyView = client.put(&path(&set.key.name), &body(set))?;
            if output.json {
                output.json(&key)?;
            } else {
                output.line(format_args!("{}  {}", key.name, allowed(&key)))?;
            }
            Ok(exit::DONE)
        }
        Some(KeysAct::Remove(key)) => {
            let rest: Keys = client.delete(&path(&key.name))?;
            if output.json {
                output.json(&rest)?;
            }
            Ok(exit::DONE)
        }
    }
}

fn path(name: &str) -> String {
    format!("/api/v2/keys/{}", encode(name))
}

fn body(set: &SetKey) -> KeyBody {
    let rate = set
        .rate
        .map(|(count, time)| RateBody { count, per_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX) });
    KeyBody { limit: Some(set.limit), rate }
}

fn list(answer: &Keys, output: Output) -> Result<u8, Error> {
    if output.json {
        output.json(answer)?;
        return Ok(exit::DONE);
    }
    let rows: Vec<Vec<Cell>> = answer
        .keys
        .iter()
        .map(|key| {
            let mut holders: Vec<String> = key.holders.iter().take(HOLDERS).map(u64::to_string).collect();
            if key.held as usize > holders.len() {
                holders.push("…".to_owned());
            }
            vec![
                key.name.clone().into(),
                format!("{}/{}", key.held, key.limit).into(),
                key.rate.map_or_else(|| "-".to_owned(), rate).into(),
                key.waiting.to_string().into(),
                if key.configured { "yes" } else { "no" }.into(),
                holders.join(" ").into(),
            ]
        })
        .collect();
    output.table(&["KEY", "HELD", "RATE", "WAITING", "SET", "TASKS"], &rows)?;
    if rows.is_empty() {
        eprintln!(
            "nobody uses a key: give a task concurrency_keys, or set one with `agentflow keys set KEY --limit N`"
        );
    }
    Ok(exit::DONE)
}

fn allowed(key: &KeyView) -> String {
    let rate = key.rate.map(|bound| format!(", {} may begin", rate(bound))).unwrap_or_default();
    format!("{} at once{rate}", key.limit)
}

/// As it is typed: `10/1m`.
fn rate(rate: RateBody) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let unit = UNITS.into_iter().find(|(ms, _)| rate.per_ms.is_multiple_of(*ms));
    let (ms, name) = unit.unwrap_or((1, "ms"));
    format!("{}/{}{name}", rate.count, rate.per_ms / ms)
}
