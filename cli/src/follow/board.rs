//! Where a run stands: its view, and what the events after it made of it. Pure.
//!
//! A node is a line; the items of its `foreach` and the nodes of its child workflow are its parts.
//! Whatever is read twice changes nothing the second time.

use std::collections::HashMap;

use agentflow_core::run::RunStatus;
use agentflow_core::status::Status;
use agentflow_protocol::Timestamp;
use agentflow_protocol::runs::{NodeView, RunView, RunWhyView};
use serde::Deserialize;
use serde_json::Value;

/// An event of the log, as far as it matters here.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Event {
    pub(crate) seq: u64,
    pub(crate) at: Timestamp,
    pub(crate) subject: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) data: Value,
}

/// A node, or a part of one.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) task: u64,
    pub(crate) status: Status,
    pub(crate) attempt: u32,
    pub(crate) began: Option<Timestamp>,
    pub(crate) ended: Option<Timestamp>,
    /// Why it failed, was skipped, or waits.
    pub(crate) note: String,
    /// The last line of its output.
    pub(crate) last: String,
    /// Events before this are known already.
    known: Option<Timestamp>,
}

/// A node with its parts.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) line: Line,
    pub(crate) parts: Vec<Line>,
}

/// Which line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) node: usize,
    pub(crate) part: Option<usize>,
}

/// What became of what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// An attempt began.
    Began(Place),
    /// An attempt failed, and another will be made.
    Retrying(Place),
    /// An attempt went down with its worker, and another will be made.
    Lost(Place),
    /// It is over.
    Settled(Place),
    /// The run itself has another status.
    Run,
}

impl Change {
    /// Of which line.
    pub(crate) fn place(self) -> Option<Place> {
        match self {
            Self::Began(place) | Self::Retrying(place) | Self::Lost(place) | Self::Settled(place) => {
                Some(place)
            }
            Self::Run => None,
        }
    }
}

/// A run.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    pub(crate) run: u64,
    pub(crate) name: String,
    pub(crate) status: RunStatus,
    pub(crate) began: Timestamp,
    pub(crate) ended: Option<Timestamp>,
    pub(crate) nodes: Vec<Node>,
    places: HashMap<u64, Place>,
    /// The node that a child run is.
    children: HashMap<u64, usize>,
    names: HashMap<String, usize>,
}

impl Line {
    fn new(name: &str, task: u64) -> Self {
        let (name, note, last) = (name.to_owned(), String::new(), String::new());
        Self {
            name,
            task,
            status: Status::Blocked,
            attempt: 0,
            began: None,
            ended: None,
            note,
            last,
            known: None,
        }
    }

    fn of(view: &NodeView) -> Self {
        Self {
            status: view.status,
            attempt: view.attempt,
            began: view.started_at,
            ended: view.finished_at,
            note: view.error.clone().unwrap_or_default(),
            known: view.finished_at.max(view.started_at),
            ..Self::new(&view.name, view.task_id)
        }
    }

    /// How long it took, or has been at work at that time, in milliseconds.
    pub(crate) fn milliseconds(&self, now: Timestamp) -> Option<u64> {
        let ended = self.ended.unwrap_or(now);
        self.began.map(|began| milliseconds(began, ended))
    }

    fn take(&mut self, event: &Event) -> Option<What> {
        let text = |name: &str| event.data.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let was = self.status;
        match event.kind.strip_prefix("task.")? {
            "created" | "assigned" | "returned" | "repeating" | "reopened" | "unblocked" => {
                self.status = Status::Pending;
                self.ended = None;
                self.note.clear();
            }
            "lost" => {
                self.status = Status::Pending;
                self.note = format!("lost with worker {}", text("worker"));
                return Some(What::Lost);
            }
            "retrying" => {
                self.status = Status::Pending;
                self.note = text("error");
                return Some(What::Retrying);
            }
            "started" => {
                (self.status, self.began, self.ended) = (Status::Running, Some(event.at), None);
                self.note.clear();
                let attempt = event.data.get("attempt").and_then(Value::as_u64);
                self.attempt =
                    attempt.and_then(|attempt| u32::try_from(attempt).ok()).unwrap_or(self.attempt);
                return Some(What::Began);
            }
            "adopted" => self.status = Status::Running,
            "blocked" => self.status = Status::Blocked,
            "approved" => self.note = "approved".to_owned(),
            "cancelling" => self.note = "being stopped".to_owned(),
            word => {
                self.status = word.parse().ok().filter(|status: &Status| status.is_settled())?;
                self.ended = Some(event.at);
                self.note = text(if self.status == Status::Skipped { "cause" } else { "error" });
                return (self.status != was).then_some(What::Settled);
            }
        }
        None
    }
}

enum What {
    Began,
    Retrying,
    Lost,
    Settled,
}

