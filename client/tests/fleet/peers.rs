//! Broken, foreign and malicious peers on the real port: they are refused or dropped with a reason, and the run
//! continues.

use crate::rig::{BOUND, Coordinator, Fleet, attempts, eventually};
use phalanx_proto::v1;
use phalanx_proto::v1::agent_link_client::AgentLinkClient;
use std::io::{Read, Write};
use std::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use v1::from_agent::Message as Up;
use v1::to_agent::Message as Down;

fn up(message: Up) -> v1::FromAgent {
    v1::FromAgent {
        message: Some(message),
    }
}

fn hello(agent: &str, slots: u32, protocols: (u32, u32)) -> v1::FromAgent {
    up(Up::Hello(v1::Hello {
        agent_id: agent.to_owned(),
        name: agent.to_owned(),
        version: "test".to_owned(),
        min_protocol: protocols.0,
        max_protocol: protocols.1,
        slots,
        resources: Some(v1::Resources::default()),
        ..v1::Hello::default()
    }))
}

/// An agent that speaks the protocol by hand.
struct Liar {
    up: mpsc::Sender<v1::FromAgent>,
    down: tonic::Streaming<v1::ToAgent>,
}

impl Liar {
    async fn connect(at: &Coordinator, name: &str) -> Liar {
        let mut client = AgentLinkClient::connect(at.url()).await.unwrap();
        let (up, outgoing) = mpsc::channel(64);
        up.send(hello(name, 0, (1, 1))).await.unwrap();
        let down = client.session(ReceiverStream::new(outgoing)).await.unwrap();
        let mut liar = Liar {
            up,
            down: down.into_inner(),
        };
        assert!(matches!(liar.heard().await, Some(Down::Welcome(_))));
        liar
    }

    async fn heard(&mut self) -> Option<Down> {
        self.down.message().await.ok()??.message
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_strangers_do_the_run_goes_on() {
    let fleet = Fleet::new();
    let at = fleet.serve();
    let _agent = fleet.agent("honest", &at.url(), 4);
    fleet.wait_for_state(&at, "honest", "connected");
    let run = fleet.submit(&at, "run", &[]);
    run.wait_at_gate(&[1, 2, 3, 4], 1);

    garbage(&at);
    a_huge_message(&at).await;
    a_gigabyte(&at);
    foreign_versions(&at).await;
    lies(&fleet, &at, &run.id).await;
    deaf(&at).await;
    let crowd = crowd(&at);

    run.open_gate();
    let shown = fleet.finished(&at, &run);
    assert_eq!(shown["outcome"], "passed", "{shown:#}");
    assert!(attempts(&shown).iter().all(|(_, attempts)| *attempts == 1));
    for n in 1..=4 {
        assert_eq!(run.marks(n), ["begins", "ends"], "cell {n}");
    }
    drop(crowd);
}

/// Sends bytes that are not the protocol, and an incomplete beginning of it.
fn garbage(at: &Coordinator) {
    for bytes in [
        &b"\0\xff\xfe garbage \r\n\r\n"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x04\0\0\0\0\x01",
    ] {
        let mut stream = TcpStream::connect(at.address).unwrap();
        stream.write_all(bytes).unwrap();
        stream.write_all(&[0xee; 4096]).ok();
        stream.shutdown(std::net::Shutdown::Write).ok();
        // The coordinator closes the connection, whatever it sent before.
        stream.set_read_timeout(Some(BOUND)).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
}

/// A message a hundred times too long is refused by its length, before it is read.
async fn a_huge_message(at: &Coordinator) {
    let mut client = AgentLinkClient::connect(at.url()).await.unwrap();
    let first = up(Up::Goodbye(v1::Goodbye {
        reason: "x".repeat(64 << 20),
    }));
    let answer = client.session(tokio_stream::iter([first])).await;
    let status = answer.map(|_| ()).unwrap_err();
    assert!(
        status.message().contains("message") || status.message().contains("large"),
        "{status}"
    );
    at.process.wait_for("a connection was refused");
}

/// Peers announce a message of a gigabyte and send all of it, regardless of answers and of flow control. The
/// coordinator must not store it.
fn a_gigabyte(at: &Coordinator) {
    const LENGTH: u32 = 1 << 30;
    let refused = || {
        at.process
            .said()
            .matches("a connection was refused")
            .count()
    };
    let (before, peak) = (refused(), at.process.peak_mib());
    for path in [
        "/phalanx.v1.AgentLink/Session",
        "/phalanx.v1.AgentLink/Logs",
        "/phalanx.v1.Control/Submit",
    ] {
        let mut stream = TcpStream::connect(at.address).unwrap();
        // A peer that gets no answer must not wait for ever.
        stream.set_write_timeout(Some(BOUND)).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        stream.write_all(&opening(path)).unwrap();
        let mut first = vec![0];
        first.extend(LENGTH.to_be_bytes());
        stream.write_all(&frame(0, &first)).unwrap();
        // An answer means that the length was read; the peer sends the rest anyway.
        until_answered(&mut stream);
        let piece = frame(0, &[b'x'; 16 << 10]);
        let mut left = LENGTH >> 14;
        while left > 0 && stream.write_all(&piece).is_ok() {
            left -= 1;
        }
    }
    // The log reports the refused agent, and no memory was used for what it sent.
    eventually("the agent is refused", || {
        (refused() > before).then_some(())
    });
    let grown = at.process.peak_mib().saturating_sub(peak);
    assert!(grown < 100, "the coordinator grew by {grown} MiB");
}

/// Reads frames up to the headers of the answer.
fn until_answered(stream: &mut TcpStream) {
    let mut head = [0; 9];
    loop {
        stream.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).unwrap();
        if head[3] == 1 {
            return;
        }
    }
}

/// Returns a frame of HTTP/2 on the first stream.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    // HEADERS are complete; no flag ends the stream.
    frame.extend([kind, if kind == 1 { 4 } else { 0 }, 0, 0, 0, 1]);
    frame.extend(payload);
    frame
}

/// Returns the beginning of a call: preface, empty settings, headers.
fn opening(path: &str) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    // POST and http are entries in HPACK's table; the others are literals, with or without an indexed name.
    let mut headers = vec![0x83, 0x86];
    let mut literal = |name: &[u8], value: &str| {
        headers.extend(name);
        headers.push(u8::try_from(value.len()).unwrap());
        headers.extend(value.as_bytes());
    };
    literal(&[0x04], path);
    literal(&[0x01], "localhost");
    literal(&[0x0f, 0x10], "application/grpc");
    literal(b"\x00\x02te", "trailers");
    bytes.extend(frame(1, &headers));
    bytes
}

