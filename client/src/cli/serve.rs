//! `phalanx serve`: runs a coordinator for agents and clients.

use super::error::CliError;
use super::explain::PAGES as PAGES_OF_ERRORS;
use super::interrupt::Interrupts;
use super::{Context, exit, say, secrets};
use crate::config::place::STATE_DIR;
use crate::config::server::{
    ACCEPT_WITHIN_S, ACCESS, AGENT_EVENTS_MIB, ARTIFACT_ATTEMPT_MIB, ARTIFACT_FILE_MIB,
    ARTIFACT_RUN_MIB, ATTEMPT_MARGIN_S, CANCEL_GRACE_S, DATABASE, HEARTBEAT_MS, HTTP,
    KEEP_RUNS_DAYS, LABEL_LIMITS, LEASE_MARGIN_S, LEASE_S, LISTEN, LOG_AGENT_MIB, LOG_ATTEMPT_MIB,
    LOG_RESERVE_MIB, PAGES, POOLS, RECONNECT_WITHIN_S, RESET_GRACE_S, SECRETS_DIR, SUBMISSIONS_MIB,
    TAKEOVER_S,
};
use crate::config::{Flag, Setting, Settings};
use phalanx_coordinator::dispatch::artifacts::Limits as ArtifactLimits;
use phalanx_coordinator::dispatch::core::Settings as SessionSettings;
use phalanx_coordinator::dispatch::logs::store::Limits as LogLimits;
use phalanx_coordinator::journal::{Lead, PostgresStore, Store};
use phalanx_coordinator::serve::server::{self, Listener};
use phalanx_coordinator::serve::web;
use phalanx_coordinator::supervisor;
use phalanx_shared::error_code::ErrorCode;
use phalanx_shared::namespace::Namespace;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

/// Maximum number of connections waiting to be accepted; the machine may allow fewer.
const BACKLOG: u32 = 4_096;

/// Run a coordinator that agents and clients connect to
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  phalanx serve                                     for this machine only, on 127.0.0.1:7180
  phalanx serve --access                            ask clients for tokens: docs/security.md
  phalanx serve --listen 10.0.0.5:7180 --insecure   for a trusted network (phalanx explain PHX0002)
  phalanx agent --coordinator http://10.0.0.5:7180  on each runner
  phalanx serve --database postgres://phalanx@db/phalanx   with a standby that names the same database and directory
  phalanx serve --file ci.phx                       pages of an exported run")]
pub struct Args {
    /// Address and port to listen on
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Address and port for the pages, /healthz and Prometheus' /metrics; empty for none
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<String>,
    /// Database of the journal, postgres://USER@HOST/DATABASE, that standbys share [default: a file in the state directory]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Ask clients for tokens and check their roles; the first start makes a token for an administrator
    #[arg(long)]
    access: bool,
    /// Allow other machines to connect without encryption, and without tokens unless --access
    #[arg(long)]
    insecure: bool,
    /// Only show the pages of a run that `phalanx export` wrote; no coordinator runs
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, conflicts_with_all = ["listen", "insecure", "database", "access"])]
    file: Option<PathBuf>,
}

impl Args {
    /// Returns the settings that the flags give.
    pub fn flags(&self) -> impl Iterator<Item = Flag> {
        let flag = |key, name, value: &Option<String>| {
            let value = value.clone()?;
            Some(Flag { key, name, value })
        };
        let access = self.access.then(|| "true".to_owned());
        let flags = [
            flag(LISTEN.key, "--listen", &self.listen),
            flag(HTTP.key, "--http", &self.http),
            flag(DATABASE.key, "--database", &self.database),
            flag(ACCESS.key, "--access", &access),
        ];
        flags.into_iter().flatten()
    }
}

