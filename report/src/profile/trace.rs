//! A run in Chrome's trace format, which Perfetto and chrome://tracing open.
//!
//! An agent is a process, and each of its slots a thread with the cells, phases and steps that ran in it. Services and
//! steps of `parallel` groups overlap; they are asynchronous events. Counters show slots in use and cells that wait.
//! Times are in microseconds since the submission.

use crate::timing::{Bar, BarKind, Lane, LaneBar, Timing, Waterfall, lanes, timing, waterfall};
use phalanx_shared::id::CellId;
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Number of the process that stands for the run as a whole.
const RUN: u32 = 0;

/// An event of the format.
#[derive(Clone, Debug, Serialize)]
struct Event {
    name: String,
    /// Kind of the event: `B` and `E` begin and end, `b` and `e` do so asynchronously, `C` counts, `M` names.
    ph: &'static str,
    ts: u64,
    pid: u32,
    tid: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    cat: &'static str,
    /// Joins the two events of something asynchronous.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    args: Map<String, Value>,
}

/// Returns the trace of a run, or of one of its cells, as JSON.
pub fn render(
    state: &RunState,
    cell: Option<&CellId>,
    now: Timestamp,
) -> Result<String, serde_json::Error> {
    let mut trace = Trace::default();
    trace.name_process(RUN, "run");
    trace.count(&timing(state, now));
    for mut lane in lanes(state, now) {
        lane.bars
            .retain(|bar| cell.is_none_or(|cell| bar.cell == *cell));
        if !lane.bars.is_empty() {
            trace.lane(state, &lane, now);
        }
    }
    serde_json::to_string(&json!({
        "displayTimeUnit": "ms",
        "traceEvents": trace.events,
    }))
}

#[derive(Default)]
struct Trace {
    events: Vec<Event>,
    agents: HashMap<String, u32>,
    asynchronous: u64,
    /// Process, thread and newest time of the lane that is written.
    pid: u32,
    tid: u32,
    newest: u64,
}

impl Trace {
    fn name_process(&mut self, pid: u32, name: &str) {
        self.name("process_name", pid, 0, name);
    }

    fn name(&mut self, what: &str, pid: u32, tid: u32, name: &str) {
        self.events.push(Event {
            name: what.to_owned(),
            ph: "M",
            ts: 0,
            pid,
            tid,
            cat: "",
            id: None,
            args: Map::from_iter([("name".to_owned(), name.into())]),
        });
    }

    fn count(&mut self, timing: &Timing) {
        for point in &timing.slots.points {
            let counts = [
                ("slots in use", point.used),
                ("cells waiting", point.queued),
            ];
            for (name, count) in counts {
                self.events.push(Event {
                    name: name.to_owned(),
                    ph: "C",
                    ts: point.at_us,
                    pid: RUN,
                    tid: 0,
                    cat: "",
                    id: None,
                    args: Map::from_iter([("count".to_owned(), count.into())]),
                });
            }
        }
    }

    fn lane(&mut self, state: &RunState, lane: &Lane, now: Timestamp) {
        let next = u32::try_from(self.agents.len() + 1).unwrap_or(u32::MAX);
        let pid = *self.agents.entry(lane.agent.clone()).or_insert(next);
        if pid == next {
            self.name_process(pid, &format!("agent {}", lane.agent));
        }
        let slot = format!("slot {}", lane.slot);
        self.name("thread_name", pid, lane.slot, &slot);
        (self.pid, self.tid, self.newest) = (pid, lane.slot, 0);
        for bar in &lane.bars {
            if let Some(waterfall) = waterfall(state, &bar.cell, now) {
                self.attempt(bar, &waterfall);
            }
        }
    }

