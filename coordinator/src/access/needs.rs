//! What each call and each page needs. There is no other place that says so, and what isn't here is refused.
//!
//! A test compares the table with the services and the routes that exist.

use super::core::Need::{self, Agent, Everywhere, Nothing, Role as In};
use super::core::Role::{Admin, CancelOwn, Read, Run};
use Kind::{Changes, Reads};

/// Whether a call changes something: then it is in the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only reads.
    Reads,
    /// It changes something.
    Changes,
}

/// The gRPC methods, as `/package.Service/Method`.
const CALLS: &[(&str, Need, Kind)] = &[
    ("/phalanx.v1.Control/Submit", In(Run), Changes),
    ("/phalanx.v1.Control/Watch", In(Read), Reads),
    ("/phalanx.v1.Control/ListRuns", In(Read), Reads),
    // Of a run that somebody else started, the handler asks for `admin`.
    ("/phalanx.v1.Control/Cancel", In(CancelOwn), Changes),
    ("/phalanx.v1.Control/Rerun", In(Run), Changes),
    ("/phalanx.v1.Control/Logs", In(Read), Reads),
    ("/phalanx.v1.Control/Artifact", In(Read), Reads),
    ("/phalanx.v1.Control/GetSubmission", In(Read), Reads),
    ("/phalanx.v1.Control/ListAgents", In(Read), Reads),
    // Of an agent that is for all namespaces, the handler asks for a role in all of them.
    ("/phalanx.v1.Control/DrainAgent", In(Admin), Changes),
    ("/phalanx.v1.Control/Why", In(Read), Reads),
    ("/phalanx.v1.Control/Waiting", In(Read), Reads),
    // It counts everybody's cells.
    ("/phalanx.v1.Control/Demand", Everywhere(Read), Reads),
    ("/phalanx.v1.Control/Gc", Everywhere(Admin), Changes),
    // A snapshot belongs to no namespace.
    ("/phalanx.v1.Control/ListSnapshots", Everywhere(Read), Reads),
    (
        "/phalanx.v1.Control/RemoveSnapshots",
        Everywhere(Admin),
        Changes,
    ),
    ("/phalanx.v1.Control/HasWorkspace", In(Run), Reads),
    ("/phalanx.v1.Control/PutWorkspace", In(Run), Changes),
    ("/phalanx.v1.Access/WhoAmI", In(Read), Reads),
    ("/phalanx.v1.Access/CreateToken", In(Admin), Changes),
    ("/phalanx.v1.Access/ListTokens", In(Admin), Reads),
    ("/phalanx.v1.Access/RevokeToken", In(Admin), Changes),
    ("/phalanx.v1.Access/ListAudit", In(Admin), Reads),
    // The handler asks for a token of another kind, and a renewal comes with the agent's certificate.
    ("/phalanx.v1.Enrolment/Enrol", Nothing, Changes),
    ("/phalanx.v1.Enrolment/Renew", Agent, Reads),
    (
        "/phalanx.v1.Identities/CreateAgentToken",
        Everywhere(Admin),
        Changes,
    ),
    (
        "/phalanx.v1.Identities/ListIdentities",
        Everywhere(Admin),
        Reads,
    ),
    (
        "/phalanx.v1.Identities/RevokeIdentity",
        Everywhere(Admin),
        Changes,
    ),
    ("/phalanx.v1.AgentLink/Session", Agent, Reads),
    ("/phalanx.v1.AgentLink/Logs", Agent, Reads),
    ("/phalanx.v1.AgentLink/Workspace", Agent, Reads),
    ("/phalanx.v1.AgentLink/Died", Agent, Reads),
    ("/grpc.health.v1.Health/Check", Nothing, Reads),
    ("/grpc.health.v1.Health/Watch", Nothing, Reads),
    (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        In(Read),
        Reads,
    ),
];

/// The HTTP routes, as `METHOD /path/{parameter}`.
const ROUTES: &[(&str, Need, Kind)] = &[
    // Without a token it only says whether all is well.
    ("GET /healthz", Nothing, Reads),
    // It counts everybody's runs.
    ("GET /metrics", Everywhere(Read), Reads),
    ("GET /login", Nothing, Reads),
    ("POST /login", Nothing, Changes),
    ("POST /logout", Nothing, Changes),
    ("GET /", In(Read), Reads),
    ("GET /runs", In(Read), Reads),
    ("GET /runs/events", In(Read), Reads),
    ("GET /runs/{run}", In(Read), Reads),
    ("GET /runs/{run}/events", In(Read), Reads),
    ("GET /runs/{run}/timing", In(Read), Reads),
    ("GET /runs/{run}/timing/events", In(Read), Reads),
    ("POST /runs/{run}/cancel", In(CancelOwn), Changes),
    ("POST /runs/{run}/rerun", In(Run), Changes),
    ("GET /runs/{run}/cells/{cell}", In(Read), Reads),
    ("GET /runs/{run}/cells/{cell}/events", In(Read), Reads),
    ("GET /runs/{run}/cells/{cell}/log", In(Read), Reads),
    (
        "GET /runs/{run}/cells/{cell}/artifacts/{attempt}/{id}",
        In(Read),
        Reads,
    ),
    ("GET /agents", In(Read), Reads),
    ("GET /agents/events", In(Read), Reads),
    ("POST /agents/{agent}/drain", In(Admin), Changes),
    ("GET /compare", In(Read), Reads),
    ("GET /history", In(Read), Reads),
    ("GET /explain", Nothing, Reads),
    ("GET /explain/{code}", Nothing, Reads),
    ("GET /static/live.js", Nothing, Reads),
    ("GET /static/live.css", Nothing, Reads),
];