impl Board {
    /// A run as it was when it was accepted: every event since then is still to come.
    pub(crate) fn at_the_start(view: &RunView) -> Self {
        let mut board = Self::as_it_stands(view);
        board.status = RunStatus::Pending;
        board.ended = None;
        for node in &mut board.nodes {
            *node = Node { line: Line::new(&node.line.name, node.line.task), parts: Vec::new() };
        }
        board.places.retain(|_, place| place.part.is_none());
        board
    }

    /// A run as the view says.
    pub(crate) fn as_it_stands(view: &RunView) -> Self {
        let mut board = Self {
            run: view.id,
            name: view.name.clone(),
            status: view.status,
            began: view.created_at,
            ended: view.finished_at,
            nodes: Vec::new(),
            places: HashMap::new(),
            children: HashMap::new(),
            names: HashMap::new(),
        };
        for node in view.nodes.iter().flatten() {
            match board.whole_of(&node.name) {
                Some(whole) => board.add_part(whole, Line::of(node)),
                None => {
                    let place = Place { node: board.nodes.len(), part: None };
                    board.places.insert(node.task_id, place);
                    board.names.insert(node.name.clone(), place.node);
                    board.nodes.push(Node { line: Line::of(node), parts: Vec::new() });
                }
            }
        }
        board
    }

    /// Takes over what a newer view says; answers with what is news.
    pub(crate) fn refresh(&mut self, view: &RunView) -> Vec<Change> {
        let mut newer = Self::as_it_stands(view);
        newer.children = std::mem::take(&mut self.children);
        let mut changes = Vec::new();
        for (task, place) in &newer.places.clone() {
            let old = self.places.get(task).and_then(|place| self.line(*place));
            let was = old.map_or(Status::Blocked, |old| old.status);
            let last = old.map(|old| old.last.clone()).unwrap_or_default();
            if let Some(line) = newer.line_mut(*place) {
                line.last = last;
                let is_news = line.status != was;
                changes.extend((is_news && line.status == Status::Running).then_some(Change::Began(*place)));
                changes.extend((is_news && line.status.is_settled()).then_some(Change::Settled(*place)));
            }
        }
        changes.sort_by_key(|change| change.place().map(|place| (place.node, place.part)));
        changes.extend((newer.status != self.status).then_some(Change::Run));
        *self = newer;
        changes
    }

    /// Takes an event; answers with what is news.
    pub(crate) fn take(&mut self, event: &Event) -> Option<Change> {
        let (who, id) = event.subject.split_once(':')?;
        let id: u64 = id.parse().ok()?;
        match who {
            "task" => self.take_task(id, event),
            "run" if id == self.run => self.take_run(event),
            "run" if event.kind == "run.created" => {
                let parent = event.data.get("parent").and_then(Value::as_u64)?;
                let place = self.places.get(&parent)?;
                self.children.insert(id, place.node);
                None
            }
            _ => None,
        }
    }

    /// Whether an event is about this run.
    pub(crate) fn concerns(&self, event: &Event) -> bool {
        let id = |who| event.subject.strip_prefix(who).and_then(|id| id.parse::<u64>().ok());
        id("task:").is_some_and(|task| self.places.contains_key(&task))
            || id("run:").is_some_and(|run| run == self.run || self.children.contains_key(&run))
    }

    /// Whether the run has other nodes since then, so that only its view says which.
    pub(crate) fn is_replaced_by(&self, event: &Event) -> bool {
        event.kind == "run.upgraded" && event.subject == format!("run:{}", self.run)
    }

    fn take_run(&mut self, event: &Event) -> Option<Change> {
        let was = self.status;
        self.status = match event.kind.strip_prefix("run.")? {
            "started" | "resumed" => RunStatus::Running,
            word => word.parse().ok()?,
        };
        self.ended = self.status.is_settled().then_some(event.at);
        (self.status != was).then_some(Change::Run)
    }

    fn take_task(&mut self, task: u64, event: &Event) -> Option<Change> {
        if event.kind == "task.created" && !self.places.contains_key(&task) {
            self.meet(task, event)?;
        }
        let place = *self.places.get(&task)?;
        let line = self.line_mut(place)?;
        if line.known.is_some_and(|known| event.at < known) {
            return None;
        }
        line.known = None;
        Some(match line.take(event)? {
            What::Began => Change::Began(place),
            What::Retrying => Change::Retrying(place),
            What::Lost => Change::Lost(place),
            What::Settled => Change::Settled(place),
        })
    }

    /// A task that was not there when the run was accepted: a part, if it is one of ours.
    fn meet(&mut self, task: u64, event: &Event) -> Option<()> {
        let run = event.data.get("run").and_then(Value::as_u64)?;
        let name = event.data.get("node").and_then(Value::as_str)?;
        let whole = if run == self.run { self.whole_of(name)? } else { *self.children.get(&run)? };
        self.add_part(whole, Line::new(name, task));
        Some(())
    }

