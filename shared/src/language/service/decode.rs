//! Decodes a definition into a [`ServiceConfig`]. One decoder serves both cases: after evaluation it returns the
//! configuration. Before evaluation it checks the values that are known, and accepts any text with `${{ }}`.

use super::reader::Reader;
use super::{
    Build, BuildSecret, Condition, ContextSource, Dependency, EnvFile, FileSource, Healthcheck,
    Hook, Mount, MountKind, NamedContext, PlacedFile, Port, PullPolicy, Restart, ServiceConfig,
    SshAgent, Ulimit, engine, image, mount, network, port, replica, splice,
};
use crate::diagnostic::{Diagnostic, Span};
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
    let mut config = ServiceConfig {
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
        tmpfs: get("tmpfs").map_or_else(Vec::new, |node| cached(read.texts(node))),
        ports: get("ports").map_or_else(Vec::new, |node| ports(node, process.is_some(), read)),
        expose: get("expose").map_or_else(Vec::new, |node| cached(read.texts(node))),
        healthcheck: get("healthcheck").map(|node| healthcheck(node, read)),
        depends_on: get("depends_on").map_or_else(Default::default, dependencies),
        user: get("user").and_then(|node| read.text(node)),
        working_dir: get("working_dir").and_then(|node| read.text(node)),
        extra_hosts: get("extra_hosts").map_or_else(Vec::new, |node| extra_hosts(node, read)),
        dns: get("dns").map_or_else(Vec::new, |node| cached(read.texts(node))),
        hostname: get("hostname").and_then(|node| read.text(node)),
        aliases: get("aliases").map_or_else(Vec::new, |node| read.texts(node)),
        init: get("init").and_then(|node| read.flag(node)),
        privileged: get("privileged")
            .and_then(|node| read.flag(node))
            .unwrap_or(false),
        cap_add: get("cap_add").map_or_else(Vec::new, |node| cached(read.texts(node))),
        cap_drop: get("cap_drop").map_or_else(Vec::new, |node| cached(read.texts(node))),
        devices: get("devices").map_or_else(Vec::new, |node| cached(read.texts(node))),
        security_opt: get("security_opt").map_or_else(Vec::new, |node| cached(read.texts(node))),
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
        post_start: get("post_start").map_or_else(Vec::new, |node| hooks(node, read)),
        pre_stop: get("pre_stop").map_or_else(Vec::new, |node| hooks(node, read)),
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
        process,
        ..ServiceConfig::default()
    };
    restart(node, &mut config, read);
    config.engine = engine::options(node, read);
    config.networks =
        get("networks").map_or_else(Default::default, |node| network::networks(node, read));
    let joins = !config.networks.is_empty();
    if let Some(node) = get("network_mode") {
        config.network_mode = network::mode(node, joins, read);
    }
    config.replicas = replica::read_replicas(node, read);
    if config.replicas.is_some_and(|count| count > 1) {
        one_each(node, read);
    }
    config
}

