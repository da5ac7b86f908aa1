//! What an attempt finds and leaves beside its assignment and its report: inputs, outputs and results
//! that are too large for them, and files.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use agentflow_core::batch::Outcome;
use agentflow_core::blob::{Artifact, Left};
use agentflow_core::limits;
use agentflow_protocol::blobs::ArtifactView;
use agentflow_protocol::input::assemble;
use agentflow_protocol::worker::End;

use super::{Ending, Executor};
use crate::api::{Failed, Patience};
use crate::slots::Job;

/// How long an attempt's end waits for a master that takes what it left.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// Files that one attempt may ask for.
const FILES: usize = 10_000;

impl Executor {
    /// A task's input as JSON text.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub(super) fn input(&self, job: &Job) -> Result<Option<String>, String> {
        if job.spec.input_parts.is_empty() {
            return Ok(job.spec.input.as_ref().map(ToString::to_string));
        }
        let scratch = self.environment.scratch(job.key);
        let text = assemble(&job.spec.input_parts, |blob| -> Result<String, String> {
            if blob.bytes > limits::VALUE_BYTES {
                return Err(format!("a part has {} bytes; at most {}", blob.bytes, limits::VALUE_BYTES));
            }
            let failed = |error: io::Error| format!("{}: {error}", scratch.display());
            let mut file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&scratch)
                .map_err(failed)?;
            self.patiently(job, |patience| self.api.get(&blob.sha256, &mut file, patience))?;
            let mut bytes = Vec::new();
            file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(failed)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        });
        remove(&scratch);
        text.map(Some).map_err(|error| format!("AGENTFLOW_INPUT cannot be made: {error}"))
    }

    /// Puts the files of earlier tasks where the attempt's process finds them.
    ///
    /// # Errors
    /// Why they are not there, for people.
    pub(super) fn fetch(&self, job: &Job) -> Result<(), String> {
        if job.spec.artifacts_from.is_empty() {
            return Ok(());
        }
        let root = self.environment.artifacts(job.key);
        let mut count = 0;
        for (name, task) in &job.spec.artifacts_from {
            let failed = |error: String| format!("the artifacts of '{name}' (task {task}): {error}");
            let directory = root.join(name);
            fs::create_dir_all(&directory).map_err(|error| failed(error.to_string()))?;
            let files = self.patiently(job, |patience| self.api.artifacts(*task, FILES - count, patience));
            let files = files.map_err(failed)?;
            count += files.len();
            for file in files {
                let path = place(&directory, task.0, &file).map_err(failed)?;
                self.fetch_one(job, &file, &path)
                    .map_err(|error| failed(format!("{}: {error}", file.path)))?;
            }
        }
        Ok(())
    }

    fn fetch_one(&self, job: &Job, artifact: &ArtifactView, path: &Path) -> Result<(), String> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| error.to_string())?;
        }
        let mode = if artifact.executable { 0o755 } else { 0o644 };
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)
            .map_err(|error| error.to_string())?;
        self.patiently(job, |patience| self.api.get(&artifact.sha256, &mut file, patience))
    }

    /// Has kept what an attempt leaves. Where that fails, the attempt has failed: nobody would get it.
    pub(super) fn keep(&self, job: &Job, ending: Ending, whole_result: Option<File>) -> Ending {
        let wants = !job.spec.artifacts.is_empty() || whole_result.is_some();
        let is_large = ending.outcome.outputs.as_ref().is_some_and(|text| text.len() > limits::OUTPUTS_BYTES)
            || ending.outcome.result.as_ref().is_some_and(|text| text.len() > limits::RESULT_BYTES);
        if !(wants || is_large) || matches!(ending.end, End::Cancelled | End::Interrupted) {
            return ending;
        }
        let Ending { end, mut outcome } = ending;
        let mut left = Left::default();
        let kept = self.keep_values(job, &mut outcome, &mut left, whole_result).and_then(|()| {
            // What a failed attempt did not make is not missing.
            left.artifacts = self.keep_files(job, end == End::Completed)?;
            Ok(())
        });
        let any = left.blobs().next().is_some();
        outcome.left = any.then(|| Box::new(left));
        let Err(error) = kept else { return Ending { end, outcome } };
        if let Some(stop) = job.control.stopped() {
            return Ending::stopped(stop, Outcome { left: None, ..outcome });
        }
        match end {
            End::Completed => Ending { end, outcome }.spoilt(error),
            // It has failed for a better reason.
            end => {
                log::warn!("task {}: {error}", job.key.task);
                Ending { end, outcome }
            }
        }
    }

    fn keep_values(
        &self,
        job: &Job,
        outcome: &mut Outcome,
        left: &mut Left,
        whole_result: Option<File>,
    ) -> Result<(), String> {
        if let Some(text) = outcome.outputs.take_if(|text| text.len() > limits::OUTPUTS_BYTES) {
            left.outputs = Some(self.keep_text(job, &text).map_err(|error| format!("its outputs: {error}"))?);
        }
        if let Some(text) = outcome.result.take_if(|text| text.len() > limits::RESULT_BYTES) {
            left.result = Some(self.keep_text(job, &text).map_err(|error| format!("its result: {error}"))?);
        }
        if let Some(file) = whole_result {
            let kept = self.patiently(job, |patience| self.api.put(&file, patience));
            left.result = Some(kept.map_err(|error| format!("its result: {error}"))?);
            outcome.result = None;
        }
        Ok(())
    }

    fn keep_text(&self, job: &Job, text: &str) -> Result<agentflow_core::blob::BlobRef, String> {
        let path = self.environment.scratch(job.key);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let mut file = file.map_err(|error| format!("{}: {error}", path.display()))?;
        // It needs no name any more.
        remove(&path);
        file.write_all(text.as_bytes()).map_err(|error| error.to_string())?;
        self.patiently(job, |patience| self.api.put(&file, patience))
    }

    /// The files that a task names, in the order of their paths. `all` says that each entry must name
    /// something.
    fn keep_files(&self, job: &Job, all: bool) -> Result<Vec<Artifact>, String> {
        let mut artifacts = Vec::new();
        if job.spec.artifacts.is_empty() {
            return Ok(artifacts);
        }
        let base = match job.place.directory(&job.spec) {
            Some(directory) => directory.to_owned(),
            None => std::env::current_dir().map_err(|error| format!("artifacts: {error}"))?,
        };
        let paths = find(&base, &job.spec.artifacts, all).map_err(|error| format!("artifacts: {error}"))?;
        for path in paths {
            let kept = self.keep_file(job, &base, &path);
            artifacts.push(kept.map_err(|error| format!("artifacts: '{path}': {error}"))?);
        }
        Ok(artifacts)
    }

    fn keep_file(&self, job: &Job, base: &Path, path: &str) -> Result<Artifact, String> {
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = File::options().read(true).custom_flags(flags).open(base.join(path));
        let file = file.map_err(|error| error.to_string())?;
        let metadata = file.metadata().map_err(|error| error.to_string())?;
        if !metadata.is_file() {
            return Err("is no regular file".to_owned());
        }
        let blob = self.patiently(job, |patience| self.api.put(&file, patience))?;
        Ok(Artifact { path: path.into(), blob, executable: metadata.permissions().mode() & 0o100 != 0 })
    }

    pub(super) fn patiently<T>(
        &self,
        job: &Job,
        ask: impl FnOnce(&Patience<'_>) -> Result<T, Failed>,
    ) -> Result<T, String> {
        let is_over = || job.control.stopped().is_some();
        ask(&Patience { time: PATIENCE, is_over: &is_over }).map_err(|failed| failed.to_string())
    }
}

