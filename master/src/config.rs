//! Configuration: flags before environment variables before the TOML file before defaults.
//!
//! Owns the names of all of them. Unknown keys of the file are refused by name, so that a typing
//! error does not silently mean the default.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use agentflow_core::limits;
use agentflow_schema::{Durability, Target};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Fewest characters of a token: 32 of base 64 are 192 random bits.
pub const TOKEN_CHARS: usize = 32;

/// What an acknowledged write survives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum DurabilityClass {
    /// Loss of power: each commit waits for the disk.
    #[default]
    Full,
    /// The end of the process, but not a loss of power, which may take the last commits.
    Normal,
}

impl From<DurabilityClass> for Durability {
    fn from(class: DurabilityClass) -> Self {
        match class {
            DurabilityClass::Full => Self::Full,
            DurabilityClass::Normal => Self::Normal,
        }
    }
}

/// Everything that a master can be told.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Config {
    /// `HOST:PORT`; port 0 picks a free one.
    pub listen: String,
    /// A path or `postgres://…`.
    pub database: String,
    /// For logs of tasks and, with PostgreSQL, the lock file.
    pub data_dir: PathBuf,
    /// What an acknowledged write survives.
    pub durability: DurabilityClass,
    /// How long a worker's lease lasts after a sign of life, in milliseconds.
    pub lease_ms: u64,
    /// How often workers send one, in milliseconds.
    pub heartbeat_ms: u64,
    /// Days for which settled tasks and events are kept.
    pub retention_days: u64,
    /// Threads that serve HTTP.
    pub http_threads: usize,
    /// A file with the token that every request must carry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The server that keeps the objects of Git LFS; `{repo}` in it is the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lfs_upstream: Option<String>,
    /// What is logged, as in `RUST_LOG`: `info`, `agentflow_master=debug`, …
    pub log: String,
}

impl Default for Config {
    fn default() -> Self {
        let database = "agentflow.db".to_owned();
        Self {
            listen: "127.0.0.1:6767".to_owned(),
            data_dir: data_dir_of(&database),
            database,
            durability: DurabilityClass::Full,
            lease_ms: limits::LEASE_MS,
            heartbeat_ms: limits::HEARTBEAT_MS,
            retention_days: limits::RETENTION_DAYS,
            http_threads: default_http_threads(),
            token_file: None,
            lfs_upstream: None,
            log: "info,actix_server=warn".to_owned(),
        }
    }
}

/// HTTP work is small beside the scheduling thread's and the store's; more threads only help on
/// machines that have cores to spare.
fn default_http_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(1, 4))
}

/// Beside a SQLite file; in the current directory for PostgreSQL.
fn data_dir_of(database: &str) -> PathBuf {
    match database.parse() {
        Ok(Target::Sqlite(path)) => {
            let mut name = path.file_stem().unwrap_or_default().to_owned();
            name.push("-data");
            path.with_file_name(name)
        }
        _ => PathBuf::from("agentflow-data"),
    }
}

/// The command line of `agentflow-master`. What is absent comes from the environment, the file or
/// the defaults, in this order.
#[derive(Clone, Debug, Default, clap::Parser)]
#[command(
    name = "agentflow-master",
    version,
    about = "Accepts tasks, gives them to workers and keeps what became of them.",
    after_help = "Each flag can be given as a variable AGENTFLOW_MASTER_<FLAG> (such as AGENTFLOW_MASTER_DATA_DIR) \
                  or as a key of the TOML file (such as data_dir). Flags go before variables, variables before the file."
)]
pub struct Arguments {
    /// Address to listen on; port 0 picks a free one [default: 127.0.0.1:6767]
    #[arg(long, env = "AGENTFLOW_MASTER_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// SQLite file, or postgres://USER@HOST/NAME [default: agentflow.db]
    #[arg(long, env = "AGENTFLOW_MASTER_DATABASE", value_name = "PATH|URL", hide_env_values = true)]
    pub database: Option<String>,
    /// Directory for logs of tasks [default: beside the database]
    #[arg(long, env = "AGENTFLOW_MASTER_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// What an acknowledged write survives: full (loss of power) or normal (end of the process) [default: full]
    #[arg(long, env = "AGENTFLOW_MASTER_DURABILITY", value_name = "CLASS")]
    pub durability: Option<DurabilityClass>,
    /// Lease of a worker after a sign of life [default: 10000]
    #[arg(long, env = "AGENTFLOW_MASTER_LEASE_MS", value_name = "MS")]
    pub lease_ms: Option<u64>,
    /// How often workers send a sign of life [default: 2000]
    #[arg(long, env = "AGENTFLOW_MASTER_HEARTBEAT_MS", value_name = "MS")]
    pub heartbeat_ms: Option<u64>,
    /// Days for which settled tasks and events are kept [default: 30]
    #[arg(long, env = "AGENTFLOW_MASTER_RETENTION_DAYS", value_name = "DAYS")]
    pub retention_days: Option<u64>,
    /// Threads that serve HTTP [default: one per core, at most 4]
    #[arg(long, env = "AGENTFLOW_MASTER_HTTP_THREADS", value_name = "N")]
    pub http_threads: Option<usize>,
    /// File with a token of at least 32 characters that every request must carry as `Authorization: Bearer`
    #[arg(long, env = "AGENTFLOW_MASTER_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Git LFS server that keeps the objects, to which clients of /lfs are sent; '{repo}' in it is the repository
    #[arg(long, env = "AGENTFLOW_MASTER_LFS_UPSTREAM", value_name = "URL")]
    pub lfs_upstream: Option<String>,
    /// What is logged: error, warn, info, debug, or per module as in RUST_LOG [default: info,actix_server=warn]
    #[arg(long, env = "AGENTFLOW_MASTER_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// TOML file with any of these settings
    #[arg(long, env = "AGENTFLOW_MASTER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the settings that would be used, as TOML, and end
    #[arg(long)]
    pub print_config: bool,
}

