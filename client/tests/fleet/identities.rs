//! A fleet by TLS: agents enrol, renew, and are refused; nobody without an identity is an agent.

use crate::rig::{Coordinator, Fleet, eventually};
use phalanx_proto::tls::{self, Shown, Trust};
use phalanx_proto::v1::agent_link_client::AgentLinkClient;
use phalanx_proto::v1::enrolment_client::EnrolmentClient;
use phalanx_proto::v1::{self, from_agent, log_up};
use phalanx_shared::identity::EnrolToken;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio_stream::StreamExt;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

impl Fleet {
    fn serve_by_tls(&self, settings: &[(&str, &str)]) -> Coordinator {
        self.serve_by_tls_at("127.0.0.1:0", settings)
    }

    fn serve_by_tls_at(&self, listen: &str, settings: &[(&str, &str)]) -> Coordinator {
        let lines = settings
            .iter()
            .map(|(key, value)| match value.parse::<u64>() {
                Ok(number) => format!("{key} = {number}\n"),
                Err(_) => format!("{key} = {value:?}\n"),
            });
        let file = self.path(".config/phalanx/config.toml");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, lines.collect::<String>()).unwrap();
        self.serve_at_with(listen, &["--tls"])
    }

    /// Makes a token at the coordinator.
    fn token(&self, at: &Coordinator, more: &[&str]) -> String {
        let arguments = [&["token", "create", "agent"], more].concat();
        let (code, stdout, stderr) = self.call(at, &arguments);
        assert_eq!(code, Some(0), "{stderr}");
        stdout.trim().to_owned()
    }
}

