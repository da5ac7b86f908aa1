//! The contenders: each does its rounds one after another, and notes what it is told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::calls::{ENTER, GRANT, LAND, LEAVE, Named, script};
use super::ledger::{Edit, End, Grant, Ledger, Stray};
use super::plan::{Kind, Layer, PLACES, Round, Who};
use super::stage::{REPOSITORY, Stage};
use crate::agent::{Outcome, Script, outcomes};
use crate::harness::{Failure, wait_for};

/// How long one round may take, and waiting for others with it.
const PATIENCE: Duration = Duration::from_secs(50);

/// How often the person asks for a lock again that he has not got in time.
const ASKS: usize = 5;

/// The exit code of `agentflow lock` when somebody else holds it.
const BUSY: i32 = 5;

/// Somebody who races.
pub(super) struct Contender<'a> {
    pub(super) who: Who,
    pub(super) stage: &'a Stage,
    pub(super) ledger: &'a Ledger,
}

type Outcomes = BTreeMap<String, Outcome>;

impl Contender<'_> {
    /// Does everything.
    pub(super) fn race(&self, rounds: Vec<Round>) -> Result<(), Failure> {
        let who = self.who;
        for (number, mut round) in rounds.into_iter().enumerate() {
            let stale = self.stale(&mut round)?;
            let named = Named::new(who, number, &round, stale);
            let name = format!("{who}-{number}");
            let (owner, outcomes) = match who {
                Who::Agent(_) => self.by_a_task(&name, &named)?,
                Who::Person(person) => (person.to_owned(), self.by_a_shell(&name, &named)?),
            };
            self.note(&name, owner, &named, &outcomes);
        }
        Ok(())
    }

    /// Where an old fence is to be named, a place that somebody else had before, and under which fence.
    fn stale(&self, round: &mut Round) -> Result<Option<u64>, Failure> {
        let Some(stray) = round.strays.iter_mut().find(|stray| stray.kind == Kind::Stale) else {
            return Ok(None);
        };
        let what = "somebody else has had a lock";
        let (place, fence) = wait_for(what, PATIENCE, || self.ledger.of_another(self.who))?;
        let place = PLACES.into_iter().find(|other| *other == place).ok_or("there is no such place")?;
        stray.place = place;
        if !round.places.contains(&place) {
            round.places.push(place);
        }
        Ok(Some(fence))
    }

    /// A task that runs the agent in a worktree of its own.
    fn by_a_task(&self, name: &str, named: &Named) -> Result<(String, Outcomes), Failure> {
        let prompt = json!(Script { calls: named.calls(self.who) }).to_string();
        let file = self.stage.scene.path(&format!("{name}.json"));
        std::fs::write(&file, prompt)?;
        let mut argv = vec![self.stage.agent.display().to_string()];
        argv.extend(["-p", &file.display().to_string(), "--output-format", "stream-json"].map(str::to_owned));
        argv.push("--verbose".to_owned());
        let environment: BTreeMap<String, String> = self.stage.environment.iter().cloned().collect();
        let task = json!({
            "kind": "exec", "title": name, "argv": argv, "env": environment,
            "workdir": self.stage.hub, "worktree": { "base": "main" },
            "locks": { "repo": REPOSITORY, "paths": named.places },
        });
        let client = self.stage.scene.client();
        let id = client.submit(&[task])?.into_iter().next().ok_or("no task")?;
        let task = client.settled(id, PATIENCE)?;
        let view = json!(task);
        let text = |field: &str| view[field].as_str().unwrap_or_default().to_owned();
        let end = End {
            task: id,
            left: named.left().map(|stray| stray.file.clone()),
            status: text("status"),
            error: text("error"),
        };
        let mut outcomes =
            outcomes(&text("result")).map_err(|error| format!("{name} as task {id}: {error}: {view:#}"))?;
        if let Some(stray) = named.left()
            && let Some(outcome) = outcomes.get_mut(&stray.name)
        {
            // What it could do without being stopped is stopped at the end.
            *outcome = Outcome { is_error: end.status == "failed", said: end.error.clone() };
        }
        self.ledger.note(|record| record.ends.push(end));
        Ok((format!("task:{id}"), outcomes))
    }

    /// A script of the shell under a lock, or without one.
    fn by_a_shell(&self, name: &str, named: &Named) -> Result<Outcomes, Failure> {
        let file = self.stage.scene.path(&format!("{name}.sh"));
        std::fs::write(&file, script(&named.calls(self.who)))?;
        let out = self.stage.scene.path(&format!("{name}.out"));
        std::fs::create_dir(&out)?;
        let mut words: Vec<String> = Vec::new();
        if !named.places.is_empty() {
            words.extend([self.stage.command.display().to_string(), "lock".to_owned()]);
            words.extend(named.places.iter().map(|place| (*place).to_owned()));
            words.extend(["--wait", "20s", "--reason", name, "--"].map(str::to_owned));
        }
        words.extend(["sh".to_owned(), file.display().to_string()]);
        for _ in 0..ASKS {
            let code = self.stage.person(name, &words, &out, PATIENCE)?;
            let outcomes = told(&out)?;
            if code != Some(BUSY) || !outcomes.is_empty() {
                if code != Some(0) {
                    let log = self.stage.log(name);
                    self.surprise(format!("{name} ended with {code:?}: {log}"));
                }
                return Ok(outcomes);
            }
        }
        Err(format!("{name} has not got its lock: {}", self.stage.log(name)).into())
    }

    /// Notes what was granted, tried and told in a round.
    fn note(&self, name: &str, owner: String, named: &Named, outcomes: &Outcomes) {
        let who = self.who;
        let mut fence = 0;
        if !named.places.is_empty() {
            let said = outcomes.get(GRANT).map(|outcome| outcome.said.as_str()).unwrap_or_default();
            let Some(number) = granted(said) else {
                self.surprise(format!("{name} has no lock: '{said}' {outcomes:?}"));
                return;
            };
            fence = number;
            let places = named.places.iter().map(|place| (*place).to_owned()).collect();
            self.ledger.note(|record| record.grants.push(Grant { who, owner, fence, places }));
        }
        let land = outcomes.get(LAND);
        let is_acknowledged = land.is_some_and(|outcome| !outcome.is_error);
        let edits = named.edits.iter().map(|(line, file)| Edit {
            name: line.clone(),
            file: file.clone(),
            fence,
            is_acknowledged,
        });
        let strays = named.strays.iter().map(|stray| {
            let outcome = outcomes.get(&stray.name);
            let said = outcome.map(|outcome| outcome.said.clone()).unwrap_or_default();
            let stopped = outcome.filter(|outcome| outcome.is_error).and_then(|_| layer(&said));
            let (name, file) = (stray.name.clone(), stray.file.clone());
            Stray { name, who, kind: stray.plan.kind, file, stopped, said }
        });
        self.ledger.note(|record| {
            record.edits.extend(edits);
            record.strays.extend(strays);
            record.moved += land.and_then(|outcome| moved(&outcome.said)).unwrap_or(0);
        });
        self.clear(named, outcomes);
        let expected = named.calls(who);
        for call in expected.iter().filter(|call| call.required) {
            let id = call.id.as_deref().unwrap_or_default();
            match outcomes.get(id) {
                Some(outcome) if !outcome.is_error => {}
                outcome => self.surprise(format!("{name}: {id} did not work: {outcome:?}")),
            }
        }
    }

    /// A round that was given up is no reason why those that follow should find somebody in their places.
    fn clear(&self, named: &Named, outcomes: &Outcomes) {
        let is_done = |name: &str| outcomes.get(name).is_some_and(|outcome| !outcome.is_error);
        if is_done(ENTER) && !is_done(LEAVE) {
            for place in &named.places {
                // It is a surprise already that it is there.
                let _gone = std::fs::remove_dir(self.stage.held_place(place));
            }
        }
    }

    fn surprise(&self, text: String) {
        self.ledger.note(|record| record.surprises.push(text));
    }
}

