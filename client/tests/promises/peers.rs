//! Agents, clients and strangers on a coordinator's ports that send invalid messages, or nothing at all.

use crate::rig::{BOUND, Coordinator, Fleet, Run, attempts, eventually};
use crate::{Need, Test};
use phalanx_proto::v1;
use phalanx_proto::v1::agent_link_client::AgentLinkClient;
use phalanx_proto::v1::control_client::ControlClient;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use v1::from_agent::Message as Up;
use v1::to_agent::Message as Down;

pub fn tests() -> Vec<Test> {
    vec![
        (
            Need::Nothing,
            "an agent that says what only a coordinator may loses the attempt and is not believed",
            forged_events,
        ),
        (
            Need::Nothing,
            "an identity that a live process holds is not taken over, however often it is tried",
            taken_identity,
        ),
        (
            Need::Nothing,
            "after a restart of the coordinator an identity is still that of the process that had it",
            identity_over_a_restart,
        ),
        (
            Need::Nothing,
            "a copy of an agent's directory is told so and harms nothing",
            copied_identity,
        ),
        (
            Need::Nothing,
            "an agent that answers and never ends an attempt loses it",
            black_hole,
        ),
        (
            Need::Nothing,
            "an agent with many attempts says no more than its budget, and the noisiest attempt is taken",
            noisy_agent,
        ),
        (
            Need::Nothing,
            "a refusal of any length reaches the client whole",
            long_refusals,
        ),
        (
            Need::Nothing,
            "an agent with a crowd of labels or escapes in its name is refused by name",
            crowded_hello,
        ),
        (
            Need::Nothing,
            "a crowd of connections that ask for nothing keeps nobody out, on either port",
            sleeping_connections,
        ),
        (
            Need::Nothing,
            "calls that go on are limited, and say so",
            many_watchers,
        ),
        (
            Need::Nothing,
            "uploads that trickle make room for others",
            trickling_uploads,
        ),
        (
            Need::Nothing,
            "a matrix of too many cells is refused with its axes and the setting",
            too_many_cells,
        ),
        (
            Need::Nothing,
            "what a submission brings beside its spec is bounded",
            heavy_submissions,
        ),
        (
            Need::Nothing,
            "large submissions that come at once take no more memory than their budget, and small ones pass",
            crowd_of_submissions,
        ),
        (
            Need::Nothing,
            "a submission that trickles loses its turn, and a client that found no room tries again",
            slow_submissions,
        ),
        (
            Need::Nothing,
            "lists and look-ups load no submissions",
            light_lists,
        ),
        (
            Need::Nothing,
            "an agent that floods the journal loses the attempt, and the coordinator starts again in little memory",
            flooded_journal,
        ),
        (
            Need::Nothing,
            "an agent that names thousands of outputs or sends logs without end takes neither files nor the disk",
            flooded_logs,
        ),
        (
            Need::Nothing,
            "log streams of agents that nobody knows keep nobody out",
            ghost_logs,
        ),
        (
            Need::Nothing,
            "an agent gets no secret that its job does not name",
            secrets_of_the_job,
        ),
        (
            Need::Nothing,
            "agents that come and go are forgotten but for the last hundred",
            passers_by,
        ),
        (
            Need::Nothing,
            "refused submissions that come at once take little memory",
            refused_at_once,
        ),
        (
            Need::Nothing,
            "an attempt goes on only with who held it when its agent connects again",
            claimed_attempts,
        ),
    ]
}

const ONE: &str = "name: one\nphases: { t: [ { run: \"true\" } ] }\n";

fn up(message: Up) -> v1::FromAgent {
    v1::FromAgent {
        message: Some(message),
    }
}

fn hello(id: &str, instance: &str) -> v1::Hello {
    v1::Hello {
        agent_id: id.to_owned(),
        name: "liar".to_owned(),
        version: "test".to_owned(),
        min_protocol: 1,
        max_protocol: 1,
        slots: 4,
        resources: Some(v1::Resources {
            millicpus: 1 << 20,
            memory_bytes: 1 << 40,
            subnets: 100,
        }),
        instance: instance.to_owned(),
        ..v1::Hello::default()
    }
}

/// An agent that speaks the protocol by hand and renews its lease.
struct Liar {
    up: mpsc::Sender<v1::FromAgent>,
    down: tonic::Streaming<v1::ToAgent>,
}

impl Liar {
    /// Sends Hello. Returns an error if the coordinator refuses it.
    async fn connect(at: &Coordinator, hello: v1::Hello) -> Result<Liar, Status> {
        let mut client = AgentLinkClient::connect(at.url()).await.unwrap();
        let (up, outgoing) = mpsc::channel(64);
        up.send(self::up(Up::Hello(hello))).await.unwrap();
        let mut down = client
            .session(ReceiverStream::new(outgoing))
            .await?
            .into_inner();
        let first = down.message().await?.unwrap().message;
        assert!(matches!(first, Some(Down::Welcome(_))), "{first:?}");
        let beats = up.clone();
        tokio::spawn(async move {
            for number in 1.. {
                tokio::time::sleep(Duration::from_millis(500)).await;
                let beat = self::up(Up::Heartbeat(v1::Heartbeat { number }));
                if beats.send(beat).await.is_err() {
                    return;
                }
            }
        });
        Ok(Liar { up, down })
    }

    async fn say(&self, message: Up) {
        self.up.send(up(message)).await.unwrap();
    }

    /// Waits for the next message of a kind.
    async fn hear<T>(&mut self, wanted: impl Fn(Down) -> Option<T>) -> T {
        let hearing = async {
            loop {
                let message = self.down.message().await.unwrap().unwrap().message;
                if let Some(found) = message.and_then(&wanted) {
                    return found;
                }
            }
        };
        tokio::time::timeout(BOUND, hearing).await.unwrap()
    }

    async fn offered(&mut self) -> v1::Token {
        let offer = |down| match down {
            Down::Offer(offer) => offer.token,
            _ => None,
        };
        self.hear(offer).await
    }

