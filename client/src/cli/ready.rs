//! Prepares a run from a spec's file. Reports errors before anything is started or sent.

use super::connect::Connection;
use super::error::CliError;
use super::interrupt::{Interrupts, unless};
use super::say::Voice;
use super::selection::Selection;
use super::upload::upload;
use super::{Context, diagnostics, exit, say, validate};
use crate::config::server::COORDINATOR;
use crate::prepare::{Prepared, prepare};
use crate::spec_file;
use crate::workspace::Packed;
use phalanx_coordinator::journal::Submission;
use phalanx_proto::convert::Refusal;
use phalanx_proto::v1;
use phalanx_shared::clock::Stopwatch;
use phalanx_shared::diagnostic::{Diagnostic, Source, Sources};
use phalanx_shared::id::{CellId, RunId};
use serde_json::json;
use std::collections::HashSet;
use std::time::Duration;
use tonic::{Code, Response, Status};

/// A prepared submission.
pub struct Ready {
    /// The request; the caller fills in options and secrets.
    pub request: v1::SubmitRequest,
    /// Whether its stacks have containers.
    pub containers: bool,
    /// Name of the spec.
    pub spec: String,
    /// The cells that the selection leaves.
    planned: Vec<CellId>,
    /// Names of the spec's secrets.
    pub secrets: Vec<String>,
    workspace: Option<Packed>,
    warnings: Vec<Diagnostic>,
}

impl Ready {
    /// Keeps only the wanted cells. Returns how many wanted cells are no longer in the plan or the selection.
    pub fn narrow(&mut self, wanted: &HashSet<CellId>) -> usize {
        self.planned.retain(|cell| wanted.contains(cell));
        self.request.cells = self.planned.iter().map(ToString::to_string).collect();
        wanted.len() - self.planned.len()
    }

    /// Returns the number of cells.
    pub fn cells(&self) -> usize {
        self.planned.len()
    }

    /// Plans the spec at a path and finds the files that travel with it.
    pub async fn prepare(
        path: &str,
        selection: &Selection,
        context: &Context,
    ) -> Result<Ready, CliError> {
        // A remote coordinator applies its own limit.
        let local = context.settings.get(&COORDINATOR).is_empty();
        let max_cells = super::max_cells(&context.settings).filter(|_| local);
        let (path, selection) = (path.to_owned(), selection.clone());
        // Many cells take a second to plan, and large workspaces longer. Ctrl-C must work meanwhile.
        let ready = tokio::task::spawn_blocking(move || {
            let (prepared, about) = prepared(&path, &selection, max_cells)?;
            Ok(ready(&path, prepared, about))
        });
        let ready = ready.await;
        ready.map_err(|error| CliError::errored(format!("planning failed: {error}")))?
    }

    /// Uploads the workspace if the coordinator lacks it, and submits.
    pub async fn submit(
        self,
        connection: &Connection,
        interrupts: &mut Interrupts,
        context: &Context,
    ) -> Result<RunId, CliError> {
        let Ready {
            request,
            workspace,
            mut warnings,
            ..
        } = self;
        if let Some(packed) = workspace {
            let remote = !context.settings.get(&COORDINATOR).is_empty();
            let voice = remote.then_some(context.voice);
            let sending = upload(connection.client(), packed, voice);
            unless(interrupts, sending).await?;
        }
        let files: Vec<Source> = request.files.iter().cloned().map(Into::into).collect();
        let client = connection.client();
        let submitting = patiently(context.voice, interrupts, || {
            let (mut client, request) = (client.clone(), request.clone());
            async move { client.submit(request).await }
        });
        let answer = submitting.await?;
        for wire in answer.warnings {
            if let Ok(warning) = Diagnostic::try_from(wire)
                && !warnings.contains(&warning)
            {
                warnings.push(warning);
            }
        }
        warn(&warnings, &files, context);
        Ok(RunId::from(answer.run_id))
    }
}

/// How long to retry while the coordinator is busy with other submissions.
const PATIENCE: Duration = Duration::from_secs(120);

