//! The merged tree of Compose files, with expected values worked out by hand from the specification (`13-merge.md`,
//! `14-include.md`) and from the rules of compose-go (`override/merge.go`, `override/uncity.go`).
#![allow(clippy::unwrap_used)]

use super::*;
use crate::diagnostic::{Severity, Source};
use crate::language::load::load as load_spec;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Returns a reader of the given files.
fn reader(files: &[(&str, &str)]) -> impl FnMut(&str) -> Result<Source, String> {
    let files: Vec<(String, String)> = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
        .collect();
    move |path: &str| {
        let found = files.iter().find(|(name, _)| name == path);
        let found = found.ok_or_else(|| "there is no such file".to_owned())?;
        Ok(Source {
            name: path.to_owned(),
            text: found.1.clone(),
        })
    }
}

/// Returns the merged tree of the Compose files `named`, and the messages with their files and lines.
fn merged_of(files: &[(&str, &str)], named: &[&str]) -> (Value, Vec<String>) {
    let mut read = reader(files);
    let main = Source {
        name: "spec.yaml".into(),
        text: String::new(),
    };
    let mut all = Files::new(main, &mut read);
    let mut diagnostics = Vec::new();
    let paths: Vec<Text> = named
        .iter()
        .map(|path| Text {
            text: (*path).to_owned(),
            span: Span::default(),
        })
        .collect();
    let variables = Variables::default();
    let mut reader = Reader::new(&mut all, variables, vec![String::new()], &mut diagnostics);
    let tree = project::load("", &paths, "spec", &mut reader);
    let sources = all.into_sources();
    let place = |span: Span| {
        let file = &sources.files[span.file as usize].name;
        format!("{file}:{}", span.line)
    };
    let said = diagnostics.iter().map(|d| {
        let related = d
            .related
            .as_ref()
            .map(|(span, _)| format!(" ({})", place(*span)));
        let related = related.unwrap_or_default();
        format!("{}: {}{related}", place(d.span.unwrap()), d.message)
    });
    let said = said.collect();
    let tree = tree.map_or(Value::Null, |tree| tree.to_json());
    (tree, said)
}

/// Returns the service `a` of two files.
fn over(base: &str, over: &str) -> Value {
    let (tree, said) = merged_of(&[("a.yml", base), ("b.yml", over)], &["a.yml", "b.yml"]);
    assert_eq!(said, Vec::<String>::new());
    tree["services"]["a"].clone()
}

/// Returns a service `a` with one key.
fn of(key: &str) -> String {
    format!("services:\n  a:\n    {key}\n")
}

