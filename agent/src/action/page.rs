//! The text of an HTML page, for the one line that says why a step failed. It isn't a parser: what it can't read it shows
//! as it is.

/// Elements whose content nobody sees.
const UNSEEN: [&str; 4] = ["script", "style", "svg", "template"];
/// Character references that error pages use.
const REFERENCES: [(&str, &str); 8] = [
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("&quot;", "\""),
    ("&#x27;", "'"),
    ("&#39;", "'"),
    ("&apos;", "'"),
    ("&nbsp;", " "),
    // Last, so that `&amp;lt;` stays a text about `<`.
    ("&amp;", "&"),
];

/// Returns the text without tags, comments and what is never seen, in one line.
pub fn text(html: &str) -> String {
    let mut out = String::with_capacity(html.len() / 2);
    let mut rest = html;
    while let Some((before, tag)) = rest.split_once('<') {
        out.push_str(before);
        rest = match tag.strip_prefix("!--") {
            Some(comment) => comment.split_once("-->").map_or("", |(_, after)| after),
            // `a < b` is no tag.
            None if !tag
                .starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?')) =>
            {
                out.push('<');
                tag
            }
            None => after(tag),
        };
        out.push(' ');
    }
    out.push_str(rest);
    let out = REFERENCES.iter().fold(out, |text, (reference, character)| {
        text.replace(reference, character)
    });
    one_line(&out)
}

/// Returns a text with each run of white space as one space.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns what follows a tag, and its element if nobody sees that. `tag` begins behind the `<`.
fn after(tag: &str) -> &str {
    let name = tag
        .split(|c: char| !c.is_ascii_alphanumeric())
        .next()
        .unwrap_or_default();
    let Some((_, inside)) = tag.split_once('>') else {
        return "";
    };
    if !UNSEEN
        .iter()
        .any(|unseen| name.eq_ignore_ascii_case(unseen))
    {
        return inside;
    }
    let end = inside.match_indices("</").find(|(at, _)| {
        let closing = inside
            .get(at + 2..)
            .and_then(|closing| closing.get(..name.len()));
        closing.is_some_and(|closing| closing.eq_ignore_ascii_case(name))
    });
    let behind = end.and_then(|(at, _)| inside.get(at..)?.split_once('>'));
    behind.map_or("", |(_, after)| after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_page_is_read_as_a_person_reads_it() {
        let page = "<!DOCTYPE html>\n<html><head><title>Server Error</title>\n<style>p { color: red }</style>\
            <SCRIPT src='x'>if (a < b) {}</script></head><!-- <p>no</p> -->\n<body><h1>Oh</h1>\n\n<pre>&lt;class \
            &#x27;OperationalError&#x27;&gt;\n\nclosed &amp;lt; 1 < 2</pre></body></html>";
        assert_eq!(
            text(page),
            "Server Error Oh <class 'OperationalError'> closed &lt; 1 < 2"
        );
    }

    #[test]
    fn any_text_can_be_read() {
        for (html, seen) in [
            ("", ""),
            ("just text", "just text"),
            ("<", "<"),
            ("a<", "a<"),
            ("<p", ""),
            ("<!-- never closed", ""),
            ("<script>never closed", ""),
            ("<script>x</script", ""),
            ("<é>", "<é>"),
            ("a</", "a"),
        ] {
            assert_eq!(text(html).replace(' ', ""), seen.replace(' ', ""), "{html}");
        }
    }
}
