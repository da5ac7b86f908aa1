//! What clients ask about the state of tasks: checkpoints, memories, other versions; and what the
//! answers promise.

use std::sync::Arc;

use agentflow_core::batch::KeyHash;
use agentflow_core::checkpoint::NewCheckpoint;
use agentflow_core::ids::{CheckpointId, Fence, TaskId};
use agentflow_core::kernel::{
    Answer, NewVersion, PreparedSpec, Reply, Request, RestoreRequest, SaveRequest, SubmitKey,
};
use agentflow_core::memory::{Entry, Memory, Owner};
use agentflow_core::rejection::Rejection;
use agentflow_core::spec::{ContinueFrom, Payload, Spec};

use super::client::is_endless;
use super::saved::content_of;
use super::world::World;

impl World {
    /// Where a task goes on: mostly where it was.
    pub(super) fn continue_from(&mut self) -> ContinueFrom {
        if self.random.chance(250) { ContinueFrom::Beginning } else { ContinueFrom::Checkpoint }
    }

    /// Something about the state of a task, if this seed has that.
    pub(super) fn change_request(&mut self) -> Option<Request> {
        if !self.kinds.changes {
            return None;
        }
        let task = self.task_to_change();
        match self.random.below(10) {
            0..=1 => Some(self.save(task)),
            2..=4 => self.restore(task),
            5..=7 => self.upgrade(task),
            8 => Some(self.remember(task)),
            _ => {
                let continue_from = self.continue_from();
                Some(Request::Retry { tasks: vec![task], continue_from })
            }
        }
    }

    /// Mostly one that has something to lose: it is live, or has checkpoints.
    fn task_to_change(&mut self) -> TaskId {
        let saved = self.store.saved.tasks();
        let recent = saved.len().saturating_sub(20);
        let saved = self.random.pick(&saved[recent..]);
        let some = match self.random.below(10) {
            0..=4 => saved,
            5..=7 => {
                let live: Vec<TaskId> = self.store.live().map(|(id, _)| id).collect();
                self.random.pick(&live)
            }
            _ => None,
        };
        some.or_else(|| self.some_tasks().first().copied()).unwrap_or(TaskId(1))
    }

    fn save(&mut self, task: TaskId) -> Request {
        let newest = self.store.saved.kept(task).last().copied();
        let step = newest.and_then(|id| self.store.saved.step_of(id)).unwrap_or_default();
        let content = content_of(step + self.random.below(2) as u64);
        let checkpoint = NewCheckpoint { name: "by hand".into(), json: false, content, files: None };
        let current = self.store.rows.get(&task).map_or(Fence(0), |row| row.state.fence);
        let fence = self.random.pick(&[None, None, Some(current), Some(Fence(current.0.saturating_sub(1)))]);
        let memory = if self.random.chance(300) { Some(self.small_memory()) } else { None };
        let save = SaveRequest { task, fence: fence.flatten(), checkpoint, memory };
        let mut hash = [2; 16];
        hash[..8].copy_from_slice(&self.clients.next_submission().to_le_bytes());
        let key = self.random.chance(500).then_some(SubmitKey { key: KeyHash(hash), body: KeyHash(hash) });
        Request::Save { save: Box::new(save), key }
    }

    fn small_memory(&mut self) -> Memory {
        let mut memory = Memory::default();
        for _ in 0..self.random.below(3) {
            let value = self.random.below(1_000).to_string().into();
            // Two or three small entries: there is room.
            let _fits = memory.set("abc"[..1].into(), Entry { value, expires_at: None });
        }
        memory
    }

    /// Of a checkpoint that is kept, was kept, or is another task's. The door reads what it holds.
    fn restore(&mut self, task: TaskId) -> Option<Request> {
        let kept = self.random.pick(self.store.saved.kept(task));
        let last = self.store.saved.last.0;
        let unknown = self.random.chance(100) || last == 0;
        let any = CheckpointId(if unknown { 999_999 } else { self.random.between(1, last) });
        let checkpoint = kept.filter(|_| self.random.chance(800)).unwrap_or(any);
        let text = self.store.saved.checkpoints.get(&checkpoint).and_then(|row| row.memory.clone());
        let memory = Memory::from_text(text.as_deref().unwrap_or("{}")).ok()?;
        let continue_from = self.continue_from();
        Some(Request::Restore(Box::new(RestoreRequest { task, checkpoint, continue_from, memory })))
    }

    /// Another version, made from what the door reads: mostly of the version that it has.
    fn upgrade(&mut self, task: TaskId) -> Option<Request> {
        let row = self.store.rows.get(&task)?;
        let version = row.state.version;
        let (base, old) = (row.spec, self.store.spec_of(row)?.spec.clone());
        let first = self.store.saved.titles.get(&task).unwrap_or(&row.title).clone();
        let number = self.clients.next_submission();
        let spec = Arc::new(PreparedSpec::new(self.next_spec(old)));
        let from = if self.random.chance(850) { version } else { version.saturating_sub(1).max(1) };
        let title = if self.random.chance(500) { first.clone() } else { format!("version {number}").into() };
        let restart = self.random.chance(400);
        let (reason, author): (Arc<str>, _) = (format!("reason {number}").into(), "somebody".into());
        let continue_from = self.continue_from();
        let new = NewVersion { task, from, base, title, spec, reason, author, first, restart, continue_from };
        Some(Request::Upgrade(Box::new(new)))
    }