#[test]
fn each_key_is_merged_by_the_rule_of_the_specification() {
    for (base, other, merged) in [
        // Scalars are replaced; null keeps what is there.
        ("image: x", "image: y", json!({"image": "y"})),
        ("image: x", "image:", json!({"image": "x"})),
        ("user: 1", "image: y", json!({"user": 1, "image": "y"})),
        // Commands are replaced, even by nothing.
        ("command: [a, b]", "command: c", json!({"command": "c"})),
        ("command: [a, b]", "command:", json!({"command": null})),
        (
            "entrypoint: x y",
            "entrypoint: []",
            json!({"entrypoint": []}),
        ),
        (
            "healthcheck: { test: [CMD, a], retries: 1 }",
            "healthcheck: { test: [CMD, b], timeout: 1s }",
            json!({"healthcheck": {"test": ["CMD", "b"], "retries": 1, "timeout": "1s"}}),
        ),
        // Maps or lists of variables, by name in either form.
        (
            "environment: { A: 1, B: 2 }",
            "environment: { B: 3, C: 4 }",
            json!({"environment": {"A": 1, "B": 3, "C": 4}}),
        ),
        (
            "environment: { A: 1, B: 2 }",
            "environment: [B=3, C]",
            json!({"environment": {"A": 1, "B": "3", "C": null}}),
        ),
        (
            "environment: [A=1, B=x=y]",
            "environment: { A: 2 }",
            json!({"environment": {"A": 2, "B": "x=y"}}),
        ),
        (
            "labels: [a=1]",
            "labels: [a=2, b]",
            json!({"labels": {"a": "2", "b": null}}),
        ),
        (
            "annotations: { a: 1 }",
            "annotations: [b=2]",
            json!({"annotations": {"a": 1, "b": "2"}}),
        ),
        (
            "sysctls: [net.a=1]",
            "sysctls: { net.a: 2 }",
            json!({"sysctls": {"net.a": 2}}),
        ),
        (
            "deploy: { labels: [a=1], replicas: 1 }",
            "deploy: { labels: { a: 2 } }",
            json!({"deploy": {"labels": {"a": 2}, "replicas": 1}}),
        ),
        // Builds.
        (
            "build: ./dir",
            "build: { target: t, args: [A=1] }",
            json!({"build": {"context": "./dir", "target": "t", "args": ["A=1"]}}),
        ),
        (
            "build: { context: x, args: [A=1, B=2], tags: [a, b] }",
            "build: { args: { B: 3 }, tags: [b, c] }",
            json!({"build": {"context": "x", "args": {"A": "1", "B": 3}, "tags": ["a", "b", "c"]}}),
        ),
        // Hosts: all different ones.
        (
            "extra_hosts: { h: 1.1.1.1 }",
            "extra_hosts: [h=1.1.1.1, 'i:2']",
            json!({"extra_hosts": ["h=1.1.1.1", "i:2"]}),
        ),
        (
            "extra_hosts: { h: [1, 2] }",
            "extra_hosts: [h=3]",
            json!({"extra_hosts": ["h=1", "h=2", "h=3"]}),
        ),
        // Lists are appended; some without duplicates.
        (
            "dns: 1.1.1.1",
            "dns: [8.8.8.8, 1.1.1.1]",
            json!({"dns": ["1.1.1.1", "8.8.8.8"]}),
        ),
        ("tmpfs: /a", "tmpfs: /b", json!({"tmpfs": ["/a", "/b"]})),
        (
            "env_file: a.env",
            "env_file: [{ path: b.env, required: false }, ./a.env, a.env]",
            json!({"env_file": ["a.env", {"path": "b.env", "required": false}, "./a.env"]}),
        ),
        (
            "cap_add: [A, B]",
            "cap_add: [B, C]",
            json!({"cap_add": ["A", "B", "C"]}),
        ),
        (
            "security_opt: [a]",
            "security_opt: [a]",
            json!({"security_opt": ["a", "a"]}),
        ),
        (
            "expose: [80]",
            "expose: ['80', 81]",
            json!({"expose": ["80", 81]}),
        ),
        (
            "profiles: [p]",
            "profiles: [q, p]",
            json!({"profiles": ["p", "q"]}),
        ),
        // What is mounted is unique by its path in the container.
        (
            "volumes: ['./x:/t', 'y:/u']",
            "volumes: [{ type: volume, source: z, target: /t/ }, /v, 'w:/u:ro']",
            json!({"volumes": [
                {"type": "volume", "source": "z", "target": "/t/"}, "w:/u:ro", "/v",
            ]}),
        ),
        (
            "devices: ['/dev/a', '/dev/b:/dev/c']",
            "devices: ['/dev/d:/dev/a:r', '/dev/c']",
            json!({"devices": ["/dev/d:/dev/a:r", "/dev/c"]}),
        ),
        (
            "secrets: [s, { source: t, target: u }]",
            "secrets: [{ source: s, mode: 1 }, { source: v, target: u }]",
            json!({"secrets": [{"source": "s", "mode": 1}, {"source": "v", "target": "u"}]}),
        ),
        (
            "configs: [s]",
            "configs: [{ source: t, target: /s }]",
            json!({"configs": [{"source": "t", "target": "/s"}]}),
        ),
        // Ports, by address, host port, container port and protocol.
        (
            "ports: ['80', '8080:80', '127.0.0.1:1:2/udp']",
            "ports: [80, { target: 80, published: 8080 }, '8081:80', '0.0.0.0:8081:80/tcp', { target: 2, published: '1', host_ip: 127.0.0.1, protocol: udp }]",
            json!({"ports": [
                80,
                {"target": 80, "published": 8080},
                {"target": 2, "published": "1", "host_ip": "127.0.0.1", "protocol": "udp"},
                "0.0.0.0:8081:80/tcp",
            ]}),
        ),
        // Dependencies and networks, by name in either form.
        (
            "depends_on: { b: { condition: service_healthy } }",
            "depends_on: [c]",
            json!({"depends_on": {
                "b": {"condition": "service_healthy"},
                "c": {"condition": "service_started", "required": true},
            }}),
        ),
        (
            "depends_on: { b: { condition: service_healthy, restart: true } }",
            "depends_on: [b]",
            json!({"depends_on": {
                "b": {"condition": "service_started", "restart": true, "required": true},
            }}),
        ),
        (
            "networks: [m, n]",
            "networks: { n: { aliases: [x] } }",
            json!({"networks": {"m": null, "n": {"aliases": ["x"]}}}),
        ),
        (
            "networks: { n: { aliases: [x], priority: 1 } }",
            "networks: { n: { aliases: [x, y] } }",
            json!({"networks": {"n": {"aliases": ["x", "y"], "priority": 1}}}),
        ),
        // Options of logging belong to their driver.
        (
            "logging: { driver: a, options: { x: 1 } }",
            "logging: { driver: a, options: { y: 2 } }",
            json!({"logging": {"driver": "a", "options": {"x": 1, "y": 2}}}),
        ),
        (
            "logging: { driver: a, options: { x: 1 } }",
            "logging: { driver: b }",
            json!({"logging": {"driver": "b"}}),
        ),
        (
            "ulimits: { n: 1, m: { soft: 1, hard: 2 } }",
            "ulimits: { m: { soft: 3, hard: 4 } }",
            json!({"ulimits": {"n": 1, "m": {"soft": 3, "hard": 4}}}),
        ),
    ] {
        assert_eq!(over(&of(base), &of(other)), merged, "{base} / {other}");
    }
}

