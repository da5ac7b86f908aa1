//! Rules of this house that no compiler knows: what must stay absent, and what must stay complete.
//! `ARCHITECTURE.md` gives the reasons.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines from which a file has more than one subject.
const LINES: usize = 500;

/// Longer ones, each with its reason.
const LONG: &[&str] = &[];

/// Where tests may let time pass, and how often: each is the one helper of its package that looks at a
/// condition again and again.
const SLEEPS: &[(&str, usize)] = &[
    ("cli/tests/cli/support.rs", 2),
    ("tests/src/harness/wait.rs", 1),
    ("worker/tests/worker/common.rs", 1),
    // Looks how much memory a worker holds while it waits.
    ("worker/tests/worker/session.rs", 1),
];

/// Which packages of this workspace a package may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("actors/workflow", &[]),
    ("actors/core", &["workflow"]),
    ("actors/protocol", &["core", "workflow"]),
    ("schema", &["core"]),
    ("actors", &["core", "protocol", "schema", "workflow"]),
    ("master", &["core", "protocol", "schema", "actors", "workflow"]),
    ("worker", &["core", "protocol"]),
    ("cli", &["core", "protocol", "master", "worker", "workflow"]),
    ("tests", &["core", "protocol", "schema", "workflow"]),
];

/// What the core may use: data structures and their encodings, nothing that acts.
const CORE_USES: &[&str] = &[
    "agentflow-workflow",
    "petgraph",
    "rustc-hash",
    "serde",
    "serde_json",
    "sha2",
    "thiserror",
    "base64",
    "unicode-normalization",
];

/// What the reader of workflows may use: parsers, an engine for expressions, data structures.
const WORKFLOW_USES: &[&str] =
    &["minijinja", "petgraph", "rustc-hash", "saphyr-parser", "serde", "serde_json", "thiserror"];

/// Packages that act, which nothing pure may link.
const ACTING: &[&str] = &["actix", "actix-rt", "diesel", "tokio", "rand", "getrandom", "rustix"];

/// Words by which a source would look at the world, or leave something to chance.
const ACTING_WORDS: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "std::fs",
    "std::net",
    "std::io",
    "std::thread",
    "std::env",
    "std::process",
    "RandomState",
    "rand::",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's directory").to_owned()
}

/// A file by its path from the root, with `/`.
struct Text {
    path: String,
    text: String,
}

