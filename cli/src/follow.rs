//! Following a run to its end, through restarts of the master.
//!
//! Owns: the [`Board`] of a run, and how it is kept up from the event log. The cursor and the board
//! are all the state there is: after any failure the same question is asked again, and where the
//! log cannot answer any more the run itself is read. Must not know: how a board is shown; a
//! [`Listener`] and the screen do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agentflow_protocol::api::WhyView;
use agentflow_protocol::runs::{NodeWhyView, RunView, RunWhyView};
use serde::Deserialize;

use crate::client::{Client, with_query};
use crate::error::Error;
use crate::settle::{Since, head, task_path};

mod board;
mod lines;
mod screen;
mod tails;
mod tree;

pub(crate) use board::{Board, Change, Event, Place, milliseconds, span};
pub(crate) use lines::Lines;
pub(crate) use screen::Screen;

/// One long poll: short enough that proxies bear it.
const POLL: Duration = Duration::from_secs(20);

/// Silence after which it is asked why. Most steps take less than this or much longer.
const SILENCE: Duration = Duration::from_secs(1);

/// Events of one answer.
const PAGE: usize = 1_000;

/// A board that is followed and shown at the same time.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Mutex<Board>>);

impl Shared {
    /// Shares a board.
    pub(crate) fn new(board: Board) -> Self {
        Self(Arc::new(Mutex::new(board)))
    }

    /// The board; nobody holds it while speaking to the master.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who listens while a run goes on.
pub(crate) trait Listener {
    /// Something became of a node or of the run.
    fn changed(&mut self, board: &Shared, change: Change) -> Result<(), Error>;
    /// Nothing became of it for a while, and this is why.
    fn waits(&mut self, board: &Shared, why: &RunWhyView) -> Result<(), Error>;
}

#[derive(Deserialize)]
struct Page {
    events: Vec<Event>,
    head: u64,
    log_id: String,
}

/// Where a run is.
pub(crate) fn run_path(id: u64) -> String {
    format!("/api/v2/runs/{id}")
}

/// The board of a run, and the cursor after which its events follow. With [`Since::Event`] the run
/// had not begun there, and everything is told from its beginning.
pub(crate) fn begin(client: &Client, view: &RunView, since: Since) -> Result<(Board, u64), Error> {
    match since {
        Since::Event(cursor) => Ok((Board::at_the_start(view), cursor)),
        Since::Now => {
            let cursor = head(client)?;
            let view: RunView = client.get(&run_path(view.id))?;
            Ok((Board::as_it_stands(&view), cursor))
        }
    }
}

/// Keeps the board up until the run has ended, and answers with the run as it is then.
///
/// # Errors
/// Those of the client and of the listener.
pub(crate) fn follow(
    client: &Client,
    board: &Shared,
    cursor: u64,
    listener: &mut dyn Listener,
) -> Result<RunView, Error> {
    let id = board.lock().run;
    // Who comes late is told what is going on.
    let running = board.lock().running();
    running.into_iter().try_for_each(|place| listener.changed(board, Change::Began(place)))?;
    let mut following = Following {
        client,
        board,
        listener,
        cursor,
        log_id: String::new(),
        heard: Instant::now(),
        asked: false,
    };
    while !board.lock().status.is_settled() {
        following.turn(id)?;
    }
    client.get(&run_path(id))
}

struct Following<'a> {
    client: &'a Client,
    board: &'a Shared,
    listener: &'a mut dyn Listener,
    cursor: u64,
    /// Known after the first answer; a master whose database was put back has another one.
    log_id: String,
    /// When there was last news of this run.
    heard: Instant,
    /// Whether it was asked why since then.
    asked: bool,
}

impl Following<'_> {
    /// One look at the log.
    fn turn(&mut self, id: u64) -> Result<(), Error> {
        let wait = if self.asked { POLL } else { SILENCE };
        let asked = Instant::now();
        match self.page(wait) {
            Ok(page) if page.head < self.cursor => {
                // The database was put back. Look at the run, go on from there.
                self.cursor = page.head;
                self.refresh(id)?;
            }
            Ok(page) => {
                self.log_id = page.log_id;
                let silent = page.events.is_empty();
                self.cursor = page.events.last().map_or(self.cursor, |event| event.seq);
                for event in &page.events {
                    self.take(event)?;
                }
                if silent {
                    // Only a master that cannot wait answers at once with nothing.
                    std::thread::sleep(Duration::from_millis(50).saturating_sub(asked.elapsed()));
                }
            }
            Err(error) if error.is_status(410) => {
                self.log_id.clear();
                self.cursor = head(self.client)?;
                self.refresh(id)?;
            }
            Err(error) => return Err(error),
        }
        let silence = self.heard.elapsed();
        if self.asked && silence >= POLL {
            self.refresh(id)?;
            return self.ask_why(id);
        }
        if !self.asked && silence >= SILENCE {
            self.asked = true;
            return self.ask_why(id);
        }
        Ok(())
    }

    fn page(&self, wait: Duration) -> Result<Page, Error> {
        let path = with_query(
            "/api/v2/events",
            &[
                ("after", self.cursor.to_string()),
                ("log_id", self.log_id.clone()),
                ("limit", PAGE.to_string()),
                ("wait_ms", wait.as_millis().to_string()),
            ],
        );
        self.client.get_waiting(&path, wait)
    }

    fn take(&mut self, event: &Event) -> Result<(), Error> {
        let change = {
            let mut board = self.board.lock();
            if board.is_replaced_by(event) {
                let id = board.run;
                drop(board);
                return self.refresh(id);
            }
            let change = board.take(event);
            if change.is_some() || board.concerns(event) {
                (self.heard, self.asked) = (Instant::now(), false);
            }
            change
        };
        change.map_or(Ok(()), |change| self.listener.changed(self.board, change))
    }

    /// Reads the run itself.
    fn refresh(&mut self, id: u64) -> Result<(), Error> {
        let view: RunView = self.client.get(&run_path(id))?;
        self.heard = Instant::now();
        let changes = self.board.lock().refresh(&view);
        changes.into_iter().try_for_each(|change| self.listener.changed(self.board, change))
    }

    /// Asks why nothing happens. It is only told: a master that cannot say ends nothing.
    fn ask_why(&mut self, id: u64) -> Result<(), Error> {
        let path = format!("{}/why", run_path(id));
        let Some(mut why) = answered(self.client.get::<RunWhyView>(&path))? else { return Ok(()) };
        let parts = self.board.lock().waiting_parts();
        for (name, task_id) in parts {
            let path = format!("{}/why", task_path(task_id));
            if let Some(part) = answered(self.client.get::<WhyView>(&path))? {
                why.nodes.push(NodeWhyView { name, task_id, reasons: part.reasons });
            }
        }
        self.board.lock().set_reasons(&why);
        self.listener.waits(self.board, &why)
    }
}

/// Nothing, where the master refused.
fn answered<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Error::Problem(problem)) => {
            log::debug!("the master does not say why: {problem}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
