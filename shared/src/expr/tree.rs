//! Finds the position of each part of an expression in its text.
//!
//! The parser keeps the position of one token per node (the operator, the bracket of a call, the dot of an access). The
//! range of a part is joined from its children and its brackets.

use super::functions::{DISTINCT, JOIN, MATCHES, RANGE, REPLACE, SPLIT, is_wrapper};
use super::scan::{Kind, Pairs, token_at};
use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, SourceInfo, operators};
use std::ops::Range;

/// A parsed expression with the data needed to find its parts in its text.
#[derive(Debug)]
pub(super) struct Tree {
    pub text: String,
    pub root: IdedExpr,
    pub info: SourceInfo,
    pub pairs: Pairs,
    /// Ranges of names that contain `-`.
    pub names: Vec<Range<usize>>,
}

impl Tree {
    /// Returns the byte range of a part, with balanced brackets.
    pub(super) fn range(&self, part: &IdedExpr) -> Range<usize> {
        self.balanced(self.joined(part))
    }

    /// Returns the text of a part on one line.
    pub(super) fn part_text(&self, part: &IdedExpr) -> String {
        let text = self.text.get(self.range(part)).unwrap_or_default();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Returns the range of the token that the parser kept for a node.
    pub(super) fn token(&self, id: u64) -> Range<usize> {
        match self.info.offset_for(id) {
            Some((start, stop)) if stop >= start => start as usize..stop as usize + 1,
            _ => 0..self.text.len(),
        }
    }

    fn joined(&self, part: &IdedExpr) -> Range<usize> {
        let token = self.token(part.id);
        match &part.expr {
            Expr::Literal(_) | Expr::Ident(_) | Expr::Unspecified => token,
            Expr::Select(select) if select.test => self.called(token),
            Expr::Select(select) => {
                self.joined(&select.operand).start..self.name_after(token.end).end
            }
            Expr::Call(call) => self.joined_call(call, token),
            Expr::List(_) | Expr::Map(_) | Expr::Struct(_) => {
                token.start..self.close_of(token.start)
            }
            Expr::Comprehension(macro_) => {
                let target = [&macro_.iter_range, &macro_.accu_init]
                    .map(|part| self.joined(part).start)
                    .into_iter()
                    .fold(token.start, usize::min);
                target..self.close_of(token.start)
            }
        }
    }

    fn joined_call(&self, call: &CallExpr, token: Range<usize>) -> Range<usize> {
        if let Some(target) = &call.target {
            return self.joined(target).start..self.close_of(token.start);
        }
        match (call.func_name.as_str(), call.args.as_slice()) {
            (name, [inner]) if is_wrapper(name) => self.joined(inner),
            (RANGE, _) => {
                let name = self.name_before(token.start).start;
                let namespace = self.name_before(self.dot_before(name));
                namespace.start..self.close_of(token.start)
            }
            (operators::OPT_SELECT, [operand, _]) => {
                self.joined(operand).start..self.name_after(token.end).end
            }
            (operators::INDEX | operators::OPT_INDEX, [operand, _]) => {
                self.joined(operand).start..self.close_of(token.start)
            }
            (name, args) if !is_function(name) => args
                .iter()
                .map(|arg| self.joined(arg))
                .fold(token, |all, arg| {
                    all.start.min(arg.start)..all.end.max(arg.end)
                }),
            _ => self.called(token),
        }
    }

    /// Returns the range of `name( … )` for the bracket at `token`.
    fn called(&self, token: Range<usize>) -> Range<usize> {
        self.name_before(token.start).start..self.close_of(token.start)
    }

    /// Returns the range of the word before a bracket.
    pub(super) fn name_before(&self, bracket: usize) -> Range<usize> {
        let before = self.text.get(..bracket).unwrap_or_default().trim_end();
        let word = before
            .rfind(|c: char| !super::scan::is_word(c))
            .map_or(0, |at| {
                at + before[at..].chars().next().map_or(1, char::len_utf8)
            });
        word..before.len()
    }

    /// Returns the position of the dot before a name.
    fn dot_before(&self, name: usize) -> usize {
        let before = self.text.get(..name).unwrap_or_default().trim_end();
        before.len() - usize::from(before.ends_with('.'))
    }

    /// Returns the range of the word after a dot, and after the question mark of an optional access.
    pub(super) fn name_after(&self, mut at: usize) -> Range<usize> {
        while at < self.text.len() {
            match token_at(&self.text, at) {
                Ok(token) if token.kind == Kind::Word => {
                    let dashed = self.names.iter().find(|name| name.start == token.start);
                    return dashed.cloned().unwrap_or(token.start..token.end);
                }
                Ok(token) => at = token.end,
                Err(_) => break,
            }
        }
        at..at
    }

    /// Returns the end of the bracket that opens at `open`.
    fn close_of(&self, open: usize) -> usize {
        self.pairs
            .iter()
            .find(|(start, _)| *start == open)
            .map_or(self.text.len(), |(_, close)| close + 1)
    }

    /// Extends the range until every bracket in it has its partner in it.
    fn balanced(&self, mut range: Range<usize>) -> Range<usize> {
        loop {
            let half = self
                .pairs
                .iter()
                .find(|(open, close)| range.contains(open) != range.contains(close));
            match half {
                Some(&(open, close)) => range = range.start.min(open)..range.end.max(close + 1),
                None => return range,
            }
        }
    }
}

/// Returns whether a call's name is that of a function rather than an operator such as `_+_`.
pub(super) fn is_function(name: &str) -> bool {
    matches!(name, MATCHES | DISTINCT | RANGE | JOIN | REPLACE | SPLIT)
        || name.chars().all(super::scan::is_word)
}

/// Returns a part without the metering wrapped around it.
pub(super) fn unwrapped(part: &IdedExpr) -> &IdedExpr {
    match &part.expr {
        Expr::Call(call) if is_wrapper(&call.func_name) => call.args.first().unwrap_or(part),
        _ => part,
    }
}

/// Returns the direct parts of a node in the order of evaluation; parts of a macro are not included.
pub(super) fn children(part: &IdedExpr) -> Vec<&IdedExpr> {
    match &part.expr {
        Expr::Call(call) => call
            .target
            .as_deref()
            .into_iter()
            .chain(&call.args)
            .collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => entries(map.entries.iter().map(|entry| &entry.expr)),
        Expr::Struct(message) => entries(message.entries.iter().map(|entry| &entry.expr)),
        _ => Vec::new(),
    }
}

fn entries<'a>(entries: impl Iterator<Item = &'a EntryExpr>) -> Vec<&'a IdedExpr> {
    entries
        .flat_map(|entry| match entry {
            EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
            EntryExpr::StructField(field) => vec![&field.value],
        })
        .collect()
}
