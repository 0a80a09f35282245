//! A TCP proxy that simulates a network: it forwards everything, is cut, or drops everything.

use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, Default)]
struct State {
    cuts: u64,
    silent: bool,
}

pub struct Proxy {
    pub address: String,
    state: watch::Sender<State>,
}

impl Proxy {
    /// Starts a proxy in front of `to`, which may be restarted.
    pub async fn start(to: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (state, seen) = watch::channel(State::default());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let seen = seen.clone();
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(to).await {
                        let (client_up, client_down) = client.into_split();
                        let (server_down, server_up) = server.into_split();
                        tokio::spawn(pump(client_up, server_up, seen.clone()));
                        pump(server_down, client_down, seen).await;
                    }
                });
            }
        });
        Proxy { address, state }
    }

    /// Ends every connection now; new ones are allowed.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Drops everything from now on without closing connections.
    pub fn swallow(&self) {
        self.state.send_modify(|state| state.silent = true);
    }

    /// Forwards everything again, including what was held back.
    pub fn heal(&self) {
        self.state.send_modify(|state| state.silent = false);
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut seen: watch::Receiver<State>) {
    let cuts = seen.borrow().cuts;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            _ = seen.wait_for(|state| state.cuts != cuts) => return,
            read = from.read(&mut buffer) => read,
        };
        let Ok(read @ 1..) = read else { return };
        let passed = seen
            .wait_for(|state| !state.silent || state.cuts != cuts)
            .await;
        if passed.is_ok_and(|state| state.cuts != cuts) {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
