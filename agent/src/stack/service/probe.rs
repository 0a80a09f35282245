//! Checks whether a service is ready: by its `ready` predicate, else by its health check, else as soon as it has
//! started.
//!
//! The predicate is probed until its timeout. The pauses between two probes start at 5 ms and grow with the time waited
//! so far.

use super::core::NotReady;
use crate::action::answer::Fault;
use crate::action::{check, http};
use crate::context::CellContext;
use crate::context::frame::View;
use crate::duration::duration_text;
use crate::limits;
use crate::runtime::contract::{ExecRequest, Member};
use crate::sink::EventSink;
use crate::stack::board::Board;
use crate::stack::logs::Logs;
use phalanx_shared::event::EventKind;
use phalanx_shared::expr::{EvalError, Layer, Scope};
use phalanx_shared::language::model::{Probe, Service};
use phalanx_shared::node::Expr;
use phalanx_shared::outcome::Outcome;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// A pause is this fraction of the time waited so far, so that readiness is noticed at most a few percent late.
const PART: u32 = 16;
/// Time limit for one probe: a server that accepts and then hangs must not use up the whole timeout.
const ONE_ANSWER: Duration = Duration::from_secs(5);
/// Timeout if the predicate doesn't set `timeout`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);
/// The wait for a health check is this multiple of the time that the check allows itself, because `unhealthy` isn't
/// final.
const PATIENCE: u32 = 2;
/// Minimum wait for a health check.
const LEAST_PATIENCE: Duration = Duration::from_secs(30);
/// A service that isn't ready after this time is reported, and again each time the interval has doubled.
const FIRST_TOLD: Duration = Duration::from_secs(5);
/// Maximum number of characters of a probe's answer in a message.
const ANSWER: usize = 300;
/// Time limit for asking the engine about the last health probe.
const LOOK: Duration = Duration::from_secs(3);

/// Things that must be set up before a service starts.
pub enum Prepared {
    /// No preparation is needed.
    Nothing,
    /// A receiver for the first line that matches the pattern.
    Line(watch::Receiver<Option<String>>, String),
}

/// What is probed: a service, or one of its replicas.
#[derive(Clone, Copy)]
pub struct Probed<'a> {
    /// The service in the spec.
    pub service: &'a Service,
    /// Its name, or that of the replica.
    pub name: &'a str,
    /// The state of all services.
    pub board: &'a Board,
}

impl Probed<'_> {
    /// Returns the names that its predicate sees. A replica sees itself as its service.
    fn scope(&self, context: &CellContext) -> Scope {
        let (board, name) = (self.board.clone(), self.name.to_owned());
        let services = Layer::new().lazy("services", move || Ok(board.contexts_for(&name)));
        context.scope(&View::default()).with(services)
    }
}

/// Reports what a service is waiting for, as progress events.
#[derive(Clone, Copy)]
pub struct Teller<'a> {
    /// Name of the service.
    pub service: &'a str,
    /// Receives the events.
    pub events: &'a EventSink,
}

impl Teller<'_> {
    async fn tell(self, doing: String) {
        let service = self.service.to_owned();
        let told = EventKind::ServiceProgress { service, doing };
        self.events.emit(told).await;
    }
}

/// The last answer, for messages: empty or `: REASON`.
#[derive(Default)]
struct Last(Mutex<String>);

