//! The words of expressions: filters and tests that may be used. What could build without bound (a
//! range, a repetition, an indentation) is not among them.

/// Words that are no names.
pub(super) const KEYWORDS: [&str; 14] =
    ["and", "or", "not", "if", "else", "in", "is", "true", "false", "none", "null", "True", "False", "None"];

/// What may follow `|`.
pub(super) const FILTERS: [&str; 41] = [
    "abs",
    "batch",
    "bool",
    "capitalize",
    "count",
    "d",
    "default",
    "dictsort",
    "first",
    "float",
    "fromjson",
    "groupby",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "select",
    "selectattr",
    "slice",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
    "keys",
];

/// What may follow `is`.
pub(super) const TESTS: [&str; 32] = [
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "equalto",
    "even",
    "false",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "int",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sequence",
    "startingwith",
    "string",
    "true",
    "undefined",
    "upper",
    "sameas",
];

/// Filters of the engine that must go.
pub(super) const REMOVED_FILTERS: [&str; 9] =
    ["safe", "escape", "e", "attr", "indent", "chain", "zip", "pprint", "format"];

/// Tests of the engine that must go.
pub(super) const REMOVED_TESTS: [&str; 4] = ["safe", "escaped", "filter", "test"];

/// Functions of the engine that must go.
pub(super) const REMOVED_FUNCTIONS: [&str; 4] = ["range", "dict", "debug", "namespace"];

/// Filters that only the grammar writes: refuses anything but a number, turns into text, and refuses
/// what has become too large.
pub(super) const NUMBER: &str = "_number";
/// See [`NUMBER`].
pub(super) const TEXT: &str = "_text";
/// See [`NUMBER`].
pub(super) const BOUNDED: &str = "_bounded";

/// Filters whose result may hold the same large value many times.
pub(super) fn multiplies(filter: &str) -> bool {
    matches!(filter, "map" | "sum" | "batch" | "slice")
}

/// What people of other systems write, and what it is here.
pub(super) fn other_word(word: &str) -> Option<&'static str> {
    Some(match word {
        "success" => "a task with `needs` runs when they completed; leave the condition out",
        "failure" => "name the task in `on_failure`, or compare tasks.NAME.status == 'failed'",
        "always" => "read the status of the task in `when`: tasks.NAME.status in ['completed', 'failed']",
        "contains" => "write 'part' in text",
        "startsWith" => "write text is startingwith('part')",
        "endsWith" => "write text is endingwith('part')",
        "fromJSON" | "fromJson" => "write text|fromjson",
        "toJSON" | "toJson" => "write value|tojson",
        "format" => "write 'a ' ~ value, or several ${{ }} in one text",
        "len" => "write list|length",
        "str" => "write value|string",
        "env" => "a task's environment is not known here; put the value into `vars`",
        "needs" | "steps" | "jobs" => "write tasks.NAME.outputs",
        "matrix" => "write item",
        "github" => "write run",
        _ => return None,
    })
}
