//! Timing of hand-made runs with known answers, and what must hold for any run.
#![allow(clippy::unwrap_used)]

mod sample;

use phalanx_report::profile::text::Layout;
use phalanx_report::profile::{csv, text, trace};
use phalanx_report::style::Style;
use phalanx_report::timing::{Segment, SegmentKind, Timing, cell_path, lanes, timing, waterfall};
use phalanx_shared::event::*;
use phalanx_shared::id::{CellId, RunId, Token};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::{Plan, PlannedCell, Resources};
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use phalanx_shared::wait::{Wait, WaitCause};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// A run that is made event by event. Times are in milliseconds since the submission.
struct Script {
    events: Vec<Event>,
}

impl Script {
    fn new(cells: &[&str]) -> Script {
        let mut script = Script { events: Vec::new() };
        let cells = cells.iter().map(|name| PlannedCell {
            id: CellId((*name).to_owned()),
            name: (*name).to_owned(),
            matrix: Default::default(),
            runs_on: Vec::new(),
            experimental: false,
            resources: Resources::default(),
            timeout_ms: 1,
            attempts: 1,
            retries: 0,
        });
        let plan = Plan {
            digest: String::new(),
            spec: "made".into(),
            inputs: Map::new(),
            axes: Vec::new(),
            coverage: Vec::new(),
            cells: cells.collect(),
            max_parallel: None,
            fail_fast: false,
            queue_timeout_ms: None,
            max_skips: None,
            workspace: None,
            files: Default::default(),
        };
        let origin = Map::new();
        script.tell(0, None, EventKind::RunSubmitted { plan, origin });
        script
    }

    fn tell(&mut self, at: u64, cell: Option<&str>, kind: EventKind) {
        let attempt = cell.map(|cell| AttemptRef {
            cell: cell.into(),
            attempt: 1,
        });
        self.events.push(Event {
            run: "run".into(),
            seq: 0,
            attempt,
            at: time(at),
            mono_us: 0,
            kind,
        });
    }

    /// Offers a cell that waited for a slot for as long as said, and starts its attempt at the same time.
    fn starts(&mut self, at: u64, cell: &str, waited: u64) {
        let waits = (waited > 0).then_some(Wait {
            cause: WaitCause::Slot,
            us: waited * 1_000,
        });
        let capacity = Capacity {
            slots: 2,
            ..Capacity::default()
        };
        let offered = EventKind::CellOffered {
            token: Token {
                run: "run".into(),
                cell: cell.into(),
                attempt: 1,
                epoch: 1,
            },
            agent: "a".into(),
            agent_name: "runner".into(),
            placement: Placement {
                waits: waits.into_iter().collect(),
                expected_ms: Some(0),
                capacity: Some(capacity),
            },
        };
        self.tell(at, None, offered);
        self.tell(
            at,
            Some(cell),
            EventKind::AttemptStarted { agent: "a".into() },
        );
        let opened = EventKind::StackOpened {
            began: time(at),
            queued_us: 0,
        };
        self.tell(at, Some(cell), opened);
    }

    fn service(&mut self, cell: &str, name: &str, state: ServiceState, from: u64, to: u64) {
        let changed = EventKind::ServiceChanged {
            service: name.into(),
            state,
            began: time(from),
            detail: None,
            image: None,
            queued_us: 0,
            reference: None,
        };
        self.tell(to, Some(cell), changed);
    }

    fn phase(&mut self, cell: &str, path: &str, from: u64, to: u64) {
        let phase = |kind| (path.to_owned(), path.to_owned(), kind);
        let (path, name, ()) = phase(());
        self.tell(from, Some(cell), EventKind::PhaseStarted { path, name });
        let (path, name, ()) = phase(());
        let ended = EventKind::PhaseFinished {
            path,
            name,
            outcome: Outcome::Passed,
            reason: None,
            began: time(from),
            timed_out: false,
        };
        self.tell(to, Some(cell), ended);
    }

