//! The socket to the master; the only file that knows the WebSocket client.
//!
//! ```text
//! daemon -- Outbox --> link ==================> master
//!        <-- Up, Frame, Down -- link <========= master
//! ```
//!
//! Owns: connecting, back-off, the choice among several masters, and the two directions of one
//! socket. Understands no frame but those of WebSocket itself. Each message is one WebSocket frame
//! of at most [`FRAME_BYTES`]; fragments are refused.

use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::{Message, Recipient};
use actix_rt::net::TcpStream;
use actix_service::fn_service;
use actix_tls::connect::{ConnectError, ConnectInfo, Connection};
use agentflow_core::limits::FRAME_BYTES;
use awc::error::{WsClientError, WsProtocolError};
use awc::http::{StatusCode, Uri, header};
use awc::{Client, Connector, ws};
use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::{Sink, SinkExt, Stream, StreamExt};

use crate::backoff;
use crate::notice::read_token;
use crate::outbox::{Closing, Frame, Outbox};

/// For connecting and for the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the master may take to close.
const FAREWELL: Duration = Duration::from_millis(500);

/// A session that lasts so long was a good one.
const SETTLED: Duration = Duration::from_secs(5);

/// Masters that may point on to another before one must answer itself.
const REDIRECTS: u32 = 3;

/// Where masters take workers.
const PATH: &str = "/api/v2/workers/connect";

/// What the link tells the daemon.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub(crate) enum LinkEvent {
    /// A socket is open; nothing was sent on it.
    Up,
    /// A text frame.
    Text(Bytes),
    /// The socket is gone, or could not be had.
    Down { reason: String, finished: bool },
}

/// Where to connect, and as whom.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) masters: Vec<String>,
    pub(crate) token_file: Option<PathBuf>,
}

/// Keeps a socket to one of the masters until the daemon has finished.
pub(crate) async fn run(target: Target, outbox: Rc<Outbox>, daemon: Recipient<LinkEvent>) {
    let client = client();
    let mut failures = 0_u32;
    let mut turn = 0;
    loop {
        let master = &target.masters[turn % target.masters.len()];
        outbox.begin_socket();
        let Parting { reason, finished, .. } = match connect(&client, master, &target).await {
            Ok(socket) => {
                daemon.do_send(LinkEvent::Up);
                let since = Instant::now();
                let left = converse(socket, &outbox, &daemon).await;
                // One that was welcomed and sent away again at once, such as one of two workers
                // of the same name, must not come back ten times a second. A master that died is
                // most often back soon.
                if outbox.was_open() && (!left.sent_away || since.elapsed() >= SETTLED) {
                    failures = 0;
                }
                left
            }
            Err(reason) => {
                let finished = outbox.closing() == Some(Closing::Finished);
                Parting { finished, ..Parting::because(reason) }
            }
        };
        daemon.do_send(LinkEvent::Down { reason: format!("{master}: {reason}"), finished });
        if finished {
            return;
        }
        // A round over all masters counts as one failure.
        let rounds = failures / u32::try_from(target.masters.len()).unwrap_or(1);
        failures = failures.saturating_add(1);
        turn += 1;
        let wait = backoff::delay(rounds, getrandom::u64().unwrap_or(u64::MAX / 2));
        let leaving = pin!(async {
            while outbox.closing() != Some(Closing::Finished) {
                outbox.changed().await;
            }
        });
        let slept = pin!(actix_rt::time::sleep(wait));
        if let Either::Left(_) = select(leaving, slept).await {
            daemon.do_send(LinkEvent::Down { reason: "left".to_owned(), finished: true });
            return;
        }
    }
}

/// A client whose sockets send at once what is written: a report must not wait for an earlier
/// packet's acknowledgement.
fn client() -> Client {
    let open = fn_service(|info: ConnectInfo<Uri>| async move {
        let host = info.hostname().trim_matches(['[', ']']).to_owned();
        let stream = TcpStream::connect((host, info.port())).await.map_err(ConnectError::Io)?;
        stream.set_nodelay(true).map_err(ConnectError::Io)?;
        Ok::<_, ConnectError>(Connection::new(info.request().clone(), stream))
    });
    let connector = Connector::new().connector(open).timeout(CONNECT_TIMEOUT);
    Client::builder().connector(connector).timeout(CONNECT_TIMEOUT).disable_redirects().finish()
}

