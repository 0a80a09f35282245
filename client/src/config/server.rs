//! Settings of coordinators: which one commands ask, and how `phalanx serve` behaves.

use super::Setting;
use super::limits::{LabelLimits, Pools, Reserve};

/// URL of the coordinator to ask. Without one, commands read the local state directory.
pub const COORDINATOR: Setting<String> = Setting {
    key: "coordinator",
    unit: "",
    doc: "URL of the coordinator to use; empty for local runs",
    default: |_| String::new(),
};

/// Namespace of a coordinator with several.
pub const NAMESPACE: Setting<String> = Setting {
    key: "namespace",
    unit: "",
    doc: "namespace to work in, for a token that is for all; empty for the token's own, or for all when reading",
    default: |_| String::new(),
};

/// Whether clients need tokens.
pub const ACCESS: Setting<bool> = Setting {
    key: "serve.access",
    unit: "",
    doc: "whether `phalanx serve` asks clients for tokens and checks their roles; by default if other machines can reach it, unless --insecure",
    default: |_| false,
};

/// What a coordinator with TLS is known by.
pub const CA: Setting<String> = Setting {
    key: "ca",
    unit: "",
    doc: "what the coordinator at https:// is known by: a PEM file with its CA, or sha256: and the fingerprint that `phalanx serve` prints",
    default: |_| String::new(),
};

/// Whether loopback addresses have TLS too.
pub const TLS_LOOPBACK: Setting<bool> = Setting {
    key: "serve.tls.loopback",
    unit: "",
    doc: "whether `phalanx serve` speaks TLS on loopback addresses too; on others it always does, unless --insecure",
    default: |_| false,
};

/// Name of the cluster in certificates.
pub const TLS_CLUSTER: Setting<String> = Setting {
    key: "serve.tls.cluster",
    unit: "",
    doc: "name of the cluster in certificates: agents are phalanx://CLUSTER/agent/ID",
    default: |_| "phalanx".to_owned(),
};

/// Names in the coordinator's own certificate.
pub const TLS_NAMES: Setting<Vec<String>> = Setting {
    key: "serve.tls.names",
    unit: "",
    doc: "further hosts and addresses that the coordinator's own certificate is for, beside those of this machine; only other programs than `phalanx` need them",
    default: |_| Vec::new(),
};

/// Certificate of another PKI for the coordinator.
pub const TLS_CERT: Setting<String> = Setting {
    key: "serve.tls.cert",
    unit: "",
    doc: "PEM file with a certificate of another PKI, and its chain, that `phalanx serve` shows; empty for one of its own CA. Read again when it changes, and on SIGHUP",
    default: |_| String::new(),
};

/// Key of that certificate.
pub const TLS_KEY: Setting<String> = Setting {
    key: "serve.tls.key",
    unit: "",
    doc: "PEM file with the private key of `serve.tls.cert`",
    default: |_| String::new(),
};

/// CA of another PKI for agents.
pub const TLS_CLIENT_CA: Setting<String> = Setting {
    key: "serve.tls.client_ca",
    unit: "",
    doc: "PEM file with the CAs of agents' certificates; empty for the coordinator's own CA, which issues them for tokens",
    default: |_| String::new(),
};

/// Life of agents' certificates.
pub const TLS_AGENT_S: Setting<u64> = Setting {
    key: "serve.tls.agent_certificate_s",
    unit: "seconds",
    doc: "life of an agent's certificate, which is renewed after half of it",
    default: |_| 86_400,
};

/// Address and port on which `phalanx serve` listens.
pub const LISTEN: Setting<String> = Setting {
    key: "serve.listen",
    unit: "",
    doc: "address and port on which `phalanx serve` listens",
    default: |_| "127.0.0.1:7180".to_owned(),
};

/// Address and port for health and metrics over HTTP.
pub const HTTP: Setting<String> = Setting {
    key: "serve.http",
    unit: "",
    doc: "address and port for the pages, /healthz and Prometheus' /metrics of `phalanx serve`; empty for none",
    default: |_| "127.0.0.1:7181".to_owned(),
};

