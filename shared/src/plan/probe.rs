//! Evaluates those templates of the services' definitions that need only planned contexts, for each cell. A mistake
//! that affects only some cells is then found before anything starts.

use super::cells::for_templates;
use super::context::{Cell, Planner};
use crate::expr::{EvalError, TemplateProgram};
use std::sync::Arc;

/// Maximum number of cells; larger plans are not probed, because that would take longer than it saves.
pub(super) const MAX_CELLS: usize = 2_000;

/// The compiled templates that need only planned contexts.
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
                // `file` works only while planning. A service definition that calls it fails with an error of its own
                // when it is used.
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

    /// Returns the mistakes in this cell. Mistakes that all cells share are returned only for the first cell.
    pub(super) fn mistakes(&self, cell: &Cell, first: bool) -> Vec<EvalError> {
        let shared = self.shared.iter().filter(|_| first);
        let all = shared.chain(&self.per_cell);
        all.filter_map(|template| template.eval(&cell.scope).err())
            .collect()
    }
}