    fn step(&mut self, cell: &str, path: &str, action: &str, from: u64, to: u64, waits: Vec<Wait>) {
        let started = EventKind::StepStarted {
            path: path.into(),
            name: path.into(),
            action: action.into(),
        };
        self.tell(from, Some(cell), started);
        let result = StepResult {
            path: path.into(),
            name: path.into(),
            id: None,
            action: action.into(),
            outcome: Outcome::Passed,
            reason: None,
            unreached: false,
            timed_out: false,
            culprit: None,
            tries: 1,
            polls: 1,
            began: time(from),
            elapsed_us: (to - from) * 1_000,
            waits,
            verifies: Vec::new(),
            checks: Vec::new(),
            output: None,
            captured: Vec::new(),
            failure: None,
            restored: None,
        };
        self.tell(to, Some(cell), EventKind::StepFinished(Box::new(result)));
    }

    fn ends(&mut self, cell: &str, at: u64, removed: u64) {
        let ended = EventKind::AttemptFinished {
            outcome: Outcome::Passed,
            reason: None,
            timed_out: false,
            culprit: None,
        };
        self.tell(at, Some(cell), ended);
        let finished = EventKind::CellFinished {
            cell: cell.into(),
            outcome: Outcome::Passed,
            reason: None,
            attempts: 1,
        };
        self.tell(at, None, finished);
        let torn_down = EventKind::TornDown {
            removed: 1,
            left: Vec::new(),
            kept: Vec::new(),
            began: time(at),
        };
        self.tell(removed, Some(cell), torn_down);
    }

    /// Folds the events up to the end of the run.
    fn run(mut self, end: u64) -> RunState {
        let outcome = Outcome::Passed;
        self.tell(end, None, EventKind::RunFinished { outcome });
        self.events.sort_by_key(|event| event.at);
        let agents = self
            .events
            .iter_mut()
            .filter(|event| event.attempt.is_some());
        (1..).zip(agents).for_each(|(seq, event)| event.seq = seq);
        let mut state = RunState::new(RunId::from("run"));
        self.events.iter().for_each(|event| state.apply(event));
        assert!(state.finished.is_some());
        state
    }
}

fn time(ms: u64) -> Timestamp {
    Timestamp(1_000_000_000 + i64::try_from(ms * 1_000).unwrap())
}

fn wait(cause: WaitCause, ms: u64) -> Vec<Wait> {
    vec![Wait {
        cause,
        us: ms * 1_000,
    }]
}

/// Returns texts, durations and potentials in milliseconds, without what takes no time.
fn shown(path: &[Segment]) -> Vec<(String, u64, u64)> {
    let ms = |us: u64| us / 1_000;
    let segments = path.iter().filter(|segment| segment.elapsed_us >= 1_000);
    segments
        .map(|s| (s.what.clone(), ms(s.elapsed_us), ms(s.potential_us)))
        .collect()
}

fn rows<const N: usize>(rows: [(&str, u64, u64); N]) -> Vec<(String, u64, u64)> {
    rows.map(|(what, took, saves)| (what.to_owned(), took, saves))
        .to_vec()
}

fn times(state: &RunState) -> Timing {
    timing(state, state.finished.unwrap())
}

