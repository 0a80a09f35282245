//! Images built from contexts are a cache in the repository `phalanx-build`; this file prunes it.

use crate::runtime::docker::client::Engine;
use crate::runtime::docker::error::{said, status};
use bollard::errors::Error;
use bollard::models::ImageSummary;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptions,
};
use std::collections::{HashMap, HashSet};

/// Repository of built images.
pub(super) const REPOSITORY: &str = "phalanx-build";

/// Removes built images that are older than `before_s` (Unix time in seconds) and that no container uses. Returns their
/// tags and the bytes that this freed, or would free. An image that a spec named stays under that name.
pub(in crate::runtime::docker) async fn remove_built(
    engine: &Engine,
    before_s: i64,
    dry_run: bool,
) -> Result<Vec<(String, u64)>, Error> {
    let filter = HashMap::from([("reference".to_owned(), vec![REPOSITORY.to_owned()])]);
    let images = || ListImagesOptionsBuilder::default().filters(&filter).build();
    let containers = || ListContainersOptionsBuilder::default().all(true).build();
    let docker = &engine.docker;
    let listed = engine.ask(|| docker.list_images(Some(images()))).await?;
    let using = engine
        .ask(|| docker.list_containers(Some(containers())))
        .await?;
    let used: HashSet<String> = using.into_iter().filter_map(|one| one.image_id).collect();
    let mut gone = Vec::new();
    for (tag, bytes) in unused(listed, &used, before_s) {
        if !dry_run {
            let options = None::<RemoveImageOptions>;
            let removed = engine
                .ask(|| docker.remove_image(&tag, options.clone(), None))
                .await;
            match removed {
                Ok(_) => {}
                Err(error) if status(&error) == Some(404) => {}
                // A container was created from it meanwhile.
                Err(error) if status(&error) == Some(409) => {
                    tracing::info!(tag, error = %said(&error), "still used");
                    continue;
                }
                Err(error) => return Err(error),
            }
        }
        gone.push((tag, bytes));
    }
    Ok(gone)
}

/// Returns the tags to remove with the bytes that each frees: 0 if the image has other names. Pure.
fn unused(listed: Vec<ImageSummary>, used: &HashSet<String>, before_s: i64) -> Vec<(String, u64)> {
    let old = listed
        .into_iter()
        .filter(|image| image.created <= before_s && !used.contains(&image.id));
    let tags = old.flat_map(|image| {
        let ours = |tag: &String| tag.split(':').next().is_some_and(|name| name == REPOSITORY);
        let alone = image.repo_tags.iter().all(ours);
        let bytes = if alone {
            u64::try_from(image.size).unwrap_or(0)
        } else {
            0
        };
        let tags: Vec<String> = image.repo_tags.into_iter().filter(ours).collect();
        tags.into_iter()
            .enumerate()
            .map(move |(n, tag)| (tag, if n == 0 { bytes } else { 0 }))
    });
    tags.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, tags: &[&str], created: i64) -> ImageSummary {
        ImageSummary {
            id: id.to_owned(),
            repo_tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            created,
            size: 100,
            ..ImageSummary::default()
        }
    }

    #[test]
    fn old_unused_images_go_and_those_with_another_name_free_nothing() {
        let listed = vec![
            image("old", &["phalanx-build:1"], 10),
            image("used", &["phalanx-build:2"], 10),
            image("young", &["phalanx-build:3"], 99),
            image("named", &["phalanx-build:4", "shop:1"], 10),
        ];
        let used = HashSet::from(["used".to_owned()]);
        let expected = [
            ("phalanx-build:1".to_owned(), 100),
            ("phalanx-build:4".to_owned(), 0),
        ];
        assert_eq!(unused(listed, &used, 50), expected);
    }
}
