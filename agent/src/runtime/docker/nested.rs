//! Finds mounts that containers of the same attempt could lead elsewhere. Pure.
//!
//! The engine takes a mount's source by its name and opens it at each start. A container that has a directory above it
//! mounted, and may write there, could replace it with a link at that moment. It can't replace the directory that it
//! has mounted itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The paths of the host that a service's container has mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mounted {
    /// All of them, without links.
    pub sources: Vec<PathBuf>,
    /// Those that the container may write to.
    pub writable: Vec<PathBuf>,
}

impl Mounted {
    /// Adds what another service has, which this one takes over (`volumes_from`).
    pub fn take(&mut self, other: &Mounted, read_only: bool) {
        self.sources.extend(other.sources.iter().cloned());
        if !read_only {
            self.writable.extend(other.writable.iter().cloned());
        }
    }
}

/// A mount that another container could lead elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Nested {
    /// The mount's source.
    pub source: PathBuf,
    /// The directory above it.
    pub above: PathBuf,
    /// The service that may write there.
    pub writer: String,
}

/// Returns a mount of a service that others could lead elsewhere, or one of theirs that it could.
pub(super) fn nested(
    service: &str,
    own: &Mounted,
    all: &BTreeMap<String, Mounted>,
) -> Option<Nested> {
    let others = || all.iter().filter(|(name, _)| name.as_str() != service);
    let of_ours = others().find_map(|(name, other)| below(&own.sources, &other.writable, name));
    of_ours
        .or_else(|| others().find_map(|(_, other)| below(&other.sources, &own.writable, service)))
}

fn below(sources: &[PathBuf], writable: &[PathBuf], writer: &str) -> Option<Nested> {
    let above = |source: &Path| {
        let mut above = writable.iter();
        above
            .find(|above| source != *above && source.starts_with(above))
            .cloned()
    };
    sources.iter().find_map(|source| {
        Some(Nested {
            source: source.clone(),
            above: above(source)?,
            writer: writer.to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(sources: &[&str], writable: &[&str]) -> Mounted {
        let paths = |all: &[&str]| all.iter().map(PathBuf::from).collect();
        Mounted {
            sources: paths(sources),
            writable: paths(writable),
        }
    }

    #[test]
    fn a_mount_below_what_another_may_write_to_is_found_whichever_comes_first() {
        let app = mounted(&["/w"], &["/w"]);
        let db = mounted(&["/w/init.sql"], &[]);
        let found = Some(Nested {
            source: "/w/init.sql".into(),
            above: "/w".into(),
            writer: "app".to_owned(),
        });
        assert_eq!(
            nested("db", &db, &[("app".to_owned(), app.clone())].into()),
            found
        );
        assert_eq!(nested("app", &app, &[("db".to_owned(), db)].into()), found);
    }

    #[test]
    fn what_nobody_else_may_write_to_and_a_common_directory_are_fine() {
        for (one, other) in [
            (
                mounted(&["/w/data"], &["/w/data"]),
                mounted(&["/w/data"], &["/w/data"]),
            ),
            (mounted(&["/w"], &[]), mounted(&["/w/conf"], &[])),
            (mounted(&["/w/a"], &["/w/a"]), mounted(&["/w/ab"], &[])),
            (mounted(&["/w/a"], &["/w/a"]), mounted(&["/w"], &[])),
        ] {
            assert_eq!(nested("x", &one, &[("y".to_owned(), other)].into()), None);
        }
        // A container doesn't run while it starts.
        let own = mounted(&["/w", "/w/conf"], &["/w"]);
        assert_eq!(
            nested("x", &own, &[("x".to_owned(), own.clone())].into()),
            None
        );
    }

    #[test]
    fn what_a_service_takes_over_counts_as_its_own() {
        let mut own = Mounted::default();
        let app = mounted(&["/w"], &["/w"]);
        own.take(&app, true);
        assert_eq!(own, mounted(&["/w"], &[]));
        own.take(&app, false);
        assert_eq!(own.writable, app.writable);
    }
}
