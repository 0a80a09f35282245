//! Findings: why a run is red, the first cause first.
//!
//! A finding is the same failure in one cell or many: the same step (or service, or agent) that went wrong in the same
//! way, whatever the numbers in it. [`findings`] gathers them from a view, finds for each the smallest rule over the
//! axes, and tells what follows from it. All reports show the result and judge nothing themselves. The sentences
//! are made in [`sentence`]; the colours and the layout belong to the reports.
//!
//! Cells are given as positions in [`RunView::cells`], which are in plan order.

mod axes;
mod causes;
mod flake;
mod gather;
mod key;
mod nearest;
mod order;
mod rule;
pub mod sentence;
mod slow;

use crate::logs::Logs;
use crate::view::{CellView, RunView, StepView};
use phalanx_shared::event::StepResult;
use phalanx_shared::id::CellId;
use phalanx_shared::outcome::Outcome;
use serde::Serialize;
use serde_json::Value;

/// What a run found, made by [`findings`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Findings {
    /// Number of failed and errored cells.
    pub red: usize,
    /// Number of passed and flaky cells.
    pub green: usize,
    /// Findings in the order in which to look at them: roots before what follows from them, then by number of cells.
    pub findings: Vec<Finding>,
    /// Steps that failed first and passed later, most cells first.
    pub flakes: Vec<Flake>,
    /// Phases and steps that take longer for some axis values, most time first.
    pub slow: Vec<Slow>,
    /// Number of failures that are left out because there are too many of them; none of them is in more cells than those
    /// told.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// One cause of red cells: the same failure in one cell or many.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Fingerprint: 12 hexadecimal digits, equal for the same failure in other runs of the spec. Findings of a run that
    /// differ only in the item of a `foreach`, or in the lost agent, share it.
    pub id: String,
    /// `failed` or `errored`, the worst of its cells.
    pub outcome: Outcome,
    /// What went wrong first.
    pub cause: Cause,
    /// Why, in one line, from the first of the cells. Numbers and ids may differ in the others.
    pub reason: String,
    /// Number of steps that failed in this way: more than one if items of a `foreach` did, or steps that use a service.
    pub steps: usize,
    /// Cells in plan order, at least one.
    pub cells: Vec<usize>,
    /// Cells that tell something about it: those in which the step ran, or the service or agent was used. Contains
    /// `cells`.
    pub compared: usize,
    /// Each distinct form of the failure (its exact numbers and texts), most cells first, bounded.
    pub variants: Vec<Variant>,
    /// Number of distinct forms.
    pub forms: usize,
    /// Which cells have it.
    pub explained: Explained,
    /// The finding that it follows from; `None` for a root.
    pub follows: Option<Follows>,
    /// What didn't run because of it.
    pub stopped: Stopped,
    /// The closest cell without it, and where the two part.
    pub nearest: Option<Nearest>,
}

/// What went wrong first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// A step failed on its own.
    Step {
        /// Phase of the step.
        phase: String,
        /// Name of the step.
        name: String,
        /// Path of the step in the first of the cells.
        path: String,
    },
    /// A service wasn't ready, or ended.
    Service {
        /// Name of the service.
        service: String,
    },
    /// An agent was lost, or couldn't run the cell.
    Agent {
        /// Name of the agent in the first of the cells.
        agent: String,
    },
    /// The cell ended without a failed step or service.
    Cell,
}

/// A distinct form of a finding: equal to the last character.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Variant {
    /// Its cells in plan order, at least one.
    pub cells: Vec<usize>,
    /// Path of the failed step in the first of them; `None` if no step failed.
    pub path: Option<String>,
}

/// Which cells have a finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Explained {
    /// Rules over the axes tell its cells from the others: most often one, more if the same failure has several causes.
    Rules {
        /// Each explains cells that the ones before it don't.
        rules: Vec<Rule>,
        /// Number of cells with the finding that match none of them.
        outside: usize,
    },
    /// Every compared cell has it: no axis can explain it.
    Everywhere,
    /// No axis, set of values or pair of axes tells its cells from the others.
    NoRule,
    /// No rule was looked for: there are too many findings, and this one has few cells.
    NotSought,
}

