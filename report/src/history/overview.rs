//! The history of a spec at a glance: its runs, what is broken, flaky or fixed and where, what couldn't be judged, what
//! became slower, and the coverage ledger.

use super::band::Band;
use super::ledger::{Ledger, ledger, place};
use super::series::{Mark, Shift, Verdict, line, shift, verdict};
use super::{History, PastCell, PastRun};
use crate::odds::Odds;
use phalanx_shared::id::{CellId, RunId};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::time::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Chance below which an axis value counts as the place of flakiness, after correction for the number of values.
const CHANCE: f64 = 0.01;
/// Maximum number of entries of each list.
const LISTED: usize = 50;

/// The history of a spec.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Overview {
    /// Name of the spec.
    pub spec: String,
    /// Runs, the oldest first.
    pub runs: Vec<RunLine>,
    /// Noise band of the wall time of runs that were ok; `None` if there are too few.
    pub wall: Option<Band>,
    /// Change of the wall time of runs that were ok.
    pub wall_shift: Option<Shift>,
    /// What failed or needed a retry: broken first, then new, always failing, flaky, fixed.
    pub troubles: Vec<Trouble>,
    /// Cells that couldn't be judged, by reason, the most frequent first.
    pub infrastructure: Vec<Infrastructure>,
    /// Cells and steps whose time changed, the largest change first.
    pub shifts: Vec<Slower>,
    /// What the newest run didn't verify.
    pub ledger: Ledger,
    /// Runs whose steps are left out because the history has too many.
    pub without_steps: usize,
}

/// A run of the history.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunLine {
    /// Id of the run.
    pub run: RunId,
    /// Time of submission.
    #[serde(serialize_with = "crate::view::rfc3339_always")]
    pub submitted: Timestamp,
    /// Outcome; `null` while it runs.
    pub outcome: Option<Outcome>,
    /// Time from submission to finish, in microseconds.
    pub wall_us: u64,
    /// Number of cells, and of those that were ok.
    pub cells: usize,
    /// Number of cells that were ok.
    pub ok: usize,
    /// Whether the plan differs from that of the run before.
    pub changed: bool,
}

/// A step, or a cell as a whole, that wasn't always fine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trouble {
    /// Title of the step; `None` for cells that failed outside their steps.
    pub step: Option<String>,
    /// What the outcomes of these cells say.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The run since which it is so.
    pub since: Option<RunId>,
    /// Cells with this verdict.
    pub cells: Vec<CellId>,
    /// Where: an axis value that has exactly these cells, or the cells' axis values.
    pub place: String,
    /// For flakiness: the axis value to which it is limited, if it is.
    pub axis: Option<Axis>,
    /// One character for each run, the worst of the cells.
    pub line: String,
}

/// An axis value that explains where flakiness occurs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Axis {
    /// The axis.
    pub axis: String,
    /// Its value.
    pub value: String,
    /// Unsteady outcomes with this value, and all judged ones with it.
    pub inside: (usize, usize),
    /// Unsteady outcomes with other values, and all judged ones with them.
    pub outside: (usize, usize),
    /// Chance of this by accident (Fisher's exact test, one-sided), times the number of values tried.
    pub chance: f64,
}

/// Cells that couldn't be judged for one reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Infrastructure {
    /// The reason, with `#` for numbers.
    pub reason: String,
    /// Number of cells over all runs.
    pub times: usize,
    /// Number of runs.
    pub runs: usize,
    /// The newest of them.
    pub newest: RunId,
}

/// A cell or step whose time changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Slower {
    /// Title of the step, with the median over its cells; `None` for a cell.
    pub step: Option<String>,
    /// Name of the cell; `None` for a step.
    pub cell: Option<String>,
    /// The change.
    #[serde(flatten)]
    pub shift: Shift,
    /// The first run with the new time.
    pub run: RunId,
}

/// Step of a cell; `None` for the cell as a whole.
type Thing = (usize, Option<usize>);

/// What cells of one trouble share: the place in the list, the step, and since when.
type Alike = (u8, Option<usize>, Option<usize>);

