//! What leaves for the master, and in which order: signs of life and answers first, then what
//! attempts ask, so that a checkpoint is not overtaken by the end of its attempt, then reports, then
//! log bytes, each attempt in its turn.
//!
//! The link takes one frame at a time, as fast as the socket takes them, so that nothing piles up
//! here: reports are bounded by the attempts that are outstanding, log bytes by each stream's
//! window, control frames by the heartbeats of one lease. Shared by the daemon and the link, which
//! live on one thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use agentflow_protocol::worker::{AttemptKey, FromWorker};
use bytes::Bytes;
use tokio::sync::Notify;

use crate::asks::Asks;
use crate::log_stream::LogStream;
use crate::window::Window;

/// One WebSocket message.
#[derive(Debug)]
pub(crate) enum Frame {
    Text(String),
    Binary(Vec<u8>),
    Pong(Bytes),
}

/// How a socket is left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Closing {
    /// At once, for that reason.
    Broken(String),
    /// When everything is sent.
    Finished,
}

#[derive(Debug, Default)]
struct State {
    control: VecDeque<Frame>,
    asks: Asks,
    window: Window,
    logs: VecDeque<(AttemptKey, Arc<LogStream>)>,
    /// Whether the master has welcomed us on this socket.
    open: bool,
    closing: Option<Closing>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: RefCell<State>,
    changed: Notify,
}

impl Outbox {
    /// A new socket: nothing was sent on it.
    pub(crate) fn begin_socket(&self) {
        let mut state = self.state.borrow_mut();
        state.control.clear();
        state.logs.clear();
        state.window.rewind();
        state.asks.rewind();
        state.open = false;
        if state.closing != Some(Closing::Finished) {
            state.closing = None;
        }
    }

    /// From here on reports and logs may be sent.
    pub(crate) fn open(&self) {
        self.state.borrow_mut().open = true;
        self.changed.notify_one();
    }

    /// Whether the latest socket came so far.
    pub(crate) fn was_open(&self) -> bool {
        self.state.borrow().open
    }

    /// Queues a frame before everything else.
    pub(crate) fn send(&self, frame: &FromWorker) {
        // Plain data with string keys: cannot fail.
        let text = serde_json::to_string(frame).unwrap_or_default();
        self.push(Frame::Text(text));
    }

    pub(crate) fn push(&self, frame: Frame) {
        self.state.borrow_mut().control.push_back(frame);
        self.changed.notify_one();
    }

    /// Works on the reports; they are sent when `work` is done.
    pub(crate) fn reports<T>(&self, work: impl FnOnce(&mut Window) -> T) -> T {
        let result = work(&mut self.state.borrow_mut().window);
        self.changed.notify_one();
        result
    }

    /// Works on the questions; they are sent when `work` is done.
    pub(crate) fn asks<T>(&self, work: impl FnOnce(&mut Asks) -> T) -> T {
        let result = work(&mut self.state.borrow_mut().asks);
        self.changed.notify_one();
        result
    }

    /// There is output to send.
    pub(crate) fn queue_log(&self, key: AttemptKey, log: &Arc<LogStream>) {
        self.state.borrow_mut().logs.push_back((key, Arc::clone(log)));
        self.changed.notify_one();
    }

    /// Nothing more of that attempt's output is sent.
    pub(crate) fn forget_log(&self, key: AttemptKey) {
        self.state.borrow_mut().logs.retain(|(queued, _)| *queued != key);
    }

    /// All output is queued anew.
    pub(crate) fn forget_logs(&self) {
        self.state.borrow_mut().logs.clear();
    }

    pub(crate) fn close(&self, closing: Closing) {
        let mut state = self.state.borrow_mut();
        if state.closing != Some(Closing::Finished) {
            state.closing = Some(closing);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The next frame to send.
    pub(crate) fn next(&self) -> Option<Frame> {
        let mut state = self.state.borrow_mut();
        if let Some(frame) = state.control.pop_front() {
            return Some(frame);
        }
        if !state.open {
            return None;
        }
        if let Some(frame) = state.asks.next_frame() {
            return Some(Frame::Text(frame));
        }
        if let Some(frame) = state.window.next_frame() {
            return Some(Frame::Text(frame));
        }
        while let Some((key, log)) = state.logs.pop_front() {
            if let Some(frame) = log.next_frame(key) {
                state.logs.push_back((key, log));
                return Some(Frame::Binary(frame));
            }
        }
        None
    }

    /// Whether the socket is to be left. `Finished` counts once everything was taken.
    pub(crate) fn closing(&self) -> Option<Closing> {
        self.state.borrow().closing.clone()
    }

    /// Waits until something has changed since the last wait.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}
