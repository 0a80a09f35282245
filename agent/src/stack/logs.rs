//! The services' output: it is masked and forwarded to the coordinator, its tail is kept for failures, and its lines
//! are matched against log predicates.
//!
//! One task takes the frames of all services of an attempt in order. After [`Logs::close`] it no longer forwards frames
//! but still takes them, so that no service blocks while it stops.

use crate::clock::Clock;
use crate::context::masks::{Masks, StreamMask};
use crate::runtime::head_tail::HeadTail;
use crate::sink::LogChunk;
use phalanx_shared::event::{LogStream, LogTail};
use phalanx_shared::id::Token;
use phalanx_shared::mask::{Masks as Shown, Torn, plain, shortened};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Number of lines kept per service.
const TAIL_LINES: usize = 200;
/// Number of characters kept per line.
const MAX_LINE: usize = 2_000;
/// Number of bytes of a line that predicates see; longer lines are cut.
const MAX_MATCHED: usize = 64 * 1024;
/// Maximum time that a reader waits for frames in transit.
const SETTLE: Duration = Duration::from_millis(200);

/// A frame of output from a runtime: service, stream and bytes.
pub type Frame = (String, LogStream, Vec<u8>);

/// The logs of an attempt. Cheap to clone.
#[derive(Clone)]
pub struct Logs {
    state: Arc<Mutex<State>>,
    masks: Arc<Masks>,
    control: mpsc::Sender<Control>,
    frames: mpsc::Sender<Frame>,
}

