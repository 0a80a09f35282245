//! Compose files and env files, read as Compose reads them.

use crate::engine_lab::Lab;
use crate::place::{Place, Said};
use crate::{Need, Test};

pub fn tests() -> Vec<Test> {
    vec![
        (
            Need::Nothing,
            "a Compose file's `$NAME` without a value is told as `${NAME}` is, and an image that lacks one is an error",
            dollar_names,
        ),
        (
            Need::Nothing,
            "keys of Compose that change nothing for a test are accepted with a note",
            everyday_keys,
        ),
        (
            Need::Nothing,
            "keys of Compose that change the meaning are errors, and a spec may take them out",
            keys_that_change_the_meaning,
        ),
        (
            Need::Nothing,
            "a variable that a Compose file requires is an error with its author's words",
            required_variables,
        ),
        (
            Need::Nothing,
            "env files hold escaped quotes",
            env_file_quotes,
        ),
        (
            Need::Nothing,
            "env files of Windows are read from their first variable on",
            env_file_windows,
        ),
        (
            Need::Nothing,
            "an env file that can't be read as one is told without its text",
            env_file_without_its_text,
        ),
        (
            Need::Engine,
            "a Compose file's everyday keys don't keep it from running",
            everyday_keys_run,
        ),
        (
            Need::Engine,
            "a Compose file's variables have their defaults",
            variables_have_their_defaults,
        ),
        (
            Need::Engine,
            "an axis and an env file give a Compose file's variables their values",
            variables_have_values,
        ),
        (
            Need::Engine,
            "several Compose files, with include, extends and profiles, are one stack",
            merged_files_run,
        ),
        (
            Need::Engine,
            "a Compose file's secrets and configs are mounted, and secrets are masked",
            file_secrets,
        ),
        (
            Need::Engine,
            "a service that does its work and ends fails no step",
            oneshot,
        ),
    ]
}

fn passes(said: &Said) {
    assert_eq!(said.code, Some(0), "{said:?}");
}

fn all(said: &Said) -> String {
    format!("{}{}", said.stdout, said.stderr)
}

/// Returns an input of `tests/field/` with the image of a lab.
fn with_image(name: &str, written: &str) -> (Lab, Place) {
    let (lab, place) = (Lab::new(), Place::of_field(name));
    place.replace("docker-compose.yml", written, &lab.image);
    (lab, place)
}

fn dollar_names() {
    let place = Place::of_field("compose-dollar-name");
    let braced = Place::of_field("compose-dollar-name");
    for name in ["WEB_IMAGE", "WEB_PORT", "UPSTREAM_HOST"] {
        braced.replace(
            "docker-compose.yml",
            &format!("${name}"),
            &format!("${{{name}}}"),
        );
    }
    for place in [place, braced] {
        let said = place.call(&["validate", "spec.yaml"]);
        let text = all(&said);
        assert_eq!(said.code, Some(2), "{text}");
        for name in ["WEB_IMAGE", "WEB_PORT", "UPSTREAM_HOST"] {
            assert!(
                text.contains(&format!("the variable `{name}` has no")),
                "{text}"
            );
        }
        assert!(text.contains("the image of `web` lacks a value"), "{text}");
        assert!(text.contains("docker-compose.yml:3:"), "{text}");
    }
    let given = Place::of_field("compose-dollar-name");
    given.replace(
        "spec.yaml",
        "docker-compose.yml }",
        "docker-compose.yml, variables: { WEB_IMAGE: 'bb:1', WEB_PORT: 80, UPSTREAM_HOST: h } }",
    );
    let said = given.call(&["validate", "spec.yaml"]);
    passes(&said);
    assert!(!all(&said).contains("has no value"), "{said:?}");
}

fn everyday_keys() {
    let place = Place::of_field("compose-everyday-keys");
    let said = place.call(&["validate", "spec.yaml"]);
    passes(&said);
    for key in ["attach", "develop"] {
        let note = format!("`{key}` is not used");
        assert!(all(&said).contains(&note), "{note}: {said:?}");
    }
    // A service with profiles isn't started even without an entry in the spec.
    place.replace("spec.yaml", "services: { debug: { start: manual } }\n", "");
    let said = place.call(&["validate", "spec.yaml"]);
    passes(&said);
    assert!(all(&said).contains("it has profiles"), "{said:?}");
}