    /// Adds an attempt: its cell, and what is inside.
    fn attempt(&mut self, lane: &LaneBar, waterfall: &Waterfall) {
        let end = lane.began_us.saturating_add(lane.elapsed_us);
        let args = [
            ("attempt", json!(lane.attempt)),
            ("outcome", json!(lane.outcome)),
        ];
        self.begin(&lane.name, "cell", lane.began_us, args);
        let own = |bar: &&Bar| bar.attempt == lane.attempt && bar.elapsed_us > 0;
        // Queue and dispatch before the offer are outside the slot.
        let bars = waterfall.bars.iter().filter(own);
        let (beside, inside): (Vec<&Bar>, Vec<&Bar>) = bars.partition(|bar| bar.step.is_none());
        for bar in beside.iter().filter(|bar| bar.began_us >= lane.began_us) {
            self.beside(bar, end);
        }
        self.steps(&inside, end);
        self.end(end);
    }

    /// Adds phases, groups and steps: within each other, or beside each other where they overlap.
    fn steps(&mut self, bars: &[&Bar], limit: u64) {
        // Depth and end of the events that are open.
        let mut open: Vec<(usize, u64)> = Vec::new();
        for bar in bars {
            while let Some((_, end)) = open.pop_if(|(depth, _)| *depth >= bar.depth) {
                self.end(end);
            }
            let around = open.last().map_or(limit, |(_, end)| *end);
            let within =
                open.len() == bar.depth && bar.began_us.saturating_add(1_000) >= self.newest;
            if !within || around <= self.newest.max(bar.began_us) {
                self.beside(bar, limit);
                continue;
            }
            let end = bar.began_us.saturating_add(bar.elapsed_us).min(around);
            let category = category(bar);
            self.begin(&bar.what, category, bar.began_us, arguments(bar));
            open.push((bar.depth, end));
        }
        while let Some((_, end)) = open.pop() {
            self.end(end);
        }
    }

    fn begin<const N: usize>(
        &mut self,
        name: &str,
        cat: &'static str,
        at: u64,
        args: [(&str, Value); N],
    ) {
        self.newest = self.newest.max(at);
        let args = args.into_iter().map(|(key, value)| (key.to_owned(), value));
        self.push(name, "B", cat, None, args.collect());
    }

    fn end(&mut self, at: u64) {
        self.newest = self.newest.max(at);
        self.push("", "E", "", None, Map::new());
    }

    fn push(
        &mut self,
        name: &str,
        ph: &'static str,
        cat: &'static str,
        id: Option<u64>,
        args: Map<String, Value>,
    ) {
        self.events.push(Event {
            name: name.to_owned(),
            ph,
            ts: self.newest,
            pid: self.pid,
            tid: self.tid,
            cat,
            id,
            args,
        });
    }

    /// Adds something asynchronous.
    fn beside(&mut self, bar: &Bar, limit: u64) {
        self.asynchronous += 1;
        let begin = bar.began_us.min(limit);
        let end = begin.saturating_add(bar.elapsed_us).min(limit);
        let args = arguments(bar).map(|(key, value)| (key.to_owned(), value));
        let event = |ph, ts, args| Event {
            name: bar.what.clone(),
            ph,
            ts,
            pid: self.pid,
            tid: self.tid,
            cat: category(bar),
            id: Some(self.asynchronous),
            args,
        };
        let pair = [
            event("b", begin, args.into_iter().collect()),
            event("e", end, Map::new()),
        ];
        self.events.extend(pair);
    }
}

fn category(bar: &Bar) -> &'static str {
    match (bar.kind, bar.activity) {
        (BarKind::Phase, _) => "phase",
        (BarKind::Group, _) => "group",
        (BarKind::Service, _) => "service",
        (BarKind::Activity, Some(activity)) => activity.as_str(),
        (BarKind::Activity, None) => "activity",
    }
}

fn arguments(bar: &Bar) -> [(&'static str, Value); 3] {
    let waits = bar.waits.iter();
    let waits: Map<String, Value> = waits
        .map(|wait| (wait.cause.as_str().to_owned(), wait.us.into()))
        .collect();
    [
        ("outcome", json!(bar.outcome)),
        ("critical", bar.critical.into()),
        ("waits_us", waits.into()),
    ]
}
