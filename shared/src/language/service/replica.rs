//! Replicas: the containers of a service that has several. They are named as Compose names them, `SERVICE-1`,
//! `SERVICE-2` and so on.

use super::reader::Reader;
use crate::node::{Node, NodeValue};

/// Maximum number of replicas of a service. A cell's network has room for 29 containers by default.
pub const MAX_REPLICAS: u32 = 20;

/// Returns the name of a replica, counted from 1.
pub fn replica_name(service: &str, number: u32) -> String {
    format!("{service}-{number}")
}

/// Returns the number of replicas that an evaluated definition asks for, without reporting problems; 1 if it doesn't
/// say.
pub fn replicas(definition: &Node) -> u32 {
    let mut unheard = Vec::new();
    read_replicas(definition, &mut Reader::new(&mut unheard, true)).unwrap_or(1)
}

/// Returns whether a definition surely makes several replicas, as far as it is known before its evaluation.
pub fn has_several(definition: &Node) -> bool {
    let mut unheard = Vec::new();
    let count = read_replicas(definition, &mut Reader::new(&mut unheard, false));
    count.is_some_and(|count| count > 1)
}

/// Returns the part of a definition that says how many replicas there are, or `None` if it doesn't say.
pub fn replicas_of(definition: &Node) -> Option<Node> {
    let entries = definition.entries().iter();
    let entries: Vec<_> = entries
        .filter(|entry| matches!(entry.key.text.as_str(), "scale" | "deploy"))
        .cloned()
        .collect();
    (!entries.is_empty()).then_some(Node {
        value: NodeValue::Map(entries),
        span: definition.span,
    })
}

/// Returns whether a service may have a replica of this name. Before evaluation an expression may be any number.
pub fn may_have_replica(service: &str, definition: &Node, name: &str) -> bool {
    let Some(number) = name
        .strip_prefix(service)
        .and_then(|rest| rest.strip_prefix('-'))
        .filter(|digits| !digits.starts_with(['0', '+']))
        .and_then(|digits| digits.parse::<u32>().ok())
    else {
        return false;
    };
    let mut unheard = Vec::new();
    let mut read = Reader::new(&mut unheard, false);
    let most = match replicas_of(definition) {
        None => 0,
        Some(part) => match read_replicas(&part, &mut read) {
            Some(count) => count,
            None if sayings(&part).iter().all(|(_, node)| read.is_known(node)) => 0,
            None => MAX_REPLICAS,
        },
    };
    // One container has its service's name alone.
    most > 1 && number <= most
}

/// Reads `scale` and `deploy.replicas`. Returns `None` if neither says a number that is known.
pub(super) fn read_replicas(node: &Node, read: &mut Reader<'_>) -> Option<u32> {
    let mut found: Option<(u32, &str)> = None;
    for (key, node) in sayings(node) {
        let number = match read.integer(node) {
            Some(number) => number,
            None if read.is_known(node) => match read.text(node).map(|text| text.parse()) {
                Some(Ok(number)) => number,
                _ => -1,
            },
            None => continue,
        };
        let count = u32::try_from(number).ok().filter(|n| *n <= MAX_REPLICAS);
        let Some(count) = count else {
            read.report(
                node.span,
                format!("`{key}` is no number from 0 to {MAX_REPLICAS}"),
            )
            .help = Some(
                "it is the number of the service's containers, its replicas, in each cell".into(),
            );
            continue;
        };
        match found {
            Some((other, _)) if other != count => {
                read.report(
                    node.span,
                    format!("`scale` says {other} and `deploy.replicas` {count}"),
                )
                .help = Some("leave one of them out".into());
            }
            _ => found = Some((count, key)),
        }
    }
    found.map(|(count, _)| count)
}

/// Returns the values that say how many replicas there are.
fn sayings(node: &Node) -> Vec<(&'static str, &Node)> {
    let filled = |node: &&Node| !node.is_null();
    let deploy = node.get("deploy").filter(filled);
    let mut all = Vec::new();
    all.extend(node.get("scale").filter(filled).map(|node| ("scale", node)));
    match deploy {
        // A whole that isn't evaluated yet.
        Some(whole) if whole.as_text().is_some() => all.push(("deploy", whole)),
        Some(map) => all.extend(
            map.get("replicas")
                .filter(filled)
                .map(|node| ("deploy.replicas", node)),
        ),
        None => {}
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::diagnostic::Diagnostic;
    use crate::language::service::check_service;

    fn definition(text: &str) -> Node {
        let text = format!("{{ image: x, {text} }}");
        crate::language::parse::parse(0, &text, &mut Vec::new()).unwrap()
    }

    #[test]
    fn scale_and_deploy_say_how_many_there_are() {
        for (text, count) in [
            ("init: true", 1),
            ("scale: 3", 3),
            ("scale: 0", 0),
            ("deploy: { replicas: 2 }", 2),
            ("scale: 2, deploy: { replicas: 2 }", 2),
            ("deploy: { mode: global }", 1),
        ] {
            assert_eq!(replicas(&definition(text)), count, "{text}");
        }
    }

    #[test]
    fn a_wrong_number_is_an_error_with_its_place() {
        let problems = |text: &str| {
            let mut found: Vec<Diagnostic> = Vec::new();
            check_service("web", &definition(text), &mut found);
            let found = found.into_iter();
            found.map(|one| one.message).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(problems("scale: 20"), "");
        assert_eq!(problems("scale: 21"), "`scale` is no number from 0 to 20");
        assert_eq!(problems("scale: \"${{ matrix.n }}\""), "");
        let both = "scale: 2, deploy: { replicas: 3 }";
        assert_eq!(problems(both), "`scale` says 2 and `deploy.replicas` 3");
        let fixed = "scale: 2, networks: { default: { ipv4_address: 10.1.0.5 } }";
        assert!(
            problems(fixed).contains("`ipv4_address`"),
            "{}",
            problems(fixed)
        );
    }

    #[test]
    fn a_replica_s_name_is_known_as_far_as_its_number_is() {
        let may = |text: &str, name: &str| may_have_replica("web", &definition(text), name);
        assert!(may("scale: 2", "web-1") && may("scale: 2", "web-2"));
        assert!(!may("scale: 2", "web-3") && !may("scale: 2", "web-0"));
        assert!(!may("scale: 2", "web-01") && !may("scale: 2", "web"));
        assert!(!may("scale: 1", "web-1") && !may("init: true", "web-1"));
        assert!(may("scale: \"${{ matrix.n }}\"", "web-20"));
        assert!(!may("scale: \"${{ matrix.n }}\"", "web-21"));
    }
}
