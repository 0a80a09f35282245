//! Limits per label as a setting: `label=cells`, several separated by commas or as a list.

use super::setting::SettingType;
use config::Value;
use phalanx_shared::namespace::Namespace;
use std::collections::BTreeMap;

/// Maximum number of concurrent cells for each named label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelLimits(pub BTreeMap<String, u32>);

impl SettingType for LabelLimits {
    fn parse(value: &Value) -> Result<LabelLimits, String> {
        let items = Vec::<String>::parse(value).map_err(|_| expected())?;
        let limits = items.iter().map(|item| {
            // A label may itself be `key=value`: the number follows the last `=`.
            let (label, cells) = item.rsplit_once('=').ok_or_else(expected)?;
            let cells: u32 = cells.trim().parse().map_err(|_| expected())?;
            let label = label.trim();
            // With a limit of 0, no cell that asks for the label would ever start.
            if label.is_empty() || cells == 0 {
                return Err(expected());
            }
            Ok((label.to_owned(), cells))
        });
        limits.collect::<Result<_, _>>().map(LabelLimits)
    }

    fn show(&self) -> String {
        let limits = self
            .0
            .iter()
            .map(|(label, cells)| format!("{label}={cells}"));
        limits.collect::<Vec<_>>().join(",")
    }
}

/// The namespace that each pool of agents belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pools(pub BTreeMap<String, Namespace>);

impl SettingType for Pools {
    fn parse(value: &Value) -> Result<Pools, String> {
        let expected = || "pools with a namespace each, such as gpu=team-a,arm=team-b".to_owned();
        let items = Vec::<String>::parse(value).map_err(|_| expected())?;
        let pools = items.iter().map(|item| {
            let (pool, namespace) = item.split_once('=').ok_or_else(expected)?;
            let namespace = namespace.trim().parse().map_err(|_| expected())?;
            let pool = pool.trim();
            match pool.is_empty() {
                false => Ok((pool.to_owned(), namespace)),
                true => Err(expected()),
            }
        });
        pools.collect::<Result<_, _>>().map(Pools)
    }

    fn show(&self) -> String {
        let pools = self.0.iter();
        let pools = pools.map(|(pool, namespace)| format!("{pool}={namespace}"));
        pools.collect::<Vec<_>>().join(",")
    }
}

/// Free space to leave on a disk, in MiB; `None` depends on the size of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserve(pub Option<u64>);

impl SettingType for Reserve {
    fn parse(value: &Value) -> Result<Reserve, String> {
        let text = value.clone().into_string().unwrap_or_default();
        if text.trim() == "auto" {
            return Ok(Reserve(None));
        }
        let mib = text.trim().parse().map(Some).map(Reserve);
        mib.map_err(|_| "a number of MiB, or auto".to_owned())
    }

    fn show(&self) -> String {
        self.0.map_or("auto".to_owned(), |mib| mib.to_string())
    }
}

fn expected() -> String {
    "labels with a number of cells from 1 up, such as gpu=2,arm=4".to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_reserve_is_a_number_or_left_to_the_disk() {
        let read = |text: &str| Reserve::parse(&Value::from(text));
        assert_eq!(read("512"), Ok(Reserve(Some(512))));
        assert_eq!(read(&Reserve(None).show()), Ok(Reserve(None)));
        assert!(read("-1").is_err() && read("much").is_err());
    }

    #[test]
    fn a_pool_belongs_to_one_namespace() {
        let read = |text: &str| Pools::parse(&Value::from(text));
        let pools = read("gpu=team-a, arm=b").unwrap();
        assert_eq!(pools.0.len(), 2);
        assert_eq!(read(&pools.show()).unwrap(), pools);
        for wrong in ["gpu", "gpu=", "=a", "gpu=Team A"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn limits_are_read_as_they_are_shown_and_a_label_may_contain_the_sign() {
        let read = |text: &str| LabelLimits::parse(&Value::from(text));
        let limits = read("gpu=2, zone=a=4").unwrap();
        assert_eq!(
            limits.0,
            [("gpu".to_owned(), 2), ("zone=a".to_owned(), 4)].into()
        );
        assert_eq!(read(&limits.show()).unwrap(), limits);
        assert_eq!(read("").unwrap(), LabelLimits::default());
        for wrong in ["gpu", "gpu=0", "=3", "gpu=many"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
