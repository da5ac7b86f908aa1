//! Events and views in, a board out.

use agentflow_core::time::Wall;
use serde_json::json;

use super::*;

/// A run of these nodes, the first with task 1.
pub(in crate::follow) fn view(names: &[&str]) -> RunView {
    let nodes: Vec<Value> = names
        .iter()
        .zip(1..)
        .map(|(name, task)| json!({"name": name, "task_id": task, "status": "blocked"}))
        .collect();
    serde_json::from_value(json!({
        "id": 5, "name": "ci", "mode": "dag", "status": "pending", "revision": 1, "definition": "00",
        "node_count": names.len(), "created_at": Timestamp(Wall(0)), "nodes": nodes,
    }))
    .expect("a view")
}

/// An event at that second.
pub(in crate::follow) fn event(second: i64, subject: &str, kind: &str, data: Value) -> Event {
    let at = Timestamp(Wall(second * 1_000_000));
    Event { seq: 1, at, subject: subject.into(), kind: kind.into(), data }
}

/// A board after these events.
pub(in crate::follow) fn board(names: &[&str], events: &[Event]) -> Board {
    let mut board = Board::at_the_start(&view(names));
    for event in events {
        board.take(event);
    }
    board
}

fn changes(board: &mut Board, events: &[Event]) -> Vec<Change> {
    events.iter().filter_map(|event| board.take(event)).collect()
}

fn node(node: usize) -> Place {
    Place { node, part: None }
}

#[test]
fn a_node_lives() {
    let mut board = board(&["build", "test"], &[]);
    let life = [
        event(1, "run:5", "run.started", json!({})),
        event(1, "task:1", "task.created", json!({"run": 5, "node": "build"})),
        event(2, "task:1", "task.assigned", json!({"worker": "w", "attempt": 1})),
        event(3, "task:1", "task.started", json!({"attempt": 1})),
        event(3, "task:1", "task.lost", json!({"attempt": 1, "worker": "w"})),
        event(4, "task:1", "task.retrying", json!({"attempt": 1, "error": "exit code 1"})),
        event(5, "task:1", "task.started", json!({"attempt": 2})),
        event(7, "task:1", "task.completed", json!({"attempt": 2})),
        event(7, "task:9", "task.completed", json!({"attempt": 1})),
    ];
    let expect = [
        Change::Run,
        Change::Began(node(0)),
        Change::Lost(node(0)),
        Change::Retrying(node(0)),
        Change::Began(node(0)),
        Change::Settled(node(0)),
    ];
    assert_eq!(changes(&mut board, &life), expect);
    let line = &board.nodes[0].line;
    assert_eq!((line.status, line.attempt), (Status::Completed, 2));
    assert_eq!(line.milliseconds(Timestamp(Wall(0))), Some(2_000));
    let end = [
        event(8, "task:2", "task.skipped", json!({"cause": "'build' failed"})),
        event(8, "task:2", "task.skipped", json!({"cause": "'build' failed"})),
        event(9, "run:5", "run.failed", json!({"error": "'build' failed"})),
    ];
    assert_eq!(changes(&mut board, &end), [Change::Settled(node(1)), Change::Run]);
    assert_eq!(board.nodes[1].line.note, "'build' failed");
    assert_eq!((board.status, board.ended), (RunStatus::Failed, Some(Timestamp(Wall(9_000_000)))));
}

