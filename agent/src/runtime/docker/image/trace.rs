//! Progress of a pull or build: what the engine reports about it, folded into one line for people. Pure.

use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, Vertex, VertexLog};
use indexmap::IndexMap;
use std::collections::HashMap;

/// Maximum number of layers or build steps that are counted. The rest isn't shown.
const MOST: usize = 2_000;
/// Maximum characters kept of a build step's name. It is shortened further where it is masked for display.
const LONGEST_NAME: usize = 16_384;
/// Maximum bytes kept of a line that hasn't ended yet.
const LONGEST_REST: usize = 16_384;

/// Progress of a pull, by layer.
#[derive(Default)]
pub(super) struct Layers {
    layers: HashMap<String, Layer>,
}

#[derive(Default)]
struct Layer {
    done: bool,
    /// Bytes downloaded, and bytes in all.
    bytes: (i64, i64),
}

impl Layers {
    /// Notes a line of the engine's answer.
    pub fn note(&mut self, layer: &str, status: &str, bytes: Option<(i64, i64)>) {
        if self.layers.len() >= MOST && !self.layers.contains_key(layer) {
            return;
        }
        let known = self.layers.entry(layer.to_owned()).or_default();
        known.done = matches!(status, "Pull complete" | "Already exists");
        // Unpacking counts from zero again; only the download is counted.
        if let (Some(bytes), "Downloading") = (bytes, status) {
            known.bytes = bytes;
        }
        if matches!(status, "Download complete" | "Pull complete") {
            known.bytes.0 = known.bytes.1;
        }
    }

    /// Returns `2 of 5 layers, 31 of 120 MiB`.
    pub fn summary(&self) -> String {
        let done = self.layers.values().filter(|layer| layer.done).count();
        let layers = format!("{done} of {} layers done", self.layers.len());
        let sum = |part: fn(&Layer) -> i64| -> i64 {
            let parts = self.layers.values().map(part);
            parts.fold(0_i64, |sum, bytes| sum.saturating_add(bytes.max(0)))
        };
        let (current, total) = (sum(|layer| layer.bytes.0), sum(|layer| layer.bytes.1));
        match total {
            0 => layers,
            total => format!("{layers}, {} of {} MiB", mib(current), mib(total)),
        }
    }
}

fn mib(bytes: i64) -> i64 {
    bytes / (1024 * 1024)
}

/// Progress of a build by BuildKit.
#[derive(Default)]
pub(super) struct Steps {
    /// Steps by digest, in the order in which they were first seen.
    steps: IndexMap<String, Step>,
    /// Output of steps since their last line break, by step and stream: a piece may end within a line.
    rests: HashMap<(String, i64), Vec<u8>>,
}

struct Step {
    name: String,
    running: bool,
    done: bool,
}

impl Steps {
    /// Notes a report of BuildKit. Returns the lines to keep for the case that the build fails: names of steps as they
    /// start, their output, and their errors.
    pub fn note(&mut self, status: &StatusResponse) -> Vec<String> {
        let mut lines = Vec::new();
        for log in &status.logs {
            self.log(log, &mut lines);
        }
        for vertex in &status.vertexes {
            self.vertex(vertex, &mut lines);
        }
        lines
    }

    fn log(&mut self, log: &VertexLog, lines: &mut Vec<String>) {
        let key = (log.vertex.clone(), log.stream);
        if self.rests.len() >= MOST && !self.rests.contains_key(&key) {
            return;
        }
        let rest = self.rests.entry(key).or_default();
        for piece in log.msg.split_inclusive(|byte| *byte == b'\n') {
            rest.extend_from_slice(piece);
            if piece.ends_with(b"\n") || rest.len() >= LONGEST_REST {
                lines.push(line(rest));
                rest.clear();
            }
        }
    }

