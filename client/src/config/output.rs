//! Settings of the output.

use super::Setting;
use super::setting::{Choice, SettingType};
use config::Value;

/// When to colour output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always, also in files and pipes.
    Always,
    /// Never.
    Never,
}

impl Choice for Color {
    const WORDS: &'static [(&'static str, Color)] = &[
        ("auto", Color::Auto),
        ("always", Color::Always),
        ("never", Color::Never),
    ];
}

impl SettingType for Color {
    fn parse(value: &Value) -> Result<Color, String> {
        Color::read(value)
    }

    fn show(&self) -> String {
        self.word().to_owned()
    }
}

/// When to colour output.
pub const COLOR: Setting<Color> = Setting {
    key: "color",
    unit: "",
    doc: "when to colour the output: auto, always or never",
    default: |_| Color::Auto,
};

/// Axis for the columns of the coverage table.
pub const COVERAGE_AXIS: Setting<String> = Setting {
    key: "coverage_axis",
    unit: "",
    doc: "axis for the columns of the coverage table (`cell` for one column per cell); empty for the axis along which rows differ most",
    default: |_| String::new(),
};

/// Filter of the program's own log.
pub const LOG_FILTER: Setting<String> = Setting {
    key: "log.filter",
    unit: "",
    doc: "what the program logs about itself: a level, or target=level,…; empty for info in serve and agent, else warn",
    default: |_| String::new(),
};

/// Format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Choice for LogFormat {
    const WORDS: &'static [(&'static str, LogFormat)] =
        &[("text", LogFormat::Text), ("json", LogFormat::Json)];
}

impl SettingType for LogFormat {
    fn parse(value: &Value) -> Result<LogFormat, String> {
        LogFormat::read(value)
    }

    fn show(&self) -> String {
        self.word().to_owned()
    }
}

/// Format of the program's own log.
pub const LOG_FORMAT: Setting<LogFormat> = Setting {
    key: "log.format",
    unit: "",
    doc: "format of the program's own log: text or json",
    default: |_| LogFormat::Text,
};