    /// Waits for the next Abandon. Returns its reason.
    async fn abandoned(&mut self) -> String {
        self.abandoned_one().await.1
    }

    /// Waits for the next Abandon. Returns its token and its reason.
    async fn abandoned_one(&mut self) -> (v1::Token, String) {
        let abandon = |down| match down {
            Down::Abandon(abandon) => Some((abandon.token?, abandon.reason)),
            _ => None,
        };
        self.hear(abandon).await
    }

    async fn tell(&self, token: &v1::Token, seq: u64, payload: Value) {
        let event = v1::Event {
            run: token.run.clone(),
            attempt: Some(v1::AttemptRef {
                cell: token.cell.clone(),
                attempt: token.attempt,
            }),
            seq,
            at_us: 1,
            mono_us: 1,
            kind: payload["kind"].as_str().unwrap().to_owned(),
            payload_json: payload.to_string().into_bytes(),
        };
        self.say(Up::Events(v1::Events {
            token: Some(token.clone()),
            first_seq: seq,
            events: vec![event],
        }))
        .await;
    }
}

fn runtime() -> Runtime {
    Runtime::new().unwrap()
}

/// Submits a spec. Returns the run.
fn submit(fleet: &Fleet, at: &Coordinator, text: &str) -> Run {
    let place = fleet.path("spec.yaml");
    fs::write(&place, text).unwrap();
    let (code, stdout, stderr) = fleet.call(at, &["submit", "spec.yaml"]);
    assert_eq!(code, Some(0), "{stderr}");
    let id = stdout.trim().to_owned();
    Run { id, place }
}

/// Returns the kinds of the events in a run's journal so far.
async fn kinds(at: &Coordinator, run: &Run) -> Vec<String> {
    let request = v1::WatchRequest {
        run_id: run.id.clone(),
        from_position: 1,
        follow: false,
    };
    let mut client = at.client().await;
    let mut events = client.watch(request).await.unwrap().into_inner();
    let mut kinds = Vec::new();
    while let Some(recorded) = events.message().await.unwrap() {
        kinds.push(recorded.event.unwrap().kind);
    }
    kinds
}

fn forged_events() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let finished = "phalanx_runs_finished_total{outcome=\"passed\"}";
    let lies = [
        json!({"kind": "run_finished", "outcome": "passed"}),
        json!({"kind": "cell_finished", "cell": "x", "outcome": "passed", "reason": null, "attempts": 1}),
        json!({"kind": "cancel_requested", "reason": "forged"}),
        json!({"kind": "attempt_started", "agent": "another"}),
    ];
    for (n, lie) in lies.into_iter().enumerate() {
        let run = runtime().block_on(async {
            let id = format!("liar-{n}");
            let mut liar = Liar::connect(&at, hello(&id, "1")).await.unwrap();
            let run = submit(&fleet, &at, ONE);
            let token = liar.offered().await;
            let accepted = Some(token.clone());
            liar.say(Up::Accept(v1::Accept { token: accepted })).await;
            liar.tell(&token, 1, lie.clone()).await;
            let reason = liar.abandoned().await;
            let kind = lie["kind"].as_str().unwrap();
            assert!(reason.contains(kind), "{reason}");
            let goodbye = "enough".to_owned();
            liar.say(Up::Goodbye(v1::Goodbye { reason: goodbye })).await;
            run
        });
        let list = fleet.json(&at, &["runs", "--open", "--format", "json"]);
        assert!(
            list.to_string().contains(&run.id),
            "{kind}: {list}",
            kind = lie["kind"]
        );
        assert!(at.metric(finished) < 1.0);
        // The agent learns of it before it is on disk.
        let kinds = eventually("the attempt is lost", || {
            let kinds = runtime().block_on(kinds(&at, &run));
            let lost = kinds.iter().any(|kind| kind == "attempt_lost");
            lost.then_some(kinds)
        });
        let forged = ["run_finished", "cell_finished", "cancel_requested"];
        assert!(
            !kinds.iter().any(|k| forged.contains(&k.as_str())),
            "{kinds:?}"
        );
        let (code, _, stderr) = fleet.call(&at, &["cancel", &run.id]);
        assert_eq!(code, Some(0), "{stderr}");
    }
    // A restarted coordinator doesn't believe it either, and an honest agent runs the cell.
    let mut agentless = at;
    agentless.process.kill();
    let at = fleet.serve();
    let _honest = fleet.agent("honest", &at.url(), 4);
    let run = submit(&fleet, &at, ONE);
    let shown = fleet.finished(&at, &run);
    assert_eq!(shown["outcome"], "passed", "{shown:#}");
}

/// Returns the id of an agent, which every client can read.
fn id_of(fleet: &Fleet, at: &Coordinator, name: &str) -> String {
    let list = fleet.json(at, &["agents", "--format", "json"]);
    let agents = list["agents"].as_array().unwrap();
    let agent = agents.iter().find(|agent| agent["name"] == name).unwrap();
    agent["id"].as_str().unwrap().to_owned()
}

fn taken_identity() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let _agent = fleet.agent("real", &at.url(), 4);
    fleet.wait_for_state(&at, "real", "connected");
    let id = id_of(&fleet, &at, "real");
    let runtime = runtime();
    let (stop, tried) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let url = at.url();
    let flapping = {
        let (stop, tried) = (stop.clone(), tried.clone());
        runtime.spawn(async move {
            let mut told = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let instance = ["", "guessed"][tried.fetch_add(1, Ordering::Relaxed) % 2];
                let mut client = AgentLinkClient::connect(url.clone()).await.unwrap();
                let (up, outgoing) = mpsc::channel(4);
                up.send(self::up(Up::Hello(hello(&id, instance))))
                    .await
                    .unwrap();
                let session = client.session(ReceiverStream::new(outgoing)).await;
                told.push(match session {
                    Ok(down) => match down.into_inner().message().await {
                        Ok(message) => format!("was welcome: {message:?}"),
                        Err(status) => status.message().to_owned(),
                    },
                    Err(status) => status.message().to_owned(),
                });
            }
            told
        })
    };
    for n in 0..4 {
        let run = fleet.submit(&at, &format!("run-{n}"), &[]);
        run.open_gate();
        let shown = fleet.finished(&at, &run);
        assert_eq!(shown["outcome"], "passed", "{shown:#}");
        assert!(attempts(&shown).iter().all(|(_, attempts)| *attempts == 1));
    }
    eventually("it is tried often", || {
        (tried.load(Ordering::Relaxed) > 20).then_some(())
    });
    stop.store(true, Ordering::Relaxed);
    let told = runtime.block_on(flapping).unwrap();
    assert!(!told.is_empty());
    for said in told {
        assert!(said.contains("another process is this agent"), "{said}");
    }
}