/// Asks a coordinator to start a run. Retries if it has no room for the submission; it has read nothing of it then.
pub(super) async fn patiently<F>(
    voice: Voice,
    interrupts: &mut Interrupts,
    mut ask: impl FnMut() -> F,
) -> Result<v1::SubmitResponse, CliError>
where
    F: Future<Output = Result<Response<v1::SubmitResponse>, Status>>,
{
    let asking = Stopwatch::start();
    let mut pause = Duration::from_millis(500);
    loop {
        let answer = ask().await;
        let busy = match &answer {
            Err(status) if status.code() == Code::ResourceExhausted => status.message(),
            _ => return started(answer),
        };
        if asking.elapsed() >= PATIENCE {
            return started(answer);
        }
        if pause < Duration::from_secs(1) {
            voice.note(&format!("{busy} (trying for {} s)", PATIENCE.as_secs()));
        }
        tokio::select! {
            // Nothing was started yet.
            _ = interrupts.next() => return Err(CliError::said(exit::INTERRUPTED)),
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(Duration::from_secs(4));
    }
}

fn ready(path: &str, prepared: Prepared, about: About) -> Ready {
    let Prepared {
        submission,
        workspace,
        plan,
        warnings,
    } = prepared;
    let Submission {
        files,
        inputs,
        only,
        cells,
        read,
        workspace_digest,
        ..
    } = submission;
    let origin = json!({
        "path": path,
        "inputs": inputs,
        "only": only,
        "cells": cells,
        "command": std::env::args().collect::<Vec<_>>().join(" "),
    });
    let read = read.into_iter().map(|(name, text)| Source { name, text });
    let request = v1::SubmitRequest {
        files: files.into_iter().map(Into::into).collect(),
        inputs_json: serde_json::Value::Object(inputs).to_string().into_bytes(),
        only,
        cells,
        workspace_digest: workspace_digest.unwrap_or_default(),
        origin_json: origin.to_string().into_bytes(),
        read: read.map(Into::into).collect(),
        ..v1::SubmitRequest::default()
    };
    let About {
        containers,
        secrets,
    } = about;
    Ready {
        request,
        containers,
        spec: plan.spec,
        planned: plan.cells.into_iter().map(|cell| cell.id).collect(),
        secrets,
        workspace,
        warnings,
    }
}

/// What a spec needs for its run.
pub struct About {
    /// Whether its stacks have containers.
    pub containers: bool,
    /// Names of its secrets.
    pub secrets: Vec<String>,
}

/// Loads the spec at a path and plans it as the coordinator will. Returns the plan and what the spec needs.
pub fn prepared(
    path: &str,
    selection: &Selection,
    max_cells: Option<usize>,
) -> Result<(Prepared, About), CliError> {
    let loaded = spec_file::load(path);
    let Some(spec) = &loaded.spec else {
        validate::complain(&loaded);
        let count = diagnostics::count(&loaded.diagnostics);
        return Err(CliError::usage(format!("{path}: {count}")));
    };
    let containers = spec.compose.is_some() || spec.services.iter().any(|service| !service.process);
    let about = About {
        containers,
        secrets: spec.secrets.iter().map(|name| name.text.clone()).collect(),
    };
    let submission = Submission {
        files: loaded.sources.files,
        inputs: selection.inputs()?,
        only: selection.only().to_vec(),
        cells: selection.cells().to_vec(),
        ..Submission::default()
    };
    let root = spec_file::folder(path)
        .map_err(|error| CliError::usage(format!("can't find the directory of {path}: {error}")))?;
    let prepared = prepare(submission, &root, max_cells);
    let prepared = prepared.map_err(|refusal| {
        let count = complain(&refusal);
        CliError::usage(format!("{path}: {count}"))
    })?;
    Ok((prepared, about))
}

/// Prints warnings.
pub fn warn(warnings: &[Diagnostic], files: &[Source], context: &Context) {
    if !warnings.is_empty() && !context.voice.quiet {
        let sources = Sources {
            files: files.to_vec(),
        };
        let style = diagnostics::Style::of(&std::io::stderr());
        say::to_stderr(&diagnostics::render(warnings, &sources, style));
    }
}

/// Prints all findings with the text underlined. Returns their count.
fn complain(refusal: &Refusal) -> String {
    let Refusal {
        diagnostics,
        sources,
    } = refusal;
    let style = diagnostics::Style::of(&std::io::stderr());
    say::to_stderr(&diagnostics::render(diagnostics, sources, style));
    diagnostics::count(diagnostics)
}

/// Returns the answer, or prints the findings of a refusal. Current coordinators send a refusal in the answer, earlier
/// ones in the status.
pub(super) fn started(
    answer: Result<Response<v1::SubmitResponse>, Status>,
) -> Result<v1::SubmitResponse, CliError> {
    let refused = |refusal: Refusal| CliError::usage(complain(&refusal));
    let mut answer = match answer {
        Ok(answer) => answer.into_inner(),
        Err(status) => {
            return Err(match Refusal::from_status(&status) {
                Some(refusal) => refused(refusal),
                None => status.into(),
            });
        }
    };
    match answer.refusal.take() {
        None => Ok(answer),
        Some(wire) => Err(match Refusal::try_from(wire) {
            Ok(refusal) => refused(refusal),
            Err(error) => {
                CliError::errored(format!("the coordinator refused, unreadably: {error}"))
            }
        }),
    }
}
