//! `!reset` and `!override`: takes marked values out of a file, and what they concern out of the files before it.

use crate::language::parse::{Mark, Marks};
use crate::node::{Node, NodeValue};
use std::collections::HashMap;

/// Places of the values that a file removes or replaces.
#[derive(Clone, Debug, Default)]
pub struct Resets {
    /// Whether the value here goes.
    here: bool,
    within: HashMap<String, Resets>,
}

impl Resets {
    /// Removes the values marked `!reset`, and remembers the places of all marked values.
    pub fn take(tree: &mut Node, marks: &Marks) -> Resets {
        let mut resets = Resets::default();
        if !marks.is_empty() {
            resets.walk(tree, marks);
        }
        resets
    }

    fn walk(&mut self, node: &mut Node, marks: &Marks) {
        match &mut node.value {
            NodeValue::Map(entries) => entries.retain_mut(|entry| {
                let mut inside = Resets::default();
                let stays = inside.value(&mut entry.value, marks);
                if inside.here || !inside.within.is_empty() {
                    self.within.insert(entry.key.text.clone(), inside);
                }
                stays
            }),
            // Nothing corresponds to an item in another file.
            NodeValue::List(items) => {
                items.retain_mut(|item| Resets::default().value(item, marks));
            }
            _ => {}
        }
    }

    /// Returns whether the value stays in the file.
    fn value(&mut self, node: &mut Node, marks: &Marks) -> bool {
        let mark = marks.get(&node.span);
        self.here = mark.is_some();
        if mark.is_none() {
            self.walk(node, marks);
        }
        mark != Some(&Mark::Reset)
    }

    /// Removes the remembered places from the tree of the earlier files.
    pub fn apply(&self, tree: &mut Node) {
        if self.within.is_empty() {
            return;
        }
        if let NodeValue::Map(entries) = &mut tree.value {
            entries.retain_mut(|entry| {
                let Some(inside) = self.within.get(&entry.key.text) else {
                    return true;
                };
                inside.apply(&mut entry.value);
                !inside.here
            });
        }
    }

    /// Removes the places within a service from the one that it extends.
    pub fn apply_to_base_of(&self, name: &str, base: &mut Node) {
        let services = self.within.get("services");
        if let Some(service) = services.and_then(|services| services.within.get(name)) {
            service.apply(base);
        }
    }
}
