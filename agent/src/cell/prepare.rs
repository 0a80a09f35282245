//! Prepares an attempt before its actors start: opens its stacks, copies its workspace, and fills its board.

use crate::runtime::contract::{AttemptScope, Runtime, Stack};
use crate::stack::board::{Board, Status};
use phalanx_shared::language::model::{Action, ContainerVerb, DefineBody, Spec, Step};
use phalanx_shared::plan::CellJob;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Time limit for opening a stack. It is longer than the wait for an engine that went away (`docker.reconnect_s`), and
/// far longer than creating a network takes when hundreds of cells do it concurrently. An engine that takes longer
/// hangs.
const OPEN_WITHIN: Duration = Duration::from_secs(120);

/// The opened stacks. Each is added as soon as it is open, because it must be closed even if another one can't be
/// opened.
pub(super) type Opened = Arc<Mutex<Vec<Arc<dyn Stack>>>>;

/// Opens a stack and adds it to the opened ones.
pub(super) async fn open(
    runtime: Result<Arc<dyn Runtime>, String>,
    scope: AttemptScope,
    opened: &Opened,
) -> Result<Arc<dyn Stack>, String> {
    let runtime = runtime?;
    let kind = runtime.kind();
    let stack = match tokio::time::timeout(OPEN_WITHIN, runtime.open(scope)).await {
        Ok(stack) => stack.map_err(|error| error.to_string())?,
        Err(_) => {
            return Err(format!(
                "the {kind} runtime did not open the cell's stack within {}: it hangs",
                crate::duration::duration_text(OPEN_WITHIN)
            ));
        }
    };
    let mut all = opened.lock().unwrap_or_else(PoisonError::into_inner);
    all.push(Arc::clone(&stack));
    Ok(stack)
}

/// Copies the workspace for the attempt, so that other cells don't see what this one writes.
pub(super) async fn own_workspace(
    shared: Option<PathBuf>,
    scratch: &Path,
) -> Result<Option<PathBuf>, String> {
    let Some(shared) = shared else {
        return Ok(None);
    };
    let own = scratch.join("workspace");
    let to = own.clone();
    let copied = tokio::task::spawn_blocking(move || copy_tree(&shared, &to)).await;
    match copied {
        Ok(Ok(())) => Ok(Some(own)),
        Ok(Err(error)) => Err(format!("the workspace could not be copied: {error}")),
        Err(error) => Err(format!("the workspace could not be copied: {error}")),
    }
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(entry.path())?, target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Returns whether the cell's network is dual stack.
pub(super) fn ipv6(job: &CellJob) -> bool {
    use phalanx_shared::expr::{Cache, Layer, MatrixKeys, Scope, eval_node};
    let Some(network) = &job.source.spec.network else {
        return false;
    };
    let scope = Scope::new(
        Layer::new()
            .value("inputs", serde_json::Value::Object(job.inputs.clone()))
            .value("matrix", serde_json::Value::Object(job.matrix.clone()))
            .value("vars", serde_json::Value::Object(job.vars.clone())),
    );
    let keys = MatrixKeys::of(job.matrix.keys().map(String::as_str));
    match eval_node(network, &scope, &Cache::knowing(keys)) {
        Ok(value) => match value.get("ipv6") {
            Some(serde_json::Value::String(text)) => text == "true",
            Some(value) => value.as_bool().unwrap_or(false),
            None => false,
        },
        Err(_) => false,
    }
}

pub(super) fn board(spec: &Spec) -> Board {
    let services = spec.services.iter();
    let concurrent = started_beside_others(spec);
    let idle = services.map(|service| {
        let name = &service.name.text;
        let status = Status {
            concurrent: concurrent
                .iter()
                .any(|text| text == name || text.contains("${{")),
            ..Status::idle(service.process, service.manual)
        };
        (name.clone(), status)
    });
    Board::new(idle.collect())
}

/// Returns the services that are started by steps in `parallel` groups, as written in the spec.
fn started_beside_others(spec: &Spec) -> Vec<String> {
    let phases = spec.phases.iter().flat_map(|phase| &phase.steps);
    let defines = || {
        spec.define.iter().flat_map(|define| match &define.body {
            DefineBody::Steps { steps, .. } => steps.as_slice(),
            DefineBody::Value(_) => &[],
        })
    };
    let mut found = Vec::new();
    let mut parallel = false;
    phases
        .chain(defines())
        .for_each(|step| starts(step, false, &mut parallel, &mut found));
    if parallel {
        // A `parallel` group may reach the steps of a `define` through `use`.
        defines().for_each(|step| starts(step, true, &mut parallel, &mut found));
    }
    found
}

fn starts(step: &Step, beside: bool, parallel: &mut bool, found: &mut Vec<String>) {
    match &step.action {
        Action::Container(action)
            if beside && matches!(action.verb, ContainerVerb::Start | ContainerVerb::Run) =>
        {
            found.push(action.service.text.trim().to_owned());
        }
        Action::Parallel(steps) => {
            *parallel = true;
            steps
                .iter()
                .for_each(|step| starts(step, true, parallel, found));
        }
        Action::Steps(steps) => steps
            .iter()
            .for_each(|step| starts(step, beside, parallel, found)),
        _ => {}
    }
    step.otherwise
        .iter()
        .for_each(|step| starts(step, beside, parallel, found));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::runtime::fake::FakeRuntime;
    use crate::runtime::fake::script::Script;
    use phalanx_shared::id::Token;

    fn scope() -> AttemptScope {
        AttemptScope {
            token: Token {
                run: "r".into(),
                cell: "c".into(),
                attempt: 1,
                epoch: 1,
            },
            agent: "a".into(),
            cell_name: "c".to_owned(),
            scratch: PathBuf::new(),
            workspace: None,
            ipv6: false,
            trace: None,
            images: Default::default(),
            policy: Arc::new(crate::policy::Policy::open()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_runtime_that_hangs_while_it_opens_a_stack_is_given_up_with_a_reason() {
        let opened = Opened::default();
        let hangs = FakeRuntime::new(Script {
            open_delay: OPEN_WITHIN * 2,
            ..Script::default()
        });
        let error = open(Ok(Arc::new(hangs)), scope(), &opened)
            .await
            .err()
            .unwrap();
        assert!(
            error.contains("fake runtime") && error.contains("hangs"),
            "{error}"
        );
        assert!(opened.lock().unwrap().is_empty());
        let fine = FakeRuntime::new(Script::default());
        let stack = open(Ok(Arc::new(fine)), scope(), &opened).await.unwrap();
        assert_eq!(opened.lock().unwrap().len(), 1);
        stack.close(Duration::ZERO, None).await;
    }
}
