//! Keeps files with the run: finds them in services, in the workspace or on the host, masks text, and sends them to the
//! coordinator piece by piece while they are read. One event says what each file is, or why there is none.
//!
//! Everything is masked except for media, whose bytes would be damaged. What was sent of a file that couldn't be read to its
//! end is dropped by its number.

mod media;

use crate::beneath::Root;
use crate::clock::runtime_now;
use crate::context::CellContext;
use crate::context::artifacts::{ATTEMPT_BYTES, ATTEMPT_FILES};
use crate::context::masks::StreamMask;
use crate::duration::duration_text;
use crate::runtime::blocking::blocking;
use crate::runtime::gather::{self, Gather, Gathered};
use crate::runtime::search::Pattern;
use crate::sink::ArtifactPart;
use phalanx_shared::event::{Artifact, ArtifactLack, ArtifactProblem};
use phalanx_shared::expr::{EvalError, Scope, to_text};
use phalanx_shared::language::model as spec;
use phalanx_shared::language::model::{ArtifactWhen, IfMissing};
use phalanx_shared::language::quantity;
use phalanx_shared::mask::shortened;
use phalanx_shared::node::Node;
use phalanx_shared::outcome::Outcome;
use sha2::{Digest, Sha256};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::Instant;

/// Time limit for the artifacts of a step.
pub const OF_STEP: Duration = Duration::from_secs(60);
/// Maximum bytes of one file, unless `max` says otherwise.
const MAX: u64 = 64 << 20;
/// Parts of files that may wait to be masked and sent.
const WAITING: usize = 4;
/// Maximum characters of a pattern that a reason shows.
const SHOWN: usize = 200;

/// The part of the spec in which an entry of `artifacts` stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owner<'a> {
    /// Path of the step.
    pub step: Option<&'a str>,
    /// The service.
    pub service: Option<&'a str>,
}

/// Time for keeping files, which may become shorter while they are being kept.
#[derive(Clone, Debug)]
pub struct TimeLimit(watch::Receiver<(Instant, Duration)>);

impl TimeLimit {
    /// Begins a time that stays as long as it is.
    pub fn fixed(limit: Duration) -> TimeLimit {
        Self::new(limit).1
    }

    /// Begins a time, and returns what shortens it.
    pub fn new(limit: Duration) -> (Shorten, TimeLimit) {
        let (sender, receiver) = watch::channel((runtime_now() + limit, limit));
        (Shorten(sender), TimeLimit(receiver))
    }

    /// Returns how long the time was meant to be.
    fn whole(&self) -> Duration {
        self.0.borrow().1
    }

    fn is_over(&self) -> bool {
        self.0.borrow().0 <= runtime_now()
    }

    /// Waits until the time is over.
    async fn over(&mut self) {
        loop {
            let (until, _) = *self.0.borrow_and_update();
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                Ok(()) = self.0.changed() => {}
            }
        }
    }
}

/// Shortens a [`TimeLimit`].
#[derive(Debug)]
pub struct Shorten(watch::Sender<(Instant, Duration)>);

impl Shorten {
    /// Leaves this much time from now, unless less is left.
    pub fn to(&self, limit: Duration) {
        let until = runtime_now() + limit;
        self.0.send_if_modified(|now| {
            let is_less = until < now.0;
            if is_less {
                *now = (until, limit);
            }
            is_less
        });
    }
}

/// Keeps what the entries name, after this outcome. Returns why the outcome can't stand, if a file is missing that had
/// to be there.
pub async fn keep(
    context: &CellContext,
    entries: &[spec::Artifact],
    scope: &Scope,
    owner: Owner<'_>,
    outcome: Outcome,
    mut limit: TimeLimit,
) -> Option<String> {
    let mut problem = None;
    for entry in entries {
        let is_good = matches!(outcome, Outcome::Passed | Outcome::Skipped);
        if entry.when == ArtifactWhen::Failed && is_good {
            continue;
        }
        let keeping = Keeping {
            context,
            entry,
            owner,
            current: Mutex::default(),
        };
        let lack = match limit.is_over() {
            true => Some(keeping.cut_off(limit.whole()).await),
            false => tokio::select! {
                lack = keeping.all(scope) => lack,
                () = limit.over() => Some(keeping.cut_off(limit.whole()).await),
            },
        };
        let Some((from, lack)) = lack else { continue };
        if entry.if_missing == IfMissing::Error {
            problem.get_or_insert_with(|| lack.reason.clone());
        }
        if lack.problem != ArtifactProblem::Missing || entry.if_missing != IfMissing::Ignore {
            keeping.tell_lack(from, 0, lack).await;
        }
    }
    problem
}

