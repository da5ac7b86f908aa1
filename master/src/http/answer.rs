//! Answers: JSON, or a problem. Every error leaves as `application/problem+json`.

use std::fmt;

use actix::MailboxError;
use actix_web::error::BlockingError;
use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use agentflow_core::rejection::Rejection;
use agentflow_protocol::Problem;
use agentflow_protocol::problem::MEDIA_TYPE;
use serde::Serialize;

use crate::error::chain;

/// What every handler returns.
pub(crate) type Answered = Result<HttpResponse, Failure>;

/// A problem on its way out.
#[derive(Debug)]
pub(crate) struct Failure {
    problem: Problem,
    retry_after_s: Option<u32>,
}

impl Failure {
    pub(crate) fn new(status: u16, kind: &str, detail: impl Into<String>) -> Self {
        Problem::new(status, kind, detail).into()
    }

    /// 404.
    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(404, "not_found", detail)
    }

    /// 409.
    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(409, "conflict", detail)
    }

    /// 413; `limit` in bytes.
    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(413, "too_large", format!("the body is larger than {limit} bytes ({} MiB)", limit >> 20))
    }

    /// 422 for one field of a body.
    pub(crate) fn field(pointer: &str, detail: impl Into<String>) -> Self {
        let error =
            agentflow_protocol::problem::FieldError { pointer: pointer.to_owned(), detail: detail.into() };
        Problem::invalid(vec![error]).into()
    }

    /// 429.
    pub(crate) fn too_many(detail: impl Into<String>) -> Self {
        Self { retry_after_s: Some(1), ..Self::new(429, "limit", detail) }
    }

    /// 503 while the master goes away.
    pub(crate) fn stopping() -> Self {
        let detail = "the master is stopping; try again when it is back";
        Self { retry_after_s: Some(1), ..Self::new(503, "stopping", detail) }
    }

    /// 503 while nothing can be written.
    pub(crate) fn disk_full() -> Self {
        let detail = "the disk of the database is full; nothing was changed. Reading works. Free some space";
        Self { retry_after_s: Some(10), ..Self::new(503, "disk_full", detail) }
    }

    /// The answer to a handler's bug or a broken machine; the cause is in the log.
    pub(crate) fn internal(cause: &dyn fmt::Display) -> Self {
        log::error!("a request failed: {cause}");
        Self::new(500, "internal", "the master failed at this; its log says why")
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self { problem, retry_after_s: None }
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        let soon = matches!(rejection, Rejection::JustEnded(_) | Rejection::Busy | Rejection::Limit { .. });
        Self { retry_after_s: soon.then_some(1), ..Problem::of(&rejection).into() }
    }
}

impl From<MailboxError> for Failure {
    fn from(_: MailboxError) -> Self {
        Self::stopping()
    }
}

impl From<BlockingError> for Failure {
    fn from(error: BlockingError) -> Self {
        Self::internal(&error)
    }
}

impl From<agentflow_schema::Error> for Failure {
    fn from(error: agentflow_schema::Error) -> Self {
        if error.is_busy() || error.is_unreachable() {
            log::warn!("a read failed: {}", chain(&error));
            let detail = "the database does not answer; try again";
            return Self { retry_after_s: Some(1), ..Self::new(503, "database", detail) };
        }
        Self::internal(&chain(&error))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::internal(&error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl ResponseError for Failure {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        response.content_type(MEDIA_TYPE);
        if let Some(seconds) = self.retry_after_s {
            response.insert_header((header::RETRY_AFTER, seconds.to_string()));
        }
        if self.problem.status == 401 {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        response.body(serde_json::to_vec(&self.problem).unwrap_or_default())
    }
}

/// 200 with JSON.
pub(crate) fn ok<T: Serialize>(body: &T) -> Answered {
    json(StatusCode::OK, body)
}

/// That status with JSON.
pub(crate) fn json<T: Serialize>(status: StatusCode, body: &T) -> Answered {
    let text = serde_json::to_vec(body).map_err(|error| Failure::internal(&error))?;
    Ok(HttpResponse::build(status).content_type("application/json").body(text))
}
