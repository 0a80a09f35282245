//! Finds the coordinator for a command: a remote one, or one on this machine.

use super::Context;
use super::error::CliError;
use super::pick::pick;
use super::secrets::{self, Given};
use crate::config::Settings;
use crate::config::fleet;
use crate::config::place::STATE_DIR;
use crate::config::server::{CA, CANCEL_GRACE_S, COORDINATOR, NAMESPACE};
use crate::credential::{Client, Credential, TokenFile, VARIABLE, is_private};
use crate::local::{self, LocalRun, Look};
use nix::sys::resource::{Resource, getrlimit};
use phalanx_coordinator::serve::web;
use phalanx_proto::channel;
use phalanx_proto::limit;
use phalanx_proto::tls::{self, Trust};
use phalanx_proto::v1::{
    GcRequest, GcResponse, ListRunsRequest, ListSnapshotsRequest, RemoveSnapshotsRequest,
    RemoveSnapshotsResponse, RunSummary, SnapshotSummary,
};
use phalanx_shared::error_code::ErrorCode;
use phalanx_shared::id::RunId;
use std::env::VarError;
use std::path::Path;
use std::sync::Once;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// A coordinator that doesn't accept a connection within this time counts as absent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Guards against hanging; killing agents takes no time by itself.
const ABANDON_WITHIN: Duration = Duration::from_secs(3);
/// Name of the gRPC service that clients use.
const CONTROL: &str = "phalanx.v1.Control";
/// Maximum number of runs to search when the user names one.
pub(super) const PICK_AMONG: u32 = 10_000;

/// A connection to a coordinator.
pub struct Connection {
    client: Client,
    held: Held,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.held {
            Held::Nothing => "Connection(remote)",
            Held::Look(_) => "Connection(a journal)",
            Held::Own(_) => "Connection(a local run)",
        })
    }
}

/// What lives as long as the connection.
enum Held {
    /// Nothing: the coordinator is remote.
    Nothing,
    /// A server that answers questions about a local run.
    Look(Box<Look>),
    /// A coordinator and agents that this command started.
    Own(Box<LocalRun>),
}

impl Connection {
    fn look(look: Look) -> Connection {
        Connection {
            client: look.client(),
            held: Held::Look(Box::new(look)),
        }
    }

    fn own(run: LocalRun) -> Connection {
        Connection {
            client: run.client(),
            held: Held::Own(Box::new(run)),
        }
    }

    /// Returns a client. Clones are cheap.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Serves pages of the coordinator that this command started, until it ends. Returns whether there is one.
    pub fn observe(&self, listener: TcpListener, pages: web::Options) -> bool {
        match &self.held {
            Held::Own(run) => {
                run.observe(listener, pages);
                true
            }
            Held::Nothing | Held::Look(_) => false,
        }
    }

    /// Gives the local coordinator of this connection a workspace that another one of this machine received.
    pub fn adopt(&self, archive: &Path) -> Result<(), CliError> {
        match &self.held {
            Held::Own(run) => Ok(run.adopt_workspace(archive)?),
            Held::Nothing | Held::Look(_) => Ok(()),
        }
    }

    /// Ends what was started for this connection and waits for its clean-up. Returns whether the clean-up completed.
    pub async fn close(self) -> bool {
        match self.held {
            Held::Nothing => true,
            Held::Look(look) => {
                drop(look);
                true
            }
            Held::Own(run) => run.close().await,
        }
    }

    /// Leaves at once, as if this process had been killed. Kills what it started; the next start cleans up.
    pub async fn abandon(self) {
        if let Held::Own(run) = self.held {
            let _ = tokio::time::timeout(ABANDON_WITHIN, run.kill()).await;
        }
    }
}

/// A command may connect several times, and warns once.
static WARNED: Once = Once::new();

/// A connection to a coordinator without a credential.
pub struct Reached(pub Channel);

