//! Small specs that would grow without end.

use crate::Test;

pub fn tests() -> Vec<Test> {
    Vec::new()
}
