//! `guard`: commits are accepted only under the locks that they name, in CI and on servers.

use std::path::{Path, PathBuf};

use agentflow_core::lock::{LockPath, Repository};
use serde_json::{Value, json};

use super::hooks::{directory, program, refuse_shared, take_away, tell as tell_hooks};
use super::{connect, hook_git};
use crate::args::{Global, GuardAct, Guarded, LockPlace};
use crate::enforce::chain::{self, Input};
use crate::enforce::git::Git;
use crate::enforce::guard::{Guard, Stray};
use crate::enforce::history::{Arriving, Step};
use crate::enforce::script::{SERVER, Script};
use crate::enforce::staged::{is_id, is_nothing};
use crate::error::{Error, exit};
use crate::output::Output;
use crate::working_copy::WorkingCopy;

/// The file that says which repository this is.
const MARKER: &[u8] = b".agentflow/repository.toml";

/// What is guarded unless less is asked for.
const BRANCHES: &str = "refs/heads/**";

/// Digits of a commit that are shown.
const DIGITS: usize = 12;

pub(super) fn guard(act: GuardAct, global: &Global, output: Output) -> Result<u8, Error> {
    match act {
        GuardAct::Verify { range, place } => verify(&range, &place, global, output),
        GuardAct::PreReceive { what, script } => pre_receive(&what, script.as_deref(), global),
        GuardAct::Install { server, what } => install(&server, &what, global, output),
        GuardAct::Uninstall { server } => {
            let hooks = directory(&bare(&server)?)?;
            tell_hooks(&hooks, &take_away(&hooks, &[SERVER])?, output)
        }
    }
}

fn here() -> Result<PathBuf, Error> {
    std::env::current_dir().map_err(|error| Error::io("cannot tell the current directory", error))
}

fn verify(range: &str, place: &LockPlace, global: &Global, output: Output) -> Result<u8, Error> {
    let here = here()?;
    let git = Git::at(&here);
    let step = step(&git, range)?;
    let arriving = Arriving::with(&git, &[step], &[])?;
    let repo = match &place.repo {
        Some(repo) => repo.clone(),
        None => own_name(&here, &arriving)?,
    };
    let client = connect(global)?;
    // What nobody can be asked for is not answered, even if the answer is clear.
    let _well: Value = client.get("/health")?;
    let strays = Guard { client: &client, repo: &repo }.strays(&arriving)?;
    if output.json {
        let count = arriving.commits.len();
        output.json(
            &json!({ "covered": strays.is_empty(), "repo": repo, "commits": count, "stray": strays }),
        )?;
    } else {
        strays.iter().try_for_each(|stray| output.line(line(stray)))?;
        match strays.len() {
            0 => output.line(format_args!("{} commits, each under its locks", arriving.commits.len()))?,
            _ => eprintln!("{}", summary(&strays, &repo)),
        }
    }
    Ok(if strays.is_empty() { exit::DONE } else { exit::FAILED })
}

/// What a range names: `BASE..HEAD`.
fn step(git: &Git, range: &str) -> Result<Step, Error> {
    let wrong = |why: &str| Error::Usage(format!("'{range}' {why}"));
    let (base, head) = range
        .split_once("..")
        .filter(|(base, head)| !base.is_empty() && !head.starts_with('.'))
        .ok_or_else(|| wrong("is no range; write BASE..HEAD, such as origin/main..HEAD"))?;
    let head = if head.is_empty() { "HEAD" } else { head };
    if is_nothing(head) {
        return Err(wrong("ends nowhere: the branch is gone, and there is nothing to check"));
    }
    if is_nothing(base) {
        return Err(wrong(
            "begins nowhere: the branch is new; begin where it was made, such as origin/main..HEAD",
        ));
    }
    let commit = |name: &str| {
        git.commit(name)?.ok_or_else(|| {
            wrong(&format!(
                "names {name}, which is no commit here; if it was replaced by a push or this clone is shallow, \
                 fetch it first (`git fetch --unshallow`, in CI with a depth of 0), or begin at origin/main"
            ))
        })
    };
    Ok(Step { from: Some(commit(base)?), to: commit(head)? })
}