/// Returns the credential for a coordinator: the token of `PHALANX_TOKEN`, else the one that is stored for it.
pub fn credential(settings: &Settings, address: &str) -> Result<Credential, CliError> {
    let token = match std::env::var(VARIABLE) {
        Ok(token) if !token.trim().is_empty() => Some(token.trim().to_owned()),
        Ok(_) | Err(VarError::NotPresent) => match TokenFile::of_user() {
            Ok(file) => file.token(address)?,
            // Without a home directory nothing can be stored.
            Err(_) => None,
        },
        Err(VarError::NotUnicode(_)) => {
            return Err(CliError::usage(format!(
                "the variable {VARIABLE} isn't UTF-8"
            )));
        }
    };
    if token.is_some() && !is_private(address) {
        WARNED.call_once(|| {
            tracing::warn!("the token for {address} goes through the network unencrypted");
        });
    }
    let namespace = settings.get(&NAMESPACE);
    Credential::new(token.as_deref(), &namespace).ok_or_else(|| {
        CliError::usage("the token or the namespace has characters that can't be sent")
            .explained_by(ErrorCode::NoToken)
    })
}

/// Connects to the coordinator at an address: `https://HOST:PORT`, `http://HOST:PORT`, `HOST:PORT` or `unix:PATH`.
pub async fn remote(settings: &Settings, address: &str) -> Result<Connection, CliError> {
    let credential = credential(settings, address)?;
    let Reached(channel) = reach(address, &settings.get(&CA)).await?;
    Ok(Connection {
        client: credential.client(channel),
        held: Held::Nothing,
    })
}

/// Connects to a coordinator without a credential. `ca` says what one with TLS is known by.
pub async fn reach(address: &str, ca: &str) -> Result<Reached, CliError> {
    if address.starts_with("https://") {
        return Ok(Reached(secured(address, ca).await?));
    }
    let channel = match address.strip_prefix("unix:") {
        Some(path) => unix(Path::new(path)).await,
        None => tcp(address).await,
    };
    Ok(Reached(channel.map_err(|why| unreachable(address, &why))?))
}

fn unreachable(address: &str, why: &str) -> CliError {
    let message = format!("can't reach the coordinator {address}: {why}");
    CliError::errored(message)
        .with_help("is it running?")
        .explained_by(ErrorCode::Unreachable)
}

async fn secured(address: &str, ca: &str) -> Result<Channel, CliError> {
    let known = |error: CliError| error.explained_by(ErrorCode::Certificate);
    if ca.is_empty() {
        let message = format!("what is the coordinator {address} known by?");
        return Err(known(CliError::usage(message).with_help(
            "set `ca` to the fingerprint that `phalanx serve` prints, or to its CA's file: --ca sha256:…",
        )));
    }
    let trust = Trust::named(ca).map_err(|error| known(CliError::usage(format!("ca: {error}"))))?;
    let config = tls::client(trust, None);
    let config = config.map_err(|error| known(CliError::usage(format!("ca: {error}"))))?;
    // TLS is made by the connector: for the endpoint itself, the address is plain.
    let endpoint = endpoint(&address.replacen("https://", "http://", 1))
        .map_err(|why| unreachable(address, &why))?;
    let connected = tls::connect(endpoint, move || Ok(config.clone())).await;
    let channel = connected.map_err(|error| match tls::explain(&error) {
        Some(why) => known(CliError::errored(format!(
            "can't reach the coordinator {address}: {why}"
        ))),
        None => unreachable(address, &causes(&error)),
    })?;
    greet(channel.clone())
        .await
        .map_err(|why| unreachable(address, &why))?;
    Ok(channel)
}

fn endpoint(address: &str) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(|error| format!("not an address: {}", causes(&error)))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(Duration::from_secs(20)))
}

async fn tcp(address: &str) -> Result<Channel, String> {
    let with_scheme = if address.contains("://") {
        address.to_owned()
    } else {
        format!("http://{address}")
    };
    let channel = channel::connect(endpoint(&with_scheme)?)
        .await
        .map_err(|error| causes(&error))?;
    greet(channel.clone()).await?;
    Ok(channel)
}

/// An open port doesn't have to be a coordinator, so this asks the health service whether it serves [`CONTROL`].
async fn greet(channel: Channel) -> Result<(), String> {
    let request = HealthCheckRequest {
        service: CONTROL.to_owned(),
    };
    let mut health = HealthClient::new(channel);
    let answer = tokio::time::timeout(CONNECT_TIMEOUT, health.check(request)).await;
    let none = "what listens there isn't a coordinator";
    match answer {
        Ok(Ok(_)) => Ok(()),
        Err(_) => Err(format!(
            "something listens there and says nothing within {}s",
            CONNECT_TIMEOUT.as_secs()
        )),
        Ok(Err(status)) if status.code() == Code::Unavailable && !status.message().is_empty() => {
            Err(format!("{none}, or it is going away: {}", causes(&status)))
        }
        Ok(Err(status)) => Err(format!("{none}: {}", causes(&status))),
    }
}

