//! Workflows as people might write them, drawn at random, as JSON.
//!
//! Nodes are called `n0`, `n1`, … in the order of the file, and read values only of what they surely
//! come after. What a workflow says may still contradict itself (`needs` and `on_failure` of the same
//! task, by way of others): the reader refuses it, and another one is drawn.

use agentflow_protocol::workflow::WorkflowTasks;
use agentflow_workflow::{Definition, Diagnostics, read_text};
use serde_json::{Map, Value, json};

use super::random::Random;

/// Levels of workflows inside one another.
const LEVELS: u32 = 2;

/// How often a workflow is drawn that contradicts itself before a plain one is taken.
const DRAWS: u32 = 8;

/// A file with what it was given.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) file: Value,
    pub(super) vars: Map<String, Value>,
    pub(super) inputs: Value,
}

impl Sent {
    /// What it says.
    pub(super) fn read(&self) -> Result<Definition, Diagnostics> {
        let read = read_text(&self.file.to_string(), &WorkflowTasks)?;
        read.instantiate(&self.vars, &self.inputs)
    }
}

/// A random workflow of that name.
pub(super) fn new_run(random: &mut Random, name: &str) -> Result<(Sent, Definition), String> {
    let vars = Map::from_iter([("count".to_owned(), json!(random.below(4)))]);
    let inputs = json!({"size": random.below(5)});
    for _ in 0..DRAWS {
        let mut file = workflow(random, 0);
        file["name"] = json!(name);
        let sent = Sent { file, vars: vars.clone(), inputs: inputs.clone() };
        match sent.read() {
            Ok(definition) => return Ok((sent, definition)),
            Err(wrong) if wrong.to_string().contains("can never run") => {}
            Err(wrong) => return Err(format!("{} was refused: {wrong}", sent.file)),
        }
    }
    let file = json!({"version": 1, "name": name, "tasks": [{"name": "n0", "kind": "noop"}]});
    let sent = Sent { file, vars: Map::new(), inputs };
    let definition = sent.read().map_err(|wrong| wrong.to_string())?;
    Ok((sent, definition))
}

fn workflow(random: &mut Random, level: u32) -> Value {
    let modes = ["sequential", "parallel", "dag", "dag", "pipeline", "conditional"];
    let mode = random.pick(&modes).unwrap_or("dag");
    let most = if level == 0 { 12 } else { 4 };
    let count = random.below(most - 1) + 2;
    let tasks: Vec<Value> = (0..count).map(|at| Value::Object(node(random, at, mode, level))).collect();
    let vars = json!({"count": 1, "flag": random.chance(600), "items": [1, {"a": 2}], "from": 0});
    let mut file = json!({"version": 1, "mode": mode, "vars": vars, "tasks": tasks});
    if random.chance(400) {
        file["max_parallel"] = json!(random.between(1, 3));
    }
    if random.chance(200) {
        file["fail_fast"] = json!(true);
    }
    if mode == "sequential" && random.chance(400) {
        file["continue_on_failure"] = json!(true);
    }
    if mode == "pipeline" && random.chance(500) {
        file["items"] = random.pick(&[0, 1]).map_or(json!([]), |kind| match kind {
            0 => json!([1, "two", {"three": 3}]),
            _ => json!("${{ vars.items }}"),
        });
    }
    if random.chance(300) {
        file["defaults"] = json!({"env": {"FROM": "${{ run.name }}"}, "retry": {"max": 1, "backoff_ms": 20}});
    }
    file
}

fn node(random: &mut Random, at: usize, mode: &str, level: u32) -> Map<String, Value> {
    let mut task = Map::from_iter([("name".to_owned(), json!(format!("n{at}")))]);
    let is_chain = matches!(mode, "sequential" | "pipeline");
    let free = matches!(mode, "dag" | "conditional");
    let most = if free { random.below(4) } else { usize::from(random.chance(100)) };
    let mut needs: Vec<usize> = (0..most.min(at)).map(|_| random.below(at)).collect();
    needs.sort_unstable();
    needs.dedup();
    let failed = Some(random.below(at)).filter(|_| at > 0 && random.chance(if free { 150 } else { 60 }));
    let failed = failed.filter(|failed| !needs.contains(failed));
    if let Some(failed) = failed {
        task.insert("on_failure".to_owned(), json!([format!("n{failed}")]));
    }
    if !needs.is_empty() {
        let names: Vec<String> = needs.iter().map(|need| format!("n{need}")).collect();
        task.insert("needs".to_owned(), json!(names));
    }
    let before = if is_chain && at > 0 { Some(at - 1) } else { random.pick(&needs).or(failed) };
    if random.chance(if mode == "conditional" { 500 } else { 150 }) {
        task.insert("when".to_owned(), json!(condition(random, before)));
    }
    special(random, &mut task, before, level);
    task
}

