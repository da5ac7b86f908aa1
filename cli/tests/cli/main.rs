//! The real `agentflow`, run as people run it.

mod masterless;
mod support;
mod with_master;
