//! Goes through a YAML text that is known to be right.

use saphyr_parser::{Event, Marker, Parser};

use super::position::{Finder, Position};

enum Open {
    List(usize),
    /// Whether a key has been read whose value comes next.
    Map(bool),
}

/// Shows every key and value to `finder`.
pub(super) fn walk(text: &str, finder: &mut Finder) {
    let mut parser = Parser::new_from_str(text);
    let mut open = Vec::new();
    while let Some(Ok((event, span))) = parser.next_event() {
        let position = || position(span.start);
        match &event {
            Event::Scalar(name, ..) if matches!(open.last(), Some(Open::Map(false))) => {
                finder.key(name, position);
                if let Some(Open::Map(has_key)) = open.last_mut() {
                    *has_key = true;
                }
                continue;
            }
            Event::Alias(_) if matches!(open.last(), Some(Open::Map(false))) => {
                finder.key("", position);
                if let Some(Open::Map(has_key)) = open.last_mut() {
                    *has_key = true;
                }
                continue;
            }
            Event::Scalar(..) | Event::Alias(_) => {
                begin(&open, finder);
                finder.value(position);
                end(&mut open, finder);
            }
            Event::SequenceStart(..) => {
                begin(&open, finder);
                finder.value(position);
                open.push(Open::List(0));
            }
            Event::MappingStart(..) => {
                begin(&open, finder);
                finder.value(position);
                open.push(Open::Map(false));
            }
            Event::SequenceEnd | Event::MappingEnd => {
                open.pop();
                end(&mut open, finder);
            }
            _ => {}
        }
    }
}

fn begin(open: &[Open], finder: &mut Finder) {
    if let Some(Open::List(index)) = open.last() {
        finder.index(*index);
    }
}

/// After a value: back from its key or index.
fn end(open: &mut [Open], finder: &mut Finder) {
    match open.last_mut() {
        Some(Open::List(index)) => {
            *index += 1;
            finder.leave();
        }
        Some(Open::Map(has_key)) => {
            *has_key = false;
            finder.leave();
        }
        None => {}
    }
}

fn position(at: Marker) -> Position {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    (number(at.line().max(1)), number(at.col() + 1))
}
