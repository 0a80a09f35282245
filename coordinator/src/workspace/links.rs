//! Checks where the links of a workspace lead, by their names only: the files don't exist yet, so no file system is
//! used.
//!
//! A link alone may look harmless and still lead out of the workspace through another one (`a/b/up` to `../..`, `out`
//! to `a/b/up/..`), so links are followed.

use std::collections::BTreeMap;

/// Maximum number of path components to follow per link. More means a circle, or an attempt to cause one.
const STEPS: usize = 4096;

/// The links of a workspace, by path.
#[derive(Debug, Default)]
pub(super) struct Links(BTreeMap<String, String>);

impl Links {
    pub fn add(&mut self, path: String, target: String) {
        self.0.insert(path, target);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the link that a member with this path would be written through, if there is one.
    pub fn above(&self, path: &str) -> Option<&str> {
        if self.0.is_empty() {
            return None;
        }
        let mut parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        let link = parents.find_map(|parent| self.0.get_key_value(parent));
        link.map(|(link, _)| link.as_str())
    }

    /// Returns a link that leads out of the workspace or in a circle, with its target.
    pub fn astray(&self) -> Option<(&str, &str)> {
        let mut all = self.0.iter().map(|(path, target)| (&**path, &**target));
        all.find(|(path, target)| !self.stays(path, target))
    }

    fn stays(&self, path: &str, target: &str) -> bool {
        let mut at = path
            .rsplit_once('/')
            .map_or("", |(parent, _)| parent)
            .to_owned();
        // The components still to follow, the next one last.
        let mut ahead: Vec<&str> = target.rsplit('/').collect();
        for _ in 0..STEPS {
            let Some(name) = ahead.pop() else {
                return true;
            };
            match name {
                "" | "." => {}
                ".." if at.is_empty() => return false,
                ".." => at.truncate(at.rfind('/').unwrap_or(0)),
                name => {
                    let parent = at.len();
                    if parent > 0 {
                        at.push('/');
                    }
                    at.push_str(name);
                    if let Some(target) = self.0.get(&at) {
                        at.truncate(parent);
                        ahead.extend(target.rsplit('/'));
                    }
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(all: &[(&str, &str)]) -> Links {
        let mut links = Links::default();
        for (path, target) in all {
            links.add((*path).to_owned(), (*target).to_owned());
        }
        links
    }

    #[test]
    fn a_link_is_followed_through_other_links() {
        for inside in [
            &[("a", "b")][..],
            &[("a/b", "../c/./d")],
            &[("x/y/up", "../.."), ("in", "x/y/up/a")],
        ] {
            assert_eq!(links(inside).astray(), None, "{inside:?}");
        }
        for outside in [
            &[("a", "..")][..],
            &[("a/b", "../../c")],
            &[("a/b", "c/../../../d")],
            &[("x/y/up", "../.."), ("z", "x/y/up/..")],
            &[("a", "b"), ("b", "a")],
            &[("a", "a/x")],
        ] {
            assert!(links(outside).astray().is_some(), "{outside:?}");
        }
    }

    #[test]
    fn what_lies_behind_a_link_is_seen() {
        let links = links(&[("a/b", "c")]);
        assert_eq!(links.above("a/b/c/d"), Some("a/b"));
        assert_eq!(links.above("a/bc/d"), None);
        assert_eq!(links.above("a/b"), None);
    }
}
