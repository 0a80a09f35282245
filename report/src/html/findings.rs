//! The findings: what went wrong, in which cells, and where to look first.

use super::cell::failure;
use super::mark::{Links, Mark, first_line, icon};
use crate::finding::{
    Cause, Differing, Evidence, Explained, Finding, Findings, Nearest, Slow, sentence,
};
use crate::text::{clean, plural};
use crate::view::{CellView, RunView};
use maud::{Markup, html};
use std::collections::HashSet;

/// Findings that are shown at once; the others open together.
const FIRST: usize = 5;
/// Findings shown with the details of their failure.
const IN_FULL: usize = 20;
/// Maximum number of findings on the page.
const MOST: usize = 200;
/// Ranges of cells up to which the cells of a finding are outlined in the grid while it is pointed at.
const OUTLINED: usize = 500;
/// Cells of a finding that are named.
const NAMED: usize = 6;
/// Flakes and slow steps that are listed.
const LISTED: usize = 10;
/// Differences to the nearest green cell that are listed.
const DIVERGENCES: usize = 6;

/// Returns the section with all findings.
pub fn section(view: &RunView, findings: &Findings, links: &Links) -> Markup {
    let items = &findings.findings;
    let most = items.len().min(MOST);
    let not_listed = items.len() - most + findings.left_out;
    let mut seen = HashSet::new();
    // Findings may share an id; an element of a page can't.
    let anchors: Vec<Option<&str>> = items
        .iter()
        .map(|finding| Some(finding.id.as_str()).filter(|id| seen.insert(*id)))
        .collect();
    let one = |index: usize| match items.get(index) {
        Some(finding) => item(
            view,
            finding,
            links,
            index,
            anchors.get(index).copied().flatten(),
        ),
        None => html! {},
    };
    html! {
        section id="findings" aria-labelledby="findings-title" {
            h2 id="findings-title" { "Findings" }
            @if items.is_empty() { p class="quiet" { @if view.outcome.is_some() { "Nothing failed." } @else { "Nothing has failed so far." } } }
            ol class="findings" { @for index in 0..most.min(FIRST) { (one(index)) } }
            @if most > FIRST {
                details class="more" { summary { (plural(items.len() - FIRST, "more finding")) }
                    ol class="findings" start=(FIRST + 1) { @for index in FIRST..most { (one(index)) } }
                    @if not_listed > 0 { p class="quiet" { (plural(not_listed, "finding")) " not listed." } }
                }
            }
            (flaky(findings))
            (slow(&findings.slow))
        }
    }
}

/// Returns the axes of the rules, those of the first finding first: they tell red cells from green ones.
pub fn axes(findings: &Findings) -> Vec<&str> {
    let rules = findings
        .findings
        .iter()
        .filter_map(|finding| match &finding.explained {
            Explained::Rules { rules, .. } => Some(rules),
            _ => None,
        });
    let terms = rules.flatten().flat_map(|rule| &rule.terms);
    let mut axes: Vec<&str> = Vec::new();
    for term in terms {
        if !axes.contains(&term.axis.as_str()) {
            axes.push(&term.axis);
        }
    }
    axes
}

fn item(
    view: &RunView,
    finding: &Finding,
    links: &Links,
    index: usize,
    anchor: Option<&str>,
) -> Markup {
    let Some(example) = finding.cell(view) else {
        return html! {};
    };
    let step = finding.step(view);
    let href = match step {
        Some(step) => links.step(&example.id, &step.path),
        None => links.cell(&example.id),
    };
    let title = match finding.cause {
        Cause::Cell => first_line(&finding.reason),
        _ => clean(&sentence::subject(finding)).into_owned(),
    };
    html! {
        li data-cells=[ranges(&finding.cells)] id=[anchor.map(|id| format!("f-{id}"))] {
            h3 { (icon(finding.outcome.into())) a href=(href) { (title) }
                span class="count" { (finding.cells.len()) " of " (plural(finding.compared, "cell")) } }
            (rules(view, finding, links))
            p class="reason" { (first_line(&finding.reason)) }
            (consequences(finding))
            @if let Some(nearest) = &finding.nearest { (parting(view, nearest, links)) }
            details class="cells" { summary { "Cells" @if index < IN_FULL && step.is_some() { " and details" } }
                p { (named(view, &finding.cells, links)) }
                @if finding.forms > 1 { p class="quiet" { (plural(finding.forms, "form")) " that differ in numbers or texts" } }
                @if let Some(step) = step.filter(|_| index < IN_FULL) {
                    h4 { "in " (clean(&example.name)) }
                    (failure(step))
                }
            }
        }
    }
}

