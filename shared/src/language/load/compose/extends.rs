//! `extends` in Compose files: a service takes over the keys of another one, of the same file or of another.

use super::reader::{File, Reader};
use super::{merge, rebase};
use crate::diagnostic::{Diagnostic, Span};
use crate::language::load::paths;
use crate::language::shape::check::{closest, found};
use crate::node::{Entry, Node, NodeValue, Text};
use std::collections::{HashMap, HashSet};

/// Maximum number of services that a message about a circle names.
const MOST_NAMED: usize = 10;

/// The services of one file.
struct Scope {
    file: File,
    /// Directory of the file, for a file that another one extends; the project's directory for the file itself.
    folder: String,
    services: HashMap<String, Entry>,
    /// Services whose bases have been merged.
    done: HashMap<String, Node>,
}

impl Scope {
    fn new(file: File, folder: String) -> Scope {
        let services = file.tree.get("services").map_or(&[][..], Node::entries);
        let services = services.iter();
        let services = services.map(|entry| (entry.key.text.clone(), entry.clone()));
        Scope {
            services: services.collect(),
            file,
            folder,
            done: HashMap::new(),
        }
    }
}

/// A service on the way from one to its last base, and its scope.
struct Link {
    scope: usize,
    entry: Entry,
}

/// What a service extends.
struct Base {
    service: Text,
    file: Option<Text>,
}

struct Extends<'e, 'a, 'r> {
    reader: &'e mut Reader<'a, 'r>,
    /// Directory of the project, which paths are relative to.
    project: String,
    scopes: Vec<Scope>,
    /// Scopes of files, by path; `None` for a file that can't be read.
    known: HashMap<String, Option<usize>>,
}

/// Merges the services of a file over those that they extend. `project` is the directory that paths are relative to.
pub fn resolve(mut file: File, project: &str, reader: &mut Reader<'_, '_>) -> File {
    let extending: Vec<String> = file
        .tree
        .get("services")
        .map_or(&[][..], Node::entries)
        .iter()
        .filter(|entry| entry.value.get("extends").is_some())
        .map(|entry| entry.key.text.clone())
        .collect();
    if extending.is_empty() {
        return file;
    }
    let copy = File {
        path: file.path.clone(),
        tree: file.tree.clone(),
        resets: file.resets.clone(),
    };
    let mut extends = Extends {
        reader,
        project: project.to_owned(),
        scopes: vec![Scope::new(copy, project.to_owned())],
        known: HashMap::new(),
    };
    let mut merged: HashMap<String, Node> = HashMap::new();
    for name in extending {
        // Without room nothing is remembered, and each chain would be followed to its end.
        if extends.reader.is_exhausted() {
            break;
        }
        if let Some(node) = extends.service(&name) {
            merged.insert(name, node);
        }
    }
    if let NodeValue::Map(sections) = &mut file.tree.value {
        let services = sections
            .iter_mut()
            .find(|entry| entry.key.text == "services");
        if let Some(NodeValue::Map(services)) = services.map(|entry| &mut entry.value.value) {
            for service in services {
                if let Some(node) = merged.remove(&service.key.text) {
                    service.value = node;
                }
            }
        }
    }
    file
}

