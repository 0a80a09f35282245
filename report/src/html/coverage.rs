//! The coverage table.

use super::mark::{Mark, first_line, icon};
use crate::text::{clean, entry_text, plural};
use crate::view::coverage::Coverage;
use maud::{Markup, html};

/// Rows of the table.
const ROWS: usize = 1_000;
/// Fields of the table; with many rows, it has fewer columns.
const FIELDS: usize = 50_000;
/// Reasons that the table refers to.
const REASONS: usize = 200;

/// Returns the section with the table, the reasons that it refers to, and what only earlier runs verified.
pub fn section(table: &Coverage, unverified: &[String]) -> Markup {
    let reasons = table.reasons();
    let rows = table.rows.len().min(ROWS);
    let columns = table.columns.len().min(FIELDS / rows.max(1));
    let left_out = (table.rows.len() - rows, table.columns.len() - columns);
    html! {
        section id="coverage" aria-labelledby="coverage-title" {
            h2 id="coverage-title" { "Coverage" @if !table.axis.is_empty() { span class="quiet" { " by " (clean(&table.axis)) } } }
            div class="scroll" { table class="coverage" {
                thead { tr { th scope="col" { "what is verified" } @for column in table.columns.iter().take(columns) { th scope="col" { (clean(column)) } } } }
                tbody { @for row in table.rows.iter().take(rows) { tr {
                    th scope="row" { (clean(&row.title)) }
                    @for entry in row.entries.iter().take(columns) {
                        @let mark = Mark::of_coverage(entry.state);
                        td class=(mark.map_or("absent", Mark::class)) {
                            @if let Some(mark) = mark { (icon(mark)) " " }
                            (entry_text(entry, &reasons))
                        }
                    }
                } } }
            } }
            @if left_out != (0, 0) {
                p class="quiet" { (plural(left_out.0, "more row")) " and " (plural(left_out.1, "more column")) " not shown: the JSON report has all of them." }
            }
            @if !reasons.is_empty() {
                ol class="reasons" { @for reason in reasons.iter().take(REASONS) { li { (first_line(reason)) } } }
            }
            @if reasons.len() > REASONS { p class="quiet" { (plural(reasons.len() - REASONS, "more reason")) " not listed." } }
            @for line in unverified { p class="warn" { (clean(line)) } }
        }
    }
}
