//! The office with its CA and its store on disk.
#![allow(clippy::unwrap_used)]

use super::ca::Ca;
use super::core::Grant;
use super::office::{External, Identities, Settings};
use super::{IdentityError, PeerAgent};
use crate::clock::{Clock, SystemClock};
use crate::incoming::Presented;
use crate::journal::{Database, SqliteStore};
use phalanx_proto::certificate::facts;
use phalanx_proto::tls::Trust;
use phalanx_shared::id::AgentId;
use phalanx_shared::identity::{EnrolToken, Fingerprint};
use phalanx_shared::time::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

const HOUR: Duration = Duration::from_secs(3_600);

/// A clock that a test moves.
struct Moved(SystemClock, AtomicI64);

impl Clock for Moved {
    fn wall(&self) -> Timestamp {
        Timestamp(self.0.wall().0 + self.1.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

struct Office {
    identities: Identities,
    clock: Arc<Moved>,
    _stop: tokio_util::sync::DropGuard,
}

impl Office {
    async fn open(place: &Path) -> Office {
        let store = SqliteStore::open(&place.join("journal.db")).await.unwrap();
        let clock = Arc::new(Moved(SystemClock::default(), AtomicI64::new(0)));
        let settings = Settings {
            cluster: "ci".to_owned(),
            names: vec!["localhost".to_owned()],
            external: External::default(),
            agent_lasts: 24 * HOUR,
            directory: place.join("tls"),
        };
        let stop = CancellationToken::new();
        let database = store.database().unwrap();
        let opened = Identities::open(settings, database, clock.clone(), stop.clone());
        Office {
            identities: opened.await.unwrap(),
            clock,
            _stop: stop.drop_guard(),
        }
    }

    fn later(&self, by: Duration) {
        let by = i64::try_from(by.as_micros()).unwrap();
        self.clock.1.fetch_add(by, Ordering::Relaxed);
    }

    async fn token(&self, uses: u32) -> EnrolToken {
        let grant = Grant::default();
        let made = self.identities.create_token(grant, HOUR, uses).await;
        made.unwrap().token
    }

    async fn enrol(
        &self,
        token: &EnrolToken,
        agent: &str,
        request: &[u8],
    ) -> Result<Vec<u8>, IdentityError> {
        let issued = self.identities.enrol(token, AgentId::from(agent), request);
        Ok(issued.await?.certificate)
    }

    fn admit(&self, certificate: &[u8]) -> Result<PeerAgent, super::core::Refusal> {
        self.identities.admit(Some(&Presented {
            facts: facts(certificate).unwrap(),
            connected: self.clock.wall(),
        }))
    }
}

fn request() -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key);
    request.unwrap().der().to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_for_one_agent_gives_one_certificate_to_a_hundred_that_try_at_once() {
    let place = tempfile::tempdir().unwrap();
    let office = Office::open(place.path()).await;
    let token = office.token(1).await;
    let tries = (0..100).map(|n| {
        let (identities, token) = (office.identities.clone(), token.clone());
        tokio::spawn(async move {
            let agent = AgentId(format!("agent-{n}"));
            identities.enrol(&token, agent, &request()).await
        })
    });
    let mut given = 0;
    for tried in futures::future::join_all(tries).await {
        match tried.unwrap() {
            Ok(_) => given += 1,
            Err(error) => assert!(error.to_string().contains("used (1 of 1)"), "{error}"),
        }
    }
    assert_eq!((given, office.identities.all().len()), (1, 1));
}

#[tokio::test]
async fn a_lost_answer_is_given_again_for_the_same_key_only() {
    let place = tempfile::tempdir().unwrap();
    let office = Office::open(place.path()).await;
    let token = office.token(1).await;
    let asked = request();
    let first = office.enrol(&token, "a", &asked).await.unwrap();
    assert_eq!(office.enrol(&token, "a", &asked).await.unwrap(), first);
    assert!(office.enrol(&token, "a", &request()).await.is_err());
    assert!(office.enrol(&token, "b", &asked).await.is_err());
    let (id, ca) = ([3; 8], token.coordinator());
    let guessed = EnrolToken::new(id, [0; 32], ca);
    let refused = office.enrol(&guessed, "c", &request()).await.unwrap_err();
    assert!(refused.to_string().contains("doesn't know the token"));
    let mut broken = request();
    *broken.last_mut().unwrap() ^= 1;
    let other = office.token(1).await;
    assert!(office.enrol(&other, "d", &broken).await.is_err());
    assert!(office.enrol(&other, "d/e", &request()).await.is_err());
    assert!(office.enrol(&other, "d", &request()).await.is_ok());
}

#[tokio::test]
async fn what_is_known_of_identities_survives_a_restart() {
    let place = tempfile::tempdir().unwrap();
    let (first, renewed, fingerprint) = {
        let office = Office::open(place.path()).await;
        let token = office.token(2).await;
        let first = office.enrol(&token, "a", &request()).await.unwrap();
        let gone = office.enrol(&token, "b", &request()).await.unwrap();
        let revoked = office.identities.revoke("b".into(), "left".to_owned());
        assert!(revoked.await.unwrap());
        assert!(office.admit(&gone).is_err());
        let renewed = office.identities.renew("a".into(), &request()).await;
        let renewed = renewed.unwrap().certificate;
        assert_eq!(office.admit(&renewed).unwrap().agent, AgentId::from("a"));
        assert_eq!(office.identities.get(&"a".into()).unwrap().issued, 2);
        // What is written behind.
        while stored_generation(place.path()).await != 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        (first, renewed, office.identities.fingerprint())
    };
    let office = Office::open(place.path()).await;
    assert_eq!(office.identities.fingerprint(), fingerprint, "the CA stays");
    assert_eq!(
        office.identities.get(&"b".into()).unwrap().standing.word(),
        "revoked"
    );
    assert!(office.admit(&renewed).is_ok());
    office.later(Duration::from_secs(60));
    let refused = office.admit(&first).unwrap_err().to_string();
    assert!(refused.contains("locked"), "{refused}");
    assert!(office.admit(&renewed).is_err(), "locked is locked");
}

async fn stored_generation(place: &Path) -> u32 {
    let database = Database::beside(&place.join("journal.db")).await.unwrap();
    let used = sqlx::query_scalar("SELECT used FROM identities WHERE agent = 'a'")
        .fetch_one(database.readers())
        .await;
    used.unwrap()
}

#[tokio::test]
async fn an_expired_identity_enrols_again_and_counts_on() {
    let place = tempfile::tempdir().unwrap();
    let office = Office::open(place.path()).await;
    let first = office.token(1).await;
    let old = office.enrol(&first, "a", &request()).await.unwrap();
    let early = office.token(1).await;
    let taken = office.enrol(&early, "a", &request()).await.unwrap_err();
    assert!(taken.to_string().contains("in use"), "{taken}");
    office.later(25 * HOUR);
    assert!(
        office
            .admit(&old)
            .unwrap_err()
            .to_string()
            .contains("expired")
    );
    let late = office.enrol(&early, "a", &request()).await.unwrap_err();
    assert!(late.to_string().contains("token has expired"), "{late}");
    let next = office.token(1).await;
    let new = office.enrol(&next, "a", &request()).await.unwrap();
    assert_eq!(office.identities.get(&"a".into()).unwrap().issued, 2);
    assert!(office.admit(&new).is_ok());
}

#[tokio::test]
async fn a_ca_without_its_key_is_no_reason_to_begin_another() {
    let place = tempfile::tempdir().unwrap();
    drop(Office::open(place.path()).await);
    let tls = place.path().join("tls");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &tls.join("ca.key").metadata().unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let key = std::fs::read_to_string(tls.join("ca.key")).unwrap();
    std::fs::remove_file(tls.join("ca.key")).unwrap();
    let now = SystemClock::default().wall();
    let opened = Ca::open(&tls, "ci", now).map(|_| ());
    assert!(
        opened
            .unwrap_err()
            .to_string()
            .contains("ca.key is missing")
    );
    let other = KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(tls.join("ca.key"), other).unwrap();
    let opened = Ca::open(&tls, "ci", now).map(|_| ());
    assert!(opened.unwrap_err().to_string().contains("ca.key beside it"));
    std::fs::write(tls.join("ca.key"), key).unwrap();
    assert!(Ca::open(&tls, "ci", now).is_ok());
}

/// Makes a handshake between a client that trusts a CA and a server with a certificate. Returns whether the client accepts
/// it for a host.
async fn accepts(ca: &Ca, server: &super::tls::Configs, host: &str) -> bool {
    let trust = Trust::Fingerprint(Fingerprint::of(ca.certificate()));
    let client = phalanx_proto::tls::client(trust, None).unwrap();
    let (near, far) = tokio::io::duplex(1 << 16);
    let accept = TlsAcceptor::from(server.calls.clone()).accept(far);
    let accepting = tokio::spawn(async move { accept.await.is_ok() });
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let connected = TlsConnector::from(client).connect(name, near).await;
    let connected = connected.is_ok();
    let _ = accepting.await;
    connected
}

#[tokio::test]
async fn a_coordinator_is_known_by_its_ca_at_any_address_and_an_agent_is_none() {
    let place = tempfile::tempdir().unwrap();
    let now = SystemClock::default().wall();
    let ca = Ca::open(place.path(), "ci", now).unwrap();
    let of = |ca: &Ca, chain, key| {
        let clients = vec![ca.certificate().clone()];
        super::tls::Configs::of(super::tls::Material {
            chain,
            key,
            clients,
        })
        .unwrap()
    };
    let (own, key) = ca.coordinator("ci", &[], now, HOUR).unwrap();
    let server = of(&ca, vec![own, ca.certificate().clone()], key);
    assert!(accepts(&ca, &server, "behind-a-nat.example").await);
    assert_eq!(server.known_by, Fingerprint::of(ca.certificate()));

    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let request = super::ca::SigningRequest::parse(request.der()).unwrap();
    let agent = ca.agent("ci", &"a".into(), 1, &request, now, HOUR).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let chain = vec![agent.into(), ca.certificate().clone()];
    let agent = of(&ca, chain, key.into());
    assert!(
        !accepts(&ca, &agent, "localhost").await,
        "an agent is no coordinator"
    );

    let elsewhere = tempfile::tempdir().unwrap();
    let other = Ca::open(elsewhere.path(), "ci", now).unwrap();
    assert!(
        !accepts(&other, &server, "localhost").await,
        "of another CA"
    );
}
