//! Performs the effects of the sequence's core: evaluates expressions, runs steps and timers as tasks, and emits
//! events.

use super::core::Sequence;
use super::describe::Described;
use super::effect::{Effect, Input, Judgement, Limits, NodeId, Now, Timer};
use super::skip::expand;
use crate::context::CellContext;
use crate::context::services::{Recalled, Unavailable};
use crate::sink::{EventSink, Mask};
use crate::step::contract::End;
use crate::step::open::Surroundings;
use crate::step::{Try, Witness, conclude_group};
use futures::FutureExt;
use kameo::Actor;
use kameo::actor::{ActorRef, WeakActorRef};
use kameo::error::{ActorStopReason, Infallible};
use kameo::message::{Context, Message};
use phalanx_shared::diagnostic::Span;
use phalanx_shared::event::{EventKind, StepPath, StepResult};
use phalanx_shared::outcome::Outcome;
use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};

/// Arguments of a sequence's actor.
pub struct SequenceArgs {
    /// The context of the attempt.
    pub context: Arc<CellContext>,
    /// Receives events.
    pub events: EventSink,
    /// The limits of the cell.
    pub limits: Limits,
    /// Receives the verdict.
    pub verdict: oneshot::Sender<Judgement>,
}

/// The actor that owns the running steps; they are dropped when it stops.
pub struct SequenceActor {
    core: Sequence,
    context: Arc<CellContext>,
    events: EventSink,
    verdict: Option<oneshot::Sender<Judgement>>,
    tasks: JoinSet<()>,
    steps: HashMap<NodeId, Running>,
    /// Steps that were ended from outside and whose end hasn't been emitted yet, with what they had observed.
    cut_short: HashMap<StepPath, Witness>,
    timers: HashMap<Timer, AbortHandle>,
    /// The group whose steps' results are collected for its snapshot, and the results.
    collected: Option<(StepPath, Vec<StepResult>)>,
    /// How often each path has begun, which is part of its span's id. Empty without a trace.
    begun: HashMap<StepPath, u32>,
}

/// A running step.
struct Running {
    task: AbortHandle,
    heard: Option<(StepPath, Witness)>,
}

impl Actor for SequenceActor {
    type Args = SequenceArgs;
    type Error = Infallible;

    async fn on_start(args: SequenceArgs, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(SequenceActor {
            core: Sequence::new(Arc::clone(&args.context.spec), args.limits),
            context: args.context,
            events: args.events,
            verdict: Some(args.verdict),
            tasks: JoinSet::new(),
            steps: HashMap::new(),
            cut_short: HashMap::new(),
            timers: HashMap::new(),
            collected: None,
            begun: HashMap::new(),
        })
    }

    async fn on_stop(
        &mut self,
        _: WeakActorRef<Self>,
        _: ActorStopReason,
    ) -> Result<(), Infallible> {
        self.tasks.abort_all();
        Ok(())
    }
}

/// One input for the core.
pub struct Fact(pub Input);

impl Message<Fact> for SequenceActor {
    type Reply = ();

    async fn handle(&mut self, Fact(input): Fact, ctx: &mut Context<Self, Self::Reply>) {
        let me = ctx.actor_ref().clone();
        while self.tasks.try_join_next().is_some() {}
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now = Now {
                wall: self.context.clock.wall(),
                mono: self.context.clock.monotonic(),
            };
            for effect in self.core.handle(input, now) {
                // Results that need no waiting are handled at once, without a detour through the mailbox.
                inputs.extend(self.perform(effect, &me).await);
            }
        }
        if self.core.is_finished() {
            ctx.stop();
        }
    }
}

