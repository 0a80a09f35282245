//! Converts the rules of a policy: JSON of the single definition in phalanx-shared.

use crate::limit::POLICY_BYTES;
use phalanx_shared::policy::Rules;

/// Returns rules as they came. `None` if they can't be read, have a rule that this version doesn't know, or are too
/// large. A rule that they lack allows everything: the other side doesn't know it.
pub(super) fn read(json: &[u8]) -> Option<Rules> {
    if json.len() > POLICY_BYTES {
        return None;
    }
    let rules: Rules = serde_json::from_slice(json).ok()?;
    rules.excess().is_none().then(|| rules.complete())
}

/// Returns rules as they are sent.
pub(super) fn written(rules: &Rules) -> Vec<u8> {
    serde_json::to_vec(rules).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use phalanx_shared::policy::Need;

    #[test]
    fn rules_come_as_they_were_sent_and_odd_ones_not_at_all() {
        let rules = Rules::closed("p.toml:1");
        assert_eq!(read(&written(&rules)), Some(rules));
        for odd in ["", "{", r#"{"a later rule":{"allow":true,"origin":""}}"#] {
            assert_eq!(read(odd.as_bytes()), None, "{odd}");
        }
        assert_eq!(read(&vec![b' '; POLICY_BYTES + 1]), None);
        let some = read(br#"{"privileged":{"allow":false,"origin":"p"}}"#).unwrap();
        assert_eq!(some.refuses(&Need::run()), None);
    }
}