fn identity_over_a_restart() {
    use nix::sys::signal::Signal;
    let fleet = Fleet::new();
    let at = fleet.serve();
    let mut agent = fleet.agent("real", &at.url(), 4);
    fleet.wait_for_state(&at, "real", "connected");
    let id = id_of(&fleet, &at, "real");
    let run = fleet.submit(&at, "run", &[]);
    run.wait_at_gate(&[1, 2, 3, 4], 1);
    let noted = || fs::read_to_string(fleet.path("state/coordinator/holders"));
    eventually("it is noted", || {
        noted().is_ok_and(|noted| noted.contains(&id)).then_some(())
    });
    // Another process connects first.
    agent.signal(Signal::SIGSTOP);
    let address = at.killed();
    let at = fleet.serve_at(&address);
    let refused = runtime().block_on(Liar::connect(&at, hello(&id, "another")));
    agent.signal(Signal::SIGCONT);
    let status = refused.err().unwrap();
    assert!(
        status.message().contains("another process is this agent"),
        "{status}"
    );
    run.open_gate();
    let shown = fleet.finished(&at, &run);
    assert_eq!(shown["outcome"], "passed", "{shown:#}");
    // An agent that ended is reported by the process that it left behind, and its successor becomes the agent.
    let address = at.killed();
    agent.kill();
    let at = fleet.serve_at(&address);
    let _next = fleet.agent("real", &at.url(), 4);
    fleet.wait_for_state(&at, "real", "connected");
    assert_eq!(id_of(&fleet, &at, "real"), id);
}

fn copied_identity() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let _agent = fleet.agent("real", &at.url(), 4);
    fleet.wait_for_state(&at, "real", "connected");
    let (from, to) = (fleet.path("agent-real"), fleet.path("agent-clone"));
    fs::create_dir(&to).unwrap();
    fs::copy(from.join("agent-id"), to.join("agent-id")).unwrap();
    let clone = fleet.agent("clone", &at.url(), 4);
    clone.wait_for("each agent needs a directory of its own");
    let run = fleet.submit(&at, "run", &[]);
    run.wait_at_gate(&[1, 2, 3, 4], 1);
    run.open_gate();
    let shown = fleet.finished(&at, &run);
    assert_eq!(shown["outcome"], "passed", "{shown:#}");
    assert!(attempts(&shown).iter().all(|(_, attempts)| *attempts == 1));
    assert_eq!(
        fleet.states(&at),
        [("real".to_owned(), "connected".to_owned())]
    );
}

fn black_hole() {
    let fleet = Fleet::new();
    let at = fleet.serve_within(&[("PHALANX_SERVE__ATTEMPT_MARGIN_S", "1")], 1_024);
    let run = runtime().block_on(async {
        let mut hole = Liar::connect(&at, hello("hole", "1")).await.unwrap();
        let short = ONE.replace("phases", "cell: { timeout: 5s }\nphases");
        let run = submit(&fleet, &at, &short);
        let token = Some(hole.offered().await);
        hole.say(Up::Accept(v1::Accept { token })).await;
        let reason = hole.abandoned().await;
        assert!(reason.contains("its agent didn't end it"), "{reason}");
        let reason = "enough".to_owned();
        hole.say(Up::Goodbye(v1::Goodbye { reason })).await;
        run
    });
    // The agent learns of it before it is on disk.
    eventually("the attempt is lost", || {
        let kinds = runtime().block_on(kinds(&at, &run));
        kinds.contains(&"attempt_lost".to_owned()).then_some(())
    });
    // The cell was not at fault: another agent gets it.
    let _honest = fleet.agent("honest", &at.url(), 4);
    let shown = fleet.finished(&at, &run);
    assert_eq!(shown["outcome"], "passed", "{shown:#}");
    let said = shown.to_string();
    assert!(
        said.contains("long after its cell's timeout was over"),
        "{said}"
    );
}

fn noisy_agent() {
    let fleet = Fleet::new();
    let at = fleet.serve_within(&[("PHALANX_SERVE__AGENT_EVENTS_MIB", "1")], 1_024);
    let note = |bytes: usize| json!({"kind": "note", "message": "n".repeat(bytes)});
    let runs = runtime().block_on(async {
        let mut liar = Liar::connect(&at, hello("noisy", "1")).await.unwrap();
        let mut held = Vec::new();
        for _ in 0..2 {
            let run = submit(&fleet, &at, ONE);
            let token = liar.offered().await;
            let accepted = Some(token.clone());
            liar.say(Up::Accept(v1::Accept { token: accepted })).await;
            let started = json!({"kind": "attempt_started", "agent": "noisy"});
            liar.tell(&token, 1, started).await;
            held.push((run, token));
        }
        let [(_, loud), (_, quiet)] = &held[..] else {
            unreachable!()
        };
        liar.tell(loud, 2, note(700_000)).await;
        for seq in 2..=4 {
            liar.tell(quiet, seq, note(150_000)).await;
        }
        let (lost, reason) = liar.abandoned_one().await;
        assert_eq!(lost, *loud);
        assert!(
            reason.contains("more than 1 MiB of events over all attempts"),
            "{reason}"
        );
        // The other one continues.
        liar.tell(quiet, 5, note(150_000)).await;
        let acknowledged = |down| match down {
            Down::Ack(ack) => (ack.seq == 5).then_some(ack.token),
            _ => None,
        };
        assert_eq!(liar.hear(acknowledged).await.as_ref(), Some(quiet));
        held.into_iter().map(|(run, _)| run).collect::<Vec<_>>()
    });
    let is_lost = |run: &Run| {
        let kinds = runtime().block_on(kinds(&at, run));
        kinds.iter().any(|kind| kind == "attempt_lost")
    };
    eventually("the loud one is lost", || is_lost(&runs[0]).then_some(()));
    let _honest = fleet.agent("honest", &at.url(), 4);
    let shown = fleet.finished(&at, &runs[0]);
    assert_eq!(shown["outcome"], "passed", "{shown:#}");
}