impl SequenceActor {
    async fn perform(&mut self, effect: Effect, me: &ActorRef<Self>) -> Option<Input> {
        match effect {
            Effect::Emit(kind) => {
                if let (EventKind::StepStarted { path, .. }, Some(_)) = (&kind, &self.context.trace)
                {
                    *self.begun.entry(path.clone()).or_default() += 1;
                }
                if let EventKind::StepFinished(result) = &kind {
                    self.collect(result);
                }
                self.events.emit(kind).await;
            }
            Effect::Ended { mut result, span } => {
                self.add_evidence(&mut result, span);
                self.collect(&result);
                self.events.emit(EventKind::StepFinished(result)).await;
            }
            Effect::Skip(skipped) => {
                let described = Described(&self.context);
                let now = self.context.clock.wall();
                let skipped = expand(&skipped, &self.context.spec, &described, now);
                for result in skipped {
                    self.collect(&result);
                    self.events
                        .emit(EventKind::StepFinished(Box::new(result)))
                        .await;
                }
            }
            Effect::Ask { node, item, view } => {
                let context = Arc::clone(&self.context);
                return self.evaluate(me, async move {
                    let result = Surroundings::new(&context, &view).ask(&item).await;
                    Input::Asked { node, result }
                });
            }
            Effect::List { node, step, view } => {
                let context = Arc::clone(&self.context);
                return self.evaluate(me, async move {
                    let result = Surroundings::new(&context, &view).list(&step).await;
                    Input::Listed { node, result }
                });
            }
            Effect::Open { node, item, view } => {
                let context = Arc::clone(&self.context);
                return self.evaluate(me, async move {
                    let result = Surroundings::new(&context, &view).open(&item).await;
                    Input::Opened { node, result }
                });
            }
            Effect::Act {
                node,
                step,
                path,
                view,
            } => {
                let traceparent = self.traceparent(&path);
                let acting = me.clone();
                let begun = async move {
                    let _ = acting.tell(Fact(Input::Acting)).await;
                };
                let this = Try::new(
                    Arc::clone(&self.context),
                    step,
                    path.clone(),
                    view,
                    traceparent,
                );
                let heard = Some((path, this.witness()));
                let judging = me.clone();
                let judged = async move |end| {
                    let end = Box::new(end);
                    let _ = judging.tell(Fact(Input::Judged { node, end })).await;
                };
                self.run(node, me, heard, this.run(begun, judged));
            }
            Effect::Conclude {
                node,
                step,
                view,
                inner,
            } => {
                let context = Arc::clone(&self.context);
                self.run(node, me, None, async move {
                    conclude_group(&context, &step, &view, &inner).await
                });
            }
            Effect::Recall { node, path } => {
                self.collected = Some((path, Vec::new()));
                let context = Arc::clone(&self.context);
                self.work(node, me, async move {
                    let result = recalled(&context).await;
                    Input::Recalled { node, result }
                });
            }
            Effect::Remember {
                node,
                path,
                around,
                mut made,
            } => {
                made.group.steps = self.take_collected(&path, &around);
                let context = Arc::clone(&self.context);
                self.work(node, me, async move {
                    let result = context.services.remember(*made).await;
                    Input::Remembered { node, result }
                });
            }
            Effect::Forget { reason } => {
                self.collected = None;
                let context = Arc::clone(&self.context);
                context.services.forget(reason).await;
            }
            Effect::Stop { node } => {
                if let Some(step) = self.steps.remove(&node) {
                    step.task.abort();
                    if let Some((path, witness)) = &step.heard {
                        witness.owe_artifacts(path);
                    }
                    let unjudged = step.heard.filter(|(_, witness)| !witness.is_judged());
                    self.cut_short.extend(unjudged);
                }
            }
            Effect::Arm { timer, after } => {
                let me = me.clone();
                let fires = self.tasks.spawn(async move {
                    tokio::time::sleep(after).await;
                    let _ = me.tell(Fact(Input::Fired(timer))).await;
                });
                if let Some(before) = self.timers.insert(timer, fires) {
                    before.abort();
                }
            }
            Effect::Disarm(timer) => {
                if let Some(fires) = self.timers.remove(&timer) {
                    fires.abort();
                }
            }
            Effect::Finish(judgement) => {
                if let Some(verdict) = self.verdict.take() {
                    let _ = verdict.send(judgement);
                }
            }
        }
        None
    }

