//! The walk: takes one cell through every stage, in memory, on a fake runtime that objects to misuse. Each stage is the
//! real code. A straight line replaces the actors, so that the test can be read from top to bottom. ARCHITECTURE.md
//! quotes the resulting journal; `PHALANX_REGENERATE=1` writes it there.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use phalanx_agent::cell;
use phalanx_agent::cell_contract::{Assignment, Host};
use phalanx_agent::clock::SystemClock;
use phalanx_agent::link::core::{About, Effect as LinkEffect, Link};
use phalanx_agent::link::logs::spool::Over;
use phalanx_agent::link::overflow::Directory;
use phalanx_agent::link::spool::{Limits, Spool};
use phalanx_agent::policy::{Guard, Policy};
use phalanx_agent::runtime::contract::Prepared;
use phalanx_agent::runtime::fake::FakeRuntime;
use phalanx_agent::runtime::fake::script::{CommandScript, Printed, Script, ServiceScript};
use phalanx_coordinator::dispatch::core::{
    AgentSession, Effect as SessionEffect, Input as SessionInput, Settings,
};
use phalanx_coordinator::dispatch::gate::SharedGate;
use phalanx_coordinator::journal::{Journal, NewRun, SqliteStore, Submission, Write};
use phalanx_coordinator::run::core::{Effect as RunEffect, Input, RunCore};
use phalanx_coordinator::schedule::core::{
    CellRequest, Effect as ScheduleEffect, Input as ScheduleInput, RunLimits, Scheduler,
};
use phalanx_proto::link::{FromAgent, Offer, ToAgent};
use phalanx_proto::v1;
use phalanx_report::style::Style;
use phalanx_report::terminal::{self, Detail};
use phalanx_report::view::RunView;
use phalanx_shared::diagnostic::Source;
use phalanx_shared::event::{Event, EventKind, Recorded};
use phalanx_shared::id::{AgentId, RunId};
use phalanx_shared::input::Given;
use phalanx_shared::invariant;
use phalanx_shared::language::load;
use phalanx_shared::namespace::Namespace;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::{Jobs, Keep, Plan, Request, Resources, Selection, expand};
use phalanx_shared::run_state::RunState;
use phalanx_shared::time::Timestamp;
use phalanx_shared::trace::{Span, SpanId, Spans, Value};
use prost::Message;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

const SPEC: &str = r#"
name: walk
strategy: { matrix: { database: [postgres] } }
cell: { name: "on ${{ matrix.database }}", runs-on: [docker], resources: { cpus: 1, memory: 1GiB } }
coverage: { orders: An order is stored, stream: The stream completes }
secrets: [license]
services:
  db: { image: "${{ matrix.database }}:17", healthcheck: { test: [CMD, pg_isready] } }
  shop:
    image: shop
    environment: { LICENSE: "${{ secrets.license }}" }
    depends_on: { db: { condition: service_healthy } }
    ready: { log: listening, timeout: 20s }
phases:
  sync:
    - id: order
      name: order a book
      verifies: orders
      exec: { service: shop, command: [shop, order, book] }
      capture: { id: fromJSON(stdout).id }
      expect: [fromJSON(stdout).sku == 'book', id > 0]
  assert:
    - name: order ${{ steps.order.id }} is stored
      verifies: orders
      exec: { service: db, command: [psql, "select ${{ steps.order.id }}"] }
      expect: [stdout.trim() == 'billed']
    - name: the stream completes
      verifies: stream
      when: matrix.database == 'mysql'
      reason: "${{ matrix.database }} has no stream"
      exec: { service: shop, command: [shop, stream] }
"#;

const SECRET: &str = "the-license-of-the-walk";
const NOW: Duration = Duration::from_secs(1);
const AT: Timestamp = Timestamp(1_000_000);
/// Number of the only connection.
const CONNECTION: u64 = 1;

#[tokio::test]
async fn a_cell_goes_through_every_stage() {
    let bound = Duration::from_secs(60);
    tokio::time::timeout(bound, walk()).await.unwrap();
}

