//! Builds the tree from the parser's events: resolves anchors, aliases and merge keys, finds duplicate keys, and
//! enforces the limits.

use super::position::Places;
use super::scalar::{self, Unfit};
use super::{Limits, Mark, Marks, start_of};
use crate::diagnostic::{Diagnostic, Span};
use crate::node::{Entry, Node, NodeValue, Text};
use saphyr_parser::{ScalarStyle, Tag};
use std::borrow::Cow;
use std::collections::HashMap;

type Fatal = Box<Diagnostic>;

/// A finished value, with the cost of repeating it.
#[derive(Clone)]
struct Built {
    node: Node,
    /// Number of nodes in the value, including itself.
    nodes: usize,
    scalar_bytes: usize,
    /// Levels of lists and maps in the value, including itself.
    height: usize,
    /// Whether the value is the plain scalar `<<`.
    merge: bool,
}

/// A list or map that is not complete yet.
struct Frame {
    map: bool,
    anchor: usize,
    mark: Option<Mark>,
    span: Span,
    items: Vec<Node>,
    entries: Vec<Entry>,
    /// Key that waits for its value; the inner `None` stands for a value that can't be a key.
    key: Option<Option<Key>>,
    merged: Vec<Node>,
    nodes: usize,
    scalar_bytes: usize,
    height: usize,
}

enum Key {
    Named(Text),
    Merge(Span),
}

/// Builds a tree from events.
pub struct Builder<'a, 'd> {
    limits: Limits,
    places: &'d Places<'a>,
    /// Where marked values are recorded, if the file may have them.
    marks: Option<&'d mut Marks>,
    diagnostics: &'d mut Vec<Diagnostic>,
    frames: Vec<Frame>,
    root: Option<Node>,
    anchors: HashMap<usize, Built>,
    nodes: usize,
    scalar_bytes: usize,
}

impl<'a, 'd> Builder<'a, 'd> {
    pub fn new(
        limits: Limits,
        places: &'d Places<'a>,
        marks: Option<&'d mut Marks>,
        diagnostics: &'d mut Vec<Diagnostic>,
    ) -> Self {
        Builder {
            limits,
            places,
            marks,
            diagnostics,
            frames: Vec::new(),
            root: None,
            anchors: HashMap::new(),
            nodes: 0,
            scalar_bytes: 0,
        }
    }

    /// Returns the tree, after the last event.
    pub fn finish(self) -> Option<Node> {
        if self.root.is_none() {
            self.diagnostics.push(Diagnostic::error(
                start_of(self.places.file()),
                "the file is empty",
            ));
        }
        self.root
    }

    /// Starts a list or map.
    pub fn open(
        &mut self,
        map: bool,
        anchor: usize,
        tag: Option<&Tag>,
        start: usize,
        end: usize,
    ) -> Result<(), Fatal> {
        let span = self.places.span(start, end);
        if self.frames.len() >= self.limits.depth {
            return Err(Box::new(self.too_deep(span)));
        }
        let mark = self.mark(tag);
        if mark.is_none() {
            self.check_tag(tag, if map { "map" } else { "seq" }, span);
        }
        self.spend(1, 0, span)?;
        self.frames.push(Frame {
            map,
            anchor,
            mark,
            span,
            items: Vec::new(),
            entries: Vec::new(),
            key: None,
            merged: Vec::new(),
            nodes: 1,
            scalar_bytes: 0,
            height: 1,
        });
        Ok(())
    }