/// A rule over the axes: a cell matches if all terms hold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rule {
    /// One term, or two on different axes.
    pub terms: Vec<Term>,
    /// Cells of the finding that match.
    pub hits: usize,
    /// Cells of the finding that don't match, in plan order, bounded to [`SHOWN`].
    pub missed: Vec<usize>,
    /// Compared cells that match: `hits` and the counterexamples.
    pub matching: usize,
    /// Compared cells that match and don't have the finding, in plan order, bounded to [`SHOWN`].
    pub counterexamples: Vec<usize>,
    /// Fisher's exact test, corrected for the number of rules that were tried: how likely chance alone gives a rule
    /// that tells the cells apart at least as well. 0 to 1.
    pub p: f64,
}

/// A condition on one axis.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Term {
    /// Name of the axis; `agent` if no axis of the matrix tells the cells apart and the agents that ran them do.
    pub axis: String,
    /// What its value must be.
    pub is: Is,
}

/// A condition on a value. A cell may have no value for an axis.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "op", content = "value", rename_all = "snake_case")]
pub enum Is {
    /// One of these values; `None` stands for a cell without a value.
    In(Vec<Option<Value>>),
    /// None of these values.
    NotIn(Vec<Option<Value>>),
    /// This number or version, or a higher one.
    AtLeast(Value),
    /// This number or version, or a lower one.
    AtMost(Value),
}

/// The finding that another one follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Follows {
    /// Position of the root in [`Findings::findings`].
    pub finding: usize,
    /// How the run shows it.
    pub evidence: Evidence,
}

/// How a run shows that one failure follows from another, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The later one happens where the earlier one did, and the same step passes in other cells.
    Cells,
    /// The later one happens only after the earlier one, and no cell shows whether the step would pass without it.
    Order,
}

/// What didn't run because of a finding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stopped {
    /// Number of steps that were never reached, and of failed steps of findings that follow from it.
    pub steps: usize,
    /// Number of cells of these steps.
    pub cells: usize,
}

/// The closest cell without a finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Nearest {
    /// Cell with the finding.
    pub red: usize,
    /// The closest cell without it.
    pub green: usize,
    /// Axes on which the two differ, with the value of each.
    pub differs: Vec<Differing>,
    /// What differs between the two, in the order in which it happened; the first is where they part. Bounded.
    pub divergences: Vec<Divergence>,
}

/// An axis on which two cells differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Differing {
    /// Name of the axis.
    pub axis: String,
    /// Value of the cell with the finding; `None` if it has none.
    pub red: Option<Value>,
    /// Value of the other cell; `None` if it has none.
    pub green: Option<Value>,
}

/// A difference between two cells.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Divergence {
    /// What kind of fact differs.
    pub kind: DivergenceKind,
    /// Name of the step or service.
    pub subject: String,
    /// What the cell with the finding shows; `None` if it shows nothing.
    pub red: Option<String>,
    /// What the other cell shows.
    pub green: Option<String>,
    /// Microseconds from the start of the red cell's attempt; `None` if the fact has no time.
    pub at_us: Option<u64>,
}

/// What kind of fact differs between two cells. Of differences at the same time, the first of these is told first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DivergenceKind {
    /// Outcome of a step.
    Step,
    /// Value that a step captured.
    Captured,
    /// Line of a step's output.
    Value,
    /// Image of a service.
    Image,
    /// State or time of readiness of a service.
    Service,
    /// Line of a log.
    Log,
}

/// A step that failed first and passed later.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flake {
    /// Phase of the step.
    pub phase: String,
    /// Name of the step; for a cell that passed at a later attempt, what ended the earlier one.
    pub name: String,
    /// Cells in which it was flaky, in plan order.
    pub cells: Vec<usize>,
    /// Cells in which it ran.
    pub compared: usize,
    /// What flaky cells have in common.
    pub explained: FlakeCause,
}

