//! The WebSocket itself: frames in, frames out, closing in good form.
//!
//! Owns: everything that touches `actix_web_actors`, so that another WebSocket library is a change
//! of this file. What is said over a socket is a [`Conversation`].
//!
//! ```text
//!   peer  == frames ==>  Door  -- text, binary, closed -->  Conversation
//!   peer  <== frames ==  Door  <------- Wire -------------  Conversation  <-- Told -- other actors
//! ```
//!
//! A door is polled only while the peer reads: with a peer that has stopped reading, its timers and
//! its mailbox stand still. So nothing that must happen may depend on a door; whoever must act then
//! shuts the connection down by its [`Socket`].
//!
//! Invariants:
//! - A frame that is fragmented, too large or no text ends the socket with the code that says so;
//!   nothing is joined or buffered.
//! - [`Conversation::closed`] is called once, whatever ends the socket.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Handler, Message, Recipient, StreamHandler, fut,
};
use actix_web::dev::Extensions;
use actix_web::{HttpRequest, HttpResponse, web};
use actix_web_actors::ws;
use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// Why a socket is closed, as the peer is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Code {
    /// 1000: there is nothing more to say.
    Normal,
    /// 1002: not the frames that were agreed on.
    Protocol,
    /// 1003: a kind of frame that is not taken.
    Unsupported,
    /// 1007: a text that cannot be read.
    Invalid,
    /// 1008: not allowed.
    Policy,
    /// 1009: too large.
    Size,
    /// 1012: the master restarts; come back.
    Restart,
    /// 1013: try again later.
    Again,
}

impl Code {
    fn code(self) -> ws::CloseCode {
        match self {
            Self::Normal => ws::CloseCode::Normal,
            Self::Protocol => ws::CloseCode::Protocol,
            Self::Unsupported => ws::CloseCode::Unsupported,
            Self::Invalid => ws::CloseCode::Invalid,
            Self::Policy => ws::CloseCode::Policy,
            Self::Size => ws::CloseCode::Size,
            Self::Restart => ws::CloseCode::Restart,
            Self::Again => ws::CloseCode::Again,
        }
    }
}

/// Bytes of a close frame's reason: a control frame has at most 125, two of them the code.
const REASON_BYTES: usize = 123;

