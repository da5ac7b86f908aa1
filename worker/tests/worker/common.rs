//! A double of the master that speaks the real frames, and a real worker to speak with it.

use std::collections::{BTreeMap, HashMap};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use actix_web::rt::System;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, web};
use actix_web_actors::ws;
use agentflow_core::ids::{Attempt, CheckpointId, Epoch, Fence, SessionEpoch, TaskId};
use agentflow_core::lock::{LockFence, LockId};
use agentflow_core::spec::{Payload, Spec};
use agentflow_core::time::Wall;
use agentflow_protocol::Problem;
use agentflow_protocol::log_frame;
use agentflow_protocol::saved::CHECKPOINT_NAME;
use agentflow_protocol::worker::{
    Ask, AskAnswer, AskBody, Assign, Assignment, AttemptKey, Finished, FromWorker, Given, HeldLock, Hello,
    Report, ReportBody, ToWorker, VERSION, Welcome,
};
use serde_json::value::RawValue;

/// Longer than anything that a test waits for, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What the double has seen, and how it behaves.
pub(crate) struct State {
    pub(crate) hellos: Vec<Hello>,
    pub(crate) reports: Vec<Report>,
    pub(crate) logs: HashMap<TaskId, BTreeMap<u64, Vec<u8>>>,
    pub(crate) heartbeats: u64,
    pub(crate) draining: bool,
    pub(crate) goodbye: bool,
    pub(crate) dead: Vec<String>,
    pub(crate) tokens: Vec<String>,
    /// What attempts asked, and how far they said they were.
    pub(crate) asks: Vec<Ask>,
    pub(crate) progress: Vec<(f32, String)>,
    /// What is served at other paths: a body, and the name of a checkpoint.
    pub(crate) served: HashMap<String, (String, Option<String>)>,
    /// Answer questions, well unless there is a reason not to.
    pub(crate) answer_asks: bool,
    pub(crate) refuse_asks: Option<Problem>,
    /// Have those who ask for locks wait.
    pub(crate) hold_locks: bool,
    pub(crate) closed: usize,
    /// Answer reports, log bytes, heartbeats.
    pub(crate) ack_reports: bool,
    pub(crate) ack_logs: bool,
    pub(crate) ack_heartbeats: bool,
    /// Whether a returning worker keeps what it has.
    pub(crate) keep: bool,
    pub(crate) refuse: Option<(String, bool)>,
    pub(crate) version: u32,
    pub(crate) epoch: u64,
    pub(crate) heartbeat_ms: u64,
    pub(crate) lease_ms: u64,
    /// Answer connections with a redirect to there.
    pub(crate) redirect: Option<String>,
    session: Option<actix::Addr<Session>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    /// A test that has failed holds the lock; the double goes on all the same.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let result = work(&mut self.lock());
        self.changed.notify_all();
        result
    }
}

struct Session(Arc<Shared>);

#[derive(actix::Message)]
#[rtype(result = "()")]
enum Do {
    Say(String),
    Close,
}

impl actix::Actor for Session {
    type Context = ws::WebsocketContext<Self>;

    fn stopped(&mut self, _: &mut Self::Context) {
        self.0.change(|state| state.closed += 1);
    }
}

impl actix::Handler<Do> for Session {
    type Result = ();

    fn handle(&mut self, order: Do, context: &mut Self::Context) {
        match order {
            Do::Say(text) => context.text(text),
            Do::Close => {
                context.close(None);
                actix::ActorContext::stop(context);
            }
        }
    }
}

impl actix::StreamHandler<Result<ws::Message, ws::ProtocolError>> for Session {
    fn handle(&mut self, message: Result<ws::Message, ws::ProtocolError>, context: &mut Self::Context) {
        let answers = match message {
            Ok(ws::Message::Text(text)) => {
                let frame: FromWorker = serde_json::from_str(&text).expect("a frame of the protocol");
                let address = actix::AsyncContext::address(context);
                self.0.change(|state| state.hear(frame, address))
            }
            Ok(ws::Message::Binary(bytes)) => self.0.change(|state| state.hear_log(&bytes)),
            Ok(ws::Message::Close(_)) | Err(_) => {
                actix::ActorContext::stop(context);
                return;
            }
            Ok(_) => return,
        };
        if let Some(answer) = answers {
            context.text(serde_json::to_string(&answer).expect("plain data"));
        }
    }
}

