//! The rules of one policy, where each comes from, and what they refuse.

use super::need::{Need, capability};
use super::rule::Rule;
use core::fmt;
use serde::de::{self, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::path::Path;
use strum::IntoEnumIterator;

/// Maximum number of items of one rule.
pub const MAX_ITEMS: usize = 256;
/// Maximum length of an item, and of an origin, in bytes.
pub const MAX_TEXT: usize = 1024;
/// The item that stands for everything.
const ANYTHING: &str = "*";

/// What a rule allows: everything, or a list of items.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Allow {
    /// Everything; `true` in a file.
    All,
    /// These; `false` in a file is an empty list.
    Only(Vec<String>),
}

impl Allow {
    /// Allows nothing.
    pub const NOTHING: Allow = Allow::Only(Vec::new());
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Allow::All => f.write_str("everything"),
            Allow::Only(items) if items.is_empty() => f.write_str("nothing"),
            Allow::Only(items) => f.write_str(&items.join(", ")),
        }
    }
}

impl Serialize for Allow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Allow::All => serializer.serialize_bool(true),
            Allow::Only(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items
                    .iter()
                    .try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Allow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Allow;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or a list of texts")
            }
            fn visit_bool<E: de::Error>(self, all: bool) -> Result<Allow, E> {
                Ok(if all { Allow::All } else { Allow::NOTHING })
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Allow, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    if items.len() == MAX_ITEMS {
                        return Err(de::Error::custom(format!("more than {MAX_ITEMS} items")));
                    }
                    items.push(item);
                }
                Ok(Allow::Only(items))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// What a rule allows, and where that is said.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ruling {
    /// What it allows.
    pub allow: Allow,
    /// Where that is said: `/etc/phalanx/policy.toml:3`, `--allow`, or what is the default.
    pub origin: String,
}

/// The rules of one policy: one ruling for each rule. Those of an agent of another version may have others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rules(BTreeMap<Rule, Ruling>);

/// Origin of the rules of an agent that is told nothing.
pub const CLOSED: &str = "the default of an agent";
/// Origin of the rules of a run on one's own machine.
pub const OPEN: &str = "the default of a run on this machine";

impl Rules {
    /// Returns rules that allow only what a cell does in its own containers, with images of Docker Hub.
    pub fn closed(origin: &str) -> Rules {
        let only = |rule: Rule| rule.when_closed().iter().map(ToString::to_string).collect();
        Rules::each(origin, |rule| Allow::Only(only(rule)))
    }

    /// Returns rules that allow everything.
    pub fn open(origin: &str) -> Rules {
        Rules::each(origin, |_| Allow::All)
    }

    fn each(origin: &str, allow: impl Fn(Rule) -> Allow) -> Rules {
        let ruling = |rule| {
            let (allow, origin) = (allow(rule), origin.to_owned());
            (rule, Ruling { allow, origin })
        };
        Rules(Rule::iter().map(ruling).collect())
    }

    /// Replaces what a rule allows.
    pub fn set(&mut self, rule: Rule, allow: Allow, origin: impl Into<String>) {
        let origin = origin.into();
        self.0.insert(rule, Ruling { allow, origin });
    }

    /// Returns what each rule allows.
    pub fn all(&self) -> impl Iterator<Item = (Rule, &Ruling)> {
        self.0.iter().map(|(rule, ruling)| (*rule, ruling))
    }

    /// Returns what a rule allows. Rules of an agent of another version may lack one: it allows nothing.
    pub fn get(&self, rule: Rule) -> Option<&Ruling> {
        self.0.get(&rule)
    }

    /// Returns the items that a rule allows, or `None` if it allows everything.
    pub fn items(&self, rule: Rule) -> Option<&[String]> {
        match self.get(rule).map(|ruling| &ruling.allow) {
            Some(Allow::All) => None,
            Some(Allow::Only(items)) => Some(items),
            None => Some(&[]),
        }
    }

    /// Returns whether they allow everything.
    pub fn are_open(&self) -> bool {
        Rule::iter().all(|rule| self.items(rule).is_none())
    }

    /// Returns why a need is refused, or `None` if it is allowed.
    pub fn refuses(&self, need: &Need) -> Option<Refusal> {
        let allowed = match self.items(need.rule) {
            None => true,
            Some(items) => items.iter().any(|item| covers(need.rule, item, &need.what)),
        };
        (!allowed).then(|| self.refusal(need.clone()))
    }

