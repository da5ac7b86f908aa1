//! Who speaks, where locks are concerned.

use crate::inside::own_task;

/// The variable that names whoever works in a shell.
pub(crate) const OWNER: &str = "AGENTFLOW_OWNER";

/// The name that this shell goes by, where several work in one working copy.
pub(crate) fn named() -> Option<String> {
    variable(OWNER)
}

/// Inside a task that task; else the name of this shell, else `USER@HOST`.
pub(crate) fn owner() -> String {
    let task = own_task().map(|task| format!("task:{task}"));
    task.or_else(named).unwrap_or_else(|| {
        let user = variable("USER").or_else(|| variable("LOGNAME")).unwrap_or_else(|| "somebody".to_owned());
        let host = rustix::system::uname();
        format!("{user}@{}", host.nodename().to_string_lossy())
    })
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}
