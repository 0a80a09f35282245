//! Lays the full-screen view out.

use super::app::{App, Pane};
use phalanx_report::finding::sentence;
use phalanx_report::live::where_it_is;
use phalanx_report::style::{Style as Paint, Tone};
use phalanx_report::text::{clean, duration, fit, plural};
use phalanx_report::tree;
use phalanx_report::view::CellView;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::{CellState, CellStatus, RunState};
use phalanx_shared::time::Timestamp;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Wrap};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// A smaller terminal shows only that it is too small.
const LEAST: (u16, u16) = (40, 12);
/// Maximum findings in the overview.
const FINDINGS: usize = 20;
/// Maximum reasons for waiting in the overview.
const REASONS: usize = 4;

/// Colours are used if the terminal has them.
fn style(tone: Tone, colors: bool) -> Style {
    let plain = Style::default();
    let bold = plain.add_modifier(Modifier::BOLD);
    match tone {
        Tone::Plain => plain,
        Tone::Strong => bold,
        Tone::Dim => plain.add_modifier(Modifier::DIM),
        _ if !colors => plain,
        Tone::Good => plain.fg(Color::Green),
        Tone::Bad => bold.fg(Color::Red),
        Tone::Warn => plain.fg(Color::Yellow),
        Tone::Busy => plain.fg(Color::Cyan),
    }
}

/// Draws the view of a run at a time.
pub fn draw(frame: &mut Frame<'_>, app: &App, state: &RunState, now: Timestamp, colors: bool) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let (width, height) = LEAST;
        let text = format!(
            "{} columns × {} rows are too few: at least {width} × {height}",
            area.width, area.height
        );
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    }
    let pen = Pen { colors };
    let [top, middle, bottom] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(pen.head(app, state, now)), top);
    match app.pane {
        Pane::Overview => pen.overview(frame, middle, app, state),
        Pane::Cell => pen.cell(frame, middle, app, state, now),
        Pane::Logs => pen.logs(frame, middle, app, state),
        Pane::Help => pen.help(frame, middle),
    }
    let (tone, text) = app.bottom();
    let line = Span::styled(clean(&text).into_owned(), style(tone, colors));
    frame.render_widget(Paragraph::new(line), bottom);
}

#[derive(Clone, Copy)]
struct Pen {
    colors: bool,
}