async fn walk() {
    let place = tempfile::tempdir().unwrap();

    // A text becomes a spec, the spec a plan, the plan a job.
    let main = Source {
        name: "walk.yaml".to_owned(),
        text: SPEC.to_owned(),
    };
    let loaded = load(main, &mut |path| Err(format!("no file {path}")));
    assert!(loaded.diagnostics.is_empty(), "{:#?}", loaded.diagnostics);
    let spec = Arc::new(loaded.spec.unwrap());
    let plan = expand(&Request {
        spec: spec.clone(),
        sources: &loaded.sources,
        given: &Given::default(),
        files: Arc::new(|path: &str| Err(format!("no file {path}"))),
        workspace: None,
        selection: &Selection::default(),
        max_cells: None,
    })
    .unwrap();
    let names: Vec<&str> = plan.cells.iter().map(|cell| cell.name.as_str()).collect();
    assert_eq!(names, ["on postgres"]);
    let cell = plan.cells[0].clone();
    let jobs = Jobs::new(spec, loaded.sources, plan.clone()).unwrap();
    let images = jobs.images(&cell.id, &"run".into());
    assert_eq!(images, ["postgres:17".into(), "shop".into()]);

    // Submitted: journaled first.
    let mut desk = Desk::submit(place.path(), plan).await;

    // Queued: waits because there is no agent.
    let effects = desk.decide(Input::Secrets { missing: vec![] }).await;
    let [RunEffect::Queue(tokens)] = effects.as_slice() else {
        panic!("{effects:?}");
    };
    let token = tokens[0].clone();
    let request = CellRequest {
        avoids: Vec::new(),
        token: token.clone(),
        labels: cell.runs_on.clone(),
        resources: cell.resources,
        needs: jobs.needs(&cell.id),
        images: jobs.images(&cell.id, &"run".into()),
        expected_ms: 0,
        wish: None,
    };
    let mut scheduler = Scheduler::new(BTreeMap::new());
    let run = token.run.clone();
    let limits = RunLimits::default();
    scheduler.handle(ScheduleInput::RunAdded { run, limits }, NOW);
    let queued = ScheduleInput::Queued {
        run: token.run.clone(),
        cells: vec![request],
    };
    assert_eq!(scheduler.handle(queued, NOW), []);

    // An agent sends Hello and gets the cell.
    let me = AgentId::from("agent");
    let gate = SharedGate::default();
    let mut session = AgentSession::new(me.clone(), Settings::default(), gate.clone(), NOW);
    let spool = Spool::new(
        Directory::create(place.path().join("spool")).unwrap(),
        Limits::default(),
    );
    let mut link = Link::new(about(&me), spool);
    let greeting = link.connected(NOW);
    let [LinkEffect::Send(hello)] = greeting.as_slice() else {
        panic!("{greeting:?}");
    };
    let FromAgent::Hello(hello) = up(hello.clone()) else {
        panic!("{hello:?}");
    };
    let hello = SessionInput::Hello {
        connection: CONNECTION,
        protocol: 1,
        hello: *hello,
    };
    let effects = session.handle(hello, NOW);
    let [SessionEffect::Connected { agent, .. }] = effects.as_slice() else {
        panic!("{effects:?}");
    };
    let agent_up = ScheduleInput::AgentUp {
        agent: agent.clone(),
        holding: vec![],
    };
    let assign = ScheduleEffect::Assign {
        token: token.clone(),
        agent: me.clone(),
    };
    assert!(scheduler.handle(agent_up, NOW).contains(&assign));
    let nothing_resumed = SessionInput::Resumed {
        connection: CONNECTION,
        attempts: vec![],
    };
    for effect in session.handle(nothing_resumed, NOW) {
        if let SessionEffect::Send(welcome) = effect {
            link.received(NOW, down(welcome));
        }
    }

    // Assigned: journaled before the offer is sent.
    let assigned = Input::Runnable {
        token: token.clone(),
        agent: me.clone(),
        agent_name: "runner".to_owned(),
        placement: Default::default(),
    };
    let offered = RunEffect::Offer {
        token: token.clone(),
        agent: me.clone(),
    };
    assert_eq!(desk.decide(assigned).await, [offered]);

    // Offered: sent over the wire and accepted.
    let offer = Offer {
        token: token.clone(),
        job: Arc::new(jobs.job(&cell.id, Keep::Never).unwrap()),
        secrets: Arc::new(BTreeMap::from([("license".to_owned(), SECRET.to_owned())])),
        accept_within: Duration::from_secs(5),
        traceparent: None,
    };
    let sent = session.handle(SessionInput::Offer(offer.clone()), NOW);
    let sent = sent.into_iter().find_map(|effect| match effect {
        SessionEffect::Send(message) => Some(down(message)),
        _ => None,
    });
    assert!(sent == Some(ToAgent::Offer(offer)), "{sent:?}");
    let mut started = None;
    let mut answers = Vec::new();
    for effect in link.received(NOW, sent.unwrap()) {
        match effect {
            LinkEffect::Start(offer) => started = Some(offer),
            other => answers.push(other),
        }
    }
    let mut road = Road {
        desk,
        scheduler,
        session,
        link,
        settled: false,
    };
    road.carry(answers).await;
    let status = &road.desk.core.state().cells[&cell.id];
    assert!(status.newest().unwrap().is_held(), "{status:?}");

    // Running: on the fake runtime. Events go through the spool and the gate to the disk and are acknowledged only
    // then.
    let containers = FakeRuntime::new(script());
    let processes = FakeRuntime::new(Script::default());
    road.run(&containers, &processes, place.path(), *started.unwrap())
        .await;
    for fake in [&containers, &processes] {
        assert_eq!(fake.violations(), Vec::<String>::new());
        assert!(fake.open_stacks().is_empty());
        let closes = |call: &String| call.starts_with("close");
        assert!(fake.calls().iter().any(closes), "{:?}", fake.calls());
    }
    assert!(road.settled);
    assert_eq!(road.link.live().count(), 0);
    // Messages after the end are stale and are rejected at the gate.
    assert!(gate.lock().check(&me, &token).is_err());
    assert_eq!(road.scheduler.agents()[0].reserved, Resources::default());

    // Durable: what is read back equals what was folded.
    let recorded = road.desk.recorded().await;
    let (mut state, mut events) = (RunState::new(token.run.clone()), Vec::new());
    for Recorded { event, .. } in &recorded {
        state.apply_without_output(event);
        events.push(event.clone());
    }
    assert_eq!(&state, road.desk.core.state());
    assert_eq!(state.outcome, Some(Outcome::Passed), "{events:#?}");
    invariant::one_outcome(&token.run, &events).unwrap();

    // Traced: the same events as spans.
    let mut spans = Spans::new(token.run.clone(), None);
    let mut made: Vec<Span> = events.iter().flat_map(|event| spans.apply(event)).collect();
    made.extend(spans.finish());
    assert_eq!(tree(&made, None, 0), TREE);
    assert!(!format!("{made:?}").contains(SECRET));

    // Reported.
    let view = RunView::of(&state, AT, None);
    let detail = Detail {
        width: 120,
        style: Style::PLAIN,
        verbose: true,
    };
    let told = terminal::render(&view, detail);
    for words in ["An order is stored", "postgres has no stream", "1 passed"] {
        assert!(told.contains(words), "{words} is not in:\n{told}");
    }
    let json = serde_json::to_string(&events).unwrap();
    assert!(!json.contains(SECRET));
    assert_quoted(&events.iter().map(line).collect::<Vec<_>>());
}

