//! Finds and removes the images of snapshots. Which of them are left over, the store of snapshots decides.

use super::client::Engine;
use super::error::{said, status};
use super::labels::{self, Labels};
use bollard::errors::Error;
use bollard::query_parameters::{ListImagesOptionsBuilder, RemoveImageOptionsBuilder};
use std::collections::HashMap;

/// An image of a store's snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotImage {
    /// Its id.
    pub id: String,
    /// The snapshot's key.
    pub key: String,
    /// The saved service; unknown for what is half-made.
    pub service: Option<String>,
}

/// Lists the images of a store's snapshots.
pub(super) async fn list(engine: &Engine, store: &str) -> Result<Vec<SnapshotImage>, Error> {
    let mut found = Vec::new();
    for label in [labels::SNAPSHOT_STORE, labels::SNAPSHOT_HALF] {
        let filter = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
        let options = || {
            let all = ListImagesOptionsBuilder::default().all(true);
            all.filters(&filter).build()
        };
        let listed = engine
            .ask(|| engine.docker.list_images(Some(options())))
            .await?;
        found.extend(
            listed
                .into_iter()
                .filter_map(|image| of_store(image.id, &image.labels, store)),
        );
    }
    // An image of a snapshot may itself be committed: it has both labels then.
    found.sort_by(|one, other| one.id.cmp(&other.id));
    found.dedup_by(|one, other| one.id == other.id);
    Ok(found)
}

/// Returns an image of a store by its labels. Pure.
fn of_store(id: String, labels: &Labels, store: &str) -> Option<SnapshotImage> {
    // The newest label counts.
    if let Some(half) = labels.get(labels::SNAPSHOT_HALF) {
        let (of, key) = half.split_once('.')?;
        return (of == store).then(|| SnapshotImage {
            id,
            key: key.to_owned(),
            service: None,
        });
    }
    let of = labels.get(labels::SNAPSHOT_STORE)?;
    let key = labels.get(labels::SNAPSHOT)?;
    (of == store).then(|| SnapshotImage {
        id,
        key: key.clone(),
        service: labels.get(labels::SNAPSHOT_SERVICE).cloned(),
    })
}

/// Removes an image. Returns `false` if a container uses it, a kept one for example.
pub(super) async fn remove(engine: &Engine, image: &str) -> Result<bool, Error> {
    // Not by force: a container that has ended may be started again.
    let options = RemoveImageOptionsBuilder::default().force(false).build();
    let removed = engine
        .ask(|| {
            engine
                .docker
                .remove_image(image, Some(options.clone()), None)
        })
        .await;
    match removed {
        Ok(_) => Ok(true),
        Err(error) if status(&error) == Some(404) => Ok(true),
        Err(error) if status(&error) == Some(409) => {
            tracing::debug!(image, error = %said(&error), "still used");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_belongs_to_the_store_and_the_snapshot_of_its_newest_label() {
        let whole = |store: &str| {
            let pairs = [
                (labels::SNAPSHOT_STORE, store),
                (labels::SNAPSHOT, "k"),
                (labels::SNAPSHOT_SERVICE, "db"),
            ];
            let owned = pairs.map(|(a, b)| (a.to_owned(), b.to_owned()));
            Labels::from(owned)
        };
        let of = |labels: &Labels| of_store("i".to_owned(), labels, "s");
        let image = |key: &str, service: Option<&str>| SnapshotImage {
            id: "i".to_owned(),
            key: key.to_owned(),
            service: service.map(str::to_owned),
        };
        assert_eq!(of(&whole("s")), Some(image("k", Some("db"))));
        assert_eq!(of(&whole("other")), None);
        for (half, expected) in [
            ("s.half", Some(image("half", None))),
            ("other.half", None),
            ("s", None),
        ] {
            let mut labels = whole("s");
            labels.insert(labels::SNAPSHOT_HALF.to_owned(), half.to_owned());
            assert_eq!(of(&labels), expected, "{half}");
        }
        assert_eq!(of(&Labels::new()), None);
    }
}