/// A cell: db is ready after 3 s, cache after 1 s. A step that needs both, then 2 s beside 5 s, then a poll.
fn one_cell() -> RunState {
    let mut script = Script::new(&["c"]);
    script.starts(100, "c", 0);
    script.service("c", "db", ServiceState::Pulled, 100, 1_100);
    script.service("c", "db", ServiceState::Created, 1_100, 1_200);
    script.service("c", "db", ServiceState::Started, 1_200, 1_300);
    script.service("c", "db", ServiceState::Ready, 1_300, 3_100);
    script.service("c", "cache", ServiceState::Started, 100, 300);
    script.service("c", "cache", ServiceState::Ready, 300, 1_100);
    script.phase("c", "p", 100, 12_100);
    let ready = wait(WaitCause::Readiness, 3_000);
    script.step("c", "p/0", "exec", 100, 4_100, ready);
    script.step("c", "p/1", "parallel", 4_100, 9_100, Vec::new());
    script.step("c", "p/1/0", "exec", 4_100, 6_100, Vec::new());
    script.step("c", "p/1/1", "exec", 4_100, 9_100, Vec::new());
    let poll = wait(WaitCause::PollInterval, 1_600);
    script.step("c", "p/2", "http", 9_100, 12_100, poll);
    script.ends("c", 12_100, 12_600);
    script.run(12_200)
}

#[test]
fn the_path_of_a_cell_leads_through_its_slowest_service_and_branch() {
    let state = one_cell();
    let path = cell_path(&state, &"c".into(), state.finished.unwrap());
    let expected = rows([
        ("planning and dispatch", 100, 100),
        // cache is ready 2 s earlier than db.
        ("pulling the image of db", 1_000, 1_000),
        ("creating db", 100, 100),
        ("starting db", 100, 100),
        ("waiting for service db", 1_800, 1_800),
        ("p/0", 1_000, 1_000),
        // The other branch takes 2 s.
        ("p/1/1", 5_000, 3_000),
        ("p/2", 1_400, 1_400),
        ("p/2: last poll interval", 1_600, 1_600),
    ]);
    assert_eq!(shown(&path), expected);
    let kinds: Vec<SegmentKind> = path.iter().map(|segment| segment.kind).collect();
    assert!(kinds.contains(&SegmentKind::Pause) && kinds.contains(&SegmentKind::Image));
}

#[test]
fn waits_efficiency_and_overhead_are_told_apart() {
    let times = times(&one_cell());
    assert_eq!(times.wall_us, 12_200_000);
    assert_eq!(times.efficiency, Some(12_000.0 / 12_200.0));
    assert_eq!(
        times.overhead_us, 200_000,
        "100 ms before and after the cell"
    );
    let waits = times.waits.iter().map(|wait| (wait.cause, wait.sum_us));
    let expected = [
        (WaitCause::Readiness, 1_800_000),
        (WaitCause::PollInterval, 1_600_000),
        (WaitCause::ImagePull, 1_000_000),
    ];
    assert_eq!(waits.collect::<Vec<_>>(), expected);
}

/// Two slots: `long` runs for 10 s in one of them; `a` for 4 s, then `b` for 7 s in the other.
fn two_slots() -> RunState {
    let mut script = Script::new(&["long", "a", "b"]);
    for (cell, from, to, waited) in [
        ("long", 0, 10_000, 0),
        ("a", 0, 4_000, 0),
        ("b", 5_100, 12_100, 5_000),
    ] {
        script.starts(from, cell, waited);
        script.phase(cell, "p", from, to);
        script.step(cell, "p/0", "exec", from, to, Vec::new());
        script.ends(cell, to, to + 1_000);
    }
    script.run(12_100)
}

#[test]
fn the_path_of_a_run_leads_through_the_cell_that_held_the_slot() {
    let times = times(&two_slots());
    // Without b, or with a faster one, `long` takes over after 2.1 s.
    let expected = rows([
        ("p/0", 4_000, 2_100),
        ("clean-up", 1_000, 1_000),
        ("handing over the slot", 100, 100),
        ("p/0", 7_000, 2_100),
    ]);
    assert_eq!(shown(&times.critical_path), expected);
    let cells: Vec<_> = times
        .critical_path
        .iter()
        .flat_map(|s| s.cell.clone())
        .collect();
    assert_eq!(cells.first(), Some(&"a".into()));
    assert_eq!(cells.last(), Some(&"b".into()));
    assert_eq!(times.slots.peak, 2);
    let queued = times
        .waits
        .iter()
        .find(|wait| wait.cause == WaitCause::Slot);
    assert_eq!(
        queued.map(|wait| (wait.cells, wait.sum_us)),
        Some((1, 5_000_000))
    );
}

