//! The smallest rule over the axes that tells the cells of a finding from the others.
//!
//! A rule costs what it takes to write it down (which axes, which of their values) plus what it takes to name the cells
//! in which it is wrong; the cheapest description wins (minimum description length). So a rule of one value is taken
//! before a set of values, a set before a pair of axes, and an exception in the data doesn't make a rule longer than it
//! deserves. Whether the cheapest one is believed is decided by Fisher's exact test, with the p value multiplied by the
//! number of rules that are as simple.

use super::axes::{Axes, Column};
use super::{Explained, Is, Rule, SHOWN, Term};
use serde_json::Value;

/// Rules with a higher corrected p value aren't believed if they are wrong in a cell.
const ALPHA: f64 = 0.05;
/// Rules that are right in all cells are told up to this corrected p value: with few cells nothing is certain.
const ALPHA_EXACT: f64 = 0.25;
/// A single value that is right in all cells is told up to this uncorrected p value.
const ALPHA_VALUE: f64 = 0.1;
/// Maximum number of rules of one finding.
const RULES: usize = 3;
/// Largest table of two axes that is searched for a pair.
const TABLE: usize = 4_096;
/// Maximum number of terms from which the search in a table starts.
const STARTS: usize = 48;
/// Rounds in which the terms of a pair are improved in turn.
const ROUNDS: usize = 4;

/// Cells to be told apart.
pub(super) struct Split<'a> {
    /// Cells that have what is to be explained.
    pub(super) with: &'a [usize],
    /// Cells that are compared and don't have it.
    pub(super) without: &'a [usize],
}

/// Returns the rules that tell the cells apart, and takes the steps of the search from `work`.
pub(super) fn explain(axes: &Axes, split: &Split, work: &mut Work) -> Explained {
    if split.without.is_empty() {
        return Explained::Everywhere;
    }
    if split.with.len() < 2 {
        return Explained::NoRule;
    }
    let mut rules: Vec<Rule> = Vec::new();
    let mut with = split.with.to_vec();
    let mut without = split.without.to_vec();
    while rules.len() < RULES && with.len() >= 2 && !without.is_empty() {
        let rest = Split {
            with: &with,
            without: &without,
        };
        let Some((rule, picks)) = best(axes, &rest, work) else {
            break;
        };
        let fits = |cell: &usize| picks.iter().all(|(column, set)| column.is_in(*cell, set));
        with.retain(|cell| !fits(cell));
        without.retain(|cell| !fits(cell));
        let first = rules.is_empty();
        rules.push(match first {
            true => rule,
            false => whole(rule, &picks, split),
        });
    }
    match rules.is_empty() {
        true if work.left == 0 => Explained::NotSought,
        true => Explained::NoRule,
        false => Explained::Rules {
            rules,
            outside: with.len(),
        },
    }
}

/// A bound on the search over all findings of a run, in visited entries of tables.
pub(super) struct Work {
    pub(super) left: usize,
}

impl Work {
    fn take(&mut self, steps: usize) -> bool {
        let fits = self.left >= steps;
        self.left = self.left.saturating_sub(steps);
        fits
    }
}

/// Counts a later rule again over all cells, because it was sought in those that the rules before it left.
fn whole(rule: Rule, picks: &[(&Column, Vec<usize>)], split: &Split) -> Rule {
    let fits = |cell: &&usize| picks.iter().all(|(column, set)| column.is_in(**cell, set));
    let hits = split.with.iter().filter(fits).count();
    let counterexamples: Vec<usize> = split.without.iter().filter(fits).copied().collect();
    let missed = split.with.iter().filter(|cell| !fits(cell)).copied();
    Rule {
        hits,
        matching: hits + counterexamples.len(),
        missed: missed.take(SHOWN).collect(),
        counterexamples: counterexamples.into_iter().take(SHOWN).collect(),
        ..rule
    }
}

/// A rule made ready to be asked about many cells.
pub(super) struct Matcher<'a> {
    /// For each term its axis, and which of the axis's values fit.
    terms: Vec<(&'a Column, Vec<bool>)>,
}

