//! Whether a service is ready: its `ready` predicate, else its health check, else that it has started.
//!
//! Asked from milliseconds up, with pauses that grow with the time waited so far, until the predicate's timeout.

use crate::cell::context::CellContext;
use crate::limits;
use crate::runtime::contract::{ExecRequest, Member};
use crate::sequence::frame::View;
use crate::sequence::limit::duration_text;
use crate::sink::EventSink;
use crate::step::answer::Fault;
use crate::step::{check, http};
use phalanx_shared::event::EventKind;
use phalanx_shared::expr::{EvalError, Scope};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::spec::model::{Probe, Service};
use phalanx_shared::spec::node::Expr;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// A pause is such a part of the time waited so far: what is noticed late is late by a few percent of what it took.
const PART: u32 = 16;
/// Of one question; a server that accepts and then hangs mustn't use up the whole time.
const ONE_ANSWER: Duration = Duration::from_secs(5);
/// Without a `timeout` of the predicate's own.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);
/// A health check's verdict is waited for so many times as long as it allows itself: `unhealthy` isn't final.
const PATIENCE: u32 = 2;
/// And at least so long.
const LEAST_PATIENCE: Duration = Duration::from_secs(30);
/// A service that isn't ready by then is told, and again after each time twice as long.
const FIRST_TOLD: Duration = Duration::from_secs(5);
/// Characters of a probe's answer that a line shows.
const ANSWER: usize = 300;
/// How long a look at the last probe may take.
const LOOK: Duration = Duration::from_secs(3);

/// Why a service isn't ready.
#[derive(Clone, Debug)]
pub struct NotReady {
    /// `failed`, or `errored` when it could not even be asked.
    pub outcome: Outcome,
    /// Why.
    pub reason: String,
}

/// What must be set up before the start.
pub enum Prepared {
    /// Nothing.
    Nothing,
    /// A line is watched for.
    Line(watch::Receiver<Option<String>>, String),
}

/// Tells what keeps a service.
#[derive(Clone, Copy)]
pub struct Teller<'a> {
    /// Which.
    pub service: &'a str,
    /// Where it is told.
    pub events: &'a EventSink,
}

impl Teller<'_> {
    async fn tell(self, doing: String) {
        let service = self.service.to_owned();
        let told = EventKind::ServiceProgress { service, doing };
        self.events.emit(told).await;
    }
}

/// The last answer, for messages: empty or `: why`.
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

/// `: its last probe: exit code 1: …`; empty if nothing is known.
pub async fn last_probe(context: &CellContext, member: &dyn Member) -> String {
    let answer = timeout(LOOK, member.last_probe()).await;
    let Ok(Some(answer)) = answer else {
        return String::new();
    };
    // Masked as a whole before it is cut (I4).
    let masked = context.masks.mask(&answer);
    let line = masked.split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = line.chars().take(ANSWER).collect();
    let more = if short.len() < line.len() { " …" } else { "" };
    format!(": its last probe: {short}{more}")
}

/// How long readiness is waited for when the spec doesn't say.
fn patience(predicate: bool, allows: Option<Duration>) -> Duration {
    match allows {
        Some(allows) if !predicate => allows.saturating_mul(PATIENCE).max(LEAST_PATIENCE),
        _ => DEFAULT_TIMEOUT,
    }
}

/// Sets up what must be there before the service prints its first line.
pub fn prepare(context: &CellContext, service: &Service) -> Result<Prepared, NotReady> {
    let Some(Probe::Log { pattern }) = service.ready.as_ref().map(|ready| &ready.probe) else {
        return Ok(Prepared::Nothing);
    };
    let scope = context.scope(&View::default());
    let text = context
        .evaluate(&scope)
        .text(pattern)
        .map_err(|error| unevaluable(context, &error))?;
    let regex = regex::Regex::new(&text).map_err(|error| NotReady {
        outcome: Outcome::Errored,
        reason: format!("its log predicate is no regular expression: {error}"),
    })?;
    let line = context.logs.watch_for(&service.name.text, regex);
    Ok(Prepared::Line(line, text))
}

