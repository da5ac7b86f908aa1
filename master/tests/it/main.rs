//! A real master, started in this process on a port of its own, as clients and workers meet it.

mod access;
mod events;
mod protocol;
mod shutdown;
mod socket;
mod start;
mod submit;
mod support;
mod tasks;
mod workers;
