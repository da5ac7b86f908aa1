//! A workflow's graph for people: as lines of text, and as a Mermaid flowchart.

use std::fmt::Write;

use crate::{Definition, Node, On};

/// The levels of the graph, one task a line, each with what it comes after and what is special about it.
#[must_use]
pub fn text(definition: &Definition) -> String {
    let plan = definition.plan();
    let mut drawn = format!(
        "{} ({}): {} in {}\n",
        definition.name,
        definition.mode,
        counted(definition.nodes.len(), "task"),
        counted(plan.len(), "level"),
    );
    let width =
        definition.nodes.iter().map(|node| node.name.chars().count()).max().unwrap_or_default().min(40);
    let digits = plan.len().to_string().len();
    for (level, number) in plan.iter().zip(1..) {
        for (position, &index) in level.iter().enumerate() {
            let node = &definition.nodes[index as usize];
            let number: &dyn std::fmt::Display = if position == 0 { &number } else { &"" };
            let notes = notes(definition, node);
            let line = format!("{number:>digits$}  {:<width$}  {notes}", node.name);
            drawn.push_str(line.trim_end());
            drawn.push('\n');
        }
    }
    drawn
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// What a task comes after, and what is special about it.
fn notes(definition: &Definition, node: &Node) -> String {
    let names = |on: On| {
        let before = node.after.iter().filter(|edge| edge.on == on);
        before.map(|edge| &*definition.nodes[edge.node as usize].name).collect::<Vec<_>>().join(", ")
    };
    let kinds = [
        (On::Success, "after "),
        (On::Order, "after, unless it fails, "),
        (On::Settled, "after, however it ends, "),
        (On::Failure, "on failure of "),
    ];
    let mut notes: Vec<String> = Vec::new();
    for (on, words) in kinds {
        let names = names(on);
        if !names.is_empty() {
            notes.push(format!("{words}{names}"));
        }
    }
    if let Some(extra) = &node.extra {
        notes.extend(extra.when.as_ref().map(|when| format!("when {when}")));
        notes.extend(extra.foreach.as_ref().map(|_| "for each item".to_owned()));
        notes.extend(extra.repeat.as_ref().map(|repeat| format!("up to {} times", repeat.max)));
        notes.extend(extra.approval.as_ref().map(|_| "approval".to_owned()));
        notes.extend(extra.child.as_ref().map(|child| counted(child.definition.nodes.len(), "inner task")));
    }
    notes.join("; ")
}

/// A flowchart in Mermaid's language.
#[must_use]
pub fn mermaid(definition: &Definition) -> String {
    let mut drawn = "flowchart TD\n".to_owned();
    for (node, index) in definition.nodes.iter().zip(0_u32..) {
        let extra = node.extra.as_deref();
        let (open, close) = match extra {
            Some(extra) if extra.approval.is_some() => ("{{", "}}"),
            Some(extra) if extra.child.is_some() => ("[[", "]]"),
            Some(extra) if extra.when.is_some() => ("{", "}"),
            _ if node.template.is_none() => ("([", "])"),
            _ => ("[", "]"),
        };
        let each = if extra.is_some_and(|extra| extra.foreach.is_some()) { " ×n" } else { "" };
        let name = node.name.replace('"', "#quot;");
        // Writing into a string cannot fail.
        let _ = writeln!(drawn, "    n{index}{open}\"{name}{each}\"{close}");
    }
    for (node, after) in definition.nodes.iter().zip(0_u32..) {
        for edge in &node.after {
            let arrow = match edge.on {
                On::Success | On::Order => "-->",
                On::Settled => "-->|any end|",
                On::Failure => "-.->|failure|",
            };
            let _ = writeln!(drawn, "    n{} {arrow} n{after}", edge.node);
        }
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read_text;

    fn check(file: &str, text_lines: &[&str], chart_lines: &[&str]) {
        let definition = read_text(file, &()).expect("valid");
        let drawn = text(&definition);
        assert_eq!(drawn.lines().collect::<Vec<_>>(), text_lines);
        let chart = mermaid(&definition);
        assert_eq!(chart.lines().map(str::trim).collect::<Vec<_>>(), chart_lines);
    }

    #[test]
    fn a_graph_with_everything() {
        let file = "version: 1\nname: ci\ntasks:\n  build: make\n  test: {run: x, needs: build, foreach: [1]}\n  \
                    clean: {run: y, on_failure: build}\n  ship: {needs: test, approval: true}\n";
        check(
            file,
            &[
                "ci (dag): 4 tasks in 3 levels",
                "1  build",
                "2  test   after build; for each item",
                "   clean  on failure of build",
                "3  ship   after test; approval",
            ],
            &[
                "flowchart TD",
                "n0[\"build\"]",
                "n1[\"test ×n\"]",
                "n2[\"clean\"]",
                "n3{{\"ship\"}}",
                "n0 --> n1",
                "n0 -.->|failure| n2",
                "n1 --> n3",
            ],
        );
    }

    #[test]
    fn one_after_the_other() {
        check(
            "version: 1\nmode: sequential\ntasks: [{name: a, run: x}, {name: b}]",
            &["workflow (sequential): 2 tasks in 2 levels", "1  a", "2  b  after, unless it fails, a"],
            &["flowchart TD", "n0[\"a\"]", "n1([\"b\"])", "n0 --> n1"],
        );
    }
}
