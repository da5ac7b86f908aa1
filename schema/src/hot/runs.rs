//! Rows of runs and of what their nodes are besides tasks, and how they are written.

use diesel::sql_types::{BigInt, Binary, Integer, Nullable, Text};

use super::{Write, row};
use crate::columns::{big, small};
use crate::error::Error;
use crate::gathered::{Gathered, RunEntry};

row! {
    /// A workflow that may be new.
    DefinitionInsert<'a> in "run_definitions", Verb::Add,
    {
        hash: &'a [u8] => Binary,
        body: &'a str => Text,
    }
}

row! {
    /// A new run.
    RunInsert<'a> in "runs", Verb::Insert { conflict: "" },
    {
        id: i64 => BigInt,
        status: i32 => Integer,
        revision: i32 => Integer,
        first_task: i64 => BigInt,
        nodes: i32 => Integer,
        parent: Option<i64> => Nullable<BigInt>,
        created_at: i64 => BigInt,
        settled_at: Option<i64> => Nullable<BigInt>,
        definition: &'a [u8] => Binary,
        mode: &'a str => Text,
        name: &'a str => Text,
        error: Option<&'a str> => Nullable<Text>,
        inputs: &'a str => Text,
        stopping: i32 => Integer,
        version: i32 => Integer,
    }
}

row! {
    /// A run's new state.
    RunUpdate<'a> in "runs",
    Verb::Update { sqlite: ("status = ", ""), postgres: "status = u.status" },
    {
        status: i32 => Integer,
        revision: i32 => Integer,
        settled_at: Option<i64> => Nullable<BigInt>,
        error: Option<&'a str> => Nullable<Text>,
        stopping: i32 => Integer,
        version: i32 => Integer,
        id: i64 => BigInt,
    }
}

row! {
    /// A run's other workflow and inputs.
    RunRedefine<'a> in "runs",
    Verb::Update { sqlite: ("definition = ", ""), postgres: "definition = u.definition" },
    {
        definition: &'a [u8] => Binary,
        inputs: &'a str => Text,
        id: i64 => BigInt,
    }
}

row! {
    /// What else of a run follows from its other workflow.
    RunLayoutUpdate<'a> in "runs",
    Verb::Update { sqlite: ("name = ", ""), postgres: "name = u.name" },
    {
        name: &'a str => Text,
        mode: &'a str => Text,
        nodes: i32 => Integer,
        id: i64 => BigInt,
    }
}

row! {
    /// All ranges of a run.
    RangesRemove in "run_ranges", Verb::Remove,
    {
        run: i64 => BigInt,
    }
}

row! {
    /// Nodes of a run whose tasks follow each other.
    RangeInsert in "run_ranges", Verb::Insert { conflict: "" },
    {
        run: i64 => BigInt,
        node: i32 => Integer,
        task: i64 => BigInt,
        count: i32 => Integer,
    }
}

row! {
    /// A version of a run.
    VersionInsert<'a> in "run_versions", Verb::Insert { conflict: "" },
    {
        run: i64 => BigInt,
        version: i32 => Integer,
        definition: &'a [u8] => Binary,
        created_at: i64 => BigInt,
        inputs: &'a str => Text,
        reason: &'a str => Text,
        author: &'a str => Text,
    }
}

row! {
    /// Another name of a task in its run.
    NodeUpdate<'a> in "tasks",
    Verb::Update { sqlite: ("node = ", ""), postgres: "node = u.node" },
    {
        node: &'a str => Text,
        id: i64 => BigInt,
    }
}

row! {
    /// A node whose attempt is of an older version of its run.
    OutdatedInsert in "task_outdated", Verb::Add,
    {
        task: i64 => BigInt,
    }
}

row! {
    /// A node whose attempt no longer is.
    OutdatedRemove in "task_outdated", Verb::Remove,
    {
        task: i64 => BigInt,
    }
}

row! {
    /// The round of a loop.
    RoundUpsert in "task_rounds",
    Verb::Insert { conflict: "ON CONFLICT (task) DO UPDATE SET round = excluded.round" },
    {
        task: i64 => BigInt,
        round: i32 => Integer,
    }
}

row! {
    /// A loop that is over.
    RoundRemove in "task_rounds", Verb::Remove,
    {
        task: i64 => BigInt,
    }
}

