//! Follows a run to its end: receives events, shows them, and cancels on Ctrl-C.
//!
//! One `select!` produces an [`Input`], and one synchronous [`Follower::handle`] decides on it; its effects are carried
//! out outside. A broken event stream is resumed at the same position ([`stream`]).

mod logs;
mod stream;
mod tail;

use super::display::Display;
use super::error::CliError;
use super::interrupt::{Interrupts, Stop};
use super::say::Voice;
use super::tui::{Asked, Key};
use crate::credential::Client;
use futures::future::BoxFuture;
use phalanx_proto::v1;
use phalanx_report::history::History;
use phalanx_report::history::expected::Forecast;
use phalanx_report::style::Tone;
use phalanx_report::text::{Line, plural};
use phalanx_shared::event::Recorded;
use phalanx_shared::id::RunId;
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;

pub use logs::{fetch_logs, fetch_logs_of, records};
pub use stream::watch;

use tail::Tail;

/// Time from the beginning of a run to the first question why cells wait. Most cells don't wait that long.
const FIRST_QUESTION: Duration = Duration::from_secs(1);
/// Time between two of these questions.
const QUESTIONS: Duration = Duration::from_secs(2);

/// What Ctrl-C does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnInterrupt {
    /// Cancels the run, because this command started it.
    Cancel,
    /// Stops watching. The run continues.
    Leave,
}

/// An input of [`Follower::handle`].
#[derive(Debug)]
pub enum Input {
    /// An event of the run.
    Event(Box<Recorded>),
    /// The stream broke and is being resumed.
    Broken(String),
    /// The stream ended; no more input follows. Contains the error, if that is why.
    Ended(Option<CliError>),
    /// A signal to stop.
    Interrupt(Stop),
}

/// What the caller has to do.
#[derive(Debug)]
pub enum Effect {
    /// Cancel the run; `force` skips its `always` steps.
    Cancel { by: Stop, force: bool },
    /// Print this line.
    Say(Line),
    /// Stop following.
    Leave(Left),
}

/// How following ended.
#[derive(Debug)]
pub enum Left {
    /// The run has finished and cleaned up.
    Settled,
    /// Ctrl-C ended it; the run continues or is left as it is.
    Interrupted,
    /// The coordinator can't be reached any more.
    Lost(CliError),
}

/// Decides what to do about each input.
#[derive(Debug)]
pub struct Follower {
    /// The run so far.
    pub state: RunState,
    interrupts: u32,
    on_interrupt: OnInterrupt,
}

impl Follower {
    /// Starts without any knowledge of the run.
    pub fn new(run: RunId, on_interrupt: OnInterrupt) -> Follower {
        Follower {
            state: RunState::new(run),
            interrupts: 0,
            on_interrupt,
        }
    }

    /// Whether Ctrl-C was pressed.
    pub fn is_interrupted(&self) -> bool {
        self.interrupts > 0
    }

    /// Handles one input.
    pub fn handle(&mut self, input: &Input) -> Vec<Effect> {
        match input {
            Input::Event(recorded) => {
                self.state.apply(&recorded.event);
                let over = self.state.is_settled();
                over.then_some(Effect::Leave(Left::Settled))
                    .into_iter()
                    .collect()
            }
            Input::Broken(reason) => {
                let text = format!("the coordinator doesn't answer, asking again: {reason}");
                vec![Effect::Say(Line::new(Tone::Warn, text))]
            }
            Input::Ended(None) => vec![Effect::Leave(Left::Settled)],
            Input::Ended(Some(error)) => vec![Effect::Leave(Left::Lost(error.clone()))],
            Input::Interrupt(by) => self.interrupt(*by),
        }
    }

