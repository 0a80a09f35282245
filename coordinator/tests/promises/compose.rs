//! Compose files and env files, as Compose reads them.

use crate::Test;

pub fn tests() -> Vec<Test> {
    Vec::new()
}
