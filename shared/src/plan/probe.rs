//! Evaluates what can be evaluated of the services' definitions for each cell, so that a mistake that shows only in
//! some cell is found before anything starts.

use super::cells::for_templates;
use super::context::{Cell, Planner};
use crate::expr::{EvalError, TemplateProgram};
use std::sync::Arc;

/// Plans with more cells are not probed: it would take longer than it saves.
pub(super) const MAX_CELLS: usize = 2_000;

/// The templates that only need planned contexts, compiled.
pub(super) struct Probe {
    shared: Vec<Arc<TemplateProgram>>,
    per_cell: Vec<Arc<TemplateProgram>>,
}

impl Probe {
    pub(super) fn of(planner: &Planner) -> Probe {
        let mut probe = Probe {
            shared: Vec::new(),
            per_cell: Vec::new(),
        };
        let services = planner
            .spec
            .services
            .iter()
            .map(|service| &service.definition);
        for node in services.chain(&planner.spec.network) {
            for_templates(node, &mut |template| {
                let needs = planner.template_needs(template);
                let Ok(compiled) = planner.cache.template(template) else {
                    return;
                };
                // `file` is answered while planning only; where the definition is used it is an error of its own.
                let reads_files = compiled.calls().any(|call| call.name == "file");
                match (needs.running || reads_files, needs.per_cell()) {
                    (true, _) => {}
                    (false, true) => probe.per_cell.push(compiled),
                    (false, false) => probe.shared.push(compiled),
                }
            });
        }
        probe
    }

    /// Mistakes in this cell; those of every cell are reported with the first one.
    pub(super) fn mistakes(&self, cell: &Cell, first: bool) -> Vec<EvalError> {
        let shared = self.shared.iter().filter(|_| first);
        let all = shared.chain(&self.per_cell);
        all.filter_map(|template| template.eval(&cell.scope).err())
            .collect()
    }
}
