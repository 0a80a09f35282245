//! The snapshot of a cell's stack: decides before the named services start whether they start with saved files, and saves
//! them when the group has passed.

use super::board::{Board, Stage};
use super::restored::Restored;
use super::service::actor::{Define, Prepare, ServiceActor, of_send};
use super::{allowed, definition, secrets};
use crate::context::CellContext;
use crate::context::group::Group;
use crate::context::services::{Made, Recalled, Services, Unavailable};
use crate::runtime::contract::{RuntimeError, SaveOrder, Saved, Stack};
use crate::sink::EventSink;
use crate::snapshot::core::{self, Known, Next, start_order};
use crate::snapshot::files;
use crate::snapshot::key::{self, Ingredients, Node, OfService};
use crate::snapshot::store::{Held, Kept, Making, Manifest, Store};
use kameo::actor::ActorRef;
use phalanx_shared::event::{EventKind, SnapshotState};
use phalanx_shared::id::RunId;
use phalanx_shared::language::model::{ContainerVerb, Service, Snapshot, Step};
use phalanx_shared::language::quantity;
use phalanx_shared::language::reads::Reads;
use phalanx_shared::language::service::{FileSource, MountKind, ServiceConfig, dependencies};
use phalanx_shared::language::snapshot;
use phalanx_shared::plan::SnapshotUse;
use phalanx_shared::time::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Maximum size of a snapshot without `max-size`.
const USUAL_SIZE: u64 = 4 << 30;
/// How often a cell looks whether another one has made the snapshot. It may be in another process, which can't tell.
const LOOK: Duration = Duration::from_millis(250);

/// What was decided about the cell's snapshot.
#[derive(Clone, Debug)]
enum Decision {
    /// The services start with the files of this one.
    Restored(Arc<Recalled>),
    /// The group's steps run.
    Run,
}

/// The snapshot of a cell.
pub struct Snapshots {
    store: Store,
    context: Arc<CellContext>,
    board: Board,
    stack: Result<Arc<dyn Stack>, String>,
    events: EventSink,
    path: String,
    named: Vec<String>,
    step: Arc<Step>,
    decision: watch::Sender<Option<Decision>>,
    key: Mutex<String>,
    making: Mutex<Option<Making>>,
    /// The snapshot that the cell restored or made: nobody removes it while the cell lives.
    held: Mutex<Option<Held>>,
    /// Digest of the workspace before the group, if its steps can change it.
    workspace: Mutex<Option<String>>,
    restored: Arc<Restored>,
    /// Reasons why the services can't run with the restored files.
    heard_broken: Mutex<Option<mpsc::UnboundedReceiver<String>>>,
}

/// The services' actors by name.
pub type Actors = BTreeMap<String, ActorRef<ServiceActor>>;

/// A service whose definition was evaluated and is allowed.
enum Defined<'s> {
    Process(&'s Service),
    Container {
        config: Arc<ServiceConfig>,
        /// Of a service that the snapshot names.
        actor: Option<&'s ActorRef<ServiceActor>>,
    },
}

/// Arguments of [`Snapshots::of`].
pub struct Of<'a> {
    /// The agent's store; `None` if it keeps no snapshots.
    pub store: Option<Store>,
    /// The context of the attempt.
    pub context: &'a Arc<CellContext>,
    /// The state of the services.
    pub board: &'a Board,
    /// The stack for containers.
    pub stack: Result<Arc<dyn Stack>, String>,
    /// Receives events.
    pub events: &'a EventSink,
}