impl Pen {
    fn span(self, tone: Tone, text: impl Into<String>) -> Span<'static> {
        Span::styled(text.into(), style(tone, self.colors))
    }

    fn head(self, app: &App, state: &RunState, now: Timestamp) -> Vec<Line<'static>> {
        let counts = state.counts();
        let spec = state.plan.as_ref().map_or("", |plan| plan.spec.as_str());
        let elapsed = state.submitted.map(|at| {
            let elapsed = state.finished.unwrap_or(now).since(at);
            duration(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
        });
        let mut first = vec![
            self.span(Tone::Strong, clean(spec).into_owned()),
            self.span(
                Tone::Plain,
                format!("  {}", plural(counts.total as usize, "cell")),
            ),
        ];
        let parts = [
            (counts.passed, "passed", Tone::Good),
            (counts.flaky, "flaky", Tone::Warn),
            (counts.failed, "failed", Tone::Bad),
            (counts.errored, "errored", Tone::Bad),
            (counts.skipped, "skipped", Tone::Warn),
            (counts.cancelled, "cancelled", Tone::Warn),
            (counts.running, "running", Tone::Busy),
            (counts.queued, "waiting", Tone::Dim),
        ];
        for (count, name, tone) in parts.into_iter().filter(|(count, ..)| *count > 0) {
            first.push(self.span(Tone::Plain, "  "));
            first.push(self.span(tone, format!("{count} {name}")));
        }
        if let Some(elapsed) = elapsed {
            first.push(self.span(Tone::Dim, format!("  {elapsed}")));
        }
        let second = match (app.problems.first(), &app.expected) {
            (Some(problem), _) => self.span(Tone::Bad, clean(problem).into_owned()),
            (None, Some(expected)) => self.span(Tone::Dim, expected.clone()),
            (None, None) => self.span(Tone::Dim, format!("run {}", state.run)),
        };
        vec![Line::from(first), Line::from(second)]
    }

    fn overview(self, frame: &mut Frame<'_>, area: Rect, app: &App, state: &RunState) {
        let [upper, lower] =
            Layout::vertical([Constraint::Min(0), Constraint::Length(5)]).areas(area);
        let needed = grid_width(app).min(upper.width / 2 + upper.width / 8);
        let [left, right] =
            Layout::horizontal([Constraint::Length(needed.max(30)), Constraint::Min(0)])
                .areas(upper);
        self.grid(frame, left, app, state);
        self.findings(frame, right, app, state);
        self.short(frame, lower, app, state);
    }

    fn grid(self, frame: &mut Frame<'_>, area: Rect, app: &App, state: &RunState) {
        let axis = app.grid.axis.as_deref().unwrap_or("cells");
        let title = format!(" columns: {axis} · {} ", app.filter.name());
        let block = Block::bordered().title(title);
        let inner = block.inner(area);
        frame.render_widget(block, area);
        let (label, column) = widths(app, inner.width);
        let chosen = app.chosen.as_ref().and_then(|cell| app.grid.place(cell));
        let (row_at, column_at) = chosen.unwrap_or((0, 0));
        let column_width = usize::from(column) + 1;
        let room =
            (usize::from(inner.width).saturating_sub(usize::from(label) + 1) / column_width).max(1);
        let first_column = window(column_at, app.grid.columns.len(), room);
        let rows = usize::from(inner.height).saturating_sub(1).max(1);
        let first_row = window(row_at, app.grid.rows.len(), rows);
        let mut lines = Vec::new();
        let mut head = vec![self.span(Tone::Dim, padded("", label))];
        for name in app.grid.columns.iter().skip(first_column).take(room) {
            head.push(self.span(Tone::Dim, format!(" {}", padded(name, column))));
        }
        lines.push(Line::from(head));
        for row in app.grid.rows.iter().skip(first_row).take(rows) {
            let mut spans = vec![self.span(Tone::Plain, padded(&row.label, label))];
            for place in 0..room.min(app.grid.columns.len() - first_column) {
                let id = row.cells.get(first_column + place).and_then(Option::as_ref);
                let cell = id.and_then(|id| state.cells.get(id));
                let (mark, tone) = cell.map_or((" ", Tone::Plain), mark);
                let dimmed = cell.is_some_and(|cell| !app.filter.holds(cell));
                let mut look = style(if dimmed { Tone::Dim } else { tone }, self.colors);
                if id.is_some() && id == app.chosen.as_ref() {
                    look = look.add_modifier(Modifier::REVERSED);
                }
                spans.push(Span::raw(" "));
                spans.push(Span::styled(padded(mark, column), look));
            }
            lines.push(Line::from(spans));
        }
        frame.render_widget(Paragraph::new(lines), inner);
    }

    fn findings(self, frame: &mut Frame<'_>, area: Rect, app: &App, state: &RunState) {
        let all = app.found.roots().count();
        let title = match (all, app.found.left_out) {
            (0, 0) => " findings ".to_owned(),
            (all, 0) => format!(" findings: {all} "),
            (all, more) => format!(" findings: {all}, and {more} not examined "),
        };
        let block = Block::bordered().title(title);
        let inner = block.inner(area);
        frame.render_widget(block, area);
        let mut lines = Vec::new();
        if let Some(verdict) = sentence::verdict(&app.found) {
            lines.push(Line::from(
                self.span(Tone::Strong, clean(&verdict).into_owned()),
            ));
        }
        for finding in app.found.roots().take(FINDINGS) {
            let cells = plural(finding.cells.len(), "cell");
            lines.push(Line::from(vec![
                self.span(finding.outcome.into(), format!("{cells}: ")),
                self.span(Tone::Plain, clean(&sentence::cause(finding)).into_owned()),
            ]));
            lines.push(Line::from(
                self.span(Tone::Dim, format!("  {}", clean(&finding.reason))),
            ));
            let explained = sentence::explained(finding);
            lines.push(Line::from(
                self.span(Tone::Warn, format!("  {}", clean(&explained))),
            ));
        }
        if all > FINDINGS {
            let more = plural(all - FINDINGS, "more finding");
            lines.push(Line::from(self.span(Tone::Dim, format!("… {more}"))));
        }
        if lines.is_empty() {
            lines.push(Line::from(self.span(Tone::Dim, "none yet")));
        }
        for (reason, cells) in reasons(app, state) {
            let text = format!("waiting, {}: {}", plural(cells, "cell"), clean(reason));
            lines.push(Line::from(self.span(Tone::Dim, text)));
        }
        frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), inner);
    }

    /// The chosen cell in three lines.
    fn short(self, frame: &mut Frame<'_>, area: Rect, app: &App, state: &RunState) {
        let Some((id, cell)) = app
            .chosen
            .as_ref()
            .and_then(|id| state.cells.get_key_value(id))
        else {
            return;
        };
        let name = state
            .planned(id)
            .map_or(id.as_str(), |cell| cell.name.as_str());
        let block = Block::bordered().title(format!(" {} ", clean(name)));
        let inner = block.inner(area);
        frame.render_widget(block, area);
        let (_, tone) = mark(cell);
        let word = cell.outcome.map_or(status(cell), Outcome::as_str);
        let mut first = vec![self.span(tone, word)];
        if let Some(attempt) = cell.newest() {
            first.push(self.span(
                Tone::Dim,
                format!(
                    "  attempt {} on {}",
                    attempt.attempt,
                    clean(&attempt.agent_name)
                ),
            ));
        }
        let second = match (cell.outcome, cell.newest(), cell.status) {
            (Some(_), ..) => cell.reason.clone().unwrap_or_default(),
            (None, Some(attempt), CellStatus::Running) => {
                let (phase, step) = where_it_is(attempt);
                format!("{phase} > {step}")
            }
            _ => app.waits.get(id).cloned().unwrap_or_default(),
        };
        let lines = vec![
            Line::from(first),
            Line::from(self.span(Tone::Plain, clean(&second).into_owned())),
        ];
        frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), inner);
    }

    fn cell(self, frame: &mut Frame<'_>, area: Rect, app: &App, state: &RunState, now: Timestamp) {
        let view = app
            .chosen
            .as_ref()
            .and_then(|id| CellView::of(state, id, now));
        let text = view.map_or_else(String::new, |view| tree::render(&view, Paint::PLAIN, true));
        let lines: Vec<Line<'_>> = text.lines().map(Line::raw).collect();
        let block =
            Block::bordered().title(" steps · j k scroll · n N next red cell · l logs · esc back ");
        let height = usize::from(block.inner(area).height);
        let reach = lines.len().saturating_sub(height);
        app.reach.store(reach, Ordering::Relaxed);
        let scroll = app.scroll.min(reach);
        let shown: Vec<Line<'_>> = lines.into_iter().skip(scroll).take(height).collect();
        frame.render_widget(Paragraph::new(shown).block(block), area);
    }

    fn logs(self, frame: &mut Frame<'_>, area: Rect, app: &App, state: &RunState) {
        let id = app.chosen.as_ref();
        let name = id
            .and_then(|id| state.planned(id))
            .map_or("", |cell| cell.name.as_str());
        let title = format!(" logs of {} · j k scroll · esc back ", clean(name));
        let block = Block::bordered().title(title);
        let height = usize::from(block.inner(area).height);
        let scroll = app.scroll.min(app.logs.len().saturating_sub(height));
        let end = app.logs.len() - scroll;
        let lines = app
            .logs
            .iter()
            .skip(end.saturating_sub(height))
            .take(height.min(end));
        let lines: Vec<Line<'_>> = lines.map(|line| Line::raw(clean(line))).collect();
        frame.render_widget(Paragraph::new(lines).block(block), area);
    }

    fn help(self, frame: &mut Frame<'_>, area: Rect) {
        let keys = [
            (
                "j k",
                "choose the next or previous cell; scroll in steps and logs",
            ),
            ("enter", "steps of the chosen cell"),
            ("l", "logs of the chosen cell, as they are written"),
            ("n N", "next and previous red cell"),
            ("f", "only red, running or waiting cells, or all"),
            ("c", "another axis for the columns"),
            ("x", "cancel the run (asks)"),
            ("esc", "back"),
            (
                "Ctrl-C",
                "as without the full screen: cancel for run, leave for watch",
            ),
            (
                "marks",
                "· waiting  ◦ offered  ● running  ✓ passed  ~ flaky  ✗ failed  ! errored  - skipped  / cancelled",
            ),
        ];
        let lines = keys.map(|(key, what)| {
            Line::from(vec![
                self.span(Tone::Strong, format!("{key:<8}")),
                Span::raw(what),
            ])
        });
        let text = Paragraph::new(lines.to_vec()).wrap(Wrap { trim: false });
        frame.render_widget(text.block(Block::bordered().title(" keys ")), area);
    }
}