enum Control {
    Settle(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

#[derive(Default)]
struct State {
    services: BTreeMap<String, ServiceLog>,
}

#[derive(Default)]
struct ServiceLog {
    tail: VecDeque<String>,
    partial: [Vec<u8>; 2],
    patterns: Vec<(regex::Regex, watch::Sender<Option<String>>)>,
    recording: Option<[HeadTail; 2]>,
}

impl Logs {
    /// Starts the task that takes frames.
    pub fn spawn(
        token: Token,
        clock: Arc<dyn Clock>,
        masks: Arc<Masks>,
        out: mpsc::Sender<LogChunk>,
    ) -> Logs {
        let (frames, frames_in) = mpsc::channel(256);
        let (control, control_in) = mpsc::channel(16);
        let state = Arc::new(Mutex::new(State::default()));
        let pump = Pump {
            token,
            clock,
            masks: Arc::clone(&masks),
            out: Some(out),
            state: Arc::clone(&state),
            streams: BTreeMap::new(),
        };
        // The task ends by itself when all handles of this attempt are gone.
        tokio::spawn(pump.run(frames_in, control_in));
        Logs {
            state,
            masks,
            control,
            frames,
        }
    }

    /// Returns the sink for a service's output.
    pub fn sink(&self, service: &str) -> crate::sink::LogSink {
        crate::sink::LogSink::new(service, self.frames.clone())
    }

    /// Waits until the frames in transit have been taken, at most 200 ms.
    pub async fn settle(&self) {
        let (done, settled) = oneshot::channel();
        if self.control.send(Control::Settle(done)).await.is_ok() {
            let _ = tokio::time::timeout(SETTLE, settled).await;
        }
    }

    /// Forwards the bytes that are held back, then stops forwarding: the sender given to [`Logs::spawn`] is dropped.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.control.send(Control::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
    }

    /// Returns the last lines of a service's output, masked.
    pub fn tail(&self, service: &str, lines: usize) -> LogTail {
        let state = self.lock();
        let all = state.services.get(service).map_or_else(Vec::new, |log| {
            let partial = log.partial.iter().filter(|partial| !partial.is_empty());
            let partial = partial.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            log.tail.iter().cloned().chain(partial).collect()
        });
        drop(state);
        LogTail {
            service: service.to_owned(),
            lines: last_lines(&self.masks.current(), &all, lines),
        }
    }

    /// Returns a receiver for the first line from now on that matches the pattern.
    pub fn watch_for(
        &self,
        service: &str,
        pattern: regex::Regex,
    ) -> watch::Receiver<Option<String>> {
        let (found, receiver) = watch::channel(None);
        let mut state = self.lock();
        let log = state.services.entry(service.to_owned()).or_default();
        log.patterns.retain(|(_, watcher)| !watcher.is_closed());
        log.patterns.push((pattern, found));
        receiver
    }

    /// Records the whole output of a service from now on, up to a limit in bytes per stream.
    pub fn record(&self, service: &str, limit: usize) {
        let mut state = self.lock();
        let log = state.services.entry(service.to_owned()).or_default();
        log.recording = Some([HeadTail::new(limit), HeadTail::new(limit)]);
    }

    /// Ends the recording and returns stdout and stderr.
    pub fn recorded(&self, service: &str) -> [HeadTail; 2] {
        let mut state = self.lock();
        let log = state.services.get_mut(service);
        log.and_then(|log| log.recording.take())
            .unwrap_or_else(|| [HeadTail::new(0), HeadTail::new(0)])
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the last lines. They are masked as one text, because a secret may span several lines, or stdout and stderr.
fn last_lines(masks: &Shown, all: &[String], lines: usize) -> Vec<String> {
    if all.is_empty() {
        return Vec::new();
    }
    let masked = masks.text(&all.join("\n")).into_owned();
    let masked: Vec<&str> = masked.split('\n').collect();
    let skip = masked.len().saturating_sub(lines);
    let last = masked.iter().skip(skip);
    last.map(|line| shortened(&plain(line), MAX_LINE + 1).into_owned())
        .collect()
}

struct Pump {
    token: Token,
    clock: Arc<dyn Clock>,
    masks: Arc<Masks>,
    out: Option<mpsc::Sender<LogChunk>>,
    state: Arc<Mutex<State>>,
    streams: BTreeMap<(String, LogStream), StreamMask>,
}

impl Pump {
    async fn run(
        mut self,
        mut frames: mpsc::Receiver<Frame>,
        mut control: mpsc::Receiver<Control>,
    ) {
        loop {
            tokio::select! {
                biased;
                Some(frame) = frames.recv() => self.take(frame).await,
                // This branch runs only when no frame waits, which is the definition of settled.
                order = control.recv() => match order {
                    Some(Control::Settle(done)) => {
                        let _ = done.send(());
                    }
                    Some(Control::Close(done)) => {
                        self.hand_over().await;
                        self.out = None;
                        let _ = done.send(());
                    }
                    None => break,
                },
            }
        }
        // All handles are gone, but services that still print must not block.
        while frames.recv().await.is_some() {}
    }

    async fn take(&mut self, (service, stream, bytes): Frame) {
        let masks = &self.masks;
        let mask = self
            .streams
            .entry((service.clone(), stream))
            .or_insert_with(|| masks.stream());
        let masked = mask.push(&bytes);
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let log = state.services.entry(service.clone()).or_default();
            log.record(stream, &bytes);
            log.lines(stream, &bytes, masks);
        }
        self.forward(service, stream, masked).await;
    }

    async fn hand_over(&mut self) {
        for ((service, stream), mut mask) in std::mem::take(&mut self.streams) {
            let rest = mask.finish();
            self.forward(service, stream, rest).await;
        }
    }

    async fn forward(&mut self, service: String, stream: LogStream, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        if let Some(out) = &self.out {
            let chunk = LogChunk {
                token: self.token.clone(),
                service,
                stream,
                at: self.clock.wall(),
                bytes,
            };
            if out.send(chunk).await.is_err() {
                self.out = None;
            }
        }
    }
}

impl ServiceLog {
    fn record(&mut self, stream: LogStream, bytes: &[u8]) {
        if let Some([stdout, stderr]) = &mut self.recording {
            match stream {
                LogStream::Stdout => stdout.push(bytes),
                LogStream::Stderr => stderr.push(bytes),
            }
        }
    }

    fn lines(&mut self, stream: LogStream, bytes: &[u8], masks: &Masks) {
        let side = usize::from(stream == LogStream::Stderr);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let Some(partial) = self.partial.get_mut(side) else {
                return;
            };
            let room = MAX_MATCHED.saturating_sub(partial.len());
            match piece.get(..room).filter(|_| piece.len() > room) {
                None => partial.extend_from_slice(piece),
                // The cut may tear a secret, which would not be recognised later: mask it now.
                Some(fits) if room > 0 => {
                    partial.extend_from_slice(fits);
                    let torn = Torn {
                        start: false,
                        end: true,
                    };
                    *partial = masks.current().bytes_of(partial, torn);
                    partial.resize(MAX_MATCHED, b' ');
                }
                Some(_) => {}
            }
            if piece.ends_with(b"\n") {
                let line = std::mem::take(partial);
                self.line(&line);
            }
        }
    }

    fn line(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches(['\n', '\r']);
        if !self.patterns.is_empty() {
            // Patterns are written for the line that a person sees.
            let seen: String = plain(text)
                .chars()
                .filter(|c| *c == '\t' || !c.is_control())
                .collect();
            for (pattern, found) in &self.patterns {
                if pattern.is_match(&seen) || pattern.is_match(text) {
                    found.send_replace(Some(seen.clone()));
                }
            }
        }
        // The tail is masked when it is read, so that values that have become secret since are masked too.
        self.tail.push_back(text.to_owned());
        while self.tail.len() > TAIL_LINES {
            self.tail.pop_front();
        }
    }
}
