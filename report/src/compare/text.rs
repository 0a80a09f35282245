//! A comparison for people: on a terminal and as Markdown.

use super::{
    Change, ChangeKind, Comparison, Head, NewFailure, OnPath, PathChange, TimeChange, Times,
};
use crate::style::{Style, Tone};
use crate::text::{Line, clean, duration, plural};
use phalanx_shared::outcome::Outcome;

/// Number of entries of a list that are shown.
const SHOWN: usize = 15;
/// Number of cells that are named.
const NAMED: usize = 4;

/// A titled list.
struct Section {
    title: String,
    lines: Vec<Line>,
}

/// Returns the comparison for a terminal.
pub fn terminal(comparison: &Comparison, style: Style) -> String {
    let mut out = Vec::new();
    for head in [&comparison.before, &comparison.after] {
        out.push(head_line(head, style));
    }
    out.push(style.paint(verdict_tone(comparison), &verdict(comparison)));
    for section in sections(comparison) {
        out.push(String::new());
        out.push(style.paint(Tone::Strong, &format!("{}:", section.title)));
        out.extend(
            section
                .lines
                .iter()
                .map(|line| format!("  {}", style.paint(line.tone, &line.text))),
        );
    }
    out.iter().map(|line| format!("{line}\n")).collect()
}

/// Returns the comparison as Markdown.
pub fn markdown(comparison: &Comparison) -> String {
    let mut out = vec![format!("### {}", verdict(comparison)), String::new()];
    for head in [&comparison.before, &comparison.after] {
        out.push(format!("- {}", escaped(&head_line(head, Style::PLAIN))));
    }
    for section in sections(comparison) {
        out.push(String::new());
        out.push(format!("**{}**", escaped(&section.title)));
        out.push(String::new());
        for line in section.lines {
            let depth = line.text.len() - line.text.trim_start().len();
            out.push(format!(
                "{}- {}",
                " ".repeat(depth),
                escaped(line.text.trim_start())
            ));
        }
    }
    out.iter().map(|line| format!("{line}\n")).collect()
}

/// Escapes what Markdown and HTML would interpret.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '*' | '_' | '`' | '[' | ']' | '|' | '\\' | '#' | '~' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

fn head_line(head: &Head, style: Style) -> String {
    let word = head.outcome.map_or("unfinished", Outcome::as_str);
    let tone = head.outcome.map_or(Tone::Dim, Tone::from);
    let at = head.submitted.map(|at| at.to_rfc3339()).unwrap_or_default();
    format!(
        "{}  {}  {}  {} of {} ok  {at}",
        head.run,
        clean(&head.spec),
        style.paint(tone, word),
        head.ok,
        plural(head.cells, "cell")
    )
}

fn verdict_tone(comparison: &Comparison) -> Tone {
    comparison.regression().map_or(Tone::Good, Tone::from)
}

/// Returns the result in one sentence.
pub fn verdict(comparison: &Comparison) -> String {
    let roots = comparison.new.iter().filter(|new| !new.follows).count();
    let still = match comparison.still {
        0 => String::new(),
        still => format!(", {still} as before"),
    };
    match (roots, comparison.new.len()) {
        (_, 0) => match comparison.unwell() {
            Some(unwell) => format!("no new failure{still}, but {}", clean(&unwell)),
            None => format!("no new failure{still}"),
        },
        (roots, all) if roots == all => format!("{}{still}", plural(all, "new failure")),
        (0, all) => format!(
            "{} from other failures{still}",
            match all {
                1 => "1 new failure that follows".to_owned(),
                all => format!("{all} new failures that follow"),
            }
        ),
        (roots, all) => format!(
            "{} and {} from other failures{still}",
            plural(roots, "new failure"),
            match all - roots {
                1 => "1 that follows".to_owned(),
                more => format!("{more} that follow"),
            }
        ),
    }
}

fn sections(comparison: &Comparison) -> Vec<Section> {
    let changes = |kind: ChangeKind| {
        let of_kind = comparison
            .changes
            .iter()
            .filter(move |change| change.kind == kind);
        of_kind.collect::<Vec<_>>()
    };
    let mut found = vec![
        section("new failures", &comparison.new, new_failure),
        section("no longer run", &comparison.no_longer, |one| {
            let text = format!(
                "{} in {}: {}",
                one.step,
                plural(one.cells, "cell"),
                one.reason
            );
            vec![line(Tone::Warn, &text)]
        }),
        section("inputs", &changes(ChangeKind::Input), |one| change(one)),
        section("images", &changes(ChangeKind::Image), |one| change(one)),
        section("spec", &changes(ChangeKind::Spec), |one| change(one)),
        section("agents", &changes(ChangeKind::Agent), |one| change(one)),
        times(&comparison.times),
        section(
            "critical path of the slowest cell",
            &comparison.critical_path,
            path_change,
        ),
        section("fixed", &comparison.gone, |one| {
            vec![line(
                Tone::Good,
                &format!("{}: {}", one.cause, names(&one.cells)),
            )]
        }),
    ];
    let cells = &comparison.cells;
    let only = [
        ("only in the earlier run", &cells.only_before),
        ("only in the later run", &cells.only_after),
    ];
    let unmatched: Vec<_> = only
        .into_iter()
        .filter(|(_, cells)| !cells.is_empty())
        .collect();
    found.push(section("cells", &unmatched, |(what, cells)| {
        vec![line(
            Tone::Plain,
            &format!("{} {what}: {}", cells.len(), names(cells)),
        )]
    }));
    found
        .into_iter()
        .filter(|section| !section.lines.is_empty())
        .collect()
}

