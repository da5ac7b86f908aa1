//! The master around the kernel: turns, the store's answers, effects, death and recovery.

use std::sync::Arc;

use agentflow_core::checkpoint::Given;
use agentflow_core::ids::{DecisionNumber, Epoch, ReplyTo, SessionEpoch, TaskId};
use agentflow_core::kernel::{Effect, Input, Kernel, Output, Settings};
use agentflow_core::rejection::Rejection;
use agentflow_core::status::Status;
use agentflow_core::time::{Mono, Now, Wall};
use agentflow_protocol::workflow::WorkflowTasks;

use super::asked::Cause;
use super::network::Downward;
use super::world::{Happening, Sabotage, World};

/// The master process, alive or dead.
#[derive(Debug)]
pub(super) struct Master {
    /// `None` while it is down.
    pub(super) kernel: Option<Kernel>,
    pub(super) settings: Settings,
    /// Counts its lives; what belongs to an earlier one is void.
    pub(super) life: u64,
    pub(super) last_reply: ReplyTo,
    /// Where its monotonic clock began.
    born_us: i64,
    tick_at: Option<i64>,
    /// When the latest word of the store arrives.
    told_at: i64,
}

impl Master {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            kernel: Some(Kernel::new(settings, Epoch(1), Arc::new(WorkflowTasks))),
            settings,
            life: 1,
            last_reply: ReplyTo(0),
            born_us: 0,
            tick_at: None,
            told_at: 0,
        }
    }
}

impl World {
    /// The present moment by the master's clocks.
    pub(super) fn now(&self) -> Now {
        let wall = Wall(1_700_000_000_000_000 + self.now_us + self.wall_shift_us);
        Now { mono: Mono(self.now_us - self.master.born_us), wall }
    }

    /// One step of the kernel with everything that follows from it.
    pub(super) fn step(&mut self, input: Input) -> Result<(), String> {
        let now = self.now();
        let input = self.sabotaged(input);
        match &input {
            Input::Hello { session, .. } => {
                let worker = self.network.worker_of(*session);
                self.store.locks.sockets.extend(worker.map(|worker| (*session, worker)));
            }
            Input::Asks { session, asks } => self.store.locks.note_asks(*session, asks),
            _ => {}
        }
        let cause = self.cause_of(&input);
        let Some(kernel) = &mut self.master.kernel else { return Ok(()) };
        self.trace.note(self.now_us, &input);
        self.kernel_steps += 1;
        let output = kernel.step(input, now);
        self.trace.note_events(self.now_us, &output);
        kernel.check()?;
        self.check_credits()?;
        self.take(output, cause)
    }

    fn cause_of(&self, input: &Input) -> Cause {
        let worker = match input {
            Input::Asks { session, .. } => self.network.worker_of(*session),
            _ => None,
        };
        Cause::of(input, worker.map(|index| &self.workers[index].name), self.now().wall)
    }

    fn take(&mut self, output: Output, cause: Cause) -> Result<(), String> {
        let mut early = None;
        if output.batch.is_none() {
            self.store.led_to_nothing(self.store.decided(), cause);
        } else if let Some(batch) = output.batch {
            if self.sabotage == Sabotage::EarlyEffects && self.random.chance(100) {
                early = Some(batch.decision);
            }
            self.ledger.decided(&batch);
            self.note_given_up(&batch);
            if self.store.gather(batch, cause) {
                self.begin_commit();
            }
        }
        if let Some(wake_at) = output.wake_at {
            let at = (wake_at.0 + self.master.born_us).max(self.now_us);
            if self.master.tick_at.is_none_or(|planned| at < planned) {
                self.master.tick_at = Some(at);
                let life = self.master.life;
                self.plan(at, Happening::Tick { life });
            }
        }
        for effect in output.effects {
            self.perform(effect)?;
        }
        match early {
            Some(decision) => self.step(Input::Committed(decision)),
            None => Ok(()),
        }
    }