    fn interrupt(&mut self, by: Stop) -> Vec<Effect> {
        self.interrupts += 1;
        if self.on_interrupt == OnInterrupt::Leave {
            let text = format!("the run goes on: phalanx watch {}", self.state.run);
            let say = Effect::Say(Line::new(Tone::Warn, text));
            return vec![say, Effect::Leave(Left::Interrupted)];
        }
        let say = |text: String| Effect::Say(Line::new(Tone::Warn, text));
        let again = by.again();
        match self.interrupts {
            1 => vec![
                say(format!(
                    "cancelling ({}): `always` steps and clean-up still run ({again} cleans up without waiting for steps)",
                    by.name()
                )),
                Effect::Cancel { by, force: false },
            ],
            2 => vec![
                say(format!(
                    "cleaning up without waiting for steps ({again} leaves at once)"
                )),
                Effect::Cancel { by, force: true },
            ],
            _ => vec![
                Effect::Say(self.what_may_be_left()),
                Effect::Leave(Left::Interrupted),
            ],
        }
    }

    fn what_may_be_left(&self) -> Line {
        let held = self
            .state
            .cells
            .values()
            .filter(|cell| cell.holds_agent())
            .count();
        let text = match held {
            0 => "left at once; no cell had anything left to clean up".to_owned(),
            held => format!(
                "left at once: containers and processes of {} may be left; the next start on this machine removes them, `phalanx gc` too",
                plural(held, "cell")
            ),
        };
        Line::new(Tone::Bad, text)
    }
}

/// What is known of a run when following ended.
#[derive(Debug)]
pub struct Followed {
    /// State of the run.
    pub state: RunState,
    /// Why following ended.
    pub left: Left,
    /// Whether Ctrl-C was pressed.
    pub interrupted: bool,
    /// Earlier runs of the spec, if they were read in time.
    pub history: Option<History>,
}

/// Reason of a cancellation by the full-screen view.
const FROM_SCREEN: &str = "cancelled on the screen";

/// How a run is shown while it is followed.
#[derive(Debug)]
pub struct Shown {
    display: Display,
    keys: Option<mpsc::UnboundedReceiver<Key>>,
}

impl Shown {
    /// Prepares the terminal. `full` asks for the full-screen view.
    ///
    /// # Errors
    /// Returns an error if the full-screen view isn't possible here.
    pub fn new(voice: Voice, full: bool) -> Result<Shown, CliError> {
        if !full {
            return Ok(Shown {
                display: Display::new(voice),
                keys: None,
            });
        }
        let (display, keys) = Display::full(voice)?;
        Ok(Shown {
            display,
            keys: Some(keys),
        })
    }
}

/// Returns the next key; waits forever if there are none.
async fn pressed(keys: &mut Option<mpsc::UnboundedReceiver<Key>>) -> Key {
    let key = match keys {
        Some(keys) => keys.recv().await,
        None => None,
    };
    match key {
        Some(key) => key,
        None => std::future::pending().await,
    }
}

