//! Finds what a Dockerfile uses that the engine's classic builder doesn't support, and its base images. Pure.

use std::collections::HashMap;

/// An instruction and the number of its first line.
struct Instruction<'a> {
    line: usize,
    word: String,
    rest: &'a str,
    /// Everything after the word, including continuation lines.
    whole: String,
    /// Flags directly after the word, including those on continuation lines.
    flags: Vec<String>,
}

/// Splits a Dockerfile into instructions and joins continuation lines as far as needed for flags.
fn instructions(text: &str) -> Vec<Instruction<'_>> {
    let mut all = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let (word, rest) = trimmed
            .split_once(char::is_whitespace)
            .unwrap_or((trimmed, ""));
        let mut whole = rest.trim_end_matches('\\').to_owned();
        let mut continued = line.trim_end().ends_with('\\');
        while continued {
            let Some((_, more)) = lines.next() else { break };
            if more.trim_start().starts_with('#') {
                continue;
            }
            continued = more.trim_end().ends_with('\\');
            whole.push(' ');
            whole.push_str(more.trim_end().trim_end_matches('\\'));
        }
        let flags = whole
            .split_whitespace()
            .take_while(|part| part.starts_with("--"))
            .map(str::to_owned)
            .collect();
        all.push(Instruction {
            line: number + 1,
            word: word.to_uppercase(),
            rest: rest.trim(),
            whole,
            flags,
        });
    }
    all
}

/// Returns an error about the first unsupported feature, with its line; `None` if there is none.
pub(super) fn beyond_classic(name: &str, text: &str) -> Option<String> {
    instructions(text).iter().find_map(|instruction| {
        let at = format!("{name}:{}", instruction.line);
        let flag = instruction.flags.iter().find(|flag| {
            let flag = flag.split('=').next().unwrap_or_default();
            match instruction.word.as_str() {
                "RUN" => matches!(flag, "--mount" | "--network" | "--security"),
                "COPY" | "ADD" => !matches!(flag, "--from" | "--chown"),
                _ => false,
            }
        });
        if let Some(flag) = flag {
            let flag = flag.split('=').next().unwrap_or_default();
            return Some(format!(
                "{at}: `{} {flag}` needs BuildKit, and images are built by the engine's classic builder here: build the image beforehand (`docker build`) and name it with `image`, or do without the flag",
                instruction.word
            ));
        }
        let here = matches!(instruction.word.as_str(), "RUN" | "COPY" | "ADD")
            && instruction.rest.starts_with("<<");
        here.then(|| {
            format!(
                "{at}: a here-document needs BuildKit, and images are built by the engine's classic builder here: write the lines with `&& \\`, or COPY a script"
            )
        })
    })
}

/// A stage that is put before those of a Dockerfile.
#[derive(Debug)]
pub(super) struct Stage {
    /// Its name.
    pub name: String,
    /// The image whose files it holds.
    pub image: String,
}

/// Returns a Dockerfile with further stages before its own: the engine's API has no other way to give a build a named
/// context. `name` is the Dockerfile's, for errors.
pub(super) fn with_stages(name: &str, text: &str, stages: &[Stage]) -> Result<String, String> {
    let instructions = instructions(text);
    let from = instructions.iter().filter(|one| one.word == "FROM");
    for one in from.clone() {
        let words: Vec<&str> = one.rest.split_whitespace().collect();
        let own = match words.as_slice() {
            [.., word, own] if word.eq_ignore_ascii_case("as") => *own,
            _ => continue,
        };
        if let Some(stage) = stages.iter().find(|s| s.name.eq_ignore_ascii_case(own)) {
            return Err(format!(
                "{name}:{}: the stage `{own}` has the name of the additional context `{}`: rename one of them",
                one.line, stage.name
            ));
        }
    }
    let counted = instructions.iter().find(|one| {
        let mut froms = one
            .flags
            .iter()
            .flat_map(|flag| flag.split([' ', ',', '=']));
        let has_from = froms.any(|part| matches!(part, "--from" | "from"));
        let digits = |flag: &String| {
            let from = flag.split("from=").nth(1).unwrap_or_default();
            from.starts_with(|c: char| c.is_ascii_digit())
        };
        has_from && one.flags.iter().any(digits)
    });
    if let Some(one) = counted {
        return Err(format!(
            "{name}:{}: `--from` with a number counts stages, and additional contexts are stages before them: give the stage a name (`FROM … AS NAME`)",
            one.line
        ));
    }
    let Some(first) = from.clone().next() else {
        return Err(format!("{name}: there is no FROM"));
    };
    let mut out = String::with_capacity(text.len() + 128);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if number + 1 == first.line {
            for Stage { name, image } in stages {
                out.push_str(&format!("FROM {image} AS {name}\n"));
            }
        }
        out.push_str(line);
    }
    Ok(out)
}