/// What flaky cells have in common.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FlakeCause {
    /// Values of axes.
    Axes {
        /// What they have in common.
        rule: Rule,
    },
    /// They ran on this agent.
    Agent {
        /// Name of the agent.
        agent: String,
        /// Flaky cells on it.
        hits: usize,
        /// Compared cells on it.
        matching: usize,
        /// As [`Rule::p`].
        p: f64,
    },
    /// Cells with these axis values ran at the same time on the same agent.
    Beside {
        /// What ran beside them.
        beside: Term,
        /// Flaky cells beside it.
        hits: usize,
        /// Compared cells beside it.
        matching: usize,
        /// As [`Rule::p`].
        p: f64,
    },
    /// Nothing that the journal knows.
    Unknown,
}

/// A phase or a step that takes longer for some axis values.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Slow {
    /// Name of the phase.
    pub phase: String,
    /// Name of the step; `None` for the phase itself.
    pub step: Option<String>,
    /// The axis values; its `hits` are the cells above the time that splits all times best in two.
    pub rule: Rule,
    /// Median of the matching cells in microseconds.
    pub median_us: u64,
    /// Median of the other cells in microseconds.
    pub others_us: u64,
    /// Time that the matching cells take above the median of the others, summed.
    pub extra_us: u64,
}

/// Maximum number of cells to list as counterexamples or misses.
pub const SHOWN: usize = 20;

impl Finding {
    /// Returns the cell to show as an example: the first that has the most frequent form.
    pub fn cell<'a>(&self, view: &'a RunView) -> Option<&'a CellView> {
        view.cells.get(*self.variants.first()?.cells.first()?)
    }

    /// Returns its cells in plan order.
    pub fn cells<'a>(&self, view: &'a RunView) -> impl Iterator<Item = &'a CellView> {
        self.cells.iter().filter_map(|index| view.cells.get(*index))
    }

    /// Returns the failed step of [`Finding::cell`]; `None` if no step failed.
    pub fn step<'a>(&self, view: &'a RunView) -> Option<&'a StepView> {
        let variant = self.variants.first()?;
        variant.step(view)
    }
}

impl Variant {
    /// Returns the failed step in the first of the cells; `None` if no step failed.
    pub fn step<'a>(&self, view: &'a RunView) -> Option<&'a StepView> {
        let path = self.path.as_deref()?;
        let attempt = view.cells.get(*self.cells.first()?)?.newest()?;
        attempt.steps.iter().find(|step| step.path == path)
    }
}

impl Findings {
    /// Returns the findings that don't follow from another one.
    pub fn roots(&self) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(|finding| finding.follows.is_none())
    }

    /// Returns whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.findings.is_empty() && self.flakes.is_empty() && self.slow.is_empty()
    }
}

/// Findings for which a rule is sought; those with fewer cells than these say [`Explained::NotSought`].
const EXPLAINED: usize = 100;
/// Findings for which the closest cell without them is sought.
const COMPARED: usize = 20;
/// Bound on the search for all rules of a run, in visited entries of tables.
const WORK: usize = 100_000_000;

/// Returns the cells whose logs tell where a red cell parts from its nearest green one, for the first findings, in plan
/// order. Reports that show no logs need only those.
pub fn compared(view: &RunView) -> Vec<CellId> {
    let found = findings(view, None);
    let pairs = found.findings.iter().filter_map(|one| one.nearest.as_ref());
    let cells = pairs.take(READ).flat_map(|pair| [pair.red, pair.green]);
    let mut cells: Vec<usize> = cells.collect();
    cells.sort_unstable();
    cells.dedup();
    let ids = cells.into_iter().filter_map(|cell| view.cells.get(cell));
    ids.map(|cell| cell.id.clone()).collect()
}

