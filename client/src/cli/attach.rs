//! `phalanx attach`: opens a shell, or runs a command, in a running container of a service.
//!
//! Finds the container by its labels and becomes `docker exec`. Without a terminal, or with `--print`, it only prints
//! the command. It asks this machine's engine (`docker.host` or `DOCKER_HOST` if set). For a cell on another machine,
//! it prints what to run there.

use super::error::CliError;
use super::{Context, connect, exit, follow, say};
use crate::config::docker::HOST;
use phalanx_report::view::CellView;
use phalanx_shared::error_code::ErrorCode;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

/// The default command: bash if the container has it, else sh.
const SHELL: &str = "command -v bash >/dev/null 2>&1 && exec bash || exec sh";

/// Open a shell in a service of a running or kept cell
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  phalanx attach last 'mysql / v2.0' db              a shell in the database of a kept cell
  phalanx attach 0193 6f2a db -- mysql -pshop        another command")]
pub struct Args {
    /// Id of the run, or its beginning or end; `last` is the newest
    run: String,
    /// Cell: id, beginning of an id, or name
    cell: String,
    /// Service; optional if the cell has only one container
    service: Option<String>,
    /// Print the command instead of running it
    #[arg(long)]
    print: bool,
    /// Command to run instead of a shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// A container of the cell.
struct Container {
    id: String,
    service: String,
    attempt: u32,
}

/// Runs the command. On success, this process becomes `docker`.
pub async fn run(args: Args, context: &Context) -> Result<u8, CliError> {
    let (connection, run) = connect::to_run(context, Some(&args.run)).await?;
    let (state, now) = follow::fetch(connection.client(), run.clone()).await?;
    connection.close().await;
    let view = super::view(context, &state, now)?;
    let cell = super::pick::pick_cell(&view, &args.cell)?;
    let engine = Engine::of(context);
    let containers = engine.containers(run.as_str(), cell.id.as_str())?;
    let container = choose(&containers, args.service.as_deref(), cell)?;
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let words = engine.words(&container.id, &args.command, terminal);
    if args.print {
        let quoted: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        say::to_stdout(format!("{}\n", quoted.join(" ")))?;
        return Ok(exit::OK);
    }
    context.voice.note(&format!(
        "{} of {}, attempt {}",
        container.service, cell.name, container.attempt
    ));
    if args.command.is_empty() {
        engine.has_shell(container)?;
    }
    let mut command = Command::new("docker");
    command.args(words.get(1..).unwrap_or_default());
    let error = command.exec();
    Err(CliError::errored(format!("can't run docker: {error}"))
        .with_help("phalanx attach --print shows the command"))
}

/// The engine that the `docker` command asks.
struct Engine {
    /// `docker.host`, if it is set. Otherwise docker finds the engine, as the agents do.
    host: Option<String>,
}

impl Engine {
    fn of(context: &Context) -> Engine {
        let host = context.settings.get(&HOST);
        Engine {
            host: Some(host).filter(|host| !host.is_empty()),
        }
    }

    /// Returns the start of a command line: `docker`, and the engine's address if one is set.
    fn docker(&self) -> Vec<&str> {
        match &self.host {
            Some(host) => vec!["docker", "--host", host],
            None => vec!["docker"],
        }
    }

    fn ask(&self, arguments: &[&str]) -> Result<Output, CliError> {
        let words = [&self.docker(), arguments].concat();
        let (program, arguments) = words
            .split_first()
            .map_or(("docker", &[][..]), |(p, a)| (*p, a));
        let output = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .output();
        output.map_err(|error| {
            CliError::errored(format!("can't run docker: {error}"))
                .with_help("attach needs the docker command")
        })
    }

    fn words(&self, container: &str, command: &[String], terminal: bool) -> Vec<String> {
        let mut words = self.docker();
        words.extend(["exec", if terminal { "-it" } else { "-i" }, container]);
        match command {
            [] => words.extend(["sh", "-c", SHELL]),
            command => words.extend(command.iter().map(String::as_str)),
        }
        words.into_iter().map(str::to_owned).collect()
    }

