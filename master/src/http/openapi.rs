//! The description of the interface, generated from the handlers and the bodies themselves.

use agentflow_protocol::{Problem, api, run_upgrade as upgrade_bodies, runs as run_bodies, submit};
use utoipa::OpenApi;

use super::{
    blobs, bulk, checkpoints, events, keys, logs, memory, relations, run_upgrade, runs, schedules, service,
    stats, submit as submit_routes, tasks, versions, workers,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "AgentFlow",
        description = "Runs tasks on workers, durably. Ids may be written `5` or `TASK-00000005`. Unknown fields and \
                       parameters are refused by name. Errors are `application/problem+json` (RFC 9457).",
        license(name = "MIT", identifier = "MIT")
    ),
    paths(
        blobs::of_task,
        blobs::of_run,
        blobs::artifact,
        blobs::get,
        blobs::put,
        submit_routes::submit,
        tasks::list,
        tasks::dead_letters,
        bulk::bulk,
        tasks::get,
        tasks::patch,
        tasks::cancel,
        tasks::retry,
        tasks::why,
        tasks::attempts,
        relations::release,
        relations::approve,
        relations::reject,
        relations::of_task,
        relations::relate,
        relations::plan,
        runs::start,
        runs::list,
        runs::get,
        runs::graph,
        runs::why,
        runs::pause,
        runs::resume,
        runs::cancel,
        runs::rerun,
        runs::fork,
        schedules::list,
        schedules::get,
        schedules::put,
        schedules::delete,
        schedules::pause,
        schedules::resume,
        schedules::trigger,
        keys::list,
        keys::get,
        keys::put,
        keys::delete,
        logs::logs,
        checkpoints::save,
        checkpoints::list,
        checkpoints::get,
        checkpoints::get_data,
        checkpoints::restore,
        memory::of_task,
        memory::get_of_task,
        memory::put_of_task,
        memory::delete_of_task,
        memory::of_run,
        memory::get_of_run,
        memory::put_of_run,
        memory::delete_of_run,
        versions::upgrade,
        versions::versions,
        run_upgrade::upgrade,
        run_upgrade::versions,
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
    components(schemas(submit::TaskBody, run_bodies::RunBody, run_bodies::RerunPreview, upgrade_bodies::RunUpgradePreview, api::Ids, api::TaskView, Problem, events::Gap)),
    tags(
        (name = "tasks", description = "Work"),
        (name = "runs", description = "Workflows at work"),
        (name = "schedules", description = "What is begun again and again"),
        (name = "keys", description = "Names that only so many may hold"),
        (name = "checkpoints", description = "What tasks saved of their state"),
        (name = "memory", description = "What tasks and runs remember for a while"),
        (name = "versions", description = "What a task or a run was to do, and is"),
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
