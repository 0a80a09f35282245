//! Judges the health of a process by its `healthcheck`, as an engine does for a container, but with probes that start
//! milliseconds after the start.

use phalanx_shared::language::service::Healthcheck;
use std::time::Duration;

/// A parsed healthcheck, with Docker's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Command of a probe.
    pub command: Vec<String>,
    /// Time between two probes once it is healthy or unhealthy, and the maximum before.
    pub interval: Duration,
    /// Maximum duration of one probe.
    pub timeout: Duration,
    start_period: Duration,
    retries: u32,
}

impl Check {
    /// Parses a healthcheck. Returns `None` if there is none or it is disabled.
    pub fn of(healthcheck: Option<&Healthcheck>) -> Option<Check> {
        let healthcheck = healthcheck?;
        let (kind, rest) = healthcheck.test.split_first()?;
        let command = match kind.as_str() {
            "NONE" => return None,
            "CMD" => rest.to_vec(),
            "CMD-SHELL" => {
                let mut command = vec!["/bin/sh".to_owned(), "-c".to_owned()];
                command.extend_from_slice(rest);
                command
            }
            _ => healthcheck.test.clone(),
        };
        let ms = |value: Option<u64>, default| Duration::from_millis(value.unwrap_or(default));
        Some(Check {
            command,
            interval: ms(healthcheck.interval_ms, 30_000),
            timeout: ms(healthcheck.timeout_ms, 30_000),
            start_period: ms(healthcheck.start_period_ms, 0),
            retries: healthcheck.retries.filter(|n| *n > 0).unwrap_or(3),
        })
    }
}

impl Check {
    /// Returns the time from the start to `unhealthy` if no probe passes.
    pub fn allows(&self) -> Duration {
        let all = self.interval.saturating_mul(self.retries);
        self.start_period.saturating_add(all)
    }
}

/// Health of one start, judged from its probes so far.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    healthy: Option<bool>,
    probes: u32,
    /// Time after the start of the first failure since the last success.
    failing_since: Option<Duration>,
    failures: u32,
}

impl Judge {
    /// Records the result of a probe that ended `at` after the start. Returns the new verdict.
    ///
    /// Early probes are more frequent than `interval`, so the number of failures alone doesn't make it unhealthy: there
    /// must be at least `retries` failures, over at least the time that so many probes would take at `interval`.
    pub fn probed(&mut self, check: &Check, at: Duration, passed: bool) -> Option<bool> {
        self.probes += 1;
        if passed {
            self.healthy = Some(true);
            self.failing_since = None;
            self.failures = 0;
        } else if self.healthy == Some(true) || at >= check.start_period {
            let since = *self.failing_since.get_or_insert(at);
            self.failures += 1;
            let long = at.saturating_sub(since) >= check.interval * (check.retries - 1);
            if self.failures >= check.retries && long {
                self.healthy = Some(false);
            }
        }
        self.healthy
    }

    /// Returns how long to wait before the next probe.
    pub fn pause(&self, check: &Check) -> Duration {
        if self.healthy == Some(true) || self.healthy == Some(false) {
            return check.interval;
        }
        let doubled = Duration::from_millis(25) * 2u32.saturating_pow(self.probes.min(12));
        doubled.min(check.interval)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(test: &[&str]) -> Option<Check> {
        Check::of(Some(&Healthcheck {
            test: test.iter().map(|word| (*word).to_owned()).collect(),
            interval_ms: Some(1_000),
            retries: Some(3),
            start_period_ms: Some(2_000),
            ..Healthcheck::default()
        }))
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_shell_text_is_run_by_the_shell_and_none_switches_it_off() {
        assert_eq!(
            check(&["CMD-SHELL", "exit 0"]).unwrap().command,
            ["/bin/sh", "-c", "exit 0"]
        );
        assert_eq!(check(&["CMD", "true"]).unwrap().command, ["true"]);
        assert_eq!(check(&["NONE"]), None);
        assert_eq!(check(&[]), None);
    }

    #[test]
    fn a_failure_in_the_start_period_counts_for_nothing() {
        let check = check(&["CMD", "x"]).unwrap();
        let mut judge = Judge::default();
        for at in 0..2 {
            assert_eq!(judge.probed(&check, s(at), false), None);
        }
        assert_eq!(judge.probed(&check, s(2), false), None);
        assert_eq!(judge.probed(&check, s(3), false), None);
        assert_eq!(judge.probed(&check, s(4), false), Some(false));
        assert_eq!(judge.probed(&check, s(5), true), Some(true));
    }

    #[test]
    fn quick_early_failures_alone_do_not_make_it_unhealthy() {
        let check = check(&["CMD", "x"]).unwrap();
        let mut judge = Judge::default();
        for n in 0..50 {
            let at = s(2) + Duration::from_millis(10) * n;
            assert_eq!(judge.probed(&check, at, false), None);
        }
    }

    #[test]
    fn probes_begin_in_milliseconds_and_slow_down_to_the_interval() {
        let check = check(&["CMD", "x"]).unwrap();
        let mut judge = Judge::default();
        assert_eq!(judge.pause(&check), Duration::from_millis(25));
        judge.probed(&check, s(0), false);
        assert_eq!(judge.pause(&check), Duration::from_millis(50));
        judge.probed(&check, s(1), true);
        assert_eq!(judge.pause(&check), s(1));
    }
}
