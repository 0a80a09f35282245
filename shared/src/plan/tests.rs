#![allow(clippy::unwrap_used)]
use super::*;
use crate::diagnostic::{Diagnostic, Source};
use crate::expr::ReadFile;
use crate::input::Given;
use crate::language::{Loaded, load};
use serde_json::json;
use std::sync::Arc;

const SHOP: &str = r#"
name: shop
inputs:
  database: { options: [postgres, mysql, all], default: all }
  version: { default: "" }
require:
  - { that: "inputs.version == '' || inputs.version.matches('^v?[0-9]')", message: "version looks like v1.2, not ${{ inputs.version }}" }
strategy:
  max-parallel: 3
  matrix:
    database: "${{ inputs.database == 'all' ? ['postgres', 'mysql'] : [inputs.database] }}"
    version: "${{ inputs.version != '' ? [inputs.version] : ['v1.8', 'v1.9', 'v2.0'] }}"
    exclude: [{ database: mysql, version: v1.8 }]
    include: [{ database: postgres, version: v2.0, extra: true }]
cell:
  name: "${{ matrix.database }} / ${{ vars.short }}"
  runs-on: [docker, "${{ matrix.extra == true ? 'big' : null }}"]
  resources: { cpus: 1, memory: 1GiB }
  timeout: 20m
  attempts: 2
  experimental: "${{ matrix.version == 'v2.0' }}"
vars:
  image: "shop:${{ vars.short }}-${{ vars.release }}"
  short: "${{ matrix.version.substring(1) }}"
  release: "${{ fromTOML(file('shop.toml')).release }}"
  label: "cell ${{ cell.name }}"
services:
  shop: { image: "${{ vars.image }}" }
phases:
  assert:
    - { run: "true" }
"#;

fn files() -> ReadFile {
    Arc::new(|path| match path {
        "shop.toml" => Ok("release = 7".to_owned()),
        _ => Err(format!("there is no file {path}")),
    })
}

fn loaded(text: &str) -> Loaded {
    let source = Source {
        name: "shop.yaml".into(),
        text: text.into(),
    };
    let loaded = load(source, &mut |path| Err(format!("no file {path}")));
    assert!(loaded.spec.is_some(), "{:?}", loaded.diagnostics);
    loaded
}

fn given(texts: &[(&str, &str)]) -> Given {
    Given {
        texts: texts
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect(),
        ..Given::default()
    }
}

fn planned(text: &str, given: &Given, selection: &Selection) -> Result<Plan, Vec<Diagnostic>> {
    let loaded = loaded(text);
    let spec = Arc::new(loaded.spec.unwrap());
    expand(&Request {
        spec: spec.clone(),
        sources: &loaded.sources,
        given,
        files: files(),
        workspace: Some("abc".into()),
        selection,
        max_cells: None,
    })
}

fn shop(texts: &[(&str, &str)]) -> Plan {
    planned(SHOP, &given(texts), &Selection::default()).unwrap()
}

fn narrowed(only: &[&str], cells: &[&str]) -> Result<Vec<String>, String> {
    let selection = Selection {
        only: only.iter().map(|s| s.to_string()).collect(),
        cells: cells.iter().map(|s| s.to_string()).collect(),
    };
    match planned(SHOP, &Given::default(), &selection) {
        Ok(plan) => Ok(plan.cells.into_iter().map(|cell| cell.name).collect()),
        Err(problems) => Err(shown(&problems)),
    }
}

fn shown(problems: &[Diagnostic]) -> String {
    let one = |p: &Diagnostic| format!("{} | {}", p.message, p.help.clone().unwrap_or_default());
    problems.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// Returns the problems of a spec in which `from` is replaced by `to`. They come from the checker or, if it accepts the
/// spec, from the planner.
fn problems(from: &str, to: &str) -> String {
    assert!(SHOP.contains(from), "{from}");
    problems_of(&SHOP.replace(from, to))
}

fn problems_of(text: &str) -> String {
    let source = Source {
        name: "shop.yaml".into(),
        text: text.into(),
    };
    let loaded = load(source, &mut |path| Err(format!("no file {path}")));
    if loaded.spec.is_none() {
        return shown(&loaded.diagnostics);
    }
    shown(&planned(text, &Given::default(), &Selection::default()).unwrap_err())
}

#[test]
fn a_plan_holds_every_cell_with_its_settings() {
    let plan = shop(&[]);
    let names: Vec<&str> = plan.cells.iter().map(|cell| cell.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "postgres / 1.8",
            "postgres / 1.9",
            "postgres / 2.0",
            "mysql / 1.9",
            "mysql / 2.0"
        ]
    );
    assert_eq!(plan.axes, ["database", "version"]);
    assert_eq!((plan.max_parallel, plan.fail_fast), (Some(3), false));
    let cell = &plan.cells[2];
    assert_eq!(
        serde_json::to_value(&cell.matrix).unwrap(),
        json!({"database": "postgres", "version": "v2.0", "extra": true})
    );
    assert_eq!(cell.runs_on, ["docker", "big"]);
    assert_eq!(plan.cells[0].runs_on, ["docker"]);
    assert!(cell.experimental && !plan.cells[0].experimental);
    assert_eq!(
        cell.resources,
        Resources {
            millicpus: 1000,
            memory_bytes: 1 << 30,
            subnets: 0
        }
    );
    assert_eq!(
        (cell.timeout_ms, cell.attempts, cell.retries),
        (1_200_000, 2, 0)
    );
    assert_eq!(plan.files["shop.toml"], "release = 7");
}

