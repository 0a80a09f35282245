//! Decodes a definition into a [`ServiceConfig`]. One decoder serves both cases: after evaluation it returns the
//! configuration. Before evaluation it checks the values that are known, and accepts any text with `${{ }}`.

use super::reader::Reader;
use super::{
    Build, Condition, Dependency, EnvFile, FileSource, Healthcheck, Mount, MountKind, PlacedFile,
    Port, PullPolicy, Restart, ServiceConfig, Ulimit, image, mount, port, splice,
};
use crate::diagnostic::Diagnostic;
use crate::language::keys::service::DEFINITION;
use crate::language::shape::check;
use crate::node::{Entry, Node, NodeValue};

/// Keys that also apply to a process.
const OF_PROCESS: [&str; 14] = [
    "process",
    "environment",
    "env_file",
    "working_dir",
    "ports",
    "depends_on",
    "stop_signal",
    "stop_grace_period",
    "healthcheck",
    "container_name",
    "restart",
    "networks",
    "logging",
    "init",
];

/// Decodes an evaluated definition and adds every problem to `diagnostics`. If there is one, the result is incomplete.
pub fn decode_service(
    name: &str,
    definition: &Node,
    diagnostics: &mut Vec<Diagnostic>,
) -> ServiceConfig {
    let settled = splice::settle(definition);
    check::check_table(
        &DEFINITION,
        &settled,
        &format!("the service `{name}`"),
        diagnostics,
    );
    decode(name, &settled, &mut Reader::new(diagnostics, true))
}

/// Checks a definition before evaluation. A text with `${{ }}` is accepted as any value.
pub fn check_service(name: &str, definition: &Node, diagnostics: &mut Vec<Diagnostic>) {
    let settled = splice::settle(definition);
    decode(name, &settled, &mut Reader::new(diagnostics, false));
}

fn decode(name: &str, node: &Node, read: &mut Reader<'_>) -> ServiceConfig {
    let get = |key: &str| node.get(key).filter(|node| !node.is_null());
    let limit = |key: &str| {
        let limits = get("deploy")?.get("resources")?.get("limits")?;
        limits.get(key).filter(|node| !node.is_null())
    };
    let process = get("process").map(|node| read.words(node));
    what_it_is(name, node, process.is_some(), read);
    ServiceConfig {
        name: name.to_owned(),
        span: node.span,
        image: get("image").and_then(|node| reference(node, read)),
        build: get("build").map(|node| build(node, read)),
        command: get("command").map(|node| read.words(node)),
        entrypoint: get("entrypoint").map(|node| read.words(node)),
        environment: get("environment")
            .map_or_else(Default::default, |node| read.variables(node, "environment")),
        env_file: get("env_file").map_or_else(Vec::new, |node| env_files(node, read)),
        volumes: get("volumes").map_or_else(Vec::new, |node| mounts(node, read)),
        files: all_files(node, read),
        tmpfs: get("tmpfs").map_or_else(Vec::new, |node| read.texts(node)),
        ports: get("ports").map_or_else(Vec::new, |node| ports(node, process.is_some(), read)),
        expose: get("expose").map_or_else(Vec::new, |node| read.texts(node)),
        healthcheck: get("healthcheck").map(|node| healthcheck(node, read)),
        depends_on: get("depends_on").map_or_else(Default::default, dependencies),
        user: get("user").and_then(|node| read.text(node)),
        working_dir: get("working_dir").and_then(|node| read.text(node)),
        extra_hosts: get("extra_hosts").map_or_else(Vec::new, |node| extra_hosts(node, read)),
        dns: get("dns").map_or_else(Vec::new, |node| read.texts(node)),
        hostname: get("hostname").and_then(|node| read.text(node)),
        aliases: aliases(node, read),
        init: get("init").and_then(|node| read.flag(node)),
        privileged: get("privileged")
            .and_then(|node| read.flag(node))
            .unwrap_or(false),
        cap_add: get("cap_add").map_or_else(Vec::new, |node| read.texts(node)),
        cap_drop: get("cap_drop").map_or_else(Vec::new, |node| read.texts(node)),
        devices: get("devices").map_or_else(Vec::new, |node| read.texts(node)),
        security_opt: get("security_opt").map_or_else(Vec::new, |node| read.texts(node)),
        ulimits: get("ulimits").map_or_else(Default::default, |node| {
            let limits = node.entries().iter();
            limits
                .filter_map(|entry| Some((entry.key.text.clone(), ulimit(&entry.value, read)?)))
                .collect()
        }),
        shm_size: get("shm_size").and_then(|node| read.bytes(node)),
        mem_limit: get("mem_limit")
            .or_else(|| limit("memory"))
            .and_then(|node| read.bytes(node)),
        nano_cpus: get("cpus")
            .or_else(|| limit("cpus"))
            .and_then(|node| read.nanocpus(node)),
        pids_limit: get("pids_limit")
            .or_else(|| limit("pids"))
            .and_then(|node| read.integer(node)),
        read_only: get("read_only")
            .and_then(|node| read.flag(node))
            .unwrap_or(false),
        stop_signal: get("stop_signal").and_then(|node| read.text(node)),
        stop_grace_ms: get("stop_grace_period").and_then(|node| read.milliseconds(node)),
        labels: get("labels").map_or_else(Default::default, |node| {
            let labels = read.variables(node, "labels").into_iter();
            labels
                .map(|(key, value)| (key, value.unwrap_or_default()))
                .collect()
        }),
        platform: get("platform").and_then(|node| read.text(node)),
        pull_policy: get("pull_policy")
            .and_then(|node| read.text(node))
            .map_or_else(PullPolicy::default, |policy| match policy.as_str() {
                "always" => PullPolicy::Always,
                "never" => PullPolicy::Never,
                "build" => PullPolicy::Build,
                _ => PullPolicy::Missing,
            }),
        restart: restart(node, read),
        process,
    }
}

