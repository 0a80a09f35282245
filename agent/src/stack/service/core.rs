//! The life of one service as a state machine: pull or build ▸ create ▸ start ▸ ready ▸ exit ▸ start again, and the
//! steps' actions on it in between.
//!
//! It is pure: no runtime, no clock, no evaluation. [`Service::handle`] takes one [`Input`] and the time, and returns the
//! [`Effect`]s to perform in order. An effect that is answered by an input is the last one.

use super::restart::Restarts;
use crate::context::services::NotDone;
use crate::duration::duration_text;
use crate::runtime::contract::{Addresses, Exit, Fault, RuntimeError};
use crate::stack::board::Stage;
use crate::stack::dependencies::GivenUp;
use crate::stack::expected::may_end;
use phalanx_shared::event::ServiceState;
use phalanx_shared::language::model::ContainerVerb;
use phalanx_shared::language::service::ServiceConfig;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::time::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// What the spec says about a service besides its definition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// Whether it is expected to exit: it is a job that another service or a step waits for.
    pub job: bool,
    /// Whether a step or another service needs it.
    pub needed: bool,
    /// Whether it has a `ready` predicate, so that its health check doesn't count.
    pub predicate: bool,
}

/// The state of one service.
#[derive(Debug)]
pub struct Service {
    name: String,
    role: Role,
    config: Option<Arc<ServiceConfig>>,
    /// Whether the engine runs a health check for it; `None` until it is created.
    healthcheck: Option<bool>,
    stage: Stage,
    /// Number of the current or last start.
    start: u32,
    /// When the runtime was asked for the current start.
    began: Timestamp,
    /// Whether a step asked for the current start to end.
    asked: bool,
    /// Whether a step paused it or disconnected it: its health check is ignored meanwhile.
    held: bool,
    doing: Doing,
    /// Restarts since the stack or a step started it.
    restarts: Restarts,
    /// Whether it exited and waits for its next start.
    pausing: bool,
    /// Whether it was restarted since it was last ready or, before that, since its first start.
    unready: bool,
    /// Whether a step runs it to its end: its `restart` policy doesn't count, as in `docker compose run`.
    to_its_end: bool,
}

/// The start or end that is in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Nothing,
    Starting(By),
    Ending { start_again: bool },
}

/// The origin of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// The stack: the dependencies are met. Errors are reported to the sequence.
    Stack,
    /// A step, which gets the errors.
    Step,
    /// Its `restart` policy.
    Policy,
}

/// Inputs of a service.
#[derive(Debug)]
pub enum Input {
    /// The dependencies are met: start it.
    Start,
    /// It can never start.
    GiveUp(GivenUp),
    /// A step's action.
    Act(ContainerVerb),
    /// Answer to [`Effect::Define`].
    Defined(Result<Arc<ServiceConfig>, RuntimeError>),
    /// Answer to [`Effect::AwaitDependencies`].
    Met(Result<(), Unmet>),
    /// Answer to [`Effect::Create`]: whether the engine runs a health check for it.
    Created(Result<bool, RuntimeError>),
    /// Answer to [`Effect::Launch`].
    Launched(Result<Addresses, RuntimeError>),
    /// Answer to [`Effect::Apply`], with the new addresses after [`Order::Connect`].
    Applied(Result<Option<Addresses>, RuntimeError>),
    /// Answer to [`Effect::AwaitExit`]; `None` if the exit isn't known in time.
    Ended(Option<End>),
    /// A start has ended.
    Exited { start: u32, end: End },
    /// The result of probing a start for readiness.
    Probed {
        start: u32,
        began: Timestamp,
        result: Result<(), NotReady>,
    },
    /// The pause after the exit of a start is over.
    Again { start: u32 },
    /// The engine reports a start unhealthy that was healthy before. `probe` is empty or `: its last probe: …`.
    Unhealthy { start: u32, probe: String },
}

/// Why the dependencies of a service that a step starts aren't met.
#[derive(Debug)]
pub enum Unmet {
    /// One of them can't be met.
    Never(GivenUp),
    /// One of them could not be started, or no step has started it.
    NotStarted(RuntimeError),
}

/// The reason why a service isn't ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// `failed`, or `errored` if readiness could not be checked.
    pub outcome: Outcome,
    /// Reason, as shown in reports.
    pub reason: String,
}

impl NotReady {
    /// The time limit is over. `last` is empty or `: the last answer`.
    pub fn too_late(limit: Duration, last: &str) -> Self {
        NotReady {
            outcome: Outcome::Failed,
            reason: format!("not within {}{last}", duration_text(limit)),
        }
    }
}