/// Follows a run from its beginning. `earlier` reads earlier runs of the spec, for the expected finish; it runs in a task
/// of its own.
pub async fn follow(
    client: Client,
    run: RunId,
    on_interrupt: OnInterrupt,
    interrupts: &mut Interrupts,
    shown: Shown,
    earlier: BoxFuture<'static, Option<History>>,
) -> Followed {
    let Shown {
        mut display,
        mut keys,
    } = shown;
    let mut tail = None;
    let mut reading = AbortOnDropHandle::new(tokio::spawn(earlier));
    let mut read = None;
    let mut follower = Follower::new(run.clone(), on_interrupt);
    let mut inputs = watch(client.clone(), run.clone(), 1, true);
    let mut frames = tokio::time::interval(display.pace());
    frames.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut questions = Questions::begin(client.clone(), run.clone());
    let left = 'run: loop {
        let input = tokio::select! {
            biased;
            by = interrupts.next() => Input::Interrupt(by),
            _ = frames.tick() => {
                display.tick(&follower.state, super::now());
                continue;
            }
            Some(answer) = questions.answers.recv() => {
                display.waits(&follower.state, &answer.groups);
                display.problems(answer.problems);
                continue;
            }
            key = pressed(&mut keys) => match display.key(key, &follower.state, super::now()) {
                Asked::Interrupt => Input::Interrupt(Stop::Interrupt),
                Asked::Cancel => {
                    cancel(client.clone(), &run, FROM_SCREEN, false);
                    continue;
                }
                Asked::Logs(cell) => {
                    tail = Some(Tail::begin(client.clone(), &run, &cell));
                    continue;
                }
                Asked::NoLogs => {
                    tail = None;
                    continue;
                }
                Asked::Nothing => continue,
            },
            lines = tail::next(&mut tail) => {
                display.log(lines);
                continue;
            }
            history = &mut reading, if read.is_none() => {
                let history = history.ok().flatten();
                if let Some(history) = &history {
                    display.forecast(Forecast::of(history, run.as_str()));
                }
                read = Some(history);
                continue;
            }
            input = inputs.recv() => input.unwrap_or(Input::Ended(None)),
        };
        let effects = follower.handle(&input);
        if let Input::Event(recorded) = &input {
            display.event(&follower.state, &recorded.event);
        }
        for effect in effects {
            match effect {
                Effect::Say(line) => display.say(line),
                Effect::Cancel { by, force } => cancel(client.clone(), &run, by.name(), force),
                Effect::Leave(left) => break 'run left,
            }
        }
    };
    questions.end();
    display.finish();
    Followed {
        interrupted: follower.is_interrupted(),
        state: follower.state,
        left,
        history: read.flatten(),
    }
}

/// Asks at intervals why cells wait and whether the coordinator is well. Runs in its own task, so that a slow answer
/// delays nothing.
struct Questions {
    answers: mpsc::Receiver<v1::WaitingResponse>,
    asking: JoinHandle<()>,
}

impl Questions {
    fn begin(mut client: Client, run: RunId) -> Questions {
        let (sender, answers) = mpsc::channel(1);
        let asking = tokio::spawn(async move {
            tokio::time::sleep(FIRST_QUESTION).await;
            let request = v1::WaitingRequest {
                run_id: run.to_string(),
            };
            loop {
                match client.waiting(request.clone()).await {
                    Ok(answer) => {
                        if sender.send(answer.into_inner()).await.is_err() {
                            return;
                        }
                    }
                    // An older coordinator doesn't know this call.
                    Err(status) if status.code() == Code::Unimplemented => return,
                    Err(_) => {}
                }
                tokio::time::sleep(QUESTIONS).await;
            }
        });
        Questions { answers, asking }
    }

    fn end(self) {
        self.asking.abort();
    }
}

/// Sends a cancel without waiting for its answer; events report the effect.
fn cancel(mut client: Client, run: &RunId, reason: &str, force: bool) {
    let request = v1::CancelRequest {
        run_id: run.to_string(),
        reason: reason.to_owned(),
        force,
    };
    tokio::spawn(async move {
        if let Err(status) = client.cancel(request).await {
            super::say::to_stderr(&format!("can't cancel: {}\n", status.message()));
        }
    });
}

/// Returns the current state of a run, without following it.
pub async fn fetch(client: Client, run: RunId) -> Result<(RunState, Timestamp), CliError> {
    let mut state = RunState::new(run.clone());
    let mut inputs = watch(client, run.clone(), 1, false);
    while let Some(input) = inputs.recv().await {
        match input {
            Input::Event(recorded) => state.apply(&recorded.event),
            Input::Ended(Some(error)) => return Err(error),
            Input::Ended(None) => break,
            Input::Broken(_) | Input::Interrupt(_) => {}
        }
    }
    if state.plan.is_none() {
        return Err(CliError::errored(format!(
            "the journal of run {run} has no beginning"
        )));
    }
    Ok((state, super::now()))
}

#[cfg(test)]
mod tests;
