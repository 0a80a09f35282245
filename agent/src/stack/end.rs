//! The end of a service: asked for by a step, expected of a job, or unexpected.

use super::board::Stage;
use super::container::{ServiceActor, exit_text, not_running};
use super::evidence;
use super::expected::may_end;
use crate::context::services::Down;
use crate::context::services::NotDone;
use crate::runtime::contract::{Exit, RuntimeError};
use phalanx_shared::event::ServiceState;
use phalanx_shared::outcome::Outcome;
use std::sync::Arc;
use std::time::Duration;

/// Maximum wait for the exit and the last output after a step asked for the end.
const LAST_OUTPUT: Duration = Duration::from_secs(10);

impl ServiceActor {
    pub(super) async fn stop(&mut self) -> Result<(), RuntimeError> {
        let Some(member) = self.member.clone() else {
            return Err(not_running(&self.name, "stop"));
        };
        self.asked = true;
        member.stop(None).await?;
        self.ended().await;
        Ok(())
    }

    /// Handles the exit after a step asked for it, so that the step sees the result.
    pub(super) async fn ended(&mut self) {
        let Ok(member) = self.running("end") else {
            return;
        };
        let mut exits = member.exits();
        let exit = tokio::time::timeout(LAST_OUTPUT, exits.wait_for(Option::is_some)).await;
        let exit = exit.ok().and_then(Result::ok).and_then(|exit| exit.clone());
        if let Some(exit) = exit {
            self.exited(exit).await;
        }
    }

    pub(super) async fn exited(&mut self, exit: Exit) {
        if !matches!(self.stage(), Some(Stage::Started | Stage::Ready)) {
            return;
        }
        self.watchers.abort_all();
        let detail = exit_text(&exit);
        let now = self.args.context.clock.wall();
        let board = &self.args.board;
        let machinery = self.member.as_ref().and_then(|m| m.ended_by_machinery());
        let (success, oom) = (exit.code == 0, exit.oom);
        let expected = self.args.job || (success && self.may_end());
        let fine = expected && !oom && machinery.is_none();
        let stage = match (self.asked, fine) {
            (true, _) => Stage::Stopped,
            (false, true) => Stage::Exited,
            (false, false) => Stage::Down,
        };
        board.update(&self.name, |status| {
            status.exit = Some(exit);
            // `Down` is set later, together with the reason, which waiters need.
            if stage != Stage::Down {
                status.stage = stage;
            }
        });
        let state = match stage {
            Stage::Stopped => ServiceState::Stopped,
            _ => ServiceState::Exited,
        };
        self.tell(state, now, Some(detail.clone())).await;
        if stage == Stage::Down {
            let advice = match success {
                true => format!("; {}", job_advice(&self.name)),
                false => String::new(),
            };
            let unasked = format!(
                "service {} exited unexpectedly, {detail}{advice}",
                self.name
            );
            // An end that the engine caused says nothing about the service.
            let (outcome, reason) = match machinery {
                Some(cause) => (Outcome::Errored, cause),
                None => (Outcome::Failed, unasked),
            };
            self.down(outcome, reason).await;
        }
    }

    /// Returns whether exit code 0 is a normal end although nothing waits for it.
    fn may_end(&self) -> bool {
        let healthcheck = self.member.as_ref().is_some_and(|m| m.has_healthcheck());
        let ready = self.args.service.ready.is_some();
        let config = self.config.as_ref();
        config.is_some_and(|config| may_end(config, self.args.needed, healthcheck, ready))
    }

    pub(super) async fn gone_down(&mut self, error: NotDone) {
        let error = RuntimeError::from(error);
        let (outcome, reason) = match &error {
            RuntimeError::Failed(reason) => (Outcome::Failed, reason),
            RuntimeError::Errored(reason) => (Outcome::Errored, reason),
        };
        let named = reason.contains(&self.name);
        let reason = if named {
            reason.clone()
        } else {
            format!("service {} can't start: {reason}", self.name)
        };
        self.down(outcome, reason).await;
    }

    /// Marks the service as down; waiting steps and the current step learn the reason.
    pub(super) async fn down(&mut self, outcome: Outcome, reason: String) {
        let down = self.down_for(outcome, reason, None).await;
        let _ = self.args.downs.send(down).await;
    }

    /// Marks the service as down on the board, with the evidence of the service that is the root cause.
    pub(super) async fn down_for(
        &self,
        outcome: Outcome,
        reason: String,
        cause: Option<String>,
    ) -> Down {
        let context = &self.args.context;
        let failure = match cause {
            Some(cause) => evidence::of_cause(context, &self.args.board, &cause).await,
            None => evidence::of_service(context, &self.name, self.member.as_deref()).await,
        };
        let down = Down {
            service: self.name.clone(),
            outcome,
            reason,
            failure,
        };
        let known = Arc::new(down.clone());
        self.args.board.update(&self.name, |status| {
            status.stage = Stage::Down;
            status.down = Some(known);
        });
        down
    }
}

/// Returns advice on how to declare a service that is expected to end.
fn job_advice(name: &str) -> String {
    format!(
        "if that is its work, write `restart: \"no\"` in {name}, or wait for it (`service_completed_successfully`, or a step `wait: {{ service: {name}, until: exited }}`)"
    )
}
