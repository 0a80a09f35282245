//! The timing of a run, and of a cell, for a terminal of a given width.

use crate::style::{Style, Tone};
use crate::table::Table;
use crate::text::{clean, duration, fit};
use crate::timing::{Bar, BarKind, Segment, SegmentKind, SlotPoint, Timing, Waterfall};
use indexmap::IndexMap;
use phalanx_shared::id::CellId;
use phalanx_shared::wait::WaitCause;

/// Most rows of the critical path's table.
const ROWS: usize = 12;
/// Shorter times have no rows, in microseconds.
const TELLING_US: u64 = 10_000;
/// Screens below this width have no bars.
const NARROW: usize = 60;
/// Heights of a curve's columns.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// How a text is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Width of the terminal in columns.
    pub width: usize,
    /// Whether colours are written.
    pub style: Style,
    /// Whether every segment of the critical path is shown.
    pub verbose: bool,
}

/// Returns the timing of a run. `names` returns a cell's display name.
pub fn run(timing: &Timing, names: impl Fn(&CellId) -> String, layout: Layout) -> String {
    let mut lines = head(timing, layout);
    lines.extend(waits(timing, layout));
    lines.extend(path(&timing.critical_path, timing.wall_us, layout));
    if layout.verbose {
        lines.extend(in_full(&timing.critical_path, names, layout));
    }
    lines.join("\n") + "\n"
}

/// Returns the timing of a cell: its bars over time, and its critical path.
pub fn cell(waterfall: &Waterfall, path_of_cell: &[Segment], layout: Layout) -> String {
    let title = format!(
        "{}, {} from the submission",
        clean(&waterfall.name),
        duration(waterfall.end_us)
    );
    let mut lines = vec![layout.style.paint(Tone::Strong, &title)];
    lines.extend(bars(waterfall, layout));
    let ended = path_of_cell.last();
    let ended = ended.map_or(0, |last| last.began_us.saturating_add(last.elapsed_us));
    lines.extend(path(path_of_cell, ended, layout));
    if layout.verbose {
        lines.extend(in_full(path_of_cell, |_| waterfall.name.clone(), layout));
    }
    lines.join("\n") + "\n"
}

fn head(timing: &Timing, layout: Layout) -> Vec<String> {
    let mut lines = vec![format!("wall       {}", duration(timing.wall_us))];
    if let Some(slowest) = &timing.slowest {
        let name = clean(&slowest.name);
        lines.push(format!(
            "slowest    {} ({name})",
            duration(slowest.elapsed_us)
        ));
    }
    if let Some(efficiency) = timing.efficiency {
        let percent = (efficiency * 100.0).round();
        lines.push(format!("efficiency {percent} % (slowest cell ÷ wall)"));
    }
    lines.push(format!(
        "overhead   {} of the critical path",
        duration(timing.overhead_us)
    ));
    let slots = &timing.slots;
    lines.push(format!(
        "slots      {} at most, {:.1} on average",
        slots.peak, slots.mean
    ));
    let room = layout.width.saturating_sub(11).min(100);
    if room >= 20 && timing.wall_us > 0 {
        for (title, of) in [
            ("in use     ", (|point| point.used) as fn(&SlotPoint) -> u32),
            ("waiting    ", |point| point.queued),
        ] {
            let curve = curve(&slots.points, timing.wall_us, room, of);
            let curve = layout.style.paint(Tone::Busy, curve.trim_end());
            lines.push(format!("{title}{curve}"));
        }
    }
    lines
}

/// Returns a curve of one line. Each column is the maximum of its part of the time.
fn curve(points: &[SlotPoint], wall: u64, width: usize, of: fn(&SlotPoint) -> u32) -> String {
    let most = points.iter().map(of).max().unwrap_or(0);
    let mut columns = vec![0; width];
    let place = |at: u64| {
        let column = u128::from(at) * width as u128 / u128::from(wall.max(1));
        usize::try_from(column).unwrap_or(width).min(width)
    };
    for (index, point) in points.iter().enumerate() {
        let until = points.get(index + 1).map_or(wall, |next| next.at_us);
        let (from, to) = (place(point.at_us), place(until));
        let until = to.max(from + 1).min(width);
        if let Some(columns) = columns.get_mut(from.min(until)..until) {
            columns
                .iter_mut()
                .for_each(|column| *column = of(point).max(*column));
        }
    }
    let height = |value: u32| match value {
        0 => ' ',
        value => {
            let step = (value as usize * HEIGHTS.len()).div_ceil(most.max(1) as usize);
            HEIGHTS.get(step.saturating_sub(1)).copied().unwrap_or('█')
        }
    };
    columns.into_iter().map(height).collect()
}

fn waits(timing: &Timing, layout: Layout) -> Vec<String> {
    let telling: Vec<_> = timing
        .waits
        .iter()
        .filter(|wait| wait.sum_us >= TELLING_US)
        .collect();
    if telling.is_empty() {
        return Vec::new();
    }
    let mut table = Table::new(["cells waited for", "cells", "sum", "longest", "in"]);
    for wait in telling {
        table.row([
            (Tone::Plain, cause(wait.cause)),
            (Tone::Plain, wait.cells.to_string()),
            (Tone::Plain, duration(wait.sum_us)),
            (Tone::Plain, duration(wait.max_us)),
            (Tone::Dim, wait.max_cell.clone()),
        ]);
    }
    std::iter::once(String::new())
        .chain(table.lines(layout.width, layout.style))
        .collect()
}

fn cause(cause: WaitCause) -> String {
    match cause {
        WaitCause::Other => "(not recorded)".to_owned(),
        known => known.as_str().replace('_', " "),
    }
}

