//! What the attempts of an agent share: room in memory and on the disk.

/// Resources shared by all attempts: the overflow and the room in memory.
#[derive(Debug)]
pub struct Room<O> {
    /// Takes the bytes that don't fit into memory.
    pub overflow: O,
    /// Bytes in memory now.
    pub memory_bytes: usize,
    /// Maximum number of bytes in memory.
    pub memory_limit: usize,
    /// Maximum number of bytes kept per service: head and tail.
    pub cap_bytes: u64,
    /// Bytes of artifacts that wait on the disk now.
    pub artifact_bytes: u64,
    /// Maximum number of bytes of artifacts on the disk.
    pub artifact_limit: u64,
}