#[test]
fn the_slots_of_a_run_are_counted_over_time() {
    let slots = times(&two_slots()).slots;
    let points = slots
        .points
        .iter()
        .map(|p| (p.at_us / 1_000, p.used, p.queued));
    let expected = [(0, 2, 1), (5_000, 1, 1), (5_100, 2, 0), (11_000, 1, 0)];
    assert_eq!(points.collect::<Vec<_>>(), expected);
    let lanes = lanes(&two_slots(), time(14_000));
    let cells = lanes.iter().map(|lane| {
        let cells = lane.bars.iter().map(|bar| bar.cell.as_str());
        cells.collect::<Vec<_>>()
    });
    assert_eq!(cells.collect::<Vec<_>>(), [vec!["a", "b"], vec!["long"]]);
}

#[test]
fn a_waterfall_marks_what_is_critical() {
    let state = one_cell();
    let waterfall = waterfall(&state, &"c".into(), state.finished.unwrap()).unwrap();
    let critical = |what: &str| {
        let bar = waterfall.bars.iter().find(|bar| bar.what == what);
        bar.map(|bar| bar.critical)
    };
    assert_eq!(critical("db"), Some(true));
    assert_eq!(critical("cache"), Some(false));
    assert_eq!(critical("p/1/0"), Some(false));
    assert_eq!(critical("p/1/1"), Some(true));
    assert_eq!(
        critical("p/1"),
        Some(true),
        "a group around a critical step"
    );
    assert_eq!(critical("clean-up"), Some(false));
}

#[test]
fn the_path_covers_everything_without_gaps_or_overlaps_at_any_time() {
    for (cells, slots) in [(1, 1), (5, 2), (27, 9), (40, 3), (120, 16)] {
        let events = sample::events(cells, slots);
        for at in [
            0,
            1_000,
            3_100,
            700_000,
            5_000_000,
            20_000_000,
            i64::MAX / 4,
        ] {
            let (state, now) = sample::state(&events, at);
            let times = timing(&state, now);
            covers(&times.critical_path, times.wall_us);
            for (id, cell) in state.cells.iter().take(12) {
                let path = cell_path(&state, id, now);
                let ended = cell.newest().and_then(|attempt| attempt.finished);
                let ended = ended.filter(|_| cell.outcome.is_some()).unwrap_or(now);
                let end = ended.since(state.submitted.unwrap()).as_micros();
                covers(&path, u64::try_from(end).unwrap());
            }
        }
    }
}

fn covers(path: &[Segment], until: u64) {
    let mut end = 0;
    for segment in path {
        assert_eq!(segment.began_us, end, "{segment:?}");
        assert!(segment.potential_us <= segment.elapsed_us, "{segment:?}");
        end += segment.elapsed_us;
    }
    assert_eq!(end, until);
}

#[test]
fn events_in_any_order_and_with_any_times_give_a_path() {
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let events = sample::events(12, 3);
    for _ in 0..60 {
        let mut events = events.clone();
        for _ in 0..next(20) {
            let index = next(events.len() as u64) as usize;
            match next(3) {
                0 => drop(events.remove(index)),
                1 => events[index].at.0 += next(4_000_000) as i64 - 2_000_000,
                _ => {
                    let other = next(events.len() as u64) as usize;
                    events.swap(index, other);
                }
            }
        }
        let mut state = RunState::new(events[0].run.clone());
        events.iter().for_each(|event| state.apply(event));
        let now = events.iter().map(|event| event.at).max().unwrap();
        let times = timing(&state, now);
        let mut end = 0;
        for segment in &times.critical_path {
            assert_eq!(segment.began_us, end);
            end += segment.elapsed_us;
        }
        trace::render(&state, None, now).unwrap();
    }
}

