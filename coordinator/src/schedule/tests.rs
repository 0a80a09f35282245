#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::core::*;
use super::expected::History;
use super::{Constraint, Waiting, Wish};
use crate::dispatch::contract::AgentInfo;
use crate::journal::{Past, PastSnapshot};
use phalanx_proto::link::{Ahead, AheadState, HeldSnapshot, Snapshots};
use phalanx_shared::id::{AgentId, CellId, RunId, Token};
use phalanx_shared::plan::{PlannedCell, Resources, WantedImage};
use phalanx_shared::policy::{Allow, Need, Rule, Rules};
use phalanx_shared::time::Timestamp;
use proptest::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

const NOW: Duration = Duration::from_secs(100);

fn token(run: &str, cell: &str, attempt: u32) -> Token {
    Token {
        run: run.into(),
        cell: cell.into(),
        attempt,
        epoch: 1,
    }
}

fn agent(id: &str, slots: u32, labels: &[&str]) -> AgentInfo {
    AgentInfo {
        id: id.into(),
        name: id.into(),
        version: "0".into(),
        labels: labels.iter().map(|l| (*l).to_owned()).collect(),
        slots,
        resources: Resources {
            millicpus: 8_000,
            memory_bytes: 8 << 30,
            subnets: 100,
        },
        images: vec![],
        policy: None,
        ahead: Some(2),
        snapshots: Default::default(),
    }
}

fn request(run: &str, cell: &str) -> CellRequest {
    CellRequest {
        token: token(run, cell, 1),
        labels: vec![],
        avoids: vec![],
        resources: Resources::default(),
        images: vec![],
        expected_ms: 0,
        needs: Vec::new(),
        wish: None,
    }
}

/// The list of an agent that keeps snapshots of these families.
pub(super) fn keeping(families: &[&str]) -> Arc<Snapshots> {
    let held = families.iter().map(|family| HeldSnapshot {
        key: "ab".repeat(32),
        family: (*family).to_owned(),
        spec: "shop".to_owned(),
        group: "prepare".to_owned(),
        bytes: 1,
        made: Timestamp(0),
        used: Timestamp(0),
        run: "r".into(),
        cell: "c".into(),
        cell_name: "c".to_owned(),
        setup_us: 1,
        save_us: 1,
    });
    Arc::new(Snapshots {
        held: held.collect(),
        ..Snapshots::default()
    })
}

/// A cell that takes ten times as long without a snapshot of its family.
fn wishing(cell: &str, family: &str, expected_ms: u64) -> CellRequest {
    CellRequest {
        expected_ms,
        wish: Some(Wish {
            family: family.to_owned(),
            restored_ms: Some(expected_ms / 10),
            making_ms: Some(expected_ms / 2),
        }),
        ..request("r", cell)
    }
}

/// A scheduler and a record of where each attempt runs.
struct Bench {
    scheduler: Scheduler,
    placed: HashMap<Token, AgentId>,
    order: Vec<Token>,
    prefetched: Vec<(AgentId, Vec<WantedImage>)>,
    wake: Option<Duration>,
}

impl Bench {
    fn new() -> Self {
        Self::with_label_limits(BTreeMap::new())
    }

    fn with_label_limits(limits: BTreeMap<String, u32>) -> Self {
        Bench {
            scheduler: Scheduler::new(limits),
            placed: HashMap::new(),
            order: vec![],
            prefetched: vec![],
            wake: None,
        }
    }

    fn at(&mut self, now: Duration, input: Input) {
        for effect in self.scheduler.handle(input, now) {
            match effect {
                Effect::Assign { token, agent } => {
                    self.order.push(token.clone());
                    self.placed.insert(token, agent);
                }
                Effect::Prefetch { agent, images } => self.prefetched.push((agent, images)),
                Effect::WakeAt(at) => self.wake = Some(at),
            }
        }
    }

    fn tell(&mut self, input: Input) {
        self.at(NOW, input);
    }

    fn run(&mut self, run: &str, limits: RunLimits) {
        let run = run.into();
        self.tell(Input::RunAdded { run, limits });
    }

    fn queue(&mut self, run: &str, cells: Vec<CellRequest>) {
        let run = run.into();
        self.tell(Input::Queued { run, cells });
    }

    fn up(&mut self, agent: AgentInfo) {
        let holding = vec![];
        self.tell(Input::AgentUp { agent, holding });
    }

    fn release(&mut self, token: &Token) {
        self.placed.remove(token);
        let token = token.clone();
        self.tell(Input::Released { token });
    }

    fn why(&self, run: &str, cell: &str) -> Waiting {
        self.scheduler.why(&run.into(), &cell.into(), NOW)
    }

    fn cells(&self) -> Vec<&str> {
        self.order.iter().map(|t| t.cell.as_str()).collect()
    }
}

#[test]
fn the_longest_expected_cell_starts_first() {
    let mut b = Bench::new();
    b.run("r", RunLimits::default());
    let cell = |id: &str, expected_ms| CellRequest {
        expected_ms,
        ..request("r", id)
    };
    b.queue(
        "r",
        vec![cell("a", 10), cell("b", 30), cell("c", 20), cell("d", 30)],
    );
    b.up(agent("x", 8, &[]));
    assert_eq!(b.cells(), ["b", "d", "c", "a"]);
}