/// Returns the base images of all stages, without other stages and `scratch`.
pub(super) fn bases(text: &str) -> Vec<String> {
    let mut stages: Vec<String> = Vec::new();
    let mut bases: Vec<String> = Vec::new();
    for instruction in instructions(text).iter().filter(|i| i.word == "FROM") {
        let mut words = instruction
            .rest
            .split_whitespace()
            .skip_while(|word| word.starts_with("--"));
        let Some(image) = words.next() else { continue };
        let known = stages.iter().any(|stage| stage.eq_ignore_ascii_case(image));
        if !known && image != "scratch" && !image.contains('$') && !bases.iter().any(|b| b == image)
        {
            bases.push(image.to_owned());
        }
        if let (Some(word), Some(stage)) = (words.next(), words.next())
            && word.eq_ignore_ascii_case("as")
        {
            stages.push(stage.to_owned());
        }
    }
    bases
}

/// Something that the engine fetches for a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fetched {
    /// An image.
    Image(String),
    /// The image of the program that reads the Dockerfile and decides what else is fetched.
    Frontend(String),
    /// A URL or repository.
    Url(String),
    /// What only the build can tell, as it is written.
    Unknown(String),
}

/// Returns everything that the engine fetches for a build: base images, sources of `COPY --from` and of `RUN --mount`, URLs
/// of `ADD`, and the frontend. May return too much, but leaves nothing out that stands in the Dockerfile.
pub(super) fn fetched(text: &str, args: &HashMap<&str, &str>) -> Vec<Fetched> {
    let mut found = Finding::default();
    // The builder takes the frontend from this argument before any directive.
    if let Some(frontend) = args.get("BUILDKIT_SYNTAX") {
        found.all.push(Fetched::Frontend((*frontend).to_owned()));
    }
    let odd = odd_lines(text).map(|line| Fetched::Unknown(line.to_owned()));
    found.all.extend(odd);
    for line in text.lines().map(str::trim) {
        // Directives stand before everything else; a later comment does no harm here.
        let directive = line.strip_prefix('#').and_then(|line| line.split_once('='));
        match directive.map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim())) {
            Some((name, frontend)) if name == "syntax" => {
                found.all.push(Fetched::Frontend(frontend.to_owned()));
            }
            // Lines would continue at another sign than is looked for here.
            Some((name, sign)) if name == "escape" && sign != "\\" => {
                found.all.push(Fetched::Unknown(line.to_owned()));
            }
            _ => {}
        }
    }
    for instruction in instructions(text) {
        found.instruction(&instruction, args);
    }
    found.all
}