impl Snapshots {
    /// Returns the snapshot of a spec; `None` if it has none, or none that this cell uses.
    pub fn of(args: Of<'_>) -> Option<Arc<Snapshots>> {
        let Of {
            store,
            context,
            board,
            stack,
            events,
        } = args;
        if context.job.snapshots == SnapshotUse::Never {
            return None;
        }
        let snapshot::Group {
            phase,
            at,
            step,
            snapshot,
        } = snapshot::group(&context.spec.phases)?;
        let runs = phase.when.iter().chain(&step.when).all(|when| {
            let scope = context.definition_scope(None);
            // A condition that can't be evaluated is reported when its turn comes.
            context.evaluate(&scope).holds(when).unwrap_or(false)
        });
        let store = store.filter(|_| runs)?;
        let named: Vec<String> = snapshot
            .services
            .iter()
            .map(|name| name.text.clone())
            .collect();
        let (restored, heard_broken) = Restored::new(named.clone());
        Some(Arc::new(Snapshots {
            store,
            context: Arc::clone(context),
            board: board.clone(),
            stack,
            events: events.clone(),
            path: format!("{}/{at}", phase.name.text),
            named,
            step: Arc::new(step.clone()),
            decision: watch::Sender::new(None),
            key: Mutex::default(),
            making: Mutex::default(),
            held: Mutex::default(),
            workspace: Mutex::default(),
            restored: Arc::new(restored),
            heard_broken: Mutex::new(Some(heard_broken)),
        }))
    }

    /// Returns the services that must not start before it is decided.
    pub fn named(&self) -> &[String] {
        &self.named
    }

    fn snapshot(&self) -> Option<&Snapshot> {
        self.step.snapshot.as_deref()
    }

    /// Returns what the services look at to know whether they run with restored files.
    pub fn restored(&self) -> Arc<Restored> {
        Arc::clone(&self.restored)
    }

    /// Returns the receiver of reasons why services can't run with the restored files. Only the first call returns it.
    pub fn broken(&self) -> Option<mpsc::UnboundedReceiver<String>> {
        lock(&self.heard_broken).take()
    }

    /// Decides, and puts the files in place if there are any. Always ends with a decision.
    pub async fn decide(&self, actors: &Actors) {
        let decision = match self.try_to_restore(actors).await {
            Ok(decision) => decision,
            Err(why) => {
                self.emit(
                    SnapshotState::Unsaved,
                    self.events.now(),
                    None,
                    0,
                    Some(why),
                )
                .await;
                Decision::Run
            }
        };
        self.restored.set(matches!(decision, Decision::Restored(_)));
        self.decision.send_replace(Some(decision));
    }

    async fn try_to_restore(&self, actors: &Actors) -> Result<Decision, String> {
        let began = self.events.now();
        let key = self.make_key(actors).await?;
        lock(&self.key).clone_from(&key);
        let evaluate = |node| {
            let scope = self.context.definition_scope(None);
            self.context
                .evaluate(&scope)
                .optional_duration(node, "snapshot.max-age")
                .map_err(|error| error.message)
        };
        let max_age = evaluate(self.snapshot().and_then(|one| one.max_age.as_ref()))?;
        let (store, spec) = (self.store.clone(), self.context.spec.name.clone());
        let family = self.context.job.snapshot_family.clone();
        let (family, path) = (family.unwrap_or_default(), self.path.clone());
        let usual = blocking(move || {
            let all = store.list().unwrap_or_default();
            core::usual(&all, &family, &spec, &path)
        });
        let usual = usual.await?;
        let clock = &self.context.clock;
        let waits_since = clock.monotonic();
        let mut told = false;
        let mut unusable = None;
        loop {
            let waited = match told {
                true => clock.monotonic().saturating_sub(waits_since),
                false => Duration::ZERO,
            };
            let decide = |kept: Option<&Kept>, made_by_other, made_for| {
                core::next(Known {
                    used: self.context.job.snapshots,
                    kept: kept.map(|kept| &kept.manifest),
                    max_age,
                    made_by_other,
                    waited,
                    made_for,
                    usual,
                    now: clock.wall(),
                })
            };
            let (store, wanted) = (self.store.clone(), key.clone());
            let mut kept = blocking(move || store.find(&wanted)).await?;
            let mut making = None;
            let mut next = decide(kept.as_ref(), false, None);
            if next != Next::Restore {
                // Looks again once it has the lock: it may have been made in between.
                let (store, wanted) = (self.store.clone(), key.clone());
                let begun = blocking(move || {
                    let making = store.begin(&wanted);
                    (making, store.find(&wanted), store.made_since(&wanted))
                });
                let (begun, found, since) = begun.await?;
                making = begun.map_err(|error| format!("its store can't be used: {error}"))?;
                let made_for = since.map(|since| clock.wall().since(since));
                next = decide(found.as_ref(), making.is_none(), made_for);
                kept = found;
            }
            match (next, kept) {
                (Next::Restore, Some(kept)) => {
                    drop(making);
                    if unusable.as_ref() == Some(&kept.directory) {
                        return Err(
                            "the one that is kept is broken and can't be removed".to_owned()
                        );
                    }
                    unusable = Some(kept.directory.clone());
                    let store = self.store.clone();
                    let held = blocking(move || store.hold(&kept)).await?;
                    let held = held.map_err(|error| format!("its store can't be used: {error}"))?;
                    // Without: it was removed in between.
                    let Some(held) = held else { continue };
                    let restored = self.restore(held.kept(), began).await;
                    match restored {
                        Ok(recalled) => {
                            *lock(&self.held) = Some(held);
                            return Ok(Decision::Restored(Arc::new(recalled)));
                        }
                        Err(why) => {
                            self.condemn(&held, why).await;
                            self.discard(held).await;
                        }
                    }
                }
                (Next::Wait(left), _) => {
                    if !told {
                        told = true;
                        let run = None;
                        self.emit(SnapshotState::Waiting, began, run, 0, None).await;
                    }
                    tokio::time::sleep(left.min(LOOK)).await;
                }
                (Next::Without(why), _) => {
                    self.emit(SnapshotState::Missed, began, None, 0, Some(why))
                        .await;
                    return Ok(Decision::Run);
                }
                (Next::Make(why), _) => {
                    *lock(&self.making) = making;
                    self.emit(SnapshotState::Missed, began, None, 0, Some(why))
                        .await;
                    return Ok(Decision::Run);
                }
                (Next::Restore, None) => return Ok(Decision::Run),
            }
        }
    }