impl Last {
    fn set(&self, text: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    fn get(&self) -> String {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Returns a text such as `: its last probe: exit code 1: …`, or an empty one if nothing is known.
pub async fn last_probe(context: &CellContext, member: &dyn Member) -> String {
    let answer = timeout(LOOK, member.last_probe()).await;
    let Ok(Some(answer)) = answer else {
        return String::new();
    };
    // Mask the whole answer before it is cut (I4).
    let masked = context.masks.mask(&answer);
    let line = masked.split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = line.chars().take(ANSWER).collect();
    let more = if short.len() < line.len() { " …" } else { "" };
    format!(": its last probe: {short}{more}")
}

/// Returns the readiness timeout for a service whose spec sets none.
fn patience(predicate: bool, allows: Option<Duration>) -> Duration {
    match allows {
        Some(allows) if !predicate => allows.saturating_mul(PATIENCE).max(LEAST_PATIENCE),
        _ => DEFAULT_TIMEOUT,
    }
}

/// Sets up what must exist before the service prints its first line.
pub fn prepare(context: &CellContext, logs: &Logs, of: Probed<'_>) -> Result<Prepared, NotReady> {
    let Some(Probe::Log { pattern }) = of.service.ready.as_ref().map(|ready| &ready.probe) else {
        return Ok(Prepared::Nothing);
    };
    let scope = of.scope(context);
    let text = context
        .evaluate(&scope)
        .text(pattern)
        .map_err(|error| unevaluable(context, &error))?;
    let regex = regex::Regex::new(&text).map_err(|error| NotReady {
        outcome: Outcome::Errored,
        reason: format!("its log predicate is no regular expression: {error}"),
    })?;
    let line = logs.watch_for(of.name, regex);
    Ok(Prepared::Line(line, text))
}

/// Returns how long a service may take until it is ready.
pub fn limit(
    context: &CellContext,
    of: Probed<'_>,
    member: &dyn Member,
) -> Result<Duration, NotReady> {
    let timeout = of
        .service
        .ready
        .as_ref()
        .and_then(|ready| ready.timeout.as_ref());
    let Some(node) = timeout else {
        return Ok(patience(of.service.ready.is_some(), member.health_allows()));
    };
    let scope = of.scope(context);
    context
        .evaluate(&scope)
        .duration(node, "ready.timeout")
        .map_err(|error| unevaluable(context, &error))
}

/// Waits until a start of a service is ready, or returns an error when what is `left` of its time limit is over.
pub async fn ready(
    context: &CellContext,
    of: Probed<'_>,
    (member, start): (Arc<dyn Member>, u32),
    prepared: Prepared,
    (limit, left): (Duration, Duration),
    teller: Teller<'_>,
) -> Result<(), NotReady> {
    // The span of this start's readiness becomes the parent of the spans that the service records for the probes.
    let traceparent = context.trace.as_ref().map(|trace| {
        let ready = trace.stage(of.name, "ready", start);
        trace.parent(ready)
    });
    let scope = of.scope(context);
    let last = Last::default();
    let traceparent = traceparent.as_deref();
    let asked = ask(
        context,
        of,
        &*member,
        prepared,
        (&scope, traceparent),
        (&last, teller),
    );
    let result = tokio::select! {
        result = timeout(left, asked) => result,
        never = tell_now_and_then(&last, teller) => match never {},
    };
    match result {
        Ok(result) => result,
        Err(_) => {
            let mut last = last.get();
            if of.service.ready.is_none() {
                last += &last_probe(context, &*member).await;
            }
            Err(NotReady::too_late(limit, &last))
        }
    }
}

async fn tell_now_and_then(last: &Last, teller: Teller<'_>) -> Infallible {
    let mut pause = FIRST_TOLD;
    loop {
        tokio::time::sleep(pause).await;
        teller.tell(format!("not ready yet{}", last.get())).await;
        pause = pause.saturating_mul(2);
    }
}

async fn ask(
    context: &CellContext,
    of: Probed<'_>,
    member: &dyn Member,
    prepared: Prepared,
    (scope, traceparent): (&Scope, Option<&str>),
    (last, teller): (&Last, Teller<'_>),
) -> Result<(), NotReady> {
    let Some(ready) = &of.service.ready else {
        return healthy(context, member, last, teller).await;
    };
    if let Prepared::Line(mut line, pattern) = prepared {
        last.set(format!(": no line matched {pattern}"));
        // The watch lives as long as the logs, which outlive this call.
        let found = line.wait_for(Option::is_some).await;
        return found
            .map(drop)
            .map_err(|_| unwatched("its output can't be watched any more"));
    }
    let clock = &context.clock;
    let began = clock.monotonic();
    loop {
        let asked = clock.monotonic();
        let one = once(context, of, member, &ready.probe, (scope, traceparent));
        match timeout(ONE_ANSWER, one).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(Answer::No(why))) => last.set(format!(": {why}")),
            Ok(Err(Answer::Never(not_ready))) => return Err(not_ready),
            Err(_) => last.set(format!(": no answer within {}", duration_text(ONE_ANSWER))),
        }
        let now = clock.monotonic();
        tokio::time::sleep(pause(now.saturating_sub(began), now.saturating_sub(asked))).await;
    }
}

/// Returns the pause between two probes, from the time waited so far and the duration of the last probe. An expensive
/// probe (a command in a container on a busy engine) is followed by a pause of the same length, up to the longest
/// pause.
fn pause(waited: Duration, answered_in: Duration) -> Duration {
    (waited / PART)
        .max(answered_in)
        .clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

/// Waits until the engine reports the service healthy; returns at once if it has no health check. `unhealthy` is
/// reported but isn't final.
async fn healthy(
    context: &CellContext,
    member: &dyn Member,
    last: &Last,
    teller: Teller<'_>,
) -> Result<(), NotReady> {
    if !member.has_healthcheck() {
        return Ok(());
    }
    let mut health = member.health();
    last.set(": its health check has not passed".to_owned());
    loop {
        let verdict = *health.borrow_and_update();
        match verdict {
            Some(true) => return Ok(()),
            Some(false) => {
                last.set(": it is unhealthy".to_owned());
                let probe = last_probe(context, member).await;
                teller.tell(format!("unhealthy{probe}")).await;
            }
            None => {}
        }
        // The watch lives as long as the member, which outlives this call.
        if health.changed().await.is_err() {
            return Err(unwatched("its health can't be watched any more"));
        }
    }
}

enum Answer {
    No(String),
    Never(NotReady),
}

async fn once(
    context: &CellContext,
    of: Probed<'_>,
    member: &dyn Member,
    probe: &Probe,
    (scope, traceparent): (&Scope, Option<&str>),
) -> Result<(), Answer> {
    let never = |error: &EvalError| Answer::Never(unevaluable(context, error));
    match probe {
        Probe::Http { request, expect } => {
            // Other services that the request refers to may still be starting.
            let answer = match http::perform(context, request, scope, traceparent).await {
                Ok(answer) => answer,
                Err(
                    fault @ (Fault::Errored(_)
                    | Fault::OfService {
                        outcome: Outcome::Errored,
                        ..
                    }),
                ) => {
                    return Err(Answer::Never(NotReady {
                        outcome: Outcome::Errored,
                        reason: fault.reason(context),
                    }));
                }
                Err(fault) => return Err(Answer::No(fault.reason(context))),
            };
            let scope = scope.with(answer.layer());
            judge(context, expect, &answer, &scope)
        }
        Probe::Tcp { port } => {
            let value = context.evaluate(scope).value(port).map_err(|e| never(&e))?;
            let port = phalanx_shared::expr::to_text(&value);
            let address = address(of.board, of.name, &port)
                .ok_or_else(|| Answer::No(format!("it has no port {port}")))?;
            match tokio::net::TcpStream::connect(address).await {
                Ok(_) => Ok(()),
                Err(error) if limits::is_exhausted(&error) => Err(Answer::Never(NotReady {
                    outcome: Outcome::Errored,
                    reason: format!("{address}: {error}"),
                })),
                Err(error) => Err(Answer::No(format!("{address}: {error}"))),
            }
        }
        Probe::Exec { command } => {
            let command = context
                .evaluate(scope)
                .words(command, "ready.exec")
                .map_err(|e| never(&e))?;
            let request = ExecRequest {
                command,
                max_output: 4096,
                ..ExecRequest::default()
            };
            match member.exec(request).await {
                Ok(output) if output.exit_code == 0 => Ok(()),
                Ok(output) => Err(Answer::No(format!("exit code {}", output.exit_code))),
                Err(error) => Err(Answer::No(error.to_string())),
            }
        }
        Probe::Log { .. } => Ok(()),
    }
}

/// Requires all checks to hold; if none mentions the status, `status is 2xx` is implied.
fn judge(
    context: &CellContext,
    expect: &[Expr],
    answer: &crate::action::answer::Answer,
    scope: &Scope,
) -> Result<(), Answer> {
    let checks = check::all(context, expect, answer.implied, scope);
    match checks.iter().find(|check| !check.result.passed) {
        None => Ok(()),
        Some(check) => Err(Answer::No(check.result.failure())),
    }
}

/// Finds the port by its number or name. A number that `ports` doesn't list is tried on the service's own address.
fn address(board: &Board, service: &str, port: &str) -> Option<SocketAddr> {
    let status = board.get(service)?;
    let addresses = status.addresses?;
    let known = addresses.ports.iter().find(|(name, _)| name == port);
    known.map(|(_, address)| *address).or_else(|| {
        let number = port.parse().ok()?;
        Some(SocketAddr::new(addresses.ip?, number))
    })
}

fn unwatched(reason: &str) -> NotReady {
    NotReady {
        outcome: Outcome::Errored,
        reason: reason.to_owned(),
    }
}

fn unevaluable(context: &CellContext, error: &EvalError) -> NotReady {
    let place = context.place(error.span).unwrap_or_default();
    NotReady {
        outcome: Outcome::Errored,
        reason: format!("{place}: {}", error.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_health_check_gets_twice_what_it_allows_and_a_predicate_five_minutes() {
        let s = Duration::from_secs;
        assert_eq!(patience(false, Some(s(1))), s(30));
        assert_eq!(patience(false, Some(s(90))), s(180));
        assert_eq!(patience(true, Some(s(1))), s(300));
        assert_eq!(patience(true, None), s(300));
    }

    #[test]
    fn pauses_grow_with_the_time_waited_and_with_what_an_answer_costs() {
        let ms = Duration::from_millis;
        assert_eq!(pause(ms(0), ms(1)), SHORTEST_PAUSE);
        assert_eq!(pause(ms(640), ms(1)), ms(40));
        assert_eq!(pause(ms(640), ms(90)), ms(90));
        assert_eq!(pause(ms(60_000), ms(9_000)), LONGEST_PAUSE);
    }
}