/// Reports what only one container can have.
fn one_each(node: &Node, read: &mut Reader<'_>) {
    let mut taken: Vec<(Span, &str)> = Vec::new();
    let networks = node.get("networks").map_or(&[][..], Node::entries);
    for settings in networks.iter().map(|entry| &entry.value).chain([node]) {
        for key in ["ipv4_address", "ipv6_address", "mac_address"] {
            let fixed = settings.get(key).filter(|node| !node.is_null());
            taken.extend(fixed.map(|node| (node.span, key)));
        }
    }
    for (span, key) in taken {
        read.report(
            span,
            format!("`{key}` of a service with several replicas: only one can have it"),
        )
        .help = Some("leave it out: each replica gets its own, and is reached by name".into());
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

/// Sets the restart policy: that of `deploy.restart_policy`, or else that of `restart`, as Compose does.
fn restart(node: &Node, config: &mut ServiceConfig, read: &mut Reader<'_>) {
    fn get<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
        node.get(key).filter(|node| !node.is_null())
    }
    let deploy = get(node, "deploy");
    let mode = deploy.and_then(|deploy| get(deploy, "mode"));
    if let Some(policy) = deploy.and_then(|deploy| get(deploy, "restart_policy")) {
        let condition = get(policy, "condition").and_then(|node| read.text(node));
        config.restart = match condition.as_deref() {
            Some("none") => Restart::No,
            Some("on-failure") => Restart::OnFailure,
            _ => Restart::Always,
        };
        config.restart_attempts = get(policy, "max_attempts")
            .and_then(|node| attempts(node, read))
            .filter(|most| *most > 0);
        config.restart_delay_ms = get(policy, "delay").and_then(|node| read.milliseconds(node));
        return;
    }
    if let Some(policy) = get(node, "restart") {
        (config.restart, config.restart_attempts) = short_restart(policy, read);
    } else if mode
        .and_then(|mode| read.text(mode))
        .is_some_and(|mode| mode.ends_with("-job"))
    {
        config.restart = Restart::No;
    }
}

/// Parses `no`, `always`, `unless-stopped` or `on-failure[:N]`.
fn short_restart(node: &Node, read: &mut Reader<'_>) -> (Restart, Option<u32>) {
    let Some(text) = read.text(node) else {
        return (Restart::Unsaid, None);
    };
    let (policy, most) = match text.split_once(':') {
        Some((policy, most)) => (policy, Some(most)),
        None => (text.as_str(), None),
    };
    let number = most.map(|most| most.parse::<u32>().ok());
    let restart = match (policy, number) {
        ("no" | "false" | "", None) => Restart::No,
        ("always" | "unless-stopped", None) => Restart::Always,
        ("on-failure", None | Some(Some(_))) => Restart::OnFailure,
        _ => {
            read.report(node.span, format!("`{text}` is no restart policy"))
                .help = Some(
                "it is `\"no\"`, `on-failure`, `on-failure:N`, `always` or `unless-stopped`".into(),
            );
            Restart::Unsaid
        }
    };
    // Docker reads `on-failure:0` as without a limit.
    (restart, number.flatten().filter(|most| *most > 0))
}

/// Returns a number of attempts.
fn attempts(node: &Node, read: &mut Reader<'_>) -> Option<u32> {
    let number = read.integer(node)?;
    let most = u32::try_from(number).ok();
    if most.is_none() {
        read.report(node.span, format!("`{number}` is no number of attempts"))
            .help = Some("write a number from 0; 0 means without a limit".into());
    }
    most
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
        let Some(source) = text_source(item, read) else {
            continue;
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
        secrets: get("secrets").map_or_else(Vec::new, |node| build_secrets(node, read)),
        ssh: get("ssh").map_or_else(Vec::new, |node| ssh_agents(node, read)),
        extra_hosts: get("extra_hosts").map_or_else(Vec::new, |node| extra_hosts(node, read)),
        shm_size: get("shm_size").and_then(|node| read.bytes(node)),
        cache_from: get("cache_from").map_or_else(Vec::new, |node| cached(read.texts(node))),
        contexts: get("additional_contexts").map_or_else(Vec::new, |node| contexts(node, read)),
    }
}

/// Returns the further contexts of a build.
fn contexts(node: &Node, read: &mut Reader<'_>) -> Vec<NamedContext> {
    let mut contexts = Vec::new();
    for entry in node.entries() {
        let (key, node) = (&entry.key, &entry.value);
        if !is_stage(&key.text) {
            read.report(
                key.span,
                format!("`{}` can't be the name of a context here", key.text),
            )
            .help = Some(
                "it becomes a stage of the Dockerfile: lower-case letters, digits, `.`, `_` and `-`, a letter first".into(),
            );
        }
        let Some(text) = read.filled(node) else {
            continue;
        };
        let source = match text.split_once(':') {
            Some(("service", name)) => ContextSource::Service {
                name: name.to_owned(),
                of: None,
            },
            Some(("docker-image", image)) => {
                let image = image.trim_start_matches("//");
                if let Some(problem) = image::problem(image) {
                    read.report(node.span, format!("`{image}` is no image: {problem}"));
                }
                ContextSource::Image(image.to_owned())
            }
            found
                if text.contains("://")
                    || text.starts_with("git@")
                    || matches!(found, Some(("oci-layout" | "target" | "ssh", _))) =>
            {
                read.report(node.span, format!("`{text}` is not fetched"))
                    .help = Some(
                    "a further context is a directory of the workspace, `docker-image://NAME` or `service:NAME`"
                        .into(),
                );
                continue;
            }
            _ => {
                if let Err(problem) = mount::path(&text) {
                    read.report(
                        node.span,
                        format!("`{text}` is no build context: {problem}"),
                    );
                }
                ContextSource::Directory(text)
            }
        };
        contexts.push(NamedContext {
            name: key.text.clone(),
            source,
        });
    }
    contexts
}

/// Returns whether a stage of a Dockerfile can have this name.
fn is_stage(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-'))
}

/// Returns the images among the sources of a cache. The engine takes no other kind (`type=local,…`); a cache makes no
/// difference to the result.
fn cached(sources: Vec<String>) -> Vec<String> {
    let image = |source: String| match source.split_once("ref=") {
        Some((_, image)) => image.split(',').next().map(str::to_owned),
        None => (!source.contains('=')).then_some(source),
    };
    sources.into_iter().filter_map(image).collect()
}

/// Returns the secrets of a build.
fn build_secrets(node: &Node, read: &mut Reader<'_>) -> Vec<BuildSecret> {
    let mut secrets = Vec::new();
    for item in node.items() {
        let get = |key: &str| item.get(key).filter(|node| !node.is_null());
        let name = get("target").or(get("source")).unwrap_or(item);
        let Some(id) = read.filled(name) else {
            continue;
        };
        match text_source(item, read) {
            Some(source) => secrets.push(BuildSecret { id, source }),
            None if read.is_known(item) => {
                read.report(item.span, format!("the secret `{id}` has no text"))
                    .help = Some(
                    "give it one: `{ source: NAME, content: \"${{ secrets.NAME }}\" }`, or `file` instead of `content`"
                        .into(),
                );
            }
            None => {}
        }
    }
    secrets
}

/// Returns the SSH agents of a build. The path of a socket is never taken from the agent's environment (I5).
fn ssh_agents(node: &Node, read: &mut Reader<'_>) -> Vec<SshAgent> {
    let mut agents = Vec::new();
    let items = match &node.value {
        NodeValue::List(items) => items.as_slice(),
        NodeValue::Map(_) => &[],
        _ => std::slice::from_ref(node),
    };
    let mut texts: Vec<(Span, String)> = Vec::new();
    for item in items {
        texts.extend(read.filled(item).map(|text| (item.span, text)));
    }
    for entry in node.entries() {
        let socket = read.text(&entry.value).unwrap_or_default();
        texts.push((entry.value.span, format!("{}={socket}", entry.key.text)));
    }
    for (span, text) in texts {
        match text.split_once('=') {
            Some((id, socket)) if socket.starts_with('/') => agents.push(SshAgent {
                id: id.to_owned(),
                socket: socket.to_owned(),
            }),
            _ => {
                read.report(span, format!("`{text}` names no socket of an SSH agent"))
                    .help = Some(
                    "write `ID=/path/of/the/socket`, a path on the agent's host; its environment is not read"
                        .into(),
                );
            }
        }
    }
    agents
}

/// Returns `file` or `content` of a secret or config.
fn text_source(item: &Node, read: &mut Reader<'_>) -> Option<FileSource> {
    let get = |key: &str| item.get(key).filter(|node| !node.is_null());
    if let Some(content) = get("content").filter(|_| get("file").is_none()) {
        return read.text(content).map(FileSource::Text);
    }
    let file = get("file")?;
    let path = read.filled(file)?;
    if let Err(problem) = mount::path(&path) {
        read.report(
            file.span,
            format!("`{path}` is no file of the workspace: {problem}"),
        );
    }
    Some(FileSource::Path(path))
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
    let bind = node.get("bind").and_then(|bind| bind.get("propagation"));
    let propagation = bind.and_then(|node| read.text(node)?.parse().ok());
    if let Some(why) = propagation.and_then(|found| mount::not_propagated(&kind, found)) {
        let span = bind.map_or(node.span, |bind| bind.span);
        read.report(span, format!("`propagation` does nothing here: {why}"));
    }
    let subpath_node = node.get("volume").and_then(|volume| volume.get("subpath"));
    let subpath = subpath_node.and_then(|node| read.text(node));
    if let Some(path) = &subpath {
        let problem = match &kind {
            MountKind::Named(_) | MountKind::Anonymous => mount::subpath(path).err(),
            _ => Some("only a volume has one".to_owned()),
        };
        if let (Some(problem), Some(node)) = (problem, subpath_node) {
            read.report(node.span, format!("`{path}` is no subpath: {problem}"));
        }
    }
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
        subpath,
        propagation,
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
        start_interval_ms: get("start_interval").and_then(|node| read.milliseconds(node)),
        start_period_ms: get("start_period").and_then(|node| read.milliseconds(node)),
        retries: get("retries")
            .and_then(|node| read.integer(node))
            .and_then(|retries| u32::try_from(retries).ok()),
    }
}

