//! Checks the promises from outside the cores: what is on disk, and which attempts still run. `seats.rs` checks waiting
//! cells, `losses.rs` lost attempts.

use super::plan::{self, Made};
use super::tally::Tally;
use super::world::{Res, TICK, World};
use phalanx_shared::event::{EventKind, Recorded};
use phalanx_shared::id::{AgentId, CellId, RunId, Token};
use phalanx_shared::invariant::{self, Outcomes, Sequences, Violation};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::run_state::{CellState, RunState};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub fn broken(invariant: &'static str, what: String) -> Violation {
    Violation { invariant, what }
}

/// What survives every crash of the coordinator.
#[derive(Default)]
pub struct Disk {
    pub epoch: u64,
    /// Until when the disk is full.
    pub full_until: Duration,
    pub runs: BTreeMap<RunId, Kept>,
}

/// A run on disk.
pub struct Kept {
    pub text: String,
    pub made: Made,
    pub journal: Vec<Recorded>,
    pub settled: bool,
    pub priority: i32,
    /// The value of its secret, which must not be in the journal.
    pub secret: String,
    sequences: Sequences,
    /// The fold of the journal, which also checks I2.
    outcomes: Outcomes,
    /// Last sequence number of each cell's attempts.
    last: BTreeMap<CellId, BTreeMap<u32, u64>>,
}

impl Kept {
    /// Returns the fold of the journal.
    pub fn state(&self) -> &RunState {
        self.outcomes.state()
    }

    /// **I2** Each cell ends in exactly one outcome, and positions have no gaps.
    fn push(&mut self, recorded: Recorded) -> Res {
        self.outcomes.take(&recorded.event)?;
        let (position, expected) = (recorded.position, self.journal.len() as u64 + 1);
        self.journal.push(recorded);
        if position == expected {
            return Ok(());
        }
        let what = format!("position {position} is written where {expected} should be");
        Err(broken("I2", what))
    }
}

impl Disk {
    pub fn submit(
        &mut self,
        run: RunId,
        text: String,
        made: Made,
        secret: String,
        first: Recorded,
    ) -> Res {
        let mut kept = Kept {
            text,
            made,
            journal: Vec::new(),
            settled: false,
            priority: i32::from(self.runs.len() == 2),
            secret,
            sequences: Sequences::default(),
            outcomes: Outcomes::new(run.clone()),
            last: BTreeMap::new(),
        };
        kept.push(first)?;
        self.runs.insert(run, kept);
        Ok(())
    }

    pub fn open_runs(&self) -> Vec<RunId> {
        let open = |(run, kept): (&RunId, &Kept)| (!kept.settled).then(|| run.clone());
        self.runs.iter().filter_map(open).collect()
    }

    pub fn append(
        &mut self,
        run: &RunId,
        events: &[Recorded],
        twice: bool,
        tally: &mut Tally,
    ) -> Res {
        let Some(kept) = self.runs.get_mut(run) else {
            return Ok(());
        };
        for recorded in events {
            let event = &recorded.event;
            invariant::said_by_the_right_one(event)?;
            kept.sequences.take(event)?;
            let text = serde_json::to_vec(&event.kind).unwrap_or_default();
            invariant::no_secret("the journal", &text, [kept.secret.as_str()])?;
            if let Some(attempt) = &event.attempt {
                let of_cell = kept.last.entry(attempt.cell.clone()).or_default();
                let last = of_cell.entry(attempt.attempt).or_default();
                *last = (*last).max(event.seq);
            }
            match &event.kind {
                EventKind::AttemptFinished { .. } => tally.count("attempt finished"),
                EventKind::AttemptLost { .. } => tally.count("attempt lost"),
                EventKind::CellOffered { token, .. } if token.attempt > 1 => {
                    tally.count("cell tried again")
                }
                EventKind::CellFinished {
                    reason: Some(reason),
                    ..
                } if reason.starts_with("quarantined") => {
                    tally.count("cell quarantined");
                }
                EventKind::CellFinished { .. } if twice => kept.push(recorded.clone())?,
                _ => {}
            }
            kept.push(recorded.clone())?;
        }
        Ok(())
    }

    pub fn settle(&mut self, run: &RunId) {
        if let Some(kept) = self.runs.get_mut(run) {
            kept.settled = true;
        }
    }