impl<'a> Matcher<'a> {
    pub(super) fn new(axes: &'a Axes, rule: &Rule) -> Matcher<'a> {
        let terms = rule.terms.iter().filter_map(|term| {
            let mut columns = axes.columns.iter();
            let column = columns.find(|column| column.name == term.axis)?;
            Some((column, column.fitting(&term.is)))
        });
        Matcher {
            terms: terms.collect(),
        }
    }

    /// Returns whether a cell matches the rule.
    pub(super) fn is_match(&self, cell: usize) -> bool {
        self.terms.iter().all(|(column, fitting)| {
            let value = column.of_cell.get(cell);
            value.is_some_and(|value| fitting.get(*value).copied().unwrap_or_default())
        })
    }
}

impl Column {
    /// Returns for each value whether it fits.
    fn fitting(&self, is: &Is) -> Vec<bool> {
        let place = |wanted: &Value| {
            let mut values = self.values.iter();
            values.position(|known| known.as_ref() == Some(wanted))
        };
        let (low, high) = match is {
            Is::AtLeast(least) => (place(least).unwrap_or(usize::MAX), usize::MAX),
            Is::AtMost(most) => (0, place(most).unwrap_or_default()),
            Is::In(_) | Is::NotIn(_) => (0, usize::MAX),
        };
        let fits = |(index, value): (usize, &Option<Value>)| match is {
            Is::In(values) => values.contains(value),
            Is::NotIn(values) => !values.contains(value),
            Is::AtLeast(_) | Is::AtMost(_) => value.is_some() && (low..=high).contains(&index),
        };
        self.values.iter().enumerate().map(fits).collect()
    }

    fn is_in(&self, cell: usize, set: &[usize]) -> bool {
        let value = self.of_cell.get(cell);
        value.is_some_and(|value| set.binary_search(value).is_ok())
    }
}

type Picks<'a> = Vec<(&'a Column, Vec<usize>)>;

/// Returns the cheapest rule if it is believed, with the values that each of its terms takes.
fn best<'a>(axes: &'a Axes, split: &Split, work: &mut Work) -> Option<(Rule, Picks<'a>)> {
    let search = Search::new(axes, split);
    if !work.take(search.rows() * search.locals.len()) {
        return None;
    }
    let mut best: Option<Found> = None;
    for axis in 0..search.locals.len() {
        best = cheaper(best, search.single(axis));
    }
    let exact = best.as_ref().is_some_and(|best| search.is_exact(best));
    if !exact {
        for a in 0..search.locals.len() {
            for b in a + 1..search.locals.len() {
                if !work.take(search.effort(a, b)) {
                    return None;
                }
                best = cheaper(best, search.pair(a, b));
            }
        }
    }
    let best = best?;
    search.believed(&best).then(|| search.told(&best))
}

fn cheaper(one: Option<Found>, other: Option<Found>) -> Option<Found> {
    match (&one, &other) {
        (Some(best), Some(found)) if found.cost < best.cost => other,
        (None, _) => other,
        _ => one,
    }
}

/// A rule while it is sought.
struct Found {
    /// Bits to describe the rule and the cells in which it is wrong.
    cost: f64,
    /// Bits to describe the rule alone.
    bits: f64,
    terms: Vec<(usize, Pick)>,
    tally: Tally,
}

/// A number of cells, and how many of them have the finding.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    with: usize,
    all: usize,
}

/// What a term takes of an axis, by positions among the values that occur.
#[derive(Clone)]
enum Pick {
    Value(usize),
    AtLeast(usize),
    AtMost(usize),
    Set(Vec<usize>),
    /// The values in which the finding is most frequent; becomes a set once it is chosen.
    Most(usize),
}

/// An axis with the values that occur among the compared cells.
struct Local<'a> {
    column: &'a Column,
    /// Positions in the column's values.
    values: Vec<usize>,
    /// Position in `values` for each row.
    of_row: Vec<usize>,
    /// How many of the first values have an order.
    ordered: usize,
}

struct Search<'a> {
    axes: &'a Axes,
    cells: Vec<(usize, bool)>,
    locals: Vec<Local<'a>>,
    whole: Tally,
}