#[test]
fn an_agent_that_comes_again_with_other_labels_gets_only_what_they_allow() {
    let mut b = Bench::with_label_limits([("gpu".to_owned(), 1)].into());
    b.run("r", RunLimits::default());
    let cell = |id: &str| CellRequest {
        labels: vec!["gpu".to_owned()],
        ..request("r", id)
    };
    b.queue("r", vec![cell("a"), cell("b")]);
    b.up(agent("y", 1, &["gpu"]));
    // There is room for the second cell, but its label's limit holds it back.
    b.up(agent("x", 1, &["gpu"]));
    b.tell(Input::AgentLost { agent: "x".into() });
    b.up(agent("x", 1, &[]));
    b.release(&token("r", "a", 1));
    assert_eq!(b.placed[&token("r", "b", 1)].as_str(), "y");
}

#[test]
fn cells_are_spread_before_they_are_packed() {
    let mut b = Bench::new();
    b.run("r", RunLimits::default());
    for id in ["x", "y", "z"] {
        b.up(agent(id, 4, &[]));
    }
    b.queue("r", (0..6).map(|n| request("r", &n.to_string())).collect());
    for id in ["x", "y", "z"] {
        assert_eq!(b.placed.values().filter(|a| a.as_str() == id).count(), 2);
    }
}

#[test]
fn an_agent_that_holds_the_images_is_preferred_until_half_full() {
    let mut b = Bench::new();
    b.run("r", RunLimits::default());
    b.up(agent("a-cold", 4, &[]));
    b.up(AgentInfo {
        images: vec!["pg".into()],
        ..agent("b-warm", 4, &[])
    });
    let cell = |n: usize| CellRequest {
        images: vec!["pg".into()],
        ..request("r", &n.to_string())
    };
    b.queue("r", (0..2).map(cell).collect());
    assert!(b.placed.values().all(|a| a.as_str() == "b-warm"));
    b.queue("r", (2..4).map(cell).collect());
    assert!(b.placed.values().any(|a| a.as_str() == "a-cold"));
}

#[test]
fn a_cell_goes_where_its_snapshot_is_kept_and_elsewhere_rather_than_wait() {
    let mut b = Bench::new();
    b.run("r", RunLimits::default());
    b.up(agent("a-cold", 4, &[]));
    b.up(agent("b-warm", 4, &[]));
    let snapshots = keeping(&["f"]);
    let agent = "b-warm".into();
    b.tell(Input::Snapshots { agent, snapshots });
    let cell = |n: usize| wishing(&n.to_string(), "f", 100_000);
    b.queue("r", (0..4).map(cell).collect());
    assert!(b.placed.values().all(|a| a.as_str() == "b-warm"));
    b.queue("r", vec![cell(4), wishing("other", "g", 100_000)]);
    let on_cold = b.placed.values().filter(|a| a.as_str() == "a-cold");
    assert_eq!(on_cold.count(), 2);
    // What is recorded is the time that is expected on the agent of each.
    let expected = |cell: &str| b.scheduler.placement(&token("r", cell, 1)).expected_ms;
    assert_eq!(expected("0"), Some(10_000));
    assert_eq!(expected("4"), Some(100_000));
    // It is removed, so the agents are alike again.
    for n in 0..5 {
        b.release(&token("r", &n.to_string(), 1));
    }
    b.release(&token("r", "other", 1));
    let (agent, snapshots) = ("b-warm".into(), keeping(&[]));
    b.tell(Input::Snapshots { agent, snapshots });
    b.queue("r", vec![wishing("late", "h", 100_000)]);
    assert_eq!(b.placed[&token("r", "late", 1)].as_str(), "a-cold");
}

#[test]
fn a_cell_joins_one_that_makes_its_snapshot_if_that_is_sooner() {
    let mut b = Bench::new();
    b.run("r", RunLimits::default());
    b.up(agent("x", 4, &[]));
    b.up(agent("y", 4, &[]));
    b.queue("r", vec![wishing("0", "f", 100_000)]);
    let maker = b.placed[&token("r", "0", 1)].clone();
    // After 25 of the 50 seconds that making takes, waiting for it takes a third of making another one.
    let (run, cells) = ("r".into(), vec![wishing("1", "f", 100_000)]);
    b.at(NOW + Duration::from_secs(25), Input::Queued { run, cells });
    assert_eq!(b.placed[&token("r", "1", 1)], maker);
    // What is made elsewhere is no reason to stay away from the least loaded agent.
    b.queue("r", vec![wishing("2", "g", 100_000)]);
    assert_ne!(b.placed[&token("r", "2", 1)], maker);
}

#[test]
fn waiting_cells_are_expected_to_take_less_once_some_agent_keeps_their_snapshot() {
    let order = |kept: &[&str]| {
        let mut b = Bench::new();
        b.run("r", RunLimits::default());
        b.up(agent("busy", 1, &[]));
        b.queue("r", vec![wishing("first", "none", 1)]);
        let plain = CellRequest {
            expected_ms: 50_000,
            ..request("r", "plain")
        };
        b.queue("r", vec![wishing("kept", "f", 100_000), plain]);
        b.up(AgentInfo {
            labels: vec!["elsewhere".to_owned()],
            snapshots: keeping(kept),
            ..agent("other", 0, &[])
        });
        b.release(&token("r", "first", 1));
        b.cells().join(" ")
    };
    assert_eq!(order(&[]), "first kept");
    assert_eq!(order(&["f"]), "first plain");
}

