//! Talking to a master over HTTP: requests, redirects, and which failures are tried again.
//!
//! Owns: the connection pool and the rule of repetition. A request is sent again only where that
//! cannot do harm: it is a read, it carries an idempotency key, or it was refused before the
//! master acted on it (429, 503). Must not know: what the answers mean.
//!
//! Until the master has answered once, a refused connection ends the command at once: the address
//! is probably wrong. Afterwards the master is probably restarting, and the command waits for it.

use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use agentflow_protocol::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::{Agent, Body};

use crate::error::Error;

mod query;
mod random;
mod tries;

use agentflow_protocol::percent::decode;
pub(crate) use agentflow_protocol::percent::encode;
pub(crate) use query::with_query;
pub(crate) use random::random_hex;
use tries::Tries;

/// How long a lost master is waited for unless told otherwise: longer than the restart of one
/// with a million queued tasks.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A master on another continent answers a connection within this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// An answer is late after this; long polls get it on top of what they ask for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A stream that is silent for so long is opened again: its peer may be gone without a word.
const STREAM_SILENCE: Duration = Duration::from_secs(90);

/// Redirects followed for one request: a standby names the leader, which may just be changing.
const REDIRECTS: usize = 5;

/// Largest answer read into memory: a page of events or tasks is about 1 MiB.
const ANSWER_BYTES: u64 = 256 << 20;

/// Where to find the masters and how to treat them.
pub(crate) struct Client {
    agent: Agent,
    /// Base addresses without a final slash; tried in turn.
    masters: Mutex<Vec<String>>,
    current: AtomicUsize,
    token: Option<String>,
    /// What the user asked for.
    patience: Option<Duration>,
    /// Whether any master has answered yet.
    met: AtomicBool,
    /// Whether the master is away, and the user has been told unless it is quiet.
    told: AtomicBool,
    /// Whether it says nothing of its troubles.
    quiet: AtomicBool,
}

/// What may be done when a request fails on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    /// It does no harm to send it twice.
    Safe,
    /// It must not be sent twice.
    Never,
}

/// One request, ready to be sent as often as needed.
struct Call<'a> {
    method: Method,
    path: &'a str,
    accept: &'a str,
    body: Vec<u8>,
    key: Option<&'a str>,
    again: Again,
    timeout: Option<Duration>,
}

impl Client {
    /// A client of these masters. `patience` replaces both rules about waiting for a master.
    pub(crate) fn new(masters: Vec<String>, token: Option<String>, patience: Option<Duration>) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .user_agent(concat!("agentflow/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Self {
            agent,
            masters: Mutex::new(masters),
            current: AtomicUsize::new(0),
            token,
            patience,
            met: AtomicBool::new(false),
            told: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
        }
    }

    /// From now on it does not say that it is waiting.
    pub(crate) fn hush(&self) {
        self.quiet.store(true, Ordering::Relaxed);
    }

    /// Whether it is waiting for a master that does not answer.
    pub(crate) fn is_away(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    /// Another one that waits for nothing and says nothing.
    pub(crate) fn impatient(&self) -> Self {
        let masters = self.masters.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let other = Self::new(masters, self.token.clone(), Some(Duration::ZERO));
        other.current.store(self.current.load(Ordering::Relaxed), Ordering::Relaxed);
        other.hush();
        other
    }

    /// The master that is spoken to now.
    pub(crate) fn address(&self) -> String {
        let masters = self.masters.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let index = self.current.load(Ordering::Relaxed) % masters.len().max(1);
        masters.get(index).cloned().unwrap_or_default()
    }

    /// Reads. Tried again while the master is away.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.read(path, ANSWER_TIMEOUT)
    }

    /// Reads what the master may hold back for up to `wait`.
    pub(crate) fn get_waiting<T: DeserializeOwned>(&self, path: &str, wait: Duration) -> Result<T, Error> {
        self.read(path, wait + ANSWER_TIMEOUT)
    }

    /// Changes something; never sent twice.
    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Error> {
        self.change(Method::POST, path, body, None, ANSWER_TIMEOUT)
    }

    /// The same where a late answer is worth nothing.
    pub(crate) fn post_within<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<T, Error> {
        self.change(Method::POST, path, body, None, limit)
    }

