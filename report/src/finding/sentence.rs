//! The sentences about findings, the same in all reports. Plain text: reports escape and colour it.

use super::{
    Cause, Divergence, DivergenceKind, Evidence, Explained, Finding, Findings, Flake, FlakeCause,
    Is, Rule, Slow, Term,
};
use crate::text::{duration, plural, step_title};
use crate::view::RunView;
use serde_json::Value;

/// Rules with a higher p value are told with a warning.
const ALPHA: f64 = 0.05;
/// Values that a list names.
const LISTED: usize = 6;
/// Differences between two cells that are told.
const TOLD: usize = 3;

/// Returns the verdict of a run in one sentence, without a full stop: `38 of 41 red cells are source=git with image ≥
/// v4.5, first wrong step sync > status; fix this first`. `None` if there is no finding.
pub fn verdict(findings: &Findings) -> Option<String> {
    let first = findings.findings.first()?;
    let (rule, count) = match &first.explained {
        Explained::Rules { rules, outside } => {
            let rules: Vec<String> = rules.iter().map(|rule| terms(&rule.terms)).collect();
            (Some(rules.join(" or ")), first.cells.len() - outside)
        }
        _ => (None, first.cells.len()),
    };
    let whole = match (count, findings.red) {
        (1, 1) => "the red cell".to_owned(),
        (count, red) if count == red => format!("all {red} red cells"),
        (count, red) if count < red => format!("{count} of {}", plural(red, "red cell")),
        // While the run goes on, a failed cell isn't red before it ends.
        (count, _) => plural(count, "cell"),
    };
    let one = count == 1;
    let body = match rule {
        Some(rule) => format!(
            "{whole} {} {rule}, {}",
            if one { "is" } else { "are" },
            cause(first)
        ),
        None => format!("{whole}: {}", cause(first)),
    };
    let more = match findings.roots().nth(1) {
        Some(_) => "; fix this first",
        None => "",
    };
    Some(body + more)
}

/// Returns what went wrong first: `first wrong step sync > status`, `service netbox`, `agent runner-1`, or a reason.
pub fn cause(finding: &Finding) -> String {
    match &finding.cause {
        Cause::Step { .. } => format!("first wrong step {}", subject(finding)),
        Cause::Service { .. } | Cause::Agent { .. } => subject(finding),
        Cause::Cell => first_line(&finding.reason).to_owned(),
    }
}

/// Returns what a finding is about: `sync > status`, `service netbox`, `agent runner-1`, `cell`.
pub fn subject(finding: &Finding) -> String {
    match &finding.cause {
        Cause::Step { phase, name, .. } => {
            let more = match finding.steps {
                0 | 1 => String::new(),
                steps => format!(" and {} like it", steps - 1),
            };
            step_title(phase, name) + &more
        }
        Cause::Service { service } => format!("service {service}"),
        Cause::Agent { agent } => format!("agent {agent}"),
        Cause::Cell => "cell".to_owned(),
    }
}

/// Returns a finding in one line: what it is about, and why.
pub fn headline(finding: &Finding) -> String {
    let (subject, reason) = (subject(finding), first_line(&finding.reason));
    match reason.starts_with(&subject) || finding.cause == Cause::Cell {
        true => reason.to_owned(),
        false => format!("{subject}: {reason}"),
    }
}

/// Returns which cells have a finding, and how sure that is: `source=git: all 20 cells, and no other of the 60 that ran
/// it`.
pub fn explained(finding: &Finding) -> String {
    let (cells, compared) = (finding.cells.len(), finding.compared);
    let some = format!("{cells} of {}", plural(compared, "cell"));
    match &finding.explained {
        Explained::Rules { rules, outside } => {
            let rules: Vec<String> = rules.iter().map(rule).collect();
            let others = match outside {
                0 => ", and no other".to_owned(),
                outside => format!(", and {} other", outside),
            };
            let ran = match finding.cause {
                Cause::Step { .. } => format!(" of the {compared} that ran it"),
                _ => format!(" of {compared}"),
            };
            rules.join("; ") + &others + &ran
        }
        Explained::Everywhere if compared == 1 => "the only cell that shows it".to_owned(),
        Explained::Everywhere => format!("all {compared} cells that got there"),
        Explained::NoRule if cells == 1 => format!("one cell of {compared}"),
        Explained::NoRule => format!("{some}, and no rule tells them from the others"),
        Explained::NotSought => format!("{some}; no rule was sought"),
    }
}