fn long_refusals() {
    let fleet = Fleet::new();
    let at = fleet.serve_within(&[("PHALANX_MAX_CELLS", "1")], 1_024);
    let head =
        "name: r\nstrategy: { matrix: { x: [1, 2, 3] } }\nphases: { t: [ { run: \"true\" } ] }\n";
    for kib in [0, 4, 10, 20, 200] {
        let comment = format!("# {}\n", "x".repeat(77)).repeat(kib * 1024 / 80);
        fs::write(fleet.path("r.yaml"), format!("{head}{comment}")).unwrap();
        let (code, _, stderr) = fleet.call(&at, &["submit", "r.yaml"]);
        assert_eq!(code, Some(2), "{kib} KiB: {stderr}");
        for part in ["the matrix has 3 cells", "x 3", "r.yaml:2"] {
            assert!(stderr.contains(part), "{kib} KiB: no {part} in {stderr}");
        }
    }
    // Earlier clients look only at the status.
    let status = runtime().block_on(async {
        let request = v1::SubmitRequest {
            files: vec![v1::SourceFile {
                name: "r.yaml".to_owned(),
                text: format!("{head}{}", "# xxxxxxxxxxxxxxxxxxxx\n".repeat(10_000)),
            }],
            ..v1::SubmitRequest::default()
        };
        at.client().await.submit(request).await.unwrap_err()
    });
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(
        status.message().contains("the matrix has 3 cells"),
        "{status}"
    );
    // A long name in an answer doesn't cut it off either.
    let run = submit(&fleet, &at, ONE);
    let name = "n".repeat(60_000);
    let (code, _, stderr) = fleet.call(&at, &["why", &run.id, &name]);
    let beginning = &stderr[..stderr.len().min(500)];
    assert_eq!(code, Some(2), "{beginning}");
    assert!(stderr.contains("the run has no cell"), "{beginning}");
}

fn crowded_hello() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let label = |n: usize| format!("label-{n}=value");
    let of = |change: &dyn Fn(&mut v1::Hello)| {
        let mut hello = hello("crowd", "1");
        change(&mut hello);
        hello
    };
    let crowded = [
        (
            of(&|h| h.labels = (0..10_000).map(label).collect()),
            "10000 entries",
        ),
        (
            of(&|h| h.labels = vec![format!("k={}", "v".repeat(1_000_000))]),
            "1000002 bytes",
        ),
        (
            of(&|h| h.labels = vec!["\u{1b}[31mred".to_owned()]),
            "control character",
        ),
        (
            of(&|h| h.name = "\u{1b}]0;title\u{7}".to_owned()),
            "control character",
        ),
        (of(&|h| h.name = "n".repeat(60_000)), "60000 bytes"),
        (of(&|h| h.slots = 4_000_000_000), "4000000000 slots"),
    ];
    for (hello, said) in crowded {
        let status = runtime().block_on(Liar::connect(&at, hello)).err().unwrap();
        assert_eq!(status.code(), Code::InvalidArgument, "{said}: {status}");
        assert!(status.message().contains(said), "{said}: {status}");
    }
    assert_eq!(fleet.states(&at), []);
    let plenty = of(&|h| h.labels = (0..200).map(label).collect());
    assert!(runtime().block_on(Liar::connect(&at, plenty)).is_ok());
}

/// Opens connections that send this and nothing more.
fn crowd(address: &str, many: usize, say: &[u8]) -> Vec<TcpStream> {
    let enter = |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        // A connection that was already dropped is fine as well.
        let _ = stream.write_all(say);
        stream
    };
    (0..many).map(enter).collect()
}

fn sleeping_connections() {
    let fleet = Fleet::new();
    let at = fleet.serve_within(&[], 256);
    let _agent = fleet.agent("real", &at.url(), 4);
    fleet.wait_for_state(&at, "real", "connected");
    let run = fleet.submit(&at, "run", &[]);
    run.wait_at_gate(&[1, 2, 3, 4], 1);
    let (grpc, http) = (at.address.to_string(), at.http.clone());
    for (port, say) in [
        (&grpc, &b""[..]),
        (&grpc, b"P"),
        (&grpc, b"PRI * HTTP/2.0\r\n\r\nSM"),
        (
            &grpc,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        ),
        (&http, b""),
        (&http, b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-A: "),
    ] {
        let crowd = crowd(port, 300, say);
        let states = fleet.states(&at);
        assert_eq!(
            states,
            [("real".to_owned(), "connected".to_owned())],
            "{say:?}"
        );
        assert!(at.get("/metrics").0.contains("200"), "{say:?}");
        drop(crowd);
    }
    assert!(at.metric("phalanx_connections_dropped_total") > 0.0);
    run.open_gate();
    let shown = fleet.finished(&at, &run);
    assert_eq!(shown["outcome"], "passed", "{shown:#}");
    assert!(attempts(&shown).iter().all(|(_, attempts)| *attempts == 1));
}

fn many_watchers() {
    let fleet = Fleet::new();
    let at = fleet.serve_within(&[], 256);
    let run = submit(&fleet, &at, ONE);
    let runtime = runtime();
    let (kept, refused) = runtime.block_on(async {
        let (mut kept, mut refused) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let client = ControlClient::connect(at.url()).await.unwrap();
            for _ in 0..50 {
                let request = v1::WatchRequest {
                    run_id: run.id.clone(),
                    from_position: 1,
                    follow: true,
                };
                let mut client = client.clone();
                match client.watch(request).await {
                    Ok(events) => {
                        let mut events = events.into_inner();
                        events.message().await.unwrap().unwrap();
                        kept.push(events);
                    }
                    Err(status) => refused.push(status),
                }
            }
        }
        (kept, refused)
    });
    // Half of the files are for connections and their streams; a quarter of that is for other addresses.
    assert_eq!((kept.len(), refused.len()), (96, 54));
    for status in &refused {
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(
            status.message().contains("96 from this address"),
            "{status}"
        );
    }
    // Short calls are still answered.
    fleet.json(&at, &["runs", "--format", "json"]);
    drop(kept);
    eventually("there is room again", || {
        (at.metric("phalanx_watchers") < 1.0).then_some(())
    });
    let (code, _, stderr) = fleet.call(&at, &["show", &run.id]);
    assert_eq!(code, Some(0), "{stderr}");
}

