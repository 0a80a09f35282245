//! Specs of Compose files: the text as a whole, and what can't be taken over.
#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

const COMPOSE: &str = r#"
name: shop
services:
  db:
    image: "postgres:${PG:-17}"
    environment: { POSTGRES_PASSWORD: "${PASSWORD:?choose one}", TZ: "$ZONE" }
    volumes: ["db:/var/lib/postgresql", "./init:/docker-entrypoint-initdb.d:ro"]
    healthcheck: { test: [CMD, pg_isready] }
  migrate:
    build: { context: ./migrate }
    env_file: [app.env, missing.env]
    depends_on: { db: { condition: service_healthy } }
  web-app:
    build: web/
    ports: ["127.0.0.1:8080:80/tcp"]
    volumes: [{ type: bind, source: ../other, target: /o }, "${DATA:-./d}:/d"]
    depends_on: { migrate: { condition: service_completed_successfully } }
  mail:
    image: mailpit
    profiles: [dev]
volumes: { db: {} }
"#;

fn look(path: &str) -> Option<Kind> {
    match path {
        "init" | "migrate" | "web" | "." => Some(Kind::Directory),
        "app.env" => Some(Kind::File),
        _ => None,
    }
}

fn made(text: &str, env_file: Option<(&str, &str)>) -> Result<Draft, Vec<Diagnostic>> {
    let from = From {
        path: "compose.yaml",
        over: &[],
        text,
        env_file,
        look: &look,
        read: &|path| match path {
            "compose.yaml" => Some(text.to_owned()),
            ".env" => env_file.map(|(_, text)| text.to_owned()),
            "app.env" => Some(String::new()),
            _ => None,
        },
    };
    draft("phalanx.yaml", "project", &from)
}

/// Makes a spec of several files. All files exist that one of the services names.
fn made_of(files: &[(&str, &str)], over: &[&str]) -> Draft {
    let text = |path: &str| {
        let found = files.iter().find(|(name, _)| *name == path);
        found.map(|(_, text)| (*text).to_owned())
    };
    let over: Vec<String> = over.iter().map(|path| (*path).to_owned()).collect();
    let from = From {
        path: files[0].0,
        over: &over,
        text: files[0].1,
        env_file: None,
        look: &|path| match path.ends_with(".env") {
            true => Some(Kind::File),
            false => Some(Kind::Directory),
        },
        read: &text,
    };
    draft("phalanx.yaml", "project", &from).unwrap()
}

#[test]
fn services_of_further_and_included_files_get_steps_too() {
    let files = [
        (
            "compose.yaml",
            "include: [lib/cache.yaml]\nservices: { web: { image: x, depends_on: [cache] } }\n",
        ),
        (
            "lib/cache.yaml",
            "services: { cache: { image: y, volumes: ['./conf:/c'], healthcheck: { test: x } } }\n",
        ),
        (
            "more.yaml",
            "services: { web: { ports: [80], env_file: a.env }, job: { image: z }, after: { image: z, depends_on: { job: { condition: service_completed_successfully } } }, tool: { image: t, profiles: [p] } }\n",
        ),
    ];
    let draft = made_of(&files, &["more.yaml"]);
    let spec = &draft.spec;
    for line in [
        "compose: [compose.yaml, more.yaml]",
        "include: [a.env, \"lib/conf/**\"]",
        "  web:\n    ready:\n      tcp: 80",
        "name: cache is ready",
        "name: web is ready",
        "name: job ends well",
    ] {
        assert!(spec.contains(line), "{line} isn't in\n{spec}");
    }
    assert!(!spec.contains("name: tool"), "{spec}");
    assert!(draft.remarks.is_empty(), "{spec}");
}

#[test]
fn files_that_do_not_load_together_are_remarked() {
    let files = [(
        "compose.yaml",
        "include: [gone.yaml]\nservices: { web: { image: x, ports: [80] } }\n",
    )];
    let draft = made_of(&files, &[]);
    assert!(draft.spec.contains("name: web is ready"), "{}", draft.spec);
    assert!(
        draft.remarks[0]
            .text
            .starts_with("the services of included files")
    );
}

#[test]
fn a_spec_of_a_compose_file() {
    let draft = made(COMPOSE, None).unwrap();
    insta::assert_snapshot!(draft.spec);
    let remarks: Vec<_> = draft
        .remarks
        .iter()
        .map(|remark| format!("{}: {}", remark.line, remark.text))
        .collect();
    insta::assert_snapshot!(remarks.join("\n"));
}

#[test]
fn values_of_an_env_file_are_no_axes() {
    let draft = made(
        COMPOSE,
        Some((".env", "PG=16\nexport PASSWORD=longenough\n")),
    )
    .unwrap();
    assert!(!draft.spec.contains("strategy:"), "{}", draft.spec);
    assert!(draft.spec.contains("env-file: \".env\""), "{}", draft.spec);
    assert!(!draft.spec.contains("change-me"));
}

#[test]
fn a_file_without_services_is_refused() {
    let found = made("a: 1", None).unwrap_err();
    assert_eq!(
        found[0].message,
        "the Compose file `compose.yaml` has no services"
    );
    assert!(!made("services: [", None).unwrap_err().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn damaged_files_never_panic(cut in 0..COMPOSE.len(), with in "[\\[\\]{}:\\-$ \\n\"'a&*!|>]{0,6}", skip in 0..40usize) {
        let end = (cut + skip).min(COMPOSE.len());
        let text = format!("{}{with}{}", &COMPOSE[..cut], &COMPOSE[end..]);
        if let Ok(draft) = made(&text, None) {
            let mut found = Vec::new();
            prop_assert!(parse(0, &draft.spec, &mut found).is_some(), "{}\n{found:?}", draft.spec);
        }
    }
}