impl Extends<'_, '_, '_> {
    /// Follows a service to its last base, then merges on the way back.
    fn service(&mut self, name: &str) -> Option<Node> {
        let mut chain: Vec<Link> = Vec::new();
        let mut seen: HashSet<(usize, String)> = HashSet::new();
        let mut next = Some((0, name.to_owned()));
        let mut base: Option<Node> = None;
        let mut whole = true;
        while let Some((scope, name)) = next.take() {
            let Some(of) = self.scopes.get(scope) else {
                break;
            };
            if let Some(done) = of.done.get(&name) {
                base = Some(done.clone());
                break;
            }
            let Some(entry) = of.services.get(&name).cloned() else {
                break;
            };
            let wanted = entry.value.get("extends").cloned();
            seen.insert((scope, name));
            chain.push(Link { scope, entry });
            let Some(wanted) = wanted else { break };
            whole = false;
            let Some(wanted) = self.wanted(&wanted) else {
                break;
            };
            let Some(to) = self.scope(scope, &wanted) else {
                break;
            };
            if seen.contains(&(to, wanted.service.text.clone())) {
                self.circle(&chain, &wanted);
            } else if self.has(to, &wanted) {
                whole = true;
                next = Some((to, wanted.service.text));
            }
        }
        self.fold(chain, base, whole)
    }

    fn fold(&mut self, chain: Vec<Link>, base: Option<Node>, whole: bool) -> Option<Node> {
        let mut base = base;
        let mut lacking = !whole;
        for Link { scope, entry } in chain.into_iter().rev() {
            let name = entry.key.text;
            let mut own = entry.value;
            if let NodeValue::Map(keys) = &mut own.value {
                keys.retain(|key| key.key.text != "extends");
                if std::mem::take(&mut lacking) {
                    give_image(keys, own.span);
                }
            }
            let merged = match base.take() {
                None => own,
                Some(mut base) => {
                    let of = self.scopes.get(scope)?;
                    of.file.resets.apply_to_base_of(&name, &mut base);
                    merge::service(base, own, self.reader.diagnostics)
                }
            };
            if !self.reader.spend(&merged, entry.key.span) {
                return None;
            }
            let of = self.scopes.get_mut(scope)?;
            of.done.insert(name, merged.clone());
            base = Some(merged);
        }
        base
    }

    /// Reads the value of `extends`.
    fn wanted(&mut self, node: &Node) -> Option<Base> {
        let text = |node: &Node| {
            let text = node.as_text().filter(|text| !text.contains("${{"))?;
            Some(Text {
                text: text.to_owned(),
                span: node.span,
            })
        };
        let unknown = node
            .entries()
            .iter()
            .find(|entry| !matches!(entry.key.text.as_str(), "service" | "file"));
        if let Some(entry) = unknown {
            self.reader.error(
                entry.key.span,
                format!("unknown key `{}` in `extends`", entry.key.text),
                "it has `service` and `file`",
            );
        }
        let service = text(node.get("service").unwrap_or(node));
        let file = node.get("file").filter(|file| !file.is_null());
        let (Some(service), Some(file)) = (
            service,
            file.map_or(Some(None), |file| text(file).map(Some)),
        ) else {
            let message = format!("`extends` takes the name of a service, not {}", found(node));
            self.reader.error(
                node.span,
                message,
                "write `extends: NAME` or `extends: { service: NAME, file: PATH }`",
            );
            return None;
        };
        Some(Base { service, file })
    }

    /// Returns the scope that a base is in.
    fn scope(&mut self, from: usize, wanted: &Base) -> Option<usize> {
        let Some(file) = &wanted.file else {
            return Some(from);
        };
        let folder = self.scopes.get(from)?.folder.clone();
        let joined = self.reader.place(&folder, file)?;
        if let Some(known) = self.known.get(&joined) {
            return *known;
        }
        let own = self
            .scopes
            .first()
            .is_some_and(|scope| scope.file.path == joined);
        let scope = match own {
            true => Some(0),
            false => self.read(&joined, file),
        };
        self.known.insert(joined, scope);
        scope
    }

    fn read(&mut self, joined: &str, named: &Text) -> Option<usize> {
        let mut file = self.reader.open(joined, named)?;
        let folder = paths::folder(joined).to_owned();
        let Some(way) = paths::relative(&self.project, &folder) else {
            self.reader.error(
                named.span,
                format!("the way from `{}` to `{folder}` is unknown", self.project),
                "name the file by a path within the workspace",
            );
            return None;
        };
        // This also moves the paths of its own `extends`, which are then relative to the project.
        rebase::extended(&mut file.tree, &way, self.reader.diagnostics);
        self.scopes.push(Scope::new(file, self.project.clone()));
        Some(self.scopes.len() - 1)
    }

    /// Returns whether a scope has a service. Reports it if not.
    fn has(&mut self, scope: usize, wanted: &Base) -> bool {
        let Some(of) = self.scopes.get(scope) else {
            return false;
        };
        let name = &wanted.service.text;
        if of.services.contains_key(name) {
            return true;
        }
        let help = match closest(name, of.services.keys().map(String::as_str)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "name one of this file, or its file: `extends: { service: NAME, file: PATH }`"
                .to_owned(),
        };
        let message = format!(
            "there is no service `{name}` to extend in `{}`",
            of.file.path
        );
        self.reader.error(wanted.service.span, message, &help);
        false
    }

    fn circle(&mut self, chain: &[Link], wanted: &Base) {
        let back = &wanted.service.text;
        let names = chain.iter().map(|link| link.entry.key.text.as_str());
        let mut names: Vec<&str> = names.skip_while(|name| name != back).collect();
        if names.len() > MOST_NAMED {
            names.truncate(MOST_NAMED);
            names.push("…");
        }
        let message = format!(
            "services extend each other in a circle: {} → {back}",
            names.join(" → ")
        );
        let problem = Diagnostic::error(wanted.service.span, message);
        let problem = problem.with_help("one of them has to stand on its own");
        self.reader.diagnostics.push(problem);
    }
}

/// Adds an image to a service whose base is missing, so that no further error is reported for the missing parts.
fn give_image(keys: &mut Vec<Entry>, span: Span) {
    if keys
        .iter()
        .any(|key| matches!(key.key.text.as_str(), "image" | "build"))
    {
        return;
    }
    keys.push(Entry {
        key: Text {
            text: "image".to_owned(),
            span,
        },
        value: Node {
            value: NodeValue::Text("unknown".to_owned()),
            span,
        },
    });
}
