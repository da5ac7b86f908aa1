//! A board as lines for a terminal of a certain size. Pure.
//!
//! One line for each node, with its parts below it. What does not fit is folded: first the parts of
//! the nodes with the most of them into counts, then the nodes that matter least into a last line.

use agentflow_core::run::RunStatus;
use agentflow_core::status::Status;
use agentflow_protocol::Timestamp;
use console::{measure_text_width, truncate_str};

use super::board::{Board, Line, Node, milliseconds, span};
use crate::output::{Output, Paint, printable};

/// Names are padded to the longest, but not beyond this.
const NAME: usize = 32;

/// What a spinner looks like, one after the other.
const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

/// Where the tree is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    /// Lines at most.
    pub(crate) rows: usize,
    /// Characters at most.
    pub(crate) columns: usize,
    /// The time.
    pub(crate) now: Timestamp,
    /// What keeps the master away, if anything does.
    pub(crate) away: Option<&'a str>,
}

/// Draws.
pub(crate) fn draw(board: &Board, frame: Frame<'_>, output: Output) -> Vec<String> {
    let rows = frame.rows.max(2) - 1;
    let chosen = chosen(board, rows);
    let with = |wanted: bool| {
        board.nodes.iter().zip(&chosen).filter(move |(_, chosen)| **chosen == wanted).map(|(node, _)| node)
    };
    let nodes: Vec<&Node> = with(true).collect();
    let hidden = board.nodes.len() - nodes.len();
    let open = unfolded(&nodes, rows - usize::from(hidden > 0));
    let names = nodes.iter().map(|node| measure_text_width(&node.line.name));
    let width = names.max().unwrap_or_default().min(NAME);
    let drawing = Drawing { frame, output, width };
    let mut lines = vec![drawing.head(board)];
    for (node, is_open) in nodes.iter().zip(open) {
        let count = if is_open || node.parts.is_empty() { None } else { Some(counts(&node.parts)) };
        lines.push(drawing.line(&node.line, "", count));
        if is_open {
            lines.extend(node.parts.iter().map(|part| drawing.line(part, "  ", None)));
        }
    }
    if hidden > 0 {
        let rest = counts(with(false).map(|node| &node.line));
        lines.push(output.paint(Paint::Faint, format!("… {hidden} more: {rest}")));
    }
    let cut = |line: String| truncate_str(&line, frame.columns.max(2) - 1, "…").into_owned();
    lines.into_iter().map(cut).collect()
}

/// Which nodes are shown: if not all fit, those that matter most.
fn chosen(board: &Board, rows: usize) -> Vec<bool> {
    if board.nodes.len() <= rows {
        return vec![true; board.nodes.len()];
    }
    // One row says what is left out.
    let mut room = rows.saturating_sub(1);
    let mut chosen = vec![false; board.nodes.len()];
    for rank in 0..=4 {
        let alike = board.nodes.iter().zip(&mut chosen).filter(|(node, _)| rank_of(&node.line) == rank);
        for (_, chosen) in alike.take(room) {
            *chosen = true;
            room -= 1;
        }
    }
    chosen
}

/// The smaller, the more a node matters.
fn rank_of(line: &Line) -> usize {
    match line.status {
        Status::Failed => 0,
        Status::Running => 1,
        Status::Pending => 2,
        Status::Blocked => 3,
        Status::Completed | Status::Cancelled | Status::Skipped => 4,
    }
}

/// Which nodes show their parts: those with the fewest first, as far as there is room.
fn unfolded(nodes: &[&Node], rows: usize) -> Vec<bool> {
    let mut room = rows.saturating_sub(nodes.len());
    let mut order: Vec<usize> = (0..nodes.len()).filter(|index| !nodes[*index].parts.is_empty()).collect();
    order.sort_by_key(|index| nodes[*index].parts.len());
    let mut open = vec![false; nodes.len()];
    for index in order {
        let parts = nodes[index].parts.len();
        if parts > room {
            break;
        }
        room -= parts;
        open[index] = true;
    }
    open
}

/// `7 of 20 done, 1 failed, 4 running`.
fn counts<'a>(lines: impl IntoIterator<Item = &'a Line>) -> String {
    let (mut all, mut settled, mut failed, mut running) = (0, 0, 0, 0);
    for line in lines {
        all += 1;
        settled += usize::from(line.status.is_settled());
        failed += usize::from(line.status == Status::Failed);
        running += usize::from(line.status == Status::Running);
    }
    let mut text = format!("{settled} of {all} done");
    for (count, word) in [(failed, "failed"), (running, "running")] {
        if count > 0 {
            text.push_str(&format!(", {count} {word}"));
        }
    }
    text
}

struct Drawing<'a> {
    frame: Frame<'a>,
    output: Output,
    width: usize,
}