/// The parts of an identity.
struct Identity {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Identity {
    fn shown(&self) -> Shown {
        let key = PrivatePkcs8KeyDer::from(self.key.clone());
        Shown {
            chain: vec![CertificateDer::from(self.certificate.clone())],
            key: PrivateKeyDer::from(key),
        }
    }
}

async fn channel(at: &Coordinator, identity: Option<&Identity>) -> Channel {
    let trust = Trust::named(at.known_by.as_ref().unwrap()).unwrap();
    let config = tls::client(trust, identity.map(Identity::shown)).unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{}", at.address)).unwrap();
    let connected = tls::connect(endpoint, move || Ok(config.clone())).await;
    connected.unwrap()
}

async fn enrol(at: &Coordinator, token: &str, agent: &str) -> Result<Identity, Status> {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let mut client = EnrolmentClient::new(channel(at, None).await);
    let issued = client
        .enrol(v1::EnrolRequest {
            token: token.to_owned(),
            agent_id: agent.to_owned(),
            signing_request: request.der().to_vec(),
        })
        .await?;
    Ok(Identity {
        certificate: issued.into_inner().certificate,
        key: key.serialize_der(),
    })
}

fn hello(agent: &str) -> v1::FromAgent {
    let hello = v1::Hello {
        agent_id: agent.to_owned(),
        name: agent.to_owned(),
        version: "0".to_owned(),
        min_protocol: 1,
        max_protocol: 2,
        slots: 1,
        resources: Some(v1::Resources::default()),
        instance: "i".to_owned(),
        number: 1,
        ..v1::Hello::default()
    };
    v1::FromAgent {
        message: Some(from_agent::Message::Hello(hello)),
    }
}

/// Says Hello, and returns the stream of answers after the first.
async fn session(
    link: &mut AgentLinkClient<Channel>,
    agent: &str,
) -> Result<tonic::Streaming<v1::ToAgent>, Status> {
    let said = tokio_stream::iter([hello(agent)]).chain(tokio_stream::pending());
    let mut answers = link.session(said).await?.into_inner();
    answers.message().await?;
    Ok(answers)
}

fn obituary(agent: &str) -> v1::Obituary {
    v1::Obituary {
        agent_id: agent.to_owned(),
        instance: "i".to_owned(),
    }
}

fn log_hello(agent: &str) -> impl tokio_stream::Stream<Item = v1::LogUp> + use<> {
    let hello = v1::LogHello {
        agent_id: agent.to_owned(),
    };
    let first = v1::LogUp {
        message: Some(log_up::Message::Hello(hello)),
    };
    tokio_stream::iter([first]).chain(tokio_stream::pending())
}

#[test]
fn an_agent_enrols_once_and_has_what_its_token_gives() {
    let fleet = Fleet::new();
    let at = fleet.serve_by_tls(&[]);
    // Beside the running coordinator, in its state directory.
    let created = fleet
        .phalanx(&[
            "token", "create", "agent", "--pool", "ci", "--label", "gpu", "--slots", "2",
        ])
        .output()
        .unwrap();
    let token = String::from_utf8(created.stdout).unwrap();
    assert!(
        token.starts_with("phxagent."),
        "{}",
        String::from_utf8_lossy(&created.stderr)
    );
    let file = fleet.path("token");
    fs::write(&file, &token).unwrap();
    let enrol = format!("@{}", file.display());
    let with = ["--allow", "all", "--enrol", &enrol];
    let mut agent = fleet.agent_allowing(&with, &[], "one", &at.url(), 8);
    fleet.wait_for_state(&at, "one", "connected");
    let list = fleet.json(&at, &["agents", "--format", "json"]);
    let one = &list["agents"][0];
    let labels: Vec<&str> = one["labels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l.as_str().unwrap())
        .collect();
    assert!(
        labels.contains(&"pool=ci") && labels.contains(&"gpu"),
        "{labels:?}"
    );
    assert_eq!(one["slots"], 2, "the token's ceiling");
    let credentials = fleet.path("agent-one").join("credentials.json");
    let mode = credentials.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let run = fleet.submit(&at, "run", &["--only", "n=1"]);
    run.open_gate();
    assert_eq!(fleet.finished(&at, &run)["outcome"], "passed");

    // The token isn't needed any more, and the id stays.
    agent.kill();
    let agent = fleet.agent("one", &at.url(), 8);
    fleet.wait_for_state(&at, "one", "connected");
    let again = fleet.json(&at, &["agents", "--format", "json"]);
    assert_eq!(again["agents"][0]["id"], one["id"]);
    drop(agent);

    // The token was for one agent.
    let mut other = fleet.agent_allowing(&with, &[], "two", &at.url(), 1);
    assert!(!other.end().success());
    let said = other.said();
    assert!(
        said.contains("used (1 of 1)") && said.contains("PHX0043"),
        "{said}"
    );
    let mut none = fleet.agent("three", &at.url(), 1);
    assert!(!none.end().success());
    assert!(none.said().contains("has no identity"), "{}", none.said());

    // A label that the token didn't give.
    let token = fleet.token(&at, &["--ttl", "1h"]);
    let with = ["--allow", "all", "--enrol", &token, "--label", "license"];
    let four = fleet.agent_allowing(&with, &[], "four", &at.url(), 1);
    four.wait_for("may not have the label");
}

#[test]
fn a_client_knows_its_coordinator_or_says_that_it_doesnt() {
    let fleet = Fleet::new();
    let at = fleet.serve_by_tls(&[]);
    let ask = |ca: Option<&str>, url: &str| {
        let mut command = fleet.phalanx(&["agents", "--coordinator", url]);
        if let Some(ca) = ca {
            command.args(["--ca", ca]);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.success(), said)
    };
    let pem = fleet.path("state/coordinator/tls/ca.pem");
    let known_by = at.known_by.clone().unwrap();
    for ca in [known_by.as_str(), pem.to_str().unwrap()] {
        assert!(ask(Some(ca), &at.url()).0, "{ca}");
    }
    let (ok, said) = ask(None, &at.url());
    assert!(
        !ok && said.contains("--ca sha256:") && said.contains("PHX0042"),
        "{said}"
    );
    let zeros = format!("sha256:{}", "0".repeat(64));
    let (ok, said) = ask(Some(&zeros), &at.url());
    assert!(
        !ok && said.contains("isn't of the CA that it is known by"),
        "{said}"
    );
    let (ok, said) = ask(Some("no-such.pem"), &at.url());
    assert!(!ok && said.contains("no-such.pem"), "{said}");
    let plain = format!("http://{}", at.address);
    assert!(!ask(None, &plain).0, "no TLS");
}

#[tokio::test]
async fn without_an_identity_only_enrolment_and_health_answer() {
    let fleet = Fleet::new();
    let at = fleet.serve_by_tls(&[]);
    let nobody = channel(&at, None).await;
    let mut health = HealthClient::new(nobody.clone());
    let request = HealthCheckRequest::default();
    assert!(health.check(request).await.is_ok());
    let mut link = AgentLinkClient::new(nobody.clone());
    let mut codes = vec![session(&mut link, "a").await.err().unwrap()];
    codes.push(link.logs(log_hello("a")).await.err().unwrap());
    codes.push(link.died(obituary("a")).await.err().unwrap());
    let digest = "0".repeat(64);
    let workspace = link.workspace(v1::WorkspaceRequest { digest });
    codes.push(workspace.await.err().unwrap());
    let mut enrolment = EnrolmentClient::new(nobody);
    let renew = v1::RenewRequest {
        signing_request: Vec::new(),
    };
    codes.push(enrolment.renew(renew).await.err().unwrap());
    for status in codes {
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        assert!(status.message().contains("wants an identity"), "{status}");
    }
    let fingerprint = at.known_by.as_deref().unwrap();
    let guessed = EnrolToken::new(
        [1; 8],
        [2; 32],
        phalanx_shared::identity::Fingerprint::parse(fingerprint).unwrap(),
    );
    let refused = enrol(&at, &guessed.reveal(), "a").await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = enrol(&at, "rubbish", "a").await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_for_one_agent_gives_a_hundred_that_try_at_once_one_certificate() {
    let fleet = Fleet::new();
    let at = std::sync::Arc::new(fleet.serve_by_tls(&[]));
    let token = fleet.token(&at, &[]);
    let tries: Vec<_> = (0..100)
        .map(|n| {
            let (at, token) = (at.clone(), token.clone());
            tokio::spawn(async move { enrol(&at, &token, &format!("agent-{n}")).await })
        })
        .collect();
    let mut given = 0;
    for tried in tries {
        match tried.await.unwrap() {
            Ok(_) => given += 1,
            Err(status) => assert!(status.message().contains("used (1 of 1)"), "{status}"),
        }
    }
    assert_eq!(given, 1);
    let list = fleet.json(&at, &["agents", "identities", "--format", "json"]);
    assert_eq!(list["identities"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_agent_speaks_for_nobody_else() {
    let fleet = Fleet::new();
    let at = fleet.serve_by_tls(&[]);
    let own = enrol(&at, &fleet.token(&at, &[]), "own").await.unwrap();
    let mut link = AgentLinkClient::new(channel(&at, Some(&own)).await);
    let answers = session(&mut link, "own").await.unwrap();
    let mut refused = vec![session(&mut link, "other").await.err().unwrap()];
    let mut logs = link.logs(log_hello("other")).await.unwrap().into_inner();
    refused.push(logs.message().await.err().unwrap());
    refused.push(link.died(obituary("other")).await.err().unwrap());
    for status in refused {
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        assert!(status.message().contains("of agent own"), "{status}");
    }
    assert!(link.died(obituary("own")).await.is_ok());
    drop(answers);
    at.process
        .wait_for("the certificate is of agent own, and the message of agent other");
}

/// Opens a connection and makes a call. Returns why that fails.
async fn refusal(at: &Coordinator, identity: &Identity) -> String {
    let trust = Trust::named(at.known_by.as_ref().unwrap()).unwrap();
    let config = tls::client(trust, Some(identity.shown())).unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{}", at.address)).unwrap();
    match tls::connect(endpoint, move || Ok(config.clone())).await {
        Err(error) => tls::explain(&error).unwrap_or_else(|| format!("{error:?}")),
        Ok(channel) => {
            let mut link = AgentLinkClient::new(channel);
            let status = link.died(obituary("own")).await.err().unwrap();
            phalanx_proto::broken(&status)
        }
    }
}

/// Waits for a reason. What a coordinator says when it closes a connection may be lost with it.
async fn refused_with(at: &Coordinator, identity: &Identity, reason: &str) {
    let mut said = String::new();
    for _ in 0..50 {
        said = refusal(at, identity).await;
        if said.contains(reason) {
            return;
        }
    }
    panic!("{said}");
}

/// Makes a certificate that names an agent, of a CA that nobody knows.
fn foreign(agent: &str) -> (CertifiedIssuer<'static, KeyPair>, Identity) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let identity = issued(&ca, &format!("phalanx://phalanx/agent/{agent}"), false);
    (ca, identity)
}

fn issued(ca: &CertifiedIssuer<'static, KeyPair>, name: &str, server: bool) -> Identity {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let uri = Ia5String::try_from(name).unwrap();
    params.subject_alt_names.push(SanType::URI(uri));
    params.extended_key_usages = vec![match server {
        true => ExtendedKeyUsagePurpose::ServerAuth,
        false => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, ca).unwrap();
    Identity {
        certificate: certificate.der().to_vec(),
        key: key.serialize_der(),
    }
}

#[tokio::test]
async fn a_certificate_that_is_expired_or_of_another_ca_isnt_accepted() {
    let fleet = Fleet::new();
    let at = fleet.serve_by_tls(&[("serve.tls.agent_certificate_s", "8")]);
    let own = enrol(&at, &fleet.token(&at, &[]), "own").await.unwrap();
    let mut link = AgentLinkClient::new(channel(&at, Some(&own)).await);
    let mut answers = session(&mut link, "own").await.unwrap();
    // A stream that was opened in time ends too, and so does every new one on its connection.
    let began = Instant::now();
    while answers
        .message()
        .await
        .is_ok_and(|message| message.is_some())
    {}
    assert!(began.elapsed() < Duration::from_secs(20));
    assert!(link.died(obituary("own")).await.is_err());
    refused_with(&at, &own, "expired: enrol again").await;
    let (_, foreign) = foreign("own");
    refused_with(&at, &foreign, "another CA").await;
    at.process.wait_for("a certificate was refused");
}

#[tokio::test]
async fn a_revoked_agent_is_cut_off_and_stays_out() {
    let fleet = Fleet::new();
    let at = fleet.serve_by_tls(&[]);
    let own = enrol(&at, &fleet.token(&at, &[]), "own").await.unwrap();
    let other = enrol(&at, &fleet.token(&at, &[]), "other").await.unwrap();
    let mut link = AgentLinkClient::new(channel(&at, Some(&own)).await);
    let mut answers = session(&mut link, "own").await.unwrap();
    let mut others = AgentLinkClient::new(channel(&at, Some(&other)).await);
    let mut goes_on = session(&mut others, "other").await.unwrap();
    let revoke = ["agents", "revoke", "own", "--reason", "sold the machine"];
    let (code, _, stderr) = fleet.call(&at, &revoke);
    assert_eq!(code, Some(0), "{stderr}");
    let cut = async {
        while answers
            .message()
            .await
            .is_ok_and(|message| message.is_some())
        {}
    };
    tokio::time::timeout(Duration::from_secs(5), cut)
        .await
        .unwrap();
    // The same client with its TLS sessions, and a new one.
    assert!(link.died(obituary("own")).await.is_err());
    let refused = refusal(&at, &own).await;
    assert!(refused.contains("revoked (sold the machine)"), "{refused}");
    let request = v1::RenewRequest {
        signing_request: Vec::new(),
    };
    let mut enrolment = EnrolmentClient::new(channel(&at, Some(&own)).await);
    let renewed = enrolment.renew(request).await.err().unwrap();
    assert_eq!(renewed.code(), Code::PermissionDenied);
    let again = enrol(&at, &fleet.token(&at, &[]), "own")
        .await
        .err()
        .unwrap();
    assert!(again.message().contains("revoked"), "{again}");
    let list = fleet.json(&at, &["agents", "identities", "--format", "json"]);
    let rows = list["identities"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "its row stays");
    assert!(
        rows.iter()
            .any(|row| row["agent"] == "own" && row["standing"] == "revoked")
    );
    let still = tokio::time::timeout(Duration::from_millis(200), goes_on.message()).await;
    let on = matches!(still, Err(_) | Ok(Ok(Some(_))));
    assert!(on, "others aren't cut off: {still:?}");
    let (code, _, stderr) = fleet.call(&at, &["agents", "revoke", "nobody"]);
    assert!(
        code != Some(0) && stderr.contains("no identity nobody"),
        "{stderr}"
    );
}

#[test]
fn an_agent_renews_its_certificate_and_goes_on() {
    let fleet = Fleet::new();
    let at = fleet.serve_by_tls(&[("serve.tls.agent_certificate_s", "10")]);
    let token = fleet.token(&at, &[]);
    let with = ["--allow", "all", "--enrol", &token];
    let agent = fleet.agent_allowing(&with, &[], "one", &at.url(), 2);
    fleet.wait_for_state(&at, "one", "connected");
    let run = fleet.submit(&at, "run", &["--only", "n=1"]);
    run.wait_at_gate(&[1], 1);
    let generation = || {
        let list = fleet.json(&at, &["agents", "identities", "--format", "json"]);
        list["identities"][0]["generation"].as_u64().unwrap()
    };
    // Three renewals take longer than the first certificate lasted.
    eventually("it renews", || (generation() >= 4).then_some(()));
    run.open_gate();
    let shown = fleet.finished(&at, &run);
    assert_eq!(shown["outcome"], "passed");
    assert_eq!(crate::rig::attempts(&shown)[0].1, 1, "nothing was lost");
    assert_eq!(
        agent.said().matches("no connection").count(),
        0,
        "{}",
        agent.said()
    );

    // A coordinator that is away for a while: the agent shows its newest certificate afterwards.
    let listen = at.killed();
    let at = fleet.serve_by_tls_at(&listen, &[("serve.tls.agent_certificate_s", "10")]);
    fleet.wait_for_state(&at, "one", "connected");
}

fn write_pem(path: &Path, kind: &str, parts: &[&[u8]]) {
    use base64::Engine;
    let mut text = String::new();
    for part in parts {
        let coded = base64::prelude::BASE64_STANDARD.encode(part);
        text += &format!("-----BEGIN {kind}-----\n");
        for line in coded.as_bytes().chunks(64) {
            text += std::str::from_utf8(line).unwrap();
            text += "\n";
        }
        text += &format!("-----END {kind}-----\n");
    }
    // As other programs replace certificates.
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

#[test]
fn certificates_of_another_pki_are_taken_from_files_and_read_again() {
    let fleet = Fleet::new();
    let (ca, agent) = foreign("runner-1");
    let file = |name: &str| fleet.path(name);
    let text = |name: &str| file(name).display().to_string();
    let show = |name: &str| {
        let server = issued(&ca, name, true);
        // The key first: the pair is whole when the certificate is there.
        write_pem(&file("server.key"), "PRIVATE KEY", &[&server.key]);
        write_pem(&file("server.pem"), "CERTIFICATE", &[&server.certificate]);
        phalanx_shared::identity::Fingerprint::of(&server.certificate).to_string()
    };
    let first = show("https://one.example");
    write_pem(&file("ca.pem"), "CERTIFICATE", &[ca.der()]);
    write_pem(&file("agent.pem"), "CERTIFICATE", &[&agent.certificate]);
    write_pem(&file("agent.key"), "PRIVATE KEY", &[&agent.key]);
    let mut at = fleet.serve_by_tls(&[
        ("serve.tls.cert", &text("server.pem")),
        ("serve.tls.key", &text("server.key")),
        ("serve.tls.client_ca", &text("ca.pem")),
    ]);
    assert_eq!(at.known_by, Some(first.clone()));
    let (certificate, key, known) = (text("agent.pem"), text("agent.key"), text("ca.pem"));
    let files = [
        "--allow",
        "all",
        "--certificate",
        &certificate,
        "--key",
        &key,
        "--ca",
        &known,
    ];
    let _agent = fleet.agent_allowing(&files, &[], "one", &at.url(), 1);
    fleet.wait_for_state(&at, "one", "connected");
    let list = fleet.json(&at, &["agents", "--format", "json"]);
    assert_eq!(list["agents"][0]["id"], "runner-1", "the certificate's id");
    let (code, _, said) = fleet.call(&at, &["token", "create", "agent"]);
    assert!(
        code != Some(0) && said.contains("serve.tls.client_ca"),
        "{said}"
    );

    let second = show("https://two.example");
    at.known_by = Some(second.clone());
    eventually("the new certificate is shown", || {
        fleet.call(&at, &["agents"]).0.filter(|code| *code == 0)
    });
    let third = show("https://three.example");
    at.process.signal(nix::sys::signal::Signal::SIGHUP);
    at.known_by = Some(third);
    eventually("SIGHUP is heard", || {
        fleet.call(&at, &["agents"]).0.filter(|code| *code == 0)
    });
    // A broken file: the earlier certificate stays.
    fs::write(file("server.pem"), "no certificate").unwrap();
    at.process.wait_for("the earlier one is still shown");
    assert_eq!(fleet.call(&at, &["agents"]).0, Some(0));
}
