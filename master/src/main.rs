//! `agentflow-master`: a master as a program.
//!
//! Prints one line on standard output when it can take work. SIGTERM and SIGINT end it in good
//! order, a second one at once. Exit codes: 0 ended on request, 1 could not start, 2 usage,
//! 70 the store failed and a restart recovers.

use std::io::Write;
use std::process::ExitCode;

use actix_rt::signal::unix::{SignalKind, signal};
use agentflow_master::{Arguments, Config, Error, start};
use clap::Parser;
use futures_util::future::{Either, select};
use tokio::sync::oneshot;

/// The store failed; whoever supervises the process starts it again.
const STORE_FAILED: u8 = 70;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let print_config = arguments.print_config;
    let config = match arguments.resolve() {
        Ok(config) => config,
        Err(error) => return failed(&error),
    };
    if print_config {
        print!("{}", config.print());
        return ExitCode::SUCCESS;
    }
    raise_descriptor_limit();
    env_logger::Builder::new().parse_filters(&config.log).init();
    match run(config) {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

fn run(config: Config) -> Result<ExitCode, Error> {
    actix_rt::Runtime::new()?.block_on(async {
        // Before the start, so that a signal during recovery is not lost.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let master = start(config)?;
        let mut out = std::io::stdout();
        // Nobody may be reading it.
        let _ = writeln!(out, "listening on {}", master.url()).and_then(|()| out.flush());
        let stopper = master.stopper();
        let (sender, mut ended) = oneshot::channel();
        std::thread::Builder::new().name("wait".to_owned()).spawn(move || sender.send(master.wait()))?;
        let mut signals = 0;
        loop {
            let (term, int) = (std::pin::pin!(terminate.recv()), std::pin::pin!(interrupt.recv()));
            match select(&mut ended, select(term, int)).await {
                Either::Left((result, _)) => {
                    return result.unwrap_or(Err(Error::Panicked)).map(|()| ExitCode::SUCCESS);
                }
                Either::Right(_) if signals == 0 => {
                    signals += 1;
                    stopper.stop();
                }
                Either::Right(_) => {
                    log::warn!("second signal: ending at once; a restart recovers everything acknowledged");
                    return Ok(ExitCode::FAILURE);
                }
            }
        }
    })
}

/// Each connection takes two descriptors (see `door`), and the usual soft limit is 1,024.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // What is allowed is enough for a small house; nothing depends on it.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn failed(error: &Error) -> ExitCode {
    // The log may be filtered; this must be seen.
    let _ = writeln!(std::io::stderr(), "agentflow-master: {error}");
    if error.is_store_failure() { ExitCode::from(STORE_FAILED) } else { ExitCode::FAILURE }
}
