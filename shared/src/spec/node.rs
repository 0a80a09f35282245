//! YAML as a tree with positions. Any text in it may hold `${{ }}`; nothing here evaluates it.

use crate::diagnostic::Span;
use serde::{Deserialize, Serialize};

/// A value of the YAML tree and where it stands.
///
/// The span of a text is the text itself, without quotes, where the source holds it letter for letter; then
/// `span.len` equals the text's length and byte *i* of the text is byte `span.offset + i` of the file. Otherwise
/// (escapes, folded lines, block scalars) it is the whole scalar. The same holds for [`Text`], [`Template`] and
/// [`Expr`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// The value.
    pub value: NodeValue,
    /// Where it stands.
    pub span: Span,
}

impl Node {
    /// The value of a key, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let entry = self.entries().iter().find(|entry| entry.key.text == key)?;
        Some(&entry.value)
    }

    /// The entries of a map; none of anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            NodeValue::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; none of anything else.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            NodeValue::List(items) => items,
            _ => &[],
        }
    }

    /// A text's text.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            NodeValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is a text that holds `${{`, so that its value is known only when it is evaluated.
    pub fn is_template(&self) -> bool {
        self.as_text().is_some_and(holds_interpolation)
    }

    /// Whether there is nothing.
    pub fn is_null(&self) -> bool {
        self.value == NodeValue::Null
    }

    /// The value as JSON; positions are lost.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.value {
            NodeValue::Null => Value::Null,
            NodeValue::Bool(value) => Value::Bool(*value),
            NodeValue::Int(value) => Value::from(*value),
            NodeValue::Float(value) => Value::from(*value),
            NodeValue::Text(text) => Value::String(text.clone()),
            NodeValue::List(items) => items.iter().map(Node::to_json).collect(),
            NodeValue::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|entry| (entry.key.text.clone(), entry.value.to_json()))
                    .collect(),
            ),
        }
    }
}

/// A text that was made of the scalar at `span`. The span is cut where it would seem to be the text letter for letter.
pub(crate) fn written_anew(text: String, span: Span) -> Node {
    let mut span = span;
    let seems = |len: u32| len as usize == text.len() || len as usize == text.len() + 2;
    while span.len > 0 && seems(span.len) {
        span.len -= 1;
    }
    Node {
        value: NodeValue::Text(text),
        span,
    }
}

/// Whether a text holds `${{` other than as the literal `$${{`.
pub fn holds_interpolation(text: &str) -> bool {
    text.match_indices("${{").any(|(at, _)| {
        !text
            .as_bytes()
            .get(..at)
            .is_some_and(|before| before.ends_with(b"$"))
    })
}

/// The kinds of YAML 1.2's core schema that a spec may hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeValue {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A 64-bit integer.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text, possibly with `${{ }}` in it.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order written; keys are unique.
    Map(Vec<Entry>),
}

/// One entry of a mapping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The key; never interpolated.
    pub key: Text,
    /// Its value.
    pub value: Node,
}

/// Plain text (a name, a key) and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// The text.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// Text that may hold `${{ }}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// The text as YAML gives it.
    pub text: String,
    /// Where the scalar stands.
    pub span: Span,
}

/// A CEL expression of an expression field, the one allowed `${{ }}` around the whole already taken off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expr {
    /// The CEL text.
    pub text: String,
    /// Where the CEL text stands.
    pub span: Span,
}