    /// Puts the files of a snapshot in place.
    async fn restore(&self, kept: &Kept, began: Timestamp) -> Result<Recalled, String> {
        let key = lock(&self.key).clone();
        let sealed = kept.captures().map_err(|error| error.to_string())?;
        let plain = self.store.seal().open(&key, &sealed);
        let plain = plain.ok_or("its captures can't be opened")?;
        let group: Group = serde_json::from_slice(&plain).map_err(|error| error.to_string())?;
        let stack = self.stack.clone()?;
        let (saved, from) = (&kept.manifest.saved, kept.directory.clone());
        let restored = stack.restore(saved, from).await;
        if let Err(error) = restored {
            let _ = stack.discard(&self.named).await;
            return Err(error.to_string());
        }
        let (run, bytes) = (kept.manifest.run.clone(), kept.manifest.bytes);
        self.emit(
            SnapshotState::Restored,
            began,
            Some(run.clone()),
            bytes,
            None,
        )
        .await;
        Ok(Recalled { key, run, group })
    }

    /// Sees to it that no cell begins to use a snapshot with which a service couldn't run.
    async fn condemn(&self, held: &Held, why: String) {
        if let Err(error) = held.condemn() {
            let key = &held.kept().manifest.key;
            tracing::warn!(%error, key, "a broken snapshot can't be marked as such");
        }
        let (state, now) = (SnapshotState::Discarded, self.events.now());
        let run = held.kept().manifest.run.clone();
        self.emit(state, now, Some(run), 0, Some(why)).await;
    }

    /// Removes a condemned snapshot. If other cells use it, it goes when they have ended.
    async fn discard(&self, held: Held) {
        let store = self.store.clone();
        let discarded = blocking(move || held.discard(&store)).await;
        if let Err(error) = discarded.and_then(|done| done.map_err(|error| error.to_string())) {
            tracing::warn!(error, "a broken snapshot can't be removed");
        }
    }

