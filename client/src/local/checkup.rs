//! What works on this machine and what doesn't, with fixes: `phalanx self check`. Each check does what a run does, by the
//! same functions; nothing is concluded from the text of a message.

use super::place::AGENTS;
use super::{DockerSettings, Error};
use phalanx_agent::checkup::{self, EngineError};
use phalanx_agent::identity::{self, Identity};
use phalanx_agent::runtime::docker::{Checkup, InvalidEndpoint, Unusable};
use phalanx_agent::{machine, private};
use phalanx_coordinator::dispatch::logs::store::{Limits, LogStore};
use phalanx_shared::policy::{Allow, Need, Rules};
use serde::Serialize;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What to check.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Directory of all runs and agents.
    pub state_dir: PathBuf,
    /// Settings of the Docker runtime.
    pub docker: DockerSettings,
    /// Bytes of the disk that logs leave free; `None` derives it from the size of the disk.
    pub reserve_bytes: Option<u64>,
    /// What specs may do on this machine, or why that can't be read.
    pub policy: Result<Rules, String>,
    /// Addresses that `phalanx serve` would listen on, each with its setting.
    pub ports: Vec<(&'static str, String)>,
}

/// Result of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It works.
    Works,
    /// Runs work, but something may surprise.
    Warning,
    /// Runs that need it can't work.
    Fails,
}

/// One check, with what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked.
    pub check: &'static str,
    /// Result of the check.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    fn works(check: &'static str, found: impl Into<String>) -> Finding {
        Finding {
            check,
            verdict: Verdict::Works,
            found: found.into(),
            fix: None,
        }
    }

    fn warning(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding {
            verdict: Verdict::Warning,
            fix: Some(fix.into()),
            ..Finding::works(check, found)
        }
    }

    fn fails(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding {
            verdict: Verdict::Fails,
            ..Finding::warning(check, found, fix)
        }
    }
}

/// Difference between two clocks that a report doesn't show.
const SAME_TIME: Duration = Duration::from_secs(2);
/// With fewer free networks, cells of several agents may have to wait.
const FEW_NETWORKS: u32 = 64;

/// Makes all checks, in the order in which a run needs them.
pub async fn checkup(wish: &Wish) -> Vec<Finding> {
    let resources = machine::resources();
    let mut findings = vec![Finding::works(
        "machine",
        format!(
            "{}, {:.1} CPUs, {:.1} GiB of memory for cells",
            machine::labels().join(" "),
            f64::from(u32::try_from(resources.millicpus).unwrap_or(u32::MAX)) / 1000.0,
            f64::from(u32::try_from(resources.memory_bytes >> 20).unwrap_or(u32::MAX)) / 1024.0
        ),
    )];
    let identity = match own_identity(&wish.state_dir) {
        Ok(identity) => identity,
        Err(error) => {
            let fix =
                "choose a directory that you may write: --state-dir DIR, or PHALANX_STATE_DIR";
            findings.push(Finding::fails("state", error.to_string(), fix));
            return findings;
        }
    };
    findings.push(Finding::works(
        "state",
        wish.state_dir.display().to_string(),
    ));
    findings.push(policy(wish));
    findings.push(disk(wish));
    findings.push(host(wish, &identity).await);
    match checkup::engine(&identity, &wish.docker).await {
        Ok(engine) => findings.extend(of_engine(&engine)),
        Err(error) => findings.push(unusable(&error)),
    }
    findings.extend(wish.ports.iter().map(port));
    findings
}

/// Acquires an identity that no process holds, or a new one. If this process is killed, the next agent cleans up after
/// it.
fn own_identity(state_dir: &Path) -> Result<Identity, Error> {
    let agents = state_dir.join(AGENTS);
    private::directory(&agents).map_err(super::place::at(&agents))?;
    if let Some(free) = identity::take_dead(&agents).pop() {
        return Ok(free);
    }
    Ok(Identity::acquire(
        &agents.join(uuid::Uuid::now_v7().to_string()),
    )?)
}

fn disk(wish: &Wish) -> Finding {
    let limits = Limits {
        reserve_bytes: wish.reserve_bytes,
        ..Limits::default()
    };
    match LogStore::with_limits(wish.state_dir.join("logs"), limits).below_reserve() {
        None => Finding::works("disk", format!("room in {}", wish.state_dir.display())),
        Some(why) => Finding::warning(
            "disk",
            format!("{why}; logs would be refused"),
            "free some space (phalanx gc --older-than 7d), or lower logs.reserve_mib",
        ),
    }
}

fn policy(wish: &Wish) -> Finding {
    let check = "policy";
    let rules = match &wish.policy {
        Ok(rules) => rules,
        Err(why) => {
            let fix = "correct the file: docs/security.md";
            return Finding::fails(check, why.replace('\n', "; "), fix);
        }
    };
    let narrow: Vec<String> = rules
        .all()
        .filter(|(_, ruling)| ruling.allow != Allow::All)
        .map(|(rule, ruling)| format!("{}: {} ({})", rule.name(), ruling.allow, ruling.origin))
        .collect();
    match narrow.is_empty() {
        true => Finding::works(
            check,
            "runs of this machine may do everything; `phalanx agent policy` shows an agent's",
        ),
        false => Finding::works(check, narrow.join("; ")),
    }
}

