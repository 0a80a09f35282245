//! Finds what a Dockerfile uses that the engine's classic builder doesn't support, and its base images. Pure.

/// An instruction and the number of its first line.
struct Instruction<'a> {
    line: usize,
    word: String,
    rest: &'a str,
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
    fn bases_leave_stages_out() {
        let text = "FROM --platform=linux/amd64 debian:12 AS build\nFROM scratch\nFROM build\nFROM alpine\nFROM $X\n";
        assert_eq!(bases(text), ["debian:12", "alpine"]);
    }
}
