//! What a service starts with whose files were restored, and its mounts. Pure.

use super::convert::{PlacedMount, Source};

/// What a service that isn't created yet starts with.
#[derive(Clone, Debug, Default)]
pub(super) struct Restored {
    /// Image with its container's own files; that of its definition if it changed none.
    pub image: Option<String>,
    /// Id of the image of its definition.
    pub base: Option<String>,
    /// Volumes by target: their names in the engine.
    pub volumes: Vec<(String, String)>,
}

/// Replaces the sources of restored volumes, and adds those that only the image declares.
pub(super) fn mount_restored(mounts: &mut Vec<PlacedMount>, volumes: &[(String, String)]) {
    for (target, name) in volumes {
        // It is filled already; the image's files would be added to it.
        let source = Source::Volume {
            name: Some(name.clone()),
            no_copy: true,
            subpath: None,
        };
        match mounts.iter_mut().find(|mount| same(&mount.target, target)) {
            Some(mount) => mount.source = source,
            None => mounts.push(PlacedMount {
                propagation: None,
                source,
                target: target.clone(),
                read_only: false,
            }),
        }
    }
}

/// Returns whether two paths in a container are the same.
pub(super) fn same(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restored_volumes_replace_what_the_definition_mounts_there() {
        let named = |name: &str| Source::Volume {
            name: Some(name.to_owned()),
            no_copy: true,
            subpath: None,
        };
        let mut mounts = vec![PlacedMount {
            propagation: None,
            source: Source::Volume {
                name: None,
                no_copy: false,
                subpath: None,
            },
            target: "/data/".to_owned(),
            read_only: false,
        }];
        let volumes = [("/data", "v0"), ("/more", "v1")];
        let volumes = volumes.map(|(target, name)| (target.to_owned(), name.to_owned()));
        mount_restored(&mut mounts, &volumes);
        let sources: Vec<&Source> = mounts.iter().map(|mount| &mount.source).collect();
        assert_eq!(sources, [&named("v0"), &named("v1")]);
    }
}
