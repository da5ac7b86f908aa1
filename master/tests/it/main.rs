//! A real master, started in this process on a port of its own, as clients and workers meet it.

mod access;
mod blobs;
mod checkpoints;
mod continuing;
mod events;
mod keys;
mod lfs;
mod lock_waits;
mod locks;
mod memory;
mod protocol;
mod relations;
mod run_upgrade_parts;
mod run_upgrades;
mod runs;
mod schedules;
mod shutdown;
mod socket;
mod start;
mod submit;
mod support;
mod tasks;
mod versions;
mod workers;