    pub(super) fn on_tick(&mut self, life: u64) -> Result<(), String> {
        if life != self.master.life || self.master.tick_at != Some(self.now_us) {
            return Ok(());
        }
        self.master.tick_at = None;
        self.step(Input::Tick)
    }

    /// A missing fence check lets a report of an old assignment pass for one of the present: so
    /// does this.
    fn sabotaged(&self, input: Input) -> Input {
        match (self.sabotage, input) {
            (Sabotage::StaleReports, Input::Reports { session, mut reports }) => {
                for report in &mut reports {
                    if let Some((attempt, fence)) = self.ledger.latest(report.key.task) {
                        (report.key.attempt, report.key.fence) = (attempt, fence);
                    }
                }
                Input::Reports { session, reports }
            }
            (_, input) => input,
        }
    }

    /// What leaves the kernel must speak of durable decisions only.
    fn perform(&mut self, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::Reply { to, reply } => self.reply(to, reply),
            Effect::Welcome { session, keep, stop } => {
                self.send_down(session, Downward::Welcome { keep, stop });
                Ok(())
            }
            Effect::Refuse { session, reason } => {
                self.send_down(session, Downward::Refuse(reason));
                Ok(())
            }
            Effect::Assign { session, tasks } => {
                for task in &tasks {
                    self.check_assignment(session, task)?;
                }
                self.send_down(session, Downward::Assign(tasks));
                Ok(())
            }
            Effect::Ack { session, up_to } => {
                self.check_ack(session, up_to)?;
                self.send_down(session, Downward::Ack(up_to));
                Ok(())
            }
            Effect::Cancel { session, keys } => {
                self.send_down(session, Downward::Cancel(keys));
                Ok(())
            }
            Effect::Drop { session, keys } => {
                self.store.check_dropped(&keys)?;
                self.send_down(session, Downward::Drop(keys));
                Ok(())
            }
            Effect::Return { session, keys } => {
                self.send_down(session, Downward::Return(keys));
                Ok(())
            }
            Effect::Answers { session, answers } => {
                for (no, given) in &answers {
                    self.check_given(session, *no, given)?;
                }
                self.send_down(session, Downward::Answers(answers));
                Ok(())
            }
            Effect::LoadRun { run, also, .. } => {
                // What happens until the rows are there is not in them.
                let loaded = self.store.load_run(run, &also).map(Box::new);
                let (delay, life) = (self.random.ms(0, 20), self.master.life);
                self.plan(self.now_us + delay, Happening::RunLoaded { life, run, loaded });
                Ok(())
            }
            Effect::Drain { session } => {
                self.send_down(session, Downward::Drain);
                Ok(())
            }
            Effect::Close { session } => {
                if self.is_superseded_by_older(session) {
                    return Err(format!("{session:?} was closed for an older socket of the same worker"));
                }
                self.close_above(session);
                Ok(())
            }
            Effect::Load { tasks } => {
                let (delay, life) = (self.random.ms(0, 20), self.master.life);
                self.plan(self.now_us + delay, Happening::Loaded { life, asked: tasks });
                Ok(())
            }
        }
    }

    /// What an attempt hears; about a lock if it asked for that.
    fn check_given(
        &mut self,
        session: SessionEpoch,
        no: u64,
        given: &Result<Given, Rejection>,
    ) -> Result<(), String> {
        let is_expected = self.store.promises.expected.get(&(session, no)).is_some_and(|all| !all.is_empty());
        match self.store.locks.asked_by(session, no) {
            Some(ask) if !is_expected => self.store.check_lock_given(ask, given),
            _ => self.store.check_given(session, no, given),
        }
    }

    pub(super) fn on_loaded(&mut self, life: u64, asked: Vec<TaskId>) -> Result<(), String> {
        if life != self.master.life {
            return Ok(());
        }
        let tasks = self.store.load(&asked);
        self.step(Input::Loaded { asked, tasks })
    }

    fn begin_commit(&mut self) {
        if self.store.begin() {
            let slow = self.now_us < self.slow_store_until;
            let delay = if slow { self.random.ms(50, 1_500) } else { self.random.ms(0, 4) };
            let life = self.master.life;
            self.plan(self.now_us + delay, Happening::Commit { life });
        }
    }

    /// The transaction has ended well. The master hears of it a moment later, if it lives.
    pub(super) fn on_commit(&mut self, life: u64) -> Result<(), String> {
        if life != self.master.life {
            return Ok(());
        }
        let forget = (self.sabotage == Sabotage::ForgetBatch && self.random.chance(10))
            .then(|| self.random.below(self.store.running()));
        let decision = self.store.commit(forget)?;
        if self.sabotage == Sabotage::LoseCheckpoint && self.random.chance(20) {
            self.store.saved.lose();
        }
        // The store's words keep their order.
        let delay = self.random.ms(0, 1);
        let at = (self.now_us + delay).max(self.master.told_at + 1);
        self.master.told_at = at;
        self.plan(at, Happening::Committed { life, decision });
        self.begin_commit();
        Ok(())
    }

    pub(super) fn on_committed(&mut self, life: u64, decision: DecisionNumber) -> Result<(), String> {
        if life != self.master.life {
            return Ok(());
        }
        self.step(Input::Committed(decision))?;
        if self.store.is_idle() { self.check_counts() } else { Ok(()) }
    }

    /// What the kernel counts against the rows, when all it decided is durable.
    pub(super) fn check_counts(&self) -> Result<(), String> {
        let Some(kernel) = &self.master.kernel else { return Ok(()) };
        let stats = kernel.stats();
        let counts = [
            (Status::Blocked, stats.blocked),
            (Status::Pending, stats.pending),
            (Status::Running, stats.running),
            (Status::Completed, stats.settled.completed),
            (Status::Failed, stats.settled.failed),
            (Status::Cancelled, stats.settled.cancelled),
            (Status::Skipped, stats.settled.skipped),
        ];
        for (status, counted) in counts {
            let rows = self.store.count(status);
            if counted != rows {
                return Err(format!("the kernel counts {counted} tasks as {status}, there are {rows} rows"));
            }
        }
        self.check_live_runs()
    }

    /// The master dies: memory, sockets, and what was not committed are gone.
    pub(super) fn crash_master(&mut self) -> Result<(), String> {
        if self.master.kernel.take().is_none() {
            return Ok(());
        }
        self.trace.say(self.now_us, "master dies");
        self.master.life += 1;
        self.master.tick_at = None;
        let running_succeeds = self.random.chance(500);
        self.store.crash(running_succeeds)?;
        for session in self.network.open_above() {
            self.close_above(session);
        }
        self.clients_lose_master();
        let lease = self.master.settings.lease_ms;
        let delay = self.random.ms(10, lease + lease / 2);
        self.plan(self.now_us + delay, Happening::MasterStarts);
        Ok(())
    }

    /// A new master recovers from the rows.
    pub(super) fn start_master(&mut self) -> Result<(), String> {
        if self.master.kernel.is_some() {
            return Ok(());
        }
        let scan = self.store.scan();
        self.store.saved.reads_old = self.sabotage == Sabotage::OldCheckpoint;
        self.trace.say(self.now_us, &format!("master starts with {} live tasks", scan.tasks.len()));
        self.master.born_us = self.now_us - self.random.ms(0, 60_000);
        self.ledger.recovered(&scan.tasks);
        let (epoch, counters) = (Epoch(self.master.life), scan.counters);
        let plan = self.store.plan(scan).map_err(|error| error.to_string())?;
        let maker = Arc::new(WorkflowTasks);
        let (kernel, output) =
            Kernel::recover(self.master.settings, epoch, counters, plan, self.now(), maker);
        kernel.check()?;
        self.master.kernel = Some(kernel);
        self.store.is_recovered();
        self.take(output, Cause::Other)?;
        if self.store.is_idle() {
            self.check_counts()?;
        }
        self.check_acknowledged()
    }
}