/// Returns the id of the finding that a failed step of a phase leads to; `None` if it didn't fail. It needs nothing but
/// the result, so it is known before the run is over.
pub fn id_of_step(phase: &str, result: &StepResult) -> Option<String> {
    gather::id_of(phase, result)
}

/// Findings for whose pairs of cells the logs are read.
const READ: usize = 10;

/// Returns the findings of a run. `logs` adds the lines in which a red cell parts from its nearest green one.
pub fn findings(view: &RunView, logs: Option<&Logs>) -> Findings {
    let axes = axes::Axes::of(view);
    let (failures, left_out) = gather::gather(view);
    let ran = causes::Ran::of(view, &failures);
    let without: Vec<Vec<usize>> = failures
        .iter()
        .map(|failure| ran.without(view, failure))
        .collect();
    let follows = causes::follows(&failures, &without, &axes);
    let stopped = causes::stopped(view, &failures, &follows);
    let mut findings: Vec<Finding> = failures
        .into_iter()
        .zip(&without)
        .zip(follows.iter().zip(stopped))
        .map(|((failure, without), (follows, stopped))| Finding {
            id: key::id(&failure.known_by),
            outcome: failure.outcome,
            cause: failure.cause,
            reason: failure.reason,
            steps: failure.paths.len(),
            compared: failure.cells.len() + without.len(),
            cells: failure.cells,
            variants: failure.variants,
            forms: failure.forms,
            explained: Explained::NotSought,
            follows: *follows,
            stopped,
            nearest: None,
        })
        .collect();
    let order = sort(&mut findings);
    let agents = axes::Axes::of_agents(view, |cell| Some(&cell.newest()?.agent));
    let mut work = rule::Work { left: WORK };
    for (place, (finding, index)) in findings.iter_mut().zip(order).enumerate() {
        let without = without.get(index).map(Vec::as_slice).unwrap_or_default();
        let split = rule::Split {
            with: &finding.cells,
            without,
        };
        if place < EXPLAINED || finding.cells.len() < 2 {
            finding.explained = match rule::explain(&axes, &split, &mut work) {
                Explained::NoRule => rule::explain(&agents, &split, &mut work),
                explained => explained,
            };
        }
        if place < COMPARED {
            finding.nearest = nearest::nearest(view, logs, &axes, &finding.cells, without);
        }
    }
    let count = |wanted: fn(Outcome) -> bool| {
        let outcomes = view.cells.iter().filter_map(|cell| cell.outcome);
        outcomes.filter(|outcome| wanted(*outcome)).count()
    };
    Findings {
        red: count(gather::is_red),
        green: count(|outcome| matches!(outcome, Outcome::Passed | Outcome::Flaky)),
        findings,
        flakes: flake::flakes(view, &axes, &mut work),
        slow: slow::slow(view, &axes, &mut work),
        left_out,
    }
}

/// Puts roots before what follows from them, and those with more cells first. Returns the former positions.
fn sort(findings: &mut Vec<Finding>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..findings.len()).collect();
    order.sort_by_key(|index| {
        findings.get(*index).map(|finding| {
            let size = (finding.cells.len(), finding.stopped.steps);
            (finding.follows.is_some(), std::cmp::Reverse(size))
        })
    });
    let mut place = vec![0; order.len()];
    for (new, old) in order.iter().enumerate() {
        if let Some(place) = place.get_mut(*old) {
            *place = new;
        }
    }
    let mut placed: Vec<(usize, Finding)> = std::mem::take(findings)
        .into_iter()
        .zip(&place)
        .map(|(mut finding, new)| {
            if let Some(follows) = &mut finding.follows {
                follows.finding = place.get(follows.finding).copied().unwrap_or_default();
            }
            (*new, finding)
        })
        .collect();
    placed.sort_by_key(|(new, _)| *new);
    findings.extend(placed.into_iter().map(|(_, finding)| finding));
    order
}
