//! What people and programs read: tables, colours, JSON.
//!
//! Everything for standard output goes through here, so that a closed pipe ends the command
//! quietly and colours appear on terminals only.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Write};

use agentflow_core::run::RunStatus;
use agentflow_core::status::Status;
use agentflow_protocol::Timestamp;
use serde::Serialize;

use crate::clock::now;
use crate::error::Error;

/// Lines of a failed task's output that are shown with it.
const TAIL_LINES: usize = 20;

/// Characters of a title in a table on a terminal.
const TITLE_CHARS: usize = 60;

/// Bytes of a value that a terminal shows, about a screen: a result may have 64 MiB.
const VALUE_BYTES: usize = 4_000;

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// JSON instead of text.
    pub(crate) json: bool,
    colour: bool,
    terminal: bool,
}

/// A colour by its meaning.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    Good,
    Bad,
    Odd,
    Busy,
    Faint,
    Head,
}

impl Paint {
    fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Bad => "31",
            Self::Odd => "33",
            Self::Busy => "36",
            Self::Faint => "2",
            Self::Head => "1",
        }
    }

    /// That of a status, if it has one.
    pub(crate) fn of(status: Status) -> Option<Self> {
        match status {
            Status::Completed => Some(Self::Good),
            Status::Failed => Some(Self::Bad),
            Status::Cancelled | Status::Skipped => Some(Self::Odd),
            Status::Running => Some(Self::Busy),
            Status::Blocked | Status::Pending => None,
        }
    }

    /// That of a run's status, if it has one.
    pub(crate) fn of_run(status: RunStatus) -> Option<Self> {
        match status {
            RunStatus::Completed => Some(Self::Good),
            RunStatus::Failed => Some(Self::Bad),
            RunStatus::Cancelled | RunStatus::Paused => Some(Self::Odd),
            RunStatus::Running => Some(Self::Busy),
            RunStatus::Pending => None,
        }
    }
}

/// One field of a table.
pub(crate) struct Cell {
    text: String,
    paint: Option<Paint>,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), paint: None }
    }
}

impl Cell {
    /// Any text in a colour.
    pub(crate) fn painted(text: impl Into<String>, paint: Option<Paint>) -> Self {
        Self { text: text.into(), paint }
    }

    /// A status in its colour.
    pub(crate) fn status(status: Status) -> Self {
        Self { text: status.word().to_owned(), paint: Paint::of(status) }
    }

    /// A run's status in its colour.
    pub(crate) fn run(status: RunStatus) -> Self {
        Self { text: status.word().to_owned(), paint: Paint::of_run(status) }
    }

    /// A worker's status in its colour.
    pub(crate) fn worker(status: &str) -> Self {
        let paint = match status {
            "online" => Some(Paint::Good),
            "offline" => Some(Paint::Bad),
            _ => Some(Paint::Odd),
        };
        Self { text: status.to_owned(), paint }
    }
}

impl Output {
    /// Looks at standard output and the environment.
    pub(crate) fn detect(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        Self { json, colour: terminal && !is_plain() && !json, terminal }
    }

    /// The same for standard error, for what is drawn there.
    pub(crate) fn of_standard_error() -> Self {
        let terminal = io::stderr().is_terminal();
        Self { json: false, colour: terminal && !is_plain(), terminal }
    }

    /// Whether it goes to a terminal on which things can be drawn.
    pub(crate) fn can_draw(self) -> bool {
        self.terminal && !self.json && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    }

    /// One line.
    pub(crate) fn line(self, text: impl Display) -> Result<(), Error> {
        Ok(writeln!(io::stdout().lock(), "{text}")?)
    }

