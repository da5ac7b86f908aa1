//! The REST API: decode, ask one actor, encode.
//!
//! Owns: the table of routes, and what holds for every one of them (who may come in, what counts as
//! an error, what is counted). Must not: decide anything, query on this thread, hold a lock over an
//! await.

pub(crate) mod answer;
mod blobs;
mod bulk;
mod checkpoints;
mod event_socket;
mod events;
mod keys;
mod large;
mod lfs;
mod lock_history;
mod locking;
mod locks;
mod logs;
mod memory;
mod openapi;
mod read;
mod relations;
mod run_upgrade;
mod run_views;
mod runs;
mod schedules;
mod service;
mod settled;
mod sse;
mod stats;
mod submit;
mod tasks;
pub(crate) mod token;
mod versions;
mod views;
mod workers;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{Method, header};
use actix_web::middleware::Next;
use actix_web::{HttpRequest, HttpResponse, Resource, ResponseError, web};

use crate::state::Master;
use answer::Failure;

/// One route.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    handler: fn() -> actix_web::Route,
}

/// Every route. A path without variables stands before one that would match it too.
pub(crate) static ROUTES: &[Route] = &[
    Route { method: Method::POST, path: "/api/v2/tasks", handler: || web::post().to(submit::submit) },
    Route { method: Method::GET, path: "/api/v2/tasks", handler: || web::get().to(tasks::list) },
    Route {
        method: Method::GET,
        path: "/api/v2/dead-letters",
        handler: || web::get().to(tasks::dead_letters),
    },
    Route { method: Method::POST, path: "/api/v2/tasks/bulk", handler: || web::post().to(bulk::bulk) },
    Route { method: Method::GET, path: "/api/v2/tasks/{id}", handler: || web::get().to(tasks::get) },
    Route { method: Method::PATCH, path: "/api/v2/tasks/{id}", handler: || web::patch().to(tasks::patch) },
    Route {
        method: Method::POST,
        path: "/api/v2/tasks/{id}/cancel",
        handler: || web::post().to(tasks::cancel),
    },
    Route {
        method: Method::POST,
        path: "/api/v2/tasks/{id}/retry",
        handler: || web::post().to(tasks::retry),
    },
    Route { method: Method::GET, path: "/api/v2/tasks/{id}/why", handler: || web::get().to(tasks::why) },
    Route {
        method: Method::GET,
        path: "/api/v2/tasks/{id}/attempts",
        handler: || web::get().to(tasks::attempts),
    },
    Route {
        method: Method::POST,
        path: "/api/v2/tasks/{id}/release",
        handler: || web::post().to(relations::release),
    },
    Route {
        method: Method::POST,
        path: "/api/v2/tasks/{id}/approve",
        handler: || web::post().to(relations::approve),
    },
    Route {
        method: Method::POST,
        path: "/api/v2/tasks/{id}/reject",
        handler: || web::post().to(relations::reject),
    },
    Route {
        method: Method::GET,
        path: "/api/v2/tasks/{id}/relationships",
        handler: || web::get().to(relations::of_task),
    },
    Route {
        method: Method::POST,
        path: "/api/v2/relationships",
        handler: || web::post().to(relations::relate),
    },
    Route { method: Method::GET, path: "/api/v2/plan", handler: || web::get().to(relations::plan) },
    Route { method: Method::POST, path: "/api/v2/runs", handler: || web::post().to(runs::start) },
    Route { method: Method::GET, path: "/api/v2/runs", handler: || web::get().to(runs::list) },
    Route { method: Method::GET, path: "/api/v2/runs/{id}", handler: || web::get().to(runs::get) },
    Route { method: Method::GET, path: "/api/v2/runs/{id}/graph", handler: || web::get().to(runs::graph) },
    Route { method: Method::GET, path: "/api/v2/runs/{id}/why", handler: || web::get().to(runs::why) },
    Route { method: Method::POST, path: "/api/v2/runs/{id}/pause", handler: || web::post().to(runs::pause) },
    Route {
        method: Method::POST,
        path: "/api/v2/runs/{id}/resume",
        handler: || web::post().to(runs::resume),
    },
    Route { method: Method::POST, path: "/api/v2/runs/{id}/rerun", handler: || web::post().to(runs::rerun) },
    Route { method: Method::POST, path: "/api/v2/runs/{id}/fork", handler: || web::post().to(runs::fork) },
    Route {
        method: Method::POST,
        path: "/api/v2/runs/{id}/upgrade",
        handler: || web::post().to(run_upgrade::upgrade),
    },
    Route {
        method: Method::GET,
        path: "/api/v2/runs/{id}/versions",
        handler: || web::get().to(run_upgrade::versions),
    },
    Route {
        method: Method::POST,
        path: "/api/v2/runs/{id}/cancel",
        handler: || web::post().to(runs::cancel),
    },
    Route {
        method: Method::POST,
        path: "/api/v2/tasks/{id}/checkpoints",
        handler: || web::post().to(checkpoints::save),
    },
    Route {
        method: Method::GET,
        path: "/api/v2/tasks/{id}/checkpoints",
        handler: || web::get().to(checkpoints::list),
    },
    Route {
        method: Method::GET,
        path: "/api/v2/checkpoints/{id}",
        handler: || web::get().to(checkpoints::get),
    },
    Route {
        method: Method::GET,
        path: "/api/v2/checkpoints/{id}/data",
        handler: || web::get().to(checkpoints::get_data),
    },
    Route {
        method: Method::POST,
        path: "/api/v2/checkpoints/{id}/restore",
        handler: || web::post().to(checkpoints::restore),
    },
    Route {
        method: Method::GET,
        path: "/api/v2/tasks/{id}/memory",
        handler: || web::get().to(memory::of_task),
    },
    Route {
        method: Method::GET,
        path: "/api/v2/tasks/{id}/memory/{name}",
        handler: || web::get().to(memory::get_of_task),
    },
    Route {
        method: Method::PUT,
        path: "/api/v2/tasks/{id}/memory/{name}",
        handler: || web::put().to(memory::put_of_task),
    },
    Route {
        method: Method::DELETE,
        path: "/api/v2/tasks/{id}/memory/{name}",
        handler: || web::delete().to(memory::delete_of_task),
    },
    Route {
        method: Method::GET,
        path: "/api/v2/runs/{id}/memory",
        handler: || web::get().to(memory::of_run),
    },
    Route {
        method: Method::GET,
        path: "/api/v2/runs/{id}/memory/{name}",
        handler: || web::get().to(memory::get_of_run),
    },
    Route {
        method: Method::PUT,
        path: "/api/v2/runs/{id}/memory/{name}",
        handler: || web::put().to(memory::put_of_run),
    },
    Route {
        method: Method::DELETE,
        path: "/api/v2/runs/{id}/memory/{name}",
        handler: || web::delete().to(memory::delete_of_run),
    },
    Route {
        method: Method::POST,
        path: "/api/v2/tasks/{id}/upgrade",
        handler: || web::post().to(versions::upgrade),
    },
    Route {
        method: Method::GET,
        path: "/api/v2/tasks/{id}/versions",
        handler: || web::get().to(versions::versions),
    },
    Route { method: Method::GET, path: "/api/v2/tasks/{id}/logs", handler: || web::get().to(logs::logs) },
    Route {
        method: Method::GET,
        path: "/api/v2/tasks/{id}/artifacts",
        handler: || web::get().to(blobs::of_task),
    },
    Route {
        method: Method::GET,
        path: "/api/v2/runs/{id}/artifacts",
        handler: || web::get().to(blobs::of_run),
    },
    Route { method: Method::GET, path: "/api/v2/artifacts/{id}", handler: || web::get().to(blobs::artifact) },
    Route { method: Method::GET, path: "/api/v2/blobs/{sha256}", handler: || web::get().to(blobs::get) },
    Route { method: Method::PUT, path: "/api/v2/blobs/{sha256}", handler: || web::put().to(blobs::put) },
    Route { method: Method::GET, path: "/api/v2/schedules", handler: || web::get().to(schedules::list) },
    Route {
        method: Method::GET,
        path: "/api/v2/schedules/{name}",
        handler: || web::get().to(schedules::get),
    },
    Route {
        method: Method::PUT,
        path: "/api/v2/schedules/{name}",
        handler: || web::put().to(schedules::put),
    },
    Route {
        method: Method::DELETE,
        path: "/api/v2/schedules/{name}",
        handler: || web::delete().to(schedules::delete),
    },
    Route {
        method: Method::POST,
        path: "/api/v2/schedules/{name}/pause",
        handler: || web::post().to(schedules::pause),
    },
    Route {
        method: Method::POST,
        path: "/api/v2/schedules/{name}/resume",
        handler: || web::post().to(schedules::resume),
    },
    Route {
        method: Method::POST,
        path: "/api/v2/schedules/{name}/trigger",
        handler: || web::post().to(schedules::trigger),
    },
    Route { method: Method::GET, path: "/api/v2/keys", handler: || web::get().to(keys::list) },
    Route { method: Method::GET, path: "/api/v2/keys/{name}", handler: || web::get().to(keys::get) },
    Route { method: Method::PUT, path: "/api/v2/keys/{name}", handler: || web::put().to(keys::put) },
    Route { method: Method::DELETE, path: "/api/v2/keys/{name}", handler: || web::delete().to(keys::delete) },
    Route { method: Method::POST, path: "/api/v2/locks", handler: || web::post().to(locking::lock) },
    Route { method: Method::GET, path: "/api/v2/locks", handler: || web::get().to(locks::list) },
    Route { method: Method::DELETE, path: "/api/v2/locks", handler: || web::delete().to(locks::delete_all) },
    Route { method: Method::POST, path: "/api/v2/locks/release", handler: || web::post().to(locks::release) },
    Route { method: Method::POST, path: "/api/v2/locks/verify", handler: || web::post().to(locks::verify) },
    Route { method: Method::GET, path: "/api/v2/locks/{id}", handler: || web::get().to(locks::get) },
    Route { method: Method::DELETE, path: "/api/v2/locks/{id}", handler: || web::delete().to(locks::delete) },
    Route {
        method: Method::POST,
        path: "/api/v2/locks/{id}/renew",
        handler: || web::post().to(locks::renew),
    },
    Route {
        method: Method::POST,
        path: "/api/v2/locks/{id}/break",
        handler: || web::post().to(locks::break_lock),
    },
    Route { method: Method::POST, path: "/lfs/{repo}/locks", handler: || web::post().to(lfs::lock) },
    Route { method: Method::GET, path: "/lfs/{repo}/locks", handler: || web::get().to(lfs::list) },
    Route { method: Method::POST, path: "/lfs/{repo}/locks/verify", handler: || web::post().to(lfs::verify) },
    Route {
        method: Method::POST,
        path: "/lfs/{repo}/locks/{id}/unlock",
        handler: || web::post().to(lfs::unlock),
    },
    Route {
        method: Method::POST,
        path: "/lfs/{repo}/objects/batch",
        handler: || web::post().to(lfs::objects),
    },
    Route { method: Method::GET, path: "/api/v2/workers", handler: || web::get().to(workers::list) },
    Route {
        method: Method::GET,
        path: "/api/v2/workers/connect",
        handler: || web::get().to(workers::connect),
    },
    Route { method: Method::GET, path: "/api/v2/workers/{id}", handler: || web::get().to(workers::get) },
    Route {
        method: Method::POST,
        path: "/api/v2/workers/{id}/drain",
        handler: || web::post().to(workers::drain),
    },
    Route {
        method: Method::POST,
        path: "/api/v2/workers/{id}/dead",
        handler: || web::post().to(workers::dead),
    },
    Route { method: Method::GET, path: "/api/v2/events", handler: || web::get().to(events::list) },
    Route { method: Method::GET, path: "/api/v2/events/ws", handler: || web::get().to(events::socket) },
    Route { method: Method::GET, path: "/api/v2/stats", handler: || web::get().to(stats::stats) },
    Route { method: Method::GET, path: "/health", handler: || web::get().to(service::health) },
    Route { method: Method::GET, path: "/ready", handler: || web::get().to(service::ready) },
    Route { method: Method::GET, path: "/metrics", handler: || web::get().to(service::metrics) },
    Route { method: Method::GET, path: "/openapi.json", handler: || web::get().to(service::document) },
    Route { method: Method::GET, path: "/", handler: || web::get().to(service::page) },
];

