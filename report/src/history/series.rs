//! What the outcomes and times of one thing say over runs: steady, broken since a run, fixed, flaky; slower since a run.
//!
//! **Outcomes.** The series is cut into segments by the shortest description (two-part code). A segment in which all
//! runs passed, or all failed, costs ln 3 (which kind it is). A mixed one costs ln 3 + ½ ln m for its rate, and the
//! code length of its m outcomes at that rate. Each cut costs ln n for its place among n runs. So a change that stays is
//! cheaper as a cut, and failures that come and go are cheaper as a rate. The last segment gives the verdict: all failed
//! is *broken since*, never flaky. A series that changes once is always cut there.
//!
//! **Times.** The cut is the one with the least sum of distances from the medians of both sides. It counts if the
//! medians differ by more than the noise band around the earlier one (see [`super::band`]), with the distances of both
//! sides as noise, and if each side has at least three times.
//!
//! Runs that couldn't be judged (errored) say nothing about the system under test and are left out.

use super::band::{median, room};
use phalanx_shared::outcome::Outcome;
use serde::Serialize;

/// Least number of times on each side of a change.
const SIDE: usize = 3;

/// How one run ended for a cell or a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// It passed.
    Passed,
    /// It passed after a retry.
    Flaky,
    /// It failed.
    Failed,
    /// It couldn't be judged.
    Errored,
    /// It was skipped.
    Skipped,
    /// It wasn't part of the run, wasn't reached, or was cancelled.
    Absent,
}

impl Mark {
    /// Returns the mark of an outcome.
    pub fn of(outcome: Option<Outcome>) -> Mark {
        match outcome {
            Some(Outcome::Passed) => Mark::Passed,
            Some(Outcome::Flaky) => Mark::Flaky,
            Some(Outcome::Failed) => Mark::Failed,
            Some(Outcome::Errored) => Mark::Errored,
            Some(Outcome::Skipped) => Mark::Skipped,
            Some(Outcome::Cancelled) | None => Mark::Absent,
        }
    }

    /// Returns the worse of two marks of the same run.
    #[must_use]
    pub fn worse(self, other: Mark) -> Mark {
        let rank = |mark: Mark| match mark {
            Mark::Absent => 0,
            Mark::Skipped => 1,
            Mark::Passed => 2,
            Mark::Flaky => 3,
            Mark::Failed => 4,
            Mark::Errored => 5,
        };
        if rank(other) > rank(self) {
            other
        } else {
            self
        }
    }

    /// Returns the character that stands for it in a line of runs.
    pub fn character(self) -> char {
        match self {
            Mark::Passed => '·',
            Mark::Flaky => '~',
            Mark::Failed => 'F',
            Mark::Errored => 'E',
            Mark::Skipped => 's',
            Mark::Absent => ' ',
        }
    }

    /// Returns whether it failed, or passed only after a retry.
    pub fn is_unsteady(self) -> bool {
        matches!(self, Mark::Failed | Mark::Flaky)
    }

    /// Returns whether it says something about the system under test.
    pub fn is_judged(self) -> bool {
        matches!(self, Mark::Passed | Mark::Flaky | Mark::Failed)
    }
}

/// What a series of outcomes says. Positions are those of runs, the oldest is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// No run could be judged.
    Unknown,
    /// It passed in every run.
    Steady,
    /// It failed in the newest judged run for the first time: too early to tell a break from a flake.
    New { since: usize },
    /// It has failed in every judged run since then, at least twice.
    Broken { since: usize },
    /// It failed in every judged run.
    Always,
    /// It has passed in every judged run since then, after failures.
    Fixed { since: usize },
    /// It comes and goes: this many of the judged runs failed or needed a retry. `since` is where that began, if it was
    /// otherwise before.
    Flaky {
        unsteady: usize,
        of: usize,
        since: Option<usize>,
    },
}

/// Returns what the outcomes say. Takes O(n²) time.
pub fn verdict(marks: &[Mark]) -> Verdict {
    let judged: Vec<(usize, Mark)> = marks
        .iter()
        .copied()
        .enumerate()
        .filter(|(_, mark)| mark.is_judged())
        .collect();
    let failed: Vec<bool> = judged
        .iter()
        .map(|(_, mark)| *mark == Mark::Failed)
        .collect();
    let cuts = cuts(&failed);
    let from = cuts.last().copied().unwrap_or(0);
    let last = judged.get(from..).unwrap_or_default();
    let Some((since, _)) = last.first().copied() else {
        return Verdict::Unknown;
    };
    let fails = last
        .iter()
        .filter(|(_, mark)| *mark == Mark::Failed)
        .count();
    let unsteady = last.iter().filter(|(_, mark)| mark.is_unsteady()).count();
    if fails == last.len() {
        return match (fails, from) {
            (1, 1..) => Verdict::New { since },
            (_, 0) => Verdict::Always,
            _ => Verdict::Broken { since },
        };
    }
    if unsteady > 0 {
        return Verdict::Flaky {
            unsteady,
            of: last.len(),
            since: (from > 0).then_some(since),
        };
    }
    match from {
        0 => Verdict::Steady,
        _ => Verdict::Fixed { since },
    }
}