/// Whether the HTTP side also shows pages.
pub const PAGES: Setting<bool> = Setting {
    key: "serve.pages",
    unit: "",
    doc: "whether `serve.http` also shows pages of runs, cells and agents, with buttons to act on them; on a loopback address only, unless `serve.access` is on",
    default: |_| true,
};

/// Database of the journal.
pub const DATABASE: Setting<String> = Setting {
    key: "serve.database",
    unit: "",
    doc: "database of the journal, postgres://USER@HOST/DATABASE; several coordinators may name it, and one of them leads; empty for a SQLite file in the state directory",
    default: |_| String::new(),
};

/// How long a leader may be silent.
pub const TAKEOVER_S: Setting<u64> = Setting {
    key: "serve.takeover_s",
    unit: "seconds",
    doc: "time after which another coordinator on `serve.database` takes over from one that is silent; from one that ended it takes over at once",
    default: |_| 15,
};

/// Directory with secrets of the coordinator.
pub const SECRETS_DIR: Setting<String> = Setting {
    key: "serve.secrets_dir",
    unit: "",
    doc: "directory with one file per secret, for runs that are submitted without its value; PHALANX_SECRET_* variables take precedence. Those of other namespaces than `default` are in a directory of its name",
    default: |_| String::new(),
};

/// How long `always` steps may run after a cancel.
pub const CANCEL_GRACE_S: Setting<u64> = Setting {
    key: "cancel_grace_s",
    unit: "seconds",
    doc: "time for `always` steps after a cancel, before clean-up begins without them",
    default: |_| 30,
};

/// How long an answered heartbeat allows an agent to run its cells.
pub const LEASE_S: Setting<u64> = Setting {
    key: "lease.time_s",
    unit: "seconds",
    doc: "lease: how long an agent may run its cells after an answered heartbeat",
    default: |_| 10,
};

/// Interval of heartbeats.
pub const HEARTBEAT_MS: Setting<u64> = Setting {
    key: "lease.heartbeat_ms",
    unit: "milliseconds",
    doc: "how often an agent sends a heartbeat",
    default: |_| 2_000,
};

/// How much longer than the agent the coordinator waits for the end of a lease.
pub const LEASE_MARGIN_S: Setting<u64> = Setting {
    key: "lease.margin_s",
    unit: "seconds",
    doc: "time that the coordinator waits beyond the lease, so that the agent stops first",
    default: |_| 3,
};

/// How long an agent may take to reconnect after its connection broke.
pub const RESET_GRACE_S: Setting<u64> = Setting {
    key: "lease.reset_grace_s",
    unit: "seconds",
    doc: "time to wait for an agent to reconnect, at most the lease plus the margin; with less than the lease, a cut connection can count as a death",
    default: |_| 13,
};

/// How long an offer may stay unanswered.
pub const ACCEPT_WITHIN_S: Setting<u64> = Setting {
    key: "lease.accept_within_s",
    unit: "seconds",
    doc: "time after which an unanswered offer returns to the queue",
    default: |_| 5,
};

/// How much longer than its cell's timeout an attempt may take.
pub const ATTEMPT_MARGIN_S: Setting<u64> = Setting {
    key: "serve.attempt_margin_s",
    unit: "seconds",
    doc: "time that an attempt may take beyond its cell's timeout (`always` steps, logs, clean-up) before the coordinator takes it from its agent",
    default: |_| 300,
};

/// How long attempts wait for their agent after a restart of the coordinator.
pub const RECONNECT_WITHIN_S: Setting<u64> = Setting {
    key: "serve.reconnect_within_s",
    unit: "seconds",
    doc: "time that attempts wait for their agent after a restart of the coordinator",
    default: |_| 30,
};

