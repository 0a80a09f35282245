//! A spec from a Compose file that nobody edits: what travels with it, the values of its variables, and a first phase
//! that waits for its services.

use super::draft::{Draft, LANGUAGE, Remark, head};
use super::yaml::{Entry, Item, Yaml, entry, remarked, write};
use phalanx_shared::diagnostic::{Diagnostic, Severity, Source, Span};
use phalanx_shared::language::load;
use phalanx_shared::language::parse::parse;
use phalanx_shared::language::service::needed;
use phalanx_shared::node::{Node, NodeValue, Text};
use std::collections::BTreeSet;

/// Most axes that are made of the variables in images.
const MAX_AXES: usize = 2;

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A directory.
    Directory,
}

/// Where a Compose file comes from.
pub struct From<'a> {
    /// Path of the file, relative to the spec.
    pub path: &'a str,
    /// Text of the file.
    pub text: &'a str,
    /// Paths of the files that are merged over it.
    pub over: &'a [String],
    /// Path and text of the file with the values of its variables, if there is one.
    pub env_file: Option<(&'a str, &'a str)>,
    /// Says what is at a path, relative to the spec.
    pub look: &'a dyn Fn(&str) -> Option<Kind>,
    /// Reads a file, relative to the spec.
    pub read: &'a dyn Fn(&str) -> Option<String>,
}

/// Makes a spec of a Compose file. `file` is the name of the spec, `project` the name of the directory.
///
/// # Errors
/// Returns what is wrong with the Compose file, with places in it.
pub fn draft(file: &str, project: &str, from: &From<'_>) -> Result<Draft, Vec<Diagnostic>> {
    let mut found = Vec::new();
    let root = parse(0, from.text, &mut found);
    found.retain(|found| found.severity == Severity::Error);
    let root = match root {
        Some(root) if found.is_empty() => root,
        _ => return Err(found),
    };
    let services = root.get("services").map_or(&[][..], Node::entries);
    let mut remarks = Vec::new();
    let variables = variables(&root, from, &mut remarks);
    let merged = merged(from, &variables);
    if let Some(include) = root.get("include") {
        if merged.is_none() {
            let why = "the services of included files get no step of their own, and their files aren't named in `workspace.include`: the files don't load together, which `phalanx validate` explains";
            remarks.push(Remark::new(include.span.line, why.to_owned()));
        }
    } else if services.is_empty() {
        let why = format!("the Compose file `{}` has no services", from.path);
        return Err(vec![Diagnostic::error(root.span, why)]);
    }
    let workspace = workspace(&root, merged.as_ref(), from, &mut remarks);
    let all = merged.as_ref().unwrap_or(&root);
    let (ready, waits) = phases(all);
    let name = root.get("name").and_then(Node::as_text);
    let name = name.filter(|name| !name.contains('$')).unwrap_or(project);
    let mut spec = vec![entry("name", Yaml::text(name))];
    spec.extend(strategy(&variables));
    if !workspace.is_empty() {
        spec.push(remarked(
            say("What the services build from and mount; it travels to the machine that runs the cell."),
            "workspace",
            Yaml::map([("include", Yaml::list(workspace.into_iter().map(Yaml::Text)))]),
        ));
    }
    spec.push(remarked(
        say("Each cell has all services of the file, on a network of its own, with volumes, names and ports of its own."),
        "stack",
        Yaml::Map(stack(from, &variables)),
    ));
    if !ready.is_empty() {
        spec.push(remarked(
            say("What a spec adds to a service of the file. These are ready when they accept connections; the others say it themselves."),
            "services",
            Yaml::Map(ready),
        ));
    }
    spec.push(remarked(
        say(&format!(
            "Add phases of your own: http, exec, run, sse. {LANGUAGE} has all of them."
        )),
        "phases",
        Yaml::map([("ready", Yaml::List(waits))]),
    ));
    remarks.sort();
    remarks.dedup();
    let more = example(all).map_or_else(String::new, |lines| super::yaml::comment(2, &lines));
    let origin = format!("from {}", from.path);
    Ok(Draft {
        spec: head(file, &origin) + &write(&spec) + &more,
        remarks,
    })
}

fn say(text: &str) -> Vec<String> {
    vec![String::new(), text.to_owned()]
}