    /// Completes a list or map.
    pub fn close(&mut self, start: usize, end: usize) -> Result<(), Fatal> {
        let Some(mut frame) = self.frames.pop() else {
            return Ok(());
        };
        let closing = self.places.span(start, end);
        let last = frame
            .entries
            .last()
            .map(|entry| entry.value.span)
            .into_iter()
            .chain(frame.items.last().map(|item| item.span))
            .next();
        let until = match last {
            _ if closing.len > 0 => closing.offset + closing.len,
            Some(last) => last.offset.saturating_add(last.len),
            None => frame.span.offset,
        };
        frame.span.len = until.saturating_sub(frame.span.offset);
        self.record(frame.mark, frame.span);
        let value = if frame.map {
            let mut entries = self.without_duplicates(std::mem::take(&mut frame.entries));
            merge(&mut entries, std::mem::take(&mut frame.merged));
            // Shrink: most maps are small, and spare room for four entries each would be most of the memory for big
            // files.
            entries.shrink_to_fit();
            NodeValue::Map(entries)
        } else {
            let mut items = std::mem::take(&mut frame.items);
            items.shrink_to_fit();
            NodeValue::List(items)
        };
        let node = Node {
            value,
            span: frame.span,
        };
        let built = Built {
            node,
            nodes: frame.nodes,
            scalar_bytes: frame.scalar_bytes,
            height: frame.height,
            merge: false,
        };
        self.put(built, frame.anchor)
    }

    /// Adds a scalar.
    pub fn scalar(
        &mut self,
        text: Cow<'_, str>,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        start: usize,
        end: usize,
    ) -> Result<(), Fatal> {
        let span = self.scalar_span(&text, style, start, end);
        self.spend(1, text.len(), span)?;
        let merge = style == ScalarStyle::Plain && text == "<<";
        let scalar_bytes = text.len();
        let mark = self.mark(tag);
        self.record(mark, span);
        let tag = tag.filter(|_| mark.is_none());
        let value = self.scalar_value(text, style, tag, span);
        let built = Built {
            node: Node { value, span },
            nodes: 1,
            scalar_bytes,
            height: 0,
            merge,
        };
        self.put(built, anchor)
    }

    /// Returns the mark of a value, if its tag is one and the file may have marks.
    fn mark(&self, tag: Option<&Tag>) -> Option<Mark> {
        let tag = tag.filter(|tag| self.marks.is_some() && tag.handle == "!")?;
        match tag.suffix.as_str() {
            "reset" => Some(Mark::Reset),
            "override" => Some(Mark::Override),
            _ => None,
        }
    }

    fn record(&mut self, mark: Option<Mark>, span: Span) {
        if let (Some(marks), Some(mark)) = (self.marks.as_deref_mut(), mark) {
            marks.insert(span, mark);
        }
    }

    /// Adds another copy of an anchored value.
    pub fn alias(&mut self, anchor: usize, start: usize, end: usize) -> Result<(), Fatal> {
        let span = self.places.span(start, end);
        let Some(built) = self.anchors.get(&anchor).cloned() else {
            let problem = Diagnostic::error(span, "an alias inside the value that it repeats");
            return Err(Box::new(
                problem.with_help("a value can't contain itself: use another name"),
            ));
        };
        if self.frames.len() + built.height > self.limits.depth {
            return Err(Box::new(self.too_deep(span)));
        }
        self.spend(built.nodes, built.scalar_bytes, span)?;
        self.put(built, 0)
    }

    fn too_deep(&self, span: Span) -> Diagnostic {
        Diagnostic::error(
            span,
            format!("more than {} levels of lists and maps", self.limits.depth),
        )
    }

