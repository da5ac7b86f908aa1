//! A WebSocket by hand, so that a test can send what no library would.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use crate::support::SOON;

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;

/// One end of a socket.
pub(crate) struct Socket {
    stream: BufReader<TcpStream>,
}

/// What came.
#[derive(Debug, PartialEq)]
pub(crate) enum Frame {
    Text(Value),
    Closed(u16, String),
}

impl Socket {
    /// Opens a socket.
    pub(crate) fn open(address: SocketAddr, path: &str) -> Self {
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        .expect("written");
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).expect("a status");
        assert!(line.starts_with("HTTP/1.1 101"), "{line}");
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).expect("a header");
        }
        Self { stream }
    }

    /// Sends a frame; `last` is false for all but the last part of a fragmented one.
    pub(crate) fn send_part(&mut self, opcode: u8, last: bool, payload: &[u8]) {
        let mut frame = vec![if last { 0x80 | opcode } else { opcode }];
        match payload.len() {
            length @ 0..126 => frame.push(0x80 | u8::try_from(length).expect("small")),
            length @ 126..65_536 => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&u16::try_from(length).expect("small").to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        // A mask of zeros leaves the payload as it is.
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(payload);
        // The other end may have closed already; then reading says so.
        let _ = self.stream.get_mut().write_all(&frame);
    }

    pub(crate) fn send(&mut self, message: &Value) {
        self.send_part(TEXT, true, message.to_string().as_bytes());
    }

    /// The next frame that is no ping.
    pub(crate) fn receive(&mut self) -> Frame {
        loop {
            let mut head = [0; 2];
            match self.stream.read_exact(&mut head) {
                Ok(()) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) =>
                {
                    return Frame::Closed(1006, String::new());
                }
                Err(error) => panic!("no frame came: {error}"),
            }
            let length = match head[1] & 0x7f {
                126 => {
                    let mut length = [0; 2];
                    self.stream.read_exact(&mut length).expect("a length");
                    usize::from(u16::from_be_bytes(length))
                }
                127 => {
                    let mut length = [0; 8];
                    self.stream.read_exact(&mut length).expect("a length");
                    usize::try_from(u64::from_be_bytes(length)).expect("small")
                }
                length => usize::from(length),
            };
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload).expect("a payload");
            match head[0] & 0x0f {
                TEXT => return Frame::Text(serde_json::from_slice(&payload).expect("JSON")),
                PING => {}
                CLOSE => {
                    let code = payload.first_chunk::<2>().map_or(1005, |code| u16::from_be_bytes(*code));
                    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
                    return Frame::Closed(code, reason);
                }
                other => panic!("an unexpected frame {other}"),
            }
        }
    }

    /// The next text frame.
    #[track_caller]
    pub(crate) fn text(&mut self) -> Value {
        match self.receive() {
            Frame::Text(value) => value,
            closed => panic!("{closed:?} instead of text"),
        }
    }

    /// The next text frame of that type.
    #[track_caller]
    pub(crate) fn text_of(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.text();
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// Reads until the socket closes.
    #[track_caller]
    pub(crate) fn closed(&mut self) -> (u16, String) {
        loop {
            if let Frame::Closed(code, reason) = self.receive() {
                return (code, reason);
            }
        }
    }
}

/// A worker's hello.
pub(crate) fn hello(worker: &str, boot: u64) -> Value {
    json!({"type": "hello", "version": 2, "worker": worker, "boot": boot, "groups": ["default"],
           "slots": 4, "prefetch": 16, "at": 0})
}

/// A socket that a worker has said hello on.
pub(crate) fn worker(address: SocketAddr, name: &str) -> (Socket, Value) {
    let mut socket = Socket::open(address, "/api/v2/workers/connect");
    socket.send(&hello(name, 1));
    let welcome = socket.text_of("welcome");
    (socket, welcome)
}