/// Returns an image reference, after checking that the engine will accept it.
fn reference(node: &Node, read: &mut Reader<'_>) -> Option<String> {
    let text = read.text(node)?;
    let Some(problem) = image::problem(text.trim()) else {
        return Some(text);
    };
    read.report(
        node.span,
        match text.trim().is_empty() {
            true => format!("this is no image: {problem}"),
            false => format!("`{}` is no image: {problem}", check::shorten(&text)),
        },
    )
    .help = Some(match text.contains('$') {
        true => "for a value of the spec write `${{ vars.NAME }}` or `${{ inputs.NAME }}`".into(),
        false => "write `name:tag`; a key whose value is null is as if it weren't written".into(),
    });
    None
}

/// Returns the policy of `restart`, or else the one in `deploy`.
fn restart(node: &Node, read: &mut Reader<'_>) -> Restart {
    let get = |node: &Node, key: &str| {
        let found = node.get(key).filter(|node| !node.is_null());
        found.cloned()
    };
    if let Some(restart) = get(node, "restart") {
        let Some(text) = read.text(&restart) else {
            return Restart::Unsaid;
        };
        return match text.split(':').next().unwrap_or_default() {
            "no" | "false" | "" => Restart::No,
            "on-failure" => Restart::OnFailure,
            "always" | "unless-stopped" => Restart::Always,
            _ => {
                read.report(restart.span, format!("`{text}` is no restart policy"))
                    .help =
                    Some("it is `\"no\"`, `on-failure`, `always` or `unless-stopped`".into());
                Restart::Unsaid
            }
        };
    }
    let Some(deploy) = get(node, "deploy") else {
        return Restart::Unsaid;
    };
    let mode = get(&deploy, "mode").and_then(|node| read.text(&node));
    if mode.is_some_and(|mode| mode.ends_with("-job")) {
        return Restart::No;
    }
    let condition = get(&deploy, "restart_policy").and_then(|policy| get(&policy, "condition"));
    match condition.and_then(|node| read.text(&node)).as_deref() {
        Some("none") => Restart::No,
        Some("on-failure") => Restart::OnFailure,
        Some("any") => Restart::Always,
        _ => Restart::Unsaid,
    }
}

/// Returns the files of `secrets` and `configs`. If two have the same target, the later one wins.
fn all_files(node: &Node, read: &mut Reader<'_>) -> Vec<PlacedFile> {
    let mut all: Vec<PlacedFile> = Vec::new();
    for key in ["secrets", "configs"] {
        let Some(node) = node.get(key) else { continue };
        for file in files(key, node, read) {
            match all.iter_mut().find(|known| known.target == file.target) {
                Some(known) => *known = file,
                None => all.push(file),
            }
        }
    }
    all
}

