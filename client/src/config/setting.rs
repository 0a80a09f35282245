//! What a setting consists of: a key, a type with a unit, a default that may depend on the machine, and a one-line doc.

use config::{Value, ValueKind};
use std::path::PathBuf;

/// Values that defaults depend on, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Number of logical CPUs.
    pub cpus: u32,
    /// The directory for persistent state of programs: `$XDG_STATE_HOME`, or `~/.local/state`.
    pub state_home: PathBuf,
}

impl Machine {
    /// Reads the values of this machine.
    pub fn here() -> Machine {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let absolute = |name: &str| {
            let path = PathBuf::from(std::env::var_os(name)?);
            path.is_absolute().then_some(path)
        };
        let state_home = absolute("XDG_STATE_HOME")
            .or_else(|| Some(absolute("HOME")?.join(".local/state")))
            .unwrap_or_else(|| std::env::temp_dir().join("phalanx-state"));
        Machine {
            cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
            state_home,
        }
    }
}

/// A setting of type `T`.
#[derive(Debug)]
pub struct Setting<T: 'static> {
    /// Name in files; dots are tables.
    pub key: &'static str,
    /// Unit of the value; empty if it has none.
    pub unit: &'static str,
    /// What the setting does, in one sentence.
    pub doc: &'static str,
    /// Value if no layer gives one.
    pub default: fn(&Machine) -> T,
}

/// The type of a setting's value.
pub trait SettingType: Sized + 'static {
    /// Parses a value from a file (typed) or from a variable or flag (text). The error says what was expected.
    fn parse(value: &Value) -> Result<Self, String>;
    /// Formats the value as `phalanx config` shows it and files accept it.
    fn show(&self) -> String;
}

/// A setting of any type.
pub trait AnySetting: Sync {
    /// Name in files.
    fn key(&self) -> &'static str;
    /// Unit of the value.
    fn unit(&self) -> &'static str;
    /// What the setting does.
    fn doc(&self) -> &'static str;
    /// Checks a value. The error says what was expected.
    fn check(&self, value: &Value) -> Result<(), String>;
    /// Formats a value, or the default.
    fn show(&self, value: Option<&Value>, machine: &Machine) -> String;
    /// Returns the name of the variable that gives it.
    fn variable(&self) -> String {
        format!("PHALANX_{}", self.key().replace('.', "__").to_uppercase())
    }
}

impl<T: SettingType> AnySetting for Setting<T> {
    fn key(&self) -> &'static str {
        self.key
    }

    fn unit(&self) -> &'static str {
        self.unit
    }

    fn doc(&self) -> &'static str {
        self.doc
    }

    fn check(&self, value: &Value) -> Result<(), String> {
        T::parse(value).map(|_| ())
    }

    fn show(&self, value: Option<&Value>, machine: &Machine) -> String {
        value
            .and_then(|value| T::parse(value).ok())
            .unwrap_or_else(|| (self.default)(machine))
            .show()
    }
}

impl SettingType for u32 {
    fn parse(value: &Value) -> Result<u32, String> {
        u64::parse(value)
            .ok()
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| "a whole number from 0 to 4294967295".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl SettingType for u64 {
    fn parse(value: &Value) -> Result<u64, String> {
        let number = match &value.kind {
            ValueKind::I64(number) => u64::try_from(*number).ok(),
            ValueKind::U64(number) => Some(*number),
            ValueKind::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| "a whole number from 0 up".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A factor above zero.
impl SettingType for f64 {
    fn parse(value: &Value) -> Result<f64, String> {
        let number = match &value.kind {
            ValueKind::Float(number) => Some(*number),
            ValueKind::I64(number) => Some(*number as f64),
            ValueKind::U64(number) => Some(*number as f64),
            ValueKind::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number
            .filter(|number| number.is_finite() && *number > 0.0)
            .ok_or_else(|| "a number above 0".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl SettingType for bool {
    fn parse(value: &Value) -> Result<bool, String> {
        match &value.kind {
            ValueKind::Boolean(flag) => Ok(*flag),
            ValueKind::String(text) if matches!(text.as_str(), "true" | "1") => Ok(true),
            ValueKind::String(text) if matches!(text.as_str(), "false" | "0") => Ok(false),
            _ => Err("true or false".to_owned()),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A text; empty means "not set".
impl SettingType for String {
    fn parse(value: &Value) -> Result<String, String> {
        match &value.kind {
            ValueKind::String(text) => Ok(text.clone()),
            _ => Err("text in quotes".to_owned()),
        }
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl SettingType for PathBuf {
    fn parse(value: &Value) -> Result<PathBuf, String> {
        match &value.kind {
            // Relative paths refer to the directory where the program was started. They are made absolute because
            // processes that run elsewhere receive them.
            ValueKind::String(text) if !text.is_empty() => {
                std::path::absolute(text).map_err(|error| format!("a path: {error}"))
            }
            _ => Err("a path".to_owned()),
        }
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

/// A list; variables and flags separate its items by commas.
impl SettingType for Vec<String> {
    fn parse(value: &Value) -> Result<Vec<String>, String> {
        let expected = || "a list of texts".to_owned();
        match &value.kind {
            ValueKind::String(text) => {
                let items = text
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty());
                Ok(items.map(str::to_owned).collect())
            }
            ValueKind::Array(items) => {
                let items = items.iter().map(|item| match &item.kind {
                    ValueKind::String(text) => Ok(text.clone()),
                    _ => Err(expected()),
                });
                items.collect()
            }
            _ => Err(expected()),
        }
    }

    fn show(&self) -> String {
        self.join(",")
    }
}

/// A setting with a fixed set of words.
pub trait Choice: Sized + Copy + PartialEq + 'static {
    /// Each value with its word.
    const WORDS: &'static [(&'static str, Self)];

    /// Parses a value.
    fn read(value: &Value) -> Result<Self, String> {
        let words = || Self::WORDS.iter();
        let found = match &value.kind {
            ValueKind::String(text) => words().find(|(word, _)| word == text),
            _ => None,
        };
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let words: Vec<&str> = words().map(|(word, _)| *word).collect();
            format!("one of {}", words.join(", "))
        })
    }

    /// Returns the word of a value.
    fn word(self) -> &'static str {
        let found = Self::WORDS.iter().find(|(_, choice)| *choice == self);
        found.map_or("", |(word, _)| word)
    }
}