#[test]
fn other_sections_are_merged_by_name() {
    let a = "services: { a: { image: x } }\nvolumes: { v: { labels: [a=1] }, w: }\nnetworks: { n: { ipam: { config: [{ subnet: 10.0.0.0/24, gateway: g }] } } }\nsecrets: { s: { file: x } }\nx-any: { a: 1 }\n";
    let b = "services: { b: { image: y } }\nvolumes: { v: { labels: { a: 2 } } }\nnetworks: { n: { ipam: { config: [{ subnet: 10.0.0.0/24, ip_range: r }, { subnet: 10.0.1.0/24 }] } } }\nsecrets: { s: { file: y } }\nx-any: { b: 2 }\n";
    let (tree, said) = merged_of(&[("a.yml", a), ("b.yml", b)], &["a.yml", "b.yml"]);
    assert_eq!(said, Vec::<String>::new());
    assert_eq!(
        tree,
        json!({
            "services": {"a": {"image": "x"}, "b": {"image": "y"}},
            "volumes": {"v": {"labels": {"a": 2}}, "w": null},
            "networks": {"n": {"ipam": {"config": [
                {"subnet": "10.0.0.0/24", "gateway": "g", "ip_range": "r"},
                {"subnet": "10.0.1.0/24"},
            ]}}},
            "secrets": {"s": {"file": "y"}},
            "x-any": {"a": 1, "b": 2},
        })
    );
}

#[test]
fn duplicates_within_one_file_go_too() {
    let text = of("environment: [A=1, B=2, A=3]\n    volumes: ['a:/t', 'b:/t']");
    let (tree, said) = merged_of(&[("a.yml", &text)], &["a.yml"]);
    assert_eq!(said, Vec::<String>::new());
    let a = &tree["services"]["a"];
    assert_eq!(a["environment"], json!(["A=3", "B=2"]));
    assert_eq!(a["volumes"], json!(["b:/t"]));
}

#[test]
fn reset_removes_and_override_replaces() {
    // The examples of the specification.
    let base = of("image: x\n    ports: ['8080:80']\n    environment: { FOO: BAR, KEPT: 1 }");
    let reset = of("image: x\n    ports: !reset []\n    environment:\n      FOO: !reset null");
    assert_eq!(
        over(&base, &reset),
        json!({"image": "x", "environment": {"KEPT": 1}})
    );
    let replaced = of("ports: !override\n      - '8443:443'");
    assert_eq!(over(&base, &replaced)["ports"], json!(["8443:443"]));
    // A whole service, a value without any, a flow map, a scalar, an anchor.
    assert_eq!(
        over(&base, "services:\n  a: !override { image: y }"),
        json!({"image": "y"})
    );
    assert_eq!(
        over(&base, &of("ports: !reset")),
        json!({"image": "x", "environment": {"FOO": "BAR", "KEPT": 1}})
    );
    assert_eq!(over(&base, &of("image: !override y"))["image"], json!("y"));
    assert_eq!(
        over(
            &base,
            "x-e: &e !override { NEW: 1 }\nservices: { a: { environment: *e } }"
        )["environment"],
        json!({"NEW": 1})
    );
    assert_eq!(
        over(&base, "services:\n  a: !reset {}\n  b: { image: y }"),
        Value::Null
    );
    // Without an earlier file, nothing but the value itself goes.
    let (tree, _) = merged_of(&[("a.yml", &reset)], &["a.yml"]);
    assert_eq!(
        tree["services"]["a"],
        json!({"image": "x", "environment": {}})
    );
}

