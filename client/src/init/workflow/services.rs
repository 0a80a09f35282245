//! The services of a job, and the container that its steps run in.

use super::expression::Known;
use super::text_of;
use crate::init::draft::Remark;
use crate::init::yaml::{Entry, Yaml, entry};
use phalanx_shared::node::{Node, NodeValue};
use std::collections::BTreeSet;

/// Notes the ports of the services. `outside` says whether the job's steps reach them by ports of the runner.
pub fn note_ports(services: &Node, outside: bool, known: &mut Known) {
    for service in services.entries() {
        let name = &service.key.text;
        let ports = service.value.get("ports").map_or(&[][..], Node::items);
        for (host, inner) in ports.iter().filter_map(port) {
            known.ports.entry(name.clone()).or_default().insert(inner);
            if let Some(host) = host.filter(|_| outside) {
                known.published.insert(host, (name.clone(), inner));
            }
        }
    }
}

/// Returns the host's port, if one is given, and the container's.
fn port(node: &Node) -> Option<(Option<u16>, u16)> {
    let text = text_of(node)?;
    let text = text.strip_suffix("/tcp").unwrap_or(&text);
    let mut parts = text.rsplit(':');
    let inner = parts.next()?.parse().ok()?;
    Some((parts.next().and_then(|host| host.parse().ok()), inner))
}

/// Returns the definition of a service or container in Phalanx's words.
pub fn definition(what: &str, node: &Node, known: &Known, remarks: &mut Vec<Remark>) -> Vec<Entry> {
    let mut made = Made {
        what,
        known,
        remarks,
        entries: Vec::new(),
        environment: Vec::new(),
        health: Vec::new(),
    };
    match node.as_text() {
        Some(_) => made.single("image", node),
        None => node
            .entries()
            .iter()
            .for_each(|part| made.part(&part.key.text, &part.value)),
    }
    made.finish()
}

struct Made<'a> {
    what: &'a str,
    known: &'a Known,
    remarks: &'a mut Vec<Remark>,
    entries: Vec<Entry>,
    environment: Vec<Entry>,
    health: Vec<Entry>,
}

impl Made<'_> {
    fn part(&mut self, key: &str, value: &Node) {
        match key {
            "image" => self.single("image", value),
            "env" => {
                let mut env = environment(self.what, value, self.known, self.remarks);
                self.environment.append(&mut env);
            }
            "ports" => self.ports(value),
            "volumes" => self.list("volumes", value),
            "options" => self.options(value),
            "credentials" => self.note(
                value.span.line,
                "`credentials` are not taken over: `docker login` on the machines that pull",
            ),
            other => self.note(value.span.line, &format!("`{other}` is not taken over")),
        }
    }

    fn note(&mut self, line: u32, text: &str) {
        self.remarks
            .push(Remark::new(line, format!("{}: {text}", self.what)));
    }

    fn single(&mut self, key: &str, value: &Node) {
        match text_of(value).map(|text| self.known.text(&text)) {
            Some(Ok(text)) => self.entries.push(entry(key, Yaml::text(text))),
            Some(Err(why)) => self.note(
                value.span.line,
                &format!("`{key}` is not taken over: {why}"),
            ),
            None => self.note(value.span.line, &format!("`{key}` is no text")),
        }
    }

    fn list(&mut self, key: &str, value: &Node) {
        let mut texts = Vec::new();
        for item in value.items() {
            match text_of(item).map(|text| self.known.text(&text)) {
                Some(Ok(text)) => texts.push(Yaml::text(text)),
                Some(Err(why)) => {
                    self.note(
                        item.span.line,
                        &format!("an item of `{key}` is not taken over: {why}"),
                    );
                }
                None => self.note(item.span.line, &format!("an item of `{key}` is no text")),
            }
        }
        if !texts.is_empty() {
            self.entries.push(entry(key, Yaml::list(texts)));
        }
    }

    fn ports(&mut self, value: &Node) {
        let mut inner: BTreeSet<u16> = BTreeSet::new();
        for item in value.items() {
            match port(item) {
                Some((_, port)) => {
                    inner.insert(port);
                }
                None => self.note(
                    item.span.line,
                    "a port is not taken over: it is no TCP port number",
                ),
            }
        }
        if !inner.is_empty() {
            let ports = inner.iter().map(|port| Yaml::Plain(port.to_string()));
            self.entries.push(entry("ports", Yaml::list(ports)));
        }
    }

    /// Takes the options of `docker create` that a service has keys for.
    fn options(&mut self, value: &Node) {
        let line = value.span.line;
        let text = text_of(value).map(|text| self.known.text(&text));
        let words = match text {
            Some(Ok(text)) => shlex::split(&text),
            Some(Err(why)) => {
                return self.note(line, &format!("`options` are not taken over: {why}"));
            }
            None => None,
        };
        let Some(words) = words else {
            return self.note(
                line,
                "`options` are not taken over: they are no words of a shell",
            );
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let (name, given) = match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (word, None),
            };
            if let Some(flag) = FLAGS.iter().find(|(option, _)| *option == name) {
                self.entries
                    .push(entry(flag.1, Yaml::Plain("true".to_owned())));
                continue;
            }
            let known = OPTIONS.iter().find(|(option, _)| *option == name);
            let value = match known {
                Some(_) => given.or_else(|| words.next()),
                None => None,
            };
            match (known, value) {
                (Some((_, key)), Some(value)) => self.option(key, &value),
                _ => self.note(line, &format!("the option `{name}` is not taken over")),
            }
        }
    }

    fn option(&mut self, key: &str, value: &str) {
        let health = |key| entry(key, Yaml::text(value));
        match key {
            "test" => self.health.push(entry(
                "test",
                Yaml::list([Yaml::text("CMD-SHELL"), Yaml::text(value)]),
            )),
            "interval" => self.health.push(health("interval")),
            "timeout" => self.health.push(health("timeout")),
            "start_period" => self.health.push(health("start_period")),
            "retries" => self.health.push(entry("retries", number_or_text(value))),
            "environment" => {
                let (name, value) = value.split_once('=').unwrap_or((value, ""));
                self.environment.push(entry(name, Yaml::text(value)));
            }
            "ignored" => {}
            "cap_add" | "tmpfs" | "volumes" | "security_opt" => {
                let known = self.entries.iter_mut().find(|entry| entry.key == key);
                match known {
                    Some(Entry {
                        value: Yaml::List(items),
                        ..
                    }) => items.push(crate::init::yaml::Item {
                        above: Vec::new(),
                        value: Some(Yaml::text(value)),
                    }),
                    _ => self
                        .entries
                        .push(entry(key, Yaml::list([Yaml::text(value)]))),
                }
            }
            "cpus" => self.entries.push(entry(key, number_or_text(value))),
            key => self.entries.push(entry(key, Yaml::text(value))),
        }
    }

    fn finish(mut self) -> Vec<Entry> {
        if !self.environment.is_empty() {
            self.entries
                .push(entry("environment", Yaml::Map(unique(self.environment))));
        }
        if !self.health.is_empty() {
            self.entries
                .push(entry("healthcheck", Yaml::Map(unique(self.health))));
        }
        unique(self.entries)
    }
}