    /// Throws the restored snapshot away because a service can't run with it. Returns whether there was one: its services
    /// must then be created anew.
    pub async fn fail(&self, why: &str) -> bool {
        let was_restored = self.decision.send_if_modified(|decision| match decision {
            Some(Decision::Restored(_)) => {
                // Undecided until the services can be created anew.
                *decision = None;
                true
            }
            _ => false,
        });
        if !was_restored {
            return false;
        }
        let held = lock(&self.held).take();
        if let Some(held) = held {
            self.condemn(&held, why.to_owned()).await;
            // Its containers are still there.
            *lock(&self.held) = Some(held);
        }
        true
    }

    /// Lets the group's steps run after a restored snapshot was thrown away.
    pub async fn go_on_without(&self) {
        if let Ok(stack) = self.stack.clone()
            && let Err(error) = stack.discard(&self.named).await
        {
            tracing::warn!(%error, "restored services can't be removed");
        }
        let held = lock(&self.held).take();
        if let Some(held) = held {
            self.discard(held).await;
        }
        let (store, key) = (self.store.clone(), lock(&self.key).clone());
        let making = blocking(move || store.begin(&key)).await;
        if let Ok(Ok(making)) = making {
            *lock(&self.making) = making;
        }
        self.restored.set(false);
        self.decision.send_replace(Some(Decision::Run));
    }

    /// Waits until the services are ready with the restored files. `None` if the group's steps must run.
    pub async fn recall(
        &self,
        services: &dyn Services,
    ) -> Result<Option<Box<Recalled>>, Unavailable> {
        let mut decisions = self.decision.subscribe();
        loop {
            let decided = decisions.wait_for(Option::is_some).await;
            let decided = decided.ok().and_then(|decision| decision.clone());
            let Some(Decision::Restored(recalled)) = decided else {
                return Ok(None);
            };
            let ready = self.all_started(services).await;
            // A service that can't run with the files is created anew, and then it is decided otherwise.
            let still = matches!(&*decisions.borrow_and_update(), Some(Decision::Restored(_)));
            match (still, ready) {
                (true, Ok(())) => {
                    // What happens to the services from now on is the cell's own doing.
                    self.restored.set(false);
                    self.decision.send_replace(Some(Decision::Run));
                    return Ok(Some(Box::new(Recalled::clone(&recalled))));
                }
                (true, Err(unavailable)) => {
                    self.restored.tell_broken(&reason_of(&unavailable));
                    if decisions.changed().await.is_err() {
                        return Err(unavailable);
                    }
                }
                (false, _) => {}
            }
        }
    }

    /// Waits until the services are ready, and starts those that only steps start.
    async fn all_started(&self, services: &dyn Services) -> Result<(), Unavailable> {
        let (manual, automatic): (Vec<String>, Vec<String>) = self
            .named
            .iter()
            .cloned()
            .partition(|name| self.board.get(name).is_some_and(|status| status.manual));
        services.all_ready(&automatic.into_iter().collect()).await?;
        // One after another: none waits for a service that is created anew meanwhile.
        for name in self.order(&manual) {
            self.start(&name, services).await?;
            services.ready(&name).await?;
        }
        Ok(())
    }

    async fn start(&self, name: &str, services: &dyn Services) -> Result<(), Unavailable> {
        let scope = self.context.definition_scope(None);
        let started = services.act(name, ContainerVerb::Start, &scope).await;
        started.map_err(|error| Unavailable::NotRunning {
            service: name.to_owned(),
            reason: RuntimeError::from(error).reason,
        })
    }

    /// Ends the making of the snapshot.
    pub async fn forget(&self, reason: String) {
        let making = lock(&self.making).take();
        if making.is_some() {
            self.emit(
                SnapshotState::Unsaved,
                self.events.now(),
                None,
                0,
                Some(reason),
            )
            .await;
        }
    }