    /// Bytes as they are.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<(), Error> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        Ok(stdout.flush()?)
    }

    /// One JSON value: readable on a terminal, one line in a pipe.
    pub(crate) fn json(self, value: &impl Serialize) -> Result<(), Error> {
        let text =
            if self.terminal { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
        self.line(text.map_err(io::Error::from)?)
    }

    /// One JSON value on one line, for streams.
    pub(crate) fn json_line(self, value: &impl Serialize) -> Result<(), Error> {
        self.line(serde_json::to_string(value).map_err(io::Error::from)?)
    }

    /// The text in that colour, where there are colours.
    pub(crate) fn paint(self, paint: Paint, text: impl Display) -> String {
        if self.colour { format!("\x1b[{}m{text}\x1b[0m", paint.code()) } else { text.to_string() }
    }

    /// A status, padded to the longest of them.
    pub(crate) fn status(self, status: Status) -> String {
        let text = format!("{:<9}", status.word());
        Paint::of(status).map_or(text.clone(), |paint| self.paint(paint, text))
    }

    /// The status of a run, padded to the longest of them.
    pub(crate) fn run_status(self, status: RunStatus) -> String {
        let text = format!("{:<9}", status.word());
        Paint::of_run(status).map_or(text.clone(), |paint| self.paint(paint, text))
    }

    /// A title, cut to what a table line bears.
    pub(crate) fn title(self, title: &str) -> String {
        let line = printable(title.lines().next().unwrap_or_default());
        if !self.terminal || line.chars().count() <= TITLE_CHARS {
            return line;
        }
        let mut cut: String = line.chars().take(TITLE_CHARS - 1).collect();
        cut.push('…');
        cut
    }

    /// A table with aligned columns; the last column is not padded.
    pub(crate) fn table(self, head: &[&str], rows: &[Vec<Cell>]) -> Result<(), Error> {
        let mut stdout = BufWriter::new(io::stdout().lock());
        for line in self.table_lines(head, rows) {
            writeln!(stdout, "{line}")?;
        }
        Ok(stdout.flush()?)
    }

    /// The lines of a table.
    pub(crate) fn table_lines(self, head: &[&str], rows: &[Vec<Cell>]) -> Vec<String> {
        let mut widths: Vec<usize> = head.iter().map(|name| name.len()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        let last = head.len().saturating_sub(1);
        let pad = |column: usize, text: &str| match widths.get(column) {
            Some(width) if column < last => " ".repeat(width.saturating_sub(text.chars().count()) + 2),
            _ => String::new(),
        };
        let names = head.iter().enumerate();
        let names =
            names.map(|(column, name)| format!("{}{}", self.paint(Paint::Head, name), pad(column, name)));
        let line = |row: &Vec<Cell>| {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let text = printable(&cell.text);
                let shown = cell.paint.map_or(text.clone(), |paint| self.paint(paint, &text));
                format!("{shown}{}", pad(column, &text))
            });
            cells.collect()
        };
        std::iter::once(names.collect()).chain(rows.iter().map(line)).collect()
    }

    /// Names and values, one a line; on a terminal of a long value its beginning.
    pub(crate) fn fields(self, fields: &[(&str, String)]) -> Result<(), Error> {
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        for (name, value) in fields {
            let shown = if self.terminal { beginning(value) } else { value };
            let mut lines = shown.lines();
            let first = printable(lines.next().unwrap_or_default());
            let name = printable(name);
            self.line(format_args!("{}  {first}", self.paint(Paint::Faint, format!("{name:<width$}"))))?;
            for line in lines {
                self.line(format_args!("{:<width$}  {}", "", printable(line)))?;
            }
            if shown.len() < value.len() {
                let rest = format!("… {} bytes in all: --json shows them", value.len());
                self.line(format_args!("{:<width$}  {}", "", self.paint(Paint::Faint, rest)))?;
            }
        }
        Ok(())
    }

    /// The end of an output, indented below the line of its task.
    pub(crate) fn tail(self, text: &str) -> Vec<String> {
        let lines: Vec<&str> = text.lines().collect();
        let skipped = lines.len().saturating_sub(TAIL_LINES);
        let bar = self.paint(Paint::Faint, "|");
        let mut shown = Vec::new();
        if skipped > 0 {
            shown.push(format!("    {bar} … {skipped} lines above"));
        }
        shown.extend(lines.iter().skip(skipped).map(|line| format!("    {bar} {}", printable(line))));
        shown
    }
}

/// Whether the environment wants no colours.
fn is_plain() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// As much of a value as a screen holds, whole characters.
fn beginning(value: &str) -> &str {
    &value[..value.floor_char_boundary(VALUE_BYTES)]
}

/// The text without control characters: a title must not move the cursor of who lists it.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\t').collect()
}

/// How long ago, in one unit.
pub(crate) fn age(time: Timestamp) -> String {
    let seconds = |time: Timestamp| u64::try_from(time.0.0 / 1_000_000).unwrap_or(0);
    span(seconds(now()).saturating_sub(seconds(time)))
}

/// A time in its largest whole unit.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Output = Output { json: false, colour: false, terminal: false };

    #[test]
    fn a_tail_is_cut_and_clean() {
        let text: String = (0..30).map(|i| format!("line {i}\x1b[31m\n")).collect();
        let lines = PLAIN.tail(&text);
        assert_eq!(lines.len(), TAIL_LINES + 1);
        assert_eq!(lines[0], "    | … 10 lines above");
        assert_eq!(lines[1], "    | line 10[31m");
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        assert_eq!(beginning("short"), "short");
        assert_eq!(beginning(&"x".repeat(VALUE_BYTES)).len(), VALUE_BYTES);
        let cut = beginning(&format!("x{}", "é".repeat(VALUE_BYTES))).to_owned();
        assert_eq!(cut.len(), VALUE_BYTES - 1, "the last character does not fit");
    }

    #[test]
    fn colours_are_for_terminals() {
        assert_eq!(PLAIN.status(Status::Failed), "failed   ");
        let colour = Output { colour: true, ..PLAIN };
        assert_eq!(colour.status(Status::Failed), "\x1b[31mfailed   \x1b[0m");
    }

    #[test]
    fn spans() {
        assert_eq!([5, 119, 120, 7_200, 200_000].map(span), ["5s", "119s", "2m", "2h", "2d"]);
    }
}
