//! A script that counts to a thousand and saves each step, on two workers in turn, killed again and
//! again: the worker that has it, the master, or both.
//!
//! A world of its own, as `crashes.rs`: each worker has one slot; what it asked and was not answered it
//! asks again after the master's death, and loses with its own. A master may die before a decision is
//! durable, after that, or when everybody has been told.
//!
//! Invariants: the script ends; no step is done again whose saving was acknowledged; none is left out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use agentflow_core::attempt::{AttemptKey, End, Finished, Held, Hello, LOCKS_VERSION, Report, ReportBody};
use agentflow_core::batch::Outcome;
use agentflow_core::checkpoint::{Ask, AskBody, NewCheckpoint};
use agentflow_core::ids::{BootId, Epoch, ReplyTo, SessionEpoch, TaskId};
use agentflow_core::kernel::{
    Assigned, Effect, Input, Kernel, NewTask, Output, PreparedSpec, Request, Settings,
};
use agentflow_core::spec::{Payload, Resources, Spec};
use agentflow_core::status::Status;
use agentflow_core::time::{Mono, Now, Wall};
use agentflow_protocol::workflow::WorkflowTasks;

use super::asked::Cause;
use super::random::Random;
use super::saved::content_of;
use super::store::Store;

/// What the script did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counted {
    /// Steps that were done, those done again included.
    pub done: u64,
    /// Of these, done again: their saving was not acknowledged before.
    pub again: u64,
    /// Attempts that it took.
    pub attempts: u64,
    /// Masters that it took.
    pub masters: u64,
}

/// The script is the only task.
const TASK: TaskId = TaskId(1);

/// Who dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Victim {
    Worker,
    Master,
    Both,
}

/// A worker with one slot.
#[derive(Debug, Default)]
struct Hand {
    name: Arc<str>,
    life: u64,
    session: Option<SessionEpoch>,
    /// The attempt that it has, and the last step that this has done.
    script: Option<(AttemptKey, u64)>,
    asks: VecDeque<Ask>,
    /// The last question that was sent on this socket.
    sent: u64,
    reports: VecDeque<Report>,
    said: u64,
}

struct World {
    random: Random,
    store: Store,
    kernel: Kernel,
    epoch: Epoch,
    now_us: i64,
    last_session: SessionEpoch,
    hands: [Hand; 2],
    owners: BTreeMap<SessionEpoch, usize>,
    last: u64,
    done: BTreeSet<u64>,
    acknowledged: u64,
    /// The master dies in its next step at that moment.
    dies: Option<Moment>,
    counted: Counted,
}

/// When the master dies in a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Moment {
    Decided,
    Committed,
    Told,
}

/// Counts to `last` with that many deaths, at random moments.
///
/// # Errors
/// What was violated.
pub fn count_to(last: u64, deaths: u32, seed: u64) -> Result<Counted, String> {
    let mut world = World::new(last, seed);
    // Deaths are spread over the whole way: each in a step of its own.
    let mut left: BTreeSet<u64> = BTreeSet::new();
    while left.len() < deaths as usize {
        left.insert(world.random.between(1, last - 1));
    }
    for _ in 0..60 * last {
        if world.store.rows.get(&TASK).is_some_and(|row| row.state.status.is_settled()) {
            return world.ending();
        }
        if left.first().is_some_and(|step| world.done.contains(step)) {
            left.pop_first();
            world.kill()?;
        }
        world.go_on()?;
    }
    Err(format!("the script does not end: {:?}, {:?}", world.counted, world.hands))
}

impl World {
    fn new(last: u64, seed: u64) -> Self {
        let hand = |name: &str| Hand { name: name.into(), life: 1, ..Hand::default() };
        Self {
            random: Random::new(seed),
            store: Store::default(),
            kernel: Kernel::new(Settings::default(), Epoch(1), Arc::new(WorkflowTasks)),
            epoch: Epoch(1),
            now_us: 0,
            last_session: SessionEpoch(0),
            hands: [hand("one"), hand("two")],
            owners: BTreeMap::new(),
            last,
            done: BTreeSet::new(),
            acknowledged: 0,
            dies: None,
            counted: Counted { masters: 1, ..Counted::default() },
        }
    }

    fn now(&self) -> Now {
        Now { mono: Mono(self.now_us), wall: Wall(1_700_000_000_000_000 + self.now_us) }
    }

    /// The next thing that is to be done.
    fn go_on(&mut self) -> Result<(), String> {
        self.now_us += 1_000;
        if self.store.rows.is_empty() {
            return self.submit();
        }
        if let Some(index) = self.hands.iter().position(|hand| hand.session.is_none()) {
            return self.greet(index);
        }
        match self.hands.iter().position(|hand| hand.script.is_some()) {
            // It may ask for a few steps before it hears of the first.
            Some(index) if self.hands[index].asks.len() < 3 => self.work(index),
            Some(index) => self.say(index),
            None => self.step(Input::Tick),
        }
    }