    /// Saves what the group has made.
    pub async fn remember(&self, made: Made, services: &dyn Services) -> Result<(), Unavailable> {
        let Some(making) = lock(&self.making).take() else {
            return Ok(());
        };
        if let Some(why) = self.unsavable(services).await {
            drop(making);
            self.emit(
                SnapshotState::Unsaved,
                self.events.now(),
                None,
                0,
                Some(why),
            )
            .await;
            return Ok(());
        }
        let began = self.events.now();
        let saved = self.save(&making, services).await;
        // Whatever came of it, the cell goes on with running services.
        let started = self.start_again(services).await;
        if let Err(unavailable) = started {
            drop(making);
            let why = "its services didn't start again".to_owned();
            self.emit(SnapshotState::Unsaved, began, None, 0, Some(why))
                .await;
            return Err(unavailable);
        }
        let kept = match saved {
            Ok(saved) => self.keep(making, saved, made, began).await,
            Err(why) => Err(why),
        };
        match kept {
            Ok(bytes) => {
                self.emit(SnapshotState::Saved, began, None, bytes, None)
                    .await
            }
            Err(why) => {
                self.emit(SnapshotState::Unsaved, began, None, 0, Some(why))
                    .await
            }
        }
        Ok(())
    }

    /// Returns why nothing can be saved, of what is known only when the group has run.
    async fn unsavable(&self, services: &dyn Services) -> Option<String> {
        // The steps may not have waited for all of them.
        let named = self.named.iter().cloned().collect();
        if let Err(unavailable) = services.all_ready(&named).await {
            return Some(reason_of(&unavailable));
        }
        for name in &self.named {
            let stage = self.board.get(name).map(|status| status.stage);
            if !matches!(stage, Some(Stage::Started | Stage::Ready)) {
                return Some(format!("service {name} isn't running when the group ends"));
            }
        }
        let reads = Reads::of(&self.context.spec, [&*self.step]);
        let with_cookies = reads.sessions.keys().find(|session| {
            let cookies = self.context.clients.cookies(session).all();
            cookies.as_object().is_some_and(|all| !all.is_empty())
        });
        if let Some(session) = with_cookies {
            return Some(format!(
                "session {session} got cookies in the group, and they can't be restored: log in after it"
            ));
        }
        let before = lock(&self.workspace).clone();
        if let Some(before) = before
            && self.workspace_digest().await.ok().flatten() != Some(before)
        {
            return Some("the group's steps changed files of the workspace".to_owned());
        }
        None
    }

    async fn save(&self, making: &Making, services: &dyn Services) -> Result<Saved, String> {
        let order = self.order(&self.named);
        for name in order.iter().rev() {
            let scope = self.context.definition_scope(None);
            let stopped = services.act(name, ContainerVerb::Stop, &scope).await;
            stopped.map_err(|error| RuntimeError::from(error).reason)?;
        }
        let size = self.snapshot().and_then(|one| one.max_size.as_ref());
        let max_size = match size {
            Some(node) => {
                let scope = self.context.definition_scope(None);
                let value = self.context.evaluate(&scope).value(node);
                let value = value.map_err(|error| error.message)?;
                let text = phalanx_shared::expr::to_text(&value);
                quantity::bytes(&text).ok_or_else(|| {
                    format!("snapshot.max-size: a size such as 4GiB is expected, not {text}")
                })?
            }
            None => USUAL_SIZE,
        };
        // What is larger than all that the agent keeps would be given up at once.
        let max_bytes = match self.store.bounds().max_bytes {
            Some(all) => all.min(max_size),
            None => max_size,
        };
        let stack = self.stack.clone()?;
        let key = lock(&self.key).clone();
        let order = SaveOrder {
            services: order,
            directory: making.directory().to_owned(),
            key,
            store: self.store.id().to_owned(),
            max_bytes,
        };
        stack.save(order).await.map_err(|error| error.reason)
    }

    async fn start_again(&self, services: &dyn Services) -> Result<(), Unavailable> {
        for name in self.order(&self.named) {
            let stage = self.board.get(&name).map(|status| status.stage);
            if stage == Some(Stage::Stopped) {
                self.start(&name, services).await?;
            }
        }
        services
            .all_ready(&self.named.iter().cloned().collect())
            .await
    }