#[test]
fn items_and_the_nodes_of_a_child_are_parts() {
    let events = [
        event(1, "task:1", "task.created", json!({"run": 5, "node": "each"})),
        event(1, "task:7", "task.created", json!({"run": 5, "node": "each[0]"})),
        event(1, "task:8", "task.created", json!({"run": 5, "node": "each[1]"})),
        event(2, "task:8", "task.started", json!({"attempt": 1})),
        event(3, "run:6", "run.created", json!({"name": "x", "nodes": 1, "parent": 2})),
        event(3, "task:10", "task.created", json!({"run": 6, "node": "inner"})),
        event(4, "task:10", "task.completed", json!({"attempt": 1})),
        event(4, "task:11", "task.created", json!({"run": 7, "node": "each[2]"})),
        event(4, "run:8", "run.created", json!({"name": "other", "nodes": 1})),
    ];
    let board = board(&["each", "child"], &events);
    let parts: Vec<(&str, Status)> =
        board.nodes.iter().flat_map(|node| &node.parts).map(|part| (&*part.name, part.status)).collect();
    assert_eq!(
        parts,
        [("each[0]", Status::Pending), ("each[1]", Status::Running), ("inner", Status::Completed)]
    );
    let full = |task| board.full_name(board.place_of(task).expect("known"));
    assert_eq!((full(8), full(10), full(2)), ("each[1]".into(), "child/inner".into(), "child".into()));
    assert!(board.is_at_work());
    assert_eq!(board.waiting_parts(), [("each[0]".to_owned(), 7)]);
    assert!(board.concerns(&events[6]) && !board.concerns(&events[7]));
}

#[test]
fn what_a_view_says_is_not_said_again() {
    let mut view = view(&["build", "each", "each[0]"]);
    let nodes = view.nodes.as_mut().expect("nodes");
    nodes[0].status = Status::Completed;
    nodes[0].started_at = Some(Timestamp(Wall(1_000_000)));
    nodes[0].finished_at = Some(Timestamp(Wall(4_000_000)));
    nodes[2].status = Status::Running;
    let mut board = Board::as_it_stands(&view);
    assert_eq!((board.nodes.len(), board.nodes[1].parts.len()), (2, 1));
    let old = [
        event(1, "task:1", "task.started", json!({"attempt": 1})),
        event(4, "task:1", "task.completed", json!({"attempt": 1})),
    ];
    assert_eq!(changes(&mut board, &old), []);
    assert_eq!(changes(&mut board, &[event(9, "task:3", "task.failed", json!({}))]).len(), 1);
    // A newer view brings what was missed.
    let nodes = view.nodes.as_mut().expect("nodes");
    nodes[1].status = Status::Failed;
    nodes[2].status = Status::Failed;
    view.status = RunStatus::Failed;
    assert_eq!(board.refresh(&view), [Change::Settled(node(1)), Change::Run]);
}

#[test]
fn an_upgrade_brings_other_nodes() {
    let mut board = board(&["build", "test"], &[event(1, "task:1", "task.started", json!({"attempt": 1}))]);
    let upgraded = event(2, "run:5", "run.upgraded", json!({"version": 2}));
    assert!(board.is_replaced_by(&upgraded));
    assert!(!board.is_replaced_by(&event(2, "run:6", "run.upgraded", json!({"version": 2}))));
    let mut newer = view(&["make", "test", "publish"]);
    let nodes = newer.nodes.as_mut().expect("nodes");
    (nodes[0].status, nodes[2].task_id) = (Status::Running, 9);
    nodes.remove(1);
    assert_eq!(board.refresh(&newer), [], "nothing became of what was there");
    assert_eq!(board.full_name(node(1)), "publish");
    let begun = changes(&mut board, &[event(3, "task:9", "task.started", json!({"attempt": 1}))]);
    assert_eq!(begun, [Change::Began(node(1))]);
}

#[test]
fn a_reason_is_noted() {
    let mut board =
        board(&["ship"], &[event(1, "task:1", "task.created", json!({"run": 5, "node": "ship"}))]);
    let why = json!({"run_id": 5, "status": "running", "nodes": [{"name": "ship", "task_id": 1, "reasons": [
        {"code": "approval", "detail": "it waits for an approval: now?", "frees": "POST"}]}]});
    board.set_reasons(&serde_json::from_value(why).expect("a view"));
    assert_eq!(board.nodes[0].line.note, "waits for an approval: now? (agentflow approve 1)");
    board.take(&event(2, "task:1", "task.approved", json!({})));
    assert_eq!(board.nodes[0].line.note, "approved");
}

#[test]
fn spans_are_short() {
    assert_eq!(
        [0, 1_290, 59_999, 125_000, 3_720_000].map(span),
        ["0.0 s", "1.2 s", "59.9 s", "2 m 05 s", "1 h 02 m"]
    );
}