#[test]
fn marks_are_tags_of_compose_files_only() {
    let text = "phases: { p: [{ expect: true }] }\nvars: { x: !reset 1 }\n";
    let main = Source {
        name: "spec.yaml".into(),
        text: text.into(),
    };
    let loaded = load_spec(main, &mut |_| Err(String::new()));
    assert_eq!(loaded.diagnostics[0].message, "`!reset` is a tag to YAML");
}

#[test]
fn merge_keys_and_anchors_are_those_of_yaml() {
    let text = "x-base: &base\n  image: x\n  environment: &env { A: 1, B: 2 }\nx-more: &more { restart: always, image: z }\nservices:\n  a:\n    <<: [*base, *more]\n    environment: { <<: *env, B: 3 }\n";
    let (tree, said) = merged_of(&[("a.yml", text)], &["a.yml"]);
    assert_eq!(said, Vec::<String>::new());
    assert_eq!(
        tree["services"]["a"],
        json!({"image": "x", "restart": "always", "environment": {"A": 1, "B": 3}})
    );
}

#[test]
fn values_that_do_not_fit_together_are_told_with_both_places() {
    let (_, said) = merged_of(
        &[
            (
                "a.yml",
                &of("volumes: [x]\n    healthcheck: { retries: 1 }\n    networks: [a]"),
            ),
            (
                "b.yml",
                &of("volumes: { x: y }\n    healthcheck: [1]\n    networks: n"),
            ),
        ],
        &["a.yml", "b.yml"],
    );
    assert_eq!(
        said,
        [
            "b.yml:3: `volumes` is a map, and a list in the file that it overrides (a.yml:3)",
            "b.yml:4: `healthcheck` is a list, and a map in the file that it overrides (a.yml:4)",
            "b.yml:5: `networks` is the text \"n\", and a list in the file that it overrides (a.yml:5)",
        ]
    );
}

#[test]
fn a_service_takes_over_another_one_of_its_file_or_of_another() {
    let main = "services:\n  a:\n    extends: { service: base, file: lib/common.yml }\n    environment: { B: 3 }\n    command: [own]\n  b: { extends: a, volumes: ['/c:/data'] }\n  c: { extends: { service: b }, image: last, profiles: [p] }\n";
    let common = "services:\n  base:\n    extends: { service: root, file: ../root.yml }\n    build: { context: ., args: [X=1] }\n    volumes: ['./data:/data', 'named:/n']\n    env_file: [base.env, { path: ../up.env }]\n    environment: [A=1, B=2]\n    command: [base]\n";
    let root = "services:\n  root: { user: me, labels: { r: 1 }, build: { dockerfile: D } }\n";
    let files = [
        ("c.yml", main),
        ("lib/common.yml", common),
        ("root.yml", root),
    ];
    let (tree, said) = merged_of(&files, &["c.yml"]);
    assert_eq!(said, Vec::<String>::new());
    let mut a = json!({
        "user": "me",
        "labels": {"r": 1},
        "build": {"context": "./lib", "args": ["X=1"], "dockerfile": "D"},
        "volumes": ["./lib/data:/data", "named:/n"],
        "env_file": ["./lib/base.env", {"path": "./up.env"}],
        "environment": {"A": "1", "B": 3},
        "command": ["own"],
    });
    assert_eq!(tree["services"]["a"], a);
    a["volumes"] = json!(["/c:/data", "named:/n"]);
    assert_eq!(tree["services"]["b"], a);
    a["image"] = json!("last");
    a["profiles"] = json!(["p"]);
    assert_eq!(tree["services"]["c"], a);
}

#[test]
fn extends_is_followed_before_files_are_merged() {
    let a = "services:\n  base: { image: x, environment: { A: 1 } }\n  a: { extends: base, environment: { A: !reset , B: 2 } }\n";
    let b = "services:\n  base: { environment: { A: 9 } }\n  a: { environment: { C: 3 } }\n";
    // `a` was merged over the base of its own file, without what it resets.
    assert_eq!(
        over(a, b),
        json!({"image": "x", "environment": {"B": 2, "C": 3}})
    );
    let (_, said) = merged_of(
        &[
            ("a.yml", "services: { base: { image: x } }"),
            ("b.yml", "services: { a: { extends: base } }"),
        ],
        &["a.yml", "b.yml"],
    );
    assert_eq!(
        said,
        ["b.yml:1: there is no service `base` to extend in `b.yml`"]
    );
}

