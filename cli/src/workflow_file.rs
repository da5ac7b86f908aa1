//! A workflow file on this side: checked with the library, put into the words of the API, and its
//! errors told as `FILE:LINE:COLUMN: …`.

use agentflow_protocol::Problem;
use agentflow_protocol::problem::FieldError;
use agentflow_protocol::workflow::WorkflowTasks;
use agentflow_workflow::{
    Definition, Diagnostic, Diagnostics, Rendering, Scope, Tree, read_text, read_tree, read_value,
};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::args::Variables;
use crate::document;
use crate::error::Error;
use crate::input;
use crate::task_locks;

/// A workflow file.
#[derive(Clone, Debug)]
pub(crate) struct WorkflowFile {
    /// As it was typed.
    pub(crate) name: String,
    /// What it holds.
    pub(crate) text: String,
}

/// What a workflow is given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    vars: Map<String, Value>,
    inputs: Value,
    /// Whether inputs were given at all.
    has_inputs: bool,
}

impl Given {
    /// Reads the files that the flags name.
    ///
    /// # Errors
    /// `Usage`, naming the flag or the file.
    pub(crate) fn read(variables: &Variables) -> Result<Self, Error> {
        let mut vars = Map::new();
        if let Some(path) = &variables.vars_file {
            match read_value_of(path)? {
                Value::Object(read) => vars = read,
                _ => return Err(Error::Usage(format!("{path}: is no map from names to values"))),
            }
        }
        vars.extend(variables.vars.iter().cloned());
        let inputs = match variables.input.as_deref() {
            None => Value::Null,
            Some(text) => match text.strip_prefix('@') {
                Some(path) => read_value_of(path)?,
                None => serde_json::from_str(text)
                    .map_err(|error| Error::Usage(format!("--input is no JSON: {error}; or write @FILE")))?,
            },
        };
        Ok(Self { vars, inputs, has_inputs: variables.input.is_some() })
    }
}

impl Given {
    /// The vars and the inputs, as far as they are given.
    pub(crate) fn into_parts(self) -> (Option<Map<String, Value>>, Option<Value>) {
        let Self { vars, inputs, has_inputs } = self;
        (Some(vars).filter(|vars| !vars.is_empty()), has_inputs.then_some(inputs))
    }
}

fn read_value_of(path: &str) -> Result<Value, Error> {
    let tree = read_tree(&input::read_text(path)?);
    tree.map(|tree| tree.to_value()).map_err(|error| Error::Wrong(format!("{path}:{error}")))
}

impl WorkflowFile {
    /// Reads a file or, for `-`, standard input.
    pub(crate) fn read(path: &str) -> Result<Self, Error> {
        Ok(Self { name: path.to_owned(), text: input::read_text(path)? })
    }