/// Returns the positions at which new segments begin.
fn cuts(failed: &[bool]) -> Vec<usize> {
    let changes: Vec<usize> = failed
        .windows(2)
        .enumerate()
        .filter(|(_, pair)| pair.first() != pair.last())
        .map(|(at, _)| at + 1)
        .collect();
    if changes.len() < 2 {
        return changes;
    }
    let count = failed.len();
    let mut fails_before = vec![0usize];
    for one in failed {
        let before = fails_before.last().copied().unwrap_or(0);
        fails_before.push(before + usize::from(*one));
    }
    let place = (count as f64).ln();
    // For each end: the length of the best description up to there, and where its last segment begins.
    let mut best: Vec<(f64, usize)> = vec![(0.0, 0)];
    for end in 1..=count {
        let mut found = (f64::INFINITY, 0);
        for (begin, (before, _)) in best.iter().enumerate() {
            let fails = match (fails_before.get(end), fails_before.get(begin)) {
                (Some(to), Some(from)) => to - from,
                _ => 0,
            };
            let cut = if begin > 0 { place } else { 0.0 };
            let length = before + cut + segment_length(fails, end - begin);
            if length < found.0 {
                found = (length, begin);
            }
        }
        best.push(found);
    }
    let mut cuts = Vec::new();
    let mut at = count;
    while let Some((_, begin)) = best.get(at).filter(|(_, begin)| *begin > 0) {
        cuts.push(*begin);
        at = *begin;
    }
    cuts.reverse();
    cuts
}

/// Returns the description length of a segment, in nats.
fn segment_length(fails: usize, count: usize) -> f64 {
    let kind = 3.0_f64.ln();
    if fails == 0 || fails == count {
        return kind;
    }
    let (fails, count) = (fails as f64, count as f64);
    let rate = fails / count;
    let outcomes = -fails * rate.ln() - (count - fails) * (1.0 - rate).ln();
    kind + 0.5 * count.ln() + outcomes
}

/// A change of times that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Shift {
    /// Position of the first run with the new time.
    pub since: usize,
    /// Median before, in microseconds.
    pub before_us: u64,
    /// Median since then, in microseconds.
    pub after_us: u64,
}

/// Returns the change of some times, one for each run (`None` where there is none), or `None` if they are noise. Takes
/// O(n² log n) time.
pub fn shift(times: &[Option<u64>]) -> Option<Shift> {
    let known: Vec<(usize, u64)> = times
        .iter()
        .enumerate()
        .filter_map(|(at, time)| Some((at, (*time)?)))
        .collect();
    let values: Vec<u64> = known.iter().map(|(_, time)| *time).collect();
    let mut best: Option<(u64, usize)> = None;
    for at in SIDE..=values.len().checked_sub(SIDE)? {
        let (before, after) = values.split_at_checked(at)?;
        let sum = distances(before)?.iter().chain(&distances(after)?).sum();
        if best.is_none_or(|(least, _)| sum < least) {
            best = Some((sum, at));
        }
    }
    let (_, at) = best?;
    let (before, after) = values.split_at_checked(at)?;
    let (before_us, after_us) = (median(before)?, median(after)?);
    let mut noise = distances(before)?;
    noise.extend(distances(after)?);
    let shifted = before_us.abs_diff(after_us) > room(before_us, median(&noise)?);
    shifted.then_some(Shift {
        since: known.get(at)?.0,
        before_us,
        after_us,
    })
}

fn distances(times: &[u64]) -> Option<Vec<u64>> {
    let middle = median(times)?;
    Some(times.iter().map(|time| time.abs_diff(middle)).collect())
}

/// Returns the characters of some marks, one for each run.
pub fn line(marks: &[Mark]) -> String {
    marks.iter().map(|mark| mark.character()).collect()
}

