//! Summarises a container when a step fails: state, exit code, OOM, restarts, the last health probes. Contains no
//! environment and no command line: they may hold secrets.

use super::error::said;
use super::member::Container;
use bollard::models::{ContainerInspectResponse, HealthcheckResult};

/// Number of probes shown. The engine keeps up to 4,096 bytes of each one's output; the code that displays them masks
/// them first and then shortens them.
const PROBES: usize = 3;

/// Returns the summary as lines of text.
pub(super) async fn of(container: &Container) -> Vec<String> {
    let engine = &container.shared.engine;
    let name = &container.config.name;
    match engine.inspect(&container.id).await {
        Ok(inspected) => lines(name, &inspected),
        Err(error) => vec![format!("{name}: its state is unknown: {}", said(&error))],
    }
}

/// Returns the result of the newest health probe.
pub(super) async fn last_probe(container: &Container) -> Option<String> {
    let engine = &container.shared.engine;
    let state = engine.inspect(&container.id).await.ok()?.state?;
    let log = state.health?.log?;
    let probe = log.last()?;
    let code = probe.exit_code.unwrap_or(-1);
    let output = probe.output.as_deref().unwrap_or_default().trim();
    let colon = if output.is_empty() { "" } else { ": " };
    Some(format!("exit code {code}{colon}{output}"))
}

fn lines(name: &str, inspected: &ContainerInspectResponse) -> Vec<String> {
    let Some(state) = &inspected.state else {
        return vec![format!("{name}: the engine told no state")];
    };
    let status = state.status.map_or_else(String::new, |s| s.to_string());
    let mut first = format!("{name}: {status}");
    if state.running != Some(true)
        && status != "created"
        && let Some(code) = state.exit_code
    {
        first.push_str(&format!(", exit code {code}{}", meaning(code)));
    }
    if state.oom_killed == Some(true) {
        first.push_str(", killed for want of memory");
        if let Some(limit) = inspected.host_config.as_ref().and_then(|h| h.memory) {
            first.push_str(&format!(" (mem_limit {limit} bytes)"));
        }
    }
    if let Some(restarts @ 1..) = inspected.restart_count {
        first.push_str(&format!(", restarted {restarts} times by the engine"));
    }
    let mut all = vec![first];
    if let Some(error) = state.error.as_deref().filter(|e| !e.is_empty()) {
        all.push(format!("{name}: the engine says: {error}"));
    }
    if let Some(health) = &state.health {
        let verdict = health.status.map_or_else(String::new, |s| s.to_string());
        if !matches!(verdict.as_str(), "" | "none") {
            let streak = health.failing_streak.unwrap_or(0);
            all.push(format!(
                "{name}: health {verdict}, {streak} failures in a row"
            ));
            let log = health.log.as_deref().unwrap_or_default();
            all.extend(log.iter().rev().take(PROBES).rev().map(|p| probe(name, p)));
        }
    }
    all
}

fn probe(name: &str, probe: &HealthcheckResult) -> String {
    let code = probe.exit_code.unwrap_or(-1);
    let output = probe.output.as_deref().unwrap_or_default().trim();
    format!("{name}: health probe exit code {code}: {output}")
}

/// Describes an exit code of 126 or more.
fn meaning(code: i64) -> &'static str {
    match code {
        126 => " (the command could not be executed)",
        127 => " (the command was not found)",
        134 => " (SIGABRT)",
        137 => " (SIGKILL)",
        139 => " (SIGSEGV)",
        143 => " (SIGTERM)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::{
        ContainerConfig, ContainerState, ContainerStateStatusEnum, Health, HealthStatusEnum,
    };

    #[test]
    fn a_summary_names_the_cause_and_no_environment() {
        let inspected = ContainerInspectResponse {
            config: Some(ContainerConfig {
                env: Some(vec!["PASSWORD=hunter22".into()]),
                ..ContainerConfig::default()
            }),
            state: Some(ContainerState {
                status: Some(ContainerStateStatusEnum::EXITED),
                exit_code: Some(137),
                oom_killed: Some(true),
                health: Some(Health {
                    status: Some(HealthStatusEnum::UNHEALTHY),
                    failing_streak: Some(4),
                    log: Some(vec![HealthcheckResult {
                        exit_code: Some(1),
                        output: Some("no answer".into()),
                        ..HealthcheckResult::default()
                    }]),
                }),
                ..ContainerState::default()
            }),
            ..ContainerInspectResponse::default()
        };
        let text = lines("db", &inspected).join("\n");
        assert_eq!(
            text,
            "db: exited, exit code 137 (SIGKILL), killed for want of memory\n\
             db: health unhealthy, 4 failures in a row\n\
             db: health probe exit code 1: no answer"
        );
    }
}