    fn next_spec(&mut self, mut spec: Spec) -> Spec {
        if !is_endless(&spec) && self.random.chance(600) {
            spec.payload = match self.random.below(8) {
                0 => Payload::Noop,
                1 => Payload::Milestone,
                n => Payload::Shell { command: format!("better {}", n % 4) },
            };
        }
        match if self.kinds.heavy { 2 } else { self.random.below(10) } {
            0 => drop(spec.labels.remove("zone")),
            1 => drop(spec.labels.insert("zone".to_owned(), "a".to_owned())),
            2..=4 => spec.resources.cpus_milli = self.random.pick(&[0, 500, 2_000, 3_000]).unwrap_or(0),
            5 => spec.keep_checkpoints = self.random.pick(&[None, Some(1), Some(3)]).flatten(),
            6 => spec.retry.max = self.random.pick(&[0, 2]).unwrap_or(0),
            7 => spec.queue_timeout_ms = self.random.pick(&[None, Some(2_000)]).flatten(),
            8 => spec.continue_from = self.continue_from(),
            _ => {}
        }
        spec
    }

    fn remember(&mut self, task: TaskId) -> Request {
        let run = self.store.ties.live_runs().last().map(|row| row.id);
        let owner = match run.filter(|_| self.random.chance(400)) {
            Some(run) => Owner::Run(run),
            None => Owner::Task(task),
        };
        let name = self.some_name();
        let value = self.random.chance(700).then(|| Arc::from("\"by hand\""));
        let ttl_ms = self.random.pick(&[None, Some(500)]).flatten();
        Request::Remember { owner, name, value, ttl_ms }
    }

    /// What an answer to one of these promises. `None` if the request is another.
    pub(super) fn check_change(&mut self, request: &Request, reply: &Reply) -> Option<Result<(), String>> {
        let wrong = || Some(Err(format!("{request:?} was answered with {reply:?}")));
        match (request, reply) {
            (Request::Save { save, key }, Ok(Answer::Saved { checkpoint, .. })) => {
                Some(self.check_client_save(save, key.map(|key| key.key), *checkpoint))
            }
            (Request::Save { .. }, Err(Rejection::UnknownTask(_))) => Some(Ok(())),
            (Request::Save { save, .. }, Err(Rejection::StaleAttempt { given, current })) => {
                if save.fence == Some(*given) && *current != Some(*given) { Some(Ok(())) } else { wrong() }
            }
            (Request::Restore(_), Ok(Answer::Done)) => Some(Ok(())),
            (Request::Restore(restore), Err(Rejection::CheckpointGone(_))) => {
                let is_kept = self.store.saved.kept(restore.task).contains(&restore.checkpoint);
                if is_kept { wrong() } else { Some(Ok(())) }
            }
            (Request::Upgrade(new), Ok(Answer::Upgraded { version })) => {
                let is_so = self.store.saved.version(new.task) >= *version && *version == new.from + 1;
                if is_so { Some(Ok(())) } else { wrong() }
            }
            (Request::Upgrade(new), Err(Rejection::OtherVersion { expected, current })) => {
                let is_so = *expected == new.from && current != expected;
                if is_so { Some(Ok(())) } else { wrong() }
            }
            (Request::Upgrade(new), Err(Rejection::PartOfRun(_))) => {
                let is_part = self.store.rows.get(&new.task).is_some_and(|row| row.run.is_some());
                if is_part { Some(Ok(())) } else { wrong() }
            }
            (
                Request::Restore(_) | Request::Upgrade(_),
                Err(
                    Rejection::UnknownTask(_)
                    | Rejection::Illegal { .. }
                    | Rejection::Busy
                    | Rejection::PartOfRun(_)
                    | Rejection::Limit { .. },
                ),
            )
            | (
                Request::Remember { .. },
                Ok(Answer::Done)
                | Err(Rejection::UnknownTask(_) | Rejection::UnknownRun(_) | Rejection::Malformed(_)),
            ) => Some(Ok(())),
            (
                Request::Save { .. } | Request::Restore(_) | Request::Upgrade(_) | Request::Remember { .. },
                _,
            ) => wrong(),
            _ => None,
        }
    }

    fn check_client_save(
        &mut self,
        save: &SaveRequest,
        key: Option<KeyHash>,
        id: CheckpointId,
    ) -> Result<(), String> {
        if let Some(key) = key {
            self.ledger.acknowledge_save(key, id)?;
        }
        match self.store.saved.checkpoints.get(&id) {
            Some(row) if row.task == save.task && row.content == save.checkpoint.content => {}
            None if self.store.saved.removed.contains(&id) => {}
            row => return Err(format!("checkpoint {id} was acknowledged for {save:?}; its row: {row:?}")),
        }
        self.store.promises.acknowledged.insert(id);
        Ok(())
    }
}