/// Registers every route, and what answers where there is none.
pub(crate) fn configure(config: &mut web::ServiceConfig) {
    let mut paths: Vec<&'static str> = Vec::new();
    for route in ROUTES {
        if !paths.contains(&route.path) {
            paths.push(route.path);
        }
    }
    for path in paths {
        config.service(resource(path));
    }
    config.default_service(web::route().to(no_route));
}

fn resource(path: &'static str) -> Resource {
    // The name of a repository has slashes.
    let mut resource = web::resource(path.replace("{repo}", "{repo:.+}"));
    let mut allowed = Vec::new();
    for route in ROUTES.iter().filter(|route| route.path == path) {
        resource = resource.route((route.handler)());
        allowed.push(route.method.as_str());
    }
    let allowed = allowed.join(", ");
    resource.default_service(web::route().to(move |request: HttpRequest| {
        let allowed = allowed.clone();
        async move { wrong_method(&request, &allowed) }
    }))
}

fn wrong_method(request: &HttpRequest, allowed: &str) -> HttpResponse {
    let detail = format!("{} is not served here; allowed: {allowed}", request.method());
    let mut response = Failure::new(405, "method", detail).error_response();
    if let Ok(value) = header::HeaderValue::from_str(allowed) {
        response.headers_mut().insert(header::ALLOW, value);
    }
    response
}