/// Serves until Ctrl-C. Nothing is cancelled: runs continue at the next start.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    phalanx_coordinator::private::memory();
    let settings = &context.settings;
    if let Some(file) = &args.file {
        return show(file, &settings.get(&HTTP)).await;
    }
    let address = address(&settings.get(&LISTEN), args.insecure)?;
    let http = match settings.get(&HTTP).as_str() {
        "" => None,
        text => Some(self::address(text, args.insecure)?),
    };
    let mut interrupts = Interrupts::listen()?;
    let directory = settings.get(&STATE_DIR).join("coordinator");
    phalanx_coordinator::private::directory(&directory).map_err(|error| {
        CliError::errored(format!("can't use {}: {error}", directory.display()))
            .explained_by(ErrorCode::Journal)
    })?;
    let mut waits = |leader: &str| say::to_stderr(&format!("standby: {leader} leads\n"));
    let store = match settings.get(&DATABASE).as_str() {
        "" => None,
        url => tokio::select! {
            led = lead(url, &directory, settings, &mut waits) => Some(Arc::new(led?)),
            // Nothing was begun yet.
            _ = interrupts.next() => return Ok(exit::OK),
        },
    };
    // Only whoever leads listens: that is how clients and agents find it among several addresses.
    let (listener, bound) = bind(address)?;
    let http = http.map(bind).transpose()?;
    let reached = |address: &SocketAddr| !address.ip().to_canonical().is_loopback();
    let from_afar = reached(&bound) || http.as_ref().is_some_and(|(_, bound)| reached(bound));
    let access = match settings.is_given(&ACCESS) {
        true => settings.get(&ACCESS),
        false => from_afar && !args.insecure,
    };
    let token_file = directory.join(FIRST_TOKEN);
    let options = server::Options {
        access,
        store: store.clone().map(|store| store as Arc<dyn Store>),
        ..options(context, directory)?
    };
    let server = server::start(options, Listener::Tcp(listener)).await;
    let server = server.map_err(|error| CliError::errored(error.to_string()))?;
    say::to_stderr(&format!(
        "coordinator at http://{bound}: phalanx agent --coordinator http://{bound}\n"
    ));
    if let Some(token) = server
        .first_admin()
        .await
        .map_err(|error| CliError::errored(format!("no token for an administrator: {error}")))?
    {
        keep_first(&token, &token_file)?;
        say::to_stderr(&format!(
            "the first administrator's token is in {}: phalanx login http://{bound} --token-file {}\n",
            token_file.display(),
            token_file.display()
        ));
    }
    if let Some((listener, bound)) = http {
        let pages = settings.get(&PAGES).then_some(web::Options {
            actions: web::Actions::ALL,
            explained: PAGES_OF_ERRORS,
        });
        say::to_stderr(&told(bound, pages.is_some(), access));
        server.observe(listener, pages);
    }
    let deposed = async {
        match &store {
            Some(store) => store.deposed().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = interrupts.next() => {
            say::to_stderr("stopping: open runs continue at the next start\n");
            server.stop().await;
            Ok(exit::OK)
        }
        by = deposed => {
            server.stop().await;
            Err(CliError::errored(format!("{by}; this one has stopped"))
                .with_help("started again, it waits as a standby; a service manager does that"))
        }
    }
}

/// Waits until this coordinator leads on a database. `waits` gets where the leader runs for which it waits.
async fn lead(
    url: &str,
    directory: &Path,
    settings: &Settings,
    waits: &mut (dyn FnMut(&str) + Send),
) -> Result<PostgresStore, CliError> {
    let journal = |error: String| CliError::errored(error).explained_by(ErrorCode::Journal);
    let files = files_id(directory)
        .map_err(|error| journal(format!("can't use {}: {error}", directory.display())))?;
    let host = phalanx_agent::machine::name();
    let place = format!("{host} (process {})", std::process::id());
    let led = PostgresStore::lead(Lead {
        url,
        place: &place,
        files: &files,
        patience: Duration::from_secs(settings.get(&TAKEOVER_S).max(5)),
        waits,
    });
    led.await.map_err(|error| journal(error.to_string()))
}

/// Leads on a database, for a command; an error if a coordinator does.
pub(super) async fn lead_now(
    url: &str,
    directory: &Path,
    settings: &Settings,
) -> Result<PostgresStore, CliError> {
    phalanx_coordinator::private::directory(directory).map_err(|error| {
        CliError::errored(format!("can't use {}: {error}", directory.display()))
            .explained_by(ErrorCode::Journal)
    })?;
    let (told, leader) = tokio::sync::oneshot::channel();
    let mut told = Some(told);
    let mut waits = |place: &str| {
        if let Some(told) = told.take() {
            let _ = told.send(place.to_owned());
        }
    };
    tokio::select! {
        led = lead(url, directory, settings, &mut waits) => led,
        Ok(place) = leader => Err(CliError::errored(format!("a coordinator leads on the database: {place}"))
            .with_help("stop it, and its standbys")),
    }
}

