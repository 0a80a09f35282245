//! Masks the texts of events. Kinds, ids, outcomes and names from the spec stay as they are: a secret may equal one of
//! these words, and an event whose kind is masked can't be read. Every text is also bounded here, after it is masked.

use super::{
    Artifact, ArtifactLack, Captured, CheckResult, EventKind, Failure, KeptService, LogTail,
    Output, Part, StepResult,
};
use crate::mask::{MASK, Masks, shortened};

/// Maximum characters of a step's name.
const NAME: usize = 1_000;
/// Maximum characters of a reason, a note or an error.
const SAID: usize = 8_000;
/// Maximum characters of one line of such a text, for example of a build's output.
const LINE: usize = 2_000;
/// Maximum characters of a value, a request or a response. These are shortened where they are made; this limit catches
/// oversights.
const SHOWN: usize = 64_000;

/// Masks the texts of the events of one attempt.
pub struct EventMasker<'m> {
    masks: &'m Masks,
    keys: &'m mut Keys,
}

/// The secrets found so far in paths of steps, so that two different secrets keep different paths.
#[derive(Default)]
pub struct Keys(Vec<String>);

impl std::fmt::Debug for Keys {
    /// Prints only the count, because the keys are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

impl<'m> EventMasker<'m> {
    /// Returns a masker that uses the current masks and the keys found so far in the attempt.
    pub fn new(masks: &'m Masks, keys: &'m mut Keys) -> Self {
        EventMasker { masks, keys }
    }

    /// Returns the event without any secret.
    pub fn event(&mut self, kind: EventKind) -> EventKind {
        match kind {
            EventKind::ServiceChanged {
                service,
                state,
                began,
                detail,
                image,
                reference,
                queued_us,
            } => EventKind::ServiceChanged {
                service,
                state,
                began,
                detail: self.maybe(detail),
                image: self.maybe(image),
                reference: self.maybe(reference),
                queued_us,
            },
            EventKind::ServiceProgress { service, doing } => EventKind::ServiceProgress {
                service,
                doing: self.said(&doing),
            },
            EventKind::SnapshotChanged {
                path,
                key,
                state,
                began,
                run,
                bytes,
                reason,
            } => EventKind::SnapshotChanged {
                path: self.path(&path),
                key,
                state,
                began,
                run,
                bytes,
                reason: self.maybe(reason),
            },
            EventKind::PhaseStarted { path, name } => EventKind::PhaseStarted {
                path: self.path(&path),
                name,
            },
            EventKind::PhaseFinished {
                path,
                name,
                outcome,
                reason,
                timed_out,
                began,
            } => EventKind::PhaseFinished {
                path: self.path(&path),
                name,
                outcome,
                reason: self.maybe(reason),
                timed_out,
                began,
            },
            EventKind::StepStarted { path, name, action } => EventKind::StepStarted {
                path: self.path(&path),
                name: self.text(&name, NAME),
                action,
            },
            EventKind::StepFinished(result) => {
                EventKind::StepFinished(Box::new(self.step(*result)))
            }
            EventKind::AttemptFinished {
                outcome,
                reason,
                timed_out,
                culprit,
            } => EventKind::AttemptFinished {
                outcome,
                reason: self.maybe(reason),
                timed_out,
                culprit,
            },
            EventKind::TornDown {
                removed,
                left,
                kept,
                began,
            } => EventKind::TornDown {
                removed,
                left: self.all(left),
                kept: kept.into_iter().map(|kept| self.kept(kept)).collect(),
                began,
            },
            EventKind::LogGap {
                service,
                stream,
                from,
                to,
                reason,
            } => EventKind::LogGap {
                service,
                stream,
                from,
                to,
                reason: self.said(&reason),
            },
            EventKind::ArtifactCollected(artifact) => {
                EventKind::ArtifactCollected(Box::new(self.artifact(*artifact)))
            }
            EventKind::ArtifactLost { id, reason } => EventKind::ArtifactLost {
                id,
                reason: self.said(&reason),
            },
            EventKind::Note { message } => EventKind::Note {
                message: self.said(&message),
            },
            // These contain no text from the cell: events of the coordinator, and kinds that this version doesn't make.
            kind @ (EventKind::AttemptStarted { .. }
            | EventKind::StackOpened { .. }
            | EventKind::RunSubmitted { .. }
            | EventKind::CellOffered { .. }
            | EventKind::CellAccepted { .. }
            | EventKind::CellReturned { .. }
            | EventKind::AttemptLost { .. }
            | EventKind::CellFinished { .. }
            | EventKind::CancelRequested { .. }
            | EventKind::RunFinished { .. }
            | EventKind::ServiceRestarted { .. }
            | EventKind::Unknown(_)) => kind,
        }
    }

