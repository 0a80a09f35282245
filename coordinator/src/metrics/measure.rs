//! What the events of runs tell about durations: cells, steps, readiness, pulls.
//!
//! Each event is measured once, when it is journaled; a replay after a restart measures nothing.

use super::labelled::Labelled;
use opentelemetry::KeyValue;
use phalanx_shared::event::{Event, EventKind, ServiceState, StepResult};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use phalanx_shared::trace::result;
use phalanx_shared::trace::{AttemptTrace, RunTrace, SpanId, TraceContext};
use prometheus_client::registry::Registry;
use std::time::Duration;

/// Durations of what runs are made of.
#[derive(Debug)]
pub struct Measures {
    run: Labelled<2>,
    pipeline: opentelemetry::metrics::Histogram<f64>,
    cell: Labelled<1>,
    step: Labelled<2>,
    queue: Labelled<1>,
    ready: Labelled<1>,
    pull: Labelled<1>,
}

impl Default for Measures {
    fn default() -> Self {
        Measures {
            run: Labelled::new(
                "run_seconds",
                "phalanx.run.duration",
                "Time from a run's submission to its end",
                ["spec", "outcome"],
            ),
            pipeline: opentelemetry::global::meter("phalanx")
                .f64_histogram("cicd.pipeline.run.duration")
                .with_unit("s")
                .with_boundaries(super::BOUNDS.to_vec())
                .build(),
            cell: Labelled::new(
                "cell_seconds",
                "phalanx.cell.duration",
                "Time from the start of a cell's first attempt to its outcome",
                ["outcome"],
            ),
            step: Labelled::new(
                "step_seconds",
                "phalanx.step.duration",
                "Duration of a step or group that wasn't skipped",
                ["action", "outcome"],
            ),
            queue: Labelled::new(
                "queue_wait_by_cause_seconds",
                "phalanx.queue.wait.duration",
                "Time that a cell waited for an agent, by cause",
                ["cause"],
            ),
            ready: Labelled::new(
                "service_ready_seconds",
                "phalanx.service.ready.duration",
                "Time from a service's start to its readiness",
                ["service"],
            ),
            pull: Labelled::new(
                "image_pull_seconds",
                "phalanx.image.pull.duration",
                "Duration of an image's pull",
                ["image"],
            ),
        }
    }
}

impl Measures {
    /// Measures what an event of a run tells. `state` is the run after the event, `trace` is set if runs are traced.
    pub fn measure(&self, event: &Event, state: &RunState, trace: Option<RunTrace>) {
        let since = |began: Timestamp| event.at.since(began);
        match &event.kind {
            EventKind::CellOffered {
                token, placement, ..
            } => {
                let span = trace.map(|trace| {
                    let ids = AttemptTrace::new(trace.context, token);
                    trace.context.at(ids.queue())
                });
                for wait in &placement.waits {
                    let took = Duration::from_micros(wait.us);
                    self.queue.observe([wait.cause.as_str()], took, span);
                }
            }
            EventKind::StepFinished(result) if result.outcome != Outcome::Skipped => {
                self.step(result, within(event, trace));
            }
            EventKind::ServiceChanged {
                service,
                state: ServiceState::Ready,
                began,
                ..
            } => self
                .ready
                .observe([service], since(*began), within(event, trace)),
            EventKind::ServiceChanged {
                state: ServiceState::Pulled,
                began,
                detail,
                reference,
                ..
            } => {
                let image = match (reference, detail) {
                    (Some(image), _) => image,
                    (None, Some(detail)) => old_text_names_an_image(detail),
                    (None, None) => return,
                };
                self.pull
                    .observe([image], since(*began), within(event, trace));
            }
            EventKind::CellFinished { cell, outcome, .. } => {
                let attempts = state.cells.get(cell).map(|cell| cell.attempts.as_slice());
                let started = attempts
                    .unwrap_or_default()
                    .iter()
                    .find_map(|of| of.started);
                if let Some(started) = started {
                    let span =
                        trace.map(|trace| trace.context.at(SpanId::of_cell(&event.run, cell)));
                    self.cell.observe([outcome.as_str()], since(started), span);
                }
            }
            EventKind::RunFinished { outcome } => {
                if let (Some(submitted), Some(plan)) = (state.submitted, &state.plan) {
                    let (took, spec) = (since(submitted), plan.spec.as_str());
                    let span = trace.map(|trace| trace.context);
                    self.run.observe([spec, outcome.as_str()], took, span);
                    self.pipeline(&self.run.counted(spec), *outcome, took);
                }
            }
            _ => {}
        }
    }

    fn step(&self, result: &StepResult, span: Option<TraceContext>) {
        let labels = [result.action.as_str(), result.outcome.as_str()];
        let took = Duration::from_micros(result.elapsed_us);
        self.step.observe(labels, took, span);
    }

    /// Measures a run as the convention has it.
    fn pipeline(&self, spec: &str, outcome: Outcome, took: Duration) {
        let mut attributes = vec![
            KeyValue::new("cicd.pipeline.name", spec.to_owned()),
            KeyValue::new("cicd.pipeline.run.state", "executing"),
            KeyValue::new("cicd.pipeline.result", result(outcome)),
        ];
        if matches!(outcome, Outcome::Failed | Outcome::Errored) {
            attributes.push(KeyValue::new("error.type", outcome.as_str()));
        }
        self.pipeline.record(took.as_secs_f64(), &attributes);
    }

    /// Adds all of them to a scrape.
    pub fn register(&self, registry: &mut Registry) {
        self.run.register(registry);
        self.cell.register(registry);
        self.step.register(registry);
        self.queue.register(registry);
        self.ready.register(registry);
        self.pull.register(registry);
    }
}

/// Returns the image that a text names, for events of agents that recorded no reference: `IMAGE, pulled in …`. No
/// reference of an image has a comma.
fn old_text_names_an_image(detail: &str) -> &str {
    detail.split(',').next().unwrap_or_default()
}

/// Returns the span of the attempt to which an event belongs.
fn within(event: &Event, trace: Option<RunTrace>) -> Option<TraceContext> {
    let (of, trace) = (event.attempt.as_ref()?, trace?);
    let context = trace.of_cell(&event.run, &of.cell);
    let ids = AttemptTrace::of(context, &event.run, &of.cell, of.attempt);
    Some(context.at(ids.attempt()))
}
