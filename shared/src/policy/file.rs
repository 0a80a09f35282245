//! Parses a policy file: TOML with one key per rule. Each ruling knows its line.
//!
//! ```toml
//! default = "refuse"            # what rules that aren't named here allow: "refuse" or "allow"
//! run = true
//! capabilities = ["NET_ADMIN"]
//! paths = ["/srv/fixtures"]
//! ```

use super::address;
use super::rule::Rule;
use super::rules::{Allow, MAX_ITEMS, MAX_TEXT, Rules, Ruling};
use core::fmt;
use core::ops::Range;
use strum::IntoEnumIterator;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Maximum size of a policy file, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;
/// Key of what holds for rules that a file doesn't name.
const DEFAULT: &str = "default";
/// Namespaces of the host.
const NAMESPACES: [&str; 7] = ["network", "pid", "ipc", "uts", "userns", "cgroup", "mount"];
/// Item that stands for all rules, in a flag.
const ALL: &str = "all";

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layer {
    /// Whether rules that it doesn't name allow everything, and where it says so.
    default: Option<(bool, String)>,
    rules: Vec<(Rule, Ruling)>,
}

impl Layer {
    /// Puts it over the rules of earlier layers.
    pub fn apply(self, rules: &mut Rules) {
        if let Some((allow, origin)) = self.default {
            *rules = match allow {
                true => Rules::open(&origin),
                false => Rules::closed(&origin),
            };
        }
        for (rule, ruling) in self.rules {
            rules.set(rule, ruling.allow, ruling.origin);
        }
    }
}

/// An error in a policy file or flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// `FILE:LINE`, or the flag.
    pub place: String,
    /// The problem.
    pub problem: String,
    /// How to fix it.
    pub help: String,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Flaw {
            place,
            problem,
            help,
        } = self;
        write!(f, "{place}: {problem}; {help}")
    }
}

impl std::error::Error for Flaw {}

/// Parses a file's text. Returns every error in it.
pub fn parse(name: &str, text: &str) -> Result<Layer, Vec<Flaw>> {
    let place = |span: Range<usize>| {
        let before = text.get(..span.start).unwrap_or(text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        format!("{name}:{line}")
    };
    let flaw = |place: String, problem: String, help: String| Flaw {
        place,
        problem,
        help,
    };
    if text.len() > MAX_BYTES {
        let problem = format!("it is larger than {} KiB", MAX_BYTES >> 10);
        return Err(vec![flaw(
            name.to_owned(),
            problem,
            "shorten it".to_owned(),
        )]);
    }
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or_else(|| name.to_owned(), &place);
        let help = "a policy file is TOML: `run = true`, `paths = [\"/srv\"]`".to_owned();
        vec![flaw(at, error.message().replace('\n', " "), help)]
    })?;
    let (mut layer, mut flaws) = (Layer::default(), Vec::new());
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    // By place, so that errors come in the order of the file.
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        let origin = place(key.span());
        let key = key.get_ref().as_ref();
        if origin.len() > MAX_TEXT {
            flaws.push(flaw(
                name.to_owned(),
                "its path is too long".to_owned(),
                "move it".to_owned(),
            ));
            break;
        }
        if key == DEFAULT {
            match value.get_ref().as_str() {
                Some("allow") => layer.default = Some((true, origin)),
                Some("refuse") => layer.default = Some((false, origin)),
                _ => flaws.push(flaw(
                    origin,
                    "`default` says what holds for rules that aren't named".to_owned(),
                    "write \"refuse\" or \"allow\"".to_owned(),
                )),
            }
            continue;
        }
        let Ok(rule) = key.parse::<Rule>() else {
            flaws.push(unknown(origin, key));
            continue;
        };
        match allow(rule, value) {
            Ok(allow) => layer.rules.push((rule, Ruling { allow, origin })),
            Err((problem, help)) => flaws.push(flaw(origin, problem, help)),
        }
    }
    match flaws.is_empty() {
        true => Ok(layer),
        false => Err(flaws),
    }
}

