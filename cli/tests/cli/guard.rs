//! The guard: commits are accepted only under the locks that they name.

use std::fs;

use serde_json::Value;

use crate::repository::{NAME, Repository, files};
use crate::support::{Ended, Home, Up};

/// A repository and a master, and hooks that write trailers.
struct World {
    repository: Repository,
    _up: Up,
}

impl World {
    fn new() -> Self {
        let home = Home::new();
        let up = home.up("127.0.0.1:0");
        let repository = Repository::new().with_master(&up.url);
        repository.marker("mode = \"enforce\"\n");
        repository.commit("marker");
        repository.run(&["hooks", "install"]).code(0);
        Self { repository, _up: up }
    }

    /// Locks for whoever works here.
    fn lock(&self, path: &str) {
        self.repository.run(&["lock", path]).code(0);
    }

    /// Locks for somebody else, of whom nothing is noted here.
    fn lock_for(&self, owner: &str, path: &str) -> Ended {
        let words = ["lock", "--repo", NAME, "--owner", owner, path];
        self.repository.run_in(&self.repository.home.path(""), &words, "")
    }

    /// Changes a file and commits it with all hooks.
    fn commit(&self, file: &str, text: &str) {
        self.repository.write(file, text);
        self.repository.git(&["add", "--all"]).code(0);
        self.repository.git(&["commit", "--quiet", "--message", file]).code(0);
    }

    /// The fence of the newest lock that is noted here.
    fn fence(&self) -> u64 {
        let text = fs::read_to_string(self.repository.path(".git/agentflow/locks.json")).expect("noted");
        let noted: Value = serde_json::from_str(&text).expect("JSON");
        noted["locks"].as_array().and_then(|locks| locks.last()?["fence"].as_u64()).expect("a lock")
    }

    fn verify(&self, range: &str) -> Ended {
        self.repository.run(&["guard", "verify", range])
    }

    /// The strays of a range: the path of each, and why.
    fn strays(&self, range: &str) -> Vec<(String, String)> {
        let told = self.repository.run(&["--json", "guard", "verify", range]).code(1).json();
        assert_eq!(told["covered"], false);
        let strays = told["stray"].as_array().expect("a list");
        let text = |stray: &Value, name: &str| stray[name].as_str().expect("a text").to_owned();
        strays.iter().map(|stray| (text(stray, "path"), text(stray, "reason"))).collect()
    }

    fn paths(&self, range: &str) -> Vec<String> {
        self.strays(range).into_iter().map(|(path, _)| path).collect()
    }

    /// A bare repository that is guarded, with what is committed so far.
    fn server(&self, more: &[&str]) -> std::path::PathBuf {
        let server = self.repository.home.path("a server.git");
        let path = server.to_str().expect("text");
        self.repository.git(&["init", "--quiet", "--bare", "--initial-branch=main", path]).code(0);
        self.repository.git(&["push", "--quiet", "--no-verify", path, "main"]).code(0);
        let words = ["guard", "install", path, "--repo", NAME];
        self.repository.run(&[&words, more].concat()).code(0);
        self.repository.git(&["remote", "add", "server", path]).code(0);
        self.repository.git(&["fetch", "--quiet", "server"]).code(0);
        server
    }

    /// Pushes past the hooks of this side.
    fn push(&self, what: &[&str]) -> Ended {
        self.repository.git(&[&["push", "--quiet", "--no-verify", "server"], what].concat())
    }
}