/// Opens a channel over a Unix socket.
pub async fn unix(path: &Path) -> Result<Channel, String> {
    let endpoint = channel::nowhere().connect_timeout(CONNECT_TIMEOUT);
    channel::connect_unix(endpoint, path.to_owned())
        .await
        .map_err(|error| causes(&error))
}

/// Formats an error with its causes: the outermost one says only "transport error".
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text += &format!(": {said}");
        }
        next = cause.source();
    }
    text
}

/// Connects to the coordinator that agents connect to.
pub async fn to_coordinator(context: &Context) -> Result<Connection, CliError> {
    let address = context.settings.get(&COORDINATOR);
    if address.is_empty() {
        let message = "which coordinator? Local runs bring their agents with them";
        return Err(
            CliError::usage(message).with_help("phalanx --coordinator https://HOST:PORT agents")
        );
    }
    remote(&context.settings, &address).await
}

/// Connects to the coordinator that knows a run. Returns the connection and the run's id.
pub async fn to_run(
    context: &Context,
    text: Option<&str>,
) -> Result<(Connection, RunId), CliError> {
    let address = context.settings.get(&COORDINATOR);
    if address.is_empty() {
        let run = pick(text, &list(context, PICK_AMONG, false).await?)?;
        let state_dir = context.settings.get(&STATE_DIR);
        let look = local::open(&state_dir, run.as_str()).await?;
        return Ok((Connection::look(look), run));
    }
    let connection = remote(&context.settings, &address).await?;
    let runs = list_of(&connection, PICK_AMONG, false).await?;
    let run = pick(text, &runs)?;
    Ok((connection, run))
}

/// Reads the run in a file. Returns the connection and the run's id.
pub async fn to_file(file: &Path) -> Result<(Connection, RunId), CliError> {
    let look = local::open_file(file).await?;
    let run = look.run().clone();
    Ok((Connection::look(look), run))
}

/// Lists the runs, newest first.
pub async fn list(context: &Context, limit: u32, open: bool) -> Result<Vec<RunSummary>, CliError> {
    let address = context.settings.get(&COORDINATOR);
    if address.is_empty() {
        let state_dir = context.settings.get(&STATE_DIR);
        return Ok(local::list(&state_dir, limit, open).await?);
    }
    list_of(&remote(&context.settings, &address).await?, limit, open).await
}

/// Returns the coordinator for a new run of a spec: the remote one, or a new local one with agents.
pub async fn for_run(context: &Context, containers: bool) -> Result<Connection, CliError> {
    let address = context.settings.get(&COORDINATOR);
    if address.is_empty() {
        let options = local_options(context, containers)?;
        return Ok(Connection::own(LocalRun::start(&options).await?));
    }
    remote(&context.settings, &address).await
}

/// Starts a local coordinator whose agents also offer these labels, even if a remote one is configured.
pub async fn for_local(
    context: &Context,
    containers: bool,
    labels: Vec<String>,
) -> Result<Connection, CliError> {
    let options = local::Options {
        labels,
        ..local_options(context, containers)?
    };
    Ok(Connection::own(LocalRun::start(&options).await?))
}

/// Returns the coordinator for a rerun, and the id of the run to repeat.
pub async fn for_rerun(
    context: &Context,
    text: Option<&str>,
) -> Result<(Connection, RunId), CliError> {
    if !context.settings.get(&COORDINATOR).is_empty() {
        return to_run(context, text).await;
    }
    let run = pick(text, &list(context, PICK_AMONG, false).await?)?;
    let started = LocalRun::beside(&local_options(context, true)?, &run).await?;
    Ok((Connection::own(started), run))
}