/// Limits of concurrent cells per label. A label may stand for something scarce: licences, a device, a shared test
/// bench.
pub const LABEL_LIMITS: Setting<LabelLimits> = Setting {
    key: "serve.label_limits",
    unit: "cells",
    doc: "maximum concurrent cells that need a label, over all runs and agents: gpu=2, arm=4",
    default: |_| LabelLimits::default(),
};

/// The namespaces of pools.
pub const POOLS: Setting<Pools> = Setting {
    key: "serve.pools",
    unit: "",
    doc: "namespace that each pool of agents belongs to: gpu=team-a; agents of a pool have the label pool=NAME, and those of other pools are for all namespaces",
    default: |_| Pools::default(),
};

/// File that narrows the policies of agents.
pub const AGENT_POLICY: Setting<String> = Setting {
    key: "serve.agent_policy",
    unit: "",
    doc: "policy file that narrows what agents allow; it can't allow more than their own policies (docs/security.md)",
    default: |_| String::new(),
};

/// Maximum number of cells of a plan.
pub const MAX_CELLS: Setting<u64> = Setting {
    key: "max_cells",
    unit: "cells",
    doc: "maximum number of cells of a run; 0 for no limit",
    // A larger matrix is usually a mistake, and all of it is planned, journaled and listed.
    default: |_| 10_000,
};

/// How long finished runs are kept.
pub const KEEP_RUNS_DAYS: Setting<u64> = Setting {
    key: "keep.runs_days",
    unit: "days",
    doc: "time to keep finished runs; 0 for ever",
    default: |_| 90,
};

/// Limit of the logs of one attempt.
pub const LOG_ATTEMPT_MIB: Setting<u64> = Setting {
    key: "logs.attempt_mib",
    unit: "MiB",
    doc: "maximum size of one attempt's logs on the coordinator; the rest is left out, and the log says so",
    default: |_| 512,
};

/// Limit of the logs of all attempts that an agent runs at a time.
pub const LOG_AGENT_MIB: Setting<u64> = Setting {
    key: "logs.agent_mib",
    unit: "MiB",
    doc: "maximum size of the logs of all current attempts of one agent; the rest is left out, and the log says so",
    default: |_| 8_192,
};

/// Limit of one artifact.
pub const ARTIFACT_FILE_MIB: Setting<u64> = Setting {
    key: "artifacts.file_mib",
    unit: "MiB",
    doc: "maximum size of one artifact on the coordinator; a larger one is not kept, and reports say so",
    default: |_| 256,
};

/// Limit of the artifacts of one attempt.
pub const ARTIFACT_ATTEMPT_MIB: Setting<u64> = Setting {
    key: "artifacts.attempt_mib",
    unit: "MiB",
    doc: "maximum size of the artifacts of one attempt; agents keep at most 1 GiB",
    default: |_| 1_024,
};

/// Limit of the artifacts of one run.
pub const ARTIFACT_RUN_MIB: Setting<u64> = Setting {
    key: "artifacts.run_mib",
    unit: "MiB",
    doc: "maximum size of the artifacts of one run; equal files count once",
    default: |_| 8_192,
};

/// Memory for large submissions.
pub const SUBMISSIONS_MIB: Setting<u64> = Setting {
    key: "serve.submissions_mib",
    unit: "MiB",
    doc: "memory for large submissions that arrive at the same time, half of it per address; further ones wait, then their clients retry. One of the largest, 105 MiB, always fits",
    default: |_| 256,
};

/// Limit of the events of all attempts that an agent runs at a time.
pub const AGENT_EVENTS_MIB: Setting<u64> = Setting {
    key: "serve.agent_events_mib",
    unit: "MiB",
    doc: "maximum size of the events of all current attempts of one agent; beyond it, the agent loses the attempt with the most",
    default: |_| 512,
};

/// Free space that logs must leave on the disk.
pub const LOG_RESERVE_MIB: Setting<Reserve> = Setting {
    key: "logs.reserve_mib",
    unit: "MiB",
    doc: "free disk space that the coordinator reserves for the journal: below it, no logs are stored; auto for 1 GiB, or a tenth of a small disk",
    default: |_| Reserve(None),
};