fn rules(view: &RunView, finding: &Finding, links: &Links) -> Markup {
    let Explained::Rules { rules, outside } = &finding.explained else {
        return html! { p class="rule-text" { (clean(&sentence::explained(finding))) } };
    };
    html! {
        @for (index, rule) in rules.iter().enumerate() {
            @let terms = sentence::terms(&rule.terms);
            @let whole = sentence::rule(rule);
            p class="rule-text" {
                strong { (clean(&terms)) } (clean(whole.strip_prefix(&terms).unwrap_or(&whole)))
                @if index + 1 == rules.len() { span class="quiet" { @match outside { 0 => ", and no other", more => { ", and " (more) " other" } } } }
                @if !rule.counterexamples.is_empty() { span class="quiet" { "; not in " (named(view, &rule.counterexamples, links)) } }
            }
        }
    }
}

fn consequences(finding: &Finding) -> Markup {
    html! {
        @if let Some(follows) = finding.follows {
            p class="quiet" {
                @match follows.evidence { Evidence::Cells => "Follows", Evidence::Order => "May follow" }
                " from finding " (follows.finding + 1) "."
            }
        }
        @if let Some(stopped) = sentence::stopped(finding) { p class="quiet" { (stopped) "." } }
    }
}

/// Returns the nearest green cell and where it parts from the red one.
fn parting(view: &RunView, nearest: &Nearest, links: &Links) -> Markup {
    let Some(green) = view.cells.get(nearest.green) else {
        return html! {};
    };
    html! {
        p class="nearest" {
            (icon(Mark::of_cell(green))) " nearest green: " a href=(links.cell(&green.id)) { (clean(&green.name)) }
            @if !nearest.differs.is_empty() { span class="quiet" { " – " (differing(&nearest.differs)) } }
        }
        @if !nearest.divergences.is_empty() {
            details class="divergences" {
                summary { "Where the two part" }
                ol { @for divergence in nearest.divergences.iter().take(DIVERGENCES) { li { (clean(&sentence::divergence(divergence))) } } }
            }
        }
    }
}

fn differing(differs: &[Differing]) -> String {
    let value = |value: &Option<serde_json::Value>| {
        value
            .as_ref()
            .map_or_else(|| "none".to_owned(), sentence::value)
    };
    let parts: Vec<String> = differs
        .iter()
        .map(|axis| {
            format!(
                "{}={} instead of {}",
                axis.axis,
                value(&axis.green),
                value(&axis.red)
            )
        })
        .collect();
    clean(&parts.join(", ")).into_owned()
}

fn flaky(findings: &Findings) -> Markup {
    html! {
        @if !findings.flakes.is_empty() {
            h3 class="sub" { "Flaky" }
            ul class="plain" { @for flake in findings.flakes.iter().take(LISTED) {
                li data-cells=[ranges(&flake.cells)] { (icon(Mark::Flaky)) " " (clean(&sentence::flake(flake))) }
            } }
            (not_listed(findings.flakes.len()))
        }
    }
}

fn slow(slow: &[Slow]) -> Markup {
    html! {
        @if !slow.is_empty() {
            h3 class="sub" { "Slower" }
            ul class="plain" { @for slow in slow.iter().take(LISTED) { li { (clean(&sentence::slow(slow))) } } }
            (not_listed(slow.len()))
        }
    }
}

fn not_listed(count: usize) -> Markup {
    html! { @if count > LISTED { p class="quiet" { (count - LISTED) " more not listed." } } }
}

fn named(view: &RunView, cells: &[usize], links: &Links) -> Markup {
    let known: Vec<&CellView> = cells
        .iter()
        .take(NAMED)
        .filter_map(|index| view.cells.get(*index))
        .collect();
    html! {
        @for (index, cell) in known.into_iter().enumerate() {
            @if index > 0 { ", " }
            a href=(links.cell(&cell.id)) { (clean(&cell.name)) }
        }
        @if cells.len() > NAMED { " and " (cells.len() - NAMED) " more" }
    }
}

/// Returns positions as ranges: `0-17 20 33`.
fn ranges(positions: &[usize]) -> Option<String> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for position in positions {
        match ranges.last_mut() {
            Some((_, end)) if *position == *end + 1 => *end = *position,
            _ => ranges.push((*position, *position)),
        }
    }
    if ranges.len() > OUTLINED {
        return None;
    }
    let texts: Vec<String> = ranges
        .into_iter()
        .map(|(from, to)| {
            if from == to {
                from.to_string()
            } else {
                format!("{from}-{to}")
            }
        })
        .collect();
    Some(texts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_become_ranges() {
        let text = |positions: &[usize]| ranges(positions).unwrap_or_default();
        assert_eq!(text(&[0, 1, 2, 5, 7, 8]), "0-2 5 7-8");
        assert_eq!(text(&[]), "");
        let scattered: Vec<usize> = (0..=OUTLINED).map(|n| n * 2).collect();
        assert_eq!(ranges(&scattered), None);
    }
}
