//! A container's output, from its first byte to its exit.
//!
//! The attached stream carries bytes with the least delay. When it breaks in the middle, the engine's log file is
//! read from its beginning and what was handed over already is skipped by count: nothing is lost or told twice.
//! (The engine writes text there: of output that isn't UTF-8 the count may be off after a break.)

use super::error::said;
use super::member::{Container, End, Seen};
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::query_parameters::{AttachContainerOptionsBuilder, LogsOptionsBuilder};
use futures::{Stream, StreamExt};
use phalanx_shared::event::LogStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// How long an exited container's stream may stay open without a byte before it is given up.
const STALLED: Duration = Duration::from_secs(5);

/// Bytes handed over, and whether the receiver is being waited for.
#[derive(Default)]
pub(super) struct Carried {
    stdout: AtomicU64,
    stderr: AtomicU64,
    waiting: AtomicBool,
}

impl Carried {
    fn of(&self, stream: LogStream) -> &AtomicU64 {
        match stream {
            LogStream::Stdout => &self.stdout,
            LogStream::Stderr => &self.stderr,
        }
    }

    fn total(&self) -> u64 {
        self.stdout.load(Ordering::Acquire) + self.stderr.load(Ordering::Acquire)
    }
}

/// How soon a container is looked at again when the engine could not tell its state.
const UNSURE: Duration = Duration::from_secs(1);
/// How soon without any event: an engine drops events that a listener, on a machine with no time to spare, takes too
/// slowly. Sooner while somebody may be waiting for the verdict of a health check.
const QUIET: Duration = Duration::from_secs(30);
const QUIET_UNJUDGED: Duration = Duration::from_secs(5);

type Frames = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;

/// A stream of frames, and how many bytes of it were handed over before.
pub(super) struct Source {
    frames: Frames,
    skip: [u64; 2],
    breaks: u64,
}

impl Source {
    /// Attaches to a container that is about to start.
    pub async fn attach(container: &Container) -> Result<Source, Error> {
        let engine = &container.shared.engine;
        let breaks = container.shared.watch.breaks();
        let options = AttachContainerOptionsBuilder::default()
            .stream(true)
            .stdout(true)
            .stderr(true)
            .build();
        let attached = engine
            .ask(|| {
                engine
                    .docker
                    .attach_container(&container.id, Some(options.clone()))
            })
            .await?;
        Ok(Source {
            frames: attached.output,
            skip: [0, 0],
            breaks,
        })
    }

    /// Reads the engine's log file from the start, and on as it grows if `follow`.
    fn file(container: &Container, follow: bool) -> Source {
        let options = LogsOptionsBuilder::default()
            .follow(follow)
            .stdout(true)
            .stderr(true)
            .build();
        let carried = &container.carried;
        Source {
            breaks: container.shared.watch.breaks(),
            skip: [
                carried.stdout.load(Ordering::Acquire),
                carried.stderr.load(Ordering::Acquire),
            ],
            frames: Box::pin(
                container
                    .shared
                    .engine
                    .docker
                    .logs(&container.id, Some(options)),
            ),
        }
    }

    /// Hands everything over until the stream ends.
    async fn hand_over(mut self, container: &Container) -> Ending {
        let torn = Ending {
            torn: true,
            breaks: self.breaks,
        };
        while let Some(frame) = self.frames.next().await {
            let (stream, bytes) = match frame {
                Ok(LogOutput::StdOut { message }) => (LogStream::Stdout, message),
                Ok(LogOutput::StdErr { message }) => (LogStream::Stderr, message),
                Ok(LogOutput::StdIn { .. }) => continue,
                // Without a terminal every frame names its stream; one that doesn't was torn by a break.
                Ok(LogOutput::Console { .. }) => return torn,
                Err(error) => {
                    tracing::debug!(service = %container.config.name, error = %said(&error), "output broke off");
                    return torn;
                }
            };
            let [out, err] = &mut self.skip;
            let skip = match stream {
                LogStream::Stdout => out,
                LogStream::Stderr => err,
            };
            let known = usize::try_from(*skip)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            *skip -= known as u64;
            let fresh = bytes.slice(known..);
            if fresh.is_empty() {
                continue;
            }
            let carried = &container.carried;
            carried
                .of(stream)
                .fetch_add(fresh.len() as u64, Ordering::AcqRel);
            carried.waiting.store(true, Ordering::Release);
            container.logs.write(stream, fresh.to_vec()).await;
            carried.waiting.store(false, Ordering::Release);
        }
        Ending {
            torn: false,
            ..torn
        }
    }
}

/// How a stream ended.
struct Ending {
    /// In the middle of something.
    torn: bool,
    /// How often the engine's event stream had broken when this one began.
    breaks: u64,
}

impl Ending {
    /// Whether it ended for good, as far as one can tell: a cut connection looks like a clean end, but the event
    /// stream is cut with it. Asked after the engine has answered again, so that the watch knows of the break.
    fn whole(&self, container: &Container) -> bool {
        !self.torn && container.shared.watch.breaks() == self.breaks
    }
}

/// Carries one start's output and publishes its exit afterwards.
pub(super) async fn follow(
    container: Arc<Container>,
    source: Source,
    looks: watch::Receiver<u64>,
    start: u32,
) {
    let end = {
        let carrying = carry(&container, source);
        tokio::pin!(carrying);
        let ending = ended(&container, looks);
        tokio::pin!(ending);
        tokio::select! {
            biased;
            end = &mut carrying => match end {
                Some(end) => end,
                None => ending.await,
            },
            end = &mut ending => {
                // All output first; a stream that stays open without bytes has nothing more to say.
                loop {
                    let before = container.carried.total();
                    if tokio::time::timeout(STALLED, &mut carrying).await.is_ok() {
                        break;
                    }
                    let busy = container.carried.waiting.load(Ordering::Acquire);
                    if !busy && container.carried.total() == before {
                        break;
                    }
                }
                end
            }
        }
    };
    container.exited(start, end);
}

/// Carries all output; goes on from the engine's file after a break. The exit, if it was seen on the way.
async fn carry(container: &Container, source: Source) -> Option<End> {
    let mut ending = source.hand_over(container).await;
    loop {
        let seen = container.look().await;
        match seen {
            Ok(Seen::Running) => {
                // Its outputs are closed, or the stream broke; the file tells which, and stays open until the exit.
                ending = Source::file(container, true).hand_over(container).await;
                if ending.whole(container) {
                    // A short rest before looking again, in case the engine ends the file's stream early.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            Ok(Seen::Ended(end)) => {
                if !ending.whole(container) {
                    Source::file(container, false).hand_over(container).await;
                }
                return Some(end);
            }
            Ok(Seen::Gone) | Err(_) => return None,
        }
    }
}

/// Waits for the container's end, looking whenever the engine's events say so.
async fn ended(container: &Container, mut looks: watch::Receiver<u64>) -> End {
    let mut sure = true;
    loop {
        let unjudged = container.has_healthcheck && container.signals.health.borrow().is_none();
        let patience = match (sure, unjudged) {
            (false, _) => UNSURE,
            (true, true) => QUIET_UNJUDGED,
            (true, false) => QUIET,
        };
        if let Ok(Err(_)) = tokio::time::timeout(patience, looks.changed()).await {
            // The sender lives in the container: this can't come while we hold it.
            return removed(-1);
        }
        sure = true;
        match container.look().await {
            Ok(Seen::Running) => {}
            Ok(Seen::Ended(end)) => return end,
            // Removed by somebody: as if killed.
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