#[test]
fn images_of_waiting_cells_are_pulled_ahead_by_at_most_one_agent_per_cell() {
    let mut b = Bench::new();
    b.run("r", RunLimits::default());
    b.run("other", RunLimits::default());
    for id in ["x", "y", "z"] {
        b.up(agent(id, 1, &[]));
    }
    b.queue(
        "other",
        (0..3).map(|n| request("other", &n.to_string())).collect(),
    );
    let cell = CellRequest {
        images: vec!["pg".into()],
        ..request("r", "a")
    };
    b.prefetched.clear();
    b.queue("r", vec![cell]);
    assert_eq!(b.prefetched, [("x".into(), vec!["pg".into()])]);
}

/// Returns a cell that needs images.
fn needs(run: &str, cell: &str, images: &[&str]) -> CellRequest {
    CellRequest {
        images: images.iter().map(|image| (*image).into()).collect(),
        ..request(run, cell)
    }
}

/// Returns the last list of each agent, as ids.
fn lists(b: &Bench) -> BTreeMap<String, Vec<String>> {
    let ids = |images: &Vec<WantedImage>| images.iter().map(|i| i.id().to_owned()).collect();
    let lists = b.prefetched.iter();
    lists
        .map(|(agent, list)| (agent.to_string(), ids(list)))
        .collect()
}

fn states(b: &mut Bench, agent: &str, states: &[(&str, AheadState)]) {
    let images = states.iter().map(|(id, state)| Ahead {
        id: (*id).to_owned(),
        state: state.clone(),
    });
    b.tell(Input::Ahead {
        agent: agent.into(),
        images: images.collect(),
    });
}

#[test]
fn an_agent_prepares_what_cells_on_it_lack_before_what_waiting_cells_will_need() {
    let mut b = Bench::new();
    b.run("r", RunLimits::default());
    b.up(AgentInfo {
        images: vec!["redis".into()],
        ..agent("x", 1, &[])
    });
    b.queue(
        "r",
        vec![
            needs("r", "a", &["redis", "pg"]),
            needs("r", "b", &["mysql", "pg"]),
        ],
    );
    assert_eq!(lists(&b)["x"], ["pg", "mysql"]);
    // What is ready leaves the list, and what failed isn't tried again.
    states(
        &mut b,
        "x",
        &[("pg", AheadState::Ready), ("mysql", AheadState::Failed)],
    );
    assert_eq!(lists(&b)["x"], Vec::<String>::new());
    // A new Hello lets it be tried again.
    b.up(agent("x", 1, &[]));
    assert_eq!(lists(&b)["x"], ["pg", "redis", "mysql"]);
}

#[test]
fn an_agent_that_prepares_what_nobody_asked_for_hears_its_list_again() {
    let mut b = Bench::new();
    b.run("r", RunLimits::default());
    b.up(agent("x", 1, &[]));
    b.queue("r", vec![needs("r", "a", &["pg"])]);
    b.prefetched.clear();
    states(&mut b, "x", &[("pg", AheadState::Waiting)]);
    assert!(b.prefetched.is_empty());
    // A list without redis was lost on the way.
    let older = [
        ("redis", AheadState::Doing(String::new())),
        ("pg", AheadState::Waiting),
    ];
    states(&mut b, "x", &older);
    assert_eq!(lists(&b)["x"], ["pg"]);
}

#[test]
fn what_no_cell_needs_any_more_leaves_the_list() {
    let mut b = Bench::new();
    b.run("r", RunLimits::default());
    b.up(agent("x", 1, &[]));
    b.queue(
        "r",
        vec![
            needs("r", "a", &[]),
            needs("r", "b", &["pg"]),
            needs("r", "c", &["pg"]),
        ],
    );
    assert_eq!(lists(&b)["x"], ["pg"]);
    let withdrawn = |b: &mut Bench, cell: &str| {
        b.tell(Input::Withdrawn {
            run: "r".into(),
            tokens: vec![token("r", cell, 1)],
        });
    };
    withdrawn(&mut b, "b");
    assert_eq!(lists(&b)["x"], ["pg"], "another cell needs it");
    withdrawn(&mut b, "c");
    assert_eq!(lists(&b)["x"], Vec::<String>::new());
    // So does what a removed run needed.
    b.queue("r", vec![needs("r", "d", &["pg"])]);
    assert_eq!(lists(&b)["x"], ["pg"]);
    b.tell(Input::RunRemoved { run: "r".into() });
    assert_eq!(lists(&b)["x"], Vec::<String>::new());
}

#[test]
fn lists_are_short_and_go_on_when_images_are_ready() {
    let mut b = Bench::new();
    b.run("r", RunLimits::default());
    b.up(agent("x", 1, &[]));
    b.queue("r", vec![needs("r", "first", &[])]);
    let names: Vec<String> = (0..20).map(|n| format!("image{n:02}")).collect();
    let cells = names.iter().map(|name| needs("r", name, &[name]));
    b.queue("r", cells.collect());
    let mut seen: Vec<String> = lists(&b)["x"].clone();
    assert_eq!(seen.len(), 8);
    for _ in 0..names.len() {
        let Some(first) = lists(&b)["x"].first().cloned() else {
            break;
        };
        states(&mut b, "x", &[(&first, AheadState::Ready)]);
        let list = lists(&b)["x"].clone();
        assert!(list.len() <= 8);
        seen.extend(list);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen, names);
}

