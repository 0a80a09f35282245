//! Arbitrary values of every type that crosses the wire.

use phalanx_proto::convert::Refusal;
use phalanx_proto::limit::SLOTS;
use phalanx_proto::link::{
    Ahead, AheadState, FromAgent, Held, HeldSnapshot, Hello, Offer, Snapshots, ToAgent, Welcome,
};
use phalanx_proto::log::{Body, LogDown, LogUp, Record, Source as LogSource};
use phalanx_proto::workspace::Part as WorkspacePart;
use phalanx_shared::cancel::CancelOrder;
use phalanx_shared::diagnostic::{Diagnostic, Severity, Source, Sources, Span};
use phalanx_shared::event::{
    Artifact, ArtifactLack, ArtifactProblem, AttemptRef, Capacity, CheckResult, Event, EventKind,
    Failure, KeptService, LogStream, LogTail, Output, Part, Placement, Recorded, ServiceState,
    SnapshotState, StepResult,
};
use phalanx_shared::id::{AgentId, CellId, RunId, Token};
use phalanx_shared::language::model::{CellSettings, Spec, Strategy as Matrix};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::{
    CellJob, Keep, Plan, PlannedCell, Resources, SnapshotUse, SpecSource, Wanted, WantedImage,
};
use phalanx_shared::policy::Rules;
use phalanx_shared::time::Timestamp;
use phalanx_shared::wait::{Wait, WaitCause};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

pub fn id() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,20}"
}

pub fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,12}", any::<String>()]
}

/// A name or a label.
pub fn shown() -> impl Strategy<Value = String> {
    "[^\\p{Cc}]{0,40}"
}

pub fn time() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp)
}

pub fn millis() -> impl Strategy<Value = Duration> {
    (0..u64::from(u32::MAX)).prop_map(Duration::from_millis)
}

pub fn token() -> impl Strategy<Value = Token> {
    (id(), id(), 1..u32::MAX, any::<u64>()).prop_map(|(run, cell, attempt, epoch)| Token {
        run: RunId(run),
        cell: CellId(cell),
        attempt,
        epoch,
    })
}

pub fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Passed),
        Just(Outcome::Flaky),
        Just(Outcome::Skipped),
        Just(Outcome::Cancelled),
        Just(Outcome::Failed),
        Just(Outcome::Errored),
    ]
}

pub fn stream() -> impl Strategy<Value = LogStream> {
    prop_oneof![Just(LogStream::Stdout), Just(LogStream::Stderr)]
}

pub fn keep() -> impl Strategy<Value = Keep> {
    prop_oneof![
        Just(Keep::Never),
        any::<u64>().prop_map(|ttl_s| Keep::OnFailure { ttl_s }),
        any::<u64>().prop_map(|ttl_s| Keep::Always { ttl_s }),
    ]
}

