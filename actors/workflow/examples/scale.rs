//! How long it takes to read, check and plan the largest workflow that is allowed.
//!
//! `cargo run --release -p agentflow-workflow --example scale`

use std::fmt::Write;
use std::time::Instant;

use agentflow_workflow::{Definition, Rendering, Scope, read_text};
use serde_json::{Map, Value, json};

const NODES: u64 = 100_000;

fn main() {
    if let Err(error) = run() {
        println!("{error}");
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    println!("{NODES} nodes, three edges each, a command of its own each");
    whole(&file(|_, _| String::new()))?;
    println!("\nthe same as YAML");
    whole(&format!("# YAML\n{}", file(|_, _| String::new())))?;
    println!("\nthe same, each reading the outputs of one that is directly before");
    whole(&file(|_, before| format!(" ${{{{ tasks.t{}.outputs.n }}}}", before[0])))?;
    println!("\nthe same, each reading the outputs of one that is far before");
    whole(&file(|node, _| format!(" ${{{{ tasks.t{}.outputs.n }}}}", node % 49.min(node))))?;
    println!("\na template for 10,000 items");
    items()
}

/// A workflow as JSON; `more` is added to each command, given the node and what it needs.
fn file(more: impl Fn(u64, &[u64]) -> String) -> String {
    let mut seed = 7_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut text = String::from("{\"version\":1,\"tasks\":{");
    for node in 0..NODES {
        let comma = if node > 0 { "," } else { "" };
        // The first fifty are one line, so that each of them is before all others.
        let before: Vec<u64> = match node {
            0 => Vec::new(),
            1..50 => vec![node - 1],
            _ => [49 + random(node - 49), 49 + random(node - 49), 49 + random(node - 49)].into(),
        };
        let needs: Vec<String> = before.iter().map(|before| format!("\"t{before}\"")).collect();
        let more = if before.is_empty() { String::new() } else { more(node, &before) };
        // Writing into a string cannot fail.
        let _ = write!(
            text,
            "{comma}\"t{node}\":{{\"run\":\"step {node}{more}\",\"needs\":[{}]}}",
            needs.join(",")
        );
    }
    text.push_str("}}");
    text
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    println!("{what:>12} {:>8.1} ms", start.elapsed().as_secs_f64() * 1e3);
    result
}

fn whole(text: &str) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let definition = timed("read", || read_text(text, &()))?;
    let definition = timed("instantiate", || definition.instantiate(&Map::new(), &Value::Null))?;
    let plan = timed("plan", || definition.plan());
    let successors = timed("successors", || definition.successors());
    println!("{:>12} {:>8.1} ms", "together", start.elapsed().as_secs_f64() * 1e3);
    let blob = timed("to_json", || definition.to_json());
    let back = timed("from_json", || Definition::from_json(&blob))?;
    assert!(back == definition, "the definition came back changed");
    let edges = successors.edges.len();
    let names: usize = definition.nodes.iter().map(|node| node.name.len()).sum();
    let nodes = definition.nodes.len();
    let bytes =
        nodes * size_of::<agentflow_workflow::Node>() + edges * size_of::<agentflow_workflow::Edge>() + names;
    let bodies: usize = definition.templates.iter().map(|template| template.body.len() + 24).sum();
    println!(
        "{:>12} {} MB, {edges} edges in {} levels, {} bytes a node and {} of its body",
        "file",
        text.len() / 1_000_000,
        plan.len(),
        bytes / nodes,
        bodies / nodes,
    );
    Ok(())
}

fn items() -> Result<(), Box<dyn std::error::Error>> {
    let body = json!({"kind": "shell", "command": "convert ${{ item.file }} --size ${{ vars.size * 2 }}",
        "env": {"N": "${{ index }}"}, "group": "default"});
    let rendering = Rendering::new(&body).map_err(|(_, error)| error)?;
    let vars = json!({"size": 40});
    let scope = Scope::new().vars(vars.as_object().ok_or("a map")?).inputs(&json!({}));
    timed("render", || {
        for index in 0..10_000 {
            let scope = scope.clone().item(json!({"file": format!("{index}.png")}), index);
            rendering.render(&scope).map_err(|(_, error)| error)?;
        }
        Ok(())
    })
}
