#![allow(clippy::unwrap_used)]
use super::*;

fn load_text(text: &str) -> Loaded {
    let main = Source {
        name: "spec.yaml".into(),
        text: text.into(),
    };
    load(main, &mut |path| Err(format!("no {path} here")))
}

fn read_spec(name: &str) -> String {
    let path = format!("{}/tests/specs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_sketch_of_the_whole_proxbox_flow_is_a_spec() {
    let loaded = load_text(&read_spec("proxbox.yaml"));
    assert_eq!(loaded.diagnostics, vec![]);
    let spec = loaded.spec.unwrap();
    assert_eq!(
        (spec.services.len(), spec.coverage.len(), spec.phases.len()),
        (7, 16, 7)
    );
    let worker = spec
        .services
        .iter()
        .find(|service| service.name.text == "rqworker")
        .unwrap();
    assert!(worker.manual && worker.ready.is_none());
    let keys: Vec<&str> = worker
        .definition
        .entries()
        .iter()
        .map(|entry| entry.key.text.as_str())
        .collect();
    assert_eq!(
        keys,
        [
            "image",
            "entrypoint",
            "command",
            "environment",
            "volumes",
            "depends_on",
            "ports"
        ]
    );
}

#[test]
fn the_example_of_the_language_s_page_is_a_spec() {
    let loaded = load_text(&read_spec("shop.yaml"));
    assert_eq!(loaded.diagnostics, vec![]);
    let spec = loaded.spec.unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&spec.phases).unwrap());
}

#[test]
fn services_that_wait_for_each_other_are_found() {
    let loaded = load_text(
        "phases: { p: [{ expect: true }] }\nservices:\n  a: { image: x, depends_on: [b] }\n  b: { image: x, depends_on: { c: {} } }\n  c: { image: x, depends_on: [a, x, c] }\n",
    );
    let messages: Vec<String> = loaded
        .diagnostics
        .iter()
        .map(|d| d.message.clone())
        .collect();
    assert_eq!(
        messages,
        [
            "services wait for each other in a circle: a → b → c → a",
            "there is no service `x` to depend on",
            "services wait for each other in a circle: c → c",
        ]
    );
}

/// Returns the messages for a spec with one included file.
fn with_part(part: Result<&str, &str>) -> Vec<String> {
    let main = Source {
        name: "spec.yaml".into(),
        text: "include: [part.yaml]\nphases:\n  assert:\n    - { use: order }\n    - { http: { get: \"${{ services.shop.url }}/\", sesion: none } }\n".into(),
    };
    let read = |name: &str| match part {
        Ok(text) => Ok(Source {
            name: name.into(),
            text: text.into(),
        }),
        Err(problem) => Err(problem.to_owned()),
    };
    let loaded = load(main, &mut |name| read(name));
    assert_eq!(loaded.spec, None);
    loaded.diagnostics.into_iter().map(|d| d.message).collect()
}

#[test]
fn names_of_a_file_that_cannot_be_read_are_not_reported_as_missing() {
    let broken = with_part(Ok("define: { order: { steps: [{ name: a: b }] } }"));
    let missing = with_part(Err("no such file"));
    for (messages, cause) in [(&broken, "not YAML"), (&missing, "can't read `part.yaml`")] {
        assert!(messages.iter().any(|m| m.contains(cause)), "{messages:?}");
        assert!(
            messages.iter().any(|m| m.contains("sesion")),
            "{messages:?}"
        );
        assert_eq!(messages.len(), 2, "{messages:?}");
    }
    let empty = with_part(Ok("define: {}"));
    assert!(empty.iter().any(|m| m.contains("`order`")), "{empty:?}");
    assert!(empty.iter().any(|m| m.contains("`shop`")), "{empty:?}");
}

/// Loads a Compose file together with further lines of a spec.
fn with_compose(compose: &str, further: &str) -> Loaded {
    let main = Source {
        name: "spec.yaml".into(),
        text: format!("phases: {{ p: [{{ expect: true }}] }}\n{further}"),
    };
    load(main, &mut |path| match path {
        "c.yml" => Ok(Source {
            name: path.into(),
            text: compose.into(),
        }),
        ".env" => Ok(Source {
            name: path.into(),
            text: "\u{feff}FROM_FILE=file\r\nTAG=file\r\n".into(),
        }),
        _ => Err("there is no such file".into()),
    })
}

fn messages(loaded: &Loaded) -> Vec<&str> {
    let messages = loaded.diagnostics.iter().map(|d| d.message.as_str());
    messages.collect()
}