    async fn keep(
        &self,
        making: Making,
        saved: Saved,
        made: Made,
        began: Timestamp,
    ) -> Result<u64, String> {
        let key = lock(&self.key).clone();
        let Made {
            name,
            took,
            mut group,
        } = made;
        let masks = self.context.masks.current();
        let secrets = group.secrets().into_iter();
        group.masked = secrets.filter(|text| masks.text(text) != *text).collect();
        let plain = serde_json::to_vec(&group).map_err(|error| error.to_string())?;
        let sealed = self.store.seal().close(&key, &plain);
        let sealed = sealed.ok_or("its captures can't be sealed")?;
        let scope = self.context.definition_scope(None);
        let max_age = self.snapshot().and_then(|one| one.max_age.as_ref());
        let max_age = self
            .context
            .evaluate(&scope)
            .optional_duration(max_age, "snapshot.max-age");
        let bytes = saved.bytes();
        let manifest = Manifest {
            format: key::FORMAT,
            key,
            spec: self.context.spec.name.clone(),
            group: self.context.masks.mask(&name),
            path: self.path.clone(),
            cell: self.context.token.cell.clone(),
            cell_name: self.context.job.cell.name.clone(),
            family: self.context.job.snapshot_family.clone().unwrap_or_default(),
            run: self.context.token.run.clone(),
            made_us: self.events.now().0,
            setup_us: micros(took),
            save_us: micros(self.events.now().since(began)),
            bytes,
            max_age_s: max_age.ok().flatten().map(|age| age.as_secs()),
            steps: group.steps.len() as u64,
            saved,
        };
        let held = blocking(move || making.keep(&manifest, &sealed))
            .await?
            .map_err(|error| format!("its files can't be written: {error}"))?;
        *lock(&self.held) = Some(held);
        Ok(bytes)
    }

    /// Returns services in the order in which they start.
    fn order(&self, services: &[String]) -> Vec<String> {
        let needs: Vec<(String, Vec<String>)> = services
            .iter()
            .map(|name| {
                let spec = self.context.spec.services.iter();
                let definition = spec
                    .filter(|service| service.name.text == *name)
                    .flat_map(|service| dependencies(&service.definition));
                (name.clone(), definition.map(|on| on.text).collect())
            })
            .collect();
        start_order(
            needs
                .iter()
                .map(|(name, needs)| (name.as_str(), needs.as_slice())),
        )
    }

    async fn emit(
        &self,
        state: SnapshotState,
        began: Timestamp,
        run: Option<RunId>,
        bytes: u64,
        reason: Option<String>,
    ) {
        let key = lock(&self.key).clone();
        let changed = EventKind::SnapshotChanged {
            path: self.path.clone(),
            key,
            state,
            began,
            run,
            bytes,
            reason,
        };
        self.events.emit(changed).await;
    }

    /// Makes the key. Prepares the images of all services on which it depends, because their ids are a part of it.
    async fn make_key(&self, actors: &Actors) -> Result<String, String> {
        let context = &self.context;
        let spec = &context.spec;
        let reads = Reads::of(spec, [&*self.step]);
        if let Some(span) = reads.computed_service {
            let place = context.place(span).unwrap_or_default();
            return Err(format!(
                "{place}: the group computes the name of a service, so its key can't be made"
            ));
        }
        let named: BTreeSet<String> = self.named.iter().cloned().collect();
        let used = reads.services.keys().cloned().collect();
        let nodes = spec.services.iter().map(|service| {
            let needs = dependencies(&service.definition).into_iter();
            let node = Node {
                needs: needs.map(|on| on.text).collect(),
                manual: service.manual,
            };
            (service.name.text.clone(), node)
        });
        let related = key::related(&nodes.collect(), &named, &used);
        // Nothing is pulled or built before the agent's policy has judged all of them.
        let mut defined = Vec::new();
        for name in &related {
            defined.push(self.define(name, actors, named.contains(name)).await?);
        }
        let of = defined.into_iter().map(|one| self.of_service(one));
        let of = futures::future::try_join_all(of).await?;
        let services: BTreeMap<String, OfService> = related.iter().cloned().zip(of).collect();
        let scope = context.definition_scope(None);
        let own = self.snapshot().map_or(&[][..], |one| &one.key);
        let own: Vec<Value> = own
            .iter()
            .map(|expr| {
                let program = context
                    .cache
                    .program(expr)
                    .map_err(|error| error.message.clone())?;
                program.eval(&scope).map_err(|error| error.message)
            })
            .collect::<Result<_, String>>()?;
        let mut values = BTreeMap::new();
        let job = &context.job;
        let cell = cell_values(context);
        let run = run_values(context);
        for (name, of) in [
            ("inputs", &job.inputs),
            ("matrix", &job.matrix),
            ("vars", &job.vars),
            ("workspace", &job.workspace),
            ("cell", &cell),
            ("run", &run),
        ] {
            values.extend(key::read_of(&reads, name, of).map(|value| (name.to_owned(), value)));
        }
        let ingredients = Ingredients {
            named: self.named.clone(),
            services,
            steps: key::steps(spec, &self.step, &reads),
            values,
            secrets: self.secrets(&reads),
            files: self.files_of_steps(&reads).await?,
            own,
        };
        Ok(ingredients.key())
    }