/// Writes workflows, runs, their ranges and their versions.
pub(super) fn write(connection: &mut impl Write, gathered: &Gathered) -> Result<(), Error> {
    connection.write(
        gathered.definitions.iter().map(|(hash, body)| DefinitionInsert { hash: &hash.0, body }).collect(),
    )?;
    let (mut births, mut states, mut others) = (vec![], vec![], vec![]);
    for (id, RunEntry { birth, change, state }) in &gathered.runs {
        let id = big(id.0);
        let status = state.status as i32;
        let (revision, version) = (small(state.revision), small(state.version));
        let settled_at = state.settled_at.map(|at| at.0);
        let error = state.error.as_deref();
        let stopping = state.stopping.map_or(0, |stopping| stopping as i32);
        match birth {
            Some(birth) => births.push(RunInsert {
                id,
                status,
                revision,
                first_task: big(birth.first_task.0),
                nodes: small(birth.nodes),
                parent: birth.parent.map(|task| big(task.0)),
                created_at: birth.created_at.0,
                settled_at,
                definition: &birth.definition.0,
                mode: birth.mode,
                name: &birth.name,
                error,
                inputs: &birth.inputs,
                stopping,
                version,
            }),
            None => states.push(RunUpdate { status, revision, settled_at, error, stopping, version, id }),
        }
        if let Some(change) = change {
            others.push(RunRedefine { definition: &change.definition.0, inputs: &change.inputs, id });
        }
    }
    connection.write(births)?;
    connection.write(states)?;
    connection.write(others)?;
    write_layouts(connection, gathered)?;
    let versions = gathered.run_versions.values().map(|row| VersionInsert {
        run: big(row.run.0),
        version: small(row.version),
        definition: &row.definition.0,
        created_at: row.created_at.0,
        inputs: &row.inputs,
        reason: &row.reason,
        author: &row.author,
    });
    connection.write(versions.collect())
}

/// What else of runs follows from their other workflows.
fn write_layouts(connection: &mut impl Write, gathered: &Gathered) -> Result<(), Error> {
    let (mut layouts, mut old, mut new) = (vec![], vec![], vec![]);
    for (id, entry) in &gathered.runs {
        let run = big(id.0);
        let Some(layout) = entry.change.as_ref().and_then(|change| change.layout.as_ref()) else { continue };
        let nodes = small(layout.numbers.len());
        layouts.push(RunLayoutUpdate { name: &layout.name, mode: layout.mode, nodes, id: run });
        old.push(RangesRemove { run });
        new.extend(layout.numbers.ranges().iter().map(|range| RangeInsert {
            run,
            node: small(range.node),
            task: big(range.task.0),
            count: small(range.count),
        }));
    }
    connection.write(layouts)?;
    connection.write(old)?;
    connection.write(new)
}

/// Writes what the nodes of runs are besides tasks: their names, rounds, and whether they are outdated.
/// Their tasks are there.
pub(super) fn write_nodes(connection: &mut impl Write, gathered: &Gathered) -> Result<(), Error> {
    let renames = gathered.renames.iter().map(|(task, node)| NodeUpdate { node, id: big(task.0) });
    connection.write(renames.collect())?;
    write_outdated(connection, gathered)?;
    write_rounds(connection, gathered)
}

fn write_outdated(connection: &mut impl Write, gathered: &Gathered) -> Result<(), Error> {
    let (mut kept, mut removed) = (vec![], vec![]);
    for (task, outdated) in &gathered.outdated {
        let task = big(task.0);
        if *outdated {
            kept.push(OutdatedInsert { task });
        } else {
            removed.push(OutdatedRemove { task });
        }
    }
    connection.write(kept)?;
    connection.write(removed)
}

fn write_rounds(connection: &mut impl Write, gathered: &Gathered) -> Result<(), Error> {
    let (mut kept, mut removed) = (vec![], vec![]);
    for (task, round) in &gathered.rounds {
        let task = big(task.0);
        match round {
            Some(round) => kept.push(RoundUpsert { task, round: small(*round) }),
            None => removed.push(RoundRemove { task }),
        }
    }
    connection.write(kept)?;
    connection.write(removed)
}
