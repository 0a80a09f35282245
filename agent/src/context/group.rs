//! What a snapshot keeps of a group's steps: their results for reports, and their captures for later steps.

use super::frame::{Entry, Handed, Key, Record};
use phalanx_shared::event::{Captured, CheckResult, Culprit, StepResult};
use phalanx_shared::outcome::Outcome;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is kept of a group.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Group {
    /// The results of the steps inside, masked, in the order in which they ended. A path holds only the part below the group.
    pub steps: Vec<StepResult>,
    /// The records of steps by id, as far as later steps see them.
    pub records: Vec<(String, Vec<SavedRecord>)>,
    /// The captures of the group itself.
    pub handed: SavedHanded,
    /// The checks of the group itself.
    pub checks: Vec<CheckResult>,
    /// Its captures as events show them.
    pub captured: Vec<Captured>,
    /// How long its steps took, in microseconds.
    pub elapsed_us: u64,
    /// Texts that were masked in the cell that made it. They are masked before anything of the group is shown again.
    pub masked: Vec<String>,
}

/// Captures of a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedHanded {
    values: BTreeMap<String, Value>,
    secret: BTreeSet<String>,
}

/// The record of a step, or of one instance of a `foreach`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedRecord {
    /// Key of the instance.
    key: Option<SavedKey>,
    outcome: Outcome,
    reason: Option<String>,
    attempt: u32,
    handed: SavedHanded,
    culprit: Option<Culprit>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum SavedKey {
    Int(i64),
    Text(String),
}

impl SavedHanded {
    /// Takes over captures.
    pub fn of(handed: &Handed) -> SavedHanded {
        SavedHanded {
            values: handed.values.clone(),
            secret: handed.secret.clone(),
        }
    }

    /// Returns the captures.
    pub fn handed(&self) -> Handed {
        Handed {
            values: self.values.clone(),
            secret: self.secret.clone(),
        }
    }

    fn secrets(&self) -> impl Iterator<Item = &Value> {
        self.secret.iter().filter_map(|name| self.values.get(name))
    }
}

impl SavedRecord {
    fn of(key: Option<&Key>, record: &Record) -> SavedRecord {
        SavedRecord {
            key: key.map(|key| match key {
                Key::Int(number) => SavedKey::Int(*number),
                Key::Text(text) => SavedKey::Text(text.clone()),
            }),
            outcome: record.outcome,
            reason: record.reason.clone(),
            attempt: record.attempt,
            handed: SavedHanded::of(&record.handed),
            culprit: record.culprit.clone(),
        }
    }

    fn record(&self) -> Record {
        Record {
            outcome: self.outcome,
            reason: self.reason.clone(),
            attempt: self.attempt,
            handed: Arc::new(self.handed.handed()),
            culprit: self.culprit.clone(),
        }
    }
}

/// Returns the records of one id, to be kept.
pub fn saved(entry: &Entry) -> Vec<SavedRecord> {
    match entry {
        Entry::One(record) => vec![SavedRecord::of(None, record)],
        Entry::Keyed(records) => records
            .iter()
            .map(|(key, record)| SavedRecord::of(Some(key), record))
            .collect(),
    }
}

impl Group {
    /// Returns the records as they were: id, key of the instance, record.
    pub fn records(&self) -> Vec<(String, Option<Key>, Record)> {
        let all = self.records.iter().flat_map(|(id, records)| {
            records.iter().map(move |saved| {
                let key = saved.key.as_ref().map(|key| match key {
                    SavedKey::Int(number) => Key::Int(*number),
                    SavedKey::Text(text) => Key::Text(text.clone()),
                });
                (id.clone(), key, saved.record())
            })
        });
        all.collect()
    }

    /// Returns the texts inside captures that are secrets or made of one.
    pub fn secrets(&self) -> Vec<String> {
        let records = self.records.iter().flat_map(|(_, records)| records);
        let handed = records.map(|record| &record.handed).chain([&self.handed]);
        let mut found = Vec::new();
        for value in handed.flat_map(SavedHanded::secrets) {
            texts(value, &mut found);
        }
        found
    }
}

fn texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(map) => map.values().for_each(|value| texts(value, found)),
        Value::Null | Value::Bool(_) => {}
        other => found.push(phalanx_shared::expr::to_text(other)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use indexmap::IndexMap;
    use serde_json::json;

    #[test]
    fn records_come_back_as_they_were_and_secrets_are_known() {
        let mut handed = Handed::default();
        handed.insert("token", json!({ "a": ["s1", 7] }), true);
        handed.insert("id", json!(3), false);
        let record = Record {
            outcome: Outcome::Passed,
            reason: None,
            attempt: 1,
            handed: Arc::new(handed),
            culprit: None,
        };
        let keyed = Entry::Keyed(IndexMap::from([
            (Key::Int(5), record.clone()),
            (Key::Text("x".to_owned()), record.clone()),
        ]));
        let group = Group {
            records: vec![
                ("one".to_owned(), saved(&Entry::One(record.clone()))),
                ("each".to_owned(), saved(&keyed)),
            ],
            ..Group::default()
        };
        let text = serde_json::to_string(&group).unwrap();
        let back: Group = serde_json::from_str(&text).unwrap();
        let records = back.records();
        assert_eq!(records[0], ("one".to_owned(), None, record.clone()));
        assert_eq!(records[1].1, Some(Key::Int(5)));
        assert_eq!(records[2].1, Some(Key::Text("x".to_owned())));
        assert_eq!(back.secrets()[..2], ["s1", "7"]);
    }
}