/// Returns times as a line of blocks from the least to the greatest; a space where there is none.
pub fn blocks(times: &[Option<u64>]) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let known = || times.iter().flatten().copied();
    let (least, most) = (known().min().unwrap_or(0), known().max().unwrap_or(0));
    let block = |time: u64| {
        let share = (time - least) as f64 / (most - least).max(1) as f64;
        let at = (share * (BLOCKS.len() - 1) as f64).round() as usize;
        BLOCKS.get(at).copied().unwrap_or('█')
    };
    times.iter().map(|time| time.map_or(' ', block)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::planted::Random;
    use super::*;

    /// Returns the marks of a line such as `..F.E`.
    fn marks(text: &str) -> Vec<Mark> {
        text.chars()
            .map(|c| match c {
                'F' => Mark::Failed,
                'E' => Mark::Errored,
                '~' => Mark::Flaky,
                's' => Mark::Skipped,
                '.' => Mark::Passed,
                _ => Mark::Absent,
            })
            .collect()
    }

    #[test]
    fn a_change_that_stays_is_told_by_its_run_and_one_that_comes_and_goes_is_flaky() {
        let flaky = |unsteady, of, since| Verdict::Flaky {
            unsteady,
            of,
            since,
        };
        for (line, wanted) in [
            ("", Verdict::Unknown),
            ("EEE s", Verdict::Unknown),
            (".....", Verdict::Steady),
            ("F", Verdict::Always),
            ("FFFF", Verdict::Always),
            ("....F", Verdict::New { since: 4 }),
            ("...FF", Verdict::Broken { since: 3 }),
            (".FF", Verdict::Broken { since: 1 }),
            ("FFF.", Verdict::Fixed { since: 3 }),
            ("..E.F E FF", Verdict::Broken { since: 4 }),
            ("....FFF....", Verdict::Fixed { since: 7 }),
            (".....F.....", flaky(1, 11, None)),
            (".F.F..F.F.", flaky(4, 10, None)),
            ("..~..~..", flaky(2, 8, None)),
            ("....................F.FF.F.F.FF.", flaky(7, 12, Some(20))),
            (".F................FFFF", Verdict::Broken { since: 18 }),
        ] {
            assert_eq!(verdict(&marks(line)), wanted, "{line:?}");
        }
    }

    #[test]
    fn a_planted_break_is_found_at_its_run_and_noise_is_never_called_broken_often() {
        let mut random = Random(3);
        let (mut found, mut false_alarms) = (0, 0);
        for _ in 0..500 {
            let count = 12 + (random.next() % 20) as usize;
            let at = 4 + (random.next() % (count as u64 - 8)) as usize;
            let broken: Vec<Mark> = (0..count)
                .map(|run| {
                    if run >= at {
                        Mark::Failed
                    } else {
                        Mark::Passed
                    }
                })
                .collect();
            found += usize::from(verdict(&broken) == Verdict::Broken { since: at });
            let rate = 0.1 + 0.4 * random.share();
            let noise: Vec<Mark> = (0..count)
                .map(|_| {
                    if random.share() < rate {
                        Mark::Failed
                    } else {
                        Mark::Passed
                    }
                })
                .collect();
            false_alarms += usize::from(matches!(verdict(&noise), Verdict::Broken { .. }));
        }
        assert_eq!(found, 500);
        assert!(
            false_alarms <= 15,
            "{false_alarms} of 500 noisy series called broken"
        );
    }

    #[test]
    fn a_planted_break_among_earlier_flakes_is_found_most_of_the_time() {
        let mut random = Random(4);
        let mut found = 0;
        for _ in 0..200 {
            let series: Vec<Mark> = (0..30)
                .map(|run| match run {
                    24.. => Mark::Failed,
                    _ if random.share() < 0.05 => Mark::Failed,
                    _ => Mark::Passed,
                })
                .collect();
            found += usize::from(
                matches!(verdict(&series), Verdict::Broken { since } if since.abs_diff(24) <= 1),
            );
        }
        assert!(found >= 190, "{found} of 200");
    }

    #[test]
    fn a_slower_step_is_told_by_its_run_and_noise_has_no_shift() {
        let mut random = Random(5);
        let (mut found, mut false_alarms) = (0, 0);
        for _ in 0..200 {
            let mut time = |mean: f64| Some((random.around(mean, 0.05 * mean) * 1e6) as u64);
            let slower: Vec<_> = (0..20)
                .map(|run| time(if run < 12 { 10.0 } else { 14.0 }))
                .collect();
            let noise: Vec<_> = (0..20).map(|_| time(10.0)).collect();
            found += usize::from(shift(&slower).is_some_and(|shift| shift.since.abs_diff(12) <= 1));
            false_alarms += usize::from(shift(&noise).is_some());
        }
        assert!(found >= 195, "{found} of 200");
        assert!(false_alarms <= 2, "{false_alarms} of 200");
        assert_eq!(shift(&[Some(1), Some(9_000_000)]), None, "too few");
    }

    #[test]
    fn blocks_go_from_the_least_to_the_greatest() {
        assert_eq!(blocks(&[Some(10), None, Some(80), Some(45)]), "▁ █▅");
        assert_eq!(blocks(&[Some(5), Some(5)]), "▁▁");
        assert_eq!(line(&marks("..~FEs ")), "··~FEs ");
    }
}