/// The end of a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// How it exited.
    pub exit: Exit,
    /// The reason, if the engine caused the end. It then says nothing about the service.
    pub machinery: Option<String>,
}

/// An action on the container or process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Stop,
    Kill,
    Pause,
    Unpause,
    Disconnect,
    Connect,
}

/// Effects that a service wants performed, in order.
#[derive(Debug)]
pub enum Effect {
    /// Evaluate the definition, once.
    Define,
    /// Wait for the dependencies; start those that are `start: manual`.
    AwaitDependencies,
    /// Pull or build the image and create the container or process, with an event for each.
    Create,
    /// Start the container or process. With `hooks`, run those that belong to a start.
    Launch { hooks: bool },
    /// Perform an action on the container or process.
    Apply(Order),
    /// Wait for the exit that a step asked for.
    AwaitExit,
    /// Watch this start for its exit and its readiness. If it is `again` after an exit before it was ready, the time
    /// limit of its readiness goes on.
    Watch { start: u32, again: bool },
    /// Start it again after a pause. If it wasn't ready before its exit, the time limit of its readiness goes on.
    Pause {
        start: u32,
        pause: Duration,
        again: bool,
    },
    /// Emit the event of a restart.
    EmitRestart { exit: Exit, pause: Duration },
    /// Watch this start for its health check, which defines readiness.
    WatchHealth { start: u32 },
    /// Stop watching.
    Unwatch,
    /// Show a change on the board.
    Show(Change),
    /// Emit an event.
    Emit {
        state: ServiceState,
        began: Timestamp,
        detail: Option<String>,
    },
    /// Show the service as down, with evidence, and report that to the sequence.
    Down(GivenUp),
    /// Show the service as down, with evidence, and answer the step with that.
    Refuse(GivenUp),
    /// Answer the step whose action this was.
    Reply(Result<(), NotDone>),
}

/// A change of a service's state on the board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is in another stage.
    Stage(Stage),
    /// It has started.
    Started { start: u32, addresses: Addresses },
    /// Its addresses changed.
    Addresses(Addresses),
    /// It has exited. Without a stage it is going down: that is shown later, together with the reason, which waiters
    /// need.
    Exited { exit: Exit, stage: Option<Stage> },
}

impl Service {
    /// Creates a service whose start has not begun.
    pub fn new(name: String, role: Role) -> Self {
        Service {
            name,
            role,
            config: None,
            healthcheck: None,
            stage: Stage::Idle,
            start: 0,
            began: Timestamp::default(),
            asked: false,
            held: false,
            doing: Doing::Nothing,
            restarts: Restarts::default(),
            pausing: false,
            unready: false,
            to_its_end: false,
        }
    }

    /// Handles one input and returns the effects to perform.
    pub fn handle(&mut self, input: Input, now: Timestamp) -> Vec<Effect> {
        match input {
            Input::Start => self.start(By::Stack),
            Input::GiveUp(why) => self.down(why),
            Input::Act(verb) => self.act(verb),
            Input::Defined(Ok(config)) => {
                self.config = Some(config);
                match self.doing {
                    Doing::Starting(By::Step) => vec![Effect::AwaitDependencies],
                    _ => self.create(now),
                }
            }
            Input::Met(Ok(())) => self.create(now),
            Input::Met(Err(Unmet::Never(why))) => {
                self.doing = Doing::Nothing;
                self.stage = Stage::Stopped;
                let stopped = Change::Stage(Stage::Stopped);
                vec![Effect::Refuse(why), Effect::Show(stopped)]
            }
            Input::Created(Ok(healthcheck)) => {
                self.healthcheck = Some(healthcheck);
                self.launch(now)
            }
            Input::Launched(Ok(addresses)) => self.started(addresses),
            Input::Defined(Err(error))
            | Input::Met(Err(Unmet::NotStarted(error)))
            | Input::Created(Err(error))
            | Input::Launched(Err(error)) => self.not_started(error),
            Input::Applied(result) => self.applied(result),
            Input::Ended(end) => {
                let mut effects = end.map_or_else(Vec::new, |end| self.exited(end, now));
                effects.extend(self.ended());
                effects
            }
            Input::Exited { start, end } if start == self.start => self.exited(end, now),
            Input::Probed {
                start,
                began,
                result,
            } if start == self.start && self.awaits_readiness() => self.probed(began, result),
            Input::Again { start } if start == self.start && self.pausing => {
                self.doing = Doing::Starting(By::Policy);
                self.launch(now)
            }
            Input::Unhealthy { start, probe }
                if start == self.start && self.stage == Stage::Ready && !self.held =>
            {
                self.down(GivenUp {
                    outcome: Outcome::Failed,
                    reason: format!("service {} turned unhealthy{probe}", self.name),
                    cause: None,
                })
            }
            // It concerns an earlier start, whose end has been handled by the action that asked for it.
            Input::Exited { .. }
            | Input::Probed { .. }
            | Input::Again { .. }
            | Input::Unhealthy { .. } => Vec::new(),
        }
    }