/// What is said over one socket. Every method runs on the socket's own thread.
pub(crate) trait Conversation: Sized + Unpin + 'static {
    /// What other actors may tell it.
    type Told: Message<Result = ()> + Send + 'static;

    /// The socket is open.
    fn opened(&mut self, wire: &mut Wire<'_, Self>);
    /// A text frame came.
    fn text(&mut self, text: &str, wire: &mut Wire<'_, Self>);
    /// A binary frame came.
    fn binary(&mut self, bytes: Bytes, wire: &mut Wire<'_, Self>);
    /// Another actor has spoken.
    fn told(&mut self, message: Self::Told, wire: &mut Wire<'_, Self>);
    /// The socket is closed. Must not block or panic: it may run while the thread unwinds.
    fn closed(&mut self);
}

type Context<C> = ws::WebsocketContext<Door<C>>;

/// What a conversation can do to its socket.
pub(crate) struct Wire<'a, C: Conversation>(&'a mut Context<C>);

impl<C: Conversation> Wire<'_, C> {
    /// Sends a text frame. Whoever calls it bounds what the peer has not yet taken.
    pub(crate) fn send(&mut self, text: String) {
        self.0.text(text);
    }

    /// Sends a ping.
    pub(crate) fn ping(&mut self) {
        self.0.ping(b"");
    }

    /// Says why and closes; frames sent before go out first, and no frame is taken any more.
    pub(crate) fn close(&mut self, code: Code, reason: &str) {
        let mut end = reason.len().min(REASON_BYTES);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        self.0.close(Some((code.code(), &reason[..end]).into()));
        self.0.stop();
    }

    /// Where other actors reach this conversation.
    pub(crate) fn recipient(&self) -> Recipient<C::Told> {
        self.0.address().recipient()
    }

    /// Calls back when a future is done.
    pub(crate) fn when<F>(
        &mut self,
        future: F,
        then: impl FnOnce(&mut C, F::Output, &mut Wire<'_, C>) + 'static,
    ) where
        F: Future + 'static,
    {
        let future = fut::wrap_future::<_, Door<C>>(future)
            .map(|output, door, context| then(&mut door.0, output, &mut Wire(context)));
        self.0.spawn(future);
    }

    /// As [`Wire::when`], and takes no frame and no message until then.
    pub(crate) fn wait<F>(
        &mut self,
        future: F,
        then: impl FnOnce(&mut C, F::Output, &mut Wire<'_, C>) + 'static,
    ) where
        F: Future + 'static,
    {
        let future = fut::wrap_future::<_, Door<C>>(future)
            .map(|output, door, context| then(&mut door.0, output, &mut Wire(context)));
        self.0.wait(future);
    }

    /// Calls back once, later.
    pub(crate) fn after(&mut self, delay: Duration, then: impl FnOnce(&mut C, &mut Wire<'_, C>) + 'static) {
        self.0.run_later(delay, |door, context| then(&mut door.0, &mut Wire(context)));
    }

    /// Calls back again and again.
    pub(crate) fn every(&mut self, period: Duration, then: impl Fn(&mut C, &mut Wire<'_, C>) + 'static) {
        self.0.run_interval(period, move |door, context| then(&mut door.0, &mut Wire(context)));
    }
}

/// The actor.
struct Door<C>(C);

impl<C: Conversation> Actor for Door<C> {
    type Context = Context<C>;

    fn started(&mut self, context: &mut Self::Context) {
        self.0.opened(&mut Wire(context));
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.0.closed();
    }
}

impl<C: Conversation> Handler<C::Told> for Door<C> {
    type Result = ();

    fn handle(&mut self, message: C::Told, context: &mut Self::Context) {
        self.0.told(message, &mut Wire(context));
    }
}

impl<C: Conversation> StreamHandler<Result<ws::Message, ws::ProtocolError>> for Door<C> {
    fn handle(&mut self, frame: Result<ws::Message, ws::ProtocolError>, context: &mut Self::Context) {
        match frame {
            Ok(ws::Message::Text(text)) => self.0.text(&text, &mut Wire(context)),
            Ok(ws::Message::Binary(bytes)) => self.0.binary(bytes, &mut Wire(context)),
            Ok(ws::Message::Ping(payload)) => context.pong(&payload),
            Ok(ws::Message::Pong(_) | ws::Message::Nop) => {}
            Ok(ws::Message::Close(reason)) => {
                context.close(reason);
                context.stop();
            }
            Ok(ws::Message::Continuation(_)) => {
                Wire(context).close(Code::Unsupported, "fragmented frames are not taken");
            }
            Err(ws::ProtocolError::Overflow) => {
                Wire(context).close(Code::Size, "the frame is larger than the protocol allows");
            }
            // Text that is no UTF-8 comes as this error too; a socket that broke hears nothing.
            Err(ws::ProtocolError::Io(error)) => Wire(context).close(Code::Invalid, &error.to_string()),
            Err(error) => Wire(context).close(Code::Protocol, &error.to_string()),
        }
    }

    fn finished(&mut self, context: &mut Self::Context) {
        context.stop();
    }
}

/// Turns a request into a socket. Frames larger than `frame_bytes` end it.
pub(crate) fn open<C: Conversation>(
    conversation: C,
    request: &HttpRequest,
    payload: web::Payload,
    frame_bytes: usize,
) -> Result<HttpResponse, actix_web::Error> {
    ws::WsResponseBuilder::new(Door(conversation), request, payload).frame_size(frame_bytes).start()
}

/// Whether a request asks for a socket.
pub(crate) fn is_upgrade(request: &HttpRequest) -> bool {
    request
        .headers()
        .get(actix_web::http::header::UPGRADE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
}

/// A second handle on a connection, by which it can be shut down from outside, and its place in the
/// count of open connections.
pub(crate) struct Socket {
    handle: RefCell<Option<OwnedFd>>,
    open: Arc<AtomicUsize>,
}

impl Socket {
    /// Called by the server for each connection that it accepts.
    pub(crate) fn accepted(
        open: &Arc<AtomicUsize>,
        connection: &dyn std::any::Any,
        extensions: &mut Extensions,
    ) {
        let Some(stream) = connection.downcast_ref::<actix_web::rt::net::TcpStream>() else { return };
        // Without descriptors a connection works all the same; only its worker's lease ends later.
        let handle = stream.as_fd().try_clone_to_owned().ok();
        open.fetch_add(1, Ordering::Relaxed);
        extensions.insert(Self { handle: RefCell::new(handle), open: Arc::clone(open) });
    }

    /// Whether the other end of a request's connection has gone: closed it, or its own direction of it.
    /// The server looks before it asks a handler; what came at the same moment as the answer is seen here.
    pub(crate) fn has_gone(request: &HttpRequest) -> bool {
        let Some(socket) = request.conn_data::<Self>() else { return false };
        let handle = socket.handle.borrow();
        let Some(handle) = handle.as_ref() else { return false };
        match recv(handle, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, bytes)) => bytes == 0,
            Err(Errno::AGAIN) => false,
            Err(_) => true,
        }
    }

    /// The handle of a request's connection; `None` when it was taken before.
    pub(crate) fn take(request: &HttpRequest) -> Option<OwnedFd> {
        request.conn_data::<Self>()?.handle.borrow_mut().take()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}