/// What the steps of a person's shell have said.
fn told(out: &Path) -> Result<Outcomes, Failure> {
    let mut outcomes = BTreeMap::new();
    for entry in std::fs::read_dir(out)? {
        let path: PathBuf = entry?.path();
        if path.extension().is_some_and(|end| end == "code") {
            let is_error = std::fs::read_to_string(&path)?.trim() != "0";
            let said = std::fs::read_to_string(path.with_extension("said"))?;
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            outcomes.insert(name, Outcome { is_error, said });
        }
    }
    Ok(outcomes)
}

/// The fence of the one lock that is held.
fn granted(said: &str) -> Option<u64> {
    let locks: Value = serde_json::from_str(said).ok()?;
    match locks["locks"].as_array()?.as_slice() {
        [one] => one["fence"].as_u64(),
        _ => None,
    }
}

/// How often somebody found that `main` had moved.
fn moved(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.strip_prefix("moved ")?.trim().parse().ok())
}

/// Who says no in such words. A refusal for another reason, such as a master that does not answer, is none.
fn layer(said: &str) -> Option<Layer> {
    let says = |words: &str| said.contains(words);
    if says("the result is refused") && says("without a lock for writing") {
        Some(Layer::Worker)
    } else if says("were not made under locks of") {
        Some(if says("pre-receive hook declined") { Layer::Server } else { Layer::Push })
    } else if says("file locks do not allow that this is committed") {
        Some(Layer::Commit)
    } else if says("file locks do not allow this") {
        Some(Layer::Hook)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_known_by_its_words() {
        let server = "remote: agentflow: 1 changes were not made under locks of x\n! [remote rejected] HEAD -> main (pre-receive hook declined)";
        assert_eq!(layer(server), Some(Layer::Server));
        assert_eq!(layer("agentflow: 1 changes were not made under locks of x"), Some(Layer::Push));
        assert_eq!(
            layer("agentflow: file locks do not allow that this is committed:\n  a"),
            Some(Layer::Commit)
        );
        assert_eq!(layer("Edit hook error: agentflow: file locks do not allow this:\n"), Some(Layer::Hook));
        assert_eq!(layer("no master at http://127.0.0.1:1 (pre-receive hook declined)"), None);
    }

    #[test]
    fn a_lock_is_one() {
        assert_eq!(granted(r#"{"locks":[{"id":"a","fence":17}]}"#), Some(17));
        assert_eq!(granted(r#"{"locks":[{"fence":1},{"fence":2}]}"#), None);
        assert_eq!((granted(""), moved("x\nmoved 3\n")), (None, Some(3)));
    }
}