/// Returns the history at a glance. Only runs that weren't cancelled count.
pub fn overview(spec: &str, history: &History, now: Timestamp) -> Overview {
    let runs: Vec<&PastRun> = history.judged().collect();
    let walls: Vec<Option<u64>> = runs
        .iter()
        .map(|run| {
            run.outcome
                .is_some_and(|outcome| outcome.is_ok())
                .then_some(run.wall_us)
        })
        .collect();
    let known: Vec<u64> = walls.iter().flatten().copied().collect();
    Overview {
        spec: spec.to_owned(),
        runs: history
            .runs()
            .iter()
            .enumerate()
            .map(|(at, run)| run_line(history, at, run))
            .collect(),
        wall: Band::of(&known),
        wall_shift: shift(&walls),
        troubles: troubles(history, &runs),
        infrastructure: infrastructure(&runs),
        shifts: shifts(history, &runs),
        ledger: ledger(history, now),
        without_steps: runs.iter().filter(|run| run.without_steps).count(),
    }
}

fn run_line(history: &History, at: usize, run: &PastRun) -> RunLine {
    let before = at.checked_sub(1).and_then(|at| history.runs().get(at));
    let ok = |cell: &&PastCell| cell.outcome.is_some_and(|outcome| outcome.is_ok());
    RunLine {
        run: run.run.clone(),
        submitted: run.submitted,
        outcome: run.outcome,
        wall_us: run.wall_us,
        cells: run.cells.len(),
        ok: run.cells.iter().filter(ok).count(),
        changed: before.is_some_and(|before| before.digest != run.digest),
    }
}

/// Returns the marks of every step and cell that was ever unsteady, one for each run.
fn unsteady(runs: &[&PastRun]) -> BTreeMap<Thing, Vec<Mark>> {
    let mut things: BTreeMap<Thing, Vec<Mark>> = BTreeMap::new();
    for cell in runs.iter().flat_map(|run| &run.cells) {
        let bad = cell
            .steps
            .iter()
            .filter(|step| Mark::of(step.outcome).is_unsteady());
        let mut named = false;
        for step in bad {
            named = true;
            things.entry((cell.cell, Some(step.title))).or_default();
        }
        if !named && Mark::of(cell.outcome).is_unsteady() {
            things.entry((cell.cell, None)).or_default();
        }
    }
    things
        .values_mut()
        .for_each(|marks| marks.resize(runs.len(), Mark::Absent));
    for (at, run) in runs.iter().enumerate() {
        for cell in &run.cells {
            let mut set = |thing: Thing, mark: Mark| {
                if let Some(known) = things.get_mut(&thing).and_then(|marks| marks.get_mut(at)) {
                    *known = known.worse(mark);
                }
            };
            let mut steps_failed = false;
            for step in &cell.steps {
                let mark = Mark::of(step.outcome);
                steps_failed |= mark.is_unsteady();
                set((cell.cell, Some(step.title)), mark);
            }
            // A cell that failed by its steps says nothing about what is outside them.
            let outside = match Mark::of(cell.outcome) {
                mark if mark.is_unsteady() && steps_failed => Mark::Absent,
                mark => mark,
            };
            set((cell.cell, None), outside);
        }
    }
    things
}

fn troubles(history: &History, runs: &[&PastRun]) -> Vec<Trouble> {
    let all: BTreeSet<usize> = runs
        .iter()
        .flat_map(|run| &run.cells)
        .map(|cell| cell.cell)
        .collect();
    let things = unsteady(runs);
    let mut groups: BTreeMap<Alike, Vec<(usize, Verdict)>> = BTreeMap::new();
    for ((cell, step), marks) in &things {
        let said = verdict(marks);
        if let Some(rank) = rank(said) {
            let since = since(said).filter(|_| rank != FLAKY);
            groups
                .entry((rank, *step, since))
                .or_default()
                .push((*cell, said));
        }
    }
    let of_group = |((_, step, since), cells): (Alike, Vec<(usize, Verdict)>)| {
        let members: BTreeSet<usize> = cells.iter().map(|(cell, _)| *cell).collect();
        let mut line_marks = vec![Mark::Absent; runs.len()];
        for cell in &members {
            let marks = things.get(&(*cell, step)).into_iter().flatten();
            for (known, mark) in line_marks.iter_mut().zip(marks) {
                *known = known.worse(*mark);
            }
        }
        let said = together(&cells);
        let flaky = matches!(said, Verdict::Flaky { .. });
        let run = since.and_then(|at| runs.get(at)).map(|run| run.run.clone());
        Trouble {
            step: step.map(|step| history.title(step).to_owned()),
            verdict: said,
            since: run,
            place: place(history, &all, &members),
            axis: flaky
                .then(|| flaky_axis(history, runs, step, &members))
                .flatten(),
            cells: members
                .iter()
                .filter_map(|cell| Some(history.cell(*cell)?.0.clone()))
                .collect(),
            line: line(&line_marks),
        }
    };
    let mut troubles: Vec<(u8, Trouble)> = groups
        .into_iter()
        .map(|group| (group.0.0, of_group(group)))
        .collect();
    troubles.sort_by_key(|(rank, trouble)| (*rank, std::cmp::Reverse(trouble.cells.len())));
    troubles
        .into_iter()
        .map(|(_, trouble)| trouble)
        .take(LISTED)
        .collect()
}