impl<'a> Search<'a> {
    fn new(axes: &'a Axes, split: &Split) -> Search<'a> {
        let with = split.with.iter().map(|cell| (*cell, true));
        let without = split.without.iter().map(|cell| (*cell, false));
        let mut cells: Vec<(usize, bool)> = with.chain(without).collect();
        cells.sort_unstable();
        let locals = axes
            .columns
            .iter()
            .map(|column| Local::new(column, &cells))
            .filter(|local| local.values.len() > 1)
            .collect();
        Search {
            axes,
            whole: Tally {
                with: split.with.len(),
                all: cells.len(),
            },
            cells,
            locals,
        }
    }

    fn rows(&self) -> usize {
        self.cells.len()
    }

    fn single(&self, axis: usize) -> Option<Found> {
        let local = self.locals.get(axis)?;
        let mut counts = vec![Tally::default(); local.values.len()];
        for ((_, with), value) in self.cells.iter().zip(&local.of_row) {
            add(&mut counts, *value, *with);
        }
        let bits = 1.0 + (self.locals.len() as f64).log2();
        let (pick, term_bits, tally) = self.best_term(local, &counts)?;
        Some(Found {
            cost: self.cost(tally) + bits + term_bits,
            bits: bits + term_bits,
            terms: vec![(axis, pick)],
            tally,
        })
    }

    /// Returns a bound on the entries that [`Search::pair`] visits.
    fn effort(&self, a: usize, b: usize) -> usize {
        let values = |axis: usize| self.locals.get(axis).map_or(0, |local| local.values.len());
        let table = values(a) * values(b);
        match table <= TABLE {
            true => self.rows() + table * STARTS.min(values(a) * 3) * ROUNDS,
            false => 0,
        }
    }

    /// Searches the best pair of terms on two axes: starts from terms of the first axis, finds the best term of the
    /// second for it, then the best of the first for that, until nothing gets better.
    fn pair(&self, a: usize, b: usize) -> Option<Found> {
        let table = Table::of(self.locals.get(a)?, self.locals.get(b)?, &self.cells)?;
        let axes = self.locals.len() as f64;
        let bits = 1.0 + (axes * (axes - 1.0) / 2.0).log2();
        let mut best: Option<Found> = None;
        for start in table.starts() {
            let mut first = start;
            let mut last = f64::INFINITY;
            for _ in 0..ROUNDS {
                let set = table.a.set(&first);
                let Some((second, second_bits, _)) = self.best_term(table.b, &table.within_a(&set))
                else {
                    break;
                };
                let set = table.b.set(&second);
                let Some((again, first_bits, tally)) =
                    self.best_term(table.a, &table.within_b(&set))
                else {
                    break;
                };
                first = again;
                let bits = bits + first_bits + second_bits;
                let cost = self.cost(tally) + bits;
                if cost >= last {
                    break;
                }
                last = cost;
                if best.as_ref().is_none_or(|best| cost < best.cost) {
                    let terms = vec![(a, first.clone()), (b, second)];
                    best = Some(Found {
                        cost,
                        bits,
                        terms,
                        tally,
                    });
                }
            }
        }
        best
    }

    /// Returns the cheapest term of an axis, its bits, and the cells that match; `counts` has the cells of each value.
    fn best_term(&self, local: &Local, counts: &[Tally]) -> Option<(Pick, f64, Tally)> {
        let values = counts.len() as f64;
        let mut best: Option<(f64, Pick, f64, Tally)> = None;
        let mut keep = |pick: Pick, bits: f64, tally: Tally| {
            let cost = self.cost(tally) + bits;
            if self.is_more_often(tally) && best.as_ref().is_none_or(|(least, ..)| cost < *least) {
                best = Some((cost, pick, bits, tally));
            }
        };
        for (index, tally) in counts.iter().enumerate() {
            keep(Pick::Value(index), 1.0 + values.log2(), *tally);
        }
        let ordered = counts.get(..local.ordered).unwrap_or_default();
        if ordered.len() > 2 {
            let bits = 2.0 + (2.0 * (ordered.len() - 1) as f64).log2();
            let mut most = Tally::default();
            for (index, tally) in ordered.iter().enumerate().take(ordered.len() - 1) {
                most = most + *tally;
                keep(Pick::AtMost(index), bits, most);
            }
            let mut least = Tally::default();
            for (index, tally) in ordered.iter().enumerate().skip(1).rev() {
                least = least + *tally;
                keep(Pick::AtLeast(index), bits, least);
            }
        }
        let order = by_rate(counts);
        let mut set = Tally::default();
        for (index, (_, tally)) in order.iter().enumerate() {
            set = set + *tally;
            let size = index + 1;
            if size > 1 && size < counts.len() {
                let ways = self.axes.ln_choose(counts.len(), size) / std::f64::consts::LN_2;
                keep(Pick::Most(size), 2.0 + values.log2() + ways, set);
            }
        }
        let (_, pick, bits, tally) = best?;
        let pick = match pick {
            Pick::Most(size) => {
                let set = order.iter().take(size).map(|(index, _)| *index);
                Pick::Set(set.collect())
            }
            pick => pick,
        };
        Some((pick, bits, tally))
    }

    /// Returns the bits that name the cells with the finding among those that match, and among the others.
    fn cost(&self, tally: Tally) -> f64 {
        let bits = |tally: Tally| {
            let ways = self.axes.ln_choose(tally.all, tally.with) / std::f64::consts::LN_2;
            ways + ((tally.all + 1) as f64).log2()
        };
        bits(tally) + bits(self.whole - tally)
    }

    fn is_more_often(&self, tally: Tally) -> bool {
        let rest = self.whole - tally;
        tally.with > 0 && rest.all > 0 && tally.with * rest.all > rest.with * tally.all
    }

    /// Returns whether a rule is right in every cell.
    fn is_exact(&self, found: &Found) -> bool {
        found.tally.with == self.whole.with && found.tally.all == found.tally.with
    }

    fn p(&self, found: &Found) -> f64 {
        let Tally { with, all } = found.tally;
        self.axes.fisher(self.whole.all, self.whole.with, all, with)
    }

    fn corrected(&self, found: &Found) -> f64 {
        (self.p(found) * found.bits.exp2()).min(1.0)
    }

    fn believed(&self, found: &Found) -> bool {
        if found.tally.with < 2 {
            return false;
        }
        let corrected = self.corrected(found);
        let value = matches!(found.terms.as_slice(), [(_, Pick::Value(_))]);
        corrected <= ALPHA
            || (self.is_exact(found)
                && (corrected <= ALPHA_EXACT || (value && self.p(found) <= ALPHA_VALUE)))
    }

    fn told(&self, found: &Found) -> (Rule, Picks<'a>) {
        let picks: Picks<'a> = found
            .terms
            .iter()
            .filter_map(|(axis, pick)| {
                let local = self.locals.get(*axis)?;
                Some((local.column, local.column_set(pick)))
            })
            .collect();
        let terms = found
            .terms
            .iter()
            .filter_map(|(axis, pick)| self.locals.get(*axis)?.term(pick));
        let fits = |cell: usize| picks.iter().all(|(column, set)| column.is_in(cell, set));
        let cells = |with: bool, matches: bool| -> Vec<usize> {
            let cells = self.cells.iter();
            let wanted = cells.filter(|(cell, has)| *has == with && fits(*cell) == matches);
            wanted.map(|(cell, _)| *cell).take(SHOWN).collect()
        };
        let rule = Rule {
            terms: terms.collect(),
            hits: found.tally.with,
            missed: cells(true, false),
            matching: found.tally.all,
            counterexamples: cells(false, true),
            p: self.corrected(found),
        };
        (rule, picks)
    }
}

impl<'a> Local<'a> {
    fn new(column: &'a Column, cells: &[(usize, bool)]) -> Local<'a> {
        let value = |cell: usize| column.of_cell.get(cell).copied().unwrap_or_default();
        let mut values: Vec<usize> = cells.iter().map(|(cell, _)| value(*cell)).collect();
        values.sort_unstable();
        values.dedup();
        let place = |cell: usize| values.binary_search(&value(cell)).unwrap_or_default();
        let of_row = cells.iter().map(|(cell, _)| place(*cell)).collect();
        let present = |index: &&usize| column.values.get(**index).is_some_and(Option::is_some);
        let ordered = match column.ordered {
            true => values.iter().filter(present).count(),
            false => 0,
        };
        Local {
            column,
            values,
            of_row,
            ordered,
        }
    }

    /// Returns the positions that a pick takes.
    fn set(&self, pick: &Pick) -> Vec<usize> {
        match pick {
            Pick::Value(index) => vec![*index],
            Pick::AtLeast(index) => (*index..self.ordered).collect(),
            Pick::AtMost(index) => (0..=*index).collect(),
            Pick::Set(set) => set.clone(),
            Pick::Most(_) => Vec::new(),
        }
    }

    /// Returns the positions in the column's values that a pick takes.
    fn column_set(&self, pick: &Pick) -> Vec<usize> {
        let set = self.set(pick);
        let values = set.iter().filter_map(|index| self.values.get(*index));
        let mut values: Vec<usize> = values.copied().collect();
        values.sort_unstable();
        values
    }

    fn term(&self, pick: &Pick) -> Option<Term> {
        let value = |index: usize| self.column.values.get(*self.values.get(index)?).cloned();
        let is = match pick {
            Pick::Value(index) => Is::In(vec![value(*index)?]),
            Pick::AtLeast(index) => Is::AtLeast(value(*index)??),
            Pick::AtMost(index) => Is::AtMost(value(*index)??),
            Pick::Most(_) => return None,
            Pick::Set(set) => {
                let mut set = set.clone();
                set.sort_unstable();
                let (all, few) = (self.values.len(), set.len());
                match all >= 4 && all - few < few {
                    true => {
                        let others = (0..all).filter(|index| !set.contains(index));
                        Is::NotIn(others.filter_map(value).collect())
                    }
                    false => Is::In(set.into_iter().filter_map(value).collect()),
                }
            }
        };
        Some(Term {
            axis: self.column.name.clone(),
            is,
        })
    }
}

/// Returns the values that occur in the finding, those in which it is most frequent first. The best set of any size is
/// a beginning of this order.
fn by_rate(counts: &[Tally]) -> Vec<(usize, Tally)> {
    let mut order: Vec<(usize, Tally)> = counts.iter().copied().enumerate().collect();
    order.retain(|(_, tally)| tally.with > 0);
    order.sort_by(|(_, a), (_, b)| {
        let (left, right) = (a.with * b.all, b.with * a.all);
        right.cmp(&left).then(b.all.cmp(&a.all))
    });
    order
}

/// The cells by the values of two axes.
struct Table<'a> {
    a: &'a Local<'a>,
    b: &'a Local<'a>,
    /// Row by row: the values of `b` for the first value of `a`, then for the second …
    counts: Vec<Tally>,
}

impl<'a> Table<'a> {
    /// Counts the cells; `None` if the table would be too large.
    fn of(a: &'a Local<'a>, b: &'a Local<'a>, cells: &[(usize, bool)]) -> Option<Table<'a>> {
        let size = a.values.len() * b.values.len();
        if size > TABLE {
            return None;
        }
        let mut counts = vec![Tally::default(); size];
        let values = a.of_row.iter().zip(&b.of_row);
        for ((_, with), (in_a, in_b)) in cells.iter().zip(values) {
            add(&mut counts, in_a * b.values.len() + in_b, *with);
        }
        Some(Table { a, b, counts })
    }

