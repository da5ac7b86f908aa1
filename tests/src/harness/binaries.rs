//! Where the programs are.
//!
//! They belong to other packages, so cargo does not build them for these tests by itself. They are
//! built once per process, with the profile and into the directory of the program that asks, so that
//! tests work in a fresh clone and in any order, and never run stale programs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::Failure;

/// The programs under test.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `agentflow-master`
    pub master: PathBuf,
    /// `agentflow-worker`
    pub worker: PathBuf,
    /// `agentflow`
    pub command: PathBuf,
}

static BINARIES: OnceLock<Result<Binaries, String>> = OnceLock::new();

/// The programs; the first call builds them.
///
/// # Errors
/// When they cannot be built.
pub fn binaries() -> Result<&'static Binaries, Failure> {
    BINARIES
        .get_or_init(|| build().map_err(|error| error.to_string()))
        .as_ref()
        .map_err(|text| text.as_str().into())
}

/// The profile of this program: `dev`, `release`, …
#[must_use]
pub fn profile() -> String {
    let directory = profile_directory().unwrap_or_default();
    match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev".to_owned(),
        Some(name) => name.to_owned(),
    }
}

/// `target/debug`, `target/release`, …: tests run in its `deps`, programs in itself.
fn profile_directory() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe()?;
    let directory = program.parent().ok_or("this program has no directory")?;
    let directory =
        if directory.ends_with("deps") { directory.parent().unwrap_or(directory) } else { directory };
    Ok(directory.to_owned())
}

fn build() -> Result<Binaries, Failure> {
    let directory = profile_directory()?;
    let found = Binaries {
        master: directory.join("agentflow-master"),
        worker: directory.join("agentflow-worker"),
        command: directory.join("agentflow"),
    };
    // Set by `cargo run` and `cargo test`. Whoever starts this program by hand has built them.
    if let Some(cargo) = std::env::var_os("CARGO") {
        run_cargo(Path::new(&cargo), &directory)?;
    }
    for program in [&found.master, &found.worker, &found.command] {
        if !program.is_file() {
            return Err(format!("{} is not there; start this with cargo", program.display()).into());
        }
    }
    Ok(found)
}

fn run_cargo(cargo: &Path, directory: &Path) -> Result<(), Failure> {
    let target = directory.parent().ok_or("the profile's directory has no parent")?;
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let mut command = Command::new(cargo);
    command
        .current_dir(workspace)
        .args(["build", "--quiet", "--profile", &profile(), "--target-dir"])
        .arg(target);
    // This package is among them so that features are united as in a build of the whole workspace,
    // and dependencies are not compiled a second time.
    for package in ["agentflow-tests", "agentflow-master", "agentflow-worker", "agentflow-cli"] {
        command.args(["--package", package]);
    }
    for program in ["agentflow-master", "agentflow-worker", "agentflow"] {
        command.args(["--bin", program]);
    }
    // What cargo told this program about its own package would make it build everything again.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_") && name != "CARGO_HOME") {
            command.env_remove(name);
        }
    }
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("the programs cannot be built: {status}").into()) }
}
