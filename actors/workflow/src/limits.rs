//! Every bound of workflow files and expressions, each with the reason for its size.

/// Bytes of a workflow file: the largest body that the API takes.
pub const FILE_BYTES: usize = 32 << 20;

/// Nodes of one definition, those of its children included.
pub const NODES: usize = 100_000;

/// Items of one `foreach` or `items`: each becomes a task.
pub const ITEMS: usize = 100_000;

/// Levels of lists and maps in a file. A definition's text may be half as deep again, and is read
/// with a limit of 128.
pub const DEPTH: usize = 64;

/// Tasks whose files one task may ask for.
pub const SOURCES: usize = 64;

/// Levels of child workflows: people nest two or three.
pub const CHILDREN: usize = 16;

/// Times that a `loop` may go round: the history names every one of them.
pub const ITERATIONS: u64 = 1_000;

/// Bytes of a task's or workflow's name: it is part of an index key.
pub const NAME_BYTES: usize = 128;

/// Values that the aliases of a YAML file may add to those written in it. 100,000 tasks of ten
/// fields are a million.
pub const ALIASED_VALUES: usize = 2_000_000;

/// Diagnostics that are kept; more are counted.
pub const DIAGNOSTICS: usize = 100;

/// Bytes of one expression: a screen full.
pub const EXPRESSION_BYTES: usize = 4 << 10;

/// Brackets of an expression inside one another. Each may become eight levels of the engine's, which
/// stops at 150.
pub const EXPRESSION_DEPTH: usize = 16;

/// Fuel of one evaluation: 64 bytes or one instruction each, so 16 MB or a few milliseconds.
pub const FUEL: u64 = 250_000;

/// Bytes of an expression's result as JSON, and of a text with expressions: as much as they can read
/// of one task.
pub const RESULT_BYTES: usize = 4 << 20;

/// Bytes of a list or map that an expression builds, counted as if nothing in it were shared: 16 for
/// each value, and its text. Comparing, sorting and writing it then stay within milliseconds.
pub const BUILT_BYTES: usize = 16 << 20;
