//! `wait`: waits until a service is ready or has exited, or for a fixed time (discouraged).

use super::answer::{Answer, Fault};
use crate::context::CellContext;
use phalanx_shared::expr::Scope;
use phalanx_shared::language::model::Wait;

/// Performs the wait.
pub async fn perform(context: &CellContext, wait: &Wait, scope: &Scope) -> Result<Answer, Fault> {
    let evaluate = context.evaluate(scope);
    match wait {
        Wait::Ready(service) => {
            let service = evaluate.text(service)?;
            context.services.ready(&service).await?;
        }
        Wait::Exited(service) => {
            let service = evaluate.text(service)?;
            context.services.exited(&service).await?;
        }
        Wait::For(time) => tokio::time::sleep(evaluate.duration(time, "wait.for")?).await,
    }
    Ok(Answer::default())
}