#[test]
fn commits_under_their_locks_are_accepted() {
    let world = World::new();
    let base = world.repository.head();
    world.lock("src");
    world.lock("docs/ü x.md");
    world.commit("src/a.rs", "changed\n");
    world.commit("docs/ü x.md", "new\n");
    world.repository.git(&["mv", "src/a.rs", "src/moved.rs"]).code(0);
    world.commit("src/b.rs", "new\n");
    world.repository.git(&["rm", "--quiet", "src/b.rs"]).code(0);
    world.repository.git(&["commit", "--quiet", "--message", "gone"]).code(0);
    let range = format!("{base}..HEAD");
    let ended = world.verify(&range).code(0);
    assert_eq!(ended.out, "4 commits, each under its locks\n");
    // What was released counts: it was held then.
    world.repository.run(&["unlock", "--all"]).code(0);
    let told = world.repository.run(&["--json", "guard", "verify", &range]).code(0).json();
    assert_eq!((&told["covered"], &told["commits"], &told["repo"]), (&true.into(), &4.into(), &NAME.into()));
    assert_eq!(world.verify("HEAD..HEAD").code(0).out, "0 commits, each under its locks\n");
}

#[test]
fn every_stray_file_is_named_with_its_commit() {
    let world = World::new();
    let base = world.repository.head();
    world.lock("src");
    world.commit("src/a.rs", "changed\n");
    world.repository.git(&["mv", "docs/b c.md", "src/moved.md"]).code(0);
    world.repository.write("new\nline.md", "x\n");
    world.repository.git(&["add", "--all"]).code(0);
    world.repository.git(&["commit", "--quiet", "--no-verify", "--message", "gone round"]).code(0);
    let second = world.repository.head();
    let fence = world.fence();
    world.repository.write("x.md", "x\n");
    world.repository.commit(&format!("forged\n\nAgentFlow-Fence: {fence}"));
    let no = world.verify(&format!("{base}..HEAD")).code(1);
    for line in [
        format!("{}  \"new\\nline.md\": its commit has no trailer AgentFlow-Fence\n", &second[..12]),
        format!("{}  docs/b c.md: its commit has no trailer", &second[..12]),
        format!("{}  src/moved.md: its commit has no trailer", &second[..12]),
        format!("{}  x.md: no lock for writing", &world.repository.head()[..12]),
    ] {
        assert!(no.out.contains(&line), "{line}: {no:#?}");
    }
    assert_eq!(no.out.lines().count(), 4, "{no:#?}");
    assert!(no.err.contains("4 changes"), "{no:#?}");
}

#[test]
fn only_real_trailers_with_real_numbers_count() {
    let world = World::new();
    world.lock("src");
    let fence = world.fence();
    for (message, why) in [
        (format!("title\n\nAgentFlow-Fence: {fence}\n\nmore words"), "no trailer"),
        (format!("AgentFlow-Fence: {fence}"), "no trailer"),
        (format!("title\n\nAgentFlow-Fence: {fence}x"), "not a number"),
        (format!("title\n\nAgentFlow-Task: five\nAgentFlow-Fence: {fence}"), "AgentFlow-Task is 'five'"),
        (format!("title\n\nAgentFlow-Lock: 5\nAgentFlow-Fence: {fence}"), "not the id of a lock"),
        ("title\n\nAgentFlow-Fence: 99999".to_owned(), "fence 99999"),
    ] {
        world.repository.write("src/a.rs", &format!("{message}\n"));
        world.repository.commit(&message);
        let strays = world.strays("HEAD^..HEAD");
        assert!(strays.len() == 1 && strays[0].1.contains(why), "{message}: {strays:?}");
    }
    world.repository.write("src/a.rs", "good\n");
    world.repository.commit(&format!("title\n\nagentflow-fence: {fence}"));
    world.verify("HEAD^..HEAD").code(0);
}

#[test]
fn a_lock_that_was_lost_or_passed_on_covers_nothing() {
    let world = World::new();
    world.lock("src");
    world.commit("src/a.rs", "mine\n");
    world.verify("HEAD^..HEAD").code(0);
    world.repository.run(&["unlock", "--all"]).code(0);
    world.lock_for("bob", "src/a.rs").code(0);
    let strays = world.strays("HEAD^..HEAD");
    assert!(strays.len() == 1 && strays[0].1.contains("bob"), "{strays:?}");
    world.lock("docs");
    world.commit("docs/b c.md", "mine\n");
    world.repository.run(&["lock", "break", "--reason", "test", "docs"]).code(0);
    let strays = world.strays("HEAD^..HEAD");
    assert!(strays.len() == 1 && strays[0].1.contains("broken"), "{strays:?}");
}

