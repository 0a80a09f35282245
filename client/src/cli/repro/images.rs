//! The images of an earlier attempt, and which of them this machine's engine has.

use super::super::Context;
use super::super::connect::Connection;
use super::super::error::CliError;
use super::super::follow::{self, Input};
use crate::local;
use phalanx_agent::held::{self, Held};
use phalanx_shared::event::{AttemptRef, EventKind, ServiceState};
use phalanx_shared::id::{CellId, RunId};
use phalanx_shared::language::service::image::is_fixed;
use std::collections::{BTreeMap, BTreeSet};

/// The image of a container, as its events name it.
#[derive(Debug)]
pub(super) struct Image {
    /// As the spec names it: a tag, or a reference with a digest. `None` for an image that was built and got no name.
    pub reference: Option<String>,
    /// What the container ran: a reference with a digest, or the engine's id. `None` in journals of earlier versions.
    pub ran: Option<String>,
}

impl Image {
    /// Returns the image for the engine to look for: what ran, unless the spec itself names one image for ever.
    fn wanted(&self) -> Option<&String> {
        let reference = self.reference.as_deref();
        let ran = self.ran.as_ref().filter(|ran| is_fixed(ran));
        ran.filter(|_| !reference.is_some_and(is_fixed))
    }
}

/// What the engine says about the images, or why it can't be asked.
#[derive(Debug)]
pub(super) struct Here(Result<BTreeMap<String, Held>, String>);

impl Here {
    /// Returns the images by service that the containers are created from.
    pub(super) fn pins<'a>(
        &'a self,
        images: &'a BTreeMap<String, Image>,
    ) -> impl Iterator<Item = (String, String)> + 'a {
        images.iter().filter_map(|(service, image)| {
            let wanted = image.wanted()?;
            let held = self.0.as_ref().ok()?.get(wanted)?;
            (*held == Held::Here).then(|| (service.clone(), wanted.clone()))
        })
    }

    /// Returns whether the container will run the same image, and the details.
    pub(super) fn told(&self, image: &Image) -> (bool, String) {
        let named = image.reference.as_deref();
        let now = match named {
            Some(tag) => format!("{tag} may name another image now"),
            None => "it is built again".to_owned(),
        };
        let Some(wanted) = image.wanted() else {
            return match named {
                Some(fixed) if is_fixed(fixed) => (true, fixed.to_owned()),
                _ => (false, format!("what it was is not recorded; {now}")),
            };
        };
        let named = named.map_or_else(String::new, |tag| format!(", then {tag}"));
        match self.0.as_ref().map(|held| held.get(wanted)) {
            Ok(Some(Held::Here)) => (true, format!("{wanted}{named}")),
            Ok(Some(Held::Away)) => (true, format!("{wanted}{named}; it has to be pulled")),
            Ok(Some(Held::Gone(why))) => (false, format!("it was {wanted}: {why}; {now}")),
            Ok(None) => (false, format!("it was {wanted}; {now}")),
            Err(why) => (
                false,
                format!("it was {wanted}; the engine can't be asked: {why}"),
            ),
        }
    }
}

/// Asks this machine's engine for the images. With `pull`, it gets those that a registry has by their digest.
pub(super) async fn look(images: &BTreeMap<String, Image>, pull: bool, context: &Context) -> Here {
    let wanted: BTreeSet<&String> = images.values().filter_map(Image::wanted).collect();
    if wanted.is_empty() {
        return Here(Ok(BTreeMap::new()));
    }
    let wanted: Vec<String> = wanted.into_iter().cloned().collect();
    let docker = local::of_agents(&context.settings);
    let found = held::look(&docker, &wanted, pull).await;
    Here(found.map_err(|error| error.to_string()))
}

/// Returns the image of each container of an attempt.
pub(super) async fn of(
    connection: &Connection,
    run: &RunId,
    cell: &CellId,
    attempt: u32,
) -> Result<BTreeMap<String, Image>, CliError> {
    let wanted = AttemptRef {
        cell: cell.clone(),
        attempt,
    };
    let mut images = BTreeMap::new();
    let mut inputs = follow::watch(connection.client(), run.clone(), 1, false);
    while let Some(input) = inputs.recv().await {
        let event = match input {
            Input::Event(recorded) => recorded.event,
            Input::Ended(Some(error)) => return Err(error),
            Input::Ended(None) => break,
            Input::Broken(_) | Input::Interrupt(_) => continue,
        };
        if event.attempt.as_ref() != Some(&wanted) {
            continue;
        }
        if let EventKind::ServiceChanged {
            service,
            state: ServiceState::Created,
            detail: reference,
            image: ran,
            ..
        } = event.kind
            // Host processes have neither.
            && (reference.is_some() || ran.is_some())
        {
            images.insert(service, Image { reference, ran });
        }
    }
    Ok(images)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(reference: Option<&str>, ran: Option<&str>) -> Image {
        Image {
            reference: reference.map(str::to_owned),
            ran: ran.map(str::to_owned),
        }
    }

    #[test]
    fn an_image_is_the_same_if_the_engine_has_it_or_the_spec_names_it_for_ever() {
        let id = format!("sha256:{}", "0a".repeat(32));
        let (named, other) = (format!("db@{id}"), format!("web@{id}"));
        let here = Here(Ok(BTreeMap::from([
            (
                id.clone(),
                Held::Gone("this engine doesn't have it".to_owned()),
            ),
            (named.clone(), Held::Here),
            (other.clone(), Held::Away),
        ])));
        let told = |reference: Option<&str>, ran: Option<&str>| here.told(&image(reference, ran));
        assert_eq!(told(Some(&other), Some(&other)), (true, other.clone()));
        assert_eq!(
            told(Some("db:16"), Some(&named)),
            (true, format!("{named}, then db:16"))
        );
        let (same, text) = told(Some("web:1"), Some(&other));
        assert!(same && text.contains("has to be pulled"), "{text}");
        let (same, text) = told(Some("own:1"), Some(&id));
        assert!(
            !same && text.contains("own:1 may name another image now"),
            "{text}"
        );
        let (same, text) = told(None, Some(&id));
        assert!(!same && text.contains("built again"), "{text}");
        // A journal of an earlier version, and one that holds anything.
        assert!(!told(Some("db:16"), None).0);
        assert!(!told(Some("db:16"), Some("$(rm)")).0);
        let images = BTreeMap::from([
            ("a".to_owned(), image(Some("db:16"), Some(&named))),
            ("b".to_owned(), image(Some("own:1"), Some(&id))),
            ("c".to_owned(), image(Some(&other), Some(&other))),
        ]);
        let pins: Vec<_> = here.pins(&images).collect();
        assert_eq!(pins, [("a".to_owned(), named)]);
        let unasked = Here(Err("no engine answers".to_owned()));
        assert!(!unasked.told(&image(Some("own:1"), Some(&id))).0);
        assert_eq!(unasked.pins(&images).count(), 0);
    }
}