async fn no_route(request: HttpRequest) -> HttpResponse {
    let detail = format!("there is nothing at {}; see /openapi.json", request.path());
    Failure::not_found(detail).error_response()
}

/// Around every request: who may come in, and the count of what went out.
pub(crate) async fn around(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let master = request.app_data::<web::Data<Master>>().cloned();
    if let Some(master) = &master
        && let Err(failure) = token::check(master.token.as_ref(), request.request())
    {
        return Err(if lfs::is_lfs(request.request()) {
            lfs::LfsFailure::from(failure).into()
        } else {
            failure.into()
        });
    }
    let response = next.call(request).await?;
    if let Some(master) = &master {
        master.metrics.count(response.request(), response.status());
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_served_is_what_is_documented() {
        let served: BTreeSet<(String, String)> =
            ROUTES.iter().map(|route| (route.path.to_owned(), route.method.to_string())).collect();
        let document = serde_json::to_value(openapi::document()).expect("plain data");
        let mut documented = BTreeSet::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for method in item.as_object().expect("methods").keys() {
                documented.insert((path.clone(), method.to_uppercase()));
            }
        }
        assert_eq!(served, documented);
    }

    #[test]
    fn every_schema_that_is_named_is_there() {
        let document = serde_json::to_value(openapi::document()).expect("plain data");
        let text = document.to_string();
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().expect("a name");
            assert!(schemas.contains_key(name), "{name} is missing");
        }
    }
}
