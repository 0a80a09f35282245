//! Decodes `strategy` and `cell`.

use super::artifact::artifacts;
use super::fields::Fields;
use crate::diagnostic::Span;
use crate::language::model::{CellSettings, Strategy};
use crate::language::shape::name::is_extension;
use crate::node::Node;

/// Decodes the strategy. Without one there is a single cell.
pub fn strategy(node: Option<&Node>, whole: Span) -> Strategy {
    let Some(node) = node else {
        return Strategy {
            matrix: false,
            axes: Vec::new(),
            include: None,
            exclude: None,
            fail_fast: None,
            max_parallel: None,
            queue_timeout: None,
            max_skips: None,
            span: whole,
        };
    };
    let fields = Fields::of(node);
    let matrix = fields.entry("matrix");
    let inner = matrix.map(|entry| Fields::of(&entry.value));
    let axes = matrix.map_or(&[][..], |entry| entry.value.entries());
    Strategy {
        matrix: matrix.is_some_and(|entry| !entry.value.is_null()),
        axes: axes
            .iter()
            .filter(|axis| !matches!(axis.key.text.as_str(), "include" | "exclude"))
            .filter(|axis| !is_extension(&axis.key.text) && !axis.value.is_null())
            .map(|axis| (axis.key.clone(), axis.value.clone()))
            .collect(),
        include: inner.and_then(|fields| fields.node("include")),
        exclude: inner.and_then(|fields| fields.node("exclude")),
        fail_fast: fields.node("fail-fast"),
        max_parallel: fields.node("max-parallel"),
        queue_timeout: fields.node("queue-timeout"),
        max_skips: fields.node("max-skips"),
        span: matrix.map_or(fields.span, |entry| entry.key.span),
    }
}

/// Decodes the settings of every cell.
pub fn cell(node: Option<&Node>) -> CellSettings {
    let Some(node) = node else {
        return CellSettings::default();
    };
    let fields = Fields::of(node);
    let resources = fields.get("resources").map(Fields::of);
    CellSettings {
        name: fields.template("name"),
        runs_on: fields.node("runs-on"),
        cpus: resources.and_then(|fields| fields.node("cpus")),
        memory: resources.and_then(|fields| fields.node("memory")),
        timeout: fields.node("timeout"),
        attempts: fields.node("attempts"),
        retries: fields.node("retries"),
        experimental: fields.node("experimental"),
        artifacts: artifacts(&fields),
    }
}