#[test]
fn an_agent_that_goes_leaves_its_share_to_others_and_one_that_may_not_gets_none() {
    let mut b = Bench::new();
    b.run("r", RunLimits::default());
    b.up(agent("x", 1, &[]));
    b.up(agent("y", 1, &[]));
    b.up(AgentInfo {
        ahead: Some(0),
        ..agent("never", 1, &[])
    });
    let busy = (0..3).map(|n| needs("r", &n.to_string(), &[]));
    b.queue("r", busy.collect());
    b.prefetched.clear();
    b.queue("r", vec![needs("r", "a", &["pg"])]);
    assert_eq!(b.prefetched, [("x".into(), vec!["pg".into()])]);
    b.tell(Input::AgentDraining { agent: "x".into() });
    assert_eq!(lists(&b)["x"], Vec::<String>::new());
    assert_eq!(lists(&b)["y"], ["pg"]);
    b.tell(Input::AgentLost { agent: "y".into() });
    assert!(!lists(&b).contains_key("never"));
}

#[test]
fn an_agent_of_an_earlier_version_is_told_names_and_nothing_is_taken_back() {
    let mut b = Bench::new();
    b.run("r", RunLimits::default());
    b.up(AgentInfo {
        ahead: None,
        ..agent("old", 1, &[])
    });
    b.queue(
        "r",
        vec![needs("r", "a", &[]), needs("r", "b", &["pg", "image 0a"])],
    );
    assert_eq!(b.prefetched, [("old".into(), vec!["pg".into()])]);
    b.tell(Input::RunRemoved { run: "r".into() });
    assert_eq!(b.prefetched.len(), 1);
}

#[test]
fn an_agent_says_nothing_of_images_that_it_was_not_asked_for() {
    let mut b = Bench::new();
    b.run("r", RunLimits::default());
    b.up(agent("x", 1, &[]));
    b.queue("r", vec![needs("r", "a", &[]), needs("r", "b", &["pg"])]);
    states(&mut b, "x", &[("mysql", AheadState::Ready)]);
    b.queue("r", vec![needs("r", "c", &["mysql"])]);
    assert_eq!(lists(&b)["x"], ["pg", "mysql"]);
    // What is told is what `why` shows.
    let doing = AheadState::Doing("1 of 2 layers done".to_owned());
    states(&mut b, "x", &[("pg", doing.clone())]);
    let shown = b.scheduler.prepares(&"r".into(), &"b".into());
    let image = Ahead {
        id: "pull pg".to_owned(),
        state: doing,
    };
    assert_eq!(shown.len(), 1);
    assert_eq!((shown[0].agent.as_str(), &shown[0].image), ("x", &image));
    assert!(b.scheduler.prepares(&"r".into(), &"a".into()).is_empty());
}

#[test]
fn runs_of_equal_priority_share_fairly_and_a_higher_one_goes_first() {
    let mut b = Bench::new();
    let cells = |run: &str| (0..9).map(|n| request(run, &format!("{run}{n}"))).collect();
    for run in ["r", "s"] {
        b.run(run, RunLimits::default());
        b.queue(run, cells(run));
    }
    b.run(
        "urgent",
        RunLimits {
            priority: 1,
            max_parallel: Some(2),
        },
    );
    b.queue("urgent", cells("urgent"));
    b.up(agent("x", 6, &[]));
    let of = |run: &str| b.order.iter().filter(|t| t.run.as_str() == run).count();
    assert_eq!((of("urgent"), of("r"), of("s")), (2, 2, 2));
}

#[test]
fn max_parallel_has_no_barrier() {
    let mut b = Bench::new();
    b.run(
        "r",
        RunLimits {
            priority: 0,
            max_parallel: Some(2),
        },
    );
    b.up(agent("x", 8, &[]));
    b.queue("r", (0..4).map(|n| request("r", &n.to_string())).collect());
    assert_eq!(b.cells(), ["0", "1"]);
    assert_eq!(
        b.why("r", "2"),
        Waiting::For(vec![Constraint::MaxParallel {
            running: 2,
            limit: 2
        }])
    );
    b.release(&token("r", "1", 1));
    assert_eq!(b.cells(), ["0", "1", "2"]);
}

#[test]
fn a_label_limit_holds_over_all_runs() {
    let mut b = Bench::with_label_limits([("gpu".to_owned(), 1)].into());
    b.up(agent("x", 8, &["gpu"]));
    let cell = |run: &str, id: &str| CellRequest {
        labels: vec!["gpu".into()],
        ..request(run, id)
    };
    for run in ["r", "s"] {
        b.run(run, RunLimits::default());
        b.queue(run, vec![cell(run, "a")]);
    }
    b.queue("s", vec![request("s", "plain")]);
    assert_eq!(b.cells(), ["a", "plain"]);
    assert!(
        matches!(b.why("s", "a"), Waiting::For(c) if matches!(c[0], Constraint::LabelLimit { .. }))
    );
    b.release(&token("r", "a", 1));
    assert_eq!(b.order.last().unwrap(), &token("s", "a", 1));
}