    /// Returns digests of the secrets that the steps read.
    fn secrets(&self, reads: &Reads) -> BTreeMap<String, String> {
        let read = reads
            .references
            .iter()
            .filter(|read| read.root == "secrets");
        let named: Option<BTreeSet<String>> = read
            .map(|read| Some(read.path.first()?.key.name()?.to_owned()))
            .collect();
        let all = self.context.secrets().iter();
        all.filter(|(name, _)| named.as_ref().is_none_or(|named| named.contains(*name)))
            .map(|(name, value)| (name.clone(), self.store.seal().digest(value)))
            .collect()
    }

    /// Evaluates a service's definition and asks the agent's policy about it.
    async fn define<'s>(
        &'s self,
        name: &str,
        actors: &'s Actors,
        named: bool,
    ) -> Result<Defined<'s>, String> {
        let context = &self.context;
        let service = context
            .spec
            .services
            .iter()
            .find(|one| one.name.text == name);
        let service = service.ok_or_else(|| format!("there is no service {name}"))?;
        if service.process {
            return Ok(Defined::Process(service));
        }
        let stack = self.stack.clone()?;
        let actor = actors.get(name).filter(|_| named);
        let config = match actor {
            Some(actor) => {
                let defined = actor.ask(Define).await.map_err(of_send);
                defined.map_err(|error| RuntimeError::from(error).reason)?
            }
            None => {
                let config = definition::config(context, service, &*stack, None).await;
                let config = config.map_err(|error| error.reason)?;
                let may = allowed::evaluated(context, service, &config);
                may.map_err(|error| error.reason)?;
                Arc::new(config)
            }
        };
        match key::unfit(&config).filter(|_| named) {
            Some(why) => Err(why),
            None => Ok(Defined::Container { config, actor }),
        }
    }

    /// Returns what a service is to the key. Prepares its image, whose id is a part of it.
    async fn of_service(&self, defined: Defined<'_>) -> Result<OfService, String> {
        let context = &self.context;
        let (config, actor) = match defined {
            // Its ports are chosen anew for each cell; what it is made of is its text.
            Defined::Process(service) => return Ok(self.of_process(service)),
            Defined::Container { config, actor } => (config, actor),
        };
        let stack = self.stack.clone()?;
        match actor {
            Some(actor) => {
                let prepared = actor.ask(Prepare).await.map_err(of_send);
                prepared.map_err(|error| RuntimeError::from(error).reason)?;
            }
            None => {
                // Its own actor tells what can't be masked.
                let _ = secrets::mask(context, &config).await;
                let prepared = stack.prepare(&config).await;
                prepared.map_err(|error| error.reason)?;
            }
        }
        let image = stack
            .image_id(&config)
            .await
            .map_err(|error| error.reason)?;
        let paths = paths(&config);
        let masks = context.masks.current();
        let seal = self.store.seal();
        let digest = |text: &str| {
            let secret = masks.text(text) != text;
            secret.then(|| seal.digest(text))
        };
        Ok(OfService {
            definition: key::definition(&config, &digest),
            image,
            files: self.digests(paths).await?,
        })
    }

    fn of_process(&self, service: &Service) -> OfService {
        let reads = Reads::of_node(&self.context.spec, &service.definition);
        let job = &self.context.job;
        let values: Map<String, Value> = [
            ("inputs", &job.inputs),
            ("matrix", &job.matrix),
            ("vars", &job.vars),
        ]
        .into_iter()
        .filter_map(|(name, of)| Some((name.to_owned(), key::read_of(&reads, name, of)?)))
        .collect();
        OfService {
            definition: json!({ "process": service.definition.to_json(), "values": values }),
            ..OfService::default()
        }
    }

    /// Returns digests of what the steps read of the workspace.
    async fn files_of_steps(&self, reads: &Reads) -> Result<BTreeMap<String, String>, String> {
        let read = reads.copied_in.iter().chain(&reads.certificates);
        let computed = read.clone().any(|path| path.text.contains("${{"));
        let mut digests = BTreeMap::new();
        if computed || !reads.host.is_empty() || !reads.copied_out.is_empty() {
            let whole = self.workspace_digest().await?;
            lock(&self.workspace).clone_from(&whole);
            digests.extend(whole.map(|digest| (".".to_owned(), digest)));
        }
        let paths = read.filter(|path| !path.text.contains("${{"));
        let paths = paths.map(|path| path.text.clone()).collect();
        digests.extend(self.digests(paths).await?);
        Ok(digests)
    }

    async fn workspace_digest(&self) -> Result<Option<String>, String> {
        let Some(workspace) = self.context.workspace.clone() else {
            return Ok(None);
        };
        let digest = blocking(move || files::digest(&workspace)).await?;
        digest
            .map(Some)
            .map_err(|error| format!("the workspace can't be read: {error}"))
    }

    async fn digests(&self, paths: Vec<String>) -> Result<BTreeMap<String, String>, String> {
        let workspace = self.context.workspace.clone();
        blocking(move || {
            let digest = |path: String| {
                let at = place(&path, workspace.as_deref());
                let digest = files::digest(&at).map_err(|error| format!("{path}: {error}"))?;
                Ok((path, digest))
            };
            paths.into_iter().map(digest).collect()
        })
        .await?
    }
}

