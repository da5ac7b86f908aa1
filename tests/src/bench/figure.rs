//! One measured number, what it is compared with, and how it is shown.

use serde::Serialize;

/// A result.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figure {
    /// What was measured.
    pub measure: String,
    /// The number.
    pub figure: f64,
    /// Of what.
    pub unit: &'static str,
    /// The number in terms of something measured in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Ratio>,
    /// What issue and design ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// What an acknowledged write survived meanwhile.
    pub durability: &'static str,
    /// What a reader must know to judge it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Makes it again.
    pub command: String,
}

/// A number in terms of another.
#[derive(Clone, Debug, Serialize)]
pub struct Ratio {
    /// How many.
    pub value: f64,
    /// Times what.
    pub of: &'static str,
}

/// A bound and whether it holds.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    /// As it was written.
    pub text: String,
    /// Whether the figure keeps it.
    pub met: bool,
}

impl Figure {
    /// A number without comparison.
    pub(super) fn new(measure: &str, figure: f64, unit: &'static str) -> Self {
        Self { measure: measure.to_owned(), figure, unit, ..Self::default() }
    }

    /// In terms of something of the same run.
    pub(super) fn ratio(mut self, value: f64, of: &'static str) -> Self {
        self.ratio = Some(Ratio { value, of });
        self
    }

    /// What it should be.
    pub(super) fn target(mut self, text: impl Into<String>, met: bool) -> Self {
        self.target = Some(Target { text: text.into(), met });
        self
    }

    /// What must be known.
    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// The middle one; of an even number, the upper of the two.
pub(super) fn median(values: &[f64]) -> f64 {
    percentile(values, 50.0)
}

/// The value that so many of a hundred do not exceed. 0 when there are none.
pub(super) fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() as f64 * percent / 100.0) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// `fewest to most`, for notes.
pub(super) fn range(values: &[f64]) -> String {
    format!("{} to {}", short(percentile(values, 0.0)), short(percentile(values, 100.0)))
}

fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// For people, and for Markdown pages.
#[must_use]
pub fn table(figures: &[Figure]) -> String {
    let head = ["measure", "figure", "ratio", "target", "", "durability"].map(str::to_owned);
    let mut rows = vec![head];
    for figure in figures {
        let ratio = figure.ratio.as_ref().map(|ratio| format!("{} × {}", short(ratio.value), ratio.of));
        let (target, met) = match &figure.target {
            Some(target) => (target.text.clone(), if target.met { "met" } else { "missed" }),
            None => (String::new(), ""),
        };
        rows.push([
            figure.measure.clone(),
            format!("{} {}", short(figure.figure), figure.unit),
            ratio.unwrap_or_default(),
            target,
            met.to_owned(),
            figure.durability.to_owned(),
        ]);
    }
    let widths: Vec<usize> =
        (0..6).map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!("| {cell:width$} "));
        }
        text.push_str("|\n");
        if number == 0 {
            for width in &widths {
                text.push_str(&format!("|{}", "-".repeat(width + 2)));
            }
            text.push_str("|\n");
        }
    }
    for figure in figures.iter().filter(|figure| !figure.note.is_empty()) {
        text.push_str(&format!("\n- {}: {}", figure.measure, figure.note));
    }
    let mut commands: Vec<&str> = figures.iter().map(|figure| figure.command.as_str()).collect();
    commands.dedup();
    text.push_str("\n\nMade with\n");
    for command in commands {
        text.push_str(&format!("    {command}\n"));
    }
    text
}

/// For programs.
#[must_use]
pub fn json(figures: &[Figure]) -> String {
    let parallelism = std::thread::available_parallelism().map_or(1, usize::from);
    let document = serde_json::json!({
        "cores": parallelism,
        "profile": crate::harness::profile(),
        "figures": figures,
    });
    format!("{document:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_few_and_none() {
        assert_eq!(percentile(&[], 50.0), 0.0);
        assert_eq!(percentile(&[3.0, 1.0, 2.0], 0.0), 1.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(percentile(&[3.0, 1.0, 2.0], 100.0), 3.0);
    }

    #[test]
    fn a_table_says_everything() {
        let figure = Figure { command: "cargo run".to_owned(), ..Figure::new("rate", 12_345.6, "tasks/s") };
        let text = table(&[figure.ratio(0.5, "the unit").target("≥ 10", true).note("why")]);
        for part in ["rate", "12346 tasks/s", "0.500 × the unit", "≥ 10", "met", "- rate: why", "cargo run"]
        {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }
}
