//! Tries what a cell needs of the engine, with the code that cells use: a network of an own subnet, made, reached and
//! removed.

use super::error::{self, runtime};
use super::network::Wanted;
use super::reach::{self, Way};
use super::{DockerRuntime, labels};
use crate::clock::Clock;
use crate::runtime::contract::RuntimeError;
use phalanx_shared::time::Timestamp;
use std::sync::atomic::AtomicBool;

/// What an engine is, and what worked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkup {
    /// Address of the engine.
    pub host: String,
    /// Name and version.
    pub version: String,
    /// Version of the API that both sides speak.
    pub api: String,
    /// Operating system of the engine's host.
    pub system: String,
    /// The engine's clock and this machine's, at the same moment; `None` if the engine doesn't tell its time.
    pub clocks: Option<(Timestamp, Timestamp)>,
    /// How many networks of cells are free, and how many there are in all.
    pub networks: (u32, u32),
    /// How steps reach containers: `direct`, `join` or `published`.
    pub reach: &'static str,
}

impl DockerRuntime {
    /// Asks the engine what it is, then makes a network as for a cell, and removes it.
    ///
    /// # Errors
    /// The engine doesn't answer, or refuses a network.
    pub async fn checkup(&self) -> Result<Checkup, RuntimeError> {
        let engine = &self.shared.engine;
        let failed =
            |error: &bollard::errors::Error| runtime("asking the engine what it is", error);
        let version = engine.ask(|| engine.docker.version()).await;
        let version = version.map_err(|error| failed(&error))?;
        let before = self.shared.clock.wall();
        let info = engine.ask(|| engine.docker.info()).await;
        let info = info.map_err(|error| failed(&error))?;
        let after = self.shared.clock.wall();
        let middle = Timestamp(before.0.midpoint(after.0));
        let told = info.system_time.and_then(|text| time_of(&text));
        let reach = self.try_network().await?;
        let networks = &self.shared.networks;
        let name = version.platform.map(|platform| platform.name);
        let name = name.filter(|name| !name.is_empty());
        Ok(Checkup {
            host: engine.host.clone(),
            version: format!(
                "{} {}",
                name.as_deref().unwrap_or("engine"),
                version.version.unwrap_or_default()
            ),
            api: engine.docker.client_version().to_string(),
            system: info.operating_system.unwrap_or_default(),
            clocks: told.map(|told| (told, middle)),
            networks: (networks.free(), networks.capacity()),
            reach,
        })
    }

    /// Makes a network and removes it. Returns how steps would reach containers in it.
    async fn try_network(&self) -> Result<&'static str, RuntimeError> {
        let shared = &self.shared;
        // If this process is killed in between, the next agent finds the network by these labels.
        let mut of_pool = labels::of_pool(&shared.settings.agent);
        of_pool.extend(shared.settings.home_label());
        let name = format!("phalanx-check-{}", uuid::Uuid::new_v4().simple());
        let (wanted, never) = (Wanted::default(), AtomicBool::new(false));
        let made = shared.networks.make(&name, of_pool, &wanted, &never);
        let network = made.await?;
        let way = reach::decide(shared.settings.reach, &shared.engine, &network).await;
        let removed = shared.networks.remove(&network).await;
        removed.map_err(|error| error::runtime("removing a network", &error))?;
        Ok(match way {
            Way::Direct => "direct",
            Way::Join(_) => "join",
            Way::Published { .. } => "published",
        })
    }
}

/// Reads the engine's time.
fn time_of(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp(time.as_microsecond()))
}

impl std::fmt::Display for Checkup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, API {}, on {}", self.version, self.api, self.system)
    }
}