/// The repository of the working copy. A change of its name is not believed by itself.
fn own_name(here: &Path, arriving: &Arriving) -> Result<Repository, Error> {
    let repo = WorkingCopy::find(here)?.repo;
    let mut told = arriving.commits.iter().flat_map(|commit| &commit.changes);
    if told.any(|change| change.name() == MARKER) {
        return Err(Error::Usage(format!(
            "these commits change {}, which says which repository this is: name it with --repo",
            String::from_utf8_lossy(MARKER)
        )));
    }
    Ok(repo)
}

fn pre_receive(what: &Guarded, script: Option<&Path>, global: &Global) -> Result<u8, Error> {
    let input = hook_git::read_input()?;
    if let Some(script) = script
        && let Some(code) = chain::run(script, &[], Input::Read(input.clone()))?
    {
        return Ok(code);
    }
    let git = Git::at(&here()?);
    let refs = Refs::new(&what.refs)?;
    let mut steps = Vec::new();
    for line in String::from_utf8_lossy(&input).lines() {
        steps.extend(received(line, &refs)?);
    }
    // What lies on other branches was not checked there.
    let known = refs.known(&git)?;
    let arriving = Arriving::with(&git, &steps, &known)?;
    if arriving.is_empty() {
        return Ok(exit::DONE);
    }
    let client = connect(global)?;
    let strays = Guard { client: &client, repo: &what.repo }.strays(&arriving)?;
    tell(&strays, &what.repo);
    Ok(if strays.is_empty() { exit::DONE } else { exit::FAILED })
}

/// What a line says that is pushed: `OLD NEW REF`. A branch that goes away changes no file.
fn received(line: &str, refs: &Refs) -> Result<Option<Step>, Error> {
    let mut words = line.splitn(3, ' ');
    let (Some(from), Some(to), Some(name)) = (words.next(), words.next(), words.next()) else {
        return Err(Error::Usage(format!("git says of a push what is not understood: {line:?}")));
    };
    if !is_id(from) || !is_id(to) {
        return Err(Error::Usage(format!("git says of a push what is not understood: {line:?}")));
    }
    if !refs.has(name) || is_nothing(to) {
        return Ok(None);
    }
    Ok(Some(Step { from: (!is_nothing(from)).then(|| from.to_owned()), to: to.to_owned() }))
}

/// Which names of commits are guarded: patterns as those of locks.
struct Refs(Vec<LockPath>);

