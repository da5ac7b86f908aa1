//! What a worker is told before it starts: flags before variables before the file.
//!
//! Owns: the flags' names, their defaults and their checks. Knows nothing of what they are used
//! for. Invariant: a [`Config`] that came out of [`Settings::resolve`] is within every limit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use agentflow_core::limits;
use agentflow_core::spec::Resources;
use clap::Parser;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind};

/// Time that attempts get to finish after a drain was asked for.
pub const DRAIN_TIMEOUT_S: u64 = 30;

/// A worker, fully described.
#[derive(Clone, Debug)]
pub struct Config {
    /// The masters' addresses (`http://host:port`), tried in turn.
    pub masters: Vec<String>,
    /// The worker's name; unique among the master's workers.
    pub id: String,
    /// Whom it serves.
    pub groups: Vec<String>,
    /// Attempts at once.
    pub slots: u32,
    /// Attempts that may wait here beyond the slots.
    pub prefetch: u32,
    /// What it is.
    pub labels: BTreeMap<String, String>,
    /// What it has.
    pub resources: Resources,
    /// Where its files are; one worker at a time.
    pub data_dir: PathBuf,
    /// Holds the token that is sent to the master.
    pub token_file: Option<PathBuf>,
    /// Programs that are kept warm, by name.
    pub handlers: BTreeMap<String, Handler>,
    /// Bytes of output kept of one attempt: half of it head, half tail.
    pub log_cap_bytes: u64,
    /// Milliseconds that attempts get to finish after a drain was asked for.
    pub drain_timeout_ms: u64,
    /// The program that is started as warden; `None` is the running one. Its `main` must begin
    /// with [`crate::warden::run_if_asked`].
    pub program: Option<PathBuf>,
}

/// A program that stays and answers one JSON line with one JSON line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handler {
    /// The program first.
    pub argv: Vec<String>,
}

impl Config {
    /// A worker with every default.
    #[must_use]
    pub fn new(master: impl Into<String>, id: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        let slots = default_slots();
        Self {
            masters: vec![master.into()],
            id: id.into(),
            groups: vec!["default".to_owned()],
            slots,
            prefetch: default_prefetch(slots),
            labels: BTreeMap::new(),
            resources: own_resources(),
            data_dir: data_dir.into(),
            token_file: None,
            handlers: BTreeMap::new(),
            log_cap_bytes: limits::LOG_BYTES,
            drain_timeout_ms: DRAIN_TIMEOUT_S * 1_000,
            program: None,
        }
    }

    /// Checks every bound.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |text: String| Err(Kind::Config(text).into());
        if self.masters.is_empty() {
            return wrong("no master is named: give --master http://HOST:PORT".to_owned());
        }
        for master in &self.masters {
            if let Err(text) = check_master(master) {
                return wrong(format!("--master '{master}': {text}"));
            }
        }
        let names = [("--id", &self.id)].into_iter();
        let names = names.chain(self.groups.iter().map(|group| ("--group", group)));
        for (flag, name) in names.chain(self.handlers.keys().map(|name| ("handler", name))) {
            if name.is_empty() || name.len() > limits::NAME_BYTES {
                return wrong(format!("{flag} '{name}': a name has 1 to {} bytes", limits::NAME_BYTES));
            }
            if name.chars().any(|c| c.is_control() || c == '/' || c.is_whitespace()) {
                return wrong(format!("{flag} '{name}': a name has no '/', space or control character"));
            }
        }
        for (what, count) in [("groups", self.groups.len()), ("labels", self.labels.len())] {
            if count > limits::ENTRIES {
                return wrong(format!("{count} {what}: at most {} are allowed", limits::ENTRIES));
            }
        }
        if self.groups.is_empty() {
            return wrong("a worker serves at least one group".to_owned());
        }
        if !(1..=limits::SLOTS).contains(&self.slots) {
            return wrong(format!("--slots {}: allowed are 1 to {}", self.slots, limits::SLOTS));
        }
        if self.prefetch > limits::PREFETCH {
            return wrong(format!("--prefetch {}: at most {}", self.prefetch, limits::PREFETCH));
        }
        if let Some((name, _)) = self.handlers.iter().find(|(_, handler)| handler.argv.is_empty()) {
            return wrong(format!("[handlers.{name}] argv is empty: it names the program first"));
        }
        if self.log_cap_bytes < 2 {
            return wrong("--log-cap-mb: at least 1".to_owned());
        }
        Ok(())
    }
}