/// Returns the configuration of a service that needs no evaluation.
fn config(loaded: &Loaded, name: &str) -> crate::language::service::ServiceConfig {
    let spec = loaded
        .spec
        .as_ref()
        .unwrap_or_else(|| panic!("{:?}", loaded.diagnostics));
    let services = spec.services.iter();
    let service = services.clone().find(|s| s.name.text == name).unwrap();
    let mut found = Vec::new();
    let config = crate::language::service::decode_service(name, &service.definition, &mut found);
    assert_eq!(found, vec![]);
    config
}

#[test]
fn a_compose_file_s_variables_are_typed_where_their_place_wants_it() {
    let loaded = with_compose(
        "services:\n  a:\n    image: \"x:$TAG\"\n    privileged: \"${P:-yes}\"\n    pids_limit: ${N:-5}\n    ports: [\"${PORT}:80\", \"${PORT}\"]\n    environment: { V: \"${VERSION:-1.10}\", F: \"$FROM_FILE\", D: $$HOME }\n    deploy: { resources: { limits: { memory: 64M, cpus: \"0.5\" } } }\n",
        "stack: { compose: c.yml, env-file: [.env], variables: { TAG: 1, PORT: 8080 } }\n",
    );
    assert_eq!(messages(&loaded), ["the host port is not used"]);
    let config = config(&loaded, "a");
    assert_eq!(config.image.as_deref(), Some("x:1"));
    assert!(config.privileged);
    assert_eq!(config.pids_limit, Some(5));
    let ports: Vec<_> = config.ports.iter().map(|port| port.target).collect();
    assert_eq!(ports, [Some(80), Some(8080)]);
    assert_eq!(
        (config.mem_limit, config.nano_cpus),
        (Some(64 << 20), Some(500_000_000))
    );
    let variable = |name: &str| config.environment[name].clone().unwrap();
    assert_eq!(variable("V"), "1.10");
    assert_eq!(variable("F"), "file");
    assert_eq!(variable("D"), "$HOME");
}

#[test]
fn a_variable_that_an_axis_gives_is_evaluated_with_its_type() {
    use crate::expr::{Cache, Layer, Scope, eval_to_node};
    let loaded = with_compose(
        "services:\n  a:\n    image: x:${TAG:-latest}\n    read_only: ${RO:-true}\n    pids_limit: \"${N}\"\n    environment: { T: \"$TAG\", U: \"${TAG:+set}\" }\n",
        "strategy: { matrix: { tag: ['1', ''], n: ['7'] } }\nstack: { compose: c.yml, variables: { TAG: \"${{ matrix.tag }}\", N: \"${{ matrix.n }}\", RO: \"${{ matrix.tag == '' ? null : 'no' }}\" } }\n",
    );
    assert_eq!(messages(&loaded), Vec::<&str>::new());
    let definition = &loaded.spec.unwrap().services[0].definition;
    for (tag, image, read_only, set) in [("1", "x:1", false, "set"), ("", "x:latest", true, "")] {
        let matrix = serde_json::json!({ "tag": tag, "n": "7" });
        let scope = Scope::new(Layer::new().value("matrix", matrix));
        let node = eval_to_node(definition, &scope, &Cache::new()).unwrap();
        let mut found = Vec::new();
        let config = crate::language::service::decode_service("a", &node, &mut found);
        assert_eq!(found, vec![], "{tag}");
        assert_eq!(config.image.as_deref(), Some(image));
        assert_eq!(config.read_only, read_only, "{tag}");
        assert_eq!(config.pids_limit, Some(7));
        assert_eq!(config.environment["T"].as_deref(), Some(tag));
        assert_eq!(config.environment["U"].as_deref(), Some(set));
    }
}

#[test]
fn what_is_wrong_with_a_compose_file_s_variables_is_told() {
    let loaded = with_compose(
        "services:\n  a: { image: \"x:${TAG}\", command: \"${A.B}\", user: \"${NEEDED?say who}\" }\n  b: { image: \"$B_IMAGE\" }\n",
        "services: { b: { image: y } }\nstack: { compose: c.yml, variables: { TGA: 1, 1x: 2 } }\n",
    );
    assert_eq!(
        messages(&loaded),
        [
            "`c.yml` has no variable `TGA`",
            "`1x` is no name of a variable",
            "`c.yml` has no variable `1x`",
            "the image of `a` lacks a value: the variable `TAG` has none",
            "`${` begins no variable",
            "required variable NEEDED is missing a value: say who",
        ]
    );
}

