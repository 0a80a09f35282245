//! The parts of a page, and which of them changed since an event. Pure.
//!
//! A page is composed of regions: a row, a cell's mark, a heading. Each has an id and the id of the element that it is
//! in. A patch replaces regions as a whole, and appends the new ones. For each region, the board knows the event after
//! which it looked different. So what a watcher misses is exactly what changed after the event that it names, and no
//! patch is kept for anyone.

use indexmap::IndexMap;
use serde::Serialize;
use std::collections::HashMap;

/// A part of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Id of the element, unique on the page.
    pub id: String,
    /// Id of the element that it is in.
    pub into: String,
    /// The element with this id. Where other regions belong, it has an element with a slot ([`slot`]).
    pub html: String,
    /// Whether it only holds other regions: a page that has it never gets it again.
    pub frame: bool,
}

impl Region {
    /// Creates a region that patches replace.
    pub fn part(id: impl Into<String>, into: impl Into<String>, html: maud::Markup) -> Region {
        Region {
            id: id.into(),
            into: into.into(),
            html: html.into_string(),
            frame: false,
        }
    }

    /// Creates a region that holds other ones.
    pub fn frame(id: impl Into<String>, into: impl Into<String>, html: maud::Markup) -> Region {
        Region {
            frame: true,
            ..Region::part(id, into, html)
        }
    }
}

/// A region as a patch has it: id, id of the element around it, and its HTML.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Change<'a>(pub &'a str, pub &'a str, pub &'a str);

struct Part {
    into: String,
    html: String,
    frame: bool,
    /// Position of the event after which it looked like this.
    changed: u64,
}

/// The regions of a page after an event.
pub struct Board {
    seq: u64,
    /// The board knows what changed after this event.
    from: u64,
    parts: IndexMap<String, Part>,
}

impl Board {
    /// Creates a board with all regions after the event at a position.
    pub fn new(seq: u64, regions: Vec<Region>) -> Board {
        let mut board = Board {
            seq,
            from: seq,
            parts: IndexMap::new(),
        };
        board.update(seq, regions);
        board
    }

    /// Returns the position of the newest event on the board.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Takes regions as they are after the event at a position; other regions stay as they are. Returns whether
    /// anything looks different.
    pub fn update(&mut self, seq: u64, regions: Vec<Region>) -> bool {
        self.seq = seq;
        let mut news = false;
        for region in regions {
            let Region {
                id,
                into,
                html,
                frame,
            } = region;
            match self.parts.get_mut(&id) {
                Some(part) if part.frame || part.html == html => continue,
                Some(part) => (part.html, part.changed) = (html, seq),
                None => {
                    let changed = seq;
                    let part = Part {
                        into,
                        html,
                        frame,
                        changed,
                    };
                    self.parts.insert(id, part);
                }
            }
            news = true;
        }
        news
    }

    /// Returns what changed after the event at a position; `None` if the board began later, or hasn't come so far.
    pub fn since(&self, seen: u64) -> Option<Vec<Change<'_>>> {
        (self.from..=self.seq).contains(&seen).then(|| {
            self.changes(|_, part| part.changed > seen)
                .collect::<Vec<_>>()
        })
    }

    /// Returns what looks different from an earlier board of the same page.
    pub fn differing(&self, before: &Board) -> Vec<Change<'_>> {
        let differs = |id: &str, part: &Part| {
            let known = before.parts.get(id);
            known.is_none_or(|known| !part.frame && known.html != part.html)
        };
        self.changes(differs).collect()
    }

    /// Returns all regions.
    pub fn all(&self) -> Vec<Change<'_>> {
        self.changes(|_, _| true).collect()
    }

    fn changes(&self, wanted: impl Fn(&str, &Part) -> bool) -> impl Iterator<Item = Change<'_>> {
        let parts = self.parts.iter();
        parts
            .filter(move |(id, part)| wanted(id, part))
            .map(|(id, part)| Change(id, &part.into, &part.html))
    }

    /// Returns the HTML of the regions in the element with this id, each with its own regions inside.
    pub fn html(&self, root: &str) -> String {
        let mut inside: HashMap<&str, Vec<&Part>> = HashMap::new();
        for part in self.parts.values() {
            inside.entry(&part.into).or_default().push(part);
        }
        let mut page = String::new();
        compose(&inside, root, &mut page, 0);
        page
    }
}

/// Regions are nested no deeper than this.
const DEPTH: usize = 8;

fn compose(inside: &HashMap<&str, Vec<&Part>>, id: &str, page: &mut String, depth: usize) {
    if depth > DEPTH {
        return;
    }
    for part in inside.get(id).into_iter().flatten() {
        let mut rest = part.html.as_str();
        // Text from outside is escaped, so only `slot` makes such a comment.
        while let Some((before, after)) = rest.split_once(SLOT) {
            let Some((name, after)) = after.split_once("-->") else {
                break;
            };
            page.push_str(before);
            compose(inside, name, page, depth + 1);
            rest = after;
        }
        page.push_str(rest);
    }
}

const SLOT: &str = "<!--in:";

/// Returns the mark for the place of regions in the element with this id.
pub fn slot(id: &str) -> maud::PreEscaped<String> {
    maud::PreEscaped(format!("{SLOT}{id}-->"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn region(id: &str, into: &str, html: &str) -> Region {
        Region::part(id, into, maud::PreEscaped(html.to_owned()))
    }

    fn board() -> Board {
        let frame = format!("<ol id=list>{}</ol>", slot("list").0);
        Board::new(
            3,
            vec![
                Region::frame("frame", "page", maud::PreEscaped(frame)),
                region("a", "list", "<li>a</li>"),
                region("b", "list", "<li>b</li>"),
            ],
        )
    }

    #[test]
    fn a_page_is_its_regions_in_their_places() {
        assert_eq!(
            board().html("page"),
            "<ol id=list><li>a</li><li>b</li></ol>"
        );
    }

    #[test]
    fn what_changed_after_an_event_is_exactly_what_looks_different() {
        let mut board = board();
        assert!(!board.update(4, vec![region("a", "list", "<li>a</li>")]));
        assert!(board.update(5, vec![region("a", "list", "<li>A</li>")]));
        assert!(board.update(7, vec![region("c", "list", "<li>c</li>")]));
        let ids = |seen| {
            let changes = board.since(seen).unwrap();
            changes.iter().map(|c| c.0.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(ids(3), ["a", "c"]);
        assert_eq!(ids(4), ["a", "c"]);
        assert_eq!(ids(5), ["c"]);
        assert!(ids(7).is_empty());
    }

    #[test]
    fn a_board_knows_nothing_from_before_its_time_and_compares_instead() {
        let mut later = board();
        later.update(9, vec![region("b", "list", "<li>B</li>")]);
        assert_eq!(later.since(2), None);
        assert_eq!(later.since(10), None);
        later.update(
            9,
            vec![Region::frame("frame", "page", maud::PreEscaped("x".into()))],
        );
        let changes = later.differing(&board());
        assert_eq!(changes, [Change("b", "list", "<li>B</li>")]);
    }
}