/// Returns the files of `secrets` or `configs`.
fn files(key: &str, node: &Node, read: &mut Reader<'_>) -> Vec<PlacedFile> {
    let mut files = Vec::new();
    for item in node.items() {
        let get = |key: &str| item.get(key).filter(|node| !node.is_null());
        let source = match (get("file"), get("content")) {
            (Some(file), _) => {
                let Some(path) = read.filled(file) else {
                    continue;
                };
                if let Err(problem) = mount::path(&path) {
                    read.report(
                        file.span,
                        format!("`{path}` is no file of the workspace: {problem}"),
                    );
                }
                FileSource::Path(path)
            }
            (None, Some(content)) => match read.text(content) {
                Some(text) => FileSource::Text(text),
                None => continue,
            },
            (None, None) => continue,
        };
        let (Some(name), Some(target)) = (get("source"), get("target")) else {
            continue;
        };
        let (Some(name), Some(target)) = (read.text(name), read.text(target)) else {
            continue;
        };
        let uid = get("uid").and_then(|node| owner(node, read));
        let gid = get("gid").and_then(|node| owner(node, read));
        files.push(PlacedFile {
            name,
            target,
            source,
            secret: key == "secrets",
            uid,
            gid,
            mode: get("mode").and_then(|node| mode(node, read)),
        });
    }
    files
}

/// Returns the id of a user or a group.
fn owner(node: &Node, read: &mut Reader<'_>) -> Option<u32> {
    let text = read.text(node)?;
    let number = text.parse().ok();
    if number.is_none() {
        read.report(
            node.span,
            format!("`{text}` is no number of a user or group"),
        );
    }
    number
}

/// Checks that a service is either a container, with `image` or `build`, or a process.
fn what_it_is(name: &str, node: &Node, process: bool, read: &mut Reader<'_>) {
    let place = node
        .entries()
        .first()
        .map_or(node.span, |entry| entry.key.span);
    if !process {
        if !["image", "build"]
            .iter()
            .any(|key| node.get(key).is_some_and(|node| !node.is_null()))
        {
            read.report(
                place,
                format!("the service `{name}` has none of `image`, `build` or `process`"),
            )
            .help = Some(
                "`image: NAME` runs an image, `process: [command]` a program of the host".into(),
            );
        }
        return;
    }
    if node
        .get("process")
        .is_some_and(|node| node.items().is_empty() && read.is_known(node))
    {
        read.report(place, format!("the process `{name}` has no command"))
            .help = Some("`process` is a list of words, the program first".into());
    }
    for entry in node.entries() {
        let key = entry.key.text.as_str();
        if !OF_PROCESS.contains(&key)
            && !matches!(key, "image" | "build")
            && DEFINITION.key(&entry.key.text).is_some()
        {
            read.report(
                entry.key.span,
                format!("`{}` does nothing for a process", entry.key.text),
            )
            .help = Some(format!("it is for containers; `{name}` has `process`"));
        }
    }
}

fn build(node: &Node, read: &mut Reader<'_>) -> Build {
    let get = |key: &str| node.get(key).filter(|node| !node.is_null());
    let context = match node.value {
        NodeValue::Map(_) => get("context"),
        _ => Some(node),
    };
    let context_text = context
        .and_then(|node| read.filled(node))
        .unwrap_or_else(|| ".".into());
    let url = context_text.contains("://") || context_text.starts_with("git@");
    if let (false, Err(problem)) = (url, mount::path(&context_text)) {
        read.report(
            context.map_or(node.span, |node| node.span),
            format!("`{context_text}` is no build context: {problem}"),
        )
        .help = Some("it is a directory of the workspace, or a URL".into());
    }
    Build {
        context: context_text,
        dockerfile: get("dockerfile").and_then(|node| read.text(node)),
        dockerfile_inline: get("dockerfile_inline").and_then(|node| read.text(node)),
        args: get("args").map_or_else(Default::default, |node| read.variables(node, "args")),
        target: get("target").and_then(|node| read.text(node)),
        labels: get("labels").map_or_else(Default::default, |node| {
            let labels = read.variables(node, "labels").into_iter();
            labels
                .map(|(key, value)| (key, value.unwrap_or_default()))
                .collect()
        }),
        network: get("network").and_then(|node| read.text(node)),
        no_cache: get("no_cache")
            .and_then(|node| read.flag(node))
            .unwrap_or(false),
        pull: get("pull")
            .and_then(|node| read.flag(node))
            .unwrap_or(false),
    }
}

