//! Starts a container: attaches to its output first, checks its mounts before and after, and follows it until it exits.

use super::member::Container;
use super::output;
use crate::runtime::contract::{Addresses, RuntimeError};
use std::sync::Arc;

/// Starts it and returns its addresses.
pub(super) async fn start(container: Arc<Container>) -> Result<Addresses, RuntimeError> {
    let start = container.next_start().await?;
    let looks = container.signals.look.subscribe();
    // Attached before the container runs, so that the first byte is seen.
    let stream = output::Source::attach(&container)
        .await
        .map_err(|error| container.engine_error("attaching to its output", &error))?;
    let placed = container.placing.start().await;
    container.mounts_hold()?;
    container.ask_to_start().await?;
    let held = container.mounts_hold();
    drop(placed);
    if let Err(replaced) = held {
        container.signal("SIGKILL").await?;
        return Err(replaced);
    }
    container.started(|| tokio::spawn(output::follow(container.clone(), stream, looks, start)));
    container.where_it_is().await
}