#[test]
fn what_extends_cannot_do_is_told_where_it_stands() {
    let main = "services:\n  a: { extends: b }\n  b: { extends: { service: a } }\n  c: { extends: { service: x, file: lib.yml } }\n  d: { extends: { service: nobody, file: lib.yml } }\n  e: { extends: { service: a, file: ../out.yml } }\n  f: { extends: { service: a, file: none.yml } }\n  g: { extends: [a] }\n  h: { extends: { service: x, file: lib.yml, fiel: y } }\n  i: { extends: { service: '${S:-${S2:-sss}}' } }\n  j: { extends: { service: x, file: 'https://h/x.yml' } }\n";
    let lib = "services:\n  x: { extends: { service: c, file: c.yml } }\n";
    let (tree, mut said) = merged_of(&[("c.yml", main), ("lib.yml", lib)], &["c.yml"]);
    said.sort();
    assert_eq!(
        said,
        [
            "c.yml:10: there is no service `sss` to extend in `c.yml`",
            "c.yml:11: `https://h/x.yml` is not a file of the workspace",
            "c.yml:3: services extend each other in a circle: a → b → a",
            "c.yml:5: there is no service `nobody` to extend in `lib.yml`",
            "c.yml:6: `../out.yml` leads out of the workspace",
            "c.yml:7: can't read `none.yml`: there is no such file",
            "c.yml:8: `extends` takes the name of a service, not a list",
            "c.yml:9: unknown key `fiel` in `extends`",
            "lib.yml:2: services extend each other in a circle: c → x → c",
        ]
    );
    // No further error about what the base would have had.
    assert_eq!(tree["services"]["d"], json!({"image": "unknown"}));
}

#[test]
fn included_projects_have_their_own_directory_and_defaults() {
    let main = "name: My Shop\ninclude:\n  - sub/compose.yml\n  - path: [other/a.yml, other/b.yml]\n    project_directory: .\n    env_file: [vars/.env]\nservices:\n  web: { image: 'w:${TAG:-none}', depends_on: [db, cache] }\n";
    let sub = "include: [deeper/c.yml]\nservices:\n  db:\n    image: db:${TAG:-1}\n    volumes: ['./data:/data']\n    build: { dockerfile: D }\n    labels: { project: '$COMPOSE_PROJECT_NAME' }\nvolumes: { v: }\nsecrets: { s: { file: ./s.txt } }\nx-own: 1\nname: other\n";
    let deeper = "services: { deep: { build: .., env_file: x.env } }\n";
    let a = "services:\n  cache: { image: 'c:$TAG', environment: [TAG, NONE], volumes: ['./here:/x'] }\n";
    let b = "services: { cache: { command: [b] } }\n";
    let files = [
        ("c.yml", main),
        ("sub/compose.yml", sub),
        ("sub/deeper/c.yml", deeper),
        ("other/a.yml", a),
        ("other/b.yml", b),
        ("vars/.env", "TAG=from-file\n"),
    ];
    let (tree, said) = merged_of(&files, &["c.yml"]);
    assert_eq!(said, Vec::<String>::new());
    assert_eq!(
        tree,
        json!({
            "name": "My Shop",
            "services": {
                "web": {"image": "w:none", "depends_on": ["db", "cache"]},
                "db": {
                    "image": "db:1",
                    "volumes": ["./sub/data:/data"],
                    "build": {"dockerfile": "D", "context": "./sub"},
                    "labels": {"project": "myshop"},
                },
                "deep": {"build": "./sub", "env_file": "./sub/deeper/x.env"},
                "cache": {
                    "image": "c:from-file",
                    "environment": ["TAG=from-file", "NONE"],
                    "volumes": ["./here:/x"],
                    "command": ["b"],
                },
            },
            "volumes": {"v": null},
            "secrets": {"s": {"file": "./sub/s.txt"}},
        })
    );
}

#[test]
fn what_is_included_twice_is_fine_if_it_is_the_same() {
    let both = "include: [sub/b.yml, sub/c.yml]\nservices: { a: { image: x } }\n";
    let each = "include: [../d.yml]\n";
    let files = [
        ("a.yml", both),
        ("sub/b.yml", each),
        ("sub/c.yml", each),
        ("d.yml", "services: { d: { build: ./d } }\n"),
    ];
    let (tree, said) = merged_of(&files, &["a.yml"]);
    assert_eq!(said, Vec::<String>::new());
    assert_eq!(tree["services"]["d"], json!({"build": "./d"}));
}

