//! Ports that a program can have again after it was killed.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use super::Failure;

/// Below every usual range of ports for outgoing connections (32768 and up on Linux). A port of that
/// range could be taken by a connection while its master is down; a client that tries the port then
/// may even be connected to itself.
const FIRST: u16 = 15_000;
const COUNT: u16 = 15_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port of this machine that nobody listens on.
///
/// # Errors
/// When all are taken.
pub fn free_port() -> Result<u16, Failure> {
    let start = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or(0);
    for _ in 0..COUNT {
        // Steps of a prime, so that programs that started one after another do not meet soon.
        let step = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(7);
        let port = FIRST + (start.wrapping_add(step)) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no port is free".into())
}