#[test]
fn the_same_cell_has_the_same_id_in_every_plan() {
    let all = shop(&[]);
    let one = shop(&[("database", "mysql"), ("version", "v1.9")]);
    assert_eq!(
        one.cells.len(),
        2,
        "and the entry of `include` that no longer matches, as on GitHub"
    );
    assert_eq!(one.cells[0].id, all.cells[3].id);
    assert_eq!(all.cells[3].id.as_str().len(), 16);
    assert_ne!(one.digest, all.digest);
    let swapped: indexmap::IndexMap<_, _> = all.cells[3].matrix.clone().into_iter().rev().collect();
    assert_eq!(
        cell_id(&swapped),
        all.cells[3].id,
        "the order of the axes has no part in the id"
    );
    assert_eq!(
        all.cells[3].id.as_str(),
        "ba11ca6110db944d",
        "ids are for ever: journals and links hold them"
    );
}

#[test]
fn the_digest_is_of_spec_inputs_workspace_and_cells_alone() {
    let plan = shop(&[]);
    assert_eq!(plan.digest, shop(&[]).digest);
    assert_eq!(plan.digest, shop(&[("database", "all")]).digest);
    let touched = planned(
        &format!("{SHOP}\n# more"),
        &Given::default(),
        &Selection::default(),
    )
    .unwrap();
    assert_ne!(plan.digest, touched.digest);
    // The environment is not read, so no value of it can be in the plan (I5).
    let text = serde_json::to_string(&plan).unwrap();
    for (name, value) in std::env::vars() {
        assert!(value.len() < 12 || !text.contains(&value), "{name}");
    }
}

#[test]
fn a_job_is_made_from_spec_and_plan_alone() {
    let loaded = loaded(SHOP);
    let spec = Arc::new(loaded.spec.unwrap());
    let selection = Selection {
        only: vec!["version=v1.9".into()],
        cells: vec![],
    };
    let plan = planned(SHOP, &Given::default(), &selection).unwrap();
    let jobs = Jobs::new(spec, loaded.sources, plan.clone()).unwrap();
    let job = jobs.job(&plan.cells[1].id, Keep::Never).unwrap();
    assert_eq!(
        json!(job.matrix),
        json!({"database": "mysql", "version": "v1.9", "extra": null})
    );
    assert_eq!(
        json!(job.vars),
        json!({"image": "shop:1.9-7", "short": "1.9", "release": 7, "label": "cell mysql / 1.9"})
    );
    assert_eq!(json!(job.workspace), json!({"digest": "abc"}));
    assert!(jobs.job(&CellId::from("nope"), Keep::Never).is_err());
}

#[test]
fn a_requirement_that_does_not_hold_is_told_with_its_message() {
    let problems = planned(
        SHOP,
        &given(&[("version", "latest")]),
        &Selection::default(),
    )
    .unwrap_err();
    assert_eq!(problems[0].message, "version looks like v1.2, not latest");
    assert!(problems[0].span.is_some());
}

#[test]
fn only_and_cell_narrow_the_plan() {
    let all = shop(&[]);
    assert_eq!(
        narrowed(&["database=mysql,version=*2*"], &[]).unwrap(),
        ["mysql / 2.0"]
    );
    assert_eq!(
        narrowed(&["version=v1.8", "database=post*,version=v1.9"], &[]).unwrap(),
        ["postgres / 1.8", "postgres / 1.9"],
        "values of one axis are alternatives"
    );
    assert_eq!(narrowed(&["extra=true"], &[]).unwrap(), ["postgres / 2.0"]);
    let id = all.cells[1].id.as_str();
    assert_eq!(narrowed(&[], &[id]).unwrap(), ["postgres / 1.9"]);
    assert_eq!(narrowed(&[], &[&id[..6]]).unwrap(), ["postgres / 1.9"]);
    assert_eq!(narrowed(&[], &["mysql / 1.9"]).unwrap(), ["mysql / 1.9"]);
}