/// Every text of the repository whose name ends so.
fn texts(ends: &[&str]) -> Vec<Text> {
    let root = root();
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() {
                if !["target", ".git"].contains(&name) {
                    directories.push(path);
                }
            } else if ends.iter().any(|end| name.ends_with(end)) {
                let text = std::fs::read_to_string(&path).expect("a text");
                let path = path.strip_prefix(&root).expect("below the root").display().to_string();
                found.push(Text { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Sources below a folder.
fn sources(folder: &str) -> Vec<Text> {
    let folder = format!("{folder}/");
    texts(&[".rs"]).into_iter().filter(|file| file.path.starts_with(&folder)).collect()
}

/// Sources in which a line that is no comment has that word.
fn who_says(files: &[Text], word: &str) -> Vec<String> {
    let says = |file: &&Text| {
        let mut lines = file.text.lines().map(str::trim_start);
        lines.any(|line| !line.starts_with("//") && line.contains(word))
    };
    files.iter().filter(says).map(|file| file.path.clone()).collect()
}

/// Names in a table of a manifest.
fn entries(manifest: &str, table: &str) -> Vec<String> {
    let text = read(&format!("{manifest}/Cargo.toml"));
    let mut lines = text.lines().skip_while(|line| line.trim() != format!("[{table}]")).skip(1);
    let lines = lines.by_ref().take_while(|line| !line.starts_with('['));
    lines
        .filter_map(|line| Some(line.split_once(['=', '.'])?.0.trim().to_owned()))
        .filter(|name| !name.starts_with('#'))
        .collect()
}

/// Everything that a package links, by name, as cargo resolves it for this machine.
fn links(package: &str) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root()).args([
        "tree",
        "--locked",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--package",
        package,
    ]);
    let output = command.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("names");
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// That package uses nothing but these, and neither it nor what it links acts.
fn only_computes(manifest: &str, package: &str, may_use: &[&str]) {
    let uses = entries(manifest, "dependencies");
    let others: Vec<&String> = uses.iter().filter(|name| !may_use.contains(&name.as_str())).collect();
    assert!(others.is_empty(), "{package} uses {others:?}");
    let linked = links(package);
    for other in ACTING {
        assert!(!linked.contains(*other), "{package} links {other}");
    }
    let files = sources(&format!("{manifest}/src"));
    assert!(!files.is_empty(), "{manifest} has sources");
    for word in ACTING_WORDS {
        assert_eq!(who_says(&files, word), [""; 0], "{package} says {word}");
    }
}

#[test]
fn the_core_only_computes() {
    only_computes("actors/core", "agentflow-core", CORE_USES);
}

#[test]
fn the_reader_of_workflows_only_computes() {
    only_computes("actors/workflow", "agentflow-workflow", WORKFLOW_USES);
}

#[test]
fn arrows_run_one_way() {
    for (package, may_use) in ARROWS {
        for name in entries(package, "dependencies") {
            if let Some(used) = name.strip_prefix("agentflow-") {
                assert!(may_use.contains(&used), "{package} uses {used}");
            }
        }
    }
}

#[test]
fn only_the_schema_speaks_to_databases() {
    for (package, _) in ARROWS.iter().filter(|(package, _)| *package != "schema") {
        for table in ["dependencies", "dev-dependencies"] {
            for name in entries(package, table) {
                let database = ["diesel", "libsqlite3", "pq-sys", "rusqlite", "postgres", "r2d2"];
                assert!(!database.iter().any(|start| name.starts_with(start)), "{package} uses {name}");
            }
        }
        let files: Vec<Text> =
            sources(package).into_iter().filter(|file| !file.path.contains("/tests/")).collect();
        for word in ["diesel::", "\"SELECT ", "\"INSERT INTO ", "\"UPDATE ", "\"DELETE FROM ", "\"PRAGMA "] {
            assert_eq!(who_says(&files, word), [""; 0], "{package} says {word}");
        }
    }
}

#[test]
fn the_worker_links_no_database() {
    let linked = links("agentflow-worker");
    assert!(linked.contains("awc"), "cargo names what is linked: {linked:?}");
    for package in ["diesel", "libsqlite3-sys", "pq-sys", "agentflow-schema", "actix-web"] {
        assert!(!linked.contains(package), "the worker links {package}");
    }
}

#[test]
fn what_may_be_replaced_is_imported_in_one_file() {
    assert_eq!(who_says(&sources("master/src"), "actix_web_actors"), ["master/src/door.rs"]);
    assert_eq!(who_says(&sources("worker/src"), "awc::"), ["worker/src/link.rs"]);
    for package in ["actors/core/src", "actors/protocol/src", "actors/src", "schema/src", "cli/src"] {
        assert_eq!(who_says(&sources(package), "actix_web_actors"), [""; 0]);
        assert_eq!(who_says(&sources(package), "awc::"), [""; 0]);
    }
}

#[test]
fn lints_hold_everywhere() {
    for (package, _) in ARROWS {
        let manifest = read(&format!("{package}/Cargo.toml"));
        assert!(manifest.contains("[lints]\nworkspace = true"), "{package}");
    }
}

#[test]
fn nothing_is_left_for_later() {
    // Written in two parts, or this file would be found.
    let words =
        [concat!("#[", "ignore"), concat!("todo", "!("), concat!("unimplemented", "!("), concat!("TO", "DO")];
    for word in words {
        assert_eq!(who_says(&texts(&[".rs"]), word), [""; 0], "{word}");
    }
}

#[test]
fn tests_wait_for_conditions() {
    let word = concat!("::sl", "eep(");
    let mut found = Vec::new();
    for file in texts(&[".rs"]) {
        let whole = file.path.contains("/tests/") || file.path.starts_with("tests/");
        let tested = if whole {
            Some(file.text.as_str())
        } else {
            file.text.split_once("#[cfg(test)]").map(|(_, rest)| rest)
        };
        let lines =
            tested.unwrap_or_default().lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
        let count = lines.filter(|line| line.contains(word)).count();
        if count > 0 {
            found.push((file.path, count));
        }
    }
    let found: Vec<(&str, usize)> = found.iter().map(|(path, count)| (path.as_str(), *count)).collect();
    let more: Vec<_> = found.iter().filter(|entry| !SLEEPS.contains(entry)).collect();
    assert!(more.is_empty(), "tests sleep in {more:?}; wait for a condition instead");
    let gone: Vec<_> = SLEEPS.iter().filter(|entry| !found.contains(entry)).collect();
    assert!(gone.is_empty(), "these do not sleep any more, or less; correct the list: {gone:?}");
}

#[test]
fn files_have_one_subject() {
    let long: Vec<String> = texts(&[".rs"])
        .into_iter()
        .filter(|file| file.text.lines().count() > LINES)
        .map(|file| file.path)
        .collect();
    assert_eq!(long, LONG, "longer than {LINES} lines, or the list names one that is not");
}

/// Names of an enum's variants as serde's `snake_case` writes them.
fn variants(source: &str, name: &str) -> Vec<String> {
    let start = source.find(&format!("pub enum {name} {{")).unwrap_or_else(|| panic!("no {name}"));
    let end = start + source[start..].find("\n}").expect("an end");
    let names = source[start..end]
        .lines()
        .skip(1)
        .filter(|line| line.starts_with("    ") && line[4..].starts_with(char::is_uppercase));
    names
        .map(|line| snake_case(line.trim().split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default()))
        .collect()
}

fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

#[test]
fn the_protocol_page_names_every_word() {
    let page = read("docs/PROTOCOL.md");
    let frames = read("actors/protocol/src/worker.rs");
    let mut words = [variants(&frames, "FromWorker"), variants(&frames, "ToWorker")].concat();
    assert!(words.contains(&"heartbeat_ack".to_owned()), "{words:?}");
    let events = read("actors/core/src/event.rs");
    let renamed =
        events.split("rename = \"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()));
    words.extend(renamed);
    assert!(words.contains(&"task.completed".to_owned()), "{words:?}");
    let missing: Vec<&String> = words.iter().filter(|word| !page.contains(word.as_str())).collect();
    assert!(missing.is_empty(), "docs/PROTOCOL.md does not mention {missing:?}");
}

fn names_in(folder: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect()
}

#[test]
fn both_databases_have_the_same_migrations() {
    let names = names_in("migrations/sqlite");
    assert!(!names.is_empty());
    assert_eq!(names, names_in("migrations/postgres"));
    for name in names {
        for database in ["sqlite", "postgres"] {
            let files = names_in(&format!("migrations/{database}/{name}"));
            assert_eq!(
                files,
                BTreeSet::from(["down.sql".to_owned(), "up.sql".to_owned()]),
                "{database}/{name}"
            );
        }
    }
}

#[test]
fn every_decision_is_listed() {
    let list = read("docs/decisions/README.md");
    for name in names_in("docs/decisions").iter().filter(|name| *name != "README.md") {
        assert!(list.contains(&format!("({name})")), "docs/decisions/README.md does not list {name}");
    }
}

#[test]
fn no_page_leads_nowhere() {
    let root = root();
    for page in texts(&[".md"]) {
        let folder = root.join(&page.path).parent().expect("a folder").to_owned();
        for link in
            page.text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link)
        {
            let file = link.split('#').next().unwrap_or_default();
            if !file.is_empty() && !link.contains("://") && !link.starts_with("mailto:") {
                assert!(folder.join(file).exists(), "{} leads to {link}", page.path);
            }
        }
    }
}

/// Paths of the machine on which something was written mean nothing on another.
#[test]
fn nobody_s_own_directories_are_named() {
    let home = [concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];
    let files = texts(&[".rs", ".md", ".toml", ".sql", ".yaml", ".yml", ".json", ".html", ".sh", "run"]);
    for file in files {
        for word in home {
            assert!(!file.text.contains(word), "{} names {word}", file.path);
        }
    }
}
