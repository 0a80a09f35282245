//! Damaged rows, full disks, unwritable directories: one bad thing stops nothing else.

use crate::Test;

pub fn tests() -> Vec<Test> {
    Vec::new()
}
