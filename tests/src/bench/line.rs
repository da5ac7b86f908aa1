//! One HTTP/1.1 connection that costs next to nothing: the client shares the cores with what it
//! measures.
//!
//! Requests are bytes made beforehand; of an answer only the status and the body are looked at.
//! Chunked answers are not understood: what is measured answers with a length.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::ops::Range;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::harness::Failure;

/// The bytes of a request.
pub(super) fn request(method: &str, path: &str, body: Option<&Value>) -> Vec<u8> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

/// A connection with at most one request under way.
pub(super) struct Line {
    pub(super) stream: TcpStream,
    unsent: Range<usize>,
    received: Vec<u8>,
}

/// A whole answer.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Reply {
    /// Refuses every other status.
    pub(super) fn expect(&self, status: u16) -> Result<(), Failure> {
        if self.status == status {
            return Ok(());
        }
        Err(format!("{} instead of {status}: {}", self.status, String::from_utf8_lossy(&self.body)).into())
    }
}

impl Line {
    pub(super) fn open(port: u16) -> Result<Self, Failure> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, unsent: 0..0, received: Vec::new() })
    }

    /// Asks and waits.
    pub(super) fn ask(&mut self, request: &[u8]) -> Result<Reply, Failure> {
        self.begin(request)?;
        self.wait(request)
    }

    /// Waits for the answer to what was begun.
    pub(super) fn wait(&mut self, request: &[u8]) -> Result<Reply, Failure> {
        loop {
            if let Some(reply) = self.go_on(request)? {
                return Ok(reply);
            }
        }
    }

    /// Asks for JSON and waits.
    pub(super) fn ask_json<T: DeserializeOwned>(
        &mut self,
        request: &[u8],
        status: u16,
    ) -> Result<T, Failure> {
        let reply = self.ask(request)?;
        reply.expect(status)?;
        Ok(serde_json::from_slice(&reply.body)?)
    }

    /// Begins to send. The same bytes must be given to [`Self::go_on`].
    pub(super) fn begin(&mut self, request: &[u8]) -> Result<(), Failure> {
        self.unsent = 0..request.len();
        self.send(request)
    }

    /// Whether there is still something to send.
    pub(super) fn is_sending(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Sends and receives what can be; gives the answer when it is whole.
    pub(super) fn go_on(&mut self, request: &[u8]) -> Result<Option<Reply>, Failure> {
        self.send(request)?;
        if self.is_sending() {
            return Ok(None);
        }
        let mut buffer = [0; 64 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err("the master has closed the connection".into()),
            Ok(count) => self.received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        self.whole_reply()
    }

    fn send(&mut self, request: &[u8]) -> Result<(), Failure> {
        while self.is_sending() {
            match self.stream.write(&request[self.unsent.clone()]) {
                Ok(count) => self.unsent.start += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn whole_reply(&mut self) -> Result<Option<Reply>, Failure> {
        let Some(head) = self.received.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&self.received[..head])?;
        let status = text.get(9..12).and_then(|status| status.parse().ok()).ok_or("no status")?;
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        // One without content has no length either.
        let length = if status == 204 { Some(0) } else { length };
        let end = head + 4 + length.ok_or("an answer without a length")?;
        if self.received.len() < end {
            return Ok(None);
        }
        let body = self.received[head + 4..end].to_vec();
        self.received.drain(..end);
        Ok(Some(Reply { status, body }))
    }
}
