//! The noise band of a time: what earlier runs make plausible.
//!
//! The band is the median ± the larger of 3 × 1.4826 × MAD and a floor. MAD is the median of the distances from the
//! median; with the factor 1.4826 it estimates the standard deviation of normal noise, and a few outliers don't move
//! it. The floor is a tenth of the median, at least 100 ms: where a few equal times were measured, the MAD is 0, and
//! every later difference would count.

use serde::Serialize;

/// Number of times from which on a band exists.
pub const LEAST: usize = 5;
/// Width of the band in estimated standard deviations.
const WIDTH: f64 = 3.0;
/// Ratio of the standard deviation of normal noise to its MAD.
const SIGMA: f64 = 1.4826;
/// Least half width, as a share of the median and in microseconds.
const FLOOR_SHARE: f64 = 0.1;
const FLOOR_US: f64 = 100_000.0;

/// A noise band. All times are in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Band {
    /// Median of the times.
    pub median_us: u64,
    /// Median of the distances from the median.
    pub mad_us: u64,
    /// Lower end.
    pub low_us: u64,
    /// Upper end.
    pub high_us: u64,
    /// Number of times.
    pub times: usize,
}

impl Band {
    /// Returns the band of some times; `None` if there are fewer than [`LEAST`].
    pub fn of(times: &[u64]) -> Option<Band> {
        if times.len() < LEAST {
            return None;
        }
        let middle = median(times)?;
        let distances: Vec<u64> = times.iter().map(|time| time.abs_diff(middle)).collect();
        let mad = median(&distances)?;
        let half = room(middle, mad);
        Some(Band {
            median_us: middle,
            mad_us: mad,
            low_us: middle.saturating_sub(half),
            high_us: middle.saturating_add(half),
            times: times.len(),
        })
    }

    /// Returns whether a time is inside.
    pub fn holds(&self, time_us: u64) -> bool {
        (self.low_us..=self.high_us).contains(&time_us)
    }
}

/// Returns half the width of the band around a median.
pub(super) fn room(median_us: u64, mad_us: u64) -> u64 {
    let noise = WIDTH * SIGMA * mad_us as f64;
    noise.max(FLOOR_SHARE * median_us as f64).max(FLOOR_US) as u64
}

/// Returns the median; of an even number, the mean of the middle two.
pub fn median(times: &[u64]) -> Option<u64> {
    quantile(times, 0.5)
}

/// Returns a quantile between 0 and 1, interpolated between the neighbours.
pub fn quantile(times: &[u64], share: f64) -> Option<u64> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().checked_sub(1)?;
    let at = share.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (at.floor() as usize, at.ceil() as usize);
    let (low, high) = (*sorted.get(below)?, *sorted.get(above)?);
    Some(low + ((high - low) as f64 * (at - below as f64)).round() as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_outlier_does_not_widen_the_band_and_four_times_make_none() {
        let times: Vec<u64> = [10.0, 10.2, 9.9, 10.1, 60.0, 10.0]
            .map(|seconds: f64| (seconds * 1e6) as u64)
            .into();
        let band = Band::of(&times).unwrap();
        assert!(
            band.holds(10_300_000) && !band.holds(12_000_000),
            "{band:?}"
        );
        assert_eq!(Band::of(&times[..4]), None);
    }

    #[test]
    fn equal_times_leave_room_for_a_tenth_and_short_ones_for_100_ms() {
        let band = Band::of(&[20_000_000; 5]).unwrap();
        assert!(band.holds(21_900_000) && !band.holds(22_100_000));
        let band = Band::of(&[5_000; 9]).unwrap();
        assert!(band.holds(90_000) && !band.holds(200_000));
    }

    #[test]
    fn quantiles_lie_between_their_neighbours() {
        assert_eq!(quantile(&[4, 1, 3, 2], 0.5), Some(3));
        assert_eq!(quantile(&[10, 20, 30], 0.25), Some(15));
        assert_eq!(quantile(&[7], 0.9), Some(7));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
