//! A round as calls of tools: those of an agent, or the steps of a person's shell.

use super::plan::{Kind, Moment, Round, Straying, Who, file};
use crate::agent::{Call, Tool};

/// Names of calls whose outcome says more than whether they worked.
pub(super) const GRANT: &str = "grant";
pub(super) const LAND: &str = "land";
pub(super) const ENTER: &str = "enter";
pub(super) const LEAVE: &str = "leave";

/// A fence that is never reached.
const NEVER: u64 = 999_999_999;

/// The line before which agents put theirs.
pub(super) const END: &str = "-- end --";

/// A round with the names of everything in it.
#[derive(Debug)]
pub(super) struct Named {
    /// What is locked.
    pub(super) places: Vec<&'static str>,
    /// Lines that may be: each with its file.
    pub(super) edits: Vec<(String, String)>,
    /// Lines that may not be.
    pub(super) strays: Vec<NamedStray>,
}

/// A stray with its line and its file.
#[derive(Debug)]
pub(super) struct NamedStray {
    pub(super) name: String,
    pub(super) file: String,
    pub(super) plan: Straying,
    /// The fence that it names, where that is not its own.
    pub(super) fence: Option<u64>,
}

impl Named {
    /// The names of one round; `stale` is the fence that somebody else had before.
    pub(super) fn new(who: Who, number: usize, round: &Round, stale: Option<u64>) -> Self {
        let edits = round.places.iter().enumerate().map(|(at, place)| {
            let name = format!("LEGIT-{who}-{number}-{at}");
            (name.clone(), file(place, &name))
        });
        let strays = round.strays.iter().enumerate().map(|(at, plan)| {
            let name = format!("STRAY-{who}-{number}-{at}");
            let fence = match plan.kind {
                Kind::Stale => stale,
                Kind::Unknown => Some(NEVER),
                _ => None,
            };
            NamedStray { file: file(plan.place, &name), name, plan: plan.clone(), fence }
        });
        Self { places: round.places.clone(), edits: edits.collect(), strays: strays.collect() }
    }

    /// Everything in its order.
    pub(super) fn calls(&self, who: Who) -> Vec<Call> {
        let places: Vec<String> = self.places.iter().map(|place| format!("\"{place}\"")).collect();
        let places = places.join(" ");
        let mut calls = Vec::new();
        if places.is_empty() {
            calls.push(required("newest", "newest"));
        } else {
            calls.push(required(ENTER, &format!("enter {places}")));
            calls.push(required(GRANT, "locks"));
        }
        calls.extend(self.straying(Moment::First));
        for (name, file) in &self.edits {
            calls.push(edit(who, name, file));
            calls.push(required(&format!("commit-{name}"), &format!("commit {name}")));
        }
        calls.extend(self.straying(Moment::Between));
        if !places.is_empty() {
            calls.push(required(LAND, "land not"));
        }
        calls.extend(self.straying(Moment::Last));
        if !places.is_empty() {
            calls.push(required(LEAVE, &format!("leave {places}")));
        }
        // Nothing comes after it that would take it back.
        calls.extend(
            self.left()
                .map(|stray| call(stray, &format!("left {} {} {}", stray.name, stray.file, stray.plan.how))),
        );
        calls
    }

    /// What is left changed at the end.
    pub(super) fn left(&self) -> Option<&NamedStray> {
        self.strays.iter().find(|stray| stray.plan.kind == Kind::Left)
    }

    fn straying(&self, moment: Moment) -> impl Iterator<Item = Call> {
        let now = self.strays.iter().filter(move |stray| stray.plan.moment == moment);
        now.filter(|stray| stray.plan.kind != Kind::Left).map(NamedStray::call)
    }
}

impl NamedStray {
    fn call(&self) -> Call {
        let Self { name, file, plan, fence } = self;
        let (how, fence) = (plan.how, fence.map(|fence| fence.to_string()));
        let line = |commit: &str, push: &str, fence: &str| {
            call(self, format!("stray {name} {file} {commit} {push} {fence}").trim_end())
        };
        match plan.kind {
            Kind::Edit => tool(
                name,
                Tool::Edit {
                    file_path: file.clone(),
                    old_string: END.to_owned(),
                    new_string: format!("{name}\n{END}"),
                },
            ),
            Kind::Write => tool(name, Tool::Write { file_path: file.clone(), content: format!("{name}\n") }),
            Kind::Commit | Kind::BareCommit => line("not", "not", ""),
            Kind::Push | Kind::BarePush => line(how, "not", ""),
            Kind::Foreign => line("flag", "flag", "$(fence)"),
            Kind::Unknown | Kind::Stale => line("flag", how, &fence.unwrap_or_default()),
            // Left behind is what nothing else does; it has a call of its own.
            Kind::Server | Kind::BareServer | Kind::Left => line(how, how, ""),
        }
    }
}

/// Puts a line where it may be: an agent by its tools, which ask the hook.
fn edit(who: Who, name: &str, file: &str) -> Call {
    let is_new = file.contains(name);
    let deed = match (who.is_agent(), is_new) {
        (true, true) => Tool::Write { file_path: file.to_owned(), content: format!("{name}\n") },
        (true, false) => Tool::Edit {
            file_path: file.to_owned(),
            old_string: END.to_owned(),
            new_string: format!("{name}\n{END}"),
        },
        (false, true) => return required(name, &format!("new {name} {file}")),
        (false, false) => return required(name, &format!("line {name} {file}")),
    };
    Call { required: true, ..tool(name, deed) }
}

fn tool(name: &str, tool: Tool) -> Call {
    Call { id: Some(name.to_owned()), required: false, tool }
}

fn call(stray: &NamedStray, command: &str) -> Call {
    shell(&stray.name, command)
}

fn shell(name: &str, command: &str) -> Call {
    tool(name, Tool::Bash { command: format!(". \"$RACE/functions.sh\"; {command}") })
}

fn required(name: &str, command: &str) -> Call {
    Call { required: true, ..shell(name, command) }
}

/// The calls as a script of a person's shell.
pub(super) fn script(calls: &[Call]) -> String {
    let mut text = String::from("set -u\n. \"$RACE/functions.sh\"\n");
    for call in calls {
        let (Some(name), Tool::Bash { command }) = (&call.id, &call.tool) else { continue };
        let required = if call.required { "required" } else { "-" };
        // No command has such a quote.
        text.push_str(&format!("step {name} {required} '{command}'\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::race::plan::{CONTENDERS, rounds};

    #[test]
    fn every_stray_and_every_edit_has_a_call() {
        for who in CONTENDERS {
            for (number, round) in rounds(7, who).iter().enumerate() {
                let named = Named::new(who, number, round, Some(1));
                let calls = named.calls(who);
                let ids: Vec<&str> = calls.iter().filter_map(|call| call.id.as_deref()).collect();
                let names = named.edits.iter().map(|(name, _)| name);
                for name in names.chain(named.strays.iter().map(|stray| &stray.name)) {
                    assert_eq!(ids.iter().filter(|id| *id == name).count(), 1, "{name}: {ids:?}");
                }
                if !who.is_agent() {
                    let script = script(&calls);
                    assert_eq!(script.lines().count(), calls.len() + 2, "{script}");
                    assert!(script.matches('\'').count() == 2 * calls.len(), "{script}");
                }
            }
        }
    }
}