    /// Keeps the result of a step inside a group with a snapshot, masked.
    fn collect(&mut self, result: &StepResult) {
        let Some((path, collected)) = &mut self.collected else {
            return;
        };
        let below = result
            .path
            .strip_prefix(path.as_str())
            .and_then(|rest| rest.strip_prefix('/'));
        if let Some(below) = below {
            let result = StepResult {
                path: below.to_owned(),
                ..result.clone()
            };
            let kind = EventKind::StepFinished(Box::new(result));
            if let EventKind::StepFinished(masked) = self.context.masks.event(kind) {
                collected.push(*masked);
            }
        }
    }

    /// Returns the collected results of a group, without the rows that groups around it name.
    fn take_collected(&mut self, path: &str, around: &[String]) -> Vec<StepResult> {
        let Some((_, mut results)) = self.collected.take().filter(|(of, _)| of == path) else {
            return Vec::new();
        };
        for result in &mut results {
            result.verifies.retain(|row| !around.contains(row));
        }
        results
    }

    /// Runs work on a node in a task that can be stopped.
    fn work(
        &mut self,
        node: NodeId,
        me: &ActorRef<Self>,
        work: impl Future<Output = Input> + Send + 'static,
    ) {
        let me = me.clone();
        let task = self.tasks.spawn(async move {
            let _ = me.tell(Fact(work.await)).await;
        });
        self.steps.insert(node, Running { task, heard: None });
    }

    /// Adds to a result the position of the step and, if it was ended from outside (by a timeout, a cancel order or a
    /// service that went down) and so couldn't report it itself, the output of its command.
    fn add_evidence(&mut self, result: &mut StepResult, span: Span) {
        let witness = self.cut_short.remove(&result.path);
        if !result.outcome.is_ok() {
            let failure = result.failure.get_or_insert_default();
            if failure.place.is_none() {
                failure.place = self.context.place(span);
            }
            if let Some(witness) = witness {
                witness.show(failure);
            }
        }
    }

    /// Returns the trace context of a step that has begun; the parent is the step's own span.
    fn traceparent(&self, path: &str) -> Option<String> {
        let trace = self.context.trace.as_ref()?;
        let n = self.begun.get(path).copied().unwrap_or(1);
        Some(trace.parent(trace.step(path, n)))
    }

    /// Evaluates immediately if that needs no waiting, else in a task.
    fn evaluate(
        &mut self,
        me: &ActorRef<Self>,
        work: impl Future<Output = Input> + Send + 'static,
    ) -> Option<Input> {
        let mut work = Box::pin(work);
        if let Some(input) = work.as_mut().now_or_never() {
            return Some(input);
        }
        let me = me.clone();
        self.tasks.spawn(async move {
            let _ = me.tell(Fact(work.await)).await;
        });
        None
    }

    /// Runs a step in a task. A panic in it is a bug in Phalanx: the step is errored with the panic's message.
    fn run(
        &mut self,
        node: NodeId,
        me: &ActorRef<Self>,
        heard: Option<(StepPath, Witness)>,
        work: impl Future<Output = End> + Send + 'static,
    ) {
        let me = me.clone();
        let task = self.tasks.spawn(async move {
            let end = match AssertUnwindSafe(work).catch_unwind().await {
                Ok(end) => end,
                Err(panic) => {
                    let text = panic_text(&*panic);
                    End::bare(Outcome::Errored, Some(format!("a bug of phalanx: {text}")))
                }
            };
            let end = Box::new(end);
            let _ = me.tell(Fact(Input::Ended { node, end })).await;
        });
        self.steps.insert(node, Running { task, heard });
    }
}

/// Asks for what an earlier cell has made of a group, and masks its secrets before anything of it is emitted.
async fn recalled(context: &CellContext) -> Result<Option<Box<Recalled>>, Unavailable> {
    let recalled = context.services.recall().await?;
    let secrets = recalled.iter().flat_map(|recalled| &recalled.group.masked);
    for secret in secrets {
        context.masks.add(secret).map_err(|why| {
            Unavailable::Unknown(format!("a secret capture of the snapshot: {why}"))
        })?;
    }
    Ok(recalled)
}

/// Returns the message of a panic.
fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}