/// Returns the services of all files together, as `docker compose` merges them, or `None` if they don't load.
fn merged(from: &From<'_>, variables: &[Variable]) -> Option<Node> {
    let mut spec = strategy(variables);
    spec.push(entry("stack", Yaml::Map(stack(from, variables))));
    let main = Source {
        name: "phalanx.yaml".to_owned(),
        // A spec without phases isn't read to its end.
        text: write(&spec) + "phases: { ready: [{ run: 'true' }] }\n",
    };
    let loaded = load(main, &mut |path| {
        let text = (from.read)(path).ok_or("it can't be read")?;
        let name = path.to_owned();
        Ok(Source { name, text })
    });
    let services = loaded.spec?.services.into_iter();
    let services = services.map(|service| {
        let mut definition = service.definition;
        if let (true, NodeValue::Map(keys)) = (service.manual, &mut definition.value) {
            // A profile, which the definition doesn't hold any more.
            let value = NodeValue::List(vec![named("manual")]);
            keys.push(of("profiles", value));
        }
        of(&service.name.text, definition.value)
    });
    let services = of("services", NodeValue::Map(services.collect()));
    Some(Node {
        value: NodeValue::Map(vec![services]),
        span: Span::default(),
    })
}

fn named(text: &str) -> Node {
    Node {
        value: NodeValue::Text(text.to_owned()),
        span: Span::default(),
    }
}

fn of(key: &str, value: NodeValue) -> phalanx_shared::node::Entry {
    phalanx_shared::node::Entry {
        key: Text {
            text: key.to_owned(),
            span: Span::default(),
        },
        value: Node {
            value,
            span: Span::default(),
        },
    }
}

/// Returns the patterns of the files that the services build from, mount or read.
fn workspace(
    root: &Node,
    merged: Option<&Node>,
    from: &From<'_>,
    remarks: &mut Vec<Remark>,
) -> Vec<String> {
    let mut paths = Vec::new();
    for service in services(root) {
        let service = &service.value;
        match service.get("build") {
            Some(build) if build.as_text().is_some() => paths.extend(local(build)),
            Some(build) => paths.extend(build.get("context").and_then(local)),
            None => {}
        }
        for mount in service.get("volumes").map_or(&[][..], Node::items) {
            paths.extend(match mount.get("source") {
                Some(source) => local(source),
                None => mount.as_text().and_then(|text| bind(text, mount.span)),
            });
        }
        match service.get("env_file") {
            Some(file) if file.as_text().is_some() => paths.extend(text(file)),
            Some(files) => paths.extend(
                files
                    .items()
                    .iter()
                    .filter_map(|item| text(item.get("path").unwrap_or(item))),
            ),
            None => {}
        }
    }
    for kind in ["secrets", "configs"] {
        let all = root.get(kind).map_or(&[][..], Node::entries).iter();
        paths.extend(all.filter_map(|one| text(one.value.get("file")?)));
    }
    let mut patterns = BTreeSet::new();
    for (path, span) in paths {
        if path.contains('$') {
            let why =
                format!("the path `{path}` has a variable: add its files to `workspace.include`");
            remarks.push(Remark::new(span.line, why));
            continue;
        }
        let clean = clean(&path);
        if clean.starts_with('/')
            || clean.starts_with('~')
            || clean == ".."
            || clean.starts_with("../")
        {
            let why = format!(
                "`{path}` is outside of this directory: it must be on the machine that runs the cell"
            );
            remarks.push(Remark::new(span.line, why));
            continue;
        }
        match (from.look)(&clean) {
            Some(Kind::Directory) if clean == "." => patterns.insert("**".to_owned()),
            Some(Kind::Directory) => patterns.insert(format!("{clean}/**")),
            Some(Kind::File) => patterns.insert(clean),
            None => {
                remarks.push(Remark::new(span.line, format!("`{path}` does not exist")));
                false
            }
        };
    }
    // Those of included and further files; what is wrong with them, `validate` says.
    for service in merged.into_iter().flat_map(services) {
        for needed in needed(&service.value) {
            let clean = clean(&needed.path.text);
            if clean == ".." || clean.starts_with("../") {
                continue;
            }
            match (from.look)(&clean) {
                Some(Kind::Directory) if clean == "." => patterns.insert("**".to_owned()),
                Some(Kind::Directory) => patterns.insert(format!("{clean}/**")),
                Some(Kind::File) => {
                    let is_there = patterns.iter().any(|pattern| {
                        let directory = pattern.strip_suffix("**");
                        directory.is_some_and(|directory| clean.starts_with(directory))
                    });
                    !is_there && patterns.insert(clean)
                }
                None => false,
            };
        }
    }
    if patterns.contains("**") {
        return vec!["**".to_owned()];
    }
    patterns.into_iter().collect()
}

