//! The tree on a terminal, drawn again as it changes, at most ten times a second.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use console::Term;

use super::tree::{Frame, draw};
use super::{Shared, tails};
use crate::client::Client;
use crate::clock::now;
use crate::error::Error;
use crate::output::Output;

/// Between two drawings, at least.
const FRAME: Duration = Duration::from_millis(100);

/// A tree that lives until it is stopped. Clones are the same tree.
#[derive(Clone)]
pub(crate) struct Screen(Arc<Inner>);

struct Inner {
    board: Shared,
    client: Arc<Client>,
    output: Output,
    term: Term,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    tails: Option<tails::Reader>,
    /// Lines that are on the terminal.
    drawn: usize,
    stopped: bool,
}

impl Screen {
    /// Draws that board from now on. What the client has to say about the master is said in the
    /// tree.
    ///
    /// # Errors
    /// When a thread cannot be made.
    pub(crate) fn start(
        board: &Shared,
        client: &Arc<Client>,
        term: Term,
        output: Output,
    ) -> Result<Self, Error> {
        client.hush();
        let inner = Inner {
            board: board.clone(),
            client: Arc::clone(client),
            output,
            term,
            state: Mutex::new(State {
                tails: Some(tails::Reader::start(board, client)?),
                ..State::default()
            }),
            wake: Condvar::new(),
        };
        let screen = Self(Arc::new(inner));
        let drawing = Arc::clone(&screen.0);
        let begun = std::thread::Builder::new().name("screen".to_owned()).spawn(move || drawing.live());
        begun.map_err(|error| Error::io("cannot start a thread", error))?;
        Ok(screen)
    }

    /// After the end of the run: shows the last of its output, and stops.
    pub(crate) fn finish(&self) {
        let tails = self.0.state().tails.take();
        if let Some(tails) = tails {
            tails.finish();
        }
        self.stop();
    }

    /// Draws a last time; the tree stays where it is, and others may write below it.
    pub(crate) fn stop(&self) {
        let mut state = self.0.state();
        if !state.stopped {
            state.stopped = true;
            // A terminal that is gone needs no last picture.
            let _ = self.0.draw(&mut state, None);
            self.0.wake.notify_all();
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) {
        let mut state = self.state();
        while !state.stopped {
            let away = self.client.is_away().then(|| format!("no answer from {}", self.client.address()));
            if self.draw(&mut state, away.as_deref()).is_err() {
                return;
            }
            let waited = self.wake.wait_timeout(state, FRAME);
            state = waited.map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
    }

    fn draw(&self, state: &mut State, away: Option<&str>) -> io::Result<()> {
        let (rows, columns) = self.term.size();
        // The cursor stands on the line below.
        let rows = usize::from(rows).saturating_sub(1);
        let frame = Frame { rows, columns: columns.into(), now: now(), away };
        let lines = draw(&self.board.lock(), frame, self.output);
        if state.drawn > 0 {
            self.term.clear_last_lines(state.drawn.min(rows))?;
        }
        for line in &lines {
            self.term.write_line(line)?;
        }
        state.drawn = lines.len();
        self.term.flush()
    }
}