const TREE: &str = "\
RUN walk (run) passed
  on postgres (cell) passed
    attempt 1 (attempt) passed
      assert (phase) passed
        order 7 is stored (step) passed
        the stream completes (step) skipped: postgres has no stream
      stack (stack)
        clean-up (clean-up)
        db (service)
          create (create)
          pull (pull)
          ready (ready)
          start (start)
        shop (service)
          create (create)
          pull (pull)
          ready (ready)
          start (start)
      sync (phase) passed
        order a book (step) passed
    queue (queue)
";

/// Formats the spans below one, sorted by name among equals, because parallel work ends in any order.
fn tree(spans: &[Span], parent: Option<SpanId>, depth: usize) -> String {
    let text = |span: &Span, key| match span.attribute(key) {
        Some(Value::Text(text)) => Some(text.clone()),
        _ => None,
    };
    let mut below: Vec<&Span> = spans.iter().filter(|s| s.parent == parent).collect();
    below.sort_by(|a, b| a.name.cmp(&b.name));
    let mut told = String::new();
    for span in below {
        let kind = text(span, "phalanx.kind").unwrap();
        told += &format!("{}{} ({kind})", "  ".repeat(depth), span.name);
        for (key, before) in [("phalanx.outcome", " "), ("phalanx.skip.reason", ": ")] {
            if let Some(value) = text(span, key) {
                told += &format!("{before}{value}");
            }
        }
        told += "\n";
        told += &tree(spans, Some(span.id), depth + 1);
    }
    told
}