fn check_master(master: &str) -> Result<(), &'static str> {
    if master.starts_with("https://") || master.starts_with("wss://") {
        return Err("this worker speaks plain http; reach the master through a tunnel or a local proxy");
    }
    let Some(rest) = master.strip_prefix("http://") else {
        return Err("an address begins with http://");
    };
    if rest.trim_end_matches('/').is_empty() || rest.contains(char::is_whitespace) {
        return Err("an address is http://HOST:PORT");
    }
    Ok(())
}

fn default_slots() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(limits::SLOTS))
}

/// What a worker of so many slots prefetches unless it is told otherwise.
#[must_use]
pub fn default_prefetch(slots: u32) -> u32 {
    slots.saturating_mul(2).clamp(limits::PREFETCH_DEFAULT, limits::PREFETCH)
}

/// What this machine has: all its cores and its memory.
fn own_resources() -> Resources {
    Resources {
        cpus_milli: default_slots().saturating_mul(1_000),
        memory_mb: total_memory_mb().unwrap_or(0),
        ..Resources::default()
    }
}

fn total_memory_mb() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1_024)
}

/// The command line of `agentflow-worker`.
#[derive(Parser, Debug)]
#[command(name = "agentflow-worker", version, about = "Runs tasks for an AgentFlow master")]
pub struct Flags {
    /// Where the masters are, tried in turn
    #[arg(long, env = "AGENTFLOW_WORKER_MASTER", value_name = "URL", value_delimiter = ',')]
    master: Vec<String>,
    /// The worker's name [default: the host's name]
    #[arg(long, env = "AGENTFLOW_WORKER_ID")]
    id: Option<String>,
    /// A group to serve; may be repeated [default: default]
    #[arg(long, env = "AGENTFLOW_WORKER_GROUP", value_name = "NAME", value_delimiter = ',')]
    group: Vec<String>,
    /// Attempts at once [default: cores]
    #[arg(long, env = "AGENTFLOW_WORKER_SLOTS", value_name = "N")]
    slots: Option<u32>,
    /// Attempts that may wait here [default: 2 × slots, at least 64]
    #[arg(long, env = "AGENTFLOW_WORKER_PREFETCH", value_name = "N")]
    prefetch: Option<u32>,
    /// A label; may be repeated
    #[arg(long, env = "AGENTFLOW_WORKER_LABEL", value_name = "KEY=VALUE", value_delimiter = ',')]
    label: Vec<String>,
    /// Cores to offer, such as 1.5 [default: all]
    #[arg(long, env = "AGENTFLOW_WORKER_CPUS", value_name = "CORES")]
    cpus: Option<f64>,
    /// Memory to offer [default: all]
    #[arg(long, env = "AGENTFLOW_WORKER_MEMORY_MB", value_name = "MEBIBYTES")]
    memory_mb: Option<u64>,
    /// Graphics processors to offer [default: 0]
    #[arg(long, env = "AGENTFLOW_WORKER_GPUS", value_name = "N")]
    gpus: Option<u32>,
    /// Anything else that is counted; may be repeated
    #[arg(long, env = "AGENTFLOW_WORKER_RESOURCE", value_name = "NAME=N", value_delimiter = ',')]
    resource: Vec<String>,
    /// Where the worker keeps its files [default: $XDG_STATE_HOME/agentflow/worker-ID]
    #[arg(long, env = "AGENTFLOW_WORKER_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Holds the token for the master
    #[arg(long, env = "AGENTFLOW_WORKER_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Mebibytes of output kept of one attempt [default: 16]
    #[arg(long, env = "AGENTFLOW_WORKER_LOG_CAP_MB", value_name = "N")]
    log_cap_mb: Option<u64>,
    /// Seconds that attempts get to finish after a drain was asked for [default: 30]
    #[arg(long, env = "AGENTFLOW_WORKER_DRAIN_TIMEOUT", value_name = "SECONDS")]
    drain_timeout: Option<u64>,
    /// A TOML file with the same names, and `[handlers.NAME] argv = […]`
    #[arg(long, env = "AGENTFLOW_WORKER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the configuration that results, as TOML, and end
    #[arg(long)]
    pub print_config: bool,
}

