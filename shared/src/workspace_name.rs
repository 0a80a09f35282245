//! The name of a workspace: SHA-256 over a line for each member, in the byte order of the paths. `control.proto` says what the lines are.
//!
//! No two workspaces have the same lines: paths have no line breaks, and what stands before a path has no room for anything.

use sha2::{Digest, Sha256};

/// A digest in the making.
#[derive(Default)]
pub struct Naming(Sha256);

impl Naming {
    /// The next member is a file whose bytes have this SHA-256.
    pub fn file(&mut self, path: &str, executable: bool, sha256: &str) {
        let line = format!("f {} {sha256} {path}\n", u8::from(executable));
        self.0.update(line.as_bytes());
    }

    /// The next member is a link.
    pub fn link(&mut self, path: &str, target: &str) {
        let target = hex::encode(Sha256::digest(target.as_bytes()));
        self.0.update(format!("l {target} {path}\n").as_bytes());
    }

    /// That was all.
    pub fn finish(self) -> String {
        hex::encode(self.0.finalize())
    }
}
