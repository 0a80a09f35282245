//! The language: matrices, names, YAML, hints, the reference page.

use crate::Test;

pub fn tests() -> Vec<Test> {
    Vec::new()
}