    fn spend(&mut self, nodes: usize, scalar_bytes: usize, span: Span) -> Result<(), Fatal> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.scalar_bytes = self.scalar_bytes.saturating_add(scalar_bytes);
        let problem = if self.nodes > self.limits.nodes {
            format!("more than {} values, aliases put in", self.limits.nodes)
        } else if self.scalar_bytes > self.limits.scalar_bytes {
            format!(
                "more than {} bytes of text, aliases put in",
                self.limits.scalar_bytes
            )
        } else {
            return Ok(());
        };
        Err(Box::new(Diagnostic::error(span, problem).with_help(
            "aliases of aliases multiply: write an expression over `vars` instead",
        )))
    }

    /// Adds a finished value to the list or map that is open, or makes it the root.
    fn put(&mut self, built: Built, anchor: usize) -> Result<(), Fatal> {
        if anchor > 0 {
            self.spend(built.nodes, built.scalar_bytes, built.node.span)?;
            self.anchors.insert(anchor, built.clone());
        }
        let is_key = matches!(self.frames.last(), Some(frame) if frame.map && frame.key.is_none());
        if is_key {
            let key = self.key(built.node, built.merge);
            if let Some(frame) = self.frames.last_mut() {
                frame.nodes += built.nodes;
                frame.scalar_bytes += built.scalar_bytes;
                frame.key = Some(key);
            }
            return Ok(());
        }
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(built.node);
            return Ok(());
        };
        frame.nodes += built.nodes;
        frame.scalar_bytes += built.scalar_bytes;
        frame.height = frame.height.max(built.height + 1);
        if !frame.map {
            frame.items.push(built.node);
            return Ok(());
        }
        match frame.key.take().flatten() {
            Some(Key::Named(key)) => frame.entries.push(Entry {
                key,
                value: built.node,
            }),
            Some(Key::Merge(span)) => {
                if let Err(problem) = take_merged(&mut frame.merged, built.node, span) {
                    self.diagnostics.push(*problem);
                }
            }
            None => {}
        }
        Ok(())
    }

    /// Returns a node as a key. Numbers and bools become keys by their spelling.
    fn key(&mut self, node: Node, merge: bool) -> Option<Key> {
        if merge {
            return Some(Key::Merge(node.span));
        }
        let span = node.span;
        let text = match node.value {
            NodeValue::Text(text) => text,
            NodeValue::List(_) | NodeValue::Map(_) => {
                self.diagnostics.push(
                    Diagnostic::error(span, "a list or map can't be a key")
                        .with_help("quote a text that starts with `{` or `[`"),
                );
                return None;
            }
            _ => self.places.text_of(span).to_owned(),
        };
        Some(Key::Named(Text { text, span }))
    }

    fn without_duplicates(&mut self, entries: Vec<Entry>) -> Vec<Entry> {
        let mut order: Vec<usize> = (0..entries.len()).collect();
        order.sort_by(|&a, &b| {
            let key = |at: usize| entries.get(at).map(|entry| &entry.key.text);
            key(a).cmp(&key(b)).then(a.cmp(&b))
        });
        let mut repeated = vec![false; entries.len()];
        let mut first: Option<&Text> = None;
        for at in order {
            let Some(key) = entries.get(at).map(|entry| &entry.key) else {
                continue;
            };
            match first {
                Some(earlier) if earlier.text == key.text => {
                    self.diagnostics.push(
                        Diagnostic::error(key.span, format!("`{}` is written twice", key.text))
                            .with_related(earlier.span, "first written here")
                            .with_help("keys of a map are unique: remove or rename one"),
                    );
                    if let Some(mark) = repeated.get_mut(at) {
                        *mark = true;
                    }
                }
                _ => first = Some(key),
            }
        }
        let mut repeated = repeated.into_iter();
        let mut entries = entries;
        entries.retain(|_| !repeated.next().unwrap_or(false));
        entries
    }

    /// Returns the span of the text between the quotes if the source holds it character by character, so that offsets
    /// into the text are offsets into the file. Otherwise returns the span of the whole scalar.
    fn scalar_span(&self, text: &str, style: ScalarStyle, start: usize, end: usize) -> Span {
        let quoted = matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
        let first = start + usize::from(quoted);
        let written = self.places.slice(first, end);
        if written.starts_with(text) {
            return self.places.span_of(first, text.len());
        }
        // `expr::place` tells the two cases apart by their lengths. A line break that became a space, or an escape as
        // long as its character, can make the lengths equal by chance. Shorten the span in that case.
        let mut whole = self.places.slice(start, end).trim_end();
        while whole.len() == text.len() || whole.len() == text.len() + 2 {
            let Some((at, _)) = whole.char_indices().next_back() else {
                break;
            };
            whole = &whole[..at];
        }
        self.places.span_of(start, whole.len())
    }

    fn scalar_value(
        &mut self,
        text: Cow<'_, str>,
        style: ScalarStyle,
        tag: Option<&Tag>,
        span: Span,
    ) -> NodeValue {
        let core = tag.filter(|tag| tag.is_yaml_core_schema());
        match (core.map(|tag| tag.suffix.as_str()), tag) {
            (Some("str"), _) => return NodeValue::Text(text.into_owned()),
            (Some("int" | "float" | "bool" | "null"), _) => {}
            (None, None) if style != ScalarStyle::Plain => {
                return NodeValue::Text(text.into_owned());
            }
            (None, None) => {}
            (_, Some(tag)) if tag.handle.is_empty() && tag.suffix == "!" => {
                return NodeValue::Text(text.into_owned());
            }
            _ => {
                self.check_tag(tag, "str", span);
                let tag = tag.map_or("", |tag| tag.suffix.as_str());
                return NodeValue::Text(format!("!{tag}{text}"));
            }
        }
        match scalar::resolve(&text) {
            Ok(value) => {
                if let Some(read) = scalar::changed_spelling(&text, &value) {
                    self.diagnostics.push(
                        Diagnostic::warning(span, format!("`{text}` is the number {read} to YAML"))
                            .with_help(format!(
                                "quote it if it is a text, such as a version: \"{text}\""
                            )),
                    );
                }
                value
            }
            Err(unfit) => {
                let problem = match unfit {
                    Unfit::TooBig => format!("`{text}` is too big for a 64-bit number"),
                    Unfit::NotFinite => format!("`{text}` is no number that JSON has"),
                };
                self.diagnostics.push(
                    Diagnostic::error(span, problem)
                        .with_help(format!("quote it if it is a text: \"{text}\"")),
                );
                NodeValue::Text(text.into_owned())
            }
        }
    }

    /// Reports a tag other than `!!wanted`. Most such tags are a CEL `!` that should have been quoted.
    fn check_tag(&mut self, tag: Option<&Tag>, wanted: &str, span: Span) {
        let Some(tag) = tag else { return };
        if tag.is_yaml_core_schema() && tag.suffix == wanted {
            return;
        }
        if tag.is_yaml_core_schema() {
            self.diagnostics.push(Diagnostic::error(
                span,
                format!("the tag `!!{}` doesn't fit this value", tag.suffix),
            ));
            return;
        }
        self.diagnostics.push(
            Diagnostic::error(span, format!("`!{}` is a tag to YAML", tag.suffix))
                .with_help("quote a text or an expression that starts with `!`: \"!done\""),
        );
    }
}

