//! Figures of several contestants that go through the same steps, side by side in a table.

use std::fmt::Write as _;

/// What was measured of one of them, in the order of the steps.
pub(crate) struct Figures {
    pub(crate) of: String,
    rows: Vec<Figure>,
}

struct Figure {
    name: String,
    value: f64,
    text: String,
}

impl Figures {
    pub(crate) fn new(of: String) -> Self {
        Self { of, rows: Vec::new() }
    }

    pub(crate) fn note(&mut self, name: &str, value: f64) {
        let text = if value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") };
        self.add(name, value, text);
    }

    /// Notes the median of several values, with the least and the most of them.
    pub(crate) fn note_median(&mut self, name: &str, mut values: Vec<f64>) {
        values.sort_unstable_by(f64::total_cmp);
        let median = values[values.len() / 2];
        let (least, most) = (values[0], values[values.len() - 1]);
        self.add(name, median, format!("{median:.0} ({least:.0} to {most:.0})"));
    }

    fn add(&mut self, name: &str, value: f64, text: String) {
        println!("{}: {name}: {text}", self.of);
        self.rows.push(Figure { name: name.to_owned(), value, text });
    }
}

/// A table with a column for each, and one for the ratio of the last to the first.
pub(crate) fn table(head: &str, all: &[&Figures]) -> String {
    let heads: Vec<&str> = all.iter().map(|it| it.of.as_str()).collect();
    let mut table = format!("| {head} | {} | last to first |\n", heads.join(" | "));
    writeln!(table, "| --- |{} --- |", " --- |".repeat(all.len())).unwrap();
    for (at, Figure { name, value, .. }) in all[0].rows.iter().enumerate() {
        let texts: Vec<&str> = all.iter().map(|it| it.rows[at].text.as_str()).collect();
        let ratio = all[all.len() - 1].rows[at].value / value;
        let ratio = if *value == 0.0 { String::new() } else { format!("{ratio:.2}") };
        writeln!(table, "| {name} | {} | {ratio} |", texts.join(" | ")).unwrap();
    }
    table
}