    /// Returns the first need that is refused, and why.
    pub fn refuses_one<'n>(&self, needs: impl IntoIterator<Item = &'n Need>) -> Option<Refusal> {
        needs.into_iter().find_map(|need| self.refuses(need))
    }

    /// Returns the refusal of a need.
    pub fn refusal(&self, need: Need) -> Refusal {
        let known = self.get(need.rule);
        let origin = known.map_or_else(|| CLOSED.to_owned(), |ruling| ruling.origin.clone());
        Refusal { need, origin }
    }

    /// Returns what both these and other rules allow.
    #[must_use]
    pub fn narrowed_by(mut self, by: &Rules) -> Rules {
        for (rule, other) in by.all() {
            let Some(own) = self.0.get_mut(&rule) else {
                self.0.insert(rule, other.clone());
                continue;
            };
            let both = match (&own.allow, &other.allow) {
                (_, Allow::All) => continue,
                (Allow::All, narrow) => narrow.clone(),
                (Allow::Only(one), Allow::Only(two)) => Allow::Only(common(rule, one, two)),
            };
            if both != own.allow {
                *own = Ruling {
                    allow: both,
                    origin: other.origin.clone(),
                };
            }
        }
        self
    }

    /// Returns them with every rule. An agent of an earlier version lacks some, and allows what those are about.
    #[must_use]
    pub fn complete(mut self) -> Rules {
        for rule in Rule::iter() {
            self.0.entry(rule).or_insert_with(|| Ruling {
                allow: Allow::All,
                origin: "not said".to_owned(),
            });
        }
        self
    }

    /// Returns what is too large, or can't be shown, in rules that came from elsewhere.
    pub fn excess(&self) -> Option<&'static str> {
        let long = |text: &String| text.len() > MAX_TEXT || text.contains(char::is_control);
        self.0.values().find_map(|ruling| match &ruling.allow {
            _ if long(&ruling.origin) => Some("an origin"),
            Allow::Only(items) if items.len() > MAX_ITEMS => Some("a list"),
            Allow::Only(items) if items.iter().any(long) => Some("an item"),
            _ => None,
        })
    }
}

/// A need that a policy doesn't allow.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Refusal {
    /// What is needed.
    pub need: Need,
    /// Where the rule comes from.
    pub origin: String,
}

impl Refusal {
    /// Returns advice on how the need can be allowed.
    pub fn help(&self) -> String {
        let rule = self.need.rule;
        let how = match rule.is_switch() {
            true => format!("with `{} = true`", rule.name()),
            false => format!("by adding \"{}\" to `{}`", self.need.item(), rule.name()),
        };
        format!("who runs the agent can allow it {how} in its policy file: docs/security.md")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (need, rule, origin) = (&self.need, self.need.rule.name(), &self.origin);
        write!(
            f,
            "the agent's policy refuses {need} (rule `{rule}`, {origin})"
        )
    }
}

/// Returns the items of each list that an item of the other covers.
fn common(rule: Rule, one: &[String], two: &[String]) -> Vec<String> {
    let within = |item: &&String, all: &[String]| all.iter().any(|other| covers(rule, other, item));
    let mut both: Vec<String> = one
        .iter()
        .filter(|item| within(item, two))
        .cloned()
        .collect();
    for item in two.iter().filter(|item| within(item, one)) {
        if !both.contains(item) {
            both.push(item.clone());
        }
    }
    both
}