impl State {
    fn hear(&mut self, frame: FromWorker, session: actix::Addr<Session>) -> Option<ToWorker> {
        match frame {
            FromWorker::Hello(hello) => {
                let held: Vec<AttemptKey> = hello.running.iter().map(|held| held.key).collect();
                self.hellos.push(hello);
                if let Some((reason, retry)) = self.refuse.clone() {
                    return Some(ToWorker::Refused { reason, retry });
                }
                self.session = Some(session);
                let (keep, stop) = if self.keep { (held, Vec::new()) } else { (Vec::new(), held) };
                Some(ToWorker::Welcome(Welcome {
                    version: self.version,
                    epoch: Epoch(self.epoch),
                    session: SessionEpoch(self.hellos.len() as u64),
                    heartbeat_ms: self.heartbeat_ms,
                    lease_ms: self.lease_ms,
                    keep,
                    stop,
                }))
            }
            FromWorker::Heartbeat { n } => {
                self.heartbeats += 1;
                self.ack_heartbeats.then_some(ToWorker::HeartbeatAck { n })
            }
            FromWorker::Reports { reports } => {
                let up_to = reports.last().expect("a frame has reports").no;
                self.reports.extend(reports);
                self.ack_reports.then_some(ToWorker::Ack { up_to })
            }
            FromWorker::Asks { asks } => {
                let now =
                    asks.iter().filter(|ask| !(self.hold_locks && matches!(ask.body, AskBody::Lock(_))));
                let answers = now.map(|ask| match self.refuse_asks.clone() {
                    None => given(ask),
                    problem => AskAnswer { no: ask.no, given: None, problem },
                });
                let answers = answers.collect();
                self.asks.extend(asks);
                self.answer_asks.then_some(ToWorker::Answers { answers })
            }
            FromWorker::Progress { percent, message, .. } => {
                self.progress.push((percent, message));
                None
            }
            FromWorker::Draining {} => {
                self.draining = true;
                None
            }
            FromWorker::Goodbye {} => {
                self.goodbye = true;
                None
            }
        }
    }

    fn hear_log(&mut self, frame: &[u8]) -> Option<ToWorker> {
        let (header, bytes) = log_frame::decode(frame).expect("a log frame");
        let offset = header.offset + bytes.len() as u64;
        self.logs.entry(header.key.task).or_default().insert(header.offset, bytes.to_vec());
        self.ack_logs.then_some(ToWorker::LogAck { key: header.key, offset })
    }