/// Waits until a started service is ready, or its time is over.
pub async fn ready(
    context: &CellContext,
    service: &Service,
    member: Arc<dyn Member>,
    prepared: Prepared,
    start: u32,
    teller: Teller<'_>,
) -> Result<(), NotReady> {
    // The span of this start's readiness, for the service's own spans of our questions.
    let traceparent = context.trace.as_ref().map(|trace| {
        let ready = trace.stage(&service.name.text, "ready", start);
        trace.parent(ready)
    });
    let scope = context.scope(&View::default());
    let limit = match service
        .ready
        .as_ref()
        .and_then(|ready| ready.timeout.as_ref())
    {
        Some(node) => context
            .evaluate(&scope)
            .duration(node, "ready.timeout")
            .map_err(|error| unevaluable(context, &error))?,
        None => patience(service.ready.is_some(), member.health_allows()),
    };
    let last = Last::default();
    let traceparent = traceparent.as_deref();
    let asked = ask(
        context,
        service,
        &*member,
        prepared,
        (&scope, traceparent),
        (&last, teller),
    );
    let result = tokio::select! {
        result = timeout(limit, asked) => result,
        never = tell_now_and_then(&last, teller) => match never {},
    };
    match result {
        Ok(result) => result,
        Err(_) => {
            let mut last = last.get();
            if service.ready.is_none() {
                last += &last_probe(context, &*member).await;
            }
            Err(NotReady {
                outcome: Outcome::Failed,
                reason: format!("not within {}{last}", duration_text(limit)),
            })
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
    service: &Service,
    member: &dyn Member,
    prepared: Prepared,
    (scope, traceparent): (&Scope, Option<&str>),
    (last, teller): (&Last, Teller<'_>),
) -> Result<(), NotReady> {
    let Some(ready) = &service.ready else {
        return healthy(context, member, last, teller).await;
    };
    if let Prepared::Line(mut line, pattern) = prepared {
        last.set(format!(": no line matched {pattern}"));
        // The watch lives as long as the logs do, which outlive this.
        let _ = line.wait_for(Option::is_some).await;
        return Ok(());
    }
    let clock = &context.clock;
    let began = clock.monotonic();
    loop {
        let asked = clock.monotonic();
        let one = once(context, service, member, &ready.probe, (scope, traceparent));
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

/// Between two questions, by the time waited so far and what the last answer took: a question that is dear to whoever
/// answers (a command in a container, on a busy engine) is followed by a rest as long, up to the longest pause.
fn pause(waited: Duration, answered_in: Duration) -> Duration {
    (waited / PART)
        .max(answered_in)
        .clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

/// Healthy if the engine judges its health, else at once. `unhealthy` alone is not final, but told.
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
        // The watch lives as long as the member, which outlives this.
        if health.changed().await.is_err() {
            return Ok(());
        }
    }
}

enum Answer {
    No(String),
    Never(NotReady),
}

async fn once(
    context: &CellContext,
    service: &Service,
    member: &dyn Member,
    probe: &Probe,
    (scope, traceparent): (&Scope, Option<&str>),
) -> Result<(), Answer> {
    let never = |error: &EvalError| Answer::Never(unevaluable(context, error));
    match probe {
        Probe::Http { request, expect } => {
            // Other services that the request names may still be starting.
            let answer = match http::perform(context, request, scope, traceparent).await {
                Ok(answer) => answer,
                Err(fault @ Fault::Errored(_)) => {
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
            let address = address(context, &service.name.text, &port)
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

/// All checks hold; `status is 2xx` if none mentions the status.
fn judge(
    context: &CellContext,
    expect: &[Expr],
    answer: &crate::step::answer::Answer,
    scope: &Scope,
) -> Result<(), Answer> {
    let checks = check::all(context, expect, answer.implied, scope);
    match checks.iter().find(|check| !check.passed) {
        None => Ok(()),
        Some(check) => Err(Answer::No(check::line(check))),
    }
}

/// The port by its number or name; a number that `ports` does not list is tried on the address itself.
fn address(context: &CellContext, service: &str, port: &str) -> Option<SocketAddr> {
    let status = context.board.get(service)?;
    let addresses = status.addresses?;
    let known = addresses.ports.iter().find(|(name, _)| name == port);
    known.map(|(_, address)| *address).or_else(|| {
        let number = port.parse().ok()?;
        Some(SocketAddr::new(addresses.ip?, number))
    })
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
