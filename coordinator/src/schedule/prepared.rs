//! What one agent has of the images that cells need, and what it prepares.

use super::request::{ClassId, ClassKey};
use phalanx_proto::link::AheadState;
use phalanx_shared::plan::WantedImage;
use std::collections::{BTreeMap, BTreeSet};

/// What an agent has and prepares.
#[derive(Clone, Debug, Default)]
pub(super) struct Prepared {
    /// Images that it has, as far as it said.
    pub ready: BTreeSet<String>,
    /// Images that it couldn't get ahead. The cells try again.
    pub failed: BTreeSet<String>,
    /// How far the images of its list are, for display.
    pub states: BTreeMap<String, AheadState>,
    /// The classes of the cells on it, and how many there are of each.
    pub placed: BTreeMap<ClassId, u32>,
    /// The classes of waiting cells for which it was chosen, and how many images it lacked for each.
    pub next: BTreeMap<ClassId, usize>,
    /// The list that it was told since its Hello.
    pub told: Option<Vec<WantedImage>>,
}

impl Prepared {
    /// Returns what is known of an agent that says Hello. What is placed on it stays.
    pub fn greeted(images: &[String], before: Option<Prepared>) -> Prepared {
        Prepared {
            ready: images.iter().cloned().collect(),
            placed: before.map(|before| before.placed).unwrap_or_default(),
            ..Prepared::default()
        }
    }

    pub fn placed(&mut self, class: ClassId) {
        *self.placed.entry(class).or_default() += 1;
    }

    pub fn released(&mut self, class: ClassId) {
        if let Some(cells) = self.placed.get_mut(&class) {
            *cells = cells.saturating_sub(1);
            if *cells == 0 {
                self.placed.remove(&class);
            }
        }
    }

    pub fn lacks<'c>(&self, key: &'c ClassKey) -> impl Iterator<Item = &'c WantedImage> {
        let missing = |image: &&WantedImage| {
            !self.ready.contains(image.id()) && !self.failed.contains(image.id())
        };
        key.images
            .iter()
            .filter(missing)
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// Returns the number of images that it was chosen to prepare for waiting cells.
    pub fn listed(&self) -> usize {
        self.next.values().sum()
    }
}