#[test]
fn secrets_and_configs_are_files_of_their_service() {
    use crate::language::service::FileSource;
    let compose = "services:\n  a:\n    image: x\n    secrets: [one, { source: two, target: deep, mode: 0400, uid: '5' }]\n    configs: [{ source: text, target: /etc/t }, given]\n  b: { image: x, extends: a, secrets: [one] }\nsecrets:\n  one: { file: ./one.txt }\n  two: { file: two.txt }\nconfigs:\n  text: { content: \"hi $$X\" }\n  given: { environment: G }\n";
    let loaded = with_compose(
        compose,
        "stack: { compose: c.yml, variables: { G: value } }\n",
    );
    assert_eq!(messages(&loaded), Vec::<&str>::new());
    let files = config(&loaded, "a").files;
    let found: Vec<_> = files
        .iter()
        .map(|file| (file.target.as_str(), file.source.clone(), file.secret))
        .collect();
    assert_eq!(
        found,
        [
            (
                "/run/secrets/one",
                FileSource::Path("./one.txt".into()),
                true
            ),
            (
                "/run/secrets/deep",
                FileSource::Path("two.txt".into()),
                true
            ),
            ("/etc/t", FileSource::Text("hi $X".into()), false),
            ("/given", FileSource::Text("value".into()), false),
        ]
    );
    assert_eq!((files[1].mode, files[1].uid), (Some(0o400), Some(5)));
    assert_eq!(config(&loaded, "b").files.len(), 4);
    let without = with_compose(
        "services: { a: { image: x, secrets: [ones, out, env] } }\nsecrets: { one: { file: x }, out: { external: true }, env: { environment: E } }\n",
        "stack: { compose: c.yml }\n",
    );
    assert_eq!(
        messages(&without),
        [
            "there is no secret `ones`",
            "the secret `out` is external",
            "the variable `E` of the secret `env` has no value",
        ]
    );
}

#[test]
fn a_build_gets_secrets_agents_and_hosts() {
    use crate::language::service::FileSource;
    let compose = "services:\n  a:\n    build:\n      context: .\n      secrets: [one, { source: two, target: npm }]\n      ssh: [\"default=/run/agent\"]\n      extra_hosts: [\"db:10.0.0.1\"]\n      shm_size: 1mb\n      cache_from: [\"x:1\", \"type=registry,ref=y:2\", \"type=local,src=z\"]\nsecrets:\n  one: { file: ./one.txt }\n  two: { environment: E }\n";
    let loaded = with_compose(
        compose,
        "stack: { compose: c.yml, variables: { E: value } }\n",
    );
    assert_eq!(messages(&loaded), Vec::<&str>::new());
    let build = config(&loaded, "a").build.unwrap();
    let secrets = build.secrets.into_iter();
    let secrets: Vec<_> = secrets.map(|one| (one.id, one.source)).collect();
    assert_eq!(
        secrets,
        [
            ("one".to_owned(), FileSource::Path("./one.txt".into())),
            ("npm".to_owned(), FileSource::Text("value".into())),
        ]
    );
    assert_eq!(build.ssh[0].socket, "/run/agent");
    assert_eq!(build.extra_hosts, ["db:10.0.0.1"]);
    assert_eq!(build.shm_size, Some(1024 * 1024));
    assert_eq!(build.cache_from, ["x:1", "y:2"]);

    let wrong = load_text(
        "name: n\nservices:\n  a: { build: { context: ., secrets: [one], ssh: [default] } }\nphases: { p: [{ service: a, expect: [true] }] }\n",
    );
    let wrong = messages(&wrong);
    assert!(wrong.contains(&"the secret `one` has no text"), "{wrong:?}");
    assert!(
        wrong.contains(&"`default` names no socket of an SSH agent"),
        "{wrong:?}"
    );
}

#[test]
fn links_are_names_and_dependencies_and_profiles_leave_the_start_to_others() {
    let loaded = with_compose(
        "services:\n  a: { image: x, links: [\"db:base\", c], depends_on: { c: { condition: service_healthy } } }\n  db: { image: x }\n  c: { image: x }\n  e: { image: x, profiles: [p] }\n  d: { image: x, scale: 0 }\n",
        "stack: { compose: c.yml }\n",
    );
    assert_eq!(
        messages(&loaded),
        ["`e` isn't started by itself: it has profiles"]
    );
    let a = config(&loaded, "a");
    let on: Vec<_> = a.depends_on.keys().map(String::as_str).collect();
    assert_eq!(on, ["db", "c"]);
    assert_eq!(
        a.depends_on["c"].condition,
        crate::language::service::Condition::ServiceHealthy
    );
    assert_eq!(config(&loaded, "db").aliases, ["base"]);
    let manual: Vec<bool> = loaded
        .spec
        .unwrap()
        .services
        .iter()
        .map(|s| s.manual)
        .collect();
    assert_eq!(manual, [false, false, false, true, true]);
}