fn trickling_uploads() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let runtime = runtime();
    let (url, begun) = (at.url(), Arc::new(AtomicUsize::new(0)));
    let trickles: Vec<_> = (0..30)
        .map(|n| {
            let (url, begun) = (url.clone(), begun.clone());
            runtime.spawn(async move {
                let mut client = ControlClient::connect(url).await.unwrap();
                let (parts, outgoing) = mpsc::channel(1);
                let part = |part| v1::WorkspacePart { part: Some(part) };
                tokio::spawn(async move {
                    use v1::workspace_part::Part;
                    let file = v1::WorkspaceFile {
                        path: "a".to_owned(),
                        executable: false,
                        size: 1_000_000,
                    };
                    let first = [Part::Digest(format!("{n:064x}")), Part::File(file)];
                    for first in first {
                        let _ = parts.send(part(first)).await;
                    }
                    begun.fetch_add(1, Ordering::Relaxed);
                    while parts.send(part(Part::Data(vec![b'x']))).await.is_ok() {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                });
                client.put_workspace(ReceiverStream::new(outgoing)).await
            })
        })
        .collect();
    eventually("all of them send", || {
        (begun.load(Ordering::Relaxed) == 30).then_some(())
    });
    fs::write(fleet.path("file"), "small").unwrap();
    let spec = "name: s\nworkspace: { include: [file] }\nphases: { t: [ { run: \"true\" } ] }\n";
    submit(&fleet, &at, spec);
    for trickle in trickles {
        trickle.abort();
    }
}

fn too_many_cells() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let ten = "\"${{ lists.range(10) }}\"";
    let spec = format!(
        "name: many\nstrategy: {{ matrix: {{ a: {ten}, b: {ten}, c: {ten}, d: {ten}, e: {ten} }} }}\nphases: {{ t: [ {{ run: \"true\" }} ] }}\n"
    );
    fs::write(fleet.path("many.yaml"), spec).unwrap();
    let local = fleet.phalanx(&["plan", "many.yaml"]).output().unwrap();
    let local = (
        local.status.code(),
        String::from_utf8_lossy(&local.stderr).into_owned(),
    );
    let (code, _, stderr) = fleet.call(&at, &["submit", "many.yaml"]);
    for (code, stderr) in [local, (code, stderr)] {
        assert_eq!(code, Some(2), "{stderr}");
        for part in [
            "100000 cells",
            "a 10 × b 10 × c 10 × d 10 × e 10",
            "PHALANX_MAX_CELLS",
        ] {
            assert!(
                stderr.replace("\n  │", "").contains(part),
                "no {part} in {stderr}"
            );
        }
    }
    assert!(at.process.peak_mib() < 200, "{} MiB", at.process.peak_mib());
}

fn light_lists() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let text = format!(
        "{ONE}{}",
        "# xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n".repeat(50_000)
    );
    let last = runtime().block_on(async {
        let mut client = at.client().await;
        let mut last = String::new();
        for _ in 0..16 {
            let request = v1::SubmitRequest {
                files: vec![v1::SourceFile {
                    name: "s.yaml".to_owned(),
                    text: text.clone(),
                }],
                ..v1::SubmitRequest::default()
            };
            last = client.submit(request).await.unwrap().into_inner().run_id;
        }
        last
    });
    let before = at.process.peak_mib();
    runtime().block_on(async {
        let mut lists = Vec::new();
        for _ in 0..16 {
            let mut client = at.client().await;
            lists.push(tokio::spawn(async move {
                let request = v1::ListRunsRequest {
                    limit: 1_000,
                    open: false,
                };
                client
                    .list_runs(request)
                    .await
                    .unwrap()
                    .into_inner()
                    .runs
                    .len()
            }));
        }
        for list in lists {
            assert_eq!(list.await.unwrap(), 16);
        }
        let request = v1::WhyRequest {
            run_id: last[..last.len() - 1].to_owned(),
            cell: "one".to_owned(),
        };
        let status = at.client().await.why(request).await.map(|_| ());
        // The beginning of an id may match several; the answer is as quick.
        assert!(status.is_ok() || status.unwrap_err().code() == Code::InvalidArgument);
    });
    let grown = at.process.peak_mib().saturating_sub(before);
    // The submissions in all lists together would be half a gigabyte.
    assert!(grown < 100, "16 lists took {grown} MiB");
}