/// Returns a cell's mark in the grid.
fn mark(cell: &CellState) -> (&'static str, Tone) {
    match (cell.outcome, cell.status) {
        (Some(outcome), _) => {
            let mark = match outcome {
                Outcome::Passed => "✓",
                Outcome::Flaky => "~",
                Outcome::Failed => "✗",
                Outcome::Errored => "!",
                Outcome::Skipped => "-",
                Outcome::Cancelled => "/",
            };
            (mark, outcome.into())
        }
        (None, CellStatus::Queued | CellStatus::Ended) => ("·", Tone::Dim),
        (None, CellStatus::Offered | CellStatus::Accepted) => ("◦", Tone::Dim),
        (None, CellStatus::Running | CellStatus::Finished) => ("●", Tone::Busy),
    }
}

fn status(cell: &CellState) -> &'static str {
    match cell.status {
        CellStatus::Queued | CellStatus::Ended => "waiting",
        CellStatus::Offered | CellStatus::Accepted => "offered",
        CellStatus::Running | CellStatus::Finished => "running",
    }
}

/// Returns the reasons why cells wait, most cells first.
fn reasons<'a>(app: &'a App, state: &RunState) -> Vec<(&'a str, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, reason) in &app.waits {
        let waits = state
            .cells
            .get(id)
            .is_some_and(|cell| super::app::Filter::Waiting.holds(cell));
        if waits && !reason.is_empty() {
            *counts.entry(reason).or_default() += 1;
        }
    }
    let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, cells)| std::cmp::Reverse(*cells));
    counts.truncate(REASONS);
    counts
}

/// Returns the width of the labels and of a column, in a grid of that width.
fn widths(app: &App, width: u16) -> (u16, u16) {
    let longest = |texts: &mut dyn Iterator<Item = &String>| {
        let longest = texts.map(|text| Span::raw(text.as_str()).width()).max();
        u16::try_from(longest.unwrap_or(0)).unwrap_or(u16::MAX)
    };
    let label = longest(&mut app.grid.rows.iter().map(|row| &row.label));
    let column = longest(&mut app.grid.columns.iter());
    (label.min(width / 2), column.clamp(1, 10))
}

/// Returns the width that the whole grid would take.
fn grid_width(app: &App) -> u16 {
    let (label, column) = widths(app, u16::MAX);
    let columns = u16::try_from(app.grid.columns.len()).unwrap_or(u16::MAX);
    let columns = columns.saturating_mul(column + 1);
    label.saturating_add(columns).saturating_add(3)
}

/// Returns the first of `count` items to show, so that the chosen one is among the `room` that fit.
fn window(chosen: usize, count: usize, room: usize) -> usize {
    chosen
        .saturating_sub(room / 2)
        .min(count.saturating_sub(room))
}

fn padded(text: &str, width: u16) -> String {
    fit(&clean(text), usize::from(width))
}