#[test]
fn what_include_cannot_do_is_told_where_it_stands() {
    let main = "include:\n  - b.yml\n  - { path: x.yml, projekt: 1 }\n  - [x]\n  - { path: x.yml, env_file: { a: b } }\n  - git@github.com:x/y\n  - ../out.yml\nservices:\n  a: { image: x }\n";
    let b = "include: [c.yml]\nservices:\n  a: { image: y }\n";
    let files = [
        ("a.yml", main),
        ("b.yml", b),
        ("c.yml", "include: [b.yml]\nservices: {}\n"),
        ("x.yml", "services: {}"),
    ];
    let (tree, mut said) = merged_of(&files, &["a.yml"]);
    said.sort();
    assert_eq!(
        said,
        [
            "a.yml:3: unknown key `projekt` in `include`",
            "a.yml:4: an entry of `include` names a file, not a list",
            "a.yml:5: an entry of `include` names a file, not a map",
            "a.yml:6: `git@github.com:x/y` is not a file of the workspace",
            "a.yml:7: `../out.yml` leads out of the workspace",
            "a.yml:9: the service `a` is also in another file, and one of the two is included (b.yml:3)",
            "c.yml:1: `b.yml` includes itself: a.yml → b.yml → c.yml → b.yml",
        ]
    );
    assert_eq!(tree["services"]["a"], json!({"image": "x"}));
}

#[test]
fn files_that_multiply_are_stopped() {
    // Each file includes the next one twice: without a limit, a million loads.
    let mut files = Vec::new();
    for at in 0..20 {
        let next = at + 1;
        files.push((
            format!("f{at}.yml"),
            format!(
                "include: [f{next}.yml, ./f{next}.yml]\nservices: {{ s{at}: {{ image: x }} }}\n"
            ),
        ));
    }
    files.push(("f20.yml".to_owned(), "services: {}\n".to_owned()));
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect();
    let (_, said) = merged_of(&files, &["f0.yml"]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("loaded more than 1000 times"), "{said:?}");
    // A chain in which each service is larger than the one before.
    let mut chain = String::from("services:\n  s0: { environment: { A0: x } }\n");
    for at in 1..2000 {
        let before = at - 1;
        chain.push_str(&format!(
            "  s{at}: {{ extends: s{before}, environment: {{ A{at}: x }} }}\n"
        ));
    }
    let (_, said) = merged_of(&[("a.yml", &chain)], &["a.yml"]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("more than 500000 values"), "{said:?}");
    let circle = "services:\n".to_owned()
        + &(0..500)
            .map(|at| format!("  s{at}: {{ extends: s{} }}\n", (at + 1) % 500))
            .collect::<String>();
    let (_, said) = merged_of(&[("a.yml", &circle)], &["a.yml"]);
    assert!(said[0].len() < 200, "{said:?}");
}

/// Loads a spec with Compose files.
fn spec(stack: &str, files: &[(&str, &str)]) -> crate::language::load::Loaded {
    let main = Source {
        name: "e2e/spec.yaml".into(),
        text: format!("phases: {{ p: [{{ expect: true }}] }}\nstack: {{ {stack} }}\n"),
    };
    load_spec(main, &mut reader(files))
}

fn messages(loaded: &crate::language::load::Loaded) -> Vec<String> {
    let place = |span: Span| {
        format!(
            "{}:{}",
            loaded.sources.files[span.file as usize].name, span.line
        )
    };
    let said = loaded.diagnostics.iter();
    said.map(|d| format!("{}: {}", d.span.map(place).unwrap_or_default(), d.message))
        .collect()
}

