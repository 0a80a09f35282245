//! `phalanx serve`: runs a coordinator for agents and clients.

use super::error::CliError;
use super::explain::PAGES as PAGES_OF_ERRORS;
use super::interrupt::{Interrupts, Stop};
use super::{Context, exit, say, secrets};
use crate::config::place::STATE_DIR;
use crate::config::server::{
    ACCEPT_WITHIN_S, ACCESS, AGENT_EVENTS_MIB, ARTIFACT_ATTEMPT_MIB, ARTIFACT_FILE_MIB,
    ARTIFACT_RUN_MIB, ATTEMPT_MARGIN_S, CANCEL_GRACE_S, DATABASE, HEARTBEAT_MS, HTTP,
    KEEP_RUNS_DAYS, LABEL_LIMITS, LEASE_MARGIN_S, LEASE_S, LISTEN, LOG_AGENT_MIB, LOG_ATTEMPT_MIB,
    LOG_RESERVE_MIB, PAGES, POOLS, RECONNECT_WITHIN_S, RESET_GRACE_S, SECRETS_DIR, SUBMISSIONS_MIB,
    TAKEOVER_S, TLS_AGENT_S, TLS_CERT, TLS_CLIENT_CA, TLS_CLUSTER, TLS_KEY, TLS_LOOPBACK,
    TLS_NAMES,
};
use crate::config::{Flag, Setting, Settings};
use phalanx_coordinator::dispatch::artifacts::Limits as ArtifactLimits;
use phalanx_coordinator::dispatch::core::Settings as SessionSettings;
use phalanx_coordinator::dispatch::logs::store::Limits as LogLimits;
use phalanx_coordinator::identity::{self, Identities};
use phalanx_coordinator::journal::{Lead, PostgresStore, Store};
use phalanx_coordinator::serve::clients::Clients;
use phalanx_coordinator::serve::server::{self, Listener, StartError};
use phalanx_coordinator::serve::web;
use phalanx_coordinator::supervisor;
use phalanx_shared::error_code::ErrorCode;
use phalanx_shared::identity::is_name;
use phalanx_shared::namespace::Namespace;
use std::io::{IsTerminal, Write};
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
  phalanx serve --listen 0.0.0.0:7180               for a fleet, by TLS; agents need tokens (phalanx token create agent)
  phalanx serve --listen 10.0.0.5:7180 --insecure   without TLS, for a trusted network (phalanx explain PHX0002)
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
    /// Speak TLS on loopback addresses too, with identities for agents; on other addresses it always does
    #[arg(long, conflicts_with = "insecure")]
    tls: bool,
    /// Allow other machines to connect without TLS: whoever reaches the port is an agent, and clients need no tokens unless --access
    #[arg(long)]
    insecure: bool,
    /// Only show the pages of a run that `phalanx export` wrote; no coordinator runs
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, conflicts_with_all = ["listen", "insecure", "tls", "database", "access"])]
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
        let tls = self.tls.then(|| "true".to_owned());
        let flags = [
            flag(TLS_LOOPBACK.key, "--tls", &tls),
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
    let secured = |address: &SocketAddr| speaks_tls(address, args.insecure, settings);
    let listen_at = address(&settings.get(&LISTEN))?;
    let calls_secured = secured(&listen_at)?;
    let http = match settings.get(&HTTP).as_str() {
        "" => None,
        text => Some(address(text)?),
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
    let (listener, bound) = bind(listen_at)?;
    let http = http.map(bind).transpose()?;
    let reached = |address: &SocketAddr| !address.ip().to_canonical().is_loopback();
    let from_afar = reached(&bound) || http.as_ref().is_some_and(|(_, bound)| reached(bound));
    let access = match settings.is_given(&ACCESS) {
        true => settings.get(&ACCESS),
        false => from_afar && !args.insecure,
    };
    let token_file = directory.join(FIRST_TOKEN);
    let pages_secured = match &http {
        Some((_, bound)) => secured(bound)?,
        None => false,
    };
    let tls = match calls_secured || pages_secured {
        true => Some(tls_settings(settings, &directory, bound)?),
        false => None,
    };
    let options = server::Options {
        access,
        store: store.clone().map(|store| store as Arc<dyn Store>),
        tls,
        // Without tokens nothing tells who a client is.
        clients: match calls_secured && reached(&bound) && !access {
            true => Clients::ThisMachine,
            false => Clients::Anywhere,
        },
        ..options(context, directory)?
    };
    let listener = match calls_secured {
        true => Listener::Tls(listener),
        false => Listener::Tcp(listener),
    };
    let server = server::start(options, listener).await;
    let server = server.map_err(|error| {
        let failed = CliError::errored(error.to_string());
        match error {
            StartError::Journal(_) => failed,
            StartError::Tls(_) | StartError::NoSettings => {
                failed.explained_by(ErrorCode::Certificate)
            }
        }
    })?;
    let scheme = if calls_secured { "https" } else { "http" };
    say::to_stderr(&format!(
        "coordinator at {scheme}://{bound}: phalanx agent --coordinator {scheme}://{bound}\n"
    ));
    if let Some(identities) = server.identities() {
        let fingerprint = identities.fingerprint();
        let file = identities.ca_file();
        let file = file.map_or_else(String::new, |file| format!(" ({})", file.display()));
        say::to_stderr(&format!("known by --ca {fingerprint}{file}\n"));
    }
    if let Some(token) = server
        .first_admin()
        .await
        .map_err(|error| CliError::errored(format!("no token for an administrator: {error}")))?
    {
        keep_first(&token, &token_file)?;
        say::to_stderr(&format!(
            "the first administrator's token is in {}: phalanx login {scheme}://{bound} --token-file {}\n",
            token_file.display(),
            token_file.display()
        ));
    }
    if let Some((listener, bound)) = http {
        let pages = settings.get(&PAGES).then_some(web::Options {
            actions: web::Actions::ALL,
            explained: PAGES_OF_ERRORS,
        });
        let scheme = if pages_secured { "https" } else { "http" };
        say::to_stderr(&told(scheme, bound, pages.is_some(), access));
        server.observe(listener, pages, pages_secured);
    }
    let deposed = async {
        match &store {
            Some(store) => store.deposed().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = stopped(&mut interrupts, server.identities()) => {
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

/// Waits for a signal that requests a stop. SIGHUP does at a terminal, which is closed then; elsewhere certificates are
/// read again, if there are some.
async fn stopped(interrupts: &mut Interrupts, identities: Option<&Identities>) {
    let at_terminal = std::io::stdin().is_terminal();
    loop {
        let (stop, identities) = (interrupts.next().await, identities.cloned());
        match identities.filter(|_| stop == Stop::Hangup && !at_terminal) {
            // It reads files. Its errors are logged.
            Some(identities) => {
                let _ = tokio::task::spawn_blocking(move || identities.reload()).await;
            }
            None => return,
        }
    }
}

/// Returns whether a port speaks TLS: always if other machines can reach it, unless it was said otherwise.
fn speaks_tls(address: &SocketAddr, insecure: bool, settings: &Settings) -> Result<bool, CliError> {
    let given = [&TLS_CERT, &TLS_CLIENT_CA];
    if insecure && let Some(set) = given.iter().find(|set| !settings.get(**set).is_empty()) {
        let message = format!("--insecure means no TLS, and `{}` is set", set.key);
        return Err(CliError::usage(message)
            .with_help("leave one of them out")
            .explained_by(ErrorCode::Insecure));
    }
    let reached = !address.ip().to_canonical().is_loopback();
    Ok(settings.get(&TLS_LOOPBACK) || (reached && !insecure))
}

/// Returns the settings of TLS for a coordinator that listens at an address.
pub(super) fn tls_settings(
    settings: &Settings,
    directory: &Path,
    bound: SocketAddr,
) -> Result<identity::Settings, CliError> {
    let wrong = |message: String, help: &str| {
        CliError::usage(message)
            .with_help(help)
            .explained_by(ErrorCode::Setting)
    };
    let path = |setting| match settings.get::<String>(setting) {
        path if path.is_empty() => Ok(None),
        path => std::path::absolute(&path).map(Some).map_err(|error| {
            wrong(
                format!("`{}`: {error}", setting.key),
                "write the path of a PEM file",
            )
        }),
    };
    let cluster = settings.get(&TLS_CLUSTER);
    if !is_name(&cluster) {
        return Err(wrong(
            format!("`serve.tls.cluster` is {cluster:?}"),
            "use letters, digits, `.`, `_` and `-`, at most 64",
        ));
    }
    let server = match (path(&TLS_CERT)?, path(&TLS_KEY)?) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            return Err(wrong(
                "one of `serve.tls.cert` and `serve.tls.key` is set, and the other isn't"
                    .to_owned(),
                "set both, or none for a certificate of the coordinator's own CA",
            ));
        }
    };
    let mut names = settings.get(&TLS_NAMES);
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    if !bound.ip().is_unspecified() {
        names.push(bound.ip().to_canonical().to_string());
    }
    names.push(phalanx_agent::machine::name());
    names.sort_unstable();
    names.dedup();
    Ok(identity::Settings {
        cluster,
        names,
        external: identity::External {
            server,
            client_ca: path(&TLS_CLIENT_CA)?,
        },
        agent_lasts: Duration::from_secs(settings.get(&TLS_AGENT_S)),
        directory: directory.join("tls"),
    })
}

/// Shows the pages of an exported run until Ctrl-C.
async fn show(file: &Path, http: &str) -> Result<u8, CliError> {
    let mut interrupts = Interrupts::listen()?;
    let look = crate::local::open_file(file).await?;
    let (listener, bound) = bind(address(http)?)?;
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
fn told(scheme: &str, bound: SocketAddr, pages: bool, access: bool) -> String {
    let metrics = format!("metrics at {scheme}://{bound}/metrics\n");
    match (pages, access || bound.ip().to_canonical().is_loopback()) {
        (true, true) => format!("pages at {scheme}://{bound}/\n{metrics}"),
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

/// Parses an address to listen on.
fn address(text: &str) -> Result<SocketAddr, CliError> {
    text.parse().map_err(|_| {
        CliError::usage(format!("{text}: not an address and port"))
            .with_help("write 127.0.0.1:7180 or [::1]:7180")
            .explained_by(ErrorCode::Listen)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Layers, Machine};

    fn settings(flags: &[(&'static str, &str)]) -> Settings {
        let flags = flags.iter().map(|(key, value)| Flag {
            key,
            name: "--flag",
            value: (*value).to_owned(),
        });
        let layers = Layers {
            flags: flags.collect(),
            ..Layers::default()
        };
        Settings::load(&layers, Machine::here()).unwrap()
    }

    #[test]
    fn other_machines_are_served_by_tls_unless_told_otherwise() {
        let by_tls = |text: &str, insecure, flags: &[(&'static str, &str)]| {
            let settings = settings(flags);
            speaks_tls(&address(text).unwrap(), insecure, &settings)
        };
        for loopback in ["127.0.0.1:7180", "[::1]:0", "[::ffff:127.0.0.1]:1"] {
            assert!(!by_tls(loopback, false, &[]).unwrap(), "{loopback}");
        }
        assert!(by_tls("127.0.0.1:1", false, &[("serve.tls.loopback", "true")]).unwrap());
        for reached in ["0.0.0.0:7180", "[::]:7180", "192.0.2.1:1"] {
            assert!(by_tls(reached, false, &[]).unwrap(), "{reached}");
            assert!(!by_tls(reached, true, &[]).unwrap(), "{reached}");
        }
        let both = by_tls("0.0.0.0:1", true, &[("serve.tls.cert", "a.pem")]);
        assert!(both.unwrap_err().message.contains("serve.tls.cert"));
        assert!(address("localhost").is_err());
    }

    #[test]
    fn half_a_certificate_and_a_cluster_that_is_no_name_are_refused() {
        let bound = address("10.0.0.5:7180").unwrap();
        let of = |flags: &[(&'static str, &str)]| {
            tls_settings(&settings(flags), Path::new("/state"), bound)
        };
        let names = of(&[("serve.tls.names", "ci.example")]).unwrap().names;
        for name in ["10.0.0.5", "127.0.0.1", "ci.example"] {
            assert!(names.iter().any(|known| known == name), "{names:?}");
        }
        assert!(of(&[("serve.tls.key", "a.pem")]).is_err());
        assert!(of(&[("serve.tls.cluster", "a/b")]).is_err());
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
