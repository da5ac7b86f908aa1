//! `validate`, `plan`, `graph` and `schema`: workflow files, mostly without a master.

use std::fmt::Write;

use agentflow_protocol::runs::{EdgeView, GraphView, NodeView, PlanView};
use agentflow_workflow::{Definition, Diagnostic, draw};
use serde_json::{Value, json};

use crate::args::{Global, Graph, GraphFormat, Plan, Validate, What};
use crate::client::with_query;
use crate::error::{Error, exit};
use crate::follow::run_path;
use crate::output::{Output, printable};
use crate::workflow_file::{Given, WorkflowFile};

/// Says what is wrong, or that nothing is.
pub(super) fn validate(validate: &Validate, output: Output) -> Result<u8, Error> {
    let given = Given::read(&validate.variables)?;
    let file = WorkflowFile::read(&validate.file)?;
    match file.validate(&given) {
        Ok(definition) => {
            let (name, count) = (&definition.name, definition.nodes.len());
            if output.json {
                output.json(&json!({ "valid": true, "name": name, "nodes": count, "errors": [] }))?;
            } else {
                let nodes = if count == 1 { "node" } else { "nodes" };
                output.line(format_args!("ok: {name}, {count} {nodes}"))?;
            }
            Ok(exit::DONE)
        }
        Err(wrong) => {
            if output.json {
                let errors: Vec<Value> = wrong.iter().map(|one| diagnostic(&file.name, one)).collect();
                output.json(&json!({ "valid": false, "errors": errors, "more": wrong.more() }))?;
            } else {
                file.lines(&wrong).iter().try_for_each(|line| output.line(line))?;
            }
            Ok(exit::USAGE)
        }
    }
}

fn diagnostic(file: &str, one: &Diagnostic) -> Value {
    json!({
        "file": file, "line": one.line, "column": one.column, "pointer": one.pointer,
        "message": one.message, "hint": one.hint,
    })
}

/// The levels of a file, or of tasks at the master.
pub(super) fn plan(plan: &Plan, global: &Global, output: Output) -> Result<u8, Error> {
    let Some(path) = &plan.file else { return plan_of_tasks(plan, global, output) };
    let given = Given::read(&plan.variables)?;
    let file = WorkflowFile::read(path)?;
    let definition = file.instantiate(&given).map_err(|wrong| file.wrong(&wrong))?;
    show_plan(&definition.plan_names(), output)
}

fn plan_of_tasks(plan: &Plan, global: &Global, output: Output) -> Result<u8, Error> {
    if !plan.variables.is_empty() {
        return Err(Error::Usage("--var, --vars-file and --input are for workflow files".to_owned()));
    }
    let ids: Vec<String> = plan.tasks.iter().map(ToString::to_string).collect();
    let path = with_query(
        "/api/v2/plan",
        &[
            ("tasks", ids.join(",")),
            ("group", plan.group.clone().unwrap_or_default()),
            ("mode", plan.mode.clone().unwrap_or_default()),
        ],
    );
    let view: PlanView<u64> = super::connect(global)?.get(&path)?;
    let names: Vec<Vec<String>> =
        view.plan.iter().map(|level| level.iter().map(u64::to_string).collect()).collect();
    if output.json {
        output.json(&view)?;
        return Ok(exit::DONE);
    }
    show_plan(&names, output)
}

fn show_plan<T: AsRef<str> + serde::Serialize>(plan: &[Vec<T>], output: Output) -> Result<u8, Error> {
    if output.json {
        output.json(&json!({ "plan": plan }))?;
        return Ok(exit::DONE);
    }
    let digits = plan.len().to_string().len();
    for (level, number) in plan.iter().zip(1..) {
        let names: Vec<&str> = level.iter().map(AsRef::as_ref).collect();
        output.line(format_args!("{number:>digits$}  {}", printable(&names.join(", "))))?;
    }
    Ok(exit::DONE)
}

/// Draws a file, or a run where a number is given and no file has that name.
pub(super) fn graph(graph: &Graph, global: &Global, output: Output) -> Result<u8, Error> {
    let number = graph.what.parse().ok().filter(|number: &u64| *number > 0);
    match number.filter(|_| !std::path::Path::new(&graph.what).exists()) {
        Some(run) => {
            if !graph.variables.is_empty() {
                return Err(Error::Usage("--var, --vars-file and --input are for workflow files".to_owned()));
            }
            let view: GraphView = super::connect(global)?.get(&format!("{}/graph", run_path(run)))?;
            if output.json {
                output.json(&view)?;
            } else {
                let drawn =
                    if graph.format == GraphFormat::Mermaid { view.mermaid.clone() } else { text(&view) };
                output.line(drawn.trim_end())?;
            }
        }
        None => {
            let given = Given::read(&graph.variables)?;
            let file = WorkflowFile::read(&graph.what)?;
            // As it is written; a pipeline with items is drawn once.
            let definition = match graph.variables.is_empty() {
                true => file.definition(),
                false => file.instantiate(&given),
            };
            let definition = definition.map_err(|wrong| file.wrong(&wrong))?;
            if output.json {
                output.json(&graph_of(&definition))?;
            } else {
                let drawn = match graph.format {
                    GraphFormat::Text => draw::text(&definition),
                    GraphFormat::Mermaid => draw::mermaid(&definition),
                };
                output.line(drawn.trim_end())?;
            }
        }
    }
    Ok(exit::DONE)
}

