//! Provides a service's image: it is present, pulled or built. At most one pull or build of an image runs at a time,
//! shared by all that wait for it; it is cancelled when none waits any more.

mod auth;
mod build;
mod built;
mod context;
mod dockerfile;
mod identity;
mod pull;
mod reference;
mod session;
mod trace;

pub(super) use built::remove_built;

use super::client::Engine;
use super::lock::lock;
use super::settings::DockerSettings;
use crate::runtime::contract::{AttemptScope, Fault, Prepared, RuntimeError};
use futures::FutureExt;
use futures::future::{BoxFuture, WeakShared};
use phalanx_shared::language::service::image::is_id;
use phalanx_shared::language::service::{ContextSource, NamedContext, PullPolicy, ServiceConfig};
use phalanx_shared::policy::Need;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Number of results remembered; bounded so that the memory of a long-lived agent stays small.
const REMEMBERED: usize = 512;

/// The image to run, and what was done to get it.
pub(super) type Ready = (String, Option<Prepared>);
type Answer = Result<Ready, RuntimeError>;
type Flight = BoxFuture<'static, Answer>;

/// What a pull or build is doing at the moment, in words. The work writes it, and those who wait for it read it.
#[derive(Clone, Default)]
pub struct Doing(Arc<Mutex<Words>>);

#[derive(Default)]
struct Words {
    full: String,
    counted: String,
}

impl Doing {
    /// `counted` is the part of it that holds only numbers.
    fn set(&self, full: String, counted: String) {
        *lock(&self.0) = Words { full, counted };
    }

    /// Returns the last words; empty before the first.
    pub fn get(&self) -> String {
        lock(&self.0).full.clone()
    }

    /// Returns the last words without texts of the user, in which a secret could be.
    pub fn counted(&self) -> String {
        lock(&self.0).counted.clone()
    }
}

/// Who needs an image.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// A cell.
    Cell,
    /// Nobody yet: it is prepared ahead.
    Later,
}

/// A pull or build in progress.
struct UnderWay {
    flight: WeakShared<Flight>,
    doing: Doing,
    begun_for: For,
    number: u64,
}

/// Why a pull or build that somebody waited for failed.
struct Failed {
    error: RuntimeError,
    /// It was begun ahead of the cell that waited, so that the cell didn't have its own try.
    may_repeat: bool,
}

impl Failed {
    /// Before anything was begun.
    fn own(error: RuntimeError) -> Failed {
        Failed {
            error,
            may_repeat: false,
        }
    }
}

/// The pulls and builds in progress, and those that a run has already completed.
#[derive(Default)]
pub(super) struct Images {
    under_way: Mutex<HashMap<String, UnderWay>>,
    begun: AtomicU64,
    done: Mutex<VecDeque<(String, String)>>,
    identities: Mutex<VecDeque<(String, String)>>,
}

impl Images {
    /// Returns the image to create the service's container from. `seen` receives the progress of the pull or build that
    /// it waits for.
    pub async fn prepare(
        &self,
        engine: &Engine,
        settings: &DockerSettings,
        config: &ServiceConfig,
        scope: &AttemptScope,
        whom: For,
        seen: impl Fn(Doing),
    ) -> Answer {
        if let Some(image) = scope.images.get(&config.name) {
            let refusal = Need::image(image).and_then(|need| scope.policy.refuses(&need));
            if let Some(refusal) = refusal {
                return Err(RuntimeError::refused(&refusal));
            }
            return self.pinned(engine, settings, config, image, seen).await;
        }
        match (&config.build, &config.image) {
            (Some(_), Some(image)) if config.pull_policy == PullPolicy::Never => {
                self.there(engine, config, image).await
            }
            (Some(_), _) => {
                self.built(engine, settings, config, scope, whom, seen)
                    .await
            }
            (None, Some(image)) => {
                self.pulled(engine, settings, config, image, scope, whom, seen)
                    .await
            }
            (None, None) => Err(RuntimeError::of(
                &config.name,
                Fault::Definition,
                "it has no `image` and no `build`",
            )),
        }
    }

