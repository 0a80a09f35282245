//! Keeps the agent's own requests away from addresses that its policy refuses.
//!
//! A name is judged when it was resolved, by the addresses that are connected to. reqwest doesn't resolve a host that is
//! an address, so URLs are judged as well: before a request and at each redirect.

use crate::policy::Guard;
use futures::future::BoxFuture;
use phalanx_shared::policy::Refusal;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use url::Host;

/// Maximum number of redirects to follow.
const MAX_REDIRECTS: usize = 10;

/// Returns whether an address is one at which a service of the stack listens.
pub type IsEndpoint = Arc<dyn Fn(SocketAddr) -> bool + Send + Sync>;

/// Judges the addresses of one cell's requests.
#[derive(Clone)]
pub struct Gate {
    /// The agent's guard.
    pub guard: Arc<Guard>,
    /// The cell's own services are always allowed, also at an address of this machine.
    pub is_endpoint: IsEndpoint,
    lookup: Lookup,
}

/// Resolves a name; the ports don't matter.
type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// A request that the policy refuses.
#[derive(Clone, Debug)]
pub struct Refused {
    address: SocketAddr,
    refusal: Refusal,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refused { address, refusal } = self;
        // A port isn't known where a name is resolved.
        match address.port() {
            0 => write!(f, "{}: ", address.ip())?,
            _ => write!(f, "{address}: ")?,
        }
        write!(f, "{refusal}; {}", refusal.help())
    }
}

impl Error for Refused {}

impl Gate {
    /// Creates the gate of a cell.
    pub fn new(guard: Arc<Guard>, is_endpoint: IsEndpoint) -> Gate {
        let lookup = |name: String| -> BoxFuture<'static, _> {
            Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
        };
        Gate {
            guard,
            is_endpoint,
            lookup: Arc::new(lookup),
        }
    }

    /// Returns whether every address is allowed.
    pub fn is_open(&self) -> bool {
        self.guard.is_open()
    }

    /// Judges a URL before its request is sent.
    pub async fn admit(&self, url: &reqwest::Url) -> Result<(), Refused> {
        self.guard.look().await;
        self.judge_url(url)
    }

    /// Judges a URL as far as it can be without resolving its host.
    fn judge_url(&self, url: &reqwest::Url) -> Result<(), Refused> {
        let port = url.port_or_known_default().unwrap_or(0);
        match url.host() {
            Some(Host::Ipv4(v4)) => self.judge(SocketAddr::new(v4.into(), port)),
            Some(Host::Ipv6(v6)) => self.judge(SocketAddr::new(v6.into(), port)),
            // The resolver doesn't know the port, by which a service of the cell is told from others.
            Some(Host::Domain(name)) if is_local(name) => {
                let [v4, v6] = LOCAL.map(|ip| self.judge(SocketAddr::new(ip, port)));
                v4.or(v6)
            }
            Some(Host::Domain(_)) | None => Ok(()),
        }
    }

    fn judge(&self, address: SocketAddr) -> Result<(), Refused> {
        if (self.is_endpoint)(address) {
            return Ok(());
        }
        let judged = self.guard.judge(address);
        judged.map_err(|refusal| Refused { address, refusal })
    }
}

const LOCAL: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

fn is_local(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
}

/// Resolves names and drops the addresses that are refused.
pub struct Resolver(Gate);

