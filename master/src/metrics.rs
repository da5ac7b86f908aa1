//! Numbers for Prometheus. Counting costs a lookup and an addition; no lock is taken.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use agentflow_actors::MasterHandles;
use agentflow_core::kernel::Stats;

use crate::http::ROUTES;

/// Classes of HTTP status, 1xx to 5xx.
const CLASSES: usize = 5;

type Counters = [AtomicU64; CLASSES];

/// What the master counts itself.
pub(crate) struct Metrics {
    /// By method and path. The empty path counts what was asked of no route.
    requests: HashMap<(&'static str, &'static str), Counters>,
    /// Open TCP connections.
    pub(crate) connections: Arc<AtomicUsize>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let none = std::iter::once(("", ""));
        let routes = ROUTES.iter().map(|route| (route.method.as_str(), route.path));
        Self {
            requests: routes.chain(none).map(|key| (key, Counters::default())).collect(),
            connections: Arc::default(),
        }
    }

    /// Counts an answer.
    pub(crate) fn count(&self, request: &HttpRequest, status: StatusCode) {
        let pattern = request.match_pattern().unwrap_or_default();
        let counters = self
            .requests
            .get(&(request.method().as_str(), pattern.as_str()))
            .or_else(|| self.requests.get(&("", "")));
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(counter) = counters.and_then(|counters| counters.get(class)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Everything, in Prometheus' text form.
    pub(crate) fn text(&self, stats: &Stats, handles: &MasterHandles) -> String {
        let mut page = Page(String::new());
        let settled = &stats.settled;
        let tasks = [
            ("blocked", stats.blocked),
            ("pending", stats.pending),
            ("running", stats.running),
            ("completed", settled.completed),
            ("failed", settled.failed),
            ("cancelled", settled.cancelled),
            ("skipped", settled.skipped),
        ];
        page.head("agentflow_tasks", "gauge", "Tasks by status.");
        for (status, count) in tasks {
            page.line(&format!("agentflow_tasks{{status=\"{status}\"}}"), count);
        }
        page.head("agentflow_workers", "gauge", "Workers by status.");
        let workers = [("online", stats.online), ("offline", stats.offline), ("draining", stats.draining)];
        for (status, count) in workers {
            page.line(&format!("agentflow_workers{{status=\"{status}\"}}"), count);
        }
        page.one("agentflow_slots", "gauge", "Slots of workers that are not offline.", stats.slots);
        page.one("agentflow_slots_used", "gauge", "Of these, taken.", stats.slots_used);
        page.one("agentflow_locks", "gauge", "Locks of files that are held.", stats.locks_held);
        let help = "Requests and tasks that wait for locks of files.";
        page.one("agentflow_locks_waiting", "gauge", help, stats.locks_waiting);
        let store = &handles.store;
        page.one("agentflow_commits_total", "counter", "Transactions.", store.commits());
        page.one("agentflow_rows_written_total", "counter", "Rows and events written.", store.rows());
        page.one("agentflow_events_total", "counter", "Events written.", store.events());
        page.head("agentflow_commit_seconds_total", "counter", "Time spent in transactions.");
        page.line("agentflow_commit_seconds_total", store.commit_us() as f64 / 1e6);
        page.one("agentflow_disk_full", "gauge", "Whether writes are refused.", u64::from(store.is_full()));
        let connections = self.connections.load(Ordering::Relaxed) as u64;
        page.one("agentflow_connections", "gauge", "Open TCP connections.", connections);
        self.requests(&mut page);
        page.head("agentflow_uptime_seconds", "gauge", "Since the master started.");
        page.line("agentflow_uptime_seconds", handles.office.started.elapsed().as_secs_f64());
        page.one("agentflow_epoch", "gauge", "The master's term of office.", handles.office.epoch.0);
        page.head("agentflow_build_info", "gauge", "Always 1.");
        page.line(concat!("agentflow_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1);
        page.0
    }

    fn requests(&self, page: &mut Page) {
        page.head("agentflow_http_requests_total", "counter", "Requests by route and class of status.");
        for route in ROUTES.iter().map(|route| (route.method.as_str(), route.path)).chain([("", "")]) {
            let Some(counters) = self.requests.get(&route) else { continue };
            let (method, path) = route;
            for (class, counter) in counters.iter().enumerate() {
                let count = counter.load(Ordering::Relaxed);
                if count > 0 {
                    let class = class + 1;
                    let labels = format!("method=\"{method}\",route=\"{path}\",status=\"{class}xx\"");
                    page.line(&format!("agentflow_http_requests_total{{{labels}}}"), count);
                }
            }
        }
    }
}

/// The text as it grows. Writing into a string cannot fail.
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.head(name, kind, help);
        self.line(name, value);
    }
}