fn keys_that_change_the_meaning() {
    let place = Place::new();
    place.write(
        "docker-compose.yml",
        "services:\n  web:\n    image: bb\n    scale: 21\n    volumes: [{ type: volume, source: d, target: /d, volume: { subpath: x } }]\n    networks: [proxy]\n  db: { image: bb, credential_spec: {}, build: { context: ., entitlements: [network.host] } }\nvolumes:\n  d: { external: true }\nnetworks:\n  proxy: { external: true }\n",
    );
    let spec = "stack: { compose: docker-compose.yml }\nphases: { t: [{ run: 'true' }] }\n";
    place.write("spec.yaml", spec);
    let said = place.call(&["validate", "spec.yaml"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    for problem in [
        "`scale` is no number from 0 to 20",
        "`credential_spec` is not supported",
        "`entitlements` is not supported",
        "the volume `d` is external",
        "the network `proxy` is external",
    ] {
        assert!(all(&said).contains(problem), "{problem}: {said:?}");
    }
    place.replace(
        "docker-compose.yml",
        "external: true }\nnetworks",
        "}\nnetworks",
    );
    place.write(
        "spec.yaml",
        format!(
            "services:\n  web: {{ scale: null, volumes: null, networks: null }}\n  db: {{ credential_spec: null, build: null }}\n{spec}"
        ),
    );
    passes(&place.call(&["validate", "spec.yaml"]));
}

fn required_variables() {
    let place = Place::new();
    place.write(
        "docker-compose.yml",
        "services:\n  web:\n    image: \"bb:${TAG:?set the tag, please}\"\n",
    );
    place.write(
        "spec.yaml",
        "stack: { compose: docker-compose.yml }\nphases: { t: [{ run: 'true' }] }\n",
    );
    let said = place.call(&["validate", "spec.yaml"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    let text = all(&said);
    assert!(
        text.contains("required variable TAG is missing a value: set the tag, please"),
        "{text}"
    );
    assert!(text.contains("docker-compose.yml:3:"), "{text}");
    // The machine's environment has no influence.
    let mut command = place.phalanx(&["validate", "spec.yaml"]);
    let said = crate::place::ended(command.env("TAG", "1"));
    assert_eq!(said.code, Some(2), "{said:?}");
}

fn env_file_quotes() {
    passes(&Place::of_field("env-file-quotes").call(&["run", "spec.yaml"]));
}

fn env_file_windows() {
    passes(&Place::of_field("env-file-windows").call(&["run", "spec.yaml"]));
}

fn env_file_without_its_text() {
    let place = Place::of_field("env-file-quotes");
    place.write("app.env", "FINE=1\nhush hush, nobody reads this\n");
    let said = place.call(&["run", "spec.yaml"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(all(&said).contains("env_file app.env: line 2"), "{said:?}");
    assert!(!all(&said).contains("hush"), "{said:?}");
}

fn everyday_keys_run() {
    let (_lab, place) = with_image("compose-everyday-keys", "bb:1");
    passes(&place.call(&["run", "spec.yaml"]));
}

fn variables_have_their_defaults() {
    let (lab, place) = (Lab::new(), Place::of_field("compose-variables"));
    let (name, tag) = lab.image.rsplit_once(':').unwrap();
    place.replace(
        "docker-compose.yml",
        "bb:${BB_TAG:-1}",
        &format!("{name}:${{BB_TAG:-{tag}}}"),
    );
    // The lab's image has no mkdir.
    place.replace(
        "docker-compose.yml",
        "mkdir -p /www",
        "busybox mkdir -p /www",
    );
    passes(&place.call(&["validate", "spec.yaml"]));
    passes(&place.call(&["run", "spec.yaml"]));
}

fn variables_have_values() {
    let lab = Lab::new();
    let (name, tag) = lab.image.rsplit_once(':').unwrap();
    let place = Place::new();
    place.write(
        "docker-compose.yml",
        "services:\n  web:\n    image: ${IMAGE:?}:${TAG:-none}\n    read_only: ${READ_ONLY:-false}\n    environment: { GREETING: \"${GREETING:-hello}, ${WHO}\", BARE: }\n    command: [sleep, '600']\n    stop_grace_period: 1s\n    healthcheck: { test: [CMD, 'true'], interval: 1s, retries: \"$RETRIES\" }\n",
    );
    place.write(
        "values.env",
        format!("IMAGE={name}\nRETRIES=3\nGREETING='never'\nBARE=$RETRIES\n"),
    );
    place.write(
        "spec.yaml",
        format!(
            "strategy: {{ matrix: {{ greeting: [hi, ''], who: [you] }} }}\nstack:\n  compose: docker-compose.yml\n  env-file: values.env\n  variables: {{ TAG: '{tag}', GREETING: '${{{{ matrix.greeting }}}}', WHO: '${{{{ matrix.who }}}}', READ_ONLY: 'true' }}\nphases:\n  t:\n    - exec: {{ service: web, script: 'echo \"$GREETING $BARE\"; ! echo x > /etc/new' }}\n      expect: [\"stdout == (matrix.greeting == '' ? 'hello' : 'hi') + ', you 3\\\\n'\"]\n"
        ),
    );
    let said = place.call(&["run", "spec.yaml"]);
    passes(&said);
}

fn merged_files_run() {
    let lab = Lab::new();
    let image = &lab.image;
    let place = Place::new();
    place.write(
        "compose.yml",
        format!("include: [{{ path: side/side.yml, env_file: side/side.env }}]\nservices:\n  web:\n    extends: {{ service: base, file: lib/base.yml }}\n    environment: [B=2]\n    volumes: ['./made:/made']\n  tool: {{ image: '{image}', command: [sleep, '600'], stop_grace_period: 1s, profiles: [tools] }}\n  other: {{ image: '{image}', command: [sleep, '600'], stop_grace_period: 1s, profiles: [others] }}\n"),
    );
    place.write(
        "lib/base.yml",
        format!("services:\n  base:\n    image: '{image}'\n    command: [sleep, '600']\n    stop_grace_period: 1s\n    environment: {{ A: 1, B: 1, C: 1 }}\n    volumes: ['./seed:/seed:ro']\n"),
    );
    place.write("lib/seed/text", "seed\n");
    place.write(
        "side/side.yml",
        format!("services: {{ side: {{ image: '{image}', command: [sleep, '600'], stop_grace_period: 1s, environment: [SIDE], volumes: ['./own:/own'] }} }}\n"),
    );
    place.write("side/side.env", "SIDE=of-side\n");
    place.write("side/own/text", "own\n");
    place.write(
        "over.yml",
        "services: { web: { environment: { A: \"${A}\", C: !reset null } } }\n",
    );
    place.write(
        "spec.yaml",
        "strategy: { matrix: { a: [x, y] } }\nworkspace: { include: [\"lib/**\", \"side/**\"] }\nstack:\n  compose: [compose.yml, over.yml]\n  profiles: tools\n  variables: { A: \"${{ matrix.a }}\" }\nphases:\n  t:\n    - exec: { service: web, script: 'echo \"$A $B ${C-}\"; cat /seed/text; echo new > /made/file; cat /made/file' }\n      expect: [\"stdout == matrix.a + ' 2 \\\\nseed\\\\nnew\\\\n'\"]\n    - exec: { service: side, script: 'echo \"$SIDE\"; cat /own/text' }\n      expect: [\"stdout == 'of-side\\\\nown\\\\n'\"]\n    - exec: { service: tool, command: [echo, hi] }\n",
    );
    let said = place.call(&["run", "spec.yaml"]);
    passes(&said);
    assert!(all(&said).contains("2 passed"), "{said:?}");
    assert!(!place.path().join("made").exists());
}

fn file_secrets() {
    let (_lab, place) = with_image("compose-file-secrets", "bb:1");
    passes(&place.call(&["run", "spec.yaml"]));
    place.write(
        "spec.yaml",
        "workspace: { include: [\"*.yml\", \"*.txt\"] }\nstack: { compose: docker-compose.yml }\nphases: { t: [{ exec: { service: app, script: \"! echo x > /run/secrets/db-password; cat /run/secrets/db-password; echo told\" }, expect: [\"stdout == 'other'\"] }] }\n",
    );
    let said = place.call(&["run", "spec.yaml"]);
    let text = all(&said);
    assert_eq!(said.code, Some(1), "{text}");
    assert!(text.contains("***"), "{text}");
    assert!(text.contains("told"), "{text}");
    assert!(!text.contains("correct-horse"), "{text}");
}

fn oneshot() {
    let (_lab, place) = with_image("oneshot-nobody-waits-for", "bb:1");
    for (from, to) in [
        ("mkdir -p", "busybox mkdir -p"),
        ("wget -qO- http://web", "busybox wget -qO- http://web"),
        ("\"CMD\", \"wget\"", "\"CMD\", \"busybox\", \"wget\""),
    ] {
        place.replace("docker-compose.yml", from, to);
    }
    passes(&place.call(&["run", "spec.yaml"]));
    // A failure is still a failure.
    place.replace("docker-compose.yml", "&& echo seeded", "&& exit 3");
    let said = place.call(&["run", "spec.yaml"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        all(&said).contains("seed exited unexpectedly, with code 3"),
        "{said:?}"
    );
}