    /// Returns terms of the first axis to start from: values that occur in the finding, thresholds, and all values.
    fn starts(&self) -> Vec<Pick> {
        let every: Vec<usize> = (0..self.b.values.len()).collect();
        let counts = self.within_b(&every);
        let mut values: Vec<usize> = (0..counts.len())
            .filter(|index| counts.get(*index).is_some_and(|tally| tally.with > 0))
            .collect();
        values.sort_by_key(|index| {
            std::cmp::Reverse(counts.get(*index).map_or(0, |tally| tally.with))
        });
        let thresholds = (1..self.a.ordered.max(1))
            .flat_map(|index| [Pick::AtLeast(index), Pick::AtMost(index - 1)]);
        let all = Pick::Set(values.clone());
        let values = values.into_iter().take(STARTS / 2).map(Pick::Value);
        let starts = [all].into_iter().chain(values).chain(thresholds);
        starts.take(STARTS).collect()
    }

    fn within_a(&self, set: &[usize]) -> Vec<Tally> {
        let width = self.b.values.len();
        let mut sums = vec![Tally::default(); width];
        for row in set {
            let row = self.counts.get(row * width..(row + 1) * width);
            for (sum, tally) in sums.iter_mut().zip(row.unwrap_or_default()) {
                *sum = *sum + *tally;
            }
        }
        sums
    }

    fn within_b(&self, set: &[usize]) -> Vec<Tally> {
        let width = self.b.values.len();
        let sum_of = |row: &[Tally]| {
            let wanted = set.iter().filter_map(|index| row.get(*index));
            wanted.fold(Tally::default(), |sum, tally| sum + *tally)
        };
        self.counts.chunks(width.max(1)).map(sum_of).collect()
    }
}

fn add(counts: &mut [Tally], index: usize, with: bool) {
    if let Some(tally) = counts.get_mut(index) {
        tally.all += 1;
        tally.with += usize::from(with);
    }
}

impl std::ops::Add for Tally {
    type Output = Tally;

    fn add(self, other: Tally) -> Tally {
        Tally {
            with: self.with + other.with,
            all: self.all + other.all,
        }
    }
}

impl std::ops::Sub for Tally {
    type Output = Tally;

    fn sub(self, other: Tally) -> Tally {
        Tally {
            with: self.with.saturating_sub(other.with),
            all: self.all.saturating_sub(other.all),
        }
    }
}