#[test]
fn profiles_choose_the_services_that_start() {
    let compose = "services:\n  a: { image: x }\n  b: { image: x, profiles: [web, dev] }\n  c: { image: x, profiles: [debug] }\n";
    let files = [
        ("e2e/c.yml", compose),
        ("e2e/.env", "COMPOSE_PROFILES=debug, dev\n"),
    ];
    let manual = |stack: &str| {
        let loaded = spec(&format!("compose: c.yml{stack}"), &files);
        let said = messages(&loaded);
        let services = loaded.spec.unwrap().services.into_iter();
        let manual: Vec<String> = services.filter(|s| s.manual).map(|s| s.name.text).collect();
        (manual.join(" "), said)
    };
    let quiet = |names: &str| (names.to_owned(), Vec::new());
    assert_eq!(manual(", profiles: [web]"), quiet("c"));
    assert_eq!(manual(", profiles: [web, debug]"), quiet(""));
    assert_eq!(manual(", profiles: '*'"), quiet(""));
    assert_eq!(manual(", env-file: .env"), quiet(""));
    assert_eq!(manual(", env-file: .env, profiles: []"), quiet("b c"));
    assert_eq!(manual(", variables: { COMPOSE_PROFILES: web }"), quiet("c"));
    let (names, said) = manual(", profiles: [wbe]");
    assert_eq!(names, "b c");
    assert_eq!(said, ["e2e/spec.yaml:2: no service has the profile `wbe`"]);
    let (_, said) = manual("");
    assert_eq!(said.len(), 2, "{said:?}");
    let later = spec(
        "compose: c.yml, variables: { COMPOSE_PROFILES: '${{ cell.name }}' }",
        &files,
    );
    assert!(messages(&later)[0].ends_with("`COMPOSE_PROFILES` is known only when a cell runs"));
}

#[test]
fn problems_in_merged_files_are_told_in_the_file_that_has_them() {
    let a = "services:\n  a:\n    image: x\n    pids_limit: many\n  b: { image: x, credential_spec: {} }\n";
    let b = "services:\n  a:\n    ports: [x]\n    nonsense: 1\n    environment: { A: '${NONE}' }\n";
    let loaded = spec(
        "compose: [c.yml, sub/d.yml]",
        &[("e2e/c.yml", a), ("e2e/sub/d.yml", b)],
    );
    let said = messages(&loaded);
    assert_eq!(
        said,
        [
            "e2e/sub/d.yml:3: `x` is no port: ports are numbers from 1 to 65535",
            "e2e/sub/d.yml:4: unknown key `nonsense` in a service of a Compose file",
            "e2e/sub/d.yml:5: the variable `NONE` has no value and is empty",
            "e2e/c.yml:4: `pids_limit` takes a whole number from -1, not the text \"many\"",
            "e2e/c.yml:5: `credential_spec` is not supported: there are no Windows containers",
        ]
    );
}

#[test]
fn paths_are_those_of_the_first_file_seen_from_the_spec() {
    let compose = "services:\n  a: { build: ., volumes: ['./d:/d', 'n:/n', '/abs:/e', { type: bind, source: x, target: /f }] }\n";
    let definition = |stack: &str, path: &str| {
        let loaded = spec(stack, &[(path, compose)]);
        (
            loaded
                .spec
                .map(|spec| spec.services[0].definition.to_json()),
            loaded.diagnostics,
        )
    };
    let (found, _) = definition("compose: sub/c.yml", "e2e/sub/c.yml");
    assert_eq!(
        found.unwrap(),
        json!({"build": "./sub", "volumes": ["./sub/d:/d", "n:/n", "/abs:/e",
            {"type": "bind", "source": "./sub/x", "target": "/f"}]})
    );
    // The workspace is the spec's directory: what is above it can't travel.
    let (found, said) = definition("compose: ../c.yml", "c.yml");
    assert_eq!(found, None);
    assert!(
        said.iter()
            .any(|d| d.message.contains("leaves the workspace")),
        "{said:?}"
    );
    let (found, _) = definition("compose: c.yml", "e2e/c.yml");
    assert_eq!(found.unwrap()["build"], json!("."));
    let later = spec(
        "compose: sub/c.yml, variables: { D: '${{ cell.name }}' }",
        &[(
            "e2e/sub/c.yml",
            "services:\n  a: { image: x, volumes: ['./${D}:/d', '$D:/e'] }\n",
        )],
    );
    let said = messages(&later);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with("e2e/sub/c.yml:2: this path is known only when a cell runs"),
        "{said:?}"
    );
}

