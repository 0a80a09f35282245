//! Provides a service's image: it is present, pulled or built. At most one pull or build of an image runs at a time,
//! shared by all that wait for it; it is cancelled when none waits any more.

mod auth;
mod build;
mod built;
mod context;
mod dockerfile;
mod pull;
mod reference;

pub(super) use built::remove_built;

use super::client::Engine;
use super::lock::lock;
use super::settings::DockerSettings;
use crate::runtime::contract::{AttemptScope, Fault, Prepared, RuntimeError};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use phalanx_shared::language::service::{PullPolicy, ServiceConfig};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Mutex;

/// Number of results remembered; bounded so that the memory of a long-lived agent stays small.
const REMEMBERED: usize = 512;

/// The image to run, and what was done to get it.
pub(super) type Ready = (String, Option<Prepared>);
type Answer = Result<Ready, RuntimeError>;
type Flight = BoxFuture<'static, Answer>;

/// The pulls and builds in progress, and those that a run has already completed.
#[derive(Default)]
pub(super) struct Images {
    under_way: Mutex<HashMap<String, WeakShared<Flight>>>,
    done: Mutex<VecDeque<(String, String)>>,
}

impl Images {
    /// Returns the image to create the service's container from.
    pub async fn prepare(
        &self,
        engine: &Engine,
        settings: &DockerSettings,
        config: &ServiceConfig,
        scope: &AttemptScope,
    ) -> Answer {
        match (&config.build, &config.image) {
            (Some(_), Some(image)) if config.pull_policy == PullPolicy::Never => {
                self.there(engine, config, image).await
            }
            (Some(_), _) => self.built(engine, settings, config, scope).await,
            (None, Some(image)) => self.pulled(engine, settings, config, image, scope).await,
            (None, None) => Err(RuntimeError::of(
                &config.name,
                Fault::Definition,
                "it has no `image` and no `build`",
            )),
        }
    }

    async fn there(&self, engine: &Engine, config: &ServiceConfig, image: &str) -> Answer {
        let platform = config.platform.as_deref();
        if pull::present(engine, image, platform).await? {
            return Ok((image.to_owned(), None));
        }
        let wanted = platform.map_or_else(String::new, |platform| format!(" for {platform}"));
        let why = format!(
            "image {image}{wanted} is not on the engine and `pull_policy: never` forbids to get it"
        );
        Err(RuntimeError::of(&config.name, Fault::Image, why))
    }

    async fn pulled(
        &self,
        engine: &Engine,
        settings: &DockerSettings,
        config: &ServiceConfig,
        image: &str,
        scope: &AttemptScope,
    ) -> Answer {
        let platform = config.platform.as_deref();
        match config.pull_policy {
            PullPolicy::Never => return self.there(engine, config, image).await,
            PullPolicy::Always => {}
            PullPolicy::Missing | PullPolicy::Build => {
                if pull::present(engine, image, platform).await? {
                    return Ok((image.to_owned(), None));
                }
            }
        }
        let subject = pull_subject(image, platform);
        // `always` means once per run: a matrix of a hundred cells counts as one `up`.
        let memo = format!("{subject} {}", scope.token.run);
        if self.recall(&memo).is_some() {
            return Ok((image.to_owned(), None));
        }
        let work = pull::pull(
            engine.clone(),
            settings.clone(),
            image.to_owned(),
            platform.map(str::to_owned),
        );
        let answer = self.fly(&subject, work).await;
        if answer.is_ok() {
            self.remember(memo, image.to_owned());
        }
        answer.map_err(|error| in_service(&config.name, error))
    }

    /// Pulls an image that a cell will need, unless it is present. A cell that requests it meanwhile joins this pull.
    pub async fn prefetch(
        &self,
        engine: &Engine,
        settings: &DockerSettings,
        image: &str,
    ) -> Result<(), RuntimeError> {
        if pull::present(engine, image, None).await? {
            return Ok(());
        }
        let work = pull::pull(engine.clone(), settings.clone(), image.to_owned(), None);
        self.fly(&pull_subject(image, None), work).await.map(drop)
    }

    async fn built(
        &self,
        engine: &Engine,
        settings: &DockerSettings,
        config: &ServiceConfig,
        scope: &AttemptScope,
    ) -> Answer {
        let order = build::Order::new(config, scope).map_err(|why| {
            RuntimeError::of(&config.name, Fault::Definition, format!("build: {why}"))
        })?;
        // The workspace of a run doesn't change, so the same order gives the same image.
        let memo = format!("build {} {}", scope.token.run, order.identity());
        if let Some(image) = self.recall(&memo) {
            return Ok((image, None));
        }
        let work = build::build(engine.clone(), settings.clone(), order);
        let answer = self.fly(&memo, work).await;
        if let Ok((image, _)) = &answer {
            self.remember(memo, image.clone());
        }
        answer.map_err(|error| in_service(&config.name, error))
    }

    /// Joins the work in progress for `subject`, or starts it.
    async fn fly(
        &self,
        subject: &str,
        work: impl Future<Output = Answer> + Send + 'static,
    ) -> Answer {
        let flight: Shared<Flight> = {
            let mut under_way = lock(&self.under_way);
            under_way.retain(|_, held| held.upgrade().is_some());
            match under_way.get(subject).and_then(WeakShared::upgrade) {
                Some(flight) => flight,
                None => {
                    let flight = work.boxed().shared();
                    if let Some(weak) = flight.downgrade() {
                        under_way.insert(subject.to_owned(), weak);
                    }
                    flight
                }
            }
        };
        flight.await
    }

    fn recall(&self, subject: &str) -> Option<String> {
        let done = lock(&self.done);
        done.iter()
            .find(|(known, _)| known == subject)
            .map(|(_, image)| image.clone())
    }

    fn remember(&self, subject: String, image: String) {
        let mut done = lock(&self.done);
        if done.iter().any(|(known, _)| *known == subject) {
            return;
        }
        if done.len() >= REMEMBERED {
            done.pop_front();
        }
        done.push_back((subject, image));
    }
}

fn pull_subject(image: &str, platform: Option<&str>) -> String {
    format!("pull {image} {}", platform.unwrap_or_default())
}

fn in_service(service: &str, error: RuntimeError) -> RuntimeError {
    RuntimeError::of(service, error.fault, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn whoever_waits_shares_one_piece_of_work() {
        let images = Images::default();
        let count = Arc::new(AtomicU32::new(0));
        let gate = Arc::new(Notify::new());
        let work = || {
            let (count, gate) = (count.clone(), gate.clone());
            async move {
                count.fetch_add(1, Ordering::SeqCst);
                gate.notified().await;
                Ok(("image".to_owned(), None))
            }
        };
        let all = futures::future::join_all((0..20).map(|_| images.fly("x", work())));
        let (answers, ()) = tokio::join!(all, async { gate.notify_one() });
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_given_up_and_begun_anew() {
        let images = Images::default();
        let never = images.fly("x", std::future::pending());
        assert!(never.now_or_never().is_none());
        let answer = images
            .fly("x", async { Ok(("second".to_owned(), None)) })
            .await;
        assert!(matches!(answer, Ok((image, None)) if image == "second"));
    }
}