#[test]
fn a_merge_smuggles_nothing() {
    let world = World::new();
    let repository = &world.repository;
    world.lock("src/other.rs");
    world.lock("src/a.rs");
    let fence = world.fence();
    repository.git(&["checkout", "--quiet", "-b", "other"]).code(0);
    world.commit("src/other.rs", "theirs\n");
    repository.git(&["checkout", "--quiet", "main"]).code(0);
    world.commit("src/a.rs", "ours\n");
    let before = repository.head();
    // One that only brings both together says nothing of its own.
    repository.git(&["merge", "--quiet", "--no-verify", "--message", "merged", "other"]).code(0);
    world.verify(&format!("{before}..HEAD")).code(0);
    // One that brings something else does.
    repository.git(&["reset", "--quiet", "--hard", &before]).code(0);
    repository.git(&["merge", "--quiet", "--no-commit", "other"]).code(0);
    repository.write("evil.rs", "x\n");
    repository.write("src/a.rs", "another\n");
    repository.commit("merged");
    assert_eq!(world.paths(&format!("{before}..HEAD")), ["evil.rs", "src/a.rs"]);
    // And one that drops what the other side has changed, which differs from one side only.
    let dropping = |message: &str| {
        let words = ["commit-tree", "-p", "other", "-p", &before, "-m", message, "other^{tree}"];
        repository.git(&words).code(0).out.trim().to_owned()
    };
    let strays = world.strays(&format!("{before}..{}", dropping("merged")));
    assert_eq!(strays, [("src/a.rs".to_owned(), "a merge takes back what was there before".to_owned())]);
    let told = dropping(&format!("merged\n\nAgentFlow-Fence: {fence}"));
    world.verify(&format!("{before}..{told}")).code(0);
}

#[test]
fn a_range_says_what_is_to_be_looked_at() {
    let world = World::new();
    let zero = "0".repeat(40);
    for (range, why) in [
        (format!("{zero}..HEAD"), "begin where it was made"),
        (format!("HEAD..{zero}"), "nothing to check"),
        ("gone..HEAD".to_owned(), "--unshallow"),
        ("HEAD".to_owned(), "BASE..HEAD"),
        ("HEAD...HEAD".to_owned(), "BASE..HEAD"),
        ("..HEAD".to_owned(), "BASE..HEAD"),
    ] {
        let no = world.verify(&range).code(2);
        assert!(no.err.contains(why), "{range}: {no:#?}");
    }
    world.lock("src");
    world.commit("src/a.rs", "two\n");
    world.commit("src/a.rs", "three\n");
    // A clone that does not have all.
    let shallow = world.repository.home.path("shallow");
    let url = format!("file://{}", world.repository.root.display());
    world
        .repository
        .git(&["clone", "--quiet", "--depth", "2", &url, shallow.to_str().expect("text")])
        .code(0);
    let verify =
        |range: &str| world.repository.run_in(&shallow, &["guard", "verify", range, "--repo", NAME], "");
    verify("HEAD^..HEAD").code(0);
    let first = world.repository.git(&["rev-parse", "HEAD~2"]).code(0).out;
    assert!(verify(&format!("{}..HEAD", first.trim())).code(2).err.contains("--unshallow"));
    let tree = world.repository.git_in(&shallow, &["commit-tree", "-m", "x", "HEAD^{tree}"]).code(0).out;
    assert!(verify(&format!("{}..HEAD", tree.trim())).code(2).err.contains("shallow clone ends"));
}

