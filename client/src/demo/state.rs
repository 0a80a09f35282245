//! What all handlers of the demo server share: its state, and the answer that refuses a request.

use super::shop::{Order, Shop, Version};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use phalanx_shared::clock::Clock;
use serde_json::json;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// State shared by all handlers.
#[derive(Clone)]
pub struct State {
    pub clock: Arc<dyn Clock>,
    pub shop: Arc<Mutex<Shop>>,
    pub version: Version,
    pub startup_delay: Duration,
    pub billing_delay: Duration,
}

impl State {
    /// Locks the shop.
    pub fn shop(&self) -> MutexGuard<'_, Shop> {
        self.shop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time since an arbitrary fixed point.
    pub fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Returns an order in its current state.
    pub fn order(&self, id: u64) -> Option<Order> {
        self.shop().find(id, self.now(), self.billing_delay)
    }
}

/// Returns an error response with a message.
pub fn refuse(status: StatusCode, message: impl Into<String>) -> Response {
    (status, Json(json!({ "error": message.into() }))).into_response()
}