/// The TOML file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    listen: Option<String>,
    database: Option<String>,
    data_dir: Option<PathBuf>,
    durability: Option<DurabilityClass>,
    lease_ms: Option<u64>,
    heartbeat_ms: Option<u64>,
    retention_days: Option<u64>,
    http_threads: Option<usize>,
    token_file: Option<PathBuf>,
    lfs_upstream: Option<String>,
    log: Option<String>,
}

impl Arguments {
    /// Reads the file, if one is named, fills in the defaults and checks the whole.
    ///
    /// # Errors
    /// When the file cannot be read or a value is not allowed; the message names it.
    pub fn resolve(self) -> Result<Config, Error> {
        let file = match &self.config {
            Some(path) => read_file(path)?,
            None => File::default(),
        };
        let usual = Config::default();
        let database = self.database.or(file.database).unwrap_or(usual.database);
        let config = Config {
            listen: self.listen.or(file.listen).unwrap_or(usual.listen),
            data_dir: self.data_dir.or(file.data_dir).unwrap_or_else(|| data_dir_of(&database)),
            database,
            durability: self.durability.or(file.durability).unwrap_or_default(),
            lease_ms: self.lease_ms.or(file.lease_ms).unwrap_or(usual.lease_ms),
            heartbeat_ms: self.heartbeat_ms.or(file.heartbeat_ms).unwrap_or(usual.heartbeat_ms),
            retention_days: self.retention_days.or(file.retention_days).unwrap_or(usual.retention_days),
            http_threads: self.http_threads.or(file.http_threads).unwrap_or(usual.http_threads),
            token_file: self.token_file.or(file.token_file),
            lfs_upstream: self.lfs_upstream.or(file.lfs_upstream),
            log: self.log.or(file.log).unwrap_or(usual.log),
        };
        config.check()?;
        Ok(config)
    }
}