/// The segments of a path with the same text.
#[derive(Default)]
struct Kin {
    count: usize,
    took: u64,
    most: u64,
    wait: bool,
}

/// Returns the critical path, with segments of the same text as one row, the longest first.
fn path(segments: &[Segment], whole: u64, layout: Layout) -> Vec<String> {
    if segments.is_empty() {
        return Vec::new();
    }
    let mut kin: IndexMap<String, Kin> = IndexMap::new();
    for segment in segments {
        let row = kin.entry(title(segment)).or_default();
        row.count += 1;
        row.took += segment.elapsed_us;
        row.most = row.most.max(segment.potential_us);
        row.wait |= segment.wait.is_some();
    }
    let mut rows: Vec<_> = kin.into_iter().collect();
    rows.sort_by_key(|(_, row)| std::cmp::Reverse(row.took));
    let telling = rows.partition_point(|(_, row)| row.took >= TELLING_US);
    let rest = rows.split_off(telling.min(ROWS));
    let mut table = Table::new(["critical path", "took", "share", "could save"]);
    for (what, row) in rows {
        let times = if row.count > 1 {
            format!(" ×{}", row.count)
        } else {
            String::new()
        };
        let tone = if row.wait { Tone::Warn } else { Tone::Plain };
        table.row([
            (tone, format!("{what}{times}")),
            (Tone::Plain, duration(row.took)),
            (Tone::Plain, percent(row.took, whole)),
            (Tone::Strong, duration(row.most)),
        ]);
    }
    if !rest.is_empty() {
        let took = rest
            .iter()
            .map(|(_, row)| row.took)
            .fold(0, u64::saturating_add);
        table.row([
            (Tone::Dim, format!("{} more", rest.len())),
            (Tone::Dim, duration(took)),
            (Tone::Dim, percent(took, whole)),
            (Tone::Dim, String::new()),
        ]);
    }
    std::iter::once(String::new())
        .chain(table.lines(layout.width, layout.style))
        .collect()
}

fn title(segment: &Segment) -> String {
    match (&segment.phase, segment.kind) {
        (Some(phase), _) => format!("{phase} > {}", segment.what),
        (None, SegmentKind::Overhead) => format!("({})", segment.what),
        _ => segment.what.clone(),
    }
}

fn percent(part: u64, whole: u64) -> String {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    format!("{percent} %")
}

/// Returns every segment that is long enough to be shown, below the name of its cell.
fn in_full(segments: &[Segment], names: impl Fn(&CellId) -> String, layout: Layout) -> Vec<String> {
    let mut lines = Vec::new();
    let mut cell = None;
    for segment in segments.iter().filter(|segment| segment.is_telling()) {
        if cell != Some(&segment.cell) {
            let name = segment
                .cell
                .as_ref()
                .map_or_else(|| "run".to_owned(), &names);
            lines.push(String::new());
            lines.push(layout.style.paint(Tone::Strong, &clean(&name)));
            cell = Some(&segment.cell);
        }
        let tone = if segment.wait.is_some() {
            Tone::Warn
        } else {
            Tone::Plain
        };
        let what = clean(&title(segment)).into_owned();
        lines.push(format!(
            "{:>7} +{:<7} {:>7}  {}",
            duration(segment.began_us),
            duration(segment.elapsed_us),
            duration(segment.potential_us),
            layout.style.paint(tone, &what)
        ));
    }
    lines
}

/// Returns the bars of a cell: its name for each, then the bar, or begin and duration on a narrow terminal.
fn bars(waterfall: &Waterfall, layout: Layout) -> Vec<String> {
    let telling = |bar: &&Bar| bar.elapsed_us >= 2_000 || bar.kind != BarKind::Activity;
    let bars = waterfall.bars.iter().filter(telling);
    let names = (layout.width * 2 / 5).clamp(16, 40);
    let room = layout.width.saturating_sub(names + 10);
    let lines = bars.map(|bar| {
        let indent = "  ".repeat(bar.depth.min(8));
        let name = fit(&format!("{indent}{}", clean(&bar.what)), names);
        let took = duration(bar.elapsed_us);
        let tone = tone(bar);
        if layout.width < NARROW {
            let began = duration(bar.began_us);
            return format!("{} {began:>7} +{took}", layout.style.paint(tone, &name));
        }
        let (before, length) = stretch(bar, waterfall.end_us, room);
        let drawn = if bar.waits.is_empty() { "█" } else { "░" }.repeat(length);
        format!(
            "{name} {took:>7} {}{}",
            " ".repeat(before),
            layout.style.paint(tone, &drawn)
        )
    });
    let lines: Vec<String> = lines.collect();
    match lines.is_empty() {
        true => vec!["no activity so far".to_owned()],
        false => lines,
    }
}

fn tone(bar: &Bar) -> Tone {
    match (bar.outcome, bar.critical) {
        (Some(outcome), _) if !outcome.is_ok() => Tone::Bad,
        (_, true) if bar.waits.is_empty() => Tone::Busy,
        (_, true) => Tone::Warn,
        _ => Tone::Dim,
    }
}

/// Returns the columns before a bar, and its length; at least one column.
fn stretch(bar: &Bar, end: u64, room: usize) -> (usize, usize) {
    let columns = |time: u64| {
        let columns = u128::from(time) * room as u128 / u128::from(end.max(1));
        usize::try_from(columns).unwrap_or(room).min(room)
    };
    let before = columns(bar.began_us).min(room.saturating_sub(1));
    let until = columns(bar.began_us.saturating_add(bar.elapsed_us));
    (before, until.saturating_sub(before).max(1))
}