#[test]
fn a_waiting_cell_names_what_it_waits_for() {
    let mut b = Bench::new();
    b.run("r", RunLimits::default());
    let gib = |n: u64| Resources {
        memory_bytes: n << 30,
        ..Resources::default()
    };
    let labelled = CellRequest {
        labels: vec!["docker".into()],
        ..request("r", "labelled")
    };
    let huge = CellRequest {
        resources: gib(64),
        ..request("r", "huge")
    };
    b.queue("r", vec![labelled, huge]);
    let says = |b: &Bench, cell: &str| match b.why("r", cell) {
        Waiting::For(constraints) => constraints
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; "),
        other => format!("{other:?}"),
    };
    assert_eq!(says(&b, "labelled"), "no agent is connected");
    b.up(agent("x", 1, &["linux"]));
    assert_eq!(says(&b, "labelled"), "no agent offers label docker");
    assert_eq!(
        says(&b, "huge"),
        "needs 64.0GiB of memory, the largest agent with its labels has 8.0GiB"
    );
    let big = |id: &str| CellRequest {
        resources: gib(6),
        ..request("r", id)
    };
    b.up(agent("y", 2, &["linux"]));
    b.queue("r", vec![big("a"), big("b"), big("c")]);
    assert_eq!(
        says(&b, "c"),
        "agent x: its only slot is taken; agent y: 6.0GiB of memory wanted, 2.0GiB free"
    );
    assert_eq!(b.why("r", "nothing"), Waiting::Unknown);
}

#[test]
fn a_cell_avoids_the_pools_of_other_namespaces() {
    let mut b = Bench::new();
    b.run("r", RunLimits::default());
    b.up(agent("theirs", 4, &["pool=gpu"]));
    let cell = CellRequest {
        avoids: vec!["pool=gpu".to_owned()],
        ..request("r", "c")
    };
    b.queue("r", vec![cell]);
    assert!(b.placed.is_empty());
    let Waiting::For(why) = b.why("r", "c") else {
        panic!("{:?}", b.why("r", "c"));
    };
    let why: Vec<String> = why.iter().map(ToString::to_string).collect();
    assert_eq!(why.len(), 1);
    assert!(why[0].contains("pools of other namespaces"), "{why:?}");
    b.up(agent("shared", 4, &["pool=cpu"]));
    assert_eq!(b.cells(), ["c"]);
    let holders: Vec<&str> = b.placed.values().map(|agent| agent.as_str()).collect();
    assert_eq!(holders, ["shared"]);
}

#[test]
fn a_cell_goes_to_an_agent_whose_policy_allows_what_it_needs() {
    let mut b = Bench::new();
    b.run("r", RunLimits::default());
    let cell = |id: &str, needs: &[Need]| CellRequest {
        needs: needs.to_vec(),
        ..request("r", id)
    };
    let closed = |id: &str| AgentInfo {
        policy: Some(Rules::closed("policy.toml:1")),
        ..agent(id, 4, &[])
    };
    b.up(closed("a"));
    b.up(closed("b"));
    b.queue("r", vec![cell("plain", &[]), cell("runs", &[Need::run()])]);
    assert_eq!(b.cells(), ["plain"]);
    let Waiting::For(why) = b.why("r", "runs") else {
        panic!("{:?}", b.why("r", "runs"));
    };
    let why: Vec<String> = why.iter().map(ToString::to_string).collect();
    assert_eq!(
        why[0],
        "agent a: its policy refuses commands and processes on its host (rule `run`, policy.toml:1)"
    );
    assert_eq!(why.len(), 2);
    // The same agent comes back with another policy.
    let mut rules = Rules::closed("policy.toml:1");
    rules.set(Rule::Run, Allow::All, "policy.toml:2");
    b.up(AgentInfo {
        policy: Some(rules),
        ..closed("b")
    });
    assert_eq!(b.placed[&token("r", "runs", 1)], "b".into());
    // An agent that doesn't say what it allows is asked.
    let privileged = Need::new(Rule::Privileged, "");
    b.queue("r", vec![cell("privileged", &[privileged])]);
    assert!(!b.placed.contains_key(&token("r", "privileged", 1)));
    b.up(agent("silent", 1, &[]));
    assert_eq!(b.placed[&token("r", "privileged", 1)], "silent".into());
}

#[test]
fn an_agent_that_declined_is_asked_again_after_a_pause() {
    let mut b = Bench::new();
    b.run("r", RunLimits::default());
    b.up(agent("x", 1, &[]));
    b.queue("r", vec![request("r", "a")]);
    let decline = |attempt| Input::Declined {
        token: token("r", "a", attempt),
        reason: "disk full".into(),
    };
    b.tell(decline(1));
    let again = |attempt| CellRequest {
        token: token("r", "a", attempt),
        ..request("r", "a")
    };
    b.queue("r", vec![again(2)]);
    assert_eq!(b.order.len(), 1);
    assert!(
        matches!(b.why("r", "a"), Waiting::For(c) if c[0].to_string().contains("declined (disk full)"))
    );
    b.at(NOW + Duration::from_secs(1), Input::Tick);
    assert_eq!(b.order.len(), 2);
    b.at(NOW + Duration::from_secs(1), decline(2));
    assert_eq!(
        b.wake,
        Some(NOW + Duration::from_secs(3)),
        "the second pause is longer"
    );
}

#[test]
fn a_stale_release_ends_no_newer_reservation() {
    let mut b = Bench::new();
    b.run("r", RunLimits::default());
    b.up(agent("x", 1, &[]));
    b.queue("r", vec![request("r", "a")]);
    b.tell(Input::AgentLost { agent: "x".into() });
    b.queue(
        "r",
        vec![CellRequest {
            token: token("r", "a", 2),
            ..request("r", "a")
        }],
    );
    b.up(agent("x", 1, &[]));
    b.release(&token("r", "a", 1));
    b.queue("r", vec![request("r", "b")]);
    assert_eq!(
        b.order.last().unwrap(),
        &token("r", "a", 2),
        "the slot is still taken"
    );
}

