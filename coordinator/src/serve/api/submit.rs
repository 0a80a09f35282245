//! Submit: turns the text of a spec into a plan and a run, or returns a refusal with every finding.
//!
//! stage: submitted: the coordinator plans again, or refuses with every finding

use super::status::{of_actor, of_store, of_store_actor};
use super::workspace::Claims;
use crate::access::Caller;
use crate::journal::Submission;
use crate::schedule::AgentView;
use crate::schedule::actor::Agents;
use crate::submission::Planned;
use crate::supervisor::{Handle, Launch};
use phalanx_proto::convert::{InvalidPart, Refusal, workspace_digest as digest};
use phalanx_proto::limit::{READ_BYTES, READ_FILES, SELECTED, SPEC_BYTES, VALUES_BYTES};
use phalanx_proto::v1;
use phalanx_shared::error_code::ErrorCode;
use phalanx_shared::language::service::image::is_fixed;
use phalanx_shared::mask;
use phalanx_shared::namespace::Namespace;
use phalanx_shared::plan::{Plan, PlannedCell, SnapshotUse};
use phalanx_shared::policy::Rules;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::Semaphore;
use tonic::Status;

/// Why no run was started.
pub(in crate::serve) enum NotStarted {
    /// The spec or something that belongs to it is invalid.
    Refused(Refusal),
    /// Any other error.
    Failed(Status),
}

impl From<Status> for NotStarted {
    fn from(status: Status) -> Self {
        NotStarted::Failed(status)
    }
}

/// Returns a refusal in the form that the client wants: complete in the answer, or shortened to fit a status.
pub(super) fn answered(
    result: Result<v1::SubmitResponse, NotStarted>,
    refusal_in_answer: bool,
) -> Result<v1::SubmitResponse, Status> {
    match result {
        Ok(response) => Ok(response),
        Err(NotStarted::Refused(refusal)) if refusal_in_answer => Ok(v1::SubmitResponse {
            refusal: Some(refusal.into()),
            ..v1::SubmitResponse::default()
        }),
        Err(NotStarted::Refused(refusal)) => Err(refusal.into_status()),
        Err(NotStarted::Failed(status)) => Err(status),
    }
}

/// Limits how many plans are made concurrently.
static PLANNERS: Semaphore = Semaphore::const_new(2);

/// How often, and at which interval, to look for a local run's agents.
const LOOKS: u32 = 200;
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Plans and starts a run from a client's request.
pub(super) async fn submit(
    handle: &Handle,
    caller: &Caller,
    claims: &Claims,
    request: v1::SubmitRequest,
) -> Result<v1::SubmitResponse, NotStarted> {
    let (submission, secrets) = from_wire(request)?;
    if let Some(digest) = &submission.workspace_digest {
        let store = &**handle.journal.store();
        let now = handle.clock.monotonic();
        let known = claims.has(store, caller, digest, now).await;
        if !known.map_err(of_store)? {
            // As for one that was never sent.
            let missing = format!("the coordinator doesn't hold the workspace {digest}: send it");
            return Err(Status::failed_precondition(missing).into());
        }
    }
    let owner = caller.subject().to_owned();
    let started = launch(handle, submission, secrets, (caller.home(), owner)).await?;
    caller.about(format!("run {}", started.run_id));
    Ok(started)
}