/// A condition, on the outputs or the status of a node before if there is one.
fn condition(random: &mut Random, before: Option<usize>) -> String {
    let Some(n) = before.filter(|_| random.chance(800)) else {
        return random.pick(&["vars.flag", "vars.count < 3", "not vars.flag"]).unwrap_or("true").to_owned();
    };
    match random.below(6) {
        0 => format!("tasks.n{n}.status == 'completed'"),
        1 => format!("tasks.n{n}.status in ['failed', 'skipped']"),
        2 => format!("tasks.n{n}.outputs.n > 1"),
        3 => format!("tasks.n{n}.outputs.flag | default(true)"),
        _ => format!("(tasks.n{n}.outputs.n | default(2)) > 1"),
    }
}

/// What a node is: work, or one of the kinds that few are.
fn special(random: &mut Random, task: &mut Map<String, Value>, before: Option<usize>, level: u32) {
    let mut set = |key: &str, value: Value| task.insert(key.to_owned(), value);
    match random.below(20) {
        0..=2 => {
            let of_before = before.map(|n| format!("${{{{ tasks.n{n}.outputs.list | default([1, 2]) }}}}"));
            let list = of_before.filter(|_| random.chance(600)).map_or(json!([3, 1, 2]), Value::from);
            set("foreach", list);
            set("run", json!("each ${{ item }} at ${{ index }}"));
            if random.chance(500) {
                set("max_parallel", json!(random.between(1, 2)));
            }
            if random.chance(400) {
                set(
                    "collect",
                    json!({"got": "${{ self.outputs.n | default(item) }}", "as": "${{ self.status }}"}),
                );
            }
        }
        3..=4 => {
            let until = ["self.outputs.n > 1", "loop.iteration > 1", "(self.outputs.n | default(0)) > 2"];
            set("loop", json!({"until": random.pick(&until), "max": random.between(1, 4)}));
            set("run", json!("round ${{ loop.iteration }}"));
        }
        5..=6 => {
            set("approval", if random.chance(500) { json!(true) } else { json!("may ${{ run.name }}?") });
            if random.chance(500) {
                work(random, task, before, level);
            }
        }
        7..=8 if level < LEVELS => {
            let from = before.map(|n| json!(format!("${{{{ tasks.n{n}.outputs.n | default(9) }}}}")));
            set("vars", json!({"from": from.unwrap_or(json!(8))}));
            set("workflow", workflow(random, level + 1));
        }
        // A milestone.
        9 => {}
        _ => work(random, task, before, level),
    }
}

fn work(random: &mut Random, task: &mut Map<String, Value>, before: Option<usize>, level: u32) {
    let mut set = |key: &str, value: Value| task.insert(key.to_owned(), value);
    match (random.below(6), before) {
        (0, _) => drop(set("kind", json!("noop"))),
        (1, Some(n)) => drop(set("run", json!(format!("use ${{{{ tasks.n{n}.outputs.n }}}} surely")))),
        (2, Some(n)) => {
            set("run", json!("read"));
            set(
                "input",
                json!({"all": format!("${{{{ tasks.n{n}.outputs }}}}"), "from": "${{ vars.from }}"}),
            );
        }
        (3, Some(n)) => {
            let text = format!(
                "use ${{{{ tasks.n{n}.outputs.n | default('none') }}}} of ${{{{ tasks.n{n}.status }}}}"
            );
            set("run", json!(text));
        }
        (4, _) if level == 0 => drop(set("run", json!("size ${{ inputs.size }} ${{ vars.count }}"))),
        _ => drop(set("run", json!(format!("job {}", random.below(4))))),
    }
    if random.chance(200) {
        let backoff_ms = random.pick(&[0, 50, 1_000]);
        set("retry", json!({"max": random.between(1, 2), "backoff_ms": backoff_ms}));
    }
    if random.chance(60) {
        set("queue_timeout_ms", json!(random.between(100, 3_000)));
    }
    if random.chance(100) {
        set("labels", json!({"zone": random.pick(&["a", "b"])}));
    }
}