#[test]
fn an_attempt_that_an_agent_kept_over_a_restart_takes_its_slot() {
    let mut b = Bench::new();
    b.run("r", RunLimits::default());
    b.queue("r", vec![request("r", "b")]);
    b.tell(Input::AgentUp {
        agent: agent("x", 1, &[]),
        holding: vec![request("r", "a")],
    });
    assert!(b.order.is_empty());
    b.release(&token("r", "a", 1));
    assert_eq!(b.cells(), ["b"]);
}

#[test]
fn an_agent_that_is_away_keeps_its_reservations_and_gets_nothing_new() {
    let mut b = Bench::new();
    b.run("r", RunLimits::default());
    b.up(agent("x", 2, &[]));
    b.queue("r", vec![request("r", "a")]);
    b.tell(Input::AgentDown { agent: "x".into() });
    b.queue("r", vec![request("r", "b"), request("r", "c")]);
    assert_eq!(b.cells(), ["a"]);
    b.up(agent("x", 2, &[]));
    assert_eq!(b.cells(), ["a", "b"]);
}

#[derive(Clone, Debug)]
enum Op {
    Up(u8, u8, u8),
    Down(u8),
    Lost(u8),
    Drain(u8),
    Queue(u8, u8, u8, u8),
    Release(prop::sample::Index),
    Decline(prop::sample::Index),
    Withdraw(u8, u8),
    Remove(u8),
    Tick(u16),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0u8..5, 1u8..4, 0u8..4).prop_map(|(a, s, l)| Op::Up(a, s, l)),
        1 => (0u8..5).prop_map(Op::Down),
        1 => (0u8..5).prop_map(Op::Lost),
        1 => (0u8..5).prop_map(Op::Drain),
        8 => (0u8..3, 0u8..20, 0u8..4, 0u8..6).prop_map(|(r, c, l, m)| Op::Queue(r, c, l, m)),
        6 => any::<prop::sample::Index>().prop_map(Op::Release),
        2 => any::<prop::sample::Index>().prop_map(Op::Decline),
        1 => (0u8..3, 0u8..20).prop_map(|(r, c)| Op::Withdraw(r, c)),
        1 => (0u8..3).prop_map(Op::Remove),
        2 => any::<u16>().prop_map(Op::Tick),
    ]
}

