//! Secrets: in no output whatever the way, and sent to nobody who has no claim to them.

use crate::Test;

pub fn tests() -> Vec<Test> {
    Vec::new()
}
