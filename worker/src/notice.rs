//! The warden's one request: `POST /api/v2/workers/{id}/dead`.

use std::path::Path;
use std::time::Duration;

use crate::api::{Api, Failed, Patience};
use crate::warden::Description;

/// How long masters are tried: what takes longer is left to the lease, which ends sooner.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tells a master that every process of that life of the worker is dead.
pub(crate) fn tell_dead(description: &Description) -> Result<(), String> {
    let api = Api::new(description.masters.clone(), description.token_file.clone());
    let path = format!("/api/v2/workers/{}/dead", percent_encode(&description.worker));
    let body = format!(r#"{{"boot":{}}}"#, description.boot.0);
    match api.post(&path, &body, &Patience { time: PATIENCE, is_over: &|| false }) {
        // Unknown or another life by now: there is nothing to tell.
        Ok(()) | Err(Failed::Refused(404 | 409 | 410, _)) => Ok(()),
        Err(failed) => Err(failed.to_string()),
    }
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
    fn names_fit_into_paths() {
        assert_eq!(percent_encode("a b/ü"), "a%20b%2F%C3%BC");
    }
}
