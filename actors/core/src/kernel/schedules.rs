//! What is begun again and again.
//!
//! A time that has come makes its task or run and moves the schedule on in the same step, hence in
//! one commit: nothing is begun twice, and nothing is forgotten. When the next time is, cron and
//! time zones say, which are the protocol's affair ([`MakeTask::next_time`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::runs::NewRun;
use super::submit::{Begin, Origin};
use super::timers::Timer;
use super::words::NewTask;
use super::{Kernel, Step};
use crate::batch::{CatchUp, ScheduleRow, ScheduleWrite};
use crate::event::{Event, Happening, Subject};
use crate::ids::{RunId, TaskId};
use crate::limits;
use crate::rejection::Rejection;
use crate::time::Wall;

/// What a schedule begins.
#[derive(Clone, PartialEq, Debug)]
pub enum Scheduled {
    /// A task.
    Task(Box<NewTask>),
    /// A run.
    Run(Box<NewRun>),
}

/// A schedule with what it begins.
#[derive(Clone, PartialEq, Debug)]
pub struct SavedSchedule {
    /// Its row.
    pub row: ScheduleRow,
    /// What it begins; none if its body cannot be read any more, and why.
    pub what: Result<Scheduled, Arc<str>>,
}

/// The schedules, by name.
#[derive(Debug, Default)]
pub(crate) struct Schedules(BTreeMap<Arc<str>, SavedSchedule>);

impl Kernel {
    /// Makes a schedule, or changes one; what it has begun so far still counts.
    pub(super) fn put_schedule(&mut self, step: &mut Step, mut new: SavedSchedule) -> Result<(), Rejection> {
        let name = Arc::clone(&new.row.name);
        match self.schedules.0.get(&name) {
            Some(old) => {
                new.row.fired = old.row.fired;
                new.row.last_at = old.row.last_at;
                new.row.created_at = old.row.created_at;
            }
            None if self.schedules.0.len() >= limits::SCHEDULES => {
                return Err(Rejection::Limit { what: "schedules", limit: limits::SCHEDULES });
            }
            None => {}
        }
        let next_at = new.row.next_at;
        self.schedules.0.insert(Arc::clone(&name), new);
        self.schedule_event(step, &name, Happening::ScheduleSet { next_at });
        self.write_schedule(step, &name);
        self.set_schedule_timer(step, &name);
        Ok(())
    }

    pub(super) fn remove_schedule(&mut self, step: &mut Step, name: &Arc<str>) -> Result<(), Rejection> {
        if self.schedules.0.remove(name).is_none() {
            return Err(Rejection::UnknownSchedule(Arc::clone(name)));
        }
        self.schedule_event(step, name, Happening::ScheduleRemoved {});
        step.batch.schedules.push(ScheduleWrite { name: Arc::clone(name), row: None });
        Ok(())
    }

    pub(super) fn pause_schedule(
        &mut self,
        step: &mut Step,
        name: &Arc<str>,
        paused: bool,
    ) -> Result<(), Rejection> {
        let now = step.now.wall;
        let schedule =
            self.schedules.0.get_mut(name).ok_or_else(|| Rejection::UnknownSchedule(Arc::clone(name)))?;
        if schedule.row.paused == paused {
            return Ok(());
        }
        schedule.row.paused = paused;
        // What passed while it was paused was not missed.
        schedule.row.next_at = self.maker.next_time(&schedule.row.cron, &schedule.row.zone, now);
        let next_at = schedule.row.next_at;
        self.schedule_event(step, name, Happening::ScheduleSet { next_at });
        self.write_schedule(step, name);
        self.set_schedule_timer(step, name);
        Ok(())
    }

    /// Begins it now, beside its times.
    pub(super) fn fire_schedule(&mut self, step: &mut Step, name: &Arc<str>) -> Result<(), Rejection> {
        if !self.schedules.0.contains_key(name) {
            return Err(Rejection::UnknownSchedule(Arc::clone(name)));
        }
        self.fire(step, name, step.now.wall);
        self.write_schedule(step, name);
        Ok(())
    }

    /// Every schedule, by name.
    pub(super) fn schedule_rows(&self) -> Vec<ScheduleRow> {
        self.schedules.0.values().map(|schedule| schedule.row.clone()).collect()
    }

    pub(super) fn restore_schedules(&mut self, step: &mut Step, saved: Vec<SavedSchedule>) {
        for schedule in saved {
            let name = Arc::clone(&schedule.row.name);
            self.schedules.0.insert(Arc::clone(&name), schedule);
            self.set_schedule_timer(step, &name);
        }
    }

