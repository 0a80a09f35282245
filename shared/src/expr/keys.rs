//! The keys of `matrix`, read as GitHub reads them.
//!
//! A key may contain `-`: `matrix.python-version` is that key if it exists, although CEL alone would subtract.
//! `matrix.Python` is the key `python` if no key has that exact spelling. Both are decided when an expression is
//! parsed, so the caller passes the keys.

/// The keys that `matrix` has in any cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MatrixKeys {
    names: Vec<String>,
    open: bool,
}

impl MatrixKeys {
    /// Returns a set of exactly these keys.
    pub fn of(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        MatrixKeys {
            names: names.into_iter().map(Into::into).collect(),
            open: false,
        }
    }

    /// Adds that there may be other keys that aren't known yet.
    #[must_use]
    pub fn open(mut self) -> Self {
        self.open = true;
        self
    }

    /// Returns the key that a name refers to: the exact key, otherwise the only one that differs in case.
    pub fn canonical<'k>(&'k self, written: &str) -> Option<&'k str> {
        let names = || self.names.iter().map(String::as_str);
        if let Some(name) = names().find(|name| *name == written) {
            return Some(name);
        }
        let mut alike = names().filter(|name| name.eq_ignore_ascii_case(written));
        match (alike.next(), alike.next()) {
            (Some(name), None) => Some(name),
            _ => None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty() && !self.open
    }

    /// Returns how much of `a-b-c` after `matrix.` is a key that contains `-`: the longest possible prefix.
    pub(super) fn dashed(&self, run: &str) -> Option<usize> {
        let ends = run.match_indices('-').map(|(at, _)| at).chain([run.len()]);
        let mut longest = None;
        for end in ends {
            if run
                .get(..end)
                .is_some_and(|part| self.canonical(part).is_some())
            {
                longest = Some(end);
            }
        }
        let longest = longest.or_else(|| self.open.then(|| run.trim_end_matches('-').len()));
        longest.filter(|end| run.get(..*end).is_some_and(|part| part.contains('-')))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_key_is_taken_and_a_subtraction_stays_one() {
        let keys = MatrixKeys::of(["python-version", "python", "n", "a-b-c"]);
        assert_eq!(keys.dashed("python-version"), Some(14));
        assert_eq!(keys.dashed("Python-Version"), Some(14));
        assert_eq!(keys.dashed("python-version-x"), Some(14));
        assert_eq!(keys.dashed("a-b-c"), Some(5));
        assert_eq!(keys.dashed("n-1"), None);
        assert_eq!(keys.dashed("other-key"), None);
        assert_eq!(keys.clone().open().dashed("other-key"), Some(9));
        assert_eq!(keys.open().dashed("n-1"), None);
    }

    #[test]
    fn case_decides_only_between_keys_that_differ_in_nothing_else() {
        let keys = MatrixKeys::of(["os", "Arch", "arch"]);
        assert_eq!(keys.canonical("OS"), Some("os"));
        assert_eq!(keys.canonical("arch"), Some("arch"));
        assert_eq!(keys.canonical("ARCH"), None);
    }
}
