//! Reads the files that specs name: those of the workspace, and those of the host that the policy allows.

use super::core::Policy;
use crate::beneath::{self, Root};
use std::io::{Error, ErrorKind};
use std::path::Path;

impl Policy {
    /// Reads a file of the workspace, or one at an absolute path that is allowed. Returns an error if it is longer than
    /// `limit` bytes, or if a link leads out of the workspace or out of what is allowed. Blocks.
    pub fn read(
        &self,
        workspace: Option<&Path>,
        path: &Path,
        limit: u64,
    ) -> Result<Vec<u8>, Error> {
        if !path.is_absolute() {
            let none = || Error::new(ErrorKind::NotFound, "there is no workspace");
            return Root::open(workspace.ok_or_else(none)?)?.read(path, limit);
        }
        let refused = |why: String| Error::new(ErrorKind::PermissionDenied, why);
        let text = path.to_str();
        let text = text.ok_or_else(|| refused("its path is not UTF-8".to_owned()))?;
        let place = self.place(text);
        let (above, below) =
            place.map_err(|refusal| refused(format!("{refusal}; {}", refusal.help())))?;
        match above == Path::new("/") {
            // All paths are allowed, and links to anywhere.
            true => beneath::read_absolute(path, limit),
            false => Root::open(&above)?.read(&below, limit),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::swapper::Swapper;
    use phalanx_shared::policy::rules::CLOSED;
    use phalanx_shared::policy::{Allow, Rule, Rules};

    #[test]
    fn files_beside_the_workspace_are_read_only_below_what_is_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let (workspace, shared) = (dir.path().join("work"), dir.path().join("shared"));
        for directory in [&workspace, &shared] {
            std::fs::create_dir(directory).unwrap();
            std::fs::write(directory.join("file"), "ours").unwrap();
            std::os::unix::fs::symlink(dir.path().join("secret"), directory.join("link")).unwrap();
        }
        std::fs::write(dir.path().join("secret"), "theirs").unwrap();
        let mut rules = Rules::closed(CLOSED);
        let allowed = Allow::Only(vec![shared.display().to_string()]);
        rules.set(Rule::Paths, allowed, "p.toml:1");
        let policy = Policy::of(rules);
        let read = |policy: &Policy, path: &Path| policy.read(Some(&workspace), path, 100).ok();
        for policy in [&policy, &Policy::closed(), &Policy::open()] {
            assert_eq!(read(policy, Path::new("file")).unwrap(), b"ours");
            assert_eq!(read(policy, Path::new("link")), None);
            assert_eq!(read(policy, Path::new("../secret")), None);
            assert!(policy.read(None, Path::new("file"), 100).is_err());
        }
        assert_eq!(read(&policy, &shared.join("file")).unwrap(), b"ours");
        assert_eq!(read(&policy, &shared.join("link")), None);
        assert_eq!(read(&policy, &shared.join("../secret")), None);
        assert_eq!(read(&policy, &dir.path().join("secret")), None);
        assert_eq!(read(&Policy::closed(), &shared.join("file")), None);
        assert_eq!(
            read(&Policy::open(), &shared.join("link")).unwrap(),
            b"theirs"
        );
    }

    #[test]
    fn links_that_are_swapped_while_files_are_read_lead_nowhere() {
        let swapper = Swapper::start();
        for name in ["file", "dir/inner"] {
            let read = |work: &Path| Policy::closed().read(Some(work), Path::new(name), 100).ok();
            swapper.race(read);
        }
        // The same below a path that the policy allows.
        let mut rules = Rules::closed(CLOSED);
        let allowed = Allow::Only(vec![swapper.workspace().display().to_string()]);
        rules.set(Rule::Paths, allowed, "p.toml:1");
        let policy = Policy::of(rules);
        swapper.race(|work| policy.read(None, &work.join("dir/inner"), 100).ok());
    }
}
