//! Keys and frames, on a terminal in memory.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use super::app::{App, Asked, Pane};
use super::draw::draw;
use phalanx_shared::event::{Event, EventKind};
use phalanx_shared::id::RunId;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyModifiers};
use serde_json::json;

fn apply(state: &mut RunState, kind: serde_json::Value) {
    let kind: EventKind = serde_json::from_value(kind).unwrap();
    state.apply(&Event {
        run: state.run.clone(),
        attempt: None,
        seq: 0,
        at: Timestamp(1_000_000),
        mono_us: 0,
        kind,
    });
}

/// Two databases by three versions; `red` of the cells failed, in plan order.
fn state(red: usize) -> RunState {
    let mut state = RunState::new(RunId::from("0193-aaaa"));
    let mut cells = Vec::new();
    for database in ["mysql", "postgres"] {
        for version in ["v1", "v2", "v3"] {
            cells.push(json!({
                "id": format!("{database}{version}"), "name": format!("{database} / {version}"),
                "matrix": { "database": database, "version": version }, "runs_on": [], "experimental": false,
                "resources": { "millicpus": 1, "memory_bytes": 1, "subnets": 1 },
                "timeout_ms": 1, "attempts": 1, "retries": 0
            }));
        }
    }
    let ids: Vec<String> = cells
        .iter()
        .map(|cell| cell["id"].as_str().unwrap().to_owned())
        .collect();
    let plan = json!({
        "digest": "d", "spec": "shop", "inputs": {}, "axes": ["database", "version"], "coverage": [],
        "max_parallel": null, "fail_fast": false, "cells": cells
    });
    apply(
        &mut state,
        json!({ "kind": "run_submitted", "plan": plan, "origin": {} }),
    );
    for id in ids.iter().take(red) {
        let finished = json!({
            "kind": "cell_finished", "cell": id, "outcome": Outcome::Failed, "reason": "it broke", "attempts": 1
        });
        apply(&mut state, finished);
    }
    state
}

fn press(app: &mut App, state: &RunState, key: char) -> Asked {
    let code = match key {
        '\n' => KeyCode::Enter,
        '\u{1b}' => KeyCode::Esc,
        key => KeyCode::Char(key),
    };
    app.key(code, KeyModifiers::NONE, state)
}

fn shown(app: &App, state: &RunState, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw(frame, app, state, Timestamp(3_000_000), false))
        .unwrap();
    let buffer = terminal.backend().buffer();
    let rows = buffer.content().chunks(usize::from(width));
    rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n")
        .collect()
}

fn begun(state: &RunState) -> App {
    let mut app = App::default();
    app.look(state);
    app.find(state, Timestamp(2_000_000));
    app
}

fn chosen(app: &App) -> &str {
    app.chosen.as_ref().unwrap().as_str()
}

#[test]
fn the_overview_shows_the_grid_the_findings_and_the_chosen_cell() {
    let state = state(2);
    let mut app = begun(&state);
    app.waits([("postgresv1".into(), "label gpu".to_owned())].into());
    let text = shown(&app, &state, 100, 24);
    for expected in [
        "shop  6 cells",
        "2 failed",
        "4 waiting",
        "columns: database",
        "✗",
        "it broke",
        "label gpu",
        "mysql / v1",
    ] {
        assert!(text.contains(expected), "{expected}:\n{text}");
    }
}

#[test]
fn keys_choose_cells_in_plan_order_and_red_ones_only() {
    let state = state(2);
    let mut app = begun(&state);
    press(&mut app, &state, 'j');
    press(&mut app, &state, 'j');
    assert_eq!(chosen(&app), "mysqlv3");
    press(&mut app, &state, 'N');
    assert_eq!(chosen(&app), "mysqlv2");
    press(&mut app, &state, 'n');
    assert_eq!(
        chosen(&app),
        "mysqlv1",
        "after the last red cell comes the first"
    );
    press(&mut app, &state, 'n');
    assert_eq!(chosen(&app), "mysqlv2");
    press(&mut app, &state, 'f');
    press(&mut app, &state, 'k');
    press(&mut app, &state, 'k');
    assert_eq!(chosen(&app), "mysqlv1");
    press(&mut app, &state, 'c');
    assert!(shown(&app, &state, 100, 24).contains("columns: version · red"));
}

