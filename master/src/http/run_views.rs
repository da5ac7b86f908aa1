//! A run as clients read it: its row, its workflow, and the rows of its tasks put together.
//!
//! A node of which nothing has become yet has no row: the workflow says that it is there.

use std::collections::BTreeMap;
use std::sync::Arc;

use agentflow_core::batch::{Outcome, RunNode, RunState, Stopping, TaskState};
use agentflow_core::ids::{Attempt, Fence, SpecHash, TaskId};
use agentflow_core::limits;
use agentflow_core::run::Graph;
use agentflow_core::status::Status;
use agentflow_protocol::Timestamp;
use agentflow_protocol::runs::{EdgeView, GraphView, NodeView, RerunPreview, RunView};
use agentflow_schema::{Error, NodeRecord, Readers, RunRecord, RunSummary, TaskRecord};
use agentflow_workflow::{Definition, On, draw};

use super::views;

/// A run in a listing.
pub(crate) fn summary(run: RunSummary) -> RunView {
    RunView {
        id: run.id.0,
        name: run.name,
        mode: run.mode.to_owned(),
        node_count: run.nodes,
        parent: run.parent.map(|task| task.0),
        created_at: run.created_at.into(),
        ..stand(&run.state)
    }
}

fn stand(state: &RunState) -> RunView {
    RunView {
        id: 0,
        name: String::new(),
        mode: String::new(),
        status: state.status,
        revision: state.revision,
        version: state.version,
        definition: None,
        node_count: 0,
        parent: None,
        created_at: Timestamp(agentflow_core::time::Wall(0)),
        finished_at: state.settled_at.map(Timestamp),
        error: state.error.as_deref().map(str::to_owned),
        stopping: state.stopping.map(|stopping| {
            match stopping {
                Stopping::Asked => "cancel",
                Stopping::Failure => "fail_fast",
            }
            .to_owned()
        }),
        nodes: None,
        vars: None,
        inputs: None,
    }
}