/// The same as a file: flags' names with `_`, lists as lists, pairs as tables.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    master: Vec<String>,
    id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    group: Vec<String>,
    slots: Option<u32>,
    prefetch: Option<u32>,
    cpus: Option<f64>,
    memory_mb: Option<u64>,
    gpus: Option<u32>,
    data_dir: Option<PathBuf>,
    token_file: Option<PathBuf>,
    log_cap_mb: Option<u64>,
    drain_timeout: Option<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    label: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    resource: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    handlers: BTreeMap<String, Handler>,
}

impl Flags {
    /// Flags and variables over the file that they name.
    ///
    /// # Errors
    /// When the file cannot be read or a pair has no `=`.
    pub fn settings(self) -> Result<Settings, Error> {
        let file = match &self.config {
            Some(path) => Settings::read(path)?,
            None => Settings::default(),
        };
        let label = pairs("--label", &self.label)?;
        let mut resource = BTreeMap::new();
        for (name, count) in pairs("--resource", &self.resource)? {
            let count = count
                .parse()
                .map_err(|_| Kind::Config(format!("--resource '{name}={count}': write NAME=N")))?;
            resource.insert(name, count);
        }
        Ok(Settings {
            master: either(self.master, file.master),
            id: self.id.or(file.id),
            group: either(self.group, file.group),
            slots: self.slots.or(file.slots),
            prefetch: self.prefetch.or(file.prefetch),
            cpus: self.cpus.or(file.cpus),
            memory_mb: self.memory_mb.or(file.memory_mb),
            gpus: self.gpus.or(file.gpus),
            data_dir: self.data_dir.or(file.data_dir),
            token_file: self.token_file.or(file.token_file),
            log_cap_mb: self.log_cap_mb.or(file.log_cap_mb),
            drain_timeout: self.drain_timeout.or(file.drain_timeout),
            label: if label.is_empty() { file.label } else { label },
            resource: if resource.is_empty() { file.resource } else { resource },
            handlers: file.handlers,
        })
    }
}

fn either(first: Vec<String>, second: Vec<String>) -> Vec<String> {
    if first.is_empty() { second } else { first }
}

fn pairs(flag: &str, texts: &[String]) -> Result<BTreeMap<String, String>, Error> {
    let mut pairs = BTreeMap::new();
    for text in texts {
        let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(Kind::Config(format!("{flag} '{text}': write KEY=VALUE")).into());
        };
        pairs.insert(key.to_owned(), value.to_owned());
    }
    Ok(pairs)
}

