//! What git finds around it: nothing that leads it elsewhere, and nobody to ask.

use std::process::Command;

/// What holds for every command, whatever the user's configuration says.
pub(super) const SETTINGS: &[&str] = &[
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.safecrlf=false",
    "core.splitIndex=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "commit.gpgSign=false",
    "push.gpgSign=false",
    "push.followTags=false",
    "submodule.recurse=false",
    "add.ignoreErrors=false",
    "advice.addEmbeddedRepo=false",
    "credential.interactive=false",
];

/// Inherited variables that say how a remote is reached or where configuration lies. All others of
/// git's redirect it, so that they are removed.
const INHERITED: &[&str] = &[
    "GIT_ALLOW_PROTOCOL",
    "GIT_ASKPASS",
    "GIT_CEILING_DIRECTORIES",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CONFIG_SYSTEM",
    "GIT_DISCOVERY_ACROSS_FILESYSTEM",
    "GIT_EXEC_PATH",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_SSH_VARIANT",
];

/// The same, by how they begin.
const INHERITED_GROUPS: &[&str] =
    &["GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_", "GIT_HTTP_", "GIT_LFS_", "GIT_PROXY_", "GIT_SSL_"];

/// Whose commits snapshots are.
const NAME: &str = "AgentFlow";
const EMAIL: &str = "agentflow@localhost";

/// Gives a command the variables that every one has.
pub(super) fn apply(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if is_redirection(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), NAME).env(format!("GIT_{who}_EMAIL"), EMAIL);
    }
    command.env("LC_ALL", "C").env("GIT_TERMINAL_PROMPT", "0").env("GCM_INTERACTIVE", "never");
    // Concerns only locks that a command could do without.
    command.env("GIT_OPTIONAL_LOCKS", "0");
}

fn is_redirection(name: &str) -> bool {
    let of_group = INHERITED_GROUPS.iter().any(|group| name.starts_with(group));
    name.starts_with("GIT_") && !INHERITED.contains(&name) && !of_group
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_variables_that_redirect_are_removed() {
        for name in ["GIT_DIR", "GIT_INDEX_FILE", "GIT_CONFIG_PARAMETERS", "GIT_AUTHOR_DATE", "GIT_TRACE"] {
            assert!(is_redirection(name), "{name}");
        }
        for name in ["GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "GIT_CONFIG_KEY_0", "PATH", "HOME"] {
            assert!(!is_redirection(name), "{name}");
        }
    }
}