/// Returns the id of a coordinator's directory, which is made with it: the journal's rows name files that are there.
fn files_id(directory: &Path) -> std::io::Result<String> {
    let path = directory.join("files-id");
    let id = uuid::Uuid::new_v4().simple().to_string();
    // Linked in one step, in case several coordinators share a new directory.
    let own = directory.join(format!("files-id.{id}"));
    std::fs::write(&own, &id)?;
    let linked = std::fs::hard_link(&own, &path);
    std::fs::remove_file(&own)?;
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(std::fs::read_to_string(&path)?.trim().to_owned()),
    }
}

/// Shows the pages of an exported run until Ctrl-C.
async fn show(file: &Path, http: &str) -> Result<u8, CliError> {
    let mut interrupts = Interrupts::listen()?;
    let look = crate::local::open_file(file).await?;
    let (listener, bound) = bind(address(http, false)?)?;
    say::to_stderr(&format!("pages at http://{bound}/runs/{}\n", look.run()));
    let stop = CancellationToken::new();
    let serving = look.serve(listener, PAGES_OF_ERRORS, stop.clone());
    tokio::select! {
        served = serving => served.map_err(|error| CliError::errored(format!("no pages any more: {error}")))?,
        _ = interrupts.next() => stop.cancel(),
    }
    Ok(exit::OK)
}

/// Name of the file with the first administrator's token, in the coordinator's directory.
const FIRST_TOKEN: &str = "admin.token";

