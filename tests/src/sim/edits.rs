//! Other workflows for runs that go on, drawn at random: files as people might change them.

use std::sync::Arc;

use agentflow_core::ids::RunId;
use agentflow_core::kernel::{PreparedRun, Request, UpgradeRun};
use agentflow_core::run::mapping::Named;
use serde_json::{Value, json};

use super::random::Random;
use super::upgraded::Asked;
use super::workflows::Sent;
use super::world::World;

impl World {
    /// Another workflow for some run, if one can be made that says something sensible.
    pub(super) fn run_upgrade(&mut self) -> Option<Request> {
        let alone = |row: &&agentflow_core::batch::RunRow| row.birth.parent.is_none();
        let live: Vec<RunId> = self.store.ties.live_runs().filter(alone).map(|row| row.id).collect();
        let all: Vec<RunId> = self.store.ties.runs.values().filter(alone).map(|row| row.id).collect();
        let run = self.random.pick(&live).filter(|_| self.random.chance(700));
        let run = run.or_else(|| self.random.pick(&all))?;
        let row = self.store.ties.runs.get(&run)?;
        let (sent, from) = (self.store.runs.files.get(&row.birth.name)?.clone(), row.state.version);
        let number = self.clients.next_submission();
        let (sent, map) = edited(&mut self.random, sent, number);
        let definition = sent.read().ok()?;
        let names: Vec<Box<str>> = definition.nodes.iter().map(|node| node.name.clone()).collect();
        let from_one = self.random.chance(300).then(|| self.random.below(names.len()));
        let restart_from = from_one.and_then(|at| names.get(at).cloned()).into_iter().collect::<Vec<_>>();
        let restart = self.random.chance(500);
        let inputs = sent.inputs.clone();
        let prepared = PreparedRun::new(definition);
        let asked = Asked {
            definition: Arc::clone(&prepared.definition),
            map: map.clone(),
            restart_from: restart_from.clone(),
            restart,
            sent: Some(sent),
        };
        self.store.runs.upgrades.insert((run, prepared.hash), asked);
        let (reason, author) = ("another".into(), "".into());
        let upgrade = UpgradeRun { run, from, prepared, inputs, map, restart_from, restart, reason, author };
        Some(Request::UpgradeRun(Box::new(upgrade)))
    }
}

/// The file with a few changes; and which nodes have other names.
fn edited(random: &mut Random, mut sent: Sent, number: u64) -> (Sent, Named) {
    let mut map = Named::new();
    for _ in 0..random.between(1, 3) {
        edit(random, &mut sent, number, &mut map);
    }
    // No two are the same.
    sent.file["vars"]["edit"] = json!(number);
    (sent, map)
}

fn edit(random: &mut Random, sent: &mut Sent, number: u64, map: &mut Named) {
    let Some(tasks) = sent.file["tasks"].as_array_mut() else { return };
    if tasks.is_empty() {
        return;
    }
    let (at, before) = (random.below(tasks.len()), random.below(tasks.len()));
    let name = |task: &Value| task["name"].as_str().unwrap_or_default().to_owned();
    match random.below(7) {
        0 | 1 => tasks[at]["env"] = json!({"EDIT": number.to_string()}),
        2 => drop(tasks.remove(at)),
        3 => {
            let needs = if random.chance(500) { json!([name(&tasks[before])]) } else { json!([]) };
            let task = json!({"name": format!("e{number}"), "kind": "noop", "needs": needs});
            tasks.insert(at, task);
        }
        4 => {
            let (first, last) = (at.min(before), at.max(before));
            let need = json!(name(&tasks[first]));
            match tasks[last]["needs"].as_array_mut() {
                Some(needs) if first < last => needs.push(need),
                _ if first < last => tasks[last]["needs"] = json!([need]),
                _ => {}
            }
        }
        5 => sent.file["vars"]["flag"] = json!(random.chance(500)),
        _ => {
            let (old, new) = (name(&tasks[at]), format!("r{number}"));
            let text = sent.file.to_string();
            let text = text.replace(&format!("\"{old}\""), &format!("\"{new}\""));
            let text = text.replace(&format!("tasks.{old}."), &format!("tasks.{new}."));
            let Ok(file) = serde_json::from_str(&text) else { return };
            sent.file = file;
            // It may have got another name by this edit already.
            let was = map.remove(old.as_str()).flatten().unwrap_or_else(|| old.into());
            map.insert(new.into(), Some(was));
        }
    }
}
