//! A real master, started in this process on a port of its own, as clients and workers meet it.

mod access;
mod blobs;
mod events;
mod keys;
mod protocol;
mod relations;
mod runs;
mod schedules;
mod shutdown;
mod socket;
mod start;
mod submit;
mod support;
mod tasks;
mod workers;