/// Connects to a master, or to the one that it points on to.
async fn connect(
    client: &Client,
    master: &str,
    target: &Target,
) -> Result<impl Stream<Item = Result<ws::Frame, WsProtocolError>> + Sink<ws::Message>, String> {
    // Read each time, so that a token can be changed while the worker runs.
    let token = target.token_file.as_deref().map(read_token).transpose()?;
    let mut url = format!("{}{PATH}", master.trim_end_matches('/'));
    for _ in 0..REDIRECTS {
        let mut request = client.ws(with_scheme(&url, "ws")).max_frame_size(FRAME_BYTES);
        if let Some(token) = &token {
            request = request.bearer_auth(token);
        }
        match request.connect().await {
            Ok((_, socket)) => return Ok(socket),
            Err(WsClientError::InvalidResponseStatus(
                StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT,
            )) => url = location(client, &url, token.as_deref()).await?,
            Err(WsClientError::InvalidResponseStatus(status)) => {
                let hint = match status {
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                        ": give a token of role 'worker' with --token-file"
                    }
                    _ => "",
                };
                return Err(format!("the master answered {status}{hint}"));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Err(format!("too many redirects, the last one to {url}"))
}

/// Where a standby points to. The WebSocket request does not give its answer's headers, so it is
/// asked again as a plain one.
async fn location(client: &Client, url: &str, token: Option<&str>) -> Result<String, String> {
    let mut request = client.get(with_scheme(url, "http"));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await.map_err(|error| error.to_string())?;
    let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    match location {
        Some(location) if location.starts_with('/') => {
            let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
            let host = rest.split('/').next().unwrap_or_default();
            Ok(format!("http://{host}{location}"))
        }
        Some(location) => Ok(location.to_owned()),
        None => Err("a redirect without a location".to_owned()),
    }
}

/// Replaces the scheme of an address.
fn with_scheme(url: &str, scheme: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    format!("{scheme}://{rest}")
}

/// How a conversation ended.
struct Parting {
    reason: String,
    /// Whether it was we who had finished.
    finished: bool,
    /// Whether the master did not want us.
    sent_away: bool,
}

impl Parting {
    fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), finished: false, sent_away: false }
    }
}

/// Sends and receives until one side ends it.
async fn converse<S, E>(socket: S, outbox: &Outbox, daemon: &Recipient<LinkEvent>) -> Parting
where
    S: Stream<Item = Result<ws::Frame, WsProtocolError>> + Sink<ws::Message, Error = E>,
{
    let (sink, stream) = socket.split();
    let send = pin!(send(sink, outbox));
    let receive = pin!(receive(stream, outbox, daemon));
    match select(send, receive).await {
        Either::Left((left, receive)) => {
            if left.finished {
                // A socket that is closed with something unread in it would take back what was
                // sent last: the master closes first.
                let _closed = actix_rt::time::timeout(FAREWELL, receive).await;
            }
            left
        }
        // What we wanted to say last may cross with the master's own good-bye.
        Either::Right((left, _)) => Parting { finished: outbox.closing() == Some(Closing::Finished), ..left },
    }
}

async fn send<E>(mut sink: impl Sink<ws::Message, Error = E> + Unpin, outbox: &Outbox) -> Parting {
    loop {
        let mut any = false;
        while let Some(frame) = outbox.next() {
            let message = match frame {
                Frame::Text(text) => ws::Message::Text(text.into()),
                Frame::Binary(bytes) => ws::Message::Binary(bytes.into()),
                Frame::Pong(bytes) => ws::Message::Pong(bytes),
            };
            if sink.feed(message).await.is_err() {
                return Parting::because("the socket broke while sending");
            }
            any = true;
        }
        if any && sink.flush().await.is_err() {
            return Parting::because("the socket broke while sending");
        }
        match outbox.closing() {
            Some(Closing::Broken(reason)) => return Parting::because(reason),
            Some(Closing::Finished) => {
                // The master closes too when it has read everything; an error says that it has.
                let _closed = sink.send(ws::Message::Close(Some(ws::CloseCode::Normal.into()))).await;
                return Parting { finished: true, ..Parting::because("the worker has left") };
            }
            None => outbox.changed().await,
        }
    }
}

async fn receive(
    mut stream: impl Stream<Item = Result<ws::Frame, WsProtocolError>> + Unpin,
    outbox: &Outbox,
    daemon: &Recipient<LinkEvent>,
) -> Parting {
    while let Some(frame) = stream.next().await {
        match frame {
            Ok(ws::Frame::Text(text)) => daemon.do_send(LinkEvent::Text(text)),
            Ok(ws::Frame::Ping(bytes)) => outbox.push(Frame::Pong(bytes)),
            Ok(ws::Frame::Pong(_)) => {}
            Ok(ws::Frame::Close(Some(reason))) => {
                let text = reason.description.unwrap_or_default();
                let sent_away = reason.code != ws::CloseCode::Restart;
                let reason = format!("the master closed the connection ({:?}) {text}", reason.code);
                return Parting { sent_away, ..Parting::because(reason) };
            }
            Ok(ws::Frame::Close(None)) => {
                return Parting { sent_away: true, ..Parting::because("the master closed the connection") };
            }
            Ok(ws::Frame::Binary(_) | ws::Frame::Continuation(_)) => {
                return Parting::because("the master sent a frame that the protocol does not have");
            }
            Err(error) => return Parting::because(format!("the connection broke: {error}")),
        }
    }
    Parting::because("the master closed the connection")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_change_their_scheme() {
        assert_eq!(with_scheme("http://a:1/x", "ws"), "ws://a:1/x");
        assert_eq!(with_scheme("ws://a:1/x", "http"), "http://a:1/x");
    }
}
