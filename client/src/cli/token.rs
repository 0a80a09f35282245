//! `phalanx token`: makes, lists and revokes tokens, at a coordinator or directly in the state directory of this machine's.

use super::connect::{self, Reached};
use super::error::CliError;
use super::login::place;
use super::runs::Format;
use super::{Context, agent_token, exit, say};
use crate::config::place::STATE_DIR;
use crate::config::server::{CA, COORDINATOR};
use crate::credential::Authorized;
use phalanx_coordinator::access::audit::Happened;
use phalanx_coordinator::access::core::{Role, Scope};
use phalanx_coordinator::access::tokens::{NotMade, Token, Tokens, Wish};
use phalanx_coordinator::journal::StoreError;
use phalanx_coordinator::serve::api::tokens::info;
use phalanx_coordinator::serve::server::journal_path;
use phalanx_proto::v1::access_client::AccessClient;
use phalanx_proto::v1::{CreateTokenRequest, ListTokensRequest, RevokeTokenRequest, TokenInfo};
use phalanx_report::style::Tone;
use phalanx_report::table::Table;
use phalanx_report::text::clean;
use phalanx_shared::error_code::ErrorCode;
use phalanx_shared::language::quantity;
use phalanx_shared::namespace::{InvalidNamespace, Namespace};
use phalanx_shared::time::Timestamp;
use serde_json::json;
use std::time::Duration;

/// Word for a token without an end.
const NEVER: &str = "never";

/// Make, list and revoke tokens
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
With --coordinator (or the setting `coordinator`) the coordinator is asked. Without, the tokens of this machine's coordinator
are changed in its state directory, whether it runs or not.

Examples:
  phalanx token create client --role run --namespace team-a --ttl 30d --name ci
  phalanx token list
  phalanx token revoke 3f2a90c1d4e5b6a7")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Command {
    /// Make a token and print it; it is shown only now
    Create(Create),
    /// List the tokens, without the tokens themselves
    List(List),
    /// End a token at once, with everything that it is used for
    Revoke(Revoke),
}

#[derive(clap::Args, Clone, Debug)]
struct Create {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Kind {
    /// Make a token for a person or a program that uses the coordinator
    Client(ForClient),
    Agent(agent_token::Args),
}

#[derive(clap::Args, Clone, Debug)]
struct ForClient {
    /// What it allows; each role includes those before it
    #[arg(long, value_enum)]
    role: RoleWord,
    /// Namespace that it is for; `*` for all
    #[arg(long, value_name = "NAME", default_value_t = Namespace::default().to_string())]
    namespace: String,
    /// Time until it expires: 12h, 30d; never
    #[arg(long, value_name = "TIME", default_value = "90d")]
    ttl: String,
    /// Name to know it by, in lists and in the audit log
    #[arg(long)]
    name: String,
}

/// The roles, for the command line.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum RoleWord {
    /// See runs, their logs and artifacts, and agents
    Read,
    /// Start runs
    Run,
    /// Cancel runs that the same token started
    CancelOwn,
    /// Do everything in the namespace, tokens included; in all namespaces, agents and clean-up too
    Admin,
}

impl RoleWord {
    fn role(self) -> Role {
        match self {
            RoleWord::Read => Role::Read,
            RoleWord::Run => Role::Run,
            RoleWord::CancelOwn => Role::CancelOwn,
            RoleWord::Admin => Role::Admin,
        }
    }
}

#[derive(clap::Args, Clone, Debug)]
struct List {
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(clap::Args, Clone, Debug)]
struct Revoke {
    /// Id of the token
    id: String,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    match args.command {
        Command::Create(Create {
            kind: Kind::Agent(args),
        }) => agent_token::run(args, context).await,
        Command::Create(Create {
            kind: Kind::Client(wish),
        }) => create(&wish, &mut Place::of(context).await?, context).await,
        Command::List(List { format }) => {
            let listed = Place::of(context).await?.list().await?;
            list(&listed, format, context)
        }
        Command::Revoke(Revoke { id }) => {
            let token = Place::of(context).await?.revoke(&id).await?;
            context.voice.note(&format!(
                "token {id} ({}) is revoked: what it is used for ends within seconds",
                clean(&token.name)
            ));
            Ok(exit::OK)
        }
    }
}