#[test]
fn the_csv_has_a_line_for_each_activity_and_as_many_fields_everywhere() {
    let (state, now) = sample::state(&sample::events(27, 9), i64::MAX / 4);
    let text = csv::render(&state, None, now);
    let lines: Vec<Vec<String>> = text.split_terminator("\r\n").map(fields).collect();
    assert!(lines.len() > 27 * 10);
    assert!(lines.iter().all(|line| line.len() == lines[0].len()));
    let names: std::collections::BTreeSet<&str> =
        lines.iter().skip(1).map(|line| line[1].as_str()).collect();
    assert_eq!(names.len(), 27);
    assert!(
        lines
            .iter()
            .skip(1)
            .all(|line| line[10].parse::<u64>().is_ok())
    );
    let one = csv::render(&state, state.cells.keys().next(), now);
    assert!(one.lines().count() < text.lines().count() / 20);
}

fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields.last_mut().unwrap().push(c),
        }
    }
    fields
}

#[test]
fn the_events_of_a_trace_are_balanced_and_in_order_within_each_thread() {
    for (cells, slots, at) in [
        (27, 9, i64::MAX / 4),
        (27, 9, 9_500_000),
        (120, 16, 20_000_000),
    ] {
        let (state, now) = sample::state(&sample::events(cells, slots), at);
        let trace: Value =
            serde_json::from_str(&trace::render(&state, None, now).unwrap()).unwrap();
        let mut open: HashMap<(u64, u64), Vec<u64>> = HashMap::new();
        let mut newest: HashMap<(u64, u64), u64> = HashMap::new();
        let mut beside: HashMap<u64, u64> = HashMap::new();
        let mut counted = 0;
        for event in trace["traceEvents"].as_array().unwrap() {
            let number = |key: &str| event[key].as_u64().unwrap();
            let thread = (number("pid"), number("tid"));
            let ts = number("ts");
            match event["ph"].as_str().unwrap() {
                "B" | "E" if ts < *newest.get(&thread).unwrap_or(&0) => {
                    panic!("goes back: {event}")
                }
                "B" => open.entry(thread).or_default().push(ts),
                "E" => drop(open.get_mut(&thread).unwrap().pop().unwrap()),
                "b" => drop(beside.insert(number("id"), ts)),
                "e" => assert!(beside.remove(&number("id")).unwrap() <= ts),
                "C" => counted += 1,
                "M" => {}
                other => panic!("{other}"),
            }
            if matches!(event["ph"].as_str(), Some("B" | "E")) {
                newest.insert(thread, ts);
            }
        }
        assert!(open.values().all(Vec::is_empty) && beside.is_empty() && counted > 0);
        assert!(newest.keys().all(|(pid, slot)| *pid > 0 && *slot > 0));
    }
}

#[test]
fn texts_fit_their_terminal() {
    let (state, now) = sample::state(&sample::events(27, 9), i64::MAX / 4);
    let name = |cell: &CellId| cell.to_string();
    for (width, verbose) in [(30, false), (40, false), (80, false), (200, false)] {
        let layout = Layout {
            width,
            style: Style::PLAIN,
            verbose,
        };
        let run = text::run(&timing(&state, now), name, layout);
        let id = state.cells.keys().next().unwrap();
        let bars = waterfall(&state, id, now).unwrap();
        let cell = text::cell(&bars, &cell_path(&state, id, now), layout);
        for line in run.lines().chain(cell.lines()) {
            let widest = console::measure_text_width(line);
            assert!(widest <= width.max(60), "{width}: {widest} {line:?}");
        }
    }
}

