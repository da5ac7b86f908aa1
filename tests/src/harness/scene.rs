//! A database, a directory and a port: a place where masters and workers can be started, killed and
//! started again.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use agentflow_schema::Target;
use agentflow_schema::testing::TestDatabase;
use tempfile::TempDir;

use super::{Client, Failure, Process, binaries, free_port};

/// See the module. Processes must be dropped before it.
pub struct Scene {
    database: TestDatabase,
    directory: TempDir,
    port: u16,
    /// Flags for every master of this scene.
    pub master_flags: Vec<String>,
    client: Client,
}

/// What differs between workers.
#[derive(Clone, Debug, Default)]
pub struct WorkerOptions {
    /// Groups; `default` when empty.
    pub groups: Vec<String>,
    /// Attempts at once; the program's default when absent.
    pub slots: Option<u32>,
    /// Attempts that may wait there; the program's default when absent.
    pub prefetch: Option<u32>,
}

impl Scene {
    /// On a new database. Builds the programs if needed.
    ///
    /// # Errors
    /// When the programs cannot be built, or there is no port or directory.
    pub fn new(database: TestDatabase) -> Result<Self, Failure> {
        binaries()?;
        let port = free_port()?;
        let client = Client::new(&format!("http://127.0.0.1:{port}"));
        Ok(Self { database, directory: tempfile::tempdir()?, port, master_flags: Vec::new(), client })
    }

    /// Short leases, so that tests of their end need not wait for ten seconds.
    #[must_use]
    pub fn with_lease(mut self, lease: Duration, heartbeat: Duration) -> Self {
        for (flag, duration) in [("--lease-ms", lease), ("--heartbeat-ms", heartbeat)] {
            self.master_flags.extend([flag.to_owned(), duration.as_millis().to_string()]);
        }
        self
    }

    /// Speaks to the scene's master.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Where a master listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A place for the test's own files.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The SQLite file, if it is one.
    #[must_use]
    pub fn database_file(&self) -> Option<&Path> {
        self.database.file()
    }

    /// Starts a master on the scene's port and waits until it takes work.
    ///
    /// # Errors
    /// When it ends instead; the message has what it logged.
    pub fn start_master(&self) -> Result<Process, Failure> {
        let mut process = self.spawn_master(self.port)?;
        let line = process.first_line()?;
        if line != format!("listening on http://127.0.0.1:{}", self.port) {
            return Err(format!("the master said '{line}'").into());
        }
        Ok(process)
    }

    /// Starts a master on some port and does not wait for it.
    ///
    /// # Errors
    /// When there can be no process.
    pub fn spawn_master(&self, port: u16) -> Result<Process, Failure> {
        let database = match self.database.target() {
            Target::Sqlite(path) => path.display().to_string(),
            Target::Postgres(url) => url.clone(),
        };
        let mut command = Command::new(&binaries()?.master);
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--database", &database, "--log", "warn"]);
        command.arg("--data-dir").arg(self.path("master")).args(&self.master_flags).stdout(Stdio::piped());
        Process::start("the master", &mut command, &self.path("master.log"))
    }

    /// Starts a worker, always with the same directory for the same id, and does not wait for it.
    ///
    /// # Errors
    /// When there can be no process.
    pub fn start_worker(&self, id: &str, options: &WorkerOptions) -> Result<Process, Failure> {
        let mut command = Command::new(&binaries()?.worker);
        command.args(["--master", &format!("http://127.0.0.1:{}", self.port), "--id", id, "--data-dir"]);
        command.arg(self.path(id)).env("RUST_LOG", "warn").stdout(Stdio::null());
        for group in &options.groups {
            command.args(["--group", group]);
        }
        for (flag, number) in [("--slots", options.slots), ("--prefetch", options.prefetch)] {
            if let Some(number) = number {
                command.args([flag, &number.to_string()]);
            }
        }
        Process::start(&format!("worker {id}"), &mut command, &self.path(&format!("{id}.log")))
    }
}
