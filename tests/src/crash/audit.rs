//! Compares the clients' ledger, the master's tasks and events, and the lines that executions left.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::atomic::Ordering;

use agentflow_core::event::{Happening, Subject};
use agentflow_core::ids::{Attempt, Seq};
use agentflow_core::status::Status;
use agentflow_protocol::api::{EventView, TaskView};

use super::ledger::{Entry, Fate};
use super::storm::{Tally, fate};
use crate::harness::{Client, Failure};

/// Acknowledged submissions that are sent once more at the end.
const SENT_AGAIN: usize = 50;

/// Violations that are shown.
const SHOWN: usize = 20;

/// What the comparison found.
#[derive(Debug, Default)]
pub struct Report {
    /// Submissions by clients.
    pub submissions: usize,
    /// Tasks that the master has.
    pub tasks: usize,
    /// Of these, tasks that were acknowledged to a client.
    pub acknowledged: usize,
    /// Answers that clients did not get.
    pub lost_answers: u64,
    /// Submissions that were sent once more with the same key.
    pub sent_again: u64,
    /// Times that the master was killed.
    pub master_kills: u64,
    /// Times that a worker was killed.
    pub worker_kills: u64,
    /// Lines that executions left.
    pub executions: usize,
    /// Of these, executions beyond the first of their task.
    pub repeated: usize,
    /// Lines of the event log.
    pub events: usize,
    /// What must not be.
    pub violations: Vec<String>,
}

impl Report {
    /// The report, if nothing is wrong.
    pub(super) fn judge(self, seed: u64) -> Result<Self, Failure> {
        if self.violations.is_empty() {
            return Ok(self);
        }
        let shown = self.violations[..self.violations.len().min(SHOWN)].join("\n  ");
        let again = format!("cargo run -p agentflow-tests --bin crash -- --seed {seed}");
        Err(format!("{self}\n{} violations:\n  {shown}\ntry again: {again}", self.violations.len()).into())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} submissions ({} answers lost, {} sent again), {} tasks ({} acknowledged), {} events, \
             {} executions ({} beyond the first), killed: master {}, workers {}",
            self.submissions,
            self.lost_answers,
            self.sent_again,
            self.tasks,
            self.acknowledged,
            self.events,
            self.executions,
            self.repeated,
            self.master_kills,
            self.worker_kills,
        )
    }
}

/// Compares everything. The master must be at rest.
pub(super) fn compare(
    client: &Client,
    entries: &[Entry],
    lines: &Path,
    tally: &Tally,
) -> Result<Report, Failure> {
    let tasks = client.tasks()?;
    let events = client.events(Seq(0))?;
    let mut report = Report {
        submissions: entries.len(),
        tasks: tasks.len(),
        lost_answers: tally.lost_answers.load(Ordering::Relaxed),
        sent_again: tally.sent_again.load(Ordering::Relaxed),
        master_kills: tally.master_kills.load(Ordering::Relaxed),
        worker_kills: tally.worker_kills.load(Ordering::Relaxed),
        events: events.len(),
        ..Report::default()
    };
    report.compare_ledger(entries, &tasks);
    report.compare_events(&tasks, &events);
    report.compare_executions(entries, &tasks, lines)?;
    report.send_again(client, entries)?;
    Ok(report)
}

impl Report {
    fn violation(&mut self, text: String) {
        self.violations.push(text);
    }

    /// Nothing acknowledged is lost, nothing was made twice, everything is done.
    fn compare_ledger(&mut self, entries: &[Entry], tasks: &[TaskView]) {
        let mut made: HashMap<&str, BTreeSet<u64>> = HashMap::new();
        for task in tasks {
            made.entry(&task.title).or_default().insert(task.id);
            if task.status != Status::Completed {
                self.violation(format!("task {} is {:?}: {:?}", task.id, task.status, task.error));
            }
        }
        for entry in entries {
            let found = made.remove(entry.title.as_str()).unwrap_or_default();
            let expected = match &entry.fate {
                Fate::Acknowledged(ids) => {
                    self.acknowledged += ids.len();
                    ids.len() == entry.count && found == ids.iter().copied().collect()
                }
                Fate::Refused => found.is_empty(),
                Fate::Unknown => found.is_empty() || found.len() == entry.count,
            };
            if !expected {
                let (title, count, fate) = (&entry.title, entry.count, &entry.fate);
                self.violation(format!("'{title}' of {count} tasks was {fate:?}; there are {found:?}"));
            }
        }
        for (title, ids) in made {
            self.violation(format!("nobody sent '{title}', which has tasks {ids:?}"));
        }
    }

