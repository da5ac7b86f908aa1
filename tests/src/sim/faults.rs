//! What goes wrong, and when.
//!
//! Each seed turns some kinds of fault off, so that others get room (a story in which everything
//! always breaks explores little), and then lets the rest strike at random moments.

use super::random::Random;
use super::worker::Alarm;
use super::world::{Happening, World};

/// Which kinds of fault a seed has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    pub(super) drain: bool,
    /// Workers that speak of what others were given.
    pub(super) lies: bool,
    sockets: bool,
    partitions: bool,
    workers: bool,
    machines: bool,
    master: bool,
    store: bool,
    clock: bool,
    /// Mean time between two, in milliseconds.
    every_ms: u64,
}

impl Faults {
    pub(super) fn draw(random: &mut Random) -> Self {
        Self {
            drain: random.chance(500),
            lies: random.chance(200),
            sockets: random.chance(700),
            partitions: random.chance(600),
            workers: random.chance(600),
            machines: random.chance(400),
            master: random.chance(600),
            store: random.chance(500),
            clock: random.chance(400),
            every_ms: random.pick(&[150, 400, 1_000]).unwrap_or(400),
        }
    }
}

impl World {
    /// One fault strikes, and the next is planned.
    pub(super) fn strike(&mut self) -> Result<(), String> {
        if self.is_calm {
            return Ok(());
        }
        let next = self.random.ms(1, 2 * self.faults.every_ms);
        self.plan(self.now_us + next, Happening::Fault);
        let worker = self.random.below(self.workers.len());
        let lease = self.master.settings.lease_ms;
        match self.random.below(14) {
            0..=2 if self.faults.sockets => {
                if let Some(session) = self.workers[worker].session {
                    self.break_socket(session);
                }
            }
            3..=4 if self.faults.partitions => {
                let length = self.random.ms(50, 2 * lease);
                self.network.part(worker, self.now_us + length);
            }
            5..=6 if self.faults.workers => {
                self.lose_worker(worker, false);
            }
            7 if self.faults.machines => {
                self.lose_worker(worker, true);
            }
            8 if self.faults.master => self.crash_master()?,
            9 if self.faults.store => self.slow_store_until = self.now_us + self.random.ms(200, 4_000),
            10 if self.faults.clock => {
                let jump = self.random.ms(0, 60_000);
                self.wall_shift_us += if self.random.chance(500) { jump } else { -jump };
            }
            11 if self.faults.drain && self.random.chance(300) => self.drain_worker(worker),
            12 if self.duplicates => self.repeat_reports(worker),
            13 if self.faults.lies => self.tell_a_lie(worker),
            _ => {}
        }
        Ok(())
    }

    fn lose_worker(&mut self, worker: usize, with_machine: bool) {
        if !self.workers[worker].is_alive {
            return;
        }
        let boot = self.workers[worker].boot;
        self.trace.say(self.now_us, &format!("worker {} dies", self.workers[worker].name));
        self.kill_worker(worker, with_machine);
        let has_warden = !with_machine && self.random.chance(500);
        if has_warden {
            self.warden_speaks(worker, boot);
        }
        let delay = self.random.ms(10, 2 * self.master.settings.lease_ms);
        self.alarm(worker, delay, Alarm::Start);
    }

    /// Faults stop: whoever is cut off is heard, whoever is down comes up, except for some that
    /// never will: what they had must go to others.
    pub(super) fn calm_down(&mut self) {
        self.is_calm = true;
        self.calm_at = self.now_us;
        self.slow_store_until = 0;
        self.network.heal();
        for worker in 0..self.workers.len() {
            let is_gone = !self.workers[worker].is_alive && self.random.chance(400);
            if is_gone {
                self.workers[worker].bury();
            }
            self.alarm(worker, 0, Alarm::Start);
        }
        self.plan(self.now_us, Happening::MasterStarts);
    }

    /// Whether it has been calm for so long that everybody is back, and whatever ends by itself
    /// and was first in line has ended.
    pub(super) fn is_settled_down(&self) -> bool {
        let lease_us = i64::try_from(self.master.settings.lease_ms).unwrap_or(0) * 1_000;
        self.is_over() || self.now_us > self.calm_at + 12_000_000 + 3 * lease_us
    }
}