    /// Checks it as the master will.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub(crate) fn instantiate(&self, given: &Given) -> Result<Definition, Diagnostics> {
        let definition = read_text(&self.text, &WorkflowTasks)?;
        definition
            .instantiate_checked(&given.vars, &given.inputs, &WorkflowTasks)
            .map_err(|wrong| wrong.locate(&self.text))
    }

    /// Checks it as far as it can be without inputs, where none are given.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub(crate) fn validate(&self, given: &Given) -> Result<Definition, Diagnostics> {
        let definition = read_text(&self.text, &WorkflowTasks)?;
        match definition.clone().instantiate_checked(&given.vars, &given.inputs, &WorkflowTasks) {
            Ok(definition) => Ok(definition),
            Err(wrong) if given.has_inputs => Err(wrong.locate(&self.text)),
            Err(wrong) => {
                // What reads inputs names them in the expression that is shown.
                let mut without = Diagnostics::default();
                let all = wrong.into_iter().filter(|one| !one.message.contains("inputs"));
                all.for_each(|one| without.push(one));
                if without.is_empty() { Ok(definition) } else { Err(without.locate(&self.text)) }
            }
        }
    }

    /// The file as it stands, without what is given.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub(crate) fn definition(&self) -> Result<Definition, Diagnostics> {
        read_text(&self.text, &WorkflowTasks)
    }

    /// What is sent of it: the text as it is, so that the master names lines. Where its tasks have locks
    /// that name no repository, what it says, with that of the current directory.
    ///
    /// # Errors
    /// When that directory does not say which repository it is.
    pub(crate) fn sent(&self) -> Result<Tree, Error> {
        let text = || Tree::String(self.text.as_str().into());
        if !self.text.contains("locks") {
            return Ok(text());
        }
        match read_tree(&self.text) {
            Ok(mut tree) => Ok(if task_locks::name_repository(&mut tree)? { tree } else { text() }),
            // The master says what is wrong with it.
            Err(_) => Ok(text()),
        }
    }

    /// The body of `POST /runs`.
    ///
    /// # Errors
    /// Those of [`Self::sent`].
    pub(crate) fn body(&self, given: &Given) -> Result<Box<RawValue>, Error> {
        self.body_of(&self.sent()?, given)
    }

    /// The same with defaults put into it, and the groups of its tasks then.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(crate) fn body_with(
        &self,
        given: &Given,
        defaults: &[(Box<str>, Tree)],
    ) -> Result<(Box<RawValue>, Vec<String>), Error> {
        let wrong = |wrong: Diagnostics| self.wrong(&wrong.locate(&self.text));
        let tree = self.with_defaults(defaults)?;
        let definition = read_value(&tree, &WorkflowTasks).map_err(wrong)?;
        let definition =
            definition.instantiate_checked(&given.vars, &given.inputs, &WorkflowTasks).map_err(wrong)?;
        Ok((self.body_of(&tree, given)?, groups(&definition)))
    }

    fn body_of(&self, workflow: &Tree, given: &Given) -> Result<Box<RawValue>, Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            workflow: &'a Tree,
            vars: &'a Map<String, Value>,
            inputs: &'a Value,
        }
        let body = Body { workflow, vars: &given.vars, inputs: &given.inputs };
        let text = serde_json::to_string(&body).and_then(RawValue::from_string);
        text.map_err(|error| Error::Usage(format!("{}: {error}", self.name)))
    }

    fn with_defaults(&self, defaults: &[(Box<str>, Tree)]) -> Result<Tree, Error> {
        self.definition().map_err(|wrong| self.wrong(&wrong))?;
        let mut tree = read_tree(&self.text).map_err(|wrong| self.wrong(&wrong.into()))?;
        task_locks::name_repository(&mut tree)?;
        document::put_defaults(&mut tree, defaults);
        Ok(tree)
    }

    /// What is wrong, one line each.
    pub(crate) fn lines(&self, wrong: &Diagnostics) -> Vec<String> {
        let mut lines: Vec<String> = wrong.iter().map(|one| self.line(one)).collect();
        if wrong.more() > 0 {
            lines.push(format!("{}: and {} more", self.name, wrong.more()));
        }
        lines
    }

    fn line(&self, one: &Diagnostic) -> String {
        let space = if one.line.is_some() { "" } else { " " };
        format!("{}:{space}{one}", self.name)
    }

    /// What is wrong, as an error.
    pub(crate) fn wrong(&self, wrong: &Diagnostics) -> Error {
        Error::Wrong(self.lines(wrong).join("\n"))
    }

    /// What the master found wrong. Fields without a line get that of this file.
    pub(crate) fn refused(&self, problem: &Problem) -> Error {
        if problem.errors.is_empty() {
            return Error::Wrong(format!("{}: {}", self.name, problem.detail));
        }
        let lines: Vec<String> = problem.errors.iter().map(|error| self.refused_line(error)).collect();
        Error::Wrong(lines.join("\n"))
    }

    fn refused_line(&self, error: &FieldError) -> String {
        if has_position(&error.detail) {
            return format!("{}:{}", self.name, error.detail);
        }
        let pointer = error.pointer.strip_prefix("/workflow").unwrap_or(&error.pointer);
        let message = error.detail.strip_prefix(&format!("{pointer}: ")).unwrap_or(&error.detail);
        let wrong = Diagnostics::from(Diagnostic::new(pointer, message));
        // Inputs are not in the file.
        let located = if pointer.starts_with("/inputs") { wrong } else { wrong.locate(&self.text) };
        located.iter().map(|one| self.line(one)).collect()
    }
}

