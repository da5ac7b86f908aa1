//! The run of fifty nodes gets another workflow at any of its commits, and its master may die at any
//! other one: whatever the moments, what had ended stays, what was at work finishes as it began, and
//! everything else is as if the run had begun with the other workflow.
//!
//! Each end is certain under both workflows, and those nodes that differ leave the same; so each node
//! ends as in an undisturbed run of one of the two, and the moment says of which.

use std::sync::Arc;

use agentflow_core::ids::RunId;
use agentflow_core::kernel::{LoadedRun, PreparedRun, Request, UpgradeRun};
use agentflow_core::rejection::Rejection;
use agentflow_core::run::mapping::Named;
use agentflow_workflow::Definition;
use serde_json::{Value, json};

use super::crashes::{Ending, Moment, Small, definition, run_of};
use super::fifty;
use super::random::Random;
use super::store::Store;
use super::ties::read_back;
use super::upgraded::Asked;

/// Another workflow for the run.
#[derive(Clone, Debug)]
pub(super) struct Other {
    definition: Arc<Definition>,
    map: Named,
    restart_from: Vec<Box<str>>,
    restart: bool,
    /// It is asked for after that many commits.
    at: u64,
}

/// When and how the run gets its other workflow.
#[derive(Clone, Copy, Debug)]
pub struct Replacement {
    /// After that many commits.
    pub at: u64,
    /// Whether what is at work on something else begins anew.
    pub restart: bool,
    /// Whether the chain runs again from its second node.
    pub again: bool,
}

impl Replacement {
    /// One at a random moment of a run of so many commits, and a random moment at which the master dies.
    #[must_use]
    pub fn at_random(seed: u64, commits: u64) -> (Self, (u64, Moment)) {
        let mut random = Random::new(seed);
        let with = Self {
            at: random.between(1, commits),
            restart: random.below(2) == 0,
            again: random.below(2) == 0,
        };
        let moment = [Moment::Decided, Moment::Committed, Moment::Told][random.below(3)];
        (with, (random.between(1, commits + 20), moment))
    }
}

/// Nodes that do the same in another way.
const CHANGED: [&str; 14] = [
    "c2",
    "c3",
    "c4",
    "c6",
    "f0",
    "f1",
    "f2",
    "each",
    "each-flaky",
    "loop",
    "bad",
    "asked",
    "no-body-handled",
    "after-children",
];

/// Old names and new ones.
const RENAMED: [(&str, &str); 2] = [("c5", "k5"), ("f7", "g7")];

/// The other file: nodes that do the same in another way, have another name, come after more, are new,
/// or are gone.
fn other_file() -> Result<String, String> {
    let mut text = fifty::file();
    for (old, new) in RENAMED {
        text = text.replace(&format!("\"{old}\""), &format!("\"{new}\""));
        text = text.replace(&format!("tasks.{old}."), &format!("tasks.{new}."));
    }
    let mut file: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let tasks = file["tasks"].as_array_mut().ok_or("no tasks")?;
    tasks.retain(|task| task["name"] != "apart");
    for task in &mut *tasks {
        let name = task["name"].as_str().unwrap_or_default().to_owned();
        if CHANGED.contains(&&*name) {
            task["env"] = json!({"VERSION": "2"});
        }
        match &*name {
            "f9" => task["needs"] = json!(["start", "c1"]),
            "asked" => task["needs"] = json!(["ask", "extra"]),
            _ => {}
        }
    }
    tasks.insert(
        0,
        json!({"name": "extra", "needs": "c8", "run": r#"give {"n": ${{ tasks.c8.outputs.n }}}"#}),
    );
    tasks.push(json!({
        "name": "rounds", "needs": "loop", "run": r#"give {"r": ${{ tasks.loop.outputs.round }}}"#,
    }));
    Ok(file.to_string())
}

/// An undisturbed run of the other workflow.
///
/// # Errors
/// What was violated on the way.
pub fn run_of_the_other() -> Result<Ending, String> {
    run_of(definition(&other_file()?)?, None, None)
}

/// Runs the workflow of fifty nodes, which is replaced by the other one; the master may die.
///
/// # Errors
/// What was violated on the way.
pub fn upgraded_run_of_fifty(with: Replacement, crash: Option<(u64, Moment)>) -> Result<Ending, String> {
    let map = RENAMED.iter().map(|(old, new)| ((*new).into(), Some((*old).into()))).collect();
    let other = Other {
        definition: Arc::new(definition(&other_file()?)?),
        map,
        restart_from: if with.again { vec!["c2".into()] } else { Vec::new() },
        restart: with.restart,
        at: with.at,
    };
    run_of(definition(&fifty::file())?, crash, Some(other))
}

/// The name that a node had, by the path that it has.
#[must_use]
pub fn old_path(path: &str) -> String {
    let (first, rest) = path.split_at(path.find(['/', '[']).unwrap_or(path.len()));
    let old = RENAMED.iter().find(|(_, new)| *new == first).map_or(first, |(old, _)| old);
    format!("{old}{rest}")
}

impl Small {
    /// Asks for the other workflow when its time has come. False when there is nothing to ask.
    pub(super) fn is_time_for_another(&mut self) -> Result<bool, String> {
        let Some(other) = self.other.clone().filter(|other| self.commits >= other.at) else {
            return Ok(false);
        };
        let Some(run) = self.store.ties.runs.get(&RunId(1)) else { return Ok(false) };
        if run.state.version > 1 {
            self.other = None;
            return Ok(false);
        }
        let Other { definition, map, restart_from, restart, .. } = other;
        let asked = Asked {
            definition: Arc::clone(&definition),
            map: map.clone(),
            restart_from: restart_from.clone(),
            restart,
            sent: None,
        };
        let prepared = PreparedRun::new((*definition).clone());
        self.store.runs.upgrades.insert((RunId(1), prepared.hash), asked);
        let before = self.commits;
        self.ask(Request::UpgradeRun(Box::new(UpgradeRun {
            run: RunId(1),
            from: 1,
            prepared,
            inputs: Value::Null,
            map,
            restart_from,
            restart,
            reason: "another".into(),
            author: "".into(),
        })))?;
        Ok(self.commits > before)
    }

    /// Something is at work that would be lost: the client asks again later.
    pub(super) fn is_refused(&mut self, rejection: &Rejection) -> Result<(), String> {
        match rejection {
            Rejection::OtherWork(_) if self.other.is_some() => Ok(()),
            other => Err(format!("nobody expects {other}")),
        }
    }

    /// The run has ended before its other workflow came: it comes now. False when it is there.
    pub(super) fn wait_for_another(&mut self) -> Result<bool, String> {
        if let Some(other) = &mut self.other {
            other.at = 0;
        }
        self.is_time_for_another()
    }
}

impl Store {
    /// Answers [`agentflow_core::kernel::Effect::LoadRun`].
    pub(super) fn load_run(&self, run: RunId, also: &[Box<str>]) -> Option<LoadedRun> {
        let row = self.ties.runs.get(&run)?;
        let saved = read_back(self.ties.saved_run(row, &self.rows)?, also);
        let nodes = saved.settled.iter().map(|node| node.task);
        let nodes: Vec<_> = nodes.filter(|task| row.numbers.node_of(*task).is_some()).collect();
        Some(LoadedRun { tasks: self.load(&nodes), saved, memory: self.saved.of_run(run) })
    }
}
