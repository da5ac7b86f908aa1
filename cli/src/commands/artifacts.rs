//! `artifacts`: the files that tasks leave.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use agentflow_protocol::blobs::{ArtifactView, Artifacts};

use crate::args::{ArtifactsAct, Download, GetArtifact, Whose};
use crate::client::Client;
use crate::error::{Error, exit};
use crate::output::{Cell, Output};

pub(super) fn artifacts(act: &ArtifactsAct, client: &Client, output: Output) -> Result<u8, Error> {
    match act {
        ArtifactsAct::List(whose) => list(*whose, client, output),
        ArtifactsAct::Get(get) => one(get, client, output),
        ArtifactsAct::Download(download) => all(download, client, output),
    }
}

/// Every file, page by page.
fn found(whose: Whose, client: &Client) -> Result<Vec<ArtifactView>, Error> {
    let base = match (whose.task, whose.run) {
        (Some(task), _) => format!("/api/v2/tasks/{task}/artifacts?limit=1000"),
        (None, Some(run)) => format!("/api/v2/runs/{run}/artifacts?limit=1000"),
        (None, None) => return Ok(Vec::new()),
    };
    let mut found = Vec::new();
    let mut path = base.clone();
    loop {
        let page: Artifacts = client.get(&path)?;
        found.extend(page.artifacts);
        match page.next_cursor {
            Some(next) => path = format!("{base}&cursor={next}"),
            None => return Ok(found),
        }
    }
}

fn list(whose: Whose, client: &Client, output: Output) -> Result<u8, Error> {
    let found = found(whose, client)?;
    if output.json {
        output.json(&Artifacts { artifacts: found, next_cursor: None })?;
        return Ok(exit::DONE);
    }
    let row = |file: &ArtifactView| -> Vec<Cell> {
        vec![
            file.id.to_string().into(),
            file.task_id.to_string().into(),
            file.node.clone().unwrap_or_else(|| "-".to_owned()).into(),
            file.bytes.to_string().into(),
            file.path.clone().into(),
        ]
    };
    let rows: Vec<Vec<Cell>> = found.iter().map(row).collect();
    output.table(&["ID", "TASK", "NODE", "BYTES", "PATH"], &rows)?;
    if rows.is_empty() {
        eprintln!("no files: a task keeps those that it names in artifacts, once it has ended");
    }
    Ok(exit::DONE)
}

fn one(get: &GetArtifact, client: &Client, output: Output) -> Result<u8, Error> {
    let (name, mut reader) = client.download(&format!("/api/v2/artifacts/{}", get.id))?;
    if get.output.as_deref() == Some(Path::new("-")) {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = reader.read(&mut buffer).map_err(|source| broken(get.id, source))?;
            if count == 0 {
                return Ok(exit::DONE);
            }
            output.bytes(&buffer[..count])?;
        }
    }
    let name = name.filter(|name| !name.is_empty() && !name.contains('/') && name != "..");
    let own = || name.unwrap_or_else(|| format!("artifact-{}", get.id)).into();
    let target: PathBuf = get.output.clone().unwrap_or_else(own);
    write(&mut reader, get.id, &target)?;
    output.line(format_args!("{}", target.display()))?;
    Ok(exit::DONE)
}

fn all(download: &Download, client: &Client, output: Output) -> Result<u8, Error> {
    let found = found(download.whose, client)?;
    for file in &found {
        let target = place(download, file)?;
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)
                .map_err(|source| Error::Io { what: format!("cannot make {}", parent.display()), source })?;
        }
        let (_, mut reader) = client.download(&format!("/api/v2/artifacts/{}", file.id))?;
        write(&mut reader, file.id, &target)?;
        if file.executable {
            fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).map_err(|source| Error::Io {
                what: format!("cannot change {}", target.display()),
                source,
            })?;
        }
        if !output.json {
            output.line(format_args!("{}", target.display()))?;
        }
    }
    if output.json {
        output.json(&Artifacts { artifacts: found, next_cursor: None })?;
    }
    Ok(exit::DONE)
}

/// Where a file goes; never out of the directory, whatever the master says.
fn place(download: &Download, file: &ArtifactView) -> Result<PathBuf, Error> {
    let mut inner = PathBuf::new();
    if download.whose.task != Some(agentflow_core::ids::TaskId(file.task_id)) {
        inner.push(file.node.clone().unwrap_or_else(|| file.task_id.to_string()));
    }
    inner.push(&file.path);
    if inner.components().all(|part| matches!(part, Component::Normal(_))) {
        return Ok(download.to.join(inner));
    }
    Err(Error::Usage(format!("the path '{}' of artifact {} leads out of the directory", file.path, file.id)))
}

fn write(reader: &mut impl Read, id: u64, target: &Path) -> Result<(), Error> {
    let failed = |source| Error::Io { what: format!("cannot write {}", target.display()), source };
    let mut file = File::create(target).map_err(failed)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = reader.read(&mut buffer).map_err(|source| broken(id, source))?;
        if count == 0 {
            return Ok(());
        }
        file.write_all(&buffer[..count]).map_err(failed)?;
    }
}

fn broken(id: u64, source: io::Error) -> Error {
    Error::Io { what: format!("artifact {id} did not arrive"), source }
}
