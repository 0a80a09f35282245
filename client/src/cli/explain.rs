//! `phalanx explain`: prints the page of an error code. The pages docs/errors/*.md are compiled into the program.

use super::error::CliError;
use super::{Context, exit, say};
use phalanx_shared::error_code::ErrorCode;

/// Explain an error code
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Error code, such as PHX0001 [default: list all]
    code: Option<String>,
}

macro_rules! pages {
    ($($code:literal),* $(,)?) => {
        /// Every code with its page.
        pub const PAGES: &[(&str, &str)] = &[
            $(($code, include_str!(concat!("../../../docs/errors/", $code, ".md")))),*
        ];
    };
}

pages![
    "PHX0001", "PHX0002", "PHX0003", "PHX0004", "PHX0005", "PHX0006", "PHX0007", "PHX0008",
    "PHX0009", "PHX0010", "PHX0011", "PHX0012", "PHX0013", "PHX0014", "PHX0015", "PHX0016",
    "PHX0017", "PHX0018", "PHX0019", "PHX0020", "PHX0021", "PHX0022", "PHX0023", "PHX0024",
    "PHX0030", "PHX0031", "PHX0032", "PHX0040", "PHX0041", "PHX0042", "PHX0043"
];

/// Runs the command.
pub fn run(args: &Args, _context: &Context) -> Result<u8, CliError> {
    let text = match &args.code {
        None => PAGES
            .iter()
            .map(|(code, page)| format!("{code}  {}\n", title(page)))
            .collect(),
        Some(code) => page(code)?.to_owned(),
    };
    say::to_stdout(text)?;
    Ok(exit::OK)
}

fn page(text: &str) -> Result<&'static str, CliError> {
    let code = ErrorCode::parse(text).map(|code| code.to_string());
    let found = PAGES
        .iter()
        .find(|(known, _)| code.as_deref() == Some(known));
    found.map(|(_, page)| *page).ok_or_else(|| {
        let error = CliError::usage(format!("there is no error code `{text}`"));
        error.with_help("phalanx explain lists them")
    })
}

/// Returns the heading without the code.
fn title(page: &str) -> &str {
    let heading = page.lines().next().unwrap_or_default();
    heading.split_once(": ").map_or(heading, |(_, title)| title)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_page_is_in_the_program_and_names_its_code() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors");
        let files = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        let mut files: Vec<String> = files.map(|name| name.into_string().unwrap()).collect();
        files.sort();
        let known: Vec<String> = PAGES.iter().map(|(code, _)| format!("{code}.md")).collect();
        assert_eq!(files, known);
        for (code, page) in PAGES {
            assert!(page.starts_with(&format!("# {code}: ")), "{code}");
        }
    }

    #[test]
    fn every_code_has_a_page_and_every_page_a_code() {
        let codes: Vec<String> = ErrorCode::all().map(|code| code.to_string()).collect();
        let pages: Vec<&str> = PAGES.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes, pages);
    }

    #[test]
    fn every_code_is_given_by_some_error_and_every_code_in_a_text_has_a_page() {
        fn sources(folder: &std::path::Path, text: &mut String) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    sources(&path, text);
                } else if path.extension().is_some_and(|e| e == "rs")
                    && !path.ends_with("explain.rs")
                    && !path.ends_with("error_code.rs")
                {
                    *text += &std::fs::read_to_string(path).unwrap();
                }
            }
        }
        let mut text = String::new();
        for folder in [
            "src",
            "../report/src",
            "../coordinator/src",
            "../shared/src",
            "../agent/src",
        ] {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
            sources(&folder, &mut text);
        }
        for code in ErrorCode::all() {
            let named =
                text.contains(&format!("Code::{code:?}")) || text.contains(&code.to_string());
            assert!(named, "{code} ({code:?}) is given by no error");
        }
        for (at, _) in text.match_indices("explain PHX") {
            let code = text.get(at + 8..at + 15).unwrap();
            assert!(ErrorCode::parse(code).is_some(), "{code} has no page");
        }
    }
}
