//! What an agent waits for before it changes a file: `agentflow hook pre-tool`, a process each time.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use super::figure::{Figure, percentile};
use super::stage::{Stage, time_ms};
use super::{Database, Scale};
use crate::harness::{Failure, binaries};

pub(super) fn measure(database: Database, scale: Scale) -> Result<Vec<Figure>, Failure> {
    let stage = Stage::open(database)?;
    let copy = stage.scene.path("copy");
    std::fs::create_dir_all(copy.join("src"))?;
    git(&copy, &["init", "--quiet"])?;
    std::fs::create_dir(copy.join(".agentflow"))?;
    let marker = "name = \"example.com/team/app\"\nmode = \"enforce\"\n";
    std::fs::write(copy.join(".agentflow/repository.toml"), marker)?;
    let agentflow = |owner: &str| -> Result<Command, Failure> {
        let mut command = Command::new(&binaries()?.command);
        command.current_dir(&copy).env("AGENTFLOW_OWNER", owner).env("HOME", stage.scene.path("home"));
        command.env("AGENTFLOW_MASTER", format!("http://127.0.0.1:{}", stage.scene.port()));
        Ok(command)
    };
    for (owner, file) in [("me", "src/mine.rs"), ("somebody", "src/theirs.rs")] {
        let status = agentflow(owner)?.args(["lock", file]).stdout(Stdio::null()).status()?;
        if !status.success() {
            return Err(format!("agentflow lock {file}: {status}").into());
        }
    }
    let answer = |file: &str, code: i32| -> Result<(), Failure> {
        let call = json!({ "hook_event_name": "PreToolUse", "tool_name": "Write", "cwd": copy,
                           "tool_input": { "file_path": copy.join(file), "content": "" } });
        let mut hook = agentflow("me")?
            .args(["hook", "pre-tool"])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        hook.stdin.take().ok_or("no input")?.write_all(call.to_string().as_bytes())?;
        let status = hook.wait()?;
        if status.code() == Some(code) { Ok(()) } else { Err(format!("{file}: {status}").into()) }
    };
    let (mut allowed, mut denied, mut spawns) = (vec![], vec![], vec![]);
    for _ in 0..scale.hooks {
        spawns.push(time_ms(|| {
            agentflow("me")?.arg("--version").stdout(Stdio::null()).status().map(|_| ()).map_err(Into::into)
        })?);
        allowed.push(time_ms(|| answer("src/mine.rs", 0))?);
        denied.push(time_ms(|| answer("src/theirs.rs", 2))?);
    }
    let unit = percentile(&spawns, 99.0);
    let figure = |name: &str, times: &[f64]| {
        let p99 = percentile(times, 99.0);
        Figure::new(name, p99, "ms")
            .ratio(p99 / unit, "the p99 of `agentflow --version`")
            .target("≤ 50 ms", p99 <= 50.0)
            .note(format!(
                "p50 {:.1} ms; `agentflow --version`: p50 {:.1} ms",
                percentile(times, 50.0),
                percentile(&spawns, 50.0)
            ))
    };
    Ok(vec![
        figure("the hook allows a file that is locked by its user, p99", &allowed),
        figure("the hook refuses a file and names who has it, p99", &denied),
    ])
}

fn git(copy: &Path, arguments: &[&str]) -> Result<(), Failure> {
    let status = Command::new("git").current_dir(copy).args(arguments).status()?;
    if status.success() { Ok(()) } else { Err(format!("git {arguments:?}: {status}").into()) }
}
