//! YAML as a tree with positions. Any text may hold `${{ }}`; nothing here evaluates it.

use crate::diagnostic::Span;
use serde::{Deserialize, Serialize};

/// A value of the YAML tree, with its place.
///
/// Where the source holds a text character by character, the text's span covers exactly that text, without quotes. Then
/// `span.len` equals the text's length, and byte *i* of the text is byte `span.offset + i` of the file. Otherwise
/// (escapes, folded lines, block scalars) the span covers the whole scalar. The same holds for [`Text`], [`Template`]
/// and [`Expr`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Value of the node.
    pub value: NodeValue,
    /// Place of the value.
    pub span: Span,
}

impl Node {
    /// Returns the value of a key, if this is a map that has the key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let entry = self.entries().iter().find(|entry| entry.key.text == key)?;
        Some(&entry.value)
    }

    /// Returns the entries of a map; none for any other value.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            NodeValue::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Returns the items of a list; none for any other value.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            NodeValue::List(items) => items,
            _ => &[],
        }
    }

    /// Returns the text, if this is one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            NodeValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns whether this is a text that holds `${{`, so that only evaluation gives its value.
    pub fn is_template(&self) -> bool {
        self.as_text().is_some_and(holds_interpolation)
    }

    /// Returns whether the value is null.
    pub fn is_null(&self) -> bool {
        self.value == NodeValue::Null
    }

    /// Returns the value as JSON, without positions.
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

/// Returns a text made from the scalar at `span`. Shortens the span if its length would suggest that the source holds
/// the text character by character.
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

/// Returns whether a text holds `${{`, other than as the literal `$${{`.
pub fn holds_interpolation(text: &str) -> bool {
    text.match_indices("${{").any(|(at, _)| {
        !text
            .as_bytes()
            .get(..at)
            .is_some_and(|before| before.ends_with(b"$"))
    })
}

/// Kinds of YAML 1.2's core schema that a spec may hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeValue {
    /// `null`, `~` or an empty value.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A 64-bit integer.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text, possibly with `${{ }}` in it.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map in the order written, with unique keys.
    Map(Vec<Entry>),
}

/// One entry of a map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Key; never interpolated.
    pub key: Text,
    /// Value of the key.
    pub value: Node,
}

/// Plain text (a name or a key), with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// Text of the name or key.
    pub text: String,
    /// Place of the text.
    pub span: Span,
}

/// Text that may hold `${{ }}`, with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Text as YAML gives it.
    pub text: String,
    /// Place of the scalar.
    pub span: Span,
}

/// CEL expression of an expression field, without the optional `${{ }}` around the whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expr {
    /// CEL text.
    pub text: String,
    /// Place of the CEL text.
    pub span: Span,
}