fn services(root: &Node) -> impl Iterator<Item = &phalanx_shared::node::Entry> {
    let services = root.get("services").map_or(&[][..], Node::entries).iter();
    services.filter(|service| !service.key.text.starts_with("x-"))
}

fn text(node: &Node) -> Option<(String, Span)> {
    node.as_text().map(|text| (text.to_owned(), node.span))
}

/// Returns a path of this machine; `None` for a name (of a volume) and for an address.
fn local(node: &Node) -> Option<(String, Span)> {
    let (path, span) = text(node)?;
    let address = path.contains("://") || path.starts_with("git@");
    (!address && !path.is_empty()).then_some((path, span))
}

/// Returns the source of `SOURCE:TARGET[:MODE]`, if it is a path.
fn bind(text: &str, span: Span) -> Option<(String, Span)> {
    let (source, _) = text.split_once(':')?;
    let is_path = source.starts_with(['.', '/', '~']) || source.contains('/');
    // `${DIR:-./data}:/data`: the first colon is the variable's.
    if text.starts_with("${") {
        return Some((text.to_owned(), span));
    }
    is_path.then(|| (source.to_owned(), span))
}

fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let root = if path.starts_with('/') { "/" } else { "" };
    match (root, parts.is_empty()) {
        ("", true) => ".".to_owned(),
        _ => format!("{root}{}", parts.join("/")),
    }
}

/// A variable of the file that needs a line in the spec.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Variable {
    /// Part of an image's name, with a default: a value that a matrix can vary.
    Axis { name: String, default: String },
    /// The file refuses to go on without a value (`${NAME:?…}`).
    Needed { name: String },
}

fn variables(root: &Node, from: &From<'_>, remarks: &mut Vec<Remark>) -> Vec<Variable> {
    let mut known: BTreeSet<String> = BTreeSet::new();
    if let Some((_, text)) = from.env_file {
        let names = text
            .lines()
            .filter_map(|line| line.split_once('='))
            // An example leaves a value empty that everybody has to choose.
            .filter(|(_, value)| !value.trim().is_empty())
            .map(|(name, _)| name);
        known.extend(names.map(|name| name.trim().trim_start_matches("export ").trim().to_owned()));
    }
    let mut found: Vec<Variable> = Vec::new();
    // Names that aren't free for an axis.
    let mut axes = BTreeSet::from(["include".to_owned(), "exclude".to_owned()]);
    let most = axes.len() + MAX_AXES;
    for service in services(root) {
        let image = service.value.get("image").and_then(Node::as_text);
        for used in used(image.unwrap_or_default()) {
            let Use::Default(name, default) = used else {
                continue;
            };
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            let fits = !default.is_empty() && default.chars().all(plain) && axes.len() < most;
            if fits && axes.insert(name.to_lowercase()) && known.insert(name.clone()) {
                found.push(Variable::Axis { name, default });
            }
        }
    }
    let mut texts = Vec::new();
    all_texts(root, &mut texts);
    for (text, line) in texts {
        for used in used(text) {
            match used {
                Use::Needed(name) if known.insert(name.clone()) => {
                    remarks.push(Remark::new(
                        line,
                        format!("`{name}` has no value: the spec gives it one, choose yours"),
                    ));
                    found.push(Variable::Needed { name });
                }
                Use::Bare(name) if known.insert(name.clone()) => {
                    remarks.push(Remark::new(
                        line,
                        format!("`{name}` has no value and is empty: give it one in `stack.variables` or `stack.env-file`"),
                    ));
                }
                _ => {}
            }
        }
    }
    found
}