impl Drawing<'_> {
    fn head(&self, board: &Board) -> String {
        let done = board.nodes.iter().filter(|node| node.line.status.is_settled()).count();
        let took = span(milliseconds(board.began, board.ended.unwrap_or(self.frame.now)));
        let name = printable(&board.name);
        let text = format!("run {} {name}", board.run);
        let status = match board.status {
            RunStatus::Completed => self.output.paint(Paint::Good, board.status),
            RunStatus::Failed => self.output.paint(Paint::Bad, board.status),
            RunStatus::Cancelled | RunStatus::Paused => self.output.paint(Paint::Odd, board.status),
            RunStatus::Pending | RunStatus::Running => self.output.paint(Paint::Busy, board.status),
        };
        let mut head = format!(
            "{}  {status}  {done} of {} done  {took}",
            self.output.paint(Paint::Head, text),
            board.nodes.len()
        );
        if let Some(away) = self.frame.away {
            head.push_str(&format!("  {}", self.output.paint(Paint::Odd, away)));
        }
        head
    }

    fn line(&self, line: &Line, indent: &str, count: Option<String>) -> String {
        let mark = self.mark(line.status);
        let name = printable(&line.name);
        let name = truncate_str(&name, NAME, "…");
        let width = self.width.saturating_sub(indent.len());
        let pad = " ".repeat(width.saturating_sub(measure_text_width(&name)));
        let time = line.milliseconds(self.frame.now).map(span).unwrap_or_default();
        let text = match (count, line.note.is_empty()) {
            (Some(count), _) => count,
            (None, false) => self.note(line),
            (None, true) => self.output.paint(Paint::Faint, printable(&line.last)),
        };
        format!("{indent}{mark} {name}{pad}  {time:>9}  {text}").trim_end().to_owned()
    }

    fn note(&self, line: &Line) -> String {
        let text = printable(line.note.lines().next().unwrap_or_default());
        match line.status {
            Status::Failed => self.output.paint(Paint::Bad, text),
            Status::Skipped | Status::Cancelled => self.output.paint(Paint::Faint, text),
            _ => self.output.paint(Paint::Odd, text),
        }
    }

    fn mark(&self, status: Status) -> String {
        let mark = match status {
            Status::Blocked | Status::Pending => "·",
            Status::Running => self.spinner(),
            Status::Completed => "✔",
            Status::Failed => "✘",
            Status::Cancelled => "■",
            Status::Skipped => "–",
        };
        Paint::of(status).map_or_else(|| mark.to_owned(), |paint| self.output.paint(paint, mark))
    }

    fn spinner(&self) -> &'static str {
        let tenths = usize::try_from(self.frame.now.0.0 / 100_000).unwrap_or_default();
        SPINNER.get(tenths % SPINNER.len()).copied().unwrap_or("·")
    }
}

#[cfg(test)]
mod tests {
    use agentflow_core::time::Wall;
    use serde_json::json;

    use super::super::Event;
    use super::super::board::tests::{board, event};
    use super::*;

    fn check(board: &Board, rows: usize, columns: usize, expect: &[&str]) {
        let frame = Frame { rows, columns, now: Timestamp(Wall(10_000_000)), away: None };
        assert_eq!(draw(board, frame, Output::detect(true)), expect);
    }

    fn items(count: u64) -> Vec<Event> {
        let made = (0..count).map(|item| {
            let name = format!("each[{item}]");
            event(1, &format!("task:{}", 10 + item), "task.created", json!({"run": 5, "node": name}))
        });
        let mut events: Vec<Event> = made.collect();
        events.push(event(1, "run:5", "run.started", json!({})));
        events.push(event(2, "task:1", "task.started", json!({"attempt": 1})));
        events.push(event(2, "task:10", "task.started", json!({"attempt": 1})));
        events.push(event(5, "task:10", "task.failed", json!({"error": "exit code 1"})));
        events.push(event(4, "task:11", "task.started", json!({"attempt": 1})));
        events
    }

    #[test]
    fn one_line_for_each_node() {
        let mut board = board(&["each", "a-long-one"], &items(2));
        board.set_last(11, "line 7\x1b[2J".to_owned());
        check(
            &board,
            24,
            80,
            &[
                "run 5 ci  running  0 of 2 done  10.0 s",
                "⠋ each            8.0 s",
                "  ✘ each[0]       3.0 s  exit code 1",
                "  ⠋ each[1]       6.0 s  line 7[2J",
                "· a-long-one",
            ],
        );
        check(
            &board,
            24,
            20,
            &[
                "run 5 ci  running …",
                "⠋ each            …",
                "  ✘ each[0]       …",
                "  ⠋ each[1]       …",
                "· a-long-one",
            ],
        );
    }

    #[test]
    fn parts_are_folded_before_nodes_are() {
        let board = board(&["each", "b"], &items(5));
        let head = "run 5 ci  running  0 of 2 done  10.0 s";
        check(&board, 7, 80, &[head, "⠋ each      8.0 s  1 of 5 done, 1 failed, 1 running", "· b"]);
        check(
            &board,
            8,
            80,
            &[
                head,
                "⠋ each      8.0 s",
                "  ✘ each[0]      3.0 s  exit code 1",
                "  ⠋ each[1]      6.0 s",
                "  · each[2]",
                "  · each[3]",
                "  · each[4]",
                "· b",
            ],
        );
    }

    #[test]
    fn what_matters_least_is_left_out() {
        let events = [
            event(1, "task:1", "task.completed", json!({})),
            event(1, "task:2", "task.completed", json!({})),
            event(1, "task:4", "task.started", json!({"attempt": 1})),
            event(1, "task:5", "task.failed", json!({"error": "no"})),
        ];
        let board = board(&["a", "b", "c", "d", "e", "f"], &events);
        check(
            &board,
            5,
            80,
            &[
                "run 5 ci  pending  3 of 6 done  10.0 s",
                "· c",
                "⠋ d      9.0 s",
                "✘ e             no",
                "… 3 more: 2 of 3 done",
            ],
        );
        check(
            &board,
            2,
            80,
            &["run 5 ci  pending  3 of 6 done  10.0 s", "… 6 more: 3 of 6 done, 1 failed, 1 running"],
        );
    }

    #[test]
    fn a_master_that_is_away_is_said_in_the_head() {
        let board = board(&["a"], &[]);
        let frame = Frame { rows: 9, columns: 80, now: Timestamp(Wall(0)), away: Some("no answer") };
        assert_eq!(
            draw(&board, frame, Output::detect(true))[0],
            "run 5 ci  pending  0 of 1 done  0.0 s  no answer"
        );
    }
}