    fn step(&mut self, result: StepResult) -> StepResult {
        let StepResult {
            path,
            name,
            id,
            action,
            outcome,
            reason,
            unreached,
            timed_out,
            culprit,
            tries,
            polls,
            began,
            elapsed_us,
            waits,
            verifies,
            checks,
            output,
            captured,
            failure,
            restored,
        } = result;
        StepResult {
            path: self.path(&path),
            name: self.text(&name, NAME),
            id,
            action,
            outcome,
            reason: self.maybe(reason),
            unreached,
            timed_out,
            // Names of services and ids of steps come from the spec.
            culprit,
            tries,
            polls,
            began,
            elapsed_us,
            waits,
            verifies: self.all(verifies),
            checks: checks.into_iter().map(|check| self.check(check)).collect(),
            output: output.map(|output| self.output(output)),
            captured: captured.into_iter().map(|one| self.captured(one)).collect(),
            failure: failure.map(|failure| self.failure(failure)),
            // A digest and an id.
            restored,
        }
    }

    fn artifact(&mut self, artifact: Artifact) -> Artifact {
        let Artifact {
            id,
            name,
            from,
            step,
            size,
            digest,
            media_type,
            lack,
        } = artifact;
        Artifact {
            id,
            name: self.text(&name, NAME),
            from: self.text(&from, SAID),
            step: step.map(|path| self.path(&path)),
            size,
            digest,
            media_type,
            lack: lack.map(|ArtifactLack { problem, reason }| ArtifactLack {
                problem,
                reason: self.said(&reason),
            }),
        }
    }

    fn check(&self, check: CheckResult) -> CheckResult {
        let CheckResult {
            expression,
            passed,
            parts,
            error,
        } = check;
        let part = |Part { text, value }| Part {
            text: self.text(&text, SAID),
            value: self.text(&value, SHOWN),
        };
        CheckResult {
            expression: self.masks.text(&expression).into_owned(),
            passed,
            parts: parts.into_iter().map(part).collect(),
            error: self.maybe(error),
        }
    }

    fn output(&self, output: Output) -> Output {
        let Output {
            stdout,
            stderr,
            left_out,
        } = output;
        Output {
            stdout: self.text(&stdout, SHOWN),
            stderr: self.text(&stderr, SHOWN),
            left_out,
        }
    }

    /// Masks the value once more: it was masked piece by piece before it became JSON.
    fn captured(&self, captured: Captured) -> Captured {
        let Captured {
            name,
            value,
            left_out,
        } = captured;
        Captured {
            name: self.text(&name, NAME),
            value: self.text(&value, SHOWN),
            left_out,
        }
    }

    fn failure(&self, failure: Failure) -> Failure {
        let Failure {
            place,
            request,
            response,
            logs,
            notes,
        } = failure;
        let shown = |text: String| self.text(&text, SHOWN);
        Failure {
            place,
            request: request.map(shown),
            response: response.map(shown),
            logs: logs.into_iter().map(|tail| self.tail(tail)).collect(),
            notes: self.all(notes),
        }
    }

    /// Masks the lines as one text: a secret may be broken over several lines.
    fn tail(&self, LogTail { service, lines }: LogTail) -> LogTail {
        let text = lines.join("\n");
        let lines = match self.masks.text(&text) {
            std::borrow::Cow::Borrowed(_) => lines,
            std::borrow::Cow::Owned(masked) => masked.split('\n').map(str::to_owned).collect(),
        };
        LogTail { service, lines }
    }