    fn act(&mut self, verb: ContainerVerb) -> Vec<Effect> {
        match verb {
            ContainerVerb::Start | ContainerVerb::Run => {
                self.to_its_end = verb == ContainerVerb::Run;
                self.start(By::Step)
            }
            ContainerVerb::Stop => self.end(false),
            ContainerVerb::Restart => self.end(true),
            ContainerVerb::Kill => self.apply(Order::Kill, "kill"),
            ContainerVerb::Pause => {
                self.held = true;
                self.apply(Order::Pause, "pause")
            }
            ContainerVerb::Unpause => {
                self.held = false;
                self.apply(Order::Unpause, "unpause")
            }
            ContainerVerb::Disconnect => {
                self.held = true;
                self.apply(Order::Disconnect, "disconnect")
            }
            ContainerVerb::Connect => {
                self.held = false;
                self.apply(Order::Connect, "connect")
            }
        }
    }

    fn start(&mut self, by: By) -> Vec<Effect> {
        if self.is_running() {
            self.doing = Doing::Nothing;
            return match by {
                By::Stack | By::Policy => Vec::new(),
                By::Step => vec![Effect::Reply(Ok(()))],
            };
        }
        self.pausing = false;
        self.unready = false;
        self.restarts = Restarts::default();
        self.doing = Doing::Starting(by);
        vec![Effect::Define]
    }

    fn create(&mut self, now: Timestamp) -> Vec<Effect> {
        self.stage = Stage::Starting;
        let mut effects = vec![Effect::Show(Change::Stage(Stage::Starting))];
        match self.healthcheck {
            Some(_) => effects.extend(self.launch(now)),
            None => effects.push(Effect::Create),
        }
        effects
    }

    fn launch(&mut self, now: Timestamp) -> Vec<Effect> {
        self.began = now;
        self.asked = false;
        self.held = false;
        self.pausing = false;
        // As in Compose, where the engine restarts a container and knows of no hooks.
        let hooks = self.doing != Doing::Starting(By::Policy);
        vec![Effect::Unwatch, Effect::Launch { hooks }]
    }

    fn started(&mut self, addresses: Addresses) -> Vec<Effect> {
        self.start += 1;
        self.stage = Stage::Started;
        let start = self.start;
        let detail = shown(&addresses);
        let mut effects = vec![
            Effect::Show(Change::Started { start, addresses }),
            Effect::Emit {
                state: ServiceState::Started,
                began: self.began,
                detail,
            },
            Effect::Watch {
                start,
                again: self.unready,
            },
        ];
        if self.doing == Doing::Starting(By::Step) {
            effects.push(Effect::Reply(Ok(())));
        }
        self.doing = Doing::Nothing;
        effects
    }

    fn not_started(&mut self, error: RuntimeError) -> Vec<Effect> {
        match std::mem::replace(&mut self.doing, Doing::Nothing) {
            Doing::Starting(By::Step) => {
                // On the board the service must not stay in the stage of starting.
                self.stage = Stage::Stopped;
                let stopped = Change::Stage(Stage::Stopped);
                vec![
                    Effect::Show(stopped),
                    Effect::Reply(Err(NotDone::Runtime(error))),
                ]
            }
            _ => {
                let outcome = error.outcome();
                let reason = match error.names(&self.name) {
                    true => error.reason,
                    false => format!("service {} can't start: {error}", self.name),
                };
                let cause = None;
                self.down(GivenUp {
                    outcome,
                    reason,
                    cause,
                })
            }
        }
    }

    /// Stops the service, and starts it again if `start_again`.
    fn end(&mut self, start_again: bool) -> Vec<Effect> {
        if self.healthcheck.is_none() {
            return vec![Effect::Reply(Err(self.not_running("stop").into()))];
        }
        self.asked = true;
        self.doing = Doing::Ending { start_again };
        if self.pausing {
            return self.give_up_restart();
        }
        vec![Effect::Apply(Order::Stop)]
    }

