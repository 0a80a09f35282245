//! The pause before the next connection attempt: doubling, bounded, and with jitter, so that a thousand agents don't
//! reconnect at once.

use std::time::Duration;

/// Shortest pause, before jitter.
pub const FIRST: Duration = Duration::from_millis(50);
/// Longest pause, before jitter: well below a lease.
pub const LONGEST: Duration = Duration::from_secs(2);

/// Returns the pause after `failed` failures since the last success. `random` is any random number.
pub fn pause(failed: u32, random: u64) -> Duration {
    let whole = FIRST.saturating_mul(1 << failed.min(16)).min(LONGEST);
    // Between half of the pause and all of it.
    let half = whole / 2;
    let jitter = random % (u64::try_from(half.as_micros()).unwrap_or(u64::MAX) + 1);
    half + Duration::from_micros(jitter)
}

/// Returns a random number for [`pause`].
pub fn chance() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_differ_by_chance() {
        for failed in 0..40 {
            for random in [0, 1, 12_345, u64::MAX] {
                let pause = pause(failed, random);
                assert!(pause >= FIRST / 2 && pause <= LONGEST, "{failed} {pause:?}");
            }
        }
        assert!(pause(0, 0) < pause(3, 0));
        assert_ne!(pause(5, 1), pause(5, 400_000));
    }
}