/// Whether a text begins with `LINE:COLUMN: `.
fn has_position(text: &str) -> bool {
    let mut parts = text.splitn(3, ':');
    let is_number = |part: Option<&str>| {
        part.is_some_and(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    is_number(parts.next())
        && is_number(parts.next())
        && parts.next().is_some_and(|rest| rest.starts_with(' '))
}

/// The groups of its tasks, those of children too, as far as they are known before it runs.
fn groups(definition: &Definition) -> Vec<String> {
    let mut groups = Vec::new();
    collect_groups(definition, &mut groups);
    groups.sort_unstable();
    groups.dedup();
    groups
}

fn collect_groups(definition: &Definition, groups: &mut Vec<String>) {
    let scope = Scope::new().vars(&definition.vars);
    for template in &definition.templates {
        let group = template.value().get("group").cloned().unwrap_or_else(|| Value::from("default"));
        let group = Rendering::new(&group).ok().and_then(|group| group.render(&scope).ok());
        groups.extend(group.as_ref().and_then(Value::as_str).map(str::to_owned));
    }
    let children = definition.nodes.iter().filter_map(|node| node.extra.as_ref()?.child.as_ref());
    children.for_each(|child| collect_groups(&child.definition, groups));
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "version: 1\nname: ci\nvars: {n: 1}\ntasks:\n  build: make ${{ vars.n }}\n  test:\n    run: x\n    needs: build\n    group: gpu\n";

    fn file(text: &str) -> WorkflowFile {
        WorkflowFile { name: "ci.yaml".into(), text: text.into() }
    }

    #[test]
    fn errors_are_told_by_file_line_and_column() {
        let check = |text: &str, expect: &str| {
            let file = file(text);
            let wrong = file.instantiate(&Given::default()).expect_err("wrong");
            assert_eq!(file.lines(&wrong).join("\n"), expect);
        };
        check(
            &FILE.replace("needs: build", "needs: buld"),
            "ci.yaml:8:12: there is no task 'buld' (did you mean 'build'?)",
        );
        let given = Given { vars: [("m".to_owned(), 1.into())].into_iter().collect(), ..Given::default() };
        let file = file(FILE);
        let wrong = file.instantiate(&given).expect_err("no such var");
        let Error::Wrong(lines) = file.wrong(&wrong) else { panic!("another error") };
        assert!(lines.starts_with("ci.yaml:3:7: 'm' is not among the vars"), "{lines}");
    }

    #[test]
    fn what_the_master_says_is_told_in_the_same_way() {
        let check = |pointer: &str, detail: &str, expect: &str| {
            let error = FieldError { pointer: pointer.into(), detail: detail.into() };
            let told = file(FILE).refused(&Problem::invalid(vec![error])).to_string();
            assert_eq!(told, expect);
        };
        check("/workflow/tasks/test/run", "7:10: it is wrong", "ci.yaml:7:10: it is wrong");
        check("/workflow/tasks/test/run", "/tasks/test/run: it is wrong", "ci.yaml:7:10: it is wrong");
        check("/vars/m", "/vars/m: 'm' is unknown (try n)", "ci.yaml:3:7: 'm' is unknown (try n)");
        check("/inputs", "too large", "ci.yaml: /inputs: too large");
    }

    #[test]
    fn inputs_need_not_be_there_to_validate() {
        let text = FILE.replace("run: x", "run: x ${{ inputs.who }}");
        assert!(file(&text).validate(&Given::default()).is_ok());
        assert!(file(&text).instantiate(&Given::default()).is_err());
        let given = Given { inputs: serde_json::json!({"who": "me"}), has_inputs: true, ..Given::default() };
        assert!(file(&text).validate(&given).is_ok());
        let given = Given { inputs: serde_json::json!({}), has_inputs: true, ..Given::default() };
        assert!(file(&text).validate(&given).is_err());
        let text = FILE.replace("run: x", "run: x ${{ vars.n + 'a' }}");
        assert!(file(&text).validate(&Given::default()).is_err());
    }

    #[test]
    fn a_body_holds_the_text_or_what_it_says_with_defaults() {
        let read = |body: Box<RawValue>| serde_json::from_str::<Value>(body.get()).expect("JSON");
        let body = file(FILE).body(&Given::default()).expect("a body");
        assert_eq!(read(body)["workflow"], FILE);
        let with = |key: &str, value: &str| {
            let defaults = [(key.into(), Tree::String(value.into()))];
            file(FILE).body_with(&Given::default(), &defaults)
        };
        let (body, groups) = with("workdir", "/srv").expect("a body");
        let body = read(body);
        assert_eq!(body["workflow"]["defaults"]["workdir"], "/srv");
        assert_eq!(body["workflow"]["tasks"]["test"]["needs"], "build");
        assert_eq!(groups, ["default", "gpu"]);
        assert_eq!(with("group", "big").expect("a body").1, ["big", "gpu"]);
        let wrong = with("priority", "odd").expect_err("no priority").to_string();
        assert!(wrong.starts_with("ci.yaml:") && wrong.contains("'odd' is unknown"), "{wrong}");
    }

    #[test]
    fn a_group_may_be_a_variable() {
        let text = FILE.replace("group: gpu", "group: g-${{ vars.n }}");
        let (_, groups) = file(&text).body_with(&Given::default(), &[]).expect("a body");
        assert_eq!(groups, ["default", "g-1"]);
    }
}