#[test]
fn the_timing_of_a_run_and_of_a_cell_for_people() {
    let layout = Layout {
        width: 80,
        style: Style::PLAIN,
        verbose: true,
    };
    let (state, now) = sample::state(&sample::events(27, 9), i64::MAX / 4);
    let name = |cell: &CellId| state.planned(cell).unwrap().name.clone();
    insta::assert_snapshot!(text::run(&timing(&state, now), name, layout));
    let state = one_cell();
    let now = state.finished.unwrap();
    let id = CellId::from("c");
    let bars = waterfall(&state, &id, now).unwrap();
    insta::assert_snapshot!(text::cell(&bars, &cell_path(&state, &id, now), layout));
}

impl Script {
    fn snapshot(&mut self, cell: &str, state: SnapshotState, from: u64, to: u64) {
        let changed = EventKind::SnapshotChanged {
            path: "setup/0".into(),
            key: "ab".repeat(32),
            state,
            began: time(from),
            run: None,
            bytes: 1,
            reason: None,
        };
        self.tell(to, Some(cell), changed);
    }
}

#[test]
fn restoring_saving_and_waiting_for_a_snapshot_have_their_own_times() {
    let mut script = Script::new(&["makes", "waits"]);
    for cell in ["makes", "waits"] {
        script.starts(0, cell, 0);
    }
    script.snapshot("makes", SnapshotState::Missed, 0, 10);
    script.service("makes", "db", ServiceState::Created, 10, 20);
    script.service("makes", "db", ServiceState::Ready, 20, 100);
    script.phase("makes", "setup", 100, 500);
    script.tell(
        100,
        Some("makes"),
        EventKind::StepStarted {
            path: "setup/0".into(),
            name: "prepare".into(),
            action: "steps".into(),
        },
    );
    script.step("makes", "setup/0/0", "exec", 100, 300, Vec::new());
    script.snapshot("makes", SnapshotState::Saved, 300, 490);
    script.step("makes", "setup/0", "steps", 100, 490, Vec::new());
    script.ends("makes", 500, 510);
    script.snapshot("waits", SnapshotState::Waiting, 0, 10);
    script.snapshot("waits", SnapshotState::Restored, 0, 550);
    script.service("waits", "db", ServiceState::Created, 550, 560);
    script.service("waits", "db", ServiceState::Ready, 560, 600);
    script.phase("waits", "setup", 600, 620);
    script.ends("waits", 620, 630);
    let state = script.run(630);
    let path = |cell: &str| {
        let path = cell_path(&state, &cell.into(), state.finished.unwrap());
        let shown = shown(&path);
        let shown = shown.into_iter().map(|(what, took, _)| (what, took));
        shown.collect::<Vec<_>>()
    };
    let of = |rows: &[(&str, u64)]| {
        let rows = rows.iter().map(|(what, took)| ((*what).to_owned(), *took));
        rows.collect::<Vec<_>>()
    };
    let makes = path("makes");
    assert!(
        makes.contains(&("looking for a snapshot".to_owned(), 10)),
        "{makes:?}"
    );
    assert!(
        makes.contains(&("saving the snapshot".to_owned(), 190)),
        "{makes:?}"
    );
    let expected = of(&[
        ("looking for a snapshot", 10),
        ("waiting for the cell that makes the snapshot", 540),
        ("creating db", 10),
        ("waiting for service db", 40),
    ]);
    assert_eq!(path("waits").get(..4).unwrap(), expected);
    let waits = times(&state).waits;
    let snapshot = waits.iter().find(|one| one.cause == WaitCause::Snapshot);
    let snapshot = snapshot.unwrap();
    assert_eq!((snapshot.cells, snapshot.sum_us), (1, 540_000));
    let bars = waterfall(&state, &"makes".into(), state.finished.unwrap()).unwrap();
    let bar = bars
        .bars
        .iter()
        .find(|bar| bar.what == "saving the snapshot");
    let bar = bar.unwrap();
    assert_eq!(bar.activity, Some(SegmentKind::Snapshot));
    assert_eq!((bar.began_us, bar.elapsed_us), (300_000, 190_000));
}
