//! Replays an invented run on this terminal, to look at the live table, the lines and the summary while working on the
//! display.
//!
//!     cargo run --example replay -- [CELLS] [SLOTS] [SPEED]
//!     cargo run --example replay -- 500 40 5
//!     cargo run --example replay -- 27 9 1000 2>&1 | cat

#[path = "../../report/tests/sample/mod.rs"]
mod sample;

use phalanx_client::cli::display::Display;
use phalanx_client::cli::say::{Voice, to_stderr};
use phalanx_client::config::output::Color;
use phalanx_report::terminal::{self, Detail};
use phalanx_report::view::RunView;
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use std::time::Duration;

fn main() {
    let mut numbers = std::env::args()
        .skip(1)
        .map(|text| text.parse::<usize>().unwrap_or(1));
    let cells = numbers.next().unwrap_or(27);
    let slots = numbers.next().unwrap_or(9);
    let speed = numbers.next().unwrap_or(1).max(1) as i64;
    let voice = Voice {
        color: Color::Auto,
        quiet: false,
        verbose: std::env::var_os("VERBOSE").is_some(),
    };
    let events = sample::events(cells, slots);
    let Some(first) = events.first() else {
        return;
    };
    let mut state = RunState::new(first.run.clone());
    let mut display = Display::new(voice);
    let mut now = first.at;
    let mut rest = events.iter().peekable();
    while rest.peek().is_some() {
        while let Some(event) = rest.next_if(|event| event.at <= now) {
            state.apply(event);
            display.event(&state, event);
        }
        display.tick(&state, now);
        std::thread::sleep(Duration::from_millis(100));
        now = Timestamp(now.0 + 100_000 * speed);
    }
    display.finish();
    let view = RunView::of(&state, now, None);
    let detail = Detail {
        width: voice.stderr_width(),
        style: voice.stderr_style(),
        verbose: voice.verbose,
    };
    to_stderr(&terminal::render(&view, detail));
}