fn env_files(node: &Node, read: &mut Reader<'_>) -> Vec<EnvFile> {
    let items = match &node.value {
        NodeValue::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut files = Vec::new();
    for item in items {
        let path_node = item.get("path").unwrap_or(item);
        let Some(path) = read.filled(path_node) else {
            continue;
        };
        if let Err(problem) = mount::path(&path) {
            read.report(
                path_node.span,
                format!("`{path}` is no file of the workspace: {problem}"),
            );
        }
        let required = item
            .get("required")
            .and_then(|node| read.flag(node))
            .unwrap_or(true);
        let format = item.get("format").and_then(|node| read.text(node));
        files.push(EnvFile {
            path,
            required,
            raw: format.as_deref() == Some("raw"),
        });
    }
    files
}

/// Returns the mounts. If two have the same target, the later one wins, as in Compose.
fn mounts(node: &Node, read: &mut Reader<'_>) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = Vec::new();
    for item in node.items() {
        let mount = match item.value {
            NodeValue::Map(_) => long_mount(item, read),
            _ => read.text(item).and_then(|text| match mount::short(&text) {
                Ok(mount) => Some(mount),
                Err(unfit) => {
                    read.report(item.span, unfit.problem).help = Some(unfit.help.into());
                    None
                }
            }),
        };
        let Some(mount) = mount else { continue };
        match mounts.iter_mut().find(|known| known.target == mount.target) {
            Some(known) => *known = mount,
            None => mounts.push(mount),
        }
    }
    mounts
}

fn long_mount(node: &Node, read: &mut Reader<'_>) -> Option<Mount> {
    let target = read.text(node.get("target")?)?;
    if !target.starts_with('/') {
        read.report(
            node.get("target")?.span,
            format!("`{target}` is no absolute path"),
        );
    }
    let source_node = node.get("source").filter(|node| !node.is_null());
    let source = source_node.and_then(|node| read.text(node));
    let kind = match (node.get("type").and_then(Node::as_text)?, source) {
        ("tmpfs", _) => MountKind::Tmpfs,
        ("volume", Some(name)) => {
            if let Err(problem) = mount::volume_name(&name) {
                read.report(
                    source_node?.span,
                    format!("`{name}` is no volume: {problem}"),
                );
            }
            MountKind::Named(name)
        }
        ("volume", None) => MountKind::Anonymous,
        ("bind", Some(path)) => {
            if let Err(problem) = mount::path(&path) {
                read.report(
                    source_node?.span,
                    format!("`{path}` can't be mounted: {problem}"),
                );
            }
            MountKind::Bind(path)
        }
        (kind, _) => {
            if kind == "bind" && source_node.is_none() {
                read.report(node.get("type")?.span, "a bind mount lacks `source`".into());
            }
            return None;
        }
    };
    let memory = |key: &str| node.get("tmpfs").and_then(|node| node.get(key));
    let no_copy = node.get("volume").and_then(|node| node.get("nocopy"));
    Some(Mount {
        kind,
        target,
        read_only: node
            .get("read_only")
            .and_then(|node| read.flag(node))
            .unwrap_or(false),
        tmpfs_size: memory("size").and_then(|node| read.bytes(node)),
        tmpfs_mode: memory("mode").and_then(|node| mode(node, read)),
        no_copy: no_copy.and_then(|node| read.flag(node)) == Some(true),
    })
}

/// Parses permission bits as Compose does: `0755`, `0o755` and texts are octal, any other number is decimal.
fn mode(node: &Node, read: &mut Reader<'_>) -> Option<u32> {
    let text = read.text(node)?;
    let octal = || u32::from_str_radix(text.trim_start_matches("0o"), 8).ok();
    let bits = match node.value {
        // YAML 1.2 reads `0755` as 755, so the source is one digit longer than the number.
        NodeValue::Int(_) if node.span.len as usize == text.len() + 1 => octal(),
        NodeValue::Int(bits) => u32::try_from(bits).ok(),
        _ => octal(),
    };
    if bits.is_none_or(|bits| bits > 0o7777) {
        read.report(node.span, format!("`{text}` is no file mode"))
            .help = Some("write it in octal, as a text: `\"0755\"`".into());
        return None;
    }
    bits
}

fn ports(node: &Node, process: bool, read: &mut Reader<'_>) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for item in node.items() {
        let found = match item.value {
            NodeValue::Map(_) => long_port(item, process, read).map(|port| vec![port]),
            _ => match read.text(item) {
                None => continue,
                Some(text) if process => port::of_process(&text).map(|port| vec![port]),
                Some(text) => port::short(&text),
            },
        };
        match found {
            Ok(found) => {
                for port in found {
                    if !ports.contains(&port) {
                        ports.push(port);
                    }
                }
            }
            Err(unfit) => read.report(item.span, unfit.problem).help = Some(unfit.help.into()),
        }
    }
    ports
}