#[test]
fn restart_says_which_exits_are_followed_by_another_start() {
    use crate::language::service::Restart;
    for (text, restart) in [
        ("restart: \"no\"", Restart::No),
        ("restart: no", Restart::No),
        ("restart: on-failure:3", Restart::OnFailure),
        ("restart: unless-stopped", Restart::Always),
        (
            "deploy: { restart_policy: { condition: none } }",
            Restart::No,
        ),
        (
            "deploy: { restart_policy: { max_attempts: 2 } }",
            Restart::Always,
        ),
        (
            "deploy: { restart_policy: { condition: on-failure } }\n    restart: always",
            Restart::OnFailure,
        ),
        ("deploy: { mode: replicated-job }", Restart::No),
        ("deploy: { replicas: 1 }", Restart::Unsaid),
        ("user: x", Restart::Unsaid),
    ] {
        let compose = format!("services:\n  a:\n    image: x\n    {text}\n");
        let loaded = with_compose(&compose, "stack: { compose: c.yml }\n");
        assert_eq!(config(&loaded, "a").restart, restart, "{text}");
    }
    let loaded = with_compose(
        "services:\n  a: { image: x, restart: \"on-failure:3\" }\n  b: { image: x, deploy: { restart_policy: { max_attempts: 2, delay: 5s } } }\n",
        "stack: { compose: c.yml }\n",
    );
    assert_eq!(config(&loaded, "a").restart_attempts, Some(3));
    let b = config(&loaded, "b");
    assert_eq!(
        (b.restart_attempts, b.restart_delay_ms),
        (Some(2), Some(5_000))
    );
    for wrong in ["sometimes", "on-failure:x", "always:3"] {
        let compose = format!("services: {{ a: {{ image: x, restart: \"{wrong}\" }} }}\n");
        let found = with_compose(&compose, "stack: { compose: c.yml }\n");
        assert_eq!(
            messages(&found),
            [format!("`{wrong}` is no restart policy")]
        );
    }
}

#[test]
fn a_spec_takes_out_what_is_not_supported() {
    let compose = "services:\n  a:\n    image: x\n    provider: { type: y }\n    volumes: [{ type: bind, source: ./d, target: /d, image: { subpath: y } }]\n";
    let stack = "stack: { compose: c.yml }\n";
    let found = with_compose(compose, stack);
    let messages = messages(&found);
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(
        messages[1].starts_with("`image` is not supported"),
        "{messages:?}"
    );
    let without = format!("services: {{ a: {{ provider: null, volumes: null }} }}\n{stack}");
    let loaded = with_compose(compose, &without);
    assert_eq!(loaded.diagnostics, vec![]);
    assert!(config(&loaded, "a").volumes.is_empty());
}

#[test]
fn networks_are_a_part_of_the_services_that_join_them() {
    use crate::language::service::NetworkMode;
    let compose = r#"
services:
  web: { image: x, networks: [front, back] }
  db: { image: x, networks: { back: { aliases: [sql], ipv4_address: 172.30.9.5, priority: 3 } } }
  lone: { image: x }
  none: { image: x, network_mode: none }
  side: { image: x, network_mode: "service:web" }
networks:
  front: { driver: bridge, driver_opts: { com.docker.network.driver.mtu: 1400 } }
  back: { internal: true, ipam: { config: [{ subnet: 172.30.9.0/24 }] } }
"#;
    let stack = "stack: { compose: c.yml }\nservices: { web: { networks: { front: { aliases: [www] } } } }\n";
    let loaded = with_compose(compose, stack);
    assert_eq!(messages(&loaded), Vec::<&str>::new());
    let web = config(&loaded, "web");
    let names: Vec<&String> = web.networks.keys().collect();
    assert_eq!(names, ["front", "back"]);
    assert_eq!(web.networks["front"].aliases, ["www"]);
    let options = &web.networks["front"].network.driver_opts;
    assert_eq!(options["com.docker.network.driver.mtu"], "1400");
    assert!(web.networks["back"].network.internal);
    let db = config(&loaded, "db").networks["back"].clone();
    assert_eq!(db.ipv4_address.as_deref(), Some("172.30.9.5"));
    assert_eq!((db.priority, db.aliases), (3, vec!["sql".to_owned()]));
    assert_eq!(db.network, web.networks["back"].network);
    assert_eq!(db.network.subnets[0].subnet, "172.30.9.0/24");
    assert!(config(&loaded, "lone").networks.is_empty());
    assert_eq!(config(&loaded, "none").network_mode, NetworkMode::None);
    let side = config(&loaded, "side");
    assert_eq!(side.network_mode, NetworkMode::Service("web".to_owned()));
    assert!(side.depends_on["web"].restart, "{:?}", side.depends_on);
}

