//! Limits on everything that crosses the wire, and the reasons for them.

/// Maximum bytes of a message from an agent: a batch of events ([`BATCH_BYTES`]) and room for one large failure.
pub const FROM_AGENT_BYTES: usize = 16 << 20;

/// Maximum bytes of a message to an agent: an offer carries the whole spec with its sources.
pub const TO_AGENT_BYTES: usize = 128 << 20;

/// Maximum bytes of a message on the log stream, in both directions: one chunk and its envelope.
pub const LOG_MESSAGE_BYTES: usize = 1 << 20;

/// Maximum bytes of a client's request: a submission with everything that it may contain.
pub const CLIENT_REQUEST_BYTES: usize = READ_BYTES + SPEC_BYTES + 3 * VALUES_BYTES + (1 << 20);

/// Maximum bytes of a response to a client. The first event of a run carries its plan, which takes about 50 MB for
/// 100,000 cells.
pub const CLIENT_ANSWER_BYTES: usize = 512 << 20;

/// Maximum bytes of a status message. It travels in trailers, with three bytes for each non-ASCII byte, and peers
/// accept 8 KB of trailers.
pub const STATUS_MESSAGE_BYTES: usize = 1 << 10;

/// Maximum bytes of a status's details, for the same reason as [`STATUS_MESSAGE_BYTES`].
pub const STATUS_DETAILS_BYTES: usize = 2 << 10;

/// Maximum events in one message.
pub const BATCH_EVENTS: usize = 256;

/// Payload bytes after which a batch is closed; a single event may be larger.
pub const BATCH_BYTES: usize = 1 << 20;

/// Maximum payload bytes of one event from an agent. Failures are limited far below it where they are made.
pub const EVENT_BYTES: usize = 8 << 20;

/// Maximum payload bytes of one event that this version's agents make. A larger event is cut, and its attempt ends as
/// errored.
pub const EVENT_MADE_BYTES: usize = 2 << 20;

/// Maximum events of one attempt that this version's agents make; an attempt with more ends as errored.
pub const ATTEMPT_EVENTS: u64 = 200_000;

/// Maximum bytes of the events of one attempt that this version's agents make.
pub const ATTEMPT_EVENT_BYTES: u64 = 64 << 20;

/// Maximum events of one attempt that a coordinator accepts from any agent. Above [`ATTEMPT_EVENTS`], so that a correct
/// agent ends the attempt first.
pub const ATTEMPT_EVENTS_TAKEN: u64 = 250_000;

/// Maximum bytes of the events of one attempt that a coordinator accepts: above [`ATTEMPT_EVENT_BYTES`].
pub const ATTEMPT_EVENT_BYTES_TAKEN: u64 = 80 << 20;

/// Maximum bytes of one log chunk.
pub const LOG_CHUNK_BYTES: usize = 64 << 10;

/// Maximum unacknowledged bytes of one attempt's log.
pub const LOG_WINDOW_BYTES: u64 = 512 << 10;

/// HTTP/2 flow-control window of the connection for bytes. Above [`LOG_WINDOW_BYTES`], so that a cell runs out of
/// credit before the stream stalls.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// Maximum bytes of one piece of a workspace.
pub const CHUNK_BYTES: usize = 256 << 10;

/// Maximum bytes of all files of a workspace; larger data belongs in an image.
pub const WORKSPACE_BYTES: u64 = 2 << 30;

/// Maximum files and links of a workspace, because each has a header in the archive, even if it is empty.
pub const WORKSPACE_MEMBERS: usize = 250_000;

/// Maximum links of a workspace, because the coordinator follows them in memory.
pub const WORKSPACE_LINKS: usize = 10_000;

/// Maximum bytes of a path in a workspace, as in Linux.
pub const PATH_BYTES: usize = 4096;

/// Maximum bytes of a spec's files together.
pub const SPEC_BYTES: usize = 16 << 20;

/// Maximum bytes each of a submission's inputs, of its origin data, and of its secrets.
pub const VALUES_BYTES: usize = 8 << 20;

/// Maximum filters and cells that a submission names.
pub const SELECTED: usize = 100_000;

/// Maximum files that the expressions of a submission read.
pub const READ_FILES: usize = 1_000;

/// Maximum bytes of the files in [`READ_FILES`] together, because they stay in the run's plan in the journal.
pub const READ_BYTES: usize = 64 << 20;

/// Maximum characters of the id of a run, cell or agent.
pub const ID_CHARS: usize = 128;

/// Maximum bytes of a reason or another text for display.
pub const TEXT_BYTES: usize = 64 << 10;

/// Maximum bytes of an agent's name or version, because each table shows them.
pub const NAME_BYTES: usize = 256;

/// Maximum labels of an agent. Each is compared with the labels of each kind of cell, stored per agent and listed.
pub const LABELS: usize = 256;

/// Maximum bytes of a label.
pub const LABEL_BYTES: usize = 256;

/// Maximum images remembered per agent. Further ones are ignored, because images are only a hint for placement.
pub const IMAGES: usize = 10_000;
/// Maximum bytes of an image reference. Longer ones are ignored: see [`IMAGES`].
pub const IMAGE_BYTES: usize = 1 << 10;

/// Maximum bytes of the policy that an agent reports. A larger one counts as not reported.
pub const POLICY_BYTES: usize = 256 << 10;

/// Maximum attempts that an agent runs concurrently.
pub const SLOTS: u32 = 65_536;

/// Maximum attempts that an agent holds when it connects.
pub const HELD: usize = 65_536;

/// Maximum images that an agent is asked to prepare ahead. More would be ready long after they are needed.
pub const AHEAD: usize = 64;

/// Maximum bytes of the progress of an image that is prepared ahead.
pub const DOING_BYTES: usize = 256;

/// Maximum snapshots remembered per agent: further ones are ignored, because they are only a hint for placement. Also the
/// maximum number of keys in one order to remove some.
pub const SNAPSHOTS: usize = 1_000;

/// Characters of a snapshot's key, and the maximum of its family.
pub const SNAPSHOT_KEY: usize = 64;