/// Resumes a local run: the given one, or the newest that was interrupted.
pub async fn resume(
    context: &Context,
    text: Option<&str>,
    given: Given,
) -> Result<(Connection, RunId), CliError> {
    let runs = list(context, PICK_AMONG, false).await?;
    let unfinished = |run: &RunSummary| run.finished_us.is_none();
    let run = match text {
        None | Some("last" | "latest") => {
            let open: Vec<RunSummary> = runs.into_iter().filter(unfinished).collect();
            let none = |_| {
                CliError::usage("there is no run to resume: none ended before its time")
                    .explained_by(ErrorCode::NotResumable)
            };
            pick(None, &open).map_err(none)?
        }
        text => {
            let run = pick(text, &runs)?;
            if !runs
                .iter()
                .any(|known| known.run_id == run.as_str() && unfinished(known))
            {
                let message = format!("run {run} is over: there is nothing to resume");
                return Err(CliError::usage(message).explained_by(ErrorCode::NotResumable));
            }
            run
        }
    };
    let state_dir = context.settings.get(&STATE_DIR);
    let look = local::open(&state_dir, run.as_str()).await?;
    let declared = secrets::of_run(look.client(), run.clone()).await?;
    drop(look);
    let secrets = match declared {
        Some(declared) => {
            let secrets = given.of_spec(&declared)?;
            secrets::demand(&declared, &secrets)?;
            secrets
        }
        None => given.of_any_spec()?,
    };
    let resumed = LocalRun::resume(&local_options(context, true)?, &run, secrets).await?;
    Ok((Connection::own(resumed), run))
}

/// Removes old runs and the leftovers of dead ones.
pub async fn gc(context: &Context, wish: local::Gc) -> Result<GcResponse, CliError> {
    let address = context.settings.get(&COORDINATOR);
    if address.is_empty() {
        let state_dir = context.settings.get(&STATE_DIR);
        let docker = local::of_agents(&context.settings);
        return Ok(local::gc(&state_dir, &docker, wish, super::now()).await?);
    }
    if wish.kept || wish.images_older_than_s.is_some() || wish.snapshots_unused_s.is_some() {
        let message =
            "--kept, --images and --snapshots are about this machine's engine, not a coordinator";
        return Err(CliError::usage(message)
            .with_help("run it on the agent's machine, without --coordinator"));
    }
    let request = GcRequest {
        older_than_s: wish.older_than_s,
        dry_run: wish.dry_run,
    };
    let connection = remote(&context.settings, &address).await?;
    Ok(connection.client().gc(request).await?.into_inner())
}

/// Lists the snapshots that this machine keeps, or all agents of a coordinator.
pub async fn snapshots(context: &Context) -> Result<Vec<SnapshotSummary>, CliError> {
    let address = context.settings.get(&COORDINATOR);
    if address.is_empty() {
        let state_dir = context.settings.get(&STATE_DIR);
        return Ok(local::snapshots(&state_dir, super::now())?);
    }
    let mut client = remote(&context.settings, &address).await?.client();
    let answer = client.list_snapshots(ListSnapshotsRequest {}).await?;
    Ok(answer.into_inner().snapshots)
}

/// Removes snapshots from this machine, or from all agents of a coordinator.
pub async fn remove_snapshots(
    context: &Context,
    keys: Vec<String>,
) -> Result<RemoveSnapshotsResponse, CliError> {
    let address = context.settings.get(&COORDINATOR);
    if address.is_empty() {
        let state_dir = context.settings.get(&STATE_DIR);
        let docker = local::of_agents(&context.settings);
        let removed = local::remove_snapshots(&state_dir, &docker, keys, super::now());
        let (removed, images) = removed.await?;
        if let Some(why) = images {
            let note = format!("the next run removes their images: {why}");
            context.voice.note(&note);
        }
        return Ok(removed);
    }
    let mut client = remote(&context.settings, &address).await?.client();
    let mut removed = RemoveSnapshotsResponse::default();
    for keys in keys.chunks(limit::SNAPSHOTS) {
        let request = RemoveSnapshotsRequest {
            keys: keys.to_vec(),
        };
        let answer = client.remove_snapshots(request).await?.into_inner();
        removed.removed.extend(answer.removed);
        removed.left.extend(answer.left);
    }
    Ok(removed)
}

/// With fewer open files than this, a local run's journal and agent can't even start.
const LEAST_FILES: u64 = 48;
/// Files that a local run opens before its first cell, and that each running cell opens.
const OWN_FILES: u64 = 64;
const CELL_FILES: u64 = 10;
/// Number of cells that the limit is checked for at most: there may be more slots than a run ever uses.
const USUAL_CELLS: u64 = 16;