    /// Ends the pause before a restart, since a step asked for the end.
    fn give_up_restart(&mut self) -> Vec<Effect> {
        self.pausing = false;
        self.stage = Stage::Stopped;
        let stopped = Change::Stage(Stage::Stopped);
        let mut effects = vec![Effect::Unwatch, Effect::Show(stopped)];
        effects.extend(self.ended());
        effects
    }

    /// Performs an action that needs a running service.
    fn apply(&mut self, order: Order, verb: &str) -> Vec<Effect> {
        if !self.is_running() {
            return vec![Effect::Reply(Err(self.not_running(verb).into()))];
        }
        if order == Order::Kill {
            self.asked = true;
            self.doing = Doing::Ending { start_again: false };
        }
        vec![Effect::Apply(order)]
    }

    fn applied(&mut self, result: Result<Option<Addresses>, RuntimeError>) -> Vec<Effect> {
        match (result, self.doing) {
            (Ok(_), Doing::Ending { .. }) if self.is_running() => vec![Effect::AwaitExit],
            (Ok(_), Doing::Ending { .. }) => self.ended(),
            (Ok(addresses), _) => {
                let changed = addresses.map(|known| Effect::Show(Change::Addresses(known)));
                changed.into_iter().chain([Effect::Reply(Ok(()))]).collect()
            }
            (Err(error), _) => {
                self.doing = Doing::Nothing;
                // It runs on, and an exit from now on is its own.
                self.asked = false;
                vec![Effect::Reply(Err(error.into()))]
            }
        }
    }

    /// Continues after the end that a step asked for.
    fn ended(&mut self) -> Vec<Effect> {
        match std::mem::replace(&mut self.doing, Doing::Nothing) {
            Doing::Ending { start_again: true } => self.start(By::Step),
            _ => vec![Effect::Reply(Ok(()))],
        }
    }

    fn exited(&mut self, end: End, now: Timestamp) -> Vec<Effect> {
        if !self.is_running() {
            return Vec::new();
        }
        let End { exit, machinery } = end;
        let success = exit.code == 0;
        if machinery.is_none()
            && let Some(pause) = self.restart(&exit, now)
        {
            return self.restarted(exit, pause, now);
        }
        let expected = self.role.job || (success && self.may_end());
        let fine = expected && !exit.oom && machinery.is_none();
        let (stage, state) = match (self.asked, fine) {
            (true, _) => (Stage::Stopped, ServiceState::Stopped),
            (false, true) => (Stage::Exited, ServiceState::Exited),
            (false, false) => (Stage::Down, ServiceState::Exited),
        };
        self.stage = stage;
        let detail = exit_text(&exit);
        let shown = Some(stage).filter(|stage| *stage != Stage::Down);
        let mut effects = vec![
            Effect::Unwatch,
            Effect::Show(Change::Exited { exit, stage: shown }),
            Effect::Emit {
                state,
                began: now,
                detail: Some(detail.clone()),
            },
        ];
        if stage == Stage::Down {
            let advice = match success {
                true => format!("; {}", job_advice(&self.name)),
                false => String::new(),
            };
            let (name, restarts) = (&self.name, self.restarts.text());
            let (outcome, reason) = match machinery {
                Some(cause) => (Outcome::Errored, cause),
                None => (
                    Outcome::Failed,
                    format!("service {name} exited unexpectedly, {detail}{restarts}{advice}"),
                ),
            };
            let cause = None;
            effects.extend(self.down(GivenUp {
                outcome,
                reason,
                cause,
            }));
        }
        effects
    }

    /// Returns the pause before the next start, if its `restart` policy starts it again after this exit.
    fn restart(&mut self, exit: &Exit, now: Timestamp) -> Option<Duration> {
        let config = self
            .config
            .as_ref()
            .filter(|_| !self.asked && !self.to_its_end)?;
        let ran = now.since(self.began);
        self.restarts.after(config, exit, self.role.job, ran)
    }

    /// Notes an exit that isn't an end. Whatever waits for the service waits on: its next start may become ready.
    fn restarted(&mut self, exit: Exit, pause: Duration, now: Timestamp) -> Vec<Effect> {
        let again = self.stage == Stage::Started;
        self.unready = again;
        self.stage = Stage::Starting;
        self.pausing = true;
        let emit = Effect::Emit {
            state: ServiceState::Exited,
            began: now,
            detail: Some(exit_text(&exit)),
        };
        let shown = Effect::Show(Change::Exited {
            exit: exit.clone(),
            stage: Some(Stage::Starting),
        });
        let start = self.start;
        let wait = Effect::Pause {
            start,
            pause,
            again,
        };
        let told = Effect::EmitRestart { exit, pause };
        vec![Effect::Unwatch, shown, emit, told, wait]
    }

