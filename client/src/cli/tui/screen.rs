//! The terminal of the full-screen view: its mode, its keys, and its restoration.
//!
//! It is drawn to standard error, so that reports can go to standard output. The terminal is given back when the view is
//! dropped, and also when the program panics; the panic's message then stays readable.

use super::app::App;
use super::draw::draw;
use crate::cli::error::CliError;
use crate::cli::say;
use phalanx_shared::error_code::ErrorCode;
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use std::io::{IsTerminal, Stderr, stderr, stdin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;
use tokio::sync::mpsc;

/// How soon the thread that reads keys notices that it is no longer needed.
const LOOK: Duration = Duration::from_millis(100);

/// A key that was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub code: KeyCode,
    /// Ctrl and the like.
    pub modifiers: KeyModifiers,
}

/// The terminal while the view is on it.
pub struct Full {
    terminal: Terminal<CrosstermBackend<Stderr>>,
    colors: bool,
    over: Arc<AtomicBool>,
}

impl std::fmt::Debug for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Full")
    }
}

impl Full {
    /// Takes the terminal. Returns the keys, too.
    ///
    /// # Errors
    /// Returns an error if standard error or standard input isn't a terminal.
    pub fn take(colors: bool) -> Result<(Full, mpsc::UnboundedReceiver<Key>), CliError> {
        if !stderr().is_terminal() || !stdin().is_terminal() {
            return Err(CliError::usage(
                "--tui needs a terminal for standard input and standard error",
            )
            .with_help("without it, progress is printed in lines")
            .explained_by(ErrorCode::Terminal));
        }
        let failed =
            |error: std::io::Error| CliError::errored(format!("can't use the terminal: {error}"));
        restore_on_panic();
        enable_raw_mode().map_err(failed)?;
        let full = Full {
            terminal: Terminal::new(CrosstermBackend::new(stderr())).map_err(|error| {
                restore();
                failed(error)
            })?,
            colors,
            over: Arc::new(AtomicBool::new(false)),
        };
        execute!(stderr(), EnterAlternateScreen).map_err(failed)?;
        let keys = full.keys();
        Ok((full, keys))
    }

    /// Reads keys in a thread of its own, since reading them blocks.
    fn keys(&self) -> mpsc::UnboundedReceiver<Key> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let over = Arc::clone(&self.over);
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let event = match event::poll(LOOK) {
                    Ok(true) => event::read(),
                    Ok(false) => continue,
                    Err(_) => return,
                };
                match event {
                    Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                        let key = Key {
                            code: key.code,
                            modifiers: key.modifiers,
                        };
                        if sender.send(key).is_err() {
                            return;
                        }
                    }
                    // The next frame has the new size.
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
        receiver
    }

    /// Draws a frame.
    pub fn draw(&mut self, app: &App, state: &RunState, now: Timestamp) {
        let colors = self.colors;
        // A terminal that is gone ends the command by its own signal.
        let _ = self
            .terminal
            .draw(|frame| draw(frame, app, state, now, colors));
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        restore();
        *draws() = None;
    }
}

/// Gives the terminal back as it was.
fn restore() {
    let _ = execute!(
        stderr(),
        LeaveAlternateScreen,
        ratatui::crossterm::cursor::Show
    );
    let _ = disable_raw_mode();
}

/// The thread whose panic ends the view: the one that draws it. `None` without a view.
static DRAWS: Mutex<Option<ThreadId>> = Mutex::new(None);

fn draws() -> MutexGuard<'static, Option<ThreadId>> {
    DRAWS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives the terminal back before a panic's message is printed. A panic elsewhere ends one attempt and not the view, so
/// its message waits until the view is gone.
fn restore_on_panic() {
    if draws().replace(std::thread::current().id()).is_some() {
        return;
    }
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let of_view = *draws();
        match of_view {
            Some(thread) if thread != std::thread::current().id() => {
                say::to_stderr(&format!("{panic}\n"));
            }
            Some(_) => {
                restore();
                before(panic);
            }
            None => before(panic),
        }
    }));
}