#[test]
fn a_selection_that_matches_nothing_is_an_error_with_a_suggestion() {
    assert_eq!(
        narrowed(&["databse=mysql"], &[]).unwrap_err(),
        "--only 'databse=mysql': the matrix has no `databse` | did you mean `database`?"
    );
    assert_eq!(
        narrowed(&["version=v1.7"], &[]).unwrap_err(),
        "--only 'version=v1.7': no cell has version = v1.7 | did you mean `v1.8`?"
    );
    assert_eq!(
        narrowed(&["version=latest"], &[]).unwrap_err(),
        "--only 'version=latest': no cell has version = latest | the values of `version`: v1.8, v1.9, v2.0"
    );
    assert!(
        narrowed(&["database=mysql,version=v1.8"], &[])
            .unwrap_err()
            .contains("no cell fulfils all of it")
    );
    assert!(
        narrowed(&["mysql"], &[])
            .unwrap_err()
            .contains("has no `=`")
    );
    assert!(
        narrowed(&[], &["mysql / 1.0"])
            .unwrap_err()
            .contains("did you mean `mysql / 1.9`?")
    );
    assert!(
        narrowed(&["extra=true"], &["mysql / 1.9"])
            .unwrap_err()
            .contains("both")
    );
}

#[test]
fn an_empty_matrix_names_the_input_that_emptied_it() {
    assert_eq!(
        problems(
            "inputs.database == 'all' ? ['postgres', 'mysql'] : [inputs.database]",
            "['postgres'].filter(d, d == inputs.database)"
        ),
        "axis `database` has no values, so there are no cells | input `database` is \"all\""
    );
    assert_eq!(
        problems_of(&SHOP.replace("matrix.extra == true", "false").replace("exclude: [{ database: mysql, version: v1.8 }]\n    include: [{ database: postgres, version: v2.0, extra: true }]",
            "exclude: [{ database: mysql }, { database: \"${{ inputs.database == 'all' ? 'postgres' : 'x' }}\" }]"))
            .split('|').next().unwrap(),
        "`exclude` removes all 6 combinations, so there are no cells "
    );
}

#[test]
fn mistakes_are_found_before_anything_starts() {
    assert_eq!(
        problems(
            "matrix.version.substring(1)",
            "matrix.version.substring(3) + vars.image"
        ),
        "variables need each other in a circle: image → short → image | one of them has to stand on its own"
    );
    assert!(
        problems("file('shop.toml')", "file('none.toml')")
            .contains("file: there is no file none.toml")
    );
    assert!(
        problems("timeout: 20m", "timeout: \"${{ 'soon' }}\"").contains("`timeout` is \"soon\"")
    );
    assert!(problems("attempts: 2", "attempts: \"${{ 0 }}\"").contains("a whole number from 1"));
    assert!(
        problems("shop:${{ vars.short }}", "shop:${{ int(vars.short) }}").contains("(in cell {")
    );
    assert!(
        problems(
            "image: \"${{ vars.image }}\"",
            "image: \"${{ {'postgres': 'a'}[matrix.database] }}\""
        )
        .contains("has no `mysql` (in cell {database: mysql, version: v1.9} and in another one)")
    );
    assert!(
        problems("'v1.8', 'v1.9', 'v2.0'", "'v1.9', 'v1.9'")
            .contains("two cells have the same values")
    );
}

#[test]
fn without_a_matrix_there_is_one_cell_called_like_the_spec() {
    let plan = planned(
        "name: one\nphases: { assert: [{ run: \"true\" }] }\n",
        &Given::default(),
        &Selection::default(),
    )
    .unwrap();
    assert_eq!(plan.cells.len(), 1);
    assert_eq!(plan.cells[0].name, "one");
    assert!(plan.cells[0].matrix.is_empty());
}

#[test]
fn a_configured_cap_fails_before_the_start() {
    let loaded = loaded(SHOP);
    let spec = Arc::new(loaded.spec.unwrap());
    let problems = expand(&Request {
        spec: spec.clone(),
        sources: &loaded.sources,
        given: &Given::default(),
        files: files(),
        workspace: None,
        selection: &Selection::default(),
        max_cells: Some(4),
    });
    assert_eq!(
        shown(&problems.unwrap_err()),
        "the matrix has 5 cells, `max_cells` allows 4 | database 2 × version 3; the setting max_cells (PHALANX_MAX_CELLS) allows more, 0 any number"
    );
}

#[test]
fn a_cell_reserves_a_subnet_for_each_of_its_networks_if_it_has_several() {
    let reserved = |services: &str| {
        let spec = format!("name: n\nservices: {services}\nphases: {{ p: [{{ run: \"x\" }}] }}\n");
        super::networks::reserved(&loaded(&spec).spec.unwrap())
    };
    assert_eq!(reserved("{ a: { image: x }, b: { image: x } }"), 0);
    assert_eq!(reserved("{ a: { image: x, networks: [default] } }"), 0);
    let two = "{ a: { image: x, networks: [f, g] }, b: { image: x, networks: { g: {} } } }";
    assert_eq!(reserved(two), 3, "the default one and two more");
}