const FLAKY: u8 = 3;

/// Returns the place of a verdict in the list; `None` if it is no trouble.
pub(super) fn rank(verdict: Verdict) -> Option<u8> {
    match verdict {
        Verdict::Unknown | Verdict::Steady => None,
        Verdict::Broken { .. } => Some(0),
        Verdict::New { .. } => Some(1),
        Verdict::Always => Some(2),
        Verdict::Flaky { .. } => Some(FLAKY),
        Verdict::Fixed { .. } => Some(4),
    }
}

pub(super) fn since(verdict: Verdict) -> Option<usize> {
    match verdict {
        Verdict::New { since } | Verdict::Broken { since } | Verdict::Fixed { since } => {
            Some(since)
        }
        Verdict::Flaky { since, .. } => since,
        _ => None,
    }
}

/// Returns the verdict of a group: for flaky cells, the sum of their outcomes.
fn together(cells: &[(usize, Verdict)]) -> Verdict {
    let sum = cells
        .iter()
        .fold(None, |sum, (_, verdict)| match (sum, *verdict) {
            (
                Some((unsteady, of, from)),
                Verdict::Flaky {
                    unsteady: u,
                    of: o,
                    since,
                },
            ) => Some((
                unsteady + u,
                of + o,
                if from == since { from } else { None },
            )),
            (
                None,
                Verdict::Flaky {
                    unsteady,
                    of,
                    since,
                },
            ) => Some((unsteady, of, since)),
            (sum, _) => sum,
        });
    match (sum, cells.first()) {
        (Some((unsteady, of, since)), _) => Verdict::Flaky {
            unsteady,
            of,
            since,
        },
        (None, Some((_, verdict))) => *verdict,
        (None, None) => Verdict::Unknown,
    }
}

/// Returns the axis value to which the flakiness of a step is limited. Cells whose verdict isn't steady or flaky are
/// left out: a break is no flake.
pub(super) fn flaky_axis(
    history: &History,
    runs: &[&PastRun],
    step: Option<usize>,
    flaky: &BTreeSet<usize>,
) -> Option<Axis> {
    let mut counts: HashMap<usize, (usize, usize)> = HashMap::new();
    for cell in runs.iter().flat_map(|run| &run.cells) {
        let mark = match step {
            Some(step) => {
                let same = cell.steps.iter().filter(|known| known.title == step);
                same.fold(Mark::Absent, |mark, step| {
                    mark.worse(Mark::of(step.outcome))
                })
            }
            None => Mark::of(cell.outcome),
        };
        if mark.is_judged() && (flaky.contains(&cell.cell) || !mark.is_unsteady()) {
            let (unsteady, of) = counts.entry(cell.cell).or_default();
            *unsteady += usize::from(mark.is_unsteady());
            *of += 1;
        }
    }
    let mut by_value: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
    let (mut unsteady, mut all) = (0, 0);
    for (cell, (bad, of)) in &counts {
        (unsteady, all) = (unsteady + bad, all + of);
        for (axis, value) in history
            .cell(*cell)
            .map(|(_, name)| &name.matrix)
            .into_iter()
            .flatten()
        {
            let known = by_value.entry((axis, value)).or_default();
            *known = (known.0 + bad, known.1 + of);
        }
    }
    let tried = by_value.len() as f64;
    let odds = Odds::up_to(all);
    let axes = by_value.into_iter().map(|((axis, value), (bad, of))| {
        let outside = (unsteady - bad, all - of);
        let chance = odds.fisher(all, unsteady, of, bad) * tried;
        Axis {
            axis: axis.to_owned(),
            value: value.to_owned(),
            inside: (bad, of),
            outside,
            chance,
        }
    });
    axes.filter(|axis| axis.chance < CHANCE)
        .min_by(|a, b| a.chance.total_cmp(&b.chance))
}

