//! What definitions and steps need of the machine that runs them, beyond their own containers and their workspace.

use super::rule::Rule;
use crate::language::model::{Action, DefineBody, Spec, Step};
use crate::language::service::image::is_host;
use crate::language::service::{
    Build, ContextSource, EngineOptions, FileSource, MountKind, NamedContext, NetworkMode,
    NetworkUse, Propagation, ServiceConfig,
};
use core::fmt;
use std::collections::BTreeSet;

/// Capabilities that engines give every container.
const USUAL: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Sockets of engines, at their usual places.
const SOCKETS: [&str; 6] = [
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/var/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/var/run/podman/podman.sock",
];

/// Docker Hub.
const HUB: &str = "docker.io";
/// `gpus`, as an item of [`Rule::Devices`].
const GPU: &str = "gpu";

/// Something that a spec needs of its machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Need {
    /// The rule that decides.
    pub rule: Rule,
    /// What is needed, as an item of the rule; empty for switches.
    pub what: String,
}

impl Need {
    /// Creates a need.
    pub fn new(rule: Rule, what: impl Into<String>) -> Need {
        let what = what.into();
        Need { rule, what }
    }

    /// Creates the need of a command on the host.
    pub fn run() -> Need {
        Need::new(Rule::Run, "")
    }

    /// Creates the need of a path of the host. `None` for a relative path, which stays in the workspace.
    pub fn path(written: &str) -> Option<Need> {
        written
            .starts_with('/')
            .then(|| Need::new(Rule::Paths, plain(written)))
    }

    /// Creates the need of an image's registry. `None` for an engine's id, which is in no registry.
    pub fn image(reference: &str) -> Option<Need> {
        if reference.is_empty() || crate::language::service::image::is_id(reference) {
            return None;
        }
        Some(Need::new(Rule::Registries, registry(reference)))
    }

    /// Creates the need of a URL that the engine fetches for a build.
    pub fn build_url(url: &str) -> Need {
        let host = remote(url).or_else(|| url.split_once('@')?.1.split(':').next());
        Need::new(Rule::BuildUrls, host.unwrap_or(url))
    }

    /// Returns the item that would allow it.
    pub fn item(&self) -> &str {
        &self.what
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = &self.what;
        match self.rule {
            Rule::Run => f.write_str("commands and processes on its host"),
            Rule::Environment => write!(f, "the variable {what} of the agent"),
            Rule::Paths => write!(f, "the path {what} of its host"),
            Rule::EngineSocket => f.write_str("the container engine's socket"),
            Rule::NestedMounts => {
                f.write_str("a mount below a directory that another service may write to")
            }
            Rule::Privileged => f.write_str("`privileged: true`"),
            Rule::Capabilities => write!(f, "capability {what}"),
            Rule::Devices if what == GPU => f.write_str("`gpus`"),
            Rule::Devices => write!(f, "device {what}"),
            Rule::SecurityOpt => write!(f, "`security_opt: {what}`"),
            Rule::Namespaces => write!(f, "the {what} namespace of its host"),
            Rule::CgroupParent => write!(f, "`cgroup_parent: {what}`"),
            Rule::Runtimes => write!(f, "`runtime: {what}`"),
            Rule::NetworkOptions => write!(f, "network option {what}"),
            Rule::EngineOptions => write!(f, "`{what}`"),
            Rule::Registries => write!(f, "images of registry {what}"),
            Rule::BuildUrls => write!(f, "builds that fetch from {what}"),
            Rule::Http => write!(f, "requests to {what}"),
        }
    }
}

/// Returns the usual spelling of a capability: upper case, without `CAP_`.
pub(super) fn capability(text: &str) -> String {
    let upper = text.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
}

/// Returns the registry of an image reference.
pub fn registry(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((host, _)) if is_host(host) => match host {
            "index.docker.io" | "registry-1.docker.io" => HUB,
            host => host,
        },
        _ => HUB,
    }
}

