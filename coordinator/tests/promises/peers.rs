//! Agents, clients and strangers on a coordinator's ports that say what they may not, or nothing at all.

use crate::Test;

pub fn tests() -> Vec<Test> {
    Vec::new()
}
