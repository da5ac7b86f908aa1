//! The engine that evaluates what the grammar has let through.
//!
//! It counts fuel for every instruction, item and byte, so that no expression runs for long. What it
//! does not count (a list that is repeated lazily, a large list turned into text at once) the grammar
//! guards with the filters of [`super::filters`].

use std::sync::OnceLock;

use minijinja::value::Value;
use minijinja::{Environment, UndefinedBehavior};

use super::convert::Failure;
use super::{filters, words};
use crate::{Scope, limits};

/// An expression, ready to be evaluated.
pub(super) struct Program(minijinja::Expression<'static, 'static>);

impl Program {
    pub(super) fn evaluate(&self, scope: &Scope) -> Result<Value, Failure> {
        Ok(self.0.eval(scope.to_value())?)
    }
}

/// Compiles what the grammar has written. The grammar lets nothing through that the engine refuses; a
/// property test holds it to that.
pub(super) fn compile(output: &str) -> Result<Program, String> {
    let compiled = environment().compile_expression_owned(output.to_owned());
    compiled.map(Program).map_err(|error| error.detail().map_or_else(|| error.to_string(), str::to_owned))
}

fn environment() -> &'static Environment<'static> {
    static ENVIRONMENT: OnceLock<Environment<'static>> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let mut environment = Environment::new();
        for name in words::REMOVED_FILTERS {
            environment.remove_filter(name);
        }
        for name in words::REMOVED_TESTS {
            environment.remove_test(name);
        }
        for name in words::REMOVED_FUNCTIONS {
            environment.remove_global(name);
        }
        filters::add(&mut environment);
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(limits::FUEL));
        environment
    })
}