    /// A timer has come: the schedule's time may have, too.
    pub(super) fn check_schedule(&mut self, step: &mut Step, name: &Arc<str>) {
        let now = step.now.wall;
        let Some(schedule) = self.schedules.0.get(name) else { return };
        let due = schedule.row.next_at.is_some_and(|at| at <= now);
        if schedule.row.paused || !due {
            self.set_schedule_timer(step, name);
            return;
        }
        let (times, next_at) = self.times_until(&schedule.row, now);
        for at in times {
            self.fire(step, name, at);
        }
        if let Some(schedule) = self.schedules.0.get_mut(name) {
            schedule.row.next_at = next_at;
        }
        self.write_schedule(step, name);
        self.set_schedule_timer(step, name);
    }

    /// The times that are to be met now, and the one after.
    fn times_until(&self, row: &ScheduleRow, now: Wall) -> (Vec<Wall>, Option<Wall>) {
        let mut times = Vec::new();
        let mut next = row.next_at;
        while let Some(at) = next.filter(|at| *at <= now) {
            times.push(at);
            if times.len() > limits::CATCH_UP {
                // So many were missed that the rest is left out.
                next = self.maker.next_time(&row.cron, &row.zone, now);
                break;
            }
            next = self.maker.next_time(&row.cron, &row.zone, at);
        }
        let last = times.last().copied();
        let is_late = last.is_none_or(|at| now.ms_since(at) > limits::SCHEDULE_GRACE_MS);
        let times = match row.catch_up {
            CatchUp::All => times.into_iter().take(limits::CATCH_UP).collect(),
            CatchUp::Once => last.into_iter().collect(),
            CatchUp::Skip if is_late => Vec::new(),
            CatchUp::Skip => last.into_iter().collect(),
        };
        (times, next)
    }

    fn fire(&mut self, step: &mut Step, name: &Arc<str>, due_at: Wall) {
        let Some(schedule) = self.schedules.0.get_mut(name) else { return };
        schedule.row.last_at = Some(step.now.wall);
        schedule.row.fired += 1;
        let made = match schedule.what.clone() {
            Ok(Scheduled::Task(task)) => self.fire_task(step, *task).map(|task| (Some(task), None)),
            Ok(Scheduled::Run(run)) => self.fire_run(step, *run).map(|run| (None, Some(run))),
            Err(reason) => Err(reason),
        };
        let happening = match made {
            Ok((task, run)) => Happening::ScheduleFired { due_at, task, run },
            Err(error) => Happening::ScheduleFailed { due_at, error },
        };
        self.schedule_event(step, name, happening);
    }

    fn fire_task(&mut self, step: &mut Step, task: NewTask) -> Result<TaskId, Arc<str>> {
        self.check_room(1).map_err(|rejection| rejection.to_string())?;
        let id = self.counters.last_task.next();
        self.counters.last_task = id;
        let class = self.enter_class_of(step, &task);
        self.create(step, task, class, Origin { id, run: None }, Begin::Ready);
        Ok(id)
    }

    fn fire_run(&mut self, step: &mut Step, run: NewRun) -> Result<RunId, Arc<str>> {
        self.check_room(run.prepared.definition.nodes.len()).map_err(|rejection| rejection.to_string())?;
        Ok(self.start_run(step, run, None))
    }

    fn schedule_event(&self, step: &mut Step, name: &Arc<str>, happening: Happening) {
        let subject = Subject::Schedule(Arc::clone(name));
        step.batch.events.push(Event { at: step.now.wall, subject, happening });
        step.urgent = true;
    }

    fn write_schedule(&self, step: &mut Step, name: &Arc<str>) {
        if let Some(schedule) = self.schedules.0.get(name) {
            let row = Some(schedule.row.clone());
            step.batch.schedules.push(ScheduleWrite { name: Arc::clone(name), row });
        }
    }

    fn set_schedule_timer(&mut self, step: &Step, name: &Arc<str>) {
        if let Some(schedule) = self.schedules.0.get(name)
            && !schedule.row.paused
            && let Some(at) = schedule.row.next_at
        {
            // The wall clock may have been set back, so that an earlier timer came too early.
            let at = step.now.mono_at(at).max(step.now.mono.plus_ms(1));
            self.timers.set(at, Timer::Schedule(Arc::clone(name)));
        }
    }
}