fn heavy_submissions() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let source = |name: &str, text: String| v1::SourceFile {
        name: name.to_owned(),
        text,
    };
    let heavy = || "x".repeat(17 << 20);
    let request = || v1::SubmitRequest {
        files: vec![source("s.yaml", ONE.to_owned())],
        ..v1::SubmitRequest::default()
    };
    let requests = [
        (
            "origin",
            v1::SubmitRequest {
                origin_json: json!({"x": heavy()}).to_string().into_bytes(),
                ..request()
            },
        ),
        (
            "inputs",
            v1::SubmitRequest {
                inputs_json: json!({"x": heavy()}).to_string().into_bytes(),
                ..request()
            },
        ),
        (
            "spec files",
            v1::SubmitRequest {
                files: vec![
                    source("s.yaml", ONE.to_owned()),
                    source("unused.yaml", heavy()),
                ],
                ..request()
            },
        ),
        (
            "secrets",
            v1::SubmitRequest {
                secrets: [("a".to_owned(), heavy())].into(),
                ..request()
            },
        ),
    ];
    for (what, request) in requests {
        let status = runtime().block_on(async {
            let client = ControlClient::connect(at.url()).await.unwrap();
            let mut client = client.max_encoding_message_size(1 << 30);
            client.submit(request).await.unwrap_err()
        });
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status}");
        assert!(status.message().contains(what), "{what}: {status}");
    }
    let list = fleet.json(&at, &["runs", "--format", "json"]);
    assert_eq!(list["runs"].as_array().map(Vec::len), Some(0), "{list}");
}

/// Returns a submission with this many MiB of files.
fn large(mib: usize) -> v1::SubmitRequest {
    v1::SubmitRequest {
        files: vec![v1::SourceFile {
            name: "s.yaml".to_owned(),
            text: ONE.to_owned(),
        }],
        read: vec![v1::SourceFile {
            name: "large".to_owned(),
            text: "x".repeat(mib << 20),
        }],
        ..v1::SubmitRequest::default()
    }
}

fn crowd_of_submissions() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let before = at.process.peak_mib();
    let runtime = runtime();
    let crowd: Vec<_> = (0..12)
        .map(|_| {
            let url = at.url();
            runtime.spawn(async move {
                let client = ControlClient::connect(url).await.unwrap();
                let mut client = client.max_encoding_message_size(1 << 30);
                // This is too large to be accepted; it costs only the transfer.
                client.submit(large(90)).await.unwrap_err()
            })
        })
        .collect();
    // Meanwhile, others get through.
    for _ in 0..5 {
        submit(&fleet, &at, ONE);
    }
    let mut told = 0;
    for one in crowd {
        let status = runtime.block_on(one).unwrap();
        match status.code() {
            Code::ResourceExhausted => {
                assert!(status.message().contains("try again"), "{status}");
                assert!(status.message().contains("128 MiB of one address"));
                told += 1;
            }
            code => assert_eq!(code, Code::InvalidArgument, "{status}"),
        }
    }
    let grown = at.process.peak_mib().saturating_sub(before);
    println!("{told} of 12 were told to try again, {grown} MiB more");
    // Only one is received and decoded at a time; all of them would need a gigabyte.
    assert!(grown < 450, "12 submissions took {grown} MiB");
    // A submission above the limit is refused before it is received.
    let status = runtime.block_on(async {
        let client = ControlClient::connect(at.url()).await.unwrap();
        let mut client = client.max_encoding_message_size(1 << 30);
        let reason = "x".repeat(8 << 20);
        let request = v1::CancelRequest {
            run_id: "none".to_owned(),
            reason,
            force: false,
        };
        client.cancel(request).await.unwrap_err()
    });
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
}

/// Sends a submission that announces this many MiB and sends a piece of them at intervals.
async fn slow_submission(url: String, mib: u32, piece: usize) -> Status {
    use tonic::codegen::{Bytes, Service, http};
    let channel = tonic::transport::Endpoint::from_shared(url).unwrap();
    let mut channel = channel.connect().await.unwrap();
    let mut first = vec![0];
    first.extend((mib << 20).to_be_bytes());
    let pieces = futures::stream::unfold(Some(first), move |first| async move {
        let bytes = match first {
            Some(first) => first,
            None => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                vec![b'x'; piece]
            }
        };
        Some((Ok::<_, Status>(Bytes::from(bytes)), None))
    });
    let request = http::Request::post("/phalanx.v1.Control/Submit")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(axum::body::Body::from_stream(
            pieces,
        )))
        .unwrap();
    std::future::poll_fn(|cx| channel.poll_ready(cx))
        .await
        .unwrap();
    let answer = channel.call(request).await.unwrap();
    Status::from_header_map(answer.headers()).unwrap()
}

fn slow_submissions() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let runtime = runtime();
    // Together they use nearly all that one address may have, and they are fast enough to keep it.
    let steady = [100, 27].map(|mib| runtime.spawn(slow_submission(at.url(), mib, 64 << 10)));
    let large_spec = format!("{ONE}{}", "# xxxxxxxxxxxxx\n".repeat(2 << 16));
    fs::write(fleet.path("large.yaml"), large_spec).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let log = fleet.path("submit.log");
    let mut client = fleet.phalanx(&["submit", "large.yaml"]);
    client.env("PHALANX_COORDINATOR", at.url());
    client.stderr(fs::File::create(&log).unwrap());
    let mut client = client.spawn().unwrap();
    let said = || fs::read_to_string(&log).unwrap();
    eventually("the client is told", || {
        let told = said().contains("taking 2 large submissions with 127 MiB");
        assert!(client.try_wait().unwrap().is_none(), "{}", said());
        told.then_some(())
    });
    // Meanwhile, small submissions pass.
    submit(&fleet, &at, ONE);
    steady.iter().for_each(tokio::task::JoinHandle::abort);
    let code = eventually("it is taken", || client.try_wait().unwrap()).code();
    assert_eq!(code, Some(0), "{}", said());
    // A client that doesn't use its turn loses it to others.
    let slow = runtime.spawn(slow_submission(at.url(), 100, 1));
    std::thread::sleep(Duration::from_secs(1));
    eventually("there is room for another one", || {
        let code = runtime.block_on(async {
            let client = ControlClient::connect(at.url()).await.unwrap();
            let mut client = client.max_encoding_message_size(1 << 30);
            let mut request = large(40);
            // This is refused before anything is started.
            request.files.clear();
            client.submit(request).await.unwrap_err().code()
        });
        (code == Code::InvalidArgument).then_some(())
    });
    let status = runtime.block_on(slow).unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("comes too slowly"), "{status}");
}

