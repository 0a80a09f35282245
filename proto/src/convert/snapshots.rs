//! Converts the list of snapshots that an agent keeps.
//!
//! The list is for display and a hint for placement, so an entry that can't be read is left out and breaks nothing.

use super::identity::{InvalidId, id, printable, short};
use crate::limit::{NAME_BYTES, SNAPSHOT_KEY, SNAPSHOTS};
use crate::link::{HeldSnapshot, Snapshots};
use crate::v1;
use phalanx_shared::id::{CellId, RunId};
use phalanx_shared::time::Timestamp;

impl From<v1::Snapshots> for Snapshots {
    fn from(wire: v1::Snapshots) -> Self {
        let v1::Snapshots { held, store, left } = wire;
        let held = held.into_iter().take(SNAPSHOTS);
        let left = left.into_iter().take(SNAPSHOTS);
        Snapshots {
            held: held
                .filter_map(|one| HeldSnapshot::try_from(one).ok())
                .collect(),
            store: id("the store", store).unwrap_or_default(),
            left: left
                .filter_map(|v1::SnapshotLeft { key, reason }| {
                    let key = key_of(key).ok()?;
                    Some((key, short("the reason", reason).ok()?))
                })
                .collect(),
        }
    }
}

impl From<Snapshots> for v1::Snapshots {
    fn from(snapshots: Snapshots) -> Self {
        let Snapshots { held, store, left } = snapshots;
        v1::Snapshots {
            held: held.into_iter().map(Into::into).collect(),
            store,
            left: left
                .into_iter()
                .map(|(key, reason)| v1::SnapshotLeft { key, reason })
                .collect(),
        }
    }
}

impl TryFrom<v1::HeldSnapshot> for HeldSnapshot {
    type Error = InvalidId;

    fn try_from(wire: v1::HeldSnapshot) -> Result<Self, InvalidId> {
        let v1::HeldSnapshot {
            key,
            family,
            spec,
            group,
            bytes,
            made_us,
            used_us,
            run_id,
            cell,
            cell_name,
            setup_us,
            save_us,
        } = wire;
        Ok(HeldSnapshot {
            key: key_of(key)?,
            family: match family.is_empty() {
                true => family,
                false => key_of(family)?,
            },
            spec: printable("the spec", spec, NAME_BYTES)?,
            group: printable("the group", group, NAME_BYTES)?,
            bytes,
            made: Timestamp(made_us),
            used: Timestamp(used_us),
            run: RunId(id("the run", run_id)?),
            cell: CellId(id("the cell", cell)?),
            cell_name: printable("the cell's name", cell_name, NAME_BYTES)?,
            setup_us,
            save_us,
        })
    }
}

/// Checks a key or a family. Keys become names of directories.
fn key_of(text: String) -> Result<String, InvalidId> {
    let what = "the key of a snapshot";
    if text.len() > SNAPSHOT_KEY {
        return Err(InvalidId::TooLong {
            what,
            length: text.len(),
            limit: SNAPSHOT_KEY,
        });
    }
    match text.chars().find(|c| !c.is_ascii_hexdigit()) {
        Some(character) => Err(InvalidId::Character { what, character }),
        None if text.is_empty() => Err(InvalidId::Empty { what }),
        None => Ok(text),
    }
}

impl From<HeldSnapshot> for v1::HeldSnapshot {
    fn from(held: HeldSnapshot) -> Self {
        let HeldSnapshot {
            key,
            family,
            spec,
            group,
            bytes,
            made,
            used,
            run,
            cell,
            cell_name,
            setup_us,
            save_us,
        } = held;
        v1::HeldSnapshot {
            key,
            family,
            spec,
            group,
            bytes,
            made_us: made.0,
            used_us: used.0,
            run_id: run.0,
            cell: cell.0,
            cell_name,
            setup_us,
            save_us,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str) -> v1::HeldSnapshot {
        v1::HeldSnapshot {
            key: key.to_owned(),
            spec: "shop".to_owned(),
            run_id: "r".to_owned(),
            cell: "c".to_owned(),
            ..v1::HeldSnapshot::default()
        }
    }

    #[test]
    fn what_can_not_be_read_is_left_out_and_a_long_list_is_cut() {
        let family = v1::HeldSnapshot {
            family: "../x".to_owned(),
            ..one("ab")
        };
        let name = v1::HeldSnapshot {
            group: "a\u{1b}[31m".to_owned(),
            ..one("ab")
        };
        let held = vec![one("0a"), one(""), one("../x"), family, name, one("ff")];
        let read = Snapshots::from(v1::Snapshots {
            held,
            ..v1::Snapshots::default()
        });
        let keys: Vec<&str> = read.held.iter().map(|one| one.key.as_str()).collect();
        assert_eq!(keys, ["0a", "ff"]);
        let many = v1::Snapshots {
            held: vec![one("0a"); SNAPSHOTS + 5],
            ..v1::Snapshots::default()
        };
        assert_eq!(Snapshots::from(many).held.len(), SNAPSHOTS);
    }
}
