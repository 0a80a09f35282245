//! Measures offer → accept, and slot free → next first step, by the times of the events in the journal. Offer → accept:
//! decide, journal, send, answer, decide. A slot is free when the agent has cleaned up its previous cell.

use crate::agents::{Crew, Manner, Work};
use crate::rig::Fleet;
use crate::{row, runs, spread};
use phalanx_shared::event::{EventKind, Recorded};
use phalanx_shared::time::Timestamp;
use std::collections::HashMap;
use std::time::Duration;

/// Slots of all agents together: the largest number of cells.
const SLOTS: u32 = 1_000;
/// Numbers of cells, each with the number of rounds that give enough samples.
const CELLS: [(u32, u32); 3] = [(27, 12), (180, 4), (1_000, 2)];

pub async fn all() {
    for agents in [1, 10, 1_000] {
        let fleet = Fleet::new();
        let at = fleet.serve();
        let manner = Manner {
            slots: SLOTS / agents,
            labels: vec![],
            work: Work::Step(300, 700),
        };
        let _crew = Crew::connect(&at.url(), agents, manner).await;
        for (cells, rounds) in CELLS {
            let on = format!("{cells} cells on {agents} agents");
            let (mut burst, mut steady, mut next) = (Vec::new(), Vec::new(), Vec::new());
            let mut whole = Vec::new();
            let abreast = cells.div_ceil(9);
            for _ in 0..rounds {
                let run = runs::submit(&at, runs::spec(cells, "", "")).await;
                let events = runs::events(&at, &run).await;
                whole.push(all_taken(&events));
                burst.extend(offers(&events));
            }
            for _ in 0..rounds.div_ceil(4) {
                let strategy = format!("max-parallel: {abreast},");
                let run = runs::submit(&at, runs::spec(cells, &strategy, "")).await;
                let events = runs::events(&at, &run).await;
                steady.extend(offers(&events));
                next.extend(successions(&events, abreast));
            }
            let note = |values: &[Duration]| format!("{} of them", values.len());
            let at_once = format!("offer → accept, {on}, all offered at once, p50 / p99");
            row(&at_once, &spread(burst.clone()), &note(&burst));
            let all =
                format!("submitted → the last of {on} accepted, all offered at once, p50 / p99");
            row(&all, &spread(whole.clone()), &note(&whole));
            let few = format!("offer → accept, {on}, {abreast} at a time, p50 / p99");
            row(&few, &spread(steady.clone()), &note(&steady));
            let free = format!("slot free → next first step, {on}, {abreast} at a time, p50 / p99");
            row(&free, &spread(next.clone()), &note(&next));
        }
    }
}

fn offers(events: &[Recorded]) -> Vec<Duration> {
    let mut offered = HashMap::new();
    let mut took = Vec::new();
    for Recorded { event, .. } in events {
        match &event.kind {
            EventKind::CellOffered { token, .. } => {
                offered.insert(token.clone(), event.at);
            }
            EventKind::CellAccepted { token } => {
                took.push(event.at.since(offered[token]));
            }
            EventKind::CellReturned { reason, .. } => panic!("an offer came back: {reason}"),
            _ => {}
        }
    }
    took
}

/// Returns the time from the submission until every cell was accepted.
fn all_taken(events: &[Recorded]) -> Duration {
    let submitted = events.first().map(|first| first.event.at);
    let accepted = |r: &&Recorded| matches!(r.event.kind, EventKind::CellAccepted { .. });
    let last = events.iter().filter(accepted).map(|r| r.event.at).max();
    last.zip(submitted)
        .map(|(last, submitted)| last.since(submitted))
        .expect("a run that was submitted and whose cells were accepted")
}

/// Returns the time between each freed slot and the next first step: the n-th cell beyond those that start at once
/// takes the n-th freed slot.
fn successions(events: &[Recorded], abreast: u32) -> Vec<Duration> {
    let of = |wanted: fn(&EventKind) -> bool| {
        let found = events.iter().filter(|r| wanted(&r.event.kind));
        let mut times: Vec<Timestamp> = found.map(|recorded| recorded.event.at).collect();
        times.sort();
        times
    };
    let freed = of(|kind| matches!(kind, EventKind::TornDown { .. }));
    let begun = of(|kind| matches!(kind, EventKind::StepStarted { .. }));
    let next = begun.into_iter().skip(abreast as usize);
    let pairs = next.zip(freed);
    pairs.map(|(begun, freed)| begun.since(freed)).collect()
}
