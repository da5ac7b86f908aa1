//! Runs seeds and says what came of them.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::world::{Sabotage, World};

/// How a story ended well.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Happenings of the whole world.
    pub happenings: u64,
    /// Steps of the kernel, each followed by all its checks.
    pub kernel_steps: u64,
    /// Tasks made.
    pub tasks: u64,
    /// Answers given to clients.
    pub answers: u64,
    /// Lives of the master.
    pub masters: u64,
}

/// How a story ended badly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Which story.
    pub seed: u64,
    /// How long it was to be.
    pub steps: u64,
    /// What was wrong.
    pub what: String,
    /// The latest inputs before.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.what)?;
        for line in &self.trace {
            writeln!(f, "  {line}")?;
        }
        write!(
            f,
            "again: cargo run -p agentflow-tests --bin sim -- --seed {} --steps {}",
            self.seed, self.steps
        )
    }
}

/// Happenings after which a world without faults must have come to rest.
const REST: u64 = 300_000;

/// Tells the story of a seed: `steps` happenings with faults, then as many without as it takes
/// to come to rest.
///
/// # Errors
/// The first violation, with the inputs that led to it.
pub fn run(seed: u64, steps: u64, sabotage: Sabotage) -> Result<Summary, Box<Failure>> {
    let mut world = World::new(seed, sabotage);
    match guarded(&mut world, steps) {
        Ok(summary) => Ok(summary),
        Err(what) => {
            // The same again, this time with the trace.
            let mut world = World::new(seed, sabotage);
            world.trace.is_on = true;
            let again = guarded(&mut world, steps).err();
            let what = if again.as_ref() == Some(&what) {
                what
            } else {
                format!("{what}\nand, told again, differently: {again:?}")
            };
            let trace = world.trace.lines.into_iter().collect();
            Err(Box::new(Failure { seed, steps, what, trace }))
        }
    }
}

fn guarded(world: &mut World, steps: u64) -> Result<Summary, String> {
    // Nothing of the world is used after a panic but its trace.
    match catch_unwind(AssertUnwindSafe(|| tell(world, steps))) {
        Ok(told) => told,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(format!("panic: {}", text.unwrap_or_default()))
        }
    }
}

fn tell(world: &mut World, steps: u64) -> Result<Summary, String> {
    let mut happenings = steps;
    for _ in 0..steps {
        world.advance()?;
    }
    world.calm_down();
    loop {
        for _ in 0..20 {
            if !world.is_over() {
                world.advance()?;
            }
        }
        happenings += 20;
        if world.is_settled_down() && world.check_balance()? {
            world.go_home();
        }
        let unfinished = world.unfinished();
        if unfinished.is_none() && world.clients.is_idle() {
            break;
        }
        if world.is_over() || happenings > steps + REST {
            return Err(unfinished.unwrap_or_else(|| "a request was never answered".to_owned()));
        }
    }
    world.check_end()?;
    Ok(Summary {
        happenings,
        kernel_steps: world.kernel_steps,
        tasks: u64::try_from(world.store.rows.len()).unwrap_or(0),
        answers: world.clients.answers(),
        masters: world.master.life,
    })
}