/// Returns what a gRPC call needs, by its path.
pub fn of_call(path: &str) -> Option<(Need, Kind)> {
    let mut rows = CALLS.iter();
    rows.find(|(known, _, _)| *known == path)
        .map(|(_, need, kind)| (*need, *kind))
}

/// Returns what a request over HTTP needs, by its method and path. As in the router, a name takes precedence over a
/// parameter.
pub fn of_request(method: &str, path: &str) -> Option<(Need, Kind)> {
    // HEAD is answered as GET is.
    let method = if method == "HEAD" { "GET" } else { method };
    let rows = ROUTES.iter().filter_map(|(route, need, kind)| {
        let pattern = route.strip_prefix(method)?.strip_prefix(' ')?;
        Some((parameters(pattern, path)?, (*need, *kind)))
    });
    rows.min_by_key(|(parameters, _)| *parameters)
        .map(|(_, row)| row)
}

/// Returns the number of parameters in a pattern if it matches a path.
fn parameters(pattern: &str, path: &str) -> Option<usize> {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    let mut parameters = 0;
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(parameters),
            (Some(wanted), Some(given)) if wanted.starts_with('{') => {
                parameters += 1;
                // The router gives no parameter an empty value.
                (!given.is_empty()).then_some(())?;
            }
            (Some(wanted), Some(given)) if wanted == given => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use prost::Message;
    use prost_types::FileDescriptorSet;
    use std::collections::BTreeSet;
    use std::path::Path;

    fn keys(table: &[(&'static str, Need, Kind)]) -> BTreeSet<String> {
        let keys: BTreeSet<String> = table.iter().map(|(key, _, _)| (*key).to_owned()).collect();
        assert_eq!(keys.len(), table.len(), "one row each");
        keys
    }

    #[test]
    fn every_method_of_every_service_has_a_row_and_every_row_a_method() {
        let sets = [
            phalanx_proto::DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        ];
        let mut methods = BTreeSet::new();
        for set in sets {
            for file in FileDescriptorSet::decode(set).unwrap().file {
                for service in &file.service {
                    for method in &service.method {
                        let package = file.package();
                        let (service, method) = (service.name(), method.name());
                        methods.insert(format!("/{package}.{service}/{method}"));
                    }
                }
            }
        }
        assert_eq!(keys(CALLS), methods);
    }

    /// Returns the routes in the code: `.route("PATTERN", METHOD(…`.
    fn routes(code: &str) -> Vec<String> {
        let code: String = code.split_whitespace().collect();
        let routes = code.split(".route(\"").skip(1).map(|rest| {
            let (pattern, rest) = rest.split_once('"').unwrap();
            let handler = rest.trim_start_matches(',');
            let method = match handler {
                _ if handler.starts_with("get(") => "GET",
                _ if handler.starts_with("post(") => "POST",
                _ => panic!("the route {pattern} doesn't say its method: write get(…) or post(…)"),
            };
            // get(…).post(…) would be two routes.
            let end = handler.split(".route(").next().unwrap_or_default();
            assert!(!end.contains(").post("), "{pattern}: one route per method");
            format!("{method} {pattern}")
        });
        routes.collect()
    }

    #[test]
    fn every_route_has_a_row_and_every_row_a_route() {
        fn files(folder: &Path, into: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    files(&path, into);
                } else if path.extension().is_some_and(|end| end == "rs") {
                    into.push(std::fs::read_to_string(path).unwrap());
                }
            }
        }
        let mut sources = Vec::new();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/serve");
        files(&folder, &mut sources);
        let found: Vec<String> = sources.iter().flat_map(|code| routes(code)).collect();
        let known: BTreeSet<String> = found.iter().cloned().collect();
        assert!(known.contains("GET /runs/{run}"), "{known:?}");
        assert_eq!(keys(ROUTES), known);
    }

    #[test]
    fn what_has_no_row_needs_something_nobody_has() {
        assert_eq!(of_call("/phalanx.v1.Control/New"), None);
        for (method, path) in [
            ("PUT", "/runs"),
            ("GET", "/runs/"),
            ("GET", "/runs//events"),
            ("GET", "/new"),
            ("GET", "/metrics/x"),
        ] {
            assert_eq!(of_request(method, path), None, "{method} {path}");
        }
    }

    #[test]
    fn what_a_page_can_do_is_a_post_and_is_audited() {
        for (route, _, kind) in ROUTES {
            assert_eq!(*kind == Changes, route.starts_with("POST "), "{route}");
        }
    }

    #[test]
    fn a_request_is_found_as_the_router_finds_it() {
        for (method, path, need) in [
            ("HEAD", "/runs", In(Read)),
            ("GET", "/", In(Read)),
            ("GET", "/healthz", Nothing),
            ("GET", "/metrics", Everywhere(Read)),
            ("GET", "/runs/events", In(Read)),
            ("POST", "/runs/0192/cancel", In(CancelOwn)),
            ("GET", "/runs/0192/cells/a%2Fb/artifacts/1/2", In(Read)),
            ("POST", "/agents/x/drain", In(Admin)),
        ] {
            let found = of_request(method, path).map(|(need, _)| need);
            assert_eq!(found, Some(need), "{method} {path}");
        }
    }
}