    /// The log has no hole, and each task was created once and settled once.
    fn compare_events(&mut self, tasks: &[TaskView], events: &[EventView]) {
        let mut next = Seq(1);
        let mut created: HashMap<u64, u32> = HashMap::new();
        let mut settled: HashMap<u64, Vec<Attempt>> = HashMap::new();
        for event in events {
            if event.seq != next {
                self.violation(format!("event {} where {next} was expected", event.seq));
            }
            next = event.seq.next();
            let Subject::Task(task) = event.subject else { continue };
            match &event.happening {
                Happening::TaskCreated { .. } => *created.entry(task.0).or_default() += 1,
                Happening::TaskCompleted { attempt }
                | Happening::TaskFailed { attempt, .. }
                | Happening::TaskCancelled { attempt } => settled.entry(task.0).or_default().push(*attempt),
                _ => {}
            }
        }
        for task in tasks {
            let times = created.remove(&task.id).unwrap_or(0);
            if times != 1 {
                self.violation(format!("task {} was created {times} times", task.id));
            }
            let ends = settled.remove(&task.id).unwrap_or_default();
            if ends != [Attempt(task.attempt)] {
                self.violation(format!(
                    "task {} ended with attempt {}, and in the log {ends:?}",
                    task.id, task.attempt
                ));
            }
        }
        for task in created.keys().chain(settled.keys()) {
            self.violations.push(format!("the log knows task {task}, the list of tasks does not"));
        }
    }

    /// What is recorded was executed, no attempt was executed twice, and none after the one that
    /// settled its task.
    fn compare_executions(
        &mut self,
        entries: &[Entry],
        tasks: &[TaskView],
        lines: &Path,
    ) -> Result<(), Failure> {
        let text = if lines.exists() { std::fs::read_to_string(lines)? } else { String::new() };
        let mut executed: BTreeMap<u64, Vec<(u32, u64)>> = BTreeMap::new();
        for line in text.lines() {
            let mut numbers = line.split(' ').map(str::parse::<u64>);
            match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
                (Some(Ok(task)), Some(Ok(attempt)), Some(Ok(fence)), None) => {
                    executed.entry(task).or_default().push((u32::try_from(attempt)?, fence));
                }
                _ => self.violation(format!("an execution left '{line}'")),
            }
        }
        self.executions = executed.values().map(Vec::len).sum();
        self.repeated = self.executions - executed.len();
        let leaving: BTreeSet<&str> =
            entries.iter().filter(|entry| entry.leaves_lines).map(|entry| entry.title.as_str()).collect();
        for task in tasks.iter().filter(|task| leaving.contains(task.title.as_str())) {
            let lines = executed.remove(&task.id).unwrap_or_default();
            if !lines.contains(&(task.attempt, task.fence)) {
                let recorded = (task.attempt, task.fence);
                self.violation(format!("task {}: recorded is {recorded:?}, executed {lines:?}", task.id));
            }
            if lines.iter().collect::<BTreeSet<_>>().len() != lines.len() {
                self.violation(format!("task {}: an attempt was executed twice: {lines:?}", task.id));
            }
            if lines.iter().any(|(_, fence)| *fence > task.fence) {
                self.violation(format!(
                    "task {}: executed after {} settled it: {lines:?}",
                    task.id, task.fence
                ));
            }
        }
        for (task, lines) in executed {
            self.violation(format!("task {task} was executed and is not in the list: {lines:?}"));
        }
        Ok(())
    }

    /// The same key and body gets the same answer, long after.
    fn send_again(&mut self, client: &Client, entries: &[Entry]) -> Result<(), Failure> {
        let before = client.stats()?.tasks;
        for entry in entries.iter().filter(|entry| entry.key.is_some()).rev().take(SENT_AGAIN) {
            let again = fate(client.post("/api/v2/tasks", &entry.body, entry.key.as_deref()))?;
            if again != entry.fate {
                self.violation(format!("'{}' was {:?} and is now {again:?}", entry.title, entry.fate));
            }
        }
        let after = client.stats()?.tasks;
        if after != before {
            self.violation(format!("sending again made something new: {before:?}, then {after:?}"));
        }
        Ok(())
    }
}
