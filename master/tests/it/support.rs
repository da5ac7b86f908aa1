//! One master per test, with a temporary directory, and verbs to use it.

use std::time::{Duration, Instant};

use agentflow_master::{Config, Running, start};
use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for anything that should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) text: String,
    pub(crate) headers: ureq::http::HeaderMap,
}

impl Answer {
    /// The body of an answer that should be this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        if status >= 400 {
            assert_eq!(self.headers["content-type"], "application/problem+json");
            assert_eq!(self.body["status"], status);
        }
        self.body
    }
}

/// A client of one master.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) url: String,
    agent: ureq::Agent,
    token: Option<String>,
}

impl Client {
    pub(crate) fn new(url: &str) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .into();
        Self { url: url.to_owned(), agent, token: None }
    }

    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(body.to_vec()).expect("a request");
        let mut answer = self.agent.run(request).expect("an answer");
        let text = answer.body_mut().with_config().limit(64 << 20).read_to_string().expect("a body");
        Answer {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
            text,
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], b"")
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.request("POST", path, &[], body.as_bytes())
    }

    /// The bytes of an answer, whatever they are.
    pub(crate) fn bytes(&self, path: &str) -> Vec<u8> {
        let mut answer = self.agent.get(format!("{}{path}", self.url)).call().expect("an answer");
        answer.body_mut().with_config().limit(64 << 20).read_to_vec().expect("a body")
    }

    /// Makes one task and says its id.
    pub(crate) fn submit(&self, body: &str) -> u64 {
        self.post("/api/v2/tasks", body).expect(201)["id"].as_u64().expect("an id")
    }

    /// Asks again and again until the answer is right.
    #[track_caller]
    pub(crate) fn until(&self, path: &str, right: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + SOON;
        loop {
            let answer = self.get(path);
            if answer.status == 200 && right(&answer.body) {
                return answer.body;
            }
            assert!(Instant::now() < deadline, "{path} stays {}", answer.text);
            std::thread::yield_now();
        }
    }
}

/// A master and where it keeps its state.
pub(crate) struct TestMaster {
    _dir: TempDir,
    pub(crate) config: Config,
    pub(crate) client: Client,
    running: Option<Running>,
}

impl TestMaster {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    pub(crate) fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = config(&dir);
        change(&mut config);
        let running = start(config.clone()).expect("a master");
        let client = Client::new(&running.url());
        Self { _dir: dir, config, client, running: Some(running) }
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.running.as_ref().expect("running").address()
    }

    /// Stops and says how long that took.
    pub(crate) fn stop(&mut self) -> Duration {
        let begun = Instant::now();
        let running = self.running.take().expect("running");
        running.stop();
        running.wait().expect("a good end");
        begun.elapsed()
    }

    /// Stops and starts again on the same state.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Starts again on the same state after a stop.
    pub(crate) fn start_again(&mut self) {
        let running = start(self.config.clone()).expect("a master");
        self.client = Client::new(&running.url());
        self.running = Some(running);
    }
}

impl Drop for TestMaster {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
            let ended = running.wait();
            if !std::thread::panicking() {
                ended.expect("a good end");
            }
        }
    }
}

/// Settings for a master in a directory.
pub(crate) fn config(dir: &TempDir) -> Config {
    Config {
        listen: "127.0.0.1:0".to_owned(),
        database: dir.path().join("test.db").display().to_string(),
        data_dir: dir.path().join("data"),
        ..Config::default()
    }
}
