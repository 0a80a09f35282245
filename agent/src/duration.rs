//! Formats durations for messages.

use std::time::Duration;

/// Formats a duration as `250ms`, `1.5s`, `30s`, `20m` or `1h30m`.
pub fn duration_text(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    if millis < 1000 {
        return format!("{millis}ms");
    }
    if !millis.is_multiple_of(1000) {
        return format!("{}s", duration.as_secs_f64());
    }
    let seconds = duration.as_secs();
    let parts = [
        (seconds / 3600, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    parts
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_the_spec_writes_them() {
        let text = |ms| duration_text(Duration::from_millis(ms));
        assert_eq!(
            [0, 250, 1500, 30_000, 90_000, 1_200_000, 5_400_000].map(text),
            ["0s", "250ms", "1.5s", "30s", "1m30s", "20m", "1h30m"]
        );
    }
}