impl Refs {
    fn new(patterns: &[String]) -> Result<Self, Error> {
        let pattern = |text: &str| match LockPath::new(text) {
            Ok(path) if text.starts_with("refs/") => Ok(path),
            Ok(_) => Err(Error::Usage(format!("--ref '{text}': write it whole, such as refs/heads/{text}"))),
            Err(error) => Err(Error::Usage(format!("--ref '{text}': {error}"))),
        };
        if patterns.is_empty() {
            return Ok(Self(vec![pattern(BRANCHES)?]));
        }
        patterns.iter().map(|text| pattern(text)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a name is guarded. One that cannot be told is.
    fn has(&self, name: &str) -> bool {
        LockPath::new(name).map_or(true, |name| self.0.iter().any(|pattern| pattern.covers(&name)))
    }

    /// The commits that guarded names have now.
    fn known(&self, git: &Git) -> Result<Vec<String>, Error> {
        let refs = git.run(&["for-each-ref", "--format=%(objectname) %(refname)"])?;
        let refs = String::from_utf8_lossy(&refs).into_owned();
        let named = refs.lines().filter_map(|line| line.split_once(' '));
        Ok(named.filter(|(id, name)| is_id(id) && self.has(name)).map(|(id, _)| id.to_owned()).collect())
    }
}

/// Git in a bare repository, and in no other that lies around it.
fn bare(server: &Path) -> Result<Git, Error> {
    let wrong = |why: &str| Error::Usage(format!("{} is no bare git repository{why}", server.display()));
    let server = server.canonicalize().map_err(|error| wrong(&format!(": {error}")))?;
    let git = Git::at(&server);
    let is_here =
        git.place(&["--absolute-git-dir"]).is_ok_and(|at| at.canonicalize().is_ok_and(|at| at == server));
    if is_here { Ok(git) } else { Err(wrong("")) }
}

fn install(server: &Path, what: &Guarded, global: &Global, output: Output) -> Result<u8, Error> {
    Refs::new(&what.refs)?;
    let git = bare(server)?;
    let hooks = directory(&git)?;
    refuse_shared(&git, &hooks, "write a pre-receive hook there that calls `agentflow guard pre-receive`")?;
    let mut words: Vec<String> = Vec::new();
    if let Some(master) = &global.master {
        words.extend(["--master".to_owned(), master.clone()]);
    }
    words.extend(["guard", "pre-receive", "--repo", what.repo.as_str()].map(str::to_owned));
    words.extend(what.refs.iter().flat_map(|text| ["--ref".to_owned(), text.clone()]));
    let words: Vec<_> = words.into_iter().map(Into::into).collect();
    let standing = hooks.install(&Script::server(program()?.as_os_str(), &words))?;
    tell_hooks(&hooks, &[standing], output)
}

/// Names every stray file to whoever pushes.
pub(super) fn tell(strays: &[Stray], repo: &Repository) {
    strays.iter().for_each(|stray| eprintln!("{}", line(stray)));
    if !strays.is_empty() {
        eprintln!("{}", summary(strays, repo));
    }
}

fn line(stray: &Stray) -> String {
    let commit = stray.commit.get(..DIGITS).unwrap_or(&stray.commit);
    format!("{commit}  {}: {}", stray.path, crate::output::printable(&stray.reason))
}

fn summary(strays: &[Stray], repo: &Repository) -> String {
    format!(
        "agentflow: {} changes were not made under locks of {repo}: lock the files (`agentflow lock FILE…`), and \
         commit them anew with the hooks of `agentflow hooks install`, which name the locks in the message",
        strays.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refs(patterns: &[&str]) -> Refs {
        let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
        Refs::new(&patterns).expect("patterns")
    }

    #[test]
    fn branches_are_guarded_unless_less_is_asked_for() {
        let all = refs(&[]);
        assert!(all.has("refs/heads/main") && all.has("refs/heads/a/b/c"));
        assert!(!all.has("refs/tags/v1") && !all.has("refs/remotes/heads/x"));
        let some = refs(&["refs/heads/main", "refs/heads/release/*"]);
        assert!(some.has("refs/heads/main") && some.has("refs/heads/release/1"));
        assert!(!some.has("refs/heads/mainly") && !some.has("refs/heads/release/1/2"));
        assert!(Refs::new(&["main".to_owned()]).is_err() && Refs::new(&["refs/../x".to_owned()]).is_err());
    }

    #[test]
    fn a_line_of_a_push_is_a_step() {
        let (zero, a, b) = ("0".repeat(40), "a".repeat(40), "b".repeat(40));
        let read = |line: &str| received(line, &refs(&[])).map_err(|error| error.exit_code());
        let step = |from: Option<&String>| Ok(Some(Step { from: from.cloned(), to: b.clone() }));
        assert_eq!(read(&format!("{a} {b} refs/heads/main")), step(Some(&a)));
        assert_eq!(read(&format!("{zero} {b} refs/heads/new")), step(None));
        assert_eq!(read(&format!("{a} {zero} refs/heads/old")), Ok(None));
        assert_eq!(read(&format!("{a} {b} refs/tags/v1")), Ok(None));
        for wrong in [format!("{a} {b}"), "x y refs/heads/main".to_owned(), String::new()] {
            assert_eq!(read(&wrong), Err(2), "{wrong}");
        }
    }
}
