//! A proxy before the engine's socket that can be cut: all connections die at once, and new ones are refused while it is down.
//! Or single answers are cut, and nothing else is.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// Answers to be cut: to requests with this text, after so many bytes, so many times.
struct Rule {
    request: &'static str,
    after: usize,
    times: usize,
}

type Rules = Arc<Mutex<Vec<Rule>>>;

/// A running proxy.
pub struct Proxy {
    pub host: String,
    path: PathBuf,
    cuts: Arc<watch::Sender<u32>>,
    up: Arc<watch::Sender<bool>>,
    rules: Rules,
    _dir: tempfile::TempDir,
}

impl Proxy {
    pub async fn open() -> Proxy {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let cuts = Arc::new(watch::Sender::new(0));
        let up = Arc::new(watch::Sender::new(true));
        let (cutting, upward) = (cuts.clone(), up.clone());
        let rules = Rules::default();
        let ruling = rules.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !*upward.borrow() {
                    continue;
                }
                tokio::spawn(carry(client, cutting.subscribe(), ruling.clone()));
            }
        });
        Proxy {
            host: format!("unix://{}", path.display()),
            path,
            cuts,
            up,
            rules,
            _dir: dir,
        }
    }

    /// Ends every connection, and refuses new ones for so long.
    pub async fn cut(&self, away: Duration) {
        assert!(self.path.exists());
        self.up.send_replace(false);
        self.cuts.send_modify(|n| *n += 1);
        tokio::time::sleep(away).await;
        self.up.send_replace(true);
    }

    /// Cuts the answers to requests with this text after so many bytes, so many times: a clean end, as of a proxy that goes.
    pub fn cut_answers(&self, request: &'static str, after: usize, times: usize) {
        self.rules.lock().unwrap().push(Rule {
            request,
            after,
            times,
        });
    }

    /// Whether all answers that were to be cut were cut.
    pub fn has_cut_all(&self) -> bool {
        self.rules
            .lock()
            .unwrap()
            .iter()
            .all(|rule| rule.times == 0)
    }
}

async fn carry(mut client: UnixStream, mut cut: watch::Receiver<u32>, rules: Rules) {
    let Ok(mut engine) = UnixStream::connect("/var/run/docker.sock").await else {
        return;
    };
    let left = Mutex::new(None);
    let (mut from_client, mut to_client) = client.split();
    let (mut from_engine, mut to_engine) = engine.split();
    let asking = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
            let text = String::from_utf8_lossy(&buffer[..n]);
            // A connection is used for one request after the other.
            if text.contains(" HTTP/1.1") {
                *left.lock().unwrap() = take(&rules, &text);
            }
            if to_engine.write_all(&buffer[..n]).await.is_err() {
                return;
            }
        }
        let _ = to_engine.shutdown().await;
    };
    let answering = async {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(n @ 1..) = from_engine.read(&mut buffer).await {
            let limit = left.lock().unwrap().unwrap_or(usize::MAX);
            let pass = n.min(limit);
            if let Some(left) = &mut *left.lock().unwrap() {
                *left -= pass;
            }
            if to_client.write_all(&buffer[..pass]).await.is_err() || pass < n {
                return;
            }
        }
    };
    tokio::select! {
        () = answering => {}
        () = async { asking.await; std::future::pending().await } => {}
        _ = cut.changed() => {}
    }
}

/// The limit of the first rule for this request.
fn take(rules: &Rules, request: &str) -> Option<usize> {
    let mut rules = rules.lock().unwrap();
    let rule = rules
        .iter_mut()
        .find(|rule| rule.times > 0 && request.contains(rule.request))?;
    rule.times -= 1;
    Some(rule.after)
}