/// Warns if the limit on open files is low, before anything fails because of it. Returns an error if it is too low to
/// start.
fn tell_few_files(context: &Context, options: &local::Options) -> Result<(), CliError> {
    let cells = u64::from(options.agents.max(1)) * u64::from(options.slots);
    let Ok((files, _)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return Ok(());
    };
    if files < LEAST_FILES {
        return Err(CliError::errored(format!(
            "at most {files} open files are allowed here (`ulimit -n`), a local run can't start with fewer than {LEAST_FILES}"
        ))
        .with_help(format!(
            "raise the limit: it needs some {OWN_FILES}, and {CELL_FILES} more for each cell in progress"
        ))
        .explained_by(ErrorCode::AgentStart));
    }
    if files < OWN_FILES + CELL_FILES * cells.min(USUAL_CELLS) {
        context.voice.note(&format!(
            "at most {files} open files are allowed here (`ulimit -n`): a local run needs some {OWN_FILES}, and {CELL_FILES} more for each cell in progress; what finds none left is errored"
        ));
    }
    Ok(())
}

fn local_options(context: &Context, containers: bool) -> Result<local::Options, CliError> {
    let settings = &context.settings;
    let mut docker = local::of_agents(settings);
    if !containers {
        docker.ready_networks = 0;
    }
    let options = local::Options {
        state_dir: settings.get(&STATE_DIR),
        agents: settings.get(&fleet::AGENTS),
        slots: settings.get(&fleet::SLOTS).max(1),
        agents_as_processes: settings.get(&fleet::AGENTS_AS_PROCESSES),
        cpu_overcommit: settings.get(&fleet::CPU_OVERCOMMIT),
        memory_overcommit: settings.get(&fleet::MEMORY_OVERCOMMIT),
        snapshots_mib: settings.get(&fleet::SNAPSHOTS_MIB),
        snapshots_days: settings.get(&fleet::SNAPSHOTS_DAYS),
        policy: super::rules::of_this_machine(settings)?,
        labels: Vec::new(),
        docker,
        cancel_grace: Duration::from_secs(settings.get(&CANCEL_GRACE_S)),
        max_cells: super::max_cells(settings),
        tracer: context.tracer.clone(),
        program: None,
    };
    tell_few_files(context, &options)?;
    Ok(options)
}

impl From<local::Error> for CliError {
    fn from(error: local::Error) -> CliError {
        let message = error.to_string();
        match error {
            local::Error::Live { run } => CliError::usage(message)
                .with_help(format!("phalanx watch {run}"))
                .explained_by(ErrorCode::NotResumable),
            local::Error::File { .. } => CliError::usage(message)
                .with_help("phalanx export RUN --output FILE writes one")
                .explained_by(ErrorCode::Archive),
            local::Error::NoSuchRun(_) => CliError::usage(message)
                .with_help("phalanx runs lists them")
                .explained_by(ErrorCode::Unknown),
            local::Error::Journal(_) | local::Error::Place { .. } => {
                CliError::errored(message).explained_by(ErrorCode::Journal)
            }
            local::Error::Agent(_)
            | local::Error::Identity(_)
            | local::Error::Start(_)
            | local::Error::Process(_) => {
                CliError::errored(message).explained_by(ErrorCode::AgentStart)
            }
            local::Error::Connect(_) | local::Error::Engine(_) | local::Error::Unpack(_) => {
                CliError::errored(message)
            }
        }
    }
}

pub(super) async fn list_of(
    connection: &Connection,
    limit: u32,
    open: bool,
) -> Result<Vec<RunSummary>, CliError> {
    let answer = connection
        .client()
        .list_runs(ListRunsRequest { limit, open })
        .await?;
    Ok(answer.into_inner().runs)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_coordinator_that_is_not_there_is_named_with_the_cause() {
        let error = reach("127.0.0.1:1", "").await.err().unwrap();
        assert!(
            error.message.contains("127.0.0.1:1") && error.message.contains("refused"),
            "{error}"
        );
        let error = reach("unix:/no/such/socket", "").await.err().unwrap();
        assert!(error.message.contains("No such file"), "{error}");
        assert!(
            reach("http://[broken", "")
                .await
                .err()
                .unwrap()
                .message
                .contains("not an address")
        );
        let error = reach("https://127.0.0.1:1", "").await.err().unwrap();
        assert!(error.help.unwrap().contains("--ca sha256:"));
    }
}