pub fn resources() -> impl Strategy<Value = Resources> {
    any::<(u64, u64, u32)>().prop_map(|(millicpus, memory_bytes, subnets)| Resources {
        millicpus,
        memory_bytes,
        subnets,
    })
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // Sums of halves: serde_json reads other numbers back with an error of up to one unit in the last place.
        any::<i32>().prop_map(|halves| Value::from(f64::from(halves) / 2.0)),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(text(), inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Map<String, Value>> {
    btree_map(text(), json(), 0..4).prop_map(|map| map.into_iter().collect())
}

pub fn planned_cell() -> impl Strategy<Value = PlannedCell> {
    (
        id(),
        text(),
        vec((text(), json()), 0..3),
        vec(text(), 0..3),
        any::<bool>(),
        resources(),
        any::<u64>(),
        any::<(u32, u32)>(),
    )
        .prop_map(
            |(
                id,
                name,
                matrix,
                runs_on,
                experimental,
                resources,
                timeout_ms,
                (attempts, retries),
            )| {
                PlannedCell {
                    id: CellId(id),
                    name,
                    matrix: matrix.into_iter().collect(),
                    runs_on,
                    experimental,
                    resources,
                    timeout_ms,
                    attempts,
                    retries,
                }
            },
        )
}

fn plan() -> impl Strategy<Value = Plan> {
    (
        text(),
        text(),
        object(),
        vec(text(), 0..3),
        vec((text(), text()), 0..3),
        vec(planned_cell(), 0..3),
        of(any::<u32>()),
        any::<bool>(),
        of(any::<u64>()),
    )
        .prop_map(
            |(
                digest,
                spec,
                inputs,
                axes,
                coverage,
                cells,
                max_parallel,
                fail_fast,
                queue_timeout_ms,
            )| Plan {
                digest,
                spec,
                inputs,
                axes,
                coverage,
                cells,
                max_parallel,
                fail_fast,
                queue_timeout_ms,
                max_skips: None,
                workspace: None,
                files: Default::default(),
            },
        )
}

/// A job around an arbitrary cell; the spec's own JSON is tested where the spec is.
fn job() -> impl Strategy<Value = CellJob> {
    (planned_cell(), object(), object(), object(), keep(), text()).prop_map(
        |(cell, inputs, matrix, vars, keep, name)| CellJob {
            source: Arc::new(SpecSource::new(
                Arc::new(Spec {
                    name: name.clone(),
                    inputs: Vec::new(),
                    require: Vec::new(),
                    strategy: Matrix {
                        matrix: false,
                        axes: Vec::new(),
                        include: None,
                        exclude: None,
                        fail_fast: None,
                        max_parallel: None,
                        queue_timeout: None,
                        max_skips: None,
                        span: Span::default(),
                    },
                    cell: CellSettings::default(),
                    coverage: Vec::new(),
                    secrets: Vec::new(),
                    vars: Vec::new(),
                    workspace: Vec::new(),
                    network: None,
                    compose: None,
                    compose_variables: Vec::new(),
                    services: Vec::new(),
                    sessions: Vec::new(),
                    default_session: None,
                    define: Vec::new(),
                    phases: Vec::new(),
                }),
                Sources {
                    files: vec![Source {
                        name: name.clone(),
                        text: name,
                    }],
                },
            )),
            cell,
            inputs,
            matrix,
            vars,
            workspace: Map::new(),
            keep,
            submitted: Some(Timestamp(7)),
            images: [("db".to_owned(), "db@sha256:aa".to_owned())].into(),
            snapshots: SnapshotUse::Refresh,
            snapshot_family: None,
        },
    )
}

fn step_result() -> impl Strategy<Value = StepResult> {
    let failure = (of(text()), vec(text(), 0..2)).prop_map(|(place, lines)| Failure {
        place,
        request: Some("GET /".to_owned()),
        response: None,
        logs: vec![LogTail {
            service: "db".to_owned(),
            lines: lines.clone(),
        }],
        notes: lines,
    });
    let check = (text(), any::<bool>(), of(text())).prop_map(|(text, passed, error)| CheckResult {
        expression: text.clone(),
        passed,
        parts: vec![Part {
            value: text.clone(),
            text,
        }],
        error,
    });
    (
        (text(), text(), of(text()), outcome(), of(text())),
        any::<(u32, u32)>(),
        time(),
        any::<u64>(),
        vec(check, 0..3),
        of(failure),
    )
        .prop_map(
            |(
                (path, name, id, outcome, reason),
                (tries, polls),
                began,
                elapsed_us,
                checks,
                failure,
            )| {
                StepResult {
                    path,
                    name,
                    id,
                    action: "http".to_owned(),
                    outcome,
                    reason,
                    unreached: polls % 2 == 1,
                    timed_out: polls % 5 == 1,
                    culprit: None,
                    tries,
                    polls,
                    began,
                    elapsed_us,
                    waits: waits(tries % 3),
                    verifies: vec!["row".to_owned()],
                    checks,
                    output: (tries % 2 == 1).then(|| Output {
                        stdout: tries.to_string(),
                        stderr: polls.to_string(),
                        left_out: u64::from(polls % 3),
                    }),
                    captured: Vec::new(),
                    failure,
                    restored: None,
                }
            },
        )
}

pub fn kind() -> impl Strategy<Value = EventKind> {
    let coordinators = prop_oneof![
        (plan(), object()).prop_map(|(plan, origin)| EventKind::RunSubmitted { plan, origin }),
        (token(), id(), text(), 0..3_u32).prop_map(|(token, agent, agent_name, count)| {
            EventKind::CellOffered {
                token,
                agent: AgentId(agent),
                placement: Placement {
                    waits: waits(count),
                    expected_ms: (count > 0).then_some(u64::from(count)),
                    capacity: (count == 2).then(|| Capacity {
                        slots: count,
                        resources: Resources::default(),
                        labels: vec![agent_name.clone()],
                    }),
                },
                agent_name,
            }
        }),
        token().prop_map(|token| EventKind::CellAccepted { token }),
        (token(), text()).prop_map(|(token, reason)| EventKind::CellReturned { token, reason }),
        (token(), text()).prop_map(|(token, reason)| EventKind::AttemptLost { token, reason }),
        (id(), outcome(), of(text()), any::<u32>()).prop_map(
            |(cell, outcome, reason, attempts)| EventKind::CellFinished {
                cell: CellId(cell),
                outcome,
                reason,
                attempts,
            }
        ),
        (text(), of(any::<u64>()), any::<bool>()).prop_map(|(reason, grace_ms, force)| {
            EventKind::CancelRequested {
                reason,
                grace_ms,
                force,
            }
        }),
        outcome().prop_map(|outcome| EventKind::RunFinished { outcome }),
    ];
    prop_oneof![coordinators, agents_kind()]
}

/// Returns a wait for each of the first causes.
fn waits(count: u32) -> Vec<Wait> {
    let causes = WaitCause::ALL.iter().take(count as usize);
    causes
        .map(|cause| Wait {
            cause: *cause,
            us: 7,
        })
        .collect()
}

pub fn agents_kind() -> impl Strategy<Value = EventKind> {
    prop_oneof![
        id().prop_map(|agent| EventKind::AttemptStarted {
            agent: AgentId(agent)
        }),
        (time(), any::<u64>())
            .prop_map(|(began, queued_us)| EventKind::StackOpened { began, queued_us }),
        (text(), time(), of(text()), of(text()), any::<u64>()).prop_map(
            |(service, began, detail, image, queued_us)| {
                EventKind::ServiceChanged {
                    service,
                    state: ServiceState::Ready,
                    began,
                    detail,
                    image,
                    queued_us,
                    reference: None,
                }
            }
        ),
        (text(), any::<i64>(), any::<bool>(), any::<u64>()).prop_map(
            |(service, code, oom, pause_ms)| {
                EventKind::ServiceRestarted {
                    service,
                    code,
                    oom,
                    pause_ms,
                }
            }
        ),
        (text(), text()).prop_map(|(service, doing)| EventKind::ServiceProgress { service, doing }),
        (text(), time(), any::<u64>(), of(text())).prop_map(|(path, began, bytes, reason)| {
            EventKind::SnapshotChanged {
                key: path.clone(),
                run: reason.clone().map(RunId),
                state: match reason.is_some() {
                    true => SnapshotState::Missed,
                    false => SnapshotState::Saved,
                },
                path,
                began,
                bytes,
                reason,
            }
        }),
        (text(), text()).prop_map(|(path, name)| EventKind::PhaseStarted { path, name }),
        (text(), outcome(), of(text()), time()).prop_map(|(path, outcome, reason, began)| {
            EventKind::PhaseFinished {
                name: path.clone(),
                path,
                outcome,
                reason,
                began,
                timed_out: false,
            }
        }),
        (text(), text(), text()).prop_map(|(path, name, action)| EventKind::StepStarted {
            path,
            name,
            action
        }),
        step_result().prop_map(|result| EventKind::StepFinished(Box::new(result))),
        (outcome(), of(text())).prop_map(|(outcome, reason)| EventKind::AttemptFinished {
            outcome,
            reason,
            timed_out: false,
            culprit: None
        }),
        (any::<u32>(), vec(text(), 0..3), text(), time()).prop_map(
            |(removed, left, name, began)| EventKind::TornDown {
                removed,
                left,
                kept: vec![KeptService {
                    address: name.clone(),
                    service: name,
                }],
                began,
            }
        ),
        (text(), stream(), any::<(u64, u64)>(), text()).prop_map(
            |(service, stream, (from, to), reason)| EventKind::LogGap {
                service,
                stream,
                from,
                to,
                reason,
            }
        ),
        (any::<u32>(), text(), text(), any::<u64>(), of(text())).prop_map(
            |(id, name, from, size, reason)| EventKind::ArtifactCollected(Box::new(Artifact {
                id,
                name,
                from,
                size,
                lack: reason.map(|reason| ArtifactLack {
                    problem: ArtifactProblem::Missing,
                    reason,
                }),
                ..Artifact::default()
            }))
        ),
        (any::<u32>(), text()).prop_map(|(id, reason)| EventKind::ArtifactLost { id, reason }),
        text().prop_map(|message| EventKind::Note { message }),
        object().prop_map(|mut payload| {
            payload.insert("kind".to_owned(), "of tomorrow".into());
            EventKind::Unknown(payload)
        }),
    ]
}

pub fn event() -> impl Strategy<Value = Event> {
    let attempt = (id(), 1..u32::MAX).prop_map(|(cell, attempt)| AttemptRef {
        cell: CellId(cell),
        attempt,
    });
    (id(), of(attempt), any::<(u64, u64)>(), time(), kind()).prop_map(
        |(run, attempt, (seq, mono_us), at, kind)| Event {
            run: RunId(run),
            attempt,
            seq,
            at,
            mono_us,
            kind,
        },
    )
}

pub fn recorded() -> impl Strategy<Value = Recorded> {
    (1..u64::MAX, event()).prop_map(|(position, event)| Recorded { position, event })
}

fn batch() -> impl Strategy<Value = FromAgent> {
    (token(), 1..u64::MAX / 2, vec((time(), agents_kind()), 1..5)).prop_map(
        |(token, first, kinds)| FromAgent::Events {
            events: (first..)
                .zip(kinds)
                .map(|(seq, (at, kind))| Event {
                    run: token.run.clone(),
                    attempt: Some(AttemptRef {
                        cell: token.cell.clone(),
                        attempt: token.attempt,
                    }),
                    seq,
                    at,
                    mono_us: seq,
                    kind,
                })
                .collect(),
            token,
        },
    )
}

fn hello() -> impl Strategy<Value = FromAgent> {
    let held =
        (token(), any::<u64>(), any::<bool>()).prop_map(|(token, last_seq, finished)| Held {
            token,
            last_seq,
            finished,
        });
    (
        (id(), shown(), shown(), 0..5u32, 5..9u32, 0..=SLOTS),
        vec(shown(), 0..4),
        resources(),
        vec(held, 0..4),
        proptest::option::of(snapshots()),
    )
        .prop_map(
            |((agent, name, version, min, max, slots), labels, resources, inventory, snapshots)| {
                FromAgent::Hello(Box::new(Hello {
                    instance: version.clone(),
                    agent: AgentId(agent),
                    name,
                    version,
                    protocols: (min, max),
                    images: labels.clone(),
                    labels,
                    slots,
                    resources,
                    inventory,
                    number: u64::from(slots),
                    policy: (min > 2).then(|| Rules::closed("p.toml:1")),
                    ahead: Some(min).filter(|min| *min > 0),
                    snapshots,
                }))
            },
        )
}

pub fn from_agent() -> impl Strategy<Value = FromAgent> {
    prop_oneof![
        hello(),
        batch(),
        token().prop_map(|token| FromAgent::Accept { token }),
        (token(), text()).prop_map(|(token, reason)| FromAgent::Decline { token, reason }),
        any::<u64>().prop_map(|number| FromAgent::Heartbeat { number }),
        token().prop_map(|token| FromAgent::Cancelling { token }),
        Just(FromAgent::Draining),
        text().prop_map(|reason| FromAgent::Goodbye { reason }),
        vec(ahead(), 0..3).prop_map(|images| FromAgent::Ahead { images }),
        snapshots().prop_map(FromAgent::Snapshots),
    ]
}

fn snapshots() -> impl Strategy<Value = Snapshots> {
    let left = ("[a-f0-9]{64}", text());
    (vec(held_snapshot(), 0..3), id(), vec(left, 0..2)).prop_map(|(held, store, left)| Snapshots {
        held,
        store,
        left,
    })
}

fn held_snapshot() -> impl Strategy<Value = HeldSnapshot> {
    let keys = ("[a-f0-9]{64}", "([a-f0-9]{64})?");
    let names = (shown(), shown(), shown());
    let by = (id(), id());
    let amounts = (any::<u64>(), any::<u64>(), any::<u64>());
    (keys, names, by, amounts, time(), time()).prop_map(
        |((key, family), (spec, group, cell_name), (run, cell), amounts, made, used)| {
            HeldSnapshot {
                key,
                family,
                spec,
                group,
                bytes: amounts.0,
                made,
                used,
                run: RunId(run),
                cell: CellId(cell),
                cell_name,
                setup_us: amounts.1,
                save_us: amounts.2,
            }
        },
    )
}

fn ahead() -> impl Strategy<Value = Ahead> {
    let state = prop_oneof![
        Just(AheadState::Waiting),
        shown().prop_map(AheadState::Doing),
        Just(AheadState::Ready),
        Just(AheadState::Failed),
    ];
    (shown(), state).prop_map(|(id, state)| Ahead { id, state })
}

fn wanted() -> impl Strategy<Value = WantedImage> {
    let some = || proptest::option::of("[a-f0-9]{1,9}");
    (text(), text(), text(), some(), some()).prop_map(|(id, what, image, workspace, run)| {
        WantedImage::new(Wanted {
            id,
            what,
            definition: serde_json::json!({ "image": image }),
            workspace,
            run: run.map(RunId),
        })
    })
}

pub fn to_agent() -> impl Strategy<Value = ToAgent> {
    let welcome = (
        any::<(u32, u64)>(),
        millis(),
        millis(),
        vec((token(), any::<u64>()), 0..3),
        text(),
    )
        .prop_map(
            |((protocol, epoch), lease, heartbeat, resume, coordinator_version)| Welcome {
                policy: (epoch % 2 == 0).then(|| Rules::closed("p.toml:1")),
                protocol,
                epoch,
                lease,
                heartbeat,
                resume,
                coordinator_version,
            },
        );
    let offer = (
        token(),
        job(),
        btree_map(text(), text(), 0..3),
        millis(),
        of("[a-f0-9-]{1,55}"),
    )
        .prop_map(|(token, job, secrets, accept_within, traceparent)| Offer {
            token,
            job: Arc::new(job),
            secrets: Arc::new(secrets),
            accept_within,
            traceparent,
        });
    prop_oneof![
        welcome.prop_map(ToAgent::Welcome),
        offer.prop_map(ToAgent::Offer),
        (token(), any::<u64>()).prop_map(|(token, seq)| ToAgent::Ack { token, seq }),
        (token(), any::<u64>()).prop_map(|(token, from_seq)| ToAgent::Resend { token, from_seq }),
        (token(), millis(), text(), any::<bool>()).prop_map(|(token, grace, reason, force)| {
            ToAgent::Cancel {
                token,
                order: CancelOrder {
                    reason,
                    grace,
                    force,
                },
            }
        }),
        (token(), text()).prop_map(|(token, reason)| ToAgent::Abandon { token, reason }),
        any::<u64>().prop_map(|number| ToAgent::Heartbeat { number }),
        Just(ToAgent::Drain),
        vec(wanted(), 0..3).prop_map(|images| ToAgent::Prefetch { images }),
        vec("[a-f0-9]{64}", 0..3).prop_map(|keys| ToAgent::RemoveSnapshots { keys }),
    ]
}

pub fn log_up() -> impl Strategy<Value = LogUp> {
    let source = || (text(), stream()).prop_map(|(service, stream)| LogSource { service, stream });
    let body = prop_oneof![
        (source(), 0..u64::MAX / 2, time(), vec(any::<u8>(), 1..40)).prop_map(
            |(source, offset, at, bytes)| Body::Chunk {
                source,
                offset,
                at,
                bytes
            }
        ),
        (source(), 0..99u64, 100..200u64, text()).prop_map(|(source, from, to, reason)| {
            Body::Gap {
                source,
                from,
                to,
                reason,
            }
        }),
        (any::<u32>(), 0..u64::MAX / 2, vec(any::<u8>(), 1..40))
            .prop_map(|(id, offset, bytes)| Body::Artifact { id, offset, bytes }),
        (any::<u32>(), of("[0-9a-f]{64}"), any::<u64>())
            .prop_map(|(id, digest, size)| Body::ArtifactEnd { id, digest, size }),
        Just(Body::End),
    ];
    prop_oneof![
        id().prop_map(|agent| LogUp::Hello {
            agent: AgentId(agent)
        }),
        (token(), 1..u64::MAX, body).prop_map(|(token, number, body)| LogUp::Record {
            token,
            record: Record { number, body }
        }),
    ]
}

pub fn log_down() -> impl Strategy<Value = LogDown> {
    prop_oneof![
        any::<u64>().prop_map(|window_bytes| LogDown::Welcome { window_bytes }),
        (token(), any::<u64>()).prop_map(|(token, number)| LogDown::Ack { token, number }),
        (token(), text()).prop_map(|(token, reason)| LogDown::Refused { token, reason }),
        (token(), any::<u32>(), text()).prop_map(|(token, id, reason)| LogDown::ArtifactRefused {
            token,
            id,
            reason
        }),
    ]
}

fn span() -> impl Strategy<Value = Span> {
    any::<[u32; 5]>().prop_map(Span::from)
}

pub fn refusal() -> impl Strategy<Value = Refusal> {
    let severity = prop_oneof![Just(Severity::Warning), Just(Severity::Error)];
    let diagnostic = (
        severity,
        text(),
        of(span()),
        of(text()),
        of((span(), text())),
    )
        .prop_map(|(severity, message, span, help, related)| Diagnostic {
            severity,
            message,
            span,
            help,
            related,
            code: Some(phalanx_shared::error_code::ErrorCode::Name),
        });
    let file = (text(), text()).prop_map(|(name, text)| Source { name, text });
    (vec(diagnostic, 1..4), vec(file, 0..3)).prop_map(|(diagnostics, files)| Refusal {
        diagnostics,
        sources: Sources { files },
    })
}

pub fn workspace_part() -> impl Strategy<Value = WorkspacePart> {
    let path = || "[a-z ]{1,9}(/[a-z.]{3,9}x){0,3}";
    prop_oneof![
        "[0-9a-f]{64}".prop_map(WorkspacePart::Digest),
        (path(), any::<bool>(), 0..=2u64 << 30).prop_map(|(path, executable, size)| {
            WorkspacePart::File {
                path,
                executable,
                size,
            }
        }),
        (path(), path()).prop_map(|(path, target)| WorkspacePart::Link { path, target }),
        vec(any::<u8>(), 1..40).prop_map(WorkspacePart::Data),
    ]
}