    /// Changes something; the key makes it safe to send again.
    pub(crate) fn post_keyed<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        key: &str,
    ) -> Result<T, Error> {
        self.change(Method::POST, path, body, Some(key), ANSWER_TIMEOUT)
    }

    /// The same for what the master may hold back for up to `wait`.
    pub(crate) fn post_keyed_waiting<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        key: &str,
        wait: Duration,
    ) -> Result<T, Error> {
        self.change(Method::POST, path, body, Some(key), wait + ANSWER_TIMEOUT)
    }

    /// Changes fields; saying the same twice changes nothing more.
    pub(crate) fn patch<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Error> {
        self.change(Method::PATCH, path, body, None, ANSWER_TIMEOUT)
    }

    /// Puts something in its place; saying the same twice changes nothing more.
    pub(crate) fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Error> {
        self.change(Method::PUT, path, body, None, ANSWER_TIMEOUT)
    }

    /// Takes something away; never sent twice, because the second time it would not be there.
    pub(crate) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.bare(Method::DELETE, path, Again::Never, ANSWER_TIMEOUT)
    }

    /// Takes something away; that it is not there any more is as well.
    pub(crate) fn remove(&self, path: &str) -> Result<(), Error> {
        let (accept, body, timeout) = ("application/json", Vec::new(), Some(ANSWER_TIMEOUT));
        let (method, key, again) = (Method::DELETE, None, Again::Safe);
        self.send(&Call { method, path, accept, body, key, again, timeout }).map(drop)
    }

    /// Opens a stream of that media type.
    pub(crate) fn stream(&self, path: &str, accept: &str) -> Result<impl Read + use<>, Error> {
        let response = self.open(path, accept)?;
        Ok(response.into_body().into_with_config().limit(u64::MAX).reader())
    }

    /// Opens a file, and says what it is called if the master does.
    pub(crate) fn download(&self, path: &str) -> Result<(Option<String>, impl Read + use<>), Error> {
        let response = self.open(path, "application/octet-stream")?;
        let header = response.headers().get("content-disposition").and_then(|value| value.to_str().ok());
        let name =
            header.and_then(|text| text.split_once("UTF-8''")).map(|(_, name)| decode(name).into_owned());
        Ok((name, response.into_body().into_with_config().limit(u64::MAX).reader()))
    }

    fn open(&self, path: &str, accept: &str) -> Result<Response<Body>, Error> {
        let call = Call {
            method: Method::GET,
            path,
            accept,
            body: Vec::new(),
            key: None,
            again: Again::Safe,
            timeout: None,
        };
        self.send(&call)
    }

    /// Whether a master answers right now.
    pub(crate) fn answers(&self) -> bool {
        let url = format!("{}/health", self.address());
        let request = self.agent.get(&url).config().timeout_global(Some(Duration::from_secs(2))).build();
        request.call().is_ok_and(|response| response.status().is_success())
    }

    fn read<T: DeserializeOwned>(&self, path: &str, timeout: Duration) -> Result<T, Error> {
        self.bare(Method::GET, path, Again::Safe, timeout)
    }

    /// A request without a body.
    fn bare<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        again: Again,
        timeout: Duration,
    ) -> Result<T, Error> {
        let (accept, body, key, timeout) = ("application/json", Vec::new(), None, Some(timeout));
        self.json(&Call { method, path, accept, body, key, again, timeout })
    }

    fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        key: Option<&str>,
        limit: Duration,
    ) -> Result<T, Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::Usage(error.to_string()))?;
        let is_safe = key.is_some() || [Method::PATCH, Method::PUT].contains(&method);
        let again = if is_safe { Again::Safe } else { Again::Never };
        let timeout = Some(limit);
        self.json(&Call { method, path, accept: "application/json", body, key, again, timeout })
    }

    /// Sends, reads the whole answer and decodes it; a connection that breaks in the middle of
    /// the answer counts like one that breaks before it.
    fn json<T: DeserializeOwned>(&self, call: &Call<'_>) -> Result<T, Error> {
        let mut tries = Tries::new(self);
        loop {
            let response = self.send(call)?;
            let status = response.status();
            let mut body = response.into_body();
            match body.with_config().limit(ANSWER_BYTES).read_to_vec() {
                Ok(bytes) => {
                    return serde_json::from_slice(&bytes).map_err(|error| Error::Answer {
                        at: format!("{}{}", self.address(), call.path),
                        cause: format!("{status}, {error}"),
                    });
                }
                Err(error) => tries.again(&error, call.again)?,
            }
        }
    }

    /// Sends until there is a good answer, a refusal, or no patience left.
    fn send(&self, call: &Call<'_>) -> Result<Response<Body>, Error> {
        let mut tries = Tries::new(self);
        let mut redirects = 0;
        loop {
            let response = match self.send_once(call) {
                Ok(response) => response,
                Err(error) => {
                    tries.again(&error, call.again)?;
                    continue;
                }
            };
            let status = response.status();
            self.met.store(true, Ordering::Relaxed);
            if status.is_success() {
                self.back();
                return Ok(response);
            }
            if let Some(leader) = redirect(&response, call.path).filter(|_| redirects < REDIRECTS) {
                redirects += 1;
                self.turn_to(leader);
                continue;
            }
            let retry_after = retry_after(&response);
            let problem = problem(response);
            match status {
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                    tries.not_now(problem, retry_after)?;
                }
                _ => return Err(Error::Problem(Box::new(problem))),
            }
        }
    }

    fn send_once(&self, call: &Call<'_>) -> Result<Response<Body>, ureq::Error> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("{}{}", self.address(), call.path))
            .header("accept", call.accept);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(key) = call.key {
            request = request.header("idempotency-key", key);
        }
        if [Method::GET, Method::DELETE].contains(&call.method) {
            let request = request.body(()).map_err(ureq::Error::Http)?;
            let request = self.agent.configure_request(request);
            let request = match call.timeout {
                Some(timeout) => request.timeout_global(Some(timeout)),
                None => request.timeout_per_read(Some(STREAM_SILENCE)),
            };
            return self.agent.run(request.build());
        }
        let request = request
            .header("content-type", "application/json")
            .body(call.body.as_slice())
            .map_err(ureq::Error::Http)?;
        self.agent.run(self.agent.configure_request(request).timeout_global(call.timeout).build())
    }

    /// Speaks to another master from now on.
    fn turn_to(&self, leader: String) {
        let mut masters = self.masters.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let index = masters.iter().position(|known| *known == leader).unwrap_or_else(|| {
            masters.push(leader);
            masters.len() - 1
        });
        self.current.store(index, Ordering::Relaxed);
    }

    fn away(&self, why: &str, patience: Duration) {
        let is_first = !self.told.swap(true, Ordering::Relaxed);
        if is_first && !self.quiet.load(Ordering::Relaxed) {
            let seconds = patience.as_secs_f64().ceil();
            eprintln!("{}: {why}; trying again for up to {seconds} s", self.address());
        }
    }

    fn back(&self) {
        let was_away = self.told.swap(false, Ordering::Relaxed);
        if was_away && !self.quiet.load(Ordering::Relaxed) {
            eprintln!("{}: it answers again", self.address());
        }
    }
}

/// The leader that a standby names, as a base address.
fn redirect(response: &Response<Body>, path: &str) -> Option<String> {
    if !matches!(response.status().as_u16(), 307 | 308) {
        return None;
    }
    let location = response.headers().get("location")?.to_str().ok()?;
    let base = location.strip_suffix(path).unwrap_or(location).trim_end_matches('/');
    base.starts_with("http://").then(|| base.to_owned())
}

fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let seconds: u64 = response.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The problem in an answer, or one made from what came instead.
fn problem(response: Response<Body>) -> Problem {
    let status = response.status();
    let mut body = response.into_body();
    let bytes = body.with_config().limit(1 << 20).read_to_vec().unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(&bytes);
        let line: String = text.lines().next().unwrap_or_default().chars().take(200).collect();
        Problem::new(status.as_u16(), "unexpected", format!("the master answered {status} {line}").trim_end())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_address_is_named_at_once() {
        // Port 1 is reserved and unused.
        let client = Client::new(vec!["http://127.0.0.1:1".into()], None, None);
        let error = client.get::<serde_json::Value>("/health").expect_err("nobody listens");
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().starts_with("no master at http://127.0.0.1:1: start one"), "{error}");
        assert!(!client.answers());
    }
}
