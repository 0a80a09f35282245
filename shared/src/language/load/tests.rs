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
fn restart_says_whether_a_service_may_end() {
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
        ("deploy: { mode: replicated-job }", Restart::No),
        ("deploy: { replicas: 1 }", Restart::Unsaid),
        ("user: x", Restart::Unsaid),
    ] {
        let compose = format!("services:\n  a:\n    image: x\n    {text}\n");
        let loaded = with_compose(&compose, "stack: { compose: c.yml }\n");
        assert_eq!(config(&loaded, "a").restart, restart, "{text}");
    }
}

#[test]
fn a_spec_takes_out_what_is_not_supported() {
    let compose = "services:\n  a:\n    image: x\n    pid: host\n    volumes: [{ type: volume, source: d, target: /d, volume: { subpath: y } }]\n";
    let stack = "stack: { compose: c.yml }\n";
    let found = with_compose(compose, stack);
    let messages = messages(&found);
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(
        messages[1].starts_with("`subpath` is not supported"),
        "{messages:?}"
    );
    let without = format!("services: {{ a: {{ pid: null, volumes: null }} }}\n{stack}");
    let loaded = with_compose(compose, &without);
    assert_eq!(loaded.diagnostics, vec![]);
    assert!(config(&loaded, "a").volumes.is_empty());
}
