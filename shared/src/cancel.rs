//! The order to cancel a run or one of its attempts. It travels unchanged from a client's request to the agent's cell.

use std::time::Duration;

/// An order to cancel. A later order counts only if it is harsher.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CancelOrder {
    /// Reason, as shown in reports.
    pub reason: String,
    /// Time for `always` steps and for stopping services.
    pub grace: Duration,
    /// Skips the `always` steps.
    pub force: bool,
}

impl CancelOrder {
    /// Returns an order that leaves no time for anything but clean-up.
    pub fn at_once(reason: impl Into<String>) -> Self {
        CancelOrder {
            reason: reason.into(),
            grace: Duration::ZERO,
            force: true,
        }
    }

    /// Returns whether this order leaves less to the attempt than an earlier one.
    pub fn is_harsher_than(&self, earlier: &CancelOrder) -> bool {
        (self.force && !earlier.force)
            || (self.force == earlier.force && self.grace < earlier.grace)
    }
}