fn all_texts<'n>(node: &'n Node, into: &mut Vec<(&'n str, u32)>) {
    if let NodeValue::Text(text) = &node.value
        && text.contains('$')
    {
        into.push((text, node.span.line));
    }
    node.items().iter().for_each(|item| all_texts(item, into));
    node.entries()
        .iter()
        .for_each(|entry| all_texts(&entry.value, into));
}

/// How a text uses a variable.
enum Use {
    Bare(String),
    Default(String, String),
    Needed(String),
    Other,
}

/// Returns the variables that a text uses, without those inside of other variables' defaults.
fn used(text: &str) -> Vec<Use> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        rest = rest.get(at + 1..).unwrap_or_default();
        if let Some(after) = rest.strip_prefix('$') {
            rest = after;
            continue;
        }
        let braced = rest.strip_prefix('{');
        let body = braced.unwrap_or(rest);
        let end = body.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let (name, after) = body.split_at(end.unwrap_or(body.len()));
        rest = after;
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        let name = name.to_owned();
        let Some(_) = braced else {
            found.push(Use::Bare(name));
            continue;
        };
        let default = after.strip_prefix(":-").or(after.strip_prefix('-'));
        found.push(match default.and_then(|default| default.split_once('}')) {
            Some((default, _)) => Use::Default(name, default.to_owned()),
            None if after.starts_with('}') => Use::Bare(name),
            None if after.starts_with(":?") || after.starts_with('?') => Use::Needed(name),
            None => Use::Other,
        });
    }
    found
}

fn strategy(variables: &[Variable]) -> Vec<Entry> {
    let axes = variables.iter().filter_map(|variable| match variable {
        Variable::Axis { name, default } => {
            Some((name.to_lowercase(), Yaml::list([Yaml::text(default)])))
        }
        Variable::Needed { .. } => None,
    });
    let axes: Vec<_> = axes.collect();
    if axes.is_empty() {
        return Vec::new();
    }
    let above =
        "The matrix: one cell for each combination. Add the versions that are to be tested.";
    vec![remarked(
        say(above),
        "strategy",
        Yaml::map([("matrix", Yaml::map(axes))]),
    )]
}

fn stack(from: &From<'_>, variables: &[Variable]) -> Vec<Entry> {
    let files = match from.over {
        [] => Yaml::text(from.path),
        over => {
            let over = over.iter().map(Yaml::text);
            Yaml::list([Yaml::text(from.path)].into_iter().chain(over))
        }
    };
    let mut entries = vec![entry("compose", files)];
    if let Some((path, _)) = from.env_file {
        let above = "Its text is part of the submission: pass secrets by `secrets` and `variables` instead.";
        entries.push(remarked(
            vec![above.to_owned()],
            "env-file",
            Yaml::text(path),
        ));
    }
    let values = variables.iter().map(|variable| match variable {
        Variable::Axis { name, .. } => (
            name.clone(),
            Yaml::text(format!("${{{{ matrix.{} }}}}", name.to_lowercase())),
        ),
        Variable::Needed { name } => (name.clone(), Yaml::text("change-me")),
    });
    let values: Vec<_> = values.collect();
    if !values.is_empty() {
        let above = "Values of the file's variables; none comes from the machine's environment.";
        entries.push(remarked(
            vec![above.to_owned()],
            "variables",
            Yaml::map(values),
        ));
    }
    entries
}

/// Returns `ready` of the services that have a port and no health check, and the steps that wait for the services.
fn phases(root: &Node) -> (Vec<Entry>, Vec<Item>) {
    let jobs = jobs(root);
    let needed = depended_on(root);
    let mut ready = Vec::new();
    let mut waits = Vec::new();
    for service in services(root) {
        let name = service.key.text.as_str();
        let node = &service.value;
        if is_off(node) {
            continue;
        }
        if jobs.contains(name) {
            waits.push(wait(name, "ends well", Some("exited")));
            continue;
        }
        let port = published(node).filter(|_| !has_health(node));
        if let Some(port) = port {
            let tcp = Yaml::map([("tcp", Yaml::Plain(port.to_string()))]);
            ready.push(entry(name, Yaml::map([("ready", tcp)])));
        }
        let restart = node
            .get("restart")
            .and_then(Node::as_text)
            .unwrap_or_default();
        let stays = matches!(restart, "always" | "unless-stopped");
        if port.is_some() || stays || has_health(node) || needed.contains(name) {
            waits.push(wait(name, "is ready", None));
        }
    }
    if waits.is_empty() {
        let first = services(root).find(|service| !is_off(&service.value));
        waits.extend(first.map(|service| wait(&service.key.text, "has started", None)));
    }
    if waits.is_empty() {
        let first = services(root).next();
        let start = |name: &str| Item {
            above: vec!["All services have a profile, so nothing starts by itself.".to_owned()],
            value: Some(Yaml::map([
                ("name", Yaml::text(format!("{name} starts"))),
                ("container", Yaml::map([("start", Yaml::text(name))])),
                ("timeout", Yaml::text("20m")),
            ])),
        };
        waits.extend(first.map(|service| start(&service.key.text)));
    }
    (ready, waits)
}

