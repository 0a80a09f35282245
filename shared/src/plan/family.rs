//! The family of a cell's snapshot: what is known of its key before the cell runs. Pure.
//!
//! A key depends on the ids of images and on files that only an agent has. Cells of one family have the same key if these are
//! the same, too, so an agent that keeps a snapshot of the family probably has the one that a cell needs. A wrong guess
//! costs time and nothing else: an agent restores by keys.

use super::Jobs;
use super::context::{Cell, Planner};
use super::expand::MAX_STEPS;
use super::kin::{Common, digest};
use crate::expr::Allowance;
use crate::id::CellId;
use crate::language::snapshot::{Group, group, read_of};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

impl Jobs {
    /// Returns the family of a cell's snapshot: 64 hexadecimal digits. `None` if the cell uses no snapshot, or one that no
    /// second cell can use.
    pub fn snapshot_family(&self, cell: &CellId) -> Option<String> {
        let planner = &self.planner;
        let common = self.family.get_or_init(|| Common::of(&planner.spec));
        let common = common.as_ref()?;
        let _bounded = Allowance::of(MAX_STEPS);
        let planned = self.planned(cell).ok()?;
        let context = self.context(planned).ok()?;
        let Group {
            phase,
            step,
            snapshot,
            ..
        } = group(&planner.spec.phases)?;
        if !runs(planner, &context, phase.when.iter().chain(&step.when)) {
            return None;
        }
        // What can't be evaluated yet is the same in all cells that the values don't tell apart.
        let own = snapshot.key.iter().map(|expr| {
            let program = planner.cache.program(expr).ok();
            let value = program.and_then(|program| program.eval(&context.scope).ok());
            value.unwrap_or_else(|| json!({ "unknown": expr.text }))
        });
        let own: Vec<Value> = own.collect();
        let matrix = super::expand::matrix_context(&self.keys, &planned.matrix);
        let workspace = super::expand::workspace_context(self.plan.workspace.as_deref());
        let cell = Map::from_iter([
            ("name".to_owned(), json!(planned.name)),
            ("id".to_owned(), json!(planned.id)),
        ]);
        let vars = planner.vars(context);
        let mut values = BTreeMap::new();
        for (name, of) in [
            ("inputs", &self.plan.inputs),
            ("matrix", &matrix),
            ("vars", &vars),
            ("workspace", &workspace),
            ("cell", &cell),
        ] {
            values.extend(read_of(&common.reads, name, of).map(|value| (name, value)));
        }
        Some(digest(&json!({
            "text": common.text,
            "values": values,
            "own": own,
        })))
    }
}

/// Returns whether conditions hold. One that isn't known yet counts as held.
fn runs<'e>(
    planner: &Planner,
    context: &Cell,
    conditions: impl Iterator<Item = &'e crate::node::Expr>,
) -> bool {
    let mut conditions = conditions;
    conditions.all(|when| {
        let program = planner.cache.program(when).ok();
        let held = program.and_then(|program| program.eval_bool(&context.scope).ok());
        held.unwrap_or(true)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Request, Selection, expand};
    use super::*;
    use crate::diagnostic::{Source, Sources};
    use crate::input::Given;
    use crate::language::load;
    use std::sync::Arc;

    const SHOP: &str = r#"
name: shop
inputs: { seed: { default: "1" }, other: { default: "x" } }
vars: { size: "${{ inputs.seed }}0" }
strategy: { matrix: { db: [pg, my], n: [1, 2] } }
cell: { resources: { cpus: 0.05, memory: 16MiB } }
services:
  db: { image: "${{ matrix.db }}:1", command: [sleep, "1000"] }
  web: { image: "web:1", command: [sleep, "1000"] }
phases:
  setup:
    - name: seeded
      snapshot: { services: [db] }
      steps:
        - exec: { service: db, command: [seed, "${{ vars.size }}"] }
  test:
    - exec: { service: web, command: [check, "${{ matrix.n }}", "${{ inputs.other }}"] }
"#;

    /// Returns the families of a spec's cells, in order.
    fn families(text: &str, inputs: &[(&str, &str)]) -> Vec<Option<String>> {
        let source = Source {
            name: "spec.yaml".to_owned(),
            text: text.to_owned(),
        };
        let loaded = load(source, &mut |_| Err("there is no such file".to_owned()));
        let spec = loaded
            .spec
            .unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics));
        let spec = Arc::new(spec);
        let given = Given {
            texts: inputs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Given::default()
        };
        let plan = expand(&Request {
            spec: Arc::clone(&spec),
            sources: &Sources::default(),
            given: &given,
            files: Arc::new(|_: &str| Err("there are no files".to_owned())),
            workspace: None,
            selection: &Selection::default(),
            max_cells: None,
        })
        .unwrap();
        let cells: Vec<CellId> = plan.cells.iter().map(|cell| cell.id.clone()).collect();
        let jobs = Jobs::new(spec, Sources::default(), plan).unwrap();
        cells.iter().map(|id| jobs.snapshot_family(id)).collect()
    }

    #[test]
    fn cells_are_of_one_family_unless_the_group_or_its_services_read_what_differs() {
        let of = families(SHOP, &[]);
        let [pg1, pg2, my1, my2] = of.as_slice() else {
            panic!("{of:?}");
        };
        assert!(pg1.as_ref().is_some_and(|family| family.len() == 64));
        assert_eq!((pg1, my1), (pg2, my2));
        assert_ne!(pg1, my1);
    }

    #[test]
    fn what_the_group_reads_changes_it_and_what_others_read_does_not() {
        let base = families(SHOP, &[]);
        assert_eq!(families(SHOP, &[("other", "y")]), base);
        assert_ne!(families(SHOP, &[("seed", "2")]), base);
        let changed = |from: &str, to: &str| {
            assert!(SHOP.contains(from), "{from}");
            families(&SHOP.replace(from, to), &[])
        };
        assert_eq!(changed("web:1", "web:2"), base);
        assert_eq!(changed("[check,", "[look,"), base);
        assert_eq!(changed("name: shop\n", "# a comment\nname: shop\n"), base);
        assert_ne!(changed("[seed,", "[plant,"), base);
        assert_ne!(changed("}}:1\"", "}}:2\""), base);
        let own = changed("services: [db] }", "services: [db], key: [inputs.other] }");
        assert_ne!(own, base);
        let other = SHOP.replace("services: [db] }", "services: [db], key: [inputs.other] }");
        assert_ne!(families(&other, &[("other", "y")]), own);
    }

    #[test]
    fn a_cell_without_a_snapshot_and_one_that_no_other_can_use_have_none() {
        let without = SHOP.replace("      snapshot: { services: [db] }\n", "");
        assert_eq!(families(&without, &[]), [None, None, None, None]);
        let of_run = SHOP.replace("vars.size", "run.id");
        assert_eq!(families(&of_run, &[]), [None, None, None, None]);
        let when = SHOP.replace(
            "      snapshot:",
            "      when: matrix.db == 'pg'\n      snapshot:",
        );
        let of = families(&when, &[]);
        let has: Vec<bool> = of.iter().map(Option::is_some).collect();
        assert_eq!(has, [true, true, false, false]);
    }
}
