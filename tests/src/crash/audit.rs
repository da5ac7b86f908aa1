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
use super::storm::{MUCH, Tally, fate, locks, prints_much};
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
    /// Results that are kept by their hash and were found whole.
    pub large: usize,
    /// Tasks that locked a file before they began.
    pub locking: usize,
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
             {} executions ({} beyond the first), {} under locks, {} large results, killed: master {}, workers {}",
            self.submissions,
            self.lost_answers,
            self.sent_again,
            self.tasks,
            self.acknowledged,
            self.events,
            self.executions,
            self.repeated,
            self.locking,
            self.large,
            self.master_kills,
            self.worker_kills,
        )
    }
}

/// What executions left.
#[derive(Clone, Copy)]
pub(super) struct Traces<'a> {
    /// One line each.
    pub(super) lines: &'a Path,
    /// One line of each that met another one under the same lock.
    pub(super) together: &'a Path,
}

/// Compares everything. The master must be at rest.
pub(super) fn compare(
    client: &Client,
    entries: &[Entry],
    traces: Traces<'_>,
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
    report.compare_executions(entries, &tasks, traces.lines)?;
    report.compare_locks(entries, client, traces.together)?;
    report.compare_results(client, entries)?;
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

    /// Locks excluded, and none is left.
    fn compare_locks(&mut self, entries: &[Entry], client: &Client, together: &Path) -> Result<(), Failure> {
        let locking = |entry: &&Entry| matches!(entry.fate, Fate::Acknowledged(_)) && locks(&entry.body);
        self.locking = entries.iter().filter(locking).map(|entry| entry.count).sum();
        if self.locking == 0 {
            self.violation("no task has locked anything".to_owned());
        }
        if together.exists() {
            for line in std::fs::read_to_string(together)?.lines() {
                self.violation(format!("two were at work under the same lock: {line}"));
            }
        }
        let left = client.stats()?.locks;
        if left.held + left.waiting > 0 {
            self.violation(format!("locks are left: {left:?}"));
        }
        Ok(())
    }

    /// What was printed is there, also where it is kept by its hash.
    fn compare_results(&mut self, client: &Client, entries: &[Entry]) -> Result<(), Failure> {
        for entry in entries.iter().filter(|entry| prints_much(&entry.body)) {
            let Fate::Acknowledged(ids) = &entry.fate else { continue };
            for id in ids {
                let length = client.task(*id)?.result.as_deref().map_or(0, str::len);
                if length == MUCH {
                    self.large += 1;
                } else {
                    self.violation(format!("task {id} printed {MUCH} bytes; {length} are there"));
                }
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const AT: &str = "2026-11-22T17:00:00Z";

    fn task(id: u64, status: &str) -> TaskView {
        let view = json!({
            "id": id, "title": "a", "status": status, "group": "default", "priority": 50, "attempt": 2,
            "version": 1, "fence": 7, "created_at": AT,
        });
        serde_json::from_value(view).expect("a task")
    }

    fn event(seq: u64, kind: &str, data: Value) -> EventView {
        let event = json!({ "seq": seq, "at": AT, "subject": "task:1", "type": kind, "data": data });
        serde_json::from_value(event).expect("an event")
    }

    fn created(seq: u64) -> EventView {
        event(seq, "task.created", json!({ "group": "default", "priority": 50 }))
    }

    fn completed(seq: u64) -> EventView {
        event(seq, "task.completed", json!({ "attempt": 2 }))
    }

    fn entry(fate: Fate) -> Entry {
        Entry { title: "a".to_owned(), body: json!({}), key: None, count: 1, leaves_lines: true, fate }
    }

    fn ledger(entries: &[Entry], tasks: &[TaskView]) -> usize {
        let mut report = Report::default();
        report.compare_ledger(entries, tasks);
        report.violations.len()
    }

    fn log(events: &[EventView]) -> usize {
        let mut report = Report::default();
        report.compare_events(&[task(1, "completed")], events);
        report.violations.len()
    }

    fn executions(lines: &str) -> usize {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), lines).expect("written");
        let mut report = Report::default();
        let entries = [entry(Fate::Acknowledged(vec![1]))];
        report.compare_executions(&entries, &[task(1, "completed")], file.path()).expect("readable");
        report.violations.len()
    }

    #[test]
    fn what_was_acknowledged_must_be_there_and_done() {
        let done = [task(1, "completed")];
        assert_eq!(ledger(&[entry(Fate::Acknowledged(vec![1]))], &done), 0);
        assert_eq!(ledger(&[entry(Fate::Unknown)], &done), 0);
        assert_eq!(ledger(&[entry(Fate::Unknown)], &[]), 0);
        assert_eq!(ledger(&[entry(Fate::Acknowledged(vec![1]))], &[]), 1, "lost");
        assert_eq!(ledger(&[entry(Fate::Acknowledged(vec![1]))], &[task(1, "failed")]), 1);
        let twice = [task(1, "completed"), task(2, "completed")];
        assert_eq!(ledger(&[entry(Fate::Acknowledged(vec![1]))], &twice), 1, "made twice");
        assert_eq!(ledger(&[entry(Fate::Refused)], &done), 1, "refused, and made");
        assert_eq!(ledger(&[], &done), 1, "sent by nobody");
    }

    #[test]
    fn the_log_has_no_hole_and_one_end() {
        assert_eq!(log(&[created(1), completed(2)]), 0);
        assert_eq!(log(&[created(1), completed(3)]), 1, "a hole");
        assert_eq!(log(&[created(1), completed(2), completed(3)]), 1, "recorded twice");
        assert_eq!(log(&[created(1)]), 1, "no end");
        assert_eq!(log(&[completed(1)]), 1, "no beginning");
    }

    #[test]
    fn what_is_recorded_was_executed_once() {
        assert_eq!(executions("1 2 7\n"), 0);
        assert_eq!(executions("1 1 3\n1 2 7\n"), 0, "a lost attempt before");
        assert_eq!(executions("1 1 3\n"), 1, "recorded, not executed");
        assert_eq!(executions("1 2 7\n1 2 7\n"), 1, "one attempt twice");
        assert_eq!(executions("1 2 7\n1 3 8\n"), 1, "executed after the end");
        assert_eq!(executions("1 2 7\n2 1 1\n"), 1, "of no task");
        assert_eq!(executions("1 2 7\nnonsense\n"), 1);
    }
}