fn wait(service: &str, what: &str, until: Option<&str>) -> Item {
    let mut wait = vec![("service", Yaml::text(service))];
    wait.extend(until.map(|until| ("until", Yaml::text(until))));
    Item {
        above: Vec::new(),
        value: Some(Yaml::map([
            ("name", Yaml::text(format!("{service} {what}"))),
            ("wait", Yaml::map(wait)),
            ("timeout", Yaml::text("20m")),
        ])),
    }
}

/// Whether a service doesn't start by itself: it has a profile, or no replicas.
fn is_off(service: &Node) -> bool {
    let none = |node: Option<&Node>| node.is_some_and(|node| node.value == NodeValue::Int(0));
    let replicas = service
        .get("deploy")
        .and_then(|deploy| deploy.get("replicas"));
    let profiles = service.get("profiles").map_or(&[][..], Node::items);
    !profiles.is_empty() || none(service.get("scale")) || none(replicas)
}

/// Returns the services that others wait for until they have ended.
fn jobs(root: &Node) -> BTreeSet<&str> {
    let mut jobs = BTreeSet::new();
    for service in services(root) {
        let on = service
            .value
            .get("depends_on")
            .map_or(&[][..], Node::entries);
        let ends = |on: &&phalanx_shared::node::Entry| {
            let condition = on.value.get("condition").and_then(Node::as_text);
            condition == Some("service_completed_successfully")
        };
        jobs.extend(on.iter().filter(ends).map(|on| on.key.text.as_str()));
    }
    jobs
}

fn depended_on(root: &Node) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for service in services(root) {
        let Some(on) = service.value.get("depends_on") else {
            continue;
        };
        names.extend(on.items().iter().filter_map(Node::as_text));
        names.extend(on.entries().iter().map(|on| on.key.text.as_str()));
    }
    names
}

fn has_health(service: &Node) -> bool {
    service.get("healthcheck").is_some_and(|check| {
        let disabled = check.get("disable").map(|node| &node.value);
        disabled != Some(&NodeValue::Bool(true)) && check.get("test").is_some()
    })
}

/// Returns the container's port of the first published TCP port.
fn published(service: &Node) -> Option<u16> {
    let first = service.get("ports")?.items().first()?;
    if let Some(target) = first.get("target") {
        let udp = first.get("protocol").and_then(Node::as_text) == Some("udp");
        return number(target).filter(|_| !udp);
    }
    number(first).or_else(|| {
        let text = first.as_text()?;
        let text = text.strip_suffix("/tcp").unwrap_or(text);
        text.rsplit(':').next()?.parse().ok()
    })
}

fn number(node: &Node) -> Option<u16> {
    match &node.value {
        NodeValue::Int(port) => u16::try_from(*port).ok().filter(|port| *port > 0),
        NodeValue::Text(text) => text.parse().ok(),
        _ => None,
    }
}

/// Returns a phase to start from, as a comment.
fn example(root: &Node) -> Option<Vec<String>> {
    let (name, _) =
        services(root).find_map(|service| Some((&service.key.text, published(&service.value)?)))?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let base = match name.chars().all(is_name) {
        true => format!("services.{name}.url"),
        false => format!("services['{name}'].url"),
    };
    Some(vec![
        "test:".to_owned(),
        format!("  - name: {name} answers"),
        format!("    http: {{ get: \"${{{{ {base} }}}}/\" }}"),
        "    expect: [status == 200]".to_owned(),
    ])
}

#[cfg(test)]
mod tests;