    fn kept(&self, KeptService { service, address }: KeptService) -> KeptService {
        KeptService {
            service,
            address: self.said(&address),
        }
    }

    fn all(&self, texts: Vec<String>) -> Vec<String> {
        texts.iter().map(|text| self.said(text)).collect()
    }

    fn maybe(&self, text: Option<String>) -> Option<String> {
        text.map(|text| self.said(&text))
    }

    fn said(&self, text: &str) -> String {
        let masked = self.masks.text(text);
        let lines: Vec<_> = masked
            .split('\n')
            .map(|line| shortened(line, LINE))
            .collect();
        shortened(&lines.join("\n"), SAID).into_owned()
    }

    fn text(&self, text: &str, limit: usize) -> String {
        shortened(&self.masks.text(text), limit).into_owned()
    }

    /// Masks the `foreach` keys of a path; the phase and the positions come from the spec. Two secrets get two masks,
    /// otherwise their steps would become one.
    fn path(&mut self, path: &str) -> String {
        let keys_from = path.find('[').unwrap_or(path.len());
        let (spec, keys) = path.split_at(keys_from);
        let masked = self.masks.text_with(keys, |secret| {
            let known = self.keys.0.iter().position(|known| known == secret);
            let index = known.unwrap_or_else(|| {
                self.keys.0.push(secret.to_owned());
                self.keys.0.len() - 1
            });
            match index {
                0 => MASK.to_owned(),
                index => format!("{MASK}{}", index + 1),
            }
        });
        format!("{spec}{masked}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::mask::Masker;
    use crate::outcome::Outcome;
    use serde_json::{Value, json};

    fn masked(secrets: &[&str], kinds: Vec<EventKind>) -> Vec<EventKind> {
        let masker = Masker::new();
        masker.add_all(secrets.iter().copied()).unwrap();
        let (masks, mut keys) = (masker.masks(), Keys::default());
        let mut masker = EventMasker::new(&masks, &mut keys);
        kinds.into_iter().map(|kind| masker.event(kind)).collect()
    }

    /// Returns an event of each kind that agents make; every free text and every name from the spec is `word`.
    fn each(word: &str) -> Vec<EventKind> {
        let began = 1;
        let path = "sync/0[key]";
        [
            json!({"kind": "attempt_started", "agent": "a"}),
            json!({"kind": "service_changed", "service": word, "state": "ready", "began": began, "detail": word, "image": word, "reference": word}),
            json!({"kind": "phase_started", "path": path, "name": word}),
            json!({"kind": "phase_finished", "path": path, "name": word, "outcome": "cancelled", "reason": word, "began": began}),
            json!({"kind": "step_started", "path": path, "name": word, "action": "container"}),
            json!({"kind": "step_finished", "path": path, "name": word, "id": word, "action": "container", "outcome": "cancelled",
                "reason": word, "tries": 1, "polls": 0, "began": began, "elapsed_us": 1, "verifies": [word],
                "checks": [{"expression": word, "passed": false, "parts": [{"text": word, "value": word}], "error": word}],
                "output": {"stdout": word, "stderr": word},
                "captured": [{"name": word, "value": format!("\"{word}\"")}],
                "culprit": {"kind": "service", "service": word},
                "failure": {"place": "f:1:1", "request": word, "response": word, "logs": [{"service": word, "lines": [word]}], "notes": [word]}}),
            json!({"kind": "attempt_finished", "outcome": "cancelled", "reason": word}),
            json!({"kind": "torn_down", "removed": 1, "left": [word], "kept": [{"service": word, "address": word}], "began": began}),
            json!({"kind": "log_gap", "service": word, "stream": "stdout", "from": 1, "to": 2, "reason": word}),
            json!({"kind": "artifact_collected", "id": 1, "name": word, "from": word, "step": path, "size": 1, "digest": "00",
                "media_type": "text/plain", "lack": {"problem": "too_large", "reason": word}}),
            json!({"kind": "artifact_lost", "id": 1, "reason": word}),
            json!({"kind": "note", "message": word}),
        ]
        .into_iter()
        .map(|value| serde_json::from_value(value).unwrap())
        .collect()
    }

    /// Collects the texts of a value, by field, except words of the spec and of Phalanx.
    fn free(value: &Value, field: &str, out: &mut Vec<String>) {
        const OWN: [&str; 13] = [
            "kind", "service", "state", "began", "path", "id", "action", "outcome", "agent",
            "stream", "place", "at", "phase",
        ];
        match value {
            Value::String(text) if !OWN.contains(&field) => out.push(format!("{field}: {text}")),
            Value::Array(items) => items.iter().for_each(|item| free(item, field, out)),
            Value::Object(map) => map.iter().for_each(|(key, item)| free(item, key, out)),
            _ => {}
        }
    }

    #[test]
    fn a_secret_that_is_a_word_of_ours_breaks_no_event_and_stands_in_no_text() {
        for word in [
            "cancelled",
            "step_finished",
            "attempt_finished",
            "container",
            "kind-or-name",
            "service_changed",
        ] {
            for (before, after) in each(word).into_iter().zip(masked(&[word], each(word))) {
                assert_eq!(before.name(), after.name());
                let value = serde_json::to_value(&after).unwrap();
                assert_eq!(
                    serde_json::from_value::<EventKind>(value.clone()).unwrap(),
                    after
                );
                let mut texts = Vec::new();
                free(&value, "", &mut texts);
                // A phase's name comes from the spec and isn't masked.
                let phase = after.name().starts_with("phase");
                let left: Vec<_> = texts
                    .iter()
                    .filter(|text| text.contains(word) && !(phase && text.starts_with("name")))
                    .collect();
                assert!(left.is_empty(), "{}: {left:?}", after.name());
            }
        }
    }

    #[test]
    fn secret_keys_of_a_path_stay_apart_and_phases_keep_their_names() {
        let started = |path: &str| EventKind::PhaseStarted {
            path: path.to_owned(),
            name: String::new(),
        };
        let paths = [
            "database/0[database]/1",
            "database/0[postgres]/1",
            "database/0[database]/2",
        ];
        let after = masked(&["database", "postgres"], paths.map(started).to_vec());
        let shown: Vec<_> = after
            .iter()
            .map(|kind| match kind {
                EventKind::PhaseStarted { path, .. } => path.as_str(),
                _ => "",
            })
            .collect();
        assert_eq!(
            shown,
            [
                "database/0[***]/1",
                "database/0[***2]/1",
                "database/0[***]/2"
            ]
        );
    }

    #[test]
    fn a_long_reason_is_masked_before_it_is_cut() {
        let secret = "s3cr3t".repeat(20);
        let reason = format!(
            "{}{secret}{}\nnext",
            "x".repeat(LINE - 30),
            "y".repeat(9_000)
        );
        let finished = EventKind::AttemptFinished {
            outcome: Outcome::Failed,
            reason: Some(reason),
            timed_out: false,
            culprit: None,
        };
        let after = masked(
            &[&secret],
            vec![
                finished,
                EventKind::Note {
                    message: "z\n".repeat(9_000),
                },
            ],
        );
        let EventKind::AttemptFinished {
            reason: Some(reason),
            ..
        } = &after[0]
        else {
            panic!("{after:?}");
        };
        assert!(
            !reason.contains("s3cr3ts3") && reason.contains(MASK),
            "{reason}"
        );
        assert!(reason.ends_with("…\nnext"), "{reason}");
        assert!(
            matches!(&after[1], EventKind::Note { message } if message.chars().count() == SAID)
        );
    }

    #[test]
    fn a_secret_that_is_broken_over_lines_of_a_log_is_masked() {
        let tail = LogTail {
            service: "s".into(),
            lines: vec!["a hunter2".into(), "-secret b".into(), "c".into()],
        };
        let masker = Masker::new();
        masker.add("hunter2-secret").unwrap();
        let (masks, mut keys) = (masker.masks(), Keys::default());
        let shown = EventMasker::new(&masks, &mut keys).tail(tail);
        assert_eq!(shown.lines, ["a *** b", "c"]);
    }
}
