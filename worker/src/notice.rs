//! The warden's one request: `POST /api/v2/workers/{id}/dead`.

use std::path::Path;
use std::time::Duration;

use agentflow_protocol::percent::encode;

use crate::api::{Api, Failed, Patience};
use crate::warden::Description;

/// How long masters are tried: what takes longer is left to the lease, which ends sooner.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tells a master that every process of that life of the worker is dead.
pub(crate) fn tell_dead(description: &Description) -> Result<(), String> {
    let api = Api::new(description.masters.clone(), description.token_file.clone());
    let path = format!("/api/v2/workers/{}/dead", encode(&description.worker));
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
