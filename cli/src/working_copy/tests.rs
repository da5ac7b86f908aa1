//! Working copies as git makes them.

use std::os::unix::fs::symlink;
use std::process::Command;

use super::*;

/// A directory with a working copy `copy` in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a directory"));
        place.git(".", &["init", "--quiet", "copy"]);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().expect("a directory").join(name)
    }

    fn git(&self, directory: &str, words: &[&str]) {
        let mut command = Command::new("git");
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
        for (name, value) in [("GIT_AUTHOR_NAME", "A"), ("GIT_AUTHOR_EMAIL", "a@b")] {
            command.env(name, value).env(name.replace("AUTHOR", "COMMITTER"), value);
        }
        let output = command.arg("-C").arg(self.path(directory)).args(words).output().expect("git");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn origin(&self, address: &str) {
        self.git("copy", &["config", "remote.origin.url", address]);
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    fn found(&self, directory: &str) -> Result<WorkingCopy, Error> {
        WorkingCopy::find(&self.path(directory))
    }

    /// What a path typed in a directory is called, or why it is not.
    fn name(&self, directory: &str, typed: &str) -> String {
        let copy = self.found("copy").expect("a working copy");
        match copy.path_from(&self.path(directory), Path::new(typed)) {
            Ok(path) => path.to_string(),
            Err(fault) => fault.to_string(),
        }
    }
}

#[test]
fn a_repository_is_its_origin_whatever_the_spelling() {
    let place = Place::new();
    for (origin, name) in [
        ("git@Example.com:team/app.git", "example.com/team/app"),
        ("https://user:secret@example.com:443/team/app", "example.com/team/app"),
        ("/srv/git/app.git", "localhost/srv/git/app"),
        ("file:///srv/git/app", "localhost/srv/git/app"),
    ] {
        place.origin(origin);
        assert_eq!(place.found("copy").expect("found").repo.as_str(), name);
    }
    let expect = place.path("git/app").display().to_string();
    place.origin("../git/app.git");
    assert_eq!(place.found("copy").expect("found").repo.as_str(), format!("localhost{expect}"));
}

#[test]
fn a_marker_goes_before_the_origin() {
    let place = Place::new();
    place.origin("https://example.com/mirror");
    place.write("copy/.agentflow/repository.toml", "name = \"example.com/team/app\"\nignore_case = true\n");
    let copy = place.found("copy").expect("found");
    assert_eq!((copy.repo.as_str(), copy.ignore_case), ("example.com/team/app", true));
    assert_eq!((copy.mode, copy.without_master), (Mode::Conflicts, WithoutMaster::Allow));
    place.write("copy/.agentflow/repository.toml", "mode = \"off\"\nwithout_master = \"allow\"\n");
    let copy = place.found("copy").expect("found");
    assert_eq!((copy.repo.as_str(), copy.ignore_case), ("example.com/mirror", false));
    assert_eq!((copy.mode, copy.without_master), (Mode::Off, WithoutMaster::Allow));
    place.write("copy/.agentflow/repository.toml", "mode = \"on\"\n");
    let error = place.found("copy").expect_err("no such mode").to_string();
    assert!(error.contains("repository.toml") && error.contains("enforce"), "{error}");
}

#[test]
fn without_a_name_it_is_said_how_to_give_one() {
    let place = Place::new();
    let error = place.found("copy").expect_err("no origin").to_string();
    assert!(
        error.contains("has no origin") && error.ends_with("with this line:\nname = \"copy\""),
        "{error}"
    );
    place.origin("https://example.com/a b");
    let error = place.found("copy").expect_err("no address").to_string();
    assert!(error.contains("a space") && error.ends_with("name = \"copy\""), "{error}");
}

#[test]
fn outside_of_working_copies_there_is_none() {
    let place = Place::new();
    place.git(".", &["init", "--quiet", "--bare", "bare"]);
    for directory in [".", "bare", "copy/.git"] {
        assert!(WorkingCopy::around(&place.path(directory)).expect("git answers").is_none(), "{directory}");
    }
    let error = place.found(".").expect_err("none").to_string();
    assert!(error.contains("no working copy") && error.contains("--repo"), "{error}");
    assert!(WorkingCopy::around(&place.path("gone")).is_err());
}

#[test]
fn a_linked_worktree_is_of_the_same_repository() {
    let place = Place::new();
    place.origin("../git/app");
    place.git("copy", &["commit", "--quiet", "--allow-empty", "--message", "first"]);
    std::fs::create_dir(place.path("other")).expect("made");
    place.git("copy", &["worktree", "add", "--quiet", "--detach", "../other/linked"]);
    place.write("other/linked/src/a.rs", "");
    let (first, linked) =
        (place.found("copy").expect("found"), place.found("other/linked/src").expect("found"));
    assert_eq!(linked.root, place.path("other/linked"));
    assert_eq!((&linked.repo, &linked.common_dir), (&first.repo, &first.git_dir));
    assert!(linked.git_dir.starts_with(place.path("copy/.git/worktrees")), "{linked:?}");
    assert_ne!(linked.record().file(), first.record().file());
    let inner = linked.path_from(&place.path("other/linked/src"), Path::new("a.rs")).expect("a path");
    assert_eq!(inner.as_str(), "src/a.rs");
    let git = linked.path_from(&linked.root, Path::new(".git"));
    assert!(matches!(git, Err(PathFault::Git(_))), "{git:?}");
}

#[test]
fn gits_setting_about_case_is_taken() {
    let place = Place::new();
    place.origin("https://example.com/app");
    for (value, expect) in [("true", true), ("no", false), ("1", true)] {
        place.git("copy", &["config", "core.ignorecase", value]);
        assert_eq!(place.found("copy").expect("found").ignore_case, expect, "{value}");
    }
}

#[test]
fn a_path_is_called_by_its_way_from_the_root() {
    let place = Place::new();
    place.origin("https://example.com/app");
    place.write("copy/src/inner/a.rs", "");
    for (directory, typed, name) in [
        ("copy", "src/inner/a.rs", "src/inner/a.rs"),
        ("copy", "src", "src/**"),
        ("copy", "src/inner/", "src/inner/**"),
        ("copy", "new", "new"),
        ("copy", "new/", "new/**"),
        ("copy", ".", "**"),
        ("copy/src", "inner/a.rs", "src/inner/a.rs"),
        ("copy/src", "../new/../other.txt", "other.txt"),
        ("copy/src", "..", "**"),
        ("copy/src", "*.rs", "src/*.rs"),
        ("copy/src", "**", "src/**"),
        ("copy", "src/**/*.rs", "src/**/*.rs"),
        ("copy", "**/test/", "**/test/**"),
        ("copy/src", "../**/a?.rs", "**/a?.rs"),
        ("copy", "pages/[id].tsx", "pages/[id].tsx"),
        ("copy", "cafe\u{301}.txt", "caf\u{e9}.txt"),
    ] {
        assert_eq!(place.name(directory, typed), name, "{typed} in {directory}");
    }
    let whole = place.path("copy/src/inner/a.rs");
    assert_eq!(place.name(".", whole.to_str().expect("text")), "src/inner/a.rs");
    assert_eq!(place.name(".", "copy/src/**"), "src/**");
}

#[test]
fn symbolic_links_are_followed() {
    let place = Place::new();
    place.origin("https://example.com/app");
    place.write("copy/src/a.rs", "");
    place.write("outside/x", "");
    for (target, link) in [
        ("src", "copy/link"),
        ("a.rs", "copy/src/same"),
        ("../outside", "copy/out"),
        ("../outside/not-yet", "copy/dangling"),
        ("round", "copy/round"),
    ] {
        symlink(target, place.path(link)).expect("made");
    }
    symlink(place.path("copy"), place.path("way-in")).expect("made");
    for (typed, name) in [
        ("link/a.rs", "src/a.rs"),
        ("link/new.rs", "src/new.rs"),
        ("link", "src/**"),
        ("link/*.rs", "src/*.rs"),
        ("src/same", "src/a.rs"),
        ("link/../top", "top"),
        ("../way-in/src/a.rs", "src/a.rs"),
    ] {
        assert_eq!(place.name("copy", typed), name, "{typed}");
    }
    for (typed, target) in [
        ("out/x", "outside/x"),
        ("out/**", "outside"),
        ("dangling", "outside/not-yet"),
        ("link/../../outside/x", "outside/x"),
    ] {
        let fault = place.name("copy", typed);
        let target = place.path(target).display().to_string();
        assert!(fault.contains(&target) && fault.contains("outside of the working copy"), "{fault}");
    }
    assert!(place.name("copy", "round").contains("circle"));
}

#[test]
fn what_is_not_the_repositorys_is_refused() {
    let place = Place::new();
    place.origin("https://example.com/app");
    place.git("copy", &["init", "--quiet", "inner"]);
    place.write("copy/inner/a", "");
    for (typed, word) in [
        (".git/config", "git's own"),
        (".GIT/hooks/x", "git's own"),
        ("**/.git/config", "git's own"),
        ("inner/a", "belongs to another working copy"),
        ("inner/*", "belongs to another working copy"),
        ("inner/.git/config", "git's own"),
        ("../x", "outside of the working copy"),
        ("/etc/passwd", "outside of the working copy"),
        ("", "a path within the repository is needed"),
        ("a\\b", "backslash"),
        ("src/*/../x", "'..'"),
        ("a\nb", "control"),
    ] {
        let fault = place.name("copy", typed);
        assert!(fault.contains(word), "{typed}: {fault}");
    }
    assert_eq!(place.name("copy", "inner"), "inner/**", "as a submodule it is a path of this one");
    let copy = place.found("copy").expect("found");
    let no_text = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff");
    let fault = copy.path_from(&copy.root, Path::new::<std::ffi::OsStr>(no_text));
    assert!(matches!(fault, Err(PathFault::NoText(_))), "{fault:?}");
}