/// Collects the maps that `<<` merges: one map, or a list of maps.
fn take_merged(merged: &mut Vec<Node>, node: Node, key: Span) -> Result<(), Fatal> {
    match node.value {
        NodeValue::Map(_) => merged.push(node),
        NodeValue::List(items)
            if items
                .iter()
                .all(|item| matches!(item.value, NodeValue::Map(_))) =>
        {
            merged.extend(items);
        }
        _ => {
            let problem = Diagnostic::error(key, "`<<` takes a map or a list of maps");
            return Err(Box::new(problem.with_help(
                "`<<: *name` merges the map that `&name` marked; a key of that name is quoted: \"<<\"",
            )));
        }
    }
    Ok(())
}

/// Adds the entries of merged maps whose keys the map doesn't have. The map's own entries take precedence over merged
/// ones, and earlier merged maps over later ones.
fn merge(entries: &mut Vec<Entry>, merged: Vec<Node>) {
    if merged.is_empty() {
        return;
    }
    let mut known: std::collections::HashSet<String> =
        entries.iter().map(|entry| entry.key.text.clone()).collect();
    for node in merged {
        if let NodeValue::Map(more) = node.value {
            for entry in more {
                if known.insert(entry.key.text.clone()) {
                    entries.push(entry);
                }
            }
        }
    }
}