/// The files of one entry.
struct Keeping<'a> {
    context: &'a CellContext,
    entry: &'a spec::Artifact,
    owner: Owner<'a>,
    /// The artifact that is being sent: its number, and the bytes that are counted for it.
    current: Mutex<Option<(u32, u64)>>,
}

/// What an entry has none of, and why.
type NotKept = (String, ArtifactLack);

/// An entry whose expressions are evaluated.
struct Wanted {
    service: Option<String>,
    pattern: Pattern,
    name: Option<String>,
    max: u64,
}

impl Wanted {
    /// Returns a path as people write it.
    fn shown(&self, path: &str) -> String {
        match &self.service {
            Some(service) => format!("{service}:{path}"),
            None => path.to_owned(),
        }
    }

    /// Returns the name under which a file is kept.
    fn name_of(&self, path: &str) -> String {
        let below = if self.pattern.is_path() {
            path.rsplit('/').next().unwrap_or(path)
        } else {
            // A process's own paths are relative, however they are written.
            let relative = path.trim_start_matches('/');
            let base = self.pattern.base().trim_start_matches('/');
            let rest = relative.strip_prefix(base).unwrap_or(relative);
            rest.trim_start_matches('/')
        };
        match (&self.name, self.pattern.is_path()) {
            (None, _) => below.to_owned(),
            (Some(name), true) => name.clone(),
            (Some(name), false) => format!("{name}/{below}"),
        }
    }
}

/// A file on its way.
struct Sending {
    id: u32,
    path: String,
    hash: Sha256,
    size: u64,
    /// What the first bytes tell; `None` until they are there.
    kind: Option<Kind>,
    /// Held until all of it is sent.
    _turn: Option<OwnedSemaphorePermit>,
}

struct Kind {
    media_type: &'static str,
    mask: Option<StreamMask>,
}

