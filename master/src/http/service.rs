//! For those who operate a master: whether it lives, whether it takes work, and its numbers.

use actix_web::{HttpRequest, HttpResponse, web};
use agentflow_protocol::Problem;
use agentflow_protocol::api::Health;

use super::answer::{Answered, Failure, ok};
use super::{openapi, read, stats};
use crate::state::Master;

fn health_view(master: &Master) -> Health {
    Health {
        status: "ok".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime: master.handles.office.started.elapsed().as_secs_f64(),
        mode: "standalone".to_owned(),
    }
}

/// Whether the process lives. Needs no token.
#[utoipa::path(get, path = "/health", tag = "service", responses((status = 200, body = Health)))]
pub(crate) async fn health(master: web::Data<Master>, request: HttpRequest) -> Answered {
    read::no_query(&request)?;
    ok(&health_view(&master))
}

/// Whether the master takes work.
#[utoipa::path(get, path = "/ready", tag = "service",
    responses((status = 200, body = Health), (status = 503, body = Problem, description = "Stopping, or the disk is full")))]
pub(crate) async fn ready(master: web::Data<Master>, request: HttpRequest) -> Answered {
    read::no_query(&request)?;
    master.check_writable()?;
    ok(&health_view(&master))
}

/// Numbers for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "service", responses((status = 200, body = String, content_type = "text/plain")))]
pub(crate) async fn metrics(master: web::Data<Master>, request: HttpRequest) -> Answered {
    read::no_query(&request)?;
    let counts = stats::counts(&master).await?;
    let text = master.metrics.text(&counts, &master.handles);
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text))
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "service", responses((status = 200, body = Object)))]
pub(crate) async fn document(request: HttpRequest) -> Answered {
    read::no_query(&request)?;
    let text = openapi::document()
        .to_json()
        .map_err(|error| Failure::new(500, "internal", format!("the document cannot be written: {error}")))?;
    Ok(HttpResponse::Ok().content_type("application/json").body(text))
}

/// A page for people who open the address in a browser.
#[utoipa::path(get, path = "/", tag = "service", responses((status = 200, body = String, content_type = "text/html")))]
pub(crate) async fn page(request: HttpRequest) -> Answered {
    read::no_query(&request)?;
    Ok(HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header(("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'"))
        .body(include_str!("page.html")))
}
