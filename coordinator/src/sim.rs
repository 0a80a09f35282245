//! The simulator: runs the real cores of both sides (scheduler, runs, sessions, links, spools, sequences, verdicts, the
//! reaper's decision, plan, fold and masks) in one thread, with simulated time, network, disks, clocks and engines, and
//! with faults in each. It checks the invariants after every step.
//!
//! ```text
//! world.rs    the agenda: what happens next                         disasters.rs  crashes, cuts, partitions, freezes, jumps, lies
//! machine.rs, agents.rs   agents: Link + Spool on a small disk      network.rs    what is lost, late, doubled, out of order
//! cell.rs     attempts: Sequence + verdict + masks                  engine.rs     objects, the reaper, I3
//! center.rs, facts.rs, deliver.rs   the coordinator: sessions, scheduler, runs, a journal durable only after a commit
//! checks.rs   I1, I2, I4, I5, the lease    seats.rs  I6    losses.rs  I7, I8      tally.rs  which faults and recoveries were seen
//! ```
//! A world has three or four agents, two of them on one engine, and two or three runs with twenty or more cells. It
//! suffers many disasters within half a simulated minute. Then it is calm, and everything must end and leave nothing
//! behind. The seed decides everything, so a failure prints the command line that reproduces it. Not simulated: bytes
//! of logs, and planning on another machine.

mod agents;
mod cell;
mod center;
mod checks;
mod deliver;
mod disasters;
mod engine;
mod losses;
mod machine;
mod network;
pub(crate) mod plan;
mod random;
mod reports;
mod seats;
mod tally;
mod world;

use tally::Tally;
use world::World;

/// Breaks one promise on purpose, to show that the simulator detects it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Switch {
    /// Breaks nothing.
    None,
    /// The gate lets everything in (I2).
    GateOff,
    /// Each cell gets a second outcome in the journal (I2).
    OutcomeTwice,
    /// Events are acknowledged before the commit (I1).
    AcknowledgedEarly,
    /// A restarted coordinator plans another matrix (I5).
    PlanChanges,
    /// The scheduler's decisions aren't carried out (I6).
    SchedulerIdle,
    /// Agents assume a longer lease than they were given.
    LeaseStretched,
    /// The reaper doesn't remove what clean-up left (I3).
    ReaperIdle,
    /// Secrets aren't masked (I4).
    MaskOff,
    /// A restarted coordinator ignores the attempts that agents still run (I7).
    Forgetful,
    /// A full disk loses events that should be journaled (I1).
    LosesWhenFull,
    /// A dead agent is treated as alive (I8).
    DeadAgentKept,
    /// A cut connection is treated as a dead agent (I8).
    CutIsDeath,
    /// A live agent may hold an attempt forever.
    NeverOverdue,
    /// Agents never hear that no cell needs an image any more.
    ListsKept,
}

/// Runs one world to its end. Returns what it saw, or which promise broke.
fn simulate(seed: u64, switch: Switch) -> Result<Tally, String> {
    World::new(seed, switch).run()
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn every_seed_keeps_the_promises() {
    if let Some(seed) = number_from("PHALANX_SIM_SEED") {
        let tally = simulate(seed, Switch::None).unwrap_or_else(|broken| panic!("{broken}"));
        say(&tally.to_string());
        return;
    }
    let seeds = number_from("PHALANX_SIM_SEEDS").unwrap_or(300);
    // Two workers, since CI machines are small; the worlds are independent anyway.
    let halves: Vec<_> = (0..2)
        .map(|worker| {
            std::thread::spawn(move || {
                let mut tally = Tally::default();
                for seed in (0..seeds).filter(|seed| seed % 2 == worker) {
                    let world = std::panic::catch_unwind(|| simulate(seed, Switch::None));
                    match world {
                        Ok(Ok(seen)) => tally.add(&seen),
                        Ok(Err(broken)) => return Err(reproduction(seed, &broken)),
                        Err(_) => return Err(reproduction(seed, "a core panicked")),
                    }
                }
                Ok(tally)
            })
        })
        .collect();
    let mut tally = Tally::default();
    for half in halves {
        match half.join() {
            Ok(Ok(seen)) => tally.add(&seen),
            Ok(Err(line)) => panic!("{line}"),
            Err(_) => panic!("a worker panicked"),
        }
    }
    say(&format!("{seeds:>9} seeds\n{tally}"));
    if seeds >= 200 {
        assert_eq!(tally.never(), Vec::<&str>::new(), "never happened");
    }
}

/// Writes to the real stdout, because the output is useful even when the test passes. `.ci/run` looks for the first
/// word.
fn say(text: &str) {
    use std::io::Write;
    let lines: String = text
        .lines()
        .map(|line| format!("simulation {line}\n"))
        .collect();
    let _ = write!(std::io::stdout().lock(), "\n{lines}");
}

fn reproduction(seed: u64, broken: &str) -> String {
    format!(
        "seed {seed}: {broken}\nPHALANX_SIM_SEED={seed} cargo test -p phalanx-coordinator --lib sim::every_seed -- --nocapture"
    )
}

/// Checks that one of the first seeds detects the broken promise and names it.
fn turns_red(switch: Switch, promise: &str) {
    let broken = (0..200).find_map(|seed| simulate(seed, switch).err());
    match broken {
        Some(broken) => assert!(
            broken.contains(promise),
            "{switch:?} broke another promise: {broken}"
        ),
        None => panic!("{switch:?} wasn't noticed by any seed"),
    }
}

#[test]
fn images_that_nobody_needs_any_more_are_noticed() {
    turns_red(Switch::ListsKept, "prepares images");
}

#[test]
fn a_gate_that_lets_everything_in_is_noticed() {
    turns_red(Switch::GateOff, "I2");
}

#[test]
fn a_second_outcome_is_noticed() {
    turns_red(Switch::OutcomeTwice, "I2");
}

#[test]
fn an_acknowledgement_before_the_commit_is_noticed() {
    turns_red(Switch::AcknowledgedEarly, "I1");
}

#[test]
fn a_plan_that_changes_is_noticed() {
    turns_red(Switch::PlanChanges, "I5");
}

#[test]
fn a_scheduler_that_sits_idle_is_noticed() {
    turns_red(Switch::SchedulerIdle, "I6");
}

#[test]
fn an_agent_that_outlives_its_lease_is_noticed() {
    turns_red(Switch::LeaseStretched, "lease");
}

#[test]
fn a_reaper_that_sits_idle_is_noticed() {
    turns_red(Switch::ReaperIdle, "I3");
}

#[test]
fn a_secret_that_is_not_masked_is_noticed() {
    turns_red(Switch::MaskOff, "I4");
}

#[test]
fn a_restart_that_forgets_what_runs_is_noticed() {
    turns_red(Switch::Forgetful, "I7");
}

#[test]
fn a_disk_that_swallows_events_when_it_is_full_is_noticed() {
    turns_red(Switch::LosesWhenFull, "I1");
}

#[test]
fn an_attempt_that_outlives_its_agent_is_noticed() {
    turns_red(Switch::DeadAgentKept, "I8");
}

#[test]
fn an_attempt_that_is_never_overdue_is_noticed() {
    turns_red(Switch::NeverOverdue, "no end in sight");
}

#[test]
fn a_cut_that_is_taken_for_a_death_is_noticed() {
    turns_red(Switch::CutIsDeath, "I8");
}