    fn submit(&mut self) -> Result<(), String> {
        let mut spec = Spec::new(Payload::Shell { command: "count".to_owned() });
        spec.retry.max_lost = 1_000;
        let task = NewTask {
            title: "count".into(),
            group: "default".into(),
            priority: 50,
            spec: Arc::new(PreparedSpec::new(spec)),
            not_before: None,
            hold: false,
            needs: Vec::new(),
        };
        self.ask(Request::Submit { tasks: vec![task], key: None })
    }

    fn ask(&mut self, request: Request) -> Result<(), String> {
        self.step(Input::Request { reply: ReplyTo(1), request })
    }

    fn greet(&mut self, index: usize) -> Result<(), String> {
        let session = self.last_session.next();
        self.last_session = session;
        self.owners.insert(session, index);
        let at = self.now().wall;
        let hand = &mut self.hands[index];
        hand.session = Some(session);
        hand.sent = 0;
        let hello = Hello {
            version: LOCKS_VERSION,
            worker: Arc::clone(&hand.name),
            boot: BootId(hand.life),
            groups: vec!["default".into()],
            labels: BTreeMap::new(),
            resources: Resources::default(),
            slots: 1,
            prefetch: 0,
            handlers: Vec::new(),
            sandboxes: Vec::new(),
            running: hand.script.iter().map(|(key, _)| Held { key: *key, started: true }).collect(),
            draining: false,
            at,
        };
        self.step(Input::Hello { session, hello: Box::new(hello) })
    }

    /// The script does its next step and asks for that to be saved, or ends.
    fn work(&mut self, index: usize) -> Result<(), String> {
        let at = self.now().wall;
        let hand = &mut self.hands[index];
        let Some((key, step)) = &mut hand.script else { return Ok(()) };
        if *step == self.last {
            if hand.reports.is_empty() {
                hand.said += 1;
                let body = ReportBody::Finished(Box::new(Finished {
                    started_at: at,
                    finished_at: at,
                    end: End::Completed,
                    outcome: Outcome::default(),
                    log_bytes: 0,
                    log_cut: 0,
                }));
                hand.reports.push_back(Report { no: hand.said, key: *key, body });
            }
            return self.say(index);
        }
        *step += 1;
        let (key, step) = (*key, *step);
        if step <= self.acknowledged {
            return Err(format!("step {step} is done again; {} was acknowledged", self.acknowledged));
        }
        if step > 1 && !self.done.contains(&(step - 1)) {
            return Err(format!("step {step} is done before the one before it"));
        }
        self.counted.done += 1;
        self.counted.again += u64::from(!self.done.insert(step));
        hand.said += 1;
        let new = NewCheckpoint { name: "step".into(), json: true, content: content_of(step), files: None };
        let ask = Ask { no: hand.said, key, body: AskBody::Checkpoint(Box::new(new)) };
        hand.asks.push_back(ask);
        // What it says may still be on its way when somebody dies.
        if self.random.chance(800) { self.say(index) } else { Ok(()) }
    }

    /// Says what was not said on this socket.
    fn say(&mut self, index: usize) -> Result<(), String> {
        let hand = &mut self.hands[index];
        let asks: Vec<Ask> = hand.asks.iter().filter(|ask| ask.no > hand.sent).cloned().collect();
        let reports: Vec<Report> = hand.reports.iter().cloned().collect();
        hand.sent = hand.said;
        if let Some(session) = hand.session.filter(|_| !asks.is_empty()) {
            self.step(Input::Asks { session, asks })?;
        }
        match self.hands[index].session {
            Some(session) if !reports.is_empty() => self.step(Input::Reports { session, reports }),
            _ => Ok(()),
        }
    }

    /// Somebody dies: the worker that has the script, the master, or both.
    fn kill(&mut self) -> Result<(), String> {
        let victims = [Victim::Worker, Victim::Worker, Victim::Master, Victim::Master, Victim::Both];
        let victim = self.random.pick(&victims).unwrap_or(Victim::Worker);
        if victim != Victim::Worker {
            let moments = [Moment::Decided, Moment::Committed, Moment::Told];
            self.dies = self.random.pick(&moments);
        }
        if victim == Victim::Master {
            return Ok(());
        }
        let Some(index) = self.hands.iter().position(|hand| hand.script.is_some()) else { return Ok(()) };
        let hand = &mut self.hands[index];
        let (worker, boot) = (Arc::clone(&hand.name), BootId(hand.life));
        *hand = Hand { name: Arc::clone(&worker), life: hand.life + 1, ..Hand::default() };
        // Its warden says so, or its next life does.
        if self.random.chance(700) { self.ask(Request::WorkerDead { worker, boot }) } else { Ok(()) }
    }

