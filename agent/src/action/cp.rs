//! `cp`: copies files into and out of a service. One side is written `SERVICE:/path`, the other is a path in the
//! workspace.

use super::answer::{Answer, Fault};
use crate::beneath::{Place, Root};
use crate::context::CellContext;
use crate::limits;
use crate::runtime::blocking::blocking;
use crate::runtime::contract::Member;
use phalanx_shared::expr::{EvalError, Scope};
use phalanx_shared::language::model::Cp;
use phalanx_shared::node::Template;
use std::io::ErrorKind;
use std::path::{Component, Path};
use std::sync::Arc;

/// Performs the copy.
pub async fn perform(context: &CellContext, cp: &Cp, scope: &Scope) -> Result<Answer, Fault> {
    let evaluate = context.evaluate(scope);
    let (from, to) = (evaluate.text(&cp.from)?, evaluate.text(&cp.to)?);
    match (in_service(context, &from), in_service(context, &to)) {
        (None, Some((service, path))) => {
            let from = in_workspace(context, &cp.from, &from)?;
            exists(&from).await?;
            let member = member(context, service).await?;
            member.copy_in(from, path.to_owned()).await?;
        }
        (Some((service, path)), None) => {
            let to = in_workspace(context, &cp.to, &to)?;
            let member = member(context, service).await?;
            member.copy_out(path.to_owned(), to).await?;
        }
        _ => {
            return Err(EvalError::new(
                cp.from.span,
                format!(
                    "one side, and only one, is written SERVICE:/path, not `{from}` and `{to}`"
                ),
            )
            .into());
        }
    }
    Ok(Answer {
        request: Some(format!("cp {from} {to}").into()),
        ..Answer::default()
    })
}

/// Checks that the file exists and lies inside the workspace.
async fn exists(place: &Place) -> Result<(), Fault> {
    let looked_for = place.clone();
    let found = blocking(move || {
        Root::open(&looked_for.root)?
            .find(&looked_for.path)
            .map(drop)
    });
    found.await.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Fault::failed(format!("there is no {} to copy", place.display())),
        _ => {
            let reason = format!("{} can't be copied: {error}", place.display());
            match limits::has_nothing_left(&error) {
                true => Fault::Errored(reason),
                false => Fault::failed(reason),
            }
        }
    })
}

/// Splits `SERVICE:/path`. Returns `None` if no such service exists.
fn in_service<'t>(context: &CellContext, text: &'t str) -> Option<(&'t str, &'t str)> {
    let (service, path) = text.split_once(':')?;
    context
        .services
        .is_known(service)
        .then_some((service, path))
}

async fn member(context: &CellContext, service: &str) -> Result<Arc<dyn Member>, Fault> {
    context.services.ready(service).await?;
    context.services.member(service).ok_or_else(|| {
        let reason = format!("service {service} isn't running");
        Fault::not_running(service, reason)
    })
}

/// Resolves a path, which must stay inside the workspace.
fn in_workspace(
    context: &CellContext,
    template: &Template,
    written: &str,
) -> Result<Place, EvalError> {
    let wrong = |why: &str| EvalError::new(template.span, format!("cp: `{written}` {why}"));
    let Some(workspace) = &context.workspace else {
        return Err(wrong("is in the workspace, and this cell has none")
            .with_help("list its files under workspace.include"));
    };
    let escapes = Path::new(written)
        .components()
        .any(|part| !matches!(part, Component::Normal(_) | Component::CurDir));
    if escapes {
        return Err(wrong("leaves the workspace"));
    }
    Ok(Place::new(workspace, written))
}