/// Returns whether an item of a rule covers what is needed.
fn covers(rule: Rule, item: &str, what: &str) -> bool {
    if item == ANYTHING {
        return true;
    }
    match rule {
        // By whole names: `/srv/a` doesn't cover `/srv/ab`.
        Rule::Paths => Path::new(what).starts_with(item),
        Rule::Registries | Rule::BuildUrls => match item.strip_prefix('*') {
            Some(end) if end.starts_with('.') => what.ends_with(end),
            _ => item == what,
        },
        Rule::Capabilities => item.eq_ignore_ascii_case("all") || capability(item) == what,
        _ => match item.strip_suffix(ANYTHING) {
            Some(start) => what.starts_with(start),
            None => item == what,
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn need(rule: Rule, what: &str) -> Need {
        Need::new(rule, what)
    }

    fn with(rule: Rule, items: &[&str]) -> Rules {
        let mut rules = Rules::closed(CLOSED);
        let items = items.iter().map(ToString::to_string).collect();
        rules.set(rule, Allow::Only(items), "policy.toml:2");
        rules
    }

    #[test]
    fn closed_rules_refuse_every_rule_and_open_ones_none() {
        for rule in Rule::iter() {
            let need = need(rule, "/x");
            assert!(Rules::closed(CLOSED).refuses(&need).is_some(), "{rule:?}");
            assert_eq!(Rules::open(OPEN).refuses(&need), None);
        }
        assert!(Rules::open(OPEN).are_open() && !Rules::closed(CLOSED).are_open());
    }

    #[test]
    fn items_cover_what_they_name_and_nothing_beside_it() {
        for (rule, item, what, covered) in [
            (Rule::Paths, "/srv/a", "/srv/a", true),
            (Rule::Paths, "/srv/a", "/srv/a/b", true),
            (Rule::Paths, "/srv/a", "/srv/ab", false),
            (Rule::Paths, "/srv/a", "/srv", false),
            (Rule::Capabilities, "cap_net_admin", "NET_ADMIN", true),
            (Rule::Capabilities, "NET_ADMIN", "ALL", false),
            (Rule::Capabilities, "ALL", "SYS_ADMIN", true),
            (Rule::Registries, "ghcr.io", "ghcr.io", true),
            (Rule::Registries, "ghcr.io", "ghcr.io:5000", false),
            (Rule::Registries, "*.corp.example", "r.corp.example", true),
            (Rule::Registries, "*.corp.example", "corp.example", false),
            (Rule::Registries, "*.corp.example", "xcorp.example", false),
            (Rule::Environment, "CI_*", "CI_JOB", true),
            (Rule::Environment, "CI_*", "XCI_JOB", false),
            (Rule::Devices, "/dev/kvm", "/dev/kvm", true),
            (Rule::Devices, "/dev/kvm", "/dev/kvm2", false),
            (Rule::Run, "*", "", true),
        ] {
            let refused = with(rule, &[item]).refuses(&need(rule, what));
            assert_eq!(refused.is_none(), covered, "{rule:?} {item} {what}");
        }
    }

    #[test]
    fn narrowed_rules_allow_what_both_allow() {
        let own = with(Rule::Paths, &["/srv", "/opt/a"]);
        let by = with(Rule::Paths, &["/srv/deep", "/opt"]);
        let both = own.narrowed_by(&by);
        assert_eq!(both.items(Rule::Paths).unwrap(), ["/opt/a", "/srv/deep"]);
        let open = Rules::open(OPEN).narrowed_by(&with(Rule::Run, &[]));
        let refusal = open.refuses(&need(Rule::Run, "")).unwrap();
        assert_eq!(refusal.origin, "policy.toml:2");
        let closed = Rules::closed(CLOSED);
        assert_eq!(closed.clone().narrowed_by(&Rules::open(OPEN)), closed);
    }

    #[test]
    fn a_refusal_says_what_the_rule_where_and_how_to_allow_it() {
        let refusal = with(Rule::Capabilities, &["NET_ADMIN"])
            .refuses(&need(Rule::Capabilities, "SYS_ADMIN"))
            .unwrap();
        assert_eq!(
            refusal.to_string(),
            "the agent's policy refuses capability SYS_ADMIN (rule `capabilities`, policy.toml:2)"
        );
        assert!(
            refusal
                .help()
                .contains("adding \"SYS_ADMIN\" to `capabilities`")
        );
    }

    #[test]
    fn rules_survive_json_and_large_ones_are_noticed() {
        for rules in [Rules::open(OPEN), with(Rule::Paths, &["/srv"])] {
            let json = serde_json::to_string(&rules).unwrap();
            assert_eq!(serde_json::from_str::<Rules>(&json).unwrap(), rules);
            assert_eq!(rules.excess(), None);
        }
        let long = "x".repeat(MAX_TEXT + 1);
        for odd in [long.as_str(), "a\nb"] {
            assert!(with(Rule::Paths, &[odd]).excess().is_some());
        }
        let some: Rules =
            serde_json::from_str(r#"{"run":{"allow":false,"origin":"f:1"}}"#).unwrap();
        let all = some.complete();
        assert!(all.refuses(&need(Rule::Run, "")).is_some());
        assert_eq!(all.refuses(&need(Rule::Privileged, "")), None);
        let many = format!("[{}]", vec!["\"a\""; MAX_ITEMS + 1].join(","));
        assert!(serde_json::from_str::<Allow>(&many).is_err());
    }
}