impl Settings {
    fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |cause: String| Kind::Config(format!("{}: {cause}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        toml::from_str(&text).map_err(|error| wrong(error.to_string()).into())
    }

    /// Fills in the defaults and checks every bound.
    ///
    /// # Errors
    /// When something is missing or out of bounds; the text says what is allowed.
    pub fn resolve(self) -> Result<Config, Error> {
        let id = self.id.unwrap_or_else(host_name);
        let data_dir = self.data_dir.unwrap_or_else(|| state_dir().join(format!("worker-{id}")));
        let mut config = Config::new("", id, data_dir);
        config.masters = self.master;
        if !self.group.is_empty() {
            config.groups = self.group;
        }
        if let Some(slots) = self.slots {
            config.slots = slots;
            config.prefetch = default_prefetch(slots);
        }
        config.prefetch = self.prefetch.unwrap_or(config.prefetch);
        config.labels = self.label;
        if let Some(cpus) = self.cpus {
            if !(0.0..=1_000_000.0).contains(&cpus) {
                return Err(Kind::Config(format!("--cpus {cpus}: allowed are 0 to 1,000,000")).into());
            }
            config.resources.cpus_milli = (cpus * 1_000.0).round() as u32;
        }
        config.resources.memory_mb = self.memory_mb.unwrap_or(config.resources.memory_mb);
        config.resources.gpus = self.gpus.unwrap_or(0);
        config.resources.custom = self.resource;
        config.token_file = self.token_file;
        config.handlers = self.handlers;
        if let Some(mebibytes) = self.log_cap_mb {
            config.log_cap_bytes = mebibytes.saturating_mul(1 << 20);
        }
        if let Some(seconds) = self.drain_timeout {
            config.drain_timeout_ms = seconds.saturating_mul(1_000);
        }
        config.check()?;
        Ok(config)
    }
}

impl Config {
    /// The configuration as a file that would give it again.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let settings = Settings {
            master: self.masters.clone(),
            id: Some(self.id.clone()),
            group: self.groups.clone(),
            slots: Some(self.slots),
            prefetch: Some(self.prefetch),
            cpus: Some(f64::from(self.resources.cpus_milli) / 1_000.0),
            memory_mb: Some(self.resources.memory_mb),
            gpus: Some(self.resources.gpus),
            data_dir: Some(self.data_dir.clone()),
            token_file: self.token_file.clone(),
            log_cap_mb: Some(self.log_cap_bytes >> 20),
            drain_timeout: Some(self.drain_timeout_ms / 1_000),
            label: self.labels.clone(),
            resource: self.resources.custom.clone(),
            handlers: self.handlers.clone(),
        };
        toml::to_string(&settings).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "worker".to_owned() } else { name.to_owned() }
}

fn state_dir() -> PathBuf {
    let state = std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    state.or_else(home).unwrap_or_else(|| PathBuf::from(".")).join("agentflow")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(flags: &[&str]) -> Result<Settings, Error> {
        Flags::try_parse_from([&["agentflow-worker"], flags].concat()).expect("flags").settings()
    }

    #[test]
    fn flags_go_before_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("worker.toml");
        let text = "master = ['http://a:1']\nslots = 3\ngroup = ['x']\n[handlers.echo]\nargv = ['cat']\n";
        std::fs::write(&path, text).expect("a file");
        let path = path.to_str().expect("text");
        let config = settings(&["--config", path, "--slots", "12", "--id", "w", "--label", "os=linux"])
            .and_then(Settings::resolve)
            .expect("a configuration");
        assert_eq!((config.slots, config.prefetch), (12, 64));
        assert_eq!(config.masters, ["http://a:1"]);
        assert_eq!(config.groups, ["x"]);
        assert_eq!(config.handlers["echo"].argv, ["cat"]);
        let again: Settings = toml::from_str(&config.to_toml()).expect("own text");
        assert_eq!(again.resolve().expect("own text").to_toml(), config.to_toml());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |flags: &[&str]| {
            settings(flags).and_then(Settings::resolve).expect_err("something is wrong").to_string()
        };
        assert!(error(&[]).contains("--master"));
        assert!(error(&["--master", "a:1"]).contains("http://"));
        assert!(error(&["--master", "http://a:1", "--slots", "0"]).contains("1 to 4096"));
        assert!(error(&["--master", "http://a:1", "--label", "x"]).contains("KEY=VALUE"));
        assert!(error(&["--master", "http://a:1", "--id", "a/b"]).contains("'/'"));
    }
}