fn flooded_journal() {
    let fleet = Fleet::new();
    let mut at = fleet.serve();
    let note = "n".repeat(7_000_000);
    let run = runtime().block_on(async {
        let mut liar = Liar::connect(&at, hello("flood", "1")).await.unwrap();
        let run = submit(&fleet, &at, ONE);
        let token = liar.offered().await;
        let accepted = Some(token.clone());
        liar.say(Up::Accept(v1::Accept { token: accepted })).await;
        liar.tell(
            &token,
            1,
            json!({"kind": "attempt_started", "agent": "flood"}),
        )
        .await;
        for seq in 2..30 {
            liar.tell(&token, seq, json!({"kind": "note", "message": note}))
                .await;
        }
        liar.abandoned().await;
        run
    });
    eventually("the attempt is lost, and why is told", || {
        let shown = fleet.show(&at, &run).to_string();
        shown.contains("80 MiB").then_some(())
    });
    let bytes = |name: &str| {
        let file = fleet.path("state/coordinator").join(name);
        fs::metadata(file).map_or(0, |file| file.len())
    };
    let journal = bytes("journal.db") + bytes("journal.db-wal");
    assert!(journal < 200 << 20, "{journal} bytes of 200 MB sent");
    at.process.kill();
    let at = fleet.serve();
    let peak = at.process.peak_mib();
    assert!(peak < 400, "{peak} MiB to start");
    let (code, _, stderr) = fleet.call(&at, &["cancel", &run.id]);
    assert_eq!(code, Some(0), "{stderr}");
    let _honest = fleet.agent("honest", &at.url(), 4);
    let run = submit(&fleet, &at, ONE);
    assert_eq!(fleet.finished(&at, &run)["outcome"], "passed");
}

/// Opens a log stream as an agent. Returns it with the answers.
async fn logs_of(
    client: &AgentLinkClient<Channel>,
    agent: &str,
) -> Result<(mpsc::Sender<v1::LogUp>, tonic::Streaming<v1::LogDown>), Status> {
    let (up, outgoing) = mpsc::channel(16);
    let hello = v1::log_up::Message::Hello(v1::LogHello {
        agent_id: agent.to_owned(),
    });
    let message = Some(hello);
    up.send(v1::LogUp { message }).await.unwrap();
    let down = client.clone().logs(ReceiverStream::new(outgoing)).await?;
    Ok((up, down.into_inner()))
}

fn flooded_logs() {
    let fleet = Fleet::new();
    let at = fleet.serve_within(&[("PHALANX_LOGS__ATTEMPT_MIB", "1")], 2_000);
    let chunk = |token: &v1::Token, number: u64, service: String, offset: u64, data: Vec<u8>| {
        let message = Some(v1::log_up::Message::Chunk(v1::LogChunk {
            token: Some(token.clone()),
            number,
            service,
            stream: v1::LogStream::Stdout.into(),
            offset,
            at_us: 1,
            data,
        }));
        v1::LogUp { message }
    };
    runtime().block_on(async {
        let mut liar = Liar::connect(&at, hello("liar", "1")).await.unwrap();
        submit(&fleet, &at, &ONE.replace("phases", "strategy: { matrix: { n: [1, 2] } }\nphases"));
        let tokens = [liar.offered().await, liar.offered().await];
        for token in &tokens {
            let token = Some(token.clone());
            liar.say(Up::Accept(v1::Accept { token })).await;
        }
        let client = AgentLinkClient::connect(at.url()).await.unwrap();
        let (up, mut down) = logs_of(&client, "liar").await.unwrap();
        let answers = tokio::spawn(async move {
            let mut answers = Vec::new();
            while let Ok(Some(answer)) = down.message().await {
                answers.extend(answer.message);
            }
            answers
        });
        // As many outputs as a crowd of services would have, each with a byte, then 32 MiB of one.
        let size = 64 << 10;
        for n in 0..2_000 {
            up.send(chunk(&tokens[0], n + 1, format!("s{n}"), 0, vec![b'x'])).await.unwrap();
        }
        for n in 0..512 {
            let data = vec![b'y'; size];
            let sent = chunk(&tokens[1], n + 1, "one".to_owned(), n * size as u64, data);
            up.send(sent).await.unwrap();
        }
        drop(up);
        let answers = answers.await.unwrap();
        use v1::log_down::Message;
        let refused = answers.iter().any(|answer| matches!(answer, Message::Refused(refused) if refused.reason.contains("at most 512 outputs")));
        assert!(refused, "{:?}", answers.last());
        let taken = |answer: &Message| matches!(answer, Message::Ack(ack) if ack.token == Some(tokens[1].clone()) && ack.number == 512);
        assert!(answers.iter().any(taken), "{:?}", answers.last());
    });
    let logs = files_below(&fleet.path("state/coordinator/logs"));
    assert!(logs.len() < 600, "{} files", logs.len());
    let bytes: u64 = logs.iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes < 2 << 20, "{bytes} bytes");
    // Others are not affected.
    assert_eq!(at.get("/healthz").1, "ok\n");
    let (code, _, stderr) = fleet.call(&at, &["runs"]);
    assert_eq!(code, Some(0), "{stderr}");
}

pub fn files_below(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files_below(&path)),
            false => found.push(path),
        }
    }
    found
}