async fn host(wish: &Wish, identity: &Identity) -> Finding {
    let check = "host commands";
    let refused = wish.policy.as_ref().ok();
    if let Some(refusal) = refused.and_then(|rules| rules.refuses(&Need::run())) {
        return Finding::warning(check, refusal.to_string(), refusal.help());
    }
    match checkup::host(identity).await {
        Ok(()) => Finding::works(check, "`run` steps and `process` services, with free ports"),
        Err(error) => Finding::fails(
            check,
            error.to_string(),
            "Phalanx needs Linux with /proc mounted, and to start processes",
        ),
    }
}

fn of_engine(engine: &Checkup) -> Vec<Finding> {
    let (free, all) = engine.networks;
    let networks = format!(
        "{free} of {all} networks are free; docker.reach is {}",
        engine.reach
    );
    let mut findings = vec![Finding::works(
        "engine",
        format!("{}: {engine}", engine.host),
    )];
    findings.push(match free {
        FEW_NETWORKS.. => Finding::works("networks", networks),
        _ => Finding::warning(
            "networks",
            networks,
            "free networks (phalanx gc, docker network ls), or add ranges to docker.subnets",
        ),
    });
    if let Some((theirs, ours)) = engine.clocks {
        let apart = Duration::from_micros(theirs.0.abs_diff(ours.0));
        let found = format!("the engine's clock differs by {:.1} s", apart.as_secs_f64());
        findings.push(match apart <= SAME_TIME {
            true => Finding::works("clocks", found),
            false => Finding::warning(
                "clocks",
                found,
                "synchronize both clocks: log lines of containers carry the engine's time",
            ),
        });
    }
    findings
}

fn unusable(error: &EngineError) -> Finding {
    let fix = match error {
        EngineError::Unusable(Unusable::Endpoint(InvalidEndpoint::None(_))) => {
            "install Docker or Podman and start it, or set DOCKER_HOST; specs of host processes run without".to_owned()
        }
        EngineError::Unusable(Unusable::Endpoint(_)) => {
            "set DOCKER_HOST or docker.host to an address as above".to_owned()
        }
        EngineError::Unusable(Unusable::Failed { host, .. }) => refused(host),
        EngineError::Unusable(Unusable::Silent(_)) => "restart the engine".to_owned(),
        EngineError::Unusable(Unusable::Subnets(_)) => "correct docker.subnets".to_owned(),
        EngineError::Unusable(Unusable::Networks(_) | Unusable::NoIdentity) | EngineError::Refused(_) => {
            "the engine must allow networks to be listed, made and removed".to_owned()
        }
    };
    Finding::fails("engine", error.to_string(), fix)
}

/// Returns what to do about an engine that can't be reached. The socket itself says whether permission is missing.
fn refused(host: &str) -> String {
    let socket = host.strip_prefix("unix://").map(UnixStream::connect);
    match socket {
        Some(Err(error)) if error.kind() == ErrorKind::PermissionDenied => {
            "you may not use its socket: sudo usermod -aG docker \"$USER\", then log in again"
                .to_owned()
        }
        Some(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
            "nothing listens there: start the engine (sudo systemctl start docker)".to_owned()
        }
        _ => format!("is {host} an engine, and does it run?"),
    }
}

fn port((setting, address): &(&'static str, String)) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::works(
            "ports",
            format!("{address} is free for phalanx serve ({setting})"),
        ),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Finding::warning(
            "ports",
            format!("{address} is in use ({setting})"),
            format!(
                "nothing, if a coordinator runs here; else choose another for phalanx serve: {setting}"
            ),
        ),
        Err(error) => Finding::warning(
            "ports",
            format!("{address}: {error}"),
            format!("choose another address for phalanx serve: {setting}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use phalanx_shared::time::Timestamp;

    fn engine(networks: (u32, u32), apart_s: i64) -> Checkup {
        Checkup {
            host: "unix:///x".to_owned(),
            version: "Docker 27".to_owned(),
            api: "1.47".to_owned(),
            system: "Debian".to_owned(),
            clocks: Some((Timestamp(apart_s * 1_000_000), Timestamp(0))),
            networks,
            reach: "direct",
        }
    }

    fn verdicts(findings: &[Finding]) -> Vec<Verdict> {
        findings.iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn few_networks_and_different_clocks_are_warnings() {
        use Verdict::{Warning, Works};
        assert_eq!(verdicts(&of_engine(&engine((500, 512), 1))), [Works; 3]);
        let found = of_engine(&engine((3, 512), -60));
        assert_eq!(verdicts(&found), [Works, Warning, Warning]);
        assert!(found[2].found.contains("60.0 s"), "{found:?}");
    }

    #[test]
    fn a_port_in_use_is_named_with_its_setting() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let found = port(&("serve.listen", address));
        assert_eq!(found.verdict, Verdict::Warning);
        assert!(found.fix.unwrap().contains("serve.listen"));
    }

    #[test]
    fn an_engine_that_is_not_there_gets_the_fix_of_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("engine.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let found = refused(&format!("unix://{}", path.display()));
        assert!(found.contains("nothing listens there"), "{found}");
        let none = EngineError::Unusable(InvalidEndpoint::None(Vec::new()).into());
        assert!(unusable(&none).fix.unwrap().contains("install Docker"));
    }
}