/// The coordinator's side of one run: decisions are made durable before their effects are carried out.
struct Desk {
    core: RunCore,
    journal: Journal,
}

impl Desk {
    async fn submit(place: &Path, plan: Plan) -> Desk {
        let store = SqliteStore::open(&place.join("journal.db")).await.unwrap();
        let (journal, _) = Journal::start(Arc::new(store), AT).await.unwrap();
        let run = RunId::from("run");
        let new = NewRun {
            run: run.clone(),
            submitted: AT,
            spec: "walk".to_owned(),
            digest: plan.digest.clone(),
            cells: 1,
            submission: Submission::default(),
            namespace: Namespace::default(),
            owner: String::new(),
        };
        let event = Event {
            run: run.clone(),
            attempt: None,
            seq: 0,
            at: AT,
            mono_us: 0,
            kind: EventKind::RunSubmitted {
                plan,
                origin: serde_json::Map::new(),
            },
        };
        let mut state = RunState::new(run);
        state.apply(&event);
        let first = Write::Event(Recorded { position: 1, event });
        let writes = vec![Write::Run(Box::new(new)), first];
        journal.append(writes).await.await.unwrap();
        let core = RunCore::recovered(state, 1, journal.epoch(), Duration::from_secs(1));
        Desk { core, journal }
    }

    async fn decide(&mut self, input: Input) -> Vec<RunEffect> {
        let (mut writes, mut others) = (Vec::new(), Vec::new());
        for effect in self.core.handle(input, AT) {
            match effect {
                RunEffect::Journal(recorded) => writes.push(Write::Event(recorded)),
                other => others.push(other),
            }
        }
        self.journal.append(writes).await.await.unwrap();
        others
    }

    async fn recorded(&self) -> Vec<Recorded> {
        let run = self.core.state().run.clone();
        let store = self.journal.store();
        store.events(&run, 1, 1_000).await.unwrap()
    }
}

/// Both ends of the connection and everything behind them.
struct Road {
    desk: Desk,
    scheduler: Scheduler,
    session: AgentSession,
    link: Link<Directory>,
    settled: bool,
}

impl Road {
    /// Runs the attempt to its end and carries its messages.
    async fn run(
        &mut self,
        containers: &FakeRuntime,
        processes: &FakeRuntime,
        place: &Path,
        offer: Offer,
    ) {
        let (events, mut emitted) = mpsc::channel(64);
        let (logs, mut chunks) = mpsc::channel(64);
        let (artifacts, _pieces) = mpsc::channel(64);
        let (_cancel, cancel) = watch::channel(None);
        let token = offer.token.clone();
        let host = Host {
            agent: AgentId::from("agent"),
            state_dir: place.join("agent"),
            processes: Arc::new(processes.clone()),
            containers: Ok(Arc::new(containers.clone())),
            clock: Arc::new(SystemClock::default()),
            guard: Arc::new(Guard::new(Arc::new(Policy::closed()), "unix:")),
            demo_server: vec![],
            snapshots: None,
        };
        let assignment = Assignment {
            token: token.clone(),
            job: offer.job,
            secrets: (*offer.secrets).clone(),
            workspace: None,
            traceparent: None,
            events,
            logs,
            artifacts,
            cancel,
        };
        let handle = cell::spawn(host, assignment);
        let mut printed = String::new();
        let mut logs_open = true;
        loop {
            let effects = tokio::select! {
                // Logs are closed before the verdict is sent.
                biased;
                chunk = chunks.recv(), if logs_open => match chunk {
                    Some(chunk) => {
                        printed.push_str(&String::from_utf8(chunk.bytes).unwrap());
                        continue;
                    }
                    None => {
                        logs_open = false;
                        self.link.logs_over(NOW, Over { token: token.clone(), gaps: vec![] })
                    }
                },
                event = emitted.recv() => match event {
                    Some(event) => self.link.emitted(NOW, event),
                    None if !logs_open => break,
                    None => continue,
                },
            };
            self.carry(effects).await;
        }
        handle.join().await;
        assert_eq!(printed, "listening with ***\n");
    }