/// Returns which cells have a finding, in short: `source=git with image ≥ v4.5`, or a number of cells.
pub fn place(finding: &Finding) -> String {
    match &finding.explained {
        Explained::Rules { rules, .. } => {
            let rules: Vec<String> = rules.iter().map(|rule| terms(&rule.terms)).collect();
            rules.join(" or ")
        }
        _ if finding.cells.len() == finding.compared => plural(finding.compared, "cell"),
        _ => format!(
            "{} of {}",
            finding.cells.len(),
            plural(finding.compared, "cell")
        ),
    }
}

/// Returns a rule with its evidence: `source=git: all 20 cells`, `source=git: 19 of 20 cells`.
pub fn rule(rule: &Rule) -> String {
    let cells = plural(rule.matching, "cell");
    let extent = match rule.hits == rule.matching {
        true if rule.matching == 1 => "its only cell".to_owned(),
        true => format!("all {cells}"),
        false => format!("{} of {cells}", rule.hits),
    };
    let doubt = match rule.p > ALPHA {
        true => " (few cells: may be chance)",
        false => "",
    };
    format!("{}: {extent}{doubt}", terms(&rule.terms))
}

/// Returns the terms of a rule: `source=git with image ≥ v4.5`.
pub fn terms(terms: &[Term]) -> String {
    let terms: Vec<String> = terms.iter().map(term).collect();
    terms.join(" with ")
}

/// Returns one term: `source=git`, `image ≥ v4.5`, `db in (mysql, mariadb)`, `no db`.
pub fn term(term: &Term) -> String {
    let axis = &term.axis;
    match &term.is {
        Is::In(values) => match values.as_slice() {
            [None] => format!("no {axis}"),
            [Some(one)] => format!("{axis}={}", value(one)),
            many => format!("{axis} in ({})", list(many)),
        },
        Is::NotIn(values) => match values.as_slice() {
            [None] => format!("any {axis}"),
            [Some(one)] => format!("{axis}≠{}", value(one)),
            many => format!("{axis} not in ({})", list(many)),
        },
        Is::AtLeast(least) => format!("{axis} ≥ {}", value(least)),
        Is::AtMost(most) => format!("{axis} ≤ {}", value(most)),
    }
}

fn list(values: &[Option<Value>]) -> String {
    let named = values.iter().take(LISTED);
    let mut named: Vec<String> = named.map(|one| or_none(one.as_ref())).collect();
    if values.len() > LISTED {
        named.push(format!("… {} more", values.len() - LISTED));
    }
    named.join(", ")
}

