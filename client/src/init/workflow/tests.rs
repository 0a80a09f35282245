//! Specs of workflows: the text as a whole, that it is a spec, and that damage never panics.
#![allow(clippy::unwrap_used)]

use super::*;
use phalanx_shared::diagnostic::Source;
use phalanx_shared::language;
use proptest::prelude::*;

const WORKFLOW: &str = r#"name: Tests
on: [push]
env:
  TZ: UTC
concurrency: ci
jobs:
  lint:
    runs-on: ubuntu-latest
    steps:
      - run: ruff check
  e2e:
    name: End to end
    needs: lint
    if: github.event_name == 'push'
    runs-on: ${{ matrix.os }}
    timeout-minutes: 30
    continue-on-error: ${{ matrix.experimental }}
    strategy:
      fail-fast: false
      max-parallel: 4
      matrix:
        os: [ubuntu-24.04, macos-15]
        postgres: ["16", "17"]
        dynamic: ${{ fromJSON(needs.lint.outputs.x) }}
        exclude:
          - { os: macos-15, postgres: "16" }
        include:
          - { os: ubuntu-24.04, postgres: "18", experimental: true }
          - { os: "${{ vars.OS }}" }
    services:
      postgres:
        image: postgres:${{ matrix.postgres }}
        env: { POSTGRES_PASSWORD: shop, POSTGRES_DB: shop }
        ports: ["5433:5432"]
        credentials: { username: x, password: "${{ secrets.PASSWORD }}" }
        options: >-
          --health-cmd "pg_isready -U postgres"
          --health-interval 2s
          --health-retries=10
          --network-alias db
      redis-cache:
        image: redis
        ports: [6379]
    env:
      DATABASE_URL: postgres://postgres:shop@localhost:5433/shop
      PGPORT: 5433
      POSTGRES_HOST: localhost
      REDIS: redis://localhost:${{ job.services.redis-cache.ports[6379] }}
      TOKEN: ${{ secrets.TOKEN }}
    steps:
      - uses: actions/checkout@v4
        with: { fetch-depth: 0 }
      - uses: actions/setup-python@v5
        with: { python-version: "3.12" }
      - name: Install for ${{ matrix.os }}
        run: |
          pip install -r requirements.txt
          psql -p 5433 -c 'SELECT 1'
      - name: Only with 17
        if: matrix.postgres == '17'
        run: pytest -k seventeen
        working-directory: tests
        env: { EXTRA: "1" }
        timeout-minutes: 5
      - run: echo "sha=${{ github.sha }}"
      - run: echo "a=1" >> "$GITHUB_OUTPUT"
        id: out
        continue-on-error: true
      - if: failure()
        run: docker logs
      - if: always()
        shell: bash
        run: echo "over $TZ ${{ env.TZ }}"
      - shell: pwsh
        run: Get-Date
      - uses: actions/upload-artifact@v4
"#;

const CONTAINER: &str = r#"jobs:
  test:
    strategy: { matrix: { python: ["3.11", "3.12"] } }
    container:
      image: python:${{ matrix.python }}
      env: { PYTHONUNBUFFERED: 1 }
      options: --user root
    services:
      db: { image: "postgres:17", env: { POSTGRES_PASSWORD: x }, ports: ["5432:5432"] }
    env: { DATABASE_URL: "postgres://postgres:x@db/postgres" }
    steps:
      - uses: actions/checkout@v4
      - run: pytest
"#;

fn made(text: &str, job: Option<&str>) -> Result<Draft, Vec<Diagnostic>> {
    let from = From {
        path: "test.yml",
        text,
        job,
    };
    draft("phalanx.yaml", from)
}

fn remarks(draft: &Draft) -> String {
    let lines = draft.remarks.iter();
    let lines = lines.map(|remark| format!("{}: {}", remark.line, remark.text));
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the findings about a spec, which has no further files.
fn findings(spec: &str) -> Vec<String> {
    let main = Source {
        name: "phalanx.yaml".to_owned(),
        text: spec.to_owned(),
    };
    let loaded = language::load(main, &mut |_| Err("no file".to_owned()));
    let found = loaded.diagnostics.iter();
    found.map(|found| found.message.clone()).collect()
}

#[test]
fn a_spec_of_a_job_with_everything() {
    let draft = made(WORKFLOW, None).unwrap();
    insta::assert_snapshot!(draft.spec);
    insta::assert_snapshot!(remarks(&draft));
    assert_eq!(
        findings(&draft.spec),
        Vec::<String>::new(),
        "{}",
        draft.spec
    );
}

#[test]
fn steps_of_a_job_in_a_container_run_in_that_container() {
    let draft = made(CONTAINER, None).unwrap();
    insta::assert_snapshot!(draft.spec);
    assert_eq!(remarks(&draft), "");
    assert_eq!(
        findings(&draft.spec),
        Vec::<String>::new(),
        "{}",
        draft.spec
    );
}

#[test]
fn another_job_is_taken_by_its_name() {
    let draft = made(WORKFLOW, Some("lint")).unwrap();
    assert!(draft.spec.contains("ruff check"), "{}", draft.spec);
    assert_eq!(findings(&draft.spec), Vec::<String>::new());
    let found = made(WORKFLOW, Some("e3e")).unwrap_err();
    assert_eq!(found[0].message, "the workflow has no job `e3e`");
    assert_eq!(found[0].help.as_deref(), Some("its jobs are `lint`, `e2e`"));
}

#[test]
fn a_job_without_anything_to_take_is_refused_with_the_reason() {
    let text = "jobs:\n  a:\n    steps:\n      - uses: x/y@v1\n";
    let found = made(text, None).unwrap_err();
    assert!(found[0].message.contains("nothing to take over"));
    assert!(
        found[0]
            .help
            .as_ref()
            .unwrap()
            .contains("line 4: `uses: x/y@v1`")
    );
    assert_eq!(
        made("a: 1", None).unwrap_err()[0].message,
        "the workflow has no jobs"
    );
    assert!(!made("jobs: [", None).unwrap_err().is_empty());
}

#[test]
fn a_matrix_is_found_in_a_workflow() {
    assert!(has_matrix(WORKFLOW));
    assert!(!has_matrix("jobs: { a: { steps: [] } }"));
    assert!(!has_matrix("jobs: ["));
}

fn damaged() -> impl Strategy<Value = String> {
    let texts = prop_oneof![Just(WORKFLOW), Just(CONTAINER)];
    let with = "[\\[\\]{}:\\-$ \\n\"'a&*!|>()=.]{0,6}";
    (texts, any::<prop::sample::Index>(), with, 0..60usize).prop_map(|(text, cut, with, skip)| {
        let cut = cut.index(text.len());
        let end = (cut + skip).min(text.len());
        format!("{}{with}{}", &text[..cut], &text[end..])
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn damaged_workflows_never_panic_and_what_is_made_is_yaml(text in damaged()) {
        if let Ok(draft) = made(&text, None) {
            let mut found = Vec::new();
            let root = parse(0, &draft.spec, &mut found);
            prop_assert!(root.is_some(), "{found:?}\n{}", draft.spec);
            let main = Source { name: "phalanx.yaml".to_owned(), text: draft.spec.clone() };
            let _ = language::load(main, &mut |_| Err("no file".to_owned()));
        }
    }
}