/// Adds what a flag `RULE`, `RULE=ITEM,…` or `all` allows.
pub fn add(rules: &mut Rules, flag: &str, text: &str) -> Result<(), Flaw> {
    if text == ALL {
        *rules = Rules::open(flag);
        return Ok(());
    }
    let (name, items) = match text.split_once('=') {
        Some((name, items)) => (name, Some(items)),
        None => (text, None),
    };
    let Ok(rule) = name.parse::<Rule>() else {
        return Err(unknown(flag.to_owned(), name));
    };
    let allow = match items {
        None => Allow::All,
        Some(items) => {
            let items: Vec<&str> = items.split(',').map(str::trim).collect();
            for item in &items {
                checked(rule, item).map_err(|(problem, help)| Flaw {
                    place: flag.to_owned(),
                    problem,
                    help,
                })?;
            }
            let Some(known) = rules.items(rule) else {
                // Everything is allowed already.
                return Ok(());
            };
            let mut all = known.to_vec();
            for item in items {
                if !all.iter().any(|known| known == item) && all.len() < MAX_ITEMS {
                    all.push(item.to_owned());
                }
            }
            Allow::Only(all)
        }
    };
    rules.set(rule, allow, flag);
    Ok(())
}

fn unknown(place: String, name: &str) -> Flaw {
    let names: Vec<&str> = Rule::iter().map(Rule::name).collect();
    Flaw {
        place,
        problem: format!(
            "there is no rule `{}`",
            name.chars().take(64).collect::<String>()
        ),
        help: format!("the rules are {}", names.join(", ")),
    }
}

type Wrong = (String, String);

fn allow(rule: Rule, value: &Spanned<DeValue<'_>>) -> Result<Allow, Wrong> {
    let name = rule.name();
    match value.get_ref() {
        DeValue::Boolean(true) => Ok(Allow::All),
        DeValue::Boolean(false) => Ok(Allow::NOTHING),
        DeValue::Array(items) if !rule.is_switch() => {
            if items.len() > MAX_ITEMS {
                let problem = format!("`{name}` has more than {MAX_ITEMS} items");
                return Err((problem, "`*` stands for everything".to_owned()));
            }
            let items = items.iter().map(|item| match item.get_ref().as_str() {
                Some(item) => checked(rule, item).map(|()| item.to_owned()),
                None => Err((
                    format!("an item of `{name}` is no text"),
                    "write it in quotes".to_owned(),
                )),
            });
            items.collect::<Result<_, _>>().map(Allow::Only)
        }
        _ => Err((
            format!("`{name}` is {}", value.get_ref().type_str()),
            match rule.is_switch() {
                true => "write true or false".to_owned(),
                false => "write a list of texts, or true for everything, or false".to_owned(),
            },
        )),
    }
}