    pub fn last(&self, token: &Token) -> u64 {
        let of_cell = self
            .runs
            .get(&token.run)
            .and_then(|kept| kept.last.get(&token.cell));
        let last = of_cell.and_then(|of_cell| of_cell.get(&token.attempt));
        last.copied().unwrap_or(0)
    }

    /// **I1** Acknowledged events are on disk.
    pub fn is_durable(&self, token: &Token, seq: u64) -> Res {
        let last = self.last(token);
        if seq <= last {
            return Ok(());
        }
        Err(broken(
            "I1",
            format!("{token} is acknowledged up to {seq}, on disk up to {last}"),
        ))
    }

    /// **I5** The same spec gives the same plan.
    pub fn plans_the_same(&self, run: &RunId, changed: bool) -> Res {
        let Some(kept) = self.runs.get(run) else {
            return Ok(());
        };
        let text = if changed {
            plan::spec(0, true, true)
        } else {
            kept.text.clone()
        };
        let again = plan::plan(&text).map_err(|problem| broken("I5", problem))?;
        if again == kept.made.plan {
            return Ok(());
        }
        let (then, now) = (&kept.made.plan.digest, &again.digest);
        Err(broken(
            "I5",
            format!("run {run} was planned as {then}, now {now}"),
        ))
    }

    /// Checks at the end that every run has its outcome.
    pub fn all_finished(&self) -> Res {
        for (run, kept) in &self.runs {
            let over = |r: &Recorded| matches!(r.event.kind, EventKind::RunFinished { .. });
            if !kept.journal.iter().any(over) {
                return Err(broken("I2", format!("run {run} has no outcome")));
            }
        }
        Ok(())
    }
}

impl World {
    /// Checks the promises after every step, except those that the step can't have affected. I1, I4 and the journal's
    /// half of I7 are checked where something is written, acknowledged or released.
    pub fn check(&mut self) -> Res {
        if let (Some(center), true) = (&self.center, self.crowded) {
            center.seats.check()?;
        }
        self.crowded = false;
        if std::mem::take(&mut self.ticked) {
            self.nothing_outlives()?;
            if self.now.subsec_millis() == 0 {
                self.dead_agents_hold_nothing()?;
            }
        }
        Ok(())
    }

    /// **I2** at the gate: events pass it only for an attempt that the run holds, from the agent that holds it.
    pub fn passed_rightly(&self, agent: &AgentId, token: &Token) -> Res {
        let run = self.center.as_ref().and_then(|c| c.runs.get(&token.run));
        if run.is_some_and(|run| run.held_by(agent).contains(token)) {
            return Ok(());
        }
        Err(broken(
            "I2",
            format!("late events of {token} from {agent} passed the gate"),
        ))
    }

    /// The lease: when the coordinator gives up a silent agent, the agent has already ended its attempts.
    pub fn agent_stopped_first(&self, agent: &AgentId) -> Res {
        let machine = self.machines.iter().find(|m| m.about.agent == *agent);
        // A frozen process does nothing; once it continues, its own clock ends the attempts.
        let machine = machine.filter(|m| !m.is_frozen(self.now.saturating_sub(TICK)));
        let running: BTreeSet<&Token> = machine
            .and_then(|m| m.link.as_ref())
            .map(|link| link.running().collect())
            .unwrap_or_default();
        let center = self.center.as_ref();
        let given = |token: &&&Token| {
            let run = center.and_then(|c| c.runs.get(&token.run));
            run.is_some_and(|run| run.held_by(agent).contains(token))
        };
        match running.iter().find(given) {
            None => Ok(()),
            Some(token) => Err(broken(
                "lease",
                format!("{agent} is given up and still runs {token}"),
            )),
        }
    }

    /// Describes the unfinished runs and their cells, for the message when time runs out.
    pub fn unfinished(&self) -> String {
        let mut open = Vec::new();
        for (run, kept) in &self.disk.runs {
            if !kept.settled {
                let of = |c: &CellState| (c.status, c.outcome.map(Outcome::as_str));
                let cells: Vec<_> = kept.state().cells.values().map(of).collect();
                open.push(format!("{run}: {cells:?}"));
            }
        }
        if !self.nobody_prepares() {
            open.push("an agent prepares images that no cell needs".to_owned());
        }
        open.join("; ")
    }
}
