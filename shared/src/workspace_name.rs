//! The name of a workspace: SHA-256 over one line per member, sorted by the bytes of the paths. `control.proto`
//! specifies the lines.
//!
//! Different workspaces never have the same lines: a path has no line breaks, and every field before it has a fixed
//! format.

use sha2::{Digest, Sha256};

/// Computes the digest that names a workspace.
#[derive(Default)]
pub struct Naming(Sha256);

impl Naming {
    /// Adds a file, the next member in order. `sha256` is the digest of its bytes.
    pub fn file(&mut self, path: &str, executable: bool, sha256: &str) {
        let line = format!("f {} {sha256} {path}\n", u8::from(executable));
        self.0.update(line.as_bytes());
    }

    /// Adds a symbolic link, the next member in order.
    pub fn link(&mut self, path: &str, target: &str) {
        let target = hex::encode(Sha256::digest(target.as_bytes()));
        self.0.update(format!("l {target} {path}\n").as_bytes());
    }

    /// Returns the name, after the last member.
    pub fn finish(self) -> String {
        hex::encode(self.0.finalize())
    }
}