/// Options of `docker create` with a value, and the keys that they become.
const OPTIONS: [(&str, &str); 23] = [
    ("--health-cmd", "test"),
    ("--health-interval", "interval"),
    ("--health-timeout", "timeout"),
    ("--health-retries", "retries"),
    ("--health-start-period", "start_period"),
    ("-e", "environment"),
    ("--env", "environment"),
    ("--entrypoint", "entrypoint"),
    ("--user", "user"),
    ("-u", "user"),
    ("--hostname", "hostname"),
    ("-h", "hostname"),
    ("--shm-size", "shm_size"),
    ("--memory", "mem_limit"),
    ("-m", "mem_limit"),
    ("--cpus", "cpus"),
    ("--tmpfs", "tmpfs"),
    ("--cap-add", "cap_add"),
    ("--volume", "volumes"),
    ("-v", "volumes"),
    ("--security-opt", "security_opt"),
    ("--workdir", "working_dir"),
    // Names of containers are Phalanx's: each cell has its own.
    ("--name", "ignored"),
];

/// Options of `docker create` without a value.
const FLAGS: [(&str, &str); 3] = [
    ("--privileged", "privileged"),
    ("--init", "init"),
    ("--read-only", "read_only"),
];

fn number_or_text(text: &str) -> Yaml {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Yaml::Plain(number.to_string()),
        _ => Yaml::text(text),
    }
}

/// Keeps the last of the entries with one key, as `docker` does with an option that is given twice.
fn unique(entries: Vec<Entry>) -> Vec<Entry> {
    let mut kept: Vec<Entry> = Vec::new();
    for entry in entries {
        kept.retain(|other| other.key != entry.key);
        kept.push(entry);
    }
    kept
}

/// Returns variables, translated. What can't be is named in the remarks.
pub fn environment(
    what: &str,
    node: &Node,
    known: &Known,
    remarks: &mut Vec<Remark>,
) -> Vec<Entry> {
    let mut entries = Vec::new();
    if node.as_text().is_some() {
        remarks.push(Remark::new(
            node.span.line,
            format!("{what}: the environment is made by an expression: write its variables"),
        ));
    }
    for variable in node.entries() {
        let name = &variable.key.text;
        let line = variable.key.span.line;
        let text = match &variable.value.value {
            NodeValue::Null => Some(String::new()),
            _ => text_of(&variable.value),
        };
        let published = text
            .as_deref()
            .and_then(|text| known.published_as(name, text));
        match (text.as_deref().map(|text| known.text(text)), published) {
            (Some(Ok(text)), Some((service, expression))) => {
                let value = format!("${{{{ {expression} }}}}");
                remarks.push(Remark::new(
                    line,
                    format!("`{name}: {text}` is taken for where `{service}` is, and became `{value}`: each cell has its own"),
                ));
                entries.push(entry(name, Yaml::text(value)));
            }
            (Some(Ok(text)), None) => entries.push(entry(name, Yaml::text(text))),
            (Some(Err(why)), _) => remarks.push(Remark::new(
                line,
                format!("{what}: the variable `{name}` is not taken over: {why}"),
            )),
            (None, _) => remarks.push(Remark::new(
                line,
                format!("{what}: the variable `{name}` is no text"),
            )),
        }
    }
    entries
}