    fn add_part(&mut self, whole: usize, line: Line) {
        let Some(node) = self.nodes.get_mut(whole) else { return };
        self.places.insert(line.task, Place { node: whole, part: Some(node.parts.len()) });
        node.parts.push(line);
    }

    /// The node of which `name[3]` is an item.
    fn whole_of(&self, name: &str) -> Option<usize> {
        let (whole, _) = name.strip_suffix(']')?.rsplit_once('[')?;
        self.names.get(whole).copied()
    }

    /// A line.
    pub(crate) fn line(&self, place: Place) -> Option<&Line> {
        let node = self.nodes.get(place.node)?;
        match place.part {
            None => Some(&node.line),
            Some(part) => node.parts.get(part),
        }
    }

    /// A line's name outside its node: that of a child's node has the child's before it.
    pub(crate) fn full_name(&self, place: Place) -> String {
        let whole = self.nodes.get(place.node).map_or("", |node| node.line.name.as_str());
        let name = self.line(place).map_or("", |line| line.name.as_str());
        match place.part {
            Some(_) if !name.starts_with(&format!("{whole}[")) => format!("{whole}/{name}"),
            _ => name.to_owned(),
        }
    }

    /// Where a task is.
    pub(crate) fn place_of(&self, task: u64) -> Option<Place> {
        self.places.get(&task).copied()
    }

    fn line_mut(&mut self, place: Place) -> Option<&mut Line> {
        let node = self.nodes.get_mut(place.node)?;
        match place.part {
            None => Some(&mut node.line),
            Some(part) => node.parts.get_mut(part),
        }
    }

    /// Notes the last line of a task's output.
    pub(crate) fn set_last(&mut self, task: u64, last: String) {
        let Some(place) = self.place_of(task) else { return };
        if let Some(line) = self.line_mut(place) {
            line.last = last;
        }
    }

    /// Notes what waits for more than other nodes of the run.
    pub(crate) fn set_reasons(&mut self, why: &RunWhyView) {
        for node in &why.nodes {
            let Some(reason) = node.reasons.iter().find(|reason| reason.code != "predecessors") else {
                continue;
            };
            let Some(place) = self.place_of(node.task_id) else { continue };
            if let Some(line) = self.line_mut(place).filter(|line| !line.status.is_settled()) {
                line.note = match reason.code.as_str() {
                    "approval" => format!("{} (agentflow approve {})", waits(&reason.detail), node.task_id),
                    _ => waits(&reason.detail),
                };
            }
        }
    }

    /// Parts that are ready and not at work, a few: who asks why a run does not go on is told of
    /// nodes alone.
    pub(crate) fn waiting_parts(&self) -> Vec<(String, u64)> {
        const PARTS: usize = 4;
        let open = self.nodes.iter().filter(|node| !node.line.status.is_settled());
        let parts = open.flat_map(|node| &node.parts).filter(|part| part.status == Status::Pending);
        parts.take(PARTS).map(|part| (part.name.clone(), part.task)).collect()
    }

    /// The nodes that run.
    pub(crate) fn running(&self) -> Vec<Place> {
        let nodes = self.nodes.iter().enumerate().filter(|(_, node)| node.line.status == Status::Running);
        nodes.map(|(node, _)| Place { node, part: None }).collect()
    }

    /// Whether anything of it is at work.
    pub(crate) fn is_at_work(&self) -> bool {
        // A node with parts is itself at work while they are.
        let is_running = |line: &Line| line.status == Status::Running;
        let lines = self.nodes.iter();
        lines.into_iter().any(|node| match node.parts.as_slice() {
            [] => is_running(&node.line),
            parts => parts.iter().any(is_running),
        })
    }
}

/// A reason after the name of what waits.
pub(crate) fn waits(detail: &str) -> String {
    match detail.strip_prefix("it waits for ") {
        Some(what) => format!("waits for {what}"),
        None => format!("waits: {detail}"),
    }
}

/// From one time to another.
pub(crate) fn milliseconds(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.0.0.saturating_sub(from.0.0) / 1_000).unwrap_or(0)
}

/// A span for people: `1.2 s`, `2 m 05 s`, `1 h 02 m`.
pub(crate) fn span(milliseconds: u64) -> String {
    let seconds = milliseconds / 1_000;
    match seconds {
        0..60 => format!("{seconds}.{} s", milliseconds % 1_000 / 100),
        60..3_600 => format!("{} m {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} m", seconds / 3_600, seconds % 3_600 / 60),
    }
}

#[cfg(test)]
pub(super) mod tests;
