//! Programs and pieces that test the whole: the simulation of the kernel, and what drives the
//! real binaries.

pub mod agent;
pub mod bench;
pub mod crash;
pub mod harness;
pub mod locking;
pub mod race;
pub mod sim;
