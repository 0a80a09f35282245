//! Pulls and builds images before the cells that need them have a slot.
//!
//! The coordinator names every image that it wants ([`core`] decides which is next), and the work is the same as a cell's
//! (`runtime/docker/image.rs`), so a cell that needs the image meanwhile joins it. A failure here is no error: the cell
//! tries again and reports the reason. The text of the failure stays here, because what a build says may hold what only a
//! cell's masks know.

pub mod core;

use crate::images::Images;
use crate::link::actor::{Handle, Prefetcher};
use crate::policy::{InForce, Policy};
use crate::runtime::contract::Fault;
use crate::runtime::docker::{DockerRuntime, Doing};
use core::{Effect, Input, Queue};
use phalanx_shared::plan::WantedImage;
use phalanx_shared::policy::of_service;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// Time between two looks at the progress of pulls and builds.
const LOOKS: Duration = Duration::from_secs(2);

/// The way to the task that prepares images.
pub struct Ahead(watch::Sender<Vec<WantedImage>>);

impl Prefetcher for Ahead {
    fn prefetch(&self, images: Vec<WantedImage>) {
        self.0.send_replace(images);
    }
}

/// The task that prepares images, before it runs.
pub struct Preparing {
    wanted: watch::Receiver<Vec<WantedImage>>,
    images: Arc<Images>,
    engine: Arc<DockerRuntime>,
    /// What its guard's policy refuses is left to the cell, which reports the rule.
    policy: Arc<InForce>,
    /// For builds that need no context.
    scratch: PathBuf,
    at_once: u32,
}

impl Preparing {
    /// Creates the task and the way to it.
    pub fn new(
        engine: Arc<DockerRuntime>,
        policy: Arc<InForce>,
        scratch: PathBuf,
        at_once: u32,
    ) -> (Ahead, Preparing) {
        let (sender, wanted) = watch::channel(Vec::new());
        let preparing = Preparing {
            wanted,
            images: Images::of(Arc::clone(&engine)),
            engine,
            policy,
            scratch,
            at_once,
        };
        (Ahead(sender), preparing)
    }

    /// Prepares what is wanted until the link is gone, and reports to the link.
    pub async fn run(self, link: Handle) {
        let Preparing {
            mut wanted,
            images,
            engine,
            policy,
            scratch,
            at_once,
        } = self;
        let mut queue = Queue::new(at_once);
        let mut tasks: JoinSet<(u64, bool)> = JoinSet::new();
        let mut running: HashMap<u64, (AbortHandle, Seen)> = HashMap::new();
        let mut looks = tokio::time::interval(LOOKS);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let inputs: Vec<Input> = tokio::select! {
                changed = wanted.changed() => match changed {
                    Ok(()) => vec![Input::Wanted(wanted.borrow_and_update().clone())],
                    Err(_) => return,
                },
                Some(ended) = tasks.join_next() => match ended {
                    Ok((number, ready)) => {
                        running.remove(&number);
                        if ready {
                            link.holds_images(images.held().await).await;
                        }
                        vec![Input::Ended { number, ready }]
                    }
                    // It was given up.
                    Err(_) => Vec::new(),
                },
                _ = looks.tick(), if !running.is_empty() => {
                    let look = |(number, (_, seen)): (&u64, &(_, Seen))| Input::Progress {
                        number: *number,
                        doing: seen.counted(),
                    };
                    running.iter().map(look).collect()
                }
            };
            for input in inputs {
                for effect in queue.handle(input) {
                    match effect {
                        Effect::Begin { number, image } => {
                            let seen = Seen::default();
                            let work = prepare(
                                engine.clone(),
                                policy.guard().policy().clone(),
                                link.clone(),
                                scratch.clone(),
                                image,
                                seen.clone(),
                            );
                            let task = tasks.spawn(async move { (number, work.await) });
                            running.insert(number, (task, seen));
                        }
                        Effect::GiveUp { number } => {
                            if let Some((task, _)) = running.remove(&number) {
                                task.abort();
                            }
                        }
                        Effect::Report(images) => link.ahead(images).await,
                    }
                }
            }
        }
    }
}

/// What the pull or build says of itself, once it has begun.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Option<Doing>>>);

impl Seen {
    fn counted(&self) -> String {
        let doing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doing.as_ref().map(Doing::counted).unwrap_or_default()
    }
}

/// Pulls or builds one image. Returns whether it is there then.
async fn prepare(
    engine: Arc<DockerRuntime>,
    policy: Arc<Policy>,
    link: Handle,
    scratch: PathBuf,
    image: WantedImage,
    seen: Seen,
) -> bool {
    let what = image.what();
    // Before anything is fetched for it.
    if let Err(fault) = judge(&image, &policy) {
        tracing::info!(what, ?fault, "not prepared ahead; the cell tells why");
        return false;
    }
    let workspace = match &image.parts().workspace {
        None => None,
        Some(digest) => match link.workspace(digest).await {
            Ok(path) => Some(path),
            Err(error) => {
                tracing::info!(what, %error, "nothing is prepared ahead: the workspace isn't here");
                return false;
            }
        },
    };
    let noted = |doing| {
        *seen.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(doing);
    };
    match engine
        .prepare_ahead(&image, policy, workspace, scratch, noted)
        .await
    {
        Ok(()) => true,
        Err(fault) => {
            tracing::info!(
                what,
                ?fault,
                "not prepared ahead; the cell that needs it tries again"
            );
            false
        }
    }
}

/// Asks the policy about what the image is made of.
fn judge(image: &WantedImage, policy: &Policy) -> Result<(), Fault> {
    let config = image.config().ok_or(Fault::Definition)?;
    let needs = of_service(&config);
    match policy.refuses_one(&needs) {
        Some(_) => Err(Fault::Policy),
        None => Ok(()),
    }
}
