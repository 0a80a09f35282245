//! Forwards a container's output, from its first byte to its exit.
//!
//! The attached stream has the least delay, but its end proves nothing: a broken connection looks the same. So once the
//! container has exited, the forwarded output is compared with the engine's log file, and the exit is published after
//! that. The file is sent with an explicit end, so an incomplete answer is recognised and requested again. Output that
//! was already forwarded is skipped (see `position`), so nothing is lost or repeated.

use super::carried::index;
use super::error::{said, status};
use super::member::{Container, End, Seen};
use super::position::{Last, Position};
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::query_parameters::{AttachContainerOptionsBuilder, LogsOptionsBuilder};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use phalanx_shared::event::LogStream;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long an exited container's stream may stay open without a byte before the log file is read instead.
const STALLED: Duration = Duration::from_secs(5);
/// How long the engine may take for the next piece of the log file.
const STALLED_FILE: Duration = Duration::from_secs(60);
/// How many times in a row the log file is requested without progress.
const TRIES: u32 = 20;
/// Longer outputs are not read again without a sign of a break; their last lines are compared.
const SMALL: u64 = 4 << 20;
/// Number of last lines that are compared.
const LINES: &str = "50";

/// Delay before a container is inspected again if the engine could not report its state.
const UNSURE: Duration = Duration::from_secs(1);
/// Delay before a container is inspected without any event: an engine drops events if the listener is too slow, as on
/// an overloaded machine. Shorter while a caller may wait for the first health verdict.
const QUIET: Duration = Duration::from_secs(30);
const QUIET_UNJUDGED: Duration = Duration::from_secs(5);

/// Origin of a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    /// Attached to the container.
    Attached,
    /// The engine's log file, followed as it grows.
    Growing,
    /// The engine's log file as it is.
    File,
}

type Frames = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;

/// A stream of frames, and how much of it was already forwarded.
pub(super) struct Source {
    from: From,
    frames: Frames,
    skip: [Position; 2],
    /// Count of breaks when the stream began.
    signs: u64,
}

/// How a stream ended.
enum Ending {
    /// Everything was forwarded, if the stream can be trusted.
    Whole,
    /// The stream broke off.
    Torn,
    /// The engine has no output to give (it keeps no log, or the container doesn't exist).
    Refused(String),
}

impl Source {
    /// Attaches to a container that is about to start.
    pub async fn attach(container: &Container) -> Result<Source, Error> {
        let engine = &container.shared.engine;
        let options = AttachContainerOptionsBuilder::default()
            .stream(true)
            .stdout(true)
            .stderr(true)
            .build();
        let signs = container.shared.signs_of_breaks();
        let attached = engine
            .ask(|| {
                engine
                    .docker
                    .attach_container(&container.id, Some(options.clone()))
            })
            .await?;
        Ok(Source {
            from: From::Attached,
            frames: attached.output,
            skip: [Position::default(); 2],
            signs,
        })
    }

    /// Reads the engine's log file from the start.
    fn file(container: &Container, from: From) -> Source {
        let options = LogsOptionsBuilder::default()
            .follow(from == From::Growing)
            .stdout(true)
            .stderr(true)
            .build();
        let docker = &container.shared.engine.docker;
        Source {
            from,
            skip: container.carried.positions(),
            signs: container.shared.signs_of_breaks(),
            frames: Box::pin(docker.logs(&container.id, Some(options))),
        }
    }

    /// Forwards everything until the stream ends.
    async fn hand_over(mut self, container: &Container) -> Ending {
        let carried = &container.carried;
        loop {
            let (stream, bytes) = match next(&mut self.frames, container).await {
                Ok(frame) => frame,
                Err(ending) => return ending,
            };
            carried.received();
            let known = self.skip[index(stream)].known(&bytes);
            let fresh = bytes.slice(known..);
            if fresh.is_empty() {
                continue;
            }
            carried.pass(stream, &fresh);
            carried.set_waiting(true);
            container.logs.write(stream, fresh.to_vec()).await;
            carried.set_waiting(false);
        }
    }
}

/// Returns the next frame of a stream, or how the stream ended.
async fn next(frames: &mut Frames, container: &Container) -> Result<(LogStream, Bytes), Ending> {
    loop {
        return match frames.next().await {
            Some(Ok(LogOutput::StdOut { message })) => Ok((LogStream::Stdout, message)),
            Some(Ok(LogOutput::StdErr { message })) => Ok((LogStream::Stderr, message)),
            Some(Ok(LogOutput::StdIn { .. })) => continue,
            // Without a terminal every frame names its stream; a frame without one comes from a broken connection.
            // The output of a terminal has no frames, and only one stream.
            Some(Ok(LogOutput::Console { message })) if container.config.engine.tty => {
                Ok((LogStream::Stdout, message))
            }
            Some(Ok(LogOutput::Console { .. })) => Err(Ending::Torn),
            Some(Err(error)) => {
                tracing::debug!(service = %container.config.name, error = %said(&error), "output broke off");
                Err(match status(&error) {
                    None | Some(502..=504) => Ending::Torn,
                    Some(_) => Ending::Refused(said(&error)),
                })
            }
            None => Err(Ending::Whole),
        };
    }
}

/// Forwards the output of one start and publishes its exit afterwards.
pub(super) async fn follow(
    container: Arc<Container>,
    source: Source,
    looks: watch::Receiver<u64>,
    start: u32,
) {
    let exit = watch::Sender::new(None);
    // Both run concurrently all the time; they take turns in inspecting the container.
    let waiting = async {
        let end = ended(&container, looks).await;
        exit.send_replace(Some(end));
        std::future::pending::<End>().await
    };
    let end = tokio::select! {
        end = carry(&container, source, &exit) => end,
        end = waiting => end,
    };
    container.exited(start, end);
}