    /// Without this check, the engine's own message would be about a runtime and `$PATH`.
    fn has_shell(&self, container: &Container) -> Result<(), CliError> {
        let output = self.ask(&["exec", &container.id, "sh", "-c", ":"])?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let (service, said) = (&container.service, said.trim());
        // As in a shell, 126 and 127 mean that the command can't be run.
        if matches!(output.status.code(), Some(126 | 127)) {
            return Err(
                CliError::usage(format!("the image of service `{service}` has no shell"))
                    .with_help(
                        "name a program that it has: phalanx attach RUN CELL SERVICE -- PROGRAM",
                    ),
            );
        }
        Err(CliError::errored(format!(
            "can't open a shell in service `{service}`: {said}"
        )))
    }

    fn containers(&self, run: &str, cell: &str) -> Result<Vec<Container>, CliError> {
        let (run, cell) = (
            format!("label=phalanx.run={run}"),
            format!("label=phalanx.cell={cell}"),
        );
        let output = self.ask(&[
            "ps", "--filter", &run, "--filter", &cell, "--format", LISTED,
        ])?;
        listed(&output)
    }
}

/// Format in which docker lists containers.
const LISTED: &str = "{{.ID}}\t{{.Label \"phalanx.service\"}}\t{{.Label \"phalanx.attempt\"}}";

fn listed(output: &Output) -> Result<Vec<Container>, CliError> {
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(CliError::errored(format!("docker: {}", said.trim())));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let containers = text.lines().filter_map(|line| {
        let mut parts = line.split('\t');
        Some(Container {
            id: parts.next()?.to_owned(),
            service: parts.next()?.to_owned(),
            attempt: parts.next()?.parse().unwrap_or(0),
        })
    });
    let mut containers: Vec<Container> = containers.collect();
    containers.sort_by(|a, b| {
        b.attempt
            .cmp(&a.attempt)
            .then_with(|| a.service.cmp(&b.service))
    });
    Ok(containers)
}

/// Returns the service's container in the newest attempt.
fn choose<'a>(
    containers: &'a [Container],
    service: Option<&str>,
    cell: &CellView,
) -> Result<&'a Container, CliError> {
    let newest = containers.first().map_or(0, |container| container.attempt);
    let of_newest: Vec<&Container> = containers
        .iter()
        .filter(|container| container.attempt == newest)
        .collect();
    let names: Vec<&str> = of_newest
        .iter()
        .map(|container| container.service.as_str())
        .collect();
    match (service, of_newest.as_slice()) {
        (_, []) => {
            let agent = cell
                .newest()
                .map_or("its agent", |attempt| attempt.agent.as_str());
            let message = format!(
                "no container of {} stands on this machine (it ran on {agent})",
                cell.name
            );
            Err(CliError::usage(message).explained_by(ErrorCode::NothingKept))
        }
        (None, [only]) => Ok(only),
        (None, _) => Err(CliError::usage(format!(
            "which service? {}",
            names.join(", ")
        ))),
        (Some(service), all) => all
            .iter()
            .find(|container| container.service == service)
            .copied()
            .ok_or_else(|| {
                let message = format!(
                    "no container of service `{service}` stands (a host process has none); running: {}",
                    names.join(", ")
                );
                CliError::usage(message).explained_by(ErrorCode::NothingKept)
            }),
    }
}

/// Quotes a word for a shell.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_printed_command_can_be_pasted() {
        let command = ["echo".to_owned(), "it's".to_owned()];
        let printed = |host: Option<&str>| {
            let engine = Engine {
                host: host.map(str::to_owned),
            };
            let words = engine.words("c1", &command, true);
            let text: Vec<String> = words.iter().map(|word| quoted(word)).collect();
            text.join(" ")
        };
        assert_eq!(printed(None), "docker exec -it c1 echo 'it'\\''s'");
        assert_eq!(
            printed(Some("unix:///e")),
            "docker --host unix:///e exec -it c1 echo 'it'\\''s'"
        );
    }
}