    /// Carries messages from the agent to the coordinator's disk and back.
    async fn carry(&mut self, effects: Vec<LinkEffect>) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            let LinkEffect::Send(message) = effect else {
                panic!("{effect:?}");
            };
            let received = SessionInput::Received {
                connection: CONNECTION,
                message: up(message),
            };
            for report in self.session.handle(received, NOW) {
                for answer in self.heard(report).await {
                    effects.extend(self.link.received(NOW, down(answer)));
                }
            }
        }
    }

    /// Handles a report that passed the gate: journals it, carries out its effects and acknowledges it.
    async fn heard(&mut self, report: SessionEffect) -> Vec<ToAgent> {
        let mut durable = None;
        let input = match report {
            SessionEffect::Accepted { token } => Input::Accepted { token },
            SessionEffect::Events { token, events } => {
                durable = Some((token.clone(), events.last()));
                Input::Events { token, events }
            }
            other => panic!("{other:?}"),
        };
        let mut effects = Vec::new();
        for effect in self.desk.decide(input).await {
            match effect {
                RunEffect::Accepted(token) => {
                    self.scheduler
                        .handle(ScheduleInput::Accepted { token }, NOW);
                }
                RunEffect::Release(token) => {
                    self.scheduler
                        .handle(ScheduleInput::Released { token }, NOW);
                }
                RunEffect::Retire(token) => {
                    let retire = SessionInput::Retire { token };
                    effects.extend(self.session.handle(retire, NOW));
                }
                RunEffect::Finished(outcome) => assert_eq!(outcome, Outcome::Passed),
                RunEffect::Settled => self.settled = true,
                other => panic!("{other:?}"),
            }
        }
        if let Some((token, seq)) = durable {
            let durable = SessionInput::Durable { token, seq };
            effects.extend(self.session.handle(durable, NOW));
        }
        let sent = effects.into_iter().filter_map(|effect| match effect {
            SessionEffect::Send(message) => Some(message),
            _ => None,
        });
        sent.collect()
    }
}

/// Sends a message to the agent over the wire, as bytes.
fn down(message: ToAgent) -> ToAgent {
    let bytes = v1::ToAgent::from(message).encode_to_vec();
    let wire = v1::ToAgent::decode(bytes.as_slice()).unwrap();
    ToAgent::try_from(wire).unwrap()
}

/// Sends a message to the coordinator over the wire, as bytes.
fn up(message: FromAgent) -> FromAgent {
    let bytes = v1::FromAgent::from(message).encode_to_vec();
    let wire = v1::FromAgent::decode(bytes.as_slice()).unwrap();
    FromAgent::try_from(wire).unwrap()
}

fn about(agent: &AgentId) -> About {
    About {
        agent: agent.clone(),
        name: "runner".to_owned(),
        version: "1".to_owned(),
        labels: vec!["docker".to_owned()],
        slots: 1,
        resources: Resources {
            millicpus: 2_000,
            memory_bytes: 4 << 30,
            subnets: 1,
        },
        images: vec![],
        policy: None,
        ahead: 2,
        snapshots: None,
    }
}

