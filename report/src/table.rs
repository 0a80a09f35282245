//! Tables for a terminal of a given width. Columns that don't fit side by side go into another table below, which
//! repeats the first column.

use super::style::{Style, Tone};
use super::text::{clean, entry_text, fit};
use crate::view::coverage::Coverage;
use console::measure_text_width;
use std::ops::Range;

/// Maximum width of a column's title; texts may be wider.
const TITLE: usize = 32;

/// Rows of toned texts under titles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    titles: Vec<String>,
    rows: Vec<Vec<(Tone, String)>>,
}

impl Table {
    /// Returns a table without rows. Titles and texts are cleaned when they are added.
    pub fn new<T: AsRef<str>>(titles: impl IntoIterator<Item = T>) -> Table {
        let titles = titles
            .into_iter()
            .map(|title| clean(title.as_ref()).into_owned());
        Table {
            titles: titles.collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, texts: impl IntoIterator<Item = (Tone, String)>) {
        let texts = texts
            .into_iter()
            .map(|(tone, text)| (tone, clean(&text).into_owned()));
        self.rows.push(texts.collect());
    }

    /// Returns the table as lines.
    pub fn lines(&self, width: usize, style: Style) -> Vec<String> {
        let widths = self.widths(width);
        let first = widths.first().copied().unwrap_or(0);
        let mut lines = Vec::new();
        for columns in pages(&widths, width.saturating_sub(first)) {
            if !lines.is_empty() {
                lines.push(String::new());
            }
            let titles = self
                .titles
                .iter()
                .map(|title| (Tone::Plain, title.as_str()));
            let titles: Vec<_> = titles.collect();
            lines.push(style.paint(
                Tone::Strong,
                &line(&titles, &widths, &columns, Style::PLAIN),
            ));
            for row in &self.rows {
                let texts: Vec<_> = row
                    .iter()
                    .map(|(tone, text)| (*tone, text.as_str()))
                    .collect();
                lines.push(line(&texts, &widths, &columns, style));
            }
        }
        lines
    }

    /// Returns the widths of the columns. The first column leaves room for another one.
    fn widths(&self, width: usize) -> Vec<usize> {
        let widths = self.titles.iter().enumerate().map(|(index, title)| {
            let texts = self.rows.iter().filter_map(|row| row.get(index));
            let widest = texts
                .map(|(_, text)| measure_text_width(text))
                .max()
                .unwrap_or(0);
            let title = measure_text_width(title);
            match index {
                0 => widest.max(title).min((width * 3 / 5).max(16)),
                _ => widest.max(title.min(TITLE)),
            }
        });
        widths.collect()
    }
}

fn line(texts: &[(Tone, &str)], widths: &[usize], columns: &Range<usize>, style: Style) -> String {
    let mut line = String::new();
    for index in std::iter::once(0).chain(columns.clone()) {
        let (Some((tone, text)), Some(width)) = (texts.get(index), widths.get(index)) else {
            continue;
        };
        if index > 0 {
            line += "  ";
        }
        // Spaces stay outside the colour, so that the end of a line can be trimmed.
        let text = fit(text, *width);
        let shown = text.trim_end();
        line += &style.paint(*tone, shown);
        line += text.get(shown.len()..).unwrap_or_default();
    }
    line.trim_end().to_owned()
}

/// Splits the columns after the first into ranges that each fit into the width; each has at least one column.
fn pages(widths: &[usize], room: usize) -> Vec<Range<usize>> {
    let mut pages = Vec::new();
    let (mut start, mut used) = (1, 0);
    for (index, width) in widths.iter().enumerate().skip(1) {
        if index > start && used + width + 2 > room {
            pages.push(start..index);
            (start, used) = (index, 0);
        }
        used += width + 2;
    }
    if start < widths.len() || pages.is_empty() {
        pages.push(start..widths.len());
    }
    pages
}

/// Returns the coverage table, followed by the reasons to which it refers.
pub fn coverage_lines(coverage: &Coverage, style: Style, width: usize) -> Vec<String> {
    let reasons = coverage.reasons();
    let corner = match coverage.axis.as_str() {
        "" => "coverage".to_owned(),
        axis => format!("coverage by {axis}"),
    };
    let mut table = Table::new(std::iter::once(&corner).chain(&coverage.columns));
    for row in &coverage.rows {
        let entries = row.entries.iter();
        let entries = entries.map(|entry| (entry.state.into(), entry_text(entry, &reasons)));
        table.row(std::iter::once((Tone::Plain, row.title.clone())).chain(entries));
    }
    let mut lines = table.lines(width, style);
    for (index, reason) in reasons.iter().enumerate() {
        let note = format!("  [{}] {}", index + 1, clean(reason));
        lines.push(style.paint(Tone::Dim, &note));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_do_not_fit_follow_beneath_with_the_first_column_again() {
        let mut table = Table::new(["row", "one", "two"]);
        table.row(["a", "1234567890", "1234567890"].map(|text| (Tone::Plain, text.to_owned())));
        let lines = table.lines(20, Style::PLAIN);
        assert_eq!(
            lines,
            [
                "row  one",
                "a    1234567890",
                "",
                "row  two",
                "a    1234567890"
            ]
        );
    }
}
