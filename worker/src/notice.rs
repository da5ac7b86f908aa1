//! The warden's one request: `POST /api/v2/workers/{id}/dead`.
//!
//! A few lines of HTTP/1.1 over a plain socket, because the worker's client belongs to its link.
//! Bounded in time and in tries.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use crate::warden::Description;

/// Rounds over all masters. With the pauses between them about a minute: what takes longer is left
/// to the lease, which ends sooner.
const ROUNDS: u32 = 8;

/// For each step of a request.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Bytes of an answer's head.
const HEAD_BYTES: usize = 8 << 10;

/// Other addresses that one request may be sent on to.
const REDIRECTS: u32 = 3;

/// What a master answered.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// It knows.
    Taken,
    /// Ask there.
    Elsewhere(String),
    /// It will not, now or later.
    Refused(u16),
}

/// Tells a master that every process of that life of the worker is dead.
pub(crate) fn tell_dead(description: &Description) -> Result<(), String> {
    let token = match &description.token_file {
        Some(path) => Some(read_token(path)?),
        None => None,
    };
    let path = format!("/api/v2/workers/{}/dead", percent_encode(&description.worker));
    let body = format!(r#"{{"boot":{}}}"#, description.boot.0);
    let mut pause = Duration::from_millis(100);
    let mut last = String::new();
    for _ in 0..ROUNDS {
        for master in &description.masters {
            match follow(master, &path, token.as_deref(), &body) {
                Ok(Answer::Taken) => return Ok(()),
                Ok(Answer::Refused(status)) => {
                    return Err(format!("{master} answered {status} to the notice"));
                }
                Ok(Answer::Elsewhere(to)) => last = format!("{master} points on to {to} without end"),
                Err(error) => last = format!("{master}: {error}"),
            }
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(10));
    }
    Err(format!("no master could be told: {last}"))
}

/// Reads a token file: one line.
pub(crate) fn read_token(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let token = text.trim();
    if token.is_empty() || token.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("{}: a token file holds one token", path.display()));
    }
    Ok(token.to_owned())
}

fn follow(master: &str, path: &str, token: Option<&str>, body: &str) -> Result<Answer, String> {
    let mut url = format!("{}{path}", master.trim_end_matches('/'));
    for _ in 0..REDIRECTS {
        match post(&url, token, body)? {
            Answer::Elsewhere(to) => url = to,
            answer => return Ok(answer),
        }
    }
    Ok(Answer::Elsewhere(url))
}

fn post(url: &str, token: Option<&str>, body: &str) -> Result<Answer, String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("'{url}' is no http:// address"))?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let with_port = if has_port(host) { host.to_owned() } else { format!("{host}:80") };
    let text = |error: std::io::Error| error.to_string();
    let mut addresses = with_port.to_socket_addrs().map_err(text)?;
    let address = addresses.next().ok_or("the name has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(text)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(text)?;
    stream.set_write_timeout(Some(TIMEOUT)).map_err(text)?;
    let authorization = token.map_or(String::new(), |token| format!("authorization: Bearer {token}\r\n"));
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n{authorization}\r\n{body}",
        body.len(),
    );
    stream.write_all(request.as_bytes()).map_err(text)?;
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_BYTES {
        let count = stream.read(&mut buffer).map_err(text)?;
        if count == 0 {
            break;
        }
        head.extend_from_slice(&buffer[..count]);
    }
    read_answer(&String::from_utf8_lossy(&head))
}

fn has_port(host: &str) -> bool {
    // An address in brackets has colons of its own.
    host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

fn read_answer(head: &str) -> Result<Answer, String> {
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default().split(' ').nth(1);
    let status: u16 = status.and_then(|status| status.parse().ok()).ok_or("the answer is not of HTTP")?;
    match status {
        200..=299 => Ok(Answer::Taken),
        307 | 308 => {
            let location = lines.find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
            });
            location.map(Answer::Elsewhere).ok_or_else(|| format!("status {status} without a location"))
        }
        // Unknown or another life by now: there is nothing to tell.
        404 | 409 | 410 => Ok(Answer::Taken),
        429 | 500..=599 => Err(format!("status {status}")),
        _ => Ok(Answer::Refused(status)),
    }
}

/// Makes a name fit into a path.
fn percent_encode(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood() {
        assert_eq!(read_answer("HTTP/1.1 200 OK\r\n\r\n"), Ok(Answer::Taken));
        let head = "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://b:1/x\r\n\r\n";
        assert_eq!(read_answer(head), Ok(Answer::Elsewhere("http://b:1/x".to_owned())));
        assert!(read_answer("HTTP/1.1 503 Service Unavailable\r\n\r\n").is_err());
        assert_eq!(read_answer("HTTP/1.1 401 Unauthorized\r\n\r\n"), Ok(Answer::Refused(401)));
        assert!(read_answer("hello").is_err());
        assert_eq!(percent_encode("a b/ü"), "a%20b%2F%C3%BC");
        assert!(has_port("[::1]:80") && !has_port("[::1]") && !has_port("host"));
    }
}