/// Returns a path without `.`, `..` and doubled slashes, by its names only.
pub fn plain(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// Returns what the definition of a service needs, once each. Every field is looked at here, so that a new one can't be
/// forgotten.
pub fn of_service(config: &ServiceConfig) -> Vec<Need> {
    let ServiceConfig {
        name: _,
        replica_of: _,
        replicas: _,
        span: _,
        process,
        image,
        build,
        command: _,
        entrypoint: _,
        environment: _,
        env_file,
        volumes,
        files,
        tmpfs: _,
        ports: _,
        expose: _,
        healthcheck: _,
        depends_on: _,
        user: _,
        working_dir,
        extra_hosts: _,
        dns: _,
        hostname: _,
        aliases: _,
        networks,
        network_mode,
        engine,
        init: _,
        privileged,
        cap_add,
        cap_drop: _,
        devices,
        security_opt,
        ulimits: _,
        shm_size: _,
        mem_limit: _,
        nano_cpus: _,
        pids_limit: _,
        read_only: _,
        stop_signal: _,
        stop_grace_ms: _,
        post_start,
        pre_stop,
        labels: _,
        platform: _,
        pull_policy: _,
        restart: _,
        restart_attempts: _,
        restart_delay_ms: _,
    } = config;
    let mut needs = Needs::default();
    for file in env_file {
        needs.path(&file.path);
    }
    if process.is_some() {
        needs.add(Rule::Run, "");
        // In a container it is a path of the container.
        working_dir.iter().for_each(|path| needs.path(path));
        return needs.done();
    }
    for mount in volumes {
        match &mount.kind {
            MountKind::Bind(path) => needs.path(path),
            MountKind::Named(_) | MountKind::Anonymous | MountKind::Tmpfs => {}
        }
        if mount.propagation.is_some_and(Propagation::reaches_host) {
            needs.add(Rule::Namespaces, "mount");
        }
    }
    for file in files {
        needs.source(&file.source);
    }
    match build {
        // With a build, `image` only names its result.
        Some(build) => needs.build(build),
        None => needs.extend(image.as_deref().and_then(Need::image)),
    }
    let mut hooks = post_start.iter().chain(pre_stop);
    if *privileged || hooks.any(|hook| hook.privileged) {
        needs.add(Rule::Privileged, "");
    }
    for name in cap_add {
        let name = capability(name);
        if !USUAL.contains(&name.as_str()) {
            needs.add(Rule::Capabilities, &name);
        }
    }
    for device in devices {
        needs.add(Rule::Devices, device.split(':').next().unwrap_or(device));
    }
    for option in security_opt {
        let harmless = [
            "no-new-privileges",
            "no-new-privileges:true",
            "no-new-privileges=true",
        ];
        if !harmless.contains(&option.as_str()) {
            needs.add(Rule::SecurityOpt, option);
        }
    }
    match network_mode {
        NetworkMode::Host => needs.add(Rule::Namespaces, "network"),
        NetworkMode::Networks | NetworkMode::None | NetworkMode::Service(_) => {}
    }
    networks.values().for_each(|used| needs.network(used));
    needs.engine(engine);
    needs.done()
}

/// Needs, once each.
#[derive(Default)]
struct Needs(BTreeSet<Need>);

impl Needs {
    fn done(self) -> Vec<Need> {
        self.0.into_iter().collect()
    }

    fn add(&mut self, rule: Rule, what: &str) {
        self.0.insert(Need::new(rule, what));
    }

    fn extend(&mut self, needs: impl IntoIterator<Item = Need>) {
        self.0.extend(needs);
    }

    fn path(&mut self, written: &str) {
        let Some(need) = Need::path(written) else {
            return;
        };
        let socket = |socket: &&str| std::path::Path::new(socket).starts_with(&need.what);
        // A directory above the socket gives it away as well.
        if SOCKETS.iter().any(socket) {
            self.add(Rule::EngineSocket, "");
        }
        self.extend([need]);
    }

    fn source(&mut self, source: &FileSource) {
        match source {
            FileSource::Path(path) => self.path(path),
            FileSource::Text(_) => {}
        }
    }

    fn build(&mut self, build: &Build) {
        let Build {
            context,
            dockerfile: _,
            dockerfile_inline: _,
            args: _,
            target: _,
            labels: _,
            network,
            no_cache: _,
            pull: _,
            secrets,
            ssh,
            extra_hosts: _,
            shm_size: _,
            cache_from,
            contexts,
        } = build;
        match remote(context) {
            Some(host) => self.add(Rule::BuildUrls, host),
            None => self.path(context),
        }
        match network.as_deref() {
            None | Some("" | "default" | "none" | "bridge") => {}
            Some("host") => self.add(Rule::Namespaces, "network"),
            // A network of another cell, for example.
            Some(other) => self.add(Rule::NetworkOptions, other),
        }
        for secret in secrets {
            self.source(&secret.source);
        }
        for agent in ssh {
            self.path(&agent.socket);
        }
        for image in cache_from {
            self.extend(Need::image(image));
        }
        for NamedContext { name: _, source } in contexts {
            match source {
                ContextSource::Directory(path) => self.path(path),
                ContextSource::Image(image) => self.extend(Need::image(image)),
                ContextSource::Service { name: _, of } => {
                    if let Some(of) = of {
                        self.extend(of_service(of));
                    }
                }
            }
        }
    }

    fn network(&mut self, used: &NetworkUse) {
        let options = used.driver_opts.keys();
        for option in options.chain(used.network.driver_opts.keys()) {
            self.add(Rule::NetworkOptions, option);
        }
    }

    fn engine(&mut self, engine: &EngineOptions) {
        let EngineOptions {
            sysctls: _,
            runtime,
            stdin_open: _,
            tty: _,
            pid,
            ipc,
            uts,
            userns_mode,
            cgroup,
            cgroup_parent,
            gpus,
            group_add: _,
            mac_address: _,
            dns_opt: _,
            dns_search: _,
            domainname: _,
            oom_score_adj,
            oom_kill_disable,
            mem_reservation: _,
            memswap_limit: _,
            mem_swappiness: _,
            cpu_count: _,
            cpu_period: _,
            cpu_quota: _,
            cpu_rt_period,
            cpu_rt_runtime,
            cpu_shares: _,
            cpuset: _,
            blkio: _,
            device_cgroup_rules,
            storage_opt,
            annotations,
            volumes_from: _,
            label_files,
        } = engine;
        for (name, mode) in [
            ("pid", pid),
            ("ipc", ipc),
            ("uts", uts),
            ("userns", userns_mode),
            ("cgroup", cgroup),
        ] {
            if mode.as_deref() == Some("host") {
                self.add(Rule::Namespaces, name);
            }
        }
        for (rule, value) in [
            (Rule::CgroupParent, cgroup_parent),
            (Rule::Runtimes, runtime),
        ] {
            if let Some(value) = value {
                self.add(rule, value);
            }
        }
        if !gpus.is_empty() {
            self.add(Rule::Devices, GPU);
        }
        for rule in device_cgroup_rules {
            self.add(Rule::Devices, rule);
        }
        for (name, used) in [
            // A container that is killed first harms nobody.
            (
                "oom_score_adj",
                oom_score_adj.is_some_and(|score| score < 0),
            ),
            ("oom_kill_disable", *oom_kill_disable == Some(true)),
            ("cpu_rt_period", cpu_rt_period.is_some()),
            ("cpu_rt_runtime", cpu_rt_runtime.is_some()),
            ("storage_opt", !storage_opt.is_empty()),
            ("annotations", !annotations.is_empty()),
        ] {
            if used {
                self.add(Rule::EngineOptions, name);
            }
        }
        for file in label_files {
            self.path(file);
        }
    }
}

/// Returns the host of a build context that the engine fetches, or `None` if it is a directory.
pub fn remote(context: &str) -> Option<&str> {
    let rest = match context.split_once("://") {
        Some((_, rest)) => rest,
        None if context.starts_with("github.com/") => context,
        None => context.strip_prefix("git@")?,
    };
    let host = rest.split(['/', '#', '?']).next().unwrap_or(rest);
    let host = host.rsplit('@').next().unwrap_or(host);
    // `git@host:path`; a port isn't told apart.
    match host.starts_with('[') {
        true => Some(host),
        false => host.split(':').next(),
    }
}

/// Returns what the steps of a spec need, as far as each cell surely comes to it: not what stands under a condition, in
/// a loop, or in a define that nothing uses.
pub fn of_spec(spec: &Spec) -> Vec<Need> {
    let mut used = BTreeSet::new();
    let phases = spec.phases.iter().filter(|phase| phase.when.is_none());
    let runs = phases.flat_map(|phase| &phase.steps);
    let mut runs = runs.filter(|step| surely_runs(spec, step, &mut used));
    runs.next().map(|_| Need::run()).into_iter().collect()
}

fn surely_runs<'s>(spec: &'s Spec, step: &'s Step, used: &mut BTreeSet<&'s str>) -> bool {
    if step.when.is_some() || step.foreach.is_some() {
        return false;
    }
    match &step.action {
        Action::Run(_) => true,
        Action::Steps(steps) | Action::Parallel(steps) => {
            steps.iter().any(|step| surely_runs(spec, step, used))
        }
        Action::Use(of) if used.insert(of.define.text.as_str()) => {
            let define = spec.define.iter().find(|d| d.name.text == of.define.text);
            match define.map(|define| &define.body) {
                Some(DefineBody::Steps { steps, .. }) => {
                    steps.iter().any(|step| surely_runs(spec, step, used))
                }
                _ => false,
            }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::language::parse::parse;
    use crate::language::service::decode_service;

    fn needs(text: &str) -> Vec<String> {
        let mut problems = Vec::new();
        let node = parse(0, text, &mut problems).unwrap();
        let config = decode_service("s", &node, &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        let needs = of_service(&config);
        let named = needs.iter();
        named
            .map(|need| {
                format!("{} {}", need.rule.name(), need.what)
                    .trim()
                    .to_owned()
            })
            .collect()
    }

    #[test]
    fn an_ordinary_service_needs_only_its_registry() {
        let text = "image: postgres:17\nvolumes: ['./a:/a', 'v:/v', '/x']\nenv_file: [a.env]\ncap_drop: [ALL]\ncap_add: [CHOWN, cap_net_bind_service]\nsecurity_opt: ['no-new-privileges:true']\nipc: shareable\noom_score_adj: 500\nworking_dir: /srv\n";
        assert_eq!(needs(text), ["registries docker.io"]);
        assert_eq!(
            needs("build: ./app\nimage: ghcr.io/me/app:1"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn every_way_to_the_host_is_a_need() {
        for (text, need) in [
            ("image: a\nprivileged: true", "privileged"),
            (
                "image: a\ncap_add: [CAP_SYS_ADMIN]",
                "capabilities SYS_ADMIN",
            ),
            ("image: a\ncap_add: [all]", "capabilities ALL"),
            (
                "image: a\ndevices: ['/dev/kvm:/dev/kvm:rw']",
                "devices /dev/kvm",
            ),
            (
                "image: a\ndevice_cgroup_rules: ['c 1:3 mr']",
                "devices c 1:3 mr",
            ),
            ("image: a\ngpus: all", "devices gpu"),
            (
                "image: a\nsecurity_opt: ['seccomp:unconfined']",
                "security_opt seccomp:unconfined",
            ),
            ("image: a\nnetwork_mode: host", "namespaces network"),
            ("image: a\npid: host", "namespaces pid"),
            ("image: a\nipc: host", "namespaces ipc"),
            ("image: a\nuts: host", "namespaces uts"),
            ("image: a\nuserns_mode: host", "namespaces userns"),
            ("image: a\ncgroup: host", "namespaces cgroup"),
            ("image: a\nvolumes: ['/x:/x:rshared']", "namespaces mount"),
            (
                "image: a\npost_start: [{ command: x, privileged: true }]",
                "privileged",
            ),
            (
                "build: { context: ., additional_contexts: [a=/etc] }",
                "paths /etc",
            ),
            (
                "build: { context: ., additional_contexts: ['b=docker-image://ghcr.io/x'] }",
                "registries ghcr.io",
            ),
            ("image: a\ncgroup_parent: /x", "cgroup_parent /x"),
            ("image: a\nruntime: runc2", "runtimes runc2"),
            (
                "image: a\noom_score_adj: -1",
                "engine_options oom_score_adj",
            ),
            ("image: a\nvolumes: ['/etc/../root:/r']", "paths /root"),
            (
                "image: a\nvolumes: ['/run/docker.sock:/s']",
                "engine_socket",
            ),
            ("image: a\nvolumes: ['/:/s']", "engine_socket"),
            ("image: a\nenv_file: /etc/x", "paths /etc/x"),
            ("image: a\nlabel_file: [/etc/x]", "paths /etc/x"),
            ("build: /etc", "paths /etc"),
            ("build: { context: ., network: host }", "namespaces network"),
            (
                "build: { context: ., network: 'container:x' }",
                "network_options container:x",
            ),
            (
                "build: 'https://me@git.example:8080/x.git'",
                "build_urls git.example",
            ),
            ("build: 'git@git.example:x.git'", "build_urls git.example"),
            ("image: 'localhost:5000/x'", "registries localhost:5000"),
            ("image: ghcr.io/a/b", "registries ghcr.io"),
            ("process: [x]", "run"),
            ("process: [x]\nworking_dir: /srv", "paths /srv"),
            ("process: [x]\nenv_file: [/etc/x]", "paths /etc/x"),
        ] {
            let found = needs(text);
            assert!(found.iter().any(|found| found == need), "{text}: {found:?}");
        }
    }

    #[test]
    fn paths_are_compared_without_detours() {
        for (written, right) in [
            ("/", "/"),
            ("//a/./b/", "/a/b"),
            ("/a/../../b", "/b"),
            ("/a/b/..", "/a"),
        ] {
            assert_eq!(plain(written), right);
        }
        assert_eq!(Need::path("./a"), None);
    }
}
