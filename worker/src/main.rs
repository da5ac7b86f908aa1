//! `agentflow-worker`: runs tasks for an AgentFlow master.

use std::process::ExitCode;

use agentflow_worker::config::Flags;
use agentflow_worker::{Error, Handle};
use clap::Parser;

fn main() -> ExitCode {
    if let Some(code) = agentflow_worker::warden::run_if_asked() {
        return code;
    }
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    match run(Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agentflow-worker: {error}");
            ExitCode::from(if error.is_config() { 2 } else { 1 })
        }
    }
}

fn run(flags: Flags) -> Result<(), Error> {
    let print = flags.print_config;
    let config = flags.settings()?.resolve()?;
    if print {
        print!("{}", config.to_toml());
        return Ok(());
    }
    let running = agentflow_worker::start(config)?;
    let handle = running.handle();
    let listening = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        actix_rt::System::new().block_on(listen(&handle));
    });
    if let Err(error) = listening {
        log::error!("signals are not heard: {error}");
    }
    running.wait()
}

/// The first TERM or INT drains, the second one stops.
async fn listen(handle: &Handle) {
    use actix_rt::signal::unix::{SignalKind, signal};
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        log::error!("signals are not heard");
        return;
    };
    for order in [Handle::drain, Handle::stop] {
        let (terminate, interrupt) = (std::pin::pin!(terminate.recv()), std::pin::pin!(interrupt.recv()));
        futures_util::future::select(terminate, interrupt).await;
        order(handle);
    }
}