impl Resolver {
    /// Creates the resolver of a cell's clients.
    pub fn of(gate: &Gate) -> Arc<Resolver> {
        Arc::new(Resolver(gate.clone()))
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let gate = self.0.clone();
        Box::pin(async move {
            if is_local(name.as_str()) {
                // The URL was judged, with its port. Whatever a resolver says of it, it stays on this machine.
                let all = LOCAL.into_iter().map(|ip| SocketAddr::new(ip, 0));
                return Ok(Box::new(all) as Addrs);
            }
            let (mut allowed, mut refused) = (Vec::new(), None);
            for address in (gate.lookup)(name.as_str().to_owned()).await? {
                match gate.judge(address) {
                    Ok(()) => allowed.push(address),
                    Err(why) => refused = Some(why),
                }
            }
            match refused {
                Some(refused) if allowed.is_empty() => Err(refused.into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

/// Returns how redirects are followed: never to a refused address.
pub fn redirects(gate: &Gate) -> redirect::Policy {
    if gate.is_open() {
        return redirect::Policy::limited(MAX_REDIRECTS);
    }
    let (gate, limit) = (gate.clone(), redirect::Policy::limited(MAX_REDIRECTS));
    redirect::Policy::custom(move |attempt| match gate.judge_url(attempt.url()) {
        Ok(()) => limit.redirect(attempt),
        Err(refused) => attempt.error(refused),
    })
}

/// Returns the refusal that an error of a request comes from, if one does.
pub fn refused<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e Refused> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(refused) = error.downcast_ref() {
            return Some(refused);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::policy::Policy;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A server that counts its connections and answers each with a redirect.
    async fn server(to: &str) -> (SocketAddr, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (count, to) = (Arc::new(AtomicUsize::new(0)), to.to_owned());
        let counted = Arc::clone(&count);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let answer = format!(
                    "HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        (address, count)
    }

    /// A closed agent's gate. Names lead to 127.0.0.1, and `endpoint` is a service of the cell.
    fn closed(endpoint: Option<SocketAddr>) -> Gate {
        let guard = Arc::new(Guard::new(Arc::new(Policy::closed()), "http://127.0.0.1:1"));
        let gate = Gate::new(guard, Arc::new(move |address| Some(address) == endpoint));
        let here = |_: String| -> BoxFuture<'static, _> {
            let all = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
            Box::pin(async move { Ok(all) })
        };
        Gate {
            lookup: Arc::new(here),
            ..gate
        }
    }

    async fn request(gate: &Gate, url: &str) -> Result<u16, String> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(redirects(gate))
            .dns_resolver(Resolver::of(gate))
            .build()
            .unwrap();
        let url = reqwest::Url::parse(url).unwrap();
        gate.admit(&url)
            .await
            .map_err(|refused| refused.to_string())?;
        match client.get(url).send().await {
            Ok(response) => Ok(response.status().as_u16()),
            Err(error) => {
                let refused = refused(&error).map(ToString::to_string);
                Err(refused.unwrap_or_else(|| format!("not refused: {error:?}")))
            }
        }
    }

    #[tokio::test]
    async fn nothing_of_the_machine_is_connected_to_by_address_name_or_redirect() {
        let (hidden, count) = server("/").await;
        let port = hidden.port();
        let gate = closed(None);
        for host in [
            "127.0.0.1",
            "localhost",
            "LOCALHOST.",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "2130706433",
            "0x7f.1",
            "0",
            "rebound.example",
        ] {
            let said = request(&gate, &format!("http://{host}:{port}/"))
                .await
                .unwrap_err();
            assert!(said.contains("rule `http`"), "{host}: {said}");
        }
        // An allowed server sends the client on.
        for host in ["127.0.0.1", "localhost", "rebound.example"] {
            let (open, asked) = server(&format!("http://{host}:{port}/")).await;
            let gate = closed(Some(open));
            let said = request(&gate, &format!("http://{open}/"))
                .await
                .unwrap_err();
            assert!(said.contains("rule `http`"), "{host}: {said}");
            assert_eq!(asked.load(Ordering::SeqCst), 1);
        }
        assert_eq!(count.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_service_of_the_cell_is_reached_by_its_address_and_as_localhost_and_redirects_are_counted()
     {
        let (own, count) = server("/again").await;
        let gate = closed(Some(own));
        for host in ["127.0.0.1", "localhost"] {
            let before = count.load(Ordering::SeqCst);
            let said = request(&gate, &format!("http://{host}:{}/", own.port()))
                .await
                .unwrap_err();
            assert!(said.starts_with("not refused: "), "{said}");
            assert_eq!(count.load(Ordering::SeqCst) - before, MAX_REDIRECTS + 1);
        }
    }
}