/// Returns an axis value as people write it: a text as it is, an object by its `name`, `key` or `id`, else JSON.
pub fn value(value: &Value) -> String {
    let named = value.as_object().and_then(|object| {
        let keys = ["name", "key", "id"];
        keys.iter().find_map(|key| object.get(*key))
    });
    match named.unwrap_or(value) {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn or_none(of: Option<&Value>) -> String {
    of.map_or_else(|| "none".to_owned(), value)
}

/// Returns what didn't run because of a finding; `None` if nothing was kept from running.
pub fn stopped(finding: &Finding) -> Option<String> {
    let stopped = finding.stopped;
    (stopped.steps > 0).then(|| {
        format!(
            "{} in {} failed or didn't run because of it",
            plural(stopped.steps, "step"),
            plural(stopped.cells, "cell")
        )
    })
}

/// Returns a finding that follows from another one, in one line.
pub fn follower(finding: &Finding) -> String {
    let verb = match finding.follows.map(|follows| follows.evidence) {
        Some(Evidence::Order) => "may follow",
        _ => "follows",
    };
    let cells = plural(finding.cells.len(), "cell");
    format!("{verb}, in {cells}: {}", headline(finding))
}

/// Returns the closest cell without a finding, and where the two part, in a few lines; none if there is no such cell.
pub fn nearest(view: &RunView, finding: &Finding) -> Vec<String> {
    let Some(nearest) = &finding.nearest else {
        return Vec::new();
    };
    let name = |index: usize| view.cells.get(index).map_or("", |cell| cell.name.as_str());
    let differs = nearest.differs.iter().map(|axis| {
        let (red, green) = (or_none(axis.red.as_ref()), or_none(axis.green.as_ref()));
        format!("{}={green} instead of {red}", axis.axis)
    });
    let differs: Vec<String> = differs.collect();
    let differs = match differs.as_slice() {
        [] => String::new(),
        differs => format!(": {}", differs.join(", ")),
    };
    let example = finding.cell(view).map_or("", |cell| cell.name.as_str());
    let of = match name(nearest.red) {
        red if red == example => String::new(),
        red => format!(" to {red}"),
    };
    let mut lines = vec![format!(
        "nearest cell without it{of}: {}{differs}",
        name(nearest.green)
    )];
    let told = nearest.divergences.iter().take(TOLD);
    // The log of the failed step comes last in time and tells most.
    let mut rest = nearest.divergences.iter().skip(TOLD);
    let told = told.chain(rest.find(|one| one.kind == DivergenceKind::Log));
    lines.extend(told.map(|divergence| format!("  {}", self::divergence(divergence))));
    lines
}

/// Returns a difference between two cells: `step sync > status: failed instead of passed`.
pub fn divergence(divergence: &Divergence) -> String {
    let what = match divergence.kind {
        DivergenceKind::Image => "image of",
        DivergenceKind::Service => "service",
        DivergenceKind::Step => "step",
        DivergenceKind::Captured => "captured by",
        DivergenceKind::Value => "output of",
        DivergenceKind::Log => "log of",
    };
    let subject = &divergence.subject;
    let at = divergence
        .at_us
        .map(|at| format!(" at {}", duration(at)))
        .unwrap_or_default();
    let facts = match (&divergence.red, &divergence.green) {
        (Some(red), Some(green)) => format!("{red}; there: {green}"),
        (Some(red), None) => format!("{red}; there: nothing like it"),
        (None, Some(green)) => format!("nothing; there: {green}"),
        (None, None) => "differs".to_owned(),
    };
    format!("{what} {subject}{at}: {facts}")
}

/// Returns a flaky step and what explains it, in one line.
pub fn flake(flake: &Flake) -> String {
    let title = match flake.phase.as_str() {
        "" => format!("another attempt after: {}", flake.name),
        phase => step_title(phase, &flake.name),
    };
    let extent = format!(
        "in {} of {}",
        flake.cells.len(),
        plural(flake.compared, "cell")
    );
    let why = match &flake.explained {
        FlakeCause::Axes { rule } => self::rule(rule),
        FlakeCause::Agent {
            agent,
            hits,
            matching,
            ..
        } => format!("on agent {agent}: {hits} of {}", plural(*matching, "cell")),
        FlakeCause::Beside {
            beside,
            hits,
            matching,
            ..
        } => format!(
            "beside {}: {hits} of {}",
            term(beside),
            plural(*matching, "cell")
        ),
        FlakeCause::Unknown => "no rule".to_owned(),
    };
    format!("{title} {extent}; {why}")
}

/// Returns what is slow for some axis values, in one line.
pub fn slow(slow: &Slow) -> String {
    let title = match &slow.step {
        Some(step) => step_title(&slow.phase, step),
        None => format!("phase {}", slow.phase),
    };
    format!(
        "{title} takes {} with {}, {} otherwise",
        duration(slow.median_us),
        terms(&slow.rule.terms),
        duration(slow.others_us)
    )
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