impl Keeping<'_> {
    /// Keeps all files that match. Returns why there are none, or not all.
    async fn all(&self, scope: &Scope) -> Option<NotKept> {
        let wanted = match self.wanted(scope) {
            Ok(wanted) => wanted,
            Err(error) => {
                let from = shortened(&self.entry.from.text, SHOWN).into_owned();
                let reason = format!("artifacts: {error}");
                return Some((from, lack(ArtifactProblem::Unreadable, reason)));
            }
        };
        let (out, parts) = mpsc::channel(WAITING);
        let gather = Gather {
            pattern: wanted.pattern.clone(),
            max_file: wanted.max.min(self.context.artifacts.left()),
            out,
        };
        let (gathered, files) =
            tokio::join!(self.gather(&wanted, gather), self.take(&wanted, parts));
        let from = wanted.shown(wanted.pattern.as_str());
        match gathered {
            Err(reason) => {
                self.drop_current().await;
                Some((from, lack(ArtifactProblem::Unreadable, reason)))
            }
            Ok(()) if files == 0 => {
                let masked = self.context.masks.mask(&from);
                let reason = format!("no file matches {}", shortened(&masked, SHOWN));
                Some((from, lack(ArtifactProblem::Missing, reason)))
            }
            Ok(()) => None,
        }
    }

    fn wanted(&self, scope: &Scope) -> Result<Wanted, EvalError> {
        let evaluate = self.context.evaluate(scope);
        let from = evaluate.text(&self.entry.from)?;
        let (service, path) = match self.owner.service {
            Some(service) => (Some(service), from.as_str()),
            None => spec::Artifact::split(&from, |name| self.context.services.is_known(name)),
        };
        let wrong = |span, why: String| Err(EvalError::new(span, why));
        if let Some(service) = service
            && !self.context.services.is_known(service)
        {
            let why = format!("there is no service `{service}`");
            return wrong(self.entry.from.span, why);
        }
        if service.is_none() && path.starts_with('/') {
            let why = format!(
                "`{path}` is not in the workspace: write `SERVICE:/path` or a relative path"
            );
            return wrong(self.entry.from.span, why);
        }
        let pattern = match Pattern::new(path) {
            Ok(pattern) => pattern,
            Err(why) => return wrong(self.entry.from.span, format!("`{path}`: {why}")),
        };
        let name = evaluate.optional_text(self.entry.name.as_ref())?;
        if let (Some(text), Some(node)) = (&name, &self.entry.name)
            && let Some(why) = spec::Artifact::problem_of_name(text)
        {
            return wrong(node.span, format!("the name `{text}`: {why}"));
        }
        let max = match &self.entry.max {
            None => MAX,
            Some(node) => self.size(node, scope)?,
        };
        Ok(Wanted {
            service: service.map(str::to_owned),
            pattern,
            name,
            max,
        })
    }

    fn size(&self, node: &Node, scope: &Scope) -> Result<u64, EvalError> {
        let value = self.context.evaluate(scope).value(node)?;
        let text = to_text(&value);
        quantity::bytes(&text).ok_or_else(|| {
            let why = format!("max: `{text}` is no size such as `512KiB` or `10MiB`");
            EvalError::new(node.span, why)
        })
    }

    /// Has the files sent; the error is a reason in one line.
    async fn gather(&self, wanted: &Wanted, gather: Gather) -> Result<(), String> {
        if let Some(service) = &wanted.service {
            return match self.context.services.member(service) {
                Some(member) => member.gather(gather).await.map_err(|error| error.reason),
                None => Err(format!("service {service} was never created")),
            };
        }
        let Some(workspace) = self.context.workspace.clone() else {
            // Without a workspace, commands on the host run in a directory of the attempt.
            let host = self.context.host.as_ref().map_err(Clone::clone)?;
            let gathered = host.gather_on_host(gather).await;
            return gathered.map_err(|error| error.reason);
        };
        let what = gather.pattern.as_str().to_owned();
        let gathered = blocking(move || gather::below(&Root::open(&workspace)?, &gather)).await;
        gathered.map_err(|error| format!("{what} in the workspace: {error}"))
    }

    /// Takes files as they come, and returns how many there were.
    async fn take(&self, wanted: &Wanted, mut parts: mpsc::Receiver<Gathered>) -> usize {
        let artifacts = &self.context.artifacts;
        let mut files = 0;
        let mut sending: Option<Sending> = None;
        while let Some(part) = parts.recv().await {
            match part {
                Gathered::TooLarge { path, size } => {
                    files += 1;
                    let reason = self.too_large(wanted, size);
                    let lack = lack(ArtifactProblem::TooLarge, reason);
                    self.tell_lack(wanted.shown(&path), size, lack).await;
                }
                Gathered::File { path, size } => {
                    files += 1;
                    if !artifacts.may_keep(size) {
                        let reason = self.too_large(wanted, size);
                        let lack = lack(ArtifactProblem::TooLarge, reason);
                        self.tell_lack(wanted.shown(&path), size, lack).await;
                        continue;
                    }
                    sending = self.begin(path, size).await;
                }
                Gathered::Bytes(bytes) => {
                    if let Some(sending) = &mut sending {
                        self.pass_on(sending, bytes).await;
                    }
                }
                Gathered::End => {
                    if let Some(sending) = sending.take() {
                        self.end(wanted, sending).await;
                    }
                }
            }
        }
        files
    }

    fn too_large(&self, wanted: &Wanted, size: u64) -> String {
        match size > wanted.max {
            true => format!(
                "it has {}, more than {} (`max`)",
                quantity::spelled_bytes(size),
                quantity::spelled_bytes(wanted.max)
            ),
            false => format!(
                "with its {} the artifacts of the cell would have more than {}",
                quantity::spelled_bytes(size),
                quantity::spelled_bytes(ATTEMPT_BYTES)
            ),
        }
    }

    /// Begins a file whose bytes are counted.
    async fn begin(&self, path: String, size: u64) -> Option<Sending> {
        let turn = self.context.artifacts.turn().await;
        let id = self.next_id().await?;
        *self.current() = Some((id, size));
        Some(Sending {
            id,
            path,
            hash: Sha256::new(),
            size: 0,
            kind: None,
            _turn: turn,
        })
    }

    fn current(&self) -> MutexGuard<'_, Option<(u32, u64)>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the next number. Says so once if there are too many.
    async fn next_id(&self) -> Option<u32> {
        let artifacts = &self.context.artifacts;
        let id = artifacts.next_id();
        if id.is_none() && artifacts.first_excess() {
            let note =
                format!("there are more than {ATTEMPT_FILES} artifacts; the others are not kept");
            artifacts.note(note).await;
        }
        id
    }

    async fn pass_on(&self, sending: &mut Sending, bytes: Vec<u8>) {
        let kind = sending
            .kind
            .get_or_insert_with(|| self.kind(&sending.path, &bytes));
        let bytes = match &mut kind.mask {
            Some(mask) => mask.push(&bytes),
            None => bytes,
        };
        self.send(sending, bytes).await;
    }

    fn kind(&self, path: &str, head: &[u8]) -> Kind {
        let is_masked = !self.entry.unmasked && !media::is_medium(head);
        Kind {
            media_type: media::media_type(path, head),
            mask: is_masked.then(|| self.context.masks.stream()),
        }
    }

    async fn send(&self, sending: &mut Sending, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        sending.hash.update(&bytes);
        sending.size += bytes.len() as u64;
        let part = ArtifactPart::Bytes(bytes);
        self.context.artifacts.send(sending.id, part).await;
    }

    async fn end(&self, wanted: &Wanted, mut sending: Sending) {
        let artifacts = &self.context.artifacts;
        let mut kind = sending
            .kind
            .take()
            .unwrap_or_else(|| self.kind(&sending.path, &[]));
        if let Some(mask) = &mut kind.mask {
            let rest = mask.finish();
            self.send(&mut sending, rest).await;
        }
        let digest = hex::encode(sending.hash.finalize());
        let from = wanted.shown(&sending.path);
        let step = self.owner.step;
        // An earlier try of the step left it behind.
        let is_news = step.is_none_or(|step| artifacts.is_news(step, &from, &digest));
        let part = ArtifactPart::End {
            digest: is_news.then(|| digest.clone()),
            size: sending.size,
        };
        artifacts.send(sending.id, part).await;
        let counted = self.current().take().map_or(0, |(_, bytes)| bytes);
        if !is_news {
            artifacts.take_back(counted);
            return;
        }
        // Masked before it is made unique, so that two names stay different.
        let name = self.context.masks.mask(&wanted.name_of(&sending.path));
        let fact = Artifact {
            id: sending.id,
            name: artifacts.unique(&safe(&name)),
            from,
            step: step.map(str::to_owned),
            size: sending.size,
            digest,
            media_type: kind.media_type.to_owned(),
            lack: None,
        };
        artifacts.tell(fact).await;
    }

    /// Drops what was sent of a file that isn't complete.
    async fn drop_current(&self) {
        let current = self.current().take();
        if let Some((id, bytes)) = current {
            let part = ArtifactPart::End {
                digest: None,
                size: 0,
            };
            self.context.artifacts.take_back(bytes);
            self.context.artifacts.send(id, part).await;
        }
    }

    async fn cut_off(&self, limit: Duration) -> NotKept {
        self.drop_current().await;
        let from = shortened(&self.entry.from.text, SHOWN).into_owned();
        let reason = match limit.is_zero() {
            true => "no time was left to copy it".to_owned(),
            false => format!("not copied within {}", duration_text(limit)),
        };
        (from, lack(ArtifactProblem::Cut, reason))
    }

    /// Emits the fact that something is not kept.
    async fn tell_lack(&self, from: String, size: u64, lack: ArtifactLack) {
        let artifacts = &self.context.artifacts;
        let is_news = |step| artifacts.is_news(step, &from, &lack.reason);
        if !self.owner.step.is_none_or(is_news) {
            // An earlier try has said so.
            return;
        }
        let Some(id) = self.next_id().await else {
            return;
        };
        // Masked first: a part of a secret is no longer recognised.
        let from = self.context.masks.mask(&from);
        let name = from.rsplit(['/', ':']).next().unwrap_or_default();
        let name = safe(name);
        let fact = Artifact {
            id,
            name,
            from,
            step: self.owner.step.map(str::to_owned),
            size,
            lack: Some(lack),
            ..Artifact::default()
        };
        self.context.artifacts.tell(fact).await;
    }
}

