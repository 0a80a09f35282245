//! Finds cycles among items that need each other.

use crate::diagnostic::Span;
use indexmap::IndexMap;
use std::collections::HashSet;

/// Reports each cycle once: the names on it, the place that closes it, and the name it goes back to. Ignores needs for
/// names that aren't in the map; other checks report them.
pub fn each(
    needs: &IndexMap<&str, Vec<(String, Span)>>,
    mut report: impl FnMut(&[&str], Span, &str),
) {
    let mut done: HashSet<&str> = HashSet::new();
    for (&start, first) in needs {
        // Path of names, each with the needs that have not been followed yet.
        let mut path: Vec<&str> = Vec::new();
        let mut rest: Vec<std::slice::Iter<'_, (String, Span)>> = Vec::new();
        let mut on_path: HashSet<&str> = HashSet::new();
        if !done.contains(start) {
            path.push(start);
            on_path.insert(start);
            rest.push(first.iter());
        }
        while let (Some(&name), Some(needed)) = (path.last(), rest.last_mut()) {
            let Some((next, span)) = needed.next() else {
                done.insert(name);
                on_path.remove(name);
                path.pop();
                rest.pop();
                continue;
            };
            if on_path.contains(next.as_str()) {
                let at = path.iter().position(|seen| seen == next).unwrap_or(0);
                report(path.get(at..).unwrap_or_default(), *span, next);
            } else if !done.contains(next.as_str())
                && let Some((name, more)) = needs.get_key_value(next.as_str())
            {
                path.push(name);
                on_path.insert(name);
                rest.push(more.iter());
            }
        }
    }
}
