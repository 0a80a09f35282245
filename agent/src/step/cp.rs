//! `cp`: files into and out of a service, one side written `SERVICE:/path`, the other a path in the workspace.

use super::answer::{Answer, Fault};
use crate::cell::context::CellContext;
use crate::runtime::contract::Member;
use phalanx_shared::expr::{EvalError, Scope};
use phalanx_shared::spec::model::Cp;
use phalanx_shared::spec::node::Template;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Copies.
pub async fn perform(context: &CellContext, cp: &Cp, scope: &Scope) -> Result<Answer, Fault> {
    let evaluate = context.evaluate(scope);
    let (from, to) = (evaluate.text(&cp.from)?, evaluate.text(&cp.to)?);
    match (in_service(context, &from), in_service(context, &to)) {
        (None, Some((service, path))) => {
            let from = in_workspace(context, &cp.from, &from)?;
            if !tokio::fs::try_exists(&from).await.unwrap_or(false) {
                return Err(Fault::failed(format!(
                    "there is no {} to copy",
                    from.display()
                )));
            }
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

/// `SERVICE:/path` of a service that there is.
fn in_service<'t>(context: &CellContext, text: &'t str) -> Option<(&'t str, &'t str)> {
    let (service, path) = text.split_once(':')?;
    context.board.get(service)?;
    Some((service, path))
}

async fn member(context: &CellContext, service: &str) -> Result<Arc<dyn Member>, Fault> {
    context.board.ready([&service.to_owned()]).await?;
    let status = context.board.get(service);
    status
        .and_then(|status| status.member)
        .ok_or_else(|| Fault::failed(format!("service {service} isn't running")))
}

/// A path that stays in the workspace.
fn in_workspace(
    context: &CellContext,
    template: &Template,
    written: &str,
) -> Result<PathBuf, EvalError> {
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
    Ok(workspace.join(written))
}