    /// The ends reported of a task, one for each number.
    pub(crate) fn ends(&self, task: u64) -> Vec<Finished> {
        let mut seen = std::collections::HashSet::new();
        let of_task = self.reports.iter().filter(|report| report.key.task == TaskId(task));
        of_task
            .filter(|report| seen.insert(report.no))
            .filter_map(|report| match &report.body {
                ReportBody::Finished(finished) => Some((**finished).clone()),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn has_started(&self, task: u64) -> bool {
        self.reports.iter().any(|report| {
            report.key.task == TaskId(task) && matches!(report.body, ReportBody::Started { .. })
        })
    }

    pub(crate) fn was_returned(&self, task: u64) -> bool {
        self.reports
            .iter()
            .any(|report| report.key.task == TaskId(task) && matches!(report.body, ReportBody::Returned {}))
    }

    pub(crate) fn log(&self, task: u64) -> String {
        let pieces = self.logs.get(&TaskId(task)).into_iter().flat_map(BTreeMap::values);
        String::from_utf8_lossy(&pieces.flatten().copied().collect::<Vec<u8>>()).into_owned()
    }
}

/// What a question is answered with: a checkpoint or a lock with the number of the question.
pub(crate) fn given(ask: &Ask) -> AskAnswer {
    let mut given = Given { checkpoint: None, lock: None, at: Wall(0) };
    match &ask.body {
        AskBody::Checkpoint(_) => given.checkpoint = Some(CheckpointId(ask.no)),
        AskBody::Lock(lock) => {
            let mut id = [0; 16];
            id[8..].copy_from_slice(&ask.no.to_be_bytes());
            given.lock =
                Some(HeldLock { id: LockId(id), repo: lock.repo.clone(), fence: LockFence(100 + ask.no) });
        }
        _ => {}
    }
    AskAnswer { no: ask.no, given: Some(given), problem: None }
}

/// What an attempt is given of the locks that its specification names.
pub(crate) fn granted(spec: &Spec) -> Vec<HeldLock> {
    let grant = |(n, entry): (u8, &agentflow_core::spec::SpecLocks)| HeldLock {
        id: LockId([n; 16]),
        repo: entry.repo.clone(),
        fence: LockFence(n.into()),
    };
    (1..).zip(&spec.locks).map(grant).collect()
}

/// The double. It ends when it is dropped.
pub(crate) struct Master {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    server: ServerHandle,
    thread: Option<JoinHandle<()>>,
}

async fn connect(
    request: HttpRequest,
    body: web::Payload,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, actix_web::Error> {
    let redirect = shared.lock().redirect.clone();
    if let Some(to) = redirect {
        return Ok(HttpResponse::TemporaryRedirect().insert_header(("location", to)).finish());
    }
    if let Some(token) = request.headers().get("authorization") {
        let token = token.to_str().expect("text").to_owned();
        shared.change(|state| state.tokens.push(token));
    }
    let session = Session(Arc::clone(&shared));
    ws::WsResponseBuilder::new(session, &request, body).frame_size(1 << 20).start()
}

async fn dead(
    request: HttpRequest,
    path: web::Path<String>,
    body: String,
    shared: web::Data<Shared>,
) -> HttpResponse {
    let token = request.headers().get("authorization").map(|token| format!("{token:?}"));
    shared.change(|state| state.dead.push(format!("{path} {body} {}", token.unwrap_or_default())));
    HttpResponse::Ok().body("{}")
}

async fn other(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    match shared.lock().served.get(request.path()).cloned() {
        None => HttpResponse::NotFound().finish(),
        Some((body, name)) => {
            let mut response = HttpResponse::Ok();
            response.insert_header((CHECKPOINT_NAME, name.unwrap_or_default()));
            response.body(body)
        }
    }
}

impl Master {
    pub(crate) fn start() -> Self {
        Self::start_on(0)
    }

    pub(crate) fn start_on(port: u16) -> Self {
        let state = State {
            hellos: Vec::new(),
            reports: Vec::new(),
            logs: HashMap::new(),
            heartbeats: 0,
            draining: false,
            goodbye: false,
            dead: Vec::new(),
            tokens: Vec::new(),
            asks: Vec::new(),
            progress: Vec::new(),
            served: HashMap::new(),
            answer_asks: true,
            refuse_asks: None,
            hold_locks: false,
            closed: 0,
            ack_reports: true,
            ack_logs: true,
            ack_heartbeats: true,
            keep: true,
            refuse: None,
            version: VERSION,
            epoch: 1,
            heartbeat_ms: 200,
            lease_ms: 10_000,
            redirect: None,
            session: None,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (send, receive) = std::sync::mpsc::channel();
        let data = web::Data::from(Arc::clone(&shared));
        let thread = std::thread::spawn(move || {
            System::new().block_on(async move {
                let server = HttpServer::new(move || {
                    App::new()
                        .app_data(data.clone())
                        .route("/api/v2/workers/connect", web::get().to(connect))
                        .route("/api/v2/workers/{id}/dead", web::post().to(dead))
                        .default_service(web::get().to(other))
                });
                let server = server.workers(1).disable_signals().listen(listener).expect("a server").run();
                send.send(server.handle()).expect("the test waits");
                server.await.expect("an orderly end");
            });
        });
        let server = receive.recv().expect("a server");
        Self { port, shared, server, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut State)) {
        self.shared.change(change);
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }

    /// Waits until the state gives something.
    pub(crate) fn wait<T>(&self, what: &str, mut look: impl FnMut(&State) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        let mut state = self.state();
        loop {
            if let Some(found) = look(&state) {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} did not happen; reports: {:#?}", state.reports);
            let woken = self.shared.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(crate) fn wait_for(&self, what: &str, mut look: impl FnMut(&State) -> bool) {
        self.wait(what, |state| look(state).then_some(()));
    }

    /// Waits for the worker to be welcomed for the n-th time.
    pub(crate) fn wait_hello(&self, n: usize) -> Hello {
        self.wait("a hello", |state| state.hellos.get(n - 1).cloned())
    }

    /// Waits for the end of a task.
    pub(crate) fn wait_end(&self, task: u64) -> Finished {
        self.wait(&format!("the end of task {task}"), |state| state.ends(task).pop())
    }

    pub(crate) fn say(&self, frame: &ToWorker) {
        let text = serde_json::to_string(frame).expect("plain data");
        let session = self.wait("a session", |state| state.session.clone());
        session.do_send(Do::Say(text));
    }

    pub(crate) fn disconnect(&self) {
        self.wait("a session", |state| state.session.clone()).do_send(Do::Close);
    }

    pub(crate) fn assign(&self, specs: &[Spec], keys: impl IntoIterator<Item = (AttemptKey, u32)>) {
        let tasks = keys.into_iter().map(|(key, spec)| {
            let (rank, run, checkpoint, memory) = (0, None, None, false);
            let locks = granted(&specs[spec as usize]);
            Assignment { key, spec, rank, run, checkpoint, memory, locks }
        });
        self.assign_as(specs, tasks.collect());
    }

    pub(crate) fn assign_as(&self, specs: &[Spec], tasks: Vec<Assignment>) {
        let raw = |spec: &Spec| RawValue::from_string(spec.canonical()).expect("JSON");
        let epoch = Epoch(self.state().epoch);
        self.say(&ToWorker::Assign(Assign { epoch, specs: specs.iter().map(raw).collect(), tasks }));
    }

    /// Answers reads of that path.
    pub(crate) fn serve(&self, path: &str, body: &str, name: Option<&str>) {
        let name = name.map(str::to_owned);
        self.set(|state| drop(state.served.insert(path.to_owned(), (body.to_owned(), name))));
    }

    pub(crate) fn assign_one(&self, task: u64, spec: Spec) {
        self.assign(&[spec], [(key(task), 0)]);
    }

    /// Assigns, and waits for the end.
    pub(crate) fn run(&self, task: u64, spec: Spec) -> Finished {
        self.assign_one(task, spec);
        self.wait_end(task)
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        // The stop is sent when the future is made; nobody needs to wait for its answer.
        drop(self.server.stop(false));
        if let Some(thread) = self.thread.take() {
            thread.join().expect("an orderly end");
        }
    }
}

pub(crate) fn key(task: u64) -> AttemptKey {
    AttemptKey { task: TaskId(task), attempt: Attempt(1), fence: Fence(1) }
}

pub(crate) fn shell(command: &str) -> Spec {
    Spec::new(Payload::Shell { command: command.to_owned() })
}

pub(crate) fn exec(argv: &[&str]) -> Spec {
    Spec::new(Payload::Exec { argv: argv.iter().map(|arg| (*arg).to_owned()).collect() })
}

/// Looks again and again until it is so.
pub(crate) fn eventually(what: &str, mut look: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !look() {
        assert!(Instant::now() < until, "this never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process lives and is no zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}

/// Reads a process number that somebody writes into a file.
pub(crate) fn pid_in(path: &Path) -> i32 {
    let mut pid = 0;
    eventually("a process number is written", || {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        pid = text.strip_suffix('\n').and_then(|text| text.parse().ok()).unwrap_or(0);
        pid != 0
    });
    pid
}

pub(crate) fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

pub(crate) fn path(dir: &tempfile::TempDir, name: &str) -> PathBuf {
    dir.path().join(name)
}
