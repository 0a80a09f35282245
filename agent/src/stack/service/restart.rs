//! Decides whether a service that exited is started again, and after which pause.
//!
//! The pauses are Docker's: they begin at 100 ms, double, and begin anew after a start that ran for ten seconds. They
//! end at ten seconds instead of a minute, since a cell waits for the service.

use crate::runtime::contract::Exit;
use phalanx_shared::language::service::{Restart, ServiceConfig};
use std::time::Duration;

/// The first pause.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(10);
/// A start that ran this long counts as a success: the pauses begin anew.
const LASTING: Duration = Duration::from_secs(10);

/// The restarts of a service since a step or the stack started it.
#[derive(Debug, Default)]
pub struct Restarts {
    count: u32,
    /// The pause before the last restart.
    pause: Option<Duration>,
    /// The exit code before the last restart.
    last: Option<i64>,
}

impl Restarts {
    /// Returns the pause before the next start of a service that exited unasked, or `None` if it isn't started again.
    /// `job`: something waits for its end; `ran`: how long the start lasted.
    pub fn after(
        &mut self,
        config: &ServiceConfig,
        exit: &Exit,
        job: bool,
        ran: Duration,
    ) -> Option<Duration> {
        let success = exit.code == 0;
        let again = match config.restart {
            Restart::Unsaid | Restart::No => false,
            Restart::OnFailure => !success && !self.is_used_up(config),
            // A job that is done isn't done again, or nothing that waits for it would ever begin.
            Restart::Always => !(job && success || self.is_used_up(config)),
        };
        if !again {
            return None;
        }
        let doubled = self.pause.filter(|_| ran < LASTING).map(|last| last * 2);
        let pause = match config.restart_delay_ms {
            Some(ms) => Duration::from_millis(ms),
            None => doubled.unwrap_or(SHORTEST).min(LONGEST),
        };
        self.pause = Some(pause);
        self.count = self.count.saturating_add(1);
        self.last = Some(exit.code);
        Some(pause)
    }

    fn is_used_up(&self, config: &ServiceConfig) -> bool {
        let most = config.restart_attempts;
        most.is_some_and(|most| self.count >= most)
    }

    /// Returns what to add to the reason of a failure: how often it was restarted, if it was.
    pub fn text(&self) -> String {
        let times = match self.count {
            0 => return String::new(),
            1 => "once".to_owned(),
            count => format!("{count} times"),
        };
        let last = self.last.map_or(String::new(), |code| {
            format!(" (last exit before: code {code})")
        });
        format!("; it was restarted {times}{last}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn config(restart: Restart, restart_attempts: Option<u32>) -> ServiceConfig {
        ServiceConfig {
            restart,
            restart_attempts,
            ..ServiceConfig::default()
        }
    }

    fn exit(code: i64) -> Exit {
        Exit {
            code,
            oom: false,
            start: 1,
        }
    }

    fn again(config: &ServiceConfig, code: i64, job: bool) -> bool {
        let mut restarts = Restarts::default();
        restarts.after(config, &exit(code), job, MS(1)).is_some()
    }

    #[test]
    fn the_policy_and_the_exit_code_decide() {
        for (restart, code, job, expected) in [
            (Restart::Unsaid, 1, false, false),
            (Restart::No, 1, false, false),
            (Restart::OnFailure, 1, false, true),
            (Restart::OnFailure, 1, true, true),
            (Restart::OnFailure, 0, false, false),
            (Restart::Always, 0, false, true),
            (Restart::Always, 1, true, true),
            (Restart::Always, 0, true, false),
        ] {
            let found = again(&config(restart, None), code, job);
            assert_eq!(found, expected, "{restart:?} {code} {job}");
        }
    }

    #[test]
    fn attempts_are_counted() {
        let config = config(Restart::OnFailure, Some(2));
        let mut restarts = Restarts::default();
        assert_eq!(restarts.text(), "");
        let mut next = || restarts.after(&config, &exit(3), false, MS(1));
        assert_eq!([next(), next()], [Some(MS(100)), Some(MS(200))]);
        assert_eq!(next(), None);
        let text = "; it was restarted 2 times (last exit before: code 3)";
        assert_eq!(restarts.text(), text);
    }

    #[test]
    fn pauses_double_to_a_limit_and_begin_anew_after_a_start_that_lasted() {
        let always = config(Restart::Always, None);
        let mut restarts = Restarts::default();
        let mut next = |ran| restarts.after(&always, &exit(1), false, ran);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            pauses.extend(next(MS(50)));
        }
        assert_eq!(pauses[..3], [MS(100), MS(200), MS(400)]);
        assert_eq!(pauses.last(), Some(&LONGEST));
        assert_eq!(next(LASTING), Some(SHORTEST));
        assert_eq!(next(MS(50)), Some(MS(200)));
    }

    #[test]
    fn a_delay_of_the_definition_goes_before() {
        let delayed = ServiceConfig {
            restart_delay_ms: Some(1_500),
            ..config(Restart::Always, None)
        };
        let mut restarts = Restarts::default();
        for _ in 0..2 {
            let pause = restarts.after(&delayed, &exit(1), false, MS(1));
            assert_eq!(pause, Some(MS(1_500)));
        }
    }
}
