//! What every way of making a spec returns, and the first lines that all specs have.

/// A spec's text, and what the author should know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Text of the spec.
    pub spec: String,
    /// What was not taken over, or was changed, in the order of the source's lines.
    pub remarks: Vec<Remark>,
}

/// Something that was not taken over from the source, or means something else here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark {
    /// Line of the source, from 1.
    pub line: u32,
    /// What it is about, and what to do.
    pub text: String,
}

impl Remark {
    /// Returns a remark about a line.
    pub fn new(line: u32, text: impl Into<String>) -> Remark {
        Remark {
            line,
            text: text.into(),
        }
    }
}

/// Path of the schema, relative to the spec. The directory holds only what can be made again.
pub const SCHEMA: &str = ".phalanx/spec.schema.json";

/// Where the language is described.
pub const LANGUAGE: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/spec.md");

/// Returns the first lines of a spec: the schema for editors, what it was made from, the commands to try.
pub fn head(file: &str, origin: &str) -> String {
    format!(
        "\
# yaml-language-server: $schema={SCHEMA}
# A test matrix for Phalanx, made by `phalanx init` {origin}.
#
#   phalanx validate {file}                              all that is wrong with it, at once
#   phalanx plan {file}                                  the cells that it makes
#   phalanx run {file} --report html=.phalanx/run.html   runs all cells, and writes a page about them

"
    )
}
