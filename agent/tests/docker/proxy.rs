//! A proxy before the engine's socket that can be cut: all connections die at once, and new ones are refused while it is down.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// A running proxy.
pub struct Proxy {
    pub host: String,
    path: PathBuf,
    cuts: Arc<watch::Sender<u32>>,
    up: Arc<watch::Sender<bool>>,
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
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !*upward.borrow() {
                    continue;
                }
                tokio::spawn(carry(client, cutting.subscribe()));
            }
        });
        Proxy {
            host: format!("unix://{}", path.display()),
            path,
            cuts,
            up,
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
}

async fn carry(mut client: UnixStream, mut cut: watch::Receiver<u32>) {
    let Ok(mut engine) = UnixStream::connect("/var/run/docker.sock").await else {
        return;
    };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut engine) => {}
        _ = cut.changed() => {}
    }
}
