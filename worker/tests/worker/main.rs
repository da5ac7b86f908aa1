//! Real workers against a double of the master that speaks the real frames.

mod common;
mod door;
mod kinds;
mod life;
mod locks;
mod process;
mod session;
mod stopping;
mod strays;