/// Writes the first administrator's token to a file that only this user can read.
fn keep_first(token: &str, path: &Path) -> Result<(), CliError> {
    let mut options = std::fs::File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(path).and_then(|mut file| {
        // An old file may have another mode.
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        file.write_all(format!("{token}\n").as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| {
        CliError::errored(format!("can't write {}: {error}", path.display())).with_help(
            "phalanx token create client --role admin --namespace '*' --name admin makes another one",
        )
    })
}

/// Returns what the HTTP side has to offer.
fn told(bound: SocketAddr, pages: bool, access: bool) -> String {
    let metrics = format!("metrics at http://{bound}/metrics\n");
    match (pages, access || bound.ip().to_canonical().is_loopback()) {
        (true, true) => format!("pages at http://{bound}/\n{metrics}"),
        (true, false) => format!(
            "no pages: {bound} can be reached by other machines, and pages have buttons and no passwords; --http 127.0.0.1:7181 or --access serves them\n{metrics}"
        ),
        (false, _) => metrics,
    }
}

/// Like [`TcpListener::bind`], with a backlog for a large fleet that reconnects at once after a restart.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), CliError> {
    let listener = listen(address).map_err(|error| {
        CliError::errored(format!("can't listen on {address}: {error}"))
            .with_help("is another `phalanx serve` running? --listen and --http take other ports")
            .explained_by(ErrorCode::Listen)
    })?;
    let bound = listener.local_addr().unwrap_or(address);
    Ok((listener, bound))
}

/// Returns a secret of the coordinator: from its environment, with the same prefix as for `run`, or from a file of its
/// name. Namespaces other than the default one have a directory each, and no variables.
fn own_secret(directory: &str, namespace: &Namespace, name: &str) -> Option<String> {
    if *namespace != Namespace::default() {
        // What is given for one namespace isn't for another.
        let own = Path::new(directory).join(namespace.as_str());
        return secret_file(directory, &own, name);
    }
    let variable = std::env::var(format!("{}{name}", secrets::PREFIX)).ok();
    variable.or_else(|| secret_file(directory, Path::new(directory), name))
}

/// Returns the content of a secret's file in a directory, if there are such files at all.
fn secret_file(given: &str, directory: &Path, name: &str) -> Option<String> {
    // A name that is a path is not allowed.
    if given.is_empty() || name.contains('/') || name.starts_with('.') {
        return None;
    }
    let file = directory.join(name);
    if !file.is_file() {
        return None;
    }
    secrets::read_file(name, &file)
        .inspect_err(|error| tracing::warn!(%error, "a secret of the coordinator's own"))
        .ok()
}

fn options(context: &Context, directory: PathBuf) -> Result<server::Options, CliError> {
    let settings = &context.settings;
    let seconds = |setting| Duration::from_secs(settings.get(setting));
    let mib = |setting: &Setting<u64>| settings.get(setting).saturating_mul(1 << 20);
    let days = settings.get(&KEEP_RUNS_DAYS);
    let secrets_dir = settings.get(&SECRETS_DIR);
    Ok(server::Options {
        settings: supervisor::Settings {
            reconnect_within: seconds(&RECONNECT_WITHIN_S),
            cancel_grace: seconds(&CANCEL_GRACE_S),
            label_limits: settings.get(&LABEL_LIMITS).0,
            pools: settings.get(&POOLS).0,
            agents_are_all_here: false,
            keep_runs_for: (days > 0).then(|| Duration::from_secs(days.saturating_mul(86_400))),
            tracer: context.tracer.clone(),
            ..supervisor::Settings::default()
        },
        logs: LogLimits {
            attempt_bytes: mib(&LOG_ATTEMPT_MIB),
            agent_bytes: mib(&LOG_AGENT_MIB),
            reserve_bytes: settings
                .get(&LOG_RESERVE_MIB)
                .0
                .map(|mib| mib.saturating_mul(1 << 20)),
            artifacts: ArtifactLimits {
                file_bytes: mib(&ARTIFACT_FILE_MIB),
                attempt_bytes: mib(&ARTIFACT_ATTEMPT_MIB),
                run_bytes: mib(&ARTIFACT_RUN_MIB),
            },
        },
        sessions: SessionSettings {
            lease: seconds(&LEASE_S),
            heartbeat: Duration::from_millis(settings.get(&HEARTBEAT_MS)),
            margin: seconds(&LEASE_MARGIN_S),
            reset_grace: seconds(&RESET_GRACE_S),
            accept_within: seconds(&ACCEPT_WITHIN_S),
            attempt_margin: seconds(&ATTEMPT_MARGIN_S),
            agent_event_bytes: mib(&AGENT_EVENTS_MIB),
            policy: super::rules::of_agents(settings)?,
            ..SessionSettings::default()
        },
        own_secrets: Arc::new(move |namespace, name| own_secret(&secrets_dir, namespace, name)),
        submission_bytes: mib(&SUBMISSIONS_MIB),
        agents_return: true,
        max_cells: super::max_cells(settings),
        ..server::Options::below(directory)
    })
}

/// Returns the address, or an error if it may not be listened on.
fn address(text: &str, insecure: bool) -> Result<SocketAddr, CliError> {
    let address: SocketAddr = text.parse().map_err(|_| {
        CliError::usage(format!("{text}: not an address and port"))
            .with_help("write 127.0.0.1:7180 or [::1]:7180")
            .explained_by(ErrorCode::Listen)
    })?;
    if !address.ip().to_canonical().is_loopback() && !insecure {
        let message = format!(
            "{address} can be reached by other machines, and the protocol has no passwords"
        );
        return Err(CliError::usage(message)
            .with_help("put TLS in front of it, or pass --insecure")
            .explained_by(ErrorCode::Insecure));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_this_machine_is_served_unless_told_otherwise() {
        assert!(address("127.0.0.1:7180", false).is_ok());
        assert!(address("[::1]:0", false).is_ok());
        assert!(
            address("0.0.0.0:7180", false)
                .unwrap_err()
                .help
                .unwrap()
                .contains("--insecure")
        );
        assert!(address("0.0.0.0:7180", true).is_ok());
        assert!(address("localhost", false).is_err());
    }

    #[test]
    fn a_secret_of_the_coordinators_own_is_a_file_of_its_name_and_no_path() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("license"), "abc\n").unwrap();
        let directory = place.path().join("x");
        std::fs::create_dir(&directory).unwrap();
        let default = Namespace::default();
        let of = |directory: &Path, name| own_secret(&directory.to_string_lossy(), &default, name);
        assert_eq!(of(place.path(), "license").as_deref(), Some("abc"));
        assert_eq!(of(&directory, "../license"), None);
        assert_eq!(of(place.path(), "other"), None);
        assert_eq!(own_secret("", &default, "license"), None);
        let team: Namespace = "team".parse().unwrap();
        let of_team = |name| own_secret(&place.path().to_string_lossy(), &team, name);
        assert_eq!(of_team("license"), None);
        std::fs::create_dir(place.path().join("team")).unwrap();
        std::fs::write(place.path().join("team/license"), "theirs").unwrap();
        assert_eq!(of_team("license").as_deref(), Some("theirs"));
        assert_eq!(of(place.path(), "license").as_deref(), Some("abc"));
    }
}
