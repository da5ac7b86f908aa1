//! The description of the interface, generated from the handlers and the bodies themselves.

use agentflow_protocol::{Problem, api, submit};
use utoipa::OpenApi;

use super::{bulk, events, logs, service, stats, submit as submit_routes, tasks, workers};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "AgentFlow",
        description = "Runs tasks on workers, durably. Ids may be written `5` or `TASK-00000005`. Unknown fields and \
                       parameters are refused by name. Errors are `application/problem+json` (RFC 9457).",
        license(name = "MIT", identifier = "MIT")
    ),
    paths(
        submit_routes::submit,
        tasks::list,
        bulk::bulk,
        tasks::get,
        tasks::patch,
        tasks::cancel,
        tasks::retry,
        tasks::why,
        tasks::attempts,
        logs::logs,
        workers::list,
        workers::connect,
        workers::get,
        workers::drain,
        workers::dead,
        events::list,
        events::socket,
        stats::stats,
        service::health,
        service::ready,
        service::metrics,
        service::document,
        service::page,
    ),
    components(schemas(submit::TaskBody, api::Ids, api::TaskView, Problem, events::Gap)),
    tags(
        (name = "tasks", description = "Work"),
        (name = "workers", description = "Who does it"),
        (name = "events", description = "What happened"),
        (name = "service", description = "The master itself"),
    )
)]
struct Document;

/// The description.
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}
