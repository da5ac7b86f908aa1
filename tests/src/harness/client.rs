//! A client for the API, as plain as a user's script.

use std::collections::BTreeMap;
use std::time::Duration;

use agentflow_core::ids::Seq;
use agentflow_protocol::api::{EventView, Events, Stats, TaskPage, TaskView, WorkerView, Workers};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Failure, wait_for};

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Of HTTP.
    pub status: u16,
    /// As it came.
    pub body: String,
}

/// There was no answer: what was asked for may have happened or not.
#[derive(Debug)]
pub struct Lost(pub String);

/// Speaks to one master.
#[derive(Clone, Debug)]
pub struct Client {
    agent: ureq::Agent,
    url: String,
}

impl Client {
    /// For a master at that address.
    #[must_use]
    pub fn new(url: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build();
        Self { agent: config.into(), url: url.to_owned() }
    }

    /// Asks.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub fn get(&self, path: &str) -> Result<Answer, Lost> {
        answer(self.agent.get(format!("{}{path}", self.url)).call())
    }

    /// Sends JSON.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub fn post(&self, path: &str, body: &Value, key: Option<&str>) -> Result<Answer, Lost> {
        let mut request = self.agent.post(format!("{}{path}", self.url));
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        answer(request.content_type("application/json").send(body.to_string().as_bytes()))
    }

    /// Takes away.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub fn delete(&self, path: &str) -> Result<Answer, Lost> {
        answer(self.agent.delete(format!("{}{path}", self.url)).call())
    }

    /// Asks for what must be there.
    ///
    /// # Errors
    /// When there is no answer, another status than 200, or another form.
    pub fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.get(path).map_err(|lost| format!("GET {path}: {}", lost.0))?.expect(200)
    }

    /// Makes tasks; gives their ids.
    ///
    /// # Errors
    /// When they are not accepted.
    pub fn submit(&self, tasks: &[Value]) -> Result<Vec<u64>, Failure> {
        let answer = self.post("/api/v2/tasks", &json!({ "tasks": tasks }), None);
        let ids: BTreeMap<String, Vec<u64>> = answer.map_err(|lost| lost.0)?.expect(201)?;
        ids.into_values().next().ok_or_else(|| "no ids".into())
    }

    /// One task.
    ///
    /// # Errors
    /// When it is not there.
    pub fn task(&self, id: u64) -> Result<TaskView, Failure> {
        self.read(&format!("/api/v2/tasks/{id}"))
    }

    /// Waits for a task to settle.
    ///
    /// # Errors
    /// When it does not within `patience`.
    pub fn settled(&self, id: u64, patience: Duration) -> Result<TaskView, Failure> {
        let path = format!("/api/v2/tasks/{id}?wait_ms={}", patience.as_millis().min(50_000));
        let task: TaskView = self.read(&path)?;
        if task.status.is_settled() {
            return Ok(task);
        }
        Err(format!("task {id} is {:?} after {patience:?}", task.status).into())
    }

    /// Every task, by pages.
    ///
    /// # Errors
    /// When a page cannot be read.
    pub fn tasks(&self) -> Result<Vec<TaskView>, Failure> {
        let mut all = Vec::new();
        let mut cursor = None::<String>;
        loop {
            let after = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let page: TaskPage = self.read(&format!("/api/v2/tasks?limit=1000{after}"))?;
            all.extend(page.tasks);
            match page.next_cursor {
                Some(next) => cursor = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// Every event after a number, by pages.
    ///
    /// # Errors
    /// When a page cannot be read.
    pub fn events(&self, after: Seq) -> Result<Vec<EventView>, Failure> {
        let mut all: Vec<EventView> = Vec::new();
        loop {
            let last = all.last().map_or(after, |event| event.seq);
            let page: Events = self.read(&format!("/api/v2/events?after={last}&limit=1000"))?;
            if page.events.is_empty() {
                return Ok(all);
            }
            all.extend(page.events);
        }
    }

    /// The counts.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn stats(&self) -> Result<Stats, Failure> {
        self.read("/api/v2/stats")
    }

    /// One worker, if the master knows it.
    ///
    /// # Errors
    /// When workers cannot be read.
    pub fn worker(&self, id: &str) -> Result<Option<WorkerView>, Failure> {
        let workers: Workers = self.read("/api/v2/workers")?;
        Ok(workers.workers.into_iter().find(|worker| worker.id == id))
    }

    /// One number of `/metrics`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn metric(&self, name: &str) -> Result<f64, Failure> {
        let page = self.get("/metrics").map_err(|lost| lost.0)?;
        let value = page.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.ok_or_else(|| format!("no {name} in /metrics"))?.trim().parse()?)
    }

    /// Waits until a worker is connected.
    ///
    /// # Errors
    /// When it does not come within `patience`.
    pub fn wait_online(&self, id: &str, patience: Duration) -> Result<WorkerView, Failure> {
        wait_for(&format!("worker {id} is online"), patience, || {
            self.worker(id).ok().flatten().filter(|worker| worker.connected && worker.status == "online")
        })
    }
}

impl Answer {
    /// The body, if the status is that one.
    ///
    /// # Errors
    /// When it is not, or the body has another form.
    pub fn expect<T: DeserializeOwned>(&self, status: u16) -> Result<T, Failure> {
        if self.status != status {
            return Err(format!("{} instead of {status}: {}", self.status, self.body).into());
        }
        serde_json::from_str(&self.body).map_err(|error| format!("{error}: {}", self.body).into())
    }
}

fn answer(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Answer, Lost> {
    let lost = |error: ureq::Error| Lost(error.to_string());
    let mut response = result.map_err(lost)?;
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(64 << 20).read_to_string().map_err(lost)?;
    Ok(Answer { status, body })
}