fn lack(problem: ArtifactProblem, reason: String) -> ArtifactLack {
    ArtifactLack { problem, reason }
}

/// Makes a name that can be a path everywhere: the names of files in a container may hold any character.
fn safe(name: &str) -> String {
    let unusual = |c: char| c.is_control() || matches!(c, '\\' | ':');
    let name = name.replace(unusual, "_");
    let parts = name
        .split('/')
        .filter(|part| !matches!(*part, "" | "." | ".."));
    let name = parts.collect::<Vec<_>>().join("/");
    let mut from = name.len().saturating_sub(spec::Artifact::NAME_BYTES / 2);
    while !name.is_char_boundary(from) {
        from += 1;
    }
    match name.get(from..).unwrap_or_default().trim_start_matches('/') {
        "" => "artifact".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn wanted(pattern: &str, name: Option<&str>) -> Wanted {
        Wanted {
            service: Some("web".to_owned()),
            pattern: Pattern::new(pattern).unwrap(),
            name: name.map(str::to_owned),
            max: MAX,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_limit_ends_sooner_once_it_is_shortened_and_never_later() {
        let began = runtime_now();
        let (shorten, mut limit) = TimeLimit::new(Duration::from_secs(60));
        let shortened = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            shorten.to(Duration::from_secs(100));
            shorten.to(Duration::from_secs(10));
            shorten.to(Duration::from_secs(20));
        };
        tokio::join!(limit.over(), shortened);
        assert_eq!(began.elapsed(), Duration::from_secs(15));
        assert_eq!(limit.whole(), Duration::from_secs(10));
        TimeLimit::fixed(Duration::from_secs(7)).over().await;
        assert_eq!(began.elapsed(), Duration::from_secs(22));
    }

    #[test]
    fn files_of_a_glob_keep_their_path_below_its_directory() {
        let of = |pattern, name, path: &str| wanted(pattern, name).name_of(path);
        assert_eq!(of("/out/**", None, "/out/a/b.png"), "a/b.png");
        assert_eq!(
            of("/out/**", Some("shots"), "/out/a/b.png"),
            "shots/a/b.png"
        );
        assert_eq!(of("/out/b.png", None, "/out/b.png"), "b.png");
        assert_eq!(of("/out/b.png", Some("x/y.png"), "/out/b.png"), "x/y.png");
        assert_eq!(of("*.png", None, "b.png"), "b.png");
    }

    #[test]
    fn no_name_leads_out_of_a_directory_or_has_characters_that_are_none_of_a_path() {
        for (name, expected) in [
            ("../../etc/passwd", "etc/passwd"),
            ("/abs", "abs"),
            ("a\nb:c\\d", "a_b_c_d"),
            ("..", "artifact"),
            ("", "artifact"),
        ] {
            assert_eq!(safe(name), expected);
        }
        let long = safe(&"ä/".repeat(500));
        assert!(long.len() <= spec::Artifact::NAME_BYTES, "{long}");
        assert_eq!(spec::Artifact::problem_of_name(&long), None);
    }
}