/// A run with everything. The inner error says what is damaged.
pub(crate) fn full(readers: &Readers, record: &RunRecord) -> Result<Result<RunView, String>, Error> {
    let definition = match Definition::from_json(&record.definition_body) {
        Ok(definition) => definition,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let nodes = nodes(readers, record, &definition)?;
    let birth = &record.row.birth;
    Ok(Ok(RunView {
        id: record.row.id.0,
        name: birth.name.to_string(),
        mode: birth.mode.to_owned(),
        definition: Some(format!("{:?}", birth.definition)),
        node_count: birth.nodes,
        parent: birth.parent.map(|task| task.0),
        created_at: birth.created_at.into(),
        nodes: Some(nodes),
        vars: Some(definition.vars),
        inputs: serde_json::from_str(&birth.inputs)
            .ok()
            .filter(|inputs: &serde_json::Value| !inputs.is_null()),
        ..stand(&record.row.state)
    }))
}

/// A run's graph. The inner error says what is damaged.
pub(crate) fn graph(readers: &Readers, record: &RunRecord) -> Result<Result<GraphView, String>, Error> {
    let definition = match Definition::from_json(&record.definition_body) {
        Ok(definition) => definition,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let name = |node: u32| definition.nodes[node as usize].name.to_string();
    let edges = definition.nodes.iter().flat_map(|node| {
        node.after.iter().map(|edge| EdgeView {
            from: name(edge.node),
            to: node.name.to_string(),
            on: match edge.on {
                On::Success => "success",
                On::Order => "order",
                On::Settled => "settled",
                On::Failure => "failure",
            }
            .to_owned(),
        })
    });
    let names = |level: Vec<&str>| level.into_iter().map(str::to_owned).collect();
    Ok(Ok(GraphView {
        edges: edges.collect(),
        plan: definition.plan_names().into_iter().map(names).collect(),
        mermaid: draw::mermaid(&definition),
        nodes: nodes(readers, record, &definition)?,
    }))
}

/// What a rerun from these nodes, or from those that failed, would run again. The inner error says
/// which of them is none.
pub(crate) fn preview(
    readers: &Readers,
    record: &RunRecord,
    from: &[String],
) -> Result<Result<RerunPreview, String>, Error> {
    let definition = match Definition::from_json(&record.definition_body) {
        Ok(definition) => Arc::new(definition),
        Err(error) => return Ok(Err(error.to_string())),
    };
    let nodes: Vec<NodeView> = nodes(readers, record, &definition)?;
    let names = definition.names();
    let own = || nodes.iter().filter_map(|node| Some((*names.get(&*node.name)?, node)));
    let ended = own().filter(|(_, node)| node.status.is_settled()).map(|(place, node)| (place, node.status));
    let active = own().filter(|(_, node)| matches!(node.status, Status::Pending | Status::Running));
    let active: Vec<u32> = active.map(|(place, _)| place).collect();
    let graph = Graph::restore(Arc::clone(&definition), ended, active.iter().copied());
    let mut places = Vec::new();
    for name in from {
        match names.get(&**name) {
            Some(place) => places.push(*place),
            None => return Ok(Err(format!("the run has no node '{name}'"))),
        }
    }
    if places.is_empty() {
        places = graph.failed();
    }
    let affected = graph.affected(&places, false);
    let name = |place: &u32| definition.nodes[*place as usize].name.to_string();
    let all = 0..u32::try_from(definition.nodes.len()).unwrap_or(u32::MAX);
    Ok(Ok(RerunPreview {
        at_work: affected.iter().filter(|place| active.contains(place)).map(name).collect(),
        kept: all.filter(|place| affected.binary_search(place).is_err()).map(|place| name(&place)).collect(),
        nodes: affected.iter().map(name).collect(),
    }))
}

/// A node of which nothing has become yet, as the row that it might have. `None` if the number is none
/// of the run's.
pub(crate) fn unwritten_task(record: &RunRecord, task: TaskId) -> Option<TaskRecord> {
    let definition = Definition::from_json(&record.definition_body).ok()?;
    let place = record.row.numbers.node_of(task)?;
    let node = definition.nodes.get(place as usize)?;
    let state = TaskState {
        status: Status::Blocked,
        group: "default".into(),
        priority: 50,
        attempt: Attempt(0),
        fence: Fence(0),
        failures: 0,
        lost: 0,
        version: 1,
        worker: None,
        ready_at: record.row.birth.created_at,
        assigned_at: None,
        started_at: None,
        settled_at: None,
        cancelling: false,
        waits: None,
    };
    Some(TaskRecord {
        id: task,
        title: node.name.to_string(),
        created_at: record.row.birth.created_at,
        spec: SpecHash([0; 16]),
        spec_body: "{}".to_owned(),
        run: Some(RunNode { run: record.row.id, node: (*node.name).into() }),
        state,
        outcome: Outcome::default(),
    })
}

/// The rows of a run's tasks.
pub(super) struct Rows {
    /// Those of the nodes, in the order of the workflow; `None` where nothing has become of one yet.
    pub(super) nodes: Vec<Option<NodeRecord>>,
    /// Those of items by the names of their nodes, each list by number.
    items: BTreeMap<String, Vec<NodeRecord>>,
}

/// Reads the rows of a run's tasks. Those of nodes that it no longer has are left out.
pub(super) fn rows(readers: &Readers, record: &RunRecord) -> Result<Rows, Error> {
    let mut rows: BTreeMap<TaskId, NodeRecord> = BTreeMap::new();
    let mut after = TaskId(0);
    loop {
        let page = readers.nodes(record.row.id, after, limits::PAGE)?;
        let Some(last) = page.last() else { break };
        after = last.task;
        rows.extend(page.into_iter().map(|row| (row.task, row)));
    }
    let numbers = &record.row.numbers;
    let nodes = (0..numbers.len()).map(|node| rows.remove(&numbers.task_of(node))).collect();
    let mut items: BTreeMap<String, Vec<NodeRecord>> = BTreeMap::new();
    for row in rows.into_values() {
        if let Some(node) = node_of_item(&row.node) {
            items.entry(node.to_owned()).or_default().push(row);
        }
    }
    Ok(Rows { nodes, items })
}

/// The node of an item called `name[3]`, or after a rerun of it `name[3]@2`.
fn node_of_item(name: &str) -> Option<&str> {
    let (node, item) = name.rsplit_once('[')?;
    let (_, attempt) = item.split_once(']')?;
    (attempt.is_empty() || attempt.starts_with('@')).then_some(node)
}

/// Every node in the order of the workflow, each followed by its items.
fn nodes(readers: &Readers, record: &RunRecord, definition: &Definition) -> Result<Vec<NodeView>, Error> {
    let Rows { nodes, mut items } = rows(readers, record)?;
    let mut views = Vec::with_capacity(definition.nodes.len());
    for (place, (node, row)) in (0..).zip(definition.nodes.iter().zip(nodes)) {
        let needs = node.after.iter().map(|edge| definition.nodes[edge.node as usize].name.to_string());
        views.push(match row {
            Some(row) => NodeView { needs: needs.collect(), ..view(row) },
            None => {
                let task = record.row.numbers.task_of(place);
                NodeView { needs: needs.collect(), ..unwritten(task, &node.name) }
            }
        });
        views.extend(items.remove(&*node.name).unwrap_or_default().into_iter().map(view));
    }
    Ok(views)
}

fn view(row: NodeRecord) -> NodeView {
    NodeView {
        name: row.node,
        task_id: row.task.0,
        status: row.status,
        needs: Vec::new(),
        attempt: row.attempt.0,
        worker: row.worker,
        started_at: row.started_at.map(Timestamp),
        finished_at: row.settled_at.map(Timestamp),
        exit_code: row.exit_code,
        error: row.error,
        waits: row.waits.map(|waits| views::waits(waits).to_owned()),
    }
}

fn unwritten(task: TaskId, name: &str) -> NodeView {
    NodeView {
        name: name.to_owned(),
        task_id: task.0,
        status: Status::Blocked,
        needs: Vec::new(),
        attempt: 0,
        worker: None,
        started_at: None,
        finished_at: None,
        exit_code: None,
        error: None,
        waits: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_told_by_their_names() {
        assert_eq!(node_of_item("each[3]"), Some("each"));
        assert_eq!(node_of_item("each[3]@2"), Some("each"));
        assert_eq!(node_of_item("stage[0][3]"), Some("stage[0]"));
        for other in ["each", "stage[0]~v1", "each~v1"] {
            assert_eq!(node_of_item(other), None, "{other}");
        }
    }
}