fn hooks(node: &Node, read: &mut Reader<'_>) -> Vec<Hook> {
    let items = node.items().iter();
    items.filter_map(|item| hook(item, read)).collect()
}

fn hook(node: &Node, read: &mut Reader<'_>) -> Option<Hook> {
    let get = |key: &str| node.get(key).filter(|node| !node.is_null());
    let said = get("command")?;
    let command = read.words(said);
    if command.is_empty() && read.is_known(said) && said.items().iter().all(|w| read.is_known(w)) {
        read.report(said.span, "the hook has no command".into())
            .help = Some("`command` is a list of words, the program first, or a text".into());
    }
    let environment = get("environment").map(|node| read.variables(node, "environment"));
    let environment = environment.unwrap_or_default().into_iter();
    Some(Hook {
        command,
        user: get("user").and_then(|node| read.text(node)),
        privileged: get("privileged").and_then(|node| read.flag(node)) == Some(true),
        working_dir: get("working_dir").and_then(|node| read.text(node)),
        environment: environment
            .filter_map(|(name, value)| Some((name, value?)))
            .collect(),
    })
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
        let restart =
            entry.value.get("restart").map(|node| &node.value) == Some(&NodeValue::Bool(true));
        (
            entry.key.text.clone(),
            Dependency {
                condition,
                required,
                restart,
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