fn ghost_logs() {
    let fleet = Fleet::new();
    let at = fleet.serve_within(&[], 256);
    let runtime = runtime();
    let mut refused = 0;
    let mut ghosts = Vec::new();
    for connection in 0..3 {
        let client = runtime
            .block_on(AgentLinkClient::connect(at.url()))
            .unwrap();
        for n in 0..50 {
            match runtime.block_on(logs_of(&client, &format!("ghost-{connection}-{n}"))) {
                Ok(stream) => ghosts.push(stream),
                Err(status) => {
                    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                    refused += 1;
                }
            }
        }
    }
    assert_eq!((ghosts.len(), refused), (96, 54));
    fleet.json(&at, &["runs", "--format", "json"]);
    // These connections end by themselves, and then an agent of the same address can connect.
    let ended = ghosts.last_mut().unwrap();
    let status = runtime.block_on(async { tokio::time::timeout(BOUND, ended.1.message()).await });
    let status = status.unwrap().unwrap_err();
    assert!(status.message().contains("no agent"), "{status}");
    let _honest = fleet.agent("honest", &at.url(), 4);
    let run = submit(&fleet, &at, ONE);
    assert_eq!(fleet.finished(&at, &run)["outcome"], "passed");
}

fn secrets_of_the_job() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let secrets = [
        ("deploy".to_owned(), "production-password-1".to_owned()),
        ("other".to_owned(), "not-even-named-by-it".to_owned()),
    ];
    for (named, expected) in [("", 0), ("secrets: [deploy]\n", 1)] {
        let offered = runtime().block_on(async {
            let id = format!("reader-{expected}");
            let mut liar = Liar::connect(&at, hello(&id, "1")).await.unwrap();
            let name = "s.yaml".to_owned();
            let text = format!("{named}{ONE}");
            let request = v1::SubmitRequest {
                files: vec![v1::SourceFile { name, text }],
                secrets: secrets.clone().into(),
                ..v1::SubmitRequest::default()
            };
            let run = at
                .client()
                .await
                .submit(request)
                .await
                .unwrap()
                .into_inner();
            let offer = |down| match down {
                Down::Offer(offer) => Some(offer.secrets),
                _ => None,
            };
            let secrets = liar.hear(offer).await;
            let cancel = v1::CancelRequest {
                run_id: run.run_id,
                force: true,
                ..v1::CancelRequest::default()
            };
            at.client().await.cancel(cancel).await.unwrap();
            secrets
        });
        let names: Vec<&str> = offered.keys().map(String::as_str).collect();
        assert_eq!(names, ["deploy"][..expected], "{named:?}");
    }
}

fn passers_by() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let runtime = runtime();
    let before = at.process.peak_mib();
    for n in 0..400 {
        let liar = runtime.block_on(Liar::connect(&at, hello(&format!("agent-{n}"), "1")));
        let reason = "passing by".to_owned();
        runtime.block_on(liar.unwrap().say(Up::Goodbye(v1::Goodbye { reason })));
    }
    eventually("those that left are forgotten", || {
        (fleet.states(&at).len() <= 100).then_some(())
    });
    let grown = at.process.peak_mib() - before;
    assert!(grown < 100, "{grown} MiB");
}

fn refused_at_once() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let before = at.process.peak_mib();
    let heavy = json!({"x": "y".repeat(60_000_000)}).to_string();
    let codes: Vec<Code> = runtime().block_on(async {
        let calls = (0..8).map(|_| {
            let heavy = heavy.clone();
            async {
                let client = ControlClient::connect(at.url()).await.unwrap();
                let mut client = client.max_encoding_message_size(1 << 30);
                let request = v1::SubmitRequest {
                    files: vec![v1::SourceFile {
                        name: "s.yaml".to_owned(),
                        text: "name: [\n".to_owned(),
                    }],
                    origin_json: heavy.into_bytes(),
                    ..v1::SubmitRequest::default()
                };
                client.submit(request).await.unwrap_err().code()
            }
        });
        futures::future::join_all(calls).await
    });
    let known = [Code::InvalidArgument, Code::ResourceExhausted];
    assert!(codes.iter().all(|code| known.contains(code)), "{codes:?}");
    let grown = at.process.peak_mib() - before;
    println!("8 submissions of 60 MB: {grown} MiB");
    assert!(grown < 900, "{grown} MiB");
    submit(&fleet, &at, ONE);
}

fn claimed_attempts() {
    let fleet = Fleet::new();
    let mut at = fleet.serve();
    let (run, token) = runtime().block_on(async {
        let mut holder = Liar::connect(&at, hello("holder", "1")).await.unwrap();
        let run = submit(&fleet, &at, ONE);
        let token = holder.offered().await;
        let accepted = Some(token.clone());
        holder.say(Up::Accept(v1::Accept { token: accepted })).await;
        holder
            .tell(
                &token,
                1,
                json!({"kind": "attempt_started", "agent": "holder"}),
            )
            .await;
        let begun = async || {
            kinds(&at, &run)
                .await
                .contains(&"attempt_started".to_owned())
        };
        while !begun().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        (run, token)
    });
    at.process.kill();
    let at = fleet.serve();
    let with = |id: &str| {
        let mut hello = hello(id, "1");
        hello.inventory = vec![v1::Held {
            token: Some(token.clone()),
            last_seq: 1,
            ..v1::Held::default()
        }];
        hello
    };
    let passed = json!({"kind": "attempt_finished", "outcome": "passed", "reason": null});
    runtime().block_on(async {
        let mut claimer = Liar::connect(&at, with("claimer")).await.unwrap();
        claimer.tell(&token, 2, passed.clone()).await;
        claimer.abandoned().await;
        assert!(
            !kinds(&at, &run)
                .await
                .contains(&"attempt_finished".to_owned())
        );
        let holder = Liar::connect(&at, with("holder")).await.unwrap();
        holder.tell(&token, 2, passed).await;
        let torn_down =
            json!({"kind": "torn_down", "removed": 0, "left": [], "kept": [], "began": 1});
        holder.tell(&token, 3, torn_down).await;
        let shown = tokio::task::block_in_place(|| fleet.finished(&at, &run));
        assert_eq!(shown["outcome"], "passed", "{shown:#}");
    });
}
