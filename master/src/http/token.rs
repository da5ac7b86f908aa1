//! Who may come in.
//!
//! Interim access: one shared token for everything, until tokens with roles are kept in the
//! database. Without a token the master serves its own machine only, and there it keeps out what web
//! pages send: a browser always names the page's origin.

use actix_web::HttpRequest;
use actix_web::http::header;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::answer::Failure;
use super::lfs;

/// The token that every request must carry.
pub(crate) struct Token(Vec<u8>);

impl Token {
    pub(crate) fn new(token: &str) -> Self {
        Self(token.as_bytes().to_vec())
    }

    /// In a time that says nothing of how much of it was right.
    fn is(&self, given: &[u8]) -> bool {
        let mut difference = u8::from(self.0.len() != given.len());
        for (at, expected) in self.0.iter().enumerate() {
            difference |= expected ^ given.get(at).copied().unwrap_or_default();
        }
        std::hint::black_box(difference) == 0
    }
}

/// Checks a request. `/health` is open to all, so that whoever watches the process needs no token.
pub(crate) fn check(token: Option<&Token>, request: &HttpRequest) -> Result<(), Failure> {
    if request.path() == "/health" {
        return Ok(());
    }
    let value = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let Some(token) = token else { return check_origin(value(header::ORIGIN)) };
    let given = match authorization(request, "bearer") {
        Some(given) => Some(given.to_owned()),
        // Git knows user names and passwords only.
        None if lfs::is_lfs(request) => basic(request).map(|(_, password)| password),
        None => None,
    };
    match given {
        Some(given) if token.is(given.as_bytes()) => Ok(()),
        None if lfs::is_lfs(request) => {
            Err(Failure::new(401, "token", "send your name, and the master's token as the password"))
        }
        Some(_) => Err(Failure::new(401, "token", "the token is not the master's")),
        None => Err(Failure::new(401, "token", "send the token: 'Authorization: Bearer TOKEN'")),
    }
}

/// What a request is authorized by, if that is of this scheme.
fn authorization<'a>(request: &'a HttpRequest, scheme: &str) -> Option<&'a str> {
    let text = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (given, rest) = text.split_once(' ')?;
    given.eq_ignore_ascii_case(scheme).then_some(rest.trim())
}

/// The name and the password of a user, as git sends them.
pub(crate) fn basic(request: &HttpRequest) -> Option<(String, String)> {
    let text = STANDARD.decode(authorization(request, "basic")?).ok()?;
    let text = String::from_utf8(text).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// Without a token, a page from elsewhere must not act in the name of whoever looks at it.
fn check_origin(origin: Option<&str>) -> Result<(), Failure> {
    let Some(origin) = origin else { return Ok(()) };
    let host = origin.split_once("://").map_or(origin, |(_, rest)| rest);
    let name = host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(host, |(name, _)| name);
    if matches!(name, "localhost" | "127.0.0.1" | "[::1]") {
        return Ok(());
    }
    Err(Failure::new(403, "origin", format!("pages of {origin} may not use this master")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_opens() {
        let token = Token::new("0123456789abcdef0123456789abcdef");
        assert!(token.is(b"0123456789abcdef0123456789abcdef"));
        for wrong in ["", "0", "0123456789abcdef0123456789abcdee", "0123456789abcdef0123456789abcdef0"] {
            assert!(!token.is(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn pages_from_elsewhere_are_kept_out() {
        for own in [None, Some("http://localhost:6767"), Some("http://127.0.0.1"), Some("http://[::1]:6767")]
        {
            assert!(check_origin(own).is_ok(), "{own:?}");
        }
        for other in
            ["https://example.org", "null", "http://localhost.example.org:6767", "http://127.0.0.1.x"]
        {
            assert!(check_origin(Some(other)).is_err(), "{other}");
        }
    }
}