#[test]
fn an_axis_drives_files_that_are_merged() {
    let loaded = spec(
        "compose: [a.yml, b.yml], variables: { TAG: '${{ cell.name }}' }",
        &[
            (
                "e2e/a.yml",
                "services:\n  a: { image: 'x:${TAG:-1}', environment: ['A_$TAG=1', B=2], ports: ['${TAG}:80', '${TAG}:80'] }\n",
            ),
            (
                "e2e/b.yml",
                "services:\n  a: { environment: { B: '$TAG', C: '${TAG:+set}' } }\n",
            ),
        ],
    );
    let said: Vec<String> = messages(&loaded)
        .into_iter()
        .filter(|m| !m.contains("host port"))
        .collect();
    assert_eq!(said, Vec::<String>::new());
    let definition = loaded.spec.unwrap().services[0].definition.to_json();
    assert_eq!(
        definition["environment"],
        json!([
            "A_${{ cell.name }}=1",
            "B=${{ cell.name }}",
            "C=${{ ((cell.name) == null || (cell.name) == '') ? '' : \"set\" }}",
        ])
    );
    assert_eq!(definition["ports"], json!(["${{ cell.name }}:80"]));
}

/// Keys that the rules treat differently, with any value.
fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..100).prop_map(Value::from),
        "[a-c=:/.$!{}-]{0,8}".prop_map(Value::from),
        Just(json!("${{ cell.name }}")),
    ];
    let key = prop_oneof![
        4 => prop::sample::select(vec![
            "services", "networks", "volumes", "secrets", "configs", "include", "extends", "file", "service", "path",
            "env_file", "a", "b", "environment", "labels", "build", "context", "args", "depends_on", "ports", "target",
            "published", "command", "logging", "driver", "ulimits", "extra_hosts", "healthcheck", "test", "deploy",
            "ipam", "config", "subnet", "profiles", "links", "tmpfs", "devices", "aliases", "image", "name",
        ]).prop_map(str::to_owned),
        1 => "[a-z]{0,3}",
    ];
    leaf.prop_recursive(6, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever the files hold, loading them ends with a tree or with errors that have places.
    #[test]
    fn merging_never_panics(
        a in tree(), b in tree(), service in tree(), other in tree(), lib in tree()
    ) {
        let main = json!({"services": {"a": service, "b": {"extends": {"service": "a", "file": "lib.yml"}}}, "include": a});
        let over = json!({"services": {"a": other}, "networks": b});
        let texts = [main.to_string(), over.to_string(), lib.to_string()];
        let files = [
            ("e2e/a.yml", texts[0].as_str()),
            ("e2e/b.yml", texts[1].as_str()),
            ("e2e/lib.yml", texts[2].as_str()),
            ("e2e/a", texts[2].as_str()),
        ];
        let loaded = spec("compose: [a.yml, b.yml], variables: { a: '${{ cell.name }}' }", &files);
        prop_assert!(loaded.spec.is_some() || loaded.diagnostics.iter().any(|d| d.severity == Severity::Error));
        for d in &loaded.diagnostics {
            let span = d.span.unwrap();
            prop_assert!((span.file as usize) < loaded.sources.files.len(), "{d:?}");
        }
    }

    /// A file that was cut, or in which bytes were changed, is read or refused.
    #[test]
    fn damaged_files_are_read_or_refused(
        which in 0..3_usize, cut in 0..2000_usize, at in 0..2000_usize, junk in "[ -~\n]{0,6}"
    ) {
        let mut texts = [
            "x-e: &e { A: 1 }\ninclude:\n  - path: [sub/c.yml]\n    env_file: .env\nservices:\n  a:\n    <<: &b { image: 'x:${TAG:-1}' }\n    extends: { service: base, file: sub/lib.yml }\n    environment: { <<: *e, B: \"$$x\" }\n    ports: !override ['80:80']\n".to_owned(),
            "services:\n  base:\n    build: { context: ., args: [A=1] }\n    volumes:\n      - ./x:/y\n      - { type: volume, source: v, target: /z }\n    depends_on: { db: { condition: service_healthy } }\n".to_owned(),
            "services:\n  db:\n    image: db\n    healthcheck: { test: [CMD, x], interval: 1s }\n    networks: { n: { aliases: [d] } }\nnetworks: { n: { driver: bridge } }\nvolumes: { v: !reset {} }\n".to_owned(),
        ];
        let text = &mut texts[which];
        let cut = cut.min(text.len());
        let at = at.min(cut);
        text.truncate(cut);
        text.insert_str(at, &junk);
        let files = [
            ("e2e/c.yml", texts[0].as_str()),
            ("e2e/sub/lib.yml", texts[1].as_str()),
            ("e2e/sub/c.yml", texts[2].as_str()),
            ("e2e/.env", "TAG=1\n"),
        ];
        let loaded = spec("compose: c.yml", &files);
        prop_assert!(loaded.spec.is_some() || loaded.diagnostics.iter().any(|d| d.severity == Severity::Error));
    }
}