/// Where a file of another task goes: below that task's directory, those of an item below its number.
fn place(directory: &Path, task: u64, file: &ArtifactView) -> Result<PathBuf, String> {
    let path = Path::new(&file.path);
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(format!("'{}' leads out of its directory", file.path));
    }
    if file.task_id == task {
        return Ok(directory.join(path));
    }
    let node = file.node.as_deref().unwrap_or_default();
    let item = node.rsplit_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(item, _)| item);
    let item = item.filter(|item| item.bytes().all(|byte| byte.is_ascii_digit()) && !item.is_empty());
    Ok(directory.join(item.unwrap_or("other")).join(path))
}

/// The files below `base` that the entries name, each once, by their paths with `/`. A directory means
/// everything in it.
fn find(base: &Path, entries: &[String], all: bool) -> Result<Vec<String>, String> {
    let real = fs::canonicalize(base).map_err(|error| format!("{}: {error}", base.display()))?;
    let mut found = std::collections::BTreeSet::new();
    for entry in entries {
        let before = found.len();
        let mut any = false;
        // `dir/**` is everything below `dir`, as in paths of locks.
        let whole =
            if entry == "**" || entry.ends_with("/**") { format!("{entry}/*") } else { entry.clone() };
        let mut patterns = vec![whole.clone()];
        while let Some(pattern) = patterns.pop() {
            let absolute = format!("{}/{pattern}", glob::Pattern::escape(&real.to_string_lossy()));
            for path in glob::glob(&absolute).map_err(|error| format!("'{entry}': {error}"))? {
                let path = path.map_err(|error| format!("'{entry}': {error}"))?;
                any = true;
                let inner = path.strip_prefix(&real).ok().and_then(Path::to_str);
                let inner = inner.ok_or_else(|| format!("'{}' is no UTF-8 path", path.display()))?;
                // What is reached through a link to a directory is there under its own path.
                let parent = path.parent().unwrap_or(&real);
                if fs::canonicalize(parent).map_err(|error| format!("'{inner}': {error}"))? != parent {
                    continue;
                }
                // A link may lead anywhere; what is kept lies within the directory.
                let target = fs::canonicalize(&path).map_err(|error| format!("'{inner}': {error}"))?;
                if !target.starts_with(&real) {
                    return Err(format!("'{inner}' leads out of the task's directory"));
                }
                if target.is_dir() {
                    if path.is_symlink() && inner == entry {
                        return Err(format!("'{inner}' is a link to a directory; name the directory itself"));
                    }
                    if pattern == whole && !path.is_symlink() {
                        patterns.push(format!("{}/**/*", glob::Pattern::escape(inner)));
                    }
                } else {
                    found.insert(inner.to_owned());
                }
                if found.len() > limits::ARTIFACTS {
                    return Err(format!("they are more than {} files", limits::ARTIFACTS));
                }
            }
        }
        if all && found.len() == before && !any {
            return Err(format!("'{entry}' names nothing in {}", base.display()));
        }
    }
    if let Some(long) = found.iter().find(|path| path.len() > limits::PATH_BYTES) {
        return Err(format!("the path '{long}' has more than {} bytes", limits::PATH_BYTES));
    }
    if found.iter().map(String::len).sum::<usize>() > limits::ARTIFACT_PATHS_BYTES {
        return Err(format!("their paths have more than {} bytes", limits::ARTIFACT_PATHS_BYTES));
    }
    Ok(found.into_iter().collect())
}