async fn create(wish: &ForClient, tokens: &mut Place, context: &Context) -> Result<u8, CliError> {
    let ttl = ttl(&wish.ttl)?;
    let scope = match wish.namespace.as_str() {
        Scope::ALL => Scope::All,
        name => Scope::One(name.parse().map_err(|error: InvalidNamespace| {
            CliError::usage(error.to_string()).with_help("--namespace '*' is for all namespaces")
        })?),
    };
    let (token, secret) = tokens.create(wish, scope, ttl).await?;
    say::to_stdout(format!("{secret}\n"))?;
    context.voice.note(&format!(
        "token {} ({}): role {} in {}, {}; it is shown only now",
        token.id,
        clean(&token.name),
        token.role,
        place(&token.namespace),
        match token.expires_us {
            Some(at) => format!("until {}", Timestamp(at).to_rfc3339()),
            None => "without an end".to_owned(),
        }
    ));
    Ok(exit::OK)
}

/// Reads a time to live: like other times, and in days.
fn ttl(text: &str) -> Result<Option<Duration>, CliError> {
    if text == NEVER {
        return Ok(None);
    }
    let days = text
        .strip_suffix('d')
        .and_then(|days| days.parse::<u32>().ok());
    let days = days.map(|days| Duration::from_secs(u64::from(days) * 86_400));
    // A bare number would be seconds elsewhere, and days to many.
    let named = text.ends_with(|last: char| last.is_ascii_alphabetic());
    let ttl = days.or_else(|| quantity::duration(text).filter(|_| named));
    match ttl.filter(|ttl| ttl.as_secs() > 0) {
        Some(ttl) => Ok(Some(ttl)),
        None => Err(CliError::usage(format!("--ttl {text}: not a time"))
            .with_help("write 12h, 30d or never")),
    }
}

fn list(tokens: &[TokenInfo], format: Format, context: &Context) -> Result<u8, CliError> {
    match format {
        Format::Table if tokens.is_empty() => context.voice.note("there are no tokens"),
        Format::Table => {
            say::to_stdout(context.voice.table(&table(tokens, super::now())))?;
        }
        Format::Json => {
            let tokens: Vec<_> = tokens.iter().map(as_json).collect();
            say::to_stdout(format!("{:#}\n", json!({ "tokens": tokens })))?;
        }
    }
    Ok(exit::OK)
}

/// Returns whether a token is valid, in words.
fn state(token: &TokenInfo, now: Timestamp) -> (Tone, String) {
    let time = |at: i64| Timestamp(at).to_rfc3339();
    match (token.revoked_us, token.expires_us) {
        (Some(at), _) => (Tone::Bad, format!("revoked {}", time(at))),
        (None, Some(at)) if at <= now.0 => (Tone::Bad, format!("expired {}", time(at))),
        (None, Some(at)) => (Tone::Good, format!("until {}", time(at))),
        (None, None) => (Tone::Good, "without an end".to_owned()),
    }
}

fn table(tokens: &[TokenInfo], now: Timestamp) -> Table {
    let mut table = Table::new([
        "ID",
        "NAME",
        "ROLE",
        "NAMESPACE",
        "VALID",
        "USED",
        "MADE BY",
    ]);
    for token in tokens {
        let (tone, valid) = state(token, now);
        let used = token
            .used_us
            .map_or_else(|| "never".to_owned(), |at| Timestamp(at).to_rfc3339());
        table.row([
            (Tone::Plain, token.id.clone()),
            (Tone::Plain, clean(&token.name).into_owned()),
            (Tone::Plain, token.role.clone()),
            (Tone::Plain, token.namespace.clone()),
            (tone, valid),
            (Tone::Dim, used),
            (Tone::Dim, clean(&token.created_by).into_owned()),
        ]);
    }
    table
}

fn as_json(token: &TokenInfo) -> serde_json::Value {
    let time = |at: Option<i64>| at.map(|at| Timestamp(at).to_rfc3339());
    json!({
        "id": token.id,
        "name": token.name,
        "role": token.role,
        "namespace": token.namespace,
        "created_by": token.created_by,
        "created": Timestamp(token.created_us).to_rfc3339(),
        "expires": time(token.expires_us),
        "used": time(token.used_us),
        "revoked": time(token.revoked_us),
    })
}

/// Where the tokens are.
enum Place {
    /// At a coordinator.
    Remote(Box<AccessClient<Authorized>>),
    /// In the database of this machine's coordinator.
    Here(Tokens),
}

impl Place {
    async fn of(context: &Context) -> Result<Place, CliError> {
        let url = context.settings.get(&COORDINATOR);
        if !url.is_empty() {
            let credential = connect::credential(&context.settings, &url)?;
            let Reached(channel) = connect::reach(&url, &context.settings.get(&CA)).await?;
            return Ok(Place::Remote(Box::new(credential.access_client(channel))));
        }
        Ok(Place::Here(here_at(context).await?))
    }