/// Forwards all output and returns how the container exited.
async fn carry(container: &Container, source: Source, exit: &watch::Sender<Option<End>>) -> End {
    let (mut from, signs) = (source.from, source.signs);
    let mut ending = hand_over(container, source, exit).await;
    let mut fruitless = 0;
    loop {
        let end = match container.look().await {
            Ok(Seen::Ended(end)) => end,
            Ok(Seen::Running) => {
                if from == From::Growing {
                    // A short pause, in case the engine ends the stream of the file early.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                // Either the container closed its outputs or the stream broke. The file tells which, and its stream
                // stays open until the exit.
                from = match ending {
                    Ending::Refused(_) => return until(exit).await,
                    Ending::Whole | Ending::Torn => From::Growing,
                };
                let source = Source::file(container, from);
                ending = hand_over(container, source, exit).await;
                continue;
            }
            Ok(Seen::Gone) => return exit.borrow().unwrap_or(removed(137)),
            Err(error) => {
                tracing::warn!(service = %container.config.name, error = %said(&error), "its state is unknown");
                tokio::time::sleep(UNSURE).await;
                continue;
            }
        };
        exit.send_replace(Some(end));
        let attached_whole = from == From::Attached && matches!(ending, Ending::Whole);
        if attached_whole && container.ends_like_its_file(signs).await {
            return end;
        }
        from = From::File;
        let before = container.carried.total();
        ending = hand_over(container, Source::file(container, from), exit).await;
        match &ending {
            Ending::Whole => return end,
            Ending::Torn if fruitless < TRIES => {}
            Ending::Torn => {
                container.log_is_short("the connection to the engine breaks again and again");
                return end;
            }
            Ending::Refused(why) => {
                if !attached_whole {
                    container.log_is_short(why);
                }
                return end;
            }
        }
        fruitless = if container.carried.total() > before {
            0
        } else {
            fruitless + 1
        };
        tokio::time::sleep(Duration::from_millis(50) * fruitless).await;
    }
}

async fn until(exit: &watch::Sender<Option<End>>) -> End {
    let mut exit = exit.subscribe();
    let seen = exit.wait_for(Option::is_some).await;
    // The sender is borrowed, so it can't be gone.
    seen.ok().and_then(|end| *end).unwrap_or(removed(-1))
}

/// Forwards a stream until it ends, or until it stalls after the exit.
async fn hand_over(
    container: &Container,
    source: Source,
    exit: &watch::Sender<Option<End>>,
) -> Ending {
    let patience = match source.from {
        From::File => STALLED_FILE,
        From::Attached | From::Growing => STALLED,
    };
    let carried = &container.carried;
    let handing = source.hand_over(container);
    tokio::pin!(handing);
    tokio::select! {
        biased;
        ending = &mut handing => return ending,
        _ = until(exit) => {}
    }
    loop {
        let before = carried.frames();
        if let Ok(ending) = tokio::time::timeout(patience, &mut handing).await {
            return ending;
        }
        if !carried.is_waiting() && carried.frames() == before {
            return Ending::Torn;
        }
    }
}

impl Container {
    /// Returns whether the file of a long output ends like the forwarded output, with no sign of a break since `signs`.
    /// A short output is read whole instead, which costs no more.
    async fn ends_like_its_file(&self, signs: u64) -> bool {
        if self.carried.total() <= SMALL || self.shared.signs_of_breaks() != signs {
            return false;
        }
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .tail(LINES)
            .build();
        let docker = &self.shared.engine.docker;
        let mut frames: Frames = Box::pin(docker.logs(&self.id, Some(options)));
        let mut lasts = [Last::default(), Last::default()];
        let reading = async {
            loop {
                match next(&mut frames, self).await {
                    Ok((stream, bytes)) => lasts[index(stream)].push(&bytes),
                    Err(ending) => return ending,
                }
            }
        };
        match tokio::time::timeout(STALLED_FILE, reading).await {
            Ok(Ending::Whole) => self.carried.ends_like(&lasts),
            Ok(Ending::Torn) | Err(_) => false,
            Ok(Ending::Refused(_)) => true,
        }
    }

    fn log_is_short(&self, why: &str) {
        tracing::warn!(service = %self.config.name, %why, "the end of its output may be missing");
    }
}

/// Waits until the container has exited. Inspects it whenever an engine event suggests it.
async fn ended(container: &Container, mut looks: watch::Receiver<u64>) -> End {
    let mut sure = true;
    loop {
        let unjudged =
            container.health_allows.is_some() && container.signals.health.borrow().is_none();
        let patience = match (sure, unjudged) {
            (false, _) => UNSURE,
            (true, true) => QUIET_UNJUDGED,
            (true, false) => QUIET,
        };
        if let Ok(Err(_)) = tokio::time::timeout(patience, looks.changed()).await {
            // The sender lives in the container, so this can't happen while the container is borrowed.
            return removed(-1);
        }
        sure = true;
        match container.look().await {
            Ok(Seen::Running) => {}
            Ok(Seen::Ended(end)) if container.may_be_out_of_memory(&end) => {
                // The engine learns of running out of memory from another source than of the exit, and perhaps later.
                let _ = tokio::time::timeout(UNSURE, looks.changed()).await;
                return match container.look().await {
                    Ok(Seen::Ended(again)) => again,
                    _ => end,
                };
            }
            Ok(Seen::Ended(end)) => return end,
            // Removed by someone else: treated as killed.
            Ok(Seen::Gone) => return removed(137),
            Err(error) => {
                tracing::warn!(service = %container.config.name, error = %said(&error), "its state is unknown");
                sure = false;
            }
        }
    }
}

fn removed(code: i64) -> End {
    End {
        code,
        oom: false,
        at: None,
    }
}
