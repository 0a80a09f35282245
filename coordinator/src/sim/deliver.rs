//! Performs the effects of runs and the scheduler once they are durable, like `courier.rs`.

use super::Switch;
use super::center::Parcel;
use super::world::{Happening, Res, World};
use crate::dispatch::core::Input as SessionInput;
use crate::dispatch::reason::DeclineReason;
use crate::run::core::{Effect as RunEffect, Input};
use crate::schedule::core::{CellRequest, Effect as ScheduleEffect, Input as ScheduleInput};
use phalanx_proto::link::Offer;
use phalanx_shared::id::{AgentId, RunId, Token};
use phalanx_shared::plan::WantedImage;
use std::sync::Arc;
use std::time::Duration;

impl World {
    pub fn deliver(&mut self, run: &RunId, parcel: Parcel) -> Res {
        match parcel {
            Parcel::Durable { agent, token, seq } => {
                self.session(&agent, SessionInput::Durable { token, seq })
            }
            Parcel::Resume { gather, attempts } => {
                let requests: Vec<_> = attempts
                    .iter()
                    .filter_map(|goes_on| self.request(&goes_on.token))
                    .collect();
                if let Some(gather) = self
                    .center
                    .as_mut()
                    .and_then(|c| c.gathers.get_mut(&gather))
                {
                    gather.waiting -= 1;
                    gather.resumed.extend(attempts);
                    gather.holding.extend(requests);
                }
                self.gathered(gather)
            }
            Parcel::Effect(effect) => match effect {
                RunEffect::Queue(tokens) => {
                    let cells = tokens.iter().filter_map(|t| self.request(t)).collect();
                    self.schedule(ScheduleInput::Queued {
                        run: run.clone(),
                        cells,
                    })
                }
                RunEffect::Withdraw(tokens) => self.schedule(ScheduleInput::Withdrawn {
                    run: run.clone(),
                    tokens,
                }),
                RunEffect::Accepted(token) => self.schedule(ScheduleInput::Accepted { token }),
                RunEffect::Declined { token, reason } => {
                    self.schedule(ScheduleInput::Declined { token, reason })
                }
                RunEffect::Release(token) => self.schedule(ScheduleInput::Released { token }),
                RunEffect::Offer { token, agent } => self.offer(token, &agent),
                RunEffect::Cancel { token, order } => {
                    self.of_token(&token, || SessionInput::Cancel {
                        token: token.clone(),
                        order: order.clone(),
                    })
                }
                RunEffect::Retire(token) => self.of_token(&token, || SessionInput::Retire {
                    token: token.clone(),
                }),
                // Already on disk.
                RunEffect::Journal(_) => Ok(()),
                // Only an answer to a Hello resumes.
                RunEffect::Resume { .. } => Ok(()),
                RunEffect::Finished(_) => {
                    self.tally.count("run finished");
                    Ok(())
                }
                RunEffect::Settled => {
                    self.disk.settle(run);
                    self.learn(run);
                    if let Some(center) = &mut self.center {
                        center.runs.remove(run);
                    }
                    self.schedule(ScheduleInput::RunRemoved { run: run.clone() })
                }
            },
        }
    }

    fn offer(&mut self, token: Token, agent: &AgentId) -> Res {
        let Some(kept) = self.disk.runs.get(&token.run) else {
            return Ok(());
        };
        let Some(job) = kept.made.jobs.get(&token.cell).cloned() else {
            return Ok(());
        };
        let secret = kept.secret.clone();
        let known = self
            .center
            .as_ref()
            .is_some_and(|c| c.sessions.contains_key(agent));
        if !known {
            let (run, reason) = (token.run.clone(), DeclineReason::NotConnected);
            return self.tell_run(&run, Input::Declined { token, reason });
        }
        let offer = Offer {
            token,
            job,
            secrets: Arc::new([("token".to_owned(), secret)].into()),
            accept_within: Duration::from_secs(5),
            traceparent: None,
        };
        self.session(agent, SessionInput::Offer(offer))
    }

    /// Routes like [`crate::dispatch`]: to the holder, or to all sessions if no agent holds the token.
    fn of_token(&mut self, token: &Token, input: impl Fn() -> SessionInput) -> Res {
        let Some(center) = &self.center else {
            return Ok(());
        };
        let holder = center.gate.lock().holder(token);
        let agents = match holder {
            Some(agent) => vec![agent],
            None => center.sessions.keys().cloned().collect(),
        };
        for agent in agents {
            self.session(&agent, input())?;
        }
        Ok(())
    }

    fn request(&self, token: &Token) -> Option<CellRequest> {
        let plan = &self.disk.runs.get(&token.run)?.made.plan;
        let cell = plan.cells.iter().find(|cell| cell.id == token.cell)?;
        let history = self.center.as_ref()?.histories.get(&token.run)?;
        let image = cell.matrix.get("image");
        Some(CellRequest {
            token: token.clone(),
            labels: cell.runs_on.clone(),
            avoids: Vec::new(),
            resources: cell.resources,
            images: image
                .map(|image| WantedImage::plain(&image.to_string()))
                .into_iter()
                .collect(),
            expected_ms: history.expected_ms(cell),
            needs: Vec::new(),
            wish: None,
        })
    }

    pub fn schedule(&mut self, input: ScheduleInput) -> Res {
        let (now, idle) = (self.now, self.switch == Switch::SchedulerIdle);
        let Some(center) = &mut self.center else {
            return Ok(());
        };
        center.seats.told(&input, now);
        self.crowded = true;
        let declined = match &input {
            ScheduleInput::Declined { token, .. } => Some(token.clone()),
            _ => None,
        };
        let effects = center.scheduler.handle(input, now);
        for effect in effects {
            match effect {
                ScheduleEffect::Assign { .. } if idle => {}
                ScheduleEffect::Assign { token, agent } => {
                    let (run, agent_name) = (token.run.clone(), agent.0.clone());
                    if let Some(center) = &mut self.center {
                        center.seats.assigned(&token, &agent);
                    }
                    let placement = self.center.as_ref().map(|c| c.scheduler.placement(&token));
                    let input = Input::Runnable {
                        token,
                        agent,
                        agent_name,
                        placement: placement.unwrap_or_default(),
                    };
                    self.tell_run(&run, input)?;
                }
                ScheduleEffect::Prefetch { images, .. }
                    if images.is_empty() && self.switch == Switch::ListsKept => {}
                ScheduleEffect::Prefetch { agent, images } => {
                    self.session(&agent, SessionInput::Prefetch { images })?;
                }
                ScheduleEffect::WakeAt(until) => {
                    if let (Some(center), Some(token)) = (&mut self.center, &declined) {
                        center.seats.paused(token, until);
                    }
                    let epoch = self.disk.epoch;
                    self.at(until, Happening::Wake { epoch });
                }
            }
        }
        if let (Some(center), Some(token)) = (&mut self.center, &declined) {
            center.seats.given_back(token);
        }
        Ok(())
    }
}
