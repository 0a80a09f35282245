//! `phalanx login` and `phalanx logout`: keep a coordinator's token, and forget it.

use super::connect::{self, Reached};
use super::error::CliError;
use super::{Context, exit, say};
use crate::config::server::{CA, COORDINATOR};
use crate::credential::{Credential, FileError, TokenFile, VARIABLE, is_private, key};
use console::Term;
use phalanx_proto::v1;
use phalanx_report::text::clean;
use phalanx_shared::error_code::ErrorCode;
use phalanx_shared::time::Timestamp;
use std::io::Read;
use std::path::PathBuf;

/// Longest token that is read from a file.
const TOKEN_BYTES: u64 = 64 << 10;

/// Store the token of a coordinator
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  phalanx login http://127.0.0.1:7180               ask for the token
  phalanx login https://ci.example --token-file -   read it from standard input
  phalanx login --status                            what the stored token of the coordinator allows
  PHALANX_TOKEN=… phalanx run spec.yaml             without storing it, as in CI")]
pub struct Args {
    /// URL of the coordinator [default: that of --coordinator or of the settings]
    url: Option<String>,
    /// Read the token from a file, `-` for standard input
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    token_file: Option<PathBuf>,
    /// Only show what the token allows
    #[arg(long, conflicts_with = "token_file")]
    status: bool,
    /// Send the token to another machine without encryption
    #[arg(long)]
    insecure: bool,
}

/// Remove the stored token of a coordinator
#[derive(clap::Args, Clone, Debug)]
pub struct Logout {
    /// URL of the coordinator [default: that of --coordinator or of the settings]
    url: Option<String>,
}

/// Runs `phalanx login`.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    let file = TokenFile::of_user()?;
    if args.status {
        return status(&args, context, &file).await;
    }
    let url = url(args.url.as_deref(), context)?;
    if !is_private(&url) && !args.insecure {
        let message = format!("the token would go to {url} unencrypted");
        return Err(CliError::usage(message)
            .with_help("write https://, or pass --insecure if you trust the network"));
    }
    let token = match &args.token_file {
        Some(file) => read(file)?,
        None => ask(&url)?,
    };
    let credential = Credential::new(Some(&token), "");
    let credential = credential.ok_or_else(|| CliError::usage("this isn't a token"))?;
    let who = who(&url, credential, context).await?;
    if !who.controlled {
        let message = format!("{url} asks for no tokens: there is nothing to log in to");
        return Err(CliError::usage(message)
            .with_help("`serve.access = true` in the coordinator's settings turns that on"));
    }
    file.add(&url, &token)?;
    context.voice.note(&format!(
        "logged in to {}: {}; the token is in {}",
        key(&url),
        allowed(&who),
        file.path().display()
    ));
    Ok(exit::OK)
}

/// Runs `phalanx logout`.
pub fn logout(args: &Logout, context: &Context) -> Result<u8, CliError> {
    let url = url(args.url.as_deref(), context)?;
    let text = match TokenFile::of_user()?.remove(&url)? {
        true => format!(
            "the token for {} is removed here; `phalanx token revoke` ends it everywhere",
            key(&url)
        ),
        false => format!("there was no token for {}", key(&url)),
    };
    context.voice.note(&text);
    Ok(exit::OK)
}

async fn status(args: &Args, context: &Context, file: &TokenFile) -> Result<u8, CliError> {
    let Ok(url) = url(args.url.as_deref(), context) else {
        let urls = file.urls()?;
        let text: String = urls.iter().map(|url| format!("{url}\n")).collect();
        if urls.is_empty() {
            context.voice.note("no token is stored");
        }
        say::to_stdout(text)?;
        return Ok(exit::OK);
    };
    let credential = connect::credential(&context.settings, &url)?;
    let who = who(&url, credential, context).await?;
    let text = match who.controlled {
        true => format!("{}: {}\n", key(&url), allowed(&who)),
        false => format!("{}: no tokens are asked for\n", key(&url)),
    };
    say::to_stdout(text)?;
    Ok(exit::OK)
}

/// Returns the coordinator to log in to.
fn url(given: Option<&str>, context: &Context) -> Result<String, CliError> {
    let url = given.map_or_else(|| context.settings.get(&COORDINATOR), str::to_owned);
    match url.is_empty() {
        false => Ok(url),
        true => Err(CliError::usage("which coordinator?")
            .with_help("phalanx login http://HOST:PORT, or the setting `coordinator`")),
    }
}

/// Asks a coordinator what a token allows.
async fn who(
    url: &str,
    credential: Credential,
    context: &Context,
) -> Result<v1::WhoAmIResponse, CliError> {
    let Reached(channel) = connect::reach(url, &context.settings.get(&CA)).await?;
    let mut client = credential.access_client(channel);
    Ok(client.who_am_i(v1::WhoAmIRequest {}).await?.into_inner())
}

fn allowed(who: &v1::WhoAmIResponse) -> String {
    let token = who.token.clone().unwrap_or_default();
    let until = match token.expires_us {
        Some(at) => format!("until {}", Timestamp(at).to_rfc3339()),
        None => "without an end".to_owned(),
    };
    format!(
        "token {:?}, role {} in {}, {until}",
        clean(&token.name),
        token.role,
        place(&token.namespace)
    )
}

/// Returns a namespace in words.
pub(super) fn place(namespace: &str) -> String {
    match namespace {
        "*" => "all namespaces".to_owned(),
        name => format!("namespace {name}"),
    }
}

/// Asks for the token on the terminal.
fn ask(url: &str) -> Result<String, CliError> {
    let term = Term::stderr();
    if !term.is_term() || !nix::unistd::isatty(std::io::stdin()).unwrap_or(false) {
        return Err(CliError::usage("there is no terminal to ask for the token")
            .with_help(format!("--token-file FILE, --token-file -, or {VARIABLE}"))
            .explained_by(ErrorCode::Terminal));
    }
    say::to_stderr(&format!("token for {}: ", key(url)));
    let text = term.read_secure_line();
    let text = text.map_err(|error| CliError::errored(format!("can't read the token: {error}")))?;
    checked(text)
}

fn read(path: &PathBuf) -> Result<String, CliError> {
    let failed = |error: std::io::Error| {
        CliError::usage(format!(
            "can't read a token from {}: {error}",
            path.display()
        ))
    };
    let mut text = String::new();
    match path.as_os_str() == "-" {
        true => std::io::stdin()
            .take(TOKEN_BYTES)
            .read_to_string(&mut text)
            .map_err(failed)?,
        false => std::fs::File::open(path)
            .and_then(|file| file.take(TOKEN_BYTES).read_to_string(&mut text))
            .map_err(failed)?,
    };
    checked(text)
}

fn checked(text: String) -> Result<String, CliError> {
    match text.trim() {
        "" => Err(CliError::usage("the token is empty")),
        token => Ok(token.to_owned()),
    }
}

impl From<FileError> for CliError {
    fn from(error: FileError) -> CliError {
        CliError::usage(error.to_string()).explained_by(ErrorCode::NoToken)
    }
}