async fn foreign_versions(at: &Coordinator) {
    for (protocols, advice) in [
        ((7, 9), "upgrade the coordinator"),
        ((0, 0), "upgrade the agent"),
    ] {
        let mut client = AgentLinkClient::connect(at.url()).await.unwrap();
        let first = hello("foreigner", 1, protocols);
        let answer = client.session(tokio_stream::iter([first])).await;
        let status = answer.map(|_| ()).unwrap_err();
        assert!(status.message().contains(advice), "{status}");
        at.process.wait_for(advice);
    }
    // A peer that also speaks our version is accepted.
    let mut client = AgentLinkClient::connect(at.url()).await.unwrap();
    let (up, outgoing) = mpsc::channel(1);
    up.send(hello("newer", 0, (1, 9))).await.unwrap();
    let mut down = client
        .session(ReceiverStream::new(outgoing))
        .await
        .unwrap()
        .into_inner();
    let first = down.message().await.unwrap().unwrap().message;
    let Some(Down::Welcome(welcome)) = first else {
        panic!("{first:?}");
    };
    assert_eq!(welcome.protocol, *phalanx_proto::PROTOCOLS.end());
}

/// Sends events of cells that it doesn't hold, events with stale tokens, and reports of other agents' deaths.
async fn lies(fleet: &Fleet, at: &Coordinator, run: &str) {
    let mut liar = Liar::connect(at, "liar").await;
    let cell = fleet.json(at, &["show", run, "--format", "json"])["cells"][0]["id"].clone();
    let cell = cell.as_str().unwrap().to_owned();
    let before = at.metric("phalanx_stale_messages_total");
    for (attempt, epoch) in [(1, 1), (9, 1), (1, 77), (0, 1)] {
        let token = v1::Token {
            run: run.to_owned(),
            cell: cell.clone(),
            attempt,
            epoch,
        };
        let accept = up(Up::Accept(v1::Accept { token: Some(token) }));
        let _ = liar.up.send(accept).await;
    }
    // One attempt is invalid and the others are stale: they are answered or cut off, but never believed.
    while let Some(message) = liar.heard().await {
        if matches!(message, Down::Abandon(_)) {
            break;
        }
    }
    eventually("the lies are counted", || {
        (at.metric("phalanx_stale_messages_total") > before).then_some(())
    });
    let mut client = AgentLinkClient::connect(at.url()).await.unwrap();
    let id = fleet.json(at, &["agents", "--format", "json"])["agents"]
        .as_array()
        .unwrap()
        .iter()
        .find(|agent| agent["name"] == "honest")
        .unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let obituary = v1::Obituary {
        agent_id: id,
        instance: "guessed".to_owned(),
    };
    client.died(obituary).await.unwrap();
    fleet.wait_for_state(at, "honest", "connected");
}

/// An agent that sends requests and never reads the answers.
async fn deaf(at: &Coordinator) {
    let liar = Liar::connect(at, "deaf").await;
    for number in 0..400_000 {
        let beat = up(Up::Heartbeat(v1::Heartbeat { number }));
        if liar.up.send(beat).await.is_err() {
            break;
        }
    }
    at.process.wait_for("doesn't read");
}

/// Opens five thousand connections that send nothing, or as many as this process may open.
fn crowd(at: &Coordinator) -> Vec<TcpStream> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let wanted = hard.min(8_192).max(soft);
        let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard);
    }
    let mut crowd = Vec::new();
    for _ in 0..5_000 {
        match TcpStream::connect(at.address) {
            Ok(stream) => crowd.push(stream),
            Err(_) => break,
        }
    }
    assert!(
        crowd.len() > 500,
        "only {} connections could be opened",
        crowd.len()
    );
    // It still answers others, because it doesn't accept more than it can handle.
    assert_eq!(at.get("/healthz").1, "ok\n");
    crowd
}
