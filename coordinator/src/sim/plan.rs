//! The plans of simulated runs: real specs, planned by the real planner, and planned again at each restart to check I5.

use phalanx_shared::diagnostic::{Source, Sources};
use phalanx_shared::id::CellId;
use phalanx_shared::input::Given;
use phalanx_shared::language::load;
use phalanx_shared::language::model::Spec;
use phalanx_shared::plan::{CellJob, Jobs, Keep, Plan, Request, Selection, expand};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A planned run and its jobs.
#[derive(Clone)]
pub struct Made {
    pub spec: Arc<Spec>,
    pub plan: Plan,
    pub jobs: BTreeMap<CellId, Arc<CellJob>>,
}

/// Returns the spec of a shape. `big` cells need a label that only two agents offer. The first run of a world has at
/// least twelve cells, others at least eight.
pub fn spec(shape: u64, first: bool, changed: bool) -> String {
    let images = ["[a, b]", "[a, b, c]"][usize::from(first)];
    let speeds = ["[x, y]", "[x, y, z]"][(shape / 2 % 2) as usize];
    let parallel = ["", "  max-parallel: 4\n"][(shape / 4 % 3 / 2) as usize];
    let fail_fast = ["", "  fail-fast: true\n"][(shape / 16 % 6 / 5) as usize];
    let images = if changed { "[a, changed]" } else { images };
    format!(
        "name: simulated\nsecrets: [token]\nstrategy:\n{parallel}{fail_fast}  matrix:\n    image: {images}\n    size: [small, big]\n    speed: {speeds}\n\
         cell:\n  timeout: 60s\n  attempts: 4\n  runs-on: \"${{{{ matrix.size == 'big' ? ['big'] : [] }}}}\"\n\
         \x20 resources:\n    cpus: \"${{{{ matrix.image == 'a' ? 2 : 1 }}}}\"\n    memory: \"${{{{ matrix.speed == 'x' ? '3GiB' : '1GiB' }}}}\"\n\
         phases:\n  setup:\n    - {{ name: seed, run: seed, retry: {{ times: 1 }} }}\n\
         \x20 assert:\n    - {{ name: one, run: one }}\n    - parallel:\n        - {{ name: left, run: left }}\n        - {{ name: right, run: right }}\n\
         \x20   - {{ name: two, run: two }}\n    - {{ name: collect, run: collect, always: true }}\n"
    )
}

struct Loaded {
    spec: Arc<Spec>,
    sources: Sources,
    plan: Plan,
}

fn load_and_expand(text: &str) -> Result<Loaded, String> {
    let main = Source {
        name: "simulated.yaml".to_owned(),
        text: text.to_owned(),
    };
    let loaded = load(main, &mut |path| Err(format!("no file {path}")));
    let spec = Arc::new(
        loaded
            .spec
            .ok_or_else(|| format!("{:?}", loaded.diagnostics))?,
    );
    let request = Request {
        spec: spec.clone(),
        sources: &loaded.sources,
        given: &Given::default(),
        files: Arc::new(|path: &str| Err(format!("no file {path}"))),
        workspace: None,
        selection: &Selection::default(),
        max_cells: None,
    };
    let plan = expand(&request).map_err(|problems| format!("{problems:?}"))?;
    Ok(Loaded {
        spec,
        sources: loaded.sources,
        plan,
    })
}

/// Plans a spec.
pub fn plan(text: &str) -> Result<Plan, String> {
    load_and_expand(text).map(|loaded| loaded.plan)
}

thread_local! {
    /// There are two dozen specs, and planning one takes longer than most of what a world does.
    static KNOWN: RefCell<HashMap<String, Made>> = RefCell::default();
}

/// Plans a spec of the simulator, which must be valid. The result is cached for all worlds; restarts check that
/// planning again gives the same plan ([`plan`]).
pub fn make(text: &str) -> Result<Made, String> {
    if let Some(made) = KNOWN.with_borrow(|known| known.get(text).cloned()) {
        return Ok(made);
    }
    let made = make_anew(text)?;
    KNOWN.with_borrow_mut(|known| known.insert(text.to_owned(), made.clone()));
    Ok(made)
}

fn make_anew(text: &str) -> Result<Made, String> {
    let Loaded {
        spec,
        sources,
        plan,
    } = load_and_expand(text)?;
    let planned = Jobs::new(spec.clone(), sources, plan.clone()).map_err(|p| format!("{p:?}"))?;
    let job = |cell: &CellId| planned.job(cell, Keep::Never).map(Arc::new);
    let jobs = plan
        .cells
        .iter()
        .map(|cell| {
            Ok((
                cell.id.clone(),
                job(&cell.id).map_err(|p| format!("{p:?}"))?,
            ))
        })
        .collect::<Result<_, String>>()?;
    Ok(Made { spec, plan, jobs })
}
