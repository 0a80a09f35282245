//! A page of at most so many bytes: sections of whole rows and blocks, and a word about what was left out.

use crate::text::plural;

/// Bytes kept free in each section for the word about what was left out.
const WORD: usize = 240;

/// A Markdown page that grows section by section.
pub(super) struct Page {
    out: String,
    budget: usize,
    /// Where the rest can be found.
    more: String,
}

impl Page {
    pub(super) fn new(budget: usize, more: String) -> Page {
        Page {
            out: String::new(),
            budget,
            more,
        }
    }

    /// Adds the beginning of the page.
    pub(super) fn head(&mut self, text: &str) {
        if text.len() <= self.budget {
            self.out.push_str(text);
        }
    }

    /// Adds a table, which may fill the page up to this percentage. Without rows, nothing is added.
    pub(super) fn table(
        &mut self,
        percent: usize,
        title: &str,
        header: &str,
        rows: impl Iterator<Item = String>,
        noun: &str,
    ) {
        let head = format!("## {title}\n\n{header}");
        self.section(percent, &head, rows, noun);
    }

    /// Adds blocks below a title, which may fill the page up to this percentage.
    pub(super) fn blocks(
        &mut self,
        percent: usize,
        title: &str,
        blocks: impl Iterator<Item = String>,
        noun: &str,
    ) {
        self.section(percent, &format!("## {title}\n\n"), blocks, noun);
    }

    /// Adds lines, which may fill the page up to this percentage.
    pub(super) fn lines(
        &mut self,
        percent: usize,
        lines: impl Iterator<Item = String>,
        noun: &str,
    ) {
        self.section(percent, "", lines, noun);
    }

    fn section(
        &mut self,
        percent: usize,
        head: &str,
        items: impl Iterator<Item = String>,
        noun: &str,
    ) {
        let limit = self.budget / 100 * percent;
        let fits = |out: &String, text: &str| out.len() + text.len() + WORD <= limit;
        let (mut shown, mut left) = (0, 0);
        for item in items {
            let head = if shown == 0 { head } else { "" };
            // Once something is left out, so is the rest: its order says what matters.
            if left == 0 && fits(&self.out, &format!("{head}{item}")) {
                self.out.push_str(head);
                self.out.push_str(&item);
                shown += 1;
            } else {
                left += 1;
            }
        }
        if left > 0 {
            let text = format!(
                "\n… {} left out: the page may have {} bytes ({})\n",
                plural(left, noun),
                self.budget,
                self.more
            );
            if self.out.len() + text.len() < self.budget {
                self.out.push_str(&text);
            }
        }
        if shown + left > 0 && self.out.len() < self.budget {
            self.out.push('\n');
        }
    }

    pub(super) fn finish(self) -> String {
        self.out
    }
}