    /// Returns whether a result of probing counts: it runs and isn't ready yet, or the time limit ended in a pause.
    fn awaits_readiness(&self) -> bool {
        self.stage == Stage::Started || self.pausing
    }

    fn probed(&mut self, began: Timestamp, result: Result<(), NotReady>) -> Vec<Effect> {
        match result {
            Ok(()) => {
                self.stage = Stage::Ready;
                let ready = Change::Stage(Stage::Ready);
                let emit = Effect::Emit {
                    state: ServiceState::Ready,
                    began,
                    detail: None,
                };
                let start = self.start;
                let by_health = self.healthcheck == Some(true) && !self.role.predicate;
                let watch = by_health.then_some(Effect::WatchHealth { start });
                [Effect::Show(ready), emit]
                    .into_iter()
                    .chain(watch)
                    .collect()
            }
            Err(NotReady { outcome, reason }) => self.down(GivenUp {
                outcome,
                reason: format!(
                    "service {} isn't ready: {reason}{}",
                    self.name,
                    self.restarts.text()
                ),
                cause: None,
            }),
        }
    }

    fn down(&mut self, why: GivenUp) -> Vec<Effect> {
        self.stage = Stage::Down;
        self.pausing = false;
        vec![Effect::Down(why)]
    }

    /// Returns whether exit code 0 is a normal end although nothing waits for it.
    fn may_end(&self) -> bool {
        let Role {
            needed, predicate, ..
        } = self.role;
        let healthcheck = self.healthcheck == Some(true);
        let config = self.config.as_ref();
        config.is_some_and(|config| may_end(config, needed, healthcheck, predicate))
    }

    fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Started | Stage::Ready)
    }

    fn not_running(&self, verb: &str) -> RuntimeError {
        let name = &self.name;
        let reason = format!("can't {verb} service {name}: it isn't running");
        RuntimeError::new(Fault::State, reason).naming(name)
    }
}

/// Formats an exit, for example `with code 137, out of memory`.
fn exit_text(exit: &Exit) -> String {
    let oom = if exit.oom { ", out of memory" } else { "" };
    format!("with code {}{oom}", exit.code)
}

/// Returns advice on how to declare a service that is expected to end.
fn job_advice(name: &str) -> String {
    format!(
        "if that is its work, write `restart: \"no\"` in {name}, or wait for it (`service_completed_successfully`, or a step `wait: {{ service: {name}, until: exited }}`)"
    )
}

