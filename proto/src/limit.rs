//! A bound on everything that crosses the wire, and why it is what it is.

/// A message from an agent: a batch of events ([`BATCH_BYTES`]) and room for one large failure.
pub const FROM_AGENT_BYTES: usize = 16 << 20;

/// A message to an agent: an offer carries the whole spec with its sources.
pub const TO_AGENT_BYTES: usize = 128 << 20;

/// A message up or down the log stream: one chunk and its envelope.
pub const LOG_MESSAGE_BYTES: usize = 1 << 20;

/// A request of a client: a submission with all that it may bring.
pub const CLIENT_REQUEST_BYTES: usize = READ_BYTES + SPEC_BYTES + 3 * VALUES_BYTES + (1 << 20);

/// An answer to a client: the first event of a run carries its plan; 100,000 cells are some 50 MB of it.
pub const CLIENT_ANSWER_BYTES: usize = 512 << 20;

/// The message of a status. It travels in trailers, three bytes for each that isn't ASCII, and peers take 8 KB of these.
pub const STATUS_MESSAGE_BYTES: usize = 1 << 10;

/// The details of a status, for the same reason.
pub const STATUS_DETAILS_BYTES: usize = 2 << 10;

/// Events in one message.
pub const BATCH_EVENTS: usize = 256;

/// Payload bytes after which a batch is closed; one event alone may be larger.
pub const BATCH_BYTES: usize = 1 << 20;

/// The payload of one event from an agent. Failures are bounded far below it where they are made.
pub const EVENT_BYTES: usize = 8 << 20;

/// The payload of one event as this version's agents make them: what is larger is cut, and its attempt ends as errored.
pub const EVENT_MADE_BYTES: usize = 2 << 20;

/// Events of one attempt as this version's agents make them; one that makes more ends as errored.
pub const ATTEMPT_EVENTS: u64 = 200_000;

/// Bytes of these.
pub const ATTEMPT_EVENT_BYTES: u64 = 64 << 20;

/// Events of one attempt that a coordinator takes, whatever the agent: above [`ATTEMPT_EVENTS`], so that an honest agent ends it first.
pub const ATTEMPT_EVENTS_TAKEN: u64 = 250_000;

/// Bytes of these: above [`ATTEMPT_EVENT_BYTES`].
pub const ATTEMPT_EVENT_BYTES_TAKEN: u64 = 80 << 20;

/// Bytes of one log chunk.
pub const LOG_CHUNK_BYTES: usize = 64 << 10;

/// Bytes of one attempt's log that may be unacknowledged.
pub const LOG_WINDOW_BYTES: u64 = 512 << 10;

/// HTTP/2 flow control of the connection for bytes: above [`LOG_WINDOW_BYTES`], so that a cell runs out of credit before the stream stalls.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// Bytes of one piece of a workspace.
pub const CHUNK_BYTES: usize = 256 << 10;

/// Bytes of all files of a workspace: what is more belongs into an image.
pub const WORKSPACE_BYTES: u64 = 2 << 30;

/// Files and links of a workspace: each has a header in the archive, an empty one too.
pub const WORKSPACE_MEMBERS: usize = 250_000;

/// Links of a workspace; the coordinator follows them in memory.
pub const WORKSPACE_LINKS: usize = 10_000;

/// Bytes of a path in a workspace, as Linux has it.
pub const PATH_BYTES: usize = 4096;

/// Bytes of a spec's files together.
pub const SPEC_BYTES: usize = 16 << 20;

/// Bytes of a submission's inputs, of what it says of its origin, of its secrets, each.
pub const VALUES_BYTES: usize = 8 << 20;

/// Filters and cells that a submission names.
pub const SELECTED: usize = 100_000;

/// Files that the expressions of a submission read.
pub const READ_FILES: usize = 1_000;

/// Bytes of all of these: they stay in the journal, in the run's plan.
pub const READ_BYTES: usize = 64 << 20;

/// Characters of a run's, cell's or agent's id.
pub const ID_CHARS: usize = 128;

/// Bytes of a reason or other text for people.
pub const TEXT_BYTES: usize = 64 << 10;

/// Bytes of an agent's name or version: each table shows them.
pub const NAME_BYTES: usize = 256;

/// Labels of an agent. Each is compared with those of each kind of cell, kept for each agent and listed.
pub const LABELS: usize = 256;

/// Bytes of a label.
pub const LABEL_BYTES: usize = 256;

/// Images that are remembered of an agent, and bytes of each reference; what is more is ignored: images are a hint for placement.
pub const IMAGES: usize = 10_000;
/// See [`IMAGES`].
pub const IMAGE_BYTES: usize = 1 << 10;

/// Attempts that an agent takes at once.
pub const SLOTS: u32 = 65_536;

/// Attempts that an agent holds when it connects.
pub const HELD: usize = 65_536;