    fn vertex(&mut self, vertex: &Vertex, lines: &mut Vec<String>) {
        if self.steps.len() >= MOST && !self.steps.contains_key(&vertex.digest) {
            return;
        }
        let step = self.steps.entry(vertex.digest.clone()).or_insert(Step {
            name: vertex.name.chars().take(LONGEST_NAME).collect(),
            running: false,
            done: false,
        });
        let running = vertex.started.is_some() && vertex.completed.is_none();
        if running && !step.running {
            lines.push(vertex.name.clone());
        }
        step.running = running;
        step.done = vertex.completed.is_some();
        if step.done {
            for stream in [1, 2] {
                let rest = self.rests.remove(&(vertex.digest.clone(), stream));
                lines.extend(rest.filter(|rest| !rest.is_empty()).map(|rest| line(&rest)));
            }
        }
        if !vertex.error.is_empty() {
            lines.push(vertex.error.clone());
        }
    }

    /// Returns `3 of 7 steps done, [4/6] RUN make`. BuildKit's own steps (`[internal] …`) count as well, because some of
    /// them take long: loading the context, exporting layers.
    pub fn summary(&self) -> String {
        let counted = self.counted();
        match self.steps.values().rev().find(|step| step.running) {
            Some(step) => format!("{counted}, {}", step.name),
            None => counted,
        }
    }

    /// Returns `3 of 7 steps done`.
    pub fn counted(&self) -> String {
        let done = self.steps.values().filter(|step| step.done).count();
        format!("{done} of {} steps done", self.steps.len())
    }
}

fn line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .trim_end_matches(['\r', '\n'])
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard_buildkit_proto::google::protobuf::Timestamp;

    #[test]
    fn layers_and_bytes_are_counted() {
        let mut layers = Layers::default();
        layers.note("a", "Downloading", Some((1024 * 1024, 4 * 1024 * 1024)));
        layers.note("b", "Already exists", None);
        assert_eq!(layers.summary(), "1 of 2 layers done, 1 of 4 MiB");
        layers.note("a", "Download complete", None);
        layers.note("a", "Extracting", Some((5, 4 * 1024 * 1024)));
        assert_eq!(layers.summary(), "1 of 2 layers done, 4 of 4 MiB");
        layers.note("a", "Pull complete", None);
        layers.note("c", "Waiting", None);
        assert_eq!(layers.summary(), "2 of 3 layers done, 4 of 4 MiB");
    }

    #[test]
    fn absurd_numbers_of_bytes_and_layers_do_no_harm() {
        let mut layers = Layers::default();
        layers.note("a", "Downloading", Some((i64::MIN, i64::MAX)));
        layers.note("b", "Downloading", Some((i64::MAX, i64::MAX)));
        for n in 0..3 * MOST {
            layers.note(&n.to_string(), "Waiting", None);
        }
        assert!(layers.summary().starts_with("0 of 2000 layers done"));
    }

    fn vertex(digest: &str, name: &str, started: bool, completed: bool) -> Vertex {
        let time = |is: bool| is.then(Timestamp::default);
        Vertex {
            digest: digest.into(),
            name: name.into(),
            started: time(started),
            completed: time(completed),
            ..Vertex::default()
        }
    }

    #[test]
    fn the_step_in_progress_is_named_and_its_output_kept() {
        let mut steps = Steps::default();
        let first = StatusResponse {
            vertexes: vec![
                vertex("a", "[1/2] FROM base", true, true),
                vertex("b", "[2/2] RUN make", true, false),
            ],
            logs: [&b"one\nt"[..], b"wo"]
                .map(|msg| VertexLog {
                    vertex: "b".into(),
                    stream: 1,
                    msg: msg.to_vec(),
                    ..VertexLog::default()
                })
                .to_vec(),
            ..StatusResponse::default()
        };
        assert_eq!(steps.note(&first), ["one", "[2/2] RUN make"]);
        assert_eq!(steps.summary(), "1 of 2 steps done, [2/2] RUN make");
        let mut failed = vertex("b", "[2/2] RUN make", true, true);
        failed.error = "exit code: 2".into();
        let last = StatusResponse {
            vertexes: vec![failed],
            ..StatusResponse::default()
        };
        assert_eq!(steps.note(&last), ["two", "exit code: 2"]);
        assert_eq!(steps.summary(), "2 of 2 steps done");
    }
}
