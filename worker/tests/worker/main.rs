//! Real workers against a double of the master that speaks the real frames.

mod common;
mod kinds;
mod life;
mod session;
mod stopping;
