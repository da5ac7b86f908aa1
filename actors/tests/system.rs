//! The actor system on a real SQLite database, with a worker that is an actor of this test.

use std::path::Path;
use std::sync::Arc;

use actix::{Actor, Context, Handler};
use agentflow_actors::{
    Ask, Connect, FromDoor, Gone, MasterSystem, Next, Recent, Settings, ToDoor, WaitSettled, WorkerSession,
};
use agentflow_core::attempt::{AttemptKey, End, Finished, Hello, Report, ReportBody};
use agentflow_core::batch::Outcome;
use agentflow_core::event::Subject;
use agentflow_core::ids::{BootId, Seq, TaskId};
use agentflow_core::kernel::{Answer, NewTask, PreparedSpec, Request};
use agentflow_core::spec::{ContinueFrom, Payload, Resources, Spec};
use agentflow_core::status::Status;
use agentflow_core::time::Wall;
use agentflow_protocol::worker::{FromWorker, ToWorker};
use agentflow_schema::{Durability, Target};
use tokio::sync::mpsc;

/// Hands every frame to the test.
struct Door(mpsc::UnboundedSender<ToWorker>);

impl Actor for Door {
    type Context = Context<Self>;
}

impl Handler<ToDoor> for Door {
    type Result = ();

    fn handle(&mut self, message: ToDoor, _: &mut Context<Self>) {
        if let ToDoor::Frame(frame) = message {
            // The test may be over.
            let _ = self.0.send(*frame);
        }
    }
}

struct Worker {
    session: actix::Addr<WorkerSession>,
    frames: mpsc::UnboundedReceiver<ToWorker>,
    reports: u64,
}

impl Worker {
    async fn connect(system: &MasterSystem, boot: u64) -> Self {
        let (sender, frames) = mpsc::unbounded_channel();
        let door = Door(sender).start().recipient();
        let hello = Hello {
            version: 2,
            worker: "w1".into(),
            boot: BootId(boot),
            groups: vec!["default".into()],
            labels: std::collections::BTreeMap::new(),
            resources: Resources::default(),
            slots: 4,
            prefetch: 16,
            handlers: vec![],
            sandboxes: vec![],
            running: vec![],
            draining: false,
            at: Wall(0),
        };
        let connect = Connect { hello, door, socket: None };
        let session = system.handles().registry.send(connect).await.expect("alive").expect("accepted");
        Self { session, frames, reports: 0 }
    }

    /// The next assignments.
    async fn work(&mut self) -> Vec<AttemptKey> {
        loop {
            if let ToWorker::Assign(assign) = self.frames.recv().await.expect("a frame") {
                return assign.tasks.into_iter().map(|task| task.key).collect();
            }
        }
    }

    fn finish(&mut self, keys: &[AttemptKey]) {
        let reports = keys
            .iter()
            .map(|key| {
                self.reports += 1;
                let finished = Finished {
                    started_at: Wall(1),
                    finished_at: Wall(2),
                    end: End::Completed,
                    outcome: Outcome::default(),
                    log_bytes: 0,
                    log_cut: 0,
                };
                Report { no: self.reports, key: *key, body: ReportBody::Finished(Box::new(finished)) }
            })
            .collect();
        self.session.do_send(FromDoor(FromWorker::Reports { reports }));
    }

    async fn acked(&mut self) {
        loop {
            if let ToWorker::Ack { up_to } = self.frames.recv().await.expect("a frame")
                && up_to >= self.reports
            {
                return;
            }
        }
    }
}

fn start(dir: &Path) -> MasterSystem {
    MasterSystem::start(Settings {
        target: Target::Sqlite(dir.join("a.db")),
        durability: Durability::Full,
        data_dir: dir.to_owned(),
        lease_ms: 10_000,
        heartbeat_ms: 2_000,
        retention_days: 30,
        pruned_logs: None,
    })
    .expect("starts")
}

fn submit(count: usize) -> Ask {
    let spec = Arc::new(PreparedSpec::new(Spec::new(Payload::Noop)));
    let task = || NewTask {
        title: "t".into(),
        group: "default".into(),
        priority: 50,
        spec: Arc::clone(&spec),
        not_before: None,
        hold: false,
        needs: Vec::new(),
    };
    Ask(Request::Submit { tasks: (0..count).map(|_| task()).collect(), key: None })
}

#[actix::test]
async fn a_task_goes_through_and_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let system = start(dir.path());
    let mut worker = Worker::connect(&system, 1).await;
    let handles = system.handles();
    let settled = handles.events.send(WaitSettled(Subject::Task(TaskId(1))));
    let answer = handles.dispatcher.send(submit(2)).await.expect("alive");
    assert!(matches!(answer, Ok(Answer::Submitted { first: TaskId(1), count: 2, .. })), "{answer:?}");
    let mut work = worker.work().await;
    if work.len() < 2 {
        work.extend(worker.work().await);
    }
    // An assignment is durable before it is heard of.
    assert!(handles.readers.task(TaskId(1)).expect("read").is_some_and(|task| task.state.worker.is_some()));
    worker.finish(&work[..1]);
    worker.acked().await;
    settled.await.expect("alive");
    let row = handles.readers.task(TaskId(1)).expect("read").expect("there");
    assert_eq!(row.state.status, Status::Completed);
    let recent = handles.events.send(Next { after: Seq(0), limit: 100 }).await.expect("alive");
    let Ok(Recent::Events(segments)) = recent else { panic!("{recent:?}") };
    assert_eq!(segments[0].first_seq, Seq(1));
    worker.session.do_send(Gone);
    system.stop().await;

    let system = start(dir.path());
    let handles = system.handles();
    assert_eq!((handles.office.recovered, handles.office.epoch.0), (1, 2));
    let mut worker = Worker::connect(&system, 2).await;
    let work = worker.work().await;
    assert_eq!((work[0].task, work[0].attempt.0), (TaskId(2), 2));
    worker.finish(&work);
    worker.acked().await;
    let stats = handles.dispatcher.send(Ask(Request::Stats)).await.expect("alive");
    let Ok(Answer::Stats(stats)) = stats else { panic!("{stats:?}") };
    assert_eq!((stats.settled.completed, stats.pending), (2, 0));
    system.stop().await;
}

#[actix::test]
async fn a_settled_task_is_run_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let system = start(dir.path());
    let handles = system.handles();
    let mut worker = Worker::connect(&system, 1).await;
    handles.dispatcher.send(submit(1)).await.expect("alive").expect("accepted");
    let work = worker.work().await;
    worker.finish(&work);
    worker.acked().await;
    let retry = Ask(Request::Retry { tasks: vec![TaskId(1)], continue_from: ContinueFrom::Checkpoint });
    let answer = handles.dispatcher.send(retry).await.expect("alive");
    assert!(matches!(answer, Ok(Answer::Changed { changed: 1, .. })), "{answer:?}");
    assert_eq!(worker.work().await[0].attempt.0, 2);
    system.stop().await;
}

#[actix::test]
async fn large_submissions_wait_their_turn_and_all_arrive() {
    let dir = tempfile::tempdir().expect("a directory");
    let system = start(dir.path());
    let handles = system.handles();
    let answers: Vec<_> = (0..10).map(|_| handles.dispatcher.send(submit(5_000))).collect();
    for answer in answers {
        assert!(answer.await.expect("alive").is_ok());
    }
    let stats = handles.dispatcher.send(Ask(Request::Stats)).await.expect("alive");
    let Ok(Answer::Stats(stats)) = stats else { panic!("{stats:?}") };
    assert_eq!(stats.pending, 50_000);
    system.stop().await;
}