fn script() -> Script {
    // Slow enough that steps already wait when a service becomes ready.
    let prepared = |image: &str| ServiceScript {
        prepared: Some(Prepared::Pulled {
            image: image.to_owned(),
            detail: image.to_owned(),
        }),
        prepare_delay: Duration::from_millis(50),
        ..ServiceScript::default()
    };
    let db = ServiceScript {
        healthy_after: Some(Duration::from_millis(20)),
        commands: vec![CommandScript::prints("psql select 7", "billed\n")],
        ..prepared("postgres:17")
    };
    let listening = format!("listening with {SECRET}");
    let shop = ServiceScript {
        output: vec![Printed::line(Duration::from_millis(20), &listening)],
        commands: vec![CommandScript::prints(
            "shop order book",
            r#"{"id": 7, "sku": "book"}"#,
        )],
        ..prepared("shop")
    };
    Script::default().service("db", db).service("shop", shop)
}

/// Formats an event as a line: its kind and subject, without times.
fn line(event: &Event) -> String {
    let because = |reason: &Option<String>| {
        let said = reason.as_ref().map(|reason| format!(": {reason}"));
        said.unwrap_or_default()
    };
    let about = match &event.kind {
        EventKind::RunSubmitted { plan, .. } => format!("{}, {} cell", plan.spec, plan.cells.len()),
        EventKind::CellOffered {
            token, agent_name, ..
        } => format!("attempt {} to {agent_name}", token.attempt),
        EventKind::CellAccepted { token } => format!("attempt {}", token.attempt),
        EventKind::CellFinished {
            outcome, reason, ..
        }
        | EventKind::AttemptFinished {
            outcome, reason, ..
        } => format!("{outcome}{}", because(reason)),
        EventKind::RunFinished { outcome } => outcome.to_string(),
        EventKind::AttemptStarted { agent } => format!("on {agent}"),
        EventKind::StackOpened { .. } => "what the services share".to_owned(),
        EventKind::ServiceChanged { service, state, .. } => {
            format!("{service} {}", format!("{state:?}").to_lowercase())
        }
        EventKind::PhaseStarted { path, .. } => path.clone(),
        EventKind::PhaseFinished {
            path,
            outcome,
            reason,
            ..
        } => format!("{path} {outcome}{}", because(reason)),
        EventKind::StepStarted { path, name, action } => format!("{path} {action}: {name}"),
        EventKind::StepFinished(step) => {
            let held = step.checks.iter().filter(|check| check.passed).count();
            let checks = match step.checks.len() {
                0 => String::new(),
                all => format!(", {held} of {all} checks held"),
            };
            let reason = because(&step.reason);
            format!("{} {}{checks}{reason}", step.path, step.outcome)
        }
        EventKind::TornDown { removed, left, .. } => {
            format!("{removed} removed, {} left", left.len())
        }
        other => panic!("the walk has no {}", other.name()),
    };
    let number = match event.seq {
        0 => String::new(),
        seq => seq.to_string(),
    };
    format!("{number:>3} {:<17} {about}", event.kind.name())
}

/// Services, steps and clean-up run in parallel: the order is fixed only within each service and among the rest.
fn strands(lines: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut strands: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        // The first word is the number, which the coordinator's own events don't have.
        let at = words.iter().position(|word| *word == "service_changed");
        let strand = match at {
            Some(at) => words[at + 1],
            None if words.contains(&"torn_down") => "torn_down",
            None => "",
        };
        let strand = strand.to_owned();
        let unnumbered = line.get(3..).unwrap_or_default().trim().to_owned();
        strands.entry(strand).or_default().push(unnumbered);
    }
    strands
}

fn assert_quoted(lines: &[String]) {
    const BEGIN: &str = "<!-- walk -->\n";
    const END: &str = "<!-- /walk -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ARCHITECTURE.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (quoted, after) = rest.split_once(END).unwrap();
    let fence = |line: &&str| !line.starts_with("```") && !line.is_empty();
    let quoted: Vec<String> = quoted.lines().filter(fence).map(str::to_owned).collect();
    if strands(&quoted) != strands(lines) && std::env::var_os("PHALANX_REGENERATE").is_some() {
        let block = format!("```text\n{}\n```\n", lines.join("\n"));
        std::fs::write(&path, format!("{before}{BEGIN}{block}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(
        strands(&quoted),
        strands(lines),
        "ARCHITECTURE.md quotes another journal; PHALANX_REGENERATE=1 writes this one:\n{}",
        lines.join("\n")
    );
}