fn labels(bits: u8) -> Vec<String> {
    let all = ["docker", "arm"];
    let chosen = all.iter().enumerate().filter(|(n, _)| bits & (1 << n) != 0);
    chosen.map(|(_, l)| (*l).to_owned()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_cell_waits_in_vain_and_nothing_is_overbooked(ops in proptest::collection::vec(op(), 1..120)) {
        let mut b = Bench::with_label_limits([("arm".to_owned(), 2)].into());
        let mut now = NOW;
        let mut attempts: HashMap<(u8, u8), u32> = HashMap::new();
        for op in ops {
            let input = match op {
                Op::Up(a, slots, l) => {
                    let id = format!("agent{a}");
                    let labels = labels(l);
                    let agent = AgentInfo { labels, ..agent(&id, u32::from(slots), &[]) };
                    Input::AgentUp { agent, holding: vec![] }
                }
                Op::Down(a) => Input::AgentDown { agent: format!("agent{a}").into() },
                Op::Drain(a) => Input::AgentDraining { agent: format!("agent{a}").into() },
                Op::Lost(a) => {
                    let agent: AgentId = format!("agent{a}").into();
                    b.placed.retain(|_, on| *on != agent);
                    Input::AgentLost { agent }
                }
                Op::Queue(r, c, l, m) => {
                    let run = format!("run{r}");
                    b.at(now, Input::RunAdded { run: run.clone().into(), limits: RunLimits { priority: i32::from(r / 2), max_parallel: (r == 1).then_some(3) } });
                    let attempt = attempts.entry((r, c)).or_default();
                    let cell = format!("cell{c}");
                    if b.placed.keys().any(|t| t.run.as_str() == run && t.cell.as_str() == cell) {
                        continue;
                    }
                    *attempt += 1;
                    let request = CellRequest {
            avoids: Vec::new(),
                        token: token(&run, &cell, *attempt),
                        labels: labels(l),
                        resources: Resources { memory_bytes: u64::from(m) << 31, ..Resources::default() },
                        images: vec![],
                        expected_ms: u64::from(c) * 100,
                        needs: Vec::new(),
                        wish: None,
                    };
                    Input::Queued { run: run.into(), cells: vec![request] }
                }
                Op::Release(i) | Op::Decline(i) if b.placed.is_empty() => { let _ = i; continue }
                Op::Release(i) => {
                    let token = i.get(&b.placed.keys().cloned().collect::<Vec<_>>()).clone();
                    b.placed.remove(&token);
                    Input::Released { token }
                }
                Op::Decline(i) => {
                    let token = i.get(&b.placed.keys().cloned().collect::<Vec<_>>()).clone();
                    b.placed.remove(&token);
                    Input::Declined { token, reason: "no".into() }
                }
                Op::Withdraw(r, c) => {
                    let attempt = attempts.get(&(r, c)).copied().unwrap_or(0);
                    let token = token(&format!("run{r}"), &format!("cell{c}"), attempt);
                    Input::Withdrawn { run: token.run.clone(), tokens: vec![token] }
                }
                Op::Remove(r) => {
                    let run: RunId = format!("run{r}").into();
                    b.placed.retain(|t, _| t.run != run);
                    Input::RunRemoved { run }
                }
                Op::Tick(ms) => { now += Duration::from_millis(u64::from(ms)); Input::Tick }
            };
            b.at(now, input);
            prop_assert_eq!(b.scheduler.check(), Ok(()));
            for agent in b.scheduler.fleet.agents() {
                let mine = b.placed.values().filter(|a| **a == agent.info.id).count();
                prop_assert_eq!(mine, agent.held.len(), "the books agree about {}", agent.info.id);
            }
            for run in b.scheduler.runs.values() {
                prop_assert!(run.max_parallel.is_none_or(|limit| run.running <= limit));
            }
            let arm = b.scheduler.label_running.get("arm").copied().unwrap_or(0);
            prop_assert!(arm <= 2);
        }
    }

    #[test]
    fn no_agent_gets_more_than_it_has(cells in proptest::collection::vec((0u64..9, 0u64..9), 1..60), slots in 1u32..9) {
        let mut b = Bench::new();
        b.run("r", RunLimits::default());
        b.up(agent("x", slots, &[]));
        b.up(agent("y", slots, &[]));
        let requests: Vec<CellRequest> = cells.iter().enumerate().map(|(n, (cpus, gib))| CellRequest {
            resources: Resources { millicpus: cpus * 1000, memory_bytes: gib << 30, subnets: 1 },
            ..request("r", &n.to_string())
        }).collect();
        b.queue("r", requests.clone());
        for id in ["x", "y"] {
            let mine: Vec<&CellRequest> = requests.iter().filter(|r| b.placed.get(&r.token).is_some_and(|a| a.as_str() == id)).collect();
            let sum = mine.iter().fold(Resources::default(), |sum, r| sum.plus(&r.resources));
            prop_assert!(sum.fits(&agent(id, slots, &[]).resources));
            prop_assert!(mine.len() <= slots as usize);
        }
    }
}

#[test]
fn a_hundred_thousand_cells_on_a_thousand_agents_are_decided_quickly() {
    let mut b = Bench::new();
    b.run("r", RunLimits::default());
    for n in 0..1_000 {
        b.up(AgentInfo {
            resources: Resources {
                millicpus: 64_000,
                memory_bytes: 64 << 30,
                subnets: 100,
            },
            ..agent(&format!("agent{n:04}"), 8, &["docker"])
        });
    }
    let cells = (0..100_000u64).map(|n| CellRequest {
        labels: vec!["docker".into()],
        resources: Resources {
            millicpus: 1_000,
            memory_bytes: (n % 7) << 30,
            subnets: 1,
        },
        expected_ms: n % 977,
        ..request("r", &n.to_string())
    });
    let began = std::time::Instant::now();
    b.queue("r", cells.collect());
    assert_eq!(b.placed.len(), 8_000);
    while let Some(token) = b.placed.keys().next().cloned() {
        b.release(&token);
        if b.order.len() >= 20_000 {
            break;
        }
    }
    let each = began.elapsed() / 20_000;
    assert!(
        each < Duration::from_millis(2),
        "{each:?} per decision in a debug build"
    );
    println!("{each:?} per decision");
}

/// Runs cells of these lengths on 8 slots. Returns when the last one ends.
fn makespan(lengths: &[u64], known: bool) -> u64 {
    let mut b = Bench::new();
    b.run("r", RunLimits::default());
    b.up(agent("x", 8, &[]));
    let cells = lengths.iter().enumerate().map(|(n, length)| CellRequest {
        expected_ms: if known { *length } else { 0 },
        ..request("r", &n.to_string())
    });
    b.queue("r", cells.collect());
    let (mut now, mut ends, mut seen) = (0, vec![], 0);
    loop {
        for token in &b.order[seen..] {
            let length = lengths[token.cell.as_str().parse::<usize>().unwrap()];
            ends.push((now + length, token.clone()));
        }
        seen = b.order.len();
        ends.sort();
        if ends.is_empty() {
            return now;
        }
        let (at, token) = ends.remove(0);
        now = at;
        b.release(&token);
    }
}

#[test]
fn with_history_the_makespan_of_180_uneven_cells_is_within_a_twentieth_of_the_bound() {
    let mut lengths = vec![];
    for (a, b, c, d) in shape(3, 10, 2, 3) {
        lengths.push(2_000 + 9_000 * a + 700 * b * b + 4_000 * c + 2_500 * d);
    }
    let bound = (lengths.iter().sum::<u64>() / 8).max(*lengths.iter().max().unwrap());
    let known = makespan(&lengths, true);
    assert!(known * 100 <= bound * 105, "{known} over {bound}");
    assert!(known <= makespan(&lengths, false));
}

fn shape(a: u64, b: u64, c: u64, d: u64) -> impl Iterator<Item = (u64, u64, u64, u64)> {
    (0..a * b * c * d).map(move |n| (n / (b * c * d), n / (c * d) % b, n / d % c, n % d))
}

fn planned(id: &str, matrix: &[(&str, &str)]) -> PlannedCell {
    PlannedCell {
        id: CellId(id.into()),
        name: id.into(),
        matrix: matrix
            .iter()
            .map(|(k, v)| ((*k).to_owned(), json!(v)))
            .collect(),
        runs_on: vec![],
        experimental: false,
        resources: Resources::default(),
        timeout_ms: 0,
        attempts: 1,
        retries: 0,
    }
}

#[test]
fn an_unknown_cell_is_expected_to_take_as_long_as_its_nearest_kin() {
    let past = |id: &str, db: &str, v: &str, elapsed_ms| Past {
        cell: id.into(),
        matrix: vec![("db".into(), json!(db)), ("v".into(), json!(v))],
        elapsed_ms,
        snapshot: None,
    };
    let history = History::learn([
        past("a", "pg", "1", 100),
        past("b", "pg", "2", 200),
        past("c", "my", "1", 900),
    ]);
    assert_eq!(
        history.expected_ms(&planned("a", &[("db", "pg"), ("v", "1")])),
        100
    );
    // The cells closest to (pg, 3) are (pg, 1) and (pg, 2).
    assert_eq!(
        history.expected_ms(&planned("n", &[("db", "pg"), ("v", "3")])),
        150
    );
    assert_eq!(History::default().expected_ms(&planned("n", &[])), 0);
}

#[test]
fn times_with_and_without_a_snapshot_are_expected_apart() {
    let past = |id: &str, db: &str, elapsed_ms, snapshot| Past {
        cell: id.into(),
        matrix: vec![("db".into(), json!(db)), ("v".into(), json!("1"))],
        elapsed_ms,
        snapshot: Some(snapshot),
    };
    let missed = |making_ms| PastSnapshot::Missed { making_ms };
    let history = History::learn([
        past("a", "pg", 600, missed(Some(550))),
        past("a", "pg", 50, PastSnapshot::Restored),
        past("b", "my", 800, missed(None)),
    ]);
    let a = planned("a", &[("db", "pg"), ("v", "1")]);
    let b = planned("b", &[("db", "my"), ("v", "1")]);
    assert_eq!(history.expected_ms(&a), 600);
    assert_eq!(history.restored_ms(&a), Some(50));
    assert_eq!(history.making_ms(&a), Some(550));
    // What is known of a cell's kin counts for it, too.
    assert_eq!(history.expected_ms(&b), 800);
    assert_eq!(history.restored_ms(&b), Some(50));
    assert_eq!(history.making_ms(&b), Some(550));
    let only = History::learn([past("a", "pg", 50, PastSnapshot::Restored)]);
    assert_eq!((only.expected_ms(&a), only.making_ms(&a)), (50, None));
    assert_eq!(History::default().restored_ms(&a), None);
}

#[test]
fn the_waiting_cells_of_a_run_are_told_by_reason() {
    let mut b = Bench::new();
    b.run("r", RunLimits::default());
    let gpu = |id: &str| CellRequest {
        labels: vec!["gpu".into()],
        ..request("r", id)
    };
    b.up(agent("x", 1, &["linux"]));
    b.queue(
        "r",
        vec![gpu("a"), request("r", "b"), gpu("c"), request("r", "d")],
    );
    let mut groups: Vec<(String, Vec<String>)> = b
        .scheduler
        .why_all(&"r".into(), NOW)
        .into_iter()
        .map(|(constraints, _, cells)| {
            let reasons: Vec<String> = constraints.iter().map(ToString::to_string).collect();
            (
                reasons.join("; "),
                cells.iter().map(ToString::to_string).collect(),
            )
        })
        .collect();
    groups.sort();
    let cells = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        groups,
        [
            ("agent x: its only slot is taken".to_owned(), cells(&["d"])),
            ("no agent offers label gpu".to_owned(), cells(&["a", "c"])),
        ]
    );
    assert!(b.scheduler.why_all(&"other".into(), NOW).is_empty());
}