fn infrastructure(runs: &[&PastRun]) -> Vec<Infrastructure> {
    let mut reasons: BTreeMap<String, (usize, HashSet<&RunId>, &RunId)> = BTreeMap::new();
    for run in runs {
        let errored = run
            .cells
            .iter()
            .filter(|cell| cell.outcome == Some(Outcome::Errored));
        for cell in errored {
            let reason = without_numbers(cell.reason.as_deref().unwrap_or("no reason given"));
            let known = reasons
                .entry(reason)
                .or_insert_with(|| (0, HashSet::new(), &run.run));
            known.0 += 1;
            known.1.insert(&run.run);
            known.2 = &run.run;
        }
    }
    let mut found: Vec<Infrastructure> = reasons
        .into_iter()
        .map(|(reason, (times, runs, newest))| Infrastructure {
            reason,
            times,
            runs: runs.len(),
            newest: newest.clone(),
        })
        .collect();
    found.sort_by_key(|one| std::cmp::Reverse(one.times));
    found.truncate(LISTED);
    found
}

/// Replaces each number by `#`, so that reasons that differ in numbers only are one.
fn without_numbers(reason: &str) -> String {
    let mut out = String::with_capacity(reason.len());
    for c in reason.chars() {
        match c {
            '0'..='9' if out.ends_with('#') => {}
            '0'..='9' => out.push('#'),
            c => out.push(c),
        }
    }
    out
}