/// Returns the lines that a builder may read in another way than [`instructions`] does: words that go on in the next line,
/// signs before the first instruction, directives of other forms, and flags with escapes.
fn odd_lines(text: &str) -> impl Iterator<Item = &str> {
    let begins_oddly = |line: &str| {
        let line = line.trim_start();
        let directive = line.starts_with("//") && line.contains("syntax");
        line.starts_with(['\u{feff}', '{']) || directive
    };
    let joins_oddly = |line: &str, next: &str| {
        let Some(before) = line.trim_end().strip_suffix('\\') else {
            return false;
        };
        let apart = before.ends_with(char::is_whitespace) || next.starts_with(char::is_whitespace);
        before.ends_with('\\') || next.trim().is_empty() || !apart
    };
    let escapes = |line: &str| {
        let mut words = line.split_whitespace();
        words.any(|word| word.starts_with("--") && word.trim_end_matches('\\').contains('\\'))
    };
    let next = text.lines().skip(1).chain([""]);
    text.lines()
        .zip(next)
        .filter(move |(line, next)| begins_oddly(line) || joins_oddly(line, next) || escapes(line))
        .map(|(line, _)| line)
}

/// Returns whether a name is one that a stage may have.
fn is_stage(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

#[derive(Default)]
struct Finding {
    all: Vec<Fetched>,
    /// Variables that `FROM` knows.
    known: HashMap<String, String>,
    stages: Vec<String>,
    in_stage: bool,
}

impl Finding {
    fn instruction(&mut self, instruction: &Instruction<'_>, args: &HashMap<&str, &str>) {
        let words = || instruction.whole.split_whitespace();
        match instruction.word.as_str() {
            "ARG" if !self.in_stage => words().for_each(|word| self.argument(word, args)),
            "FROM" => {
                self.in_stage = true;
                let mut words = words().skip_while(|word| word.starts_with("--"));
                if let Some(image) = words.next() {
                    self.image(image);
                }
                // Other names come from lines that are no instructions, such as those of a here-document.
                if let (Some(_), Some(stage)) = (words.next(), words.next())
                    && is_stage(stage)
                {
                    self.stages.push(stage.to_owned());
                }
            }
            "ADD" => self.sources(&instruction.whole),
            "ONBUILD" => {
                let rest = instruction.whole.trim();
                if rest
                    .get(..4)
                    .is_some_and(|word| word.eq_ignore_ascii_case("add "))
                {
                    self.sources(rest.get(4..).unwrap_or_default());
                }
            }
            _ => {}
        }
        for flag in &instruction.flags {
            let Some((name, value)) = flag.split_once('=') else {
                continue;
            };
            if name.eq_ignore_ascii_case("--from") {
                self.image(value);
            }
            let is_mount = name.eq_ignore_ascii_case("--mount");
            for option in value.split(',').filter(|_| is_mount) {
                let option = option.trim_matches('"');
                if let Some((name, image)) = option.split_once('=')
                    && name.eq_ignore_ascii_case("from")
                {
                    self.image(image);
                }
            }
        }
    }

    fn argument(&mut self, word: &str, args: &HashMap<&str, &str>) {
        let (name, usual) = match word.split_once('=') {
            Some((name, usual)) => (name, Some(usual.trim_matches(['"', '\''].as_slice()))),
            None => (word, None),
        };
        if let Some(value) = args.get(name).copied().or(usual) {
            let value = filled(value, &self.known);
            self.known.insert(name.to_owned(), value);
        }
    }

    fn image(&mut self, image: &str) {
        let image = filled(image, &self.known);
        let stage = |stage: &String| stage.eq_ignore_ascii_case(&image);
        let number = image.bytes().all(|byte| byte.is_ascii_digit());
        if number || image == "scratch" || self.stages.iter().any(stage) {
            return;
        }
        let plain = !image.contains(['$', '\\', '"', '\'']);
        self.all.push(match plain {
            true => Fetched::Image(image),
            false => Fetched::Unknown(image),
        });
    }

    /// Notes the sources of an `ADD`. The last word is the target, which does no harm here.
    fn sources(&mut self, words: &str) {
        let words = words.split(|c: char| c.is_whitespace() || matches!(c, '[' | ']' | ',' | '"'));
        let words = words.filter(|word| !word.is_empty() && !word.starts_with("--"));
        for word in words {
            if word.contains(['$', '\\', '\'']) {
                self.all.push(Fetched::Unknown(format!("ADD {word}")));
            } else if word.contains("://") || is_repository(word) {
                self.all.push(Fetched::Url(word.to_owned()));
            }
        }
    }
}

/// Returns whether a source of `ADD` is a repository behind ssh: `git@HOST:PATH`.
fn is_repository(word: &str) -> bool {
    let after = word.split_once('@').map(|(_, after)| after);
    after.is_some_and(|after| after.contains(':')) || word.starts_with("github.com/")
}

/// Puts the values of variables into a text. What isn't known stays.
fn filled(text: &str, known: &HashMap<String, String>) -> String {
    let (mut whole, mut rest) = (String::new(), text);
    while let Some((start, after)) = rest.split_once('$') {
        whole.push_str(start);
        let braced = after
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'));
        let (name, left) = match braced {
            Some((inner, left)) => (inner, left),
            None => {
                let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
                after.split_at(after.find(word).unwrap_or(after.len()))
            }
        };
        let (name, usual) = match name.split_once(":-") {
            Some((name, usual)) => (name, Some(usual)),
            None => (name, None),
        };
        let value = known.get(name).map(String::as_str);
        match value
            .filter(|value| usual.is_none() || !value.is_empty())
            .or(usual)
        {
            Some(value) => whole.push_str(value),
            None => {
                whole.push('$');
                whole.push_str(name);
            }
        }
        rest = left;
    }
    whole + rest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_run_mount_is_refused_at_its_line_also_when_continued() {
        let text = "FROM a\n# RUN --mount\nRUN echo --mount\nrun \\\n  --mount=type=cache,target=/c \\\n  make\n";
        let error = beyond_classic("Dockerfile", text).unwrap();
        assert!(error.starts_with("Dockerfile:4: `RUN --mount`"), "{error}");
    }

    #[test]
    fn what_the_classic_builder_can_do_passes() {
        let text = "FROM a AS b\nCOPY --from=x --chown=1:1 a b\nRUN x \\\n && y\nENTRYPOINT [\"--mount\"]\n";
        assert_eq!(beyond_classic("Dockerfile", text), None);
    }

    #[test]
    fn here_documents_and_link_are_refused() {
        assert!(
            beyond_classic("D", "FROM a\nRUN <<EOF\nx\nEOF")
                .unwrap()
                .starts_with("D:2")
        );
        assert!(
            beyond_classic("D", "FROM a\nCOPY --link a b")
                .unwrap()
                .contains("COPY --link")
        );
    }

    #[test]
    fn everything_that_a_build_fetches_is_found() {
        let text = "# syntax=evil.example/frontend:1\n# a comment = x\nARG BASE=debian:12\nARG REG\nARG TAG=1\nFROM --platform=linux/amd64 ${BASE} AS build\nFROM ${REG}/x:$TAG\nFROM \\\n  quay.io/y AS last\nFROM scratch\nFROM build\nCOPY --from=ghcr.io/z /a /b\nCOPY --from=build --chown=1 /a /b\nCOPY --from=0 /a /b\nRUN --mount=type=cache,target=/c \\\n  --mount=type=bind,from=gcr.io/w,target=/d make\nFROM ${NONE:-h.example/i}\nFROM $NONE\nADD a b /c\nADD [\"http://127.0.0.1:1/x\", \"/c\"]\nADD --chown=1 git@g.example:r.git /c\nONBUILD ADD https://o.example/x /c\nADD $X /c\nADD h\\ttp://x /c\n";
        let args = HashMap::from([("REG", "r.example")]);
        let image = |text: &str| Fetched::Image(text.to_owned());
        let url = |text: &str| Fetched::Url(text.to_owned());
        let unknown = |text: &str| Fetched::Unknown(text.to_owned());
        assert_eq!(
            fetched(text, &args),
            [
                Fetched::Frontend("evil.example/frontend:1".to_owned()),
                image("debian:12"),
                image("r.example/x:1"),
                image("quay.io/y"),
                image("ghcr.io/z"),
                image("gcr.io/w"),
                image("h.example/i"),
                unknown("$NONE"),
                url("http://127.0.0.1:1/x"),
                url("git@g.example:r.git"),
                url("https://o.example/x"),
                unknown("ADD $X"),
                unknown("ADD h\\ttp://x"),
            ]
        );
        let odd = fetched("# escape=`\nFROM `\n evil.example/x\n", &args);
        assert!(odd.contains(&unknown("# escape=`")), "{odd:?}");
    }

    #[test]
    fn what_a_builder_may_read_in_another_way_is_unknown() {
        let none = HashMap::new();
        for text in [
            "FR\\\nOM evil.example/x\n",
            "FROM evil.exa\\\nmple/x\n",
            "RUN echo \\\\\nFROM evil.example/x\n",
            "RUN echo \\\n\nFROM evil.example/x\n",
            "\u{feff}FROM evil.example/x\n",
            "// syntax=evil.example/x\nFROM a\n",
            "{\"syntax\": \"evil.example/x\"}\nFROM a\n",
            "FROM a\nCOPY --fr\\om=evil.example/x / /y\n",
        ] {
            let found = fetched(text, &none);
            let unknown = |one: &Fetched| matches!(one, Fetched::Unknown(_));
            assert!(found.iter().any(unknown), "{text}: {found:?}");
        }
        let mount = "FROM a\nRUN --mount=type=bind,From=evil.example/x,target=/d true\n";
        let stage = "COPY <<E /x\nFROM a AS evil.example/x\nE\nFROM evil.example/x\n";
        for text in [mount, stage] {
            let evil = Fetched::Image("evil.example/x".to_owned());
            assert!(fetched(text, &none).contains(&evil), "{text}");
        }
        let usual = "FROM a\nRUN apt-get update \\\n    && apt-get install -y \\\n      git\n";
        assert_eq!(fetched(usual, &none), [Fetched::Image("a".to_owned())]);
        let args = HashMap::from([("BUILDKIT_SYNTAX", "evil.example/f")]);
        let frontend = Fetched::Frontend("evil.example/f".to_owned());
        assert!(fetched(usual, &args).contains(&frontend));
    }

    #[test]
    fn further_contexts_become_stages_before_the_first() {
        let stages = [
            Stage {
                name: "lib".to_owned(),
                image: "phalanx-build:2".to_owned(),
            },
            Stage {
                name: "base".to_owned(),
                image: "phalanx-build:1".to_owned(),
            },
        ];
        let with = |text: &str| with_stages("D", text, &stages);
        let text = "# syntax=x\nARG V=1\nFROM base\nCOPY --from=lib /a /b";
        assert_eq!(
            with(text).unwrap(),
            "# syntax=x\nARG V=1\nFROM phalanx-build:2 AS lib\nFROM phalanx-build:1 AS base\nFROM base\nCOPY --from=lib /a /b"
        );
        let why = with("FROM x AS Lib\n").unwrap_err();
        assert!(why.starts_with("D:1: the stage `Lib`"), "{why}");
        for counted in [
            "FROM x\nFROM y\nCOPY --from=0 a b\n",
            "FROM x\nFROM y\nRUN --mount=type=bind,from=0,target=/t x\n",
        ] {
            assert!(with(counted).unwrap_err().starts_with("D:3: `--from`"));
        }
        assert!(with("ARG X\n").unwrap_err().contains("no FROM"));
    }

    #[test]
    fn bases_leave_stages_out() {
        let text = "FROM --platform=linux/amd64 debian:12 AS build\nFROM scratch\nFROM build\nFROM alpine\nFROM $X\n";
        assert_eq!(bases(text), ["debian:12", "alpine"]);
    }
}