#[test]
fn a_cell_its_logs_and_the_help_open_and_close() {
    let state = state(1);
    let mut app = begun(&state);
    press(&mut app, &state, '\n');
    assert!(shown(&app, &state, 100, 24).contains("mysql / v1 ... failed"));
    assert_eq!(press(&mut app, &state, 'l'), Asked::Logs("mysqlv1".into()));
    app.log((0..100).map(|n| format!("line {n}")));
    assert!(shown(&app, &state, 100, 24).contains("line 99"));
    press(&mut app, &state, 'k');
    assert!(!shown(&app, &state, 100, 24).contains("line 99"));
    app.log(["line 100".to_owned()]);
    assert!(
        shown(&app, &state, 100, 24).contains("line 98"),
        "what is read stays"
    );
    press(&mut app, &state, '?');
    assert!(shown(&app, &state, 100, 24).contains("another axis"));
    press(&mut app, &state, '\u{1b}');
    assert_eq!(app.pane, Pane::Logs);
    assert_eq!(press(&mut app, &state, '\u{1b}'), Asked::NoLogs);
    assert_eq!(app.pane, Pane::Overview);
}

#[test]
fn a_cancel_is_asked_for_and_ctrl_c_is_an_interrupt() {
    let state = state(1);
    let mut app = begun(&state);
    press(&mut app, &state, 'x');
    assert!(shown(&app, &state, 100, 24).contains("cancel the run?"));
    assert_eq!(press(&mut app, &state, 'j'), Asked::Nothing);
    assert_eq!(chosen(&app), "mysqlv1", "the answer was no");
    press(&mut app, &state, 'x');
    assert_eq!(press(&mut app, &state, 'y'), Asked::Cancel);
    let interrupt = app.key(KeyCode::Char('c'), KeyModifiers::CONTROL, &state);
    assert_eq!(interrupt, Asked::Interrupt);
}

#[test]
fn any_size_can_be_drawn_in_any_pane() {
    let state = state(6);
    let mut app = begun(&state);
    let nothing = App::default();
    let empty = RunState::new(RunId::from("0193-aaaa"));
    for (width, height) in [(1, 1), (39, 50), (40, 12), (41, 13), (300, 5), (300, 90)] {
        for pane in [Pane::Overview, Pane::Cell, Pane::Logs, Pane::Help] {
            app.pane = pane;
            shown(&app, &state, width, height);
        }
        shown(&nothing, &empty, width, height);
    }
    assert!(shown(&app, &state, 38, 11).contains("too few"));
}

#[test]
fn red_cells_go_round_and_their_logs_follow() {
    let state = state(2);
    let mut app = App::default();
    app.look(&state);
    press(&mut app, &state, 'n');
    let second = app.chosen.clone().unwrap();
    assert_eq!(second.as_str(), "mysqlv2");
    press(&mut app, &state, 'n');
    assert_eq!(app.chosen.as_ref().unwrap().as_str(), "mysqlv1");
    let Asked::Logs(cell) = press(&mut app, &state, 'l') else {
        panic!("no logs");
    };
    assert_eq!(cell.as_str(), "mysqlv1");
    app.log(["a line of mysqlv1".to_owned()]);
    assert_eq!(press(&mut app, &state, 'n'), Asked::Logs(second));
    assert!(!shown(&app, &state, 100, 30).contains("a line of mysqlv1"));
    assert_eq!(press(&mut app, &state, '\n'), Asked::NoLogs);
    assert_eq!(app.pane, Pane::Cell);
}

#[test]
fn findings_that_are_not_shown_are_counted() {
    let state = state(2);
    let mut app = App::default();
    app.look(&state);
    app.find(&state, Timestamp(3_000_000));
    app.found.left_out = 7;
    let text = shown(&app, &state, 120, 30);
    assert!(text.contains("and 7 not examined"), "{text}");
}