/// A file's graph in the shape of a run's.
fn graph_of(definition: &Definition) -> Value {
    let name = |index: u32| definition.nodes.get(index as usize).map(|node| &node.name);
    let nodes: Vec<Value> = definition
        .nodes
        .iter()
        .map(|node| {
            let needs: Vec<_> = node.after.iter().filter_map(|edge| name(edge.node)).collect();
            json!({ "name": node.name, "needs": needs })
        })
        .collect();
    let edges: Vec<Value> = definition
        .nodes
        .iter()
        .flat_map(|node| node.after.iter().map(move |edge| (node, edge)))
        .map(|(node, edge)| json!({ "from": name(edge.node), "to": node.name, "on": edge.on }))
        .collect();
    json!({
        "nodes": nodes, "edges": edges, "plan": definition.plan_names(), "mermaid": draw::mermaid(definition),
    })
}

/// A run's graph: its levels, one node a line, each with where it stands and what it comes after.
fn text(view: &GraphView) -> String {
    let nodes: std::collections::HashMap<&str, &NodeView> =
        view.nodes.iter().map(|node| (node.name.as_str(), node)).collect();
    let mut before: std::collections::HashMap<&str, Vec<&EdgeView>> = std::collections::HashMap::new();
    for edge in &view.edges {
        before.entry(&edge.to).or_default().push(edge);
    }
    let width = view.nodes.iter().map(|node| node.name.chars().count()).max().unwrap_or_default().min(40);
    let digits = view.plan.len().to_string().len();
    let mut drawn = String::new();
    for (level, number) in view.plan.iter().zip(1..) {
        for (position, name) in level.iter().enumerate() {
            let number = if position == 0 { number.to_string() } else { String::new() };
            let status = nodes.get(name.as_str()).map_or("", |node| node.status.word());
            let notes = before.get(name.as_str()).map(|edges| notes(edges)).unwrap_or_default();
            let line = format!("{number:>digits$}  {:<width$}  {status:<9}  {notes}", printable(name));
            // Writing into a string cannot fail.
            let _ = writeln!(drawn, "{}", line.trim_end());
        }
    }
    drawn
}

fn notes(edges: &[&EdgeView]) -> String {
    let kinds = [
        ("success", "after "),
        ("order", "after, unless it fails, "),
        ("settled", "after, however it ends, "),
        ("failure", "on failure of "),
    ];
    let notes = kinds.iter().filter_map(|(on, words)| {
        let names: Vec<&str> =
            edges.iter().filter(|edge| edge.on == *on).map(|edge| edge.from.as_str()).collect();
        (!names.is_empty()).then(|| format!("{words}{}", names.join(", ")))
    });
    notes.collect::<Vec<_>>().join("; ")
}

pub(super) fn schema(what: What, output: Output) -> Result<u8, Error> {
    match what {
        What::Workflow => output.line(agentflow_workflow::schema().trim_end())?,
    }
    Ok(exit::DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "version: 1\ntasks:\n  build: make\n  test: {run: x, needs: build}\n  clean: {run: y, on_failure: [build, test]}\n";

    #[test]
    fn a_file_is_drawn_in_the_shape_of_a_run() {
        let definition = agentflow_workflow::read_text(FILE, &()).expect("right");
        let graph = graph_of(&definition);
        assert_eq!(graph["nodes"][1], json!({ "name": "test", "needs": ["build"] }));
        assert_eq!(graph["edges"][0], json!({ "from": "build", "to": "test", "on": "success" }));
        assert_eq!(graph["plan"], json!([["build"], ["test"], ["clean"]]));
    }

    #[test]
    fn a_run_is_drawn_with_where_it_stands() {
        let node = |name: &str, status: &str| json!({ "name": name, "task_id": 1, "status": status });
        let edge = |from: &str, to: &str, on: &str| json!({ "from": from, "to": to, "on": on });
        let view = json!({
            "nodes": [node("build", "completed"), node("test", "running"), node("clean", "blocked")],
            "edges": [edge("build", "test", "success"), edge("build", "clean", "failure"), edge("test", "clean", "failure")],
            "plan": [["build"], ["test"], ["clean"]], "mermaid": "",
        });
        let view: GraphView = serde_json::from_value(view).expect("a view");
        assert_eq!(
            text(&view),
            "1  build  completed\n2  test   running    after build\n3  clean  blocked    on failure of build, test\n"
        );
    }
}