fn reason_of(unavailable: &Unavailable) -> String {
    match unavailable {
        Unavailable::Down(down) => down.reason.clone(),
        Unavailable::NotRunning { reason, .. } | Unavailable::Unknown(reason) => reason.clone(),
    }
}

/// Returns the paths that a service mounts or reads.
fn paths(config: &ServiceConfig) -> Vec<String> {
    let mounts = config.volumes.iter().filter_map(|mount| match &mount.kind {
        MountKind::Bind(path) => Some(path.clone()),
        _ => None,
    });
    let files = config.files.iter().filter_map(|file| match &file.source {
        FileSource::Path(path) => Some(path.clone()),
        FileSource::Text(_) => None,
    });
    let env = config.env_file.iter().map(|file| file.path.clone());
    let labels = config.engine.label_files.iter().cloned();
    mounts.chain(files).chain(env).chain(labels).collect()
}

/// Returns what a path leads to. One that leads out of the workspace by a link is digested as a link: nothing uses it.
fn place(path: &str, workspace: Option<&Path>) -> PathBuf {
    let Some(workspace) = workspace else {
        return PathBuf::from(path);
    };
    let written = workspace.join(path);
    let inside = |real: &PathBuf| {
        let root = workspace.canonicalize();
        Path::new(path).is_absolute() || root.is_ok_and(|root| real.starts_with(root))
    };
    written
        .canonicalize()
        .ok()
        .filter(inside)
        .unwrap_or(written)
}

fn cell_values(context: &CellContext) -> Map<String, Value> {
    let cell = &context.job.cell;
    Map::from_iter([
        ("name".to_owned(), json!(cell.name)),
        ("id".to_owned(), json!(cell.id)),
    ])
}

fn run_values(context: &CellContext) -> Map<String, Value> {
    Map::from_iter([
        ("id".to_owned(), json!(context.token.run)),
        ("attempt".to_owned(), json!(context.token.attempt)),
    ])
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| format!("a bug of phalanx: {error}"))
}
