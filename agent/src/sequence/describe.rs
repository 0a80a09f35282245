//! Describes steps that don't run by their names and rows, as far as these can be evaluated.

use super::skip::Describe;
use crate::context::CellContext;
use crate::context::frame::{Frame, Value, View};
use crate::step::contract::Item;
use crate::step::name;
use phalanx_shared::language::model::{Action, Step};
use std::collections::BTreeMap;

/// Evaluates descriptions in the context of the attempt.
pub(super) struct Described<'a>(pub &'a CellContext);

impl Describe for Described<'_> {
    fn name(&self, step: &Step, view: &View) -> String {
        let scope = self.0.scope(view);
        name::lenient(step, self.0.evaluate(&scope))
    }

    fn rows(&self, item: &Item, view: &View) -> Vec<String> {
        let (verifies, each) = match item {
            Item::Phase(phase) => (&phase.verifies, None),
            Item::Step(step) => (&step.verifies, step.foreach.as_ref()),
        };
        let Some(verifies) = verifies else {
            let of_cases = match item {
                Item::Step(step) => step.case_rows.as_slice(),
                Item::Phase(_) => &[],
            };
            return of_cases.iter().map(|row| row.row.text.clone()).collect();
        };
        let scope = self.0.scope(view);
        let evaluate = self.0.evaluate(&scope);
        if let Ok(row) = evaluate.text(verifies) {
            return vec![row];
        }
        // The row depends on the value, so the rows of all values are skipped.
        let Some(each) = each else { return Vec::new() };
        let values = evaluate.list(&each.items, "foreach").unwrap_or_default();
        values
            .into_iter()
            .filter_map(|value| {
                let variable = Some((each.variable.text.clone(), value));
                let inner = view.within(Frame {
                    variable,
                    ..Frame::default()
                });
                let scope = self.0.scope(&inner);
                self.0.evaluate(&scope).text(verifies).ok()
            })
            .collect()
    }

    fn params(&self, step: &Step, view: &View) -> BTreeMap<String, Value> {
        let Action::Use(used) = &step.action else {
            return BTreeMap::new();
        };
        let scope = self.0.scope(view);
        let evaluate = self.0.evaluate(&scope);
        let defines = &self.0.spec.define;
        let define = defines
            .iter()
            .find(|define| define.name.text == used.define.text);
        let defaults = define.into_iter().flat_map(|define| &define.params);
        let defaults = defaults.filter_map(|param| {
            let value = evaluate.value(param.default.as_ref()?).ok()?;
            Some((param.name.text.clone(), value))
        });
        let given = used
            .with
            .iter()
            .filter_map(|(name, node)| Some((name.text.clone(), evaluate.value(node).ok()?)));
        defaults.chain(given).collect()
    }
}