    async fn create(
        &mut self,
        wish: &ForClient,
        scope: Scope,
        ttl: Option<Duration>,
    ) -> Result<(TokenInfo, String), CliError> {
        let role = wish.role.role();
        match self {
            Place::Remote(client) => {
                let request = CreateTokenRequest {
                    name: wish.name.clone(),
                    role: role.to_string(),
                    namespace: scope.to_string(),
                    ttl_s: ttl.map_or(0, |ttl| ttl.as_secs()),
                };
                let made = client.create_token(request).await?.into_inner();
                Ok((made.token.unwrap_or_default(), made.secret))
            }
            Place::Here(tokens) => {
                let wish = Wish {
                    name: wish.name.clone(),
                    role,
                    scope,
                    ttl,
                    by: here(),
                    subject: None,
                };
                let made = tokens.add(wish, super::now()).await;
                let (fresh, token) = made.map_err(|error| match error {
                    NotMade::Name => CliError::usage(error.to_string()),
                    NotMade::Random(_) => CliError::errored(error.to_string()),
                    NotMade::Store(error) => of_store(error),
                })?;
                note(tokens, "token create", &token).await?;
                Ok((info(token), fresh.text))
            }
        }
    }

    async fn list(&mut self) -> Result<Vec<TokenInfo>, CliError> {
        match self {
            Place::Remote(client) => {
                let listed = client.list_tokens(ListTokensRequest {}).await?;
                Ok(listed.into_inner().tokens)
            }
            Place::Here(tokens) => {
                let listed = tokens.list(&Scope::All).await.map_err(of_store)?;
                Ok(listed.into_iter().map(info).collect())
            }
        }
    }

    async fn revoke(&mut self, id: &str) -> Result<TokenInfo, CliError> {
        match self {
            Place::Remote(client) => {
                let request = RevokeTokenRequest { id: id.to_owned() };
                let revoked = client.revoke_token(request).await?.into_inner();
                Ok(revoked.token.unwrap_or_default())
            }
            Place::Here(tokens) => {
                let found = tokens.get(id).await.map_err(of_store)?;
                let found = found.ok_or_else(|| {
                    CliError::usage(format!("there is no token {id:?}"))
                        .with_help("phalanx token list")
                        .explained_by(ErrorCode::Unknown)
                })?;
                tokens.revoke(id, super::now()).await.map_err(of_store)?;
                note(tokens, "token revoke", &found).await?;
                Ok(info(found))
            }
        }
    }
}

/// Opens the tokens in this machine's state directory.
pub(super) async fn here_at(context: &Context) -> Result<Tokens, CliError> {
    let directory = context.settings.get(&STATE_DIR).join("coordinator");
    phalanx_coordinator::private::directory(&directory).map_err(|error| {
        CliError::errored(format!("can't use {}: {error}", directory.display()))
            .explained_by(ErrorCode::Journal)
    })?;
    let tokens = Tokens::open(&journal_path(&directory)).await;
    tokens.map_err(of_store)
}

/// Writes into the audit log what was done in the state directory.
async fn note(tokens: &Tokens, call: &str, token: &Token) -> Result<(), CliError> {
    let happened = Happened {
        name: here(),
        namespace: token.identity.scope.to_string(),
        from: "this machine".to_owned(),
        call: call.to_owned(),
        ..Happened::default()
    };
    let happened = happened.ended(format!("token {}", token.in_words()), Ok(()));
    let written = tokens.audit().add(happened, super::now()).await;
    written.map_err(of_store)
}

/// Who changes tokens in the state directory: whoever may write there.
fn here() -> String {
    format!(
        "user {} of the coordinator's machine",
        nix::unistd::getuid()
    )
}

fn of_store(error: StoreError) -> CliError {
    CliError::errored(error.to_string()).explained_by(ErrorCode::Journal)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_time_to_live_is_a_time_a_number_of_days_or_none() {
        assert_eq!(ttl("30d").unwrap(), Some(Duration::from_secs(2_592_000)));
        assert_eq!(ttl("90m").unwrap(), Some(Duration::from_secs(5_400)));
        assert_eq!(ttl("never").unwrap(), None);
        for text in ["", "0s", "0d", "30", "x", "-1d"] {
            assert!(ttl(text).is_err(), "{text}");
        }
    }
}
