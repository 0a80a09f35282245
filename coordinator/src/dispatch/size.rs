//! The size of events, for budgets.

use phalanx_shared::event::EventKind;

/// Returns the size of an event in the journal, in bytes.
pub fn size(kind: &EventKind) -> u64 {
    struct Count(u64);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // An event that can't be serialized isn't stored either.
    let _ = serde_json::to_writer(&mut count, kind);
    count.0
}