/// Plans and starts a run from a checked submission.
#[tracing::instrument(name = "submit", skip_all, fields(run = tracing::field::Empty))]
pub(super) async fn launch(
    handle: &Handle,
    submission: Submission,
    secrets: BTreeMap<String, String>,
    (namespace, owner): (Namespace, String),
) -> Result<v1::SubmitResponse, NotStarted> {
    if let Some(reason) = handle.journal.health().borrow().clone() {
        let reason =
            format!("no run can be started, the coordinator's journal can't be written: {reason}");
        return Err(Status::unavailable(reason).into());
    }
    // Each planning is bounded; this bounds how many run concurrently, for all clients together.
    let turn = PLANNERS.acquire().await;
    let turn = turn.map_err(|_| Status::unavailable("no more runs are planned"))?;
    let planner = handle.planner.clone();
    // Planning 100,000 cells takes a second of computing, so it must not block a runtime thread.
    let plan = move || {
        // Held until planning is done, even if the client has gone.
        let _turn = turn;
        planner
            .plan(&submission)
            .map(|planned| (submission, planned))
    };
    let (mut submission, planned) = tokio::task::spawn_blocking(plan)
        .await
        .map_err(|error| Status::internal(format!("planning failed: {error}")))?
        .map_err(NotStarted::Refused)?;
    let warnings = planned.warnings.iter().cloned().map(Into::into).collect();
    let planned = overridden(planned, &submission);
    let named = planned.jobs.secrets();
    let secrets = named_secrets(handle, &namespace, &named, secrets)?;
    submission.origin.insert(SECRETS.to_owned(), named.into());
    if handle.settings.agents_are_all_here {
        let agents = local_agents(handle).await?;
        offered(&planned.plan, &agents)?;
        allowed(&planned, &agents)?;
    }
    let launch = Launch {
        planned,
        submission,
        secrets,
        namespace,
        owner,
    };
    let run = handle.coordinator.ask(launch).await;
    let run = run.map_err(of_store_actor)?;
    tracing::Span::current().record("run", tracing::field::display(&run));
    Ok(v1::SubmitResponse {
        run_id: run.to_string(),
        warnings,
        refusal: None,
    })
}

/// Key in a run's origin that holds the names of the spec's secrets, for a client that reruns it.
pub const SECRETS: &str = "secrets";