    /// One step, made durable at once, with everything that follows; or the master's end.
    fn step(&mut self, input: Input) -> Result<(), String> {
        let worker = match &input {
            Input::Asks { session, .. } => self.owners.get(session).map(|index| &self.hands[*index].name),
            _ => None,
        };
        let cause = Cause::of(&input, worker, self.now().wall);
        let output = self.kernel.step(input, self.now());
        self.kernel.check()?;
        self.take(output, cause)
    }

    fn take(&mut self, output: Output, cause: Cause) -> Result<(), String> {
        let dies = self.dies.take();
        let mut effects = output.effects;
        if let Some(batch) = output.batch {
            if dies == Some(Moment::Decided) {
                return self.die();
            }
            self.store.gather(batch, cause);
            self.store.begin();
            let decision = self.store.commit(None)?;
            if dies == Some(Moment::Committed) {
                return self.die();
            }
            effects.extend(self.kernel.step(Input::Committed(decision), self.now()).effects);
        } else {
            self.store.led_to_nothing(self.store.decided(), cause);
        }
        for effect in effects {
            self.perform(effect)?;
        }
        if dies.is_some() { self.die() } else { Ok(()) }
    }

    /// The master dies, and another one takes over from the rows.
    fn die(&mut self) -> Result<(), String> {
        self.store.crash(false)?;
        self.counted.masters += 1;
        self.hands.iter_mut().for_each(|hand| hand.session = None);
        self.epoch = self.epoch.next();
        let scan = self.store.scan();
        let counters = scan.counters;
        let plan = self.store.plan(scan).map_err(|error| error.to_string())?;
        let maker = Arc::new(WorkflowTasks);
        let (kernel, output) =
            Kernel::recover(Settings::default(), self.epoch, counters, plan, self.now(), maker);
        kernel.check()?;
        self.kernel = kernel;
        self.store.is_recovered();
        self.take(output, Cause::Other)
    }

    fn perform(&mut self, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::Welcome { session, stop, .. } => {
                let Some(hand) = self.hand_of(session) else { return Ok(()) };
                if hand.script.is_some_and(|(key, _)| stop.contains(&key)) {
                    hand.script = None;
                }
            }
            Effect::Assign { session, tasks } => {
                for task in tasks {
                    self.begin(session, &task)?;
                }
            }
            Effect::Answers { session, answers } => {
                for (no, given) in &answers {
                    self.store.check_given(session, *no, given)?;
                    let Some(hand) = self.hand_of(session) else { continue };
                    let Some(at) = hand.asks.iter().position(|ask| ask.no == *no) else { continue };
                    let ask = hand.asks.remove(at);
                    if let (Some(ask), Ok(_)) = (ask, given) {
                        self.acknowledge(&ask.body);
                    }
                }
            }
            Effect::Ack { session, up_to } => {
                let Some(hand) = self.hand_of(session) else { return Ok(()) };
                hand.reports.retain(|report| report.no > up_to);
                if hand.script.is_some_and(|(_, step)| step > 0) && hand.reports.is_empty() {
                    hand.script = None;
                }
            }
            Effect::Drop { .. } | Effect::Close { .. } | Effect::Reply { .. } => {}
            other => return Err(format!("nothing led to {other:?}")),
        }
        Ok(())
    }

    fn hand_of(&mut self, session: SessionEpoch) -> Option<&mut Hand> {
        let hand = &mut self.hands[*self.owners.get(&session)?];
        (hand.session == Some(session)).then_some(hand)
    }

    /// An attempt reaches its worker, which reads where it begins and says that it has begun.
    fn begin(&mut self, session: SessionEpoch, task: &Assigned) -> Result<(), String> {
        let step = match task.checkpoint {
            None => 0,
            Some(id) => self.store.saved.step_of(id).ok_or(format!("checkpoint {id} is not there"))?,
        };
        let Some(hand) = self.hand_of(session) else { return Ok(()) };
        hand.script = Some((task.key, step));
        self.counted.attempts += 1;
        Ok(())
    }

    fn acknowledge(&mut self, body: &AskBody) {
        let AskBody::Checkpoint(new) = body else { return };
        let step = self.done.iter().rev().find(|step| content_of(**step) == new.content);
        self.acknowledged = self.acknowledged.max(step.copied().unwrap_or_default());
    }

    fn ending(&self) -> Result<Counted, String> {
        let status = self.store.rows.get(&TASK).map(|row| row.state.status);
        if status != Some(Status::Completed) || self.done.len() as u64 != self.last {
            return Err(format!("the script is {status:?} after {} steps", self.done.len()));
        }
        self.store.check_all_saved()?;
        Ok(self.counted)
    }
}