fn shifts(history: &History, runs: &[&PastRun]) -> Vec<Slower> {
    let mut cells: BTreeMap<usize, Vec<Option<u64>>> = BTreeMap::new();
    let mut steps: BTreeMap<usize, Vec<Vec<u64>>> = BTreeMap::new();
    for (at, run) in runs.iter().enumerate() {
        for cell in &run.cells {
            if cell.outcome == Some(Outcome::Passed) {
                let times = cells
                    .entry(cell.cell)
                    .or_insert_with(|| vec![None; runs.len()]);
                if let Some(time) = times.get_mut(at) {
                    *time = cell.elapsed_us;
                }
            }
            for step in cell
                .steps
                .iter()
                .filter(|step| step.outcome == Some(Outcome::Passed))
            {
                let times = steps
                    .entry(step.title)
                    .or_insert_with(|| vec![Vec::new(); runs.len()]);
                if let Some(times) = times.get_mut(at) {
                    times.push(step.elapsed_us);
                }
            }
        }
    }
    let of_cells = cells.into_iter().map(|(cell, times)| {
        let name = history.cell(cell).map(|(_, name)| name.name.clone());
        ((None, name), times)
    });
    let of_steps = steps.into_iter().map(|(title, times)| {
        let medians = times
            .iter()
            .map(|times| super::band::median(times))
            .collect();
        ((Some(history.title(title).to_owned()), None), medians)
    });
    let mut found: Vec<Slower> = of_cells
        .chain(of_steps)
        .filter_map(|((step, cell), times): (_, Vec<Option<u64>>)| {
            let shift = shift(&times)?;
            let run = runs.get(shift.since)?.run.clone();
            Some(Slower {
                step,
                cell,
                shift,
                run,
            })
        })
        .collect();
    found.sort_by_key(|one| std::cmp::Reverse(one.shift.before_us.abs_diff(one.shift.after_us)));
    found.truncate(LISTED);
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::planted::{Cell, Random, Run, history};
    use super::*;
    use phalanx_shared::outcome::Outcome::{Errored, Failed, Passed};

    const DBS: [&str; 3] = ["mysql", "pg", "maria"];
    const IMAGES: [&str; 4] = ["v1", "v2", "v3", "v4"];

    /// Returns runs whose cells end as `outcome(run, db, image)` says.
    fn runs(count: usize, mut outcome: impl FnMut(usize, &str, &str) -> Outcome) -> Vec<Run> {
        let cell = |run: usize, outcome: &mut dyn FnMut(usize, &str, &str) -> Outcome| {
            let mut cells = Vec::new();
            for db in DBS {
                for image in IMAGES {
                    cells.push(Cell::of(
                        &[("db", db), ("image", image)],
                        outcome(run, db, image),
                        5.0,
                    ));
                }
            }
            cells
        };
        (0..count)
            .map(|run| Run::of(run, cell(run, &mut outcome)))
            .collect()
    }

    #[test]
    fn a_break_on_one_axis_value_is_one_trouble_with_its_run_and_place() {
        let runs = runs(10, |run, db, _| {
            if run >= 6 && db == "pg" {
                Failed
            } else {
                Passed
            }
        });
        let overview = overview("shop", &history(&runs), runs[9].at(10.0));
        let [trouble] = overview.troubles.as_slice() else {
            panic!("{:#?}", overview.troubles);
        };
        assert_eq!(trouble.verdict, Verdict::Broken { since: 6 });
        assert_eq!(trouble.since.as_ref().unwrap().as_str(), "run-006");
        assert_eq!(
            (trouble.place.as_str(), trouble.line.as_str()),
            ("db=pg", "······FFFF")
        );
        assert_eq!(trouble.step.as_deref(), Some("test > check"));
        assert_eq!(
            overview.ledger.stale[0].text(),
            "not verified for 4 days: db=pg (pay)"
        );
    }

    #[test]
    fn flakiness_on_one_axis_value_is_told_and_everywhere_is_not() {
        let mut random = Random(11);
        let (mut found, mut wrong, mut broken) = (0, 0, 0);
        for _ in 0..40 {
            let on_one = runs(20, |_, db, _| {
                if db == "mysql" && random.share() < 0.25 {
                    Failed
                } else {
                    Passed
                }
            });
            let overview = overview("shop", &history(&on_one), on_one[19].at(10.0));
            let flaky: Vec<_> = overview
                .troubles
                .iter()
                .filter(|t| matches!(t.verdict, Verdict::Flaky { .. }))
                .collect();
            let on_mysql = |axis: &Axis| axis.value == "mysql" && axis.outside.0 == 0;
            found += usize::from(flaky.iter().any(|t| t.axis.as_ref().is_some_and(on_mysql)));
            broken += overview
                .troubles
                .iter()
                .filter(|t| matches!(t.verdict, Verdict::Broken { .. }))
                .count();
            let everywhere = runs(
                20,
                |_, _, _| if random.share() < 0.1 { Failed } else { Passed },
            );
            let overview = super::overview("shop", &history(&everywhere), everywhere[19].at(10.0));
            wrong += usize::from(overview.troubles.iter().any(|t| t.axis.is_some()));
        }
        assert!(found >= 38, "{found} of 40 planted axis values");
        assert!(wrong <= 2, "{wrong} of 40 axis values without a cause");
        assert!(
            broken <= 3,
            "{broken} flaky groups of 40 histories called broken"
        );
    }

    #[test]
    fn what_could_not_be_judged_is_apart_and_no_trouble() {
        let mut runs = runs(6, |run, db, _| {
            if run % 2 == 0 && db == "pg" {
                Errored
            } else {
                Passed
            }
        });
        for (number, run) in runs.iter_mut().enumerate() {
            for cell in &mut run.cells {
                if cell.outcome == Some(Errored) {
                    cell.steps.clear();
                    cell.reason = Some(format!("pulling pg:17: no answer after {number} s"));
                }
            }
        }
        let overview = overview("shop", &history(&runs), runs[5].at(10.0));
        assert_eq!(overview.troubles, []);
        let [one] = overview.infrastructure.as_slice() else {
            panic!("{:#?}", overview.infrastructure);
        };
        assert_eq!(one.reason, "pulling pg:#: no answer after # s");
        assert_eq!(
            (one.times, one.runs, one.newest.as_str()),
            (12, 3, "run-004")
        );
    }

    #[test]
    fn a_slower_step_is_told_with_its_run() {
        let mut runs = runs(12, |_, _, _| Passed);
        for run in runs.iter_mut().skip(7) {
            run.cells.iter_mut().for_each(|cell| cell.steps[0].2 = 8.0);
        }
        let overview = overview("shop", &history(&runs), runs[11].at(10.0));
        let step = overview
            .shifts
            .iter()
            .find(|one| one.step.is_some())
            .unwrap();
        assert_eq!(
            (step.shift.before_us, step.shift.after_us),
            (5_000_000, 8_000_000)
        );
        assert_eq!(step.run.as_str(), "run-007");
        assert_eq!(overview.wall_shift.unwrap().since, 7);
    }
}