fn section<T>(title: &str, entries: &[T], lines: impl Fn(&T) -> Vec<Line>) -> Section {
    let mut shown: Vec<Line> = entries.iter().take(SHOWN).flat_map(lines).collect();
    if entries.len() > SHOWN {
        shown.push(line(
            Tone::Dim,
            &format!("… ({} more, with --format json)", entries.len() - SHOWN),
        ));
    }
    Section {
        title: title.to_owned(),
        lines: shown,
    }
}

fn line(tone: Tone, text: &str) -> Line {
    Line::new(tone, clean(text))
}

fn names(cells: &[String]) -> String {
    let mut shown: Vec<String> = cells.iter().take(NAMED).cloned().collect();
    if cells.len() > NAMED {
        shown.push(format!("{} more", cells.len() - NAMED));
    }
    shown.join("; ")
}

fn new_failure(one: &NewFailure) -> Vec<Line> {
    let word = one.outcome.as_str().to_uppercase();
    let reason = one.reason.lines().next().unwrap_or_default();
    let follows = if one.follows {
        " (follows from another)"
    } else {
        ""
    };
    let new = match one.new_cells {
        0 => String::new(),
        count => format!(", {count} of them not in the earlier run"),
    };
    vec![
        line(
            Tone::from(one.outcome),
            &format!("{word} {}{follows}: {reason}", one.cause),
        ),
        line(
            Tone::Plain,
            &format!(
                "  {}{new}: {}",
                plural(one.cells.len(), "cell"),
                names(&one.cells)
            ),
        ),
        line(Tone::Dim, &format!("  {}", one.explained)),
    ]
}

fn change(one: &Change) -> Vec<Line> {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "nothing".to_owned());
    let mut lines = vec![line(
        Tone::Plain,
        &format!(
            "{}: {} → {}",
            one.what,
            or_none(&one.before),
            or_none(&one.after)
        ),
    )];
    lines.extend(
        one.lines
            .iter()
            .map(|text| line(Tone::Dim, &format!("  {text}"))),
    );
    lines
}

fn times(times: &Times) -> Section {
    let mut found = section("times outside their noise band", &times.outside, |one| {
        vec![time(one)]
    });
    let wall = &times.wall;
    let old = wall.before_us.map(duration).unwrap_or_default();
    let mut head = format!("wall time: {old} → {}", duration(wall.after_us));
    head += &match &wall.band {
        Some(band) if band.holds(wall.after_us) => ", within its noise".to_owned(),
        Some(band) => format!(
            ", usually {} to {}",
            duration(band.low_us),
            duration(band.high_us)
        ),
        None => String::new(),
    };
    found.lines.insert(0, line(Tone::Plain, &head));
    if times.runs < times.needed {
        let text = format!(
            "too little history to tell noise from change: {} of this spec, {} are needed",
            plural(times.runs, "earlier run"),
            times.needed
        );
        found.lines.push(line(Tone::Warn, &text));
        found.title = "times".to_owned();
    }
    found
}

fn time(one: &TimeChange) -> Line {
    let old = one
        .before_us
        .map(|time| format!("{} → ", duration(time)))
        .unwrap_or_default();
    let (tone, usual) = match &one.band {
        Some(band) => (
            if one.after_us > band.high_us {
                Tone::Warn
            } else {
                Tone::Good
            },
            format!(
                ", usually {} to {}",
                duration(band.low_us),
                duration(band.high_us)
            ),
        ),
        None => (Tone::Plain, String::new()),
    };
    line(
        tone,
        &format!("{}: {old}{}{usual}", one.what, duration(one.after_us)),
    )
}

fn path_change(one: &PathChange) -> Vec<Line> {
    let (before, after) = (duration(one.before_us), duration(one.after_us));
    let text = match one.change {
        OnPath::Came => format!("came: {} ({after})", one.what),
        OnPath::Left => format!("left: {} ({before})", one.what),
        OnPath::Differs => format!("differs: {} ({before} → {after})", one.what),
    };
    vec![line(Tone::Plain, &text)]
}
