//! Casts texts to the type that their place takes. Expanding variables gives texts; Compose then reads numbers and
//! bools from them.

use super::{Kind, Leaf};
use crate::language::interpolation::Value;
use crate::node::{Node, NodeValue, written_anew};

/// Casts texts to bools and numbers where the kind takes them. A text that spells neither stays a text.
pub fn cast(kind: &Kind, node: &mut Node) {
    match (kind, &mut node.value) {
        (Kind::Leaf(leaf), _) => scalar(*leaf, node),
        (Kind::Varies(kind), _) => cast(kind, node),
        (Kind::List(item), NodeValue::List(items)) => {
            items.iter_mut().for_each(|node| cast(item, node));
        }
        (
            Kind::Map(item) | Kind::Named(_, item) | Kind::Single(_, item),
            NodeValue::Map(entries),
        ) => {
            let values = entries.iter_mut().map(|entry| &mut entry.value);
            values.for_each(|node| cast(item, node));
        }
        (Kind::Table(table), NodeValue::Map(entries)) => {
            for entry in entries {
                if let Some(key) = table().key(&entry.key.text) {
                    cast(&key.kind, &mut entry.value);
                }
            }
        }
        (Kind::ByType { scalar, list, map }, value) => {
            let fitting = match value {
                NodeValue::List(_) => list,
                NodeValue::Map(_) => map,
                _ => scalar,
            };
            if let Some(kind) = fitting {
                cast(kind, node);
            }
        }
        _ => {}
    }
}

fn scalar(leaf: Leaf, node: &mut Node) {
    let Some(text) = node.as_text() else { return };
    if node.is_template() {
        let Some(value) = Value::of_template(text) else {
            return;
        };
        let value = value.to_expression();
        let typed = match leaf {
            Leaf::Bool => {
                format!("{value} == null ? null : {value} in [true, 'true', 'yes', 'on', 'y']")
            }
            Leaf::Int(_) | Leaf::Number => {
                format!("type({value}) == string ? int({value}) : {value}")
            }
            _ => return,
        };
        *node = written_anew(format!("${{{{ {typed} }}}}"), node.span);
        return;
    }
    let typed = match leaf {
        Leaf::Bool => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Some(NodeValue::Bool(true)),
            "false" | "no" | "off" | "n" => Some(NodeValue::Bool(false)),
            _ => None,
        },
        Leaf::Int(_) => text.parse().ok().map(NodeValue::Int),
        Leaf::Number => match text.parse() {
            Ok(number) => Some(NodeValue::Int(number)),
            Err(_) => text.parse().ok().map(NodeValue::Float),
        },
        _ => None,
    };
    if let Some(value) = typed {
        node.value = value;
    }
}