#[test]
fn the_default_network_has_the_files_settings_and_mistakes_in_networks_have_a_place() {
    let stack = "stack: { compose: c.yml }\n";
    let compose = "services: { a: { image: x } }\nnetworks: { default: { internal: true } }\n";
    let loaded = with_compose(compose, stack);
    assert!(config(&loaded, "a").networks["default"].network.internal);
    for (service, networks, message) in [
        (
            "networks: [froont]",
            "front: {}",
            "there is no network `froont`",
        ),
        (
            "networks: { n: { ipv4_address: 10.1.1.5 } }",
            "n: {}",
            "an address in the network `n` needs a subnet",
        ),
        (
            "networks: { n: { alias: [x] } }",
            "n: {}",
            "unknown key `alias` of the network `n`",
        ),
        (
            "networks: [n]",
            "n: { driver: macvlan }",
            "the network `n` has the driver `macvlan`",
        ),
        (
            "networks: [n]",
            "n: { intern: true }",
            "unknown key `intern` of the network `n`",
        ),
        (
            "network_mode: none, networks: [n]",
            "n: {}",
            "`network_mode: none` and `networks` exclude each other",
        ),
        (
            "network_mode: \"container:x\"",
            "n: {}",
            "`container:x` is no network mode here",
        ),
        (
            "networks: [n]",
            "n: { ipam: { config: [{ subnet: 10.1.1.0/24 }] } }",
            "`ipam` of the network `n` is not used",
        ),
    ] {
        let compose =
            format!("services: {{ a: {{ image: x, {service} }} }}\nnetworks: {{ {networks} }}\n");
        let found = with_compose(&compose, stack);
        assert_eq!(messages(&found), [message], "{service} {networks}");
    }
}

#[test]
fn settings_of_the_engine_are_read_in_composes_spellings() {
    let compose = r#"
services:
  db: { image: x }
  a:
    image: x
    sysctls: [net.core.somaxconn=1024]
    pid: "service:db"
    ipc: host
    volumes_from: ["db:ro"]
    gpus: all
    memswap_limit: -1
    mem_reservation: 32m
    cpu_period: 50ms
    cpu_quota: "25000"
    group_add: ["root", "4321"]
    blkio_config: { weight: 300, device_read_bps: [{ path: /dev/sda, rate: 1mb }] }
    healthcheck: { test: [CMD, x], start_interval: 500ms }
    deploy: { resources: { reservations: { devices: [{ driver: nvidia, count: 2, capabilities: [gpu] }] } } }
"#;
    let loaded = with_compose(compose, "stack: { compose: c.yml }\n");
    assert_eq!(messages(&loaded), Vec::<&str>::new());
    let config = config(&loaded, "a");
    let engine = &config.engine;
    assert_eq!(engine.sysctls["net.core.somaxconn"], "1024");
    assert_eq!(engine.memswap_limit, Some(-1));
    assert_eq!(engine.mem_reservation, Some(32 << 20));
    assert_eq!(engine.cpu_period, Some(50_000));
    assert_eq!(engine.cpu_quota, Some(25_000));
    assert_eq!(engine.group_add, ["root", "4321"]);
    assert_eq!(engine.blkio.read_bps, [("/dev/sda".to_owned(), 1 << 20)]);
    let counts: Vec<Option<i64>> = engine.gpus.iter().map(|gpu| gpu.count).collect();
    assert_eq!(counts, [Some(-1), Some(2)]);
    let check = config.healthcheck.as_ref().unwrap();
    assert_eq!(check.start_interval_ms, Some(500));
    assert!(
        config.depends_on["db"].restart,
        "its processes and volumes are used"
    );
    for (wrong, message) in [
        (
            "pid: \"container:x\"",
            "`container:x` is no value of `pid` here",
        ),
        (
            "uts: \"service:a\"",
            "`service:a` is no value of `uts` here",
        ),
        (
            "volumes_from: [\"container:x\"]",
            "`container:x` is no service of this cell",
        ),
        ("cpu_period: soon", "`soon` is no value of `cpu_period`"),
    ] {
        let compose = format!("services: {{ a: {{ image: x, {wrong} }} }}\n");
        let found = with_compose(&compose, "stack: { compose: c.yml }\n");
        assert_eq!(messages(&found), [message]);
    }
}