#[test]
fn a_change_of_the_name_is_not_believed() {
    let world = World::new();
    world.lock(".agentflow");
    world.repository.marker("name = \"elsewhere/app\"\nmode = \"enforce\"\n");
    world.repository.commit("renamed");
    let no = world.verify("HEAD^..HEAD").code(2);
    assert!(no.err.contains("--repo"), "{no:#?}");
    world.repository.run(&["guard", "verify", "HEAD^..HEAD", "--repo", NAME]).code(1);
    let unknown = world.repository.run(&["guard", "verify", "HEAD^..HEAD", "--repo", "nobody/knows"]).code(1);
    assert!(unknown.out.contains(".agentflow/repository.toml: "), "{unknown:#?}");
}

#[test]
fn without_a_master_nothing_is_accepted() {
    let repository = Repository::new();
    repository.write("src/a.rs", "x\n");
    repository.commit("x\n\nAgentFlow-Fence: 1");
    repository.run(&["guard", "verify", "HEAD^..HEAD"]).code(3);
    repository.write("src/a.rs", "y\n");
    repository.commit("no trailers");
    repository.run(&["guard", "verify", "HEAD^..HEAD"]).code(3);
}

#[test]
fn a_server_accepts_what_is_covered_on_all_of_its_branches() {
    let world = World::new();
    world.server(&[]);
    world.lock("src");
    world.commit("src/a.rs", "covered\n");
    world.push(&["main"]).code(0);
    // A branch that is new has only what is new in it.
    world.push(&["main:refs/heads/new"]).code(0);
    world.commit("src/a.rs", "more\n");
    world.push(&["main:refs/heads/newer"]).code(0);
    world.repository.write("docs/x.md", "stray\n");
    world.repository.commit("stray");
    for target in ["main", "main:refs/heads/fresh", "main:refs/heads/new"] {
        let no = world.push(&[target]);
        assert_ne!(no.code, Some(0), "{target}");
        assert!(no.err.contains("docs/x.md: its commit has no trailer"), "{target}: {no:#?}");
    }
    // A branch that is rewound or gone brings nothing, and one that is replaced only what is new.
    world.push(&["--delete", "newer"]).code(0);
    world.push(&["--force", "HEAD~2:refs/heads/new"]).code(0);
    world.repository.git(&["reset", "--quiet", "--hard", "HEAD~2"]).code(0);
    world.commit("src/a.rs", "instead\n");
    world.push(&["--force", "main:refs/heads/new"]).code(0);
    // Other names than those of branches are not looked at, and do not make a commit known.
    world.repository.write("docs/x.md", "stray\n");
    world.repository.commit("stray");
    world.push(&["main:refs/tags/x"]).code(0);
    assert_ne!(world.push(&["main:refs/heads/y"]).code, Some(0));
}

#[test]
fn what_is_taken_back_is_seen_whatever_branch_it_came_by() {
    let world = World::new();
    let repository = &world.repository;
    world.server(&[]);
    world.lock("src/a.rs");
    world.lock("src/other.rs");
    repository.git(&["checkout", "--quiet", "-b", "other"]).code(0);
    world.commit("src/other.rs", "theirs\n");
    repository.git(&["checkout", "--quiet", "main"]).code(0);
    world.commit("src/a.rs", "ours\n");
    world.push(&["main", "other"]).code(0);
    // On a branch of its own such a merge takes nothing back, and to the main one it brings nothing new.
    let words = ["commit-tree", "-p", "other", "-p", "main", "-m", "x", "other^{tree}"];
    let dropping = repository.git(&words).code(0).out.trim().to_owned();
    world.push(&[&format!("{dropping}:refs/heads/aside")]).code(0);
    let no = world.push(&[&format!("{dropping}:refs/heads/main")]);
    assert!(no.code != Some(0) && no.err.contains("src/a.rs: a merge takes back"), "{no:#?}");
    // What was checked on another branch may be merged.
    repository.git(&["merge", "--quiet", "--no-verify", "--message", "merged", "other"]).code(0);
    world.push(&["main"]).code(0);
}

