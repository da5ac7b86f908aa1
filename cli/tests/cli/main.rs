//! The real `agentflow`, run as people run it.

mod control;
mod examples;
mod fork;
mod guard;
mod hook;
mod hooks;
mod large;
mod locks;
mod masterless;
mod relations;
mod repository;
mod run_upgrades;
mod saved;
mod standing;
mod support;
mod terminal;
mod with_master;
mod workflow_files;
mod workflows;