/// Returns the given values of the secrets that a spec names. Returns an error if a secret has no value, neither given
/// nor known to the coordinator, or if its value can't be masked.
fn named_secrets(
    handle: &Handle,
    namespace: &Namespace,
    named: &[String],
    mut given: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Status> {
    given.retain(|name, _| named.contains(name));
    let mut missing = Vec::new();
    for name in named {
        let own = match given.get(name) {
            Some(_) => None,
            None => (handle.own_secrets)(namespace, name),
        };
        match given.get(name).or(own.as_ref()) {
            Some(value) => mask::check(value)
                .map_err(|why| Status::invalid_argument(format!("secret `{name}`: {why}")))?,
            None => missing.push(format!("`{name}`")),
        }
    }
    let (those, have) = match missing.as_slice() {
        [] => return Ok(given),
        [_] => ("secret", "has"),
        _ => ("secrets", "have"),
    };
    Err(Status::failed_precondition(format!(
        "the {those} {} {have} no value, here or in the submission: give each with --secret-env NAME or NAME=VARIABLE, --secret-file NAME=FILE, or the variable PHALANX_SECRET_NAME",
        missing.join(", ")
    )))
}

/// Applies the options that override the spec's strategy. They aren't part of the plan's digest, because the cells are
/// the same.
fn overridden(mut planned: Planned, submission: &Submission) -> Planned {
    if let Some(fail_fast) = submission.fail_fast {
        planned.plan.fail_fast = fail_fast;
    }
    if submission.max_parallel.is_some() {
        planned.plan.max_parallel = submission.max_parallel;
    }
    planned
}

/// Returns the agents of a local run. They are already connected, but the scheduler may learn of them a moment later.
async fn local_agents(handle: &Handle) -> Result<Vec<AgentView>, Status> {
    let mut looks = 0;
    loop {
        let agents = handle.scheduling.ask(Agents).await.map_err(of_actor)?;
        if !agents.is_empty() || looks == LOOKS {
            return Ok(agents);
        }
        looks += 1;
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// Returns an error if no agent offers all labels of some cell. No other agents will come.
fn offered(plan: &Plan, agents: &[AgentView]) -> Result<(), Status> {
    let offer = |agent: &AgentView, label: &String| agent.info.labels.contains(label);
    let homeless = |cell: &&PlannedCell| {
        let labels = &cell.runs_on;
        !agents
            .iter()
            .any(|agent| labels.iter().all(|label| offer(agent, label)))
    };
    let homeless: Vec<&PlannedCell> = plan.cells.iter().filter(homeless).collect();
    let Some(first) = homeless.first().filter(|_| !agents.is_empty()) else {
        return Ok(());
    };
    let missing: Vec<&str> = first
        .runs_on
        .iter()
        .filter(|label| !agents.iter().any(|agent| offer(agent, label)))
        .map(String::as_str)
        .collect();
    let what = match missing.as_slice() {
        [] => format!("all of the labels {}", first.runs_on.join(", ")),
        missing => format!("label {}", missing.join(", ")),
    };
    let cells = match homeless.len() {
        1 => format!("cell {} asks", first.name),
        many => format!("{many} cells ask"),
    };
    let known: BTreeSet<&str> = agents
        .iter()
        .flat_map(|agent| &agent.info.labels)
        .map(String::as_str)
        .collect();
    let known = known.into_iter().collect::<Vec<_>>().join(", ");
    Err(Status::invalid_argument(format!(
        "no local agent offers {what}, which {cells} for (runs-on): local agents offer {known}; \
         a fleet may have others (--coordinator); phalanx explain {}",
        ErrorCode::Labels
    )))
}

/// Returns an error if the policy of every agent refuses what some cell needs. No other agents will come.
fn allowed(planned: &Planned, agents: &[AgentView]) -> Result<(), Status> {
    let rules = || agents.iter().filter_map(|agent| agent.info.policy.as_ref());
    if rules().count() < agents.len() || rules().any(Rules::are_open) {
        return Ok(());
    }
    for cell in &planned.plan.cells {
        let needs = planned.jobs.needs(&cell.id);
        let refusals: Vec<_> = rules().filter_map(|own| own.refuses_one(&needs)).collect();
        if let Some(refusal) = refusals.first().filter(|_| refusals.len() == agents.len()) {
            let refusal = refusal.to_string().replace("the agent's", "this machine's");
            return Err(Status::invalid_argument(format!(
                "cell {} can't run here: {refusal}; change that line, or run it on a fleet (--coordinator): docs/security.md",
                cell.name
            )));
        }
    }
    Ok(())
}

fn from_wire(request: v1::SubmitRequest) -> Result<(Submission, BTreeMap<String, String>), Status> {
    let v1::SubmitRequest {
        files,
        inputs_json,
        only,
        cells,
        options,
        secrets,
        // A path on the client's machine, or anything else: the coordinator never opens it.
        workspace_root: _,
        workspace_digest,
        origin_json,
        read,
        images,
    } = request;
    let spec = files.iter().map(|file| file.text.len() + file.name.len());
    within("spec files", spec.sum(), SPEC_BYTES)?;
    within("inputs", inputs_json.len(), VALUES_BYTES)?;
    within("origin", origin_json.len(), VALUES_BYTES)?;
    given(&secrets)?;
    selected(&only, &cells)?;
    let invalid = |error: InvalidPart| Status::invalid_argument(error.to_string());
    let workspace_digest = match workspace_digest.is_empty() {
        true => None,
        false => Some(digest(workspace_digest).map_err(invalid)?),
    };
    let mut submission = Submission {
        files: files.into_iter().map(Into::into).collect(),
        inputs: object("inputs", &inputs_json)?,
        only,
        cells,
        read: read_files(read)?,
        workspace_digest,
        images: pinned(images.into_iter().collect())?,
        origin: object("origin", &origin_json)?,
        ..Submission::default()
    };
    if submission.files.is_empty() {
        return Err(Status::invalid_argument("the submission has no spec file"));
    }
    if let Some(options) = options {
        set_options(&mut submission, options)?;
    }
    Ok((submission, secrets.into_iter().collect()))
}

/// Checks the size of one part of a submission. Returns an error if it exceeds its limit. The journal keeps every part,
/// and memory does while the run is open.
fn within(what: &str, bytes: usize, limit: usize) -> Result<(), Status> {
    if bytes <= limit {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "the submission brings {what} of {bytes} bytes, the limit is {} MiB",
        limit >> 20
    )))
}

/// Returns an error if the secrets exceed their limit.
pub(super) fn given(secrets: &BTreeMap<String, String>) -> Result<(), Status> {
    let bytes = secrets.iter().map(|(name, value)| name.len() + value.len());
    within("secrets", bytes.sum(), VALUES_BYTES)
}

/// Returns an error if a selection of cells exceeds its limits.
pub(super) fn selected(only: &[String], cells: &[String]) -> Result<(), Status> {
    let bytes = only.iter().chain(cells).map(String::len);
    within("names of cells", bytes.sum(), VALUES_BYTES)?;
    if only.len() + cells.len() > SELECTED {
        return Err(Status::invalid_argument(format!(
            "the submission chooses {} times, the limit is {SELECTED}",
            only.len() + cells.len()
        )));
    }
    Ok(())
}

/// Checks the images that replace those of the spec. A tag is refused, because it doesn't name one image for ever.
fn pinned(images: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Status> {
    let bytes = images
        .iter()
        .map(|(service, image)| service.len() + image.len());
    within("images", bytes.sum(), VALUES_BYTES)?;
    match images.iter().find(|(_, image)| !is_fixed(image)) {
        None => Ok(images),
        Some((service, image)) => Err(Status::invalid_argument(format!(
            "the image of service `{service}` is {image:?}: give its digest, NAME@sha256:… or the engine's id sha256:…"
        ))),
    }
}

/// Converts the files that expressions read. Returns an error if they exceed their limits, since the journal keeps
/// them.
fn read_files(files: Vec<v1::SourceFile>) -> Result<BTreeMap<String, String>, Status> {
    let bytes: usize = files.iter().map(|f| f.name.len() + f.text.len()).sum();
    if files.len() > READ_FILES || bytes > READ_BYTES {
        return Err(Status::invalid_argument(format!(
            "the submission brings {} files of {} MiB for expressions to read, the limit is {READ_FILES} files of {} MiB",
            files.len(),
            bytes >> 20,
            READ_BYTES >> 20
        )));
    }
    let files = files.into_iter().map(|file| (file.name, file.text));
    Ok(files.collect())
}

/// Applies the client's options to a submission.
pub(super) fn set_options(submission: &mut Submission, options: v1::Options) -> Result<(), Status> {
    submission.snapshots = match options.snapshots() {
        v1::SnapshotUse::Unspecified => SnapshotUse::Use,
        v1::SnapshotUse::Never => SnapshotUse::Never,
        v1::SnapshotUse::Refresh => SnapshotUse::Refresh,
    };
    let v1::Options {
        keep,
        fail_fast,
        max_parallel,
        // The client decides whether a run outlives it: it cancels the run, or it doesn't.
        detach: _,
        traceparent,
        priority,
        // Only concerns the form of the answer.
        refusal_in_answer: _,
        snapshots: _,
    } = options;
    if let Some(keep) = keep {
        let invalid = |error: phalanx_proto::convert::InvalidKeep| error.to_string();
        let keep = keep.try_into().map_err(invalid);
        submission.keep = keep.map_err(Status::invalid_argument)?;
    }
    if max_parallel == Some(0) {
        return Err(Status::invalid_argument(
            "max-parallel is 0: no cell would ever start, write 1 or more",
        ));
    }
    submission.fail_fast = fail_fast.or(submission.fail_fast);
    submission.max_parallel = max_parallel.or(submission.max_parallel);
    submission.priority = priority.unwrap_or(submission.priority);
    submission.traceparent = (!traceparent.is_empty()).then_some(traceparent);
    Ok(())
}

fn object(what: &str, json: &[u8]) -> Result<Map<String, Value>, Status> {
    if json.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(json)
        .map_err(|error| Status::invalid_argument(format!("{what} isn't a JSON object: {error}")))
}