/// Checks an item, so that a typing error doesn't become a rule that never fits.
fn checked(rule: Rule, item: &str) -> Result<(), Wrong> {
    let wrong = |help: &str| {
        let shown: String = item.chars().take(64).collect();
        let problem = format!("`{shown}` is no item of `{}`", rule.name());
        Err((problem, help.to_owned()))
    };
    let plain = item.len() <= MAX_TEXT && !item.is_empty() && !item.contains(char::is_control);
    match rule {
        _ if rule.is_switch() => wrong("it is a switch: it has no items"),
        _ if item == "*" => Ok(()),
        _ if !plain => wrong("write a short text"),
        Rule::Paths if super::need::plain(item) != item => {
            wrong("write an absolute path without `..` and without a slash at its end")
        }
        Rule::Http if !address::is_item(item) => wrong(
            "write `loopback`, `link_local`, `coordinator`, an address (`10.0.0.1`), a range (`10.0.0.0/8`) or an address with a port",
        ),
        Rule::Namespaces if !NAMESPACES.contains(&item) => {
            wrong("they are network, pid, ipc, uts, userns, cgroup and mount")
        }
        Rule::Registries | Rule::BuildUrls if item.contains('/') => {
            wrong("write a host: `ghcr.io`, `localhost:5000`, `*.corp.example`")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::policy::need::Need;
    use crate::policy::rules::{CLOSED, OPEN};

    fn over(mut rules: Rules, text: &str) -> Rules {
        parse("p.toml", text).unwrap().apply(&mut rules);
        rules
    }

    fn flaws(text: &str) -> Vec<String> {
        let flaws = parse("p.toml", text).unwrap_err();
        flaws.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_file_changes_the_rules_that_it_names_and_they_know_its_line() {
        let text = "# ours\nrun = true\n\npaths = [\n  \"/srv\",\n]\nregistries = false\n";
        let rules = over(Rules::closed(CLOSED), text);
        assert_eq!(rules.get(Rule::Run).unwrap().origin, "p.toml:2");
        assert_eq!(rules.get(Rule::Paths).unwrap().origin, "p.toml:4");
        assert_eq!(rules.get(Rule::Privileged).unwrap().origin, CLOSED);
        assert_eq!(rules.refuses(&Need::run()), None);
        assert_eq!(rules.refuses(&Need::path("/srv/x").unwrap()), None);
        assert!(rules.refuses(&Need::image("a").unwrap()).is_some());
    }

    #[test]
    fn a_default_replaces_all_that_came_before() {
        let rules = over(
            Rules::open(OPEN),
            "privileged = true\ndefault = \"refuse\"\n",
        );
        assert_eq!(rules.get(Rule::Run).unwrap().origin, "p.toml:2");
        assert!(rules.refuses(&Need::run()).is_some());
        assert_eq!(rules.refuses(&Need::new(Rule::Privileged, "")), None);
        let rules = over(Rules::closed(CLOSED), "default = \"allow\"\nrun = false\n");
        assert!(rules.refuses(&Need::run()).is_some());
        assert_eq!(rules.refuses(&Need::new(Rule::Privileged, "")), None);
    }

    #[test]
    fn every_error_has_its_line_and_says_what_to_write() {
        let found = flaws(
            "runn = true\nprivileged = [\"x\"]\npaths = [\"srv\", \"/a\"]\nhttp = [\"localhost\"]\ndefault = 1\nnamespaces = [\"net\"]\ncapabilities = 3\n",
        );
        let starts = [
            "p.toml:1: there is no rule `runn`; the rules are run, ",
            "p.toml:2: `privileged` is array; write true or false",
            "p.toml:3: `srv` is no item of `paths`; ",
            "p.toml:4: `localhost` is no item of `http`; write `loopback`",
            "p.toml:5: `default` says",
            "p.toml:6: `net` is no item of `namespaces`; ",
            "p.toml:7: `capabilities` is integer; write a list",
        ];
        assert_eq!(found.len(), starts.len(), "{found:?}");
        for (found, start) in found.iter().zip(starts) {
            assert!(found.starts_with(start), "{found}");
        }
        assert!(flaws("\nrun = \n")[0].starts_with("p.toml:2: "));
        assert!(flaws("run = true\nrun = false\n")[0].starts_with("p.toml:2: "));
        assert!(flaws(&"#".repeat(MAX_BYTES + 1))[0].contains("larger than 64 KiB"));
    }

    #[test]
    fn flags_add_to_what_files_allow() {
        let mut rules = Rules::closed(CLOSED);
        for text in ["run", "registries=ghcr.io,quay.io", "registries=ghcr.io"] {
            add(&mut rules, "--allow", text).unwrap();
        }
        assert_eq!(rules.refuses(&Need::run()), None);
        let registries = rules.items(Rule::Registries).unwrap();
        assert_eq!(registries, ["docker.io", "ghcr.io", "quay.io"]);
        for wrong in ["runn", "run=x", "paths=srv", "http=localhost"] {
            assert!(add(&mut rules, "--allow", wrong).is_err(), "{wrong}");
        }
        add(&mut rules, "--allow", "all").unwrap();
        assert!(rules.are_open());
    }
}