#[test]
fn what_came_by_a_branch_that_is_not_guarded_was_not_checked() {
    let world = World::new();
    world.server(&["--ref", "refs/heads/main"]);
    world.repository.write("docs/x.md", "stray\n");
    world.repository.commit("stray");
    world.push(&["main:refs/heads/work"]).code(0);
    let no = world.push(&["main"]);
    assert_ne!(no.code, Some(0));
    assert!(no.err.contains("docs/x.md"), "{no:#?}");
    // Nor does a replacement of the commit make it another one.
    let head = world.repository.head();
    world.repository.git(&["replace", &head, "HEAD^"]).code(0);
    world.push(&["refs/replace/*:refs/replace/*"]).code(0);
    let pushed = format!("{head}:refs/heads/main");
    let no = world.repository.git(&["--no-replace-objects", "push", "--no-verify", "server", &pushed]);
    assert!(no.code != Some(0) && no.err.contains("docs/x.md"), "{no:#?}");
}

#[test]
fn a_server_keeps_the_hook_that_it_had() {
    let world = World::new();
    let server = world.server(&[]);
    let hooks = server.join("hooks");
    world.repository.run(&["guard", "uninstall", server.to_str().expect("text")]).code(0);
    assert!(!hooks.join("pre-receive").exists());
    let log = world.repository.home.path("log");
    let text = format!("#!/bin/sh\ncat >>'{}'\ntest ! -e '{}.stop'\n", log.display(), log.display());
    let hook = world.repository.program("hook", &text);
    fs::rename(hook, hooks.join("pre-receive")).expect("moved");
    let before = files(&hooks);
    for _ in 0..2 {
        let words = ["guard", "install", server.to_str().expect("text"), "--repo", NAME];
        world.repository.run(&words).code(0);
    }
    world.lock("src");
    let old = world.repository.head();
    world.commit("src/a.rs", "covered\n");
    world.push(&["main"]).code(0);
    let told = fs::read_to_string(&log).expect("written");
    assert_eq!(told, format!("{old} {} refs/heads/main\n", world.repository.head()));
    fs::write(world.repository.home.path("log.stop"), "").expect("written");
    world.commit("src/a.rs", "more\n");
    assert_ne!(world.push(&["main"]).code, Some(0));
    world.repository.run(&["guard", "uninstall", server.to_str().expect("text")]).code(0);
    assert_eq!(files(&hooks), before);
    let no = world.repository.run(&["guard", "install", "src", "--repo", NAME]).code(2);
    assert!(no.err.contains("no bare git repository"), "{no:#?}");
}

#[test]
fn a_push_is_guarded_on_this_side_too() {
    let world = World::new();
    let server = world.repository.home.path("server.git");
    let path = server.to_str().expect("text");
    world.repository.git(&["init", "--quiet", "--bare", path]).code(0);
    world.repository.git(&["remote", "add", "server", path]).code(0);
    let push = |what: &[&str]| world.repository.git(&[&["push", "--quiet", "server"], what].concat());
    // All of it would be new, and was made before there were locks.
    assert_ne!(push(&["main"]).code, Some(0));
    world.push(&["main"]).code(0);
    world.lock("src");
    world.commit("src/a.rs", "covered\n");
    push(&["main", "main:refs/heads/new"]).code(0);
    world.repository.write("docs/x.md", "stray\n");
    world.repository.commit("stray");
    let no = push(&["main"]);
    assert!(no.code != Some(0) && no.err.contains("docs/x.md: its commit has no trailer"), "{no:#?}");
    push(&["--delete", "new"]).code(0);
    // Where only conflicts count, what nobody else has locked may go.
    world.repository.marker("mode = \"conflicts\"\n");
    push(&["main"]).code(0);
    world.repository.write("docs/x.md", "stray again\n");
    world.repository.commit("stray");
    world.lock_for("bob", "docs/**").code(0);
    let no = push(&["main"]);
    assert!(
        no.code != Some(0) && no.err.contains("docs/x.md: bob holds 'docs/**' to write until"),
        "{no:#?}"
    );
}