fn read_file(path: &Path) -> Result<File, Error> {
    let wrong = |why: String| Error::Configuration(format!("configuration file '{}': {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    toml::from_str(&text).map_err(|error| wrong(error.to_string()))
}

impl Config {
    /// Checks every value that does not need the machine to be asked.
    ///
    /// # Errors
    /// Names the value and what is allowed.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |why: String| Err(Error::Configuration(why));
        if let Err(why) = self.database.parse::<Target>() {
            return wrong(format!("database: {why}"));
        }
        if !(10..=60_000).contains(&self.heartbeat_ms) {
            return wrong(format!("heartbeat_ms: {} is not allowed; 10 to 60000", self.heartbeat_ms));
        }
        if self.lease_ms < self.heartbeat_ms.saturating_mul(2) || self.lease_ms > 3_600_000 {
            return wrong(format!(
                "lease_ms: {} is not allowed; at least two heartbeats ({}) and at most 3600000",
                self.lease_ms,
                self.heartbeat_ms.saturating_mul(2)
            ));
        }
        if !(1..=36_500).contains(&self.retention_days) {
            return wrong(format!("retention_days: {} is not allowed; 1 to 36500", self.retention_days));
        }
        if !(1..=256).contains(&self.http_threads) {
            return wrong(format!("http_threads: {} is not allowed; 1 to 256", self.http_threads));
        }
        let is_url = |url: &str| {
            let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
            rest.is_some_and(|rest| !rest.is_empty()) && url.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if let Some(url) = self.lfs_upstream.as_deref().filter(|url| !is_url(url)) {
            return wrong(format!(
                "lfs_upstream: '{url}' is no address that begins with https:// or http://"
            ));
        }
        Ok(())
    }

    /// The settings as a TOML file that means the same, without the database's password.
    #[must_use]
    pub fn print(&self) -> String {
        let mut shown = self.clone();
        if let Ok(target @ Target::Postgres(_)) = self.database.parse::<Target>() {
            shown.database = target.to_string();
        }
        toml::to_string(&shown).unwrap_or_default()
    }

    /// The first address that `listen` names.
    pub(crate) fn address(&self) -> Result<SocketAddr, Error> {
        let wrong =
            |why: String| Error::Configuration(format!("listen: '{}': {why}; write HOST:PORT", self.listen));
        let mut addresses = self.listen.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
        addresses.next().ok_or_else(|| wrong("has no address".to_owned()))
    }

    /// The token, if one is required. Refuses to serve other machines without one.
    pub(crate) fn token(&self, address: SocketAddr) -> Result<Option<String>, Error> {
        let Some(path) = &self.token_file else {
            if address.ip().is_loopback() {
                return Ok(None);
            }
            return Err(Error::Configuration(format!(
                "listening on {address} lets other machines in, which needs a token. Make one with\n  \
                 (umask 077 && head -c 32 /dev/urandom | base64 > agentflow.token)\n\
                 and start with --token-file agentflow.token; clients and workers send the same token"
            )));
        };
        let wrong = |why: String| Error::Configuration(format!("token file '{}': {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let token = text.trim();
        if token.len() < TOKEN_CHARS || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong(format!("needs one token of at least {TOKEN_CHARS} printable characters")));
        }
        Ok(Some(token.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("written");
        file
    }

    #[test]
    fn flags_go_before_the_file() {
        let file = file("listen = \"127.0.0.1:1\"\nlease_ms = 20000\n");
        let arguments = Arguments {
            listen: Some("127.0.0.1:2".into()),
            config: Some(file.path().into()),
            ..Arguments::default()
        };
        let config = arguments.resolve().expect("valid");
        assert_eq!((config.listen.as_str(), config.lease_ms), ("127.0.0.1:2", 20_000));
        assert_eq!(config.heartbeat_ms, 2_000);
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let file = file("lissten = \"127.0.0.1:1\"\n");
        let arguments = Arguments { config: Some(file.path().into()), ..Arguments::default() };
        let error = arguments.resolve().expect_err("unknown");
        assert!(error.to_string().contains("lissten"), "{error}");
    }

    #[test]
    fn values_are_checked() {
        for config in [
            Config { lease_ms: 100, ..Config::default() },
            Config { heartbeat_ms: 0, ..Config::default() },
            Config { http_threads: 0, ..Config::default() },
            Config { database: "mysql://x".into(), ..Config::default() },
            Config { retention_days: 0, ..Config::default() },
            Config { lfs_upstream: Some("example.com/lfs".into()), ..Config::default() },
        ] {
            assert!(config.check().is_err_and(|error| error.is_configuration()), "{config:?}");
        }
        assert!(Config::default().check().is_ok());
    }

    #[test]
    fn other_machines_need_a_token() {
        let config = Config { listen: "0.0.0.0:0".into(), ..Config::default() };
        let address = config.address().expect("an address");
        let error = config.token(address).expect_err("open to all");
        assert!(error.to_string().contains("--token-file"), "{error}");
        let short = file("short\n");
        let config = Config { token_file: Some(short.path().into()), ..config };
        assert!(config.token(address).is_err());
        let long = file(&"x".repeat(TOKEN_CHARS));
        let config = Config { token_file: Some(long.path().into()), ..config };
        assert_eq!(config.token(address).expect("long enough"), Some("x".repeat(TOKEN_CHARS)));
    }

    #[test]
    fn the_printed_settings_mean_the_same_and_hide_the_password() {
        let lfs_upstream = Some("https://{repo}.git/info/lfs".into());
        let config = Config { token_file: Some("t".into()), lfs_upstream, ..Config::default() };
        let file = file(&config.print());
        let arguments = Arguments { config: Some(file.path().into()), ..Arguments::default() };
        assert_eq!(arguments.resolve().expect("own text"), config);
        let config = Config { database: "postgres://me:secret@db/x".into(), ..config };
        assert!(!config.print().contains("secret"));
    }

    #[test]
    fn the_data_directory_is_beside_the_database() {
        assert_eq!(data_dir_of("/a/b.db"), PathBuf::from("/a/b-data"));
        assert_eq!(data_dir_of("postgres://h/x"), PathBuf::from("agentflow-data"));
    }
}
