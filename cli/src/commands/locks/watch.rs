//! `locks --watch`: the same again whenever locks come, go or are waited for.

use std::time::{Duration, Instant};

use agentflow_protocol::locks::LockPage;
use console::Term;
use serde_json::Value;

use super::list::Shown;
use crate::client::Client;
use crate::error::Error;
use crate::event_log::{Event, EventLog, News};
use crate::output::{Output, Paint};

/// One long poll: short enough that proxies bear it. After it, renewed locks are seen too.
const POLL: Duration = Duration::from_secs(20);

/// Between two looks, at least: locks may come and go by the thousand.
const FRAME: Duration = Duration::from_millis(250);

/// Goes on until it is interrupted.
pub(super) fn watch(shown: &Shown, client: &Client, output: Output) -> Result<u8, Error> {
    // What changes from here on is looked at again.
    let mut log = EventLog::from_now(client)?;
    let mut screen = Screen { term: output.can_draw().then(Term::buffered_stdout), drawn: 0 };
    let mut before: Option<LockPage> = None;
    loop {
        let looked = Instant::now();
        let page = shown.read(client)?;
        if before.as_ref().is_none_or(|before| !is_same(before, &page)) || screen.term.is_some() {
            screen.show(shown, &page, output)?;
        }
        before = Some(page);
        while !concerns(&log.next(POLL)?, shown) {}
        std::thread::sleep(FRAME.saturating_sub(looked.elapsed()));
    }
}

/// Whether there is something to look at: silence is the time for it too.
fn concerns(news: &News, shown: &Shown) -> bool {
    let is_ours = |event: &Event| {
        let repo = event.data.get("repo").and_then(Value::as_str);
        event.kind.starts_with("lock.") && shown.repo.as_ref().is_none_or(|ours| repo == Some(ours.as_str()))
    };
    match news {
        News::Events(events) => events.is_empty() || events.iter().any(is_ours),
        News::Anew => true,
    }
}

fn is_same(before: &LockPage, page: &LockPage) -> bool {
    before.locks == page.locks && before.waiting == page.waiting
}

struct Screen {
    /// Where it is drawn over what was there.
    term: Option<Term>,
    /// Lines that are on the terminal.
    drawn: usize,
}

impl Screen {
    fn show(&mut self, shown: &Shown, page: &LockPage, output: Output) -> Result<(), Error> {
        if output.json {
            return output.json_line(page);
        }
        let mut lines = shown.lines(page, output);
        if lines.is_empty() {
            lines.push(output.paint(Paint::Faint, format!("nothing is locked{}", shown.whereabouts())));
        }
        let Some(term) = &self.term else {
            lines.push(String::new());
            return lines.iter().try_for_each(|line| output.line(line));
        };
        let (rows, columns) = term.size();
        // The cursor stands on the line below.
        let rows = usize::from(rows).saturating_sub(1).max(1);
        if lines.len() > rows {
            let more = lines.len() - rows + 1;
            lines.truncate(rows - 1);
            lines.push(output.paint(Paint::Faint, format!("… {more} lines more")));
        }
        if self.drawn > 0 {
            term.clear_last_lines(self.drawn)?;
        }
        for line in &lines {
            term.write_line(&console::truncate_str(line, columns.into(), "…"))?;
        }
        self.drawn = lines.len();
        Ok(term.flush()?)
    }
}