/// Returns the addresses to show: those of its ports, or else its own.
fn shown(addresses: &Addresses) -> Option<String> {
    let ports: Vec<String> = addresses
        .ports
        .iter()
        .map(|(_, at)| at.to_string())
        .collect();
    let ip = addresses.ip.map(|ip| ip.to_string());
    if ports.is_empty() {
        ip
    } else {
        Some(ports.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use phalanx_shared::language::service::Restart;

    const NOW: Timestamp = Timestamp(7);

    /// Formats effects without the details that the tests don't check.
    fn names(effects: &[Effect]) -> Vec<String> {
        let name = |effect: &Effect| match effect {
            Effect::Show(Change::Stage(stage)) => format!("{stage:?}"),
            Effect::Show(Change::Started { start, .. }) => format!("Started {start}"),
            Effect::Show(Change::Exited { stage, .. }) => format!("Exited {stage:?}"),
            Effect::Emit { state, .. } => format!("Emit {state:?}"),
            Effect::Down(why) => format!("Down {}: {}", why.outcome, why.reason),
            Effect::Refuse(why) => format!("Refuse {}", why.reason),
            Effect::Reply(Ok(())) => "Reply".to_owned(),
            Effect::Launch { hooks: true } => "Launch".to_owned(),
            Effect::Launch { hooks: false } => "Launch without hooks".to_owned(),
            Effect::Reply(Err(NotDone::Runtime(error))) => format!("Reply {error}"),
            other => format!("{other:?}"),
        };
        effects.iter().map(name).collect()
    }

    struct Rig(Service);

    impl Rig {
        fn new(role: Role) -> Rig {
            Rig(Service::new("db".to_owned(), role))
        }

        fn on(&mut self, input: Input) -> Vec<String> {
            names(&self.0.handle(input, NOW))
        }

        fn defined(restart: Restart) -> Input {
            Input::Defined(Ok(Arc::new(ServiceConfig {
                restart,
                ..ServiceConfig::default()
            })))
        }

        /// Starts the service for the stack, up to where its readiness is probed.
        fn started(role: Role, healthcheck: bool) -> Rig {
            let mut rig = Rig::new(role);
            assert_eq!(rig.on(Input::Start), ["Define"]);
            let defined = Rig::defined(Restart::Unsaid);
            assert_eq!(rig.on(defined), ["Starting", "Create"]);
            let created = rig.on(Input::Created(Ok(healthcheck)));
            assert_eq!(created, ["Unwatch", "Launch"]);
            let launched = rig.on(Input::Launched(Ok(Addresses::default())));
            assert_eq!(
                launched,
                [
                    "Started 1",
                    "Emit Started",
                    "Watch { start: 1, again: false }"
                ]
            );
            rig
        }

        fn ready(role: Role, healthcheck: bool) -> Rig {
            let mut rig = Rig::started(role, healthcheck);
            let ready = rig.on(probed(1, Ok(())));
            assert_eq!(ready[..2], ["Ready", "Emit Ready"]);
            rig
        }
    }

    fn probed(start: u32, result: Result<(), NotReady>) -> Input {
        let began = NOW;
        Input::Probed {
            start,
            began,
            result,
        }
    }

    fn end(code: i64, start: u32) -> End {
        let oom = false;
        End {
            exit: Exit { code, oom, start },
            machinery: None,
        }
    }

    fn exited(code: i64) -> Input {
        let end = end(code, 1);
        Input::Exited { start: 1, end }
    }

    fn needed() -> Role {
        Role {
            needed: true,
            ..Role::default()
        }
    }

    fn broken(what: &str) -> RuntimeError {
        RuntimeError::new(Fault::Image, what)
    }

    #[test]
    fn an_error_of_the_stacks_start_takes_the_service_down_and_that_of_a_step_is_its_answer() {
        let mut rig = Rig::new(needed());
        rig.on(Input::Start);
        rig.on(Rig::defined(Restart::Unsaid));
        let error = RuntimeError::of("db", Fault::Image, "pull: no");
        let created = rig.on(Input::Created(Err(error)));
        assert_eq!(created, ["Down errored: service db: pull: no"]);

        let mut rig = Rig::new(needed());
        rig.on(Input::Start);
        rig.on(Rig::defined(Restart::Unsaid));
        let created = rig.on(Input::Created(Err(broken("the db of users is full"))));
        let reason = "Down errored: service db can't start: the db of users is full";
        assert_eq!(
            created,
            [reason],
            "a reason that has the name in it doesn't name it"
        );

        let mut rig = Rig::new(needed());
        assert_eq!(rig.on(Input::Act(ContainerVerb::Start)), ["Define"]);
        let defined = rig.on(Rig::defined(Restart::Unsaid));
        assert_eq!(defined, ["AwaitDependencies"]);
        assert_eq!(rig.on(Input::Met(Ok(()))), ["Starting", "Create"]);
        let created = rig.on(Input::Created(Err(broken("no image"))));
        assert_eq!(created, ["Stopped", "Reply no image"]);
        assert_eq!(rig.on(Input::Act(ContainerVerb::Start)), ["Define"]);
    }

    #[test]
    fn a_step_that_starts_a_service_whose_dependency_cant_be_met_gets_its_evidence() {
        let mut rig = Rig::new(needed());
        rig.on(Input::Act(ContainerVerb::Run));
        rig.on(Rig::defined(Restart::Unsaid));
        let why = GivenUp {
            outcome: Outcome::Failed,
            reason: "service db can't start: seed is down".to_owned(),
            cause: Some("seed".to_owned()),
        };
        let met = rig.on(Input::Met(Err(Unmet::Never(why))));
        let refused = "Refuse service db can't start: seed is down";
        assert_eq!(met, [refused, "Stopped"]);
    }

    #[test]
    fn a_start_of_a_running_service_changes_nothing() {
        let mut rig = Rig::ready(needed(), false);
        assert_eq!(rig.on(Input::Start), Vec::<String>::new());
        assert_eq!(rig.on(Input::Act(ContainerVerb::Start)), ["Reply"]);
    }

    #[test]
    fn an_exit_is_an_end_a_stop_or_a_failure() {
        let mut rig = Rig::ready(needed(), false);
        let effects = rig.on(exited(3));
        let reason = "Down failed: service db exited unexpectedly, with code 3";
        assert_eq!(effects, ["Unwatch", "Exited None", "Emit Exited", reason]);

        let job = Role {
            job: true,
            ..Role::default()
        };
        let fine = ["Unwatch", "Exited Some(Exited)", "Emit Exited"];
        assert_eq!(Rig::ready(job, false).on(exited(3)), fine);
        // Nothing needs it, so it may end by itself, but only with code 0.
        let lone = Role::default();
        assert_eq!(Rig::ready(lone, false).on(exited(0)), fine);
        assert_ne!(Rig::ready(lone, false).on(exited(1)), fine);
        let killed = End {
            machinery: Some("the engine went away".to_owned()),
            ..end(0, 1)
        };
        let end = Input::Exited {
            start: 1,
            end: killed,
        };
        let effects = Rig::ready(lone, false).on(end);
        let reason = "Down errored: the engine went away";
        assert_eq!(effects.last().map(String::as_str), Some(reason));
    }

    #[test]
    fn a_restart_waits_for_the_exit_and_starts_again_with_the_same_container() {
        let mut rig = Rig::ready(needed(), false);
        let stop = rig.on(Input::Act(ContainerVerb::Restart));
        assert_eq!(stop, ["Apply(Stop)"]);
        assert_eq!(rig.on(Input::Applied(Ok(None))), ["AwaitExit"]);
        assert_eq!(
            rig.on(Input::Ended(Some(end(143, 1)))),
            ["Unwatch", "Exited Some(Stopped)", "Emit Stopped", "Define"]
        );
        rig.on(Rig::defined(Restart::Unsaid));
        let met = rig.on(Input::Met(Ok(())));
        assert_eq!(met, ["Starting", "Unwatch", "Launch"]);
        let launched = rig.on(Input::Launched(Ok(Addresses::default())));
        assert_eq!(launched[0], "Started 2");
        assert_eq!(launched.last().map(String::as_str), Some("Reply"));
        // What the watchers of the first start report comes too late.
        assert_eq!(rig.on(exited(143)), Vec::<String>::new());
        assert_eq!(rig.on(probed(1, Ok(()))), Vec::<String>::new());
    }

    #[test]
    fn an_action_needs_a_running_service() {
        let not = |verb| format!("Reply can't {verb} service db: it isn't running");
        let mut rig = Rig::new(needed());
        assert_eq!(rig.on(Input::Act(ContainerVerb::Kill)), [not("kill")]);
        assert_eq!(rig.on(Input::Act(ContainerVerb::Pause)), [not("pause")]);
        assert_eq!(rig.on(Input::Act(ContainerVerb::Stop)), [not("stop")]);
        let mut rig = Rig::ready(needed(), false);
        let connect = rig.on(Input::Act(ContainerVerb::Connect));
        assert_eq!(connect, ["Apply(Connect)"]);
        let applied = Input::Applied(Ok(Some(Addresses::default())));
        let applied = rig.on(applied);
        assert_eq!(applied.last().map(String::as_str), Some("Reply"));
    }

    #[test]
    fn a_service_turns_unhealthy_only_if_it_was_ready_and_is_not_held() {
        let unhealthy = || Input::Unhealthy {
            start: 1,
            probe: ": its last probe: exit code 1".to_owned(),
        };
        let down = "Down failed: service db turned unhealthy: its last probe: exit code 1";
        let mut rig = Rig::started(needed(), true);
        assert_eq!(rig.on(unhealthy()), Vec::<String>::new());
        let ready = rig.on(probed(1, Ok(())));
        assert_eq!(ready[2], "WatchHealth { start: 1 }");
        rig.on(Input::Act(ContainerVerb::Pause));
        rig.on(Input::Applied(Ok(None)));
        assert_eq!(rig.on(unhealthy()), Vec::<String>::new());
        rig.on(Input::Act(ContainerVerb::Unpause));
        rig.on(Input::Applied(Ok(None)));
        assert_eq!(rig.on(unhealthy()), [down]);

        let predicate = Role {
            predicate: true,
            ..needed()
        };
        let ready = Rig::started(predicate, true).on(probed(1, Ok(())));
        assert_eq!(ready, ["Ready", "Emit Ready"]);
    }

    /// A service of a policy, started up to where its readiness is probed.
    fn restarting(role: Role, restart: Restart) -> Rig {
        let mut rig = Rig::new(role);
        rig.on(Input::Start);
        rig.on(Rig::defined(restart));
        rig.on(Input::Created(Ok(false)));
        rig.on(Input::Launched(Ok(Addresses::default())));
        rig
    }

    fn exits(start: u32, code: i64) -> Input {
        let end = end(code, start);
        Input::Exited { start, end }
    }

    fn pauses(again: bool, start: u32) -> String {
        format!("Pause {{ start: {start}, pause: 100ms, again: {again} }}")
    }

    #[test]
    fn an_exit_before_it_is_ready_is_restarted_and_the_time_limit_goes_on() {
        let mut rig = restarting(needed(), Restart::Always);
        let exited = rig.on(exits(1, 3));
        assert_eq!(
            exited[..3],
            ["Unwatch", "Exited Some(Starting)", "Emit Exited"]
        );
        assert!(exited[3].starts_with("EmitRestart"), "{exited:?}");
        assert_eq!(exited[4..], [pauses(true, 1)]);
        let again = rig.on(Input::Again { start: 1 });
        assert_eq!(again, ["Unwatch", "Launch without hooks"]);
        let launched = rig.on(Input::Launched(Ok(Addresses::default())));
        let watch = "Watch { start: 2, again: true }";
        assert_eq!(launched, ["Started 2", "Emit Started", watch]);
        assert_eq!(rig.on(probed(2, Ok(()))), ["Ready", "Emit Ready"]);

        // After it was ready, the limit begins anew.
        let exited = rig.on(exits(2, 1));
        let pause = "Pause { start: 2, pause: 200ms, again: false }";
        assert_eq!(exited.last().map(String::as_str), Some(pause));
        rig.on(Input::Again { start: 2 });
        let launched = rig.on(Input::Launched(Ok(Addresses::default())));
        assert_eq!(launched[2], "Watch { start: 3, again: false }");
    }

    #[test]
    fn the_time_limit_may_end_in_a_pause_and_says_how_often_it_was_restarted() {
        let mut rig = restarting(needed(), Restart::OnFailure);
        rig.on(exits(1, 3));
        let not_ready = NotReady {
            outcome: Outcome::Failed,
            reason: "not within 1s".to_owned(),
        };
        let down = rig.on(probed(1, Err(not_ready)));
        let reason = "Down failed: service db isn't ready: not within 1s; it was restarted once (last exit before: code 3)";
        assert_eq!(down, [reason]);
        let late = rig.on(Input::Again { start: 1 });
        assert_eq!(late, Vec::<String>::new(), "it isn't started again");
    }

    #[test]
    fn what_a_step_or_the_engine_ends_isnt_restarted() {
        let mut rig = restarting(needed(), Restart::Always);
        rig.on(Input::Act(ContainerVerb::Kill));
        rig.on(Input::Applied(Ok(None)));
        let ended = rig.on(Input::Ended(Some(end(137, 1))));
        assert_eq!(ended[1..3], ["Exited Some(Stopped)", "Emit Stopped"]);

        let mut rig = restarting(needed(), Restart::Always);
        let end = End {
            machinery: Some("the engine went away".to_owned()),
            ..end(0, 1)
        };
        let down = rig.on(Input::Exited { start: 1, end });
        let reason = "Down errored: the engine went away";
        assert_eq!(down.last().map(String::as_str), Some(reason));

        let mut rig = Rig::new(Role::default());
        rig.on(Input::Act(ContainerVerb::Run));
        rig.on(Rig::defined(Restart::Always));
        rig.on(Input::Met(Ok(())));
        rig.on(Input::Created(Ok(false)));
        rig.on(Input::Launched(Ok(Addresses::default())));
        let ended = rig.on(exits(1, 1));
        assert_eq!(ended[1], "Exited None", "a step runs it to its end");
    }

    #[test]
    fn a_step_ends_the_pause_before_a_restart() {
        let mut rig = restarting(needed(), Restart::Always);
        rig.on(exits(1, 3));
        let stopped = rig.on(Input::Act(ContainerVerb::Stop));
        assert_eq!(stopped, ["Unwatch", "Stopped", "Reply"]);
        assert_eq!(rig.on(Input::Again { start: 1 }), Vec::<String>::new());

        let mut rig = restarting(needed(), Restart::Always);
        rig.on(exits(1, 3));
        let restart = rig.on(Input::Act(ContainerVerb::Restart));
        assert_eq!(restart, ["Unwatch", "Stopped", "Define"]);
        rig.on(Rig::defined(Restart::Always));
        rig.on(Input::Met(Ok(())));
        let launched = rig.on(Input::Launched(Ok(Addresses::default())));
        assert_eq!(launched[0], "Started 2");
        let watch = "Watch { start: 2, again: false }";
        assert_eq!(launched[2], watch);
    }

    #[test]
    fn a_service_that_isnt_ready_goes_down_with_the_reason() {
        let mut rig = Rig::started(needed(), false);
        let not_ready = NotReady {
            outcome: Outcome::Failed,
            reason: "not within 1s".to_owned(),
        };
        let down = rig.on(probed(1, Err(not_ready)));
        let reason = "Down failed: service db isn't ready: not within 1s";
        assert_eq!(down, [reason]);
    }
}