/// Removes a file that may not be there.
fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        log::warn!("{} stays behind: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(entries: &[&str], all: bool) -> Result<Vec<String>, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let base = directory.path().join("a[b");
        fs::create_dir_all(base.join("dist/deep")).expect("a directory");
        for path in ["dist/app", "dist/deep/x.txt", "a.log", "b.log"] {
            fs::write(base.join(path), path).expect("a file");
        }
        std::os::unix::fs::symlink("/etc/hostname", base.join("out")).expect("a link");
        std::os::unix::fs::symlink("a.log", base.join("in")).expect("a link");
        std::os::unix::fs::symlink("dist", base.join("dlink")).expect("a link");
        let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        find(&base, &entries, all)
    }

    #[test]
    fn entries_are_paths_patterns_and_directories() {
        let owned = |list: &[&str]| Ok(list.iter().map(|path| (*path).to_owned()).collect());
        for entry in ["dist", "dist/**", "dist/**/*"] {
            assert_eq!(files(&[entry], true), owned(&["dist/app", "dist/deep/x.txt"]), "{entry}");
        }
        assert_eq!(files(&["**/*.txt"], true), owned(&["dist/deep/x.txt"]));
        assert!(files(&["dlink"], true).expect_err("a link").contains("name the directory itself"));
        assert_eq!(files(&["*.log", "a.log"], true), owned(&["a.log", "b.log"]));
        assert_eq!(files(&["dist/**/*.txt", "in"], true), owned(&["dist/deep/x.txt", "in"]));
        assert_eq!(files(&["none"], false), owned(&[]));
        assert!(files(&["none"], true).expect_err("nothing").contains("'none' names nothing"));
        assert!(files(&["out"], true).expect_err("a way out").contains("leads out"));
    }

    #[test]
    fn files_of_items_have_directories_of_their_own() {
        let file = |task_id, node: Option<&str>, path: &str| ArtifactView {
            id: 1,
            task_id,
            attempt: 1,
            node: node.map(str::to_owned),
            path: path.to_owned(),
            sha256: agentflow_core::blob::BlobHash([0; 32]),
            bytes: 0,
            executable: false,
        };
        let place = |file| place(Path::new("/d"), 5, &file).map(|path| path.display().to_string());
        assert_eq!(place(file(5, Some("map"), "a/b")), Ok("/d/a/b".to_owned()));
        assert_eq!(place(file(9, Some("map[3]@2"), "a")), Ok("/d/3/a".to_owned()));
        assert!(place(file(5, None, "../a")).is_err());
        assert!(place(file(5, None, "/a")).is_err());
    }
}