/// A label set with the numbers of waiting, startable and placed cells.
type Demand = (Vec<String>, u64, u64, u64);

fn demand(bench: &Bench) -> Vec<Demand> {
    let wanted = bench.scheduler.demand().into_iter();
    let of = |wanted: super::Wanted| {
        let labels = wanted.labels.into_iter().collect();
        (labels, wanted.waiting, wanted.startable, wanted.placed)
    };
    wanted.map(of).collect()
}

#[test]
fn demand_counts_cells_by_labels_and_heeds_the_limits_of_runs_and_labels() {
    let mut b = Bench::with_label_limits(BTreeMap::from([("gpu".to_owned(), 3)]));
    let limits = RunLimits {
        max_parallel: Some(4),
        ..RunLimits::default()
    };
    b.run("a", limits);
    b.run("b", RunLimits::default());
    let cells = |run: &str, count: usize, labels: &[&str]| {
        let cell = |n: usize| CellRequest {
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            resources: Resources {
                millicpus: 500,
                memory_bytes: 0,
                subnets: 1,
            },
            ..request(run, &format!("{run}{n}"))
        };
        (0..count).map(cell).collect()
    };
    b.queue("a", cells("a", 10, &[]));
    b.queue("b", cells("b", 5, &["gpu"]));
    let text = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect();
    assert_eq!(
        demand(&b),
        [(text(&[]), 10, 4, 0), (text(&["gpu"]), 5, 3, 0)]
    );

    b.up(agent("one", 2, &["gpu"]));
    let sum = |of: fn(&Demand) -> u64| demand(&b).iter().map(of).sum::<u64>();
    assert_eq!(sum(|(.., placed)| *placed), 2);
    // Placed cells take up what the limits allow.
    assert_eq!(sum(|(_, _, startable, placed)| startable + placed), 7);
    let wanted = b.scheduler.demand();
    let millicpus: u64 = wanted.iter().map(|of| of.resources.millicpus).sum();
    assert_eq!(millicpus, 3_500);
}