fn long_port(node: &Node, process: bool, read: &mut Reader<'_>) -> Result<Port, port::Unfit> {
    let text = |key: &str| {
        node.get(key)
            .filter(|node| !node.is_null())
            .and_then(|node| read.text(node))
    };
    let (target, name) = (text("target"), text("name"));
    let mut port = match (&target, &name) {
        (None, Some(name)) if process => port::of_process(name)?,
        (Some(target), _) if process => port::of_process(target)?,
        _ => Port {
            target: target.as_deref().map(port::target).transpose()?,
            name,
            protocol: "tcp".into(),
            app_protocol: None,
            published: text("published").filter(|host| !host.is_empty()),
        },
    };
    port.protocol = text("protocol").unwrap_or(port.protocol);
    port.app_protocol = text("app_protocol").map(|protocol| protocol.to_ascii_lowercase());
    Ok(port)
}

fn healthcheck(node: &Node, read: &mut Reader<'_>) -> Healthcheck {
    let get = |key: &str| node.get(key).filter(|node| !node.is_null());
    let mut test = match get("test") {
        None => Vec::new(),
        Some(test) => match &test.value {
            NodeValue::List(items) => {
                let words = read.texts(test);
                let first = items.first();
                let known = first.is_none_or(|node| read.is_known(node));
                if known
                    && !matches!(
                        words.first().map(String::as_str),
                        Some("CMD" | "CMD-SHELL" | "NONE")
                    )
                {
                    read.report(test.span, "a list in `test` starts with `CMD`, `CMD-SHELL` or `NONE`".into()).help =
                        Some("`[CMD, program, …]` runs a program, `[CMD-SHELL, text]` a shell; or write a text".into());
                }
                words
            }
            _ => read
                .text(test)
                .map(|text| vec!["CMD-SHELL".into(), text])
                .unwrap_or_default(),
        },
    };
    if get("disable").and_then(|node| read.flag(node)) == Some(true) {
        test = vec!["NONE".into()];
    }
    Healthcheck {
        test,
        interval_ms: get("interval").and_then(|node| read.milliseconds(node)),
        timeout_ms: get("timeout").and_then(|node| read.milliseconds(node)),
        start_period_ms: get("start_period").and_then(|node| read.milliseconds(node)),
        retries: get("retries")
            .and_then(|node| read.integer(node))
            .and_then(|retries| u32::try_from(retries).ok()),
    }
}

fn dependencies(node: &Node) -> indexmap::IndexMap<String, Dependency> {
    let one = |entry: &Entry| {
        let condition = match entry.value.get("condition").and_then(Node::as_text) {
            Some("service_healthy") => Condition::ServiceHealthy,
            Some("service_completed_successfully") => Condition::ServiceCompletedSuccessfully,
            _ => Condition::ServiceStarted,
        };
        let required =
            entry.value.get("required").map(|node| &node.value) != Some(&NodeValue::Bool(false));
        (
            entry.key.text.clone(),
            Dependency {
                condition,
                required,
            },
        )
    };
    node.entries().iter().map(one).collect()
}

/// Returns `HOST:ADDRESS` lines from a map. Lists have already been turned into maps.
fn extra_hosts(node: &Node, read: &mut Reader<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in node.entries() {
        match &entry.value.value {
            NodeValue::Null => {
                read.report(
                    entry.key.span,
                    format!("`{}` has no address", entry.key.text),
                )
                .help = Some("write `host:address`".into());
            }
            _ => lines.extend(read.texts(&entry.value).into_iter().map(|address| {
                let address = address.trim_start_matches('[').trim_end_matches(']');
                format!("{}:{address}", entry.key.text)
            })),
        }
    }
    lines
}

/// Returns `aliases`, and those under Compose's `networks`.
fn aliases(node: &Node, read: &mut Reader<'_>) -> Vec<String> {
    let mut aliases = node
        .get("aliases")
        .map_or_else(Vec::new, |node| read.texts(node));
    for network in node.get("networks").map_or(&[][..], Node::entries) {
        let more = network
            .value
            .get("aliases")
            .map_or_else(Vec::new, |node| read.texts(node));
        for alias in more {
            if !aliases.contains(&alias) {
                aliases.push(alias);
            }
        }
    }
    aliases
}

fn ulimit(node: &Node, read: &mut Reader<'_>) -> Option<Ulimit> {
    if !matches!(node.value, NodeValue::Map(_)) {
        let both = read.integer(node)?;
        return Some(Ulimit {
            soft: both,
            hard: both,
        });
    }
    Some(Ulimit {
        soft: read.integer(node.get("soft")?)?,
        hard: read.integer(node.get("hard")?)?,
    })
}