    /// Provides the image of an earlier run, whatever the definition names and however often it asks for pulls.
    async fn pinned(
        &self,
        engine: &Engine,
        settings: &DockerSettings,
        config: &ServiceConfig,
        image: &str,
        seen: impl Fn(Doing),
    ) -> Answer {
        let platform = config.platform.as_deref();
        if pull::present(engine, image, platform).await? {
            return Ok((image.to_owned(), None));
        }
        if is_id(image) {
            let why = format!("the earlier run's image {image} is not on the engine any more");
            return Err(RuntimeError::of(&config.name, Fault::Image, why));
        }
        let answer = self
            .pull(engine, settings, image, platform, For::Cell, seen)
            .await;
        answer.map_err(|error| in_service(&config.name, error))
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

    #[allow(clippy::too_many_arguments)] // Each is used once, in a line of its own.
    async fn pulled(
        &self,
        engine: &Engine,
        settings: &DockerSettings,
        config: &ServiceConfig,
        image: &str,
        scope: &AttemptScope,
        whom: For,
        seen: impl Fn(Doing),
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
        // `always` means once per run: a matrix of a hundred cells counts as one `up`.
        let memo = format!("{} {}", pull_subject(image, platform), scope.token.run);
        if self.recall(&memo).is_some() {
            return Ok((image.to_owned(), None));
        }
        let answer = self
            .pull(engine, settings, image, platform, whom, seen)
            .await;
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
        if self.present(engine, image).await? {
            return Ok(());
        }
        let answer = self.pull(engine, settings, image, None, For::Later, drop);
        answer.await.map(drop)
    }

    async fn pull(
        &self,
        engine: &Engine,
        settings: &DockerSettings,
        image: &str,
        platform: Option<&str>,
        whom: For,
        seen: impl Fn(Doing),
    ) -> Answer {
        let subject = pull_subject(image, platform);
        let work = |doing| {
            let (engine, settings) = (engine.clone(), settings.clone());
            let (image, platform) = (image.to_owned(), platform.map(str::to_owned));
            pull::pull(engine, settings, image, platform, doing)
        };
        match self.fly(&subject, whom, work, &seen).await {
            Err(Failed { error, may_repeat }) if may_repeat => {
                tracing::debug!(image, %error, "the pull ahead failed; the cell tries again");
                let again = self.fly(&subject, whom, work, &seen).await;
                again.map_err(|failed| failed.error)
            }
            answer => answer.map_err(|failed| failed.error),
        }
    }

    /// Returns whether the engine has an image, of whatever platform.
    pub async fn present(&self, engine: &Engine, image: &str) -> Result<bool, RuntimeError> {
        pull::present(engine, image, None).await
    }

    async fn built(
        &self,
        engine: &Engine,
        settings: &DockerSettings,
        config: &ServiceConfig,
        scope: &AttemptScope,
        whom: For,
        seen: impl Fn(Doing),
    ) -> Answer {
        let mut answer = self
            .try_built(engine, settings, config, scope, whom, &seen)
            .await;
        if answer.as_ref().is_err_and(|failed| failed.may_repeat) {
            // Not its text: the output of a build may hold what only the cell's masks know.
            let service = &config.name;
            tracing::debug!(service, "the build ahead failed; the cell tries again");
            answer = self
                .try_built(engine, settings, config, scope, whom, &seen)
                .await;
        }
        answer.map_err(|failed| in_service(&config.name, failed.error))
    }

    async fn try_built(
        &self,
        engine: &Engine,
        settings: &DockerSettings,
        config: &ServiceConfig,
        scope: &AttemptScope,
        whom: For,
        seen: impl Fn(Doing),
    ) -> Result<Ready, Failed> {
        let contexts = self.contexts(engine, settings, config, scope, whom).await;
        let order = build::Order::new(config, scope, contexts.map_err(Failed::own)?);
        let order = order.map_err(|why| {
            let text = format!("build: {why}");
            Failed::own(RuntimeError::of(&config.name, why.fault(), text))
        })?;
        self.build(engine, settings, scope, order, whom, seen).await
    }

    async fn build(
        &self,
        engine: &Engine,
        settings: &DockerSettings,
        scope: &AttemptScope,
        order: build::Order,
        whom: For,
        seen: impl FnOnce(Doing),
    ) -> Result<Ready, Failed> {
        let packed = build::Packed::of(engine, settings, order).await;
        let packed = packed.map_err(Failed::own)?;
        let mut memo = format!("build {}", packed.identity());
        let anew = packed.is_anew();
        if anew {
            // Once per run: its workspace doesn't change.
            memo += &format!(" {}", scope.token.run);
            if let Some(image) = self.recall(&memo) {
                return Ok((image, None));
            }
        }
        let (engine, settings) = (engine.clone(), settings.clone());
        let work = |doing| build::build(engine, settings, packed, doing);
        let answer = self.fly(&memo, whom, work, seen).await;
        if let (true, Ok((image, _))) = (anew, &answer) {
            self.remember(memo, image.clone());
        }
        answer
    }

    /// Provides the images that stand for the further contexts of a build, by their names. Boxed, since an image may need
    /// others.
    fn contexts<'a>(
        &'a self,
        engine: &'a Engine,
        settings: &'a DockerSettings,
        config: &'a ServiceConfig,
        scope: &'a AttemptScope,
        whom: For,
    ) -> BoxFuture<'a, Result<BTreeMap<String, String>, RuntimeError>> {
        async move {
            let mut images = BTreeMap::new();
            let contexts = config.build.iter().flat_map(|build| &build.contexts);
            for NamedContext { name, source } in contexts {
                let answer = match source {
                    ContextSource::Image(image) => Ok((image.clone(), None)),
                    ContextSource::Directory(path) => {
                        let order = build::Order::of_directory(path, scope).map_err(|why| {
                            let (fault, why) = (why.fault(), format!("context {name}: {why}"));
                            RuntimeError::of(&config.name, fault, format!("build: {why}"))
                        })?;
                        let built = self.build(engine, settings, scope, order, whom, drop);
                        built.await.map_err(|failed| failed.error)
                    }
                    ContextSource::Service { of, .. } => {
                        let Some(of) = of else { continue };
                        self.prepare(engine, settings, of, scope, whom, drop).await
                    }
                };
                let (image, _) = answer.map_err(|error| in_service(&config.name, error))?;
                images.insert(name.clone(), image);
            }
            Ok(images)
        }
        .boxed()
    }

    /// Returns what a container runs, by digest: `created` is the image's id in the engine, and `image` the name by which
    /// it was asked for. The engine is asked once per image. `None` if the engine doesn't say.
    pub async fn identity(
        &self,
        engine: &Engine,
        image: &str,
        created: Option<&str>,
    ) -> Option<String> {
        let id = created.filter(|id| !id.is_empty())?;
        let memo = format!("{id} {image}");
        let known = lock(&self.identities)
            .iter()
            .find(|(known, _)| *known == memo)
            .map(|(_, identity)| identity.clone());
        if known.is_some() {
            return known;
        }
        // Only a report's detail depends on it, so a failure doesn't end the attempt.
        let found = engine.ask(|| engine.docker.inspect_image(id)).await.ok()?;
        let digests = found.repo_digests.unwrap_or_default();
        let identity = identity::of(image, &digests).unwrap_or(id).to_owned();
        let mut identities = lock(&self.identities);
        if identities.len() >= REMEMBERED {
            identities.pop_front();
        }
        identities.push_back((memo, identity.clone()));
        Some(identity)
    }

    /// Joins the work in progress for `subject`, or starts it.
    async fn fly<W>(
        &self,
        subject: &str,
        whom: For,
        work: impl FnOnce(Doing) -> W,
        seen: impl FnOnce(Doing),
    ) -> Result<Ready, Failed>
    where
        W: Future<Output = Answer> + Send + 'static,
    {
        let (flight, doing, number, begun_for) = {
            let mut under_way = lock(&self.under_way);
            under_way.retain(|_, held| held.flight.upgrade().is_some());
            let known = under_way.get(subject);
            match known.and_then(|held| Some((held.flight.upgrade()?, held))) {
                Some((flight, held)) => (flight, held.doing.clone(), held.number, held.begun_for),
                None => {
                    let doing = Doing::default();
                    let flight = work(doing.clone()).boxed().shared();
                    let number = self.begun.fetch_add(1, Ordering::Relaxed);
                    if let Some(weak) = flight.downgrade() {
                        let held = UnderWay {
                            flight: weak,
                            doing: doing.clone(),
                            begun_for: whom,
                            number,
                        };
                        under_way.insert(subject.to_owned(), held);
                    }
                    (flight, doing, number, whom)
                }
            }
        };
        seen(doing);
        flight.await.map_err(|error| {
            let mut under_way = lock(&self.under_way);
            // Whoever tries again must not find the work that failed.
            if under_way
                .get(subject)
                .is_some_and(|held| held.number == number)
            {
                under_way.remove(subject);
            }
            let may_repeat = (whom, begun_for) == (For::Cell, For::Later);
            Failed { error, may_repeat }
        })
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
    use std::sync::atomic::AtomicU32;
    use tokio::sync::Notify;

    #[tokio::test]
    async fn whoever_waits_shares_one_piece_of_work() {
        let images = Images::default();
        let count = Arc::new(AtomicU32::new(0));
        let gate = Arc::new(Notify::new());
        let work = |_| {
            let (count, gate) = (count.clone(), gate.clone());
            async move {
                count.fetch_add(1, Ordering::SeqCst);
                gate.notified().await;
                Ok(("image".to_owned(), None))
            }
        };
        let all =
            futures::future::join_all((0..20).map(|_| images.fly("x", For::Cell, work, drop)));
        let (answers, ()) = tokio::join!(all, async { gate.notify_one() });
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_given_up_and_begun_anew() {
        let images = Images::default();
        let never = images.fly("x", For::Later, |_| std::future::pending(), drop);
        assert!(never.now_or_never().is_none());
        let second = |_| async { Ok(("second".to_owned(), None)) };
        let answer = images.fly("x", For::Cell, second, drop).await;
        assert!(matches!(answer, Ok((image, None)) if image == "second"));
    }

    #[tokio::test]
    async fn a_cell_that_joined_a_failing_pull_ahead_has_its_own_try() {
        let images = Images::default();
        let gate = Arc::new(Notify::new());
        let fails = |_| {
            let gate = gate.clone();
            async move {
                gate.notified().await;
                Err(RuntimeError::new(Fault::Image, "no route"))
            }
        };
        let works = |_| async { Ok(("image".to_owned(), None)) };
        let cell = async {
            let joined = images.fly("x", For::Cell, works, drop).await;
            let repeats = joined.is_err_and(|failed| failed.may_repeat);
            (repeats, images.fly("x", For::Cell, works, drop).await)
        };
        let ahead = images.fly("x", For::Later, fails, drop);
        let (ahead, (repeats, own), ()) = tokio::join!(ahead, cell, async { gate.notify_one() });
        assert!(ahead.is_err_and(|failed| !failed.may_repeat));
        assert!(repeats);
        assert!(own.is_ok());
    }
}
